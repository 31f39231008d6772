//! What an image was built from, kept with it: so that it can be tested again, compared and explained for ever.

use std::path::PathBuf;

use fs_err as fs;

use super::Error;
use super::plan::{Plan, PlannedFile, document_digest};
use crate::host::file;
use crate::parent::Parent;
use crate::store::Image;
use crate::store::manifest::{Component, Origin, Source};

/// The folder in an image that holds the documents it was built from.
pub(super) const DOCUMENTS: &str = "documents";
const RECIPE: &str = "recipe.yaml";

/// Where an image's recipe is.
pub(super) fn kept_recipe(image: &Image) -> PathBuf {
    image.folder().join(DOCUMENTS).join(RECIPE)
}

/// Where the document of an image's component is, whose place is counted from one.
pub(super) fn kept_document(image: &Image, number: usize, name: &str) -> PathBuf {
    image.folder().join(DOCUMENTS).join(format!("{number:02}-{name}.yaml"))
}

/// Keeps the documents in the image.
pub(super) fn keep_documents(plan: &Plan, image: &Image) -> Result<(), Error> {
    fs::create_dir_all(image.folder().join(DOCUMENTS))?;
    file::write(kept_recipe(image), plan.recipe.source.text.as_bytes())?;
    for (number, component) in (1..).zip(&plan.components) {
        let text = &component.program.document.source.text;
        file::write(kept_document(image, number, &component.name), text.as_bytes())?;
    }
    Ok(())
}

/// What an image of a plan is built from.
pub(super) fn of(plan: &Plan, parent: &Parent) -> Source {
    let recipe = &plan.recipe;
    let origin = |name: &str, sha256: &str| Origin { name: name.to_owned(), sha256: sha256.to_owned() };
    let text = |(name, value): &(String, String)| (name.clone(), serde_json::Value::from(value.clone()));
    let file = |file: &PlannedFile| Some(origin(&file.destination, &file.content.as_ref()?.sha256));
    let components = plan.components.iter().map(|component| Component {
        document: origin(&component.name, &document_digest(&component.program.document.source)),
        parameters: component.parameters.iter().map(text).collect(),
        references: component
            .references_to_keep()
            .iter()
            .map(|(name, value)| text(&(name.clone(), value.clone())))
            .collect(),
    });
    let brought = plan.components.iter().filter_map(|component| component.brings.as_ref());
    let brought = brought.flat_map(|brought| &brought.files);
    Source {
        recipe: origin(&recipe.source.name, &document_digest(&recipe.source)),
        description: recipe.description.clone(),
        parent: origin(&parent.name, &parent.sha256),
        components: components.collect(),
        files: plan.files.iter().chain(brought).filter_map(file).collect(),
        tags: recipe.tags.iter().map(text).collect(),
    }
}
