use std::collections::BTreeMap;

use super::facts::{Volume, assemble};
use super::tree::Tree;
use super::*;
use crate::disk::grub::BootCode;
use crate::disk::partition::Extent;
use crate::disk::table::{Kind, Partition, Role, Table};
use crate::disk::{GIB, MIB};

const MENU: &str = "terminal_output serial console\nset timeout=0\nmenuentry 'Linux' {\n  linux /boot/vmlinuz-6.1-cloud \
                    root=UUID=77-aa ro console=tty0 console=ttyS0,115200\n  initrd /boot/initrd.img-6.1-cloud\n}\n";
const MODULES: [&str; 12] = [
    "block/virtio_blk",
    "block/xen-blkfront",
    "scsi/virtio_scsi",
    "scsi/vmw_pvscsi",
    "hv/hv_vmbus",
    "scsi/hv_storvsc",
    "virtio/virtio_pci",
    "net/ena",
    "net/virtio_net",
    "net/vmxnet3",
    "net/hv_netvsc",
    "net/xen-netfront",
];

/// The root file system of an image like those that goldsmith makes.
fn root() -> Tree {
    let mut tree = Tree::default()
        .with("/etc/os-release", "ID=debian\n")
        .with("/etc/fstab", "UUID=77-aa / ext4 rw,discard 0 1\nUUID=FCAA-7C85 /boot/efi vfat umask=0077 0 1\n")
        .with("/boot/grub/grub.cfg", MENU)
        .with("/boot/vmlinuz-6.1-cloud", "kernel")
        .with("/boot/initrd.img-6.1-cloud", "initramfs")
        .with("/usr/lib/modules/6.1-cloud/modules.builtin", "kernel/drivers/nvme/host/nvme.ko\n")
        .with("/usr/lib64/ld-linux-x86-64.so.2", "")
        .with_link("/lib", "usr/lib")
        .with_link("/lib64", "usr/lib64")
        .with("/usr/bin/cloud-init", "")
        .with("/usr/lib/python3/dist-packages/cloudinit/version.py", "__VERSION__ = \"22.4.2\"\n")
        .with("/etc/cloud/cloud.cfg", "users: [default]\nsystem_info: {default_user: {name: debian}}\n")
        .with("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\ndebian:x:1000:1000:D:/home/debian:/bin/bash\n")
        .with("/etc/shadow", "root:*:1::::::\ndebian:!:1::::::\n")
        .with("/etc/group", "sudo:x:27:debian\n")
        .with("/etc/machine-id", "")
        .with_link("/etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf")
        .with("/usr/sbin/sshd", "")
        .with("/etc/ssh/sshd_config", "UsePAM yes\n")
        .with("/etc/systemd/network/90-default.network", "[Match]\nName=en* eth*\n[Network]\nDHCP=yes\n")
        .with("/home/debian/.bashrc", "")
        .with("/root/.profile", "");
    for unit in ["ssh", "systemd-networkd", "systemd-timesyncd", "cloud-init"] {
        let path = format!("/etc/systemd/system/multi-user.target.wants/{unit}.service");
        tree = tree.with_link(&path, &format!("/lib/systemd/system/{unit}.service"));
    }
    for module in MODULES {
        tree = tree.with(&format!("/usr/lib/modules/6.1-cloud/kernel/drivers/{module}.ko"), "");
    }
    tree
}

fn efi() -> Tree {
    Tree::default()
        .with("/EFI/BOOT/BOOTX64.EFI", "shim")
        .with("/EFI/BOOT/grubx64.efi", "grub")
        .with("/EFI/debian/grub.cfg", "search.fs_uuid 77-aa root\n")
}

fn volume(number: u32, kind: &str, name: &str, tree: Tree) -> Volume {
    let (kind, names) = (kind.to_owned(), vec![name.to_owned()]);
    Volume { number, kind, names, unclean: None, files: Some(Ok(tree)), free: 900 * MIB }
}

