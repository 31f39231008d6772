//! Whether a finished image is ready for the clouds: what is on its disk, judged row by row.
//!
//! ```text
//!   sealed disk ──own readers──► partition table, boot code ──┐
//!       │                                                     ├─► Facts ──judge──► Report: 25 checks, each with a
//!       └─attached, read only─► a throw-away guest            │                    verdict, the reason, the mend
//!           └ its kernel mounts the file systems,             │
//!             its tools list and pack what is asked for ──────┘
//! ```
//!
//! [`inspector`] reads, everything else is a function of [`facts::Facts`]. A file system that means harm meets the kernel
//! of a guest that is thrown away; the host parses partition tables, listings and archives, all of them bounded.
//!
//! What can go wrong at an import, and the numbers of the checks, are from AWS's "VM Import/Export User Guide", the
//! sections on requirements, limitations and troubleshooting; what the other targets need is what their instance types
//! have for disks, network cards and metadata.

mod boot;
mod cloud;
pub mod facts;
mod identity;
pub mod inspector;
mod network;
mod storage;
pub mod tree;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::machine::console::plain;
use facts::Facts;

/// Where an image is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Amazon EC2.
    Aws,
    /// Microsoft Azure.
    Azure,
    /// Google Compute Engine.
    Gcp,
    /// VMware vSphere.
    Vmware,
    /// Proxmox VE.
    Proxmox,
    /// Any QEMU, as libvirt sets it up.
    Libvirt,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Aws, Self::Azure, Self::Gcp, Self::Vmware, Self::Proxmox, Self::Libvirt];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::Azure => "azure",
            Self::Gcp => "gcp",
            Self::Vmware => "vmware",
            Self::Proxmox => "proxmox",
            Self::Libvirt => "libvirt",
        }
    }

    /// Whether a system there may start from an NVMe disk, which no other hypervisor of today makes it do.
    pub fn has_nvme(self) -> bool {
        matches!(self, Self::Aws | Self::Azure | Self::Gcp)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|target| target.name() == text);
        found.ok_or_else(|| format!("known are {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// What is thought of something; what matters more comes later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It was not looked at.
    Skipped,
    /// It is as it should be.
    Pass,
    /// The image works, with a drawback, or not everywhere.
    Warn,
    /// The image does not work there, or must not leave the house.
    Fail,
}

impl Verdict {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Skipped => "skipped",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// Something that a check has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What is thought of it.
    pub verdict: Verdict,
    /// Why.
    pub reason: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// A reason is a line; what a disk says of itself may be longer.
const LONGEST_REASON: usize = 300;
/// One check finds no more than this: a disk can have any number of faults of one kind.
const MOST_FINDINGS: usize = 12;

/// What a check finds while it looks.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, verdict: Verdict, reason: &str, mend: Option<&str>) {
        // Both may quote the disk.
        let shown = |text: &str| plain(text).chars().take(LONGEST_REASON).collect();
        self.0.push(Finding { verdict, reason: shown(reason), mend: mend.map(shown) });
    }

    fn fail(&mut self, reason: impl AsRef<str>, mend: &str) {
        self.add(Verdict::Fail, reason.as_ref(), Some(mend));
    }

    fn warn(&mut self, reason: impl AsRef<str>, mend: &str) {
        self.add(Verdict::Warn, reason.as_ref(), Some(mend));
    }

    /// Nothing was looked at.
    fn skipped(reason: impl AsRef<str>) -> Self {
        let mut findings = Self::default();
        findings.add(Verdict::Skipped, reason.as_ref(), None);
        findings
    }

    /// If nothing is wrong, this is why.
    fn or_pass(mut self, reason: impl AsRef<str>) -> Self {
        if self.0.is_empty() {
            self.add(Verdict::Pass, reason.as_ref(), None);
        }
        self
    }
}

/// One of the checks.
#[derive(Debug)]
pub struct Check {
    /// Its number.
    pub number: u8,
    /// Its name.
    pub name: &'static str,
    /// What has to be so.
    pub wants: &'static str,
    /// What happens in a cloud otherwise.
    pub prevents: &'static str,
    run: fn(&Facts, Target) -> Findings,
}

