//! One look at all pipelines: what is due goes into the queue, what is skipped is noted with the reason.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Error;
use super::decide::{Decision, decide, newer};
use super::definition::{Build, Definition, How};
use super::ledger::{Held, Ledger};
use super::queue::Needs;
use super::run::Run;
use super::state::{Skip, State};
use crate::document::size::Size;
use crate::factory::{Factory, Given, Plan};
use crate::host::one_line;
use crate::store::Store;
use crate::store::version::ImageName;

/// What came of looking at a pipeline, if anything did.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// A run was put into the queue.
    Queued(Box<Run>),
    /// A scheduled time has passed without.
    Skipped {
        /// The pipeline.
        pipeline: ImageName,
        /// Which time, and why.
        skip: Skip,
    },
    /// It can't be told what to do. The scheduled time stays due.
    Unknown {
        /// The pipeline.
        pipeline: ImageName,
        /// Why.
        why: String,
    },
}

/// Looks at all pipelines once. Two that look at the same time, in two processes, start nothing twice.
pub async fn pass(factory: &Factory, ledger: &Ledger, definitions: &[Definition], now: Timestamp) -> Vec<Seen> {
    let mut seen = Vec::new();
    for definition in definitions {
        match look(factory, ledger, definition, now).await {
            Ok(result) => seen.extend(result),
            Err(error) => seen.push(Seen::Unknown { pipeline: definition.name.clone(), why: one_line(&error) }),
        }
    }
    seen
}

async fn look(
    factory: &Factory,
    ledger: &Ledger,
    definition: &Definition,
    now: Timestamp,
) -> Result<Option<Seen>, Error> {
    // Publishers are asked without the lock, so it has to be decided again afterwards.
    let (at, gated) = match settle(&ledger.hold()?, ledger, definition, now)? {
        Settled::Due { at, gated, .. } => (at, gated),
        Settled::Done(seen) => return Ok(seen),
    };
    let made_from = MadeFrom::now(factory, definition).await;
    let held = ledger.hold()?;
    let mut state = match settle(&held, ledger, definition, now)? {
        Settled::Due { at: still, state, .. } if still == at => state,
        Settled::Due { .. } => return Ok(None),
        Settled::Done(seen) => return Ok(seen),
    };
    let mut reasons = Vec::new();
    if gated {
        reasons =
            newer(&state.dependencies, made_from.dependencies.as_ref().map_err(|why| Error::Lookup(why.clone()))?);
        if reasons.is_empty() {
            let skip = Skip { at, reason: "nothing that it is made from is newer than at the last run".to_owned() };
            return skipped(&held, definition, *state, skip, now).map(Some);
        }
    }
    let mut run = Run::new(definition, Some(at), now, made_from.needs);
    run.dependencies = made_from.dependencies.unwrap_or_default();
    run.reasons = reasons;
    run.how.anew = !gated;
    // First the run, under a name that its time gives it: whoever dies between the two has not started it twice.
    let is_new = held.add_run(&mut run)?;
    state.considered = now;
    state.next_run = next_run(definition, &state);
    held.save_state(&state)?;
    held.forget_old_runs(&definition.name)?;
    Ok(is_new.then(|| Seen::Queued(Box::new(run))))
}

/// What is left to do once everything is noted that needs no asking.
enum Settled {
    Done(Option<Seen>),
    Due { at: Timestamp, gated: bool, state: Box<State> },
}

fn settle(held: &Held<'_>, ledger: &Ledger, definition: &Definition, now: Timestamp) -> Result<Settled, Error> {
    let known = ledger.state(&definition.name)?;
    let mut state = known.clone().unwrap_or_else(|| State::new(definition, now));
    state.notice(definition);
    let is_under_way = is_under_way(ledger, definition)?;
    Ok(match decide(&state, definition, is_under_way, now) {
        Decision::Wait(next) => {
            state.next_run = next;
            if known.as_ref() != Some(&state) {
                held.save_state(&state)?;
            }
            Settled::Done(None)
        }
        Decision::Skip { at, reason } => {
            let skip = Skip { at, reason };
            Settled::Done(Some(skipped(held, definition, state, skip, now)?))
        }
        Decision::Due { at, gated } => Settled::Due { at, gated, state: Box::new(state) },
    })
}

fn skipped(
    held: &Held<'_>,
    definition: &Definition,
    mut state: State,
    skip: Skip,
    now: Timestamp,
) -> Result<Seen, Error> {
    state.considered = now;
    state.last_skip = Some(skip.clone());
    state.next_run = next_run(definition, &state);
    held.save_state(&state)?;
    Ok(Seen::Skipped { pipeline: definition.name.clone(), skip })
}

/// When a pipeline runs next by itself.
pub fn next_run(definition: &Definition, state: &State) -> Option<Timestamp> {
    let runs = definition.enabled && state.disabled.is_none();
    definition.schedule.as_ref().filter(|_| runs)?.next(state.considered, state.created)
}

/// When a pipeline's schedule comes next, so many times, whether or not it is enabled.
pub fn next_runs(definition: &Definition, state: &State, now: Timestamp, count: usize) -> Vec<Timestamp> {
    let Some(schedule) = &definition.schedule else { return Vec::new() };
    let next = |after: &Timestamp| schedule.next(*after, state.created);
    std::iter::successors(next(&now), next).take(count).collect()
}

