//! Parents: the disks that builds begin with.
//!
//! ```text
//!   reference ──► base image ──url──────► download ──► verify ──┐
//!       │             └──────bootstrap──► packages ──► lay out ─┼─► parents/NAME/DIGEST.qcow2
//!       ├───────► https address ──► download ──► verify ────────┘
//!       ├───────► image of the store ──► its sealed disk
//!       └───────► path ──► probed, converted if need be
//! ```
//!
//! Nothing is read before it is verified, and nothing that failed to verify stays.

pub mod alias;
mod bootstrap;
pub mod catalogue;
mod checksum;
mod download;
mod verify;

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::disk::probe::{self, Format};
use crate::disk::qemu_img::{self, Target};
use crate::disk::{ext4, search};
use crate::document::base_image::{BaseImage, Checksum, Digest, Download, Origin};
use crate::document::diagnostic::Report;
use crate::document::recipe::{FirmwareKind, MachineWishes};
use crate::document::size::Size;
use crate::document::syntax::Source;
use crate::host::address::{Address, shown};
use crate::host::file::{self, Draft};
use crate::host::process;
use crate::store::manifest::{self, State};
use crate::store::version::Pattern;
use crate::store::{self, Lock, Run, Store};

/// A disk to begin with.
#[derive(Debug)]
pub struct Parent {
    /// What the user called it, resolved.
    pub name: String,
    /// A qcow2 that stands alone.
    pub disk: PathBuf,
    /// SHA-256 of that file; of the file that it was converted from, where somebody gave one of another format.
    pub sha256: String,
    /// Size that a guest sees, in bytes.
    pub virtual_size: u64,
    /// What machines it wants.
    pub machine: MachineWishes,
    /// Whether it was there already.
    pub cached: bool,
    /// Why another one should be used.
    pub warning: Option<String>,
    /// An image of the store must not go while something is built on it.
    _held: Option<Lock>,
}

/// The machine that an image was built on.
pub fn machine_wishes(machine: &manifest::Machine) -> MachineWishes {
    MachineWishes {
        cpus: Some(machine.cpus),
        memory: Some(Size(machine.memory)),
        firmware: Some(if machine.firmware == "uefi" { FirmwareKind::Uefi } else { FirmwareKind::Bios }),
        ..MachineWishes::default()
    }
}

/// Folder of parents that have no name of their own. No base image can be called so.
const BY_DIGEST: &str = "by-digest";

/// What a recipe's `parentImage` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// A base image of the catalogue.
    Base(String),
    /// An image of the store.
    Image(Pattern),
    /// A disk on this machine.
    Path(PathBuf),
    /// A disk somewhere else.
    Url(Address),
}

/// What a recipe's `parentImage` means here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The parent.
    pub reference: Reference,
    /// What stands in for what was named.
    pub note: Option<String>,
    /// The same where it is not what was asked for.
    pub warning: Option<String>,
}

impl From<Reference> for Resolved {
    fn from(reference: Reference) -> Self {
        Self { reference, note: None, warning: None }
    }
}

