//! The partition table of a finished disk, both copies of it, as firmware would read them.
//!
//! Readers such as the crate `gpt` take whichever copy of a GPT is whole and do not say which; what is asked here is
//! whether both are. Source: UEFI Specification 2.10, sections 5.2 and 5.3.

use std::io::{self, Read, Seek, SeekFrom};

use uuid::Uuid;

use super::partition::{Extent, SECTOR};

/// `EFI PART`, the first field of a GPT header.
const SIGNATURE: &[u8] = b"EFI PART";
/// The fields of a header that are defined.
const HEADER: usize = 92;
/// What every tool writes; larger entries are allowed and seen nowhere.
const ENTRY: usize = 128;
/// Tools write 128; a table is read into memory.
const MOST_ENTRIES: u32 = 1024;
/// Where the four entries of an MBR begin.
const MBR_ENTRIES: usize = 446;
/// The type of the entry that keeps tools that know no GPT away.
const PROTECTIVE: u8 = 0xee;

/// What a partition is for, as far as it matters for starting from the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// GRUB's core image, for BIOS.
    BiosBoot,
    /// The EFI system partition.
    EfiSystem,
    /// Anything else.
    Other,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 1.
    pub number: u32,
    /// Where it is.
    pub extent: Extent,
    /// What it is for.
    pub role: Role,
}

/// The kind of a partition table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A GUID partition table.
    Gpt,
    /// A master boot record.
    Mbr,
}

/// A partition table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its kind.
    pub kind: Kind,
    /// Its partitions, in the order of their numbers.
    pub partitions: Vec<Partition>,
    /// What is wrong with it, though it can be read.
    pub problems: Vec<String>,
}

/// Reads the table of a disk of `size` bytes. A disk without a table that can be read is the inner error.
pub fn read(disk: &mut (impl Read + Seek), size: u64) -> io::Result<Result<Table, String>> {
    let last = size / SECTOR;
    if last < 2 {
        return Ok(Err("the disk is smaller than a partition table".to_owned()));
    }
    let mbr = sectors(disk, 0, 1)?;
    if mbr[510..] != [0x55, 0xaa] {
        return Ok(Err("its first sector has no boot signature".to_owned()));
    }
    let entries: Vec<&[u8]> = mbr[MBR_ENTRIES..510].chunks(16).collect();
    if !entries.iter().any(|entry| entry[4] == PROTECTIVE) {
        return Ok(Ok(of_mbr(&entries, last)));
    }
    let (first, second) = (gpt(disk, 1, last)?, gpt(disk, last - 1, last)?);
    let mut problems = Vec::new();
    let table = match (first, second) {
        (Ok(first), Ok(second)) => {
            if first.partitions != second.partitions {
                problems.push("the two copies of the table do not say the same".to_owned());
            }
            first
        }
        (Ok(first), Err(why)) => {
            problems.push(format!("the copy of the table at the disk's end is of no use: {why}"));
            first
        }
        (Err(why), Ok(second)) => {
            problems.push(format!("the table at the disk's start is of no use: {why}"));
            second
        }
        (Err(why), Err(_)) => return Ok(Err(why)),
    };
    if table.other_copy != last - 1 && problems.is_empty() {
        problems.push(format!(
            "the copy of the table is looked for at sector {} instead of the last, {}",
            table.other_copy,
            last - 1
        ));
    }
    problems.extend(misplaced(&table.partitions, table.usable));
    Ok(Ok(Table { kind: Kind::Gpt, partitions: table.partitions, problems }))
}

struct Gpt {
    partitions: Vec<Partition>,
    /// The sector of the other copy's header; of the copy at the end, its own.
    other_copy: u64,
    /// What partitions may take.
    usable: Extent,
}

