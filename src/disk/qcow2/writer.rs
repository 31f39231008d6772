//! A new qcow2.
//!
//! ```text
//!   header │ clusters, one after another, level-2 table │ clusters, … │ level-1 table │ reference counts
//! ```

use std::io::{self, BufWriter, Seek, SeekFrom, Write};

use fs_err::File;

use super::{CLUSTER, CLUSTER_BITS, COMPRESSED, COPIED, Error, L2_ENTRIES, MAGIC, SECTOR, SECTORS_SHIFT};

/// Bytes of a version 3 header with the kind of compression.
const HEADER: u32 = 112;
/// A reference count has 16 bits, so a cluster holds so many.
const COUNTS: u64 = CLUSTER / 2;

/// How compressed clusters are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// A raw deflate stream with a window of 4 KiB, which every reader knows.
    Zlib,
    /// A Zstandard frame: QEMU from 5.1.
    Zstd,
}

/// A new qcow2, written front to back; its header comes last.
#[derive(Debug)]
pub struct Writer {
    file: BufWriter<File>,
    position: u64,
    size: u64,
    compression: Compression,
    /// Entries of the level-1 table whose level-2 tables are written.
    l1: Vec<u64>,
    /// The level-2 table that is being filled: which, and its entries. A large disk's tables would fill the memory.
    l2: Option<(usize, Vec<u64>)>,
    /// How often each cluster of the file is referred to.
    counts: Vec<u16>,
}

impl Writer {
    /// Begins a disk of `size` bytes in an empty file.
    pub fn new(file: File, size: u64, compression: Compression) -> Result<Self, Error> {
        let entries = usize::try_from(size.div_ceil(CLUSTER * L2_ENTRIES)).map_err(io::Error::other)?;
        let mut writer = Self {
            file: BufWriter::with_capacity(1 << 20, file),
            position: 0,
            size,
            compression,
            l1: vec![0; entries],
            l2: None,
            counts: Vec::new(),
        };
        // The header is written last: until then the file is no qcow2.
        writer.append(&vec![0; usize::try_from(CLUSTER).unwrap_or(0)])?;
        writer.count(0, CLUSTER)?;
        Ok(writer)
    }

    /// Writes a cluster. They come in the order of their offsets.
    pub fn cluster(&mut self, offset: u64, bytes: &[u8], is_compressed: bool) -> Result<(), Error> {
        let index = offset / CLUSTER;
        let (table, at) = (index / L2_ENTRIES, index % L2_ENTRIES);
        let (table, at) =
            (usize::try_from(table).map_err(io::Error::other)?, usize::try_from(at).map_err(io::Error::other)?);
        if self.l2.as_ref().is_none_or(|(current, _)| *current != table) {
            self.finish_table()?;
            self.l2 = Some((table, vec![0; usize::try_from(L2_ENTRIES).unwrap_or(0)]));
        }
        let entry = if is_compressed { self.compressed(bytes)? } else { COPIED | self.aligned(bytes)? };
        if let Some((_, entries)) = &mut self.l2 {
            entries[at] = entry;
        }
        Ok(())
    }

