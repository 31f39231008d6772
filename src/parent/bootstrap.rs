//! A base image from Debian's signed packages.
//!
//! `mmdebstrap` resolves, verifies and installs the packages and hands over a tar archive; goldsmith lays out the disk:
//!
//! ```text
//!   mmdebstrap ──tar──► Tree + configuration ──► ext4 ─┐
//!      └ grub-mkimage, in the new system's own GRUB    ├─► raw disk ──► qcow2
//!                     shim, GRUB ─────────► FAT ───────┤
//!                     boot.img, core.img ──► BIOS boot ┘
//! ```
//!
//! Neither needs root. The result boots by BIOS and by UEFI (fallback path, signed shim), and is an ordinary cloud
//! image: everything that makes it ours is in the base image's document.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use fs_err::File;

use super::{Error, Event, Listener, download};
use crate::disk::ext4::Tree;
use crate::disk::fat::{self, Volume};
use crate::disk::partition::Layout;
use crate::disk::probe::Format;
use crate::disk::qemu_img::{self, Target};
use crate::disk::{Slice, grub};
use crate::document::base_image::Bootstrap;
use crate::host::address::Address;
use crate::host::file;
use crate::host::process::Program;
use crate::store::Run;

/// Runs inside mmdebstrap, with the new system's folder as `$1`. What GRUB's installer would do, as far as it needs no
/// block device; the core image finds the root file system by its UUID.
const GRUB_HOOK: &str = r#"set -e
mkdir -p "$1/boot/grub/i386-pc"
cp "$1"/usr/lib/grub/i386-pc/*.mod "$1"/usr/lib/grub/i386-pc/*.lst "$1/boot/grub/i386-pc/"
printf 'search.fs_uuid %s root\nset prefix=($root)/boot/grub\n' UUID > "$1/tmp/early.cfg"
chroot "$1" grub-mkimage -O i386-pc -o /boot/grub/i386-pc/core.img -p /boot/grub -c /tmp/early.cfg \
  biosdisk part_gpt ext2 search_fs_uuid
rm "$1/tmp/early.cfg""#;

/// Runs inside mmdebstrap, with the new system's folder as `$1` and the units in place of `UNITS`.
const SERVICES_HOOK: &str = "chroot \"$1\" systemctl --quiet enable UNITS";

/// Where Debian keeps the keys that its archive is signed with; on other distributions too.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A largest plausible configuration file of cloud-init.
const CLOUD_CONFIG: &str = "/etc/cloud/cloud.cfg";

/// Makes the base image's disk in a run's folder.
pub(super) async fn make(recipe: &Bootstrap, run: &Run, listener: Listener<'_>) -> Result<PathBuf, Error> {
    let identity = Identity::random();
    listener(Event::Begins(format!("installing Debian {} from its packages", recipe.suite)));
    let mut tree = install(recipe, &identity, run).await?;
    listener(Event::Begins("laying out the disk".to_owned()));
    configure(&mut tree, recipe, &identity)?;
    let raw = run.path("base.raw");
    lay_out(&tree, recipe, &identity, &raw, run.folder()).await?;
    let disk = run.path("base.qcow2");
    let target = Target { path: &disk, format: "qcow2", options: &[], compress: true };
    qemu_img::convert(&raw, Format::Raw, target, &|_| {}).await?;
    fs::remove_file(raw)?;
    Ok(disk)
}

/// What file systems are found by.
struct Identity {
    root: String,
    efi: u32,
}

impl Identity {
    fn random() -> Self {
        let (efi, ..) = uuid::Uuid::new_v4().as_fields();
        Self { root: uuid::Uuid::new_v4().to_string(), efi }
    }
}

/// Runs mmdebstrap and unpacks what it hands over.
async fn install(recipe: &Bootstrap, identity: &Identity, run: &Run) -> Result<Tree, Error> {
    let mut program = Program::new("mmdebstrap").args(["--variant=minbase", "--format=tar"]);
    program = program.arg(format!("--include={}", recipe.packages.join(",")));
    program = program.arg(format!("--customize-hook={}", GRUB_HOOK.replace("UUID", &identity.root)));
    if !recipe.services.is_empty() {
        let hook = SERVICES_HOOK.replace("UNITS", &recipe.services.join(" "));
        program = program.arg(format!("--customize-hook={hook}"));
    }
    // The system is thrown away when the power fails, so nothing is gained by syncing each file.
    program = program.arg("--dpkgopt=force-unsafe-io").args([&recipe.suite, "-"]);
    for line in sources(recipe).await {
        program = program.arg(line);
    }
    let chroot = Chroot(run.folder_outside()?);
    let mut child = program.env("TMPDIR", &chroot.0).spawn().map_err(Error::Packages)?;
    let stdout = child.take_stdout().ok_or_else(|| io::Error::other("mmdebstrap has no output"))?;
    let stdout: File = File::from_parts(stdout.into_owned_fd()?.into(), "mmdebstrap's output");
    set_blocking(&stdout)?;
    let folder = run.path("root");
    fs::create_dir(&folder)?;
    let tree = tokio::task::spawn_blocking(move || Tree::unpack(stdout, &folder)).await.map_err(io::Error::other)?;
    // A failed mmdebstrap cuts the archive off; its own words say more than the cut.
    child.success().await.map_err(Error::Packages)?;
    Ok(tree?)
}

/// Where mmdebstrap unpacks packages, for an ordinary user as root of a namespace: another number of the host's, to
/// which neither the user's home nor the store is open.
struct Chroot(PathBuf);

impl Drop for Chroot {
    fn drop(&mut self) {
        // What can't be removed now is removed by the next recovery.
        let _later = file::remove_tree(&self.0);
    }
}

fn set_blocking(file: &File) -> io::Result<()> {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    let flags = fcntl_getfl(file)?;
    Ok(fcntl_setfl(file, flags - OFlags::NONBLOCK)?)
}

/// A digest of the package indexes that the system would be made from now; none where the host knows no mirror.
///
/// It changes with any package of the archive's, also with one that the system has not. Whether the change concerns it
/// only the package manager can tell, after it has done most of the work.
pub(super) async fn indexes(recipe: &Bootstrap) -> Result<Option<String>, Error> {
    let mut digests = String::new();
    for line in sources(recipe).await {
        let Some((mirror, suite)) = archive(&line) else { continue };
        let address = Address::new(format!("{}/dists/{suite}/InRelease", mirror.trim_end_matches('/')));
        let release = download::fetch_small(&address, MAX_RELEASE).await?;
        digests.push_str(&index_digests(&String::from_utf8_lossy(&release)));
    }
    Ok((!digests.is_empty()).then(|| file::sha256_of(digests.as_bytes())))
}

/// A release file lists a few thousand indexes.
const MAX_RELEASE: usize = 4 << 20;

/// Mirror and suite of a line of `sources.list`.
fn archive(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split_whitespace().filter(|word| *word != "deb" && !word.starts_with('['));
    Some((words.next()?, words.next()?))
}

/// The lines of a release file with the SHA-256 of its indexes of packages. Its date is none of them: archives renew it
/// without a change.
fn index_digests(release: &str) -> String {
    let is_index = |line: &&str| line.contains("main/binary-") && line.ends_with("/Packages.xz");
    let listed = release.lines().skip_while(|line| *line != "SHA256:").skip(1).take_while(|line| line.starts_with(' '));
    listed.filter(is_index).map(|line| format!("{line}\n")).collect()
}

/// Lines of `sources.list` for mmdebstrap: the base image's mirror, else the host's own where the host is a Debian, else
/// none, and mmdebstrap takes its default.
async fn sources(recipe: &Bootstrap) -> Vec<String> {
    let signed_by = if Path::new(KEYRING).exists() { format!("[signed-by={KEYRING}] ") } else { String::new() };
    if let Some(mirror) = &recipe.mirror {
        let suites = ["", "-updates"].map(|suffix| format!("{}{suffix}", recipe.suite));
        let mut lines = suites.map(|suite| format!("deb {signed_by}{mirror} {suite} main")).to_vec();
        let security = recipe.security_mirror.iter();
        lines.extend(security.map(|security| format!("deb {signed_by}{security} {}-security main", recipe.suite)));
        return lines;
    }
    let format = "$(REPO_URI) $(LABEL)";
    let ask = Program::new("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]);
    // A host without apt has no mirror of Debian's.
    let Ok(answer) = ask.output().await else { return Vec::new() };
    let lists = String::from_utf8_lossy(&answer);
    let (main, security) = debian_mirrors(&lists);
    let mut lines = Vec::new();
    if let (Some(main), Some(security)) = (main, security) {
        let suite = &recipe.suite;
        lines.push(format!("deb {signed_by}{main} {suite} main"));
        lines.push(format!("deb {signed_by}{main} {suite}-updates main"));
        lines.push(format!("deb {signed_by}{security} {suite}-security main"));
    }
    lines
}

/// The addresses of Debian's archive and of its security archive in a host's package lists.
fn debian_mirrors(lists: &str) -> (Option<&str>, Option<&str>) {
    let address = |label: &str| {
        let mut lines = lists.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(_, found)| *found == label).map(|(address, _)| address.trim_end_matches('/'))
    };
    (address("Debian"), address("Debian-Security"))
}

/// What turns the packages into a cloud image.
fn configure(tree: &mut Tree, recipe: &Bootstrap, identity: &Identity) -> Result<(), Error> {
    for name in tree.list("/etc/ssh").unwrap_or_default() {
        if name.starts_with("ssh_host_") {
            tree.remove(&format!("/etc/ssh/{name}"))?;
        }
    }
    tree.write("/etc/machine-id", 0o444, b"")?;
    tree.remove("/var/lib/dbus/machine-id")?;
    tree.remove("/etc/hostname")?;
    let efi = fat::uuid(identity.efi);
    let fstab = format!(
        "UUID={} / ext4 rw,discard,errors=remount-ro 0 1\nUUID={efi} /boot/efi vfat umask=0077 0 1\n",
        identity.root
    );
    tree.write("/etc/fstab", 0o644, fstab.as_bytes())?;
    tree.write("/boot/efi/.keep", 0o644, b"")?;
    tree.remove("/boot/efi/.keep")?;
    if let Some(sources) = default_sources(tree, &recipe.suite)? {
        tree.write("/etc/apt/sources.list", 0o644, sources.as_bytes())?;
    }
    let defaults = format!(
        "# Read by grub-mkconfig after /etc/default/grub.\nGRUB_TIMEOUT=0\nGRUB_CMDLINE_LINUX=\"{}\"\n",
        recipe.kernel_command_line
    );
    tree.write("/etc/default/grub.d/50-image.cfg", 0o644, defaults.as_bytes())?;
    // Tells the package grub-cloud-amd64 to keep GRUB on the disk up to date.
    tree.write("/etc/grub.d/enable_cloud", 0o644, b"")?;
    let menu = boot_menu(tree, recipe, identity)?;
    tree.write("/boot/grub/grub.cfg", 0o600, menu.as_bytes())?;
    for file in &recipe.files {
        tree.write(&file.path, file.mode, file.content.as_bytes())?;
    }
    for (path, target) in &recipe.links {
        tree.link(path, target)?;
    }
    Ok(())
}

/// The distribution's own mirrors, as its cloud-init knows them, so that an image made from a private mirror does not
/// name it. Plain HTTP as everywhere in Debian: packages are verified by signature, and a proxy can cache them.
fn default_sources(tree: &Tree, suite: &str) -> Result<Option<String>, Error> {
    let Ok(text) = tree.read(CLOUD_CONFIG) else { return Ok(None) };
    let unreadable = |error| Error::System(format!("{CLOUD_CONFIG} can't be read: {error}"));
    let config: serde_yaml::Value = serde_yaml::from_slice(&text).map_err(unreadable)?;
    let mirrors = &config["system_info"]["package_mirrors"][0]["failsafe"];
    let (Some(main), Some(security)) = (mirrors["primary"].as_str(), mirrors["security"].as_str()) else {
        return Ok(None);
    };
    let (main, security) = (main.replace("https://", "http://"), security.replace("https://", "http://"));
    Ok(Some(format!(
        "deb {main} {suite} main\ndeb {main} {suite}-updates main\ndeb {security} {suite}-security main\n"
    )))
}

/// GRUB's menu for the first boot. The first kernel update replaces it by what `grub-mkconfig` makes of
/// `/etc/default/grub`.
fn boot_menu(tree: &Tree, recipe: &Bootstrap, identity: &Identity) -> Result<String, Error> {
    let names = tree.list("/boot")?;
    let version = kernel_version(&names).ok_or_else(|| Error::System("no kernel was installed".to_owned()))?;
    let (root, extra) = (&identity.root, &recipe.kernel_command_line);
    let mut menu = String::from(
        "serial --speed=115200\nterminal_input serial console\nterminal_output serial console\nset timeout=0\n",
    );
    // Writing to a String can't fail.
    let _infallible = write!(
        menu,
        "menuentry 'Linux' {{\n  search --no-floppy --fs-uuid --set=root {root}\n  \
         linux /boot/vmlinuz-{version} root=UUID={root} ro {extra}\n  initrd /boot/initrd.img-{version}\n}}\n"
    );
    Ok(menu)
}

/// The newest kernel that has an initial RAM disk.
fn kernel_version(names: &[String]) -> Option<&str> {
    let versions = names.iter().filter_map(|name| name.strip_prefix("vmlinuz-"));
    let complete = versions.filter(|version| names.contains(&format!("initrd.img-{version}")));
    complete.max_by_key(|version| numbers(version))
}

fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// Writes the disk: partition table, boot loaders, file systems.
async fn lay_out(
    tree: &Tree,
    recipe: &Bootstrap,
    identity: &Identity,
    raw: &Path,
    scratch: &Path,
) -> Result<(), Error> {
    let size = recipe.disk.0;
    let too_small = || Error::System(format!("a disk of {} is too small for its packages", recipe.disk));
    let layout = Layout::of(size).ok_or_else(too_small)?;
    // A tenth is the file system's own; the rest has to leave some room to start in.
    if tree.bytes() / 9 * 10 > layout.root.length {
        return Err(too_small());
    }
    boot_partitions(tree, size, &layout, identity, raw)?;
    Ok(tree.make(raw, layout.root, &identity.root, "root", scratch).await?)
}

/// Everything but the root file system.
fn boot_partitions(tree: &Tree, size: u64, layout: &Layout, identity: &Identity, raw: &Path) -> Result<(), Error> {
    let mut disk = File::options().read(true).write(true).create(true).truncate(true).open(raw)?;
    disk.set_len(size)?;
    layout.write(&mut disk)?;
    let boot = tree.read("/usr/lib/grub/i386-pc/boot.img")?;
    let core = tree.read("/boot/grub/i386-pc/core.img")?;
    grub::install(&mut disk, &boot, &core, layout.bios_boot)?;
    let volume = Volume::format(Slice::new(&mut disk, layout.efi.start, layout.efi.length), "EFI", identity.efi)?;
    efi_partition(tree, identity, &volume)?;
    Ok(volume.finish()?)
}

/// The fallback path, because variables of the firmware don't travel with a disk: UEFI Specification 2.10, section
/// 3.5.1.1. Debian's signed GRUB looks for its configuration in `EFI/debian`.
fn efi_partition<S: io::Read + io::Write + io::Seek>(
    tree: &Tree,
    identity: &Identity,
    volume: &Volume<S>,
) -> Result<(), Error> {
    let config =
        format!("search.fs_uuid {} root\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n", identity.root);
    for (source, target) in [
        ("/usr/lib/shim/shimx64.efi.signed", "EFI/BOOT/BOOTX64.EFI"),
        ("/usr/lib/shim/mmx64.efi.signed", "EFI/BOOT/mmx64.efi"),
        ("/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", "EFI/BOOT/grubx64.efi"),
    ] {
        volume.write(target, &mut &tree.read(source)?[..])?;
    }
    for folder in ["EFI/BOOT", "EFI/debian"] {
        volume.write(&format!("{folder}/grub.cfg"), &mut config.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_files_date_is_no_change() {
        let release = |date: &str, digest: &str| {
            format!(
                "Date: {date}\nMD5Sum:\n 00 1 main/binary-amd64/Packages.xz\nSHA256:\n {digest} 10 main/binary-amd64/Packages.xz\n aa 9 main/source/Sources.xz\n-----BEGIN PGP SIGNATURE-----\n"
            )
        };
        insta::assert_snapshot!(index_digests(&release("today", "ab")), @" ab 10 main/binary-amd64/Packages.xz");
        assert_eq!(index_digests(&release("today", "ab")), index_digests(&release("tomorrow", "ab")));
        assert_ne!(index_digests(&release("today", "ab")), index_digests(&release("today", "ac")));
        assert_eq!(
            archive("deb [signed-by=/k.gpg] http://a/debian bookworm main"),
            Some(("http://a/debian", "bookworm"))
        );
        assert_eq!(archive("deb http://a/debian bookworm main"), Some(("http://a/debian", "bookworm")));
    }

    #[test]
    fn the_hosts_own_mirror_is_told_from_others() {
        let lists = "http://a.example/debian/ Debian\nhttp://a.example/debian/ Debian Backports\n\
                     http://a.example/debian-security/ Debian-Security\nhttps://b.example/ Node Source\n";
        assert_eq!(debian_mirrors(lists), (Some("http://a.example/debian"), Some("http://a.example/debian-security")));
        assert_eq!(debian_mirrors("http://archive.example/ubuntu Ubuntu\n"), (None, None));
    }

    #[test]
    fn the_newest_complete_kernel_is_booted() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let boot = names(&[
            "vmlinuz-6.1.0-9-cloud-amd64",
            "initrd.img-6.1.0-9-cloud-amd64",
            "vmlinuz-6.1.0-56-cloud-amd64",
            "initrd.img-6.1.0-56-cloud-amd64",
            "vmlinuz-6.12.0-1-cloud-amd64",
            "grub",
        ]);
        assert_eq!(kernel_version(&boot), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(kernel_version(&names(&["grub"])), None);
    }
}
