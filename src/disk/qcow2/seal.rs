//! A stand-alone compressed qcow2 of a chain of overlays.
//!
//! A build changes a small part of its parent. Clusters that the parent holds compressed are copied as they are; only
//! what was written since is compressed, on all processors. `qemu-img convert` would inflate and deflate all of it.
//!
//! ```text
//!   header │ clusters, one after another │ level-2 tables │ level-1 table │ reference counts
//! ```

use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use flate2::{Compress, Compression, FlushCompress, Status};
use fs_err::File;

use super::map::{Chain, Cluster};
use super::{CLUSTER, CLUSTER_BITS, COMPRESSED, COPIED, Error, L2_ENTRIES, MAGIC, SECTOR, SECTORS_SHIFT};

/// QEMU inflates with a window of 4 KiB and no zlib header.
const WINDOW_BITS: u8 = 12;
/// Clusters that are read, compressed and written together: 16 MiB.
const BATCH: usize = 256;
/// Bytes of a version 3 header without optional fields, and the empty list of extensions behind it.
const HEADER: u32 = 104;
/// A reference count has 16 bits, so a cluster holds so many.
const COUNTS: u64 = CLUSTER / 2;

/// Writes what a guest would see on `disk` to an empty file. `progress` hears which part is done, from 0 to 1.
pub fn seal(disk: &Path, to: File, progress: &dyn Fn(f64)) -> Result<(), Error> {
    let mut chain = Chain::open(disk)?;
    let clusters = chain.size() / CLUSTER;
    let mut writer = Writer::new(to, chain.size())?;
    let mut batch = Vec::with_capacity(BATCH);
    let mut index = 0;
    while index < clusters {
        if !chain.has_table(index / L2_ENTRIES) {
            // Half a gigabyte that nobody has written to.
            index = (index / L2_ENTRIES + 1) * L2_ENTRIES;
            continue;
        }
        if let Some(job) = job(&mut chain, index)? {
            batch.push(job);
        }
        index += 1;
        if batch.len() == BATCH {
            writer.write(std::mem::take(&mut batch))?;
            #[allow(clippy::cast_precision_loss)]
            progress(index as f64 / clusters as f64);
        }
    }
    writer.write(batch)?;
    writer.finish()?;
    progress(1.0);
    Ok(())
}

/// A cluster on its way into the new file.
struct Job {
    index: u64,
    bytes: Vec<u8>,
    is_compressed: bool,
}

fn job(chain: &mut Chain, index: u64) -> Result<Option<Job>, Error> {
    let (file, offset, length, is_compressed) = match chain.cluster(index)? {
        Cluster::Zero => return Ok(None),
        Cluster::Data { file, offset } => (file, offset, CLUSTER, false),
        Cluster::Compressed { file, offset, length } => (file, offset, length, true),
    };
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    chain.read(file, offset, &mut bytes)?;
    let is_zero = !is_compressed && bytes.iter().all(|byte| *byte == 0);
    Ok((!is_zero).then_some(Job { index, bytes, is_compressed }))
}

/// Compresses what is not compressed yet and gains by it.
fn compress_all(jobs: &mut [Job]) -> io::Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut plain: Vec<&mut Job> = jobs.iter_mut().filter(|job| !job.is_compressed).collect();
    let share = plain.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let compress = |jobs: &mut [&mut Job]| jobs.iter_mut().try_for_each(|job| compress(job));
        let workers: Vec<_> = plain.chunks_mut(share).map(|jobs| scope.spawn(move || compress(jobs))).collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().map_err(|_| io::Error::other("a thread that compresses has panicked"))?
        })
    })
}

