//! Which document a component's name in a recipe means.
//!
//! ```text
//!   ./mine.yaml ────────────────────────────────────────────────────► that file
//!   name/1.x.x ──────────┬── NAME.yaml beside the recipe ────────────► that file
//!   arn:…:component/name ┘      └── none ── shipped, of that version ► goldsmith's own
//! ```
//!
//! What Amazon calls `update-linux/1.0.2` is another document than goldsmith's `update-linux/1.0.0`, so the version in
//! an ARN selects nothing; a note says what stands in for it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;
use super::plan::complain;
use crate::document::arn::{Arn, Owner};
use crate::document::decode::{Spanned, suggest};
use crate::document::recipe::Recipe;
use crate::document::shipped;
use crate::document::syntax::Source;
use crate::store::version::VersionPattern;

/// A component by path, by name and version, or by ARN; one beside the recipe wins over a shipped one.
pub(super) fn find_component(
    recipe: &Recipe,
    reference: &Spanned<String>,
    folder: &Path,
    notes: &mut Vec<String>,
) -> Result<Arc<Source>, Error> {
    let text = reference.value.as_str();
    if text.starts_with("arn:") {
        return find_by_arn(recipe, reference, folder, notes);
    }
    if is_path(text) {
        let missing = |error: io::Error| complain(recipe, &reference.span, error.to_string(), None);
        return Source::read(&folder.join(text)).map_err(missing);
    }
    let (name, version) = text.split_once('/').unwrap_or((text, "x.x.x"));
    let version = version.split('/').next().unwrap_or_default();
    let pattern: VersionPattern = match version.parse() {
        Ok(pattern) => pattern,
        Err(error) => return Err(complain(recipe, &reference.span, format!("{error}"), None)),
    };
    if let Some(path) = beside(folder, name) {
        if pattern != VersionPattern::ANY {
            let message = format!("`{}` has no version, so `{version}` can't be asked of it", path.display());
            return Err(complain(recipe, &reference.span, message, Some(format!("write `{name}/x.x.x`"))));
        }
        return Source::read(&path).map_err(Error::Unreadable);
    }
    if let Some(component) = shipped::find_component(name, pattern) {
        return Ok(component.source());
    }
    let message = format!("there is no component `{name}` of version {pattern}, shipped or beside the recipe");
    Err(complain(recipe, &reference.span, message, Some(nearest(name))))
}

fn find_by_arn(
    recipe: &Recipe,
    reference: &Spanned<String>,
    folder: &Path,
    notes: &mut Vec<String>,
) -> Result<Arc<Source>, Error> {
    let text = reference.value.as_str();
    let fail = |message: String, help: Option<String>| Err(complain(recipe, &reference.span, message, help));
    let arn: Arn = match text.parse() {
        Ok(arn) => arn,
        Err(error) => return fail(format!("{error}"), None),
    };
    let name = arn.name.as_str();
    if arn.kind != "component" {
        return fail(format!("`{text}` is the ARN of another kind, `{}`, and no component's", arn.kind), None);
    }
    let version = arn.version.as_deref().and_then(|version| version.split('/').next()).unwrap_or("x.x.x");
    if let Err(error) = version.parse::<VersionPattern>() {
        return fail(format!("{error}"), None);
    }
    if let Some(path) = beside(folder, name) {
        notes.push(format!("{text} means {} here, whose version is not known", path.display()));
        return Source::read(&path).map_err(Error::Unreadable);
    }
    match arn.owner {
        Owner::Account(account) => fail(
            format!("the component `{name}` of the account {account} is not here: no {name}.yaml beside the recipe"),
            Some(format!(
                "save its document there: aws imagebuilder get-component --component-build-version-arn {text} --query \
                 component.data --output text > {name}.yaml"
            )),
        ),
        Owner::Amazon => match shipped::find_component(name, VersionPattern::ANY) {
            Some(component) => {
                notes.push(format!("{text} is replaced by goldsmith's own {name}/{}", component.version));
                Ok(component.source())
            }
            None if name.contains("windows") => {
                fail(format!("`{name}` is a component for Windows, and images made here are Linux"), None)
            }
            None => fail(
                format!("goldsmith has no equivalent of Amazon's component `{name}`"),
                Some(format!("a file {name}.yaml beside the recipe stands in for it; {}", nearest(name))),
            ),
        },
    }
}

