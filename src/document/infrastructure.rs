//! Infrastructure configurations: what images are built on. The names are those of `CreateInfrastructureConfiguration`, most of
//! which describe AWS's machines; beside them stand goldsmith's own.

use std::path::PathBuf;
use std::sync::Arc;

use super::decode::{Fields, Reader, Spanned};
use super::pipeline::{EventTarget, events};
use super::recipe::{MachineWishes, Reach, labels_with_spans};
use super::resource::{name, number, one_of, without_effect};
use super::size::Size;
use super::syntax::{Node, Source};

/// An infrastructure configuration.
#[derive(Debug, Clone)]
pub struct Infrastructure {
    /// Where it came from.
    pub source: Arc<Source>,
    /// Its name.
    pub name: Spanned<String>,
    /// What it is for.
    pub description: Option<String>,
    /// The machine, also where an instance type stands for it.
    pub machine: MachineWishes,
    /// What guests may reach.
    pub network: Option<Reach>,
    /// A proxy's address, or `host`.
    pub proxy: Option<String>,
    /// Hosts to reach without it.
    pub no_proxy: Option<String>,
    /// Package repositories' addresses and what to use instead.
    pub mirrors: Vec<(String, String)>,
    /// Whether the machine of a failed build stays.
    pub keeps_failed: bool,
    /// Where logs are put, in Image Builder's layout.
    pub logs: Option<Logs>,
    /// Who is told of what happens.
    pub events: Vec<EventTarget>,
}

/// Where logs are put: `NAME/VERSION/BUILD/…` below it. User guide, "Troubleshoot".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Logs {
    /// A folder, relative to the document.
    Folder(PathBuf),
    /// A bucket, and what names in it begin with.
    Bucket {
        /// The bucket.
        bucket: String,
        /// What names begin with; may be empty.
        prefix: String,
    },
}

const FIELDS: [&str; 24] = [
    "kind",
    "name",
    "description",
    "instanceProfileName",
    "instanceTypes",
    "machine",
    "securityGroupIds",
    "subnetId",
    "network",
    "hosts",
    "proxy",
    "noProxy",
    "mirrors",
    "keyPair",
    "terminateInstanceOnFailure",
    "logging",
    "logs",
    "snsTopicArn",
    "events",
    "resourceTags",
    "instanceMetadataOptions",
    "placement",
    "tags",
    "clientToken",
];

/// Reads one.
pub(super) fn decode(reader: &Reader, node: &Node) -> Option<Infrastructure> {
    let mut fields = reader.map(node, "an infrastructure configuration")?;
    let _kind = fields.get("kind");
    let name = fields.require("name").and_then(|node| name(reader, node));
    let description = fields.text("description").map(|text| text.value);
    let of_instance = fields.get("instanceTypes").and_then(|node| instance_types(reader, node)).unwrap_or_default();
    let machine = fields.get("machine").map(|node| machine(reader, node)).unwrap_or_default().or(&of_instance);
    let network = network(reader, &mut fields);
    let proxy = fields.text("proxy").map(|text| text.value);
    let no_proxy = fields.text("noProxy").map(|text| text.value);
    let mirrors = fields.get("mirrors").map(|node| labels_with_spans(reader, node, "mirrors")).unwrap_or_default();
    let terminate = fields.get("terminateInstanceOnFailure");
    let terminate = terminate.and_then(|node| reader.boolean(node, "terminateInstanceOnFailure")).unwrap_or(true);
    let logs = logs(reader, &mut fields);
    let mut told = fields.get("events").map(|node| events(reader, node)).unwrap_or_default();
    told.extend(fields.text("snsTopicArn").map(|topic| EventTarget::Topic(topic.value)));
    without_effect(
        reader,
        &mut fields,
        &[
            "instanceProfileName",
            "securityGroupIds",
            "subnetId",
            "keyPair",
            "resourceTags",
            "instanceMetadataOptions",
            "placement",
            "tags",
        ],
    );
    let _token = fields.get("clientToken");
    fields.finish(&FIELDS);
    Some(Infrastructure {
        source: reader.source.clone(),
        name: name?,
        description,
        machine,
        network,
        proxy,
        no_proxy,
        mirrors: mirrors.into_iter().map(|(from, to)| (from.value, to.value)).collect(),
        keeps_failed: !terminate,
        logs,
        events: told,
    })
}

