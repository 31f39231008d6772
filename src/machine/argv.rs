//! QEMU's command line: a function of the machine that is wanted.
//!
//! QEMU runs in the folder of its run, so sockets and logs have short relative names whatever the store's path; disks
//! are named absolutely, and as JSON, in which no path needs escaping.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::accelerator::Accelerator;
use super::firmware::Firmware;
use super::{DiskBus, Spec};
use crate::document::recipe::Reach;

/// Names in the run's folder.
pub(super) const QMP_SOCKET: &str = "qmp.sock";
/// The agent's end on the host.
pub(super) const AGENT_SOCKET: &str = "agent.sock";
/// A person's end of the console.
pub(super) const CONSOLE_SOCKET: &str = "console.sock";
/// The guest's copy of the UEFI variables.
pub(super) const UEFI_VARIABLES: &str = "uefi-variables.fd";

/// The slot that one more disk is put into while the machine runs.
pub(super) const SPARE_PORT: &str = "spare";
/// Name of that disk, and its serial number in the guest.
pub(super) const SPARE_DISK: &str = "goldsmith-spare";

/// The processor that is emulated where nothing else is asked for: x86-64-v2, which every current distribution but
/// those that demand v3 runs on. `max` costs a boot about a fifth more time, mostly for emulated AVX and SMAP.
const EMULATED_CPU: &str = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+lahf-lm";

