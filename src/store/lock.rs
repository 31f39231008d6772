//! Advisory locks that the kernel drops with the process.

use std::io;
use std::path::Path;

use fs_err::File;
use rustix::fs::FlockOperation;

/// A lock of something that others may remove at any moment.
#[derive(Debug)]
pub(super) enum Seen {
    /// It could be had, and is held now.
    Free(Lock),
    /// Somebody has it.
    Held,
    /// It is not there.
    Gone,
}

/// A held lock. Dropping it gives it back.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// The lock at a path, when whoever holds it has given it back.
    pub fn wait(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
        Ok(Self { file })
    }

    /// A part of the lock at a path, unless somebody holds all of it. Any number may hold a part at the same time.
    pub fn try_share(path: &Path) -> io::Result<Option<Self>> {
        Self::now(open(path)?, FlockOperation::NonBlockingLockShared)
    }

    /// What an attempt gives, of a few. Who only looks whether something is in use holds all of its lock for an instant.
    pub(super) fn soon<T>(mut attempt: impl FnMut() -> io::Result<Option<T>>) -> io::Result<Option<T>> {
        const ATTEMPTS: u32 = 10;
        for _ in 0..ATTEMPTS {
            if let Some(had) = attempt()? {
                return Ok(Some(had));
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        Ok(None)
    }

    /// The lock at a path, unless somebody holds it.
    pub fn try_take(path: &Path) -> io::Result<Option<Self>> {
        Self::now(open(path)?, FlockOperation::NonBlockingLockExclusive)
    }

    /// The same as [`Self::try_take`], where nothing may be made: a folder that is being removed has to stay empty.
    pub(super) fn look(path: &Path) -> io::Result<Seen> {
        Self::look_for(path, FlockOperation::NonBlockingLockExclusive)
    }

    /// The same as [`Self::try_share`], where nothing may be made.
    pub(super) fn look_to_share(path: &Path) -> io::Result<Seen> {
        Self::look_for(path, FlockOperation::NonBlockingLockShared)
    }

    fn look_for(path: &Path, operation: FlockOperation) -> io::Result<Seen> {
        use io::ErrorKind::{NotADirectory, NotFound};
        match File::options().write(true).open(path) {
            Ok(file) => Ok(Self::now(file, operation)?.map_or(Seen::Held, Seen::Free)),
            Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(Seen::Gone),
            Err(error) => Err(error),
        }
    }

    fn now(file: File, operation: FlockOperation) -> io::Result<Option<Self>> {
        match rustix::fs::flock(&file, operation) {
            Ok(()) => Ok(Some(Self { file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets others have a part of a lock that was held whole. The kernel takes the old lock back before it gives the new
    /// one, and somebody may be looking just then, so this waits.
    pub fn share(&self) -> io::Result<()> {
        Ok(rustix::fs::flock(&self.file, FlockOperation::LockShared)?)
    }

    /// Whether nobody else holds a part. If somebody does, this one's own part may be lost.
    pub fn is_whole(&self) -> io::Result<bool> {
        match rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().create(true).truncate(false).write(true).open(path)
}
