//! CloudFormation's functions. A template is a document from outside: what it may make of itself has bounds.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Range;

use super::Template;
use super::condition::is_condition;
use super::value::{Content, Entry, Gap, Text, Value, written};
use crate::document::decode::suggest;
use crate::document::diagnostic::{Diagnostic, Report, Severity};
use crate::document::syntax::{Node, Value as Written};

/// Most values that a template is followed through.
const MAX_WORK: usize = 200_000;
/// How deep values may stand in values, those of other resources included.
const MAX_DEPTH: usize = 100;

/// What a template is told from outside.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// Values of its parameters.
    pub parameters: Vec<(String, String)>,
    /// `AWS::Region`.
    pub region: Option<String>,
    /// `AWS::AccountId`.
    pub account: Option<String>,
    /// `AWS::StackName`.
    pub stack: Option<String>,
    /// Whether parameters that nobody gives are guessed where something is allowed for sure: to check what is in a template,
    /// and not to use it.
    pub guesses: bool,
}

impl Environment {
    fn region(&self) -> &str {
        self.region.as_deref().unwrap_or("us-east-1")
    }

    /// `AWS::Partition`, by the region.
    pub(super) fn partition(&self) -> &'static str {
        match self.region() {
            region if region.starts_with("cn-") => "aws-cn",
            region if region.starts_with("us-gov-") => "aws-us-gov",
            _ => "aws",
        }
    }
}

/// Says what values of a template come to.
#[derive(Debug)]
pub struct Evaluator<'a> {
    pub(super) template: &'a Template,
    pub(super) environment: &'a Environment,
    pub(super) conditions: RefCell<HashMap<String, Option<bool>>>,
    problems: RefCell<Vec<Diagnostic>>,
    busy: RefCell<Vec<String>>,
    pub(super) work: Cell<usize>,
    pub(super) made: Cell<usize>,
    depth: Cell<usize>,
}

/// A function and what it is given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) name: &'a str,
    pub(super) operand: &'a Node,
    /// Whether it is written as a tag, which stands on the operand itself.
    is_tag: bool,
}

impl<'a> Call<'a> {
    pub(super) fn of(node: &'a Node) -> Option<Self> {
        if let Some(tag) = &node.tag {
            return Some(Self { name: tag, operand: node, is_tag: true });
        }
        if let Some(name) = is_condition(node) {
            return Some(Self { name: "Condition", operand: name, is_tag: false });
        }
        Self::long(node)
    }

    /// The long form, whatever tag stands before it: `!ImportValue { Fn::Sub: … }` has both.
    fn long(node: &'a Node) -> Option<Self> {
        let Written::Mapping(entries) = &node.value else { return None };
        let [(key, operand)] = entries.as_slice() else { return None };
        let name = key.text()?;
        let name = name.strip_prefix("Fn::").or_else(|| (name == "Ref").then_some(name))?;
        Some(Self { name, operand, is_tag: false })
    }

    pub(super) fn items(&self) -> &'a [Node] {
        match &self.operand.value {
            Written::Sequence(items) => items,
            _ => std::slice::from_ref(self.operand),
        }
    }
}

impl<'a> Evaluator<'a> {
    /// Begins with a template.
    pub fn new(template: &'a Template, environment: &'a Environment) -> Self {
        let evaluator = Self {
            template,
            environment,
            conditions: RefCell::default(),
            problems: RefCell::default(),
            busy: RefCell::default(),
            work: Cell::new(0),
            made: Cell::new(0),
            depth: Cell::new(0),
        };
        evaluator.check_given();
        evaluator
    }

    /// Ends it: what was wrong with the template, as far as it was looked at.
    pub fn finish(self) -> Result<(), Report> {
        let mut diagnostics = self.problems.into_inner();
        diagnostics.sort_by_key(|diagnostic| diagnostic.span.start);
        diagnostics.dedup();
        let report = Report { source: self.template.source.clone(), diagnostics };
        if report.has_errors() { Err(report) } else { Ok(()) }
    }

    /// Whether something was wrong so far.
    pub fn has_errors(&self) -> bool {
        !self.problems.borrow().is_empty()
    }

    pub(super) fn error(&self, span: &Range<usize>, message: impl Into<String>) {
        self.error_with_help(span, message, None);
    }

