//! Pipelines: recipes that are built by themselves, when it is time and something is newer.
//!
//! ```text
//!   documents ──► definition ─┐
//!                             ├─► decide ──► pass ──► queue ──► worker ──► execute ──► image
//!   ledger ─────► state ──────┘   is it     newer    is there   a process   Factory     │
//!      ▲                          time?     than     room?      for each                │
//!      │                                    last?               build                   │
//!      └──────────────────── run, with the outcome of each of its builds ◄──────────────┘
//! ```
//!
//! `decide`, `queue` and `schedule` are plain functions of what they are given. `goldsmith scheduler`, `pipeline tick` and
//! `pipeline run` are the same pass and the same worker, for ever, once, and for one run; any number of them may be at
//! work on one store at the same time, because everything that is decided is noted under one lock ([`Ledger`]).

mod decide;
mod definition;
mod documents;
mod execute;
mod ledger;
mod logs;
#[cfg(test)]
mod oracle;
mod pass;
mod queue;
mod run;
pub mod schedule;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod soak;
mod state;
mod told;
mod worker;

use std::path::PathBuf;

use crate::document::diagnostic::Report;
use crate::store::version::ImageName;
use crate::store::{self, Store};

pub use decide::{Decision, decide};
pub use definition::{Build, Condition, Definition, How, Named};
pub use documents::{Found, Problem, find, in_file, in_folder};
pub use execute::execute;
pub use ledger::{Ledger, Outcome};
pub use logs::LogPlace;
pub use pass::{Seen, ask, cancel, next_run, next_runs, pass, set_enabled};
pub use queue::Needs;
pub use run::{BuildRecord, Run, Status, Trigger};
pub use schedule::Schedule;
pub use state::{Disabled, DisabledBy, LastRun, Skip, State};
pub use told::{Told, targets};
pub use worker::{Notice, Until, Worker};

/// Why something can't be done with pipelines.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A document is wrong.
    #[error("the document can't be used")]
    Document(#[from] Box<Report>),
    /// A document is not there, or can't be read.
    #[error(transparent)]
    Unreadable(std::io::Error),
    /// No such pipeline, but one that is wrong and perhaps is the one that was asked for.
    #[error("no document that can be used has a pipeline `{wanted}`")]
    Problem {
        /// What was asked for.
        wanted: String,
        /// What can't be used.
        #[source]
        problem: Box<Problem>,
    },
    /// A document says something that can't be done here.
    #[error("{place}: {message}")]
    Unusable {
        /// File, line and column.
        place: String,
        /// What is wrong.
        message: String,
        /// What to write instead.
        help: Option<String>,
    },
    /// No such pipeline.
    #[error("there is no pipeline `{wanted}`")]
    NoPipeline {
        /// What was asked for.
        wanted: String,
        /// Those that there are.
        known: Vec<ImageName>,
    },
    /// No such run.
    #[error("there is no run `{wanted}`")]
    NoRun {
        /// What was asked for.
        wanted: String,
    },
    /// It can't be found out what there is that is newer.
    #[error("it can't be told whether anything is newer: {0}")]
    Lookup(String),
    /// Logs can't be put in their place.
    #[error("{0}")]
    Logs(String),
    /// A record can't be read.
    #[error("the record `{}` can't be used: {why}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// All that goes on in a store: its pipelines, and the runs that wait or are being worked on.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    /// Pipelines, by name.
    pub pipelines: Vec<State>,
    /// Runs that have not ended, the oldest first.
    pub queue: Vec<Run>,
}

/// What goes on in a store, for whoever wants to show it.
pub fn overview(store: &Store) -> Result<Overview, Error> {
    let ledger = Ledger::new(store);
    let mut queue = ledger.runs()?;
    queue.retain(|run| run.ended.is_none());
    Ok(Overview { pipelines: ledger.states()?, queue })
}
