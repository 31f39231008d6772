//! Where exported bytes go.

use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::iter::Peekable;
use std::sync::mpsc::{Receiver, Sender};

use fs_err::File;
use sha2::{Digest as _, Sha256};

use super::layout::Layout;
use super::piece::Pieces;
use super::{Error, Written, small};
use crate::disk::qcow2::Content;

/// Something that is written front to back and may have a cheap way to hold zeroes.
pub(super) trait Sink: Write {
    /// Writes so many zeroes.
    fn zeroes(&mut self, length: u64) -> io::Result<()>;
}

static ZEROES: [u8; 1 << 16] = [0; 1 << 16];

/// No more than a cluster: whole ones are written without being copied.
pub(super) const BUFFER: usize = 1 << 16;

/// A new file, with holes for zeroes, and the SHA-256 of its bytes.
pub(super) struct Digested {
    file: BufWriter<File>,
    digest: Digest,
    position: u64,
    /// Zeroes since the last byte.
    hole: u64,
}

/// A file begins with the very bytes of another, which are digested once for both.
pub(super) enum Beginning {
    /// The file is the other's beginning, and lends its digest.
    Lent(Sender<Sha256>),
    /// So many bytes of the file are all of the other.
    Borrowed(Receiver<Sha256>, u64),
}

enum Digest {
    Own(Sha256, Option<Sender<Sha256>>),
    Borrowed {
        from: Receiver<Sha256>,
        length: u64,
        /// What follows the beginning: no more than a format rounds up and adds.
        rest: Vec<u8>,
    },
}

impl Digest {
    fn update(&mut self, position: u64, bytes: &[u8]) {
        match self {
            Self::Own(hasher, _) => hasher.update(bytes),
            Self::Borrowed { length, rest, .. } => {
                let before = usize::try_from(length.saturating_sub(position)).unwrap_or(usize::MAX);
                rest.extend_from_slice(&bytes[before.min(bytes.len())..]);
            }
        }
    }

    fn finish(self) -> Result<String, Error> {
        let hasher = match self {
            Self::Own(hasher, None) => hasher,
            Self::Own(hasher, Some(to)) => {
                // Who wanted it may have failed.
                let _unwanted = to.send(hasher.clone());
                hasher
            }
            Self::Borrowed { from, rest, .. } => from.recv().map_err(|_| Error::Cut)?.chain_update(rest),
        };
        Ok(hex::encode(hasher.finalize()))
    }
}

impl Digested {
    /// `file` is empty.
    pub(super) fn new(file: File, beginning: Option<Beginning>) -> Self {
        let digest = match beginning {
            None => Digest::Own(Sha256::new(), None),
            Some(Beginning::Lent(to)) => Digest::Own(Sha256::new(), Some(to)),
            Some(Beginning::Borrowed(from, length)) => Digest::Borrowed { from, length, rest: Vec::new() },
        };
        Self { file: BufWriter::with_capacity(BUFFER, file), digest, position: 0, hole: 0 }
    }

    /// What was written.
    pub(super) fn finish(mut self) -> Result<Written, Error> {
        self.file.flush()?;
        self.file.get_ref().set_len(self.position)?;
        Ok(Written { sha256: self.digest.finish()?, bytes: self.position })
    }
}

impl Write for Digested {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.hole > 0 {
            self.file.seek(SeekFrom::Start(self.position))?;
            self.hole = 0;
        }
        let n = self.file.write(bytes)?;
        self.digest.update(self.position, &bytes[..n]);
        self.position += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Sink for Digested {
    fn zeroes(&mut self, length: u64) -> io::Result<()> {
        let mut rest = length;
        while rest > 0 {
            let part = &ZEROES[..small(rest.min(ZEROES.len() as u64))?];
            self.digest.update(self.position, part);
            rest -= part.len() as u64;
            self.position += part.len() as u64;
        }
        self.hole += length;
        Ok(())
    }
}

/// Wherever bytes can go; zeroes are bytes.
pub(super) struct Plain<'a>(pub(super) &'a mut dyn Write);

impl Write for Plain<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Sink for Plain<'_> {
    fn zeroes(&mut self, length: u64) -> io::Result<()> {
        io::copy(&mut io::repeat(0).take(length), self.0).map(drop)
    }
}

/// Writes a part of a disk that begins and ends with a cluster, or behind the disk's end.
pub(super) fn span(pieces: &mut Peekable<Pieces>, from: u64, end: u64, to: &mut dyn Sink) -> Result<(), Error> {
    let mut at = from;
    loop {
        let is_behind = |piece: &Result<super::Shared, Error>| piece.as_ref().is_ok_and(|piece| piece.offset >= end);
        match pieces.next_if(|piece| !is_behind(piece)) {
            Some(piece) => {
                let piece = piece?;
                to.zeroes(piece.offset - at)?;
                let bytes = &piece.bytes[..small((end - piece.offset).min(Content::CLUSTER))?];
                to.write_all(bytes)?;
                at = piece.offset + bytes.len() as u64;
            }
            None => return Ok(to.zeroes(end - at)?),
        }
    }
}

/// The digest of what a guest sees, as [`crate::host::file::sha256_of_sparse`] defines it: of the size, and of the places
/// and bytes of all clusters that are not zero.
pub(super) fn content_digest(layout: &Layout, pieces: Pieces) -> Result<String, Error> {
    let mut hasher = Sha256::new_with_prefix(layout.size().to_le_bytes());
    for piece in pieces {
        let piece = piece?;
        hasher.update(piece.offset.to_le_bytes());
        hasher.update(&piece.bytes[..small((layout.size() - piece.offset).min(Content::CLUSTER))?]);
    }
    Ok(hex::encode(hasher.finalize()))
}
