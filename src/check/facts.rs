//! What was read of a finished disk: all that checks may know.

use std::collections::BTreeMap;

use super::tree::Tree;
use crate::disk::grub::BootCode;
use crate::disk::table::{Role, Table};

/// What was read of a disk.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Size that a guest sees, in bytes.
    pub size: u64,
    /// The partition table, or why there is none.
    pub table: Result<Table, String>,
    /// What a BIOS would start.
    pub boot_code: BootCode,
    /// What is in the partitions, or on a disk without any.
    pub volumes: Vec<Volume>,
    /// The system's files, as they are mounted when it runs; empty if there is no root file system.
    pub system: Tree,
    /// What was read of the initial RAM disks, by their paths in `system`: the names of files in them, or why they can't
    /// be read.
    pub initramfs: BTreeMap<String, Result<Vec<String>, String>>,
    /// Space that is free on the root file system, in bytes.
    pub free: u64,
    /// Secrets and traces that were looked for on the whole disk and found.
    pub traces: Vec<String>,
    /// Whether these very bytes have passed their test, or what is to be said of it.
    pub tested: Result<(), String>,
    /// Whether they came up from an NVMe disk, or what happened instead; none if that was not tried.
    pub nvme: Option<Result<(), String>>,
}

/// What is in a partition.
#[derive(Debug, Clone, Default)]
pub struct Volume {
    /// The partition's number; 0 is the disk itself.
    pub number: u32,
    /// `blkid`'s name of what is in it; empty if that is unknown.
    pub kind: String,
    /// How it can be named, in the words of `fstab`: `UUID=…`, `LABEL=…`, `PARTUUID=…`, `PARTLABEL=…`.
    pub names: Vec<String>,
    /// Why it was not shut down cleanly, if it was not.
    pub unclean: Option<String>,
    /// Its files, or why they can't be read; none if it holds no file system.
    pub files: Option<Result<Tree, String>>,
    /// Space that is free, in bytes.
    pub free: u64,
}

impl Volume {
    /// Whether an entry of `fstab` or a kernel's `root=` means it. UUIDs are compared as Linux does, in any case.
    pub fn is_named(&self, name: &str) -> bool {
        let name = name.replace('"', "");
        self.names.iter().any(|known| known.eq_ignore_ascii_case(&name))
    }

    /// Its files, if they were read.
    pub fn tree(&self) -> Option<&Tree> {
        self.files.as_ref()?.as_ref().ok()
    }

    /// Whether it holds an operating system.
    pub fn is_root(&self) -> bool {
        let is_system = |tree: &Tree| {
            tree.has("/etc")
                && (tree.has("/etc/os-release") || tree.has("/usr/lib/os-release") || tree.has("/sbin/init"))
        };
        self.tree().is_some_and(is_system)
    }
}

/// A line of `fstab`: fstab(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted.
    pub device: String,
    /// Where.
    pub place: String,
    /// Its type.
    pub kind: String,
    /// How.
    pub options: Vec<String>,
}

/// Lines of `fstab`, and the numbers of those that can't be understood.
pub fn mounts(fstab: &str) -> (Vec<Mount>, Vec<usize>) {
    let (mut mounts, mut unclear) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(fstab.lines()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [] => {}
            [word, ..] if word.starts_with('#') => {}
            [device, place, kind, ref rest @ ..] => {
                let options = rest.first().copied().unwrap_or("defaults").split(',').map(str::to_owned).collect();
                let (device, place, kind) = (device.to_owned(), place.to_owned(), kind.to_owned());
                mounts.push(Mount { device, place, kind, options });
            }
            _ => unclear.push(number),
        }
    }
    (mounts, unclear)
}

/// A system as it is when it runs: its root file system, with the others in their places.
#[derive(Debug, Default)]
pub struct System {
    /// Its files.
    pub tree: Tree,
    /// Where file systems are mounted, and the numbers of their partitions; the root first.
    pub places: Vec<(String, u32)>,
    /// Space that is free on the root file system, in bytes.
    pub free: u64,
}

impl System {
    /// The partition that a path without links is in, and the path there.
    pub fn locate(&self, path: &str) -> Option<(u32, String)> {
        let mounted = self.places.iter().filter_map(|(place, number)| {
            let rest = path.strip_prefix(place.trim_end_matches('/'))?;
            rest.starts_with('/').then(|| (*number, rest.to_owned()))
        });
        mounted.min_by_key(|(_, rest)| rest.len())
    }
}

