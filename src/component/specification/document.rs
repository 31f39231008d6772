//! Sections 1, 2, 7, 8 and 11: documents, phases and steps.

use super::{Expected, Noted, Refused, Row, Strict, Valid, command, on_windows, step, whole};

const STEP: &str =
    "phases: [{ name: build, steps: [{ name: Run, action: ExecuteBash, inputs: { commands: [date] } }] }]\n";

/// A document that says more than it needs to.
fn more(section: &'static str, text: &str, expected: Expected) -> Row {
    whole(section, &format!("schemaVersion: 1.0\n{text}\n{STEP}"), expected)
}

/// A document with these phases.
fn phases(section: &'static str, text: &str, expected: Expected) -> Row {
    whole(section, &format!("schemaVersion: 1.0\nphases: {text}\n"), expected)
}

/// A document with these steps.
fn steps(section: &'static str, text: &str, expected: Expected) -> Row {
    phases(section, &format!("[{{ name: build, steps: [{text}] }}]"), expected)
}

pub(super) fn rows() -> Vec<Row> {
    [top_level(), names(), phases_and_steps(), limits(), habits()].into_iter().flatten().collect()
}

fn top_level() -> Vec<Row> {
    let json =
        r#"{"schemaVersion": "1.0", "phases": [{"name": "build", "steps": [{"name": "Run", "action": "Reboot"}]}]}"#;
    vec![
        whole("1", &format!("name: Hello, World!\ndescription: >\n  free text\nschemaVersion: 1.0\n{STEP}"), Valid),
        whole("1", json, Valid),
        whole("1", STEP, Refused("needs the field `schemaVersion`")),
        whole("1", &format!("schemaVersion: '1'\n{STEP}"), Valid),
        whole("1", &format!("schemaVersion: 1\n{STEP}"), Valid),
        whole("1", &format!("schemaVersion: 1.00\n{STEP}"), Refused("the schema version is 1.0, and this is `1.00`")),
        whole("1", &format!("schemaVersion: 2.0\n{STEP}"), Refused("the schema version is 1.0")),
        whole("1", "schemaVersion: 1.0\n", Refused("needs the field `phases`")),
        more("1", "desciption: x", Refused("has no field `desciption` (did you mean `description`?)")),
        more("1", "Name: x", Refused("has no field `Name`")),
        more("1", "name: x\nname: y", Refused("the key `name` is given twice")),
        more("1", "parameters: &p [{ One: { type: string, default: a } }]\nconstants: []", Valid),
        more("1.1", "parameters: [{ One: { type: string, default: 8080, description: x } }]", Valid),
        more("1.1", "parameters: [{ One: { type: String } }]", Valid),
        more("1.1", "parameters: [{ One: { type: string, default: a, allowedValues: [a, b] } }]", Valid),
        more(
            "1.1",
            "parameters: [{ One: { type: string, default: c, allowedValues: [a] } }]",
            Refused("not among the allowed"),
        ),
        more("1.1", "parameters: [{ One: { type: integer } }]", Refused("the only type is `string`")),
        more("1.1", "parameters: [{ One: { default: a } }]", Refused("needs the field `type`")),
        more("1.1", "parameters: [{ One: { type: string, required: true } }]", Refused("has no field `required`")),
        more("1.1", "parameters: [{ On: { type: string } }]", Refused("`On` is no name")),
        more("1.1", "parameters: [{ O n e: { type: string } }]", Refused("`O n e` is no name")),
        more("1.1", "parameters: { One: { type: string } }", Refused("`parameters` has to be a list")),
        more(
            "1.1",
            "parameters: [{ One: { type: string } }, { One: { type: string } }]",
            Refused("another parameter or constant"),
        ),
        more("1.1", "parameters: [{ name: One, type: string }]", Refused("write `- Name: { type: string }`")),
        more("1.2", "constants: [{ One: { type: string, value: 1 } }]", Valid),
        more("1.2", "constants: [{ One: { type: string } }]", Refused("needs the field `value`")),
        more("1.2", "constants: [{ One: { value: x } }]", Refused("needs the field `type`")),
        more(
            "1.2",
            "parameters: [{ One: { type: string } }]\nconstants: [{ One: { type: string, value: x } }]",
            Refused("another parameter or constant named `One`"),
        ),
        more("2.4", "disableLogging: true", Valid),
        more("2.4", "disableLogging: perhaps", Refused("has to be true or false")),
    ]
}

fn names() -> Vec<Row> {
    let run = |name: &str| format!("{{ name: {name}, action: ExecuteBash, inputs: {{ commands: [date] }} }}");
    let long = "x".repeat(129);
    vec![
        steps("2.2", &run("Install-it_2"), Valid),
        steps(
            "2.2",
            &run("Letters only"),
            Refused(
                "Invalid step name 'Letters only' in phase 'build'. Allowed characters are combinations of numbers [0-9], english letters [a-z,A-Z] and special characters [-_].",
            ),
        ),
        steps("2.2", &run("ab"), Refused("Invalid step name 'ab' in phase 'build'. A name has 3 to 128 characters.")),
        steps("7", &run(&long), Refused("Invalid step name")),
        steps("2.2", &format!("{}, {}", run("Same"), run("Same")), Refused("another step of this phase named `Same`")),
        phases(
            "2.1",
            &format!("[{{ name: build, steps: [{0}] }}, {{ name: test, steps: [{0}] }}]", run("Same")),
            Valid,
        ),
        phases(
            "2.1",
            &format!("[{{ name: build, steps: [{0}] }}, {{ name: build, steps: [{0}] }}]", run("Same")),
            Refused("another phase named `build`"),
        ),
        phases(
            "2.1",
            &format!("[{{ name: 'my phase', steps: [{}] }}]", run("One")),
            Refused("Invalid phase name 'my phase'"),
        ),
        phases(
            "2.1",
            &format!("[{{ name: verify, steps: [{}] }}]", run("One")),
            Strict("no phase is named build, validate or test"),
        ),
        phases(
            "2.1",
            &format!("[{{ name: build, steps: [{0}] }}, {{ name: cleanup, steps: [{0}] }}]", run("One")),
            Valid,
        ),
        phases("2.1", "[{ name: build, steps: [] }]", Refused("has no steps")),
        phases("2.1", "[{ steps: [] }]", Refused("a phase needs the field `name`")),
        phases("8", "[]", Refused("Document has 0 phases. Phases list must not be empty.")),
    ]
}

