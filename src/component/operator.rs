//! Comparisons, one by one. Read as "value OP baseline": `numberLessThan: 2` with `value: 1` holds.
//!
//! AWS user guide, "Comparison operators". Where it contradicts itself the switches below say what is done.

use std::cmp::Ordering;

use goldsmith_agent::message::Algorithm;
use regex::{Regex, RegexBuilder};

/// Whether order looks at the case of letters. The guide says that it does not.
const ORDER_IS_CASE_SENSITIVE: bool = false;
/// Whether equality does: the guide calls it an exact match.
const EQUALITY_IS_CASE_SENSITIVE: bool = true;
/// Whether patterns do, as regular expressions usually do.
const PATTERNS_ARE_CASE_SENSITIVE: bool = true;
/// Largest regular expression, in bytes of its compiled form.
const MAX_PATTERN: usize = 1 << 20;

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    StringIsEmpty,
    StringIsWhitespace,
    StringEquals,
    StringOrder(Order),
    PatternMatches,
    NumberEquals,
    NumberOrder(Order),
    BinaryExists,
    FileExists,
    FolderExists,
    FileDigest(Algorithm),
}

/// How a value has to stand to a baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Names, and the key of the second operand where there is one.
pub(super) const OPERATORS: [(&str, Operator, Option<&str>); 20] = [
    ("stringIsEmpty", Operator::StringIsEmpty, None),
    ("stringIsWhitespace", Operator::StringIsWhitespace, None),
    ("stringEquals", Operator::StringEquals, Some("value")),
    ("stringLessThan", Operator::StringOrder(Order::Less), Some("value")),
    ("stringLessThanEquals", Operator::StringOrder(Order::LessOrEqual), Some("value")),
    ("stringGreaterThan", Operator::StringOrder(Order::Greater), Some("value")),
    ("stringGreaterThanEquals", Operator::StringOrder(Order::GreaterOrEqual), Some("value")),
    ("patternMatches", Operator::PatternMatches, Some("value")),
    ("numberEquals", Operator::NumberEquals, Some("value")),
    ("numberLessThan", Operator::NumberOrder(Order::Less), Some("value")),
    ("numberLessThanEquals", Operator::NumberOrder(Order::LessOrEqual), Some("value")),
    ("numberGreaterThan", Operator::NumberOrder(Order::Greater), Some("value")),
    ("numberGreaterThanEquals", Operator::NumberOrder(Order::GreaterOrEqual), Some("value")),
    ("binaryExists", Operator::BinaryExists, None),
    ("fileExists", Operator::FileExists, None),
    ("folderExists", Operator::FolderExists, None),
    ("fileMD5Equals", Operator::FileDigest(Algorithm::Md5), Some("path")),
    ("fileSHA1Equals", Operator::FileDigest(Algorithm::Sha1), Some("path")),
    ("fileSHA256Equals", Operator::FileDigest(Algorithm::Sha256), Some("path")),
    ("fileSHA512Equals", Operator::FileDigest(Algorithm::Sha512), Some("path")),
];

impl Operator {
    /// Whether it compares numbers.
    pub(super) fn is_numeric(self) -> bool {
        matches!(self, Self::NumberEquals | Self::NumberOrder(_))
    }

    /// What can be told without the guest.
    pub(super) fn compare(self, baseline: &str, value: &str) -> Option<bool> {
        Some(match self {
            Self::StringIsEmpty => baseline.is_empty(),
            Self::StringIsWhitespace => !baseline.is_empty() && baseline.chars().all(char::is_whitespace),
            Self::StringEquals if EQUALITY_IS_CASE_SENSITIVE => value == baseline,
            Self::StringEquals => value.to_lowercase() == baseline.to_lowercase(),
            Self::StringOrder(order) if ORDER_IS_CASE_SENSITIVE => order.holds(value.cmp(baseline)),
            Self::StringOrder(order) => order.holds(value.to_lowercase().cmp(&baseline.to_lowercase())),
            Self::PatternMatches => pattern(baseline).is_ok_and(|pattern| pattern.is_match(value)),
            // What is no number compares with nothing, and that is no error.
            Self::NumberEquals => compare_numbers(value, baseline) == Some(Ordering::Equal),
            Self::NumberOrder(order) => compare_numbers(value, baseline).is_some_and(|ordering| order.holds(ordering)),
            Self::BinaryExists | Self::FileExists | Self::FolderExists | Self::FileDigest(_) => return None,
        })
    }
}

impl Order {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

/// A regular expression, or what is wrong with it. Like Go's, it matches in time that grows with the text only.
pub(super) fn pattern(text: &str) -> Result<Regex, String> {
    let mut builder = RegexBuilder::new(text);
    builder.case_insensitive(!PATTERNS_ARE_CASE_SENSITIVE).size_limit(MAX_PATTERN).build().map_err(|error| {
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        format!("this is no regular expression: {reason}")
    })
}

/// A number in decimal digits, of any length: `[-+]?([0-9]+[.])?[0-9]+`, as the guide has it.
struct Number<'a> {
    is_negative: bool,
    whole: &'a str,
    fraction: &'a str,
}

impl<'a> Number<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (whole, fraction) = match digits.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (digits, None),
        };
        let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !is_digits(whole) || !fraction.is_none_or(is_digits) {
            return None;
        }
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.unwrap_or_default().trim_end_matches('0'));
        let is_zero = whole.is_empty() && fraction.is_empty();
        Some(Self { is_negative: text.starts_with('-') && !is_zero, whole, fraction })
    }

    fn cmp(&self, other: &Self) -> Ordering {
        if self.is_negative != other.is_negative {
            return other.is_negative.cmp(&self.is_negative);
        }
        let size = self.whole.len().cmp(&other.whole.len());
        let size = size.then_with(|| self.whole.cmp(other.whole)).then_with(|| self.fraction.cmp(other.fraction));
        if self.is_negative { size.reverse() } else { size }
    }
}

fn compare_numbers(value: &str, baseline: &str) -> Option<Ordering> {
    Some(Number::parse(value)?.cmp(&Number::parse(baseline)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_of_any_length_are_compared() {
        for (value, baseline, expected) in [
            ("1", "1.0", Some(Ordering::Equal)),
            ("+007.50", "7.5", Some(Ordering::Equal)),
            ("-0", "0", Some(Ordering::Equal)),
            ("-2", "-10", Some(Ordering::Greater)),
            ("0.09", "0.1", Some(Ordering::Less)),
            ("9007199254740993", "9007199254740992", Some(Ordering::Greater)),
            ("one", "1", None),
            (".5", "1", None),
            ("1.", "1", None),
            ("", "1", None),
            ("1e3", "1000", None),
        ] {
            assert_eq!(compare_numbers(value, baseline), expected, "{value} {baseline}");
        }
    }

    proptest! {
        #[test]
        fn numbers_compare_as_numbers(a in -1_000_000_i64..1_000_000, b in -1_000_000_i64..1_000_000) {
            prop_assert_eq!(compare_numbers(&a.to_string(), &b.to_string()), Some(a.cmp(&b)));
            let decimal = |n: i64| format!("{}{}.{:03}", if n < 0 { "-" } else { "" }, n.abs() / 1000, n.abs() % 1000);
            prop_assert_eq!(compare_numbers(&decimal(a), &decimal(b)), Some(a.cmp(&b)));
        }

        #[test]
        fn no_text_panics(operator in 0..OPERATORS.len(), baseline in "\\PC{0,20}", value in "\\PC{0,20}") {
            OPERATORS[operator].1.compare(&baseline, &value);
        }
    }
}
