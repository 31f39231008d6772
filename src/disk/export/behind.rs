//! The digest of all bytes of a disk, behind their writing.
//!
//! A hole costs nothing where it is written, and a second for two GiB where it is digested. Whoever did both would keep all
//! others waiting, since none may be far ahead of another. So the file is read back, from the kernel's memory as a rule, and
//! its holes are not. A fixed VHD is a raw disk and a little more: where both are written, one is read for both.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
use std::thread::Scope;

use fs_err::File;
use sha2::{Digest, Sha256};

use super::{Format, Job, small};
use crate::host::file;

/// Bytes that are read at once.
const CHUNK: u64 = 1 << 18;

/// The files that begin with all bytes of a disk.
pub(super) struct Whole {
    size: u64,
    /// For the file that is read.
    progress: Option<SyncSender<u64>>,
    digests: std::vec::IntoIter<Receiver<io::Result<Sha256>>>,
}

/// What one of these files gets.
pub(super) struct Behind {
    /// How many of its bytes are digested by somebody else.
    pub(super) length: u64,
    /// Hears how many bytes are in the file, if it is the one that is read.
    pub(super) progress: Option<SyncSender<u64>>,
    /// Gives the digest of these bytes; nothing if the file that is read is given up.
    pub(super) digest: Receiver<io::Result<Sha256>>,
}

impl Whole {
    /// Begins to read the first such file, if there is one, of a disk of `size` bytes.
    pub(super) fn begin<'scope>(scope: &'scope Scope<'scope, '_>, jobs: &[Job], size: u64) -> io::Result<Self> {
        let whole: Vec<&Job> = jobs.iter().filter(|job| is_whole(job.format)).collect();
        let (senders, receivers): (Vec<_>, Vec<_>) = whole.iter().map(|_| mpsc::channel()).unzip();
        let mut this = Self { size, progress: None, digests: receivers.into_iter() };
        if let Some(first) = whole.first() {
            let file = File::open(first.file.path())?;
            // A place that finds no room is made up for by the next.
            let (progress, written) = mpsc::sync_channel(1);
            this.progress = Some(progress);
            scope.spawn(move || {
                let digest = digest(file, size, &written);
                for sender in senders {
                    // Where there is nothing to tell, the file was given up.
                    let one = match &digest {
                        Ok(digest) => digest.clone().map(Ok),
                        Err(error) => Some(Err(io::Error::new(error.kind(), error.to_string()))),
                    };
                    let _unwanted = one.map(|one| sender.send(one));
                }
            });
        }
        Ok(this)
    }

    /// What a file of a format gets; to be asked in the order of the jobs.
    pub(super) fn of(&mut self, format: Format) -> Option<Behind> {
        let digest = is_whole(format).then(|| self.digests.next()).flatten()?;
        Some(Behind { length: self.size, progress: self.progress.take(), digest })
    }
}

fn is_whole(format: Format) -> bool {
    matches!(format, Format::Raw | Format::VhdFixed)
}

/// Nothing if whoever writes goes away before the end.
fn digest(file: File, size: u64, written: &Receiver<u64>) -> io::Result<Option<Sha256>> {
    let (mut hasher, mut at, mut end, mut chunk) = (Sha256::new(), 0, 0, vec![0; small(CHUNK)?]);
    while at < size {
        let news = if at < end { written.try_recv() } else { written.recv().map_err(TryRecvError::from) };
        match news {
            Ok(next) => end = next,
            Err(TryRecvError::Disconnected) if end < size => return Ok(None),
            Err(_) => {}
        }
        // What is read of a hole takes memory of the kernel's, page by page, as data does.
        let data = file::next_data(&file, at, end);
        let (until, is_hole) = if data > at { (data, true) } else { (file::next_hole(&file, at, end), false) };
        let part = &mut chunk[..small((until - at).min(CHUNK))?];
        if is_hole {
            part.fill(0)
        } else {
            file.file().read_exact_at(part, at)?
        }
        hasher.update(&part);
        at += part.len() as u64;
    }
    Ok(Some(hasher))
}
