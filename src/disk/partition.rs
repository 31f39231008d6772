//! The partition table of disks that goldsmith lays out.
//!
//! As in the cloud images of Debian and Ubuntu, the root file system is partition 1 and yet the last on the disk, so that
//! it can grow; before it lie a BIOS boot partition and an EFI system partition. Source: UEFI Specification 2.10,
//! chapter 5.

use std::collections::BTreeMap;
use std::io;

use fs_err::File;
use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;
use gpt::partition_types::{BIOS, EFI, LINUX_FS, Type};

use super::MIB;

/// Bytes in a sector.
pub const SECTOR: u64 = 512;

/// A run of bytes on a disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins.
    pub start: u64,
    /// How long it is.
    pub length: u64,
}

/// Where things are on a disk that can be booted by BIOS and UEFI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// GRUB's core image, for BIOS.
    pub bios_boot: Extent,
    /// The EFI system partition.
    pub efi: Extent,
    /// The root file system.
    pub root: Extent,
}

impl Layout {
    /// The layout of a disk of so many bytes, which has to hold more than the boot partitions and the tables' MiB.
    pub fn of(disk: u64) -> Option<Self> {
        let root_start = 128 * MIB;
        // The last MiB holds the backup table.
        let root_length = disk.checked_sub(root_start + MIB).filter(|&length| length >= MIB)?;
        Some(Self {
            bios_boot: Extent { start: MIB, length: 3 * MIB },
            efi: Extent { start: 4 * MIB, length: 124 * MIB },
            root: Extent { start: root_start, length: root_length },
        })
    }

    /// Writes the partition tables of this layout to a disk, whose file has its full size already.
    pub fn write(&self, disk: &mut File) -> io::Result<()> {
        let sectors = disk.metadata()?.len() / SECTOR;
        let protective_sectors = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
        ProtectiveMBR::with_lb_size(protective_sectors).overwrite_lba0(disk).map_err(io::Error::other)?;
        let mut table = gpt::GptConfig::new()
            .writable(true)
            .logical_block_size(LogicalBlockSize::Lb512)
            .create_from_device(disk, None)
            .map_err(io::Error::other)?;
        table.update_partitions(BTreeMap::new()).map_err(io::Error::other)?;
        for (number, (name, extent, kind)) in (1..).zip(self.partitions()) {
            let (first, length) = (extent.start / SECTOR, extent.length / SECTOR);
            table.add_partition_at(name, number, first, length, kind, 0).map_err(io::Error::other)?;
        }
        table.write().map_err(io::Error::other)?;
        Ok(())
    }

    /// In the order of their numbers.
    fn partitions(&self) -> [(&'static str, Extent, Type); 3] {
        [("root", self.root, LINUX_FS), ("bios", self.bios_boot, BIOS), ("efi", self.efi, EFI)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::GIB;
    use super::*;

    #[test]
    fn partitions_are_aligned_and_do_not_meet() {
        let layout = Layout::of(2 * GIB).unwrap();
        let mut end = MIB;
        for extent in [layout.bios_boot, layout.efi, layout.root] {
            assert_eq!(extent.start % MIB, 0);
            assert!(extent.start >= end);
            end = extent.start + extent.length;
        }
        assert_eq!(end, 2 * GIB - MIB);
        assert_eq!(Layout::of(128 * MIB), None);
    }

    #[test]
    fn the_table_is_read_back_by_the_crate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        file.set_len(2 * GIB).unwrap();
        let layout = Layout::of(2 * GIB).unwrap();
        layout.write(&mut file).unwrap();
        let table = gpt::GptConfig::new().open(&path).unwrap();
        let used = table.partitions().iter().filter(|(_, partition)| partition.is_used());
        let found: Vec<_> = used.map(|(n, p)| (*n, p.first_lba * SECTOR)).collect();
        assert_eq!(found, [(1, layout.root.start), (2, layout.bios_boot.start), (3, layout.efi.start)]);
    }
}
