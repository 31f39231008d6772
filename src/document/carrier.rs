//! Component documents inside other documents: CloudFormation templates, and the input of `aws imagebuilder
//! create-component --cli-input-json`.
//!
//! A document that stands in a block of its own keeps its lines and columns, so that what is wrong with it is found in the
//! file that it came from. One in a quoted string has places of its own.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::component::Platform;
use super::decode::{Reader, Strictness};
use super::diagnostic::Report;
use super::syntax::{self, Node, Source, Value};
use crate::store::version::Version;

/// A component document, and what was said of it where it was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The document.
    pub source: Arc<Source>,
    /// What it is for, if that is said.
    pub platform: Option<Platform>,
    /// Its size in bytes where it stands inside another document.
    pub inline_size: Option<usize>,
}

/// The type of components in CloudFormation.
const TYPE: &str = "AWS::ImageBuilder::Component";

/// The component documents that a document is or holds.
pub fn find(source: &Arc<Source>) -> Result<Vec<Found>, Report> {
    let itself = || vec![Found { source: source.clone(), platform: None, inline_size: None }];
    // What is wrong with a document that is none is said where component documents are read.
    let Ok(root) = syntax::parse(source) else { return Ok(itself()) };
    if root.get("phases").is_some() || root.get("schemaVersion").is_some() {
        return Ok(itself());
    }
    let reader = Reader::new(source.clone(), Strictness::Compat);
    let carrier = Carrier { reader: &reader, variables: variables(&root) };
    let found = if let Some(resources) = root.get("Resources") {
        carrier.template(resources)
    } else if root.get("data").is_some() || root.get("semanticVersion").is_some() {
        carrier.request(&root)
    } else {
        return Ok(itself());
    };
    reader.finish(Some(found)).map(|(found, _)| found)
}

/// Values of a template's parameters and of CloudFormation's own.
fn variables(root: &Node) -> HashMap<String, String> {
    let own = [
        ("AWS::AccountId", "123456789012"),
        ("AWS::Partition", "aws"),
        ("AWS::Region", "us-east-1"),
        ("AWS::StackName", "stack"),
        ("AWS::URLSuffix", "amazonaws.com"),
    ];
    let mut variables: HashMap<String, String> = own.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let Some(Node { value: Value::Mapping(parameters), .. }) = root.get("Parameters") else { return variables };
    for (name, parameter) in parameters {
        let Some(name) = name.text() else { continue };
        let allowed = match parameter.get("AllowedValues").map(|node| &node.value) {
            Some(Value::Sequence(items)) => items.first().and_then(Node::text),
            _ => None,
        };
        let number = (parameter.get("Type").and_then(Node::text) == Some("Number")).then_some("1");
        if let Some(value) = parameter.get("Default").and_then(Node::text).or(allowed).or(number) {
            variables.insert(name.to_owned(), value.to_owned());
        }
    }
    variables
}

struct Carrier<'a> {
    reader: &'a Reader,
    variables: HashMap<String, String>,
}

