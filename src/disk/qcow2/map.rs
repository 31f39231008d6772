//! Where a disk's clusters lie.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use fs_err::File;

use super::{CLUSTER, CLUSTER_BITS, COMPRESSED, Error, L2_ENTRIES, MAGIC, OFFSET, SECTOR, SECTORS_SHIFT};

/// Overlays on overlays; a build has two or three, and one for each component when those leave layers.
const MAX_CHAIN: usize = 64;
/// QEMU's own limit of a level-1 table, in bytes: 2 PiB of disk.
const MAX_L1: u64 = 32 << 20;
/// The specification's limit of a backing file's name, in bytes.
const MAX_NAME: u32 = 1023;

/// What stands at a place of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cluster {
    /// Zeroes, or nothing.
    Zero,
    /// Plain bytes in one of the chain's files.
    Data { file: usize, offset: u64 },
    /// A compressed cluster. Its stream ends somewhere in these bytes.
    Compressed { file: usize, offset: u64, length: u64 },
}

/// A disk and the disks below it.
pub(super) struct Chain(Vec<Layer>);

struct Layer {
    file: File,
    length: u64,
    size: u64,
    l1: Vec<u64>,
    /// The level-2 table that was used last: clusters are asked for in their order.
    l2: Option<(u64, Vec<u64>)>,
}

impl Chain {
    /// Opens a disk and all that it is based on.
    pub(super) fn open(disk: &Path) -> Result<Self, Error> {
        let mut layers = Vec::new();
        let mut next = Some(disk.to_owned());
        while let Some(path) = next {
            if layers.len() == MAX_CHAIN {
                return Err(Error::Unusual("is based on too many others"));
            }
            let (layer, backing) = Layer::open(&path)?;
            // What lies behind the end in a file's last cluster would have to be hidden from a larger file above it.
            if !layer.size.is_multiple_of(CLUSTER) {
                return Err(Error::Unusual("does not end with a cluster"));
            }
            layers.push(layer);
            next = backing;
        }
        Ok(Self(layers))
    }

    /// Opens a disk that is based on nothing. It may end anywhere.
    pub(super) fn open_alone(disk: &Path) -> Result<Self, Error> {
        match Layer::open(disk)? {
            (layer, None) => Ok(Self(vec![layer])),
            (_, Some(_)) => Err(Error::Unusual("is based on another")),
        }
    }

    /// Size that a guest sees, in bytes.
    pub(super) fn size(&self) -> u64 {
        self.0.first().map_or(0, |layer| layer.size)
    }

    /// Whether any of the files has a level-2 table here. Without one, nothing was ever written to its clusters.
    pub(super) fn has_table(&self, table: u64) -> bool {
        let table = usize::try_from(table).unwrap_or(usize::MAX);
        self.0.iter().any(|layer| layer.l1.get(table).is_some_and(|entry| entry & OFFSET != 0))
    }

    /// What stands at a cluster's place.
    pub(super) fn cluster(&mut self, index: u64) -> Result<Cluster, Error> {
        for (file, layer) in self.0.iter_mut().enumerate() {
            // What lies behind the end of a smaller backing file is zero.
            if index * CLUSTER >= layer.size {
                break;
            }
            match layer.entry(index)? {
                0 => {}
                entry if entry & COMPRESSED != 0 => {
                    let (offset, length) = layer.compressed(entry)?;
                    return Ok(Cluster::Compressed { file, offset, length });
                }
                entry if entry & 1 != 0 => return Ok(Cluster::Zero),
                entry => {
                    let offset = layer.place(entry & OFFSET, CLUSTER)?;
                    return Ok(Cluster::Data { file, offset });
                }
            }
        }
        Ok(Cluster::Zero)
    }

    /// Fills a buffer from one of the files.
    pub(super) fn read(&self, file: usize, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0[file].file.file().read_exact_at(buffer, offset)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes)
}

