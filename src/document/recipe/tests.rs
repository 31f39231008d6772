use super::*;

fn problems(text: &str) -> String {
    match decode(&Source::new("r.yaml", text)) {
        Ok((_, warnings)) => format!("valid\n{warnings}"),
        Err(report) => report.to_string(),
    }
}

#[test]
fn the_short_form() {
    let text = "
name: nginx
version: 1.0.x
parentImage: debian-12-minimal
disk: 4GiB
machine: { cpus: 2, memory: 1GiB, firmware: uefi }
files:
  - { source: files/site, destination: /srv/, owner: 'www-data:www-data', mode: 0644 }
components:
  - update-linux/x.x.x
  - component: ./install-nginx.yaml
    parameters: { port: 8080 }
test: { allowFailedUnits: [x.service] }
network: { proxy: host, mirrors: { 'http://a/debian': 'http://b/debian' } }
";
    let (recipe, warnings) = decode(&Source::new("r.yaml", text)).unwrap();
    assert_eq!(warnings.to_string(), "");
    assert_eq!(recipe.components[1].parameters[0].1.value, "8080");
    assert_eq!(recipe.files[0].mode, Some(0o644));
    assert_eq!(recipe.machine.firmware, Some(FirmwareKind::Uefi));
    assert_eq!(recipe.working_directory, "/tmp");
}

#[test]
fn the_input_of_the_aws_command_line() {
    let text = r#"{
  "name": "nginx", "semanticVersion": "1.0.0", "description": "x",
  "parentImage": "arn:aws:imagebuilder:us-east-1:aws:image/ubuntu-server-24-lts-x86/x.x.x",
  "components": [
    { "componentArn": "arn:aws:imagebuilder:us-east-1:aws:component/update-linux/x.x.x",
      "parameters": [{ "name": "port", "value": ["80"] }] }
  ],
  "blockDeviceMappings": [{ "deviceName": "/dev/xvda", "ebs": { "volumeSize": 8, "volumeType": "gp3" } }],
  "additionalInstanceConfiguration": { "systemsManagerAgent": { "uninstallAfterBuild": true } },
  "workingDirectory": "/var/tmp/", "tags": { "team": "web" }, "clientToken": "abc"
}"#;
    let (recipe, warnings) = decode(&Source::new("r.json", text)).unwrap();
    insta::assert_snapshot!(warnings, @"r.json:8:96: warning: `volumeType` describes AWS's hardware and has no effect here");
    assert_eq!(recipe.disk.unwrap().value, Size(8 << 30));
    assert_eq!(recipe.components[0].parameters[0].1.value, "80");
    assert_eq!(recipe.working_directory, "/var/tmp");
}

#[test]
fn all_errors_at_once_each_with_its_place() {
    let text = "
name: a/b
semanticVersion: 1.x.0
parent: debian
disk: 4
machine: { cpus: 0, memory: 1MiB, firmware: efi, cores: 2 }
files: [{ source: ../../etc/shadow, destination: etc, mode: 9 }, { source: /etc/shadow, destination: /x }]
components: [{ name: x }, { component: y, parameters: [{ name: p, value: [a, b] }] }]
network: { mode: closed, downloads: never }
references: { 'env:HOME': /root, 'aws:ssm:': x }
cache: { maxAge: 7 }
";
    insta::assert_snapshot!(problems(text), @"
        r.yaml:2:1: error: a recipe needs the field `parentImage`
        r.yaml:2:7: error: `a/b` is no image name: 3 to 128 letters, digits, hyphens, underscores or inner spaces
        r.yaml:3:18: error: `1.x.0` is no version: what follows an x has to be an x
        r.yaml:4:1: error: a recipe has no field `parent` (did you mean `parentImage`?)
        r.yaml:5:7: error: `4` is no size: a whole number with a unit such as 512MiB or 4GiB is needed
        r.yaml:6:18: error: `cpus` is a number from 1 to 256
        r.yaml:6:29: error: `memory` is at least 64MiB and a whole number of MiB
        r.yaml:6:45: error: `firmware` is bios or uefi, not `efi`
        r.yaml:6:50: error: `machine` has no field `cores`
        r.yaml:7:19: error: `source` leaves the recipe's folder; files come from beside the recipe or below
        r.yaml:7:50: error: `destination` is an absolute path in the guest
        r.yaml:7:61: error: `9` is no mode: octal digits such as 0644
        r.yaml:7:76: error: `source` is absolute; files come from beside the recipe or below
        r.yaml:8:14: error: a component of a recipe needs the field `component`
        r.yaml:8:16: error: a component of a recipe has no field `name`
        r.yaml:8:74: error: `value` is a list with one text
        r.yaml:9:18: error: `mode` is isolated or open, not `closed`
        r.yaml:9:37: error: `downloads` is guest or host, not `never`
        r.yaml:10:15: error: `env:HOME` needs no value; what does is aws:ssm:NAME, aws:imds:PATH, context:accountId or context:region
        r.yaml:10:34: error: `aws:ssm:` needs no value; what does is aws:ssm:NAME, aws:imds:PATH, context:accountId or context:region
        r.yaml:11:18: error: `7` is no age; 7d, 36h and 90m are
        ");
}
