//! A year of schedules on a clock of our own, judged by an oracle that looks at every minute.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::decide::{Decision, decide};
use super::definition::{Build, Condition, Definition, How};
use super::oracle::Oracle;
use super::schedule::Schedule;
use super::state::State;

/// Ten pipelines: both hemispheres' clock changes, the leap day, and every kind of wildcard.
const PIPELINES: [(&str, &str, &str); 10] = [
    ("nightly", "cron(30 2 * * ? *)", "Europe/Berlin"),
    ("often", "cron(0/20 * * * ? *)", "America/New_York"),
    ("weekdays", "cron(15 1 ? * MON-FRI *)", "America/New_York"),
    ("month-end", "cron(0 22 L * ? *)", "Asia/Kathmandu"),
    ("near-15th", "cron(45 23 15W * ? *)", "Australia/Lord_Howe"),
    ("patch-tuesday", "cron(0 18 ? * tue#2 *)", "UTC"),
    ("last-thursday", "cron(5 2 ? * 5L *)", "Australia/Lord_Howe"),
    ("leap-day", "cron(0 12 29 feb ? *)", "Europe/London"),
    ("quarters", "cron(0 0 1 1/3 ? 2028)", "Pacific/Auckland"),
    ("summer", "cron(10,50 1-3/2 ? jun-oct sun *)", "America/Santiago"),
];

const BEGIN: &str = "2027-12-31T12:00:00Z";
const END: &str = "2029-01-02T00:00:00Z";

pub(super) fn definition(name: &str, expression: &str, zone: &str) -> Definition {
    Definition {
        name: name.parse().unwrap(),
        document: format!("{name}.yaml").into(),
        description: None,
        tags: Vec::new(),
        digest: String::new(),
        enabled: true,
        schedule: Some(Schedule::parse(expression, Some(zone)).unwrap()),
        condition: Condition::ExpressionMatchOnly,
        failures_allowed: None,
        priority: 0,
        builds: vec![Build::default()],
        how: How::default(),
        warnings: Vec::new(),
    }
}

/// Whether the host is asleep: at night in Berlin's winter time, and for all of a week in August.
fn sleeps(minute: i64) -> bool {
    let time = chrono::DateTime::from_timestamp(minute * 60, 0).unwrap();
    let of_day = minute.rem_euclid(24 * 60);
    let is_holiday = (chrono::Datelike::month(&time), chrono::Datelike::day(&time));
    !(5 * 60 + 10..22 * 60 + 30).contains(&of_day) || (is_holiday.0 == 8 && (10..17).contains(&is_holiday.1))
}

fn minute(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_second() / 60
}

/// What starts when, by the oracle: at each minute that the host is awake, one run of each pipeline that had one or more
/// scheduled minutes since it was last looked at.
fn expected() -> BTreeSet<(i64, &'static str)> {
    let mut starts = BTreeSet::new();
    for (name, expression, zone) in PIPELINES {
        let (oracle, mut owes) = (Oracle::new(expression, zone), false);
        for now in minute(BEGIN) + 1..=minute(END) {
            owes |= oracle.runs_at(now);
            if owes && !sleeps(now) {
                starts.insert((now, name));
                owes = false;
            }
        }
    }
    starts
}

/// The same, as the product decides. `wake` says how long the scheduler sleeps at most between two looks.
fn simulated(mut nap: impl FnMut() -> i64) -> BTreeSet<(i64, &'static str)> {
    let begin: Timestamp = BEGIN.parse().unwrap();
    let definitions = PIPELINES.map(|(name, expression, zone)| definition(name, expression, zone));
    let mut states: BTreeMap<&str, State> = PIPELINES
        .iter()
        .zip(&definitions)
        .map(|((name, ..), definition)| (*name, State::new(definition, begin)))
        .collect();
    let (mut now, mut starts) = (begin.as_second(), BTreeSet::new());
    while now <= minute(END) * 60 {
        let mut next = now + nap();
        for ((name, ..), definition) in PIPELINES.iter().zip(&definitions) {
            let state = states.get_mut(name).unwrap();
            let time = Timestamp::from_second(now).unwrap();
            match decide(state, definition, false, time) {
                Decision::Due { at, .. } => {
                    assert!(at <= time && at > state.considered);
                    state.considered = time;
                    starts.insert((now.div_euclid(60), *name));
                    // What comes next in the same nap is looked for at once.
                    next = now;
                }
                Decision::Wait(Some(at)) => next = next.min(at.as_second()),
                other => assert_eq!(other, Decision::Wait(None)),
            }
        }
        now = if next > now { next } else { next.max(now) };
        while sleeps(now.div_euclid(60)) {
            now = (now.div_euclid(60) + 1) * 60;
        }
    }
    starts
}

#[test]
fn a_year_of_schedules_is_as_an_oracle_says_that_looks_at_every_minute() {
    let expected = expected();
    // Something of each runs, or the comparison says little.
    for (name, ..) in PIPELINES {
        assert!(expected.iter().any(|(_, started)| *started == name), "{name}");
    }
    // With a scheduler that sleeps until the next run, and with one that wakes at odd times.
    assert_eq!(simulated(|| 3600), expected);
    let mut seed = 1_u64;
    let mut odd = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from(seed >> 33).unwrap() % 1200 + 1
    };
    assert_eq!(simulated(&mut odd), expected);
}

#[test]
fn a_run_that_was_missed_is_one_run_and_names_the_first_time() {
    let definition = definition("often", "cron(0/20 * * * ? *)", "UTC");
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let mut state = State::new(&definition, at("2026-11-26T10:00:00Z"));
    let woken = at("2026-11-28T09:59:59Z");
    let due = Decision::Due { at: at("2026-11-26T10:20:00Z"), gated: false };
    assert_eq!(decide(&state, &definition, false, woken), due);
    state.considered = woken;
    assert_eq!(decide(&state, &definition, false, woken), Decision::Wait(Some(at("2026-11-28T10:00:00Z"))));
    // A clock that is set back starts nothing again.
    let back = woken - SignedDuration::from_hours(5);
    assert_eq!(decide(&state, &definition, false, back), Decision::Wait(Some(at("2026-11-28T10:00:00Z"))));
}
