//! Ctrl-C, and what init systems and terminals send.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::output::Output;
use super::report::INTERRUPTED;

/// Signals that end goldsmith.
pub(super) const ALL: &[SignalKind] = &[SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
/// Those that end a service.
pub(super) const OF_A_SERVICE: &[SignalKind] = &[SignalKind::interrupt(), SignalKind::terminate()];

/// The first signal ends what is under way in good order; a second one ends goldsmith, and with it its children, at once.
pub(super) fn listen(kinds: &[SignalKind], cancel: CancellationToken, output: Output) {
    for &kind in kinds {
        let Ok(mut signals) = signal(kind) else { continue };
        let (cancel, output) = (cancel.clone(), output.clone());
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                if cancel.is_cancelled() {
                    #[allow(clippy::exit)]
                    std::process::exit(INTERRUPTED.into());
                }
                cancel.cancel();
                output.progress("stopping; once more to stop at once");
            }
        });
    }
}
