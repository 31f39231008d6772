//! A sealed disk in the formats that other places want, all of them in one pass.
//!
//! ```text
//!   sealed disk ── which clusters hold something                       layout.rs
//!        │ read once, front to back
//!        ▼
//!     batches ── inflated, summed, compressed on all processors        piece.rs
//!        │ a short queue for each format
//!        ├──► digest of the content
//!        ├──► raw.rs  vmdk.rs  vhd.rs  vhdx.rs  qcow2.rs  zstd.rs  gcp.rs  ova.rs
//!        │        each a function from pieces, in order, to bytes, front to back
//!        ▼
//!     files without their names, and what each of them is              sink.rs, direct.rs, behind.rs, flush.rs
//! ```
//!
//! `qemu-img convert` reads and inflates the whole disk for each format, and deflates a VMDK on one processor. Here a
//! sealed cluster's deflate stream, which is already there, is put into a VMDK or a gzip file as it is: it only has to be
//! inflated for the checksum behind it. Nothing but the queues is kept in memory, whatever the disk's size.

mod behind;
mod direct;
mod flush;
mod gcp;
mod hardware;
mod layout;
mod ova;
mod piece;
mod qcow2;
mod raw;
mod sink;
mod vhd;
mod vhdx;
mod vmdk;
mod zstd;

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::str::FromStr;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, mpsc};

use fs_err::File;

use self::behind::{Behind, Whole};
use self::flush::Flush;
pub use self::hardware::{Hardware, Place};
use self::layout::Layout;

use self::piece::{Batch, Piece, Pieces, Reader, Wants};
use self::sink::Digested;
use crate::disk::qcow2::{self as sealed, Content};

/// Formats that a disk is exported to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Bytes as the guest sees them, with holes.
    Raw,
    /// The same, compressed with Zstandard.
    RawZst,
    /// QEMU's own, zlib-compressed: the sealed bytes.
    Qcow2,
    /// QEMU's own, compressed with Zstandard, for QEMU from 5.1.
    Qcow2Zstd,
    /// VMware's, stream-optimised: what VM Import and vSphere take.
    Vmdk,
    /// Microsoft's older one, dynamic: Hyper-V generation 1.
    Vhd,
    /// The same with all its bytes, as Azure wants it.
    VhdFixed,
    /// Microsoft's newer one, dynamic: Hyper-V generation 2.
    Vhdx,
    /// A VMware appliance: description, stream-optimised VMDK and digests in one file.
    Ova,
    /// Google's: `disk.raw` in a gzip-compressed tar.
    Gcp,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Raw,
        Self::RawZst,
        Self::Qcow2,
        Self::Qcow2Zstd,
        Self::Vmdk,
        Self::Vhd,
        Self::VhdFixed,
        Self::Vhdx,
        Self::Ova,
        Self::Gcp,
    ];

    /// What users call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::RawZst => "raw.zst",
            Self::Qcow2 => "qcow2",
            Self::Qcow2Zstd => "qcow2-zstd",
            Self::Vmdk => "vmdk",
            Self::Vhd => "vhd",
            Self::VhdFixed => "vhd-fixed",
            Self::Vhdx => "vhdx",
            Self::Ova => "ova",
            Self::Gcp => "gcp",
        }
    }

    /// How its files' names end. No two formats share an ending.
    pub fn ending(self) -> &'static str {
        match self {
            Self::Qcow2Zstd => "zstd.qcow2",
            Self::VhdFixed => "fixed.vhd",
            Self::Gcp => "tar.gz",
            _ => self.name(),
        }
    }

    /// Whether it is written front to back, so that nothing of it has to be kept.
    pub fn is_streamed(self) -> bool {
        !matches!(self, Self::Qcow2 | Self::Qcow2Zstd | Self::Ova)
    }

    fn wants(self) -> Wants {
        let nothing = Wants::default();
        match self {
            Self::Raw | Self::Qcow2 | Self::Vhd | Self::VhdFixed | Self::Vhdx => nothing,
            Self::RawZst | Self::Qcow2Zstd => Wants { zstd: true, ..nothing },
            Self::Vmdk | Self::Ova => Wants { deflated: true, adler32: true, ..nothing },
            Self::Gcp => Wants { deflated: true, crc32: true, ..nothing },
        }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|format| format.name() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            format!("`{text}` is no export format: {known} are")
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a disk was not exported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sealed disk can't be read.
    #[error(transparent)]
    Sealed(#[from] sealed::Error),
    /// A file can't be written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The format has no room for the disk.
    #[error("the disk has {size} bytes, and a file of this format holds at most {most}; export it in another")]
    TooLarge {
        /// Size that a guest sees.
        size: u64,
        /// The format's limit.
        most: u64,
    },
    /// The format is not written front to back.
    #[error("{format} is not written front to back")]
    NotStreamed {
        /// The format.
        format: Format,
    },
    /// Whoever wanted it wants it no more.
    #[error("the export was cut off")]
    Cut,
}

/// A sealed disk to export.
#[derive(Debug, Clone, Copy)]
pub struct Disk<'a> {
    /// The file, a stand-alone qcow2.
    pub path: &'a Path,
    /// SHA-256 of the file. The identifiers that some formats hold come from it: the same disk makes the same files.
    pub sha256: &'a str,
    /// What the machine that it is for should have, and what it is called.
    pub hardware: &'a Hardware,
}

