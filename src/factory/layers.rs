//! The build machine: where it starts from, and the layers that it leaves on its way.
//!
//! ```text
//!   newest layer of the longest unchanged row of components ──restore──┐
//!        │ none                                                       ▼
//!        └─► the parent's own layer ──restore──────────────────► BuildMachine ──component──► checkpoint ──┐
//!                 │ none                                              ▲   ▲                              │
//!                 └─► boot, wait for cloud-init ──► checkpoint ───────┘   └──────────────────────────────┘
//! ```
//!
//! A checkpoint stops the machine for as long as its memory takes to be written; that the layer's files reach the disk,
//! and what their digests are, is found out beside the next component. The digests of the layer that a machine was
//! restored from are compared beside its first component, before anything is sealed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fs_err as fs;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::key::{self, Due};
use super::shape::Shape;
use super::{Error, Event, Factory};
use crate::disk::{probe, qemu_img};
use crate::guest::seed::{Purpose, Seed};
use crate::guest::{self, Guest};
use crate::host::{file, one_line, process};
use crate::machine::{Mac, Spec};
use crate::parent::Parent;
use crate::store::{Damaged, Key, Layer, Run};

/// A network card's address is part of a machine's memory. Each machine is alone in its network, so all may have the
/// same.
pub(super) const BUILD_MAC: Mac = Mac([0x52, 0x54, 0x00, 0x67, 0x6f, 0x6c]);

/// What a build machine is made from, and where its files go.
pub(super) struct Wanted<'a> {
    pub(super) factory: &'a Factory,
    pub(super) parent: &'a Parent,
    pub(super) shape: &'a Shape,
    /// Size of the disk in bytes.
    pub(super) size: u64,
    pub(super) run: &'a Run,
    pub(super) console_log: PathBuf,
    /// Waits for layers that are on their way to the disk.
    pub(super) keeper: &'a TaskTracker,
    /// What is to be done in it.
    pub(super) due: &'a [Due<'a>],
    /// Whether to boot in any case, and to leave no layers.
    pub(super) cold: bool,
    /// Whether to run every component, whatever layers there are.
    pub(super) fresh: bool,
}

/// A machine whose first boot is over.
pub(super) struct BuildMachine<'a> {
    pub(super) guest: Guest,
    /// How many components have run in it already.
    pub(super) done: usize,
    /// Whether it was restored.
    pub(super) cached: bool,
    wanted: &'a Wanted<'a>,
    /// What it writes to.
    disk: PathBuf,
    overlays: u32,
    /// What that is based on; none if it is the parent.
    top: Option<Arc<Layer>>,
    /// Whether more layers may be made.
    makes_layers: bool,
    /// When the newest layer's state was reached.
    since: Instant,
    /// Whether what it was restored from is whole, as soon as that is known.
    verdict: watch::Receiver<Option<Verdict>>,
}

/// Whether a layer is as it was written.
type Verdict = Result<(), Arc<Damaged>>;

