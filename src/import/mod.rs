//! Documents for goldsmith out of CloudFormation templates and what the AWS command line takes and prints.
//!
//! ```text
//!   files ──subject──► resources, their values evaluated (document::cloudformation)
//!                         │
//!                       place ──► a name and a file for each, so that one can name another
//!                         │
//!            a mapper for each kind ──► a document, and what became of each member
//!                         │
//!                      settle ──► what goldsmith's own readers refuse is taken out, and said
//!                         │
//!                       write ──► a folder of documents, read again as they will be used
//! ```
//!
//! Nothing is left out in silence: each property of each resource is kept, mapped, open or lost.

mod component;
mod infrastructure;
mod members;
mod out;
mod pipeline;
mod place;
mod plain;
mod recipe;
mod report;
mod settle;
mod subject;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::document::cloudformation::Environment;
use crate::document::component::Platform;
use crate::document::decode::suggest;
use crate::document::diagnostic::Report;
use crate::document::syntax::Source;

pub use report::{Fate, Note};
pub use write::{Written, check, write};

use members::Members;
use out::Out;
use place::{Place, Places};
use report::Notes;
use subject::{Kind, Subject};

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is wrong.
    #[error("`{}` can't be imported", .0.source.name)]
    Document(Box<Report>),
    /// A file has nothing of Image Builder's.
    #[error("there is nothing to import in {files}")]
    Nothing {
        /// The files.
        files: String,
        /// What became of what there is.
        notes: Vec<Note>,
    },
    /// A parameter was given that no template has.
    #[error("no template has a parameter `{name}`")]
    Parameter {
        /// Its name.
        name: String,
        /// The one that is meant perhaps.
        help: Option<String>,
    },
    /// Files would be overwritten.
    #[error("{} is there already and says something else", paths.iter().map(|path| format!("`{}`", path.display())).collect::<Vec<_>>().join(", "))]
    Taken {
        /// The files.
        paths: Vec<PathBuf>,
    },
    /// A file or folder failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// What files come to.
#[derive(Debug)]
pub struct Import {
    /// The documents.
    pub documents: Vec<Document>,
    /// What became of everything, in the order of the files.
    pub notes: Vec<Note>,
    /// How many resources of other services were left out, by type.
    pub others: BTreeMap<String, usize>,
}

impl Import {
    /// How many properties have come to this.
    pub fn count(&self, fate: Fate) -> usize {
        self.notes.iter().filter(|note| note.fate == fate).count()
    }
}

/// A file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Relative to the folder of all.
    pub path: String,
    /// Its text.
    pub text: String,
    /// What it is: CloudFormation's word, or `Script`.
    pub kind: &'static str,
    /// What it is for, of components.
    pub platform: Platform,
}

/// What a mapper makes.
#[derive(Debug)]
struct Draft {
    file: String,
    text: String,
    platform: Platform,
    /// Scripts that come with it: their files and texts.
    more: Vec<(String, String)>,
}

/// What files come to. Parents are looked up as from `folder`, where the documents will be.
pub fn import(sources: &[Arc<Source>], environment: &Environment, folder: &Path) -> Result<Import, Error> {
    let sources: Vec<Arc<Source>> = sources.iter().map(subject::readable).collect();
    let (mut subjects, mut notes, mut others) = (Vec::new(), Vec::new(), BTreeMap::<String, usize>::new());
    let mut parameters = Vec::new();
    for source in &sources {
        let found = subject::find(source, environment).map_err(|report| Error::Document(Box::new(report)))?;
        subjects.extend(found.subjects);
        notes.extend(found.notes);
        parameters.extend(found.parameters);
        for (kind, count) in found.others {
            *others.entry(kind).or_default() += count;
        }
    }
    for (name, _) in &environment.parameters {
        if !parameters.contains(name) {
            let known: Vec<&str> = parameters.iter().map(String::as_str).collect();
            return Err(Error::Parameter { name: name.clone(), help: suggest(name, &known) });
        }
    }
    let documents = documents(&subjects, folder, &mut notes);
    let place = |note: &Note| {
        let file = sources.iter().position(|source| Arc::ptr_eq(source, &note.source));
        (file, note.span.start)
    };
    notes.sort_by_key(place);
    if documents.is_empty() {
        let files: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
        return Err(Error::Nothing { files: files.join(", "), notes });
    }
    Ok(Import { documents, notes, others })
}