/// One copy of a GPT, whose header is in a sector.
fn gpt(disk: &mut (impl Read + Seek), sector: u64, last: u64) -> io::Result<Result<Gpt, String>> {
    let header = sectors(disk, sector, 1)?;
    if !header.starts_with(SIGNATURE) {
        return Ok(Err(format!("there is no GPT header in sector {sector}")));
    }
    let length = le32(&header, 12) as usize;
    if !(HEADER..=header.len()).contains(&length) {
        return Ok(Err(format!("the GPT header has a length of {length}")));
    }
    let mut zeroed = header[..length].to_vec();
    zeroed[16..20].fill(0);
    if crc32fast::hash(&zeroed) != le32(&header, 16) {
        return Ok(Err("the GPT header's checksum does not match".to_owned()));
    }
    if le64(&header, 24) != sector {
        return Ok(Err("the GPT header says that it is in another sector".to_owned()));
    }
    let (place, count, size) = (le64(&header, 72), le32(&header, 80), le32(&header, 84) as usize);
    let length = (u64::from(count) * ENTRY as u64).div_ceil(SECTOR);
    let is_inside = place.checked_add(length).is_some_and(|end| end <= last);
    if size != ENTRY || !(1..=MOST_ENTRIES).contains(&count) || !is_inside {
        return Ok(Err(format!("{count} GPT entries of {size} bytes at sector {place} are not possible")));
    }
    let entries = sectors(disk, place, length)?;
    let entries = &entries[..count as usize * ENTRY];
    if crc32fast::hash(entries) != le32(&header, 88) {
        return Ok(Err("the checksum of the GPT's entries does not match".to_owned()));
    }
    let partitions = (1..).zip(entries.chunks(ENTRY)).filter_map(|(number, entry)| {
        let mut kind = [0; 16];
        kind.copy_from_slice(&entry[..16]);
        let role = match Uuid::from_bytes_le(kind) {
            kind if kind.is_nil() => return None,
            kind if kind == gpt::partition_types::BIOS.guid => Role::BiosBoot,
            kind if kind == gpt::partition_types::EFI.guid => Role::EfiSystem,
            _ => Role::Other,
        };
        Some(Partition { number, extent: extent(le64(entry, 32), le64(entry, 40)), role })
    });
    let partitions = partitions.collect();
    let other_copy = if sector == 1 { le64(&header, 32) } else { sector };
    Ok(Ok(Gpt { partitions, other_copy, usable: extent(le64(&header, 40), le64(&header, 48)) }))
}

/// From a first to a last sector, both included.
fn extent(first: u64, last: u64) -> Extent {
    let length = last.saturating_sub(first).saturating_add(1);
    Extent { start: first.saturating_mul(SECTOR), length: length.saturating_mul(SECTOR) }
}

/// Logical partitions in an extended one are not looked at: no system image of today has any.
fn of_mbr(entries: &[&[u8]], last: u64) -> Table {
    let used = (1..).zip(entries).filter(|(_, entry)| entry[4] != 0);
    let partitions = used.map(|(number, entry)| {
        let (first, length) = (u64::from(le32(entry, 8)), u64::from(le32(entry, 12)));
        let role = if entry[4] == 0xef { Role::EfiSystem } else { Role::Other };
        Partition { number, extent: Extent { start: first * SECTOR, length: length * SECTOR }, role }
    });
    let partitions: Vec<Partition> = partitions.collect();
    let problems = misplaced(&partitions, extent(1, last - 1));
    Table { kind: Kind::Mbr, partitions, problems }
}

/// Partitions that meet or leave the disk.
fn misplaced(partitions: &[Partition], usable: Extent) -> Vec<String> {
    let end = |extent: Extent| extent.start.saturating_add(extent.length);
    let mut sorted: Vec<&Partition> = partitions.iter().collect();
    sorted.sort_by_key(|partition| partition.extent.start);
    let outside = sorted.iter().filter(|partition| {
        partition.extent.start < usable.start || end(partition.extent) > end(usable) || partition.extent.length == 0
    });
    let outside = outside.map(|partition| format!("partition {} does not lie on the disk", partition.number));
    let meeting = sorted.windows(2).filter(|pair| end(pair[0].extent) > pair[1].extent.start);
    let meeting = meeting.map(|pair| format!("partitions {} and {} overlap", pair[0].number, pair[1].number));
    outside.chain(meeting).collect()
}

