//! What can go: it can be made again, or nothing uses it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::lock::{Lock, Seen};
use super::{Error, Store, layer};

/// Something that can go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Garbage {
    /// Where it is.
    pub path: PathBuf,
    /// How much space it takes, in bytes.
    pub bytes: u64,
    /// What it is.
    pub what: &'static str,
}

/// How the names of downloads begin that are made for guests.
pub const FOR_GUESTS: &str = "web-";

/// How much space layers may take unless the user says otherwise, in bytes.
pub const LAYER_BUDGET: u64 = 20 << 30;

impl Store {
    /// All that can go. Images, and the newest bytes of base images, never do; what a run uses is locked or newer. Layers
    /// go, the longest unused first, until the others fit into a budget.
    pub fn garbage(&self, layer_budget: u64) -> Result<Vec<Garbage>, Error> {
        let mut garbage = self.layers_over(layer_budget)?;
        for name in self.names_in(&self.root().join("parents"))? {
            self.old_parents(&name, &mut garbage)?;
        }
        let downloads = self.downloads();
        let is_anybody_running = self.is_anybody_running()?;
        for name in self.names_in(&downloads)? {
            // Those that are made for guests have no lock; their builds have.
            let is_read = is_anybody_running && name.starts_with(FOR_GUESTS);
            if name.ends_with(".part") && !is_read && !self.is_in_use(&downloads.join(&name).with_extension("lock"))? {
                self.note(&downloads.join(name), "a download that was cut", &mut garbage)?;
            }
        }
        let verified = downloads.join("sha256");
        // A build on a parent that a recipe gives by its address reads the download itself.
        for name in self.names_in(&verified)?.iter().filter(|_| !is_anybody_running) {
            self.note(&verified.join(name), "a download that a base image was made from", &mut garbage)?;
        }
        for name in self.names_in(&self.root().join("runs"))? {
            let folder = self.root().join("runs").join(name);
            if folder.join(super::run::KEPT).exists() {
                self.note(&folder, "a failed build machine that was kept", &mut garbage)?;
            }
        }
        count_shared(&mut garbage);
        garbage.retain(|item| item.bytes > 0);
        Ok(garbage)
    }

    /// Removes it.
    pub fn remove(&self, garbage: &[Garbage]) -> Result<(), Error> {
        for item in garbage {
            // Somebody may have begun to use a layer since it was listed.
            let seen = self.io(Lock::look(&item.path.join("lock")))?;
            if matches!(seen, Seen::Held) {
                continue;
            }
            if item.path.is_dir() {
                // Without its record a layer is none, whatever happens before the rest is gone.
                self.io(crate::host::file::remove_if_there(&item.path.join(layer::RECORD)))?;
            }
            let removed = if item.path.is_dir() { fs::remove_dir_all(&item.path) } else { fs::remove_file(&item.path) };
            // Somebody else may have removed it.
            match removed {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                removed => self.io(removed)?,
            }
        }
        Ok(())
    }

    /// Bytes of a base image that newer ones have replaced. A running build may still read the last but one.
    fn old_parents(&self, name: &str, garbage: &mut Vec<Garbage>) -> Result<(), Error> {
        let folder = self.parent_folder(name);
        if self.is_anybody_running()? || self.is_in_use(&folder.join("lock"))? {
            return Ok(());
        }
        let current = self.io(fs::read_to_string(folder.join("parent.json")).or_else(absent))?;
        for file in self.names_in(&folder)? {
            let Some(digest) = file.strip_suffix(".qcow2") else { continue };
            if !current.contains(digest) {
                self.note(&folder.join(&file), "an old version of a base image", garbage)?;
            }
        }
        Ok(())
    }

    /// The layers that have to go for the others to fit into a budget: the longest unused ones that nobody is building on
    /// and no other layer needs. The next build makes them again.
    pub fn layers_over(&self, budget: u64) -> Result<Vec<Garbage>, Error> {
        let mut layers = Vec::new();
        for name in self.names_in(&self.layers())? {
            let folder = self.layers().join(&name);
            // What is being made, or was given up, is no layer.
            let Some(record) = layer::read_record(&folder) else { continue };
            let used = fs::metadata(folder.join(layer::LOCK)).and_then(|lock| lock.modified());
            let used = used.unwrap_or(std::time::SystemTime::UNIX_EPOCH);
            let is_held = self.is_in_use(&folder.join(layer::LOCK))?;
            // Somebody else may be removing it.
            let Ok(bytes) = space(&folder) else { continue };
            layers.push((used, name, record.below().map(str::to_owned), is_held, bytes));
        }
        let mut total: u64 = layers.iter().map(|(.., bytes)| bytes).sum();
        let mut over = Vec::new();
        while total > budget {
            let is_needed = |name: &String| layers.iter().any(|(_, _, below, ..)| below.as_ref() == Some(name));
            let free = layers.iter().enumerate().filter(|(_, (_, name, _, is_held, _))| !is_held && !is_needed(name));
            let Some((index, _)) = free.min_by_key(|(_, (used, ..))| *used) else { break };
            let (_, name, _, _, bytes) = layers.swap_remove(index);
            total -= bytes;
            let what = "a layer, which the next build makes again";
            over.push(Garbage { path: self.layers().join(name), bytes, what });
        }
        Ok(over)
    }

