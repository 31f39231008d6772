//! The packages that are installed in an image: `packages.json` in its folder.

use std::io::{self, Read};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::Image;
use crate::host::file;

/// Name of the list in an image's folder.
pub const PACKAGES: &str = "packages.json";
/// Bytes of a list that are read: a saved image may come from anywhere.
const LIMIT: u64 = 8 << 20;

/// An installed package, in the words of its own package manager.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it was compiled for; empty where its package manager does not say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub architecture: String,
}

/// The longest name or version: more is no package.
const LONGEST: usize = 256;

impl Package {
    /// A package, if these are words: what a guest says, or a file from elsewhere, may be anything.
    pub fn new(name: &str, version: &str, architecture: &str) -> Option<Self> {
        let word = |text: &str| {
            let text = text.trim();
            let is_word = (1..=LONGEST).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
            is_word.then(|| text.to_owned())
        };
        let architecture = word(architecture).unwrap_or_default();
        Some(Self { name: word(name)?, version: word(version)?, architecture })
    }
}

impl Image {
    /// The packages of the image, sorted; none if nobody has looked, or it has no package manager that is known.
    pub fn packages(&self) -> io::Result<Option<Vec<Package>>> {
        let file = match fs::File::open(self.folder().join(PACKAGES)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut text = Vec::new();
        file.take(LIMIT).read_to_end(&mut text)?;
        let unreadable =
            |error| io::Error::other(format!("the list of packages of {} can't be read: {error}", self.id));
        let packages: Vec<Package> = serde_json::from_slice(&text).map_err(unreadable)?;
        let read = |package: &Package| Package::new(&package.name, &package.version, &package.architecture);
        let mut packages: Vec<Package> = packages.iter().filter_map(read).collect();
        packages.sort_unstable();
        Ok(Some(packages))
    }

    /// Keeps the list.
    pub fn keep_packages(&self, packages: &[Package]) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(packages)?;
        text.push(b'\n');
        file::write(self.folder().join(PACKAGES), &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_word_is_no_package() {
        assert!(Package::new("a", "1:2.3~rc1+b", "").is_some());
        for (name, version) in [("a b", "1"), ("a", ""), ("a", "1\u{1b}[2J"), ("é", "1"), (&*"a".repeat(257), "1")] {
            assert_eq!(Package::new(name, version, "all"), None, "{name} {version}");
        }
        assert_eq!(Package::new("a", "1", "\u{1b}[2J").unwrap().architecture, "");
    }
}
