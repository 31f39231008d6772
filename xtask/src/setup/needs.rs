//! What goldsmith needs, and what package managers call it.

use std::path::Path;

use super::Purpose;
use crate::shell::find;

/// A package manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manager {
    /// Debian, Ubuntu.
    Apt,
    /// Fedora, RHEL.
    Dnf,
    /// openSUSE, SLES.
    Zypper,
    /// Arch.
    Pacman,
}

impl Manager {
    /// In the order in which they are looked for: a foreign apt is used by mmdebstrap, but manages nothing.
    pub(super) const ALL: [Self; 4] = [Self::Dnf, Self::Zypper, Self::Pacman, Self::Apt];

    /// Its program.
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Apt => "apt-get",
            Self::Dnf => "dnf",
            Self::Zypper => "zypper",
            Self::Pacman => "pacman",
        }
    }
}

/// Something that has to be here.
#[derive(Debug)]
pub(super) struct Need {
    /// What users know it by.
    pub(super) what: &'static str,
    /// Any of these shows that it is here: programs, or files by their full paths.
    signs: &'static [&'static str],
    /// Packages of apt, dnf, zypper and pacman, where they have it.
    packages: [Option<&'static str>; 4],
    /// What it is needed for.
    pub(super) purpose: Purpose,
}

impl Need {
    /// Whether it is here.
    pub(super) fn is_here(&self) -> bool {
        self.signs
            .iter()
            .any(|sign| if sign.starts_with('/') { Path::new(sign).exists() } else { find(sign).is_some() })
    }

    /// What this package manager calls it.
    pub(super) fn package(&self, manager: Manager) -> Option<&'static str> {
        let [apt, dnf, zypper, pacman] = self.packages;
        match manager {
            Manager::Apt => apt,
            Manager::Dnf => dnf,
            Manager::Zypper => zypper,
            Manager::Pacman => pacman,
        }
    }
}

const fn need(
    what: &'static str,
    signs: &'static [&'static str],
    packages: [Option<&'static str>; 4],
    purpose: Purpose,
) -> Need {
    Need { what, signs, packages, purpose }
}

/// The table. RHEL's QEMU lies outside `PATH`.
pub(super) const NEEDS: &[Need] = &[
    need(
        "QEMU",
        &["qemu-system-x86_64", "/usr/libexec/qemu-kvm"],
        [Some("qemu-system-x86"), Some("qemu-kvm"), Some("qemu-x86"), Some("qemu-system-x86")],
        Purpose::Use,
    ),
    need(
        "qemu-img",
        &["qemu-img"],
        [Some("qemu-utils"), Some("qemu-img"), Some("qemu-img"), Some("qemu-img")],
        Purpose::Use,
    ),
    need(
        "UEFI firmware for guests",
        &["/usr/share/OVMF", "/usr/share/edk2/ovmf", "/usr/share/qemu/ovmf-x86_64.bin", "/usr/share/edk2/x64"],
        [Some("ovmf"), Some("edk2-ovmf"), Some("qemu-ovmf-x86_64"), Some("edk2-ovmf")],
        Purpose::Use,
    ),
    need("pasta", &["pasta"], [Some("passt"), Some("passt"), Some("passt"), Some("passt")], Purpose::Use),
    need("ip", &["ip"], [Some("iproute2"), Some("iproute"), Some("iproute2"), Some("iproute2")], Purpose::Use),
    need(
        "mmdebstrap",
        &["mmdebstrap"],
        [Some("mmdebstrap"), Some("mmdebstrap"), Some("mmdebstrap"), None],
        Purpose::Use,
    ),
    need(
        "Debian's archive keys",
        &["/usr/share/keyrings/debian-archive-keyring.gpg"],
        [Some("debian-archive-keyring"), Some("debian-keyring"), None, Some("debian-archive-keyring")],
        Purpose::Use,
    ),
    need(
        "newuidmap",
        &["newuidmap"],
        [Some("uidmap"), Some("shadow-utils"), Some("shadow"), Some("shadow")],
        Purpose::Use,
    ),
    need(
        "mke2fs",
        &["mke2fs"],
        [Some("e2fsprogs"), Some("e2fsprogs"), Some("e2fsprogs"), Some("e2fsprogs")],
        Purpose::Use,
    ),
    need(
        "the static C library that the guest agent is linked with",
        &["/usr/lib/x86_64-linux-gnu/libc.a", "/usr/lib64/libc.a", "/usr/lib/libc.a"],
        [Some("libc6-dev"), Some("glibc-static"), Some("glibc-devel-static"), Some("glibc")],
        Purpose::Use,
    ),
    need("openssl", &["openssl"], [Some("openssl"), Some("openssl"), Some("openssl"), Some("openssl")], Purpose::Test),
    need("mcopy", &["mcopy"], [Some("mtools"), Some("mtools"), Some("mtools"), Some("mtools")], Purpose::Test),
    need(
        "mkfs.vfat",
        &["mkfs.vfat"],
        [Some("dosfstools"), Some("dosfstools"), Some("dosfstools"), Some("dosfstools")],
        Purpose::Test,
    ),
    need("curl", &["curl"], [Some("curl"), Some("curl"), Some("curl"), Some("curl")], Purpose::Test),
    need("gpg", &["gpg"], [Some("gnupg"), Some("gnupg2"), Some("gpg2"), Some("gnupg")], Purpose::Test),
    need(
        "debugfs",
        &["debugfs"],
        [Some("e2fsprogs"), Some("e2fsprogs"), Some("e2fsprogs"), Some("e2fsprogs")],
        Purpose::Test,
    ),
    need("Packer", &["packer"], [Some("packer"), None, None, Some("packer")], Purpose::Bench),
    need(
        "virt-customize",
        &["virt-customize"],
        [Some("guestfs-tools"), Some("guestfs-tools"), Some("guestfs-tools"), Some("guestfs-tools")],
        Purpose::Bench,
    ),
    need(
        "a kernel for virt-customize",
        &["/vmlinuz", "/boot/vmlinuz"],
        [Some("linux-image-cloud-amd64"), None, None, None],
        Purpose::Bench,
    ),
    need(
        "mkfs.vfat",
        &["mkfs.vfat"],
        [Some("dosfstools"), Some("dosfstools"), Some("dosfstools"), Some("dosfstools")],
        Purpose::Bench,
    ),
    need("mcopy", &["mcopy"], [Some("mtools"), Some("mtools"), Some("mtools"), Some("mtools")], Purpose::Bench),
];
