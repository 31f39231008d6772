//! The working folder of one running command.

use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::Serialize;

use super::lock::Lock;

/// Paths outside the folder that the run would leave behind if it were killed, a line each.
const LEFTOVERS: &str = "leftovers";
pub(super) const LOCK: &str = "lock";
/// Marks the folder of a run that has ended as wanted by a person.
pub(super) const KEPT: &str = "kept";
/// How the name of a folder begins that is not locked yet.
pub(super) const BEGINNING: &str = ".";

/// A private working folder, locked for as long as this value lives and removed with it.
#[derive(Debug)]
pub struct Run {
    folder: PathBuf,
    keep: bool,
    _lock: Lock,
}

/// A command that is running now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunningRun {
    /// Name of its working folder.
    pub id: String,
    /// What it does: `build`, `test`, `publish` and others.
    pub purpose: String,
    /// When it was begun, in this host's time zone.
    pub since: jiff::civil::DateTime,
    /// Its process.
    pub process: u32,
}

impl RunningRun {
    /// By the name that [`Run::begin`] gave the folder.
    pub(super) fn named(id: &str) -> Option<Self> {
        let mut parts = id.split('-');
        let since = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%S", parts.next()?).ok()?;
        let (purpose, process) = (parts.next()?.to_owned(), parts.next()?.parse().ok()?);
        Some(Self { id: id.to_owned(), purpose, since, process })
    }
}

impl Run {
    pub(super) fn begin(runs: &Path, purpose: &str) -> io::Result<Self> {
        let started = jiff::Zoned::now().strftime("%Y%m%dT%H%M%S");
        let id = format!("{started}-{purpose}-{}-{:08x}", std::process::id(), random());
        let folder = runs.join(&id);
        // Under another name until it is locked: a recovery at this moment would take it for a dead one.
        let hidden = runs.join(format!("{BEGINNING}{id}"));
        std::fs::DirBuilder::new().mode(0o700).create(&hidden).map_err(|error| {
            io::Error::new(error.kind(), format!("failed to create `{}`: {error}", hidden.display()))
        })?;
        let lock = Lock::wait(&hidden.join(LOCK))?;
        fs::rename(&hidden, &folder)?;
        Ok(Self { folder, keep: false, _lock: lock })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A place in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Notes a file or folder outside the folder that has to go if this run is killed before it finishes with it.
    pub fn will_leave(&self, path: &Path) -> io::Result<()> {
        let mut list = fs::OpenOptions::new().create(true).append(true).open(self.folder.join(LEFTOVERS))?;
        writeln!(list, "{}", path.display())
    }

    /// A folder outside the store, on the same kind of disk, that processes of other users may pass through.
    pub fn folder_outside(&self) -> io::Result<PathBuf> {
        let base = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
        let folder = base.join(format!("goldsmith-{}", uuid::Uuid::new_v4().simple()));
        self.will_leave(&folder)?;
        std::fs::DirBuilder::new().mode(0o711).create(&folder).map_err(|error| {
            io::Error::new(error.kind(), format!("failed to create `{}`: {error}", folder.display()))
        })?;
        Ok(folder)
    }

    /// Keeps the folder when the run ends, for a person to study. Returns where it is.
    pub fn keep(&mut self) -> &Path {
        self.keep = true;
        // Without the mark, the next recovery removes it.
        let _lost = fs::File::create(self.folder.join(KEPT));
        &self.folder
    }

    /// Keeps the logs when the run ends, and nothing else.
    pub fn keep_logs(&mut self) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let is_log = path.extension().is_some_and(|ending| ending == "log");
            if !is_log && path.is_file() && path.file_name().is_some_and(|name| name != LOCK) {
                fs::remove_file(path)?;
            }
        }
        self.keep();
        Ok(())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.keep {
            // What can't be removed now is removed by the next recovery.
            let _later = remove_leftovers(&self.folder);
        }
    }
}

/// Removes what a dead run left, outside its folder and then the folder.
pub(super) fn remove_leftovers(folder: &Path) -> io::Result<()> {
    for line in fs::read_to_string(folder.join(LEFTOVERS)).unwrap_or_default().lines() {
        let path = Path::new(line);
        if path.is_dir() {
            crate::host::file::remove_tree(path)?;
        } else if path.exists() {
            fs::remove_file(path)?;
        }
    }
    fs::remove_dir_all(folder)
}

fn random() -> u32 {
    uuid::Uuid::new_v4().as_fields().0
}
