//! From a document's structure to a program: modules, inputs, conditions, loops; and what is wrong with them.

use super::action::{self, MODULES, Module, Takes};
use super::condition::{Condition, Guard};
use super::inputs::Inputs;
use super::program::{Loop, Phase, Program, Rules, Step};
use super::reference::Checker;
use super::rules;
use crate::document::component::{self, Document};
use crate::document::decode::{Reader, Spanned, suggest};
use crate::document::expression::{Reference, Template};
use crate::document::looping::Over;
use crate::document::syntax::{Node, Value};

/// Longest document that the API takes as a text.
const MAX_INLINE: usize = 16_000;

/// A program of a document. It is of use only if the reader finds no error.
pub(super) fn compile(reader: &Reader, document: Document, rules: &Rules) -> Program {
    let constants = document.constants.iter();
    let names = constants.map(|constant| (constant.name.value.clone(), constant.value.clone())).collect();
    if let Some(size) = rules.inline_size.filter(|&size| size > MAX_INLINE) {
        let message = format!("the document has {size} bytes, and the service takes {MAX_INLINE} as `data`");
        reader.deviation(&(0..1), message, Some("put it into S3 and name it by `uri`".to_owned()));
    }
    let compiler = Compiler { reader, document: &document, rules };
    let mut phases: Vec<Phase> = Vec::new();
    for phase in &document.phases {
        phases.push(Phase { name: phase.name.value.clone(), steps: Vec::new() });
        for step in &phase.steps {
            let compiled = compiler.step(phase, step, &phases);
            if let (Some(last), Some(compiled)) = (phases.last_mut(), compiled) {
                last.steps.push(compiled);
            }
        }
    }
    Program { document, phases, names }
}

struct Compiler<'a> {
    reader: &'a Reader,
    document: &'a Document,
    rules: &'a Rules,
}

/// What a step is told, and the references in it.
#[derive(Default)]
struct Told {
    inputs: Inputs,
    condition: Option<Condition>,
}

impl Compiler<'_> {
    fn step(&self, phase: &component::Phase, step: &component::Step, earlier: &[Phase]) -> Option<Step> {
        let mut references = Vec::new();
        let checker = Checker { reader: self.reader, document: self.document, earlier, looping: None };
        let guard = step.condition.as_ref().map(|node| {
            let (mut guard, texts) = Guard::decode(self.reader, node);
            let templates = guard.as_mut().map(|guard| guard.condition.templates()).unwrap_or_default();
            check(&checker, templates, &texts, &mut references);
            guard
        });
        let looping = step.looping.as_ref().map(|looping| self.looping(looping, &checker, &mut references));
        let module = self.module(&step.action)?;
        let name = step.looping.as_ref().map(|looping| looping.name.as_ref().map(|name| name.value.as_str()));
        let told = self.told(module, (phase, step), &Checker { looping: name, ..checker }, &mut references)?;
        rules::check(self.reader, module, step, &told.inputs, self.rules.platform);
        // How long its document may take, or a restart, is not the step's to say.
        let timeout = if matches!(module.name, "Reboot" | "ExecuteDocument") { None } else { step.timeout };
        let guard = match guard {
            Some(guard) => Some(guard?),
            None => None,
        };
        Some(Step {
            name: step.name.value.clone(),
            module,
            guard,
            looping,
            inputs: told.inputs,
            condition: told.condition,
            timeout,
            on_failure: step.on_failure,
            max_attempts: step.max_attempts,
            is_silent: self.document.disable_logging || phase.disable_logging || step.disable_logging,
            references,
        })
    }

    fn looping(
        &self,
        looping: &crate::document::looping::Loop,
        checker: &Checker<'_>,
        references: &mut Vec<Reference>,
    ) -> Loop {
        let mut template = |text: &Spanned<String>| {
            let mut template = Template::parse(&text.value);
            check(checker, vec![&mut template], std::slice::from_ref(text), references);
            template
        };
        match &looping.over {
            Over::Numbers(numbers) => Loop::Numbers(*numbers),
            Over::Items(items) => Loop::Items(items.iter().map(template).collect()),
            Over::Delimited { list, delimiter } => Loop::Delimited { list: template(list), delimiter: *delimiter },
        }
    }

    fn module(&self, action: &Spanned<String>) -> Option<&'static Module> {
        let (name, span, platform) = (&action.value, &action.span, self.rules.platform);
        let Some(module) = action::find(name) else {
            let known: Vec<&str> = MODULES.iter().map(|module| module.name).collect();
            let message = format!("there is no action `{name}`");
            match suggest(name, &known) {
                Some(help) => self.reader.error_with_help(span, message, help),
                None => self.reader.error(span, message),
            }
            return None;
        };
        if !module.runs_on(platform) {
            let message = format!("the action `{name}` does not run on {}", platform.name());
            let others: Vec<&str> = module.platforms.iter().map(|platform| platform.name()).collect();
            self.reader.error_with_help(span, message, format!("it runs on {}", others.join(" and ")));
        }
        if self.rules.blocked.contains(name) {
            self.reader.error(span, format!("the action `{name}` is blocked"));
        }
        Some(module)
    }

    fn told(
        &self,
        module: &'static Module,
        (phase, step): (&component::Phase, &component::Step),
        checker: &Checker<'_>,
        references: &mut Vec<Reference>,
    ) -> Option<Told> {
        let Some(node) = &step.inputs else {
            if module.takes.is_optional() && !matches!(module.name, "ExecutePowerShell") {
                return Some(Told::default());
            }
            self.no_inputs(module, phase, step);
            return None;
        };
        let mut told = Told::default();
        let (templates, texts) = match module.takes {
            Takes::Condition => {
                let (condition, texts) = Condition::decode(self.reader, node);
                told.condition = condition;
                (told.condition.as_mut().map(Condition::templates).unwrap_or_default(), texts)
            }
            Takes::Map(fields) => {
                let (inputs, texts) = Inputs::decode(self.reader, module.name, &[node], fields);
                told.inputs = inputs;
                (told.inputs.templates(), texts)
            }
            Takes::List(fields) => {
                let nodes = self.elements(node, module);
                if nodes.is_empty() {
                    self.no_inputs(module, phase, step);
                }
                let (inputs, texts) = Inputs::decode(self.reader, module.name, &nodes, fields);
                told.inputs = inputs;
                (told.inputs.templates(), texts)
            }
        };
        check(checker, templates, &texts, references);
        Some(told)
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
}

/// Checks what texts refer to, and collects it.
fn check(
    checker: &Checker<'_>,
    templates: Vec<&mut Template>,
    texts: &[Spanned<String>],
    references: &mut Vec<Reference>,
) {
    for (template, text) in templates.into_iter().zip(texts) {
        checker.check(template, text);
        references.extend(template.references().map(|(reference, _)| reference.clone()));
    }
}
