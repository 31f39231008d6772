//! `goldsmith pipeline`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;

use super::output::{BAD, BOLD, DIM, GOOD, WARN, table};
use super::publish::ServiceArguments;
use super::report::{CliError, plain_pipeline};
use super::{Accelerator, Context};
use crate::factory::{Event, Factory};
use crate::host::process::Program;
use crate::pipeline::{
    self, Build, Definition, Disabled, DisabledBy, Ledger, Notice, Run, Seen, State, Status, Until, Worker,
};

/// Run recipes by themselves: when it is time, and something is newer
#[derive(Debug, Subcommand)]
#[command(about = "Run recipes by themselves: when it is time, and something is newer")]
pub(super) enum Command {
    /// List pipelines, when they run next and how they ran last
    List {
        #[command(flatten)]
        folder: FolderArguments,
    },
    /// Show all that is known of a pipeline, and its latest runs
    Show {
        /// The pipeline: a name, or a file that has one
        pipeline: String,
        #[command(flatten)]
        folder: FolderArguments,
    },
    /// Print when a pipeline runs next by its schedule
    Next {
        /// The pipeline: a name, or a file that has one
        pipeline: String,
        /// How many times
        #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
        count: u16,
        #[command(flatten)]
        folder: FolderArguments,
    },
    /// Run a pipeline now, whatever its schedule says
    Run {
        /// The pipeline: a name, or a file that has one
        pipeline: String,
        /// Make new images even if nothing has changed
        #[arg(long)]
        anew: bool,
        /// Put the run into the queue only; `goldsmith scheduler` or `pipeline tick` works on it
        #[arg(long)]
        queue: bool,
        #[command(flatten)]
        folder: FolderArguments,
        #[command(flatten)]
        work: WorkArguments,
    },
    /// Let a pipeline run by its schedule again; its failures are forgotten
    Enable {
        /// The pipeline: a name, or a file that has one
        pipeline: String,
        #[command(flatten)]
        folder: FolderArguments,
    },
    /// Keep a pipeline from running by its schedule
    Disable {
        /// The pipeline: a name, or a file that has one
        pipeline: String,
        #[command(flatten)]
        folder: FolderArguments,
    },
    /// Do what is due and work on the queue once: for cron, or the schedule of a CI service
    Tick {
        #[command(flatten)]
        folder: FolderArguments,
        #[command(flatten)]
        work: WorkArguments,
    },
    /// End a run: builds that wait do not begin, those under way are stopped
    Cancel {
        /// The run, as `pipeline show` names it
        run: String,
    },
    /// Make one build of a run
    #[command(hide = true)]
    Build {
        /// The run
        run: String,
        /// Which of its builds, from 0
        number: usize,
        #[command(flatten)]
        work: WorkArguments,
    },
}

/// Where pipelines are
#[derive(Debug, Clone, Args)]
pub(super) struct FolderArguments {
    /// Folder with the documents of pipelines [default: this one]
    #[arg(
        long,
        env = "GOLDSMITH_PIPELINES",
        value_name = "DIR",
        default_value = ".",
        hide_env_values = true,
        hide_default_value = true,
        value_parser = folder
    )]
    pub(super) folder: PathBuf,
}

/// A variable that is set to nothing counts as none.
fn folder(text: &str) -> Result<PathBuf, String> {
    Ok(PathBuf::from(if text.is_empty() { "." } else { text }))
}

/// How builds are made
#[derive(Debug, Clone, Args)]
pub(super) struct WorkArguments {
    /// What guests run on
    #[arg(long, value_enum, default_value_t)]
    accel: Accelerator,
    #[command(flatten)]
    services: ServiceArguments,
}

impl WorkArguments {
    pub(super) fn factory(&self, context: &Context) -> Result<Factory, CliError> {
        Ok(Factory { endpoints: self.services.clone().endpoints(), ..context.factory(self.accel)? })
    }

    /// What makes a build: this very goldsmith, even if its file has been replaced by a newer one.
    fn program(&self, factory: &Factory, context: &Context) -> Program {
        let program = Program::new("/proc/self/exe").arg("--home").arg(factory.store.root());
        program.args(["--quiet", "pipeline", "build"]).args(self.words(context))
    }

