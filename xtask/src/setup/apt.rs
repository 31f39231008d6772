//! Installing with apt.
//!
//! **A trap.** On a Debian host qemu-utils may be there from the backports suite while only the stable suite is enabled.
//! Stable's qemu-system is older, and the newer qemu-utils `Breaks` it, so a plain installation is refused. The version
//! that fits lies in the suite that qemu-utils came from; so, when apt refuses, that suite of the mirror that the host
//! already uses is added, and the packages are taken from there.

use std::io::Write;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use super::privileged;
use crate::shell::{self, output, say};

const ADDED: &str = "/etc/apt/sources.list.d/goldsmith-backports.sources";

/// Installs packages.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    update()?;
    if is_possible(&[], packages) {
        return get(&[], packages);
    }
    let suite = backports_in_use()?;
    say(&format!(
        "set-up: apt refuses these packages beside what is installed: QEMU's programs come from {suite}, so the rest of \
         QEMU has to come from there too"
    ));
    let from = ["-t", suite.as_str()];
    if !is_possible(&from, packages) {
        add_suite(&suite)?;
        update()?;
    }
    get(&from, packages)
}

fn update() -> Result<()> {
    shell::run("set-up: apt-get update", privileged(&["apt-get", "update", "-qq"])?.stdout(Stdio::null()))
}

/// Nothing that is there may go: apt would otherwise remove a newer qemu-utils to make room for an older qemu-system.
const INSTALL: [&str; 5] = ["install", "-y", "-qq", "--no-install-recommends", "--no-remove"];

fn is_possible(from: &[&str], packages: &[&str]) -> bool {
    let mut command = shell::command("apt-get");
    output(command.args(INSTALL).arg("--simulate").args(from).args(packages)).is_some()
}

fn get(from: &[&str], packages: &[&str]) -> Result<()> {
    let mut command = privileged(&["apt-get"])?;
    let what = format!("set-up: apt-get install {}{}", from.join(" "), if from.is_empty() { "" } else { " …" });
    shell::run(what.trim_end(), command.args(INSTALL).args(from).args(packages).stdout(Stdio::null()))
}

/// The backports suite that one of QEMU's installed packages comes from, by its version's `~bpo`.
fn backports_in_use() -> Result<String> {
    let mut query = shell::command("dpkg-query");
    let versions = output(query.args(["-W", "-f", "${Package} ${Version}\\n", "qemu-*"])).unwrap_or_default();
    if !versions.lines().any(|line| line.contains("~bpo")) {
        bail!("set-up: apt can't install what is missing; see what `apt-get install` itself says about it");
    }
    let release = fs_err::read_to_string("/etc/os-release")?;
    let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let codename = codename.context("set-up: /etc/os-release names no codename")?.trim_matches('"');
    Ok(format!("{codename}-backports"))
}

/// Adds a suite of the mirror that the host already uses.
fn add_suite(suite: &str) -> Result<()> {
    let mut query = shell::command("apt-get");
    let format = "$(CODENAME) $(SITE) $(SIGNED_BY)";
    let targets = output(query.args(["indextargets", "--format", format, "Created-By: Packages"]));
    let targets = targets.context("set-up: apt names no package sources")?;
    let codename = suite.trim_end_matches("-backports");
    let mut fields = targets.lines().map(|line| line.splitn(3, ' ').collect::<Vec<_>>());
    let main = fields.find(|fields| fields[0] == codename).context("set-up: apt has no source of this release")?;
    let mut source = format!("Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\n", main[1]);
    // apt leaves the field's name where a source names no keys; keys may also be written out, which a line can't hold.
    if let Some(keys) = main.get(2).filter(|keys| keys.starts_with('/')) {
        source.push_str(&format!("Signed-By: {keys}\n"));
    }
    say(&format!("set-up: adding {suite} of the mirror that this host uses, in {ADDED}"));
    let mut tee = privileged(&["tee", ADDED])?;
    let mut tee = tee.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    tee.stdin.take().context("tee has no input")?.write_all(source.as_bytes())?;
    if !tee.wait()?.success() {
        bail!("set-up: {ADDED} can't be written");
    }
    Ok(())
}
