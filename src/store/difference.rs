//! What differs between two images, as far as their folders tell.

use std::collections::BTreeMap;
use std::io;

use serde::Serialize;

use super::manifest::{Component, Disk, Origin, Source};
use super::version::ImageId;
use super::{Image, Package};

/// What differs between two images. What does not is left out.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The first image.
    pub from: ImageId,
    /// The second image.
    pub to: ImageId,
    /// The disk they began with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<Change<Origin>>,
    /// The recipe's document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipe: Option<Change<Origin>>,
    /// Components: their documents, parameters and references; none if it is not known of both what they were built from.
    pub components: Option<Vec<Named<Component>>>,
    /// The recipe's own files; the same.
    pub files: Option<Vec<Named<Origin>>>,
    /// Installed packages: their versions, by name and architecture; none if it is not known of both what they have.
    pub packages: Option<Vec<Named<String>>>,
    /// The sealed disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<Change<Disk>>,
}

/// Something that is not the same in both; none where it is not there.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change<T> {
    /// In the first image.
    pub from: Option<T>,
    /// In the second image.
    pub to: Option<T>,
}

/// A change of something that has a name.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Named<T> {
    /// Its name.
    pub name: String,
    /// What it was and what it is.
    #[serde(flatten)]
    pub change: Change<T>,
}

impl<T: PartialEq> Change<T> {
    fn between(from: Option<T>, to: Option<T>) -> Option<Self> {
        (from != to).then_some(Self { from, to })
    }
}

impl Difference {
    /// Compares two images.
    pub fn between(from: &Image, to: &Image) -> io::Result<Self> {
        let sources = from.manifest.source.as_ref().zip(to.manifest.source.as_ref());
        // A recipe that was called by another path is the same.
        let origin = |of: fn(&Source) -> &Origin| {
            let (from, to) = sources.map(|(from, to)| (of(from), of(to)))?;
            (from.sha256 != to.sha256).then(|| Change { from: Some(from.clone()), to: Some(to.clone()) })
        };
        let packages = match (from.packages()?, to.packages()?) {
            (Some(from), Some(to)) => Some(changes(versions(from), versions(to))),
            _ => None,
        };
        Ok(Self {
            from: from.id.clone(),
            to: to.id.clone(),
            parent: origin(|source| &source.parent),
            recipe: origin(|source| &source.recipe),
            components: sources.map(|(from, to)| changes(components(from), components(to))),
            files: sources.map(|(from, to)| changes(files(from), files(to))),
            packages,
            disk: Change::between(from.manifest.disk.clone(), to.manifest.disk.clone()),
        })
    }

    /// Whether nothing differs that is known.
    pub fn is_empty(&self) -> bool {
        let Self { parent, recipe, components, files, packages, disk, .. } = self;
        let has_none = parent.is_none() && recipe.is_none() && disk.is_none();
        let (components, files) = (components.as_ref(), files.as_ref());
        let lists_none = components.is_none_or(Vec::is_empty) && files.is_none_or(Vec::is_empty);
        has_none && lists_none && packages.as_ref().is_none_or(Vec::is_empty)
    }
}

fn changes<T: PartialEq>(from: BTreeMap<String, T>, mut to: BTreeMap<String, T>) -> Vec<Named<T>> {
    let mut changes = Vec::new();
    for (name, from) in from {
        let change = Change::between(Some(from), to.remove(&name));
        changes.extend(change.map(|change| Named { name, change }));
    }
    changes.extend(to.into_iter().map(|(name, to)| Named { name, change: Change { from: None, to: Some(to) } }));
    changes.sort_by(|one, other| one.name.cmp(&other.name));
    changes
}

/// A recipe may use a component more than once.
fn components(source: &Source) -> BTreeMap<String, Component> {
    let mut times: BTreeMap<&str, u32> = BTreeMap::new();
    let mut components = BTreeMap::new();
    for component in &source.components {
        let name = &component.document.name;
        let time = times.entry(name).or_default();
        *time += 1;
        let name = if *time == 1 { name.clone() } else { format!("{name} ({time})") };
        components.insert(name, component.clone());
    }
    components
}

fn files(source: &Source) -> BTreeMap<String, Origin> {
    source.files.iter().map(|file| (file.name.clone(), file.clone())).collect()
}

/// Versions by package: of a kernel there may be several.
fn versions(packages: Vec<Package>) -> BTreeMap<String, String> {
    let mut versions: BTreeMap<String, String> = BTreeMap::new();
    for Package { name, version, architecture } in packages {
        let name = if architecture.is_empty() { name } else { format!("{name}:{architecture}") };
        let known = versions.entry(name).or_default();
        if !known.is_empty() {
            known.push_str(", ");
        }
        known.push_str(&version);
    }
    versions
}