/// What is read of an image whose root file system is this.
fn facts(root: Tree) -> Facts {
    let volumes = vec![volume(1, "ext4", "UUID=77-aa", root), volume(3, "vfat", "UUID=FCAA-7C85", efi())];
    let system = assemble(&volumes).unwrap();
    let place =
        |number, start, role| Partition { number, extent: Extent { start: start * MIB, length: 100 * MIB }, role };
    let partitions = vec![place(1, 300, Role::Other), place(2, 1, Role::BiosBoot), place(3, 150, Role::EfiSystem)];
    let names = MODULES.map(|module| format!("usr/lib/modules/6.1-cloud/kernel/drivers/{module}.ko.xz"));
    Facts {
        size: 2 * GIB,
        table: Ok(Table { kind: Kind::Gpt, partitions, problems: Vec::new() }),
        boot_code: BootCode::Grub { is_whole: true },
        volumes,
        initramfs: BTreeMap::from([("/boot/initrd.img-6.1-cloud".to_owned(), Ok(names.into()))]),
        free: system.free,
        system: system.tree,
        traces: Vec::new(),
        tested: Ok(()),
        nvme: Some(Ok(())),
    }
}

/// What is not as it should be, a line each.
fn complaints(facts: &Facts, target: Option<Target>) -> String {
    let report = judge(facts, target);
    let all = report.checks.iter().flat_map(|check| check.findings.iter().map(move |finding| (check, finding)));
    let bad = all.filter(|(_, finding)| finding.verdict >= Verdict::Warn);
    let lines = bad.map(|(check, finding)| format!("{} {}: {}", check.number, finding.verdict.name(), finding.reason));
    lines.collect::<Vec<_>>().join("\n")
}

fn of_root(root: Tree) -> String {
    complaints(&facts(root), Some(Target::Aws))
}

#[test]
fn numbers_are_in_order() {
    assert!((1..).zip(&CHECKS).all(|(number, check)| check.number == number));
}

