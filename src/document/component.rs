//! Component documents: structure and names.
//!
//! AWS user guide, "Use the AWSTOE component document framework". What an action's inputs mean is the business of
//! [`crate::component`], so inputs stay nodes here.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::decode::{Fields, Reader, Spanned, Strictness};
use super::diagnostic::Report;
use super::looping::{self, Loop};
use super::syntax::{self, Node, Source};

/// A component document.
#[derive(Debug, Clone)]
pub struct Document {
    /// Where it came from.
    pub source: Arc<Source>,
    /// Its name; free text.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// What a recipe can set.
    pub parameters: Vec<Parameter>,
    /// Values with names.
    pub constants: Vec<Constant>,
    /// The work, in order.
    pub phases: Vec<Phase>,
    /// Whether what its steps write is kept out of logs.
    pub disable_logging: bool,
}

/// Something that a recipe can set.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Its name.
    pub name: Spanned<String>,
    /// Its value unless set.
    pub default: Option<String>,
    /// The values it may have, if not any.
    pub allowed: Vec<String>,
    /// What it is for.
    pub description: Option<String>,
}

/// A value with a name.
#[derive(Debug, Clone)]
pub struct Constant {
    /// Its name.
    pub name: Spanned<String>,
    /// Its value.
    pub value: String,
}

/// Steps that run together at one time of an image's life.
#[derive(Debug, Clone)]
pub struct Phase {
    /// `build`, `validate`, `test` or another name.
    pub name: Spanned<String>,
    /// Its steps, in order.
    pub steps: Vec<Step>,
    /// Whether what its steps write is kept out of logs.
    pub disable_logging: bool,
}

/// One step.
#[derive(Debug, Clone)]
pub struct Step {
    /// Its name.
    pub name: Spanned<String>,
    /// The action module.
    pub action: Spanned<String>,
    /// How long an attempt may take, if not for ever.
    pub timeout: Option<Duration>,
    /// What happens after its last attempt has failed.
    pub on_failure: OnFailure,
    /// How many attempts it has.
    pub max_attempts: u32,
    /// Whether the document says how long an attempt may take; the place where it does.
    pub timeout_span: Option<Range<usize>>,
    /// Whether the document says how many attempts there are; the place where it does.
    pub attempts_span: Option<Range<usize>>,
    /// Under which condition it runs.
    pub condition: Option<Node>,
    /// What it is repeated for.
    pub looping: Option<Loop>,
    /// The module's inputs.
    pub inputs: Option<Node>,
    /// Whether what it writes is kept out of logs.
    pub disable_logging: bool,
    /// The step's bytes in the source.
    pub span: Range<usize>,
}

/// What happens after a step's last attempt has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// Nothing more runs.
    #[default]
    Abort,
    /// What follows runs, and the whole has failed all the same.
    Continue,
    /// What follows runs, and the step does not count.
    Ignore,
}

/// What a document is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Platform {
    /// Linux, where documents run here.
    #[default]
    Linux,
    /// Windows.
    Windows,
    /// macOS.
    MacOs,
}

impl Platform {
    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linux => "Linux",
            Self::Windows => "Windows",
            Self::MacOs => "macOS",
        }
    }
}

impl std::str::FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "linux" => Ok(Self::Linux),
            "windows" => Ok(Self::Windows),
            "darwin" | "macos" => Ok(Self::MacOs),
            _ => Err(format!("`{text}` is no platform: linux, windows and macos are")),
        }
    }
}

/// A step's time unless it says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(7200);

/// The phases that run at their time of an image's life.
pub const PHASES: [&str; 3] = ["build", "validate", "test"];

const DOCUMENT_FIELDS: [&str; 7] =
    ["name", "description", "schemaVersion", "parameters", "constants", "phases", "disableLogging"];
const PHASE_FIELDS: [&str; 3] = ["name", "steps", "disableLogging"];
const STEP_FIELDS: [&str; 9] =
    ["name", "action", "timeoutSeconds", "onFailure", "maxAttempts", "inputs", "disableLogging", "if", "loop"];
