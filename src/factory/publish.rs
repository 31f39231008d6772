//! An image on its way to where it is used: checked first, then published, and what was made is noted in its manifest.
//!
//! The image stays AVAILABLE meanwhile and whatever happens: what a publication has done and not done is in its journal, in
//! the image's folder, and `--resume` and `--undo` go on from there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::FutureExt;
use goldsmith_aws::Aws;
use jiff::Timestamp;

use super::check::CheckOptions;
use super::export::{ExportWishes, Format, Hardware, hardware};
use super::{Error, Event, Factory};
use crate::check::{BootPaths, Target};
use crate::document::canonical::canonical;
use crate::document::distribution::{self, Distribution};
use crate::document::syntax::{self, Source};
use crate::host::{file, one_line};
use crate::notify::{DistributionFailure, FailureContext, RegionFailure};
use crate::publish::{self, EarlierSnapshot, Header, Journal, Memory, Outcome, Plan, Publication, Subject, Undone};
use crate::store::manifest::State;
use crate::store::{Image, manifest};

/// The folder in an image that holds the journals of its publications, a folder each.
pub(super) const FOLDER: &str = "publish";

/// What the user says of a publication.
#[derive(Debug, Clone, Default)]
pub struct PublishOptions {
    /// Go on with one that was cut off or has failed.
    pub resume: bool,
    /// What must not be on the disk.
    pub check: CheckOptions,
}

/// Reads a distribution configuration; its warnings are told.
pub fn read_distribution(path: &Path, tell: impl Fn(&str)) -> Result<Distribution, Error> {
    let source = Source::read(path).map_err(Error::Unreadable)?;
    let (distribution, warnings) = distribution::decode(&source).map_err(Box::new)?;
    super::tell_warnings(&warnings, tell);
    Ok(distribution)
}

impl Factory {
    /// Publishes an image that nobody else is at work on. What has become of each place comes back, also where some failed.
    pub async fn publish(
        &self,
        image: &mut Image,
        distribution: &Distribution,
        options: &PublishOptions,
    ) -> Result<Vec<Outcome>, Error> {
        self.may_be_used(image, "published")?;
        self.verify_disk(image).await?;
        let journal = match self.journal(image, distribution, options.resume)? {
            // It may have failed its test since it was begun.
            Some(_) if !image.manifest.state.is_usable() => {
                let (image, state) = (image.id.clone(), image.manifest.state);
                return Err(Error::State { image, state, wanted: "published" });
            }
            Some(journal) => journal,
            None => {
                let boot = self.ready(image, distribution, &options.check).await?;
                let (document, disk) = (digest(distribution)?, disk_digest(image));
                let header = Header::new(document, disk, boot, Timestamp::now());
                // What does not fit is found before anything is noted.
                publish::plan(distribution, &subject(image, &header), &header).map_err(Box::new)?;
                Journal::begin(&journal_folder(image, distribution), header, &distribution.source.text)?
            }
        };
        if journal.has_ended() {
            self.tell(Event::Note(format!("{} was published so already", image.id)));
        }
        let subject = subject(image, journal.header());
        let plan = publish::plan(distribution, &subject, journal.header()).map_err(Box::new)?;
        let (is_news, before) = (!journal.has_ended(), image.manifest.state);
        if is_news {
            super::retry::note_place(&journal_folder(image, distribution), &distribution.source)?;
            self.tell_change(image, before, State::Distributing, None, None);
        }
        let mut stages = Vec::new();
        let work = self.carry_out(image, &plan, &subject, &journal);
        let published = self.stage(&mut stages, "publish", work).await.and_then(|outcomes| {
            record(image, &plan, &journal, &outcomes)?;
            Ok(outcomes)
        });
        let outcomes = published.inspect_err(|error| {
            if is_news {
                self.tell_unpublished(image, error);
            }
        })?;
        if is_news {
            self.tell_published(image, before, &outcomes);
        }
        Ok(outcomes)
    }

