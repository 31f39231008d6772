//! One build: from a plan to a sealed, tested image.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fs_err as fs;
use goldsmith_agent::message::Algorithm;

use super::components::{self, surroundings};
use super::export::{Exports, Format};
use super::log::Log;
use super::plan::{Plan, PlannedFile, document_digest};
use super::shape::Shape;
use super::site::{self, SiteWishes};
use super::warm::{Ready, Wanted};
use super::{Error, Event, Factory};
use crate::disk::probe::Format as DiskFormat;
use crate::disk::qemu_img::{self, Target};
use crate::disk::{qcow2, search};
use crate::guest::site::Site;
use crate::guest::{self, Guest};
use crate::host::file::{self, Draft};
use crate::host::process::quote;
use crate::parent::{self, Parent};
use crate::store::manifest::{Component, Disk, Origin, Source, Stage, State};
use crate::store::{DISK, Image, Run};

/// What happens with the build machine when a build fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// Nothing of it stays but its logs.
    #[default]
    Cleanup,
    /// Its disk stays, to be booted and looked at.
    Keep,
}

/// What the user says of a build, beside the recipe.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Leave the test out.
    pub no_test: bool,
    /// Boot the parent instead of restoring its checkpoint, and leave none.
    pub cold: bool,
    /// What happens with the build machine when the build fails.
    pub on_failure: OnFailure,
    /// What the site's network needs.
    pub site: SiteWishes,
    /// Formats to export.
    pub exports: Vec<Format>,
    /// Where to.
    pub output: PathBuf,
}

/// A finished build.
#[derive(Debug, Clone)]
pub struct Built {
    /// The image.
    pub image: Image,
}

/// The folder in an image that holds the documents it was built from.
pub(super) const DOCUMENTS: &str = "documents";
/// Name of the recipe there.
pub(super) const RECIPE: &str = "recipe.yaml";
/// Names of logs in an image's folder.
pub(super) const BUILD_LOG: &str = "build.log";
pub(super) const CONSOLE_LOG: &str = "console.log";

impl Factory {
    /// Builds, tests and exports an image.
    pub async fn build(&self, plan: &Plan, options: &Options) -> Result<Built, Error> {
        let mut reservation = self.store.reserve(&plan.recipe.name, plan.recipe.version)?;
        let log = Log::open(&reservation.image.folder().join(BUILD_LOG))?;
        let logged = self.logging_to(&log);
        logged.tell(Event::Note(format!("building {}", reservation.image.id)));
        for warning in &plan.warnings {
            logged.tell(Event::Warning(warning.clone()));
        }
        let mut run = self.store.begin_run("build")?;
        let mut stages = Vec::new();
        let result =
            Build { factory: &logged, plan, options, stages: &mut stages }.run(&mut reservation.image, &mut run).await;
        let image = &mut reservation.image;
        match result {
            Ok(()) => {
                image.update(|manifest| manifest.stages = stages)?;
                Ok(Built { image: image.clone() })
            }
            Err(error) => {
                let state = if matches!(error, Error::Interrupted) { State::Cancelled } else { State::Failed };
                let reason = why(&error);
                log.line(&format!("{state}: {reason}"));
                if options.on_failure == OnFailure::Cleanup {
                    // A full disk has to have room for what is noted now.
                    let _absent = fs::remove_file(run.path(OVERLAY));
                }
                let noted = image.update(|manifest| {
                    manifest.stages = stages;
                    // What comes after the verdict, an export for instance, does not change it.
                    if manifest.state.is_under_way() {
                        manifest.set_state(state, Some(reason));
                    }
                });
                if let Err(error) = noted {
                    logged.tell(Event::Warning(format!("the image's manifest can't be written: {error}")));
                }
                if options.on_failure == OnFailure::Keep && run.path(OVERLAY).exists() {
                    let disk = run.keep().join(OVERLAY);
                    let command = format!("goldsmith run {}", quote(&disk.to_string_lossy()));
                    logged
                        .tell(Event::Note(format!("the build machine's disk was kept; look into it with: {command}")));
                }
                Err(error)
            }
        }
    }

    /// The same factory, whose events are also noted in a log.
    pub(super) fn logging_to(&self, log: &Log) -> Self {
        let (listener, log) = (self.listener.clone(), log.clone());
        let both = move |event: Event| {
            log.note(&event);
            listener(event);
        };
        Self { listener: Arc::new(both), ..self.clone() }
    }
}

/// Name of the build machine's disk in the run's folder.
const OVERLAY: &str = "disk.qcow2";

