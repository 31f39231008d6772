//! What goes again: by `--undo`, and by policies.

use super::*;

#[test]
fn what_a_failed_publication_has_made_is_taken_back() {
    let (place, image, _) = subject("undone/1.0.0/1");
    let aws = Aws::start();
    let template = aws.cloud.make_launch_template(OURS, "eu-central-1", "web");
    aws.cloud.account(THEIRS);
    aws.cloud.allow_role(COPYING, OURS);
    let document = place.write(
        "undone.yaml",
        &format!(
            "
name: undone
distributions:
  - region: eu-central-1
    amiDistributionConfiguration: {{ name: web, targetAccountIds: ['{THEIRS}'] }}
    launchTemplateConfigurations: [{{ launchTemplateId: {template}, setDefaultVersion: true }}]
    ssmParameterConfigurations: [{{ parameterName: /web/ami }}]
    s3ExportConfiguration: {{ diskImageFormat: VMDK, s3Bucket: incoming-central }}
  - region: eu-west-1
    road: import-snapshot
    importBucket: {{ s3Bucket: incoming-west }}
    amiDistributionConfiguration: {{ name: web }}
  - directory: out
    formats: [qcow2]
    pointer: latest.json
"
        ),
    );
    aws.cloud.fail("RegisterImage", Some("eu-west-1"), 1, Fault::Refused("InvalidParameterValue"));
    let _failed = aws.publish(&place, &image, &document, &[]).run().fails(6);
    assert!(!place.path("out/latest.json").exists(), "the pointer was moved although a place has failed");
    assert!(aws.cloud.images(OURS, "eu-central-1").len() == 1 && aws.cloud.objects().len() == 1);
    let policy = aws.publish(&place, &image, &document, &["--policy", "--undo"]).run().success().stdout;
    aws.cloud.enforce(OURS, &policy);
    let undone = aws.publish(&place, &image, &document, &["--undo"]).run().success();
    assert!(undone.json().as_array().unwrap().iter().all(|step| step["error"].is_null()), "{undone}");
    for (account, region) in [(OURS, "eu-central-1"), (OURS, "eu-west-1"), (THEIRS, "eu-central-1")] {
        assert_eq!(aws.cloud.images(account, region), Vec::new());
        assert!(aws.cloud.snapshots(account, region).is_empty(), "{region}");
    }
    assert_eq!((aws.cloud.unfinished_uploads(), aws.cloud.objects()), (0, Vec::new()));
    assert_eq!(aws.cloud.parameter(OURS, "eu-central-1", "/web/ami"), None);
    let web = aws.cloud.launch_template(OURS, "eu-central-1", "web").unwrap();
    assert_eq!((web.default, web.versions.len()), (1, 1));
    assert_eq!(crate::framework::names_in(&place.path("out")), Vec::<String>::new());
    assert_eq!(manifest(&place, &image)["publications"], Value::Null);
    let nothing = aws.publish(&place, &image, &document, &["--undo"]).run().fails(2);
    insta::assert_snapshot!(nothing.error(&place), @"error: undone/1.0.0/1 by `undone`: there is nothing to take back");
}

/// What others have made, and what was changed since, is not taken back.
#[test]
fn what_is_not_of_a_publication_stays_when_it_is_undone() {
    let (place, image, _) = subject("taken/1.0.0/1");
    let (_, first, _) = subject("earlier/1.0.0/1");
    let aws = Aws::start();
    let ami = "amiDistributionConfiguration: { name: web }";
    let earlier =
        place.write("earlier.yaml", &format!("name: earlier\ndistributions: [{{ region: us-east-1, {ami} }}]\n"));
    aws.publish(&place, &first, &earlier, &[]).run().success();
    let document = place.write(
        "taken.yaml",
        &format!(
            "
name: taken
distributions:
  - region: eu-central-1
    {ami}
    ssmParameterConfigurations: [{{ parameterName: /web/ami }}]
  - {{ region: us-east-1, copyFrom: eu-central-1, {ami} }}
"
        ),
    );
    let failed = aws.publish(&place, &image, &document, &[]).run().fails(6);
    assert!(failed.stderr.contains("InvalidAMIName.Duplicate"), "{failed}");
    let theirs = aws.only_image(OURS, "us-east-1");
    // Somebody has moved on meanwhile.
    aws.cloud.make_parameter(OURS, "eu-central-1", "/web/ami", ("String", "ami-0123456789abcdef0"));
    let undone = aws.publish(&place, &image, &document, &["--undo"]).run().success();
    let undone = undone.says("is not of this publication and stays").says("says something else by now");
    assert_eq!(aws.only_image(OURS, "us-east-1"), theirs, "{undone}");
    assert_eq!(aws.cloud.snapshots(OURS, "us-east-1").len(), 1);
    assert_eq!(aws.cloud.images(OURS, "eu-central-1"), Vec::new());
    let parameter = aws.cloud.parameter(OURS, "eu-central-1", "/web/ami").unwrap();
    assert_eq!(parameter.value, "ami-0123456789abcdef0");
    // An image that has failed its test since is not published, also where that was begun before.
    aws.cloud.fail("RegisterImage", None, 1, Fault::Refused("InvalidParameterValue"));
    aws.publish(&place, &image, &document, &[]).run().fails(6);
    let path = place.home().join("images").join(&image).join("manifest.json");
    let mut known = manifest(&place, &image);
    known["state"] = "FAILED".into();
    fs_err::write(&path, known.to_string()).unwrap();
    let calls = aws.cloud.calls().len();
    let _refused = aws.publish(&place, &image, &document, &["--resume"]).run().fails(1).says("FAILED");
    assert_eq!(aws.cloud.calls().len(), calls, "something was asked of AWS for an image that has failed");
}

