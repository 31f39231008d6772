//! Channels: names for "the image to use now", such as `nginx@stable`, that move from image to image.
//!
//! ```text
//!   images/NAME/channels/stable.json    all that has happened to it, the oldest first; the last entry is what it names
//! ```
//!
//! A channel changes, and an image is removed, under the lock by which build numbers of the name are handed out: so a
//! channel never names an image that is gone.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use fs_err as fs;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::image::Image;
use super::manifest::State;
use super::version::{ImageId, ImageName, Invalid};
use super::{Error, Store};
use crate::host::file;

const FOLDER: &str = "channels";
const FORMAT: u32 = 1;

/// A channel's own name: up to 63 small letters, digits, `.`, `_` and `-`, the first a letter or digit. Safe as a file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChannelName(String);

impl FromStr for ChannelName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
        let begins_well = text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        if begins_well && text.len() <= 63 && text.chars().all(inner) {
            return Ok(Self(text.to_owned()));
        }
        Err(Invalid::new(format!(
            "`{text}` is no channel: up to 63 small letters, digits, dots, underscores or hyphens, as in nginx@stable"
        )))
    }
}

impl TryFrom<String> for ChannelName {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<ChannelName> for String {
    fn from(name: ChannelName) -> Self {
        name.0
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A channel of an image's name: `nginx@stable`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChannelId {
    /// Of which images.
    pub image: ImageName,
    /// Its own name.
    pub channel: ChannelName,
}

impl FromStr for ChannelId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let Some((image, channel)) = text.split_once('@') else {
            return Err(Invalid::new(format!("`{text}` is no channel: NAME@CHANNEL such as nginx@stable is needed")));
        };
        Ok(Self { image: image.parse()?, channel: channel.parse()? })
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.image, self.channel)
    }
}

/// How a channel came to name an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Move {
    /// Somebody chose it.
    Promote,
    /// It was the one before.
    Rollback,
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Promote => "promote",
            Self::Rollback => "rollback",
        })
    }
}

/// One change of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub time: Timestamp,
    /// How.
    pub action: Move,
    /// What it names from then on.
    pub image: ImageId,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    format_version: u32,
    history: Vec<Entry>,
}

/// A channel and all that has happened to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// Which.
    pub id: ChannelId,
    /// The oldest change first.
    pub history: Vec<Entry>,
}

impl Channel {
    /// The image that it names.
    pub fn current(&self) -> Option<&ImageId> {
        self.history.last().map(|entry| &entry.image)
    }

    /// What it would name after each further rollback, the nearest first: a rollback undoes the last promotion that none
    /// has undone yet.
    fn earlier(&self) -> Vec<&ImageId> {
        let mut named = Vec::new();
        for entry in &self.history {
            match entry.action {
                Move::Promote => named.push(&entry.image),
                Move::Rollback => {
                    // One rollback may have passed several images that could not be used any more.
                    while named.pop().is_some() && named.last().is_some_and(|image| **image != entry.image) {}
                }
            }
        }
        named.pop();
        named.reverse();
        named
    }
}

