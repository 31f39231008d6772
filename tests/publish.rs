//! From the nginx recipe's image to AMIs, on a stand-in for AWS that is strict where AWS is, and S3 with real bytes.

mod taken_back;

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;

use crate::exports::{Nginx, nginx};
use crate::fakes::cloud::{Cloud, Fault, Image, Keys, Permission};
use crate::framework::{Finished, Goldsmith, Place, read, renamed};

/// The publisher, and an account that gets copies.
const OURS: &str = "111111111111";
const THEIRS: &str = "222222222222";
const COPYING: &str = "arn:aws:iam::222222222222:role/EC2ImageBuilderDistributionCrossAccountRole";

/// The stand-in, and who publishes to it.
struct Aws {
    cloud: Cloud,
    keys: Keys,
}

impl Aws {
    fn start() -> Self {
        let cloud = Cloud::start();
        let keys = cloud.account(OURS);
        cloud.allow_import(OURS, "vmimport");
        for (region, bucket) in [
            ("eu-central-1", "incoming-central"),
            ("eu-west-1", "incoming-west"),
            ("eu-north-1", "outgoing-north"),
            ("eu-south-1", "outgoing-south"),
            ("us-east-1", "objects"),
        ] {
            cloud.bucket(OURS, region, bucket);
        }
        Self { cloud, keys }
    }

    /// goldsmith, in whose environment are these keys and the addresses of the stand-in.
    fn goldsmith(&self, place: &Place, arguments: &[&str]) -> Goldsmith {
        self.with_keys(place.goldsmith(arguments))
    }

    fn with_keys(&self, goldsmith: Goldsmith) -> Goldsmith {
        goldsmith
            .env("AWS_ACCESS_KEY_ID", &self.keys.id)
            .env("AWS_SECRET_ACCESS_KEY", &self.keys.secret)
            .env("AWS_EC2_METADATA_DISABLED", "true")
    }

    /// `goldsmith publish IMAGE --distribution FILE …`.
    fn publish(&self, place: &Place, image: &str, document: &Path, more: &[&str]) -> Goldsmith {
        let (endpoint, s3) = (self.cloud.endpoint(), self.cloud.s3_endpoint());
        let document = document.to_string_lossy();
        let mut arguments = vec!["publish", image, "--distribution", &document, "--endpoint-url", &endpoint];
        arguments.extend(["--s3-endpoint", &s3, "--json"]);
        arguments.extend(more);
        self.goldsmith(place, &arguments)
    }

    /// How often an action was called, and how often that went well.
    fn calls(&self, action: &str) -> (usize, usize) {
        let calls = self.cloud.calls().into_iter().filter(|call| call.action == action);
        let outcomes: Vec<String> = calls.map(|call| call.outcome).collect();
        (outcomes.len(), outcomes.iter().filter(|outcome| *outcome == "ok").count())
    }

