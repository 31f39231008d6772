//! Images: what they are, how they are found, and their end.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::super::answer::{Outcome, Refusal, Xml, refuse};
use super::super::policy::Need;
use super::super::query::{Kind, TEXT, may, must};
use super::super::snapshot::SnapshotState;
use super::super::world::{Caller, Region, State, Tags};
use super::{Action, Context, PAGE, time, write_tags};

pub(super) const ID: Kind = Kind::Id("ami");

pub(super) const ACTIONS: &[Action] = &[
    Action {
        name: "DescribeImages",
        fields: &[
            &PAGE,
            &[
                may("ImageId.#", ID),
                may("Owner.#", TEXT),
                may("IncludeDeprecated", Kind::Bool),
                may("IncludeDisabled", Kind::Bool),
                may("ExecutableBy.#", Kind::Lacking),
            ],
        ],
        run: describe,
    },
    Action {
        name: "DeregisterImage",
        fields: &[&[must("ImageId", ID), may("DeleteAssociatedSnapshots", Kind::Bool)]],
        run: deregister,
    },
    Action {
        name: "EnableImageDeprecation",
        fields: &[&[must("ImageId", ID), must("DeprecateAt", Kind::Time)]],
        run: deprecate,
    },
    Action { name: "DisableImageDeprecation", fields: &[&[must("ImageId", ID)]], run: undeprecate },
    Action { name: "DisableImage", fields: &[&[must("ImageId", ID)]], run: disable },
];

/// Where an image is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ImageState {
    /// So many polls will still find it pending.
    Pending(u32),
    Available,
    Failed(String),
    /// Nobody may launch it.
    Disabled,
}

/// Whom an image may be launched by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Permission {
    Account(String),
    Everybody,
    Organization(String),
    Unit(String),
}

/// A device of an image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Mapping {
    pub(crate) device: String,
    pub(crate) virtual_name: Option<String>,
    pub(crate) no_device: bool,
    pub(crate) snapshot: Option<String>,
    pub(crate) gib: Option<u32>,
    pub(crate) volume_type: Option<String>,
    pub(crate) iops: Option<u32>,
    pub(crate) throughput: Option<u32>,
    pub(crate) delete_on_termination: bool,
    pub(crate) encrypted: Option<bool>,
    pub(crate) kms_key: Option<String>,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) id: String,
    pub(crate) owner: String,
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) state: ImageState,
    pub(crate) architecture: String,
    pub(crate) virtualization: String,
    pub(crate) ena_support: Option<bool>,
    pub(crate) sriov_net_support: Option<String>,
    pub(crate) boot_mode: Option<String>,
    pub(crate) tpm_support: Option<String>,
    pub(crate) imds_support: Option<String>,
    pub(crate) uefi_data: Option<String>,
    pub(crate) root_device: String,
    pub(crate) mappings: Vec<Mapping>,
    pub(crate) tags: Tags,
    pub(crate) created: Timestamp,
    pub(crate) deprecated: Option<Timestamp>,
    pub(crate) permissions: BTreeSet<Permission>,
    /// The image and the region that it is a copy of.
    pub(crate) copy_of: Option<(String, String)>,
    /// What its copying will fail with.
    pub(super) ends_badly: Option<&'static str>,
}

impl Image {
    /// The snapshots that it needs.
    pub(crate) fn snapshots(&self) -> impl Iterator<Item = &String> {
        self.mappings.iter().filter_map(|mapping| mapping.snapshot.as_ref())
    }

    /// Whether it may be launched by this account, which belongs to these organizations.
    fn is_open_to(&self, account: &str, organizations: &BTreeSet<String>) -> bool {
        let is_meant = |permission: &Permission| match permission {
            Permission::Account(known) => known == account,
            Permission::Everybody => true,
            Permission::Organization(arn) | Permission::Unit(arn) => organizations.contains(arn),
        };
        self.owner == account || self.permissions.iter().any(is_meant)
    }

    /// Its state in EC2's word.
    pub(crate) fn status(&self) -> &'static str {
        match self.state {
            ImageState::Pending(_) => "pending",
            ImageState::Available => "available",
            ImageState::Failed(_) => "failed",
            ImageState::Disabled => "disabled",
        }
    }
}

/// What is said of an image that is not there.
pub(super) fn not_found(id: &str) -> Refusal {
    Refusal::new("InvalidAMIID.NotFound", format!("The image id '[{id}]' does not exist"))
}

impl State {
    /// An image in the caller's region that the caller may launch.
    pub(in super::super) fn visible_image(&self, caller: &Caller, id: &str) -> Option<&Image> {
        self.visible_image_in(&caller.region, caller, id)
    }

    /// The same in any region.
    pub(super) fn visible_image_in(&self, region: &str, caller: &Caller, id: &str) -> Option<&Image> {
        let organizations = &self.accounts.get(&caller.account)?.organizations;
        let image = self.regions.get(region)?.images.get(id)?;
        image.is_open_to(&caller.account, organizations).then_some(image)
    }

