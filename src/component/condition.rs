//! Comparisons and logic, for `Assert`.
//!
//! AWS user guide, "Comparison operators" and "Logical operators". Read as "value OP baseline": `numberLessThan: 2` with
//! `value: 1` holds.

use goldsmith_agent::message::{Algorithm, Kind};
use regex::Regex;

use crate::document::decode::{Reader, Spanned, suggest};
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

/// Deepest nesting of logic.
const MAX_DEPTH: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    StringIsEmpty,
    StringIsWhitespace,
    StringEquals,
    StringLessThan,
    StringLessThanEquals,
    StringGreaterThan,
    StringGreaterThanEquals,
    PatternMatches,
    NumberEquals,
    NumberLessThan,
    NumberLessThanEquals,
    NumberGreaterThan,
    NumberGreaterThanEquals,
    BinaryExists,
    FileExists,
    FolderExists,
    FileDigest(Algorithm),
}

/// Names, and the key of the second operand where there is one.
const OPERATORS: [(&str, Operator, Option<&str>); 20] = [
    ("stringIsEmpty", Operator::StringIsEmpty, None),
    ("stringIsWhitespace", Operator::StringIsWhitespace, None),
    ("stringEquals", Operator::StringEquals, Some("value")),
    ("stringLessThan", Operator::StringLessThan, Some("value")),
    ("stringLessThanEquals", Operator::StringLessThanEquals, Some("value")),
    ("stringGreaterThan", Operator::StringGreaterThan, Some("value")),
    ("stringGreaterThanEquals", Operator::StringGreaterThanEquals, Some("value")),
    ("patternMatches", Operator::PatternMatches, Some("value")),
    ("numberEquals", Operator::NumberEquals, Some("value")),
    ("numberLessThan", Operator::NumberLessThan, Some("value")),
    ("numberLessThanEquals", Operator::NumberLessThanEquals, Some("value")),
    ("numberGreaterThan", Operator::NumberGreaterThan, Some("value")),
    ("numberGreaterThanEquals", Operator::NumberGreaterThanEquals, Some("value")),
    ("binaryExists", Operator::BinaryExists, None),
    ("fileExists", Operator::FileExists, None),
    ("folderExists", Operator::FolderExists, None),
    ("fileMD5Equals", Operator::FileDigest(Algorithm::Md5), Some("path")),
    ("fileSHA1Equals", Operator::FileDigest(Algorithm::Sha1), Some("path")),
    ("fileSHA256Equals", Operator::FileDigest(Algorithm::Sha256), Some("path")),
    ("fileSHA512Equals", Operator::FileDigest(Algorithm::Sha512), Some("path")),
];

const LOGIC: [&str; 3] = ["and", "or", "not"];

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

    /// The condition with every reference replaced.
    pub(super) fn resolve<E>(&self, value: &mut impl FnMut(&Reference) -> Result<String, E>) -> Result<Resolved, E> {
        Ok(match self {
            Self::Compare { operator, baseline, other } => Resolved::Compare {
                operator: *operator,
                baseline: baseline.resolve(&mut *value)?,
                other: other.as_ref().map(|other| other.resolve(&mut *value)).transpose()?.unwrap_or_default(),
            },
            Self::And(conditions) => Resolved::And(resolve_all(conditions, value)?),
            Self::Or(conditions) => Resolved::Or(resolve_all(conditions, value)?),
            Self::Not(condition) => Resolved::Not(Box::new(condition.resolve(value)?)),
        })
    }
}