    fn is_anybody_running(&self) -> Result<bool, Error> {
        let runs = self.root().join("runs");
        for name in self.names_in(&runs)? {
            let lock = runs.join(name).join(super::run::LOCK);
            if self.is_in_use(&lock)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn is_in_use(&self, lock: &Path) -> Result<bool, Error> {
        Ok(matches!(self.io(Lock::look(lock))?, Seen::Held))
    }

    fn note(&self, path: &Path, what: &'static str, garbage: &mut Vec<Garbage>) -> Result<(), Error> {
        let bytes = match space(path) {
            // Somebody has used or removed it since it was listed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            bytes => self.io(bytes)?,
        };
        garbage.push(Garbage { path: path.to_owned(), bytes, what });
        Ok(())
    }
}

/// A file whose names all go gives its space back, though no name alone does: an old base image and the download that it was.
fn count_shared(garbage: &mut [Garbage]) {
    use std::os::unix::fs::MetadataExt;
    let mut names: HashMap<(u64, u64), Vec<usize>> = HashMap::new();
    for (index, item) in garbage.iter().enumerate() {
        let Ok(metadata) = fs::symlink_metadata(&item.path) else { continue };
        if metadata.is_file() && metadata.nlink() > 1 {
            names.entry((metadata.dev(), metadata.ino())).or_default().push(index);
        }
    }
    for indexes in names.into_values() {
        let Some(metadata) = indexes.first().and_then(|&first| fs::symlink_metadata(&garbage[first].path).ok()) else {
            continue;
        };
        if metadata.nlink() == indexes.len() as u64 {
            // Each says a part, so that none is left out.
            let part = (metadata.blocks() * 512).div_ceil(metadata.nlink());
            indexes.iter().for_each(|&index| garbage[index].bytes = part);
        }
    }
}

fn absent(error: std::io::Error) -> std::io::Result<String> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(String::new()) } else { Err(error) }
}

/// Space that a file or folder gives back when it goes. A file with another name elsewhere gives nothing back.
fn space(path: &Path) -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() {
        return Ok(if metadata.nlink() > 1 { 0 } else { metadata.blocks() * 512 });
    }
    let mut total = 0;
    for entry in fs::read_dir(path)? {
        total += space(&entry?.path())?;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use super::super::{Key, Layer};
    use super::*;

    fn layer(store: &Store, name: &str, below: Option<Arc<Layer>>, used: u64) -> Arc<Layer> {
        let layer = store.begin_layer(Key::new([("name", name.to_owned())]), below).unwrap();
        fs::write(layer.memory(), vec![1; 100_000]).unwrap();
        layer.keep(1.0).unwrap();
        let lock = fs::File::options().write(true).open(layer.memory().with_file_name(layer::LOCK)).unwrap();
        lock.file().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(used)).unwrap();
        Arc::new(layer)
    }

    /// Names of the layers that go, in order.
    fn over(store: &Store, budget: u64) -> Vec<String> {
        let name = |item: &Garbage| layer::read_record(&item.path).unwrap().key.part("name").unwrap().to_owned();
        store.layers_over(budget).unwrap().iter().map(name).collect()
    }

    #[test]
    fn the_longest_unused_layers_go_first_and_none_that_another_needs() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        let base = layer(&store, "base", None, 10);
        let old = layer(&store, "old", Some(base.clone()), 20);
        let new = layer(&store, "new", Some(base.clone()), 30);
        // All are held by us.
        assert_eq!(over(&store, 0), Vec::<String>::new());
        drop((base, old));
        assert_eq!(over(&store, 0), ["old"]);
        drop(new);
        assert_eq!(over(&store, 0), ["old", "new", "base"]);
        assert_eq!(over(&store, 250_000), ["old"]);
        assert_eq!(over(&store, u64::MAX), Vec::<String>::new());
        store.remove(&store.layers_over(250_000).unwrap()).unwrap();
        assert_eq!(over(&store, 0), ["new", "base"]);
        assert_eq!(store.garbage(u64::MAX).unwrap(), []);
    }

    #[test]
    fn an_old_base_image_goes_with_the_download_that_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let parents = store.parent_folder("theirs");
        fs::create_dir_all(&parents).unwrap();
        fs::create_dir_all(store.download("x").parent().unwrap()).unwrap();
        for (name, is_current) in [("old", false), ("new", true)] {
            fs::write(store.download(name), vec![1; 100_000]).unwrap();
            fs::hard_link(store.download(name), parents.join(format!("{name}.qcow2"))).unwrap();
            if is_current {
                fs::write(parents.join("parent.json"), format!("{{ \"sha256\": \"{name}\" }}")).unwrap();
            }
        }
        let garbage = store.garbage(u64::MAX).unwrap();
        let names: Vec<String> =
            garbage.iter().map(|item| item.path.file_name().unwrap().to_string_lossy().into_owned()).collect();
        assert_eq!(names, ["old.qcow2", "old"]);
        assert!(garbage.iter().map(|item| item.bytes).sum::<u64>() >= 100_000);
        store.remove(&garbage).unwrap();
        assert!(store.download("new").exists() && parents.join("new.qcow2").exists());
        assert_eq!(store.garbage(u64::MAX).unwrap(), []);
    }

    #[test]
    fn what_a_running_build_downloads_for_its_guest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        fs::create_dir_all(store.downloads()).unwrap();
        for name in ["web-1.part", "cut.part"] {
            fs::write(store.downloads().join(name), "some").unwrap();
        }
        let count = || store.garbage(u64::MAX).unwrap().len();
        let run = store.begin_run("build").unwrap();
        assert_eq!(count(), 1);
        drop(run);
        assert_eq!(count(), 2);
    }
}
