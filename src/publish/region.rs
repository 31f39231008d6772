//! The steps of one place, in order.

use std::path::Path;

use goldsmith_aws::{Aws, Copy, Endpoints, ImageState, Import, ImportState, ParameterType, Region, TemplateVersion};

use super::call::{copying_role, import_role};
use super::journal::{Made, Object, StepName};
use super::pace::{PATIENCE, Pace};
use super::plan::{Image, Place, Registration, Step};
use super::{Error, Event, Publication, snapshot, upload};
use crate::disk::export::Format;
use crate::document::distribution::{BootMode, Permission};

/// Does all steps of a place that are not done.
pub(super) async fn run(publication: &Publication<'_>, place: &Place) -> Result<(), Error> {
    let region = match &place.region {
        Some(region) => Some(publication.region(region, place).await),
        None => None,
    };
    for step in &place.steps {
        let name = step.name(&place.name);
        if publication.journal.entry(&name).is_some_and(|entry| entry.is_done) {
            continue;
        }
        publication.begins(&place.name, step.describe());
        match (step, &region) {
            (Step::Files { folder, formats }, _) => publication.write_files(&name, folder, formats).await?,
            (step, Some(region)) => Worker { publication, place, region }.step(step, &name).await?,
            (_, None) => {}
        }
        publication.journal.note_done(&name)?;
    }
    Ok(())
}

impl Publication<'_> {
    /// Whoever is asked in a region; a server of the place's own, if it has one.
    async fn region(&self, name: &str, place: &Place) -> Region {
        let endpoint = place.steps.iter().find_map(|step| match step {
            Step::Upload { object, .. } => object.endpoint.clone(),
            _ => None,
        });
        self.at(name, endpoint).await
    }

    /// A region, at another server than AWS's if that is given.
    pub(super) async fn at(&self, region: &str, endpoint: Option<String>) -> Region {
        match endpoint {
            None => self.aws.region(region),
            Some(endpoint) => Aws::connect(Endpoints { all: None, s3: Some(endpoint) }).await.region(region),
        }
    }

    async fn write_files(&self, name: &StepName, folder: &Path, formats: &[Format]) -> Result<(), Error> {
        self.journal.step(name)?;
        let written = (self.exporter)(formats.to_vec(), folder.to_owned()).await.map_err(Error::Export)?;
        let files = written.into_iter().map(|file| (file.path, file.sha256)).collect();
        Ok(self.journal.note_made(name, Made::Files { files })?)
    }
}

/// Does the steps of a region of AWS.
struct Worker<'a, 'p> {
    publication: &'a Publication<'p>,
    place: &'a Place,
    region: &'a Region,
}

impl Worker<'_, '_> {
    async fn step(&self, step: &Step, name: &StepName) -> Result<(), Error> {
        let Self { publication, region, .. } = *self;
        match step {
            Step::Snapshot { gib, image } => snapshot::make(publication, region, name, *gib, image).await.map(drop),
            Step::Upload { object, format } => upload::write(publication, region, name, object, *format).await,
            Step::Import { object, role, image } => self.import(name, object, role, image).await,
            Step::RemoveObject { object } => self.remove_object(object).await,
            Step::Instructions { object, role, registration } => {
                let text = instructions(object, role, registration);
                publication.tell(Event::Note { place: self.place.name.clone(), text });
                Ok(())
            }
            Step::Register(registration) => self.register(name, registration).await,
            Step::CopyFromRegion { from, image } => {
                let (original, _) = publication.image_in(from, None).map_err(|_| {
                    let region = from.clone();
                    Error::NoOrigin { region }
                })?;
                self.copy(name, region, &original, from, image).await
            }
            Step::Share(permission) => self.share(permission).await,
            Step::CopyToAccount { account, image } => self.copy_to_account(name, account, image).await,
            Step::Deprecate { at } => {
                let (image, _) = publication.image_in(&self.place.name, None)?;
                Ok(region.deprecate_image(&image, at.as_second()).await?)
            }
            Step::Template { id, account, set_default } => {
                self.template(name, id, account.as_deref(), *set_default).await
            }
            Step::Parameter { name: parameter, account, is_image } => {
                self.parameter(name, parameter, account.as_deref(), *is_image).await
            }
            Step::Files { .. } => Ok(()),
        }
    }

