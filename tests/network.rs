//! What a guest reaches, and what of the site's network stays in an image.

use crate::framework::{FileServer, PARENT, Place, bash, text_on_disk};

#[test]
fn a_guest_reaches_packages_but_neither_loopback_nor_metadata() {
    let place = Place::new();
    if !crate::images::is_isolated(&place) {
        // Then the build has to say so, and how to mend it.
        let recipe = place.recipe("open", &bash("build", "exit 1"));
        let ended = place.build(&[&recipe.to_string_lossy()]).run().fails(3);
        let _ended = ended.says("guests can reach this host's loopback").says("(mend: ");
        return;
    }
    let server = FileServer::start();
    server.put("secret", "the host's own");
    let port = server.port();
    let script = format!(
        "echo names: $(getent hosts debian.org >/dev/null && echo answer)\n\
         apt-get -q update >/tmp/update 2>&1 && echo packages: answer || cat /tmp/update\n\
         for host in 10.0.2.2 127.0.0.1 169.254.169.254; do\n\
         \x20 curl -s --max-time 10 http://$host:{port}/secret && echo $host answers || echo $host: nothing\n\
         done\n\
         curl -s --max-time 10 http://169.254.169.254/latest/meta-data/ && echo metadata answers || echo metadata: nothing\n\
         exit 1"
    );
    let recipe = place.recipe("isolated", &bash("build", &script));
    let ended = place.build(&[&recipe.to_string_lossy()]).run().fails(3);
    let ended = ended
        .says("packages: answer")
        .says("10.0.2.2: nothing")
        .says("169.254.169.254: nothing")
        .says("metadata: nothing");
    assert_eq!(server.connections(), 0, "a guest reached the host's loopback: {ended}");
}

/// A proxy, an authority and a mirror: there while building, gone from the sealed disk.
#[test]
fn what_the_site_needs_is_given_and_taken_back() {
    let place = Place::new();
    // Where the guest's packages come from, in its own words.
    let ask = place.recipe("sources", &bash("build", "grep -rhoE 'https?://[^ ]+' /etc/apt/sources.list*; exit 1"));
    let answer = place.build(&[&ask.to_string_lossy()]).run().fails(3);
    let source = answer.stderr.lines().find_map(|line| line.split("| http").nth(1)).unwrap();
    let source = format!("http{}", source.trim_end_matches('/'));
    let (proxy, mirror) = ("http://proxy.site.invalid:3128", "http://mirror.site.invalid/packages");
    let make = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    let names = ["-subj", "/CN=goldsmith test authority", "-keyout", "key.pem", "-out", "ca.pem"];
    let openssl = std::process::Command::new("openssl").current_dir(place.path("")).args(make).args(names).output();
    assert!(openssl.unwrap().status.success());
    let certificate = fs_err::read_to_string(place.path("ca.pem")).unwrap();
    let line = certificate.lines().nth(4).unwrap();
    let script = format!(
        "set -e\ntest \"$http_proxy\" = {proxy}\ntest \"$no_proxy\" = localhost\ngrep -rq {mirror} /etc/apt/sources.list*\n\
         grep -qF '{line}' /etc/ssl/certs/ca-certificates.crt"
    );
    place.write("c.yaml", &format!("schemaVersion: 1.0\nphases:\n{}", bash("build", &script)));
    place.write("recipe.yaml", &format!("name: site\nversion: 1.0.0\nparentImage: {PARENT}\ncomponents: [./c.yaml]\n"));
    let replaced = format!("{source}={mirror}");
    let flags = ["--proxy", proxy, "--no-proxy", "localhost", "--ca-certificate", "ca.pem", "--mirror", &replaced];
    let ended = place.build(&[&["recipe.yaml", "--no-test"], &flags[..]].concat()).run().success();
    let disk = ended.image_file("site/1.0.0/1", "disk.qcow2");
    for (trace, is_there) in
        [("proxy.site.invalid", false), ("mirror.site.invalid", false), (line, false), (&source, true)]
    {
        assert_eq!(text_on_disk(&disk, "qcow2", trace), is_there, "{trace}: {ended}");
    }
}

/// The same step in two pipelines: what the one may reach, the other may not.
#[test]
fn a_guest_is_held_to_the_hosts_of_its_infrastructure() {
    let place = Place::new();
    if !crate::images::is_isolated(&place) {
        eprintln!("not run: guests can't be isolated here");
        return;
    }
    // Where the guest's packages come from, in its own words.
    let ask = place.recipe("restricted", &bash("build", "grep -rhoE 'https?://[^/ ]+' /etc/apt/sources.list*; exit 1"));
    let answer = place.build(&[&ask.to_string_lossy()]).run().fails(3);
    let packages = answer.stderr.lines().find_map(|line| line.split("| http").nth(1)).unwrap();
    let packages = packages.rsplit('/').next().unwrap().split(':').next().unwrap();
    let step = "apt-get -q update -o APT::Update::Error-Mode=any >/tmp/update 2>&1 && echo packages: answer || echo packages: nothing\nexit 1";
    place.recipe("restricted", &bash("build", step));
    for (hosts, answer) in [(packages, "packages: answer"), ("192.0.2.7", "packages: nothing")] {
        let document = format!(
            "kind: ImagePipeline\nname: restricted\nrecipe: recipe.yaml\ninfrastructure: here\n---\n\
             kind: InfrastructureConfiguration\nname: here\nnetwork: restricted\nhosts: ['{hosts}']\n"
        );
        place.write("pipeline.yaml", &document);
        let ended = place.goldsmith(&["pipeline", "run", "pipeline.yaml"]).run().fails(1);
        let _ended = ended.says(answer);
    }
}
