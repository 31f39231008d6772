//! What a publication does, step by step: a function of the document, the image and when it was begun.
//!
//! A plan is what is carried out, what `--plan` shows and what `--policy` is made from, so none of them can leave out what
//! another has.

use std::path::PathBuf;

use jiff::Timestamp;

use super::journal::{Header, Object, StepName};
use crate::check::BootPaths;
use crate::disk::export::Format;
use crate::document::decode::{Reader, Spanned, Strictness};
use crate::document::diagnostic::Report;
use crate::document::distribution::{
    Ami, BootMode, Bucket, Directory, DiskFormat, Distribution, Permission, Region, Road, Staging, Target,
};
use crate::store::version::ImageId;

/// The image that is published.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Which.
    pub id: ImageId,
    /// SHA-256 of its sealed disk.
    pub disk: String,
    /// Size that a guest sees, in bytes.
    pub size: u64,
    /// What firmware finds on the disk, and what the system can drive.
    pub boot: BootPaths,
    /// Whether it was tested by UEFI.
    pub tested_by_uefi: bool,
    /// The recipe's tags.
    pub tags: Vec<(String, String)>,
}

impl Subject {
    /// Size in GiB, as clouds count.
    pub fn gib(&self) -> u64 {
        self.size.div_ceil(1 << 30)
    }
}

/// Everything that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Name of the distribution configuration.
    pub distribution: String,
    /// What is done where.
    pub places: Vec<Place>,
    /// What is done when all of that went well.
    pub pointers: Vec<Pointer>,
    /// The topic that is told at the end.
    pub topic: Option<String>,
}

/// What is done in one place; nothing that happens in another changes it, unless it copies from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its name: a region's, or what kind of place it is and where.
    pub name: String,
    /// The region of AWS that it is in.
    pub region: Option<String>,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

impl Place {
    /// The place that has to be done first.
    pub fn origin(&self) -> Option<&str> {
        self.steps.iter().find_map(|step| match step {
            Step::CopyFromRegion { from, .. } => Some(from.as_str()),
            _ => None,
        })
    }
}

/// An image of AWS, as it is registered or copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its name.
    pub name: String,
    /// What it is.
    pub description: String,
    /// Its labels.
    pub tags: Vec<(String, String)>,
    /// The key that its disk is encrypted with.
    pub kms_key: Option<String>,
}

/// One thing that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The disk's blocks become a snapshot.
    Snapshot {
        /// Its size in GiB.
        gib: u64,
        /// What it and the image are called.
        image: Image,
    },
    /// The disk becomes an object.
    Upload {
        /// Where.
        object: Object,
        /// As what.
        format: Format,
    },
    /// AWS makes a snapshot of the object.
    Import {
        /// The object.
        object: Object,
        /// The role that reads it.
        role: String,
        /// What it and the image are called.
        image: Image,
    },
    /// The object has done its work.
    RemoveObject {
        /// The object.
        object: Object,
    },
    /// Whoever may import it is told how.
    Instructions {
        /// The object.
        object: Object,
        /// The role that would read it.
        role: String,
        /// What would be registered.
        registration: Box<Registration>,
    },
    /// The snapshot becomes an image.
    Register(Box<Registration>),
    /// The image of another region is copied.
    CopyFromRegion {
        /// That region.
        from: String,
        /// The copy.
        image: Image,
    },
    /// Others may launch the image.
    Share(Permission),
    /// An account gets a copy of its own.
    CopyToAccount {
        /// The account.
        account: String,
        /// The copy.
        image: Image,
    },
    /// The image will be deprecated.
    Deprecate {
        /// When.
        at: Timestamp,
    },
    /// A launch template gets a version with the image.
    Template {
        /// The template.
        id: String,
        /// The account it is in.
        account: Option<String>,
        /// Whether the version becomes its default.
        set_default: bool,
    },
    /// A parameter gets the image's identifier.
    Parameter {
        /// Its name.
        name: String,
        /// The account it is in.
        account: Option<String>,
        /// Whether AWS looks whether there is such an image.
        is_image: bool,
    },
    /// Files in a folder of this host.
    Files {
        /// The folder.
        folder: PathBuf,
        /// As what, all in one pass.
        formats: Vec<Format>,
    },
}

/// An image as it is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// What it is called.
    pub image: Image,
    /// Size of its disk in GiB.
    pub gib: u64,
    /// How it starts.
    pub boot_mode: BootMode,
    /// Whether it can drive an ENA.
    pub ena: bool,
    /// Whether its instances require session tokens for their metadata.
    pub imds_v2: bool,
    /// Whether its instances have a TPM 2.0.
    pub tpm_v2: bool,
}

/// What says which image is the newest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    /// The place whose files it names.
    pub place: String,
    /// Where it is.
    pub to: PointerPlace,
}

