//! Which base images there are: those in `base-images/` beside a recipe or above it, and the shipped ones.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;

use super::Error;
use crate::document::base_image::{self, BaseImage};
use crate::document::shipped;
use crate::document::syntax::Source;

const FOLDER: &str = "base-images";
/// The table of aliases there, which is no base image.
const ALIASES: &str = "aliases";

/// The description of a base image: the user's own wins over the shipped one.
pub fn find(name: &str, folder: &Path) -> Result<Option<Arc<Source>>, Error> {
    // A name that is a path could leave the folder.
    if name.contains('/') || name == ALIASES {
        return Ok(None);
    }
    for base_images in folders(folder) {
        let path = base_images.join(format!("{name}.yaml"));
        if path.is_file() {
            return Ok(Some(Source::read(&path)?));
        }
    }
    Ok(shipped::find_base_image(name))
}

/// Names of all base images, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = shipped::BASE_IMAGES.iter().map(|(name, _)| (*name).to_owned()).collect();
    for base_images in folders(folder) {
        let Ok(entries) = fs::read_dir(base_images) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name().into_string().unwrap_or_default();
            names.extend(name.strip_suffix(".yaml").map(str::to_owned));
        }
    }
    names.retain(|name| name != ALIASES);
    names.sort_unstable();
    names.dedup();
    names
}

/// A description's meaning.
pub fn decode(source: &Source) -> Result<BaseImage, Error> {
    let source = Source::new(source.name.clone(), source.text.clone());
    let decoded = base_image::decode(&source);
    decoded.map(|(base, _)| base).map_err(|report| Error::Description(Box::new(report)))
}

/// The user's own tables of aliases, the nearest first.
pub(super) fn alias_tables(folder: &Path) -> Result<Vec<Arc<Source>>, Error> {
    let tables = folders(folder).into_iter().map(|folder| folder.join(format!("{ALIASES}.yaml")));
    tables.filter(|table| table.is_file()).map(|table| Ok(Source::read(&table)?)).collect()
}

/// Beside the recipe, and beside the folder that it is in: `recipes/` and `base-images/` are usually neighbours.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let beside = folder.join(FOLDER);
    let above = folder.join("..").join(FOLDER);
    [beside, above].into_iter().filter(|folder| folder.is_dir()).collect()
}
