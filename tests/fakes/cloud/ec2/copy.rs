//! `CopyImage`: from another region, or from another account that shares the image and its snapshots.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::super::answer::{Outcome, Refusal, Xml, refuse};
use super::super::policy::Need;
use super::super::query::{Field, Kind, TEXT, may, must};
use super::super::snapshot::{Snapshot, SnapshotState};
use super::super::world::{State, Tags, new_id};
use super::images::{self, Image, ImageState, Mapping};
use super::register::check_name;
use super::tags::{SPECIFICATIONS, need, only_for, specified};
use super::{Action, Context};

/// How many polls find a copy pending.
const POLLS: u32 = 3;

const COPY: &[Field] = &[
    must("Name", TEXT),
    must("SourceImageId", images::ID),
    must("SourceRegion", Kind::Text(1, 64)),
    may("Description", Kind::Text(0, 255)),
    may("ClientToken", Kind::Text(0, 128)),
    may("Encrypted", Kind::Bool),
    may("KmsKeyId", TEXT),
    may("CopyImageTags", Kind::Bool),
    may("DestinationOutpostArn", Kind::Lacking),
    may("DestinationAvailabilityZone", Kind::Lacking),
    may("DestinationAvailabilityZoneId", Kind::Lacking),
    may("SnapshotCopyCompletionDurationMinutes", Kind::Lacking),
];

pub(super) const ACTIONS: &[Action] = &[Action { name: "CopyImage", fields: &[COPY, SPECIFICATIONS], run: copy }];

fn copy(context: &Context<'_>, state: &mut State, xml: &mut Xml) -> Outcome<()> {
    let (query, caller) = (context.query, context.caller);
    only_for(query, &["image", "snapshot"])?;
    if query.get("KmsKeyId").is_some() && query.flag("Encrypted") != Some(true) {
        return refuse("InvalidParameterCombination", "KmsKeyId requires Encrypted");
    }
    let (own_tags, snapshot_tags) = (specified(query, "image")?, specified(query, "snapshot")?);
    context.may(&needs(context, &own_tags, &snapshot_tags))?;
    if let Some(id) = context.earlier(state, "CopyImage")? {
        xml.text("imageId", id);
        return Ok(());
    }
    let (source_id, source_region) = (query.text("SourceImageId"), query.text("SourceRegion"));
    let source = state.visible_image_in(&source_region, caller, &source_id).cloned();
    let source = source.ok_or_else(|| images::not_found(&source_id))?;
    if source.state != ImageState::Available {
        return refuse("InvalidRequest", format!("Image {source_id} is not available for copying."));
    }
    let name = query.text("Name");
    check_name(state.region(&caller.region), &caller.account, &name)?;
    let mut copies = Vec::new();
    let mut mappings = Vec::new();
    for mapping in &source.mappings {
        let copy = mapping.snapshot.as_ref().map(|id| copied(context, state, id, &source, &snapshot_tags));
        let copy = copy.transpose()?;
        mappings.push(Mapping {
            snapshot: copy.as_ref().map(|copy| copy.id.clone()),
            encrypted: copy.as_ref().map_or(mapping.encrypted, |copy| Some(copy.encrypted)),
            ..mapping.clone()
        });
        copies.extend(copy);
    }
    // Without a description the copy says where it comes from.
    let description = || format!("[Copied {source_id} from {source_region}] {}", source.name);
    let image = Image {
        id: new_id("ami"),
        owner: caller.account.clone(),
        name,
        description: Some(query.maybe("Description").unwrap_or_else(description)),
        state: ImageState::Pending(POLLS),
        mappings,
        tags: tags(context, &source, own_tags),
        created: Timestamp::now(),
        deprecated: None,
        permissions: BTreeSet::new(),
        copy_of: Some((source_id, source_region)),
        ends_badly: context.ends_badly,
        ..source
    };
    xml.text("imageId", &image.id);
    context.remember(state, "CopyImage", &image.id);
    let region = state.region(&caller.region);
    region.snapshots.extend(copies.into_iter().map(|copy| (copy.id.clone(), copy)));
    region.images.insert(image.id.clone(), image);
    Ok(())
}

fn needs(context: &Context<'_>, own_tags: &Tags, snapshot_tags: &Tags) -> Vec<Need> {
    let caller = context.caller;
    let (image_arn, snapshot_arn) = (caller.image_arn("*"), caller.snapshot_arn("*"));
    let (id, region) = (context.query.text("SourceImageId"), context.query.text("SourceRegion"));
    let mut needs = vec![
        Need::new("ec2:CopyImage", image_arn.clone()).with_tags(own_tags),
        Need::new("ec2:CopyImage", format!("arn:aws:ec2:{region}::image/{id}")),
        Need::new("ec2:CopyImage", snapshot_arn.clone()),
    ];
    needs.extend(need(image_arn, "CopyImage", own_tags));
    needs.extend(need(snapshot_arn, "CopyImage", snapshot_tags));
    needs
}

/// Another account's tags are not copied, whatever is asked for.
fn tags(context: &Context<'_>, source: &Image, own: Tags) -> Tags {
    let is_asked = context.query.flag("CopyImageTags") == Some(true);
    let mut tags = if is_asked && source.owner == context.caller.account { source.tags.clone() } else { Tags::new() };
    tags.extend(own);
    tags
}

fn copied(context: &Context<'_>, state: &State, id: &str, source: &Image, tags: &Tags) -> Outcome<Snapshot> {
    let caller = context.caller;
    let region = context.query.text("SourceRegion");
    let found = state.regions.get(&region).and_then(|region| region.snapshots.get(id));
    let found = found.filter(|found| found.is_open_to(&caller.account));
    let found = found.ok_or_else(|| {
        let message = "You do not have permission to access the storage of this ami";
        Refusal::new("InvalidRequest", message)
    })?;
    let is_asked = context.query.flag("Encrypted");
    if found.encrypted && is_asked == Some(false) {
        return refuse("InvalidParameterCombination", "A copy of an encrypted snapshot is encrypted");
    }
    let encrypted = found.encrypted || is_asked == Some(true);
    Ok(Snapshot {
        id: new_id("snap"),
        owner: caller.account.clone(),
        gib: found.gib,
        state: SnapshotState::Pending(POLLS),
        description: format!("Copied for DestinationAmi from SourceAmi {} for SourceSnapshot {id}.", source.id),
        tags: tags.clone(),
        encrypted,
        kms_key: context.query.maybe("KmsKeyId"),
        parent: None,
        started: Timestamp::now(),
        users: BTreeSet::new(),
        is_public: false,
        disk: found.disk.clone(),
    })
}
