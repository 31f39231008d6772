//! Documents in a folder, and what goldsmith says of them when it reads them there.

use std::path::{Path, PathBuf};

use fs_err as fs;

use super::{Document, Error};
use crate::component::{Program, Rules};
use crate::document::resource;
use crate::document::syntax::Source;
use crate::factory::{self, Given, Plan};
use crate::host::{file, one_line};
use crate::pipeline;

/// How many problems of one document are told: one for Windows has one in each step.
const MOST_LINES: usize = 3;

/// A document that is in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The file.
    pub path: PathBuf,
    /// Whether it was there already, the same to the byte.
    pub was_there: bool,
}

/// Puts documents into a folder. What is there and says something else stays, unless `force`; then nothing is written.
pub fn write(documents: &[Document], folder: &Path, force: bool) -> Result<Vec<Written>, Error> {
    let mut written = Vec::new();
    let mut taken = Vec::new();
    for document in documents {
        let path = folder.join(&document.path);
        let before = match fs::read(&path) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        let was_there = before.as_deref() == Some(document.text.as_bytes());
        if before.is_some() && !was_there {
            taken.push(path.clone());
        }
        written.push(Written { path, was_there });
    }
    if !taken.is_empty() && !force {
        return Err(Error::Taken { paths: taken });
    }
    for (document, written) in documents.iter().zip(&written) {
        if written.was_there {
            continue;
        }
        if let Some(parent) = written.path.parent() {
            fs::create_dir_all(parent)?;
        }
        file::write(&written.path, document.text.as_bytes())?;
    }
    Ok(written)
}

/// What is to be said of documents in their folder: each as it will be used.
pub fn check(documents: &[Document], folder: &Path) -> Vec<String> {
    let mut problems: Vec<String> = Vec::new();
    for document in documents {
        let path = folder.join(&document.path);
        let said = match document.kind {
            "Component" => component(document, &path),
            "ImageRecipe" => Plan::read(&path, &Given::default()).err().map(|error| said_of(&error)),
            "ImagePipeline" | "Image" => pipeline::in_file(&path).err().map(|error| pipeline_said(&error)),
            "Script" => None,
            _ => match Source::read(&path) {
                Ok(source) => resource::decode(&source).err().map(|report| report.to_string()),
                Err(error) => Some(error.to_string()),
            },
        };
        // A recipe repeats what is wrong with its components.
        let lines = said.iter().flat_map(|text| text.lines()).filter(|line| !line.contains(": warning: "));
        let new: Vec<&str> = lines.filter(|line| !problems.iter().any(|known| known == line)).collect();
        problems.extend(new.iter().take(MOST_LINES).map(|line| (*line).to_owned()));
        if let Some(more) = new.len().checked_sub(MOST_LINES).filter(|more| *more > 0) {
            problems.push(format!("{}: and {more} more", path.display()));
        }
    }
    problems
}

fn component(document: &Document, path: &Path) -> Option<String> {
    let source = Source::new(path.display().to_string(), document.text.as_str());
    let rules = Rules { platform: document.platform, ..Rules::default() };
    Program::check(&source, rules).err().map(|report| report.to_string())
}

fn said_of(error: &factory::Error) -> String {
    match error {
        factory::Error::Document(report) => report.to_string(),
        factory::Error::Recipe { place, message, .. } => format!("{place}: error: {message}"),
        other => one_line(other),
    }
}

fn pipeline_said(error: &pipeline::Error) -> String {
    match error {
        pipeline::Error::Document(report) => report.to_string(),
        other => one_line(other),
    }
}
