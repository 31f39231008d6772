//! From a sealed, tested image to wherever it is used: AMIs, objects, folders, and what points to them.
//!
//! ```text
//!   distribution configuration + image ── plan.rs ──► steps, place by place ── call.rs ──► --plan, --policy
//!                                                       │
//!             ┌─────────────────────────────────────────┤ all places at once; a copy waits for its origin
//!             ▼                                         ▼
//!        region.rs                                  files in folders
//!          │  snapshot.rs   blocks ──► snapshot         (the factory exports them)
//!          │  upload.rs     VMDK ──► parts of an object
//!          │  image, permissions, copies, templates, parameters
//!          ▼                                         │
//!        journal.rs: what was begun and made ◄───────┘ ──► --resume, undo.rs
//!                                                       │
//!                     all went well: pointer.rs moves pointers; message.rs tells the topic
//! ```
//!
//! A step is noted before AWS is asked and after it has answered, so whatever is cut off goes on where it was. A place that
//! fails stops no other. What AWS is asked with is in a crate of its own, `aws/`.

mod call;
mod journal;
mod memory;
mod message;
mod pace;
mod plan;
mod pointer;
mod region;
mod snapshot;
mod undo;
mod upload;

use std::io;
use std::path::{Path, PathBuf};

use futures_util::future::BoxFuture;
use goldsmith_aws::Aws;

use crate::disk::export;
use crate::store::manifest;
use journal::Made;

pub use call::Call;
pub use journal::{DOCUMENT, Header, Journal, StepName};
pub use memory::Memory;
pub use plan::{Place, Plan, Step, Subject, plan};
pub use snapshot::finished as finished_snapshots;
pub use undo::{Undone, undo};

/// Why a place could not be published to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// AWS refused, or can't be reached.
    #[error(transparent)]
    Aws(#[from] goldsmith_aws::Error),
    /// The sealed disk can't be read.
    #[error("the disk can't be read")]
    Disk(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The journal or a file can't be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A file could not be exported.
    #[error("{0}")]
    Export(String),
    /// Something that AWS was to make did not come to be.
    #[error("AWS did not make the {what}: {why}")]
    NotMade {
        /// What.
        what: &'static str,
        /// AWS's words.
        why: String,
    },
    /// Something takes too long.
    #[error("the {what} {id} is not ready after {minutes} minutes; `--resume` waits on")]
    Late {
        /// What.
        what: &'static str,
        /// Its identifier.
        id: String,
        /// How long was waited.
        minutes: u64,
    },
    /// The name of an image is another one's.
    #[error("there is another image `{name}` in {region}: {id}")]
    Taken {
        /// The name.
        name: String,
        /// The region.
        region: String,
        /// The other image.
        id: String,
    },
    /// An object that was written is not as it was sent.
    #[error("{object} has {found} bytes, and {sent} were sent")]
    Incomplete {
        /// The object.
        object: String,
        /// How many there are.
        found: u64,
        /// How many there should be.
        sent: u64,
    },
    /// Something in another account that is no target.
    #[error("account {account} is neither the publisher's nor among `targetAccountIds`")]
    Stranger {
        /// The account.
        account: String,
    },
    /// What a copy is made of is not there.
    #[error("there is no image in {region} to copy")]
    NoOrigin {
        /// The region.
        region: String,
    },
    /// A step needs what an earlier one has made.
    #[error("the journal does not say what was made by `{step}`")]
    Unknown {
        /// The earlier step.
        step: String,
    },
}

/// Something that happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A step begins.
    Step {
        /// Where.
        place: String,
        /// What is done.
        what: String,
    },
    /// Bytes are on their way.
    Transfer {
        /// Where to.
        place: String,
        /// How many were sent, or need not be.
        done: u64,
        /// How many there are.
        total: u64,
    },
    /// A place is done.
    Done {
        /// Which.
        place: String,
    },
    /// A place has failed.
    Failed {
        /// Which.
        place: String,
        /// Why.
        why: String,
    },
    /// Something a person should read.
    Note {
        /// Where.
        place: String,
        /// What.
        text: String,
    },
}

/// Something that was published.
pub type Artifact = manifest::Artifact;

/// What has become of a place.
#[derive(Debug)]
pub struct Outcome {
    /// Which.
    pub place: String,
    /// What was published there, as far as it came.
    pub artifacts: Vec<Artifact>,
    /// Why not all was.
    pub error: Option<Error>,
}

/// The images among what was published, with their regions.
fn amis(outcomes: &[Outcome]) -> impl Iterator<Item = (&str, &Artifact)> {
    let all = outcomes.iter().flat_map(|outcome| outcome.artifacts.iter().map(|made| (outcome.place.as_str(), made)));
    all.filter(|(_, artifact)| artifact.kind == "ami")
}

/// Writes an image's disk in some formats into a folder, as the image's exports are: returns the files.
pub type Exporter<'a> =
    &'a (dyn Fn(Vec<export::Format>, PathBuf) -> BoxFuture<'a, Result<Vec<manifest::Export>, String>> + Send + Sync);