impl Carrier<'_> {
    fn template(&self, resources: &Node) -> Vec<Found> {
        let mut found = Vec::new();
        let Value::Mapping(resources) = &resources.value else { return found };
        let mut some = false;
        for (name, resource) in resources {
            if resource.get("Type").and_then(Node::text) != Some(TYPE) {
                continue;
            }
            some = true;
            let Some(properties) = resource.get("Properties") else { continue };
            let path = format!("Resources.{}.Properties.Data", name.text().unwrap_or_default());
            let platform = properties.get("Platform").and_then(Node::text).and_then(|text| text.parse().ok());
            match properties.get("Data") {
                Some(data) => found.extend(self.document(data, &path, platform)),
                None => self.reader.warning(&name.span, "its document is elsewhere, so it is not checked"),
            }
        }
        if !some {
            self.reader.error(&(0..1), format!("the template has no resource of the type {TYPE}"));
        }
        found
    }

    fn request(&self, root: &Node) -> Vec<Found> {
        if let Some(name) = root.get("name")
            && let Some(text) = name.text()
            && !is_resource_name(text)
        {
            let message = format!("`{text}` is no component's name: 3 to 128 letters, digits, spaces, `-` or `_`");
            self.reader.error(&name.span, message);
        }
        if let Some(version) = root.get("semanticVersion")
            && version.text().is_none_or(|text| text.parse::<Version>().is_err())
        {
            self.reader.error(&version.span, "`semanticVersion` is three numbers such as 1.0.0");
        }
        let platform = root.get("platform").and_then(|node| {
            let platform = node.text().unwrap_or_default().parse::<Platform>();
            platform.map_err(|problem| self.reader.error(&node.span, problem)).ok()
        });
        match (root.get("data"), root.get("uri")) {
            (Some(data), None) => self.document(data, "data", platform).into_iter().collect(),
            (Some(_), Some(uri)) => {
                self.reader.error(&uri.span, "a component has either `data` or `uri`, not both");
                Vec::new()
            }
            (None, _) => {
                self.reader.error(&(0..1), "the component's document is not in here: there is no `data`");
                Vec::new()
            }
        }
    }

    fn document(&self, data: &Node, path: &str, platform: Option<Platform>) -> Option<Found> {
        let text = match self.text(data, &self.variables) {
            Ok(text) => text,
            Err((span, problem)) => {
                self.reader.error(&span, problem);
                return None;
            }
        };
        let source = &self.reader.source;
        let inline_size = Some(text.len());
        let in_place = self.in_place(data).filter(|_| !self.variables.values().any(|value| value.contains('\n')));
        let source = match in_place {
            Some(text) => Source::new(source.name.clone(), text),
            None => Source::new(format!("{}: {path}", source.name), text),
        };
        Some(Found { source, platform, inline_size })
    }

    /// A document's text on the lines that it has in the whole file, if it is a block there.
    fn in_place(&self, data: &Node) -> Option<String> {
        let (node, substitute) = match function(data) {
            Some(("Sub", operand)) if matches!(operand.value, Value::Scalar(_)) => (operand, true),
            None => (data, false),
            _ => return None,
        };
        if !matches!(&node.value, Value::Scalar(scalar) if scalar.literal) {
            return None;
        }
        let whole = &self.reader.source.text;
        // The tag and the mark of a block stand on the line before it.
        let written = whole.get(node.span.clone())?;
        let begin = node.span.start + written.find('\n')? + 1;
        let block = whole.get(begin..node.span.end)?;
        let block = if substitute { self.substitute(block, &self.variables) } else { block.to_owned() };
        let mut text = "\n".repeat(whole[..begin].matches('\n').count());
        for line in block.split_inclusive('\n') {
            // Indented, it would be no longer the mark of a document's beginning.
            text.push_str(if line.trim() == "---" { "\n" } else { line });
        }
        Some(text)
    }

    /// What a value comes to.
    fn text(&self, node: &Node, variables: &HashMap<String, String>) -> Result<String, (Range<usize>, String)> {
        let Some((name, operand)) = function(node) else {
            let text = node.text().map(str::to_owned);
            return text.ok_or_else(|| (node.span.clone(), format!("a text is needed, and this is {}", node.kind())));
        };
        let items = match &operand.value {
            Value::Sequence(items) => items.as_slice(),
            _ => std::slice::from_ref(operand),
        };
        match (name, items) {
            ("Ref", [name]) => Ok(lookup(name.text().unwrap_or_default(), variables)),
            ("GetAtt", parts) => Ok(placeholder(&parts.iter().filter_map(Node::text).collect::<Vec<_>>().join("."))),
            ("Sub", [text]) => Ok(self.substitute(text.text().unwrap_or_default(), variables)),
            ("Sub", [text, Node { value: Value::Mapping(more), .. }]) => {
                let mut variables = variables.clone();
                for (name, value) in more {
                    let name = name.text().unwrap_or_default();
                    let value = self.text(value, &variables).unwrap_or_else(|_| placeholder(name));
                    variables.insert(name.to_owned(), value);
                }
                Ok(self.substitute(text.text().unwrap_or_default(), &variables))
            }
            ("Join", [delimiter, Node { value: Value::Sequence(parts), .. }]) => {
                let parts: Result<Vec<String>, _> = parts.iter().map(|part| self.text(part, variables)).collect();
                Ok(parts?.join(delimiter.text().unwrap_or_default()))
            }
            _ => Err((node.span.clone(), format!("what `{name}` gives is known to CloudFormation only"))),
        }
    }

    /// `${Name}` by its value, `${!Name}` as `${Name}`.
    fn substitute(&self, text: &str, variables: &HashMap<String, String>) -> String {
        let mut result = String::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once("${") {
            result.push_str(before);
            let Some((name, after)) = behind.split_once('}') else {
                rest = &rest[before.len()..];
                break;
            };
            match name.strip_prefix('!') {
                Some(literal) => result.push_str(&format!("${{{literal}}}")),
                None => result.push_str(&lookup(name.trim(), variables)),
            }
            rest = after;
        }
        result.push_str(rest);
        result
    }
}

/// A function of CloudFormation's and what it is given, in its long form or as a tag.
fn function(node: &Node) -> Option<(&str, &Node)> {
    if let Some(tag) = &node.tag {
        return Some((tag, node));
    }
    match &node.value {
        Value::Mapping(entries) => match entries.as_slice() {
            [(key, operand)] => {
                let name = key.text()?;
                Some((name.strip_prefix("Fn::").or_else(|| (name == "Ref").then_some("Ref"))?, operand))
            }
            _ => None,
        },
        _ => None,
    }
}

fn lookup(name: &str, variables: &HashMap<String, String>) -> String {
    variables.get(name).cloned().unwrap_or_else(|| placeholder(name))
}

