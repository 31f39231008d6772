use super::*;

fn read(text: &str) -> Result<(Distribution, Report), Report> {
    decode(&Source::new("d.yaml", text))
}

fn problems(text: &str) -> String {
    match read(text) {
        Ok((_, warnings)) => format!("it is good\n{warnings}"),
        Err(report) => report.to_string(),
    }
}

/// All that `create-distribution-configuration` takes and goldsmith gives an effect.
const API: &str = r#"{
  "name": "Web servers",
  "description": "all of them",
  "distributions": [
    {
      "region": "eu-central-1",
      "amiDistributionConfiguration": {
        "name": "web {{ imagebuilder:buildDate }}",
        "description": "build {{imagebuilder:buildVersion}}",
        "targetAccountIds": ["111122223333"],
        "amiTags": { "Build": "{{imagebuilder:buildVersion}}" },
        "kmsKeyId": "alias/images",
        "launchPermission": {
          "userIds": ["444455556666"],
          "userGroups": ["all"],
          "organizationArns": ["arn:aws:organizations::123456789012:organization/o-example"],
          "organizationalUnitArns": ["arn:aws:organizations::123456789012:ou/o-example/ou-example"]
        }
      },
      "launchTemplateConfigurations": [
        { "launchTemplateId": "lt-0123456789abcdef0", "accountId": "111122223333", "setDefaultVersion": true }
      ],
      "s3ExportConfiguration": {
        "roleName": "export", "diskImageFormat": "VMDK", "s3Bucket": "exports", "s3Prefix": "web/"
      },
      "ssmParameterConfigurations": [
        { "amiAccountId": "111122223333", "parameterName": "/web/ami", "dataType": "aws:ec2:image" }
      ]
    }
  ],
  "clientToken": "x"
}"#;

#[test]
fn the_input_of_the_api_is_read_whole() {
    let (read, warnings) = read(API).unwrap();
    insta::assert_snapshot!(warnings, @"d.yaml:24:21: warning: `roleName` is for AWS's export service; goldsmith writes the object itself");
    let [Target::Region(region)] = &read.targets[..] else { panic!("{read:?}") };
    let ami = region.ami.as_ref().unwrap();
    let name = ami.name.as_ref().unwrap();
    assert_eq!(name.value.fill("2026-11-26T01-02-03.004Z", 7), "web 2026-11-26T01-02-03.004Z");
    assert_eq!(ami.tags[0].1.fill("", 7), "7");
    assert_eq!(ami.description.as_ref().unwrap().fill("", 7), "build 7");
    assert_eq!((ami.target_accounts.len(), ami.kms_key.as_deref()), (1, Some("alias/images")));
    assert!(ami.permission.is_public && ami.permission.organizational_units.len() == 1);
    assert_eq!(region.road, Road::EbsDirect);
    assert!(region.templates[0].set_default && region.parameters[0].is_image);
    let (format, place) = region.export.as_ref().unwrap();
    assert_eq!((*format, place.key("x.vmdk").as_str()), (DiskFormat::Vmdk, "web/x.vmdk"));
}

#[test]
fn what_is_goldsmiths_own() {
    let text = "
name: everywhere
road: import-snapshot
snsTopicArn: arn:aws:sns:eu-central-1:111122223333:images
distributions:
  - region: eu-central-1
    importBucket: { s3Bucket: incoming, s3Prefix: vm/, roleName: importer }
    amiDistributionConfiguration:
      bootMode: uefi-preferred
      imdsSupport: v2.0
      deprecateAfter: 90d
  - region: us-east-1
    copyFrom: eu-central-1
  - region: eu-west-1
    road: s3-only
    importBucket: { s3Bucket: outgoing }
  - directory: ../images
    formats: [qcow2, ova]
    pointer: latest.json
  - s3: { s3Bucket: minio, endpointUrl: 'http://127.0.0.1:9000' }
    formats: [raw.zst]
";
    let (read, warnings) = read(text).unwrap();
    assert_eq!(warnings.to_string(), "");
    let shown: Vec<String> = read
        .targets
        .iter()
        .map(|target| match target {
            Target::Region(region) => {
                let road = match &region.road {
                    Road::EbsDirect => "direct".to_owned(),
                    Road::ImportSnapshot(Staging { place, role }) => format!("import {} by {role}", place.key("d")),
                    Road::S3Only(staging) => format!("s3 {} by {}", staging.place.key("d"), staging.role),
                    Road::CopyFrom(from) => format!("copy of {}", from.value),
                };
                format!("{} {road} {}", region.name.value, region.ami.is_some())
            }
            Target::Directory(directory) => format!("{} {:?}", directory.path.value.display(), directory.pointer),
            Target::Bucket(bucket) => format!("{} in {}", bucket.place.value.bucket, bucket.region),
        })
        .collect();
    insta::assert_snapshot!(shown.join("\n"), @r#"
    eu-central-1 import vm/d by importer true
    us-east-1 copy of eu-central-1 true
    eu-west-1 s3 d by vmimport false
    ../images Some("latest.json")
    minio in us-east-1
    "#);
}

#[test]
fn everything_wrong_is_said_at_once() {
    let text = "
name: x
tags: { team: web }
road: teleport
timeoutMinutes: 60
distributions:
  - region: Frankfurt
  - region: eu-central-1
    road: ebs-direct
    importBucket: { s3Bucket: b }
    amiDistributionConfiguration:
      name: 'web {{ imagebuilder:buildTime }}'
      launchPermissions: { userIds: ['1'] }
      tags: {}
      targetAccountIds: [12]
      bootMode: bios
      amiTag: {}
      launchPermission: { userGroups: [some], organizationArns: ['arn:x'] }
    launchTemplateConfigurations: [{ launchTemplateId: lt-1 }]
    ssmParameterConfigurations: [{ parameterName: 'a b', dataType: ami }]
    fastLaunchConfigurations: []
  - region: eu-central-1
    copyFrom: eu-west-1
  - region: eu-west-1
    road: import-snapshot
  - region: eu-west-2
    road: s3-only
    importBucket: { s3Bucket: outgoing }
    ssmParameterConfigurations: [{ parameterName: /ami }]
  - directory: /srv
    s3: {}
  - directory: /srv
    formats: []
    pointer: a/b
  - {}
snsTopicArn: arn:aws:sqs:eu-central-1:111122223333:images
";
    insta::assert_snapshot!(problems(text));
    insta::assert_snapshot!(problems("name: web\ndistributions: [{ region: eu-central-1 }]\n"), @"d.yaml:2:17: error: one or more outputs should be provided for each region: give `amiDistributionConfiguration`");
}

#[test]
fn placeholders() {
    let fill = |text: &str| text.parse::<Text>().map(|text| text.fill("DATE", 3));
    assert_eq!(fill("a {{imagebuilder:buildDate}}-{{ imagebuilder:buildVersion }}").as_deref(), Ok("a DATE-3"));
    assert_eq!(fill("plain } text").as_deref(), Ok("plain } text"));
    assert!(fill("{{ imagebuilder:buildDate").is_err());
    assert!(fill("{{ imagebuilder:buildDate:yyyyMMHHss }}").unwrap_err().contains("not supported"));
}
