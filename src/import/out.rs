//! Documents as they are written: YAML in blocks, in which every value knows what it was made of.

use std::fmt::Write as _;

use super::report::Origin;
use crate::document::cloudformation::{Content, Value};

/// A value of a document.
#[derive(Debug, Clone)]
pub(super) struct Out {
    pub(super) form: Form,
    /// What it was made of.
    pub(super) origin: Option<Origin>,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(super) enum Form {
    /// A number or a truth value.
    Plain(String),
    Text(String),
    List(Vec<Out>),
    Map(Vec<(String, Out)>),
}

/// Members whose own members are a user's words.
const WORDS: [&str; 5] = ["tags", "amitags", "imagetags", "resourcetags", "tagmap"];

impl Out {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self { form: Form::Text(text.into()), origin: None }
    }

    pub(super) fn plain(text: impl ToString) -> Self {
        Self { form: Form::Plain(text.to_string()), origin: None }
    }

    pub(super) fn list(items: Vec<Self>) -> Self {
        Self { form: Form::List(items), origin: None }
    }

    pub(super) fn map(entries: Vec<(&str, Self)>) -> Self {
        let entries = entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Self { form: Form::Map(entries), origin: None }
    }

    #[must_use]
    pub(super) fn from(self, origin: &Origin) -> Self {
        Self { origin: Some(origin.clone()), ..self }
    }

    /// A value with the API's names for its members, which begin with small letters.
    pub(super) fn of(value: &Value, origin: &Origin) -> Option<Self> {
        let last = origin.path.rsplit('.').next().unwrap_or_default().to_lowercase();
        Self::convert(value, origin, WORDS.contains(&last.as_str()))
    }

    fn convert(value: &Value, origin: &Origin, are_words: bool) -> Option<Self> {
        let form = match &value.content {
            Content::Nothing => return None,
            Content::Text(text) if text.plain => Form::Plain(text.text.clone()),
            Content::Text(text) => Form::Text(text.text.clone()),
            Content::List(items) => {
                let item = |(index, item): (usize, &Value)| {
                    let path = format!("{}[{index}]", origin.path);
                    Self::convert(item, &Origin { span: item.span.clone(), path }, are_words)
                };
                Form::List(items.iter().enumerate().filter_map(item).collect())
            }
            Content::Map(entries) => {
                let entries = entries.iter().filter_map(|entry| {
                    let path = format!("{}.{}", origin.path, entry.key);
                    let inner = WORDS.contains(&entry.key.to_lowercase().as_str());
                    let value = Self::convert(&entry.value, &Origin { span: entry.span.clone(), path }, inner)?;
                    Some((if are_words { entry.key.clone() } else { api_name(&entry.key) }, value))
                });
                Form::Map(entries.collect())
            }
        };
        Some(Self { form, origin: Some(origin.clone()) })
    }

    fn is_empty(&self) -> bool {
        match &self.form {
            Form::List(items) => items.is_empty(),
            Form::Map(entries) => entries.is_empty(),
            Form::Plain(_) | Form::Text(_) => false,
        }
    }

    /// Takes out what is at a path of places; what is empty then goes as well.
    pub(super) fn remove(&mut self, path: &[usize]) -> Option<Self> {
        let (&place, rest) = path.split_first()?;
        let child = match &mut self.form {
            Form::List(items) => items.get_mut(place),
            Form::Map(entries) => entries.get_mut(place).map(|(_, value)| value),
            Form::Plain(_) | Form::Text(_) => None,
        };
        let removed = match child {
            Some(child) if !rest.is_empty() => {
                let removed = child.remove(rest);
                if !child.is_empty() {
                    return removed;
                }
                removed
            }
            Some(child) => Some(child.clone()),
            None => return None,
        };
        match &mut self.form {
            Form::List(items) => drop(items.remove(place)),
            Form::Map(entries) => drop(entries.remove(place)),
            Form::Plain(_) | Form::Text(_) => {}
        }
        removed
    }

