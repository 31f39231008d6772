//! The command line: what can be typed, how progress, results and errors are shown. The only place that prints.

mod base;
mod build;
mod channel;
mod check;
mod component;
mod doctor;
mod events;
mod export;
mod gc;
mod generate;
mod image;
mod import;
mod junit;
mod lifecycle;
mod output;
mod pipeline;
mod plan;
mod progress;
mod publish;
mod recipe;
mod rehearsal;
mod report;
mod run;
mod scheduler;
mod shell;
mod signals;
mod status;
mod terminal;
mod test;
mod values;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use goldsmith_aws::Endpoints;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing_subscriber::EnvFilter;

use crate::document::size::Size;
use crate::factory::Factory;
use crate::machine::accelerator::{self, Choice};
use crate::store::{LAYER_BUDGET, Store};
use output::Output;
use report::CliError;

/// A golden-image factory: from a recipe to a tested, exported, versioned virtual machine image.
#[derive(Debug, Parser)]
#[command(name = "goldsmith", version, max_term_width = 100, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
struct Global {
    /// Folder with images, parents and caches [default: $XDG_DATA_HOME/goldsmith]
    #[arg(long, global = true, env = "GOLDSMITH_HOME", value_name = "DIR", hide_env_values = true,
          value_parser = OsStringValueParser::new().map(PathBuf::from))]
    home: Option<PathBuf>,
    /// Space that layers may take; those that were not used for longest go first
    #[arg(long, global = true, env = "GOLDSMITH_LAYER_BUDGET", value_name = "SIZE", hide_env_values = true,
          default_value_t = Size(LAYER_BUDGET), value_parser = layer_budget)]
    layer_budget: Size,
    /// Print the result as one JSON object, and nothing else, to standard output
    #[arg(long, global = true)]
    json: bool,
    /// Print results, warnings and errors only
    #[arg(long, short, global = true)]
    quiet: bool,
    /// Print more of what happens; twice for everything
    #[arg(long, short, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    verbose: u8,
}

fn layer_budget(text: &str) -> Result<Size, String> {
    if text.is_empty() { Ok(Size(LAYER_BUDGET)) } else { text.parse().map_err(|error| format!("{error}")) }
}

#[derive(Debug, Subcommand)]
enum Command {
    Build(build::Arguments),
    Plan(plan::Arguments),
    Shell(shell::Arguments),
    Test(test::Arguments),
    Check(check::Arguments),
    Export(export::Arguments),
    Publish(publish::Arguments),
    Run(run::Arguments),
    #[command(subcommand)]
    Image(image::Command),
    #[command(subcommand)]
    Channel(channel::Command),
    #[command(subcommand)]
    Lifecycle(lifecycle::Command),
    Status(status::Arguments),
    #[command(subcommand)]
    Recipe(recipe::Command),
    #[command(subcommand)]
    Component(component::Command),
    Import(import::Arguments),
    #[command(subcommand)]
    Base(base::Command),
    #[command(subcommand)]
    Pipeline(pipeline::Command),
    Scheduler(scheduler::Arguments),
    Gc(gc::Arguments),
    Doctor(doctor::Arguments),
    Completions(generate::Completions),
    #[command(hide = true)]
    Man(generate::Man),
    /// Print the reference of all commands as Markdown
    #[command(name = "__reference", hide = true)]
    Reference,
}

/// Which accelerator guests run on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Accelerator {
    /// KVM where it works, else emulation
    #[default]
    Auto,
    /// KVM, or an error
    Kvm,
    /// Emulation
    Tcg,
}

impl Accelerator {
    /// What `--accel` is given for it.
    fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

impl From<Accelerator> for Choice {
    fn from(accelerator: Accelerator) -> Self {
        match accelerator {
            Accelerator::Auto => Self::Auto,
            Accelerator::Kvm => Self::Kvm,
            Accelerator::Tcg => Self::Tcg,
        }
    }
}

/// What the commands work with.
struct Context {
    global: Global,
    output: Output,
    cancel: CancellationToken,
    aftermath: TaskTracker,
}

impl Context {
    /// The store, after dead processes' leftovers have been cleared away.
    fn store(&self) -> Result<Store, CliError> {
        // A variable that is set to nothing counts as none; an option that is, names a store that was not meant.
        let is_of_variable = std::env::var_os("GOLDSMITH_HOME").is_some_and(|value| value.is_empty());
        if self.global.home.as_ref().is_some_and(|home| home.as_os_str().is_empty()) && !is_of_variable {
            return Err(CliError::Usage("`--home` names no folder".to_owned()));
        }
        let root = match self.global.home.as_ref().filter(|home| !home.as_os_str().is_empty()) {
            Some(home) => home.clone(),
            None => Store::default_root()?,
        };
        let store = Store::open(root)?;
        let recovered = store.recover()?;
        for problem in recovered.problems {
            self.output.warning(&problem);
        }
        for image in recovered.images {
            self.output.warning(&format!("{image} was left by a goldsmith that was killed; it is FAILED now"));
        }
        Ok(store)
    }

