//! Launch templates.

use aws_sdk_ec2::types::RequestLaunchTemplateData;

use crate::{Error, Region};

/// A new version of a launch template: its default or newest version with another image.
#[derive(Debug, Clone, Copy)]
pub struct TemplateVersion<'a> {
    /// The template's identifier.
    pub template: &'a str,
    /// The image.
    pub image: &'a str,
    /// What it is, in at most 255 characters.
    pub description: &'a str,
    /// What makes a repeated request one request.
    pub token: &'a str,
}

impl Region {
    /// Number of the version of a launch template that is its default.
    pub async fn default_template_version(&self, template: &str) -> Result<i64, Error> {
        let answer = self.ec2.describe_launch_templates().launch_template_ids(template).send().await;
        let answer = answer.map_err(|error| Error::of("EC2", "DescribeLaunchTemplates", error))?;
        let template = answer.launch_templates.unwrap_or_default().into_iter().next();
        Error::expect("EC2", "DescribeLaunchTemplates", template.and_then(|template| template.default_version_number))
    }

    /// Makes a version of a launch template that says all that the newest says, and another image. Returns its number.
    pub async fn create_template_version(&self, new: TemplateVersion<'_>) -> Result<i64, Error> {
        let data = RequestLaunchTemplateData::builder().image_id(new.image).build();
        let request = self
            .ec2
            .create_launch_template_version()
            .launch_template_id(new.template)
            .source_version("$Latest")
            .version_description(new.description)
            .launch_template_data(data)
            .client_token(new.token);
        let answer = request.send().await.map_err(|error| Error::of("EC2", "CreateLaunchTemplateVersion", error))?;
        let number = answer.launch_template_version.and_then(|version| version.version_number);
        Error::expect("EC2", "CreateLaunchTemplateVersion", number)
    }

    /// Has a version of a launch template be its default.
    pub async fn set_default_template_version(&self, template: &str, version: i64) -> Result<(), Error> {
        let request = self.ec2.modify_launch_template().launch_template_id(template);
        let request = request.default_version(version.to_string());
        request.send().await.map(drop).map_err(|error| Error::of("EC2", "ModifyLaunchTemplate", error))
    }

    /// Removes a version of a launch template, if it is there and not its default.
    pub async fn delete_template_version(&self, template: &str, version: i64) -> Result<(), Error> {
        let request = self.ec2.delete_launch_template_versions().launch_template_id(template);
        let answer = request.versions(version.to_string()).send().await;
        let answer = answer.map_err(|error| Error::of("EC2", "DeleteLaunchTemplateVersions", error))?;
        let failed = answer.unsuccessfully_deleted_launch_template_versions.unwrap_or_default().into_iter().next();
        let Some(problem) = failed.and_then(|item| item.response_error) else { return Ok(()) };
        let code = problem.code.map(|code| code.as_str().to_owned());
        if code.as_deref() == Some("launchTemplateVersionDoesNotExist") {
            return Ok(());
        }
        let message = problem.message.unwrap_or_default();
        Err(Error { service: "EC2", operation: "DeleteLaunchTemplateVersions", code, message })
    }
}
