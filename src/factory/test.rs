//! The test: the sealed bytes, booted cold in a second machine.
//!
//! The machine gets a fresh overlay on the image's own disk, a new instance id and a new network address: what boots is
//! what ships. That the system comes up whole is the first test; a component without a `test` phase has no other.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fs_err as fs;
use jiff::Timestamp;

use super::build::CONSOLE_LOG;
use super::components::{Ran, Steps, surroundings};
use super::log::Log;
use super::plan::{Given, PlannedComponent, Values};
use super::secret;
use super::shape::Shape;
use super::source::{kept_document, kept_recipe};
use super::{Error, Factory};
use crate::component::{Program, Secrets, Site as Surroundings, StepStatus};
use crate::disk::qemu_img;
use crate::document::decode::Strictness;
use crate::document::recipe::{self, Recipe};
use crate::document::syntax::Source;
use crate::guest::seed::{Purpose, Seed};
use crate::guest::site::Site;
use crate::guest::{self, Guest, SystemState};
use crate::host::file;
use crate::host::process::quote;
use crate::machine::console::plain;
use crate::notify::{ComponentFailure, FailureContext};
use crate::parent;
use crate::store::manifest::{Manifest, Stage, State, Test, TestCase};
use crate::store::{Image, Reservation};

/// The folder in an image that holds the evidence of its newest test.
pub(super) const EVIDENCE: &str = "test";
/// The same of a test by components that are not the image's own.
const OTHER_EVIDENCE: &str = "test-other";
const TEST_LOG: &str = "test.log";
/// The phases of a test.
const TEST_PHASES: [&str; 1] = ["test"];
/// What the first test is called.
const BOOT: &str = "boot";

impl Factory {
    /// Tests an image of the store again: with the components that it was built with, or with others.
    ///
    /// A test that failed is a result; [`failure`] makes it an error.
    pub async fn test(&self, image: Image, others: &[PathBuf], given: &Given) -> Result<(Image, Test), Error> {
        let mut reservation = Reservation::of(&self.store, image)?;
        let image = &reservation.image;
        let state = image.manifest.state;
        if image.manifest.disk.is_none() || state.is_under_way() || state == State::Deleted {
            return Err(Error::State { image: image.id.clone(), state, wanted: "tested" });
        }
        let source = Source::read(&kept_recipe(image)).map_err(Error::Unreadable)?;
        let (recipe, _) = recipe::decode(&source).map_err(Box::new)?;
        let documents = if others.is_empty() { kept_documents(image, &recipe)? } else { named_documents(others) };
        let mut given = given.clone();
        if given.asks_aws {
            let missing = missing(&documents, &given)?;
            self.ask_aws(&missing, &mut given).await?;
        }
        let components = read_components(documents, &recipe, &given)?;
        let mut secrets = Values::new((&given.references, &given.secrets)).secrets;
        secrets.retain(|name, _| components.iter().any(|component| component.secrets.contains(name)));
        let secrets = self.secrets(&secrets).await?;
        self.verify_disk(&reservation.image).await?;
        let built_on = reservation.image.manifest.machine.as_ref().map(parent::machine_wishes).unwrap_or_default();
        let mut shape = self.shape(&recipe.machine.or(&built_on), false).await?;
        shape.hold_to(reservation.image.manifest.machine.as_ref());
        let mut stages = Vec::new();
        // Components of the user's own say nothing of the image's own test, and leave its evidence alone.
        let evidence = if others.is_empty() { EVIDENCE } else { OTHER_EVIDENCE };
        let with = (components.as_slice(), &secrets);
        let test = self.test_disk(&mut stages, &reservation.image, &recipe, with, &shape, evidence).await?;
        if others.is_empty() {
            let from = reservation.image.manifest.state;
            reservation.image.update(|manifest| record(manifest, test.clone()))?;
            self.tell_state(&reservation.image, from, failure_context(&test));
        }
        Ok((reservation.image.clone(), test))
    }

    /// Reads an image's disk, and says whether it is the one that was sealed.
    pub async fn verify(&self, image: &Image) -> Result<(), Error> {
        self.stage(&mut Vec::new(), "verify", self.verify_disk(image)).await
    }

    /// That the disk is the one that the manifest names.
    pub(super) async fn verify_disk(&self, image: &Image) -> Result<(), Error> {
        let path = image.disk();
        let sha256 = tokio::select! {
            digest = tokio::task::spawn_blocking(move || file::sha256(&path)) => digest.map_err(std::io::Error::other)??,
            () = self.cancel.cancelled() => return Err(Error::Interrupted),
        };
        if image.manifest.disk.as_ref().is_some_and(|disk| disk.sha256 == sha256) {
            return Ok(());
        }
        let source = format!("`{}` has changed since it was sealed", image.disk().display()).into();
        Err(Error::Disk { doing: "used", source })
    }

