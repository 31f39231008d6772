//! `cargo xtask bench`: goldsmith and its peers, on the same parent and the same work, in one run.
//!
//! ```text
//!   prepare: release build, parent, seed and keys for peers, one build of every recipe so that layers are there
//!      │
//!   round 1 … N: every measurement once, one after another ──► docs/benchmarks.json, after each round
//!      │
//!   medians, and ratios of the pairs of each round ──► docs/benchmarks.md
//! ```
//!
//! Machines differ, and this one may be busy; so nothing is compared but what was measured in the same round.

mod export;
mod goldsmith;
mod peers;
mod table;

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::setup::{self, Purpose};
use crate::shell::{self, say, target};

/// What to measure
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many rounds
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Only measurements whose names contain one of these
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Data on the parents that show how cost grows, in GB
    #[arg(long, value_delimiter = ',', default_value = "1,5,20")]
    sizes: Vec<u64>,
    /// Add to what was measured on this machine before, instead of beginning anew
    #[arg(long)]
    add: bool,
    /// Only write the table again
    #[arg(long)]
    table: bool,
}

/// Where a measurement puts what it found.
pub(super) type Found = Vec<(String, f64)>;

/// What all measurements share.
pub(super) struct Bench {
    /// Where everything is kept between rounds.
    pub(super) folder: PathBuf,
    /// The parent's disk.
    pub(super) parent: PathBuf,
    pub(super) accelerator: String,
    pub(super) sizes: Vec<u64>,
}

/// Measures, and writes what was found.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.table {
        return table::write(&table::read()?.context("nothing was measured yet")?);
    }
    setup::run(Purpose::Bench)?;
    shell::run("release build", shell::cargo().args(["build", "--release", "--quiet"]))?;
    let folder = target().join("bench");
    fs_err::create_dir_all(&folder)?;
    let mut bench =
        Bench { folder, parent: PathBuf::new(), accelerator: String::new(), sizes: arguments.sizes.clone() };
    bench.prepare()?;
    let mut record = table::Record::of(&bench)?;
    if arguments.add
        && let Some(before) = table::read()?
    {
        record.rounds = before.rounds;
    }
    for number in 1..=arguments.runs {
        record.rounds.push(table::Round::begin());
        for (name, measure) in measurements() {
            let is_wanted = arguments.only.is_empty() || arguments.only.iter().any(|only| name.contains(only));
            if !is_wanted {
                continue;
            }
            say(&format!("round {number}: {name}"));
            let found = measure(&bench);
            let Some(round) = record.rounds.last_mut() else { continue };
            match found {
                Ok(found) => {
                    for (name, value) in found {
                        say(&format!("round {number}: {name}: {value:.2}"));
                        round.values.insert(name, value);
                    }
                }
                Err(error) => {
                    say(&format!("round {number}: {name} can't be measured: {error:#}"));
                    round.failures.push(name.to_owned());
                }
            }
            table::save(&record)?;
        }
    }
    table::write(&record)
}

type Measure = fn(&Bench) -> Result<Found>;

/// All measurements, in the order of a round: peers stand beside what they are compared with.
fn measurements() -> Vec<(&'static str, Measure)> {
    vec![
        ("packer", peers::packer),
        ("virt-customize", peers::virt_customize),
        ("warm", goldsmith::warm),
        ("cold", goldsmith::cold),
        ("unchanged", goldsmith::unchanged),
        ("last of 1", |bench| goldsmith::last_of(bench, 1)),
        ("last of 5", |bench| goldsmith::last_of(bench, 5)),
        ("last of 20", |bench| goldsmith::last_of(bench, 20)),
        ("nginx", goldsmith::nginx),
        ("tested cold", goldsmith::tested_cold),
        ("export", export::export),
        ("old qemu", goldsmith::old_qemu),
        ("parents", goldsmith::parents),
    ]
}
