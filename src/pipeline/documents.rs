//! From documents to definitions: pipelines found in a folder, and what they name looked up.
//!
//! A recipe, an infrastructure and a distribution configuration are named in one of three ways: by a path beside the
//! pipeline's document, by the name that a document of the same file has, or by an ARN of Image Builder's. What an ARN
//! names is looked for in the same file, and then in the documents beside it, by the name that it would have in AWS.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;

use super::Error;
use super::definition::{Build, Condition, Definition, How, Named};
use super::logs::LogPlace;
use super::schedule::{Invalid, Schedule};
use super::told::Told;
use crate::document::arn::{Arn, slug};
use crate::document::decode::Spanned;
use crate::document::diagnostic::Report;
use crate::document::distribution::Distribution;
use crate::document::infrastructure::{Infrastructure, Logs};
use crate::document::pipeline::{EventTarget, Pipeline};
use crate::document::recipe;
use crate::document::resource::{self, Resource};
use crate::document::syntax::Source;
use crate::host::file;
use crate::store::version::{ImageName, Version, VersionPattern, VersionRequest};

/// Endings of documents.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];
/// A folder with more documents is not one for pipelines.
const MOST_FILES: usize = 1000;

/// What a folder has of pipelines.
#[derive(Debug, Default)]
pub struct Found {
    /// Those that can be used, by name.
    pub definitions: Vec<Definition>,
    /// What can't.
    pub problems: Vec<Problem>,
}

/// A document with a pipeline that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("`{}` can't be used", file.display())]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Why.
    #[source]
    pub error: Error,
}

/// All pipelines of a folder's documents. One that is wrong takes nothing away from the others.
pub fn in_folder(folder: &Path) -> Result<Found, Error> {
    let mut found: BTreeMap<ImageName, Definition> = BTreeMap::new();
    let mut problems = Vec::new();
    for path in documents_of(folder)? {
        let read = match Source::read(&path) {
            Ok(source) if !resource::has_pipeline(&source) => continue,
            // Somebody else's file, perhaps.
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => continue,
            Ok(source) => File::read(&path, &source),
            Err(error) => Err(Error::Unreadable(error)),
        };
        let (definitions, wrong) = match read {
            Ok(file) => file.define_all(),
            Err(error) => (Vec::new(), vec![error]),
        };
        problems.extend(wrong.into_iter().map(|error| Problem { file: path.clone(), error }));
        for definition in definitions {
            if let Some(other) = found.get(&definition.name) {
                let message =
                    format!("there is another pipeline `{}` in {}", definition.name, other.document.display());
                let place = path.display().to_string();
                let error = Error::Unusable { place, message, help: Some("give it another name".to_owned()) };
                problems.push(Problem { file: path.clone(), error });
                continue;
            }
            found.insert(definition.name.clone(), definition);
        }
    }
    Ok(Found { definitions: found.into_values().collect(), problems })
}

/// All pipelines of a file.
pub fn in_file(path: &Path) -> Result<Vec<Definition>, Error> {
    let source = Source::read(path).map_err(Error::Unreadable)?;
    let (definitions, mut problems) = File::read(path, &source)?.define_all();
    if problems.is_empty() { Ok(definitions) } else { Err(problems.swap_remove(0)) }
}

/// The pipeline that somebody means: a name, or a file with one pipeline.
pub fn find(wanted: &str, folder: &Path) -> Result<Definition, Error> {
    let path = Path::new(wanted);
    if ends_as_document(path) || wanted.contains('/') {
        let mut all = in_file(path)?;
        return match all.len() {
            1 => Ok(all.remove(0)),
            _ => Err(Error::NoPipeline {
                wanted: wanted.to_owned(),
                known: all.into_iter().map(|pipeline| pipeline.name).collect(),
            }),
        };
    }
    let mut found = in_folder(folder)?;
    if let Some(place) = found.definitions.iter().position(|definition| definition.name.as_str() == wanted) {
        return Ok(found.definitions.swap_remove(place));
    }
    if let Some(problem) = found.problems.into_iter().next() {
        return Err(Error::Problem { wanted: wanted.to_owned(), problem: Box::new(problem) });
    }
    let known = found.definitions.into_iter().map(|definition| definition.name).collect();
    Err(Error::NoPipeline { wanted: wanted.to_owned(), known })
}

