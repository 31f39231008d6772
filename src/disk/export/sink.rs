//! Where exported bytes go.

use std::io::{self, Read, Write};
use std::iter::Peekable;

use fs_err::File;
use sha2::{Digest as _, Sha256};

use super::behind::Behind;
use super::direct::NewFile;
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

/// A new file, with holes for zeroes, and the SHA-256 of its bytes.
pub(super) struct Digested {
    file: NewFile,
    digest: Digest,
    position: u64,
}

enum Digest {
    Own(Sha256),
    Behind {
        behind: Behind,
        /// What follows the bytes that are digested by somebody else: no more than a format rounds up and adds.
        rest: Vec<u8>,
    },
}

impl Digest {
    fn update(&mut self, position: u64, bytes: &[u8]) {
        match self {
            Self::Own(hasher) => hasher.update(bytes),
            Self::Behind { behind, rest } => {
                let before = usize::try_from(behind.length.saturating_sub(position)).unwrap_or(usize::MAX);
                rest.extend_from_slice(&bytes[before.min(bytes.len())..]);
            }
        }
    }

    /// Notes that so many bytes are in the file.
    fn reach(&self, position: u64) {
        if let Self::Behind { behind: Behind { progress: Some(progress), length, .. }, .. } = self {
            // The next place says more, and the last is told at the end.
            let _unheard = progress.try_send(position.min(*length));
        }
    }

    fn finish(self) -> Result<String, Error> {
        let hasher = match self {
            Self::Own(hasher) => hasher,
            Self::Behind { behind, rest } => {
                // Who reads the file may have failed, which the digest says.
                let _unheard = behind.progress.map(|progress| progress.send(behind.length));
                behind.digest.recv().map_err(|_| Error::Cut)??.chain_update(rest)
            }
        };
        Ok(hex::encode(hasher.finalize()))
    }
}

impl Digested {
    /// `file` is empty.
    pub(super) fn new(file: File, behind: Option<Behind>) -> Self {
        let own = || Digest::Own(Sha256::new());
        // One that is read while it is written is better kept in the kernel's memory.
        let is_read = behind.as_ref().is_some_and(|behind| behind.progress.is_some());
        let digest = behind.map_or_else(own, |behind| Digest::Behind { behind, rest: Vec::new() });
        Self { file: NewFile::new(file, !is_read), digest, position: 0 }
    }

    /// What was written.
    pub(super) fn finish(self) -> Result<Written, Error> {
        let bytes = self.file.finish()?;
        Ok(Written { sha256: self.digest.finish()?, bytes })
    }
}

impl Write for Digested {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.append(bytes)?;
        self.digest.update(self.position, bytes);
        self.position += bytes.len() as u64;
        self.digest.reach(self.file.reached());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
        self.file.skip(length)
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
