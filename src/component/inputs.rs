//! Inputs of action modules: what a module takes, what a document gives, and both together when a step starts.

use std::ops::Range;

use serde_json::Value as Json;

use super::kind::Kind;
use crate::document::decode::{Reader, Spanned};
use crate::document::expression::{Reference, Template};
use crate::document::syntax::{Node, Value};

/// What a module takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Whether it has to be given.
    pub required: bool,
}

pub(super) const fn required(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, required: true }
}

pub(super) const fn optional(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, required: false }
}

/// Inputs as a document gives them: one group for a module that takes a map, several for one that takes a list of maps.
#[derive(Debug, Clone, Default)]
pub(super) struct Inputs {
    pub(super) groups: Vec<Group<Template>>,
}

/// Inputs that belong together, with `T` for a text.
#[derive(Debug, Clone)]
pub(super) struct Group<T> {
    entries: Vec<Entry<T>>,
}

#[derive(Debug, Clone)]
struct Entry<T> {
    field: &'static Field,
    span: Range<usize>,
    input: Input<T>,
}

#[derive(Debug, Clone)]
enum Input<T> {
    One(T),
    Many(Vec<T>),
    Pairs(Vec<(String, T)>),
}

/// Inputs whose references have been replaced.
pub(super) type Resolved = Group<String>;

impl Resolved {
    /// As JSON, for logs.
    pub(super) fn json(&self) -> Json {
        let value = |input: &Input<String>| -> Json {
            match input {
                Input::One(text) => text.clone().into(),
                Input::Many(texts) => texts.clone().into(),
                Input::Pairs(pairs) => {
                    pairs.iter().map(|(name, value)| (name.clone(), Json::from(value.clone()))).collect()
                }
            }
        };
        self.entries.iter().map(|entry| (entry.field.name.to_owned(), value(&entry.input))).collect()
    }
}

impl Inputs {
    /// Reads the maps that are given. What a map has too much is an error for a strict reader only: documents that ran
    /// for years carry such inputs.
    pub(super) fn decode(
        reader: &Reader,
        module: &str,
        nodes: &[&Node],
        fields: &'static [Field],
    ) -> (Self, Vec<Spanned<String>>) {
        let mut texts = Vec::new();
        let groups = nodes.iter().filter_map(|node| group(reader, module, node, fields, &mut texts)).collect();
        (Self { groups }, texts)
    }

    /// All templates, in the order of the texts that [`Inputs::decode`] returned.
    pub(super) fn templates(&mut self) -> Vec<&mut Template> {
        let mut templates = Vec::new();
        for entry in self.groups.iter_mut().flat_map(|group| &mut group.entries) {
            match &mut entry.input {
                Input::One(template) => templates.push(template),
                Input::Many(all) => templates.extend(all),
                Input::Pairs(pairs) => templates.extend(pairs.iter_mut().map(|(_, template)| template)),
            }
        }
        templates
    }

    /// The inputs with every reference replaced, or what is wrong with what came of it.
    pub(super) fn resolve(
        &self,
        value: &mut impl FnMut(&Reference) -> Result<String, String>,
    ) -> Result<Vec<Resolved>, String> {
        self.groups.iter().map(|group| group.resolve(value)).collect()
    }

    /// Whether some group has an input that is a single text.
    pub(super) fn has_text(&self, index: usize, key: &str) -> bool {
        self.groups.get(index).is_some_and(|group| matches!(group.find(key), Some(Input::One(_))))
    }
}

fn group(
    reader: &Reader,
    module: &str,
    node: &Node,
    fields: &'static [Field],
    texts: &mut Vec<Spanned<String>>,
) -> Option<Group<Template>> {
    let mut given = reader.map(node, format!("`{module}`"))?;
    let mut entries = Vec::new();
    for field in fields {
        let value = if field.required { given.require(field.name) } else { given.get(field.name) };
        // An input that is there and says nothing is as good as none, unless it is needed.
        let Some(value) = value.filter(|value| field.required || !value.is_null()) else { continue };
        if let Some(input) = input(reader, value, field, texts) {
            entries.push(Entry { field, span: value.span.clone(), input });
        }
    }
    let known: Vec<&str> = fields.iter().map(|field| field.name).collect();
    given.finish_leniently(&known);
    Some(Group { entries })
}

fn input(
    reader: &Reader,
    node: &Node,
    field: &'static Field,
    texts: &mut Vec<Spanned<String>>,
) -> Option<Input<Template>> {
    match field.kind {
        Kind::Texts => many(reader, node, field, texts).map(Input::Many),
        Kind::TextOrTexts if matches!(node.value, Value::Sequence(_)) => {
            many(reader, node, field, texts).map(Input::Many)
        }
        Kind::Settings => settings(reader, node, field, texts).map(Input::Pairs),
        Kind::Parameters => parameters(reader, node, field, texts).map(Input::Pairs),
        kind => {
            // An empty text is a text; nothing at all is not.
            let text = reader.text(node, field.name)?;
            let template = Template::parse(&text.value);
            if template.references().next().is_none()
                && let Err(problem) = kind.check(&text.value)
            {
                reader.error(&text.span, format!("`{}` {problem}", field.name));
            }
            texts.push(text);
            Some(Input::One(template))
        }
    }
}

