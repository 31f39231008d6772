//! What a build is going to do: every document read, every reference resolved, every file found. Starts nothing.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;

use super::Error;
use super::provision::{self, Brought};
use super::resolve::{find_component, short_name};
use crate::component::{Program, References, SECRETS};
use crate::document::component::PHASES;
use crate::document::component_use::{ComponentUse, Work};
use crate::document::decode::{Spanned, Strictness, suggest};
use crate::document::recipe::{self, FileCopy, Recipe};
use crate::document::secret::SecretSource;
use crate::document::shipped;
use crate::document::size::Size;
use crate::document::syntax::Source;
use crate::parent::{self, Parent, Reference};
use crate::store::version::VersionPattern;

/// Values that the user gives, for every component that has a use for them. They win over the recipe's.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// Of parameters.
    pub parameters: Vec<(String, String)>,
    /// Of references to what only AWS has.
    pub references: Vec<(String, String)>,
    /// Of references to secrets, and where these come from.
    pub secrets: Vec<(String, SecretSource)>,
    /// A parent instead of the recipe's.
    pub parent: Option<String>,
    /// Whether a reference of a stored parameter that has no value yet is no error: it goes into [`Plan::missing`].
    pub asks_aws: bool,
}

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
    /// Secrets by the references that stand for them, and where they come from.
    pub secrets: BTreeMap<String, SecretSource>,
    /// References that have no value yet.
    pub missing: Vec<String>,
    /// What is not as it should be, and does not stop anything.
    pub warnings: Vec<String>,
    /// What stands in for something else.
    pub notes: Vec<String>,
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
    /// Values of those references that it uses and only AWS has.
    pub references: References,
    /// References that it uses and stand for secrets.
    pub secrets: Vec<String>,
    /// What a script or a playbook brings into the guest.
    pub brings: Option<Brought>,
}

impl PlannedComponent {
    /// The values of references that may be written down.
    pub(super) fn references_to_keep(&self) -> References {
        if self.program.may_hold_secrets() { References::new() } else { self.references.clone() }
    }

    /// Whether nothing that it leaves may be kept but the image.
    pub(super) fn may_hold_secrets(&self) -> bool {
        !self.secrets.is_empty() || self.program.may_hold_secrets()
    }

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
/// A folder that has more files belongs into an archive.
const FILES_BOUNDS: Bounds = Bounds { bytes: u64::MAX, files: 10_000, without: &[] };

/// What is taken of a folder.
pub(super) struct Bounds {
    /// Most bytes.
    pub(super) bytes: u64,
    /// Most files and folders.
    pub(super) files: usize,
    /// Names that are left out.
    pub(super) without: &'static [&'static str],
}

impl Plan {
    /// Reads a recipe and all that it names.
    pub fn read(path: &Path, given: &Given) -> Result<Self, Error> {
        let source = Source::read(path).map_err(Error::Unreadable)?;
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        Self::of(&source, folder, given)
    }

    /// A plan that starts a parent and does nothing in it. Base images are looked for as from `folder`.
    pub fn of_parent(name: &str, folder: &Path) -> Result<Self, Error> {
        let text = serde_json::json!({ "name": "parent", "version": "1.0.0", "parentImage": name }).to_string();
        Self::of(&Source::new(name, text), folder.to_owned(), &Given::default())
    }

    /// A plan that runs some documents on a parent. Both are looked for as from `folder`.
    pub fn of_documents(parent: &str, documents: &[String], folder: &Path, given: &Given) -> Result<Self, Error> {
        let recipe = serde_json::json!({
            "name": "rehearsal", "version": "1.0.0", "parentImage": parent, "components": documents
        });
        let planned = Self::of(&Source::new("component run", recipe.to_string()), folder.to_owned(), given);
        let mut plan = planned.map_err(|error| match error {
            // Nobody has seen the recipe, so a place in it says nothing.
            Error::Recipe { place, message, help } if place.starts_with("component run:") => {
                let is_unset = message.contains("has no default and is not set");
                let help = help.or(is_unset.then(|| "set it: -p NAME=VALUE".to_owned()));
                Error::Recipe { place: "component run".to_owned(), message, help }
            }
            other => other,
        })?;
        // Nothing is sealed that would have to be tested.
        plan.components.truncate(documents.len());
        Ok(plan)
    }

