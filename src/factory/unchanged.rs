//! A build that would make an image again that is there already.

use std::time::Instant;

use super::build::{Built, Options};
use super::key::{BUILD_PHASES, build_part, max_age};
use super::plan::Plan;
use super::provision::Brought;
use super::{Error, Event, Factory};
use crate::document::age::Age;
use crate::document::component::PHASES;
use crate::document::recipe::Reach;
use crate::parent::{self, Parent};
use crate::store::manifest::{Stage, State};
use crate::store::version::{Version, VersionRequest};
use crate::store::{Image, Key, Reservation};

/// Digest of all that decides what an image is: other than a layer's key it covers the tests and what the recipe says of
/// the image, and neither QEMU nor the site, which leave nothing in it.
pub(super) fn inputs(plan: &Plan, parent: &Parent) -> Result<String, Error> {
    let recipe = &plan.recipe;
    let mut parts: Vec<(String, String)> = vec![
        ("parent".to_owned(), parent.sha256.clone()),
        ("disk".to_owned(), format!("{:?}", recipe.disk.as_ref().map(|disk| disk.value))),
        ("machine".to_owned(), format!("{:?}", recipe.machine.or(&parent.machine))),
        ("description".to_owned(), format!("{:?} {:?}", recipe.description, recipe.tags)),
        ("working directory".to_owned(), recipe.working_directory.clone()),
        ("network".to_owned(), recipe.network.open.to_string()),
        ("allowed".to_owned(), format!("{:?}", recipe.allowed_failed_units)),
        ("steps".to_owned(), env!("GOLDSMITH_STEPS_VERSION").to_owned()),
    ];
    if recipe.network.reach != Reach::Full {
        parts.push(("reach".to_owned(), format!("{:?}", recipe.network.reach)));
    }
    for component in &plan.components {
        let document = build_part(&component.program.document.source, &PHASES)?;
        parts.push((format!("component {}", component.name), document.to_string()));
        parts.push(("values".to_owned(), format!("{:?}", component.program.values())));
        parts.push(("references".to_owned(), format!("{:?}", component.references)));
        parts.extend(component.brings.iter().flat_map(Brought::parts));
    }
    for file in &plan.files {
        let content = file.content.as_ref().map(|content| (content.mode, &content.sha256));
        parts.push((format!("file {}", file.destination), format!("{:?} {content:?}", file.owner)));
    }
    Ok(Key::new(parts.iter().map(|(name, value)| (name.as_str(), value.clone()))).digest())
}

impl Factory {
    /// The image that a build would make again, exported as wanted.
    pub(super) async fn unchanged(&self, plan: &Plan, options: &Options) -> Result<Option<Built>, Error> {
        if options.fresh || options.cold || options.anew {
            return Ok(None);
        }
        let started = Instant::now();
        let Some(image) = self.same_image(plan, options.no_test).await? else { return Ok(None) };
        let note = "nothing that it is made from has changed; `--fresh` builds it anew";
        self.tell(Event::Note(format!("{}: {note}", image.id)));
        let seconds = started.elapsed().as_secs_f64();
        let mut stages = vec![Stage { name: "unchanged".to_owned(), seconds, cached: true }];
        if options.exports.is_empty() {
            return Ok(Some(Built { image, stages }));
        }
        let mut reservation = Reservation::of(&self.store, image)?;
        let exporting = Instant::now();
        self.export(&mut reservation.image, &options.exports, false).await?;
        let seconds = exporting.elapsed().as_secs_f64();
        stages.push(Stage { name: "export".to_owned(), seconds, cached: false });
        Ok(Some(Built { image: reservation.image.clone(), stages }))
    }

    /// The newest image that a build would make again. One that was not tested is good enough for a build without test.
    pub(super) async fn same_image(&self, plan: &Plan, no_test: bool) -> Result<Option<Image>, Error> {
        let recipe = &plan.recipe;
        // What a secret says may have changed, and is not asked.
        if plan.components.iter().any(|component| !component.secrets.is_empty()) {
            return Ok(None);
        }
        let checksum = plan.parent_checksum();
        let Some(parent) = parent::known(&plan.parent, checksum, &plan.folder, &self.store).await? else {
            return Ok(None);
        };
        let wanted = inputs(plan, &parent)?;
        let is_same = |image: &Image| {
            let manifest = &image.manifest;
            image.id.name == recipe.name
                && fits(recipe.version, image.id.version)
                && manifest.state == State::Available
                && (manifest.tested || no_test)
                && manifest.inputs.as_ref() == Some(&wanted)
                && is_whole(image)
                && is_young(image, plan)
        };
        Ok(self.store.images()?.into_iter().rfind(is_same))
    }
}

fn fits(request: VersionRequest, version: Version) -> bool {
    match request {
        VersionRequest::Exactly(wanted) => version == wanted,
        VersionRequest::NextFree(pattern) => pattern.matches(version),
    }
}

/// That the disk is there with its size; `image verify` reads it.
fn is_whole(image: &Image) -> bool {
    let bytes = image.manifest.disk.as_ref().map(|disk| disk.bytes);
    bytes.is_some() && fs_err::metadata(image.disk()).ok().map(|metadata| metadata.len()) == bytes
}

/// Whether no component ran longer ago than its layer may be old.
fn is_young(image: &Image, plan: &Plan) -> bool {
    let now = jiff::Timestamp::now();
    let mut due =
        plan.components.iter().filter(|component| component.has_work_in(&BUILD_PHASES)).zip(&image.manifest.components);
    due.all(|(component, built)| Age::since(built.ran, now) <= max_age(component, &plan.recipe))
}
