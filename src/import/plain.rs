//! Kinds whose documents are the API's own: distribution configurations and lifecycle policies.

use super::members::Members;
use super::out::Out;
use super::place::Place;
use super::report::{Fate, Notes};
use super::settle::settle;
use super::subject::{Kind, Subject};
use super::{Draft, comment};
use crate::document::component::Platform;
use crate::document::resource;

/// What a distribution configuration comes to.
pub(super) fn distribution(subject: &Subject, place: &Place, notes: &mut Notes<'_>) -> Option<Draft> {
    let lost = [
        ("Tags", "they label the configuration in AWS", "`amiTags` label AMIs"),
        ("TimeoutMinutes", "a publication goes on until it is done", "`goldsmith publish --resume` goes on with one"),
    ];
    import(subject, place, &["description", "distributions"], &lost, notes)
}

/// What a lifecycle policy comes to.
pub(super) fn lifecycle(subject: &Subject, place: &Place, notes: &mut Notes<'_>) -> Option<Draft> {
    let lost =
        [("ExecutionRole", "nothing here takes on a role in AWS", ""), ("Tags", "they label the policy in AWS", "")];
    let kept = ["description", "status", "resourceType", "policyDetails", "resourceSelection"];
    import(subject, place, &kept, &lost, notes)
}

fn import(
    subject: &Subject,
    place: &Place,
    kept: &[&'static str],
    lost: &[(&str, &str, &str)],
    notes: &mut Notes<'_>,
) -> Option<Draft> {
    let mut members = Members::of(&subject.value, "");
    let mut document =
        vec![("kind", Out::text(subject.kind.name())), ("name", super::name(&mut members, place, notes))];
    members.keep(kept, &mut document, notes);
    members.lose(lost, notes);
    members.ignore(&["Arn", "DateCreated", "DateUpdated", "DateLastRun", "ClientToken", "DryRun"]);
    members.finish(notes);
    let read = |source: &_| resource::decode(source).map(drop);
    let text = settle(&mut Out::map(document), &comment(subject), notes, read)?;
    Some(Draft { file: place.file.clone(), text, platform: Platform::Linux, more: Vec::new() })
}

/// What has no like here.
pub(super) fn refuse(subject: &Subject, notes: &mut Notes<'_>) {
    let (message, mend) = match subject.kind {
        Kind::ContainerRecipe => {
            ("goldsmith builds no container images", "its components are imported, and an image recipe can name them")
        }
        _ => ("goldsmith has its own order of work", "a component's steps do what a workflow's steps do in a machine"),
    };
    notes.say_of_all(Fate::Lost, message, Some(mend));
}
