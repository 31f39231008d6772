//! A disk's blocks as a snapshot: the EBS direct APIs.
//!
//! Only blocks that hold something are sent, and of a disk whose predecessor's snapshot is there only those that differ: what
//! is the same comes from that snapshot. A block of zeroes is sent where the predecessor has something. Source: AWS's "EBS
//! direct APIs service API reference".

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use fs_err as fs;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use goldsmith_aws::{BLOCK, Bytes, NewSnapshot, Region, Snapshot, SnapshotState};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::journal::{Journal, Made, StepName};
use super::memory::Room;
use super::pace::{PATIENCE, Pace};
use super::plan::Image;
use super::{EarlierSnapshot, Error, Event, Publication};
use crate::disk::qcow2::Content;
use crate::host::file;

/// Blocks of one snapshot that are on their way at once, if there is room. Each takes AWS some 50 ms, so these are some 600 blocks a second, of the
/// 1,000 that an account may send.
const AT_ONCE: usize = 32;
/// Blocks that wait to be sent.
const QUEUE: usize = 8;

/// How long a snapshot may take that AWS says it does not complete.
const AFTER_REFUSAL: Duration = Duration::from_secs(300);

type Sum = [u8; 32];
/// The digests of blocks that are not zero, by their place.
type Sums = BTreeMap<u32, Sum>;

/// Makes the snapshot, or goes on with it. Returns its identifier.
pub(super) async fn make(
    publication: &Publication<'_>,
    region: &Region,
    step: &StepName,
    gib: u64,
    image: &Image,
) -> Result<String, Error> {
    let journal = publication.journal;
    let mut entry = journal.step(step)?;
    if let Some(Made::Snapshot { id, .. }) = &entry.made {
        match region.snapshot(id).await? {
            Some(Snapshot { state: SnapshotState::Completed, .. }) => return Ok(id.clone()),
            Some(Snapshot { state: SnapshotState::Pending(_), .. }) => {}
            // AWS has given it up: it waits for blocks for three days at most.
            Some(Snapshot { state: SnapshotState::Failed(_), .. }) | None => entry = anew(publication, step)?,
        }
    }
    let (id, parent) = match entry.made {
        Some(Made::Snapshot { id, parent, .. }) => (id, parent),
        _ => {
            // Of another snapshot, which was taken back: nothing has arrived in this one.
            file::remove_if_there(&journal.path(&sent_name(&step.place)))?;
            let (id, parent) = start(publication, region, &entry.token, gib, image).await?;
            note(publication, step, &id, parent.as_deref(), None)?;
            (id, parent)
        }
    };
    let base = publication.earlier_sums(parent.as_deref())?;
    let sent = send(publication, region, step, &id, base).await?;
    note(publication, step, &id, parent.as_deref(), Some(&sent.content))?;
    let closed = region.complete_snapshot(&id, sent.changed, &sent.checksum).await;
    // What was completed before, and whose answer was lost, AWS refuses to complete again; it is then ready soon.
    let patience = if closed.is_ok() { PATIENCE } else { AFTER_REFUSAL };
    match (closed, wait(publication, region, step, &id, patience).await) {
        (Err(refused), Err(Error::Late { .. })) => return Err(refused.into()),
        (_, waited) => waited?,
    }
    write_sums(&publication.journal.path(&sums_name(&region.name)), &sent.sums)?;
    file::remove_if_there(&publication.journal.path(&sent_name(&region.name)))?;
    Ok(id)
}

/// Begins a snapshot, or finds the one that was begun with the same token. Returns its identifier, and that of its base.
pub(super) async fn start(
    publication: &Publication<'_>,
    region: &Region,
    token: &str,
    gib: u64,
    image: &Image,
) -> Result<(String, Option<String>), Error> {
    let parent = match image.kms_key {
        // A snapshot that is based on another is encrypted as that one is.
        Some(_) => None,
        None => earlier(publication, region, gib).await?,
    };
    let new = NewSnapshot {
        gib,
        parent: parent.as_deref(),
        description: &image.description,
        tags: &image.tags,
        kms_key: image.kms_key.as_deref(),
        token,
    };
    Ok((region.start_snapshot(new).await?, parent))
}

fn anew(publication: &Publication<'_>, step: &StepName) -> io::Result<super::journal::Entry> {
    file::remove_if_there(&publication.journal.path(&sent_name(&step.place)))?;
    publication.journal.step_anew(step)
}

fn note(
    publication: &Publication<'_>,
    step: &StepName,
    id: &str,
    parent: Option<&str>,
    content: Option<&str>,
) -> io::Result<()> {
    let (id, parent, content) = (id.to_owned(), parent.map(str::to_owned), content.map(str::to_owned));
    publication.journal.note_made(step, Made::Snapshot { id, content, parent })
}

