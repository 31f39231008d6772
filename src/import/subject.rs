//! What there is to import: resources of templates, and what the AWS command line takes or prints.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::report::{Fate, Note};
use crate::document::cloudformation::{Content, Entry, Environment, Evaluator, Resource, Template, Value};
use crate::document::decode::{Reader, Strictness};
use crate::document::diagnostic::Report;
use crate::document::syntax::{self, Source};

/// A kind of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Component,
    ImageRecipe,
    ContainerRecipe,
    Infrastructure,
    Distribution,
    Pipeline,
    Image,
    Lifecycle,
    Workflow,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::Component,
        Self::ImageRecipe,
        Self::ContainerRecipe,
        Self::Infrastructure,
        Self::Distribution,
        Self::Pipeline,
        Self::Image,
        Self::Lifecycle,
        Self::Workflow,
    ];

    /// Its name in CloudFormation, which is what the command line calls it too, but for the first letter.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Component => "Component",
            Self::ImageRecipe => "ImageRecipe",
            Self::ContainerRecipe => "ContainerRecipe",
            Self::Infrastructure => "InfrastructureConfiguration",
            Self::Distribution => "DistributionConfiguration",
            Self::Pipeline => "ImagePipeline",
            Self::Image => "Image",
            Self::Lifecycle => "LifecyclePolicy",
            Self::Workflow => "Workflow",
        }
    }

    /// Its name in ARNs.
    pub(super) fn arn(self) -> &'static str {
        match self {
            Self::Component => "component",
            Self::ImageRecipe => "image-recipe",
            Self::ContainerRecipe => "container-recipe",
            Self::Infrastructure => "infrastructure-configuration",
            Self::Distribution => "distribution-configuration",
            Self::Pipeline => "image-pipeline",
            Self::Image => "image",
            Self::Lifecycle => "lifecycle-policy",
            Self::Workflow => "workflow",
        }
    }
}

/// Something to import.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) source: Arc<Source>,
    /// Its name in the template, or its own.
    pub(super) id: String,
    /// The bytes of that name.
    pub(super) span: Range<usize>,
    pub(super) kind: Kind,
    /// Its properties.
    pub(super) value: Value,
    /// What security groups of the same template let out.
    pub(super) egress: Vec<(String, Egress)>,
}

/// What a security group lets out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Egress {
    Everything,
    Nothing,
    Some,
}

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) subjects: Vec<Subject>,
    pub(super) notes: Vec<Note>,
    /// How many resources of other types there are.
    pub(super) others: BTreeMap<String, usize>,
    /// Names of the template's parameters.
    pub(super) parameters: Vec<String>,
}

const PREFIX: &str = "AWS::ImageBuilder::";
const PROCESSED: &str = "import what `aws cloudformation get-template --template-stage Processed` prints of the stack";

/// A file whose text YAML can read: of JSON it lacks the characters that are escaped in two halves.
pub(super) fn readable(source: &Arc<Source>) -> Arc<Source> {
    let is_json = source.text.trim_start().starts_with('{');
    if !is_json || !source.text.contains("\\u") {
        return source.clone();
    }
    let half = |text: &str, bounds: std::ops::Range<u32>| {
        let digits = text.strip_prefix("\\u")?.get(..4)?;
        u32::from_str_radix(digits, 16).ok().filter(|half| bounds.contains(half))
    };
    let (mut text, mut rest) = (String::new(), source.text.as_str());
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let halves = half(rest, 0xD800..0xDC00).zip(rest.get(6..).and_then(|rest| half(rest, 0xDC00..0xE000)));
        if let Some((high, low)) = halves {
            text.push_str(&format!("\\U{:08X}", 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)));
            rest = &rest[12..];
            continue;
        }
        // A backslash and what it stands before, which may be another.
        let end = rest.char_indices().nth(2).map_or(rest.len(), |(end, _)| end);
        text.push_str(&rest[..end]);
        rest = &rest[end..];
    }
    text.push_str(rest);
    Source::new(source.name.clone(), text)
}

/// What a file holds that can be imported.
pub(super) fn find(source: &Arc<Source>, environment: &Environment) -> Result<Found, Report> {
    match Template::parse(source)? {
        Some(template) => of_template(&template, environment),
        None => of_request(source),
    }
}

