//! Taking back what a publication has made, the newest first.
//!
//! What was begun and whose answer was lost is begun again with the same token: AWS then says what there is, and that goes.

use goldsmith_aws::{ParameterType, Region, Upload};

use super::journal::{Entry, Made, Object, StepName};
use super::plan::{Image, Step};
use super::{Error, Event, Publication};
use crate::host::file;

/// How far this host's clock and AWS's may be apart, in seconds.
const CLOCKS: i64 = 15 * 60;

/// What has become of one thing.
#[derive(Debug)]
pub struct Undone {
    /// What it was.
    pub step: StepName,
    /// Why it is still there.
    pub error: Option<Error>,
}

/// Takes back all that is in the journal. What can't be taken back stays in it.
pub async fn undo(publication: &Publication<'_>) -> Vec<Undone> {
    let mut undone = Vec::new();
    for (name, entry) in publication.journal.entries().into_iter().rev() {
        publication.tell(Event::Step { place: name.place.clone(), what: format!("taking back {}", name.step) });
        let result = publication.take_back(&name, entry).await;
        let error = match result {
            Ok(()) => publication.journal.note_undone(&name).err().map(Error::Io),
            Err(error) => Some(error),
        };
        undone.push(Undone { step: name, error });
    }
    undone
}

impl Publication<'_> {
    async fn take_back(&self, name: &StepName, entry: Entry) -> Result<(), Error> {
        let made = match entry.made {
            Some(made) => made,
            None if entry.is_done => return Ok(()),
            None => match self.begun(name, &entry.token).await? {
                Some(made) => made,
                None => return Ok(()),
            },
        };
        match made {
            Made::Files { files } => {
                return Ok(files.iter().try_for_each(|(path, _)| file::remove_if_there(path))?);
            }
            Made::PointerFile { path, previous } => {
                if !self.is_own_pointer(name, fs_err::read_to_string(&path).ok().as_deref()) {
                    return Ok(());
                }
                return match previous {
                    Some(previous) => Ok(file::write(&path, previous.as_bytes())?),
                    None => Ok(file::remove_if_there(&path)?),
                };
            }
            Made::PointerObject { object, previous } => {
                let region = self.at(&object.region, object.endpoint.clone()).await;
                let Object { bucket, key, .. } = &object;
                let now = region.object(bucket, key).await?;
                if !self.is_own_pointer(name, now.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok())) {
                    return Ok(());
                }
                return match previous {
                    Some(text) => Ok(region.put_object(bucket, key, "application/json", text.into()).await?),
                    None => Ok(region.delete_object(bucket, key).await?),
                };
            }
            Made::Upload { object, id } => {
                let region = self.at(&object.region, object.endpoint.clone()).await;
                let upload = Upload { bucket: &object.bucket, key: &object.key, id: &id };
                return Ok(region.abort_upload(upload).await?);
            }
            Made::Object { object, .. } => {
                let region = self.at(&object.region, object.endpoint.clone()).await;
                return Ok(region.delete_object(&object.bucket, &object.key).await?);
            }
            _ => {}
        }
        let region = match &name.account {
            Some(account) => self.as_account(&name.place, account).await,
            None => self.aws.region(&name.place),
        };
        self.remove(&region, made, name).await
    }

    /// Whether a pointer still says what this publication has written, and not what a newer one has.
    fn is_own_pointer(&self, name: &StepName, now: Option<&str>) -> bool {
        let said: Option<serde_json::Value> = now.and_then(|text| serde_json::from_str(text).ok());
        let (image, time) = (self.subject.id.to_string(), self.journal.header().time.to_string());
        let is_own = said.is_some_and(|said| said["image"] == image && said["published"] == time);
        if !is_own {
            self.moved_on(name, "the pointer");
        }
        is_own
    }

    fn moved_on(&self, name: &StepName, what: &str) {
        let text = format!("{what} says something else by now, and stays as it is");
        self.tell(Event::Note { place: name.place.clone(), text });
    }

    /// What AWS has made for a request whose answer was lost.
    async fn begun(&self, name: &StepName, token: &str) -> Result<Option<Made>, Error> {
        let place = self.plan.places.iter().find(|place| place.name == name.place);
        let step = place.and_then(|place| place.steps.iter().find(|step| step.name(&place.name) == *name));
        let region = self.aws.region(&name.place);
        match step {
            Some(Step::Snapshot { gib, image }) => {
                let (id, parent) = super::snapshot::start(self, &region, token, *gib, image).await?;
                Ok(Some(Made::Snapshot { id, content: None, parent }))
            }
            Some(Step::Register(registration)) => {
                let known = region.image_named(&registration.image.name).await?;
                let known = known.filter(|known| self.is_own_snapshot(&name.place, &known.snapshots));
                let snapshots = Vec::new();
                Ok(known.map(|known| Made::Image { id: known.id, name: registration.image.name.clone(), snapshots }))
            }
            Some(Step::CopyFromRegion { image, .. } | Step::CopyToAccount { image, .. }) => {
                let region = match &name.account {
                    Some(account) => self.as_account(&name.place, account).await,
                    None => region,
                };
                let Some(known) = region.image_named(&image.name).await? else { return Ok(None) };
                if !self.is_own_copy(&known, image) {
                    // The copy was refused for it, or never asked for.
                    let text = format!(
                        "{}, which has the name `{}`, is not of this publication and stays",
                        known.id, image.name
                    );
                    self.tell(Event::Note { place: name.place.clone(), text });
                    return Ok(None);
                }
                Ok(Some(Made::Image { id: known.id, name: image.name.clone(), snapshots: known.snapshots }))
            }
            // An import that was begun twice is one, and what it was of may be gone: AWS gives it up by itself.
            _ => Ok(None),
        }
    }

    /// Whether an image is the copy that this publication has asked for, going by what its request says: no other has the
    /// same labels and was made since.
    fn is_own_copy(&self, known: &goldsmith_aws::ImageState, image: &Image) -> bool {
        let created = known.created.as_deref().and_then(|time| time.parse::<jiff::Timestamp>().ok());
        // Whose clock is whose is not known.
        let since = self.journal.header().time.as_second() - CLOCKS;
        let is_since = created.is_some_and(|created| created.as_second() >= since);
        is_since && !image.tags.is_empty() && image.tags.iter().all(|tag| known.tags.contains(tag))
    }

    fn is_own_snapshot(&self, place: &str, snapshots: &[String]) -> bool {
        let entries = self.journal.entries().into_iter().filter(|(name, _)| name.place == place);
        let mut own = entries.filter_map(|(_, entry)| match entry.made {
            Some(Made::Snapshot { id, .. }) => Some(id),
            _ => None,
        });
        own.any(|own| snapshots.contains(&own))
    }
}

