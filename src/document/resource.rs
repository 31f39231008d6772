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

/// Members that make a document a pipeline whatever else is in it.
const PIPELINE_MARKS: [&str; 4] = ["recipe", "imageRecipeArn", "containerRecipeArn", "infrastructureConfigurationArn"];

/// Whether a file, of which nothing is known, has a pipeline in it: a folder holds other documents as well.
pub fn has_pipeline(source: &Arc<Source>) -> bool {
    let Ok(nodes) = syntax::parse_all(source) else {
        // What can't be read may have been meant as one.
        return source.text.contains("ImagePipeline") || source.text.contains("imageRecipeArn");
    };
    nodes.iter().any(|node| match node.get("kind") {
        Some(kind) => kind.text() == Some("ImagePipeline"),
        None => node.get("name").is_some() && PIPELINE_MARKS.iter().any(|mark| node.get(mark).is_some()),
    })
}

/// Each document of a file as a document of its own, in which everything stands at the same line and column.
pub fn split(source: &Arc<Source>) -> Result<Vec<Arc<Source>>, Report> {
    let alone = |node: &Node| {
        let (before, behind) = source.text.split_at(node.span.start);
        let blank = before.chars().map(|c| if c == '\n' { '\n' } else { ' ' });
        // These begin a line nowhere else in YAML.
        let ends = ["\n---", "\n..."].into_iter().filter_map(|mark| behind.find(mark));
        let end = ends.min().map_or(behind.len(), |end| end + 1);
        // An indented document begins with its indentation, and lines of blanks before it mean nothing.
        Source::new(source.name.clone(), blank.collect::<String>() + &behind[..end])
    };
    Ok(syntax::parse_all(source)?.iter().map(alone).collect())
}

/// The distribution configuration of a name in a file, with warnings; as a document of its own, which can be kept.
pub fn distribution(source: &Arc<Source>, wanted: &str) -> Result<Option<(Distribution, Report)>, Report> {
    for alone in split(source)? {
        let node = syntax::parse(&alone)?;
        let reader = Reader::new(alone.clone(), Strictness::Compat);
        let is_wanted = node.get("name").and_then(Node::text) == Some(wanted);
        if is_wanted && kind(&reader, &node).as_deref() == Some("DistributionConfiguration") {
            return distribution::decode(&alone).map(Some);
        }
    }
    Ok(None)
}

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
    fn each_document_of_a_file_stands_alone_and_in_its_place() {
        let text = "# é\nkind: ImagePipeline\nname: web\nrecipe: nginx.yaml\ndescription: |\n  ---\n  text\n--- # next\n\
                    name: out\ndistributions: [{ directory: out, formats: [qcow2] }]\n...\n---\n  \
                    { name: small, instanceProfileName: 5 }\n";
        let source = Source::new("p.yaml", text);
        let (alone, nodes) = (split(&source).unwrap(), syntax::parse_all(&source).unwrap());
        assert_eq!(alone.len(), nodes.len());
        for (alone, node) in alone.iter().zip(&nodes) {
            let parsed = syntax::parse(alone).unwrap();
            let name = |node: &Node, source: &Source| {
                let name = node.get("name").unwrap();
                (name.value.clone(), source.position(name.span.start))
            };
            assert_eq!(name(&parsed, alone), name(node, &source));
        }
        let (found, _) = distribution(&source, "out").unwrap().unwrap();
        assert_eq!((found.name.value.as_str(), found.targets.len()), ("out", 1));
        assert!(distribution(&source, "web").unwrap().is_none() && distribution(&source, "other").unwrap().is_none());
    }

    #[test]
    fn pipelines_are_told_from_a_folders_other_documents() {
        for (text, is_one) in [
            ("kind: ImagePipeline\nname: x\n", true),
            ("name: web\nrecipe: r.yaml\n", true),
            ("{ \"name\": \"web\", \"imageRecipeArn\": \"x\" }", true),
            ("kind: ImagePipeline\nname: [\n", true),
            ("name: web\nversion: 1.0.0\nparentImage: debian-12\n", false),
            ("kind: Deployment\nname: x\nrecipe: y\n", false),
            ("on: { schedule: x }\njobs: [\n", false),
            ("{ \"schedule\": [\"daily\"] }", false),
        ] {
            assert_eq!(has_pipeline(&Source::new("x.yaml", text)), is_one, "{text}");
        }
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
