//! YAML, and with it JSON, as a tree in which every node knows where it stands.
//!
//! Scalars keep their text: `schemaVersion: 1.0`, `permissions: 0777` and `expectedBucketOwner: 123456789012` mean what
//! is written, not what YAML 1.1 or 1.2 makes of it. Anchors, aliases and merge keys are followed, up to bounds that no
//! honest document meets.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::ops::Range;
use std::path::{Component, Path};
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Tag};

use super::diagnostic::{Diagnostic, Report, Severity};

/// Largest document in bytes. The service takes 64 KB for a component.
pub const MAX_BYTES: u64 = 1 << 20;
/// Deepest nesting.
const MAX_DEPTH: usize = 64;
/// Most nodes, copies made by aliases included.
const MAX_NODES: usize = 200_000;
/// Bytes of text that aliases may repeat.
const MAX_REPEATED: usize = 16 << 20;

/// A document's text.
#[derive(Debug)]
pub struct Source {
    /// How messages call it: a path as the user gave it.
    pub name: String,
    /// The text.
    pub text: String,
}

/// A place in a text, counted from 1; columns are characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Source {
    /// A document by its name and text.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Arc<Self> {
        Arc::new(Self { name: name.into(), text: text.into() })
    }

    /// Reads a document.
    pub fn read(path: &Path) -> std::io::Result<Arc<Self>> {
        let invalid = |what: &str| {
            let message = format!("`{}` is no document: {what}", path.display());
            std::io::Error::new(std::io::ErrorKind::InvalidData, message)
        };
        let mut bytes = Vec::new();
        // A device has no length to go by, and no end.
        fs_err::File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(invalid("it has more than 1 MiB"));
        }
        let text = String::from_utf8(bytes).map_err(|_| invalid("it is not UTF-8"))?;
        // `./a/./b.yaml` as a person would write it.
        let plain: std::path::PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
        Ok(Self::new(plain.display().to_string(), text))
    }

    /// A literal block (YAML 1.2.2, section 8.1.2) as it is written, indented, and where its first line begins.
    pub fn block(&self, node: &Node) -> Option<(usize, &str)> {
        if !matches!(&node.value, Value::Scalar(scalar) if scalar.literal) {
            return None;
        }
        // The tag and the mark of a block stand on the line before it.
        let begin = node.span.start + self.text.get(node.span.clone())?.find('\n')? + 1;
        Some((begin, self.text.get(begin..node.span.end)?))
    }

    /// Where a byte stands.
    pub fn position(&self, offset: usize) -> Position {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Position { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its bytes in the source.
    pub span: Range<usize>,
    /// What it is.
    pub value: Value,
    /// Its tag behind the exclamation mark, as in `!Sub text`.
    pub tag: Option<String>,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A text, number, truth value or nothing.
    Scalar(Scalar),
    /// A list.
    Sequence(Vec<Node>),
    /// Keys and values, in the order of the source.
    Mapping(Vec<(Node, Node)>),
}

/// A scalar as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scalar {
    /// Its text, escapes resolved.
    pub text: String,
    /// Whether it is written without quotes, so that `true` is a truth value and `~` is nothing.
    pub plain: bool,
    /// Whether it is a block in which every character stands for itself.
    pub literal: bool,
}

impl Scalar {
    /// Whether it stands for nothing.
    pub fn is_null(&self) -> bool {
        self.plain && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }
}

impl Node {
    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Scalar(scalar) if scalar.is_null() => "nothing",
            Value::Scalar(_) => "a single value",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a map",
        }
    }

    /// Its text, if it is a single value.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }

    /// The value of a key, if it is a map that has it.
    pub fn get(&self, name: &str) -> Option<&Self> {
        match &self.value {
            Value::Mapping(entries) => entries.iter().find(|(key, _)| key.text() == Some(name)).map(|(_, value)| value),
            _ => None,
        }
    }

    /// Whether it stands for nothing.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.is_null())
    }
}

/// The one document that a source holds.
pub fn parse(source: &Arc<Source>) -> Result<Node, Report> {
    let report = |diagnostic| Report { source: source.clone(), diagnostics: vec![diagnostic] };
    let mut builder = Builder { offsets: Offsets::of(&source.text), anchors: HashMap::new(), nodes: 0, repeated: 0 };
    builder.document(&source.text).map_err(report)
}

