//! What `Ref` and `Fn::GetAtt` give: names and ARNs that a template says itself, and the rest, which only AWS knows.

use std::ops::Range;

use super::Resource;
use super::intrinsic::Evaluator;
use super::value::{Content, Text, Value};
use crate::document::arn::slug;

/// What types of Image Builder's begin with.
const OWN: &str = "AWS::ImageBuilder::";

/// Types whose `Ref` is a property.
const NAMES: [(&str, &str); 8] = [
    ("AWS::S3::Bucket", "BucketName"),
    ("AWS::SSM::Parameter", "Name"),
    ("AWS::EC2::KeyPair", "KeyName"),
    ("AWS::ECR::Repository", "RepositoryName"),
    ("AWS::Logs::LogGroup", "LogGroupName"),
    ("AWS::IAM::Role", "RoleName"),
    ("AWS::IAM::InstanceProfile", "InstanceProfileName"),
    ("AWS::KMS::Alias", "AliasName"),
];

impl Evaluator<'_> {
    /// What `Ref` gives of a resource.
    pub(super) fn reference(&self, resource: Resource<'_>, span: &Range<usize>) -> Value {
        if let Some(kind) = resource.kind.strip_prefix(OWN) {
            return self.own_arn(resource, kind, span);
        }
        if resource.kind == "AWS::SNS::Topic" {
            return self.topic_arn(resource, span);
        }
        let property =
            NAMES.iter().find(|(kind, _)| *kind == resource.kind).and_then(|(_, name)| resource.property(name));
        match property {
            Some(node) => self.of_resource(resource, span, || self.value(node)),
            None => self.only_aws(resource, resource.id, span),
        }
    }

    /// What `Fn::GetAtt` gives of a resource.
    pub(super) fn attribute(&self, resource: Resource<'_>, attribute: &str, span: &Range<usize>) -> Value {
        match (resource.kind, attribute) {
            (kind, "Arn" | "LatestVersion.Arn") if kind.starts_with(OWN) => return self.reference(resource, span),
            // An image gets these when it is built.
            (kind, "ImageId" | "ImageUri") if kind.starts_with(OWN) => {}
            (kind, "Name") if kind.starts_with(OWN) => {
                return self.of_resource(resource, span, || self.own_name(resource));
            }
            ("AWS::S3::Bucket", "Arn") => {
                let name = self.reference(resource, span);
                return self.joined(span, &[&format!("arn:{}:s3:::", self.environment.partition())], &[name]);
            }
            ("AWS::SNS::Topic", "TopicArn") => return self.reference(resource, span),
            (kind, name) if kind.starts_with(OWN) || name == "TopicName" => {
                if let Some(node) = resource.property(name) {
                    return self.of_resource(resource, span, || self.value(node));
                }
            }
            ("AWS::CloudFormation::Stack", _) => {
                let why = format!("the stack `{}` gives it", resource.id);
                let mend = "import that stack's template too, and put its document's name here";
                return self.unknown(span, &format!("{}-{attribute}", resource.id), why, mend.to_owned());
            }
            _ => {}
        }
        self.only_aws(resource, &format!("{}.{attribute}", resource.id), span)
    }

    fn only_aws(&self, resource: Resource<'_>, name: &str, span: &Range<usize>) -> Value {
        let why = format!("`{name}` ({}) is known when AWS has made it", resource.kind);
        let mut value = self.unknown(span, name, why, "put in what it is".to_owned());
        if let Content::Text(text) = &mut value.content {
            text.resource = Some(resource.id.to_owned());
        }
        value
    }

    fn own_name(&self, resource: Resource<'_>) -> Value {
        let name = resource.property("Name").map(|node| self.value(node));
        name.unwrap_or_else(|| Value::text(resource.span.clone(), Text::known(resource.id)))
    }

    fn own_arn(&self, resource: Resource<'_>, kind: &str, span: &Range<usize>) -> Value {
        let Some(node) = own_node(kind) else { return self.only_aws(resource, resource.id, span) };
        let arn = self.of_resource(resource, span, || {
            let name = self.own_name(resource);
            let version = resource.property("Version").map(|node| self.value(node));
            let mut text = self.arn_of("imagebuilder", span);
            let name = name.as_text().cloned().unwrap_or_default();
            text.gaps.extend(name.gaps);
            text.text.push_str(&format!("{node}/{}", slug(&name.text)));
            if let Some(Content::Text(version)) = version.map(|version| version.content) {
                text.gaps.extend(version.gaps);
                text.text.push_str(&format!("/{}", version.text));
            }
            Value::text(span.clone(), text)
        });
        match arn.content {
            Content::Text(text) => Value::text(arn.span, Text { resource: Some(resource.id.to_owned()), ..text }),
            _ => arn,
        }
    }

    fn topic_arn(&self, resource: Resource<'_>, span: &Range<usize>) -> Value {
        let Some(node) = resource.property("TopicName") else { return self.only_aws(resource, resource.id, span) };
        self.of_resource(resource, span, || {
            let mut text = self.arn_of("sns", span);
            if let Content::Text(name) = self.value(node).content {
                text.text.push_str(&name.text);
                text.gaps.extend(name.gaps);
            }
            Value::text(span.clone(), text)
        })
    }

    /// `arn:PARTITION:SERVICE:REGION:ACCOUNT:`.
    fn arn_of(&self, service: &str, span: &Range<usize>) -> Text {
        let (region, account) = (self.region(span), self.account(span));
        let partition = self.environment.partition();
        let text = format!("arn:{partition}:{service}:{}:{}:", region.text, account.text);
        Text { gaps: region.gaps.into_iter().chain(account.gaps).collect(), ..Text::known(text) }
    }

    /// Values of a resource's own, unless they lead back to it.
    fn of_resource(&self, resource: Resource<'_>, span: &Range<usize>, value: impl FnOnce() -> Value) -> Value {
        let mut value = self
            .within(&format!("the resource `{}`", resource.id), span, value)
            .unwrap_or(Value { span: span.clone(), content: Content::Nothing });
        value.span = span.clone();
        value
    }
}

/// What a type is called in ARNs.
fn own_node(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "Component" => "component",
        "ImageRecipe" => "image-recipe",
        "ContainerRecipe" => "container-recipe",
        "InfrastructureConfiguration" => "infrastructure-configuration",
        "DistributionConfiguration" => "distribution-configuration",
        "ImagePipeline" => "image-pipeline",
        "Image" => "image",
        "LifecyclePolicy" => "lifecycle-policy",
        "Workflow" => "workflow",
        _ => return None,
    })
}
