//! Action modules.
//!
//! [`MODULES`] is the table of all of them: a module's name, what it takes and gives, on what it runs, and the function that
//! does it here. To add one, write that function and add the row.

mod condition;
mod copy;
mod download;
mod file;
mod folder;
mod hardware;
mod owner;
mod s3;
mod script;
mod system;
mod table;
mod text;

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use goldsmith_agent::message::{Exec, Exit, Kind, Stream};

use super::condition::Resolved as Condition;
use super::courier::{Content, Courier};
use super::inputs::{Field, Resolved};
use super::runner::Site;
use super::values::{Outputs, absolute};
use crate::document::component::Platform;
use crate::guest::{self, Guest};
pub use table::MODULES;

/// An action module.
#[derive(Debug)]
pub struct Module {
    /// Its name in documents.
    pub name: &'static str,
    /// What it does.
    pub summary: &'static str,
    /// What it runs on.
    pub platforms: &'static [Platform],
    /// What it takes.
    pub(super) takes: Takes,
    /// Names of its outputs.
    pub(super) outputs: &'static [&'static str],
    /// Who does it.
    pub(super) work: Work,
}

/// What a module takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Takes {
    /// One map.
    Map(&'static [Field]),
    /// A list of maps, done in order.
    List(&'static [Field]),
    /// A condition.
    Condition,
}

/// Who does a module's work.
#[derive(Debug, Clone, Copy)]
pub(super) enum Work {
    /// A function, in the guest.
    Guest(Run),
    /// The runner itself: it runs another document.
    Document,
    /// Nobody: it is for guests that do not run here.
    Elsewhere,
}

impl Takes {
    /// Whether a step may leave its inputs out.
    pub(super) fn is_optional(self) -> bool {
        matches!(self, Self::Map(fields) if fields.iter().all(|field| !field.required))
    }
}

/// Does a module's work in a guest.
pub(super) type Run = for<'a> fn(&'a Call<'a>) -> BoxFuture<'a, Result<Verdict, guest::Error>>;

/// One attempt of a step.
pub(super) struct Call<'a> {
    /// Where.
    pub(super) guest: &'a Guest,
    /// With what.
    pub(super) inputs: &'a [Resolved],
    /// Under which condition, for modules that take one.
    pub(super) condition: Option<&'a Condition>,
    /// In what surroundings.
    pub(super) site: &'a Site,
    /// Who carries things to the guest and away.
    pub(super) courier: &'a dyn Courier,
    /// For how long at most.
    pub(super) timeout: Option<Duration>,
    /// When that time is up.
    pub(super) deadline: Option<Instant>,
    /// Hears what programs write.
    pub(super) output: &'a (dyn Fn(Stream, &[u8]) + Send + Sync),
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Well.
    Done(Outputs),
    /// Not well, and why.
    Failed(String),
    /// The guest has to restart.
    Reboot {
        /// How long to wait before.
        delay: Duration,
        /// Whether the step begins again afterwards.
        again: bool,
    },
}

impl Verdict {
    const NOTHING: Self = Self::Done(Vec::new());
}

/// How much later than its deadline an attempt is given up that does not end by itself: no program is ended as late.
const OVERTIME: Duration = guest::REPORT_GRACE.saturating_mul(2);

/// What a step keeps of a program's standard output, in bytes: it becomes part of other steps' inputs.
pub(super) const STDOUT_LIMIT: usize = 1 << 20;
/// What is kept of a tool's complaint, in bytes.
const COMPLAINT_LIMIT: usize = 4 << 10;

/// How a program that a step ran ended.
pub(super) struct Ended {
    pub(super) exit: Exit,
    pub(super) stdout: String,
}

