//! Scripts and playbooks as components: a document of goldsmith's own runs them, and says the same of every one.
//!
//! ```text
//!   script: ./install.sh ─────────────► that file ──────────────┐
//!   ansible: { playbook: web/site.yml } ► all of the folder web ┴─► a private folder in the guest ─► run ─► removed
//! ```
//!
//! What they are and their parameters go into the environment of the document's steps, where nothing reads references.

use std::path::Path;

use fs_err as fs;

use super::Error;
use super::components::copy_file;
use super::plan::{Bounds, PlannedComponent, PlannedFile, complain, planned_files};
use crate::component::{Program, References};
use crate::document::component_use::{ComponentUse, Work};
use crate::document::decode::{Spanned, Strictness};
use crate::document::recipe::{FileCopy, Recipe};
use crate::document::syntax::Source;
use crate::guest::{self, Guest};

/// What a component brings into the guest.
#[derive(Debug, Clone)]
pub struct Brought {
    /// A folder in the guest that is there while its steps run.
    pub folder: String,
    /// What is in it.
    pub files: Vec<PlannedFile>,
    /// More variables for its steps.
    pub environment: Vec<(String, String)>,
}

const SCRIPT: &str = include_str!("script.yaml");
const PLAYBOOK: &str = include_str!("playbook.yaml");
/// Where the folders are. A step that restarts the guest runs again, so they are on its disk.
const PLACE: &str = "/var/lib/goldsmith";
/// A script is text that people write.
const SCRIPT_BOUNDS: Bounds = Bounds { bytes: 1 << 20, files: 1, without: &[] };
/// A playbook with its roles and templates is text as well; what is larger belongs into the recipe's `files`.
const PLAYBOOK_BOUNDS: Bounds = Bounds { bytes: 64 << 20, files: 10_000, without: &[".git"] };

/// A component that is a script or a playbook; `user` are values from the command line for parameters that it has.
pub(super) fn component(
    recipe: &Recipe,
    wanted: &ComponentUse,
    folder: &Path,
    user: &[(String, String)],
) -> Result<PlannedComponent, Error> {
    let path = Path::new(&wanted.reference.value);
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let place = format!("{PLACE}/{name}");
    let parameters = parameters(wanted, user);
    let mut environment =
        vec![("GOLDSMITH_FOLDER".to_owned(), place.clone()), ("GOLDSMITH_FILE".to_owned(), file.clone())];
    let (text, from, to, bounds) = match &wanted.work {
        Work::Playbook { keep, arguments } => {
            let variables = parameters.iter().map(|(name, value)| (name.clone(), value.clone().into()));
            let variables = serde_json::Value::Object(variables.collect());
            environment.extend([
                ("GOLDSMITH_KEEP".to_owned(), keep.to_string()),
                ("GOLDSMITH_ARGUMENTS".to_owned(), arguments.join("\n")),
                ("GOLDSMITH_VARIABLES".to_owned(), variables.to_string()),
            ]);
            let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
            (PLAYBOOK, above.to_owned(), format!("{place}/playbook"), PLAYBOOK_BOUNDS)
        }
        Work::Script | Work::Document => {
            environment.push(("GOLDSMITH_SHOWN".to_owned(), wanted.reference.value.clone()));
            environment.extend(parameters.iter().cloned());
            (SCRIPT, path.to_owned(), format!("{place}/{file}"), SCRIPT_BOUNDS)
        }
    };
    check_file(recipe, wanted, &folder.join(path))?;
    let source = Spanned { value: from, span: wanted.reference.span.clone() };
    let destination = Spanned { value: to, span: wanted.reference.span.clone() };
    let mut files = Vec::new();
    planned_files(recipe, &FileCopy { source, destination, owner: None, mode: None }, folder, &bounds, &mut files)?;
    let document = Source::new(format!("{name} (a document of goldsmith's own)"), text);
    let (program, ..) = Program::compile(&document, &[], Strictness::Compat).map_err(Box::new)?;
    let brings = Some(Brought { folder: place, files, environment });
    Ok(PlannedComponent { name, program, parameters, references: References::new(), secrets: Vec::new(), brings })
}

fn parameters(wanted: &ComponentUse, user: &[(String, String)]) -> Vec<(String, String)> {
    let value = |(name, value): &(Spanned<String>, Spanned<String>)| {
        let others = user.iter().rfind(|(known, _)| *known == name.value).map(|(_, value)| value.clone());
        (name.value.clone(), others.unwrap_or_else(|| value.value.clone()))
    };
    wanted.parameters.iter().map(value).collect()
}

