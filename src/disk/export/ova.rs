//! A VMware appliance in one file.
//!
//! Source: DMTF DSP0243, "Open Virtualization Format Specification" 1.1.0; section 5.3 allows the digests at the end.
//!
//! ```text
//!   tar: NAME.ovf │ NAME-disk1.vmdk │ NAME.mf
//! ```
//!
//! The description says how long the disk's file is, and stands before it; so room is kept, and it is written last.

use std::fmt::Write as _;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};

use fs_err::File;
use sha2::{Digest, Sha256};

use super::layout::Layout;
use super::piece::Pieces;
use super::{Disk, Error, Hardware, Written, small, vmdk};
use crate::host::file;

const BUFFER: usize = 1 << 16;
/// Room for the description, in bytes: a multiple of tar's 512.
const ROOM: u64 = 8 << 10;
const RECORD: u64 = 512;
/// How much of an image's name, which is ASCII, the names of its files begin with.
const LONGEST_NAME: usize = 80;

/// Writes an appliance.
pub(super) fn write(disk: Disk<'_>, layout: &Layout, pieces: Pieces, to: File) -> Result<Written, Error> {
    let path = to.path().to_owned();
    // No member of a tar of this kind has a longer name than 100 bytes.
    let name: String = disk.hardware.name.chars().take(LONGEST_NAME).collect();
    let (description, image, digests) = (format!("{name}.ovf"), format!("{name}-disk1.vmdk"), format!("{name}.mf"));
    let mut to = Member { file: BufWriter::with_capacity(BUFFER, to), hasher: Sha256::new(), length: 0 };
    let begin = 2 * RECORD + ROOM;
    to.file.seek(SeekFrom::Start(begin))?;
    vmdk::write(layout, pieces, &mut to)?;
    let Member { mut file, hasher, length } = to;
    let ovf = descriptor(disk.hardware, layout.size(), length, &image)?;
    let mut manifest = String::new();
    for (name, sha256) in [(&description, file::sha256_of(&ovf)), (&image, hex::encode(hasher.finalize()))] {
        // A line is written to a string, which takes it.
        let _taken = writeln!(manifest, "SHA256({name})= {sha256}");
    }
    let end = begin + length.next_multiple_of(RECORD);
    file.seek(SeekFrom::Start(end))?;
    file.write_all(&header(&digests, manifest.len() as u64)?)?;
    file.write_all(manifest.as_bytes())?;
    // Up to the record's end, and two empty ones.
    let bytes = end + RECORD + (manifest.len() as u64).next_multiple_of(RECORD) + 2 * RECORD;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&header(&description, ROOM)?)?;
    file.write_all(&ovf)?;
    file.write_all(&header(&image, length)?)?;
    file.flush()?;
    file.get_ref().set_len(bytes)?;
    drop(file);
    Ok(Written { sha256: file::sha256(&path)?, bytes })
}

/// A file in the file.
struct Member {
    file: BufWriter<File>,
    hasher: Sha256,
    length: u64,
}

impl Write for Member {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.length += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn header(name: &str, length: u64) -> io::Result<[u8; 512]> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_mode(0o644);
    header.set_size(length);
    header.set_cksum();
    Ok(*header.as_bytes())
}

/// The description, with white space up to its room.
fn descriptor(hardware: &Hardware, size: u64, file: u64, image: &str) -> io::Result<Vec<u8>> {
    let mut text = hardware.ovf(size, file, image).into_bytes();
    if text.len() as u64 > ROOM {
        return Err(io::Error::other("the image's name is too long for an appliance"));
    }
    text.resize(small(ROOM)?, b'\n');
    Ok(text)
}