    /// SHA-256 that a parent given by its address has to have.
    pub(super) fn parent_checksum(&self) -> Option<&str> {
        self.recipe.parent_checksum.as_ref().map(|checksum| checksum.value.as_str())
    }

    /// Size of a build machine's disk, in bytes.
    pub(super) fn disk_size(&self, parent: &Parent) -> u64 {
        self.recipe.disk.as_ref().map_or(0, |disk| disk.value.0).max(parent.virtual_size)
    }

    fn of(source: &Arc<Source>, folder: PathBuf, given: &Given) -> Result<Self, Error> {
        let (mut recipe, report) = recipe::decode(source).map_err(Box::new)?;
        if let Some(parent) = &given.parent {
            recipe.parent.value.clone_from(parent);
            recipe.parent_checksum = None;
        }
        let mut warnings: Vec<String> = report.to_string().lines().map(str::to_owned).collect();
        let resolved = parent::resolve(&recipe.parent.value, &folder).map_err(|error| match error {
            parent::Error::Unknown { .. } => unknown_parent(&recipe, &folder, &error),
            parent::Error::Foreign { ref help, .. } => {
                complain(&recipe, &recipe.parent.span, error.to_string(), Some(help.clone()))
            }
            other => Error::Parent(other),
        })?;
        let (parent, mut components, mut notes) = (resolved.reference, Vec::new(), Vec::new());
        let values = Values::of(&recipe, &folder, given);
        let mut missing = Vec::new();
        warnings.extend(resolved.warning);
        notes.extend(resolved.note);
        for wanted in &recipe.components {
            components.push(if wanted.work == Work::Document {
                let source = find_component(&recipe, &wanted.reference, &folder, &mut notes)?;
                component(&recipe, wanted, &source, (given, &values), (&mut warnings, &mut missing))?
            } else {
                provision::component(&recipe, wanted, &folder, &given.parameters)?
            });
        }
        check_user_parameters(&components, &given.parameters)?;
        if !components.iter().any(|component| component.program.has_phase("test")) {
            components.push(default_test()?);
        }
        let mut files = Vec::new();
        for copy in &recipe.files {
            planned_files(&recipe, copy, &folder, &FILES_BOUNDS, &mut files)?;
        }
        let mut secrets = values.secrets;
        for (name, _) in &given.secrets {
            if !components.iter().any(|component| component.secrets.contains(name)) {
                warnings.push(format!("no component refers to the secret `{{{{ {name} }}}}`"));
            }
        }
        secrets.retain(|name, _| components.iter().any(|component| component.secrets.contains(name)));
        Ok(Self { recipe, folder, parent, components, files, secrets, missing, warnings, notes })
    }
}

pub(super) fn complain(
    recipe: &Recipe,
    span: &Range<usize>,
    message: impl Into<String>,
    help: Option<String>,
) -> Error {
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
    Ok(PlannedComponent {
        name: DEFAULT_TEST.to_owned(),
        program,
        parameters: Vec::new(),
        references: References::new(),
        secrets: Vec::new(),
        brings: None,
    })
}

/// References with their values, and with where their secrets come from.
pub(super) type GivenValues<'a> = (&'a [(String, String)], &'a [(String, SecretSource)]);

/// Values of references, the user's before the recipe's.
pub(super) struct Values {
    references: References,
    pub(super) secrets: BTreeMap<String, SecretSource>,
}