fn resolve_all<E>(
    conditions: &[Condition],
    value: &mut impl FnMut(&Reference) -> Result<String, E>,
) -> Result<Vec<Resolved>, E> {
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
    /// Whether it holds in a guest.
    pub(super) async fn holds(&self, guest: &Guest) -> Result<bool, guest::Error> {
        match self {
            Self::Compare { operator, baseline, other } => match compare(*operator, baseline, other) {
                Some(verdict) => Ok(verdict),
                None => ask(guest, *operator, baseline, other).await,
            },
            Self::And(conditions) => {
                for condition in conditions {
                    if !Box::pin(condition.holds(guest)).await? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Self::Or(conditions) => {
                for condition in conditions {
                    if Box::pin(condition.holds(guest)).await? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Self::Not(condition) => Ok(!Box::pin(condition.holds(guest)).await?),
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
        let help = keys.iter().find_map(|key| suggest(key, &names));
        match help {
            Some(help) if given.is_empty() => reader.error_with_help(&node.span, "a condition needs an operator", help),
            _ if given.is_empty() => reader.error(&node.span, "a condition needs an operator"),
            _ => reader.error(&node.span, "a condition has one operator"),
        }
        return None;
    };
    let operand = fields.get(key)?;
    if key != canonical(&names, key)? {
        reader.warning(&operand.span, format!("`{key}` is written `{}`", canonical(&names, key)?));
    }
    let condition = match key {
        "and" | "or" => logic(reader, operand, key, depth, texts),
        "not" => {
            let operand = match &operand.value {
                Value::Sequence(items) if items.len() == 1 => &items[0],
                _ => operand,
            };
            decode(reader, operand, depth + 1, texts).map(|condition| Condition::Not(Box::new(condition)))
        }
        _ => comparison(reader, &mut fields, canonical(&names, key)?, operand, texts),
    };
    fields.finish(&[]);
    condition
}

fn scalar(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Scalar(scalar) => Some(&scalar.text),
        _ => None,
    }
}

/// Older pages of the guide write `stringlessThan`.
fn canonical<'a>(names: &[&'a str], key: &str) -> Option<&'a str> {
    names.iter().find(|name| name.eq_ignore_ascii_case(key)).copied()
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
    fields: &mut crate::document::decode::Fields<'_>,
    name: &str,
    operand: &Node,
    texts: &mut Vec<Spanned<String>>,
) -> Option<Condition> {
    let (_, operator, other_key) = OPERATORS.iter().find(|(known, ..)| *known == name)?;
    let mut text = |node: &Node, what: &str| {
        // An empty text is what `stringIsEmpty` is about.
        let text = match &node.value {
            Value::Scalar(scalar) => Spanned { value: scalar.text.clone(), span: node.span.clone() },
            _ => reader.text(node, what)?,
        };
        texts.push(text.clone());
        Some(Template::parse(&text.value))
    };
    let baseline = text(operand, name);
    let other = other_key.and_then(|key| fields.require(key).map(|node| (key, node)));
    let other = other.and_then(|(key, node)| text(node, key));
    if *operator == Operator::PatternMatches
        && let Some(pattern) = scalar(operand)
        && let Err(error) = Regex::new(pattern)
    {
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        reader.error(&operand.span, format!("this is no regular expression: {reason}"));
    }
    if other_key.is_some() && other.is_none() {
        return None;
    }
    Some(Condition::Compare { operator: *operator, baseline: baseline?, other })
}

/// What can be told without the guest.
fn compare(operator: Operator, baseline: &str, value: &str) -> Option<bool> {
    // Ordering is not case-sensitive, so says the guide; equality is, as its "exact match" suggests.
    let folded = || value.to_lowercase().cmp(&baseline.to_lowercase());
    let numbers = || Some((number(value)?, number(baseline)?));
    let numeric = |holds: fn(f64, f64) -> bool| numbers().is_some_and(|(value, baseline)| holds(value, baseline));
    Some(match operator {
        Operator::StringIsEmpty => baseline.is_empty(),
        Operator::StringIsWhitespace => !baseline.is_empty() && baseline.chars().all(char::is_whitespace),
        Operator::StringEquals => value == baseline,
        Operator::StringLessThan => folded().is_lt(),
        Operator::StringLessThanEquals => folded().is_le(),
        Operator::StringGreaterThan => folded().is_gt(),
        Operator::StringGreaterThanEquals => folded().is_ge(),
        Operator::PatternMatches => Regex::new(baseline).is_ok_and(|pattern| pattern.is_match(value)),
        Operator::NumberEquals => numeric(|value, baseline| value == baseline),
        Operator::NumberLessThan => numeric(|value, baseline| value < baseline),
        Operator::NumberLessThanEquals => numeric(|value, baseline| value <= baseline),
        Operator::NumberGreaterThan => numeric(|value, baseline| value > baseline),
        Operator::NumberGreaterThanEquals => numeric(|value, baseline| value >= baseline),
        Operator::BinaryExists | Operator::FileExists | Operator::FolderExists | Operator::FileDigest(_) => {
            return None;
        }
    })
}

/// `^[-+]?([0-9]+[.])?[0-9]+$`, as the guide has it; anything else is no number.
fn number(text: &str) -> Option<f64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or(("0", digits));
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    (is_digits(whole) && is_digits(fraction)).then(|| text.parse().ok()).flatten()
}

async fn ask(guest: &Guest, operator: Operator, baseline: &str, path: &str) -> Result<bool, guest::Error> {
    use goldsmith_agent::message::Exit;
    let is = async |kind: Kind| Ok(guest.stat(baseline, true).await?.is_some_and(|stat| stat.kind == kind));
    match operator {
        Operator::FileExists => is(Kind::File).await,
        Operator::FolderExists => is(Kind::Folder).await,
        Operator::BinaryExists => {
            let (exit, _) = guest.ask(&["bash", "-c", "type -- \"$1\"", "bash", baseline]).await?;
            Ok(exit == Exit::Code(0))
        }
        Operator::FileDigest(algorithm) => match guest.digest(path, algorithm).await {
            Ok(digest) => Ok(digest.eq_ignore_ascii_case(baseline)),
            // A file that is not there has no digest.
            Err(guest::Error::Refused(_)) => Ok(false),
            Err(error) => Err(error),
        },
        _ => Ok(false),
    }
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
        Ok(condition.resolve(&mut |_| Ok::<_, ()>(String::new())).unwrap())
    }

    fn verdict(text: &str) -> bool {
        fn eval(condition: &Resolved) -> bool {
            match condition {
                Resolved::Compare { operator, baseline, other } => compare(*operator, baseline, other).unwrap(),
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
            ("{and: [{stringEquals: a, value: a}, {not: {stringEquals: a, value: b}}]}", true),
            ("{or: [{stringEquals: a, value: b}, {not: [{stringEquals: a, value: b}]}]}", true),
        ] {
            assert_eq!(verdict(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        let problem = |text: &str| read(text).unwrap_err();
        insta::assert_snapshot!(problem("{stringEqual: a, value: b}"), @"c:1:1: error: a condition needs an operator (did you mean `stringEquals`?)");
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
}