/// The newest snapshot of an earlier image that this one can be based on.
async fn earlier(publication: &Publication<'_>, region: &Region, gib: u64) -> Result<Option<String>, Error> {
    let here = publication.earlier.iter().filter(|(name, _)| *name == region.name);
    for (_, EarlierSnapshot { id, .. }) in here {
        if let Some(Snapshot { state: SnapshotState::Completed, gib: known, kms_key: None }) =
            region.snapshot(id).await?
            && known <= gib
        {
            return Ok(Some(id.clone()));
        }
    }
    Ok(None)
}

async fn wait(
    publication: &Publication<'_>,
    region: &Region,
    step: &StepName,
    id: &str,
    patience: Duration,
) -> Result<(), Error> {
    publication.begins(&step.place, format!("waiting for {id}"));
    let mut pace = Pace::new("snapshot", id, patience);
    loop {
        match region.snapshot(id).await?.map(|snapshot| snapshot.state) {
            Some(SnapshotState::Completed) => return Ok(()),
            Some(SnapshotState::Failed(why)) => return Err(Error::NotMade { what: "snapshot", why }),
            // What was just made is not known everywhere at once.
            Some(SnapshotState::Pending(_)) | None => pace.wait().await?,
        }
    }
}

impl Publication<'_> {
    /// What an earlier snapshot holds.
    fn earlier_sums(&self, snapshot: Option<&str>) -> io::Result<Sums> {
        let Some(snapshot) = snapshot else { return Ok(Sums::new()) };
        let known = self.earlier.iter().map(|(_, earlier)| earlier).find(|earlier| earlier.id == snapshot);
        let known = known.ok_or_else(|| io::Error::other(format!("what {snapshot} holds is not known any more")))?;
        read_sums(&known.blocks)
    }
}

/// What was sent.
struct Sent {
    /// How many blocks differ from the snapshot's base.
    changed: u32,
    /// The digest of their digests, in Base64.
    checksum: String,
    /// Digest of what a guest sees.
    content: String,
    /// All blocks that are not zero.
    sums: Sums,
}

/// Sends the blocks that differ from the base and have not arrived yet.
async fn send(
    publication: &Publication<'_>,
    region: &Region,
    step: &StepName,
    id: &str,
    base: Sums,
) -> Result<Sent, Error> {
    let log = publication.journal.path(&sent_name(&region.name));
    let arrived = if log.exists() { read_sums_leniently(&log)? } else { HashSet::new() };
    let log = Mutex::new(fs::OpenOptions::new().create(true).append(true).open(&log)?);
    let sender = Sender { publication, region, step, id, arrived, log };
    let (blocks, mut queue) = mpsc::channel(QUEUE);
    let disk = publication.disk.to_owned();
    let memory = (publication.memory.clone(), Handle::current());
    let room = move || memory.0.room(BLOCK, &memory.1);
    let reader = tokio::task::spawn_blocking(move || read(&disk, &base, &room, &blocks));
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(block) = queue.recv(), if under_way.len() < AT_ONCE => under_way.push(sender.send(block)),
            Some(sent) = under_way.next() => sent?,
            else => break,
        }
    }
    drop(queue);
    reader.await.map_err(io::Error::other)?
}

/// Sends blocks.
struct Sender<'a, 'p> {
    publication: &'a Publication<'p>,
    region: &'a Region,
    step: &'a StepName,
    /// The snapshot.
    id: &'a str,
    /// What need not be sent again.
    arrived: HashSet<(u32, Sum)>,
    /// Where it is noted what has arrived.
    log: Mutex<fs::File>,
}

impl Sender<'_, '_> {
    async fn send(&self, block: Block) -> Result<(), Error> {
        let Block { index, data, sum, room } = block;
        if !self.arrived.contains(&(index, sum)) {
            self.region.put_block(self.id, index, data, &BASE64.encode(sum)).await?;
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            io::Write::write_all(&mut *log, &record(index, &sum))?;
        }
        drop(room);
        let total = self.publication.subject.size;
        let done = ((u64::from(index) + 1) * BLOCK as u64).min(total);
        self.publication.tell(Event::Transfer { place: self.step.place.clone(), done, total });
        Ok(())
    }
}

/// A block that differs from the snapshot's base.
struct Block<R = Room> {
    index: u32,
    data: Bytes,
    sum: Sum,
    room: R,
}

