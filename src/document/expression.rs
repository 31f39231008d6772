//! References in texts: `{{ build.Step.outputs.stdout }}`, `{{ Parameter }}`.
//!
//! AWS user guide, "Use variables in your custom component document" and "Input and output chaining". Text in double
//! braces that does not have the shape of a reference, such as `docker ps --format '{{.Names}}'` or a Jinja expression,
//! is left as it is.

use std::ops::Range;

/// A text with references in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Its parts, in order.
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Reference { reference: Reference, range: Range<usize> },
}

/// What a reference refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// A parameter or constant.
    Name(String),
    /// An input or output of a step.
    Chained {
        /// The phase.
        phase: String,
        /// The step.
        step: String,
        /// Which side of the step.
        side: Side,
        /// Which of a list module's elements.
        index: Option<usize>,
        /// The input's or output's name.
        key: String,
    },
    /// The current iteration of a loop: `loop.value`.
    Loop {
        /// The loop's name; every loop can be called `loop`.
        name: String,
        /// What of the iteration.
        part: LoopPart,
    },
    /// A variable of the environment: `env:HOME`.
    Environment(String),
    /// Something of the machine's metadata service: `aws:imds:instance-id`.
    Metadata(String),
    /// A value of the Parameter Store: `aws:ssm:/path/name`.
    Stored(Stored),
    /// Something of the run: `context:date`.
    Context(String),
    /// What begins as a reference does, and is none.
    Unknown(String),
}

/// What of a loop's iteration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoopPart {
    /// Its number, from 0.
    Index,
    /// Its item.
    Value,
}

/// How a value of the Parameter Store is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// By its name there.
    Name(String),
    /// By what a parameter or constant of the document says.
    Parameter(String),
    /// By what another value of the store says.
    Stored(Box<Stored>),
}

/// Which side of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// What it was given.
    Inputs,
    /// What it produced.
    Outputs,
}

/// Longest text between braces, in bytes: names of three things and of an input, or of a value in the Parameter Store,
/// which has at most 2048.
const MAX_REFERENCE: usize = 4096;
/// How often the name of a stored value may be stored itself.
const MAX_RESOLVE: usize = 3;

impl Template {
    /// Reads a text.
    pub fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let (mut rest, mut close) = (0, 0);
        while let Some(open) = text[rest..].find("{{").map(|at| rest + at) {
            // The same end may serve many beginnings; looking for it anew each time would take for ever.
            if close < open + 2 {
                match text[open + 2..].find("}}") {
                    Some(at) => close = open + 2 + at,
                    None => break,
                }
            }
            let inner = Some(&text[open + 2..close]).filter(|inner| inner.len() <= MAX_REFERENCE);
            let Some(reference) = inner.and_then(|inner| reference(inner.trim())) else {
                literal.push_str(&text[rest..open + 2]);
                rest = open + 2;
                continue;
            };
            literal.push_str(&text[rest..open]);
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(Part::Reference { reference, range: open..close + 2 });
            rest = close + 2;
        }
        literal.push_str(&text[rest..]);
        if !literal.is_empty() || parts.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Self { parts }
    }

    /// The references, and where in the text they stand.
    pub fn references(&self) -> impl Iterator<Item = (&Reference, Range<usize>)> {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::Reference { reference, range } => Some((reference, range.clone())),
        })
    }

    /// Turns references into the text that they are written as, for good.
    pub fn keep_verbatim(&mut self, text: &str, verbatim: impl Fn(&Reference) -> bool) {
        for part in &mut self.parts {
            if let Part::Reference { reference, range } = part
                && verbatim(reference)
            {
                *part = Part::Literal(text[range.clone()].to_owned());
            }
        }
    }

    /// The text with every reference replaced, once: what comes in is not looked through for references again.
    pub fn resolve<E>(&self, mut value: impl FnMut(&Reference) -> Result<String, E>) -> Result<String, E> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Reference { reference, .. } => text.push_str(&value(reference)?),
            }
        }
        Ok(text)
    }
}

/// What stands between braces as a reference, if it has the shape of one.
fn reference(text: &str) -> Option<Reference> {
    if let Some(name) = text.strip_prefix("env:") {
        return Some(known(name, text, Reference::Environment));
    }
    if let Some(key) = text.strip_prefix("context:") {
        return Some(known(key, text, Reference::Context));
    }
    if let Some(path) = text.strip_prefix("aws:imds:") {
        return Some(known(path, text, Reference::Metadata));
    }
    if text.starts_with("aws:") {
        let stored = stored(text, 0);
        return Some(stored.map_or_else(|| Reference::Unknown(text.to_owned()), Reference::Stored));
    }
    let parts: Vec<&str> = text.splitn(5, '.').collect();
    match parts.as_slice() {
        [name] if is_name(name) => Some(Reference::Name((*name).to_owned())),
        [name, part @ ("index" | "value")] if is_name(name) => {
            let part = if *part == "index" { LoopPart::Index } else { LoopPart::Value };
            Some(Reference::Loop { name: (*name).to_owned(), part })
        }
        [phase, step, side, key] if [phase, step, key].iter().all(|name| is_name(name)) => {
            let (side, index) = side_and_index(side)?;
            let [phase, step, key] = [phase, step, key].map(|&name| name.to_owned());
            Some(Reference::Chained { phase, step, side, index, key })
        }
        _ => None,
    }
}

/// A reference behind a prefix, which has to name something.
fn known(name: &str, text: &str, make: impl FnOnce(String) -> Reference) -> Reference {
    if name.is_empty() { Reference::Unknown(text.to_owned()) } else { make(name.to_owned()) }
}

