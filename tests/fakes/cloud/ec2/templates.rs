//! Launch templates, of which a new version names a new image.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::super::answer::{Outcome, Refusal, Xml, refuse};
use super::super::policy::Need;
use super::super::query::{Field, Kind, Query, TEXT, may, must};
use super::super::world::{State, Tags, new_id};
use super::register::VOLUME_TYPES;
use super::tags::{SPECIFICATIONS, need, only_for, specified};
use super::{Action, Context, PAGE, images, time, write_tags};

const ID: Kind = Kind::Id("lt");
const NAME: Kind = Kind::Text(3, 128);
const YES_NO: Kind = Kind::OneOf(&["enabled", "disabled"]);
const NAMED: [Field; 2] = [may("LaunchTemplateId", ID), may("LaunchTemplateName", NAME)];

/// What an instance is launched with, as far as it is here.
const DATA: &[Field] = &[
    may("LaunchTemplateData.ImageId", TEXT),
    may("LaunchTemplateData.InstanceType", TEXT),
    may("LaunchTemplateData.KeyName", TEXT),
    may("LaunchTemplateData.UserData", TEXT),
    may("LaunchTemplateData.EbsOptimized", Kind::Bool),
    may("LaunchTemplateData.DisableApiTermination", Kind::Bool),
    may("LaunchTemplateData.DisableApiStop", Kind::Bool),
    may("LaunchTemplateData.InstanceInitiatedShutdownBehavior", Kind::OneOf(&["stop", "terminate"])),
    may("LaunchTemplateData.IamInstanceProfile.Arn", TEXT),
    may("LaunchTemplateData.IamInstanceProfile.Name", TEXT),
    may("LaunchTemplateData.Monitoring.Enabled", Kind::Bool),
    may("LaunchTemplateData.SecurityGroupId.#", TEXT),
    may("LaunchTemplateData.SecurityGroup.#", TEXT),
    may("LaunchTemplateData.MetadataOptions.HttpTokens", Kind::OneOf(&["optional", "required"])),
    may("LaunchTemplateData.MetadataOptions.HttpPutResponseHopLimit", Kind::Int(1, 64)),
    may("LaunchTemplateData.MetadataOptions.HttpEndpoint", YES_NO),
    may("LaunchTemplateData.MetadataOptions.InstanceMetadataTags", YES_NO),
    may("LaunchTemplateData.CreditSpecification.CpuCredits", TEXT),
    may("LaunchTemplateData.NetworkInterface.#.DeviceIndex", Kind::Int(0, 15)),
    may("LaunchTemplateData.NetworkInterface.#.SubnetId", TEXT),
    may("LaunchTemplateData.NetworkInterface.#.AssociatePublicIpAddress", Kind::Bool),
    may("LaunchTemplateData.NetworkInterface.#.DeleteOnTermination", Kind::Bool),
    may("LaunchTemplateData.NetworkInterface.#.SecurityGroupId.#", TEXT),
    may("LaunchTemplateData.BlockDeviceMapping.#.DeviceName", TEXT),
    may("LaunchTemplateData.BlockDeviceMapping.#.Ebs.VolumeSize", Kind::Int(1, 65_536)),
    may("LaunchTemplateData.BlockDeviceMapping.#.Ebs.VolumeType", VOLUME_TYPES),
    may("LaunchTemplateData.BlockDeviceMapping.#.Ebs.DeleteOnTermination", Kind::Bool),
    may("LaunchTemplateData.BlockDeviceMapping.#.Ebs.Encrypted", Kind::Bool),
    may("LaunchTemplateData.TagSpecification.#.ResourceType", TEXT),
    may("LaunchTemplateData.TagSpecification.#.Tag.#.Key", TEXT),
    may("LaunchTemplateData.TagSpecification.#.Tag.#.Value", TEXT),
];
const VERSION: &[Field] = &[may("VersionDescription", Kind::Text(0, 255)), may("ClientToken", Kind::Text(0, 128))];

/// The lists in the data: what they are called in answers, and their members.
const LISTS: [(&str, &str, &str); 5] = [
    ("SecurityGroupId", "securityGroupIdSet", "item"),
    ("SecurityGroup", "securityGroupSet", "item"),
    ("NetworkInterface", "networkInterfaceSet", "item"),
    ("BlockDeviceMapping", "blockDeviceMappingSet", "item"),
    ("TagSpecification", "tagSpecificationSet", "item"),
];
/// The same of lists within lists.
const INNER_LISTS: [(&str, &str, &str); 2] = [("SecurityGroupId", "groupSet", "groupId"), ("Tag", "tagSet", "item")];

