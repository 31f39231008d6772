//! A second opinion on schedules, for tests: minute by minute, with another crate's time zones, and sharing no code with
//! what it judges.

use chrono::{DateTime, Datelike, MappedLocalTime, NaiveDateTime, TimeDelta, TimeZone, Timelike};
use chrono_tz::Tz;

pub(super) struct Oracle {
    fields: Vec<String>,
    zone: Tz,
}

impl Oracle {
    /// `expression` is `cron(…)`.
    pub(super) fn new(expression: &str, zone: &str) -> Self {
        let inside = expression.trim_start_matches("cron(").trim_end_matches(')');
        let fields: Vec<String> = inside.to_lowercase().split_whitespace().map(str::to_owned).collect();
        assert_eq!(fields.len(), 6, "{expression}");
        Self { fields, zone: zone.parse().unwrap() }
    }

    /// Whether a pipeline runs at a minute, counted from 1970.
    pub(super) fn runs_at(&self, minute: i64) -> bool {
        let utc = |minute: i64| DateTime::from_timestamp(minute * 60, 0).unwrap().naive_utc();
        let local = |minute: i64| self.zone.from_utc_datetime(&utc(minute)).naive_local();
        let (now, before) = (local(minute), local(minute - 1));
        let is_first = || match self.zone.from_local_datetime(&now) {
            MappedLocalTime::Ambiguous(first, _) => first.timestamp() == minute * 60,
            _ => true,
        };
        if self.means(now) && is_first() {
            return true;
        }
        // The clocks have just gone forward: what was left out is done now.
        let mut left_out = before + TimeDelta::minutes(1);
        while left_out < now {
            if self.means(left_out) {
                return true;
            }
            left_out += TimeDelta::minutes(1);
        }
        false
    }

    fn means(&self, time: NaiveDateTime) -> bool {
        let [minute, hour, day, month, weekday, year] = self.fields.as_slice() else { unreachable!() };
        any(minute, time.minute(), 0, 59)
            && any(hour, time.hour(), 0, 23)
            && any(month, time.month(), 1, 12)
            && any(year, u32::try_from(time.year()).unwrap(), 1970, 2199)
            && (day == "?" || day.split(',').any(|item| is_day(item, time)))
            && (weekday == "?" || weekday.split(',').any(|item| is_weekday(item, time)))
    }
}

fn number(text: &str) -> u32 {
    const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let index = MONTHS.iter().position(|name| *name == text).or(DAYS.iter().position(|name| *name == text));
    index.map_or_else(|| text.parse().unwrap(), |index| u32::try_from(index).unwrap() + 1)
}

fn any(field: &str, value: u32, least: u32, most: u32) -> bool {
    field.split(',').any(|item| {
        let (range, step) = item.split_once('/').map_or((item, 1), |(range, step)| (range, step.parse().unwrap()));
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (number(first), number(last)),
            None if range == "*" => (least, most),
            None if item.contains('/') => (number(range), most),
            None => (number(range), number(range)),
        };
        (first..=last).contains(&value) && (value - first).is_multiple_of(step)
    })
}

fn days_in_month(time: NaiveDateTime) -> u32 {
    (28..=31).rev().find(|&day| time.date().with_day(day).is_some()).unwrap()
}

fn is_day(item: &str, time: NaiveDateTime) -> bool {
    let last = days_in_month(time);
    let nearest = |day: u32| {
        // Monday to Friday, by growing distance, without leaving the month. Of two, the one towards the middle of the
        // week end's own side: Saturday looks back and Sunday looks forward.
        let date = |day: u32| time.date().with_day(day);
        let is_working = |day: u32| date(day).is_some_and(|date| date.weekday().number_from_monday() <= 5);
        (0..=3)
            .flat_map(|distance| [day.checked_sub(distance), Some(day + distance)])
            .flatten()
            .find(|&d| is_working(d))
    };
    match item {
        "l" => time.day() == last,
        "lw" => nearest(last) == Some(time.day()),
        _ => match item.strip_suffix('w') {
            Some(day) => number(day) <= last && nearest(number(day)) == Some(time.day()),
            None => any(item, time.day(), 1, 31),
        },
    }
}

fn is_weekday(item: &str, time: NaiveDateTime) -> bool {
    let today = time.weekday().number_from_sunday();
    if item == "l" {
        today == 7
    } else if let Some((day, count)) = item.split_once('#') {
        let before =
            (1..time.day()).filter(|day| time.date().with_day(*day).unwrap().weekday() == time.weekday()).count();
        today == number(day) && before + 1 == count.parse::<usize>().unwrap()
    } else if let Some(day) = item.strip_suffix('l') {
        today == number(day) && (time.date() + TimeDelta::days(7)).month() != time.month()
    } else {
        any(item, today, 1, 7)
    }
}
