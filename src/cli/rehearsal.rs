//! `goldsmith component run`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::build::SiteArguments;
use super::output::{BAD, DIM, GOOD, WARN};
use super::publish::ServiceArguments;
use super::report::CliError;
use super::values::ValueArguments;
use super::{Accelerator, Context};
use crate::component::{StepReport, StepStatus};
use crate::document::component::PHASES;
use crate::factory::{Factory, Given, Options, Plan, Rehearsed};

/// Run components in a throw-away machine, or on this very machine
///
/// With `--in`, for developing them: the machine is a restored checkpoint of the parent, so a turn takes seconds; nothing is
/// sealed, and nothing of it stays. Ends with 3 if a step failed.
///
/// Without, they change this machine, as `awstoe run` does, and leave the same folder of logs. Ends with 1 if a step failed,
/// and with 194 if one asks for a restart.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The components: files, names of shipped ones, ARNs
    #[arg(required = true)]
    documents: Vec<String>,
    /// What they run in: a base image, an image, or anything else that may be a recipe's parentImage
    #[arg(long = "in", value_name = "PARENT")]
    parent: Option<String>,
    /// The phases to run; build, validate and test with --in, all of a document's without it
    #[arg(long, value_name = "PHASES", value_delimiter = ',')]
    phases: Vec<String>,
    /// Folder for the folder of logs, without --in
    #[arg(long, value_name = "DIR", default_value = ".", conflicts_with = "parent")]
    log_directory: PathBuf,
    #[command(flatten)]
    values: ValueArguments,
    /// What the guest runs on
    #[arg(long, value_enum, default_value_t)]
    accel: Accelerator,
    #[command(flatten)]
    services: ServiceArguments,
    #[command(flatten)]
    site: SiteArguments,
}

/// A plan has a parent; a run on this machine looks at none.
const NOT_LOOKED_AT: &str = "debian-12-minimal";

/// What `--json` prints: the members that `awstoe run` prints, and the steps. AWS user guide, "AWSTOE command reference".
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    execution_id: String,
    status: &'static str,
    failed_step_count: usize,
    executed_step_count: usize,
    ignored_failed_step_count: usize,
    skipped_step_count: usize,
    failure_message: String,
    /// The folder of logs, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    log_url: Option<PathBuf>,
    steps: Vec<StepSummary<'a>>,
}

#[derive(Debug, Serialize)]
struct StepSummary<'a> {
    component: &'a str,
    phase: &'a str,
    step: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    seconds: f64,
}

pub(super) async fn run(arguments: Arguments, context: &Context) -> Result<(), CliError> {
    let documents: Vec<String> = arguments.documents.iter().map(|document| as_path(document)).collect();
    let factory = Factory { endpoints: arguments.services.endpoints(), ..context.factory(arguments.accel)? };
    let parent = arguments.parent.as_deref().unwrap_or(NOT_LOOKED_AT);
    let read = |given: &Given| Plan::of_documents(parent, &documents, Path::new("."), given);
    let plan = arguments.values.plan(read, &factory).await?;
    plan.warnings.iter().for_each(|warning| context.output.warning(warning));
    let phases: Vec<&str> = arguments.phases.iter().map(String::as_str).collect();
    if arguments.parent.is_none() {
        return here(&plan, &phases, &arguments.log_directory, (&factory, context)).await;
    }
    let phases = if phases.is_empty() { PHASES.to_vec() } else { phases };
    let options = Options { site: arguments.site.wishes(), ..Options::default() };
    let rehearsed = factory.rehearse(&plan, &phases, &options).await?;
    drop(factory);
    show_all(&rehearsed, &summary(&rehearsed), context)?;
    let failed = failed(&rehearsed);
    if failed.is_empty() { Ok(()) } else { Err(CliError::Rehearsal { failed }) }
}

/// Runs them on this machine.
async fn here(
    plan: &Plan,
    phases: &[&str],
    logs: &Path,
    (factory, context): (&Factory, &Context),
) -> Result<(), CliError> {
    context.output.note("the components run on this very machine, and change it");
    let ran = factory.run_here(plan, Some(phases).filter(|phases| !phases.is_empty()), logs).await?;
    let (execution_id, log_url) = (ran.execution_id, Some(ran.logs));
    let summary = Summary { execution_id, log_url, ..summary(&ran.documents) };
    show_all(&ran.documents, &summary, context)?;
    let (failed, wants_restart) = (failed(&ran.documents), ran.wants_restart);
    if failed.is_empty() { Ok(()) } else { Err(CliError::FailedHere { failed, wants_restart }) }
}

