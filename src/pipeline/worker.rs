//! Working on the queue: builds begin as there is room, and what becomes of them is noted.
//!
//! Each build is a process of its own, `goldsmith pipeline build RUN N`. A build that is killed takes nobody with it; one
//! that eats memory is the one that the kernel ends; and a scheduler that is killed takes its builds along, since the
//! kernel ends children with their parent. So there never is a build that nobody waits for, and whatever is BUILDING with
//! a lock that nobody holds was left by the dead. It is begun again, once, and goes on from the layers that it has left.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use goldsmith_aws::Endpoints;
use jiff::Timestamp;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Error;
use super::ledger::{Held, Ledger, Outcome};
use super::pass::note_end;
use super::queue::{Entry, Host, Verdict, admit};
use super::run::{BuildRecord, Run, Status};
use super::told::{self, Told};
use crate::host::one_line;
use crate::host::process::{Child, Program};
use crate::notify::{self, FailureContext, StateChange};
use crate::store::manifest::Manifest;
use crate::store::version::{ImageId, ImageName};
use crate::store::{self, Image, Lock, Store};

/// How often the queue is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long a build may take to end its machine when it is told to.
const GRACE: Duration = Duration::from_secs(30);
/// A line of a build's output that is longer is cut.
const LONGEST_LINE: usize = 4096;

/// What happens to builds.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// A build begins.
    Begins {
        /// The run.
        run: String,
        /// Which of its builds, and how many there are.
        build: (usize, usize),
        /// What tells it from the others.
        label: String,
    },
    /// A line of a build's log.
    Line {
        /// The run.
        run: String,
        /// Which of its builds.
        number: usize,
        /// The line.
        line: String,
    },
    /// A build has ended, or waits again.
    Build {
        /// The run.
        run: String,
        /// Which of its builds.
        number: usize,
        /// What is known of it.
        record: Box<BuildRecord>,
    },
    /// A run has ended.
    Ended(Box<Run>),
    /// A pipeline has failed too often, and runs no more by itself.
    Disabled {
        /// The pipeline.
        pipeline: ImageName,
        /// How many runs have failed in a row.
        failures: u32,
    },
    /// Something is not as it should be.
    Problem(String),
}

/// When to stop working.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Until {
    /// When nothing is left that could begin now.
    Idle,
    /// When this run has ended; others are left alone.
    Ended(String),
    /// When told to.
    Stopped,
}

/// Works on the queue.
pub struct Worker {
    store: Store,
    ledger: Ledger,
    program: Program,
    tell: Arc<dyn Fn(Notice) + Send + Sync>,
    /// Where AWS is, for topics.
    endpoints: Endpoints,
    /// What is still being told to others.
    telling: TaskTracker,
    /// Runs that have ended, and are not read again.
    ended: Mutex<HashSet<String>>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("store", &self.store).finish_non_exhaustive()
    }
}

/// A build that this process works on.
struct Mine {
    stop: CancellationToken,
    _lock: Lock,
}

/// A build whose process has ended without a word.
struct Killed {
    /// Its image, if it had a number.
    image: Option<ImageId>,
    /// Who is told of that.
    told: Vec<Told>,
}

type Builds = BTreeMap<(String, usize), Mine>;

impl Worker {
    /// A worker on a store's queue. `program` makes a build, and is given the run and the build's number in it.
    pub fn new(store: Store, program: Program, endpoints: Endpoints, tell: Arc<dyn Fn(Notice) + Send + Sync>) -> Self {
        let ledger = Ledger::new(&store);
        Self { store, ledger, program, tell, endpoints, telling: TaskTracker::new(), ended: Mutex::default() }
    }

