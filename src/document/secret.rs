//! Where a secret comes from: `env:VARIABLE`, `file:PATH` or `cmd:COMMAND`.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::decode::Reader;
use super::recipe::{is_given_reference, labels_with_spans};
use super::syntax::Node;

/// Where a secret comes from. Its value is in no document.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A variable of goldsmith's own environment.
    Variable(String),
    /// A file, without the line break at its end.
    File(PathBuf),
    /// What a command for `sh` prints, without the line break at its end.
    Command(String),
    /// It is here already.
    Value(String),
}

impl std::fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Value(_) => f.write_str("Value"),
            other => write!(f, "{other}"),
        }
    }
}

impl std::fmt::Display for SecretSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Variable(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Command(command) => write!(f, "cmd:{command}"),
            Self::Value(_) => f.write_str("a value"),
        }
    }
}

impl FromStr for SecretSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() && !name.contains('=') => Ok(Self::Variable(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("cmd", command)) if !command.trim().is_empty() => Ok(Self::Command(command.to_owned())),
            // What is wrong is not repeated: it may be the secret itself.
            _ => Err("a secret comes from env:VARIABLE, file:PATH or cmd:COMMAND".to_owned()),
        }
    }
}

impl SecretSource {
    /// The same, with a relative path taken as one in `folder`.
    pub fn within(self, folder: &Path) -> Self {
        match self {
            Self::File(path) => Self::File(folder.join(path)),
            other => other,
        }
    }
}

/// The reference that stands for a secret, without its braces: `aws:ssm:/NAME`, as for a SecureString in the Parameter
/// Store. A name that is such a reference already stays.
pub fn reference(name: &str) -> String {
    match is_given_reference(name) {
        true => name.to_owned(),
        false => format!("aws:ssm:/{}", name.trim_start_matches('/')),
    }
}

/// Secrets by the references that stand for them, and where they come from.
pub(super) fn decode(reader: &Reader, node: &Node) -> Vec<(String, SecretSource)> {
    let mut secrets = Vec::new();
    for (name, source) in labels_with_spans(reader, node, "secrets") {
        match source.value.parse() {
            Ok(source) => secrets.push((reference(&name.value), source)),
            Err(problem) => reader.error(&source.span, problem),
        }
    }
    secrets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_and_what_is_none_is_not_repeated() {
        for text in ["env:TOKEN", "file:/run/secrets/token", "cmd:pass show a:b"] {
            assert_eq!(text.parse::<SecretSource>().unwrap().to_string(), text);
        }
        for text in ["hunter2", "env:", "file:", "cmd: ", "env:A=B", "vault:x", ""] {
            insta::allow_duplicates! {
                insta::assert_snapshot!(text.parse::<SecretSource>().unwrap_err(), @"a secret comes from env:VARIABLE, file:PATH or cmd:COMMAND");
            }
        }
        assert!(!format!("{:?}", SecretSource::Value("hunter2".to_owned())).contains("hunter2"));
    }

    #[test]
    fn a_secret_is_addressed_as_a_stored_parameter() {
        for (name, expected) in [
            ("token", "aws:ssm:/token"),
            ("/prod/db", "aws:ssm:/prod/db"),
            ("aws:ssm:plain", "aws:ssm:plain"),
            ("/aws/reference/secretsmanager/db", "aws:ssm:/aws/reference/secretsmanager/db"),
        ] {
            assert_eq!(reference(name), expected);
        }
    }
}
