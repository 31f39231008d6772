//! QEMU's qcow2: the sealed bytes, or compressed anew with Zstandard.

use std::io::{self, Read};

use fs_err::File;

use super::layout::Layout;
use super::piece::Pieces;
use super::{Disk, Error, Written};
use crate::disk::qcow2::{Compression, Content, Writer};
use crate::host::file;

/// Copies the very bytes that were tested, as quickly as the others are written: who gives up one gives up all.
pub(super) fn copy(disk: Disk<'_>, pieces: Pieces, to: File) -> Result<Written, Error> {
    let from = File::open(disk.path)?;
    // The kernel copies between plain files.
    let (mut from, mut to) = (from.file(), to.file());
    let mut bytes = 0;
    for piece in pieces {
        piece?;
        bytes += io::copy(&mut from.take(Content::CLUSTER), &mut to)?;
    }
    bytes += io::copy(&mut from, &mut to)?;
    Ok(Written { sha256: disk.sha256.to_owned(), bytes })
}

/// Writes a file of Zstandard clusters.
pub(super) fn write(layout: &Layout, pieces: Pieces, to: File) -> Result<Written, Error> {
    let path = to.path().to_owned();
    let mut writer = Writer::new(to, layout.size(), Compression::Zstd)?;
    for piece in pieces {
        let piece = piece?;
        let is_smaller = piece.zstd.len() < piece.bytes.len();
        let bytes = if is_smaller { &piece.zstd } else { &piece.bytes };
        writer.cluster(piece.offset, bytes, is_smaller)?;
    }
    writer.finish()?;
    let bytes = fs_err::metadata(&path)?.len();
    Ok(Written { sha256: file::sha256(&path)?, bytes })
}
