//! Builds start where nothing has changed yet, and what they start from is right.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::framework::{Finished, PARENT, Place, bash, foreign, names_in, read, shared};
use crate::steps::folders_with;

/// A step that leaves a mark.
fn mark(text: &str) -> String {
    bash("build", &format!("echo {text} | tee -a /etc/marks"))
}

/// Which components of a build were taken from layers.
fn cached(ended: &Finished) -> Vec<String> {
    let lines = ended.stderr.lines().filter_map(|line| line.trim_end().strip_suffix(" cached"));
    lines.filter_map(|line| line.rsplit(' ').next()).map(str::to_owned).collect()
}

fn build(place: &Place, flags: &[&str]) -> Finished {
    let mut arguments = vec!["recipe.yaml", "--no-test"];
    arguments.extend(flags);
    place.build(&arguments).run()
}

/// What `plan` prints, without what changes from run to run.
fn plan(place: &Place) -> String {
    let planned = place.goldsmith(&["plan", "recipe.yaml", "--no-test"]).run().success();
    let mut text = String::new();
    for line in planned.stdout.lines().filter(|line| line.starts_with("  ") || line.contains("unchanged")) {
        let time = line.find(|c: char| c.is_ascii_digit()).filter(|_| line.contains(" s: "));
        let (start, rest) = line.split_at(time.unwrap_or(line.len()));
        let rest = rest.split_once(" s: ").map(|(_, why)| format!("TIME: {why}")).unwrap_or_default();
        text.push_str(&format!("{start}{rest}\n"));
    }
    text
}

/// Folders of the layers of a component.
fn layers_of(place: &Place, component: &str) -> Vec<PathBuf> {
    let layers = place.home().join("layers");
    let folders = names_in(&layers).into_iter().map(|name| layers.join(name));
    let is_it = |folder: &PathBuf| {
        let record = fs_err::read_to_string(folder.join("layer.json")).unwrap_or_default();
        record.split_whitespace().collect::<String>().contains(&format!("[\"component\",\"{component}\"]"))
    };
    folders.filter(is_it).collect()
}