/// Where a pointer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PointerPlace {
    /// A file of this host.
    File(PathBuf),
    /// An object.
    Object(Object),
}

impl Step {
    /// Its name in the journal.
    pub fn name(&self, place: &str) -> StepName {
        let (step, account) = match self {
            Self::Snapshot { .. } => ("snapshot".to_owned(), None),
            Self::Upload { object, .. } => (format!("upload {object}"), None),
            Self::Import { .. } => ("import".to_owned(), None),
            Self::RemoveObject { object } => (format!("remove {object}"), None),
            Self::Instructions { .. } => ("instructions".to_owned(), None),
            Self::Register(_) | Self::CopyFromRegion { .. } => ("image".to_owned(), None),
            Self::Share(_) => ("launch permission".to_owned(), None),
            Self::CopyToAccount { account, .. } => ("image".to_owned(), Some(account.clone())),
            Self::Deprecate { .. } => ("deprecation".to_owned(), None),
            Self::Template { id, account, .. } => (format!("launch template {id}"), account.clone()),
            Self::Parameter { name, account, .. } => (format!("parameter {name}"), account.clone()),
            Self::Files { .. } => ("files".to_owned(), None),
        };
        StepName { place: place.to_owned(), step, account }
    }
}

impl Step {
    /// What it does, for people.
    pub fn describe(&self) -> String {
        match self {
            Self::Snapshot { gib, .. } => format!("a snapshot of {gib} GiB, block by block"),
            Self::Upload { object, format } => format!("{object}, as {format}"),
            Self::Import { object, role, .. } => format!("a snapshot of {object}, read by {role}"),
            Self::RemoveObject { object } => format!("{object} goes"),
            Self::Instructions { .. } => "how to import it".to_owned(),
            Self::Register(registration) => format!("the image `{}`", registration.image.name),
            Self::CopyFromRegion { from, image } => format!("the image `{}`, copied from {from}", image.name),
            Self::Share(_) => "others may launch it".to_owned(),
            Self::CopyToAccount { account, .. } => format!("a copy for account {account}"),
            Self::Deprecate { at } => format!("deprecated from {at} on"),
            Self::Template { id, set_default: true, .. } => format!("a new version of {id}, its default"),
            Self::Template { id, .. } => format!("a new version of {id}"),
            Self::Parameter { name, .. } => format!("its identifier in the parameter {name}"),
            Self::Files { folder, formats } => {
                let names: Vec<&str> = formats.iter().map(|format| format.name()).collect();
                format!("{} in {}", names.join(", "), folder.display())
            }
        }
    }
}

/// What an image's root disk is called in instances. Nothing in a guest goes by it.
pub(super) const ROOT_DEVICE: &str = "/dev/xvda";

/// Makes the plan. What does not fit the image is said with its place in the document.
pub fn plan(document: &Distribution, subject: &Subject, header: &Header) -> Result<Plan, Report> {
    let reader = Reader::new(document.source.clone(), Strictness::Strict);
    let planner = Planner { reader: &reader, subject, header };
    let mut plan = Plan {
        distribution: document.name.value.clone(),
        places: Vec::new(),
        pointers: Vec::new(),
        topic: document.topic.as_ref().map(|topic| topic.value.clone()),
    };
    for target in &document.targets {
        match target {
            Target::Region(region) => {
                let origin = document.targets.iter().find_map(|target| origin_of(region, target));
                plan.places.extend(planner.region(region, origin.unwrap_or(region)));
            }
            Target::Directory(directory) => planner.directory(directory, &mut plan),
            Target::Bucket(bucket) => planner.bucket(bucket, &mut plan),
        }
    }
    reader.finish(Some(plan)).map(|(plan, _)| plan)
}

/// The region that another is copied from.
fn origin_of<'a>(region: &Region, target: &'a Target) -> Option<&'a Region> {
    match (&region.road, target) {
        (Road::CopyFrom(from), Target::Region(other)) if other.name.value == from.value => Some(other),
        _ => None,
    }
}

/// A copy is called what its origin is called, unless something else is said.
fn like_origin(copy: &mut Ami, origin: Option<&Ami>) {
    let Some(origin) = origin else { return };
    copy.name = copy.name.take().or_else(|| origin.name.clone());
    copy.description = copy.description.take().or_else(|| origin.description.clone());
    if copy.tags.is_empty() {
        copy.tags.clone_from(&origin.tags);
    }
}

struct Planner<'a> {
    reader: &'a Reader,
    subject: &'a Subject,
    header: &'a Header,
}