impl Store {
    /// A channel.
    pub fn channel(&self, id: &ChannelId) -> Result<Channel, Error> {
        let path = self.channel_file(id);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NoChannel { wanted: id.clone(), known: self.channels_of(&id.image)? });
            }
            Err(error) => return self.io(Err(error)),
        };
        let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("`{}`: {why}", path.display()));
        let record: Record = self.io(serde_json::from_slice(&text).map_err(|error| invalid(error.to_string())))?;
        if record.format_version != FORMAT {
            return self.io(Err(invalid(format!("it has format {}, which is not known", record.format_version))));
        }
        Ok(Channel { id: id.clone(), history: record.history })
    }

    /// The channels of a name.
    fn channels_of(&self, image: &ImageName) -> Result<Vec<ChannelId>, Error> {
        let names = self.names_in(&self.root().join("images").join(image.as_str()).join(FOLDER))?;
        let names = names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok());
        Ok(names.map(|channel| ChannelId { image: image.clone(), channel }).collect())
    }

    /// All channels, by name.
    pub fn channels(&self) -> Result<Vec<Channel>, Error> {
        let mut channels = Vec::new();
        for name in self.names_in(&self.root().join("images"))? {
            let Ok(name) = name.parse::<ImageName>() else { continue };
            for id in self.channels_of(&name)? {
                channels.push(self.channel(&id)?);
            }
        }
        Ok(channels)
    }

    /// The channels that name an image now.
    pub fn channels_naming(&self, image: &ImageId) -> Result<Vec<ChannelId>, Error> {
        let mut naming = Vec::new();
        for id in self.channels_of(&image.name)? {
            if self.channel(&id)?.current() == Some(image) {
                naming.push(id);
            }
        }
        Ok(naming)
    }

    /// Has a channel name an AVAILABLE image of its name. Returns the channel as it is then; it makes it if need be.
    pub fn promote(&self, id: &ChannelId, image: &ImageId) -> Result<Channel, Error> {
        let _counting = self.count(&id.image)?;
        let found = Image::open(self, image.clone())?.filter(|image| image.id.name == id.image);
        let Some(found) = found else {
            return Err(Error::NoImage { wanted: image.to_string(), known: Vec::new() });
        };
        if found.manifest.state != State::Available {
            return Err(Error::NotPromotable { id: found.id, state: found.manifest.state });
        }
        let mut channel = match self.channel(id) {
            Err(Error::NoChannel { .. }) => Channel { id: id.clone(), history: Vec::new() },
            channel => channel?,
        };
        if channel.current() != Some(image) {
            self.note_move(&mut channel, Move::Promote, image.clone())?;
        }
        Ok(channel)
    }

    /// Has a channel name the image before again: the nearest one that is still AVAILABLE.
    pub fn roll_back(&self, id: &ChannelId) -> Result<Channel, Error> {
        let _counting = self.count(&id.image)?;
        let mut channel = self.channel(id)?;
        let mut target = None;
        for image in channel.earlier() {
            let found = Image::open(self, image.clone())?;
            if found.is_some_and(|found| found.manifest.state == State::Available) {
                target = Some(image.clone());
                break;
            }
        }
        let target = target.ok_or_else(|| Error::NothingBefore { channel: id.clone() })?;
        self.note_move(&mut channel, Move::Rollback, target)?;
        Ok(channel)
    }

    fn note_move(&self, channel: &mut Channel, action: Move, image: ImageId) -> Result<(), Error> {
        channel.history.push(Entry { time: Timestamp::now(), action, image });
        let record = Record { format_version: FORMAT, history: channel.history.clone() };
        let path = self.channel_file(&channel.id);
        let written = (|| {
            fs::create_dir_all(path.parent().unwrap_or(&path))?;
            let mut text = serde_json::to_vec_pretty(&record)?;
            text.push(b'\n');
            file::write(&path, &text)
        })();
        self.io(written)
    }

    fn channel_file(&self, id: &ChannelId) -> PathBuf {
        let folder = self.root().join("images").join(id.image.as_str()).join(FOLDER);
        folder.join(format!("{}.json", id.channel))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("store")).unwrap();
        (folder, store)
    }

    fn image(store: &Store, state: State) -> ImageId {
        let mut held = store.reserve(&"nginx".parse().unwrap(), "1.0.0".parse().unwrap()).unwrap();
        held.image.update(|manifest| manifest.set_state(state, None)).unwrap();
        held.image.id.clone()
    }

    fn set(store: &Store, id: &ImageId, state: State) {
        let mut image = store.find(&id.into(), |_| true).unwrap();
        image.update(|manifest| manifest.set_state(state, None)).unwrap();
    }

    fn stable() -> ChannelId {
        "nginx@stable".parse().unwrap()
    }

    #[test]
    fn a_channel_is_a_name_for_an_image_wherever_one_is_named() {
        let (_folder, store) = store();
        let (old, new) = (image(&store, State::Available), image(&store, State::Available));
        store.promote(&stable(), &old).unwrap();
        let found = |text: &str| store.find(&text.parse().unwrap(), |_| true).map(|image| image.id);
        assert_eq!((found("nginx@stable").unwrap(), found("nginx").unwrap()), (old.clone(), new.clone()));
        assert!(matches!(found("nginx@testing"), Err(Error::NoChannel { known, .. }) if known == [stable()]));
        store.promote(&stable(), &new).unwrap();
        assert_eq!(found("nginx@stable").unwrap(), new);
        // What it names already is no change.
        assert_eq!(store.promote(&stable(), &new).unwrap().history.len(), 2);
        assert_eq!(store.channels_naming(&old).unwrap(), []);
    }

    #[test]
    fn only_images_that_can_be_used_are_promoted_and_none_that_a_channel_names_is_removed() {
        let (_folder, store) = store();
        let (good, failed) = (image(&store, State::Available), image(&store, State::Failed));
        assert!(matches!(store.promote(&stable(), &failed), Err(Error::NotPromotable { .. })));
        assert!(matches!(store.channel(&stable()), Err(Error::NoChannel { .. })));
        store.promote(&stable(), &good).unwrap();
        let named = store.find(&(&good).into(), |_| true).unwrap();
        assert!(matches!(named.remove(&store), Err(Error::Named { channels, .. }) if channels == [stable()]));
        let next = image(&store, State::Available);
        store.promote(&stable(), &next).unwrap();
        store.find(&(&good).into(), |_| true).unwrap().remove(&store).unwrap();
    }

    #[test]
    fn rollbacks_go_further_back_each_time_and_pass_what_is_gone() {
        let (_folder, store) = store();
        let ids: Vec<ImageId> = (0..4).map(|_| image(&store, State::Available)).collect();
        for id in &ids {
            store.promote(&stable(), id).unwrap();
        }
        set(&store, &ids[2], State::Disabled);
        let back = || store.roll_back(&stable()).map(|channel| channel.current().cloned().unwrap());
        assert_eq!(back().unwrap(), ids[1]);
        assert_eq!(back().unwrap(), ids[0]);
        assert!(matches!(back(), Err(Error::NothingBefore { .. })));
        store.promote(&stable(), &ids[3]).unwrap();
        assert_eq!(back().unwrap(), ids[0]);
        assert_eq!(store.channel(&stable()).unwrap().history.len(), 8);
    }

    #[test]
    fn what_is_being_deleted_is_not_promoted_and_what_is_named_is_not_deleted() {
        let (_folder, store) = store();
        for round in 0..20 {
            let id = image(&store, State::Available);
            let channel: ChannelId = format!("nginx@round-{round}").parse().unwrap();
            let found = store.find(&(&id).into(), |_| true).unwrap();
            let (promoted, deleted) = std::thread::scope(|scope| {
                let deleting = scope.spawn(|| store.begin_deletion(found, "old".to_owned()));
                (store.promote(&channel, &id), deleting.join().unwrap())
            });
            let state = store.find(&(&id).into(), |_| true).unwrap().manifest.state;
            match (promoted, deleted) {
                (Ok(_), Err(Error::Named { .. })) => assert_eq!(state, State::Available),
                (Err(Error::NotPromotable { .. }), Ok((_, from))) => {
                    assert_eq!((state, from), (State::Deleted, State::Available));
                    assert_eq!(store.channels_naming(&id).unwrap(), []);
                }
                both => panic!("{both:?}"),
            }
        }
    }

    #[test]
    fn nothing_is_lost_when_many_promote_at_once() {
        let (_folder, store) = store();
        let ids: Vec<ImageId> = (0..8).map(|_| image(&store, State::Available)).collect();
        std::thread::scope(|scope| {
            for id in &ids {
                let store = &store;
                scope.spawn(move || store.promote(&stable(), id).unwrap());
            }
        });
        let mut moved: Vec<ImageId> =
            store.channel(&stable()).unwrap().history.into_iter().map(|entry| entry.image).collect();
        moved.sort();
        assert_eq!(moved, ids);
    }

    #[test]
    fn names_are_safe_as_file_names() {
        for bad in ["nginx@", "nginx@..", "nginx@a/b", "nginx@Stable", "nginx", "@stable", "nginx@.x", "nginx@a@b"] {
            assert!(bad.parse::<ChannelId>().is_err(), "{bad}");
        }
        assert_eq!("nginx@stable-1.x".parse::<ChannelId>().unwrap().to_string(), "nginx@stable-1.x");
    }
}
