//! What was measured, as JSON and as a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::Bench;
use crate::shell::{self, output, root};

const JSON: &str = "docs/benchmarks.json";
const TABLE: &str = "docs/benchmarks.md";

/// Everything that is kept.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// What it was measured on.
    machine: Vec<(String, String)>,
    /// What was measured one after another: only such values are compared.
    pub(super) rounds: Vec<Round>,
}

/// One round.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Round {
    /// When.
    date: String,
    /// Of which state of goldsmith.
    commit: String,
    /// What was found.
    pub(super) values: BTreeMap<String, f64>,
    /// What could not be measured.
    pub(super) failures: Vec<String>,
}

impl Round {
    /// A round that begins now.
    pub(super) fn begin() -> Self {
        let (values, failures) = (BTreeMap::new(), Vec::new());
        let date = first_line(shell::command("date").args(["-u", "+%Y-%m-%d"]));
        let commit = first_line(shell::command("git").args(["describe", "--always", "--dirty"]));
        Self { date, commit, values, failures }
    }
}

fn first_line(command: &mut std::process::Command) -> String {
    output(command).and_then(|text| text.lines().next().map(str::to_owned)).unwrap_or_else(|| "none".to_owned())
}

impl Record {
    pub(super) fn of(bench: &Bench) -> Result<Self> {
        let version = |program: &str, flag: &str| first_line(shell::command(program).arg(flag));
        let cpu = fs_err::read_to_string("/proc/cpuinfo")?;
        let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
        let release = fs_err::read_to_string("/etc/os-release")?;
        let release = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let machine = [
            ("command", "cargo xtask bench".to_owned()),
            ("processor", format!("{} × {}", cores, cpu.unwrap_or("unknown"))),
            ("system", release.trim_matches('"').to_owned()),
            ("accelerator", bench.accelerator.clone()),
            ("QEMU", version("qemu-system-x86_64", "--version")),
            ("Packer", version("packer", "--version")),
            ("virt-customize", version("virt-customize", "--version")),
        ];
        let machine = machine.map(|(name, value)| (name.to_owned(), value)).into();
        Ok(Self { machine, rounds: Vec::new() })
    }

    fn values(&self, name: &str) -> Vec<f64> {
        self.rounds.iter().filter_map(|round| round.values.get(name)).copied().collect()
    }

    fn median(&self, name: &str) -> Option<f64> {
        median(self.values(name))
    }

    /// The median of the ratios of what was measured in the same round.
    fn ratio(&self, slow: &str, quick: &str) -> Option<f64> {
        let ratio = |round: &Round| Some(round.values.get(slow)? / round.values.get(quick)?);
        median(self.rounds.iter().filter_map(ratio).collect())
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[count / 2]),
        count => Some(f64::midpoint(values[count / 2 - 1], values[count / 2])),
    }
}

/// What was measured before, if anything was.
pub(super) fn read() -> Result<Option<Record>> {
    let path = root().join(JSON);
    if !path.exists() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&fs_err::read(path)?).with_context(|| format!("{JSON} can't be read"))?))
}

/// Keeps what was measured so far.
pub(super) fn save(record: &Record) -> Result<()> {
    let mut text = serde_json::to_string_pretty(record)?;
    text.push('\n');
    Ok(fs_err::write(root().join(JSON), text)?)
}

/// Writes the table.
pub(super) fn write(record: &Record) -> Result<()> {
    let mut text = String::from(
        "# Benchmarks\n\nWritten by `cargo xtask bench`, which anybody can run; every value is in \
         [`benchmarks.json`](benchmarks.json). All of a round was measured one after another on the same parent \
         (`debian-12-minimal`) and the same work (one shell step that writes a file), with 2 processors and 1 GiB of \
         memory in each guest. Times are medians in seconds; a ratio is the median of the rounds' own ratios. Packer writes \
         an uncompressed disk and tests nothing; virt-customize boots nothing of the image, and its compressed copy is \
         counted because a sealed image is compressed too.\n\n",
    );
    for (name, value) in &record.machine {
        writeln!(text, "- {name}: {value}")?;
    }
    let states = record.rounds.iter().map(|round| format!("{} of {}", round.commit, round.date));
    let states: std::collections::BTreeSet<String> = states.collect();
    writeln!(text, "- goldsmith: {}", states.into_iter().collect::<Vec<_>>().join(", "))?;
    budgets(record, &mut text)?;
    text.push_str("\n## All measurements\n\n| what | median | least | most | rounds |\n|---|---|---|---|---|\n");
    let names: std::collections::BTreeSet<&String> =
        record.rounds.iter().flat_map(|round| round.values.keys()).collect();
    for name in names {
        let values = record.values(name);
        let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(l, m), &value| (value.min(l), value.max(m)));
        if let Some(middle) = median(values.clone()) {
            writeln!(text, "| {name} | {middle:.2} | {least:.2} | {most:.2} | {} |", values.len())?;
        }
    }
    let path = root().join(TABLE);
    // What a person has written stays.
    if let Some((_, notes)) = fs_err::read_to_string(&path).unwrap_or_default().split_once(NOTES) {
        text.push_str(NOTES);
        text.push_str(notes);
    }
    Ok(fs_err::write(path, text)?)
}

