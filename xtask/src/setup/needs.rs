//! What goldsmith needs, and what package managers call it.

use std::path::Path;

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
    /// Whether only tests need it.
    pub(super) for_tests: bool,
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
    for_tests: bool,
) -> Need {
    Need { what, signs, packages, for_tests }
}

/// The table. RHEL's QEMU lies outside `PATH`.
pub(super) const NEEDS: &[Need] = &[
    need(
        "QEMU",
        &["qemu-system-x86_64", "/usr/libexec/qemu-kvm"],
        [Some("qemu-system-x86"), Some("qemu-kvm"), Some("qemu-x86"), Some("qemu-system-x86")],
        false,
    ),
    need("qemu-img", &["qemu-img"], [Some("qemu-utils"), Some("qemu-img"), Some("qemu-img"), Some("qemu-img")], false),
    need(
        "UEFI firmware for guests",
        &["/usr/share/OVMF", "/usr/share/edk2/ovmf", "/usr/share/qemu/ovmf-x86_64.bin", "/usr/share/edk2/x64"],
        [Some("ovmf"), Some("edk2-ovmf"), Some("qemu-ovmf-x86_64"), Some("edk2-ovmf")],
        false,
    ),
    need("pasta", &["pasta"], [Some("passt"), Some("passt"), Some("passt"), Some("passt")], false),
    need("ip", &["ip"], [Some("iproute2"), Some("iproute"), Some("iproute2"), Some("iproute2")], false),
    need("mmdebstrap", &["mmdebstrap"], [Some("mmdebstrap"), Some("mmdebstrap"), Some("mmdebstrap"), None], false),
    need(
        "Debian's archive keys",
        &["/usr/share/keyrings/debian-archive-keyring.gpg"],
        [Some("debian-archive-keyring"), Some("debian-keyring"), None, Some("debian-archive-keyring")],
        false,
    ),
    need("newuidmap", &["newuidmap"], [Some("uidmap"), Some("shadow-utils"), Some("shadow"), Some("shadow")], false),
    need("mke2fs", &["mke2fs"], [Some("e2fsprogs"), Some("e2fsprogs"), Some("e2fsprogs"), Some("e2fsprogs")], false),
    need(
        "the static C library that the guest agent is linked with",
        &["/usr/lib/x86_64-linux-gnu/libc.a", "/usr/lib64/libc.a", "/usr/lib/libc.a"],
        [Some("libc6-dev"), Some("glibc-static"), Some("glibc-devel-static"), Some("glibc")],
        false,
    ),
    need("openssl", &["openssl"], [Some("openssl"), Some("openssl"), Some("openssl"), Some("openssl")], true),
    need("mcopy", &["mcopy"], [Some("mtools"), Some("mtools"), Some("mtools"), Some("mtools")], true),
    need(
        "mkfs.vfat",
        &["mkfs.vfat"],
        [Some("dosfstools"), Some("dosfstools"), Some("dosfstools"), Some("dosfstools")],
        true,
    ),
    need("curl", &["curl"], [Some("curl"), Some("curl"), Some("curl"), Some("curl")], true),
    need("gpg", &["gpg"], [Some("gnupg"), Some("gnupg2"), Some("gpg2"), Some("gnupg")], true),
];
