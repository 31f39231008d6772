//! `goldsmith publish`.

use std::path::PathBuf;

use clap::Args;
use goldsmith_aws::Endpoints;
use serde::Serialize;

use super::build::SiteArguments;
use super::events::EventArguments;
use super::output::{BOLD, DIM, GOOD, table};
use super::report::CliError;
use super::values::secret;
use super::{Accelerator, Context};
use crate::document::distribution::Distribution;
use crate::document::secret::SecretSource;
use crate::factory::{self, CheckOptions, Factory, PublishOptions};
use crate::publish::{Call, Outcome, Plan};
use crate::store::version::{ImageId, Pattern};
use crate::store::{Image, Reservation, manifest};

/// Publish an image: as AMIs, as objects of S3, as files in folders
///
/// A distribution configuration says where: one of EC2 Image Builder's, or one with goldsmith's own places. The image is
/// checked first. What is done is noted in the image's folder as it is done, so a publication that was cut off or failed in
/// one region goes on where it was, and nothing is made twice. Ends with 6 if a place failed; the others are done all the
/// same.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The image: NAME, NAME/VERSION or NAME/VERSION/BUILD
    image: Pattern,
    /// The distribution configuration, YAML or JSON
    #[arg(long, value_name = "FILE")]
    distribution: PathBuf,
    /// Go on with a publication that was cut off or has failed
    #[arg(long, group = "what")]
    resume: bool,
    /// Take back what a publication has made that has failed
    #[arg(long)]
    undo: bool,
    /// Take back even one that went well
    #[arg(long, requires = "undo")]
    force: bool,
    /// Say what would be done and asked of AWS, and do nothing
    #[arg(long, group = "what", conflicts_with = "undo")]
    plan: bool,
    /// Print the least IAM policy that allows it; with `--undo`, that which allows taking it back too
    #[arg(long, group = "what")]
    policy: bool,
    /// Look for a secret on the whole disk: NAME=env:VARIABLE, NAME=file:PATH or NAME=cmd:COMMAND
    #[arg(long = "secret", value_name = "NAME=SOURCE", value_parser = secret)]
    secrets: Vec<(String, SecretSource)>,
    /// What guests run on
    #[arg(long, value_enum, default_value_t)]
    accel: Accelerator,
    #[command(flatten)]
    services: ServiceArguments,
    #[command(flatten)]
    events: EventArguments,
    #[command(flatten)]
    site: SiteArguments,
}

/// Where services are
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Services")]
pub(super) struct ServiceArguments {
    /// Address of all services, instead of AWS's own
    #[arg(long, value_name = "URL")]
    endpoint_url: Option<String>,
    /// Address of S3, instead of AWS's own
    #[arg(long, value_name = "URL")]
    s3_endpoint: Option<String>,
}

impl ServiceArguments {
    /// The same on another goldsmith's command line.
    pub(super) fn words(&self) -> Vec<String> {
        let given = [("--endpoint-url", &self.endpoint_url), ("--s3-endpoint", &self.s3_endpoint)];
        given.into_iter().flat_map(|(flag, url)| url.iter().map(move |url| format!("{flag}={url}"))).collect()
    }

    pub(super) fn endpoints(self) -> Endpoints {
        Endpoints { all: self.endpoint_url, s3: self.s3_endpoint }
    }
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
pub(super) struct Summary<'a> {
    image: String,
    distribution: &'a str,
    published: bool,
    places: Vec<PlaceSummary<'a>>,
}

#[derive(Debug, Serialize)]
struct PlaceSummary<'a> {
    place: &'a str,
    published: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    artifacts: &'a [manifest::Artifact],
}

/// What `--plan --json` prints.
#[derive(Debug, Serialize)]
struct PlannedPlace<'a> {
    place: &'a str,
    steps: Vec<PlannedStep>,
}

#[derive(Debug, Serialize)]
struct PlannedStep {
    step: String,
    calls: Vec<Call>,
}

pub(super) async fn run(arguments: Arguments, context: &Context) -> Result<(), CliError> {
    let distribution = read(&arguments.distribution, context)?;
    let mut factory = Factory { endpoints: arguments.services.endpoints(), ..context.factory(arguments.accel)? };
    // One that can be published, or the newest of all, which says why not.
    let found = factory.store.find_usable(&arguments.image);
    let image = found.or_else(|_| factory.store.find(&arguments.image, |_| true))?;
    if arguments.plan || arguments.policy {
        let plan = factory.plan_publication(&image, &distribution)?;
        drop(factory);
        return if arguments.policy { policy(&plan, arguments.undo, context) } else { show_plan(&plan, context) };
    }
    let mut reservation = Reservation::of(&factory.store, image)?;
    let image = &mut reservation.image;
    if arguments.undo {
        return undo(&factory, image, &distribution, arguments.force, context).await;
    }
    let check = CheckOptions { no_boot: false, secrets: arguments.secrets, site: arguments.site.wishes() };
    let options = PublishOptions { resume: arguments.resume, check };
    let telling = arguments.events.tell_of(&mut factory, context);
    let outcomes = factory.publish(image, &distribution, &options).await;
    telling.finish(context).await;
    drop(factory);
    let outcomes = outcomes?;
    if context.output.json {
        context.output.json(&summary(&image.id, &distribution, &outcomes))?;
    } else {
        show(&outcomes, context);
    }
    failure(&image.id, &outcomes)
}

/// Reads a distribution configuration, and shows what is strange about it.
pub(super) fn read(path: &std::path::Path, context: &Context) -> Result<Distribution, CliError> {
    Ok(factory::read_distribution(path, |warning| context.output.warning(warning))?)
}

