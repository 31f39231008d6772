//! Base images: where a parent's bytes come from and how they are verified.

use std::sync::Arc;

use super::decode::{Fields, Reader, Spanned, Strictness};
use super::diagnostic::Report;
use super::recipe::{MachineWishes, machine, octal};
use super::size::Size;
use super::syntax::{self, Node, Source};
use crate::host::address::Address;

/// A base image.
#[derive(Debug, Clone)]
pub struct BaseImage {
    /// Where its description came from.
    pub source: Arc<Source>,
    /// What it is.
    pub description: String,
    /// Where its bytes come from.
    pub origin: Origin,
    /// What machines it wants.
    pub machine: MachineWishes,
}

/// Where a base image's bytes come from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// A finished disk.
    Url(Download),
    /// The distribution's signed packages.
    Bootstrap(Box<Bootstrap>),
}

/// A finished disk, published by somebody.
#[derive(Debug, Clone)]
pub struct Download {
    /// The disk.
    pub url: Spanned<Address>,
    /// How it is verified.
    pub checksum: Checksum,
}

/// How a download is verified.
#[derive(Debug, Clone)]
pub enum Checksum {
    /// By a digest in the base image itself.
    Pinned(Digest),
    /// By a file that lists digests, and perhaps by its signature.
    File {
        /// The list.
        url: Spanned<Address>,
        /// Its signature, if the publisher signs it.
        signature: Option<Signature>,
    },
}

/// A digest that a file has to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// How it was made.
    pub algorithm: Algorithm,
    /// In lower-case hexadecimal.
    pub hex: String,
}

/// Digests that publishers use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// A publisher's signature of a checksum file.
#[derive(Debug, Clone)]
pub struct Signature {
    /// A detached signature; without it the checksum file is signed in clear text.
    pub url: Option<Spanned<Address>>,
    /// The publisher's OpenPGP keys, in ASCII armour.
    pub keys: Spanned<String>,
}

/// A system made from packages.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    /// The distribution's release, such as `bookworm`.
    pub suite: String,
    /// A mirror to use instead of the host's own or the default one.
    pub mirror: Option<String>,
    /// The mirror of security updates that goes with it; without one, such a base image has none.
    pub security_mirror: Option<String>,
    /// Packages beside the essential ones.
    pub packages: Vec<String>,
    /// Units to enable that the distribution does not enable by itself.
    pub services: Vec<String>,
    /// Size of the disk, in whole GiB.
    pub disk: Size,
    /// What the kernel is told beside its root.
    pub kernel_command_line: String,
    /// Files to add, over what the packages bring.
    pub files: Vec<AddedFile>,
    /// Links to add, over what the packages bring.
    pub links: Vec<(String, String)>,
}

/// A file to add to a bootstrapped system.
#[derive(Debug, Clone)]
pub struct AddedFile {
    /// Where.
    pub path: String,
    /// Permissions.
    pub mode: u32,
    /// What.
    pub content: String,
}

/// Reads a base image; with it come warnings.
pub fn decode(source: &Arc<Source>) -> Result<(BaseImage, Report), Report> {
    let root = syntax::parse(source)?;
    let reader = Reader::new(source.clone(), Strictness::Strict);
    let base = base_image(&reader, &root);
    reader.finish(base)
}

fn base_image(reader: &Reader, root: &Node) -> Option<BaseImage> {
    let mut fields = reader.map(root, "a base image")?;
    let description = fields.text("description").map(|text| text.value).unwrap_or_default();
    let machine = fields.get("machine").map(|node| machine(reader, node)).unwrap_or_default();
    let url = fields.get("url");
    let bootstrapped = fields.get("bootstrap");
    let origin = match (url, bootstrapped) {
        (Some(url), None) => {
            let checksum = checksum(reader, &mut fields);
            let url = address(reader, url, "url");
            url.zip(checksum).map(|(url, checksum)| Origin::Url(Download { url, checksum }))
        }
        (None, Some(node)) => bootstrap(reader, node).map(|bootstrap| Origin::Bootstrap(Box::new(bootstrap))),
        (Some(url), Some(_)) => {
            reader.error(&url.span, "a base image has either `url` or `bootstrap`");
            None
        }
        (None, None) => {
            fields.missing("url` or `bootstrap");
            None
        }
    };
    fields.finish(&["description", "machine", "url", "checksum", "checksumFile", "signature", "bootstrap"]);
    let origin = origin?;
    Some(BaseImage { source: reader.source.clone(), description, origin, machine })
}

