//! From nodes to what a document means, collecting everything that is wrong on the way.
//!
//! Nothing here stops at the first error: a [`Reader`] notes it and goes on, and whoever decodes does with `None` what
//! can be done. A document is used only when [`Reader::finish`] finds no error.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use super::diagnostic::{Diagnostic, Report, Severity};
use super::syntax::{Node, Source, Value};

/// How strictly a document is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strictness {
    /// As documents have run for years: some mistakes only warn.
    #[default]
    Compat,
    /// As today's service reads them.
    Strict,
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Its bytes in the source.
    pub span: Range<usize>,
}

/// Reads one document.
#[derive(Debug)]
pub struct Reader {
    /// The document.
    pub source: Arc<Source>,
    /// How strictly it is read.
    pub strictness: Strictness,
    problems: RefCell<Vec<Diagnostic>>,
}

impl Reader {
    /// A reader of a document.
    pub fn new(source: Arc<Source>, strictness: Strictness) -> Self {
        Self { source, strictness, problems: RefCell::new(Vec::new()) }
    }

    /// Notes an error.
    pub fn error(&self, span: &Range<usize>, message: impl Into<String>) {
        self.note(Severity::Error, span, message.into(), None);
    }

    /// Notes an error and what to write instead.
    pub fn error_with_help(&self, span: &Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        self.note(Severity::Error, span, message.into(), Some(help.into()));
    }

    /// Notes what is an error for a strict reader and a warning for others.
    pub fn deviation(&self, span: &Range<usize>, message: impl Into<String>, help: Option<String>) {
        let severity = match self.strictness {
            Strictness::Strict => Severity::Error,
            Strictness::Compat => Severity::Warning,
        };
        self.note(severity, span, message.into(), help);
    }

    /// Notes a warning.
    pub fn warning(&self, span: &Range<usize>, message: impl Into<String>) {
        self.note(Severity::Warning, span, message.into(), None);
    }

    fn note(&self, severity: Severity, span: &Range<usize>, message: String, help: Option<String>) {
        self.problems.borrow_mut().push(Diagnostic { severity, message, span: span.clone(), help });
    }

    /// Notes what somebody else has found in the document.
    pub fn take_over(&self, report: Report) {
        self.problems.borrow_mut().extend(report.diagnostics);
    }

    /// What was read, with warnings; or all that is wrong.
    pub fn finish<T>(self, value: Option<T>) -> Result<(T, Report), Report> {
        let mut diagnostics = self.problems.into_inner();
        diagnostics.sort_by_key(|diagnostic| diagnostic.span.start);
        diagnostics.dedup();
        let report = Report { source: self.source, diagnostics };
        match value {
            Some(value) if !report.has_errors() => Ok((value, report)),
            _ => Err(report),
        }
    }

    /// The fields of a map.
    pub fn map<'a>(&'a self, node: &'a Node, what: impl Into<Cow<'static, str>>) -> Option<Fields<'a>> {
        let what = what.into();
        match &node.value {
            Value::Mapping(entries) => {
                let entries = entries.iter().map(|(key, value)| Field { key, value, used: false }).collect();
                Some(Fields { reader: self, what, span: node.span.clone(), entries })
            }
            _ => {
                self.error(&node.span, format!("{what} has to be a map, and this is {}", node.kind()));
                None
            }
        }
    }

    /// The items of a list.
    pub fn list<'a>(&self, node: &'a Node, what: &str) -> Option<&'a [Node]> {
        match &node.value {
            Value::Sequence(items) => Some(items),
            _ => {
                self.error(&node.span, format!("`{what}` has to be a list, and this is {}", node.kind()));
                None
            }
        }
    }

    /// The text of a single value, numbers and truth values as they are written.
    pub fn text(&self, node: &Node, what: &str) -> Option<Spanned<String>> {
        match &node.value {
            Value::Scalar(scalar) if !scalar.is_null() => {
                Some(Spanned { value: scalar.text.clone(), span: node.span.clone() })
            }
            _ => {
                self.error(&node.span, format!("`{what}` has to be a text, and this is {}", node.kind()));
                None
            }
        }
    }

    /// As [`Reader::text`], where an empty text or nothing at all means an empty text.
    pub fn any_text(&self, node: &Node, what: &str) -> Option<Spanned<String>> {
        match &node.value {
            Value::Scalar(scalar) => Some(Spanned { value: scalar.text.clone(), span: node.span.clone() }),
            _ => self.text(node, what),
        }
    }

    /// A truth value, written as YAML writes it or as a text.
    pub fn boolean(&self, node: &Node, what: &str) -> Option<bool> {
        let text = self.text(node, what)?;
        match text.value.as_str() {
            "true" | "True" | "TRUE" => Some(true),
            "false" | "False" | "FALSE" => Some(false),
            other => {
                self.error(&node.span, format!("`{what}` has to be true or false, and this is `{other}`"));
                None
            }
        }
    }

    /// A whole number.
    pub fn integer(&self, node: &Node, what: &str) -> Option<i64> {
        let text = self.text(node, what)?;
        let number = text.value.parse().ok();
        if number.is_none() {
            self.error(&node.span, format!("`{what}` has to be a whole number, and this is `{}`", text.value));
        }
        number
    }

    /// Something that has a text form.
    pub fn parse<T>(&self, node: &Node, what: &str) -> Option<Spanned<T>>
    where
        T: std::str::FromStr,
        T::Err: std::fmt::Display,
    {
        let text = self.text(node, what)?;
        match text.value.parse() {
            Ok(value) => Some(Spanned { value, span: text.span }),
            Err(error) => {
                self.error(&text.span, format!("{error}"));
                None
            }
        }
    }

    /// A list of texts.
    pub fn texts(&self, node: &Node, what: &str) -> Option<Vec<Spanned<String>>> {
        let items = self.list(node, what)?;
        Some(items.iter().filter_map(|item| self.text(item, what)).collect())
    }
}

