//! Looking after images.

use crate::framework::{Place, bash, foreign, may_make_namespaces, names_in};

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
    place.goldsmith(&["image", "save", "looked-after", &saved]).run().success();
    place.goldsmith(&["image", "rm", "looked-after/1.0.0/1"]).run().success();
    assert!(!disk.exists());
    let other = Place::with_own_store();
    let _loaded = other.goldsmith(&["image", "load", &saved]).run().success().says("looked-after/1.0.0/1 loaded");
    let loaded = other.goldsmith(&["image", "show", "looked-after", "--json"]).run().success().json();
    assert_eq!(loaded["disk"]["sha256"], summary["digest"]);
    let _known = other.goldsmith(&["image", "load", &saved]).run().success().says("was there already");
    let again = place.build(&[&recipe.to_string_lossy(), "--no-test", "--json"]).run().success().json();
    assert_eq!(again["image"], "looked-after/1.0.0/2", "a build number was used twice");
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
