//! Many builds of many pipelines, while workers, builds and what builds start are killed at random.
//!
//! Everything is what the product runs, in processes of its own, but for what a build does: instead of a virtual machine it
//! has a process that sleeps. Processes are this test's own program, started again for one test that plays its part.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use rustix::process::{Pid, Signal, kill_process};
use tokio_util::sync::CancellationToken;

use super::execute::Attempt;
use super::ledger::Ledger;
use super::queue::Needs;
use super::run::{Run, Status};
use super::simulation::definition;
use super::state::State;
use super::worker::{Until, Worker};
use crate::host::process::Program;
use crate::store::Store;
use crate::store::manifest::State as ImageState;

/// Names the store, and with it the part that a process plays.
const STORE: &str = "GOLDSMITH_SOAK_STORE";
const WORKER: &str = "pipeline::soak::plays_a_worker";
const BUILD: &str = "pipeline::soak::plays_a_build";
const PIPELINES: [&str; 8] = ["one", "two", "three", "four", "five", "six", "seven", "eight"];

fn store() -> Option<Store> {
    Some(Store::open(std::env::var_os(STORE)?).unwrap())
}

/// A program that plays a part: this one, told to run one test.
fn part(name: &str) -> Vec<String> {
    ["--exact", name, "--nocapture", "--quiet"].map(str::to_owned).to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plays_a_worker() {
    let Some(store) = store() else { return };
    let program = Program::new(std::env::current_exe().unwrap()).args(part(BUILD)).arg("--");
    let worker = Worker::new(store, program, goldsmith_aws::Endpoints::default(), Arc::new(|_| {}));
    // On a worker's thread, since children die with the thread that started them.
    let work = tokio::spawn(async move { worker.work(&Until::Idle, &CancellationToken::new()).await });
    work.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn plays_a_build() {
    let Some(store) = store() else { return };
    let words: Vec<String> = std::env::args().collect();
    let [.., run, number] = words.as_slice() else { panic!("{words:?}") };
    let attempt = Attempt::begin(&Ledger::new(&store), run, number.parse().unwrap()).unwrap();
    let made = tokio::spawn(async move { (make(&store, &attempt).await, attempt) });
    let (made, attempt) = made.await.unwrap();
    attempt.end(&attempt.outcome(made).unwrap()).unwrap();
}

/// What the factory does with a store, without a machine. One in ten fails.
async fn make(store: &Store, attempt: &Attempt) -> Result<crate::store::version::ImageId, (Status, String)> {
    if let Some(image) = attempt.earlier(store) {
        return Ok(image.id);
    }
    let mut reservation = store.reserve(&attempt.run.pipeline, "1.0.0".parse().unwrap()).unwrap();
    let id = reservation.image.id.clone();
    attempt.reserved(&id).unwrap();
    let _run = store.begin_run("build").unwrap();
    let milliseconds = 20 + u64::from(std::process::id() % 7) * 20;
    let machine = Program::new("sleep").arg(format!("{:.3}", Duration::from_millis(milliseconds).as_secs_f64()));
    if let Err(error) = machine.run().await {
        reservation.image.update(|manifest| manifest.set_state(ImageState::Failed, None)).unwrap();
        return Err((Status::Failed, error.to_string()));
    }
    if std::process::id().is_multiple_of(10) {
        reservation.image.update(|manifest| manifest.set_state(ImageState::Failed, None)).unwrap();
        return Err((Status::Failed, "it fails".to_owned()));
    }
    reservation.image.update(|manifest| manifest.set_state(ImageState::Available, None)).unwrap();
    Ok(id)
}

/// Processes below one of ours, itself the first, by their parents.
fn family(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs_err::read_dir("/proc").unwrap().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // proc(5): the name stands in parentheses, the state behind it and then the parent.
        let Ok(line) = fs_err::read_to_string(entry.path().join("stat")) else { continue };
        let behind = line.rsplit_once(") ").map(|(_, behind)| behind.to_owned()).unwrap_or_default();
        let Some(parent) = behind.split(' ').nth(1).and_then(|parent| parent.parse().ok()) else { continue };
        children.entry(parent).or_default().push(id);
    }
    let mut all = vec![root];
    let mut next = 0;
    while let Some(&parent) = all.get(next) {
        all.extend(children.get(&parent).into_iter().flatten());
        next += 1;
    }
    all
}

/// Processes that have to do with the store, whoever their parents are by now.
fn left_behind(store: &Path) -> Vec<String> {
    let variable = format!("{STORE}={}", store.display());
    let mut found = Vec::new();
    for entry in fs_err::read_dir("/proc").unwrap().flatten() {
        let Ok(environment) = fs_err::read(entry.path().join("environ")) else { continue };
        if environment.split(|&byte| byte == 0).any(|word| word == variable.as_bytes()) {
            found.push(fs_err::read_to_string(entry.path().join("cmdline")).unwrap_or_default());
        }
    }
    found
}

fn start_worker(home: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(part(WORKER)).env(STORE, home).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

#[test]
fn builds_survive_any_number_of_kills() {
    let rounds = if std::env::var_os("GOLDSMITH_TEST_THOROUGH").is_some() { 25 } else { 15 };
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("store")).unwrap();
    let ledger = Ledger::new(&store);
    let first: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    for name in PIPELINES {
        let mut definition = definition(name, "rate(1 day)", "UTC");
        // Of one recipe, builds would go one after the other.
        definition.how.recipe = name.into();
        let held = ledger.hold().unwrap();
        held.save_state(&State::new(&definition, first)).unwrap();
        for round in 0..rounds {
            let due = first + SignedDuration::from_hours(24 * (round + 1));
            let mut run = Run::new(&definition, Some(due), due, Needs { memory: 1 << 20, cpus: 0, disk: 0 });
            assert!(held.add_run(&mut run).unwrap());
        }
    }
    let kills = kill_at_random(&store, &ledger);
    judge(&store, &ledger, usize::try_from(rounds).unwrap() * PIPELINES.len());
    assert!(kills >= 5, "only {kills} processes were killed, which proves little");
}

/// Has two workers at a time work on the queue until all runs have ended. Returns how many processes were killed.
fn kill_at_random(store: &Store, ledger: &Ledger) -> usize {
    let (mut seed, mut kills) = (u64::from(std::process::id()) | 1, 0);
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % u64::try_from(below).unwrap()).unwrap()
    };
    let deadline = Instant::now() + Duration::from_secs(600);
    // More than half have to come to be, on a host of any speed.
    let most = ledger.runs().unwrap().len() / 2;
    let mut workers: Vec<Child> = (0..2).map(|_| start_worker(store.root())).collect();
    while ledger.runs().unwrap().iter().any(|run| run.ended.is_none()) {
        assert!(Instant::now() < deadline, "it does not come to an end");
        std::thread::sleep(Duration::from_millis(20 + u64::try_from(random(80)).unwrap()));
        let chosen = random(workers.len());
        let all = family(workers[chosen].id());
        // The worker itself, a build, or what a build has started.
        let victim = all[if random(4) == 0 { 0 } else { random(all.len()) }];
        if kills < most
            && let Some(victim) = i32::try_from(victim).ok().and_then(Pid::from_raw)
            && workers[chosen].try_wait().unwrap().is_none()
        {
            // It may have ended by itself just now.
            kills += usize::from(kill_process(victim, Signal::KILL).is_ok());
        }
        for worker in &mut workers {
            if worker.try_wait().unwrap().is_some() {
                *worker = start_worker(store.root());
            }
        }
    }
    for mut worker in workers {
        // Nothing is left for it to do; it ends when it sees that.
        worker.wait().unwrap();
    }
    kills
}