fn compress(job: &mut Job) -> io::Result<()> {
    let mut deflate = Compress::new_with_window_bits(Compression::default(), false, WINDOW_BITS);
    // What does not shrink stays as it is.
    let mut out = vec![0; job.bytes.len() - 1];
    let status = deflate.compress(&job.bytes, &mut out, FlushCompress::Finish).map_err(io::Error::other)?;
    if status == Status::StreamEnd {
        out.truncate(usize::try_from(deflate.total_out()).map_err(io::Error::other)?);
        job.bytes = out;
        job.is_compressed = true;
    }
    Ok(())
}

struct Writer {
    file: BufWriter<File>,
    position: u64,
    size: u64,
    /// Level-2 tables that have an entry.
    tables: Vec<Option<Vec<u64>>>,
    /// How often each cluster of the file is referred to.
    counts: Vec<u16>,
}

impl Writer {
    fn new(file: File, size: u64) -> Result<Self, Error> {
        let tables = usize::try_from(size.div_ceil(CLUSTER * L2_ENTRIES)).map_err(io::Error::other)?;
        let mut writer = Self {
            file: BufWriter::with_capacity(1 << 20, file),
            position: 0,
            size,
            tables: vec![None; tables],
            counts: Vec::new(),
        };
        // The header is written last: until then the file is no qcow2.
        writer.append(&vec![0; usize::try_from(CLUSTER).unwrap_or(0)])?;
        writer.count(0, CLUSTER)?;
        Ok(writer)
    }