fn ends_as_document(path: &Path) -> bool {
    path.extension().and_then(|ending| ending.to_str()).is_some_and(|ending| ENDINGS.contains(&ending))
}

/// The documents that a folder has, by name.
fn documents_of(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::Unreadable)? {
        // `./a.yaml` as a person would write it.
        let path = entry.map_err(Error::Unreadable)?.path();
        let path: PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
        if ends_as_document(&path) && path.is_file() {
            paths.push(path);
        }
        if paths.len() > MOST_FILES {
            let message = format!("a folder of pipelines has at most {MOST_FILES} documents");
            return Err(Error::Unusable { place: folder.display().to_string(), message, help: None });
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

/// A file with the documents in it.
struct File {
    /// Absolute: what is done is done elsewhere.
    path: PathBuf,
    resources: Vec<Resource>,
    /// SHA-256 of each.
    digests: Vec<String>,
    warnings: Vec<String>,
}

/// A document that a pipeline names.
struct Beside<T> {
    document: T,
    file: PathBuf,
    /// Of the file, if that is not the pipeline's own.
    warnings: Vec<String>,
}

/// What a reference names.
enum Wanted<'a> {
    /// By name, and by the name that it has in ARNs.
    Name(&'a str),
    Arn(Arn),
}

impl Wanted<'_> {
    fn is(&self, name: &str) -> bool {
        match self {
            Self::Name(wanted) => *wanted == name,
            Self::Arn(arn) => arn.name == slug(name),
        }
    }
}

impl File {
    fn read(path: &Path, source: &Arc<Source>) -> Result<Self, Error> {
        let path = std::path::absolute(path)?;
        let (resources, report) = resource::decode(source).map_err(Box::new)?;
        let alone = resource::split(source).map_err(Box::new)?;
        let digests = alone.iter().map(|alone| file::sha256_of(alone.text.trim().as_bytes())).collect();
        Ok(Self { path, resources, digests, warnings: lines(&report) })
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    fn define_all(&self) -> (Vec<Definition>, Vec<Error>) {
        let (mut definitions, mut problems) = (Vec::new(), Vec::new());
        for (resource, digest) in self.resources.iter().zip(&self.digests) {
            let Resource::Pipeline(pipeline) = resource else { continue };
            match self.define(pipeline, digest) {
                Ok(definition) => definitions.push(definition),
                Err(error) => problems.push(error),
            }
        }
        (definitions, problems)
    }

    fn define(&self, pipeline: &Pipeline, digest: &str) -> Result<Definition, Error> {
        let at = |span: &Range<usize>| place(&pipeline.source, span);
        let name = &pipeline.name;
        let unusable = |message: String| Error::Unusable { place: at(&name.span), message, help: None };
        let name = name.value.parse().map_err(|error| unusable(format!("{error}")))?;
        let mut warnings = self.warnings.clone();
        let schedule = pipeline.schedule.as_ref().map(|written| schedule(pipeline, written)).transpose()?;
        warnings.extend(schedule.iter().flat_map(Schedule::warnings).cloned());
        let mut how = How {
            recipe: self.recipe(pipeline)?,
            tests: pipeline.tests,
            test_seconds: Some(pipeline.test_timeout.as_secs()),
            tags: pipeline.image_tags.clone(),
            ..How::default()
        };
        if let Some(Beside { document, file, warnings: of_file }) = self.distribution(pipeline)? {
            how.distribution = Some(Named { file, name: document.name.value });
            warnings.extend(of_file);
        }
        let mut told: Vec<(&EventTarget, &Path)> =
            pipeline.events.iter().map(|target| (target, self.folder())).collect();
        let infrastructure = self.infrastructure(pipeline)?;
        if let Some(Beside { document, file, warnings: of_file }) = &infrastructure {
            let folder = file.parent().unwrap_or(Path::new("/"));
            describe(document, folder, &mut how);
            told.extend(document.events.iter().map(|target| (target, folder)));
            warnings.extend(of_file.iter().cloned());
        }
        let told: Result<_, String> = told.into_iter().map(|(target, folder)| Told::new(target, folder)).collect();
        how.events = told.map_err(|why| unusable(format!("its `events`: {why}")))?;
        let written = pipeline.schedule.as_ref();
        let always = written.is_some_and(|written| written.always);
        let parents: Vec<String> = pipeline.matrix.parents.iter().map(|parent| parent.value.clone()).collect();
        Ok(Definition {
            name,
            document: self.path.clone(),
            description: pipeline.description.clone(),
            tags: pipeline.tags.clone(),
            digest: digest.to_owned(),
            enabled: pipeline.enabled,
            schedule,
            condition: if always { Condition::ExpressionMatchOnly } else { Condition::DependencyUpdates },
            failures_allowed: written.and_then(|written| written.failures_allowed),
            priority: pipeline.priority,
            builds: Build::matrix(&parents, &pipeline.matrix.parameters),
            how,
            warnings,
        })
    }

    fn recipe(&self, pipeline: &Pipeline) -> Result<PathBuf, Error> {
        let written = &pipeline.recipe;
        let complain = |message: String, help: &str| Error::Unusable {
            place: place(&pipeline.source, &written.span),
            message,
            help: Some(help.to_owned()),
        };
        if !written.value.starts_with("arn:") {
            let path = self.folder().join(&written.value);
            let help = "the recipe is a file; its path is relative to this document";
            return if path.is_file() {
                Ok(path)
            } else {
                Err(complain(format!("there is no recipe `{}`", written.value), help))
            };
        }
        let wanted = arn(pipeline, written, "image-recipe")?;
        let Wanted::Arn(arn) = &wanted else { return Ok(self.folder().join(&written.value)) };
        let pattern: Option<VersionPattern> = arn.version.as_deref().and_then(|version| version.parse().ok());
        let mut newest: Option<(Option<Version>, PathBuf)> = None;
        for path in documents_of(self.folder())? {
            let Ok(source) = Source::read(&path) else { continue };
            let Ok((recipe, _)) = recipe::decode(&source) else { continue };
            let version = match recipe.version {
                VersionRequest::Exactly(version) => Some(version),
                // One that counts by itself may come to be any.
                _ => None,
            };
            let is_version = pattern.zip(version).is_none_or(|(pattern, version)| pattern.matches(version));
            let is_newer = newest.as_ref().is_none_or(|(newest, _)| version > *newest);
            if wanted.is(recipe.name.as_str()) && is_version && is_newer {
                newest = Some((version, path));
            }
        }
        if let Some((_, path)) = newest {
            return Ok(path);
        }
        let help = "put the recipe into the folder of this document, or name its file";
        Err(complain(format!("no recipe beside this document is `{}`", written.value), help))
    }

    fn infrastructure(&self, pipeline: &Pipeline) -> Result<Option<Beside<Infrastructure>>, Error> {
        let Some(written) = &pipeline.infrastructure else { return Ok(None) };
        let pick = |resource: &Resource| match resource {
            Resource::Infrastructure(one) => Some((one.name.value.clone(), (**one).clone())),
            _ => None,
        };
        self.look_up(pipeline, written, ("infrastructure-configuration", "infrastructure configuration"), pick)
            .map(Some)
    }

    fn distribution(&self, pipeline: &Pipeline) -> Result<Option<Beside<Distribution>>, Error> {
        let Some(written) = &pipeline.distribution else { return Ok(None) };
        let pick = |resource: &Resource| match resource {
            Resource::Distribution(one) => Some((one.name.value.clone(), (**one).clone())),
            _ => None,
        };
        self.look_up(pipeline, written, ("distribution-configuration", "distribution configuration"), pick).map(Some)
    }

    /// The document of a kind that a reference means, and the file that it is in.
    fn look_up<T>(
        &self,
        pipeline: &Pipeline,
        written: &Spanned<String>,
        (kind, what): (&str, &str),
        pick: impl Fn(&Resource) -> Option<(String, T)>,
    ) -> Result<Beside<T>, Error> {
        let wanted = arn(pipeline, written, kind)?;
        let named = |resources: &[Resource]| {
            resources.iter().filter_map(&pick).find(|(name, _)| wanted.is(name)).map(|(_, found)| found)
        };
        if let Some(found) = named(&self.resources) {
            return Ok(Beside { document: found, file: self.path.clone(), warnings: Vec::new() });
        }
        let complain = |message: String, help: String| Error::Unusable {
            place: place(&pipeline.source, &written.span),
            message,
            help: Some(help),
        };
        match wanted {
            Wanted::Arn(_) => {
                for path in documents_of(self.folder())? {
                    let Ok(source) = Source::read(&path) else { continue };
                    let Ok((resources, report)) = resource::decode(&source) else { continue };
                    if let Some(document) = named(&resources) {
                        return Ok(Beside { document, file: path, warnings: lines(&report) });
                    }
                }
                let help = format!("put the {what} into the folder of this document, or name its file");
                Err(complain(format!("no {what} beside this document is `{}`", written.value), help))
            }
            Wanted::Name(_) => {
                let path = self.folder().join(&written.value);
                if !path.is_file() {
                    let mut names: Vec<String> =
                        self.resources.iter().filter_map(&pick).map(|(name, _)| name).collect();
                    names.push("or a file beside this document".to_owned());
                    let message = format!("there is no {what} `{}`, neither in this file nor as a file", written.value);
                    return Err(complain(message, format!("name one of this file: {}", names.join(", "))));
                }
                let source = Source::read(&path).map_err(Error::Unreadable)?;
                let (resources, report) = resource::decode(&source).map_err(Box::new)?;
                let mut found: Vec<T> = resources.iter().filter_map(&pick).map(|(_, found)| found).collect();
                match found.len() {
                    1 => Ok(Beside { document: found.remove(0), file: path, warnings: lines(&report) }),
                    count => {
                        let message =
                            format!("`{}` has {count} of the kind {what}, and has to have one", written.value);
                        Err(complain(message, "a file of several is named from within it only".to_owned()))
                    }
                }
            }
        }
    }
}

/// What a reference is, if it is an ARN of the right kind.
fn arn<'a>(pipeline: &Pipeline, written: &'a Spanned<String>, kind: &str) -> Result<Wanted<'a>, Error> {
    if !written.value.starts_with("arn:") {
        return Ok(Wanted::Name(&written.value));
    }
    let complain =
        |message: String| Error::Unusable { place: place(&pipeline.source, &written.span), message, help: None };
    let arn: Arn = written.value.parse().map_err(|error| complain(format!("{error}")))?;
    if arn.kind != kind {
        return Err(complain(format!("`{}` is the ARN of {}, not of {kind}", written.value, arn.kind)));
    }
    Ok(Wanted::Arn(arn))
}

