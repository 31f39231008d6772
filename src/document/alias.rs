//! Tables of what AWS calls a parent, and of the base images that stand in for it.

use std::sync::Arc;

use super::decode::{Fields, Reader, Strictness};
use super::diagnostic::Report;
use super::syntax::{self, Source};

/// A name of AWS's and what it means here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// What is named.
    pub kind: Kind,
    /// Its name; of a parameter with `*` for any run of characters.
    pub name: String,
    /// The base image.
    pub base: String,
}

/// What AWS names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An image of Image Builder's, by its name in an ARN.
    Image,
    /// A parameter of Systems Manager's, which holds an AMI's id.
    Parameter,
    /// An AMI, by its id.
    Ami,
}

impl Alias {
    /// Whether it is about this name.
    pub fn means(&self, kind: Kind, name: &str) -> bool {
        self.kind == kind && if kind == Kind::Parameter { matches(&self.name, name) } else { self.name == name }
    }
}

impl std::fmt::Display for Alias {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            Kind::Image => write!(f, "image/{}", self.name),
            Kind::Parameter => write!(f, "ssm:{}", self.name),
            Kind::Ami => f.write_str(&self.name),
        }
    }
}

/// Longest pattern and name that are compared: those of Systems Manager have 2048 characters at most.
const MAX_NAME: usize = 2048;

/// Whether a name matches a pattern, in time proportional to both: a table may come from anybody.
fn matches(pattern: &str, name: &str) -> bool {
    if pattern.len() > MAX_NAME || name.len() > MAX_NAME {
        return false;
    }
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|head| name.strip_prefix(head)) else { return false };
    let Some((last, middle)) = parts.collect::<Vec<_>>().split_last().map(|(last, middle)| (*last, middle.to_vec()))
    else {
        return rest.is_empty();
    };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Reads a table.
pub fn decode(source: &Arc<Source>) -> Result<Vec<Alias>, Report> {
    let root = syntax::parse(source)?;
    let reader = Reader::new(source.clone(), Strictness::Strict);
    let aliases = reader.map(&root, "a table of aliases").map(|fields| table(&reader, fields));
    reader.finish(aliases).map(|(aliases, _)| aliases)
}

fn table(reader: &Reader, mut fields: Fields<'_>) -> Vec<Alias> {
    let mut aliases = Vec::new();
    for (field, kind) in [("images", Kind::Image), ("parameters", Kind::Parameter), ("amis", Kind::Ami)] {
        let Some(entries) = fields.get(field).and_then(|node| reader.map(node, format!("`{field}`"))) else { continue };
        for (name, value) in entries.all() {
            if kind == Kind::Ami && !name.value.starts_with("ami-") {
                reader.error(&name.span, format!("`{}` is no id of an AMI: ami- and hexadecimal digits", name.value));
            }
            let base = reader.text(value, field).map(|base| base.value);
            aliases.extend(base.map(|base| Alias { kind, name: name.value, base }));
        }
    }
    fields.finish(&["images", "parameters", "amis"]);
    aliases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_run_of_characters() {
        for (pattern, name, expected) in [
            ("/a/b", "/a/b", true),
            ("/a/b", "/a/b/c", false),
            ("/a/*", "/a/", true),
            ("/a/*/c", "/a/b/b/c", true),
            ("/a/*/c", "/a/c", false),
            ("*a*a*", "a", false),
            ("*a*a*", "xaya", true),
            ("é*", "été", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_table_is_read_whole() {
        let text = "images: { web: debian-12, Web: [x] }\namis: { i-0: debian-12 }\nparameter: {}\n";
        insta::assert_snapshot!(decode(&Source::new("aliases.yaml", text)).unwrap_err(), @"
        aliases.yaml:1:32: error: `images` has to be a text, and this is a list
        aliases.yaml:2:9: error: `i-0` is no id of an AMI: ami- and hexadecimal digits
        aliases.yaml:3:1: error: a table of aliases has no field `parameter` (did you mean `parameters`?)
        ");
        let aliases = decode(&Source::new("aliases.yaml", "parameters: { /a*: debian-12 }\namis: {}\n")).unwrap();
        assert!(aliases[0].means(Kind::Parameter, "/abc") && !aliases[0].means(Kind::Image, "/abc"));
    }
}
