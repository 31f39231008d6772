//! `goldsmith lifecycle`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::events::EventArguments;
use super::output::table;
use super::publish::ServiceArguments;
use super::report::CliError;
use super::{Accelerator, Context};
use crate::factory::Factory;
use crate::factory::lifecycle::{self, Ended};

/// Deprecate, disable and delete images that have grown old
#[derive(Debug, Subcommand)]
#[command(about = "Deprecate, disable and delete images that have grown old")]
pub(super) enum Command {
    /// Do what a lifecycle policy asks for, with a reason for each image
    Run(Arguments),
}

/// A policy, and what is done with it
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The policy, YAML or JSON
    policy: PathBuf,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    services: ServiceArguments,
    #[command(flatten)]
    events: EventArguments,
}

pub(super) async fn run(command: Command, context: &Context) -> Result<(), CliError> {
    let Command::Run(arguments) = command;
    let policy = lifecycle::read_policy(&arguments.policy, |warning| context.output.warning(warning))?;
    if !policy.enabled && !arguments.dry_run {
        let message = format!("the policy {} is DISABLED; `--dry-run` says what it would do", policy.name.value);
        return Err(CliError::Usage(message));
    }
    let endpoints = arguments.services.endpoints();
    let mut factory = Factory { endpoints, ..context.factory(Accelerator::Auto)? };
    let telling = arguments.events.tell_of(&mut factory, context);
    let ended = factory.run_lifecycle(&policy, arguments.dry_run).await;
    drop(factory);
    telling.finish(context).await;
    let ended = ended?;
    show(&ended, context)?;
    let failed = ended.iter().filter(|ended| ended.done.iter().any(|done| done.error.is_some())).count();
    match failed {
        0 => Ok(()),
        failed => Err(CliError::Retired { failed, of: ended.len() }),
    }
}

fn show(ended: &[Ended], context: &Context) -> Result<(), CliError> {
    if context.output.json {
        return context.output.json(&ended);
    }
    let row = |ended: &Ended| {
        let decision = &ended.decision;
        let action = decision.action.map_or_else(|| "-".to_owned(), |action| action.to_string());
        let skipped = decision.skipped_amis.iter().map(|(id, why)| format!("; {id} is left alone: {why}"));
        let reason = format!("{}{}", decision.reason, skipped.collect::<String>());
        vec![decision.image.to_string(), action, reason]
    };
    for line in table(&["IMAGE", "ACTION", "WHY"], &ended.iter().map(row).collect::<Vec<_>>()) {
        context.output.result(&line);
    }
    Ok(())
}