    /// The same on another goldsmith's command line, with all that may come from this one's environment.
    pub(super) fn words(&self, context: &Context) -> Vec<String> {
        let budget = format!("--layer-budget={}", context.global.layer_budget);
        [budget, format!("--accel={}", self.accel.word())].into_iter().chain(self.services.words()).collect()
    }

    /// Works on a store's queue.
    pub(super) fn worker(&self, factory: &Factory, context: &Context) -> Worker {
        let output = context.output.clone();
        let tell = move |notice: Notice| tell(&notice, &output);
        Worker::new(factory.store.clone(), self.program(factory, context), factory.endpoints.clone(), Arc::new(tell))
    }
}

pub(super) async fn run(command: Command, context: &Context) -> Result<(), CliError> {
    match command {
        Command::List { folder } => list(&folder, context),
        Command::Show { pipeline, folder } => show(&find(&pipeline, &folder, context)?, context),
        Command::Next { pipeline, count, folder } => next(&find(&pipeline, &folder, context)?, count, context),
        Command::Run { pipeline, anew, queue, folder, work } => {
            let definition = find(&pipeline, &folder, context)?;
            start(&definition, anew, queue, &work, context).await
        }
        Command::Enable { pipeline, folder } => set_enabled(&find(&pipeline, &folder, context)?, true, context),
        Command::Disable { pipeline, folder } => set_enabled(&find(&pipeline, &folder, context)?, false, context),
        Command::Tick { folder, work } => tick(&folder, &work, context).await,
        Command::Cancel { run } => cancel(&run, context),
        Command::Build { run, number, work } => build(&run, number, &work, context).await,
    }
}

fn find(wanted: &str, folder: &FolderArguments, context: &Context) -> Result<Definition, CliError> {
    let definition = pipeline::find(wanted, &folder.folder)?;
    for warning in &definition.warnings {
        context.output.warning(warning);
    }
    Ok(definition)
}

/// The pipelines of a folder; what is wrong with others is a warning.
pub(super) fn in_folder(folder: &FolderArguments, context: &Context) -> Result<Vec<Definition>, CliError> {
    let found = pipeline::in_folder(&folder.folder)?;
    for problem in &found.problems {
        context.output.warning(&plain_pipeline(&problem.error));
    }
    Ok(found.definitions)
}

/// A pipeline for people and programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed<'a> {
    name: &'a str,
    document: &'a std::path::Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_run: Option<Timestamp>,
    builds: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_run: Option<pipeline::LastRun>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_skip: Option<pipeline::Skip>,
    consecutive_failures: u32,
}

/// What keeps a pipeline from running by its schedule.
fn disabled_by(definition: &Definition, state: &State) -> Option<&'static str> {
    match &state.disabled {
        _ if !definition.enabled => Some("document"),
        Some(Disabled { by: DisabledBy::User, .. }) => Some("user"),
        Some(Disabled { by: DisabledBy::Failures, .. }) => Some("failures"),
        None => None,
    }
}

fn status(definition: &Definition, state: &State) -> String {
    let by = disabled_by(definition, state);
    by.map_or_else(|| "ENABLED".to_owned(), |by| format!("DISABLED by {by}"))
}

fn listed<'a>(definition: &'a Definition, state: State) -> Listed<'a> {
    Listed {
        name: definition.name.as_str(),
        document: &definition.document,
        description: definition.description.as_deref(),
        status: if disabled_by(definition, &state).is_some() { "DISABLED" } else { "ENABLED" },
        disabled_by: disabled_by(definition, &state),
        schedule: definition.schedule.as_ref().map(ToString::to_string),
        next_run: pipeline::next_run(definition, &state),
        builds: definition.builds.len(),
        last_run: state.last_run,
        last_skip: state.last_skip,
        consecutive_failures: state.consecutive_failures,
    }
}

fn list(folder: &FolderArguments, context: &Context) -> Result<(), CliError> {
    let definitions = in_folder(folder, context)?;
    let ledger = Ledger::new(&context.store()?);
    let mut all = Vec::new();
    for definition in &definitions {
        all.push(listed(definition, ledger.state_of(definition, Timestamp::now())?));
    }
    if context.output.json {
        return context.output.json(&all);
    }
    if all.is_empty() {
        context.output.progress(&format!("no document in `{}` has a pipeline", folder.folder.display()));
        return Ok(());
    }
    let row = |one: &Listed<'_>| {
        let next = one.next_run.map(minute).unwrap_or_default();
        let last = one.last_run.as_ref().map(|last| format!("{} {}", minute(last.at), last.status));
        let schedule = one.schedule.clone().unwrap_or_else(|| "by hand".to_owned());
        let by = one.disabled_by.map(|by| format!(" by {by}")).unwrap_or_default();
        vec![one.name.to_owned(), format!("{}{by}", one.status), schedule, next, last.unwrap_or_default()]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    for line in table(&["PIPELINE", "STATUS", "SCHEDULE", "NEXT RUN (UTC)", "LAST RUN (UTC)"], &rows) {
        context.output.result(&line);
    }
    Ok(())
}

