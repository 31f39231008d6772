//! Services that tests talk to instead of the real ones.

pub(crate) mod cloud;
mod foreign_client;
