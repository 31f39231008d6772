//! `goldsmith gc`.

use clap::Args;

use super::Context;
use super::output::size;
use super::report::CliError;

/// Give back disk space: layers over the budget, what can be fetched again, and what nothing uses any more
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Say what would go, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Give back all layers as well, and not only those that are over the budget
    #[arg(long)]
    all: bool,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<(), CliError> {
    let store = context.store()?;
    let budget = if arguments.all { 0 } else { context.global.layer_budget.0 };
    let garbage = store.garbage(budget)?;
    let bytes: u64 = garbage.iter().map(|item| item.bytes).sum();
    for item in &garbage {
        let line = format!("{} {} ({})", size(item.bytes), item.path.display(), item.what);
        if context.output.json { context.output.progress(&line) } else { context.output.result(&line) }
    }
    if !arguments.dry_run {
        store.remove(&garbage)?;
    }
    if context.output.json {
        let paths: Vec<_> = garbage.iter().map(|item| &item.path).collect();
        return context
            .output
            .json(&serde_json::json!({ "removed": !arguments.dry_run, "bytes": bytes, "paths": paths }));
    }
    let verb = if arguments.dry_run { "would give back" } else { "gave back" };
    context.output.result(&format!("{verb} {}", size(bytes)));
    Ok(())
}