fn is_under_way(ledger: &Ledger, definition: &Definition) -> Result<bool, Error> {
    let runs = ledger.runs()?;
    Ok(runs.iter().any(|run| run.pipeline == definition.name && run.ended.is_none()))
}

/// Puts a run that a person asks for into the queue; `anew` is for a new image even if nothing has changed.
pub async fn ask(
    factory: &Factory,
    ledger: &Ledger,
    definition: &Definition,
    anew: bool,
    now: Timestamp,
) -> Result<Run, Error> {
    let made_from = MadeFrom::now(factory, definition).await;
    let held = ledger.hold()?;
    let mut state = ledger.state_of(definition, now)?;
    state.next_run = next_run(definition, &state);
    held.save_state(&state)?;
    let mut run = Run::new(definition, None, now, made_from.needs);
    // What is not known is new at the next scheduled time.
    run.dependencies = made_from.dependencies.unwrap_or_default();
    run.how.anew = anew;
    held.add_run(&mut run)?;
    held.forget_old_runs(&definition.name)?;
    Ok(run)
}

/// What a run would be made from now, and what it would take of the host.
struct MadeFrom {
    dependencies: Result<BTreeMap<String, String>, String>,
    needs: Needs,
}

impl MadeFrom {
    /// Documents that can't be read give no dependencies, and are no reason to wait: the run says what is wrong with them.
    async fn now(factory: &Factory, definition: &Definition) -> Self {
        let (mut dependencies, mut needs, mut problem) = (BTreeMap::new(), Needs::default(), None);
        for build in &definition.builds {
            let plan = match plan(&definition.how, build) {
                Ok(plan) => plan,
                Err(error) => {
                    dependencies.insert("documents".to_owned(), one_line(&error));
                    continue;
                }
            };
            needs = needs.most(self::needs(&factory.store, &plan));
            match factory.dependencies(&plan).await {
                Ok(found) => dependencies.extend(found),
                Err(error) => {
                    // The others would ask the same publishers, each for as long.
                    problem = Some(one_line(&error));
                    break;
                }
            }
        }
        Self { dependencies: problem.map_or(Ok(dependencies), Err), needs }
    }
}

/// What a build is going to do.
pub(super) fn plan(how: &How, build: &Build) -> Result<Plan, crate::factory::Error> {
    let Build { parent, parameters } = build.clone();
    let mut plan = Plan::read(&how.recipe, &Given { parameters, parent, ..Given::default() })?;
    how.apply(&mut plan.recipe);
    Ok(plan)
}

/// Memory that QEMU takes beside its guest's, in bytes.
const QEMU: u64 = 256 << 20;
/// Memory of a guest unless somebody says otherwise, in bytes.
const MEMORY: Size = Size(1 << 30);
/// Space that a build may take of which nothing is known, in bytes.
const DISK: u64 = 4 << 30;

fn needs(store: &Store, plan: &Plan) -> Needs {
    let machine = &plan.recipe.machine;
    let host_cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let cpus = machine.cpus.or(u32::try_from(host_cpus.min(2)).ok()).unwrap_or(1);
    // The overlay and the sealed disk are about as large as the image was last time.
    let images = store.images_of(&plan.recipe.name).unwrap_or_default();
    let last = images.iter().rev().find_map(|image| image.manifest.disk.as_ref());
    let disk = last.map_or(DISK, |disk| disk.bytes.saturating_mul(2));
    Needs { memory: machine.memory.unwrap_or(MEMORY).0.saturating_add(QEMU), cpus, disk }
}

impl Needs {
    fn most(self, other: Self) -> Self {
        Self { memory: self.memory.max(other.memory), cpus: self.cpus.max(other.cpus), disk: self.disk.max(other.disk) }
    }
}

/// Has a run end.
pub fn cancel(ledger: &Ledger, id: &str, now: Timestamp) -> Result<Run, Error> {
    let held = ledger.hold()?;
    let mut run = ledger.run(id)?.ok_or_else(|| Error::NoRun { wanted: id.to_owned() })?;
    let before = run.ended;
    run.cancel(now);
    held.save_run(&run)?;
    if before.is_none() && run.ended.is_some() {
        note_end(&held, ledger, &run)?;
    }
    Ok(run)
}

/// Has the pipeline remember a run that has ended. After how many failures that has disabled it, if it has.
pub(super) fn note_end(held: &Held<'_>, ledger: &Ledger, run: &Run) -> Result<Option<u32>, Error> {
    let Some(mut state) = ledger.state(&run.pipeline)? else { return Ok(None) };
    let is_disabled = state.finish(run);
    held.save_state(&state)?;
    Ok(is_disabled.then_some(state.consecutive_failures))
}

/// Lets a pipeline run by itself again, or keeps it from it.
pub fn set_enabled(ledger: &Ledger, definition: &Definition, enable: bool, now: Timestamp) -> Result<State, Error> {
    let held = ledger.hold()?;
    let mut state = ledger.state_of(definition, now)?;
    if enable {
        state.enable(now)
    } else {
        state.disable(now)
    }
    state.next_run = next_run(definition, &state);
    held.save_state(&state)?;
    Ok(state)
}

#[cfg(test)]
mod tests;
