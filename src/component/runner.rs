//! Runs the phases of a program in a guest.
//!
//! ```text
//!   step ── if ── Skip ──────────────────────────────────────────────────────► next step
//!            │ └─ Abort ────────────────────────────────────────────┐
//!            ▼                                                      │
//!         attempt ── item of the loop, if there is one ──► next item, or done ──► next step
//!            ▲         │  ├──► Reboot, again ──► guest restarts ──► the same item
//!            │         │  ├──► Reboot ─────────► guest restarts ──► the next item
//!            │         │  └──► another document ── nested at most three deep, never in a circle
//!            │         ▼                                            │
//!            └── Failed, attempts left: all items again             │
//!                      │ none left ◄────────────────────────────────┘
//!                      └──► Abort ends the document, Continue goes on and fails it, Ignore goes on
//! ```

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use goldsmith_agent::message::Stream;

use super::action::{Call, Module, STDOUT_LIMIT, Verdict, Work};
use super::condition::{self, Branch};
use super::courier::Courier;
use super::inputs::Resolved;
use super::log::Log;
use super::program::{Loop, Program, Step};
use super::secrets::Secrets;
use super::values::{CONTEXT_OF_GUEST, Facts, Iteration, Outputs, References, Scope, Values};
use crate::document::component::OnFailure;
use crate::document::expression::Reference;
use crate::document::looping::MAX_ITERATIONS;
use crate::guest::failure::{self, Sign};
use crate::guest::{self, Guest};

/// The surroundings of steps.
#[derive(Debug, Clone, Default)]
pub struct Site {
    /// The whole environment of programs.
    pub environment: Vec<(String, String)>,
    /// The folder that they run in.
    pub working_directory: String,
    /// How long the guest may take to restart.
    pub reboot_deadline: Duration,
    /// Values for references to what only AWS has.
    pub references: References,
    /// Secret ones.
    pub secrets: Secrets,
    /// What this run is called.
    pub execution_id: String,
}

/// Something that happens while a document runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A step begins, or begins again.
    StepBegins {
        /// The phase.
        phase: String,
        /// The step.
        step: String,
        /// The action.
        action: &'static str,
        /// Which attempt, from 1, and of how many.
        attempt: (u32, u32),
    },
    /// A program wrote a line.
    Output {
        /// Where.
        stream: Stream,
        /// The line.
        line: String,
    },
    /// The guest restarts.
    Reboots,
    /// What a step was given and has produced, as JSON without secrets; of steps that must not be logged nothing is told.
    Values {
        /// The phase.
        phase: String,
        /// The step.
        step: String,
        /// An array with a map of each group of its inputs.
        inputs: String,
        /// An array with a map of its outputs.
        outputs: String,
    },
    /// A step ended.
    StepEnds(StepReport),
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// The phase.
    pub phase: String,
    /// The step.
    pub step: String,
    /// Its action module.
    pub action: &'static str,
    /// How.
    pub status: StepStatus,
    /// How long it took, all attempts together.
    pub duration: Duration,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq)]
pub enum StepStatus {
    /// Well.
    Success,
    /// It did not have to run.
    Skipped,
    /// Not well.
    Failed(StepFailure),
    /// Not well, and it does not count.
    FailureIgnored(StepFailure),
}

/// Why a step failed.
#[derive(Debug, Clone, PartialEq)]
pub struct StepFailure {
    /// What went wrong in its last attempt.
    pub message: String,
    /// The last lines that it wrote.
    pub tail: Vec<String>,
    /// What they show, by its name.
    pub sign: Option<&'static Sign>,
}

/// How a document's phases ended.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The steps that ran.
    pub steps: Vec<StepReport>,
    /// Whether a step failed after which nothing more may run, in later documents either.
    pub aborted: bool,
    /// What became of the guest, if that is why the last step failed.
    pub lost: Option<guest::Error>,
    /// Whether a step asks for a restart of what can't be restarted.
    pub wants_restart: bool,
}

