//! Snapshots with real bytes: blocks in a sparse file, over those of a parent.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use fs_err::File;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

/// What the direct APIs read and write at a time.
pub(super) const BLOCK: usize = 512 << 10;
const BLOCK_BYTES: u64 = 512 << 10;
const BLOCKS_PER_GIB: u32 = 2048;
/// The grain of goldsmith's digest of a disk.
const GRAIN: usize = 64 << 10;
const GRAIN_BYTES: u64 = 64 << 10;
const GIB: u64 = 1 << 30;

/// Where a snapshot is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SnapshotState {
    /// Blocks are put into it.
    Open,
    /// It is complete, but so many polls will still find it pending.
    Pending(u32),
    Completed,
    Error,
}

/// A snapshot.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) id: String,
    pub(crate) owner: String,
    pub(crate) gib: u32,
    pub(crate) state: SnapshotState,
    pub(crate) description: String,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) encrypted: bool,
    pub(crate) kms_key: Option<String>,
    pub(crate) parent: Option<String>,
    pub(crate) started: Timestamp,
    /// The accounts that may make volumes of it.
    pub(crate) users: BTreeSet<String>,
    /// Whether everybody may.
    pub(crate) is_public: bool,
    pub(super) disk: Arc<Disk>,
}

impl Snapshot {
    /// The word for its state.
    pub(crate) fn status(&self) -> &'static str {
        match self.state {
            SnapshotState::Open | SnapshotState::Pending(_) => "pending",
            SnapshotState::Completed => "completed",
            SnapshotState::Error => "error",
        }
    }

    /// Whether this account may use it.
    pub(super) fn is_open_to(&self, account: &str) -> bool {
        self.owner == account || self.is_public || self.users.contains(account)
    }

    /// A poll has found it pending.
    pub(super) fn polled(&mut self) {
        match self.state {
            SnapshotState::Pending(0 | 1) => self.state = SnapshotState::Completed,
            SnapshotState::Pending(polls) => self.state = SnapshotState::Pending(polls - 1),
            _ => {}
        }
    }

    /// How many blocks were put into this very snapshot, its parent's not counted.
    pub(crate) fn blocks_written(&self) -> usize {
        self.disk.digests.lock().unwrap().len()
    }

    /// The digest of its whole disk, as goldsmith defines it.
    pub(crate) fn sha256(&self) -> String {
        self.sha256_of(u64::from(self.gib) * GIB)
    }

    /// The digest of a disk of this size, after which nothing but zeroes may follow.
    pub(crate) fn sha256_of(&self, size: u64) -> String {
        self.disk.sha256(size)
    }

    /// Writes its disk into a sparse file.
    pub(crate) fn write_raw(&self, path: &Path) {
        let file = File::create(path).unwrap();
        file.set_len(u64::from(self.gib) * GIB).unwrap();
        let file = file.into_file();
        for index in self.disk.indexes() {
            let block = self.disk.get(index).unwrap();
            if block.iter().any(|&byte| byte != 0) {
                file.write_all_at(&block, offset(index)).unwrap();
            }
        }
    }
}

/// The bytes of a snapshot. Those of a parent stay, even if the parent itself is deleted.
#[derive(Debug)]
pub(super) struct Disk {
    file: File,
    blocks: u32,
    digests: Mutex<BTreeMap<u32, [u8; 32]>>,
    parent: Option<Arc<Self>>,
}

impl Disk {
    /// An empty disk, or one with what its parent holds. The file has no name, so nothing is left of it.
    pub(super) fn new(folder: &Path, gib: u32, parent: Option<Arc<Self>>) -> Self {
        let file = File::from_parts(tempfile::tempfile_in(folder).unwrap(), folder.join("disk"));
        file.set_len(u64::from(gib) * GIB).unwrap();
        Self { file, blocks: gib * BLOCKS_PER_GIB, digests: Mutex::default(), parent }
    }

    /// A disk with the content of a raw file, rounded up to whole GiB, and how many these are.
    pub(super) fn import(folder: &Path, raw: &Path) -> std::io::Result<(Self, u32)> {
        use rustix::fs::SeekFrom;
        let source = File::open(raw)?.into_file();
        let length = source.metadata()?.len();
        let gib = u32::try_from(length.div_ceil(GIB).max(1)).map_err(std::io::Error::other)?;
        let disk = Self::new(folder, gib, None);
        let mut at = 0;
        while at < length {
            match rustix::fs::seek(&source, SeekFrom::Data(at)) {
                Ok(data) => at = data - data % BLOCK_BYTES,
                Err(rustix::io::Errno::NXIO) => break,
                Err(_) => {}
            }
            let mut block = vec![0; BLOCK];
            let there = usize::try_from(length - at).unwrap_or(BLOCK).min(BLOCK);
            source.read_exact_at(&mut block[..there], at)?;
            if block.iter().any(|&byte| byte != 0) {
                let index = u32::try_from(at / BLOCK_BYTES).map_err(std::io::Error::other)?;
                disk.put(index, &block, Sha256::digest(&block).into());
            }
            at += BLOCK_BYTES;
        }
        Ok((disk, gib))
    }

