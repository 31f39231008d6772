//! `goldsmith base`.

use std::path::Path;

use clap::Subcommand;
use serde::Serialize;

use super::output::table;
use super::report::CliError;
use super::{Accelerator, Context};
use crate::document::base_image::Origin;
use crate::factory::{Event, Plan};
use crate::parent::{self, Record, Reference, catalogue};

/// Get base images, the parents of images
#[derive(Debug, Subcommand)]
#[command(about = "Get base images, the parents of images")]
pub(super) enum Command {
    /// List base images, the shipped ones and those in ./base-images, and what AWS calls them
    List,
    /// Get base images now, so that builds find them
    Pull {
        /// Their names
        #[arg(required = true)]
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
        let obtained = parent::obtain(&reference, None, Path::new("."), &factory.store, &run, &listener);
        let parent = tokio::select! {
            parent = obtained => parent?,
            () = context.cancel.cancelled() => return Err(crate::factory::Error::Interrupted.into()),
        };
        if context.output.json {
            pulled.push(serde_json::json!({ "name": name, "disk": parent.disk, "digest": parent.sha256 }));
        } else {
            context.output.result(&format!("{name} sha256:{}", parent.sha256));
        }
    }
    if context.output.json { context.output.json(&pulled) } else { Ok(()) }
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
