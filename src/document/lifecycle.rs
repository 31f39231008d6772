//! Lifecycle policies: which images are deprecated, disabled and deleted, and when. The names are those of
//! `CreateLifecyclePolicy`; AWS user guide, "Manage EC2 Image Builder image lifecycle policies".

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::decode::{Reader, Spanned, Strictness};
use super::diagnostic::Report;
use super::recipe::labels_with_spans;
use super::resource::{self, Resource, name, number, one_of, without_effect};
use super::syntax::{Node, Source};
use crate::store::version::{ImageName, VersionPattern};

/// A lifecycle policy.
#[derive(Debug, Clone)]
pub struct LifecyclePolicy {
    /// Where it came from.
    pub source: Arc<Source>,
    /// Its name.
    pub name: Spanned<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Whether it does anything.
    pub enabled: bool,
    /// What is done, one for each action at most.
    pub rules: Vec<Rule>,
    /// To which images.
    pub selection: Selection,
}

/// One thing that a policy does.
#[derive(Debug, Clone)]
pub struct Rule {
    /// What is done.
    pub action: Action,
    /// What it is done to, beside the image here.
    pub include: Include,
    /// To which images.
    pub filter: Filter,
    /// How many of the newest of each version stay in any case.
    pub retain_at_least: usize,
    /// Which images are left out.
    pub exclusions: Exclusions,
}

/// What an action is done to, beside the image here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Include {
    /// AMIs that were made of the image.
    pub amis: bool,
    /// Their snapshots; a deletion's.
    pub snapshots: bool,
    /// Files that the image was exported to; a deletion's, and goldsmith's own.
    pub files: bool,
}

/// What a policy does with an image, in the order in which it is thought of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Action {
    /// It may still be used.
    Deprecate,
    /// It may be used no more.
    Disable,
    /// It goes.
    Delete,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Deprecate => "DEPRECATE",
            Self::Disable => "DISABLE",
            Self::Delete => "DELETE",
        })
    }
}

/// To which images something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// To those that are so old or older.
    OlderThan(Period),
    /// To all but so many of the newest of each version.
    AllBut(usize),
}

/// A time by the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// How many.
    pub value: i64,
    /// Of what.
    pub unit: Unit,
}

/// A unit of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Days.
    Days,
    /// Weeks.
    Weeks,
    /// Months.
    Months,
    /// Years.
    Years,
}

/// Which images a rule leaves out.
#[derive(Debug, Clone, Default)]
pub struct Exclusions {
    /// Those with one of these labels.
    pub tags: Vec<(String, String)>,
    /// Those whose AMIs are so.
    pub amis: AmiExclusions,
}

/// AMIs that a rule leaves alone.
#[derive(Debug, Clone, Default)]
pub struct AmiExclusions {
    /// Public ones.
    pub is_public: bool,
    /// Those in these regions.
    pub regions: Vec<String>,
    /// Those that these accounts may launch.
    pub shared_accounts: Vec<String>,
    /// Those that were launched within this time.
    pub last_launched: Option<Period>,
    /// Those with one of these labels.
    pub tags: Vec<(String, String)>,
}

/// To which images a policy applies.
#[derive(Debug, Clone)]
pub enum Selection {
    /// To those of some recipes.
    Recipes(Vec<(ImageName, VersionPattern)>),
    /// To those that have all of these labels.
    Tags(Vec<(String, String)>),
}

const FIELDS: [&str; 10] = [
    "kind",
    "name",
    "description",
    "executionRole",
    "resourceType",
    "policyDetails",
    "resourceSelection",
    "status",
    "tags",
    "clientToken",
];

