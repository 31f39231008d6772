//! Component documents inside other documents: CloudFormation templates, and the input of `aws imagebuilder
//! create-component --cli-input-json`.
//!
//! A document that stands in a block of its own keeps its lines and columns, so that what is wrong with it is found in the
//! file that it came from. One in a quoted string has places of its own.

use std::sync::Arc;

use super::cloudformation::{Content, Environment, Evaluator, Resource, Template};
use super::component::Platform;
use super::decode::{Reader, Strictness};
use super::diagnostic::Report;
use super::syntax::{self, Node, Source};
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

/// The component documents that a document is or holds, and warnings about those that are not in it.
pub fn find(source: &Arc<Source>) -> Result<(Vec<Found>, Report), Report> {
    let carrier = Carrier { reader: Reader::new(source.clone(), Strictness::Compat) };
    let itself = vec![Found { source: source.clone(), platform: None, inline_size: None }];
    // What is wrong with a document that is none is said where component documents are read.
    let Ok(root) = syntax::parse(source) else { return carrier.reader.finish(Some(itself)) };
    if root.get("phases").is_some() || root.get("schemaVersion").is_some() {
        return carrier.reader.finish(Some(itself));
    }
    let found = if Template::is_one(&root) {
        let template = Template::of(source, root)?;
        let environment = Environment { guesses: true, ..Environment::default() };
        let evaluator = Evaluator::new(&template, &environment);
        let found = carrier.template(&template, &evaluator);
        if let Err(report) = evaluator.finish() {
            carrier.reader.take_over(report);
        }
        found
    } else if root.get("data").is_some() || root.get("semanticVersion").is_some() {
        carrier.request(&root)
    } else {
        itself
    };
    carrier.reader.finish(Some(found))
}

struct Carrier {
    reader: Reader,
}

impl Carrier {
    fn template(&self, template: &Template, evaluator: &Evaluator<'_>) -> Vec<Found> {
        let components: Vec<Resource<'_>> = template.resources().filter(|resource| resource.kind == TYPE).collect();
        if components.is_empty() {
            self.reader.error(&(0..1), format!("the template has no resource of the type {TYPE}"));
        }
        components.into_iter().filter_map(|component| self.component(component, evaluator)).collect()
    }

    fn component(&self, component: Resource<'_>, evaluator: &Evaluator<'_>) -> Option<Found> {
        let elsewhere = || self.reader.warning(component.span, "its document is elsewhere, so it is not checked");
        let Some(data) = component.property("Data") else {
            elsewhere();
            return None;
        };
        let platform = component.property("Platform").map(|node| evaluator.value(node));
        // By a guess no document is refused.
        let platform =
            platform.and_then(|value| value.as_text().filter(|text| text.gaps.is_empty())?.text.parse().ok());
        let value = evaluator.value(data);
        let document = match &value.content {
            Content::Text(text) => text,
            Content::Nothing if component.property("Uri").is_some() => {
                elsewhere();
                return None;
            }
            Content::Nothing => {
                if !evaluator.has_errors() {
                    self.reader.error(&value.span, "`Data` comes to nothing");
                }
                return None;
            }
            Content::List(_) | Content::Map(_) => {
                let message = format!("a text is needed, and this is {}", data.kind());
                self.reader.error(&value.span, message);
                return None;
            }
        };
        if let Some(gap) = document.gaps.iter().find(|gap| gap.stand_in == document.text) {
            self.reader.error(&gap.span, format!("the component's document is not in here: {}", gap.why));
            return None;
        }
        let path = format!("Resources.{}.Properties.Data", component.id);
        Some(self.found(&document.text, evaluator.block(data), &path, platform))
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
            (Some(data), None) => {
                let text = self.reader.text(data, "data");
                let block = self.reader.source.block(data).map(|(begin, block)| (begin, block.to_owned()));
                text.map(|text| self.found(&text.value, block, "data", platform)).into_iter().collect()
            }
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

    /// A document, on the lines that it has in the whole file if it is a block there.
    fn found(&self, text: &str, block: Option<(usize, String)>, path: &str, platform: Option<Platform>) -> Found {
        let whole = &self.reader.source;
        let source = match block {
            Some((begin, block)) => Source::new(whole.name.clone(), in_place(&whole.text[..begin], &block)),
            None => Source::new(format!("{}: {path}", whole.name), text),
        };
        Found { source, platform, inline_size: Some(text.len()) }
    }
}

/// A block's text behind as many lines as there are before it.
fn in_place(before: &str, block: &str) -> String {
    let mut text = "\n".repeat(before.matches('\n').count());
    for line in block.split_inclusive('\n') {
        // Indented, it would be no longer the mark of a document's beginning.
        text.push_str(if line.trim() == "---" { "\n" } else { line });
    }
    text
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
        find(&Source::new("t.yaml", text)).unwrap().0
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
        assert_eq!(line.trim(), "inputs: { commands: ['echo ${HOME} us-east-1 arn:aws:s3:::replace-me-bucket'] }");
        assert!(
            all[0].source.text.contains("timeoutSeconds: 1\n")
                && all[0].source.text.contains("name: replace-me-bucket\n")
        );
    }

