//! Whether an image is ready for the clouds: a restored parent looks into its disk, and a cold machine boots it from NVMe.

use std::path::Path;

use fs_err as fs;
use serde::{Deserialize, Serialize};
use tokio_util::task::TaskTracker;

use super::layers::Wanted;
use super::secret;
use super::site::{self, SiteWishes};
use super::source::{DOCUMENTS, kept_recipe};
use super::{Error, Event, Factory};
use crate::check::facts::Facts;
use crate::check::inspector::{self, Secret};
use crate::check::{self, BootPaths, Report, Target};
use crate::component::Secrets;
use crate::document::recipe::{self, Recipe};
use crate::document::secret::SecretSource;
use crate::document::syntax::Source;
use crate::guest::site::Site;
use crate::host::process::quote;
use crate::host::{file, one_line};
use crate::machine::DiskBus;
use crate::parent::{self, Parent, Reference};
use crate::store::manifest::{Manifest, State};
use crate::store::{Image, Run};

/// The folder in an image that holds the evidence of its newest check.
const EVIDENCE: &str = "check";
/// Below it, that of the boot from an NVMe disk.
const NVME: &str = "check/nvme";
const INSPECTOR_LOG: &str = "inspector.log";
/// Looks into images whose own parent is gone.
const INSPECTOR: &str = "debian-12-minimal";

/// Says what has passed.
const PASSED: &str = "passed.json";

/// A check that an image has passed.
#[derive(Debug, Serialize, Deserialize)]
struct Passed {
    /// Digest of what was checked, and how.
    key: String,
    /// What was found of the ways to start it.
    boot: BootPaths,
}

/// Digest of what is checked, and how; none if secrets are looked for, of which nothing may be kept.
fn key(image: &Image, target: Option<Target>, options: &CheckOptions) -> Option<String> {
    let is_plain = options.secrets.is_empty() && options.site == SiteWishes::default();
    let Manifest { disk, state, tested, test, .. } = &image.manifest;
    let disk = disk.as_ref().filter(|_| is_plain)?;
    let test = test.as_ref().map(|test| test.disk.as_str());
    let (version, steps) = (env!("CARGO_PKG_VERSION"), env!("GOLDSMITH_STEPS_VERSION"));
    let text = format!("{version} {steps} {} {state} {tested} {test:?} {target:?} {}", disk.sha256, options.no_boot);
    Some(file::sha256_of(text.as_bytes()))
}

/// What the user says of a check.
#[derive(Debug, Clone, Default)]
pub struct CheckOptions {
    /// Leave the boot from an NVMe disk out.
    pub no_boot: bool,
    /// What must not be on the disk, beside what the recipe says of the site.
    pub secrets: Vec<(String, SecretSource)>,
    /// What flags said of the site when the image was built.
    pub site: SiteWishes,
}

impl Factory {
    /// Reads an image's disk and judges whether it is ready for a target, or for all without one. The image is one that
    /// nobody else is at work on.
    pub async fn check(&self, image: &Image, target: Option<Target>, options: &CheckOptions) -> Result<Report, Error> {
        let is_being_made = matches!(image.manifest.state, State::Pending | State::Building | State::Testing);
        if image.manifest.disk.is_none() || is_being_made {
            let (image, state) = (image.id.clone(), image.manifest.state);
            return Err(Error::State { image, state, wanted: "checked" });
        }
        let source = Source::read(&kept_recipe(image)).map_err(Error::Unreadable)?;
        let (recipe, _) = recipe::decode(&source).map_err(Box::new)?;
        self.verify_disk(image).await?;
        let evidence = image.folder().join(EVIDENCE);
        if evidence.exists() {
            fs::remove_dir_all(&evidence)?;
        }
        fs::create_dir(&evidence)?;
        let secrets = self.unwanted(&recipe, image, options).await?;
        let mut stages = Vec::new();
        let mut facts = self.stage(&mut stages, "inspect", self.inspect(image, &recipe, &secrets)).await?;
        facts.tested = tested(&image.manifest);
        if !options.no_boot && target.is_none_or(Target::has_nvme) {
            facts.nvme = Some(self.stage(&mut stages, "boot", self.boot_from_nvme(image, &recipe)).await?);
        }
        let report = check::judge(&facts, target);
        if report.refusal().is_none()
            && let Some(key) = key(image, target, options)
        {
            let passed = Passed { key, boot: report.boot };
            file::write(evidence.join(PASSED), &serde_json::to_vec(&passed).map_err(std::io::Error::other)?)?;
        }
        Ok(report)
    }

    /// What was found of the ways to start an image, if these very bytes have passed this check already.
    pub(super) fn has_passed(
        &self,
        image: &Image,
        target: Option<Target>,
        options: &CheckOptions,
    ) -> Result<Option<BootPaths>, Error> {
        let Ok(text) = fs::read(image.folder().join(EVIDENCE).join(PASSED)) else { return Ok(None) };
        let passed = serde_json::from_slice(&text)
            .ok()
            .filter(|passed: &Passed| key(image, target, options).is_some_and(|key| key == passed.key));
        Ok(passed.map(|passed| passed.boot))
    }

