//! Snapshots and images.

use aws_sdk_ec2::primitives::DateTime;
use aws_sdk_ec2::types::{
    ArchitectureValues, BlockDeviceMapping, BootModeValues, EbsBlockDevice, Filter, ImdsSupportValues,
    LaunchPermission as Permission, LaunchPermissionModifications, OperationType, PermissionGroup, ResourceType,
    SnapshotAttributeName, SnapshotDiskContainer, Tag, TagSpecification, TpmSupportValues, UserBucket, VolumeType,
};

use crate::{Error, Region, Tags};

/// How a snapshot is getting on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotState {
    /// It is being made; in AWS's words, how much of it.
    Pending(String),
    /// It can be used.
    Completed,
    /// It can't, and why.
    Failed(String),
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// How it is getting on.
    pub state: SnapshotState,
    /// Its size in GiB.
    pub gib: u64,
    /// The key that it is encrypted with.
    pub kms_key: Option<String>,
}

/// How an instance's firmware starts an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootMode {
    /// By BIOS.
    LegacyBios,
    /// By UEFI.
    Uefi,
    /// By UEFI where the instance type has it, else by BIOS.
    UefiPreferred,
}

/// An image to be made of a snapshot. What is not here is the same for every image: EBS, `hvm`, a volume of type gp3 that
/// goes with the instance.
#[derive(Debug, Clone, Copy)]
pub struct Registration<'a> {
    /// Its name: 3 to 128 characters, one image's in an account and region.
    pub name: &'a str,
    /// What it is.
    pub description: Option<&'a str>,
    /// Its only disk.
    pub snapshot: &'a str,
    /// Size of that disk in GiB.
    pub gib: u64,
    /// What instances call it, such as `/dev/xvda`.
    pub root_device: &'a str,
    /// `x86_64` or `arm64`.
    pub architecture: &'a str,
    /// How it starts.
    pub boot_mode: BootMode,
    /// Whether it can drive the network card of current instance types.
    pub ena: bool,
    /// Whether its instances require session tokens for their metadata.
    pub imds_v2: bool,
    /// Whether its instances have a TPM 2.0.
    pub tpm_v2: bool,
    /// Its labels.
    pub tags: &'a Tags,
}

/// How an image is getting on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageState {
    /// Its identifier.
    pub id: String,
    /// AWS's word: `pending`, `available`, `failed` and others.
    pub state: String,
    /// Why, if AWS says.
    pub reason: Option<String>,
    /// The snapshots of its disks.
    pub snapshots: Vec<String>,
    /// Its labels.
    pub tags: Vec<(String, String)>,
    /// When it was made, as EC2 writes times.
    pub created: Option<String>,
}

/// An image to be copied into a region.
#[derive(Debug, Clone, Copy)]
pub struct Copy<'a> {
    /// The image.
    pub image: &'a str,
    /// The region that it is in.
    pub from: &'a str,
    /// The copy's name.
    pub name: &'a str,
    /// What it is.
    pub description: Option<&'a str>,
    /// The key to encrypt its snapshot with.
    pub kms_key: Option<&'a str>,
    /// Its labels.
    pub tags: &'a Tags,
    /// What makes a repeated request one request.
    pub token: &'a str,
}

/// Who else may launch an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LaunchPermission {
    /// Numbers of accounts.
    pub accounts: Vec<String>,
    /// Everybody.
    pub is_public: bool,
    /// ARNs of organisations.
    pub organizations: Vec<String>,
    /// ARNs of organisational units.
    pub organizational_units: Vec<String>,
}

/// A disk in S3 to be made a snapshot.
#[derive(Debug, Clone, Copy)]
pub struct Import<'a> {
    /// The bucket, of the same region.
    pub bucket: &'a str,
    /// The object.
    pub key: &'a str,
    /// `VMDK`, `VHD` or `RAW`.
    pub format: &'a str,
    /// The role by which VM Import reads the bucket.
    pub role: &'a str,
    /// What it is.
    pub description: &'a str,
    /// The key to encrypt the snapshot with.
    pub kms_key: Option<&'a str>,
    /// What makes a repeated request one request.
    pub token: &'a str,
}

/// How an import is getting on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImportState {
    /// It is under way: percent, and what is being done.
    Active {
        /// How much is done, if AWS says.
        percent: Option<String>,
        /// What is being done.
        message: Option<String>,
    },
    /// The snapshot is there.
    Completed {
        /// Its identifier.
        snapshot: String,
    },
    /// It will not be.
    Failed(String),
}

fn tags(kind: ResourceType, tags: &Tags) -> Option<Vec<TagSpecification>> {
    let tag = |(key, value): &(String, String)| Tag::builder().key(key).value(value).build();
    let specification = TagSpecification::builder().resource_type(kind);
    (!tags.is_empty()).then(|| vec![specification.set_tags(Some(tags.iter().map(tag).collect())).build()])
}

