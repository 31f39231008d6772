//! Running programs, and saying so.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// The checkout.
pub(crate) fn root() -> PathBuf {
    // This package's folder is one below.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Where cargo builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The built goldsmith.
pub(crate) fn goldsmith() -> PathBuf {
    target().join("debug/goldsmith")
}

/// Says what comes next.
#[allow(clippy::print_stderr)]
pub(crate) fn say(text: &str) {
    eprintln!("== {text}");
}

/// A command in the checkout.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).stdin(Stdio::null());
    command
}

/// The cargo that runs this task.
pub(crate) fn cargo() -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs a command to its good end, and says how long it took.
pub(crate) fn run(what: &str, command: &mut Command) -> Result<()> {
    say(what);
    let started = Instant::now();
    let status = command.status().with_context(|| format!("{what}: {command:?} can't be started"))?;
    if !status.success() {
        bail!("{what}: {command:?} failed: {status}");
    }
    say(&format!("{what}: done in {:.1} s{}", started.elapsed().as_secs_f64(), room()));
    Ok(())
}

/// What is free where cargo builds and where machines run, because a full disk looks like many other faults.
fn room() -> String {
    let free = |folder: &Path| {
        let there = rustix::fs::statvfs(folder).ok()?;
        Some(there.f_bavail.saturating_mul(there.f_frsize) >> 30)
    };
    match (free(&root()), free(Path::new("/var/tmp"))) {
        (Some(checkout), Some(machines)) => {
            format!("; free: {checkout} GiB for the checkout, {machines} GiB in /var/tmp")
        }
        _ => String::new(),
    }
}

/// What a command prints, or nothing if it fails.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Where a program is. Folders for administrators are not in every user's `PATH`.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let administrators = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(administrators).map(|folder| folder.join(program)).find(|path| path.is_file())
}