    pub(super) fn error_with_help(&self, span: &Range<usize>, message: impl Into<String>, help: Option<String>) {
        let diagnostic = Diagnostic { severity: Severity::Error, message: message.into(), span: span.clone(), help };
        self.problems.borrow_mut().push(diagnostic);
    }

    /// Counts a step; false if there were too many.
    pub(super) fn spend(&self, span: &Range<usize>) -> bool {
        self.work.set(self.work.get() + 1);
        if self.work.get() == MAX_WORK {
            self.error(span, format!("the template comes to more than {MAX_WORK} values"));
        }
        self.work.get() < MAX_WORK
    }

    /// Does something one level deeper, if that is not too deep.
    pub(super) fn deeper<T>(&self, span: &Range<usize>, work: impl FnOnce() -> T) -> Option<T> {
        if self.depth.get() >= MAX_DEPTH {
            self.error(span, format!("the template's values stand more than {MAX_DEPTH} levels deep in each other"));
            return None;
        }
        self.depth.set(self.depth.get() + 1);
        let result = work();
        self.depth.set(self.depth.get() - 1);
        Some(result)
    }

    /// Does something for something with a name, unless it is being done.
    pub(super) fn within<T>(&self, name: &str, span: &Range<usize>, work: impl FnOnce() -> T) -> Option<T> {
        if self.busy.borrow().iter().any(|busy| busy == name) {
            self.error(span, format!("{name} refers to itself"));
            return None;
        }
        self.busy.borrow_mut().push(name.to_owned());
        let result = self.deeper(span, work);
        self.busy.borrow_mut().pop();
        result
    }

    /// What a node comes to.
    pub fn value(&self, node: &Node) -> Value {
        let nothing = || Value { span: node.span.clone(), content: Content::Nothing };
        if !self.spend(&node.span) {
            return nothing();
        }
        let value = self.deeper(&node.span, || match Call::of(node) {
            // A map with this one member may mean anything outside conditions.
            Some(call) if call.name == "Condition" && !call.is_tag => self.written(node),
            Some(call) => self.call(call, &node.span),
            None => self.written(node),
        });
        value.unwrap_or_else(nothing)
    }

    /// A node as it is written, functions within it evaluated.
    fn written(&self, node: &Node) -> Value {
        let content = match &node.value {
            Written::Scalar(scalar) if scalar.is_null() => Content::Nothing,
            Written::Scalar(scalar) => Content::Text(written(scalar)),
            Written::Sequence(items) => {
                let items = items.iter().map(|item| self.value(item));
                Content::List(items.filter(|item| item.content != Content::Nothing).collect())
            }
            Written::Mapping(entries) => {
                let entries = entries.iter().map(|(key, value)| Entry {
                    key: key.text().unwrap_or_default().to_owned(),
                    span: key.span.clone(),
                    value: self.value(value),
                });
                Content::Map(entries.filter(|entry| entry.value.content != Content::Nothing).collect())
            }
        };
        Value { span: node.span.clone(), content }
    }

    /// What a function is given, where it is one value.
    pub(super) fn argument(&self, call: Call<'_>) -> Value {
        if !call.is_tag {
            return self.value(call.operand);
        }
        match Call::long(call.operand) {
            Some(inner) => self.call(inner, &call.operand.span),
            None => self.written(call.operand),
        }
    }

    fn call(&self, call: Call<'_>, span: &Range<usize>) -> Value {
        match (call.name, call.items()) {
            ("Ref", [name]) if name.text().is_some() => self.ref_(name.text().unwrap_or_default(), span),
            ("GetAtt", parts) => self.get_att(parts, span),
            ("Sub", [text]) => self.sub(text, &[], span),
            ("Sub", [text, Node { value: Written::Mapping(variables), .. }]) => self.sub(text, variables, span),
            ("Join", [delimiter, list]) => self.join(delimiter, list, span),
            ("Select", [index, list]) => self.select(index, list, span),
            ("Split", [delimiter, text]) => self.split(delimiter, text, span),
            // More than three are refused when a stack is made, and by nobody before.
            ("If", [condition, yes, no, ..]) => self.if_(condition, yes, no, span),
            ("FindInMap", [map, first, second, rest @ ..]) => self.find_in_map([map, first, second], rest, span),
            ("Base64", _) => self.base64(call, span),
            ("ImportValue", _) => {
                let name = self.argument(call).as_text().map(|text| text.text.clone()).unwrap_or_default();
                let why = format!("another stack exports it as `{name}`");
                self.unknown(span, &name, why, "put in what it is".to_owned())
            }
            ("GetAZs", _) => self.zones(span),
            ("Length", _) => self.length(call, span),
            ("ToJsonString", _) => self.to_json_string(call, span),
            ("Cidr" | "Transform" | "GetStackOutput" | "ValueOf" | "ValueOfAll" | "RefAll", _) => {
                let why = format!("what `{}` gives is known to CloudFormation only", call.name);
                self.unknown(span, call.name, why, "put in what it gives".to_owned())
            }
            (name, _) => {
                let message = if FUNCTIONS.contains(&name) {
                    format!("`{name}` is not used like this")
                } else {
                    format!("CloudFormation has no function `{name}`")
                };
                self.error_with_help(span, message, suggest(name, &FUNCTIONS));
                Value { span: span.clone(), content: Content::Nothing }
            }
        }
    }