impl Outcome {
    /// How many of its steps ended in a way.
    pub(super) fn count(&self, is_meant: impl Fn(&StepStatus) -> bool) -> usize {
        self.steps.iter().filter(|step| is_meant(&step.status)).count()
    }

    /// The first step that failed.
    pub fn failure(&self) -> Option<(&StepReport, &StepFailure)> {
        self.steps.iter().find_map(|step| match &step.status {
            StepStatus::Failed(failure) => Some((step, failure)),
            _ => None,
        })
    }
}

/// Most restarts of the guest in one document. The service's agent gives up after so many, too.
const MAX_REBOOTS: u32 = 15;
/// Below this much free space, in bytes, a failure is the full disk's.
const DISK_FULL: u64 = 1 << 20;

/// Runs programs in one guest.
pub struct Runner<'a> {
    /// The guest.
    pub guest: &'a Guest,
    /// What its steps are surrounded by.
    pub site: &'a Site,
    /// Carries to the guest what its steps get through the host.
    pub courier: &'a dyn Courier,
    /// Hears what happens.
    pub listener: &'a (dyn Fn(Event) + Send + Sync),
    /// Does what has to be done whenever the guest has restarted.
    pub after_reboot: &'a (dyn Fn() -> BoxFuture<'a, Result<(), guest::Error>> + Send + Sync),
}

impl std::fmt::Debug for Runner<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").field("site", &self.site).finish_non_exhaustive()
    }
}

/// What documents that run one another have in common.
#[derive(Debug, Clone, Default)]
pub(super) struct Trip {
    /// How often the guest has restarted.
    pub(super) reboots: u32,
    /// The documents that are being run, the first one first.
    pub(super) chain: Vec<String>,
    /// The steps that run them, for messages.
    pub(super) above: Option<(String, String)>,
    /// Whether nothing of it is logged.
    pub(super) is_silent: bool,
    /// Whether a step asks for a restart of what can't be restarted.
    pub(super) wants_restart: bool,
}

impl Runner<'_> {
    /// Runs the phases that are wanted, in the document's order.
    pub async fn run(&self, program: &Program, phases: &[&str]) -> Outcome {
        let mut trip = Trip { chain: vec![program.document.source.name.clone()], ..Trip::default() };
        self.document(program, Some(phases), &mut trip).await
    }

    /// As [`Self::document`], for documents that others run.
    pub(super) fn nested<'b>(
        &'b self,
        program: &'b Program,
        phases: Option<&'b [&'b str]>,
        trip: &'b mut Trip,
    ) -> BoxFuture<'b, Outcome> {
        Box::pin(self.document(program, phases, trip))
    }

    /// Runs some phases, or all.
    async fn document(&self, program: &Program, phases: Option<&[&str]>, trip: &mut Trip) -> Outcome {
        let mut values = Values::of(program);
        let mut outcome = Outcome::default();
        let is_wanted = |name: &str| phases.is_none_or(|phases| phases.contains(&name));
        for phase in program.phases.iter().filter(|phase| is_wanted(&phase.name)) {
            for step in &phase.steps {
                let (report, lost) = self.step(&phase.name, step, &mut values, trip).await;
                let failed = matches!(report.status, StepStatus::Failed(_));
                outcome.steps.push(report.clone());
                (self.listener)(Event::StepEnds(report));
                if lost.is_some() || trip.wants_restart || (failed && step.on_failure == OnFailure::Abort) {
                    outcome.aborted = true;
                    outcome.lost = lost;
                    outcome.wants_restart = trip.wants_restart;
                    return outcome;
                }
            }
        }
        outcome
    }

    /// Runs a step. With its report comes the guest's failure, if that ended it.
    async fn step(
        &self,
        phase: &str,
        step: &Step,
        values: &mut Values,
        trip: &mut Trip,
    ) -> (StepReport, Option<guest::Error>) {
        let started = Instant::now();
        let log = Log::new(self.listener, step.is_silent || trip.is_silent, self.site.secrets.clone());
        let (shown_phase, shown_step) = match &trip.above {
            None => (phase.to_owned(), step.name.clone()),
            Some((above, steps)) => (above.clone(), format!("{steps}/{phase}/{}", step.name)),
        };
        let mut run = StepRun { runner: self, phase, step, log, shown: (shown_phase, shown_step), values, trip };
        let (status, lost) = match run.status().await {
            Ok(status) => (status, None),
            Err(error) => {
                let sign = self.guest.signs().last().copied();
                let message = error.to_string();
                let message = run.log.masked(message.lines().next().unwrap_or_default());
                (StepStatus::Failed(StepFailure { message, tail: run.log.tail(), sign }), Some(error))
            }
        };
        if !run.log.is_silent() {
            let (inputs, outputs) = run.values.written(run.phase, &step.name);
            let (inputs, outputs) = (run.log.masked(&inputs), run.log.masked(&outputs));
            let (phase, step) = run.shown.clone();
            (self.listener)(Event::Values { phase, step, inputs, outputs });
        }
        let (phase, name) = run.shown;
        (StepReport { phase, step: name, action: step.module.name, status, duration: started.elapsed() }, lost)
    }

    async fn reboot(&self, delay: Duration) -> Result<(), guest::Error> {
        tokio::time::sleep(delay).await;
        (self.listener)(Event::Reboots);
        self.guest.reboot(self.site.reboot_deadline).await?;
        (self.after_reboot)().await
    }
}

