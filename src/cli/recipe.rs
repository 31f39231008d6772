//! `goldsmith recipe`.

use std::path::PathBuf;

use clap::Subcommand;

use super::Context;
use super::report::{self, CliError};
use crate::factory::{Error, Given, Plan};

/// Check recipes
#[derive(Debug, Subcommand)]
#[command(about = "Check recipes")]
pub(super) enum Command {
    /// Check recipes and all that they name, without starting anything
    Validate {
        /// The recipes
        #[arg(required = true)]
        recipes: Vec<PathBuf>,
    },
}

pub(super) fn run(command: Command, context: &Context) -> Result<(), CliError> {
    let Command::Validate { recipes } = command;
    let mut bad = 0;
    let mut verdicts = Vec::new();
    for path in &recipes {
        match Plan::read(path, &Given::default()) {
            Ok(plan) => {
                for warning in &plan.warnings {
                    context.output.warning(warning);
                }
                for note in &plan.notes {
                    context.output.note(note);
                }
                let name = format!("{}/{}", plan.recipe.name, plan.recipe.version);
                verdicts.push(serde_json::json!({ "path": path, "valid": true, "recipe": name }));
                if !context.output.json {
                    context.output.result(&format!("{}: valid: {name}", path.display()));
                }
            }
            Err(error) => {
                bad += 1;
                verdicts.push(serde_json::json!({ "path": path, "valid": false, "message": message(&error) }));
                context.output.error(&CliError::Factory(error));
            }
        }
    }
    if context.output.json {
        context.output.json(&verdicts)?;
    }
    if bad > 0 { Err(CliError::Documents { count: bad }) } else { Ok(()) }
}

fn message(error: &Error) -> String {
    match error {
        Error::Document(report) => report.to_string(),
        other => anstream::adapter::strip_str(&report::plain(other)).to_string(),
    }
}
