//! The build's log: what happened, a line each, with the time.

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use fs_err::File;
use goldsmith_agent::message::Stream;

use super::Event;
use crate::component::{Event as StepEvent, StepStatus};

/// A log file. What can't be written, because the disk is full for instance, is lost: the build has its own words then.
#[derive(Debug, Clone)]
pub(super) struct Log(Arc<Mutex<File>>);

impl Log {
    /// Adds to a log.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Self(Arc::new(Mutex::new(file))))
    }

    /// Notes an event.
    pub(super) fn note(&self, event: &Event) {
        if let Some(text) = describe(event) {
            self.line(&text);
        }
    }

    /// Notes a line.
    pub(super) fn line(&self, text: &str) {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ");
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for line in text.lines() {
            let _lost = writeln!(file, "{now} {line}");
        }
    }
}

/// An event as a line, unless it is only progress.
fn describe(event: &Event) -> Option<String> {
    Some(match event {
        Event::StageBegins { name } => format!("stage {name}"),
        Event::StageEnds { name, seconds } => format!("stage {name} took {seconds:.1} s"),
        Event::Parent(crate::parent::Event::Begins(what)) => what.clone(),
        Event::Parent(crate::parent::Event::Transfer { .. }) | Event::Copied { .. } => return None,
        Event::Component { number, of, name } => format!("component {number}/{of} {name}"),
        Event::Cached { number, of, name, ran } => {
            format!("component {number}/{of} {name}: from a layer made at {ran}")
        }
        Event::Step(event) => describe_step(event),
        Event::Note(text) => format!("note: {text}"),
        Event::Warning(text) => format!("warning: {text}"),
    })
}

fn describe_step(event: &StepEvent) -> String {
    match event {
        StepEvent::StepBegins { phase, step, action, attempt: (number, of) } => {
            let attempt = if *of > 1 { format!(", attempt {number}/{of}") } else { String::new() };
            format!("step {phase}/{step} ({action}{attempt})")
        }
        StepEvent::Output { stream: Stream::Stdout, line } => format!("  | {line}"),
        StepEvent::Output { stream: Stream::Stderr, line } => format!("  ! {line}"),
        StepEvent::Reboots => "the guest restarts".to_owned(),
        StepEvent::StepEnds(report) => {
            let seconds = report.duration.as_secs_f64();
            let how = match &report.status {
                StepStatus::Success => "done".to_owned(),
                StepStatus::Failed(failure) => format!("failed: {}", failure.message),
                StepStatus::FailureIgnored(failure) => format!("failed, ignored: {}", failure.message),
            };
            format!("step {}/{} {how} ({seconds:.1} s)", report.phase, report.step)
        }
    }
}
