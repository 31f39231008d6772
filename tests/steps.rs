//! What components do in a guest.

use crate::framework::{PARENT, Place, bash, step};

/// All actions in one build, each checked by a later step or by the host.
const ACTIONS: &str = r#"
name: actions
schemaVersion: 1.0
constants:
  - Greeting: { type: string, value: hello }
parameters:
  - Port: { type: string, default: "8000" }
phases:
  - name: build
    steps:
      - name: Folder
        action: CreateFolder
        inputs: [{ path: /srv/files/inner, permissions: 0750, owner: root, group: adm }]
      - name: Write
        action: CreateFile
        inputs:
          - { path: /srv/files/one.txt, content: "{{ Greeting }} from {{ Port }}", permissions: 0640 }
          - { path: /srv/files/two.txt, content: two }
      - name: Copy
        action: CopyFile
        inputs: [{ source: /srv/files/*.txt, destination: /srv/files/inner/ }]
      - name: Delete
        action: DeleteFile
        inputs: [{ path: /srv/files/two.txt }]
      - name: Check
        action: ExecuteBash
        inputs:
          commands:
            - set -e
            - test "$(cat /srv/files/inner/one.txt)" = "hello from 8080"
            - test "$(stat -c '%a %G' /srv/files/inner)" = "750 adm"
            - test "$(stat -c %a /srv/files/inner/one.txt)" = 640
            - test -f /srv/files/inner/two.txt -a ! -e /srv/files/two.txt
            - sha256sum /srv/files/one.txt | cut -c 1-64
      - name: Serve
        action: ExecuteBash
        inputs:
          commands:
            - systemd-run --quiet --unit=serve python3 -m http.server --bind 127.0.0.1 --directory /srv/files 8080
            - for i in $(seq 100); do curl -sf -o /dev/null http://127.0.0.1:8080/ && break; sleep 0.2; done
      - name: Download
        action: WebDownload
        maxAttempts: 3
        inputs:
          - source: http://127.0.0.1:{{ Port }}/one.txt
            destination: /srv/downloaded.txt
            checksum: "{{ build.Check.outputs.stdout }}"
            algorithm: SHA256
      - name: WrongChecksum
        action: WebDownload
        onFailure: Ignore
        inputs:
          - source: http://127.0.0.1:{{ Port }}/one.txt
            destination: /srv/never.txt
            checksum: "0000000000000000000000000000000000000000000000000000000000000000"
            algorithm: SHA256
      - name: NoTrace
        action: Assert
        inputs: { not: { fileExists: /srv/never.txt } }
      - name: Binary
        action: ExecuteBinary
        inputs: { path: /bin/echo, arguments: ["{{ build.Download.inputs[0].destination }}", "a b"] }
      - name: SecondTime
        action: ExecuteBash
        maxAttempts: 2
        inputs: { commands: ["test -e /tmp/first || { touch /tmp/first; exit 7; }"] }
      - name: TooLong
        action: ExecuteBash
        timeoutSeconds: 2
        onFailure: Ignore
        inputs: { commands: ["sleep 4242 & sleep 4242"] }
      - name: GroupIsGone
        action: ExecuteBash
        inputs: { commands: ["! pgrep -f 'sleep 4242'"] }
  - name: validate
    steps:
      - name: Chained
        action: ExecuteBash
        inputs:
          commands:
            - test "{{ build.Binary.outputs.stdout }}" = "/srv/downloaded.txt a b"
            - systemctl stop serve
"#;

#[test]
fn every_action_does_what_is_documented() {
    let place = Place::new();
    place.write("actions.yaml", ACTIONS.trim_start());
    place.write("site/index.html", "a page of the recipe's own\n");
    place.write("site/css/site.css", "body {}\n");
    fs_err::create_dir(place.path("site/empty")).unwrap();
    let recipe = format!(
        "name: actions\nversion: 1.0.x\nparentImage: {PARENT}\nfiles:\n  - {{ source: site, destination: /srv/www, owner: \
         'www-data:www-data', mode: 0640 }}\ncomponents:\n  - ./actions.yaml\n  - component: ./files.yaml\n"
    );
    place.write("recipe.yaml", &recipe);
    let check = "set -e\ntest \"$(stat -c '%U %G %a' /srv/www/css/site.css)\" = 'www-data www-data 640'\n\
                 test \"$(stat -c %U /srv/www/css)\" = www-data\ntest -d /srv/www/empty\n\
                 test \"$(cat /srv/www/index.html)\" = \"a page of the recipe's own\"";
    place.write("files.yaml", &format!("schemaVersion: 1.0\nphases:\n{}", bash("build", check)));
    let ended = place.build(&["recipe.yaml", "--no-test", "-p", "Port=8080"]).run().success();
    let ended = ended.says("build/SecondTime done").says("build/TooLong failed, ignored");
    assert!(ended.stdout.contains("actions/1.0.0/1 AVAILABLE, not tested"), "{ended}");
    let log = place.goldsmith(&["image", "log", "actions"]).run().success();
    for text in ["attempt 2/2", "timed out after 2 s", "component 2/2 files"] {
        assert!(log.stdout.contains(text), "`{text}` is not in the log: {log}");
    }
    let console = place.goldsmith(&["image", "log", "actions", "--console"]).run().success();
    assert!(console.stdout.contains("Linux version"), "the console is not on file: {console}");
}

#[test]
fn a_step_restarts_the_guest_and_goes_on() {
    let place = Place::new();
    let script = "if test -e /var/tmp/before; then\n  test \"$(cat /var/tmp/before)\" != \"$(cat /proc/sys/kernel/random/boot_id)\"\n  \
                  echo restarted; exit 0\nfi\ncat /proc/sys/kernel/random/boot_id > /var/tmp/before\nexit 194";
    let stop = step("validate", "", "echo this far; exit 9");
    let recipe = place.recipe("restart", &(bash("build", script) + &stop));
    let ended = place.build(&[&recipe.to_string_lossy()]).run().fails(3);
    let ended = ended.says("the guest restarts").says("build/Step done").says("exit status 9");
    assert!(ended.stderr.contains("restarted"), "{ended}");
}
