//! A machine's memory as a file, and a machine from such a file.
//!
//! ```text
//!   running ──pause──► paused ──put_overlay──► its disk is as the memory knows it, and finished
//!                         ├──write_memory────► memory file
//!                         └──resume──────────► running, on the new overlay
//!
//!   -incoming defer ──restore──► running, from the next instruction on
//! ```
//!
//! Source: QEMU's `docs/devel/migration/mapped-ram.rst`, `qapi/migration.json` and `qapi/block-core.json`. With
//! `mapped-ram` every page of the guest has its place in the file, so pages are written and read by several threads and
//! pages of zeroes take no room. QEMU has it since 9.0; an older one sends its memory as a stream over a socket, which is
//! copied to and from the file here. Which of both, is asked of QEMU and not of its version.

use std::path::Path;
use std::time::Duration;

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;
use serde_json::{Value, json};

use super::qmp::{self, Qmp};
use super::{Machine, argv, connect, listen};

/// Threads that write or read memory. More than two gain nothing: the file's pages are in the host's cache.
const CHANNELS: u32 = 2;
/// Reading back a gigabyte takes a quarter of a second.
const POLL: Duration = Duration::from_millis(5);
/// A memory file that takes longer has a disk under it that is no use for this.
const DEADLINE: Duration = Duration::from_secs(600);
/// What QEMU calls the ability.
const MAPPED_RAM: &str = "mapped-ram";
/// Name in the machine's folder of the socket that memory is streamed over.
const STREAM_SOCKET: &str = "memory.sock";

