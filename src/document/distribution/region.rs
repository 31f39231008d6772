//! What an image becomes in a region of AWS: the members of one `Distribution` of the API, and the road there.

use super::{
    Ami, BootMode, DiskFormat, LaunchTemplate, Parameter, Permission, Place, Region, Road, Staging, Text, is_region,
    matched, place,
};
use crate::document::age::Age;
use crate::document::decode::{Fields, Reader, Spanned};
use crate::document::syntax::Node;

const REGION_FIELDS: [&str; 8] = [
    "region",
    "road",
    "importBucket",
    "copyFrom",
    "amiDistributionConfiguration",
    "launchTemplateConfigurations",
    "s3ExportConfiguration",
    "ssmParameterConfigurations",
];
const AMI_FIELDS: [&str; 10] = [
    "name",
    "description",
    "targetAccountIds",
    "amiTags",
    "kmsKeyId",
    "launchPermission",
    "bootMode",
    "imdsSupport",
    "tpmSupport",
    "deprecateAfter",
];
/// The role that VM Import takes on unless it is told another.
const IMPORT_ROLE: &str = "vmimport";
/// Numbers of what a document may hold: the API's limits.
const MOST_ACCOUNTS: usize = 1536;
const MOST_ORGANIZATIONS: usize = 25;
const MOST_TAGS: usize = 50;
const MOST_TEMPLATES: usize = 100;
const MOST_PARAMETERS: usize = 10;

/// Reads what an image becomes in the region called `name`. `road` is that of the whole document.
pub(super) fn decode(
    reader: &Reader,
    mut fields: Fields<'_>,
    name: &Node,
    road: Option<&Spanned<String>>,
) -> Option<Region> {
    let rule = "is lower-case letters, digits and hyphens, as eu-central-1";
    let name = matched(reader, name, "region", is_region, rule);
    let road = own_road(reader, &mut fields, road);
    let mut ami = fields.get("amiDistributionConfiguration").and_then(|node| ami(reader, node));
    let templates = fields.get("launchTemplateConfigurations").map(|node| templates(reader, node));
    let parameters = fields.get("ssmParameterConfigurations").map(|node| parameters(reader, node));
    let export = fields.get("s3ExportConfiguration").and_then(|node| export(reader, node));
    for (field, why) in [
        ("containerDistributionConfiguration", "is about containers, which goldsmith does not build"),
        ("licenseConfigurationArns", "has no effect yet: associate licences in AWS License Manager"),
        ("fastLaunchConfigurations", "is about Windows images, which goldsmith does not build"),
    ] {
        fields.refuse(&[field], why);
    }
    let span = fields.span.start..fields.span.start + 1;
    fields.finish(&REGION_FIELDS);
    let (templates, parameters) = (templates.unwrap_or_default(), parameters.unwrap_or_default());
    if !templates.is_empty() || !parameters.is_empty() {
        ami.get_or_insert_default();
    }
    if matches!(road, Some(Road::CopyFrom(_))) {
        ami.get_or_insert_default();
    }
    let is_uploaded_only = matches!(road, Some(Road::S3Only(_)));
    if is_uploaded_only && (!templates.is_empty() || !parameters.is_empty()) {
        reader.error(&span, "on the road `s3-only` there is no AMI that launch templates or parameters could name");
    }
    if ami.is_none() && export.is_none() && !is_uploaded_only {
        reader.error(
            &span,
            "one or more outputs should be provided for each region: give `amiDistributionConfiguration`",
        );
    }
    Some(Region { name: name?, road: road?, ami, templates, parameters, export })
}

/// The road of a region: its own, or that of the whole document.
fn own_road(reader: &Reader, fields: &mut Fields<'_>, whole: Option<&Spanned<String>>) -> Option<Road> {
    let own = fields.text("road");
    let staging = fields.get("importBucket");
    if let Some(from) = fields.text("copyFrom") {
        if let Some(staging) = staging {
            reader.error(&staging.span, "`importBucket` has no meaning for a copy");
        }
        return Some(Road::CopyFrom(from));
    }
    let word = own.as_ref().or(whole);
    let by_bucket = |staging: Option<&Node>, road: fn(Staging) -> Road| match staging {
        Some(node) => self::staging(reader, node).map(road),
        None => {
            fields.missing("importBucket");
            None
        }
    };
    match word.map_or("ebs-direct", |word| word.value.as_str()) {
        "ebs-direct" => {
            if let Some(staging) = staging {
                reader.error(&staging.span, "the road `ebs-direct` needs no bucket: leave `importBucket` out");
            }
            Some(Road::EbsDirect)
        }
        "import-snapshot" => by_bucket(staging, Road::ImportSnapshot),
        "s3-only" => by_bucket(staging, Road::S3Only),
        other => {
            let span = word.map_or(0..0, |word| word.span.clone());
            reader.error(&span, format!("`{other}` is no road: ebs-direct, import-snapshot and s3-only are"));
            None
        }
    }
}

