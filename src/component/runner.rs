//! Runs the phases of a program in a guest.
//!
//! ```text
//!   step ──attempt──► Done ───────────────────────────► next step
//!     ▲        │  ├──► Reboot, again ──► guest restarts ─┐
//!     │        │  ├──► Reboot ─────────► guest restarts ─┼─► next step
//!     │        │  └──► Failed ─ attempts left ─┐         │
//!     └────────┴───────────────────────────────┴─────────┘
//!                   no attempts left: Abort ends the document, Continue goes on and fails it, Ignore goes on
//! ```

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use goldsmith_agent::message::Stream;

use super::action::{Call, Verdict};
use super::condition;
use super::inputs::Resolved;
use super::program::{Program, Step};
use super::values::{Outputs, Values};
use crate::document::component::OnFailure;
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
}

impl Outcome {
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
/// Lines of output that go into a failure.
const TAIL: usize = 20;
/// A line longer than this is cut into several.
const MAX_LINE: usize = 8 * 1024;
/// Below this much free space, in bytes, a failure is the full disk's.
const DISK_FULL: u64 = 1 << 20;

/// Runs programs in one guest.
pub struct Runner<'a> {
    /// The guest.
    pub guest: &'a Guest,
    /// What its steps are surrounded by.
    pub site: &'a Site,
    /// Hears what happens.
    pub listener: &'a (dyn Fn(Event) + Send + Sync),
    /// Does what has to be done whenever the guest has restarted.
    pub after_reboot: &'a (dyn Fn() -> futures_util::future::BoxFuture<'a, Result<(), guest::Error>> + Send + Sync),
}

impl std::fmt::Debug for Runner<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").field("site", &self.site).finish_non_exhaustive()
    }
}