    /// An image of the caller's own, and the permission to do something with it.
    pub(super) fn own_image(&mut self, caller: &Caller, id: &str, action: &'static str) -> Outcome<(&mut Image, Need)> {
        if self.visible_image(caller, id).is_none() {
            return Err(not_found(id));
        }
        let image = self.region(&caller.region).images.get_mut(id).ok_or_else(|| not_found(id))?;
        if image.owner != caller.account {
            let message = format!("Not authorized for image:{id}");
            return Err(Refusal::new("AuthFailure", message).status(403));
        }
        let need = Need::new(action, caller.image_arn(id)).with("ec2:Owner", &image.owner).of_tagged(&image.tags);
        Ok((image, need))
    }
}

impl Region {
    /// A poll has found this image. One that becomes available has its snapshots complete.
    fn polled(&mut self, id: &str) {
        let Some(image) = self.images.get_mut(id) else { return };
        let ended = match (&image.state, image.ends_badly) {
            (ImageState::Pending(0 | 1), None) => SnapshotState::Completed,
            (ImageState::Pending(0 | 1), Some(_)) => SnapshotState::Error,
            (ImageState::Pending(polls), _) => {
                image.state = ImageState::Pending(polls - 1);
                return;
            }
            _ => return,
        };
        image.state = match image.ends_badly {
            Some(why) => ImageState::Failed(why.to_owned()),
            None => ImageState::Available,
        };
        // An image that is no copy stands on snapshots that were complete before.
        if image.copy_of.is_some() {
            let snapshots: Vec<String> = image.snapshots().cloned().collect();
            for id in snapshots {
                if let Some(snapshot) = self.snapshots.get_mut(&id) {
                    snapshot.state = ended;
                }
            }
        }
    }
}

fn describe(context: &Context<'_>, state: &mut State, xml: &mut Xml) -> Outcome<()> {
    context.may(&[Need::new("ec2:DescribeImages", "*")])?;
    let (query, caller) = (context.query, context.caller);
    let ids = query.texts("ImageId");
    if let Some(id) = ids.iter().find(|id| state.visible_image(caller, id).is_none()) {
        return Err(not_found(id));
    }
    let owners = query.texts("Owner");
    let is_owner = |owner: &String| {
        owners.is_empty() || owners.iter().any(|known| known == owner || known == "self" && *owner == caller.account)
    };
    // Without an id or an owner, deprecated images are shown to their owners only.
    let shows_deprecated = !ids.is_empty() || query.flag("IncludeDeprecated") == Some(true);
    let all: Vec<String> = state.region(&caller.region).images.keys().cloned().collect();
    let mut found = Vec::new();
    for id in all {
        let Some(image) = state.visible_image(caller, &id) else { continue };
        let is_current = image.deprecated.is_none_or(|at| at > Timestamp::now());
        let is_shown = shows_deprecated || is_current || image.owner == caller.account;
        let is_shown = is_shown && (image.state != ImageState::Disabled || query.flag("IncludeDisabled") == Some(true));
        let is_meant = (ids.is_empty() || ids.contains(&id)) && is_owner(&image.owner) && is_shown;
        if is_meant && context.passes(|name| filtered(image, name))? {
            found.push(image.clone());
            state.region(&caller.region).polled(&id);
        }
    }
    let (shown, next) = context.page(found)?;
    xml.list("imagesSet", &shown, write).maybe("nextToken", next);
    Ok(())
}

fn filtered(image: &Image, name: &str) -> Option<Vec<String>> {
    Some(match name {
        "name" => vec![image.name.clone()],
        "state" => vec![image.status().to_owned()],
        "image-id" => vec![image.id.clone()],
        "owner-id" => vec![image.owner.clone()],
        "description" => image.description.clone().into_iter().collect(),
        "architecture" => vec![image.architecture.clone()],
        "virtualization-type" => vec![image.virtualization.clone()],
        "is-public" => vec![image.permissions.contains(&Permission::Everybody).to_string()],
        "root-device-type" => vec!["ebs".to_owned()],
        "block-device-mapping.snapshot-id" => image.snapshots().cloned().collect(),
        "source-image-id" => image.copy_of.iter().map(|(id, _)| id.clone()).collect(),
        "source-image-region" => image.copy_of.iter().map(|(_, region)| region.clone()).collect(),
        "tag-key" => image.tags.keys().cloned().collect(),
        name => image.tags.get(name.strip_prefix("tag:")?).cloned().into_iter().collect(),
    })
}

