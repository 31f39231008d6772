//! A part of a file as a stream of its own.

use std::io::{self, Read, Seek, SeekFrom, Write};

/// The bytes of a stream from `start`, `length` of them, seen as a stream that begins at 0 and can't be left.
#[derive(Debug)]
pub struct Slice<S> {
    inner: S,
    start: u64,
    length: u64,
    position: u64,
}

impl<S: Seek> Slice<S> {
    /// The part of `inner` from `start`, in bytes.
    pub fn new(inner: S, start: u64, length: u64) -> Self {
        Self { inner, start, length, position: 0 }
    }

    /// How much of a request fits between here and the end; the inner stream is placed here.
    fn prepare(&mut self, wanted: usize) -> io::Result<usize> {
        self.inner.seek(SeekFrom::Start(self.start + self.position))?;
        let left = self.length.saturating_sub(self.position);
        Ok(usize::try_from(left).unwrap_or(usize::MAX).min(wanted))
    }
}

impl<S: Read + Seek> Read for Slice<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = self.prepare(buffer.len())?;
        let n = self.inner.read(&mut buffer[..wanted])?;
        self.position += n as u64;
        Ok(n)
    }
}

impl<S: Write + Seek> Write for Slice<S> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let wanted = self.prepare(buffer.len())?;
        let n = self.inner.write(&buffer[..wanted])?;
        self.position += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<S: Seek> Seek for Slice<S> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
            SeekFrom::End(offset) => self.length.checked_add_signed(offset),
        };
        let before_start = || io::Error::new(io::ErrorKind::InvalidInput, "a seek to before the start of the part");
        self.position = target.ok_or_else(before_start)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn neither_reads_nor_writes_leave_the_part() {
        let mut bytes = Cursor::new(b"0123456789".to_vec());
        let mut slice = Slice::new(&mut bytes, 3, 4);
        let mut text = String::new();
        slice.read_to_string(&mut text).unwrap();
        assert_eq!(text, "3456");
        slice.seek(SeekFrom::End(-2)).unwrap();
        assert_eq!(slice.write(b"abc").unwrap(), 2);
        assert_eq!(slice.write(b"c").unwrap(), 0);
        assert!(slice.seek(SeekFrom::Current(-9)).is_err());
        assert_eq!(bytes.into_inner(), b"01234ab789");
    }
}
