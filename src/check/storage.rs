//! Checks of what the disk is made of: its table, its file systems and where they are mounted.

use super::facts::{Facts, Mount, Volume, mounts};
use super::tree::Tree;
use super::{Findings, Target};
use crate::disk::table::Kind;
use crate::disk::{GIB, MIB};

/// EBS takes this much at a snapshot's import.
const MOST_BYTES: u64 = 16 << 40;
/// Less than this, in bytes, is soon used up by a first start.
const LITTLE_SPACE: u64 = 300 * MIB;
/// With less than this, in bytes, a first start fails.
const NO_SPACE: u64 = 32 * MIB;
/// File systems that a root is on.
const ROOT_KINDS: [&str; 5] = ["ext4", "xfs", "btrfs", "ext3", "ext2"];
/// File systems that only another hypervisor or another machine has.
const FOREIGN_KINDS: [&str; 7] = ["cifs", "smbfs", "vboxsf", "fuse.sshfs", "9p", "virtiofs", "fuse.vmhgfs-fuse"];
/// Names of disks that are others on other machines.
pub(super) const DISK_NAMES: [&str; 5] = ["/dev/sd", "/dev/vd", "/dev/xvd", "/dev/hd", "/dev/nvme"];
/// How file systems are named in `/dev/disk` and in `fstab`.
const BY_NAME: [(&str, &str); 4] = [
    ("/dev/disk/by-uuid/", "UUID="),
    ("/dev/disk/by-label/", "LABEL="),
    ("/dev/disk/by-partuuid/", "PARTUUID="),
    ("/dev/disk/by-partlabel/", "PARTLABEL="),
];
const BY_UUID: &str = "name it by its UUID, as `blkid` says it";

pub(super) fn partition_table(facts: &Facts, _: Target) -> Findings {
    let mut findings = Findings::default();
    match &facts.table {
        Err(why) => findings.fail(
            format!("there is no partition table that can be read: {why}"),
            "write one with `sgdisk` or `parted` before the image is built on it",
        ),
        Ok(table) => {
            for problem in &table.problems {
                findings.fail(problem, "`sgdisk --move-second-header --verify` mends tables; then build again");
            }
            if table.partitions.is_empty() {
                findings.fail("the partition table is empty", "build from a parent that has a system on it");
            }
        }
    }
    let kind = facts.table.as_ref().map(|table| match table.kind {
        Kind::Gpt => "GPT, both copies",
        Kind::Mbr => "MBR",
    });
    let count = facts.table.as_ref().map_or(0, |table| table.partitions.len());
    findings.or_pass(format!("{}, {count} partitions", kind.unwrap_or_default()))
}

pub(super) fn root_file_system(facts: &Facts, _: Target) -> Findings {
    let mut findings = Findings::default();
    for volume in &facts.volumes {
        if let Some(Err(why)) = &volume.files {
            let reason = format!("the {} in {} can't be mounted: {why}", volume.kind, place(volume));
            findings.fail(reason, "look into it with `goldsmith run`, and build again");
        }
        if let Some(why) = &volume.unclean {
            let reason = format!("the {} in {} was not shut down cleanly: {why}", volume.kind, place(volume));
            findings.fail(reason, "build again: goldsmith seals disks of guests that have powered off");
        }
    }
    let root = facts.volumes.iter().find(|volume| volume.is_root());
    match root {
        None => findings.fail("no file system holds an operating system", "build from a parent that has one"),
        Some(root) if !ROOT_KINDS.contains(&root.kind.as_str()) => {
            findings.fail(format!("the root is on {}", root.kind), "have the root on ext4, xfs or btrfs");
        }
        Some(_) => {}
    }
    let kind = root.map_or("", |root| root.kind.as_str());
    findings.or_pass(format!("{kind} in {}, clean", root.map(place).unwrap_or_default()))
}

pub(super) fn one_system(facts: &Facts, _: Target) -> Findings {
    let mut findings = Findings::default();
    for volume in &facts.volumes {
        match volume.kind.as_str() {
            "crypto_LUKS" => findings.fail(
                format!("{} is encrypted", place(volume)),
                "have the cloud encrypt the disk: nobody types a password when an instance starts",
            ),
            "LVM2_member" | "linux_raid_member" => findings.warn(
                format!("{} is a member of an array ({}), which is not looked into", place(volume), volume.kind),
                "a plain file system can be imported by every road",
            ),
            _ => {}
        }
    }
    let systems = facts.volumes.iter().filter(|volume| volume.is_root());
    let second: Vec<String> = systems.skip(1).map(place).collect();
    if !second.is_empty() {
        findings.fail(format!("another system is in {}", second.join(", ")), "remove it: an image holds one system");
    }
    let menus = ["/boot/grub/grub.cfg", "/boot/grub2/grub.cfg", "/boot/grub/menu.lst", "/grub/grub.cfg"];
    let mut menus: Vec<&str> = menus.into_iter().filter(|path| facts.system.has(path)).collect();
    // One that is a link to another is the same menu.
    menus.dedup_by(|one, other| facts.system.text(one) == facts.system.text(other));
    if menus.len() > 1 {
        findings.warn(format!("there are several boot menus: {}", menus.join(", ")), "remove those that are not used");
    }
    findings.or_pass("one system, not encrypted")
}

