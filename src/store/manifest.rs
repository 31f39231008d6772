//! What is known about an image, kept beside its disk as `manifest.json`.
//!
//! The manifest names the digest of everything that the image came from and of everything that was made from it, so that
//! "what was tested is what ships" can be checked by anybody with `sha256sum`.

use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::version::ImageId;

/// Everything known about an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Format of this file.
    pub format_version: u32,
    /// The image.
    pub image: ImageId,
    /// Where it is on its way.
    pub state: State,
    /// Why it is there, if it is not AVAILABLE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was begun.
    pub created: Timestamp,
    /// When its state changed last.
    pub updated: Timestamp,
    /// Version of goldsmith that built it.
    pub goldsmith: String,
    /// What it was built from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The machine it was built on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
    /// The sealed disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<Disk>,
    /// Whether these very bytes have passed their tests.
    pub tested: bool,
    /// The newest test of the disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<Test>,
    /// Files made from the disk.
    #[serde(default)]
    pub exports: Vec<Export>,
    /// Where it was published.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publications: Vec<Publication>,
    /// SHA-256 of all that it was built from; who has the same wants the same image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<String>,
    /// The components that ran in the build machine, in order.
    #[serde(default)]
    pub components: Vec<BuiltComponent>,
    /// How long each stage took.
    #[serde(default)]
    pub stages: Vec<Stage>,
}

impl Manifest {
    /// Format that is written, and the newest that is read.
    pub const FORMAT: u32 = 1;

    /// A manifest of an image that has only a name yet.
    pub fn new(image: ImageId, state: State) -> Self {
        let now = Timestamp::now();
        Self {
            format_version: Self::FORMAT,
            image,
            state,
            reason: None,
            created: now,
            updated: now,
            goldsmith: env!("CARGO_PKG_VERSION").to_owned(),
            source: None,
            machine: None,
            disk: None,
            tested: false,
            test: None,
            exports: Vec::new(),
            publications: Vec::new(),
            inputs: None,
            components: Vec::new(),
            stages: Vec::new(),
        }
    }

    /// Moves the image on.
    pub fn set_state(&mut self, state: State, reason: Option<String>) {
        self.state = state;
        self.reason = reason;
        self.updated = Timestamp::now();
    }
}

/// Where an image is on its way; the API's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    /// It has a number.
    Pending,
    /// Components run.
    Building,
    /// The sealed disk is being tested.
    Testing,
    /// It is being exported or published.
    Distributing,
    /// It is done.
    Available,
    /// Something went wrong; what there is, is kept for study.
    Failed,
    /// The user ended it.
    Cancelled,
    /// It can be used, and should not be.
    Deprecated,
    /// It can't be used.
    Disabled,
    /// It is gone.
    Deleted,
}

impl State {
    /// Those that are only true while somebody is at work on the image.
    pub const UNDER_WAY: [Self; 4] = [Self::Pending, Self::Building, Self::Testing, Self::Distributing];

    /// Whether somebody has to be at work on the image for this to be true.
    pub fn is_under_way(self) -> bool {
        Self::UNDER_WAY.contains(&self)
    }

    /// Whether the image may be started, built on and published.
    pub fn is_usable(self) -> bool {
        matches!(self, Self::Available | Self::Deprecated)
    }

    /// Whether files may be made from the image; from one that failed only when the user says so.
    pub fn is_exportable(self, allow_failed: bool) -> bool {
        match self {
            Self::Available | Self::Deprecated => true,
            Self::Failed => allow_failed,
            _ => false,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pending => "PENDING",
            Self::Building => "BUILDING",
            Self::Testing => "TESTING",
            Self::Distributing => "DISTRIBUTING",
            Self::Available => "AVAILABLE",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
            Self::Deprecated => "DEPRECATED",
            Self::Disabled => "DISABLED",
            Self::Deleted => "DELETED",
        })
    }
}

/// What an image was built from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// The recipe document.
    pub recipe: Origin,
    /// Its description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The disk it began with.
    pub parent: Origin,
    /// The components, in order.
    pub components: Vec<Component>,
    /// The recipe's own files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Origin>,
    /// The recipe's tags.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub tags: serde_json::Map<String, serde_json::Value>,
}

/// Something that came from outside, and its digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// What the user called it.
    pub name: String,
    /// SHA-256 of its bytes.
    pub sha256: String,
}

/// A component as it was used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Component {
    /// The document.
    #[serde(flatten)]
    pub document: Origin,
    /// Parameters that the recipe set.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub parameters: serde_json::Map<String, serde_json::Value>,
    /// Values of references to what only AWS has, but for secrets.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub references: serde_json::Map<String, serde_json::Value>,
}

/// A component that ran in a build machine, for this image or for the layer that it was built on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BuiltComponent {
    /// Its name.
    pub name: String,
    /// When it ran.
    pub ran: Timestamp,
    /// How long that took.
    pub seconds: f64,
    /// Whether a layer had it already.
    pub cached: bool,
}

/// The machine an image was built on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// QEMU's version.
    pub qemu: String,
    /// `bios` or `uefi`.
    pub firmware: String,
    /// Number of processors.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// Whether the guest was kept from the host's loopback and from link-local addresses.
    pub isolated: bool,
    /// Hosts that its guests may reach, if not all; with none in it, they reach nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reach: Option<Vec<String>>,
    /// How long its test may take as a whole, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_seconds: Option<u64>,
}

/// A sealed disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    /// SHA-256 of the file.
    pub sha256: String,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Size that a guest sees, in bytes.
    pub virtual_size: u64,
    /// Digest of what a guest sees, as in [`Export`]; known once the disk was exported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// A test of a sealed disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Test {
    /// When it ended.
    pub finished: Timestamp,
    /// SHA-256 of the disk that was booted.
    pub disk: String,
    /// Whether all went well.
    pub passed: bool,
    /// What was tested, in order.
    pub cases: Vec<TestCase>,
}

/// One thing that was tested: that the system came up, or a step of a `test` phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TestCase {
    /// The component, or `boot`.
    pub component: String,
    /// The step.
    pub name: String,
    /// Its action module, if it has one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub action: String,
    /// How long it took.
    pub seconds: f64,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// A file made from a sealed disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Export {
    /// Its format.
    pub format: String,
    /// Where it was put.
    pub path: PathBuf,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// SHA-256 of the sealed disk that it was made from.
    pub disk: String,
    /// Digest of what a guest sees, which all exports of a disk share: SHA-256 of the disk's size as 8 bytes and, for each
    /// 64 KiB that are not all zero, their offset as 8 bytes and themselves; numbers are little-endian.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// What an image has become in one place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Publication {
    /// Name of the distribution configuration.
    pub distribution: String,
    /// The place.
    pub place: String,
    /// When it was published there.
    pub time: Timestamp,
    /// SHA-256 of the sealed disk that it was made from.
    pub disk: String,
    /// What there is now.
    pub artifacts: Vec<Artifact>,
}

/// Something that was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// `ami`, `snapshot`, `object`, `file` and others.
    pub kind: String,
    /// Its identifier, address or path.
    pub id: String,
    /// What it is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The account that it is in, if not the publisher's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// SHA-256 of its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Digest of what a guest sees, as in [`Export`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// How long a stage took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// Time on the wall.
    pub seconds: f64,
    /// Whether its result was there already.
    pub cached: bool,
}
