//! Components: the document in one becomes a file.

use super::Draft;
use super::members::{Member, Members};
use super::out::{Out, scalar};
use super::place::Place;
use super::report::{Fate, Notes};
use super::subject::Subject;
use crate::document::cloudformation::{Content, Text, Value};
use crate::document::component::Platform;
use crate::document::syntax::{self, Source, Value as Written};

/// What a component comes to.
pub(super) fn import(subject: &Subject, place: &Place, notes: &mut Notes<'_>) -> Option<Draft> {
    let mut members = Members::of(&subject.value, "");
    if let Some(name) = members.take("Name") {
        notes.say(Fate::Mapped, &name.origin, format!("the file {}", place.file), None);
        notes.gaps(&name.origin, name.value);
    }
    for version in ["SemanticVersion", "Version"] {
        if let Some(version) = members.take(version) {
            notes.say(Fate::Mapped, &version.origin, "a document has no version here: recipes name its file", None);
        }
    }
    let platform = platform(&mut members, notes);
    let text = document(&mut members, place, notes);
    let text = match members.take("Description") {
        Some(description) => described(text, &description, notes),
        None => text,
    };
    let draft = text.map(|text| Draft {
        file: place.file.clone(),
        text,
        platform: platform.unwrap_or_default(),
        more: Vec::new(),
    });
    members.lose(
        &[
            ("ChangeDescription", "a document has no versions here", ""),
            (
                "SupportedOsVersions",
                "it is not compared with the parent's system",
                "`supported` systems are for the document's own conditions",
            ),
            ("KmsKeyId", "documents are plain files here", ""),
            ("Tags", "they label the component in AWS", ""),
        ],
        notes,
    );
    members.ignore(&[
        "Format",
        "Type",
        "Arn",
        "DateCreated",
        "Owner",
        "State",
        "Parameters",
        "Encrypted",
        "Publisher",
        "Obfuscate",
        "ClientToken",
        "DryRun",
        "LatestVersionReferences",
        "ProductCodes",
        "Status",
    ]);
    members.finish(notes);
    draft
}

fn platform(members: &mut Members<'_>, notes: &mut Notes<'_>) -> Option<Platform> {
    let member = members.take("Platform")?;
    let platform = member.text()?.parse::<Platform>();
    match &platform {
        Ok(Platform::Linux) => notes.say(Fate::Kept, &member.origin, "", None),
        Ok(_) => notes.say(Fate::Lost, &member.origin, "images made here are Linux, and it can't run in them", None),
        Err(problem) => notes.say(Fate::Lost, &member.origin, problem.as_str(), None),
    }
    platform.ok()
}

const IN_DOCUMENT: &str = "a component is described in its document";

/// A document with a component's description, if it has none and can be given one without changing anything else.
fn described(text: Option<String>, description: &Member<'_>, notes: &mut Notes<'_>) -> Option<String> {
    let Some(text) = text else {
        notes.say(Fate::Lost, &description.origin, IN_DOCUMENT, None);
        return None;
    };
    let root = syntax::parse(&Source::new("document", text.as_str())).ok();
    if root.as_ref().is_some_and(|root| root.get("description").is_some()) {
        notes.say(Fate::Lost, &description.origin, "the document has a description of its own", None);
        return Some(text);
    }
    let is_block = root.is_some_and(|root| matches!(root.value, Written::Mapping(_)))
        && text.starts_with(|c: char| c.is_ascii_alphabetic());
    let Some(words) = description.text().filter(|_| is_block) else {
        notes.say(Fate::Lost, &description.origin, IN_DOCUMENT, None);
        return Some(text);
    };
    notes.kept(&description.origin, description.value);
    Some(format!("description: {}\n{text}", scalar(words)))
}

fn document(members: &mut Members<'_>, place: &Place, notes: &mut Notes<'_>) -> Option<String> {
    if let Some(uri) = members.take("Uri") {
        let address = uri.text().unwrap_or_default().to_owned();
        let mend = format!("aws s3 cp {address} {}", place.file);
        notes.say(
            Fate::Open,
            &uri.origin,
            format!("its document is at {address}, and recipes name {}", place.file),
            Some(&mend),
        );
        return None;
    }
    let Some(data) = members.take("Data") else {
        notes.say_of_all(Fate::Lost, "its document is not in here: there is no `Data`", None);
        return None;
    };
    match &data.value.content {
        Content::Text(text) => {
            let (filled, references) = references(text);
            let known = Value::text(data.value.span.clone(), Text { text: filled.clone(), ..text.clone() });
            notes.kept(&data.origin, &known);
            for reference in references {
                let message = format!("CloudFormation would look `{reference}` up; here the step does");
                let mend = format!("--reference {reference}=VALUE or --aws-parameters gives it a value");
                notes.say(Fate::Mapped, &data.origin, message, Some(&mend));
            }
            Some(filled)
        }
        _ => {
            notes.say(Fate::Mapped, &data.origin, "it is written as a text", None);
            notes.gaps(&data.origin, data.value);
            // The document's own words, whatever their case.
            let mut origin = data.origin.clone();
            origin.path.push_str(".tags");
            Out::of(data.value, &origin).map(|out| out.document(&format!("{} of a template", place.name)))
        }
    }
}

/// `{{resolve:ssm:NAME}}` and `{{resolve:ssm-secure:NAME}}` as a component's own reference to the same parameter.
fn references(text: &Text) -> (String, Vec<String>) {
    let (mut filled, mut references) = (String::new(), Vec::new());
    let mut rest = text.text.as_str();
    while let Some((before, behind)) = rest.split_once("{{resolve:") {
        filled.push_str(before);
        let parameter = behind.strip_prefix("ssm:").or_else(|| behind.strip_prefix("ssm-secure:"));
        match parameter.and_then(|parameter| parameter.split_once("}}")) {
            Some((name, after)) => {
                // NAME:3 is a version of it.
                let name = name.split(':').next().unwrap_or(name);
                filled.push_str(&format!("{{{{ aws:ssm:{name} }}}}"));
                references.push(format!("aws:ssm:{name}"));
                rest = after;
            }
            None => {
                filled.push_str("{{resolve:");
                rest = behind;
            }
        }
    }
    filled.push_str(rest);
    references.sort();
    references.dedup();
    (filled, references)
}