impl Layer {
    /// A file, and the file that it is based on.
    fn open(path: &Path) -> Result<(Self, Option<PathBuf>), Error> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        // The first 72 bytes are common to versions 2 and 3, the next 32 are version 3's.
        let mut header = [0; 104];
        file.file().read_exact_at(&mut header, 0)?;
        let version = u32_at(&header, 4);
        if u32_at(&header, 0) != MAGIC || !(2..=3).contains(&version) {
            return Err(Error::Unusual("is of an unknown version"));
        }
        if u32_at(&header, 20) != CLUSTER_BITS {
            return Err(Error::Unusual("has clusters of another size"));
        }
        if u32_at(&header, 32) != 0 {
            return Err(Error::Unusual("is encrypted"));
        }
        if version == 3 && u64_at(&header, 72) != 0 {
            return Err(Error::Unusual("has features that are not plain"));
        }
        let size = u64_at(&header, 24);
        let mut layer = Self { file, length, size, l1: Vec::new(), l2: None };
        let entries = u64::from(u32_at(&header, 36));
        if entries * 8 > MAX_L1 || entries < size.div_ceil(CLUSTER * L2_ENTRIES) {
            return Err(Error::Damaged("its level-1 table has a wrong size"));
        }
        layer.l1 = layer.table(u64_at(&header, 40), entries)?;
        let backing = layer.backing(path, u64_at(&header, 8), u32_at(&header, 16))?;
        Ok((layer, backing))
    }

    fn backing(&self, path: &Path, offset: u64, length: u32) -> Result<Option<PathBuf>, Error> {
        if offset == 0 {
            return Ok(None);
        }
        if length == 0 || length > MAX_NAME {
            return Err(Error::Damaged("its backing file's name has a wrong length"));
        }
        let mut name = vec![0; usize::try_from(length).unwrap_or(0)];
        self.file.file().read_exact_at(&mut name, offset)?;
        let name = String::from_utf8(name).map_err(|_| Error::Unusual("names its backing file by no text"))?;
        if name.starts_with("json:") {
            return Err(Error::Unusual("names its backing file by a description"));
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        Ok(Some(folder.join(name)))
    }

    /// That a place lies in the file.
    fn place(&self, offset: u64, length: u64) -> Result<u64, Error> {
        match offset.checked_add(length) {
            Some(end) if end <= self.length => Ok(offset),
            _ => Err(Error::Damaged("one of its tables points behind its end")),
        }
    }

    fn table(&self, offset: u64, entries: u64) -> Result<Vec<u64>, Error> {
        self.place(offset, entries * 8)?;
        let mut bytes = vec![0; usize::try_from(entries * 8).map_err(io::Error::other)?];
        self.file.file().read_exact_at(&mut bytes, offset)?;
        Ok(bytes.chunks_exact(8).map(|entry| u64_at(entry, 0)).collect())
    }

    /// A cluster's entry in its level-2 table, 0 if nothing was ever written.
    fn entry(&mut self, index: u64) -> Result<u64, Error> {
        let (table, at) = (index / L2_ENTRIES, index % L2_ENTRIES);
        let at = usize::try_from(at).map_err(io::Error::other)?;
        if let Some((loaded, entries)) = &self.l2
            && *loaded == table
        {
            return Ok(entries[at]);
        }
        let place = usize::try_from(table).ok().and_then(|table| self.l1.get(table)).copied().unwrap_or(0) & OFFSET;
        let entries =
            if place == 0 { vec![0; usize::try_from(L2_ENTRIES).unwrap_or(0)] } else { self.table(place, L2_ENTRIES)? };
        let entry = entries[at];
        self.l2 = Some((table, entries));
        Ok(entry)
    }

    /// Where a compressed cluster's bytes lie: they begin anywhere and end with a sector.
    fn compressed(&self, entry: u64) -> Result<(u64, u64), Error> {
        let offset = entry & ((1 << SECTORS_SHIFT) - 1);
        let further = (entry & !COMPRESSED) >> SECTORS_SHIFT;
        let end = (offset / SECTOR + 1 + further) * SECTOR;
        // The file may end with the stream instead of the sector.
        let end = end.min(self.length);
        if offset >= end {
            return Err(Error::Damaged("one of its tables points behind its end"));
        }
        Ok((offset, end - offset))
    }
}