impl Call<'_> {
    /// The one group of inputs of a module that takes a map.
    pub(super) fn input(&self) -> &Resolved {
        static NONE: Resolved = Resolved::EMPTY;
        self.inputs.first().unwrap_or(&NONE)
    }

    /// A path in the guest; relative ones begin in the working directory.
    pub(super) fn path(&self, path: &str) -> String {
        absolute(&self.site.working_directory, path)
    }

    /// Runs a program in the step's surroundings.
    pub(super) async fn run(&self, argv: Vec<String>) -> Result<Ended, guest::Error> {
        let mut stdout = Vec::new();
        let exit = self.exec(argv, |stream, data| {
            (self.output)(stream, data);
            if stream == Stream::Stdout {
                keep(&mut stdout, data, STDOUT_LIMIT);
            }
        });
        let exit = exit.await?;
        Ok(Ended { exit, stdout: String::from_utf8_lossy(&stdout).into_owned() })
    }

    /// Runs a tool of the guest's system that is no business of the log's. What it writes comes back, or what it says
    /// went wrong.
    pub(super) async fn tool(&self, argv: &[&str]) -> Result<Result<Vec<u8>, String>, guest::Error> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let exit = self.exec(argv.iter().map(|&word| word.to_owned()).collect(), |stream, data| match stream {
            // One byte more, to know that there is more.
            Stream::Stdout => keep(&mut stdout, data, STDOUT_LIMIT + 1),
            Stream::Stderr => keep(&mut stderr, data, COMPLAINT_LIMIT),
        });
        Ok(match exit.await? {
            Exit::Code(0) if stdout.len() > STDOUT_LIMIT => {
                Err(format!("{} says more than {} KiB", argv[0], STDOUT_LIMIT >> 10))
            }
            Exit::Code(0) => Ok(stdout),
            Exit::Killed => Err(self.timed_out()),
            Exit::Code(_) | Exit::Signal(_) if !stderr.is_empty() => {
                Err(String::from_utf8_lossy(&stderr).trim().to_owned())
            }
            Exit::Code(code) => Err(format!("{} ended with status {code}", argv[0])),
            Exit::Signal(signal) => Err(format!("{} was ended by signal {signal}", argv[0])),
        })
    }

    async fn exec(&self, argv: Vec<String>, output: impl FnMut(Stream, &[u8])) -> Result<Exit, guest::Error> {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let exec = Exec {
            argv,
            env: self.site.environment.clone(),
            cwd: self.site.working_directory.clone(),
            timeout_ms: left.and_then(|left| u64::try_from(left.as_millis()).ok()),
        };
        let running = self.guest.exec(exec, output);
        match left {
            None => running.await,
            Some(left) => self.guest.reported_within(left, running).await,
        }
    }

    /// What a program's end means for the step that consists of it. Exit status 194 asks for a restart of the guest.
    pub(super) fn judge(&self, ended: Ended) -> Verdict {
        match ended.exit {
            Exit::Code(0) => {
                let stdout = ended.stdout.trim_end_matches(['\n', '\r']).to_owned();
                Verdict::Done(vec![("stdout", stdout)])
            }
            Exit::Code(194) => Verdict::Reboot { delay: Duration::ZERO, again: true },
            Exit::Code(code) => Verdict::Failed(format!("exit status {code}")),
            Exit::Signal(signal) => Verdict::Failed(format!("ended by signal {signal}")),
            Exit::Killed => Verdict::Failed(self.timed_out()),
        }
    }

    pub(super) fn timed_out(&self) -> String {
        match self.timeout {
            Some(timeout) => format!("timed out after {} s", timeout.as_secs()),
            None => "ended by force".to_owned(),
        }
    }

    /// What comes of work on the host's side, unless its time is up before.
    async fn in_time<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        match self.deadline {
            None => Some(work.await),
            Some(deadline) => tokio::time::timeout_at(deadline.into(), work).await.ok(),
        }
    }

    /// Whether its time is up.
    pub(super) fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    /// Writes what comes from the host to a place, which has all of it or nothing.
    async fn put(&self, place: &str, content: Content) -> Result<Result<(), String>, guest::Error> {
        self.make_parent(place).await?;
        let partial = format!("{place}.part");
        let written = self.in_time(self.guest.write(&partial, 0o644, content)).await;
        match written.unwrap_or_else(|| Err(guest::Error::Source(std::io::Error::other(self.timed_out())))) {
            Err(guest::Error::Source(error)) => {
                if self.guest.stat(&partial, false).await?.is_some() {
                    self.guest.remove(&partial).await?;
                }
                Ok(Err(error.to_string()))
            }
            written => {
                written?;
                Ok(self.tool(&["mv", "-fT", "--", &partial, place]).await?.map(drop))
            }
        }
    }

    /// Makes the folder that a path is in, and those above.
    async fn make_parent(&self, path: &str) -> Result<(), guest::Error> {
        match path.trim_end_matches('/').rsplit_once('/') {
            Some((folder, _)) if !folder.is_empty() => self.guest.make_folder(folder, None).await,
            _ => Ok(()),
        }
    }

    /// What stands in the way of writing to a path, if anything.
    async fn in_the_way(&self, path: &str, overwrite: bool) -> Result<Option<String>, guest::Error> {
        if overwrite || self.guest.stat(path, false).await?.is_none() {
            return Ok(None);
        }
        Ok(Some(format!("{path} is there already, and overwrite is false")))
    }
}

