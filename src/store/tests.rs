use super::manifest::State;
use super::*;

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("store")).unwrap();
    (folder, store)
}

fn reserve(store: &Store, version: &str) -> Reservation {
    store.reserve(&"nginx".parse().unwrap(), version.parse().unwrap()).unwrap()
}

#[test]
fn build_numbers_are_handed_out_once_even_when_images_go() {
    let (_folder, store) = store();
    let first = reserve(&store, "1.0.0");
    let second = reserve(&store, "1.0.0");
    assert_eq!([first.image.id.to_string(), second.image.id.to_string()], ["nginx/1.0.0/1", "nginx/1.0.0/2"]);
    let image = second.image.clone();
    assert!(matches!(image.clone().remove(&store), Err(Error::Busy { .. })));
    drop(second);
    image.remove(&store).unwrap();
    assert_eq!(reserve(&store, "1.0.0").image.id.to_string(), "nginx/1.0.0/3");
    assert_eq!(reserve(&store, "1.0.x").image.id.to_string(), "nginx/1.0.1/1");
}

#[test]
fn build_numbers_are_handed_out_once_under_concurrency() {
    let (_folder, store) = store();
    let numbers: Vec<u32> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| (0..10).map(|_| reserve(&store, "1.0.0").image.id.build).collect::<Vec<_>>()))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let mut sorted = numbers;
    sorted.sort_unstable();
    assert_eq!(sorted, (1..=80).collect::<Vec<_>>());
}

/// Says where the store is to [`a_process_that_reserves`], which does nothing without.
const STORE_OF_PROCESSES: &str = "GOLDSMITH_TEST_RESERVING";

#[test]
fn build_numbers_are_handed_out_once_to_many_processes() {
    let (_folder, store) = store();
    let process = || {
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::a_process_that_reserves", "--nocapture"])
            .env(STORE_OF_PROCESSES, store.root())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    let processes: Vec<_> = (0..8).map(|_| process()).collect();
    let mut numbers: Vec<u32> = Vec::new();
    for process in processes {
        let output = process.wait_with_output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        numbers.extend(text.lines().filter_map(|line| line.strip_prefix("reserved ")?.parse::<u32>().ok()));
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=80).collect::<Vec<_>>());
}

/// What the processes of the test above do.
#[test]
#[allow(clippy::print_stdout)]
fn a_process_that_reserves() {
    let Some(root) = std::env::var_os(STORE_OF_PROCESSES) else { return };
    let store = Store::open(PathBuf::from(root)).unwrap();
    for _ in 0..10 {
        println!("\nreserved {}", reserve(&store, "1.0.0").image.id.build);
    }
}

#[test]
fn the_newest_accepted_image_is_found_and_a_miss_names_what_there_is() {
    let (_folder, store) = store();
    for version in ["1.0.0", "1.9.0", "1.10.0"] {
        let mut held = reserve(&store, version);
        held.image.update(|manifest| manifest.set_state(State::Available, None)).unwrap();
    }
    let _failed = reserve(&store, "1.10.0");
    let available = |image: &Image| image.manifest.state == State::Available;
    let find = |pattern: &str| store.find(&pattern.parse().unwrap(), available);
    assert_eq!(find("nginx").unwrap().id.to_string(), "nginx/1.10.0/1");
    assert_eq!(find("nginx/1.9.x").unwrap().id.to_string(), "nginx/1.9.0/1");
    let Err(Error::NoImage { known, .. }) = find("nginx/2.x.x") else { panic!("found") };
    assert_eq!(known.len(), 4);
}

#[test]
fn a_deprecated_image_is_used_if_there_is_no_other_and_a_disabled_one_never() {
    let (_folder, store) = store();
    let all: Vec<ImageId> = ["1.0.0", "1.0.1"]
        .map(|version| {
            let mut held = reserve(&store, version);
            held.image.update(|manifest| manifest.set_state(State::Available, None)).unwrap();
            held.image.id.clone()
        })
        .into();
    let set = |id: &ImageId, state| {
        let image = store.find(&id.into(), |_| true).unwrap();
        store.set_usability(image, state, Some("old".to_owned())).map(|(_, from)| from)
    };
    let usable = || store.find_usable(&"nginx".parse().unwrap()).map(|image| image.id);
    assert_eq!(set(&all[1], State::Deprecated).unwrap(), State::Available);
    assert_eq!(usable().unwrap(), all[0]);
    set(&all[0], State::Disabled).unwrap();
    assert_eq!(usable().unwrap(), all[1]);
    set(&all[1], State::Disabled).unwrap();
    assert!(matches!(usable(), Err(Error::NoImage { .. })));
    assert_eq!(set(&all[1], State::Available).unwrap(), State::Disabled);
    assert!(matches!(set(&all[1], State::Failed), Err(Error::NotThere { .. })));
    let stable = "nginx@stable".parse().unwrap();
    store.promote(&stable, &all[1]).unwrap();
    assert!(matches!(set(&all[1], State::Disabled), Err(Error::Named { .. })));
    // Somebody is at work on it.
    let held = Reservation::of(&store, store.find(&(&all[0]).into(), |_| true).unwrap()).unwrap();
    assert!(matches!(set(&all[0], State::Available), Err(Error::Busy { .. })));
    drop(held);
    let failed = reserve(&store, "1.0.2").image.id;
    assert!(matches!(set(&failed, State::Available), Err(Error::NotThere { .. })));
}

