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
    Loop(String),
    /// A kind of reference with a prefix: `aws:ssm:…`, `env:…`.
    Prefixed(String),
}

/// Which side of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// What it was given.
    Inputs,
    /// What it produced.
    Outputs,
}

impl Template {
    /// Reads a text.
    pub fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = 0;
        while let Some(open) = text[rest..].find("{{").map(|at| rest + at) {
            let Some(close) = text[open + 2..].find("}}").map(|at| open + 2 + at) else { break };
            let Some(reference) = reference(text[open + 2..close].trim()) else {
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

    /// Turns references into text for good; `None` of `verbatim` keeps a reference.
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
    if ["aws:", "env:", "context:"].iter().any(|prefix| text.starts_with(prefix)) {
        return Some(Reference::Prefixed(text.to_owned()));
    }
    let parts: Vec<&str> = text.split('.').collect();
    match parts.as_slice() {
        [name] if is_name(name) => Some(Reference::Name((*name).to_owned())),
        [name, "index" | "value"] if is_name(name) => Some(Reference::Loop(text.to_owned())),
        [phase, step, side, key] if [phase, step, key].iter().all(|name| is_name(name)) => {
            let (side, index) = side_and_index(side)?;
            let [phase, step, key] = [phase, step, key].map(|&name| name.to_owned());
            Some(Reference::Chained { phase, step, side, index, key })
        }
        _ => None,
    }
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
            Self::Name(text) | Self::Loop(text) | Self::Prefixed(text) => f.write_str(text),
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