    /// Has AWS make a snapshot of an object.
    async fn import(&self, name: &StepName, object: &Object, role: &str, image: &Image) -> Result<(), Error> {
        let (journal, region) = (self.publication.journal, self.region);
        let entry = journal.step(name)?;
        let task = match entry.made {
            Some(Made::Snapshot { .. }) => return Ok(()),
            Some(Made::Task { id }) => id,
            _ => {
                let import = Import {
                    bucket: &object.bucket,
                    key: &object.key,
                    format: "VMDK",
                    role,
                    description: &image.description,
                    kms_key: image.kms_key.as_deref(),
                    token: &entry.token,
                };
                let id = region.import_snapshot(&import).await?;
                journal.note_made(name, Made::Task { id: id.clone() })?;
                id
            }
        };
        self.publication.begins(&self.place.name, format!("waiting for {task}"));
        let mut pace = Pace::new("snapshot", &task, PATIENCE);
        let id = loop {
            match region.import_state(&task).await? {
                ImportState::Active { .. } => pace.wait().await?,
                ImportState::Completed { snapshot } => break snapshot,
                ImportState::Failed(why) => {
                    // Of a task that has failed nothing is left; the next try is another one.
                    journal.step_anew(name)?;
                    return Err(Error::NotMade { what: "snapshot", why });
                }
            }
        };
        region.tag(&id, &image.tags).await?;
        let content = self.publication.manifest.disk.as_ref().and_then(|disk| disk.content.clone());
        Ok(journal.note_made(name, Made::Snapshot { id, content, parent: None })?)
    }

    async fn remove_object(&self, object: &Object) -> Result<(), Error> {
        self.region.delete_object(&object.bucket, &object.key).await?;
        let upload = StepName { place: self.place.name.clone(), step: format!("upload {object}"), account: None };
        Ok(self.publication.journal.note_gone(&upload)?)
    }

    async fn register(&self, name: &StepName, registration: &Registration) -> Result<(), Error> {
        let (journal, region) = (self.publication.journal, self.region);
        let snapshot = self.publication.snapshot_in(&self.place.name)?;
        let Registration { image, .. } = registration;
        let entry = journal.step(name)?;
        let id = match entry.made {
            Some(Made::Image { id, .. }) => id,
            _ => {
                let id = match region.register_image(&request(registration, &snapshot)).await {
                    Ok(id) => id,
                    // The name is taken: perhaps by this very image, whose registration's answer was lost.
                    Err(error) if error.code.as_deref() == Some("InvalidAMIName.Duplicate") => {
                        self.known_image(&image.name, &snapshot).await?
                    }
                    Err(error) => return Err(error.into()),
                };
                let made = Made::Image { id: id.clone(), name: image.name.clone(), snapshots: Vec::new() };
                journal.note_made(name, made)?;
                id
            }
        };
        self.image_is_ready(region, &id).await.map(drop)
    }

    /// The image of a name, if it is of this very snapshot.
    async fn known_image(&self, name: &str, snapshot: &str) -> Result<String, Error> {
        match self.region.image_named(name).await? {
            Some(image) if image.snapshots.iter().any(|known| known == snapshot) => Ok(image.id),
            other => Err(Error::Taken {
                name: name.to_owned(),
                region: self.region.name.clone(),
                id: other.map(|image| image.id).unwrap_or_default(),
            }),
        }
    }

    async fn image_is_ready(&self, region: &Region, id: &str) -> Result<ImageState, Error> {
        self.publication.begins(&self.place.name, format!("waiting for {id}"));
        let mut pace = Pace::new("image", id, PATIENCE);
        loop {
            // What was just made is not known everywhere at once.
            match region.image(id).await? {
                Some(image) if image.state == "available" => return Ok(image),
                Some(image) if image.state != "pending" => {
                    let reason = image.reason.unwrap_or_else(|| "AWS does not say why".to_owned());
                    return Err(Error::NotMade { what: "image", why: format!("it is {}: {reason}", image.state) });
                }
                _ => pace.wait().await?,
            }
        }
    }

