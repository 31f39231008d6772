//! A running guest: a machine with our agent in it, and what can be asked of it.
//!
//! ```text
//!   boot ──agent greets──► settle ──► exec, files, … ──► power_off
//!              │              ▲             │
//!              │              └── reboot ◄──┘   the agent comes back on the same port with another boot id
//!              └ AgentSilent                 whatever ends the machine ends what is being waited for: Error::Ended
//! ```

pub mod channel;
pub mod clean;
pub mod failure;
mod files;
mod here;
mod packages;
pub mod seed;
pub mod site;
pub mod terminal;
mod wait;

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use goldsmith_agent::message::{Exec, Exit, Hello, OpError, Stream};

use crate::machine::accelerator::Accelerator;
use crate::machine::{self, End, Machine, Qemu, Spec, checkpoint, console};
use channel::Agent;
use failure::{Console, Seen, Sign};
use here::Here;
pub use wait::SystemState;

/// Why a guest did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine could not be started or controlled.
    #[error(transparent)]
    Machine(#[from] machine::Error),
    /// The machine ended, or can't go on.
    #[error("{}", describe_end(end, seen.as_ref(), console))]
    Ended {
        /// How.
        end: End,
        /// What the console shows, by its name.
        seen: Option<Seen>,
        /// The last lines of the console.
        console: Vec<String>,
    },
    /// The machine's memory could not be written or read.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The agent never greeted.
    #[error("the guest's agent did not answer within {} s{}", after.as_secs(), describe_console(seen.as_ref(), console))]
    AgentSilent {
        /// How long it was waited for.
        after: Duration,
        /// What the console shows, by its name.
        seen: Option<Seen>,
        /// The last lines of the console.
        console: Vec<String>,
    },
    /// The agent went away while it worked: the guest was rebooted, or the agent was killed.
    #[error("the connection to the guest's agent was lost; the guest was restarted or its agent ended")]
    Lost,
    /// The system is up, and some of it is not.
    #[error("{0}")]
    Degraded(String),
    /// The agent could not do it.
    #[error("{}", .0.message)]
    Refused(OpError),
    /// Only a machine could do it, and there is none: everything runs on this host itself.
    #[error("{what} takes a machine, and this runs on the host itself; run it in one: `--in PARENT`")]
    NoMachine {
        /// What.
        what: &'static str,
    },
    /// What was to be written to the guest can't be read on the host.
    #[error("a file for the guest can't be read")]
    Source(#[source] std::io::Error),
    /// This host gives no place for what no disk may hold.
    #[error("scripts with secrets take a folder in `{folder}`, which can't be made")]
    Memory {
        /// Where.
        folder: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The agent can't be started on this host.
    #[error("the agent can't be set up and started")]
    Agent {
        /// Why.
        source: std::io::Error,
    },
    /// The agent is another version's, or says what it should not.
    #[error("the guest's agent can't be understood: {0}")]
    Protocol(String),
}

impl Error {
    /// Whether a kernel gave up because its timer stood still, which happens where the host's processors have much else to
    /// do and each interrupt is emulated: Linux, `check_timer` in `arch/x86/kernel/apic/io_apic.c`.
    fn is_of_a_busy_host(&self) -> bool {
        matches!(self, Self::Ended { end: End::Panicked, seen: Some(seen), .. } if seen.line.contains("IO-APIC + timer doesn't work"))
    }
}

fn describe_end(end: &End, seen: Option<&Seen>, console: &[String]) -> String {
    let what = match end {
        End::PoweredOff => "the guest powered itself off".to_owned(),
        End::Panicked => "the guest's kernel panicked".to_owned(),
        End::HostDisk { full: true } => "the host's disk is full; the guest's disk can't be written".to_owned(),
        End::HostDisk { full: false } => "the host can't read or write the guest's disk".to_owned(),
        End::Died { stderr } if stderr.is_empty() => "QEMU was killed".to_owned(),
        End::Died { stderr } => format!("QEMU died: {stderr}"),
    };
    match end {
        End::HostDisk { .. } => what,
        _ => what + &describe_console(seen, console),
    }
}

fn describe_console(seen: Option<&Seen>, console: &[String]) -> String {
    let mut text = String::new();
    if let Some(Seen { sign, line }) = seen {
        text.push_str(&format!(": {} (`{line}`)", sign.name));
    }
    if !console.is_empty() {
        text.push_str("\nthe last lines of its console:");
        for line in console {
            text.push_str("\n    ");
            text.push_str(line);
        }
    }
    text
}

/// A file system that every guest has in memory.
const IN_MEMORY: &str = "/run";
/// How often a machine is started that the host leaves no time for.
const BOOTS: u32 = 3;
/// Lines of the console that go into an error.
const CONSOLE_LINES: usize = 12;
/// How long after its deadline a program's end may take to be reported: it is told to end, and killed two seconds later.
pub(crate) const REPORT_GRACE: Duration = Duration::from_secs(60);
/// How long after its agent's port was closed a machine's end may become known.
const END_NEWS: Duration = Duration::from_secs(2);
/// How long a guest may take from its last program's end to power-off, with KVM.
const POWER_OFF_DEADLINE: Duration = Duration::from_secs(60);
/// How long QEMU may take to write out its disk, of which it keeps a few MiB at most; a busy disk may take its time.
const CLOSE_DEADLINE: Duration = Duration::from_secs(600);
/// How long an idle guest's answer may take, with KVM: only a stuck guest takes longer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// A running guest.
#[derive(Debug)]
pub struct Guest {
    body: Body,
    agent: Agent,
    /// How many times longer than with KVM everything may take.
    patience: u32,
    /// Takes out of the console's lines what errors must not show.
    mask: OnceLock<Mask>,
}

/// Takes out of a text what must not be shown.
struct Mask(Box<dyn Fn(&str) -> String + Send + Sync>);

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mask")
    }
}

