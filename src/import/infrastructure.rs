//! Infrastructure configurations: AWS's machines and networks as what stands for them here.

use super::members::{Member, Members};
use super::out::Out;
use super::place::Place;
use super::report::{Fate, Notes};
use super::settle::settle;
use super::subject::{Egress, Subject};
use super::{Draft, comment};
use crate::document::component::Platform;
use crate::document::{infrastructure, resource};
use crate::notify::Target;

const LOST: [(&str, &str, &str); 6] = [
    ("InstanceProfileName", "guests have no role in AWS", "S3Download and S3Upload use the host's own credentials"),
    ("SubnetId", "machines here are in no subnet", "`proxy` and `mirrors` say how guests reach what they need"),
    ("ResourceTags", "they label AWS's machines", "`imageTags` of a pipeline label images"),
    (
        "InstanceMetadataOptions",
        "guests have no metadata service of EC2's",
        "`imdsSupport: v2.0` of a distribution is for the AMIs",
    ),
    ("Placement", "there are no zones and hosts to choose from", ""),
    ("Tags", "they label the configuration in AWS", ""),
];

/// What an infrastructure configuration comes to.
pub(super) fn import(subject: &Subject, place: &Place, notes: &mut Notes<'_>) -> Option<Draft> {
    let mut members = Members::of(&subject.value, "");
    let mut document =
        vec![("kind", Out::text("InfrastructureConfiguration")), ("name", super::name(&mut members, place, notes))];
    members.keep(&["description"], &mut document, notes);
    document.extend(members.take("InstanceTypes").and_then(|member| Some(("machine", machine(&member, notes)?))));
    document.extend(members.take("SecurityGroupIds").map(|member| ("network", network(&member, subject, notes))));
    members.keep(&["terminateInstanceOnFailure"], &mut document, notes);
    document.extend(members.take("Logging").and_then(|member| logs(&member, notes)));
    document.extend(members.take("SnsTopicArn").and_then(|member| Some(("snsTopicArn", topic(&member, notes)?))));
    if let Some(key) = members.take("KeyPair") {
        let message = "no key is needed to look into a machine: `goldsmith shell` opens one";
        notes.say(
            Fate::Mapped,
            &key.origin,
            message,
            Some("`terminateInstanceOnFailure: false` keeps the disk of one that failed"),
        );
    }
    members.lose(&LOST, notes);
    members.ignore(&["Arn", "DateCreated", "DateUpdated", "ClientToken", "DryRun"]);
    members.finish(notes);
    let read = |source: &_| resource::decode(source).map(drop);
    let text = settle(&mut Out::map(document), &comment(subject), notes, read)?;
    Some(Draft { file: place.file.clone(), text, platform: Platform::Linux, more: Vec::new() })
}

/// The size of the first instance type whose size is known: the service takes the first that is to be had.
fn machine(member: &Member<'_>, notes: &mut Notes<'_>) -> Option<Out> {
    let items = member.items();
    let known = items.iter().find_map(|item| {
        let name = item.text()?;
        Some((item, name, infrastructure::shape(name)?))
    });
    let Some((item, name, (cpus, memory))) = known else {
        let mend = Some("say it by `machine: { cpus: 2, memory: 4GiB }`");
        let origin = items.first().map_or(&member.origin, |item| &item.origin);
        notes.say(Fate::Lost, origin, "the size of its machine is not known, and the recipe's is taken", mend);
        return None;
    };
    let message = format!("`{name}` is a machine with {cpus} processors and {memory}");
    notes.say(Fate::Mapped, &item.origin, message, None);
    let others: Vec<&str> = items.iter().filter(|other| other.origin != item.origin).filter_map(Member::text).collect();
    if !others.is_empty() {
        let message = format!("{}: no other is needed, because one is always to be had here", others.join(", "));
        notes.say(Fate::Lost, &member.origin, message, None);
    }
    let machine = vec![("cpus", Out::plain(cpus)), ("memory", Out::text(memory.to_string()))];
    Some(Out::map(machine).from(&member.origin))
}

/// What security groups let out, as far as the template says it.
fn network(member: &Member<'_>, subject: &Subject, notes: &mut Notes<'_>) -> Out {
    let items = member.items();
    let of = |item: &Member<'_>| {
        let id = item.value.as_text()?.resource.clone()?;
        subject.egress.iter().find(|(known, _)| *known == id).map(|(_, egress)| egress.clone())
    };
    let groups: Vec<Option<Egress>> = items.iter().map(of).collect();
    let all = |wanted: &Egress| !groups.is_empty() && groups.iter().all(|group| group.as_ref() == Some(wanted));
    let (fate, mode, message, mend) = if all(&Egress::Nothing) {
        (Fate::Mapped, "none", "`network: none`, because the group lets nothing out", None)
    } else if groups.contains(&Some(Egress::Everything)) {
        (Fate::Mapped, "full", "`network: full`, because the group lets everything out", None)
    } else if groups.contains(&Some(Egress::Some)) {
        let message =
            "`network: full`: guests can be held to hosts by their names, not to the group's addresses and ports";
        (Fate::Lost, "full", message, Some("`network: restricted` with `hosts: [packages.example]`"))
    } else {
        let message = "`network: full`: what the group lets out is not said in here";
        (Fate::Mapped, "full", message, Some("`network: none` lets nothing out"))
    };
    notes.say(fate, &member.origin, message, mend);
    Out::text(mode).from(&member.origin)
}

/// A bucket that is known, or else a folder in the same layout.
fn logs(member: &Member<'_>, notes: &mut Notes<'_>) -> Option<(&'static str, Out)> {
    if member.value.is_unknown() {
        let message = "the bucket's name is not known; logs go to the folder `logs` in the same layout";
        notes.say(Fate::Mapped, &member.origin, message, Some("or `logging: { s3Logs: { s3BucketName: … } }`"));
        return Some(("logs", Out::text("logs").from(&member.origin)));
    }
    Some(("logging", member.keep(notes)?))
}

/// The topic that is told, if it is known which: what is no topic's ARN would be a file.
fn topic(member: &Member<'_>, notes: &mut Notes<'_>) -> Option<Out> {
    let gaps = member.value.gaps();
    if let Some(gap) = gaps.into_iter().find(|gap| !gap.is_assumed) {
        let message = format!("nobody is told, because the topic is not known: {}", gap.why);
        let mend = format!("{}; `snsTopicArn: arn:…` here, or any `events`", gap.mend);
        notes.say(Fate::Open, &member.origin, message, Some(&mend));
        return None;
    }
    let is_topic = |text: &str| matches!(text.parse::<Target>(), Ok(Target::Topic(_)));
    if !member.text().is_some_and(is_topic) {
        notes.say(Fate::Lost, &member.origin, "it is no ARN of an SNS topic", None);
        return None;
    }
    notes.say(Fate::Mapped, &member.origin, "the topic is told what becomes of a pipeline's images", None);
    notes.gaps(&member.origin, member.value);
    Out::of(member.value, &member.origin)
}