    fn write(&mut self, mut jobs: Vec<Job>) -> Result<(), Error> {
        compress_all(&mut jobs)?;
        for job in jobs {
            let entry =
                if job.is_compressed { self.compressed(&job.bytes)? } else { COPIED | self.aligned(&job.bytes)? };
            let (table, at) = (job.index / L2_ENTRIES, job.index % L2_ENTRIES);
            let (table, at) =
                (usize::try_from(table).map_err(io::Error::other)?, usize::try_from(at).map_err(io::Error::other)?);
            let entries = usize::try_from(L2_ENTRIES).unwrap_or(0);
            self.tables[table].get_or_insert_with(|| vec![0; entries])[at] = entry;
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

    fn finish(mut self) -> Result<(), Error> {
        let tables = std::mem::take(&mut self.tables);
        let mut l1 = Vec::with_capacity(tables.len());
        for table in tables {
            l1.push(match table {
                Some(entries) => COPIED | self.aligned(&big_endian(&entries))?,
                None => 0,
            });
        }
        let l1_offset = self.aligned(&big_endian(&l1))?;
        let (counts_offset, counts_clusters) = self.reference_counts()?;
        let l1_entries = u32::try_from(l1.len()).map_err(io::Error::other)?;
        let header = header(self.size, l1_entries, l1_offset, counts_offset, counts_clusters);
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
fn header(size: u64, l1_entries: u32, l1_offset: u64, counts_offset: u64, counts_clusters: u32) -> Vec<u8> {
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
    u64(0, &mut header); // incompatible features
    u64(0, &mut header); // compatible ones
    u64(0, &mut header); // and those that a writer clears
    u32(4, &mut header); // reference counts have 2 to the power of 4 bits
    u32(HEADER, &mut header);
    u64(0, &mut header); // no extensions
    header
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn run(program: &str, arguments: &[&str]) {
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A parent with compressed clusters, an overlay on it with what QEMU writes, and another one on that, larger.
    fn chain(folder: &Path, parent: &[String], overlay: &[String], top: &[String]) -> std::path::PathBuf {
        let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let io = |disk: &str, commands: &[String]| {
            let mut words: Vec<&str> = vec!["-f", "qcow2", "-d", "unmap"];
            commands.iter().for_each(|command| words.extend(["-c", command]));
            run("qemu-io", &[&words[..], &[disk]].concat());
        };
        run("qemu-img", &["create", "-q", "-f", "qcow2", &at("plain"), "8M"]);
        io(&at("plain"), parent);
        run("qemu-img", &["convert", "-c", "-f", "qcow2", "-O", "qcow2", &at("plain"), &at("parent")]);
        run("qemu-img", &["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &at("parent"), &at("overlay"), "12M"]);
        io(&at("overlay"), overlay);
        run("qemu-img", &["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &at("overlay"), &at("top"), "600M"]);
        io(&at("top"), top);
        folder.join("top")
    }

    fn assert_sealed(disk: &Path, sealed: &Path) {
        seal(disk, File::create(sealed).unwrap(), &|_| {}).unwrap();
        let (disk, sealed) = (disk.to_str().unwrap(), sealed.to_str().unwrap());
        run("qemu-img", &["check", "-q", "-f", "qcow2", sealed]);
        run("qemu-img", &["compare", "-q", "-f", "qcow2", "-F", "qcow2", disk, sealed]);
    }

    /// Something that a guest does with its disk of so many KiB.
    fn write(size: u64) -> impl Strategy<Value = String> {
        let write = |at: u64, length: u64, what: u8, byte: u8| match what {
            0 => format!("write -z {}k {length}k", at * 4),
            1 => format!("discard {}k {length}k", at * 4),
            _ => format!("write -P {byte} {}k {length}k", at * 4),
        };
        (0..size / 4 - 64, 1..200u64, 0..5u8, 0..255u8)
            .prop_map(move |(at, length, what, byte)| write(at, length, what, byte))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn qemu_reads_the_same_from_a_sealed_disk(
            parent in prop::collection::vec(write(8 << 10), 0..12),
            overlay in prop::collection::vec(write(12 << 10), 0..8),
            top in prop::collection::vec(write(600 << 10), 0..8),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let disk = chain(folder.path(), &parent, &overlay, &top);
            assert_sealed(&disk, &folder.path().join("sealed"));
        }
    }

    #[test]
    fn what_does_not_compress_is_stored_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let noise: Vec<u8> =
            (0..4).flat_map(|_| (0..16 << 10).flat_map(|_| *uuid::Uuid::new_v4().as_bytes())).collect();
        fs_err::write(folder.path().join("noise"), &noise).unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        for compression in ["-c", "-q"] {
            run("qemu-img", &["convert", compression, "-f", "raw", "-O", "qcow2", &at("noise"), &at("parent")]);
            run("qemu-img", &["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &at("parent"), &at("top")]);
            assert_sealed(&folder.path().join("top"), &folder.path().join("sealed"));
            assert!(fs_err::metadata(at("sealed")).unwrap().len() >= 1 << 20);
        }
    }

    #[test]
    fn unusual_and_damaged_disks_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let sealed = folder.path().join("sealed");
        for option in ["cluster_size=4k", "compression_type=zstd", "extended_l2=on,cluster_size=64k"] {
            run("qemu-img", &["create", "-q", "-f", "qcow2", "-o", option, &at("unusual"), "8M"]);
            let refused = seal(&folder.path().join("unusual"), File::create(&sealed).unwrap(), &|_| {});
            assert!(matches!(refused, Err(Error::Unusual(_))), "{option}: {refused:?}");
        }
        run("qemu-img", &["create", "-q", "-f", "qcow2", &at("damaged"), "8M"]);
        run("qemu-io", &["-f", "qcow2", "-c", "write 0 64k", &at("damaged")]);
        let whole = fs_err::read(at("damaged")).unwrap();
        // Every prefix, and every bit of the header, ends in a result.
        for length in [0, 71, 104, 1 << 16, 5 << 16] {
            fs_err::write(at("damaged"), &whole[..length.min(whole.len())]).unwrap();
            let refused = seal(&folder.path().join("damaged"), File::create(&sealed).unwrap(), &|_| {});
            assert!(refused.is_err(), "{length}");
        }
        for bit in 0..104 * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs_err::write(at("damaged"), &bytes).unwrap();
            drop(Chain::open(&folder.path().join("damaged")).map(|mut chain| {
                (0..(chain.size() / CLUSTER).min(1 << 10)).try_for_each(|index| chain.cluster(index).map(drop))
            }));
        }
    }
}
