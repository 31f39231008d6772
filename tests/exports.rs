//! The main job: the nginx recipe, from its documents to files that boot anywhere.

use std::process::Command;

use crate::framework::{Place, bash, foreign};

/// Formats and what QEMU calls them.
const FORMATS: [(&str, &str); 5] =
    [("raw", "raw"), ("qcow2", "qcow2"), ("vmdk", "vmdk"), ("vhd", "vpc"), ("vhdx", "vhdx")];

/// The shipped recipe, and one component more that says who the build machine is.
fn recipe(place: &Place) {
    let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    let text = fs_err::read_to_string(shipped.join("nginx.yaml")).unwrap();
    let identity = "echo machine-id $(cat /etc/machine-id)\necho host-key $(ssh-keygen -lf \
                    /etc/ssh/ssh_host_ed25519_key.pub | cut -d ' ' -f 2)";
    place.write("identity.yaml", &format!("schemaVersion: 1.0\nphases:\n{}", bash("validate", identity)));
    place.write("nginx.yaml", &format!("{}\n  - component: ./identity.yaml\n", text.trim_end()));
    let page = fs_err::read_to_string(shipped.join("nginx-site/index.html")).unwrap();
    place.write("nginx-site/index.html", &page);
}

#[test]
fn nginx_is_built_tested_and_exported_and_every_file_boots() {
    let place = Place::new();
    recipe(&place);
    let formats = FORMATS.map(|(name, _)| name).join(",");
    let built = place.build(&["nginx.yaml", "--export", &formats, "--output", "out", "--junit", "junit.xml", "--json"]);
    let built = built.run().success();
    let summary = built.json();
    assert_eq!((&summary["image"], &summary["state"]), (&"nginx/1.0.0/1".into(), &"AVAILABLE".into()));
    assert_eq!(summary["tested"], true);
    let junit = crate::framework::read(&place.path("junit.xml"));
    assert!(junit.contains(r#"failures="0""#) && junit.contains("ServesPageAfterRestart"), "{junit}");
    let file = |name: &str| place.path(&format!("out/nginx-1.0.0-1.{name}"));
    for (name, qemu) in FORMATS {
        let mut compare = Command::new("qemu-img");
        compare.args(["compare", "-q", "-f", "raw", "-F", qemu]).arg(file("raw")).arg(file(name));
        foreign::run(&mut compare);
    }
    // Every file holds the same disk, so one boot by each firmware shows what ten would.
    let is_thorough = std::env::var_os("GOLDSMITH_TEST_THOROUGH").is_some();
    let boots: Vec<(&str, &str, bool)> = if is_thorough {
        FORMATS.iter().flat_map(|&(name, qemu)| [(name, qemu, false), (name, qemu, true)]).collect()
    } else {
        vec![("vmdk", "vmdk", false), ("vhdx", "vhdx", true)]
    };
    let of_the_build = |what: &str| {
        let line = built.stderr.lines().find_map(|line| line.split(&format!("| {what} ")).nth(1));
        line.unwrap_or_else(|| panic!("{what}: {built}")).trim().to_owned()
    };
    let mut machine_ids = vec![of_the_build("machine-id")];
    let mut host_keys = vec![of_the_build("host-key")];
    for (name, qemu, is_uefi) in boots {
        let told = foreign::boot(&file(name), qemu, is_uefi);
        assert!(told.of("page").contains("This page was forged by goldsmith"), "{name}: {told:?}");
        assert_eq!(told.of("firmware"), if is_uefi { "uefi" } else { "bios" }, "{name}: {told:?}");
        assert_eq!(told.of("host-name"), "foreign", "{name}: {told:?}");
        // The disk was grown to 4 GiB, and the root file system has grown with it.
        let size: u32 = told.of("root-size").trim_end_matches('M').parse().unwrap();
        assert!(size > 3500, "{name}: {told:?}");
        for (known, new) in [(&mut machine_ids, "machine-id"), (&mut host_keys, "host-key")] {
            let new = told.of(new).to_owned();
            assert!(new.len() > 20 && !known.contains(&new), "{name}: {new} is a clone's or the build's: {known:?}");
            known.push(new);
        }
    }
    a_throw_away_copy_serves_the_page(&place);
}

/// `goldsmith run` leads a port of the host's loopback into the guest, although the guest is kept from the host.
fn a_throw_away_copy_serves_the_page(place: &Place) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let running = place.goldsmith(&["run", "nginx/1.0.0/1", "--publish", &format!("{free}:80")]).start();
    running.wait_until("the copy serves the page", || {
        let mut curl = Command::new("curl");
        let answer = curl.args(["-s", "--max-time", "5", &format!("http://127.0.0.1:{free}/")]).output().unwrap();
        String::from_utf8_lossy(&answer.stdout).contains("This page was forged by goldsmith")
    });
    running.signal(rustix::process::Signal::INT);
    let ended = running.wait();
    assert!(ended.stdout.contains("Linux version"), "the console was not shown: {ended}");
    let _ended = ended.success();
}