/// What stands for a value that nobody knows here: its own name, which is a name anywhere.
fn placeholder(name: &str) -> String {
    name.replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}

/// `^[-_A-Za-z-0-9][-_A-Za-z0-9 ]{1,126}[-_A-Za-z-0-9]$`, as the API has it.
fn is_resource_name(text: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ' ');
    (3..=128).contains(&text.len()) && text.chars().all(is_inner) && !text.starts_with(' ') && !text.ends_with(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<Found> {
        find(&Source::new("t.yaml", text)).unwrap()
    }

    const TEMPLATE: &str = "AWSTemplateFormatVersion: '2010-09-09'
Parameters:
  Version: { Type: String, Default: '1.2' }
  Count: { Type: Number }
Resources:
  Bucket: { Type: AWS::S3::Bucket }
  One:
    Type: AWS::ImageBuilder::Component
    Properties:
      Name: one
      Platform: Windows
      Data: !Sub |
        ---
        # ${Version}
        schemaVersion: 1.0
        phases:
          - name: build
            steps:
              - name: ${Bucket}
                action: ExecuteBash
                timeoutSeconds: ${Count}
                inputs: { commands: ['echo ${!HOME} ${AWS::Region} ${Bucket.Arn}'] }
";

    #[test]
    fn a_block_in_a_template_keeps_its_lines() {
        let all = found(TEMPLATE);
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].platform, all[0].source.name.as_str()), (Some(Platform::Windows), "t.yaml"));
        let root = syntax::parse(&all[0].source).unwrap();
        let phases = root.get("phases").unwrap();
        assert_eq!(all[0].source.position(phases.span.start).line, 17);
        let line = all[0].source.text.lines().nth(21).unwrap();
        assert_eq!(line.trim(), "inputs: { commands: ['echo ${HOME} us-east-1 Bucket-Arn'] }");
        assert!(all[0].source.text.contains("timeoutSeconds: 1\n") && all[0].source.text.contains("name: Bucket\n"));
    }

    #[test]
    fn other_forms_of_the_same_are_found() {
        let template = |data: &str| {
            format!(
                r#"{{"Resources": {{"A": {{"Type": "AWS::ImageBuilder::Component", "Properties": {{"Data": {data}}}}}}}}}"#
            )
        };
        for data in [
            r#""schemaVersion: 1.0\nx: y""#,
            r#"{"Fn::Sub": "schemaVersion: 1.0\nx: ${y}"}"#,
            r#"{"Fn::Sub": ["schemaVersion: 1.0\nx: ${z}", {"z": {"Ref": "y"}}]}"#,
            r#"{"Fn::Join": ["\n", ["schemaVersion: 1.0", {"Fn::Join": ["", ["x: ", {"Ref": "y"}]]}]]}"#,
        ] {
            let all = found(&template(data));
            assert_eq!(all[0].source.text, "schemaVersion: 1.0\nx: y", "{data}");
            assert_eq!(all[0].source.name, "t.yaml: Resources.A.Properties.Data");
        }
        let problem = find(&Source::new("t.yaml", template(r#"{"Fn::ImportValue": "x"}"#))).unwrap_err();
        insta::assert_snapshot!(problem, @"t.yaml:1:85: error: what `ImportValue` gives is known to CloudFormation only");
        insta::assert_snapshot!(find(&Source::new("t.yaml", "Resources: {}")).unwrap_err(), @"t.yaml:1:1: error: the template has no resource of the type AWS::ImageBuilder::Component");
    }

    #[test]
    fn the_input_of_the_aws_command_line() {
        let text = r#"{"name": "x y", "semanticVersion": "1.0.0", "platform": "Linux", "data": "schemaVersion: 1.0"}"#;
        let all = found(text);
        assert_eq!((all[0].platform, all[0].source.text.as_str()), (Some(Platform::Linux), "schemaVersion: 1.0"));
        let problem = |text: &str| find(&Source::new("t.json", text)).unwrap_err().to_string();
        insta::assert_snapshot!(problem(r#"{"name": "x!", "semanticVersion": "1.0", "platform": "BeOS", "data": "a", "uri": "b"}"#), @"
        t.json:1:10: error: `x!` is no component's name: 3 to 128 letters, digits, spaces, `-` or `_`
        t.json:1:35: error: `semanticVersion` is three numbers such as 1.0.0
        t.json:1:54: error: `BeOS` is no platform: linux, windows and macos are
        t.json:1:82: error: a component has either `data` or `uri`, not both
        ");
        insta::assert_snapshot!(problem(r#"{"semanticVersion": "1.0.0", "uri": "s3://b/k"}"#), @"t.json:1:1: error: the component's document is not in here: there is no `data`");
    }

    #[test]
    fn what_carries_nothing_is_a_document_itself() {
        for text in ["schemaVersion: 1.0\nphases: []\n", "a: [", "- x\n", "name: x\n"] {
            assert_eq!(found(text)[0].source.text, text);
        }
    }
}