async fn undo(
    factory: &Factory,
    image: &mut Image,
    distribution: &Distribution,
    force: bool,
    context: &Context,
) -> Result<(), CliError> {
    let undone = factory.undo_publication(image, distribution, force).await?;
    let mut failed = 0;
    for undone in &undone {
        let what = format!("{}: {}", undone.step.place, undone.step.step);
        match &undone.error {
            None => context.output.progress(&format!("{what} {GOOD}is taken back{GOOD:#}")),
            Some(error) => {
                failed += 1;
                context.output.warning(&format!("{what} is still there: {}", crate::host::one_line(error)));
            }
        }
    }
    if context.output.json {
        let text = |error: &crate::publish::Error| crate::host::one_line(error);
        let all: Vec<serde_json::Value> = undone
            .iter()
            .map(|undone| {
                let error = undone.error.as_ref().map(text);
                serde_json::json!({ "place": undone.step.place, "step": undone.step.step, "error": error })
            })
            .collect();
        context.output.json(&all)?;
    } else {
        let count = undone.len() - failed;
        context.output.result(&format!("{count} steps were taken back, {failed} were not"));
    }
    match failed {
        0 => Ok(()),
        failed => Err(CliError::Unpublished { image: image.id.clone(), failed, of: undone.len() }),
    }
}

/// What has become of each place, as JSON.
pub(super) fn summary<'a>(image: &ImageId, distribution: &'a Distribution, outcomes: &'a [Outcome]) -> Summary<'a> {
    let place = |outcome: &'a Outcome| PlaceSummary {
        place: &outcome.place,
        published: outcome.error.is_none(),
        error: why(outcome),
        artifacts: &outcome.artifacts,
    };
    Summary {
        image: image.to_string(),
        distribution: &distribution.name.value,
        published: outcomes.iter().all(|outcome| outcome.error.is_none()),
        places: outcomes.iter().map(place).collect(),
    }
}

/// What has become of each place, for people.
pub(super) fn show(outcomes: &[Outcome], context: &Context) {
    let rows: Vec<Vec<String>> = outcomes.iter().flat_map(rows).collect();
    for line in table(&["PLACE", "STATE", "WHAT", ""], &rows) {
        context.output.result(&line);
    }
}

/// The lines of one place; what a snapshot is for stands there already.
fn rows(outcome: &Outcome) -> Vec<Vec<String>> {
    let state = if outcome.error.is_some() { "failed" } else { "done" };
    let mut cells: Vec<(String, String)> = Vec::new();
    for artifact in outcome.artifacts.iter().filter(|artifact| artifact.kind != "snapshot") {
        let account = artifact.account.as_ref().map(|account| format!(" in {account}")).unwrap_or_default();
        let named = artifact.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        cells.push((artifact.kind.clone(), format!("{}{account}{named}", artifact.id)));
    }
    cells.extend(why(outcome).map(|why| ("error".to_owned(), why)));
    if cells.is_empty() {
        cells.push(Default::default());
    }
    let mut head = vec![outcome.place.clone(), state.to_owned()];
    let row = |(kind, what)| {
        let mut row = std::mem::replace(&mut head, vec![String::new(), String::new()]);
        row.extend([kind, what]);
        row
    };
    cells.into_iter().map(row).collect()
}

fn why(outcome: &Outcome) -> Option<String> {
    outcome.error.as_ref().map(|error| crate::host::one_line(error))
}

/// That some places failed, if so.
pub(super) fn failure(image: &ImageId, outcomes: &[Outcome]) -> Result<(), CliError> {
    match outcomes.iter().filter(|outcome| outcome.error.is_some()).count() {
        0 => Ok(()),
        failed => Err(CliError::Unpublished { image: image.clone(), failed, of: outcomes.len() }),
    }
}

fn policy(plan: &Plan, with_undo: bool, context: &Context) -> Result<(), CliError> {
    context.output.json(&plan.policy(with_undo))
}

fn show_plan(plan: &Plan, context: &Context) -> Result<(), CliError> {
    let places = plan.places.iter().map(|place| {
        let region = place.region.as_deref().unwrap_or_default();
        let steps = place.steps.iter().map(|step| PlannedStep { step: step.describe(), calls: step.calls(region) });
        PlannedPlace { place: &place.name, steps: steps.collect() }
    });
    let mut places: Vec<PlannedPlace<'_>> = places.collect();
    let pointers = plan.pointers.iter().map(|pointer| format!("the pointer of {} is moved", pointer.place));
    let topic = plan.topic.iter().map(|topic| format!("{topic} is told"));
    let mut last: Vec<String> = pointers.chain(topic).collect();
    if let Some(step) = last.pop() {
        let mut steps: Vec<PlannedStep> =
            last.into_iter().map(|step| PlannedStep { step, calls: Vec::new() }).collect();
        steps.push(PlannedStep { step, calls: plan.last_calls() });
        places.push(PlannedPlace { place: "when all went well", steps });
    }
    if context.output.json {
        return context.output.json(&places);
    }
    for place in &places {
        context.output.result(&format!("{BOLD}{}{BOLD:#}", place.place));
        for step in &place.steps {
            context.output.result(&format!("  {}", step.step));
            for call in &step.calls {
                let operations = call.operations.map(|names| format!(" ({names})")).unwrap_or_default();
                let often = call.often.map(|often| format!(", {often}")).unwrap_or_default();
                let resource = &call.resource;
                let line = format!("      {}{operations} {DIM}{resource}{often}{DIM:#}", call.action);
                context.output.result(&line);
            }
        }
    }
    Ok(())
}