fn documents(subjects: &[Subject], folder: &Path, notes: &mut Vec<Note>) -> Vec<Document> {
    let places = Places::of(subjects);
    let mut gone = vec![false; subjects.len()];
    let mut drafts: Vec<Option<Draft>> = Vec::new();
    drafts.resize_with(subjects.len(), || None);
    // Those that name others come last, when it is known which of these there are.
    let mut order: Vec<usize> = (0..subjects.len()).collect();
    order.sort_by_key(|&index| matches!(subjects[index].kind, Kind::Pipeline | Kind::Image));
    for index in order {
        let (subject, place) = (&subjects[index], &places.places[index]);
        let mut said = Notes::new(subject);
        let draft = match subject.kind {
            Kind::Component => component::import(subject, place, &mut said),
            Kind::ImageRecipe => recipe::import(index, &places, folder, &mut said),
            Kind::Infrastructure => infrastructure::import(subject, place, &mut said),
            Kind::Distribution => plain::distribution(subject, place, &mut said),
            Kind::Lifecycle => plain::lifecycle(subject, place, &mut said),
            Kind::Pipeline | Kind::Image => pipeline::import(index, &places, &gone, &mut said),
            Kind::ContainerRecipe | Kind::Workflow => {
                plain::refuse(subject, &mut said);
                None
            }
        };
        // A component's document may be elsewhere, and recipes name the file that it is to have.
        if draft.is_none() && subject.kind != Kind::Component {
            said.no_document();
        }
        if let (Some(draft), false) = (&draft, subject.kind == Kind::Component) {
            let scripts = draft.more.iter().map(|(_, text)| text.as_str());
            said.only_of(&[draft.text.as_str()].into_iter().chain(scripts).collect::<Vec<_>>());
        }
        gone[index] = draft.is_none();
        drafts[index] = draft;
        notes.extend(said.list);
    }
    let documents = subjects.iter().zip(drafts).filter_map(|(subject, draft)| Some((subject, draft?)));
    documents
        .flat_map(|(subject, draft)| {
            let kind = if draft.file.ends_with(".sh") { "Script" } else { subject.kind.name() };
            let scripts = draft.more.into_iter().map(|(path, text)| Document {
                path,
                text,
                kind: "Script",
                platform: Platform::Linux,
            });
            let document = Document { path: draft.file, text: draft.text, kind, platform: draft.platform };
            [document].into_iter().chain(scripts).collect::<Vec<_>>()
        })
        .collect()
}

/// The name of something, and what became of it.
fn name(members: &mut Members<'_>, place: &Place, notes: &mut Notes<'_>) -> Out {
    let Some(member) = members.take("Name") else { return Out::text(place.name.as_str()) };
    if member.text() == Some(&place.name) {
        notes.kept(&member.origin, member.value);
    } else {
        notes.say(
            Fate::Mapped,
            &member.origin,
            format!("`{}`: a name has 3 to 128 letters, digits, hyphens, underscores and inner spaces", place.name),
            None,
        );
        notes.gaps(&member.origin, member.value);
    }
    Out::text(place.name.as_str()).from(&member.origin)
}

/// What a document's first line says.
fn comment(subject: &Subject) -> String {
    let file = Path::new(&subject.source.name).file_name().map(|name| name.to_string_lossy().into_owned());
    format!("{} {} of {}, imported by goldsmith", subject.kind.name(), subject.id, file.unwrap_or_default())
}

#[cfg(test)]
mod tests;
