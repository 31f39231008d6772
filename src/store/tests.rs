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

    let living_run = store.begin_run("build").unwrap();
    let living = reserve(&store, "1.0.0");

    let recovered = store.recover().unwrap();
    assert_eq!(recovered, Recovered { images: vec![dead_image.id.clone()], runs: 1, problems: Vec::new() });
    assert!(!output.exists() && !dead_folder.exists() && living_run.folder().exists());
    assert!(!sleeper.wait().unwrap().success());
    let state = |id: &ImageId| store.find(&id.into(), |_| true).unwrap().manifest;
    assert_eq!(state(&dead_image.id).state, State::Failed);
    assert_eq!(state(&dead_image.id).reason.unwrap(), "goldsmith ended while the image was PENDING");
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
