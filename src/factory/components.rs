//! Running components in a guest, for builds and for tests.

use std::path::Path;
use std::time::Instant;

use futures_util::FutureExt;
use goldsmith_agent::message::Algorithm;

use super::build::{BUILD_LOG, failed};
use super::plan::{PlannedComponent, PlannedFile};
use super::shape::Shape;
use super::test::check_system;
use super::{Error, Event, Factory};
use crate::component::courier::Courier;
use crate::component::{
    Outcome, References, Runner, Secrets, Site as Surroundings, StepFailure, StepReport, StepStatus,
};
use crate::document::recipe::Recipe;
use crate::guest::site::Site;
use crate::guest::{self, Guest, plain_environment};
use crate::machine::hotplug::HotplugError;
use crate::store::version::ImageId;

/// A component that ran, and how that ended.
pub(super) struct Ran {
    pub(super) component: String,
    pub(super) outcome: Outcome,
}

/// What components run in and with.
pub(super) struct Steps<'a> {
    pub(super) guest: &'a Guest,
    pub(super) surroundings: &'a Surroundings,
    pub(super) courier: &'a dyn Courier,
    pub(super) phases: &'a [&'a str],
    /// In a test, units that may fail; in a build nobody asks.
    pub(super) allowed_failed_units: Option<&'a [String]>,
}

