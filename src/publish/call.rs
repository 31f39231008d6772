//! What is asked of AWS, step by step, and the least policy that allows it.
//!
//! Source of resources: AWS's "Service Authorization Reference", the pages of EC2, EBS, S3, Systems Manager, SNS, STS and KMS.

use serde::Serialize;
use serde_json::{Value, json};

use super::journal::Object;
use super::plan::{Image, Place, Plan, PointerPlace, Step};

/// A kind of request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Call {
    /// What has to be allowed: service and action, such as `ec2:RegisterImage`.
    pub action: String,
    /// What it is done to: an ARN, perhaps with a wildcard.
    pub resource: String,
    /// The operations of the API, where they are called otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operations: Option<&'static str>,
    /// How often, if not once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub often: Option<&'static str>,
}

/// Why something is asked more than once.
const UNTIL_READY: &str = "until it is ready";
const PER_BLOCK: &str = "once for each block of 512 KiB that is not zero, or not as in the snapshot before";
const PER_PART: &str = "once for each part";
/// For AWS's answer to be told from an earlier try's.
const IF_UNKNOWN: &str = "where an answer was lost";

/// The part of AWS that a region belongs to, as ARNs name it.
pub(super) fn partition(region: &str) -> &'static str {
    match region {
        _ if region.starts_with("cn-") => "aws-cn",
        _ if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}

/// The role that an account lends its neighbours for copies of their images: Image Builder's own name for it.
pub(super) fn copying_role(region: &str, account: &str) -> String {
    format!("arn:{}:iam::{account}:role/EC2ImageBuilderDistributionCrossAccountRole", partition(region))
}

/// Collects the calls of a step in a region.
struct Calls<'a> {
    region: &'a str,
    calls: Vec<Call>,
}

impl Calls<'_> {
    fn add(&mut self, action: &str, resource: impl Into<String>) -> &mut Call {
        let call = Call { action: action.to_owned(), resource: resource.into(), operations: None, often: None };
        self.calls.push(call);
        let last = self.calls.len() - 1;
        &mut self.calls[last]
    }

    /// Resources of EC2 that belong to no account.
    fn ec2(&self, kind: &str) -> String {
        format!("arn:{}:ec2:{}::{kind}/*", partition(self.region), self.region)
    }

    fn s3(&self, object: &Object) -> String {
        format!("arn:{}:s3:::{}/{}", partition(self.region), object.bucket, object.key)
    }

    fn upload(&mut self, object: &Object) {
        let (resource, bucket) = (self.s3(object), format!("arn:{}:s3:::{}", partition(self.region), object.bucket));
        self.add("s3:ListBucketMultipartUploads", bucket).often = Some(IF_UNKNOWN);
        let put = self.add("s3:PutObject", &resource);
        put.operations = Some("CreateMultipartUpload, UploadPart, CompleteMultipartUpload");
        put.often = Some(PER_PART);
        self.add("s3:AbortMultipartUpload", &resource).often = Some("where an upload has to begin anew");
        self.add("s3:GetObject", resource).operations = Some("HeadObject");
    }

    fn image_is_ready(&mut self) {
        self.add("ec2:DescribeImages", "*").often = Some(UNTIL_READY);
    }

    fn snapshot_is_ready(&mut self) {
        self.add("ec2:DescribeSnapshots", "*").often = Some(UNTIL_READY);
    }

    /// What EBS does in the caller's name where a disk is encrypted: "Amazon EBS encryption", permissions for IAM users.
    fn key(&mut self, image: &Image) {
        let Some(key) = &image.kms_key else { return };
        let resource = if key.starts_with("arn:") && !key.contains(":alias/") { key.as_str() } else { "*" };
        for action in ["CreateGrant", "Decrypt", "DescribeKey", "GenerateDataKeyWithoutPlaintext", "ReEncrypt*"] {
            self.add(&format!("kms:{action}"), resource);
        }
    }

    fn tags(&mut self, kind: &str) {
        let resource = self.ec2(kind);
        self.add("ec2:CreateTags", resource);
    }
}

