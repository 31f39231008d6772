//! Documents in a throw-away machine of a parent: how a component is developed, and no image.

use super::build::{Build, Options};
use super::components::{Ran, Steps};
use super::plan::Plan;
use super::{Error, Event, Factory};
use crate::component::{StepFailure, StepReport, StepStatus};

/// What has become of one document.
#[derive(Debug)]
pub struct Rehearsed {
    /// The component.
    pub component: String,
    /// Its steps that ran.
    pub steps: Vec<StepReport>,
    /// What ended it, other than a step.
    pub lost: Option<String>,
}

impl Rehearsed {
    /// The first step that failed.
    pub fn failure(&self) -> Option<(&StepReport, &StepFailure)> {
        self.steps.iter().find_map(|step| match &step.status {
            StepStatus::Failed(failure) => Some((step, failure)),
            _ => None,
        })
    }

    /// Whether all went well.
    pub fn has_succeeded(&self) -> bool {
        self.lost.is_none() && self.failure().is_none()
    }
}

/// What has become of a document that ran.
pub(super) fn described(ran: Ran) -> Rehearsed {
    Rehearsed {
        component: ran.component,
        steps: ran.outcome.steps,
        lost: ran.outcome.lost.map(|error| crate::host::one_line(&error)),
    }
}

impl Factory {
    /// Runs the phases of a plan's components in a machine that is thrown away. A step that fails is a result; an error is
    /// not.
    pub async fn rehearse(&self, plan: &Plan, phases: &[&str], options: &Options) -> Result<Vec<Rehearsed>, Error> {
        let run = self.store.begin_run("rehearsal")?;
        let id = self.store.next_id(&plan.recipe.name, plan.recipe.version)?;
        let mut build = Build::new(self, plan, options, id.clone(), run.folder().to_owned());
        let ground = build.ground(&run).await?;
        let keeper = build.keeper.clone();
        let wanted = build.wanted(&ground, &[], &run, &keeper);
        let surroundings = build.surroundings(&ground);
        let courier = self.courier(&plan.recipe);
        let rehearsed = async {
            loop {
                let mut machine = build.machine(&wanted).await?;
                build.prepare(&machine.guest, &ground.site).await?;
                let guest = &machine.guest;
                let steps =
                    Steps { guest, surroundings: &surroundings, courier: &courier, phases, allowed_failed_units: None };
                let mut stages = Vec::new();
                let work = async { Ok::<_, Error>(self.run_components(&plan.components, &steps).await) };
                let ran = self.stage(&mut stages, "run", work).await?;
                let verified = machine.verified().await;
                machine.discard().await?;
                match verified? {
                    Ok(()) => return Ok(ran),
                    Err(damaged) => {
                        self.tell(Event::Warning(format!("{damaged}; it is dropped, and everything begins again")));
                    }
                }
            }
        };
        let rehearsed: Result<Vec<Ran>, Error> = rehearsed.await;
        self.settle_layers(&keeper).await;
        Ok(rehearsed?.into_iter().map(described).collect())
    }
}