    /// Boots an image's disk and runs the `test` phases. A test that fails is a result; an error is not. However it ends,
    /// no secret stays in what the guest has written to its console.
    pub(super) async fn test_disk(
        &self,
        stages: &mut Vec<Stage>,
        image: &Image,
        recipe: &Recipe,
        with: (&[PlannedComponent], &Secrets),
        shape: &Shape,
        evidence: &str,
    ) -> Result<Test, Error> {
        let test = self.boot_and_test(image, recipe, with, shape, evidence);
        let in_time = async {
            let Some(most) = shape.test_timeout else { return test.await };
            // The machine goes with the test that it is dropped with.
            tokio::time::timeout(most, test).await.unwrap_or_else(|_| Ok(out_of_time(image, most)))
        };
        let tested = self.stage(stages, "test", in_time).await;
        self.mask_log(&image.folder().join(evidence).join(CONSOLE_LOG), with.1);
        tested
    }

    /// The same, within a stage of another's and with what is no secret.
    pub(super) async fn boot_and_test(
        &self,
        image: &Image,
        recipe: &Recipe,
        (components, secrets): (&[PlannedComponent], &Secrets),
        shape: &Shape,
        evidence: &str,
    ) -> Result<Test, Error> {
        let evidence = empty_folder(image.folder().join(evidence))?;
        let log = Log::open(&evidence.join(TEST_LOG))?;
        let logged = self.logging_to(&log);
        let run = self.store.begin_run("test")?;
        let (disk, seed) = (run.path("disk.qcow2"), run.path("seed.img"));
        let Some(sealed) = image.manifest.disk.clone() else {
            return Err(Error::State { image: image.id.clone(), state: image.manifest.state, wanted: "tested" });
        };
        let created = qemu_img::create_overlay(&disk, &image.disk(), sealed.virtual_size).await;
        created.map_err(|error| Error::Disk { doing: "booted", source: error.into() })?;
        Seed::with_agent(Purpose::Test).write(&seed)?;
        let spec = shape.spec(disk, Some(seed), evidence.join(CONSOLE_LOG));
        let (started, mut cases) = (Instant::now(), Vec::new());
        match Guest::boot(&shape.qemu, &spec, run.folder(), shape.boot_timeout).await {
            Ok(guest) => {
                let known = secrets.clone();
                guest.mask_console_with(move |text| known.mask(text));
                let checked = async {
                    let problem = check_system(&guest, &recipe.allowed_failed_units).await?;
                    guest.make_folder(&recipe.working_directory, None).await?;
                    Ok::<_, guest::Error>(problem)
                };
                let problem = match checked.await {
                    Ok(problem) => problem,
                    Err(error) if is_hosts(&error) => return Err(hosts_fault(image, error)),
                    Err(error) => Some(error.to_string()),
                };
                let is_up = problem.is_none();
                cases.push(boot_case(started, problem));
                if is_up {
                    let (site, courier) = (Site::default(), self.courier(recipe));
                    let surroundings = surroundings(recipe, &site, shape, &image.id, "TESTING");
                    let surroundings = Surroundings { secrets: secrets.clone(), ..surroundings };
                    let steps = Steps {
                        guest: &guest,
                        surroundings: &surroundings,
                        courier: &courier,
                        phases: &TEST_PHASES,
                        allowed_failed_units: Some(&recipe.allowed_failed_units),
                    };
                    let ran = logged.run_components(components, &steps).await;
                    cases.extend(ran.iter().flat_map(step_cases));
                    let lost = ran.into_iter().find_map(|ran| ran.outcome.lost);
                    if let Some(error) = lost.filter(is_hosts) {
                        return Err(hosts_fault(image, error));
                    }
                }
                guest.finish().await;
            }
            Err(error) if is_hosts(&error) => return Err(hosts_fault(image, error)),
            Err(error) => cases.push(boot_case(started, Some(error.to_string()))),
        }
        for case in &cases {
            log.line(&format!("{}: {}: {}", case.component, case.name, case.failure.as_deref().unwrap_or("passed")));
        }
        let passed = cases.iter().all(|case| case.failure.is_none());
        Ok(Test { finished: Timestamp::now(), disk: sealed.sha256, passed, cases })
    }
}