impl Step {
    /// What it asks of AWS in a region.
    pub fn calls(&self, region: &str) -> Vec<Call> {
        let mut calls = Calls { region, calls: Vec::new() };
        let (image, snapshot) = (calls.ec2("image"), calls.ec2("snapshot"));
        match self {
            Self::Snapshot { image, .. } => {
                calls.add("ebs:StartSnapshot", &snapshot);
                calls.tags("snapshot");
                calls.add("ebs:PutSnapshotBlock", &snapshot).often = Some(PER_BLOCK);
                calls.add("ebs:CompleteSnapshot", snapshot);
                calls.snapshot_is_ready();
                calls.key(image);
            }
            Self::Upload { object, .. } => calls.upload(object),
            Self::Import { role, image, .. } => {
                calls.add(
                    "ec2:ImportSnapshot",
                    format!("arn:{}:ec2:{region}:*:import-snapshot-task/*", partition(region)),
                );
                calls.add("ec2:ImportSnapshot", snapshot);
                let role = format!("arn:{}:iam::*:role/{role}", partition(region));
                calls.add("iam:PassRole", role).operations = Some("ImportSnapshot");
                calls.add("ec2:DescribeImportSnapshotTasks", "*").often = Some(UNTIL_READY);
                calls.tags("snapshot");
                calls.key(image);
            }
            Self::RemoveObject { object } => {
                let resource = calls.s3(object);
                calls.add("s3:DeleteObject", resource);
            }
            Self::Register(_) => {
                calls.add("ec2:RegisterImage", image);
                calls.add("ec2:RegisterImage", snapshot);
                calls.tags("image");
                calls.image_is_ready();
            }
            Self::CopyFromRegion { from, image: copy } => {
                for (region, kind) in [(region, "image"), (region, "snapshot"), (from, "image"), (from, "snapshot")] {
                    let resource = Calls { region, calls: Vec::new() }.ec2(kind);
                    calls.add("ec2:CopyImage", resource);
                }
                calls.tags("image");
                calls.image_is_ready();
                calls.key(copy);
            }
            Self::Share(_) => {
                calls.add("ec2:ModifyImageAttribute", image);
            }
            Self::CopyToAccount { account, .. } => {
                calls.add("ec2:ModifyImageAttribute", image);
                calls.add("ec2:ModifySnapshotAttribute", snapshot);
                calls.as_account(account);
            }
            Self::Deprecate { .. } => {
                calls.add("ec2:EnableImageDeprecation", image);
            }
            Self::Template { account: Some(account), .. } | Self::Parameter { account: Some(account), .. } => {
                calls.as_account(account);
            }
            Self::Template { id, set_default, .. } => {
                let template = format!("arn:{}:ec2:{region}:*:launch-template/{id}", partition(region));
                calls.add("ec2:DescribeLaunchTemplates", "*");
                calls.add("ec2:CreateLaunchTemplateVersion", &template);
                if *set_default {
                    calls.add("ec2:ModifyLaunchTemplate", template);
                }
            }
            Self::Parameter { name, is_image, .. } => {
                let name = name.trim_start_matches('/');
                let parameter = format!("arn:{}:ssm:{region}:*:parameter/{name}", partition(region));
                calls.add("ssm:GetParameter", &parameter);
                calls.add("ssm:PutParameter", parameter);
                if *is_image {
                    calls.add("ec2:DescribeImages", "*").operations = Some("PutParameter, in the caller's name");
                }
            }
            Self::Instructions { .. } | Self::Files { .. } => {}
        }
        calls.calls
    }

    /// What `--undo` asks of AWS for it.
    pub fn undoing_calls(&self, region: &str) -> Vec<Call> {
        let mut calls = Calls { region, calls: Vec::new() };
        let (image, snapshot) = (calls.ec2("image"), calls.ec2("snapshot"));
        match self {
            Self::Snapshot { .. } => {
                calls.add("ec2:DeleteSnapshot", snapshot);
            }
            Self::Upload { object, .. } => {
                let resource = calls.s3(object);
                calls.add("s3:DeleteObject", &resource);
                calls.add("s3:AbortMultipartUpload", resource);
            }
            Self::Import { .. } => {
                calls.add("ec2:CancelImportTask", "*");
                calls.add("ec2:DescribeImportSnapshotTasks", "*");
                calls.add("ec2:DeleteSnapshot", snapshot);
            }
            Self::Register(_) | Self::CopyFromRegion { .. } => {
                calls.add("ec2:DescribeImages", "*");
                calls.add("ec2:DeregisterImage", image);
                calls.add("ec2:DeleteSnapshot", snapshot);
            }
            Self::CopyToAccount { account, .. }
            | Self::Template { account: Some(account), .. }
            | Self::Parameter { account: Some(account), .. } => calls.as_account(account),
            Self::Template { id, .. } => {
                let template = format!("arn:{}:ec2:{region}:*:launch-template/{id}", partition(region));
                calls.add("ec2:ModifyLaunchTemplate", &template);
                calls.add("ec2:DeleteLaunchTemplateVersions", template);
            }
            Self::Parameter { name, .. } => {
                let name = name.trim_start_matches('/');
                let parameter = format!("arn:{}:ssm:{region}:*:parameter/{name}", partition(region));
                calls.add("ssm:PutParameter", &parameter);
                calls.add("ssm:DeleteParameter", parameter);
            }
            Self::RemoveObject { .. }
            | Self::Instructions { .. }
            | Self::Share(_)
            | Self::Deprecate { .. }
            | Self::Files { .. } => {}
        }
        calls.calls
    }
}