pub(super) const ACTIONS: &[Action] = &[
    Action {
        name: "CreateLaunchTemplate",
        fields: &[
            &[must("LaunchTemplateName", NAME), may("Operator.Principal", Kind::Lacking)],
            VERSION,
            DATA,
            SPECIFICATIONS,
        ],
        run: create,
    },
    Action {
        name: "CreateLaunchTemplateVersion",
        fields: &[&NAMED, &[may("SourceVersion", TEXT), may("ResolveAlias", Kind::Lacking)], VERSION, DATA],
        run: create_version,
    },
    Action {
        name: "ModifyLaunchTemplate",
        fields: &[&NAMED, &[must("SetDefaultVersion", TEXT), may("ClientToken", Kind::Text(0, 128))]],
        run: modify,
    },
    Action {
        name: "DescribeLaunchTemplates",
        fields: &[
            &PAGE,
            &[
                may("LaunchTemplateId.#", ID),
                may("LaunchTemplateName.#", NAME),
                may("IncludeManagedResources", Kind::Lacking),
            ],
        ],
        run: describe,
    },
    Action {
        name: "DescribeLaunchTemplateVersions",
        fields: &[
            &PAGE,
            &NAMED,
            &[
                may("LaunchTemplateVersion.#", TEXT),
                may("MinVersion", Kind::Lacking),
                may("MaxVersion", Kind::Lacking),
                may("ResolveAlias", Kind::Lacking),
                may("IncludeManagedResources", Kind::Lacking),
            ],
        ],
        run: describe_versions,
    },
    Action {
        name: "DeleteLaunchTemplateVersions",
        fields: &[&NAMED, &[must("LaunchTemplateVersion.#", TEXT)]],
        run: delete_versions,
    },
];

/// A launch template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LaunchTemplate {
    pub(crate) id: String,
    pub(crate) owner: String,
    pub(crate) name: String,
    pub(crate) tags: Tags,
    pub(crate) default: u64,
    pub(crate) latest: u64,
    pub(crate) versions: BTreeMap<u64, TemplateVersion>,
    created: Timestamp,
    created_by: String,
}

/// A version of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TemplateVersion {
    pub(crate) description: Option<String>,
    data: Query,
    created: Timestamp,
}

impl LaunchTemplate {
    /// One of an account, with one version.
    pub(in super::super) fn of(account: &str, name: &str) -> Self {
        let data = Query::parse(b"InstanceType=t3.small").unwrap();
        let version = TemplateVersion { description: None, data, created: Timestamp::now() };
        Self {
            id: new_id("lt"),
            owner: account.to_owned(),
            name: name.to_owned(),
            tags: Tags::default(),
            default: 1,
            latest: 1,
            versions: BTreeMap::from([(1, version)]),
            created: Timestamp::now(),
            created_by: format!("arn:aws:iam::{account}:user/somebody"),
        }
    }
}

impl TemplateVersion {
    /// A member of its data, by its path in the request, such as `MetadataOptions.HttpTokens`.
    pub(crate) fn get(&self, path: &str) -> Option<&str> {
        self.data.get(path)
    }

    /// The image that it launches.
    pub(crate) fn image(&self) -> Option<&str> {
        self.get("ImageId")
    }
}

fn data(context: &Context<'_>, state: &State, source: Option<&Query>) -> Outcome<Query> {
    let data = context.query.under("LaunchTemplateData");
    if data.is_empty() {
        return refuse("MissingParameter", "The request must contain the parameter LaunchTemplateData");
    }
    let data = source.map_or_else(|| data.clone(), |source| data.over(source));
    match data.get("ImageId") {
        // AWS looks up such a parameter when an instance is launched.
        Some(id) if id.starts_with("resolve:ssm:") => {}
        Some(id) if state.visible_image(context.caller, id).is_none() => return Err(images::not_found(id)),
        _ => {}
    }
    Ok(data)
}