/// Plain HTTP is for a server on the same machine only: what the checksum file says is taken at its word.
fn address(reader: &Reader, node: &Node, what: &str) -> Option<Spanned<Address>> {
    let text = reader.text(node, what)?;
    let is_local = ["http://127.0.0.1", "http://[::1]", "http://localhost"]
        .iter()
        .any(|host| text.value.strip_prefix(host).is_some_and(|rest| rest.starts_with([':', '/'])));
    if text.value.starts_with("https://") || is_local {
        return Some(Spanned { value: Address::new(text.value), span: text.span });
    }
    reader.error(&text.span, format!("`{what}` is an https address"));
    None
}

fn checksum(reader: &Reader, fields: &mut Fields<'_>) -> Option<Checksum> {
    let pinned = fields.get("checksum").map(|node| digest(reader, node));
    let file = fields.get("checksumFile").map(|node| address(reader, node, "checksumFile"));
    let signature = fields.get("signature").map(|node| signature(reader, node));
    match (pinned, file, signature) {
        (Some(digest), None, None) => Some(Checksum::Pinned(digest?)),
        (None, Some(url), None) => Some(Checksum::File { url: url?, signature: None }),
        (None, Some(url), Some(signature)) => Some(Checksum::File { url: url?, signature: Some(signature?) }),
        _ => {
            let message = "a download needs either `checksum` or `checksumFile`, the latter perhaps with `signature`";
            reader.error(&(fields.span.start..fields.span.start + 1), message);
            None
        }
    }
}

fn digest(reader: &Reader, node: &Node) -> Option<Digest> {
    let text = reader.text(node, "checksum")?;
    let parsed = text.value.split_once(':').and_then(|(algorithm, hex)| Digest::new(algorithm, hex));
    if parsed.is_none() {
        reader.error(&text.span, "a checksum is `sha256:` or `sha512:` and hexadecimal digits");
    }
    parsed
}

impl Digest {
    /// A digest by the names and digits that people write.
    pub fn new(algorithm: &str, hex: &str) -> Option<Self> {
        let algorithm = match algorithm.to_ascii_lowercase().as_str() {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return None,
        };
        Self::of_length(hex).filter(|digest| digest.algorithm == algorithm)
    }

    /// A digest whose algorithm its length tells.
    pub fn of_length(hex: &str) -> Option<Self> {
        let algorithm = match hex.len() {
            64 => Algorithm::Sha256,
            128 => Algorithm::Sha512,
            _ => return None,
        };
        let is_hex = hex.chars().all(|c| c.is_ascii_hexdigit());
        is_hex.then(|| Self { algorithm, hex: hex.to_ascii_lowercase() })
    }
}

fn signature(reader: &Reader, node: &Node) -> Option<Signature> {
    let mut fields = reader.map(node, "`signature`")?;
    let url = fields.get("url").map(|node| address(reader, node, "url"));
    let keys = fields.require("keys").and_then(|node| reader.text(node, "keys"));
    fields.finish(&["url", "keys"]);
    let url = match url {
        Some(url) => Some(url?),
        None => None,
    };
    Some(Signature { url, keys: keys? })
}

fn bootstrap(reader: &Reader, node: &Node) -> Option<Bootstrap> {
    let mut fields = reader.map(node, "`bootstrap`")?;
    let distribution = fields.require("distribution").and_then(|node| reader.text(node, "distribution"));
    if let Some(other) = distribution.as_ref().filter(|name| name.value != "debian") {
        reader.error(&other.span, format!("only `debian` can be bootstrapped, not `{}`", other.value));
    }
    let suite = fields.require("suite").and_then(|node| plain_word(reader, node, "suite"));
    let mirror = fields.text("mirror").map(|text| text.value);
    let security_mirror = fields.text("securityMirror").map(|text| text.value);
    let services = fields.get("services").and_then(|node| reader.list(node, "services"));
    let services =
        services.unwrap_or_default().iter().filter_map(|node| plain_word(reader, node, "services")).collect();
    let packages = fields.require("packages").and_then(|node| reader.list(node, "packages"));
    let packages =
        packages.unwrap_or_default().iter().filter_map(|node| plain_word(reader, node, "packages")).collect();
    let disk = fields.require("disk").and_then(|node| whole_gib(reader, node));
    let kernel_command_line = fields.text("kernelCommandLine").map(|text| text.value).unwrap_or_default();
    let files = fields.get("files").map(|node| added_files(reader, node)).unwrap_or_default();
    let links = fields.get("links").map(|node| links(reader, node)).unwrap_or_default();
    fields.finish(&[
        "distribution",
        "suite",
        "mirror",
        "securityMirror",
        "packages",
        "disk",
        "kernelCommandLine",
        "files",
        "links",
    ]);
    Some(Bootstrap {
        suite: suite?,
        mirror,
        security_mirror,
        packages,
        services,
        disk: disk?,
        kernel_command_line,
        files,
        links,
    })
}

