//! Documents on this very machine, as AWS's own executor runs them, with the folder of logs that it leaves.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use fs_err as fs;
use goldsmith_agent::message::Stream;
use jiff::Timestamp;
use serde_json::{Value as Json, json};

use super::components::{Ran, Steps};
use super::plan::{Plan, PlannedComponent};
use super::rehearsal::{Rehearsed, described};
use super::{Error, Event, Factory};
use crate::component::{
    Event as StepEvent, References, Secrets, Site as Surroundings, StepOutline, StepReport, StepStatus,
};
use crate::guest::{self, Guest, plain_environment};
use crate::host::file;
use crate::store::Run;

/// What documents have done to this machine.
#[derive(Debug)]
pub struct RanHere {
    /// The run, also in the name of its folder of logs.
    pub execution_id: String,
    /// The folder of logs.
    pub logs: PathBuf,
    /// What has become of the documents that ran.
    pub documents: Vec<Rehearsed>,
    /// Whether a step asks for a restart of this machine, after which everything has to be run again.
    pub wants_restart: bool,
}

impl Factory {
    /// Runs phases of a plan's components on this very machine; all of a document's phases where none are named. Logs go
    /// into a folder of their own below `logs`. A step that fails is a result; an error is not.
    pub async fn run_here(&self, plan: &Plan, phases: Option<&[&str]>, logs: &Path) -> Result<RanHere, Error> {
        let run = self.store.begin_run("here")?;
        let secrets = self.secrets(&plan.secrets).await?;
        let execution_id = uuid::Uuid::new_v4().to_string();
        let recorder = Recorder::begin(logs, &execution_id, plan, phases, &secrets)?;
        let folder = recorder.folder.clone();
        let recorder = Arc::new(Mutex::new(recorder));
        let (listener, records) = (self.listener.clone(), recorder.clone());
        let heard = move |event: Event| {
            // The result counts, and is there without it.
            if let Err(error) = records.lock().unwrap_or_else(PoisonError::into_inner).hear(&event) {
                tracing::warn!(%error, "the log can't be written");
            }
            listener(event);
        };
        let recorded = Self { listener: Arc::new(heard), ..self.clone() };
        let ran = recorded.documents_here(plan, phases, &run, secrets, &execution_id).await;
        let mut recorder = recorder.lock().unwrap_or_else(PoisonError::into_inner);
        let is_good = ran
            .as_ref()
            .is_ok_and(|ran| ran.iter().all(|ran| ran.outcome.failure().is_none() && ran.outcome.lost.is_none()));
        // What went wrong is worth more than that it can't be written down.
        let ended = recorder.end(is_good);
        let ran = ran?;
        ended?;
        let wants_restart = ran.iter().any(|ran| ran.outcome.wants_restart);
        let documents = ran.into_iter().map(described).collect();
        Ok(RanHere { execution_id, logs: folder, documents, wants_restart })
    }

    async fn documents_here(
        &self,
        plan: &Plan,
        phases: Option<&[&str]>,
        run: &Run,
        secrets: Secrets,
        execution_id: &str,
    ) -> Result<Vec<Ran>, Error> {
        let guest = Guest::here(run.folder(), !secrets.is_empty()).await.map_err(|error| {
            let is_noexec =
                matches!(&error, guest::Error::Agent { source } if source.kind() == io::ErrorKind::PermissionDenied);
            let allow = if is_noexec { "the store's file system has to allow programs (`noexec`); or " } else { "" };
            Error::Host {
                what: format!("this machine can't be worked on: {}", crate::host::one_line(&error)),
                mend: format!("{allow}run it in a machine: --in PARENT"),
            }
        })?;
        let working_directory = std::env::current_dir()?.to_string_lossy().into_owned();
        let mut environment: Vec<(String, String)> = plain_environment();
        environment.push(("WORKING_DIRECTORY".to_owned(), working_directory.clone()));
        let surroundings = Surroundings {
            environment,
            working_directory,
            references: References::new(),
            secrets,
            execution_id: execution_id.to_owned(),
            ..Surroundings::default()
        };
        let courier = self.courier(&plan.recipe);
        let named = plan.components.iter().flat_map(|component| component.program.phases());
        let all: Vec<&str> = named.collect();
        let phases = phases.unwrap_or(&all);
        let steps =
            Steps { guest: &guest, surroundings: &surroundings, courier: &courier, phases, allowed_failed_units: None };
        let mut stages = Vec::new();
        let work = async { Ok::<_, Error>(self.run_components(&plan.components, &steps).await) };
        let ran = self.stage(&mut stages, "run", work).await;
        guest.finish().await;
        ran
    }
}

