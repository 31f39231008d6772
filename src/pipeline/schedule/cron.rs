//! AWS's six fields of cron: `Minute Hour Day-of-month Month Day-of-week Year`.
//!
//! Source: EC2 Image Builder user guide, "cron expressions". Where the guide is silent or disputed: a bare `L` as day of
//! the week is Saturday, the last in a week that begins with 1 = Sunday (with a warning); `LW` is the month's last
//! weekday; `31W` means nothing in a month of 30 days.

use jiff::ToSpan;
use jiff::civil::{Date, DateTime};

use super::Invalid;

/// Which local minutes are meant.
#[derive(Debug, Clone)]
pub(super) struct Cron {
    minutes: Bits,
    hours: Bits,
    days: Days,
    months: Bits,
    years: Years,
}

/// A set of small numbers.
type Bits = u64;

/// Which days: one of the two fields for days is `?`.
#[derive(Debug, Clone)]
enum Days {
    OfMonth(Vec<OfMonth>),
    OfWeek(Vec<OfWeek>),
}

/// An item of the field for days of the month.
#[derive(Debug, Clone, Copy)]
enum OfMonth {
    Days(Bits),
    Last,
    LastWeekday,
    Nearest(i8),
}

/// An item of the field for days of the week, 1 = Sunday.
#[derive(Debug, Clone, Copy)]
enum OfWeek {
    Days(Bits),
    Last(i8),
    Numbered { day: i8, number: i8 },
}

/// Years from 1970 on that are meant, by distance from 1970.
#[derive(Debug, Clone)]
struct Years([Bits; 4]);

/// A field: what it is called, which numbers it takes, and the names for them.
struct Field {
    name: &'static str,
    least: i16,
    most: i16,
    names: &'static [&'static str],
}

const MINUTE: Field = Field { name: "minute", least: 0, most: 59, names: &[] };
const HOUR: Field = Field { name: "hour", least: 0, most: 23, names: &[] };
const DAY_OF_MONTH: Field = Field { name: "day of month", least: 1, most: 31, names: &[] };
const MONTH: Field = Field {
    name: "month",
    least: 1,
    most: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const DAY_OF_WEEK: Field =
    Field { name: "day of week", least: 1, most: 7, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };
const YEAR: Field = Field { name: "year", least: 1970, most: 2199, names: &[] };

const FORM: &str = "cron(Minute Hour Day-of-month Month Day-of-week Year), for example cron(0 3 ? * sun *)";

impl Cron {
    /// Reads the six fields.
    pub(super) fn parse(text: &str, warnings: &mut Vec<String>) -> Result<Self, Invalid> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let &[minute, hour, day, month, weekday, year] = fields.as_slice() else {
            let problem = Invalid::new(format!("`{text}` has {} fields, and AWS's cron has six", fields.len()));
            return Err(match fields.len() {
                5 => problem.help(format!("the year is missing, perhaps: {FORM}")),
                _ => problem.help(FORM),
            });
        };
        let months = MONTH.set(month)?;
        Ok(Self {
            minutes: MINUTE.set(minute)?,
            hours: HOUR.set(hour)?,
            days: Days::parse(day, weekday, warnings)?,
            months,
            years: Years::parse(year)?,
        })
    }

    /// The first minute after a local time that is meant.
    pub(super) fn next(&self, after: DateTime) -> Option<DateTime> {
        let start = after.with().second(0).subsec_nanosecond(0).build().ok()?.checked_add(1.minute()).ok()?;
        if self.is_day(start.date()) {
            let (hour, minute) = (start.hour(), start.minute());
            if self.hours & bit(hour) != 0
                && let Some(minute) = first_from(self.minutes, minute)
            {
                return Some(start.date().at(hour, minute, 0, 0));
            }
            if let Some(hour) = first_from(self.hours, hour + 1) {
                return Some(start.date().at(hour, first_from(self.minutes, 0)?, 0, 0));
            }
        }
        let day = self.next_day(start.date().tomorrow().ok()?)?;
        Some(day.at(first_from(self.hours, 0)?, first_from(self.minutes, 0)?, 0, 0))
    }

    fn is_day(&self, date: Date) -> bool {
        self.years.has(date.year()) && self.months & bit(date.month()) != 0 && self.days.has(date)
    }

    /// The first day from this one on that is meant.
    fn next_day(&self, from: Date) -> Option<Date> {
        let mut date = from;
        loop {
            let year = self.years.first_from(date.year())?;
            if year != date.year() {
                date = Date::new(year, 1, 1).ok()?;
            }
            match first_from(self.months, date.month()) {
                None => date = Date::new(year.checked_add(1)?, 1, 1).ok()?,
                Some(month) => {
                    if month != date.month() {
                        date = Date::new(year, month, 1).ok()?;
                    }
                    let days = date.day()..=date.days_in_month();
                    let found = days.filter_map(|day| Date::new(year, month, day).ok()).find(|&day| self.days.has(day));
                    if found.is_some() {
                        return found;
                    }
                    date = date.last_of_month().tomorrow().ok()?;
                }
            }
        }
    }
}