/// The shipped component that is meant perhaps.
fn nearest(name: &str) -> String {
    if let Some(component) = shipped::find_component(name, VersionPattern::ANY) {
        return format!("{name}/{} is shipped", component.version);
    }
    let names: Vec<&str> = shipped::COMPONENTS.iter().map(|component| component.name).collect();
    suggest(name, &names).unwrap_or_else(|| "`goldsmith component list` shows what is shipped".to_owned())
}

/// What to call a component in messages: `./x/install-nginx.yaml` and `install-nginx/1.0.0` are both `install-nginx`.
pub(super) fn short_name(reference: &str) -> String {
    let name = match reference.parse::<Arn>() {
        Ok(arn) => return arn.name,
        Err(_) if is_path(reference) => Path::new(reference).file_stem().and_then(|stem| stem.to_str()),
        Err(_) => reference.split('/').next(),
    };
    name.unwrap_or(reference).to_owned()
}

fn is_path(reference: &str) -> bool {
    let has_ending = [".yaml", ".yml", ".json"].iter().any(|ending| reference.ends_with(ending));
    has_ending || reference.starts_with("./") || reference.starts_with("../") || reference.starts_with('/')
}

/// In the recipe's folder, in `components/` there, or in the one that is the folder's neighbour.
fn beside(folder: &Path, name: &str) -> Option<PathBuf> {
    let folders = [folder.to_owned(), folder.join("components"), folder.join("../components")];
    let candidates = folders.iter().flat_map(|folder| ["yaml", "yml"].map(|end| folder.join(format!("{name}.{end}"))));
    candidates.into_iter().find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::recipe;

    const COMPONENT: &str = "schemaVersion: 1.0\nphases: []\n";

    /// What a reference means in a recipe whose folder holds own.yaml.
    fn resolved(reference: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        fs_err::write(folder.path().join("own.yaml"), COMPONENT).unwrap();
        let text = format!("name: web\nversion: 1.0.0\nparentImage: x\ncomponents: ['{reference}']\n");
        let (recipe, _) = recipe::decode(&Source::new("r.yaml", text)).unwrap();
        let mut notes = Vec::new();
        let found = find_component(&recipe, &recipe.components[0].reference, folder.path(), &mut notes);
        let said = match found {
            Ok(source) => format!("{}\n{}", source.name, notes.join("\n")),
            Err(Error::Recipe { place, message, help }) => format!("{place}: {message}\n{}", help.unwrap_or_default()),
            Err(other) => other.to_string(),
        };
        said.replace(&*folder.path().to_string_lossy(), "FOLDER").trim_end().to_owned()
    }

    #[test]
    fn amazons_components_of_every_partition_and_version() {
        insta::assert_snapshot!(resolved("arn:aws:imagebuilder:eu-west-1:aws:component/update-linux/x.x.x"), @"
        components/update-linux.yaml (shipped)
        arn:aws:imagebuilder:eu-west-1:aws:component/update-linux/x.x.x is replaced by goldsmith's own update-linux/1.0.0
        ");
        insta::assert_snapshot!(resolved("arn:aws-cn:imagebuilder:cn-north-1:aws:component/update-linux/1.0.2/1"), @"
        components/update-linux.yaml (shipped)
        arn:aws-cn:imagebuilder:cn-north-1:aws:component/update-linux/1.0.2/1 is replaced by goldsmith's own update-linux/1.0.0
        ");
        insta::assert_snapshot!(resolved("arn:aws-us-gov:imagebuilder:us-gov-west-1:aws:component/reboot-linux/1.x.x"), @"
        components/reboot-linux.yaml (shipped)
        arn:aws-us-gov:imagebuilder:us-gov-west-1:aws:component/reboot-linux/1.x.x is replaced by goldsmith's own reboot-linux/1.0.0
        ");
        insta::assert_snapshot!(resolved("arn:aws:imagebuilder:eu-west-1:aws:component/own/1.0.0"), @"
        FOLDER/own.yaml
        arn:aws:imagebuilder:eu-west-1:aws:component/own/1.0.0 means FOLDER/own.yaml here, whose version is not known
        ");
    }

    #[test]
    fn what_is_not_here_is_said_with_what_to_do() {
        insta::assert_snapshot!(resolved("arn:aws:imagebuilder:eu-west-1:aws:component/updat-linux/x.x.x"), @"
        r.yaml:4:14: goldsmith has no equivalent of Amazon's component `updat-linux`
        a file updat-linux.yaml beside the recipe stands in for it; did you mean `update-linux`?
        ");
        insta::assert_snapshot!(resolved("arn:aws:imagebuilder:eu-west-1:aws:component/stig-build-linux-high/2024.4.x"), @"
        r.yaml:4:14: goldsmith has no equivalent of Amazon's component `stig-build-linux-high`
        a file stig-build-linux-high.yaml beside the recipe stands in for it; `goldsmith component list` shows what is shipped
        ");
        insta::assert_snapshot!(resolved("arn:aws:imagebuilder:eu-west-1:aws:component/update-windows/x.x.x"), @"r.yaml:4:14: `update-windows` is a component for Windows, and images made here are Linux");
        insta::assert_snapshot!(resolved("arn:aws:imagebuilder:eu-west-1:123456789012:component/theirs/1.0.x"), @"
        r.yaml:4:14: the component `theirs` of the account 123456789012 is not here: no theirs.yaml beside the recipe
        save its document there: aws imagebuilder get-component --component-build-version-arn arn:aws:imagebuilder:eu-west-1:123456789012:component/theirs/1.0.x --query component.data --output text > theirs.yaml
        ");
        insta::assert_snapshot!(resolved("arn:aws:imagebuilder:eu-west-1:aws:image/ubuntu-server-24-lts-x86/x.x.x"), @"r.yaml:4:14: `arn:aws:imagebuilder:eu-west-1:aws:image/ubuntu-server-24-lts-x86/x.x.x` is the ARN of another kind, `image`, and no component's");
        insta::assert_snapshot!(resolved("arn:aws:imagebuilder:eu-west-1:aws:component/update-linux/1.x.3"), @"r.yaml:4:14: `1.x.3` is no version: what follows an x has to be an x");
        insta::assert_snapshot!(resolved("arn:aws:s3:::bucket/update-linux"), @"r.yaml:4:14: `arn:aws:s3:::bucket/update-linux` is no ARN of Image Builder's: these are arn:PARTITION:imagebuilder:REGION:ACCOUNT:KIND/NAME/VERSION");
    }

    #[test]
    fn an_accounts_own_component_is_looked_for_beside_the_recipe() {
        insta::assert_snapshot!(resolved("arn:aws:imagebuilder:eu-west-1:123456789012:component/own/1.0.0/2"), @"
        FOLDER/own.yaml
        arn:aws:imagebuilder:eu-west-1:123456789012:component/own/1.0.0/2 means FOLDER/own.yaml here, whose version is not known
        ");
    }

    #[test]
    fn short_names() {
        let names = ["./x/install-nginx.yaml", "nginx/1.0.0", "arn:aws:imagebuilder:a-b-1:aws:component/hello/1.0.0"];
        assert_eq!(names.map(short_name), ["install-nginx", "nginx", "hello"]);
    }
}
