//! What a build is going to do: every document read, every reference resolved, every file found. Starts nothing.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;

use super::Error;
use crate::component::Program;
use crate::document::component::PHASES;
use crate::document::decode::{Spanned, Strictness, suggest};
use crate::document::recipe::{self, ComponentUse, FileCopy, Recipe};
use crate::document::shipped;
use crate::document::syntax::Source;
use crate::parent::{self, Parent, Reference};
use crate::store::version::VersionPattern;

/// What a build is going to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The recipe.
    pub recipe: Recipe,
    /// Folder that the recipe's paths are relative to.
    pub folder: PathBuf,
    /// What it begins with.
    pub parent: Reference,
    /// Its components, in order.
    pub components: Vec<PlannedComponent>,
    /// The files that are copied before the first component.
    pub files: Vec<PlannedFile>,
    /// What is not as it should be, and does not stop anything.
    pub warnings: Vec<String>,
}

/// A component of a plan.
#[derive(Debug, Clone)]
pub struct PlannedComponent {
    /// What the recipe calls it.
    pub name: String,
    /// The document, ready to run.
    pub program: Program,
    /// Parameters that the recipe or the user set.
    pub parameters: Vec<(String, String)>,
}

impl PlannedComponent {
    /// Whether it has steps in any of some phases.
    pub(super) fn has_work_in(&self, phases: &[&str]) -> bool {
        phases.iter().any(|phase| self.program.has_phase(phase))
    }
}

/// A file or folder of a plan.
#[derive(Debug, Clone)]
pub struct PlannedFile {
    /// In the guest.
    pub destination: String,
    /// Owner and perhaps group, `user` or `user:group`. A folder that is there already keeps its own.
    pub owner: Option<String>,
    /// What is in it; none for a folder.
    pub content: Option<Content>,
}

/// A file's content.
#[derive(Debug, Clone)]
pub struct Content {
    /// On the host.
    pub source: PathBuf,
    /// Permissions.
    pub mode: u32,
    /// Its SHA-256.
    pub sha256: String,
}

/// The component that a recipe without any test gets, so that nothing is AVAILABLE that never booted.
const DEFAULT_TEST: &str = "simple-boot-test-linux";
/// Most files that a recipe copies: a folder that is larger belongs into an archive.
const MOST_FILES: usize = 10_000;

impl Plan {
    /// Reads a recipe and all that it names. `parameters` are the user's, for every component that declares them.
    pub fn read(path: &Path, parameters: &[(String, String)]) -> Result<Self, Error> {
        let source = Source::read(path).map_err(Error::Unreadable)?;
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        Self::of(&source, folder, parameters)
    }

    /// A plan that starts a parent and does nothing in it. Base images are looked for as from `folder`.
    pub fn of_parent(name: &str, folder: &Path) -> Result<Self, Error> {
        let text = serde_json::json!({ "name": "parent", "version": "1.0.0", "parentImage": name }).to_string();
        Self::of(&Source::new(name, text), folder.to_owned(), &[])
    }

    /// SHA-256 that a parent given by its address has to have.
    pub(super) fn parent_checksum(&self) -> Option<&str> {
        self.recipe.parent_checksum.as_ref().map(|checksum| checksum.value.as_str())
    }

    /// Size of a build machine's disk, in bytes.
    pub(super) fn disk_size(&self, parent: &Parent) -> u64 {
        self.recipe.disk.as_ref().map_or(0, |disk| disk.value.0).max(parent.virtual_size)
    }

    fn of(source: &Arc<Source>, folder: PathBuf, parameters: &[(String, String)]) -> Result<Self, Error> {
        let (recipe, report) = recipe::decode(source).map_err(Box::new)?;
        let mut warnings: Vec<String> = report.to_string().lines().map(str::to_owned).collect();
        let parent = parent::resolve(&recipe.parent.value, &folder).map_err(|error| match error {
            parent::Error::Unknown { .. } => unknown_parent(&recipe, &folder, &error),
            other => Error::Parent(other),
        })?;
        let mut components = Vec::new();
        for wanted in &recipe.components {
            components.push(component(&recipe, wanted, &folder, parameters, &mut warnings)?);
        }
        check_user_parameters(&components, parameters)?;
        if !components.iter().any(|component| component.program.has_phase("test")) {
            components.push(default_test()?);
        }
        let mut files = Vec::new();
        for copy in &recipe.files {
            planned_files(&recipe, copy, &folder, &mut files)?;
        }
        Ok(Self { recipe, folder, parent, components, files, warnings })
    }
}

fn complain(recipe: &Recipe, span: &Range<usize>, message: impl Into<String>, help: Option<String>) -> Error {
    Error::Recipe { place: recipe::place(recipe, span), message: message.into(), help }
}

