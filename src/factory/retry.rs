//! Going on from a failed test or publication without building: what was sealed is tested and published.
//!
//! ```text
//!   FAILED, sealed ──► the image's own test ──► AVAILABLE ─┐
//!   AVAILABLE ─────────────────────────────────────────────┴─► publications: those begun and not whole, and the one that
//!                                                              the build was to end with
//! ```

use std::path::Path;
use std::sync::Arc;

use fs_err as fs;

use super::plan::Given;
use super::publish::{FOLDER, PublishOptions};
use super::source::DOCUMENTS;
use super::{Error, Factory};
use crate::document::distribution::{self, Distribution};
use crate::document::syntax::Source;
use crate::host::file;
use crate::publish::{self, Journal, Outcome};
use crate::store::manifest::State;
use crate::store::{Image, Reservation};

/// The distribution configuration that a build was to end with, among the image's documents.
const DISTRIBUTION: &str = "distribution.yaml";
/// Beside a document: where it was, which its relative paths are about.
const PLACE: &str = "document.place";
/// What of an image's documents is about the host that it was to be published from, and goes nowhere else.
pub(super) const OF_HERE: [&str; 2] = [DISTRIBUTION, PLACE];

/// What was done.
#[derive(Debug)]
pub struct Retried {
    /// The image.
    pub image: Image,
    /// Whether it was tested again.
    pub tested: bool,
    /// What has become of each place, publication by publication.
    pub publications: Vec<(Distribution, Vec<Outcome>)>,
}

impl Factory {
    /// Tests an image whose test has failed, and publishes it where it was to be published and is not. A test that fails
    /// again is an error; a place that fails is a result.
    pub async fn retry(&self, image: Image, given: &Given, options: &PublishOptions) -> Result<Retried, Error> {
        let nothing =
            |image: &Image, why: &str| Err(Error::NothingToRetry { image: image.id.clone(), why: why.to_owned() });
        let is_sealed = image.manifest.disk.is_some();
        let (image, tested) = match image.manifest.state {
            State::Failed if !is_sealed => return nothing(&image, ": its build failed before it was sealed"),
            State::Failed => {
                let (image, test) = self.test(image, &[], given).await?;
                if let Some(failure) = super::test::failure(&image, &test) {
                    return Err(failure);
                }
                (image, true)
            }
            state if state.is_usable() && is_sealed => (image, false),
            state => return Err(Error::State { image: image.id, state, wanted: "retried" }),
        };
        let due = due(&image)?;
        if due.is_empty() && !tested {
            return nothing(&image, "");
        }
        let mut reservation = Reservation::of(&self.store, image)?;
        let mut publications = Vec::new();
        for distribution in due {
            let image = &mut reservation.image;
            let resume = self.is_publication_open(image, &distribution)?;
            let outcomes = self.publish(image, &distribution, &PublishOptions { resume, ..options.clone() }).await?;
            publications.push((distribution, outcomes));
        }
        Ok(Retried { image: reservation.image.clone(), tested, publications })
    }
}

/// Keeps the configuration that a build is to end with.
pub(super) fn keep_distribution(image: &Image, source: &Source) -> Result<(), Error> {
    let folder = image.folder().join(DOCUMENTS);
    note_place(&folder, source)?;
    Ok(file::write(folder.join(DISTRIBUTION), source.text.as_bytes())?)
}

/// Notes where a document was.
pub(super) fn note_place(folder: &Path, source: &Source) -> Result<(), Error> {
    let place = fs::canonicalize(&source.name).unwrap_or_else(|_| source.name.clone().into());
    Ok(file::write(folder.join(PLACE), place.to_string_lossy().as_bytes())?)
}

/// Whether a publication of an image was begun and is not whole: what it has made so far only its journal knows.
pub(super) fn has_open_publication(image: &Image) -> Result<bool, Error> {
    for folder in journal_folders(image)? {
        match Journal::open(&folder) {
            Ok(journal) if journal.as_ref().is_none_or(Journal::has_ended) => {}
            Ok(_) => return Ok(true),
            // What it holds nobody can say.
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

fn journal_folders(image: &Image) -> Result<Vec<std::path::PathBuf>, Error> {
    let mut folders: Vec<_> = match fs::read_dir(image.folder().join(FOLDER)) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    folders.sort();
    Ok(folders)
}

/// Publications that are not whole, each once.
fn due(image: &Image) -> Result<Vec<Distribution>, Error> {
    let mut due: Vec<Distribution> = Vec::new();
    let mut whole = Vec::new();
    for folder in journal_folders(image)? {
        let Some(journal) = Journal::open(&folder)? else { continue };
        if journal.has_ended() {
            whole.extend(folder.file_name().map(|name| name.to_string_lossy().into_owned()));
        } else {
            due.push(kept(&folder, publish::DOCUMENT)?);
        }
    }
    let documents = image.folder().join(DOCUMENTS);
    if documents.join(DISTRIBUTION).exists() {
        let distribution = kept(&documents, DISTRIBUTION)?;
        let is_known = due.iter().any(|known| known.name.value == distribution.name.value);
        if !is_known && !whole.contains(&distribution.name.value) {
            due.push(distribution);
        }
    }
    Ok(due)
}

/// A kept document, as if it stood where it was.
fn kept(folder: &Path, name: &str) -> Result<Distribution, Error> {
    let text = fs::read_to_string(folder.join(name)).map_err(Error::Unreadable)?;
    let place = fs::read_to_string(folder.join(PLACE)).unwrap_or_else(|_| folder.join(name).display().to_string());
    let source: Arc<Source> = Source::new(place, text);
    Ok(distribution::decode(&source).map_err(Box::new)?.0)
}
