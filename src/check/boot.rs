//! Checks of the way from the firmware to a system that runs: boot loader, menu, kernel, initial RAM disk, drivers.

use std::collections::BTreeSet;

use super::facts::Facts;
use super::storage::{DISK_NAMES, in_boot};
use super::tree::Tree;
use super::{BootPaths, Findings, Target, Verdict};
use crate::disk::grub::BootCode;
use crate::disk::table::{Kind, Role};

/// The fallback path of x86-64: UEFI Specification 2.10, section 3.5.1.1.
const FALLBACK: &str = "/EFI/BOOT/BOOTX64.EFI";
/// Menus of GRUB, by distribution.
const MENUS: [&str; 2] = ["/boot/grub/grub.cfg", "/boot/grub2/grub.cfg"];
/// Menus that wait longer, in seconds, cost every start of every instance.
const LONG_WAIT: u64 = 10;

/// An entry of a boot menu.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// Path of the kernel.
    kernel: String,
    /// Paths of the initial RAM disks.
    initrds: Vec<String>,
    /// The kernel's command line.
    options: String,
}

/// The entries of the boot menu, the default first as far as that can be told.
fn entries(system: &Tree) -> Vec<Entry> {
    let Some(menu) = MENUS.iter().find_map(|path| system.text(path)) else { return Vec::new() };
    let mut entries = if menu.contains("blscfg") { described(system) } else { Vec::new() };
    entries.extend(written(system, &menu));
    entries
}

/// Entries that stand in the menu itself.
fn written(system: &Tree, menu: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in menu.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("linux" | "linux16" | "linuxefi"), Some(kernel)) => entries.push(Entry {
                kernel: in_boot(system, kernel.trim_start_matches("($root)")),
                initrds: Vec::new(),
                options: words.collect::<Vec<_>>().join(" "),
            }),
            (Some("initrd" | "initrd16" | "initrdefi"), Some(first)) => {
                let paths = std::iter::once(first).chain(words);
                let paths = paths.map(|path| in_boot(system, path.trim_start_matches("($root)")));
                if let Some(entry) = entries.last_mut() {
                    entry.initrds.extend(paths);
                }
            }
            _ => {}
        }
    }
    entries
}

/// Entries in files of their own: The Boot Loader Specification, "Type #1".
fn described(system: &Tree) -> Vec<Entry> {
    let environment = environment(system);
    let saved = variable(&environment, "saved_entry").unwrap_or_default().to_owned();
    let common = variable(&environment, "kernelopts").unwrap_or_default().to_owned();
    let mut files = system.texts("/boot/loader/entries", ".conf");
    // The newest is the default where none is saved.
    files.reverse();
    files.sort_by_key(|(path, _)| !path.ends_with(&format!("/{saved}.conf")));
    let described = files.iter().filter_map(|(_, text)| {
        let field = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.trim_start().split_once(char::is_whitespace));
            lines.find(|(key, _)| *key == name).map(|(_, value)| value.trim().to_owned())
        };
        let initrd = field("initrd").unwrap_or_default();
        let initrds = initrd.split_whitespace().filter(|path| path.starts_with('/'));
        Some(Entry {
            kernel: in_boot(system, &field("linux")?),
            initrds: initrds.map(|path| in_boot(system, path)).collect(),
            options: field("options").unwrap_or_default().replace("$kernelopts", &common),
        })
    });
    described.collect()
}

/// GRUB's environment block: lines of `name=value`.
fn environment(system: &Tree) -> String {
    let paths = ["/boot/grub2/grubenv", "/boot/grub/grubenv", "/boot/efi/EFI/fedora/grubenv"];
    paths.iter().find_map(|path| system.text(path)).unwrap_or_default()
}

fn variable<'a>(environment: &'a str, name: &str) -> Option<&'a str> {
    environment.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

/// The initial RAM disks of the entry that is started, for whoever reads them.
pub(super) fn default_initrds(system: &Tree) -> Vec<String> {
    entries(system).into_iter().next().map(|entry| entry.initrds).unwrap_or_default()
}