    #[test]
    fn other_forms_of_the_same_are_found() {
        let template = |data: &str| {
            format!(
                r#"{{"Parameters": {{"y": {{"Type": "String", "Default": "y"}}}}, "Resources": {{"A": {{"Type": "AWS::ImageBuilder::Component", "Properties": {{"Data": {data}}}}}}}}}"#
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
        insta::assert_snapshot!(problem, @"t.yaml:1:142: error: the component's document is not in here: another stack exports it as `x`");
        insta::assert_snapshot!(find(&Source::new("t.yaml", "Resources: {}")).unwrap_err(), @"t.yaml:1:1: error: the template has no resource of the type AWS::ImageBuilder::Component");
    }

    #[test]
    fn what_a_template_does_not_say_is_not_made_up() {
        let template = |properties: &str| {
            let parameters = "  P: { Type: String, AllowedValues: [Windows, Linux] }\n  \
                              S: { Type: AWS::SSM::Parameter::Value<String>, Default: /a }\n  N: { Type: Number }\n";
            let component = format!("    Type: AWS::ImageBuilder::Component\n    Properties: {{ {properties} }}\n");
            format!("Parameters:\n{parameters}Resources:\n  A:\n{component}")
        };
        let all = found(&template("Platform: !Ref P, Data: !Sub 'x: ${P} ${S} ${N}'"));
        assert_eq!((all[0].platform, all[0].source.text.as_str()), (None, "x: Windows replace-me-s 1"));
        // Another program adds resources, and completes others.
        let made_later = format!("Transform: AWS::Serverless-2016-10-31\n{}", template("Data: !Sub 'x: ${Made.Arn}'"));
        let made_later = format!("{made_later}  B:\n    Fn::Transform: {{ Name: AWS::Include }}\n");
        assert_eq!(found(&made_later)[0].source.text, "x: replace-me-made-arn");
        let elsewhere = find(&Source::new("t.yaml", template("Uri: s3://b/k"))).unwrap();
        assert!(elsewhere.0.is_empty());
        insta::assert_snapshot!(elsewhere.1, @"t.yaml:6:3: warning: its document is elsewhere, so it is not checked");
        let refused = |properties: &str| find(&Source::new("t.yaml", template(properties))).unwrap_err().to_string();
        insta::assert_snapshot!(refused("Data: !Ref AWS::NoValue"), @"t.yaml:8:25: error: `Data` comes to nothing");
        insta::assert_snapshot!(refused("Data: !Ref S"), @"t.yaml:8:25: error: the component's document is not in here: the parameter `S` is looked up when the stack is made");
        insta::assert_snapshot!(refused("Data: [!Ref Nowhere]"), @"
        t.yaml:8:25: error: a text is needed, and this is a list
        t.yaml:8:26: error: there is no parameter or resource `Nowhere`
        ");
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
