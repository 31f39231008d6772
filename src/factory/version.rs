//! That a version means one recipe.
//!
//! As in Image Builder a recipe of a version does not change; there the service refuses it, here the recipe is a file that
//! people edit and build again. So a changed recipe is a warning, and an error where that is asked for, in a pipeline for
//! instance. Only what the document says counts, and not what its wildcards mean today: a new build of the same recipe is
//! what build numbers are for.

use std::sync::Arc;

use similar::TextDiff;

use super::plan::Plan;
use super::source::kept_recipe;
use super::{Error, Event, Factory};
use crate::document::canonical::canonical;
use crate::document::syntax::{self, Source};
use crate::store::manifest::State;
use crate::store::version::VersionRequest;

impl Factory {
    /// Compares a recipe with the one that made the newest usable image of its version.
    pub(super) fn check_version(&self, plan: &Plan, is_strict: bool) -> Result<(), Error> {
        let recipe = &plan.recipe;
        let VersionRequest::Exactly(version) = recipe.version else { return Ok(()) };
        let images = self.store.images_of(&recipe.name)?;
        let is_known = |state| matches!(state, State::Available | State::Deprecated | State::Disabled);
        let known = images.into_iter().rfind(|image| image.id.version == version && is_known(image.manifest.state));
        let Some(image) = known else { return Ok(()) };
        // An image that came from elsewhere may have no documents.
        let Ok(old) = Source::read(&kept_recipe(&image)) else { return Ok(()) };
        if says(&old) == says(&recipe.source) {
            return Ok(());
        }
        let id = image.id;
        if is_strict {
            return Err(Error::ChangedRecipe { diff: diff(&id.to_string(), &old, &recipe.source), image: id });
        }
        let warning =
            format!("{id} was built from another recipe of the same version; `version: 1.0.x` counts by itself");
        self.tell(Event::Warning(warning));
        Ok(())
    }
}

/// What a document says, whatever it looks like.
fn says(source: &Arc<Source>) -> Option<serde_json::Value> {
    syntax::parse(source).ok().map(|root| canonical(&root))
}

fn diff(image: &str, old: &Source, new: &Source) -> String {
    let diff = TextDiff::from_lines(old.text.as_str(), new.text.as_str());
    diff.unified_diff().context_radius(2).header(image, &new.name).to_string().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_is_shown_and_how_it_is_written_does_not_count() {
        let source = |text: &str| Source::new("web.yaml", text.to_owned());
        let old = source("name: web\nversion: 1.0.0\nparentImage: debian-12\ncomponents: [a/x.x.x]\n");
        let rewritten =
            source("# The same.\nname: 'web'\nversion: 1.0.0\nparentImage: debian-12\ncomponents:\n  - a/x.x.x\n");
        assert_eq!(says(&old), says(&rewritten));
        let new = source("name: web\nversion: 1.0.0\nparentImage: debian-13\ncomponents: [a/x.x.x]\n");
        assert_ne!(says(&old), says(&new));
        insta::assert_snapshot!(diff("web/1.0.0/1", &old, &new), @"
        --- web/1.0.0/1
        +++ web.yaml
        @@ -1,4 +1,4 @@
         name: web
         version: 1.0.0
        -parentImage: debian-12
        +parentImage: debian-13
         components: [a/x.x.x]
        ");
    }
}
