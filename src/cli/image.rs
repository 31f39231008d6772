//! `goldsmith image`.

mod diff;
mod list;
mod retry;

pub(super) use list::{Listed, lines, listed};

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::events::EventArguments;
use super::output::{BOLD, size, table};
use super::report::CliError;
use super::{Accelerator, Context};
use crate::factory::Loaded;
use crate::machine::console::plain;
use crate::store::manifest::{Manifest, State};
use crate::store::version::Pattern;
use crate::store::{Image, Package, Store};

/// Look after images
#[derive(Debug, Subcommand)]
#[command(about = "Look after images")]
pub(super) enum Command {
    /// List images
    List(list::Arguments),
    /// Show all that is known of an image
    Show {
        /// The image: NAME, NAME/VERSION or NAME/VERSION/BUILD
        image: Pattern,
    },
    /// Print the log of an image's build
    Log {
        /// The image: NAME, NAME/VERSION or NAME/VERSION/BUILD
        image: Pattern,
        /// Print what the build machine wrote to its serial console instead
        #[arg(long)]
        console: bool,
    },
    /// Say what differs between two images: parent, recipe, components, files, packages, disk
    Diff {
        /// The first image: NAME, NAME/VERSION or NAME/VERSION/BUILD
        from: Pattern,
        /// The second image
        to: Pattern,
    },
    /// List the packages that are installed in an image
    Packages {
        /// The image: NAME, NAME/VERSION or NAME/VERSION/BUILD
        image: Pattern,
    },
    /// Write an image, with its logs, to one file
    Save {
        /// The image: NAME, NAME/VERSION or NAME/VERSION/BUILD
        image: Pattern,
        /// The file
        file: PathBuf,
    },
    /// Take an image from a file that `image save` has written
    Load {
        /// The file
        file: PathBuf,
    },
    /// Read images' disks, and say whether they are what was sealed
    Verify {
        /// The images: NAME, NAME/VERSION or NAME/VERSION/BUILD
        #[arg(required = true)]
        images: Vec<Pattern>,
    },
    /// Go on from a failed test or a failed publication, without building
    Retry(retry::Arguments),
    /// Publish an image without building: the same as `goldsmith publish`
    Distribute(Box<super::publish::Arguments>),
    /// Say that an image should not be used any more; it still can be
    Deprecate(StateArguments),
    /// Say that an image must not be used any more
    Disable(StateArguments),
    /// Have a deprecated or disabled image be AVAILABLE again
    Enable(StateArguments),
    /// Remove an image; its build number is not used again
    Rm {
        /// The image, with its build: NAME/VERSION/BUILD
        #[arg(required = true)]
        images: Vec<Pattern>,
    },
}

/// A change of an image's state
#[derive(Debug, Args)]
pub(super) struct StateArguments {
    /// The image, with its build: NAME/VERSION/BUILD, or a channel
    image: Pattern,
    /// Why
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    events: EventArguments,
}

pub(super) async fn run(command: Command, context: &Context) -> Result<(), CliError> {
    match command {
        Command::List(arguments) => list::run(&arguments, context),
        Command::Retry(arguments) => retry::run(arguments, context).await,
        Command::Distribute(arguments) => super::publish::run(*arguments, context).await,
        Command::Deprecate(arguments) => set_state(arguments, State::Deprecated, context).await,
        Command::Disable(arguments) => set_state(arguments, State::Disabled, context).await,
        Command::Enable(arguments) => set_state(arguments, State::Available, context).await,
        Command::Show { image } => show(&find(&image, context)?, context),
        Command::Log { image, console } => log(&find(&image, context)?, console, context),
        Command::Diff { from, to } => diff::run(&from, &to, context),
        Command::Packages { image } => packages(&find(&image, context)?, context),
        Command::Save { image, file } => save(&image, &file, context),
        Command::Load { file } => load(&file, context),
        Command::Verify { images } => verify(&images, context).await,
        Command::Rm { images } => remove(&images, context),
    }
}

/// The newest image that a pattern means, whatever its state.
fn find(pattern: &Pattern, context: &Context) -> Result<Image, CliError> {
    Ok(context.store()?.find(pattern, |_| true)?)
}