/// Writes the folder of logs: `TOE_TIME_UTC-0_ID` with `detailedoutput.json`, `chaining.json`, `console.log`,
/// `application.log` and a copy of each document. AWS user guide, "Use documents in AWSTOE"; the form of the files follows
/// those that the executor left in 2022.
struct Recorder {
    folder: PathBuf,
    console: fs::File,
    application: fs::File,
    id: String,
    started: Timestamp,
    ended: Option<(Timestamp, bool)>,
    documents: Vec<DocumentRecord>,
    /// The documents that run, by their places, and which of them runs now.
    due: Vec<usize>,
    current: usize,
}

struct DocumentRecord {
    name: String,
    path: String,
    description: String,
    started: Option<Timestamp>,
    ended: Option<Timestamp>,
    phases: Vec<PhaseRecord>,
}

struct PhaseRecord {
    name: String,
    is_selected: bool,
    steps: Vec<StepRecord>,
}

struct StepRecord {
    outline: StepOutline,
    started: Option<Timestamp>,
    ended: Option<Timestamp>,
    status: &'static str,
    failure: String,
    inputs: String,
    outputs: String,
}

impl Recorder {
    fn begin(logs: &Path, id: &str, plan: &Plan, phases: Option<&[&str]>, secrets: &Secrets) -> io::Result<Self> {
        let started = Timestamp::now();
        let folder = logs.join(format!("TOE_{}_UTC-0_{id}", started.strftime("%Y-%m-%d_%H-%M-%S")));
        fs::create_dir_all(&folder)?;
        let folder = fs::canonicalize(&folder)?;
        let is_selected = |name: &str| phases.is_none_or(|phases| phases.contains(&name));
        let mut documents = Vec::new();
        for (number, component) in plan.components.iter().enumerate() {
            let source = &component.program.document.source;
            let name =
                Path::new(&source.name).file_name().unwrap_or(component.name.as_ref()).to_string_lossy().into_owned();
            // A parameter's default may be anything, a secret too.
            fs::write(folder.join(format!("D{number}__{name}")), secrets.mask(&source.text))?;
            documents.push(DocumentRecord::of(component, &is_selected));
        }
        let has_work = |(_, document): &(usize, &DocumentRecord)| document.phases.iter().any(|phase| phase.is_selected);
        let due = documents.iter().enumerate().filter(has_work).map(|(place, _)| place).collect();
        let log = |name: &str| fs::File::create(folder.join(name));
        let (console, application) = (log("console.log")?, log("application.log")?);
        let id = id.to_owned();
        let mut recorder = Self { console, application, folder, id, started, ended: None, documents, due, current: 0 };
        recorder.say("Setup: STARTED SETUP")?;
        recorder.write()?;
        Ok(recorder)
    }