#[derive(Debug)]
struct Field<'a> {
    key: &'a Node,
    value: &'a Node,
    used: bool,
}

impl Field<'_> {
    fn name(&self) -> &str {
        match &self.key.value {
            Value::Scalar(scalar) => &scalar.text,
            _ => "",
        }
    }
}

/// The fields of a map, each to be asked for once; what nobody asks for is unknown.
#[derive(Debug)]
pub struct Fields<'a> {
    reader: &'a Reader,
    what: Cow<'static, str>,
    /// The map's bytes in the source.
    pub span: Range<usize>,
    entries: Vec<Field<'a>>,
}

impl<'a> Fields<'a> {
    /// The value of a field, if it is given.
    pub fn get(&mut self, name: &str) -> Option<&'a Node> {
        let field = self.entries.iter_mut().find(|field| field.name() == name)?;
        field.used = true;
        Some(field.value)
    }

    /// The value of a field that may also be called otherwise, if it is given.
    pub fn either(&mut self, name: &str, other: &str) -> Option<&'a Node> {
        match (self.get(name), self.get(other)) {
            (Some(_), Some(second)) => {
                self.reader.error(&second.span, format!("`{name}` and `{other}` mean the same; give one of them"));
                None
            }
            (first, second) => first.or(second),
        }
    }

    /// The value of a field that has to be given.
    pub fn require(&mut self, name: &str) -> Option<&'a Node> {
        let value = self.get(name);
        if value.is_none() {
            self.missing(name);
        }
        value
    }

    /// Notes that a field is missing.
    pub fn missing(&self, name: &str) {
        // The whole map would be underlined; its first line says enough.
        let start = self.span.start;
        self.reader.error(&(start..start + 1), format!("{} needs the field `{name}`", self.what));
    }

    /// A text, if it is given.
    pub fn text(&mut self, name: &str) -> Option<Spanned<String>> {
        let node = self.get(name)?;
        self.reader.text(node, name)
    }

    /// A truth value; false unless given.
    pub fn flag(&mut self, name: &str) -> bool {
        self.get(name).and_then(|node| self.reader.boolean(node, name)).unwrap_or(false)
    }

    /// The names and values of all fields, for maps whose keys are the user's own.
    pub fn all(mut self) -> Vec<(Spanned<String>, &'a Node)> {
        self.entries
            .iter_mut()
            .map(|field| {
                field.used = true;
                (Spanned { value: field.name().to_owned(), span: field.key.span.clone() }, field.value)
            })
            .collect()
    }

    /// Fields that have no effect yet: an error, never silence.
    pub fn refuse(&mut self, names: &[&str], why: &str) {
        for name in names {
            if let Some(field) = self.entries.iter_mut().find(|field| field.name() == *name) {
                field.used = true;
                self.reader.error(&field.key.span, format!("`{name}` {why}"));
            }
        }
    }

    /// Ends the map: what nobody asked for is an error.
    pub fn finish(self, known: &[&str]) {
        for (span, message, help) in self.unknown(known) {
            self.reader.note(Severity::Error, &span, message, help);
        }
    }

    /// A field that is known to stand in documents and has no effect: an error for a strict reader only.
    pub fn tolerate(&mut self, name: &str) {
        if let Some(field) = self.entries.iter_mut().find(|field| field.name() == name) {
            field.used = true;
            self.reader.deviation(&field.key.span, format!("{} has no field `{name}`", self.what), None);
        }
    }

    /// Ends the map: what nobody asked for is an error for a strict reader.
    pub fn finish_leniently(self, known: &[&str]) {
        for (span, message, help) in self.unknown(known) {
            self.reader.deviation(&span, message, help);
        }
    }

    fn unknown(&self, known: &[&str]) -> Vec<(Range<usize>, String, Option<String>)> {
        let unused = self.entries.iter().filter(|field| !field.used);
        unused
            .map(|field| {
                let message = format!("{} has no field `{}`", self.what, field.name());
                (field.key.span.clone(), message, suggest(field.name(), known))
            })
            .collect()
    }
}

/// "did you mean", when one of the known words is near.
pub fn suggest(word: &str, known: &[&str]) -> Option<String> {
    let others = known.iter().filter(|candidate| **candidate != word);
    let near =
        others.map(|candidate| (strsim::jaro_winkler(&word.to_lowercase(), &candidate.to_lowercase()), candidate));
    let (similarity, candidate) = near.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (similarity > 0.8).then(|| format!("did you mean `{candidate}`?"))
}
