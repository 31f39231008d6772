//! Requests of the query protocol: parameters in a form, whose names are paths. Only what an action knows may be sent.

use std::collections::{BTreeMap, BTreeSet};

use super::answer::{Outcome, Refusal, refuse};
use super::signature::decode;

/// More parameters than any action needs.
const LIMIT: usize = 2000;

/// The parameters of a request, or those of them that stand below a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Query(BTreeMap<String, String>);

/// A parameter that an action knows. A `#` in its path is the place in a list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    path: &'static str,
    is_needed: bool,
    kind: Kind,
}

/// What a parameter's value may be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// Text of so many characters.
    Text(usize, usize),
    Bool,
    Int(i64, i64),
    /// A number that may have a fraction.
    Number,
    OneOf(&'static [&'static str]),
    /// The id of a resource, by its prefix.
    Id(&'static str),
    Time,
    /// Something of AWS that the stand-in does not have. It must not be taken and then forgotten.
    Lacking,
}

impl Field {
    /// Its path, whether it is needed, and the only values it may have, if there is such a list: for comparing with a
    /// model of the service.
    pub(super) fn described(&self) -> serde_json::Value {
        let values = if let Kind::OneOf(values) = self.kind { Some(values) } else { None };
        serde_json::json!([self.path, self.is_needed, values])
    }
}

/// Text of any length.
pub(super) const TEXT: Kind = Kind::Text(0, usize::MAX);

/// A parameter that may be left out.
pub(super) const fn may(path: &'static str, kind: Kind) -> Field {
    Field { path, is_needed: false, kind }
}

/// A parameter that has to be there.
pub(super) const fn must(path: &'static str, kind: Kind) -> Field {
    Field { path, is_needed: true, kind }
}

impl Query {
    /// Reads a form.
    pub(super) fn parse(body: &[u8]) -> Outcome<Self> {
        let Ok(text) = std::str::from_utf8(body) else { return refuse("MalformedQueryString", "the body is no text") };
        let mut map = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let Some((name, value)) = pair.split_once('=') else {
                return refuse("MalformedQueryString", format!("`{pair}` has no value"));
            };
            let plain = |text: &str| decode(&text.replace('+', " "));
            if map.insert(plain(name), plain(value)).is_some() {
                return refuse("InvalidParameterCombination", format!("The parameter {} is given twice", plain(name)));
            }
        }
        if map.len() > LIMIT {
            return refuse("RequestLimitExceeded", "Too many parameters");
        }
        Ok(Self(map))
    }

    /// A value.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A value that `check` has found to be there.
    pub(super) fn text(&self, name: &str) -> String {
        self.get(name).unwrap_or_default().to_owned()
    }

    /// A value that is text, owned.
    pub(super) fn maybe(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    /// A value that `check` has found to be true or false.
    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        self.get(name).map(|value| value.eq_ignore_ascii_case("true"))
    }

    /// A value that `check` has found to be a number.
    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.get(name).and_then(|value| value.parse().ok())
    }

    /// What stands below a name. The name's own value is under the empty name there.
    pub(super) fn under(&self, name: &str) -> Self {
        let below = |(path, value): (&String, &String)| {
            let rest = path.strip_prefix(name)?;
            let rest = if rest.is_empty() { rest } else { rest.strip_prefix('.')? };
            Some((rest.to_owned(), value.clone()))
        };
        Self(self.0.iter().filter_map(below).collect())
    }

    /// The members of a list.
    pub(super) fn list(&self, name: &str) -> Vec<Self> {
        let list = self.under(name);
        let member = |at: usize| Some(list.under(&at.to_string())).filter(|member| !member.is_empty());
        (1..).map_while(member).collect()
    }

    /// The values in a list.
    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        self.list(name).iter().map(|member| member.text("")).collect()
    }

    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first parts of all names.
    pub(super) fn names(&self) -> BTreeSet<&str> {
        self.0.keys().map(|path| path.split_once('.').map_or(&**path, |(first, _)| first)).collect()
    }

    /// These parameters over others: what is below a name that both have is this one's.
    pub(super) fn over(&self, other: &Self) -> Self {
        let mine = self.names();
        let is_kept = |path: &str| !mine.contains(path.split_once('.').map_or(path, |(first, _)| first));
        let kept = other.0.iter().filter(|(path, _)| is_kept(path));
        Self(kept.chain(&self.0).map(|(path, value)| (path.clone(), value.clone())).collect())
    }

    /// All of it without some parameters, for telling one request from another.
    pub(super) fn fingerprint(&self, without: &[&str]) -> String {
        let kept: Vec<_> = self.0.iter().filter(|(path, _)| !without.contains(&&***path)).collect();
        format!("{kept:?}")
    }

    /// Whether an action knows all of this, its values are possible ones, and nothing is missing.
    pub(super) fn check(&self, fields: &[Field]) -> Outcome<()> {
        for (path, value) in &self.0 {
            let parts: Vec<&str> = path.split('.').collect();
            let is_place = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit());
            let pattern: Vec<&str> = parts.iter().map(|part| if is_place(part) { "#" } else { part }).collect();
            let pattern = pattern.join(".");
            let Some(field) = fields.iter().find(|field| field.path == pattern) else {
                return refuse("UnknownParameter", format!("The parameter {path} is not recognized"));
            };
            field.kind.check(path, value)?;
            for (at, part) in parts.iter().enumerate().filter(|(_, part)| is_place(part)) {
                self.check_place(&parts[..at], part)?;
            }
        }
        let is_there = |field: &Field| {
            let first = field.path.split(".#").next().unwrap_or_default();
            !self.under(first).is_empty()
        };
        match fields.iter().find(|field| field.is_needed && !is_there(field)) {
            Some(field) => {
                let name = field.path.split(".#").next().unwrap_or_default();
                refuse("MissingParameter", format!("The request must contain the parameter {name}"))
            }
            None => Ok(()),
        }
    }

    /// Lists begin at one and have no gaps: a parameter behind a gap would be lost.
    fn check_place(&self, list: &[&str], place: &str) -> Outcome<()> {
        let list = list.join(".");
        let before = place.parse::<usize>().ok().and_then(|place| place.checked_sub(1));
        match before {
            Some(0) => Ok(()),
            Some(before) if !self.under(&format!("{list}.{before}")).is_empty() => Ok(()),
            _ => refuse("InvalidParameterValue", format!("{list}.{place} is in no list that begins at 1 without gaps")),
        }
    }
}

