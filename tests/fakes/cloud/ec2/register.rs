//! `RegisterImage`, whose defaults make images that start nowhere.

use std::collections::BTreeSet;

use base64::Engine;
use jiff::Timestamp;

use super::super::answer::{Outcome, Xml, refuse};
use super::super::policy::Need;
use super::super::query::{Field, Kind, Query, TEXT, may, must};
use super::super::snapshot::SnapshotState;
use super::super::world::{Region, State, new_id};
use super::images::{Image, ImageState, Mapping};
use super::snapshots::not_found;
use super::tags::{SPECIFICATIONS, need, only_for, specified};
use super::{Action, Context};

/// How many polls find a new image pending.
const POLLS: u32 = 1;
/// The largest volume of any type, in GiB.
const VOLUME: i64 = 65_536;
pub(super) const VOLUME_TYPES: Kind = Kind::OneOf(&["standard", "io1", "io2", "gp2", "sc1", "st1", "gp3"]);

const REGISTER: &[Field] = &[
    must("Name", TEXT),
    may("Description", Kind::Text(0, 255)),
    may("Architecture", Kind::OneOf(&["i386", "x86_64", "arm64", "x86_64_mac", "arm64_mac"])),
    may("VirtualizationType", Kind::OneOf(&["hvm", "paravirtual"])),
    may("RootDeviceName", TEXT),
    may("EnaSupport", Kind::Bool),
    may("SriovNetSupport", Kind::OneOf(&["simple"])),
    may("BootMode", Kind::OneOf(&["legacy-bios", "uefi", "uefi-preferred"])),
    may("TpmSupport", Kind::OneOf(&["v2.0"])),
    may("ImdsSupport", Kind::OneOf(&["v2.0"])),
    may("UefiData", Kind::Text(0, 64_000)),
    may("BlockDeviceMapping.#.DeviceName", TEXT),
    may("BlockDeviceMapping.#.VirtualName", TEXT),
    may("BlockDeviceMapping.#.NoDevice", TEXT),
    may("BlockDeviceMapping.#.Ebs.SnapshotId", Kind::Id("snap")),
    may("BlockDeviceMapping.#.Ebs.VolumeSize", Kind::Int(1, VOLUME)),
    may("BlockDeviceMapping.#.Ebs.VolumeType", VOLUME_TYPES),
    may("BlockDeviceMapping.#.Ebs.Iops", Kind::Int(100, 256_000)),
    may("BlockDeviceMapping.#.Ebs.Throughput", Kind::Int(125, 2000)),
    may("BlockDeviceMapping.#.Ebs.DeleteOnTermination", Kind::Bool),
    may("BlockDeviceMapping.#.Ebs.Encrypted", Kind::Bool),
    may("BlockDeviceMapping.#.Ebs.KmsKeyId", TEXT),
    may("BlockDeviceMapping.#.Ebs.OutpostArn", Kind::Lacking),
    may("BlockDeviceMapping.#.Ebs.AvailabilityZone", Kind::Lacking),
    may("BlockDeviceMapping.#.Ebs.AvailabilityZoneId", Kind::Lacking),
    may("BlockDeviceMapping.#.Ebs.VolumeInitializationRate", Kind::Lacking),
    may("BlockDeviceMapping.#.Ebs.EbsCardIndex", Kind::Lacking),
    may("ImageLocation", Kind::Lacking),
    may("KernelId", Kind::Lacking),
    may("RamdiskId", Kind::Lacking),
    may("BillingProduct.#", Kind::Lacking),
];

pub(super) const ACTIONS: &[Action] =
    &[Action { name: "RegisterImage", fields: &[REGISTER, SPECIFICATIONS], run: register }];