fn keep(kept: &mut Vec<u8>, data: &[u8], limit: usize) {
    kept.extend_from_slice(&data[..data.len().min(limit - kept.len())]);
}

impl Module {
    /// One attempt. A refusal by the agent is the step's failure, and so are bytes that did not come; anything else ends
    /// the run. What neither the guest nor the work itself has ended in time is given up.
    pub(super) async fn attempt(run: Run, call: &Call<'_>) -> Result<Verdict, guest::Error> {
        let attempted = match call.deadline.and_then(|deadline| deadline.checked_add(OVERTIME)) {
            None => run(call).await,
            Some(last) => match tokio::time::timeout_at(last.into(), run(call)).await {
                Ok(attempted) => attempted,
                Err(_) => return Ok(Verdict::Failed(call.timed_out())),
            },
        };
        match attempted {
            Err(guest::Error::Refused(error)) => Ok(Verdict::Failed(error.message)),
            Err(guest::Error::Source(error)) => Ok(Verdict::Failed(error.to_string())),
            verdict => verdict,
        }
    }

    /// What it takes, one by one.
    #[cfg(test)]
    pub(super) fn fields(&self) -> &'static [Field] {
        match self.takes {
            Takes::Map(fields) | Takes::List(fields) => fields,
            Takes::Condition => &[],
        }
    }

    /// Whether it runs on a platform.
    pub fn runs_on(&self, platform: Platform) -> bool {
        self.platforms.contains(&platform)
    }
}

/// A module by its name.
pub(super) fn find(name: &str) -> Option<&'static Module> {
    MODULES.iter().find(|module| module.name == name)
}

/// Whether a name matches a pattern in which `*` stands for any run of characters.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|head| name.strip_prefix(head)) else { return false };
    let Some(tail) = parts.next_back() else { return rest.is_empty() };
    // Each part as early as it can be leaves the most for those that follow.
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(tail)
}

/// What a path means of one kind: itself, or all in its folder that match when its last part has a `*`.
async fn expand(guest: &Guest, path: &str, kind: Kind) -> Result<Vec<String>, guest::Error> {
    let (folder, pattern) = path.rsplit_once('/').unwrap_or((".", path));
    if !pattern.contains('*') {
        return Ok(vec![path.to_owned()]);
    }
    let folder = if folder.is_empty() { "/" } else { folder };
    let mut found = Vec::new();
    for name in guest.list(folder).await? {
        let candidate = format!("{}/{name}", folder.trim_end_matches('/'));
        // As in a shell, hidden files are meant only by a pattern that says so.
        let is_meant = matches(pattern, &name) && (!name.starts_with('.') || pattern.starts_with('.'));
        if is_meant && guest.stat(&candidate, true).await?.is_some_and(|stat| stat.kind == kind) {
            found.push(candidate);
        }
    }
    Ok(found)
}

/// The last part of a path.
fn base_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_language_is_whole() {
        assert!(MODULES.is_sorted_by_key(|module| module.name));
        let of_the_language = || MODULES.iter().filter(|module| !module.name.starts_with("Goldsmith"));
        assert_eq!(of_the_language().count(), 30);
        for module in of_the_language() {
            let runs_here = !matches!(module.work, Work::Elsewhere);
            assert_eq!(module.runs_on(Platform::Linux), runs_here, "{}", module.name);
        }
    }

    #[test]
    fn stars_stand_for_any_run_of_characters() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("*.log", "a.log", true),
            ("*.log", "a.log.1", false),
            ("a*b*c", "a--b--b--c", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("a**b", "ab", true),
            ("é*", "été", true),
            ("plain", "plain", true),
            ("plain", "plainer", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn patterns_match_as_regular_expressions_do(pattern in "[ab*]{0,6}", name in "[ab]{0,8}") {
            let expression = format!("^{}$", pattern.replace('*', ".*"));
            prop_assert_eq!(matches(&pattern, &name), regex::Regex::new(&expression).unwrap().is_match(&name));
        }
    }

    #[test]
    fn names_are_the_last_parts_of_paths() {
        assert_eq!(base_name("/a/b"), "b");
        assert_eq!(base_name("/a/b/"), "b");
        assert_eq!(base_name("b"), "b");
    }
}