/// One step on its way.
pub(super) struct StepRun<'r, 'a> {
    pub(super) runner: &'r Runner<'a>,
    pub(super) phase: &'r str,
    pub(super) step: &'r Step,
    pub(super) log: Log<'r>,
    /// What phase and step are called in messages.
    pub(super) shown: (String, String),
    pub(super) values: &'r mut Values,
    pub(super) trip: &'r mut Trip,
}

/// What an attempt came to, or why it failed.
type Attempted = Result<Outputs, String>;

impl StepRun<'_, '_> {
    async fn status(&mut self) -> Result<StepStatus, guest::Error> {
        let facts = self.facts().await?;
        let result = match self.branch(&facts).await? {
            Ok(Branch::Skip) => return Ok(StepStatus::Skipped),
            Ok(Branch::Abort) => Err("the step's condition says Abort".to_owned()),
            Ok(Branch::Execute) => match self.items(&facts) {
                Ok(items) => self.attempts(&items, &facts).await?,
                Err(problem) => Err(problem),
            },
            Err(problem) => Err(problem),
        };
        Ok(match result {
            Ok(outputs) => {
                self.values.produced(self.phase, &self.step.name, outputs);
                StepStatus::Success
            }
            Err(message) => {
                let failure = self.failure(&message).await?;
                match self.step.on_failure {
                    // The step is not done: it is run again after the restart.
                    OnFailure::Ignore if !self.trip.wants_restart => StepStatus::FailureIgnored(failure),
                    _ => StepStatus::Failed(failure),
                }
            }
        })
    }

    /// What only the guest knows, if the step asks for it.
    async fn facts(&self) -> Result<Facts, guest::Error> {
        let asks = |reference: &Reference| matches!(reference, Reference::Context(key) if CONTEXT_OF_GUEST.contains(&key.as_str()));
        if self.step.references.iter().any(asks) { Facts::of(self.runner.guest).await } else { Ok(Facts::default()) }
    }

    fn scope<'s>(&'s self, facts: &'s Facts) -> Scope<'s> {
        Scope::new(self.values, self.runner.site, (self.phase, &self.step.name), facts)
    }

    /// What becomes of the step: asked once, whatever happens afterwards.
    async fn branch(&self, facts: &Facts) -> Result<Result<Branch, String>, guest::Error> {
        let Some(guard) = &self.step.guard else { return Ok(Ok(Branch::Execute)) };
        let condition = {
            let scope = self.scope(facts);
            match guard.condition.resolve(&mut |reference| scope.get(reference)) {
                Ok(condition) => condition,
                Err(problem) => return Ok(Err(problem)),
            }
        };
        let holds = condition.holds(self.runner.guest, &self.runner.site.working_directory).await?;
        Ok(Ok(guard.branch(holds)))
    }

