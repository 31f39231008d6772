//! How much of a disk is in memory at once, whatever number of places it goes to.
//!
//! Each place would go on alone with a few buffers, and twenty places with twenty times as many; so all take them from here.

use std::io;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What buffers are counted in.
const UNIT: usize = 512 << 10;
/// All buffers together: 32 MiB, four parts of an object or 64 blocks of a snapshot.
const UNITS: u32 = 64;
/// Objects that are made at once: each is compressed on all processors, and has a few MiB on their way.
const STREAMS: usize = 2;

/// What all places share.
#[derive(Debug, Clone)]
pub struct Memory {
    units: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

impl Default for Memory {
    fn default() -> Self {
        let units = Arc::new(Semaphore::new(UNITS as usize));
        Self { units, streams: Arc::new(Semaphore::new(STREAMS)) }
    }
}

/// A buffer's room. Dropped, it is another's.
pub(super) type Room = OwnedSemaphorePermit;

impl Memory {
    /// Waits, on a thread that may, until there is room for so many bytes. What is larger than all there is gets all.
    pub(super) fn room(&self, bytes: usize, runtime: &Handle) -> io::Result<Room> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(UNITS).min(UNITS);
        runtime.block_on(self.units.clone().acquire_many_owned(units)).map_err(io::Error::other)
    }

    /// Waits until an object may be made.
    pub(super) async fn stream(&self) -> io::Result<Room> {
        self.streams.clone().acquire_owned().await.map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_too_large_gets_all_there_is_and_gives_it_back() {
        let memory = Memory::default();
        let runtime = Handle::current();
        let both = tokio::task::spawn_blocking(move || {
            let whole = memory.room(1 << 30, &runtime).unwrap();
            assert_eq!(memory.units.available_permits(), 0);
            drop(whole);
            let (part, block) = (memory.room(8 << 20, &runtime).unwrap(), memory.room(1, &runtime).unwrap());
            assert_eq!(memory.units.available_permits(), 64 - 16 - 1);
            drop((part, block));
            memory.units.available_permits()
        });
        assert_eq!(both.await.unwrap(), 64);
    }
}