    /// A text that stands for what nobody can know here.
    pub(super) fn unknown(&self, span: &Range<usize>, name: &str, why: String, mend: String) -> Value {
        let stand_in = stand_in(name);
        let gap = Gap { span: span.clone(), stand_in: stand_in.clone(), why, mend, is_assumed: false };
        Value::text(span.clone(), Text { gaps: vec![gap], ..Text::known(stand_in) })
    }

    /// A value of what another program adds to the template.
    fn others(&self, id: &str, path: &str, span: &Range<usize>) -> Value {
        self.unknown(span, path, format!("`{id}` is none of the template's own"), "put in what it is".to_owned())
    }

    fn assumed(&self, span: &Range<usize>, given: Option<&str>, otherwise: &str, name: &str, option: &str) -> Text {
        if let Some(given) = given {
            return Text::known(given);
        }
        let gap = Gap {
            span: span.clone(),
            stand_in: otherwise.to_owned(),
            why: format!("`{name}` is taken to be `{otherwise}`"),
            mend: format!("{option} says another"),
            is_assumed: true,
        };
        Text { gaps: vec![gap], ..Text::known(otherwise) }
    }

    pub(super) fn region(&self, span: &Range<usize>) -> Text {
        self.assumed(span, self.environment.region.as_deref(), "us-east-1", "AWS::Region", "--region")
    }

    /// An ARN has to have an account, so one that is nobody's stands there; unlike a region it can't be right.
    pub(super) fn account(&self, span: &Range<usize>) -> Text {
        let given = self.environment.account.as_deref();
        let mut text = self.assumed(span, given, "123456789012", "AWS::AccountId", "--account");
        for gap in &mut text.gaps {
            "123456789012 stands for `AWS::AccountId`, which is not known".clone_into(&mut gap.why);
            "--account says it".clone_into(&mut gap.mend);
            gap.is_assumed = false;
        }
        text
    }

    pub(super) fn ref_(&self, name: &str, span: &Range<usize>) -> Value {
        let text = |text: Text| Value::text(span.clone(), text);
        match name {
            "AWS::NoValue" => return Value { span: span.clone(), content: Content::Nothing },
            "AWS::Region" => return text(self.region(span)),
            "AWS::AccountId" => return text(self.account(span)),
            "AWS::Partition" => return text(Text::known(self.environment.partition())),
            "AWS::URLSuffix" => {
                let is_china = self.environment.partition() == "aws-cn";
                return text(Text::known(if is_china { "amazonaws.com.cn" } else { "amazonaws.com" }));
            }
            "AWS::StackName" => {
                let given = self.environment.stack.as_deref();
                return text(self.assumed(span, given, "stack", "AWS::StackName", "--stack-name"));
            }
            "AWS::StackId" | "AWS::NotificationARNs" => {
                let why = format!("`{name}` is known when the stack is made");
                return self.unknown(span, name.trim_start_matches("AWS::"), why, "put in what it is".to_owned());
            }
            _ => {}
        }
        if let Some(parameter) = self.template.section("Parameters", name) {
            return self.parameter(name, parameter, span);
        }
        if let Some(resource) = self.template.resource(name) {
            return self.reference(resource, span);
        }
        if self.template.is_made_up_later() {
            return self.others(name, name, span);
        }
        self.error_with_help(
            span,
            format!("there is no parameter or resource `{name}`"),
            suggest(name, &self.template.names()),
        );
        Value { span: span.clone(), content: Content::Nothing }
    }