    fn finish_table(&mut self) -> Result<(), Error> {
        if let Some((table, entries)) = self.l2.take() {
            self.l1[table] = COPIED | self.aligned(&big_endian(&entries))?;
        }
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn pad(&mut self, unit: u64) -> io::Result<()> {
        let missing = self.position.next_multiple_of(unit) - self.position;
        self.append(&vec![0; usize::try_from(missing).unwrap_or(0)])
    }

    /// Counts a reference to every cluster of the file that a range touches.
    fn count(&mut self, offset: u64, length: u64) -> Result<(), Error> {
        for cluster in offset / CLUSTER..(offset + length).div_ceil(CLUSTER) {
            let cluster = usize::try_from(cluster).map_err(io::Error::other)?;
            if self.counts.len() <= cluster {
                self.counts.resize(cluster + 1, 0);
            }
            self.counts[cluster] += 1;
        }
        Ok(())
    }

    /// Writes a compressed cluster where the last one ended, and returns its entry.
    fn compressed(&mut self, bytes: &[u8]) -> Result<u64, Error> {
        let offset = self.position;
        let further = (offset + bytes.len() as u64 - 1) / SECTOR - offset / SECTOR;
        self.append(bytes)?;
        self.count(offset, (offset / SECTOR + 1 + further) * SECTOR - offset)?;
        Ok(COMPRESSED | further << SECTORS_SHIFT | offset)
    }

    /// Writes whole clusters and returns where they are.
    fn aligned(&mut self, bytes: &[u8]) -> Result<u64, Error> {
        self.pad(CLUSTER)?;
        let offset = self.position;
        self.append(bytes)?;
        self.pad(CLUSTER)?;
        self.count(offset, self.position - offset)?;
        Ok(offset)
    }

    /// Writes the tables, and at last the header.
    pub fn finish(mut self) -> Result<(), Error> {
        self.finish_table()?;
        let l1 = std::mem::take(&mut self.l1);
        let l1_offset = self.aligned(&big_endian(&l1))?;
        let (counts_offset, counts_clusters) = self.reference_counts()?;
        let l1_entries = u32::try_from(l1.len()).map_err(io::Error::other)?;
        let header = header(self.compression, self.size, l1_entries, l1_offset, counts_offset, counts_clusters);
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&header)?;
        self.file.flush()?;
        Ok(())
    }

    /// Writes the reference counts, which count themselves, and returns where their table is and its clusters.
    fn reference_counts(&mut self) -> Result<(u64, u32), Error> {
        let first = self.position / CLUSTER;
        let (mut blocks, mut table) = (1, 1);
        loop {
            let needed = (first + blocks + table).div_ceil(COUNTS);
            let needed_table = (needed * 8).div_ceil(CLUSTER);
            if (needed, needed_table) == (blocks, table) {
                break;
            }
            (blocks, table) = (needed, needed_table);
        }
        self.count(self.position, (blocks + table) * CLUSTER)?;
        let places: Vec<u64> = (0..blocks).map(|block| (first + table + block) * CLUSTER).collect();
        let mut counts: Vec<u8> = self.counts.iter().flat_map(|count| count.to_be_bytes()).collect();
        counts.resize(usize::try_from(blocks * CLUSTER).map_err(io::Error::other)?, 0);
        let offset = self.position;
        self.append(&big_endian(&places))?;
        self.pad(CLUSTER)?;
        self.append(&counts)?;
        Ok((offset, u32::try_from(table).map_err(io::Error::other)?))
    }
}

fn big_endian(entries: &[u64]) -> Vec<u8> {
    entries.iter().flat_map(|entry| entry.to_be_bytes()).collect()
}

/// The header: `docs/interop/qcow2.rst`, "Header".
fn header(
    compression: Compression,
    size: u64,
    l1_entries: u32,
    l1_offset: u64,
    counts_offset: u64,
    counts_clusters: u32,
) -> Vec<u8> {
    let mut header = Vec::new();
    let u32 = |value: u32, header: &mut Vec<u8>| header.extend(value.to_be_bytes());
    let u64 = |value: u64, header: &mut Vec<u8>| header.extend(value.to_be_bytes());
    u32(MAGIC, &mut header);
    u32(3, &mut header);
    u64(0, &mut header); // backing file's name
    u32(0, &mut header); // and its length
    u32(CLUSTER_BITS, &mut header);
    u64(size, &mut header);
    u32(0, &mut header); // encryption
    u32(l1_entries, &mut header);
    u64(l1_offset, &mut header);
    u64(counts_offset, &mut header);
    u32(counts_clusters, &mut header);
    u32(0, &mut header); // snapshots
    u64(0, &mut header);
    // Incompatible features: another compression than zlib's.
    u64(if compression == Compression::Zlib { 0 } else { 1 << 3 }, &mut header);
    u64(0, &mut header); // compatible ones
    u64(0, &mut header); // and those that a writer clears
    u32(4, &mut header); // reference counts have 2 to the power of 4 bits
    u32(HEADER, &mut header);
    header.push(if compression == Compression::Zlib { 0 } else { 1 });
    header.extend([0; 7]);
    u64(0, &mut header); // no extensions
    header
}