/// Why memory was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be made or read.
    #[error(transparent)]
    File(#[from] std::io::Error),
    /// QEMU refused.
    #[error(transparent)]
    Qmp(#[from] qmp::Error),
    /// QEMU tried and failed.
    #[error("QEMU could not move the machine's memory: {0}")]
    Failed(String),
}

impl Machine {
    /// Stops the machine's processors.
    pub async fn pause(&self) -> Result<(), Error> {
        Ok(self.qmp.execute("stop", json!({})).await.map(drop)?)
    }

    /// Has the machine go on writing to an empty overlay. The disk it has written so far is finished when this returns,
    /// and may be given another name.
    pub async fn put_overlay(&self, overlay: &Path) -> Result<(), Error> {
        let (node, next) = {
            let number = self.overlays.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            (argv::disk_node(number), argv::disk_node(number + 1))
        };
        let mut options = argv::qcow2_node(&next, overlay);
        // Whoever made the overlay has noted in it what it is based on; here it comes from the machine itself.
        options["backing"] = serde_json::Value::Null;
        self.qmp.execute("blockdev-add", options).await?;
        self.qmp.execute("blockdev-snapshot", json!({ "node": node, "overlay": next })).await?;
        Ok(())
    }

    /// Writes the memory of a paused machine to a new file, readable by its owner only.
    pub async fn write_memory(&self, memory: &Path) -> Result<(), Error> {
        let written = self.send_memory(memory).await;
        if written.is_err() {
            // What goes on after a while would stop the machine when it is done.
            self.qmp.execute("migrate_cancel", json!({})).await?;
            ended(&self.qmp).await?;
        }
        settled(&self.qmp).await?;
        written
    }

    async fn send_memory(&self, memory: &Path) -> Result<(), Error> {
        // QEMU itself would make it readable by the group.
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(memory)?;
        if is_able(&self.qmp).await? {
            configure(&self.qmp).await?;
            self.qmp.execute("migrate", json!({ "uri": uri(memory) })).await?;
            return finished(&self.qmp).await;
        }
        let socket = listen(&self.folder, STREAM_SOCKET)?;
        without_limit(&self.qmp).await?;
        self.qmp.execute("migrate", json!({ "uri": format!("unix:{STREAM_SOCKET}") })).await?;
        let copy = async {
            let (mut stream, _) = socket.accept().await?;
            let mut file = fs_err::tokio::File::from_std(file);
            let copied = tokio::io::copy_buf(&mut buffered(&mut stream), &mut file).await;
            tokio::io::AsyncWriteExt::flush(&mut file).await?;
            Ok::<_, Error>(copied.map(drop)?)
        };
        tokio::try_join!(copy, finished(&self.qmp)).map(drop)
    }

    /// Fills the memory of a machine that waits for it, and lets it run.
    pub async fn restore(&self, memory: &Path) -> Result<(), Error> {
        if is_able(&self.qmp).await? {
            configure(&self.qmp).await?;
            self.qmp.execute("migrate-incoming", json!({ "uri": uri(memory) })).await?;
            finished(&self.qmp).await?;
        } else {
            self.qmp.execute("migrate-incoming", json!({ "uri": format!("unix:{STREAM_SOCKET}") })).await?;
            let send = async {
                let mut stream = connect(&self.folder, STREAM_SOCKET).await?;
                let mut file = fs_err::tokio::File::open(memory).await?;
                Ok::<_, Error>(tokio::io::copy_buf(&mut buffered(&mut file), &mut stream).await.map(drop)?)
            };
            // A file that ends too early shows in QEMU's answer.
            tokio::try_join!(send, finished(&self.qmp))?;
        }
        self.resume().await.map_err(Error::Qmp)
    }
}

fn buffered<R: tokio::io::AsyncRead + Unpin>(from: R) -> tokio::io::BufReader<R> {
    tokio::io::BufReader::with_capacity(1 << 20, from)
}

/// Whether this QEMU maps memory to places in a file.
pub(super) async fn is_able(qmp: &Qmp) -> Result<bool, qmp::Error> {
    let known = qmp.execute("query-migrate-capabilities", json!({})).await?;
    let known = known.as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(known.iter().any(|capability| capability["capability"] == MAPPED_RAM))
}

async fn configure(qmp: &Qmp) -> Result<(), qmp::Error> {
    let on = |name: &str| json!({ "capability": name, "state": true });
    let capabilities = json!({ "capabilities": [on(MAPPED_RAM), on("multifd"), on("events")] });
    qmp.execute("migrate-set-capabilities", capabilities).await?;
    qmp.execute("migrate-set-parameters", json!({ "multifd-channels": CHANNELS })).await?;
    without_limit(qmp).await
}

async fn without_limit(qmp: &Qmp) -> Result<(), qmp::Error> {
    qmp.execute("migrate-set-parameters", json!({ "max-bandwidth": 0 })).await.map(drop)
}

fn uri(memory: &Path) -> String {
    format!("file:{}", memory.display())
}

/// Waits until nothing is under way any more.
async fn ended(qmp: &Qmp) -> Result<(), Error> {
    let is_over = |state: &Value| match state["status"].as_str() {
        None | Some("none" | "completed" | "failed" | "cancelled") => Some(Ok(())),
        _ => None,
    };
    poll(qmp, "query-migrate", is_over).await
}

async fn finished(qmp: &Qmp) -> Result<(), Error> {
    let is_done = |state: &Value| match state["status"].as_str() {
        Some("completed") => Some(Ok(())),
        Some("failed" | "cancelled") => {
            let why = state["error-desc"].as_str().unwrap_or("it does not say why");
            Some(Err(Error::Failed(why.to_owned())))
        }
        _ => None,
    };
    poll(qmp, "query-migrate", is_done).await
}

/// Waits until a machine whose memory was sent may go on: QEMU calls the transfer completed a moment before it lets go of
/// the machine, and refuses `cont` in between (`qmp_cont` in `monitor/qmp-cmds.c`).
async fn settled(qmp: &Qmp) -> Result<(), Error> {
    poll(qmp, "query-status", |state| (state["status"] != "finish-migrate").then_some(Ok(()))).await
}

/// Asks again and again until the answer is one to go on with.
async fn poll(qmp: &Qmp, question: &str, judge: impl Fn(&Value) -> Option<Result<(), Error>>) -> Result<(), Error> {
    let answered = async {
        loop {
            if let Some(verdict) = judge(&qmp.execute(question, json!({})).await?) {
                return verdict;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let late = || Error::Failed(format!("it was not done within {} s", DEADLINE.as_secs()));
    tokio::time::timeout(DEADLINE, answered).await.unwrap_or_else(|_| Err(late()))
}

#[cfg(test)]
mod tests {
    use super::super::accelerator::Accelerator;
    use super::super::firmware::Firmware;
    use super::super::{DiskBus, Error as MachineError, Mac, Qemu, Spec};
    use super::*;
    use crate::disk::qemu_img;
    use crate::host::process::Program;

    /// A machine without a guest, which waits before its first instruction.
    fn spec(accelerator: Accelerator, folder: &Path) -> Spec {
        Spec {
            accelerator,
            // Where KVM itself runs emulated, `host` has registers that can't be set.
            cpu_model: Some("qemu64".to_owned()),
            cpus: 1,
            memory: 64 << 20,
            firmware: Firmware::Bios,
            disk: folder.join("disk.qcow2"),
            disk_bus: DiskBus::default(),
            seed: None,
            mac: Mac([0x52, 0x54, 0, 1, 2, 3]),
            reach: crate::document::recipe::Reach::Full,
            forwards: Vec::new(),
            console_log: folder.join("console.log"),
            attach_console: false,
            paused: true,
            incoming: false,
        }
    }

    async fn status(machine: &Machine) -> String {
        let status = machine.qmp().execute("query-status", json!({})).await.unwrap();
        status["status"].as_str().unwrap().to_owned()
    }

    /// Starts a paused machine, writes its memory, and starts another one from it.
    async fn checkpoint_and_restore(accelerator: Accelerator) -> Result<(), MachineError> {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (parent, disk) = (folder.path().join("parent.qcow2"), folder.path().join("disk.qcow2"));
        Program::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&parent).arg("16M").run().await.unwrap();
        qemu_img::create_overlay(&disk, &parent, 16 << 20).await.unwrap();
        let memory = folder.path().join("memory");
        let qemu = Qemu::find().await?;
        let spec = spec(accelerator, folder.path());
        let machine = qemu.start(&spec, folder.path()).await?;
        assert!(machine.qmp().version().major >= 7);
        assert_eq!(status(&machine).await, "prelaunch");
        let overlay = folder.path().join("overlay.qcow2");
        qemu_img::create_overlay(&overlay, &disk, 16 << 20).await.unwrap();
        machine.pause().await.unwrap();
        machine.put_overlay(&overlay).await.unwrap();
        machine.write_memory(&memory).await.unwrap();
        machine.resume().await.unwrap();
        assert_eq!(status(&machine).await, "running");
        machine.finish().await;
        assert_eq!(fs::metadata(&memory).unwrap().permissions().mode() & 0o777, 0o600);
        let spec = Spec { paused: false, incoming: true, ..spec };
        let machine = qemu.start(&spec, folder.path()).await?;
        assert_eq!(status(&machine).await, "inmigrate");
        machine.restore(&memory).await.unwrap();
        assert_eq!(status(&machine).await, "running");
        machine.finish().await;
        Ok(())
    }

    #[tokio::test]
    async fn an_emulated_machine_goes_on_from_its_memory() {
        checkpoint_and_restore(Accelerator::Tcg).await.unwrap();
    }

    /// As far as a host goes whose `/dev/kvm` opens without being of any use.
    #[tokio::test]
    async fn a_kvm_machine_goes_on_from_its_memory() {
        if fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
            eprintln!("not run: /dev/kvm can't be opened here");
            return;
        }
        checkpoint_and_restore(Accelerator::Kvm).await.unwrap();
    }

    /// QEMU 10.0.2 was seen to say `completed` and refuse `cont` a moment later.
    #[tokio::test]
    async fn a_machine_goes_on_only_when_qemu_has_let_go_of_it() {
        let asked = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let count = asked.clone();
        let stream = qmp::tests::peer(qmp::tests::GREETING, move |id, command| {
            let status = match command {
                "query-status" if count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 3 => "finish-migrate",
                _ => "postmigrate",
            };
            Some(format!("{{\"return\": {{\"status\": \"{status}\"}}, \"id\": {id}}}\r\n"))
        });
        let (qmp, _events) = Qmp::negotiate(stream).await.unwrap();
        settled(&qmp).await.unwrap();
        assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 4);
    }

    #[tokio::test]
    async fn a_memory_file_that_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let memory = folder.path().join("memory");
        fs::write(&memory, vec![7; 1 << 20]).unwrap();
        let disk = folder.path().join("disk.qcow2");
        Program::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&disk).arg("16M").run().await.unwrap();
        let spec = Spec { paused: false, incoming: true, ..spec(Accelerator::Tcg, folder.path()) };
        let machine = Qemu::find().await.unwrap().start(&spec, folder.path()).await.unwrap();
        let refused = machine.restore(&memory).await;
        assert!(refused.is_err(), "{refused:?}");
        machine.finish().await;
    }
}