impl Values {
    fn of(recipe: &Recipe, folder: &Path, given: &Given) -> Self {
        let of_recipe = recipe.references.iter().map(|(name, value)| (name.value.clone(), value.value.clone()));
        let secrets = recipe.secrets.iter().map(|(name, source)| (name.clone(), source.clone().within(folder)));
        let references: Vec<_> = of_recipe.chain(given.references.iter().cloned()).collect();
        let secrets: Vec<_> = secrets.chain(given.secrets.iter().cloned()).collect();
        Self::new((&references, &secrets))
    }

    /// Of some, later ones before earlier ones. What Secrets Manager would keep is a secret however it is given.
    pub(super) fn new((references, secrets): GivenValues<'_>) -> Self {
        let (secret, references): (Vec<_>, Vec<_>) =
            references.iter().cloned().partition(|(name, _)| name.starts_with(SECRETS));
        let secret = secret.into_iter().map(|(name, value)| (name, SecretSource::Value(value)));
        let secrets: BTreeMap<String, SecretSource> = secret.chain(secrets.iter().cloned()).collect();
        let mut references: References = references.into_iter().collect();
        references.retain(|name, _| !secrets.contains_key(name));
        Self { references, secrets }
    }

    /// What a program refers to and nobody has given.
    pub(super) fn missing(&self, program: &Program) -> Vec<(String, String)> {
        program.missing_references(&self.with_secrets())
    }

    /// What a program refers to: values, and references to secrets.
    pub(super) fn used(&self, program: &Program) -> (References, Vec<String>) {
        let used = program.used_references(&self.with_secrets());
        let (secrets, references): (Vec<_>, Vec<_>) =
            used.into_iter().partition(|(name, _)| self.secrets.contains_key(name));
        (references.into_iter().collect(), secrets.into_iter().map(|(name, _)| name).collect())
    }

    /// All names. What a secret says is not known yet, and nothing may hang on it.
    fn with_secrets(&self) -> References {
        let secrets = self.secrets.keys().map(|name| (name.clone(), String::new()));
        self.references.clone().into_iter().chain(secrets).collect()
    }
}

fn component(
    recipe: &Recipe,
    wanted: &ComponentUse,
    source: &Arc<Source>,
    (given, values): (&Given, &Values),
    (warnings, unknown): (&mut Vec<String>, &mut Vec<String>),
) -> Result<PlannedComponent, Error> {
    let set = |(name, value): &(Spanned<String>, Spanned<String>)| (name.value.clone(), value.value.clone());
    let mut parameters: Vec<(String, String)> = wanted.parameters.iter().map(set).collect();
    let (checked, report) = Program::check(source, Strictness::Compat).map_err(Box::new)?;
    warnings.extend(report.to_string().lines().map(str::to_owned));
    let declares = |name: &str| checked.document.parameters.iter().any(|parameter| parameter.name.value == name);
    for (name, value) in given.parameters.iter().filter(|(name, _)| declares(name)) {
        parameters.retain(|(known, _)| known != name);
        parameters.push((name.clone(), value.clone()));
    }
    let (program, _, problems) = Program::compile(source, &parameters, Strictness::Compat).map_err(Box::new)?;
    if !problems.is_empty() {
        return Err(complain(recipe, &wanted.reference.span, problems.join("; "), None));
    }
    let can_be_asked_for = |name: &str| given.asks_aws && name.starts_with("aws:ssm:");
    let (asked_for, missing): (Vec<_>, Vec<_>) =
        values.missing(&program).into_iter().partition(|(name, _)| can_be_asked_for(name));
    unknown.extend(asked_for.into_iter().map(|(name, _)| name));
    if !missing.is_empty() {
        let problems: Vec<String> = missing.into_iter().map(|(_, problem)| problem).collect();
        return Err(complain(recipe, &wanted.reference.span, problems.join("; "), None));
    }
    let (references, secrets) = values.used(&program);
    if !PHASES.iter().any(|phase| program.has_phase(phase)) {
        warnings.push(format!("{}: the component has no phase that a recipe runs", source.name));
    }
    let name = short_name(&wanted.reference.value);
    Ok(PlannedComponent { name, program, parameters, references, secrets, brings: None })
}

