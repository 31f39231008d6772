//! The main job: the nginx recipe, from its documents to files that boot anywhere.

use std::process::Command;
use std::sync::OnceLock;

use crate::framework::foreign::Hardware;
use crate::framework::{Finished, Place, bash, foreign};

/// Everything that is exported.
const FORMATS: &str = "raw,raw.zst,qcow2,qcow2-zstd,vmdk,vhd,vhd-fixed,vhdx,ova,gcp";

/// Files that QEMU reads, by their endings, and what it calls their formats. The last is what is in the appliance.
const FILES: [(&str, &str); 8] = [
    ("raw", "raw"),
    ("qcow2", "qcow2"),
    ("zstd.qcow2", "qcow2"),
    ("vmdk", "vmdk"),
    ("vhd", "vpc"),
    ("fixed.vhd", "vpc"),
    ("vhdx", "vhdx"),
    (APPLIANCE, "vmdk"),
];
const APPLIANCE: &str = "ova-disk1.vmdk";

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

/// The image of the shipped recipe, exported to everything, and what was said while it was built.
#[derive(Debug)]
pub(crate) struct Nginx {
    pub(crate) place: Place,
    pub(crate) built: Finished,
}

/// Builds it, once for all tests that look at it.
pub(crate) fn nginx() -> &'static Nginx {
    static NGINX: OnceLock<Nginx> = OnceLock::new();
    NGINX.get_or_init(|| {
        let place = Place::new();
        recipe(&place);
        let flags = ["--export", FORMATS, "--for", "libvirt,proxmox,vmware", "--output", "out", "--junit", "junit.xml"];
        let built = place.build(&[&["nginx.yaml", "--json"], &flags[..]].concat()).run().success();
        Nginx { place, built }
    })
}

#[test]
fn nginx_is_built_tested_and_exported_and_every_file_boots() {
    let Nginx { place, built } = nginx();
    let summary = built.json();
    assert_eq!((&summary["image"], &summary["state"]), (&"nginx/1.0.0/1".into(), &"AVAILABLE".into()));
    assert_eq!(summary["tested"], true);
    let junit = crate::framework::read(&place.path("junit.xml"));
    assert!(junit.contains(r#"failures="0""#) && junit.contains("ServesPageAfterRestart"), "{junit}");
    let file = |name: &str| place.path(&format!("out/nginx-1.0.0-1.{name}"));
    others_read_what_qemu_does_not(place);
    for (name, qemu) in FILES {
        let mut compare = Command::new("qemu-img");
        compare.args(["compare", "-q", "-f", "raw", "-F", qemu]).arg(file("raw")).arg(file(name));
        foreign::run(&mut compare);
    }
    // Every file holds the same disk, so one boot by each firmware shows what ten would.
    let is_thorough = std::env::var_os("GOLDSMITH_TEST_THOROUGH").is_some();
    let boots: Vec<(&str, &str, bool)> = if is_thorough {
        FILES.iter().flat_map(|&(name, qemu)| [(name, qemu, false), (name, qemu, true)]).collect()
    } else {
        vec![(APPLIANCE, "vmdk", false), ("vhdx", "vhdx", true), ("fixed.vhd", "vpc", false)]
    };
    let of_the_build = |what: &str| {
        let line = built.stderr.lines().find_map(|line| line.split(&format!("| {what} ")).nth(1));
        line.unwrap_or_else(|| panic!("{what}: {built}")).trim().to_owned()
    };
    let mut machine_ids = vec![of_the_build("machine-id")];
    let mut host_keys = vec![of_the_build("host-key")];
    for (name, qemu, is_uefi) in boots {
        let hardware = if name == APPLIANCE { Hardware::Vmware } else { Hardware::Virtio };
        let told = foreign::boot(&file(name), qemu, is_uefi, hardware);
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
    a_throw_away_copy_serves_the_page(place);
}

/// GNU tar and gunzip find the same disk in Google's file, and what an appliance has in the appliance, whose disk is put
/// beside the other files. Descriptions of machines name the disks that are there.
fn others_read_what_qemu_does_not(place: &Place) {
    let out = place.path("out");
    let shell = |script: &str| foreign::run(Command::new("sh").args(["-e", "-c", script]).current_dir(&out));
    shell("tar -xOzf nginx-1.0.0-1.tar.gz disk.raw | cmp - nginx-1.0.0-1.raw");
    shell("test $(tar -tf nginx-1.0.0-1.ova | tr '\\n' ' ' | wc -w) = 3 && tar -xf nginx-1.0.0-1.ova");
    shell("sed 's/^SHA256(\\(.*\\))= \\(.*\\)$/\\2  \\1/' nginx-1.0.0-1.mf | sha256sum -c --quiet");
    shell("mv nginx-1.0.0-1-disk1.vmdk nginx-1.0.0-1.ova-disk1.vmdk");
    shell("sh -n nginx-1.0.0-1.proxmox.sh && grep -q nginx-1.0.0-1.qcow2 nginx-1.0.0-1.proxmox.sh");
    shell("grep -q \"$PWD/nginx-1.0.0-1.qcow2\" nginx-1.0.0-1.libvirt.xml");
    shell("grep -q nginx-1.0.0-1.vmdk nginx-1.0.0-1.vmx");
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
    let _interrupted = ended.fails(130);
}
