//! Recipes: a parent image, components, and what the machine and the disk should be.
//!
//! The names of `CreateImageRecipe` are taken, so the input of `aws imagebuilder create-image-recipe --cli-input-json`
//! is a recipe; beside them stand short forms for people. A field that is accepted has an effect; one that has none is
//! an error or, where it only describes AWS's own hardware, a warning.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::age::Age;
use super::component_use::{ComponentUse, components};
use super::decode::{Fields, Reader, Spanned, Strictness};
use super::diagnostic::Report;
use super::secret::{self, SecretSource};
use super::size::Size;
use super::syntax::{self, Node, Source};
use crate::store::version::{ImageName, VersionRequest};

/// A recipe.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Where it came from.
    pub source: Arc<Source>,
    /// The image's name.
    pub name: ImageName,
    /// The image's version.
    pub version: VersionRequest,
    /// What it is for.
    pub description: Option<String>,
    /// What it begins with, as the user wrote it.
    pub parent: Spanned<String>,
    /// SHA-256 that a parent given by its address has to have.
    pub parent_checksum: Option<Spanned<String>>,
    /// Size of the disk, if larger than the parent's.
    pub disk: Option<Spanned<Size>>,
    /// The machine.
    pub machine: MachineWishes,
    /// Files of the recipe's own, copied before the first component.
    pub files: Vec<FileCopy>,
    /// The components, in order.
    pub components: Vec<ComponentUse>,
    /// Values for references to what only AWS has, by the reference without its braces.
    pub references: Vec<(Spanned<String>, Spanned<String>)>,
    /// Secrets by the references that stand for them, and where they come from.
    pub secrets: Vec<(String, SecretSource)>,
    /// Folder in the guest in which steps run.
    pub working_directory: String,
    /// What the site's network needs while building.
    pub network: NetworkWishes,
    /// How old a layer may be to be used again.
    pub max_age: Age,
    /// Units that may fail without failing the test.
    pub allowed_failed_units: Vec<String>,
    /// The user's labels.
    pub tags: Vec<(String, String)>,
}

/// What a recipe or a base image says of the machine; what it does not say, the parent or goldsmith decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MachineWishes {
    /// Number of processors.
    pub cpus: Option<u32>,
    /// Memory.
    pub memory: Option<Size>,
    /// Firmware.
    pub firmware: Option<FirmwareKind>,
    /// QEMU's name of a processor.
    pub cpu: Option<String>,
    /// How long the agent may take to greet after power-on.
    pub boot_timeout: Option<Duration>,
}

impl MachineWishes {
    /// These wishes, and where there are none, others.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        Self {
            cpus: self.cpus.or(other.cpus),
            memory: self.memory.or(other.memory),
            firmware: self.firmware.or(other.firmware),
            cpu: self.cpu.clone().or_else(|| other.cpu.clone()),
            boot_timeout: self.boot_timeout.or(other.boot_timeout),
        }
    }
}

/// A kind of firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirmwareKind {
    /// BIOS.
    Bios,
    /// UEFI.
    Uefi,
}

/// A file or folder of the recipe's own.
#[derive(Debug, Clone)]
pub struct FileCopy {
    /// On the host, relative to the recipe.
    pub source: Spanned<PathBuf>,
    /// In the guest; with a slash at its end a folder to put it into.
    pub destination: Spanned<String>,
    /// Owner and perhaps group: `user` or `user:group`.
    pub owner: Option<String>,
    /// Permissions of files.
    pub mode: Option<u32>,
}

/// What guests may reach.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reach {
    /// Everything outside the host.
    #[default]
    Full,
    /// Some hosts, by name or address.
    Restricted(Vec<String>),
    /// Nothing.
    None,
}

/// What a site's network needs while building, as written.
#[derive(Debug, Clone, Default)]
pub struct NetworkWishes {
    /// A proxy's address, or `host` for the host's own proxy variables.
    pub proxy: Option<Spanned<String>>,
    /// Hosts to reach without it, as in `no_proxy`.
    pub no_proxy: Option<String>,
    /// A file with a certificate, relative to the recipe.
    pub ca_certificate: Option<Spanned<PathBuf>>,
    /// Package repositories' addresses and what to use instead.
    pub mirrors: Vec<(Spanned<String>, Spanned<String>)>,
    /// Whether guests may reach the host's loopback and link-local addresses.
    pub open: bool,
    /// What else guests may reach. No recipe says so; an infrastructure configuration does.
    pub reach: Reach,
    /// Whether `WebDownload` goes through the host.
    pub host_downloads: bool,
}

