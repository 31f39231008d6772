//! How commands end, whatever they do: signals, output that goes nowhere, documents that can't be read.

use rustix::process::Signal;

use crate::framework::{Goldsmith, Place, catches};

const POLICY: &str = "kind: LifecyclePolicy
name: tidy
resourceType: AMI_IMAGE
policyDetails: [{ action: { type: DELETE, includeResources: { files: true } }, filter: { type: COUNT, value: 1 } }]
resourceSelection: { recipes: [{ name: none, semanticVersion: 1.x.x }] }
";

/// A policy that is waited for: another run of one is under way.
fn waiting(place: &Place, words: &[&str]) -> (fs_err::File, Goldsmith) {
    place.write("tidy.yaml", POLICY);
    let _nothing_to_do = place.goldsmith(&["lifecycle", "run", "tidy.yaml"]).run().success();
    let lock = fs_err::File::open(place.home().join("lifecycle.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    (lock, Goldsmith::behind(place, words, &["lifecycle", "run", "tidy.yaml"]))
}

#[test]
fn a_policy_that_waits_can_be_interrupted() {
    let place = Place::with_own_store();
    let (_lock, goldsmith) = waiting(&place, &[]);
    let running = goldsmith.start();
    running.wait_until("it listens for signals", || catches(running.id(), Signal::INT));
    running.signal(Signal::INT);
    let _interrupted = running.wait().fails(130).says("interrupted");
}

#[test]
fn a_publisher_that_does_not_answer_keeps_nobody_from_interrupting() {
    let place = Place::with_own_store();
    // The kernel takes connections, and nobody ever answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", silent.local_addr().unwrap());
    fs_err::create_dir(place.path("base-images")).unwrap();
    let base = format!("description: d\nurl: {address}/disk\nchecksumFile: {address}/SUMS\n");
    place.write("base-images/silent.yaml", &base);
    place.write("web.yaml", "name: web\nversion: 1.0.0\nparentImage: silent\n");
    place.write("pipelines.yaml", "kind: ImagePipeline\nname: by-hand\nrecipe: web.yaml\n");
    let running = place.goldsmith(&["pipeline", "run", "by-hand"]).start();
    running.wait_until("it listens for signals", || catches(running.id(), Signal::INT));
    let _asked = silent.accept().unwrap();
    running.signal(Signal::INT);
    let interrupted = running.wait().fails(130);
    assert!(!interrupted.stderr.contains("is in the queue"), "{interrupted}");
}

#[test]
fn what_nohup_ignores_stays_ignored() {
    let place = Place::with_own_store();
    let (lock, goldsmith) = waiting(&place, &["nohup"]);
    let running = goldsmith.start();
    running.wait_until("it listens for signals", || catches(running.id(), Signal::TERM));
    assert!(!catches(running.id(), Signal::HUP));
    running.signal(Signal::HUP);
    drop(lock);
    let _done = running.wait().success();
}

#[test]
fn a_result_that_can_not_be_printed_is_a_failure_and_a_reader_that_has_enough_is_none() {
    let place = Place::with_own_store();
    let to = |where_to: &str| {
        let script = format!("exec \"$0\" \"$@\" > {where_to}");
        Goldsmith::behind(&place, &["sh", "-c", &script], &["base", "list", "--json"]).run()
    };
    let _full = to("/dev/full").fails(1).says("the result can't be printed: No space left on device");
    let _nothing = to("/dev/null").success();
    let closed = ["bash", "-c", "\"$0\" \"$@\" | true; exit ${PIPESTATUS[0]}"];
    for arguments in [&["base", "list", "--json"][..], &["completions", "bash"]] {
        let _closed = Goldsmith::behind(&place, &closed, arguments).run().success();
    }
}

#[test]
fn variables_that_are_set_to_nothing_count_as_none() {
    let place = Place::with_own_store();
    let list = place.goldsmith(&["pipeline", "list"]).env("GOLDSMITH_HOME", "").env("GOLDSMITH_PIPELINES", "");
    let _listed = list.env("GOLDSMITH_LAYER_BUDGET", "").run().success();
    let _not_meant = place.goldsmith(&["--home", "", "image", "list"]).run().fails(2).says("`--home` names no folder");
    assert!(place.path(".local/share/goldsmith/version").is_file());
}

#[test]
fn one_bad_document_hides_no_other() {
    let place = Place::with_own_store();
    fs_err::create_dir(place.path("base-images")).unwrap();
    place.write("base-images/mine.yaml", "description: mine\nurl: https://example.org/x\n");
    let listed = place.goldsmith(&["base", "list", "--json"]).run().fails(2).says("a download needs either");
    let names: Vec<String> = listed.json().as_array().unwrap().iter().map(|base| base["name"].to_string()).collect();
    assert!(names.contains(&"\"debian-12-minimal\"".to_owned()), "{names:?}");
    let _no_parent = place.goldsmith(&["base", "pull", "mine"]).run().fails(2);
    let good = "schemaVersion: 1.0\nphases: [{ name: build, steps: [{ name: Again, action: Reboot }] }]\n";
    place.write("good.yaml", good);
    fs_err::write(place.path("latin1.yaml"), b"name: caf\xe9\n").unwrap();
    let arguments = ["component", "validate", "--json", "latin1.yaml", "missing.yaml", "good.yaml"];
    let verdicts = place.goldsmith(&arguments).run().fails(2).json();
    let valid: Vec<bool> =
        verdicts.as_array().unwrap().iter().map(|verdict| verdict["valid"].as_bool().unwrap()).collect();
    assert_eq!(valid, [false, false, true], "{verdicts}");
    let _imported = place.goldsmith(&["import", "latin1.yaml"]).run().fails(2);
    let _console = place.goldsmith(&["run", "nothing", "--json"]).run().fails(2).says("goes to standard output");
}