impl Planner<'_> {
    fn region(&self, region: &Region, origin: &Region) -> Option<Place> {
        let mut ami = region.ami.clone().unwrap_or_default();
        if let Road::CopyFrom(_) = region.road {
            like_origin(&mut ami, origin.ami.as_ref());
        }
        let image = self.image(&ami, region)?;
        let name = &region.name.value;
        let in_region =
            |bucket: &str, key: String| Object { region: name.clone(), endpoint: None, bucket: bucket.to_owned(), key };
        let waiting = |staging: &Staging| {
            // Known before the publication is begun, so that a policy can name it.
            let id = self.subject.disk.get(..8).unwrap_or(&self.subject.disk);
            in_region(&staging.place.bucket, staging.place.key(&format!("{}-{id}.vmdk", self.subject.id.file_stem())))
        };
        let mut steps = Vec::new();
        match &region.road {
            Road::S3Only(staging) => {
                let object = in_region(&staging.place.bucket, staging.place.key(&self.file(Format::Vmdk)));
                let registration = Box::new(self.registration(&ami, image.clone())?);
                let role = staging.role.clone();
                steps.push(Step::Upload { object: object.clone(), format: Format::Vmdk });
                steps.push(Step::Instructions { object, role, registration });
            }
            _ if region.ami.is_none() => {}
            Road::EbsDirect => {
                steps.push(Step::Snapshot { gib: self.subject.gib(), image: image.clone() });
                steps.push(Step::Register(Box::new(self.registration(&ami, image.clone())?)));
            }
            Road::ImportSnapshot(staging) => {
                let (object, role) = (waiting(staging), staging.role.clone());
                steps.push(Step::Upload { object: object.clone(), format: Format::Vmdk });
                steps.push(Step::Import { object: object.clone(), role, image: image.clone() });
                steps.push(Step::RemoveObject { object });
                steps.push(Step::Register(Box::new(self.registration(&ami, image.clone())?)));
            }
            Road::CopyFrom(from) => {
                self.only_what_a_copy_has(&ami, origin);
                steps.push(Step::CopyFromRegion { from: from.value.clone(), image: image.clone() });
            }
        }
        if region.ami.is_some() && !matches!(region.road, Road::S3Only(_)) {
            self.what_follows(region, &ami, &image, &mut steps);
        }
        if let Some((format, place)) = &region.export {
            let format = match format {
                DiskFormat::Vmdk => Format::Vmdk,
                DiskFormat::Raw => Format::Raw,
                DiskFormat::Vhd => Format::Vhd,
            };
            let object = in_region(&place.bucket, place.key(&self.file(format)));
            steps.push(Step::Upload { object, format });
        }
        Some(Place { name: name.clone(), region: Some(name.clone()), steps })
    }

    /// A copy starts as its origin does.
    fn only_what_a_copy_has(&self, ami: &Ami, origin: &Region) {
        let origin = origin.ami.clone().unwrap_or_default();
        if let Some(mode) = &ami.boot_mode
            && origin.boot_mode.as_ref().map(|mode| mode.value) != Some(mode.value)
        {
            self.reader.error(&mode.span, "a copy starts as its origin does: say it there");
        }
        if let Some(tpm) = &ami.tpm_v2
            && origin.tpm_v2.is_none()
        {
            self.reader.error(&tpm.span, "a copy has a TPM if its origin has: say it there");
        }
    }

    /// What is done with an image that is there.
    fn what_follows(&self, region: &Region, ami: &Ami, image: &Image, steps: &mut Vec<Step>) {
        if !ami.permission.is_empty() {
            steps.push(Step::Share(ami.permission.clone()));
        }
        for account in &ami.target_accounts {
            steps.push(Step::CopyToAccount { account: account.clone(), image: image.clone() });
        }
        if let Some(age) = ami.deprecate_after {
            match self.header.time.checked_add(age.0) {
                Ok(at) => steps.push(Step::Deprecate { at }),
                Err(_) => self.reader.error(&region.name.span, "`deprecateAfter` is too far away"),
            }
        }
        for template in &region.templates {
            let (id, account) = (template.id.clone(), template.account.clone());
            steps.push(Step::Template { id, account, set_default: template.set_default });
        }
        for parameter in &region.parameters {
            let (name, account) = (parameter.name.clone(), parameter.account.clone());
            steps.push(Step::Parameter { name, account, is_image: parameter.is_image });
        }
    }

    /// What an image is called and how it is labelled.
    fn image(&self, ami: &Ami, region: &Region) -> Option<Image> {
        let id = &self.subject.id;
        let date = build_date(self.header.time);
        let name = match &ami.name {
            Some(name) => name.value.fill(&date, id.build),
            None => format!("{} {date}", id.name),
        };
        if !is_image_name(&name) {
            let span = ami.name.as_ref().map_or(&region.name.span, |name| &name.span);
            let rule = "3 to 128 letters, digits, spaces and `()[]./-'@_`";
            self.reader.error(span, format!("the image would be called `{name}`, and EC2 takes {rule}"));
            return None;
        }
        let description = ami.description.as_ref().map(|text| text.fill(&date, id.build));
        let mut tags = self.subject.tags.clone();
        tags.extend(ami.tags.iter().map(|(key, value)| (key.clone(), value.fill(&date, id.build))));
        tags.push(("CreatedBy".to_owned(), "goldsmith".to_owned()));
        tags.push(("goldsmith:image".to_owned(), id.to_string()));
        tags.push(("goldsmith:disk".to_owned(), self.subject.disk.clone()));
        // What is said later, and here by goldsmith, replaces what is said earlier.
        let mut labels: Vec<(String, String)> = Vec::new();
        for (key, value) in tags {
            labels.retain(|(known, _)| *known != key);
            labels.push((key, value));
        }
        Some(Image {
            name,
            description: description.unwrap_or_else(|| format!("{id}, built by goldsmith")),
            tags: labels,
            kms_key: ami.kms_key.clone(),
        })
    }

    /// What EC2 would guess wrong: from what is on the disk, and how it was started when it was tested.
    fn registration(&self, ami: &Ami, image: Image) -> Option<Registration> {
        let BootPaths { bios, uefi, ena } = self.subject.boot;
        let boot_mode = match &ami.boot_mode {
            Some(Spanned { value, span }) => {
                let (fits, lacks) = match value {
                    BootMode::LegacyBios => (bios, "a BIOS"),
                    BootMode::Uefi => (uefi, "UEFI"),
                    BootMode::UefiPreferred => (bios && uefi, "one of BIOS and UEFI"),
                };
                if !fits {
                    self.reader.error(span, format!("on this image's disk {lacks} finds nothing to start"));
                    return None;
                }
                *value
            }
            // Both may be there; what was tested is what ships.
            None if self.subject.tested_by_uefi => BootMode::Uefi,
            None => BootMode::LegacyBios,
        };
        if let Some(tpm) = &ami.tpm_v2
            && boot_mode != BootMode::Uefi
        {
            self.reader.error(&tpm.span, "`tpmSupport` needs an image that starts by UEFI only: `bootMode: uefi`");
        }
        let (imds_v2, tpm_v2) = (ami.imds_v2, ami.tpm_v2.is_some());
        Some(Registration { image, gib: self.subject.gib(), boot_mode, ena, imds_v2, tpm_v2 })
    }

    fn directory(&self, directory: &Directory, plan: &mut Plan) {
        let folder = self.beside_document(&directory.path.value);
        let name = format!("directory {}", folder.display());
        let steps = vec![Step::Files { folder: folder.clone(), formats: self.formats(&directory.formats) }];
        if let Some(pointer) = &directory.pointer {
            let to = PointerPlace::File(folder.join(pointer));
            plan.pointers.push(Pointer { place: name.clone(), to });
        }
        plan.places.push(Place { name, region: None, steps });
    }

    fn bucket(&self, bucket: &Bucket, plan: &mut Plan) {
        let place = &bucket.place.value;
        let object = |name: &str| Object {
            region: bucket.region.clone(),
            endpoint: bucket.endpoint.as_ref().map(|endpoint| endpoint.value.clone()),
            bucket: place.bucket.clone(),
            key: place.key(name),
        };
        let name = format!("s3://{}/{}", place.bucket, place.prefix).trim_end_matches('/').to_owned();
        let formats = self.formats(&bucket.formats).into_iter();
        let steps = formats.map(|format| Step::Upload { object: object(&self.file(format)), format }).collect();
        if let Some(pointer) = &bucket.pointer {
            plan.pointers.push(Pointer { place: name.clone(), to: PointerPlace::Object(object(pointer)) });
        }
        plan.places.push(Place { name, region: Some(bucket.region.clone()), steps });
    }

    fn formats(&self, words: &[Spanned<String>]) -> Vec<Format> {
        let format = |word: &Spanned<String>| match word.value.parse::<Format>() {
            Ok(format) => Some(format),
            Err(why) => {
                self.reader.error(&word.span, why);
                None
            }
        };
        words.iter().filter_map(format).collect()
    }

    fn file(&self, format: Format) -> String {
        format!("{}.{}", self.subject.id.file_stem(), format.ending())
    }

    /// A path in the document is meant from where the document is.
    fn beside_document(&self, path: &std::path::Path) -> PathBuf {
        let document = std::path::Path::new(&self.reader.source.name);
        let path = document.parent().unwrap_or(document).join(path);
        std::path::absolute(&path).unwrap_or(path)
    }
}

/// A time as names of images hold it: ISO 8601 with hyphens for colons.
fn build_date(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H-%M-%S%.3fZ").to_string()
}

/// EC2's rule for names of images.
fn is_image_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || " ()[]./-'@_".contains(c);
    (3..=128).contains(&name.len()) && name.chars().all(good)
}

#[cfg(test)]
pub(super) mod tests;