impl Wanted<'_> {
    /// A machine with as many components in it as there are layers for.
    pub(super) async fn machine(&self) -> Result<BuildMachine<'_>, Error> {
        if self.cold {
            return self.booted().await;
        }
        let parent = key::of_parent(self.parent, self.size, self.shape)?;
        let due = if self.fresh { &[] } else { self.due };
        while let Some((done, layer)) = self.factory.longest_row(&parent, due)? {
            let useless = match self.restored(done, layer.clone()).await {
                Ok(machine) => return Ok(machine),
                Err(error) => self.useless(&layer, error).await?,
            };
            self.factory.tell(Event::Warning(format!("a checkpoint is of no use and is dropped: {useless}")));
            layer.condemn()?;
            file::remove_if_there(&self.disk(0))?;
            file::remove_if_there(&self.console_log)?;
        }
        let mut machine = self.booted().await?;
        machine.checkpoint(parent).await?;
        Ok(machine)
    }

    /// Why a layer from which no machine could be restored is to blame; or the host's own failure.
    async fn useless(&self, layer: &Arc<Layer>, error: guest::Error) -> Result<String, Error> {
        use crate::machine::End;
        if self.is_based_elsewhere(layer) {
            return Ok("what it is based on is not there".to_owned());
        }
        let read = layer.clone();
        let verified = tokio::task::spawn_blocking(move || read.verify()).await.map_err(std::io::Error::other)?;
        if let Err(damaged) = verified {
            return Ok(damaged.to_string());
        }
        match error {
            guest::Error::Machine(_) | guest::Error::Source(_) => Err(self.failed("it started", error)),
            guest::Error::Ended { end: End::HostDisk { .. } | End::Died { .. }, .. } => {
                Err(self.failed("it started", error))
            }
            useless => Ok(useless.to_string()),
        }
    }

    /// Whether the disks of a layer name others than those that are here: the store may have been moved.
    fn is_based_elsewhere(&self, layer: &Arc<Layer>) -> bool {
        let mut next = Some(layer);
        while let Some(layer) = next {
            next = layer.below();
            let wanted = next.map_or_else(|| self.parent.disk.clone(), |below| below.disk());
            let named = probe::overlay_parent(&layer.disk());
            if !named.is_ok_and(|named| named.is_some_and(|named| named == wanted && named.exists())) {
                return true;
            }
        }
        false
    }

    async fn booted(&self) -> Result<BuildMachine<'_>, Error> {
        let seed = Seed::with_agent(Purpose::Build);
        let disk = self.disk(0);
        let created = qemu_img::create_overlay(&disk, &self.parent.disk, self.size).await;
        created.map_err(|error| Error::Disk { doing: "made", source: error.into() })?;
        seed.write(&self.seed())?;
        let (shape, folder) = (self.shape, self.run.folder());
        let start = async {
            let spec = self.spec(&disk, self.seed());
            let guest = Guest::boot(&shape.qemu, &spec, folder, shape.boot_timeout).await?;
            let complaint = guest.wait_for_cloud_init().await?;
            guest.stop_timers().await?;
            if !self.cold {
                guest.give_memory_back().await?;
            }
            Ok((guest, complaint))
        };
        let started = Instant::now();
        let (guest, complaint) = start.await.map_err(|error| self.failed("it started", error))?;
        if let Some(complaint) = complaint {
            let warning = format!("cloud-init did not end well in the build machine: {complaint}");
            self.factory.tell(Event::Warning(warning));
        }
        Ok(BuildMachine { since: started, ..BuildMachine::new(self, guest, disk) })
    }

    async fn restored(&self, done: usize, layer: Arc<Layer>) -> Result<BuildMachine<'_>, guest::Error> {
        let disk = self.disk(0);
        tracing::debug!(folder = %layer.disk().display(), "restoring");
        let prepared = qemu_img::prepare_overlay(&disk, &layer.disk(), self.size).await;
        prepared.map_err(|error| guest::Error::Source(std::io::Error::other(error)))?;
        fs::copy(layer.console(), &self.console_log).map_err(guest::Error::Source)?;
        let (shape, spec) = (self.shape, self.spec(&disk, layer.seed()));
        let guest = Guest::restore(&shape.qemu, &spec, &layer.memory(), self.run.folder(), shape.boot_timeout).await?;
        let read = layer.clone();
        let (sender, verdict) = watch::channel(None);
        tokio::task::spawn_blocking(move || {
            let found = read.verify().map_err(Arc::new);
            // The machine may be gone already.
            let _unheard = sender.send(Some(found));
        });
        let machine = BuildMachine::new(self, guest, disk);
        Ok(BuildMachine { done, cached: true, verdict, top: Some(layer), ..machine })
    }
}