/// Reads a disk, and hands out the blocks that differ from what the base holds, in order.
fn read<R>(
    disk: &Path,
    base: &Sums,
    room: &dyn Fn() -> io::Result<R>,
    blocks: &mpsc::Sender<Block<R>>,
) -> Result<Sent, Error> {
    let of_the_disk = |error: crate::disk::qcow2::Error| Error::Disk(error.into());
    let mut content = Content::open(disk).map_err(of_the_disk)?;
    let mut sums = Sums::new();
    let (mut changed, mut checksum) = (0, Sha256::new());
    let mut whole = Sha256::new_with_prefix(content.size().to_le_bytes());
    let mut offset = 0;
    loop {
        let data = content.next_data(offset).map_err(of_the_disk)?.map(|place| place / BLOCK as u64);
        // Where the base holds something, this disk may hold nothing.
        let below = base.range(u32::try_from(offset / BLOCK as u64).unwrap_or(u32::MAX)..).next();
        let index = match (data, below.map(|(index, _)| u64::from(*index))) {
            (Some(data), Some(below)) => data.min(below),
            (Some(index), None) | (None, Some(index)) => index,
            (None, None) => break,
        };
        let place = index * BLOCK as u64;
        let mut bytes = vec![0; BLOCK];
        let length = content.size().saturating_sub(place).min(BLOCK as u64);
        content.read(place, &mut bytes[..usize::try_from(length).unwrap_or(BLOCK)]).map_err(of_the_disk)?;
        add_content(&mut whole, place, &bytes, length);
        let number = u32::try_from(index).map_err(io::Error::other)?;
        let sum: Sum = Sha256::digest(&bytes).into();
        let is_zero = bytes.iter().all(|byte| *byte == 0);
        if !is_zero {
            sums.insert(number, sum);
        }
        let is_same = base.get(&number).map_or(is_zero, |known| *known == sum);
        if !is_same {
            changed += 1;
            checksum.update(sum);
            // Nobody listens any more when a block could not be sent; whoever sent it says why.
            let block = Block { index: number, data: bytes.into(), sum, room: room()? };
            if blocks.blocking_send(block).is_err() {
                return Err(io::Error::other("blocks are not wanted any more").into());
            }
        }
        offset = place + BLOCK as u64;
    }
    let checksum = BASE64.encode(checksum.finalize());
    Ok(Sent { changed, checksum, content: hex::encode(whole.finalize()), sums })
}

/// Adds a block to the digest of what a guest sees: [`file::sha256_of_sparse`].
fn add_content(whole: &mut Sha256, place: u64, block: &[u8], length: u64) {
    let cluster = usize::try_from(Content::CLUSTER).unwrap_or(BLOCK);
    let length = usize::try_from(length).unwrap_or(BLOCK);
    for (number, bytes) in (0_u64..).zip(block[..length].chunks(cluster)) {
        if bytes.iter().any(|byte| *byte != 0) {
            whole.update((place + number * Content::CLUSTER).to_le_bytes());
            whole.update(bytes);
        }
    }
}

/// The finished snapshots that the journals in a folder know, with their regions.
pub fn finished(folder: &Path) -> io::Result<Vec<(String, EarlierSnapshot)>> {
    let mut snapshots = Vec::new();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(snapshots),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let Some(journal) = Journal::open(&entry?.path())? else { continue };
        for (name, entry) in journal.entries() {
            let blocks = journal.path(&sums_name(&name.place));
            if let Some(Made::Snapshot { id, .. }) = entry.made
                && blocks.exists()
            {
                snapshots.push((name.place, EarlierSnapshot { id, blocks }));
            }
        }
    }
    Ok(snapshots)
}

/// Name of the file with the digests of a finished snapshot's blocks.
fn sums_name(region: &str) -> String {
    format!("{region}.blocks")
}

fn sent_name(region: &str) -> String {
    format!("{region}.sent")
}

/// Bytes of a block's index and digest.
const RECORD: usize = 4 + 32;
/// A disk of 64 TiB has fewer blocks.
const MOST_SUMS: u64 = 1 << 27;

fn record(index: u32, sum: &Sum) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[..4].copy_from_slice(&index.to_le_bytes());
    record[4..].copy_from_slice(sum);
    record
}

fn write_sums(path: &PathBuf, sums: &Sums) -> io::Result<()> {
    let records: Vec<u8> = sums.iter().flat_map(|(index, sum)| record(*index, sum)).collect();
    file::write(path, &records)
}

fn records(path: &Path) -> io::Result<Vec<(u32, Sum)>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MOST_SUMS * RECORD as u64).read_to_end(&mut bytes)?;
    let records = bytes.chunks_exact(RECORD).map(|record| {
        let (mut index, mut sum) = ([0; 4], [0; 32]);
        index.copy_from_slice(&record[..4]);
        sum.copy_from_slice(&record[4..]);
        (u32::from_le_bytes(index), sum)
    });
    Ok(records.collect())
}

fn read_sums(path: &Path) -> io::Result<Sums> {
    if !fs::metadata(path)?.len().is_multiple_of(RECORD as u64) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("`{}` is damaged", path.display())));
    }
    Ok(records(path)?.into_iter().collect())
}

