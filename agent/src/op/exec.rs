//! Running a program: streamed output, a deadline, its own process group.

use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
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
    let flow = Arc::new(Flow::default());
    if let Some(stdout) = child.stdout.take() {
        pump(shared.clone(), id, Stream::Stdout, stdout, (events.clone(), flow.clone()));
    }
    if let Some(stderr) = child.stderr.take() {
        pump(shared.clone(), id, Stream::Stderr, stderr, (events.clone(), flow.clone()));
    }
    std::thread::spawn(move || drop(events.send(Event::Ended(child.wait()))));
    let timeout = exec.timeout_ms.map_or(FOREVER, Duration::from_millis);
    let exit = supervise(&inbox, group, (2, &flow), Instant::now() + timeout);
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
    let child = spawn(command).map_err(|error| {
        shared.unregister(id);
        failed(program, &error)
    })?;
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    Ok(Started { child, group, events, inbox })
}

/// What of the agent the kernel looks at when memory is short.
const SCORE: &str = "/proc/self/oom_score_adj";

/// Starts a program that the kernel may end as any other when memory is short. The agent itself is the last to go, and its
/// children would inherit that: then the guest's services would go for a program's hunger.
fn spawn(command: &mut Command) -> std::io::Result<Child> {
    static SPAWNING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = SPAWNING.lock().unwrap_or_else(PoisonError::into_inner);
    let score = std::fs::read_to_string(SCORE).ok().filter(|score| score.starts_with('-'));
    // Where it can't be changed, it was not set either.
    let set = |score: &str| drop(std::fs::write(SCORE, score.trim()));
    if score.is_some() {
        set("0");
    }
    let child = command.spawn();
    if let Some(score) = score {
        set(&score);
    }
    child
}

/// Bytes of its own that may be on their way when a program has ended: two full pipes, and what was read of them.
const OWN_OUTPUT: u64 = 2 * (64 << 10) + 2 * MAX_CHUNK as u64;

/// How a program's outputs get to the host.
#[derive(Default)]
pub(super) struct Flow {
    /// How many of them wait for the host to listen.
    waiting: AtomicUsize,
    /// Bytes that it has heard.
    sent: AtomicU64,
}

impl Flow {
    fn send<E>(&self, bytes: usize, send: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let sent = send();
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        sent
    }
}

/// Follows a program until it has ended and its outputs are closed, or have had the time to be.
pub(super) fn supervise(
    inbox: &Receiver<Event>,
    group: Option<Pid>,
    (mut open_outputs, flow): (usize, &Flow),
    mut deadline: Instant,
) -> std::io::Result<Exit> {
    let (mut killing, mut exit, mut most, mut heard) = (false, None, 0, 0);
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
                heard = flow.sent.load(Ordering::Relaxed);
                most = heard + OWN_OUTPUT;
            }
            Ok(Event::Cancel) if exit.is_none() && !killing => deadline = Instant::now(),
            Ok(Event::Cancel) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(exit.unwrap_or(Exit::Killed)),
            Err(RecvTimeoutError::Timeout) => {
                if let Some(exit) = exit {
                    // A host that does not listen for a while still gets what the program itself has written.
                    let (is_waiting, sent) =
                        (flow.waiting.load(Ordering::Relaxed) > 0, flow.sent.load(Ordering::Relaxed));
                    if (is_waiting || sent != heard) && sent < most {
                        heard = sent;
                        deadline = Instant::now() + OUTPUT_GRACE;
                        continue;
                    }
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
    (events, flow): (Sender<Event>, Arc<Flow>),
) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; MAX_CHUNK];
        loop {
            match pipe.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) if flow.send(n, || shared.output(id, stream, &buffer[..n])).is_ok() => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        drop(events.send(Event::Closed));
    });
}
