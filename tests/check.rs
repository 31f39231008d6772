//! Whether an image is ready for the clouds: a good one, and copies of it that are each broken in one way.

use serde_json::Value;

use crate::framework::{Disk, Place, Pristine, bash};

/// A way to break an image, and what has to be said of it.
struct Fault {
    name: &'static str,
    /// The number of the check that has to fail, and of no other.
    check: u64,
    /// What its reason says.
    says: &'static str,
    breaks: fn(&Disk<'_>),
}

/// The version of the only kernel.
fn kernel(disk: &Disk<'_>) -> String {
    let menu = disk.text("/boot/grub/grub.cfg");
    menu.split("/boot/vmlinuz-").nth(1).unwrap().split_whitespace().next().unwrap().to_owned()
}

const FAULTS: [Fault; 21] = [
    Fault {
        name: "cut-table",
        check: 1,
        says: "the copy of the table at the disk's end is of no use",
        breaks: |disk| disk.zero(-512, 512),
    },
    Fault {
        name: "no-core-image",
        check: 2,
        says: "core image is not where",
        breaks: |disk| disk.zero(1 << 20, 1 << 20),
    },
    Fault {
        name: "no-fallback",
        check: 2,
        says: "no EFI/BOOT/BOOTX64.EFI",
        breaks: |disk| disk.remove_from_efi("/EFI/BOOT/BOOTX64.EFI"),
    },
    Fault {
        name: "not-shut-down",
        check: 3,
        says: "not shut down cleanly",
        breaks: |disk| disk.debugfs(&["feature needs_recovery"]),
    },
    Fault {
        name: "disk-names",
        check: 5,
        says: "named /dev/vdb1",
        breaks: |disk| disk.append("/etc/fstab", "/dev/vdb1 /srv ext4 defaults 0 2\n"),
    },
    Fault {
        name: "unknown-uuid",
        check: 5,
        says: "not on this disk",
        breaks: |disk| disk.append("/etc/fstab", "UUID=00000000-0000-4000-8000-000000000000 /srv ext4\n"),
    },
    Fault {
        name: "shared-folder",
        check: 5,
        says: "is a vboxsf",
        breaks: |disk| disk.append("/etc/fstab", "share /mnt vboxsf defaults 0 0\n"),
    },
    Fault {
        name: "root-by-name",
        check: 6,
        says: "root=/dev/vda1 is another disk",
        breaks: |disk| {
            let menu = disk.text("/boot/grub/grub.cfg");
            let uuid = menu.split("root=UUID=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
            disk.replace("/boot/grub/grub.cfg", &menu.replace(&format!("root=UUID={uuid}"), "root=/dev/vda1"));
        },
    },
    Fault {
        name: "cut-initramfs",
        check: 7,
        says: "can't be unpacked",
        breaks: |disk| disk.replace(&format!("/boot/initrd.img-{}", kernel(disk)), "no archive"),
    },
    Fault {
        name: "no-nvme",
        check: 7,
        says: "the driver nvme is neither in the initial RAM disk nor in the kernel",
        breaks: |disk| {
            let list = format!("/usr/lib/modules/{}/modules.builtin", kernel(disk));
            let text = disk.text(&list);
            let others = text.lines().filter(|line| !line.ends_with("/nvme.ko"));
            disk.replace(&list, &others.map(|line| format!("{line}\n")).collect::<String>());
        },
    },
    Fault {
        name: "no-ena",
        check: 8,
        says: "has no driver ena",
        breaks: |disk| {
            let folder = format!("/usr/lib/modules/{}/kernel/drivers/net/ethernet/amazon/ena", kernel(disk));
            disk.debugfs(&[&format!("rm {folder}/ena.ko")]);
        },
    },
    Fault {
        name: "no-kernel",
        check: 9,
        says: "which is not there",
        breaks: |disk| disk.debugfs(&[&format!("rm /boot/vmlinuz-{}", kernel(disk))]),
    },
    Fault {
        name: "no-ec2",
        check: 11,
        says: "and not Ec2",
        breaks: |disk| disk.write("/etc/cloud/cloud.cfg.d/90_dpkg.cfg", "datasource_list: [ NoCloud, None ]\n"),
    },
    Fault {
        name: "fixed-address",
        check: 12,
        says: "a fixed address",
        breaks: |disk| {
            let text = "[Match]\nName=en*\n\n[Network]\nAddress=192.0.2.2/24\n";
            disk.write("/etc/systemd/network/10-site.network", text);
        },
    },
    Fault {
        name: "authorized-key",
        check: 14,
        says: "/root/.ssh/authorized_keys lets somebody log in",
        breaks: |disk| disk.write("/root/.ssh/authorized_keys", "ssh-ed25519 AAAA somebody\n"),
    },
    Fault {
        name: "host-key",
        check: 14,
        says: "ssh_host_ed25519_key would be the host key of every copy",
        breaks: |disk| disk.write("/etc/ssh/ssh_host_ed25519_key", "key\n"),
    },
    Fault {
        name: "machine-id",
        check: 14,
        says: "/etc/machine-id would be that of every copy",
        breaks: |disk| disk.replace("/etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
    },
    Fault {
        name: "build-user",
        check: 14,
        says: "packer has a password",
        breaks: |disk| {
            disk.append("/etc/passwd", "packer:x:1001:1001::/home/packer:/bin/bash\n");
            disk.append("/etc/shadow", "packer:$6$salt$hash:20000:0:99999:7:::\n");
        },
    },
    Fault {
        name: "history",
        check: 14,
        says: "/root/.bash_history holds what was typed",
        breaks: |disk| disk.write("/root/.bash_history", "mysql -p\n"),
    },
    Fault {
        name: "proxy",
        check: 14,
        says: "/etc/environment names a proxy",
        breaks: |disk| disk.append("/etc/environment", "http_proxy=http://proxy.example:3128\n"),
    },
    Fault {
        name: "secret",
        check: 14,
        says: "the secret `token` is somewhere on the disk",
        breaks: |disk| disk.write("/opt/settings", "token: opensesame-1234567890\n"),
    },
];

/// The numbers of the checks that failed, with the reasons.
fn failures(report: &Value) -> Vec<(u64, String)> {
    let checks = report["checks"].as_array().unwrap().iter().filter(|check| check["verdict"] == "fail");
    let failures = checks.flat_map(|check| {
        let findings = check["findings"].as_array().unwrap().iter().filter(|finding| finding["verdict"] == "fail");
        findings.map(|finding| (check["number"].as_u64().unwrap(), finding["reason"].as_str().unwrap().to_owned()))
    });
    failures.collect()
}

#[test]
fn a_good_image_is_ready_and_a_broken_one_is_not() {
    let place = Place::new();
    let recipe = place.recipe("ready", &bash("build", "echo built"));
    let _built = place.build(&[&recipe.to_string_lossy()]).run().success();
    // The one boot from an NVMe disk.
    let checked = place.goldsmith(&["check", "ready", "--for", "aws", "--json"]).run().success();
    let report = checked.json();
    assert_eq!((failures(&report), &report["ready"]), (Vec::new(), &Value::Bool(true)), "{report:#}");
    assert_eq!(report["checks"][24]["verdict"], "pass", "{report:#}");
    let log = crate::framework::read(&checked.image_file("ready/1.0.0/1", "check/nvme/console.log"));
    assert!(log.contains("nvme nvme0"), "it was not booted from an NVMe disk:\n{log}");
    for target in ["azure", "gcp", "vmware", "proxmox", "libvirt"] {
        let checked = place.goldsmith(&["check", "ready", "--for", target, "--no-boot", "--json"]).run().success();
        assert_eq!(failures(&checked.json()), Vec::new(), "{target}");
    }
    let disk = checked.image_file("ready/1.0.0/1", "disk.qcow2");
    let before = fs_err::read(&disk).unwrap();
    let pristine = Pristine::of(&place, "ready/1.0.0/1");
    for fault in &FAULTS {
        let id = pristine.broken(&place, &format!("ready-{}", fault.name), fault.breaks, |_| {});
        is_refused(&place, &id, fault.check, fault.says);
    }
    let untested = |manifest: &mut Value| manifest["tested"] = false.into();
    let id = pristine.broken(&place, "ready-untested", |_| {}, untested);
    is_refused(&place, &id, 25, "the image was not tested");
    let failed = |manifest: &mut Value| manifest["state"] = "FAILED".into();
    let id = pristine.broken(&place, "ready-failed", |_| {}, failed);
    is_refused(&place, &id, 25, "the image is FAILED");
    assert!(before == fs_err::read(&disk).unwrap(), "the disk was changed by looking at it");
}

/// A check fails, for its own reason; no other does.
fn is_refused(place: &Place, image: &str, check: u64, says: &str) {
    let command = ["check", image, "--for", "aws", "--no-boot", "--json", "--secret", "token=env:TOKEN"];
    let checked = place.goldsmith(&command).env("TOKEN", "opensesame-1234567890").run().fails(6);
    let failures = failures(&checked.json());
    assert!(failures.iter().all(|(number, _)| *number == check), "{image}: {failures:?}");
    assert!(failures.iter().any(|(_, reason)| reason.contains(says)), "{image}: {failures:?}");
    place.goldsmith(&["image", "rm", image]).run().success();
}
