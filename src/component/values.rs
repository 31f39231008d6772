//! What references stand for while a document runs.

use std::collections::HashMap;

use super::inputs::Resolved;
use crate::document::expression::{Reference, Side};

/// Outputs of a step, by name.
pub(super) type Outputs = Vec<(&'static str, String)>;

/// Values by name, and inputs and outputs of the steps that have run.
#[derive(Debug, Default)]
pub(super) struct Values {
    names: HashMap<String, String>,
    steps: HashMap<(String, String), Step>,
}

#[derive(Debug, Default)]
struct Step {
    inputs: Vec<Resolved>,
    outputs: Outputs,
}

impl Values {
    /// Values of parameters and constants.
    pub(super) fn new(names: HashMap<String, String>) -> Self {
        Self { names, steps: HashMap::new() }
    }

    /// Notes what a step was given.
    pub(super) fn given(&mut self, phase: &str, step: &str, inputs: Vec<Resolved>) {
        self.steps.entry((phase.to_owned(), step.to_owned())).or_default().inputs = inputs;
    }

    /// Notes what a step produced.
    pub(super) fn produced(&mut self, phase: &str, step: &str, outputs: Outputs) {
        self.steps.entry((phase.to_owned(), step.to_owned())).or_default().outputs = outputs;
    }

    /// What a reference stands for now, or why it stands for nothing.
    pub(super) fn get(&self, reference: &Reference) -> Result<String, String> {
        let value = match reference {
            Reference::Name(name) => self.names.get(name).cloned(),
            Reference::Chained { phase, step, side, index, key } => {
                let step = self.steps.get(&(phase.clone(), step.clone()));
                step.and_then(|step| match side {
                    Side::Inputs => step.inputs.get(index.unwrap_or(0))?.text(key).map(str::to_owned),
                    Side::Outputs => step.outputs.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone()),
                })
            }
            Reference::Loop(_) | Reference::Prefixed(_) => None,
        };
        value
            .ok_or_else(|| format!("`{{{{ {reference} }}}}` has no value: the step it refers to did not run or failed"))
    }
}
