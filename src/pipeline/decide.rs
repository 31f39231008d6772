//! Whether a pipeline is due: a pure function of what is remembered, what its document says, and the time.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::definition::{Condition, Definition};
use super::pass::next_run;
use super::state::{DisabledBy, State};

/// What to do about a pipeline now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing before this time; none if it never runs by itself.
    Wait(Option<Timestamp>),
    /// A scheduled time has come, and nothing is to be started.
    Skip {
        /// Which; the first, if several have passed.
        at: Timestamp,
        /// Why.
        reason: String,
    },
    /// A scheduled time has come.
    Due {
        /// Which; the first, if several have passed while nobody looked. They are one run.
        at: Timestamp,
        /// Whether something that it is made from has to be newer.
        gated: bool,
    },
}

/// Decides on one pipeline. `is_under_way` says whether a run of it waits or is being worked on.
pub fn decide(state: &State, definition: &Definition, is_under_way: bool, now: Timestamp) -> Decision {
    let Some(schedule) = &definition.schedule else { return Decision::Wait(None) };
    let next = schedule.next(state.considered, state.created);
    let Some(at) = next.filter(|&at| at <= now) else { return Decision::Wait(next_run(definition, state)) };
    if let Some(reason) = idle_reason(state, definition, is_under_way) {
        return Decision::Skip { at, reason };
    }
    Decision::Due { at, gated: definition.condition == Condition::DependencyUpdates }
}

fn idle_reason(state: &State, definition: &Definition, is_under_way: bool) -> Option<String> {
    let failures = state.consecutive_failures;
    match &state.disabled {
        Some(disabled) if disabled.by == DisabledBy::User => Some("the pipeline was disabled".to_owned()),
        Some(_) => Some(format!("the pipeline was disabled after {failures} failures in a row")),
        None if !definition.enabled => Some("the pipeline's status is DISABLED".to_owned()),
        None if is_under_way => Some("the run before it has not ended".to_owned()),
        None => None,
    }
}

/// What is newer than at the last run that succeeded, a line each. What is gone, or has never been seen before in a
/// pipeline that has run, is a change as well; in one that has never run everything is new.
pub(super) fn newer(last: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<String> {
    let mut reasons = Vec::new();
    for (name, value) in now {
        match last.get(name) {
            Some(known) if known == value => {}
            Some(known) => reasons.push(format!("{name}: {} became {}", shorten(known), shorten(value))),
            None => reasons.push(format!("{name}: {} is new", shorten(value))),
        }
    }
    let gone = last.keys().filter(|name| !now.contains_key(*name));
    reasons.extend(gone.map(|name| format!("{name} is not used any more")));
    reasons
}

/// A digest by its first figures.
fn shorten(value: &str) -> &str {
    let is_digest = value.len() >= 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digest { &value[..12] } else { value }
}
