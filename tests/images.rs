//! Looking after images.

use serde_json::Value;

use crate::framework::{Place, bash, foreign, may_make_namespaces, names_in, read};

#[test]
fn images_are_listed_shown_and_removed() {
    let place = Place::new();
    let recipe = place.recipe("looked-after", &bash("build", "echo built"));
    let built = place.build(&[&recipe.to_string_lossy(), "--no-test", "--json"]).run().success();
    let summary = built.json();
    assert_eq!(summary["image"], "looked-after/1.0.0/1");
    assert_eq!(summary["state"], "AVAILABLE");
    assert_eq!(summary["tested"], false);
    let stages: Vec<&str> =
        summary["stages"].as_array().unwrap().iter().map(|stage| stage["name"].as_str().unwrap()).collect();
    assert_eq!(stages, ["parent", "boot", "build", "seal"]);
    assert_eq!(summary["stages"][1]["cached"], true, "the parent was booted although its checkpoint is there");
    let listed = place.goldsmith(&["image", "list", "looked-after"]).run().success();
    assert!(listed.stdout.contains("looked-after/1.0.0/1  AVAILABLE  no"), "{listed}");
    let shown = place.goldsmith(&["image", "show", "looked-after/1.x.x"]).run().success();
    assert!(shown.stdout.contains(summary["digest"].as_str().unwrap()), "{shown}");
    let export = ["export", "looked-after", "--format", "qcow2,vhd", "--output", "out"];
    let _exported = place.goldsmith(&export).run().success().says("looked-after/1.0.0/1 was not tested");
    assert_eq!(names_in(&place.path("out")), ["looked-after-1.0.0-1.qcow2", "looked-after-1.0.0-1.vhd"]);
    // The same bytes, so the same digest.
    let copied = place.goldsmith(&["image", "show", "looked-after", "--json"]).run().success().json();
    assert_eq!(copied["exports"][0]["sha256"], summary["digest"]);
    let disk = built.image_file("looked-after/1.0.0/1", "disk.qcow2");
    let mut compare = std::process::Command::new("qemu-img");
    let vhd = place.path("out/looked-after-1.0.0-1.vhd");
    foreign::run(compare.args(["compare", "-q", "-f", "qcow2", "-F", "vpc"]).args([&disk, &vhd]));
    let saved = place.path("saved").to_string_lossy().into_owned();
    let written = place.goldsmith(&["image", "save", "looked-after", &saved, "--json"]).run().success().json();
    assert_eq!((&written["image"], written["file"].is_string()), (&"looked-after/1.0.0/1".into(), true));
    let removed = place.goldsmith(&["image", "rm", "looked-after/1.0.0/1", "--json"]).run().success().json();
    assert_eq!(removed["removed"], serde_json::json!(["looked-after/1.0.0/1"]));
    assert!(!disk.exists());
    let other = Place::with_own_store();
    let _loaded = other.goldsmith(&["image", "load", &saved]).run().success().says("looked-after/1.0.0/1 loaded");
    let loaded = other.goldsmith(&["image", "show", "looked-after", "--json"]).run().success().json();
    assert_eq!(loaded["disk"]["sha256"], summary["digest"]);
    let _known = other.goldsmith(&["image", "load", &saved]).run().success().says("was there already");
    let whole = other.goldsmith(&["image", "verify", "looked-after"]).run().success();
    assert_eq!(whole.stdout, "looked-after/1.0.0/1: is what was sealed\n");
    let disk = other.home().join("images/looked-after/1.0.0/1/disk.qcow2");
    let mut changed = std::process::Command::new("sh");
    foreign::run(
        changed
            .args(["-c", "chmod u+w \"$1\" && printf X | dd of=\"$1\" bs=1 seek=4096 conv=notrunc", "sh"])
            .arg(&disk),
    );
    let verdicts = other.goldsmith(&["image", "verify", "looked-after", "--json"]).run().fails(1).json();
    assert_eq!((&verdicts[0]["image"], &verdicts[0]["valid"]), (&"looked-after/1.0.0/1".into(), &false.into()));
    let again = place.build(&[&recipe.to_string_lossy(), "--no-test", "--json"]).run().success().json();
    assert_eq!(again["image"], "looked-after/1.0.0/2", "a build number was used twice");
}

