//! Layers: read-only overlays that builds start from, with the memory of the paused machine.

use std::path::PathBuf;

use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::{Error, Lock, Run, Store};

const DISK: &str = "disk.qcow2";
const MEMORY: &str = "memory";
const SEED: &str = "seed.img";
const CONSOLE: &str = "console.log";
const RECORD: &str = "layer.json";
const LOCK: &str = "lock";

/// What a layer was made from: one line each, in words that explain why another layer is another one. The digest of
/// all of them is the layer's name in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key(Vec<(String, String)>);

impl Key {
    /// A key of named parts.
    pub fn new<'a>(parts: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        Self(parts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// The name of the layer's folder.
    fn digest(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.0 {
            // Lengths keep one part's end from being taken for another's start.
            text.push_str(&format!("{} {name} {} {value}\n", name.len(), value.len()));
        }
        crate::host::file::sha256_of(text.as_bytes())
    }
}

/// What is noted beside a layer.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    key: Key,
    made: jiff::Timestamp,
}

/// A finished layer. None of its files ever changes, and none goes while this value lives.
#[derive(Debug)]
pub struct Layer {
    folder: PathBuf,
    _used: Option<Lock>,
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
        self.folder.join(SEED)
    }

    /// What the machine wrote to its console on the way.
    pub fn console(&self) -> PathBuf {
        self.folder.join(CONSOLE)
    }
}

/// A layer that is being made, in a run's folder.
#[derive(Debug)]
pub struct LayerDraft {
    layer: Layer,
}

impl LayerDraft {
    /// Where its files go.
    pub fn files(&self) -> &Layer {
        &self.layer
    }
}

impl Store {
    /// The layer with a key, if it is here.
    pub fn layer(&self, key: &Key) -> Result<Option<Layer>, Error> {
        let digest = key.digest();
        for name in self.names_in(&self.layers())?.iter().filter(|name| name.starts_with(&digest)) {
            let folder = self.layers().join(name);
            // Who cleans up takes the whole lock; what can't be locked or read is no layer for us.
            let Ok(Some(used)) = Lock::try_share(&folder.join(LOCK)) else { continue };
            let record = fs::read(folder.join(RECORD)).unwrap_or_default();
            let record = serde_json::from_slice::<Record>(&record);
            if record.is_ok_and(|record| record.key == *key) {
                return Ok(Some(Layer { folder, _used: Some(used) }));
            }
        }
        Ok(None)
    }

    /// Begins a layer in a run's folder, so that nothing of it outlives a run that fails.
    pub fn draft_layer(&self, run: &Run) -> Result<LayerDraft, Error> {
        let folder = run.path("layer");
        self.io(fs::create_dir(&folder))?;
        Ok(LayerDraft { layer: Layer { folder, _used: None } })
    }

    /// Makes a draft a layer. If another process has made the same one in the meantime, both stay until somebody cleans
    /// up.
    pub fn keep_layer(&self, draft: LayerDraft, key: Key) -> Result<Layer, Error> {
        let random = uuid::Uuid::new_v4().as_fields().0;
        let folder = self.layers().join(format!("{}-{random:08x}", key.digest()));
        let draft = draft.layer.folder;
        // The record is written last: a layer that has one is whole, whatever happens to the power.
        for name in [DISK, MEMORY, SEED] {
            match fs::File::open(draft.join(name)).and_then(|file| file.sync_all()) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return self.io(Err(error)),
                _ => {}
            }
        }
        let record = Record { key, made: jiff::Timestamp::now() };
        let record = serde_json::to_vec_pretty(&record).map_err(std::io::Error::other);
        self.io(record.and_then(|record| crate::host::file::write(draft.join(RECORD), &record)))?;
        let used = self.io(Lock::try_share(&draft.join(LOCK)))?;
        self.io(fs::rename(&draft, &folder))?;
        self.io(crate::host::file::sync_folder(&self.layers()))?;
        Ok(Layer { folder, _used: used })
    }

    /// Removes a layer that proved to be of no use, unless somebody is still using it: then it only can't be found any
    /// more.
    pub fn drop_layer(&self, layer: Layer) -> Result<(), Error> {
        let folder = layer.folder.clone();
        drop(layer);
        self.io(fs::remove_file(folder.join(RECORD)))?;
        if self.io(Lock::try_take(&folder.join(LOCK)))?.is_some() {
            self.io(fs::remove_dir_all(&folder))?;
        }
        Ok(())
    }

    pub(super) fn layers(&self) -> PathBuf {
        self.root().join("layers")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(disk: &str) -> Key {
        Key::new([("parent", "abc".to_owned()), ("disk", disk.to_owned())])
    }

    #[test]
    fn a_layer_is_there_when_it_was_kept_and_not_before() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        let run = store.begin_run("test").unwrap();
        let draft = store.draft_layer(&run).unwrap();
        fs_err::write(draft.files().disk(), "disk").unwrap();
        assert!(store.layer(&key("3")).unwrap().is_none());
        let kept = store.keep_layer(draft, key("3")).unwrap();
        let found = store.layer(&key("3")).unwrap().unwrap();
        assert_eq!((found.disk(), fs_err::read_to_string(found.disk()).unwrap()), (kept.disk(), "disk".to_owned()));
        assert!(store.layer(&key("4")).unwrap().is_none());
        // Somebody else is still building on it.
        store.drop_layer(found).unwrap();
        assert!(store.layer(&key("3")).unwrap().is_none());
        assert!(kept.disk().exists());
        assert_eq!(store.garbage().unwrap(), []);
        let disk = kept.disk();
        drop(kept);
        drop(run);
        store.remove(&store.garbage().unwrap()).unwrap();
        assert!(!disk.exists());
    }

    #[test]
    fn parts_of_a_key_do_not_run_into_each_other() {
        let digest = |parts: [(&str, &str); 2]| Key::new(parts.map(|(a, b)| (a, b.to_owned()))).digest();
        assert_ne!(digest([("a", "1\n1 b 1 2"), ("c", "3")]), digest([("a", "1"), ("b", "2")]));
        assert_ne!(digest([("a", "1"), ("b", "2")]), digest([("a", "2"), ("b", "1")]));
    }
}