fn unknown_parent(recipe: &Recipe, folder: &Path, error: &parent::Error) -> Error {
    let names = parent::catalogue::names(folder);
    let known: Vec<&str> = names.iter().map(String::as_str).collect();
    let help = suggest(&recipe.parent.value, &known).unwrap_or_else(|| format!("base images: {}", known.join(", ")));
    complain(recipe, &recipe.parent.span, error.to_string(), Some(help))
}

fn default_test() -> Result<PlannedComponent, Error> {
    let source = shipped::find_component(DEFAULT_TEST, VersionPattern::ANY).map(shipped::Component::source);
    let source = source.ok_or_else(|| io::Error::other(format!("{DEFAULT_TEST} is not shipped")))?;
    let (program, ..) = Program::compile(&source, &[], Strictness::Compat).map_err(Box::new)?;
    Ok(PlannedComponent { name: DEFAULT_TEST.to_owned(), program, parameters: Vec::new() })
}

fn component(
    recipe: &Recipe,
    wanted: &ComponentUse,
    folder: &Path,
    user: &[(String, String)],
    warnings: &mut Vec<String>,
) -> Result<PlannedComponent, Error> {
    let source = find_component(recipe, &wanted.reference, folder, warnings)?;
    let set = |(name, value): &(Spanned<String>, Spanned<String>)| (name.value.clone(), value.value.clone());
    let mut parameters: Vec<(String, String)> = wanted.parameters.iter().map(set).collect();
    let (checked, report) = Program::check(&source, Strictness::Compat).map_err(Box::new)?;
    warnings.extend(report.to_string().lines().map(str::to_owned));
    let declares = |name: &str| checked.document.parameters.iter().any(|parameter| parameter.name.value == name);
    for (name, value) in user.iter().filter(|(name, _)| declares(name)) {
        parameters.retain(|(known, _)| known != name);
        parameters.push((name.clone(), value.clone()));
    }
    let (program, _, problems) = Program::compile(&source, &parameters, Strictness::Compat).map_err(Box::new)?;
    if !problems.is_empty() {
        return Err(complain(recipe, &wanted.reference.span, problems.join("; "), None));
    }
    if !PHASES.iter().any(|phase| program.has_phase(phase)) {
        warnings.push(format!("{}: the component has no phase that a recipe runs", source.name));
    }
    Ok(PlannedComponent { name: short_name(&wanted.reference.value), program, parameters })
}

/// What to call a component in messages: `./x/install-nginx.yaml` and `install-nginx/1.0.0` are both `install-nginx`.
fn short_name(reference: &str) -> String {
    let name = match reference.rsplit_once(":component/") {
        Some((_, name)) => name.split('/').next(),
        None if is_path(reference) => Path::new(reference).file_stem().and_then(|stem| stem.to_str()),
        None => reference.split('/').next(),
    };
    name.unwrap_or(reference).to_owned()
}

fn is_path(reference: &str) -> bool {
    let has_ending = [".yaml", ".yml", ".json"].iter().any(|ending| reference.ends_with(ending));
    has_ending || reference.starts_with("./") || reference.starts_with("../") || reference.starts_with('/')
}

/// A component by path, by name and version, or by ARN; one beside the recipe wins over a shipped one.
fn find_component(
    recipe: &Recipe,
    reference: &Spanned<String>,
    folder: &Path,
    warnings: &mut Vec<String>,
) -> Result<Arc<Source>, Error> {
    let text = reference.value.as_str();
    if is_path(text) {
        let missing = |error: io::Error| complain(recipe, &reference.span, error.to_string(), None);
        return Source::read(&folder.join(text)).map_err(missing);
    }
    let (name, version) = name_and_version(text);
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
        if text.starts_with("arn:") {
            warnings.push(format!("{text} is replaced by goldsmith's own {name}/{}", component.version));
        }
        return Ok(component.source());
    }
    let names: Vec<&str> = shipped::COMPONENTS.iter().map(|component| component.name).collect();
    let message = format!("there is no component `{name}` of version {pattern}, shipped or beside the recipe");
    let help = suggest(name, &names).unwrap_or_else(|| format!("shipped: {}", names.join(", ")));
    Err(complain(recipe, &reference.span, message, Some(help)))
}

/// `name`, `name/1.x.x`, or `arn:PARTITION:imagebuilder:REGION:ACCOUNT:component/NAME/VERSION[/BUILD]`.
fn name_and_version(text: &str) -> (&str, &str) {
    let text = text.rsplit_once(":component/").map_or(text, |(_, name)| name);
    let mut parts = text.splitn(3, '/');
    (parts.next().unwrap_or_default(), parts.next().unwrap_or("x.x.x"))
}

