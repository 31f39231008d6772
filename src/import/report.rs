//! What became of each thing that was imported.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::Serialize;

use super::subject::Subject;
use crate::document::cloudformation::{Content, Gap, Value};
use crate::document::syntax::Source;

/// What became of a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It says the same as before.
    Kept,
    /// Something of goldsmith's stands for it.
    Mapped,
    /// Somebody has to fill in what nobody could know.
    Open,
    /// It is not in any document.
    Lost,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kept => "kept",
            Self::Mapped => "mapped",
            Self::Open => "open",
            Self::Lost => "lost",
        })
    }
}

/// What became of one thing.
#[derive(Debug, Clone)]
pub struct Note {
    /// The file that it stood in.
    pub source: Arc<Source>,
    /// Its bytes there.
    pub span: Range<usize>,
    /// What became of it.
    pub fate: Fate,
    /// What it is, as `Recipe.ParentImage`.
    pub what: String,
    /// What there is to say; may be empty.
    pub message: String,
    /// What to do, or what there is instead.
    pub mend: Option<String>,
    /// What stands in the document for what is not known.
    pub(super) stand_in: Option<String>,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A template's own words come into it, and it is one line whatever they are.
        let one_line = |text: &str| text.replace(char::is_control, " ");
        let line = self.source.position(self.span.start).line;
        write!(f, "{}:{line}: {:<6} {}", self.source.name, self.fate, one_line(&self.what))?;
        if !self.message.is_empty() {
            write!(f, ": {}", one_line(&self.message))?;
        }
        match &self.mend {
            Some(mend) => write!(f, " ({})", one_line(mend)),
            None => Ok(()),
        }
    }
}

/// A thing of which something is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) span: Range<usize>,
    /// Its path in its resource; empty for all of it.
    pub(super) path: String,
}

/// What is said of one resource.
#[derive(Debug)]
pub(super) struct Notes<'a> {
    subject: &'a Subject,
    pub(super) list: Vec<Note>,
}

impl<'a> Notes<'a> {
    pub(super) fn new(subject: &'a Subject) -> Self {
        Self { subject, list: Vec::new() }
    }

    pub(super) fn say(&mut self, fate: Fate, origin: &Origin, message: impl Into<String>, mend: Option<&str>) {
        let what = match origin.path.as_str() {
            "" => self.subject.id.clone(),
            path => format!("{}.{path}", self.subject.id),
        };
        self.list.push(Note {
            source: self.subject.source.clone(),
            span: origin.span.clone(),
            fate,
            what,
            message: message.into(),
            mend: mend.map(str::to_owned),
            stand_in: None,
        });
    }

    /// That something which was said to be in a document is not, after all.
    pub(super) fn not_kept(&mut self, origin: &Origin, message: &str, mend: Option<&str>) {
        let what = format!("{}.{}", self.subject.id, origin.path);
        let is_other = |note: &Note| note.fate == Fate::Lost || note.what != what;
        self.list.retain(is_other);
        self.say(Fate::Lost, origin, message, mend);
    }

    /// That there is no document, so that nothing is in one.
    pub(super) fn no_document(&mut self) {
        self.list.retain(|note| note.fate == Fate::Lost);
    }

    /// All of the resource.
    pub(super) fn whole(&self) -> Origin {
        Origin { span: self.subject.span.clone(), path: String::new() }
    }

    /// Of the whole resource.
    pub(super) fn say_of_all(&mut self, fate: Fate, message: impl Into<String>, mend: Option<&str>) {
        let origin = self.whole();
        self.say(fate, &origin, message, mend);
    }

    /// That a value is in a document, with whatever is not known of it.
    pub(super) fn kept(&mut self, origin: &Origin, value: &Value) {
        let references = references(value);
        if value.gaps().is_empty() && references.is_empty() {
            self.say(Fate::Kept, origin, "", None);
        }
        self.gaps(origin, value);
        for reference in references {
            let message = format!("AWS would look `{reference}` up, and nothing here does");
            self.say(Fate::Open, origin, message, Some("put in what it is"));
        }
    }

    /// What is not known of a value that is in a document.
    pub(super) fn gaps(&mut self, origin: &Origin, value: &Value) {
        let mut said: Vec<&Gap> = Vec::new();
        for gap in value.gaps() {
            if said.iter().any(|before| before.stand_in == gap.stand_in && before.why == gap.why) {
                continue;
            }
            said.push(gap);
            let message = if gap.stand_in.starts_with("replace-me") {
                format!("`{}` stands there: {}", gap.stand_in, gap.why)
            } else {
                gap.why.clone()
            };
            let fate = if gap.is_assumed { Fate::Mapped } else { Fate::Open };
            // A function in a block of text has a place of its own.
            let origin = Origin { span: gap.span.clone(), path: origin.path.clone() };
            self.say(fate, &origin, message, Some(&gap.mend));
            if let Some(note) = self.list.last_mut() {
                note.stand_in = Some(gap.stand_in.clone());
            }
        }
    }

    /// Leaves out what is said of stand-ins that are in no document, because readers refused the values around them.
    pub(super) fn only_of(&mut self, texts: &[&str]) {
        let stands = |stand_in: &String| texts.iter().any(|text| text.contains(stand_in.as_str()));
        self.list.retain(|note| note.stand_in.as_ref().is_none_or(stands));
    }
}

/// CloudFormation's dynamic references in a value: `{{resolve:ssm:NAME}}`.
fn references(value: &Value) -> Vec<String> {
    match &value.content {
        Content::Text(text) => {
            let parts = text.text.split("{{resolve:").skip(1);
            parts.filter_map(|part| Some(format!("{{{{resolve:{}}}}}", part.split_once("}}")?.0))).collect()
        }
        Content::List(items) => items.iter().flat_map(references).collect(),
        Content::Map(entries) => entries.iter().flat_map(|entry| references(&entry.value)).collect(),
        Content::Nothing => Vec::new(),
    }
}
