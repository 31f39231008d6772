//! Child processes. Every child of goldsmith is made here.
//!
//! A child has a process group of its own, so that Ctrl-C at the terminal reaches goldsmith alone and goldsmith decides;
//! it dies with us, unless it is at its end in a moment; it reads nothing from our standard input; its messages are in
//! English whatever the user's language (`LC_MESSAGES`, not `LC_ALL`: file names keep their encoding); and what it writes
//! to standard error is kept up to a bound, so that a noisy child can neither block nor flood an error message.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, set_parent_process_death_signal};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// Standard error that is kept: enough for the last dozen lines.
const STDERR_TAIL: usize = 4 * 1024;
/// Standard output that is collected. No program asked for its output answers with more.
const STDOUT_LIMIT: u64 = 16 * 1024 * 1024;

/// Why a child process did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is not installed.
    #[error("`{program}` is not installed or not in PATH")]
    Missing {
        /// The program's name.
        program: String,
    },
    /// The program could not be started or waited for.
    #[error("can't run `{}`", shorten(command))]
    Start {
        /// The command line.
        command: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The program failed.
    #[error("`{}` ended with {}{}", shorten(command), describe_status(*status), indent_tail(stderr))]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The last it wrote to standard error.
        stderr: String,
    },
}

/// A command line as it stands in an error: scripts among its arguments would bury the cause.
fn shorten(command: &str) -> String {
    const MOST: usize = 160;
    let line = command.lines().next().unwrap_or_default();
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{} …", &line[..end]),
        None if line.len() < command.len() => format!("{line} …"),
        None => line.to_owned(),
    }
}

