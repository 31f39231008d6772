//! Events as a live display or as lines.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use goldsmith_agent::message::Stream;
use indicatif::{ProgressBar, ProgressStyle};

use super::output::{BAD, DIM, GOOD, Output, WARN};
use crate::component::{Event as StepEvent, StepStatus};
use crate::factory::Event;
use crate::{parent, publish};

/// The stage that may also run beside the test.
const EXPORT: &str = "export";

/// Shows what the factory tells.
pub(super) struct Reporter {
    output: Output,
    state: Mutex<State>,
}

struct State {
    /// The one line that moves.
    line: Option<ProgressBar>,
    stage: &'static str,
    component: String,
    step: String,
    /// Which quarter of a copy was shown last, where nothing moves.
    quarter: u64,
    /// What is on its way to places.
    transfers: HashMap<String, Transfer>,
}

impl Reporter {
    pub(super) fn new(output: &Output) -> Self {
        let line = output.is_live().then(|| {
            let line = output.bars().add(ProgressBar::new_spinner());
            line.enable_steady_tick(Duration::from_millis(100));
            line
        });
        // `base pull` has no stages; what it tells is the parent's.
        let state = State {
            line,
            stage: "parent",
            component: String::new(),
            step: String::new(),
            quarter: 0,
            transfers: HashMap::new(),
        };
        Self { output: output.clone(), state: Mutex::new(state) }
    }

    /// Shows an event.
    pub(super) fn hear(&self, event: &Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::StageBegins { name } => {
                state.stage = name;
                state.component.clear();
                state.step.clear();
                state.spin();
            }
            Event::StageEnds { name, seconds } => {
                state.clear();
                self.output.progress(&format!("{GOOD}{name:<7}{GOOD:#} {DIM}done in {seconds:.1} s{DIM:#}"));
            }
            Event::Reserved(image) => self.output.note(&format!("building {image}")),
            Event::Parent(event) => self.parent(&mut state, event),
            Event::Component { number, of, name } => {
                state.component = format!("{number}/{of} {name}");
                let stage = state.stage;
                self.output.progress(&format!("{stage:<7} {number}/{of} {name}"));
                state.spin();
            }
            Event::Cached { number, of, name, .. } => {
                let stage = state.stage;
                self.output.progress(&format!("{stage:<7} {number}/{of} {name} {DIM}cached{DIM:#}"));
            }
            Event::Step(event) => self.step(&mut state, event),
            Event::Copied { stage, what, part } => self.copied(&mut state, stage, what, *part),
            Event::Exported { done, total } => self.exported(&mut state, *done, *total),
            Event::Publish(event) => self.publish(&mut state, event),
            // Stages and results say so.
            Event::State(_) => {}
            Event::Note(text) => self.output.note(text),
            Event::Warning(text) => self.output.warning(text),
        }
    }

    fn parent(&self, state: &mut State, event: &parent::Event) {
        match event {
            parent::Event::Begins(what) => {
                state.quarter = 0;
                state.step.clone_from(what);
                let stage = state.stage;
                self.output.progress(&format!("{stage:<7} {what}"));
                state.spin();
            }
            parent::Event::Transfer { done, total } => match total {
                Some(total) => {
                    state.bytes(*done, *total);
                    let (stage, what) = (state.stage, state.step.clone());
                    self.quarter(state, stage, &what, *done, *total);
                }
                None => state.message(&indicatif::BinaryBytes(*done).to_string()),
            },
        }
    }

    /// Each place has a line of its own that moves, while bytes are on their way to it.
    fn publish(&self, state: &mut State, event: &publish::Event) {
        let stage = state.stage;
        match event {
            publish::Event::Step { place, what } => {
                state.arrived(place);
                self.output.progress(&format!("{stage:<7} {place}: {what}"));
            }
            publish::Event::Transfer { place, done, total } => {
                let moving = state.transfers.entry(place.clone()).or_insert_with(|| Transfer {
                    line: self.output.is_live().then(|| self.output.bars().add(bar(place, *total))),
                    quarter: 0,
                });
                match &moving.line {
                    Some(line) => line.set_position(*done),
                    None => {
                        let quarter = done.saturating_mul(4).checked_div(*total).unwrap_or(0);
                        if quarter > moving.quarter {
                            moving.quarter = quarter;
                            self.output.progress(&format!("{stage:<7} {place}: {} %", quarter * 25));
                        }
                    }
                }
            }
            publish::Event::Done { place } => {
                state.arrived(place);
                self.output.progress(&format!("{stage:<7} {place}: {GOOD}done{GOOD:#}"));
            }
            publish::Event::Failed { place, why } => {
                state.arrived(place);
                self.output.warning(&format!("{place}: {why}"));
            }
            publish::Event::Note { place, text } => {
                self.output.progress(&format!("{DIM}note:{DIM:#} {place}: {text}"));
            }
        }
    }

    fn exported(&self, state: &mut State, done: u64, total: u64) {
        // As with a copy: the stage that it is made beside is shown.
        if state.stage == EXPORT {
            state.bytes(done, total);
        }
        if done == 0 {
            state.quarter = 0;
        }
        self.quarter(state, EXPORT, "exported files", done, total);
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn copied(&self, state: &mut State, stage: &str, what: &str, part: f64) {
        // A copy that is made beside another stage must not hide what that stage is doing.
        if stage == state.stage {
            state.message(&format!("{what} {:3.0} %", part * 100.0));
        }
        if part <= 0.0 {
            state.quarter = 0;
        }
        self.quarter(state, stage, what, (part.clamp(0.0, 1.0) * 1000.0) as u64, 1000);
    }

    /// Where nothing moves, a line for each quarter.
    fn quarter(&self, state: &mut State, stage: &str, what: &str, done: u64, total: u64) {
        let quarter = done.saturating_mul(4).checked_div(total).unwrap_or(0);
        if state.line.is_none() && quarter > state.quarter {
            state.quarter = quarter;
            self.output.progress(&format!("{stage:<7} {what} {} %", quarter * 25));
        }
    }

    fn step(&self, state: &mut State, event: &StepEvent) {
        let stage = state.stage;
        match event {
            StepEvent::StepBegins { phase, step, action, attempt: (number, of) } => {
                let attempt = if *number > 1 { format!(", attempt {number}/{of}") } else { String::new() };
                state.step = format!("{phase}/{step} ({action}{attempt})");
                if state.line.is_none() {
                    self.output.progress(&format!("{stage:<7}   {}", state.step));
                }
                state.spin();
            }
            // With a live display, the last line that was written moves; without, all are printed.
            StepEvent::Output { stream, line } => {
                if state.line.is_none() {
                    let mark = if *stream == Stream::Stderr { '!' } else { '|' };
                    self.output.progress(&format!("{DIM}{stage:<7}     {mark} {line}{DIM:#}"));
                } else {
                    state.message(&format!("{} {DIM}{}{DIM:#}", state.step, shorten(line, 60)));
                }
            }
            StepEvent::Values { .. } => {}
            StepEvent::Reboots => {
                "the guest restarts".clone_into(&mut state.step);
                self.output.progress(&format!("{stage:<7}   the guest restarts"));
                state.spin();
            }
            StepEvent::StepEnds(report) => {
                let seconds = report.duration.as_secs_f64();
                let (style, how) = match &report.status {
                    StepStatus::Success => (GOOD, "done"),
                    StepStatus::Skipped => (DIM, "skipped"),
                    StepStatus::Failed(_) => (BAD, "failed"),
                    StepStatus::FailureIgnored(_) => (WARN, "failed, ignored"),
                };
                let name = format!("{}/{}", report.phase, report.step);
                self.output.progress(&format!("{stage:<7}   {name} {style}{how}{style:#} {DIM}{seconds:.1} s{DIM:#}"));
            }
        }
    }
}

