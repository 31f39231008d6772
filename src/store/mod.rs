//! The store: images, parents, downloads and the working folders of runs.
//!
//! ```text
//! $GOLDSMITH_HOME, else $XDG_DATA_HOME/goldsmith, else ~/.local/share/goldsmith
//!   version                           format of everything below
//!   images/NAME/channels/stable.json  which image a channel names, and has named
//!   images/NAME/1.0.0/next            number of the next build
//!   layers/KEY/                       overlays that builds start from, with the machine's memory
//!   images/NAME/1.0.0/3/              one image: manifest.json, disk.qcow2, packages.json, build.log, console.log, test/
//!   parents/NAME/                     a base image's bytes and where they came from
//!   downloads/sha256/DIGEST           verified downloads
//!   host/                             what was found out about this machine
//!   pipelines/                        what pipelines remember, and their runs (src/pipeline/ledger.rs)
//!   runs/ID/                          working folder of one running command; gone when it ends
//! ```
//!
//! **Who may write.** A process that builds an image holds a lock on the image's folder and on its run's folder for as
//! long as it lives; the kernel drops both with the process. So whatever claims to be under way and is not locked was
//! left by a process that is gone: [`Store::recover`] ends what it started and says so in the manifest.
//!
//! **What counts as an image.** A folder's `manifest.json` names the state. A disk is renamed into the folder before the
//! manifest names it, and the manifest is replaced whole, so nothing half-sealed ever looks AVAILABLE.

mod channel;
pub mod difference;
mod garbage;
mod image;
mod layer;
mod lock;
pub mod manifest;
mod packages;
mod recover;
mod run;
pub mod version;

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;

pub use channel::{Channel, ChannelId, ChannelName, Entry as ChannelEntry, Move};
pub use garbage::{FOR_GUESTS, Garbage, LAYER_BUDGET};
pub use image::{DISK, Image, MANIFEST, Reservation};
pub use layer::{Damaged, Key, Layer, Record as LayerRecord};
pub use lock::Lock;
use manifest::State;
pub use packages::{PACKAGES, Package};
pub use recover::{Recovered, left_in};
pub use run::{Run, RunningRun};
use version::{ImageId, ImageName, Pattern, Version, VersionRequest};

/// Format of the store that this goldsmith reads and writes.
const FORMAT: u32 = 1;

/// Name of the file with the number of a version's next build.
const NEXT: &str = "next";

