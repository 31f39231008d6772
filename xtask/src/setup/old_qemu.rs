//! The QEMU of Debian 12 beside a newer one, to test and measure what a QEMU without `mapped-ram` does.
//!
//! Its packages are unpacked and not installed: a newer QEMU's `Breaks` them.

use std::path::Path;

use anyhow::{Context, Result};

use crate::shell::{self, output, say};

/// Where it is; its programs are in `bin/`.
pub(crate) const FOLDER: &str = "/var/tmp/goldsmith-qemu-7.2";
const PACKAGES: [&str; 5] = ["qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios", "ipxe-qemu"];

/// Gets it where it can be had; elsewhere what needs it says that it does not run.
pub(super) fn get() {
    if Path::new(FOLDER).exists() {
        return;
    }
    if let Err(error) = unpack() {
        say(&format!("set-up: an old QEMU can't be had here, so nothing is said of such: {error:#}"));
    }
}

fn unpack() -> Result<()> {
    let draft = tempfile::tempdir_in("/var/tmp")?;
    let root = draft.path().join("root");
    for package in PACKAGES {
        let versions = output(shell::command("apt-cache").args(["madison", package])).context("no apt")?;
        let versions = versions.lines().filter_map(|line| line.split('|').nth(1)).map(str::trim);
        let is_old =
            |version: &&str| !version.contains("~bpo") && (!package.starts_with("qemu-") || version.contains("7.2"));
        let version = versions.clone().find(is_old).with_context(|| format!("{package} is not of QEMU 7.2 here"))?;
        let mut download = shell::command("apt-get");
        let download = download.args(["download", "-qq", &format!("{package}={version}")]).current_dir(draft.path());
        output(download).with_context(|| format!("{package} can't be downloaded"))?;
    }
    for entry in fs_err::read_dir(draft.path())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            output(shell::command("dpkg").arg("-x").arg(&path).arg(&root)).context("dpkg -x")?;
            fs_err::remove_file(path)?;
        }
    }
    fs_err::create_dir(draft.path().join("bin"))?;
    let program = draft.path().join("bin/qemu-system-x86_64");
    let usr = format!("{FOLDER}/root/usr");
    let text =
        format!("#!/bin/sh\nexec {usr}/bin/qemu-system-x86_64 -L {usr}/share/seabios -L {usr}/share/qemu \"$@\"\n");
    fs_err::write(&program, text)?;
    output(shell::command("chmod").args(["-R", "a+rX", "."]).current_dir(draft.path())).context("chmod")?;
    output(shell::command("chmod").arg("755").arg(&program)).context("chmod")?;
    fs_err::rename(draft.keep(), FOLDER)?;
    say(&format!("set-up: Debian's QEMU 7.2 is in {FOLDER}, for tests and the bench"));
    Ok(())
}
