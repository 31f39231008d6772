//! What every stage asks of this machine: child processes that can't outlive us, and files that are whole or absent.

pub mod file;
pub mod process;