/// Why the store can't do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder of the store could not be read or written.
    #[error("the store `{}` can't be used", root.display())]
    Io {
        /// The store's folder.
        root: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A newer goldsmith made the store.
    #[error("the store `{}` has format {found}; this goldsmith knows formats up to {FORMAT}", root.display())]
    TooNew {
        /// The store's folder.
        root: PathBuf,
        /// Its format.
        found: u32,
    },
    /// No folder for the store is known.
    #[error("there is no home folder to keep images in")]
    NoHome,
    /// No such image.
    #[error("there is no image `{wanted}`")]
    NoImage {
        /// What was asked for.
        wanted: String,
        /// Images of that name.
        known: Vec<ImageId>,
    },
    /// A manifest can't be read.
    #[error("the manifest of {id} can't be read")]
    Manifest {
        /// The image.
        id: ImageId,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// No such channel.
    #[error("there is no channel `{wanted}`")]
    NoChannel {
        /// What was asked for.
        wanted: ChannelId,
        /// Channels of that name.
        known: Vec<ChannelId>,
    },
    /// A channel was to name an image that is not to be used.
    #[error("{id} is {state}; a channel names AVAILABLE images only")]
    NotPromotable {
        /// The image.
        id: ImageId,
        /// Its state.
        state: manifest::State,
    },
    /// A channel has named no other image that could be used.
    #[error("{channel} has named no other image that is still AVAILABLE")]
    NothingBefore {
        /// The channel.
        channel: ChannelId,
    },
    /// An image can't get into a state from the one that it is in.
    #[error("{id} is {state} and can't become {to}")]
    NotThere {
        /// The image.
        id: ImageId,
        /// Its state.
        state: manifest::State,
        /// What it was to be.
        to: manifest::State,
    },
    /// Channels name an image that was to go or not to be used any more.
    #[error("{id} is what {} names", channels.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and "))]
    Named {
        /// The image.
        id: ImageId,
        /// The channels.
        channels: Vec<ChannelId>,
    },
    /// An image is in use by a running command.
    #[error("{id} is in use by another goldsmith")]
    Busy {
        /// The image.
        id: ImageId,
    },
}

/// The folder where everything is kept.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Where the store is unless the user says otherwise.
    pub fn default_root() -> Result<PathBuf, Error> {
        let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        folder("GOLDSMITH_HOME")
            .or_else(|| folder("XDG_DATA_HOME").map(|data| data.join("goldsmith")))
            .or_else(|| folder("HOME").map(|home| home.join(".local/share/goldsmith")))
            .ok_or(Error::NoHome)
    }

    /// Opens the store, making it if it is not there. A store of a newer format is refused.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, Error> {
        let root = root.into();
        let io = |source| Error::Io { root: root.clone(), source };
        fs::create_dir_all(&root).map_err(io)?;
        let root = fs::canonicalize(&root).map_err(io)?;
        let store = Self { root };
        let version = store.root.join("version");
        match fs::read_to_string(&version) {
            Ok(text) => store.check_format(&text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                store.io(crate::host::file::write(&version, format!("{FORMAT}\n").as_bytes()))?;
            }
            Err(error) => return store.io(Err(error)),
        }
        for folder in
            ["images", "parents", "downloads/sha256", "host", "layers", "runs", "pipelines/state", "pipelines/runs"]
        {
            store.io(fs::create_dir_all(store.root.join(folder)))?;
        }
        Ok(store)
    }

    fn check_format(&self, text: &str) -> Result<(), Error> {
        match text.trim().parse() {
            Ok(FORMAT) => Ok(()),
            Ok(found) => Err(Error::TooNew { root: self.root.clone(), found }),
            Err(_) => self.io(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("`{}` holds no format number", self.root.join("version").display()),
            ))),
        }
    }

    /// The store's folder, absolute and without links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the bytes of a base image are kept.
    pub fn parent_folder(&self, name: &str) -> PathBuf {
        self.root.join("parents").join(name)
    }

    /// Where a verified download with this SHA-256 is kept.
    pub fn download(&self, sha256: &str) -> PathBuf {
        self.root.join("downloads/sha256").join(sha256)
    }

    /// Where downloads under way are kept, so that they can be resumed.
    pub fn downloads(&self) -> PathBuf {
        self.root.join("downloads")
    }

    /// Where findings about this machine are kept.
    pub fn host_folder(&self) -> PathBuf {
        self.root.join("host")
    }

    /// Where pipelines keep what they remember.
    pub fn pipelines(&self) -> PathBuf {
        self.root.join("pipelines")
    }

    /// Begins a run: a private working folder that goes when the run ends, or with the next recovery.
    pub fn begin_run(&self, purpose: &str) -> Result<Run, Error> {
        self.io(Run::begin(&self.root.join("runs"), purpose))
    }

    /// What is running now, the oldest first.
    pub fn running(&self) -> Result<Vec<RunningRun>, Error> {
        let runs = self.root.join("runs");
        let mut running = Vec::new();
        for name in self.names_in(&runs)? {
            let Some(run) = RunningRun::named(&name) else { continue };
            if self.is_in_use(&runs.join(&name).join(run::LOCK))? {
                running.push(run);
            }
        }
        Ok(running)
    }

    /// All images, by name, version and build.
    pub fn images(&self) -> Result<Vec<Image>, Error> {
        Ok(self.readable_images()?.0)
    }

    /// All images that can be read, and what is wrong with the others: a newer goldsmith's, perhaps.
    fn readable_images(&self) -> Result<(Vec<Image>, Vec<String>), Error> {
        let (mut images, mut problems) = (Vec::new(), Vec::new());
        for name in self.names_in(&self.root.join("images"))? {
            let Ok(name) = name.parse::<ImageName>() else { continue };
            for id in self.builds_of(&name)? {
                match Image::open(self, id) {
                    // A folder without a manifest is a build number whose owner died at once.
                    Ok(image) => images.extend(image),
                    Err(error @ Error::Manifest { .. }) => {
                        let why = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                        problems.push(format!("{error}: {why}"));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok((images, problems))
    }

    /// All builds of a name, oldest version and build first.
    fn builds_of(&self, name: &ImageName) -> Result<Vec<ImageId>, Error> {
        let folder = self.root.join("images").join(name.as_str());
        let mut builds = Vec::new();
        for version in self.names_in(&folder)?.iter().filter_map(|text| text.parse::<Version>().ok()) {
            let numbers = self.names_in(&folder.join(version.to_string()))?;
            let numbers = numbers.iter().filter_map(|text| text.parse().ok());
            builds.extend(numbers.map(|build| ImageId { name: name.clone(), version, build }));
        }
        builds.sort();
        Ok(builds)
    }

    /// All images of a name, oldest version and build first.
    pub fn images_of(&self, name: &ImageName) -> Result<Vec<Image>, Error> {
        let opened = self.builds_of(name)?.into_iter().map(|id| Image::open(self, id));
        Ok(opened.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    /// The newest image that a pattern like `nginx/1.x.x` or `nginx/1.0.0/3` means and a filter accepts. A channel means one
    /// image, whatever the filter would have preferred.
    pub fn find(&self, pattern: &Pattern, accept: impl Fn(&Image) -> bool) -> Result<Image, Error> {
        let images = self.images_of(&pattern.name)?;
        if let Some(channel) = pattern.channel() {
            let channel = self.channel(&channel)?;
            let known = images.iter().map(|image| image.id.clone()).collect();
            let named = images.into_iter().find(|image| Some(&image.id) == channel.current() && accept(image));
            return named.ok_or_else(|| Error::NoImage { wanted: pattern.to_string(), known });
        }
        let known = images.iter().map(|image| image.id.clone()).collect();
        let wanted = images.into_iter().rfind(|image| pattern.matches(&image.id) && accept(image));
        wanted.ok_or_else(|| Error::NoImage { wanted: pattern.to_string(), known })
    }

    /// Hands out the next build of a name and version, once, and locks its folder.
    pub fn reserve(&self, name: &ImageName, request: VersionRequest) -> Result<Reservation, Error> {
        let _counting = self.count(name)?;
        let id = self.next_id(name, request)?;
        self.count_beyond(&id)?;
        Reservation::make(self, id)
    }

    /// Takes in an image that another store has made: a folder of a run, with all but the manifest. Its number is not
    /// handed out any more.
    pub fn adopt(&self, folder: &Path, manifest: manifest::Manifest) -> Result<Image, Error> {
        let id = manifest.image.clone();
        let _counting = self.count(&id.name)?;
        let next = self.next_id(&id.name, VersionRequest::Exactly(id.version))?;
        if next.build <= id.build {
            self.count_beyond(&id)?;
        }
        Image::adopt(self, folder, manifest)
    }

    /// Keeps all others from handing out numbers of a name.
    fn count(&self, name: &ImageName) -> Result<Lock, Error> {
        let folder = self.root.join("images").join(name.as_str());
        self.io(fs::create_dir_all(&folder))?;
        self.io(Lock::wait(&folder.join("lock")))
    }

    /// Has the next build of a version be one that comes after this.
    fn count_beyond(&self, id: &ImageId) -> Result<(), Error> {
        let folder = self.root.join("images").join(id.name.as_str()).join(id.version.to_string());
        self.io(fs::create_dir_all(&folder))?;
        self.io(crate::host::file::write(folder.join(NEXT), format!("{}\n", id.build + 1).as_bytes()))
    }

    /// The image to use for a pattern: the newest AVAILABLE one, else the newest that is DEPRECATED, which can still be used
    /// and should not be.
    pub fn find_usable(&self, pattern: &Pattern) -> Result<Image, Error> {
        let found = self.find(pattern, |image| image.manifest.state == State::Available);
        match found {
            Err(Error::NoImage { .. }) => self.find(pattern, |image| image.manifest.state.is_usable()),
            found => found,
        }
    }

    /// The image to look at or try out: the newest that has a disk and is neither DISABLED nor DELETED, else the newest that
    /// has one.
    pub fn find_sealed(&self, pattern: &Pattern) -> Result<Image, Error> {
        let is_sealed = |image: &Image| image.manifest.disk.is_some();
        let is_retired = |image: &Image| matches!(image.manifest.state, State::Disabled | State::Deleted);
        let found = self.find(pattern, |image| is_sealed(image) && !is_retired(image));
        match found {
            Err(Error::NoImage { .. }) => self.find(pattern, is_sealed),
            found => found,
        }
    }

    /// Moves an image that is done between AVAILABLE, DEPRECATED and DISABLED, unless somebody tests or publishes it just
    /// then; machines that run on it don't matter. Returns it, and its state before. What a channel names can't be disabled.
    pub fn set_usability(&self, image: Image, to: State, reason: Option<String>) -> Result<(Image, State), Error> {
        let is_done = |state| matches!(state, State::Available | State::Deprecated | State::Disabled);
        self.change_state(image, to, reason, |from| is_done(from) && is_done(to))
    }

    /// Has an image be DELETED, unless a channel names it or somebody uses it: from then on nobody can use it or
    /// promote it. Returns it, and its state before. [`Image::remove`] is the end of it.
    pub fn begin_deletion(&self, image: Image, reason: String) -> Result<(Image, State), Error> {
        self.change_state(image, State::Deleted, Some(reason), |from| !from.is_under_way())
    }

    /// Refuses an image that a channel names now.
    pub fn refuse_named(&self, id: &ImageId) -> Result<(), Error> {
        let channels = self.channels_naming(id)?;
        if channels.is_empty() { Ok(()) } else { Err(Error::Named { id: id.clone(), channels }) }
    }

    /// Changes a state under the lock by which channels change: what a channel names stays usable.
    fn change_state(
        &self,
        image: Image,
        to: State,
        reason: Option<String>,
        may_change: impl Fn(State) -> bool,
    ) -> Result<(Image, State), Error> {
        let _counting = self.count(&image.id.name)?;
        let held = if to == State::Deleted { image.take() } else { image.hold() };
        let Some(_held) = self.io(held)? else { return Err(Error::Busy { id: image.id }) };
        let id = image.id;
        let Some(mut image) = Image::open(self, id.clone())? else {
            return Err(Error::NoImage { wanted: id.to_string(), known: Vec::new() });
        };
        let from = image.manifest.state;
        if !may_change(from) {
            return Err(Error::NotThere { id, state: from, to });
        }
        if !to.is_usable() {
            self.refuse_named(&id)?;
        }
        if from != to {
            self.io(image.update(|manifest| manifest.set_state(to, reason)))?;
        }
        Ok((image, from))
    }

    /// What the next build of a name and version would be called.
    pub fn next_id(&self, name: &ImageName, request: VersionRequest) -> Result<ImageId, Error> {
        let folder = self.root.join("images").join(name.as_str());
        let versions: Vec<Version> = self.names_in(&folder)?.iter().filter_map(|text| text.parse().ok()).collect();
        let version = request.choose(&versions);
        let folder = folder.join(version.to_string());
        let counted = match fs::read_to_string(folder.join(NEXT)) {
            Ok(text) => text.trim().parse().unwrap_or(1),
            Err(_) => 1,
        };
        let taken = self.names_in(&folder)?.iter().filter_map(|text| text.parse::<u32>().ok()).max().unwrap_or(0);
        Ok(ImageId { name: name.clone(), version, build: counted.max(taken + 1) })
    }

    fn image_folder(&self, id: &ImageId) -> PathBuf {
        self.root.join("images").join(id.name.as_str()).join(id.version.to_string()).join(id.build.to_string())
    }

    fn names_in(&self, folder: &Path) -> Result<Vec<String>, Error> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return self.io(Err(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            names.extend(self.io(entry)?.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn io<T>(&self, result: io::Result<T>) -> Result<T, Error> {
        result.map_err(|source| Error::Io { root: self.root.clone(), source })
    }
}

#[cfg(test)]
mod tests;
