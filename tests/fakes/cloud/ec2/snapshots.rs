//! Snapshots, seen from EC2.

use super::super::answer::{Outcome, Refusal, Xml, refuse};
use super::super::policy::Need;
use super::super::query::{Kind, TEXT, may, must};
use super::super::snapshot::{Snapshot, SnapshotState};
use super::super::world::State;
use super::{Action, Context, PAGE, time, write_tags};

const ID: Kind = Kind::Id("snap");

pub(super) const ACTIONS: &[Action] = &[
    Action {
        name: "DescribeSnapshots",
        fields: &[&PAGE, &[may("SnapshotId.#", ID), may("Owner.#", TEXT), may("RestorableBy.#", Kind::Lacking)]],
        run: describe,
    },
    Action { name: "DeleteSnapshot", fields: &[&[must("SnapshotId", ID)]], run: delete },
    Action {
        name: "ModifySnapshotAttribute",
        fields: &[&[
            must("SnapshotId", ID),
            may("Attribute", Kind::OneOf(&["createVolumePermission"])),
            may("OperationType", Kind::OneOf(&["add", "remove"])),
            may("UserId.#", TEXT),
            may("UserGroup.#", Kind::OneOf(&["all"])),
            may("CreateVolumePermission.Add.#.UserId", TEXT),
            may("CreateVolumePermission.Add.#.Group", Kind::OneOf(&["all"])),
            may("CreateVolumePermission.Remove.#.UserId", TEXT),
            may("CreateVolumePermission.Remove.#.Group", Kind::OneOf(&["all"])),
        ]],
        run: modify,
    },
];

/// What is said of a snapshot that is not there.
pub(super) fn not_found(id: &str) -> Refusal {
    Refusal::new("InvalidSnapshot.NotFound", format!("The snapshot '{id}' does not exist."))
}

fn describe(context: &Context<'_>, state: &mut State, xml: &mut Xml) -> Outcome<()> {
    context.may(&[Need::new("ec2:DescribeSnapshots", "*")])?;
    let query = context.query;
    let account = &context.caller.account;
    let ids = query.texts("SnapshotId");
    if !ids.is_empty() && query.get("MaxResults").is_some() {
        let message = "The parameter snapshotIds cannot be used with the parameter maxResults";
        return refuse("InvalidParameterCombination", message);
    }
    let owners = query.texts("Owner");
    let is_owner = |owner: &String| {
        owners.is_empty() || owners.iter().any(|known| known == owner || known == "self" && owner == account)
    };
    let snapshots = &mut state.region(&context.caller.region).snapshots;
    let is_visible = |snapshot: &Snapshot| snapshot.is_open_to(account);
    for id in &ids {
        if !snapshots.get(id).is_some_and(is_visible) {
            return Err(not_found(id));
        }
    }
    let mut found = Vec::new();
    for snapshot in snapshots.values_mut() {
        let is_named = ids.is_empty() || ids.contains(&snapshot.id);
        let is_meant = is_named && is_visible(snapshot) && is_owner(&snapshot.owner);
        if is_meant && context.passes(|name| filtered(snapshot, name))? {
            found.push(snapshot.clone());
            snapshot.polled();
        }
    }
    let (shown, next) = context.page(found)?;
    xml.list("snapshotSet", &shown, write).maybe("nextToken", next);
    Ok(())
}

fn filtered(snapshot: &Snapshot, name: &str) -> Option<Vec<String>> {
    Some(match name {
        "owner-id" => vec![snapshot.owner.clone()],
        "status" => vec![snapshot.status().to_owned()],
        "snapshot-id" => vec![snapshot.id.clone()],
        "description" => vec![snapshot.description.clone()],
        "encrypted" => vec![snapshot.encrypted.to_string()],
        "volume-size" => vec![snapshot.gib.to_string()],
        "tag-key" => snapshot.tags.keys().cloned().collect(),
        name => snapshot.tags.get(name.strip_prefix("tag:")?).cloned().into_iter().collect(),
    })
}

