//! One QEMU machine: its command line, its process, its control connection.
//!
//! ```text
//!   Spec ──arguments──► QEMU starts ──greeting──► Machine (running or paused)
//!                          │                          │ guest powers off ─────► End::PoweredOff
//!                          │                          │ guest kernel panics ──► End::Panicked
//!                          │ no greeting              │ host's disk is full ──► End::HostDisk
//!                          ▼                          │ QEMU dies ────────────► End::Died
//!                      Error::Start                   └ dropped or ended ─────► (killed)
//! ```
//!
//! A [`Machine`] owns the QEMU process: dropping it kills QEMU. One task watches the process and QEMU's events and
//! publishes the first [`End`]; whoever waits for something of the guest waits for that too.

pub mod accelerator;
mod argv;
pub mod checkpoint;
pub mod console;
pub mod firmware;
pub mod hotplug;
pub mod isolation;
pub mod qmp;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use fs_err as fs;
use serde_json::json;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};

use crate::document::recipe::Reach;
use crate::host::process::{self, Child, Program};
use accelerator::Accelerator;
use firmware::Firmware;
use isolation::Isolation;
use qmp::Qmp;

/// QEMU greets within milliseconds; a host that swaps or compiles may take its time.
const GREETING_DEADLINE: Duration = Duration::from_secs(30);
/// How long QEMU may take to end when told to.
const END_GRACE: Duration = Duration::from_secs(3);

/// The machine that is wanted.
#[derive(Debug, Clone)]
pub struct Spec {
    /// What runs the guest's instructions.
    pub accelerator: Accelerator,
    /// QEMU's name of a processor; the host's own or an emulated baseline unless given.
    pub cpu_model: Option<String>,
    /// Number of processors.
    pub cpus: u32,
    /// Memory in bytes, a multiple of a MiB.
    pub memory: u64,
    /// What the machine boots with.
    pub firmware: Firmware,
    /// A qcow2 that the machine writes to.
    pub disk: PathBuf,
    /// How the machine sees it.
    pub disk_bus: DiskBus,
    /// A raw disk that it can read.
    pub seed: Option<PathBuf>,
    /// Address of its network card.
    pub mac: Mac,
    /// What it reaches by it.
    pub reach: Reach,
    /// Ports of the host's loopback that lead into the guest.
    pub forwards: Vec<Forward>,
    /// File that all that the guest writes to its serial console is added to.
    pub console_log: PathBuf,
    /// Whether a person is connected to the console.
    pub attach_console: bool,
    /// Whether it waits before its first instruction.
    pub paused: bool,
    /// Whether it waits for a checkpoint's memory instead of starting: [`Machine::restore`].
    pub incoming: bool,
}

/// How a machine sees its disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DiskBus {
    /// As most hypervisors for Linux show it.
    #[default]
    Virtio,
    /// As EC2's Nitro shows it.
    Nvme,
}

/// Address of a network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// A random address in QEMU's range.
    pub fn random() -> Self {
        let random = uuid::Uuid::new_v4().into_bytes();
        Self([0x52, 0x54, 0x00, random[0], random[1], random[2]])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A TCP port of the host's loopback that leads to one of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// On the host.
    pub host: u16,
    /// In the guest.
    pub guest: u16,
}

/// Why there is no machine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// QEMU is not installed.
    #[error("QEMU for x86-64 machines is not installed: none of {} was found", PROGRAMS.join(", "))]
    NoQemu,
    /// A file or socket in the run's folder could not be made.
    #[error("the machine's folder can't be prepared")]
    Folder(#[source] io::Error),
    /// QEMU did not start.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// QEMU ended instead of greeting.
    #[error("QEMU ended at once{}", indented(stderr))]
    Start {
        /// What it said.
        stderr: String,
    },
    /// The guest can't be held to some hosts.
    #[error("guests can't be held to a list of hosts: {why}")]
    Restriction {
        /// Why, and what would mend it.
        why: String,
    },
    /// QEMU does not get done with its disk.
    #[error(
        "QEMU has not closed its disk {} s after the guest powered off, so not all of it may be written: the host's disk \
         is too slow, or busy",
        after.as_secs()
    )]
    NotClosed {
        /// How long it was waited for.
        after: Duration,
    },
    /// QEMU's control connection failed.
    #[error(transparent)]
    Qmp(#[from] qmp::Error),
}

fn indented(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {}", text.replace('\n', "\n    ")) }
}

/// How a machine ended, or what stopped it for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The guest powered it off.
    PoweredOff,
    /// The guest's kernel panicked.
    Panicked,
    /// The host could not write the guest's disk.
    HostDisk {
        /// Whether because its own disk is full.
        full: bool,
    },
    /// QEMU died.
    Died {
        /// Its last words.
        stderr: String,
    },
}