/// The checks in the order of their numbers.
pub static CHECKS: [Check; 25] = [
    Check {
        number: 1,
        name: "partition table",
        wants: "a GPT, both copies whole and the second at the disk's end, or an MBR; no overlap",
        prevents: "`No bootable partition found`",
        run: storage::partition_table,
    },
    Check {
        number: 2,
        name: "boot path",
        wants: "GRUB's core image where its boot sector looks for it, or the fallback path on the EFI system partition",
        prevents: "an instance that never starts: variables of the firmware do not travel with a disk",
        run: boot::boot_path,
    },
    Check {
        number: 3,
        name: "root file system",
        wants: "one, of a kind that can be imported, shut down cleanly",
        prevents: "`Unknown OS / Missing OS files`, a file system check at the first start",
        run: storage::root_file_system,
    },
    Check {
        number: 4,
        name: "one system",
        wants: "no encryption, no second `/etc`, one boot menu",
        prevents: "`Multiple directories found`, `Multiple different grub/menu.lst files found`",
        run: storage::one_system,
    },
    Check {
        number: 5,
        name: "fstab",
        wants: "file systems named by UUID, LABEL or PARTUUID, all of them there; nothing of another hypervisor's",
        prevents: "emergency mode where disks have other names, `Could not read fstab`",
        run: storage::fstab,
    },
    Check {
        number: 6,
        name: "kernel command line",
        wants: "a root that is there, named by UUID, LABEL or PARTUUID; a serial console",
        prevents: "a kernel that finds no root, an empty console log",
        run: boot::command_line,
    },
    Check {
        number: 7,
        name: "initramfs",
        wants: "the drivers of the target's disks in the initial RAM disk or in the kernel",
        prevents: "a kernel that finds no root on Nitro; `unable to read your import's initramfs`",
        run: boot::initramfs,
    },
    Check {
        number: 8,
        name: "network drivers",
        wants: "the drivers of the target's network cards for the kernel that is started",
        prevents: "an instance without a network",
        run: boot::network_drivers,
    },
    Check {
        number: 9,
        name: "boot menu",
        wants: "a default entry whose kernel and initial RAM disk are there; a short wait; a serial terminal",
        prevents: "`BLSC-style GRUB found, but unable to detect default kernel`, a wait at a menu nobody sees",
        run: boot::menu,
    },
    Check {
        number: 10,
        name: "links across partitions",
        wants: "no relative link in /boot that leads into another file system",
        prevents: "imports and exports that fail, as with /boot/grub2/grubenv on the EFI system partition",
        run: storage::links_across,
    },
    Check {
        number: 11,
        name: "cloud-init",
        wants: "cloud-init enabled, with the target's data source, and nothing of an earlier instance",
        prevents: "no key to log in with, no host name, a root that does not grow",
        run: cloud::cloud_init,
    },
    Check {
        number: 12,
        name: "network",
        wants: "an address by DHCP on the first card, whatever its name; none that is fixed",
        prevents: "an instance that can't be reached",
        run: network::addresses,
    },
    Check {
        number: 13,
        name: "ssh",
        wants: "a server that is started, makes its own host keys, and lets nobody in as root by password",
        prevents: "an instance that can't be reached, or by everybody",
        run: network::ssh,
    },
    Check {
        number: 14,
        name: "left-overs",
        wants: "no key, password, identity, history, proxy or secret of the build",
        prevents: "copies that share an identity, and images that anybody can log in to (CVE-2024-9486)",
        run: identity::left_overs,
    },
    Check {
        number: 15,
        name: "guest agents",
        wants: "none of another hypervisor's",
        prevents: "services that fail, complaints at an import",
        run: cloud::guest_agents,
    },
    Check {
        number: 16,
        name: "time",
        wants: "a time service that is started; a clock in UTC",
        prevents: "requests that are refused because their signatures have the wrong time",
        run: cloud::time,
    },
    Check {
        number: 17,
        name: "listed system",
        wants: "a system and kernel on the list of ImportImage, where that is used",
        prevents: "`Unsupported kernel version`",
        run: cloud::listed_system,
    },
    Check {
        number: 18,
        name: "size",
        wants: "whole GiB, not more than the target takes, some space free",
        prevents: "imports that are refused or padded, a first start that fills the disk",
        run: storage::size,
    },
    Check {
        number: 19,
        name: "format",
        wants: "the container that the target takes",
        prevents: "`Unsupported VMDK File Format`, `Footers not identical`",
        run: storage::format,
    },
    Check {
        number: 20,
        name: "architecture",
        wants: "x86-64",
        prevents: "`ImportImage` takes nothing else; a machine of another architecture starts nothing of it",
        run: boot::architecture,
    },
    Check {
        number: 21,
        name: "secure boot",
        wants: "a shim on the fallback path with what it starts beside it, where secure boot is asked for",
        prevents: "firmware that starts nothing",
        run: boot::secure_boot,
    },
    Check {
        number: 22,
        name: "metadata with tokens",
        wants: "cloud-init of 19.4 or later where IMDSv2 is required",
        prevents: "metadata that are refused: no key, no user data",
        run: cloud::metadata_tokens,
    },
    Check {
        number: 23,
        name: "name servers",
        wants: "no name server of the build's network",
        prevents: "no name resolution",
        run: network::name_servers,
    },
    Check {
        number: 24,
        name: "SELinux",
        wants: "labels on all files, or a relabelling at the next start, where it enforces",
        prevents: "logins that fail",
        run: cloud::selinux,
    },
    Check {
        number: 25,
        name: "boot proof",
        wants: "these very bytes have passed their test, and come up from an NVMe disk where the target has such",
        prevents: "everything above that was not thought of",
        run: boot::proof,
    },
];

