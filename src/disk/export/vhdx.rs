//! Microsoft's VHDX, dynamic.
//!
//! Source: [MS-VHDX] 8.0, to whose sections the numbers refer. All numbers are little-endian.
//!
//! ```text
//!   0         1 MiB   2 MiB      3 MiB
//!   headers │ log   │ metadata │ block allocation table │ block │ block …
//! ```

use super::layout::Layout;
use super::piece::Pieces;
use super::sink::{Sink, span};
use super::{Disk, Error, small};
use crate::disk::{GIB, KIB, MIB};

/// 2.6: 64 TiB.
const MAX_SIZE: u64 = 64 << 40;
const SECTOR: u64 = 512;
const LOG: u64 = MIB;
const METADATA: u64 = 2 * MIB;
const TABLE: u64 = 3 * MIB;
/// 2.5.1.1: the block is in the file.
const FULLY_PRESENT: u64 = 6;

/// GUIDs of regions (2.2.3.2) and of items (2.6.2), as they are stored.
const BAT: [u8; 16] = guid(0x2dc2_7766, 0xf623, 0x4200, 0x9d64_115e_9bfd_4a08);
const METADATA_REGION: [u8; 16] = guid(0x8b7c_a206, 0x4790, 0x4b9a, 0xb8fe_575f_050f_886e);
const FILE_PARAMETERS: [u8; 16] = guid(0xcaa1_6737, 0xfa36, 0x4d43, 0xb3b6_33f0_aa44_e76b);
const VIRTUAL_DISK_SIZE: [u8; 16] = guid(0x2fa5_4224, 0xcd1b, 0x4876, 0xb211_5dbe_d83b_f4b8);
const VIRTUAL_DISK_ID: [u8; 16] = guid(0xbeca_12ab, 0xb2e6, 0x4523, 0x93ef_c309_e000_c746);
const LOGICAL_SECTOR_SIZE: [u8; 16] = guid(0x8141_bf1d, 0xa96f, 0x4709, 0xba47_f233_a8fa_ab5f);
const PHYSICAL_SECTOR_SIZE: [u8; 16] = guid(0xcda3_48c7, 0x445d, 0x4471, 0x9cc9_e988_5251_c556);