    /// Works until there is no reason to, or `stop` is cancelled; then builds are ended, and those that nobody wanted to
    /// end wait again.
    pub async fn work(&self, until: &Until, stop: &CancellationToken) -> Result<(), Error> {
        let (mut mine, mut tasks) = (Builds::new(), JoinSet::new());
        loop {
            self.recover(&mine)?;
            let begun = if stop.is_cancelled() { 0 } else { self.begin(until, &mut mine, &mut tasks)? };
            self.heed_cancels(&mine)?;
            let is_done = match until {
                _ if stop.is_cancelled() => mine.is_empty(),
                Until::Idle => begun == 0 && mine.is_empty(),
                Until::Ended(id) => mine.is_empty() && self.ledger.run(id)?.is_none_or(|run| run.ended.is_some()),
                Until::Stopped => false,
            };
            if is_done {
                self.telling.close();
                self.telling.wait().await;
                return Ok(());
            }
            tokio::select! {
                Some(ended) = tasks.join_next() => {
                    let (run, number, how) = ended.map_err(std::io::Error::other)?;
                    let key = (run, number);
                    self.harvest(&key.0, number, &how, stop.is_cancelled())?;
                    mine.remove(&key);
                }
                () = stop.cancelled(), if !mine.values().all(|build| build.stop.is_cancelled()) => {
                    mine.values().for_each(|build| build.stop.cancel());
                }
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Tells of a pipeline that runs no more by itself, as its documents want it told.
    fn tell_disabled(&self, run: &Run, failures: u32) {
        (self.tell)(Notice::Disabled { pipeline: run.pipeline.clone(), failures });
        self.tell_others(run.how.events.clone(), notify::Notice::of_disabled_pipeline(run.pipeline.as_str(), failures));
    }

    /// Tells those whom a run's documents name, beside everything else.
    fn tell_others(&self, told: Vec<Told>, notice: notify::Notice) {
        let tell = self.tell.clone();
        let complain = move |why: String| tell(Notice::Problem(why));
        self.telling.spawn(told::tell(told, notice, self.endpoints.clone(), complain));
    }

    /// Runs that have not ended.
    fn under_way(&self) -> Result<Vec<Run>, Error> {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let (running, done): (Vec<Run>, Vec<Run>) =
            self.ledger.runs_except(&ended)?.into_iter().partition(|run| run.ended.is_none());
        ended.extend(done.into_iter().map(|run| run.id));
        Ok(running)
    }

    /// Sees to builds whose process is gone without a word to anybody.
    fn recover(&self, mine: &Builds) -> Result<(), Error> {
        for run in self.under_way()? {
            for number in 0..run.builds.len() {
                let is_building = run.builds[number].status == Status::Building;
                if !is_building || mine.contains_key(&(run.id.clone(), number)) {
                    continue;
                }
                let killed = {
                    let held = self.ledger.hold()?;
                    let Some(_lock) = self.ledger.take_build(&run.id, number)? else { continue };
                    let how = "goldsmith ended while it was being built";
                    self.note(&held, &run.id, number, how, false)?
                };
                killed.map_or(Ok(()), |killed| self.bury(killed))?;
            }
        }
        Ok(())
    }

    /// Has builds begin that there is room for. Returns how many.
    fn begin(
        &self,
        until: &Until,
        mine: &mut Builds,
        tasks: &mut JoinSet<(String, usize, String)>,
    ) -> Result<usize, Error> {
        let held = self.ledger.hold()?;
        let mut runs = self.under_way()?;
        let is_ours = |run: &Run| !matches!(until, Until::Ended(id) if *id != run.id);
        let of = |runs: &[Run], status: Status| -> Vec<(usize, usize)> {
            let builds = |(index, run): (usize, &Run)| {
                let numbers = (0..run.builds.len()).filter(move |&number| run.builds[number].status == status);
                numbers.map(move |number| (index, number)).collect::<Vec<_>>()
            };
            runs.iter().enumerate().flat_map(builds).collect()
        };
        let entry = |runs: &[Run], (index, number): (usize, usize)| {
            let (run, build) = (&runs[index], &runs[index].builds[number]);
            let parent = build.build.parent.as_deref().unwrap_or_default();
            Entry { needs: build.needs, group: format!("{}\n{parent}", run.how.recipe.display()) }
        };
        let mut waiting = of(&runs, Status::Pending);
        waiting.retain(|&(index, _)| is_ours(&runs[index]));
        if waiting.is_empty() {
            return Ok(0);
        }
        // Runs stand by age already.
        waiting.sort_by_key(|&(index, _)| -i64::from(runs[index].priority));
        let entries: Vec<Entry> = waiting.iter().map(|&place| entry(&runs, place)).collect();
        let running: Vec<Entry> = of(&runs, Status::Building).into_iter().map(|place| entry(&runs, place)).collect();
        let verdicts = admit(&entries, &running, &Host::look(self.store.root())?);
        let (mut begun, now) = (0, Timestamp::now());
        for (&(index, number), verdict) in waiting.iter().zip(verdicts) {
            let run = &mut runs[index];
            let record = &mut run.builds[number];
            match verdict {
                Verdict::Begin => {
                    let Some(lock) = self.ledger.take_build(&run.id, number)? else { continue };
                    record.claim(now);
                    held.save_run(run)?;
                    begun += 1;
                    let stop = CancellationToken::new();
                    self.start(run, number, stop.clone(), tasks);
                    mine.insert((run.id.clone(), number), Mine { stop, _lock: lock });
                }
                Verdict::Wait(why) => {
                    let why = Some(format!("waits {why}"));
                    // The room that is left changes all the time, and a record is written to the disk.
                    if record.reason.as_deref().map(kind) != why.as_deref().map(kind) {
                        record.reason = why;
                        held.save_run(run)?;
                        let record = Box::new(run.builds[number].clone());
                        (self.tell)(Notice::Build { run: run.id.clone(), number, record });
                    }
                }
                Verdict::Never(why) => {
                    record.end(Status::Failed, Some(why), now);
                    self.save(&held, run, number)?;
                }
            }
        }
        Ok(begun)
    }

    /// Starts a build's process.
    fn start(&self, run: &Run, number: usize, stop: CancellationToken, tasks: &mut JoinSet<(String, usize, String)>) {
        let label = run.builds[number].build.label();
        (self.tell)(Notice::Begins { run: run.id.clone(), build: (number, run.builds.len()), label });
        let program = self.program.clone().args([run.id.as_str(), &number.to_string()]);
        let (id, tell) = (run.id.clone(), self.tell.clone());
        tasks.spawn(async move {
            let how = match program.spawn() {
                Ok(child) => attend(child, &stop, |line| tell(Notice::Line { run: id.clone(), number, line })).await,
                Err(error) => one_line(&error),
            };
            (id, number, how)
        });
    }

    /// Has builds end that somebody has cancelled.
    fn heed_cancels(&self, mine: &Builds) -> Result<(), Error> {
        for ((id, number), build) in mine {
            let run = self.ledger.run(id)?;
            if run.is_some_and(|run| run.builds.get(*number).is_some_and(|build| build.cancelled)) {
                build.stop.cancel();
            }
        }
        Ok(())
    }

    /// Notes what has become of a build whose process has ended.
    fn harvest(&self, id: &str, number: usize, how: &str, was_stopped: bool) -> Result<(), Error> {
        let killed = self.note(&self.ledger.hold()?, id, number, how, was_stopped)?;
        killed.map_or(Ok(()), |killed| self.bury(killed))
    }

    /// Sees to what a killed build has left, now and not by whichever command comes next, and tells of its image in its place.
    fn bury(&self, killed: Killed) -> Result<(), Error> {
        let problems = self.store.recover()?.problems;
        problems.into_iter().for_each(|problem| (self.tell)(Notice::Problem(problem)));
        let image = killed.image.and_then(|image| self.store.find(&(&image).into(), |_| true).ok());
        let Some((image, from)) = image.and_then(|image| store::left_in(&image.manifest).map(|from| (image, from)))
        else {
            return Ok(());
        };
        let Image { id: image, manifest: Manifest { state: to, reason, .. }, .. } = image;
        let (image_status, failed_step) = (from.to_string(), reason.clone());
        let failure = Some(FailureContext { image_status, failed_step, ..FailureContext::default() });
        self.tell_others(killed.told, notify::Notice::of_state(StateChange { image, from, to, reason, failure }));
        Ok(())
    }

    /// The same, while nobody else may change anything. Whether it ended without a word.
    fn note(
        &self,
        held: &Held<'_>,
        id: &str,
        number: usize,
        how: &str,
        was_stopped: bool,
    ) -> Result<Option<Killed>, Error> {
        let now = Timestamp::now();
        let Some(mut run) = self.ledger.run(id)? else { return Ok(None) };
        let outcome = self.ledger.outcome(&run, number)?;
        let Some(record) = run.builds.get_mut(number).filter(|record| record.status == Status::Building) else {
            return Ok(None);
        };
        let mut killed = None;
        let image = outcome.as_ref().and_then(|outcome| outcome.image.clone());
        record.image = image.clone().or_else(|| record.image.take());
        match outcome {
            Some(Outcome { status: Status::Cancelled, reason, .. }) if !record.cancelled && was_stopped => {
                // Nobody wanted this build to end, only the process that waited for it.
                record.put_back(&reason.unwrap_or_else(|| how.to_owned()));
            }
            Some(Outcome { status, reason, .. }) if !status.is_under_way() => record.end(status, reason, now),
            // It took too long to end; that is no fault of its own.
            _ if was_stopped && !record.cancelled => record.put_back(how),
            _ => {
                killed = Some(Killed { image, told: run.how.events.clone() });
                record.was_killed(how, now);
            }
        }
        self.save(held, &mut run, number)?;
        Ok(killed)
    }

    /// Saves a run in which a build has ended or waits again, and tells of it.
    fn save(&self, held: &Held<'_>, run: &mut Run, number: usize) -> Result<(), Error> {
        let has_ended = run.settle(Timestamp::now());
        held.save_run(run)?;
        let record = Box::new(run.builds[number].clone());
        (self.tell)(Notice::Build { run: run.id.clone(), number, record });
        if has_ended {
            let disabled = note_end(held, &self.ledger, run)?;
            (self.tell)(Notice::Ended(Box::new(run.clone())));
            if let Some(failures) = disabled {
                self.tell_disabled(run, failures);
            }
        }
        Ok(())
    }
}

/// What a reason begins with: for what is waited.
fn kind(reason: &str) -> &str {
    reason.split(':').next().unwrap_or(reason)
}

/// Hears a child out, and ends it when told to. Returns how it ended.
async fn attend(mut child: Child, stop: &CancellationToken, hear: impl Fn(String)) -> String {
    if let Some(stdout) = child.take_stdout() {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        loop {
            tokio::select! {
                read = reader.read_until(b'\n', &mut line) => match read {
                    Ok(1..) => {
                        line.truncate(LONGEST_LINE);
                        hear(String::from_utf8_lossy(&line).trim_end().to_owned());
                        line.clear();
                    }
                    _ => break,
                },
                () = stop.cancelled() => {
                    let ended = child.end(GRACE).await;
                    return ended.map_or_else(|error| one_line(&error), |()| "it was ended".to_owned());
                }
            }
        }
    }
    let status = tokio::select! {
        status = child.wait() => status,
        () = stop.cancelled() => {
            let _gone = child.end(GRACE).await;
            return "it was ended".to_owned();
        }
    };
    match status {
        Err(error) => one_line(&error),
        Ok(status) => {
            let last = last_words(&child.last_stderr().await);
            let colon = if last.is_empty() { "" } else { ": " };
            format!("its process ended with {status}{colon}{last}")
        }
    }
}

/// What a process that has failed said why, in one line: its last error with all its lines, else its last line.
fn last_words(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let from = lines.iter().rposition(|line| line.starts_with("error: ")).unwrap_or(lines.len().saturating_sub(1));
    let words = lines[from..].join("; ");
    words.strip_prefix("error: ").unwrap_or(&words).chars().take(LONGEST_LINE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_noted_with_all_its_lines() {
        let said = "warning: old\nerror: the disk is full\n  what to do: make room\n\n";
        assert_eq!(last_words(said), "the disk is full; what to do: make room");
        assert_eq!(last_words("thread 'main' has overflowed its stack\nfatal runtime error\n"), "fatal runtime error");
        assert_eq!(last_words(""), "");
    }
}
