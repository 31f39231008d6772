//! `goldsmith base`.

use std::path::Path;

use clap::Subcommand;
use serde::Serialize;

use super::output::table;
use super::report::CliError;
use super::{Accelerator, Context};
use crate::document::base_image::Origin;
use crate::factory::{Event, Plan};
use crate::parent::{self, Age, Record, Reference, catalogue};

/// Get base images, the parents of images
#[derive(Debug, Subcommand)]
#[command(about = "Get base images, the parents of images")]
pub(super) enum Command {
    /// List base images, the shipped ones and those in ./base-images, and what AWS calls them
    List,
    /// Get base images now, so that builds find them, and anew those whose publishers have something newer
    Pull {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Say which base images that are here are older than what their publishers have
    Outdated {
        /// Their names; without any, all that are here
        names: Vec<String>,
    },
    /// Start base images now and keep the started machines, so that no build has to boot them
    Warm {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
        /// What guests run on
        #[arg(long, value_enum, default_value_t)]
        accel: Accelerator,
    },
}

#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    kind: &'static str,
    description: String,
    disk: Option<std::path::PathBuf>,
    /// What AWS calls it.
    aliases: Vec<String>,
}

pub(super) async fn run(command: Command, context: &Context) -> Result<(), CliError> {
    match command {
        Command::List => list(context),
        Command::Pull { names } => pull(&names, context).await,
        Command::Outdated { names } => outdated(names, context).await,
        Command::Warm { names, accel } => warm(&names, accel, context).await,
    }
}

fn list(context: &Context) -> Result<(), CliError> {
    let store = context.store()?;
    let aliases = parent::alias::all(Path::new("."))?;
    let (mut listed, mut bad) = (Vec::new(), 0);
    for name in catalogue::names(Path::new(".")) {
        let Some(source) = catalogue::find(&name, Path::new("."))? else { continue };
        let base = match catalogue::decode(&source) {
            Ok(base) => base,
            Err(error) => {
                // The others are there all the same.
                context.output.error(&error.into());
                bad += 1;
                continue;
            }
        };
        let kind = match base.origin {
            Origin::Url(_) => "url",
            Origin::Bootstrap(_) => "bootstrap",
        };
        let disk = Record::read(&store, &name).map(|record| record.disk(&store, &name));
        let aliases = aliases.iter().filter(|alias| alias.base == name).map(ToString::to_string).collect();
        listed.push(Listed { name, kind, description: base.description.trim().to_owned(), disk, aliases });
    }
    let outcome = if bad > 0 { Err(CliError::Documents { count: bad }) } else { Ok(()) };
    if context.output.json {
        return context.output.json(&listed).and(outcome);
    }
    let rows: Vec<Vec<String>> = listed
        .iter()
        .map(|base| {
            let here = if base.disk.is_some() { "yes" } else { "no" };
            vec![base.name.clone(), base.kind.to_owned(), here.to_owned(), base.description.clone()]
        })
        .collect();
    table(&["BASE IMAGE", "KIND", "HERE", "WHAT IT IS"], &rows).iter().for_each(|line| context.output.result(line));
    let rows: Vec<Vec<String>> = aliases.into_iter().map(|alias| vec![alias.to_string(), alias.base]).collect();
    context.output.result("");
    table(&["IN AWS", "BASE IMAGE"], &rows).iter().for_each(|line| context.output.result(line));
    outcome
}

async fn pull(names: &[String], context: &Context) -> Result<(), CliError> {
    let factory = context.factory(Accelerator::Auto)?;
    let mut pulled = Vec::new();
    for name in names {
        let run = factory.store.begin_run("pull")?;
        let listener = |event: parent::Event| (factory.listener)(Event::Parent(event));
        let reference = Reference::Base(name.clone());
        let obtained = parent::renew(&reference, Path::new("."), &factory.store, &run, &listener);
        let parent = tokio::select! {
            parent = obtained => parent?,
            () = context.cancel.cancelled() => return Err(crate::factory::Error::Interrupted.into()),
        };
        // Whatever has a name here is a base image.
        let Some(parent) = parent else { continue };
        if context.output.json {
            pulled.push(serde_json::json!({ "name": name, "disk": parent.disk, "digest": parent.sha256 }));
        } else {
            context.output.result(&format!("{name} sha256:{}", parent.sha256));
        }
    }
    if context.output.json { context.output.json(&pulled) } else { Ok(()) }
}

/// A base image that is here.
#[derive(Debug, Serialize)]
struct Aged {
    name: String,
    obtained: Option<jiff::Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Age>,
    /// Why nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Aged {
    fn words(&self) -> String {
        match (self.state, &self.error) {
            (Some(Age::Newest), _) => "newest".to_owned(),
            (Some(Age::Outdated), _) => "outdated: its publisher has something newer".to_owned(),
            (Some(Age::OtherDescription), _) => "outdated: its description has changed".to_owned(),
            (Some(Age::Unknown), _) => {
                "unknown: `goldsmith base pull` gets it anew, if it is known from where".to_owned()
            }
            (None, error) => format!("unknown: {}", error.as_deref().unwrap_or_default()),
        }
    }
}

async fn outdated(names: Vec<String>, context: &Context) -> Result<(), CliError> {
    let store = context.store()?;
    let here = Path::new(".");
    let is_all = names.is_empty();
    let names = if is_all { catalogue::names(here) } else { names };
    let (mut found, mut failure) = (Vec::new(), None);
    for name in names {
        let age = tokio::select! {
            age = parent::age(&name, here, &store) => age,
            () = context.cancel.cancelled() => return Err(crate::factory::Error::Interrupted.into()),
        };
        let obtained = Record::read(&store, &name).map(|record| record.obtained);
        let (state, error) = match age {
            Ok(None) if is_all => continue,
            Ok(None) => (None, Some("it is not here".to_owned())),
            Ok(state) => (state, None),
            Err(error) if obtained.is_none() && !is_all => return Err(error.into()),
            Err(error) => {
                let why = crate::host::one_line(&error);
                failure = failure.or(Some(error));
                (None, Some(why))
            }
        };
        found.push(Aged { name, obtained, state, error });
    }
    if context.output.json {
        context.output.json(&found)?;
    } else {
        let obtained = |aged: &Aged| aged.obtained.map(|time| format!("{time:.0}")).unwrap_or_default();
        let rows: Vec<Vec<String>> =
            found.iter().map(|aged| vec![aged.name.clone(), obtained(aged), aged.words()]).collect();
        table(&["BASE IMAGE", "OBTAINED", "STATE"], &rows).iter().for_each(|line| context.output.result(line));
    }
    failure.map_or(Ok(()), |failure| Err(failure.into()))
}

async fn warm(names: &[String], accelerator: Accelerator, context: &Context) -> Result<(), CliError> {
    let factory = context.factory(accelerator)?;
    let mut warmed = Vec::new();
    for name in names {
        let cached = factory.warm(&Plan::of_parent(name, Path::new("."))?).await?;
        if context.output.json {
            warmed.push(serde_json::json!({ "name": name, "cached": cached }));
        } else {
            context.output.result(&format!("{name} {}", if cached { "was warm already" } else { "is warm" }));
        }
    }
    if context.output.json { context.output.json(&warmed) } else { Ok(()) }
}
