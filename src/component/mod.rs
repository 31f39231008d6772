//! Runs component documents against a guest.
//!
//! ```text
//!   Document ──compile──► Program ──run(phases)──► Outcome
//!      │  structure          │  steps with checked      │  each step: done, failed, failure ignored
//!      │                     │  inputs and references   │
//!      └── parameters ───────┘                          └── a reboot goes on where it has to
//! ```
//!
//! Everything about a document is checked by [`Program::compile`], before any machine is started: actions that are not
//! known, inputs that are wrong, references to nothing. Source of the rules: AWS user guide, "Action modules supported
//! by AWSTOE component manager", "Use variables", "Conditional constructs".

mod action;
mod condition;
mod inputs;
mod program;
mod runner;
mod values;

pub use action::{MODULES, Module};
pub use program::Program;
pub use runner::{Event, Outcome, Runner, Site, StepFailure, StepReport, StepStatus};
