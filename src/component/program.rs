//! A component document made ready to run: every action known, every input read, every reference checked.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::action::{self, Module, NOT_YET, Takes};
use super::condition::Condition;
use super::inputs::Inputs;
use crate::document::component::{self, Document, OnFailure};
use crate::document::decode::{Reader, Spanned, Strictness, suggest};
use crate::document::diagnostic::Report;
use crate::document::expression::{Reference, Side, Template};
use crate::document::syntax::{Node, Source, Value};

/// A component document made ready to run.
#[derive(Debug, Clone)]
pub struct Program {
    /// The document.
    pub document: Document,
    pub(super) phases: Vec<Phase>,
    pub(super) names: HashMap<String, String>,
}

#[derive(Debug, Clone)]
pub(super) struct Phase {
    pub(super) name: String,
    pub(super) steps: Vec<Step>,
}

#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) name: String,
    pub(super) module: &'static Module,
    pub(super) inputs: Inputs,
    pub(super) condition: Option<Condition>,
    pub(super) timeout: Option<Duration>,
    pub(super) on_failure: OnFailure,
    pub(super) max_attempts: u32,
    pub(super) is_silent: bool,
}

/// Longest value of a parameter: the service's quota.
const MAX_PARAMETER: usize = 1024;

impl Program {
    /// Checks a document. Parameters without a value are no error yet: nobody has said what they are.
    pub fn check(source: &Arc<Source>, strictness: Strictness) -> Result<(Self, Report), Report> {
        let (reader, document) = component::decode(source, strictness)?;
        let program = document.map(|document| Compiler { reader: &reader, document: &document }.program());
        reader.finish(program)
    }

    /// A document with values for its parameters. What is wrong with the values is told in words, because their place is
    /// in another document.
    pub fn compile(
        source: &Arc<Source>,
        parameters: &[(String, String)],
        strictness: Strictness,
    ) -> Result<(Self, Report, Vec<String>), Report> {
        let (mut program, warnings) = Self::check(source, strictness)?;
        let problems = program.set_parameters(parameters);
        Ok((program, warnings, problems))
    }

    fn set_parameters(&mut self, given: &[(String, String)]) -> Vec<String> {
        let declared = &self.document.parameters;
        let mut problems = Vec::new();
        let is_declared = |name: &str| declared.iter().any(|parameter| parameter.name.value == name);
        let unknown: Vec<&str> =
            given.iter().map(|(name, _)| name.as_str()).filter(|name| !is_declared(name)).collect();
        if !unknown.is_empty() {
            let names = unknown.join(", ");
            problems.push(format!("The following parameters are not defined in the provided component: {names}"));
        }
        for parameter in declared {
            let name = &parameter.name.value;
            let value = given.iter().rfind(|(given, _)| given == name).map(|(_, value)| value);
            let Some(value) = value.or(parameter.default.as_ref()) else {
                problems.push(format!("the parameter `{name}` has no default and is not set"));
                continue;
            };
            if value.len() > MAX_PARAMETER {
                problems.push(format!("the parameter `{name}` has more than {MAX_PARAMETER} characters"));
            }
            if !parameter.allowed.is_empty() && !parameter.allowed.contains(value) {
                let allowed = parameter.allowed.join(", ");
                problems.push(format!("the parameter `{name}` can't be `{value}`; it may be: {allowed}"));
            }
            self.names.insert(name.clone(), value.clone());
        }
        problems
    }

    /// What to call it in messages: its document's own name, or where it came from.
    pub fn name(&self) -> &str {
        self.document.name.as_deref().unwrap_or(&self.document.source.name)
    }

    /// Whether a step takes whatever is newest when it runs.
    pub fn takes_newest(&self) -> bool {
        self.phases.iter().flat_map(|phase| &phase.steps).any(|step| step.module.name == "UpdateOS")
    }

    /// Whether what a step writes must not be logged, so that it may well be about secrets.
    pub fn has_silent_steps(&self) -> bool {
        self.phases.iter().flat_map(|phase| &phase.steps).any(|step| step.is_silent)
    }

    /// Values of its parameters and constants, by name.
    pub fn values(&self) -> std::collections::BTreeMap<&str, &str> {
        self.names.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    /// Whether it has steps in a phase.
    pub fn has_phase(&self, name: &str) -> bool {
        self.phases.iter().any(|phase| phase.name == name)
    }
}

struct Compiler<'a> {
    reader: &'a Reader,
    document: &'a Document,
}

