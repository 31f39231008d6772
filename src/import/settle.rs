//! goldsmith's own readers decide what a document may hold: what they refuse is taken out and said.

use std::ops::Range;
use std::sync::Arc;

use super::out::Out;
use super::report::{Fate, Notes};
use crate::document::diagnostic::{Report, Severity};
use crate::document::syntax::{self, Node, Source, Value};

/// Rounds after which a document is given up. Each takes out one thing at least, and sound documents need few.
const MAX_ROUNDS: usize = 100;

/// A document's text without what its reader refuses; none if nothing is left that it takes.
pub(super) fn settle(
    document: &mut Out,
    comment: &str,
    notes: &mut Notes<'_>,
    read: impl Fn(&Arc<Source>) -> Result<(), Report>,
) -> Option<String> {
    for round in 0..MAX_ROUNDS {
        let text = document.document(comment);
        let source = Source::new("document", text.as_str());
        let report = match read(&source) {
            Ok(()) => return Some(text),
            Err(report) => report,
        };
        let Ok(root) = syntax::parse(&source) else { break };
        let mut refused: Vec<(Vec<usize>, String, Option<String>)> = Vec::new();
        for problem in report.diagnostics.into_iter().filter(|problem| problem.severity == Severity::Error) {
            let path = path_to(&root, &problem.span);
            if path.is_empty() {
                let message = match round {
                    0 => problem.message,
                    _ => format!("without what is lost of it: {}", problem.message),
                };
                notes.say_of_all(Fate::Lost, message, problem.help.as_deref());
                return None;
            }
            if !refused.iter().any(|(known, ..)| path.starts_with(known)) {
                refused.retain(|(known, ..)| !known.starts_with(&path));
                refused.push((path, problem.message, problem.help));
            }
        }
        if refused.is_empty() {
            break;
        }
        // From the end, so that places before stay what they are.
        refused.sort_by(|a, b| b.0.cmp(&a.0));
        for (path, message, help) in refused {
            let origin = document.remove(&path).and_then(|removed| removed.origin);
            let origin = origin.unwrap_or_else(|| notes.whole());
            notes.not_kept(&origin, &message, help.as_deref());
        }
    }
    None
}

/// The places that lead to what an error is about: the value or key of just these bytes; of one byte, the map that begins
/// there, because so it is said that something is missing; else the innermost value around them.
fn path_to(root: &Node, span: &Range<usize>) -> Vec<usize> {
    let mut innermost = Vec::new();
    let mut map = None;
    let mut exact = None;
    visit(root, &mut Vec::new(), &mut |node, key, path| {
        let whole = key.map_or(node.span.start, |key: &Node| key.span.start)..node.span.end;
        if whole.start <= span.start && span.start < whole.end.max(whole.start + 1) {
            innermost = path.to_vec();
        }
        if exact.is_none() && (node.span == *span || key.is_some_and(|key| key.span == *span)) {
            exact = Some(path.to_vec());
        }
        let is_map = matches!(node.value, Value::Mapping(_));
        if is_map && span.len() <= 1 && node.span.start == span.start {
            map = Some(path.to_vec());
        }
    });
    exact.or(map).unwrap_or(innermost)
}

fn visit(node: &Node, path: &mut Vec<usize>, see: &mut impl FnMut(&Node, Option<&Node>, &[usize])) {
    if path.is_empty() {
        see(node, None, path);
    }
    let children: Vec<(Option<&Node>, &Node)> = match &node.value {
        Value::Scalar(_) => Vec::new(),
        Value::Sequence(items) => items.iter().map(|item| (None, item)).collect(),
        Value::Mapping(entries) => entries.iter().map(|(key, value)| (Some(key), value)).collect(),
    };
    for (place, (key, child)) in children.into_iter().enumerate() {
        path.push(place);
        see(child, key, path);
        visit(child, path, see);
        path.pop();
    }
}
