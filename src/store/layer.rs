//! Layers: what steps left behind, to start from again. A layer is a read-only overlay on the layer or parent below, with
//! the memory of the paused machine.
//!
//! ```text
//!   begin_layer ──► layers/KEY-RANDOM/, locked, its disk in use at once ──keep──► with layer.json: a layer
//!                        └ dropped, or its process killed: it goes                  └ found by its key, shared by any number
//! ```
//!
//! A layer's record names the digest of its files, so that [`Layer::verify`] notices what a broken disk did to them. Its
//! lock's time of change is when it was used last.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::lock::Seen;
use super::{Error, Lock, Store};
use crate::host::file;

const DISK: &str = "disk.qcow2";
const MEMORY: &str = "memory";
const SEED: &str = "seed.img";
const CONSOLE: &str = "console.log";
pub(super) const RECORD: &str = "layer.json";
pub(super) const LOCK: &str = "lock";
/// Files whose content matters.
const FILES: [&str; 3] = [DISK, MEMORY, SEED];

/// What a layer was made from: named parts, which explain why another layer is another one. The digest of all of them is
/// the layer's name in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key(Vec<(String, String)>);

impl Key {
    /// A key of named parts.
    pub fn new<'a>(parts: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        Self(parts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// Its parts: name and value.
    pub fn parts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of a part.
    pub fn part(&self, name: &str) -> Option<&str> {
        self.parts().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// SHA-256 of all parts.
    pub fn digest(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.0 {
            // Lengths keep one part's end from being taken for another's start.
            text.push_str(&format!("{} {name} {} {value}\n", name.len(), value.len()));
        }
        file::sha256_of(text.as_bytes())
    }
}

impl Store {
    /// The disks of all layers.
    pub fn layer_disks(&self) -> Result<Vec<PathBuf>, Error> {
        let names = self.names_in(&self.layers())?;
        let disks = names.iter().map(|name| self.layers().join(name).join(DISK));
        Ok(disks.filter(|disk| disk.is_file()).collect())
    }
}

/// What is noted beside a layer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// What it was made from.
    pub key: Key,
    /// When.
    pub made: jiff::Timestamp,
    /// How long that took, in seconds, from the layer below on.
    pub seconds: f64,
    /// Folder of the layer below.
    below: Option<String>,
    /// SHA-256 of each file.
    digests: BTreeMap<String, String>,
}

impl Record {
    /// Name of the folder of the layer below.
    pub(super) fn below(&self) -> Option<&str> {
        self.below.as_deref()
    }
}

/// A layer, whole or being made. None of its files goes while this value lives, nor does a layer below; one that was not
/// kept goes with it.
#[derive(Debug)]
pub struct Layer {
    folder: PathBuf,
    key: Key,
    below: Option<Arc<Layer>>,
    record: Option<Record>,
    is_kept: AtomicBool,
    lock: Lock,
}

/// A file of a layer is not what was written.
#[derive(Debug, thiserror::Error)]
#[error("the layer's file `{}` is damaged", path.display())]
pub struct Damaged {
    /// The file.
    pub path: PathBuf,
}

impl Layer {
    /// The disk, an overlay on the layer or parent below.
    pub fn disk(&self) -> PathBuf {
        self.folder.join(DISK)
    }

    /// The machine's memory.
    pub fn memory(&self) -> PathBuf {
        self.folder.join(MEMORY)
    }

    /// The seed that the machine was started with; its agent comes back from there when the guest restarts.
    pub fn seed(&self) -> PathBuf {
        match &self.below {
            Some(below) => below.seed(),
            None => self.folder.join(SEED),
        }
    }

    /// What the machine wrote to its console on the way.
    pub fn console(&self) -> PathBuf {
        self.folder.join(CONSOLE)
    }

    /// What it was made from.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// What was noted of it, if it was found and not made.
    pub fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// The layer below.
    pub fn below(&self) -> Option<&Arc<Layer>> {
        self.below.as_ref()
    }

