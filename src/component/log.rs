//! A step's output on its way to whoever listens.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use goldsmith_agent::message::Stream;

use super::runner::Event;
use super::secrets::Secrets;

/// Lines of output that go into a failure.
const TAIL: usize = 20;
/// How many of them are of standard error in any case. It comes by a way of its own, so what was written to it at the end may
/// have been heard before much of the rest.
const COMPLAINTS: usize = 5;
/// A line longer than this is cut into several; a secret is in one of them.
const MAX_LINE: usize = 8 * 1024;

/// Cuts a step's output into lines, passes them on and keeps the last ones.
pub(super) struct Log<'a> {
    listener: &'a (dyn Fn(Event) + Send + Sync),
    is_silent: bool,
    secrets: Secrets,
    state: Mutex<LogState>,
}

#[derive(Default)]
struct LogState {
    partial: [Vec<u8>; 2],
    /// How many lines there were.
    count: u64,
    /// The last lines, and which they are.
    tail: VecDeque<(u64, String)>,
    /// The last of them that were written to standard error.
    complaints: VecDeque<(u64, String)>,
}

impl<'a> Log<'a> {
    /// A log of one step. `secrets` are not shown.
    pub(super) fn new(listener: &'a (dyn Fn(Event) + Send + Sync), is_silent: bool, secrets: Secrets) -> Self {
        Self { listener, is_silent, secrets, state: Mutex::new(LogState::default()) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new attempt: what the one before wrote explains nothing any more.
    pub(super) fn begin(&self) {
        *self.lock() = LogState::default();
    }

    /// Takes what a program writes.
    pub(super) fn write(&self, stream: Stream, data: &[u8]) {
        if self.is_silent {
            return;
        }
        let mut state = self.lock();
        for &byte in data {
            let partial = &mut state.partial[index(stream)];
            if byte == b'\n' {
                self.pass_all_on(&mut state, stream);
                continue;
            }
            partial.push(byte);
            if partial.len() == MAX_LINE + self.secrets.reach() {
                let cut = self.secrets.cut(partial, MAX_LINE);
                let line: Vec<u8> = partial.drain(..cut).collect();
                self.pass_on(&mut state, stream, &line);
            }
        }
    }

    /// Passes on a line that has come to its end.
    fn pass_all_on(&self, state: &mut LogState, stream: Stream) {
        let mut rest = std::mem::take(&mut state.partial[index(stream)]);
        while rest.len() > MAX_LINE {
            let cut = self.secrets.cut(&rest, MAX_LINE);
            let line: Vec<u8> = rest.drain(..cut).collect();
            self.pass_on(state, stream, &line);
        }
        self.pass_on(state, stream, &rest);
    }

    /// Passes on lines that have no end.
    pub(super) fn flush(&self) {
        let mut state = self.lock();
        for stream in [Stream::Stdout, Stream::Stderr] {
            if !state.partial[index(stream)].is_empty() {
                self.pass_all_on(&mut state, stream);
            }
        }
    }

    fn pass_on(&self, state: &mut LogState, stream: Stream, line: &[u8]) {
        let line = crate::machine::console::plain(&String::from_utf8_lossy(line));
        let line = self.secrets.mask(&line);
        state.keep(line.clone(), stream == Stream::Stderr);
        (self.listener)(Event::Output { stream, line });
    }

    /// Keeps lines that somebody else has passed on.
    pub(super) fn keep(&self, lines: Vec<String>) {
        let mut state = self.lock();
        lines.into_iter().for_each(|line| state.keep(line, false));
    }

    /// Whether nothing of the step may be logged.
    pub(super) fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// A message without secrets.
    pub(super) fn masked(&self, message: &str) -> String {
        self.secrets.mask(message)
    }

    /// The last lines, and a few of standard error that came before them.
    pub(super) fn tail(&self) -> Vec<String> {
        let state = self.lock();
        let mut lines: BTreeMap<u64, &String> = state.complaints.iter().map(|(number, line)| (*number, line)).collect();
        for (number, line) in state.tail.iter().rev() {
            if lines.len() == TAIL {
                break;
            }
            lines.insert(*number, line);
        }
        lines.into_values().cloned().collect()
    }
}

impl LogState {
    fn keep(&mut self, line: String, is_complaint: bool) {
        let line = (self.count, line);
        self.count += 1;
        if is_complaint {
            push(&mut self.complaints, COMPLAINTS, line.clone());
        }
        push(&mut self.tail, TAIL, line);
    }
}

fn push<T>(last: &mut VecDeque<T>, most: usize, one: T) {
    if last.len() == most {
        last.pop_front();
    }
    last.push_back(one);
}

fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(silent: bool, chunks: &[(Stream, &[u8])]) -> (Vec<String>, Vec<String>) {
        let heard = Mutex::new(Vec::new());
        let listener = |event| {
            if let Event::Output { line, .. } = event {
                heard.lock().unwrap().push(line);
            }
        };
        let secrets = Secrets::new([("aws:ssm:/x".to_owned(), "hunter2".to_owned())].into()).unwrap();
        let log = Log::new(&listener, silent, secrets);
        for (stream, data) in chunks {
            log.write(*stream, data);
        }
        log.flush();
        let tail = log.tail();
        (heard.into_inner().unwrap(), tail)
    }

    #[test]
    fn output_is_cut_into_lines_stream_by_stream() {
        let (heard, tail) = lines(
            false,
            &[(Stream::Stdout, b"on"), (Stream::Stderr, b"err\x1b[31mor\n"), (Stream::Stdout, b"e\r\ntwo")],
        );
        assert_eq!(heard, ["error", "one", "two"]);
        assert_eq!(tail, heard);
    }

    #[test]
    fn endless_lines_and_endless_output_stay_bounded() {
        let long = vec![b'x'; MAX_LINE * 3];
        let (heard, _) = lines(false, &[(Stream::Stdout, &long)]);
        assert_eq!(heard.len(), 3);
        let many = "line\n".repeat(1000);
        let (_, tail) = lines(false, &[(Stream::Stdout, many.as_bytes())]);
        assert_eq!(tail.len(), TAIL);
    }

    #[test]
    fn what_was_said_to_standard_error_is_among_the_last_lines_whenever_it_came() {
        let numbered: String = (0..100).map(|number| format!("line {number}\n")).collect();
        let chunks = [
            (Stream::Stdout, &b"first\n"[..]),
            (Stream::Stderr, b"the cause\n"),
            (Stream::Stdout, numbered.as_bytes()),
        ];
        let (_, tail) = lines(false, &chunks);
        assert_eq!((tail.len(), &*tail[0], &*tail[1], &*tail[TAIL - 1]), (TAIL, "the cause", "line 81", "line 99"));
        // No line twice, and none out of order.
        let all = "e\n".repeat(3);
        let (_, tail) = lines(false, &[(Stream::Stderr, all.as_bytes()), (Stream::Stdout, &numbered.as_bytes()[..70])]);
        assert_eq!(tail.iter().filter(|line| *line == "e").count(), 3, "{tail:?}");
        let (_, tail) = lines(false, &[(Stream::Stderr, numbered.as_bytes())]);
        assert_eq!((tail.len(), &*tail[0]), (TAIL, "line 80"));
    }

    #[test]
    fn a_secret_in_an_endless_line_is_not_cut_in_two() {
        for before in MAX_LINE - 8..=MAX_LINE {
            let line = format!("{}hunter2{}", "x".repeat(before), "y".repeat(MAX_LINE));
            let (heard, _) = lines(false, &[(Stream::Stdout, line.as_bytes())]);
            let shown = heard.concat();
            assert_eq!(shown, format!("{}***{}", "x".repeat(before), "y".repeat(MAX_LINE)), "{before}");
            assert!(heard.len() >= 2);
        }
    }

    #[test]
    fn a_silent_step_is_silent() {
        let (heard, tail) = lines(true, &[(Stream::Stdout, b"secret\n")]);
        assert!(heard.is_empty() && tail.is_empty());
    }

    #[test]
    fn secrets_are_not_shown() {
        let (heard, tail) = lines(false, &[(Stream::Stdout, b"password=hun"), (Stream::Stdout, b"ter2!\n")]);
        assert_eq!(heard, ["password=***!"]);
        assert_eq!(tail, heard);
    }
}