/// What the agent runs in.
#[derive(Debug)]
enum Body {
    Machine { machine: Box<Machine>, console: Console },
    Here(Box<Here>),
}

impl Guest {
    fn new(body: Body, agent: Agent, patience: u32) -> Self {
        Self { body, agent, patience, mask: OnceLock::new() }
    }

    /// From now on, whatever errors quote of the console is masked by this first: what the guest is given from now on may
    /// be shown there by its programs. It can be said once.
    pub fn mask_console_with(&self, mask: impl Fn(&str) -> String + Send + Sync + 'static) {
        let _said_before = self.mask.set(Mask(Box::new(mask)));
    }

    /// A folder that no disk holds, for what must not reach one.
    pub fn memory_folder(&self) -> String {
        match &self.body {
            Body::Machine { .. } => IN_MEMORY.to_owned(),
            Body::Here(here) => here.memory().to_owned(),
        }
    }

    /// Starts a machine and waits until its agent greets, at most for `deadline`. An emulated machine that the host left no
    /// time for is started again: so early its kernel has touched no disk.
    pub async fn boot(qemu: &Qemu, spec: &Spec, folder: &Path, deadline: Duration) -> Result<Self, Error> {
        for attempt in 1..BOOTS {
            let booted = Self::boot_once(qemu, spec, folder, deadline).await;
            let is_again = match &booted {
                Err(error) => error.is_of_a_busy_host() && spec.accelerator == Accelerator::Tcg,
                Ok(_) => false,
            };
            // Else the next machine's console would begin with this one's panic.
            let aside = spec.console_log.with_extension(format!("{attempt}.log"));
            if !is_again || fs_err::rename(&spec.console_log, aside).is_err() {
                return booted;
            }
            tracing::warn!(attempt, "the host left the guest's kernel no time; it is started again");
        }
        Self::boot_once(qemu, spec, folder, deadline).await
    }

    async fn boot_once(qemu: &Qemu, spec: &Spec, folder: &Path, deadline: Duration) -> Result<Self, Error> {
        let mut machine = qemu.start(spec, folder).await?;
        let console = Console::follow(machine.console_log());
        let stream = machine.take_agent().ok_or_else(|| Error::Protocol("the agent's port is in use".to_owned()))?;
        let agent = Agent::connect(stream, machine.port_closings());
        let patience = spec.accelerator.patience();
        let guest = Self::new(Body::Machine { machine: Box::new(machine), console }, agent, patience);
        match guest.greeted(deadline).await {
            Ok(_hello) => Ok(guest),
            Err(error) => {
                guest.finish().await;
                Err(error)
            }
        }
    }

    /// Starts a machine from a checkpoint. Its agent answers within milliseconds, so `deadline` is for a checkpoint
    /// that is of no use.
    pub async fn restore(
        qemu: &Qemu,
        spec: &Spec,
        memory: &Path,
        folder: &Path,
        deadline: Duration,
    ) -> Result<Self, Error> {
        let spec = Spec { incoming: true, ..spec.clone() };
        let mut machine = qemu.start(&spec, folder).await?;
        let console = Console::follow(machine.console_log());
        let stream = machine.take_agent().ok_or_else(|| Error::Protocol("the agent's port is in use".to_owned()))?;
        tracing::debug!("QEMU is here");
        if let Err(error) = machine.restore(memory).await {
            machine.finish().await;
            return Err(error.into());
        }
        tracing::debug!("the memory is here");
        let agent = Agent::take_over(stream, machine.port_closings());
        let patience = spec.accelerator.patience();
        let guest = Self::new(Body::Machine { machine: Box::new(machine), console }, agent, patience);
        guest.greeted(deadline).await?;
        guest.awake().await?;
        tracing::debug!("the guest is awake");
        Ok(guest)
    }