    /// It as a document.
    pub(super) fn document(&self, comment: &str) -> String {
        let mut text = format!("# {}\n", comment.replace(char::is_control, " "));
        match &self.form {
            Form::Map(entries) if !entries.is_empty() => map(entries, 0, &mut text),
            _ => text.push_str("{}\n"),
        }
        text
    }
}

/// A member's name as the API has it.
fn api_name(name: &str) -> String {
    if name == "LaunchPermissionConfiguration" {
        return "launchPermission".to_owned();
    }
    let mut chars = name.chars();
    chars.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(chars).collect()
}

fn map(entries: &[(String, Out)], depth: usize, text: &mut String) {
    for (index, (key, value)) in entries.iter().enumerate() {
        if index > 0 || depth == 0 {
            text.push_str(&"  ".repeat(depth));
        }
        text.push_str(&scalar(key));
        text.push(':');
        behind(value, depth, text);
    }
}

/// What stands behind a key.
fn behind(value: &Out, depth: usize, text: &mut String) {
    match &value.form {
        Form::Map(entries) if !entries.is_empty() => {
            text.push('\n');
            text.push_str(&"  ".repeat(depth + 1));
            map(entries, depth + 1, text);
        }
        Form::List(items) if !items.is_empty() => {
            text.push('\n');
            list(items, depth + 1, text);
        }
        _ => {
            text.push(' ');
            single(value, depth + 1, text);
        }
    }
}

fn list(items: &[Out], depth: usize, text: &mut String) {
    for item in items {
        text.push_str(&"  ".repeat(depth));
        match &item.form {
            Form::Map(entries) if !entries.is_empty() => {
                text.push_str("- ");
                map(entries, depth + 1, text);
            }
            Form::List(items) if !items.is_empty() => {
                text.push_str("-\n");
                list(items, depth + 1, text);
            }
            _ => {
                text.push_str("- ");
                single(item, depth + 1, text);
            }
        }
    }
}

fn single(value: &Out, depth: usize, text: &mut String) {
    match &value.form {
        Form::Plain(plain) => text.push_str(plain),
        Form::Text(content) if is_block(content) => return block(content, depth, text),
        Form::Text(content) => text.push_str(&scalar(content)),
        Form::List(_) => text.push_str("[]"),
        Form::Map(_) => text.push_str("{}"),
    }
    text.push('\n');
}

/// Whether a text of several lines reads the same as a block.
fn is_block(text: &str) -> bool {
    let is_plain =
        |c: char| c == '\n' || !(c.is_control() || matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}'));
    let body = text.strip_suffix('\n').unwrap_or(text);
    body.contains('\n')
        && !body.ends_with('\n')
        && !body.starts_with([' ', '\n', '\t'])
        && text.chars().all(is_plain)
        && !body.lines().any(|line| !line.is_empty() && line.trim().is_empty())
}

fn block(content: &str, depth: usize, text: &mut String) {
    text.push_str(if content.ends_with('\n') { "|\n" } else { "|-\n" });
    for line in content.lines() {
        if !line.is_empty() {
            text.push_str(&"  ".repeat(depth));
            text.push_str(line);
        }
        text.push('\n');
    }
}

/// A text on one line, in quotes where it would else be something other.
pub(super) fn scalar(text: &str) -> String {
    let is_word = matches!(
        text.to_lowercase().as_str(),
        "" | "~" | "null" | "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n"
    );
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_'));
    let plain = |c: char| c.is_ascii_alphanumeric() || " _-./@+=()$".contains(c);
    let is_colon =
        |(at, c): (usize, char)| c == ':' && text[at + 1..].starts_with(|next: char| next.is_ascii_graphic());
    let is_plain = text.char_indices().all(|(at, c)| plain(c) || is_colon((at, c)));
    let is_number = text.starts_with(|c: char| c.is_ascii_digit() || c == '.') && is_like_number(text);
    if begins && is_plain && !is_word && !is_number && !text.ends_with(' ') && !text.starts_with("---") {
        return text.to_owned();
    }
    if text.chars().all(|c| !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')) {
        return format!("'{}'", text.replace('\'', "''"));
    }
    quoted(text)
}