fn failed(rehearsed: &[Rehearsed]) -> Vec<String> {
    rehearsed.iter().filter(|one| !one.has_succeeded()).map(|one| one.component.clone()).collect()
}

fn show_all(rehearsed: &[Rehearsed], summary: &Summary<'_>, context: &Context) -> Result<(), CliError> {
    if context.output.json {
        context.output.json(summary)?;
    } else {
        let Summary { executed_step_count, failed_step_count, ignored_failed_step_count, skipped_step_count, .. } =
            summary;
        let (style, word) = if summary.status == "success" { (GOOD, "success") } else { (BAD, "failed") };
        context.output.result(&format!(
            "{style}{word}{style:#}: {executed_step_count} steps ran, {failed_step_count} failed, \
             {ignored_failed_step_count} failures were ignored, {skipped_step_count} were skipped"
        ));
        rehearsed.iter().for_each(|rehearsed| show(rehearsed, context));
        if let Some(logs) = &summary.log_url {
            context.output.result(&format!("logs are in {}", logs.display()));
        }
    }
    Ok(())
}

/// A file in this folder is one without a path before it; in a recipe it could be a name.
fn as_path(document: &str) -> String {
    let is_bare = !document.contains('/') && Path::new(document).is_file();
    if is_bare { format!("./{document}") } else { document.to_owned() }
}

fn summary(rehearsed: &[Rehearsed]) -> Summary<'_> {
    let all = || rehearsed.iter().flat_map(|one| one.steps.iter().map(move |step| (one, step)));
    let count = |word: &str| all().filter(|(_, step)| status(step).0 == word).count();
    let failed = rehearsed.iter().find(|one| !one.has_succeeded());
    Summary {
        execution_id: uuid::Uuid::new_v4().to_string(),
        status: if failed.is_some() { "failed" } else { "success" },
        failed_step_count: count("failed"),
        executed_step_count: all().count() - count("skipped"),
        ignored_failed_step_count: count("ignoredFailure"),
        skipped_step_count: count("skipped"),
        log_url: None,
        failure_message: failed.map(|one| format!("Document {} failed!", one.component)).unwrap_or_default(),
        steps: all()
            .map(|(one, step)| StepSummary {
                component: &one.component,
                phase: &step.phase,
                step: &step.step,
                status: status(step).0,
                message: status(step).1,
                seconds: step.duration.as_secs_f64(),
            })
            .collect(),
    }
}

fn status(step: &StepReport) -> (&'static str, Option<&str>) {
    match &step.status {
        StepStatus::Success => ("success", None),
        StepStatus::Skipped => ("skipped", None),
        StepStatus::Failed(failure) => ("failed", Some(&failure.message)),
        StepStatus::FailureIgnored(failure) => ("ignoredFailure", Some(&failure.message)),
    }
}

fn show(rehearsed: &Rehearsed, context: &Context) {
    for step in &rehearsed.steps {
        let (word, message) = status(step);
        let style = match &step.status {
            StepStatus::Success => GOOD,
            StepStatus::Skipped => DIM,
            StepStatus::Failed(_) => BAD,
            StepStatus::FailureIgnored(_) => WARN,
        };
        let message = message.map(|message| format!(" {message}")).unwrap_or_default();
        let (component, phase, step) = (&rehearsed.component, &step.phase, &step.step);
        context.output.result(&format!("  {component}/{phase}/{step} {style}{word}{style:#}{message}"));
    }
    if let Some((_, failure)) = rehearsed.failure() {
        failure.tail.iter().for_each(|line| context.output.result(&format!("      {line}")));
        if let Some(sign) = failure.sign {
            context.output.result(&format!("      {}: {}", sign.name, sign.hint));
        }
    }
    if let Some(lost) = &rehearsed.lost {
        context.output.result(&format!("  {}: {BAD}{lost}{BAD:#}", rehearsed.component));
    }
}
