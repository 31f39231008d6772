//! What Google's Compute Engine takes: `disk.raw` in a gzip-compressed tar, of whole GiB.
//!
//! Sources: RFC 1952, and GNU tar's "Basic Tar Format" for the old GNU header, which Google asks for. The file is a row of
//! gzip members, one for each cluster, made of the deflate stream that the sealed disk has already. Readers take any
//! number of members (RFC 1952, section 2.2). GNU tar's form for sparse files would save a thousandth of the zeroes, and
//! is read by fewer programs.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::layout::Layout;
use super::piece::{Piece, Pieces};
use super::{Error, small};
use crate::disk::GIB;
use crate::disk::qcow2::Content;

/// Zeroes of the longest member: 16 KiB of file.
const MOST: u64 = 16 << 20;

/// Writes a disk.
pub(super) fn write(layout: &Layout, pieces: Pieces, to: &mut dyn Write) -> Result<(), Error> {
    let size = layout.size().next_multiple_of(GIB);
    let mut header = tar::Header::new_gnu();
    header.set_path("disk.raw")?;
    header.set_mode(0o644);
    header.set_size(size);
    header.set_cksum();
    to.write_all(&member(header.as_bytes())?)?;
    let zeroes = Zeroes { one: zero_member(Content::CLUSTER)?, many: zero_member(MOST)? };
    let mut at = 0;
    for piece in pieces {
        let piece = piece?;
        zeroes.write(piece.offset - at, to)?;
        put(&piece, to)?;
        at = piece.offset + Content::CLUSTER;
    }
    zeroes.write(size - at, to)?;
    // Two empty headers, and what fills tar's usual record of twenty blocks.
    let end = (512 + size + 1024).next_multiple_of(20 * 512) - 512 - size;
    to.write_all(&zero_member(end)?)?;
    Ok(to.flush()?)
}

/// A piece as a member: RFC 1952, section 2.3.
fn put(piece: &Piece, to: &mut dyn Write) -> io::Result<()> {
    // Deflate, no flags, no time, no hint at the effort, an unknown system.
    to.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255])?;
    to.write_all(&piece.deflated)?;
    to.write_all(&piece.crc32.to_le_bytes())?;
    to.write_all(&u32::try_from(piece.bytes.len()).map_err(io::Error::other)?.to_le_bytes())
}

struct Zeroes {
    one: Vec<u8>,
    many: Vec<u8>,
}

impl Zeroes {
    /// So many zeroes, in clusters.
    fn write(&self, length: u64, to: &mut dyn Write) -> io::Result<()> {
        for _ in 0..length / MOST {
            to.write_all(&self.many)?;
        }
        for _ in 0..length % MOST / Content::CLUSTER {
            to.write_all(&self.one)?;
        }
        Ok(())
    }
}

fn zero_member(length: u64) -> io::Result<Vec<u8>> {
    member(&vec![0; small(length)?])
}

fn member(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    encoder.finish()
}
