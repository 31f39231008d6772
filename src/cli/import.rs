//! `goldsmith import`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::Context;
use super::build::assignment;
use super::output::{BAD, DIM, GOOD, WARN};
use super::report::CliError;
use crate::document::cloudformation::Environment;
use crate::document::syntax::Source;
use crate::import::{self, Fate, Import, Note, Written};

/// Make documents of CloudFormation templates and of what `aws imagebuilder` takes and prints
///
/// Says of each property of each resource of Image Builder's what became of it: `kept`, `mapped` to something of
/// goldsmith's, `open` because somebody has to fill in what is not known here, or `lost`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Templates in YAML or JSON, and what `create-…` takes or `get-…` prints; several may name each other
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Folder for the documents [default: the first file's name without its ending, else `imported`]
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Value of a parameter of the template's
    #[arg(long = "parameter", value_name = "NAME=VALUE", value_parser = assignment)]
    parameters: Vec<(String, String)>,
    /// What `AWS::Region` is [default: us-east-1]
    #[arg(long)]
    region: Option<String>,
    /// What `AWS::AccountId` is
    #[arg(long, value_name = "DIGITS", value_parser = account)]
    account: Option<String>,
    /// What `AWS::StackName` is [default: stack]
    #[arg(long, value_name = "NAME")]
    stack_name: Option<String>,
    /// Overwrite files that are there and say something else
    #[arg(long)]
    force: bool,
    /// End with 1 if anything is lost, or has to be filled in
    #[arg(long)]
    strict: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    documents: Vec<DocumentEntry<'a>>,
    notes: Vec<NoteEntry<'a>>,
    kept: usize,
    mapped: usize,
    open: usize,
    lost: usize,
    left_out: &'a std::collections::BTreeMap<String, usize>,
    problems: &'a [String],
}

#[derive(Debug, Serialize)]
struct DocumentEntry<'a> {
    path: &'a Path,
    kind: &'a str,
    was_there: bool,
}

#[derive(Debug, Serialize)]
struct NoteEntry<'a> {
    file: &'a str,
    line: usize,
    column: usize,
    fate: Fate,
    what: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<&'a str>,
}

pub(super) fn run(arguments: Arguments, context: &Context) -> Result<(), CliError> {
    let Arguments { files, output, parameters, region, account, stack_name, force, strict } = arguments;
    let environment = Environment { parameters, region, account, stack: stack_name, guesses: false };
    let folder = output.unwrap_or_else(|| default_folder(&files));
    let read = |file| Source::read(file).map_err(crate::factory::Error::Unreadable);
    let sources = files.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
    let imported = match import::import(&sources, &environment, &folder) {
        Err(import::Error::Nothing { files, notes }) => {
            notes.iter().for_each(|note| context.output.progress(&line(note)));
            return Err(import::Error::Nothing { files, notes }.into());
        }
        other => other?,
    };
    let written = import::write(&imported.documents, &folder, force)?;
    let problems = import::check(&imported.documents, &folder);
    show(&imported, &written, &problems, context)?;
    let (open, lost) = (imported.count(Fate::Open), imported.count(Fate::Lost));
    if strict && open + lost + problems.len() > 0 {
        return Err(CliError::Losses { open, lost, problems: problems.len() });
    }
    Ok(())
}

fn account(text: &str) -> Result<String, String> {
    let is_account = text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_account { Ok(text.to_owned()) } else { Err(format!("`{text}` is no account: 12 digits")) }
}

/// A folder of the first file's name, here; a name without an ending is the file's own already.
fn default_folder(files: &[PathBuf]) -> PathBuf {
    let first = files.first().filter(|file| file.extension().is_some());
    first.and_then(|file| file.file_stem()).map_or_else(|| PathBuf::from("imported"), PathBuf::from)
}

fn show(imported: &Import, written: &[Written], problems: &[String], context: &Context) -> Result<(), CliError> {
    let [kept, mapped, open, lost] =
        [Fate::Kept, Fate::Mapped, Fate::Open, Fate::Lost].map(|fate| imported.count(fate));
    let output = &context.output;
    if output.json {
        let documents = imported.documents.iter().zip(written);
        let documents = documents.map(|(document, written)| DocumentEntry {
            path: &written.path,
            kind: document.kind,
            was_there: written.was_there,
        });
        let notes = imported.notes.iter().map(entry).collect();
        let left_out = &imported.others;
        return output.json(&Summary {
            documents: documents.collect(),
            notes,
            kept,
            mapped,
            open,
            lost,
            left_out,
            problems,
        });
    }
    imported.notes.iter().for_each(|note| output.result(&line(note)));
    if !imported.others.is_empty() {
        let others: Vec<String> = imported.others.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        output.result(&format!("left out, because they are not Image Builder's: {}", others.join(", ")));
    }
    for written in written {
        let word = if written.was_there { "unchanged" } else { "written" };
        output.result(&format!("{}: {word}", written.path.display()));
    }
    if !problems.is_empty() {
        output.result("what goldsmith says of them as they are now:");
        problems.iter().for_each(|problem| output.result(&format!("  {problem}")));
    }
    let documents = imported.documents.len();
    output.result(&format!("documents: {documents}; {kept} kept, {mapped} mapped, {open} open, {lost} lost"));
    Ok(())
}

fn entry(note: &Note) -> NoteEntry<'_> {
    let position = note.source.position(note.span.start);
    NoteEntry {
        file: &note.source.name,
        line: position.line,
        column: position.column,
        fate: note.fate,
        what: &note.what,
        message: &note.message,
        mend: note.mend.as_deref(),
    }
}

/// A note with its fate in colour.
fn line(note: &Note) -> String {
    let style = match note.fate {
        Fate::Kept => DIM,
        Fate::Mapped => GOOD,
        Fate::Open => WARN,
        Fate::Lost => BAD,
    };
    let word = format!("{:<6}", note.fate);
    note.to_string().replacen(&word, &format!("{style}{word}{style:#}"), 1)
}
