//! One build: from a plan to a sealed, tested image.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use super::components::{self, Steps, copy_file, surroundings};
use super::export::{ExportWishes, Exports};
use super::key::{self, BUILD_PHASES, Due};
use super::layers::{BuildMachine, Wanted};
use super::log::Log;
use super::plan::Plan;
use super::seal::seal_disk;
use super::secret;
use super::shape::Shape;
use super::shell::Attach;
use super::site::{self, SiteWishes};
use super::source;
use super::states;
use super::{Error, Event, Factory};
use crate::component::{Secrets, Site as Surroundings};
use crate::guest::site::Site;
use crate::guest::{self, Guest};
use crate::host::process::quote;
use crate::host::{file, one_line};
use crate::parent::{self, Parent};
use crate::store::manifest::{BuiltComponent, Stage, State};
use crate::store::version::ImageId;
use crate::store::{Image, Layer, Run};

/// What happens with the build machine when a build fails.
#[derive(Clone, Default)]
pub enum OnFailure {
    /// Nothing of it stays but its logs.
    #[default]
    Cleanup,
    /// Its disk stays, to be booted and looked at.
    Keep,
    /// Somebody is led into it as it is, and nothing of it stays afterwards.
    Shell(Attach),
}

impl std::fmt::Debug for OnFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cleanup => "Cleanup",
            Self::Keep => "Keep",
            Self::Shell(_) => "Shell",
        })
    }
}

/// What the user says of a build, beside the recipe.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Leave the test out.
    pub no_test: bool,
    /// Boot the parent instead of restoring a checkpoint, and leave none.
    pub cold: bool,
    /// Get the parent anew first if its publisher has something newer.
    pub pull: bool,
    /// Run every component, even if nothing has changed.
    pub fresh: bool,
    /// Refuse a recipe that says something else than the one that made an image of the same version.
    pub strict_versions: bool,
    /// The distribution configuration that the image will be published by, which a retry needs.
    pub distribution: Option<Arc<crate::document::syntax::Source>>,
    /// Make a new image even if nothing has changed; layers are used all the same.
    pub anew: bool,
    /// How long the test may take.
    pub test_time: Option<Duration>,
    /// What happens with the build machine when the build fails.
    pub on_failure: OnFailure,
    /// What the site's network needs.
    pub site: SiteWishes,
    /// What is exported.
    pub exports: ExportWishes,
}

/// A finished build.
#[derive(Debug, Clone)]
pub struct Built {
    /// The image.
    pub image: Image,
    /// What was done just now.
    pub stages: Vec<Stage>,
}

/// Names of logs in an image's folder.
pub(super) const BUILD_LOG: &str = "build.log";
pub(super) const CONSOLE_LOG: &str = "console.log";

impl Factory {
    /// Builds, tests and exports an image; or finds the one that such a build would make again.
    pub async fn build(&self, plan: &Plan, options: &Options) -> Result<Built, Error> {
        if options.pull {
            self.renew_parent(plan).await?;
        }
        if let Some(built) = self.unchanged(plan, options).await? {
            return Ok(built);
        }
        self.check_version(plan, options.strict_versions)?;
        let mut reservation = self.store.reserve(&plan.recipe.name, plan.recipe.version)?;
        let image = &mut reservation.image;
        let log = Log::open(&image.folder().join(BUILD_LOG))?;
        let logged = self.logging_to(&log);
        logged.tell(Event::Reserved(image.id.clone()));
        for warning in &plan.warnings {
            logged.tell(Event::Warning(warning.clone()));
        }
        for note in &plan.notes {
            logged.tell(Event::Note(note.clone()));
        }
        let mut run = self.store.begin_run("build")?;
        let mut build = Build::new(&logged, plan, options, image.id.clone(), image.folder().to_owned());
        let result = build.run(image, &run).await;
        let (stages, kept) = (std::mem::take(&mut build.stages), build.kept.take());
        let secrets = build.secrets.clone();
        logged.settle_layers(&build.keeper).await;
        logged.mask_log(&image.folder().join(CONSOLE_LOG), &secrets);
        match result {
            Ok(()) => image.update(|manifest| manifest.stages.clone_from(&stages))?,
            Err(error) => {
                logged.note_failure(&error, &log, stages, image);
                if let Some(disk) = kept {
                    let disk = run.keep().join(disk.file_name().unwrap_or_default());
                    let command = format!("goldsmith run {}", quote(&disk.to_string_lossy()));
                    let kept = format!("the build machine's disk was kept; look into it with: {command}");
                    logged.tell(Event::Note(kept));
                }
                return Err(error);
            }
        }
        Ok(Built { image: image.clone(), stages })
    }

