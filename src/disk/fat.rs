//! Writing FAT volumes: seed disks and EFI system partitions.
//!
//! We only write them. A guest's FAT is never mounted or read on the host.

use std::io::{self, Read, Seek, Write};

use fatfs::{Dir, FileSystem, FormatVolumeOptions, FsOptions, ReadWriteSeek};

/// A FAT volume being written.
pub struct Volume<S: Read + Write + Seek> {
    fs: FileSystem<S>,
}

impl<S: Read + Write + Seek> std::fmt::Debug for Volume<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Volume").finish_non_exhaustive()
    }
}

impl<S: Read + Write + Seek> Volume<S> {
    /// Formats a stream, whose length is the volume's size. The label has at most 11 ASCII letters; `id` is the
    /// volume's serial number, which `blkid` shows as its UUID.
    ///
    /// The FAT variant follows from the size, as "Microsoft FAT Specification" section 3.5 has it.
    pub fn format(mut stream: S, label: &str, id: u32) -> io::Result<Self> {
        let mut padded = [b' '; 11];
        for (place, byte) in padded.iter_mut().zip(label.bytes()) {
            *place = byte;
        }
        let options = FormatVolumeOptions::new().volume_label(padded).volume_id(id);
        fatfs::format_volume(&mut stream, options)?;
        let fs = FileSystem::new(stream, FsOptions::new())?;
        Ok(Self { fs })
    }

    /// Writes a file, and the folders above it.
    pub fn write(&self, path: &str, content: &mut dyn Read) -> io::Result<()> {
        let mut folder = self.fs.root_dir();
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_some() {
                folder = enter(&folder, part)?;
            } else {
                let mut file = folder.create_file(part)?;
                file.truncate()?;
                io::copy(content, &mut file)?;
                file.flush()?;
            }
        }
        Ok(())
    }

    /// Completes the volume.
    pub fn finish(self) -> io::Result<()> {
        self.fs.unmount()
    }
}

fn enter<'a, T: ReadWriteSeek>(folder: &Dir<'a, T>, name: &str) -> io::Result<Dir<'a, T>> {
    // Making a folder that is there opens it.
    folder.create_dir(name)
}

/// A volume's serial number as `blkid` and fstab write it.
pub fn uuid(id: u32) -> String {
    format!("{:04X}-{:04X}", id >> 16, id & 0xffff)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn files_and_folders_are_read_back() {
        let mut bytes = Cursor::new(vec![0; 1 << 20]);
        let volume = Volume::format(&mut bytes, "CIDATA", 0xABCD_0012).unwrap();
        volume.write("meta-data", &mut &b"instance-id: a\n"[..]).unwrap();
        volume.write("EFI/BOOT/BOOTX64.EFI", &mut &vec![7; 100_000][..]).unwrap();
        volume.write("EFI/BOOT/grub.cfg", &mut &b"x"[..]).unwrap();
        volume.finish().unwrap();

        bytes.set_position(0);
        let fs = FileSystem::new(&mut bytes, FsOptions::new()).unwrap();
        assert_eq!(fs.read_volume_label_from_root_dir().unwrap().unwrap(), "CIDATA");
        assert_eq!(uuid(fs.volume_id()), "ABCD-0012");
        let mut content = Vec::new();
        fs.root_dir().open_file("EFI/BOOT/BOOTX64.EFI").unwrap().read_to_end(&mut content).unwrap();
        assert_eq!(content, vec![7; 100_000]);
    }

    #[test]
    fn a_file_that_does_not_fit_is_an_error() {
        let mut bytes = Cursor::new(vec![0; 64 << 10]);
        let volume = Volume::format(&mut bytes, "X", 1).unwrap();
        assert!(volume.write("big", &mut &vec![1; 100 << 10][..]).is_err());
    }
}
