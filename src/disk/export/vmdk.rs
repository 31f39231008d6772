//! VMware's stream-optimised VMDK.
//!
//! Source: VMware's "Virtual Disk Format 5.0", sections "Hosted Sparse Extent" and "Stream-Optimized Compressed Sparse
//! Extents". All numbers are little-endian.
//!
//! ```text
//!   header │ descriptor │ grain, grain, …, grain table │ grain, …, grain table │ … │ grain directory │ footer │ end
//! ```
//!
//! The footer is the header again, with the directory's place: so it takes nothing but writing front to back. A grain is a
//! zlib stream of 64 KiB, which is a cluster's deflate stream with two bytes before it and its Adler-32 behind it. Sealed
//! clusters are deflated with a window of 4 KiB instead of the 32 KiB that `qemu-img` takes for a VMDK. On a Debian with
//! nginx that made a file of 222.4 MB instead of 211.3, 5.3 % more, and took 4.1 seconds of processor time instead of
//! 27.1, and on all processors instead of one; `cargo xtask bench` compares both.

use std::io::Write;

use super::layout::Layout;
use super::piece::{Piece, Pieces};
use super::{Error, small};
use crate::disk::qcow2::Content;

const SECTOR: u64 = 512;
const GRAIN: u64 = Content::CLUSTER / SECTOR;
/// Grains of a grain table, which takes four sectors.
const TABLE: u64 = 512;
/// Where grains begin, in sectors.
const OVERHEAD: u64 = 128;
const DESCRIPTOR_SECTORS: u64 = 20;
/// Places in the file are counted in sectors, in 32 bits.
const MAX_SECTORS: u64 = u32::MAX as u64;
/// "The directory's place is in the footer."
const AT_END: u64 = u64::MAX;
/// Bit 0: line ends can be checked; bit 16: grains are compressed; bit 17: there are markers.
const FLAGS: u32 = 1 | 1 << 16 | 1 << 17;

/// What a marker says of what follows it.
const END_OF_STREAM: u32 = 0;
const GRAIN_TABLE: u32 = 1;
const GRAIN_DIRECTORY: u32 = 2;
const FOOTER: u32 = 3;

/// Writes a disk.
pub(super) fn write(layout: &Layout, pieces: Pieces, to: &mut dyn Write) -> Result<(), Error> {
    let capacity = layout.size().div_ceil(SECTOR);
    let mut writer = Writer { to, sector: 0, directory: Vec::new(), table: None };
    writer.append(&header(capacity, AT_END))?;
    let mut descriptor = descriptor(capacity).into_bytes();
    descriptor.resize(small((OVERHEAD - 1) * SECTOR)?, 0);
    writer.append(&descriptor)?;
    for piece in pieces {
        let piece = piece?;
        writer.grain(&piece)?;
    }
    writer.finish_table()?;
    writer.directory.resize(small(capacity.div_ceil(GRAIN * TABLE))?, 0);
    let directory: Vec<u8> = writer.directory.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    let place = writer.metadata(GRAIN_DIRECTORY, directory)?;
    writer.metadata(FOOTER, header(capacity, place))?;
    writer.append(&marker(0, END_OF_STREAM))?;
    Ok(writer.to.flush()?)
}

struct Writer<'a> {
    to: &'a mut dyn Write,
    /// Where the file ends, in sectors.
    sector: u64,
    /// Where each grain table is, in sectors; 0 where there is none.
    directory: Vec<u32>,
    /// The grain table that is being filled: which, and where its grains are.
    table: Option<(usize, Vec<u32>)>,
}