    /// Says in an image's manifest why there is no image.
    fn note_failure(&self, error: &Error, log: &Log, stages: Vec<Stage>, image: &mut Image) {
        let state = if matches!(error, Error::Interrupted) { State::Cancelled } else { State::Failed };
        let (reason, from) = (one_line(error), image.manifest.state);
        log.line(&format!("{state}: {reason}"));
        let noted = image.update(|manifest| {
            manifest.stages = stages;
            // What comes after the verdict, an export for instance, does not change it.
            if manifest.state.is_under_way() {
                manifest.set_state(state, Some(reason));
            }
        });
        if let Err(error) = noted {
            self.tell(Event::Warning(format!("the image's manifest can't be written: {error}")));
        }
        if from.is_under_way() {
            let failure = (state == State::Failed).then(|| states::failure(error, from));
            self.tell_state(image, from, failure);
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

/// What a build machine is made from.
pub(super) struct Ground {
    pub(super) site: Site,
    pub(super) parent: Parent,
    pub(super) shape: Shape,
    /// Size of the disk in bytes.
    pub(super) size: u64,
}

/// A build under way.
pub(super) struct Build<'a> {
    factory: &'a Factory,
    plan: &'a Plan,
    options: &'a Options,
    id: ImageId,
    /// Where logs go.
    folder: PathBuf,
    /// The disk of a failed build machine, in the run's folder.
    kept: Option<PathBuf>,
    /// Of the plan; none before it has its ground.
    pub(super) secrets: Secrets,
    pub(super) stages: Vec<Stage>,
    pub(super) keeper: TaskTracker,
}

impl<'a> Build<'a> {
    pub(super) fn new(
        factory: &'a Factory,
        plan: &'a Plan,
        options: &'a Options,
        id: ImageId,
        folder: PathBuf,
    ) -> Self {
        let (kept, secrets, stages, keeper) = (None, Secrets::default(), Vec::new(), TaskTracker::new());
        Self { factory, plan, options, id, folder, kept, secrets, stages, keeper }
    }

    async fn run(&mut self, image: &mut Image, run: &Run) -> Result<(), Error> {
        let ground = self.ground(run).await?;
        source::keep_documents(self.plan, image)?;
        if let Some(distribution) = &self.options.distribution {
            super::retry::keep_distribution(image, distribution)?;
        }
        let inputs = super::unchanged::inputs(self.plan, &ground.parent)?;
        image.update(|manifest| {
            manifest.source = Some(source::of(self.plan, &ground.parent));
            manifest.inputs = Some(inputs);
            manifest.set_state(State::Building, None);
        })?;
        self.factory.tell_state(image, State::Pending, None);
        let due = self.due(&ground)?;
        // The machine, which borrows it, must not hold all of the build.
        let keeper = self.keeper.clone();
        let wanted = self.wanted(&ground, &due, run, &keeper);
        let machine = self.machine_with_all(&wanted, &ground, Some(image)).await?;
        self.seal(machine, &ground, image).await?;
        self.release(image, &ground.shape).await
    }

    /// Gets what a build machine is made from.
    pub(super) async fn ground(&mut self, run: &Run) -> Result<Ground, Error> {
        let site = site::resolve(&self.plan.recipe, &self.plan.folder, &self.options.site)?;
        if let Some(warning) = site::unreachable_proxy(&site) {
            self.factory.tell(Event::Warning(warning));
        }
        // Before anything that takes long: somebody may have to type them.
        self.secrets = self.factory.secrets(&self.plan.secrets).await?;
        self.warn_of_documents_with_secrets();
        let parent = self.parent(run).await?;
        let recipe = &self.plan.recipe;
        let mut shape = self.factory.shape(&recipe.machine.or(&parent.machine), recipe.network.open).await?;
        shape.reach.clone_from(&recipe.network.reach);
        shape.test_timeout = self.options.test_time;
        let size = self.plan.disk_size(&parent);
        if let Some(disk) = recipe.disk.as_ref().filter(|disk| (1..parent.virtual_size).contains(&disk.value.0)) {
            let warning = format!("the parent's disk is larger than {} already", disk.value);
            self.factory.tell(Event::Warning(warning));
        }
        Ok(Ground { site, parent, shape, size })
    }

    /// Documents stay with the image, word by word.
    fn warn_of_documents_with_secrets(&self) {
        let components = self.plan.components.iter().map(|component| &component.program.document.source);
        for source in std::iter::once(&self.plan.recipe.source).chain(components) {
            if self.secrets.needles().any(|(needle, _)| source.text.contains(needle)) {
                let warning = format!("{}: the value of a secret stands in the document itself", source.name);
                self.factory.tell(Event::Warning(warning));
            }
        }
    }

    /// A machine in which nothing has been done yet.
    pub(super) async fn machine<'w>(&mut self, wanted: &'w Wanted<'w>) -> Result<BuildMachine<'w>, Error> {
        let machine = self.factory.stage(&mut self.stages, "boot", wanted.machine()).await?;
        if let Some(stage) = self.stages.last_mut() {
            stage.cached = machine.cached;
        }
        let known = self.secrets.clone();
        machine.guest.mask_console_with(move |text| known.mask(text));
        Ok(machine)
    }

    /// What its steps are surrounded by.
    pub(super) fn surroundings(&self, ground: &Ground) -> Surroundings {
        let secrets = self.secrets.clone();
        let surroundings = surroundings(&self.plan.recipe, &ground.site, &ground.shape, &self.id, "BUILDING");
        Surroundings { secrets, ..surroundings }
    }

    /// What is to be done in the build machine.
    pub(super) fn due(&self, ground: &Ground) -> Result<Vec<Due<'a>>, Error> {
        let parent = key::of_parent(&ground.parent, ground.size, &ground.shape)?;
        key::due(self.plan, &ground.site, &self.id, &parent)
    }

    pub(super) fn wanted<'w>(
        &self,
        ground: &'w Ground,
        due: &'w [Due<'w>],
        run: &'w Run,
        keeper: &'w TaskTracker,
    ) -> Wanted<'w>
    where
        'a: 'w,
    {
        let Ground { parent, shape, size, .. } = ground;
        let console_log = self.folder.join(CONSOLE_LOG);
        let Options { cold, fresh, .. } = *self.options;
        Wanted { factory: self.factory, parent, shape, size: *size, run, console_log, keeper, due, cold, fresh }
    }

    /// A machine in which everything that is due has been done.
    ///
    /// A layer that proves to be damaged while it is in use explains any failure, and whatever was done on it is worth
    /// nothing: it goes, and everything begins again without it.
    pub(super) async fn machine_with_all<'w>(
        &mut self,
        wanted: &'w Wanted<'w>,
        ground: &Ground,
        mut image: Option<&mut Image>,
    ) -> Result<BuildMachine<'w>, Error> {
        loop {
            let factory = self.factory;
            let mut machine = self.machine(wanted).await?;
            let mut ran = Vec::new();
            let work = self.components(&mut machine, wanted, ground, &mut ran);
            let mut stages = Vec::new();
            let worked = factory.stage(&mut stages, "build", work).await;
            if matches!(worked, Err(Error::Interrupted)) {
                return Err(Error::Interrupted);
            }
            if let Err(damaged) = machine.verified().await? {
                factory.tell(Event::Warning(format!("{damaged}; it is dropped, and the build begins again")));
                machine.discard().await?;
                file::remove_if_there(&self.folder.join(CONSOLE_LOG))?;
                continue;
            }
            self.stages.append(&mut stages);
            let qemu = machine.guest.machine().map(|machine| machine.qmp().version().to_string()).unwrap_or_default();
            // A full disk has to have room for what is noted, so what has failed goes first.
            let worked = match worked {
                Ok(()) => Ok(machine),
                Err(error) => Err(self.failed(machine, ground, error).await),
            };
            if let Some(image) = image.as_mut() {
                let noted = image.update(|manifest| {
                    manifest.machine = Some(ground.shape.record(qemu));
                    manifest.components = ran;
                });
                if worked.is_ok() {
                    noted?;
                }
            }
            return worked;
        }
    }

    /// Does what the user wants done with a machine in which something failed.
    async fn failed(&mut self, machine: BuildMachine<'_>, ground: &Ground, error: Error) -> Error {
        match &self.options.on_failure {
            OnFailure::Cleanup => self.discard(machine).await,
            OnFailure::Keep => self.keep_disk(machine.disk_for_study().await),
            OnFailure::Shell(attach) => {
                self.factory.tell(Event::Warning(one_line(&error)));
                let surroundings = self.surroundings(ground);
                if let Err(problem) = self.factory.lead_in(&machine.guest, attach, &surroundings).await {
                    self.factory.tell(Event::Warning(format!("no shell can be opened: {}", one_line(&problem))));
                }
                self.discard(machine).await;
            }
        }
        error
    }

    /// Runs what is not done yet, and leaves a layer after each component. What ran, or had run, goes into `ran`.
    async fn components(
        &self,
        machine: &mut BuildMachine<'_>,
        wanted: &Wanted<'_>,
        ground: &Ground,
        ran: &mut Vec<BuiltComponent>,
    ) -> Result<(), Error> {
        let (due, factory) = (wanted.due, self.factory);
        ran.extend(self.cached(machine, due));
        if machine.done == 0 {
            self.prepare(&machine.guest, &ground.site).await?;
        }
        let surroundings = self.surroundings(ground);
        let courier = factory.courier(&self.plan.recipe);
        let mut first_failure = None;
        for (number, due) in (1..).zip(wanted.due).skip(machine.done) {
            let guest = &machine.guest;
            let steps = Steps {
                guest,
                surroundings: &surroundings,
                courier: &courier,
                phases: &BUILD_PHASES,
                allowed_failed_units: None,
            };
            let started = jiff::Timestamp::now();
            let result = factory.run_component(due.component, (number, wanted.due.len()), &steps).await;
            let seconds = (jiff::Timestamp::now() - started).total(jiff::Unit::Second).unwrap_or(0.0);
            ran.push(BuiltComponent { name: result.component.clone(), ran: started, seconds, cached: false });
            let aborted = result.outcome.aborted;
            first_failure = first_failure.or(components::failure(result, &self.folder));
            if aborted {
                break;
            }
            // What a failure leaves behind is not worth starting from.
            if let (Some(key), None) = (&due.key, &first_failure) {
                machine.checkpoint(key.clone()).await?;
            }
        }
        first_failure.map_or(Ok(()), Err)
    }

    /// What has run in a restored machine before it was paused.
    fn cached(&self, machine: &BuildMachine<'_>, due: &[Due<'_>]) -> Vec<BuiltComponent> {
        let mut cached = Vec::new();
        let mut layer: Option<&Arc<Layer>> = machine.top();
        for due in due[..machine.done].iter().rev() {
            let record = layer.and_then(|layer| layer.record());
            let (ran, seconds) =
                record.map_or((jiff::Timestamp::UNIX_EPOCH, 0.0), |record| (record.made, record.seconds));
            cached.push(BuiltComponent { name: due.component.name.clone(), ran, seconds, cached: true });
            layer = layer.and_then(|layer| layer.below());
        }
        cached.reverse();
        for (number, component) in (1..).zip(&cached) {
            let name = component.name.clone();
            self.factory.tell(Event::Cached { number, of: due.len(), name, ran: component.ran });
        }
        cached
    }

    /// Copies the recipe's files and makes the folder that steps work in.
    pub(super) async fn prepare(&self, guest: &Guest, site: &Site) -> Result<(), Error> {
        let plan = self.plan;
        let enter = guest.enter_site(site).await;
        enter.map_err(|error| failed("the site's settings were made", &self.folder, error))?;
        for planned in &plan.files {
            let copied = copy_file(guest, planned).await;
            copied.map_err(|error| failed(&format!("{} was copied", planned.destination), &self.folder, error))?;
        }
        let folder = guest.make_folder(&plan.recipe.working_directory, None).await;
        folder.map_err(|error| failed("its working directory was made", &self.folder, error))
    }

    /// Tests the sealed disk and exports it.
    async fn release(&mut self, image: &mut Image, shape: &Shape) -> Result<(), Error> {
        let (factory, options) = (self.factory, self.options);
        if options.no_test {
            image.update(|manifest| manifest.set_state(State::Available, None))?;
            factory.tell_state(image, State::Building, None);
        }
        let sealed = image.clone();
        let write = factory.write_exports(&sealed, &options.exports);
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
            None => factory.stage(&mut self.stages, "export", write).await?,
        };
        factory.name_exports(image, &options.exports, exports)
    }

    async fn parent(&mut self, run: &Run) -> Result<Parent, Error> {
        let (factory, plan) = (self.factory, self.plan);
        let listener = |event: parent::Event| factory.tell(Event::Parent(event));
        let checksum = plan.parent_checksum();
        let obtained = parent::obtain(&plan.parent, checksum, &plan.folder, &factory.store, run, &listener);
        let parent = factory.stage(&mut self.stages, "parent", obtained).await?;
        if let Some(warning) = &parent.warning {
            factory.tell(Event::Warning(warning.clone()));
        }
        if let Some(stage) = self.stages.last_mut() {
            stage.cached = parent.cached;
        }
        Ok(parent)
    }

    /// Cleans the guest, ends it, and makes its disk an image.
    async fn seal(&mut self, machine: BuildMachine<'_>, ground: &Ground, image: &mut Image) -> Result<(), Error> {
        let (factory, folder) = (self.factory, self.folder.clone());
        let (mut machine, mut ended) = (Some(machine), None);
        let mut stages = Vec::new();
        let work = async {
            if let Some(machine) = &machine {
                self.note_packages(&machine.guest, image).await?;
                self.clean(&machine.guest, ground).await?;
            }
            let Some(machine) = machine.take() else { return Ok(()) };
            let disk = machine.power_off().await.map_err(|error| failed("it was powered off", &folder, error))?;
            let disk = ended.insert(disk);
            let sealed = seal_disk(factory, disk.path(), image, &secret::traces(&ground.site, &self.secrets)).await?;
            image.update(|manifest| manifest.disk = Some(sealed))?;
            Ok::<_, Error>(())
        };
        let sealed = factory.stage(&mut stages, "seal", work).await;
        self.stages.append(&mut stages);
        match (sealed, machine, ended) {
            (Err(Error::Interrupted), ..) => Err(Error::Interrupted),
            (Err(error), Some(machine), _) => Err(self.failed(machine, ground, error).await),
            (Err(error), None, Some(disk)) if !matches!(self.options.on_failure, OnFailure::Cleanup) => {
                // There is no guest any more to be led into.
                self.keep_disk(disk.for_study(&ground.parent).await);
                Err(error)
            }
            (sealed, ..) => sealed,
        }
    }

    async fn discard(&self, machine: BuildMachine<'_>) {
        if let Err(problem) = machine.discard().await {
            self.factory.tell(Event::Warning(one_line(&problem)));
        }
    }

    fn keep_disk(&mut self, disk: Result<PathBuf, Error>) {
        match disk {
            Ok(disk) => self.kept = Some(disk),
            Err(problem) => self.factory.tell(Event::Warning(one_line(&problem))),
        }
    }

    /// Keeps the list of what is installed. An image is none the worse for a list that can't be read.
    async fn note_packages(&self, guest: &Guest, image: &Image) -> Result<(), Error> {
        match guest.packages().await {
            Ok(Some(packages)) => image.keep_packages(&packages)?,
            Ok(None) => {}
            Err(error) => {
                let warning = format!("it can't be told which packages are installed: {}", one_line(&error));
                self.factory.tell(Event::Warning(warning));
            }
        }
        Ok(())
    }

    /// Takes away what no image should contain.
    async fn clean(&self, guest: &Guest, ground: &Ground) -> Result<(), Error> {
        let site = &ground.site;
        if !site.is_empty() {
            let left = guest.leave_site(site).await;
            left.map_err(|error| failed("the site's settings were taken back", &self.folder, error))?;
        }
        let cleaned = guest.clean(&self.plan.recipe.working_directory).await;
        for (operation, complaint) in cleaned.map_err(|error| failed("it was cleaned", &self.folder, error))? {
            self.factory.tell(Event::Warning(format!("cleaning: {operation}: {complaint}")));
        }
        if !site.is_empty() || !self.secrets.is_empty() {
            let filled = guest.overwrite_free_space().await;
            filled.map_err(|error| failed("what was not to stay was overwritten", &self.folder, error))?;
        }
        Ok(())
    }

    async fn test(&mut self, image: &mut Image, shape: &Shape) -> Result<(), Error> {
        let (factory, plan) = (self.factory, self.plan);
        image.update(|manifest| manifest.set_state(State::Testing, None))?;
        factory.tell_state(image, State::Building, None);
        let evidence = super::test::EVIDENCE;
        let with = (plan.components.as_slice(), &self.secrets);
        let tested = factory.test_disk(&mut self.stages, image, &plan.recipe, with, shape, evidence).await?;
        let (failure, context) = (super::test::failure(image, &tested), super::test::failure_context(&tested));
        image.update(|manifest| super::test::record(manifest, tested))?;
        factory.tell_state(image, State::Testing, context);
        failure.map_or(Ok(()), Err)
    }
}

/// What is wrong with the build machine, and where more of it can be read.
pub(super) fn failed(doing: &str, folder: &Path, source: guest::Error) -> Error {
    Error::Guest { doing: doing.to_owned(), source: Box::new(source), log: folder.join(CONSOLE_LOG) }
}