const FIELDS: [&str; 21] = [
    "name",
    "version",
    "semanticVersion",
    "description",
    "parentImage",
    "parentChecksum",
    "disk",
    "machine",
    "files",
    "components",
    "references",
    "secrets",
    "workingDirectory",
    "network",
    "test",
    "cache",
    "tags",
    "amiTags",
    "blockDeviceMappings",
    "additionalInstanceConfiguration",
    "clientToken",
];

/// How old a layer may be unless the recipe says otherwise.
const MAX_AGE: Age = Age::days(7);
/// The longest path that the API takes for a working directory.
const MAX_WORKING_DIRECTORY: usize = 1024;

/// Reads a recipe; with it come warnings.
pub fn decode(source: &Arc<Source>) -> Result<(Recipe, Report), Report> {
    let root = syntax::parse(source)?;
    let reader = Reader::new(source.clone(), Strictness::Compat);
    let recipe = recipe(&reader, &root);
    reader.finish(recipe)
}

fn recipe(reader: &Reader, root: &Node) -> Option<Recipe> {
    let mut fields = reader.map(root, "a recipe")?;
    let name = fields.require("name").and_then(|node| reader.parse(node, "name"));
    let version = fields.either("version", "semanticVersion");
    if version.is_none() {
        fields.missing("version");
    }
    let version = version.and_then(|node| reader.parse(node, "version"));
    let parent = fields.require("parentImage").and_then(|node| reader.text(node, "parentImage"));
    let parent_checksum = fields.get("parentChecksum").and_then(|node| checksum(reader, node));
    let description = fields.text("description").map(|text| text.value);
    let disk = disk(reader, &mut fields);
    let machine = fields.get("machine").map(|node| machine(reader, node)).unwrap_or_default();
    let files = fields.get("files").map(|node| files(reader, node)).unwrap_or_default();
    let components = fields.get("components").map(|node| components(reader, node)).unwrap_or_default();
    let references = fields.get("references").map(|node| references(reader, node)).unwrap_or_default();
    let secrets = fields.get("secrets").map(|node| secret::decode(reader, node)).unwrap_or_default();
    let network = fields.get("network").map(|node| network(reader, node)).unwrap_or_default();
    let allowed_failed_units = fields.get("test").map(|node| test(reader, node)).unwrap_or_default();
    let max_age = fields.get("cache").and_then(|node| max_age(reader, node)).unwrap_or(MAX_AGE);
    let working_directory = working_directory(reader, &mut fields);
    let mut tags = fields.get("tags").map(|node| labels(reader, node, "tags")).unwrap_or_default();
    tags.extend(fields.get("amiTags").map(|node| labels(reader, node, "amiTags")).unwrap_or_default());
    instance_configuration(reader, &mut fields);
    // It makes a repeated API call one call, and there is no call here.
    let _token = fields.get("clientToken");
    fields.finish(&FIELDS);
    Some(Recipe {
        source: reader.source.clone(),
        name: name?.value,
        version: version?.value,
        description,
        parent: parent?,
        parent_checksum,
        disk,
        machine,
        files,
        components,
        references,
        secrets,
        working_directory,
        network,
        max_age,
        allowed_failed_units,
        tags,
    })
}

fn max_age(reader: &Reader, node: &Node) -> Option<Age> {
    let mut fields = reader.map(node, "`cache`")?;
    let age = fields.get("maxAge").and_then(|node| reader.parse(node, "maxAge"));
    fields.finish(&["maxAge"]);
    age.map(|age| age.value)
}

fn checksum(reader: &Reader, node: &Node) -> Option<Spanned<String>> {
    let text = reader.text(node, "parentChecksum")?;
    let digits = text.value.strip_prefix("sha256:").unwrap_or(&text.value);
    if digits.len() == 64 && digits.chars().all(|c| c.is_ascii_hexdigit()) {
        return Some(Spanned { value: digits.to_lowercase(), span: text.span });
    }
    reader.error(&text.span, "a checksum is `sha256:` and 64 hexadecimal digits");
    None
}

