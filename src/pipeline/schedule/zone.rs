//! Which instants the local minutes of a schedule are.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};

use super::cron::Cron;

/// The first instant after another at which a local minute comes that the expression means.
///
/// Instants never go back while local times go on: a time that comes twice counts at its first coming, and all times
/// of a gap are its end. So the search may begin at the local time of `after` and end with the first instant beyond.
pub(super) fn next(cron: &Cron, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    let mut local = zone.to_datetime(after);
    loop {
        local = cron.next(local)?;
        let instant = instant(zone, local)?;
        if instant > after {
            return Some(instant);
        }
    }
}

/// When a local time comes for the first time, or the end of the gap that it is in.
fn instant(zone: &TimeZone, local: DateTime) -> Option<Timestamp> {
    let of = |offset: jiff::tz::Offset| offset.to_timestamp(local).ok();
    match zone.to_ambiguous_timestamp(local).offset() {
        AmbiguousOffset::Unambiguous { offset } | AmbiguousOffset::Fold { before: offset, .. } => of(offset),
        AmbiguousOffset::Gap { before, .. } => {
            // By the old offset the time lies at the change or beyond it, by less than the length of the gap.
            let beyond = of(before)?.checked_add(jiff::SignedDuration::from_nanos(1)).ok()?;
            zone.preceding(beyond).next().map(|change| change.timestamp())
        }
    }
}