const PROGRAMS: [&str; 3] = ["qemu-system-x86_64", "/usr/libexec/qemu-kvm", "/usr/bin/qemu-kvm"];

/// The QEMU of this host.
#[derive(Debug, Clone)]
pub struct Qemu {
    program: PathBuf,
    has_sandbox: bool,
    /// Whether and how guests are kept from the host.
    pub isolation: Isolation,
}

impl Qemu {
    /// Finds QEMU and what it and the host can do.
    pub async fn find() -> Result<Self, Error> {
        let found = PROGRAMS.iter().find_map(|program| process::find(program));
        let program = found.ok_or(Error::NoQemu)?;
        // `-sandbox` can't be asked for by QMP: whoever asks runs already, without it.
        let help = Program::new(&program).arg("-help").output().await?;
        let has_sandbox = String::from_utf8_lossy(&help).contains("-sandbox on");
        Ok(Self { program, has_sandbox, isolation: Isolation::find().await })
    }

    /// Where it is.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Whether it was built with its seccomp sandbox.
    pub fn has_sandbox(&self) -> bool {
        self.has_sandbox
    }

    /// Its version, asked of a QEMU without a machine.
    pub async fn ask_version(&self) -> Result<qmp::Version, Error> {
        let folder = tempfile::tempdir().map_err(Error::Folder)?;
        let control = listen(folder.path(), argv::QMP_SOCKET).map_err(Error::Folder)?;
        let program = Program::new(&self.program).in_folder(folder.path());
        let mut child = program.args(argv::without_machine()).spawn()?;
        let connect = async {
            let (control, _) = control.accept().await.map_err(Error::Folder)?;
            Ok::<_, Error>(Qmp::negotiate(control).await?.0.version())
        };
        let version = tokio::select! {
            version = tokio::time::timeout(GREETING_DEADLINE, connect) => version,
            _ended = child.wait() => Ok(Err(Error::Start { stderr: child.stderr() })),
        };
        child.end(END_GRACE).await?;
        version.unwrap_or_else(|_| Err(Error::Start { stderr: child.stderr() }))
    }

    /// All that a memory file of such a machine depends on, as text: this very QEMU, its arguments without the names of
    /// files, the firmware, and with KVM the host's processor and kernel.
    pub fn signature(&self, spec: &Spec) -> io::Result<String> {
        let spec = Spec {
            disk: "disk".into(),
            seed: spec.seed.as_ref().map(|_| "seed".into()),
            console_log: "console".into(),
            incoming: false,
            ..spec.clone()
        };
        let mut parts = argv::arguments(&spec, self.has_sandbox);
        parts.push(identity(&self.program)?);
        if let Firmware::Uefi { code, variables } = &spec.firmware {
            parts.extend([identity(code)?, identity(variables)?]);
        }
        if spec.accelerator == Accelerator::Kvm {
            parts.push(accelerator::processor());
        }
        Ok(parts.join("\n"))
    }

    /// Starts a machine. Its sockets and logs go into `folder`, where QEMU runs.
    pub async fn start(&self, spec: &Spec, folder: &Path) -> Result<Machine, Error> {
        if let Firmware::Uefi { variables, .. } = &spec.firmware {
            let copy = folder.join(argv::UEFI_VARIABLES);
            fs::copy(variables, &copy).map_err(Error::Folder)?;
            fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o600)).map_err(Error::Folder)?;
        }
        let listen = |name| listen(folder, name).map_err(Error::Folder);
        let control = listen(argv::QMP_SOCKET)?;
        let agent = listen(argv::AGENT_SOCKET)?;
        let console = if spec.attach_console { Some(listen(argv::CONSOLE_SOCKET)?) } else { None };
        let arguments = argv::arguments(spec, self.has_sandbox);
        // An emulated machine gains little from large pages, and a restored one touches a few of each.
        let small_pages = spec.incoming && spec.accelerator == Accelerator::Tcg;
        let program = Program::new(&self.program).args(arguments).in_folder(folder).with_small_pages(small_pages);
        let ports: Vec<u16> = spec.forwards.iter().map(|forward| forward.host).collect();
        let wrapped = match &spec.reach {
            Reach::Restricted(hosts) => self.isolation.wrap_restricted(&program, &ports, hosts).await?,
            Reach::Full | Reach::None => self.isolation.wrap(&program, &ports),
        };
        let mut child = wrapped.spawn()?;
        let greeted = greet(&mut child, &control, &agent, console.as_ref()).await;
        let Greeted { qmp, events, agent, console } = match greeted {
            Ok(greeted) => greeted,
            Err(error) => {
                child.end(END_GRACE).await?;
                return Err(error);
            }
        };
        let (end_sender, end) = watch::channel(None);
        let (port_sender, port) = watch::channel(0);
        let (stop, stopped) = mpsc::channel(1);
        tokio::spawn(Watcher { child, events, end: end_sender, port: port_sender, stopped }.watch());
        Ok(Machine {
            qmp,
            end,
            port,
            stop,
            agent: Some(agent),
            console,
            folder: folder.to_owned(),
            overlays: AtomicU32::new(0),
            log: spec.console_log.clone(),
            command_line: program.command_line(),
        })
    }
}

