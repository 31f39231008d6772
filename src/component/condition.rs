//! Conditions, for `if` and `Assert`: comparisons, and logic over them.
//!
//! AWS user guide, "Conditional constructs" and "Logical operators".

use goldsmith_agent::message::{Exit, Kind};

use super::operator::{OPERATORS, Operator, pattern};
use super::values::absolute;
use crate::document::decode::{Fields, Reader, Spanned, suggest};
use crate::document::expression::{Reference, Template};
use crate::document::syntax::{Node, Value};
use crate::guest::{self, Guest};

/// Something that is true or false.
#[derive(Debug, Clone)]
pub(super) enum Condition {
    /// A comparison.
    Compare { operator: Operator, baseline: Template, other: Option<Template> },
    /// All of them.
    And(Vec<Condition>),
    /// One of them at least.
    Or(Vec<Condition>),
    /// Not it.
    Not(Box<Condition>),
}

/// A step's `if`: a condition and what follows from it.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    pub(super) condition: Condition,
    then: Branch,
    otherwise: Branch,
}

/// What becomes of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Branch {
    /// It runs.
    Execute,
    /// It is left out, which counts as success.
    Skip,
    /// It fails.
    Abort,
}

const BRANCHES: [(&str, Branch); 3] = [("Execute", Branch::Execute), ("Skip", Branch::Skip), ("Abort", Branch::Abort)];
/// Deepest nesting of logic.
const MAX_DEPTH: usize = 4;
const LOGIC: [&str; 3] = ["and", "or", "not"];

impl Guard {
    /// Reads an `if`; its texts are for looking through for references.
    ///
    /// `then` and `else` stand beside the operator or, in documents of AWS's own, in its operand; they are about the whole
    /// condition either way. Older pages of the guide show the condition as a list of one.
    pub(super) fn decode(reader: &Reader, node: &Node) -> (Option<Self>, Vec<Spanned<String>>) {
        let node = only_item(node);
        let Value::Mapping(entries) = &node.value else {
            reader.error(&node.span, format!("`if` has to be a map, and this is {}", node.kind()));
            return (None, Vec::new());
        };
        let mut branches = Branches { reader, then: None, otherwise: None };
        let entries = branches.take(entries);
        let inner = entries.into_iter().map(|(key, operand)| {
            // Of a list of one it is the item that holds them.
            let operand = match &only_item(&operand).value {
                Value::Mapping(inside) => {
                    let value = Value::Mapping(branches.take(inside));
                    Node { value, ..only_item(&operand).clone() }
                }
                _ => operand,
            };
            (key, operand)
        });
        let bare = Node { value: Value::Mapping(inner.collect()), ..node.clone() };
        let (condition, texts) = Condition::decode(reader, &bare);
        let (then, otherwise) = (branches.then.unwrap_or(Branch::Execute), branches.otherwise.unwrap_or(Branch::Skip));
        (condition.map(|condition| Self { condition, then, otherwise }), texts)
    }

    /// What becomes of the step, given whether its condition holds.
    pub(super) fn branch(&self, holds: bool) -> Branch {
        if holds { self.then } else { self.otherwise }
    }
}

fn only_item(node: &Node) -> &Node {
    match &node.value {
        Value::Sequence(items) if items.len() == 1 => &items[0],
        _ => node,
    }
}

/// Collects `then` and `else` from wherever they stand.
struct Branches<'a> {
    reader: &'a Reader,
    then: Option<Branch>,
    otherwise: Option<Branch>,
}

impl Branches<'_> {
    /// A map without them.
    fn take(&mut self, entries: &[(Node, Node)]) -> Vec<(Node, Node)> {
        let mut rest = Vec::new();
        for (key, value) in entries {
            let place = match scalar(key) {
                Some("then") => &mut self.then,
                Some("else") => &mut self.otherwise,
                _ => {
                    rest.push((key.clone(), value.clone()));
                    continue;
                }
            };
            let name = scalar(key).unwrap_or_default();
            if place.is_some() {
                self.reader.error(&key.span, format!("`{name}` is given twice"));
            }
            let branch = BRANCHES.iter().find(|(known, _)| scalar(value) == Some(known));
            if branch.is_none() {
                let names: Vec<&str> = BRANCHES.iter().map(|(name, _)| *name).collect();
                let message = format!("`{name}` is Execute, Skip or Abort");
                match scalar(value).and_then(|text| suggest(text, &names)) {
                    Some(help) => self.reader.error_with_help(&value.span, message, help),
                    None => self.reader.error(&value.span, message),
                }
            }
            *place = Some(branch.map_or(Branch::Execute, |(_, branch)| *branch));
        }
        rest
    }
}