fn show(definition: &Definition, context: &Context) -> Result<(), CliError> {
    let ledger = Ledger::new(&context.store()?);
    let state = ledger.state_of(definition, Timestamp::now())?;
    let mut runs = ledger.runs()?;
    runs.retain(|run| run.pipeline == definition.name);
    runs.reverse();
    if context.output.json {
        let (listed, runs) = (listed(definition, state), summaries(&runs)?);
        let builds: Vec<Build> = definition.builds.iter().map(Build::shown).collect();
        return context.output.json(&serde_json::json!({
            "pipeline": listed, "recipe": definition.how.recipe, "builds": builds, "runs": runs,
        }));
    }
    for (name, value) in facts(definition, &state) {
        context.output.result(&format!("{BOLD}{name:<14}{BOLD:#} {value}"));
    }
    for run in runs.iter().take(10) {
        context.output.result("");
        show_run(run, context);
    }
    Ok(())
}

/// A run as `--json` prints it: with its recipe, and not all that the documents say of how it is built. Addresses of proxies
/// and webhooks are among that, which may hold passwords and end in a CI's log; so may those of parents.
fn summary(run: &Run) -> std::io::Result<serde_json::Value> {
    let mut run = run.clone();
    for record in &mut run.builds {
        record.build = record.build.shown();
    }
    let mut summary = serde_json::to_value(&run)?;
    if let Some(fields) = summary.as_object_mut() {
        fields.remove("how");
        fields.insert("recipe".to_owned(), serde_json::to_value(&run.how.recipe)?);
    }
    Ok(summary)
}

/// The same of several.
pub(super) fn summaries(runs: &[Run]) -> std::io::Result<Vec<serde_json::Value>> {
    runs.iter().map(summary).collect()
}

/// What a person wants to know of a pipeline.
fn facts(definition: &Definition, state: &State) -> Vec<(&'static str, String)> {
    let mut facts = vec![("pipeline", definition.name.to_string())];
    facts.extend(definition.description.clone().map(|text| ("description", text)));
    facts.extend(definition.tags.iter().map(|(name, value)| ("tag", format!("{name}: {value}"))));
    facts.push(("document", definition.document.display().to_string()));
    facts.push(("recipe", definition.how.recipe.display().to_string()));
    facts.extend(definition.how.distribution.as_ref().map(|named| ("distribution", named.name.clone())));
    facts.push(("status", status(definition, state)));
    if let Some(schedule) = &definition.schedule {
        let gate = match definition.condition {
            pipeline::Condition::ExpressionMatchOnly => "always",
            pipeline::Condition::DependencyUpdates => "if something that it is made from is newer",
        };
        facts.push(("schedule", format!("{schedule}, {gate}")));
        let next = pipeline::next_run(definition, state).map_or_else(|| "none".to_owned(), |next| next.to_string());
        facts.push(("next run", next));
    }
    if let Some(most) = definition.failures_allowed {
        facts.push(("failures", format!("{} of {most} in a row", state.consecutive_failures)));
    }
    facts.extend(state.last_skip.as_ref().map(|skip| ("last skip", format!("{}: {}", skip.at, skip.reason))));
    if definition.builds.len() > 1 {
        facts.extend(definition.builds.iter().map(|build| ("build", build.label())));
    }
    facts
}

fn next(definition: &Definition, count: u16, context: &Context) -> Result<(), CliError> {
    let ledger = Ledger::new(&context.store()?);
    let state = ledger.state_of(definition, Timestamp::now())?;
    let times = pipeline::next_runs(definition, &state, Timestamp::now(), usize::from(count));
    if context.output.json {
        return context.output.json(&times);
    }
    let Some(schedule) = &definition.schedule else {
        context.output.note(&format!("{} has no schedule; `goldsmith pipeline run` runs it", definition.name));
        return Ok(());
    };
    if pipeline::next_run(definition, &state).is_none() && !times.is_empty() {
        context.output.warning(&format!("{} is {}; it would run", definition.name, status(definition, &state)));
    }
    for time in times {
        let local = time.to_zoned(schedule.zone().clone());
        context.output.result(&format!("{} {DIM}{time}{DIM:#}", local.strftime("%a %Y-%m-%d %H:%M %Z")));
    }
    Ok(())
}