/// Listens in the run's folder. A socket's path may have 107 bytes, and a store's path more, so it is named relative to
/// an open folder.
fn listen(folder: &Path, name: &str) -> io::Result<UnixListener> {
    use std::os::fd::AsRawFd;
    let _absent = fs::remove_file(folder.join(name));
    let open = fs::File::open(folder)?;
    UnixListener::bind(format!("/proc/self/fd/{}/{name}", open.file().as_raw_fd()))
}

/// Connects to what QEMU listens on in the run's folder.
async fn connect(folder: &Path, name: &str) -> io::Result<UnixStream> {
    use std::os::fd::AsRawFd;
    let open = fs::File::open(folder)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{name}", open.file().as_raw_fd())).await
}

/// A program or firmware that was not replaced since.
fn identity(path: &Path) -> io::Result<String> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path)?;
    let (size, seconds, nanos) = (metadata.size(), metadata.mtime(), metadata.mtime_nsec());
    Ok(format!("{} {size} {seconds}.{nanos}", path.display()))
}

struct Greeted {
    qmp: Qmp,
    events: mpsc::UnboundedReceiver<qmp::Event>,
    agent: UnixStream,
    console: Option<UnixStream>,
}

/// Waits until QEMU has connected all its sockets and greeted, or has ended.
async fn greet(
    child: &mut Child,
    control: &UnixListener,
    agent: &UnixListener,
    console: Option<&UnixListener>,
) -> Result<Greeted, Error> {
    let connect = async {
        let (control, _) = control.accept().await.map_err(Error::Folder)?;
        let (qmp, events) = Qmp::negotiate(control).await?;
        let (agent, _) = agent.accept().await.map_err(Error::Folder)?;
        let console = match console {
            Some(console) => Some(console.accept().await.map_err(Error::Folder)?.0),
            None => None,
        };
        Ok::<_, Error>(Greeted { qmp, events, agent, console })
    };
    tokio::select! {
        connected = tokio::time::timeout(GREETING_DEADLINE, connect) => match connected {
            Ok(Ok(greeted)) => Ok(greeted),
            // QEMU that dies while it connects says why on its standard error.
            Ok(Err(_)) | Err(_) => Err(Error::Start { stderr: child.stderr() }),
        },
        _ended = child.wait() => {
            // What it wrote last may still be in the pipe.
            tokio::time::sleep(Duration::from_millis(50)).await;
            Err(Error::Start { stderr: child.stderr() })
        }
    }
}

/// A running QEMU. Dropping it kills QEMU.
#[derive(Debug)]
pub struct Machine {
    qmp: Qmp,
    end: watch::Receiver<Option<End>>,
    port: watch::Receiver<u64>,
    stop: mpsc::Sender<()>,
    agent: Option<UnixStream>,
    console: Option<UnixStream>,
    folder: PathBuf,
    /// How many were put on its disk since it was started.
    overlays: AtomicU32,
    log: PathBuf,
    command_line: String,
}

impl Machine {
    /// The control connection.
    pub fn qmp(&self) -> &Qmp {
        &self.qmp
    }

    /// The agent's port, once.
    pub fn take_agent(&mut self) -> Option<UnixStream> {
        self.agent.take()
    }

    /// The serial console, once, if a person is to be connected to it.
    pub fn take_console(&mut self) -> Option<UnixStream> {
        self.console.take()
    }

    /// File with all that the guest wrote to its serial console.
    pub fn console_log(&self) -> &Path {
        &self.log
    }

    /// QEMU's command line, to be pasted into a shell.
    pub fn command_line(&self) -> &str {
        &self.command_line
    }

    /// Where the machine's end will be told.
    pub fn end(&self) -> watch::Receiver<Option<End>> {
        self.end.clone()
    }

    /// Changes whenever the guest has closed the agent's port: what it was sending then has no end.
    pub fn port_closings(&self) -> watch::Receiver<u64> {
        self.port.clone()
    }

    /// Waits until it has ended.
    pub async fn ended(&self) -> End {
        let mut end = self.end.clone();
        // The watcher tells an end before it goes.
        let known = end.wait_for(Option::is_some).await.map(|end| end.clone());
        known.ok().flatten().unwrap_or_else(|| End::Died { stderr: String::new() })
    }