/// Reads the one policy of a file, which may hold documents of other kinds too; with it come warnings.
pub fn decode_file(source: &Arc<Source>) -> Result<(LifecyclePolicy, Report), Report> {
    let (resources, warnings) = resource::decode(source)?;
    let policies = resources.into_iter().filter_map(|resource| match resource {
        Resource::Lifecycle(policy) => Some(*policy),
        _ => None,
    });
    let mut policies: Vec<LifecyclePolicy> = policies.collect();
    match policies.pop() {
        Some(policy) if policies.is_empty() => Ok((policy, warnings)),
        last => {
            let reader = Reader::new(source.clone(), Strictness::Compat);
            let count = policies.len() + usize::from(last.is_some());
            reader.error(&(0..1), format!("one lifecycle policy is needed, and here are {count}"));
            reader.finish(None)
        }
    }
}

/// Reads one.
pub(super) fn decode(reader: &Reader, node: &Node) -> Option<LifecyclePolicy> {
    let mut fields = reader.map(node, "a lifecycle policy")?;
    let _kind = fields.get("kind");
    let name = fields.require("name").and_then(|node| name(reader, node));
    let description = fields.text("description").map(|text| text.value);
    without_effect(reader, &mut fields, &["executionRole", "tags"]);
    let _token = fields.get("clientToken");
    if let Some(node) = fields.get("resourceType")
        && one_of(reader, node, "resourceType", &["AMI_IMAGE", "CONTAINER_IMAGE"]) == Some(1)
    {
        reader.error(&node.span, "goldsmith builds no container images");
    }
    let enabled =
        fields.get("status").is_none_or(|node| one_of(reader, node, "status", &["ENABLED", "DISABLED"]) != Some(1));
    let details = fields.require("policyDetails").and_then(|node| Some((node, reader.list(node, "policyDetails")?)));
    let selection = fields.require("resourceSelection").and_then(|node| selection(reader, node));
    fields.finish(&FIELDS);
    let (node, items) = details?;
    if !(1..=3).contains(&items.len()) {
        reader.error(&node.span, "`policyDetails` has one to three items");
    }
    let rules: Vec<Rule> = items.iter().filter_map(|item| rule(reader, item)).collect();
    for (index, rule) in rules.iter().enumerate() {
        if rules[..index].iter().any(|earlier| earlier.action == rule.action) {
            reader.error(&node.span, format!("`policyDetails` has two items for {}", rule.action));
        }
    }
    Some(LifecyclePolicy {
        source: reader.source.clone(),
        name: name?,
        description,
        enabled,
        rules,
        selection: selection?,
    })
}

fn rule(reader: &Reader, node: &Node) -> Option<Rule> {
    let mut fields = reader.map(node, "an item of `policyDetails`")?;
    let action = fields.require("action").and_then(|node| action(reader, node));
    let filter = fields.require("filter").and_then(|node| Some((node, self::filter(reader, node)?)));
    let exclusions = fields.get("exclusionRules").and_then(|node| exclusions(reader, node)).unwrap_or_default();
    fields.finish(&["action", "filter", "exclusionRules"]);
    let ((action, include), (filter_node, (filter, retain_at_least))) = (action?, filter?);
    if action != Action::Delete && matches!(filter, Filter::AllBut(_)) {
        reader.error(&filter_node.span, "only DELETE goes by COUNT; the others go by AGE");
    }
    if action != Action::Delete && retain_at_least > 0 {
        reader.error(&filter_node.span, "`retainAtLeast` belongs to DELETE");
    }
    Some(Rule { action, include, filter, retain_at_least, exclusions })
}

fn action(reader: &Reader, node: &Node) -> Option<(Action, Include)> {
    const ACTIONS: [Action; 3] = [Action::Deprecate, Action::Disable, Action::Delete];
    let mut fields = reader.map(node, "`action`")?;
    let kind =
        fields.require("type").and_then(|node| one_of(reader, node, "type", &["DEPRECATE", "DISABLE", "DELETE"]));
    let included = fields.get("includeResources");
    fields.finish(&["type", "includeResources"]);
    let action = *ACTIONS.get(kind?)?;
    Some((action, included.map(|node| include(reader, node, action)).unwrap_or_default()))
}