impl Compiler<'_> {
    fn program(&self) -> Program {
        let constants = &self.document.constants;
        let names = constants.iter().map(|constant| (constant.name.value.clone(), constant.value.clone())).collect();
        let mut phases: Vec<Phase> = Vec::new();
        for phase in &self.document.phases {
            phases.push(Phase { name: phase.name.value.clone(), steps: Vec::new() });
            for step in &phase.steps {
                let compiled = self.step(phase, step, &phases);
                if let (Some(last), Some(compiled)) = (phases.last_mut(), compiled) {
                    last.steps.push(compiled);
                }
            }
        }
        Program { document: self.document.clone(), phases, names }
    }

    fn step(&self, phase: &component::Phase, step: &component::Step, earlier: &[Phase]) -> Option<Step> {
        let module = self.module(&step.action)?;
        let (inputs, condition) = self.inputs(module, phase, step, earlier)?;
        let timeout = if module.name == "Reboot" { None } else { step.timeout };
        Some(Step {
            name: step.name.value.clone(),
            module,
            inputs,
            condition,
            timeout,
            on_failure: step.on_failure,
            max_attempts: step.max_attempts,
            is_silent: self.document.disable_logging || phase.disable_logging || step.disable_logging,
        })
    }

    fn module(&self, action: &Spanned<String>) -> Option<&'static Module> {
        let module = action::find(&action.value);
        if module.is_none() {
            let name = &action.value;
            if NOT_YET.contains(&name.as_str()) {
                let message = format!("the action `{name}` is not supported by this version of goldsmith");
                self.reader.error(&action.span, message);
            } else {
                let known: Vec<&str> = action::MODULES.iter().map(|module| module.name).chain(NOT_YET).collect();
                let message = format!("there is no action `{name}`");
                match suggest(name, &known) {
                    Some(help) => self.reader.error_with_help(&action.span, message, help),
                    None => self.reader.error(&action.span, message),
                }
            }
        }
        module
    }

    fn inputs(
        &self,
        module: &'static Module,
        phase: &component::Phase,
        step: &component::Step,
        earlier: &[Phase],
    ) -> Option<(Inputs, Option<Condition>)> {
        let Some(node) = &step.inputs else {
            if module.takes.is_optional() {
                return Some((Inputs::default(), None));
            }
            self.no_inputs(module, phase, step);
            return None;
        };
        let (mut inputs, mut condition) = (Inputs::default(), None);
        let (templates, texts) = match module.takes {
            Takes::Condition => {
                let (read, texts) = Condition::decode(self.reader, node);
                condition = read;
                (condition.as_mut().map(Condition::templates).unwrap_or_default(), texts)
            }
            Takes::Map(fields) => {
                let (read, texts) = Inputs::decode(self.reader, module.name, &[node], fields);
                inputs = read;
                (inputs.templates(), texts)
            }
            Takes::List(fields) => {
                let nodes = self.elements(node, module);
                if nodes.is_empty() {
                    self.no_inputs(module, phase, step);
                }
                let (read, texts) = Inputs::decode(self.reader, module.name, &nodes, fields);
                inputs = read;
                (inputs.templates(), texts)
            }
        };
        for (template, text) in templates.into_iter().zip(&texts) {
            self.references(template, text, earlier);
        }
        Some((inputs, condition))
    }

    fn no_inputs(&self, module: &Module, phase: &component::Phase, step: &component::Step) {
        let (phase, name) = (&phase.name.value, &step.name.value);
        let message = format!(
            "Parsing step '{name}' in phase '{phase}' failed. Error: Action {} has no inputs; it requires an 'inputs'",
            module.name
        );
        self.reader.error(&step.name.span, message);
    }

    /// The elements of a list module's inputs. Some documents leave the list's dash out when there is one element.
    fn elements<'n>(&self, node: &'n Node, module: &Module) -> Vec<&'n Node> {
        match &node.value {
            Value::Sequence(items) => items.iter().collect(),
            Value::Mapping(_) => {
                let message = format!("the inputs of `{}` are a list", module.name);
                self.reader.deviation(&node.span, message, Some("put `- ` before the map".to_owned()));
                vec![node]
            }
            Value::Scalar(_) => {
                let message = format!("the inputs of `{}` are a list, and this is {}", module.name, node.kind());
                self.reader.error(&node.span, message);
                Vec::new()
            }
        }
    }

    /// Checks what a text refers to. References that have no meaning here and could be foreign text stay as they are.
    fn references(&self, template: &mut Template, text: &Spanned<String>, earlier: &[Phase]) {
        let mut verbatim = Vec::new();
        for (reference, range) in template.references() {
            let span = self.locate(text, &range);
            match reference {
                // Without a loop there is no iteration; the guide says that such text stays.
                Reference::Loop(_) => verbatim.push(reference.clone()),
                Reference::Prefixed(kind) => {
                    let message = format!("references such as `{kind}` are not supported by this version of goldsmith");
                    self.reader.error(&span, message);
                }
                Reference::Name(name) if self.is_declared(name) => {}
                Reference::Name(name) => {
                    let message = format!("`{name}` is neither a parameter nor a constant; the text is left as it is");
                    self.reader.deviation(&span, message, suggest(name, &self.declared()));
                    verbatim.push(reference.clone());
                }
                Reference::Chained { phase, step, side, index, key } => {
                    if let Some(problem) = chained(earlier, (phase, step), *side, *index, key) {
                        self.reader.error(&span, format!("`{{{{ {reference} }}}}`: {problem}"));
                    }
                }
            }
        }
        template.keep_verbatim(&text.value, |reference| verbatim.contains(reference));
    }

    /// Where a part of a text stands in the source: only where the text is written as it is read.
    fn locate(&self, text: &Spanned<String>, range: &Range<usize>) -> Range<usize> {
        let written = self.reader.source.text.get(text.span.clone()).unwrap_or_default();
        let needle = text.value.get(range.clone()).unwrap_or_default();
        match written.find(needle) {
            Some(at) if !needle.is_empty() => text.span.start + at..text.span.start + at + needle.len(),
            _ => text.span.clone(),
        }
    }

    fn is_declared(&self, name: &str) -> bool {
        self.declared().contains(&name)
    }

    fn declared(&self) -> Vec<&str> {
        let parameters = self.document.parameters.iter().map(|parameter| parameter.name.value.as_str());
        parameters.chain(self.document.constants.iter().map(|constant| constant.name.value.as_str())).collect()
    }
}