impl Runner<'_> {
    /// Runs the phases that are wanted, in the document's order.
    pub async fn run(&self, program: &Program, phases: &[&str]) -> Outcome {
        let mut values = Values::new(program.names.clone());
        let mut outcome = Outcome::default();
        let mut reboots = 0;
        for phase in program.phases.iter().filter(|phase| phases.contains(&phase.name.as_str())) {
            for step in &phase.steps {
                let (report, lost) = self.step(&phase.name, step, &mut values, &mut reboots).await;
                let failed = matches!(report.status, StepStatus::Failed(_));
                outcome.steps.push(report.clone());
                (self.listener)(Event::StepEnds(report));
                if lost.is_some() || (failed && step.on_failure == OnFailure::Abort) {
                    outcome.aborted = true;
                    outcome.lost = lost;
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
        reboots: &mut u32,
    ) -> (StepReport, Option<guest::Error>) {
        let started = Instant::now();
        let log = Log::new(self.listener, step.is_silent);
        let (status, lost) = match self.step_status(phase, step, values, &log, reboots).await {
            Ok(status) => (status, None),
            Err(error) => {
                let sign = self.guest.signs().last().copied();
                let message = error.to_string();
                let message = message.lines().next().unwrap_or_default().to_owned();
                (StepStatus::Failed(StepFailure { message, tail: log.tail(), sign }), Some(error))
            }
        };
        (StepReport { phase: phase.to_owned(), step: step.name.clone(), status, duration: started.elapsed() }, lost)
    }

    async fn step_status(
        &self,
        phase: &str,
        step: &Step,
        values: &mut Values,
        log: &Log<'_>,
        reboots: &mut u32,
    ) -> Result<StepStatus, guest::Error> {
        let result = match Inputs::resolve(step, values) {
            Err(problem) => Err(problem),
            Ok(inputs) => {
                values.given(phase, &step.name, inputs.groups.clone());
                self.attempts(phase, step, &inputs, log, reboots).await?
            }
        };
        Ok(match result {
            Ok(outputs) => {
                values.produced(phase, &step.name, outputs);
                StepStatus::Success
            }
            Err(message) => {
                let failure = self.failure(message, log).await?;
                match step.on_failure {
                    OnFailure::Ignore => StepStatus::FailureIgnored(failure),
                    _ => StepStatus::Failed(failure),
                }
            }
        })
    }

    /// Attempts a step until it is done, or has failed for the last time.
    async fn attempts(
        &self,
        phase: &str,
        step: &Step,
        inputs: &Inputs,
        log: &Log<'_>,
        reboots: &mut u32,
    ) -> Result<Result<Outputs, String>, guest::Error> {
        let mut attempt = 1;
        loop {
            (self.listener)(Event::StepBegins {
                phase: phase.to_owned(),
                step: step.name.clone(),
                action: step.module.name,
                attempt: (attempt, step.max_attempts),
            });
            log.begin();
            let verdict = self.attempt(step, inputs, log).await;
            log.flush();
            match verdict? {
                Verdict::Done(outputs) => return Ok(Ok(outputs)),
                Verdict::Failed(_) if attempt < step.max_attempts => attempt += 1,
                Verdict::Failed(message) => return Ok(Err(message)),
                Verdict::Reboot { .. } if *reboots == MAX_REBOOTS => {
                    return Ok(Err(format!("the document restarted the guest more than {MAX_REBOOTS} times")));
                }
                Verdict::Reboot { delay, again } => {
                    *reboots += 1;
                    self.reboot(delay).await?;
                    if !again {
                        return Ok(Ok(Outputs::new()));
                    }
                }
            }
        }
    }

    async fn attempt(&self, step: &Step, inputs: &Inputs, log: &Log<'_>) -> Result<Verdict, guest::Error> {
        let call = Call {
            guest: self.guest,
            inputs: &inputs.groups,
            condition: inputs.condition.as_ref(),
            site: self.site,
            timeout: step.timeout,
            output: &|stream, data| log.write(stream, data),
        };
        match step.module.attempt(&call).await {
            // The step may have restarted the guest itself, which it has to ask for instead.
            Err(guest::Error::Lost) => {
                let message =
                    "the guest restarted or its agent ended during the step; to restart, exit with status 194";
                self.guest.reattached(self.site.reboot_deadline).await?;
                Ok(Verdict::Failed(message.to_owned()))
            }
            verdict => verdict,
        }
    }

    async fn reboot(&self, delay: Duration) -> Result<(), guest::Error> {
        tokio::time::sleep(delay).await;
        (self.listener)(Event::Reboots);
        self.guest.reboot(self.site.reboot_deadline).await?;
        (self.after_reboot)().await
    }

    /// A failure with what can be found out about its cause.
    async fn failure(&self, message: String, log: &Log<'_>) -> Result<StepFailure, guest::Error> {
        let tail = log.tail();
        let space = self.guest.space("/").await?;
        let sign = if space.free < DISK_FULL || space.free_files == 0 {
            failure::disk_full()
        } else {
            let console = self.guest.signs().last().copied();
            failure::in_output(tail.iter().map(String::as_str)).or(console)
        };
        Ok(StepFailure { message, tail, sign })
    }
}

/// A step's inputs with every reference replaced.
struct Inputs {
    groups: Vec<Resolved>,
    condition: Option<condition::Resolved>,
}

impl Inputs {
    fn resolve(step: &Step, values: &Values) -> Result<Self, String> {
        let mut value = |reference: &_| values.get(reference);
        let groups = step.inputs.resolve(&mut value)?;
        let condition = step.condition.as_ref().map(|condition| condition.resolve(&mut value)).transpose()?;
        Ok(Self { groups, condition })
    }
}

/// Cuts a step's output into lines, passes them on and keeps the last ones.
struct Log<'a> {
    listener: &'a (dyn Fn(Event) + Send + Sync),
    is_silent: bool,
    state: Mutex<LogState>,
}

#[derive(Default)]
struct LogState {
    partial: [Vec<u8>; 2],
    tail: VecDeque<String>,
}

impl<'a> Log<'a> {
    fn new(listener: &'a (dyn Fn(Event) + Send + Sync), is_silent: bool) -> Self {
        Self { listener, is_silent, state: Mutex::new(LogState::default()) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new attempt: what the one before wrote explains nothing any more.
    fn begin(&self) {
        *self.lock() = LogState::default();
    }

    fn write(&self, stream: Stream, data: &[u8]) {
        if self.is_silent {
            return;
        }
        let mut state = self.lock();
        for &byte in data {
            let partial = &mut state.partial[index(stream)];
            if byte != b'\n' {
                partial.push(byte);
            }
            if byte == b'\n' || partial.len() == MAX_LINE {
                let line = std::mem::take(partial);
                self.pass_on(&mut state, stream, &line);
            }
        }
    }

    /// Passes on lines that have no end.
    fn flush(&self) {
        let mut state = self.lock();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let line = std::mem::take(&mut state.partial[index(stream)]);
            if !line.is_empty() {
                self.pass_on(&mut state, stream, &line);
            }
        }
    }

    fn pass_on(&self, state: &mut LogState, stream: Stream, line: &[u8]) {
        let line = crate::machine::console::plain(&String::from_utf8_lossy(line));
        if state.tail.len() == TAIL {
            state.tail.pop_front();
        }
        state.tail.push_back(line.clone());
        (self.listener)(Event::Output { stream, line });
    }

    fn tail(&self) -> Vec<String> {
        self.lock().tail.iter().cloned().collect()
    }
}

fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(silent: bool, chunks: &[(Stream, &[u8])]) -> (Vec<String>, Vec<String>) {
        let heard = Mutex::new(Vec::new());
        let listener = |event| {
            if let Event::Output { line, .. } = event {
                heard.lock().unwrap().push(line);
            }
        };
        let log = Log::new(&listener, silent);
        for (stream, data) in chunks {
            log.write(*stream, data);
        }
        log.flush();
        let tail = log.tail();
        (heard.into_inner().unwrap(), tail)
    }

    #[test]
    fn output_is_cut_into_lines_stream_by_stream() {
        let (heard, tail) = lines(
            false,
            &[(Stream::Stdout, b"on"), (Stream::Stderr, b"err\x1b[31mor\n"), (Stream::Stdout, b"e\r\ntwo")],
        );
        assert_eq!(heard, ["error", "one", "two"]);
        assert_eq!(tail, heard);
    }

    #[test]
    fn endless_lines_and_endless_output_stay_bounded() {
        let long = vec![b'x'; MAX_LINE * 3];
        let (heard, _) = lines(false, &[(Stream::Stdout, &long)]);
        assert_eq!(heard.len(), 3);
        let many = "line\n".repeat(1000);
        let (_, tail) = lines(false, &[(Stream::Stdout, many.as_bytes())]);
        assert_eq!(tail.len(), TAIL);
    }

    #[test]
    fn a_silent_step_is_silent() {
        let (heard, tail) = lines(true, &[(Stream::Stdout, b"secret\n")]);
        assert!(heard.is_empty() && tail.is_empty());
    }
}
