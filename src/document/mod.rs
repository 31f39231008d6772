//! What users write: component documents, recipes and base images.
//!
//! ```text
//!   text ──syntax──► nodes with positions ──decode──► component | recipe | base image
//!                        │                                 │
//!                        └────────── diagnostics ──────────┘   all of a document's at once
//! ```
//!
//! Everything here is a function of texts: no clock, no network, no guest.

pub mod age;
pub mod base_image;
pub mod canonical;
pub mod component;
pub mod decode;
pub mod diagnostic;
pub mod expression;
pub mod recipe;
pub mod shipped;
pub mod size;
pub mod syntax;
