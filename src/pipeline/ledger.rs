//! What pipelines remember, in the store.
//!
//! ```text
//! pipelines/lock                  held for the moments in which anything below is decided on or changed
//! pipelines/state/NAME.json       a pipeline
//! pipelines/runs/ID/run.json      a run with its builds
//! pipelines/runs/ID/N.lock        held for as long as a process is at work on build N
//! pipelines/runs/ID/N.json        what that process says of it
//! ```
//!
//! Files are replaced whole and synced before the lock is given back, and a build's lock is taken and its record says
//! BUILDING before its process starts. So whoever else looks, before or after a crash, finds a run that is waiting, or one
//! that is claimed; and a claim that nobody holds the lock of was left by a process that is gone.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fs_err as fs;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Error;
use super::definition::Definition;
use super::run::{Run, Status};
use super::state::State;
use crate::host::file;
use crate::store::version::{ImageId, ImageName};
use crate::store::{Lock, Store};

/// Runs of a pipeline that are remembered after their end.
const KEPT_RUNS: usize = 50;
/// A record has a few kilobytes, unless its matrix is enormous.
const LARGEST_RECORD: u64 = 16 << 20;

/// The records. All that changes them happens through a [`Held`] one.
#[derive(Debug, Clone)]
pub struct Ledger {
    folder: PathBuf,
}

/// The records while nobody else may change them.
#[derive(Debug)]
pub struct Held<'a> {
    ledger: &'a Ledger,
    _lock: Lock,
}

/// What the process that makes a build says of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Which attempt this is of.
    pub attempt: u32,
    /// How far it is.
    pub status: Status,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The image, once it has a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageId>,
}

impl Ledger {
    /// The records of a store.
    pub fn new(store: &Store) -> Self {
        Self { folder: store.pipelines() }
    }

    /// Keeps all others from changing anything, once nobody does.
    pub fn hold(&self) -> Result<Held<'_>, Error> {
        Ok(Held { ledger: self, _lock: Lock::wait(&self.folder.join("lock"))? })
    }

    /// What is remembered of a pipeline, or would be if it were seen now, with its document as it is.
    pub fn state_of(&self, definition: &Definition, now: Timestamp) -> Result<State, Error> {
        let mut state = self.state(&definition.name)?.unwrap_or_else(|| State::new(definition, now));
        state.notice(definition);
        Ok(state)
    }

    /// What is remembered of a pipeline.
    pub fn state(&self, name: &ImageName) -> Result<Option<State>, Error> {
        read(&self.state_path(name))
    }

    /// All pipelines that were ever seen, by name.
    pub fn states(&self) -> Result<Vec<State>, Error> {
        let mut states = Vec::new();
        for name in names_in(&self.folder.join("state"))? {
            if let Some(name) = name.strip_suffix(".json").and_then(|name| name.parse().ok()) {
                states.extend(self.state(&name)?);
            }
        }
        Ok(states)
    }

    /// A run.
    pub fn run(&self, id: &str) -> Result<Option<Run>, Error> {
        // Names come from the command line as well.
        if id.contains('/') || id.starts_with('.') {
            return Ok(None);
        }
        read(&self.run_folder(id).join(RUN))
    }

    /// All runs that are remembered, the oldest first.
    pub fn runs(&self) -> Result<Vec<Run>, Error> {
        self.runs_except(&HashSet::new())
    }

    /// The same without those that the caller knows already.
    pub(super) fn runs_except(&self, known: &HashSet<String>) -> Result<Vec<Run>, Error> {
        let mut runs = Vec::new();
        for id in names_in(&self.folder.join("runs"))? {
            if !known.contains(&id) {
                runs.extend(self.run(&id)?);
            }
        }
        runs.sort_by(|a: &Run, b: &Run| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(runs)
    }

    /// What the process that makes a build has said of its newest attempt.
    pub fn outcome(&self, run: &Run, number: usize) -> Result<Option<Outcome>, Error> {
        let outcome: Option<Outcome> = read(&self.build_path(&run.id, number, "json"))?;
        let attempts = run.builds.get(number).map(|build| build.attempts);
        Ok(outcome.filter(|outcome| Some(outcome.attempt) == attempts))
    }

    /// Says something of a build. The process that makes it does this, and nobody else.
    pub fn say(&self, run: &str, number: usize, outcome: &Outcome) -> Result<(), Error> {
        write(&self.build_path(run, number, "json"), outcome)
    }

    /// The lock of a build, unless a process is at work on it.
    pub fn take_build(&self, run: &str, number: usize) -> Result<Option<Lock>, Error> {
        Ok(Lock::try_take(&self.build_path(run, number, "lock"))?)
    }

    fn state_path(&self, name: &ImageName) -> PathBuf {
        self.folder.join("state").join(format!("{name}.json"))
    }

    fn run_folder(&self, id: &str) -> PathBuf {
        self.folder.join("runs").join(id)
    }

    fn build_path(&self, run: &str, number: usize, ending: &str) -> PathBuf {
        self.run_folder(run).join(format!("{number}.{ending}"))
    }
}