async fn start(
    definition: &Definition,
    anew: bool,
    queue: bool,
    work: &WorkArguments,
    context: &Context,
) -> Result<(), CliError> {
    let factory = work.factory(context)?;
    let ledger = Ledger::new(&factory.store);
    let asked = pipeline::ask(&factory, &ledger, definition, anew, Timestamp::now());
    let run = unless_interrupted(asked, context).await??;
    context.output.progress(&format!("{} is in the queue", run.id));
    if !queue {
        let worker = work.worker(&factory, context);
        worker.work(&Until::Ended(run.id.clone()), &context.cancel).await?;
        if context.cancel.is_cancelled() {
            pipeline::cancel(&ledger, &run.id, Timestamp::now())?;
        }
    }
    drop(factory);
    let run = ledger.run(&run.id)?.unwrap_or(run);
    if context.output.json {
        context.output.json(&summary(&run)?)?;
    } else {
        show_run(&run, context);
    }
    match run.status() {
        Status::Failed => Err(CliError::Runs { failed: vec![run.id] }),
        Status::Cancelled => Err(crate::factory::Error::Interrupted.into()),
        // Somebody else works on it, and has been told to end it.
        Status::Pending | Status::Building if context.cancel.is_cancelled() => {
            Err(crate::factory::Error::Interrupted.into())
        }
        Status::Pending | Status::Building | Status::Available => Ok(()),
    }
}

/// What comes of work that asks publishers, who may take their time.
async fn unless_interrupted<T>(work: impl Future<Output = T>, context: &Context) -> Result<T, CliError> {
    tokio::select! {
        result = work => Ok(result),
        () = context.cancel.cancelled() => Err(crate::factory::Error::Interrupted.into()),
    }
}

async fn tick(folder: &FolderArguments, work: &WorkArguments, context: &Context) -> Result<(), CliError> {
    let definitions = in_folder(folder, context)?;
    let factory = work.factory(context)?;
    let ledger = Ledger::new(&factory.store);
    let began = Timestamp::now();
    // One after another: what has been seen of the first is told even if nobody waits for the second.
    for definition in definitions.chunks(1) {
        for seen in unless_interrupted(pipeline::pass(&factory, &ledger, definition, began), context).await? {
            tell_seen(&seen, &context.output);
        }
    }
    work.worker(&factory, context).work(&Until::Idle, &context.cancel).await?;
    drop(factory);
    let mut runs = ledger.runs()?;
    runs.retain(|run| run.ended.is_none_or(|ended| ended >= began));
    if context.output.json {
        context.output.json(&summaries(&runs)?)?;
    } else {
        runs.iter().for_each(|run| show_run(run, context));
    }
    let failed = runs.iter().filter(|run| run.status() == Status::Failed);
    let failed: Vec<String> = failed.map(|run| run.id.clone()).collect();
    match failed.is_empty() {
        false => Err(CliError::Runs { failed }),
        true if context.cancel.is_cancelled() => Err(crate::factory::Error::Interrupted.into()),
        true => Ok(()),
    }
}

/// The report of a run: a line for it, and one for each of its builds.
fn show_run(run: &Run, context: &Context) {
    let output = &context.output;
    let line = format!("{BOLD}{}{BOLD:#} {}", run.id, coloured(run.status()));
    output.result(&line);
    for reason in &run.reasons {
        output.result(&format!("  {DIM}because{DIM:#} {reason}"));
    }
    for (number, build) in run.builds.iter().enumerate() {
        let image = build.image.as_ref().map(|image| format!(" {image}")).unwrap_or_default();
        let label = build.build.label();
        let label = if label.is_empty() { label } else { format!(" {DIM}{label}{DIM:#}") };
        let reason = build.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        output.result(&format!("  {number} {}{image}{label}{reason}", coloured(build.status)));
    }
}