impl Region {
    /// A snapshot, if it is there.
    pub async fn snapshot(&self, id: &str) -> Result<Option<Snapshot>, Error> {
        let answer = self.ec2.describe_snapshots().snapshot_ids(id).send().await;
        let answer = match answer.map_err(|error| Error::of("EC2", "DescribeSnapshots", error)) {
            Err(error) if error.is_not_found() => return Ok(None),
            answer => answer?,
        };
        let Some(snapshot) = answer.snapshots.unwrap_or_default().into_iter().next() else { return Ok(None) };
        let state = snapshot.state.as_ref().map(aws_sdk_ec2::types::SnapshotState::as_str);
        let state = match state {
            Some("completed") => SnapshotState::Completed,
            Some("pending") => SnapshotState::Pending(snapshot.progress.clone().unwrap_or_default()),
            other => {
                let why = snapshot.state_message.as_deref().unwrap_or_default();
                SnapshotState::Failed(format!("{} {why}", other.unwrap_or("in no state")).trim().to_owned())
            }
        };
        let gib = snapshot.volume_size.and_then(|gib| u64::try_from(gib).ok()).unwrap_or(0);
        Ok(Some(Snapshot { state, gib, kms_key: snapshot.kms_key_id }))
    }

    /// Lets accounts make volumes of a snapshot, which they need to copy an image of it.
    pub async fn share_snapshot(&self, id: &str, accounts: &[String]) -> Result<(), Error> {
        let request = self
            .ec2
            .modify_snapshot_attribute()
            .snapshot_id(id)
            .attribute(SnapshotAttributeName::CreateVolumePermission)
            .operation_type(OperationType::Add)
            .set_user_ids(Some(accounts.to_vec()));
        request.send().await.map(drop).map_err(|error| Error::of("EC2", "ModifySnapshotAttribute", error))
    }

