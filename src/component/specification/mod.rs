//! The specification of component documents, section by section, as a table: what is said there, a document, and what has
//! to become of it. What only a guest can show is in `tests/steps.rs`.

mod document;
mod language;
mod modules;

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::operator::OPERATORS;
use super::{MODULES, Program, References, Rules, fuzz_condition};
use crate::document::carrier;
use crate::document::component::Platform;
use crate::document::decode::Strictness;
use crate::document::syntax::Source;

/// What becomes of a document.
#[derive(Debug, Clone, Copy)]
enum Expected {
    /// Nothing is said of it.
    Valid,
    /// It is used, with this warning, however strictly it is read.
    Noted(&'static str),
    /// It is used with this warning, and refused by a strict reader.
    Strict(&'static str),
    /// It is refused, and this is said.
    Refused(&'static str),
}

use Expected::{Noted, Refused, Strict, Valid};

/// A sentence of the specification.
struct Row {
    section: &'static str,
    /// The document.
    text: String,
    expected: Expected,
    platform: Platform,
}

/// A document.
fn whole(section: &'static str, text: &str, expected: Expected) -> Row {
    Row { section, text: text.to_owned(), expected, platform: Platform::Linux }
}

const HEAD: &str = "schemaVersion: 1.0
parameters: [{ Port: { type: string, default: '80' } }, { Path: { type: string, default: /x } }]
constants: [{ Fixed: { type: string, value: x } }]
phases:
  - name: build
    steps:
      - { name: Run, action: ExecuteBash, inputs: { commands: [date] } }
      - { name: Web, action: WebDownload, inputs: [{ source: 'https://x.example/a', destination: /a }] }
";

/// A document with one more step, written as a map in one line or as the lines of a block.
fn step(section: &'static str, step: &str, expected: Expected) -> Row {
    whole(section, &format!("{HEAD}      - {{ name: Step, {step} }}\n"), expected)
}

/// The same, for Windows.
fn on_windows(section: &'static str, text: &str, expected: Expected) -> Row {
    Row { platform: Platform::Windows, ..step(section, text, expected) }
}

/// A step that runs a command.
fn command(section: &'static str, command: &str, expected: Expected) -> Row {
    step(section, &format!("action: ExecuteBash, inputs: {{ commands: ['{command}'] }}"), expected)
}

/// What is said of a document: errors and warnings, a line each, without their places.
fn said(row: &Row, strictness: Strictness) -> (bool, String) {
    let rules = Rules { strictness, platform: row.platform, ..Rules::default() };
    let (valid, report) = match Program::check(&Source::new("c.yaml", row.text.as_str()), rules) {
        Ok((_, report)) => (true, report),
        Err(report) => (false, report),
    };
    (valid, report.to_string())
}

fn rows() -> Vec<Row> {
    [document::rows(), modules::rows(), language::rows()].into_iter().flatten().collect()
}

#[test]
fn the_specification_holds() {
    let mut wrong = Vec::new();
    for row in rows() {
        let (compat, strict) = (said(&row, Strictness::Compat), said(&row, Strictness::Strict));
        let holds = match row.expected {
            Valid => compat == (true, String::new()) && strict == (true, String::new()),
            Noted(text) => compat.0 && strict.0 && compat.1.contains(text),
            Strict(text) => compat.0 && compat.1.contains(text) && !strict.0 && strict.1.contains(text),
            Refused(text) => !compat.0 && compat.1.contains(text) && !strict.0,
        };
        if !holds {
            let Row { section, text, expected, .. } = row;
            let tail: Vec<&str> = text.lines().rev().take(4).collect();
            wrong.push(format!("{section} {expected:?}\n  {tail:?}\n  compat: {compat:?}\n  strict: {strict:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_is_whole() {
    let rows = rows();
    let is_good = |row: &&Row| matches!(row.expected, Valid | Noted(_));
    for module in MODULES {
        let (action, of) = (format!("action: {}", module.name), |row: &&Row| row.text.contains(module.name));
        let good = rows.iter().filter(is_good).any(|row| row.text.contains(&action));
        let bad = rows.iter().filter(|row| matches!(row.expected, Refused(_))).any(|row| of(&row));
        assert!(good && bad, "{} needs a row that is good and one that is not", module.name);
        for field in module.fields() {
            assert!(rows.iter().filter(of).any(|row| row.text.contains(field.name)), "{}.{}", module.name, field.name);
        }
    }
    for (operator, ..) in OPERATORS {
        assert!(rows.iter().any(|row| row.text.contains(&format!("{operator}:"))), "{operator} needs a row");
    }
    let sections: BTreeSet<&str> = rows.iter().map(|row| row.section).collect();
    let all = [
        "1", "1.1", "1.2", "2.1", "2.2", "2.3", "2.4", "2.5", "2.6", "3", "3.1", "3.2", "3.3", "3.4", "3.5", "3.6",
        "3.7", "3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "4.1", "4.2", "5", "7", "8", "11",
    ];
    for section in all {
        assert!(sections.contains(section), "section {section} needs a row");
    }
}

/// A table of a hundred rows is no use if a document takes long: a thousand a second is what is aimed at, in a release.
#[test]
fn checking_is_quick() {
    let rows = rows();
    let started = std::time::Instant::now();
    rows.iter().for_each(|row| _ = said(row, Strictness::Compat));
    let each = started.elapsed() / u32::try_from(rows.len()).unwrap();
    eprintln!("{} documents, {:.0} a second", rows.len(), 1.0 / each.as_secs_f64());
    assert!(each < std::time::Duration::from_millis(20), "{each:?} for a document");
}

/// What fuzzing does with a text, for whoever has no fuzzer.
fn survive(text: &str) {
    let source = Source::new("c.yaml", text);
    fuzz_condition(&source);
    let Ok((found, _)) = carrier::find(&source) else { return };
    for found in found {
        for (platform, strictness) in [(Platform::Linux, Strictness::Compat), (Platform::Windows, Strictness::Strict)] {
            let rules = Rules { strictness, platform, inline_size: found.inline_size, ..Rules::default() };
            match Program::check(&found.source, rules) {
                Ok((program, report)) => {
                    program.missing_references(&References::new());
                    assert!(!report.has_errors());
                }
                Err(report) => {
                    let places = report.diagnostics.iter().map(|diagnostic| &diagnostic.span);
                    assert!(places.clone().all(|span| span.start <= span.end), "{report}");
                    assert!(report.has_errors() && !report.to_string().is_empty());
                }
            }
        }
    }
}

#[test]
fn the_corpus_of_the_fuzzers_is_survived() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut files = 0;
    for folder in ["documents", "expressions"] {
        for entry in fs_err::read_dir(corpus.join(folder)).unwrap() {
            survive(&fs_err::read_to_string(entry.unwrap().path()).unwrap());
            files += 1;
        }
    }
    assert!(files >= 12);
}

/// A piece of a document that another piece takes the place of.
fn edits() -> impl Strategy<Value = Vec<(usize, usize, usize, usize)>> {
    proptest::collection::vec((0..1500_usize, 0..40_usize, 0..1500_usize, 0..40_usize), 1..6)
}

proptest! {
    #[test]
    fn documents_that_were_tampered_with_are_survived(row in 0..10_000_usize, edits in edits()) {
        let rows = rows();
        let mut text: Vec<char> = rows[row % rows.len()].text.chars().take(4000).collect();
        for (at, length, from, other) in edits {
            let piece = |at: usize, length: usize| {
                let at = at.min(text.len());
                at..(at + length).min(text.len())
            };
            let (place, brought) = (piece(at, length), text[piece(from, other)].to_vec());
            text.splice(place, brought);
        }
        survive(&text.into_iter().collect::<String>());
    }

    #[test]
    fn conditions_and_references_of_any_text_are_survived(text in "[-{}:,\\[\\] 'a-z.0-9$(|]{0,80}") {
        survive(&format!("if: {{{text}}}"));
        survive(&format!("schemaVersion: 1.0\nphases: [{{ name: build, steps: [{{ name: One, action: ExecuteBash, inputs: {{ commands: ['{{{{{text}}}}}'] }} }}] }}]"));
    }
}
