//! Attributes of images: who may launch them, and the few others that may change.

use super::super::answer::{Outcome, Xml, refuse};
use super::super::policy::Need;
use super::super::query::{Field, Kind, Query, TEXT, may, must};
use super::super::world::State;
use super::images::{ID, Permission, write_mapping};
use super::{Action, Context};

const ATTRIBUTES: Kind = Kind::OneOf(&[
    "description",
    "launchPermission",
    "lastLaunchedTime",
    "blockDeviceMapping",
    "bootMode",
    "tpmSupport",
    "uefiData",
    "imdsSupport",
    "sriovNetSupport",
]);
const MODIFY: &[Field] = &[
    must("ImageId", ID),
    may("Attribute", Kind::OneOf(&["description", "launchPermission", "imdsSupport"])),
    may("OperationType", Kind::OneOf(&["add", "remove"])),
    may("Value", TEXT),
    may("Description.Value", Kind::Text(0, 255)),
    may("ImdsSupport.Value", Kind::OneOf(&["v2.0"])),
    may("UserId.#", TEXT),
    may("UserGroup.#", TEXT),
    may("OrganizationArn.#", TEXT),
    may("OrganizationalUnitArn.#", TEXT),
    may("LaunchPermission.Add.#.UserId", TEXT),
    may("LaunchPermission.Add.#.Group", TEXT),
    may("LaunchPermission.Add.#.OrganizationArn", TEXT),
    may("LaunchPermission.Add.#.OrganizationalUnitArn", TEXT),
    may("LaunchPermission.Remove.#.UserId", TEXT),
    may("LaunchPermission.Remove.#.Group", TEXT),
    may("LaunchPermission.Remove.#.OrganizationArn", TEXT),
    may("LaunchPermission.Remove.#.OrganizationalUnitArn", TEXT),
    may("ProductCode.#", Kind::Lacking),
];

pub(super) const ACTIONS: &[Action] = &[
    Action { name: "ModifyImageAttribute", fields: &[MODIFY], run: modify },
    Action {
        name: "DescribeImageAttribute",
        fields: &[&[must("ImageId", ID), must("Attribute", ATTRIBUTES)]],
        run: describe,
    },
];

/// Somebody that a permission names, if it is really a name of that kind.
fn permission(kind: &str, value: &str) -> Outcome<Permission> {
    let is_account = value.len() == 12 && value.bytes().all(|byte| byte.is_ascii_digit());
    let is_arn = |of: &str, prefix: &str| {
        let rest = value.strip_prefix("arn:aws:organizations::").and_then(|rest| rest.split_once(':'));
        rest.is_some_and(|(account, rest)| {
            let path = rest.strip_prefix(of).map(|path| path.split('/').collect::<Vec<_>>());
            account.len() == 12 && path.is_some_and(|path| path.last().is_some_and(|id| id.starts_with(prefix)))
        })
    };
    match kind {
        "UserId" if is_account => Ok(Permission::Account(value.to_owned())),
        "Group" if value == "all" => Ok(Permission::Everybody),
        "OrganizationArn" if is_arn("organization/", "o-") => Ok(Permission::Organization(value.to_owned())),
        "OrganizationalUnitArn" if is_arn("ou/", "ou-") => Ok(Permission::Unit(value.to_owned())),
        _ => {
            let message = format!("Invalid attribute item value \"{value}\" for {kind} item type.");
            refuse("InvalidAMIAttributeItemValue", message)
        }
    }
}

const KINDS: [&str; 4] = ["UserId", "Group", "OrganizationArn", "OrganizationalUnitArn"];

