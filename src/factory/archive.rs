//! An image in one file, to be carried to another store.
//!
//! ```text
//!   tar: manifest.json │ sha256sums │ disk.qcow2 │ build.log │ console.log │ packages.json │ documents/… │ test/…
//! ```
//!
//! `sha256sums` is in the form of `sha256sum`, so the file can be checked without goldsmith. Digests tell what was damaged,
//! not who made it: load what you trust.

use std::collections::BTreeMap;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Component, Path, PathBuf};

use fs_err as fs;
use sha2::{Digest, Sha256};
use tar::{Archive, Builder, Entry, EntryType, Header};
use tokio_util::sync::CancellationToken;

use super::{Error, Factory};
use crate::disk::probe::{self, Format};
use crate::host::file::{self, Draft};
use crate::machine::console::plain;
use crate::store::manifest::{Disk, Manifest};
use crate::store::{DISK, Image, MANIFEST, PACKAGES};

const SUMS: &str = "sha256sums";
/// Files and folders of an image, beside its manifest and its disk, that are taken along.
const FILES: [&str; 3] = ["build.log", "console.log", PACKAGES];
const FOLDERS: [&str; 2] = [super::source::DOCUMENTS, super::test::EVIDENCE];
/// Bounds of what is read into memory, or stored without being the disk: bytes and files.
const MAX_TEXT: u64 = 4 << 20;
const MAX_LOG: u64 = 1 << 30;
const MAX_MEMBERS: usize = 10_000;

/// What became of a file that was to be loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loaded {
    /// It is a new image.
    New,
    /// The same image was there.
    WasThere,
}

impl Factory {
    /// Writes an image to one file, which appears when it is whole.
    pub fn save(&self, image: &Image, place: &Path) -> Result<(), Error> {
        let state = image.manifest.state;
        let refused = || Error::State { image: image.id.clone(), state, wanted: "saved" };
        let Some(disk) = image.manifest.disk.as_ref().filter(|_| !state.is_under_way()) else { return Err(refused()) };
        let Some(_held) = image.hold()? else { return Err(refused()) };
        let run = self.store.begin_run("save")?;
        let mut draft = Draft::new(place)?;
        run.will_leave(&fs::canonicalize(draft.path())?)?;
        let mut tar = Builder::new(BufWriter::with_capacity(1 << 20, draft.file()));
        let manifest = fs::read(image.folder().join(MANIFEST))?;
        let others = others(image)?;
        let mut sums = format!("{}  {MANIFEST}\n{}  {DISK}\n", file::sha256_of(&manifest), disk.sha256);
        for name in &others {
            sums += &format!("{}  {name}\n", file::sha256(&image.folder().join(name))?);
        }
        append(&mut tar, MANIFEST, manifest.len() as u64, &manifest[..])?;
        append(&mut tar, SUMS, sums.len() as u64, sums.as_bytes())?;
        let mut hashing =
            Hashing { from: fs::File::open(image.disk())?, hasher: Sha256::new(), cancel: self.cancel.clone() };
        let appended = append(&mut tar, DISK, disk.bytes, (&mut hashing).take(disk.bytes));
        self.unless_interrupted(appended)?;
        if hex::encode(hashing.hasher.finalize()) != disk.sha256 {
            let source = format!("`{}` has changed since it was sealed", image.disk().display()).into();
            return Err(Error::Disk { doing: "saved", source });
        }
        for name in &others {
            let from = fs::File::open(image.folder().join(name))?;
            let length = from.metadata()?.len();
            append(&mut tar, name, length, from.take(length))?;
        }
        tar.into_inner()?.flush()?;
        draft.finish()?;
        Ok(())
    }