/// All documents that a source holds, with `---` between them; empty ones are left out.
pub fn parse_all(source: &Arc<Source>) -> Result<Vec<Node>, Report> {
    let report = |diagnostic| Report { source: source.clone(), diagnostics: vec![diagnostic] };
    let mut builder = Builder { offsets: Offsets::of(&source.text), anchors: HashMap::new(), nodes: 0, repeated: 0 };
    let nodes = builder.documents(&source.text).map_err(report)?;
    let nodes: Vec<Node> = nodes.into_iter().filter(|node| !node.is_null()).collect();
    if nodes.is_empty() { Err(report(error(0..0, "the document is empty"))) } else { Ok(nodes) }
}

fn error(span: Range<usize>, message: impl Into<String>) -> Diagnostic {
    Diagnostic { severity: Severity::Error, message: message.into(), span, help: None }
}

/// The parser counts characters, and we bytes.
struct Offsets(Option<Vec<usize>>);

impl Offsets {
    fn of(text: &str) -> Self {
        if text.is_ascii() {
            return Self(None);
        }
        Self(Some(text.char_indices().map(|(offset, _)| offset).chain([text.len()]).collect()))
    }

    fn byte(&self, character: usize) -> usize {
        match &self.0 {
            None => character,
            Some(offsets) => offsets.get(character).or(offsets.last()).copied().unwrap_or(0),
        }
    }
}

struct Builder {
    offsets: Offsets,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    repeated: usize,
}

type Events<'a> = Parser<'a, saphyr_parser::StrInput<'a>>;

impl Builder {
    fn document(&mut self, text: &str) -> Result<Node, Diagnostic> {
        let mut events = Parser::new_from_str(text);
        let mut document = None;
        loop {
            match self.next(&mut events)? {
                (Event::StreamEnd, _) => break,
                (Event::DocumentStart(_), span) if document.is_some() => {
                    return Err(error(span, "a second document begins here, where one is expected"));
                }
                (Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing, _) => {}
                (event, span) => document = Some(self.node(&mut events, event, span, 0)?),
            }
        }
        document.ok_or_else(|| error(0..0, "the document is empty"))
    }

    fn documents(&mut self, text: &str) -> Result<Vec<Node>, Diagnostic> {
        let mut events = Parser::new_from_str(text);
        let mut documents = Vec::new();
        loop {
            match self.next(&mut events)? {
                (Event::StreamEnd, _) => return Ok(documents),
                // Names of one document mean nothing in the next.
                (Event::DocumentStart(_), _) => self.anchors.clear(),
                (Event::StreamStart | Event::DocumentEnd | Event::Nothing, _) => {}
                (event, span) => documents.push(self.node(&mut events, event, span, 0)?),
            }
        }
    }

