//! A component document made ready to run: every action known, every input read, every reference checked.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::action::Module;
use super::compile;
use super::condition::{Condition, Guard};
use super::inputs::Inputs;
use super::values::{References, Values, given_name, no_value};
use crate::document::component::{self, Document, OnFailure, Platform};
use crate::document::decode::Strictness;
use crate::document::diagnostic::Report;
use crate::document::expression::{Reference, Template};
use crate::document::looping::Numbers;
use crate::document::syntax::Source;

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
    pub(super) guard: Option<Guard>,
    pub(super) looping: Option<Loop>,
    pub(super) inputs: Inputs,
    pub(super) condition: Option<Condition>,
    pub(super) timeout: Option<Duration>,
    pub(super) on_failure: OnFailure,
    pub(super) max_attempts: u32,
    pub(super) is_silent: bool,
    /// All that it refers to.
    pub(super) references: Vec<Reference>,
}

/// What a step is repeated for.
#[derive(Debug, Clone)]
pub(super) enum Loop {
    Numbers(Numbers),
    Items(Vec<Template>),
    Delimited { list: Template, delimiter: char },
}

/// By which rules a document is checked.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// How strictly.
    pub strictness: Strictness,
    /// What it is to run on.
    pub platform: Platform,
    /// Actions that somebody does not want.
    pub blocked: Vec<String>,
    /// Its size in bytes, if it is part of another document.
    pub inline_size: Option<usize>,
}

impl From<Strictness> for Rules {
    fn from(strictness: Strictness) -> Self {
        Self { strictness, ..Self::default() }
    }
}

/// Longest value of a parameter: the service's quota.
const MAX_PARAMETER: usize = 1024;
/// Values under this name in the Parameter Store are secrets.
pub const SECRETS: &str = "aws:ssm:/aws/reference/secretsmanager/";

impl Program {
    /// Checks a document. Parameters without a value are no error yet: nobody has said what they are.
    pub fn check(source: &Arc<Source>, rules: impl Into<Rules>) -> Result<(Self, Report), Report> {
        let rules = rules.into();
        let (reader, document) = component::decode(source, rules.strictness)?;
        let program = document.map(|document| compile::compile(&reader, document, &rules));
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

    /// What is to be run by another document, with what that one sets.
    pub(super) fn nested(source: &Arc<Source>, parameters: &[(String, String)]) -> Result<Self, String> {
        let compiled = Self::compile(source, parameters, Strictness::Compat);
        let (program, _, problems) = compiled.map_err(|report| report.to_string())?;
        if problems.is_empty() { Ok(program) } else { Err(problems.join("; ")) }
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
        // What another document does is not known before it runs.
        self.steps().any(|step| matches!(step.module.name, "UpdateOS" | "ExecuteDocument"))
    }

    /// Whether it may well be about secrets: what a step writes must not be logged, or it asks for one.
    pub fn may_hold_secrets(&self) -> bool {
        let is_secret = |reference: &Reference| reference.to_string().starts_with(SECRETS);
        self.steps().any(|step| step.is_silent || step.references.iter().any(is_secret))
    }

    fn steps(&self) -> impl Iterator<Item = &Step> {
        self.phases.iter().flat_map(|phase| &phase.steps)
    }

    /// Names under which somebody has to give values for what the document refers to and only AWS has.
    fn given_names(&self, references: &References) -> Vec<Result<String, String>> {
        let values = Values::of(self);
        let all = self.steps().flat_map(|step| &step.references);
        all.filter_map(|reference| given_name(reference, &values, references)).collect()
    }

    /// References to what only AWS has that nobody has given a value: their names, as far as these are known, and what to
    /// say of them.
    pub fn missing_references(&self, references: &References) -> Vec<(String, String)> {
        let mut problems: Vec<(String, String)> = Vec::new();
        for name in self.given_names(references) {
            let problem = match name {
                Ok(name) if references.contains_key(&name) => continue,
                Ok(name) => (name.clone(), no_value(&name)),
                Err(problem) => (String::new(), problem),
            };
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        problems
    }

    /// Whether it runs documents that nobody knows before.
    fn runs_documents(&self) -> bool {
        self.steps().any(|step| step.module.name == "ExecuteDocument")
    }

    /// The given values that the document refers to, by name; all of them if it runs other documents, which may.
    pub fn used_references(&self, references: &References) -> References {
        if self.runs_documents() {
            return references.clone();
        }
        let names = self.given_names(references).into_iter().flatten();
        names.filter_map(|name| references.get(&name).cloned().map(|value| (name, value))).collect()
    }

    /// Values of its parameters and constants, by name.
    pub fn values(&self) -> BTreeMap<&str, &str> {
        self.names.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    /// Forgets all phases but these, and with them what only the others refer to.
    pub fn keep_phases(&mut self, names: &[&str]) {
        self.phases.retain(|phase| names.contains(&phase.name.as_str()));
    }

    /// Names of its phases.
    pub fn phases(&self) -> impl Iterator<Item = &str> {
        self.phases.iter().map(|phase| phase.name.as_str())
    }

    /// What its phases and their steps say of themselves.
    pub fn outline(&self) -> Vec<(&str, Vec<StepOutline>)> {
        let steps = |phase: &Phase| phase.steps.iter().map(StepOutline::of).collect();
        self.phases.iter().map(|phase| (phase.name.as_str(), steps(phase))).collect()
    }

    /// Whether it has steps in a phase.
    pub fn has_phase(&self, name: &str) -> bool {
        self.phases.iter().any(|phase| phase.name == name)
    }
}

/// What a step says of itself, in the document's words.
#[derive(Debug, Clone)]
pub struct StepOutline {
    /// Its name.
    pub name: String,
    /// The action module.
    pub action: &'static str,
    /// How long an attempt may take; -1 for ever.
    pub timeout_seconds: i64,
    /// What happens when it fails.
    pub on_failure: &'static str,
    /// How many attempts it has.
    pub max_attempts: u32,
}

impl StepOutline {
    fn of(step: &Step) -> Self {
        Self {
            name: step.name.clone(),
            action: step.module.name,
            timeout_seconds: step.timeout.map_or(-1, |timeout| i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX)),
            on_failure: match step.on_failure {
                OnFailure::Abort => "Abort",
                OnFailure::Continue => "Continue",
                OnFailure::Ignore => "Ignore",
            },
            max_attempts: step.max_attempts,
        }
    }
}

impl Step {
    /// How long it may take, in words.
    pub(super) fn late(&self) -> String {
        let seconds = self.timeout.unwrap_or_default().as_secs();
        let what = if self.looping.is_some() { "the loop timed out" } else { "timed out" };
        format!("{what} after {seconds} s")
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
             \x20     - { name: Two, action: ExecutePowerShell, inputs: { commands: [x] } }\n\
             \x20     - { name: Three, action: Teleport }\n",
        );
        insta::assert_snapshot!(problems(&text), @"
        c.yaml:7:30: error: there is no action `ExecuteBsh` (did you mean `ExecuteBash`?)
        c.yaml:8:30: error: the action `ExecutePowerShell` does not run on Linux (it runs on Windows)
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
        c.yaml:17:20: error: `{{ build.Later.outputs.stdout }}`: there is no step `Later` in the phase `build` before this step; it comes later, or is wrong itself
        c.yaml:17:53: error: `{{ test.Get.outputs.destination }}`: there is no phase `test` before this step
        c.yaml:18:42: warning: no loop `loop` is around this; the text is left as it is
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