/// Whether no component is older in a layer than it may be.
fn is_young(layer: &Arc<Layer>, due: &[Due<'_>]) -> bool {
    let now = jiff::Timestamp::now();
    let mut layer = Some(layer);
    due.iter().rev().all(|due| {
        let record = layer.and_then(|layer| layer.record());
        layer = layer.and_then(|layer| layer.below());
        record.is_some_and(|record| key::too_old(record, due.max_age, now).is_none())
    })
}

impl<'a> BuildMachine<'a> {
    fn new(wanted: &'a Wanted<'a>, guest: Guest, disk: PathBuf) -> Self {
        Self {
            guest,
            done: 0,
            cached: false,
            wanted,
            disk,
            overlays: 0,
            top: None,
            makes_layers: !wanted.cold,
            since: Instant::now(),
            verdict: watch::channel(Some(Ok(()))).1,
        }
    }

    /// The layer that it was restored from or has left last.
    pub(super) fn top(&self) -> Option<&Arc<Layer>> {
        self.top.as_ref()
    }

    /// Keeps the state that has been reached as a layer. What goes wrong with a layer is no reason not to go on.
    pub(super) async fn checkpoint(&mut self, key: Key) -> Result<(), Error> {
        if !self.makes_layers {
            return Ok(());
        }
        let seconds = self.since.elapsed().as_secs_f64();
        let next = self.wanted.disk(self.overlays + 1);
        let layer = match self.begin_layer(key, &next).await {
            Ok(layer) => layer,
            Err(error) => {
                self.without_layers(&one_line(&error));
                return Ok(());
            }
        };
        let saved = self.save(&layer, &next).await;
        let saved = saved.map_err(|error| self.wanted.failed("it was paused", error))?;
        self.since = Instant::now();
        match saved {
            Ok(()) => self.keep(layer, seconds),
            Err(error) => {
                self.without_layers(&error.to_string());
                // A full disk has to have room for what the machine writes now.
                file::remove_if_there(&layer.memory())?;
            }
        }
        Ok(())
    }

    /// A layer that is being made, and the overlay that the machine goes on with.
    async fn begin_layer(&self, key: Key, next: &Path) -> Result<Arc<Layer>, Error> {
        let layer = Arc::new(self.wanted.factory.store.begin_layer(key, self.top.clone())?);
        if layer.below().is_none() {
            fs::copy(self.wanted.seed(), layer.seed())?;
        }
        let prepared = qemu_img::prepare_overlay(next, &layer.disk(), self.wanted.size).await;
        prepared.map_err(|error| Error::Disk { doing: "made", source: error.into() })?;
        Ok(layer)
    }

    fn without_layers(&mut self, why: &str) {
        self.wanted.factory.tell(Event::Note(format!("no checkpoint is kept from here on: {why}")));
        self.makes_layers = false;
    }

    /// Stops the machine, takes its disk and its memory, and lets it go on. The outer error is the machine's.
    async fn save(&mut self, layer: &Arc<Layer>, next: &Path) -> Result<Result<(), guest::Error>, guest::Error> {
        let machine = self.guest.machine()?;
        tracing::debug!("pausing");
        machine.pause().await?;
        if let Err(error) = machine.put_overlay(next).await {
            // It still writes to the disk that it had.
            self.guest.resume().await?;
            return Ok(Err(error.into()));
        }
        tracing::debug!("the disk is finished");
        file::relocate(&self.disk, &layer.disk()).map_err(guest::Error::Source)?;
        next.clone_into(&mut self.disk);
        self.overlays += 1;
        self.top = Some(layer.clone());
        let copied = fs::copy(&self.wanted.console_log, layer.console()).map_err(guest::Error::Source);
        let written = match copied {
            Ok(_) => machine.write_memory(&layer.memory()).await.map_err(guest::Error::from),
            Err(error) => Err(error),
        };
        tracing::debug!("the memory is written");
        self.guest.resume().await?;
        tracing::debug!("going on");
        Ok(written)
    }

    /// Has a layer's files reach the disk while the machine goes on.
    fn keep(&self, layer: Arc<Layer>, seconds: f64) {
        let listener = self.wanted.factory.listener.clone();
        let mut verdict = self.verdict.clone();
        self.wanted.keeper.spawn(async move {
            // What has grown from a damaged layer must not be found by anybody.
            if !verdict.wait_for(Option::is_some).await.is_ok_and(|verdict| matches!(*verdict, Some(Ok(())))) {
                return;
            }
            let kept = process::in_background(move || layer.keep(seconds)).await;
            if let Err(error) = kept.and_then(|kept| kept) {
                listener(Event::Note(format!("a checkpoint can't be kept: {error}")));
            }
        });
    }

    /// Waits until the layer that it was restored from has been read. If it was damaged, it and all above it can't be
    /// found any more, and nothing that this machine does may be used.
    pub(super) async fn verified(&mut self) -> Result<Result<(), Arc<Damaged>>, Error> {
        let verdict = self.verdict.wait_for(Option::is_some).await.map(|verdict| verdict.clone());
        let Some(Err(damaged)) = verdict.map_err(std::io::Error::other)? else { return Ok(Ok(())) };
        let mut layer = self.top.as_deref();
        while let Some(above) = layer {
            above.condemn()?;
            layer = above.below().map(Arc::as_ref).filter(|_| !above.owns(&damaged.path));
        }
        Ok(Err(damaged))
    }

    /// Ends the machine and removes its disk.
    pub(super) async fn discard(self) -> Result<(), Error> {
        self.guest.finish().await;
        Ok(file::remove_if_there(&self.disk)?)
    }
}

impl Factory {
    /// The layer after the most components that is young enough, as are all components below it; else the parent's own.
    /// With it comes how many components that are.
    pub(super) fn longest_row(&self, parent: &Key, due: &[Due<'_>]) -> Result<Option<(usize, Arc<Layer>)>, Error> {
        for done in (1..=due.len()).rev() {
            let Some(key) = &due[done - 1].key else { continue };
            let Some(layer) = self.store.layer(key)? else { continue };
            if is_young(&layer, &due[..done]) {
                return Ok(Some((done, layer)));
            }
        }
        Ok(self.store.layer(parent)?.map(|layer| (0, layer)))
    }

    /// Waits until the layers that were made are on disk, and removes what is over the budget then.
    pub(super) async fn settle_layers(&self, keeper: &TaskTracker) {
        keeper.close();
        keeper.wait().await;
        let removed = self.store.layers_over(self.layer_budget).and_then(|over| self.store.remove(&over));
        if let Err(error) = removed {
            self.tell(Event::Warning(format!("layers over the budget can't be removed: {error}")));
        }
    }
}

/// The disk of a machine that has ended, with all that it is based on.
pub(super) struct LastDisk {
    path: PathBuf,
    top: Option<Arc<Layer>>,
}

impl LastDisk {
    /// Has the disk need no layer, so that it can be kept for a person.
    pub(super) async fn for_study(self, parent: &Parent) -> Result<PathBuf, Error> {
        if self.top.is_some() {
            let rebased = qemu_img::rebase(&self.path, &parent.disk).await;
            rebased.map_err(|error| Error::Disk { doing: "kept", source: error.into() })?;
        }
        Ok(self.path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// How long what a guest has not written yet may take to reach a disk that is to be kept.
const SYNC_DEADLINE: Duration = Duration::from_secs(30);

impl BuildMachine<'_> {
    /// Powers the guest off.
    pub(super) async fn power_off(self) -> Result<LastDisk, guest::Error> {
        self.guest.power_off().await?;
        Ok(LastDisk { path: self.disk, top: self.top })
    }

    /// Ends the machine and has its disk need no layer, so that it can be kept for a person.
    pub(super) async fn disk_for_study(self) -> Result<PathBuf, Error> {
        // What the guest has not written yet would be missing.
        let _best_effort = tokio::time::timeout(SYNC_DEADLINE, self.guest.sync()).await;
        self.guest.finish().await;
        LastDisk { path: self.disk, top: self.top }.for_study(self.wanted.parent).await
    }
}

impl Wanted<'_> {
    fn disk(&self, overlays: u32) -> PathBuf {
        self.run.path(&format!("disk-{overlays}.qcow2"))
    }

    fn seed(&self) -> PathBuf {
        self.run.path("seed.img")
    }

    fn spec(&self, disk: &Path, seed: PathBuf) -> Spec {
        let spec = self.shape.spec(disk.to_owned(), Some(seed), self.console_log.clone());
        Spec { mac: BUILD_MAC, ..spec }
    }

    fn failed(&self, doing: &str, source: guest::Error) -> Error {
        Error::Guest { doing: doing.to_owned(), source: Box::new(source), log: self.console_log.clone() }
    }
}
