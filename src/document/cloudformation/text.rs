//! Functions that make texts.

use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::intrinsic::{Call, Evaluator};
use super::value::{Content, Text, Value};
use crate::document::syntax::Node;

/// Most bytes that functions may make together.
const MAX_MADE: usize = 16 << 20;

impl Evaluator<'_> {
    pub(super) fn base64(&self, call: Call<'_>, span: &Range<usize>) -> Value {
        match self.argument(call).content {
            Content::Text(text) => {
                let encoded = STANDARD.encode(&text.text);
                self.made(span, Text { text: encoded, plain: false, ..text })
            }
            _ => {
                self.error(span, "`Base64` needs a text");
                Value { span: span.clone(), content: Content::Nothing }
            }
        }
    }

    pub(super) fn to_json_string(&self, call: Call<'_>, span: &Range<usize>) -> Value {
        let value = self.argument(call);
        let gaps = value.gaps().into_iter().cloned().collect();
        self.made(span, Text { gaps, ..Text::known(value.to_json().to_string()) })
    }

    pub(super) fn join(&self, delimiter: &Node, list: &Node, span: &Range<usize>) -> Value {
        let Some(delimiter) = delimiter.text() else {
            self.error(span, "the delimiter of `Join` has to be a text");
            return Value { span: span.clone(), content: Content::Nothing };
        };
        let list = self.value(list);
        let items = list.items();
        if items.iter().any(|item| item.as_text().is_none()) {
            self.error(&list.span, "`Join` needs a list of texts");
        }
        let delimiters = vec![delimiter; items.len().saturating_sub(1)];
        let texts: Vec<&str> = [""].into_iter().chain(delimiters).collect();
        self.joined(span, &texts, items)
    }

    /// Texts and values in turn.
    pub(super) fn joined(&self, span: &Range<usize>, texts: &[&str], values: &[Value]) -> Value {
        let mut joined = Text::default();
        for (index, value) in values.iter().enumerate() {
            joined.text.push_str(texts.get(index).unwrap_or(&""));
            if let Some(text) = value.as_text() {
                joined.text.push_str(&text.text);
                joined.gaps.extend(text.gaps.iter().cloned());
            }
            if joined.text.len() > MAX_MADE {
                break;
            }
        }
        // One value alone is still what it was.
        if let ([""], [Value { content: Content::Text(text), .. }]) = (texts, values) {
            joined.resource.clone_from(&text.resource);
        }
        self.made(span, joined)
    }

    /// A text that a function has made, as long as it has not made too many.
    pub(super) fn made(&self, span: &Range<usize>, text: Text) -> Value {
        let before = self.made.get();
        self.made.set(before.saturating_add(text.text.len() + text.gaps.len() * 64));
        if self.made.get() <= MAX_MADE {
            return Value::text(span.clone(), text);
        }
        if before <= MAX_MADE {
            self.error(span, format!("the template's functions make more than {} MiB of text", MAX_MADE >> 20));
        }
        Value { span: span.clone(), content: Content::Nothing }
    }

    pub(super) fn split(&self, delimiter: &Node, text: &Node, span: &Range<usize>) -> Value {
        let value = self.value(text);
        match (delimiter.text(), &value.content) {
            (Some(delimiter), Content::Text(text)) if !delimiter.is_empty() => {
                if text.is_unknown() {
                    return Value { span: span.clone(), ..value };
                }
                let part =
                    |part: &str| Value::text(span.clone(), Text { gaps: text.gaps.clone(), ..Text::known(part) });
                let parts: Vec<Value> = text.text.split(delimiter).map(part).collect();
                self.work.set(self.work.get() + parts.len());
                Value { span: span.clone(), content: Content::List(parts) }
            }
            (_, Content::Nothing) => value,
            _ => {
                self.error(span, "`Split` needs a delimiter and a text");
                Value { span: span.clone(), content: Content::Nothing }
            }
        }
    }

    pub(super) fn sub(&self, node: &Node, variables: &[(Node, Node)], span: &Range<usize>) -> Value {
        let Some(text) = node.text() else {
            self.error(span, "`Sub` needs a text");
            return Value { span: span.clone(), content: Content::Nothing };
        };
        let text = self.substituted(text, node, variables);
        self.made(span, text)
    }

    /// A literal block as it is written, indented, with its variables' values where it is `Sub`'s, and where its first line
    /// begins; none if it is something else, or would have other lines.
    pub fn block(&self, node: &Node) -> Option<(usize, String)> {
        let (node, is_substituted) = match Call::of(node) {
            Some(call) if call.name == "Sub" => (call.operand, true),
            Some(_) => return None,
            None => (node, false),
        };
        let (begin, block) = self.template.source.block(node)?;
        let text = if is_substituted { self.substituted(block, node, &[]).text } else { block.to_owned() };
        let lines = |text: &str| text.matches('\n').count();
        (lines(&text) == lines(block)).then_some((begin, text))
    }

    /// A text with its variables' values.
    fn substituted(&self, text: &str, node: &Node, variables: &[(Node, Node)]) -> Text {
        let mut result = Text::default();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once("${") {
            result.text.push_str(before);
            let Some((name, after)) = behind.split_once('}') else {
                rest = &rest[before.len()..];
                break;
            };
            rest = after;
            if let Some(literal) = name.strip_prefix('!') {
                result.text.push_str(&format!("${{{literal}}}"));
                continue;
            }
            let place = self.place_of(node, name);
            let value = self.variable(name, variables, &place);
            match value.content {
                Content::Text(text) => {
                    result.text.push_str(&text.text);
                    result.gaps.extend(text.gaps);
                }
                Content::List(_) | Content::Map(_) => {
                    self.error(&place, format!("`${{{name}}}` is {}, where a text is needed", "more than one value"));
                }
                Content::Nothing => {}
            }
            if result.text.len() > MAX_MADE {
                break;
            }
        }
        result.text.push_str(rest);
        result
    }

    fn variable(&self, name: &str, variables: &[(Node, Node)], place: &Range<usize>) -> Value {
        let name = name.trim();
        if let Some((_, value)) = variables.iter().find(|(known, _)| known.text() == Some(name)) {
            return self.value(value);
        }
        let is_name =
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':'));
        let value = match (is_name, name.contains('.')) {
            (false, _) => None,
            (true, true) => Some(self.attribute_of(name, place)),
            (true, false) => Some(self.ref_(name, place)),
        };
        value.unwrap_or_else(|| {
            let help = Some(format!("`${{!{name}}}` stands for `${{{name}}}` itself"));
            self.error_with_help(place, format!("`${{{name}}}` names no value of the template"), help);
            Value { span: place.clone(), content: Content::Nothing }
        })
    }

    /// Where in a text a name stands first.
    fn place_of(&self, node: &Node, name: &str) -> Range<usize> {
        let written = self.template.source.text.get(node.span.clone()).unwrap_or_default();
        let wanted = format!("${{{name}}}");
        match written.find(&wanted) {
            Some(at) => node.span.start + at..node.span.start + at + wanted.len(),
            None => node.span.clone(),
        }
    }
}