    /// Resumes a machine that was paused, or started so.
    pub async fn resume(&self) -> Result<(), qmp::Error> {
        self.qmp.execute("cont", json!({})).await.map(drop)
    }

    /// Gives the machine, once, a qcow2 more, which it can only read. Returns the disk's serial number in the guest, by
    /// which it is found there.
    pub async fn attach_read_only(&self, disk: &Path) -> Result<&'static str, qmp::Error> {
        self.qmp.execute("blockdev-add", argv::read_only_node(argv::SPARE_DISK, disk)).await?;
        let device = json!({ "driver": "virtio-blk-pci", "id": argv::SPARE_DISK, "bus": argv::SPARE_PORT,
                             "drive": argv::SPARE_DISK, "serial": argv::SPARE_DISK });
        self.qmp.execute("device_add", device).await?;
        Ok(argv::SPARE_DISK)
    }

    /// Waits until QEMU, whose guest has powered off, has closed its disk and gone; at most for `deadline`.
    pub async fn closed(&self, deadline: Duration) -> Result<(), Error> {
        tokio::time::timeout(deadline, self.stop.closed()).await.map_err(|_| Error::NotClosed { after: deadline })
    }

    /// Ends QEMU and waits until it is gone.
    pub async fn finish(self) {
        // The watcher may have gone with QEMU already.
        let _gone = self.stop.send(()).await;
        self.stop.closed().await;
    }
}

/// Follows QEMU until it has ended, and publishes the first thing that ends a guest's work.
struct Watcher {
    child: Child,
    events: mpsc::UnboundedReceiver<qmp::Event>,
    end: watch::Sender<Option<End>>,
    port: watch::Sender<u64>,
    stopped: mpsc::Receiver<()>,
}

impl Watcher {
    async fn watch(mut self) {
        loop {
            tokio::select! {
                Some(event) = self.events.recv() => self.note(&event),
                _status = self.child.wait() => {
                    while let Ok(event) = self.events.try_recv() {
                        self.note(&event);
                    }
                    let stderr = self.child.stderr();
                    self.publish(End::Died { stderr });
                    return;
                }
                // Told to stop, or nobody holds the machine any more.
                _told = self.stopped.recv() => {
                    if let Err(error) = self.child.end(END_GRACE).await {
                        tracing::warn!(%error, "QEMU could not be ended");
                    }
                    return;
                }
            }
        }
    }

    fn note(&self, event: &qmp::Event) {
        tracing::debug!(event = event.name, data = %event.data, "QEMU");
        if let Some(end) = judge(event) {
            self.publish(end);
        }
        let is_closing = event.data.get("open") == Some(&serde_json::Value::Bool(false));
        if (event.name == "VSERPORT_CHANGE" && is_closing) || event.name == "RESET" {
            self.port.send_modify(|closings| *closings += 1);
        }
    }

    fn publish(&self, found: End) {
        self.end.send_if_modified(|end| {
            let is_first = end.is_none();
            end.get_or_insert(found);
            is_first
        });
    }
}

fn judge(event: &qmp::Event) -> Option<End> {
    match event.name.as_str() {
        "SHUTDOWN" => match event.data.get("reason").and_then(serde_json::Value::as_str) {
            Some("guest-panic") => Some(End::Panicked),
            Some("guest-shutdown") => Some(End::PoweredOff),
            _ => None,
        },
        "GUEST_PANICKED" => Some(End::Panicked),
        "BLOCK_IO_ERROR" if event.data.get("action")?.as_str()? == "stop" => {
            Some(End::HostDisk { full: event.data.get("nospace").and_then(serde_json::Value::as_bool) == Some(true) })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_end_a_guests_work() {
        let event = |name: &str, data: serde_json::Value| judge(&qmp::Event { name: name.to_owned(), data });
        assert_eq!(event("SHUTDOWN", json!({ "guest": true, "reason": "guest-shutdown" })), Some(End::PoweredOff));
        assert_eq!(event("SHUTDOWN", json!({ "guest": false, "reason": "host-qmp-quit" })), None);
        assert_eq!(event("GUEST_PANICKED", json!({ "action": "pause" })), Some(End::Panicked));
        let error = json!({ "action": "stop", "nospace": true, "reason": "No space left on device" });
        assert_eq!(event("BLOCK_IO_ERROR", error), Some(End::HostDisk { full: true }));
        let error = json!({ "action": "report", "nospace": false });
        assert_eq!(event("BLOCK_IO_ERROR", error), None);
        assert_eq!(event("RTC_CHANGE", json!({})), None);
    }
}
