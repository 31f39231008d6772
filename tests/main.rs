//! goldsmith from end to end: the program itself, on real virtual machines.
//!
//! Each test says what a user does and what has to come of it; `framework` holds what they share.

// A test that can't go on ends, and says where.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod check;
mod commands;
mod documents;
mod exports;
mod failures;
mod fakes;
mod framework;
mod images;
mod layers;
mod managed;
mod network;
mod opinions;
mod parents;
mod pipelines;
mod publish;
mod soak;
mod steps;
mod verdicts;