/// What firmware finds, and whether a network card of EC2's can be driven.
pub(super) fn paths(facts: &Facts) -> BootPaths {
    // What is wrong with them is said by the check.
    let mut unsaid = Findings::default();
    let (bios, uefi) = (by_bios(facts, &mut unsaid), by_uefi(facts, &mut unsaid));
    let ena = network_drivers(facts, Target::Aws).0.iter().all(|finding| finding.verdict < Verdict::Fail);
    BootPaths { bios, uefi, ena }
}

pub(super) fn boot_path(facts: &Facts, _: Target) -> Findings {
    let mut findings = Findings::default();
    let bios = by_bios(facts, &mut findings);
    let uefi = by_uefi(facts, &mut findings);
    if !bios && !uefi && findings.0.is_empty() {
        findings.fail(
            "neither a BIOS nor UEFI finds anything to start",
            "install GRUB: `grub-install` with a BIOS boot partition, or `grub-install --removable` for UEFI",
        );
    }
    findings.or_pass(match (bios, uefi) {
        (true, true) => "by BIOS and by UEFI",
        (true, false) => "by BIOS only; UEFI finds nothing to start",
        _ => "by UEFI only; a BIOS finds nothing to start",
    })
}

fn by_bios(facts: &Facts, findings: &mut Findings) -> bool {
    let Ok(table) = &facts.table else { return false };
    let has_place = table.partitions.iter().any(|partition| partition.role == Role::BiosBoot);
    let mend = "run `grub-install` on the disk while the image is built";
    match facts.boot_code {
        BootCode::Grub { is_whole: true } => return true,
        BootCode::Grub { is_whole: false } => {
            findings.fail("GRUB's boot sector is there, and its core image is not where it looks for it", mend);
        }
        BootCode::None if has_place => {
            findings.fail("there is a BIOS boot partition, and no boot loader in the first sector", mend);
        }
        BootCode::Other => return table.kind == Kind::Mbr,
        BootCode::None => {}
    }
    false
}

fn by_uefi(facts: &Facts, findings: &mut Findings) -> bool {
    let Some(efi) = facts.efi() else { return false };
    let Some(tree) = efi.tree() else {
        findings.fail(
            format!("the EFI system partition, number {}, holds no file system that can be read", efi.number),
            "format it as FAT: `mkfs.vfat`",
        );
        return false;
    };
    // FAT knows no case.
    let fallback = tree.below("/").find(|(path, _)| path.eq_ignore_ascii_case(FALLBACK));
    if fallback.is_none_or(|(_, node)| node.size == 0) {
        findings.fail(
            format!("the EFI system partition has no {}", &FALLBACK[1..]),
            "`grub-install --removable` writes it; on Debian: `echo 'grub-efi-amd64 grub2/force_efi_extra_removable \
             boolean true' | debconf-set-selections`",
        );
        return false;
    }
    for (path, text) in tree.all_texts().filter(|(path, _)| path.to_ascii_lowercase().ends_with("/grub.cfg")) {
        let text = String::from_utf8_lossy(text);
        let searched = text.lines().filter_map(|line| searched_volume(line.trim()));
        for name in searched.filter(|name| !facts.has_volume(name)) {
            let reason = format!("{path} on the EFI system partition looks for {name}, which is not on this disk");
            findings.fail(reason, "write it again with `grub-install`");
        }
    }
    true
}

/// The file system that a line of GRUB's configuration looks for, in the words of `fstab`.
fn searched_volume(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["search.fs_uuid", uuid, ..] => Some(format!("UUID={uuid}")),
        ["search", ..] if words.contains(&"--fs-uuid") || words.contains(&"-u") => {
            let last = words.iter().skip(1).rfind(|word| !word.starts_with('-') && !word.contains('$'))?;
            (*last != "root").then(|| format!("UUID={last}"))
        }
        _ => None,
    }
}

