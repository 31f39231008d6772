//! A parent that has started: booted once, then restored from its checkpoint whenever a build needs it.
//!
//! ```text
//!   checkpoint there? ──yes──► restore ──────────────────────────────────────────────► guest, ready
//!        │ no                     └ of no use: it is dropped                              ▲
//!        ▼                                                                               │
//!      boot, wait for cloud-init ──► write memory, end the machine ──► layer ──► restore ┘
//!                                        └ QEMU is too old, no room: the booted guest is taken as it is
//! ```
//!
//! The first build restores what it has just written, so a checkpoint that is of no use shows at once.

use std::path::{Path, PathBuf};

use fs_err as fs;

use super::shape::Shape;
use super::{Error, Event, Factory};
use crate::disk::qemu_img;
use crate::guest::seed::{Purpose, Seed};
use crate::guest::{self, Guest};
use crate::host::file;
use crate::machine::{Mac, Spec};
use crate::parent::Parent;
use crate::store::{Key, Layer, Run};

/// A network card's address is part of a machine's memory. Each machine is alone in its network, so all may have the
/// same.
const BUILD_MAC: Mac = Mac([0x52, 0x54, 0x00, 0x67, 0x6f, 0x6c]);

/// What a ready guest is made from, and where its files go.
pub(super) struct Wanted<'a> {
    pub(super) parent: &'a Parent,
    pub(super) shape: &'a Shape,
    /// Size of the disk in bytes.
    pub(super) size: u64,
    pub(super) run: &'a Run,
    /// Where the build machine's disk is to be.
    pub(super) disk: PathBuf,
    pub(super) console_log: PathBuf,
    /// Whether to boot in any case, and to leave no checkpoint.
    pub(super) cold: bool,
}

/// A guest whose first boot is over.
pub(super) struct Ready {
    pub(super) guest: Guest,
    /// What its disk is based on, to be kept until the disk was sealed.
    pub(super) layer: Option<Layer>,
    /// Whether it came from a checkpoint that was there.
    pub(super) cached: bool,
}

impl Factory {
    /// A guest whose first boot is over.
    pub(super) async fn ready_guest(&self, wanted: &Wanted<'_>) -> Result<Ready, Error> {
        let seed = Seed::with_agent(Purpose::Build);
        if wanted.cold {
            return Ok(Ready { guest: self.boot_parent(wanted, &seed).await?, layer: None, cached: false });
        }
        let key = key(wanted, &seed)?;
        if let Some(layer) = self.store.layer(&key)? {
            match wanted.restore(&layer).await {
                Ok(guest) => return Ok(Ready { guest, layer: Some(layer), cached: true }),
                Err(error @ guest::Error::Machine(_)) => return Err(wanted.failed(error)),
                Err(error) => {
                    self.tell(Event::Warning(format!("a checkpoint is of no use and is dropped: {error}")));
                    if let Err(error) = self.store.drop_layer(layer) {
                        self.tell(Event::Warning(format!("it can't be removed: {error}")));
                    }
                    file::remove_if_there(&wanted.disk)?;
                    file::remove_if_there(&wanted.console_log)?;
                }
            }
        }
        let guest = self.boot_parent(wanted, &seed).await?;
        let draft = self.store.draft_layer(wanted.run)?;
        if let Err(error) = guest.checkpoint(&draft.files().memory()).await {
            self.tell(Event::Note(format!("no checkpoint is kept, so the next build boots again: {error}")));
            return Ok(Ready { guest, layer: None, cached: false });
        }
        guest.finish().await;
        fs::rename(&wanted.disk, draft.files().disk())?;
        fs::rename(wanted.seed(), draft.files().seed())?;
        fs::copy(&wanted.console_log, draft.files().console())?;
        let layer = self.store.keep_layer(draft, key)?;
        let guest = wanted.restore(&layer).await.map_err(|error| wanted.failed(error))?;
        Ok(Ready { guest, layer: Some(layer), cached: false })
    }

    async fn boot_parent(&self, wanted: &Wanted<'_>, seed: &Seed) -> Result<Guest, Error> {
        let created = qemu_img::create_overlay(&wanted.disk, &wanted.parent.disk, wanted.size).await;
        created.map_err(|error| Error::Disk { doing: "made", source: error.into() })?;
        seed.write(&wanted.seed())?;
        let (shape, folder) = (wanted.shape, wanted.run.folder());
        let start = async {
            let spec = wanted.spec(wanted.seed());
            let guest = Guest::boot(&shape.qemu, &spec, folder, shape.boot_timeout).await?;
            let complaint = guest.wait_for_cloud_init().await?;
            guest.stop_timers().await?;
            Ok((guest, complaint))
        };
        let (guest, complaint) = start.await.map_err(|error| wanted.failed(error))?;
        if let Some(complaint) = complaint {
            self.tell(Event::Warning(format!("cloud-init did not end well in the build machine: {complaint}")));
        }
        Ok(guest)
    }
}

impl Wanted<'_> {
    fn seed(&self) -> PathBuf {
        self.run.path("seed.img")
    }

    fn spec(&self, seed: PathBuf) -> Spec {
        let spec = self.shape.spec(self.disk.clone(), Some(seed), self.console_log.clone());
        Spec { mac: BUILD_MAC, ..spec }
    }

    async fn restore(&self, layer: &Layer) -> Result<Guest, guest::Error> {
        let prepared = qemu_img::create_overlay(&self.disk, &layer.disk(), self.size).await;
        prepared.map_err(|error| guest::Error::Source(std::io::Error::other(error)))?;
        fs::copy(layer.console(), &self.console_log).map_err(guest::Error::Source)?;
        let (shape, spec) = (self.shape, self.spec(layer.seed()));
        Guest::restore(&shape.qemu, &spec, &layer.memory(), self.run.folder(), shape.boot_timeout).await
    }

    fn failed(&self, source: guest::Error) -> Error {
        Error::Guest { doing: "it started".to_owned(), source: Box::new(source), log: self.console_log.clone() }
    }
}

fn key(wanted: &Wanted<'_>, seed: &Seed) -> Result<Key, Error> {
    let spec = wanted.spec(Path::new("seed").to_owned());
    Ok(Key::new([
        ("parent", wanted.parent.sha256.clone()),
        ("disk size", wanted.size.to_string()),
        ("machine", wanted.shape.qemu.signature(&spec)?),
        ("seed and agent", seed.fingerprint()?),
    ]))
}