impl Condition {
    /// Reads a condition; its texts are for looking through for references.
    pub(super) fn decode(reader: &Reader, node: &Node) -> (Option<Self>, Vec<Spanned<String>>) {
        let mut texts = Vec::new();
        let condition = decode(reader, node, 1, &mut texts);
        (condition, texts)
    }

    /// All templates, in the order of the texts that [`Condition::decode`] returned.
    pub(super) fn templates(&mut self) -> Vec<&mut Template> {
        match self {
            Self::Compare { baseline, other, .. } => std::iter::once(baseline).chain(other).collect(),
            Self::And(conditions) | Self::Or(conditions) => {
                conditions.iter_mut().flat_map(Condition::templates).collect()
            }
            Self::Not(condition) => condition.templates(),
        }
    }

    /// The condition with every reference replaced, or what is wrong with what came of it.
    pub(super) fn resolve(
        &self,
        value: &mut impl FnMut(&Reference) -> Result<String, String>,
    ) -> Result<Resolved, String> {
        Ok(match self {
            Self::Compare { operator, baseline, other } => {
                let baseline = baseline.resolve(&mut *value)?;
                if *operator == Operator::PatternMatches {
                    pattern(&baseline)?;
                }
                let other = other.as_ref().map(|other| other.resolve(&mut *value)).transpose()?.unwrap_or_default();
                Resolved::Compare { operator: *operator, baseline, other }
            }
            Self::And(conditions) => Resolved::And(resolve_all(conditions, value)?),
            Self::Or(conditions) => Resolved::Or(resolve_all(conditions, value)?),
            Self::Not(condition) => Resolved::Not(Box::new(condition.resolve(value)?)),
        })
    }
}

fn resolve_all(
    conditions: &[Condition],
    value: &mut impl FnMut(&Reference) -> Result<String, String>,
) -> Result<Vec<Resolved>, String> {
    conditions.iter().map(|condition| condition.resolve(value)).collect()
}

/// A condition whose references have been replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Resolved {
    Compare { operator: Operator, baseline: String, other: String },
    And(Vec<Resolved>),
    Or(Vec<Resolved>),
    Not(Box<Resolved>),
}

