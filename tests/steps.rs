//! What components do in a guest.

use crate::fakes::cloud::{Cloud, Fault};
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
            - test "$(cat /proc/self/oom_score_adj)" = 0
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
      - name: OntoItself
        action: CopyFile
        onFailure: Ignore
        inputs: [{ source: /lib/os-release, destination: /usr/lib/os-release }]
      - name: NotEmptied
        action: ExecuteBash
        if: { not: { fileExists: "/srv/NAME_OF_300" } }
        inputs: { commands: ["test -s /usr/lib/os-release", "head -c 300000 /dev/zero | tr '\\0' x"] }
      - name: TooMuch
        action: ExecuteBinary
        onFailure: Ignore
        inputs: { path: /bin/echo, arguments: ["{{ build.NotEmptied.outputs.stdout }}"] }
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
    place.write("actions.yaml", &ACTIONS.trim_start().replace("NAME_OF_300", &"x".repeat(300)));
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
    let ended = ended.says("build/OntoItself failed, ignored").says("build/TooMuch failed, ignored");
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

/// What the first test leaves out: conditions, loops, references, documents in documents, folders, S3.
const LANGUAGE: &str = r#"
name: language
schemaVersion: 1.0
constants:
  - Root: { type: string, value: /srv/language }
phases:
  - name: build
    steps:
      - name: Names
        action: CreateFile
        loop: { name: Each, forEach: { list: "one;two;three", delimiter: ";" } }
        inputs: [{ path: "{{ Root }}/from/{{ Each.index }}-{{ loop.value }}.txt", content: "{{ loop.value }}" }]
      - name: Numbers
        action: ExecuteBash
        loop: { for: { start: 6, end: 1, updateBy: -2 } }
        inputs: { commands: ["echo number {{ loop.value }}", "echo {{ undeclared.value }} > /dev/null"] }
      - name: Skipped
        action: ExecuteBash
        if: { fileExists: "{{ Root }}/nothing" }
        inputs: { commands: ["touch /srv/never"] }
      - name: Aborted
        action: ExecuteBash
        onFailure: Ignore
        if: { not: { binaryExists: bash, then: Execute, else: Abort } }
        inputs: { commands: ["touch /srv/never"] }
      - name: Files
        action: AppendFile
        inputs: [{ path: "{{ Root }}/from/0-one.txt", content: " and more" }]
      - name: Encoded
        action: CreateFile
        inputs: [{ path: "{{ Root }}/utf16.txt", content: "é", encoding: utf16-BE }]
      - name: Moved
        action: MoveFile
        inputs: [{ source: "{{ Root }}/utf16.txt", destination: "{{ Root }}/deep/down/" }]
      - name: Read
        action: ReadFile
        inputs: [{ path: "{{ Root }}/deep/down/utf16.txt", encoding: UTF-16-BE }]
      - name: CopiedFolder
        action: CopyFolder
        inputs: [{ source: "{{ Root }}/from", destination: "{{ Root }}/to" }]
      - name: MovedFolder
        action: MoveFolder
        inputs: [{ source: "{{ Root }}/to", destination: "{{ Root }}/deep/" }]
      - name: Owner
        action: SetFolderOwner
        inputs: [{ path: "{{ Root }}/deep/to", owner: www-data }]
      - name: Permissions
        action: SetFolderPermissions
        inputs: [{ path: "{{ Root }}/deep/to", permissions: 0750, recursive: false }]
      - name: FilePermissions
        action: SetFilePermissions
        inputs: [{ path: "{{ Root }}/deep/to/2-three.txt", permissions: "0604" }]
      - name: FileOwner
        action: SetFileOwner
        inputs: [{ path: "{{ Root }}/deep/to/2-three.txt", owner: root, group: adm }]
      - name: Link
        action: CreateSymlink
        inputs: [{ path: "{{ Root }}/link", target: "{{ Root }}/deep/to" }]
      - name: Recoded
        action: SetFileEncoding
        inputs: [{ path: "{{ Root }}/deep/to/1-two.txt", encoding: utf32 }]
      - name: Listed
        action: ListFiles
        inputs: [{ path: "{{ Root }}/link", fileNamePattern: "*o*.txt" }]
      - name: Emptied
        action: DeleteFolder
        inputs: [{ path: "{{ Root }}/from", force: true }]
      - name: NotEmpty
        action: DeleteFolder
        onFailure: Ignore
        inputs: [{ path: "{{ Root }}/deep" }]
      - name: Bytes
        action: ExecuteBash
        inputs:
          commands: ["mkdir -p /srv/up/b", "printf bytes > /srv/up/one.bin", "head -c 20000000 /dev/urandom > /srv/up/b/two.bin"]
      - name: Late
        action: S3Upload
        timeoutSeconds: 40
        onFailure: Ignore
        inputs: [{ source: /srv/up/b/two.bin, destination: "s3://things/late.bin" }]
      - name: Taken
        action: S3Upload
        inputs:
          - { source: /srv/up, destination: "s3://things/a/", recurse: true }
          - { source: "/srv/up/*.bin", destination: "s3://things/star/" }
          - { source: /srv/up/one.bin, destination: "s3://things/single.bin", expectedBucketOwner: 111111111111 }
      - name: Brought
        action: S3Download
        inputs:
          - { source: "s3://things/single.bin", destination: "{{ Root }}/s3/", expectedBucketOwner: 111111111111 }
          - { source: "s3://things/a/*", destination: "{{ Root }}/s3/all" }
      - name: Foreign
        action: S3Download
        onFailure: Ignore
        inputs: [{ source: "s3://things/a/one.bin", destination: /srv/never, expectedBucketOwner: "222222222222" }]
      - name: Inner
        action: CreateFile
        inputs:
          - path: /srv/inner.yaml
            content: |
              schemaVersion: 1.0
              parameters:
                - Depth: { type: string }
              phases:
                - name: build
                  steps:
                    - name: Say
                      action: ExecuteBash
                      inputs: { commands: ["echo inner {{ Depth }} $WORKING_DIRECTORY"] }
                    - name: Again
                      action: ExecuteDocument
                      onFailure: Ignore
                      inputs: { document: /srv/inner.yaml }
                - name: other
                  steps:
                    - { name: Never, action: ExecuteBash, inputs: { commands: ["touch /srv/never"] } }
      - name: Nested
        action: ExecuteDocument
        inputs: { document: /srv/inner.yaml, phases: "build, test", parameters: [{ name: Depth, value: "{{ aws:ssm:/depth }}" }] }
      - name: Restarts
        action: ExecuteBash
        if: { stringEquals: linux, value: "{{ context:osPlatform }}" }
        loop: { forEach: [first, second] }
        inputs:
          commands:
            - "echo {{ loop.value }} >> /srv/turns"
            - "test -e /var/tmp/second || test {{ loop.value }} = first || { touch /var/tmp/second; exit 194; }"
            - cat /proc/sys/kernel/random/boot_id > /srv/boot
            - echo done
      - name: Fresh
        action: Reboot
        if: { fileExists: /srv/turns }
        loop: { forEach: [once] }
        inputs: { delaySeconds: "{{ loop.index }}" }
      - name: Markers
        action: CreateFile
        inputs: [{ path: skip_cleanup_toe_files }]
  - name: validate
    steps:
      - name: Everything
        action: ExecuteBash
        inputs:
          commands:
            - set -ex
            - cd {{ Root }}
            - test "$(cat link/0-one.txt)" = "one and more"
            - test '{{ build.Numbers.outputs.stdout }}' = "$(printf 'number 6\nnumber 4\nnumber 2')"
            - test '{{ build.Read.outputs.content }}' = é
            - test "$(stat -c '%U %a' deep/to)" = "www-data 750"
            - test "$(stat -c '%U %G %a' deep/to/2-three.txt)" = "root adm 604"
            - test "$(stat -c %s deep/to/1-two.txt)" = 12
            - test '{{ build.Listed.outputs.files }}' = "{{ Root }}/link/0-one.txt,{{ Root }}/link/1-two.txt"
            - test ! -e from -a ! -e /srv/never -a -f /tmp/skip_cleanup_toe_files -a -d deep
            - cmp s3/single.bin /srv/up/one.bin && diff -r s3/all /srv/up
            - test '{{ build.Nested.outputs.status }} {{ build.Nested.outputs.ignoredFailedStepCount }}' = 'success 1'
            - test "$(tr '\n' ' ' < /srv/turns)" = "first second second "
            - test "$(cat /srv/boot)" != "$(cat /proc/sys/kernel/random/boot_id)"
            - test '{{ build.Restarts.outputs.stdout }}' = "$(printf 'done\ndone')"
            - test '{{ context:osName }} {{ context:phase }} {{ env:IMAGE_PHASE }}' = "Debian GNU/Linux validate BUILDING"