fn of_template(template: &Template, environment: &Environment) -> Result<Found, Report> {
    let evaluator = Evaluator::new(template, environment);
    let mut found = Found { notes: changes(template), ..Found::default() };
    found.parameters = template.parameters().into_iter().map(str::to_owned).collect();
    for resource in template.resources() {
        let Some(name) = resource.kind.strip_prefix(PREFIX) else {
            *found.others.entry(resource.kind.to_owned()).or_default() += 1;
            continue;
        };
        let note = |fate, message: &str, mend: Option<&str>| Note {
            source: template.source.clone(),
            span: resource.span.clone(),
            fate,
            what: resource.id.to_owned(),
            message: message.to_owned(),
            mend: mend.map(str::to_owned),
            stand_in: None,
        };
        let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.name() == name) else {
            found.notes.push(note(Fate::Lost, &format!("nothing here is like {}", resource.kind), None));
            continue;
        };
        let condition = resource.condition();
        match condition.map(|condition| evaluator.holds(condition)) {
            Some(Some(false)) => {
                let text = condition.and_then(|node| node.text()).unwrap_or_default();
                let message = format!("the template makes none of it: the condition `{text}` does not hold");
                found.notes.push(note(
                    Fate::Lost,
                    &message,
                    Some("--parameter gives the template's parameters other values"),
                ));
                continue;
            }
            Some(None) => {
                found.notes.push(note(Fate::Open, "whether its condition holds is not known; it is imported", None));
            }
            Some(Some(true)) | None => {}
        }
        found.subjects.push(subject(template, &evaluator, resource, kind));
    }
    evaluator.finish()?;
    Ok(found)
}

fn subject(template: &Template, evaluator: &Evaluator<'_>, resource: Resource<'_>, kind: Kind) -> Subject {
    let value = resource.properties().map(|node| evaluator.value(node));
    let egress = if kind == Kind::Infrastructure { egress(template, evaluator) } else { Vec::new() };
    Subject {
        source: template.source.clone(),
        id: resource.id.to_owned(),
        span: resource.span.clone(),
        kind,
        value: value.unwrap_or(Value { span: resource.span.clone(), content: Content::Map(Vec::new()) }),
        egress,
    }
}

/// What changes the template before it is used.
fn changes(template: &Template) -> Vec<Note> {
    let note = |span: &Range<usize>, what: &str, message: String, fate| Note {
        source: template.source.clone(),
        span: span.clone(),
        fate,
        what: what.to_owned(),
        message,
        mend: Some(PROCESSED.to_owned()),
        stand_in: None,
    };
    // These change nothing of Image Builder's, or bring functions that are known here.
    let harmless = |name: &str| name == "AWS::LanguageExtensions" || name.starts_with("AWS::Serverless-");
    let transforms = template.transforms().into_iter().filter(|name| !harmless(name.value)).map(|name| {
        let message = format!("`{}` changes the template before it is used; imported is what stands here", name.value);
        note(&name.span, "Transform", message, Fate::Open)
    });
    let later = template.made_later().map(|node| {
        let name = node.text().unwrap_or_default();
        note(
            &node.span,
            name,
            "it makes resources when the template is used, which can't be imported".to_owned(),
            Fate::Lost,
        )
    });
    transforms.chain(later).collect()
}

/// What security groups of a template let out.
fn egress(template: &Template, evaluator: &Evaluator<'_>) -> Vec<(String, Egress)> {
    let groups = template.resources().filter(|resource| resource.kind == "AWS::EC2::SecurityGroup");
    let group = |resource: Resource<'_>| {
        // Without rules of its own a group lets out everything: CloudFormation, "AWS::EC2::SecurityGroup".
        let Some(node) = resource.property("SecurityGroupEgress") else { return Egress::Everything };
        let rules = evaluator.value(node);
        let reaches = |rule: &Value| {
            let address = ["CidrIp", "CidrIpv6"].iter().find_map(|name| rule.member(name)?.as_text());
            match address.map(|text| text.text.as_str()) {
                Some("0.0.0.0/0" | "::/0") => Egress::Everything,
                // The usual way to write "nothing", because a group without rules lets out everything.
                Some("127.0.0.1/32" | "::1/128") => Egress::Nothing,
                _ => Egress::Some,
            }
        };
        let rules: Vec<Egress> = rules.items().iter().map(reaches).collect();
        match rules.as_slice() {
            rules if rules.contains(&Egress::Everything) => Egress::Everything,
            [] => Egress::Everything,
            rules if rules.iter().all(|rule| *rule == Egress::Nothing) => Egress::Nothing,
            _ => Egress::Some,
        }
    };
    groups.map(|resource| (resource.id.to_owned(), group(resource))).collect()
}

