//! A disk as an object: written in parts while it is made, with no file in between.
//!
//! ```text
//!   sealed disk ──► export::stream ──► Parts (8 MiB each, with its digest) ──► a few at once ──► S3
//!                   a thread              one waits                            each repeated by itself
//! ```
//!
//! The same disk makes the same bytes, so an upload that was cut off is made again and only what has not arrived is sent.
//! Source of limits: the "Amazon S3 User Guide", "Multipart upload limits".

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use fs_err as fs;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use goldsmith_aws::{Bytes, Region, Upload};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::journal::{Made, Object, Part, StepName};
use super::memory::{Memory, Room};
use super::{Error, Event, Publication};
use crate::disk::export::{self, Format};

/// Parts of one object that are on their way at once, if there is room.
const AT_ONCE: usize = 3;
/// Bytes of a part; S3 takes no smaller ones than 5 MiB.
const PART: u64 = 8 << 20;
/// S3 takes 10,000 parts; what is not known beforehand is how well a disk shrinks.
const MOST_PARTS: u64 = 9_000;

/// Writes the object, or goes on with it.
pub(super) async fn write(
    publication: &Publication<'_>,
    region: &Region,
    step: &StepName,
    object: &Object,
    format: Format,
) -> Result<(), Error> {
    let entry = publication.journal.step(step)?;
    if let Some(Made::Upload { id, .. }) = entry.made {
        match send_all(publication, region, step, (object, &id, entry.parts), format).await {
            // AWS or somebody has given the upload up, and the parts that were sent are gone.
            Err(Error::Aws(error)) if error.is_not_found() => {
                let text = format!("{error}: {object} is uploaded again, from its beginning");
                publication.tell(Event::Note { place: step.place.clone(), text });
                publication.journal.step_anew(step)?;
            }
            ended => return ended,
        }
    }
    let id = begin(publication, region, step, object).await?;
    send_all(publication, region, step, (object, &id, Vec::new()), format).await
}

/// Sends all parts of an upload but those that are known to have arrived, and makes the object of them.
async fn send_all(
    publication: &Publication<'_>,
    region: &Region,
    step: &StepName,
    (object, id, known): (&Object, &str, Vec<Part>),
    format: Format,
) -> Result<(), Error> {
    let to = Upload { bucket: &object.bucket, key: &object.key, id };
    let _turn = publication.memory.stream().await?;
    let source = publication.source(format).await?;
    let total = source.bytes();
    let part_size = PART.max(total.div_ceil(MOST_PARTS).next_multiple_of(1 << 20));
    let (parts, mut queue) = mpsc::channel(1);
    let done = Arc::new(AtomicU64::new(0));
    let sender = Sender { publication, region, step, to, known, done: done.clone(), total };
    let is_wanted = parts.clone();
    let memory = (publication.memory.clone(), Handle::current());
    let writer = tokio::task::spawn_blocking(move || {
        let mut parts = Parts::new(parts, part_size, memory);
        source.write_to(&mut parts, &|bytes| {
            done.store(bytes, Ordering::Relaxed);
            !is_wanted.is_closed()
        })?;
        parts.finish()
    });
    let (mut under_way, mut arrived) = (FuturesOrdered::new(), Vec::new());
    loop {
        tokio::select! {
            Some(part) = queue.recv(), if under_way.len() < AT_ONCE => under_way.push_back(sender.send(part)),
            Some(sent) = under_way.next() => arrived.push(sent?),
            else => break,
        }
    }
    drop((under_way, queue));
    let (bytes, sha256) = writer.await.map_err(io::Error::other)??;
    complete(region, to, object, &arrived, bytes).await?;
    Ok(publication.journal.note_made(step, Made::Object { object: object.clone(), bytes, sha256 })?)
}

/// Sends parts.
struct Sender<'a, 'p> {
    publication: &'a Publication<'p>,
    region: &'a Region,
    step: &'a StepName,
    to: Upload<'a>,
    /// What need not be sent again.
    known: Vec<Part>,
    /// How many bytes of the disk were read.
    done: Arc<AtomicU64>,
    /// How many there are.
    total: u64,
}

impl Sender<'_, '_> {
    async fn send(&self, filled: Filled) -> Result<Part, Error> {
        let Filled { number, data, sha256, room } = filled;
        let known = self.known.iter().find(|part| part.number == number && part.sha256 == sha256);
        let part = match known {
            Some(part) => part.clone(),
            None => {
                let sent = self.region.put_part(self.to, number, data, sha256).await?;
                let part = Part { number, etag: sent.etag, sha256: sent.sha256 };
                self.publication.journal.note_part(self.step, part.clone())?;
                part
            }
        };
        drop(room);
        let done = self.done.load(Ordering::Relaxed).min(self.total);
        self.publication.tell(Event::Transfer { place: self.step.place.clone(), done, total: self.total });
        Ok(part)
    }
}

/// Begins to write an object. One that was begun before, and whose identifier was lost, is given up first.
async fn begin(
    publication: &Publication<'_>,
    region: &Region,
    step: &StepName,
    object: &Object,
) -> Result<String, Error> {
    abandon(publication, region, object).await?;
    let subject = publication.subject;
    let labels = [("goldsmith-image", subject.id.to_string()), ("goldsmith-disk", subject.disk.clone())];
    let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let id = region.create_upload(&object.bucket, &object.key, &labels).await?;
    let made = Made::Upload { object: object.clone(), id: id.clone() };
    publication.journal.note_made(step, made)?;
    Ok(id)
}

