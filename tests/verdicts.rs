//! The test of a sealed disk: what passes, what fails, and what stays of it.

use crate::framework::{PARENT, Place, bash, read};

/// An image with a unit that fails at every boot, which the recipe allows, and a test step that fails.
#[test]
fn a_failed_test_keeps_its_evidence_and_is_never_exported() {
    let place = Place::new();
    let unit = "printf '[Unit]\\nDescription=Broken\\n[Service]\\nType=oneshot\\nExecStart=/bin/false\\n[Install]\\n\
                WantedBy=multi-user.target\\n' > /etc/systemd/system/broken.service\nsystemctl -q enable broken";
    let test = "echo what is wrong\nexit 3";
    place.write("c.yaml", &format!("schemaVersion: 1.0\nphases:\n{}{}", bash("build", unit), bash("test", test)));
    let recipe = |allowed: &str| {
        format!("name: wrong\nversion: 1.0.0\nparentImage: {PARENT}\ncomponents: [./c.yaml]\n{allowed}")
    };
    place.write("recipe.yaml", &recipe("test: { allowFailedUnits: [broken.service] }\n"));
    let ended = place.build(&["recipe.yaml", "--junit", "junit.xml", "--export", "raw", "--output", "out"]).run();
    let ended = ended.fails(4).says("wrong/1.0.0/1 failed its test: c/Step: exit status 3").says("what is wrong");
    assert_eq!(crate::framework::names_in(&place.path("out")), Vec::<String>::new(), "{ended}");
    let junit = read(&place.path("junit.xml"));
    assert!(junit.contains(r#"tests="2" skipped="0" failures="1""#) && junit.contains("exit status 3"), "{junit}");
    let shown = place.goldsmith(&["image", "show", "wrong", "--json"]).run().success().json();
    assert_eq!((shown["state"].as_str(), shown["tested"].as_bool()), (Some("FAILED"), Some(false)));
    for evidence in ["test/test.log", "test/console.log", "disk.qcow2"] {
        assert!(ended.image_file("wrong/1.0.0/1", evidence).exists(), "{evidence} is missing");
    }
    let export = ["export", "wrong/1.0.0/1", "--format", "raw", "--output", "out"];
    let _refused = place.goldsmith(&export).run().fails(1).says("wrong/1.0.0/1 is FAILED and can't be exported");
    // The same disk again, by a recipe that does not allow the unit to fail.
    let kept = ended.image_file("wrong/1.0.0/1", "documents/recipe.yaml");
    fs_err::write(&kept, recipe("")).unwrap();
    let again = place.goldsmith(&["test", "wrong/1.0.0/1"]).run().fails(4);
    let _again = again.says("the system came up degraded: broken.service failed");
}
