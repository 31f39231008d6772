//! Loops of steps: what they go through.
//!
//! AWS user guide, "Looping constructs". Values are texts; bounds are whole numbers and take part; a loop over numbers ends
//! at the last one that its step meets.

use std::ops::Range;

use super::decode::{Reader, Spanned};
use super::syntax::{Node, Value};

/// A step's loop.
#[derive(Debug, Clone)]
pub struct Loop {
    /// What references may call it, beside `loop`.
    pub name: Option<Spanned<String>>,
    /// What it goes through.
    pub over: Over,
}

/// What a loop goes through.
#[derive(Debug, Clone)]
pub enum Over {
    /// Numbers, bounds included.
    Numbers(Numbers),
    /// Items that the document lists.
    Items(Vec<Spanned<String>>),
    /// The parts of one text.
    Delimited {
        /// The text.
        list: Spanned<String>,
        /// What stands between the parts.
        delimiter: char,
    },
}

/// Numbers from one to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    start: i64,
    end: i64,
    step: i64,
}

/// Most iterations of a loop. None is documented; this keeps a slip of the pen from running for days.
pub const MAX_ITERATIONS: usize = 10_000;

const FIELDS: [&str; 3] = ["name", "for", "forEach"];
const DELIMITERS: [char; 9] = ['.', ',', ';', ':', '\n', '\t', ' ', '-', '_'];

impl Numbers {
    /// How many they are; none if the end is never reached.
    fn count(self) -> Option<u128> {
        let distance = i128::from(self.end) - i128::from(self.start);
        let step = i128::from(self.step);
        if step == 0 || (distance != 0 && (distance > 0) != (step > 0)) {
            return None;
        }
        Some((distance / step).unsigned_abs() + 1)
    }

    /// The numbers, as texts.
    pub fn texts(self) -> Vec<String> {
        let count = self.count().and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
        let mut texts = Vec::new();
        let mut number = i128::from(self.start);
        for _ in 0..count.min(MAX_ITERATIONS) {
            texts.push(number.to_string());
            number += i128::from(self.step);
        }
        texts
    }
}

/// Reads a loop.
pub fn decode(reader: &Reader, node: &Node) -> Option<Loop> {
    let mut fields = reader.map(node, "`loop`")?;
    let name = fields.text("name").filter(|name| !name.value.is_empty());
    if let Some(name) = &name
        && !name.value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    {
        let message = format!("`{}` is no name of a loop: letters, digits, hyphens or underscores", name.value);
        reader.error(&name.span, message);
    }
    let (numbers, each) = (fields.get("for"), fields.get("forEach"));
    fields.finish(&FIELDS);
    let over = match (numbers, each) {
        (Some(node), None) => Over::Numbers(decode_numbers(reader, node)?),
        (None, Some(node)) => decode_each(reader, node)?,
        (Some(_), Some(each)) => {
            reader.error(&each.span, "a loop has either `for` or `forEach`, not both");
            return None;
        }
        (None, None) => {
            let start = node.span.start;
            reader.error(&(start..start + 1), "a loop needs `for` or `forEach`");
            return None;
        }
    };
    Some(Loop { name, over })
}

fn decode_numbers(reader: &Reader, node: &Node) -> Option<Numbers> {
    let mut fields = reader.map(node, "`for`")?;
    let mut number = |name: &'static str| fields.require(name).and_then(|node| reader.integer(node, name));
    let (start, end, step) = (number("start"), number("end"), number("updateBy"));
    fields.finish(&["start", "end", "updateBy"]);
    let numbers = Numbers { start: start?, end: end?, step: step? };
    let problem = match numbers.count() {
        None if numbers.step == 0 => "`updateBy` is 0, so the loop would never end".to_owned(),
        None => format!("from {} by {} the loop would never reach {}", numbers.start, numbers.step, numbers.end),
        Some(count) => return within_bounds(reader, &node.span, count).then_some(numbers),
    };
    reader.error(&node.span, problem);
    None
}

fn within_bounds(reader: &Reader, span: &Range<usize>, count: u128) -> bool {
    let fits = count <= MAX_ITERATIONS as u128;
    if !fits {
        reader.error(span, format!("the loop has {count} iterations, and may have {MAX_ITERATIONS}"));
    }
    fits
}

fn decode_each(reader: &Reader, node: &Node) -> Option<Over> {
    if let Value::Mapping(_) = node.value {
        return decode_delimited(reader, node);
    }
    let items = reader.list(node, "forEach")?;
    if items.is_empty() {
        reader.error(&node.span, "`forEach` is empty");
    }
    if !within_bounds(reader, &node.span, items.len() as u128) {
        return None;
    }
    Some(Over::Items(items.iter().filter_map(|item| reader.text(item, "forEach")).collect()))
}