fn disk(reader: &Reader, fields: &mut Fields<'_>) -> Option<Spanned<Size>> {
    let disk = fields.get("disk").and_then(|node| reader.parse::<Size>(node, "disk"));
    let mapped = fields.get("blockDeviceMappings").and_then(|node| mapped_size(reader, node));
    if let (Some(_), Some(mapped)) = (&disk, &mapped) {
        reader.error(&mapped.span, "`disk` and `volumeSize` mean the same; give one of them");
    }
    disk.or(mapped)
}

/// The root volume's size out of `blockDeviceMappings`, in whole GiB as the API has it.
fn mapped_size(reader: &Reader, node: &Node) -> Option<Spanned<Size>> {
    const EBS_FIELDS: [&str; 9] = [
        "volumeSize",
        "volumeType",
        "iops",
        "throughput",
        "deleteOnTermination",
        "encrypted",
        "kmsKeyId",
        "snapshotId",
        "volumeInitializationRate",
    ];
    let mappings = reader.list(node, "blockDeviceMappings")?;
    if let Some(second) = mappings.get(1) {
        reader.error(&second.span, "an image has one disk here");
    }
    let mut mapping = reader.map(mappings.first()?, "a block device mapping")?;
    let _name = mapping.get("deviceName");
    mapping.refuse(&["virtualName", "noDevice"], "has no meaning for an image's only disk");
    let ebs = mapping.get("ebs");
    mapping.finish(&["deviceName", "ebs"]);
    let mut ebs = reader.map(ebs?, "`ebs`")?;
    for about_hardware in ["volumeType", "iops", "throughput", "deleteOnTermination", "volumeInitializationRate"] {
        if let Some(node) = ebs.get(about_hardware) {
            reader.warning(&node.span, format!("`{about_hardware}` describes AWS's hardware and has no effect here"));
        }
    }
    if let Some(node) = ebs.get("encrypted")
        && reader.boolean(node, "encrypted") == Some(true)
    {
        reader.warning(&node.span, "`encrypted` describes AWS's storage; the disk here is not encrypted");
    }
    ebs.refuse(&["kmsKeyId", "snapshotId"], "names something in AWS that can't be used here");
    let size = ebs.get("volumeSize");
    ebs.finish(&EBS_FIELDS);
    let size = size?;
    let gib = reader.integer(size, "volumeSize")?;
    match u64::try_from(gib).ok().filter(|gib| (1..=16_000).contains(gib)) {
        Some(gib) => Some(Spanned { value: Size(gib << 30), span: size.span.clone() }),
        None => {
            reader.error(&size.span, "`volumeSize` is a number of GiB from 1 to 16000");
            None
        }
    }
}

/// What a recipe or base image says of its machine.
pub(super) fn machine(reader: &Reader, node: &Node) -> MachineWishes {
    let Some(mut fields) = reader.map(node, "`machine`") else { return MachineWishes::default() };
    let mut number = |name: &'static str, most: u32| {
        let node = fields.get(name)?;
        let number = reader.integer(node, name)?;
        let number = u32::try_from(number).ok().filter(|number| (1..=most).contains(number));
        if number.is_none() {
            reader.error(&node.span, format!("`{name}` is a number from 1 to {most}"));
        }
        number
    };
    let (cpus, boot_timeout) = (number("cpus", 256), number("bootTimeoutSeconds", 24 * 3600));
    let memory = fields.get("memory").and_then(|node| memory(reader, node));
    let firmware = fields.get("firmware").and_then(|node| firmware(reader, node));
    let cpu = fields.text("cpu").map(|text| text.value);
    fields.finish(&["cpus", "memory", "firmware", "cpu", "bootTimeoutSeconds"]);
    let boot_timeout = boot_timeout.map(|seconds| Duration::from_secs(seconds.into()));
    MachineWishes { cpus, memory, firmware, cpu, boot_timeout }
}

