//! Pipelines and single images: what is built of which recipe, on what, and where it goes.

use super::members::{Member, Members};
use super::out::Out;
use super::place::Places;
use super::report::{Fate, Notes};
use super::settle::settle;
use super::subject::{Kind, Subject};
use super::{Draft, comment};
use crate::document::arn::Arn;
use crate::document::component::Platform;
use crate::document::resource;

const LOST: [(&str, &str, &str); 8] = [
    (
        "EnhancedImageMetadataEnabled",
        "packages are not asked of Systems Manager here",
        "every image's manifest lists what it was made of",
    ),
    ("ExecutionRole", "nothing here takes on a role in AWS", ""),
    (
        "LoggingConfiguration",
        "there is no CloudWatch here",
        "`goldsmith image log`, or `logs` of an infrastructure configuration",
    ),
    ("ImageScanningConfiguration", "there is no Inspector here", "a test component can scan"),
    ("DeletionSettings", "stacks are not deleted here", "`goldsmith image rm`, or a lifecycle policy"),
    ("ImagePipelineExecutionSettings", "stacks are not updated here", "`goldsmith pipeline run`"),
    ("DeploymentId", "stacks are not updated here", ""),
    ("ImageSource", "it says where an image of AWS's came from", ""),
];

/// What calls print beside.
const OF_ANSWERS: [&str; 22] = [
    "Arn",
    "DateCreated",
    "DateUpdated",
    "DateLastRun",
    "DateNextRun",
    "LastRunStatus",
    "ConsecutiveFailures",
    "Platform",
    "Version",
    "Type",
    "State",
    "OsVersion",
    "BuildType",
    "OutputResources",
    "SourcePipelineName",
    "SourcePipelineArn",
    "ScanState",
    "DeprecationTime",
    "LifecycleExecutionId",
    "LatestVersionReferences",
    "ClientToken",
    "DryRun",
];

/// What a pipeline or an image comes to. `gone` says which of the others have no document.
pub(super) fn import(index: usize, places: &Places<'_>, gone: &[bool], notes: &mut Notes<'_>) -> Option<Draft> {
    let (subject, place) = (&places.subjects[index], &places.places[index]);
    let mut members = Members::of(&subject.value, "");
    if let Some(container) = members.take("ContainerRecipeArn") {
        notes.say(Fate::Lost, &container.origin, "it makes container images, which goldsmith does not build", None);
        return None;
    }
    if subject.kind == Kind::Image {
        let message =
            format!("a pipeline without a schedule: `goldsmith pipeline run {}` makes the image", quoted(&place.name));
        notes.say_of_all(Fate::Mapped, message, None);
    }
    let mut document = vec![("kind", Out::text("ImagePipeline")), ("name", super::name(&mut members, place, notes))];
    members.keep(&["description"], &mut document, notes);
    let others = Others { subject, places, gone };
    let Some(recipe) = members.take("ImageRecipeArn") else {
        notes.say_of_all(Fate::Lost, "it has no recipe", None);
        return None;
    };
    document.push(others.reference(&recipe, Kind::ImageRecipe, ("recipe", "imageRecipeArn"), notes)?);
    let infrastructure = ("infrastructure", "infrastructureConfigurationArn");
    let distribution = ("distribution", "distributionConfigurationArn");
    for (kind, names) in [(Kind::Infrastructure, infrastructure), (Kind::Distribution, distribution)] {
        let member = members.take(names.1);
        document.extend(member.and_then(|member| others.reference(&member, kind, names, notes)));
    }
    members.keep(&["schedule", "status", "imageTestsConfiguration"], &mut document, notes);
    workflows(&mut members, notes);
    if subject.kind == Kind::Image {
        // The labels of an image are those of what the pipeline makes.
        document.extend(members.take("Tags").and_then(|member| Some(("imageTags", member.keep(notes)?))));
    } else {
        members.keep(&["tags", "imageTags"], &mut document, notes);
    }
    members.lose(&LOST, notes);
    members.ignore(&OF_ANSWERS);
    members.finish(notes);
    let read = |source: &_| resource::decode(source).map(drop);
    let text = settle(&mut Out::map(document), &comment(subject), notes, read)?;
    Some(Draft { file: place.file.clone(), text, platform: Platform::Linux, more: Vec::new() })
}

fn quoted(name: &str) -> String {
    if name.contains(' ') { format!("'{name}'") } else { name.to_owned() }
}

/// What a pipeline may name.
struct Others<'a> {
    subject: &'a Subject,
    places: &'a Places<'a>,
    gone: &'a [bool],
}

impl Others<'_> {
    /// Another document by its file, or what is said of it.
    fn reference(
        &self,
        member: &Member<'_>,
        kind: Kind,
        (own, arn): (&'static str, &'static str),
        notes: &mut Notes<'_>,
    ) -> Option<(&'static str, Out)> {
        let Some(text) = member.value.as_text() else {
            notes.say(Fate::Lost, &member.origin, "an ARN is needed", None);
            return None;
        };
        if let Some(index) = self.places.find(self.subject, kind, text) {
            let file = &self.places.places[index].file;
            if self.gone[index] {
                notes.say(
                    Fate::Lost,
                    &member.origin,
                    format!("`{}` was not imported", self.places.subjects[index].id),
                    None,
                );
                return None;
            }
            notes.say(Fate::Mapped, &member.origin, format!("the file {file}"), None);
            return Some((own, Out::text(file.as_str()).from(&member.origin)));
        }
        let is_arn = text.text.parse::<Arn>().is_ok_and(|arn| arn.kind == kind.arn());
        if is_arn {
            let command = kind.arn();
            let mend =
                format!("import what `aws imagebuilder get-{command} --{command}-arn {}` prints as well", text.text);
            notes.say(Fate::Open, &member.origin, "it is not among what is imported", Some(&mend));
        } else {
            notes.kept(&member.origin, member.value);
        }
        Some((if is_arn { arn } else { own }, Out::text(text.text.as_str()).from(&member.origin)))
    }
}

/// The service's own workflows are what goldsmith does anyhow.
fn workflows(members: &mut Members<'_>, notes: &mut Notes<'_>) {
    const MANAGED: [&str; 3] = ["build-image", "test-image", "distribute-image"];
    let Some(member) = members.take("Workflows") else { return };
    for item in member.items() {
        let text = item.member("WorkflowArn").and_then(|arn| arn.value.as_text().cloned()).unwrap_or_default();
        let arn = text.text;
        let is_managed = arn.contains(":aws:workflow/") && arn.rsplit('/').any(|part| MANAGED.contains(&part));
        if is_managed {
            notes.say(Fate::Mapped, &item.origin, "goldsmith does the same by itself", None);
        } else {
            let name = text.resource.unwrap_or(arn);
            let message = format!("`{name}` can't be run: goldsmith has its own order of work");
            notes.say(Fate::Lost, &item.origin, message, None);
        }
    }
}
