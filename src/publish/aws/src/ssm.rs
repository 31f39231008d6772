//! Parameters of Systems Manager.

use aws_sdk_ssm::types;

use crate::{Error, Region};

/// A parameter as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its value.
    pub value: String,
    /// Which of its versions this is.
    pub version: i64,
    /// What its value is.
    pub kind: ParameterType,
}

/// What a parameter's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterType {
    /// Any text.
    Text,
    /// The identifier of an image, which AWS looks up.
    Image,
}

impl ParameterType {
    /// AWS's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Image => "aws:ec2:image",
        }
    }
}

impl Region {
    /// A parameter, if it is there.
    pub async fn parameter(&self, name: &str) -> Result<Option<Parameter>, Error> {
        let answer = self.ssm.get_parameter().name(name).send().await;
        let answer = match answer.map_err(|error| Error::of("SSM", "GetParameter", error)) {
            Err(error) if error.is_not_found() => return Ok(None),
            answer => answer?,
        };
        let parameter = Error::expect("SSM", "GetParameter", answer.parameter)?;
        let is_image = parameter.data_type() == Some(ParameterType::Image.name());
        let kind = if is_image { ParameterType::Image } else { ParameterType::Text };
        let version = parameter.version;
        Ok(Some(Parameter { value: parameter.value.unwrap_or_default(), version, kind }))
    }

    /// A parameter's value, decrypted if need be, and whether it is kept as a secret; if it is there.
    pub async fn stored_value(&self, name: &str) -> Result<Option<(String, bool)>, Error> {
        let answer = self.ssm.get_parameter().name(name).with_decryption(true).send().await;
        let answer = match answer.map_err(|error| Error::of("SSM", "GetParameter", error)) {
            Err(error) if error.is_not_found() => return Ok(None),
            answer => answer?,
        };
        let parameter = Error::expect("SSM", "GetParameter", answer.parameter)?;
        // What Secrets Manager keeps is read through the same call, and is of this type too.
        let is_secret = parameter.r#type == Some(types::ParameterType::SecureString);
        Ok(Some((parameter.value.unwrap_or_default(), is_secret)))
    }

    /// Makes or changes a parameter. Returns its version.
    pub async fn put_parameter(&self, name: &str, value: &str, kind: ParameterType) -> Result<i64, Error> {
        let request = self.ssm.put_parameter().name(name).value(value).data_type(kind.name());
        let request = request.r#type(types::ParameterType::String).overwrite(true);
        let answer = request.send().await.map_err(|error| Error::of("SSM", "PutParameter", error))?;
        Ok(answer.version)
    }

    /// Removes a parameter, if it is there.
    pub async fn delete_parameter(&self, name: &str) -> Result<(), Error> {
        let answer = self.ssm.delete_parameter().name(name).send().await;
        match answer.map_err(|error| Error::of("SSM", "DeleteParameter", error)) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}