    /// What the build knew and no image should hold.
    async fn unwanted(&self, recipe: &Recipe, image: &Image, options: &CheckOptions) -> Result<Vec<Secret>, Error> {
        let given = |reference: &String| options.secrets.iter().any(|(name, _)| name == reference);
        for (reference, source) in recipe.secrets.iter().filter(|(reference, _)| !given(reference)) {
            let name = secret::name(reference);
            self.tell(Event::Note(format!(
                "the secret `{name}` was looked for when the image was sealed, and is not again: --secret {} has it looked for",
                quote(&format!("{name}={source}"))
            )));
        }
        let known = self.secrets(&options.secrets.iter().cloned().collect()).await?;
        let site = site::resolve(recipe, &image.folder().join(DOCUMENTS), &options.site).unwrap_or_else(|error| {
            let why = one_line(&error);
            self.tell(Event::Warning(format!("what the recipe says of its site can't be looked for: {why}")));
            Site::default()
        });
        let mut secrets = secret::traces(&site, &known);
        secrets.retain(|secret| !secret.value.is_empty());
        Ok(secrets)
    }

    async fn inspect(&self, image: &Image, recipe: &Recipe, secrets: &[Secret]) -> Result<Facts, Error> {
        let run = self.store.begin_run("check")?;
        let parent = self.inspector(image, &run).await?;
        // The machine that builds on this parent have, so that its layer is the one that they left.
        let shape = self.shape(&recipe.machine.or(&parent.machine), recipe.network.open).await?;
        let keeper = TaskTracker::new();
        let size = image.manifest.disk.as_ref().map_or(0, |disk| disk.virtual_size).max(parent.virtual_size);
        let console_log = image.folder().join(EVIDENCE).join(INSPECTOR_LOG);
        let wanted = Wanted {
            factory: self,
            parent: &parent,
            shape: &shape,
            size,
            run: &run,
            console_log,
            keeper: &keeper,
            due: &[],
            cold: false,
            fresh: false,
        };
        let inspected = self.inspect_with(&wanted, image, secrets).await;
        self.settle_layers(&keeper).await;
        inspected
    }

    /// Has a machine look into an image's disk. What was seen from a damaged layer is worth nothing.
    async fn inspect_with(&self, wanted: &Wanted<'_>, image: &Image, secrets: &[Secret]) -> Result<Facts, Error> {
        loop {
            let mut machine = wanted.machine().await?;
            let inspected = inspector::inspect(&machine.guest, &image.disk(), secrets).await;
            let verified = machine.verified().await;
            machine.discard().await?;
            if let Err(damaged) = verified? {
                self.tell(Event::Warning(format!("{damaged}; it is dropped, and the check begins again")));
                continue;
            }
            return inspected.map_err(|error| Error::Disk { doing: "looked into", source: error.into() });
        }
    }

    /// What looks into an image: its own parent, whose started machine builds have left, and which has the programs of the
    /// same distribution; else one that can be made anywhere.
    async fn inspector(&self, image: &Image, run: &Run) -> Result<Parent, Error> {
        let here = Path::new(".");
        if let Some(source) = &image.manifest.source {
            let reference = parent::resolve(&source.parent.name, here).map(|resolved| resolved.reference).ok();
            if let Some(reference) = reference {
                let known = parent::known(&reference, Some(&source.parent.sha256), here, &self.store).await;
                if let Ok(Some(parent)) = known {
                    return Ok(parent);
                }
            }
        }
        let listener = |event: parent::Event| self.tell(Event::Parent(event));
        let reference = Reference::Base(INSPECTOR.to_owned());
        Ok(parent::obtain(&reference, None, here, &self.store, run, &listener).await?)
    }

    /// Boots the sealed disk as EC2's Nitro would show it. That it does not come up is a result; an error is not.
    async fn boot_from_nvme(&self, image: &Image, recipe: &Recipe) -> Result<Result<(), String>, Error> {
        let built_on = image.manifest.machine.as_ref().map(parent::machine_wishes).unwrap_or_default();
        let mut shape = self.shape(&recipe.machine.or(&built_on), false).await?;
        shape.hold_to(image.manifest.machine.as_ref());
        shape.disk_bus = DiskBus::Nvme;
        let test = self.boot_and_test(image, recipe, (&[], &Secrets::default()), &shape, NVME).await?;
        let failure = test.cases.into_iter().find_map(|case| case.failure);
        Ok(failure.map_or(Ok(()), |failure| Err(failure.lines().next().unwrap_or_default().to_owned())))
    }
}

/// Whether an image's own bytes have passed their test.
fn tested(manifest: &Manifest) -> Result<(), String> {
    let same = |(test, disk): (&crate::store::manifest::Test, &crate::store::manifest::Disk)| test.disk == disk.sha256;
    let of_this_disk = manifest.test.as_ref().zip(manifest.disk.as_ref()).is_some_and(same);
    match manifest.state {
        State::Available | State::Deprecated | State::Distributing if manifest.tested && of_this_disk => Ok(()),
        State::Available | State::Deprecated | State::Distributing => Err("the image was not tested".to_owned()),
        state => Err(format!("the image is {state}")),
    }
}
