//! goldsmith: a golden-image factory.
//!
//! A recipe names a parent image and components; goldsmith runs the components in a build VM, seals the disk, boots the
//! sealed bytes in a test VM, and exports them. The modules stand here in the order of that way, each using only what
//! stands below it.

pub mod check;
pub mod cli;
pub mod component;
pub mod disk;
pub mod document;
pub mod factory;
pub mod guest;
pub mod host;
pub mod import;
pub mod machine;
pub mod notify;
pub mod parent;
pub mod pipeline;
pub mod publish;
pub mod store;
