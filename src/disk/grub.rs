//! Making a disk bootable by BIOS with GRUB, without GRUB's installer, which needs a block device.
//!
//! GRUB's `boot.img` goes into the first sector and loads the first sector of the core image, which loads the rest of
//! itself by a block list at its end. Where the fields are: GRUB 2.06, `include/grub/i386/pc/boot.h` and
//! `include/grub/offsets.h`.

use std::io::{self, Read, Seek, SeekFrom, Write};

use super::partition::{Extent, SECTOR};

/// `GRUB_BOOT_MACHINE_KERNEL_SECTOR`: sector of the core image, 64 bits.
const KERNEL_SECTOR: usize = 0x5c;
/// `GRUB_BOOT_MACHINE_BOOT_DRIVE`: 0xff means the drive that the BIOS booted from.
const BOOT_DRIVE: usize = 0x64;
/// `GRUB_BOOT_MACHINE_DRIVE_CHECK`: a jump that works around BIOSes with a wrong drive number; two no-operations take
/// the work-around, which is what `grub-install` writes for hard disks.
const DRIVE_CHECK: usize = 0x66;
/// `GRUB_BOOT_MACHINE_CODE_END`: what follows is the disk signature and the partition table.
const CODE_END: usize = 0x1b8;
/// The block list's only entry: 64-bit sector, 16-bit count, 16-bit segment, at the end of the core's first sector.
const BLOCK_LIST: usize = 0x1f4;
/// `GRUB_BOOT_I386_PC_KERNEL_SEG` + 0x20 (one sector): where the rest of the core image is loaded.
const SECOND_SECTOR_SEGMENT: u16 = 0x820;

const SECTOR_BYTES: usize = 512;

/// Writes GRUB's boot sector and core image to a disk with a BIOS boot partition.
pub fn install(disk: &mut (impl Write + Seek), boot: &[u8], core: &[u8], place: Extent) -> io::Result<()> {
    let (boot, core) = images(boot, core, place)?;
    disk.seek(SeekFrom::Start(0))?;
    disk.write_all(&boot)?;
    disk.seek(SeekFrom::Start(place.start))?;
    disk.write_all(&core)
}

fn images(boot: &[u8], core: &[u8], place: Extent) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    if boot.len() != SECTOR_BYTES {
        return Err(invalid(format!("GRUB's boot.img has {} bytes instead of 512", boot.len())));
    }
    let sectors = core.len().div_ceil(SECTOR_BYTES);
    let fits = sectors >= 2 && (sectors * SECTOR_BYTES) as u64 <= place.length;
    let (Ok(rest), true) = (u16::try_from(sectors.saturating_sub(1)), fits) else {
        return Err(invalid(format!("GRUB's core image of {} bytes does not fit its partition", core.len())));
    };
    let first = place.start / SECTOR;

    let mut boot = boot[..CODE_END].to_vec();
    boot[KERNEL_SECTOR..KERNEL_SECTOR + 8].copy_from_slice(&first.to_le_bytes());
    boot[BOOT_DRIVE] = 0xff;
    boot[DRIVE_CHECK..DRIVE_CHECK + 2].copy_from_slice(&[0x90, 0x90]);

    let mut core = core.to_vec();
    core.resize(sectors * SECTOR_BYTES, 0);
    let list = &mut core[BLOCK_LIST..SECTOR_BYTES];
    list[..8].copy_from_slice(&(first + 1).to_le_bytes());
    list[8..10].copy_from_slice(&rest.to_le_bytes());
    list[10..].copy_from_slice(&SECOND_SECTOR_SEGMENT.to_le_bytes());
    Ok((boot, core))
}

/// What a BIOS would start from a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootCode {
    /// Nothing.
    None,
    /// GRUB.
    Grub {
        /// Whether its core image is where the first sector looks for it.
        is_whole: bool,
    },
    /// Another boot loader, of which nothing more is known.
    Other,
}

/// Reads what a BIOS would start from a disk of `size` bytes.
pub fn inspect(disk: &mut (impl Read + Seek), size: u64) -> io::Result<BootCode> {
    let mut boot = [0; SECTOR_BYTES];
    disk.seek(SeekFrom::Start(0))?;
    disk.read_exact(&mut boot)?;
    if boot[..CODE_END].iter().all(|&byte| byte == 0) {
        return Ok(BootCode::None);
    }
    if memchr::memmem::find(&boot[..CODE_END], b"GRUB ").is_none() {
        return Ok(BootCode::Other);
    }
    let mut sector = [0; 8];
    sector.copy_from_slice(&boot[KERNEL_SECTOR..KERNEL_SECTOR + 8]);
    let place = u64::from_le_bytes(sector).saturating_mul(SECTOR);
    if place == 0 || place.saturating_add(SECTOR) > size {
        return Ok(BootCode::Grub { is_whole: false });
    }
    let mut core = [0; SECTOR_BYTES];
    disk.seek(SeekFrom::Start(place))?;
    disk.read_exact(&mut core)?;
    let rest = &core[BLOCK_LIST + 8..BLOCK_LIST + 10];
    Ok(BootCode::Grub { is_whole: core[..BLOCK_LIST].iter().any(|&byte| byte != 0) && rest != [0, 0] })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    const PLACE: Extent = Extent { start: 1 << 20, length: 3 << 20 };

    #[test]
    fn the_boot_sector_finds_the_core_and_the_core_its_rest() {
        let (boot, core) = images(&[0xcc; 512], &[0xdd; 1100], PLACE).unwrap();
        assert_eq!(boot.len(), CODE_END);
        assert_eq!(boot[0x5c..0x64], 2048u64.to_le_bytes());
        assert_eq!(core.len(), 3 * 512);
        assert_eq!(core[0x1f4..0x1fc], 2049u64.to_le_bytes());
        assert_eq!(core[0x1fc..0x1fe], 2u16.to_le_bytes());
    }

    #[test]
    fn what_was_installed_is_found() {
        let size = 8 << 20;
        let mut disk = Cursor::new(vec![0; 8 << 20]);
        assert_eq!(inspect(&mut disk, size).unwrap(), BootCode::None);
        let mut boot = [0xcc; 512];
        boot[0x180..0x185].copy_from_slice(b"GRUB ");
        install(&mut disk, &boot, &[0xdd; 1100], PLACE).unwrap();
        assert_eq!(inspect(&mut disk, size).unwrap(), BootCode::Grub { is_whole: true });
        disk.get_mut()[1 << 20..2 << 20].fill(0);
        assert_eq!(inspect(&mut disk, size).unwrap(), BootCode::Grub { is_whole: false });
        disk.get_mut()[0x180] = b'X';
        assert_eq!(inspect(&mut disk, size).unwrap(), BootCode::Other);
    }

    #[test]
    fn images_that_do_not_fit_are_refused() {
        assert!(images(&[0; 511], &[0; 1100], PLACE).is_err());
        assert!(images(&[0; 512], &[0; 512], PLACE).is_err());
        assert!(images(&[0; 512], &vec![0; 4 << 20], PLACE).is_err());
    }
}