    /// Copies an image into a region, of this or another account.
    async fn copy(&self, name: &StepName, to: &Region, original: &str, from: &str, image: &Image) -> Result<(), Error> {
        let journal = self.publication.journal;
        let entry = journal.step(name)?;
        let note = |id: &str, snapshots: Vec<String>| {
            journal.note_made(name, Made::Image { id: id.to_owned(), name: image.name.clone(), snapshots })
        };
        let id = match entry.made {
            Some(Made::Image { id, .. }) => id,
            _ => {
                let copy = Copy {
                    image: original,
                    from,
                    name: &image.name,
                    description: Some(&image.description),
                    kms_key: image.kms_key.as_deref(),
                    tags: &image.tags,
                    token: &entry.token,
                };
                let id = to.copy_image(copy).await?;
                note(&id, Vec::new())?;
                id
            }
        };
        let ready = self.image_is_ready(to, &id).await?;
        Ok(note(&id, ready.snapshots)?)
    }

    async fn share(&self, permission: &Permission) -> Result<(), Error> {
        let (image, _) = self.publication.image_in(&self.place.name, None)?;
        let with = goldsmith_aws::LaunchPermission {
            accounts: permission.accounts.clone(),
            is_public: permission.is_public,
            organizations: permission.organizations.clone(),
            organizational_units: permission.organizational_units.clone(),
        };
        Ok(self.region.share_image(&image, &with).await?)
    }

    /// Lets an account have the image and its snapshot, and as that account makes a copy of its own.
    async fn copy_to_account(&self, name: &StepName, account: &str, image: &Image) -> Result<(), Error> {
        let (original, snapshots) = self.publication.image_in(&self.place.name, None)?;
        let accounts = vec![account.to_owned()];
        let with = goldsmith_aws::LaunchPermission { accounts: accounts.clone(), ..Default::default() };
        self.region.share_image(&original, &with).await?;
        for snapshot in &snapshots {
            self.region.share_snapshot(snapshot, &accounts).await?;
        }
        let theirs = self.publication.as_account(&self.region.name, account).await;
        self.copy(name, &theirs, &original, &self.region.name, image).await
    }

    /// The region as the account sees it that something is in, and the image there.
    async fn in_account(&self, account: Option<&str>) -> Result<(Region, String), Error> {
        let place = &self.place.name;
        let Some(account) = account else {
            return Ok((self.region.clone(), self.publication.image_in(place, None)?.0));
        };
        if let Ok((image, _)) = self.publication.image_in(place, Some(account)) {
            return Ok((self.publication.as_account(&self.region.name, account).await, image));
        }
        if self.region.account().await? == account {
            return Ok((self.region.clone(), self.publication.image_in(place, None)?.0));
        }
        Err(Error::Stranger { account: account.to_owned() })
    }

    async fn template(&self, name: &StepName, id: &str, account: Option<&str>, set_default: bool) -> Result<(), Error> {
        let journal = self.publication.journal;
        let (region, image) = self.in_account(account).await?;
        let entry = journal.step(name)?;
        let version = match entry.made {
            Some(Made::TemplateVersion { version, .. }) => version,
            _ => {
                let previous = region.default_template_version(id).await?;
                let description = format!("{}, published by goldsmith", self.publication.subject.id);
                let new =
                    TemplateVersion { template: id, image: &image, description: &description, token: &entry.token };
                let version = region.create_template_version(new).await?;
                let made = Made::TemplateVersion { template: id.to_owned(), version, previous };
                journal.note_made(name, made)?;
                version
            }
        };
        if set_default {
            region.set_default_template_version(id, version).await?;
        }
        Ok(())
    }

    async fn parameter(&self, name: &StepName, id: &str, account: Option<&str>, is_image: bool) -> Result<(), Error> {
        let journal = self.publication.journal;
        let (region, image) = self.in_account(account).await?;
        let entry = journal.step(name)?;
        if entry.made.is_none() {
            let before = region.parameter(id).await?;
            let was_image = before.as_ref().is_some_and(|before| before.kind == ParameterType::Image);
            let previous = before.map(|before| before.value);
            let made =
                Made::Parameter { name: id.to_owned(), previous, is_image: was_image, value: Some(image.clone()) };
            journal.note_made(name, made)?;
        }
        let kind = if is_image { ParameterType::Image } else { ParameterType::Text };
        region.put_parameter(id, &image, kind).await?;
        Ok(())
    }
}