/// QEMU's arguments for a machine. `sandbox` is whether this QEMU was built with its seccomp sandbox.
pub(super) fn arguments(spec: &Spec, sandbox: bool) -> Vec<String> {
    let mut line = Line(Vec::new());
    line.option("-name", "goldsmith");
    line.flag("-nodefaults").flag("-no-user-config").option("-display", "none");
    if sandbox {
        line.option("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    }
    machine(&mut line, spec);
    firmware(&mut line, spec);
    control(&mut line, spec);
    disk(&mut line, spec);
    if let Some(seed) = &spec.seed {
        seed_disk(&mut line, seed);
    }
    network(&mut line, spec);
    line.option("-device", "virtio-rng-pci");
    // Tells which of the guest's pages are free, so that they cost a checkpoint nothing.
    line.option("-device", "virtio-balloon-pci,free-page-reporting=on");
    // Says that the kernel has panicked, when the kernel has the driver.
    line.option("-device", "pvpanic");
    // Empty: a slot of q35's own bus takes no device later.
    line.option("-device", format!("pcie-root-port,id={SPARE_PORT}"));
    if spec.paused {
        line.flag("-S");
    }
    if spec.incoming {
        line.option("-incoming", "defer");
    }
    line.0
}

/// QEMU's arguments to answer questions and nothing else.
pub(super) fn without_machine() -> Vec<String> {
    let mut line = Line(Vec::new());
    line.flag("-nodefaults").flag("-no-user-config").option("-display", "none").option("-machine", "none");
    line.option("-chardev", format!("socket,id=qmp,path={QMP_SOCKET}"));
    line.option("-mon", "chardev=qmp,mode=control");
    line.0
}

struct Line(Vec<String>);

impl Line {
    fn flag(&mut self, flag: &str) -> &mut Self {
        self.0.push(flag.to_owned());
        self
    }

    fn option(&mut self, name: &str, value: impl Into<String>) -> &mut Self {
        self.0.extend([name.to_owned(), value.into()]);
        self
    }
}

fn machine(line: &mut Line, spec: &Spec) {
    // Without graphics, SeaBIOS speaks on the serial console, where a disk that does not boot shows.
    line.option("-machine", format!("q35,accel={},vmport=off,graphics=off", spec.accelerator.qemu_name()));
    let cpu = match (&spec.cpu_model, spec.accelerator) {
        (Some(model), _) => model,
        (None, Accelerator::Kvm) => "host",
        (None, Accelerator::Tcg) => EMULATED_CPU,
    };
    line.option("-cpu", cpu);
    line.option("-smp", spec.cpus.to_string());
    line.option("-m", format!("{}M", spec.memory / (1 << 20)));
    line.option("-rtc", "base=utc");
    line.option("-boot", "menu=off");
}

fn firmware(line: &mut Line, spec: &Spec) {
    let Firmware::Uefi { code, .. } = &spec.firmware else { return };
    let flash = |unit: u32, file: &Path, readonly: bool| {
        json!({ "driver": "raw", "node-name": format!("flash{unit}"), "read-only": readonly,
                "file": { "driver": "file", "filename": file } })
        .to_string()
    };
    line.option("-blockdev", flash(0, code, true));
    line.option("-blockdev", flash(1, Path::new(UEFI_VARIABLES), false));
    line.option("-machine", "pflash0=flash0,pflash1=flash1");
}

fn control(line: &mut Line, spec: &Spec) {
    line.option("-chardev", format!("socket,id=qmp,path={QMP_SOCKET}"));
    line.option("-mon", "chardev=qmp,mode=control");
    // In this kind of option a comma in a path is written twice.
    let log = spec.console_log.to_string_lossy().replace(',', ",,");
    if spec.attach_console {
        line.option("-chardev", format!("socket,id=console,path={CONSOLE_SOCKET},logfile={log},logappend=on"));
    } else {
        line.option("-chardev", format!("file,id=console,path={log},append=on"));
    }
    line.option("-serial", "chardev:console");
    line.option("-device", "virtio-serial-pci");
    line.option("-chardev", format!("socket,id=agent,path={AGENT_SOCKET}"));
    line.option("-device", format!("virtserialport,chardev=agent,name={}", goldsmith_agent::PORT_NAME));
}

/// Name of the node that a machine writes to after so many overlays were put on its disk.
pub(super) fn disk_node(overlays: u32) -> String {
    if overlays == 0 { "disk".to_owned() } else { format!("disk-{overlays}") }
}

/// A qcow2 that a machine writes to. Its content is thrown away or sealed by a full copy, so the host need not write it
/// out when the guest says so.
pub(super) fn qcow2_node(name: &str, path: &Path) -> serde_json::Value {
    let file = json!({ "driver": "file", "filename": path, "discard": "unmap",
                       "cache": { "direct": false, "no-flush": true } });
    json!({ "driver": "qcow2", "node-name": name, "file": file, "discard": "unmap",
            "detect-zeroes": "unmap", "cache": { "direct": false, "no-flush": true } })
}

/// A qcow2 that a machine only reads.
pub(super) fn read_only_node(name: &str, path: &Path) -> serde_json::Value {
    let file = json!({ "driver": "file", "filename": path, "read-only": true });
    json!({ "driver": "qcow2", "node-name": name, "file": file, "read-only": true })
}

fn disk(line: &mut Line, spec: &Spec) {
    line.option("-blockdev", qcow2_node(&disk_node(0), &spec.disk).to_string());
    line.option(
        "-device",
        match spec.disk_bus {
            // A host whose disk is full stops the machine and says so, instead of telling the guest that its disk is broken.
            DiskBus::Virtio => "virtio-blk-pci,drive=disk,bootindex=1,werror=stop,rerror=stop",
            DiskBus::Nvme => "nvme,drive=disk,serial=goldsmith,bootindex=1",
        },
    );
}

/// virtio-blk and not a CD-ROM: Debian's cloud kernel has no AHCI driver.
fn seed_disk(line: &mut Line, seed: &PathBuf) {
    let node = json!({ "driver": "raw", "node-name": "seed", "read-only": true,
                       "file": { "driver": "file", "filename": seed } });
    line.option("-blockdev", node.to_string());
    line.option("-device", "virtio-blk-pci,drive=seed");
}

fn network(line: &mut Line, spec: &Spec) {
    let mut user = "user,id=net".to_owned();
    if spec.reach == Reach::None {
        // QEMU then answers DHCP and passes nothing on.
        user.push_str(",restrict=on");
    }
    for forward in &spec.forwards {
        user.push_str(&format!(",hostfwd=tcp:127.0.0.1:{}-:{}", forward.host, forward.guest));
    }
    line.option("-netdev", user);
    // No boot ROM: nothing is ever booted from this network.
    line.option("-device", format!("virtio-net-pci,netdev=net,mac={},romfile=", spec.mac));
}

#[cfg(test)]
mod tests {
    use super::super::{Forward, Mac};
    use super::*;

    fn spec() -> Spec {
        Spec {
            accelerator: Accelerator::Tcg,
            cpu_model: None,
            cpus: 2,
            memory: 1 << 30,
            firmware: Firmware::Bios,
            disk: "/store/runs/1/disk, with \"quotes\".qcow2".into(),
            disk_bus: DiskBus::Virtio,
            seed: Some("/store/runs/1/seed.img".into()),
            mac: Mac([0x52, 0x54, 0, 1, 2, 3]),
            reach: Reach::Full,
            forwards: Vec::new(),
            console_log: "/store/images/a, b/console.log".into(),
            attach_console: false,
            paused: false,
            incoming: false,
        }
    }

    fn shown(spec: &Spec, sandbox: bool) -> String {
        let mut text = String::new();
        for argument in arguments(spec, sandbox) {
            text.push_str(if argument.starts_with('-') { "\n" } else { " " });
            text.push_str(&argument);
        }
        text
    }

    #[test]
    fn an_emulated_bios_machine() {
        insta::assert_snapshot!(shown(&spec(), true), @r#"

        -name goldsmith
        -nodefaults
        -no-user-config
        -display none
        -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
        -machine q35,accel=tcg,vmport=off,graphics=off
        -cpu qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+lahf-lm
        -smp 2
        -m 1024M
        -rtc base=utc
        -boot menu=off
        -chardev socket,id=qmp,path=qmp.sock
        -mon chardev=qmp,mode=control
        -chardev file,id=console,path=/store/images/a,, b/console.log,append=on
        -serial chardev:console
        -device virtio-serial-pci
        -chardev socket,id=agent,path=agent.sock
        -device virtserialport,chardev=agent,name=org.goldsmith.agent.0
        -blockdev {"driver":"qcow2","node-name":"disk","file":{"driver":"file","filename":"/store/runs/1/disk, with \"quotes\".qcow2","discard":"unmap","cache":{"direct":false,"no-flush":true}},"discard":"unmap","detect-zeroes":"unmap","cache":{"direct":false,"no-flush":true}}
        -device virtio-blk-pci,drive=disk,bootindex=1,werror=stop,rerror=stop
        -blockdev {"driver":"raw","node-name":"seed","read-only":true,"file":{"driver":"file","filename":"/store/runs/1/seed.img"}}
        -device virtio-blk-pci,drive=seed
        -netdev user,id=net
        -device virtio-net-pci,netdev=net,mac=52:54:00:01:02:03,romfile=
        -device virtio-rng-pci
        -device virtio-balloon-pci,free-page-reporting=on
        -device pvpanic
        -device pcie-root-port,id=spare
        "#);
    }

    #[test]
    fn a_machine_with_the_disk_of_another_cloud() {
        let line = shown(&Spec { disk_bus: DiskBus::Nvme, ..spec() }, false);
        assert!(line.contains("-device nvme,drive=disk,serial=goldsmith,bootindex=1\n"), "{line}");
        assert!(!line.contains("virtio-blk-pci,drive=disk"), "{line}");
    }

    #[test]
    fn a_machine_without_a_network() {
        let line = shown(&Spec { reach: Reach::None, ..spec() }, false);
        assert!(line.contains("-netdev user,id=net,restrict=on\n"), "{line}");
    }

    #[test]
    fn a_kvm_uefi_machine_for_a_person() {
        let spec = Spec {
            accelerator: Accelerator::Kvm,
            firmware: Firmware::Uefi { code: "/fw/CODE.fd".into(), variables: "/fw/VARS.fd".into() },
            forwards: vec![Forward { host: 8080, guest: 80 }],
            attach_console: true,
            paused: true,
            incoming: true,
            seed: None,
            ..spec()
        };
        insta::assert_snapshot!(shown(&spec, false), @r#"

        -name goldsmith
        -nodefaults
        -no-user-config
        -display none
        -machine q35,accel=kvm,vmport=off,graphics=off
        -cpu host
        -smp 2
        -m 1024M
        -rtc base=utc
        -boot menu=off
        -blockdev {"driver":"raw","node-name":"flash0","read-only":true,"file":{"driver":"file","filename":"/fw/CODE.fd"}}
        -blockdev {"driver":"raw","node-name":"flash1","read-only":false,"file":{"driver":"file","filename":"uefi-variables.fd"}}
        -machine pflash0=flash0,pflash1=flash1
        -chardev socket,id=qmp,path=qmp.sock
        -mon chardev=qmp,mode=control
        -chardev socket,id=console,path=console.sock,logfile=/store/images/a,, b/console.log,logappend=on
        -serial chardev:console
        -device virtio-serial-pci
        -chardev socket,id=agent,path=agent.sock
        -device virtserialport,chardev=agent,name=org.goldsmith.agent.0
        -blockdev {"driver":"qcow2","node-name":"disk","file":{"driver":"file","filename":"/store/runs/1/disk, with \"quotes\".qcow2","discard":"unmap","cache":{"direct":false,"no-flush":true}},"discard":"unmap","detect-zeroes":"unmap","cache":{"direct":false,"no-flush":true}}
        -device virtio-blk-pci,drive=disk,bootindex=1,werror=stop,rerror=stop
        -netdev user,id=net,hostfwd=tcp:127.0.0.1:8080-:80
        -device virtio-net-pci,netdev=net,mac=52:54:00:01:02:03,romfile=
        -device virtio-rng-pci
        -device virtio-balloon-pci,free-page-reporting=on
        -device pvpanic
        -device pcie-root-port,id=spare
        -S
        -incoming defer
        "#);
    }
}
