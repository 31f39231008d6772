//! A sealed disk's bytes, as the guest sees them.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use imago::file::File;
use imago::qcow2::Qcow2;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder, Storage, StorageOpenOptions};

/// Opens a qcow2 that stands alone. No other file that it may name is opened.
pub(super) fn open(disk: &Path) -> io::Result<FormatAccess<File>> {
    let storage = File::open(StorageOpenOptions::new().filename(disk))?;
    Ok(FormatAccess::new(Qcow2::<File>::builder(storage).open(DenyImplicitOpenGate::default())?))
}

/// A stand-alone qcow2 as a stream of the guest's bytes.
#[derive(Debug)]
pub struct Sealed {
    disk: FormatAccess<File>,
    position: u64,
}

impl Sealed {
    /// Opens a disk.
    pub fn open(disk: &Path) -> io::Result<Self> {
        Ok(Self { disk: open(disk)?, position: 0 })
    }

    /// Size that the guest sees, in bytes.
    pub fn size(&self) -> u64 {
        self.disk.size()
    }
}

impl Read for Sealed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size().saturating_sub(self.position)).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        self.disk.read(&mut buffer[..wanted], self.position)?;
        self.position += wanted as u64;
        Ok(wanted)
    }
}

impl Seek for Sealed {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
            SeekFrom::End(offset) => self.size().checked_add_signed(offset),
        };
        let before_start = || io::Error::new(io::ErrorKind::InvalidInput, "a seek to before the start of the disk");
        self.position = target.ok_or_else(before_start)?;
        Ok(self.position)
    }
}
