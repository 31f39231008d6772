//! `goldsmith component`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};

use super::output::table;
use super::report::{CliError, render_report};
use super::{Context, rehearsal};
use crate::component::{MODULES, Program, Rules};
use crate::document::carrier;
use crate::document::component::Platform;
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
    /// Check component documents; also those in CloudFormation templates and in the input of create-component
    Validate(Validation),
    Run(Box<rehearsal::Arguments>),
}

/// What is checked, and by which rules
#[derive(Debug, Args)]
pub(super) struct Validation {
    /// The documents: YAML or JSON, CloudFormation templates, or what `create-component --cli-input-json` takes
    #[arg(required = true)]
    documents: Vec<PathBuf>,
    /// Refuse what today's service refuses, even where older documents got away with it
    #[arg(long)]
    strict: bool,
    /// What the documents are to run on, linux, windows or macos; Linux, unless they stand in something that says
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// Refuse these action modules
    #[arg(long = "blocked-action-modules", value_name = "ACTIONS", value_delimiter = ',')]
    blocked: Vec<String>,
}

pub(super) async fn run(command: Command, context: &Context) -> Result<(), CliError> {
    match command {
        Command::Run(arguments) => rehearsal::run(*arguments, context).await,
        Command::List { actions: false } => list(context),
        Command::List { actions: true } => {
            let rows: Vec<Vec<String>> =
                MODULES.iter().map(|module| vec![module.name.to_owned(), module.summary.to_owned()]).collect();
            show(&["ACTION", "WHAT IT DOES"], &rows, context)
        }
        Command::Validate(arguments) => validate(&arguments, context),
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

fn validate(arguments: &Validation, context: &Context) -> Result<(), CliError> {
    let strictness = if arguments.strict { Strictness::Strict } else { Strictness::Compat };
    let rules = Rules { strictness, blocked: arguments.blocked.clone(), ..Rules::default() };
    let mut bad = 0;
    let mut verdicts = Vec::new();
    for path in &arguments.documents {
        let source = match Source::read(path).map_err(crate::factory::Error::Unreadable) {
            Ok(source) => source,
            Err(error) => {
                bad += 1;
                let message = error.to_string();
                verdicts.push(serde_json::json!({ "path": path, "valid": false, "message": message }));
                context.output.error(&error.into());
                continue;
            }
        };
        for Verdict { name, report, valid } in check(&source, &rules, arguments.platform) {
            bad += usize::from(!valid);
            if context.output.json {
                verdicts.push(describe(&name, path, valid, &report));
                continue;
            }
            if !report.diagnostics.is_empty() {
                context.output.document(&render_report(&report));
            }
            let word = if valid { "valid" } else { "not valid" };
            context.output.result(&format!("{name}: {word}"));
        }
    }
    if context.output.json {
        context.output.json(&verdicts)?;
    }
    if bad > 0 { Err(CliError::Documents { count: bad }) } else { Ok(()) }
}

struct Verdict {
    name: String,
    report: Report,
    valid: bool,
}

/// What is to be said of the documents that a file is or holds.
fn check(source: &Arc<Source>, rules: &Rules, platform: Option<Platform>) -> Vec<Verdict> {
    let (found, report) = match carrier::find(source) {
        Ok(found) => found,
        Err(report) => return vec![Verdict { name: source.name.clone(), report, valid: false }],
    };
    let of_the_file = (found.is_empty() || !report.diagnostics.is_empty()).then(|| Verdict {
        name: source.name.clone(),
        report,
        valid: true,
    });
    let of_documents = found.into_iter().map(|found| {
        let platform = platform.or(found.platform).unwrap_or_default();
        let rules = Rules { platform, inline_size: found.inline_size, ..rules.clone() };
        let name = found.source.name.clone();
        match Program::check(&found.source, rules) {
            Ok((_, report)) => Verdict { name, report, valid: true },
            Err(report) => Verdict { name, report, valid: false },
        }
    });
    of_the_file.into_iter().chain(of_documents).collect()
}

fn describe(name: &str, path: &Path, valid: bool, report: &Report) -> serde_json::Value {
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
    serde_json::json!({ "path": path, "name": name, "valid": valid, "diagnostics": diagnostics.collect::<Vec<_>>() })
}
