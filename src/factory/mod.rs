//! From a recipe to a tested, exported image.
//!
//! ```text
//!   plan ──► reserve a build number            PENDING
//!              │
//!            parent, boot, build               BUILDING   a step fails ──────────► FAILED
//!              │                                          the user stops it ─────► CANCELLED
//!            clean, power off, seal
//!              │
//!            cold boot of the sealed bytes     TESTING    a test fails ──────────► FAILED, evidence kept
//!              │
//!            AVAILABLE ──► export, publish                a dead builder's image ► FAILED, by the next recovery
//! ```
//!
//! A [`Factory`] holds what all of this needs: the store, somebody who listens, and a way to be stopped. Stages tell what
//! happens by [`Event`]s; nothing here prints.

mod archive;
mod build;
mod check;
mod components;
mod courier;
mod dependencies;
mod event;
mod export;
mod forecast;
mod here;
mod key;
mod layers;
pub mod lifecycle;
mod log;
mod plan;
mod provision;
mod publish;
mod rehearsal;
mod resolve;
mod retry;
mod run;
mod seal;
mod secret;
mod selftest;
mod shape;
mod shell;
mod site;
mod source;
mod states;
mod test;
mod unchanged;
mod version;
mod web;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use goldsmith_aws::Endpoints;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::component::{StepFailure, StepReport};
use crate::document::diagnostic::Report;
use crate::machine::accelerator::{Choice, Unusable};
use crate::store::manifest::Stage;
use crate::store::version::ImageId;
use crate::store::{self, Store};
use crate::{guest, machine, parent};

pub use archive::Loaded;
pub use build::{Built, OnFailure, Options};
pub use check::CheckOptions;
pub use event::Event;
pub use export::{ExportWishes, Format, Place};
pub use forecast::{Forecast, Forecasted};
pub use here::RanHere;
pub use log::note_in_log;
pub use plan::{Given, Plan, PlannedComponent};
pub use publish::{PublishOptions, read_distribution};
pub use rehearsal::Rehearsed;
pub use retry::Retried;
pub use run::{Console, RunOptions, Subject};
pub use secret::secret_value;
pub use selftest::SelfTest;
pub use shell::Attach;
pub use site::SiteWishes;
pub use test::failure as test_failure;

/// What every command of the factory needs.
#[derive(Clone)]
pub struct Factory {
    /// Where images are kept.
    pub store: Store,
    /// Hears what happens.
    pub listener: Arc<dyn Fn(Event) + Send + Sync>,
    /// Ends whatever is under way.
    pub cancel: CancellationToken,
    /// Which accelerator the user asks for.
    pub accelerator: Choice,
    /// Space that layers may take, in bytes.
    pub layer_budget: u64,
    /// Where AWS's services are, for what steps get from them.
    pub endpoints: Endpoints,
    /// What is left to be put in order behind work that was given up; the process waits for it a little before it ends.
    pub aftermath: TaskTracker,
}

impl std::fmt::Debug for Factory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Factory").field("store", &self.store).finish_non_exhaustive()
    }
}

