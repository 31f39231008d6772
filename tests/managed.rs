//! Shipped equivalents of Amazon's managed components, in a real guest; scripts and playbooks beside them.

use crate::framework::{PARENT, Place, bash};

/// Components that are quick. Their tests restart the machine, plug a disk and a network card, and reach the packages.
const QUICK: [&str; 8] = [
    "hello-world-linux",
    "simple-boot-test-linux",
    "validate-ssh-host-key-generation-linux",
    "chrony-time-configuration-test",
    "ebs-volume-usage-test-linux",
    "eni-attachment-test-linux",
    "apt-repository-test-linux",
    "reboot-test-linux",
];
/// Those that install much, which takes a quarter of an hour where guests are emulated: with `--thorough` only.
const LONG: [&str; 5] =
    ["update-linux", "python-3-linux", "docker-ce-linux", "aws-cli-version-2-linux", "reboot-linux"];

#[test]
fn managed_components_run_by_their_arn() {
    let place = Place::new();
    let long = if std::env::var_os("GOLDSMITH_TEST_THOROUGH").is_some() { &LONG[..] } else { &[] };
    let mut recipe = format!(
        "name: managed\nversion: 1.0.x\nparentImage: {PARENT}\ncomponents:\n  - component: \
         install-package-from-repository/x.x.x\n    parameters: {{ PackageName: chrony }}\n"
    );
    for (name, partition) in QUICK.iter().chain(long).zip(["aws", "aws-cn", "aws-us-gov"].iter().cycle()) {
        recipe.push_str(&format!("  - arn:{partition}:imagebuilder:eu-west-1:aws:component/{name}/x.x.x\n"));
    }
    place.write("recipe.yaml", &recipe);
    let ended = place.build(&["recipe.yaml"]).run().success();
    for name in QUICK.iter().chain(long) {
        assert!(ended.stderr.contains(&format!("is replaced by goldsmith's own {name}/")), "{name}: {ended}");
    }
    let ended = ended.says("test/Compare done").says("inet 10.0.3.15/24").says("test/IsAnotherBoot done");
    let _ended = ended.says("hello 2.10").says("pool 2.debian.pool.ntp.org");
}

const SCRIPT: &str = "#!/bin/bash
set -eu
# Text that looks like a reference and is none: {{ build.Nothing.outputs.stdout }} {{ aws:ssm:/secret }}
test \"$GREETING\" = 'hello, $(world) {{ GREETING }}'
if ! test -e /var/tmp/restarted; then
  touch /var/tmp/restarted
  exit 194
fi
echo \"$GREETING\" > /etc/greeting
";

const PLAYBOOK: &str = "
- hosts: all
  gather_facts: false
  tasks:
    - name: Write the greeting from a template
      ansible.builtin.template: { src: greeting.j2, dest: /etc/greeting-by-playbook, mode: '0644' }
    - name: Install a package that came with Ansible already
      ansible.builtin.command: { cmd: apt-get -qy install --no-install-recommends python3-packaging }
";

#[test]
fn scripts_and_playbooks_are_components() {
    let place = Place::new();
    place.write("install.sh", SCRIPT);
    place.write("fails.sh", "# no first line that says with what\ntrue\nfalse || true\nset -e\nls /nowhere\n");
    place
        .write("tool.py", "#!/usr/bin/env python3\nimport os, sys\nprint('python', sys.argv[1:], os.environ['WHO'])\n");
    place.write("web/site.yml", PLAYBOOK);
    place.write("web/templates/greeting.j2", "{{ greeting }} from {{ inventory_hostname }}\n");
    let check = "set -e\ntest \"$(cat /etc/greeting)\" = 'hello, $(world) {{ GREETING }}'\n\
                 test \"$(cat /etc/greeting-by-playbook)\" = 'hi there from localhost'\n\
                 test ! -e /var/lib/goldsmith -a ! -e /root/.ansible\n\
                 ! command -v ansible-playbook\ndpkg-query --show python3-packaging\n\
                 ! dpkg-query --show --showformat='${db:Status-Status}\\n' ansible-core netbase python3-resolvelib | grep -x installed";
    place.write("check.yaml", &format!("schemaVersion: 1.0\nphases:\n{}", bash("build", check)));
    place.write(
        "recipe.yaml",
        &format!(
            "name: scripts\nversion: 1.0.0\nparentImage: {PARENT}\ncomponents:\n\
             \x20 - {{ script: ./install.sh, parameters: {{ GREETING: 'hello, $(world) {{{{ GREETING }}}}' }} }}\n\
             \x20 - {{ script: tool.py, parameters: {{ WHO: world }} }}\n\
             \x20 - ansible: {{ playbook: web/site.yml }}\n    parameters: {{ greeting: hi there }}\n\
             \x20 - ./check.yaml\n  - script: ./fails.sh\n"
        ),
    );
    let ended = place.build(&["recipe.yaml"]).run().fails(3).says("the guest restarts").says("python [] world");
    let _ended = ended.says("build/RemoveAnsible done").says("./fails.sh:5: exit status 2");
}
