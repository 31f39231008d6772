//! What a machine should have that an image is for, in the words of the place that it goes to.
//!
//! Sources: DMTF DSP0243 "Open Virtualization Format Specification" 1.1.0 with VMware's own elements; libvirt's "Domain XML
//! format"; the manual page of Proxmox' `qm`; VMware's settings as its own products write them.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::Format;
use crate::disk::MIB;

/// What a machine should have that an image is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardware {
    /// What it is called.
    pub name: String,
    /// Number of processors.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// Whether it starts by UEFI; by BIOS otherwise.
    pub is_uefi: bool,
}

/// A place that wants a description of the machine beside its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A domain, for `virsh define`.
    Libvirt,
    /// Lines of `qm`, for a shell on the host.
    Proxmox,
    /// A `.vmx`, for Workstation, Fusion and ESXi.
    Vmware,
}

impl Place {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Libvirt, Self::Proxmox, Self::Vmware];

    /// What users call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Libvirt => "libvirt",
            Self::Proxmox => "proxmox",
            Self::Vmware => "vmware",
        }
    }

    /// How its files' names end.
    pub fn ending(self) -> &'static str {
        match self {
            Self::Libvirt => "libvirt.xml",
            Self::Proxmox => "proxmox.sh",
            Self::Vmware => "vmx",
        }
    }

    /// The format that the description is about.
    pub fn format(self) -> Format {
        match self {
            Self::Libvirt | Self::Proxmox => Format::Qcow2,
            Self::Vmware => Format::Vmdk,
        }
    }

    /// The description of a machine whose disk is this file, of the place's format.
    pub fn describe(self, hardware: &Hardware, disk: &Path) -> String {
        match self {
            Self::Libvirt => hardware.libvirt(disk),
            Self::Proxmox => hardware.proxmox(disk),
            Self::Vmware => hardware.vmware(disk),
        }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|place| place.name() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            format!("nothing is described for `{text}`: {known} are known")
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Hardware {
    fn mebibytes(&self) -> u64 {
        self.memory.div_ceil(MIB)
    }

    fn libvirt(&self, disk: &Path) -> String {
        let (name, cpus, memory) = (escaped(&self.name), self.cpus, self.mebibytes());
        let firmware = if self.is_uefi { r#" firmware="efi""# } else { "" };
        let disk = escaped(&disk.display().to_string());
        format!(
            r#"<!-- virsh define THIS-FILE; the machine writes to the disk that is named here. -->
<domain type="kvm">
  <name>{name}</name>
  <memory unit="MiB">{memory}</memory>
  <vcpu>{cpus}</vcpu>
  <os{firmware}><type arch="x86_64" machine="q35">hvm</type><boot dev="hd"/></os>
  <features><acpi/><apic/></features>
  <cpu mode="host-model"/>
  <devices>
    <disk type="file" device="disk">
      <driver name="qemu" type="qcow2" discard="unmap"/>
      <source file="{disk}"/>
      <target dev="vda" bus="virtio"/>
    </disk>
    <interface type="network"><source network="default"/><model type="virtio"/></interface>
    <console type="pty"/>
    <rng model="virtio"><backend model="random">/dev/urandom</backend></rng>
  </devices>
</domain>
"#
        )
    }

    fn proxmox(&self, disk: &Path) -> String {
        let (name, cpus, memory) = (quoted(&self.name), self.cpus, self.mebibytes());
        let disk = quoted(&disk.file_name().unwrap_or_default().to_string_lossy());
        let (bios, variables) = if self.is_uefi {
            ("ovmf", "qm set \"$VMID\" --efidisk0 \"$STORAGE:1,efitype=4m\"\n")
        } else {
            ("seabios", "")
        };
        format!(
            r#"#!/bin/sh
# On a Proxmox host, in the folder of the disk: VMID=9000 STORAGE=local-lvm sh THIS-FILE
set -e
: "${{VMID:?the new machine's number}}" "${{STORAGE:?where its disk goes}}"
DISK={disk}
qm create "$VMID" --name {name} --ostype l26 --machine q35 --bios {bios} --cores {cpus} --memory {memory} \
  --scsihw virtio-scsi-single --net0 virtio,bridge=vmbr0 --serial0 socket --rng0 source=/dev/urandom
{variables}qm set "$VMID" --scsi0 "$STORAGE:0,import-from=$PWD/$DISK,discard=on" --boot order=scsi0
"#
        )
    }

    fn vmware(&self, disk: &Path) -> String {
        let (name, cpus, memory) = (self.name.replace('"', "|22"), self.cpus, self.mebibytes());
        let firmware = if self.is_uefi { "efi" } else { "bios" };
        let (disk, stem) = (disk.file_name().unwrap_or_default(), disk.file_stem().unwrap_or_default());
        let (disk, stem) = (disk.to_string_lossy(), stem.to_string_lossy());
        format!(
            r#".encoding = "UTF-8"
# A stream-optimised disk is for transport. Before the first start, on ESXi:
#   vmkfstools -i {disk} -d thin {stem}-disk1.vmdk
# and elsewhere:
#   vmware-vdiskmanager -r {disk} -t 0 {stem}-disk1.vmdk
config.version = "8"
virtualHW.version = "13"
displayName = "{name}"
guestOS = "otherlinux-64"
firmware = "{firmware}"
numvcpus = "{cpus}"
memSize = "{memory}"
pciBridge0.present = "TRUE"
pciBridge4.present = "TRUE"
pciBridge4.virtualDev = "pcieRootPort"
pciBridge4.functions = "8"
scsi0.present = "TRUE"
scsi0.virtualDev = "pvscsi"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "{stem}-disk1.vmdk"
ethernet0.present = "TRUE"
ethernet0.virtualDev = "vmxnet3"
ethernet0.connectionType = "nat"
ethernet0.addressType = "generated"
"#
        )
    }

    /// An appliance's description, for a disk of `size` bytes whose file is called `image` and has `file` bytes.
    pub(super) fn ovf(&self, size: u64, file: u64, image: &str) -> String {
        let (name, image, hardware) = (escaped(&self.name), escaped(image), self.virtual_hardware());
        format!(
            r#"<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
  xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
  xmlns:vmw="http://www.vmware.com/schema/ovf">
  <References><File ovf:id="file1" ovf:href="{image}" ovf:size="{file}"/></References>
  <DiskSection>
    <Info>Disks</Info>
    <Disk ovf:diskId="disk1" ovf:fileRef="file1" ovf:capacity="{size}" ovf:capacityAllocationUnits="byte"
      ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
  </DiskSection>
  <NetworkSection>
    <Info>Networks</Info>
    <Network ovf:name="network"><Description>the network that the machine is on</Description></Network>
  </NetworkSection>
  <VirtualSystem ovf:id="{name}">
    <Info>A virtual machine</Info>
    <Name>{name}</Name>
    <OperatingSystemSection ovf:id="101" vmw:osType="otherLinux64Guest"><Info>Linux, 64 bits</Info></OperatingSystemSection>
{hardware}  </VirtualSystem>
</Envelope>
"#
        )
    }

    /// The disk hangs on a paravirtual controller, and the network is a vmxnet3: Debian's cloud kernel drives these two
    /// and neither AHCI nor e1000, and every other distribution's kernel drives them too.
    fn virtual_hardware(&self) -> String {
        let (name, cpus, memory) = (escaped(&self.name), self.cpus, self.mebibytes());
        let firmware = if self.is_uefi { "efi" } else { "bios" };
        let cpu = item(1, 3, &[("ElementName", &format!("{cpus} processors")), ("VirtualQuantity", &cpus.to_string())]);
        let unit = ("AllocationUnits", "byte * 2^20");
        let size_of = format!("{memory} MiB of memory");
        let memory = item(2, 4, &[unit, ("ElementName", &size_of), ("VirtualQuantity", &memory.to_string())]);
        let controller = [("Address", "0"), ("ElementName", "SCSI controller"), ("ResourceSubType", "VirtualSCSI")];
        let controller = item(3, 6, &controller);
        let place = [("AddressOnParent", "0"), ("Parent", "3")];
        let disk = item(4, 17, &[place[0], place[1], ("ElementName", "disk"), ("HostResource", "ovf:/disk/disk1")]);
        let wiring = [("AutomaticAllocation", "true"), ("Connection", "network"), ("ElementName", "network")];
        let network = item(5, 10, &[&wiring[..], &[("ResourceSubType", "VmxNet3")]].concat());
        format!(
            r#"    <VirtualHardwareSection>
      <Info>Hardware</Info>
      <System>
        <vssd:ElementName>hardware</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>{name}</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>vmx-13</vssd:VirtualSystemType>
      </System>
{cpu}{memory}{controller}{disk}{network}      <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="{firmware}"/>
    </VirtualHardwareSection>
"#
        )
    }
}

/// A piece of hardware: its number, CIM's number of its kind, and what else there is to say.
fn item(number: u32, kind: u32, more: &[(&str, &str)]) -> String {
    let (number, kind) = (number.to_string(), kind.to_string());
    let mut elements = [more, &[("InstanceID", number.as_str()), ("ResourceType", kind.as_str())]].concat();
    // The schema wants them in the order of their names.
    elements.sort_unstable();
    let elements = elements.iter().map(|(name, value)| format!("<rasd:{name}>{value}</rasd:{name}>"));
    format!("      <Item>{}</Item>\n", elements.collect::<String>())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A word for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hardware(is_uefi: bool) -> Hardware {
        Hardware { name: "nginx-1.0.0-1".to_owned(), cpus: 2, memory: 1 << 30, is_uefi }
    }

    #[test]
    fn proxmox_gets_lines_of_qm() {
        insta::assert_snapshot!(Place::Proxmox.describe(&hardware(true), Path::new("/out/it's.qcow2")), @r#"
        #!/bin/sh
        # On a Proxmox host, in the folder of the disk: VMID=9000 STORAGE=local-lvm sh THIS-FILE
        set -e
        : "${VMID:?the new machine's number}" "${STORAGE:?where its disk goes}"
        DISK='it'\''s.qcow2'
        qm create "$VMID" --name 'nginx-1.0.0-1' --ostype l26 --machine q35 --bios ovmf --cores 2 --memory 1024 \
          --scsihw virtio-scsi-single --net0 virtio,bridge=vmbr0 --serial0 socket --rng0 source=/dev/urandom
        qm set "$VMID" --efidisk0 "$STORAGE:1,efitype=4m"
        qm set "$VMID" --scsi0 "$STORAGE:0,import-from=$PWD/$DISK,discard=on" --boot order=scsi0
        "#);
    }

    #[test]
    fn vmware_gets_what_the_kernel_drives() {
        insta::assert_snapshot!(Place::Vmware.describe(&hardware(false), Path::new("/out/nginx-1.0.0-1.vmdk")), @r#"
        .encoding = "UTF-8"
        # A stream-optimised disk is for transport. Before the first start, on ESXi:
        #   vmkfstools -i nginx-1.0.0-1.vmdk -d thin nginx-1.0.0-1-disk1.vmdk
        # and elsewhere:
        #   vmware-vdiskmanager -r nginx-1.0.0-1.vmdk -t 0 nginx-1.0.0-1-disk1.vmdk
        config.version = "8"
        virtualHW.version = "13"
        displayName = "nginx-1.0.0-1"
        guestOS = "otherlinux-64"
        firmware = "bios"
        numvcpus = "2"
        memSize = "1024"
        pciBridge0.present = "TRUE"
        pciBridge4.present = "TRUE"
        pciBridge4.virtualDev = "pcieRootPort"
        pciBridge4.functions = "8"
        scsi0.present = "TRUE"
        scsi0.virtualDev = "pvscsi"
        scsi0:0.present = "TRUE"
        scsi0:0.fileName = "nginx-1.0.0-1-disk1.vmdk"
        ethernet0.present = "TRUE"
        ethernet0.virtualDev = "vmxnet3"
        ethernet0.connectionType = "nat"
        ethernet0.addressType = "generated"
        "#);
    }

    #[test]
    fn names_are_text_in_xml() {
        let mut hardware = hardware(true);
        hardware.name = "a<b>&\"c".to_owned();
        for text in [Place::Libvirt.describe(&hardware, Path::new("/o&t/d.qcow2")), hardware.ovf(1 << 31, 5, "d.vmdk")]
        {
            assert!(text.contains("a&lt;b&gt;&amp;&quot;c") && !text.contains("a<b"), "{text}");
        }
    }
}
