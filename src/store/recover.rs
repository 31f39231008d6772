//! Cleaning up after processes that were killed.

use std::io;
use std::path::Path;
use std::time::Duration;

use fs_err as fs;
use rustix::process::{Pid, Signal, kill_process};

use super::lock::{Lock, Seen};
use super::manifest::{Manifest, State};
use super::version::ImageId;
use super::{Error, Reservation, Store, layer, run};
use crate::host::file;

/// What a recovery found and ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Images whose builder had died; they are FAILED now.
    pub images: Vec<ImageId>,
    /// Working folders that were removed.
    pub runs: usize,
    /// What could not be cleared up, or read.
    pub problems: Vec<String>,
}

/// What the reason of an image begins with whose builder had died; the state in which it was left follows.
const LEFT: &str = "goldsmith ended while the image was ";

/// The state in which its builder had died, of an image that is FAILED for that.
pub fn left_in(manifest: &Manifest) -> Option<State> {
    let state = manifest.reason.as_deref().filter(|_| manifest.state == State::Failed)?.strip_prefix(LEFT)?;
    State::UNDER_WAY.into_iter().find(|known| known.to_string() == state)
}

impl Store {
    /// Ends what dead processes left: their virtual machines, their working folders, their claims to be building. What
    /// resists is reported, and is no reason not to work.
    pub fn recover(&self) -> Result<Recovered, Error> {
        let mut recovered = Recovered::default();
        let runs = self.root.join("runs");
        for name in self.names_in(&runs)?.iter().filter(|name| !name.starts_with(run::BEGINNING)) {
            match recover_run(&runs.join(name)) {
                Ok(was_dead) => recovered.runs += usize::from(was_dead),
                Err(error) => recovered.problems.push(format!("the leftovers of {name} can't be removed: {error}")),
            }
        }
        for name in self.names_in(&self.layers())? {
            if let Err(error) = self.recover_layer(&self.layers().join(&name)) {
                recovered.problems.push(format!("the half-made layer {name} can't be removed: {error}"));
            }
        }
        let (images, problems) = self.readable_images()?;
        recovered.problems.extend(problems);
        for image in images.into_iter().filter(|image| image.manifest.state.is_under_way()) {
            let id = image.id.clone();
            // Whoever was at work on it may have finished it since it was read.
            let mut reservation = match Reservation::of(self, image) {
                Ok(reservation) => reservation,
                Err(Error::Busy { .. } | Error::NoImage { .. }) => continue,
                Err(error) => {
                    recovered.problems.push(format!("{id}: {error}"));
                    continue;
                }
            };
            let state = reservation.image.manifest.state;
            if !state.is_under_way() {
                continue;
            }
            // A disk that was being sealed may be large, and no command shows it.
            if let Err(error) = remove_drafts(reservation.image.folder()) {
                recovered.problems.push(format!("{id}: what was half written can't be removed: {error}"));
            }
            let reason = format!("{LEFT}{state}");
            match reservation.image.update(|manifest| manifest.set_state(State::Failed, Some(reason))) {
                Ok(()) => recovered.images.push(id),
                Err(error) => recovered.problems.push(format!("{id}: {error}")),
            }
        }
        Ok(recovered)
    }
}

impl Store {
    /// Removes what was never finished, was found to be of no use, or has lost what it is based on.
    fn recover_layer(&self, folder: &Path) -> io::Result<()> {
        let is_layer = || {
            let record = layer::read_record(folder);
            let is_whole = |below: &str| layer::read_record(&self.layers().join(below)).is_some();
            record.is_some_and(|record| record.below().is_none_or(is_whole))
        };
        if !folder.is_dir() || is_layer() || is_just_made(folder) {
            return Ok(());
        }
        let seen = Lock::look(&folder.join(layer::LOCK))?;
        if matches!(seen, Seen::Held) {
            return Ok(());
        }
        // Whoever made it may have finished it in the meantime.
        if is_layer() { Ok(()) } else { file::remove_tree(folder) }
    }
}

/// Removes what stands in a folder under no final name.
fn remove_drafts(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') && name.ends_with(".part") {
            file::remove_if_there(&path)?;
        }
    }
    Ok(())
}

/// Whether the folder belonged to a dead run. One that a person wanted to keep says so.
fn recover_run(folder: &Path) -> io::Result<bool> {
    if folder.join(run::KEPT).exists() {
        return Ok(false);
    }
    let seen = Lock::look(&folder.join(run::LOCK))?;
    if matches!(seen, Seen::Held) || !folder.exists() {
        return Ok(false);
    }
    kill_processes_in(folder)?;
    match run::remove_leftovers(folder) {
        // Whoever removes it as well has counted it.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !folder.exists() => Ok(false),
        removed => removed.map(|()| matches!(seen, Seen::Free(_))),
    }
}

/// Whether a folder may belong to somebody who has not locked it yet.
fn is_just_made(folder: &Path) -> bool {
    let is_hidden = folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(run::BEGINNING));
    let modified = fs::metadata(folder).and_then(|metadata| metadata.modified());
    is_hidden && modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age < BEGINNING_TIME))
}

/// How long a folder may take from its making to its lock.
const BEGINNING_TIME: Duration = Duration::from_secs(60);

/// Kills our processes whose working folder this is: QEMU always runs in its run's folder. The parent-death signal
/// should have ended them already; what it misses, a child of a child, is found here.
fn kill_processes_in(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Ok(Some(pid)) = entry.file_name().to_string_lossy().parse().map(Pid::from_raw) else { continue };
        // Processes of other users, and those that have just ended, can't be looked at.
        if std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == folder) {
            let _gone = kill_process(pid, Signal::KILL);
        }
    }
    Ok(())
}
