//! A stand-alone compressed qcow2 of a chain of overlays.
//!
//! A build changes a small part of its parent. Clusters that the parent holds compressed are copied as they are; only
//! what was written since is compressed, on all processors. `qemu-img convert` would inflate and deflate all of it.

use std::io;
use std::path::Path;

use flate2::{Compress, FlushCompress, Status};
use fs_err::File;

use super::map::{Chain, Cluster};
use super::writer::Writer;
use super::{CLUSTER, Compression, Error, L2_ENTRIES};

/// QEMU inflates with a window of 4 KiB and no zlib header.
const WINDOW_BITS: u8 = 12;
/// Clusters that are read, compressed and written together: 16 MiB.
const BATCH: usize = 256;
/// Writes what a guest would see on `disk` to an empty file. `progress` hears which part is done, from 0 to 1.
pub fn seal(disk: &Path, to: File, progress: &dyn Fn(f64)) -> Result<(), Error> {
    let mut chain = Chain::open(disk)?;
    let clusters = chain.size() / CLUSTER;
    let mut writer = Writer::new(to, chain.size(), Compression::Zlib)?;
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
            write_all(&mut writer, std::mem::take(&mut batch))?;
            #[allow(clippy::cast_precision_loss)]
            progress(index as f64 / clusters as f64);
        }
    }
    write_all(&mut writer, batch)?;
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

fn write_all(writer: &mut Writer, mut jobs: Vec<Job>) -> Result<(), Error> {
    compress_all(&mut jobs)?;
    jobs.iter().try_for_each(|job| writer.cluster(job.index * CLUSTER, &job.bytes, job.is_compressed))
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
    let mut deflate = Compress::new_with_window_bits(flate2::Compression::default(), false, WINDOW_BITS);
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
