//! Installing what goldsmith needs on the host, with the host's own package manager.
//!
//! Only what is missing is installed, and said before. What a package manager can't bring, such as a device that guests'
//! networks need, is mended in [`host`].

mod apt;
mod host;
mod needs;
mod old_qemu;

use std::process::Command;

use anyhow::{Result, bail};

use crate::shell::{self, find, say};
use needs::{Manager, NEEDS, Need};
pub(crate) use old_qemu::FOLDER as OLD_QEMU;

/// What the host is made ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Building images.
    Use,
    /// Testing goldsmith.
    Test,
    /// Comparing it with its peers.
    Bench,
}

/// Installs what is missing.
pub(crate) fn run(purpose: Purpose) -> Result<()> {
    let is_wanted = |need: &&Need| need.purpose == Purpose::Use || need.purpose == purpose;
    if purpose != Purpose::Use {
        old_qemu::get();
    }
    let missing: Vec<&Need> = NEEDS.iter().filter(is_wanted).filter(|need| !need.is_here()).collect();
    if missing.is_empty() {
        say("set-up: all programs are here");
    } else {
        install(&missing)?;
    }
    host::prepare(purpose)?;
    // A bench without a peer says so.
    let is_needed = |need: &&Need| is_wanted(need) && need.purpose != Purpose::Bench;
    if let Some(need) = NEEDS.iter().filter(is_needed).find(|need| !need.is_here()) {
        bail!("set-up: {} is still missing after the installation", need.what);
    }
    Ok(())
}

fn install(missing: &[&Need]) -> Result<()> {
    let what: Vec<&str> = missing.iter().map(|need| need.what).collect();
    let Some(manager) = Manager::ALL.into_iter().find(|manager| find(manager.program()).is_some()) else {
        bail!("set-up: none of apt-get, dnf, zypper and pacman is here; install by hand: {}", what.join(", "));
    };
    let mut packages: Vec<&str> = Vec::new();
    for need in missing {
        match need.package(manager) {
            Some(package) if !packages.contains(&package) => packages.push(package),
            Some(_) => {}
            None => say(&format!("set-up: {} has no package of {}; install it by hand", manager.program(), need.what)),
        }
    }
    say(&format!("set-up: installing {} with {}", packages.join(" "), manager.program()));
    match manager {
        Manager::Apt => apt::install(&packages),
        Manager::Dnf => shell::run("set-up: dnf", privileged(&["dnf", "install", "-y"])?.args(&packages)),
        Manager::Zypper => {
            let command = ["zypper", "--non-interactive", "install", "--no-recommends"];
            shell::run("set-up: zypper", privileged(&command)?.args(&packages))
        }
        Manager::Pacman => {
            let command = ["pacman", "-S", "--needed", "--noconfirm"];
            shell::run("set-up: pacman", privileged(&command)?.args(&packages))
        }
    }
}

/// A command run as root, by sudo where this user is not root.
fn privileged(words: &[&str]) -> Result<Command> {
    let mut all = words.to_vec();
    if !rustix::process::geteuid().is_root() {
        if find("sudo").is_none() {
            bail!("set-up: this needs root: {}", words.join(" "));
        }
        all.insert(0, "sudo");
    }
    let mut command = shell::command(all[0]);
    // sudo may have to ask for a password.
    command.args(&all[1..]).stdin(std::process::Stdio::inherit()).env("DEBIAN_FRONTEND", "noninteractive");
    Ok(command)
}