fn bit(number: i8) -> Bits {
    u32::try_from(number).ok().and_then(|number| 1_u64.checked_shl(number)).unwrap_or(0)
}

/// The first number of a set from one on.
fn first_from(set: Bits, from: i8) -> Option<i8> {
    let from = u32::try_from(from).ok()?;
    let rest = set & u64::MAX.checked_shl(from)?;
    (rest != 0).then(|| i8::try_from(rest.trailing_zeros()).ok()).flatten()
}

/// The day of the week, 1 = Sunday.
fn weekday(date: Date) -> i8 {
    date.weekday().to_sunday_one_offset()
}

impl Days {
    fn parse(day: &str, weekday: &str, warnings: &mut Vec<String>) -> Result<Self, Invalid> {
        match (day, weekday) {
            ("?", "?") => Err(Invalid::new("both the day of month and the day of week are `?`, so no day is named")
                .help("write `*` for every day of the month: cron(0 3 * * ? *)")),
            (_, "?") => Ok(Self::OfMonth(of_month(day)?)),
            ("?", _) => Ok(Self::OfWeek(of_week(weekday, warnings)?)),
            // AWS's own pages break the rule in this way.
            (_, "*") => {
                warnings.push("AWS wants `?` as the day of week where the day of month says which day".to_owned());
                Ok(Self::OfMonth(of_month(day)?))
            }
            ("*", _) => {
                warnings.push("AWS wants `?` as the day of month where the day of week says which day".to_owned());
                Ok(Self::OfWeek(of_week(weekday, warnings)?))
            }
            _ => Err(Invalid::new(format!(
                "the day of month is `{day}` and the day of week is `{weekday}`, and only one of them may name days"
            ))
            .help("write `?` for the other one")),
        }
    }

    fn has(&self, date: Date) -> bool {
        match self {
            Self::OfMonth(items) => items.iter().any(|item| item.has(date)),
            Self::OfWeek(items) => items.iter().any(|item| item.has(date)),
        }
    }
}

impl OfMonth {
    fn has(self, date: Date) -> bool {
        let last = date.days_in_month();
        match self {
            Self::Days(days) => days & bit(date.day()) != 0,
            Self::Last => date.day() == last,
            Self::LastWeekday => is_weekday_nearest(date, last),
            Self::Nearest(day) => day <= last && is_weekday_nearest(date, day),
        }
    }
}

/// Whether a date is the weekday, Monday to Friday, that is nearest to a day of its own month. The month is not left.
fn is_weekday_nearest(date: Date, day: i8) -> bool {
    let Ok(wanted) = Date::new(date.year(), date.month(), day) else { return false };
    let nearest = match weekday(wanted) {
        7 if day == 1 => day + 2,
        7 => day - 1,
        1 if day == date.days_in_month() => day - 2,
        1 => day + 1,
        _ => day,
    };
    date.day() == nearest
}

impl OfWeek {
    fn has(self, date: Date) -> bool {
        match self {
            Self::Days(days) => days & bit(weekday(date)) != 0,
            Self::Last(day) => weekday(date) == day && date.day() + 7 > date.days_in_month(),
            Self::Numbered { day, number } => weekday(date) == day && (date.day() - 1) / 7 + 1 == number,
        }
    }
}

fn of_month(text: &str) -> Result<Vec<OfMonth>, Invalid> {
    let item = |item: &str| {
        let upper = item.to_ascii_uppercase();
        Ok(match upper.as_str() {
            "L" => OfMonth::Last,
            "LW" | "WL" => OfMonth::LastWeekday,
            _ => match upper.strip_suffix('W') {
                Some(day) => OfMonth::Nearest(narrow(DAY_OF_MONTH.number(day)?)),
                None => OfMonth::Days(DAY_OF_MONTH.item(item)?),
            },
        })
    };
    DAY_OF_MONTH.items(text)?.map(item).collect()
}

fn of_week(text: &str, warnings: &mut Vec<String>) -> Result<Vec<OfWeek>, Invalid> {
    let mut items = Vec::new();
    for item in DAY_OF_WEEK.items(text)? {
        items.push(if item.eq_ignore_ascii_case("L") {
            let warning = "`L` as the day of week is read as Saturday, the last day of a week that begins with 1 = Sunday; \
                           AWS's guide says Sunday: write sat or sun";
            warnings.push(warning.to_owned());
            OfWeek::Days(bit(7))
        } else if let Some((day, number)) = item.split_once('#') {
            let number = match number.parse() {
                Ok(number @ 1..=5) => number,
                _ => {
                    let message = format!("`{item}` in the day of week: after `#` stands which of the month's, 1 to 5");
                    return Err(Invalid::new(message).help("fri#2 is the second Friday"));
                }
            };
            OfWeek::Numbered { day: narrow(DAY_OF_WEEK.number(day)?), number }
        } else if let Some(day) = item.strip_suffix(['L', 'l']) {
            OfWeek::Last(narrow(DAY_OF_WEEK.number(day)?))
        } else {
            OfWeek::Days(DAY_OF_WEEK.item(item)?)
        });
    }
    Ok(items)
}

