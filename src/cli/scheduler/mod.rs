//! `goldsmith scheduler`.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use super::Context;
use super::pipeline::{FolderArguments, WorkArguments, tell_seen};
use super::report::{CliError, plain_pipeline};
use crate::factory::Factory;
use crate::pipeline::{self, Definition, Ledger, Seen, Until};

/// Run pipelines by their schedules, for ever: a service in the foreground, for systemd
///
/// Documents are read again every minute, and at once on SIGHUP. SIGTERM and Ctrl-C end builds that are under way in good
/// order; they wait in the queue until it is started again. `pipeline tick` may be used beside it or instead.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    folder: FolderArguments,
    /// Print a unit file for systemd that starts it with this folder, store and options, and do nothing else
    #[arg(long)]
    print_unit: bool,
    #[command(flatten)]
    work: WorkArguments,
}

const UNIT: &str = include_str!("goldsmith-scheduler.service");
/// How long is slept at most. A timer stands still while the host is suspended, so what was missed meanwhile, and what
/// the clock was set to, is seen after this long; documents are read again as often.
const NAP: Duration = Duration::from_secs(60);

pub(super) async fn run(arguments: Arguments, context: &Context) -> Result<(), CliError> {
    if arguments.print_unit {
        return print_unit(&arguments, context);
    }
    let factory = arguments.work.factory(context)?;
    let worker = arguments.work.worker(&factory, context);
    let mut hang_up = signal(SignalKind::hangup())?;
    // It works on the queue while the next look at the schedules sleeps.
    let stop = context.cancel.clone();
    let mut work = tokio::spawn(async move { worker.work(&Until::Stopped, &stop).await });
    let mut scheduler = Scheduler { factory, told: BTreeSet::new() };
    // The first look may ask publishers that take their time, and the service manager does not wait for ever.
    notify(&[NotifyState::Ready]);
    let mut failed = None;
    let ended = loop {
        let nap = match scheduler.look(&arguments.folder, context).await {
            Ok(nap) => nap,
            Err(error) => {
                // Builds are ended in good order all the same.
                failed = Some(error);
                context.cancel.cancel();
                break None;
            }
        };
        tokio::select! {
            () = context.cancel.cancelled() => break None,
            ended = &mut work => break Some(ended),
            () = tokio::time::sleep(nap) => {}
            Some(()) = hang_up.recv() => {
                notify(&[NotifyState::Reloading, NotifyState::monotonic_usec_now()?]);
                scheduler.told.clear();
                context.output.progress("documents are read again");
                notify(&[NotifyState::Ready]);
            }
        }
    };
    notify(&[NotifyState::Stopping]);
    let ended = match ended {
        Some(ended) => ended,
        None => work.await,
    };
    drop(scheduler);
    ended.map_err(std::io::Error::other)??;
    if let Some(error) = failed {
        return Err(error);
    }
    context.output.progress("stopped; what was under way waits in the queue");
    Ok(())
}

struct Scheduler {
    factory: Factory,
    /// What has been said already, and need not be said every minute.
    told: BTreeSet<String>,
}

impl Scheduler {
    /// Does what is due, and says how long nothing will be.
    async fn look(&mut self, folder: &FolderArguments, context: &Context) -> Result<Duration, CliError> {
        let ledger = Ledger::new(&self.factory.store);
        let definitions = self.read(folder, context);
        let now = Timestamp::now();
        let passing = pipeline::pass(&self.factory, &ledger, &definitions, now);
        let seen = tokio::select! {
            seen = passing => seen,
            () = context.cancel.cancelled() => return Ok(NAP),
        };
        for seen in &seen {
            if !matches!(seen, Seen::Unknown { .. }) || self.told.insert(format!("{seen:?}")) {
                tell_seen(seen, &context.output);
            }
        }
        let next = next(&ledger, &definitions)?;
        let (count, when) =
            (definitions.len(), next.map_or_else(|| "none".to_owned(), |(at, name)| format!("{name} at {at}")));
        notify(&[NotifyState::Status(&format!("{count} pipelines; next: {when}"))]);
        let now = Timestamp::now();
        // What is due already waits for a publisher's answer, who need not be asked every second.
        let wait = next.filter(|(at, _)| *at > now).map(|(at, _)| now.duration_until(at).unsigned_abs());
        Ok(wait.map_or(NAP, |wait| wait.min(NAP)))
    }