#[test]
fn only_what_has_changed_runs() {
    let place = Place::new();
    let (one, two, three) = (mark("changes-1"), mark("changes-2"), mark("changes-3"));
    place.recipe_of("changes", &[("chg-a", &one), ("chg-b", &two), ("chg-c", &three)]);
    let first = build(&place, &[]).success();
    assert_eq!(cached(&first), Vec::<String>::new());
    insta::assert_snapshot!(plan(&place), @"changes/1.0.0/1 unchanged: a build returns it at once");
    let same = build(&place, &["--json"]).success();
    assert_eq!(
        (&same.json()["image"], &same.json()["stages"][0]["name"]),
        (&"changes/1.0.0/1".into(), &"unchanged".into())
    );
    // Neither a comment nor a test changes what a build machine does.
    let test = bash("test", "true");
    let commented = format!("# a comment\nschemaVersion: 1.0\nphases:\n{two}{test}");
    place.write("chg-b.yaml", &commented);
    let tested = build(&place, &["--json"]).success();
    assert_eq!((cached(&tested).len(), &tested.json()["image"]), (3, &"changes/1.0.0/2".into()));
    place.write("chg-c.yaml", &format!("schemaVersion: 1.0\nphases:\n{}", mark("changes-four")));
    insta::assert_snapshot!(plan(&place), @"
    hit   start of the parent
    hit   chg-a
    hit   chg-b
    miss  chg-c TIME: chg-c.yaml line 10 changed
    ");
    let last = build(&place, &[]).success().says("| changes-four");
    assert_eq!(cached(&last), ["chg-a", "chg-b"]);
    place.write("chg-a.yaml", &format!("schemaVersion: 1.0\nphases:\n{}", mark("changes-zero")));
    insta::assert_snapshot!(plan(&place), @"
    hit   start of the parent
    miss  chg-a TIME: chg-a.yaml line 10 changed
    miss  chg-b TIME: comes after chg-a
    miss  chg-c TIME: comes after chg-a
    ");
    let fresh = build(&place, &["--fresh", "--json"]).success();
    assert_eq!((cached(&fresh).len(), &fresh.json()["stages"][1]["cached"]), (0, &true.into()));
}

#[test]
fn a_build_goes_on_where_one_has_failed() {
    let place = Place::new();
    let fails = bash("build", "test -e /etc/mended || { echo not mended; exit 7; }");
    place.recipe_of("resumed", &[("res-a", &mark("resumed")), ("res-b", &fails), ("res-c", &mark("end"))]);
    let first = build(&place, &[]).fails(3).says("not mended");
    assert_eq!(cached(&first).len(), 0);
    let second = build(&place, &[]).fails(3).says("not mended");
    assert_eq!(cached(&second), ["res-a"]);
    // Somebody looks around where it broke, and before.
    let look = "cat /etc/marks; tty; echo status $?; exit\n";
    let broken = place.build(&["recipe.yaml", "--no-test", "--on-failure", "shell"]).typing(look).run().fails(3);
    assert!(broken.stdout.contains("resumed") && broken.stdout.contains("/dev/pts/"), "{broken}");
    let before = place.goldsmith(&["shell", "recipe.yaml", "--at", "res-a"]).typing(look).run().success();
    assert!(before.stdout.contains("No such file"), "{before}");
    let wrong = place.goldsmith(&["shell", "recipe.yaml", "--at", "res-x"]).run().fails(2);
    let _wrong = wrong.says("no component `res-x` is built by this recipe").says("res-a, res-b, res-c");
    place.write("res-b.yaml", &format!("schemaVersion: 1.0\nphases:\n{}", mark("mended")));
    let third = build(&place, &[]).success();
    assert_eq!(cached(&third), ["res-a"]);
}

/// Its firmware keeps variables in a file beside the disk, which no layer has.
#[test]
fn a_machine_with_uefi_goes_on_from_its_layers() {
    let place = Place::new();
    let look = |text: &str| bash("build", &format!("ls -d /sys/firmware/efi/efivars && echo {text}"));
    let recipe = place.recipe_of("by-uefi", &[("uef-a", &mark("uefi")), ("uef-b", &look("first"))]);
    fs_err::write(&recipe, format!("{}machine: {{ firmware: uefi }}\n", read(&recipe))).unwrap();
    let _made = build(&place, &[]).success();
    place.write("uef-b.yaml", &format!("schemaVersion: 1.0\nphases:\n{}", look("second")));
    let last = build(&place, &[]).success().says("| second");
    assert_eq!(cached(&last), ["uef-a"]);
}

/// Two builds from one layer, at the same time.
#[test]
fn a_restored_machine_knows_the_time_and_is_like_no_other() {
    let serve = bash(
        "build",
        "mkdir -p /srv/kept && echo still here > /srv/kept/index.html\n\
         systemd-run --quiet --unit=answers python3 -m http.server 8123 --directory /srv/kept\n\
         for i in $(seq 60); do curl -sf http://127.0.0.1:8123/ && exit 0; sleep 1; done; exit 1",
    );
    let look = |number: u32| {
        bash(
            "build",
            &format!(
                "echo time $(date +%s) {number}\necho random $(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' ')\n\
                 echo page $(curl -sf http://127.0.0.1:8123/)\nping -c 1 -w 20 10.0.2.2 > /dev/null && echo network"
            ),
        )
    };
    let first = Place::new();
    first.recipe_of("awake-a", &[("awk-serve", &serve), ("awk-look", &look(0))]);
    let _made = build(&first, &[]).success();
    std::thread::sleep(std::time::Duration::from_secs(5));
    let places = [1, 2].map(|number| {
        let place = Place::new();
        place.recipe_of(&format!("awake-{number}"), &[("awk-serve", &serve), ("awk-look", &look(number))]);
        place
    });
    let running = places.each_ref().map(|place| place.build(&["recipe.yaml", "--no-test", "-v"]).start());
    let ended = running.map(|running| running.wait().success());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let word = |ended: &Finished, name: &str| {
        let line = ended.stderr.lines().find_map(|line| line.split(&format!("| {name} ")).nth(1));
        line.unwrap_or_else(|| panic!("no {name}: {ended}")).split_whitespace().next().unwrap().to_owned()
    };
    for ended in &ended {
        assert_eq!(cached(ended), ["awk-serve"]);
        let time: u64 = word(ended, "time").parse().unwrap();
        assert!(time.abs_diff(now) < 60, "the guest's clock says {time} at {now}: {ended}");
        assert!(ended.stderr.contains("| page still here") && ended.stderr.contains("| network"), "{ended}");
    }
    assert_ne!(word(&ended[0], "random"), word(&ended[1], "random"));
}

#[test]
fn a_damaged_layer_is_noticed_and_made_again() {
    let place = Place::new();
    let write = bash("build", "head -c 3000000 /dev/urandom > /var/data; sync; echo written");
    let components = |last: &str| [("dmg-a", write.clone()), ("dmg-b", mark(last))];
    let recipe = |last: &str| {
        let components = components(last);
        place.recipe_of("damaged", &components.each_ref().map(|(name, phases)| (*name, phases.as_str())));
    };
    recipe("one");
    let _made = build(&place, &[]).success();
    for (file, last) in [("disk.qcow2", "two"), ("memory", "three")] {
        let [layer] = &layers_of(&place, "dmg-a")[..] else { panic!("not one layer") };
        // A bit in the middle of data, as a dying disk loses it.
        let path = layer.join(file);
        let data = fs_err::read(&path).unwrap();
        let middle = data.len() / 2;
        let at = middle + data[middle..].iter().position(|&byte| byte != 0).unwrap();
        let disk = fs_err::File::options().write(true).open(&path).unwrap();
        disk.file().write_all_at(&[data[at] ^ 1], at as u64).unwrap();
        recipe(last);
        let ended = build(&place, &[]).success();
        let noticed =
            ended.stderr.contains("is damaged; it is dropped") || ended.stderr.contains("is of no use and is dropped");
        assert!(noticed && ended.stderr.contains("| written"), "{file}: {ended}");
        assert!(!layer.exists(), "{file}: the damaged layer is still there");
    }
    // One that was cut off while it was written is no layer at all.
    let [layer] = &layers_of(&place, "dmg-a")[..] else { panic!("not one layer") };
    fs_err::remove_file(layer.join("layer.json")).unwrap();
    recipe("four");
    let ended = build(&place, &[]).success().says("| written");
    assert!(!layer.exists() && !ended.stderr.contains("warning"), "{ended}");
}

#[test]
fn a_checkpoint_that_is_cut_off_is_no_layer() {
    let place = Place::new();
    place.recipe_of("cut", &[("cut-a", &mark("cut-1")), ("cut-b", &mark("cut-2"))]);
    let layers = place.home().join("layers");
    let half_made = || -> Vec<PathBuf> {
        let folders = names_in(&layers).into_iter().map(|name| layers.join(name));
        folders.filter(|folder| folder.join("disk.qcow2").exists() && !folder.join("layer.json").exists()).collect()
    };
    let running = place.build(&["recipe.yaml", "--no-test"]).env("GOLDSMITH_LOG", "goldsmith=debug").start();
    running.wait_for("the disk is finished");
    running.signal(rustix::process::Signal::KILL);
    let half = half_made();
    let _killed = running.wait();
    assert!(!half.is_empty(), "nothing was half made");
    let ended = build(&place, &[]).success();
    assert_eq!(cached(&ended), Vec::<String>::new());
    assert_eq!(layers_of(&place, "cut-a").len(), 1);
    let left: Vec<PathBuf> = half_made().into_iter().filter(|folder| half.contains(folder)).collect();
    assert!(left.is_empty(), "{left:?} is still there");
}

#[test]
fn secrets_do_not_land_in_layers() {
    let place = Place::new();
    let secret = "hush-7f3a9c-hush";
    let silent = format!(
        "    disableLogging: true\n    steps:\n      - name: Step\n        action: ExecuteBash\n        inputs:\n          \
                          commands: ['echo {secret} > /root/token; sleep 1; rm /root/token']\n"
    );
    let silent = format!("  - name: build\n{silent}");
    place.recipe_of("secrets", &[("sec-a", &mark("sec")), ("sec-b", &silent), ("sec-c", &mark("after"))]);
    let first = build(&place, &[]).success();
    assert!(!first.stderr.contains(secret), "{first}");
    let found = folders_with(place.home(), secret);
    assert!(!found.contains("/layers/"), "the secret is in a layer: {found}");
    assert_eq!(["sec-a", "sec-b", "sec-c"].map(|name| layers_of(&place, name).len()), [1, 0, 0]);
    insta::assert_snapshot!(plan(&place), @"secrets/1.0.0/1 unchanged: a build returns it at once");
}

/// An image built from layers and one built from nothing differ only in what time and randomness explain.
#[test]
fn an_image_from_layers_is_like_one_from_nothing() {
    let place = Place::new();
    let install = bash(
        "build",
        "mkdir -p /opt/app && seq 2000 > /opt/app/data && useradd --system app && systemctl -q disable fstrim.timer\n\
         dpkg --purge nano > /dev/null",
    );
    let configure =
        bash("build", "ln -s /opt/app/data /etc/app && chown app /opt/app/data && chmod 0600 /opt/app/data");
    place.recipe_of("alike", &[("alk-a", &install), ("alk-b", &configure), ("alk-c", &mark("first"))]);
    let _made = build(&place, &[]).success();
    place.write("alk-c.yaml", &format!("schemaVersion: 1.0\nphases:\n{}", mark("second")));
    let warm = build(&place, &[]).success();
    assert_eq!(cached(&warm), ["alk-a", "alk-b"]);
    let cold = build(&place, &["--cold"]).success();
    let trees =
        ["alike/1.0.0/2", "alike/1.0.0/3"].map(|image| foreign::file_tree(&cold.image_file(image, "disk.qcow2")));
    assert!(trees[0].len() > 10_000, "{} files", trees[0].len());
    assert!(trees[0].iter().any(|(path, _)| path == "/opt/app/data") && !trees[0].contains_key("/usr/bin/nano"));
    let paths: std::collections::BTreeSet<&String> = trees.iter().flat_map(|tree| tree.keys()).collect();
    let differing: Vec<&String> = paths.into_iter().filter(|path| trees[0].get(*path) != trees[1].get(*path)).collect();
    // Time stamps and random numbers, each of which a first boot of either image makes anew or nobody reads.
    let explained = [
        "/var/lib/systemd/timesync/clock",
        "/var/log/",
        "/var/lib/dpkg/status-old",
        "/var/lib/dpkg/diversions-old",
        "/etc/shadow",
        "/etc/shadow-",
        "/etc/.pwd.lock",
    ];
    let unexplained: Vec<_> =
        differing.iter().filter(|path| !explained.iter().any(|known| path.starts_with(known))).collect();
    assert!(unexplained.is_empty(), "{unexplained:#?}");
}

#[test]
fn layers_live_in_a_budget() {
    let place = Place::new();
    place.recipe_of("budget", &[("bud-a", &mark("budget-1")), ("bud-b", &mark("budget-2"))]);
    let _made = build(&place, &[]).success();
    let before = layers_of(&place, "bud-a").len() + layers_of(&place, "bud-b").len();
    assert_eq!(before, 2);
    let listed = place.goldsmith(&["gc", "--dry-run", "--all", "--json"]).run().success();
    let paths = listed.json()["paths"].to_string();
    assert!(layers_of(&place, "bud-b").iter().all(|layer| paths.contains(&*layer.to_string_lossy())), "{paths}");
    assert_eq!(layers_of(&place, "bud-b").len(), 1, "a dry run removed something");
    let listed = place.goldsmith(&["gc", "--dry-run", "--json"]).run().success();
    assert!(!listed.json()["paths"].to_string().contains("/layers/"), "{listed}");
}

/// An old QEMU can't map memory to a file.
#[test]
fn a_qemu_without_mapped_ram_restores_as_well() {
    let old = PathBuf::from("/var/tmp/goldsmith-qemu-7.2/bin");
    if !old.join("qemu-system-x86_64").exists() {
        eprintln!("not run: `cargo xtask setup` could not get an old QEMU beside this host's own");
        return;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([old].into_iter().chain(std::env::split_paths(&path))).unwrap();
    let place = Place::new();
    place.recipe_of("old-qemu", &[("old-a", &mark("old-1")), ("old-b", &mark("old-2"))]);
    let _first = place.build(&["recipe.yaml", "--no-test"]).run().success();
    let warm = place.goldsmith(&["base", "warm", PARENT]).env("PATH", &path).run().success();
    assert!(warm.stdout.starts_with(PARENT), "{warm}");
    let again = place.goldsmith(&["base", "warm", PARENT, "--json"]).env("PATH", &path).run().success();
    assert_eq!(again.json()[0]["cached"], true);
    // What the other QEMU has left behind old-a is of no use to this one.
    let edit = |last: &str| place.write("old-b.yaml", &format!("schemaVersion: 1.0\nphases:\n{}", mark(last)));
    edit("old-3");
    let old = place.build(&["recipe.yaml", "--no-test", "--json"]).env("PATH", &path).run().success();
    assert_eq!((cached(&old).len(), &old.json()["stages"][1]["cached"]), (0, &true.into()));
    edit("old-4");
    let second = place.build(&["recipe.yaml", "--no-test", "--json"]).env("PATH", &path).run().success();
    assert_eq!(cached(&second), ["old-a"]);
    let machine = read(&second.image_file("old-qemu/1.0.0/3", "manifest.json"));
    assert!(machine.contains("\"qemu\": \"7."), "{machine}");
    let _shared = shared();
}
