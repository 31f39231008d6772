//! The members of a map, each to be asked for once; what nobody asks for is lost, and said so.

use super::out::Out;
use super::report::{Fate, Notes, Origin};
use crate::document::cloudformation::{Entry, Value};

/// The members of a map.
#[derive(Debug)]
pub(super) struct Members<'a> {
    path: String,
    entries: Vec<(&'a Entry, bool)>,
}

/// One of them.
#[derive(Debug, Clone)]
pub(super) struct Member<'a> {
    pub(super) value: &'a Value,
    pub(super) origin: Origin,
}

impl<'a> Members<'a> {
    pub(super) fn of(value: &'a Value, path: &str) -> Self {
        let path = if path.is_empty() { String::new() } else { format!("{path}.") };
        Self { path, entries: value.entries().iter().map(|entry| (entry, false)).collect() }
    }

    /// The member of a name, in whatever case.
    pub(super) fn take(&mut self, name: &str) -> Option<Member<'a>> {
        let (entry, used) = self.entries.iter_mut().find(|(entry, _)| entry.key.eq_ignore_ascii_case(name))?;
        *used = true;
        let origin = Origin { span: entry.span.clone(), path: format!("{}{}", self.path, entry.key) };
        Some(Member { value: &entry.value, origin })
    }

    /// Members that are about a call or its answer and not about what is imported.
    pub(super) fn ignore(&mut self, names: &[&str]) {
        for name in names {
            let _of_the_call = self.take(name);
        }
    }

    /// Members that are kept as they are, under the API's names.
    pub(super) fn keep(
        &mut self,
        names: &[&'static str],
        document: &mut Vec<(&'static str, Out)>,
        notes: &mut Notes<'_>,
    ) {
        for name in names {
            document.extend(self.take(name).and_then(|member| Some((*name, member.keep(notes)?))));
        }
    }

    /// Members that mean nothing here, each with why and perhaps what there is instead.
    pub(super) fn lose(&mut self, reasons: &[(&str, &str, &str)], notes: &mut Notes<'_>) {
        for (name, why, instead) in reasons {
            if let Some(member) = self.take(name) {
                notes.say(Fate::Lost, &member.origin, *why, Some(*instead).filter(|instead| !instead.is_empty()));
            }
        }
    }

    /// Ends the map.
    pub(super) fn finish(self, notes: &mut Notes<'_>) {
        for (entry, used) in self.entries {
            if !used {
                let origin = Origin { span: entry.span.clone(), path: format!("{}{}", self.path, entry.key) };
                notes.say(Fate::Lost, &origin, "nothing here is like it", None);
            }
        }
    }
}

impl<'a> Member<'a> {
    /// It as it is, under the API's names.
    pub(super) fn keep(&self, notes: &mut Notes<'_>) -> Option<Out> {
        let out = Out::of(self.value, &self.origin)?;
        notes.kept(&self.origin, self.value);
        Some(out)
    }

    /// Its text, if it is one.
    pub(super) fn text(&self) -> Option<&str> {
        self.value.as_text().map(|text| text.text.as_str())
    }

    /// A member of it.
    pub(super) fn member(&self, name: &str) -> Option<Self> {
        let entry = self.value.entries().iter().find(|entry| entry.key.eq_ignore_ascii_case(name))?;
        let path = format!("{}.{}", self.origin.path, entry.key);
        Some(Self { value: &entry.value, origin: Origin { span: entry.span.clone(), path } })
    }

    /// Its items, or itself if it is no list.
    pub(super) fn items(&self) -> Vec<Self> {
        let path = |index: usize| format!("{}[{index}]", self.origin.path);
        let item = |(index, value): (usize, &'a Value)| Self {
            value,
            origin: Origin { span: value.span.clone(), path: path(index) },
        };
        self.value.items().iter().enumerate().map(item).collect()
    }
}
