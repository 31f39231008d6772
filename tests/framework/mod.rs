//! What the tests share: a store with a parent in it, a way to run goldsmith, and proof that nothing was left behind.
//!
//! When root runs the tests, goldsmith runs as the ordinary user `goldsmith-test`, unless a test asks for root:
//! most people have no root, and what works without it works with it.

mod command;
mod disks;
pub(crate) mod foreign;
mod host;
mod server;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub(crate) use command::{Finished, Goldsmith, Running, read};
pub(crate) use disks::{Disk, Pristine, renamed};
pub(crate) use host::{catches, machines_of, may_make_namespaces, names_in, text_on_disk};
pub(crate) use server::FileServer;

/// The user that goldsmith runs as when root runs the tests.
pub(crate) const TEST_USER: &str = "goldsmith-test";
/// The parent that most tests build on.
pub(crate) const PARENT: &str = "debian-12-minimal";

/// The folder that all tests share.
#[derive(Debug)]
pub(crate) struct Shared {
    folder: PathBuf,
    /// The user to run as, if that is another one than the tests'.
    user: Option<&'static str>,
}

/// The shared folder, prepared by whichever test comes first.
pub(crate) fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(Shared::prepare)
}

impl Shared {
    fn prepare() -> Self {
        let is_root = rustix::process::geteuid().is_root();
        let user = (is_root && host::user_exists(TEST_USER)).then_some(TEST_USER).filter(|user| {
            let may = host::may_make_namespaces(Some(user));
            if !may {
                eprintln!("this host lets {user} make no user namespaces, so goldsmith runs as root in all tests");
            }
            may
        });
        // A folder that any user can reach, which a checkout in somebody's home is not, and on a real disk. The parent
        // and its checkpoint are kept there from run to run.
        let owner = user.map_or_else(|| rustix::process::geteuid().as_raw().to_string(), str::to_owned);
        let folder = std::env::var_os("GOLDSMITH_TEST_FOLDER").map(PathBuf::from);
        let folder = folder.unwrap_or_else(|| PathBuf::from(format!("/var/tmp/goldsmith-tests-{owner}")));
        fs_err::create_dir_all(&folder).unwrap();
        assert_eq!(
            std::os::unix::fs::MetadataExt::uid(&fs_err::metadata(&folder).unwrap()),
            rustix::process::geteuid().as_raw(),
            "{} is somebody else's",
            folder.display()
        );
        let shared = Self { folder, user };
        fs_err::copy(env!("CARGO_BIN_EXE_goldsmith"), shared.program()).unwrap();
        for stale in
            ["home/images", "home/pipelines", "home/runs", "home/downloads", "home/parents/published", "scratch"]
        {
            host::remove(&shared.folder.join(stale));
        }
        // What components left behind would be taken from there, and the components not be run.
        let layers = shared.folder.join("home/layers");
        for name in host::names_in(&layers) {
            let record = fs_err::read_to_string(layers.join(&name).join("layer.json")).unwrap_or_default();
            if layers.join(&name).is_dir() && !record.contains("\"seed and agent\"") {
                host::remove(&layers.join(&name));
            }
        }
        for folder in ["home", "scratch"] {
            fs_err::create_dir_all(shared.folder.join(folder)).unwrap();
            host::give(&shared.folder.join(folder), user);
        }
        shared
    }

    /// The program under test.
    pub(crate) fn program(&self) -> PathBuf {
        self.folder.join("goldsmith")
    }

    /// The store.
    pub(crate) fn home(&self) -> PathBuf {
        self.folder.join("home")
    }
}

/// A place for one test's documents and outputs, with the shared store or one of its own.
#[derive(Debug)]
pub(crate) struct Place {
    folder: tempfile::TempDir,
    home: PathBuf,
}

impl Place {
    /// A place that uses the shared store.
    pub(crate) fn new() -> Self {
        let folder = Self::make();
        Self { folder, home: shared().home() }
    }

    /// A place with an empty store of its own, for tests that count what is in it.
    pub(crate) fn with_own_store() -> Self {
        let folder = Self::make();
        let home = folder.path().join("home");
        Self { folder, home }
    }

    /// The same with the shared parent in it.
    pub(crate) fn with_own_store_and_parent() -> Self {
        warm();
        let place = Self::with_own_store();
        fs_err::create_dir(&place.home).unwrap();
        foreign::run(std::process::Command::new("cp").arg("-a").arg(shared().home().join("parents")).arg(&place.home));
        host::give_all(&place.home, shared().user);
        place
    }

