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
    /// Components: their documents, parameters and references.
    pub components: Vec<Named<Component>>,
    /// The recipe's own files.
    pub files: Vec<Named<Origin>>,
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
        let sources = (from.manifest.source.as_ref(), to.manifest.source.as_ref());
        let origin =
            |of: fn(&Source) -> &Origin| Change::between(sources.0.map(of).cloned(), sources.1.map(of).cloned());
        let packages = match (from.packages()?, to.packages()?) {
            (Some(from), Some(to)) => Some(changes(versions(from), versions(to))),
            _ => None,
        };
        Ok(Self {
            from: from.id.clone(),
            to: to.id.clone(),
            parent: origin(|source| &source.parent),
            recipe: origin(|source| &source.recipe),
            components: changes(components(sources.0), components(sources.1)),
            files: changes(files(sources.0), files(sources.1)),
            packages,
            disk: Change::between(from.manifest.disk.clone(), to.manifest.disk.clone()),
        })
    }

    /// Whether nothing differs that is known.
    pub fn is_empty(&self) -> bool {
        let Self { parent, recipe, components, files, packages, disk, .. } = self;
        let has_none = parent.is_none() && recipe.is_none() && disk.is_none();
        has_none && components.is_empty() && files.is_empty() && packages.as_ref().is_none_or(Vec::is_empty)
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
fn components(source: Option<&Source>) -> BTreeMap<String, Component> {
    let mut components = BTreeMap::new();
    for component in source.iter().flat_map(|source| &source.components) {
        let name = &component.document.name;
        let mut names = std::iter::once(name.clone()).chain((2..).map(|number| format!("{name} ({number})")));
        if let Some(free) = names.find(|name| !components.contains_key(name)) {
            components.insert(free, component.clone());
        }
    }
    components
}

fn files(source: Option<&Source>) -> BTreeMap<String, Origin> {
    let files = source.iter().flat_map(|source| &source.files);
    files.map(|file| (file.name.clone(), file.clone())).collect()
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
