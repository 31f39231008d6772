//! The build's log: what happened, a line each, with the time.

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use fs_err::File;
use goldsmith_agent::message::Stream;

use super::build::BUILD_LOG;
use super::{Event, Factory};
use crate::component::{Event as StepEvent, Secrets, StepStatus};
use crate::host::file;
use crate::publish;
use crate::store::Store;
use crate::store::version::ImageId;

/// A log file. What can't be written, because the disk is full for instance, is lost: the build has its own words then.
#[derive(Debug, Clone)]
pub(super) struct Log(Arc<Mutex<Open>>);

#[derive(Debug)]
struct Open {
    file: File,
    /// Bytes that steps may still write to it.
    room: u64,
}

/// Bytes of what steps write that are kept: one that writes without end would fill the host's disk.
const MOST_OUTPUT: u64 = 256 << 20;

/// Bytes of the time before a line, and of its end.
const TIME: u64 = 26;

/// Whether there is room for what a step writes.
enum Room {
    Enough,
    JustFilled,
    Full,
}

impl Log {
    /// Adds to a log.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        let room = MOST_OUTPUT.saturating_sub(file.metadata()?.len());
        Ok(Self(Arc::new(Mutex::new(Open { file, room }))))
    }

    /// Notes an event.
    pub(super) fn note(&self, event: &Event) {
        let Some(text) = describe(event) else { return };
        if !matches!(event, Event::Step(StepEvent::Output { .. })) {
            return self.line(&text);
        }
        match self.take_room(text.len() as u64 + TIME) {
            Room::Enough => self.line(&text),
            Room::JustFilled => {
                self.line(&format!("note: steps have written {} MiB; no more of it is kept", MOST_OUTPUT >> 20))
            }
            Room::Full => {}
        }
    }

    fn take_room(&self, bytes: u64) -> Room {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = log.room;
        log.room = before.saturating_sub(bytes);
        match (before, log.room) {
            (_, 1..) => Room::Enough,
            (1.., 0) => Room::JustFilled,
            (0, 0) => Room::Full,
        }
    }

    /// Notes a line.
    pub(super) fn line(&self, text: &str) {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ");
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for line in text.lines() {
            let _lost = writeln!(log.file, "{now} {line}");
        }
    }
}

/// Notes in the log of an image's build what nobody else hears of.
pub fn note_in_log(store: &Store, image: &ImageId, text: &str) {
    if let Ok(image) = store.find(&image.into(), |_| true)
        && let Ok(log) = Log::open(&image.folder().join(BUILD_LOG))
    {
        log.line(&format!("warning: {text}"));
    }
}

impl Factory {
    /// Takes secrets out of a log that somebody else has written, if it is there: a guest's console. One from which they
    /// can't be taken goes.
    pub(super) fn mask_log(&self, path: &Path, secrets: &Secrets) {
        if secrets.is_empty() {
            return;
        }
        let Err(error) = mask(path, secrets) else { return };
        let gone = file::remove_if_there(path);
        let what = if gone.is_ok() { "it is removed" } else { "it may hold secrets: remove it" };
        self.tell(Event::Warning(format!("`{}` can't be cleared of secrets ({error}); {what}", path.display())));
    }
}

fn mask(path: &Path, secrets: &Secrets) -> io::Result<()> {
    let log = match fs_err::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        log => log?,
    };
    let log = String::from_utf8_lossy(&log);
    if secrets.are_in(&log) { file::write(path, secrets.mask(&log).as_bytes()) } else { Ok(()) }
}

/// An event as a line, unless it is only progress.
pub(super) fn describe(event: &Event) -> Option<String> {
    Some(match event {
        Event::StageBegins { name } => format!("stage {name}"),
        Event::StageEnds { name, seconds } => format!("stage {name} took {seconds:.1} s"),
        Event::Parent(crate::parent::Event::Begins(what)) => what.clone(),
        Event::Parent(crate::parent::Event::Transfer { .. }) | Event::Copied { .. } | Event::Exported { .. } => {
            return None;
        }
        Event::Reserved(image) => format!("note: building {image}"),
        Event::Component { number, of, name } => format!("component {number}/{of} {name}"),
        Event::Cached { number, of, name, ran } => {
            format!("component {number}/{of} {name}: from a layer made at {ran}")
        }
        Event::Step(event) => return describe_step(event),
        Event::Publish(event) => return describe_publication(event),
        Event::State(change) => format!("{} is {}", change.image, change.to),
        Event::Note(text) => format!("note: {text}"),
        Event::Warning(text) => format!("warning: {text}"),
    })
}

fn describe_publication(event: &publish::Event) -> Option<String> {
    Some(match event {
        publish::Event::Step { place, what } => format!("{place}: {what}"),
        publish::Event::Transfer { .. } => return None,
        publish::Event::Done { place } => format!("{place}: done"),
        publish::Event::Failed { place, why } => format!("{place}: failed: {why}"),
        publish::Event::Note { place, text } => format!("{place}: note: {text}"),
    })
}

fn describe_step(event: &StepEvent) -> Option<String> {
    Some(match event {
        StepEvent::StepBegins { phase, step, action, attempt: (number, of) } => {
            let attempt = if *of > 1 { format!(", attempt {number}/{of}") } else { String::new() };
            format!("step {phase}/{step} ({action}{attempt})")
        }
        StepEvent::Output { stream: Stream::Stdout, line } => format!("  | {line}"),
        StepEvent::Output { stream: Stream::Stderr, line } => format!("  ! {line}"),
        StepEvent::Values { .. } => return None,
        StepEvent::Reboots => "the guest restarts".to_owned(),
        StepEvent::StepEnds(report) => {
            let seconds = report.duration.as_secs_f64();
            let how = match &report.status {
                StepStatus::Success => "done".to_owned(),
                StepStatus::Skipped => "skipped".to_owned(),
                StepStatus::Failed(failure) => format!("failed: {}", failure.message),
                StepStatus::FailureIgnored(failure) => format!("failed, ignored: {}", failure.message),
            };
            format!("step {}/{} {how} ({seconds:.1} s)", report.phase, report.step)
        }
    })
}