/// Whether a name is one that an image may have, and that the account has not given yet.
pub(super) fn check_name(region: &Region, account: &str, name: &str) -> Outcome<()> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "()[] ./-'@_".contains(c);
    if !(3..=128).contains(&name.chars().count()) || !name.chars().all(is_allowed) {
        let message = "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, \
                       '(', ')', '.', '-', '/' and '_'";
        return refuse("InvalidAMIName.Malformed", message);
    }
    match region.images.values().find(|image| image.owner == account && image.name == name) {
        Some(image) => {
            let message = format!("AMI name {name} is already in use by AMI {}", image.id);
            refuse("InvalidAMIName.Duplicate", message)
        }
        None => Ok(()),
    }
}

fn register(context: &Context<'_>, state: &mut State, xml: &mut Xml) -> Outcome<()> {
    let (query, caller) = (context.query, context.caller);
    only_for(query, &["image"])?;
    let tags = specified(query, "image")?;
    let arn = caller.image_arn("*");
    let mut needs = vec![Need::new("ec2:RegisterImage", arn.clone()).with_tags(&tags)];
    let snapshots = query.list("BlockDeviceMapping");
    for id in snapshots.iter().filter_map(|mapping| mapping.get("Ebs.SnapshotId")) {
        let known = state.region(&caller.region).snapshots.get(id).map(|known| known.tags.clone());
        needs.push(Need::new("ec2:RegisterImage", caller.snapshot_arn(id)).of_tagged(&known.unwrap_or_default()));
    }
    needs.extend(need(arn, "RegisterImage", &tags));
    context.may(&needs)?;
    let region = state.region(&caller.region);
    let name = query.text("Name");
    check_name(region, &caller.account, &name)?;
    let mappings = mappings(query, region, &caller.account)?;
    let root_device = query.text("RootDeviceName");
    let root = mappings.iter().find(|mapping| mapping.device == root_device);
    if root.is_none_or(|root| root.snapshot.is_none()) {
        let message = "A root device name that is mapped to a snapshot is required when registering an EBS-backed AMI";
        return refuse("InvalidBlockDeviceMapping", message);
    }
    check_firmware(query)?;
    let image = Image {
        id: new_id("ami"),
        owner: caller.account.clone(),
        name,
        description: query.maybe("Description"),
        state: ImageState::Pending(POLLS),
        architecture: query.maybe("Architecture").unwrap_or_else(|| "i386".to_owned()),
        virtualization: query.maybe("VirtualizationType").unwrap_or_else(|| "paravirtual".to_owned()),
        ena_support: query.flag("EnaSupport"),
        sriov_net_support: query.maybe("SriovNetSupport"),
        boot_mode: query.maybe("BootMode"),
        tpm_support: query.maybe("TpmSupport"),
        imds_support: query.maybe("ImdsSupport"),
        uefi_data: query.maybe("UefiData"),
        root_device,
        mappings,
        tags,
        created: Timestamp::now(),
        deprecated: None,
        permissions: BTreeSet::new(),
        copy_of: None,
        ends_badly: context.ends_badly,
    };
    xml.text("imageId", &image.id);
    region.images.insert(image.id.clone(), image);
    Ok(())
}

fn check_firmware(query: &Query) -> Outcome<()> {
    let is_uefi = query.get("BootMode") == Some("uefi");
    if query.get("TpmSupport").is_some() && !is_uefi {
        return refuse("InvalidParameterCombination", "TpmSupport requires the boot mode uefi");
    }
    let is_arm = query.get("Architecture") == Some("arm64");
    if is_arm && query.get("BootMode").is_some_and(|mode| mode != "uefi") {
        return refuse("InvalidParameterCombination", "The architecture arm64 boots by uefi only");
    }
    let is_hvm = query.get("VirtualizationType") == Some("hvm");
    if (query.get("BootMode").is_some() || is_arm) && !is_hvm {
        return refuse("InvalidParameterCombination", "A boot mode and arm64 require the virtualization type hvm");
    }
    if query.flag("EnaSupport") == Some(true) && !is_hvm {
        return refuse("InvalidParameterCombination", "EnaSupport requires the virtualization type hvm");
    }
    let is_base64 = |data: &str| base64::engine::general_purpose::STANDARD.decode(data).is_ok();
    if query.get("UefiData").is_some_and(|data| !is_base64(data)) {
        return refuse("InvalidParameterValue", "UefiData is no base64");
    }
    Ok(())
}