"#;

#[test]
fn the_rest_of_the_language_runs() {
    let place = Place::new();
    let cloud = Cloud::start();
    let keys = cloud.account("111111111111");
    cloud.bucket("111111111111", "eu-west-1", "things");
    // The first upload in parts is never answered.
    cloud.fail("UploadPart", None, 1, Fault::Stall(std::time::Duration::from_secs(3600)));
    place.write("language.yaml", LANGUAGE.trim_start());
    let recipe = format!("name: language\nversion: 1.0.0\nparentImage: {PARENT}\ncomponents: [./language.yaml]\n");
    place.write("recipe.yaml", &recipe);
    let endpoint = cloud.s3_endpoint();
    let arguments = ["recipe.yaml", "--no-test", "--s3-endpoint", &endpoint, "--reference", "aws:ssm:/depth=one deep"];
    let build = place.build(&arguments).env("AWS_ACCESS_KEY_ID", &keys.id).env("AWS_SECRET_ACCESS_KEY", &keys.secret);
    let ended = build.env("AWS_REGION", "us-east-1").env("AWS_EC2_METADATA_DISABLED", "true").run().success();
    for text in [
        "build/Skipped skipped",
        "build/Aborted failed, ignored",
        "build/Late failed, ignored",
        "build/Foreign failed, ignored",
        "build/Nested/build/Say done",
        "build/Nested/build/Again failed, ignored",
        "inner one deep /tmp",
        "the guest restarts",
    ] {
        assert!(ended.stderr.contains(text), "`{text}` is missing: {ended}");
    }
    assert!(cloud.calls().iter().any(|call| call.action == "UploadPart" && call.outcome == "stalled"));
    let uploaded: Vec<(String, u64)> = cloud.objects().into_iter().map(|object| (object.key, object.bytes)).collect();
    let expected = [("a/b/two.bin", 20_000_000), ("a/one.bin", 5), ("single.bin", 5), ("star/one.bin", 5)];
    assert_eq!(uploaded, expected.map(|(key, bytes)| (key.to_owned(), bytes)));
    assert_eq!((cloud.object("things", "single.bin"), cloud.unfinished_uploads()), (b"bytes".to_vec(), 0));
}