    /// The pipelines as they are now. A folder that can't be read, and a document that is wrong, may be so for a moment.
    fn read(&mut self, folder: &FolderArguments, context: &Context) -> Vec<Definition> {
        let mut warn = |text: String| {
            if self.told.insert(text.clone()) {
                context.output.warning(&text);
            }
        };
        match pipeline::in_folder(&folder.folder) {
            Ok(found) => {
                found.problems.iter().for_each(|problem| warn(plain_pipeline(&problem.error)));
                found.definitions.iter().flat_map(|definition| &definition.warnings).cloned().for_each(&mut warn);
                found.definitions
            }
            Err(error) => {
                warn(plain_pipeline(&error));
                Vec::new()
            }
        }
    }
}

/// The next time at which a pipeline runs, and which one.
fn next<'a>(ledger: &Ledger, definitions: &'a [Definition]) -> Result<Option<(Timestamp, &'a str)>, CliError> {
    let mut first = None;
    for definition in definitions {
        let Some(state) = ledger.state(&definition.name)? else { continue };
        let Some(at) = pipeline::next_run(definition, &state) else { continue };
        if first.is_none_or(|(first, _)| at < first) {
            first = Some((at, definition.name.as_str()));
        }
    }
    Ok(first)
}

/// Tells systemd, if it was systemd that started us.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager can't be told");
    }
}

fn print_unit(arguments: &Arguments, context: &Context) -> Result<(), CliError> {
    let program = std::env::current_exe()?;
    let folder = fs_err::canonicalize(&arguments.folder.folder)?;
    let store = context.store()?;
    let is_root = rustix::process::geteuid().is_root();
    let target = if is_root { "multi-user.target" } else { "default.target" };
    let command = [program.to_string_lossy(), "scheduler".into(), "--folder".into(), folder.to_string_lossy()];
    let command: Vec<String> =
        command.into_iter().map(Into::into).chain(arguments.work.words(context)).map(|word| quoted(&word)).collect();
    let unit = fill(&command.join(" "), &store.root().to_string_lossy(), target);
    unit.lines().for_each(|line| context.output.result(line));
    Ok(())
}

/// The unit file with its places filled in.
fn fill(command: &str, home: &str, target: &str) -> String {
    UNIT.replace("@COMMAND@", command).replace("@HOME@", &escaped(home)).replace("@TARGET@", target)
}

/// A word as systemd.syntax(7) wants it.
fn quoted(word: &str) -> String {
    let escaped = escaped(word).replace('$', "$$");
    if word.chars().all(|c| c.is_ascii_alphanumeric() || "/-_.+=:".contains(c)) {
        escaped
    } else {
        format!("\"{escaped}\"")
    }
}

/// Text between double quotes: `%` begins a specifier.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_files_words_are_quoted_where_they_need_it() {
        let words = ["/usr/bin/goldsmith", "/srv/my \"own\" 5%", "--s3-endpoint=http://127.0.0.1:9000/"];
        let unit = fill(&words.map(quoted).join(" "), "/home/a b", "default.target");
        let lines: Vec<&str> =
            unit.lines().filter(|line| ["Exec", "Env", "Wanted"].iter().any(|word| line.starts_with(word))).collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        Environment="GOLDSMITH_HOME=/home/a b"
        ExecStart=/usr/bin/goldsmith "/srv/my \"own\" 5%%" --s3-endpoint=http://127.0.0.1:9000/
        ExecReload=/bin/kill -HUP $MAINPID
        WantedBy=default.target
        "#);
        assert!(!unit.contains('@'));
    }
}