impl Resolved {
    /// Whether it holds in a guest, where relative paths begin in `folder`.
    pub(super) async fn holds(&self, guest: &Guest, folder: &str) -> Result<bool, guest::Error> {
        match self {
            Self::Compare { operator, baseline, other } => match operator.compare(baseline, other) {
                Some(verdict) => Ok(verdict),
                None => ask(guest, folder, *operator, (baseline, other)).await,
            },
            Self::And(conditions) => {
                for condition in conditions {
                    if !Box::pin(condition.holds(guest, folder)).await? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Self::Or(conditions) => {
                for condition in conditions {
                    if Box::pin(condition.holds(guest, folder)).await? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Self::Not(condition) => Ok(!Box::pin(condition.holds(guest, folder)).await?),
        }
    }
}

fn decode(reader: &Reader, node: &Node, depth: usize, texts: &mut Vec<Spanned<String>>) -> Option<Condition> {
    if depth > MAX_DEPTH {
        reader.error(&node.span, format!("conditions are nested more than {MAX_DEPTH} levels deep"));
        return None;
    }
    let mut fields = reader.map(node, "a condition")?;
    let Value::Mapping(entries) = &node.value else { return None };
    let keys: Vec<&str> = entries.iter().filter_map(|(key, _)| scalar(key)).collect();
    let names: Vec<&str> = OPERATORS.iter().map(|(name, ..)| *name).chain(LOGIC).collect();
    let given: Vec<&str> = keys.iter().copied().filter(|key| canonical(&names, key).is_some()).collect();
    let &[key] = given.as_slice() else {
        no_operator(reader, node, &keys, given.is_empty());
        return None;
    };
    let (operand, name) = (fields.get(key)?, canonical(&names, key)?);
    if key != name {
        reader.warning(&operand.span, format!("`{key}` is written `{name}`"));
    }
    let condition = match name {
        "and" | "or" => logic(reader, operand, name, depth, texts),
        "not" => {
            let condition = decode(reader, only_item(operand), depth + 1, texts);
            condition.map(|condition| Condition::Not(Box::new(condition)))
        }
        _ => comparison(reader, &mut fields, name, operand, texts),
    };
    fields.finish(&["value", "path"]);
    condition
}

/// Says that a condition has too many operators, or none, or one that is none.
fn no_operator(reader: &Reader, node: &Node, keys: &[&str], none: bool) {
    let start = node.span.start;
    let first = start..start + 1;
    if !none {
        reader.error(&first, "a condition has one operator");
        return;
    }
    let Some(key) = keys.iter().find(|key| !matches!(**key, "value" | "path")) else {
        reader.error(&first, "a condition needs an operator");
        return;
    };
    let names: Vec<&str> = OPERATORS.iter().map(|(name, ..)| *name).chain(LOGIC).collect();
    let message = format!("there is no operator `{key}`");
    match suggest(key, &names) {
        Some(help) => reader.error_with_help(&first, message, help),
        None => reader.error(&first, message),
    }
}

fn scalar(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Scalar(scalar) => Some(&scalar.text),
        _ => None,
    }
}

/// Older pages of the guide write `stringlessThan`.
fn canonical<'a>(names: &[&'a str], key: &str) -> Option<&'a str> {
    let is_old = |name: &str| name.starts_with("stringLess") && name.eq_ignore_ascii_case(key);
    names.iter().find(|name| **name == key || is_old(name)).copied()
}

fn logic(
    reader: &Reader,
    operand: &Node,
    key: &str,
    depth: usize,
    texts: &mut Vec<Spanned<String>>,
) -> Option<Condition> {
    let items = reader.list(operand, key)?;
    if items.len() < 2 {
        reader.error(&operand.span, format!("`{key}` takes two conditions at least"));
    }
    let conditions: Option<Vec<Condition>> = items.iter().map(|item| decode(reader, item, depth + 1, texts)).collect();
    conditions.map(if key == "and" { Condition::And } else { Condition::Or })
}

fn comparison(
    reader: &Reader,
    fields: &mut Fields<'_>,
    name: &str,
    operand: &Node,
    texts: &mut Vec<Spanned<String>>,
) -> Option<Condition> {
    let (_, operator, other_key) = OPERATORS.iter().find(|(known, ..)| *known == name)?;
    let mut text = |node: &Node, what: &str| {
        // An empty text is what `stringIsEmpty` is about.
        let mut text = reader.any_text(node, what)?;
        if operator.is_numeric() {
            text.value = plain_number(node, text.value);
        }
        texts.push(text.clone());
        Some(Template::parse(&text.value))
    };
    let baseline = text(operand, name);
    let other = other_key.and_then(|key| fields.require(key).map(|node| (key, node)));
    let other = other.and_then(|(key, node)| text(node, key));
    if *operator == Operator::PatternMatches
        && let Some(literal) = baseline.as_ref().and_then(|baseline| baseline.resolve(|_| Err(())).ok())
        && let Err(problem) = pattern(&literal)
    {
        reader.error(&operand.span, problem);
    }
    if other_key.is_some() && other.is_none() {
        return None;
    }
    Some(Condition::Compare { operator: *operator, baseline: baseline?, other })
}

/// YAML's own numbers have more forms than the guide's texts have: `1e3` and `.5` without quotes are numbers.
fn plain_number(node: &Node, text: String) -> String {
    match &node.value {
        Value::Scalar(scalar) if scalar.plain => match text.parse::<f64>() {
            Ok(number) if number.is_finite() && text.contains(['e', 'E', '.']) => number.to_string(),
            _ => text,
        },
        _ => text,
    }
}

