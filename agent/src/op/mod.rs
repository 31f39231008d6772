//! The primitives, one file each kind.

use std::io;

use goldsmith_agent::message::{OpError, OpErrorKind};

pub(crate) mod awake;
pub(crate) mod clear;
pub(crate) mod exec;
pub(crate) mod file;
pub(crate) mod owner;
pub(crate) mod power;
pub(crate) mod terminal;

/// An I/O error as the host sees it, with what it is about.
pub(crate) fn failed(what: &str, error: &io::Error) -> OpError {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => OpErrorKind::NotFound,
        io::ErrorKind::AlreadyExists => OpErrorKind::Exists,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => OpErrorKind::NoSpace,
        _ => OpErrorKind::Other,
    };
    OpError { kind, message: format!("{what}: {error}") }
}
