//! Reading a finished disk: its table here, its file systems in a guest.
//!
//! The guest gets the disk for reading only, and mounts each file system without replaying its journal. Its own `find`,
//! `tar` and tools for initial RAM disks say what is there; the host only parses what they say, up to a limit.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use goldsmith_agent::message::Exit;

use super::boot::default_initrds;
use super::facts::{Facts, System, Volume, assemble};
use super::tree::{LISTING, Tree};
use crate::disk::sealed::Sealed;
use crate::disk::{grub, search, table};
use crate::guest::{self, Guest};
use crate::machine::{self, console::plain};

/// Why a disk could not be looked into.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be read.
    #[error("the disk can't be read")]
    Disk(#[from] io::Error),
    /// The guest that was to look into it did not.
    #[error(transparent)]
    Guest(#[from] guest::Error),
    /// It said something else than it was asked.
    #[error("the guest that looks into the disk can't {what}: {why}")]
    Answer {
        /// What it was to do.
        what: &'static str,
        /// What it said.
        why: String,
    },
}

/// Something that must not be on a disk.
#[derive(Clone)]
pub struct Secret {
    /// What it is called in reports, which may be posted anywhere.
    pub name: String,
    /// What is looked for.
    pub value: String,
}

/// The names of secrets that are on a stand-alone qcow2 disk, each once: there may be several forms of one.
pub fn names_on_disk(disk: &Path, secrets: &[Secret]) -> io::Result<Vec<String>> {
    if secrets.is_empty() {
        return Ok(Vec::new());
    }
    let values: Vec<&str> = secrets.iter().map(|secret| secret.value.as_str()).collect();
    let found = search::find(disk, &values)?;
    let mut names: Vec<String> = Vec::new();
    for secret in secrets.iter().filter(|secret| found.contains(&secret.value.as_str())) {
        if !names.contains(&secret.name) {
            names.push(secret.name.clone());
        }
    }
    Ok(names)
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").field("name", &self.name).finish_non_exhaustive()
    }
}

/// How long one question may take, with KVM. A listing reads all folders of a disk.
const DEADLINE: Duration = Duration::from_secs(120);
/// All listings and contents of a disk, in bytes: a hundred thousand files, and a few MiB of configuration, are a tenth.
const READ_LIMIT: usize = 128 << 20;
/// No system has as many file systems.
const MOST_VOLUMES: usize = 128;
/// Names in an initial RAM disk: a few thousand.
const NAMES_LIMIT: usize = 8 << 20;
/// Entries of a menu name one or two.
const MOST_INITRDS: usize = 4;
/// Where file systems are mounted in the guest, each in a folder with its partition's number.
const PLACE: &str = "/run/goldsmith-check";

/// Says of each partition what is in it, and mounts what can be mounted. `$1` is the disk's serial number, `$2` the place.
/// `nouuid` because a copy of the guest's own disk has the same.
const VOLUMES: &str = r#"
for attempt in $(seq 300); do
  for file in /sys/block/*/serial; do
    [ "$(cat "$file" 2>/dev/null)" = "$1" ] && disk=$(basename "$(dirname "$file")")
  done
  [ -n "$disk" ] && break
  sleep 0.1
done
[ -n "$disk" ] || { echo 'the disk did not appear' >&2; exit 1; }
volume() {
  echo "number=$2"
  blkid -p -o export "$1"
  kind=$(blkid -p -o value -s TYPE "$1")
  case $kind in
    ext2|ext3|ext4)
      options=ro,noload
      dumpe2fs -h "$1" 2>/dev/null | sed -n 's/^Filesystem state: */state=/p; s/^Filesystem features: */features=/p' ;;
    xfs) options=ro,norecovery,nouuid ;;
    btrfs|vfat) options=ro ;;
    *) return ;;
  esac
  mkdir -p "$place/$2"
  if said=$(mount -t "$kind" -o "$options,nodev,nosuid,noexec" "$1" "$place/$2" 2>&1); then
    echo "free=$(df -B1 --output=avail "$place/$2" | tail -n 1 | tr -d ' ')"
    echo mounted=yes
  else
    echo "complaint=$(echo "$said" | head -n 1)"
  fi
}
place=$2
found=
for folder in /sys/block/"$disk"/"$disk"*; do
  [ -f "$folder/partition" ] || continue
  found=yes
  volume "/dev/$(basename "$folder")" "$(cat "$folder/partition")"
done
[ -n "$found" ] || volume "/dev/$disk" 0
"#;