fn write(xml: &mut Xml, image: &Image) {
    xml.text("imageId", &image.id).text("imageLocation", format!("{}/{}", image.owner, image.name));
    xml.text("imageState", image.status()).text("imageOwnerId", &image.owner);
    xml.text("isPublic", image.permissions.contains(&Permission::Everybody));
    xml.text("architecture", &image.architecture).text("imageType", "machine").text("name", &image.name);
    xml.maybe("description", image.description.as_ref()).text("rootDeviceType", "ebs");
    xml.text("rootDeviceName", &image.root_device).text("virtualizationType", &image.virtualization);
    xml.text("hypervisor", "xen").text("creationDate", time(image.created));
    xml.maybe("enaSupport", image.ena_support).maybe("sriovNetSupport", image.sriov_net_support.as_ref());
    xml.maybe("bootMode", image.boot_mode.as_ref()).maybe("tpmSupport", image.tpm_support.as_ref());
    xml.maybe("imdsSupport", image.imds_support.as_ref()).maybe("deprecationTime", image.deprecated.map(time));
    xml.text("platformDetails", "Linux/UNIX").text("usageOperation", "RunInstances");
    if let ImageState::Failed(why) = &image.state {
        xml.within("stateReason", |xml| {
            xml.text("code", "Client.InternalError").text("message", why);
        });
    }
    if let Some((id, region)) = &image.copy_of {
        xml.text("sourceImageId", id).text("sourceImageRegion", region);
    }
    xml.list("blockDeviceMapping", &image.mappings, write_mapping);
    write_tags(xml, &image.tags);
}

pub(super) fn write_mapping(xml: &mut Xml, mapping: &Mapping) {
    xml.text("deviceName", &mapping.device).maybe("virtualName", mapping.virtual_name.as_ref());
    if mapping.no_device {
        xml.text("noDevice", "");
        return;
    }
    if mapping.virtual_name.is_some() {
        return;
    }
    xml.within("ebs", |xml| {
        xml.maybe("snapshotId", mapping.snapshot.as_ref()).maybe("volumeSize", mapping.gib);
        xml.text("deleteOnTermination", mapping.delete_on_termination);
        xml.maybe("volumeType", mapping.volume_type.as_ref()).maybe("iops", mapping.iops);
        xml.maybe("throughput", mapping.throughput).maybe("encrypted", mapping.encrypted);
        xml.maybe("kmsKeyId", mapping.kms_key.as_ref());
    });
}

fn deregister(context: &Context<'_>, state: &mut State, xml: &mut Xml) -> Outcome<()> {
    let id = context.query.text("ImageId");
    let (image, need) = state.own_image(context.caller, &id, "ec2:DeregisterImage")?;
    let is_thorough = context.query.flag("DeleteAssociatedSnapshots") == Some(true);
    let snapshots: Vec<String> = image.snapshots().filter(|_| is_thorough).cloned().collect();
    let region = state.region(&context.caller.region);
    let mut needs = vec![need];
    for id in &snapshots {
        let tags = region.snapshots.get(id).map(|snapshot| snapshot.tags.clone()).unwrap_or_default();
        needs.push(Need::new("ec2:DeleteSnapshot", context.caller.snapshot_arn(id)).of_tagged(&tags));
    }
    context.may(&needs)?;
    region.images.remove(&id);
    xml.text("return", true);
    let mut results = Vec::new();
    for id in snapshots {
        let is_used = region.images.values().any(|image| image.snapshots().any(|known| *known == id));
        let is_gone = !is_used && region.snapshots.remove(&id).is_some();
        results.push((id, if is_gone { "success" } else { "skipped" }));
    }
    xml.list("deleteSnapshotResultSet", results, |xml, (id, code)| {
        xml.text("snapshotId", id).text("returnCode", code);
    });
    Ok(())
}

fn deprecate(context: &Context<'_>, state: &mut State, xml: &mut Xml) -> Outcome<()> {
    let id = context.query.text("ImageId");
    let (image, need) = state.own_image(context.caller, &id, "ec2:EnableImageDeprecation")?;
    context.may(&[need])?;
    let at: Timestamp = context.query.number("DeprecateAt").unwrap_or_default();
    let now = Timestamp::now();
    let longest = SignedDuration::from_hours(10 * 366 * 24);
    if at <= now || at.duration_since(now) > longest {
        let message = format!("The deprecation date {at} is not in the next ten years");
        return refuse("InvalidParameterValue", message);
    }
    // To the nearest minute.
    let minute = (at.as_second() + 30).div_euclid(60) * 60;
    image.deprecated = Timestamp::from_second(minute).ok();
    xml.text("return", true);
    Ok(())
}

fn disable(context: &Context<'_>, state: &mut State, xml: &mut Xml) -> Outcome<()> {
    let id = context.query.text("ImageId");
    let (image, need) = state.own_image(context.caller, &id, "ec2:DisableImage")?;
    context.may(&[need])?;
    if image.state != ImageState::Available {
        return refuse("InvalidAMIID.Unavailable", format!("The image ID '{id}' is no longer available"));
    }
    image.state = ImageState::Disabled;
    // It is private from then on, also if it is enabled again.
    image.permissions.clear();
    xml.text("return", true);
    Ok(())
}

fn undeprecate(context: &Context<'_>, state: &mut State, xml: &mut Xml) -> Outcome<()> {
    let id = context.query.text("ImageId");
    let (image, need) = state.own_image(context.caller, &id, "ec2:DisableImageDeprecation")?;
    context.may(&[need])?;
    image.deprecated = None;
    xml.text("return", true);
    Ok(())
}
