//! Values that are given on the command line: of parameters, and of references to what only AWS has.

use std::path::PathBuf;

use clap::Args;

use super::build::assignment;
use super::report::CliError;
use crate::document::recipe::{self, GIVEN_REFERENCES, is_given_reference};
use crate::document::secret::{self, SecretSource};
use crate::document::syntax::Source;
use crate::factory::{Error, Factory, Given, Plan};

/// Values for components
#[derive(Debug, Clone, Args)]
pub(super) struct ValueArguments {
    /// Set a parameter of the components that declare it
    #[arg(long = "parameter", visible_alias = "parameters", short, value_name = "NAME=VALUE", value_parser = assignment)]
    parameters: Vec<(String, String)>,
    /// Give a reference a value that only AWS knows: aws:ssm:NAME, aws:imds:PATH, context:accountId, context:region
    #[arg(long = "reference", value_name = "NAME=VALUE", value_parser = reference)]
    references: Vec<(String, String)>,
    /// File with such values, a map in YAML or JSON
    #[arg(long = "references", value_name = "FILE")]
    references_file: Option<PathBuf>,
    /// Give a secret, which documents refer to as {{ aws:ssm:/NAME }}: NAME=env:VARIABLE, NAME=file:PATH or NAME=cmd:COMMAND
    #[arg(long = "secret", value_name = "NAME=SOURCE", value_parser = secret)]
    secrets: Vec<(String, SecretSource)>,
    /// Ask AWS's Parameter Store for values that nobody has given; SecureStrings are secrets
    #[arg(long)]
    aws_parameters: bool,
}

/// Values for components of an image that is there
#[derive(Debug, Clone, Args)]
pub(super) struct KeptValueArguments {
    /// Give a reference a value that only AWS knows, as for `build`
    #[arg(long = "reference", value_name = "NAME=VALUE", value_parser = reference)]
    references: Vec<(String, String)>,
    /// Give a secret, as for `build`
    #[arg(long = "secret", value_name = "NAME=SOURCE", value_parser = secret)]
    pub(super) secrets: Vec<(String, SecretSource)>,
    /// Ask AWS's Parameter Store for values that nobody has given, as for `build`
    #[arg(long)]
    aws_parameters: bool,
}

impl KeptValueArguments {
    pub(super) fn given(&self) -> Given {
        let (references, secrets) = (self.references.clone(), self.secrets.clone());
        Given { references, secrets, asks_aws: self.aws_parameters, ..Given::default() }
    }
}

impl ValueArguments {
    /// A plan with these values; those that are typed win over those in the file.
    pub(super) async fn plan(
        self,
        read: impl Fn(&Given) -> Result<Plan, Error>,
        factory: &Factory,
    ) -> Result<Plan, CliError> {
        let mut given = self.given()?;
        let plan = read(&given)?;
        if plan.missing.is_empty() {
            return Ok(plan);
        }
        factory.ask_aws(&plan.missing, &mut given).await?;
        given.asks_aws = false;
        Ok(read(&given)?)
    }

    fn given(self) -> Result<Given, CliError> {
        let mut references = Vec::new();
        if let Some(path) = &self.references_file {
            let source = Source::read(path).map_err(Error::Unreadable)?;
            let read = recipe::decode_references(&source).map_err(|report| Error::Document(Box::new(report)))?;
            references.extend(read);
        }
        references.extend(self.references);
        Ok(Given {
            parameters: self.parameters,
            references,
            secrets: self.secrets,
            parent: None,
            asks_aws: self.aws_parameters,
        })
    }
}

/// `NAME=SOURCE`.
pub(super) fn secret(text: &str) -> Result<(String, SecretSource), String> {
    let (name, source) = assignment(text).map_err(|_| "a secret is given as NAME=SOURCE".to_owned())?;
    Ok((secret::reference(&name), source.parse()?))
}

/// `NAME=VALUE`, where names may have an equals sign nowhere.
pub(super) fn reference(text: &str) -> Result<(String, String), String> {
    let (name, value) = assignment(text)?;
    if !is_given_reference(&name) {
        return Err(format!("`{name}` needs no value; what does is {GIVEN_REFERENCES}"));
    }
    Ok((name, value))
}