fn memory(reader: &Reader, node: &Node) -> Option<Size> {
    const LEAST: Size = Size(64 << 20);
    let size = reader.parse::<Size>(node, "memory")?;
    if size.value >= LEAST && size.value.0.is_multiple_of(1 << 20) {
        return Some(size.value);
    }
    reader.error(&size.span, format!("`memory` is at least {LEAST} and a whole number of MiB"));
    None
}

fn firmware(reader: &Reader, node: &Node) -> Option<FirmwareKind> {
    let text = reader.text(node, "firmware")?;
    match text.value.as_str() {
        "bios" => Some(FirmwareKind::Bios),
        "uefi" => Some(FirmwareKind::Uefi),
        other => {
            reader.error(&text.span, format!("`firmware` is bios or uefi, not `{other}`"));
            None
        }
    }
}

fn files(reader: &Reader, node: &Node) -> Vec<FileCopy> {
    let items = reader.list(node, "files").unwrap_or_default();
    items.iter().filter_map(|item| file(reader, item)).collect()
}

fn file(reader: &Reader, node: &Node) -> Option<FileCopy> {
    let mut fields = reader.map(node, "an item of `files`")?;
    let source = fields.require("source").and_then(|node| reader.text(node, "source"));
    let destination = fields.require("destination").and_then(|node| absolute(reader, node, "destination"));
    let owner = fields.text("owner").map(|text| text.value);
    let mode = fields.get("mode").and_then(|node| mode(reader, node));
    fields.finish(&["source", "destination", "owner", "mode"]);
    let source = source?;
    if let Some(problem) = leaves_folder(Path::new(&source.value)) {
        reader.error(&source.span, format!("`source` {problem}"));
    }
    Some(FileCopy {
        source: Spanned { value: source.value.into(), span: source.span },
        destination: destination?,
        owner,
        mode,
    })
}

/// A recipe is a document from outside: it must not have any file of the host copied into a guest.
pub(super) fn leaves_folder(path: &Path) -> Option<&'static str> {
    use std::path::Component;
    let mut depth = 0_usize;
    for component in path.components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir => match depth.checked_sub(1) {
                Some(up) => depth = up,
                None => return Some("leaves the recipe's folder; files come from beside the recipe or below"),
            },
            _ => return Some("is absolute; files come from beside the recipe or below"),
        }
    }
    None
}

fn absolute(reader: &Reader, node: &Node, what: &str) -> Option<Spanned<String>> {
    let text = reader.text(node, what)?;
    if text.value.starts_with('/') {
        return Some(text);
    }
    reader.error(&text.span, format!("`{what}` is an absolute path in the guest"));
    None
}

fn mode(reader: &Reader, node: &Node) -> Option<u32> {
    let text = reader.text(node, "mode")?;
    let mode = octal(&text.value);
    if mode.is_none() {
        reader.error(&text.span, format!("`{}` is no mode: octal digits such as 0644", text.value));
    }
    mode
}

/// Permissions in octal digits, with or without a leading zero.
pub fn octal(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    u32::from_str_radix(digits, 8).ok().filter(|&mode| mode <= 0o7777)
}

/// Whether a name is that of a reference that somebody has to give a value.
pub fn is_given_reference(name: &str) -> bool {
    let behind = |prefix: &str| name.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty());
    behind("aws:ssm:") || behind("aws:imds:") || matches!(name, "context:accountId" | "context:region")
}

/// What a name has to be to be given a value.
pub const GIVEN_REFERENCES: &str = "aws:ssm:NAME, aws:imds:PATH, context:accountId or context:region";

/// Reads a file that holds only such values.
pub fn decode_references(source: &Arc<Source>) -> Result<Vec<(String, String)>, Report> {
    let root = syntax::parse(source)?;
    let reader = Reader::new(source.clone(), Strictness::Compat);
    let read = references(&reader, &root).into_iter().map(|(name, value)| (name.value, value.value)).collect();
    reader.finish(Some(read)).map(|(read, _)| read)
}

fn references(reader: &Reader, node: &Node) -> Vec<(Spanned<String>, Spanned<String>)> {
    let references = labels_with_spans(reader, node, "references");
    for (name, _) in references.iter().filter(|(name, _)| !is_given_reference(&name.value)) {
        reader.error(&name.span, format!("`{}` needs no value; what does is {GIVEN_REFERENCES}", name.value));
    }
    references
}