struct Build<'a> {
    factory: &'a Factory,
    plan: &'a Plan,
    options: &'a Options,
    stages: &'a mut Vec<Stage>,
}

impl Build<'_> {
    async fn run(&mut self, image: &mut Image, run: &mut Run) -> Result<(), Error> {
        let site = site::resolve(&self.plan.recipe, &self.plan.folder, &self.options.site)?;
        if let Some(warning) = site::unreachable_proxy(&site) {
            self.factory.tell(Event::Warning(warning));
        }
        let parent = self.parent(run).await?;
        let shape =
            self.factory.shape(&self.plan.recipe.machine.or(&parent.machine), self.plan.recipe.network.open).await?;
        save_documents(self.plan, image)?;
        image.update(|manifest| {
            manifest.source = Some(self.source(&parent));
            manifest.set_state(State::Building, None);
        })?;
        let Ready { guest, layer, .. } = self.boot(&parent, &shape, image, run).await?;
        let qemu_version = guest.machine().qmp().version().to_string();
        image.update(|manifest| manifest.machine = Some(shape.record(qemu_version)))?;
        let guest = self.components(guest, &site, &shape, image).await?;
        self.seal(guest, &site, image, run).await?;
        // The sealed disk stands alone.
        drop(layer);
        self.release(image, &shape).await
    }

    /// Tests the sealed disk and exports it.
    async fn release(&mut self, image: &mut Image, shape: &Shape) -> Result<(), Error> {
        let (factory, options) = (self.factory, self.options);
        if options.no_test {
            image.update(|manifest| manifest.set_state(State::Available, None))?;
        }
        let sealed = image.clone();
        let write = factory.write_exports(&sealed, &options.exports, &options.output);
        let mut write = std::pin::pin!(write);
        let mut written = options.exports.is_empty().then(|| Ok(Exports::default()));
        if !options.no_test {
            // Both only read the sealed disk. An export that fails is no reason to end the test.
            let mut test = std::pin::pin!(self.test(image, shape));
            loop {
                tokio::select! {
                    tested = &mut test => break tested?,
                    exports = &mut write, if written.is_none() => written = Some(exports),
                }
            }
        }
        let exports = match written {
            Some(exports) => exports?,
            None => factory.stage(self.stages, "export", write).await?,
        };
        factory.name_exports(image, exports)
    }

    async fn parent(&mut self, run: &Run) -> Result<Parent, Error> {
        let (factory, plan) = (self.factory, self.plan);
        let listener = |event: parent::Event| factory.tell(Event::Parent(event));
        let checksum = plan.recipe.parent_checksum.as_ref().map(|checksum| checksum.value.as_str());
        let obtained = parent::obtain(&plan.parent, checksum, &plan.folder, &factory.store, run, &listener);
        let parent = factory.stage(self.stages, "parent", obtained).await?;
        if let Some(stage) = self.stages.last_mut() {
            stage.cached = parent.cached;
        }
        Ok(parent)
    }

    fn source(&self, parent: &Parent) -> Source {
        let recipe = &self.plan.recipe;
        let origin = |name: &str, sha256: &str| Origin { name: name.to_owned(), sha256: sha256.to_owned() };
        let text = |(name, value): &(String, String)| (name.clone(), serde_json::Value::from(value.clone()));
        let file = |file: &PlannedFile| Some(origin(&file.destination, &file.content.as_ref()?.sha256));
        let components = self.plan.components.iter().map(|component| Component {
            document: origin(&component.name, &document_digest(&component.program.document.source)),
            parameters: component.parameters.iter().map(text).collect(),
        });
        Source {
            recipe: origin(&recipe.source.name, &document_digest(&recipe.source)),
            description: recipe.description.clone(),
            parent: origin(&parent.name, &parent.sha256),
            components: components.collect(),
            files: self.plan.files.iter().filter_map(file).collect(),
            tags: recipe.tags.iter().map(text).collect(),
        }
    }

    /// Starts the build machine and waits until nothing in it is in the way.
    async fn boot(&mut self, parent: &Parent, shape: &Shape, image: &Image, run: &Run) -> Result<Ready, Error> {
        let (factory, plan) = (self.factory, self.plan);
        let wanted = plan.recipe.disk.as_ref().map_or(0, |disk| disk.value.0);
        if wanted != 0 && wanted < parent.virtual_size {
            let warning = format!("the parent's disk is larger than {} already", crate::document::size::Size(wanted));
            factory.tell(Event::Warning(warning));
        }
        let ready = Wanted {
            parent,
            shape,
            size: wanted.max(parent.virtual_size),
            run,
            disk: run.path(OVERLAY),
            console_log: image.folder().join(CONSOLE_LOG),
            cold: self.options.cold,
        };
        let ready = factory.stage(self.stages, "boot", factory.ready_guest(&ready)).await?;
        if let Some(stage) = self.stages.last_mut() {
            stage.cached = ready.cached;
        }
        Ok(ready)
    }

    /// Copies the recipe's files and runs the components' `build` and `validate` phases.
    async fn components(&mut self, guest: Guest, site: &Site, shape: &Shape, image: &Image) -> Result<Guest, Error> {
        let (factory, plan, keep) = (self.factory, self.plan, self.options.on_failure == OnFailure::Keep);
        let work = async {
            let enter = guest.enter_site(site).await;
            enter.map_err(|error| failed("the site's settings were made", image, error))?;
            for planned in &plan.files {
                let copied = copy_file(&guest, planned).await;
                copied.map_err(|error| failed(&format!("{} was copied", planned.destination), image, error))?;
            }
            let folder = guest.make_folder(&plan.recipe.working_directory, None).await;
            folder.map_err(|error| failed("its working directory was made", image, error))?;
            let surroundings = surroundings(&plan.recipe, site, shape, image, "BUILDING");
            let ran = factory.run_phases(&plan.components, &["build", "validate"], &guest, &surroundings, None).await;
            let result = components::first_failure(ran, image);
            if result.is_err() && keep {
                // What the guest has not written yet would be missing on the kept disk.
                let _best_effort = tokio::time::timeout(Duration::from_secs(30), guest.sync()).await;
            }
            result.map(|()| guest)
        };
        factory.stage(self.stages, "build", work).await
    }

    /// Cleans the guest, ends it, and makes its disk an image.
    async fn seal(&mut self, guest: Guest, site: &Site, image: &mut Image, run: &Run) -> Result<(), Error> {
        let (factory, plan) = (self.factory, self.plan);
        let work = async {
            if !site.is_empty() {
                let left = guest.leave_site(site).await;
                left.map_err(|error| failed("the site's settings were taken back", image, error))?;
            }
            let cleaned = guest.clean(&plan.recipe.working_directory).await;
            for (operation, complaint) in cleaned.map_err(|error| failed("it was cleaned", image, error))? {
                factory.tell(Event::Warning(format!("cleaning: {operation}: {complaint}")));
            }
            if !site.is_empty() {
                let filled = guest.overwrite_free_space().await;
                filled.map_err(|error| failed("the site's settings were overwritten", image, error))?;
            }
            guest.power_off().await.map_err(|error| failed("it was powered off", image, error))?;
            let disk = seal_disk(factory, &run.path(OVERLAY), image, &site.traces()).await?;
            image.update(|manifest| manifest.disk = Some(disk))?;
            Ok::<_, Error>(())
        };
        factory.stage(self.stages, "seal", work).await
    }

    async fn test(&mut self, image: &mut Image, shape: &Shape) -> Result<(), Error> {
        let (factory, plan) = (self.factory, self.plan);
        image.update(|manifest| manifest.set_state(State::Testing, None))?;
        let evidence = super::test::EVIDENCE;
        let tested = factory.test_disk(image, &plan.recipe, &plan.components, shape, evidence);
        let tested = factory.stage(self.stages, "test", tested).await?;
        let failure = super::test::failure(image, &tested);
        image.update(|manifest| super::test::record(manifest, tested))?;
        failure.map_or(Ok(()), Err)
    }
}