/// A package with nothing in it.
fn packed(name: &str, version: &str) -> String {
    format!(
        "mkdir -p {name}/DEBIAN\nprintf 'Package: {name}\\nVersion: {version}\\nArchitecture: all\\nMaintainer: m \
         <m@example.org>\\nDescription: d\\n' > {name}/DEBIAN/control\ndpkg-deb --build {name} && dpkg --install {name}.deb"
    )
}

#[test]
fn what_is_installed_is_known_and_compared() {
    let place = Place::new();
    let build = |script: &str| {
        let recipe = place.recipe("compared", &bash("build", script)).to_string_lossy().into_owned();
        place.build(&[&recipe, "--no-test", "--json"]).run().success().json()["image"].as_str().unwrap().to_owned()
    };
    let first = build(&format!("{}\n{}", packed("grain", "1.0-1"), packed("chaff", "7")));
    let second = build(&format!("{}\n{}", packed("grain", "1.0-2"), packed("husk", "1:3")));
    let packages = place.goldsmith(&["image", "packages", &first, "--json"]).run().success().json();
    let packages = packages.as_array().unwrap();
    let grain = serde_json::json!({ "name": "grain", "version": "1.0-1", "architecture": "all" });
    assert!(packages.contains(&grain) && packages.len() > 50, "{packages:?}");
    let table = place.goldsmith(&["image", "packages", &first]).run().success();
    assert!(table.stdout.lines().any(|line| line.starts_with("linux-image-")), "{table}");
    let difference = place.goldsmith(&["image", "diff", &first, &second, "--json"]).run().success().json();
    let changed = serde_json::json!([
        { "name": "chaff:all", "from": "7", "to": null },
        { "name": "grain:all", "from": "1.0-1", "to": "1.0-2" },
        { "name": "husk:all", "from": null, "to": "1:3" },
    ]);
    assert_eq!(difference["packages"], changed);
    assert!(difference.get("parent").is_none() && difference["components"].as_array().unwrap().len() == 1);
    let told = place.goldsmith(&["image", "diff", &first, &second]).run().success();
    for line in ["~ package    grain:all 1.0-1 → 1.0-2", "- package    chaff:all 7", "+ package    husk:all 1:3"] {
        assert!(told.stdout.lines().any(|told| told == line), "{line}: {told}");
    }
    let same = place.goldsmith(&["image", "diff", &first, &first]).run().success();
    assert!(same.stdout.ends_with("no difference that is known\n"), "{same}");
    // What is carried elsewhere is known there, too.
    let saved = place.path("compared.goldsmith").to_string_lossy().into_owned();
    let _saved = place.goldsmith(&["image", "save", &first, &saved]).run().success();
    let other = Place::with_own_store();
    let _loaded = other.goldsmith(&["image", "load", &saved]).run().success();
    let there = other.goldsmith(&["image", "packages", &first, "--json"]).run().success().json();
    assert_eq!(there.as_array().unwrap(), packages);
}

/// The events of a file.
fn events(place: &Place, file: &str) -> Vec<Value> {
    read(&place.path(file)).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The states that events tell of.
fn states(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["detail"]["state"]["status"].as_str().unwrap()).collect()
}

#[test]
fn channels_move_and_old_images_are_retired() {
    let place = Place::new();
    let recipe = place.recipe_of("moved", &[("one", &bash("build", "echo one"))]).to_string_lossy().into_owned();
    // Nobody listens at the first, and there is no folder for the second: that fails no build.
    let dead = ["--events", "http://127.0.0.1:1/?token=hush", "--events", "none/events.jsonl"];
    let told = ["--events", "events.jsonl", "--json"];
    let built = place.build(&[&[recipe.as_str(), "--no-test"][..], &dead, &told].concat()).run().success();
    let said = "the webhook at 127.0.0.1:1 could not be told of moved/1.0.0/1 is AVAILABLE";
    let built = built.says(said).says("the file none/events.jsonl could not be told");
    let log = read(&built.image_file("moved/1.0.0/1", "build.log"));
    assert!(log.contains(said) && !log.contains("hush") && !built.stderr.contains("hush"), "{log}");
    assert_eq!(states(&events(&place, "events.jsonl")), ["BUILDING", "AVAILABLE"]);

    let both = [("one", &*bash("build", "echo one")), ("two", &*bash("build", "echo two"))];
    place.recipe_of("moved", &both);
    let refused = place.build(&[&recipe, "--no-test", "--strict-versions"]).run().fails(2);
    assert!(refused.stderr.contains("+  - ./two.yaml"), "{refused}");
    let again = place.build(&[&recipe, "--no-test", "--json"]).run().success();
    assert_eq!(again.says("built from another recipe of the same version").json()["image"], "moved/1.0.0/2");

    a_channel_moves(&place);
    a_policy_deletes(&place);
    assert!(!built.image_file("moved/1.0.0/1", "").exists());
    what_is_deprecated_is_warned_of(&place);
}