/// What the AWS command line takes or prints.
fn of_request(source: &Arc<Source>) -> Result<Found, Report> {
    let root = syntax::parse(source)?;
    let reader = Reader::new(source.clone(), Strictness::Compat);
    let value = Value::literal(&root);
    let wrapped = Kind::ALL.into_iter().find_map(|kind| {
        let inner = value.member(kind.name())?;
        matches!(inner.content, Content::Map(_)).then(|| (kind, inner.clone()))
    });
    let (kind, value) = match wrapped {
        Some((kind, inner)) => (Some(kind), inner),
        None => (guess(&value), value),
    };
    let stem = Path::new(&source.name).file_stem().and_then(|stem| stem.to_str()).unwrap_or("input");
    let subject = kind.map(|kind| requested(source, kind, value, stem));
    if subject.is_none() {
        let help =
            "imported are CloudFormation templates, and what `aws imagebuilder create-…` takes or `get-…` prints";
        let has = |name: &str| root.get(name).is_some();
        let message = if has("phases") {
            "this is a component document, which needs no import: a recipe can name it"
        } else if has("kind") {
            "this is a document of goldsmith's already"
        } else {
            "this is nothing that can be imported"
        };
        let start = root.span.start;
        reader.error_with_help(&(start..start + 1), message, help);
    }
    let found = subject.map(|mut subject| Found {
        subjects: if subject.kind == Kind::Image {
            apart(&mut subject).chain([subject]).collect()
        } else {
            vec![subject]
        },
        ..Found::default()
    });
    reader.finish(found).map(|(found, _)| found)
}

fn requested(source: &Arc<Source>, kind: Kind, value: Value, otherwise: &str) -> Subject {
    let name = value.member("name");
    let id = name.and_then(Value::as_text).map_or(otherwise, |text| text.text.as_str()).to_owned();
    let span = name.map_or(value.span.start..value.span.start + 1, |name| name.span.clone());
    Subject { source: source.clone(), id, span, kind, value, egress: Vec::new() }
}

/// What an image has been made of, which `get-image` prints within it, as things of their own that it names.
fn apart(image: &mut Subject) -> std::vec::IntoIter<Subject> {
    let mut parts = Vec::new();
    let Content::Map(entries) = &mut image.value.content else { return parts.into_iter() };
    for kind in [Kind::ImageRecipe, Kind::Infrastructure, Kind::Distribution] {
        let whole = entries.iter().position(|entry| entry.key.eq_ignore_ascii_case(kind.name()));
        let Some(whole) = whole.filter(|&place| matches!(entries[place].value.content, Content::Map(_))) else {
            continue;
        };
        let entry = entries.remove(whole);
        if let Some(arn) = entry.value.member("arn") {
            let key = format!("{}Arn", entry.key);
            entries.push(Entry { key, span: entry.span.clone(), value: arn.clone() });
        }
        parts.push(requested(&image.source, kind, entry.value, kind.arn()));
    }
    parts.into_iter()
}

/// Members that tell what a request is about, the telling ones first.
const MARKS: [(&str, Kind); 12] = [
    ("containerType", Kind::ContainerRecipe),
    ("parentImage", Kind::ImageRecipe),
    ("distributions", Kind::Distribution),
    ("policyDetails", Kind::Lifecycle),
    ("platform", Kind::Component),
    ("instanceProfileName", Kind::Infrastructure),
    ("instanceTypes", Kind::Infrastructure),
    ("schedule", Kind::Pipeline),
    ("infrastructureConfigurationArn", Kind::Pipeline),
    ("imageRecipeArn", Kind::Pipeline),
    ("data", Kind::Workflow),
    ("uri", Kind::Workflow),
];

fn guess(value: &Value) -> Option<Kind> {
    if value.member("kind").is_some() || value.member("phases").is_some() {
        return None;
    }
    let (_, kind) = MARKS.into_iter().find(|(mark, _)| value.member(mark).is_some())?;
    match kind {
        // What VM imports are for has a platform too.
        Kind::Component => ["data", "uri"].iter().find_map(|name| value.member(name)).map(|_| kind),
        // Only pipelines have names of their own; what calls print of an ARN alone is neither.
        Kind::Pipeline if value.member("name").is_none() => {
            value.member("infrastructureConfigurationArn").map(|_| Kind::Image)
        }
        kind => Some(kind),
    }
}