/// An error and its causes in one line each.
fn why(error: &Error) -> String {
    let first_line = |text: String| text.lines().next().unwrap_or_default().to_owned();
    let mut reason = first_line(error.to_string());
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let text = first_line(error.to_string());
        // Transparent errors say the same twice.
        if !reason.contains(&text) {
            reason = format!("{reason}: {text}");
        }
        cause = error.source();
    }
    reason
}

/// What is wrong with the build machine, and where more of it can be read.
pub(super) fn failed(doing: &str, image: &Image, source: guest::Error) -> Error {
    Error::Guest { doing: doing.to_owned(), source: Box::new(source), log: image.folder().join(CONSOLE_LOG) }
}

/// Name of a component's document in the image.
pub(super) fn kept_document(number: usize, name: &str) -> String {
    format!("{number:02}-{name}.yaml")
}

/// Keeps the documents in the image, so that it can be tested again and explained for ever.
fn save_documents(plan: &Plan, image: &Image) -> Result<(), Error> {
    let folder = image.folder().join(DOCUMENTS);
    fs::create_dir_all(&folder)?;
    file::write(folder.join(RECIPE), plan.recipe.source.text.as_bytes())?;
    for (number, component) in (1..).zip(&plan.components) {
        let name = kept_document(number, &component.name);
        file::write(folder.join(name), component.program.document.source.text.as_bytes())?;
    }
    Ok(())
}

