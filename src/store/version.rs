//! Names and versions of images, as EC2 Image Builder writes them.
//!
//! An image is `name/MAJOR.MINOR.PATCH/BUILD`. In a pattern a number may be `x`, and then so is every number to its
//! right (API reference, "semantic versioning"); a pattern without a build means the newest build.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::channel::{ChannelId, ChannelName};

/// Largest number in a version: the API's bound.
const MAX_NUMBER: u32 = (1 << 30) - 1;

/// Why a text is no name, version or pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

impl Invalid {
    pub(super) fn new(why: String) -> Self {
        Self(why)
    }
}

/// An image's name: 3 to 128 letters, digits, hyphens, underscores and inner spaces. Safe as a file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageName(String);

impl ImageName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ImageName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ' ');
        let good = (3..=128).contains(&text.len()) && text.chars().all(allowed) && text.trim() == text;
        if good {
            return Ok(Self(text.to_owned()));
        }
        Err(Invalid(format!(
            "`{text}` is no image name: 3 to 128 letters, digits, hyphens, underscores or inner spaces"
        )))
    }
}

impl TryFrom<String> for ImageName {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<ImageName> for String {
    fn from(name: ImageName) -> Self {
        name.0
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `MAJOR.MINOR.PATCH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub patch: u32,
}

impl FromStr for Version {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.parse::<VersionPattern>()? {
            VersionPattern { major: Some(major), minor: Some(minor), patch: Some(patch) } => {
                Ok(Self { major, minor, patch })
            }
            _ => Err(Invalid(format!("`{text}` is a pattern, where a version such as 1.0.0 is needed"))),
        }
    }
}

impl TryFrom<String> for Version {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// A version in which numbers from some place on may be left open: `1.0.x`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionPattern {
    major: Option<u32>,
    minor: Option<u32>,
    patch: Option<u32>,
}

impl VersionPattern {
    /// `x.x.x`.
    pub const ANY: Self = Self { major: None, minor: None, patch: None };

    /// Whether a version is among those meant.
    pub fn matches(&self, version: Version) -> bool {
        let fits = |wanted: Option<u32>, number| wanted.is_none_or(|wanted| wanted == number);
        fits(self.major, version.major) && fits(self.minor, version.minor) && fits(self.patch, version.patch)
    }
}

impl FromStr for VersionPattern {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid =
            || Invalid(format!("`{text}` is no version: three numbers such as 1.0.0, or x for the last ones"));
        let mut numbers = Vec::new();
        for part in text.split('.') {
            let number = match part {
                "x" => None,
                // Leading zeros are usual in dates, 2026.01.31.
                _ if part.chars().all(|c| c.is_ascii_digit()) => {
                    let number = part.parse().ok().filter(|&number: &u32| number <= MAX_NUMBER);
                    Some(number.ok_or_else(invalid)?)
                }
                _ => return Err(invalid()),
            };
            numbers.push(number);
        }
        let &[major, minor, patch] = numbers.as_slice() else { return Err(invalid()) };
        if (major.is_none() && minor.is_some()) || (minor.is_none() && patch.is_some()) {
            return Err(Invalid(format!("`{text}` is no version: what follows an x has to be an x")));
        }
        Ok(Self { major, minor, patch })
    }
}

impl fmt::Display for VersionPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |number: Option<u32>| number.map_or_else(|| "x".to_owned(), |number| number.to_string());
        write!(f, "{}.{}.{}", part(self.major), part(self.minor), part(self.patch))
    }
}

/// Which version a recipe's next image gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionRequest {
    /// This one; only the build number is new.
    Exactly(Version),
    /// The next free version that the pattern leaves open, as `CreateImageRecipe` does for `1.0.x`.
    NextFree(VersionPattern),
}

impl VersionRequest {
    /// The version to use when these are taken.
    pub fn choose(self, taken: &[Version]) -> Version {
        let pattern = match self {
            Self::Exactly(version) => return version,
            Self::NextFree(pattern) => pattern,
        };
        let newest = taken.iter().copied().filter(|&version| pattern.matches(version)).max();
        let first = |number: Option<u32>, otherwise| number.unwrap_or(otherwise);
        let Some(newest) = newest else {
            return Version {
                major: first(pattern.major, 1),
                minor: first(pattern.minor, 0),
                patch: first(pattern.patch, 0),
            };
        };
        match pattern {
            VersionPattern { major: None, .. } => Version { major: newest.major + 1, minor: 0, patch: 0 },
            VersionPattern { minor: None, .. } => Version { minor: newest.minor + 1, patch: 0, ..newest },
            _ => Version { patch: newest.patch + 1, ..newest },
        }
    }
}

impl FromStr for VersionRequest {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let pattern: VersionPattern = text.parse()?;
        Ok(text.parse().map_or(Self::NextFree(pattern), Self::Exactly))
    }
}

impl fmt::Display for VersionRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(version) => version.fmt(f),
            Self::NextFree(pattern) => pattern.fmt(f),
        }
    }
}

/// One image: `nginx/1.0.0/3`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageId {
    /// The recipe's name.
    pub name: ImageName,
    /// The recipe's version.
    pub version: Version,
    /// Which build of it, from 1.
    pub build: u32,
}

impl ImageId {
    /// The name of an exported file without its ending: `nginx-1.0.0-3`.
    pub fn file_stem(&self) -> String {
        format!("{}-{}-{}", self.name.as_str().replace(' ', "-"), self.version, self.build)
    }
}

impl FromStr for ImageId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid(format!("`{text}` is no image: NAME/VERSION/BUILD such as nginx/1.0.0/3 is needed"));
        let parts: Vec<&str> = text.split('/').collect();
        let &[name, version, build] = parts.as_slice() else { return Err(invalid()) };
        let build = build.parse().ok().filter(|&build| build > 0).ok_or_else(invalid)?;
        Ok(Self { name: name.parse()?, version: version.parse()?, build })
    }
}

impl TryFrom<String> for ImageId {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<ImageId> for String {
    fn from(id: ImageId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.name, self.version, self.build)
    }
}

/// What names an image on the command line or as a parent: `nginx`, `nginx/1.x.x`, `nginx/1.0.0`, `nginx/1.0.0/3`, or the
/// channel `nginx@stable`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// The recipe's name.
    pub name: ImageName,
    version: VersionPattern,
    build: Option<u32>,
    channel: Option<ChannelName>,
}

impl Pattern {
    /// Whether an image is among those meant; which one a channel names, the store knows.
    pub fn matches(&self, id: &ImageId) -> bool {
        self.name == id.name && self.version.matches(id.version) && self.build.is_none_or(|build| build == id.build)
    }
}

impl Pattern {
    /// The channel that it is, if it is one.
    pub fn channel(&self) -> Option<ChannelId> {
        Some(ChannelId { image: self.name.clone(), channel: self.channel.clone()? })
    }

    /// Whether it can mean one image only.
    pub fn names_a_build(&self) -> bool {
        self.build.is_some()
    }
}

impl FromStr for Pattern {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.contains('@') {
            let ChannelId { image: name, channel } = text.parse()?;
            return Ok(Self { name, version: VersionPattern::ANY, build: None, channel: Some(channel) });
        }
        let (name, rest) = text.split_once('/').unwrap_or((text, "x.x.x"));
        let (version, build) = match rest.split_once('/') {
            Some((version, "x")) => (version, None),
            Some((version, build)) => {
                let invalid = || Invalid(format!("`{text}` is no image: its build number is no number"));
                (version, Some(build.parse().map_err(|_| invalid())?))
            }
            None => (rest, None),
        };
        Ok(Self { name: name.parse()?, version: version.parse()?, build, channel: None })
    }
}

impl From<&ImageId> for Pattern {
    fn from(id: &ImageId) -> Self {
        let Version { major, minor, patch } = id.version;
        let version = VersionPattern { major: Some(major), minor: Some(minor), patch: Some(patch) };
        Self { name: id.name.clone(), version, build: Some(id.build), channel: None }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(channel) = self.channel() {
            return channel.fmt(f);
        }
        write!(f, "{}/{}", self.name, self.version)?;
        match self.build {
            Some(build) => write!(f, "/{build}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn patterns_follow_the_rules_of_the_api() {
        for good in ["x.x.x", "1.x.x", "1.6.x", "1.0.0", "2026.01.31", "0.0.0", "1073741823.0.0"] {
            assert!(good.parse::<VersionPattern>().is_ok(), "{good}");
        }
        for bad in
            ["x.2.x", "1.x.8", "1.0", "1.0.0.0", "", "1.0.-1", "1.0.+1", "1073741824.0.0", "1..0", "v1.0.0", "X.x.x"]
        {
            assert!(bad.parse::<VersionPattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_open_version_takes_the_next_free_number() {
        let taken = ["1.0.0", "1.0.4", "1.2.0", "3.0.0"].map(version);
        for (request, expected) in [
            ("1.0.0", "1.0.0"),
            ("1.0.x", "1.0.5"),
            ("1.1.x", "1.1.0"),
            ("1.x.x", "1.3.0"),
            ("2.x.x", "2.0.0"),
            ("x.x.x", "4.0.0"),
        ] {
            let request: VersionRequest = request.parse().unwrap();
            assert_eq!(request.choose(&taken).to_string(), expected, "{request}");
        }
        assert_eq!("x.x.x".parse::<VersionRequest>().unwrap().choose(&[]).to_string(), "1.0.0");
    }

    #[test]
    fn names_are_safe_as_file_names() {
        for bad in ["..", "a/b", "ab", " abc", "abc ", "a.b.c", "naïve", &"a".repeat(129)] {
            assert!(bad.parse::<ImageName>().is_err(), "{bad}");
        }
        for good in ["nginx", "a-b_c 1", &"a".repeat(128)] {
            assert!(good.parse::<ImageName>().is_ok(), "{good}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(name in "[a-z][a-z0-9 _-]{1,20}[a-z0-9]", numbers in prop::array::uniform3(0u32..1 << 30), build in 1u32..) {
            let [major, minor, patch] = numbers;
            let id = ImageId { name: name.parse().unwrap(), version: Version { major, minor, patch }, build };
            prop_assert_eq!(&id.to_string().parse::<ImageId>().unwrap(), &id);
            prop_assert!(id.to_string().parse::<Pattern>().unwrap().matches(&id));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            drop(text.parse::<Pattern>());
            drop(text.parse::<ImageId>());
            drop(text.parse::<VersionRequest>());
        }
    }
}
