//! Ctrl-C, and what init systems and terminals send.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::output::Output;
use super::report::INTERRUPTED;

/// The first signal ends what is under way in good order; a second one ends goldsmith, and with it its children, at once.
pub(super) fn listen(cancel: CancellationToken, output: Output) {
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
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
