//! Distribution configurations: where an image is published, under which names, and who is told.
//!
//! The names of `CreateDistributionConfiguration` are taken, so the input of `aws imagebuilder
//! create-distribution-configuration --cli-input-json` is one. Beside them stands what goldsmith has of its own: the road to
//! an AMI, folders and buckets, a pointer to the newest image, and a topic. A field that is accepted has an effect; one that
//! has none is an error or, where it only describes AWS's own machinery, a warning.

mod region;

use std::path::PathBuf;
use std::sync::Arc;

use super::age::Age;
use super::decode::{Fields, Reader, Spanned, Strictness};
use super::diagnostic::Report;
use super::resource;
use super::syntax::{self, Node, Source};

/// Where an image goes.
#[derive(Debug, Clone)]
pub struct Distribution {
    /// Where it came from.
    pub source: Arc<Source>,
    /// Its name, by which the journal of a publication is found again.
    pub name: Spanned<String>,
    /// The places, in order.
    pub targets: Vec<Target>,
    /// Who is told: the ARN of a topic.
    pub topic: Option<Spanned<String>>,
}

/// A place that an image goes to.
#[derive(Debug, Clone)]
pub enum Target {
    /// A region of AWS.
    Region(Box<Region>),
    /// A folder of this host.
    Directory(Directory),
    /// A bucket.
    Bucket(Bucket),
}

/// What an image becomes in a region of AWS.
#[derive(Debug, Clone)]
pub struct Region {
    /// The region, such as `eu-central-1`.
    pub name: Spanned<String>,
    /// How it gets there.
    pub road: Road,
    /// The AMI, if there is to be one.
    pub ami: Option<Ami>,
    /// Launch templates that get a new version.
    pub templates: Vec<LaunchTemplate>,
    /// Parameters that name the AMI.
    pub parameters: Vec<Parameter>,
    /// A disk in a bucket.
    pub export: Option<(DiskFormat, Place)>,
}

/// How a disk becomes an AMI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Road {
    /// Block by block into a snapshot.
    EbsDirect,
    /// As a VMDK in a bucket of the region, which AWS makes a snapshot of.
    ImportSnapshot(Staging),
    /// As a VMDK in a bucket, and somebody else goes on.
    S3Only(Staging),
    /// As a copy of the AMI in another region of the same document.
    CopyFrom(Spanned<String>),
}

/// Where a disk waits for its import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staging {
    /// Where in S3.
    pub place: Place,
    /// The role that reads it there.
    pub role: String,
}

/// A bucket, and what names in it begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The bucket.
    pub bucket: String,
    /// What names begin with, without a slash at the end; may be empty.
    pub prefix: String,
}

impl Place {
    /// The whole name of an object.
    pub fn key(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}/{name}", self.prefix) }
    }
}

/// Formats that `s3ExportConfiguration` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFormat {
    /// Stream-optimised.
    Vmdk,
    /// Bytes as a guest sees them.
    Raw,
    /// Dynamic.
    Vhd,
}

/// An AMI as it is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ami {
    /// Its name, with placeholders.
    pub name: Option<Spanned<Text>>,
    /// What it is, with placeholders.
    pub description: Option<Text>,
    /// Accounts that get a copy of their own.
    pub target_accounts: Vec<String>,
    /// Its labels, with placeholders.
    pub tags: Vec<(String, Text)>,
    /// The key that its disk is encrypted with.
    pub kms_key: Option<String>,
    /// Who else may launch it.
    pub permission: Permission,
    /// How it starts, if not as its disk was tested.
    pub boot_mode: Option<Spanned<BootMode>>,
    /// Whether its instances require session tokens for their metadata.
    pub imds_v2: bool,
    /// Whether its instances have a TPM 2.0.
    pub tpm_v2: Option<Spanned<bool>>,
    /// When it is deprecated, counted from its publication.
    pub deprecate_after: Option<Age>,
}

/// Who else may launch an AMI.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permission {
    /// Numbers of accounts.
    pub accounts: Vec<String>,
    /// Everybody.
    pub is_public: bool,
    /// ARNs of organisations.
    pub organizations: Vec<String>,
    /// ARNs of organisational units.
    pub organizational_units: Vec<String>,
}

impl Permission {
    /// Whether it is nobody.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How an AMI starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootMode {
    /// By BIOS.
    LegacyBios,
    /// By UEFI.
    Uefi,
    /// By UEFI where the instance type has it.
    UefiPreferred,
}

/// A launch template that is to use the new AMI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchTemplate {
    /// Its identifier.
    pub id: String,
    /// The account that it is in, if not the publisher's.
    pub account: Option<String>,
    /// Whether the new version becomes its default.
    pub set_default: bool,
}

