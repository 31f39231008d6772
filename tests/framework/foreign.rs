//! A machine that goldsmith has no part in: plain QEMU, and a seed disk made by other tools.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What the guest says on its console at the end, and then powers off. The page is fetched as any client would.
const USER_DATA: &str = r#"#cloud-config
runcmd:
  - - sh
    - -c
    - |
      for i in $(seq 60); do curl -sf http://localhost/ >/run/page && break; sleep 1; done
      tell() { echo "FOREIGN $*" >/dev/ttyS0; }
      tell machine-id $(cat /etc/machine-id)
      tell host-key $(ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub | cut -d ' ' -f 2)
      tell page $(cat /run/page)
      tell firmware $(test -d /sys/firmware/efi && echo uefi || echo bios)
      tell host-name $(hostname)
      tell root-size $(df --output=size -BM / | tail -1)
      sync
      poweroff
"#;

/// Where the parent's description has its root file system begin.
pub(super) const ROOT: u64 = 128 << 20;

/// Files that QEMU takes as UEFI firmware and variables, by distribution.
const UEFI: [(&str, &str); 3] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
];

/// What a guest has said of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Told(Vec<(String, String)>);

impl Told {
    /// One of the things it said.
    pub(crate) fn of(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map_or_else(|| panic!("{name} was not told: {self:?}"), |(_, value)| value.as_str())
    }
}

/// What a disk and a network hang on.
#[derive(Clone, Copy)]
pub(crate) enum Hardware {
    Virtio,
    /// What an appliance asks for.
    Vmware,
}

/// Boots a disk, of which nothing is changed, and returns what the guest says.
pub(crate) fn boot(disk: &Path, format: &str, is_uefi: bool, hardware: Hardware) -> Told {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let at = |name: &str| folder.path().join(name);
    run(Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", format, "-b"])
        .arg(disk)
        .args([at("disk"), "4G".into()]));
    seed(folder.path());
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-machine", "q35", "-m", "1024", "-smp", "2", "-nodefaults", "-display", "none", "-no-reboot"]);
    let drive = |how: &str, name: &str, format: &str| format!("{how},format={format},file={}", at(name).display());
    qemu.args(["-drive", &drive("if=virtio", "seed", "raw"), "-drive", &drive("if=none,id=d", "disk", "qcow2")]);
    let (disk_devices, network): (&[&str], &str) = match hardware {
        Hardware::Virtio => (&["-device", "virtio-blk-pci,drive=d,bootindex=0"], "virtio-net-pci,netdev=n"),
        Hardware::Vmware => {
            (&["-device", "pvscsi,id=s", "-device", "scsi-hd,bus=s.0,drive=d,bootindex=0"], "vmxnet3,netdev=n")
        }
    };
    qemu.args(disk_devices).args(["-netdev", "user,id=n", "-device", network]);
    qemu.arg("-serial").arg(format!("file:{}", at("console").display()));
    if is_uefi {
        let (code, variables) = UEFI.iter().find(|(code, _)| Path::new(code).exists()).expect("no UEFI firmware");
        fs_err::copy(variables, at("variables")).unwrap();
        qemu.args(["-drive", &format!("if=pflash,format=raw,readonly=on,file={code}")]);
        qemu.args(["-drive", &format!("if=pflash,format=raw,file={}", at("variables").display())]);
    }
    let mut child = qemu.stdin(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(600);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{} did not boot:\n{}", disk.display(), console(&at("console")));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let console = console(&at("console"));
    let told: Vec<(String, String)> = console
        .lines()
        .filter_map(|line| line.split("FOREIGN ").nth(1)?.trim().split_once(' '))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    assert!(!told.is_empty(), "{} said nothing:\n{console}", disk.display());
    Told(told)
}

fn console(path: &Path) -> String {
    String::from_utf8_lossy(&fs_err::read(path).unwrap_or_default()).into_owned()
}

/// A NoCloud volume by dosfstools and mtools.
fn seed(folder: &Path) {
    let at = |name: &str| folder.join(name);
    fs_err::write(at("user-data"), USER_DATA).unwrap();
    let id = folder.file_name().unwrap().to_string_lossy();
    fs_err::write(at("meta-data"), format!("instance-id: foreign-{id}\nlocal-hostname: foreign\n")).unwrap();
    fs_err::File::create(at("seed")).unwrap().set_len(2 << 20).unwrap();
    run(Command::new(tool("mkfs.vfat")).args(["-n", "CIDATA"]).arg(at("seed")));
    run(Command::new("mcopy").arg("-i").arg(at("seed")).args([at("user-data"), at("meta-data")]).arg("::"));
}

/// Folders for administrators are not in every user's `PATH`.
pub(super) fn tool(name: &str) -> String {
    let folders = ["/usr/sbin/", "/sbin/"];
    folders
        .iter()
        .map(|folder| format!("{folder}{name}"))
        .find(|path| Path::new(path).exists())
        .unwrap_or_else(|| name.to_owned())
}

/// Runs a tool to its good end.
pub(crate) fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Everything in the root file system of a disk of the shared parent's kind: what it is, whose, and its content, by path.
/// e2fsprogs reads it, as it is, and no guest.
pub(crate) fn file_tree(disk: &Path) -> BTreeMap<String, String> {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let (raw, root) = (folder.path().join("raw"), folder.path().join("root"));
    run(Command::new("qemu-img").args(["convert", "-U", "-f", "qcow2", "-O", "raw"]).arg(disk).arg(&raw));
    fs_err::create_dir(&root).unwrap();
    let dump = format!("rdump / {}", root.display());
    run(Command::new("debugfs").args(["-R", &dump]).arg(format!("{}?offset={ROOT}", raw.display())));
    let mut tree = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs_err::symlink_metadata(&path).unwrap();
            let content = if metadata.is_symlink() {
                format!("{}", fs_err::read_link(&path).unwrap().display())
            } else if metadata.is_file() {
                // A digest that the standard library has; nobody forges these files.
                let mut hasher = std::hash::DefaultHasher::new();
                std::hash::Hasher::write(&mut hasher, &fs_err::read(&path).unwrap());
                format!("{} {:x}", metadata.len(), std::hash::Hasher::finish(&hasher))
            } else {
                String::new()
            };
            let (mode, owner, group) = (metadata.mode(), metadata.uid(), metadata.gid());
            let name = format!("/{}", path.strip_prefix(&root).unwrap().display());
            tree.insert(name, format!("{mode:o} {owner}:{group} {content}"));
            if metadata.is_dir() {
                folders.push(path);
            }
        }
    }
    tree
}