/// A test that did not come to an end has failed.
fn out_of_time(image: &Image, most: Duration) -> Test {
    let case = TestCase {
        component: "test".to_owned(),
        name: "the test stage ends in time".to_owned(),
        action: String::new(),
        seconds: most.as_secs_f64(),
        failure: Some(format!("it did not end within {} s", most.as_secs())),
    };
    let disk = image.manifest.disk.as_ref().map(|disk| disk.sha256.clone()).unwrap_or_default();
    Test { finished: Timestamp::now(), disk, passed: false, cases: vec![case] }
}

/// A folder with nothing in it.
fn empty_folder(folder: PathBuf) -> Result<PathBuf, Error> {
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir(&folder)?;
    Ok(folder)
}

/// What a test changes in what is known of an image.
pub(super) fn record(manifest: &mut Manifest, test: Test) {
    let reason = first_failure(&test).map(|failure| format!("its test failed: {failure}"));
    manifest.tested = test.passed;
    // An image that somebody has retired stays so.
    let is_retired = matches!(manifest.state, State::Deprecated | State::Disabled);
    match test.passed {
        true if is_retired => {}
        true => manifest.set_state(State::Available, None),
        false => manifest.set_state(State::Failed, reason),
    }
    manifest.test = Some(test);
}

/// What failed first in a test, for others.
pub(super) fn failure_context(test: &Test) -> Option<FailureContext> {
    let case = test.cases.iter().find(|case| case.failure.is_some())?;
    let component = ComponentFailure {
        component_arn: case.component.clone(),
        phase_name: "test".to_owned(),
        step_name: case.name.clone(),
        action: case.action.clone(),
        error_message: case.failure.clone().unwrap_or_default(),
    };
    let (image_status, failed_step) = (State::Testing.to_string(), Some("test".to_owned()));
    Some(FailureContext { image_status, failed_step, component_failure: Some(component), distribution_failure: None })
}

fn first_failure(test: &Test) -> Option<String> {
    test.cases.iter().find_map(|case| {
        let failure = case.failure.as_ref()?;
        Some(format!("{}/{}: {failure}", case.component, case.name))
    })
}

/// A failed test as an error.
pub fn failure(image: &Image, test: &Test) -> Option<Error> {
    let log = image.folder().join(EVIDENCE).join(TEST_LOG);
    first_failure(test).map(|reason| Error::Test { image: image.id.clone(), reason, log })
}

/// What this host lacks, or did to a machine, is no fault of the image's.
fn is_hosts(error: &guest::Error) -> bool {
    use crate::machine::End;
    matches!(error, guest::Error::Machine(_) | guest::Error::Ended { end: End::HostDisk { .. } | End::Died { .. }, .. })
}

fn hosts_fault(image: &Image, error: guest::Error) -> Error {
    let log = image.folder().join(EVIDENCE).join(CONSOLE_LOG);
    Error::Guest { doing: "it was tested".to_owned(), source: Box::new(error), log }
}

/// Waits until the system is up. A failed unit is a problem unless the recipe allows it.
pub(super) async fn check_system(guest: &Guest, allowed: &[String]) -> Result<Option<String>, guest::Error> {
    let failed = match guest.wait_for_system().await? {
        SystemState::Running | SystemState::Unknown => return Ok(None),
        SystemState::Degraded { failed } => failed,
    };
    let failed: Vec<String> = failed.into_iter().filter(|unit| !allowed.contains(unit)).collect();
    if failed.is_empty() {
        return Ok(None);
    }
    let mut problem = format!("the system came up degraded: {} failed", failed.join(", "));
    for unit in failed.iter().filter(|unit| !unit.contains(' ')) {
        let (_, lines) = guest.ask(&["journalctl", "--no-pager", "--lines=5", "--output=cat", "--unit", unit]).await?;
        problem.extend(lines.lines().map(|line| format!("\n    {}", plain(line))));
    }
    Ok(Some(problem))
}

fn boot_case(started: Instant, failure: Option<String>) -> TestCase {
    let seconds = started.elapsed().as_secs_f64();
    TestCase {
        component: BOOT.to_owned(),
        name: "the system comes up".to_owned(),
        action: String::new(),
        seconds,
        failure,
    }
}