#[test]
fn a_component_is_developed_in_a_throw_away_machine() {
    let place = Place::new();
    let fails = step("validate", "onFailure: Ignore", "exit 3");
    let text = "schemaVersion: 1.0\nparameters:\n  - Who: { type: string, default: world }\nphases:\n";
    place.write("hello.yaml", &format!("{text}{}{fails}", bash("build", "echo hello {{ Who }} > /srv/greeting")));
    place.write(
        "next.yaml",
        &format!("schemaVersion: 1.0\nphases:\n{}", bash("test", "grep -qx 'hello me' /srv/greeting")),
    );
    let arguments = ["component", "run", "hello.yaml", "next.yaml", "--in", PARENT, "-p", "Who=me", "--json"];
    // The parent, and its checkpoint.
    let warm = place.recipe("rehearsed", &bash("build", "true"));
    let _built = place.build(&[&warm.to_string_lossy(), "--no-test"]).run().success();
    let ended = place.goldsmith(&arguments).run().success();
    let summary = ended.json();
    let counts = ["executedStepCount", "failedStepCount", "ignoredFailedStepCount"].map(|name| summary[name].clone());
    assert_eq!((&summary["status"], counts), (&"success".into(), [3.into(), 0.into(), 1.into()]), "{summary:#}");
    // Nothing of it has stayed: what the first machine had is not in the second.
    let again = place.goldsmith(&["component", "run", "next.yaml", "--in", PARENT]).run().fails(3);
    assert!(again.stdout.contains("next/test/Step failed exit status"), "{again}");
    let unknown = place.goldsmith(&["component", "run", "nonesuch", "--in", PARENT]).run().fails(2);
    assert!(unknown.stderr.contains("there is no component `nonesuch`"), "{unknown}");
}

