//! `goldsmith doctor`: what this host can do, and the exact command that mends what it can't.

use clap::Args;
use serde::Serialize;

use super::output::{BAD, BOLD, GOOD, WARN, size};
use super::report::CliError;
use super::{Accelerator, Context};
use crate::host::{file, process};
use crate::machine::accelerator;
use crate::machine::firmware::{self, Firmware};
use crate::machine::isolation::Isolation;
use crate::machine::{Error, Qemu};

/// Say what this host can do, and how to mend what it can't
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Boot a base image and say how long it took
    #[arg(long)]
    selftest: bool,
    /// The base image to boot
    #[arg(long, value_name = "NAME", default_value = "debian-12-minimal", requires = "selftest")]
    base: String,
    /// What the guest of the self-test runs on
    #[arg(long, value_enum, default_value_t, requires = "selftest")]
    accel: Accelerator,
}

/// How well something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Health {
    Good,
    /// goldsmith works, with a drawback.
    Warning,
    /// goldsmith does not work.
    Bad,
}

#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    health: Health,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

/// Less than this, in bytes, is soon used up by a build.
const LITTLE_SPACE: u64 = 10 << 30;

/// Programs that goldsmith runs: name, Debian package, whether nothing goes without it, and what for.
const PROGRAMS: [(&str, &str, bool, &str); 7] = [
    ("qemu-img", "qemu-utils", true, "disks"),
    ("mmdebstrap", "mmdebstrap", false, "base images made from packages"),
    ("mke2fs", "e2fsprogs", false, "base images made from packages"),
    ("newuidmap", "uidmap", false, "base images made from packages by an ordinary user"),
    ("pasta", "passt", false, "keeping guests away from this host"),
    ("ip", "iproute2", false, "keeping guests away from this host"),
    ("setpriv", "util-linux", false, "keeping guests away from this host"),
];

pub(super) async fn run(arguments: Arguments, context: &Context) -> Result<(), CliError> {
    let store = context.store()?;
    let mut findings = programs();
    findings.extend(qemu().await);
    findings.push(kvm(store.host_folder().as_path()).await);
    findings.push(uefi());
    findings.push(space(store.root())?);
    let tested = if arguments.selftest { Some(self_test(&arguments, context, &mut findings).await) } else { None };
    if context.output.json {
        context.output.json(&findings)?;
    } else {
        findings.iter().for_each(|finding| show(finding, context));
    }
    // The self-test's own failure says more than that the host is not ready.
    tested.unwrap_or(Ok(()))?;
    let is_ready = findings.iter().all(|finding| finding.health != Health::Bad);
    if is_ready { Ok(()) } else { Err(CliError::NotReady) }
}

fn show(finding: &Finding, context: &Context) {
    let (style, word) = match finding.health {
        Health::Good => (GOOD, "good"),
        Health::Warning => (WARN, "warning"),
        Health::Bad => (BAD, "missing"),
    };
    context.output.result(&format!("{BOLD}{:<12}{BOLD:#} {style}{word:<8}{style:#} {}", finding.name, finding.what));
    if let Some(mend) = &finding.mend {
        context.output.result(&format!("{:<12} mend:    {mend}", ""));
    }
}

/// The command that installs a Debian package, by the host's own package manager where the name is the same.
fn install(package: &str) -> String {
    if process::find("apt-get").is_some() {
        return format!("sudo apt-get install {package}");
    }
    format!(
        "install the package that Debian calls {package}; `cargo xtask setup` knows its name in other distributions"
    )
}

fn programs() -> Vec<Finding> {
    let missing = PROGRAMS.iter().filter(|(program, ..)| process::find(program).is_none());
    let findings = missing.map(|(program, package, is_vital, purpose)| Finding {
        name: "programs",
        health: if *is_vital { Health::Bad } else { Health::Warning },
        what: format!("`{program}` is not installed; it is needed for {purpose}"),
        mend: Some(install(package)),
    });
    let mut findings: Vec<Finding> = findings.collect();
    if findings.is_empty() {
        let what = "all that goldsmith runs is installed".to_owned();
        findings.push(Finding { name: "programs", health: Health::Good, what, mend: None });
    }
    findings
}