/// What would fail in the guest with words that help nobody.
fn check_file(recipe: &Recipe, wanted: &ComponentUse, path: &Path) -> Result<(), Error> {
    let problem = |message: String| Err(complain(recipe, &wanted.reference.span, message, None));
    match fs::metadata(path) {
        Err(error) => return problem(error.to_string()),
        Ok(metadata) if !metadata.is_file() => return problem(format!("`{}` is no file", path.display())),
        Ok(metadata) if wanted.work != Work::Script || metadata.len() > SCRIPT_BOUNDS.bytes => return Ok(()),
        Ok(_) => {}
    }
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) => return problem(error.to_string()),
    };
    let first = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let (message, help) = if text.iter().all(u8::is_ascii_whitespace) {
        ("the script is empty", None)
    } else if first.starts_with(b"\x7fELF") {
        ("this is a program and no script", Some("copy it by `files`, and run it by `ExecuteBinary`"))
    } else if first.ends_with(b"\r") {
        (
            "the script has the line ends of Windows, which no interpreter here takes",
            Some("save it with line feeds only"),
        )
    } else {
        return Ok(());
    };
    let place = format!("{}:1:1", path.display());
    Err(Error::Recipe { place, message: message.to_owned(), help: help.map(str::to_owned) })
}

impl Brought {
    /// All that makes it another one, for keys: its variables, and its files by their digests.
    pub(super) fn parts(&self) -> Vec<(String, String)> {
        let given = self.environment.iter().map(|(name, value)| (format!("given {name}"), value.clone()));
        let files = self.files.iter().map(|file| {
            let name = file.destination.strip_prefix(&self.folder).unwrap_or(&file.destination);
            let content = file.content.as_ref();
            let content = content.map(|content| format!("{:o} {}", content.mode, content.sha256)).unwrap_or_default();
            (format!("brought {}", name.trim_start_matches('/')), content)
        });
        given.chain(files).collect()
    }

    /// Copies it into the guest.
    pub(super) async fn enter(&self, guest: &Guest) -> Result<(), guest::Error> {
        guest.make_folder(&self.folder, Some(0o700)).await?;
        for file in &self.files {
            copy_file(guest, file).await?;
        }
        Ok(())
    }