fn staging(reader: &Reader, node: &Node) -> Option<Staging> {
    let mut fields = reader.map(node, "`importBucket`")?;
    let role = fields.text("roleName").map_or_else(|| IMPORT_ROLE.to_owned(), |role| role.value);
    let place = place(reader, &mut fields);
    fields.finish(&["s3Bucket", "s3Prefix", "roleName"]);
    Some(Staging { place: place?, role })
}

fn export(reader: &Reader, node: &Node) -> Option<(DiskFormat, Place)> {
    let mut fields = reader.map(node, "`s3ExportConfiguration`")?;
    if let Some(role) = fields.get("roleName") {
        reader.warning(&role.span, "`roleName` is for AWS's export service; goldsmith writes the object itself");
    }
    let format = fields.require("diskImageFormat").and_then(|node| {
        let text = reader.text(node, "diskImageFormat")?;
        match text.value.to_ascii_uppercase().as_str() {
            "VMDK" => Some(DiskFormat::Vmdk),
            "RAW" => Some(DiskFormat::Raw),
            "VHD" => Some(DiskFormat::Vhd),
            _ => {
                reader.error(&text.span, format!("`diskImageFormat` is VMDK, RAW or VHD, not `{}`", text.value));
                None
            }
        }
    });
    let place = place(reader, &mut fields);
    fields.finish(&["roleName", "diskImageFormat", "s3Bucket", "s3Prefix"]);
    Some((format?, place?))
}

fn ami(reader: &Reader, node: &Node) -> Option<Ami> {
    let mut fields = reader.map(node, "`amiDistributionConfiguration`")?;
    let name = fields.get("name").and_then(|node| {
        matched(reader, node, "name", is_ami_name, AMI_NAME_RULE)?;
        reader.parse(node, "name")
    });
    let description = fields.get("description").and_then(|node| reader.parse(node, "description"));
    let target_accounts = fields.get("targetAccountIds").map(|node| accounts(reader, node, "targetAccountIds"));
    let tags = fields.get("amiTags").map(|node| ami_tags(reader, node));
    let kms_key = fields.text("kmsKeyId").map(|key| key.value);
    let permission = fields.get("launchPermission").and_then(|node| permission(reader, node));
    let boot_mode = fields.get("bootMode").and_then(|node| boot_mode(reader, node));
    let v2 = |node: &Node, what: &str| matched(reader, node, what, |text| text == "v2.0", "is v2.0, or not given");
    let imds_v2 = fields.get("imdsSupport").and_then(|node| v2(node, "imdsSupport")).is_some();
    let tpm_v2 = fields.get("tpmSupport").and_then(|node| v2(node, "tpmSupport"));
    let deprecate_after = fields.get("deprecateAfter").and_then(|node| reader.parse(node, "deprecateAfter"));
    for (near, meant) in [("launchPermissions", "launchPermission"), ("tags", "amiTags")] {
        fields.refuse(&[near], &format!("is no field of the API, though AWS's own example has it: write `{meant}`"));
    }
    fields.finish(&AMI_FIELDS);
    Some(Ami {
        name,
        description: description.map(|text| text.value),
        target_accounts: target_accounts.unwrap_or_default(),
        tags: tags.unwrap_or_default(),
        kms_key,
        permission: permission.unwrap_or_default(),
        boot_mode,
        imds_v2,
        tpm_v2: tpm_v2.map(|text| Spanned { value: true, span: text.span }),
        deprecate_after: deprecate_after.map(|age: Spanned<Age>| age.value),
    })
}

fn boot_mode(reader: &Reader, node: &Node) -> Option<Spanned<BootMode>> {
    let text = reader.text(node, "bootMode")?;
    let value = match text.value.as_str() {
        "legacy-bios" => BootMode::LegacyBios,
        "uefi" => BootMode::Uefi,
        "uefi-preferred" => BootMode::UefiPreferred,
        other => {
            reader.error(&text.span, format!("`bootMode` is legacy-bios, uefi or uefi-preferred, not `{other}`"));
            return None;
        }
    };
    Some(Spanned { value, span: text.span })
}

fn ami_tags(reader: &Reader, node: &Node) -> Vec<(String, Text)> {
    let Some(fields) = reader.map(node, "`amiTags`") else { return Vec::new() };
    let entries = fields.all();
    at_most(reader, node, "amiTags", entries.len(), MOST_TAGS);
    let mut tags = Vec::new();
    for (key, value) in entries {
        if key.value.starts_with("aws:") || !(1..=128).contains(&key.value.chars().count()) {
            reader.error(&key.span, "a tag's name has 1 to 128 characters and does not begin with `aws:`");
        }
        let Some(value) = reader.parse::<Text>(value, "amiTags") else { continue };
        tags.push((key.value, value.value));
    }
    tags
}

