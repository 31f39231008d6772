//! Inputs of action modules: what a module takes, what a document gives, and both together when a step starts.

use std::ops::Range;

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

/// What an input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A text; of numbers the digits count as they are written.
    Text,
    /// A list of texts.
    Texts,
    /// A truth value.
    Flag,
    /// A whole number, not negative.
    Number,
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

/// Inputs that belong together, by name, with `T` for a text.
#[derive(Debug, Clone)]
pub(super) struct Group<T> {
    entries: Vec<(&'static str, Input<T>)>,
}

#[derive(Debug, Clone)]
enum Input<T> {
    One(T),
    Many(Vec<T>),
}

/// Inputs whose references have been replaced.
pub(super) type Resolved = Group<String>;

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
        let inputs = self.groups.iter_mut().flat_map(|group| &mut group.entries);
        inputs
            .flat_map(|(_, input)| match input {
                Input::One(template) => std::slice::from_mut(template).iter_mut(),
                Input::Many(templates) => templates.iter_mut(),
            })
            .collect()
    }

    /// The inputs with every reference replaced.
    pub(super) fn resolve<E>(
        &self,
        value: &mut impl FnMut(&Reference) -> Result<String, E>,
    ) -> Result<Vec<Resolved>, E> {
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
        let Some(value) = value else { continue };
        if let Some(input) = input(reader, value, field, texts) {
            entries.push((field.name, input));
        }
    }
    let known: Vec<&str> = fields.iter().map(|field| field.name).collect();
    given.finish_leniently(&known);
    Some(Group { entries })
}

fn input(reader: &Reader, node: &Node, field: &Field, texts: &mut Vec<Spanned<String>>) -> Option<Input<Template>> {
    if field.kind == Kind::Texts {
        let items = match &node.value {
            // `commands = file("x.sh")` of Terraform: one text instead of a list.
            Value::Scalar(_) => {
                let message = format!("`{}` has to be a list", field.name);
                reader.deviation(&node.span, message, Some("put `- ` before it".to_owned()));
                std::slice::from_ref(node)
            }
            _ => reader.list(node, field.name)?,
        };
        if items.is_empty() {
            reader.error(&node.span, format!("`{}` is empty", field.name));
        }
        let items: Vec<Spanned<String>> = items.iter().filter_map(|item| reader.text(item, field.name)).collect();
        let templates = items.iter().map(|item| Template::parse(&item.value)).collect();
        texts.extend(items);
        return Some(Input::Many(templates));
    }
    // An empty text is a text; nothing at all is not.
    let text = reader.text(node, field.name)?;
    let template = Template::parse(&text.value);
    if template.references().next().is_none() {
        check_literal(reader, &text.value, field, &text.span);
    }
    texts.push(text);
    Some(Input::One(template))
}

fn check_literal(reader: &Reader, text: &str, field: &Field, span: &Range<usize>) {
    let problem = match field.kind {
        Kind::Flag => parse_flag(text).err(),
        Kind::Number => parse_number(text).err(),
        Kind::Text | Kind::Texts => None,
    };
    if let Some(problem) = problem {
        reader.error(span, format!("`{}` {problem}", field.name));
    }
}

fn parse_flag(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("has to be true or false, and this is `{text}`")),
    }
}

fn parse_number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("has to be a whole number, not negative, and this is `{text}`"))
}

impl<T> Group<T> {
    fn find(&self, name: &str) -> Option<&Input<T>> {
        self.entries.iter().find(|(known, _)| *known == name).map(|(_, input)| input)
    }
}

impl Group<Template> {
    fn resolve<E>(&self, value: &mut impl FnMut(&Reference) -> Result<String, E>) -> Result<Resolved, E> {
        let mut entries = Vec::new();
        for (name, input) in &self.entries {
            let resolved = match input {
                Input::One(template) => Input::One(template.resolve(&mut *value)?),
                Input::Many(templates) => {
                    let texts: Result<Vec<String>, E> =
                        templates.iter().map(|template| template.resolve(&mut *value)).collect();
                    Input::Many(texts?)
                }
            };
            entries.push((*name, resolved));
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

    /// A truth value, or what it is unless given.
    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, String> {
        self.text(name).map_or(Ok(default), |text| parse_flag(text).map_err(|problem| format!("`{name}` {problem}")))
    }

    /// A number, if it is given.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, String> {
        let parse = |text| parse_number(text).map_err(|problem| format!("`{name}` {problem}"));
        self.text(name).map(parse).transpose()
    }
}
