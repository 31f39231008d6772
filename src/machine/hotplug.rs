//! Devices that a running machine gets for a test, and loses again.
//!
//! ```text
//!   attach ──► in the spare slot ──► detach ──► gone; a disk's content stays for the next time
//!                                                 └ release ──► nothing of it is left
//! ```
//!
//! Nothing here is a file of the user's: the disk is an empty one in the run's folder, and the card leads into a network
//! that has nothing but its own DHCP server. What is attached is asked of QEMU, so that nothing has to be remembered.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use fs_err as fs;
use serde_json::{Value, json};

use super::argv::SPARE_PORT;
use super::{Error, Mac, Machine};

/// What can be attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// An empty disk.
    Disk,
    /// A network card.
    NetworkCard,
}

/// Why a device could not be attached or detached.
#[derive(Debug, thiserror::Error)]
pub enum HotplugError {
    /// There is one slot.
    #[error("the machine's slot for test devices is taken by the {0}; detach that first")]
    Taken(Device),
    /// There is nothing to detach.
    #[error("no test {0} is attached")]
    Absent(Device),
    /// The guest's kernel has to let it go.
    #[error("the guest did not let the test {device} go within {} s", after.as_secs())]
    Held {
        /// What it holds.
        device: Device,
        /// How long it was waited for.
        after: Duration,
    },
    /// QEMU failed.
    #[error(transparent)]
    Machine(#[from] Error),
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Disk => "disk",
            Self::NetworkCard => "network card",
        })
    }
}

impl Device {
    const ALL: [Self; 2] = [Self::Disk, Self::NetworkCard];

    /// QEMU's name of the device; the disk's serial number in the guest, too.
    const fn id(self) -> &'static str {
        match self {
            Self::Disk => "goldsmith-test-disk",
            Self::NetworkCard => "goldsmith-test-card",
        }
    }
}

/// The disk's size. It takes only what is written to it, and the smallest XFS has 300 MiB.
const DISK_SIZE: u64 = 1 << 30;
/// Its file in the run's folder, where QEMU runs.
const DISK_FILE: &str = "test-disk.raw";
/// A network of its own: with the first card's addresses the guest would have two routes to one network.
const NETWORK: &str = "10.0.3.0/24";
/// How long the guest's kernel may take to let a device go.
const DEADLINE: Duration = Duration::from_secs(60);
/// How often it is asked for.
const PAUSE: Duration = Duration::from_millis(100);

impl Machine {
    /// Gives the machine a device. Returns the disk's serial number or the card's address, by which the guest finds it.
    pub async fn attach(&self, device: Device) -> Result<String, HotplugError> {
        if let Some(other) = self.attached().await? {
            return Err(HotplugError::Taken(other));
        }
        match device {
            Device::Disk => self.attach_disk().await,
            Device::NetworkCard => self.attach_card().await,
        }
    }

    async fn attach_disk(&self) -> Result<String, HotplugError> {
        let (id, file) = (Device::Disk.id(), self.test_disk());
        if !file.exists() {
            let made = fs::File::create_new(&file).and_then(|made| made.set_len(DISK_SIZE));
            made.map_err(|error| HotplugError::Machine(Error::Folder(error)))?;
            let node = json!({ "driver": "raw", "node-name": id,
                               "file": { "driver": "file", "filename": DISK_FILE } });
            self.order("blockdev-add", node).await?;
        }
        let device = json!({ "driver": "virtio-blk-pci", "id": id, "bus": SPARE_PORT, "drive": id, "serial": id });
        self.order("device_add", device).await?;
        Ok(id.to_owned())
    }

    async fn attach_card(&self) -> Result<String, HotplugError> {
        let (id, mac) = (Device::NetworkCard.id(), Mac::random().to_string());
        self.order("netdev_add", json!({ "type": "user", "id": id, "net": NETWORK, "restrict": true })).await?;
        let device = json!({ "driver": "virtio-net-pci", "id": id, "bus": SPARE_PORT, "netdev": id, "mac": mac,
                             "romfile": "" });
        self.order("device_add", device).await?;
        Ok(mac)
    }