pub(super) fn command_line(facts: &Facts, target: Target) -> Findings {
    let mut findings = Findings::default();
    let Some(entry) = entries(&facts.system).into_iter().next() else {
        return Findings::skipped("no boot menu of GRUB was found");
    };
    let words: Vec<&str> = entry.options.split_whitespace().collect();
    let mend = "name it by its UUID in /etc/default/grub or /etc/kernel/cmdline, and write the menu again";
    match words.iter().find_map(|word| word.strip_prefix("root=")) {
        None => findings.warn("the kernel is not told its root", mend),
        Some(root) if DISK_NAMES.iter().any(|name| root.starts_with(name)) => {
            findings.fail(format!("root={root} is another disk on another machine"), mend);
        }
        Some(root) if root.contains('=') && !root.contains('$') && !facts.has_volume(root) => {
            findings.fail(format!("root={root} is not on this disk"), mend);
        }
        Some(_) => {}
    }
    let serial = words.iter().any(|word| word.starts_with("console=ttyS0"));
    if !serial && matches!(target, Target::Aws | Target::Azure | Target::Gcp) {
        findings.warn(
            "the kernel says nothing on the serial console",
            "add `console=tty0 console=ttyS0,115200` to GRUB_CMDLINE_LINUX",
        );
    }
    findings.or_pass("a root that is there, a serial console")
}

/// Drivers of which at least one is needed.
type AnyOf = &'static [&'static str];

/// What a target's machines want drivers for.
struct Hardware {
    /// The disk that the system starts from.
    disks: &'static [AnyOf],
    /// Disks of older or newer machines there.
    other_disks: &'static [AnyOf],
    /// The network card.
    cards: &'static [AnyOf],
    /// Cards of older or newer machines there.
    other_cards: &'static [AnyOf],
}

fn hardware(target: Target) -> Hardware {
    match target {
        // Nitro; before it there was Xen.
        Target::Aws => Hardware {
            disks: &[&["nvme"]],
            other_disks: &[&["xen_blkfront"]],
            cards: &[&["ena"]],
            other_cards: &[&["xen_netfront"]],
        },
        // Hyper-V; sizes of the newest generation have NVMe and MANA.
        Target::Azure => Hardware {
            disks: &[&["hv_vmbus"], &["hv_storvsc"]],
            other_disks: &[&["nvme"]],
            cards: &[&["hv_netvsc"]],
            other_cards: &[&["mana"]],
        },
        // Machines of the third generation have NVMe and gVNIC.
        Target::Gcp => Hardware {
            disks: &[&["virtio_pci"], &["virtio_scsi"]],
            other_disks: &[&["nvme"]],
            cards: &[&["virtio_net"]],
            other_cards: &[&["gve"]],
        },
        Target::Vmware => Hardware {
            disks: &[&["vmw_pvscsi", "mptspi", "ahci"]],
            other_disks: &[&["nvme"]],
            cards: &[&["vmxnet3", "e1000e", "e1000"]],
            other_cards: &[],
        },
        Target::Proxmox => Hardware {
            disks: &[&["virtio_pci"], &["virtio_scsi", "virtio_blk"]],
            other_disks: &[],
            cards: &[&["virtio_net"]],
            other_cards: &[],
        },
        Target::Libvirt => Hardware {
            disks: &[&["virtio_pci"], &["virtio_blk"]],
            other_disks: &[],
            cards: &[&["virtio_net"]],
            other_cards: &[],
        },
    }
}

/// The version of a kernel, by which its modules are found: `vmlinuz-6.1.0-cloud` has those of `6.1.0-cloud`.
fn version(kernel: &str) -> &str {
    let name = kernel.rsplit('/').next().unwrap_or(kernel);
    name.split_once('-').map_or("", |(_, version)| version)
}

/// The name of the driver in a file, with the dashes that the kernel does not tell from underscores.
fn driver(path: &str) -> Option<String> {
    let name = path.rsplit('/').next()?;
    let (name, end) = name.split_once(".ko")?;
    matches!(end, "" | ".xz" | ".zst" | ".gz").then(|| name.replace('-', "_"))
}