fn sectors(disk: &mut (impl Read + Seek), first: u64, count: u64) -> io::Result<Vec<u8>> {
    let length = usize::try_from(count * SECTOR).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    disk.seek(SeekFrom::Start(first * SECTOR))?;
    disk.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(field)
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from(le32(bytes, at + 4)) << 32 | u64::from(le32(bytes, at))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use fs_err::File;
    use proptest::prelude::*;

    use super::super::partition::Layout;
    use super::super::{GIB, MIB};
    use super::*;

    /// The tables of a disk of 1 GiB, as the crate `gpt` writes them.
    fn written() -> (Vec<u8>, Layout) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        file.set_len(GIB).unwrap();
        let layout = Layout::of(GIB).unwrap();
        layout.write(&mut file).unwrap();
        (fs_err::read(&path).unwrap(), layout)
    }

    fn read_bytes(bytes: &[u8]) -> Result<Table, String> {
        read(&mut Cursor::new(bytes), bytes.len() as u64).unwrap()
    }

    #[test]
    fn both_copies_are_read() {
        let (mut disk, layout) = written();
        let table = read_bytes(&disk).unwrap();
        assert_eq!(table.problems, Vec::<String>::new());
        let found: Vec<_> = table.partitions.iter().map(|found| (found.number, found.extent, found.role)).collect();
        let wanted =
            [(1, layout.root, Role::Other), (2, layout.bios_boot, Role::BiosBoot), (3, layout.efi, Role::EfiSystem)];
        assert_eq!(found, wanted);
        // A disk that was made larger has its copy in the middle.
        let mut grown = disk.clone();
        grown.resize(disk.len() + 512, 0);
        insta::assert_snapshot!(read_bytes(&grown).unwrap().problems.join("; "), @"the copy of the table at the disk's end is of no use: there is no GPT header in sector 2097152");
        disk[512 + 60] ^= 1;
        insta::assert_snapshot!(read_bytes(&disk).unwrap().problems.join("; "), @"the table at the disk's start is of no use: the GPT header's checksum does not match");
        let end = disk.len() - 512;
        disk[end..].fill(0);
        insta::assert_snapshot!(read_bytes(&disk).unwrap_err(), @"the GPT header's checksum does not match");
        disk[510] = 0;
        insta::assert_snapshot!(read_bytes(&disk).unwrap_err(), @"its first sector has no boot signature");
    }

    #[test]
    fn partitions_that_meet_or_leave_the_disk_are_told() {
        let place = |number, start, length| Partition { number, extent: Extent { start, length }, role: Role::Other };
        let usable = Extent { start: MIB, length: 8 * MIB };
        assert!(misplaced(&[place(1, 4 * MIB, 5 * MIB), place(2, MIB, 3 * MIB)], usable).is_empty());
        let wrong = [place(1, MIB, 2 * MIB), place(2, 2 * MIB, MIB), place(3, 8 * MIB, 2 * MIB), place(4, 0, MIB)];
        insta::assert_snapshot!(misplaced(&wrong, usable).join("\n"), @"
        partition 4 does not lie on the disk
        partition 3 does not lie on the disk
        partitions 1 and 2 overlap
        ");
    }

    #[test]
    fn a_master_boot_record() {
        let mut disk = vec![0; 1 << 20];
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        disk[446 + 4] = 0x83;
        disk[446 + 8..446 + 16].copy_from_slice(&[1, 0, 0, 0, 0xff, 7, 0, 0]);
        let table = read_bytes(&disk).unwrap();
        assert_eq!((table.kind, table.partitions.len(), table.problems.len()), (Kind::Mbr, 1, 0));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(header in prop::collection::vec(any::<u8>(), 92), at in 0usize..512, byte in any::<u8>()) {
            let mut disk = vec![0; 64 << 10];
            disk[510..512].copy_from_slice(&[0x55, 0xaa]);
            disk[446 + 4] = PROTECTIVE;
            disk[512..604].copy_from_slice(&header);
            disk[512..520].copy_from_slice(SIGNATURE);
            disk[512 + 12..512 + 16].copy_from_slice(&92u32.to_le_bytes());
            disk[512 + 24..512 + 32].copy_from_slice(&1u64.to_le_bytes());
            disk[512 + at] = byte;
            // With a checksum that matches, so that the fields behind it are looked at.
            let mut zeroed = disk[512..604].to_vec();
            zeroed[16..20].fill(0);
            let checksum = crc32fast::hash(&zeroed).to_le_bytes();
            disk[512 + 16..512 + 20].copy_from_slice(&checksum);
            let _any = read_bytes(&disk);
        }
    }
}