fn create(context: &Context<'_>, state: &mut State, xml: &mut Xml) -> Outcome<()> {
    let (query, caller) = (context.query, context.caller);
    only_for(query, &["launch-template"])?;
    let tags = specified(query, "launch-template")?;
    let arn = caller.arn_of("ec2", "launch-template/*");
    let mut needs = vec![Need::new("ec2:CreateLaunchTemplate", arn.clone()).with_tags(&tags)];
    needs.extend(need(arn, "CreateLaunchTemplate", &tags));
    context.may(&needs)?;
    let name = query.text("LaunchTemplateName");
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || "().-/_".contains(c)) {
        return refuse("InvalidLaunchTemplateName.MalformedException", format!("The name {name} is malformed"));
    }
    if let Some(id) = context.earlier(state, "CreateLaunchTemplate")? {
        let template = state.region(&caller.region).templates.get(&id).cloned();
        write(xml, "launchTemplate", &template.ok_or_else(|| not_found(&id))?);
        return Ok(());
    }
    if state.region(&caller.region).templates.values().any(|known| known.owner == caller.account && known.name == name)
    {
        let message = "Launch template name already in use.";
        return refuse("InvalidLaunchTemplateName.AlreadyExistsException", message);
    }
    let data = data(context, state, None)?;
    let version = TemplateVersion { description: query.maybe("VersionDescription"), data, created: Timestamp::now() };
    let template = LaunchTemplate {
        id: new_id("lt"),
        owner: caller.account.clone(),
        name,
        tags,
        default: 1,
        latest: 1,
        versions: BTreeMap::from([(1, version)]),
        created: Timestamp::now(),
        created_by: caller.arn.clone(),
    };
    write(xml, "launchTemplate", &template);
    context.remember(state, "CreateLaunchTemplate", &template.id);
    state.region(&caller.region).templates.insert(template.id.clone(), template);
    Ok(())
}

fn not_found(name: &str) -> Refusal {
    let message = format!("The specified launch template, with template ID {name}, does not exist.");
    Refusal::new("InvalidLaunchTemplateId.NotFound", message)
}

/// The template that a request names, by id or by name, and the permission to do something with it.
fn named<'a>(
    context: &Context<'_>,
    state: &'a mut State,
    action: &'static str,
) -> Outcome<(&'a mut LaunchTemplate, Need)> {
    let (query, caller) = (context.query, context.caller);
    let (id, name) = (query.get("LaunchTemplateId"), query.get("LaunchTemplateName"));
    if id.is_some() == name.is_some() {
        return refuse(
            "MissingParameter",
            "Either the launch template ID or the name must be specified, but not both.",
        );
    }
    let mut all = state.region(&caller.region).templates.values_mut();
    let is_meant = |known: &LaunchTemplate| Some(&*known.id) == id || Some(&*known.name) == name;
    let found = all.find(|known| known.owner == caller.account && is_meant(known)).ok_or_else(|| match name {
        Some(name) => {
            let message = format!("The specified launch template, with template name {name}, does not exist.");
            Refusal::new("InvalidLaunchTemplateName.NotFoundException", message)
        }
        None => not_found(id.unwrap_or_default()),
    })?;
    let arn = caller.arn_of("ec2", &format!("launch-template/{}", found.id));
    let need = Need::new(action, arn).of_tagged(&found.tags);
    Ok((found, need))
}

/// The number of a version that is given as one, or by a word.
fn version(template: &LaunchTemplate, said: &str) -> Outcome<u64> {
    let number = match said {
        "$Default" => Some(template.default),
        "$Latest" => Some(template.latest),
        said => said.parse().ok(),
    };
    let message = || format!("Could not find launch template version {said} of {}", template.id);
    let found = number.filter(|number| template.versions.contains_key(number));
    found.ok_or_else(|| Refusal::new("InvalidLaunchTemplateId.VersionNotFound", message()))
}