    /// Takes an image from a file into the store. An image of the same number and another content is left alone.
    pub fn load(&self, from: &Path) -> Result<(Image, Loaded), Error> {
        let refused = |why: String| Error::Archive { path: from.to_owned(), why };
        let mut archive = Archive::new(BufReader::with_capacity(1 << 20, fs::File::open(from)?));
        let mut members = archive.entries()?;
        let mut next = |wanted: &str| match members.next() {
            Some(Ok(entry)) if member(&entry).as_deref() == Some(wanted) => text(entry),
            Some(Err(error)) => Err(error.to_string()),
            _ => Err(format!("it is no saved image: `{wanted}` is not where it belongs")),
        };
        let manifest = next(MANIFEST).map_err(refused)?;
        let sums = next(SUMS).map_err(refused)?;
        let mut sums = parse_sums(&sums).ok_or_else(|| refused(format!("its `{SUMS}` can't be read")))?;
        if sums.remove(MANIFEST).is_none_or(|sum| sum != file::sha256_of(manifest.as_bytes())) {
            return Err(refused(format!("its `{MANIFEST}` is damaged")));
        }
        let (mut manifest, disk) = understand(&manifest).map_err(refused)?;
        if sums.get(DISK) != Some(&disk.sha256) {
            return Err(refused(format!("its `{MANIFEST}` is of another disk than its `{SUMS}`")));
        }
        if let Some(there) = self.same(&manifest, &disk)? {
            return Ok((there, Loaded::WasThere));
        }
        let run = self.store.begin_run("load")?;
        let folder = run.path("image");
        fs::create_dir(&folder)?;
        for entry in members {
            let unpacked = unpack(entry?, &folder, &disk, (&mut sums, &self.cancel));
            self.unless_interrupted(unpacked.map_err(|error| refused(error.to_string())))?;
        }
        if let Some((missing, _)) = sums.first_key_value() {
            return Err(refused(format!("`{missing}` is missing; the file is cut off")));
        }
        match probe::probe(&folder.join(DISK)) {
            Ok(Format::Qcow2) => {}
            Ok(_) => return Err(refused("its disk is no qcow2".to_owned())),
            Err(error) => return Err(refused(error.to_string())),
        }
        // Whatever an older goldsmith has taken along, or somebody has put there: it was to be published from there.
        for name in super::retry::OF_HERE {
            file::remove_if_there(&folder.join(super::source::DOCUMENTS).join(name))?;
        }
        // Where another host has put exported files means nothing here.
        manifest.exports.clear();
        Ok((self.store.adopt(&folder, manifest)?, Loaded::New))
    }

    /// What came of something, unless it failed because somebody wanted it to end.
    fn unless_interrupted<T, E: Into<Error>>(&self, result: Result<T, E>) -> Result<T, Error> {
        result.map_err(|error| if self.cancel.is_cancelled() { Error::Interrupted } else { error.into() })
    }

    /// The image that a manifest is of, if it is here with this very disk.
    fn same(&self, manifest: &Manifest, disk: &Disk) -> Result<Option<Image>, Error> {
        let images = self.store.images_of(&manifest.image.name)?;
        let Some(there) = images.into_iter().find(|image| image.id == manifest.image) else { return Ok(None) };
        if there.manifest.disk.as_ref().is_some_and(|known| known.sha256 == disk.sha256) {
            return Ok(Some(there));
        }
        Err(Error::Taken { image: there.id })
    }
}

/// Names of an image's files that are taken along, with their folders.
fn others(image: &Image) -> io::Result<Vec<String>> {
    let mut names: Vec<String> =
        FILES.iter().filter(|name| image.folder().join(name).is_file()).map(|&name| name.to_owned()).collect();
    for folder in FOLDERS {
        let path = image.folder().join(folder);
        if !path.is_dir() {
            continue;
        }
        let mut inside = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
                && !super::retry::OF_HERE.contains(&name.as_str())
            {
                inside.push(format!("{folder}/{name}"));
            }
        }
        inside.sort_unstable();
        names.extend(inside);
    }
    Ok(names)
}

fn append(tar: &mut Builder<impl Write>, name: &str, length: u64, from: impl Read) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(length);
    tar.append_data(&mut header, name, from)
}

/// A member's name, if it is a file of the kind that an image has: nothing leads out of the image's folder.
fn member(entry: &Entry<'_, impl Read>) -> Option<String> {
    let path = entry.path().ok()?;
    let parts: Vec<&str> = path
        .components()
        .map(|part| match part {
            Component::Normal(part) => part.to_str(),
            _ => None,
        })
        .collect::<Option<_>>()?;
    let is_known = match parts.as_slice() {
        [name] => FILES.contains(name) || [MANIFEST, SUMS, DISK].contains(name),
        [folder, _] => FOLDERS.contains(folder),
        _ => false,
    };
    (is_known && entry.header().entry_type() == EntryType::Regular).then(|| parts.join("/"))
}