#[test]
fn a_good_image_is_ready_everywhere() {
    for target in Target::ALL {
        assert_eq!(judge(&facts(root()), Some(target)).refusal(), None, "{target}");
    }
    assert_eq!(of_root(root()), "");
    insta::assert_snapshot!(complaints(&facts(root()), None), @"
    8 warn: azure: kernel 6.1-cloud has no driver mana, for some of its machines
    8 warn: gcp: kernel 6.1-cloud has no driver gve, for some of its machines
    15 warn: vmware: open-vm-tools are not installed
    ");
}

#[test]
fn what_fails_in_some_clouds_only_is_a_warning_until_they_are_asked_for() {
    let without = root().without("/usr/lib/modules/6.1-cloud/kernel/drivers/net/ena.ko");
    assert!(complaints(&facts(without.clone()), None).contains("8 warn: aws: kernel 6.1-cloud has no driver ena"));
    assert_eq!(of_root(without), "8 fail: kernel 6.1-cloud has no driver ena");
}

#[test]
fn faults_of_the_disk_itself() {
    let mut facts = facts(root());
    facts.table = Ok(Table { problems: vec!["partitions 1 and 2 overlap".to_owned()], ..facts.table.unwrap() });
    facts.boot_code = BootCode::Grub { is_whole: false };
    facts.volumes[0].unclean = Some("its journal has to be replayed".to_owned());
    facts.volumes[1].files = Some(Ok(efi().without("/EFI/BOOT/BOOTX64.EFI")));
    facts.volumes.push(Volume { number: 4, kind: "crypto_LUKS".to_owned(), ..Volume::default() });
    facts.volumes.push(volume(5, "xfs", "UUID=b", root()));
    facts.size += 512;
    facts.free = 10 * MIB;
    facts.tested = Err("the image was not tested".to_owned());
    facts.nvme = Some(Err("a panic".to_owned()));
    insta::assert_snapshot!(complaints(&facts, Some(Target::Aws)), @"
    1 fail: partitions 1 and 2 overlap
    2 fail: GRUB's boot sector is there, and its core image is not where it looks for it
    2 fail: the EFI system partition has no EFI/BOOT/BOOTX64.EFI
    3 fail: the ext4 in partition 1 was not shut down cleanly: its journal has to be replayed
    4 fail: partition 4 is encrypted
    4 fail: another system is in partition 5
    18 fail: 10 MiB are free on the root file system
    18 warn: the disk has 2147484160 bytes, which is no whole number of GiB
    25 fail: the image was not tested
    25 fail: it does not come up from an NVMe disk: a panic
    ");
}

#[test]
fn faults_of_what_is_mounted_and_started() {
    let fstab = "UUID=77-AA / ext4\n/dev/vda2 /srv ext4\nUUID=gone /data xfs\nLABEL=gone /old xfs nofail\nhost /mnt 9p\n\
                 /swapfile none swap\nodd\n";
    let menu = MENU.replace("UUID=77-aa", "/dev/vda1").replace("console=ttyS0,115200", "").replace("=0", "=30");
    let root = root()
        .with("/etc/fstab", fstab)
        .with("/boot/grub/grub.cfg", &menu.replace("terminal_output serial", "terminal_output"))
        .without("/boot/initrd.img-6.1-cloud")
        .with_link("/boot/grub/grubenv", "../../data/grubenv");
    let mut facts = facts(root);
    facts.initramfs.clear();
    insta::assert_snapshot!(complaints(&facts, Some(Target::Aws)), @"
    5 fail: line 7 can't be understood
    5 fail: /srv is named /dev/vda2, which is another name on another machine
    5 fail: /data is UUID=gone, which is not on this disk
    5 fail: /mnt is a 9p of the machine that the image comes from
    5 fail: the swap file /swapfile is not there
    5 warn: /old is LABEL=gone, which is not on this disk
    6 fail: root=/dev/vda1 is another disk on another machine
    6 warn: the kernel says nothing on the serial console
    7 fail: /boot/initrd.img-6.1-cloud is not there
    9 fail: the boot menu names /boot/initrd.img-6.1-cloud, which is not there
    9 warn: the menu waits for 30 s
    9 warn: the menu is not on the serial console
    10 warn: /boot/grub/grubenv is a link to ../../data/grubenv, in another file system
    ");
}

#[test]
fn an_initial_ram_disk_without_the_targets_disks() {
    let mut facts = facts(root().with("/usr/lib/modules/6.1-cloud/modules.builtin", ""));
    insta::assert_snapshot!(complaints(&facts, Some(Target::Aws)), @"7 fail: the driver nvme is neither in the initial RAM disk nor in the kernel");
    let names: &mut Vec<String> = facts.initramfs.values_mut().next().unwrap().as_mut().unwrap();
    names.push("kernel/drivers/nvme/host/nvme.ko.zst".to_owned());
    assert_eq!(complaints(&facts, Some(Target::Aws)), "");
    facts.initramfs.values_mut().for_each(|names| *names = Err("not in gzip format".to_owned()));
    insta::assert_snapshot!(complaints(&facts, Some(Target::Aws)), @"7 fail: /boot/initrd.img-6.1-cloud can't be unpacked: not in gzip format");
}

#[test]
fn entries_in_files_of_their_own() {
    let entry = "title Fedora\nversion 6.1\nlinux /vmlinuz-6.1-cloud\ninitrd /initrd.img-6.1-cloud $tuned_initrd\n\
                 options root=UUID=77-aa $kernelopts\n";
    let bls = root()
        .without("/boot/grub/grub.cfg")
        .with("/boot/grub2/grub.cfg", "terminal_output serial\ninsmod blscfg\nblscfg\n")
        .with("/boot/grub2/grubenv", "# GRUB Environment Block\nsaved_entry=abc-6.1\nkernelopts=console=ttyS0\n####")
        .with("/boot/loader/entries/abc-6.1.conf", entry)
        .with("/boot/loader/entries/zzz-5.0.conf", &entry.replace("6.1", "5.0"));
    insta::assert_snapshot!(of_root(bls.clone()), @r"
    9 fail: the boot menu names /vmlinuz-5.0-cloud, which is not there
    9 fail: the boot menu names /initrd.img-5.0-cloud, which is not there
    ");
    let renamed = bls
        .without("/boot/loader/entries/zzz-5.0.conf")
        .with("/boot/grub2/grubenv", "saved_entry=gone\nkernelopts=console=ttyS0\n");
    insta::assert_snapshot!(of_root(renamed), @"9 warn: the saved default, gone, has no entry");
}

#[test]
fn cloud_init_has_to_know_the_cloud() {
    let with = |text: &str| root().with("/etc/cloud/cloud.cfg.d/90_dpkg.cfg", text);
    insta::assert_snapshot!(of_root(with("datasource_list: [NoCloud, None]\n")), @"11 fail: /etc/cloud/cloud.cfg.d/90_dpkg.cfg names the data sources NoCloud, None, and not Ec2");
    assert_eq!(
        of_root(with("datasource_list: [NoCloud]\n").with("/etc/cloud/cloud.cfg.d/99.cfg", "datasource_list: [Ec2]")),
        ""
    );
    insta::assert_snapshot!(of_root(root().with("/etc/cloud/cloud-init.disabled", "").with("/var/lib/cloud/instance", "")), @"
    11 fail: cloud-init is not enabled
    13 fail: nothing makes host keys, without which the SSH server does not start
    ");
    let people = |text: &str| of_root(root().with("/etc/cloud/cloud.cfg.d/99.cfg", text));
    for text in [
        "user: { name: admin, plain_text_passwd: x, lock_passwd: false }",
        "chpasswd: { expire: false, users: [{ name: root, password: x, type: text }] }",
    ] {
        assert_eq!(people(text), "14 fail: /etc/cloud/cloud.cfg.d/99.cfg gives every copy a password", "{text}");
    }
    assert!(people("user: { ssh_authorized_keys: [ssh-ed25519 AAAA] }").contains("by a key"));
    assert_eq!(people("chpasswd: { users: [{ name: root, type: RANDOM }] }"), "");
    let grown = root().with("/etc/cloud/cloud.cfg.d/x.cfg", "cloud_init_modules: [write-files]\nresize_rootfs: false");
    insta::assert_snapshot!(of_root(grown.with("/var/lib/cloud/instances/i-1/obj.pkl", "")), @r"
    11 fail: /var/lib/cloud/instances is that of an earlier instance
    11 warn: the root file system does not grow with the disk
    ");
    let old = root().with("/usr/lib/python3/dist-packages/cloudinit/version.py", "__VERSION__ = \"18.3\"\n");
    insta::assert_snapshot!(of_root(old), @"22 warn: cloud-init is of version 18.3, which asks for metadata without a token");
}

#[test]
fn addresses_come_by_dhcp_on_any_card() {
    let with = |text: &str| of_root(root().with("/etc/systemd/network/90-default.network", text));
    insta::assert_snapshot!(with("[Match]\nName=ens3\n[Network]\nDHCP=yes\n"), @"12 fail: /etc/systemd/network/90-default.network is for ens3, which no other machine has");
    insta::assert_snapshot!(with("[Match]\nName=en*\n[Network]\nAddress=192.0.2.2/24\n"), @"12 fail: /etc/systemd/network/90-default.network gives a card a fixed address");
    let silent = root()
        .without("/etc/systemd/network/90-default.network")
        .with("/etc/cloud/cloud.cfg.d/net.cfg", "network: {config: disabled}")
        .with("/etc/udev/rules.d/70-persistent-net.rules", "SUBSYSTEM==\"net\"");
    insta::assert_snapshot!(of_root(silent), @r"
    12 fail: /etc/udev/rules.d/70-persistent-net.rules gives cards names by their addresses
    12 fail: nothing asks for an address by DHCP
    ");
}

#[test]
fn whoever_logs_in_is_let_in_by_the_cloud() {
    let open = root()
        .with("/etc/ssh/sshd_config", "PermitRootLogin yes\n")
        .without("/etc/systemd/system/multi-user.target.wants/ssh.service")
        .without("/etc/resolv.conf")
        .with("/etc/resolv.conf", "nameserver 10.0.2.3\n");
    insta::assert_snapshot!(of_root(open), @r"
    13 warn: the SSH server is not started
    13 warn: root may log in with a password
    23 warn: /etc/resolv.conf names 10.0.2.3
    ");
}

#[test]
fn everything_that_a_build_can_leave_is_found() {
    let left = root()
        .with("/root/.ssh/authorized_keys", "ssh-ed25519 AAAA")
        .with("/home/debian/.ssh/authorized_keys2", "ssh-ed25519 AAAA")
        .with("/etc/ssh/ssh_host_rsa_key", "PRIVATE KEY-----")
        .with("/etc/machine-id", "0123456789abcdef\n")
        .with("/var/lib/systemd/random-seed", "x")
        .with("/root/.bash_history", "mysql -p secret\n")
        .with("/etc/environment", "http_proxy=http://proxy.corp:3128\n")
        .with("/root/.aws/credentials", "x")
        .with("/home/debian/.ssh/id_ed25519", "-----BEGIN OPENSSH PRIVATE KEY-----\n")
        .with("/etc/app.conf", "key=AKIAABCDEFGHIJKLMNOP\n")
        .with("/etc/shadow", "root:$6$x$y:1::::::\nnobody::1::::::\n")
        .with(
            "/etc/passwd",
            "root:x:0:0::/root:/bin/bash\npacker:x:1001:1001::/home/packer:/bin/sh\napp:x:1002:1002::/srv:/bin/sh\n",
        )
        .with("/etc/sudoers.d/packer", "packer ALL=(ALL) NOPASSWD:ALL\n")
        .with("/etc/cloud/cloud.cfg.d/pw.cfg", "password: changeme\nssh_pwauth: true\n");
    let mut facts = facts(left);
    facts.traces = vec!["the secret `token`".to_owned()];
    let report = judge(&facts, Some(Target::Aws));
    let check = &report.checks[13];
    assert_eq!((check.number, check.verdict), (14, Verdict::Fail));
    let mut findings = Findings::default();
    findings.0.extend(identity::left_overs(&facts, Target::Aws).0);
    let lines = findings.0.iter().map(|finding| format!("{}: {}", finding.verdict.name(), finding.reason));
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"), @"
    fail: /home/debian/.ssh/authorized_keys2 lets somebody log in
    fail: /root/.ssh/authorized_keys lets somebody log in
    fail: /etc/ssh/ssh_host_rsa_key would be the host key of every copy
    fail: /etc/machine-id would be that of every copy
    fail: /var/lib/systemd/random-seed would be that of every copy
    fail: root has a password
    fail: nobody may log in without a password
    fail: the account packer, which may do everything, is not one that cloud-init makes
    warn: there is an account app that cloud-init does not make; it can't log in by itself
    fail: /etc/cloud/cloud.cfg.d/pw.cfg gives every copy a password
    warn: /etc/cloud/cloud.cfg.d/pw.cfg lets people log in by password over SSH
    fail: /root/.bash_history holds what was typed
    fail: /etc/environment names a proxy
    fail: /root/.aws/credentials holds credentials
    fail: /etc/app.conf holds what looks like an access token
    fail: /home/debian/.ssh/id_ed25519 holds a private key
    fail: the secret `token` is somewhere on the disk
    ");
    // No content of a file is told.
    let told = serde_json::to_string(&report).unwrap();
    for secret in ["AKIA", "$6$", "changeme", "mysql", "proxy.corp"] {
        assert!(!told.contains(secret), "{secret}");
    }
}

/// The table in the documentation says what the code says.
#[test]
fn the_documented_table_is_this_one() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/checks.md");
    let text = fs_err::read_to_string(path).unwrap();
    for check in &CHECKS {
        let row = format!("| {} | {} | {} | {} |", check.number, check.name, check.wants, check.prevents);
        assert!(text.contains(&row), "docs/checks.md lacks:\n{row}");
    }
}
