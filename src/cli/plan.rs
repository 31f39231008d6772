//! `goldsmith plan`.

use std::path::PathBuf;

use clap::Args;

use super::build::SiteArguments;
use super::output::{BOLD, DIM, GOOD, WARN, duration};
use super::publish::ServiceArguments;
use super::report::CliError;
use super::values::ValueArguments;
use super::{Accelerator, Context};
use crate::factory::{Factory, Options, Plan};

/// Say what a build would do, what it need not do, and why; nothing is started
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The recipe, YAML or JSON
    recipe: PathBuf,
    #[command(flatten)]
    values: ValueArguments,
    /// As for build: leave the test out
    #[arg(long)]
    no_test: bool,
    /// As for build: run every component
    #[arg(long)]
    fresh: bool,
    /// As for build: boot the parent
    #[arg(long)]
    cold: bool,
    /// What guests would run on
    #[arg(long, value_enum, default_value_t)]
    accel: Accelerator,
    #[command(flatten)]
    services: ServiceArguments,
    #[command(flatten)]
    site: SiteArguments,
}

pub(super) async fn run(arguments: Arguments, context: &Context) -> Result<(), CliError> {
    let Arguments { recipe, values, no_test, fresh, cold, services, site, accel } = arguments;
    let factory = Factory { endpoints: services.endpoints(), ..context.factory(accel)? };
    let plan = values.plan(|given| Plan::read(&recipe, given), &factory).await?;
    let options = Options { no_test, fresh, cold, site: site.wishes(), ..Options::default() };
    let forecast = factory.forecast(&plan, &options).await?;
    drop(factory);
    let output = &context.output;
    if output.json {
        return output.json(&forecast);
    }
    for warning in &plan.warnings {
        output.warning(warning);
    }
    for note in &plan.notes {
        output.note(note);
    }
    if let Some(image) = &forecast.unchanged {
        output.result(&format!("{BOLD}{image}{BOLD:#} {GOOD}unchanged{GOOD:#}: a build returns it at once"));
        return Ok(());
    }
    output.result(&format!("{BOLD}{}{BOLD:#}", forecast.image));
    for step in &forecast.steps {
        let seconds = step.seconds.filter(|_| !step.hit).map(|seconds| format!(" {DIM}{}{DIM:#}", duration(seconds)));
        let (seconds, name) = (seconds.unwrap_or_default(), &step.name);
        output.result(&match &step.why {
            None => format!("  {GOOD}hit{GOOD:#}   {name}"),
            Some(why) => format!("  {WARN}miss{WARN:#}  {name}{seconds}: {why}"),
        });
    }
    output.result(&match forecast.seconds {
        Some(seconds) => format!("about {}, going by earlier builds", duration(seconds)),
        None => format!("how long it takes is not known: {}", forecast.unknown.join(", ")),
    });
    Ok(())
}