    fn parameter(&self, name: &str, parameter: &Node, span: &Range<usize>) -> Value {
        let given = self.environment.parameters.iter().rev().find(|(known, _)| known == name);
        let default = || match &parameter.get("Default")?.value {
            Written::Scalar(scalar) => Some(Text { text: scalar.text.clone(), ..written(scalar) }),
            _ => None,
        };
        let guess = || self.environment.guesses.then(|| self.guess(name, parameter, span)).flatten();
        let value = given.map(|(_, value)| Text::known(value.as_str())).or_else(default).or_else(guess);
        let kind = parameter.get("Type").and_then(Node::text).unwrap_or("String");
        // It may be referred to any number of times.
        let value = value.and_then(|value| self.made(span, value).as_text().cloned());
        let Some(value) = value else {
            let why = format!("the parameter `{name}` has no default");
            return self.unknown(span, name, why, format!("--parameter {name}=VALUE says it"));
        };
        if kind.starts_with("AWS::SSM::Parameter::Value<") {
            if self.environment.guesses {
                let why = format!("the parameter `{name}` is looked up when the stack is made");
                return self.unknown(span, name, why, "put in what it is".to_owned());
            }
            // What AWS looks up is the same as where the reference is written out.
            return Value::text(span.clone(), Text::known(format!("{{{{resolve:ssm:{}}}}}", value.text)));
        }
        if kind == "CommaDelimitedList" || kind.starts_with("List<") {
            let parts = value.text.split(',').take_while(|_| self.spend(span));
            let parts = parts.map(|part| Value::text(span.clone(), Text::known(part.trim())));
            return Value { span: span.clone(), content: Content::List(parts.collect()) };
        }
        Value::text(span.clone(), value)
    }

    /// What a parameter may well be.
    fn guess(&self, name: &str, parameter: &Node, span: &Range<usize>) -> Option<Text> {
        let allowed = match parameter.get("AllowedValues").map(|node| &node.value) {
            Some(Written::Sequence(items)) => items.first().and_then(Node::text),
            _ => None,
        };
        let number = (parameter.get("Type").and_then(Node::text) == Some("Number")).then_some("1");
        Some(self.assumed(span, None, allowed.or(number)?, name, "--parameter"))
    }

    /// What is given to parameters has to be for one, and allowed.
    fn check_given(&self) {
        for (name, value) in &self.environment.parameters {
            let Some(parameter) = self.template.section("Parameters", name) else { continue };
            let allowed: Vec<&str> = match parameter.get("AllowedValues").map(|node| &node.value) {
                Some(Written::Sequence(items)) => items.iter().filter_map(Node::text).collect(),
                _ => continue,
            };
            if !allowed.contains(&value.as_str()) {
                let help = Some(format!("it may be {}", allowed.join(", ")));
                self.error_with_help(&parameter.span, format!("the parameter `{name}` may not be `{value}`"), help);
            }
        }
    }

    fn get_att(&self, parts: &[Node], span: &Range<usize>) -> Value {
        let parts: Vec<String> = match parts {
            [single] => single.text().map(str::to_owned).into_iter().collect(),
            _ => parts.iter().filter_map(|part| Some(self.value(part).as_text()?.text.clone())).collect(),
        };
        self.attribute_of(&parts.join("."), span)
    }

    pub(super) fn attribute_of(&self, path: &str, span: &Range<usize>) -> Value {
        let found = path.split_once('.').and_then(|(id, attribute)| Some((self.template.resource(id)?, attribute)));
        if let Some((resource, attribute)) = found {
            return self.attribute(resource, attribute, span);
        }
        let id = path.split('.').next().unwrap_or(path);
        if self.template.resource(id).is_none() && self.template.is_made_up_later() {
            return self.others(id, path, span);
        }
        let message = if self.template.resource(id).is_some() {
            format!("which attribute of `{id}` is meant is not said")
        } else {
            format!("there is no resource `{id}`")
        };
        self.error_with_help(span, message, suggest(id, &self.template.names()));
        Value { span: span.clone(), content: Content::Nothing }
    }

    fn if_(&self, condition: &Node, yes: &Node, no: &Node, span: &Range<usize>) -> Value {
        match self.holds(condition) {
            Some(true) => self.value(yes),
            Some(false) => self.value(no),
            None => {
                // Both are shown to be sound, and the first is taken.
                let mut value = self.value(yes);
                let gap = Gap {
                    span: span.clone(),
                    stand_in: String::new(),
                    why: format!(
                        "whether `{}` holds is not known, so its first value is taken",
                        condition.text().unwrap_or_default()
                    ),
                    mend: "see whether it is right".to_owned(),
                    is_assumed: true,
                };
                value.add_gap(gap);
                value
            }
        }
    }

