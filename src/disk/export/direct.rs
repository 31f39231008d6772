//! Files that go to the disk past the kernel's memory.
//!
//! An export is read by somebody else, later. Written the usual way, its bytes are copied once more and take pages of the
//! kernel's memory from those who have a use for them, the machine that is being tested above all, and still have to reach
//! the disk. That was a quarter of the work of an export in all formats.

use std::io;

use fs_err::File;
use fs_err::os::unix::fs::FileExt;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// What is written at once. Whoever writes waits for the disk each time: a disk that took 1.6 GB/s so took 1.1 in pieces of
/// half the size.
const BUFFER: usize = 1 << 19;
/// What places, lengths and memory have to be multiples of. Disks with larger sectors get their bytes the usual way.
const BLOCK: usize = 4096;

/// A new file that is written front to back. Nothing of it is sure to be there before [`NewFile::finish`].
#[derive(Debug)]
pub(super) struct NewFile {
    file: File,
    is_direct: bool,
    /// A buffer, with room to begin at a multiple of a block.
    memory: Vec<u8>,
    begin: usize,
    filled: usize,
    /// Where the buffer's first byte belongs: a multiple of a block.
    at: u64,
}

impl NewFile {
    /// `file` is empty. One that is read while it is written is better kept in the kernel's memory: not `is_direct`.
    pub(super) fn new(file: File, is_direct: bool) -> Self {
        let memory = vec![0; BUFFER + BLOCK];
        let begin = memory.as_ptr().align_offset(BLOCK).min(BLOCK);
        let mut output = Self { file, is_direct: false, memory, begin, filled: 0, at: 0 };
        // Some file systems know no such thing, and lose nothing by it.
        output.is_direct = is_direct && output.set_direct(true).is_ok();
        output
    }

    /// How many bytes are in the file, holes too.
    pub(super) fn reached(&self) -> u64 {
        self.at
    }

    /// Adds bytes.
    pub(super) fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BUFFER - self.filled));
            self.memory[self.begin + self.filled..][..now.len()].copy_from_slice(now);
            self.advance(now.len())?;
            bytes = later;
        }
        Ok(())
    }

    /// Adds zeroes, as a hole where there is room for one.
    pub(super) fn skip(&mut self, zeroes: u64) -> io::Result<()> {
        let block = BLOCK as u64;
        let end = self.at + self.filled as u64 + zeroes;
        let hole = (self.at + self.filled as u64).next_multiple_of(block)..end / block * block;
        if hole.is_empty() {
            return self.fill(zeroes);
        }
        self.fill(hole.start - self.at - self.filled as u64)?;
        self.put()?;
        self.at = hole.end;
        self.fill(end - hole.end)
    }

    /// Writes what is left, and returns the length.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        let length = self.at + self.filled as u64;
        self.fill(length.next_multiple_of(BLOCK as u64) - length)?;
        self.put()?;
        self.file.set_len(length)?;
        Ok(length)
    }

    /// Adds less than two blocks of zeroes.
    fn fill(&mut self, zeroes: u64) -> io::Result<()> {
        self.append(&[0; 2 * BLOCK][..super::small(zeroes)?])
    }

    fn advance(&mut self, bytes: usize) -> io::Result<()> {
        self.filled += bytes;
        if self.filled == BUFFER { self.put() } else { Ok(()) }
    }

    /// Writes the buffer.
    fn put(&mut self) -> io::Result<()> {
        let mut done = 0;
        while done < self.filled {
            let rest = &self.memory[self.begin..][done..self.filled];
            match self.file.write_at(rest, self.at + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // EINVAL: a disk with larger sectors, or one that is full within a block.
                Err(error) if self.is_direct && error.kind() == io::ErrorKind::InvalidInput => {
                    self.set_direct(false)?;
                    self.is_direct = false;
                }
                Err(error) => return Err(error),
            }
        }
        self.at += self.filled as u64;
        self.filled = 0;
        Ok(())
    }

    fn set_direct(&self, is_direct: bool) -> io::Result<()> {
        let mut flags = fcntl_getfl(&self.file)?;
        flags.set(OFlags::DIRECT, is_direct);
        Ok(fcntl_setfl(&self.file, flags)?)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use proptest::prelude::*;

    use super::*;

    fn is_in_memory(path: &std::path::Path) -> bool {
        const TMPFS: i64 = 0x0102_1994; // statfs(2)
        rustix::fs::statfs(path).unwrap().f_type == TMPFS
    }

    fn file(folder: &std::path::Path) -> (std::path::PathBuf, File) {
        let path = folder.join("file");
        let file = File::create(&path).unwrap();
        (path, file)
    }

    /// How a file is written: bytes, or so many zeroes.
    fn written(output: &mut NewFile, parts: &[(bool, usize)]) -> Vec<u8> {
        let mut whole = Vec::new();
        for (number, &(is_hole, length)) in parts.iter().enumerate() {
            let part = vec![if is_hole { 0 } else { u8::try_from(number % 255).unwrap() + 1 }; length];
            if is_hole {
                output.skip(length as u64).unwrap()
            } else {
                output.append(&part).unwrap()
            }
            whole.extend(part);
        }
        whole
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn what_is_written_is_there(
            is_direct in any::<bool>(),
            parts in prop::collection::vec(
                (any::<bool>(), prop_oneof![0..20_usize, 500..9000_usize, Just(BLOCK), 0..2 * BUFFER]),
                0..12,
            ),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let (path, file) = file(folder.path());
            let mut output = NewFile::new(file, is_direct);
            let whole = written(&mut output, &parts);
            prop_assert!(output.reached() <= whole.len() as u64);
            prop_assert_eq!(output.finish().unwrap(), whole.len() as u64);
            prop_assert!(fs_err::read(path).unwrap() == whole);
        }
    }

    #[test]
    fn zeroes_take_no_place() {
        let folder = tempfile::tempdir().unwrap();
        let (path, file) = file(folder.path());
        let mut output = NewFile::new(file, true);
        written(&mut output, &[(false, 100), (true, 8 << 20), (false, BLOCK), (true, 8 << 20)]);
        output.finish().unwrap();
        assert!(fs_err::metadata(path).unwrap().blocks() * 512 <= 4 * BLOCK as u64);
    }

    #[test]
    fn what_the_disk_does_not_take_directly_is_written_the_usual_way() {
        let folder = tempfile::tempdir().unwrap();
        let (path, file) = file(folder.path());
        let mut output = NewFile::new(file, true);
        // Memory that is no multiple of any sector, as if this disk's were larger.
        output.begin = output.begin.checked_sub(1).unwrap_or(1);
        let was_direct = output.is_direct;
        let whole = written(&mut output, &[(false, BUFFER + 100), (true, 3 * BLOCK), (false, 100)]);
        // Where the temporary folder is in memory, any memory will do.
        assert!(!was_direct || !output.is_direct || is_in_memory(folder.path()), "nothing was tried");
        output.finish().unwrap();
        assert!(fs_err::read(path).unwrap() == whole);
    }
}