    /// Makes it a layer that others find, once its files are on disk for good. `seconds` is how long its making took. If
    /// another process has made the same one in the meantime, both stay until somebody cleans up.
    pub fn keep(&self, seconds: f64) -> io::Result<()> {
        let mut digests = BTreeMap::new();
        for name in FILES {
            let path = self.folder.join(name);
            match fs::File::open(&path) {
                Ok(file) => {
                    file.sync_all()?;
                    digests.insert(name.to_owned(), file::sha256_of_sparse(&path)?);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let below = self.below.as_ref().and_then(|below| name_of(&below.folder));
        let record = Record { key: self.key.clone(), made: jiff::Timestamp::now(), seconds, below, digests };
        // The record is written last: a layer that has one is whole, whatever happens to the power.
        file::write(self.folder.join(RECORD), &serde_json::to_vec_pretty(&record)?)?;
        self.is_kept.store(true, Ordering::Release);
        self.lock.share()
    }

    /// Reads all that a machine started from it would read, down to the parent, and compares it with what was written.
    pub fn verify(&self) -> Result<(), Damaged> {
        let mut layer = Some(self);
        let mut names: &[&str] = &FILES;
        while let Some(this) = layer {
            let digests = this.record.iter().flat_map(|record| &record.digests);
            for (name, digest) in digests.filter(|(name, _)| names.contains(&name.as_str())) {
                let path = this.folder.join(name);
                // What can't be read is as good as lost.
                if !file::sha256_of_sparse(&path).is_ok_and(|found| found == *digest) {
                    return Err(Damaged { path });
                }
            }
            layer = this.below.as_deref();
            // Nobody reads a lower layer's memory.
            names = &[DISK, SEED];
        }
        Ok(())
    }

    /// Whether a file is one of its own, and not of a layer below.
    pub fn owns(&self, path: &Path) -> bool {
        path.starts_with(&self.folder)
    }

    /// It can't be found any more, and goes as soon as nobody uses it.
    pub fn condemn(&self) -> io::Result<()> {
        self.is_kept.store(false, Ordering::Release);
        file::remove_if_there(&self.folder.join(RECORD))
    }
}

impl Drop for Layer {
    fn drop(&mut self) {
        // The next recovery removes what can't be removed now, or is in use by others.
        if !self.is_kept.load(Ordering::Acquire) && self.lock.is_whole().unwrap_or(false) {
            let _later = fs::remove_dir_all(&self.folder);
        }
    }
}

fn name_of(folder: &Path) -> Option<String> {
    folder.file_name()?.to_str().map(str::to_owned)
}

impl Store {
    /// The newest layer with a key that is here with all below it. It then counts as used.
    pub fn layer(&self, key: &Key) -> Result<Option<Arc<Layer>>, Error> {
        let digest = key.digest();
        let mut newest: Option<Layer> = None;
        for name in self.names_in(&self.layers())?.iter().filter(|name| name.starts_with(&digest)) {
            let Some(layer) = self.open_layer(name).filter(|layer| layer.key == *key) else { continue };
            let made = |layer: &Layer| layer.record.as_ref().map(|record| record.made);
            if newest.as_ref().is_none_or(|other| made(other) < made(&layer)) {
                newest = Some(layer);
            }
        }
        let mut used = newest.as_ref();
        while let Some(layer) = used {
            // Only the order in which layers go depends on it.
            let _unmarked = mark_used(&layer.folder);
            used = layer.below.as_deref();
        }
        Ok(newest.map(Arc::new))
    }

    /// A layer by its folder's name. What can't be locked or read, or misses what is below, is no layer for us.
    fn open_layer(&self, name: &str) -> Option<Layer> {
        let folder = self.layers().join(name);
        read_record(&folder)?;
        let lock = share_soon(&folder.join(LOCK))?;
        let record = read_record(&folder)?;
        let below = match &record.below {
            Some(below) => Some(Arc::new(self.open_layer(below)?)),
            None => None,
        };
        let is_kept = AtomicBool::new(true);
        Some(Layer { folder, key: record.key.clone(), below, record: Some(record), is_kept, lock })
    }

    /// What is known of all layers.
    pub fn layer_records(&self) -> Result<Vec<Record>, Error> {
        let names = self.names_in(&self.layers())?;
        Ok(names.iter().filter_map(|name| read_record(&self.layers().join(name))).collect())
    }

    /// Begins a layer on another one, or on a parent.
    pub fn begin_layer(&self, key: Key, below: Option<Arc<Layer>>) -> Result<Layer, Error> {
        let random = uuid::Uuid::new_v4().as_fields().0;
        let name = format!("{}-{random:08x}", key.digest());
        let folder = self.layers().join(&name);
        // Under another name until it is locked: a recovery at this moment would take it for a dead one.
        let hidden = self.layers().join(format!("{}{name}", super::run::BEGINNING));
        self.io(fs::create_dir(&hidden))?;
        // A disk before its cleaning is nobody else's business.
        self.io(fs::set_permissions(&hidden, std::os::unix::fs::PermissionsExt::from_mode(0o700)))?;
        let lock = self.io(Lock::wait(&hidden.join(LOCK)))?;
        self.io(fs::rename(&hidden, &folder))?;
        Ok(Layer { folder, key, below, record: None, is_kept: AtomicBool::new(false), lock })
    }

    pub(super) fn layers(&self) -> PathBuf {
        self.root().join("layers")
    }
}

/// A part of a layer's lock, if there is one.
fn share_soon(lock: &Path) -> Option<Lock> {
    let seen = Lock::soon(|| match Lock::look_to_share(lock)? {
        Seen::Held => Ok(None),
        seen => Ok(Some(seen)),
    });
    match seen.ok()?? {
        Seen::Free(lock) => Some(lock),
        Seen::Held | Seen::Gone => None,
    }
}

/// What is noted beside a layer, if it is one.
pub(super) fn read_record(folder: &Path) -> Option<Record> {
    let text = fs::read(folder.join(RECORD)).ok()?;
    serde_json::from_slice(&text).ok()
}

fn mark_used(folder: &Path) -> io::Result<()> {
    let lock = fs::File::options().write(true).open(folder.join(LOCK))?;
    lock.file().set_modified(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(disk: &str) -> Key {
        Key::new([("parent", "abc".to_owned()), ("disk", disk.to_owned())])
    }

    fn store() -> (tempfile::TempDir, Store) {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        (home, store)
    }

    fn made(store: &Store, disk: &str, below: Option<Arc<Layer>>) -> Layer {
        let layer = store.begin_layer(key(disk), below).unwrap();
        fs_err::write(layer.disk(), format!("disk {disk}")).unwrap();
        fs_err::write(layer.memory(), vec![7; 300_000]).unwrap();
        layer
    }

    #[test]
    fn a_layer_is_there_when_it_was_kept_and_not_before() {
        let (_home, store) = store();
        let layer = made(&store, "3", None);
        assert!(store.layer(&key("3")).unwrap().is_none());
        layer.keep(1.5).unwrap();
        let found = store.layer(&key("3")).unwrap().unwrap();
        assert_eq!((found.disk(), found.record().unwrap().seconds), (layer.disk(), 1.5));
        assert!(store.layer(&key("4")).unwrap().is_none());
        // Somebody else is still building on it.
        found.condemn().unwrap();
        drop(found);
        assert!(store.layer(&key("3")).unwrap().is_none());
        let disk = layer.disk();
        assert!(disk.exists());
        drop(layer);
        store.recover().unwrap();
        assert!(!disk.exists());
    }

    #[test]
    fn a_layer_that_was_not_kept_goes() {
        let (_home, store) = store();
        let below = Arc::new(made(&store, "1", None));
        let layer = made(&store, "2", Some(below.clone()));
        let (lower, upper) = (below.disk(), layer.disk());
        below.keep(0.0).unwrap();
        drop(layer);
        drop(below);
        assert!(lower.exists() && !upper.exists());
    }

    #[test]
    fn a_layer_keeps_what_is_below_it() {
        let (_home, store) = store();
        let below = Arc::new(made(&store, "1", None));
        below.keep(0.0).unwrap();
        let layer = made(&store, "2", Some(below.clone()));
        layer.keep(0.0).unwrap();
        drop((layer, below));
        let layer = store.layer(&key("2")).unwrap().unwrap();
        let lower = layer.below().unwrap().disk();
        assert!(Lock::try_take(&lower.with_file_name(LOCK)).unwrap().is_none());
        drop(layer);
        fs_err::remove_dir_all(lower.parent().unwrap()).unwrap();
        assert!(store.layer(&key("2")).unwrap().is_none());
    }

    /// Builds, and `goldsmith gc`s beside them, each with locks of its own as processes have.
    #[test]
    fn no_layer_goes_while_it_is_used_however_many_clear_away() {
        let (home, store) = store();
        let is_over = AtomicBool::new(false);
        let clear_away = || {
            let store = Store::open(home.path()).unwrap();
            while !is_over.load(Ordering::Acquire) {
                store.remove(&store.garbage(0).unwrap()).unwrap();
                let problems = store.recover().unwrap().problems;
                assert!(problems.is_empty(), "{problems:?}");
            }
        };
        let build = |number: usize| {
            for round in 0..150 {
                let lower = format!("lower {}", round % 2);
                let below = store.layer(&key(&lower)).unwrap().unwrap_or_else(|| {
                    let layer = made(&store, &lower, None);
                    layer.keep(0.0).unwrap();
                    Arc::new(layer)
                });
                let upper = format!("upper {number}");
                let layer = made(&store, &upper, Some(below.clone()));
                layer.keep(0.0).unwrap();
                if let Some(found) = store.layer(&key(&upper)).unwrap() {
                    found.verify().unwrap();
                }
                for (layer, disk) in [(&*below, &lower), (&layer, &upper)] {
                    assert_eq!(fs_err::read_to_string(layer.disk()).unwrap(), format!("disk {disk}"));
                }
            }
        };
        std::thread::scope(|scope| {
            let builds: Vec<_> = (0..4).map(|number| scope.spawn(move || build(number))).collect();
            let clearing = [scope.spawn(clear_away), scope.spawn(clear_away)];
            let built: Vec<_> = builds.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
            is_over.store(true, Ordering::Release);
            let cleared = clearing.map(std::thread::ScopedJoinHandle::join);
            assert!(built.into_iter().chain(cleared).all(|ended| ended.is_ok()));
        });
        drop(store.recover().unwrap());
        store.remove(&store.garbage(0).unwrap()).unwrap();
        assert_eq!(store.names_in(&store.layers()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn damage_is_noticed_wherever_it_is_read() {
        let (_home, store) = store();
        let below = Arc::new(made(&store, "1", None));
        below.keep(0.0).unwrap();
        let layer = made(&store, "2", Some(below.clone()));
        layer.keep(0.0).unwrap();
        let found = store.layer(&key("2")).unwrap().unwrap();
        found.verify().unwrap();
        // Nobody starts from the lower layer's memory.
        fs_err::write(below.memory(), "other").unwrap();
        found.verify().unwrap();
        fs_err::write(below.disk(), "disk 2").unwrap();
        let damaged = found.verify().unwrap_err();
        assert!(below.owns(&damaged.path) && !found.owns(&damaged.path));
        fs_err::write(below.disk(), "disk 1").unwrap();
        let mut memory = vec![7; 300_000];
        memory[299_999] = 8;
        fs_err::write(found.memory(), memory).unwrap();
        assert!(found.owns(&found.verify().unwrap_err().path));
    }

    #[test]
    fn parts_of_a_key_do_not_run_into_each_other() {
        let digest = |parts: [(&str, &str); 2]| Key::new(parts.map(|(a, b)| (a, b.to_owned()))).digest();
        assert_ne!(digest([("a", "1\n1 b 1 2"), ("c", "3")]), digest([("a", "1"), ("b", "2")]));
        assert_ne!(digest([("a", "1"), ("b", "2")]), digest([("a", "2"), ("b", "1")]));
    }
}