impl Calls<'_> {
    /// What is done in another account is what its role allows.
    fn as_account(&mut self, account: &str) {
        let role = copying_role(self.region, account);
        self.add("sts:AssumeRole", role);
    }
}

impl Plan {
    /// What is asked of AWS at the end, when all places are done.
    pub fn last_calls(&self) -> Vec<Call> {
        let mut last = Vec::new();
        for pointer in &self.pointers {
            if let PointerPlace::Object(object @ Object { endpoint: None, .. }) = &pointer.to {
                let mut calls = Calls { region: &object.region, calls: Vec::new() };
                let resource = calls.s3(object);
                calls.add("s3:GetObject", &resource);
                calls.add("s3:PutObject", resource);
                last.append(&mut calls.calls);
            }
        }
        if let Some(topic) = &self.topic {
            let mut calls = Calls { region: "", calls: Vec::new() };
            calls.add("sns:Publish", topic);
            last.append(&mut calls.calls);
        }
        last
    }

    /// The least policy that allows the plan: a document of IAM. Buckets of servers that are not AWS's are left out.
    pub fn policy(&self, with_undo: bool) -> Value {
        let mut calls: Vec<Call> = Vec::new();
        let is_aws = |place: &&Place| {
            !place.steps.iter().any(|step| matches!(step, Step::Upload { object, .. } if object.endpoint.is_some()))
        };
        for place in self.places.iter().filter(is_aws) {
            let region = place.region.as_deref().unwrap_or_default();
            calls.extend(place.steps.iter().flat_map(|step| step.calls(region)));
            if with_undo {
                calls.extend(place.steps.iter().flat_map(|step| step.undoing_calls(region)));
            }
        }
        calls.extend(self.last_calls());
        policy(&calls)
    }
}

/// A statement for each set of resources, each action once.
fn policy(calls: &[Call]) -> Value {
    let mut by_action: Vec<(&str, Vec<&str>)> = Vec::new();
    for call in calls {
        match by_action.iter_mut().find(|(action, _)| *action == call.action) {
            Some((_, resources)) => resources.push(&call.resource),
            None => by_action.push((&call.action, vec![&call.resource])),
        }
    }
    let mut by_resources: Vec<(Vec<&str>, Vec<&str>)> = Vec::new();
    for (action, mut resources) in by_action {
        resources.sort_unstable();
        resources.dedup();
        match by_resources.iter_mut().find(|(known, _)| *known == resources) {
            Some((_, actions)) => actions.push(action),
            None => by_resources.push((resources, vec![action])),
        }
    }
    let statements = by_resources.into_iter().map(|(resources, mut actions)| {
        actions.sort_unstable();
        json!({ "Effect": "Allow", "Action": actions, "Resource": resources })
    });
    json!({ "Version": "2012-10-17", "Statement": statements.collect::<Vec<_>>() })
}

/// The policies of the role by which VM Import reads a bucket: whom it trusts, and what it may. Source: AWS's "VM
/// Import/Export User Guide", "Required permissions".
pub(super) fn import_role(region: &str, bucket: &str) -> (Value, Value) {
    let trust = json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow",
            "Principal": { "Service": "vmie.amazonaws.com" },
            "Action": "sts:AssumeRole",
            "Condition": { "StringEquals": { "sts:Externalid": "vmimport" } }
        }]
    });
    let bucket = format!("arn:{}:s3:::{bucket}", partition(region));
    let permissions = json!({
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["s3:GetBucketLocation", "s3:GetObject", "s3:ListBucket"],
                "Resource": [bucket, format!("{bucket}/*")]
            },
            {
                "Effect": "Allow",
                "Action": ["ec2:ModifySnapshotAttribute", "ec2:CopySnapshot", "ec2:RegisterImage", "ec2:Describe*"],
                "Resource": "*"
            }
        ]
    });
    (trust, permissions)
}
