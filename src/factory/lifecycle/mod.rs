//! Lifecycle policies: images that grow old are deprecated, disabled and deleted, and what was made of them with them.
//!
//! ```text
//!   images, channels, locks, layers ──┐ facts.rs
//!   AMIs, launch templates ───────────┴──► engine.rs: a decision for each image ──► here: AMIs, snapshots and files first,
//!   policy ──────────────────────────────────┘                                      the image itself last
//! ```
//!
//! An image that is being deleted is DELETED until all that goes with it is gone; then its record goes too. So a run that is
//! cut off, or that AWS refuses, is gone on with by the next.

mod engine;
mod facts;

use std::collections::BTreeSet;
use std::path::Path;

use goldsmith_aws::Aws;
use jiff::Timestamp;
use serde::Serialize;

use super::{Error, Event, Factory};
use crate::document::lifecycle::{self, Action, LifecyclePolicy, Rule};
use crate::document::syntax::Source;
use crate::host::{file, one_line};
use crate::store::Image;
use crate::store::manifest::{Artifact, Manifest, State};

pub use engine::{AmiFacts, Decision, Facts, Tags, decide};

/// A deprecation begins this long after it was asked for, in seconds: EC2 rounds to minutes, and takes no time that is over.
const DEPRECATION_DELAY: i64 = 120;

/// What was done with something.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Done {
    /// What: `ami`, `snapshot`, `file` or `image`.
    pub kind: &'static str,
    /// Which.
    pub id: String,
    /// Why not, if it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What has become of an image.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ended {
    /// What was decided.
    #[serde(flatten)]
    pub decision: Decision,
    /// What was done; nothing in a dry run.
    pub done: Vec<Done>,
}

/// Reads the one lifecycle policy of a file; its warnings are told.
pub fn read_policy(path: &Path, tell: impl Fn(&str)) -> Result<LifecyclePolicy, Error> {
    let source = Source::read(path).map_err(Error::Unreadable)?;
    let (policy, warnings) = lifecycle::decode_file(&source).map_err(Box::new)?;
    super::tell_warnings(&warnings, tell);
    Ok(policy)
}

impl Factory {
    /// Does what a policy asks for; in a dry run it only says so. One run at a time.
    pub async fn run_lifecycle(&self, policy: &LifecyclePolicy, dry_run: bool) -> Result<Vec<Ended>, Error> {
        let path = self.store.root().join("lifecycle.lock");
        let alone = tokio::task::spawn_blocking(move || crate::store::Lock::wait(&path));
        let _alone = self.unless_cancelled(alone).await?.map_err(std::io::Error::other)??;
        let aws = match policy.rules.iter().any(|rule| rule.include.amis) {
            true => Some(Aws::connect(self.endpoints.clone()).await),
            false => None,
        };
        let images = self.store.images()?;
        let facts = self.unless_cancelled(self.facts(policy, &images, aws.as_ref())).await??;
        let mut ended = Vec::new();
        for decision in decide(policy, &facts, Timestamp::now()) {
            // Between two images: what was begun of one is done.
            if self.cancel.is_cancelled() {
                return Err(Error::Interrupted);
            }
            let mut done = Vec::new();
            if let Some(action) = decision.action.filter(|_| !dry_run) {
                let rule = policy.rules.iter().find(|rule| rule.action == action);
                let image = images.iter().find(|image| image.id == decision.image);
                let known = facts.iter().find(|facts| facts.id == decision.image);
                if let (Some(rule), Some(image), Some(known)) = (rule, image, known) {
                    done = self.end_one(&decision, rule, image.clone(), known, aws.as_ref()).await;
                }
            }
            for problem in
                done.iter().filter_map(|done| Some(format!("{} {}: {}", done.kind, done.id, done.error.as_ref()?)))
            {
                self.tell(Event::Warning(problem));
            }
            ended.push(Ended { decision, done });
        }
        Ok(ended)
    }

