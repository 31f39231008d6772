//! Pipelines: what is due is built, and nothing else.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::fakes::cloud::Cloud;
use crate::framework::{PARENT, Place, bash, names_in, read};

const RECIPE: &str = "name: web\nversion: 1.0.0\nparentImage: debian-12-minimal\n";
const NIGHTLY: &str = "kind: ImagePipeline
name: nightly
description: The web server, every night
recipe: web.yaml
matrix: { parameters: { Port: ['80', '8080'] } }
schedule: { scheduleExpression: cron(30 2 * 3 ? 2199), timezone: Europe/Berlin, autoDisablePolicy: { failureCount: 3 } }
---
kind: ImagePipeline
name: by-hand
recipe: web.yaml
status: DISABLED
";

fn folder() -> Place {
    let place = Place::with_own_store();
    place.write("web.yaml", RECIPE);
    place.write("pipelines.yaml", NIGHTLY);
    place
}

#[test]
fn pipelines_are_listed_shown_and_disabled() {
    let place = folder();
    let listed = place.goldsmith(&["pipeline", "list"]).run().success();
    insta::assert_snapshot!(listed.stdout.trim_end(), @"
    PIPELINE  STATUS                SCHEDULE                             NEXT RUN (UTC)    LAST RUN (UTC)
    by-hand   DISABLED by document  by hand
    nightly   ENABLED               cron(30 2 * 3 ? 2199) Europe/Berlin  2199-03-01 01:30
    ");
    let times = place.goldsmith(&["pipeline", "next", "nightly", "--count", "32"]).run().success();
    let changes: Vec<&str> = times.stdout.lines().skip(29).collect();
    insta::assert_snapshot!(changes.join("\n"), @"
    Sat 2199-03-30 02:30 CET 2199-03-30T01:30:00Z
    Sun 2199-03-31 03:00 CEST 2199-03-31T01:00:00Z
    ");
    let disabled = place.goldsmith(&["pipeline", "disable", "nightly"]).run().success();
    insta::assert_snapshot!(disabled.stdout.trim_end(), @"nightly is DISABLED by user");
    let warned = place.goldsmith(&["pipeline", "next", "nightly", "--count", "1"]).run().success();
    let _warned = warned.says("nightly is DISABLED by user; it would run");
    let shown = place.goldsmith(&["pipeline", "show", "nightly"]).run().success();
    let shown = shown.stdout.replace(&*place.path("").to_string_lossy(), "PLACE/");
    insta::assert_snapshot!(shown.trim_end(), @"
    pipeline       nightly
    description    The web server, every night
    document       PLACE/pipelines.yaml
    recipe         PLACE/web.yaml
    status         DISABLED by user
    schedule       cron(30 2 * 3 ? 2199) Europe/Berlin, if something that it is made from is newer
    next run       none
    failures       0 of 3 in a row
    build          Port=80
    build          Port=8080
    ");
    let enabled = place.goldsmith(&["pipeline", "enable", "nightly", "--json"]).run().success().json();
    assert_eq!((&enabled["status"], &enabled["builds"]), (&"ENABLED".into(), &2.into()));
    assert_eq!(enabled["nextRun"], "2199-03-01T01:30:00Z");
    let _enabled = place.goldsmith(&["pipeline", "enable", "by-hand"]).run().success().says("keeps it from running");
}

#[test]
fn what_is_wrong_with_a_pipeline_is_explained() {
    let place = folder();
    place.write("bad.yaml", "kind: ImagePipeline\nname: bad\nrecipe: nowhere.yaml\n");
    place.write("worse.yaml", "kind: ImagePipeline\nname: worse\nrecipe: web.yaml\nschedul: never\n");
    let file = place.goldsmith(&["pipeline", "run", "worse.yaml"]).run().fails(2);
    insta::assert_snapshot!(file.error(&place), @"
    error: a pipeline has no field `schedul`
     --> worse.yaml:4:1
      |
    4 | schedul: never
      | ^^^^^^^
      |
    help: did you mean `schedule`?
    ");
    let name = place.goldsmith(&["pipeline", "run", "bad"]).run().fails(2);
    insta::assert_snapshot!(name.error(&place), @"
    error: no document that can be used has a pipeline `bad`
      because `bad.yaml` can't be used
      because bad.yaml:3:9: there is no recipe `nowhere.yaml`
    hint: the recipe is a file; its path is relative to this document
    ");
    // The others are not in the way of those that can be used.
    let listed = place.goldsmith(&["pipeline", "list", "--json"]).run().success();
    assert_eq!(listed.json().as_array().unwrap().len(), 2, "{listed}");
    let _listed = listed.says("there is no recipe `nowhere.yaml`").says("has no field `schedul`");
    let empty = place.path("empty");
    fs_err::create_dir(&empty).unwrap();
    let nothing = place.goldsmith(&["pipeline", "run", "web", "--folder", "empty"]).run().fails(2);
    insta::assert_snapshot!(nothing.error(&place), @"
    error: there is no pipeline `web`
    hint: `--folder DIR` says where the documents of pipelines are
    ");
    let _no_run = place.goldsmith(&["pipeline", "cancel", "web@1"]).run().fails(2).says("there is no run `web@1`");
}

/// A run that nobody works on yet, and one that can't be made.
#[test]
fn a_run_waits_in_the_queue_is_cancelled_and_fails_with_its_reason() {
    let place = folder();
    let infrastructure =
        "---\nkind: InfrastructureConfiguration\nname: here\nproxy: http://me:hush@proxy.example:3128\n";
    let nightly = NIGHTLY.replacen("recipe: web.yaml\n", "recipe: web.yaml\ninfrastructure: here\n", 1);
    place.write("pipelines.yaml", &(nightly + infrastructure));
    let queued = place.goldsmith(&["pipeline", "run", "nightly", "--queue", "--json"]).run().success().json();
    let status = place.goldsmith(&["status", "--json"]).run().success().json();
    assert_eq!((&status["queue"][0], queued["recipe"].is_string()), (&queued, true), "{status}");
    let id = queued["id"].as_str().unwrap().to_owned();
    assert_eq!(queued["builds"].as_array().unwrap().len(), 2, "{queued}");
    let ended = place.goldsmith(&["pipeline", "cancel", &id, "--json"]).run().success().json();
    assert_eq!((&ended["builds"][1]["status"], ended["ended"].is_string()), (&"CANCELLED".into(), true), "{ended}");
    // No component has such a parameter.
    let failed = place.goldsmith(&["pipeline", "run", "nightly", "--json"]).run().fails(1);
    let builds = failed.json()["builds"].clone();
    assert_eq!(builds[0]["status"], "FAILED", "{builds}");
    assert!(builds[0]["reason"].as_str().unwrap().contains("Port"), "{builds}");
    let shown = place.goldsmith(&["pipeline", "show", "nightly", "--json"]).run().success().json();
    assert_eq!(
        (shown["runs"].as_array().unwrap().len(), &shown["pipeline"]["lastRun"]["status"]),
        (2, &"FAILED".into())
    );
    assert_eq!(shown["pipeline"]["consecutiveFailures"], 0, "a run by hand counts as no failure of the schedule's");
    // What holds an address with a password may end in a CI's log.
    let printed = [queued, status, ended, shown].map(|json| json.to_string()).concat();
    assert!(!printed.contains("hush") && !failed.stdout.contains("hush"), "{printed}");
}

/// A build that comes to have a number, and nothing else: its parent is not there.
#[test]
fn logs_go_to_a_folder_and_to_a_bucket_as_image_builder_lays_them_out() {
    let place = Place::with_own_store();
    let cloud = Cloud::start();
    let keys = cloud.account("111111111111");
    cloud.bucket("111111111111", "eu-west-1", "logs");
    place.write("web.yaml", "name: web\nversion: 1.0.0\nparentImage: ./nowhere.qcow2\n");
    for (name, logs) in [
        ("to-folder", "logs: out/logs"),
        ("to-bucket", "logging: { s3Logs: { s3BucketName: logs, s3KeyPrefix: builds/ } }"),
    ] {
        let text = format!(
            "kind: ImagePipeline\nname: {name}\nrecipe: web.yaml\ninfrastructure: here\n---\n\
             kind: InfrastructureConfiguration\nname: here\n{logs}\n"
        );
        place.write(&format!("{name}.yaml"), &text);
    }
    let run = |name: &str| {
        let s3 = cloud.s3_endpoint();
        let goldsmith = place.goldsmith(&["pipeline", "run", name, "--json", "--s3-endpoint", &s3]);
        let goldsmith = goldsmith.env("AWS_ACCESS_KEY_ID", &keys.id).env("AWS_SECRET_ACCESS_KEY", &keys.secret);
        let ended = goldsmith.env("AWS_EC2_METADATA_DISABLED", "true").run().fails(1);
        assert_eq!(ended.json()["builds"][0]["status"], "FAILED", "{ended}");
        ended.json()["id"].as_str().unwrap().to_owned()
    };
    let id = run("to-folder");
    let log = read(&place.path("out/logs/web/1.0.0/1").join(id).join("build/build.log"));
    assert!(log.contains("FAILED"), "{log}");
    let id = run("to-bucket");
    let log = cloud.object("logs", &format!("builds/web/1.0.0/2/{id}/build/build.log"));
    assert!(String::from_utf8(log).unwrap().contains("FAILED"));
}

/// As systemd starts, reloads and stops it.
#[test]
fn a_scheduler_tells_systemd_what_it_does() {
    let place = folder();
    let path = place.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let hear = |wanted: &str| {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut bytes = [0; 4096];
        loop {
            assert!(Instant::now() < deadline, "`{wanted}` was not heard");
            let length = socket.recv(&mut bytes).unwrap();
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if text.contains(wanted) {
                return text;
            }
        }
    };
    let scheduler = place.goldsmith(&["scheduler"]).env("NOTIFY_SOCKET", &path).start();
    hear("READY=1");
    hear("STATUS=2 pipelines; next: nightly at 2199-03-01T01:30:00Z");
    place.write("bad.yaml", "kind: ImagePipeline\nname: bad\nrecipe: nowhere.yaml\n");
    scheduler.signal(Signal::HUP);
    assert!(hear("RELOADING=1").contains("MONOTONIC_USEC="));
    hear("READY=1");
    scheduler.wait_for("there is no recipe `nowhere.yaml`");
    scheduler.signal(Signal::TERM);
    hear("STOPPING=1");
    let _ended = scheduler.wait().success().says("stopped");
    let options = ["--s3-endpoint", "http://127.0.0.1:9000", "--layer-budget", "9GiB"];
    let words: Vec<&str> = ["scheduler", "--print-unit", "--folder", "."].into_iter().chain(options).collect();
    let unit = place.goldsmith(&words).run().success();
    let unit = unit.stdout.replace(place.path("").to_string_lossy().trim_end_matches('/'), "PLACE");
    let command = "scheduler --folder PLACE --layer-budget=9GiB --accel=auto --s3-endpoint=http://127.0.0.1:9000";
    assert!(unit.contains(command) && unit.contains("GOLDSMITH_HOME=PLACE/home\""), "{unit}");
}

/// As if nobody had looked for a day.
fn sleep_for_a_day(place: &Place, pipeline: &str) {
    let path = place.home().join(format!("pipelines/state/{pipeline}.json"));
    let mut state: serde_json::Value = serde_json::from_str(&read(&path)).unwrap();
    let yesterday = "2026-01-01T00:00:00Z";
    (state["considered"], state["created"]) = (yesterday.into(), yesterday.into());
    fs_err::write(&path, state.to_string()).unwrap();
}

#[test]
fn a_pipeline_builds_its_matrix_and_again_only_for_a_reason() {
    // `tick` works on whatever is in a store's queue, so other tests' runs must not be in it.
    let place = Place::with_own_store_and_parent();
    let component = |what: &str| {
        let parameters = "parameters:\n  - Port: { type: string }\n";
        format!("schemaVersion: 1.0\n{parameters}phases:\n{}", bash("build", &format!("echo {what} {{{{ Port }}}}")))
    };
    place.write("component.yaml", &component("first"));
    let recipe = format!("name: piped\nversion: 1.0.0\nparentImage: {PARENT}\ncomponents: [./component.yaml]\n");
    place.write("recipe.yaml", &recipe);
    place.write(
        "pipeline.yaml",
        "kind: ImagePipeline\nname: piped\nrecipe: recipe.yaml\ninfrastructure: here\nimageTags: { team: web }\n\
         imageTestsConfiguration: { imageTestsEnabled: false }\nmatrix: { parameters: { Port: ['80', '81'] } }\n\
         events: [{ file: events.jsonl }]\n\
         schedule: { scheduleExpression: rate(1 hour) }\n---\nkind: InfrastructureConfiguration\nname: here\nlogs: logs\n",
    );
    // The parent and its checkpoint.
    let warm = place.recipe("warm-for-pipeline", &bash("build", "true"));
    let _warm = place.build(&[&warm.to_string_lossy(), "--no-test"]).run().success();
    place.write("component.yaml", &component("first"));
    place.write("recipe.yaml", &recipe);
    let ran = place.goldsmith(&["pipeline", "run", "pipeline.yaml", "--json"]).run().success();
    let run = ran.json();
    let images: Vec<&str> =
        run["builds"].as_array().unwrap().iter().map(|build| build["image"].as_str().unwrap()).collect();
    assert_eq!(images, ["piped/1.0.0/1", "piped/1.0.0/2"], "{ran}");
    let shown = place.goldsmith(&["image", "show", "piped/1.0.0/1", "--json"]).run().success().json();
    assert_eq!((&shown["state"], &shown["source"]["tags"]["team"]), (&"AVAILABLE".into(), &"web".into()));
    let events: Vec<serde_json::Value> =
        read(&place.path("events.jsonl")).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let available = |event: &&serde_json::Value| event["detail"]["state"]["status"] == "AVAILABLE";
    assert_eq!(events.iter().filter(available).count(), 2, "{events:?}");
    let status = place.goldsmith(&["status"]).run().success();
    assert!(status.stdout.contains(" UTC piped\n"), "{status}");
    let logs = place.path("logs/piped/1.0.0/2").join(run["id"].as_str().unwrap()).join("build");
    assert!(names_in(&logs).contains(&"build.log".to_owned()), "{:?}", names_in(&logs));
    assert!(read(&logs.join("build.log")).contains("first 81"));
    // Nothing is due; then something is, and nothing is newer; then a component is.
    let tick = || place.goldsmith(&["pipeline", "tick"]).run().success();
    assert!(!tick().stderr.contains("piped@"));
    sleep_for_a_day(&place, "piped");
    let _skipped = tick().says("piped is not run at 2026-01-01T01:00:00Z: nothing that it is made from is newer");
    place.write("component.yaml", &component("second"));
    sleep_for_a_day(&place, "piped");
    let again = tick().says("component component:");
    let built = read(&again.image_file("piped/1.0.0/4", "build.log"));
    assert!(built.contains("second"), "{built}");
    assert!(!tick().stderr.contains("begins"), "a run was started twice");
}

#[test]
fn a_test_that_does_not_end_in_time_has_failed() {
    let place = Place::new();
    let recipe = place.recipe("endless", &(bash("build", "true") + &bash("test", "sleep 3600")));
    // The parent and its checkpoint.
    let _warm = place.build(&[&recipe.to_string_lossy(), "--no-test"]).run().success();
    let document = "kind: ImagePipeline\nname: endless\nrecipe: recipe.yaml\n\
                    imageTestsConfiguration: { timeoutMinutes: 1 }\n";
    place.write("pipeline.yaml", document);
    let ended = place.goldsmith(&["pipeline", "run", "pipeline.yaml", "--anew", "--json"]).run().fails(1);
    let build = ended.json()["builds"][0].clone();
    assert!(build["reason"].as_str().unwrap().contains("it did not end within 60 s"), "{ended}");
    let image = build["image"].as_str().unwrap();
    let shown = place.goldsmith(&["image", "show", image, "--json"]).run().success().json();
    assert_eq!((&shown["state"], &shown["test"]["passed"]), (&"FAILED".into(), &false.into()), "{shown}");
}