/// A parameter of Systems Manager that is to name the new AMI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// The account that it is in, if not the publisher's.
    pub account: Option<String>,
    /// Whether AWS is to look whether there is such an AMI.
    pub is_image: bool,
}

/// A folder of this host.
#[derive(Debug, Clone)]
pub struct Directory {
    /// The folder; relative to the document.
    pub path: Spanned<PathBuf>,
    /// What is put there.
    pub formats: Vec<Spanned<String>>,
    /// A file that says which image is the newest.
    pub pointer: Option<String>,
}

/// A bucket, which may be of any server that speaks S3.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// Where in S3.
    pub place: Spanned<Place>,
    /// Its region.
    pub region: String,
    /// The server's address, if it is not AWS.
    pub endpoint: Option<Spanned<String>>,
    /// What is put there.
    pub formats: Vec<Spanned<String>>,
    /// An object that says which image is the newest.
    pub pointer: Option<String>,
}

/// A text with the placeholders of AMI names: `{{ imagebuilder:buildDate }}` and `{{ imagebuilder:buildVersion }}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(Vec<Segment>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Words(String),
    Date,
    Version,
}

impl Text {
    /// The text for an image. The date is an ISO 8601 one whose colons are hyphens, because names hold none.
    pub fn fill(&self, build_date: &str, build_version: u32) -> String {
        let filled = self.0.iter().map(|segment| match segment {
            Segment::Words(words) => words.clone(),
            Segment::Date => build_date.to_owned(),
            Segment::Version => build_version.to_string(),
        });
        filled.collect()
    }
}

impl std::str::FromStr for Text {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut segments, mut rest) = (Vec::new(), text);
        while let Some((words, behind)) = rest.split_once("{{") {
            let (name, after) = behind.split_once("}}").ok_or("`{{` has no `}}`")?;
            segments.push(Segment::Words(words.to_owned()));
            segments.push(match name.trim() {
                "imagebuilder:buildDate" => Segment::Date,
                "imagebuilder:buildVersion" => Segment::Version,
                other if other.starts_with("imagebuilder:buildDate:") => {
                    return Err("a pattern for `imagebuilder:buildDate` is not supported; leave it out".to_owned());
                }
                other => {
                    return Err(format!(
                        "`{other}` is no placeholder: `imagebuilder:buildDate` and `imagebuilder:buildVersion` are"
                    ));
                }
            });
            rest = after;
        }
        segments.push(Segment::Words(rest.to_owned()));
        Ok(Self(segments))
    }
}

const FIELDS: [&str; 9] =
    ["kind", "name", "description", "road", "distributions", "snsTopicArn", "tags", "clientToken", "timeoutMinutes"];
/// Reads a distribution configuration; with it come warnings.
pub fn decode(source: &Arc<Source>) -> Result<(Distribution, Report), Report> {
    let root = syntax::parse(source)?;
    let reader = Reader::new(source.clone(), Strictness::Compat);
    let distribution = decode_node(&reader, &root);
    reader.finish(distribution)
}

/// Reads one of several documents of a file.
pub(super) fn decode_node(reader: &Reader, root: &Node) -> Option<Distribution> {
    let mut fields = reader.map(root, "a distribution configuration")?;
    let _kind = fields.get("kind");
    let name = fields.require("name").and_then(|node| resource::name(reader, node));
    // For people; AWS shows it too.
    let _description = fields.text("description");
    let road = fields.text("road");
    let topic = fields.get("snsTopicArn").and_then(|node| topic(reader, node));
    if let Some(node) = fields.get("tags") {
        reader.warning(&node.span, "`tags` label the configuration itself, which is no resource here; see `amiTags`");
    }
    // It makes a repeated API call one call, and there is no call here.
    let _token = fields.get("clientToken");
    fields.refuse(&["timeoutMinutes"], "can't be set: a publication goes on until it is done, or `--resume` ends it");
    let items = fields.require("distributions").and_then(|node| reader.list(node, "distributions"));
    fields.finish(&FIELDS);
    let items = items?;
    if items.is_empty() {
        reader.error(&root.span, "`distributions` names no place");
    }
    let targets: Vec<Target> = items.iter().filter_map(|item| target(reader, item, road.as_ref())).collect();
    check_regions(reader, &targets);
    Some(Distribution { source: reader.source.clone(), name: name?, targets, topic })
}