pub(super) fn fstab(facts: &Facts, _: Target) -> Findings {
    let mut findings = Findings::default();
    let Some(text) = facts.system.text("/etc/fstab") else {
        findings.warn("there is no /etc/fstab", "name the root file system in one: `UUID=… / ext4 defaults 0 1`");
        return findings;
    };
    let (mounts, unclear) = mounts(&text);
    for number in unclear {
        let reason = format!("line {number} can't be understood");
        findings.fail(reason, "a line has a device, a place, a type and options: fstab(5)");
    }
    mounts.iter().for_each(|mount| of_mount(facts, mount, &mut findings));
    findings.or_pass(format!("{} entries, each named so that it is found on any machine", mounts.len()))
}

fn of_mount(facts: &Facts, mount: &Mount, findings: &mut Findings) {
    let Mount { device, place, kind, options } = mount;
    if FOREIGN_KINDS.contains(&kind.as_str()) {
        let reason = format!("{place} is a {kind} of the machine that the image comes from");
        return findings.fail(reason, "remove the line");
    }
    if DISK_NAMES.iter().any(|name| device.starts_with(name)) {
        return findings.fail(format!("{place} is named {device}, which is another name on another machine"), BY_UUID);
    }
    let by_name = BY_NAME.iter().find_map(|(folder, word)| Some(format!("{word}{}", device.strip_prefix(folder)?)));
    let name = by_name.unwrap_or_else(|| device.clone());
    if BY_NAME.iter().any(|(_, word)| name.starts_with(word)) {
        if facts.has_volume(&name) {
            return;
        }
        let reason = format!("{place} is {name}, which is not on this disk");
        let mend =
            "remove the line, or give it the right name; with `nofail` in its options a start goes on without it";
        return match options.iter().any(|option| option == "nofail") {
            true => findings.warn(reason, mend),
            false => findings.fail(reason, mend),
        };
    }
    if kind == "swap" && device.starts_with('/') && !device.starts_with("/dev/") && !facts.system.has(device) {
        findings.fail(format!("the swap file {device} is not there"), "remove the line, or make the file");
    }
}

pub(super) fn links_across(facts: &Facts, _: Target) -> Findings {
    let mut findings = Findings::default();
    let (mounts, _) = mounts(&facts.system.text("/etc/fstab").unwrap_or_default());
    let home = |path: &str| {
        let places = mounts.iter().map(|mount| mount.place.as_str());
        let above =
            places.filter(|place| path == *place || path.starts_with(&format!("{}/", place.trim_end_matches('/'))));
        above.max_by_key(|place| place.len()).unwrap_or("/").to_owned()
    };
    for (path, _) in facts.system.below("/boot") {
        let Some(target) = facts.system.link(path).filter(|target| !target.starts_with('/')) else { continue };
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        if home(path) != home(&joined(folder, target)) {
            let reason = format!("{path} is a link to {target}, in another file system");
            findings.warn(reason, "put the file itself in the link's place");
        }
    }
    findings.or_pass("none in /boot")
}

/// A relative path from a folder, without `..`.
fn joined(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

pub(super) fn size(facts: &Facts, target: Target) -> Findings {
    let mut findings = Findings::default();
    let size = facts.size;
    if target == Target::Aws && size > MOST_BYTES {
        findings.fail(format!("the disk has {} GiB", size / GIB), "16 TiB is the most that a snapshot takes");
    }
    let (unit, name) = if target == Target::Azure { (MIB, "MiB") } else { (GIB, "GiB") };
    if matches!(target, Target::Aws | Target::Azure | Target::Gcp) && !size.is_multiple_of(unit) {
        let reason = format!("the disk has {size} bytes, which is no whole number of {name}");
        findings.warn(reason, "give the recipe a `disk` of whole GiB; else the disk grows at the import");
    }
    let mend = "give the recipe a larger `disk`, or have a component remove what is not needed";
    let free = facts.free / MIB;
    if facts.free < NO_SPACE {
        findings.fail(format!("{free} MiB are free on the root file system"), mend);
    } else if facts.free < LITTLE_SPACE {
        findings.warn(format!("{free} MiB are free on the root file system"), mend);
    }
    findings.or_pass(format!("{} GiB, of which {free} MiB are free on the root file system", size / GIB))
}

pub(super) fn format(_: &Facts, _: Target) -> Findings {
    Findings::skipped("a sealed disk is a qcow2; its exports are made in the target's format, and read back by tests")
}

/// Where a volume is, in words.
fn place(volume: &Volume) -> String {
    match volume.number {
        0 => "the disk itself".to_owned(),
        number => format!("partition {number}"),
    }
}

/// A path or the same in `/boot`, which may be a file system of its own and its own root to a boot loader.
pub(super) fn in_boot(system: &Tree, path: &str) -> String {
    let in_boot = format!("/boot{path}");
    if !system.has(path) && system.has(&in_boot) { in_boot } else { path.to_owned() }
}
