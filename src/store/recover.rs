//! Cleaning up after processes that were killed.

use std::io;
use std::path::Path;

use fs_err as fs;
use rustix::process::{Pid, Signal, kill_process};

use super::lock::Lock;
use super::manifest::State;
use super::version::ImageId;
use super::{Error, Store, layer, run};
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
        for name in self.names_in(&self.layers())?.iter().filter(|name| !name.starts_with(run::BEGINNING)) {
            if let Err(error) = recover_layer(&self.layers().join(name)) {
                recovered.problems.push(format!("the half-made layer {name} can't be removed: {error}"));
            }
        }
        let (images, problems) = self.readable_images()?;
        recovered.problems.extend(problems);
        for mut image in images {
            let state = image.manifest.state;
            if state.is_under_way() && !self.io(image.is_locked())? {
                let reason = format!("goldsmith ended while the image was {state}");
                match image.update(|manifest| manifest.set_state(State::Failed, Some(reason))) {
                    Ok(()) => recovered.images.push(image.id),
                    Err(error) => recovered.problems.push(format!("{}: {error}", image.id)),
                }
            }
        }
        Ok(recovered)
    }
}

/// Whether the folder belonged to a dead run. One that a person wanted to keep says so.
fn recover_run(folder: &Path) -> io::Result<bool> {
    if folder.join(run::KEPT).exists() {
        return Ok(false);
    }
    let Some(_held) = Lock::try_take(&folder.join(run::LOCK))? else { return Ok(false) };
    kill_processes_in(folder)?;
    run::remove_leftovers(folder)?;
    Ok(true)
}

/// Removes what was never finished, or was found to be of no use.
fn recover_layer(folder: &Path) -> io::Result<()> {
    if !folder.is_dir() || layer::read_record(folder).is_some() {
        return Ok(());
    }
    let Some(_held) = Lock::try_take(&folder.join(layer::LOCK))? else { return Ok(()) };
    file::remove_tree(folder)
}

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
