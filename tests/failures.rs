//! Whatever fails, it ends with the right code and words, and leaves nothing behind.

use std::time::Duration;

use rustix::process::Signal;

use crate::framework::{
    Goldsmith, Place, Running, bash, foreign, machines_of, may_make_namespaces, step, text_on_disk,
};

/// What an image's state is afterwards.
fn state(place: &Place, image: &str) -> (String, String) {
    let shown = place.goldsmith(&["image", "show", image, "--json"]).run().success().json();
    let text = |name: &str| shown[name].as_str().unwrap_or_default().to_owned();
    assert!(shown["disk"].is_null(), "a disk was sealed: {shown}");
    (text("state"), text("reason"))
}

/// A recipe whose only step is this script, its build, and how that ended.
fn build(name: &str, script: &str) -> (Place, crate::framework::Finished) {
    let place = Place::new();
    let recipe = place.recipe(name, &bash("build", script));
    let ended = place.build(&[&recipe.to_string_lossy()]).run();
    (place, ended)
}

#[test]
fn a_step_that_fails_shows_its_last_words() {
    let (place, ended) = build("fails", "for i in $(seq 30); do echo line $i; done; echo the cause >&2; exit 42");
    let ended = ended.fails(3).says("component/build/Step: exit status 42").says("    the cause").says("    line 30");
    assert!(!ended.error(&place).contains("line 5\n"), "more than the last lines: {ended}");
    let log = ended.image_file("fails/1.0.0/1", "build.log");
    assert!(ended.stderr.contains(&*log.to_string_lossy()), "the log is not named: {ended}");
    assert!(crate::framework::read(&log).contains("| line 5"));
    assert_eq!(state(&place, "fails/1.0.0/1").0, "FAILED");
}

#[test]
fn a_step_that_takes_too_long_is_ended() {
    let place = Place::new();
    let recipe = place.recipe("slow", &step("build", "timeoutSeconds: 2", "sleep 600 & echo begun; sleep 600"));
    let ended = place.build(&[&recipe.to_string_lossy()]).run().fails(3);
    let ended = ended.says("component/build/Step: timed out after 2 s");
    assert!(ended.seconds < 300.0, "{ended}");
}

#[test]
fn a_kernel_panic_is_named() {
    let (place, ended) = build("panics", "echo c > /proc/sysrq-trigger; sleep 600");
    let _ended = ended.fails(3).says("Kernel panic - not syncing: sysrq triggered crash");
    assert!(state(&place, "panics/1.0.0/1").1.contains("kernel panicked"));
}

#[test]
fn a_full_disk_in_the_guest_is_named() {
    let (_place, ended) = build("full", "fallocate -l 500G /var/fill");
    let _ended = ended.fails(3).says("the guest's disk is full").says("disk: 8GiB");
}

#[test]
fn a_guest_without_a_network_name_is_told_from_a_failing_package() {
    let (_place, ended) = build("names", "curl -sS http://nowhere.invalid/");
    let _ended = ended.fails(3).says("no network: names can't be resolved");
}

/// A build that has reached a step which does not end by itself.
fn waiting(place: &Place, name: &str) -> Running {
    let recipe = place.recipe(name, &bash("build", "echo the step is here; sleep 600"));
    let running = place.build(&[&recipe.to_string_lossy()]).start();
    running.wait_for("| the step is here");
    running
}

#[test]
fn qemu_that_is_killed_is_said_so() {
    let place = Place::new();
    let running = waiting(&place, "killed-qemu");
    let machines = machines_of(running.id());
    assert_eq!(machines.len(), 1, "{machines:?}");
    let machine = rustix::process::Pid::from_raw(machines[0]).unwrap();
    rustix::process::kill_process(machine, Signal::KILL).unwrap();
    let _ended = running.wait().fails(1).says("QEMU was killed");
    assert_eq!(state(&place, "killed-qemu/1.0.0/1").0, "FAILED");
}

#[test]
fn an_interrupt_ends_everything_at_once() {
    let place = Place::new();
    let running = waiting(&place, "interrupted");
    running.signal(Signal::INT);
    let ended = running.wait().fails(130).says("interrupted");
    assert!(ended.seconds < 600.0);
    assert_eq!(state(&place, "interrupted/1.0.0/1").0, "CANCELLED");
}

#[test]
fn goldsmith_that_is_killed_leaves_nothing_that_looks_finished() {
    let place = Place::new();
    let running = waiting(&place, "murdered");
    let id = running.id();
    running.signal(Signal::KILL);
    let ended = running.wait().killed();
    let gone = std::time::Instant::now() + Duration::from_secs(20);
    while !machines_of(id).is_empty() {
        assert!(std::time::Instant::now() < gone, "its machine lives on");
        std::thread::sleep(Duration::from_millis(50));
    }
    // Whatever command comes next clears up, and says so.
    let _listed = place.goldsmith(&["image", "list"]).run().success().says("murdered/1.0.0/1 was left by a goldsmith");
    assert_eq!(ended.runs(), Vec::<String>::new());
    assert_eq!(state(&place, "murdered/1.0.0/1").0, "FAILED");
}

#[test]
fn an_agent_that_falls_silent_is_not_waited_for_for_ever() {
    let place = Place::new();
    let script = "kill -STOP $(cat /sys/fs/cgroup/system.slice/goldsmith-agent.service/cgroup.procs | head -1)";
    let recipe = place.recipe("silent", &step("build", "timeoutSeconds: 20", script));
    let _ended = place.build(&[&recipe.to_string_lossy()]).run().fails(1).says("the guest's agent did not answer");
    assert_eq!(state(&place, "silent/1.0.0/1").0, "FAILED");
}