/// Puts a system together as its `fstab` says; none if no volume holds one.
pub fn assemble(volumes: &[Volume]) -> Option<System> {
    let root = volumes.iter().find(|volume| volume.is_root())?;
    let mut system =
        System { tree: root.tree()?.clone(), places: vec![("/".to_owned(), root.number)], free: root.free };
    let (mut mounts, _) = mounts(&system.tree.text("/etc/fstab").unwrap_or_default());
    // What is mounted in another file system comes behind it.
    mounts.sort_by_key(|mount| mount.place.len());
    for mount in mounts.iter().filter(|mount| mount.place.starts_with('/') && mount.place.len() > 1) {
        // Each once: what is mounted at a second place shows the same files, and a disk may name any number of places.
        let is_mounted = |volume: &&Volume| system.places.iter().any(|(_, number)| *number == volume.number);
        let volume = volumes.iter().find(|volume| volume.is_named(&mount.device)).filter(|volume| !is_mounted(volume));
        if let Some((volume, tree)) = volume.and_then(|volume| Some((volume, volume.tree()?))) {
            system.tree.graft(&mount.place, tree);
            system.places.push((mount.place.clone(), volume.number));
        }
    }
    Some(system)
}

impl Facts {
    /// The volume in the EFI system partition.
    pub fn efi(&self) -> Option<&Volume> {
        let table = self.table.as_ref().ok()?;
        let partition = table.partitions.iter().find(|partition| partition.role == Role::EfiSystem)?;
        self.volumes.iter().find(|volume| volume.number == partition.number)
    }

    /// Whether some volume goes by a name, as in `fstab`.
    pub fn has_volume(&self, name: &str) -> bool {
        self.volumes.iter().any(|volume| volume.is_named(name))
    }

    /// Whether the system starts a service by itself: a link in a folder that systemd reads names its unit.
    pub fn is_enabled(&self, unit: &str) -> bool {
        self.system.below("/etc/systemd/system").chain(self.system.below("/usr/lib/systemd/system")).any(|(path, _)| {
            let mut parts = path.rsplit('/');
            parts.next() == Some(unit)
                && parts.next().is_some_and(|folder| folder.ends_with(".wants") || folder.ends_with(".requires"))
        })
    }

    /// Whether there is anything at one of some paths.
    pub fn has_any(&self, paths: &[&str]) -> bool {
        paths.iter().any(|path| self.system.has(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_fstab() {
        let (mounts, unclear) = mounts("# comment\n\nUUID=a / ext4 rw,discard 0 1\n/dev/vdb\nLABEL=b /srv xfs\n");
        let shown: Vec<String> =
            mounts.iter().map(|mount| format!("{} {} {:?}", mount.device, mount.place, mount.options)).collect();
        assert_eq!(shown, [r#"UUID=a / ["rw", "discard"]"#, r#"LABEL=b /srv ["defaults"]"#]);
        assert_eq!(unclear, [4]);
    }

    #[test]
    fn file_systems_are_put_together_as_fstab_says() {
        let fstab = "UUID=1-EFI /boot/efi vfat\nUUID=boot /boot ext4\nUUID=root / ext4\n";
        let root = Tree::default().with("/etc/fstab", fstab).with("/etc/os-release", "").with("/boot/old", "");
        let volume = |number, name: &str, tree: Tree| Volume {
            number,
            names: vec![format!("UUID={name}")],
            files: Some(Ok(tree)),
            ..Volume::default()
        };
        let volumes = [
            volume(3, "1-efi", Tree::default().with("/EFI/BOOT/BOOTX64.EFI", "")),
            volume(1, "root", root),
            volume(2, "boot", Tree::default().with("/vmlinuz", "")),
        ];
        let system = assemble(&volumes).unwrap();
        let has = |path| system.tree.has(path);
        assert!(has("/boot/vmlinuz") && has("/boot/efi/EFI/BOOT/BOOTX64.EFI") && !has("/boot/old"));
        assert_eq!(system.locate("/boot/vmlinuz"), Some((2, "/vmlinuz".to_owned())));
        assert_eq!(system.locate("/bootstrap"), Some((1, "/bootstrap".to_owned())));
        assert!(assemble(&volumes[..1]).is_none());
    }
}
