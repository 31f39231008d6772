//! What is measured of goldsmith itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{Bench, Found};
use crate::setup::OLD_QEMU;
use crate::shell::{self, say};

/// The work: the same for all.
pub(super) const WORK: &str = "echo bench > /etc/bench";
const PARENT: &str = "debian-12-minimal";
/// How often processes are looked at.
const GLANCE: Duration = Duration::from_millis(50);

/// A finished goldsmith.
struct Built {
    seconds: f64,
    stages: BTreeMap<String, f64>,
    image: PathBuf,
    log: String,
    /// Most memory of goldsmith's and of QEMU's, in MiB.
    memory: [f64; 2],
}

impl Bench {
    fn home(&self) -> PathBuf {
        self.folder.join("home")
    }

    pub(super) fn goldsmith(&self, words: &[&str]) -> Command {
        let mut command = shell::command(shell::target().join("release/goldsmith"));
        command.args(words).env("GOLDSMITH_HOME", self.home()).env("NO_COLOR", "1");
        command
    }

    /// Gets the parent, starts it once, and makes what peers need.
    pub(super) fn prepare(&mut self) -> Result<()> {
        shell::run("the parent", &mut self.goldsmith(&["base", "pull", PARENT, "--quiet"]))?;
        let listed = shell::output(&mut self.goldsmith(&["base", "list", "--json"])).context("base list")?;
        let listed: serde_json::Value = serde_json::from_str(&listed)?;
        let bases = listed.as_array().context("no list")?;
        let base = bases.iter().find(|base| base["name"] == PARENT).context("no parent")?;
        self.parent = base["disk"].as_str().context("no disk")?.into();
        shell::run("its checkpoint", &mut self.goldsmith(&["base", "warm", PARENT, "--quiet"]))?;
        super::peers::prepare(self)?;
        let built = self.build("one", 1, &["--no-test"])?;
        let manifest: serde_json::Value = serde_json::from_slice(&fs_err::read(built.image.join("manifest.json"))?)?;
        self.accelerator = manifest["machine"]["accelerator"].as_str().context("no accelerator")?.to_owned();
        Ok(())
    }

    /// The folder of a new image.
    pub(super) fn image(&self, name: &str) -> Result<PathBuf> {
        Ok(self.build(name, 1, &["--no-test"])?.image)
    }

    /// Writes a recipe of so many components, the last of which has never been run.
    fn recipe(&self, name: &str, components: usize) -> Result<PathBuf> {
        let folder = self.folder.join("recipes").join(name);
        fs_err::create_dir_all(&folder)?;
        let mut list = String::new();
        for number in 1..=components {
            let is_last = number == components;
            let text = if is_last { unique() } else { format!("component {number}") };
            let path = folder.join(format!("c{number}.yaml"));
            fs_err::write(path, component(&format!("{WORK}\n              echo {text} >> /etc/bench")))?;
            list.push_str(&format!("  - ./c{number}.yaml\n"));
        }
        let recipe = format!("name: bench-{name}\nversion: 1.0.0\nparentImage: {PARENT}\ncomponents:\n{list}");
        let path = folder.join("recipe.yaml");
        fs_err::write(&path, recipe)?;
        Ok(path)
    }

    fn build(&self, name: &str, components: usize, flags: &[&str]) -> Result<Built> {
        let recipe = self.recipe(name, components)?;
        self.run(&recipe, flags, None)
    }

