//! What users write: component documents, recipes, base images and distribution configurations.
//!
//! ```text
//!   text ──syntax──► nodes with positions ──decode──► component | recipe | base image | distribution
//!                        │                                 │
//!                        └────────── diagnostics ──────────┘   all of a document's at once
//! ```
//!
//! Everything here is a function of texts: no clock, no network, no guest.

pub mod age;
pub mod alias;
pub mod arn;
pub mod base_image;
pub mod canonical;
pub mod carrier;
pub mod cloudformation;
pub mod component;
pub mod component_use;
pub mod decode;
pub mod diagnostic;
pub mod distribution;
pub mod expression;
pub mod infrastructure;
pub mod lifecycle;
pub mod looping;
pub mod pipeline;
pub mod recipe;
pub mod resource;
pub mod secret;
pub mod shipped;
pub mod size;
pub mod syntax;