    fn find_in_map(&self, keys: [&Node; 3], rest: &[Node], span: &Range<usize>) -> Value {
        let texts: Vec<Text> = keys.iter().filter_map(|key| self.value(key).as_text().cloned()).collect();
        let [map, first, second] = texts.as_slice() else {
            self.error(span, "`FindInMap` needs the names of a map and of two keys");
            return Value { span: span.clone(), content: Content::Nothing };
        };
        let map_node = self.template.section("Mappings", &map.text);
        let found = map_node.and_then(|map| map.get(&first.text)).and_then(|inner| inner.get(&second.text));
        if let Some(node) = found {
            let found = self.value(node);
            return match found.as_text().cloned() {
                Some(text) => self.made(span, text),
                None => Value { span: span.clone(), ..found },
            };
        }
        if let Some(default) = rest.iter().find_map(|node| node.get("DefaultValue")) {
            return self.value(default);
        }
        let path = format!("{}.{}.{}", map.text, first.text, second.text);
        if texts.iter().any(|text| !text.gaps.is_empty()) {
            let why = format!("which value of the map `{}` is meant is not known", map.text);
            return self.unknown(span, &path, why, "put in what it is".to_owned());
        }
        self.error(span, format!("`Mappings` has no `{path}`"));
        Value { span: span.clone(), content: Content::Nothing }
    }

    fn zones(&self, span: &Range<usize>) -> Value {
        let zone = |letter| {
            let region = self.region(span);
            Value::text(span.clone(), Text { text: format!("{}{letter}", region.text), ..region })
        };
        Value { span: span.clone(), content: Content::List(["a", "b", "c"].map(zone).into()) }
    }

    fn length(&self, call: Call<'_>, span: &Range<usize>) -> Value {
        let list = self.argument(call);
        let length = list.items().len().to_string();
        let gaps = list.gaps().into_iter().cloned().collect();
        Value::text(span.clone(), Text { text: length, plain: true, gaps, resource: None })
    }

    fn select(&self, index: &Node, list: &Node, span: &Range<usize>) -> Value {
        let (index, list) = (self.value(index), self.value(list));
        if let (true, Content::Text(text)) = (list.is_unknown(), &list.content) {
            // The one that is meant is as unknown as all of them.
            return Value::text(span.clone(), text.clone());
        }
        let number = index.as_text().and_then(|text| text.text.parse::<usize>().ok());
        match number.and_then(|number| list.items().get(number)) {
            Some(item) => Value { span: span.clone(), ..item.clone() },
            None if index.is_unknown() => Value::text(span.clone(), index.as_text().cloned().unwrap_or_default()),
            None => {
                let index = index.as_text().map(|text| text.text.clone()).unwrap_or_default();
                let message = format!("`Select` asks for item {index}, counted from 0, of {}", list.items().len());
                self.error(span, message);
                Value { span: span.clone(), content: Content::Nothing }
            }
        }
    }
}

/// All of CloudFormation's functions.
const FUNCTIONS: [&str; 23] = [
    "Ref",
    "GetAtt",
    "Sub",
    "Join",
    "Select",
    "Split",
    "If",
    "FindInMap",
    "Base64",
    "ImportValue",
    "GetAZs",
    "Length",
    "ToJsonString",
    "Cidr",
    "Transform",
    "Equals",
    "And",
    "Or",
    "Not",
    "Condition",
    "ForEach",
    "Contains",
    "EachMemberIn",
];

/// What stands for a value that nobody knows here: a name anywhere, also of a bucket or a region.
fn stand_in(name: &str) -> String {
    let mut stand_in = String::from("replace-me");
    let mut before = '-';
    for c in name.chars().take(80) {
        let begins_word = c.is_ascii_uppercase() && (before.is_ascii_lowercase() || before.is_ascii_digit());
        let is_plain = c.is_ascii_alphanumeric();
        if (begins_word || !before.is_ascii_alphanumeric()) && is_plain {
            stand_in.push('-');
        }
        if is_plain {
            stand_in.push(c.to_ascii_lowercase());
        }
        before = c;
    }
    stand_in
}