/// Why there is no image, test or export.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A document is wrong.
    #[error("the document can't be used")]
    Document(#[from] Box<Report>),
    /// A document can't be read.
    #[error(transparent)]
    Unreadable(std::io::Error),
    /// A recipe names something that is not there, or does not fit.
    #[error("{place}: {message}")]
    Recipe {
        /// File, line and column.
        place: String,
        /// What is wrong.
        message: String,
        /// What to write instead.
        help: Option<String>,
    },
    /// The parent could not be obtained.
    #[error(transparent)]
    Parent(#[from] parent::Error),
    /// The accelerator that was asked for does not work.
    #[error(transparent)]
    Accelerator(#[from] Unusable),
    /// The host lacks something.
    #[error("{what}")]
    Host {
        /// What.
        what: String,
        /// What would mend it.
        mend: String,
    },
    /// A step of a build failed.
    #[error("{}", describe_step(component, step, failure))]
    Step {
        /// The component.
        component: String,
        /// The step.
        step: Box<StepReport>,
        /// Why.
        failure: Box<StepFailure>,
        /// The full log.
        log: PathBuf,
    },
    /// Something went wrong with a guest while building.
    #[error("the build machine failed while {doing}")]
    Guest {
        /// What was being done.
        doing: String,
        /// Why.
        #[source]
        source: Box<guest::Error>,
        /// The full log.
        log: PathBuf,
    },
    /// The sealed disk failed its test.
    #[error("{image} failed its test: {reason}")]
    Test {
        /// The image.
        image: ImageId,
        /// Why.
        reason: String,
        /// Where the evidence is.
        log: PathBuf,
    },
    /// No terminal could be opened in a guest.
    #[error("no shell can be opened in the guest")]
    Shell {
        /// Why.
        #[source]
        source: Box<guest::Error>,
    },
    /// Something of the site's is on the sealed disk.
    #[error("what was given to the guest for its build only is on the sealed disk: {}", found.join(", "))]
    Traces {
        /// What was found.
        found: Vec<String>,
    },
    /// The machine could not be started.
    #[error(transparent)]
    Machine(#[from] machine::Error),
    /// A disk could not be made, sealed or read.
    #[error("the disk can't be {doing}")]
    Disk {
        /// What was being done.
        doing: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file that is not, or not wholly, a saved image.
    #[error("`{}` can't be loaded: {why}", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// An image would have to take the place of another.
    #[error("there is another {image} with another disk")]
    Taken {
        /// The image.
        image: ImageId,
    },
    /// An export failed.
    #[error("{image} can't be exported as {format}")]
    Export {
        /// The image.
        image: ImageId,
        /// The format.
        format: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An image is not ready to leave the house.
    #[error("{image} is not ready{} and is not published: {why}", target.map(|target| format!(" for {target}")).unwrap_or_default())]
    Unready {
        /// The image.
        image: ImageId,
        /// Where it was to run.
        target: Option<crate::check::Target>,
        /// What is wrong with it.
        why: String,
    },
    /// A publication can't be begun, gone on with or taken back.
    #[error("{image} by `{distribution}`: {why}")]
    Publication {
        /// The image.
        image: ImageId,
        /// Name of the distribution configuration.
        distribution: String,
        /// Why.
        why: String,
        /// What to do.
        hint: Option<String>,
    },
    /// An image is not in a state to be used so.
    #[error("{image} is {state} and can't be {wanted}")]
    State {
        /// The image.
        image: ImageId,
        /// Its state.
        state: store::manifest::State,
        /// What was wanted.
        wanted: &'static str,
    },
    /// A recipe says something else than the one that made an image of the same version.
    #[error("the recipe is not the one that {image} was built from, and its version is the same\n{diff}")]
    ChangedRecipe {
        /// The image.
        image: ImageId,
        /// What has changed, as a unified diff.
        diff: String,
    },
    /// There is nothing to go on with.
    #[error("{image} has neither a failed test nor a failed publication to go on from{why}")]
    NothingToRetry {
        /// The image.
        image: ImageId,
        /// Why, if that is known.
        why: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The user stopped it.
    #[error("interrupted")]
    Interrupted,
}

/// Tells what is strange about a document, each with its place.
fn tell_warnings(warnings: &Report, tell: impl Fn(&str)) {
    for warning in &warnings.diagnostics {
        let place = warnings.source.position(warning.span.start);
        tell(&format!("{}:{}:{}: {}", warnings.source.name, place.line, place.column, warning.message));
    }
}

fn describe_step(component: &str, step: &StepReport, failure: &StepFailure) -> String {
    let mut text = format!("{component}/{}/{}: {}", step.phase, step.step, failure.message);
    if let Some(sign) = failure.sign {
        text.push_str(": ");
        text.push_str(sign.name);
    }
    if !failure.tail.is_empty() {
        text.push_str("\nthe last lines of its output:");
        for line in &failure.tail {
            text.push_str("\n    ");
            text.push_str(line);
        }
    }
    text
}

impl Factory {
    /// Tells whoever listens.
    pub fn tell(&self, event: Event) {
        (self.listener)(event);
    }

    /// Runs one stage, tells that it begins and ends, and notes how long it took.
    async fn stage<T, E>(
        &self,
        stages: &mut Vec<Stage>,
        name: &'static str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Error>
    where
        Error: From<E>,
    {
        let started = Instant::now();
        self.tell(Event::StageBegins { name });
        // Cancelled first: work that is dropped ends its machine and removes its files.
        let result = tokio::select! {
            biased;
            () = self.cancel.cancelled() => return Err(Error::Interrupted),
            result = work => result,
        };
        let seconds = started.elapsed().as_secs_f64();
        let value = result?;
        stages.push(Stage { name: name.to_owned(), seconds, cached: false });
        self.tell(Event::StageEnds { name, seconds });
        Ok(value)
    }
}