    /// Tells others that a publication ended before it could be said what has become of each place.
    fn tell_unpublished(&self, image: &Image, error: &Error) {
        if matches!(error, Error::Interrupted) {
            return self.tell_change(image, State::Distributing, State::Cancelled, Some(one_line(error)), None);
        }
        self.tell_not_published(image, one_line(error), Vec::new());
    }

    /// Tells others how a publication ended. Here the image stays as it was; to them, one that did not arrive has failed.
    fn tell_published(&self, image: &Image, before: State, outcomes: &[Outcome]) {
        let failed = outcomes.iter().filter_map(|outcome| {
            let (region, status) = (outcome.place.clone(), "FAILED".to_owned());
            Some(RegionFailure { region, status, error_message: one_line(outcome.error.as_ref()?) })
        });
        let region_failures: Vec<RegionFailure> = failed.collect();
        if region_failures.is_empty() {
            return self.tell_change(image, State::Distributing, before, None, None);
        }
        let reason = format!("{} of {} places were not published to", region_failures.len(), outcomes.len());
        self.tell_not_published(image, reason, region_failures);
    }

    fn tell_not_published(&self, image: &Image, reason: String, region_failures: Vec<RegionFailure>) {
        let context = FailureContext {
            image_status: State::Distributing.to_string(),
            failed_step: Some("publish".to_owned()),
            component_failure: None,
            distribution_failure: Some(DistributionFailure { error_message: reason.clone(), region_failures }),
        };
        self.tell_change(image, State::Distributing, State::Failed, Some(reason), Some(context));
    }

    /// What a publication would do, without looking at anything but the documents.
    pub fn plan_publication(&self, image: &Image, distribution: &Distribution) -> Result<Plan, Error> {
        let known = Journal::open(&journal_folder(image, distribution))?;
        let header = match known {
            Some(journal) => journal.header().clone(),
            // Whatever firmware is asked for: that is found out when it is published.
            None => {
                let boot = BootPaths { bios: true, uefi: true, ena: true };
                Header::new(digest(distribution)?, disk_digest(image), boot, Timestamp::now())
            }
        };
        Ok(publish::plan(distribution, &subject(image, &header), &header).map_err(Box::new)?)
    }

    /// Takes back what a publication has made; one that ended well only if that is meant.
    pub async fn undo_publication(
        &self,
        image: &mut Image,
        distribution: &Distribution,
        even_whole: bool,
    ) -> Result<Vec<Undone>, Error> {
        let folder = journal_folder(image, distribution);
        let Some(journal) = Journal::open(&folder)? else {
            return Err(publication_error(image, distribution, "there is nothing to take back", None));
        };
        if journal.has_ended() && !even_whole {
            let hint = "`--undo --force` takes back one that went well";
            return Err(publication_error(image, distribution, "it went well", Some(hint)));
        }
        // By what it was published by, whatever stands there now.
        let source = Source::read(&journal.path(publish::DOCUMENT)).map_err(Error::Unreadable)?;
        let (published, _) = distribution::decode(&source).map_err(Box::new)?;
        let subject = subject(image, journal.header());
        let plan = publish::plan(&published, &subject, journal.header()).map_err(Box::new)?;
        let mut stages = Vec::new();
        let work = async {
            let run = self.store.begin_run("publish")?;
            let prepared = self.prepare(image).await?;
            let exporter = |_, _| async { Err("nothing is exported now".to_owned()) }.boxed();
            let publication = prepared.publication(image, &plan, &subject, &journal, &exporter, run.folder());
            Ok::<_, Error>(publish::undo(&publication).await)
        };
        let undone = self.stage(&mut stages, "undo", work).await?;
        if undone.iter().all(|undone| undone.error.is_none()) {
            fs_err::remove_dir_all(&folder)?;
            let (time, name) = (journal.header().time, &plan.distribution);
            // What an earlier document of that name has made is still there.
            let is_undone = |known: &manifest::Publication| known.distribution == *name && known.time == time;
            image.update(|manifest| manifest.publications.retain(|known| !is_undone(known)))?;
        }
        Ok(undone)
    }