fn create_version(context: &Context<'_>, state: &mut State, xml: &mut Xml) -> Outcome<()> {
    const ACTION: &str = "CreateLaunchTemplateVersion";
    let (template, need) = named(context, state, "ec2:CreateLaunchTemplateVersion")?;
    context.may(&[need])?;
    let query = context.query;
    let template = template.clone();
    if let Some(number) = context.earlier(state, ACTION)? {
        let number = number.parse().unwrap_or_default();
        xml.within("launchTemplateVersion", |xml| write_version(xml, &template, number));
        return Ok(());
    }
    let source = query.get("SourceVersion").map(|said| version(&template, said)).transpose()?;
    let data = data(context, state, source.and_then(|number| Some(&template.versions.get(&number)?.data)))?;
    let new = TemplateVersion { description: query.maybe("VersionDescription"), data, created: Timestamp::now() };
    let number = template.latest + 1;
    context.remember(state, ACTION, &number.to_string());
    let (template, _) = named(context, state, "ec2:CreateLaunchTemplateVersion")?;
    template.latest = number;
    template.versions.insert(number, new);
    xml.within("launchTemplateVersion", |xml| write_version(xml, template, number));
    Ok(())
}

fn modify(context: &Context<'_>, state: &mut State, xml: &mut Xml) -> Outcome<()> {
    let (template, need) = named(context, state, "ec2:ModifyLaunchTemplate")?;
    context.may(&[need])?;
    template.default = version(template, &context.query.text("SetDefaultVersion"))?;
    write(xml, "launchTemplate", template);
    Ok(())
}

fn describe(context: &Context<'_>, state: &mut State, xml: &mut Xml) -> Outcome<()> {
    context.may(&[Need::new("ec2:DescribeLaunchTemplates", "*")])?;
    let (query, caller) = (context.query, context.caller);
    let (ids, names) = (query.texts("LaunchTemplateId"), query.texts("LaunchTemplateName"));
    let all = state.region(&caller.region).templates.values().filter(|known| known.owner == caller.account);
    let all: Vec<&LaunchTemplate> = all.collect();
    if let Some(id) = ids.iter().find(|id| !all.iter().any(|known| known.id == **id)) {
        return Err(not_found(id));
    }
    if let Some(name) = names.iter().find(|name| !all.iter().any(|known| known.name == **name)) {
        let message = format!("At least one of the launch templates specified in the request does not exist: {name}");
        return refuse("InvalidLaunchTemplateName.NotFoundException", message);
    }
    let mut found = Vec::new();
    for template in all {
        let is_any = ids.is_empty() && names.is_empty();
        let is_named = is_any || ids.contains(&template.id) || names.contains(&template.name);
        let filtered = |name: &str| match name {
            "launch-template-name" => Some(vec![template.name.clone()]),
            "tag-key" => Some(template.tags.keys().cloned().collect()),
            name => Some(template.tags.get(name.strip_prefix("tag:")?).cloned().into_iter().collect()),
        };
        if is_named && context.passes(filtered)? {
            found.push(template);
        }
    }
    let (shown, next) = context.page(found)?;
    xml.list("launchTemplates", shown, write_fields).maybe("nextToken", next);
    Ok(())
}

fn describe_versions(context: &Context<'_>, state: &mut State, xml: &mut Xml) -> Outcome<()> {
    context.may(&[Need::new("ec2:DescribeLaunchTemplateVersions", "*")])?;
    let said = context.query.texts("LaunchTemplateVersion");
    if context.query.get("LaunchTemplateId").is_none() && context.query.get("LaunchTemplateName").is_none() {
        return describe_of_all(context, state, xml, &said);
    }
    let (template, _) = named(context, state, "ec2:DescribeLaunchTemplateVersions")?;
    let mut numbers: Vec<u64> = said.iter().map(|said| version(template, said)).collect::<Outcome<_>>()?;
    if numbers.is_empty() {
        numbers = template.versions.keys().rev().copied().collect();
    }
    numbers.dedup();
    let mut found = Vec::new();
    for number in numbers {
        let filtered = |name: &str| match name {
            "image-id" => {
                let image = template.versions.get(&number).and_then(TemplateVersion::image);
                Some(image.map(str::to_owned).into_iter().collect())
            }
            "is-default-version" => Some(vec![(number == template.default).to_string()]),
            _ => None,
        };
        if context.passes(filtered)? {
            found.push(number);
        }
    }
    let (shown, next) = context.page(found)?;
    xml.list("launchTemplateVersionSet", shown, |xml, number| write_version(xml, template, number));
    xml.maybe("nextToken", next);
    Ok(())
}