fn describe_status(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

fn indent_tail(stderr: &str) -> String {
    let mut text = String::new();
    for line in stderr.trim().lines() {
        text.push_str("\n    ");
        text.push_str(line);
    }
    if text.is_empty() { text } else { format!(":{text}") }
}

/// A program to run, with its arguments.
#[derive(Debug, Clone)]
pub struct Program {
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    folder: Option<PathBuf>,
    small_pages: bool,
    outlives_us: bool,
}

impl Program {
    /// A program by name or path.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let program = program.as_ref().to_owned();
        Self {
            program,
            arguments: Vec::new(),
            environment: Vec::new(),
            folder: None,
            small_pages: false,
            outlives_us: false,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets a variable on top of our own environment.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets the folder to run in.
    #[must_use]
    pub fn in_folder(mut self, folder: impl AsRef<Path>) -> Self {
        self.folder = Some(folder.as_ref().to_owned());
        self
    }

    /// Has it, and all that it starts, get memory page by page: less of it and sooner, where only some is touched.
    #[must_use]
    pub fn with_small_pages(mut self, small_pages: bool) -> Self {
        self.small_pages = small_pages;
        self
    }

    /// Lets it come to its end when we are killed. It is for what takes but a moment, and killed in its middle would leave
    /// what it has started waiting for it.
    #[must_use]
    pub fn outliving_us(mut self) -> Self {
        self.outlives_us = true;
        self
    }

    /// The same program, started by others that stand before it: `nice`, `sudo` and their like.
    #[must_use]
    pub fn behind<A: AsRef<OsStr>>(&self, words: &[A]) -> Self {
        let mut before = words.iter().map(|word| word.as_ref().to_owned());
        let Some(first) = before.next() else { return self.clone() };
        let arguments = before.chain([self.program.clone()]).chain(self.arguments.iter().cloned()).collect();
        Self { program: first, arguments, ..self.clone() }
    }

    /// The command line, quoted so that it can be pasted into a shell.
    pub fn command_line(&self) -> String {
        let words = std::iter::once(&self.program).chain(&self.arguments);
        words.map(|word| quote(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
    }

    /// Starts it with both outputs connected to us.
    pub fn spawn(&self) -> Result<Child, Error> {
        tracing::debug!(command = self.command_line(), "starting");
        let mut command = self.command();
        command.stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|source| self.start_error(source))?;
        let stderr = Tail::default();
        if let Some(pipe) = child.stderr.take() {
            tokio::spawn(stderr.clone().follow(pipe));
        }
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Child { child, pid, stderr, command: self.command_line() })
    }

    /// Runs it to its end; its standard output is the answer.
    pub async fn output(&self) -> Result<Vec<u8>, Error> {
        let mut child = self.spawn()?;
        let mut stdout = Vec::new();
        if let Some(pipe) = child.child.stdout.take() {
            let read = pipe.take(STDOUT_LIMIT).read_to_end(&mut stdout).await;
            read.map_err(|source| self.start_error(source))?;
        }
        child.success().await?;
        Ok(stdout)
    }

    /// Runs it to its end.
    pub async fn run(&self) -> Result<(), Error> {
        self.output().await.map(drop)
    }

    #[allow(unsafe_code)]
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env("LC_MESSAGES", "C")
            .env_remove("LC_ALL")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        let (parent, small_pages, outlives_us) = (rustix::process::getpid(), self.small_pages, self.outlives_us);
        // SAFETY: between fork and exec the closure makes a few system calls and allocates nothing.
        unsafe {
            command.pre_exec(move || {
                if !outlives_us {
                    set_parent_process_death_signal(Some(Signal::KILL))?;
                }
                if small_pages {
                    rustix::thread::disable_transparent_huge_pages(true)?;
                }
                // The parent may have died before the signal was asked for.
                if rustix::process::getppid() == Some(parent) {
                    Ok(())
                } else {
                    Err(std::io::ErrorKind::Interrupted.into())
                }
            });
        }
        command
    }

    fn start_error(&self, source: std::io::Error) -> Error {
        if source.kind() == std::io::ErrorKind::NotFound && self.folder.as_deref().is_none_or(Path::exists) {
            return Error::Missing { program: self.program.to_string_lossy().into_owned() };
        }
        Error::Start { command: self.command_line(), source }
    }
}

/// Does something long that nobody waits for on a thread of its own, which gets what time the others leave.
pub async fn in_background<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::io::Result<T> {
    let (sender, done) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("background".to_owned()).spawn(move || {
        // In Linux a priority is a thread's own. Without it the work is done all the same.
        let _ordinary = rustix::process::setpriority_process(None, LOWEST_PRIORITY);
        // Who asked may have stopped waiting.
        let _unheard = sender.send(work());
    })?;
    done.await.map_err(std::io::Error::other)
}

/// setpriority(2).
const LOWEST_PRIORITY: i32 = 19;

/// A running child. Dropping it kills it and its process group.
#[derive(Debug)]
pub struct Child {
    child: tokio::process::Child,
    pid: Option<Pid>,
    stderr: Tail,
    command: String,
}

impl Child {
    /// Its process number, and that of its process group.
    pub fn pid(&self) -> Option<i32> {
        self.pid.map(Pid::as_raw_pid)
    }

    /// Its standard output, once.
    pub fn take_stdout(&mut self) -> Option<tokio::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// The last it wrote to standard error.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// The same of one that has ended, with what was still on its way.
    pub async fn last_stderr(&self) -> String {
        self.stderr.settle().await;
        self.stderr()
    }

    /// Waits until it has ended.
    pub async fn wait(&mut self) -> Result<ExitStatus, Error> {
        let waited = self.child.wait().await;
        waited.map_err(|source| Error::Start { command: self.command.clone(), source })
    }

    /// Waits until it has ended, which has to be with success.
    pub async fn success(mut self) -> Result<(), Error> {
        let status = self.wait().await?;
        if status.success() {
            return Ok(());
        }
        Err(Error::Failed { command: self.command.clone(), status, stderr: self.last_stderr().await })
    }

    /// Ends it and its process group: politely, and after `grace` by force. Returns when it is gone.
    pub async fn end(&mut self, grace: Duration) -> Result<(), Error> {
        self.signal(Signal::TERM);
        if tokio::time::timeout(grace, self.child.wait()).await.is_err() {
            self.signal(Signal::KILL);
        }
        self.wait().await?;
        // What it has started goes with it, a moment later; the pipe is closed when the last of them is gone.
        self.stderr.settle().await;
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid {
            // A group that is gone is as good as one that obeys.
            let _gone = kill_process_group(pid, signal);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Once waited for, the number may belong to somebody else.
        if self.child.id().is_some() {
            self.signal(Signal::KILL);
        }
    }
}

/// The end of what a child writes to standard error.
#[derive(Debug, Clone, Default)]
struct Tail(Arc<Mutex<TailState>>);

#[derive(Debug, Default)]
struct TailState {
    bytes: Vec<u8>,
    closed: bool,
}

impl Tail {
    async fn follow(self, mut pipe: impl AsyncRead + Unpin) {
        let mut buffer = vec![0; STDERR_TAIL];
        while let Ok(n @ 1..) = pipe.read(&mut buffer).await {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.bytes.extend_from_slice(&buffer[..n]);
            let surplus = state.bytes.len().saturating_sub(STDERR_TAIL);
            state.bytes.drain(..surplus);
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
    }

    /// Waits a moment for what is still in the pipe of a child that has ended; a grandchild may hold it open for ever.
    async fn settle(&self) {
        for _ in 0..50 {
            if self.0.lock().unwrap_or_else(PoisonError::into_inner).closed {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn text(&self) -> String {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&state.bytes).trim().to_owned()
    }
}

/// A word as a shell reads it.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Where a program stands in `PATH` or in the folders of system programs, which an ordinary user's `PATH` may lack.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        Program::new("sh").args(["-c", script])
    }

    #[tokio::test]
    async fn a_failure_says_what_the_program_said() {
        let error = shell("echo first; echo 'no such disk' >&2; exit 3").output().await.unwrap_err();
        insta::assert_snapshot!(error, @r"
        `sh -c 'echo first; echo '\''no such disk'\'' >&2; exit 3'` ended with exit status 3:
            no such disk
        ");
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let error = Program::new("no-such-program").run().await.unwrap_err();
        insta::assert_snapshot!(error, @"`no-such-program` is not installed or not in PATH");
    }

    #[tokio::test]
    async fn a_noisy_child_neither_blocks_nor_floods() {
        let error = shell("i=0; while [ $i -lt 20000 ]; do echo line $i >&2; i=$((i+1)); done; exit 1").run().await;
        let Err(Error::Failed { stderr, .. }) = error else { panic!("{error:?}") };
        assert!(stderr.len() <= STDERR_TAIL);
        assert!(stderr.ends_with("line 19999"));
    }

    #[tokio::test]
    async fn ending_a_child_ends_what_it_started_even_if_it_refuses() {
        let mut child = shell("trap '' TERM; sleep 1000 & echo $!; wait; wait").spawn().unwrap();
        let mut stdout = child.take_stdout().unwrap();
        let mut buffer = [0; 32];
        let n = stdout.read(&mut buffer).await.unwrap();
        let grandchild: i32 = std::str::from_utf8(&buffer[..n]).unwrap().trim().parse().unwrap();
        child.end(Duration::from_millis(100)).await.unwrap();
        let grandchild = Pid::from_raw(grandchild).unwrap();
        let is_gone = || {
            let stat = fs_err::read_to_string(format!("/proc/{}/stat", grandchild.as_raw_pid()));
            stat.map_or(true, |stat| stat.contains(") Z"))
        };
        for _ in 0..100 {
            if is_gone() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the grandchild lives on");
    }

    #[test]
    fn command_lines_can_be_pasted() {
        let program = Program::new("qemu-img").args(["convert", "a b", "", "it's", "x=1,y=/z"]);
        assert_eq!(program.command_line(), r"qemu-img convert 'a b' '' 'it'\''s' x=1,y=/z");
    }
}