impl Disk<'_> {
    /// Sixteen bytes of its own for each purpose.
    fn identifier(&self, purpose: &str) -> [u8; 16] {
        let digest = crate::host::file::sha256_of(format!("{purpose} {}", self.sha256).as_bytes());
        let mut bytes = [0; 16];
        // What is cut off of a hexadecimal digest is a number all the same.
        bytes.copy_from_slice(&u128::from_str_radix(&digest[..32], 16).unwrap_or(0).to_be_bytes());
        // RFC 9562, section 5.8: a UUID of the writer's own making.
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        bytes
    }
}

/// A file to write: its format, and the open, empty file.
#[derive(Debug)]
pub struct Job {
    /// What is written.
    pub format: Format,
    /// Where to.
    pub file: File,
}

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// SHA-256 of the file.
    pub sha256: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Hears how many bytes of how many were read, and says whether to go on.
pub type Watch<'a> = &'a (dyn Fn(u64, u64) -> bool + Sync);

/// The digest of a disk's content and what was written; or at which format it failed, unless it was at the disk itself.
pub type Outcome = Result<(String, Vec<Written>), (Option<Format>, Error)>;

/// Batches that wait for a writer. With what is being read and written, about 20 MiB in the worst case.
const QUEUE: usize = 2;

/// Writes a disk in all formats at once. Returns the digest of its content, as [`crate::host::file::sha256_of_sparse`]
/// makes it of the raw disk, and what was written, in the order of the jobs. On failure the files are worth nothing.
pub fn write(disk: Disk<'_>, jobs: Vec<Job>, watch: Watch<'_>) -> Outcome {
    let of_the_disk = |error: sealed::Error| (None, error.into());
    let mut content = Content::open(disk.path).map_err(of_the_disk)?;
    let layout = &Layout::of(&mut content).map_err(of_the_disk)?;
    let wants = jobs.iter().fold(Wants::default(), |wants, job| wants.and(job.format.wants()));
    std::thread::scope(|scope| {
        let mut queues = Vec::new();
        let mut queue = || {
            let (sender, receiver) = mpsc::sync_channel(QUEUE);
            queues.push(sender);
            Pieces::new(receiver)
        };
        let flush = Flush::begin(scope, &jobs).map_err(|error| (None, error.into()))?;
        let pieces = queue();
        let digest = scope.spawn(move || sink::content_digest(layout, pieces));
        let mut whole = Whole::begin(scope, &jobs, layout.size()).map_err(|error| (None, error.into()))?;
        let mut writers = Vec::new();
        for Job { format, file } in jobs {
            let (pieces, behind) = (queue(), whole.of(format));
            let write = move || write_one(disk, format, layout, pieces, file, behind);
            writers.push((format, scope.spawn(write)));
        }
        let read = feed(content, layout, wants, &queues, watch);
        drop(queues);
        let digest = joined(digest);
        let written: Vec<_> = writers.into_iter().map(|(format, writer)| (format, joined(writer))).collect();
        flush.end()?;
        first_cause(read, digest, written)
    })
}

const PANICKED: &str = "a thread that exports has panicked";

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T, Error>>) -> Result<T, Error> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other(PANICKED).into()))
}

