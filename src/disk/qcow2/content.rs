//! What is on a sealed disk, by its place.

use std::io;
use std::path::Path;

use flate2::{Decompress, FlushDecompress, Status};

use super::map::{Chain, Cluster};
use super::{CLUSTER, Error, L2_ENTRIES};

/// A stand-alone qcow2 as a guest sees it.
pub struct Content {
    chain: Chain,
    /// Bytes of a compressed cluster that is being read.
    stream: Vec<u8>,
    inflater: Inflater,
    /// The cluster that was read last, if only a part of it was wanted.
    last: Option<u64>,
    cluster: Vec<u8>,
}

/// How a cluster's bytes are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As they are.
    Plain,
    /// As a raw deflate stream (RFC 1951), and what may follow it in its last sector.
    Deflated,
}

impl Content {
    /// Bytes of a cluster. All but the last of a disk are whole.
    pub const CLUSTER: u64 = CLUSTER;

    /// Opens a disk. One that is based on another is refused, and so is an [`Error::Unusual`] one.
    pub fn open(disk: &Path) -> Result<Self, Error> {
        let chain = Chain::open_alone(disk)?;
        let (stream, inflater) = (Vec::new(), Inflater::new());
        Ok(Self { chain, stream, inflater, last: None, cluster: vec![0; whole()] })
    }

    /// Size that a guest sees, in bytes. It need not be a multiple of anything.
    pub fn size(&self) -> u64 {
        self.chain.size()
    }

    /// Where the first cluster begins that ends behind `offset` and may hold something; none if only zeroes follow.
    pub fn next_data(&mut self, offset: u64) -> Result<Option<u64>, Error> {
        let clusters = self.size().div_ceil(CLUSTER);
        let mut index = offset / CLUSTER;
        while index < clusters {
            if !self.chain.has_table(index / L2_ENTRIES) {
                // Half a gigabyte that nobody has written to.
                index = (index / L2_ENTRIES + 1) * L2_ENTRIES;
            } else if self.chain.cluster(index)? == Cluster::Zero {
                index += 1;
            } else {
                return Ok(Some(index * CLUSTER));
            }
        }
        Ok(None)
    }

    /// Fills a buffer with what a guest would read at `offset`.
    pub fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.size()) {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let (mut offset, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let start = usize::try_from(offset % CLUSTER).map_err(io::Error::other)?;
            let n = rest.len().min(whole() - start);
            let (part, behind) = rest.split_at_mut(n);
            self.read_part(offset / CLUSTER, start, part)?;
            offset += n as u64;
            rest = behind;
        }
        Ok(())
    }

    /// Puts a cluster's bytes into a buffer as they are stored; none if there are only zeroes.
    pub fn stored(&mut self, offset: u64, bytes: &mut Vec<u8>) -> Result<Option<Form>, Error> {
        let (file, offset, length, form) = match self.chain.cluster(offset / CLUSTER)? {
            Cluster::Zero => return Ok(None),
            Cluster::Data { file, offset } => (file, offset, CLUSTER, Form::Plain),
            Cluster::Compressed { file, offset, length } => (file, offset, length, Form::Deflated),
        };
        bytes.resize(usize::try_from(length).map_err(io::Error::other)?, 0);
        self.chain.read(file, offset, bytes)?;
        Ok(Some(form))
    }

    fn read_part(&mut self, index: u64, start: usize, part: &mut [u8]) -> Result<(), Error> {
        if self.last != Some(index) {
            match self.chain.cluster(index)? {
                Cluster::Zero => {
                    part.fill(0);
                    return Ok(());
                }
                Cluster::Data { file, offset } => return Ok(self.chain.read(file, offset + start as u64, part)?),
                Cluster::Compressed { .. } => {}
            }
            let mut stream = std::mem::take(&mut self.stream);
            self.stored(index * CLUSTER, &mut stream)?;
            self.stream = stream;
            if part.len() == whole() {
                return self.inflater.inflate(&self.stream, part).map(drop);
            }
            self.last = None;
            self.inflater.inflate(&self.stream, &mut self.cluster)?;
            self.last = Some(index);
        }
        part.copy_from_slice(&self.cluster[start..start + part.len()]);
        Ok(())
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content").field("size", &self.size()).finish_non_exhaustive()
    }
}

fn whole() -> usize {
    usize::try_from(CLUSTER).unwrap_or(0)
}

/// Inflates clusters of [`Form::Deflated`].
#[derive(Debug)]
pub struct Inflater(Decompress);

impl Inflater {
    /// One that has inflated nothing.
    pub fn new() -> Self {
        Self(Decompress::new(false))
    }