    /// What EC2 answers to a foreign client that signs.
    fn ask_ec2(&self, region: &str, parameters: &[(&str, &str)]) -> String {
        let mut curl = Command::new("curl");
        curl.args(["-s", "--aws-sigv4", &format!("aws:amz:{region}:ec2")]);
        curl.args(["--user", &format!("{}:{}", self.keys.id, self.keys.secret)]);
        for (name, value) in parameters {
            curl.args(["--data-urlencode", &format!("{name}={value}")]);
        }
        let output = curl.args(["-d", "Version=2016-11-15"]).arg(self.cloud.endpoint()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn only_image(&self, account: &str, region: &str) -> Image {
        let images = self.cloud.images(account, region);
        assert_eq!(images.len(), 1, "{region}: {images:?}");
        images.into_iter().next().unwrap()
    }

    /// That an image holds the very bytes that were tested.
    fn assert_holds(&self, account: &str, region: &str, image: &Image, content: &str) {
        let snapshots: Vec<&String> = image.snapshots().collect();
        assert_eq!(snapshots.len(), 1, "{image:?}");
        let snapshot = self.cloud.snapshot(account, region, snapshots[0]).unwrap();
        assert_eq!((snapshot.status(), snapshot.sha256().as_str()), ("completed", content), "{region}: {snapshot:?}");
    }
}

/// The manifest of an image.
fn manifest(place: &Place, image: &str) -> Value {
    let id = image.to_owned();
    serde_json::from_str(&read(&place.home().join("images").join(id).join("manifest.json"))).unwrap()
}

/// A copy of the nginx image under another id, which has been checked already; and the digest of its content, by the
/// exports that a foreign reader has compared.
fn subject(id: &str) -> (Place, String, String) {
    static CHECKED: OnceLock<()> = OnceLock::new();
    let Nginx { place, .. } = nginx();
    CHECKED.get_or_init(|| {
        let _checked = place.goldsmith(&["check", "nginx/1.0.0/1", "--for", "aws"]).run().success();
    });
    renamed(place, "nginx/1.0.0/1", id);
    let content = manifest(place, id)["disk"]["content"].as_str().unwrap().to_owned();
    (Place::new(), id.to_owned(), content)
}

#[test]
fn an_image_becomes_amis_in_two_regions_on_each_road() {
    let (place, image, content) = subject("roads/1.0.0/1");
    let aws = Aws::start();
    let template = aws.cloud.make_launch_template(OURS, "eu-central-1", "web");
    let theirs = aws.cloud.account(THEIRS);
    aws.cloud.allow_role(COPYING, OURS);
    let topic = aws.cloud.topic(OURS, "eu-central-1", "images");
    let direct = place.write("direct.yaml", &direct_road(&topic, &template));
    // The tests run under exactly the policy that goldsmith says is enough.
    let policy = aws.publish(&place, &image, &direct, &["--policy"]).run().success().stdout;
    aws.cloud.enforce(OURS, &policy);
    let published = aws.publish(&place, &image, &direct, &[]).run().success().says("was checked already");
    assert_eq!(published.json()["published"], true, "{published}");
    let central = aws.only_image(OURS, "eu-central-1");
    for (region, account) in
        [("eu-central-1", OURS), ("eu-west-1", OURS), ("us-east-1", OURS), ("eu-central-1", THEIRS)]
    {
        aws.assert_holds(account, region, &aws.only_image(account, region), &content);
    }
    is_registered_with_what_was_tested(&central);
    assert_eq!(aws.only_image(OURS, "eu-west-1").imds_support.as_deref(), Some("v2.0"));
    let web = aws.cloud.launch_template(OURS, "eu-central-1", "web").unwrap();
    assert_eq!((web.default, web.versions[&2].image()), (2, Some(central.id.as_str())));
    assert_eq!(web.versions[&2].get("InstanceType"), Some("t3.small"), "the rest of the template was lost");
    let parameter = |account| aws.cloud.parameter(account, "eu-central-1", "/web/ami").unwrap();
    assert_eq!((parameter(OURS).value, parameter(OURS).data_type), (central.id.clone(), "aws:ec2:image".to_owned()));
    assert_eq!(parameter(THEIRS).value, aws.only_image(THEIRS, "eu-central-1").id);
    told(&aws, &topic, &central);
    let pointer: Value = serde_json::from_str(&read(&place.path("out/latest.json"))).unwrap();
    assert_eq!(
        (&pointer["image"], &pointer["files"][0]["name"]),
        (&image.as_str().into(), &"roads-1.0.0-1.qcow2".into())
    );
    assert_eq!(pointer["amis"].as_array().unwrap().len(), 4, "{pointer:#}");
    drop(theirs);
    // The digest chain: from the tested disk to every snapshot that was written.
    let publications = manifest(&place, &image)["publications"].clone();
    let snapshots = publications.as_array().unwrap().iter().flat_map(|place| place["artifacts"].as_array().unwrap());
    let contents: Vec<&Value> =
        snapshots.filter(|artifact| artifact["kind"] == "snapshot").map(|artifact| &artifact["content"]).collect();
    assert_eq!(contents, [content.as_str(), content.as_str()], "{publications:#}");
    // The same again makes nothing.
    let before = aws.cloud.calls().len();
    let _again = aws.publish(&place, &image, &direct, &[]).run().success().says("was published so already");
    assert_eq!(aws.cloud.calls().len(), before);
    by_import(&place, &image, &content, &aws);
}

/// Everything that can be said of an AMI.
fn direct_road(topic: &str, template: &str) -> String {
    format!(
        "name: direct\nsnsTopicArn: {topic}\ndistributions:
  - region: eu-central-1
    amiDistributionConfiguration:
      name: 'web {{{{ imagebuilder:buildVersion }}}} {{{{ imagebuilder:buildDate }}}}'
      amiTags: {{ Build: '{{{{ imagebuilder:buildVersion }}}}' }}
      targetAccountIds: ['{THEIRS}']
      launchPermission: {{ userIds: ['333333333333'] }}
      deprecateAfter: 90d
    launchTemplateConfigurations: [{{ launchTemplateId: {template}, setDefaultVersion: true }}]
    ssmParameterConfigurations:
      - {{ parameterName: /web/ami, dataType: 'aws:ec2:image' }}
      - {{ parameterName: /web/ami, amiAccountId: '{THEIRS}' }}
  - region: eu-west-1
    amiDistributionConfiguration: {{ name: web-west, imdsSupport: v2.0 }}
  - region: us-east-1
    copyFrom: eu-central-1
  - directory: out
    formats: [qcow2]
    pointer: latest.json
"
    )
}

/// What EC2 would have guessed wrong, and the labels.
fn is_registered_with_what_was_tested(image: &Image) {
    assert_eq!((image.architecture.as_str(), image.virtualization.as_str()), ("x86_64", "hvm"), "{image:?}");
    assert_eq!((image.ena_support, image.boot_mode.as_deref()), (Some(true), Some("legacy-bios")), "{image:?}");
    assert!(image.mappings[0].delete_on_termination && image.mappings[0].device == image.root_device, "{image:?}");
    assert_eq!(image.tags.get("Build").map(String::as_str), Some("1"), "{image:?}");
    assert_eq!(image.tags.get("goldsmith:image").map(String::as_str), Some("roads/1.0.0/1"), "{image:?}");
    let account = |id: &str| Permission::Account(id.to_owned());
    assert!(image.permissions.contains(&account("333333333333")), "{image:?}");
    assert!(image.permissions.contains(&account(THEIRS)), "{image:?}");
    let days = (image.deprecated.unwrap() - jiff::Timestamp::now()).total(jiff::Unit::Hour).unwrap() / 24.0;
    // EC2 rounds to whole minutes, and this may be before it.
    assert!((89.0..=90.0 + 1.0 / 1440.0).contains(&days), "{image:?}");
    assert!(image.name.starts_with("web 1 20"), "{image:?}");
}

/// What the topic was told, as Image Builder tells it.
fn told(aws: &Aws, topic: &str, central: &Image) {
    let messages = aws.cloud.messages(topic);
    assert_eq!(messages.len(), 1, "{messages:?}");
    let message: Value = serde_json::from_str(&messages[0].text).unwrap();
    assert_eq!(message["state"]["status"], "AVAILABLE", "{message:#}");
    assert_eq!(message["arn"], format!("arn:aws:imagebuilder:eu-central-1:{OURS}:image/roads/1.0.0/1"));
    let amis = message["outputResources"]["amis"].as_array().unwrap();
    let of_central = amis.iter().find(|ami| ami["image"] == central.id.as_str()).unwrap();
    assert_eq!((&of_central["region"], &of_central["accountId"]), (&"eu-central-1".into(), &OURS.into()));
    assert!(messages[0].text.starts_with("{\"semver\":1237940039285380274899124225,"), "{}", messages[0].text);
}

/// The other two roads: an import by AWS, and an import by whoever reads what goldsmith prints.
fn by_import(place: &Place, image: &str, content: &str, aws: &Aws) {
    let import = place.write(
        "import.yaml",
        "
name: import
road: import-snapshot
distributions:
  - region: eu-central-1
    importBucket: { s3Bucket: incoming-central, s3Prefix: vm }
    amiDistributionConfiguration: { name: imported-central }
    s3ExportConfiguration: { roleName: x, diskImageFormat: VHD, s3Bucket: incoming-central, s3Prefix: exported }
  - region: eu-west-1
    importBucket: { s3Bucket: incoming-west }
    amiDistributionConfiguration: { name: imported-west }
",
    );
    let policy = aws.publish(place, image, &import, &["--policy"]).run().success().stdout;
    aws.cloud.enforce(OURS, &policy);
    let published = aws.publish(place, image, &import, &[]).run().success();
    assert_eq!(published.json()["published"], true);
    for (region, name) in [("eu-central-1", "imported-central"), ("eu-west-1", "imported-west")] {
        let image = aws.cloud.images(OURS, region).into_iter().find(|image| image.name == name).unwrap();
        aws.assert_holds(OURS, region, &image, content);
    }
    let objects: Vec<String> = aws.cloud.objects().into_iter().map(|object| object.key).collect();
    assert_eq!(objects, ["exported/roads-1.0.0-1.vhd"], "what was only there for the import is still there");
    let s3_only = place.write(
        "s3.yaml",
        "
name: objects only
road: s3-only
distributions:
  - region: eu-north-1
    importBucket: { s3Bucket: outgoing-north }
    amiDistributionConfiguration: { name: by-hand }
  - region: eu-south-1
    importBucket: { s3Bucket: outgoing-south, s3Prefix: vm }
",
    );
    let policy = aws.publish(place, image, &s3_only, &["--policy"]).run().success().stdout;
    aws.cloud.enforce(OURS, &policy);
    let published = aws.publish(place, image, &s3_only, &[]).run().success();
    assert!(published.stderr.contains("aws ec2 import-snapshot --region eu-north-1"), "{published}");
    assert!(published.stderr.contains("vmie.amazonaws.com"), "{published}");
    aws.cloud.enforce(OURS, r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#);
    for (region, bucket, key) in [
        ("eu-north-1", "outgoing-north", "roads-1.0.0-1.vmdk"),
        ("eu-south-1", "outgoing-south", "vm/roads-1.0.0-1.vmdk"),
    ] {
        by_hand(aws, region, bucket, key, content);
    }
}

/// Does what goldsmith has printed.
fn by_hand(aws: &Aws, region: &str, bucket: &str, key: &str, content: &str) {
    let of = |answer: &str, name: &str| {
        let value = answer.split(&format!("<{name}>")).nth(1).and_then(|rest| rest.split('<').next());
        value.unwrap_or_else(|| panic!("{name} is not in {answer}")).to_owned()
    };
    let begun = aws.ask_ec2(
        region,
        &[
            ("Action", "ImportSnapshot"),
            ("RoleName", "vmimport"),
            ("DiskContainer.Format", "VMDK"),
            ("DiskContainer.UserBucket.S3Bucket", bucket),
            ("DiskContainer.UserBucket.S3Key", key),
        ],
    );
    let task = of(&begun, "importTaskId");
    let state = || aws.ask_ec2(region, &[("Action", "DescribeImportSnapshotTasks"), ("ImportTaskId.1", &task)]);
    let finished = std::iter::repeat_with(state).take(600).find(|state| {
        std::thread::sleep(Duration::from_millis(100));
        of(state, "status") != "active"
    });
    let id = of(&finished.unwrap(), "snapshotId");
    let snapshot = aws.cloud.snapshot(OURS, region, &id).unwrap();
    assert_eq!((snapshot.status(), snapshot.sha256().as_str()), ("completed", content));
}

#[test]
fn a_killed_publication_goes_on_and_makes_nothing_twice() {
    let (place, image, content) = subject("killed/1.0.0/1");
    let aws = Aws::start();
    let document = place.write(
        "killed.yaml",
        "
name: killed
distributions:
  - region: eu-central-1
    amiDistributionConfiguration: { name: direct }
  - region: eu-west-1
    road: import-snapshot
    importBucket: { s3Bucket: incoming-west }
    amiDistributionConfiguration: { name: imported }
",
    );
    let running = aws.publish(&place, &image, &document, &["--events", "told.jsonl"]).start();
    aws.cloud.wait_for("PutSnapshotBlock", 50);
    running.signal(rustix::process::Signal::INT);
    let _interrupted = running.wait().fails(130);
    let told = read(&place.path("told.jsonl"));
    let told =
        told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["detail"]["state"]["status"].clone());
    assert_eq!(told.collect::<Vec<_>>(), ["DISTRIBUTING", "CANCELLED"]);
    // In the middle of the blocks and of the parts.
    for (action, count) in [("PutSnapshotBlock", 150), ("UploadPart", 3), ("CompleteSnapshot", 1), ("RegisterImage", 1)]
    {
        let running = aws.publish(&place, &image, &document, &["--resume"]).start();
        aws.cloud.wait_for(action, count);
        running.signal(rustix::process::Signal::KILL);
        let _killed = running.wait().killed();
    }
    let hint = aws.publish(&place, &image, &document, &[]).run().fails(2);
    insta::assert_snapshot!(hint.error(&place), @"
    error: killed/1.0.0/1 by `killed`: one was begun and is not whole
    hint: `--resume` goes on with it, `--undo` takes back what it has made
    ");
    let finished = aws.publish(&place, &image, &document, &["--resume"]).run().success();
    assert_eq!(finished.json()["published"], true);
    for region in ["eu-central-1", "eu-west-1"] {
        aws.assert_holds(OURS, region, &aws.only_image(OURS, region), &content);
        assert_eq!(aws.cloud.snapshots(OURS, region).len(), 1, "{region}: a snapshot was made twice");
    }
    assert_eq!((aws.cloud.unfinished_uploads(), aws.cloud.objects()), (0, Vec::new()));
    // What had arrived was not sent again, but for what was on its way when goldsmith was killed.
    let blocks = aws.cloud.snapshots(OURS, "eu-central-1")[0].blocks_written();
    let (sent, _) = aws.calls("PutSnapshotBlock");
    assert!(sent <= blocks + 5 * 32, "{sent} blocks were sent for {blocks}");
    let parts = aws.calls("UploadPart").0;
    let whole = fs_err::metadata(nginx().place.path("out/nginx-1.0.0-1.vmdk")).unwrap().len().div_ceil(8 << 20);
    assert!(parts as u64 <= whole + 4 * 3, "{parts} parts were sent for {whole}");
}

#[test]
fn an_upload_that_was_given_up_begins_anew() {
    let (place, image, content) = subject("given-up/1.0.0/1");
    let aws = Aws::start();
    let document = place.write(
        "given-up.yaml",
        "
name: given-up
distributions:
  - region: eu-west-1
    road: import-snapshot
    importBucket: { s3Bucket: incoming-west }
    amiDistributionConfiguration: { name: imported }
",
    );
    // While parts are sent, and when nothing but the end is missing.
    let mut more: &[&str] = &[];
    for action in ["UploadPart", "CompleteMultipartUpload"] {
        aws.cloud.fail(action, None, 1, Fault::Refused("AccessDenied"));
        let failed = aws.publish(&place, &image, &document, more).run().fails(6);
        assert!(failed.stderr.contains(action), "{}", failed.stderr);
        assert_eq!(aws.cloud.unfinished_uploads(), 1);
        aws.cloud.give_up_uploads();
        more = &["--resume"];
    }
    let finished = aws.publish(&place, &image, &document, more).run().success();
    let object = "s3://incoming-west/given-up-1.0.0-1-";
    let note = finished.stderr.lines().find(|line| line.contains(object) && line.contains("from its beginning"));
    assert!(note.is_some_and(|note| note.contains("NoSuchUpload")), "{}", finished.stderr);
    aws.assert_holds(OURS, "eu-west-1", &aws.only_image(OURS, "eu-west-1"), &content);
    assert_eq!((aws.cloud.unfinished_uploads(), aws.cloud.objects()), (0, Vec::new()));
}

#[test]
fn a_region_that_fails_stops_no_other_and_answers_may_be_lost() {
    let (place, image, content) = subject("faults/1.0.0/1");
    let aws = Aws::start();
    let template = aws.cloud.make_launch_template(OURS, "eu-central-1", "web");
    let document = place.write(
        "faults.yaml",
        &format!(
            "
name: faults
distributions:
  - region: eu-central-1
    amiDistributionConfiguration: {{ name: web }}
    launchTemplateConfigurations: [{{ launchTemplateId: {template}, setDefaultVersion: true }}]
  - region: eu-west-1
    road: import-snapshot
    importBucket: {{ s3Bucket: incoming-west }}
    amiDistributionConfiguration: {{ name: web }}
  - region: us-east-1
    copyFrom: eu-central-1
    amiDistributionConfiguration: {{ name: web }}
"
        ),
    );
    aws.cloud.fail("ImportSnapshot", Some("eu-west-1"), 1, Fault::Task("ClientError: Disk validation failed"));
    // AWS does what it is asked, and nobody hears of it; and it has no time for a while.
    for action in [
        "StartSnapshot",
        "CompleteSnapshot",
        "RegisterImage",
        "CopyImage",
        "ImportSnapshot",
        "CreateLaunchTemplateVersion",
        "CompleteMultipartUpload",
    ] {
        aws.cloud.fail(action, None, 1, Fault::LostAnswer);
    }
    aws.cloud.fail("PutSnapshotBlock", None, 20, Fault::Throttled);
    aws.cloud.fail("UploadPart", None, 2, Fault::Unavailable);
    let failed = aws.publish(&place, &image, &document, &[]).run().fails(6);
    let summary = failed.json();
    let west = summary["places"].as_array().unwrap().iter().find(|place| place["place"] == "eu-west-1").unwrap();
    let failures: Vec<&Value> = summary["places"].as_array().unwrap().iter().map(|place| &place["error"]).collect();
    assert_eq!(failures.iter().filter(|error| !error.is_null()).count(), 1, "{failures:#?}");
    assert_eq!(west["error"], "AWS did not make the snapshot: it is deleted: ClientError: Disk validation failed");
    assert!(failed.stderr.contains("hint: mend what is said above; `--resume` goes on"), "{failed}");
    for region in ["eu-central-1", "us-east-1"] {
        aws.assert_holds(OURS, region, &aws.only_image(OURS, region), &content);
    }
    let resumed = aws.publish(&place, &image, &document, &["--resume"]).run().success();
    assert_eq!(resumed.json()["published"], true);
    aws.assert_holds(OURS, "eu-west-1", &aws.only_image(OURS, "eu-west-1"), &content);
    for region in ["eu-central-1", "eu-west-1", "us-east-1"] {
        assert_eq!(aws.cloud.snapshots(OURS, region).len(), 1, "{region}: a snapshot was made twice");
    }
    assert_eq!(aws.cloud.launch_template(OURS, "eu-central-1", "web").unwrap().latest, 2);
    assert_eq!((aws.cloud.unfinished_uploads(), aws.cloud.objects()), (0, Vec::new()));
    the_next_build_sends_what_differs(&aws, &content);
}

/// The same disk as the image's next build: all of it comes from the snapshot that is there.
fn the_next_build_sends_what_differs(aws: &Aws, content: &str) {
    let (place, image, _) = subject("faults/1.0.0/2");
    let text = "name: next\ndistributions: [{ region: eu-central-1, amiDistributionConfiguration: { name: next } }]\n";
    let document = place.write("next.yaml", text);
    let before = aws.calls("PutSnapshotBlock");
    let _published = aws.publish(&place, &image, &document, &[]).run().success();
    assert_eq!(aws.calls("PutSnapshotBlock"), before, "blocks were sent that are there already");
    let snapshots = aws.cloud.snapshots(OURS, "eu-central-1");
    let [first, next] = &snapshots[..] else { panic!("{snapshots:?}") };
    assert_eq!((next.parent.as_deref(), next.sha256().as_str()), (Some(first.id.as_str()), content));
}

/// What is asked and what is refused before anything is asked.
#[test]
fn what_would_be_done_is_said_and_what_must_not_leave_is_refused() {
    let place = Place::new();
    let recipe = place.recipe("unpublished", &crate::framework::bash("build", "echo built"));
    let _built = place.build(&[&recipe.to_string_lossy(), "--no-test"]).run().success();
    let document = place.write(
        "d.yaml",
        "
name: refused
distributions: [{ region: eu-central-1, amiDistributionConfiguration: {} }]
",
    );
    let aws = Aws::start();
    let plan = aws.publish(&place, "unpublished", &document, &["--plan"]).run().success();
    assert!(plan.stdout.contains("ebs:PutSnapshotBlock") && plan.stdout.contains("ec2:RegisterImage"), "{plan}");
    let refused: Finished = aws.publish(&place, "unpublished", &document, &[]).run().fails(6);
    assert!(refused.stderr.contains("the image was not tested"), "{refused}");
    assert_eq!(aws.cloud.calls(), Vec::new(), "something was asked of AWS for an image that must not leave");
    let wrong = place.write("wrong.yaml", "name: wrong\ndistributions: [{ region: eu-central-1 }]\n");
    let refused = aws.publish(&place, "unpublished", &wrong, &[]).run().fails(2);
    assert!(refused.stderr.contains("one or more outputs"), "{refused}");
}