fn step_cases(ran: &Ran) -> impl Iterator<Item = TestCase> {
    ran.outcome.steps.iter().map(|report| {
        let failure = match &report.status {
            StepStatus::Success | StepStatus::Skipped | StepStatus::FailureIgnored(_) => None,
            StepStatus::Failed(failure) => {
                let mut text = failure.message.clone();
                text.extend(failure.sign.map(|sign| format!(": {}", sign.name)));
                text.extend(failure.tail.iter().map(|line| format!("\n    {line}")));
                Some(text)
            }
        };
        let seconds = report.duration.as_secs_f64();
        let (component, name, action) = (ran.component.clone(), report.step.clone(), report.action.to_owned());
        TestCase { component, name, action, seconds, failure }
    })
}

/// A component to test with.
struct Document {
    name: String,
    path: PathBuf,
    parameters: Vec<(String, String)>,
    /// Values of references that it was built with.
    references: Vec<(String, String)>,
}

impl Document {
    /// The values that it is given: those of the user's before those that it was built with.
    fn values(&self, given: &Given) -> Values {
        let references: Vec<_> = self.references.iter().chain(&given.references).cloned().collect();
        Values::new((&references, &given.secrets))
    }
}

/// The documents that an image was built with, which lie in its folder. What is kept of the references that they were given
/// wins over what the recipe says.
fn kept_documents(image: &Image, recipe: &Recipe) -> Result<Vec<Document>, Error> {
    let used = image.manifest.source.iter().flat_map(|source| &source.components);
    let mut documents = Vec::new();
    for (number, component) in (1..).zip(used) {
        let name = component.document.name.clone();
        let path = kept_document(image, number, &name);
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let set = component.parameters.iter().map(|(name, value)| (name.clone(), text(value)));
        let kept = component.references.iter().map(|(name, value)| (name.clone(), text(value)));
        let of_recipe = recipe.references.iter().map(|(name, value)| (name.value.clone(), value.value.clone()));
        let references = of_recipe.chain(kept).collect();
        let parameters = declared(&path, set.collect())?;
        documents.push(Document { name, path, parameters, references });
    }
    Ok(documents)
}

fn named_documents(paths: &[PathBuf]) -> Vec<Document> {
    let name = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let document = |path: &PathBuf| Document {
        name: name(path),
        path: path.clone(),
        parameters: Vec::new(),
        references: Vec::new(),
    };
    paths.iter().map(document).collect()
}

/// Parameters that a document declares. A script's are not its document's, and its document has nothing to test.
fn declared(path: &Path, set: Vec<(String, String)>) -> Result<Vec<(String, String)>, Error> {
    let source = Source::read(path).map_err(Error::Unreadable)?;
    let (program, _) = Program::check(&source, Strictness::Compat).map_err(Box::new)?;
    let declares = |name: &str| program.document.parameters.iter().any(|parameter| parameter.name.value == name);
    Ok(set.into_iter().filter(|(name, _)| declares(name)).collect())
}

/// What documents refer to and nobody has given.
fn missing(documents: &[Document], given: &Given) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for document in documents {
        let (program, _) = compile(document)?;
        names.extend(document.values(given).missing(&program).into_iter().map(|(name, _)| name));
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// A document's program, as far as it tests, and what is wrong with its parameters.
fn compile(document: &Document) -> Result<(Program, Vec<String>), Error> {
    let source = Source::read(&document.path).map_err(Error::Unreadable)?;
    let compiled = Program::compile(&source, &document.parameters, Strictness::Compat).map_err(Box::new)?;
    let (mut program, _, problems) = compiled;
    program.keep_phases(&TEST_PHASES);
    Ok((program, problems))
}

/// The components to test with. Where the recipe took a secret from is only said: an image may have come from somebody else,
/// whose commands nobody has asked for.
fn read_components(documents: Vec<Document>, recipe: &Recipe, given: &Given) -> Result<Vec<PlannedComponent>, Error> {
    let mut components = Vec::new();
    for document in documents {
        let (program, problems) = compile(&document)?;
        let values = document.values(given);
        let missing = values.missing(&program);
        let problems = problems.into_iter().map(|problem| (String::new(), problem)).chain(missing);
        if let Some((name, message)) = problems.into_iter().next() {
            let source = recipe.secrets.iter().find(|(reference, _)| *reference == name).map(|(_, source)| source);
            let help = source.map(|source| {
                let name = secret::name(&name);
                format!(
                    "the recipe takes it from {source}; if that is right here: --secret {}",
                    quote(&format!("{name}={source}"))
                )
            });
            return Err(Error::Recipe { place: document.path.display().to_string(), message, help });
        }
        let (references, secrets) = values.used(&program);
        let Document { name, parameters, .. } = document;
        components.push(PlannedComponent { name, program, parameters, references, secrets, brings: None });
    }
    Ok(components)
}
