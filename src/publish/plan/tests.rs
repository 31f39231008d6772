use super::*;
use crate::document::distribution::decode;
use crate::document::syntax::Source;

/// An image of 4 GiB that was tested by BIOS and could start by both.
pub(in super::super) fn subject() -> Subject {
    Subject {
        id: "web/1.0.0/3".parse().unwrap(),
        disk: "5a5a".to_owned(),
        size: 4 << 30,
        boot: BootPaths { bios: true, uefi: true, ena: true },
        tested_by_uefi: false,
        tags: vec![("team".to_owned(), "web".to_owned()), ("CreatedBy".to_owned(), "nobody".to_owned())],
    }
}

fn header() -> Header {
    Header {
        id: "0123456789abcdef".to_owned(),
        ..Header::new("d".to_owned(), "5a5a".to_owned(), subject().boot, "2026-11-26T01:02:03.004Z".parse().unwrap())
    }
}

fn planned(text: &str, subject: &Subject) -> Result<Plan, Report> {
    let (document, _) =
        decode(&Source::new("/etc/goldsmith/d.yaml", text)).map_err(|report| panic!("{report}")).unwrap();
    plan(&document, subject, &header())
}

/// Every place and road.
pub(in super::super) const EVERYWHERE: &str = "
name: everywhere
snsTopicArn: arn:aws:sns:eu-central-1:111122223333:images
distributions:
  - region: eu-central-1
    amiDistributionConfiguration:
      name: 'web {{ imagebuilder:buildDate }}'
      targetAccountIds: ['444455556666']
      amiTags: { Version: '{{ imagebuilder:buildVersion }}' }
      launchPermission: { organizationArns: ['arn:aws:organizations::111122223333:organization/o-x'] }
      deprecateAfter: 90d
    launchTemplateConfigurations:
      - { launchTemplateId: lt-0123456789abcdef0, setDefaultVersion: true }
    ssmParameterConfigurations:
      - { parameterName: /web/ami, dataType: 'aws:ec2:image' }
      - { parameterName: /web/ami, amiAccountId: '444455556666' }
    s3ExportConfiguration: { diskImageFormat: VHD, s3Bucket: exports, s3Prefix: web/ }
  - region: eu-west-1
    road: import-snapshot
    importBucket: { s3Bucket: incoming }
    amiDistributionConfiguration: { kmsKeyId: 'alias/images' }
  - region: us-gov-east-1
    road: s3-only
    importBucket: { s3Bucket: outgoing, roleName: importer }
  - region: us-east-1
    copyFrom: eu-central-1
  - directory: images
    formats: [qcow2, ova]
    pointer: latest.json
  - s3: { s3Bucket: minio, s3Prefix: vm, endpointUrl: 'http://127.0.0.1:9000' }
    formats: [raw.zst]
    pointer: latest.json
";

#[test]
fn every_place_and_road() {
    let plan = planned(EVERYWHERE, &subject()).unwrap();
    let mut shown = String::new();
    for place in &plan.places {
        shown += &format!("{}\n", place.name);
        for step in &place.steps {
            let name = step.name(&place.name);
            let account = name.account.map(|account| format!(" as {account}")).unwrap_or_default();
            shown += &format!("  {}{account}: {}\n", name.step, step.describe());
        }
    }
    for pointer in &plan.pointers {
        shown += &format!("{pointer:?}\n");
    }
    insta::assert_snapshot!(shown);
    insta::assert_snapshot!(format!("{:#}", plan.policy(false)));
    let more: Vec<String> = {
        let with = format!("{:#}", plan.policy(true));
        let without = format!("{:#}", plan.policy(false));
        with.lines().filter(|line| line.contains('"') && !without.contains(line.trim())).map(str::to_owned).collect()
    };
    insta::assert_snapshot!(more.join("\n"), @r#"
    "ec2:CancelImportTask",
    "ec2:DeleteLaunchTemplateVersions",
    "ssm:DeleteParameter",
    "s3:DeleteObject",
    "ec2:DeleteSnapshot"
    "ec2:DeregisterImage"
    "#);
}

#[test]
fn what_ec2_would_guess_wrong() {
    let text = |more: &str| {
        format!("name: web\ndistributions: [{{ region: eu-central-1, amiDistributionConfiguration: {{ {more} }} }}]\n")
    };
    let registration = |more: &str, subject: &Subject| {
        let plan = planned(&text(more), subject).map_err(|report| report.to_string())?;
        match plan.places[0].steps.last() {
            Some(Step::Register(registration)) => Ok::<_, String>(*registration.clone()),
            other => panic!("{other:?}"),
        }
    };
    let by_bios = registration("", &subject()).unwrap();
    insta::assert_debug_snapshot!(by_bios);
    let by_uefi = Subject { tested_by_uefi: true, ..subject() };
    assert_eq!(registration("", &by_uefi).unwrap().boot_mode, BootMode::Uefi);
    let both = registration("bootMode: uefi-preferred", &subject()).unwrap();
    assert_eq!(both.boot_mode, BootMode::UefiPreferred);
    let trusted = registration("bootMode: uefi, tpmSupport: v2.0, imdsSupport: v2.0", &subject()).unwrap();
    assert!(trusted.tpm_v2 && trusted.imds_v2);
    insta::assert_snapshot!(registration("tpmSupport: v2.0", &subject()).unwrap_err(), @"/etc/goldsmith/d.yaml:2:85: error: `tpmSupport` needs an image that starts by UEFI only: `bootMode: uefi`");
    let bios_only = Subject { boot: BootPaths { bios: true, uefi: false, ena: false }, ..subject() };
    assert!(!registration("", &bios_only).unwrap().ena);
    insta::assert_snapshot!(registration("bootMode: uefi", &bios_only).unwrap_err(), @"/etc/goldsmith/d.yaml:2:83: error: on this image's disk UEFI finds nothing to start");
    insta::assert_snapshot!(registration("bootMode: uefi-preferred", &bios_only).unwrap_err(), @"/etc/goldsmith/d.yaml:2:83: error: on this image's disk one of BIOS and UEFI finds nothing to start");
    insta::assert_snapshot!(registration("name: 'web: {{ imagebuilder:buildVersion }}'", &subject()).unwrap_err(), @"/etc/goldsmith/d.yaml:2:79: error: the image would be called `web: 3`, and EC2 takes 3 to 128 letters, digits, spaces and `()[]./-'@_`");
}

#[test]
fn what_a_copy_can_not_have() {
    let text = "
name: web
distributions:
  - region: eu-central-1
    amiDistributionConfiguration: { bootMode: uefi, tpmSupport: v2.0 }
  - region: us-east-1
    copyFrom: eu-central-1
    amiDistributionConfiguration: { bootMode: legacy-bios, tpmSupport: v2.0 }
  - directory: /srv
    formats: [vdi]
";
    insta::assert_snapshot!(planned(text, &subject()).unwrap_err(), @"
    /etc/goldsmith/d.yaml:8:47: error: a copy starts as its origin does: say it there
    /etc/goldsmith/d.yaml:10:15: error: `vdi` is no export format: raw, raw.zst, qcow2, qcow2-zstd, vmdk, vhd, vhd-fixed, vhdx, ova, gcp are
    ");
}