    fn next<'a>(&self, events: &mut Events<'a>) -> Result<(Event<'a>, Range<usize>), Diagnostic> {
        match events.next_event() {
            None => Ok((Event::StreamEnd, 0..0)),
            Some(Ok((event, span))) => {
                Ok((event, self.offsets.byte(span.start.index())..self.offsets.byte(span.end.index())))
            }
            Some(Err(problem)) => Err(self.syntax_error(&problem)),
        }
    }

    fn syntax_error(&self, problem: &ScanError) -> Diagnostic {
        let at = self.offsets.byte(problem.marker().index());
        let help = problem.info().contains("tab").then(|| "indent with spaces; YAML does not take tabs".to_owned());
        Diagnostic { help, ..error(at..at + 1, format!("this is not valid YAML: {}", problem.info())) }
    }

    fn node(
        &mut self,
        events: &mut Events<'_>,
        event: Event<'_>,
        span: Range<usize>,
        depth: usize,
    ) -> Result<Node, Diagnostic> {
        self.nodes += 1;
        if depth > MAX_DEPTH {
            return Err(error(span, format!("the document is nested more than {MAX_DEPTH} levels deep")));
        }
        if self.nodes > MAX_NODES {
            return Err(error(span, format!("the document has more than {MAX_NODES} values")));
        }
        let (node, anchor) = match event {
            Event::Alias(anchor) => return self.alias(anchor, span),
            Event::Scalar(text, style, anchor, tag) => {
                let (plain, literal) = (style == ScalarStyle::Plain, style == ScalarStyle::Literal);
                let scalar = Scalar { text: text.into_owned(), plain, literal };
                (Node { span, value: Value::Scalar(scalar), tag: suffix(tag) }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                (Node { tag: suffix(tag), ..self.sequence(events, span, depth)? }, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                (Node { tag: suffix(tag), ..self.mapping(events, span, depth)? }, anchor)
            }
            _ => return Err(error(span, "this is not valid YAML")),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize, span: Range<usize>) -> Result<Node, Diagnostic> {
        let Some(target) = self.anchors.get(&anchor) else {
            return Err(error(span, "this alias refers to something that contains it"));
        };
        let (nodes, bytes) = size(target);
        self.nodes += nodes;
        self.repeated += bytes;
        if self.nodes > MAX_NODES {
            return Err(error(span, format!("with its aliases the document has more than {MAX_NODES} values")));
        }
        if self.repeated > MAX_REPEATED {
            return Err(error(span, format!("its aliases repeat more than {} MiB of text", MAX_REPEATED >> 20)));
        }
        Ok(target.clone())
    }

    fn sequence(&mut self, events: &mut Events<'_>, start: Range<usize>, depth: usize) -> Result<Node, Diagnostic> {
        let mut items = Vec::new();
        loop {
            match self.next(events)? {
                (Event::SequenceEnd, end) => {
                    let span = start.start..end.end.max(start.end);
                    return Ok(Node { span, value: Value::Sequence(items), tag: None });
                }
                (event, span) => items.push(self.node(events, event, span, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, events: &mut Events<'_>, start: Range<usize>, depth: usize) -> Result<Node, Diagnostic> {
        let mut entries: Vec<(Node, Node)> = Vec::new();
        let mut merged = Vec::new();
        let mut known = HashSet::new();
        loop {
            let key = match self.next(events)? {
                (Event::MappingEnd, end) => {
                    let span = start.start..end.end.max(start.end);
                    return Ok(Node { span, value: Value::Mapping(merge(entries, merged)), tag: None });
                }
                (event, span) => self.node(events, event, span, depth + 1)?,
            };
            let (event, span) = self.next(events)?;
            let value = self.node(events, event, span, depth + 1)?;
            match &key.value {
                Value::Scalar(Scalar { text, plain: true, .. }) if text == "<<" => merged.push(value),
                Value::Scalar(scalar) => {
                    if !known.insert(scalar.text.clone()) {
                        return Err(error(key.span.clone(), format!("the key `{}` is given twice", scalar.text)));
                    }
                    entries.push((key, value));
                }
                _ => return Err(error(key.span, "a key has to be a single value")),
            }
        }
    }
}

/// A tag of the document's own, such as `!Sub`; those of YAML itself say what is known anyhow.
fn suffix(tag: Option<Cow<'_, Tag>>) -> Option<String> {
    tag.filter(|tag| tag.handle == "!").map(|tag| tag.suffix.clone())
}

/// What a merge key brings, behind what the map says itself.
fn merge(mut entries: Vec<(Node, Node)>, merged: Vec<Node>) -> Vec<(Node, Node)> {
    if merged.is_empty() {
        return entries;
    }
    let mut names: HashSet<Option<String>> = entries.iter().map(|(key, _)| key.text().map(str::to_owned)).collect();
    for node in merged {
        let sources = match node.value {
            Value::Sequence(items) => items,
            _ => vec![node],
        };
        for source in sources {
            let Value::Mapping(brought) = source.value else { continue };
            for (key, value) in brought {
                if names.insert(key.text().map(str::to_owned)) {
                    entries.push((key, value));
                }
            }
        }
    }
    entries
}

/// How many values a node is, and the bytes of their texts.
fn size(node: &Node) -> (usize, usize) {
    let sum = |(nodes, bytes): (usize, usize), node: &Node| {
        let of_this = size(node);
        (nodes + of_this.0, bytes + of_this.1)
    };
    match &node.value {
        Value::Scalar(scalar) => (1, scalar.text.len()),
        Value::Sequence(items) => items.iter().fold((1, 0), sum),
        Value::Mapping(entries) => entries.iter().flat_map(|(key, value)| [key, value]).fold((1, 0), sum),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Result<Node, String> {
        parse(&Source::new("t.yaml", text)).map_err(|report| report.to_string())
    }

    fn compact(node: &Node) -> String {
        match &node.value {
            Value::Scalar(scalar) if scalar.plain => scalar.text.clone(),
            Value::Scalar(scalar) => format!("{:?}", scalar.text),
            Value::Sequence(items) => format!("[{}]", items.iter().map(compact).collect::<Vec<_>>().join(", ")),
            Value::Mapping(entries) => {
                let entries = entries.iter().map(|(key, value)| format!("{}: {}", compact(key), compact(value)));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
            }
        }
    }

    #[test]
    fn scalars_keep_their_text() {
        let node = parsed("a: 1.0\nb: 0777\nc: '1.0'\nd: yes\ne:\nf: |\n  x\n  y\n").unwrap();
        assert_eq!(compact(&node), r#"{a: 1.0, b: 0777, c: "1.0", d: yes, e: , f: "x\ny\n"}"#);
    }

    #[test]
    fn blocks_and_tags_are_known() {
        let text = "a: !Sub |\n  x ${y}\n   z\n\nb: !Join ['', [c]]\n\"a b\": 1\n";
        let node = parsed(text).unwrap();
        let block = node.get("a").unwrap();
        assert_eq!(block.tag.as_deref(), Some("Sub"));
        assert!(matches!(&block.value, Value::Scalar(scalar) if scalar.literal && !scalar.plain));
        assert_eq!(&text[block.span.clone()], "!Sub |\n  x ${y}\n   z\n\n");
        assert_eq!(node.get("b").unwrap().tag.as_deref(), Some("Join"));
        assert!(parsed("a: 1\n\"a\": 2\n").unwrap_err().contains("given twice"));
    }

    #[test]
    fn json_is_yaml() {
        let node = parsed(r#"{"name": "x", "value": ["8", 1, true, null]}"#).unwrap();
        assert_eq!(compact(&node), r#"{"name": "x", "value": ["8", 1, true, null]}"#);
    }

    #[test]
    fn aliases_and_merge_keys_are_followed() {
        let node = parsed("base: &b {x: 1, y: 2}\nuse: {<<: *b, y: 3}\nalso: *b\n").unwrap();
        assert_eq!(compact(&node), "{base: {x: 1, y: 2}, use: {y: 3, x: 1}, also: {x: 1, y: 2}}");
    }

    #[test]
    fn spans_are_bytes_of_the_source() {
        let text = "ключ: значение\nlist:\n  - one\n  - \"two\"\n";
        let Value::Mapping(entries) = parsed(text).unwrap().value else { panic!("no map") };
        assert_eq!(&text[entries[0].0.span.clone()], "ключ");
        assert_eq!(&text[entries[0].1.span.clone()], "значение");
        let Value::Sequence(items) = &entries[1].1.value else { panic!("no list") };
        assert_eq!(&text[items[1].span.clone()], "\"two\"");
        let source = Source::new("x", text);
        assert_eq!(source.position(items[0].span.start), Position { line: 3, column: 5 });
        assert_eq!(source.position(entries[0].1.span.start), Position { line: 1, column: 7 });
    }

    #[test]
    fn what_is_no_document_is_refused_with_its_place() {
        insta::assert_snapshot!(parsed("a: 1\nb: [1, 2\nc: 3\n").unwrap_err(), @"t.yaml:3:2: error: this is not valid YAML: illegal placement of ':' indicator");
        insta::assert_snapshot!(parsed("a: 1\na: 2\n").unwrap_err(), @"t.yaml:2:1: error: the key `a` is given twice");
        insta::assert_snapshot!(parsed("").unwrap_err(), @"t.yaml:1:1: error: the document is empty");
        insta::assert_snapshot!(parsed("a: 1\n---\nb: 2\n").unwrap_err(), @"t.yaml:2:1: error: a second document begins here, where one is expected");
        insta::assert_snapshot!(parsed("a:\n\t- 1\n").unwrap_err(), @"t.yaml:2:2: error: this is not valid YAML: tabs disallowed within this context (block indentation) (indent with spaces; YAML does not take tabs)");
        insta::assert_snapshot!(parsed("{[1]: 2}").unwrap_err(), @"t.yaml:1:2: error: a key has to be a single value");
    }

    #[test]
    fn bombs_are_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 {
            let items = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{items}]\n"));
        }
        assert!(parsed(&bomb).unwrap_err().contains("with its aliases"));
        let long = format!("a: &a '{}'\nb: [{}]\n", "x".repeat(400_000), "*a, ".repeat(50));
        assert!(parsed(&long).unwrap_err().contains("repeat more than 16 MiB of text"));
        assert!(parsed(&"[".repeat(10_000)).is_err());
        assert!(parsed(&format!("{}{}", "[".repeat(100), "]".repeat(100))).unwrap_err().contains("64 levels"));
        assert!(parsed("a: &a [*a]").is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[-\\[\\]{}:,&*!|>'\"%@`#? \t\na-c0-9é]{0,80}") {
            drop(parsed(&text));
        }

        #[test]
        fn every_span_lies_in_its_parent(text in "[-\\[\\]{}:, \na-c]{0,60}") {
            fn check(node: &Node, text: &str) {
                assert!(text.get(node.span.clone()).is_some(), "{:?} of {text:?}", node.span);
                match &node.value {
                    Value::Scalar(_) => {}
                    Value::Sequence(items) => items.iter().for_each(|item| check(item, text)),
                    Value::Mapping(entries) => entries.iter().for_each(|(k, v)| { check(k, text); check(v, text) }),
                }
            }
            if let Ok(node) = parsed(&text) {
                check(&node, &text);
            }
        }
    }
}