fn mappings(query: &Query, region: &Region, account: &str) -> Outcome<Vec<Mapping>> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for said in query.list("BlockDeviceMapping") {
        let mapping = mapping(&said, region, account)?;
        if mapping.device.is_empty() || mappings.iter().any(|known| known.device == mapping.device) {
            let message = format!("'{}' is no device name, or is there twice", mapping.device);
            return refuse("InvalidBlockDeviceMapping", message);
        }
        mappings.push(mapping);
    }
    Ok(mappings)
}

fn mapping(said: &Query, region: &Region, account: &str) -> Outcome<Mapping> {
    let ebs = said.under("Ebs");
    let kinds = [!ebs.is_empty(), said.get("VirtualName").is_some(), said.get("NoDevice").is_some()];
    if kinds.iter().filter(|&&is_so| is_so).count() != 1 {
        return refuse("InvalidBlockDeviceMapping", "A device is a volume, a virtual name or none");
    }
    let snapshot = ebs.maybe("SnapshotId");
    let mut gib = ebs.number("VolumeSize");
    let mut encrypted = ebs.flag("Encrypted");
    if let Some(id) = &snapshot {
        let found = region.snapshots.get(id).filter(|found| found.is_open_to(account)).ok_or_else(|| not_found(id))?;
        if found.state != SnapshotState::Completed {
            return refuse("IncorrectState", format!("The snapshot {id} is not completed"));
        }
        if encrypted.is_some() {
            let message = "the encrypted flag cannot be specified since device has a snapshot specified.";
            return refuse("InvalidBlockDeviceMapping", message);
        }
        if gib.is_some_and(|gib: u32| gib < found.gib) {
            let message = format!(
                "Volume of size {}GB is smaller than snapshot '{id}', expect size>= {}GB",
                gib.unwrap_or_default(),
                found.gib
            );
            return refuse("InvalidBlockDeviceMapping", message);
        }
        gib = gib.or(Some(found.gib));
        encrypted = Some(found.encrypted);
    } else if !ebs.is_empty() && gib.is_none() {
        return refuse("MissingParameter", "A volume needs a snapshot or a size");
    }
    if ebs.get("KmsKeyId").is_some() && encrypted != Some(true) {
        return refuse("InvalidParameterDependency", "KmsKeyId requires Encrypted");
    }
    let volume_type = ebs.maybe("VolumeType").unwrap_or_else(|| "standard".to_owned());
    if ebs.get("Throughput").is_some() && volume_type != "gp3" {
        return refuse(
            "InvalidParameterCombination",
            format!("The parameter throughput is not supported for {volume_type} volumes."),
        );
    }
    let takes_iops = ["io1", "io2", "gp3"].contains(&&*volume_type);
    if ebs.get("Iops").is_some() && !takes_iops || ebs.get("Iops").is_none() && volume_type.starts_with("io") {
        return refuse("InvalidParameterCombination", format!("The parameter iops does not go with {volume_type}"));
    }
    Ok(Mapping {
        device: said.text("DeviceName"),
        virtual_name: said.maybe("VirtualName"),
        no_device: said.get("NoDevice").is_some(),
        snapshot,
        gib,
        volume_type: (!ebs.is_empty()).then_some(volume_type),
        iops: ebs.number("Iops"),
        throughput: ebs.number("Throughput"),
        delete_on_termination: ebs.flag("DeleteOnTermination").unwrap_or(true),
        encrypted,
        kms_key: ebs.maybe("KmsKeyId"),
    })
}
