//! What a disk from outside is, and whether it may be opened at all.
//!
//! A disk can name other files: a backing file, an external data file, the extents of a VMDK. QEMU would open them, and
//! so have any file of the host read into a guest, or any address contacted (CVE-2024-4467 did it with nothing but
//! `qemu-img info`). So the header is read here first, and a disk that wants more than itself is refused before QEMU
//! sees it.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use fs_err::File;

/// Formats that disks are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// QEMU's own. "QCOW2 image format", `docs/interop/qcow2.txt`.
    Qcow2,
    /// Bytes as the guest sees them.
    Raw,
    /// VMware's, hosted sparse or stream-optimised. "Virtual Disk Format 5.0", section 4.
    Vmdk,
    /// Microsoft's older one. "Virtual Hard Disk Image Format Specification" 1.0.
    Vhd,
    /// Microsoft's newer one. [MS-VHDX] 8.0.
    Vhdx,
}

impl Format {
    /// QEMU's name for it.
    pub fn qemu_name(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
            Self::Vmdk => "vmdk",
            Self::Vhd => "vpc",
            Self::Vhdx => "vhdx",
        }
    }
}

/// Why a disk is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It can't be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not a disk that stands alone.
    #[error("`{path}` is not accepted as a disk: {why}")]
    Refused {
        /// The file.
        path: String,
        /// Why.
        why: &'static str,
    },
}

/// The specification's limit, in bytes.
const MAX_BACKING_NAME: usize = 1023;
const HEAD: usize = 512;
/// `DESC_SIZE` of QEMU's `block/vmdk.c`, 20 sectors.
const VMDK_DESCRIPTOR: usize = 20 * 512;

/// A disk's format by its bytes, whatever its name.
pub fn probe(path: &Path) -> Result<Format, Error> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut head = [0; HEAD];
    let n = fill(&mut file, &mut head)?;
    let mut foot = [0; HEAD];
    if length >= HEAD as u64 {
        file.seek(SeekFrom::Start(length - HEAD as u64))?;
        fill(&mut file, &mut foot)?;
    }
    let refused = |why| Error::Refused { path: path.display().to_string(), why };
    if head.starts_with(b"KDMV") {
        // QEMU reads this much for the name of a parent, whatever the header says of the descriptor's place.
        let mut descriptor = vec![0; VMDK_DESCRIPTOR];
        file.seek(SeekFrom::Start(HEAD as u64))?;
        fill(&mut file, &mut descriptor)?;
        if memchr::memmem::find(&descriptor, b"parentFileNameHint").is_some() {
            return Err(refused("it is a VMDK that is based on another file; convert it to one file first"));
        }
    }
    classify(&head[..n], &foot, length).map_err(|why| Error::Refused { path: path.display().to_string(), why })
}

/// What a qcow2 is based on, by its full path; none if it stands alone. An overlay that keeps its content elsewhere, or
/// names its backing file by anything but a path, is refused.
pub fn overlay_parent(path: &Path) -> Result<Option<PathBuf>, Error> {
    let refused = |why| Error::Refused { path: path.display().to_string(), why };
    let mut file = File::open(path)?;
    let mut head = [0; HEAD];
    let n = fill(&mut file, &mut head)?;
    if !head.starts_with(b"QFI\xfb") {
        return Err(refused("it is no qcow2; convert it to qcow2 first"));
    }
    let offset = if n < 104 { 0 } else { be64(&head, 8) };
    if offset == 0 {
        return qcow2(&head[..n]).map(|()| None).map_err(refused);
    }
    // The rest of the header has to be that of a disk that stands alone.
    let length = usize::try_from(be32(&head, 16)).unwrap_or(usize::MAX);
    head[8..16].fill(0);
    qcow2(&head[..n]).map_err(refused)?;
    if length == 0 || length > MAX_BACKING_NAME {
        return Err(refused("its backing file's name has a wrong length"));
    }
    let mut name = vec![0; length];
    file.seek(SeekFrom::Start(offset))?;
    fill(&mut file, &mut name)?;
    match String::from_utf8(name) {
        Ok(name) if name.starts_with('/') => Ok(Some(PathBuf::from(name))),
        _ => Err(refused("its backing file is not named by a full path")),
    }
}

fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while n < buffer.len() {
        match file.read(&mut buffer[n..])? {
            0 => break,
            more => n += more,
        }
    }
    Ok(n)
}