/// Gives up what was begun of an object and is in no journal. Where a server can't say what there is, it stays.
async fn abandon(publication: &Publication<'_>, region: &Region, object: &Object) -> Result<(), Error> {
    match region.uploads(&object.bucket, &object.key).await {
        Ok(ids) => {
            for id in ids {
                region.abort_upload(Upload { bucket: &object.bucket, key: &object.key, id: &id }).await?;
            }
            Ok(())
        }
        Err(error) if error.code.as_deref() == Some("NotImplemented") => Ok(()),
        // Who may not list them may still write; what was lost is what AWS's lifecycle rules are for.
        Err(error) if error.code.as_deref() == Some("AccessDenied") => {
            let text = format!("whether there are unfinished uploads of {object} can't be seen: {error}");
            publication.tell(Event::Note { place: object.region.clone(), text });
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

async fn complete(region: &Region, to: Upload<'_>, object: &Object, parts: &[Part], bytes: u64) -> Result<(), Error> {
    let parts: Vec<goldsmith_aws::Part> = parts
        .iter()
        .map(|Part { number, etag, sha256 }| goldsmith_aws::Part {
            number: *number,
            etag: etag.clone(),
            sha256: sha256.clone(),
        })
        .collect();
    let completed = region.complete_upload(to, &parts).await;
    let found = region.object_size(&object.bucket, &object.key).await?;
    match (completed, found) {
        (_, Some(found)) if found == bytes => Ok(()),
        (Ok(()), Some(found)) => Err(Error::Incomplete { object: object.to_string(), found, sent: bytes }),
        (Ok(()), None) => Err(Error::Incomplete { object: object.to_string(), found: 0, sent: bytes }),
        // It may have been completed, and only the answer be lost: then it is there.
        (Err(error), _) => Err(error.into()),
    }
}

/// Where the bytes of an object come from.
enum Source {
    /// They are made while they are sent.
    Stream { disk: std::path::PathBuf, sha256: String, hardware: export::Hardware, format: Format, bytes: u64 },
    /// They are in a file.
    File { file: fs::File, bytes: u64 },
}

impl Publication<'_> {
    /// The disk in a format. What can't be made front to back goes by way of a file.
    async fn source(&self, format: Format) -> Result<Source, Error> {
        if format.is_streamed() {
            let (disk, sha256) = (self.disk.to_owned(), self.subject.disk.clone());
            let bytes = export::data(self.disk).map_err(|error| Error::Disk(error.into()))?;
            return Ok(Source::Stream { disk, sha256, hardware: self.hardware.clone(), format, bytes });
        }
        let written = (self.exporter)(vec![format], self.scratch.to_owned()).await.map_err(Error::Export)?;
        let file = written.first().ok_or_else(|| io::Error::other("nothing was exported"))?;
        Ok(Source::File { file: fs::File::open(&file.path)?, bytes: file.bytes })
    }
}

impl Source {
    /// How many bytes are read for it.
    fn bytes(&self) -> u64 {
        match self {
            Self::Stream { bytes, .. } | Self::File { bytes, .. } => *bytes,
        }
    }

    fn write_to(self, to: &mut dyn Write, watch: &(dyn Fn(u64) -> bool + Sync)) -> Result<(), Error> {
        match self {
            Self::Stream { disk, sha256, hardware, format, .. } => {
                let disk = export::Disk { path: &disk, sha256: &sha256, hardware: &hardware };
                let written = export::stream(disk, format, to, &|done, _| watch(done));
                written.map_err(|error| Error::Disk(error.into()))
            }
            Self::File { mut file, bytes } => {
                io::copy(&mut file, to)?;
                watch(bytes);
                Ok(())
            }
        }
    }
}

/// A part that is ready to be sent.
struct Filled {
    number: i32,
    data: Bytes,
    sha256: String,
    room: Room,
}

/// Cuts what is written into parts.
struct Parts {
    queue: mpsc::Sender<Filled>,
    size: usize,
    /// What is being filled, and the room that it takes.
    filling: Option<(Vec<u8>, Room)>,
    memory: (Memory, Handle),
    number: i32,
    whole: Sha256,
    bytes: u64,
}

impl Parts {
    fn new(queue: mpsc::Sender<Filled>, size: u64, memory: (Memory, Handle)) -> Self {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        Self { queue, size, filling: None, memory, number: 0, whole: Sha256::new(), bytes: 0 }
    }

    fn send(&mut self, data: Vec<u8>, room: Room) -> io::Result<()> {
        self.number += 1;
        let sha256 = BASE64.encode(Sha256::digest(&data));
        let part = Filled { number: self.number, data: data.into(), sha256, room };
        let unwanted = |_| io::Error::new(io::ErrorKind::BrokenPipe, "parts are not wanted any more");
        self.queue.blocking_send(part).map_err(unwanted)
    }

    fn part(&mut self) -> io::Result<(Vec<u8>, Room)> {
        match self.filling.take() {
            Some(filling) => Ok(filling),
            None => {
                let room = self.memory.0.room(self.size, &self.memory.1)?;
                Ok((Vec::with_capacity(self.size), room))
            }
        }
    }

    /// Sends what is left. Returns the size of all, and its SHA-256.
    fn finish(mut self) -> Result<(u64, String), Error> {
        // An object of no bytes has a part of none.
        if self.filling.is_some() || self.number == 0 {
            let (data, room) = self.part()?;
            self.send(data, room)?;
        }
        Ok((self.bytes, hex::encode(self.whole.finalize())))
    }
}

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (mut data, room) = self.part()?;
        let n = bytes.len().min(self.size - data.len());
        data.extend_from_slice(&bytes[..n]);
        self.whole.update(&bytes[..n]);
        self.bytes += n as u64;
        if data.len() == self.size {
            self.send(data, room)?;
        } else {
            self.filling = Some((data, room));
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
