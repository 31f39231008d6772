//! What developers and CI run, by `cargo xtask TASK`.

mod bench;
mod demo;
mod generate;
mod setup;
mod shell;
mod test;

use clap::{Parser, Subcommand};

/// Tasks of goldsmith's own development
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what goldsmith needs on this host
    Setup,
    /// Build, test and export the nginx image from nothing
    Demo,
    /// Run all checks and tests
    Test(test::Arguments),
    /// Measure goldsmith and its peers, and write docs/benchmarks.md
    Bench(bench::Arguments),
    /// Write the generated files anew: the command-line reference
    Generate {
        /// Fail if one is not up to date, and write nothing
        #[arg(long)]
        check: bool,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::Setup => setup::run(setup::Purpose::Use),
        Task::Demo => demo::run(),
        Task::Test(arguments) => test::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Generate { check } => generate::run(check),
    }
}
