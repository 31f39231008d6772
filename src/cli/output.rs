//! Where things are printed: results to standard output, the rest to standard error.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, OnceLock};

use anstyle::{AnsiColor, Style};
use indicatif::{MultiProgress, ProgressDrawTarget};
use serde::Serialize;

use super::Global;
use super::report::{self, CliError};
use crate::machine::console::plain;

/// How much is printed, and how.
#[derive(Clone)]
pub(super) struct Output {
    pub(super) json: bool,
    pub(super) quiet: bool,
    bars: Arc<MultiProgress>,
    live: bool,
    /// Why a result could not be printed.
    unprinted: Arc<OnceLock<std::io::Error>>,
}

/// Styles of what is printed. Colour never carries a meaning that the words do not.
pub(super) const BOLD: Style = Style::new().bold();
pub(super) const DIM: Style = Style::new().dimmed();
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
pub(super) const WARN: Style = AnsiColor::Yellow.on_default().bold();

impl Output {
    pub(super) fn new(global: &Global) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let is_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
        let live = is_live(is_terminal, is_ci, global.quiet, global.verbose > 0);
        let target = if live { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() };
        let bars = Arc::new(MultiProgress::with_draw_target(target));
        Self { json: global.json, quiet: global.quiet, bars, live, unprinted: Arc::default() }
    }

    /// Where bars are drawn.
    pub(super) fn bars(&self) -> &MultiProgress {
        &self.bars
    }

    /// Whether there is a live display.
    pub(super) fn is_live(&self) -> bool {
        self.live
    }

    /// Hides what moves while somebody else writes to the terminal, or shows it again.
    pub(super) fn hide_display(&self, hide: bool) {
        if self.live {
            let shown = || ProgressDrawTarget::stderr_with_hz(10);
            self.bars.set_draw_target(if hide { ProgressDrawTarget::hidden() } else { shown() });
        }
    }

    /// Prints a line of a result.
    pub(super) fn result(&self, line: &str) {
        match writeln!(anstream::stdout().lock(), "{line}") {
            // A reader that has seen enough, `head` for instance, closes the pipe.
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                // The first says why; what follows is of no more use.
                let _known = self.unprinted.set(error);
            }
            _ => {}
        }
    }

    /// That all results were printed that should be.
    pub(super) fn is_whole(&self) -> Result<(), CliError> {
        let failed = |error: &std::io::Error| {
            CliError::Io(std::io::Error::new(error.kind(), format!("the result can't be printed: {error}")))
        };
        self.unprinted.get().map_or(Ok(()), |error| Err(failed(error)))
    }

    /// Prints a result as JSON.
    pub(super) fn json(&self, value: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string_pretty(value).map_err(|error| CliError::Io(error.into()))?;
        self.result(&text);
        Ok(())
    }

    /// Prints a line about what goes on.
    pub(super) fn progress(&self, line: &str) {
        if !self.quiet {
            self.line(line);
        }
    }

    /// Something worth knowing, which `--quiet` leaves out.
    pub(super) fn note(&self, message: &str) {
        self.progress(&format!("{DIM}note:{DIM:#} {message}"));
    }

    /// Prints a warning.
    pub(super) fn warning(&self, message: &str) {
        self.line(&format!("{WARN}warning:{WARN:#} {message}"));
    }

    /// Prints what is wrong with a document.
    pub(super) fn document(&self, text: &str) {
        text.trim_end().lines().for_each(|line| self.line(line));
    }

    /// Prints an error: what, where, the cause, what to do next.
    pub(super) fn error(&self, error: &CliError) {
        for line in report::render(error).lines() {
            self.line(line);
        }
    }

    /// A line to standard error, above the live display if there is one.
    fn line(&self, line: &str) {
        self.bars.suspend(|| {
            // Nothing can be said of a standard error that can't be written.
            let _closed = writeln!(anstream::stderr().lock(), "{line}");
        });
    }
}

/// Whether to draw what moves: for a person at a terminal who has not asked for less or more.
fn is_live(is_terminal: bool, is_ci: bool, quiet: bool, verbose: bool) -> bool {
    is_terminal && !is_ci && !quiet && !verbose
}

/// Prints a line for another goldsmith to read.
pub(super) fn raw_stderr(line: &str) {
    let _closed = writeln!(std::io::stderr().lock(), "{line}");
}

/// A table with columns as wide as they need to be.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    // Whatever a guest, or an image from elsewhere, has said must not play with the terminal.
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| plain(cell)).collect()).collect();
    let line = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let heads: Vec<String> = head.iter().map(|&name| name.to_owned()).collect();
    let mut lines = vec![format!("{BOLD}{}{BOLD:#}", line(&heads))];
    lines.extend(rows.iter().map(|row| line(row)));
    lines
}

/// A size for people.
pub(super) fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// A time for people.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(super) fn duration(seconds: f64) -> String {
    match seconds.round() as u64 {
        0..10 => format!("{seconds:.1} s"),
        short @ 10..120 => format!("{short} s"),
        long => format!("{} min {} s", long / 60, long % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_display_is_for_a_person_at_a_terminal() {
        assert!(is_live(true, false, false, false));
        assert!(!is_live(false, false, false, false));
        assert!(!is_live(true, true, false, false));
        assert!(!is_live(true, false, true, false));
        assert!(!is_live(true, false, false, true));
    }

    #[test]
    fn times_are_for_people() {
        assert_eq!([0.04, 9.4, 9.6, 119.0, 200.0].map(duration), ["0.0 s", "9.4 s", "10 s", "119 s", "3 min 20 s"]);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![vec!["nginx/1.0.0/1".to_owned(), "yes".to_owned()], vec!["é".to_owned(), String::new()]];
        let lines = table(&["IMAGE", "TESTED"], &rows);
        let plain: Vec<String> = lines.iter().map(|line| anstream::adapter::strip_str(line).to_string()).collect();
        assert_eq!(plain, ["IMAGE          TESTED", "nginx/1.0.0/1  yes", "é"]);
    }
}