/// What a check has come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The check's number.
    pub number: u8,
    /// Its name.
    pub name: &'static str,
    /// The worst that it has found.
    pub verdict: Verdict,
    /// What happens in a cloud if it fails.
    pub prevents: &'static str,
    /// What it has found.
    pub findings: Vec<Finding>,
}

/// What firmware finds on a disk, and what its system can drive: what a cloud has to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootPaths {
    /// Whether a BIOS starts it.
    pub bios: bool,
    /// Whether UEFI starts it.
    pub uefi: bool,
    /// Whether it has a driver for EC2's network card.
    pub ena: bool,
}

/// What all checks have come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Where the image is to run; anywhere if nobody has said.
    pub target: Option<Target>,
    /// What was found of the ways to start it.
    #[serde(skip)]
    pub boot: BootPaths,
    /// In the order of their numbers.
    pub checks: Vec<Outcome>,
}

impl Report {
    /// How many have come to something.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.checks.iter().filter(|check| check.verdict == verdict).count()
    }

    /// Why the image must not be published, if so.
    pub fn refusal(&self) -> Option<String> {
        let failed: Vec<String> = self
            .checks
            .iter()
            .flat_map(|check| check.findings.iter().map(move |finding| (check, finding)))
            .filter(|(_, finding)| finding.verdict == Verdict::Fail)
            .map(|(check, finding)| format!("{}: {}", check.name, finding.reason))
            .collect();
        (!failed.is_empty()).then(|| failed.join("; "))
    }
}

/// Judges what was read of a disk. Without a target, what would fail in some clouds only is a warning.
pub fn judge(facts: &Facts, target: Option<Target>) -> Report {
    let checks = CHECKS.iter().map(|check| {
        let mut findings = match target {
            Some(target) => (check.run)(facts, target).0,
            None => anywhere(check, facts),
        };
        let verdict = findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Pass);
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.verdict));
        if findings.len() > MOST_FINDINGS {
            let more = findings.len() - MOST_FINDINGS;
            findings.truncate(MOST_FINDINGS);
            findings.push(Finding { verdict, reason: format!("and {more} more of the kind"), mend: None });
        }
        Outcome { number: check.number, name: check.name, verdict, prevents: check.prevents, findings }
    });
    Report { target, boot: boot::paths(facts), checks: checks.collect() }
}

/// What a check finds for all targets, and for some.
fn anywhere(check: &Check, facts: &Facts) -> Vec<Finding> {
    let each = Target::ALL.map(|target| (check.run)(facts, target).0);
    let mut found: Vec<(Finding, Vec<&str>)> = Vec::new();
    for (target, findings) in Target::ALL.iter().zip(each) {
        for finding in findings {
            match found.iter_mut().find(|(known, _)| *known == finding) {
                Some((_, targets)) => targets.push(target.name()),
                None => found.push((finding, vec![target.name()])),
            }
        }
    }
    let is_bad = |finding: &Finding| finding.verdict >= Verdict::Warn;
    if found.iter().any(|(finding, _)| is_bad(finding)) {
        found.retain(|(finding, _)| is_bad(finding));
    }
    let judged = found.into_iter().map(|(mut finding, targets)| {
        if targets.len() < Target::ALL.len() {
            finding.verdict = finding.verdict.min(Verdict::Warn);
            finding.reason = format!("{}: {}", targets.join(", "), finding.reason);
        }
        finding
    });
    judged.collect()
}

#[cfg(test)]
mod tests;