fn coloured(status: Status) -> String {
    match status {
        Status::Available => format!("{GOOD}{status}{GOOD:#}"),
        Status::Failed => format!("{BAD}{status}{BAD:#}"),
        Status::Cancelled => format!("{WARN}{status}{WARN:#}"),
        Status::Pending | Status::Building => status.to_string(),
    }
}

fn set_enabled(definition: &Definition, enable: bool, context: &Context) -> Result<(), CliError> {
    let ledger = Ledger::new(&context.store()?);
    let state = pipeline::set_enabled(&ledger, definition, enable, Timestamp::now())?;
    if enable && !definition.enabled {
        let place = definition.document.display();
        context.output.warning(&format!("`status: DISABLED` in {place} keeps it from running by its schedule"));
    }
    if enable && definition.schedule.is_none() {
        context.output.warning(&format!("{} has no schedule", definition.name));
    }
    if context.output.json {
        return context.output.json(&listed(definition, state));
    }
    let next = state.next_run.map(|next| format!("; it runs next at {next}")).unwrap_or_default();
    context.output.result(&format!("{} is {}{next}", definition.name, status(definition, &state)));
    Ok(())
}

fn cancel(run: &str, context: &Context) -> Result<(), CliError> {
    let ledger = Ledger::new(&context.store()?);
    let run = pipeline::cancel(&ledger, run, Timestamp::now())?;
    if context.output.json {
        return context.output.json(&summary(&run)?);
    }
    show_run(&run, context);
    if run.ended.is_none() {
        context.output.note("what is under way is being stopped");
    }
    Ok(())
}

/// The process of one build. Its standard output is its log, for whoever started it.
async fn build(run: &str, number: usize, work: &WorkArguments, context: &Context) -> Result<(), CliError> {
    let output = context.output.clone();
    let listener = move |event: Event| {
        if let Some(line) = event.line() {
            output.result(&line);
        }
    };
    let mut factory = Factory { listener: Arc::new(listener), ..work.factory(context)? };
    let told = Ledger::new(&factory.store).run(run)?.map(|run| run.how.events).unwrap_or_default();
    let (targets, problems) = pipeline::targets(&told).await;
    problems.iter().for_each(|problem| context.output.warning(problem));
    let telling = super::events::tell(targets, &mut factory, context);
    let outcome = pipeline::execute(&factory, run, number).await;
    telling.finish(context).await;
    let outcome = outcome?;
    match outcome.status {
        Status::Available => Ok(()),
        _ => Err(CliError::Runs { failed: vec![format!("{run} {number}")] }),
    }
}

/// Prints what happens to builds.
fn tell(notice: &Notice, output: &super::output::Output) {
    match notice {
        Notice::Begins { run, build: (number, of), label } => {
            let label = if label.is_empty() { String::new() } else { format!(" {label}") };
            output.progress(&format!("{BOLD}{run}{BOLD:#} build {} of {of} begins{label}", number + 1));
        }
        Notice::Line { run, number, line } => output.progress(&format!("{DIM}{run} {number}{DIM:#} {line}")),
        Notice::Build { run, number, record } => {
            let reason = record.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            let image = record.image.as_ref().map(|image| format!(" {image}")).unwrap_or_default();
            output.progress(&format!("{run} {number} {}{image}{reason}", coloured(record.status)));
        }
        Notice::Ended(run) => output.progress(&format!("{} {}", run.id, coloured(run.status()))),
        Notice::Disabled { pipeline, failures } => {
            output.warning(&format!(
                "{pipeline} has failed {failures} times in a row and runs no more by its schedule; `goldsmith pipeline enable {pipeline}` lets it"
            ));
        }
        Notice::Problem(problem) => output.warning(problem),
    }
}

/// Prints what came of looking at a pipeline.
pub(super) fn tell_seen(seen: &Seen, output: &super::output::Output) {
    match seen {
        Seen::Queued(run) => {
            let reasons = if run.reasons.is_empty() { String::new() } else { format!(": {}", run.reasons.join("; ")) };
            output.progress(&format!("{} is in the queue{reasons}", run.id));
        }
        Seen::Skipped { pipeline, skip } => {
            output.progress(&format!("{pipeline} is not run at {}: {}", skip.at, skip.reason));
        }
        Seen::Unknown { pipeline, why } => output.warning(&format!("{pipeline} is due, and waits: {why}")),
    }
}

fn minute(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M").to_string()
}
