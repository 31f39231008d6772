//! `goldsmith component`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Subcommand;

use super::Context;
use super::output::table;
use super::report::{CliError, render_report};
use crate::component::{MODULES, Program};
use crate::document::decode::Strictness;
use crate::document::diagnostic::Report;
use crate::document::shipped;
use crate::document::syntax::Source;

/// Check component documents, list the shipped ones
#[derive(Debug, Subcommand)]
#[command(about = "Check component documents, list the shipped ones")]
pub(super) enum Command {
    /// List the components that goldsmith brings along
    List {
        /// List the action modules that documents can use instead
        #[arg(long)]
        actions: bool,
    },
    /// Check component documents
    Validate {
        /// The documents
        #[arg(required = true)]
        documents: Vec<PathBuf>,
        /// Refuse what today's service refuses, even where older documents got away with it
        #[arg(long)]
        strict: bool,
    },
}

pub(super) fn run(command: Command, context: &Context) -> Result<(), CliError> {
    match command {
        Command::List { actions: false } => list(context),
        Command::List { actions: true } => {
            let rows: Vec<Vec<String>> =
                MODULES.iter().map(|module| vec![module.name.to_owned(), module.summary.to_owned()]).collect();
            show(&["ACTION", "WHAT IT DOES"], &rows, context)
        }
        Command::Validate { documents, strict } => validate(&documents, strict, context),
    }
}

fn list(context: &Context) -> Result<(), CliError> {
    let mut rows = Vec::new();
    for component in &shipped::COMPONENTS {
        let (program, _) = Program::check(&component.source(), Strictness::Strict)
            .map_err(|report| CliError::Factory(Box::new(report).into()))?;
        let description = program.document.description.clone().unwrap_or_default();
        rows.push(vec![component.name.to_owned(), component.version.to_string(), description.trim().to_owned()]);
    }
    show(&["COMPONENT", "VERSION", "WHAT IT DOES"], &rows, context)
}

fn show(head: &[&str], rows: &[Vec<String>], context: &Context) -> Result<(), CliError> {
    if context.output.json {
        let keys: Vec<String> = head.iter().map(|name| name.to_lowercase().replace(' ', "_")).collect();
        let objects = rows.iter().map(|row| {
            let pairs = keys.iter().zip(row).map(|(key, cell)| (key.clone(), serde_json::Value::from(cell.clone())));
            serde_json::Value::Object(pairs.collect())
        });
        return context.output.json(&objects.collect::<Vec<_>>());
    }
    table(head, rows).iter().for_each(|line| context.output.result(line));
    Ok(())
}

fn validate(documents: &[PathBuf], strict: bool, context: &Context) -> Result<(), CliError> {
    let strictness = if strict { Strictness::Strict } else { Strictness::Compat };
    let mut bad = 0;
    let mut verdicts = Vec::new();
    for path in documents {
        let (report, valid) = check(path, strictness)?;
        bad += usize::from(!valid);
        if context.output.json {
            verdicts.push(verdict(path, valid, &report));
        } else {
            if !report.diagnostics.is_empty() {
                context.output.document(&render_report(&report));
            }
            let word = if valid { "valid" } else { "not valid" };
            context.output.result(&format!("{}: {word}", path.display()));
        }
    }
    if context.output.json {
        context.output.json(&verdicts)?;
    }
    if bad > 0 { Err(CliError::Documents { count: bad }) } else { Ok(()) }
}

fn check(path: &Path, strictness: Strictness) -> Result<(Report, bool), CliError> {
    let source: Arc<Source> = Source::read(path)?;
    Ok(match Program::check(&source, strictness) {
        Ok((_, warnings)) => (warnings, true),
        Err(report) => (report, false),
    })
}

fn verdict(path: &Path, valid: bool, report: &Report) -> serde_json::Value {
    let diagnostics = report.diagnostics.iter().map(|diagnostic| {
        let place = report.source.position(diagnostic.span.start);
        serde_json::json!({
            "severity": format!("{:?}", diagnostic.severity).to_lowercase(),
            "line": place.line,
            "column": place.column,
            "message": diagnostic.message,
            "help": diagnostic.help,
        })
    });
    serde_json::json!({ "path": path, "valid": valid, "diagnostics": diagnostics.collect::<Vec<_>>() })
}