fn network(reader: &Reader, fields: &mut Fields<'_>) -> Option<Reach> {
    let hosts = fields.get("hosts").and_then(|node| Some((node, reader.texts(node, "hosts")?)));
    let Some(node) = fields.get("network") else {
        if let Some((node, _)) = hosts {
            reader.error(&node.span, "`hosts` belongs to `network: restricted`");
        }
        return None;
    };
    let mode = one_of(reader, node, "network", &["full", "restricted", "none"])?;
    let network = match (mode, hosts) {
        (1, Some((_, hosts))) if !hosts.is_empty() => {
            Reach::Restricted(hosts.into_iter().map(|host| host.value).collect())
        }
        (1, _) => {
            reader.error(
                &node.span,
                "`network: restricted` needs the hosts that may be reached: `hosts: [packages.example.com]`",
            );
            return None;
        }
        (_, Some((hosts, _))) => {
            reader.error(&hosts.span, "`hosts` belongs to `network: restricted`");
            return None;
        }
        (0, None) => Reach::Full,
        (_, None) => Reach::None,
    };
    Some(network)
}

fn machine(reader: &Reader, node: &Node) -> MachineWishes {
    let Some(mut fields) = reader.map(node, "`machine`") else { return MachineWishes::default() };
    let cpus = fields.get("cpus").and_then(|node| number(reader, node, "cpus", 1..=256));
    let memory = fields.get("memory").and_then(|node| reader.parse::<Size>(node, "memory"));
    if let Some(memory) = &memory
        && (memory.value.0 < 64 << 20 || memory.value.0 % (1 << 20) != 0)
    {
        reader.error(&memory.span, "`memory` is at least 64MiB and a whole number of MiB");
    }
    fields.finish(&["cpus", "memory"]);
    let cpus = cpus.and_then(|cpus| u32::try_from(cpus).ok());
    MachineWishes { cpus, memory: memory.map(|memory| memory.value), ..MachineWishes::default() }
}

fn logs(reader: &Reader, fields: &mut Fields<'_>) -> Option<Logs> {
    let folder = fields.text("logs");
    let bucket = fields.get("logging").and_then(|node| {
        let mut fields = reader.map(node, "`logging`")?;
        let s3 = fields.require("s3Logs");
        fields.finish(&["s3Logs"]);
        let mut fields = reader.map(s3?, "`s3Logs`")?;
        let bucket = fields.require("s3BucketName").and_then(|node| reader.text(node, "s3BucketName"));
        let prefix = fields.text("s3KeyPrefix").map(|prefix| prefix.value).unwrap_or_default();
        fields.finish(&["s3BucketName", "s3KeyPrefix"]);
        Some(Spanned { value: (bucket?.value, prefix), span: node.span.clone() })
    });
    match (folder, bucket) {
        (Some(_), Some(bucket)) => {
            reader.error(&bucket.span, "logs go to one place: `logging` or `logs`");
            None
        }
        (Some(folder), None) => Some(Logs::Folder(folder.value.into())),
        (None, Some(Spanned { value: (bucket, prefix), .. })) => Some(Logs::Bucket { bucket, prefix }),
        (None, None) => None,
    }
}

fn instance_types(reader: &Reader, node: &Node) -> Option<MachineWishes> {
    let types = reader.texts(node, "instanceTypes")?;
    // The service takes the first that is to be had; here it always is.
    let first = types.first()?;
    match shape(&first.value) {
        Some((cpus, memory)) => {
            let machine = format!("`{}` is a machine with {cpus} processors and {memory} here", first.value);
            reader.warning(&first.span, machine);
            Some(MachineWishes { cpus: Some(cpus), memory: Some(memory), ..MachineWishes::default() })
        }
        None => {
            let what = "is no instance type whose size is known; say it by `machine: { cpus: 2, memory: 4GiB }`";
            reader.warning(&first.span, format!("`{}` {what}", first.value));
            None
        }
    }
}

/// Processors and memory of an instance type, by its family and size. EC2 user guide, "Instance types": the sizes of a family
/// double, from `large` with two processors; the families differ in the memory that comes with each.
pub fn shape(instance_type: &str) -> Option<(u32, Size)> {
    let (family, size) = instance_type.split_once('.')?;
    let letters: String = family.chars().take_while(char::is_ascii_alphabetic).collect();
    let is_burstable = letters == "t";
    let cpus: u32 = match size {
        "nano" | "micro" | "small" if is_burstable => 2,
        "medium" if is_burstable => 2,
        "medium" => 1,
        "large" => 2,
        "xlarge" => 4,
        other => other.strip_suffix("xlarge")?.parse::<u32>().ok()?.checked_mul(4).filter(|cpus| *cpus <= 256)?,
    };
    let mib = match (is_burstable, size) {
        (true, "nano") => 512,
        (true, "micro") => 1024,
        (true, "small") => 2048,
        (true, "medium") => 4096,
        _ => 1024 * u64::from(cpus) * gib_per_cpu(&letters)?,
    };
    Some((cpus, Size(mib << 20)))
}