/// All that is to be added and removed, in both of the ways to say it.
fn changes(query: &Query) -> Outcome<Vec<(Permission, bool)>> {
    let mut changes = Vec::new();
    for (list, is_added) in [("LaunchPermission.Add", true), ("LaunchPermission.Remove", false)] {
        for item in query.list(list) {
            let said: Vec<_> = KINDS.iter().filter_map(|kind| Some((kind, item.get(kind)?))).collect();
            let [(kind, value)] = said[..] else {
                return refuse("InvalidParameterCombination", "A launch permission names one party");
            };
            changes.push((permission(kind, value)?, is_added));
        }
    }
    let mut old = Vec::new();
    for (list, kind) in KINDS.map(|kind| (if kind == "Group" { "UserGroup" } else { kind }, kind)) {
        for value in query.texts(list) {
            old.push(permission(kind, &value)?);
        }
    }
    if !old.is_empty() {
        let Some(operation) = query.get("OperationType") else {
            return refuse("MissingParameter", "The request must contain the parameter OperationType");
        };
        if query.get("Attribute").is_some_and(|attribute| attribute != "launchPermission") {
            return refuse("InvalidParameterCombination", "Parties go with launchPermission only");
        }
        changes.extend(old.into_iter().map(|permission| (permission, operation == "add")));
    }
    Ok(changes)
}

fn modify(context: &Context<'_>, state: &mut State, xml: &mut Xml) -> Outcome<()> {
    let query = context.query;
    let id = query.text("ImageId");
    let changes = changes(query)?;
    let (image, need) = state.own_image(context.caller, &id, "ec2:ModifyImageAttribute")?;
    context.may(&[need])?;
    let value = |attribute: &str| query.maybe("Value").filter(|_| query.get("Attribute") == Some(attribute));
    let description = query.maybe("Description.Value").or_else(|| value("description"));
    let imds = query.maybe("ImdsSupport.Value").or_else(|| value("imdsSupport"));
    let count = [!changes.is_empty(), description.is_some(), imds.is_some()];
    if count.iter().filter(|&&is_said| is_said).count() != 1 {
        return refuse("InvalidParameterCombination", "One attribute is modified at a time");
    }
    let snapshots: Vec<String> = image.snapshots().cloned().collect();
    let encrypted = |state: &State, id: &String| {
        let region = state.regions.get(&context.caller.region);
        region
            .and_then(|region| region.snapshots.get(id))
            .is_some_and(|found| found.encrypted && found.kms_key.is_none())
    };
    if changes.iter().any(|(_, is_added)| *is_added) && snapshots.iter().any(|id| encrypted(state, id)) {
        let message = "Image cannot be shared: its snapshots are encrypted with the account's default key";
        return refuse("InvalidParameterValue", message);
    }
    let (image, _) = state.own_image(context.caller, &id, "ec2:ModifyImageAttribute")?;
    for (permission, is_added) in changes {
        if is_added {
            image.permissions.insert(permission);
        } else {
            image.permissions.remove(&permission);
        }
    }
    image.description = description.or(image.description.take());
    image.imds_support = imds.or(image.imds_support.take());
    xml.text("return", true);
    Ok(())
}

fn describe(context: &Context<'_>, state: &mut State, xml: &mut Xml) -> Outcome<()> {
    let id = context.query.text("ImageId");
    let (image, _) = state.own_image(context.caller, &id, "ec2:DescribeImageAttribute")?;
    context.may(&[Need::new("ec2:DescribeImageAttribute", context.caller.image_arn(&id)).of_tagged(&image.tags)])?;
    xml.text("imageId", &id);
    let attribute = context.query.text("Attribute");
    let value = match &*attribute {
        "launchPermission" => {
            xml.list("launchPermission", &image.permissions, |xml, permission| {
                match permission {
                    Permission::Account(id) => xml.text("userId", id),
                    Permission::Everybody => xml.text("group", "all"),
                    Permission::Organization(arn) => xml.text("organizationArn", arn),
                    Permission::Unit(arn) => xml.text("organizationalUnitArn", arn),
                };
            });
            return Ok(());
        }
        "blockDeviceMapping" => {
            xml.list("blockDeviceMapping", &image.mappings, write_mapping);
            return Ok(());
        }
        // Nobody launches anything here.
        "lastLaunchedTime" => None,
        "description" => image.description.as_ref(),
        "bootMode" => image.boot_mode.as_ref(),
        "tpmSupport" => image.tpm_support.as_ref(),
        "uefiData" => image.uefi_data.as_ref(),
        "imdsSupport" => image.imds_support.as_ref(),
        _ => image.sriov_net_support.as_ref(),
    };
    xml.within(&attribute, |xml| {
        xml.maybe("value", value);
    });
    Ok(())
}
