//! Tags: given with what is made, or later.

use super::super::answer::{Outcome, Refusal, Xml, refuse};
use super::super::policy::Need;
use super::super::query::{Field, Kind, Query, TEXT, may, must};
use super::super::world::{State, Tags};
use super::{Action, Context};

/// How many tags a resource may have.
const LIMIT: usize = 50;
/// Tags in a request that makes something.
pub(super) const SPECIFICATIONS: &[Field] = &[
    may("TagSpecification.#.ResourceType", TEXT),
    may("TagSpecification.#.Tag.#.Key", TEXT),
    may("TagSpecification.#.Tag.#.Value", TEXT),
];

pub(super) const ACTIONS: &[Action] = &[Action {
    name: "CreateTags",
    fields: &[&[must("ResourceId.#", Kind::Text(1, 64)), must("Tag.#.Key", TEXT), may("Tag.#.Value", TEXT)]],
    run: create,
}];

/// The tags for things of one type.
pub(super) fn specified(query: &Query, kind: &str) -> Outcome<Tags> {
    let mut tags = Tags::new();
    for specification in query.list("TagSpecification") {
        if specification.text("ResourceType") == kind {
            tags.extend(read(&specification)?);
        }
    }
    Ok(tags)
}

/// Whether tags are given for things of these types only.
pub(super) fn only_for(query: &Query, kinds: &[&str]) -> Outcome<()> {
    let mut seen = Vec::new();
    for specification in query.list("TagSpecification") {
        let kind = specification.text("ResourceType");
        if !kinds.contains(&&*kind) || seen.contains(&kind) {
            let message =
                format!("'{kind}' is not a valid taggable resource type for this operation, or is given twice.");
            return refuse("InvalidParameterValue", message);
        }
        if specification.list("Tag").is_empty() {
            return refuse("InvalidParameterValue", "Tag specification must have at least one tag");
        }
        seen.push(kind);
    }
    Ok(())
}

/// The permission that tags on something new need.
pub(super) fn need(arn: String, action: &str, tags: &Tags) -> Option<Need> {
    let need = || Need::new("ec2:CreateTags", arn).with("ec2:CreateAction", action).with_tags(tags);
    (!tags.is_empty()).then(need)
}

fn read(query: &Query) -> Outcome<Tags> {
    let mut tags = Tags::new();
    for tag in query.list("Tag") {
        let (key, value) = (tag.text("Key"), tag.text("Value"));
        if key.is_empty() || key.chars().count() > 127 {
            return refuse("InvalidParameterValue", "Tag keys have 1 to 127 characters");
        }
        if value.chars().count() > 255 {
            return refuse("InvalidParameterValue", format!("Tag value exceeds the maximum length of 255: {key}"));
        }
        if key.to_ascii_lowercase().starts_with("aws:") {
            let message = "Tag keys starting with 'aws:' are reserved for internal use";
            return refuse("InvalidParameterValue", message);
        }
        if tags.insert(key.clone(), value).is_some() {
            return refuse("InvalidParameterValue", format!("Duplicate tag key '{key}' specified."));
        }
    }
    if tags.len() > LIMIT {
        return refuse("TagLimitExceeded", "More than 50 tags specified");
    }
    Ok(tags)
}

fn create(context: &Context<'_>, state: &mut State, xml: &mut Xml) -> Outcome<()> {
    let new = read(context.query)?;
    let mut needs = Vec::new();
    let ids = context.query.texts("ResourceId");
    for id in &ids {
        let (arn, old) = existing(context, state, id)?;
        let need = Need::new("ec2:CreateTags", arn).with_tags(&new).of_tagged(old);
        if old.keys().chain(new.keys()).collect::<std::collections::BTreeSet<_>>().len() > LIMIT {
            return refuse("TagLimitExceeded", format!("{id} would have more than 50 tags"));
        }
        needs.push(need);
    }
    context.may(&needs)?;
    for id in &ids {
        existing(context, state, id)?.1.extend(new.clone());
    }
    xml.text("return", true);
    Ok(())
}

/// The ARN and the tags of something that the caller owns.
fn existing<'a>(context: &Context<'_>, state: &'a mut State, id: &str) -> Outcome<(String, &'a mut Tags)> {
    let caller = context.caller;
    let region = state.region(&caller.region);
    let missing = |code: &str| Refusal::new(code, format!("The ID '{id}' does not exist"));
    let prefix = id.rsplit_once('-').map_or("", |(prefix, _)| prefix);
    let (owner, tags, arn, code) = match prefix {
        "ami" => {
            let found = region.images.get_mut(id).map(|image| (&image.owner, &mut image.tags));
            let (owner, tags) = found.ok_or_else(|| missing("InvalidAMIID.NotFound"))?;
            (owner, tags, caller.image_arn(id), "InvalidAMIID.NotFound")
        }
        "snap" => {
            let found = region.snapshots.get_mut(id).map(|snapshot| (&snapshot.owner, &mut snapshot.tags));
            let (owner, tags) = found.ok_or_else(|| missing("InvalidSnapshot.NotFound"))?;
            (owner, tags, caller.snapshot_arn(id), "InvalidSnapshot.NotFound")
        }
        "import-snap" => {
            let found = region.tasks.get_mut(id).map(|task| (&task.owner, &mut task.tags));
            let (owner, tags) = found.ok_or_else(|| missing("InvalidConversionTaskId"))?;
            let arn = caller.arn_of("ec2", &format!("import-snapshot-task/{id}"));
            (owner, tags, arn, "InvalidConversionTaskId")
        }
        "lt" => {
            let found = region.templates.get_mut(id).map(|template| (&template.owner, &mut template.tags));
            let (owner, tags) = found.ok_or_else(|| missing("InvalidLaunchTemplateId.NotFound"))?;
            (owner, tags, caller.arn_of("ec2", &format!("launch-template/{id}")), "InvalidLaunchTemplateId.NotFound")
        }
        _ => return refuse("InvalidID", format!("The ID '{id}' is not valid")),
    };
    // Who may see something that is shared may not tag it here; AWS keeps tags of one's own for it.
    if *owner != caller.account { Err(missing(code)) } else { Ok((arn, tags)) }
}