pub(super) fn labels_with_spans(
    reader: &Reader,
    node: &Node,
    what: &'static str,
) -> Vec<(Spanned<String>, Spanned<String>)> {
    let Some(fields) = reader.map(node, what) else { return Vec::new() };
    let entries = fields.all().into_iter();
    entries.filter_map(|(key, value)| Some((key, reader.text(value, what)?))).collect()
}

fn labels(reader: &Reader, node: &Node, what: &'static str) -> Vec<(String, String)> {
    labels_with_spans(reader, node, what).into_iter().map(|(key, value)| (key.value, value.value)).collect()
}

fn network(reader: &Reader, node: &Node) -> NetworkWishes {
    let Some(mut fields) = reader.map(node, "`network`") else { return NetworkWishes::default() };
    let proxy = fields.text("proxy");
    let no_proxy = fields.text("noProxy").map(|text| text.value);
    let ca_certificate = fields.text("caCertificate");
    if let Some(path) = &ca_certificate
        && let Some(problem) = leaves_folder(Path::new(&path.value))
    {
        reader.error(&path.span, format!("`caCertificate` {problem}"));
    }
    let mirrors = fields.get("mirrors").map(|node| labels_with_spans(reader, node, "mirrors")).unwrap_or_default();
    let mode = fields.text("mode");
    let downloads = fields.text("downloads");
    fields.finish(&["proxy", "noProxy", "caCertificate", "mirrors", "mode", "downloads"]);
    let host_downloads = match downloads {
        Some(downloads) if downloads.value == "host" => true,
        Some(downloads) if downloads.value != "guest" => {
            reader.error(&downloads.span, format!("`downloads` is guest or host, not `{}`", downloads.value));
            false
        }
        _ => false,
    };
    let open = match mode {
        Some(mode) if mode.value == "open" => true,
        Some(mode) if mode.value != "isolated" => {
            reader.error(&mode.span, format!("`mode` is isolated or open, not `{}`", mode.value));
            false
        }
        _ => false,
    };
    let ca_certificate = ca_certificate.map(|path| Spanned { value: path.value.into(), span: path.span });
    NetworkWishes { proxy, no_proxy, ca_certificate, mirrors, open, reach: Reach::Full, host_downloads }
}

fn test(reader: &Reader, node: &Node) -> Vec<String> {
    let Some(mut fields) = reader.map(node, "`test`") else { return Vec::new() };
    let units = fields.get("allowFailedUnits").and_then(|node| reader.texts(node, "allowFailedUnits"));
    fields.finish(&["allowFailedUnits"]);
    units.unwrap_or_default().into_iter().map(|unit| unit.value).collect()
}

fn working_directory(reader: &Reader, fields: &mut Fields<'_>) -> String {
    let folder = fields.get("workingDirectory").and_then(|node| absolute(reader, node, "workingDirectory"));
    let Some(folder) = folder else { return "/tmp".to_owned() };
    if folder.value.len() > MAX_WORKING_DIRECTORY {
        reader.error(&folder.span, format!("a working directory has at most {MAX_WORKING_DIRECTORY} characters"));
    }
    match folder.value.trim_end_matches('/') {
        "" => "/".to_owned(),
        trimmed => trimmed.to_owned(),
    }
}

/// There is no Systems Manager agent here to remove, so both answers to that question are kept.
fn instance_configuration(reader: &Reader, fields: &mut Fields<'_>) {
    let Some(node) = fields.get("additionalInstanceConfiguration") else { return };
    let Some(mut configuration) = reader.map(node, "`additionalInstanceConfiguration`") else { return };
    let _agent = configuration.get("systemsManagerAgent");
    configuration.refuse(&["userDataOverride"], "is not supported by this version of goldsmith; use a component");
    configuration.finish(&["systemsManagerAgent"]);
}

/// Where in a recipe a range stands, for errors found after decoding.
pub fn place(recipe: &Recipe, span: &Range<usize>) -> String {
    let position = recipe.source.position(span.start);
    format!("{}:{}:{}", recipe.source.name, position.line, position.column)
}

#[cfg(test)]
mod tests;
