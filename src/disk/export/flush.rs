//! What was written reaches the disk while the rest is made.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use fs_err::File;

use super::{Error, Format, Job, PANICKED};

/// How long what was written may wait. The kernel waits for half a minute, and an export takes seconds, so all of it would
/// wait for the end, where nothing else is left to do.
const PAUSE: Duration = Duration::from_millis(200);

/// Files that are flushed again and again.
pub(super) struct Flush<'scope> {
    stop: Sender<()>,
    thread: ScopedJoinHandle<'scope, Result<(), (Option<Format>, Error)>>,
}

impl<'scope> Flush<'scope> {
    /// Begins with the files of all jobs.
    pub(super) fn begin(scope: &'scope Scope<'scope, '_>, jobs: &[Job]) -> io::Result<Self> {
        let files: Vec<_> =
            jobs.iter().map(|job| Ok((job.format, job.file.try_clone()?))).collect::<io::Result<_>>()?;
        let (stop, stopped) = mpsc::channel();
        let thread = scope.spawn(move || {
            while stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                // The kernel tells of a failure once: whoever syncs after it hears nothing.
                let flush = |file: &File, format| file.sync_data().map_err(|error| (Some(format), error.into()));
                files.iter().try_for_each(|(format, file)| flush(file, *format))?;
            }
            Ok(())
        });
        Ok(Self { stop, thread })
    }

    /// Ends it; the format whose file could not be written, and why.
    pub(super) fn end(self) -> Result<(), (Option<Format>, Error)> {
        drop(self.stop);
        self.thread.join().unwrap_or_else(|_| Err((None, io::Error::other(PANICKED).into())))
    }
}
