//! Many builds of many pipelines on real machines, while the scheduler, its builds and their machines are killed at random.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::framework::{PARENT, Place, Running, bash, names_in, read};

const PIPELINES: usize = 8;

/// Runs of each pipeline. All of them take their time, so CI does a few.
fn rounds() -> usize {
    if std::env::var_os("GOLDSMITH_TEST_THOROUGH").is_some() { 25 } else { 2 }
}

fn pipeline(number: usize) -> String {
    format!("soaked-{number}")
}

fn write_documents(place: &Place) {
    let phases = bash("build", "echo short > /etc/short");
    place.write("component.yaml", &format!("schemaVersion: 1.0\nphases:\n{phases}"));
    for number in 0..PIPELINES {
        let name = pipeline(number);
        let recipe = format!(
            "name: {name}\nversion: 1.0.0\nparentImage: {PARENT}\nmachine: {{ cpus: 1 }}\ncomponents: [./component.yaml]\n"
        );
        place.write(&format!("{name}-recipe.yaml"), &recipe);
        let document = format!(
            "kind: ImagePipeline\nname: {name}\nrecipe: {name}-recipe.yaml\n\
             imageTestsConfiguration: {{ imageTestsEnabled: false }}\nevents: [{{ file: events.jsonl }}]\n"
        );
        place.write(&format!("{name}.yaml"), &document);
    }
}

/// A process, its parent and its command line.
fn processes() -> BTreeMap<i32, (i32, String)> {
    let mut all = BTreeMap::new();
    for name in names_in(Path::new("/proc")) {
        let Ok(id) = name.parse() else { continue };
        // proc(5): the name stands in parentheses, the state behind it and then the parent.
        let Ok(line) = fs_err::read_to_string(format!("/proc/{id}/stat")) else { continue };
        let behind = line.rsplit_once(") ").map(|(_, behind)| behind.to_owned()).unwrap_or_default();
        let Some(parent) = behind.split(' ').nth(1).and_then(|parent| parent.parse().ok()) else { continue };
        let command = fs_err::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        all.insert(id, (parent, String::from_utf8_lossy(&command).replace('\0', " ")));
    }
    all
}

/// What a process has started, and so on.
fn below(root: i32, all: &BTreeMap<i32, (i32, String)>) -> Vec<i32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(all.iter().filter(|(_, (of, _))| *of == parent).map(|(&id, _)| id));
        next += 1;
    }
    found.remove(0);
    found
}

/// Whom to kill now: the scheduler itself, one of its builds, or a machine.
fn victim(scheduler: &Running, dice: usize) -> Option<i32> {
    let root = i32::try_from(scheduler.id()).unwrap();
    let all = processes();
    let family = below(root, &all);
    let is_build = |id: &&i32| all[*id].1.contains("pipeline build");
    let is_machine = |id: &&i32| all[*id].1.starts_with("qemu-system");
    let pick = |candidates: Vec<&i32>| candidates.get(dice / 8 % candidates.len().max(1)).map(|id| **id);
    match dice % 8 {
        0 => Some(root),
        1..=3 => pick(family.iter().filter(is_build).collect()),
        _ => pick(family.iter().filter(is_machine).collect()),
    }
}

fn runs(place: &Place) -> Vec<Value> {
    let mut runs = Vec::new();
    for number in 0..PIPELINES {
        let shown = place.goldsmith(&["pipeline", "show", &pipeline(number), "--json"]).run().success().json();
        runs.extend(shown["runs"].as_array().unwrap().iter().cloned());
    }
    runs
}

#[test]
fn builds_on_machines_survive_any_number_of_kills() {
    let place = Place::with_own_store_and_parent();
    write_documents(&place);
    // The layer that all share, so that the rest is short.
    let _first = place.goldsmith(&["pipeline", "run", "soaked-0"]).run().success();
    for number in (0..PIPELINES).cycle().take(PIPELINES * rounds()) {
        let name = pipeline(number);
        let _queued = place.goldsmith(&["pipeline", "run", &name, "--queue", "--anew"]).run().success();
    }
    let kills = kill_until_done(&place);
    judge(&place);
    assert!(kills >= 2 * rounds(), "only {kills} processes were killed, which proves little");
    eprintln!("{} builds, {kills} processes killed", PIPELINES * rounds());
}