fn judge(store: &Store, ledger: &Ledger, count: usize) {
    assert_eq!(left_behind(store.root()), Vec::<String>::new());
    store.recover().unwrap();
    let runs = ledger.runs().unwrap();
    assert_eq!(runs.len(), count);
    let images = store.images().unwrap();
    let available: BTreeSet<String> = images
        .iter()
        .filter(|image| image.manifest.state == ImageState::Available)
        .map(|image| image.id.to_string())
        .collect();
    assert!(images.iter().all(|image| !image.manifest.state.is_under_way()));
    let mut named = BTreeSet::new();
    for run in &runs {
        let record = &run.builds[0];
        match record.status {
            Status::Available => {
                let image = record.image.as_ref().unwrap().to_string();
                assert!(available.contains(&image), "{image} is lost");
                assert!(named.insert(image.clone()), "{image} is of two runs");
            }
            Status::Failed => assert!(record.reason.is_some(), "{record:?}"),
            other => panic!("{} is {other}", run.id),
        }
        assert!(ledger.take_build(&run.id, 0).unwrap().is_some(), "a lock is left");
    }
    // An image that no run knows would be a run that was made twice.
    let known: BTreeSet<String> =
        runs.iter().filter_map(|run| run.builds[0].image.as_ref()).map(ToString::to_string).collect();
    assert!(available.is_subset(&known), "{:?}", available.difference(&known));
    assert!(named.len() * 2 > count, "only {} of {count} came to be", named.len());
    for name in PIPELINES {
        let state = ledger.state(&name.parse().unwrap()).unwrap().unwrap();
        assert!(state.last_run.is_some(), "{name}");
    }
    assert_eq!(fs_err::read_dir(store.root().join("runs")).unwrap().count(), 0, "a working folder is left");
}