    fn run(&self, recipe: &Path, flags: &[&str], qemu: Option<&Path>) -> Result<Built> {
        let mut command = self.goldsmith(&["build", "--json"]);
        command.arg(recipe).args(flags).env("GOLDSMITH_LOG", "goldsmith=debug");
        if let Some(folder) = qemu {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let folders = [folder.to_owned()].into_iter().chain(std::env::split_paths(&path));
            command.env("PATH", std::env::join_paths(folders)?);
        }
        let (log, answer) = (self.folder.join("build.log"), self.folder.join("build.json"));
        let outputs = (fs_err::File::create(&answer)?.into_parts().0, fs_err::File::create(&log)?.into_parts().0);
        let started = Instant::now();
        let mut child = command.stdout(outputs.0).stderr(Stdio::from(outputs.1)).spawn()?;
        let mut memory = [0.0_f64; 2];
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            glance(child.id(), &mut memory);
            std::thread::sleep(GLANCE);
        };
        let seconds = started.elapsed().as_secs_f64();
        let log = fs_err::read_to_string(log)?;
        if !status.success() {
            let last: Vec<&str> = log.lines().rev().take(12).collect();
            bail!("goldsmith failed: {}", last.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        let answer: serde_json::Value = serde_json::from_slice(&fs_err::read(answer)?)?;
        let stages = answer["stages"].as_array().into_iter().flatten();
        let stage = |stage: &serde_json::Value| Some((stage["name"].as_str()?.to_owned(), stage["seconds"].as_f64()?));
        let image = self.home().join("images").join(answer["image"].as_str().context("no image")?);
        remove_older(&image)?;
        Ok(Built { seconds, stages: stages.filter_map(stage).collect(), image, log, memory })
    }
}

/// A build of which only the last component had to run: where the layers of the others are not there, the first build makes
/// them and is not measured.
fn last_changed(build: impl Fn() -> Result<Built>) -> Result<Built> {
    let built = build()?;
    let manifest: serde_json::Value = serde_json::from_slice(&fs_err::read(built.image.join("manifest.json"))?)?;
    let components = manifest["components"].as_array().context("no components")?;
    let others = components.split_last().map_or(&[][..], |(_, others)| others);
    if others.iter().all(|component| component["cached"] == true) { Ok(built) } else { build() }
}

/// Removes earlier builds of an image: hundreds of them fill a disk.
fn remove_older(image: &Path) -> Result<()> {
    let number = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    for other in fs_err::read_dir(image.parent().context("no version")?)? {
        let other = other?.path();
        if number(&other).is_some_and(|other| Some(other) < number(image)) {
            fs_err::remove_dir_all(other)?;
        }
    }
    Ok(())
}

/// Notes how much memory goldsmith and its QEMU have used at most so far.
pub(super) fn glance(goldsmith: u32, most: &mut [f64; 2]) {
    let mebibytes = |process: &str| {
        let status = fs_err::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let peak =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        peak.map_or(0.0, |kibibytes: f64| kibibytes / 1024.0)
    };
    most[0] = most[0].max(mebibytes(&goldsmith.to_string()));
    let Ok(processes) = fs_err::read_dir("/proc") else { return };
    for process in processes.flatten() {
        let Ok(name) = process.file_name().into_string() else { continue };
        let line = fs_err::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let is_qemu = line.split('\0').next().is_some_and(|program| program.contains("qemu-system"));
        if is_qemu && line.contains(&format!("-{goldsmith}-")) {
            most[1] = most[1].max(mebibytes(&name));
        }
    }
}

/// A component of one bash step.
fn component(script: &str) -> String {
    format!(
        "schemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      - name: Work\n        action: ExecuteBash\n        \
         inputs:\n          commands:\n            - |\n              {script}\n"
    )
}

fn unique() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{}", now.as_nanos())
}