    /// Has a paused guest run again, with the right time.
    pub async fn resume(&self) -> Result<(), Error> {
        self.machine()?.resume().await.map_err(machine::Error::from)?;
        self.awake().await
    }

    /// Waits for the agent of this boot.
    async fn greeted(&self, deadline: Duration) -> Result<Hello, Error> {
        let hello = self.unless_ended(async { Ok(tokio::time::timeout(deadline, self.agent.hello()).await) }).await?;
        let hello = hello.map_err(|_| self.silent(deadline))??;
        tracing::debug!(?hello, "the agent is here");
        Ok(hello)
    }

    /// The machine, for what only its control connection can do.
    pub fn machine(&self) -> Result<&Machine, Error> {
        match &self.body {
            Body::Machine { machine, .. } => Ok(machine),
            Body::Here(_) => Err(Error::NoMachine { what: "this" }),
        }
    }

    /// Whether it can be restarted.
    pub fn can_restart(&self) -> bool {
        matches!(self.body, Body::Machine { .. })
    }

    /// What the console has shown so far that has a name, the newest last.
    pub fn signs(&self) -> Vec<&'static Sign> {
        let Body::Machine { console, .. } = &self.body else { return Vec::new() };
        console.seen().into_iter().map(|seen| seen.sign).collect()
    }

    /// Runs a program to its end. What it writes goes to `output` as it comes.
    pub async fn exec(&self, exec: Exec, output: impl FnMut(Stream, &[u8])) -> Result<Exit, Error> {
        self.unless_ended(self.agent.exec(exec, output)).await
    }

    /// Runs a program of the guest's system to its end, in the root folder and with a plain environment, and returns
    /// how it ended and what it wrote to standard output.
    pub async fn ask(&self, argv: &[&str]) -> Result<(Exit, String), Error> {
        self.ask_within(argv, ANSWER_DEADLINE).await
    }

    /// As [`Guest::ask`], for programs that may take longer. The deadline is for KVM.
    pub async fn ask_within(&self, argv: &[&str], deadline: Duration) -> Result<(Exit, String), Error> {
        let (exit, stdout) = self.collect(argv, deadline, ASK_LIMIT).await?;
        Ok((exit, String::from_utf8_lossy(&stdout).into_owned()))
    }

    /// As [`Guest::ask_within`], for answers that are no text. What is written after `limit` bytes is dropped.
    pub async fn collect(&self, argv: &[&str], deadline: Duration, limit: usize) -> Result<(Exit, Vec<u8>), Error> {
        let timeout = deadline * self.patience;
        let exec = Exec {
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            env: plain_environment(),
            cwd: "/".to_owned(),
            timeout_ms: u64::try_from(timeout.as_millis()).ok(),
        };
        let mut stdout = Vec::new();
        let running = self.exec(exec, |stream, data| {
            if stream == Stream::Stdout {
                stdout.extend(&data[..data.len().min(limit - stdout.len())]);
            }
        });
        let exit = self.reported_within(timeout, running).await?;
        Ok((exit, stdout))
    }

    /// Waits for a program's end, which the agent reports soon after `timeout` at the latest. An agent that does not is
    /// silent.
    pub async fn reported_within<T>(
        &self,
        timeout: Duration,
        running: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let deadline = timeout + REPORT_GRACE;
        tokio::time::timeout(deadline, running).await.unwrap_or_else(|_| Err(self.silent(deadline)))
    }

    /// Restarts the guest and waits until its agent greets again, at most for `deadline`.
    pub async fn reboot(&self, deadline: Duration) -> Result<(), Error> {
        if !self.can_restart() {
            return Err(Error::NoMachine { what: "a restart" });
        }
        let before = self.agent.hello().await?;
        // The answer may be cut off by what was asked for.
        match self.ask(&["systemctl", "reboot"]).await {
            Err(Error::Refused(_)) => drop(self.ask(&["reboot"]).await),
            Err(error @ Error::Ended { .. }) => return Err(error),
            _ => {}
        }
        self.restarted(&before, deadline).await
    }

    /// Waits until the guest, which is restarting by itself, is back.
    pub async fn restarted(&self, before: &Hello, deadline: Duration) -> Result<(), Error> {
        let another = async { Ok(tokio::time::timeout(deadline, self.agent.hello_after(&before.boot_id)).await) };
        self.unless_ended(another).await?.map_err(|_| self.silent(deadline))?.map(drop)
    }

    /// Which boot this is, while an agent is attached.
    pub fn boot_id(&self) -> Option<String> {
        match &self.body {
            Body::Machine { .. } => self.agent.boot_id(),
            _ => None,
        }
    }

    /// Waits until an agent is attached again, after one was lost. On the host itself none comes back.
    pub async fn reattached(&self, deadline: Duration) -> Result<(), Error> {
        if !self.can_restart() {
            return Err(Error::Lost);
        }
        self.greeted(deadline).await.map(drop)
    }

    /// What to say of an agent that does not answer.
    pub fn silent(&self, after: Duration) -> Error {
        let (seen, console) = self.evidence();
        Error::AgentSilent { after, seen, console }
    }

    /// Powers the guest off and waits until QEMU has ended.
    ///
    /// Services that matter have been stopped before, so nobody is asked: the agent ends what runs, has the kernel make all
    /// file systems read-only, and switches off. That leaves them as clean as systemd does, which takes a second more where
    /// a guest is emulated.
    pub async fn power_off(self) -> Result<(), Error> {
        if !self.can_restart() {
            return Err(Error::NoMachine { what: "powering off" });
        }
        match self.power_off_at_once().await {
            Err(Error::Ended { end: End::PoweredOff, .. } | Error::Lost) => {}
            // A kernel without what it takes.
            Err(Error::Refused(error)) => {
                tracing::debug!(error.message, "the guest is powered off by its own init");
                drop(self.ask(&["poweroff"]).await);
            }
            Err(error) => return Err(error),
            Ok(()) => {}
        }
        let end = tokio::time::timeout(POWER_OFF_DEADLINE * self.patience, self.machine()?.ended()).await;
        let result = match end {
            Ok(End::PoweredOff) => {
                tracing::debug!("the guest has powered off");
                // QEMU still writes out its disk; only then is the file what the guest has left.
                self.machine()?.closed(CLOSE_DEADLINE).await.map_err(Error::from)
            }
            Ok(end) => Err(self.ended_error(end)),
            Err(_) => Err(self.silent(POWER_OFF_DEADLINE * self.patience)),
        };
        self.finish().await;
        result
    }

    /// Ends the machine, whatever the guest is doing.
    pub async fn finish(self) {
        match self.body {
            Body::Machine { machine, .. } => machine.finish().await,
            Body::Here(here) => {
                drop(self.agent);
                here.finish().await;
            }
        }
    }

    /// Waits for something of the guest, or for the machine's end.
    async fn unless_ended<T>(&self, wanted: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        tokio::select! {
            biased;
            // A machine that ends closes the agent's port a moment before its end is known.
            result = wanted => match result {
                Err(Error::Lost) => Err(tokio::time::timeout(END_NEWS, self.end()).await.unwrap_or(Error::Lost)),
                result => result,
            },
            error = self.end() => Err(error),
        }
    }

    /// Waits until the machine has ended or can't go on.
    async fn end(&self) -> Error {
        let Body::Machine { machine, console } = &self.body else { return std::future::pending().await };
        let end = tokio::select! {
            end = machine.ended() => end,
            () = console.panicked() => End::Panicked,
        };
        if end == End::Panicked {
            // The rest of the panic's message is still on its way.
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        self.ended_error(end)
    }

    fn ended_error(&self, end: End) -> Error {
        let (seen, console) = self.evidence();
        Error::Ended { end, seen, console }
    }

    fn evidence(&self) -> (Option<Seen>, Vec<String>) {
        let Body::Machine { machine, console } = &self.body else { return (None, Vec::new()) };
        let seen = console.seen();
        let console = console::tail(machine.console_log(), CONSOLE_LINES);
        // What ended the guest says more than what came of it.
        let fatal = seen.iter().rfind(|seen| seen.sign.is_fatal);
        let mask = |line: &str| self.mask.get().map_or_else(|| line.to_owned(), |Mask(mask)| mask(line));
        let seen = fatal.or(seen.last()).map(|seen| Seen { sign: seen.sign, line: mask(&seen.line) });
        (seen, console.iter().map(|line| mask(line)).collect())
    }
}

/// What [`Guest::ask`] keeps of an answer, in bytes.
const ASK_LIMIT: usize = 1 << 20;

/// The environment of root's programs when nobody has logged in.
pub fn plain_environment() -> Vec<(String, String)> {
    let variables = [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/root"),
        ("LANG", "C.UTF-8"),
    ];
    variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_timer_that_stood_still_is_the_hosts_fault() {
        let panicked = |line: &str| {
            let sign = failure::on_console("Kernel panic - not syncing").unwrap();
            let seen = Some(Seen { sign, line: line.to_owned() });
            Error::Ended { end: End::Panicked, seen, console: Vec::new() }.is_of_a_busy_host()
        };
        assert!(panicked(
            "[    0.000000] Kernel panic - not syncing: IO-APIC + timer doesn't work!  Boot with apic=debug"
        ));
        assert!(!panicked("[    1.2] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"));
    }
}