/// Drivers that are a part of a kernel.
fn built_in(facts: &Facts, version: &str) -> BTreeSet<String> {
    let list = facts.system.text(&format!("/lib/modules/{version}/modules.builtin")).unwrap_or_default();
    list.lines().filter_map(driver).collect()
}

/// The groups of which no driver is there.
fn missing(groups: &[AnyOf], there: &BTreeSet<String>) -> Vec<String> {
    let lacking = groups.iter().filter(|group| !group.iter().any(|&name| there.contains(name)));
    lacking.map(|group| group.join(" or ")).collect()
}

pub(super) fn initramfs(facts: &Facts, target: Target) -> Findings {
    let mut findings = Findings::default();
    let Some(entry) = entries(&facts.system).into_iter().next() else {
        return Findings::skipped("no boot menu of GRUB was found");
    };
    let version = version(&entry.kernel);
    let mut there = built_in(facts, version);
    for path in &entry.initrds {
        match facts.initramfs.get(path) {
            Some(Ok(names)) => there.extend(names.iter().filter_map(|name| driver(name))),
            Some(Err(why)) => findings.fail(
                format!("{path} can't be unpacked: {why}"),
                "write it again: `update-initramfs -u` or `dracut --force`",
            ),
            None => findings.fail(format!("{path} is not there"), "write it: `update-initramfs -c -k all` or `dracut`"),
        }
    }
    if !findings.0.is_empty() {
        return findings;
    }
    let wanted = hardware(target);
    let mend = format!(
        "put them in: /etc/initramfs-tools/modules with `MODULES=most`, or `dracut --no-hostonly --force`; kernel {version}"
    );
    for name in missing(wanted.disks, &there) {
        findings.fail(format!("the driver {name} is neither in the initial RAM disk nor in the kernel"), &mend);
    }
    for name in missing(wanted.other_disks, &there) {
        findings.warn(
            format!("{name}, for some of its machines, is neither in the initial RAM disk nor in the kernel"),
            &mend,
        );
    }
    let names: Vec<&str> = wanted.disks.iter().flat_map(|group| group.iter()).copied().collect();
    findings.or_pass(format!("{} can be used before there is a root", names.join(", ")))
}

pub(super) fn network_drivers(facts: &Facts, target: Target) -> Findings {
    let mut findings = Findings::default();
    let Some(entry) = entries(&facts.system).into_iter().next() else {
        return Findings::skipped("no boot menu of GRUB was found");
    };
    let version = version(&entry.kernel);
    let folder = format!("/lib/modules/{version}");
    if !facts.system.has(&folder) {
        findings
            .fail(format!("{folder} is not there: the kernel has no drivers"), "install the kernel's package again");
        return findings;
    }
    let mut there = built_in(facts, version);
    there.extend(facts.system.below(&folder).filter_map(|(path, _)| driver(path)));
    let wanted = hardware(target);
    for name in missing(wanted.cards, &there) {
        let mend = "install a kernel that has it; Debian: linux-image-cloud-amd64, Ubuntu: linux-modules-extra";
        findings.fail(format!("kernel {version} has no driver {name}"), mend);
    }
    for name in missing(wanted.other_cards, &there) {
        let mend = "install a kernel that has it, if such machines are to be used";
        findings.warn(format!("kernel {version} has no driver {name}, for some of its machines"), mend);
    }
    let names: Vec<&str> = wanted.cards.iter().flat_map(|group| group.iter()).copied().collect();
    findings.or_pass(format!("kernel {version} has {}", names.join(" or ")))
}

