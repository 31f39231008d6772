//! Running a program: streamed output, a deadline, its own process group.

use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use goldsmith_agent::MAX_CHUNK;
use goldsmith_agent::message::{Exec, Exit, OpError, OpErrorKind, Stream};
use rustix::process::{Pid, Signal, kill_process_group};

use super::failed;
use crate::server::Shared;

/// How long a program that was told to end may take before it is killed.
const TERMINATION_GRACE: Duration = Duration::from_secs(2);
/// A program may leave a daemon behind that holds its output open. What comes later than this belongs to nobody.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);
/// Stands for "no deadline" where a number is needed.
pub(super) const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What happens to a running program.
pub(crate) enum Event {
    /// The host wants it ended.
    Cancel,
    /// It ended.
    Ended(std::io::Result<ExitStatus>),
    /// One of its outputs was closed.
    Closed,
}

/// Runs a program to its end and sends what it writes.
pub(crate) fn run(shared: &Shared, id: u32, exec: Exec) -> Result<Exit, OpError> {
    let Some((program, arguments)) = exec.argv.split_first() else {
        return Err(OpError { kind: OpErrorKind::Other, message: "no program was named".to_owned() });
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(exec.env)
        .current_dir(&exec.cwd)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let Started { mut child, group, events, inbox } = start(shared, id, program, &mut command)?;
    if let Some(stdout) = child.stdout.take() {
        pump(shared.clone(), id, Stream::Stdout, stdout, events.clone());
    }
    if let Some(stderr) = child.stderr.take() {
        pump(shared.clone(), id, Stream::Stderr, stderr, events.clone());
    }
    std::thread::spawn(move || drop(events.send(Event::Ended(child.wait()))));
    let timeout = exec.timeout_ms.map_or(FOREVER, Duration::from_millis);
    let exit = supervise(&inbox, group, 2, Instant::now() + timeout);
    shared.unregister(id);
    exit.map_err(|error| failed(program, &error))
}

/// A program that has started, and what happens to it.
pub(super) struct Started {
    pub(super) child: Child,
    pub(super) group: Option<Pid>,
    pub(super) events: Sender<Event>,
    pub(super) inbox: Receiver<Event>,
}

/// Starts a program that can be cancelled. It is known before it starts, so that none starts that nobody would end.
pub(super) fn start(shared: &Shared, id: u32, program: &str, command: &mut Command) -> Result<Started, OpError> {
    let (events, inbox) = mpsc::channel();
    shared.register(id, events.clone());
    let child = command.spawn().map_err(|error| {
        shared.unregister(id);
        failed(program, &error)
    })?;
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    Ok(Started { child, group, events, inbox })
}

/// Follows a program until it has ended and its outputs are closed, or have had the time to be.
pub(super) fn supervise(
    inbox: &Receiver<Event>,
    group: Option<Pid>,
    mut open_outputs: usize,
    mut deadline: Instant,
) -> std::io::Result<Exit> {
    let mut killing = false;
    let mut exit = None;
    loop {
        if let (Some(exit), 0) = (exit, open_outputs) {
            return Ok(exit);
        }
        match inbox.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Event::Closed) => open_outputs -= 1,
            Ok(Event::Ended(status)) => {
                let status = status?;
                if killing {
                    // The leader has obeyed; what it has started may not have.
                    signal(group, Signal::KILL);
                }
                exit = Some(if killing { Exit::Killed } else { describe(status) });
                deadline = Instant::now() + OUTPUT_GRACE;
            }
            Ok(Event::Cancel) if exit.is_none() && !killing => deadline = Instant::now(),
            Ok(Event::Cancel) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(exit.unwrap_or(Exit::Killed)),
            Err(RecvTimeoutError::Timeout) => {
                if let Some(exit) = exit {
                    return Ok(exit);
                }
                signal(group, if killing { Signal::KILL } else { Signal::TERM });
                killing = true;
                deadline = Instant::now() + TERMINATION_GRACE;
            }
        }
    }
}

fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // The group may be gone already, and that is what was wanted.
        let _gone = kill_process_group(group, signal);
    }
}

fn describe(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Killed,
    }
}

/// Sends what comes out of a pipe until it is closed.
pub(super) fn pump(
    shared: Shared,
    id: u32,
    stream: Stream,
    mut pipe: impl Read + Send + 'static,
    events: Sender<Event>,
) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; MAX_CHUNK];
        loop {
            match pipe.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) if shared.output(id, stream, &buffer[..n]).is_ok() => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        drop(events.send(Event::Closed));
    });
}
