//! How often AWS is asked whether something is ready, and for how long.

use std::time::{Duration, Instant};

use super::Error;

/// The first distance between two questions, and the last.
const SOON: Duration = Duration::from_millis(500);
const LATER: Duration = Duration::from_secs(15);
/// AWS has taken hours for an import of a large disk on a bad day.
pub(super) const PATIENCE: Duration = Duration::from_secs(6 * 3600);

/// Distances between questions, which grow.
pub(super) struct Pace<'a> {
    what: &'static str,
    id: &'a str,
    next: Duration,
    patience: Duration,
    since: Instant,
}

impl<'a> Pace<'a> {
    /// Waits for a kind of thing, by its identifier, at most so long.
    pub(super) fn new(what: &'static str, id: &'a str, patience: Duration) -> Self {
        Self { what, id, next: SOON, patience, since: Instant::now() }
    }

    /// Waits before the next question, unless it has taken too long already.
    pub(super) async fn wait(&mut self) -> Result<(), Error> {
        if self.since.elapsed() > self.patience {
            let minutes = self.patience.as_secs() / 60;
            return Err(Error::Late { what: self.what, id: self.id.to_owned(), minutes });
        }
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 3 / 2).min(LATER);
        Ok(())
    }
}
