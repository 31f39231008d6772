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