fn write(xml: &mut Xml, snapshot: &Snapshot) {
    let progress = match snapshot.state {
        SnapshotState::Completed => "100%",
        SnapshotState::Pending(_) => "55%",
        SnapshotState::Open | SnapshotState::Error => "0%",
    };
    xml.text("snapshotId", &snapshot.id).text("ownerId", &snapshot.owner).text("status", snapshot.status());
    // Snapshots that come from no volume name one all the same.
    xml.text("volumeId", "vol-ffffffff").text("volumeSize", snapshot.gib).text("progress", progress);
    xml.text("startTime", time(snapshot.started)).text("description", &snapshot.description);
    xml.text("encrypted", snapshot.encrypted).maybe("kmsKeyId", snapshot.kms_key.as_ref());
    xml.text("storageTier", "standard");
    write_tags(xml, &snapshot.tags);
}

/// A snapshot that the caller owns, and the permission to do something with it.
fn owned<'a>(context: &Context<'_>, state: &'a mut State, action: &'static str) -> Outcome<(&'a mut Snapshot, Need)> {
    let id = context.query.text("SnapshotId");
    let caller = context.caller;
    let found = state.region(&caller.region).snapshots.get_mut(&id).ok_or_else(|| not_found(&id))?;
    if !found.is_open_to(&caller.account) {
        return Err(not_found(&id));
    }
    let need = Need::new(action, caller.snapshot_arn(&id)).with("ec2:Owner", &found.owner).of_tagged(&found.tags);
    if found.owner != caller.account {
        return refuse("OperationNotPermitted", format!("{id} belongs to another account"));
    }
    Ok((found, need))
}

fn delete(context: &Context<'_>, state: &mut State, xml: &mut Xml) -> Outcome<()> {
    let need = owned(context, state, "ec2:DeleteSnapshot")?.1;
    context.may(&[need])?;
    let id = context.query.text("SnapshotId");
    let region = state.region(&context.caller.region);
    if let Some(image) = region.images.values().find(|image| image.snapshots().any(|known| *known == id)) {
        let message = format!("The snapshot {id} is currently in use by {}", image.id);
        return refuse("InvalidSnapshot.InUse", message);
    }
    region.snapshots.remove(&id);
    xml.text("return", true);
    Ok(())
}

fn modify(context: &Context<'_>, state: &mut State, xml: &mut Xml) -> Outcome<()> {
    let (snapshot, need) = owned(context, state, "ec2:ModifySnapshotAttribute")?;
    context.may(&[need])?;
    let query = context.query;
    let mut changes = Vec::new();
    for (list, is_added) in [("CreateVolumePermission.Add", true), ("CreateVolumePermission.Remove", false)] {
        changes.extend(query.list(list).iter().map(|who| (who.maybe("UserId"), is_added)));
    }
    let (users, groups) = (query.texts("UserId"), query.texts("UserGroup"));
    if !users.is_empty() || !groups.is_empty() {
        let (Some("createVolumePermission"), Some(operation)) = (query.get("Attribute"), query.get("OperationType"))
        else {
            return refuse("InvalidParameterCombination", "Users need an attribute and an operation");
        };
        let users = users.into_iter().map(Some).chain(groups.iter().map(|_| None));
        changes.extend(users.map(|user| (user, operation == "add")));
    }
    if changes.is_empty() {
        return refuse("MissingParameter", "No attributes specified");
    }
    if snapshot.encrypted && snapshot.kms_key.is_none() {
        let message = "Encrypted snapshots with the default key can't be shared";
        return refuse("OperationNotPermitted", message);
    }
    let is_account = |user: &String| user.len() == 12 && user.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(user) = changes.iter().filter_map(|(user, _)| user.as_ref()).find(|user| !is_account(user)) {
        return refuse("InvalidUserID.Malformed", format!("Invalid user id: \"{user}\""));
    }
    for (user, is_added) in changes {
        match (user, is_added) {
            (None, is_added) => snapshot.is_public = is_added,
            (Some(user), true) => _ = snapshot.users.insert(user),
            (Some(user), false) => _ = snapshot.users.remove(&user),
        }
    }
    xml.text("return", true);
    Ok(())
}
