//! The later life of images: what is known of their use, and their retirement.

use aws_sdk_ec2::types::{Filter, ImageAttributeName};

use crate::{Error, Region};

/// What is known of the use of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageUse {
    /// Whether everybody may launch it.
    pub is_public: bool,
    /// The accounts that may launch it.
    pub accounts: Vec<String>,
    /// When it was launched last, as EC2 writes times; it says so a day late.
    pub last_launched: Option<String>,
    /// Its labels.
    pub tags: Vec<(String, String)>,
    /// The snapshots of its disks.
    pub snapshots: Vec<String>,
}

impl Region {
    /// What is known of the use of an image, if it is there.
    pub async fn image_use(&self, id: &str) -> Result<Option<ImageUse>, Error> {
        // Disabled images are left out unless they are asked for.
        let answer = self.ec2.describe_images().image_ids(id).include_disabled(true).send().await;
        let answer = match answer.map_err(|error| Error::of("EC2", "DescribeImages", error)) {
            Err(error) if error.is_not_found() || error.code.as_deref() == Some("InvalidAMIID.Unavailable") => {
                return Ok(None);
            }
            answer => answer?,
        };
        let Some(image) = answer.images.unwrap_or_default().into_iter().next() else { return Ok(None) };
        let tags = image.tags.unwrap_or_default().into_iter().filter_map(|tag| Some((tag.key?, tag.value?)));
        let disks = image.block_device_mappings.unwrap_or_default();
        let failed = |error| Error::of("EC2", "DescribeImageAttribute", error);
        let attribute = |name| self.ec2.describe_image_attribute().image_id(id).attribute(name).send();
        let shared = attribute(ImageAttributeName::LaunchPermission).await.map_err(failed)?;
        let launched = attribute(ImageAttributeName::LastLaunchedTime).await.map_err(failed)?;
        Ok(Some(ImageUse {
            is_public: image.public.unwrap_or(false),
            accounts: shared.launch_permissions.unwrap_or_default().into_iter().filter_map(|to| to.user_id).collect(),
            last_launched: launched.last_launched_time.and_then(|time| time.value),
            tags: tags.collect(),
            snapshots: disks.into_iter().filter_map(|disk| disk.ebs?.snapshot_id).collect(),
        }))
    }

    /// Launch templates whose default or newest version names an image: their names.
    pub async fn templates_with_image(&self, id: &str) -> Result<Vec<String>, Error> {
        let filter = Filter::builder().name("image-id").values(id).build();
        let request = self.ec2.describe_launch_template_versions().versions("$Default").versions("$Latest");
        let mut pages = request.filters(filter).into_paginator().send();
        let mut names = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| Error::of("EC2", "DescribeLaunchTemplateVersions", error))?;
            let versions = page.launch_template_versions.unwrap_or_default().into_iter();
            names.extend(versions.filter_map(|version| version.launch_template_name));
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Has an image be launched by nobody: it is private and unlaunchable from now on.
    pub async fn disable_image(&self, id: &str) -> Result<(), Error> {
        let answer = self.ec2.disable_image().image_id(id).send().await;
        answer.map(drop).map_err(|error| Error::of("EC2", "DisableImage", error))
    }
}
