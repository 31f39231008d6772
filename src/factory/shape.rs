//! Which machine a guest gets on this host.

use std::time::Duration;

use super::{Error, Event, Factory};
use crate::document::recipe::{FirmwareKind, MachineWishes, Reach};
use crate::document::size::Size;
use crate::machine::accelerator::{self, Accelerator};
use crate::machine::firmware::{self, Firmware};
use crate::machine::isolation::Isolation;
use crate::machine::{DiskBus, Mac, Qemu, Spec};
use crate::store::manifest;

/// Memory unless somebody says otherwise.
const MEMORY: Size = Size(1 << 30);
/// More processors than this do not make a guest start any sooner.
const MOST_CPUS: usize = 2;
/// How long an agent may take to greet after power-on, with KVM, unless the recipe says otherwise.
const BOOT_TIMEOUT: Duration = Duration::from_secs(120);

/// A kind of machine, decided.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) qemu: Qemu,
    pub(super) accelerator: Accelerator,
    pub(super) boot_timeout: Duration,
    /// How long a test may take as a whole.
    pub(super) test_timeout: Option<Duration>,
    pub(super) disk_bus: DiskBus,
    /// What guests may reach.
    pub(super) reach: Reach,
    cpus: u32,
    memory: u64,
    cpu: Option<String>,
    firmware: Firmware,
}

impl Factory {
    /// Decides on the machine: what is wished for, and what this host can do.
    pub(super) async fn shape(&self, wishes: &MachineWishes, open_network: bool) -> Result<Shape, Error> {
        let mut qemu = Qemu::find().await?;
        if open_network {
            let mend = "take `mode: open` out of the recipe's network".to_owned();
            qemu.isolation = Isolation::Open { reason: "the recipe asks for an open network".to_owned(), mend };
        }
        if let Isolation::Open { reason, mend } = &qemu.isolation {
            let danger = "guests can reach this host's loopback and link-local addresses, a cloud's metadata included";
            self.tell(Event::Warning(format!("{danger}: {reason} (mend: {mend})")));
        }
        let (accelerator, verdict) = accelerator::choose(self.accelerator, &self.store.host_folder()).await?;
        if let Some(verdict) = verdict.filter(|verdict| !verdict.usable) {
            let mend = verdict.mend.map(|mend| format!(" (mend: {mend})")).unwrap_or_default();
            let message = format!("KVM can't be used, so guests are emulated and slow: {}{mend}", verdict.reason);
            self.tell(Event::Note(message));
        }
        let firmware = match wishes.firmware.unwrap_or(FirmwareKind::Bios) {
            FirmwareKind::Bios => Firmware::Bios,
            FirmwareKind::Uefi => firmware::find_uefi().ok_or_else(|| Error::Host {
                what: "this host has no UEFI firmware for virtual machines".to_owned(),
                mend: "install the package ovmf (Debian, Ubuntu) or edk2-ovmf (Fedora, Arch)".to_owned(),
            })?,
        };
        let host_cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let cpus = wishes.cpus.or(u32::try_from(host_cpus.min(MOST_CPUS)).ok()).unwrap_or(1);
        Ok(Shape {
            qemu,
            accelerator,
            boot_timeout: wishes.boot_timeout.unwrap_or(BOOT_TIMEOUT * accelerator.patience()),
            test_timeout: None,
            disk_bus: DiskBus::default(),
            reach: Reach::Full,
            cpus,
            memory: wishes.memory.unwrap_or(MEMORY).0,
            cpu: wishes.cpu.clone(),
            firmware,
        })
    }
}

impl Shape {
    /// A machine of this kind with these disks.
    pub(super) fn spec(
        &self,
        disk: std::path::PathBuf,
        seed: Option<std::path::PathBuf>,
        console_log: std::path::PathBuf,
    ) -> Spec {
        Spec {
            accelerator: self.accelerator,
            cpu_model: self.cpu.clone(),
            cpus: self.cpus,
            memory: self.memory,
            firmware: self.firmware.clone(),
            disk,
            disk_bus: self.disk_bus,
            seed,
            mac: Mac::random(),
            reach: self.reach.clone(),
            forwards: Vec::new(),
            console_log,
            attach_console: false,
            paused: false,
            incoming: false,
        }
    }

    /// What is noted of it.
    pub(super) fn record(&self, qemu_version: String) -> manifest::Machine {
        manifest::Machine {
            accelerator: self.accelerator.qemu_name().to_owned(),
            qemu: qemu_version,
            firmware: self.firmware.name().to_owned(),
            cpus: self.cpus,
            memory: self.memory,
            isolated: self.qemu.isolation.is_isolated(),
            reach: match &self.reach {
                Reach::Full => None,
                Reach::Restricted(hosts) => Some(hosts.clone()),
                Reach::None => Some(Vec::new()),
            },
            test_seconds: self.test_timeout.map(|timeout| timeout.as_secs()),
        }
    }

    /// Holds an image's guests to what it was built under.
    pub(super) fn hold_to(&mut self, built_on: Option<&manifest::Machine>) {
        let Some(machine) = built_on else { return };
        self.reach = match machine.reach.as_deref() {
            None => Reach::Full,
            Some([]) => Reach::None,
            Some(hosts) => Reach::Restricted(hosts.to_vec()),
        };
        self.test_timeout = machine.test_seconds.map(Duration::from_secs);
    }
}
