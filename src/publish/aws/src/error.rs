//! What AWS says when it does not do what it was asked.

use std::fmt;

use aws_sdk_ec2::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

/// A request that failed, after all its attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The service, such as `EC2`.
    pub service: &'static str,
    /// What was asked, such as `RegisterImage`.
    pub operation: &'static str,
    /// AWS's word for it, such as `InvalidAMIName.Duplicate`; none if AWS did not answer.
    pub code: Option<String>,
    /// AWS's words, or what happened on the way.
    pub message: String,
}

impl Error {
    pub(crate) fn of<E, R>(service: &'static str, operation: &'static str, error: SdkError<E, R>) -> Self
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
        R: fmt::Debug,
    {
        let said = error.as_service_error().map(ProvideErrorMetadata::meta);
        let code = said.and_then(|said| said.code()).map(str::to_owned);
        let message = match said.and_then(|said| said.message()) {
            Some(message) => message.to_owned(),
            None => DisplayErrorContext(&error).to_string(),
        };
        Self { service, operation, code, message }
    }

    /// What an answer has to hold.
    pub(crate) fn expect<T>(service: &'static str, operation: &'static str, value: Option<T>) -> Result<T, Self> {
        let message = || "the answer lacks what was asked for".to_owned();
        value.ok_or_else(|| Self { service, operation, code: None, message: message() })
    }

    /// Whether AWS says that something is not there.
    pub fn is_not_found(&self) -> bool {
        let code = self.code.as_deref().unwrap_or_default();
        code.ends_with(".NotFound") || ["NoSuchKey", "NotFound", "NoSuchUpload", "ParameterNotFound"].contains(&code)
    }

    /// Whether nobody is known in whose name to ask.
    pub fn has_no_credentials(&self) -> bool {
        self.code.is_none() && self.message.contains("credential")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.service, self.operation)?;
        match &self.code {
            Some(code) => write!(f, "{}: {code}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Error {}