fn schedule(pipeline: &Pipeline, written: &crate::document::pipeline::Schedule) -> Result<Schedule, Error> {
    let zone = written.timezone.as_ref();
    let complain = |span: &Range<usize>, error: Invalid| {
        let place = place(&pipeline.source, span);
        Error::Unusable { place, message: error.to_string(), help: error.help }
    };
    if let Some(zone) = zone {
        // By itself first, so that the place is right.
        Schedule::parse("rate(1 day)", Some(&zone.value)).map_err(|error| complain(&zone.span, error))?;
    }
    let expression = &written.expression;
    let schedule = Schedule::parse(&expression.value, zone.map(|zone| zone.value.as_str()));
    schedule.map_err(|error| complain(&expression.span, error))
}

/// What an infrastructure configuration says of builds. Its paths are relative to `folder`.
fn describe(infrastructure: &Infrastructure, folder: &Path, how: &mut How) {
    how.cpus = infrastructure.machine.cpus;
    how.memory = infrastructure.machine.memory.map(|memory| memory.0);
    how.proxy.clone_from(&infrastructure.proxy);
    how.no_proxy.clone_from(&infrastructure.no_proxy);
    how.mirrors.clone_from(&infrastructure.mirrors);
    how.keep_on_failure = infrastructure.keeps_failed;
    how.reach = infrastructure.network.clone().unwrap_or_default();
    how.logs = infrastructure.logs.as_ref().map(|logs| match logs {
        Logs::Folder(path) => LogPlace::Folder(folder.join(path)),
        Logs::Bucket { bucket, prefix } => LogPlace::Bucket { bucket: bucket.clone(), prefix: prefix.clone() },
    });
}

fn place(source: &Source, span: &Range<usize>) -> String {
    let position = source.position(span.start);
    format!("{}:{}:{}", source.name, position.line, position.column)
}

fn lines(report: &Report) -> Vec<String> {
    report.to_string().lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