/// A document that shows a secret in every way it can, and keeps nothing of it. `KEEP` is what it keeps nevertheless.
const SECRETIVE: &str = r#"schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: Use
        action: ExecuteBash
        inputs:
          commands:
            - set -e
            - secret='{{ aws:ssm:/db/password }}'
            - test "$(printf %s "$secret" | sha256sum | cut -c 1-12)" = 951f6ef82941
            - echo "plain $secret"
            - printf 'user:%s' "$secret" | base64 -w 0
            - echo; printf %s "$secret" | od -An -tx1 | tr -d ' \n'; echo
            - python3 -c 'import sys, urllib.parse as u; print("url", u.quote_plus(sys.argv[1]))' "$secret"
            - echo "console $secret" > /dev/console
            - case "$0" in /run/*) ;; *) echo "the script is on a disk" >&2; exit 9 ;; esac
            - KEEP
      - name: Others
        action: ExecuteBash
        inputs: { commands: ["test '{{ aws:ssm:/app/url }}' = http://app.example && echo got {{ aws:ssm:/app/token }}"] }
  - name: test
    steps:
      - { name: Fails, action: ExecuteBash, onFailure: Ignore, inputs: { commands: ["echo {{ aws:ssm:/db/password }}; exit 3"] } }
"#;

/// The folders of the store in which a text occurs.
pub(crate) fn folders_with(home: &std::path::Path, text: &str) -> String {
    let mut grep = std::process::Command::new("grep");
    grep.args(["-r", "--binary-files=text", "--fixed-strings", "--files-with-matches", "--", text]).env("LC_ALL", "C");
    let said = grep.args(["images", "layers", "runs"].map(|name| home.join(name))).output().unwrap();
    // Other tests' layers may go meanwhile.
    let complaints = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(complaints.lines().all(|line| line.ends_with("No such file or directory")), "{said:?}");
    String::from_utf8_lossy(&said.stdout).into_owned()
}

#[test]
fn secrets_reach_the_steps_and_nothing_else() {
    let place = Place::new();
    let cloud = Cloud::start();
    let keys = cloud.account("111111111111");
    cloud.make_parameter("111111111111", "eu-west-1", "/app/token", ("SecureString", "tok-8842-aa"));
    cloud.make_parameter("111111111111", "eu-west-1", "/app/url", ("String", "http://app.example"));
    let secret = "s3cr&t/Zq 9!";
    let build = |keep: &str, name: &str| {
        place.write("secretive.yaml", &SECRETIVE.replace("KEEP", keep));
        let recipe = format!(
            "name: {name}\nversion: 1.0.0\nparentImage: {PARENT}\ncomponents: [./secretive.yaml]\n\
             secrets: {{ db/password: 'cmd:printf %s \"$DB\"' }}\n"
        );
        place.write("recipe.yaml", &recipe);
        let build = place.build(&["recipe.yaml", "--aws-parameters", "--endpoint-url", &cloud.endpoint()]);
        let build = build.env("AWS_ACCESS_KEY_ID", &keys.id).env("AWS_SECRET_ACCESS_KEY", &keys.secret);
        build.env("AWS_REGION", "eu-west-1").env("AWS_EC2_METADATA_DISABLED", "true").env("DB", secret).run()
    };
    let ended = build("true", "secretive").success();
    for text in ["plain ***", "dXNlcjp***", "url ***", "got ***"] {
        assert!(ended.stderr.contains(text), "`{text}` is missing: {ended}");
    }
    let forms = [secret, "s3cr%26t", "zM2NyJnQvWnEgO", "733363722674", "tok-8842-aa"];
    for form in forms {
        assert!(!ended.stderr.contains(form) && !ended.stdout.contains(form), "{form}: {ended}");
        assert_eq!(folders_with(place.home(), form), "", "{form}");
    }
    // It leaves no layer, and its image is not one that a build returns at once.
    let plan = ["plan", "recipe.yaml", "--aws-parameters", "--endpoint-url", &cloud.endpoint()];
    let plan = place.goldsmith(&plan).env("AWS_ACCESS_KEY_ID", &keys.id).env("AWS_SECRET_ACCESS_KEY", &keys.secret);
    let planned = plan.env("AWS_REGION", "eu-west-1").env("AWS_EC2_METADATA_DISABLED", "true").run().success();
    assert!(planned.stdout.contains("miss  secretive") && planned.stdout.contains("may handle secrets"), "{planned}");
    // A test says what it would take, and runs no command because an image says so.
    let test = place.goldsmith(&["test", "secretive"]).env("DB", secret).run().fails(2);
    let said = test.error(&place);
    assert!(said.contains("{{ aws:ssm:/db/password }}"), "{said}");
    assert!(said.contains("the recipe takes it from cmd:printf %s \"$DB\"") && said.contains("--secret"), "{said}");
    // A guest that ends takes its last words with it, but for the secret.
    let repeat =
        "while :; do echo \"console $secret\" > /dev/console; done & systemctl poweroff --force --force; sleep 60";
    let ended = build(repeat, "ended-secret").fails(3);
    let said = ended.error(&place);
    assert!(said.contains("powered itself off") && !said.contains(secret), "{said}");
    // Whether they are the last lines depends on what the kernel says when it goes.
    let console = place.goldsmith(&["image", "log", "ended-secret", "--console"]).run().success();
    assert!(console.stdout.contains("console ***"), "{}", console.stdout.len());
    assert_eq!(folders_with(place.home(), secret), "");
    // What it keeps is found, in another form too.
    let found = build("printf 'user:%s' \"$secret\" | base64 > /root/netrc", "kept-secret").fails(1);
    assert!(found.stderr.contains("on the sealed disk: the secret `db/password`"), "{found}");
    assert_eq!(folders_with(place.home(), "zM2NyJnQvWnEgO"), "");
}

#[test]
fn documents_run_on_this_very_machine() {
    let place = Place::new();
    let text = "schemaVersion: 1.0\nname: here\nparameters:\n  - Who: { type: string, default: world }\nphases:\n";
    let again = step("validate", "onFailure: Ignore", "exit 3");
    let silent = "  - name: other\n    steps:\n      - name: Quiet\n        action: ExecuteBash\n        disableLogging: true\n        \
                  inputs: { commands: ['echo not to be seen'] }\n";
    let build = bash("build", "echo hello {{ Who }} | tee greeting; echo {{ aws:ssm:/token }}; pwd");
    place.write("here.yaml", &format!("{text}{build}{again}{silent}"));
    let arguments = ["component", "run", "here.yaml", "-p", "Who=me", "--secret", "token=env:TOKEN", "--json"];
    let ended = place.goldsmith(&arguments).env("TOKEN", "hush-4711-hush").run().success();
    let summary = ended.json();
    let counts = ["executedStepCount", "failedStepCount", "ignoredFailedStepCount"].map(|name| summary[name].clone());
    assert_eq!((&summary["status"], counts), (&"success".into(), [3.into(), 0.into(), 1.into()]), "{summary:#}");
    assert_eq!(fs_err::read_to_string(place.path("greeting")).unwrap(), "hello me\n");
    // The folder of logs is the one that AWS's executor leaves.
    let logs = std::path::Path::new(summary["logUrl"].as_str().unwrap());
    let id = summary["executionId"].as_str().unwrap();
    let name = logs.file_name().unwrap().to_string_lossy().into_owned();
    assert!(name.starts_with("TOE_20") && name.ends_with(&format!("_UTC-0_{id}")), "{name}");
    let read = |name: &str| fs_err::read_to_string(logs.join(name)).unwrap();
    let detailed: serde_json::Value = serde_json::from_str(&read("detailedoutput.json")).unwrap();
    let document = &detailed["documents"][0];
    assert_eq!((&detailed["status"], &document["status"]), (&"success".into(), &"SuccessWithIgnoredFailure".into()));
    let run = &document["phases"][0]["steps"][0];
    let fields = ["action", "status", "timeoutSeconds", "onFailure", "maxAttempts"].map(|name| run[name].clone());
    let expected = serde_json::json!(["ExecuteBash", "success", 7200, "Abort", 1]);
    assert_eq!(serde_json::json!(fields), expected, "{run:#}");
    let folder = fs_err::canonicalize(place.path(".")).unwrap();
    let outputs: serde_json::Value = serde_json::from_str(run["outputs"].as_str().unwrap()).unwrap();
    assert_eq!(outputs[0]["stdout"], format!("hello me\n***\n{}", folder.display()));
    assert!(run["inputs"].as_str().unwrap().starts_with(r#"[{"commands":["#), "{run:#}");
    let chaining: serde_json::Value = serde_json::from_str(&read("chaining.json")).unwrap();
    assert_eq!(chaining[0]["phases"][0]["steps"][0]["outputs"], run["outputs"], "{chaining:#}");
    assert!(read("console.log").contains("Stdout: hello me"), "{}", read("console.log"));
    assert!(read("console.log").trim_end().ends_with("TOE has completed execution successfully"));
    assert!(read("D0__here.yaml").contains("schemaVersion"));
    for file in ["detailedoutput.json", "chaining.json", "console.log", "application.log"] {
        assert!(!read(file).contains("hush-4711") && !read(file).contains("to be seen"), "{file}: {}", read(file));
    }
    // As AWS's executor ends: 1 for a failure, 194 for a restart that somebody else has to see to.
    place.write("fails.yaml", &format!("schemaVersion: 1.0\nphases:\n{}", bash("build", "echo oh no; exit 5")));
    let failed = place.goldsmith(&["component", "run", "fails.yaml", "--log-directory", "logs"]).run().fails(1);
    assert!(failed.stdout.contains("fails/build/Step failed exit status 5"), "{failed}");
    assert!(place.path("logs").read_dir().unwrap().count() == 1);
    place.write(
        "restart.yaml",
        &format!("schemaVersion: 1.0\nphases:\n{}", step("build", "onFailure: Ignore", "exit 194")),
    );
    let restart = place.goldsmith(&["component", "run", "restart.yaml", "fails.yaml"]).run().fails(194);
    assert!(
        restart.stderr.contains("this machine has to be restarted") && !restart.stdout.contains("oh no"),
        "{restart}"
    );
}

#[test]
fn what_runs_on_this_machine_ends_with_goldsmith() {
    let place = Place::new();
    let marker = format!("4242.{}", std::process::id());
    place.write(
        "waits.yaml",
        &format!("schemaVersion: 1.0\nphases:\n{}", bash("build", &format!("echo waiting; sleep {marker}"))),
    );
    let running = place.goldsmith(&["component", "run", "waits.yaml"]).start();
    running.wait_for("waiting");
    running.signal(rustix::process::Signal::INT);
    let _ended = running.wait().fails(130);
    let mut grep = std::process::Command::new("pgrep");
    assert_eq!(grep.args(["-f", &format!("sleep {marker}")]).status().unwrap().code(), Some(1), "it still runs");
}

/// Starts a component on this machine that shows a secret's script and waits. Returns the folder of logs and of the script.
fn waiting_with_a_secret(place: &Place) -> (crate::framework::Running, std::path::PathBuf, std::path::PathBuf) {
    let script = "dirname \"$0\" > folder; echo token {{ aws:ssm:/token }}; sleep 600";
    place.write("secret.yaml", &format!("schemaVersion: 1.0\nphases:\n{}", bash("build", script)));
    let arguments = ["component", "run", "secret.yaml", "--secret", "token=env:TOKEN", "--log-directory", "logs"];
    let running = place.goldsmith(&arguments).env("TOKEN", "hush-4711-hush").start();
    running.wait_for("token ***");
    let folder = std::path::PathBuf::from(fs_err::read_to_string(place.path("folder")).unwrap().trim());
    assert!(folder.starts_with("/dev/shm") && folder.join("script.sh").is_file(), "{}", folder.display());
    let logs = fs_err::read_dir(place.path("logs")).unwrap().next().unwrap().unwrap().path();
    (running, logs, folder)
}

#[test]
fn a_script_with_a_secret_goes_however_its_run_on_this_machine_ends() {
    use rustix::process::{Pid, Signal};
    let status = |logs: &std::path::Path| {
        let detailed = fs_err::read_to_string(logs.join("detailedoutput.json")).unwrap();
        serde_json::from_str::<serde_json::Value>(&detailed).unwrap()["status"].clone()
    };
    let place = Place::new();
    let (running, logs, folder) = waiting_with_a_secret(&place);
    running.signal(Signal::INT);
    let _ended = running.wait().fails(130);
    assert!(!folder.parent().unwrap().exists(), "{}", folder.display());
    assert_eq!(status(&logs), "failed");

    // Nothing comes back after an agent that was killed, so nobody waits for it.
    let place = Place::new();
    let (running, logs, folder) = waiting_with_a_secret(&place);
    let mut pgrep = std::process::Command::new("pgrep");
    let found = pgrep.args(["--parent", &running.id().to_string(), "--full", "--", "--socket"]).output().unwrap();
    let agent = String::from_utf8(found.stdout).unwrap().trim().parse().unwrap();
    let mut group = std::process::Command::new("pgrep");
    let sleeps = group.args(["--full", &folder.to_string_lossy()]).output().unwrap();
    rustix::process::kill_process(Pid::from_raw(agent).unwrap(), Signal::KILL).unwrap();
    let ended = running.wait().fails(1);
    assert!(ended.stdout.contains("its agent ended"), "{ended}");
    assert!(!folder.parent().unwrap().exists(), "{}", folder.display());
    assert_eq!(status(&logs), "failed");
    // What a killed agent ran, nobody ends but this test.
    for program in String::from_utf8(sleeps.stdout).unwrap().lines().filter_map(|id| id.parse().ok()) {
        let _ended = rustix::process::kill_process_group(Pid::from_raw(program).unwrap(), Signal::KILL);
    }

    // Where goldsmith itself is killed, its agent clears up.
    let place = Place::new();
    let (running, _, folder) = waiting_with_a_secret(&place);
    running.signal(Signal::KILL);
    let _killed = running.wait().killed();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while folder.parent().unwrap().exists() {
        assert!(std::time::Instant::now() < deadline, "{} is still there", folder.display());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