impl Writer<'_> {
    fn grain(&mut self, piece: &Piece) -> Result<(), Error> {
        let number = piece.offset / Content::CLUSTER;
        let (table, at) = (small(number / TABLE)?, small(number % TABLE)?);
        if self.table.as_ref().is_none_or(|(current, _)| *current != table) {
            self.finish_table()?;
            self.table = Some((table, vec![0; small(TABLE)?]));
        }
        let place = self.place()?;
        if let Some((_, entries)) = &mut self.table {
            entries[at] = place;
        }
        // Deflated with a window of at most 32 KiB, at the usual level; 0x789c is a multiple of 31.
        let length = 2 + piece.deflated.len() + 4;
        let mut bytes = Vec::with_capacity(length + 12 + small(SECTOR)?);
        bytes.extend((number * GRAIN).to_le_bytes());
        bytes.extend(u32::try_from(length).map_err(std::io::Error::other)?.to_le_bytes());
        bytes.extend([0x78, 0x9c]);
        bytes.extend(&piece.deflated);
        bytes.extend(piece.adler32.to_be_bytes());
        self.append(&padded(bytes))
    }

    fn finish_table(&mut self) -> Result<(), Error> {
        let Some((table, entries)) = self.table.take() else { return Ok(()) };
        let entries = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        let place = self.metadata(GRAIN_TABLE, entries)?;
        self.directory.resize(table, 0);
        self.directory.push(u32::try_from(place).map_err(std::io::Error::other)?);
        Ok(())
    }

    /// Writes a marker and what it is about, and returns where that is, in sectors.
    fn metadata(&mut self, what: u32, bytes: Vec<u8>) -> Result<u64, Error> {
        let bytes = padded(bytes);
        self.append(&marker(bytes.len() as u64 / SECTOR, what))?;
        let place = self.place()?;
        self.append(&bytes)?;
        Ok(place.into())
    }

    /// Where the file ends, as far as places can be told.
    fn place(&self) -> Result<u32, Error> {
        let most = MAX_SECTORS * SECTOR;
        u32::try_from(self.sector).map_err(|_| Error::TooLarge { size: self.sector * SECTOR, most })
    }

    fn append(&mut self, sectors: &[u8]) -> Result<(), Error> {
        self.to.write_all(sectors)?;
        self.sector += sectors.len() as u64 / SECTOR;
        Ok(())
    }
}

fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn marker(sectors: u64, what: u32) -> Vec<u8> {
    let mut marker = sectors.to_le_bytes().to_vec();
    marker.extend(0_u32.to_le_bytes()); // no data: it is metadata
    marker.extend(what.to_le_bytes());
    padded(marker)
}

/// `SparseExtentHeader`, packed.
fn header(capacity: u64, directory: u64) -> Vec<u8> {
    let mut header = b"KDMV".to_vec();
    header.extend(3_u32.to_le_bytes()); // version
    header.extend(FLAGS.to_le_bytes());
    header.extend(capacity.to_le_bytes());
    header.extend(GRAIN.to_le_bytes());
    header.extend(1_u64.to_le_bytes()); // descriptor's place
    header.extend(DESCRIPTOR_SECTORS.to_le_bytes());
    header.extend(512_u32.to_le_bytes()); // entries of a grain table
    header.extend(0_u64.to_le_bytes()); // no redundant directory
    header.extend(directory.to_le_bytes());
    header.extend(OVERHEAD.to_le_bytes());
    header.push(0); // shut down cleanly
    header.extend(b"\n \r\n"); // spoilt by programs that take it for text
    header.extend(1_u16.to_le_bytes()); // deflate
    padded(header)
}

/// The text that names the disk's parts: itself alone. A geometry is asked for by old readers and counts for nothing.
fn descriptor(capacity: u64) -> String {
    let cylinders = (capacity / (255 * 63)).clamp(1, 65535);
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\n\n\
         # Extent description\nRW {capacity} SPARSE \"disk.vmdk\"\n\n# The Disk Data Base\n#DDB\n\n\
         ddb.virtualHWVersion = \"8\"\nddb.geometry.cylinders = \"{cylinders}\"\nddb.geometry.heads = \"255\"\n\
         ddb.geometry.sectors = \"63\"\nddb.adapterType = \"lsilogic\"\n"
    )
}