impl Publication<'_> {
    /// A region as another account sees it.
    pub(super) async fn as_account(&self, region: &str, account: &str) -> Region {
        self.aws.assume(&copying_role(region, account), region).await.region(region)
    }

    /// The image that was made in a place, for an account if that is given, and its snapshots.
    fn image_in(&self, place: &str, account: Option<&str>) -> Result<(String, Vec<String>), Error> {
        let step = StepName { place: place.to_owned(), step: "image".to_owned(), account: account.map(str::to_owned) };
        let unknown = || Error::Unknown { step: step.step.clone() };
        match self.journal.made(&step) {
            Some(Made::Image { id, snapshots, .. }) if snapshots.is_empty() => Ok((id, vec![self.snapshot_in(place)?])),
            Some(Made::Image { id, snapshots, .. }) => Ok((id, snapshots)),
            _ => Err(unknown()),
        }
    }

    /// The snapshot that was made in a place.
    fn snapshot_in(&self, place: &str) -> Result<String, Error> {
        let named = |step: &str| StepName { place: place.to_owned(), step: step.to_owned(), account: None };
        for step in ["snapshot", "import"] {
            if let Some(Made::Snapshot { id, .. }) = self.journal.made(&named(step)) {
                return Ok(id);
            }
        }
        Err(Error::Unknown { step: "snapshot".to_owned() })
    }
}

fn request<'a>(registration: &'a Registration, snapshot: &'a str) -> goldsmith_aws::Registration<'a> {
    let Registration { image, gib, boot_mode, ena, imds_v2, tpm_v2 } = registration;
    goldsmith_aws::Registration {
        name: &image.name,
        description: Some(&image.description),
        snapshot,
        gib: *gib,
        root_device: super::plan::ROOT_DEVICE,
        architecture: "x86_64",
        boot_mode: match boot_mode {
            BootMode::LegacyBios => goldsmith_aws::BootMode::LegacyBios,
            BootMode::Uefi => goldsmith_aws::BootMode::Uefi,
            BootMode::UefiPreferred => goldsmith_aws::BootMode::UefiPreferred,
        },
        ena: *ena,
        imds_v2: *imds_v2,
        tpm_v2: *tpm_v2,
        tags: &image.tags,
    }
}

/// What somebody who may import a disk has to type, and what the role for it has to allow.
fn instructions(object: &Object, role: &str, registration: &Registration) -> String {
    let Registration { image, gib, boot_mode, .. } = registration;
    let (trust, permissions) = import_role(&object.region, &object.bucket);
    let container = serde_json::json!({
        "Format": "VMDK", "UserBucket": { "S3Bucket": object.bucket, "S3Key": object.key }
    });
    let disk = serde_json::json!([{
        "DeviceName": super::plan::ROOT_DEVICE,
        "Ebs": { "SnapshotId": "SNAPSHOT", "VolumeSize": gib, "VolumeType": "gp3", "DeleteOnTermination": true }
    }]);
    let mode = match boot_mode {
        BootMode::LegacyBios => "legacy-bios",
        BootMode::Uefi => "uefi",
        BootMode::UefiPreferred => "uefi-preferred",
    };
    let quote = crate::host::process::quote;
    format!(
        "{object} is there. To make an image of it, with the snapshot's identifier for SNAPSHOT:\n\
         aws ec2 import-snapshot --region {region} --role-name {role} --disk-container {container}\n\
         aws ec2 describe-import-snapshot-tasks --region {region}\n\
         aws ec2 register-image --region {region} --name {name} --architecture x86_64 --virtualization-type hvm \
         --ena-support --boot-mode {mode} --root-device-name {root} --block-device-mappings {disk}\n\
         The role {role} trusts:\n{trust}\nand is allowed:\n{permissions}",
        region = object.region,
        container = quote(&container.to_string()),
        name = quote(&image.name),
        root = super::plan::ROOT_DEVICE,
        disk = quote(&disk.to_string()),
    )
}