/// In the recipe's folder, in `components/` there, or in the one that is the folder's neighbour.
fn beside(folder: &Path, name: &str) -> Option<PathBuf> {
    let folders = [folder.to_owned(), folder.join("components"), folder.join("../components")];
    let candidates = folders.iter().flat_map(|folder| ["yaml", "yml"].map(|end| folder.join(format!("{name}.{end}"))));
    candidates.into_iter().find(|path| path.is_file())
}

fn check_user_parameters(components: &[PlannedComponent], user: &[(String, String)]) -> Result<(), Error> {
    let declared: Vec<&str> = components
        .iter()
        .flat_map(|component| &component.program.document.parameters)
        .map(|parameter| parameter.name.value.as_str())
        .collect();
    match user.iter().find(|(name, _)| !declared.contains(&name.as_str())) {
        None => Ok(()),
        Some((name, _)) => Err(Error::Recipe {
            place: format!("--parameter {name}"),
            message: "no component of the recipe declares this parameter".to_owned(),
            help: suggest(name, &declared),
        }),
    }
}

/// The files and folders that an item of `files` means, each folder before what is in it.
fn planned_files(recipe: &Recipe, copy: &FileCopy, folder: &Path, files: &mut Vec<PlannedFile>) -> Result<(), Error> {
    let problem = |message: String| complain(recipe, &copy.source.span, message, None);
    let root = fs::canonicalize(folder).map_err(|error| problem(error.to_string()))?;
    let source = fs::canonicalize(folder.join(&copy.source.value)).map_err(|error| problem(error.to_string()))?;
    let destination = match (copy.destination.value.strip_suffix('/'), source.file_name()) {
        (Some(above), Some(name)) => format!("{above}/{}", name.to_string_lossy()),
        _ => copy.destination.value.clone(),
    };
    let mut walk = vec![(source, destination)];
    while let Some((source, destination)) = walk.pop() {
        // A link could lead to any file of the host.
        if !source.starts_with(&root) {
            return Err(problem(format!("`{}` is outside the recipe's folder", source.display())));
        }
        // Folders count as well: a link to a folder above would lead round for ever.
        if files.len() >= MOST_FILES {
            return Err(problem(format!("more than {MOST_FILES} files are to be copied; use an archive")));
        }
        if !source.is_dir() {
            files.push(planned_file(copy, source, destination).map_err(|error| problem(error.to_string()))?);
            continue;
        }
        let owner = copy.owner.clone();
        files.push(PlannedFile { destination: destination.clone(), owner, content: None });
        for entry in fs::read_dir(&source).map_err(|error| problem(error.to_string()))? {
            let name = entry.map_err(|error| problem(error.to_string()))?.file_name();
            let place = fs::canonicalize(source.join(&name)).map_err(|error| problem(error.to_string()))?;
            walk.push((place, format!("{destination}/{}", name.to_string_lossy())));
        }
    }
    files.sort_by(|a, b| a.destination.cmp(&b.destination));
    Ok(())
}

fn planned_file(copy: &FileCopy, source: PathBuf, destination: String) -> io::Result<PlannedFile> {
    use std::os::unix::fs::PermissionsExt;
    let is_executable = fs::metadata(&source)?.permissions().mode() & 0o111 != 0;
    let mode = copy.mode.unwrap_or(if is_executable { 0o755 } else { 0o644 });
    let sha256 = crate::host::file::sha256(&source)?;
    Ok(PlannedFile { destination, owner: copy.owner.clone(), content: Some(Content { source, mode, sha256 }) })
}