    /// Whether a block of this index fits in.
    pub(super) fn has_room_for(&self, index: u32) -> bool {
        index < self.blocks
    }

    /// Puts a block.
    pub(super) fn put(&self, index: u32, block: &[u8], digest: [u8; 32]) {
        let mut digests = self.digests.lock().unwrap();
        self.file.file().write_all_at(block, offset(index)).unwrap();
        digests.insert(index, digest);
    }

    /// A block, its own or its parent's.
    pub(super) fn get(&self, index: u32) -> Option<Vec<u8>> {
        if !self.digests.lock().unwrap().contains_key(&index) {
            return self.parent.as_ref().and_then(|parent| parent.get(index));
        }
        let mut block = vec![0; BLOCK];
        self.file.file().read_exact_at(&mut block, offset(index)).unwrap();
        Some(block)
    }

    /// The blocks that were ever put, its parent's included.
    pub(super) fn indexes(&self) -> BTreeSet<u32> {
        let mut indexes = self.parent.as_ref().map(|parent| parent.indexes()).unwrap_or_default();
        indexes.extend(self.digests.lock().unwrap().keys());
        indexes
    }

    /// How many blocks were put into this disk itself, and the aggregate of their digests.
    pub(super) fn aggregate(&self) -> (usize, [u8; 32]) {
        let digests = self.digests.lock().unwrap();
        let mut hasher = Sha256::new();
        for digest in digests.values() {
            hasher.update(digest);
        }
        (digests.len(), hasher.finalize().into())
    }

    fn sha256(&self, size: u64) -> String {
        let mut hasher = Sha256::new();
        hasher.update(size.to_le_bytes());
        for index in self.indexes() {
            let block = self.get(index).unwrap();
            for (place, grain) in (0..).zip(block.chunks(GRAIN)) {
                let at = offset(index) + place * GRAIN_BYTES;
                if grain.iter().all(|&byte| byte == 0) {
                    continue;
                }
                // A disk that ends within a grain has a shorter one there.
                let there = usize::try_from(size.saturating_sub(at)).unwrap_or(GRAIN).min(GRAIN);
                assert!(grain[there..].iter().all(|&byte| byte == 0), "bytes follow behind {size}");
                hasher.update(at.to_le_bytes());
                hasher.update(&grain[..there]);
            }
        }
        hex::encode(hasher.finalize())
    }
}

fn offset(index: u32) -> u64 {
    u64::from(index) * BLOCK_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digest's definition once more, over all bytes of a file.
    fn plain_digest(bytes: &[u8]) -> String {
        let mut all = u64::try_from(bytes.len()).unwrap().to_le_bytes().to_vec();
        for (place, grain) in (0_u64..).zip(bytes.chunks(GRAIN)) {
            if grain.iter().any(|&byte| byte != 0) {
                all.extend((place * 65536).to_le_bytes());
                all.extend(grain);
            }
        }
        hex::encode(Sha256::digest(&all))
    }

    fn put(disk: &Disk, index: u32, block: &[u8]) {
        disk.put(index, block, Sha256::digest(block).into());
    }

    #[test]
    fn a_snapshot_lies_over_its_parent() {
        let folder = tempfile::tempdir().unwrap();
        let parent = Arc::new(Disk::new(folder.path(), 1, None));
        put(&parent, 0, &[1; BLOCK]);
        put(&parent, 2047, &[2; BLOCK]);
        let child = Disk::new(folder.path(), 2, Some(parent.clone()));
        put(&child, 0, &[3; BLOCK]);
        put(&child, 4095, &[4; BLOCK]);
        drop(parent);
        assert_eq!(child.indexes().into_iter().collect::<Vec<_>>(), [0, 2047, 4095]);
        assert_eq!(child.get(0).unwrap()[0], 3);
        assert_eq!(child.get(2047).unwrap()[BLOCK - 1], 2);
        assert_eq!(child.get(1), None);
        assert!(child.has_room_for(4095) && !child.has_room_for(4096));
        let (count, aggregate) = child.aggregate();
        let both = [Sha256::digest([3; BLOCK]), Sha256::digest([4; BLOCK])].concat();
        assert_eq!((count, aggregate), (2, Sha256::digest(both).into()));
    }

    #[test]
    fn the_digest_is_the_one_that_goldsmith_defines() {
        let folder = tempfile::tempdir().unwrap();
        let size = (3 << 20) + 5000;
        let mut bytes = vec![0; size];
        bytes[100_000] = 7;
        bytes[size - 1] = 9;
        let raw = folder.path().join("raw");
        fs_err::write(&raw, &bytes).unwrap();
        let (disk, gib) = Disk::import(folder.path(), &raw).unwrap();
        assert_eq!(gib, 1);
        assert_eq!(disk.indexes().into_iter().collect::<Vec<_>>(), [0, 6]);
        assert_eq!(disk.sha256(u64::try_from(size).unwrap()), plain_digest(&bytes));
        assert_ne!(disk.sha256(GIB), plain_digest(&bytes));
        // Zeroes that were put are as good as none.
        put(&disk, 3, &[0; BLOCK]);
        assert_eq!(disk.sha256(u64::try_from(size).unwrap()), plain_digest(&bytes));
    }
}
