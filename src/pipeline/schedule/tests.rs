use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::pipeline::oracle::Oracle;

fn error(expression: &str) -> String {
    match Schedule::parse(expression, None) {
        Ok(schedule) => format!("fine: {schedule}"),
        Err(Invalid { message, help }) => format!("{message} ({})", help.unwrap_or_default()),
    }
}

/// The first runs after an instant.
fn runs(expression: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let schedule = Schedule::parse(expression, Some(zone)).unwrap();
    let mut after: Timestamp = after.parse().unwrap();
    let mut runs = Vec::new();
    while let Some(next) = schedule.next(after, after).filter(|_| runs.len() < count) {
        runs.push(next.to_zoned(schedule.zone().clone()).strftime("%a %Y-%m-%d %H:%M %z").to_string());
        after = next;
    }
    runs
}

#[test]
fn the_guides_own_examples() {
    let first = |expression| runs(expression, "UTC", "2026-11-26T10:00:00Z", 2).join(", ");
    insta::assert_snapshot!(first("cron(0 0 * * ? *)"), @"Fri 2026-11-27 00:00 +0000, Sat 2026-11-28 00:00 +0000");
    insta::assert_snapshot!(first("0 10 * * ? *"), @"Fri 2026-11-27 10:00 +0000, Sat 2026-11-28 10:00 +0000");
    insta::assert_snapshot!(first("cron(0 18 ? * MON-FRI *)"), @"Thu 2026-11-26 18:00 +0000, Fri 2026-11-27 18:00 +0000");
    insta::assert_snapshot!(first("cron(0 8 1 * ? *)"), @"Tue 2026-12-01 08:00 +0000, Fri 2027-01-01 08:00 +0000");
    insta::assert_snapshot!(first("cron(0/15 * * * ? *)"), @"Thu 2026-11-26 10:15 +0000, Thu 2026-11-26 10:30 +0000");
    insta::assert_snapshot!(first("cron(0 9 ? * fri#2 *)"), @"Fri 2026-12-11 09:00 +0000, Fri 2027-01-08 09:00 +0000");
    insta::assert_snapshot!(first("cron(0 9 ? * 5L *)"), @"Thu 2026-12-31 09:00 +0000, Thu 2027-01-28 09:00 +0000");
    insta::assert_snapshot!(first("cron(0 9 L * ? *)"), @"Mon 2026-11-30 09:00 +0000, Thu 2026-12-31 09:00 +0000");
    insta::assert_snapshot!(first("cron(0 9 15W * ? *)"), @"Tue 2026-12-15 09:00 +0000, Fri 2027-01-15 09:00 +0000");
    insta::assert_snapshot!(first("cron(0 9 1W * ? *)"), @"Tue 2026-12-01 09:00 +0000, Fri 2027-01-01 09:00 +0000");
    insta::assert_snapshot!(first("cron(0 9 29 2 ? *)"), @"Tue 2028-02-29 09:00 +0000, Sun 2032-02-29 09:00 +0000");
    insta::assert_snapshot!(first("cron(0 9 1 1 ? 2030/10)"), @"Tue 2030-01-01 09:00 +0000, Sun 2040-01-01 09:00 +0000");
    insta::assert_snapshot!(first("rate(12 hours)"), @"Thu 2026-11-26 22:00 +0000, Fri 2026-11-27 10:00 +0000");
    insta::assert_snapshot!(first("cron(0 9 30 2 ? *)"), @"");
    insta::assert_snapshot!(first("cron(0 9 1 1 ? 2020)"), @"");
}

#[test]
fn both_clock_changes() {
    let berlin = |expression, after| runs(expression, "Europe/Berlin", after, 3).join(", ");
    // Clocks go from 02:00 to 03:00 on 28 March 2027 and from 03:00 to 02:00 on 31 October.
    insta::assert_snapshot!(berlin("cron(30 2 * * ? *)", "2027-03-27T00:00:00Z"), @"Sat 2027-03-27 02:30 +0100, Sun 2027-03-28 03:00 +0200, Mon 2027-03-29 02:30 +0200");
    insta::assert_snapshot!(berlin("cron(0/20 2 * * ? *)", "2027-03-27T12:00:00Z"), @"Sun 2027-03-28 03:00 +0200, Mon 2027-03-29 02:00 +0200, Mon 2027-03-29 02:20 +0200");
    insta::assert_snapshot!(berlin("cron(30 2 * * ? *)", "2027-10-30T12:00:00Z"), @"Sun 2027-10-31 02:30 +0200, Mon 2027-11-01 02:30 +0100, Tue 2027-11-02 02:30 +0100");
    insta::assert_snapshot!(berlin("cron(0/30 * * * ? *)", "2027-10-31T00:00:00Z"), @"Sun 2027-10-31 02:30 +0200, Sun 2027-10-31 03:00 +0100, Sun 2027-10-31 03:30 +0100");
    // A whole day was left out.
    insta::assert_snapshot!(runs("cron(0 12 * * ? *)", "Pacific/Apia", "2011-12-29T00:00:00Z", 3).join(", "), @"Thu 2011-12-29 12:00 -1000, Sat 2011-12-31 00:00 +1400, Sat 2011-12-31 12:00 +1400");
}