impl Field {
    fn invalid(&self, text: &str, why: &str) -> Invalid {
        Invalid::new(format!("`{text}` in the {}: {why}", self.name))
    }

    /// What stands between the commas.
    fn items<'t>(&self, text: &'t str) -> Result<impl Iterator<Item = &'t str> + use<'t>, Invalid> {
        if text.split(',').any(str::is_empty) {
            return Err(self.invalid(text, "a comma has nothing on one of its sides"));
        }
        Ok(text.split(','))
    }

    /// All that a field of plain numbers means.
    fn set(&self, text: &str) -> Result<Bits, Invalid> {
        let mut set = 0;
        for item in self.items(text)? {
            set |= self.item(item)?;
        }
        Ok(set)
    }

    /// The numbers that `*`, `3`, `3-9`, `*/2`, `3/2` and `3-9/2` mean.
    fn item(&self, item: &str) -> Result<Bits, Invalid> {
        Ok(self.numbers(item)?.map(narrow).map(bit).fold(0, |set, bit| set | bit))
    }

    fn numbers(&self, item: &str) -> Result<std::iter::StepBy<std::ops::RangeInclusive<i16>>, Invalid> {
        let (range, step) = match item.split_once('/') {
            None => (item, None),
            Some((range, step)) => {
                let step = step.parse().ok().filter(|step| (1..=self.most).contains(step));
                let span = format!("after `/` stands a step from 1 to {}", self.most);
                (range, Some(step.ok_or_else(|| self.invalid(item, &span))?))
            }
        };
        let (first, last) = if range == "*" {
            (self.least, self.most)
        } else if let Some((first, last)) = range.split_once('-') {
            (self.number(first)?, self.number(last)?)
        } else {
            let first = self.number(range)?;
            (first, if step.is_some() { self.most } else { first })
        };
        if last < first {
            let why = "the range ends before it begins";
            let both = format!("write {first}-{},{}-{last}", self.most, self.least);
            return Err(self.invalid(item, why).help(both));
        }
        Ok((first..=last).step_by(usize::try_from(step.unwrap_or(1)).unwrap_or(1)))
    }

    /// A number, or a name for one.
    fn number(&self, text: &str) -> Result<i16, Invalid> {
        if let Some(index) = self.names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
            return Ok(self.least + i16::try_from(index).unwrap_or(0));
        }
        let number = text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
        match number {
            Some(number) if (self.least..=self.most).contains(&number) => Ok(number),
            Some(_) => Err(self.invalid(text, &format!("{} to {} is possible", self.least, self.most))),
            None => Err(self.foreign(text)),
        }
    }

    /// What somebody meant who wrote what is no number.
    fn foreign(&self, text: &str) -> Invalid {
        let is_day = self.names.len() == 7 || self.most == 31;
        let names = match self.names {
            [first, .., last] => format!(" or {first} to {last}"),
            _ => String::new(),
        };
        let possible = format!("it is no number from {} to {}{names}", self.least, self.most);
        match text {
            "?" if !is_day => self.invalid(text, "`?` is for the two fields of days").help("write `*`"),
            "**" => self.invalid(text, "one `*` means all of them").help("write `*`"),
            "" => self.invalid(text, "a number is missing"),
            "L" | "W" | "LW" => self.invalid(text, "it is for the two fields of days, and stands alone there"),
            _ if self.names.iter().any(|name| text.len() > 3 && text.to_ascii_lowercase().starts_with(name)) => {
                self.invalid(text, "names have three letters").help(format!("write {}", &text[..3]))
            }
            _ => self.invalid(text, &possible),
        }
    }
}

/// Numbers of all fields but the year are below 64.
fn narrow(number: i16) -> i8 {
    i8::try_from(number).unwrap_or(i8::MAX)
}

impl Years {
    fn parse(text: &str) -> Result<Self, Invalid> {
        let mut years = [0; 4];
        for item in YEAR.items(text)? {
            for year in YEAR.numbers(item)? {
                let index = Self::index(year);
                if let Some((word, bit)) = index {
                    years[word] |= 1 << bit;
                }
            }
        }
        Ok(Self(years))
    }

    /// Which word and bit stand for a year.
    fn index(year: i16) -> Option<(usize, usize)> {
        let distance = usize::try_from(year.checked_sub(YEAR.least)?).ok()?;
        (year <= YEAR.most).then_some((distance / 64, distance % 64))
    }

    fn has(&self, year: i16) -> bool {
        Self::index(year).is_some_and(|(word, bit)| self.0[word] & (1 << bit) != 0)
    }

    fn first_from(&self, year: i16) -> Option<i16> {
        (year.max(YEAR.least)..=YEAR.most).find(|&year| self.has(year))
    }
}
