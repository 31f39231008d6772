//! `goldsmith status`: what goes on, on one screen.

use std::cmp::Reverse;

use clap::Args;
use serde::Serialize;

use super::Context;
use super::channel;
use super::image;
use super::output::BOLD;
use super::report::CliError;
use crate::store::RunningRun;

/// Show what goes on: runs, the newest images, channels
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How many of the newest images are shown
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    images: usize,
}

#[derive(Debug, Serialize)]
struct Status {
    runs: Vec<RunningRun>,
    images: Vec<image::Listed>,
    channels: Vec<channel::Listed>,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<(), CliError> {
    let store = context.store()?;
    let mut newest = store.images()?;
    newest.sort_by_key(|image| Reverse(image.manifest.created));
    newest.truncate(arguments.images);
    let status = Status {
        runs: store.running()?,
        images: image::listed(&newest, &store)?,
        channels: store.channels()?.iter().map(channel::Listed::from).collect(),
    };
    if context.output.json {
        return context.output.json(&status);
    }
    let runs = status.runs.iter().map(|run| format!("{} since {} (process {})", run.purpose, run.since, run.process));
    section("runs", runs.collect(), context);
    section("images", if newest.is_empty() { Vec::new() } else { image::lines(&status.images) }, context);
    let channels = if status.channels.is_empty() { Vec::new() } else { channel::rows(&status.channels) };
    section("channels", channels, context);
    Ok(())
}

/// Lines under a heading, also if there are none.
fn section(name: &str, lines: Vec<String>, context: &Context) {
    context.output.result(&format!("{BOLD}{name}{BOLD:#}"));
    if lines.is_empty() {
        context.output.result("  none");
    }
    for line in lines {
        context.output.result(&format!("  {line}"));
    }
}
