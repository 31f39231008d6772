//! Action modules, one file for each or for a few that belong together.
//!
//! A module is a row of [`MODULES`]: its name, what it takes, what it gives, and the function that does it. To add one,
//! write that function and add the row.

mod condition;
mod download;
mod file;
mod folder;
mod script;
mod system;

use std::time::Duration;

use futures_util::future::BoxFuture;
use goldsmith_agent::message::{Exec, Exit, Stream};

use super::condition::Resolved as Condition;
use super::inputs::{Field, Kind, Resolved, optional, required};
use super::runner::Site;
use super::values::Outputs;
use crate::guest::{self, Guest};

/// An action module.
#[derive(Debug)]
pub struct Module {
    /// Its name in documents.
    pub name: &'static str,
    /// What it does.
    pub summary: &'static str,
    /// What it takes.
    pub(super) takes: Takes,
    /// Names of its outputs.
    pub(super) outputs: &'static [&'static str],
    run: Run,
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

impl Takes {
    /// Whether a step may leave its inputs out.
    pub(super) fn is_optional(self) -> bool {
        matches!(self, Self::Map(fields) if fields.iter().all(|field| !field.required))
    }
}

type Run = for<'a> fn(&'a Call<'a>) -> BoxFuture<'a, Result<Verdict, guest::Error>>;

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
    /// For how long at most.
    pub(super) timeout: Option<Duration>,
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

/// What a step keeps of a program's standard output, in bytes: it becomes part of other steps' inputs.
const STDOUT_LIMIT: usize = 1 << 20;

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

    /// Runs a program in the step's surroundings.
    pub(super) async fn run(&self, argv: Vec<String>) -> Result<Ended, guest::Error> {
        let exec = Exec {
            argv,
            env: self.site.environment.clone(),
            cwd: self.site.working_directory.clone(),
            timeout_ms: self.timeout.and_then(|timeout| u64::try_from(timeout.as_millis()).ok()),
        };
        let mut stdout = Vec::new();
        let running = self.guest.exec(exec, |stream, data| {
            (self.output)(stream, data);
            if stream == Stream::Stdout {
                let room = STDOUT_LIMIT - stdout.len();
                stdout.extend_from_slice(&data[..data.len().min(room)]);
            }
        });
        let exit = match self.timeout {
            None => running.await?,
            Some(timeout) => self.guest.reported_within(timeout, running).await?,
        };
        Ok(Ended { exit, stdout: String::from_utf8_lossy(&stdout).into_owned() })
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
}

impl Module {
    /// One attempt. A refusal by the agent is the step's failure; anything else ends the run.
    pub(super) async fn attempt(&self, call: &Call<'_>) -> Result<Verdict, guest::Error> {
        match (self.run)(call).await {
            Err(guest::Error::Refused(error)) => Ok(Verdict::Failed(error.message)),
            verdict => verdict,
        }
    }
}

macro_rules! module {
    ($name:literal, $summary:literal, $takes:expr, $outputs:expr, $run:path) => {
        Module { name: $name, summary: $summary, takes: $takes, outputs: $outputs, run: |call| Box::pin($run(call)) }
    };
}

/// All modules, by name.
pub static MODULES: &[Module] = &[
    module!("Assert", "fails unless a condition holds", Takes::Condition, &[], condition::assert),
    module!(
        "CopyFile",
        "copies files",
        Takes::List(&[
            required("source", Kind::Text),
            required("destination", Kind::Text),
            optional("overwrite", Kind::Flag),
        ]),
        &[],
        file::copy
    ),
    module!(
        "CreateFile",
        "writes a file",
        Takes::List(&[
            required("path", Kind::Text),
            optional("content", Kind::Text),
            optional("encoding", Kind::Text),
            optional("owner", Kind::Text),
            optional("group", Kind::Text),
            optional("permissions", Kind::Text),
            optional("overwrite", Kind::Flag),
        ]),
        &[],
        file::create
    ),
    module!(
        "CreateFolder",
        "makes a folder",
        Takes::List(&[
            required("path", Kind::Text),
            optional("owner", Kind::Text),
            optional("group", Kind::Text),
            optional("permissions", Kind::Text),
            optional("overwrite", Kind::Flag),
        ]),
        &[],
        folder::create
    ),
    module!("DeleteFile", "deletes files", Takes::List(&[required("path", Kind::Text)]), &[], file::delete),
    module!(
        "ExecuteBash",
        "runs commands with bash",
        Takes::Map(&[required("commands", Kind::Texts)]),
        &["stdout"],
        script::execute_bash
    ),
    module!(
        "ExecuteBinary",
        "runs a program",
        Takes::Map(&[required("path", Kind::Text), optional("arguments", Kind::Texts)]),
        &["stdout"],
        script::execute_binary
    ),
    module!(
        "Reboot",
        "restarts the machine",
        Takes::Map(&[optional("delaySeconds", Kind::Number)]),
        &[],
        system::reboot
    ),
    module!(
        "UpdateOS",
        "installs the distribution's updates",
        Takes::Map(&[optional("include", Kind::Texts), optional("exclude", Kind::Texts)]),
        &[],
        system::update_os
    ),
    module!(
        "WebDownload",
        "downloads files",
        Takes::List(&[
            required("source", Kind::Text),
            required("destination", Kind::Text),
            optional("overwrite", Kind::Flag),
            optional("checksum", Kind::Text),
            optional("algorithm", Kind::Text),
            optional("ignoreCertificateErrors", Kind::Flag),
        ]),
        &["destination"],
        download::web_download
    ),
];

/// Modules of the language that this version does not run.
pub(super) const NOT_YET: [&str; 20] = [
    "AppendFile",
    "CopyFolder",
    "CreateSymlink",
    "DeleteFolder",
    "ExecuteDocument",
    "ExecutePowerShell",
    "InstallMSI",
    "ListFiles",
    "MoveFile",
    "MoveFolder",
    "ReadFile",
    "S3Download",
    "S3Upload",
    "SetFileEncoding",
    "SetFileOwner",
    "SetFilePermissions",
    "SetFolderOwner",
    "SetFolderPermissions",
    "SetRegistry",
    "UninstallMSI",
];

/// A module by its name.
pub(super) fn find(name: &str) -> Option<&'static Module> {
    MODULES.iter().find(|module| module.name == name)
}

/// Whether a name matches a pattern in which `*` stands for any run of characters.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == name };
    let Some(rest) = name.strip_prefix(head) else { return false };
    (0..=rest.len()).filter(|&at| rest.is_char_boundary(at)).any(|at| matches(tail, &rest[at..]))
}

/// The files of one folder that a path means: itself, or all that match when its last part has a `*`.
async fn expand(guest: &Guest, path: &str) -> Result<Vec<String>, guest::Error> {
    use goldsmith_agent::message::Kind;
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
        if is_meant && guest.stat(&candidate, true).await?.is_some_and(|stat| stat.kind == Kind::File) {
            found.push(candidate);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_is_whole() {
        let mut names: Vec<&str> = MODULES.iter().map(|module| module.name).chain(NOT_YET).collect();
        assert!(MODULES.is_sorted_by_key(|module| module.name));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 30);
    }

    #[test]
    fn stars_stand_for_any_run_of_characters() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("*.log", "a.log", true),
            ("*.log", "a.log.1", false),
            ("a*b*c", "a--b--b--c", true),
            ("a*b*c", "acb", false),
            ("é*", "été", true),
            ("plain", "plain", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