/// A finished snapshot of an earlier image, and the digests of its blocks.
#[derive(Debug, Clone)]
pub struct EarlierSnapshot {
    /// Its identifier.
    pub id: String,
    /// The file with the digests.
    pub blocks: PathBuf,
}

/// One publication under way.
pub struct Publication<'a> {
    /// What is done.
    pub plan: &'a Plan,
    /// The image.
    pub subject: &'a Subject,
    /// The image's manifest.
    pub manifest: &'a manifest::Manifest,
    /// The sealed disk.
    pub disk: &'a Path,
    /// What the machine for it should have.
    pub hardware: &'a export::Hardware,
    /// What was done already.
    pub journal: &'a Journal,
    /// In whose name AWS is asked.
    pub aws: Aws,
    /// Snapshots of earlier images, the newest first, with their regions.
    pub earlier: &'a [(String, EarlierSnapshot)],
    /// Writes files.
    pub exporter: Exporter<'a>,
    /// A folder for files that go on from here.
    pub scratch: &'a Path,
    /// What all places share of this host's.
    pub memory: Memory,
    /// Hears what happens.
    pub listener: &'a (dyn Fn(Event) + Send + Sync),
}

impl std::fmt::Debug for Publication<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publication").field("plan", self.plan).finish_non_exhaustive()
    }
}

/// Does what is planned, as far as it is not done already. Returns what has become of each place, and whether all went
/// well and was told.
pub async fn publish(publication: &Publication<'_>) -> io::Result<Vec<Outcome>> {
    let (copies, others): (Vec<&Place>, Vec<&Place>) =
        publication.plan.places.iter().partition(|place| place.origin().is_some());
    let mut outcomes = Vec::new();
    for wave in [others, copies] {
        let work = wave.into_iter().map(|place| publication.place(place));
        outcomes.extend(futures_util::future::join_all(work).await);
    }
    let order = |place: &str| publication.plan.places.iter().position(|known| known.name == place);
    outcomes.sort_by_key(|outcome| order(&outcome.place));
    if outcomes.iter().all(|outcome| outcome.error.is_none()) {
        outcomes.extend(publication.move_pointers(&outcomes).await);
    }
    outcomes.extend(publication.tell_topic(&outcomes).await);
    if outcomes.iter().all(|outcome| outcome.error.is_none()) {
        publication.journal.note_ended()?;
    }
    Ok(outcomes)
}

impl Publication<'_> {
    /// Does all of one place.
    async fn place(&self, place: &Place) -> Outcome {
        let error = match region::run(self, place).await {
            Ok(()) => {
                self.tell(Event::Done { place: place.name.clone() });
                None
            }
            Err(error) => {
                let why = crate::host::one_line(&error);
                self.tell(Event::Failed { place: place.name.clone(), why });
                Some(error)
            }
        };
        Outcome { place: place.name.clone(), artifacts: self.artifacts(&place.name), error }
    }

    fn tell(&self, event: Event) {
        (self.listener)(event);
    }

    fn begins(&self, place: &str, what: impl Into<String>) {
        self.tell(Event::Step { place: place.to_owned(), what: what.into() });
    }

    /// What there is in a place, by the journal.
    fn artifacts(&self, place: &str) -> Vec<Artifact> {
        let entries = self.journal.entries().into_iter().filter(|(name, _)| name.place == place);
        entries
            .flat_map(|(name, entry)| entry.made.map(|made| artifacts(name.account, made)).unwrap_or_default())
            .collect()
    }
}

/// What something that was made is called.
fn artifacts(account: Option<String>, made: Made) -> Vec<Artifact> {
    let plain = |kind: &str, id: String| Artifact {
        kind: kind.to_owned(),
        id,
        name: None,
        account: account.clone(),
        sha256: None,
        content: None,
    };
    let one = match made {
        Made::Snapshot { id, content, .. } => Artifact { content, ..plain("snapshot", id) },
        Made::Object { object, sha256, .. } => Artifact { sha256: Some(sha256), ..plain("object", object.to_string()) },
        Made::Image { id, name, .. } => Artifact { name: Some(name), ..plain("ami", id) },
        Made::TemplateVersion { template, version, .. } => {
            plain("launch template", format!("{template} version {version}"))
        }
        Made::Parameter { name, .. } => plain("parameter", name),
        Made::Files { files } => {
            let file = |(path, sha256): (PathBuf, String)| Artifact {
                sha256: Some(sha256),
                ..plain("file", path.display().to_string())
            };
            return files.into_iter().map(file).collect();
        }
        Made::PointerFile { path, .. } => plain("pointer", path.display().to_string()),
        Made::PointerObject { object, .. } => plain("pointer", object.to_string()),
        Made::Upload { .. } | Made::Task { .. } => return Vec::new(),
    };
    vec![one]
}