fn include(reader: &Reader, node: &Node, action: Action) -> Include {
    let Some(mut fields) = reader.map(node, "`includeResources`") else { return Include::default() };
    let amis = fields.flag("amis");
    let (mut snapshots, files) = (fields.flag("snapshots"), fields.flag("files"));
    let _none_here = fields.flag("containers");
    fields.finish(&["amis", "snapshots", "files", "containers"]);
    if snapshots && !amis {
        reader.error(&node.span, "a snapshot goes with its AMI: `snapshots` needs `amis: true`");
    }
    if action != Action::Delete {
        if snapshots {
            reader.warning(&node.span, format!("`snapshots` has no effect here: nothing can {action} a snapshot"));
            snapshots = false;
        }
        if files {
            reader.error(&node.span, "`files` belongs to DELETE");
        }
    }
    Include { amis, snapshots, files }
}

fn filter(reader: &Reader, node: &Node) -> Option<(Filter, usize)> {
    let mut fields = reader.map(node, "`filter`")?;
    let kind = fields.require("type").and_then(|node| one_of(reader, node, "type", &["AGE", "COUNT"]));
    let value = fields.require("value").and_then(|node| number(reader, node, "value", 1..=1000));
    let unit = fields.get("unit");
    let retain = fields.get("retainAtLeast").and_then(|node| number(reader, node, "retainAtLeast", 1..=10));
    fields.finish(&["type", "value", "unit", "retainAtLeast"]);
    let retain = retain.and_then(|retain| usize::try_from(retain).ok()).unwrap_or(0);
    match kind? {
        0 => {
            if unit.is_none() {
                reader.error(&node.span, "a `filter` by AGE needs the field `unit`");
            }
            let unit = self::unit(reader, unit?)?;
            Some((Filter::OlderThan(Period { value: value?, unit }), retain))
        }
        _ => {
            if let Some(unit) = unit {
                reader.warning(&unit.span, "`unit` has no effect on a COUNT");
            }
            Some((Filter::AllBut(usize::try_from(value?).unwrap_or(usize::MAX)), retain))
        }
    }
}

fn unit(reader: &Reader, node: &Node) -> Option<Unit> {
    const UNITS: [Unit; 4] = [Unit::Days, Unit::Weeks, Unit::Months, Unit::Years];
    let place = one_of(reader, node, "unit", &["DAYS", "WEEKS", "MONTHS", "YEARS"])?;
    UNITS.get(place).copied()
}

fn exclusions(reader: &Reader, node: &Node) -> Option<Exclusions> {
    let mut fields = reader.map(node, "`exclusionRules`")?;
    let tags = fields.get("tagMap").map(|node| labels(reader, node)).unwrap_or_default();
    let amis = fields.get("amis").and_then(|node| ami_exclusions(reader, node)).unwrap_or_default();
    fields.finish(&["tagMap", "amis"]);
    Some(Exclusions { tags, amis })
}

fn ami_exclusions(reader: &Reader, node: &Node) -> Option<AmiExclusions> {
    let mut fields = reader.map(node, "`amis`")?;
    let is_public = fields.flag("isPublic");
    let mut texts = |name| {
        let texts = fields.get(name).and_then(|node| reader.texts(node, name)).unwrap_or_default();
        texts.into_iter().map(|text| text.value).collect::<Vec<String>>()
    };
    let (regions, shared_accounts) = (texts("regions"), texts("sharedAccounts"));
    let last_launched = fields.get("lastLaunched").and_then(|node| {
        let mut fields = reader.map(node, "`lastLaunched`")?;
        let value = fields.require("value").and_then(|node| number(reader, node, "value", 1..=365));
        let unit = fields.require("unit").and_then(|node| unit(reader, node));
        fields.finish(&["value", "unit"]);
        Some(Period { value: value?, unit: unit? })
    });
    let tags = fields.get("tagMap").map(|node| labels(reader, node)).unwrap_or_default();
    fields.finish(&["isPublic", "regions", "sharedAccounts", "lastLaunched", "tagMap"]);
    Some(AmiExclusions { is_public, regions, shared_accounts, last_launched, tags })
}

