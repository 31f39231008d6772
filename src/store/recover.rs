//! Cleaning up after processes that were killed.

use std::io;
use std::path::Path;

use fs_err as fs;
use rustix::process::{Pid, Signal, kill_process};

use super::lock::Lock;
use super::manifest::State;
use super::version::ImageId;
use super::{Error, Store, run};

/// What a recovery found and ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Images whose builder had died; they are FAILED now.
    pub images: Vec<ImageId>,
    /// Working folders that were removed.
    pub runs: usize,
}

impl Store {
    /// Ends what dead processes left: their virtual machines, their working folders, their claims to be building.
    pub fn recover(&self) -> Result<Recovered, Error> {
        let mut recovered = Recovered::default();
        let runs = self.root.join("runs");
        for name in self.names_in(&runs)? {
            let folder = runs.join(name);
            if self.io(recover_run(&folder))? {
                recovered.runs += 1;
            }
        }
        for mut image in self.images()? {
            let state = image.manifest.state;
            if state.is_under_way() && !self.io(image.is_locked())? {
                let reason = format!("goldsmith ended while the image was {state}");
                self.io(image.update(|manifest| manifest.set_state(State::Failed, Some(reason))))?;
                recovered.images.push(image.id);
            }
        }
        Ok(recovered)
    }
}

/// Whether the folder belonged to a dead run. A folder that a person wanted to keep has no lock file.
fn recover_run(folder: &Path) -> io::Result<bool> {
    let lock = folder.join(run::LOCK);
    if !lock.exists() {
        return Ok(false);
    }
    let Some(_held) = Lock::try_take(&lock)? else { return Ok(false) };
    kill_processes_in(folder)?;
    run::remove_leftovers(folder)?;
    Ok(true)
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
