//! `goldsmith status`: what goes on and what comes next, on one screen.

use std::cmp::Reverse;

use clap::Args;
use serde::Serialize;

use super::Context;
use super::channel;
use super::image;
use super::output::BOLD;
use super::report::CliError;
use crate::pipeline::Status::Pending;
use crate::pipeline::{self, Overview, Run, State};
use crate::store::RunningRun;

/// How many of the coming runs are shown.
const NEXT: usize = 5;

/// Show what goes on: runs, the queue, what comes next, the newest images, channels
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How many of the newest images are shown
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    images: usize,
}

#[derive(Debug, Serialize)]
struct Status {
    runs: Vec<RunningRun>,
    /// Runs of pipelines that have not ended.
    queue: Vec<serde_json::Value>,
    /// Pipelines that run by themselves, the next first.
    next: Vec<State>,
    images: Vec<image::Listed>,
    channels: Vec<channel::Listed>,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<(), CliError> {
    let store = context.store()?;
    let mut newest = store.images()?;
    newest.sort_by_key(|image| Reverse(image.manifest.created));
    newest.truncate(arguments.images);
    let Overview { mut pipelines, queue } = pipeline::overview(&store)?;
    pipelines.retain(|pipeline| pipeline.next_run.is_some() && pipeline.document.is_file());
    pipelines.sort_by_key(|pipeline| pipeline.next_run);
    let status = Status {
        runs: store.running()?,
        queue: super::pipeline::summaries(&queue)?,
        next: pipelines,
        images: image::listed(&newest, &store)?,
        channels: store.channels()?.iter().map(channel::Listed::from).collect(),
    };
    if context.output.json {
        return context.output.json(&status);
    }
    let runs = status.runs.iter().map(|run| format!("{} since {} (process {})", run.purpose, run.since, run.process));
    section("runs", runs.collect(), context);
    section("queue", queue.iter().map(queued).collect(), context);
    section("next", status.next.iter().take(NEXT).filter_map(coming).collect(), context);
    section("images", if newest.is_empty() { Vec::new() } else { image::lines(&status.images) }, context);
    let channels = if status.channels.is_empty() { Vec::new() } else { channel::rows(&status.channels) };
    section("channels", channels, context);
    Ok(())
}

/// A run of the queue, how many of its builds have ended, and what the first that waits is waiting for.
fn queued(run: &Run) -> String {
    let ended = run.builds.iter().filter(|build| !build.status.is_under_way()).count();
    let waits = run.builds.iter().find_map(|build| build.reason.as_ref().filter(|_| build.status == Pending));
    let waits = waits.map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{} {}, {ended} of {} builds have ended{waits}", run.id, run.status(), run.builds.len())
}

fn coming(pipeline: &State) -> Option<String> {
    Some(format!("{} {}", pipeline.next_run?.strftime("%Y-%m-%d %H:%M UTC"), pipeline.name))
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