    /// What the step is repeated for: looked at once, before the first attempt.
    fn items(&self, facts: &Facts) -> Result<Vec<Option<Iteration>>, String> {
        let scope = self.scope(facts);
        let mut value = |reference: &Reference| scope.get(reference);
        let texts = match &self.step.looping {
            None => return Ok(vec![None]),
            Some(Loop::Numbers(numbers)) => numbers.texts(),
            Some(Loop::Items(items)) => items.iter().map(|item| item.resolve(&mut value)).collect::<Result<_, _>>()?,
            Some(Loop::Delimited { list, delimiter }) => {
                let list = list.resolve(&mut value)?;
                list.split(*delimiter).take(MAX_ITERATIONS + 1).map(str::to_owned).collect()
            }
        };
        if texts.len() > MAX_ITERATIONS {
            return Err(format!("the loop has more than {MAX_ITERATIONS} iterations"));
        }
        let iterations = texts.into_iter().enumerate();
        Ok(iterations.map(|(index, value)| Some(Iteration { index, value })).collect())
    }

    /// Attempts the step until it is done, or has failed for the last time.
    async fn attempts(&mut self, items: &[Option<Iteration>], facts: &Facts) -> Result<Attempted, guest::Error> {
        let mut attempt = 1;
        loop {
            self.log.begin();
            let result = self.attempt(attempt, items, facts).await;
            self.log.flush();
            match result? {
                Err(_) if attempt < self.step.max_attempts && !self.trip.wants_restart => attempt += 1,
                result => return Ok(result),
            }
        }
    }

    /// One attempt: all items of the loop, or the step alone.
    async fn attempt(
        &mut self,
        number: u32,
        items: &[Option<Iteration>],
        facts: &Facts,
    ) -> Result<Attempted, guest::Error> {
        let step = self.step;
        let fresh = || step.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut deadline = fresh();
        let mut outputs = Outputs::new();
        self.tell_begin(number);
        for item in items {
            let inputs = match self.inputs(item.as_ref(), facts) {
                Ok(inputs) => inputs,
                Err(problem) => return Ok(Err(at(item.as_ref(), &problem))),
            };
            self.values.given(self.phase, &step.name, inputs.groups.clone());
            loop {
                if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                    return Ok(Err(step.late()));
                }
                let verdict = self.once(&inputs, deadline).await?;
                match verdict {
                    Verdict::Done(of_item) => {
                        join(&mut outputs, of_item);
                        break;
                    }
                    Verdict::Failed(_) if step.looping.is_some() && is_past(deadline) => return Ok(Err(step.late())),
                    Verdict::Failed(message) => return Ok(Err(at(item.as_ref(), &message))),
                    Verdict::Reboot { .. } if !self.runner.guest.can_restart() => {
                        self.trip.wants_restart = true;
                        let message = "the step asks for a restart: restart this machine, and run the documents again";
                        return Ok(Err(message.to_owned()));
                    }
                    Verdict::Reboot { .. } if self.trip.reboots >= MAX_REBOOTS => {
                        return Ok(Err(format!("the document restarted the guest more than {MAX_REBOOTS} times")));
                    }
                    Verdict::Reboot { delay, again } => {
                        self.trip.reboots += 1;
                        self.runner.reboot(delay).await?;
                        deadline = fresh();
                        if !again {
                            break;
                        }
                        self.tell_begin(number);
                    }
                }
            }
        }
        Ok(Ok(outputs))
    }

    fn tell_begin(&self, attempt: u32) {
        let (phase, step) = self.shown.clone();
        let attempt = (attempt, self.step.max_attempts);
        (self.runner.listener)(Event::StepBegins { phase, step, action: self.step.module.name, attempt });
    }

    fn inputs(&self, item: Option<&Iteration>, facts: &Facts) -> Result<Inputs, String> {
        let scope = self.scope(facts).within(item);
        let mut value = |reference: &Reference| scope.get(reference);
        let groups = self.step.inputs.resolve(&mut value)?;
        let condition = self.step.condition.as_ref().map(|condition| condition.resolve(&mut value)).transpose()?;
        Ok(Inputs { groups, condition })
    }

    async fn once(&mut self, inputs: &Inputs, deadline: Option<Instant>) -> Result<Verdict, guest::Error> {
        let (runner, step) = (self.runner, self.step);
        let run = match step.module.work {
            Work::Guest(run) => run,
            Work::Document => return self.run_document(inputs.groups.first().unwrap_or(&Resolved::EMPTY)).await,
            Work::Elsewhere => return Ok(Verdict::Failed(format!("`{}` does not run on Linux", step.module.name))),
        };
        let log = &self.log;
        let call = Call {
            guest: runner.guest,
            inputs: &inputs.groups,
            condition: inputs.condition.as_ref(),
            site: runner.site,
            courier: runner.courier,
            timeout: step.timeout,
            deadline,
            output: &|stream, data| log.write(stream, data),
        };
        let boot = runner.guest.boot_id();
        match Module::attempt(run, &call).await {
            // The step may have restarted the guest itself, which it has to ask for instead.
            Err(guest::Error::Lost) => {
                let message =
                    "the guest restarted or its agent ended during the step; to restart, exit with status 194";
                runner.guest.reattached(runner.site.reboot_deadline).await?;
                if runner.guest.boot_id() != boot {
                    // Whatever is done next, another attempt for one, finds the guest as after a restart that was asked for.
                    self.trip.reboots += 1;
                    (runner.listener)(Event::Reboots);
                    (runner.after_reboot)().await?;
                }
                Ok(Verdict::Failed(message.to_owned()))
            }
            verdict => verdict,
        }
    }

    /// A failure with what can be found out about its cause.
    async fn failure(&self, message: &str) -> Result<StepFailure, guest::Error> {
        let (guest, tail) = (self.runner.guest, self.log.tail());
        let space = guest.space("/").await?;
        let sign = if space.free < DISK_FULL || space.free_files == 0 {
            failure::disk_full()
        } else {
            let console = guest.signs().last().copied();
            failure::in_output(tail.iter().map(String::as_str)).or(console)
        };
        Ok(StepFailure { message: self.log.masked(message), tail, sign })
    }
}

