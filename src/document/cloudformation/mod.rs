//! CloudFormation templates: their sections, and what their values come to.
//!
//! ```text
//!   nodes ──Template──► resources, parameters, mappings, conditions
//!                          │
//!                          └──Evaluator──► values: texts, lists, maps; what nobody can know here is a gap in a text
//! ```

mod condition;
mod intrinsic;
mod physical;
mod text;
mod value;

use std::ops::Range;
use std::sync::Arc;

use super::decode::{Reader, Spanned, Strictness};
use super::diagnostic::Report;
use super::syntax::{self, Node, Source, Value as Written};

pub use intrinsic::{Environment, Evaluator};
pub use value::{Content, Entry, Gap, Text, Value};

/// Most resources of a template: CloudFormation's quota.
const MOST_RESOURCES: usize = 500;

/// A template.
#[derive(Debug)]
pub struct Template {
    /// Where it came from.
    pub source: Arc<Source>,
    root: Node,
}

/// A resource of a template.
#[derive(Debug, Clone, Copy)]
pub struct Resource<'a> {
    /// Its name in the template.
    pub id: &'a str,
    /// The bytes of that name.
    pub span: &'a Range<usize>,
    /// Its type, as `AWS::S3::Bucket`.
    pub kind: &'a str,
    node: &'a Node,
}

impl<'a> Resource<'a> {
    /// Its properties, if it has any.
    pub fn properties(&self) -> Option<&'a Node> {
        self.node.get("Properties")
    }

    /// One of its properties.
    pub fn property(&self, name: &str) -> Option<&'a Node> {
        self.properties()?.get(name)
    }

    /// The condition that it is made under.
    pub fn condition(&self) -> Option<&'a Node> {
        self.node.get("Condition")
    }
}

impl Template {
    /// Reads a template; none if a document is something else.
    pub fn parse(source: &Arc<Source>) -> Result<Option<Self>, Report> {
        let root = syntax::parse(source)?;
        if Self::is_one(&root) { Self::of(source, root).map(Some) } else { Ok(None) }
    }

    /// Whether a document is a template.
    pub fn is_one(root: &Node) -> bool {
        root.get("Resources").is_some() || root.get("AWSTemplateFormatVersion").is_some()
    }

    /// The same of a document that [is one](Self::is_one) and was read already.
    pub fn of(source: &Arc<Source>, root: Node) -> Result<Self, Report> {
        let template = Self { source: source.clone(), root };
        let reader = Reader::new(source.clone(), Strictness::Compat);
        template.check(&reader);
        reader.finish(Some(template)).map(|(template, _)| template)
    }

    fn check(&self, reader: &Reader) {
        let Some(resources) = self.root.get("Resources") else {
            reader.error(&(self.root.span.start..self.root.span.start + 1), "a template needs the field `Resources`");
            return;
        };
        for section in ["Parameters", "Mappings", "Conditions"] {
            if let Some(node) = self.root.get(section).filter(|node| !node.is_null()) {
                let _checked = reader.map(node, format!("`{section}`"));
            }
        }
        if entries(Some(resources)).len() > MOST_RESOURCES {
            reader.error(
                &(resources.span.start..resources.span.start + 1),
                format!("a template has at most {MOST_RESOURCES} resources"),
            );
        }
        let Some(fields) = reader.map(resources, "`Resources`") else { return };
        for (name, resource) in fields.all() {
            // `Fn::ForEach` and `Fn::Transform` stand where resources do, and are spoken of where these are imported.
            if !name.value.starts_with("Fn::")
                && resource.get("Fn::Transform").is_none()
                && let Some(mut fields) = reader.map(resource, format!("the resource `{}`", name.value))
            {
                let _kind = fields.require("Type").and_then(|node| reader.text(node, "Type"));
            }
        }
    }

    /// Its resources, in order.
    pub fn resources(&self) -> impl Iterator<Item = Resource<'_>> {
        entries(self.root.get("Resources")).iter().filter_map(|(name, node)| {
            let kind = node.get("Type").and_then(Node::text)?;
            Some(Resource { id: name.text()?, span: &name.span, kind, node })
        })
    }

    /// A resource by its name.
    pub fn resource(&self, id: &str) -> Option<Resource<'_>> {
        self.resources().find(|resource| resource.id == id)
    }

    /// What stands among the resources and makes some only when the template is used.
    pub fn made_later(&self) -> impl Iterator<Item = &Node> {
        let names = entries(self.root.get("Resources")).iter().map(|(name, _)| name);
        names.filter(|name| name.text().is_some_and(|text| text.starts_with("Fn::")))
    }

    /// Whether there may be resources that are not written in it.
    fn is_made_up_later(&self) -> bool {
        !self.transforms().is_empty() || self.made_later().next().is_some()
    }

    /// Names of the programs that change the template before it is used.
    pub fn transforms(&self) -> Vec<Spanned<&str>> {
        let Some(node) = self.root.get("Transform") else { return Vec::new() };
        let items = match &node.value {
            Written::Sequence(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let name = |item: &'_ Node| item.span.clone();
        items
            .iter()
            .filter_map(|item| {
                let text = item.text().or_else(|| item.get("Name").and_then(Node::text))?;
                Some(Spanned { value: text, span: name(item) })
            })
            .collect()
    }

    fn section(&self, section: &str, name: &str) -> Option<&Node> {
        self.root.get(section)?.get(name)
    }

    /// Names of all that a `Ref` may name.
    fn names(&self) -> Vec<&str> {
        let sections = ["Parameters", "Resources"].into_iter().flat_map(|section| entries(self.root.get(section)));
        sections.filter_map(|(name, _)| name.text()).collect()
    }

    /// Names of its parameters.
    pub fn parameters(&self) -> Vec<&str> {
        entries(self.root.get("Parameters")).iter().filter_map(|(name, _)| name.text()).collect()
    }
}

fn entries(node: Option<&Node>) -> &[(Node, Node)] {
    match node.map(|node| &node.value) {
        Some(Written::Mapping(entries)) => entries,
        _ => &[],
    }
}

#[cfg(test)]
mod tests;
