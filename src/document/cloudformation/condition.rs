//! Whether conditions hold: yes, no, or nobody knows.

use super::intrinsic::{Call, Evaluator};
use super::value::Content;
use crate::document::decode::suggest;
use crate::document::syntax::{Node, Value as Written};

impl Evaluator<'_> {
    /// Whether the condition that a node names holds; none if that is not known here.
    pub fn holds(&self, name: &Node) -> Option<bool> {
        let Some(text) = name.text() else {
            self.error(&name.span, "a condition's name is needed");
            return None;
        };
        if let Some(known) = self.conditions.borrow().get(text) {
            return *known;
        }
        let Some(node) = self.template.section("Conditions", text) else {
            let known = super::entries(self.template.root.get("Conditions"));
            let known: Vec<&str> = known.iter().filter_map(|(name, _)| name.text()).collect();
            self.error_with_help(&name.span, format!("there is no condition `{text}`"), suggest(text, &known));
            return None;
        };
        let holds = self.within(&format!("the condition `{text}`"), &name.span, || self.boolean(node)).flatten();
        self.conditions.borrow_mut().insert(text.to_owned(), holds);
        holds
    }

    fn boolean(&self, node: &Node) -> Option<bool> {
        if !self.spend(&node.span) {
            return None;
        }
        let Some(call) = Call::of(node) else {
            self.error(&node.span, "a condition is one of Fn::Equals, Fn::And, Fn::Or, Fn::Not and Condition");
            return None;
        };
        let items = call.items();
        match (call.name, items) {
            ("Condition", _) => self.holds(call.operand),
            ("Equals", [left, right]) => self.equal(left, right),
            ("Not", [inner]) => self.boolean_within(inner).map(|holds| !holds),
            // One that is known decides, whatever the others are.
            ("And", _) if !items.is_empty() => {
                let all: Vec<Option<bool>> = items.iter().map(|item| self.boolean_within(item)).collect();
                if all.contains(&Some(false)) { Some(false) } else { all.iter().all(Option::is_some).then_some(true) }
            }
            ("Or", _) if !items.is_empty() => {
                let all: Vec<Option<bool>> = items.iter().map(|item| self.boolean_within(item)).collect();
                if all.contains(&Some(true)) { Some(true) } else { all.iter().all(Option::is_some).then_some(false) }
            }
            (name, _) => {
                self.error(&node.span, format!("`{name}` is not used like this in a condition"));
                None
            }
        }
    }

    fn boolean_within(&self, node: &Node) -> Option<bool> {
        self.deeper(&node.span, || self.boolean(node)).flatten()
    }

    fn equal(&self, left: &Node, right: &Node) -> Option<bool> {
        let (left, right) = (self.value(left), self.value(right));
        if left.is_unknown() || right.is_unknown() {
            return None;
        }
        match (&left.content, &right.content) {
            (Content::Text(left), Content::Text(right)) => Some(left.text == right.text),
            _ => Some(left.to_json() == right.to_json()),
        }
    }
}

/// Whether a map is `{ Condition: NAME }`.
pub(super) fn is_condition(node: &Node) -> Option<&Node> {
    match &node.value {
        Written::Mapping(entries) => match entries.as_slice() {
            [(key, name)] if key.text() == Some("Condition") && name.text().is_some() => Some(name),
            _ => None,
        },
        _ => None,
    }
}
