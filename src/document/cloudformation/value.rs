//! What values of a template come to.

use std::ops::Range;

use crate::document::syntax::{Node, Scalar, Value as Written};

/// A value, and where it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// Its bytes in the template.
    pub span: Range<usize>,
    /// What it is.
    pub content: Content,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A text, number or truth value.
    Text(Text),
    /// A list.
    List(Vec<Value>),
    /// A map, in the order of the template.
    Map(Vec<Entry>),
    /// As if it were not written: `AWS::NoValue`.
    Nothing,
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Its bytes in the template.
    pub span: Range<usize>,
    /// The value.
    pub value: Value,
}

/// A text, perhaps with gaps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text {
    /// The text; where nobody can know a part, with something that stands for it.
    pub text: String,
    /// Whether it is a number, a truth value or the like, written without quotes.
    pub plain: bool,
    /// What in it is not known, or only assumed.
    pub gaps: Vec<Gap>,
    /// The resource whose ARN it is.
    pub resource: Option<String>,
}

/// A part of a text that is not known, or only assumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Which bytes of the template ask for it.
    pub span: Range<usize>,
    /// What stands in the text.
    pub stand_in: String,
    /// Why it is not known, or what is assumed.
    pub why: String,
    /// What to do about it.
    pub mend: String,
    /// Whether what stands there may well be right.
    pub is_assumed: bool,
}

impl Text {
    /// A text without gaps.
    pub fn known(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// Whether a part of it is not known.
    pub fn is_unknown(&self) -> bool {
        self.gaps.iter().any(|gap| !gap.is_assumed)
    }
}

impl Value {
    /// A text.
    pub fn text(span: Range<usize>, text: Text) -> Self {
        Self { span, content: Content::Text(text) }
    }

    /// A node as it is written: without functions.
    pub fn literal(node: &Node) -> Self {
        let content = match &node.value {
            Written::Scalar(scalar) if scalar.is_null() => Content::Nothing,
            Written::Scalar(scalar) => Content::Text(written(scalar)),
            Written::Sequence(items) => Content::List(items.iter().map(Self::literal).collect()),
            Written::Mapping(entries) => {
                let entry = |(key, value): &(Node, Node)| Entry {
                    key: key.text().unwrap_or_default().to_owned(),
                    span: key.span.clone(),
                    value: Self::literal(value),
                };
                Content::Map(entries.iter().map(entry).collect())
            }
        };
        Self { span: node.span.clone(), content }
    }

    /// Its text, if it is one.
    pub fn as_text(&self) -> Option<&Text> {
        match &self.content {
            Content::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Its items: those of a list, or itself.
    pub fn items(&self) -> &[Self] {
        match &self.content {
            Content::List(items) => items,
            Content::Nothing => &[],
            _ => std::slice::from_ref(self),
        }
    }

    /// The entries of a map.
    pub fn entries(&self) -> &[Entry] {
        match &self.content {
            Content::Map(entries) => entries,
            _ => &[],
        }
    }

    /// A member of a map by its name, in whatever case: the API writes `name` where CloudFormation writes `Name`.
    pub fn member(&self, name: &str) -> Option<&Self> {
        self.entries().iter().find(|entry| entry.key.eq_ignore_ascii_case(name)).map(|entry| &entry.value)
    }

    /// Everything in it that is not known or only assumed.
    pub fn gaps(&self) -> Vec<&Gap> {
        match &self.content {
            Content::Text(text) => text.gaps.iter().collect(),
            Content::List(items) => items.iter().flat_map(Self::gaps).collect(),
            Content::Map(entries) => entries.iter().flat_map(|entry| entry.value.gaps()).collect(),
            Content::Nothing => Vec::new(),
        }
    }

    /// Notes something of it, with the first text in it.
    pub(super) fn add_gap(&mut self, gap: Gap) -> bool {
        match &mut self.content {
            Content::Text(text) => {
                text.gaps.push(gap);
                true
            }
            Content::List(items) => items.iter_mut().any(|item| item.add_gap(gap.clone())),
            Content::Map(entries) => entries.iter_mut().any(|entry| entry.value.add_gap(gap.clone())),
            Content::Nothing => false,
        }
    }

    /// Whether a part of it is not known.
    pub fn is_unknown(&self) -> bool {
        self.gaps().iter().any(|gap| !gap.is_assumed)
    }

    /// It as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.content {
            Content::Text(text) if text.plain => serde_json::from_str(&text.text).unwrap_or(Json::from(&*text.text)),
            Content::Text(text) => Json::from(&*text.text),
            Content::List(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Content::Map(entries) => {
                Json::Object(entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect())
            }
            Content::Nothing => Json::Null,
        }
    }
}

/// A scalar as it is written.
pub(super) fn written(scalar: &Scalar) -> Text {
    let is_word = matches!(scalar.text.as_str(), "true" | "false" | "True" | "False" | "TRUE" | "FALSE");
    let plain = scalar.plain && (is_word || scalar.text.parse::<f64>().is_ok());
    Text { text: scalar.text.clone(), plain, ..Text::default() }
}
