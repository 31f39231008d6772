//! Microsoft's VHD, dynamic and fixed.
//!
//! Source: "Virtual Hard Disk Image Format Specification" 1.0. All numbers are big-endian.
//!
//! ```text
//!   dynamic: footer │ header │ block allocation table │ block: bitmap, 2 MiB │ block … │ footer
//!   fixed:   the disk's bytes │ footer
//! ```
//!
//! Azure takes fixed disks of whole MiB, so both are rounded up. A dynamic file could do without; the same disk should
//! have the same size in both.

use super::layout::Layout;
use super::piece::Pieces;
use super::sink::{Sink, span};
use super::{Disk, Error};
use crate::disk::{GIB, MIB};

const SECTOR: u64 = 512;
const BLOCK: u64 = 2 * MIB;
/// What Virtual PC, Hyper-V and QEMU agree on.
const MAX_SIZE: u64 = 2040 * GIB;
/// Where the table begins: behind a footer and the header of a dynamic disk.
const TABLE: u64 = 512 + 1024;
/// An entry of the table whose block is not there; and where a chain of such headers ends.
const UNUSED: u32 = u32::MAX;

/// Kinds of disk.
#[derive(Clone, Copy)]
enum Kind {
    Fixed = 2,
    Dynamic = 3,
}

/// Writes a file with the blocks that hold something.
pub(super) fn write_dynamic(disk: Disk<'_>, layout: &Layout, pieces: Pieces, to: &mut dyn Sink) -> Result<(), Error> {
    let size = rounded(layout)?;
    let footer = footer(size, Kind::Dynamic, disk.identifier("vhd"));
    let blocks = size.div_ceil(BLOCK);
    to.write_all(&footer)?;
    to.write_all(&dynamic_header(blocks)?)?;
    let data = (TABLE + blocks * 4).next_multiple_of(SECTOR);
    let mut next = data / SECTOR;
    for block in 0..blocks {
        let entry = if layout.has_data(block * BLOCK, BLOCK) {
            let here = next;
            next += (SECTOR + BLOCK) / SECTOR;
            u32::try_from(here).map_err(|_| Error::TooLarge { size, most: MAX_SIZE })?
        } else {
            UNUSED
        };
        to.write_all(&entry.to_be_bytes())?;
    }
    for _ in TABLE + blocks * 4..data {
        to.write_all(&[0xff])?;
    }
    let mut pieces = pieces.peekable();
    for block in (0..blocks).filter(|block| layout.has_data(block * BLOCK, BLOCK)) {
        // All of its sectors are there.
        to.write_all(&[0xff; 512])?;
        span(&mut pieces, block * BLOCK, (block + 1) * BLOCK, to)?;
    }
    Ok(to.write_all(&footer)?)
}

/// Writes a file with all bytes, with holes where the file system has them.
pub(super) fn write_fixed(disk: Disk<'_>, layout: &Layout, pieces: Pieces, to: &mut dyn Sink) -> Result<(), Error> {
    let size = rounded(layout)?;
    span(&mut pieces.peekable(), 0, size, to)?;
    Ok(to.write_all(&footer(size, Kind::Fixed, disk.identifier("vhd-fixed")))?)
}

fn rounded(layout: &Layout) -> Result<u64, Error> {
    let size = layout.size().next_multiple_of(MIB);
    if size > MAX_SIZE { Err(Error::TooLarge { size, most: MAX_SIZE }) } else { Ok(size) }
}

/// "Hard Disk Footer Format".
fn footer(size: u64, kind: Kind, id: [u8; 16]) -> Vec<u8> {
    let (cylinders, heads, sectors) = geometry(size / SECTOR);
    let table = match kind {
        Kind::Fixed => u64::MAX,
        Kind::Dynamic => SECTOR,
    };
    let mut footer = b"conectix".to_vec();
    footer.extend(2_u32.to_be_bytes()); // features: the bit that is always set
    footer.extend(0x0001_0000_u32.to_be_bytes()); // version
    footer.extend(table.to_be_bytes());
    footer.extend(0_u32.to_be_bytes()); // made at the beginning of 2000
    // Who made it: of most others readers take the geometry for the size, and that is a little less.
    footer.extend(b"win \x00\x0a\x00\x00Wi2k");
    footer.extend(size.to_be_bytes());
    footer.extend(size.to_be_bytes());
    footer.extend(cylinders.to_be_bytes());
    footer.extend([heads, sectors]);
    footer.extend((kind as u32).to_be_bytes());
    checked(footer, 64, |footer| footer.extend(id), 512)
}

/// "Dynamic Disk Header Format".
fn dynamic_header(blocks: u64) -> Result<Vec<u8>, Error> {
    let mut header = b"cxsparse".to_vec();
    header.extend(u64::MAX.to_be_bytes()); // nothing follows
    header.extend(TABLE.to_be_bytes());
    header.extend(0x0001_0000_u32.to_be_bytes()); // version
    header.extend(u32::try_from(blocks).map_err(std::io::Error::other)?.to_be_bytes());
    header.extend((2_u32 << 20).to_be_bytes()); // bytes of a block
    Ok(checked(header, 36, |_| {}, 1024))
}

/// A structure with its checksum, the complement of the sum of its bytes, at `at`, and the rest behind it.
fn checked(mut bytes: Vec<u8>, at: usize, rest: impl FnOnce(&mut Vec<u8>), length: usize) -> Vec<u8> {
    bytes.resize(at + 4, 0);
    rest(&mut bytes);
    bytes.resize(length, 0);
    let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    bytes[at..at + 4].copy_from_slice(&(!sum).to_be_bytes());
    bytes
}

/// Cylinders, heads and sectors: "Appendix: CHS Calculation".
fn geometry(sectors: u64) -> (u16, u8, u8) {
    let total = sectors.min(65535 * 16 * 255);
    let (per_track, heads, tracks);
    if total >= 65535 * 16 * 63 {
        (per_track, heads, tracks) = (255, 16, total / 255);
    } else {
        let narrow = total / 17;
        let narrow_heads = narrow.div_ceil(1024).max(4);
        if narrow < narrow_heads * 1024 && narrow_heads <= 16 {
            (per_track, heads, tracks) = (17, narrow_heads, narrow);
        } else if total / 31 < 16 * 1024 {
            (per_track, heads, tracks) = (31, 16, total / 31);
        } else {
            (per_track, heads, tracks) = (63, 16, total / 63);
        }
    }
    (u16::try_from(tracks / heads).unwrap_or(u16::MAX), u8::try_from(heads).unwrap_or(16), per_track)
}