const PARAMETER_FIELDS: [&str; 4] = ["type", "default", "description", "allowedValues"];
const CONSTANT_FIELDS: [&str; 2] = ["type", "value"];
/// The service's quota of a document's size, in bytes. It can be raised.
const MAX_SIZE: usize = 64 << 10;
/// The service's quota of parameters. It can be raised.
const MAX_PARAMETERS: usize = 25;
/// Longest description of a parameter that the API takes.
const MAX_DESCRIPTION: usize = 1024;

fn is_name(text: &str) -> bool {
    (3..=128).contains(&text.len()) && has_allowed_characters(text)
}

fn has_allowed_characters(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

/// A document's structure, with a reader that has noted what is wrong so far. The structure is missing when nothing can
/// be made of the document.
pub fn decode(source: &Arc<Source>, strictness: Strictness) -> Result<(Reader, Option<Document>), Report> {
    let root = syntax::parse(source)?;
    let reader = Reader::new(source.clone(), strictness);
    let document = document(&reader, &root);
    Ok((reader, document))
}

fn document(reader: &Reader, root: &Node) -> Option<Document> {
    let mut fields = reader.map(root, "a component document")?;
    if reader.source.text.len() > MAX_SIZE {
        let message = format!("the document has {} bytes, and the service takes {MAX_SIZE}", reader.source.text.len());
        reader.deviation(&(0..1), message, None);
    }
    let name = fields.text("name").map(|name| name.value);
    let description = fields.text("description").map(|description| description.value);
    schema_version(reader, &mut fields);
    let parameters = fields.get("parameters").map(|node| parameters(reader, node)).unwrap_or_default();
    let constants = fields.get("constants").map(|node| constants(reader, node)).unwrap_or_default();
    let names = parameters.iter().map(|p| &p.name).chain(constants.iter().map(|c| &c.name));
    unique(reader, names, "parameter or constant");
    let disable_logging = fields.flag("disableLogging");
    let phases = phases(reader, &mut fields);
    fields.tolerate("version");
    fields.finish(&DOCUMENT_FIELDS);
    let source = reader.source.clone();
    Some(Document { source, name, description, parameters, constants, phases: phases?, disable_logging })
}

fn schema_version(reader: &Reader, fields: &mut Fields<'_>) {
    let Some(node) = fields.require("schemaVersion") else { return };
    let Some(version) = reader.text(node, "schemaVersion") else { return };
    if !matches!(version.value.as_str(), "1.0" | "1") {
        reader.error(&version.span, format!("the schema version is 1.0, and this is `{}`", version.value));
    }
}

/// Lists of one-key maps: `- Name: { type: string, … }`.
fn named_items<'a>(reader: &'a Reader, node: &'a Node, what: &'static str) -> Vec<(Spanned<String>, Fields<'a>)> {
    let mut items = Vec::new();
    for item in reader.list(node, what).unwrap_or_default() {
        let Some(fields) = reader.map(item, "an item of this list") else { continue };
        let mut entries = fields.all();
        let is_flat = entries.len() > 1 && entries.iter().any(|(key, _)| key.value == "name");
        if is_flat || entries.len() != 1 {
            let help = "write `- Name: { type: string }`, with the name as the key";
            reader.error_with_help(&item.span, format!("an item of `{what}` is a map with one key, its name"), help);
            continue;
        }
        let Some((name, value)) = entries.pop() else { continue };
        if !is_name(&name.value) {
            let message = format!("`{}` is no name: 3 to 128 letters, digits, hyphens or underscores", name.value);
            reader.error(&name.span, message);
        }
        items.extend(reader.map(value, "a parameter or constant").map(|fields| (name, fields)));
    }
    items
}