    /// That nobody expects a JSON document where something else goes to standard output.
    fn no_json(&self, what: &str) -> Result<(), CliError> {
        if self.output.json {
            return Err(CliError::Usage(format!("`--json` can't be had here: {what} goes to standard output")));
        }
        Ok(())
    }

    fn factory(&self, accelerator: Accelerator) -> Result<Factory, CliError> {
        let reporter = progress::Reporter::new(&self.output);
        Ok(Factory {
            store: self.store()?,
            listener: Arc::new(move |event| reporter.hear(&event)),
            cancel: self.cancel.clone(),
            accelerator: accelerator.into(),
            layer_budget: self.global.layer_budget.0,
            endpoints: Endpoints::default(),
            aftermath: self.aftermath.clone(),
        })
    }
}

/// Stack of a thread, in bytes: as much as a main thread has. All that a build waits for is one state machine within another,
/// and without optimisation their frames do not fit into the usual 2 MiB.
const STACK: usize = 8 << 20;

/// How long what was given up may take to be put in order.
const AFTERMATH: std::time::Duration = std::time::Duration::from_secs(5);

/// Parses, runs, reports: the only place that ends the process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    start_logging(cli.global.verbose);
    let output = Output::new(&cli.global);
    // Children die with the thread that started them, so all are started by threads that live as long as the runtime.
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(4).thread_stack_size(STACK).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            output.error(&CliError::Io(error));
            return ExitCode::FAILURE;
        }
    };
    let cancel = CancellationToken::new();
    let aftermath = TaskTracker::new();
    let context =
        Context { global: cli.global, output: output.clone(), cancel: cancel.clone(), aftermath: aftermath.clone() };
    let result = runtime.block_on(async {
        // To a service, a hang-up says that its documents have changed.
        let ends = if matches!(cli.command, Command::Scheduler(_)) { signals::OF_A_SERVICE } else { signals::ALL };
        signals::listen(ends, cancel, output.clone());
        // On a worker thread, for the children's sake.
        let ended = tokio::spawn(dispatch(cli.command, context)).await;
        aftermath.close();
        if tokio::time::timeout(AFTERMATH, aftermath.wait()).await.is_err() {
            output.warning("what was given up could not be put in order in time");
        }
        ended.unwrap_or_else(|error| Err(CliError::Io(std::io::Error::other(error))))
    });
    // A read or a digest that is under way on a thread of its own must not hold the exit.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match result.and_then(|()| output.is_whole()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

async fn dispatch(command: Command, context: Context) -> Result<(), CliError> {
    match command {
        Command::Build(arguments) => build::run(arguments, &context).await,
        Command::Plan(arguments) => plan::run(arguments, &context).await,
        Command::Shell(arguments) => shell::run(arguments, &context).await,
        Command::Test(arguments) => test::run(arguments, &context).await,
        Command::Check(arguments) => check::run(arguments, &context).await,
        Command::Export(arguments) => export::run(arguments, &context).await,
        Command::Publish(arguments) => publish::run(arguments, &context).await,
        Command::Run(arguments) => run::run(arguments, &context).await,
        Command::Image(command) => image::run(command, &context).await,
        Command::Channel(command) => channel::run(command, &context),
        Command::Lifecycle(command) => lifecycle::run(command, &context).await,
        Command::Status(arguments) => status::run(&arguments, &context),
        Command::Recipe(command) => recipe::run(command, &context),
        Command::Component(command) => component::run(command, &context).await,
        Command::Import(arguments) => import::run(arguments, &context),
        Command::Base(command) => base::run(command, &context).await,
        Command::Pipeline(command) => pipeline::run(command, &context).await,
        Command::Scheduler(arguments) => scheduler::run(arguments, &context).await,
        Command::Gc(arguments) => gc::run(&arguments, &context),
        Command::Doctor(arguments) => doctor::run(arguments, &context).await,
        Command::Completions(arguments) => generate::completions(&arguments, &context.output),
        Command::Man(arguments) => generate::man(&arguments),
        Command::Reference => generate::reference(),
    }
}

/// goldsmith's own messages for developers; `GOLDSMITH_LOG` takes a filter as `RUST_LOG` usually does.
fn start_logging(verbosity: u8) {
    let default = match verbosity {
        0 => "error",
        1 => "goldsmith=info",
        2 => "goldsmith=debug",
        _ => "goldsmith=trace",
    };
    let filter = EnvFilter::try_from_env("GOLDSMITH_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(anstream::stderr).init();
}

/// Tries KVM out, in a process of its own.
pub fn run_probe_guest() -> ExitCode {
    match accelerator::run_probe_guest() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            output::raw_stderr(&why);
            ExitCode::FAILURE
        }
    }
}

/// The whole command tree, for completions, man pages and the reference.
fn command_tree() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        command_tree().debug_assert();
    }

    #[test]
    fn everything_has_help() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path} has no help");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{path}: {} has no help", argument.get_id());
            }
            command.get_subcommands().for_each(|sub| check(sub, &path));
        }
        check(&command_tree(), "");
    }
}