/// Bytes on their way to one place.
struct Transfer {
    line: Option<ProgressBar>,
    /// Which quarter was shown last, where nothing moves.
    quarter: u64,
}

impl State {
    /// Nothing is on its way to a place any more.
    fn arrived(&mut self, place: &str) {
        if let Some(Transfer { line: Some(line), .. }) = self.transfers.remove(place) {
            line.finish_and_clear();
        }
    }

    fn spin(&self) {
        let Some(line) = &self.line else { return };
        line.set_length(0);
        line.reset_elapsed();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix:7} {wide_msg} {elapsed:.dim}") {
            line.set_style(style);
        }
        line.set_prefix(self.stage);
        let parts = [self.component.as_str(), self.step.as_str()];
        line.set_message(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" "));
    }

    fn message(&self, text: &str) {
        if let Some(line) = &self.line {
            line.set_message(text.to_owned());
        }
    }

    fn bytes(&self, done: u64, total: u64) {
        let Some(line) = &self.line else { return };
        if line.length() != Some(total) {
            line.set_length(total);
            if let Ok(style) = ProgressStyle::with_template(TRANSFER) {
                line.set_style(style);
            }
        }
        line.set_position(done);
    }

    fn clear(&self) {
        self.message("");
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = &state.line {
            line.finish_and_clear();
        }
    }
}

/// How bytes on their way are shown.
const TRANSFER: &str =
    "{spinner} {prefix:7} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta:.dim}";

/// A line for bytes on their way to a place.
fn bar(place: &str, total: u64) -> ProgressBar {
    let line = ProgressBar::new(total).with_prefix(place.to_owned());
    match ProgressStyle::with_template(TRANSFER) {
        Ok(style) => line.with_style(style),
        Err(_) => line,
    }
}

/// At most so many characters of a line.
fn shorten(line: &str, most: usize) -> String {
    match line.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_owned(),
    }
}