/// A region stands once, and a copy's origin beside it.
fn check_regions(reader: &Reader, targets: &[Target]) {
    let regions = || {
        targets.iter().filter_map(|target| match target {
            Target::Region(region) => Some(region),
            _ => None,
        })
    };
    for (index, region) in regions().enumerate() {
        if regions().take(index).any(|earlier| earlier.name.value == region.name.value) {
            reader.error(&region.name.span, format!("`{}` stands here twice", region.name.value));
        }
        if let Road::CopyFrom(from) = &region.road {
            let is_origin = |other: &&Region| {
                let has_own = matches!(other.road, Road::EbsDirect | Road::ImportSnapshot(_));
                other.name.value == from.value && has_own && other.ami.is_some()
            };
            if !regions().map(|region| &**region).any(|other| is_origin(&other)) {
                let message = format!("no AMI is made in `{}` by this document, so none can be copied", from.value);
                reader.error(&from.span, message);
            }
        }
    }
}

fn target(reader: &Reader, node: &Node, road: Option<&Spanned<String>>) -> Option<Target> {
    let mut fields = reader.map(node, "an item of `distributions`")?;
    match (fields.get("region"), fields.get("directory"), fields.get("s3")) {
        (Some(name), None, None) => {
            region::decode(reader, fields, name, road).map(|region| Target::Region(Box::new(region)))
        }
        (None, Some(path), None) => directory(reader, fields, path).map(Target::Directory),
        (None, None, Some(place)) => bucket(reader, fields, place).map(Target::Bucket),
        (None, None, None) => {
            fields.missing("region` (or `directory` or `s3");
            None
        }
        _ => {
            reader.error(&node.span, "an item of `distributions` has one of `region`, `directory` and `s3`");
            None
        }
    }
}

fn directory(reader: &Reader, mut fields: Fields<'_>, path: &Node) -> Option<Directory> {
    let path = reader.text(path, "directory");
    let (formats, pointer) = contents(reader, &mut fields);
    fields.finish(&["directory", "formats", "pointer"]);
    let path = path?;
    Some(Directory { path: Spanned { value: path.value.into(), span: path.span }, formats: formats?, pointer })
}

fn bucket(reader: &Reader, mut fields: Fields<'_>, node: &Node) -> Option<Bucket> {
    let (formats, pointer) = contents(reader, &mut fields);
    fields.finish(&["s3", "formats", "pointer"]);
    let mut fields = reader.map(node, "`s3`")?;
    let place = place(reader, &mut fields);
    let region = fields.text("region").map_or_else(|| "us-east-1".to_owned(), |region| region.value);
    let endpoint = fields.text("endpointUrl");
    fields.finish(&["s3Bucket", "s3Prefix", "region", "endpointUrl"]);
    let place = Spanned { value: place?, span: node.span.clone() };
    Some(Bucket { place, region, endpoint, formats: formats?, pointer })
}

fn place(reader: &Reader, fields: &mut Fields<'_>) -> Option<Place> {
    let rule = "is 3 to 63 lower-case letters, digits, dots and hyphens";
    let bucket = fields.require("s3Bucket").and_then(|node| matched(reader, node, "s3Bucket", is_bucket, rule));
    let prefix = fields.text("s3Prefix").map(|prefix| prefix.value.trim_matches('/').to_owned());
    Some(Place { bucket: bucket?.value, prefix: prefix.unwrap_or_default() })
}

/// What is put into a folder or bucket, and the name of what points to it.
fn contents(reader: &Reader, fields: &mut Fields<'_>) -> (Option<Vec<Spanned<String>>>, Option<String>) {
    let formats = fields.require("formats").and_then(|node| {
        let formats = reader.texts(node, "formats")?;
        if formats.is_empty() {
            reader.error(&node.span, "`formats` names none");
        }
        Some(formats)
    });
    let is_file = |text: &str| !text.is_empty() && !text.contains('/') && text != "." && text != "..";
    let pointer = fields.get("pointer").and_then(|node| matched(reader, node, "pointer", is_file, "is a file's name"));
    (formats, pointer.map(|pointer| pointer.value))
}

fn topic(reader: &Reader, node: &Node) -> Option<Spanned<String>> {
    let is_topic = |text: &str| {
        let parts: Vec<&str> = text.split(':').collect();
        matches!(parts[..], ["arn", _, "sns", region, account, name]
            if is_region(region) && account.len() == 12 && !name.is_empty())
    };
    matched(reader, node, "snsTopicArn", is_topic, "is arn:aws:sns:REGION:ACCOUNT:NAME")
}

/// A text that follows a rule.
pub(super) fn matched(
    reader: &Reader,
    node: &Node,
    what: &str,
    is_good: impl Fn(&str) -> bool,
    rule: &str,
) -> Option<Spanned<String>> {
    let text = reader.text(node, what)?;
    if is_good(&text.value) {
        return Some(text);
    }
    reader.error(&text.span, format!("`{what}` {rule}"));
    None
}

fn is_region(text: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    text.contains('-') && text.chars().all(good)
}

fn is_bucket(text: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    (3..=63).contains(&text.len()) && text.chars().all(good)
}

#[cfg(test)]
mod tests;