/// What has arrived; a record that a crash has cut off is as if it were not there, and so is what is behind it.
fn read_sums_leniently(path: &Path) -> io::Result<HashSet<(u32, Sum)>> {
    let records = records(path)?;
    fs::OpenOptions::new().write(true).open(path)?.set_len((records.len() * RECORD) as u64)?;
    Ok(records.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// A sealed disk of so many KiB, with runs of a byte in it; and its raw bytes.
    fn disk(folder: &Path, name: &str, kib: usize, writes: &[(usize, usize, u8)]) -> (PathBuf, Vec<u8>) {
        let mut bytes = vec![0; kib << 10];
        for &(at, length, byte) in writes {
            let at = at % bytes.len();
            let end = bytes.len().min(at + length);
            bytes[at..end].fill(byte);
        }
        let (raw, sealed) = (folder.join(format!("{name}.raw")), folder.join(format!("{name}.qcow2")));
        fs::write(&raw, &bytes).unwrap();
        let mut convert = Command::new("qemu-img");
        convert.args(["convert", "-c", "-f", "raw", "-O", "qcow2"]).arg(&raw).arg(&sealed);
        assert!(convert.status().unwrap().success());
        (sealed, bytes)
    }

    /// What is sent of a disk.
    fn sent(disk: &Path, base: &Sums) -> (Vec<Block<()>>, Sent) {
        let (blocks, mut queue) = mpsc::channel(1);
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || read(disk, base, &|| Ok(()), &blocks));
            let all = std::iter::from_fn(|| queue.blocking_recv()).collect();
            (all, reader.join().unwrap().unwrap())
        })
    }

    /// Puts blocks where they belong, as EBS does.
    fn put(volume: &mut Vec<u8>, blocks: &[Block<()>]) {
        for block in blocks {
            let at = block.index as usize * BLOCK;
            volume.resize(volume.len().max(at + BLOCK), 0);
            volume[at..at + BLOCK].copy_from_slice(&block.data);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn the_next_disk_is_the_one_before_and_what_differs(
            kib in prop_oneof![Just(4), Just(512), 1..5000_usize],
            grown in 0..3000_usize,
            writes in prop::collection::vec((0..5_000_000_usize, 1..900_000_usize, 0..4_u8), 0..6),
            changes in prop::collection::vec((0..5_000_000_usize, 1..900_000_usize, 0..4_u8), 0..4),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let (first, bytes) = disk(folder.path(), "first", kib, &writes);
            let (blocks, whole) = sent(&first, &Sums::new());
            let mut volume = Vec::new();
            put(&mut volume, &blocks);
            volume.resize(volume.len().max(bytes.len()), 0);
            prop_assert!(volume[..bytes.len()] == bytes && volume[bytes.len()..].iter().all(|byte| *byte == 0));
            prop_assert_eq!(whole.changed as usize, blocks.len());
            let raw = file::sha256_of_sparse(&folder.path().join("first.raw")).unwrap();
            prop_assert_eq!(&whole.content, &raw);
            let all: Vec<(usize, usize, u8)> = writes.iter().chain(&changes).copied().collect();
            let (second, bytes) = disk(folder.path(), "second", kib + grown, &all);
            let (blocks, next) = sent(&second, &whole.sums);
            put(&mut volume, &blocks);
            volume.resize(volume.len().max(bytes.len()), 0);
            prop_assert!(volume[..bytes.len()] == bytes && volume[bytes.len()..].iter().all(|byte| *byte == 0));
            // The digest that AWS compares: of the digests of what was sent, in order.
            let mut checksum = Sha256::new();
            blocks.iter().for_each(|block| checksum.update(Sha256::digest(&block.data)));
            prop_assert_eq!(next.checksum, BASE64.encode(checksum.finalize()));
            prop_assert!(blocks.is_sorted_by_key(|block| block.index));
            let (nothing, same) = sent(&second, &next.sums);
            prop_assert!(nothing.is_empty() && same.changed == 0 && same.content == next.content);
        }
    }

    #[test]
    fn digests_are_found_again_and_a_cut_one_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.blocks");
        let sums: Sums = [(0, [1; 32]), (7, [2; 32])].into();
        write_sums(&path, &sums).unwrap();
        assert_eq!(read_sums(&path).unwrap(), sums);
        let mut bytes = fs::read(&path).unwrap();
        bytes.truncate(RECORD + 5);
        fs::write(&path, &bytes).unwrap();
        assert!(read_sums(&path).is_err());
        assert_eq!(read_sums_leniently(&path).unwrap(), HashSet::from([(0, [1; 32])]));
        assert_eq!(fs::metadata(&path).unwrap().len(), RECORD as u64);
    }
}