/// `aws:ssm:NAME`, or `aws:ssm:resolve(X)` where `X` is a parameter's name or again one of these.
fn stored(text: &str, depth: usize) -> Option<Stored> {
    let name = text.strip_prefix("aws:ssm:").filter(|name| !name.is_empty() && depth <= MAX_RESOLVE)?;
    let Some(inner) = name.strip_prefix("resolve(") else {
        return (!name.contains(['(', ')'])).then(|| Stored::Name(name.to_owned()));
    };
    let inner = inner.strip_suffix(')')?.trim();
    if is_name(inner) {
        return Some(Stored::Parameter(inner.to_owned()));
    }
    stored(inner, depth + 1).map(|stored| Stored::Stored(Box::new(stored)))
}

fn side_and_index(text: &str) -> Option<(Side, Option<usize>)> {
    let (side, index) = match text.split_once('[') {
        Some((side, index)) => (side, Some(index.strip_suffix(']')?.trim().parse().ok()?)),
        None => (text, None),
    };
    match side {
        "inputs" => Some((Side::Inputs, index)),
        "outputs" => Some((Side::Outputs, index)),
        _ => None,
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(text) | Self::Unknown(text) => f.write_str(text),
            Self::Loop { name, part: LoopPart::Index } => write!(f, "{name}.index"),
            Self::Loop { name, part: LoopPart::Value } => write!(f, "{name}.value"),
            Self::Environment(name) => write!(f, "env:{name}"),
            Self::Metadata(path) => write!(f, "aws:imds:{path}"),
            Self::Context(key) => write!(f, "context:{key}"),
            Self::Stored(stored) => stored.fmt(f),
            Self::Chained { phase, step, side, index, key } => {
                let side = match side {
                    Side::Inputs => "inputs",
                    Side::Outputs => "outputs",
                };
                match index {
                    Some(index) => write!(f, "{phase}.{step}.{side}[{index}].{key}"),
                    None => write!(f, "{phase}.{step}.{side}.{key}"),
                }
            }
        }
    }
}

impl std::fmt::Display for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => write!(f, "aws:ssm:{name}"),
            Self::Parameter(name) => write!(f, "aws:ssm:resolve({name})"),
            Self::Stored(stored) => write!(f, "aws:ssm:resolve({stored})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> String {
        let resolved = Template::parse(text).resolve(|reference| Ok::<_, ()>(format!("<{reference}>")));
        resolved.unwrap()
    }

    #[test]
    fn references_of_every_shape_are_found() {
        for (text, expected) in [
            ("plain", "plain"),
            ("", ""),
            ("{{ Port }}", "<Port>"),
            ("a {{Port}} b {{ build.Get-It.outputs.stdout }} c", "a <Port> b <build.Get-It.outputs.stdout> c"),
            ("{{ build.Get.inputs[0].destination }}", "<build.Get.inputs[0].destination>"),
            ("{{ build.Get.outputs[ 1 ].x }}", "<build.Get.outputs[1].x>"),
            ("{{ loop.value }}{{ MyLoop.index }}", "<loop.value><MyLoop.index>"),
            ("{{ aws:ssm:/a/b }}", "<aws:ssm:/a/b>"),
            ("{{ env:ProgramFiles(x86) }}", "<env:ProgramFiles(x86)>"),
            ("{{ aws:imds:placement/region }}", "<aws:imds:placement/region>"),
            ("{{ aws:ssm:resolve(Name) }}", "<aws:ssm:resolve(Name)>"),
            ("{{ aws:ssm:resolve(aws:ssm:resolve(Name)) }}", "<aws:ssm:resolve(aws:ssm:resolve(Name))>"),
            ("{{ context:date }}", "<context:date>"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn foreign_braces_are_left_alone() {
        for text in [
            "docker ps --format '{{.Names}}'",
            "{{ ansible_facts | combine({'a': 1}) }}",
            "{{{ imagebuilder:parentImage }}}",
            "{{ }}",
            "{{ unfinished",
            "}} {{",
            "{{ a.b.c }}",
            "{{ a.b.files.c }}",
            "{{ a.b.inputs[x].c }}",
        ] {
            assert_eq!(shown(text), text);
        }
        assert_eq!(shown("{{ {{ Port }}"), "{{ <Port>");
    }

    #[test]
    fn what_begins_as_a_reference_and_is_none_is_known_as_such() {
        for text in ["env:", "aws:ssm:", "aws:s3:x", "aws:ssm:resolve(", "aws:ssm:resolve(a b)", "context:"] {
            let template = Template::parse(&format!("{{{{ {text} }}}}"));
            let found: Vec<&Reference> = template.references().map(|(reference, _)| reference).collect();
            assert_eq!(found, [&Reference::Unknown(text.to_owned())]);
        }
    }

    #[test]
    fn many_beginnings_of_one_end_take_no_time() {
        let text = "{{".repeat(200_000) + "}}";
        assert_eq!(shown(&text), text);
    }

    #[test]
    fn what_comes_in_is_not_read_again() {
        let resolved = Template::parse("{{ A }}").resolve(|_| Ok::<_, ()>("{{ B }}".to_owned()));
        assert_eq!(resolved.unwrap(), "{{ B }}");
    }

    proptest! {
        #[test]
        fn text_without_references_is_unchanged(text in "[a-z{} .\\[\\]|:é]{0,60}") {
            let template = Template::parse(&text);
            if template.references().next().is_none() {
                prop_assert_eq!(shown(&text), text);
            }
        }
    }
}