fn check_type(reader: &Reader, fields: &mut Fields<'_>) {
    let Some(node) = fields.require("type") else { return };
    let Some(kind) = reader.text(node, "type") else { return };
    if !kind.value.eq_ignore_ascii_case("string") {
        reader.error(&kind.span, format!("the only type is `string`, and this is `{}`", kind.value));
    }
}

fn parameters(reader: &Reader, node: &Node) -> Vec<Parameter> {
    let mut parameters = Vec::new();
    let items = named_items(reader, node, "parameters");
    if items.len() > MAX_PARAMETERS {
        let message = format!("the document has {} parameters, and the service takes {MAX_PARAMETERS}", items.len());
        reader.deviation(&items[MAX_PARAMETERS].0.span, message, None);
    }
    for (name, mut fields) in items {
        check_type(reader, &mut fields);
        let default = fields.get("default").and_then(|node| reader.any_text(node, "default"));
        let description = fields.get("description").and_then(|node| description(reader, node));
        let allowed = fields.get("allowedValues").and_then(|node| reader.texts(node, "allowedValues"));
        let allowed: Vec<String> = allowed.unwrap_or_default().into_iter().map(|value| value.value).collect();
        fields.finish(&PARAMETER_FIELDS);
        if let Some(default) = &default
            && !allowed.is_empty()
            && !allowed.contains(&default.value)
        {
            let message = format!("`{}` is not among the allowed values of `{}`", default.value, name.value);
            reader.error(&default.span, message);
        }
        parameters.push(Parameter { name, default: default.map(|default| default.value), allowed, description });
    }
    parameters
}

fn description(reader: &Reader, node: &Node) -> Option<String> {
    let text = reader.any_text(node, "description")?;
    if text.value.chars().count() > MAX_DESCRIPTION {
        let message = format!("a parameter's description has at most {MAX_DESCRIPTION} characters");
        reader.deviation(&text.span, message, None);
    }
    Some(text.value)
}

fn constants(reader: &Reader, node: &Node) -> Vec<Constant> {
    let mut constants = Vec::new();
    for (name, mut fields) in named_items(reader, node, "constants") {
        check_type(reader, &mut fields);
        let value = fields.require("value").and_then(|node| reader.any_text(node, "value"));
        fields.finish(&CONSTANT_FIELDS);
        constants.push(Constant { name, value: value.map(|value| value.value).unwrap_or_default() });
    }
    constants
}

fn unique<'a>(reader: &Reader, names: impl Iterator<Item = &'a Spanned<String>>, what: &str) {
    let mut seen: Vec<&str> = Vec::new();
    for name in names {
        if seen.contains(&name.value.as_str()) {
            reader.error(&name.span, format!("there is another {what} named `{}`", name.value));
        }
        seen.push(&name.value);
    }
}

fn phases(reader: &Reader, fields: &mut Fields<'_>) -> Option<Vec<Phase>> {
    let node = fields.require("phases")?;
    let items = reader.list(node, "phases")?;
    if items.is_empty() {
        reader.error(&node.span, "Document has 0 phases. Phases list must not be empty.");
    }
    let phases: Vec<Phase> = items.iter().filter_map(|item| phase(reader, item)).collect();
    unique(reader, phases.iter().map(|phase| &phase.name), "phase");
    if !phases.is_empty() && !phases.iter().any(|phase| PHASES.contains(&phase.name.value.as_str())) {
        reader.deviation(&node.span, "no phase is named build, validate or test, so no recipe would run any", None);
    }
    Some(phases)
}