/// Changes a state, and says so.
async fn set_state(arguments: StateArguments, to: State, context: &Context) -> Result<(), CliError> {
    let mut factory = context.factory(Accelerator::Auto)?;
    let image = one(&arguments.image, &factory.store)?;
    let telling = arguments.events.tell_of(&mut factory, context);
    let changed = factory.set_state(image, to, arguments.reason);
    drop(factory);
    telling.finish(context).await;
    let image = changed?;
    if context.output.json {
        return context.output.json(&image.manifest);
    }
    context.output.progress(&format!("{} is {}", image.id, image.manifest.state));
    Ok(())
}

/// The image of a pattern that can mean one only.
fn one(pattern: &Pattern, store: &Store) -> Result<Image, CliError> {
    if !pattern.names_a_build() && pattern.channel().is_none() {
        let message = format!("`{pattern}` may mean several images; name one with its build, as in nginx/1.0.0/3");
        return Err(CliError::Usage(message));
    }
    Ok(store.find(pattern, |_| true)?)
}

fn show(image: &Image, context: &Context) -> Result<(), CliError> {
    if context.output.json {
        return context.output.json(&image.manifest);
    }
    for (name, value) in facts(image) {
        // An image may come from elsewhere, and with it whatever its manifest says.
        let lines: Vec<String> = value.lines().map(plain).collect();
        context.output.result(&format!("{BOLD}{name:<12}{BOLD:#} {}", lines.join("\n")));
    }
    Ok(())
}

/// What a person wants to know of an image.
fn facts(image: &Image) -> Vec<(&'static str, String)> {
    let manifest: &Manifest = &image.manifest;
    let mut facts = vec![("image", image.id.to_string()), ("state", manifest.state.to_string())];
    facts.extend(manifest.reason.clone().map(|reason| ("reason", reason)));
    facts.push(("tested", if manifest.tested { "yes" } else { "no" }.to_owned()));
    facts.push(("created", manifest.created.to_string()));
    facts.push(("goldsmith", manifest.goldsmith.clone()));
    if let Some(source) = &manifest.source {
        for (key, value) in &source.tags {
            facts.push(("tag", format!("{key}={}", value.as_str().unwrap_or_default())));
        }
        facts.extend(source.description.clone().map(|description| ("description", description)));
        facts.push(("recipe", format!("{} sha256:{}", source.recipe.name, source.recipe.sha256)));
        facts.push(("parent", format!("{} sha256:{}", source.parent.name, source.parent.sha256)));
        for component in &source.components {
            facts.push(("component", format!("{} sha256:{}", component.document.name, component.document.sha256)));
        }
    }
    if let Some(machine) = &manifest.machine {
        let isolated = if machine.isolated { "isolated" } else { "not isolated" };
        let text = format!("QEMU {}, {}, {}, {isolated}", machine.qemu, machine.accelerator, machine.firmware);
        facts.push(("machine", text));
    }
    if let Some(disk) = &manifest.disk {
        let (bytes, virtual_size) = (size(disk.bytes), size(disk.virtual_size));
        facts.push(("disk", format!("{} ({bytes} of {virtual_size})", image.disk().display())));
        facts.push(("digest", format!("sha256:{}", disk.sha256)));
    }
    // What can't be read is told by the command that is for it.
    let packages = image.packages().ok().flatten();
    facts.extend(packages.map(|packages| ("packages", format!("{} installed", packages.len()))));
    for case in manifest.test.iter().flat_map(|test| &test.cases) {
        let verdict = if case.failure.is_some() { "failed" } else { "passed" };
        facts.push(("test", format!("{}: {} {verdict}, {:.1} s", case.component, case.name, case.seconds)));
    }
    for export in &manifest.exports {
        facts.push(("export", format!("{} sha256:{}", export.path.display(), export.sha256)));
    }
    for publication in &manifest.publications {
        for artifact in &publication.artifacts {
            facts.push(("published", format!("{}: {} {}", publication.place, artifact.kind, artifact.id)));
        }
    }
    for stage in &manifest.stages {
        let cached = if stage.cached { ", was there" } else { "" };
        facts.push(("stage", format!("{} {:.1} s{cached}", stage.name, stage.seconds)));
    }
    facts
}