    fn hear(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Component { number, .. } => {
                self.close();
                self.current = number.checked_sub(1).and_then(|place| self.due.get(place)).copied().unwrap_or_default();
                let Some(document) = self.documents.get_mut(self.current) else { return Ok(()) };
                document.started = Some(Timestamp::now());
                let line = format!("Document {}", document.path);
                self.say(&line)
            }
            Event::Step(StepEvent::StepBegins { phase, step, action, attempt: (number, of) }) => {
                if let Some(record) = self.step(phase, step) {
                    record.started = record.started.or(Some(Timestamp::now()));
                }
                self.say(&format!("Phase {phase}"))?;
                self.say(&format!("Step {step}"))?;
                self.note(&format!("Attempt {number}/{of}"))?;
                self.say(&format!("{action}: STARTED EXECUTION"))
            }
            Event::Step(StepEvent::Output { stream: Stream::Stdout, line }) => self.say(&format!("Stdout: {line}")),
            Event::Step(StepEvent::Output { stream: Stream::Stderr, line }) => self.say(&format!("Stderr: {line}")),
            Event::Step(StepEvent::Values { phase, step, inputs, outputs }) => {
                if let Some(record) = self.step(phase, step) {
                    record.inputs.clone_from(inputs);
                    record.outputs.clone_from(outputs);
                }
                Ok(())
            }
            Event::Step(StepEvent::StepEnds(report)) => self.step_ended(report),
            Event::Step(StepEvent::Reboots) => Ok(()),
            Event::Note(text) | Event::Warning(text) => self.note(text),
            _ => Ok(()),
        }
    }

    fn step_ended(&mut self, report: &StepReport) -> io::Result<()> {
        let (status, failure) = match &report.status {
            StepStatus::Success => ("success", None),
            StepStatus::Skipped => ("skipped", None),
            StepStatus::Failed(failure) => ("failed", Some(failure)),
            StepStatus::FailureIgnored(failure) => ("IgnoredFailure", Some(failure)),
        };
        let message = failure.map(|failure| failure.message.clone()).unwrap_or_default();
        let mut action = String::new();
        if let Some(record) = self.step(&report.phase, &report.step) {
            record.ended = Some(Timestamp::now());
            record.started = record.started.or(record.ended);
            (record.status, record.failure) = (status, message.clone());
            action.push_str(record.outline.action);
        }
        if !message.is_empty() {
            self.say(&format!("{action}: {message}"))?;
        }
        self.say(&format!("{action}: FINISHED EXECUTION"))?;
        self.write()
    }

    /// The record of one of the current document's own steps.
    fn step(&mut self, phase: &str, step: &str) -> Option<&mut StepRecord> {
        let phases = &mut self.documents.get_mut(self.current)?.phases;
        let phase = phases.iter_mut().find(|record| record.name == phase)?;
        phase.steps.iter_mut().find(|record| record.outline.name == step)
    }

    /// Notes that the current document has ended.
    fn close(&mut self) {
        let current = self.documents.get_mut(self.current).filter(|document| document.started.is_some());
        if let Some(document) = current {
            document.ended = document.ended.or(Some(Timestamp::now()));
        }
    }

    fn end(&mut self, is_good: bool) -> io::Result<()> {
        self.close();
        self.ended = Some((Timestamp::now(), is_good));
        self.say("Executor: FINISHED EXECUTION OF ALL DOCUMENTS")?;
        self.say(match is_good {
            true => "TOE has completed execution successfully",
            false => "TOE has completed execution with failure - Execution failed!",
        })?;
        self.write()
    }

    fn say(&mut self, text: &str) -> io::Result<()> {
        let now = Timestamp::now();
        writeln!(self.console, "{now} {text}")?;
        writeln!(self.application, "{now} Info {text}")
    }

    fn note(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.application, "{} Debug {text}", Timestamp::now())
    }

    fn write(&self) -> io::Result<()> {
        let status = self.ended.map_or("inProgress", |(_, is_good)| if is_good { "success" } else { "failed" });
        let failed = self.documents.iter().find(|document| document.status() == "failed");
        let detailed = json!({
            "executionId": self.id,
            "status": status,
            "startTime": self.started,
            "endTime": self.ended.map(|(time, _)| time),
            "failureMessage": failed.map(|document| format!("Document {} failed!", document.path)).unwrap_or_default(),
            "documents": self.documents.iter().map(DocumentRecord::detailed).collect::<Vec<Json>>(),
        });
        let chaining: Vec<Json> = self.documents.iter().map(DocumentRecord::chaining).collect();
        file::write(self.folder.join("detailedoutput.json"), format!("{detailed:#}").as_bytes())?;
        file::write(self.folder.join("chaining.json"), format!("{:#}", Json::from(chaining)).as_bytes())
    }
}