    fn make() -> tempfile::TempDir {
        let folder = tempfile::tempdir_in(shared().folder.join("scratch")).unwrap();
        host::give(folder.path(), shared().user);
        folder
    }

    /// The folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The store that goldsmith uses here.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// Writes a document.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        if let Some(folder) = path.parent() {
            fs_err::create_dir_all(folder).unwrap();
        }
        fs_err::write(&path, text).unwrap();
        path
    }

    /// Writes a recipe of one component, whose phases are given, on the shared parent.
    pub(crate) fn recipe(&self, name: &str, phases: &str) -> PathBuf {
        self.write("component.yaml", &format!("schemaVersion: 1.0\nphases:\n{phases}"));
        let recipe = format!("name: {name}\nversion: 1.0.0\nparentImage: {PARENT}\ncomponents: [./component.yaml]\n");
        self.write("recipe.yaml", &recipe)
    }

    /// Writes a recipe of several components, each with a name and phases, on the shared parent.
    pub(crate) fn recipe_of(&self, name: &str, components: &[(&str, &str)]) -> PathBuf {
        let mut list = String::new();
        for (component, phases) in components {
            self.write(&format!("{component}.yaml"), &format!("schemaVersion: 1.0\nphases:\n{phases}"));
            list.push_str(&format!("  - ./{component}.yaml\n"));
        }
        let recipe = format!("name: {name}\nversion: 1.0.0\nparentImage: {PARENT}\ncomponents:\n{list}");
        self.write("recipe.yaml", &recipe)
    }

    /// goldsmith, in this folder.
    pub(crate) fn goldsmith(&self, arguments: &[&str]) -> Goldsmith {
        Goldsmith::new(self, arguments)
    }

    /// goldsmith, once the shared parent and its checkpoint are there.
    pub(crate) fn build(&self, arguments: &[&str]) -> Goldsmith {
        warm();
        let mut all = vec!["build"];
        all.extend(arguments);
        self.goldsmith(&all)
    }
}

impl Drop for Place {
    /// Images of this place's recipes go, so that all tests together need no more room than the few that run at a time.
    fn drop(&mut self) {
        // What a failed test has made explains it.
        if std::thread::panicking() {
            return;
        }
        let Ok(files) = fs_err::read_dir(self.folder.path()) else { return };
        for file in files.flatten() {
            let text = fs_err::read_to_string(file.path()).unwrap_or_default();
            let is_recipe = text.contains("\nparentImage:");
            let name = text.lines().find_map(|line| line.strip_prefix("name: ")).filter(|_| is_recipe);
            if let Some(name) = name {
                host::remove(&self.home.join("images").join(name));
            }
        }
    }
}

/// A phase of one bash step, as it stands in a component.
pub(crate) fn bash(phase: &str, script: &str) -> String {
    step(phase, "", script)
}

/// The same with more fields of the step, a line each.
pub(crate) fn step(phase: &str, fields: &str, script: &str) -> String {
    let fields: String = fields.lines().map(|line| format!("        {line}\n")).collect();
    let script: String = script.lines().map(|line| format!("              {line}\n")).collect();
    format!(
        "  - name: {phase}\n    steps:\n      - name: Step\n        action: ExecuteBash\n{fields}        inputs:\n          \
         commands:\n            - |\n{script}"
    )
}

/// Makes the shared parent and its checkpoint, once. What fails here is not tried again for every test.
fn warm() {
    static WARM: OnceLock<Result<(), String>> = OnceLock::new();
    let made = WARM.get_or_init(|| {
        let place = Place::new();
        // What is kept from run to run is taken as it is, whatever its publisher has by now.
        let bases = place.goldsmith(&["base", "list", "--json"]).run().success().json();
        let is_here = |base: &serde_json::Value| base["name"] == PARENT && base["disk"].is_string();
        let is_here = bases.as_array().unwrap().iter().any(is_here);
        let pulled = (!is_here).then(|| place.goldsmith(&["base", "pull", PARENT]).run());
        let is_well = pulled.as_ref().is_none_or(|pulled| pulled.code() == Some(0));
        // A build that fails at once leaves the checkpoint and costs no seal.
        let recipe = place.recipe("warm", &bash("build", "exit 1"));
        let built = place.goldsmith(&["build", &recipe.to_string_lossy()]).run();
        let said = pulled.map(|pulled| pulled.to_string()).unwrap_or_default();
        if is_well && built.code() == Some(3) { Ok(()) } else { Err(format!("{said}\n{built}")) }
    });
    if let Err(why) = made {
        panic!("the shared parent could not be made: {why}");
    }
}