/// Why there is no parent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing has that name.
    #[error("there is no parent `{name}`: neither a base image nor an image of the store")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// An ARN or AMI that can't be had here.
    #[error("the parent `{name}` is in AWS and has no counterpart here")]
    Foreign {
        /// What was asked for.
        name: String,
        /// Why, or what to do.
        help: String,
    },
    /// The base image's description is wrong.
    #[error("the base image can't be used")]
    Description(#[source] Box<Report>),
    /// An address without a digest.
    #[error("the parent `{url}` has no checksum to verify it with")]
    NoChecksum {
        /// The address.
        url: Address,
    },
    /// Something could not be downloaded.
    #[error("`{url}` can't be downloaded: {why}")]
    Download {
        /// The address.
        url: Address,
        /// Why.
        why: String,
    },
    /// A download is not what its publisher published.
    #[error("`{url}` does not verify: {why}")]
    Verification {
        /// The address.
        url: Address,
        /// Why.
        why: String,
    },
    /// A disk is not accepted.
    #[error(transparent)]
    Probe(#[from] probe::Error),
    /// A disk could not be handled.
    #[error(transparent)]
    Disk(#[from] qemu_img::Error),
    /// The packages could not be had or installed.
    #[error("the base image could not be made from packages")]
    Packages(#[source] process::Error),
    /// The system made from packages lacks something.
    #[error("the base image could not be made: {0}")]
    System(String),
    /// The file system could not be made.
    #[error("the base image's file system could not be made")]
    FileSystem(#[from] ext4::Error),
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// What happens while a parent is obtained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Something begins.
    Begins(String),
    /// A transfer goes on.
    Transfer {
        /// Bytes that are here.
        done: u64,
        /// Bytes in all, if known.
        total: Option<u64>,
    },
}

/// Hears what happens.
pub type Listener<'a> = &'a (dyn Fn(Event) + Send + Sync);

/// What a `parentImage` means. Files are looked for relative to `folder`.
pub fn resolve(text: &str, folder: &Path) -> Result<Resolved, Error> {
    if let Some(resolved) = alias::resolve(text, folder)? {
        return Ok(resolved);
    }
    if text.starts_with("https://") || text.starts_with("http://") {
        return Ok(Reference::Url(Address::new(text)).into());
    }
    if text.starts_with("./") || text.starts_with("../") || text.starts_with('/') {
        return Ok(Reference::Path(folder.join(text)).into());
    }
    if catalogue::find(text, folder)?.is_some() {
        return Ok(Reference::Base(text.to_owned()).into());
    }
    let image = text.parse().map(|pattern| Reference::Image(pattern).into());
    image.map_err(|_| Error::Unknown { name: shown(text) })
}

/// Gets a parent, from the store if it is there. `checksum` is a SHA-256 for a parent given by its address;
/// temporary files go into the run.
pub async fn obtain(
    reference: &Reference,
    checksum: Option<&str>,
    folder: &Path,
    store: &Store,
    run: &Run,
    listener: Listener<'_>,
) -> Result<Parent, Error> {
    match reference {
        Reference::Base(name) => {
            let source = catalogue::find(name, folder)?.ok_or_else(|| Error::Unknown { name: name.clone() })?;
            obtain_base(name, &source, None, store, run, listener).await
        }
        Reference::Image(pattern) => from_store(pattern, store),
        Reference::Path(path) => {
            let path = fs::canonicalize(path)?;
            let name = path.display().to_string();
            from_disk(name, &path, store, run, listener).await
        }
        Reference::Url(url) => {
            let hex = checksum.ok_or_else(|| Error::NoChecksum { url: url.clone() })?;
            let digest = Digest::of_length(hex).ok_or_else(|| Error::NoChecksum { url: url.clone() })?;
            let disk = download::fetch(url, &digest, store, listener).await?;
            from_disk(url.to_string(), &disk, store, run, listener).await
        }
    }
}

/// What a parent would be made from now, without making it: whatever changes when its publisher has something newer. A
/// parent that is pinned always is the same.
pub async fn current(
    reference: &Reference,
    checksum: Option<&str>,
    folder: &Path,
    store: &Store,
) -> Result<String, Error> {
    Ok(match reference {
        Reference::Base(name) => {
            let source = catalogue::find(name, folder)?.ok_or_else(|| Error::Unknown { name: name.clone() })?;
            let published = published(&catalogue::decode(&source)?).await?.unwrap_or_default();
            // Who edits the description wants another parent, too.
            file::sha256_of(format!("{}\n{published}\n", source.text).as_bytes())
        }
        Reference::Image(pattern) => {
            store.find(pattern, |image| image.manifest.state == State::Available)?.id.to_string()
        }
        Reference::Path(path) => {
            let metadata = fs::metadata(path)?;
            let modified = metadata.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
            format!("{} bytes of {}", metadata.len(), modified.unwrap_or_default())
        }
        Reference::Url(url) => checksum.map_or_else(|| url.to_string(), str::to_owned),
    })
}

/// Gets a base image, and gets it anew if its publisher has something newer than what is here; other parents are looked for
/// at every build anyhow, and are none.
pub async fn renew(
    reference: &Reference,
    folder: &Path,
    store: &Store,
    run: &Run,
    listener: Listener<'_>,
) -> Result<Option<Parent>, Error> {
    let Reference::Base(name) = reference else { return Ok(None) };
    let source = catalogue::find(name, folder)?.ok_or_else(|| Error::Unknown { name: name.clone() })?;
    let published = published(&catalogue::decode(&source)?).await?;
    obtain_base(name, &source, published, store, run, listener).await.map(Some)
}

/// How a base image that is here stands to what its publisher has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Age {
    /// It is the newest there is.
    Newest,
    /// Its publisher has something newer.
    Outdated,
    /// Its description has changed since it was got.
    OtherDescription,
    /// It was not known what its publisher had when it was got, or nobody is known to be asked now.
    Unknown,
}

/// How a base image that is here stands to what its publisher has; none if it is not here.
pub async fn age(name: &str, folder: &Path, store: &Store) -> Result<Option<Age>, Error> {
    let source = catalogue::find(name, folder)?.ok_or_else(|| Error::Unknown { name: name.to_owned() })?;
    let Some(record) = Record::read(store, name) else { return Ok(None) };
    if record.description != file::sha256_of(source.text.as_bytes()) {
        return Ok(Some(Age::OtherDescription));
    }
    let published = published(&catalogue::decode(&source)?).await?;
    // A disk that was taken as it is has the digest that its publisher tells.
    let is_newest = [record.published.as_ref(), Some(&record.sha256)].contains(&published.as_ref());
    Ok(Some(match record.published {
        _ if published.is_none() => Age::Unknown,
        _ if is_newest => Age::Newest,
        None => Age::Unknown,
        Some(_) => Age::Outdated,
    }))
}

/// What the publisher of a base image has now: a text that changes when that does. None where nobody is known to be asked.
async fn published(base: &BaseImage) -> Result<Option<String>, Error> {
    Ok(match &base.origin {
        Origin::Url(Download { checksum: Checksum::Pinned(digest), .. }) => Some(digest.hex.clone()),
        Origin::Url(Download { url, checksum: Checksum::File { url: list, signature } }) => {
            Some(verify::published_digest(&url.value, &list.value, signature.as_ref()).await?.hex)
        }
        Origin::Bootstrap(recipe) => bootstrap::indexes(recipe).await?,
    })
}

/// A parent, if it is here already in the form that builds use.
pub async fn known(
    reference: &Reference,
    checksum: Option<&str>,
    folder: &Path,
    store: &Store,
) -> Result<Option<Parent>, Error> {
    let disk = match reference {
        Reference::Base(name) => {
            let source = catalogue::find(name, folder)?.ok_or_else(|| Error::Unknown { name: name.clone() })?;
            let machine = catalogue::decode(&source)?.machine;
            let description = file::sha256_of(source.text.as_bytes());
            let record = Record::read(store, name).filter(|record| record.description == description);
            let Some(record) = record else { return Ok(None) };
            let disk = record.disk(store, name);
            return finished(name.clone(), disk, record.sha256, machine, true).await.map(Some);
        }
        Reference::Image(pattern) => {
            return match from_store(pattern, store) {
                Err(Error::Store(store::Error::NoImage { .. })) => Ok(None),
                parent => parent.map(Some),
            };
        }
        Reference::Path(path) => path.clone(),
        Reference::Url(_) => match checksum {
            Some(sha256) => store.download(sha256),
            None => return Ok(None),
        },
    };
    if !disk.is_file() {
        return Ok(None);
    }
    let sha256 = digest_file(&disk).await?;
    let place = by_digest(store, &sha256);
    if !place.exists() {
        return Ok(None);
    }
    finished(disk.display().to_string(), place, sha256, MachineWishes::default(), true).await.map(Some)
}

fn from_store(pattern: &Pattern, store: &Store) -> Result<Parent, Error> {
    let image = store.find_usable(pattern)?;
    let held = image.hold()?;
    let Some(disk) = image.manifest.disk.clone() else {
        return Err(Error::System(format!("{} has no disk", image.id)));
    };
    Ok(Parent {
        name: image.id.to_string(),
        disk: image.disk(),
        sha256: disk.sha256,
        virtual_size: disk.virtual_size,
        machine: image.manifest.machine.as_ref().map(machine_wishes).unwrap_or_default(),
        cached: true,
        warning: (image.manifest.state == State::Deprecated)
            .then(|| format!("the parent {} is DEPRECATED: it can be used, and should not be", image.id)),
        _held: held,
    })
}

/// A parent from somebody's disk, which they may change or remove: the store keeps it in the form that builds use, since
/// checkpoints are based on it. It goes by the digest of the bytes that it was given as: `qemu-img` does not convert a
/// disk into the same bytes twice.
async fn from_disk(
    name: String,
    disk: &Path,
    store: &Store,
    run: &Run,
    listener: Listener<'_>,
) -> Result<Parent, Error> {
    let sha256 = digest_file(disk).await?;
    let place = by_digest(store, &sha256);
    let is_here = place.exists();
    if !is_here {
        fs::create_dir_all(store.parent_folder(BY_DIGEST))?;
        let draft = Draft::new(&place)?;
        let standard = standard_form(disk, run, listener).await?;
        fs_err::tokio::copy(&standard, draft.path()).await?;
        // A copy is looked at itself; of what was converted the source can be.
        let read = if standard == disk { draft.path() } else { disk };
        if digest_file(read).await? != sha256 {
            return Err(Error::System(format!("`{}` was changed while it was read", disk.display())));
        }
        fs::set_permissions(draft.path(), std::os::unix::fs::PermissionsExt::from_mode(0o444))?;
        draft.finish()?;
    }
    finished(name, place, sha256, MachineWishes::default(), is_here).await
}

/// Where a disk that somebody gave is kept.
fn by_digest(store: &Store, sha256: &str) -> PathBuf {
    store.parent_folder(BY_DIGEST).join(format!("{sha256}.qcow2"))
}

async fn finished(
    name: String,
    disk: PathBuf,
    sha256: String,
    machine: MachineWishes,
    cached: bool,
) -> Result<Parent, Error> {
    let virtual_size = qemu_img::virtual_size(&disk, Format::Qcow2).await?;
    Ok(Parent { name, disk, sha256, virtual_size, machine, cached, warning: None, _held: None })
}

/// A disk as a qcow2 that every reader of ours knows: itself if it is one, else a copy in the run's folder.
async fn standard_form(disk: &Path, run: &Run, listener: Listener<'_>) -> Result<PathBuf, Error> {
    let format = probe::probe(disk)?;
    if format == Format::Qcow2 && search::is_readable(disk) {
        return Ok(disk.to_owned());
    }
    listener(Event::Begins(format!("converting {}", disk.display())));
    let copy = run.path("parent.qcow2");
    let target = Target { path: &copy, format: "qcow2", options: &[], compress: false };
    qemu_img::convert(disk, format, target, &|_| {}).await?;
    Ok(copy)
}

async fn digest_file(path: &Path) -> Result<String, Error> {
    let path = path.to_owned();
    let digest = tokio::task::spawn_blocking(move || file::sha256(&path)).await;
    Ok(digest.map_err(io::Error::other)??)
}

/// What is known of a base image whose bytes are here: `parents/NAME/parent.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// SHA-256 of the description that it was made by.
    pub description: String,
    /// SHA-256 of the disk, which is `parents/NAME/SHA256.qcow2`.
    pub sha256: String,
    /// When it came here.
    pub obtained: Timestamp,
    /// What its publisher had then, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<String>,
}

const RECORD: &str = "parent.json";

impl Record {
    /// What is known of a base image, if its bytes are here.
    pub fn read(store: &Store, name: &str) -> Option<Self> {
        let text = fs::read(store.parent_folder(name).join(RECORD)).ok()?;
        let record: Self = serde_json::from_slice(&text).ok()?;
        record.disk(store, name).exists().then_some(record)
    }

    /// Where the disk is.
    pub fn disk(&self, store: &Store, name: &str) -> PathBuf {
        store.parent_folder(name).join(format!("{}.qcow2", self.sha256))
    }
}

/// Gets a base image's bytes, if they are not here yet, or its description has changed, or what is here is not what the
/// caller knows to be published.
async fn obtain_base(
    name: &str,
    source: &Source,
    newest: Option<String>,
    store: &Store,
    run: &Run,
    listener: Listener<'_>,
) -> Result<Parent, Error> {
    let base = catalogue::decode(source)?;
    let description = file::sha256_of(source.text.as_bytes());
    let folder = store.parent_folder(name);
    fs::create_dir_all(&folder)?;
    let _lock = lock(&folder, name, listener).await?;
    let is_current =
        |record: &Record| record.description == description && (newest.is_none() || record.published == newest);
    if let Some(record) = Record::read(store, name).filter(is_current) {
        let disk = record.disk(store, name);
        return finished(name.to_owned(), disk, record.sha256, base.machine, true).await;
    }
    // Before it is fetched: what is published meanwhile is newer. Who can't be asked is asked again when it matters.
    let published = match newest {
        Some(newest) => Some(newest),
        None => published(&base).await.ok().flatten(),
    };
    let made = make(&base, store, run, listener).await?;
    let standard = standard_form(&made, run, listener).await?;
    let sha256 = digest_file(&standard).await?;
    let record = Record { description, sha256, obtained: Timestamp::now(), published };
    let place = record.disk(store, name);
    install(&standard, &place)?;
    let text = serde_json::to_vec_pretty(&record).map_err(io::Error::other)?;
    file::write(folder.join(RECORD), &text)?;
    finished(name.to_owned(), place, record.sha256, base.machine, false).await
}

async fn make(base: &BaseImage, store: &Store, run: &Run, listener: Listener<'_>) -> Result<PathBuf, Error> {
    match &base.origin {
        Origin::Bootstrap(bootstrap) => bootstrap::make(bootstrap, run, listener).await,
        Origin::Url(download) => fetch(download, store, listener).await,
    }
}

async fn fetch(download: &Download, store: &Store, listener: Listener<'_>) -> Result<PathBuf, Error> {
    let digest = match &download.checksum {
        Checksum::Pinned(digest) => digest.clone(),
        Checksum::File { url, signature } => {
            listener(Event::Begins(format!("verifying {}", url.value)));
            verify::published_digest(&download.url.value, &url.value, signature.as_ref()).await?
        }
    };
    download::fetch(&download.url.value, &digest, store, listener).await
}

/// Puts a finished disk into its place: by name where it can, else by copy.
fn install(disk: &Path, place: &Path) -> Result<(), Error> {
    let draft = Draft::new(place)?;
    fs::remove_file(draft.path())?;
    if fs::hard_link(disk, draft.path()).is_err() {
        fs::copy(disk, draft.path())?;
    }
    fs::set_permissions(draft.path(), std::os::unix::fs::PermissionsExt::from_mode(0o444))?;
    draft.finish()?;
    Ok(())
}

/// One process at a time gets a base image; the others then find it.
async fn lock(folder: &Path, name: &str, listener: Listener<'_>) -> Result<store::Lock, Error> {
    let path = folder.join("lock");
    if let Some(lock) = store::Lock::try_take(&path)? {
        return Ok(lock);
    }
    listener(Event::Begins(format!("waiting for another goldsmith that gets {name}")));
    let lock = tokio::task::spawn_blocking(move || store::Lock::wait(&path)).await;
    Ok(lock.map_err(io::Error::other)??)
}

#[cfg(test)]
mod tests;