async fn qemu() -> Vec<Finding> {
    let qemu = match Qemu::find().await {
        Ok(qemu) => qemu,
        Err(error @ Error::NoQemu) => {
            let mend = Some(install("qemu-system-x86"));
            return vec![Finding { name: "qemu", health: Health::Bad, what: error.to_string(), mend }];
        }
        Err(error) => {
            let mend = Some("see what it says when it is started by hand".to_owned());
            return vec![Finding { name: "qemu", health: Health::Bad, what: error.to_string(), mend }];
        }
    };
    let mut findings = vec![version(&qemu).await];
    findings.push(match &qemu.isolation {
        Isolation::Isolated(_) => {
            let what = "guests reach neither this host's loopback nor link-local addresses".to_owned();
            Finding { name: "isolation", health: Health::Good, what, mend: None }
        }
        Isolation::Open { reason, mend } => Finding {
            name: "isolation",
            health: Health::Warning,
            what: format!("guests can reach this host's loopback and a cloud's metadata: {reason}"),
            mend: Some(mend.clone()),
        },
    });
    findings
}

/// The oldest QEMU that is tried: Debian 12's.
const OLDEST: (u32, u32) = (7, 2);

async fn version(qemu: &Qemu) -> Finding {
    match qemu.ask_version().await {
        Ok(version) => {
            let is_old = (version.major, version.minor) < OLDEST;
            let sandbox = if qemu.has_sandbox() { "with its sandbox" } else { "built without its sandbox" };
            let what = format!("QEMU {version}, {sandbox}, at {}", qemu.program().display());
            let mend = is_old.then(|| "use QEMU 7.2 or newer".to_owned());
            Finding { name: "qemu", health: if is_old { Health::Warning } else { Health::Good }, what, mend }
        }
        Err(error) => {
            let what = format!("QEMU does not start: {error}");
            Finding { name: "qemu", health: Health::Bad, what, mend: Some("install it again".to_owned()) }
        }
    }
}

async fn kvm(remembered: &std::path::Path) -> Finding {
    let verdict = accelerator::kvm(remembered).await;
    if verdict.usable {
        return Finding {
            name: "kvm",
            health: Health::Good,
            what: format!("KVM works: {}", verdict.reason),
            mend: None,
        };
    }
    let what = format!("KVM does not work, so guests are emulated and slow: {}", verdict.reason);
    Finding { name: "kvm", health: Health::Warning, what, mend: verdict.mend }
}

fn uefi() -> Finding {
    match firmware::find_uefi() {
        Some(Firmware::Uefi { code, .. }) => {
            let what = format!("UEFI firmware at {}", code.display());
            Finding { name: "firmware", health: Health::Good, what, mend: None }
        }
        _ => {
            let what = "there is no UEFI firmware for guests; BIOS is there".to_owned();
            Finding { name: "firmware", health: Health::Warning, what, mend: Some(install("ovmf")) }
        }
    }
}

fn space(root: &std::path::Path) -> Result<Finding, CliError> {
    let free = file::free_space(root)?;
    let what = format!("{} free for the store at {}", size(free), root.display());
    let is_little = free < LITTLE_SPACE;
    let mend = is_little.then(|| "goldsmith gc".to_owned());
    Ok(Finding { name: "space", health: if is_little { Health::Warning } else { Health::Good }, what, mend })
}

async fn self_test(arguments: &Arguments, context: &Context, findings: &mut Vec<Finding>) -> Result<(), CliError> {
    let test = context.factory(arguments.accel)?.self_test(&arguments.base).await?;
    let what = format!(
        "{} booted with {}: its agent answered after {:.1} s, cloud-init had finished after {:.1} s",
        arguments.base,
        test.accelerator.qemu_name(),
        test.agent_seconds,
        test.ready_seconds
    );
    findings.push(Finding { name: "selftest", health: Health::Good, what, mend: None });
    Ok(())
}