fn phase(reader: &Reader, node: &Node) -> Option<Phase> {
    let mut fields = reader.map(node, "a phase")?;
    let name = fields.require("name").and_then(|node| reader.text(node, "name"));
    if let Some(name) = name.as_ref().filter(|name| !is_name(&name.value)) {
        let message = format!("Invalid phase name '{}'. {}", name.value, requirement(&name.value));
        reader.error(&name.span, message);
    }
    let disable_logging = fields.flag("disableLogging");
    let steps_node = fields.require("steps");
    fields.finish(&PHASE_FIELDS);
    let (name, steps_node) = (name?, steps_node?);
    let items = reader.list(steps_node, "steps")?;
    if items.is_empty() {
        reader.error(&steps_node.span, format!("the phase `{}` has no steps", name.value));
    }
    let steps: Vec<Step> = items.iter().filter_map(|item| step(reader, item, &name.value)).collect();
    unique(reader, steps.iter().map(|step| &step.name), "step of this phase");
    let loops = steps.iter().filter_map(|step| step.looping.as_ref()?.name.as_ref());
    unique(reader, loops, "loop of this phase");
    Some(Phase { name, steps, disable_logging })
}

const ALLOWED_CHARACTERS: &str = "Allowed characters are combinations of numbers [0-9], english letters [a-z,A-Z] \
                                  and special characters [-_].";

/// What a name that is none lacks. Of its length the service says nothing.
fn requirement(name: &str) -> &'static str {
    if has_allowed_characters(name) { "A name has 3 to 128 characters." } else { ALLOWED_CHARACTERS }
}

fn step(reader: &Reader, node: &Node, phase: &str) -> Option<Step> {
    let mut fields = reader.map(node, "a step")?;
    let name = fields.require("name").and_then(|node| reader.text(node, "name"));
    if let Some(name) = name.as_ref().filter(|name| !is_name(&name.value)) {
        let message = format!("Invalid step name '{}' in phase '{phase}'. {}", name.value, requirement(&name.value));
        reader.error(&name.span, message);
    }
    let action = fields.require("action").and_then(|node| reader.text(node, "action"));
    let (timeout_node, attempts_node) = (fields.get("timeoutSeconds"), fields.get("maxAttempts"));
    let timeout = timeout_node.and_then(|node| timeout(reader, node)).unwrap_or(Some(DEFAULT_TIMEOUT));
    let max_attempts = attempts_node.and_then(|node| max_attempts(reader, node)).unwrap_or(1);
    let on_failure = fields.get("onFailure").and_then(|node| on_failure(reader, node)).unwrap_or_default();
    let condition = fields.get("if").cloned();
    let looping = fields.get("loop").and_then(|node| looping::decode(reader, node));
    let inputs = fields.get("inputs").filter(|node| !node.is_null()).cloned();
    let disable_logging = fields.flag("disableLogging");
    let span = fields.span.clone();
    fields.finish(&STEP_FIELDS);
    Some(Step {
        name: name?,
        action: action?,
        timeout,
        on_failure,
        max_attempts,
        timeout_span: timeout_node.map(|node| node.span.clone()),
        attempts_span: attempts_node.map(|node| node.span.clone()),
        condition,
        looping,
        inputs,
        disable_logging,
        span,
    })
}

fn timeout(reader: &Reader, node: &Node) -> Option<Option<Duration>> {
    match reader.integer(node, "timeoutSeconds")? {
        -1 => Some(None),
        seconds @ 1.. => Some(u64::try_from(seconds).ok().map(Duration::from_secs)),
        other => {
            reader.error(&node.span, format!("`timeoutSeconds` is a positive number, or -1 for no limit, not {other}"));
            None
        }
    }
}

fn on_failure(reader: &Reader, node: &Node) -> Option<OnFailure> {
    let text = reader.text(node, "onFailure")?;
    match text.value.as_str() {
        "Abort" => Some(OnFailure::Abort),
        "Continue" => Some(OnFailure::Continue),
        "Ignore" => Some(OnFailure::Ignore),
        other => {
            reader.error(&text.span, format!("`onFailure` is Abort, Continue or Ignore, not `{other}`"));
            None
        }
    }
}