    /// Whether a publication was begun and is not whole.
    pub fn is_publication_open(&self, image: &Image, distribution: &Distribution) -> Result<bool, Error> {
        Ok(Journal::open(&journal_folder(image, distribution))?.is_some_and(|journal| !journal.has_ended()))
    }

    /// The journal to go on with; none if there is none to.
    fn journal(&self, image: &Image, distribution: &Distribution, resume: bool) -> Result<Option<Journal>, Error> {
        let Some(journal) = Journal::open(&journal_folder(image, distribution))? else {
            if resume {
                return Err(publication_error(image, distribution, "there is nothing to go on with", None));
            }
            return Ok(None);
        };
        let header = journal.header();
        let is_same = header.document == digest(distribution)? && header.disk == disk_digest(image);
        match (is_same, journal.has_ended()) {
            (true, true) => Ok(Some(journal)),
            (false, true) => Ok(None),
            (true, false) if resume => Ok(Some(journal)),
            (true, false) => {
                let hint = "`--resume` goes on with it, `--undo` takes back what it has made";
                Err(publication_error(image, distribution, "one was begun and is not whole", Some(hint)))
            }
            (false, false) => {
                let hint = "`--undo` takes back what it has made by the document as it was";
                let why = "one was begun and is not whole, and the document has changed since";
                Err(publication_error(image, distribution, why, Some(hint)))
            }
        }
    }

    /// Whether the image may leave the house, and how it starts.
    async fn ready(
        &self,
        image: &Image,
        distribution: &Distribution,
        options: &CheckOptions,
    ) -> Result<BootPaths, Error> {
        let is_for_aws = distribution.targets.iter().any(|target| matches!(target, distribution::Target::Region(_)));
        let target = is_for_aws.then_some(Target::Aws);
        let options = CheckOptions { no_boot: options.no_boot || !is_for_aws, ..options.clone() };
        if let Some(boot) = self.has_passed(image, target, &options)? {
            self.tell(Event::Note(format!("{} was checked already", image.id)));
            return Ok(boot);
        }
        let report = self.check(image, target, &options).await?;
        match report.refusal() {
            Some(why) => Err(Error::Unready { image: image.id.clone(), target, why }),
            None => Ok(report.boot),
        }
    }

    async fn carry_out(
        &self,
        image: &mut Image,
        plan: &Plan,
        subject: &Subject,
        journal: &Journal,
    ) -> Result<Vec<Outcome>, Error> {
        let run = self.store.begin_run("publish")?;
        let prepared = self.prepare(image).await?;
        let of_plan = image.clone();
        // Places write their files one after another, each all of its formats in one pass.
        let shared = Arc::new(tokio::sync::Mutex::new(image));
        let exporter = |formats: Vec<Format>, folder: PathBuf| {
            let shared = shared.clone();
            async move {
                let mut image = shared.lock().await;
                let wishes = ExportWishes::new(formats.clone(), Vec::new(), folder);
                let written = async {
                    let exports = self.write_exports(&image, &wishes).await?;
                    self.name_exports(&mut image, &wishes, exports)
                };
                written.await.map_err(|error: Error| one_line(&error))?;
                let is_new = |export: &&manifest::Export| {
                    formats.iter().any(|format| format.name() == export.format) && wishes.is_for(&export.path)
                };
                Ok(image.manifest.exports.iter().filter(is_new).cloned().collect())
            }
            .boxed()
        };
        let publication = prepared.publication(&of_plan, plan, subject, journal, &exporter, run.folder());
        Ok(publish::publish(&publication).await?)
    }

    /// Gets what every publication of an image needs.
    async fn prepare(&self, image: &Image) -> Result<Prepared, Error> {
        let listener = self.listener.clone();
        Ok(Prepared {
            aws: Aws::connect(self.endpoints.clone()).await,
            hardware: hardware(image.id.file_stem(), image.manifest.machine.as_ref()),
            disk: image.disk(),
            earlier: self.earlier_snapshots(image)?,
            listener: Box::new(move |event| listener(Event::Publish(event))),
        })
    }

