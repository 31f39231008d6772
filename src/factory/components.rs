//! Running components in a guest, for builds and for tests.

use futures_util::FutureExt;

use super::build::{BUILD_LOG, failed};
use super::plan::PlannedComponent;
use super::shape::Shape;
use super::test::check_system;
use super::{Error, Event, Factory};
use crate::component::{Outcome, Runner, Site as Surroundings};
use crate::document::recipe::Recipe;
use crate::guest::site::Site;
use crate::guest::{self, Guest, plain_environment};
use crate::store::Image;

/// A component that ran, and how that ended.
pub(super) struct Ran {
    pub(super) component: String,
    pub(super) outcome: Outcome,
}

/// What steps of an image are surrounded by. The names are those of the service: user guide, "Use variables".
pub(super) fn surroundings(recipe: &Recipe, site: &Site, shape: &Shape, image: &Image, phase: &str) -> Surroundings {
    let working_directory = recipe.working_directory.clone();
    let id = &image.id;
    let arn = format!("arn:aws:imagebuilder:local:000000000000:image/{id}");
    let variables = [
        ("WORKING_DIRECTORY", working_directory.clone()),
        ("IMAGE_PHASE", phase.to_owned()),
        ("IMAGE_VERSION", id.version.to_string()),
        ("IMAGE_BUILD_VERSION", id.build.to_string()),
        ("IMAGE_BUILD_VERSION_ARN", arn),
        ("IMAGE_PIPELINE_ARN", String::new()),
    ];
    let mut environment = plain_environment();
    environment.extend(variables.map(|(name, value)| (name.to_owned(), value)));
    environment.extend(site.proxy.iter().cloned());
    Surroundings { environment, working_directory, reboot_deadline: shape.boot_timeout }
}

impl Factory {
    /// Runs the wanted phases of components, in order, until one ends the run. A step that failed with `Continue` lets
    /// later components run, and fails the whole at the end. In a test, units that may fail are named; in a build nobody
    /// asks.
    pub(super) async fn run_phases(
        &self,
        components: &[PlannedComponent],
        phases: &[&str],
        guest: &Guest,
        surroundings: &Surroundings,
        allowed_failed_units: Option<&[String]>,
    ) -> Vec<Ran> {
        let listener = |event| self.tell(Event::Step(event));
        // A build goes on when package locks are free, a test when the system says that it is up.
        let after_reboot = || match allowed_failed_units {
            None => guest.wait_for_cloud_init().map(|waited| waited.map(drop)).boxed(),
            Some(allowed) => check_system(guest, allowed).map(|checked| degraded(checked?)).boxed(),
        };
        let runner = Runner { guest, site: surroundings, listener: &listener, after_reboot: &after_reboot };
        let due = components.iter().filter(|component| phases.iter().any(|phase| component.program.has_phase(phase)));
        let due: Vec<&PlannedComponent> = due.collect();
        let mut ran = Vec::new();
        for (number, component) in (1..).zip(&due) {
            self.tell(Event::Component { number, of: due.len(), name: component.name.clone() });
            let outcome = runner.run(&component.program, phases).await;
            let aborted = outcome.aborted;
            ran.push(Ran { component: component.name.clone(), outcome });
            if aborted {
                break;
            }
        }
        ran
    }
}

/// A system that comes up degraded after a restart fails its test as it does after a cold boot.
fn degraded(problem: Option<String>) -> Result<(), guest::Error> {
    problem.map_or(Ok(()), |problem| Err(guest::Error::Degraded(problem)))
}

/// The first failure of components that ran for a build, if there is one.
pub(super) fn first_failure(ran: Vec<Ran>, image: &Image) -> Result<(), Error> {
    for Ran { component, outcome } in ran {
        let Some((step, failure)) = outcome.failure() else { continue };
        let (step, failure) = (step.clone(), failure.clone());
        if let Some(error) = outcome.lost {
            return Err(failed(&format!("{component}/{}/{} ran", step.phase, step.step), image, error));
        }
        let log = image.folder().join(BUILD_LOG);
        return Err(Error::Step { component, step: Box::new(step), failure: Box::new(failure), log });
    }
    Ok(())
}
