//! `goldsmith shell`.

use std::path::PathBuf;

use clap::Args;

use super::build::SiteArguments;
use super::publish::ServiceArguments;
use super::report::CliError;
use super::values::ValueArguments;
use super::{Accelerator, Context, terminal};
use crate::factory::{Factory, Options, Plan};

/// Open a shell in a build machine, in the state before a component; nothing of it stays
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The recipe, YAML or JSON
    recipe: PathBuf,
    /// The component before which to stop; after the last one unless given
    #[arg(long, value_name = "COMPONENT")]
    at: Option<String>,
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

pub(super) async fn run(arguments: Arguments, context: &Context) -> Result<(), CliError> {
    context.no_json("what the guest's shell writes")?;
    let factory = Factory { endpoints: arguments.services.endpoints(), ..context.factory(arguments.accel)? };
    let plan = arguments.values.plan(|given| Plan::read(&arguments.recipe, given), &factory).await?;
    let options = Options { site: arguments.site.wishes(), ..Options::default() };
    let attach = terminal::attach(&context.output);
    Ok(factory.shell(&plan, arguments.at.as_deref(), &options, &attach).await?)
}