/// Whether some reader of YAML takes it for a number or a time: `1e3`, `0x1f`, `12:30:45`, `2026-01-31`.
fn is_like_number(text: &str) -> bool {
    let others = text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    text.parse::<f64>().is_ok()
        || text.starts_with("0x")
        || text.starts_with("0o")
        || matches!(others.as_str(), ":" | "::" | "--")
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(c);
            }
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                let _infallible = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::document::syntax::{Node, Source, Value as Written, parse};

    fn compare(node: &Node, out: &Out) {
        match (&node.value, &out.form) {
            (Written::Scalar(scalar), Form::Text(text)) => assert_eq!(&scalar.text, text),
            (Written::Scalar(scalar), Form::Plain(text)) => assert_eq!(&scalar.text, text),
            (Written::Sequence(nodes), Form::List(items)) => {
                assert_eq!(nodes.len(), items.len());
                nodes.iter().zip(items).for_each(|(node, item)| compare(node, item));
            }
            (Written::Mapping(nodes), Form::Map(entries)) => {
                assert_eq!(nodes.len(), entries.len());
                for ((key, node), (name, value)) in nodes.iter().zip(entries) {
                    assert_eq!(key.text(), Some(name.as_str()));
                    compare(node, value);
                }
            }
            (node, out) => panic!("{node:?} is not {out:?}"),
        }
    }

    fn any_text() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ -~éß\n\t]{0,30}",
            "[a-z :#\n-]{0,12}",
            "[0-9.:e_x-]{0,8}",
            any::<String>(),
            Just("true".to_owned()),
            Just("null".to_owned()),
        ]
    }

    fn any_out() -> impl Strategy<Value = Out> {
        let leaf = prop_oneof![any_text().prop_map(Out::text), any::<i32>().prop_map(Out::plain)];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Out::list),
                prop::collection::btree_map(any_text(), inner, 0..5)
                    .prop_map(|entries| Out { form: Form::Map(entries.into_iter().collect()), origin: None }),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(value in any_out()) {
            let document = Out::map(vec![("a", value.clone()), ("b", Out::list(vec![value]))]);
            let text = document.document("comment");
            let node = parse(&Source::new("o.yaml", text.as_str())).unwrap_or_else(|report| panic!("{report}\n{text}"));
            compare(&node, &document);
        }
    }

    #[test]
    fn documents_are_plain_to_read() {
        let document = Out::map(vec![
            ("name", Out::text("Web server")),
            ("version", Out::text("1.0.0")),
            ("account", Out::text("123456789012")),
            ("description", Out::text("one\ntwo\n")),
            ("parentImage", Out::text("arn:aws:imagebuilder:eu-west-1:aws:image/x/x.x.x")),
            ("schedule", Out::map(vec![("scheduleExpression", Out::text("cron(0 0 * * ? *)"))])),
            ("on", Out::list(vec![Out::plain(true), Out::text("yes"), Out::text("a: b"), Out::text("it's: x #")])),
        ]);
        insta::assert_snapshot!(document.document("from web.yaml"), @"
        # from web.yaml
        name: Web server
        version: 1.0.0
        account: '123456789012'
        description: |
          one
          two
        parentImage: arn:aws:imagebuilder:eu-west-1:aws:image/x/x.x.x
        schedule:
          scheduleExpression: 'cron(0 0 * * ? *)'
        'on':
          - true
          - 'yes'
          - 'a: b'
          - 'it''s: x #'
        ");
    }

    #[test]
    fn what_is_empty_goes_with_what_is_removed() {
        let mut document =
            Out::map(vec![("a", Out::list(vec![Out::map(vec![("x", Out::plain(1))])])), ("b", Out::plain(2))]);
        assert!(document.remove(&[0, 0, 0]).is_some());
        assert_eq!(document.document("c"), "# c\nb: 2\n");
        assert!(document.remove(&[7]).is_none() && document.remove(&[]).is_none());
    }
}