fn check_user_parameters(components: &[PlannedComponent], user: &[(String, String)]) -> Result<(), Error> {
    let declared: Vec<&str> = components
        .iter()
        .flat_map(|component| {
            let declared = component.program.document.parameters.iter().map(|parameter| parameter.name.value.as_str());
            // Of a script it is known which it has been given.
            declared.chain(component.parameters.iter().map(|(name, _)| name.as_str()))
        })
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
pub(super) fn planned_files(
    recipe: &Recipe,
    copy: &FileCopy,
    folder: &Path,
    bounds: &Bounds,
    files: &mut Vec<PlannedFile>,
) -> Result<(), Error> {
    let problem = |message: String| complain(recipe, &copy.source.span, message, None);
    let root = fs::canonicalize(folder).map_err(|error| problem(error.to_string()))?;
    let source = fs::canonicalize(folder.join(&copy.source.value)).map_err(|error| problem(error.to_string()))?;
    let destination = match (copy.destination.value.strip_suffix('/'), source.file_name()) {
        (Some(above), Some(name)) => format!("{above}/{}", name.to_string_lossy()),
        _ => copy.destination.value.clone(),
    };
    let (mut walk, mut bytes) = (vec![(source, destination)], 0_u64);
    while let Some((source, destination)) = walk.pop() {
        // A link could lead to any file of the host.
        if !source.starts_with(&root) {
            return Err(problem(format!("`{}` is outside the recipe's folder", source.display())));
        }
        // Folders count as well: a link to a folder above would lead round for ever.
        if files.len() >= bounds.files {
            return Err(problem(format!("more than {} files are to be copied; use an archive", bounds.files)));
        }
        let metadata = fs::metadata(&source).map_err(|error| problem(error.to_string()))?;
        if !metadata.is_dir() {
            // Before it is read: a folder may hold disks.
            bytes = bytes.saturating_add(metadata.len());
            if bytes > bounds.bytes {
                let (folder, most) = (copy.source.value.display(), Size(bounds.bytes));
                return Err(problem(format!(
                    "`{folder}` has more than {most}; put what is needed into its own folder"
                )));
            }
            files.push(planned_file(copy, source, destination).map_err(|error| problem(error.to_string()))?);
            continue;
        }
        let owner = copy.owner.clone();
        files.push(PlannedFile { destination: destination.clone(), owner, content: None });
        for entry in fs::read_dir(&source).map_err(|error| problem(error.to_string()))? {
            let name = entry.map_err(|error| problem(error.to_string()))?.file_name();
            if bounds.without.iter().any(|without| name == *without) {
                continue;
            }
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
        let given = Given { parameters, ..Given::default() };
        let plan = Plan::of(&Source::new(files[0].0, text), folder.path().to_owned(), &given);
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
        assert_eq!(plan.warnings, Vec::<String>::new());
        insta::assert_snapshot!(plan.notes.join("\n"), @"arn:aws:imagebuilder:eu-west-1:aws:component/reboot-linux/x.x.x is replaced by goldsmith's own reboot-linux/1.0.0");
    }

    #[test]
    fn what_is_missing_is_said_with_its_place() {
        let problem = |component: &str| {
            let recipe =
                format!("name: web\nversion: 1.0.0\nparentImage: debian-12-minimal\ncomponents:\n  - {component}\n");
            plan(&[("r.yaml", &recipe), ("own.yaml", COMPONENT)], &[]).unwrap_err()
        };
        insta::assert_snapshot!(problem("updat-linux"), @"r.yaml:5:5: there is no component `updat-linux` of version x.x.x, shipped or beside the recipe (did you mean `update-linux`?)");
        insta::assert_snapshot!(problem("update-linux/2.x.x"), @"r.yaml:5:5: there is no component `update-linux` of version 2.x.x, shipped or beside the recipe (update-linux/1.0.0 is shipped)");
        insta::assert_snapshot!(problem("own/1.0.0"), @"r.yaml:5:5: `FOLDER/own.yaml` has no version, so `1.0.0` can't be asked of it (write `own/x.x.x`)");
        insta::assert_snapshot!(problem("{ component: own, parameters: { Prt: 1 } }"), @"r.yaml:5:18: The following parameters are not defined in the provided component: Prt ()");
        insta::assert_snapshot!(problem("./missing.yaml"), @"r.yaml:5:5: failed to open file `FOLDER/./missing.yaml`: No such file or directory (os error 2) ()");
        let recipe = "name: web\nversion: 1.0.0\nparentImage: debain-12/minimal/x\n";
        insta::assert_snapshot!(plan(&[("r.yaml", recipe)], &[]).unwrap_err(), @"r.yaml:3:14: there is no parent `debain-12/minimal/x`: neither a base image nor an image of the store (did you mean `debian-12-minimal`?)");
    }

    #[test]
    fn a_parameter_that_no_recipe_sets_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("c.yaml"), COMPONENT.replace(", default: 80", "")).unwrap();
        let plan =
            |given: &Given| Plan::of_documents("debian-12-minimal", &["./c.yaml".to_owned()], folder.path(), given);
        let Err(Error::Recipe { place, message, help }) = plan(&Given::default()) else { panic!("it is planned") };
        insta::assert_snapshot!(format!("{place}: {message} ({})", help.unwrap_or_default()), @"component run: the parameter `Port` has no default and is not set (set it: -p NAME=VALUE)");
        let given = Given { parameters: vec![("Port".to_owned(), "1".to_owned())], ..Given::default() };
        assert!(plan(&given).is_ok());
    }

    #[test]
    fn secrets_are_planned_by_name_and_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let uses = COMPONENT.replace("{{ Port }}", "{{ aws:ssm:/db }}{{ aws:ssm:/aws/reference/secretsmanager/x }}");
        fs::write(folder.path().join("c.yaml"), uses).unwrap();
        let source = |text: &str| text.parse::<SecretSource>().unwrap();
        let given = Given {
            references: vec![("aws:ssm:/aws/reference/secretsmanager/x".to_owned(), "hunter22".to_owned())],
            secrets: vec![
                ("aws:ssm:/db".to_owned(), source("cmd:exit 1")),
                ("aws:ssm:/unused".to_owned(), source("env:X")),
            ],
            ..Given::default()
        };
        let plan = Plan::of_documents("debian-12-minimal", &["./c.yaml".to_owned()], folder.path(), &given).unwrap();
        let component = &plan.components[0];
        assert!(component.may_hold_secrets() && component.references.is_empty(), "{component:?}");
        assert_eq!(plan.secrets.len(), 2);
        assert_eq!(plan.warnings, ["no component refers to the secret `{{ aws:ssm:/unused }}`"]);
        assert!(!format!("{plan:?}").contains("hunter22"));
        // What nobody has given is asked of AWS where that is wanted, and an error where it is not.
        let without = Given { asks_aws: true, ..Given::default() };
        let plan = Plan::of_documents("debian-12-minimal", &["./c.yaml".to_owned()], folder.path(), &without).unwrap();
        assert_eq!(plan.missing, ["aws:ssm:/db", "aws:ssm:/aws/reference/secretsmanager/x"]);
        let nothing = Given::default();
        assert!(Plan::of_documents("debian-12-minimal", &["./c.yaml".to_owned()], folder.path(), &nothing).is_err());
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
        let error = Plan::of(&Source::new("r.yaml", recipe), inner, &Given::default()).unwrap_err();
        assert!(error.to_string().contains("outside the recipe's folder"), "{error}");
    }
}
