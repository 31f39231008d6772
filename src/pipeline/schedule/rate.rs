//! `rate(n unit)`.

use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};

use super::Invalid;

/// Every so long. A day is 24 hours, whatever clocks do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    seconds: i64,
}

/// A century of minutes: what is rarer is never.
const MOST: i64 = 100 * 366 * 24 * 60;

impl Rate {
    pub(super) fn next(self, after: Timestamp, created: Timestamp) -> Option<Timestamp> {
        let age = after.as_second().checked_sub(created.as_second())?;
        // A whole number of intervals after the creation, and the creation itself is none of them.
        let mut count = age.div_euclid(self.seconds).max(0);
        loop {
            count = count.checked_add(1)?;
            let next = created.checked_add(SignedDuration::from_secs(count.checked_mul(self.seconds)?)).ok()?;
            if next > after {
                return Some(next);
            }
        }
    }
}

impl FromStr for Rate {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let form = "write rate(1 day) or rate(12 hours): a number and minutes, hours or days";
        let invalid = |why: String| Invalid::new(format!("`rate({text})` {why}")).help(form);
        let words: Vec<&str> = text.split_whitespace().collect();
        let &[number, unit] = words.as_slice() else { return Err(invalid("is not a number and a unit".to_owned())) };
        let count: i64 = match number.parse() {
            Ok(0) => return Err(invalid("never comes to an end: the number has to be 1 or more".to_owned())),
            Ok(count) if number.bytes().all(|byte| byte.is_ascii_digit()) => count,
            _ => return Err(invalid(format!("begins with `{number}`, which is no whole number"))),
        };
        let (singular, seconds) = match unit.to_ascii_lowercase().trim_end_matches('s') {
            "minute" => ("minute", 60),
            "hour" => ("hour", 60 * 60),
            "day" => ("day", 24 * 60 * 60),
            _ => return Err(invalid(format!("has the unit `{unit}`, which is none"))),
        };
        let right = if count == 1 { singular.to_owned() } else { format!("{singular}s") };
        if !unit.eq_ignore_ascii_case(&right) {
            let why =
                format!("is refused by AWS: after 1 the unit is singular, else plural; write rate({count} {right})");
            return Err(Invalid::new(format!("`rate({text})` {why}")));
        }
        match count.checked_mul(seconds) {
            Some(seconds) if seconds <= MOST * 60 => Ok(Self { seconds }),
            _ => Err(invalid("is more than a century".to_owned())),
        }
    }
}