fn decode_delimited(reader: &Reader, node: &Node) -> Option<Over> {
    let mut fields = reader.map(node, "`forEach`")?;
    let list = fields.require("list").and_then(|node| reader.any_text(node, "list"));
    let delimiter = match fields.get("delimiter") {
        None => Some(','),
        Some(node) => reader.any_text(node, "delimiter").and_then(|text| decode_delimiter(reader, &text)),
    };
    fields.finish(&["list", "delimiter"]);
    Some(Over::Delimited { list: list?, delimiter: delimiter? })
}

fn decode_delimiter(reader: &Reader, text: &Spanned<String>) -> Option<char> {
    let delimiter = match text.value.as_str() {
        // In a plain or single-quoted scalar an escape stays as it is written.
        "\\n" => Some('\n'),
        "\\t" => Some('\t'),
        other => other.chars().next().filter(|c| other.len() == c.len_utf8() && DELIMITERS.contains(c)),
    };
    if delimiter.is_none() {
        let message = format!(
            "`delimiter` is one of . , ; : - _, a space, a tab (\\t) or a newline (\\n), not `{}`",
            text.value.escape_debug()
        );
        reader.error(&text.span, message);
    }
    delimiter
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::decode::Strictness;
    use super::super::syntax::{Source, parse};
    use super::*;

    fn read(text: &str) -> Result<Loop, String> {
        let source = Source::new("c", text);
        let node = parse(&source).unwrap();
        let reader = Reader::new(source, Strictness::Strict);
        let read = decode(&reader, &node);
        reader.finish(read).map(|(read, _)| read).map_err(|report| report.to_string())
    }

    fn numbers(text: &str) -> String {
        match read(&format!("for: {{ {text} }}")).unwrap().over {
            Over::Numbers(numbers) => numbers.texts().join(" "),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn bounds_take_part_and_a_step_may_miss_the_end() {
        assert_eq!(numbers("start: 0, end: 10, updateBy: 5"), "0 5 10");
        assert_eq!(numbers("start: 0, end: 9, updateBy: 5"), "0 5");
        assert_eq!(numbers("start: 3, end: -3, updateBy: -2"), "3 1 -1 -3");
        assert_eq!(numbers("start: 7, end: 7, updateBy: 3"), "7");
        assert_eq!(numbers("start: 7, end: 7, updateBy: -3"), "7");
    }

    #[test]
    fn what_is_no_loop_is_refused() {
        let problem = |text: &str| read(text).unwrap_err();
        insta::assert_snapshot!(problem("{}"), @"c:1:1: error: a loop needs `for` or `forEach`");
        insta::assert_snapshot!(problem("{for: {start: 1, end: 2, updateBy: 1}, forEach: [a]}"), @"c:1:49: error: a loop has either `for` or `forEach`, not both");
        insta::assert_snapshot!(problem("{for: {start: 1, end: 2, updateBy: 0}}"), @"c:1:7: error: `updateBy` is 0, so the loop would never end");
        insta::assert_snapshot!(problem("{for: {start: 1, end: 2, updateBy: -1}}"), @"c:1:7: error: from 1 by -1 the loop would never reach 2");
        insta::assert_snapshot!(problem("{for: {start: 2, end: 1, updateBy: 1}}"), @"c:1:7: error: from 2 by 1 the loop would never reach 1");
        insta::assert_snapshot!(problem("{for: {start: 0, end: 9223372036854775807, updateBy: 1}}"), @"c:1:7: error: the loop has 9223372036854775808 iterations, and may have 10000");
        insta::assert_snapshot!(problem("{for: {start: '{{ A }}', end: 1, updateBy: one}}"), @"
        c:1:15: error: `start` has to be a whole number, and this is `{{ A }}`
        c:1:44: error: `updateBy` has to be a whole number, and this is `one`
        ");
        insta::assert_snapshot!(problem("{for: {start: 1, end: 1}}"), @"c:1:7: error: `for` needs the field `updateBy`");
        insta::assert_snapshot!(problem("{forEach: []}"), @"c:1:11: error: `forEach` is empty");
        insta::assert_snapshot!(problem("{forEach: {list: a, delimiter: '|'}}"), @r"c:1:32: error: `delimiter` is one of . , ; : - _, a space, a tab (\t) or a newline (\n), not `|`");
        insta::assert_snapshot!(problem("{forEach: {delimiter: ','}, name: 'a b'}"), @"
        c:1:11: error: `forEach` needs the field `list`
        c:1:35: error: `a b` is no name of a loop: letters, digits, hyphens or underscores
        ");
    }

    proptest! {
        #[test]
        fn numbers_stay_within_their_bounds(start: i64, end: i64, step: i64) {
            let numbers = Numbers { start, end, step };
            let texts = numbers.texts();
            prop_assert!(texts.len() <= MAX_ITERATIONS);
            let (least, most) = (start.min(end), start.max(end));
            for text in texts {
                let number: i64 = text.parse().unwrap();
                prop_assert!((least..=most).contains(&number));
            }
        }
    }
}