fn log(image: &Image, console: bool, context: &Context) -> Result<(), CliError> {
    let name = if console { "console.log" } else { "build.log" };
    let mut text = String::new();
    // A guest's console may hold anything.
    let mut bytes = Vec::new();
    fs_err::File::open(image.folder().join(name))?.read_to_end(&mut bytes)?;
    text.push_str(&String::from_utf8_lossy(&bytes));
    let lines = text.lines().map(plain);
    if context.output.json {
        return context.output.json(&serde_json::json!({ "image": image.id, "lines": lines.collect::<Vec<_>>() }));
    }
    lines.for_each(|line| context.output.result(&line));
    Ok(())
}

fn packages(image: &Image, context: &Context) -> Result<(), CliError> {
    let Some(packages) = image.packages()? else {
        let why = match image.manifest.disk {
            None => format!("it is {} and has no disk; name a build that has", image.manifest.state),
            Some(_) => "it was built by an older goldsmith, or has no package manager that is known".to_owned(),
        };
        let unknown = format!("it is not known which packages {} has: {why}", image.id);
        return Err(CliError::Io(std::io::Error::other(unknown)));
    };
    if context.output.json {
        return context.output.json(&packages);
    }
    let row = |package: Package| vec![package.name, package.version, package.architecture];
    let rows: Vec<Vec<String>> = packages.into_iter().map(row).collect();
    table(&["PACKAGE", "VERSION", "ARCHITECTURE"], &rows).iter().for_each(|line| context.output.result(line));
    Ok(())
}

/// What has been done is the result of a command that does no more, and is said as such where a program reads it.
fn done(context: &Context, words: &str, object: &serde_json::Value) -> Result<(), CliError> {
    if context.output.json {
        return context.output.json(object);
    }
    context.output.progress(words);
    Ok(())
}

async fn verify(patterns: &[Pattern], context: &Context) -> Result<(), CliError> {
    let factory = context.factory(Accelerator::Auto)?;
    let images = patterns.iter().map(|pattern| factory.store.find_sealed(pattern)).collect::<Result<Vec<_>, _>>()?;
    let (mut verdicts, mut failure) = (Vec::new(), None);
    for image in images {
        let verified = factory.verify(&image).await;
        if let Err(interrupted @ crate::factory::Error::Interrupted) = verified {
            return Err(interrupted.into());
        }
        let said = |error: &crate::factory::Error| crate::host::one_line(error);
        let verdict = verified.as_ref().map_or_else(said, |()| "is what was sealed".to_owned());
        verdicts.push(serde_json::json!({ "image": image.id, "valid": verified.is_ok(), "verdict": verdict }));
        if !context.output.json {
            context.output.result(&format!("{}: {verdict}", image.id));
        }
        failure = failure.or(verified.err());
    }
    if context.output.json {
        context.output.json(&verdicts)?;
    }
    failure.map_or(Ok(()), |failure| Err(failure.into()))
}

fn save(pattern: &Pattern, file: &Path, context: &Context) -> Result<(), CliError> {
    let image = find(pattern, context)?;
    context.factory(Accelerator::Auto)?.save(&image, file)?;
    let words = format!("saved {} to {}", image.id, file.display());
    done(context, &words, &serde_json::json!({ "image": image.id, "file": file }))
}

fn load(file: &Path, context: &Context) -> Result<(), CliError> {
    let (image, loaded) = context.factory(Accelerator::Auto)?.load(file)?;
    let how = if loaded == Loaded::New { "loaded" } else { "was there already" };
    let object = serde_json::json!({ "image": image.id, "new": loaded == Loaded::New });
    done(context, &format!("{} {how}", image.id), &object)
}

fn remove(patterns: &[Pattern], context: &Context) -> Result<(), CliError> {
    let store = context.store()?;
    let mut images = Vec::new();
    for pattern in patterns {
        if !pattern.names_a_build() {
            let message = format!("`{pattern}` may mean several images; name one with its build, as in nginx/1.0.0/3");
            return Err(CliError::Usage(message));
        }
        images.push(store.find(pattern, |_| true)?);
    }
    let mut removed = Vec::new();
    for image in images {
        let id = image.id.clone();
        image.remove(&store)?;
        if !context.output.json {
            context.output.progress(&format!("removed {id}"));
        }
        removed.push(id);
    }
    if context.output.json { context.output.json(&serde_json::json!({ "removed": removed })) } else { Ok(()) }
}
