//! Parents: from the distribution's packages, from a web server, from root's hands.

use sha2::{Digest, Sha256};

use crate::framework::{FileServer, Goldsmith, PARENT, Place, bash, foreign, names_in};

/// A parent's bytes as a publisher would serve them, and their checksum file.
fn publish(server: &FileServer) -> (String, String) {
    let place = Place::new();
    // Makes the shared parent, if no test has yet.
    place.build(&["--help"]).run().success();
    let bases = place.goldsmith(&["base", "list", "--json"]).run().success().json();
    let base = bases.as_array().unwrap().iter().find(|base| base["name"] == PARENT).unwrap();
    let bytes = fs_err::read(base["disk"].as_str().unwrap()).unwrap();
    let digest = hex::encode(Sha256::digest(&bytes));
    (server.put("cloud.qcow2", bytes), format!("{digest}  cloud.qcow2\n"))
}

fn base(place: &Place, url: &str, checksums: &str) {
    let text = format!("description: a cloud image\nurl: {url}\nchecksumFile: {checksums}\n");
    place.write("base-images/published.yaml", &text);
    place.write("recipe.yaml", "name: fetched\nversion: 1.0.0\nparentImage: published\ncomponents: [./c.yaml]\n");
    place
        .write("c.yaml", &format!("schemaVersion: 1.0\nphases:\n{}", bash("build", "cat /etc/debian_version; exit 1")));
}

#[test]
fn a_published_image_is_fetched_verified_and_built_on() {
    let server = FileServer::start();
    let (url, checksums) = publish(&server);
    let checksums = server.put("SHA256SUMS", checksums);
    let place = Place::new();
    base(&place, &url, &checksums);
    let ended = place.build(&["recipe.yaml"]).run().fails(3).says("| 12.");
    let before = server.connections();
    assert!(before >= 2, "{ended}");
    // The second time its bytes are here.
    let _again = place.build(&["recipe.yaml"]).run().fails(3);
}

#[test]
fn what_its_publisher_has_anew_is_told_and_fetched_when_asked_for() {
    let server = FileServer::start();
    let (url, checksums) = publish(&server);
    let list = server.put("SHA256SUMS", checksums);
    let place = Place::with_own_store();
    base(&place, &url, &list);
    let outdated = |place: &Place| place.goldsmith(&["base", "outdated", "--json"]).run().success().json();
    assert_eq!(outdated(&place), serde_json::json!([]), "nothing is here");
    let first = place.goldsmith(&["base", "pull", "published", "--json"]).run().success().json();
    assert_eq!(outdated(&place)[0]["state"], "newest");
    let same = place.goldsmith(&["base", "pull", "published", "--json"]).run().success().json();
    assert_eq!(first, same);
    // The same disk, one sector longer: another file.
    let mut bytes = fs_err::read(first[0]["disk"].as_str().unwrap()).unwrap();
    bytes.extend([0; 512]);
    let digest = hex::encode(Sha256::digest(&bytes));
    let _url = server.put("cloud.qcow2", bytes);
    let _list = server.put("SHA256SUMS", format!("{digest}  cloud.qcow2\n"));
    assert_eq!(outdated(&place)[0]["state"], "outdated");
    let table = place.goldsmith(&["base", "outdated"]).run().success();
    assert!(table.stdout.contains("its publisher has something newer"), "{table}");
    // A build takes what is here unless it is told otherwise.
    let parent_of = |arguments: &[&str]| {
        let _ended = place.goldsmith(arguments).run().fails(3);
        let names = names_in(&place.home().join("images/fetched/1.0.0"));
        let build = names.iter().filter_map(|name| name.parse::<u32>().ok()).max().unwrap();
        let shown = place.goldsmith(&["image", "show", &format!("fetched/1.0.0/{build}"), "--json"]).run();
        shown.success().json()["source"]["parent"]["sha256"].as_str().unwrap().to_owned()
    };
    assert_eq!(parent_of(&["build", "recipe.yaml"]), first[0]["digest"].as_str().unwrap());
    assert_eq!(parent_of(&["build", "recipe.yaml", "--pull"]), digest);
    assert_eq!(outdated(&place)[0]["state"], "newest");
    // Who can't ask must not be told that all is well.
    let _unreadable = server.put("SHA256SUMS", "nothing of interest\n");
    let unknown = place.goldsmith(&["base", "outdated", "--json"]).run().fails(5).json();
    assert!(unknown[0]["error"].is_string(), "{unknown}");
    let not_here = place.goldsmith(&["base", "outdated", "debian-12-minimal"]).run().success();
    assert!(not_here.stdout.contains("it is not here"), "{not_here}");
}

#[test]
fn a_tampered_image_is_refused_and_nothing_of_it_stays() {
    let server = FileServer::start();
    let (url, _) = publish(&server);
    let wrong = server.put("SHA256SUMS", format!("{:064}  cloud.qcow2\n", 0));
    let place = Place::with_own_store();
    base(&place, &url, &wrong);
    let ended = place.goldsmith(&["build", "recipe.yaml"]).run().fails(5).says("does not verify");
    assert_eq!(
        names_in(&place.home().join("parents/published")).iter().filter(|name| name.ends_with(".qcow2")).count(),
        0
    );
    assert_eq!(names_in(&place.home().join("downloads/sha256")), Vec::<String>::new(), "{ended}");
    let missing = server.put("other", "nothing of interest\n");
    base(&place, &url, &missing);
    let _ended = place.goldsmith(&["build", "recipe.yaml"]).run().fails(5);
}

/// Root has another way into namespaces than everybody else. Everything else here runs as an ordinary user.
#[test]
fn root_builds_as_well() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: only root can try what root does");
        return;
    }
    let place = Place::with_own_store();
    let shared = Place::new();
    shared.build(&["--help"]).run().success();
    fs_err::create_dir_all(place.home()).unwrap();
    for name in ["parents", "layers", "version"] {
        let mut copy = std::process::Command::new("cp");
        foreign::run(copy.args(["--recursive", "--sparse=always"]).arg(shared.home().join(name)).arg(place.home()));
    }
    let recipe = place.recipe("by-root", &bash("build", "id -un; exit 1"));
    let ended = Goldsmith::as_oneself(&place, &["build", &recipe.to_string_lossy()]).run().fails(3);
    let _ended = ended.says("| root").says("boot    done in");
}