fn permission(reader: &Reader, node: &Node) -> Option<Permission> {
    let mut fields = reader.map(node, "`launchPermission`")?;
    let accounts = fields.get("userIds").map(|node| accounts(reader, node, "userIds")).unwrap_or_default();
    let groups = fields.get("userGroups").and_then(|node| reader.texts(node, "userGroups")).unwrap_or_default();
    for group in groups.iter().filter(|group| group.value != "all") {
        reader.error(&group.span, format!("the only group is `all`, not `{}`", group.value));
    }
    let mut arns = |name: &'static str, kind: &str| {
        let Some(node) = fields.get(name) else { return Vec::new() };
        let arns = reader.texts(node, name).unwrap_or_default();
        at_most(reader, node, name, arns.len(), MOST_ORGANIZATIONS);
        for arn in &arns {
            let rest = arn.value.strip_prefix("arn:").and_then(|rest| rest.split_once(":organizations::"));
            if !rest.is_some_and(|(_, rest)| rest.contains(&format!(":{kind}/"))) {
                reader.error(&arn.span, format!("`{}` is no ARN of `{name}`: …:organizations::…:{kind}/…", arn.value));
            }
        }
        arns.into_iter().map(|arn| arn.value).collect()
    };
    let organizations = arns("organizationArns", "organization");
    let organizational_units = arns("organizationalUnitArns", "ou");
    fields.finish(&["userIds", "userGroups", "organizationArns", "organizationalUnitArns"]);
    Some(Permission { accounts, is_public: !groups.is_empty(), organizations, organizational_units })
}

fn accounts(reader: &Reader, node: &Node, what: &str) -> Vec<String> {
    let accounts = reader.list(node, what).unwrap_or_default();
    at_most(reader, node, what, accounts.len(), MOST_ACCOUNTS);
    accounts.iter().filter_map(|node| account(reader, node, what)).collect()
}

fn account(reader: &Reader, node: &Node, what: &str) -> Option<String> {
    let is_account = |text: &str| text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    matched(reader, node, what, is_account, "is the 12 digits of an account, in quotes").map(|text| text.value)
}

fn at_most(reader: &Reader, node: &Node, what: &str, number: usize, most: usize) {
    if number > most {
        reader.error(&node.span, format!("`{what}` holds at most {most}, and these are {number}"));
    }
}

fn templates(reader: &Reader, node: &Node) -> Vec<LaunchTemplate> {
    let items = reader.list(node, "launchTemplateConfigurations").unwrap_or_default();
    at_most(reader, node, "launchTemplateConfigurations", items.len(), MOST_TEMPLATES);
    let template = |item| {
        let mut fields = reader.map(item, "an item of `launchTemplateConfigurations`")?;
        let is_id = |text: &str| {
            let digits = text.strip_prefix("lt-").unwrap_or_default();
            digits.len() == 17 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        let id = fields.require("launchTemplateId");
        let id = id.and_then(|node| matched(reader, node, "launchTemplateId", is_id, "is lt- and 17 digits"));
        let account = fields.get("accountId").and_then(|node| account(reader, node, "accountId"));
        let set_default = fields.flag("setDefaultVersion");
        fields.finish(&["launchTemplateId", "accountId", "setDefaultVersion"]);
        Some(LaunchTemplate { id: id?.value, account, set_default })
    };
    items.iter().filter_map(template).collect()
}

fn parameters(reader: &Reader, node: &Node) -> Vec<Parameter> {
    let items = reader.list(node, "ssmParameterConfigurations").unwrap_or_default();
    at_most(reader, node, "ssmParameterConfigurations", items.len(), MOST_PARAMETERS);
    let parameter = |item| {
        let mut fields = reader.map(item, "an item of `ssmParameterConfigurations`")?;
        let is_name = |text: &str| {
            let good = |c: char| c.is_ascii_alphanumeric() || "_.-/".contains(c);
            (1..=1011).contains(&text.len()) && text.chars().all(good)
        };
        let name = fields.require("parameterName");
        let rule = "is 1 to 1011 letters, digits, `_`, `.`, `-` and `/`";
        let name = name.and_then(|node| matched(reader, node, "parameterName", is_name, rule));
        let account = fields.get("amiAccountId").and_then(|node| account(reader, node, "amiAccountId"));
        let kind = fields.get("dataType");
        let is_kind = |text: &str| ["text", "aws:ec2:image"].contains(&text);
        let kind = kind.and_then(|node| matched(reader, node, "dataType", is_kind, "is text or aws:ec2:image"));
        fields.finish(&["parameterName", "amiAccountId", "dataType"]);
        let is_image = kind.is_some_and(|kind| kind.value != "text");
        Some(Parameter { name: name?.value, account, is_image })
    };
    items.iter().filter_map(parameter).collect()
}

const AMI_NAME_RULE: &str = "has 3 to 127 letters, digits, `-`, `_`, `.`, `:` and spaces, beside placeholders";

/// An AMI's name with placeholders: the API's pattern.
fn is_ami_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (3..=127).contains(&text.len())
        && text.chars().all(|c| plain(c) || c.is_whitespace() || ":{}.".contains(c))
        && text.starts_with(|c| plain(c) || c == '{')
        && text.ends_with(|c| plain(c) || c == '}')
}
