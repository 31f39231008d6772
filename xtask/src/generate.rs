//! Files that are made from the code: the command-line reference.

use anyhow::{Context, Result, bail};

use crate::shell::{self, goldsmith, output, root, say};

const REFERENCE: &str = "docs/reference.md";

/// Writes the files, or only compares them.
pub(crate) fn run(check: bool) -> Result<()> {
    // With the tests beside it, because these want more of the crates below the AWS SDK, which would else be compiled twice.
    let mut build = shell::cargo();
    shell::run(
        "cargo build",
        build.args(["build", "--package", "goldsmith", "--bin", "goldsmith", "--test", "tests"]),
    )?;
    let reference = output(shell::command(goldsmith()).arg("__reference").env("COLUMNS", "100"));
    let reference = reference.context("goldsmith could not write its reference")?;
    let path = root().join(REFERENCE);
    if fs_err::read_to_string(&path).unwrap_or_default() == reference {
        say(&format!("{REFERENCE} is up to date"));
        return Ok(());
    }
    if check {
        bail!("{REFERENCE} is not up to date; run `cargo xtask generate`");
    }
    fs_err::write(&path, reference)?;
    say(&format!("{REFERENCE} is written"));
    Ok(())
}