/// Variables that tell steps which image they are for. The names are those of the service: user guide, "Use variables".
pub(super) fn image_variables(image: &ImageId) -> [(&'static str, String); 6] {
    [
        ("IMAGE_WORKFLOW_EXECUTION_ID", execution_id("wf", image)),
        ("IMAGE_STEP_EXECUTION_ID", execution_id("step", image)),
        ("IMAGE_VERSION", image.version.to_string()),
        ("IMAGE_BUILD_VERSION", image.build.to_string()),
        ("IMAGE_BUILD_VERSION_ARN", format!("arn:aws:imagebuilder:local:000000000000:image/{image}")),
        ("IMAGE_PIPELINE_ARN", String::new()),
    ]
}

/// An identifier of the service's form. The same for the same image: what it was built from must not hang on chance.
fn execution_id(kind: &str, image: &ImageId) -> String {
    let digest = crate::host::file::sha256_of(format!("{kind} {image}").as_bytes());
    let part = |range: std::ops::Range<usize>| digest.get(range).unwrap_or_default();
    format!("{kind}-{}-{}-{}-{}-{}", part(0..8), part(8..12), part(12..16), part(16..20), part(20..32))
}

/// What steps of an image are surrounded by.
pub(super) fn surroundings(recipe: &Recipe, site: &Site, shape: &Shape, image: &ImageId, phase: &str) -> Surroundings {
    let working_directory = recipe.working_directory.clone();
    let mut environment = plain_environment();
    environment.push(("WORKING_DIRECTORY".to_owned(), working_directory.clone()));
    environment.push(("IMAGE_PHASE".to_owned(), phase.to_owned()));
    environment.extend(image_variables(image).map(|(name, value)| (name.to_owned(), value)));
    environment.extend(site.proxy.iter().cloned());
    Surroundings {
        environment,
        working_directory,
        reboot_deadline: shape.boot_timeout,
        references: References::new(),
        secrets: Secrets::default(),
        execution_id: uuid::Uuid::new_v4().to_string(),
    }
}

impl Factory {
    /// Runs the wanted phases of one component; `place` is which of how many it is.
    pub(super) async fn run_component(
        &self,
        component: &PlannedComponent,
        place: (usize, usize),
        steps: &Steps<'_>,
    ) -> Ran {
        let listener = |event| self.tell(Event::Step(event));
        let guest = steps.guest;
        // A build goes on when package locks are free, a test when the system says that it is up.
        let after_reboot = || match steps.allowed_failed_units {
            None => settled(guest).boxed(),
            Some(allowed) => check_system(guest, allowed).map(|checked| degraded(checked?)).boxed(),
        };
        let (number, of) = place;
        self.tell(Event::Component { number, of, name: component.name.clone() });
        let mut outcome = Outcome::default();
        let mut site = Surroundings { references: component.references.clone(), ..steps.surroundings.clone() };
        if let Some(brought) = &component.brings {
            site.environment.extend(brought.environment.iter().cloned());
            note(&mut outcome, &site.secrets, "CopyFiles", brought.enter(guest)).await;
        }
        if !outcome.aborted {
            let courier = steps.courier;
            let runner = Runner { guest, site: &site, courier, listener: &listener, after_reboot: &after_reboot };
            outcome = runner.run(&component.program, steps.phases).await;
        }
        if let Some(brought) = &component.brings {
            note(&mut outcome, &site.secrets, "RemoveFiles", brought.leave(guest)).await;
        }
        note(&mut outcome, &site.secrets, "DetachDevices", release_devices(guest)).await;
        if let Some(guest::Error::Refused(error)) = &mut outcome.lost {
            error.message = steps.surroundings.secrets.mask(&error.message);
        }
        Ran { component: component.name.clone(), outcome }
    }

    /// Runs the wanted phases of components, in order, until one ends the run. A step that failed with `Continue` lets
    /// later components run, and fails the whole at the end.
    pub(super) async fn run_components(&self, components: &[PlannedComponent], steps: &Steps<'_>) -> Vec<Ran> {
        let due: Vec<&PlannedComponent> =
            components.iter().filter(|component| component.has_work_in(steps.phases)).collect();
        let mut all = Vec::new();
        for (number, component) in (1..).zip(&due) {
            let ran = self.run_component(component, (number, due.len()), steps).await;
            let aborted = ran.outcome.aborted;
            all.push(ran);
            if aborted {
                break;
            }
        }
        all
    }
}

/// Does something around a component's steps. If that fails, it is as if one of its steps had.
async fn note(
    outcome: &mut Outcome,
    secrets: &Secrets,
    step: &str,
    work: impl Future<Output = Result<(), guest::Error>>,
) {
    // A guest that is gone can do nothing.
    if outcome.lost.is_some() {
        return;
    }
    let started = Instant::now();
    let Err(error) = work.await else { return };
    let failure = StepFailure { message: secrets.mask(&error.to_string()), tail: Vec::new(), sign: None };
    let (phase, step) = ("around".to_owned(), step.to_owned());
    outcome.steps.push(StepReport {
        phase,
        step,
        action: "",
        status: StepStatus::Failed(failure),
        duration: started.elapsed(),
    });
    outcome.aborted = true;
    if !matches!(error, guest::Error::Refused(_) | guest::Error::Degraded(_)) {
        outcome.lost = Some(error);
    }
}

/// Takes away what a component has attached and left, which would be missing in a machine that is restored behind it.
async fn release_devices(guest: &Guest) -> Result<(), guest::Error> {
    let Ok(machine) = guest.machine() else { return Ok(()) };
    machine.release().await.map_err(|error| match error {
        HotplugError::Machine(error) => guest::Error::Machine(error),
        other => guest::Error::Degraded(other.to_string()),
    })
}

/// After a restart nothing may get in the way of a build, as after the first boot.
async fn settled(guest: &Guest) -> Result<(), guest::Error> {
    guest.wait_for_cloud_init().await?;
    guest.stop_timers().await
}

/// A system that comes up degraded after a restart fails its test as it does after a cold boot.
fn degraded(problem: Option<String>) -> Result<(), guest::Error> {
    problem.map_or(Ok(()), |problem| Err(guest::Error::Degraded(problem)))
}

/// The failure of a component that ran for a build, if it failed. Logs are in `folder`.
pub(super) fn failure(ran: Ran, folder: &Path) -> Option<Error> {
    let Ran { component, outcome } = ran;
    let (step, failure) = outcome.failure()?;
    let (step, failure) = (step.clone(), failure.clone());
    if let Some(error) = outcome.lost {
        return Some(failed(&format!("{component}/{}/{} ran", step.phase, step.step), folder, error));
    }
    let log = folder.join(BUILD_LOG);
    Some(Error::Step { component, step: Box::new(step), failure: Box::new(failure), log })
}

/// Copies a file of the recipe's into the guest, or makes a folder there.
pub(super) async fn copy_file(guest: &Guest, planned: &PlannedFile) -> Result<(), guest::Error> {
    let path = &planned.destination;
    match &planned.content {
        // A folder of the system's, `/etc` for instance, stays as it is.
        None if guest.stat(path, true).await?.is_some() => return Ok(()),
        None => guest.make_folder(path, None).await?,
        Some(content) => {
            if let Some((folder, _)) = path.rsplit_once('/').filter(|(folder, _)| !folder.is_empty()) {
                guest.make_folder(folder, None).await?;
            }
            let file = fs_err::tokio::File::open(&content.source).await.map_err(guest::Error::Source)?;
            guest.write(path, content.mode, file).await?;
            guest.set_mode(path, content.mode).await?;
            if guest.digest(path, Algorithm::Sha256).await? != content.sha256 {
                let what = format!("`{}` was changed while the image was built", content.source.display());
                return Err(guest::Error::Source(std::io::Error::other(what)));
            }
        }
    }
    if let Some(owner) = &planned.owner {
        let (user, group) = match owner.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (owner.as_str(), None),
        };
        guest.set_owner(path, Some(user).filter(|user| !user.is_empty()), group).await?;
    }
    Ok(())
}
