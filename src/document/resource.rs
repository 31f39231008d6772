//! Documents that are about a factory's work and not about an image: pipelines, infrastructure and distribution
//! configurations, lifecycle policies. One file may hold several, with `---` between them.
//!
//! Which kind a document is says its `kind`; the input of the AWS command line has none, and is known by its members.

use std::sync::Arc;

use super::decode::{Fields, Reader, Spanned, Strictness, suggest};
use super::diagnostic::Report;
use super::distribution::{self, Distribution};
use super::infrastructure::{self, Infrastructure};
use super::lifecycle::{self, LifecyclePolicy};
use super::pipeline::{self, Pipeline};
use super::syntax::{self, Node, Source};

/// One document of a file.
#[derive(Debug, Clone)]
pub enum Resource {
    /// `kind: ImagePipeline`.
    Pipeline(Box<Pipeline>),
    /// `kind: InfrastructureConfiguration`.
    Infrastructure(Box<Infrastructure>),
    /// `kind: DistributionConfiguration`.
    Distribution(Box<Distribution>),
    /// `kind: LifecyclePolicy`.
    Lifecycle(Box<LifecyclePolicy>),
}

/// The kinds.
const KINDS: [&str; 4] =
    ["ImagePipeline", "InfrastructureConfiguration", "DistributionConfiguration", "LifecyclePolicy"];
/// Members that only one kind has.
const MARKS: [(&str, &str); 10] = [
    ("distributions", "DistributionConfiguration"),
    ("policyDetails", "LifecyclePolicy"),
    ("resourceSelection", "LifecyclePolicy"),
    ("imageRecipeArn", "ImagePipeline"),
    ("containerRecipeArn", "ImagePipeline"),
    ("recipe", "ImagePipeline"),
    ("schedule", "ImagePipeline"),
    ("infrastructureConfigurationArn", "ImagePipeline"),
    ("instanceProfileName", "InfrastructureConfiguration"),
    ("instanceTypes", "InfrastructureConfiguration"),
];

/// Reads all documents of a file; with them come warnings. Everything that is wrong is told at once.
pub fn decode(source: &Arc<Source>) -> Result<(Vec<Resource>, Report), Report> {
    let nodes = syntax::parse_all(source)?;
    let reader = Reader::new(source.clone(), Strictness::Compat);
    let resources: Vec<Option<Resource>> = nodes.iter().map(|node| resource(&reader, node)).collect();
    reader.finish(resources.into_iter().collect())
}

fn resource(reader: &Reader, node: &Node) -> Option<Resource> {
    let kind = kind(reader, node)?;
    match kind.as_str() {
        "ImagePipeline" => pipeline::decode(reader, node).map(|one| Resource::Pipeline(Box::new(one))),
        "InfrastructureConfiguration" => {
            infrastructure::decode(reader, node).map(|one| Resource::Infrastructure(Box::new(one)))
        }
        "DistributionConfiguration" => {
            distribution::decode_node(reader, node).map(|one| Resource::Distribution(Box::new(one)))
        }
        "LifecyclePolicy" => lifecycle::decode(reader, node).map(|one| Resource::Lifecycle(Box::new(one))),
        other => {
            let help = suggest(other, &KINDS).unwrap_or_else(|| format!("kinds: {}", KINDS.join(", ")));
            let span = node.get("kind").map_or(&node.span, |kind| &kind.span);
            reader.error_with_help(span, format!("there is no kind `{other}`"), help);
            None
        }
    }
}

fn kind(reader: &Reader, node: &Node) -> Option<String> {
    if let Some(kind) = node.get("kind") {
        return reader.text(kind, "kind").map(|kind| kind.value);
    }
    let mark = MARKS.iter().find(|(member, _)| node.get(member).is_some());
    if mark.is_none() {
        let start = node.span.start;
        let help = format!("kinds: {}", KINDS.join(", "));
        reader.error_with_help(
            &(start..start + 1),
            "the document does not say what it is: it needs the field `kind`",
            help,
        );
    }
    mark.map(|(_, kind)| (*kind).to_owned())
}

/// A resource's name, by the API's pattern.
pub(super) fn name(reader: &Reader, node: &Node) -> Option<Spanned<String>> {
    distribution::matched(reader, node, "name", is_name, NAME_RULE)
}

const NAME_RULE: &str = "has 3 to 128 letters, digits, `-`, `_` and spaces, none of these at its ends";

/// A resource's name: the API's pattern.
fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (3..=128).contains(&text.len())
        && text.chars().all(|c| plain(c) || c == ' ')
        && text.starts_with(plain)
        && text.ends_with(plain)
}

/// What has no meaning outside AWS.
pub(super) fn without_effect(reader: &Reader, fields: &mut Fields<'_>, names: &[&str]) {
    for name in names {
        if let Some(node) = fields.get(name) {
            reader.warning(&node.span, format!("`{name}` describes AWS's own machinery and has no effect here"));
        }
    }
}

/// Which of some words it is.
pub(super) fn one_of(reader: &Reader, node: &Node, what: &str, words: &[&str]) -> Option<usize> {
    let text = reader.text(node, what)?;
    let place = words.iter().position(|word| *word == text.value);
    if place.is_none() {
        reader.error(&text.span, format!("`{what}` has to be one of {}, not `{}`", words.join(", "), text.value));
    }
    place
}

/// A whole number within bounds.
pub(super) fn number(reader: &Reader, node: &Node, what: &str, bounds: std::ops::RangeInclusive<i64>) -> Option<i64> {
    let number = reader.integer(node, what)?;
    if !bounds.contains(&number) {
        reader.error(
            &node.span,
            format!("`{what}` is a number from {} to {}, not {number}", bounds.start(), bounds.end()),
        );
        return None;
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_several_kinds() {
        let text = "
kind: ImagePipeline
name: web
recipe: nginx.yaml
---
{ name: small, instanceProfileName: p, instanceTypes: [t3.small] }
---
kind: DistributionConfiguration
name: out
distributions: [{ directory: out, formats: [qcow2] }]
---
name: old
executionRole: r
resourceType: AMI_IMAGE
policyDetails: [{ action: { type: DELETE }, filter: { type: COUNT, value: 3 } }]
resourceSelection: { recipes: [{ name: web, semanticVersion: x.x.x }] }
";
        let (all, _) = decode(&Source::new("p.yaml", text)).unwrap();
        let kinds: Vec<&str> = all
            .iter()
            .map(|one| match one {
                Resource::Pipeline(_) => "pipeline",
                Resource::Infrastructure(_) => "infrastructure",
                Resource::Distribution(_) => "distribution",
                Resource::Lifecycle(_) => "lifecycle",
            })
            .collect();
        assert_eq!(kinds, ["pipeline", "infrastructure", "distribution", "lifecycle"]);
    }

    #[test]
    fn a_kind_has_to_be_known() {
        let text = "kind: ImagePipelin\nname: web\n---\nname: x\n---\n[]\n";
        let report = decode(&Source::new("p.yaml", text)).unwrap_err();
        insta::assert_snapshot!(report, @"
        p.yaml:1:7: error: there is no kind `ImagePipelin` (did you mean `ImagePipeline`?)
        p.yaml:4:1: error: the document does not say what it is: it needs the field `kind` (kinds: ImagePipeline, InfrastructureConfiguration, DistributionConfiguration, LifecyclePolicy)
        p.yaml:6:1: error: the document does not say what it is: it needs the field `kind` (kinds: ImagePipeline, InfrastructureConfiguration, DistributionConfiguration, LifecyclePolicy)
        ");
    }
}
