//! What is remembered of a pipeline: `pipelines/state/NAME.json`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::definition::Definition;
use super::run::{Run, Status, Trigger};
use crate::store::version::ImageName;

/// Everything remembered of a pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Format of this file.
    pub format_version: u32,
    /// The pipeline.
    pub name: ImageName,
    /// The file that its document was in last.
    pub document: PathBuf,
    /// SHA-256 of its document.
    pub digest: String,
    /// When goldsmith first saw the pipeline; a rate counts from here.
    pub created: Timestamp,
    /// All scheduled times up to this one have been decided on.
    pub considered: Timestamp,
    /// The last run that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<LastRun>,
    /// When it runs next by itself, as was last known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_run: Option<Timestamp>,
    /// Scheduled runs that have failed since something succeeded or the document was edited.
    pub consecutive_failures: u32,
    /// Whether it does not run by itself whatever its document says, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<Disabled>,
    /// What it was made from at the last run that succeeded: what that is, and what it was then.
    #[serde(default)]
    pub dependencies: BTreeMap<String, String>,
    /// The last scheduled time at which nothing was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_skip: Option<Skip>,
}

/// A run that ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastRun {
    /// Which.
    pub run: String,
    /// When it was asked for.
    pub at: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// How.
    pub status: Status,
    /// By what it was asked for.
    pub trigger: Trigger,
}

/// Why a pipeline does not run by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Disabled {
    /// By whom.
    pub by: DisabledBy,
    /// When.
    pub at: Timestamp,
}

/// Who disabled a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DisabledBy {
    /// A person.
    User,
    /// Its `autoDisablePolicy`.
    Failures,
}

/// A scheduled time at which nothing was started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Skip {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: String,
}

impl State {
    /// Format that is written, and the newest that is read.
    pub const FORMAT: u32 = 1;

    /// A pipeline that has just been seen for the first time. It owes no run from before.
    pub fn new(definition: &Definition, now: Timestamp) -> Self {
        Self {
            format_version: Self::FORMAT,
            name: definition.name.clone(),
            document: definition.document.clone(),
            digest: definition.digest.clone(),
            created: now,
            considered: now,
            last_run: None,
            next_run: None,
            consecutive_failures: 0,
            disabled: None,
            dependencies: BTreeMap::new(),
            last_skip: None,
        }
    }

    /// Takes note of the document as it is now. An edit forgives failures.
    pub fn notice(&mut self, definition: &Definition) {
        self.document.clone_from(&definition.document);
        if self.digest != definition.digest {
            self.digest.clone_from(&definition.digest);
            self.consecutive_failures = 0;
        }
    }

    /// Takes note of a run that has ended.
    ///
    /// The wording of AWS leaves open whether reaching or exceeding the number disables; here reaching does. Whether this
    /// run has disabled it.
    pub fn finish(&mut self, run: &Run) -> bool {
        let Some(ended) = run.ended else { return false };
        let was_disabled = self.disabled.is_some();
        let status = run.status();
        match status {
            Status::Available => {
                self.consecutive_failures = 0;
                self.dependencies.clone_from(&run.dependencies);
            }
            Status::Failed if run.trigger == Trigger::Scheduled => {
                self.consecutive_failures += 1;
                if self.disabled.is_none() && run.failures_allowed.is_some_and(|most| self.consecutive_failures >= most)
                {
                    self.disabled = Some(Disabled { by: DisabledBy::Failures, at: ended });
                }
            }
            _ => {}
        }
        self.last_run = Some(LastRun { run: run.id.clone(), at: run.created, ended, status, trigger: run.trigger });
        self.disabled.is_some() && !was_disabled
    }

    /// Lets it run by itself again, from now on.
    pub fn enable(&mut self, now: Timestamp) {
        self.disabled = None;
        self.consecutive_failures = 0;
        self.considered = self.considered.max(now);
    }

    /// Keeps it from running by itself.
    pub fn disable(&mut self, now: Timestamp) {
        self.disabled = Some(Disabled { by: DisabledBy::User, at: now });
    }
}