    /// Finished snapshots of other images of the same name, the newest image's first, with their regions.
    fn earlier_snapshots(&self, image: &Image) -> Result<Vec<(String, EarlierSnapshot)>, Error> {
        let mut earlier = Vec::new();
        for other in self.store.images_of(&image.id.name)?.into_iter().rev().filter(|other| other.id != image.id) {
            earlier.extend(publish::finished_snapshots(&other.folder().join(FOLDER))?);
        }
        Ok(earlier)
    }
}

/// What every publication of an image needs.
struct Prepared {
    aws: Aws,
    hardware: Hardware,
    disk: PathBuf,
    earlier: Vec<(String, EarlierSnapshot)>,
    listener: Box<dyn Fn(publish::Event) + Send + Sync>,
}

impl Prepared {
    fn publication<'a>(
        &'a self,
        image: &'a Image,
        plan: &'a Plan,
        subject: &'a Subject,
        journal: &'a Journal,
        exporter: publish::Exporter<'a>,
        scratch: &'a Path,
    ) -> Publication<'a> {
        Publication {
            plan,
            subject,
            manifest: &image.manifest,
            disk: &self.disk,
            hardware: &self.hardware,
            journal,
            aws: self.aws.clone(),
            earlier: &self.earlier,
            exporter,
            scratch,
            memory: Memory::default(),
            listener: &*self.listener,
        }
    }
}

fn journal_folder(image: &Image, distribution: &Distribution) -> PathBuf {
    image.folder().join(FOLDER).join(&distribution.name.value)
}

/// SHA-256 of what a document says, whatever it looks like.
fn digest(distribution: &Distribution) -> Result<String, Error> {
    let root = syntax::parse(&distribution.source).map_err(Box::new)?;
    Ok(file::sha256_of(canonical(&root).to_string().as_bytes()))
}

fn disk_digest(image: &Image) -> String {
    image.manifest.disk.as_ref().map(|disk| disk.sha256.clone()).unwrap_or_default()
}

fn subject(image: &Image, header: &Header) -> Subject {
    let manifest = &image.manifest;
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let tags = manifest.source.iter().flat_map(|source| &source.tags);
    Subject {
        id: image.id.clone(),
        disk: header.disk.clone(),
        size: manifest.disk.as_ref().map_or(0, |disk| disk.virtual_size),
        boot: header.boot,
        tested_by_uefi: manifest.machine.as_ref().is_some_and(|machine| machine.firmware == "uefi"),
        tags: tags.map(|(key, value)| (key.clone(), text(value))).collect(),
    }
}

fn publication_error(image: &Image, distribution: &Distribution, why: &str, hint: Option<&str>) -> Error {
    Error::Publication {
        image: image.id.clone(),
        distribution: distribution.name.value.clone(),
        why: why.to_owned(),
        hint: hint.map(str::to_owned),
    }
}

/// Notes in the manifest what there is now.
fn record(image: &mut Image, plan: &Plan, journal: &Journal, outcomes: &[Outcome]) -> Result<(), Error> {
    let header = journal.header();
    let publication = |outcome: &Outcome| manifest::Publication {
        distribution: plan.distribution.clone(),
        place: outcome.place.clone(),
        time: header.time,
        disk: header.disk.clone(),
        artifacts: outcome.artifacts.clone(),
    };
    let made = outcomes.iter().filter(|outcome| !outcome.artifacts.is_empty()).map(publication);
    let made: Vec<manifest::Publication> = made.collect();
    let is_known = |known: &manifest::Publication| {
        made.iter()
            .any(|new| new.distribution == known.distribution && new.place == known.place && new.time == known.time)
    };
    Ok(image.update(|manifest| {
        manifest.publications.retain(|known| !is_known(known));
        manifest.publications.extend(made.iter().cloned());
    })?)
}
