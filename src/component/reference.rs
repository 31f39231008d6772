//! Whether references in a document refer to something.

use std::ops::Range;

use super::program::Phase;
use super::values::CONTEXT;
use crate::document::component::Document;
use crate::document::decode::{Reader, Spanned, suggest};
use crate::document::expression::{Reference, Side, Stored, Template};

/// Paths of the metadata service that the executor keeps to itself.
const SECRET_METADATA: [&str; 2] = ["iam", "identity-credentials"];

/// Checks the references of one step.
#[derive(Clone, Copy)]
pub(super) struct Checker<'a> {
    pub(super) reader: &'a Reader,
    pub(super) document: &'a Document,
    /// The phases so far; the last one is the step's own, with the steps before it.
    pub(super) earlier: &'a [Phase],
    /// The loop around what is checked, which may have a name.
    pub(super) looping: Option<Option<&'a str>>,
}

impl Checker<'_> {
    /// Checks what a text refers to. What has no meaning here and could be foreign text stays as it is.
    pub(super) fn check(&self, template: &mut Template, text: &Spanned<String>) {
        let mut verbatim = Vec::new();
        for (reference, range) in template.references() {
            let span = self.locate(text, &range);
            match reference {
                Reference::Loop { name, .. } => {
                    if !self.is_loop(name) {
                        // The guide says that such text stays.
                        let message = format!("no loop `{name}` is around this; the text is left as it is");
                        self.reader.warning(&span, message);
                        verbatim.push(reference.clone());
                    }
                }
                Reference::Name(name) if self.is_declared(name) => {}
                Reference::Name(name) => {
                    let message = format!("`{name}` is neither a parameter nor a constant; the text is left as it is");
                    self.reader.deviation(&span, message, suggest(name, &self.declared()));
                    verbatim.push(reference.clone());
                }
                Reference::Chained { phase, step, side, index, key } => {
                    if let Some(problem) = self.chained((phase, step), *side, *index, key) {
                        self.reader.error(&span, format!("`{{{{ {reference} }}}}`: {problem}"));
                    } else if !self.shares_machine(phase) {
                        let message = format!(
                            "`{phase}` runs in another machine than this, so this has no value in an image's life"
                        );
                        self.reader.deviation(&span, message, None);
                    }
                }
                Reference::Environment(_) => {}
                Reference::Metadata(path) => {
                    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
                    if SECRET_METADATA.contains(&first) {
                        self.reader
                            .error(&span, format!("`aws:imds:{first}/…` holds credentials and can't be referred to"));
                    }
                }
                Reference::Context(key) if CONTEXT.contains(&key.as_str()) => {}
                Reference::Context(key) => self.unknown(&span, &format!("context:{key}"), suggest(key, &CONTEXT)),
                Reference::Stored(stored) => self.stored(stored, &span),
                Reference::Unknown(text) => self.unknown(&span, text, None),
            }
        }
        template.keep_verbatim(&text.value, |reference| verbatim.contains(reference));
    }

    fn unknown(&self, span: &Range<usize>, text: &str, help: Option<String>) {
        let message = format!("there is no reference `{text}`");
        let help = help.unwrap_or_else(|| "there are aws:ssm:NAME, aws:imds:PATH, env:NAME and context:KEY".to_owned());
        self.reader.error_with_help(span, message, help);
    }

    fn stored(&self, stored: &Stored, span: &Range<usize>) {
        match stored {
            Stored::Name(_) => {}
            Stored::Stored(inner) => self.stored(inner, span),
            Stored::Parameter(name) if self.is_declared(name) => {}
            Stored::Parameter(name) => {
                let message = format!("`{name}` is neither a parameter nor a constant");
                match suggest(name, &self.declared()) {
                    Some(help) => self.reader.error_with_help(span, message, help),
                    None => self.reader.error(span, message),
                }
            }
        }
    }

    fn is_loop(&self, name: &str) -> bool {
        self.looping.is_some_and(|own| name == "loop" || own == Some(name))
    }

    /// Where a part of a text stands in the source: only where the text is written as it is read.
    fn locate(&self, text: &Spanned<String>, range: &Range<usize>) -> Range<usize> {
        let written = self.reader.source.text.get(text.span.clone()).unwrap_or_default();
        let needle = text.value.get(range.clone()).unwrap_or_default();
        match written.find(needle) {
            Some(at) if !needle.is_empty() => text.span.start + at..text.span.start + at + needle.len(),
            _ => text.span.clone(),
        }
    }

    fn is_declared(&self, name: &str) -> bool {
        self.declared().contains(&name)
    }

    fn declared(&self) -> Vec<&str> {
        let parameters = self.document.parameters.iter().map(|parameter| parameter.name.value.as_str());
        parameters.chain(self.document.constants.iter().map(|constant| constant.name.value.as_str())).collect()
    }

    /// Whether a phase runs in the same machine as the one that is checked: tests run in a machine of their own.
    fn shares_machine(&self, phase: &str) -> bool {
        let own = self.earlier.last().map_or("", |own| own.name.as_str());
        let is_test = |name: &str| name == "test";
        let is_known = |name: &str| matches!(name, "build" | "validate" | "test");
        !is_known(own) || !is_known(phase) || is_test(own) == is_test(phase)
    }

    /// What is wrong with a reference to a step, if anything.
    fn chained(&self, (phase, step): (&str, &str), side: Side, index: Option<usize>, key: &str) -> Option<String> {
        let Some(found) = self.earlier.iter().find(|candidate| candidate.name == phase) else {
            return Some(format!("there is no phase `{phase}` before this step"));
        };
        let Some(found) = found.steps.iter().find(|candidate| candidate.name == step) else {
            // A step that is itself wrong has been told of.
            let exists = self.document.phases.iter().any(|candidate| {
                candidate.name.value == phase && candidate.steps.iter().any(|candidate| candidate.name.value == step)
            });
            let is_later = if exists { "; it comes later, or is wrong itself" } else { "" };
            return Some(format!("there is no step `{step}` in the phase `{phase}` before this step{is_later}"));
        };
        match side {
            Side::Outputs if !found.module.outputs.contains(&key) => {
                let known = found.module.outputs.join(", ");
                let known = if known.is_empty() { "none".to_owned() } else { known };
                Some(format!("`{}` has no output `{key}`; it has: {known}", found.module.name))
            }
            Side::Outputs if index.is_some_and(|index| index > 0) => {
                Some(format!("`{}` has one group of outputs, number 0", found.module.name))
            }
            Side::Inputs if !found.inputs.has_text(index.unwrap_or(0), key) => {
                Some(format!("the step `{step}` has no such input, or it is a list"))
            }
            _ => None,
        }
    }
}