const RUN: &str = "run.json";

impl Held<'_> {
    /// Remembers a pipeline.
    pub fn save_state(&self, state: &State) -> Result<(), Error> {
        write(&self.ledger.state_path(&state.name), state)
    }

    /// Remembers a change of a run.
    pub fn save_run(&self, run: &Run) -> Result<(), Error> {
        write(&self.ledger.run_folder(&run.id).join(RUN), run)
    }

    /// Puts a new run into the queue. A scheduled one that is there already was put there by somebody who died before he
    /// could note it, and is not put there again.
    pub fn add_run(&self, run: &mut Run) -> Result<bool, Error> {
        let name = run.id.clone();
        let mut count = 1;
        while self.ledger.run(&run.id)?.is_some() {
            if run.scheduled_for.is_some() {
                return Ok(false);
            }
            count += 1;
            run.id = format!("{name}-{count}");
        }
        // What documents say of proxies and webhooks may be nobody else's business.
        let runs = self.ledger.folder.join("runs");
        fs::set_permissions(&runs, std::fs::Permissions::from_mode(0o700))?;
        fs::create_dir_all(self.ledger.run_folder(&run.id))?;
        self.save_run(run)?;
        file::sync_folder(&self.ledger.folder.join("runs"))?;
        Ok(true)
    }

    /// Forgets the oldest runs of a pipeline that have ended.
    pub fn forget_old_runs(&self, pipeline: &ImageName) -> Result<(), Error> {
        let mut ended = self.ledger.runs()?;
        ended.retain(|run| run.pipeline == *pipeline && run.ended.is_some());
        for run in ended.iter().rev().skip(KEPT_RUNS) {
            fs::remove_dir_all(self.ledger.run_folder(&run.id))?;
        }
        Ok(())
    }
}

fn names_in(folder: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.extend(entry?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

/// A record. One of a newer format, or that is damaged, is an error: to go on without it could start a run twice.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let refused = |why: String| Error::Record { path: path.to_owned(), why };
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > LARGEST_RECORD => return Err(refused("it is too large".to_owned())),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let text = match fs::read(path) {
        Ok(text) => text,
        // The oldest runs are forgotten while others look.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(|error| refused(error.to_string()))?;
    let format = value.get("formatVersion").and_then(serde_json::Value::as_u64).unwrap_or(1);
    if format > u64::from(Run::FORMAT) {
        return Err(refused(format!("a newer goldsmith wrote it (format {format})")));
    }
    serde_json::from_value(value).map(Some).map_err(|error| refused(error.to_string()))
}

fn write(path: &Path, record: &impl Serialize) -> Result<(), Error> {
    let mut text = serde_json::to_vec_pretty(record).map_err(io::Error::from)?;
    text.push(b'\n');
    Ok(file::write(path, &text)?)
}