    /// Removes a snapshot, if it is there.
    pub async fn delete_snapshot(&self, id: &str) -> Result<(), Error> {
        let answer = self.ec2.delete_snapshot().snapshot_id(id).send().await;
        match answer.map_err(|error| Error::of("EC2", "DeleteSnapshot", error)) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// Labels something.
    pub async fn tag(&self, id: &str, tags: &Tags) -> Result<(), Error> {
        let tag = |(key, value): &(String, String)| Tag::builder().key(key).value(value).build();
        let request = self.ec2.create_tags().resources(id).set_tags(Some(tags.iter().map(tag).collect()));
        request.send().await.map(drop).map_err(|error| Error::of("EC2", "CreateTags", error))
    }

    /// Makes an image of a snapshot. Returns its identifier.
    pub async fn register_image(&self, image: &Registration<'_>) -> Result<String, Error> {
        let volume = EbsBlockDevice::builder()
            .snapshot_id(image.snapshot)
            .volume_size(image.gib.try_into().unwrap_or(i32::MAX))
            .volume_type(VolumeType::Gp3)
            .delete_on_termination(true)
            .build();
        let disk = BlockDeviceMapping::builder().device_name(image.root_device).ebs(volume).build();
        let boot_mode = match image.boot_mode {
            BootMode::LegacyBios => BootModeValues::LegacyBios,
            BootMode::Uefi => BootModeValues::Uefi,
            BootMode::UefiPreferred => BootModeValues::UefiPreferred,
        };
        let request = self
            .ec2
            .register_image()
            .name(image.name)
            .set_description(image.description.map(str::to_owned))
            // AWS's own defaults are i386 and paravirtual, and no ENA.
            .architecture(ArchitectureValues::from(image.architecture))
            .virtualization_type("hvm")
            .ena_support(image.ena)
            .boot_mode(boot_mode)
            .set_imds_support(image.imds_v2.then_some(ImdsSupportValues::V20))
            .set_tpm_support(image.tpm_v2.then_some(TpmSupportValues::V20))
            .root_device_name(image.root_device)
            .block_device_mappings(disk)
            .set_tag_specifications(tags(ResourceType::Image, image.tags));
        let answer = request.send().await.map_err(|error| Error::of("EC2", "RegisterImage", error))?;
        Error::expect("EC2", "RegisterImage", answer.image_id)
    }

    /// An image, if it is there.
    pub async fn image(&self, id: &str) -> Result<Option<ImageState>, Error> {
        let answer = self.ec2.describe_images().image_ids(id).send().await;
        match answer.map_err(|error| Error::of("EC2", "DescribeImages", error)) {
            Err(error) if error.is_not_found() => Ok(None),
            answer => Ok(answer?.images.unwrap_or_default().into_iter().next().map(state)),
        }
    }

    /// The account's own image of a name, if there is one.
    pub async fn image_named(&self, name: &str) -> Result<Option<ImageState>, Error> {
        let filter = Filter::builder().name("name").values(name).build();
        let answer = self.ec2.describe_images().owners("self").filters(filter).send().await;
        let answer = answer.map_err(|error| Error::of("EC2", "DescribeImages", error))?;
        Ok(answer.images.unwrap_or_default().into_iter().next().map(state))
    }

    /// Copies an image into this region and account. Returns the copy's identifier.
    pub async fn copy_image(&self, copy: Copy<'_>) -> Result<String, Error> {
        let request = self
            .ec2
            .copy_image()
            .source_image_id(copy.image)
            .source_region(copy.from)
            .name(copy.name)
            .set_description(copy.description.map(str::to_owned))
            .set_encrypted(copy.kms_key.map(|_| true))
            .set_kms_key_id(copy.kms_key.map(str::to_owned))
            .set_tag_specifications(tags(ResourceType::Image, copy.tags))
            .client_token(copy.token);
        let answer = request.send().await.map_err(|error| Error::of("EC2", "CopyImage", error))?;
        Error::expect("EC2", "CopyImage", answer.image_id)
    }

    /// Lets others launch an image.
    pub async fn share_image(&self, id: &str, with: &LaunchPermission) -> Result<(), Error> {
        let one = Permission::builder;
        let mut permissions: Vec<Permission> = Vec::new();
        permissions.extend(with.accounts.iter().map(|account| one().user_id(account).build()));
        permissions.extend(with.is_public.then(|| one().group(PermissionGroup::All).build()));
        permissions.extend(with.organizations.iter().map(|arn| one().organization_arn(arn).build()));
        permissions.extend(with.organizational_units.iter().map(|arn| one().organizational_unit_arn(arn).build()));
        let add = LaunchPermissionModifications::builder().set_add(Some(permissions)).build();
        let answer = self.ec2.modify_image_attribute().image_id(id).launch_permission(add).send().await;
        answer.map(drop).map_err(|error| Error::of("EC2", "ModifyImageAttribute", error))
    }

    /// Has an image be deprecated from a time on, in seconds since 1970.
    pub async fn deprecate_image(&self, id: &str, at: i64) -> Result<(), Error> {
        let request = self.ec2.enable_image_deprecation().image_id(id).deprecate_at(DateTime::from_secs(at));
        request.send().await.map(drop).map_err(|error| Error::of("EC2", "EnableImageDeprecation", error))
    }

    /// Makes an image unknown, if it is there. Its snapshots stay.
    pub async fn deregister_image(&self, id: &str) -> Result<(), Error> {
        let answer = self.ec2.deregister_image().image_id(id).send().await;
        match answer.map_err(|error| Error::of("EC2", "DeregisterImage", error)) {
            // AWS calls one that was deregistered before unavailable.
            Err(error) if !error.is_not_found() && error.code.as_deref() != Some("InvalidAMIID.Unavailable") => {
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// Begins to make a snapshot of an object in S3. Returns the task's identifier.
    pub async fn import_snapshot(&self, import: &Import<'_>) -> Result<String, Error> {
        let bucket = UserBucket::builder().s3_bucket(import.bucket).s3_key(import.key).build();
        let container = SnapshotDiskContainer::builder().format(import.format).user_bucket(bucket).build();
        let request = self
            .ec2
            .import_snapshot()
            .disk_container(container)
            .role_name(import.role)
            .description(import.description)
            .set_encrypted(import.kms_key.map(|_| true))
            .set_kms_key_id(import.kms_key.map(str::to_owned))
            .client_token(import.token);
        let answer = request.send().await.map_err(|error| Error::of("EC2", "ImportSnapshot", error))?;
        Error::expect("EC2", "ImportSnapshot", answer.import_task_id)
    }

    /// Gives an import up, if it is under way.
    pub async fn cancel_import(&self, task: &str) -> Result<(), Error> {
        let answer = self.ec2.cancel_import_task().import_task_id(task).send().await;
        match answer.map_err(|error| Error::of("EC2", "CancelImportTask", error)) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// How an import is getting on.
    pub async fn import_state(&self, task: &str) -> Result<ImportState, Error> {
        let answer = self.ec2.describe_import_snapshot_tasks().import_task_ids(task).send().await;
        let answer = answer.map_err(|error| Error::of("EC2", "DescribeImportSnapshotTasks", error))?;
        let task = answer.import_snapshot_tasks.unwrap_or_default().into_iter().next();
        let detail = task.and_then(|task| task.snapshot_task_detail);
        let detail = Error::expect("EC2", "DescribeImportSnapshotTasks", detail)?;
        Ok(match (detail.status.as_deref(), detail.snapshot_id) {
            (Some("completed"), Some(snapshot)) => ImportState::Completed { snapshot },
            (Some("active"), _) => ImportState::Active { percent: detail.progress, message: detail.status_message },
            (status, _) => {
                let why = detail.status_message.unwrap_or_else(|| "AWS does not say why".to_owned());
                ImportState::Failed(format!("it is {}: {why}", status.unwrap_or("in no state")))
            }
        })
    }
}

fn state(image: aws_sdk_ec2::types::Image) -> ImageState {
    let disks = image.block_device_mappings.unwrap_or_default();
    let snapshots = disks.into_iter().filter_map(|disk| disk.ebs?.snapshot_id);
    ImageState {
        id: image.image_id.unwrap_or_default(),
        state: image.state.map(|state| state.as_str().to_owned()).unwrap_or_default(),
        reason: image.state_reason.and_then(|reason| reason.message),
        snapshots: snapshots.collect(),
        tags: image.tags.unwrap_or_default().into_iter().filter_map(|tag| Some((tag.key?, tag.value?))).collect(),
        created: image.creation_date,
    }
}
