//! Runs component documents against a guest.
//!
//! ```text
//!   Document ──compile──► Program ──run(phases)──► Outcome
//!      │  structure          │  steps with checked      │  each step: done, skipped, failed, failure ignored
//!      │                     │  inputs, conditions,     │  a loop's step as often as there are items
//!      └── parameters ───────┘  loops and references    └── a reboot goes on where it has to
//! ```
//!
//! Everything about a document is checked by [`Program::compile`], before any machine is started: actions that are not
//! known, inputs that are wrong, references to nothing. Only a document that another one runs is checked when that happens.
//! What steps get from outside the guest comes by a [`courier::Courier`]. Source of the rules: AWS user guide, "Action
//! modules supported by AWSTOE component manager", "Use variables", "Conditional constructs", "Looping constructs".

mod action;
mod compile;
mod condition;
pub mod courier;
mod encoding;
mod inputs;
mod kind;
mod log;
mod nested;
mod operator;
mod program;
mod reference;
mod rules;
mod runner;
mod secrets;
#[cfg(test)]
mod specification;
mod values;

pub use action::{MODULES, Module};
#[cfg(any(test, fuzzing))]
pub use condition::fuzz_condition;
pub use program::{Program, Rules, SECRETS, StepOutline};
pub use runner::{Event, Outcome, Runner, Site, StepFailure, StepReport, StepStatus};
pub use secrets::Secrets;
pub use values::References;