const fn guid(a: u32, b: u16, c: u16, d: u64) -> [u8; 16] {
    let (a, b, c, d) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes(), d.to_be_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

/// Writes a file with the blocks that hold something.
pub(super) fn write(disk: Disk<'_>, layout: &Layout, pieces: Pieces, to: &mut dyn Sink) -> Result<(), Error> {
    let size = layout.size();
    if size > MAX_SIZE {
        return Err(Error::TooLarge { size, most: MAX_SIZE });
    }
    // The smallest there is: an ext4 writes here and there. A larger disk would have too large a table.
    let block = if size <= 4096 * GIB { MIB } else { 32 * MIB };
    let blocks = size.div_ceil(block);
    // 2.5: behind so many blocks stands the entry of their sector bitmap, which only a disk with a parent uses.
    let chunk = (1 << 23) * SECTOR / block;
    let entries = blocks + blocks.saturating_sub(1) / chunk;
    let data = TABLE + (entries * 8).next_multiple_of(MIB);
    to.write_all(&headers(disk, data - TABLE)?)?;
    to.zeroes(METADATA - LOG)?;
    to.write_all(&metadata(size, block, disk.identifier("vhdx disk"))?)?;
    let mut next = data;
    for number in 0..blocks {
        let mut entry = 0;
        if layout.has_data(number * block, block) {
            entry = next | FULLY_PRESENT;
            next += block;
        }
        to.write_all(&entry.to_le_bytes())?;
        if (number + 1) % chunk == 0 && number + 1 < blocks {
            to.write_all(&[0; 8])?;
        }
    }
    to.zeroes(data - TABLE - entries * 8)?;
    let mut pieces = pieces.peekable();
    for number in (0..blocks).filter(|number| layout.has_data(number * block, block)) {
        span(&mut pieces, number * block, (number + 1) * block, to)?;
    }
    Ok(())
}

/// 2.2: what stands in the first MiB. Of two headers, that with the higher number is the current one.
fn headers(disk: Disk<'_>, table: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; small(LOG)?];
    let mut put = |at: u64, part: &[u8]| -> Result<(), Error> {
        let at = small(at)?;
        bytes[at..at + part.len()].copy_from_slice(part);
        Ok(())
    };
    put(0, b"vhdxfile")?;
    put(8, &"goldsmith".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>())?;
    for (at, number) in [(64 * KIB, 0_u64), (128 * KIB, 1)] {
        put(at, &header(disk, number)?)?;
    }
    let regions = regions(table)?;
    put(192 * KIB, &regions)?;
    put(256 * KIB, &regions)?;
    Ok(bytes)
}

/// 2.2.2.
fn header(disk: Disk<'_>, number: u64) -> Result<Vec<u8>, Error> {
    let mut header = b"head\0\0\0\0".to_vec();
    header.extend(number.to_le_bytes());
    header.extend(disk.identifier("vhdx file"));
    header.extend(disk.identifier("vhdx data"));
    header.extend([0; 16]); // the log is empty
    header.extend(0_u16.to_le_bytes()); // log's version
    header.extend(1_u16.to_le_bytes()); // version
    header.extend(u32::try_from(METADATA - LOG).map_err(std::io::Error::other)?.to_le_bytes());
    header.extend(LOG.to_le_bytes());
    header.resize(4 << 10, 0);
    Ok(checked(header))
}

/// 2.2.3.
fn regions(table: u64) -> Result<Vec<u8>, Error> {
    let mut regions = b"regi\0\0\0\0".to_vec();
    regions.extend(2_u32.to_le_bytes());
    regions.extend([0; 4]);
    for (id, at, length) in [(BAT, TABLE, table), (METADATA_REGION, METADATA, TABLE - METADATA)] {
        regions.extend(id);
        regions.extend(at.to_le_bytes());
        regions.extend(u32::try_from(length).map_err(std::io::Error::other)?.to_le_bytes());
        regions.extend(1_u32.to_le_bytes()); // required
    }
    regions.resize(64 << 10, 0);
    Ok(checked(regions))
}

/// 2.6: the table of items in its first 64 KiB, then the items.
fn metadata(size: u64, block: u64, id: [u8; 16]) -> Result<Vec<u8>, Error> {
    const IS_VIRTUAL_DISK: u32 = 1 << 1;
    const IS_REQUIRED: u32 = 1 << 2;
    let (flags, disk) = (IS_REQUIRED, IS_REQUIRED | IS_VIRTUAL_DISK);
    // Bytes of a block, then no flags: blocks are not kept when empty, and there is no parent.
    let items: [([u8; 16], u32, Vec<u8>); 5] = [
        (FILE_PARAMETERS, flags, block.to_le_bytes().to_vec()),
        (VIRTUAL_DISK_SIZE, disk, size.to_le_bytes().to_vec()),
        (VIRTUAL_DISK_ID, disk, id.to_vec()),
        (LOGICAL_SECTOR_SIZE, disk, 512_u32.to_le_bytes().to_vec()),
        (PHYSICAL_SECTOR_SIZE, disk, 4096_u32.to_le_bytes().to_vec()),
    ];
    let mut table = b"metadata\0\0".to_vec();
    table.extend(5_u16.to_le_bytes());
    table.resize(32, 0);
    let mut values = Vec::new();
    for (item, flags, value) in items {
        table.extend(item);
        let at = (64 << 10) + values.len();
        for number in [at, value.len()] {
            table.extend(u32::try_from(number).map_err(std::io::Error::other)?.to_le_bytes());
        }
        table.extend(flags.to_le_bytes());
        table.extend([0; 4]);
        values.extend(value);
    }
    table.resize(64 << 10, 0);
    table.extend(values);
    table.resize(small(TABLE - METADATA)?, 0);
    Ok(table)
}

/// A structure with its CRC-32C behind its signature.
fn checked(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = crc32c(&bytes);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Castagnoli's, bit by bit: it is for a few KiB.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
    })
}