#[test]
fn a_disk_that_does_not_boot_is_named() {
    let place = Place::new();
    let disk = place.path("empty.qcow2");
    let mut create = std::process::Command::new("qemu-img");
    foreign::run(create.args(["create", "-q", "-f", "qcow2"]).arg(&disk).arg("64M"));
    place.write("c.yaml", &format!("schemaVersion: 1.0\nphases:\n{}", bash("build", "true")));
    let recipe = "name: unbootable\nversion: 1.0.0\nparentImage: ./empty.qcow2\nmachine: { bootTimeoutSeconds: 15 }\n\
                  components: [./c.yaml]\n";
    place.write("recipe.yaml", recipe);
    let ended = place.goldsmith(&["build", "recipe.yaml"]).run().fails(1);
    let _ended = ended.says("the guest's agent did not answer within 15 s").says("no boot loader");
}

/// goldsmith, started by a script that may mount: it is given the shared store and goldsmith's command line.
fn with_own_mounts(place: &Place, script: &str, arguments: &[&str]) -> Goldsmith {
    // Root needs no user namespace for a mount of its own, and in a chroot gets none.
    let how = if may_make_namespaces(None) { "--map-root-user" } else { "--propagation=unchanged" };
    let home = place.home().to_string_lossy().into_owned();
    Goldsmith::behind(place, &["unshare", "--mount", how, "sh", "-c", script, "sh", &home], arguments)
}

#[test]
fn a_full_disk_of_the_host_is_named_and_leaves_nothing() {
    let place = Place::new();
    let script = "head -c 300M /dev/urandom > /var/fill; sync; echo written; sleep 60";
    let recipe = place.recipe("host-full", &bash("build", script));
    place.build(&["--help"]).run().success();
    // A store on a file system of its own with 60 MB; the parent and its checkpoint come from the shared one.
    let small = "set -e; mkdir small; mount -t tmpfs -o size=60m tmpfs small; mkdir small/home; \
                 for shared in parents layers version host; do ln -s \"$1/$shared\" small/home/$shared; done; shift; \
                 export GOLDSMITH_HOME=$PWD/small/home; code=0; \"$@\" || code=$?; \
                 ls small/home/runs small/home/images/host-full/1.0.0/1 >&2; umount small; exit $code";
    let ended = with_own_mounts(&place, small, &["build", &recipe.to_string_lossy()]).run().fails(1);
    let ended = ended.says("the host's disk is full").says("goldsmith gc");
    assert!(!ended.stderr.contains("disk.qcow2"), "a disk is left: {ended}");
}

#[test]
fn a_checkpoint_that_the_disk_has_no_room_for_is_done_without() {
    let place = Place::new();
    let writes = |text: &str| bash("build", &format!("echo {text} | tee -a /etc/marks"));
    let recipe = place.recipe_of("no-room", &[("room-a", &writes("room-1")), ("room-b", &writes("room-2"))]);
    place.build(&["--help"]).run().success();
    // What there is of layers is shared; those that the build makes go to a file system of 40 MB.
    let small = "set -e; mkdir small own; mount -t tmpfs -o size=40m tmpfs small; \
                 for layer in \"$1\"/layers/*; do ln -s \"$layer\" small/; done; ln -s ../small own/layers; \
                 for shared in parents version host; do ln -s \"$1/$shared\" own/; done; shift; \
                 export GOLDSMITH_HOME=$PWD/own; code=0; \"$@\" || code=$?; \
                 find small -mindepth 1 -not -type l >&2; umount small; exit $code";
    let ended = with_own_mounts(&place, small, &["build", &recipe.to_string_lossy(), "--no-test"]).run().success();
    let ended = ended.says("no checkpoint is kept from here on").says("| room-2");
    assert_eq!(ended.stderr.matches("no checkpoint is kept").count(), 1, "{ended}");
    assert!(!ended.stderr.contains("small/"), "something is left: {ended}");
}

#[test]
fn a_failed_machine_is_kept_when_asked_for() {
    let place = Place::new();
    let recipe = place.recipe("kept", &bash("build", "echo a trace of the failure > /root/evidence.txt; exit 5"));
    let ended = place.build(&[&recipe.to_string_lossy(), "--on-failure", "keep"]).run();
    let hint = ended.stderr.lines().find_map(|line| line.split("look into it with: goldsmith run ").nth(1));
    let disk = std::path::PathBuf::from(hint.unwrap_or_else(|| panic!("no hint: {ended}")).trim_matches('\''));
    assert!(machines_of(ended.id()).is_empty());
    assert!(text_on_disk(&disk, "qcow2", "a trace of the failure"));
    let listed = place.goldsmith(&["gc", "--dry-run"]).run().success();
    assert!(listed.stdout.contains("a failed build machine that was kept"), "{listed}");
    fs_err::remove_dir_all(disk.parent().unwrap()).unwrap();
    let _ended = ended.fails(3);
}

#[test]
fn kvm_that_does_not_work_is_refused_when_asked_for() {
    let place = Place::new();
    let recipe = place.recipe("kvm", &bash("build", "true"));
    let doctor = place.goldsmith(&["doctor", "--json"]).run().json();
    let kvm = doctor.as_array().unwrap().iter().find(|finding| finding["name"] == "kvm").unwrap();
    if kvm["health"] == "good" {
        place.build(&[&recipe.to_string_lossy(), "--accel", "kvm", "--no-test"]).run().success();
    } else {
        let ended = place.goldsmith(&["build", &recipe.to_string_lossy(), "--accel", "kvm"]).run().fails(1);
        let _ended = ended.says("KVM can't be used");
    }
}
