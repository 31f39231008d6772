//! `goldsmith shell`.

use std::path::PathBuf;

use clap::Args;

use super::build::{SiteArguments, assignment};
use super::report::CliError;
use super::{Accelerator, Context, terminal};
use crate::factory::{Options, Plan};

/// Open a shell in a build machine, in the state before a component; nothing of it stays
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The recipe, YAML or JSON
    recipe: PathBuf,
    /// The component before which to stop; after the last one unless given
    #[arg(long, value_name = "COMPONENT")]
    at: Option<String>,
    /// Set a parameter of the components that declare it
    #[arg(long = "parameter", short, value_name = "NAME=VALUE", value_parser = assignment)]
    parameters: Vec<(String, String)>,
    /// What the guest runs on
    #[arg(long, value_enum, default_value_t)]
    accel: Accelerator,
    #[command(flatten)]
    site: SiteArguments,
}

pub(super) async fn run(arguments: Arguments, context: &Context) -> Result<(), CliError> {
    let plan = Plan::read(&arguments.recipe, &arguments.parameters)?;
    let options = Options { site: arguments.site.wishes(), ..Options::default() };
    let factory = context.factory(arguments.accel)?;
    let attach = terminal::attach(&context.output);
    Ok(factory.shell(&plan, arguments.at.as_deref(), &options, &attach).await?)
}