impl Kind {
    fn check(self, path: &str, value: &str) -> Outcome<()> {
        let length = value.chars().count();
        let is_good = match self {
            Self::Text(shortest, longest) => (shortest..=longest).contains(&length),
            Self::Bool => ["true", "false"].contains(&&*value.to_ascii_lowercase()),
            Self::Int(least, most) => value.parse().is_ok_and(|value: i64| (least..=most).contains(&value)),
            Self::Number => value.parse::<f64>().is_ok_and(f64::is_finite),
            Self::OneOf(known) => known.contains(&value),
            Self::Id(prefix) => return check_id(prefix, value),
            Self::Time => value.parse::<jiff::Timestamp>().is_ok(),
            Self::Lacking => {
                let message = format!("AWS knows {path}; the stand-in does not carry it out");
                return Err(Refusal::new("StandInLacks", message).status(501));
            }
        };
        if is_good {
            return Ok(());
        }
        refuse("InvalidParameterValue", format!("Value ({value}) for parameter {path} is invalid"))
    }
}

/// An id is its prefix and 8 or 17 hexadecimal digits.
fn check_id(prefix: &str, value: &str) -> Outcome<()> {
    let digits = value.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-'));
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if digits.is_some_and(|digits| [8, 17].contains(&digits.len()) && digits.bytes().all(is_digit)) {
        return Ok(());
    }
    let code = match prefix {
        "ami" => "InvalidAMIID.Malformed",
        "snap" => "InvalidSnapshotID.Malformed",
        "lt" => "InvalidLaunchTemplateId.Malformed",
        "import-snap" => "InvalidConversionTaskId.Malformed",
        _ => "InvalidID",
    };
    refuse(code, format!("Invalid id: \"{value}\" (expecting \"{prefix}-...\")"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: &[Field] = &[
        must("Name", Kind::Text(3, 8)),
        may("Flag", Kind::Bool),
        may("Id", Kind::Id("ami")),
        may("Mapping.#.Ebs.Size", Kind::Int(1, 9)),
        may("Mapping.#.Kind", Kind::OneOf(&["a", "b"])),
        may("Later", Kind::Lacking),
    ];

    fn code(form: &str) -> String {
        let checked = Query::parse(form.as_bytes()).and_then(|query| query.check(FIELDS));
        checked.err().map_or_else(|| "good".to_owned(), |refusal| refusal.code)
    }

    #[test]
    fn only_what_is_known_is_taken() {
        for (form, expected) in [
            ("Name=a+b%2B", "good"),
            ("Name=abc&Flag=true&Id=ami-0123456789abcdef0&Mapping.1.Ebs.Size=9&Mapping.2.Kind=b", "good"),
            ("Flag=true", "MissingParameter"),
            ("Name=ab", "InvalidParameterValue"),
            ("Name=abc&Nmae=1", "UnknownParameter"),
            ("Name=abc&Name.1=1", "UnknownParameter"),
            ("Name=abc&Flag=yes", "InvalidParameterValue"),
            ("Name=abc&Id=ami-xyz", "InvalidAMIID.Malformed"),
            ("Name=abc&Mapping.1.Ebs.Size=10", "InvalidParameterValue"),
            ("Name=abc&Mapping.2.Kind=b", "InvalidParameterValue"),
            ("Name=abc&Mapping.0.Kind=b", "InvalidParameterValue"),
            ("Name=abc&Mapping.1.Kind=c", "InvalidParameterValue"),
            ("Name=abc&Mapping.1.kind=a", "UnknownParameter"),
            ("Name=abc&Later=1", "StandInLacks"),
            ("Name=abc&Name=abc", "InvalidParameterCombination"),
            ("Name", "MalformedQueryString"),
        ] {
            assert_eq!(code(form), expected, "{form}");
        }
    }

    #[test]
    fn lists_and_what_is_below_them() {
        let query = Query::parse(b"Tag.1.Key=a&Tag.2.Key=b&Tag.10.Key=j&Id.1=x&Id.2=y&A.B=1&A.C=2").unwrap();
        assert_eq!(query.list("Tag").len(), 2, "a list ends at its first gap");
        assert_eq!(query.texts("Id"), ["x", "y"]);
        assert_eq!(query.under("A").get("C"), Some("2"));
        let other = Query::parse(b"A.D=3&Z=4").unwrap();
        let merged = query.under("none").over(&other);
        assert_eq!(merged, other);
        let merged = query.over(&other);
        assert_eq!((merged.get("A.D"), merged.get("Z")), (None, Some("4")));
    }
}