fn classify(head: &[u8], foot: &[u8; HEAD], length: u64) -> Result<Format, &'static str> {
    if head.starts_with(b"QFI\xfb") {
        return qcow2(head).map(|()| Format::Qcow2);
    }
    if head.starts_with(b"KDMV") {
        return vmdk(head).map(|()| Format::Vmdk);
    }
    if head.starts_with(b"vhdxfile") {
        return Ok(Format::Vhdx);
    }
    // A dynamic VHD has a copy of its footer at the start.
    if head.starts_with(b"conectix") || foot.starts_with(b"conectix") {
        return Ok(Format::Vhd);
    }
    if head.starts_with(b"# Disk DescriptorFile") || head.starts_with(b"COWD") {
        return Err("it is a VMDK that consists of several files; convert it to one file first");
    }
    if length == 0 || !length.is_multiple_of(HEAD as u64) {
        return Err("it has no known header, and a raw disk is a multiple of 512 bytes long");
    }
    // Some words that no raw disk begins with, but files that are taken for disks do.
    for (magic, why) in [
        (&b"\x1f\x8b"[..], "it is compressed with gzip; unpack it first"),
        (b"\xfd7zXZ\0", "it is compressed with xz; unpack it first"),
        (b"\x28\xb5\x2f\xfd", "it is compressed with zstd; unpack it first"),
        (b"BZh", "it is compressed with bzip2; unpack it first"),
        (b"PK\x03\x04", "it is a zip archive; unpack it first"),
        (b"<<< ", "it is a VDI of VirtualBox; convert it to qcow2 first"),
        (b"QED\0", "it is a QED disk; convert it to qcow2 first"),
        (b"WithoutFreeSpace", "it is a disk of Parallels; convert it to qcow2 first"),
        (b"WithouFreSpacExt", "it is a disk of Parallels; convert it to qcow2 first"),
        (b"LUKS\xba\xbe", "it is encrypted"),
        (b"<!DOCTYPE", "it is a web page"),
        (b"<html", "it is a web page"),
    ] {
        if head.starts_with(magic) {
            return Err(why);
        }
    }
    Ok(Format::Raw)
}

/// Header fields by their offsets in the specification: backing file 8, encryption 32, incompatible features 72.
fn qcow2(head: &[u8]) -> Result<(), &'static str> {
    const EXTERNAL_DATA_FILE: u64 = 1 << 2;
    if head.len() < 104 {
        return Err("its qcow2 header is cut off");
    }
    match be32(head, 4) {
        2 | 3 => {}
        _ => return Err("its qcow2 version is neither 2 nor 3"),
    }
    if be64(head, 8) != 0 {
        return Err("it is an overlay that needs a backing file; flatten it with `qemu-img convert` first");
    }
    if be32(head, 32) != 0 {
        return Err("it is encrypted");
    }
    if be32(head, 4) == 3 && be64(head, 72) & EXTERNAL_DATA_FILE != 0 {
        return Err("it keeps its content in another file; convert it to one file first");
    }
    Ok(())
}

/// A capacity of zero makes a reader take the embedded descriptor, and so other files, at its word.
fn vmdk(head: &[u8]) -> Result<(), &'static str> {
    if head.len() < HEAD {
        return Err("its VMDK header is cut off");
    }
    if head[12..20] == [0; 8] {
        return Err("it is a VMDK that describes other files; convert it to one file first");
    }
    Ok(())
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(field)
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from(be32(bytes, at)) << 32 | u64::from(be32(bytes, at + 4))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn verdict(folder: &Path, arguments: &[&str], name: &str) -> String {
        let status =
            Command::new("qemu-img").args(["create", "-q", "-f"]).args(arguments).current_dir(folder).status().unwrap();
        assert!(status.success(), "{arguments:?}");
        match probe(&folder.join(name)) {
            Ok(format) => format!("{format:?}"),
            Err(Error::Refused { why, .. }) => why.to_owned(),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn disks_that_want_other_files_are_refused_before_qemu_sees_them() {
        let folder = tempfile::tempdir().unwrap();
        let verdict = |arguments: &[&str], name: &str| verdict(folder.path(), arguments, name);
        assert_eq!(verdict(&["qcow2", "a.qcow2", "1M"], "a.qcow2"), "Qcow2");
        assert_eq!(verdict(&["qcow2", "-o", "compat=0.10", "b", "1M"], "b"), "Qcow2");
        assert_eq!(verdict(&["vmdk", "c", "1M"], "c"), "Vmdk");
        assert_eq!(verdict(&["vmdk", "-o", "subformat=streamOptimized", "d", "1M"], "d"), "Vmdk");
        assert_eq!(verdict(&["vpc", "e", "1M"], "e"), "Vhd");
        assert_eq!(verdict(&["vpc", "-o", "subformat=fixed", "f", "1M"], "f"), "Vhd");
        assert_eq!(verdict(&["vhdx", "g", "1M"], "g"), "Vhdx");
        assert_eq!(verdict(&["raw", "h", "1M"], "h"), "Raw");
        let backed = verdict(&["qcow2", "-b", "h", "-F", "raw", "i"], "i");
        assert!(backed.contains("backing file"), "{backed}");
        let external = verdict(&["qcow2", "-o", "data_file=elsewhere", "j", "1M"], "j");
        assert!(external.contains("another file"), "{external}");
        let flat = verdict(&["vmdk", "-o", "subformat=monolithicFlat", "k.vmdk", "1M"], "k.vmdk");
        assert!(flat.contains("several files"), "{flat}");
        let odd = classify(&[0; 400], &[0; HEAD], 1000).unwrap_err();
        assert!(odd.contains("multiple of 512"), "{odd}");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(magic in prop::sample::select(vec!["QFI\u{fb}", "KDMV", "vhdxfile", "conectix", ""]), rest in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut head: Vec<u8> = magic.chars().map(|c| c as u8).collect();
            head.extend(rest);
            head.truncate(HEAD);
            let length = head.len() as u64;
            let _any = classify(&head, &[0; HEAD], length);
        }
    }
}
