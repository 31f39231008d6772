//! Faults that tests plan, and the record of all calls.

use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use super::{ebs, ec2, s3, sns, ssm, sts};

/// How a call goes wrong.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The service says that there are too many requests.
    Throttled,
    /// The service refuses with this code.
    Refused(&'static str),
    /// The service says that it is not available.
    Unavailable,
    /// The call goes well, but the import or the copy that it starts ends badly, with this message.
    Task(&'static str),
    /// The call is carried out only after so long.
    Stall(Duration),
    /// The call is carried out, and the connection then closed without an answer.
    LostAnswer,
}

/// A call that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) service: &'static str,
    pub(crate) action: String,
    /// The account that called. Empty if the signature was not good.
    pub(crate) account: String,
    pub(crate) region: String,
    /// `ok`, the error's code, or `stalled` while it is.
    pub(crate) outcome: String,
}

#[derive(Debug)]
struct Planned {
    action: String,
    region: Option<String>,
    times: u32,
    fault: Fault,
}

/// What is planned and what was done.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    planned: Mutex<Vec<Planned>>,
    calls: Mutex<Vec<Call>>,
    called: Condvar,
}

impl Ledger {
    /// Plans a fault.
    pub(super) fn plan(&self, action: &str, region: Option<&str>, times: u32, fault: Fault) {
        assert!(is_action(action), "the stand-in knows no action {action}");
        let region = region.map(str::to_owned);
        self.planned.lock().unwrap().push(Planned { action: action.to_owned(), region, times, fault });
    }

    /// The fault that this call meets, if any: the oldest that is left.
    pub(super) fn meet(&self, action: &str, region: &str) -> Option<Fault> {
        let mut planned = self.planned.lock().unwrap();
        let is_meant = |planned: &&mut Planned| {
            let is_here = planned.region.as_ref().is_none_or(|known| known == region);
            planned.times > 0 && planned.action == action && is_here
        };
        let met = planned.iter_mut().find(is_meant)?;
        met.times -= 1;
        Some(met.fault.clone())
    }

    /// Records a call, and returns its place.
    pub(super) fn record(&self, call: Call) -> usize {
        let mut calls = self.calls.lock().unwrap();
        calls.push(call);
        self.called.notify_all();
        calls.len() - 1
    }

    /// Says how a recorded call has ended.
    pub(super) fn ended(&self, place: usize, outcome: &str) {
        self.calls.lock().unwrap()[place].outcome = outcome.to_owned();
    }

    /// All calls.
    pub(super) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// Waits until an action was called so often.
    pub(super) fn wait_for(&self, action: &str, times: usize) {
        assert!(is_action(action), "the stand-in knows no action {action}");
        let deadline = Instant::now() + Duration::from_secs(600);
        let mut calls = self.calls.lock().unwrap();
        while calls.iter().filter(|call| call.action == action).count() < times {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited for long until {action} is called {times} times: {calls:#?}");
            calls = self.called.wait_timeout(calls, left).unwrap().0;
        }
    }
}

fn is_action(name: &str) -> bool {
    ec2::knows(name) || [ebs::ACTIONS, ssm::ACTIONS, sns::ACTIONS, sts::ACTIONS, s3::ACTIONS].concat().contains(&name)
}
