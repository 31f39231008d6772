//! Amazon Resource Names of Image Builder's resources.
//!
//! `arn:PARTITION:imagebuilder:REGION:ACCOUNT:KIND/NAME[/VERSION[/BUILD]]`; AWS API reference, "ComponentConfiguration"
//! and "CreateImageRecipe". The account `aws`, or a word that begins with `aws-`, marks what Amazon manages.

use std::fmt;
use std::str::FromStr;

/// The name of a resource of Image Builder's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arn {
    /// Who owns it.
    pub owner: Owner,
    /// What it is: `component`, `image` or another kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its version, as it is written.
    pub version: Option<String>,
}

/// Who owns a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// Amazon, or somebody whose products Amazon offers.
    Amazon,
    /// An account.
    Account(String),
}

/// A resource's name as it stands in ARNs: in small letters, with hyphens for spaces and underscores.
pub fn slug(name: &str) -> String {
    name.to_lowercase().replace([' ', '_'], "-")
}

/// Why a text is no such name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid(String);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = "arn:PARTITION:imagebuilder:REGION:ACCOUNT:KIND/NAME/VERSION";
        write!(f, "`{}` is no ARN of Image Builder's: these are {form}", self.0)
    }
}

impl FromStr for Arn {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        parse(text).ok_or_else(|| Invalid(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Arn> {
    let mut parts = text.splitn(6, ':');
    let mut next = || parts.next().filter(|part| !part.is_empty());
    let (arn, partition, service, _region, account, resource) = (next()?, next()?, next()?, next()?, next()?, next()?);
    let is_partition = partition == "aws" || partition.starts_with("aws-");
    if arn != "arn" || !is_partition || service != "imagebuilder" {
        return None;
    }
    let is_amazon = account == "aws" || account.starts_with("aws-");
    let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    let owner = match (is_amazon, is_account) {
        (true, _) => Owner::Amazon,
        (_, true) => Owner::Account(account.to_owned()),
        _ => return None,
    };
    let mut nodes = resource.splitn(3, '/');
    let (kind, name, version) = (nodes.next()?, nodes.next()?, nodes.next());
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    if kind.is_empty() || name.is_empty() || !name.chars().all(is_name) || version == Some("") {
        return None;
    }
    Some(Arn { owner, kind: kind.to_owned(), name: name.to_owned(), version: version.map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_partitions_and_owners() {
        let arn: Arn = "arn:aws:imagebuilder:eu-west-1:aws:component/update-linux/x.x.x".parse().unwrap();
        assert_eq!((arn.owner, arn.kind.as_str(), arn.name.as_str()), (Owner::Amazon, "component", "update-linux"));
        assert_eq!(arn.version.as_deref(), Some("x.x.x"));
        let arn: Arn = "arn:aws-cn:imagebuilder:cn-north-1:123456789012:image/web_1/1.0.x/3".parse().unwrap();
        assert_eq!(arn.owner, Owner::Account("123456789012".to_owned()));
        assert_eq!((arn.name.as_str(), arn.version.as_deref()), ("web_1", Some("1.0.x/3")));
        let arn: Arn = "arn:aws-us-gov:imagebuilder:us-gov-west-1:aws-marketplace:component/cis/1.0.0".parse().unwrap();
        assert_eq!((arn.owner, arn.version.as_deref()), (Owner::Amazon, Some("1.0.0")));
    }

    #[test]
    fn what_is_no_such_name() {
        for text in [
            "arn:aws:ec2:eu-west-1:aws:component/x",
            "arn:gcp:imagebuilder:eu-west-1:aws:component/x",
            "arn:aws:imagebuilder:eu-west-1:1234:component/x",
            "arn:aws:imagebuilder:eu-west-1:aws:component",
            "arn:aws:imagebuilder:eu-west-1:aws:component/../x",
            "arn:aws:imagebuilder:eu-west-1:aws:component/x/",
            "arn:aws:imagebuilder",
        ] {
            assert!(text.parse::<Arn>().is_err(), "{text}");
        }
    }
}