/// Everything that was written, or why not. When one ends early, all others are cut off; only the first is to blame.
fn first_cause(
    read: Result<(), Error>,
    digest: Result<String, Error>,
    written: Vec<(Format, Result<Written, Error>)>,
) -> Outcome {
    let mut files = Vec::new();
    let mut cut = None;
    for (format, written) in written {
        match written {
            Ok(written) => files.push(written),
            Err(Error::Cut) => cut = Some(format),
            Err(error) => return Err((Some(format), error)),
        }
    }
    read.map_err(|error| (None, error))?;
    match (digest, cut) {
        (Ok(digest), None) => Ok((digest, files)),
        (Err(error), _) => Err((None, error)),
        (_, Some(format)) => Err((Some(format), Error::Cut)),
    }
}

/// Writes a disk in a format to wherever bytes can go, front to back: [`Format::is_streamed`]. On failure, what was written is
/// worth nothing.
pub fn stream(disk: Disk<'_>, format: Format, to: &mut dyn Write, watch: Watch<'_>) -> Result<(), Error> {
    let mut content = Content::open(disk.path)?;
    let layout = &Layout::of(&mut content)?;
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(QUEUE);
        let read = scope.spawn(move || feed(content, layout, format.wants(), &[sender], watch));
        let written = write_front_to_back(disk, format, layout, Pieces::new(receiver), &mut sink::Plain(to));
        match (joined(read), written) {
            (Err(error), _) if !matches!(error, Error::Cut) => Err(error),
            (_, written) => written,
        }
    })
}

/// Bytes of a disk that may hold something: what is read for an export.
pub fn data(disk: &Path) -> Result<u64, Error> {
    Ok(Layout::of(&mut Content::open(disk)?)?.data())
}

/// Reads a disk and hands its pieces to all queues, until one of those who take them goes away.
fn feed(
    content: Content,
    layout: &Layout,
    wants: Wants,
    queues: &[SyncSender<Option<Batch>>],
    watch: Watch<'_>,
) -> Result<(), Error> {
    let total = layout.data();
    let mut reader = Reader::new(content, wants)?;
    let mut done = 0;
    loop {
        if !watch(done, total) {
            return Err(Error::Cut);
        }
        let (batch, clusters) = reader.batch()?;
        if clusters == 0 {
            break;
        }
        done += clusters * Content::CLUSTER;
        queues.iter().try_for_each(|queue| queue.send(Some(batch.clone()))).map_err(|_| Error::Cut)?;
    }
    for queue in queues {
        // A writer of an empty disk has not waited for it.
        let _ended = queue.send(None);
    }
    Ok(())
}

fn write_one(
    disk: Disk<'_>,
    format: Format,
    layout: &Layout,
    pieces: Pieces,
    file: File,
    behind: Option<Behind>,
) -> Result<Written, Error> {
    // Those that know something only at the end go back for it, and are read once more for their digest.
    match format {
        Format::Qcow2 => return qcow2::copy(disk, pieces, file),
        Format::Qcow2Zstd => return qcow2::write(layout, pieces, file),
        Format::Ova => return ova::write(disk, layout, pieces, file),
        _ => {}
    }
    let mut to = Digested::new(file, behind);
    write_front_to_back(disk, format, layout, pieces, &mut to)?;
    to.finish()
}

fn write_front_to_back(
    disk: Disk<'_>,
    format: Format,
    layout: &Layout,
    pieces: Pieces,
    to: &mut dyn sink::Sink,
) -> Result<(), Error> {
    match format {
        Format::Raw => raw::write(layout, pieces, to),
        Format::RawZst => zstd::write(layout, pieces, to),
        Format::Vmdk => vmdk::write(layout, pieces, to),
        Format::Vhd => vhd::write_dynamic(disk, layout, pieces, to),
        Format::VhdFixed => vhd::write_fixed(disk, layout, pieces, to),
        Format::Vhdx => vhdx::write(disk, layout, pieces, to),
        Format::Gcp => gcp::write(layout, pieces, to),
        Format::Qcow2 | Format::Qcow2Zstd | Format::Ova => Err(Error::NotStreamed { format }),
    }
}

/// A length in memory.
fn small(length: u64) -> io::Result<usize> {
    usize::try_from(length).map_err(io::Error::other)
}

type Shared = Arc<Piece>;

#[cfg(test)]
mod tests;