async fn ask(
    guest: &Guest,
    folder: &str,
    operator: Operator,
    (baseline, path): (&str, &str),
) -> Result<bool, guest::Error> {
    let is = async |kind: Kind| {
        let stat = guest.stat(&absolute(folder, baseline), true).await?;
        Ok(stat.is_some_and(|stat| stat.kind == kind))
    };
    match operator {
        Operator::FileExists => is(Kind::File).await,
        Operator::FolderExists => is(Kind::Folder).await,
        Operator::BinaryExists => {
            let (exit, _) = guest.ask(&["bash", "-c", "type -- \"$1\"", "bash", baseline]).await?;
            Ok(exit == Exit::Code(0))
        }
        Operator::FileDigest(algorithm) => match guest.digest(&absolute(folder, path), algorithm).await {
            Ok(digest) => Ok(digest.eq_ignore_ascii_case(baseline)),
            // A file that is not there has no digest.
            Err(guest::Error::Refused(_)) => Ok(false),
            Err(error) => Err(error),
        },
        _ => Ok(false),
    }
}

/// Reads a condition and tells what can be told of it without a guest.
#[cfg(any(test, fuzzing))]
pub fn fuzz_condition(source: &std::sync::Arc<crate::document::syntax::Source>) -> Option<bool> {
    fn told(condition: &Resolved) -> Option<bool> {
        match condition {
            Resolved::Compare { operator, baseline, other } => operator.compare(baseline, other),
            Resolved::And(all) => {
                all.iter().map(told).collect::<Option<Vec<_>>>().map(|all| all.iter().all(|one| *one))
            }
            Resolved::Or(some) => some.iter().map(told).collect::<Option<Vec<_>>>().map(|all| all.contains(&true)),
            Resolved::Not(other) => told(other).map(|holds| !holds),
        }
    }
    let node = crate::document::syntax::parse(source).ok()?;
    let reader = Reader::new(source.clone(), crate::document::decode::Strictness::Compat);
    let (guard, texts) = Guard::decode(&reader, &node);
    let mut guard = guard?;
    assert_eq!(guard.condition.templates().len(), texts.len(), "each text has its template");
    let condition = guard.condition.resolve(&mut |reference| Ok(reference.to_string())).ok()?;
    told(&condition)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::decode::Strictness;
    use crate::document::syntax::{Source, parse};

    fn read(text: &str) -> Result<Resolved, String> {
        let source = Source::new("c", text);
        let node = parse(&source).unwrap();
        let reader = Reader::new(source, Strictness::Strict);
        let (condition, _) = Condition::decode(&reader, &node);
        let (condition, _) = reader.finish(condition).map_err(|report| report.to_string())?;
        condition.resolve(&mut |_| Ok(String::new()))
    }

    fn verdict(text: &str) -> bool {
        fn eval(condition: &Resolved) -> bool {
            match condition {
                Resolved::Compare { operator, baseline, other } => operator.compare(baseline, other).unwrap(),
                Resolved::And(all) => all.iter().all(eval),
                Resolved::Or(some) => some.iter().any(eval),
                Resolved::Not(other) => !eval(other),
            }
        }
        eval(&read(text).unwrap())
    }

    #[test]
    fn operators_read_value_op_baseline() {
        for (text, expected) in [
            ("{stringIsEmpty: ''}", true),
            ("{stringIsEmpty: ' '}", false),
            ("{stringIsWhitespace: '  '}", true),
            ("{stringIsWhitespace: ''}", false),
            ("{stringEquals: Testing, value: Testing}", true),
            ("{stringEquals: Testing, value: testing}", false),
            ("{stringLessThan: B, value: a}", true),
            ("{stringLessThan: A, value: a}", false),
            ("{stringlessThanEquals: A, value: a}", true),
            ("{stringGreaterThan: a, value: '0'}", false),
            ("{patternMatches: '^[a-z]+$', value: abc}", true),
            ("{patternMatches: '^[a-z]+$', value: ABC}", false),
            ("{patternMatches: 'b', value: abc}", true),
            ("{numberEquals: 1, value: '1.0'}", true),
            ("{numberLessThan: 2, value: 1}", true),
            ("{numberLessThan: 2, value: '2'}", false),
            ("{numberGreaterThanEquals: -1.5, value: -1.5}", true),
            ("{numberEquals: 1, value: one}", false),
            ("{numberEquals: 1, value: '.5'}", false),
            ("{numberEquals: 1000, value: 1e3}", true),
            ("{numberGreaterThan: 0.4, value: .5}", true),
            ("{and: [{stringEquals: a, value: a}, {not: {stringEquals: a, value: b}}]}", true),
            ("{or: [{stringEquals: a, value: b}, {not: [{stringEquals: a, value: b}]}]}", true),
        ] {
            assert_eq!(verdict(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        let problem = |text: &str| read(text).unwrap_err();
        insta::assert_snapshot!(problem("{stringEqual: a, value: b}"), @"c:1:1: error: there is no operator `stringEqual` (did you mean `stringEquals`?)");
        insta::assert_snapshot!(problem("{stringEquals: a}"), @"c:1:1: error: a condition needs the field `value`");
        insta::assert_snapshot!(problem("{stringEquals: a, value: b, fileExists: /x}"), @"c:1:1: error: a condition has one operator");
        insta::assert_snapshot!(problem("{and: [{fileExists: /x}]}"), @"c:1:7: error: `and` takes two conditions at least");
        insta::assert_snapshot!(problem("{patternMatches: '[', value: b}"), @"c:1:18: error: this is no regular expression: unclosed character class");
        insta::assert_snapshot!(problem("{fileMD5Equals: 00, value: /x}"), @"
        c:1:1: error: a condition needs the field `path`
        c:1:21: error: a condition has no field `value`
        ");
        let deep = "{not: {not: {not: {not: {fileExists: /x}}}}}";
        insta::assert_snapshot!(problem(deep), @"c:1:25: error: conditions are nested more than 4 levels deep");
    }

    fn guard(text: &str) -> Result<(Branch, Branch), String> {
        let source = Source::new("c", text);
        let node = parse(&source).unwrap();
        let reader = Reader::new(source, Strictness::Strict);
        let (guard, _) = Guard::decode(&reader, &node);
        let (guard, _) = reader.finish(guard).map_err(|report| report.to_string())?;
        Ok((guard.branch(true), guard.branch(false)))
    }

    #[test]
    fn what_follows_stands_beside_the_operator_or_in_its_operand() {
        use Branch::{Abort, Execute, Skip};
        for (text, expected) in [
            ("{fileExists: /x}", (Execute, Skip)),
            ("{fileExists: /x, else: Abort}", (Execute, Abort)),
            ("{fileExists: /x, then: Skip, else: Execute}", (Skip, Execute)),
            ("{then: Abort, value: a, stringEquals: b}", (Abort, Skip)),
            ("{not: {binaryExists: tar, then: Execute, else: Skip}}", (Execute, Skip)),
            ("{not: [{binaryExists: tar, then: Abort}]}", (Abort, Skip)),
            ("[{fileExists: /x, then: Abort}]", (Abort, Skip)),
        ] {
            assert_eq!(guard(text).unwrap(), expected, "{text}");
        }
        let problem = |text: &str| guard(text).unwrap_err();
        insta::assert_snapshot!(problem("{fileExists: /x, then: skip}"), @"c:1:24: error: `then` is Execute, Skip or Abort (did you mean `Skip`?)");
        insta::assert_snapshot!(problem("{not: {fileExists: /x, then: Skip}, then: Skip}"), @"c:1:24: error: `then` is given twice");
        insta::assert_snapshot!(problem("[{fileExists: /x}, {fileExists: /y}]"), @"c:1:1: error: `if` has to be a map, and this is a list");
        insta::assert_snapshot!(problem("{and: [{fileExists: /x, then: Skip}, {fileExists: /y}]}"), @"c:1:25: error: a condition has no field `then`");
    }
}