    async fn unless_cancelled<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        tokio::select! {
            result = work => Ok(result),
            () = self.cancel.cancelled() => Err(Error::Interrupted),
        }
    }

    /// Does what was decided. What goes wrong is noted, and stops what depends on it.
    async fn end_one(
        &self,
        decision: &Decision,
        rule: &Rule,
        image: Image,
        facts: &Facts,
        aws: Option<&Aws>,
    ) -> Vec<Done> {
        let mut done = Vec::new();
        let result = self.try_to_end(decision, rule, image, facts, aws, &mut done).await;
        let error = result.err().map(|error| one_line(&error));
        done.push(Done { kind: "image", id: decision.image.to_string(), error });
        done
    }

    async fn try_to_end(
        &self,
        decision: &Decision,
        rule: &Rule,
        image: Image,
        facts: &Facts,
        aws: Option<&Aws>,
        done: &mut Vec<Done>,
    ) -> Result<(), Error> {
        let reason = format!("by a lifecycle policy: {}", decision.reason);
        let mut image = image;
        if rule.action == Action::Delete {
            // First here: what nobody may use any more is not used while the rest goes.
            image = self.begin_deletion(image, reason.clone())?;
        }
        let skipped: BTreeSet<&String> = decision.skipped_amis.iter().map(|(id, _)| id).collect();
        let mut is_well = true;
        if let Some(aws) = aws.filter(|_| rule.include.amis) {
            for ami in facts.amis.iter().filter(|ami| !skipped.contains(&ami.id)) {
                if rule.action == Action::Delete && rule.include.snapshots {
                    // Once it is gone, nobody else could say which they are.
                    image.update(|manifest| note_snapshots(manifest, ami))?;
                }
                if rule.action == Action::Disable {
                    // Once more: while they were asked for, a channel may have come to name it.
                    self.store.refuse_named(&image.id)?;
                }
                is_well &= retire(aws, rule, ami, done).await;
            }
        }
        let to = match rule.action {
            Action::Deprecate => State::Deprecated,
            Action::Disable => State::Disabled,
            Action::Delete => State::Deleted,
        };
        if to != State::Deleted {
            // Last here: an image in another state is not looked at again.
            return if is_well { self.set_state(image, to, Some(reason)).map(drop) } else { Ok(()) };
        }
        if rule.include.files {
            is_well &= remove_files(&image, done);
        }
        match is_well && skipped.is_empty() {
            true => Ok(image.remove(&self.store)?),
            // The record says what is still there.
            false => Ok(()),
        }
    }
}

/// Notes the snapshots of an AMI beside it.
fn note_snapshots(manifest: &mut Manifest, ami: &AmiFacts) {
    let is_it = |made: &Artifact| made.kind == "ami" && made.id == ami.id;
    let Some(publication) =
        manifest.publications.iter_mut().find(|known| known.place == ami.region && known.artifacts.iter().any(is_it))
    else {
        return;
    };
    for id in &ami.snapshots {
        if !publication.artifacts.iter().any(|made| made.id == *id) {
            let kind = facts::SNAPSHOT.to_owned();
            let (name, account, sha256, content) = (None, None, None, None);
            publication.artifacts.push(Artifact { kind, id: id.clone(), name, account, sha256, content });
        }
    }
}

/// Does to an AMI what is done to its image. What is gone already is gone. Whether all went well.
async fn retire(aws: &Aws, rule: &Rule, ami: &AmiFacts, done: &mut Vec<Done>) -> bool {
    let region = aws.region(&ami.region);
    let result = match rule.action {
        Action::Deprecate => {
            let at = Timestamp::now().as_second() + DEPRECATION_DELAY;
            region.deprecate_image(&ami.id, at).await
        }
        Action::Disable => region.disable_image(&ami.id).await,
        Action::Delete => region.deregister_image(&ami.id).await,
    };
    let mut is_well = result.is_ok();
    done.push(Done { kind: "ami", id: ami.id.clone(), error: result.err().map(|error| one_line(&error)) });
    // A snapshot can't go before what stands on it.
    if is_well && rule.action == Action::Delete && rule.include.snapshots {
        for snapshot in &ami.snapshots {
            let result = region.delete_snapshot(snapshot).await;
            is_well &= result.is_ok();
            done.push(Done {
                kind: "snapshot",
                id: snapshot.clone(),
                error: result.err().map(|error| one_line(&error)),
            });
        }
    }
    is_well
}

/// Removes the files that were exported, but for those that are others now. Whether all went well.
fn remove_files(image: &Image, done: &mut Vec<Done>) -> bool {
    let mut is_well = true;
    for export in image.manifest.exports.iter().filter(|export| export.path.is_file()) {
        let result = match file::sha256(&export.path) {
            Ok(sha256) if sha256 == export.sha256 => {
                file::remove_if_there(&export.path).map_err(|error| error.to_string())
            }
            Ok(_) => continue,
            Err(error) => Err(error.to_string()),
        };
        is_well &= result.is_ok();
        done.push(Done { kind: "file", id: export.path.display().to_string(), error: result.err() });
    }
    is_well
}

#[cfg(test)]
mod tests;