fn phases_and_steps() -> Vec<Row> {
    let bash = "action: ExecuteBash, inputs: { commands: [date] }";
    let with = |section, more: &str, expected| step(section, &format!("{bash}, {more}"), expected);
    vec![
        with("2.2", "timeoutSeconds: -1, maxAttempts: 3, onFailure: Continue, disableLogging: true", Valid),
        with("2.2", "timeoutSeconds: 0", Refused("`timeoutSeconds` is a positive number, or -1 for no limit, not 0")),
        with("2.2", "timeoutSeconds: -2", Refused("not -2")),
        with("2.2", "timeoutSeconds: 1.5", Refused("has to be a whole number")),
        with("2.2", "maxAttempts: 0", Refused("`maxAttempts` counts all attempts")),
        with("2.3", "onFailure: 'Ignore'", Valid),
        with("2.3", "onFailure: abort", Refused("`onFailure` is Abort, Continue or Ignore, not `abort`")),
        with("2.2", "retries: 3", Refused("a step has no field `retries`")),
        with("2.2", "onFailur: Abort", Refused("did you mean `onFailure`?")),
        step("2.2", "action: executebash, inputs: { commands: [date] }", Refused("did you mean `ExecuteBash`?")),
        step("2.2", "inputs: { commands: [date] }", Refused("a step needs the field `action`")),
        whole(
            "2.2",
            &format!("{}      - {{ action: ExecuteBash }}\n", super::HEAD),
            Refused("a step needs the field `name`"),
        ),
        // Where references have no place (4.2).
        with("4.2", "timeoutSeconds: '{{ Port }}'", Refused("has to be a whole number")),
        with("4.2", "maxAttempts: '{{ Port }}'", Refused("has to be a whole number")),
        with("4.2", "onFailure: '{{ Port }}'", Refused("`onFailure` is Abort")),
        step(
            "8",
            "action: ExecuteBash",
            Refused(
                "Parsing step 'Step' in phase 'build' failed. Error: Action ExecuteBash has no inputs; it requires an 'inputs'",
            ),
        ),
        step(
            "8",
            "action: S3Download, inputs: []",
            Refused("Action S3Download has no inputs; it requires an 'inputs'"),
        ),
        step(
            "8",
            "action: ExecuteBash, inputs: [{ commands: [date] }]",
            Refused("`ExecuteBash` has to be a map, and this is a list"),
        ),
        step("8", "action: ExecuteBash, inputs: { commands: { a: b } }", Refused("`commands` has to be a list")),
        step("8", "action: InstallSoftware, inputs: {}", Refused("there is no action `InstallSoftware`")),
        on_windows(
            "3",
            "action: ExecutePowerShell, inputs: { commands: [Get-Date] }",
            Refused("the action `ExecuteBash` does not run on Windows"),
        ),
    ]
}

fn limits() -> Vec<Row> {
    let many = (0..26).map(|i| format!("{{ Name{i}: {{ type: string }} }}")).collect::<Vec<_>>().join(", ");
    let long = "x".repeat(1025);
    let anchors: String =
        (1..9).map(|i| format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 9].join(", "))).collect();
    vec![
        more("7", &format!("description: {}", "x".repeat(64 << 10)), Strict("and the service takes 65536")),
        more("7", &format!("parameters: [{many}]"), Strict("26 parameters, and the service takes 25")),
        more(
            "7",
            &format!("parameters: [{{ One: {{ type: string, description: {long} }} }}]"),
            Strict("at most 1024 characters"),
        ),
        whole(
            "7",
            &format!("a0: &a0 [x, x, x, x, x, x, x, x, x]\n{anchors}"),
            Refused("with its aliases the document has more than"),
        ),
        whole("7", &"[".repeat(5000), Refused("error")),
    ]
}

/// What documents that ran for years say, and what is made of it.
fn habits() -> Vec<Row> {
    vec![
        step("11", "action: UpdateOS", Valid),
        step("11", "action: Reboot", Valid),
        more("11", "version: 1.0.0", Strict("has no field `version`")),
        step(
            "11",
            "action: DeleteFile, inputs: [{ path: /x, force: true }]",
            Strict("`DeleteFile` has no field `force`"),
        ),
        step(
            "11",
            "action: S3Download, inputs: [{ source: 's3://b/k', destination: /x, recurse: true }]",
            Strict("`S3Download` has no field `recurse`"),
        ),
        command(
            "11",
            "echo {{ aws_s3_bucket_name }}",
            Strict("`aws_s3_bucket_name` is neither a parameter nor a constant; the text is left as it is"),
        ),
        command("11", "{{ ansible_facts | combine(x) }} {{.Names}} {{#each}} {{{ x }}}", Noted("")),
        step(
            "11",
            "action: ExecuteBash, inputs: { commands: date }",
            Strict("`commands` has to be a list (put `- ` before it)"),
        ),
        step(
            "11",
            "action: CreateFile, inputs: { path: /x, permissions: 0777 }",
            Strict("the inputs of `CreateFile` are a list"),
        ),
    ]
}