/// Runs the scheduler until no run is left. Returns how many processes were killed.
fn kill_until_done(place: &Place) -> usize {
    let (mut seed, mut kills) = (u64::from(std::process::id()) | 1, 0);
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let start = || place.goldsmith(&["scheduler"]).start();
    let deadline = Instant::now() + Duration::from_secs(7200);
    let mut scheduler = start();
    let mut restarts = 0;
    loop {
        std::thread::sleep(Duration::from_millis(300 + random(1500)));
        let status = place.goldsmith(&["status", "--json", "--images", "0"]).run().success().json();
        let waiting = status["queue"].as_array().unwrap().len();
        if waiting == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "it does not come to an end");
        // A build whose machine is killed has failed, and more than half should come to be. So kills keep pace with what has
        // ended: a quick host sees enough of them, and a slow one not too many.
        if kills > (PIPELINES * rounds() - waiting) / 2 {
            continue;
        }
        let Some(victim) = victim(&scheduler, usize::try_from(random(64)).unwrap()) else { continue };
        let is_scheduler = victim == i32::try_from(scheduler.id()).unwrap();
        // It takes all its builds along.
        if is_scheduler && restarts == rounds() {
            continue;
        }
        restarts += usize::from(is_scheduler);
        // It may have ended by itself just now.
        kills += usize::from(kill_process(Pid::from_raw(victim).unwrap(), Signal::KILL).is_ok());
        if is_scheduler {
            let _killed = std::mem::replace(&mut scheduler, start()).wait().killed();
        }
    }
    scheduler.signal(Signal::TERM);
    let _ended = scheduler.wait().success();
    kills
}

/// Nothing is lost, nothing is there twice, nothing is left.
fn judge(place: &Place) {
    let home = format!("GOLDSMITH_HOME={}", place.home().display());
    let with_store = |id: &i32| {
        let environment = fs_err::read(format!("/proc/{id}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|word| word == home.as_bytes())
    };
    let left: Vec<String> =
        processes().into_iter().filter(|(id, _)| with_store(id)).map(|(_, (_, command))| command).collect();
    assert_eq!(left, Vec::<String>::new(), "processes are left");
    let images = place.goldsmith(&["image", "list", "--json"]).run().success().json();
    let images: BTreeMap<String, String> = images
        .as_array()
        .unwrap()
        .iter()
        .map(|image| (image["image"].as_str().unwrap().to_owned(), image["state"].as_str().unwrap().to_owned()))
        .collect();
    assert!(images.values().all(|state| state == "AVAILABLE" || state == "FAILED"), "{images:?}");
    // Of each that was not made is told, also if its goldsmith had no time to. What a scheduler was telling when it was killed
    // itself may be lost.
    let told: BTreeSet<String> = read(&place.path("events.jsonl"))
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|event| event["detail"]["state"]["status"] == "FAILED")
        .map(|event| event["resources"][0].as_str().unwrap().rsplit_once(":image/").unwrap().1.to_owned())
        .collect();
    let failed = || images.iter().filter(|(_, state)| *state == "FAILED").map(|(image, _)| image.clone());
    let untold: Vec<String> = failed().filter(|image| !told.contains(image)).collect();
    assert!(
        untold.len() <= rounds() && untold.len() * 2 <= failed().count().max(2),
        "{untold:?} are told of to nobody"
    );
    let runs = runs(place);
    assert_eq!(runs.len(), PIPELINES * rounds() + 1);
    let mut named = BTreeSet::new();
    for run in &runs {
        let build = &run["builds"][0];
        if build["status"] != "AVAILABLE" {
            assert!(build["status"] == "FAILED" && build["reason"].is_string(), "{run}");
            continue;
        }
        let image = build["image"].as_str().unwrap().to_owned();
        assert_eq!(images.get(&image).map(String::as_str), Some("AVAILABLE"), "{image} is lost");
        assert!(named.insert(image.clone()), "{image} is of two runs");
        let folder = place.home().join("images").join(&image);
        let manifest: Value = serde_json::from_str(&read(&folder.join("manifest.json"))).unwrap();
        let mut digest = Command::new("sha256sum");
        let digest = String::from_utf8(digest.arg(folder.join("disk.qcow2")).output().unwrap().stdout).unwrap();
        assert!(digest.starts_with(manifest["disk"]["sha256"].as_str().unwrap()), "{image} is not whole");
    }
    let available = images.iter().filter(|(_, state)| *state == "AVAILABLE").map(|(image, _)| image.clone());
    let unknown: Vec<String> = available.filter(|image| !named.contains(image)).collect();
    assert_eq!(unknown, Vec::<String>::new(), "images that no run knows");
    assert!(named.len() * 2 > runs.len(), "only {} of {} came to be", named.len(), runs.len());
    assert_eq!(names_in(&place.home().join("runs")), Vec::<String>::new(), "working folders are left");
}