fn gib_per_cpu(letters: &str) -> Option<u64> {
    match letters {
        "c" => Some(2),
        "t" | "m" | "a" | "g" => Some(4),
        "r" | "i" | "im" | "is" | "z" | "d" | "h" => Some(8),
        "x" => Some(16),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::resource::{self, Resource};
    use super::*;

    fn read(text: &str) -> Result<(Infrastructure, String), String> {
        let (all, report) = resource::decode(&Source::new("i.yaml", text)).map_err(|report| report.to_string())?;
        match all.into_iter().next() {
            Some(Resource::Infrastructure(one)) => Ok((*one, report.to_string())),
            other => Err(format!("{other:?}")),
        }
    }

    /// As EC2's documentation lists them.
    #[test]
    fn instance_types_have_their_sizes() {
        for (name, cpus, gib) in [
            ("t3.micro", 2, 1.0),
            ("t2.nano", 2, 0.5),
            ("t3a.xlarge", 4, 16.0),
            ("m5.large", 2, 8.0),
            ("m6g.medium", 1, 4.0),
            ("c6i.2xlarge", 8, 16.0),
            ("r5.24xlarge", 96, 768.0),
            ("x2gd.xlarge", 4, 64.0),
        ] {
            let (found, memory) = shape(name).unwrap();
            #[allow(clippy::cast_precision_loss)]
            let found_gib = memory.0 as f64 / f64::from(1 << 30);
            assert_eq!(found, cpus, "{name}");
            assert!((found_gib - gib).abs() < 1e-9, "{name}: {found_gib}");
        }
        for unknown in ["m5.metal", "u-6tb1.112xlarge", "mac1.metal", "large", "q9.large", "m5.0x"] {
            assert_eq!(shape(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn the_input_of_the_aws_command_line() {
        let text = r#"{ "name": "small", "instanceProfileName": "EC2InstanceProfileForImageBuilder", "instanceTypes": ["m5.large"],
  "securityGroupIds": ["sg-1"], "subnetId": "subnet-1", "keyPair": "k", "terminateInstanceOnFailure": false,
  "logging": { "s3Logs": { "s3BucketName": "logs", "s3KeyPrefix": "builds" } },
  "snsTopicArn": "arn:aws:sns:eu-west-1:111122223333:images" }"#;
        let (one, warnings) = read(text).unwrap();
        insta::assert_snapshot!(warnings, @"
        i.yaml:1:43: warning: `instanceProfileName` describes AWS's own machinery and has no effect here
        i.yaml:1:98: warning: `m5.large` is a machine with 2 processors and 8GiB here
        i.yaml:2:23: warning: `securityGroupIds` describes AWS's own machinery and has no effect here
        i.yaml:2:45: warning: `subnetId` describes AWS's own machinery and has no effect here
        i.yaml:2:68: warning: `keyPair` describes AWS's own machinery and has no effect here
        ");
        assert_eq!((one.machine.cpus, one.machine.memory, one.keeps_failed), (Some(2), Some(Size(8 << 30)), true));
        assert_eq!(one.logs, Some(Logs::Bucket { bucket: "logs".to_owned(), prefix: "builds".to_owned() }));
        assert_eq!(one.events, [EventTarget::Topic("arn:aws:sns:eu-west-1:111122223333:images".to_owned())]);
    }

    #[test]
    fn all_errors_at_once_each_with_its_place() {
        let text = "
kind: InfrastructureConfiguration
name: small
instanceTypes: [q9.huge]
machine: { cpus: 0, memory: 1MiB, disk: 3 }
network: restricted
logs: logs
logging: { s3Logs: { s3BucketName: x } }
---
kind: InfrastructureConfiguration
name: other
hosts: [a]
network: closed
";
        insta::assert_snapshot!(read(text).unwrap_err(), @"
        i.yaml:4:17: warning: `q9.huge` is no instance type whose size is known; say it by `machine: { cpus: 2, memory: 4GiB }`
        i.yaml:5:18: error: `cpus` is a number from 1 to 256, not 0
        i.yaml:5:29: error: `memory` is at least 64MiB and a whole number of MiB
        i.yaml:5:35: error: `machine` has no field `disk`
        i.yaml:6:10: error: `network: restricted` needs the hosts that may be reached: `hosts: [packages.example.com]`
        i.yaml:8:10: error: logs go to one place: `logging` or `logs`
        i.yaml:13:10: error: `network` has to be one of full, restricted, none, not `closed`
        ");
    }
}
