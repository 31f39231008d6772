//! qcow2, as far as sealing and exporting a disk need it: where the clusters of a chain of overlays lie, a new file of
//! them, and what is on that file.
//!
//! Source: QEMU's `docs/interop/qcow2.rst`. What is read here was written by QEMU or `qemu-img`, never by a guest; it is
//! bounded all the same. Layouts that are not plain (other cluster sizes, encryption, external data, extended tables,
//! another compression) are [`Error::Unusual`], and `qemu-img` copies those disks instead.

mod content;
mod map;
mod seal;
mod writer;

use std::io;

pub use content::{Content, Form, Inflater};
pub use seal::seal;
pub use writer::{Compression, Writer};

/// The one cluster size that is read and written here; it is QEMU's default.
const CLUSTER: u64 = 1 << CLUSTER_BITS;
const CLUSTER_BITS: u32 = 16;
/// Entries of a level-2 table, which fills one cluster.
const L2_ENTRIES: u64 = CLUSTER / 8;
/// `QFI\xfb`.
const MAGIC: u32 = 0x5146_49fb;
/// Bits 9 to 55 of a table's entry: a cluster's place in the file.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Bit 62 of a level-2 entry: the cluster is compressed.
const COMPRESSED: u64 = 1 << 62;
/// Bit 63 of an entry: nobody else refers to the cluster.
const COPIED: u64 = 1 << 63;
/// Where the number of further sectors begins in a compressed cluster's entry: 62 - (cluster bits - 8).
const SECTORS_SHIFT: u32 = 62 - (CLUSTER_BITS - 8);
const SECTOR: u64 = 512;

/// Why a disk was not sealed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is laid out in a way that is not handled here.
    #[error("the qcow2 {0}")]
    Unusual(&'static str),
    /// Its tables contradict each other.
    #[error("the qcow2 is damaged: {0}")]
    Damaged(&'static str),
    /// It can't be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}