fn found(values: &[(&str, f64)]) -> Found {
    values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

/// A trivial build on a warm parent, and what it says of checkpoints and memory.
pub(super) fn warm(bench: &Bench) -> Result<Found> {
    let built = bench.build("one", 1, &["--no-test"])?;
    let mut values = vec![("warm", built.seconds), ("memory of goldsmith (MiB)", built.memory[0])];
    values.push(("memory of QEMU (MiB)", built.memory[1]));
    values.extend(built.stages.get("boot").map(|&seconds| ("ready, warm", seconds)));
    values.extend(built.stages.get("seal").map(|&seconds| ("seal", seconds)));
    values.extend(between(&built.log, "pausing", "going on").map(|seconds| ("checkpoint", seconds)));
    values.push(("checkpoint size (MiB)", newest_memory(&bench.home().join("layers"))?));
    Ok(found(&values))
}

/// Seconds between two messages of a log.
fn between(log: &str, first: &str, second: &str) -> Option<f64> {
    let seconds = |text: &str| {
        let line = log.lines().find(|line| line.ends_with(text))?;
        let clock = line.split('T').nth(1)?.split('Z').next()?;
        clock.split(':').try_fold(0.0, |total, part| Some(total * 60.0 + part.parse::<f64>().ok()?))
    };
    Some(seconds(second)? - seconds(first)?)
}

/// Space that the newest memory file takes, in MiB.
fn newest_memory(layers: &Path) -> Result<f64> {
    use std::os::unix::fs::MetadataExt;
    let mut newest = None;
    for layer in fs_err::read_dir(layers)? {
        let Ok(metadata) = fs_err::metadata(layer?.path().join("memory")) else { continue };
        newest = newest.max(Some((metadata.mtime(), metadata.blocks())));
    }
    let blocks = newest.context("no memory file")?.1;
    Ok(f64::from(u32::try_from(blocks / 2048)?))
}

/// A trivial build with nothing cached but the parent.
pub(super) fn cold(bench: &Bench) -> Result<Found> {
    let built = bench.build("one", 1, &["--no-test", "--cold"])?;
    let mut values = vec![("cold", built.seconds)];
    values.extend(built.stages.get("boot").map(|&seconds| ("ready, cold", seconds)));
    Ok(found(&values))
}

/// The same with the test stage.
pub(super) fn tested_cold(bench: &Bench) -> Result<Found> {
    let built = bench.build("one", 1, &["--cold"])?;
    let mut values = vec![("tested cold", built.seconds)];
    values.extend(built.stages.get("test").map(|&seconds| ("test stage", seconds)));
    Ok(found(&values))
}

/// Nothing has changed.
pub(super) fn unchanged(bench: &Bench) -> Result<Found> {
    bench.build("same", 3, &["--no-test"])?;
    let recipe = bench.folder.join("recipes/same/recipe.yaml");
    let built = bench.run(&recipe, &["--no-test"], None)?;
    if !built.stages.contains_key("unchanged") {
        bail!("something was built");
    }
    Ok(found(&[("unchanged", built.seconds)]))
}

/// The last of several components has changed.
pub(super) fn last_of(bench: &Bench, components: usize) -> Result<Found> {
    let name = format!("last-{components}");
    let built = last_changed(|| bench.build(&name, components, &["--no-test"]))?;
    let steps = built
        .log
        .lines()
        .filter_map(|line| line.split("build/Work done ").nth(1)?.split(' ').next()?.parse::<f64>().ok());
    let own: f64 = steps.sum();
    Ok(vec![
        (format!("last of {components}"), built.seconds),
        (format!("last of {components}, without its own time"), built.seconds - own),
    ])
}

/// The build that people really run: a real recipe, tested, after its last component was edited.
pub(super) fn nginx(bench: &Bench) -> Result<Found> {
    let folder = bench.folder.join("recipes/nginx");
    fs_err::create_dir_all(&folder)?;
    let shipped = shell::root().join("recipes");
    let text = fs_err::read_to_string(shipped.join("nginx.yaml"))?;
    let site = folder.join("nginx-site");
    if !site.exists() {
        shell::run("the recipe's files", shell::command("cp").arg("-r").arg(shipped.join("nginx-site")).arg(&site))?;
    }
    let recipe = folder.join("recipe.yaml");
    fs_err::write(&recipe, format!("{}\n  - ./configure.yaml\n", text.trim_end()))?;
    let build = |flags: &[&str]| {
        fs_err::write(folder.join("configure.yaml"), component(&format!("echo {} > /etc/bench", unique())))?;
        bench.run(&recipe, flags, None)
    };
    last_changed(|| build(&["--no-test"]))?;
    let built = build(&[])?;
    let mut values = vec![("nginx", built.seconds)];
    // The test stage is the cold boot and the tests; whatever else there is, the budget counts.
    values.extend(built.stages.get("test").map(|&seconds| ("nginx, without its test stage", built.seconds - seconds)));
    Ok(found(&values))
}

/// A QEMU that can't map memory to a file.
pub(super) fn old_qemu(bench: &Bench) -> Result<Found> {
    let folder = Path::new(OLD_QEMU).join("bin");
    if !folder.exists() {
        bail!("there is no old QEMU beside this host's own");
    }
    let recipe = bench.recipe("one", 1)?;
    let built = bench.run(&recipe, &["--no-test"], Some(&folder))?;
    // One that has just been written is not read as quickly as one that lies there.
    let is_restored = built.log.contains("restoring");
    let built = if is_restored { built } else { bench.run(&bench.recipe("one", 1)?, &["--no-test"], Some(&folder))? };
    let mut values = Vec::new();
    values.extend(built.stages.get("boot").map(|&seconds| ("ready, warm, QEMU 7.2", seconds)));
    values.extend(between(&built.log, "pausing", "going on").map(|seconds| ("checkpoint, QEMU 7.2", seconds)));
    Ok(found(&values))
}

/// Parents with much on them.
pub(super) fn parents(bench: &Bench) -> Result<Found> {
    let mut values = Vec::new();
    for &size in &bench.sizes {
        match on_parent(bench, size) {
            Ok(seconds) => values.push((format!("warm, {size} GB of data"), seconds)),
            Err(error) => say(&format!("a parent with {size} GB can't be measured: {error:#}")),
        }
    }
    Ok(values)
}

fn on_parent(bench: &Bench, size: u64) -> Result<f64> {
    let name = format!("data-{size}");
    let folder = bench.folder.join("recipes").join(&name);
    fs_err::create_dir_all(&folder)?;
    if !bench.home().join("images").join(format!("bench-{name}")).exists() {
        // The overlay, the layer and the sealed copy are there at the same time.
        let needed = (3 * size + 5) << 30;
        let stat = rustix::fs::statvfs(&bench.folder)?;
        if stat.f_bavail * stat.f_frsize < needed {
            bail!("it takes {} GiB of free space for a while", needed >> 30);
        }
        // Half of it can be compressed, as in most systems.
        let fill = format!(
            "for i in $(seq {}); do head -c 64M /dev/urandom; head -c 64M /dev/zero | tr '\\\\0' x; done > /opt/data",
            size * 8
        );
        fs_err::write(folder.join("fill.yaml"), component(&fill))?;
        let recipe = format!(
            "name: bench-{name}\nversion: 1.0.0\nparentImage: {PARENT}\ndisk: {}GiB\ncomponents: [./fill.yaml]\n",
            size + 4
        );
        let path = folder.join("fill-recipe.yaml");
        fs_err::write(&path, recipe)?;
        bench.run(&path, &["--no-test", "--cold"], None)?;
    }
    let edit = || fs_err::write(folder.join("c1.yaml"), component(&format!("echo {} > /etc/bench", unique())));
    let recipe = format!("name: bench-on-{name}\nversion: 1.0.0\nparentImage: bench-{name}\ncomponents: [./c1.yaml]\n");
    let path = folder.join("recipe.yaml");
    fs_err::write(&path, recipe)?;
    // The first build starts the parent.
    edit()?;
    bench.run(&path, &["--no-test"], None)?;
    edit()?;
    let built = bench.run(&path, &["--no-test"], None)?;
    Ok(built.seconds)
}
