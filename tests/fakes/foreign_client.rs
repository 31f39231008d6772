//! The stand-in as a foreign client sees it: boto3, which nobody here has written.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::cloud::{Cloud, Fault, ImageState, Keys, Mapping, Permission, SnapshotState, TaskState};
use crate::framework::foreign::run;

const ONE: &str = "111111111111";
const TWO: &str = "222222222222";
const HOME: &str = "eu-central-1";
const AWAY: &str = "us-west-2";
const ROLE: &str = "arn:aws:iam::222222222222:role/Publish";

/// A stand-in with two accounts, and a Python that has boto3.
struct Setting {
    cloud: Cloud,
    accounts: [Keys; 2],
    python: PathBuf,
    folder: tempfile::TempDir,
}

impl Setting {
    /// Nothing, with a line that says so, where no Python is named.
    fn new() -> Option<Self> {
        let Some(python) = std::env::var_os("GOLDSMITH_TEST_PYTHON").map(PathBuf::from) else {
            eprintln!("skipped: GOLDSMITH_TEST_PYTHON names no Python with boto3");
            return None;
        };
        let has_boto3 = Command::new(&python).args(["-c", "import boto3"]).output();
        if !has_boto3.is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: {} of GOLDSMITH_TEST_PYTHON is no Python with boto3", python.display());
            return None;
        }
        let cloud = Cloud::start();
        let accounts = [cloud.account(ONE), cloud.account(TWO)];
        Some(Self { cloud, accounts, python, folder: tempfile::tempdir().unwrap() })
    }

    /// Runs a scenario of the script, and returns what it prints, a line each.
    fn plays(&self, scenario: &str) -> Vec<Value> {
        self.plays_with(scenario, &Value::Null)
    }

    /// The same with something that an earlier one has printed.
    fn plays_with(&self, scenario: &str, told: &Value) -> Vec<Value> {
        let keys = |(account, keys): (&str, &Keys)| json!({ "account": account, "id": keys.id, "secret": keys.secret });
        let set = json!({
            "accounts": [keys((ONE, &self.accounts[0])), keys((TWO, &self.accounts[1]))],
            "endpoint": self.cloud.endpoint(), "s3": self.cloud.s3_endpoint(),
            "folder": self.folder.path(), "role": ROLE,
            "told": told,
        });
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fakes/boto3_client");
        let mut python = Command::new(&self.python);
        python.arg(script).arg(scenario).env("GOLDSMITH_STAND_IN", set.to_string());
        // Neither a proxy nor somebody's own settings play a part.
        python
            .env("NO_PROXY", "127.0.0.1")
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_EC2_METADATA_DISABLED", "true");
        let output = python.output().unwrap();
        let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let last = self.cloud.calls();
        assert!(output.status.success(), "{scenario}:\n{error}\n{:#?}", last.last());
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// The digest that goldsmith gives a disk of so many GiB with these blocks.
fn digest(gib: u64, blocks: &[(u64, u8)]) -> String {
    use sha2::{Digest, Sha256};
    let mut hasher = Sha256::new();
    hasher.update((gib << 30).to_le_bytes());
    for (index, byte) in blocks {
        for grain in 0..8 {
            hasher.update((index * (512 << 10) + grain * (64 << 10)).to_le_bytes());
            hasher.update([*byte; 64 << 10]);
        }
    }
    hex::encode(hasher.finalize())
}

#[test]
fn blocks_become_snapshots_over_their_parents() {
    let Some(setting) = Setting::new() else { return };
    let told = setting.plays("blocks");
    let find = |name: &str| setting.cloud.snapshot(ONE, HOME, text(&told[0][name])).unwrap();
    let (parent, child) = (find("parent"), find("child"));
    assert_eq!((parent.gib, parent.state, parent.blocks_written()), (2, SnapshotState::Completed, 2));
    assert_eq!(parent.sha256(), digest(2, &[(0, b'1'), (4095, b'2')]));
    assert_eq!(child.parent.as_deref(), Some(&*parent.id));
    assert_eq!(child.sha256(), digest(3, &[(0, b'1'), (1, b'2'), (4095, b'1')]));
    let raw = setting.folder.path().join("raw");
    child.write_raw(&raw);
    assert_eq!(fs_err::metadata(&raw).unwrap().len(), 3 << 30);
}

#[test]
fn images_are_registered_found_shared_copied_and_removed() {
    let Some(setting) = Setting::new() else { return };
    let cloud = &setting.cloud;
    cloud.join(TWO, "arn:aws:organizations::111111111111:organization/o-abc1234567");
    let told = setting.plays("images");
    assert_eq!(cloud.images(ONE, HOME), []);
    let copies = cloud.images(ONE, AWAY);
    assert_eq!((copies.len(), &*copies[0].id), (1, text(&told[0]["copy"])));
    assert_eq!(copies[0].state, ImageState::Available);
    let mapping = Mapping {
        device: "/dev/xvda".to_owned(),
        snapshot: Some(text(&told[0]["snapshot"]).to_owned()),
        gib: Some(8),
        volume_type: Some("gp3".to_owned()),
        iops: Some(4000),
        throughput: Some(200),
        delete_on_termination: true,
        encrypted: Some(true),
        ..Mapping::default()
    };
    assert_eq!(copies[0].mappings, [mapping]);
    let permissions = [Permission::Account(TWO.to_owned()), Permission::Everybody];
    assert_eq!(copies[0].permissions, permissions.into());
    // The source and its snapshot are gone, the copy has the bytes.
    let snapshot = cloud.snapshot(ONE, AWAY, text(&told[0]["snapshot"])).unwrap();
    assert_eq!(snapshot.sha256(), digest(1, &[(7, b'7')]));
    assert_eq!(cloud.images(TWO, HOME).len(), 1);
}

#[test]
fn disks_in_s3_become_snapshots() {
    let Some(setting) = Setting::new() else { return };
    let at = |name: &str| setting.folder.path().join(name);
    let mut bytes = vec![0; 3 << 20];
    bytes[..4096].fill(5);
    bytes[(2 << 20)..(2 << 20) + 70_000].fill(6);
    fs_err::write(at("disk.raw"), &bytes).unwrap();
    fs_err::write(at("odd.raw"), &bytes[..5000]).unwrap();
    for (name, format, options) in [
        ("disk.vmdk", "vmdk", "subformat=streamOptimized"),
        ("flat.vmdk", "vmdk", "subformat=monolithicSparse"),
        ("disk.vhd", "vpc", "subformat=dynamic,force_size=on"),
    ] {
        let mut convert = Command::new("qemu-img");
        convert.args(["convert", "-f", "raw", "-O", format, "-o", options]).arg(at("disk.raw"));
        run(convert.arg(at(name)));
    }
    setting.cloud.allow_import(ONE, "vmimport");
    let told = setting.plays("imports");
    let find = |name: &str| setting.cloud.snapshot(ONE, HOME, text(&told[0][name])).unwrap();
    // Three formats, one disk.
    let digests = ["disk.raw", "disk.vmdk", "disk.vhd"].map(|name| find(name).sha256());
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    let raw = find("disk.raw");
    assert_eq!(raw.gib, 1);
    assert_ne!(raw.sha256_of(3 << 20), raw.sha256(), "the size is part of the digest");
    let tasks = setting.cloud.import_tasks(ONE, HOME);
    let deleted = tasks.iter().filter(|task| matches!(task.state, TaskState::Deleted(_))).count();
    assert_eq!((tasks.len(), deleted), (6, 3));
    assert_eq!(setting.cloud.objects().len(), 6);
    assert_eq!(setting.cloud.object("disks", "disk.raw"), bytes);
}

#[test]
fn templates_parameters_and_topics() {
    let Some(setting) = Setting::new() else { return };
    let cloud = &setting.cloud;
    let topic = cloud.topic(ONE, HOME, "images");
    setting.plays("templates");
    let template = cloud.launch_template(ONE, HOME, "web").unwrap();
    assert_eq!((template.default, template.latest, template.versions.len()), (2, 2, 1));
    let images = cloud.images(ONE, HOME);
    let version = &template.versions[&2];
    assert_eq!(version.image(), Some(&*images[1].id));
    assert_eq!(version.get("MetadataOptions.HttpTokens"), Some("required"));
    let parameter = cloud.parameter(ONE, HOME, "/golden/web").unwrap();
    assert_eq!((&*parameter.value, parameter.version), (&*images[1].id, 2));
    let messages = cloud.messages(&topic);
    assert_eq!(messages.len(), 1);
    assert_eq!((messages[0].subject.as_deref(), &*messages[0].text), (Some("new"), "made: ä & <b>"));
    assert_eq!(messages[0].attributes["kind"], "image");
}

#[test]
fn keys_and_accounts() {
    let Some(setting) = Setting::new() else { return };
    setting.cloud.allow_role(ROLE, ONE);
    let told = setting.plays("keys");
    let calls = setting.cloud.calls();
    assert!(calls.iter().any(|call| call.account.is_empty() && call.outcome == "AuthFailure"));
    assert!(calls.iter().any(|call| call.service == "s3" && call.outcome == "SignatureDoesNotMatch"));
    // A role may have a policy too, and a session comes to its end.
    let policy = r#"{"Version": "2012-10-17",
                     "Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}}"#;
    setting.cloud.enforce_role(ROLE, policy);
    setting.plays_with("role", &told[0]);
    setting.cloud.expire_sessions();
    setting.plays_with("expired", &told[0]);
}

#[test]
fn parameters_are_those_of_the_model() {
    let Some(setting) = Setting::new() else { return };
    setting.plays_with("parameters_of_ec2", &Cloud::parameters_of_ec2());
}

#[test]
fn objects_are_kept() {
    let Some(setting) = Setting::new() else { return };
    setting.plays("objects");
    let objects = setting.cloud.objects();
    let keys: Vec<&str> = objects.iter().map(|object| &*object.key).collect();
    assert_eq!(keys, ["copy", "parts"]);
    assert_eq!(setting.cloud.unfinished_uploads(), 1);
}

#[test]
fn policies_are_enforced() {
    let Some(setting) = Setting::new() else { return };
    let cloud = &setting.cloud;
    cloud.bucket(ONE, HOME, "allowed");
    cloud.allow_import(ONE, "vmimport");
    cloud.allow_role(ROLE, ONE);
    cloud.enforce(
        ONE,
        r#"{"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": ["ebs:StartSnapshot", "ebs:PutSnapshotBlock", "ebs:CompleteSnapshot"],
             "Resource": "arn:aws:ec2:eu-central-1::snapshot/*"},
            {"Effect": "Allow", "Action": "ec2:CreateTags",
             "Resource": ["arn:aws:ec2:*::snapshot/*", "arn:aws:ec2:*::image/*"],
             "Condition": {"StringEquals": {"ec2:CreateAction": ["StartSnapshot", "RegisterImage"],
                                            "aws:RequestTag/team": "gold"}}},
            {"Effect": "Allow", "Action": "ec2:RegisterImage", "Resource": "arn:aws:ec2:*::image/*",
             "Condition": {"StringLike": {"aws:RequestTag/team": "*"}}},
            {"Effect": "Allow", "Action": "ec2:RegisterImage", "Resource": "arn:aws:ec2:*::snapshot/*",
             "Condition": {"StringEquals": {"ec2:ResourceTag/team": "gold"}}},
            {"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"},
            {"Effect": "Deny", "Action": "ec2:DescribeLaunch*", "Resource": "*"},
            {"Effect": "Allow", "Action": "ec2:ImportSnapshot", "Resource": "*"},
            {"Effect": "Allow", "Action": "ssm:PutParameter",
             "Resource": "arn:aws:ssm:*:111111111111:parameter/golden/*"},
            {"Effect": "Allow", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::allowed/in/*"}
        ]}"#,
    );
    setting.plays("policy");
    assert_eq!(cloud.images(ONE, HOME).len(), 1);
}

#[test]
fn faults_are_met_as_planned() {
    let Some(setting) = Setting::new() else { return };
    let cloud = &setting.cloud;
    cloud.bucket(ONE, HOME, "bucket");
    cloud.allow_import(ONE, "vmimport");
    cloud.fail("DescribeImages", None, 1, Fault::Throttled);
    cloud.fail("DescribeImages", Some(HOME), 1, Fault::Unavailable);
    cloud.fail("DescribeImages", Some(HOME), 1, Fault::Refused("InternalError"));
    for action in ["StartSnapshot", "GetParameter", "CreateTopic"] {
        cloud.fail(action, None, 1, Fault::Throttled);
    }
    cloud.fail("CopyImage", Some(AWAY), 1, Fault::LostAnswer);
    cloud.fail("CopyImage", Some("eu-west-3"), 1, Fault::Task("the copy broke"));
    cloud.fail("PutParameter", None, 1, Fault::Stall(Duration::from_millis(600)));
    cloud.fail("PutObject", None, 1, Fault::LostAnswer);
    cloud.fail("PutObject", None, 1, Fault::Unavailable);
    cloud.fail("UploadPart", None, 2, Fault::Throttled);
    cloud.fail("CompleteMultipartUpload", None, 1, Fault::LostAnswer);
    cloud.fail("GetObject", None, 1, Fault::Throttled);
    cloud.fail("GetObject", None, 1, Fault::Refused("KMS.DisabledException"));
    cloud.fail("ImportSnapshot", None, 1, Fault::Task("ServerError: the import broke"));
    setting.plays("faults");
    cloud.wait_for("PutObject", 3);
    let puts: Vec<String> =
        cloud.calls().into_iter().filter(|call| call.action == "PutObject").map(|call| call.outcome).collect();
    assert_eq!(puts, ["ok", "InternalError", "ok"]);
}