#[test]
fn what_is_wrong_is_said() {
    insta::assert_snapshot!(error("cron(0 8 1 * ? **)"), @"`**` in the year: one `*` means all of them (write `*`)");
    insta::assert_snapshot!(error("cron(0 8 * * ?)"), @"`0 8 * * ?` has 5 fields, and AWS's cron has six (the year is missing, perhaps: cron(Minute Hour Day-of-month Month Day-of-week Year), for example cron(0 3 ? * sun *))");
    insta::assert_snapshot!(error("cron(0 0 8 1 * ? *)"), @"`0 0 8 1 * ? *` has 7 fields, and AWS's cron has six (cron(Minute Hour Day-of-month Month Day-of-week Year), for example cron(0 3 ? * sun *))");
    insta::assert_snapshot!(error("cron(0 8 ? * ? *)"), @"both the day of month and the day of week are `?`, so no day is named (write `*` for every day of the month: cron(0 3 * * ? *))");
    insta::assert_snapshot!(error("cron(0 8 1 * mon *)"), @"the day of month is `1` and the day of week is `mon`, and only one of them may name days (write `?` for the other one)");
    insta::assert_snapshot!(error("cron(60 8 1 * ? *)"), @"`60` in the minute: 0 to 59 is possible ()");
    insta::assert_snapshot!(error("cron(? 8 1 * ? *)"), @"`?` in the minute: `?` is for the two fields of days (write `*`)");
    insta::assert_snapshot!(error("cron(0 8 1 january ? *)"), @"`january` in the month: names have three letters (write jan)");
    insta::assert_snapshot!(error("cron(0 8 ? * 0 *)"), @"`0` in the day of week: 1 to 7 is possible ()");
    insta::assert_snapshot!(error("cron(0 8 ? * fri#6 *)"), @"`fri#6` in the day of week: after `#` stands which of the month's, 1 to 5 (fri#2 is the second Friday)");
    insta::assert_snapshot!(error("cron(0 8 ? * fri-mon *)"), @"`fri-mon` in the day of week: the range ends before it begins (write 6-7,1-2)");
    insta::assert_snapshot!(error("cron(0/0 8 ? * 1 *)"), @"`0/0` in the minute: after `/` stands a step from 1 to 59 ()");
    insta::assert_snapshot!(error("cron(1,,2 8 ? * 1 *)"), @"`1,,2` in the minute: a comma has nothing on one of its sides ()");
    insta::assert_snapshot!(error("cron(L 8 ? * 1 *)"), @"`L` in the minute: it is for the two fields of days, and stands alone there ()");
    insta::assert_snapshot!(error("cron(0 8 1 * ? 1969)"), @"`1969` in the year: 1970 to 2199 is possible ()");
    insta::assert_snapshot!(error("cron(0 8 1 * ? *"), @"`cron(0 8 1 * ? *` has no closing parenthesis at its end ()");
    insta::assert_snapshot!(error("rate(12 hour)"), @"`rate(12 hour)` is refused by AWS: after 1 the unit is singular, else plural; write rate(12 hours) ()");
    insta::assert_snapshot!(error("rate(1 days)"), @"`rate(1 days)` is refused by AWS: after 1 the unit is singular, else plural; write rate(1 day) ()");
    insta::assert_snapshot!(error("rate(0 days)"), @"`rate(0 days)` never comes to an end: the number has to be 1 or more (write rate(1 day) or rate(12 hours): a number and minutes, hours or days)");
    insta::assert_snapshot!(error("rate(2 weeks)"), @"`rate(2 weeks)` has the unit `weeks`, which is none (write rate(1 day) or rate(12 hours): a number and minutes, hours or days)");
    insta::assert_snapshot!(error("at(2026-11-26T10:00:00)"), @"`at(…)` is EventBridge's and runs once; a pipeline's schedule repeats (write cron(Minute Hour Day-of-month Month Day-of-week Year) with that year)");
    insta::assert_snapshot!(error("daily"), @"`daily` has 1 fields, and AWS's cron has six (cron(Minute Hour Day-of-month Month Day-of-week Year), for example cron(0 3 ? * sun *))");
    let zone = Schedule::parse("rate(1 day)", Some("Europe/Berln")).unwrap_err();
    insta::assert_snapshot!(zone, @"there is no time zone `Europe/Berln`");
}

#[test]
fn what_is_not_aws_is_understood_with_a_warning() {
    let warnings = |expression| Schedule::parse(expression, None).unwrap().warnings().join("; ");
    insta::assert_snapshot!(warnings("cron(0 0 * * SUN *)"), @"AWS wants `?` as the day of month where the day of week says which day");
    insta::assert_snapshot!(warnings("cron(0 0 1 * * *)"), @"AWS wants `?` as the day of week where the day of month says which day");
    insta::assert_snapshot!(warnings("cron(0 0 ? * L *)"), @"`L` as the day of week is read as Saturday, the last day of a week that begins with 1 = Sunday; AWS's guide says Sunday: write sat or sun");
    insta::assert_snapshot!(warnings("cron(0 0 ? * 5L *)"), @"");
}

