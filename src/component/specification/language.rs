//! Sections 2.5, 2.6, 4 and 5: conditions, loops, references, operators.

use super::{Expected, Noted, Refused, Row, Strict, Valid, command, step, whole};

const BASH: &str = "action: ExecuteBash, inputs: { commands: [date] }";

pub(super) fn rows() -> Vec<Row> {
    [conditions(), loops(), references(), chains(), operators()].into_iter().flatten().collect()
}

fn condition(text: &str, expected: Expected) -> Row {
    step("2.5", &format!("{BASH}, if: {text}"), expected)
}

fn conditions() -> Vec<Row> {
    vec![
        condition("{ fileExists: /x }", Valid),
        condition("{ value: a, stringEquals: b, then: Skip, else: Abort }", Valid),
        condition("{ not: { binaryExists: tar, then: Execute, else: Skip } }", Valid),
        condition("[{ fileExists: /x }]", Valid),
        condition("{ stringEquals: '{{ Port }}', value: '{{ build.Run.outputs.stdout }}' }", Valid),
        condition("{ stringEquals: '{{ loop.value }}', value: x }", Noted("no loop `loop` is around this")),
        condition("{ fileExists: /x, then: Run }", Refused("`then` is Execute, Skip or Abort")),
        condition("{ not: { fileExists: /x, then: Skip }, then: Skip }", Refused("`then` is given twice")),
        condition("{ fileExist: /x }", Refused("there is no operator `fileExist` (did you mean `fileExists`?)")),
        condition("{ fileExists: /x, folderExists: /y }", Refused("a condition has one operator")),
        condition("{}", Refused("a condition needs an operator")),
        condition("true", Refused("`if` has to be a map")),
        condition("{ stringEquals: a }", Refused("needs the field `value`")),
        condition("{ and: [{ or: [{ not: { fileExists: /x } }, { fileExists: /y }] }, { fileExists: /z }] }", Valid),
        step(
            "7",
            &format!("{BASH}, if: {{ not: {{ not: {{ not: {{ not: {{ fileExists: /x }} }} }} }} }}"),
            Refused("nested more than 4 levels deep"),
        ),
    ]
}

fn looped(text: &str, expected: Expected) -> Row {
    step(
        "2.6",
        &format!(
            "action: ExecuteBash, inputs: {{ commands: ['{{{{ loop.value }}}} {{{{ Own.index }}}}'] }}, loop: {text}"
        ),
        expected,
    )
}

fn loops() -> Vec<Row> {
    let named = "{ name: Own, for: { start: 1, end: 2, updateBy: 1 } }";
    let twice =
        format!("      - {{ name: One, {BASH}, loop: {named} }}\n      - {{ name: Two, {BASH}, loop: {named} }}\n");
    vec![
        looped("{ name: Own, for: { start: 0, end: 10, updateBy: 2 } }", Valid),
        looped("{ name: Own, for: { start: 3, end: -3, updateBy: -1 } }", Valid),
        looped("{ name: Own, forEach: [a, '{{ build.Run.outputs.stdout }}', '{{ Port }}'] }", Valid),
        looped("{ name: Own, forEach: { list: '{{ Port }}', delimiter: '\\n' } }", Valid),
        looped("{ name: Own, forEach: { list: 'a,b' } }", Valid),
        looped("{ forEach: [a] }", Noted("no loop `Own` is around this; the text is left as it is")),
        looped("{ name: Own }", Refused("a loop needs `for` or `forEach`")),
        looped(
            "{ for: { start: 0, end: 1, updateBy: 1 }, forEach: [a] }",
            Refused("either `for` or `forEach`, not both"),
        ),
        looped("{ for: { start: 0, end: 1, updateBy: 0 } }", Refused("`updateBy` is 0")),
        looped("{ for: { start: 0, end: 1, updateBy: -1 } }", Refused("the loop would never reach 1")),
        looped("{ for: { start: '{{ Port }}', end: 1, updateBy: 1 } }", Refused("`start` has to be a whole number")),
        looped("{ for: { start: 0, end: 1 } }", Refused("`for` needs the field `updateBy`")),
        looped("{ forEach: [] }", Refused("`forEach` is empty")),
        looped("{ forEach: { list: a, delimiter: '|' } }", Refused("`delimiter` is one of")),
        looped("{ forEach: { list: a, delimiter: '{{ Port }}' } }", Refused("`delimiter` is one of")),
        looped("{ while: true }", Refused("`loop` has no field `while`")),
        whole("2.6", &format!("{}{twice}", super::HEAD), Refused("another loop of this phase named `Own`")),
        step(
            "7",
            &format!("{BASH}, loop: {{ for: {{ start: 1, end: 1000000, updateBy: 1 }} }}"),
            Refused("1000000 iterations, and may have 10000"),
        ),
    ]
}

