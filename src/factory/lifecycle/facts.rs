//! What has to be known of images before a policy decides about them.

use std::collections::{BTreeMap, BTreeSet};

use goldsmith_aws::Aws;

use super::super::{Error, Factory};
use super::engine::{AmiFacts, Facts, means};
use crate::disk::probe;
use crate::document::lifecycle::LifecyclePolicy;
use crate::host::one_line;
use crate::store::Image;
use crate::store::manifest::{Artifact, Publication, State};

impl Factory {
    /// Facts of all images. AWS, if it is given, is asked only about AMIs of images that the policy is about.
    pub(super) async fn facts(
        &self,
        policy: &LifecyclePolicy,
        images: &[Image],
        aws: Option<&Aws>,
    ) -> Result<Vec<Facts>, Error> {
        let mut uses = self.uses(images)?;
        let mut facts = Vec::new();
        for image in images {
            let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let tags = image.manifest.source.iter().flat_map(|source| &source.tags);
            let mut known = Facts {
                id: image.id.clone(),
                state: image.manifest.state,
                created: image.manifest.created,
                tags: tags.map(|(key, value)| (key.clone(), text(value))).collect(),
                uses: uses.remove(&image.id.to_string()).unwrap_or_default(),
                amis: Vec::new(),
            };
            if let Some(aws) = aws.filter(|_| means(&policy.selection, &known)) {
                for (publication, ami) in amis(image) {
                    self.look_at(publication, ami, &mut known, aws).await;
                }
            }
            facts.push(known);
        }
        Ok(facts)
    }

    /// What is known of an AMI. One of which nothing can be found out is taken to be used.
    async fn look_at(&self, publication: &Publication, ami: &Artifact, known: &mut Facts, aws: &Aws) {
        if let Some(account) = &ami.account {
            known.uses.push(format!("its AMI {} is the account {account}'s", ami.id));
            return;
        }
        let region = aws.region(&publication.place);
        let asked = async {
            let Some(found) = region.image_use(&ami.id).await? else { return Ok(None) };
            Ok::<_, goldsmith_aws::Error>(Some((found, region.templates_with_image(&ami.id).await?)))
        };
        let (found, templates) = match asked.await {
            Ok(Some(found)) => found,
            Ok(None) => {
                // It is gone, and what was to go with it perhaps is not.
                let snapshots =
                    publication.artifacts.iter().filter(|made| made.kind == SNAPSHOT && made.account.is_none());
                let snapshots: Vec<String> = snapshots.map(|made| made.id.clone()).collect();
                if known.state == State::Deleted && !snapshots.is_empty() {
                    let (id, region) = (ami.id.clone(), publication.place.clone());
                    known.amis.push(AmiFacts { id, region, snapshots, ..AmiFacts::default() });
                }
                return;
            }
            Err(error) => {
                known.uses.push(format!("nothing can be found out of its AMI {}: {}", ami.id, one_line(&error)));
                return;
            }
        };
        known.uses.extend(templates.iter().map(|template| format!("the launch template {template} ({})", region.name)));
        known.amis.push(AmiFacts {
            id: ami.id.clone(),
            region: publication.place.clone(),
            is_public: found.is_public,
            shared_accounts: found.accounts.into_iter().collect(),
            last_launched: found.last_launched.and_then(|time| time.parse().ok()),
            tags: found.tags.into_iter().collect(),
            snapshots: found.snapshots,
        });
    }

    /// What uses each image here, by its id.
    fn uses(&self, images: &[Image]) -> Result<BTreeMap<String, Vec<String>>, Error> {
        let mut uses: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for channel in self.store.channels()? {
            if let Some(image) = channel.current() {
                uses.entry(image.to_string()).or_default().push(format!("the channel {}", channel.id));
            }
        }
        let mut below = BTreeSet::new();
        for disk in self.store.layer_disks()? {
            // What can't be read is no layer that anything is built on.
            below.extend(probe::overlay_parent(&disk).ok().flatten());
        }
        for image in images {
            let id = image.id.to_string();
            if image.is_locked()? {
                uses.entry(id.clone()).or_default().push("a running machine or command".to_owned());
            }
            if super::super::retry::has_open_publication(image)? {
                let why = "a publication that is not whole, until `publish --resume` or `--undo` ends it";
                uses.entry(id.clone()).or_default().push(why.to_owned());
            }
            if below.contains(&image.disk()) {
                uses.entry(id).or_default().push("a layer, until `goldsmith gc --all` gives it back".to_owned());
            }
        }
        Ok(uses)
    }
}

/// What a snapshot is called among what a publication has made.
pub(super) const SNAPSHOT: &str = "snapshot";

/// AMIs that were made of an image, each once.
fn amis(image: &Image) -> Vec<(&Publication, &Artifact)> {
    let mut seen = BTreeSet::new();
    let all = image.manifest.publications.iter().flat_map(|publication| {
        publication.artifacts.iter().filter(|made| made.kind == "ami").map(move |made| (publication, made))
    });
    all.filter(|(_, ami)| seen.insert(ami.id.clone())).collect()
}
