//! Ctrl-C, and what init systems and terminals send.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::output::Output;
use super::report::INTERRUPTED;

/// Signals that end goldsmith.
pub(super) const ALL: &[SignalKind] = &[SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
/// Those that end a service.
pub(super) const OF_A_SERVICE: &[SignalKind] = &[SignalKind::interrupt(), SignalKind::terminate()];

/// The signals that whoever has started goldsmith wants it to ignore, a bit each from the lowest: proc(5), `SigIgn`.
fn ignored() -> u64 {
    let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}

/// The first signal ends what is under way in good order; a second one ends goldsmith, and with it its children, at once.
pub(super) fn listen(kinds: &[SignalKind], cancel: CancellationToken, output: Output) {
    let ignored = ignored();
    for &kind in kinds {
        // As `nohup` wants it, and scripts of what they start in the background.
        if ignored >> (kind.as_raw_value() - 1) & 1 == 1 {
            continue;
        }
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