fn max_attempts(reader: &Reader, node: &Node) -> Option<u32> {
    let attempts = reader.integer(node, "maxAttempts")?;
    let attempts = u32::try_from(attempts).ok().filter(|&attempts| attempts >= 1);
    if attempts.is_none() {
        reader.error(&node.span, "`maxAttempts` counts all attempts, so it is at least 1");
    }
    attempts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> String {
        match decode(&Source::new("c.yaml", text), Strictness::Compat) {
            Err(report) => report.to_string(),
            Ok((reader, document)) => match reader.finish(document) {
                Err(report) => report.to_string(),
                Ok((_, warnings)) => format!("valid\n{warnings}"),
            },
        }
    }

    const GOOD: &str = "
name: Install nginx
schemaVersion: 1.0
parameters:
  - Port: { type: string, default: 8080, description: where it listens }
constants:
  - Package: { type: string, value: nginx }
phases:
  - name: build
    steps:
      - name: Install
        action: ExecuteBash
        timeoutSeconds: -1
        onFailure: Continue
        maxAttempts: 3
        inputs: { commands: [apt-get install nginx] }
";

    #[test]
    fn a_good_document() {
        let (reader, document) = decode(&Source::new("c.yaml", GOOD), Strictness::Strict).unwrap();
        let (document, warnings) = reader.finish(document).unwrap();
        assert_eq!(warnings.to_string(), "");
        assert_eq!(document.parameters[0].default.as_deref(), Some("8080"));
        let step = &document.phases[0].steps[0];
        assert_eq!((step.timeout, step.on_failure, step.max_attempts), (None, OnFailure::Continue, 3));
    }

    #[test]
    fn schema_versions_by_their_text() {
        for (version, good) in
            [("1.0", true), ("1", true), ("'1.0'", true), ("1.00", false), ("2", false), ("1.1", false)]
        {
            let text = GOOD.replace("schemaVersion: 1.0", &format!("schemaVersion: {version}"));
            assert_eq!(problems(&text).starts_with("valid"), good, "{version}");
        }
    }

    #[test]
    fn all_errors_at_once_each_with_its_place() {
        let text = "
nam: x
schemaVersion: 2
parameters:
  - name: Port
    type: string
  - Po: { type: int }
phases:
  - name: build
    steps:
      - name: Install it
        action: ExecuteBash
        timeoutSeconds: 0
        onFailure: abort
        maxAttempts: 0
        comands: []
      - name: Twice
        action: ExecuteBash
        loop: { name: Same, forEach: [] }
      - name: Twice
  - name: build
    steps: []
";
        insta::assert_snapshot!(problems(text), @"
        c.yaml:2:1: error: a component document has no field `nam` (did you mean `name`?)
        c.yaml:3:16: error: the schema version is 1.0, and this is `2`
        c.yaml:5:5: error: an item of `parameters` is a map with one key, its name (write `- Name: { type: string }`, with the name as the key)
        c.yaml:7:5: error: `Po` is no name: 3 to 128 letters, digits, hyphens or underscores
        c.yaml:7:17: error: the only type is `string`, and this is `int`
        c.yaml:11:15: error: Invalid step name 'Install it' in phase 'build'. Allowed characters are combinations of numbers [0-9], english letters [a-z,A-Z] and special characters [-_].
        c.yaml:13:25: error: `timeoutSeconds` is a positive number, or -1 for no limit, not 0
        c.yaml:14:20: error: `onFailure` is Abort, Continue or Ignore, not `abort`
        c.yaml:15:22: error: `maxAttempts` counts all attempts, so it is at least 1
        c.yaml:16:9: error: a step has no field `comands`
        c.yaml:19:38: error: `forEach` is empty
        c.yaml:20:9: error: a step needs the field `action`
        c.yaml:21:11: error: there is another phase named `build`
        c.yaml:22:12: error: the phase `build` has no steps
        ");
        insta::assert_snapshot!(problems("schemaVersion: 1.0\nphases: []\n"), @"c.yaml:2:9: error: Document has 0 phases. Phases list must not be empty.");
        insta::assert_snapshot!(problems("- just\n- a list\n"), @"c.yaml:1:1: error: a component document has to be a map, and this is a list");
    }
}