impl DocumentRecord {
    fn of(component: &PlannedComponent, is_selected: &impl Fn(&str) -> bool) -> Self {
        let document = &component.program.document;
        let phase = |(name, steps): (&str, Vec<StepOutline>)| PhaseRecord {
            name: name.to_owned(),
            is_selected: is_selected(name),
            steps: steps.into_iter().map(StepRecord::of).collect(),
        };
        Self {
            name: document.name.clone().unwrap_or_default(),
            path: document.source.name.clone(),
            description: document.description.clone().unwrap_or_default(),
            started: None,
            ended: None,
            phases: component.program.outline().into_iter().map(phase).collect(),
        }
    }

    fn status(&self) -> &'static str {
        worst(self.phases.iter().map(PhaseRecord::status), self.ended.is_some())
    }

    fn detailed(&self) -> Json {
        let failed = self.phases.iter().find(|phase| phase.status() == "failed");
        let selected = self.phases.iter().filter(|phase| phase.is_selected);
        json!({
            "name": self.name,
            "filePath": self.path,
            "status": self.status(),
            "description": self.description,
            "startTime": self.started,
            "endTime": self.ended,
            "failureMessage": failed.map(|phase| format!("Phase {} failed!", phase.name)).unwrap_or_default(),
            "phases": selected.map(PhaseRecord::detailed).collect::<Vec<Json>>(),
        })
    }

    fn chaining(&self) -> Json {
        let step = |step: &StepRecord| json!({ "name": step.outline.name, "inputs": step.inputs, "outputs": step.outputs, "loop": null, "documents": null });
        let phase = |phase: &PhaseRecord| {
            let steps: Vec<Json> = phase.steps.iter().map(step).collect();
            json!({ "name": phase.name, "isSelected": phase.is_selected, "steps": steps })
        };
        json!({ "phases": self.phases.iter().map(phase).collect::<Vec<Json>>() })
    }
}

impl PhaseRecord {
    fn status(&self) -> &'static str {
        worst(self.steps.iter().map(|step| step.status), true)
    }

    fn detailed(&self) -> Json {
        let failed = self.steps.iter().find(|step| step.status == "failed");
        json!({
            "name": self.name,
            "status": self.status(),
            "startTime": self.steps.iter().find_map(|step| step.started),
            "endTime": self.steps.iter().rev().find_map(|step| step.ended),
            "failureMessage": failed.map(|step| format!("Step {} failed!", step.outline.name)).unwrap_or_default(),
            "steps": self.steps.iter().filter(|step| step.started.is_some()).map(StepRecord::detailed).collect::<Vec<Json>>(),
        })
    }
}

impl StepRecord {
    fn of(outline: StepOutline) -> Self {
        let none = || "[]".to_owned();
        let (started, ended, status, failure) = (None, None, "", String::new());
        Self { outline, started, ended, status, failure, inputs: none(), outputs: none() }
    }

    fn detailed(&self) -> Json {
        json!({
            "name": self.outline.name,
            "status": self.status,
            "failureMessage": self.failure,
            "timeoutSeconds": self.outline.timeout_seconds,
            "onFailure": self.outline.on_failure,
            "maxAttempts": self.outline.max_attempts,
            "action": self.outline.action,
            "startTime": self.started,
            "endTime": self.ended,
            "inputs": self.inputs,
            "outputs": self.outputs,
            "loop": null,
            "detailedOutput": null,
        })
    }
}

/// What a whole has come to whose parts have come to this.
fn worst(parts: impl Iterator<Item = &'static str>, is_over: bool) -> &'static str {
    let mut ignored = false;
    for part in parts {
        match part {
            "failed" => return "failed",
            "IgnoredFailure" | "SuccessWithIgnoredFailure" => ignored = true,
            _ => {}
        }
    }
    match (is_over, ignored) {
        (false, _) => "",
        (true, false) => "success",
        (true, true) => "SuccessWithIgnoredFailure",
    }
}