/// Lists all of a file system but what says nothing. `$1` is its folder, `$2` what is said of each file.
const LIST: &str = r#"
cd "$1" && exec find . -mindepth 1 -xdev '(' -path ./usr/share -o -path ./usr/src -o -path ./usr/include \
  -o -path ./var/lib/dpkg/info -o -path ./proc -o -path ./sys -o -path ./dev -o -path ./run ')' -prune -o -printf "$2""#;

/// Packs the files whose content says something. `$1` is the file system's folder. What is larger is no configuration. A
/// file that is found twice, by way of a link in its path, would be packed as a link to the first.
const PACK: &str = r#"
cd "$1" || exit
small='-xdev -type f -size -129k'
{
  find ./etc $small -print0
  find ./boot ./grub ./grub2 ./loader ./EFI $small '(' -name '*.cfg' -o -name '*.conf' -o -name grubenv -o -name menu.lst ')' -print0
  find ./lib/modules ./usr/lib/modules $small -maxdepth 2 -name modules.builtin -print0
  find ./usr/lib/os-release ./var/lib/dbus/machine-id $small -print0
  find ./usr/lib/python3*/*-packages/cloudinit/version.py $small -print0
  find ./root ./home $small -maxdepth 4 '(' -name '.*' -o -path '*/.*/*' ')' -print0
} 2>/dev/null | tar -cf - --null --no-recursion --hard-dereference -T - 2>/dev/null
exit 0"#;

/// Names the files in the initial RAM disk `$1`, microcode in front of it and compression included.
const NAMES: &str = r#"
if command -v lsinitramfs >/dev/null; then exec lsinitramfs "$1" 2>&1; fi
if command -v lsinitrd >/dev/null; then exec lsinitrd "$1" 2>&1; fi
echo 'no program to unpack it with'; exit 1"#;

/// Reads a disk, which stays as it is. The guest is one that may be thrown away.
pub async fn inspect(guest: &Guest, disk: &Path, secrets: &[Secret]) -> Result<Facts, Error> {
    let (host, guest) = tokio::join!(on_host(disk.to_owned(), secrets.to_vec()), in_guest(guest, disk));
    let (OnHost { size, table, boot_code, traces }, InGuest { volumes, system, initramfs }) = (host?, guest?);
    let System { tree, free, .. } = system;
    let tested = Err("nothing is known of a test".to_owned());
    Ok(Facts { size, table, boot_code, volumes, system: tree, initramfs, free, traces, tested, nvme: None })
}

struct OnHost {
    size: u64,
    table: Result<table::Table, String>,
    boot_code: grub::BootCode,
    traces: Vec<String>,
}

async fn on_host(disk: PathBuf, secrets: Vec<Secret>) -> Result<OnHost, Error> {
    let read = move || {
        let mut sealed = Sealed::open(&disk)?;
        let size = sealed.size();
        let table = table::read(&mut sealed, size)?;
        let boot_code = grub::inspect(&mut sealed, size)?;
        Ok(OnHost { size, table, boot_code, traces: names_on_disk(&disk, &secrets)? })
    };
    tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
}

struct InGuest {
    volumes: Vec<Volume>,
    system: System,
    initramfs: std::collections::BTreeMap<String, Result<Vec<String>, String>>,
}

async fn in_guest(guest: &Guest, disk: &Path) -> Result<InGuest, Error> {
    let attached = guest.machine()?.attach_read_only(disk).await;
    let serial = attached.map_err(|error| guest::Error::Machine(machine::Error::from(error)))?;
    let said = ask(guest, "find its partitions", VOLUMES, &[serial, PLACE], NAMES_LIMIT).await?;
    let mut volumes = volumes(&String::from_utf8_lossy(&said));
    volumes.truncate(MOST_VOLUMES);
    let mut left = READ_LIMIT;
    for volume in &mut volumes {
        if let Some(Ok(files)) = &mut volume.files {
            *files = tree(guest, &format!("{PLACE}/{}", volume.number), &mut left).await?;
        }
    }
    let system = assemble(&volumes).unwrap_or_default();
    let mut initramfs = std::collections::BTreeMap::new();
    for path in default_initrds(&system.tree).into_iter().take(MOST_INITRDS) {
        let place = system.tree.node(&path).and(system.tree.real(&path)).and_then(|path| system.locate(&path));
        if let Some((number, rest)) = place {
            let names = names(guest, &format!("{PLACE}/{number}{rest}")).await?;
            initramfs.insert(path, names);
        }
    }
    Ok(InGuest { volumes, system, initramfs })
}

/// The files in a folder of the guest. What they take is taken off what is `left`.
async fn tree(guest: &Guest, folder: &str, left: &mut usize) -> Result<Tree, Error> {
    let listing = ask(guest, "list its files", LIST, &[folder, LISTING], *left).await?;
    *left -= listing.len();
    let mut tree = Tree::of_listing(&listing)?;
    let archive = ask(guest, "read its files", PACK, &[folder], *left).await?;
    *left -= archive.len();
    tree.add_content(&archive)?;
    Ok(tree)
}

async fn names(guest: &Guest, path: &str) -> Result<Result<Vec<String>, String>, Error> {
    let (exit, said) = guest.collect(&["sh", "-c", NAMES, "sh", path], DEADLINE, NAMES_LIMIT).await?;
    tracing::debug!(path, bytes = said.len(), "the guest has unpacked it");
    let said = String::from_utf8_lossy(&said);
    if exit != Exit::Code(0) {
        let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it holds nothing");
        return Ok(Err(plain(last)));
    }
    // `lsinitrd` says more of each file than its name, which comes last.
    let names = said.lines().filter_map(|line| line.split_whitespace().next_back());
    Ok(Ok(names.map(str::to_owned).collect()))
}

/// Runs a script in the guest. An answer that is longer than it may be is none.
async fn ask(
    guest: &Guest,
    what: &'static str,
    script: &str,
    arguments: &[&str],
    limit: usize,
) -> Result<Vec<u8>, Error> {
    let argv: Vec<&str> = ["sh", "-c", script, "sh"].into_iter().chain(arguments.iter().copied()).collect();
    let (exit, said) = guest.collect(&argv, DEADLINE, limit).await?;
    tracing::debug!(what, bytes = said.len(), "the guest has answered");
    if exit != Exit::Code(0) {
        return Err(Error::Answer { what, why: format!("the script ended with {exit:?}") });
    }
    if said.len() == limit {
        return Err(Error::Answer { what, why: format!("the answer has more than {} MiB", limit >> 20) });
    }
    Ok(said)
}

/// What the guest says of partitions: lines of `name=value`, each partition beginning with its number.
fn volumes(said: &str) -> Vec<Volume> {
    let mut volumes: Vec<Volume> = Vec::new();
    for (key, value) in said.lines().filter_map(|line| line.split_once('=')) {
        if key == "number" {
            volumes.push(Volume { number: value.parse().unwrap_or(0), ..Volume::default() });
        }
        let Some(volume) = volumes.last_mut() else { continue };
        let mut is_named = |word: &str| volume.names.push(format!("{word}={}", value.replace('\\', "")));
        match key {
            "UUID" => is_named("UUID"),
            "LABEL" => is_named("LABEL"),
            "PART_ENTRY_UUID" => is_named("PARTUUID"),
            "PART_ENTRY_NAME" => is_named("PARTLABEL"),
            "TYPE" => value.clone_into(&mut volume.kind),
            "state" if value != "clean" => volume.unclean = Some(format!("its state is `{}`", plain(value))),
            "features" if value.split_whitespace().any(|feature| feature == "needs_recovery") => {
                volume.unclean = Some("its journal has to be replayed".to_owned());
            }
            "free" => volume.free = value.parse().unwrap_or(0),
            "mounted" => volume.files = Some(Ok(Tree::default())),
            "complaint" => volume.files = Some(Err(plain(value))),
            _ => {}
        }
    }
    volumes
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn every_script_is_valid_shell() {
        for script in [VOLUMES, LIST, PACK, NAMES] {
            let status = Command::new("sh").args(["-n", "-c", script]).status().unwrap();
            assert!(status.success(), "{script}");
        }
    }

    #[test]
    fn what_the_guest_says_of_partitions() {
        let said = "number=1\nDEVNAME=/dev/vdc1\nLABEL=a\\ b\nUUID=b716\nTYPE=ext4\nPART_ENTRY_UUID=77\nstate=clean\n\
                    features=has_journal needs_recovery\nfree=1024\nmounted=yes\nnumber=2\nPART_ENTRY_UUID=88\nnumber=3\n\
                    TYPE=vfat\ncomplaint=mount: wrong fs type\n";
        let volumes = volumes(said);
        assert_eq!(volumes[0].names, ["LABEL=a b", "UUID=b716", "PARTUUID=77"]);
        assert_eq!((volumes[0].kind.as_str(), volumes[0].free), ("ext4", 1024));
        assert_eq!(volumes[0].unclean.as_deref(), Some("its journal has to be replayed"));
        assert!(volumes[0].tree().is_some() && volumes[1].files.is_none());
        assert_eq!(volumes[2].files, Some(Err("mount: wrong fs type".to_owned())));
    }
}
