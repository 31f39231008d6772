//! A raw disk compressed with Zstandard (RFC 8878).
//!
//! Each piece is a frame of its own: the very one that a qcow2 with Zstandard clusters holds, so both together cost one
//! compression. Readers take any number of frames one after another.

use std::io::{self, Write};

use super::layout::Layout;
use super::piece::Pieces;
use super::{Error, small};
use crate::disk::qcow2::Content;

/// Bytes of the longest frame of zeroes; half a kilobyte of file.
const MOST: u64 = 16 << 20;

/// Writes a disk.
pub(super) fn write(layout: &Layout, pieces: Pieces, to: &mut dyn Write) -> Result<(), Error> {
    let many = frame(MOST)?;
    let mut at = 0;
    for piece in pieces {
        let piece = piece?;
        zeroes(piece.offset - at, &many, to)?;
        at = (piece.offset + Content::CLUSTER).min(layout.size());
        if at % Content::CLUSTER == 0 {
            to.write_all(&piece.zstd)?;
        } else {
            // The disk's last cluster is not a whole one.
            to.write_all(&compressed(&piece.bytes[..small(at - piece.offset)?])?)?;
        }
    }
    zeroes(layout.size() - at, &many, to)?;
    Ok(to.flush()?)
}

fn zeroes(mut length: u64, many: &[u8], to: &mut dyn Write) -> io::Result<()> {
    while length >= MOST {
        to.write_all(many)?;
        length -= MOST;
    }
    if length > 0 {
        to.write_all(&frame(length)?)?;
    }
    Ok(())
}

fn frame(length: u64) -> io::Result<Vec<u8>> {
    compressed(&vec![0; small(length)?])
}

fn compressed(bytes: &[u8]) -> io::Result<Vec<u8>> {
    zstd::bulk::compress(bytes, zstd::DEFAULT_COMPRESSION_LEVEL)
}