pub(super) fn menu(facts: &Facts, target: Target) -> Findings {
    let mut findings = Findings::default();
    let system = &facts.system;
    let Some(menu) = MENUS.iter().find_map(|path| system.text(path)) else {
        findings.warn("no boot menu of GRUB was found; another boot loader is not looked into", "use GRUB");
        return findings;
    };
    let entries = entries(system);
    if entries.is_empty() {
        findings.fail("the boot menu has no entry that starts a kernel", "write it again: `grub-mkconfig -o FILE`");
    }
    for entry in &entries {
        let files = std::iter::once(&entry.kernel).chain(&entry.initrds).filter(|path| !path.contains('$'));
        for path in files.filter(|path| system.node(path).is_none_or(|node| node.size == 0)) {
            findings.fail(format!("the boot menu names {path}, which is not there"), "write it again: `grub-mkconfig`");
        }
    }
    let environment = environment(system);
    let saved = variable(&environment, "saved_entry").filter(|saved| !saved.is_empty());
    let is_number = |saved: &str| saved.chars().all(|c| c.is_ascii_digit()) || !menu.contains("blscfg");
    let is_there = |saved: &str| system.has(&format!("/boot/loader/entries/{saved}.conf"));
    if let Some(saved) = saved.filter(|saved| !is_number(saved) && !is_there(saved)) {
        findings.warn(format!("the saved default, {saved}, has no entry"), "`grubby --set-default` names one");
    }
    let waits = menu.lines().filter_map(|line| line.trim().strip_prefix("set timeout=")?.parse::<u64>().ok());
    // What GRUB does after a failed start is longer, and no matter.
    if let Some(wait) = waits.min().filter(|&wait| wait > LONG_WAIT) {
        findings.warn(format!("the menu waits for {wait} s"), "set GRUB_TIMEOUT=0 in /etc/default/grub");
    }
    let is_serial = menu.lines().any(|line| line.contains("terminal_output") && line.contains("serial"));
    if !is_serial && matches!(target, Target::Aws | Target::Azure | Target::Gcp) {
        findings.warn("the menu is not on the serial console", "set GRUB_TERMINAL=\"console serial\"");
    }
    findings.or_pass(format!("{} entries, all files there", entries.len()))
}

pub(super) fn architecture(facts: &Facts, _: Target) -> Findings {
    let mut findings = Findings::default();
    if facts.has_any(&["/lib64/ld-linux-x86-64.so.2", "/lib/ld-musl-x86_64.so.1"]) {
        return findings.or_pass("x86-64");
    }
    if facts.has_any(&["/lib/ld-linux-aarch64.so.1", "/lib/ld-musl-aarch64.so.1"]) {
        findings.warn("arm64", "register it as arm64 from a snapshot; it boots by UEFI only");
    } else {
        findings.warn("no loader of programs was found that says for which machine they are", "build it on x86-64");
    }
    findings
}

pub(super) fn secure_boot(facts: &Facts, _: Target) -> Findings {
    let Some(tree) = facts.efi().and_then(|efi| efi.tree()) else {
        return Findings::skipped("the disk does not boot by UEFI");
    };
    let names: Vec<String> = tree.below("/EFI").map(|(path, _)| path.to_ascii_lowercase()).collect();
    let is_there = |name: &str| names.iter().any(|path| path == name);
    if is_there("/efi/boot/bootx64.efi") && is_there("/efi/boot/grubx64.efi") {
        return Findings::default().or_pass("a shim and GRUB stand on the fallback path; signatures are not verified");
    }
    Findings::skipped("there is no shim on the fallback path, so secure boot must not be asked for")
}

pub(super) fn proof(facts: &Facts, target: Target) -> Findings {
    let mut findings = Findings::default();
    if let Err(why) = &facts.tested {
        findings.fail(why, "`goldsmith test` boots the sealed disk and runs its tests");
    }
    // Whether it comes up from other disks is what its own test says.
    let has_nvme = target.has_nvme();
    match &facts.nvme {
        Some(Err(why)) if has_nvme => findings.fail(
            format!("it does not come up from an NVMe disk: {why}"),
            "what is wrong above explains it; the console is in the image's folder, below `check`",
        ),
        None if has_nvme => {
            findings.warn("it was not booted from an NVMe disk", "leave `--no-boot` out");
        }
        _ => {}
    }
    let nvme = if has_nvme { ", and they come up from an NVMe disk" } else { "" };
    findings.or_pass(format!("these very bytes have passed their test{nvme}"))
}
