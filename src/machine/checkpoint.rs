//! A machine's memory as a file, and a machine from such a file.
//!
//! ```text
//!   running ──checkpoint──► memory file, machine paused; its disk is as the memory knows it
//!   -incoming defer ──restore──► running, from the next instruction on
//! ```
//!
//! Source: QEMU's `docs/devel/migration/mapped-ram.rst` and `qapi/migration.json`. With `mapped-ram` every page of the
//! guest has its place in the file, so pages are written and read by several threads and pages of zeroes take no room.
//! QEMU has it since 9.0; whether a QEMU has it is asked of it.

use std::path::Path;
use std::time::Duration;

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;
use serde_json::json;

use super::Machine;
use super::qmp::{self, Qmp};

/// Threads that write or read memory. More than two gain nothing: the file's pages are in the host's cache.
const CHANNELS: u32 = 2;
/// Reading back a gigabyte takes a quarter of a second.
const POLL: Duration = Duration::from_millis(5);
/// A memory file that takes longer has a disk under it that is no use for this.
const DEADLINE: Duration = Duration::from_secs(120);
/// What QEMU calls the ability.
const MAPPED_RAM: &str = "mapped-ram";

/// Why memory was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This QEMU is too old.
    #[error("this QEMU can't write memory to a file (it has no `{MAPPED_RAM}`; QEMU 9.0 and later have it)")]
    Unable,
    /// The file can't be made.
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
    /// Pauses the machine and writes its memory to a new file, readable by its owner only. The machine is then to be
    /// ended: its disk and this file belong together as they are.
    pub async fn checkpoint(&self, memory: &Path) -> Result<(), Error> {
        if !is_able(&self.qmp).await? {
            return Err(Error::Unable);
        }
        // QEMU itself would make it readable by the group.
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(memory)?;
        self.qmp.execute("stop", json!({})).await?;
        configure(&self.qmp).await?;
        self.qmp.execute("migrate", json!({ "uri": uri(memory) })).await?;
        finished(&self.qmp).await
    }

    /// Fills the memory of a machine that waits for it, and lets it run.
    pub async fn restore(&self, memory: &Path) -> Result<(), Error> {
        configure(&self.qmp).await?;
        self.qmp.execute("migrate-incoming", json!({ "uri": uri(memory) })).await?;
        finished(&self.qmp).await?;
        self.resume().await.map_err(Error::Qmp)
    }
}

/// Whether this QEMU has what [`Machine::checkpoint`] needs.
pub(super) async fn is_able(qmp: &Qmp) -> Result<bool, qmp::Error> {
    let known = qmp.execute("query-migrate-capabilities", json!({})).await?;
    let known = known.as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(known.iter().any(|capability| capability["capability"] == MAPPED_RAM))
}

async fn configure(qmp: &Qmp) -> Result<(), qmp::Error> {
    let on = |name: &str| json!({ "capability": name, "state": true });
    let capabilities = json!({ "capabilities": [on(MAPPED_RAM), on("multifd"), on("events")] });
    qmp.execute("migrate-set-capabilities", capabilities).await?;
    qmp.execute("migrate-set-parameters", json!({ "multifd-channels": CHANNELS, "max-bandwidth": 0 })).await.map(drop)
}

fn uri(memory: &Path) -> String {
    format!("file:{}", memory.display())
}

async fn finished(qmp: &Qmp) -> Result<(), Error> {
    let finished = async {
        loop {
            let state = qmp.execute("query-migrate", json!({})).await?;
            match state["status"].as_str() {
                Some("completed") => return Ok(()),
                Some("failed" | "cancelled") => {
                    let why = state["error-desc"].as_str().unwrap_or("it does not say why");
                    return Err(Error::Failed(why.to_owned()));
                }
                _ => tokio::time::sleep(POLL).await,
            }
        }
    };
    let late = || Error::Failed(format!("it was not done within {} s", DEADLINE.as_secs()));
    tokio::time::timeout(DEADLINE, finished).await.unwrap_or_else(|_| Err(late()))
}