/// A step's inputs with every reference replaced.
struct Inputs {
    groups: Vec<Resolved>,
    condition: Option<condition::Resolved>,
}

fn is_past(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| deadline <= Instant::now())
}

/// A failure with the iteration in which it happened.
fn at(item: Option<&Iteration>, message: &str) -> String {
    match item {
        None => message.to_owned(),
        Some(item) => format!("iteration {} failed: {message}", item.index),
    }
}

/// Adds an iteration's outputs to those before, a line each.
fn join(all: &mut Outputs, of_item: Outputs) {
    for (name, value) in of_item {
        match all.iter_mut().find(|(known, _)| *known == name) {
            None => all.push((name, value)),
            Some((_, joined)) if joined.len() + value.len() < STDOUT_LIMIT => {
                joined.push('\n');
                joined.push_str(&value);
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_of_iterations_are_joined_by_name() {
        let mut all = Outputs::new();
        join(&mut all, vec![("stdout", "Hello".to_owned())]);
        join(&mut all, Outputs::new());
        join(&mut all, vec![("stdout", "World".to_owned())]);
        assert_eq!(all, [("stdout", "Hello\nWorld".to_owned())]);
        for _ in 0..3 {
            join(&mut all, vec![("stdout", "x".repeat(STDOUT_LIMIT / 2))]);
        }
        assert!(all[0].1.len() <= STDOUT_LIMIT);
    }

    #[test]
    fn a_failure_names_its_iteration() {
        let item = Iteration { index: 2, value: "c".to_owned() };
        assert_eq!(at(Some(&item), "exit status 1"), "iteration 2 failed: exit status 1");
        assert_eq!(at(None, "exit status 1"), "exit status 1");
    }
}
