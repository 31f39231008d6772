//! What a build is made from, and what each of that is now: so that it can be told whether anything is newer.

use std::collections::BTreeMap;

use super::plan::{Plan, document_digest};
use super::provision::Brought;
use super::{Error, Event, Factory};
use crate::host::address::shown;
use crate::host::file::sha256_of;
use crate::parent;

impl Factory {
    /// Gets the base image of a plan anew if its publisher has something newer than what is here.
    pub async fn renew_parent(&self, plan: &Plan) -> Result<(), Error> {
        let run = self.store.begin_run("parent")?;
        let listener = |event: parent::Event| self.tell(Event::Parent(event));
        let renew = parent::renew(&plan.parent, &plan.folder, &self.store, &run, &listener);
        self.stage(&mut Vec::new(), "parent", renew).await.map(drop)
    }

    /// What a build would be made from now, without making anything: what it is, and a text that changes with it. Asks
    /// publishers for what they have.
    pub async fn dependencies(&self, plan: &Plan) -> Result<BTreeMap<String, String>, Error> {
        let mut found = BTreeMap::new();
        let checksum = plan.parent_checksum();
        let parent = parent::current(&plan.parent, checksum, &plan.folder, &self.store).await?;
        found.insert(format!("parent {}", shown(&plan.recipe.parent.value)), parent);
        found.insert(format!("recipe {}", plan.recipe.name), document_digest(&plan.recipe.source));
        for component in &plan.components {
            let mut text = document_digest(&component.program.document.source);
            for (name, value) in component.brings.iter().flat_map(Brought::parts) {
                text.push_str(&format!("\n{name} {value}"));
            }
            found.insert(format!("component {}", component.name), sha256_of(text.as_bytes()));
        }
        if !plan.files.is_empty() {
            let digest = |file: &super::plan::PlannedFile| {
                let content = file.content.as_ref().map(|content| content.sha256.as_str());
                format!("{} {}\n", file.destination, content.unwrap_or("-"))
            };
            let list: String = plan.files.iter().map(digest).collect();
            found.insert("files of the recipe".to_owned(), sha256_of(list.as_bytes()));
        }
        Ok(found)
    }
}