fn many(reader: &Reader, node: &Node, field: &Field, texts: &mut Vec<Spanned<String>>) -> Option<Vec<Template>> {
    let items = match &node.value {
        // `commands = file("x.sh")` of Terraform: one text instead of a list.
        Value::Scalar(scalar) if !scalar.is_null() => {
            let message = format!("`{}` has to be a list", field.name);
            reader.deviation(&node.span, message, Some("put `- ` before it".to_owned()));
            std::slice::from_ref(node)
        }
        _ => reader.list(node, field.name)?,
    };
    if items.is_empty() && field.required {
        reader.error(&node.span, format!("`{}` is empty", field.name));
    }
    let items: Vec<Spanned<String>> = items.iter().filter_map(|item| reader.text(item, field.name)).collect();
    let templates = items.iter().map(|item| Template::parse(&item.value)).collect();
    texts.extend(items);
    Some(templates)
}

/// A map of names of the document's own and texts.
fn settings(
    reader: &Reader,
    node: &Node,
    field: &'static Field,
    texts: &mut Vec<Spanned<String>>,
) -> Option<Vec<(String, Template)>> {
    let mut pairs = Vec::new();
    for (name, value) in reader.map(node, format!("`{}`", field.name))?.all() {
        let Some(text) = reader.any_text(value, field.name) else { continue };
        pairs.push((name.value, Template::parse(&text.value)));
        texts.push(text);
    }
    Some(pairs)
}

/// A list of `{ name, value }`.
fn parameters(
    reader: &Reader,
    node: &Node,
    field: &'static Field,
    texts: &mut Vec<Spanned<String>>,
) -> Option<Vec<(String, Template)>> {
    let mut pairs = Vec::new();
    for item in reader.list(node, field.name)? {
        let Some(mut fields) = reader.map(item, format!("an item of `{}`", field.name)) else { continue };
        let name = fields.require("name").and_then(|node| reader.text(node, "name"));
        let value = fields.require("value").and_then(|node| reader.any_text(node, "value"));
        fields.finish(&["name", "value"]);
        let (Some(name), Some(value)) = (name, value) else { continue };
        pairs.push((name.value, Template::parse(&value.value)));
        texts.push(value);
    }
    Some(pairs)
}

impl<T> Group<T> {
    fn find(&self, name: &str) -> Option<&Input<T>> {
        self.entries.iter().find(|entry| entry.field.name == name).map(|entry| &entry.input)
    }

    /// Where an input stands in the document, if it is given.
    pub(super) fn span(&self, name: &str) -> Option<&Range<usize>> {
        self.entries.iter().find(|entry| entry.field.name == name).map(|entry| &entry.span)
    }

    /// Pairs of an input.
    pub(super) fn pairs(&self, name: &str) -> &[(String, T)] {
        match self.find(name) {
            Some(Input::Pairs(pairs)) => pairs,
            _ => &[],
        }
    }
}

impl Group<Template> {
    /// The text of an input that refers to nothing, if it is given.
    pub(super) fn literal(&self, name: &str) -> Option<String> {
        match self.find(name) {
            Some(Input::One(template)) => template.resolve(|_| Err(())).ok(),
            _ => None,
        }
    }

    fn resolve(&self, value: &mut impl FnMut(&Reference) -> Result<String, String>) -> Result<Resolved, String> {
        let mut entries = Vec::new();
        for Entry { field, span, input } in &self.entries {
            let mut text = |template: &Template| {
                let text = template.resolve(&mut *value)?;
                field.kind.check(&text).map_err(|problem| format!("`{}` {problem}", field.name))?;
                Ok::<_, String>(text)
            };
            let input = match input {
                Input::One(template) => Input::One(text(template)?),
                Input::Many(templates) => Input::Many(templates.iter().map(text).collect::<Result<_, _>>()?),
                Input::Pairs(pairs) => {
                    let pairs = pairs.iter().map(|(name, template)| Ok((name.clone(), text(template)?)));
                    Input::Pairs(pairs.collect::<Result<_, String>>()?)
                }
            };
            entries.push(Entry { field, span: span.clone(), input });
        }
        Ok(Group { entries })
    }
}

impl Resolved {
    /// No inputs.
    pub(super) const EMPTY: Self = Self { entries: Vec::new() };

    /// A text, if it is given.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.find(name) {
            Some(Input::One(text)) => Some(text),
            _ => None,
        }
    }

    /// A text that the module requires; what a document left out was refused before.
    pub(super) fn required(&self, name: &str) -> &str {
        self.text(name).unwrap_or_default()
    }

    /// A list of texts.
    pub(super) fn texts(&self, name: &str) -> &[String] {
        match self.find(name) {
            Some(Input::Many(texts)) => texts,
            _ => &[],
        }
    }

    /// A truth value, or what it is unless given. That it is one was checked.
    pub(super) fn flag(&self, name: &str, default: bool) -> bool {
        self.text(name).and_then(Kind::parse_flag).unwrap_or(default)
    }

    /// A number, if it is given. That it is one was checked.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.text(name).and_then(|text| text.parse().ok())
    }
}