    /// Removes it, with what its steps have written there.
    pub(super) async fn leave(&self, guest: &Guest) -> Result<(), guest::Error> {
        guest.ask(&["rm", "-rf", "--", &self.folder]).await?;
        // Gone with its last folder.
        guest.ask(&["rmdir", "--ignore-fail-on-non-empty", "--", PLACE]).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Given;
    use super::*;
    use crate::factory::Plan;

    /// A plan of one component, given as it stands in a recipe, beside files.
    fn planned(component: &str, files: &[(&str, &str)], user: &[(&str, &str)]) -> Result<PlannedComponent, String> {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret.sh"), "echo secret").unwrap();
        let folder = outside.path().join("recipe");
        for (path, text) in files {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fs::create_dir_all(folder.join("empty")).unwrap();
        std::os::unix::fs::symlink("../secret.sh", folder.join("link.sh")).unwrap();
        let recipe = format!("name: web\nversion: 1.0.0\nparentImage: debian-12-minimal\ncomponents: [{component}]\n");
        fs::write(folder.join("r.yaml"), recipe).unwrap();
        let parameters = user.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let given = Given { parameters, ..Given::default() };
        let plan = Plan::read(&folder.join("r.yaml"), &given).map_err(|error| match error {
            Error::Recipe { place, message, help } => format!("{place}: {message} ({})", help.unwrap_or_default()),
            other => other.to_string(),
        });
        let plan = plan.map_err(|text| text.replace(&*outside.path().to_string_lossy(), "OUT"))?;
        Ok(plan.components[0].clone())
    }

    fn brought(component: &PlannedComponent) -> String {
        let brought = component.brings.as_ref().unwrap();
        let files = brought.files.iter().map(|file| file.destination.clone());
        let variables = brought.environment.iter().map(|(name, value)| format!("{name}={value:?}"));
        files.chain(variables).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_script_gets_its_parameters_as_variables() {
        let files = [("scripts/install.sh", "echo {{ PORT }}\n")];
        let component = "{ script: scripts/install.sh, parameters: { PORT: 80, NAME: 'a b' } }";
        let component = planned(component, &files, &[("PORT", "81")]).unwrap();
        assert_eq!(component.name, "install");
        insta::assert_snapshot!(brought(&component), @r#"
        /var/lib/goldsmith/install/install.sh
        GOLDSMITH_FOLDER="/var/lib/goldsmith/install"
        GOLDSMITH_FILE="install.sh"
        GOLDSMITH_SHOWN="scripts/install.sh"
        PORT="81"
        NAME="a b"
        "#);
    }

    #[test]
    fn a_playbook_brings_its_folder_and_no_history() {
        let files = [("site/site.yml", "- hosts: all"), ("site/roles/web/tasks/main.yml", "[]"), ("site/.git/x", "x")];
        let component = "{ ansible: { playbook: site/site.yml, arguments: [--tags, web] }, parameters: { port: 80 } }";
        insta::assert_snapshot!(brought(&planned(component, &files, &[]).unwrap()), @r#"
        /var/lib/goldsmith/site/playbook
        /var/lib/goldsmith/site/playbook/roles
        /var/lib/goldsmith/site/playbook/roles/web
        /var/lib/goldsmith/site/playbook/roles/web/tasks
        /var/lib/goldsmith/site/playbook/roles/web/tasks/main.yml
        /var/lib/goldsmith/site/playbook/site.yml
        GOLDSMITH_FOLDER="/var/lib/goldsmith/site"
        GOLDSMITH_FILE="site.yml"
        GOLDSMITH_KEEP="false"
        GOLDSMITH_ARGUMENTS="--tags\nweb"
        GOLDSMITH_VARIABLES="{\"port\":\"80\"}"
        "#);
    }

    #[test]
    fn what_no_guest_could_run_is_refused_with_its_place() {
        let problem = |component: &str, text: &str| planned(component, &[("a.sh", text)], &[]).unwrap_err();
        insta::assert_snapshot!(problem("{ script: missing.sh }", ""), @"OUT/recipe/r.yaml:4:24: failed to query resolved metadata `OUT/recipe/missing.sh`: No such file or directory (os error 2) ()");
        insta::assert_snapshot!(problem("{ script: ./a.sh }", " \n"), @"OUT/recipe/./a.sh:1:1: the script is empty ()");
        insta::assert_snapshot!(problem("{ script: ./a.sh }", "#!/bin/sh\r\necho\r\n"), @"OUT/recipe/./a.sh:1:1: the script has the line ends of Windows, which no interpreter here takes (save it with line feeds only)");
        insta::assert_snapshot!(problem("{ script: ./a.sh }", "\x7fELF"), @"OUT/recipe/./a.sh:1:1: this is a program and no script (copy it by `files`, and run it by `ExecuteBinary`)");
        insta::assert_snapshot!(problem("{ script: ./link.sh }", ""), @"OUT/recipe/r.yaml:4:24: `OUT/secret.sh` is outside the recipe's folder ()");
        insta::assert_snapshot!(problem("{ script: empty }", ""), @"OUT/recipe/r.yaml:4:24: `OUT/recipe/empty` is no file ()");
        insta::assert_snapshot!(problem("{ script: ./a.sh }", &"#".repeat(2 << 20)), @"OUT/recipe/r.yaml:4:24: `./a.sh` has more than 1MiB; put what is needed into its own folder ()");
        insta::assert_snapshot!(problem("{ ansible: { playbook: a.sh } }", ""), @"OUT/recipe/r.yaml:4:37: `OUT/secret.sh` is outside the recipe's folder ()");
        let large = "x".repeat(65 << 20);
        let error =
            planned("{ ansible: { playbook: p/a.yml } }", &[("p/a.yml", ""), ("p/disk", &large)], &[]).unwrap_err();
        insta::assert_snapshot!(error, @"OUT/recipe/r.yaml:4:37: `p` has more than 64MiB; put what is needed into its own folder ()");
    }

    #[test]
    fn what_is_in_them_makes_another_key() {
        let parts =
            |text: &str, component: &str| planned(component, &[("a.sh", text)], &[]).unwrap().brings.unwrap().parts();
        let same = parts("echo", "{ script: a.sh }");
        assert_eq!(parts("echo", "{ script: a.sh }"), same);
        assert_ne!(parts("echo 1", "{ script: a.sh }"), same);
        assert_ne!(parts("echo", "{ script: a.sh, parameters: { A: b } }"), same);
    }
}