/// A package's, suite's or unit's name, which becomes an argument of a program.
fn plain_word(reader: &Reader, node: &Node, what: &str) -> Option<String> {
    let text = reader.text(node, what)?;
    let good = |c: char| c.is_ascii_alphanumeric() || "+-.:_".contains(c);
    if text.value.chars().all(good) && text.value.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Some(text.value);
    }
    reader.error(&text.span, format!("`{}` is no name of a package, suite or unit", text.value));
    None
}

fn whole_gib(reader: &Reader, node: &Node) -> Option<Size> {
    let size = reader.parse::<Size>(node, "disk")?;
    if size.value.0.is_multiple_of(1 << 30) && size.value.0 > 0 {
        return Some(size.value);
    }
    reader.error(&size.span, "`disk` is a whole number of GiB: clouds round a disk up, and then its end is elsewhere");
    None
}

fn added_files(reader: &Reader, node: &Node) -> Vec<AddedFile> {
    let items = reader.list(node, "files").unwrap_or_default();
    items.iter().filter_map(|item| added_file(reader, item)).collect()
}

fn added_file(reader: &Reader, node: &Node) -> Option<AddedFile> {
    let mut fields = reader.map(node, "an item of `files`")?;
    let path = fields.require("path").and_then(|node| inner_path(reader, node, "path"));
    let content = fields.require("content").and_then(|node| reader.text(node, "content"));
    let mode = fields.text("mode");
    fields.finish(&["path", "content", "mode"]);
    let mode = match mode {
        None => Some(0o644),
        Some(text) => {
            let mode = octal(&text.value);
            if mode.is_none() {
                reader.error(&text.span, format!("`{}` is no mode: octal digits such as 0644", text.value));
            }
            mode
        }
    };
    Some(AddedFile { path: path?, mode: mode?, content: content?.value })
}

fn inner_path(reader: &Reader, node: &Node, what: &str) -> Option<String> {
    let text = reader.text(node, what)?;
    let is_clean = text.value.starts_with('/') && !text.value.split('/').any(|part| part == "..");
    if is_clean && !text.value.ends_with('/') {
        return Some(text.value);
    }
    reader.error(&text.span, format!("`{what}` is an absolute path without `..`"));
    None
}

fn links(reader: &Reader, node: &Node) -> Vec<(String, String)> {
    let mut links = Vec::new();
    for item in reader.list(node, "links").unwrap_or_default() {
        let Some(mut fields) = reader.map(item, "an item of `links`") else { continue };
        let path = fields.require("path").and_then(|node| inner_path(reader, node, "path"));
        let target = fields.require("target").and_then(|node| reader.text(node, "target"));
        fields.finish(&["path", "target"]);
        links.extend(path.zip(target.map(|target| target.value)));
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> String {
        match decode(&Source::new("b.yaml", text)) {
            Ok((base, _)) => format!("{:?}", base.origin),
            Err(report) => report.to_string(),
        }
    }

    #[test]
    fn verification_is_never_optional() {
        insta::assert_snapshot!(problems("url: https://x/y.qcow2\n"), @"b.yaml:1:1: error: a download needs either `checksum` or `checksumFile`, the latter perhaps with `signature`");
        insta::assert_snapshot!(problems("url: http://x/y.qcow2\nchecksumFile: http://localhost.evil/SUMS\n"), @"
        b.yaml:1:6: error: `url` is an https address
        b.yaml:2:15: error: `checksumFile` is an https address
        ");
        insta::assert_snapshot!(problems("url: https://x/y.qcow2\nchecksum: md5:abc\n"), @"b.yaml:2:11: error: a checksum is `sha256:` or `sha512:` and hexadecimal digits");
        assert!(problems(&format!("url: https://x/y\nchecksum: sha256:{}\n", "aB".repeat(32))).contains("Pinned"));
        assert!(problems("url: http://127.0.0.1:80/y\nchecksumFile: http://localhost/SUMS\n").contains("File"));
    }

    #[test]
    fn a_bootstrap_is_read_whole() {
        let text = "
bootstrap:
  distribution: fedora
  suite: --evil
  packages: [a, '; rm']
  disk: 1500MiB
  files: [{ path: ../x, content: '' }, { path: /x, content: '', mode: 99 }]
  links: [{ path: /a }]
";
        insta::assert_snapshot!(problems(text), @"
        b.yaml:3:17: error: only `debian` can be bootstrapped, not `fedora`
        b.yaml:4:10: error: `--evil` is no name of a package, suite or unit
        b.yaml:5:17: error: `; rm` is no name of a package, suite or unit
        b.yaml:6:9: error: `disk` is a whole number of GiB: clouds round a disk up, and then its end is elsewhere
        b.yaml:7:19: error: `path` is an absolute path without `..`
        b.yaml:7:71: error: `99` is no mode: octal digits such as 0644
        b.yaml:8:11: error: an item of `links` needs the field `target`
        ");
    }
}
