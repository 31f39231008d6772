//! The packages that are installed in an image: `packages.json` in its folder.

use std::io::{self, Read};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::Image;
use crate::host::file;

/// Name of the list in an image's folder.
pub const PACKAGES: &str = "packages.json";
/// Bytes of a list that are read: a saved image may come from anywhere.
const LIMIT: u64 = 64 << 20;

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
        let mut packages: Vec<Package> = serde_json::from_slice(&text)?;
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