/// SHA-256 of a document's text.
pub(super) fn document_digest(source: &Source) -> String {
    crate::host::file::sha256_of(source.text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(files: &[(&str, &str)], parameters: &[(&str, &str)]) -> Result<Plan, String> {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let parameters: Vec<(String, String)> =
            parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let text = files[0].1;
        let plan = Plan::of(&Source::new(files[0].0, text), folder.path().to_owned(), &parameters);
        let text = plan.map_err(|error| match error {
            Error::Recipe { place, message, help } => format!("{place}: {message} ({})", help.unwrap_or_default()),
            Error::Document(report) => report.to_string(),
            other => other.to_string(),
        });
        text.map_err(|text| text.replace(&*folder.path().to_string_lossy(), "FOLDER"))
    }

    const COMPONENT: &str = "schemaVersion: 1.0\nparameters:\n  - Port: { type: string, default: 80 }\n\
        phases:\n  - name: build\n    steps:\n      - { name: Run, action: ExecuteBash, inputs: { commands: ['{{ Port }}'] } }\n";

    #[test]
    fn components_are_found_beside_the_recipe_shipped_and_by_arn() {
        let recipe = "name: web\nversion: 1.0.0\nparentImage: debian-12-minimal\ncomponents:\n  - ./mine.yaml\n  - own/x.x.x\n\
            \x20 - update-linux/1.x.x\n  - arn:aws:imagebuilder:eu-west-1:aws:component/reboot-linux/x.x.x\n";
        let files = [("r.yaml", recipe), ("mine.yaml", COMPONENT), ("components/own.yaml", COMPONENT)];
        let plan = plan(&files, &[]).unwrap();
        let names: Vec<&str> = plan.components.iter().map(|component| component.name.as_str()).collect();
        assert_eq!(names, ["mine", "own", "update-linux", "reboot-linux", "simple-boot-test-linux"]);
        assert_eq!(plan.warnings.len(), 1);
        assert!(plan.warnings[0].contains("replaced by goldsmith's own reboot-linux/1.0.0"));
    }

    #[test]
    fn what_is_missing_is_said_with_its_place() {
        let problem = |component: &str| {
            let recipe =
                format!("name: web\nversion: 1.0.0\nparentImage: debian-12-minimal\ncomponents:\n  - {component}\n");
            plan(&[("r.yaml", &recipe), ("own.yaml", COMPONENT)], &[]).unwrap_err()
        };
        insta::assert_snapshot!(problem("updat-linux"), @"r.yaml:5:5: there is no component `updat-linux` of version x.x.x, shipped or beside the recipe (did you mean `update-linux`?)");
        insta::assert_snapshot!(problem("update-linux/2.x.x"), @"r.yaml:5:5: there is no component `update-linux` of version 2.x.x, shipped or beside the recipe (shipped: harden-ssh, install-docker, install-nginx, reboot-linux, reboot-test-linux, simple-boot-test-linux, update-linux)");
        insta::assert_snapshot!(problem("own/1.0.0"), @"r.yaml:5:5: `FOLDER/own.yaml` has no version, so `1.0.0` can't be asked of it (write `own/x.x.x`)");
        insta::assert_snapshot!(problem("{ component: own, parameters: { Prt: 1 } }"), @"r.yaml:5:18: The following parameters are not defined in the provided component: Prt ()");
        insta::assert_snapshot!(problem("./missing.yaml"), @"r.yaml:5:5: failed to open file `FOLDER/./missing.yaml`: No such file or directory (os error 2) ()");
        let recipe = "name: web\nversion: 1.0.0\nparentImage: debain-12/minimal/x\n";
        insta::assert_snapshot!(plan(&[("r.yaml", recipe)], &[]).unwrap_err(), @"r.yaml:3:14: there is no parent `debain-12/minimal/x`: neither a base image nor an image of the store (did you mean `debian-12-minimal`?)");
    }

    #[test]
    fn the_users_parameters_win_and_have_to_be_declared() {
        let recipe = "name: web\nversion: 1.0.0\nparentImage: debian-12-minimal\n\
            components: [{ component: ./c.yaml, parameters: { Port: 81 } }]\n";
        let files = [("r.yaml", recipe), ("c.yaml", COMPONENT)];
        let parameters = |plan: Plan| plan.components[0].parameters.clone();
        assert_eq!(parameters(plan(&files, &[]).unwrap()), [("Port".to_owned(), "81".to_owned())]);
        assert_eq!(parameters(plan(&files, &[("Port", "82")]).unwrap()), [("Port".to_owned(), "82".to_owned())]);
        insta::assert_snapshot!(plan(&files, &[("Prot", "1")]).unwrap_err(), @"--parameter Prot: no component of the recipe declares this parameter (did you mean `Port`?)");
    }

    #[test]
    fn folders_are_copied_whole_and_links_do_not_lead_out() {
        let recipe = "name: web\nversion: 1.0.0\nparentImage: debian-12-minimal\nfiles:\n\
            \x20 - { source: site, destination: /srv/www }\n  - { source: site, destination: /opt/, mode: 0600 }\n";
        let files = [("r.yaml", recipe), ("site/index.html", "x"), ("site/css/a.css", "y")];
        let list = plan(&files, &[]).unwrap().files;
        let shown = |file: &PlannedFile| match &file.content {
            Some(content) => format!("{} {:o}", file.destination, content.mode),
            None => format!("{}/", file.destination),
        };
        let list: Vec<String> = list.iter().map(shown).collect();
        assert_eq!(
            list,
            [
                "/opt/site/",
                "/opt/site/css/",
                "/opt/site/css/a.css 600",
                "/opt/site/index.html 600",
                "/srv/www/",
                "/srv/www/css/",
                "/srv/www/css/a.css 644",
                "/srv/www/index.html 644"
            ]
        );
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("recipe");
        fs::create_dir_all(inner.join("site")).unwrap();
        fs::write(folder.path().join("secret"), "s").unwrap();
        std::os::unix::fs::symlink("../../secret", inner.join("site/link")).unwrap();
        let error = Plan::of(&Source::new("r.yaml", recipe), inner, &[]).unwrap_err();
        assert!(error.to_string().contains("outside the recipe's folder"), "{error}");
    }
}
