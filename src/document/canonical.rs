//! What a document says, without how it is written: comments, indentation and quotes do not count. Two documents that say
//! the same are the same value here, and where two say something else is found with its place.

use serde_json::{Map, Value as Json, json};

use super::syntax::{Node, Scalar, Source, Value};

/// A node as a value that can be kept and compared.
pub fn canonical(node: &Node) -> Json {
    match &node.value {
        Value::Scalar(scalar) => canonical_scalar(scalar),
        Value::Sequence(items) => Json::Array(items.iter().map(canonical).collect()),
        Value::Mapping(entries) => {
            Json::Object(entries.iter().map(|(key, value)| (name(key), canonical(value))).collect())
        }
    }
}

/// Without quotes `true`, `8080` and nothing mean something else than with them.
fn canonical_scalar(scalar: &Scalar) -> Json {
    let text = scalar.text.as_str();
    let is_special = scalar.is_null()
        || matches!(text, "true" | "True" | "TRUE" | "false" | "False" | "FALSE")
        || text.parse::<f64>().is_ok();
    if scalar.plain && is_special { json!({ "plain": text }) } else { json!(text) }
}

fn name(key: &Node) -> String {
    match &key.value {
        Value::Scalar(scalar) => scalar.text.clone(),
        _ => String::new(),
    }
}

/// The first line of a document, from 1, on which it says something else than an older one did; of a list or map that
/// has lost its end, the line on which it begins.
pub fn first_difference(source: &Source, new: &Node, old: &Json) -> Option<usize> {
    let (node, old) = differing(new, old)?;
    let line = source.position(node.span.start).line;
    let (Value::Scalar(scalar), Some(old)) = (&node.value, old.as_str()) else { return Some(line) };
    // In a text of several lines, as scripts are, as many are the same as begin alike.
    let alike = scalar.text.lines().zip(old.lines()).take_while(|(new, old)| new == old).count();
    let lines = source.text.get(node.span.clone()).map_or(0, |text| text.trim_end().matches('\n').count());
    Some(line + alike.min(lines))
}

/// The first node that says something else than an older one did, and what that said.
fn differing<'a, 'o>(new: &'a Node, old: &'o Json) -> Option<(&'a Node, &'o Json)> {
    if canonical(new) == *old {
        return None;
    }
    let deeper = match (&new.value, old) {
        (Value::Sequence(items), Json::Array(old)) => {
            items.iter().enumerate().find_map(|(i, item)| differing(item, old.get(i).unwrap_or(&Json::Null)))
        }
        (Value::Mapping(entries), Json::Object(old)) => in_mapping(entries, old),
        _ => None,
    };
    Some(deeper.unwrap_or((new, old)))
}

fn in_mapping<'a, 'o>(entries: &'a [(Node, Node)], old: &'o Map<String, Json>) -> Option<(&'a Node, &'o Json)> {
    entries.iter().find_map(|(key, value)| match old.get(&name(key)) {
        Some(old) => differing(value, old),
        None => Some((key, &Json::Null)),
    })
}

#[cfg(test)]
mod tests {
    use super::super::syntax::parse;
    use super::*;

    fn node(text: &str) -> (std::sync::Arc<Source>, Node) {
        let source = Source::new("c.yaml", text);
        let node = parse(&source).unwrap();
        (source, node)
    }

    /// The line on which a new document begins to differ from an old one.
    fn line(old: &str, new: &str) -> Option<usize> {
        let old = canonical(&node(old).1);
        let (source, new) = node(new);
        first_difference(&source, &new, &old)
    }

    const OLD: &str = "a: 1\nb:\n  - x\n  - y: two\n    z: three\n";

    #[test]
    fn how_it_is_written_does_not_matter() {
        assert_eq!(line(OLD, "# comment\na: 1 # more\nb: [\"x\", { z: 'three', y: two }]\n"), None);
    }

    #[test]
    fn the_line_of_a_script_is_known() {
        let script = |third: &str| format!("a:\n  - |\n    one\n    two\n    {third}\n    four\n");
        assert_eq!(line(&script("three"), &script("3")), Some(5));
        assert_eq!(line(&script("three"), "a:\n  - |\n    one\n"), Some(3));
        assert_eq!(line("a: \"x\\ny\"\n", "a: \"x\\nz\"\n"), Some(1));
    }

    #[test]
    fn what_it_says_does_and_its_line_is_known() {
        assert_eq!(line(OLD, "a: 2\nb:\n  - x\n  - y: two\n    z: three\n"), Some(1));
        assert_eq!(line(OLD, "# c\na: 1\nb:\n  - x\n  - y: two\n    z: four\n"), Some(6));
        assert_eq!(line(OLD, "a: '1'\nb:\n  - x\n  - y: two\n    z: three\n"), Some(1));
        assert_eq!(line(OLD, "a: 1\nb:\n  - x\n"), Some(3));
        assert_eq!(line(OLD, "a: 1\nb:\n  - x\n  - y: two\n    z: three\n  - w\n"), Some(6));
        assert_eq!(line(OLD, "a: 1\nb:\n  - x\n  - y: two\n    z: three\nc: 1\n"), Some(6));
    }
}