    /// Takes a device away, and waits until the guest's kernel has let it go.
    pub async fn detach(&self, device: Device) -> Result<(), HotplugError> {
        if self.attached().await? != Some(device) {
            return Err(HotplugError::Absent(device));
        }
        let (id, started) = (device.id(), Instant::now());
        self.order("device_del", json!({ "id": id })).await?;
        while self.attached().await?.is_some() {
            if started.elapsed() > DEADLINE {
                return Err(HotplugError::Held { device, after: DEADLINE });
            }
            tokio::time::sleep(PAUSE).await;
        }
        if device == Device::NetworkCard {
            self.order("netdev_del", json!({ "id": id })).await?;
        }
        Ok(())
    }

    /// Takes away whatever was attached and its content: what comes next must not depend on it.
    pub async fn release(&self) -> Result<(), HotplugError> {
        let file = self.test_disk();
        if let Some(device) = self.attached().await? {
            self.detach(device).await?;
        }
        if file.exists() {
            self.order("blockdev-del", json!({ "node-name": Device::Disk.id() })).await?;
            fs::remove_file(&file).map_err(|error| HotplugError::Machine(Error::Folder(error)))?;
        }
        Ok(())
    }

    fn test_disk(&self) -> PathBuf {
        self.folder.join(DISK_FILE)
    }

    /// The device in the slot, if there is one.
    async fn attached(&self) -> Result<Option<Device>, HotplugError> {
        let list = self.order("qom-list", json!({ "path": "/machine/peripheral" })).await?;
        let names: Vec<&str> = list.as_array().into_iter().flatten().filter_map(|item| item["name"].as_str()).collect();
        Ok(Device::ALL.into_iter().find(|device| names.contains(&device.id())))
    }

    async fn order(&self, command: &str, arguments: Value) -> Result<Value, HotplugError> {
        self.qmp.execute(command, arguments).await.map_err(|error| HotplugError::Machine(error.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::accelerator::Accelerator;
    use super::super::firmware::Firmware;
    use super::super::{DiskBus, Qemu, Spec};
    use super::*;
    use crate::host::process::Program;

    /// A machine without a guest, which waits before its first instruction: nobody in it lets a device go.
    async fn machine(folder: &std::path::Path) -> Machine {
        let disk = folder.join("disk.qcow2");
        Program::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&disk).arg("16M").run().await.unwrap();
        let spec = Spec {
            accelerator: Accelerator::Tcg,
            cpu_model: None,
            cpus: 1,
            memory: 64 << 20,
            firmware: Firmware::Bios,
            disk,
            disk_bus: DiskBus::default(),
            seed: None,
            mac: Mac([0x52, 0x54, 0, 1, 2, 3]),
            reach: crate::document::recipe::Reach::Full,
            forwards: Vec::new(),
            console_log: folder.join("console.log"),
            attach_console: false,
            paused: true,
            incoming: false,
        };
        Qemu::find().await.unwrap().start(&spec, folder).await.unwrap()
    }

    #[tokio::test]
    async fn one_device_at_a_time_and_no_file_of_anybody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let machine = machine(folder.path()).await;
        assert!(machine.release().await.is_ok(), "nothing is attached, and that is no failure");
        assert_eq!(machine.detach(Device::Disk).await.unwrap_err().to_string(), "no test disk is attached");
        assert_eq!(machine.attach(Device::Disk).await.unwrap(), "goldsmith-test-disk");
        let disk = fs::metadata(folder.path().join(DISK_FILE)).unwrap();
        assert_eq!((disk.len(), std::os::unix::fs::MetadataExt::blocks(&disk)), (DISK_SIZE, 0));
        let taken = machine.attach(Device::NetworkCard).await.unwrap_err().to_string();
        assert_eq!(taken, "the machine's slot for test devices is taken by the disk; detach that first");
        assert!(machine.detach(Device::NetworkCard).await.is_err());
        machine.finish().await;
    }

    #[tokio::test]
    async fn a_network_card_is_known_by_its_address() {
        let folder = tempfile::tempdir().unwrap();
        let machine = machine(folder.path()).await;
        let address = machine.attach(Device::NetworkCard).await.unwrap();
        assert!(address.starts_with("52:54:00:") && address.len() == 17, "{address}");
        machine.finish().await;
    }
}