/// Begins the part of the table's file that is written by hand.
const NOTES: &str = "\n## Notes\n";

/// Where a budget's value comes from.
#[derive(Clone, Copy)]
enum Taken {
    /// The median of a measurement, with its unit.
    Median(&'static str, &'static str),
    /// How many times longer the first takes than the second.
    Ratio(&'static str, &'static str),
}

/// Which values keep a promise.
#[derive(Clone, Copy)]
enum Keeps {
    AtMost(f64),
    AtLeast(f64),
}

use Keeps::{AtLeast, AtMost};
use Taken::{Median, Ratio};

/// What is promised.
const BUDGETS: [(&str, Taken, Keeps); 17] = [
    ("build VM ready, checkpoint present", Median("ready, warm", "s"), AtMost(1.0)),
    ("… against a cold boot", Ratio("ready, cold", "ready, warm"), AtLeast(30.0)),
    ("… with a QEMU without mapped-ram", Median("ready, warm, QEMU 7.2", "s"), AtMost(1.5)),
    ("checkpoint of a 1 GiB guest", Median("checkpoint", "s"), AtMost(0.6)),
    ("trivial build, warm, no test: against Packer", Ratio("packer", "warm"), AtLeast(12.0)),
    ("… against virt-customize with its compressed copy", Ratio("virt-customize", "warm"), AtLeast(4.0)),
    ("from nothing cached, with the test: against Packer without one", Ratio("packer", "tested cold"), AtLeast(1.0)),
    ("nginx, last component edited, beside its test stage", Median("nginx, without its test stage", "s"), AtMost(5.0)),
    ("unchanged recipe", Median("unchanged", "s"), AtMost(0.3)),
    ("last of 1 component changed, beside its own time", Median("last of 1, without its own time", "s"), AtMost(5.0)),
    ("last of 5", Median("last of 5, without its own time", "s"), AtMost(5.0)),
    ("last of 20", Median("last of 20, without its own time", "s"), AtMost(5.0)),
    ("goldsmith's own memory while building", Median("memory of goldsmith (MiB)", "MiB"), AtMost(100.0)),
    ("stream-optimised VMDK: against qemu-img", Ratio("export vmdk by qemu-img", "export vmdk"), AtLeast(3.0)),
    ("… and its size", Ratio("export vmdk (MiB)", "export vmdk by qemu-img (MiB)"), AtMost(1.05)),
    ("all formats together: against the slowest alone", Ratio("export all", "export the slowest alone"), AtMost(1.3)),
    ("goldsmith's own memory while exporting", Median("export memory of goldsmith (MiB)", "MiB"), AtMost(100.0)),
];

fn budgets(record: &Record, text: &mut String) -> Result<()> {
    text.push_str("\n## Budgets\n\n| what | budget | measured | |\n|---|---|---|---|\n");
    for (what, from, keeps) in BUDGETS {
        let (value, unit) = match from {
            Median(name, unit) => (record.median(name), unit),
            Ratio(slow, quick) if matches!(keeps, AtLeast(_)) => (record.ratio(slow, quick), "times quicker"),
            Ratio(one, other) => (record.ratio(one, other), "times as much"),
        };
        let (promise, holds): (String, fn(f64, f64) -> bool) = match keeps {
            AtMost(bound) => (format!("at most {bound} {unit}"), |value, bound| value <= bound),
            AtLeast(bound) => (format!("at least {bound} {unit}"), |value, bound| value >= bound),
        };
        let (AtMost(bound) | AtLeast(bound)) = keeps;
        let (shown, verdict) = match value {
            Some(value) if holds(value, bound) => (format!("{value:.2}"), "holds"),
            Some(value) => (format!("{value:.2}"), "**misses**"),
            None => ("not measured".to_owned(), ""),
        };
        writeln!(text, "| {what} | {promise} | {shown} | {verdict} |")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_pairs() {
        let round = |values: &[(&str, f64)]| {
            let values = values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
            Round { values, ..Round::default() }
        };
        let rounds = vec![
            round(&[("a", 10.0), ("b", 5.0)]),
            round(&[("a", 30.0), ("b", 10.0)]),
            round(&[("b", 1.0)]),
            round(&[("a", 8.0), ("b", 1.0)]),
        ];
        let record = Record { machine: Vec::new(), rounds };
        assert_eq!((record.ratio("a", "b"), record.median("a")), (Some(3.0), Some(10.0)));
        assert_eq!((record.ratio("a", "c"), record.median("c")), (None, None));
    }
}