#[test]
fn a_deletion_waits_for_nobody_and_is_not_taken_back() {
    let (_folder, store) = store();
    let mut held = reserve(&store, "1.0.0");
    held.image.update(|manifest| manifest.set_state(State::Available, None)).unwrap();
    let known = held.image.clone();
    drop(held);
    let delete = || store.begin_deletion(known.clone(), "old".to_owned());
    // A machine that runs on it is in the way of its deletion only.
    let running = known.hold().unwrap();
    assert!(running.is_some());
    assert!(matches!(delete(), Err(Error::Busy { .. })));
    store.set_usability(known.clone(), State::Deprecated, None).unwrap();
    drop(running);
    let (deleted, from) = delete().unwrap();
    assert_eq!((deleted.manifest.state, from), (State::Deleted, State::Deprecated));
    // Whoever found it before learns of it when they lock it.
    assert_eq!(Reservation::of(&store, known.clone()).unwrap().image.manifest.state, State::Deleted);
    assert!(matches!(store.set_usability(known.clone(), State::Available, None), Err(Error::NotThere { .. })));
    // The next run goes on with it.
    assert_eq!(delete().unwrap().1, State::Deleted);
    deleted.remove(&store).unwrap();
    assert!(matches!(Reservation::of(&store, known), Err(Error::Io { .. } | Error::NoImage { .. })));
}

#[test]
fn what_runs_is_named_by_its_folder() {
    let (_folder, store) = store();
    let run = store.begin_run("build").unwrap();
    let running = store.running().unwrap();
    assert_eq!(running.len(), 1);
    assert_eq!((running[0].purpose.as_str(), running[0].process), ("build", std::process::id()));
    drop(run);
    assert_eq!(store.running().unwrap(), []);
}

#[test]
fn a_store_of_a_newer_format_is_refused() {
    let (_folder, store) = store();
    fs::write(store.root().join("version"), "2\n").unwrap();
    let error = Store::open(store.root()).unwrap_err();
    assert!(error.to_string().ends_with("has format 2; this goldsmith knows formats up to 1"), "{error}");
}

#[test]
fn what_a_killed_process_left_is_ended_and_what_lives_is_not_touched() {
    let (folder, store) = store();
    let output = folder.path().join(".export.vmdk.part");
    fs::write(&output, "half").unwrap();
    // A killed process neither runs destructors nor gives locks back by itself: the kernel does that.
    let dead_run = store.begin_run("build").unwrap();
    dead_run.will_leave(&output).unwrap();
    let dead_folder = dead_run.folder().to_owned();
    let copy = folder.path().join("copy");
    fs::rename(&dead_folder, &copy).unwrap();
    drop(dead_run);
    fs::rename(&copy, &dead_folder).unwrap();
    let dead_image = reserve(&store, "1.0.0").image;
    let mut sleeper = std::process::Command::new("sleep").arg("1000").current_dir(&dead_folder).spawn().unwrap();

    let half = dead_image.folder().join(".disk.qcow2.ab12.part");
    fs::write(&half, "half").unwrap();

    let living_run = store.begin_run("build").unwrap();
    let living = reserve(&store, "1.0.0");

    let recovered = store.recover().unwrap();
    assert_eq!(recovered, Recovered { images: vec![dead_image.id.clone()], runs: 1, problems: Vec::new() });
    assert!(!half.exists() && dead_image.folder().exists());
    assert!(!output.exists() && !dead_folder.exists() && living_run.folder().exists());
    assert!(!sleeper.wait().unwrap().success());
    let state = |id: &ImageId| store.find(&id.into(), |_| true).unwrap().manifest;
    assert_eq!(state(&dead_image.id).state, State::Failed);
    assert_eq!(state(&dead_image.id).reason.unwrap(), "goldsmith ended while the image was PENDING");
    let left = [&dead_image.id, &living.image.id].map(|id| left_in(&state(id)));
    assert_eq!(left, [Some(State::Pending), None]);
    assert_eq!(state(&living.image.id).state, State::Pending);
    assert_eq!(store.recover().unwrap(), Recovered::default());
}

#[test]
fn a_kept_run_survives_recovery() {
    let (_folder, store) = store();
    let mut run = store.begin_run("build").unwrap();
    let folder = run.keep().to_owned();
    drop(run);
    assert_eq!(store.recover().unwrap(), Recovered::default());
    assert!(folder.exists());
}

#[test]
fn a_dead_runs_folder_outside_goes_with_it() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path()).unwrap();
    let mut run = store.begin_run("pull").unwrap();
    let outside = run.folder_outside().unwrap();
    fs::write(outside.join("file"), "x").unwrap();
    // As a killed process leaves it: the folder is there, and its lock is free.
    let folder = run.keep().to_owned();
    drop(run);
    fs::remove_file(folder.join("kept")).unwrap();
    assert_eq!(store.recover().unwrap().runs, 1);
    assert!(!outside.exists() && !folder.exists());
}