/// A field of plain numbers.
fn numbers(least: u32, most: u32) -> impl Strategy<Value = String> {
    let number = least..=most;
    prop_oneof![
        3 => Just("*".to_owned()),
        3 => number.clone().prop_map(|number| number.to_string()),
        2 => (number.clone(), 1..=most).prop_map(|(first, step)| format!("{first}/{step}")),
        1 => (1..=most).prop_map(|step| format!("*/{step}")),
        2 => (number.clone(), number.clone()).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        1 => (number.clone(), number.clone(), 1..=most).prop_map(|(a, b, step)| format!("{}-{}/{step}", a.min(b), a.max(b))),
        2 => prop::collection::vec(number, 1..4).prop_map(|list| list.iter().map(u32::to_string).collect::<Vec<_>>().join(",")),
    ]
}

fn days() -> impl Strategy<Value = (String, String)> {
    let day_names = prop::sample::select(vec!["sun", "MON", "Tue", "wed", "THU", "fri", "sat"]);
    let of_month = prop_oneof![
        4 => numbers(1, 31),
        1 => Just("L".to_owned()),
        1 => Just("LW".to_owned()),
        2 => (1..=31).prop_map(|day| format!("{day}W")),
        1 => (1..=31).prop_map(|day| format!("L,{day}w,7")),
    ];
    let of_week = prop_oneof![
        4 => numbers(1, 7),
        2 => day_names.clone().prop_map(str::to_owned),
        2 => (day_names.clone(), 1..=5).prop_map(|(day, number)| format!("{day}#{number}")),
        2 => (1..=7).prop_map(|day| format!("{day}L")),
        1 => (1..=7, day_names).prop_map(|(day, name)| format!("{day}l,{name}#1")),
    ];
    prop_oneof![of_month.prop_map(|day| (day, "?".to_owned())), of_week.prop_map(|day| ("?".to_owned(), day))]
}

/// Zones, and a time shortly before one of their clocks changes.
fn places() -> impl Strategy<Value = (&'static str, i64)> {
    let change = |text: &str| text.parse::<Timestamp>().unwrap().as_second() / 60;
    let places = vec![
        ("UTC", change("2028-02-28T12:00:00Z")),
        ("Europe/Berlin", change("2027-03-28T01:00:00Z")),
        ("Europe/Berlin", change("2027-10-31T01:00:00Z")),
        ("America/New_York", change("2027-03-14T07:00:00Z")),
        ("America/New_York", change("2027-11-07T06:00:00Z")),
        // Half an hour only, and at another time of the year.
        ("Australia/Lord_Howe", change("2027-04-03T15:00:00Z")),
        ("Australia/Lord_Howe", change("2027-10-02T15:30:00Z")),
        ("Asia/Kathmandu", change("2026-12-31T18:15:00Z")),
        ("Pacific/Apia", change("2011-12-30T10:00:00Z")),
        ("America/Sao_Paulo", change("2018-11-04T03:00:00Z")),
    ];
    (prop::sample::select(places), -3000..600_i64).prop_map(|((zone, change), shift)| (zone, change + shift))
}

/// How far a scan goes.
const HORIZON: i64 = 4 * 24 * 60;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_next_run_is_the_one_that_a_scan_of_all_minutes_finds(
        minute in numbers(0, 59), hour in numbers(0, 23), (day, weekday) in days(), month in numbers(1, 12),
        (zone, start) in places(), second in 0..60_i64,
    ) {
        let expression = format!("cron({minute} {hour} {day} {month} {weekday} *)");
        let schedule = Schedule::parse(&expression, Some(zone)).unwrap();
        let oracle = Oracle::new(&expression, zone);
        let after = Timestamp::from_second(start * 60 + second).unwrap();
        let scanned = (start + 1..=start + HORIZON).find(|&minute| oracle.runs_at(minute));
        let found = schedule.next(after, after).map(|next| next.as_second());
        let found_near = found.filter(|&second| second <= (start + HORIZON) * 60);
        prop_assert_eq!(found_near, scanned.map(|minute| minute * 60), "{} in {}", expression, zone);
    }

    #[test]
    fn a_rate_runs_every_so_often_after_its_beginning(count in 2..400_i64, created in 0..2_000_000_000_i64, later in 0..100_000_000_i64) {
        let schedule = Schedule::parse(&format!("rate({count} minutes)"), None).unwrap();
        let (created, after) = (Timestamp::from_second(created).unwrap(), Timestamp::from_second(created + later).unwrap());
        let next = schedule.next(after, created).unwrap();
        prop_assert!(next > after && next.as_second() - after.as_second() <= count * 60);
        prop_assert_eq!((next.as_second() - created.as_second()) % (count * 60), 0);
    }

    #[test]
    fn no_text_panics(text in "[-0-9*?/LW#,a-z() ]{0,40}") {
        if let Ok(schedule) = Schedule::parse(&text, None) {
            let next = schedule.next(Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
            prop_assert!(next.is_none_or(|next| next > Timestamp::UNIX_EPOCH));
        }
    }
}