fn labels(reader: &Reader, node: &Node) -> Vec<(String, String)> {
    labels_with_spans(reader, node, "tagMap").into_iter().map(|(name, value)| (name.value, value.value)).collect()
}

fn selection(reader: &Reader, node: &Node) -> Option<Selection> {
    let mut fields = reader.map(node, "`resourceSelection`")?;
    let (recipes, tags) = (fields.get("recipes"), fields.get("tagMap"));
    fields.finish(&["recipes", "tagMap"]);
    match (recipes, tags) {
        (Some(recipes), None) => {
            let items = reader.list(recipes, "recipes")?;
            if !(1..=50).contains(&items.len()) {
                reader.error(&recipes.span, "`recipes` has 1 to 50 items");
            }
            Some(Selection::Recipes(items.iter().filter_map(|item| recipe(reader, item)).collect()))
        }
        (None, Some(tags)) => {
            let labels = labels(reader, tags);
            if labels.is_empty() {
                // Every image has all of no labels.
                reader.error(&tags.span, "`tagMap` has one label at least");
            }
            Some(Selection::Tags(labels))
        }
        _ => {
            reader.error(&node.span, "`resourceSelection` has either `recipes` or `tagMap`");
            None
        }
    }
}

fn recipe(reader: &Reader, node: &Node) -> Option<(ImageName, VersionPattern)> {
    let mut fields = reader.map(node, "an item of `recipes`")?;
    let name = fields.require("name").and_then(|node| reader.parse::<ImageName>(node, "name"));
    let version =
        fields.require("semanticVersion").and_then(|node| reader.parse::<VersionPattern>(node, "semanticVersion"));
    fields.finish(&["name", "semanticVersion"]);
    Some((name?.value, version?.value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "
name: tidy
status: DISABLED
executionRole: r
resourceType: AMI_IMAGE
policyDetails:
  - action: { type: DEPRECATE, includeResources: { amis: true, snapshots: true } }
    filter: { type: AGE, value: 6, unit: MONTHS }
  - action: { type: DELETE, includeResources: { amis: true, snapshots: true, files: true } }
    filter: { type: COUNT, value: 5, unit: DAYS, retainAtLeast: 2 }
    exclusionRules:
      tagMap: { keep: 'yes' }
      amis: { isPublic: true, regions: [eu-west-1], sharedAccounts: ['222222222222'], lastLaunched: { value: 2, unit: WEEKS } }
resourceSelection: { recipes: [{ name: web, semanticVersion: 1.x.x }] }
";

    #[test]
    fn a_policy_is_read_whole_and_warns_of_what_has_no_effect() {
        let (policy, warnings) = decode_file(&Source::new("p.yaml", WHOLE)).unwrap();
        insta::assert_snapshot!(warnings, @"
        p.yaml:4:16: warning: `executionRole` describes AWS's own machinery and has no effect here
        p.yaml:7:50: warning: `snapshots` has no effect here: nothing can DEPRECATE a snapshot
        p.yaml:10:44: warning: `unit` has no effect on a COUNT
        ");
        let [deprecation, deletion] = policy.rules.as_slice() else { panic!("{policy:?}") };
        assert!(!policy.enabled);
        assert_eq!(deprecation.filter, Filter::OlderThan(Period { value: 6, unit: Unit::Months }));
        assert_eq!(deprecation.include, Include { amis: true, snapshots: false, files: false });
        assert_eq!((deletion.filter, deletion.retain_at_least), (Filter::AllBut(5), 2));
        assert_eq!(deletion.include, Include { amis: true, snapshots: true, files: true });
        assert_eq!(deletion.exclusions.tags, [("keep".to_owned(), "yes".to_owned())]);
        let amis = &deletion.exclusions.amis;
        assert!(amis.is_public && amis.regions == ["eu-west-1"] && amis.shared_accounts == ["222222222222"]);
        assert_eq!(amis.last_launched, Some(Period { value: 2, unit: Unit::Weeks }));
    }

    #[test]
    fn a_file_for_a_run_holds_one_policy() {
        let other = "kind: ImagePipeline\nname: web\nrecipe: nginx.yaml\n---";
        assert!(decode_file(&Source::new("p.yaml", format!("{other}{WHOLE}"))).is_ok());
        let said = |text: &str| decode_file(&Source::new("p.yaml", text)).unwrap_err().to_string();
        insta::assert_snapshot!(said(&format!("{WHOLE}---{WHOLE}")), @"p.yaml:1:1: error: one lifecycle policy is needed, and here are 2");
        insta::assert_snapshot!(said(other.trim_end_matches("---")), @"p.yaml:1:1: error: one lifecycle policy is needed, and here are 0");
    }

    #[test]
    fn resources_that_an_action_can_not_be_done_to_are_refused() {
        let text = "
name: tidy
resourceType: AMI_IMAGE
policyDetails:
  - action: { type: DISABLE, includeResources: { files: true } }
    filter: { type: AGE, value: 1, unit: DAYS }
  - action: { type: DELETE, includeResources: { snapshots: true } }
    filter: { type: COUNT, value: 1 }
  - action: { type: DELETE }
    filter: { type: COUNT, value: 1 }
resourceSelection: { tagMap: {} }
";
        insta::assert_snapshot!(decode_file(&Source::new("p.yaml", text)).unwrap_err(), @"
        p.yaml:5:3: error: `policyDetails` has two items for DELETE
        p.yaml:5:48: error: `files` belongs to DELETE
        p.yaml:7:47: error: a snapshot goes with its AMI: `snapshots` needs `amis: true`
        p.yaml:11:30: error: `tagMap` has one label at least
        ");
    }

    #[test]
    fn all_errors_at_once_each_with_its_place() {
        let text = "
kind: LifecyclePolicy
name: old
executionRole: r
resourceType: CONTAINER_IMAGE
policyDetails:
  - { action: { type: DEPRECATE }, filter: { type: COUNT, value: 3, retainAtLeast: 11 } }
  - { action: { type: DELETE }, filter: { type: AGE, value: 0 } }
  - { action: { type: DELETE }, filter: { type: AGE, value: 3, unit: HOURS } }
  - { action: { type: DISABLE }, filter: { type: AGE, value: 3, unit: WEEKS, retainAtLeast: 2 } }
resourceSelection: { recipes: [{ name: web, semanticVersion: 1.x.0 }], tagMap: { a: b } }
";
        insta::assert_snapshot!(resource::decode(&Source::new("p.yaml", text)).unwrap_err(), @"
        p.yaml:4:16: warning: `executionRole` describes AWS's own machinery and has no effect here
        p.yaml:5:15: error: goldsmith builds no container images
        p.yaml:7:3: error: `policyDetails` has one to three items
        p.yaml:7:44: error: only DELETE goes by COUNT; the others go by AGE
        p.yaml:7:84: error: `retainAtLeast` is a number from 1 to 10, not 11
        p.yaml:8:41: error: a `filter` by AGE needs the field `unit`
        p.yaml:8:61: error: `value` is a number from 1 to 1000, not 0
        p.yaml:9:70: error: `unit` has to be one of DAYS, WEEKS, MONTHS, YEARS, not `HOURS`
        p.yaml:10:42: error: `retainAtLeast` belongs to DELETE
        p.yaml:11:20: error: `resourceSelection` has either `recipes` or `tagMap`
        ");
    }
}
