//! When a pipeline runs: AWS's cron and rate expressions, in a time zone.
//!
//! ```text
//!   cron(0 3 ? * sun *) ──► which local minutes ──► which instants ──► the first after a given one
//!                                 (cron.rs)            (zone.rs)
//!   rate(12 hours) ───────► every so many after the pipeline was first seen
//! ```
//!
//! **When clocks change.** A local time that is left out runs once, at the instant when the clocks have gone forward;
//! several such times in one gap are one run. A local time that comes twice runs at its first coming only. So every
//! written time of a day runs once a day, and what runs every few minutes pauses for the hour that is repeated.
//!
//! Nothing is searched minute by minute: the next matching year, month, day, hour and minute are each looked up.

mod cron;
mod rate;
#[cfg(test)]
mod tests;
mod zone;

use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use cron::Cron;
use rate::Rate;

/// Why a text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Invalid {
    message: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl Invalid {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None }
    }

    fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

/// A schedule: an expression and the zone that its times are of.
#[derive(Debug, Clone)]
pub struct Schedule {
    text: String,
    expression: Expression,
    zone: TimeZone,
    warnings: Vec<String>,
}

#[derive(Debug, Clone)]
enum Expression {
    Cron(Box<Cron>),
    Rate(Rate),
}

/// Zones have names of 3 to 100 characters in the API.
const ZONE_LENGTH: std::ops::RangeInclusive<usize> = 3..=100;
/// No expression that says anything is longer; the API's bound is 1024 characters.
const LONGEST: usize = 1024;

impl Schedule {
    /// Reads an expression, `cron(…)`, `rate(…)` or the six fields of cron alone, and the name of an IANA time zone.
    pub fn parse(expression: &str, zone: Option<&str>) -> Result<Self, Invalid> {
        let zone = parse_zone(zone.unwrap_or("UTC"))?;
        let text = expression.trim();
        if text.len() > LONGEST {
            return Err(Invalid::new(format!("a schedule has at most {LONGEST} characters")));
        }
        let mut warnings = Vec::new();
        let expression = match call(text)? {
            Some(("cron", fields)) => Expression::Cron(Box::new(Cron::parse(fields, &mut warnings)?)),
            Some(("rate", rate)) => Expression::Rate(rate.parse()?),
            Some(("at", _)) => {
                return Err(Invalid::new("`at(…)` is EventBridge's and runs once; a pipeline's schedule repeats")
                    .help("write cron(Minute Hour Day-of-month Month Day-of-week Year) with that year"));
            }
            Some((name, _)) => {
                return Err(Invalid::new(format!("`{name}(…)` is no schedule")).help("write cron(…) or rate(…)"));
            }
            None => Expression::Cron(Box::new(Cron::parse(text, &mut warnings)?)),
        };
        Ok(Self { text: text.to_owned(), expression, zone, warnings })
    }

    /// What is not as the API wants it, and is understood nevertheless.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The zone that times are of.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The first time to run after an instant. A rate counts from `created`.
    pub fn next(&self, after: Timestamp, created: Timestamp) -> Option<Timestamp> {
        match &self.expression {
            Expression::Cron(cron) => zone::next(cron, &self.zone, after),
            Expression::Rate(rate) => rate.next(after, created),
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        match self.zone.iana_name() {
            Some("UTC") | None => Ok(()),
            Some(zone) => write!(f, " {zone}"),
        }
    }
}

/// `name(inside)`.
fn call(text: &str) -> Result<Option<(&str, &str)>, Invalid> {
    let Some((name, rest)) = text.split_once('(') else { return Ok(None) };
    match rest.strip_suffix(')') {
        Some(inside) => Ok(Some((name.trim(), inside.trim()))),
        None => Err(Invalid::new(format!("`{text}` has no closing parenthesis at its end"))),
    }
}

fn parse_zone(name: &str) -> Result<TimeZone, Invalid> {
    let unknown = || {
        Invalid::new(format!("there is no time zone `{name}`"))
            .help("write an IANA name such as Europe/Berlin; `timedatectl list-timezones` lists them")
    };
    if !ZONE_LENGTH.contains(&name.len()) {
        return Err(unknown());
    }
    TimeZone::get(name).map_err(|_| unknown())
}