    /// Fills a whole cluster and returns how many bytes its stream has.
    pub fn inflate(&mut self, stored: &[u8], cluster: &mut [u8]) -> Result<usize, Error> {
        self.0.reset(false);
        let status = self.0.decompress(stored, cluster, FlushDecompress::Finish);
        if status.ok() != Some(Status::StreamEnd) || self.0.total_out() != cluster.len() as u64 {
            return Err(Error::Damaged("one of its clusters can't be inflated"));
        }
        usize::try_from(self.0.total_in()).map_err(|error| io::Error::other(error).into())
    }
}

impl Default for Inflater {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn run(program: &str, arguments: &[&str]) {
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A compressed disk of so many sectors, and the same as a raw one. A write is a place, a length and a byte, all of
    /// noise instead where that is 0.
    fn disk(folder: &Path, sectors: u64, writes: &[(u64, u64, u8)]) -> (std::path::PathBuf, Vec<u8>) {
        let mut raw = vec![0; usize::try_from(sectors * 512).unwrap()];
        for &(at, length, byte) in writes {
            let at = usize::try_from(at % (sectors * 512)).unwrap();
            let end = (at + usize::try_from(length).unwrap()).min(raw.len());
            let mut noise = (0..).flat_map(|_| *uuid::Uuid::new_v4().as_bytes());
            raw[at..end].fill_with(|| if byte == 0 { noise.next().unwrap() } else { byte });
        }
        let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        fs_err::write(at("raw"), &raw).unwrap();
        run("qemu-img", &["convert", "-c", "-f", "raw", "-O", "qcow2", &at("raw"), &at("disk")]);
        (folder.join("disk"), raw)
    }

    /// All of a disk, by the clusters that may hold something.
    fn all(content: &mut Content) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(content.size()).unwrap()];
        let mut offset = 0;
        while let Some(data) = content.next_data(offset).unwrap() {
            assert!(data >= offset && data % CLUSTER == 0 && data < content.size());
            offset = data + CLUSTER;
            let end = bytes.len().min(usize::try_from(offset).unwrap());
            content.read(data, &mut bytes[usize::try_from(data).unwrap()..end]).unwrap();
        }
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn what_qemu_wrote_is_read(
            sectors in prop_oneof![Just(1), Just(128), 1..5000_u64],
            writes in prop::collection::vec((0..5000 * 512_u64, 1..300_000_u64, 0..4_u8), 0..8),
            reads in prop::collection::vec((0..5000 * 512_u64, 0..200_000_usize), 1..12),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let (path, raw) = disk(folder.path(), sectors, &writes);
            let mut content = Content::open(&path).unwrap();
            prop_assert_eq!(content.size(), sectors * 512);
            prop_assert!(all(&mut content) == raw, "by clusters");
            for (at, length) in reads {
                let at = usize::try_from(at).unwrap() % raw.len();
                let wanted = &raw[at..(at + length).min(raw.len())];
                let mut bytes = vec![1; wanted.len()];
                content.read(at as u64, &mut bytes).unwrap();
                prop_assert!(bytes == wanted, "{} bytes at {at}", wanted.len());
            }
        }
    }

    #[test]
    fn a_large_disk_is_as_quick_as_what_is_on_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        let name = path.to_str().unwrap();
        run("qemu-img", &["create", "-q", "-f", "qcow2", name, "2T"]);
        run("qemu-io", &["-f", "qcow2", "-c", "write -P 7 1099511627776 100k", name]);
        let mut content = Content::open(&path).unwrap();
        let mut found = Vec::new();
        while let Some(data) = content.next_data(found.last().map_or(0, |last| last + CLUSTER)).unwrap() {
            found.push(data);
        }
        assert_eq!(found, [1 << 40, (1 << 40) + CLUSTER]);
        let mut bytes = [1; 4];
        content.read((1 << 40) + (100 << 10) - 2, &mut bytes).unwrap();
        assert_eq!(bytes, [7, 7, 0, 0]);
        assert!(content.read((2 << 40) - 2, &mut bytes).is_err());
    }

    #[test]
    fn what_does_not_stand_alone_or_is_damaged_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (path, _) = disk(folder.path(), 1000, &[(0, 200_000, 1)]);
        let overlay = folder.path().join("overlay");
        let name = overlay.to_str().unwrap();
        run("qemu-img", &["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", path.to_str().unwrap(), name]);
        assert!(matches!(Content::open(&overlay), Err(Error::Unusual(_))));
        // The stream of the first cluster, not its tables.
        let mut content = Content::open(&path).unwrap();
        let Cluster::Compressed { offset, .. } = content.chain.cluster(0).unwrap() else { panic!("not compressed") };
        let mut bytes = fs_err::read(&path).unwrap();
        let at = usize::try_from(offset).unwrap();
        bytes[at..at + 30].fill(0xff);
        fs_err::write(&path, bytes).unwrap();
        let refused = content.read(0, &mut [0; 10]);
        assert!(matches!(refused, Err(Error::Damaged(_))), "{refused:?}");
    }
}