/// A channel that comes to name an image while AWS is asked for its AMIs keeps them.
fn a_channel_is_quicker(place: &Place, aws: &Aws, image: &str) {
    let rule =
        "{ action: { type: DISABLE, includeResources: { amis: true } }, filter: { type: AGE, value: 2, unit: DAYS } }";
    let selection = "{ recipes: [{ name: retired, semanticVersion: x.x.x }] }";
    let head = "name: now\nresourceType: AMI_IMAGE\n";
    place.write("now.yaml", &format!("{head}policyDetails: [{rule}]\nresourceSelection: {selection}\n"));
    let asked = aws.calls("DescribeImages").0;
    aws.cloud.fail("DescribeImages", Some("eu-central-1"), 1, Fault::Stall(std::time::Duration::from_secs(15)));
    let endpoint = aws.cloud.endpoint();
    let running = aws.goldsmith(place, &["lifecycle", "run", "now.yaml", "--endpoint-url", &endpoint]).start();
    aws.cloud.wait_for("DescribeImages", asked + 1);
    let _promoted = place.goldsmith(&["channel", "promote", "retired@live", image]).run().success();
    let _refused = running.wait().fails(1).says("retired@live");
    assert_eq!(aws.calls("DisableImage").0, 0);
    assert_eq!(manifest(place, image)["state"], "AVAILABLE");
    fs_err::remove_dir_all(place.home().join("images/retired/channels")).unwrap();
}

const POLICY: &str = "name: tidy
resourceType: AMI_IMAGE
policyDetails:
  - { action: { type: DEPRECATE, includeResources: { amis: true } }, filter: { type: AGE, value: 1, unit: DAYS } }
  - { action: { type: DISABLE, includeResources: { amis: true } }, filter: { type: AGE, value: 2, unit: DAYS } }
  - { action: { type: DELETE, includeResources: { amis: true, snapshots: true } }, filter: { type: AGE, value: 3, unit: DAYS } }
resourceSelection:
  recipes: [{ name: retired, semanticVersion: x.x.x }, { name: templated, semanticVersion: x.x.x }]
";

#[test]
fn a_policy_retires_amis_with_their_images() {
    let (place, image, _) = subject("retired/1.0.0/1");
    let (_, used, _) = subject("templated/1.0.0/1");
    let aws = Aws::start();
    let template = aws.cloud.make_launch_template(OURS, "eu-west-1", "web");
    let document = |name: &str, region: &str, more: &str| {
        let ami = format!("amiDistributionConfiguration: {{ name: {name} }}{more}");
        place.write(&format!("{name}.yaml"), &format!("name: {name}\ndistributions: [{{ region: {region}, {ami} }}]\n"))
    };
    let more = format!(", launchTemplateConfigurations: [{{ launchTemplateId: {template}, setDefaultVersion: true }}]");
    aws.publish(&place, &image, &document("retired", "eu-central-1", ""), &[]).run().success();
    aws.publish(&place, &used, &document("templated", "eu-west-1", &more), &[]).run().success();
    for id in [&image, &used] {
        let mut old = manifest(&place, id);
        old["created"] = "2026-01-01T00:00:00Z".into();
        fs_err::write(place.home().join("images").join(id).join("manifest.json"), old.to_string()).unwrap();
    }
    place.write("tidy.yaml", POLICY);
    let endpoint = aws.cloud.endpoint();
    let run = || {
        let arguments = ["lifecycle", "run", "tidy.yaml", "--endpoint-url", &endpoint, "--json"];
        let ended = aws.goldsmith(&place, &arguments).run().success().json();
        let of = |id: &str| ended.as_array().unwrap().iter().find(|ended| ended["image"] == id).cloned();
        let left = of(&used).unwrap();
        assert!(left["reason"].as_str().unwrap().contains("the launch template web (eu-west-1)"), "{left:#}");
        of(&image).map(|ended| ended["action"].as_str().unwrap_or_default().to_owned())
    };
    a_channel_is_quicker(&place, &aws, &image);
    assert_eq!(run().as_deref(), Some("DEPRECATE"));
    assert!(aws.only_image(OURS, "eu-central-1").deprecated.is_some());
    // What AWS refuses is gone on with by the next run.
    let arguments = ["lifecycle", "run", "tidy.yaml", "--endpoint-url", &endpoint];
    let refused = |action: &str| {
        aws.cloud.fail(action, Some("eu-central-1"), 1, Fault::Refused("InvalidParameterValue"));
        let _refused = aws.goldsmith(&place, &arguments).run().fails(1).says("the next run goes on with them");
        manifest(&place, &image)["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(refused("DisableImage"), "DEPRECATED");
    assert_eq!(run().as_deref(), Some("DISABLE"));
    assert_eq!(manifest(&place, &image)["state"], "DISABLED");
    assert!(aws.calls("DisableImage") == (2, 1), "{:?}", aws.calls("DisableImage"));
    assert_eq!(refused("DeregisterImage"), "DELETED");
    // Of an image that is gone nobody but its record knows the snapshots.
    assert_eq!(refused("DeleteSnapshot"), "DELETED");
    assert_eq!(aws.cloud.images(OURS, "eu-central-1"), Vec::new());
    assert_eq!(aws.cloud.snapshots(OURS, "eu-central-1").len(), 1);
    assert_eq!(run().as_deref(), Some("DELETE"));
    assert_eq!(aws.cloud.images(OURS, "eu-central-1"), Vec::new());
    assert!(aws.cloud.snapshots(OURS, "eu-central-1").is_empty());
    assert!(!place.home().join("images").join(&image).exists());
    assert_eq!(run(), None);
    assert_eq!(aws.cloud.images(OURS, "eu-west-1").len(), 1);
}