/// `goldsmith channel … moved@stable …`.
fn channel(place: &Place, what: &str, more: &[&str]) -> Value {
    let arguments = [&["channel", what, "moved@stable"][..], more, &["--json"]].concat();
    place.goldsmith(&arguments).run().success().json()
}

/// To the second image and back to the first.
fn a_channel_moves(place: &Place) {
    channel(place, "promote", &["moved/1.0.0/1"]);
    assert_eq!(channel(place, "promote", &["moved"])["image"], "moved/1.0.0/2");
    assert_eq!(channel(place, "rollback", &[])["image"], "moved/1.0.0/1");
    assert_eq!(channel(place, "history", &[]).as_array().unwrap().len(), 3);
    let shown = place.goldsmith(&["image", "show", "moved@stable", "--json"]).run().success().json();
    assert_eq!(shown["image"], "moved/1.0.0/1");
    for refused in [&["image", "rm", "moved/1.0.0/1"], &["image", "disable", "moved@stable"]] {
        let refused = place.goldsmith(refused).run().fails(1);
        insta::allow_duplicates! {
            insta::assert_snapshot!(refused.error(place), @"
            error: moved/1.0.0/1 is what moved@stable names
            hint: `goldsmith channel promote moved@stable IMAGE` lets it name another one first
            ");
        }
    }
}

/// The first image, once the channel names the second.
fn a_policy_deletes(place: &Place) {
    place.write(
        "tidy.yaml",
        "
kind: LifecyclePolicy
name: tidy
resourceType: AMI_IMAGE
policyDetails: [{ action: { type: DELETE, includeResources: { files: true } }, filter: { type: COUNT, value: 1 } }]
resourceSelection: { recipes: [{ name: moved, semanticVersion: 1.x.x }] }
",
    );
    let lifecycle = |more: &[&str]| {
        let arguments = [&["lifecycle", "run", "tidy.yaml"][..], more].concat();
        place.goldsmith(&arguments).run().success()
    };
    let left = lifecycle(&["--json"]).json();
    assert_eq!((&left[1]["image"], &left[1]["action"]), (&"moved/1.0.0/1".into(), &Value::Null), "{left:#}");
    assert!(left[1]["reason"].as_str().unwrap().contains("still used: the channel moved@stable"), "{left:#}");
    channel(place, "promote", &["moved/1.0.0/2"]);
    place.goldsmith(&["export", "moved/1.0.0/1", "--format", "qcow2", "--output", "out"]).run().success();
    insta::assert_snapshot!(lifecycle(&["--dry-run"]).stdout, @"
    IMAGE          ACTION  WHY
    moved/1.0.0/2  -       DELETE: it is one of the 1 newest of its version
    moved/1.0.0/1  DELETE  it is not one of the 1 newest of its version
    ");
    assert_eq!(names_in(&place.path("out")), ["moved-1.0.0-1.qcow2"]);
    lifecycle(&["--events", "deleted.jsonl"]);
    assert_eq!(states(&events(place, "deleted.jsonl")), ["DELETED"]);
    assert_eq!(names_in(&place.path("out")), Vec::<String>::new());
}

/// The second image, which the channel names.
fn what_is_deprecated_is_warned_of(place: &Place) {
    place.goldsmith(&["image", "deprecate", "moved@stable", "--reason", "CVE-2026-1"]).run().success();
    let listed = |state: &str| {
        let listed = place.goldsmith(&["image", "list", "--name", "moved", "--state", state, "--json"]).run().success();
        listed.json().as_array().unwrap().len()
    };
    assert_eq!((listed("deprecated"), listed("available,failed")), (1, 0));
    let status = place.goldsmith(&["status"]).run().success();
    let has_row =
        |words: [&str; 2]| status.stdout.lines().any(|line| line.split_whitespace().take(2).eq(words.iter().copied()));
    assert!(has_row(["moved/1.0.0/2", "DEPRECATED"]) && has_row(["moved@stable", "moved/1.0.0/2"]), "{status}");
    let export = ["export", "moved@stable", "--format", "qcow2", "--output", "out"];
    let _exported = place.goldsmith(&export).run().success().says("moved/1.0.0/2 is DEPRECATED (CVE-2026-1)");
}

#[test]
fn a_failed_test_and_what_was_to_follow_are_gone_on_with() {
    let place = Place::new();
    let phases = bash("build", "echo built") + &bash("test", "test '{{ aws:ssm:/verdict }}' = good");
    let recipe = place.recipe("gone-on", &phases).to_string_lossy().into_owned();
    place.write("folder.yaml", "name: folder\ndistributions: [{ directory: published, formats: [qcow2] }]\n");
    let with = ["--reference", "aws:ssm:/verdict=bad", "--distribution", "folder.yaml", "--events", "events.jsonl"];
    let failed = place.build(&[&[recipe.as_str()][..], &with].concat()).run().fails(4);
    let told = events(&place, "events.jsonl");
    assert_eq!(states(&told), ["BUILDING", "TESTING", "FAILED"]);
    let failure = &told[2]["detail"]["failureContext"];
    assert_eq!((&failure["imageStatus"], &failure["failedStep"]), (&"TESTING".into(), &"test".into()), "{failure:#}");
    assert_eq!(failure["componentFailure"]["phaseName"], "test", "{failure:#}");
    let disk = fs_err::metadata(failed.image_file("gone-on/1.0.0/1", "disk.qcow2")).unwrap().modified().unwrap();
    let retry = |verdict: &str| {
        let reference = format!("aws:ssm:/verdict={verdict}");
        place.goldsmith(&["image", "retry", "gone-on/1.0.0/1", "--reference", &reference, "--json"]).run()
    };
    let _still = retry("bad").fails(4);
    let retried = retry("good").success().json();
    assert_eq!((&retried["state"], &retried["tested"]), (&"AVAILABLE".into(), &true.into()), "{retried:#}");
    assert_eq!(retried["publications"][0]["published"], true, "{retried:#}");
    assert!(!names_in(&place.path("published")).is_empty());
    let after = fs_err::metadata(failed.image_file("gone-on/1.0.0/1", "disk.qcow2")).unwrap().modified().unwrap();
    assert_eq!(after, disk, "it was built again");
    let nothing = retry("good").fails(1);
    insta::assert_snapshot!(nothing.error(&place), @"
    error: gone-on/1.0.0/1 has neither a failed test nor a failed publication to go on from
    hint: `goldsmith build` builds it again
    ");
}

#[test]
fn doctor_says_what_this_host_can_do() {
    let place = Place::with_own_store();
    let ended = place.goldsmith(&["doctor"]).run();
    for name in ["programs", "qemu", "isolation", "kvm", "firmware", "space"] {
        assert!(ended.stdout.contains(name), "{name} is missing: {ended}");
    }
    // Where it can't isolate guests it says so, and how to mend it.
    let isolation = ended.stdout.contains("guests reach neither this host's loopback");
    let said_so = ended.stdout.contains("guests can reach this host's loopback") && ended.stdout.contains("mend:");
    assert!(isolation || said_so, "{ended}");
    assert_eq!(isolation, is_isolated(&place));
    let _ended = ended.success();
}

/// Whether goldsmith says that this host can keep guests away from itself.
pub(crate) fn is_isolated(place: &Place) -> bool {
    let doctor = place.goldsmith(&["doctor", "--json"]).run().json();
    let found = doctor.as_array().unwrap().iter().find(|finding| finding["name"] == "isolation").unwrap();
    let is_good = found["health"] == "good";
    // A host that lets its users make namespaces can; there no excuse counts.
    assert_eq!(is_good, may_make_namespaces(None), "{doctor}");
    is_good
}