fn text(entry: Entry<'_, impl Read>) -> Result<String, String> {
    let mut text = String::new();
    match entry.take(MAX_TEXT + 1).read_to_string(&mut text) {
        Ok(n) if n as u64 <= MAX_TEXT => Ok(text),
        Ok(_) => Err("its description is too long".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Lines of a digest, two spaces, and a name.
fn parse_sums(text: &str) -> Option<BTreeMap<String, String>> {
    let line = |line: &str| line.split_once("  ").map(|(sum, name)| (name.to_owned(), sum.to_owned()));
    text.lines().map(line).collect::<Option<BTreeMap<_, _>>>().filter(|sums| sums.len() <= MAX_MEMBERS)
}

/// A manifest that can be loaded, and its disk.
fn understand(text: &str) -> Result<(Manifest, Disk), String> {
    let manifest: Manifest =
        serde_json::from_str(text).map_err(|error| plain(&format!("its `{MANIFEST}` can't be read: {error}")))?;
    if manifest.format_version > Manifest::FORMAT {
        return Err("a newer goldsmith saved it".to_owned());
    }
    match manifest.disk.clone() {
        Some(disk) if !manifest.state.is_under_way() => Ok((manifest, disk)),
        _ => Err(format!("its image is {} and has no finished disk", manifest.state)),
    }
}

/// Writes a member to its place and compares its digest. What is found is taken off the list.
fn unpack(
    mut entry: Entry<'_, impl Read>,
    folder: &Path,
    disk: &Disk,
    (sums, cancel): (&mut BTreeMap<String, String>, &CancellationToken),
) -> io::Result<()> {
    let shown = plain(&entry.path().map(|path| path.display().to_string()).unwrap_or_default());
    let Some((name, wanted)) = member(&entry).and_then(|name| sums.remove_entry(&name)) else {
        return Err(io::Error::other(format!("it has a member that it should not have: `{shown}`")));
    };
    let most = if name == DISK { disk.bytes } else { MAX_LOG };
    if entry.size() > most {
        return Err(io::Error::other(format!("`{name}` is too long")));
    }
    let path: PathBuf = folder.join(&name);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut to = fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
    let mut hashing = Hashing { from: &mut entry, hasher: Sha256::new(), cancel: cancel.clone() };
    io::copy(&mut hashing, &mut to)?;
    if hex::encode(hashing.hasher.finalize()) != wanted {
        return Err(io::Error::other(format!("`{name}` is damaged")));
    }
    if name == DISK {
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o444))?;
    }
    to.sync_all()
}

/// Bytes on their way, and their digest.
struct Hashing<R> {
    from: R,
    hasher: Sha256,
    cancel: CancellationToken,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            // No kind that is tried again.
            return Err(io::Error::other("interrupted"));
        }
        let n = self.from.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::Arc;

    use super::*;
    use crate::store::Store;
    use crate::store::manifest::State;
    use crate::store::version::VersionRequest;

    fn factory(home: &Path) -> Factory {
        Factory {
            store: Store::open(home).unwrap(),
            listener: Arc::new(|_| {}),
            cancel: tokio_util::sync::CancellationToken::new(),
            accelerator: crate::machine::accelerator::Choice::Auto,
            layer_budget: 0,
            endpoints: goldsmith_aws::Endpoints::default(),
            aftermath: tokio_util::task::TaskTracker::new(),
        }
    }

    /// An image with a disk, logs and documents, and the file that it was saved to.
    fn saved(folder: &Path, arguments: &[&str]) -> (Image, PathBuf) {
        let factory = factory(&folder.join("here"));
        let request = VersionRequest::Exactly("1.0.0".parse().unwrap());
        let mut reservation = factory.store.reserve(&"web".parse().unwrap(), request).unwrap();
        let image = &mut reservation.image;
        let mut create = Command::new("qemu-img");
        create.args(["create", "-q", "-f", "qcow2"]).args(arguments).arg(image.disk()).arg("1M");
        assert!(create.status().unwrap().success());
        fs::write(image.folder().join("build.log"), "built").unwrap();
        fs::create_dir(image.folder().join("documents")).unwrap();
        fs::write(image.folder().join("documents/recipe.yaml"), "name: web").unwrap();
        fs::write(image.folder().join("documents/distribution.yaml"), "name: here").unwrap();
        let (sha256, bytes) = (file::sha256(&image.disk()).unwrap(), fs::metadata(image.disk()).unwrap().len());
        let disk = Disk { sha256, bytes, virtual_size: 1 << 20, content: None };
        image.update(|manifest| (manifest.state, manifest.disk) = (State::Available, Some(disk))).unwrap();
        let image = image.clone();
        drop(reservation);
        let place = folder.join("web.goldsmith");
        factory.save(&image, &place).unwrap();
        (image, place)
    }

    #[test]
    fn an_image_goes_to_another_store_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (image, place) = saved(folder.path(), &[]);
        let there = factory(&folder.path().join("there"));
        let (loaded, how) = there.load(&place).unwrap();
        assert_eq!((how, &loaded.manifest), (Loaded::New, &image.manifest));
        for name in ["disk.qcow2", "build.log", "documents/recipe.yaml"] {
            assert_eq!(fs::read(loaded.folder().join(name)).unwrap(), fs::read(image.folder().join(name)).unwrap());
        }
        // Where it was to be published from there is nobody's wish here.
        assert!(!loaded.folder().join("documents/distribution.yaml").exists());
        assert_eq!(there.load(&place).unwrap().1, Loaded::WasThere);
        // Its number is taken.
        let next = there.store.reserve(&image.id.name, VersionRequest::Exactly(image.id.version)).unwrap();
        assert_eq!(next.image.id.build, image.id.build + 1);
        let other = fs::read(loaded.folder().join(MANIFEST)).unwrap();
        let other = String::from_utf8(other).unwrap().replace(&image.manifest.disk.unwrap().sha256, "0");
        fs::write(loaded.folder().join(MANIFEST), other).unwrap();
        assert!(matches!(there.load(&place), Err(Error::Taken { .. })));
    }

    #[test]
    fn what_is_damaged_cut_off_or_leads_out_is_refused_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (_, place) = saved(folder.path(), &[]);
        let there = factory(&folder.path().join("there"));
        let whole = fs::read(&place).unwrap();
        let refused = |bytes: &[u8]| {
            let place = folder.path().join("other");
            fs::write(&place, bytes).unwrap();
            let error = there.load(&place).map(|_| ()).unwrap_err().to_string();
            assert!(there.store.images().unwrap().is_empty());
            assert_eq!(fs::read_dir(there.store.root().join("runs")).unwrap().count(), 0);
            error
        };
        // Padding that is cut off is no loss.
        for length in (0..whole.len() - 4096).step_by(10_007) {
            refused(&whole[..length]);
        }
        let last = |what: &[u8]| whole.windows(what.len()).rposition(|window| window == what).unwrap();
        for what in [&b"AVAILABLE"[..], b"QFI\xfb", b"name: web"] {
            let mut bytes = whole.clone();
            bytes[last(what)] ^= 1;
            let error = refused(&bytes);
            assert!(error.contains("damaged"), "{error}");
        }
        let at = last(b"documents/recipe.yaml");
        for (path, why) in [("../../../../../../../x", "should not have"), ("documents/other.yaml", "should not have")]
        {
            let mut archive = whole[..at].to_vec();
            let mut tar = Builder::new(&mut archive);
            let mut header = Header::new_gnu();
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(EntryType::Regular);
            header.set_size(4);
            header.set_cksum();
            tar.append(&header, &b"evil"[..]).unwrap();
            tar.finish().unwrap();
            drop(tar);
            let error = refused(&archive);
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_disk_that_wants_other_files_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("secret"), vec![1; 1 << 20]).unwrap();
        let secret = folder.path().join("secret").to_str().unwrap().to_owned();
        let (_, place) = saved(folder.path(), &["-b", &secret, "-F", "raw"]);
        let error = factory(&folder.path().join("there")).load(&place).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("backing file"), "{error}");
    }
}
