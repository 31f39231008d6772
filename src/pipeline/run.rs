//! A run of a pipeline: `pipelines/runs/ID/run.json`.
//!
//! ```text
//!   PENDING ──claimed──► BUILDING ──► AVAILABLE
//!      ▲                    │ ├─────► FAILED
//!      │                    │ └─────► CANCELLED
//!      └── its process was ─┘ killed, once; FAILED the second time
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::definition::{Build, Definition, How};
use super::queue::Needs;
use crate::store::version::{ImageId, ImageName};

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Format of this file.
    pub format_version: u32,
    /// Its name: the pipeline's, and when it was due or asked for.
    pub id: String,
    /// The pipeline.
    pub pipeline: ImageName,
    /// The pipeline's document.
    pub document: PathBuf,
    /// By what it was asked for.
    pub trigger: Trigger,
    /// When it was asked for.
    pub created: Timestamp,
    /// The scheduled time that it stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_for: Option<Timestamp>,
    /// What was newer than at the last build, for a run that needs such a reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// Runs of a higher number start first.
    pub priority: i32,
    /// How many scheduled runs in a row may fail before the pipeline is disabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures_allowed: Option<u32>,
    /// What its images are made from, as it was when the run was asked for.
    #[serde(default)]
    pub dependencies: BTreeMap<String, String>,
    /// How its builds are made, as the documents said when it was asked for.
    pub how: How,
    /// Its builds.
    pub builds: Vec<BuildRecord>,
    /// When its last build ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
}

/// A build of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildRecord {
    /// What it changes of the recipe.
    #[serde(flatten)]
    pub build: Build,
    /// How far it is.
    pub status: Status,
    /// Why it is there, or what it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The image, once it has a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageId>,
    /// How often it was started; what its process says names the attempt.
    pub attempts: u32,
    /// How often its process was killed.
    #[serde(default)]
    pub killed: u32,
    /// When it was started last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// What it takes of the host while it runs.
    pub needs: Needs,
    /// Whether somebody wants it to end.
    #[serde(default)]
    pub cancelled: bool,
}

/// By what a run was asked for; what the API calls the build type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trigger {
    /// A person.
    #[serde(rename = "USER_INITIATED")]
    User,
    /// Its schedule.
    #[serde(rename = "SCHEDULED")]
    Scheduled,
}

/// How far a build or a run is; of the API's states of images those that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// It waits.
    Pending,
    /// A process is at work on it.
    Building,
    /// There is an image.
    Available,
    /// There is none.
    Failed,
    /// Somebody ended it.
    Cancelled,
}

impl Status {
    /// Whether there is still something to come.
    pub fn is_under_way(self) -> bool {
        matches!(self, Self::Pending | Self::Building)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pending => "PENDING",
            Self::Building => "BUILDING",
            Self::Available => "AVAILABLE",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        })
    }
}

/// How often a build's process may be killed: the host's restart is no fault of its own, and a build that has the host
/// killed must not do so for ever.
const MOST_KILLS: u32 = 2;

impl Run {
    /// Format that is written, and the newest that is read.
    pub const FORMAT: u32 = 1;

    /// A run to come. A scheduled one is named after its time, so that it can't be made twice.
    pub fn new(definition: &Definition, due: Option<Timestamp>, now: Timestamp, needs: Needs) -> Self {
        let at = due.unwrap_or(now).strftime("%Y%m%dT%H%M%SZ");
        let record = |build: &Build| BuildRecord {
            build: build.clone(),
            status: Status::Pending,
            reason: None,
            image: None,
            attempts: 0,
            killed: 0,
            started: None,
            ended: None,
            needs,
            cancelled: false,
        };
        Self {
            format_version: Self::FORMAT,
            // A person's run takes no scheduled one's name.
            id: format!("{}@{at}{}", definition.name, if due.is_some() { "" } else { "-asked" }),
            pipeline: definition.name.clone(),
            document: definition.document.clone(),
            trigger: if due.is_some() { Trigger::Scheduled } else { Trigger::User },
            created: now,
            scheduled_for: due,
            reasons: Vec::new(),
            priority: definition.priority,
            failures_allowed: definition.failures_allowed,
            dependencies: BTreeMap::new(),
            how: definition.how.clone(),
            builds: definition.builds.iter().map(record).collect(),
            ended: None,
        }
    }

    /// How far the run is, by its builds: one that failed makes it FAILED, all have to be there for AVAILABLE.
    pub fn status(&self) -> Status {
        let has = |status| self.builds.iter().any(|build| build.status == status);
        let all_wait = self.builds.iter().all(|build| build.status == Status::Pending);
        match () {
            () if all_wait => Status::Pending,
            () if has(Status::Pending) || has(Status::Building) => Status::Building,
            () if has(Status::Failed) => Status::Failed,
            () if has(Status::Cancelled) => Status::Cancelled,
            () => Status::Available,
        }
    }

    /// Has its builds end: those that wait do so at once.
    pub fn cancel(&mut self, now: Timestamp) {
        for build in self.builds.iter_mut().filter(|build| build.status.is_under_way()) {
            build.cancelled = true;
            if build.status == Status::Pending {
                build.end(Status::Cancelled, Some("it was cancelled before it began".to_owned()), now);
            }
        }
        self.settle(now);
    }

    /// Notes when the last of its builds has ended. Whether this has just happened.
    pub fn settle(&mut self, now: Timestamp) -> bool {
        let is_new = self.ended.is_none() && !self.status().is_under_way();
        if is_new {
            self.ended = Some(now);
        }
        is_new
    }
}

impl BuildRecord {
    /// Notes that a process is going to be at work on it.
    pub fn claim(&mut self, now: Timestamp) {
        self.status = Status::Building;
        self.reason = None;
        self.started = Some(now);
        self.attempts += 1;
    }

    /// Notes how it ended.
    pub fn end(&mut self, status: Status, reason: Option<String>, now: Timestamp) {
        self.status = status;
        self.reason = reason;
        self.ended = Some(now);
    }

    /// Notes that its process was killed: once it is begun again.
    pub fn was_killed(&mut self, how: &str, now: Timestamp) {
        self.killed += 1;
        match self.killed {
            _ if self.cancelled => self.end(Status::Cancelled, Some(how.to_owned()), now),
            MOST_KILLS.. => self.end(Status::Failed, Some(format!("{how}, for the second time")), now),
            _ => self.put_back(&format!("{how}; it is begun again")),
        }
    }

    /// Has it wait again.
    pub fn put_back(&mut self, why: &str) {
        self.status = Status::Pending;
        self.reason = Some(why.to_owned());
        self.started = None;
    }
}