async fn copy_file(guest: &Guest, planned: &PlannedFile) -> Result<(), guest::Error> {
    let path = &planned.destination;
    match &planned.content {
        // A folder of the system's, `/etc` for instance, stays as it is.
        None if guest.stat(path, true).await?.is_some() => return Ok(()),
        None => guest.make_folder(path, None).await?,
        Some(content) => {
            if let Some((folder, _)) = path.rsplit_once('/').filter(|(folder, _)| !folder.is_empty()) {
                guest.make_folder(folder, None).await?;
            }
            let file = fs_err::tokio::File::open(&content.source).await.map_err(guest::Error::Source)?;
            guest.write(path, content.mode, file).await?;
            guest.set_mode(path, content.mode).await?;
            if guest.digest(path, Algorithm::Sha256).await? != content.sha256 {
                let what = format!("`{}` was changed while the image was built", content.source.display());
                return Err(guest::Error::Source(std::io::Error::other(what)));
            }
        }
    }
    if let Some(owner) = &planned.owner {
        let (user, group) = match owner.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (owner.as_str(), None),
        };
        guest.set_owner(path, Some(user).filter(|user| !user.is_empty()), group).await?;
    }
    Ok(())
}

/// Writes a build machine's disk, parent included, to one compressed file.
async fn copy_disk(factory: &Factory, overlay: &Path, to: &Path) -> Result<(), Error> {
    let listener = factory.listener.clone();
    let progress = move |part| listener(Event::Copied { stage: "seal", what: "sealed disk".to_owned(), part });
    // Opened here: a build that is interrupted takes the file away, and the thread must not make it again.
    let file = fs::File::options().write(true).open(to)?;
    let (from, tell) = (overlay.to_owned(), progress.clone());
    let sealed = tokio::task::spawn_blocking(move || qcow2::seal(&from, file, &tell));
    match sealed.await.map_err(std::io::Error::other)? {
        Ok(()) => Ok(()),
        // A parent of an unusual layout: slower, and the same bytes for the guest.
        Err(qcow2::Error::Unusual(why)) => {
            tracing::info!(why, "sealing with qemu-img");
            let target = Target { path: to, format: "qcow2", options: &[], compress: true, is_patient: false };
            let copied = qemu_img::convert(overlay, DiskFormat::Qcow2, target, &progress).await;
            copied.map_err(|error| Error::Disk { doing: "sealed", source: error.into() })
        }
        Err(error) => Err(Error::Disk { doing: "sealed", source: error.into() }),
    }
}

/// Copies a build machine's disk, parent included, into the image, and proves what must not be on it.
async fn seal_disk(factory: &Factory, overlay: &Path, image: &Image, traces: &[&str]) -> Result<Disk, Error> {
    let failed = |doing| move |error: qemu_img::Error| Error::Disk { doing, source: error.into() };
    let draft = Draft::new(image.folder().join(DISK))?;
    copy_disk(factory, overlay, draft.path()).await?;
    qemu_img::check(draft.path()).await.map_err(failed("sealed"))?;
    let virtual_size = qemu_img::virtual_size(draft.path(), DiskFormat::Qcow2).await.map_err(failed("sealed"))?;
    let path = draft.path().to_owned();
    let traces: Vec<String> = traces.iter().map(|&trace| trace.to_owned()).collect();
    let examined = tokio::task::spawn_blocking(move || {
        let found = if traces.is_empty() {
            Vec::new()
        } else {
            let needles: Vec<&str> = traces.iter().map(String::as_str).collect();
            search::find(&path, &needles)?.into_iter().map(str::to_owned).collect()
        };
        Ok::<_, std::io::Error>((found, file::sha256(&path)?, fs::metadata(&path)?.len()))
    });
    let (found, sha256, bytes) = examined.await.map_err(std::io::Error::other)??;
    if !found.is_empty() {
        return Err(Error::Traces { found });
    }
    fs::set_permissions(draft.path(), std::os::unix::fs::PermissionsExt::from_mode(0o444))?;
    draft.finish()?;
    Ok(Disk { sha256, bytes, virtual_size })
}