/// What is wrong with a reference to a step, if anything.
fn chained(
    earlier: &[Phase],
    (phase, step): (&str, &str),
    side: Side,
    index: Option<usize>,
    key: &str,
) -> Option<String> {
    let Some(found) = earlier.iter().find(|candidate| candidate.name == phase) else {
        return Some(format!("there is no phase `{phase}` before this step"));
    };
    let Some(found) = found.steps.iter().find(|candidate| candidate.name == step) else {
        return Some(format!("there is no step `{step}` in the phase `{phase}` before this step"));
    };
    match side {
        Side::Outputs if !found.module.outputs.contains(&key) => {
            let known = found.module.outputs.join(", ");
            let known = if known.is_empty() { "none".to_owned() } else { known };
            Some(format!("`{}` has no output `{key}`; it has: {known}", found.module.name))
        }
        Side::Inputs if !found.inputs.has_text(index.unwrap_or(0), key) => {
            Some(format!("the step `{step}` has no such input, or it is a list"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> String {
        match Program::check(&Source::new("c.yaml", text), Strictness::Compat) {
            Ok((_, warnings)) => format!("valid\n{warnings}"),
            Err(report) => report.to_string(),
        }
    }

    fn document(steps: &str) -> String {
        format!(
            "schemaVersion: 1.0\nparameters:\n  - Port: {{ type: string }}\n\
             phases:\n  - name: build\n    steps:\n{steps}"
        )
    }

    #[test]
    fn unknown_and_unsupported_actions_are_refused() {
        let text = document(
            "      - { name: One, action: ExecuteBsh, inputs: { commands: [x] } }\n\
             \x20     - { name: Two, action: S3Download, inputs: [{ source: s3://x/y, destination: /z }] }\n\
             \x20     - { name: Three, action: Teleport }\n",
        );
        insta::assert_snapshot!(problems(&text), @"
        c.yaml:7:30: error: there is no action `ExecuteBsh` (did you mean `ExecuteBash`?)
        c.yaml:8:30: error: the action `S3Download` is not supported by this version of goldsmith
        c.yaml:9:32: error: there is no action `Teleport`
        ");
    }

    #[test]
    fn inputs_are_checked_against_the_module() {
        let text = document(
            "      - { name: One, action: ExecuteBash }\n\
             \x20     - { name: Two, action: ExecuteBash, inputs: { commands: [], command: x } }\n\
             \x20     - { name: Three, action: CreateFile, inputs: [{ content: x, overwrite: maybe }] }\n\
             \x20     - { name: Four, action: DeleteFile, inputs: { path: /x, force: true } }\n\
             \x20     - { name: Five, action: Reboot, inputs: { delaySeconds: -1 } }\n\
             \x20     - { name: Six, action: UpdateOS }\n\
             \x20     - { name: Seven, action: WebDownload, inputs: [] }\n\
             \x20     - { name: Eight, action: ExecuteBash, inputs: { commands: script.sh } }\n",
        );
        insta::assert_snapshot!(problems(&text), @"
        c.yaml:7:17: error: Parsing step 'One' in phase 'build' failed. Error: Action ExecuteBash has no inputs; it requires an 'inputs'
        c.yaml:8:63: error: `commands` is empty
        c.yaml:8:67: warning: `ExecuteBash` has no field `command` (did you mean `commands`?)
        c.yaml:9:53: error: `CreateFile` needs the field `path`
        c.yaml:9:78: error: `overwrite` has to be true or false, and this is `maybe`
        c.yaml:10:51: warning: the inputs of `DeleteFile` are a list (put `- ` before the map)
        c.yaml:10:63: warning: `DeleteFile` has no field `force`
        c.yaml:11:63: error: `delaySeconds` has to be a whole number, not negative, and this is `-1`
        c.yaml:13:17: error: Parsing step 'Seven' in phase 'build' failed. Error: Action WebDownload has no inputs; it requires an 'inputs'
        c.yaml:14:65: warning: `commands` has to be a list (put `- ` before it)
        ");
    }

    #[test]
    fn references_are_checked_before_anything_runs() {
        let text = document(
            "      - name: Get\n        action: WebDownload\n        inputs:\n\
             \x20         - { source: 'https://x/{{ Port }}/{{ Prot }}', destination: /x }\n\
             \x20     - name: Use\n        action: ExecuteBash\n        inputs:\n          commands:\n\
             \x20           - tar xf {{ build.Get.inputs[0].destination }}\n\
             \x20           - echo {{ build.Get.outputs.stdout }} {{ build.Get.inputs[1].source }}\n\
             \x20           - echo {{ build.Later.outputs.stdout }} {{ test.Get.outputs.destination }}\n\
             \x20           - echo {{ aws:ssm:/secret }} {{ loop.value }}\n\
             \x20           - docker ps --format '{{.Names}}'\n\
             \x20     - { name: Later, action: ExecuteBash, inputs: { commands: [x] } }\n",
        );
        insta::assert_snapshot!(problems(&text), @"
        c.yaml:10:45: warning: `Prot` is neither a parameter nor a constant; the text is left as it is (did you mean `Port`?)
        c.yaml:16:20: error: `{{ build.Get.outputs.stdout }}`: `WebDownload` has no output `stdout`; it has: destination
        c.yaml:16:51: error: `{{ build.Get.inputs[1].source }}`: the step `Get` has no such input, or it is a list
        c.yaml:17:20: error: `{{ build.Later.outputs.stdout }}`: there is no step `Later` in the phase `build` before this step
        c.yaml:17:53: error: `{{ test.Get.outputs.destination }}`: there is no phase `test` before this step
        c.yaml:18:20: error: references such as `aws:ssm:/secret` are not supported by this version of goldsmith
        ");
    }

    #[test]
    fn values_of_parameters_are_checked() {
        let source = Source::new(
            "c.yaml",
            "schemaVersion: 1.0\nparameters:\n  - Port: { type: string }\n  - Mode: { type: string, default: a, allowedValues: [a, b] }\n\
             phases:\n  - name: build\n    steps:\n      - { name: Run, action: ExecuteBash, inputs: { commands: ['{{ Port }}{{ Mode }}'] } }\n",
        );
        let compile = |parameters: &[(&str, &str)]| {
            let parameters: Vec<(String, String)> =
                parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            Program::compile(&source, &parameters, Strictness::Strict).unwrap().2.join("\n")
        };
        assert_eq!(compile(&[("Port", "1")]), "");
        insta::assert_snapshot!(compile(&[("Prot", "1"), ("Mode", "c")]), @"
        The following parameters are not defined in the provided component: Prot
        the parameter `Port` has no default and is not set
        the parameter `Mode` can't be `c`; it may be: a, b
        ");
        assert!(compile(&[("Port", &"1".repeat(1025))]).contains("more than 1024"));
    }
}
