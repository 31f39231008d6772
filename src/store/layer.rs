//! Layers: read-only overlays that builds start from, with the memory of the paused machine.

use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::{Error, Run, Store};

const DISK: &str = "disk.qcow2";
const MEMORY: &str = "memory";
const SEED: &str = "seed.img";
const CONSOLE: &str = "console.log";
const RECORD: &str = "layer.json";

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

/// A finished layer. None of its files ever changes.
#[derive(Debug, Clone)]
pub struct Layer {
    folder: PathBuf,
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
    pub fn layer(&self, key: &Key) -> Option<Layer> {
        let folder = self.layer_folder(key);
        let record = fs::read(folder.join(RECORD)).ok()?;
        let record: Record = serde_json::from_slice(&record).ok()?;
        (record.key == *key).then_some(Layer { folder })
    }

    /// Begins a layer in a run's folder, so that nothing of it outlives a run that fails.
    pub fn draft_layer(&self, run: &Run) -> Result<LayerDraft, Error> {
        let folder = run.path("layer");
        self.io(fs::create_dir(&folder))?;
        Ok(LayerDraft { layer: Layer { folder } })
    }

    /// Makes a draft a layer. Another process may have made the same one in the meantime; the first one stays.
    pub fn keep_layer(&self, draft: LayerDraft, key: Key) -> Result<Layer, Error> {
        let folder = self.layer_folder(&key);
        let draft = draft.layer.folder;
        let record = Record { key, made: jiff::Timestamp::now() };
        let record = serde_json::to_vec_pretty(&record).map_err(std::io::Error::other);
        self.io(record.and_then(|record| crate::host::file::write(draft.join(RECORD), &record)))?;
        let _making = self.io(super::Lock::wait(&self.layers().join("lock")))?;
        if !folder.join(RECORD).exists() {
            self.io(remove_if_there(&folder))?;
            self.io(fs::rename(&draft, &folder))?;
        }
        Ok(Layer { folder })
    }

    /// Removes a layer that proved to be of no use.
    pub fn drop_layer(&self, layer: &Layer) -> Result<(), Error> {
        // Without its record it is no layer any more, whatever else can be removed.
        let _absent = fs::remove_file(layer.folder.join(RECORD));
        self.io(remove_if_there(&layer.folder))
    }

    pub(super) fn layers(&self) -> PathBuf {
        self.root().join("layers")
    }

    fn layer_folder(&self, key: &Key) -> PathBuf {
        self.layers().join(key.digest())
    }
}

fn remove_if_there(folder: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
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
        assert!(store.layer(&key("3")).is_none());
        let kept = store.keep_layer(draft, key("3")).unwrap();
        let found = store.layer(&key("3")).unwrap();
        assert_eq!((found.disk(), fs_err::read_to_string(found.disk()).unwrap()), (kept.disk(), "disk".to_owned()));
        assert!(store.layer(&key("4")).is_none());
        store.drop_layer(&found).unwrap();
        assert!(store.layer(&key("3")).is_none());
    }

    #[test]
    fn the_first_of_two_equal_layers_stays() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        for content in ["first", "second"] {
            let run = store.begin_run("test").unwrap();
            let draft = store.draft_layer(&run).unwrap();
            fs_err::write(draft.files().disk(), content).unwrap();
            let kept = store.keep_layer(draft, key("3")).unwrap();
            assert_eq!(fs_err::read_to_string(kept.disk()).unwrap(), "first");
        }
    }

    #[test]
    fn parts_of_a_key_do_not_run_into_each_other() {
        let digest = |parts: [(&str, &str); 2]| Key::new(parts.map(|(a, b)| (a, b.to_owned()))).digest();
        assert_ne!(digest([("a", "1\n1 b 1 2"), ("c", "3")]), digest([("a", "1"), ("b", "2")]));
        assert_ne!(digest([("a", "1"), ("b", "2")]), digest([("a", "2"), ("b", "1")]));
    }
}