fn references() -> Vec<Row> {
    vec![
        command("4.1", "{{ Port }} {{Fixed}} a{{ Port }}b{{ Port }}", Valid),
        command(
            "4.1",
            "{{ port }}",
            Strict("`port` is neither a parameter nor a constant; the text is left as it is (did you mean `Port`?)"),
        ),
        command("4.1", "{{ env:HOME }} {{ env:ProgramFiles(x86) }}", Valid),
        command("4.1", "{{ aws:imds:instance-id }}", Valid),
        command(
            "4.1",
            "{{ aws:imds:iam/security-credentials/x }}",
            Refused("holds credentials and can't be referred to"),
        ),
        command("4.1", "{{ aws:imds:identity-credentials/ec2 }}", Refused("holds credentials")),
        command("4.1", "{{ aws:ssm:/a/b }} {{ aws:ssm:/aws/reference/secretsmanager/x }}", Valid),
        command("4.1", "{{ aws:ssm:resolve(Path) }} {{ aws:ssm:resolve(aws:ssm:resolve(Path)) }}", Valid),
        command("4.1", "{{ aws:ssm:resolve(Nothing) }}", Refused("`Nothing` is neither a parameter nor a constant")),
        command("4.1", "{{ aws:s3:x }}", Refused("there is no reference `aws:s3:x`")),
        command("4.1", "{{ context:date }} {{ context:uuid }} {{ context:accountId }}", Valid),
        command(
            "4.1",
            "{{ context:dateTim }}",
            Refused("there is no reference `context:dateTim` (did you mean `dateTime`?)"),
        ),
        command(
            "4.1",
            "{{ loop.value }} {{ loop.index }}",
            Noted("no loop `loop` is around this; the text is left as it is"),
        ),
        command("4.2", "{{.Names}} {{ x | upper }} {{ a b }} {{}} {{ }}", Valid),
        step("4.2", "action: ExecuteBinary, inputs: { path: '{{ Path }}', arguments: ['{{ Port }}'] }", Valid),
        step("4.2", "action: Reboot, inputs: { delaySeconds: '{{ Port }}' }", Valid),
    ]
}

/// A document whose second phase is another one.
fn later(section: &'static str, phase: &str, command: &str, expected: Expected) -> Row {
    let phase = format!(
        "  - name: {phase}\n    steps: [{{ name: Use, action: ExecuteBash, inputs: {{ commands: ['{command}'] }} }}]\n"
    );
    whole(section, &format!("{}{phase}", super::HEAD), expected)
}

fn chains() -> Vec<Row> {
    vec![
        command("4.1", "{{ build.Run.outputs.stdout }} {{ build.Run.outputs[0].stdout }}", Valid),
        command(
            "4.1",
            "{{ build.Web.inputs[0].source }} {{ build.Web.inputs.destination }} {{ build.Web.outputs.destination }}",
            Valid,
        ),
        command(
            "4.1",
            "{{ build.Web.inputs[1].source }}",
            Refused("the step `Web` has no such input, or it is a list"),
        ),
        command("4.1", "{{ build.Run.inputs.commands }}", Refused("the step `Run` has no such input, or it is a list")),
        command("4.1", "{{ build.Run.outputs[1].stdout }}", Refused("one group of outputs")),
        command(
            "4.2",
            "{{ build.Run.outputs.stderr }}",
            Refused("`ExecuteBash` has no output `stderr`; it has: stdout"),
        ),
        command(
            "4.2",
            "{{ build.Nothing.outputs.stdout }}",
            Refused("there is no step `Nothing` in the phase `build` before this step"),
        ),
        command("4.2", "{{ build.Step.outputs.stdout }}", Refused("it comes later, or is wrong itself")),
        command("4.2", "{{ test.Run.outputs.stdout }}", Refused("there is no phase `test` before this step")),
        later("4.2", "validate", "{{ build.Run.outputs.stdout }}", Valid),
        later("2.1", "test", "{{ build.Run.outputs.stdout }}", Strict("`build` runs in another machine than this")),
    ]
}

fn operators() -> Vec<Row> {
    let mut rows = Vec::new();
    for (operator, _, other) in super::OPERATORS {
        let with = |more: &str| format!("action: Assert, inputs: {{ {operator}: '1'{more} }}");
        match other {
            Some(key) => {
                rows.push(step("5", &with(&format!(", {key}: '1'")), Valid));
                rows.push(step("5", &with(""), Refused("a condition needs the field")));
            }
            None => {
                rows.push(step("5", &with(""), Valid));
                rows.push(step("5", &with(", value: x"), Refused("a condition has no field `value`")));
            }
        }
    }
    rows.extend([
        step("5", "action: Assert, inputs: { stringlessThan: a, value: b }", Noted("is written `stringLessThan`")),
        step(
            "5",
            "action: Assert, inputs: { stringIsLess: a, value: b }",
            Refused("there is no operator `stringIsLess`"),
        ),
        step(
            "5",
            "action: Assert, inputs: { patternMatches: '[', value: b }",
            Refused("this is no regular expression"),
        ),
        step("5", "action: Assert, inputs: { patternMatches: '{{ Port }}+', value: b }", Valid),
        step(
            "5",
            "action: Assert, inputs: { and: [{ fileExists: /x }] }",
            Refused("`and` takes two conditions at least"),
        ),
        step("5", "action: Assert, inputs: { or: { fileExists: /x } }", Refused("`or` has to be a list")),
        step("5", "action: Assert, inputs: { not: [{ fileExists: /x }] }", Valid),
        step(
            "5",
            "action: Assert, inputs: { not: [{ fileExists: /x }, { fileExists: /y }] }",
            Refused("a condition has to be a map"),
        ),
        step("5", "action: Assert, inputs: { numberLessThan: 2.5, value: '{{ Port }}' }", Valid),
    ]);
    rows
}
