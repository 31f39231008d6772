//! One image's folder.

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::lock::Lock;
use super::manifest::{Manifest, State};
use super::version::ImageId;
use super::{Error, Store};
use crate::host::file;

/// Name of the sealed disk in an image's folder.
pub const DISK: &str = "disk.qcow2";
/// Name of what is known about it.
pub const MANIFEST: &str = "manifest.json";
pub(super) const LOCK: &str = "lock";

/// An image in the store.
#[derive(Debug, Clone)]
pub struct Image {
    /// Which image.
    pub id: ImageId,
    /// What is known about it.
    pub manifest: Manifest,
    folder: PathBuf,
}

impl Image {
    /// The image with this id, or `None` if it has no manifest.
    pub(super) fn open(store: &Store, id: ImageId) -> Result<Option<Self>, Error> {
        let folder = store.image_folder(&id);
        let text = match fs::read(folder.join(MANIFEST)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return store.io(Err(error)),
        };
        match serde_json::from_slice(&text) {
            Ok(manifest) => Ok(Some(Self { id, manifest, folder })),
            Err(source) => Err(Error::Manifest { id, source }),
        }
    }

    /// Makes a folder of the store's file system, with a finished disk in it, the folder of the image that `manifest` is of.
    pub(super) fn adopt(store: &Store, from: &Path, manifest: Manifest) -> Result<Self, Error> {
        let (id, folder) = (manifest.image.clone(), from.to_owned());
        let mut image = Self { id, manifest, folder };
        store.io(image.save())?;
        store.io(Lock::wait(&image.folder.join(LOCK)).map(drop))?;
        let place = store.image_folder(&image.id);
        // Onto the empty folder of a number whose owner died, or onto nothing.
        store.io(fs::rename(&image.folder, &place))?;
        store.io(file::sync_folder(place.parent().unwrap_or(&place)))?;
        image.folder = place;
        Ok(image)
    }

    /// The image's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The sealed disk, whether or not it is there.
    pub fn disk(&self) -> PathBuf {
        self.folder.join(DISK)
    }

    /// Replaces the manifest.
    pub fn save(&self) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(&self.manifest)?;
        text.push(b'\n');
        file::write(self.folder.join(MANIFEST), &text)
    }

    /// Changes what is known about the image, on disk too.
    pub fn update(&mut self, change: impl FnOnce(&mut Manifest)) -> io::Result<()> {
        change(&mut self.manifest);
        self.save()
    }

    /// Keeps the image from being removed for as long as the lock lives; none while somebody is at work on it.
    pub fn hold(&self) -> io::Result<Option<Lock>> {
        Lock::soon(|| Lock::try_share(&self.folder.join(LOCK)))
    }

    /// Removes the image, unless somebody is at work on it or a channel names it. Its build number is not handed out again.
    pub fn remove(self, store: &Store) -> Result<(), Error> {
        // No channel comes to name it meanwhile.
        let _counting = store.count(&self.id.name)?;
        let channels = store.channels_naming(&self.id)?;
        if !channels.is_empty() {
            return Err(Error::Named { id: self.id, channels });
        }
        let Some(_lock) = store.io(self.take())? else {
            return Err(Error::Busy { id: self.id });
        };
        // First the manifest: what is cut off here is no image any more.
        store.io(fs::remove_file(self.folder.join(MANIFEST)))?;
        store.io(fs::remove_dir_all(&self.folder))
    }

    /// Whether a living process is at work on the image.
    pub fn is_locked(&self) -> io::Result<bool> {
        Ok(Lock::try_take(&self.folder.join(LOCK))?.is_none())
    }

    /// Keeps everybody else from the image; none if somebody has to do with it.
    pub(super) fn take(&self) -> io::Result<Option<Lock>> {
        Lock::soon(|| Lock::try_take(&self.folder.join(LOCK)))
    }
}

/// A build number that belongs to this process: the folder of the image to come, locked.
#[derive(Debug)]
pub struct Reservation {
    /// The image to come.
    pub image: Image,
    _lock: Lock,
}

impl Reservation {
    pub(super) fn make(store: &Store, id: ImageId) -> Result<Self, Error> {
        let folder = store.image_folder(&id);
        store.io(fs::create_dir(&folder))?;
        let lock = store.io(Lock::wait(&folder.join(LOCK)))?;
        let manifest = Manifest::new(id.clone(), State::Pending);
        let image = Image { id, manifest, folder };
        store.io(image.save())?;
        Ok(Self { image, _lock: lock })
    }

    /// Locks an image that is there, to test it again for instance. What is known of it is read again: another process may
    /// have changed it, or have begun to delete it, since it was found.
    pub fn of(store: &Store, image: Image) -> Result<Self, Error> {
        let Some(lock) = store.io(image.take())? else {
            return Err(Error::Busy { id: image.id });
        };
        match Image::open(store, image.id.clone())? {
            Some(image) => Ok(Self { image, _lock: lock }),
            None => Err(Error::NoImage { wanted: image.id.to_string(), known: Vec::new() }),
        }
    }
}