/// Without a template, those that are the newest or the default of all templates of the account.
fn describe_of_all(context: &Context<'_>, state: &mut State, xml: &mut Xml, said: &[String]) -> Outcome<()> {
    if said.is_empty() || said.iter().any(|said| said != "$Latest" && said != "$Default") {
        return refuse("InvalidParameterCombination", "Without a launch template, versions are $Latest or $Default");
    }
    let mut found = Vec::new();
    let own = state.region(&context.caller.region).templates.values();
    for template in own.filter(|template| template.owner == context.caller.account) {
        let mut numbers: Vec<u64> = said.iter().map(|said| version(template, said)).collect::<Outcome<_>>()?;
        numbers.dedup();
        for number in numbers {
            let image = template.versions.get(&number).and_then(TemplateVersion::image);
            let filtered = |name: &str| match name {
                "image-id" => Some(image.map(str::to_owned).into_iter().collect()),
                "is-default-version" => Some(vec![(number == template.default).to_string()]),
                _ => None,
            };
            if context.passes(filtered)? {
                found.push((template, number));
            }
        }
    }
    let (shown, next) = context.page(found)?;
    xml.list("launchTemplateVersionSet", shown, |xml, (template, number)| write_version(xml, template, number));
    xml.maybe("nextToken", next);
    Ok(())
}

fn delete_versions(context: &Context<'_>, state: &mut State, xml: &mut Xml) -> Outcome<()> {
    let (template, need) = named(context, state, "ec2:DeleteLaunchTemplateVersions")?;
    context.may(&[need])?;
    let (mut deleted, mut kept) = (Vec::new(), Vec::new());
    for said in context.query.texts("LaunchTemplateVersion") {
        match version(template, &said) {
            Ok(number) if number == template.default => {
                kept.push((said, "unexpectedError", "The default version can't be deleted"));
            }
            Ok(number) => {
                template.versions.remove(&number);
                deleted.push(number);
            }
            Err(_) => kept.push((said, "launchTemplateVersionDoesNotExist", "There is no such version")),
        }
    }
    let (id, name) = (&template.id, &template.name);
    xml.list("successfullyDeletedLaunchTemplateVersionSet", deleted, |xml, number| {
        xml.text("launchTemplateId", id).text("launchTemplateName", name).text("versionNumber", number);
    });
    xml.list("unsuccessfullyDeletedLaunchTemplateVersionSet", kept, |xml, (said, code, message)| {
        xml.text("launchTemplateId", id).text("launchTemplateName", name).text("versionNumber", said);
        xml.within("responseError", |xml| {
            xml.text("code", code).text("message", message);
        });
    });
    Ok(())
}

fn write(xml: &mut Xml, name: &str, template: &LaunchTemplate) {
    xml.within(name, |xml| write_fields(xml, template));
}

fn write_fields(xml: &mut Xml, template: &LaunchTemplate) {
    xml.text("launchTemplateId", &template.id).text("launchTemplateName", &template.name);
    xml.text("createTime", time(template.created)).text("createdBy", &template.created_by);
    xml.text("defaultVersionNumber", template.default).text("latestVersionNumber", template.latest);
    write_tags(xml, &template.tags);
}

fn write_version(xml: &mut Xml, template: &LaunchTemplate, number: u64) {
    let Some(version) = template.versions.get(&number) else { return };
    xml.text("launchTemplateId", &template.id).text("launchTemplateName", &template.name);
    xml.text("versionNumber", number).maybe("versionDescription", version.description.as_ref());
    xml.text("createTime", time(version.created)).text("createdBy", &template.created_by);
    xml.text("defaultVersion", number == template.default);
    xml.within("launchTemplateData", |xml| write_data(xml, &version.data, &LISTS));
}

/// Writes parameters as they come back: with small letters, and lists under names of their own.
fn write_data(xml: &mut Xml, data: &Query, lists: &[(&str, &str, &str)]) {
    for name in data.names() {
        if let Some((_, list, member)) = lists.iter().find(|(known, _, _)| *known == name) {
            xml.within(list, |xml| {
                for item in data.list(name) {
                    match item.get("") {
                        Some(value) => _ = xml.text(member, value),
                        None => _ = xml.within(member, |xml| write_data(xml, &item, &INNER_LISTS)),
                    }
                }
            });
            continue;
        }
        let (first, rest) = name.split_at(1);
        let written = format!("{}{rest}", first.to_ascii_lowercase());
        match data.get(name) {
            Some(value) => _ = xml.text(&written, value),
            None => _ = xml.within(&written, |xml| write_data(xml, &data.under(name), lists)),
        }
    }
}