impl Publication<'_> {
    /// Removes something of AWS's.
    async fn remove(&self, region: &Region, made: Made, step: &StepName) -> Result<(), Error> {
        match made {
            Made::Snapshot { id, .. } => region.delete_snapshot(&id).await?,
            Made::Task { id } => {
                use goldsmith_aws::ImportState;
                match region.import_state(&id).await? {
                    ImportState::Completed { snapshot } => region.delete_snapshot(&snapshot).await?,
                    ImportState::Active { .. } => region.cancel_import(&id).await?,
                    ImportState::Failed(_) => {}
                }
            }
            Made::Image { id, snapshots, .. } => {
                // What was cut off while its copy was under way has not noted the copy's snapshot.
                let known = region.image(&id).await?.map(|image| image.snapshots).unwrap_or_default();
                let snapshots = if snapshots.is_empty() { known } else { snapshots };
                region.deregister_image(&id).await?;
                for snapshot in snapshots {
                    region.delete_snapshot(&snapshot).await?;
                }
            }
            Made::TemplateVersion { template, version, previous } => {
                if region.default_template_version(&template).await? == version {
                    region.set_default_template_version(&template, previous).await?;
                }
                region.delete_template_version(&template, version).await?;
            }
            Made::Parameter { name, previous, is_image, value } => match previous {
                _ if !is_still(region, &name, value.as_deref()).await? => {
                    self.moved_on(step, &format!("the parameter {name}"))
                }
                Some(value) => {
                    let kind = if is_image { ParameterType::Image } else { ParameterType::Text };
                    region.put_parameter(&name, &value, kind).await?;
                }
                None => region.delete_parameter(&name).await?,
            },
            Made::Upload { .. }
            | Made::Object { .. }
            | Made::Files { .. }
            | Made::PointerFile { .. }
            | Made::PointerObject { .. } => {}
        }
        Ok(())
    }
}

/// Whether a parameter still has the value that it was set to, as far as that is known.
async fn is_still(region: &Region, name: &str, value: Option<&str>) -> Result<bool, Error> {
    let now = region.parameter(name).await?;
    Ok(now.is_some_and(|now| value.is_none_or(|value| now.value == value)))
}
