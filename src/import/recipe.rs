//! Image recipes: parents and components by the names that they have here.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::members::{Member, Members};
use super::out::Out;
use super::place::Places;
use super::report::{Fate, Notes, Origin};
use super::settle::settle;
use super::subject::{Kind, Subject};
use super::{Draft, comment};
use crate::document::arn::{Arn, Owner};
use crate::document::cloudformation::Text;
use crate::document::component::Platform;
use crate::document::recipe;
use crate::document::shipped;
use crate::parent::{self, Reference};
use crate::store::version::VersionPattern;

/// What an image recipe comes to. Parents are looked up as from `folder`.
pub(super) fn import(index: usize, places: &Places<'_>, folder: &Path, notes: &mut Notes<'_>) -> Option<Draft> {
    let (subject, place) = (&places.subjects[index], &places.places[index]);
    let mut members = Members::of(&subject.value, "");
    let mut document = vec![("name", super::name(&mut members, place, notes))];
    document.push(("version", version(&mut members, notes)));
    members.keep(&["description"], &mut document, notes);
    document.push(("parentImage", parent_image(&mut members, subject, places, folder, notes)));
    document.extend(members.take("BlockDeviceMappings").and_then(|member| Some(("disk", disk(&member, notes)?))));
    members.keep(&["workingDirectory"], &mut document, notes);
    let (script, more) = user_data(&mut members, &place.file, notes);
    let mut components: Vec<Out> = script.into_iter().collect();
    if let Some(member) = members.take("Components") {
        components.extend(member.items().iter().filter_map(|item| component(item, subject, places, notes)));
    }
    if !components.is_empty() {
        document.push(("components", Out::list(components)));
    }
    members.keep(&["tags", "amiTags"], &mut document, notes);
    members.lose(&[("AmiWatermarks", "marks are AWS's own", "`amiTags` label AMIs")], notes);
    members.ignore(&[
        "Arn",
        "DateCreated",
        "Owner",
        "Type",
        "Platform",
        "ClientToken",
        "DryRun",
        "LatestVersionReferences",
    ]);
    members.finish(notes);
    let read = |source: &_| recipe::decode(source).map(drop);
    let text = settle(&mut Out::map(document), &comment(subject), notes, read)?;
    Some(Draft { file: place.file.clone(), text, platform: Platform::Linux, more })
}

/// Its version; where there is none that can be one, a version that counts by itself.
fn version(members: &mut Members<'_>, notes: &mut Notes<'_>) -> Out {
    let Some(member) = members.take("SemanticVersion").or_else(|| members.take("Version")) else {
        notes.say_of_all(Fate::Open, "it has no version; `1.0.x` stands there, which counts by itself", None);
        return Out::text("1.0.x");
    };
    let text = member.text().unwrap_or_default();
    match text.parse::<VersionPattern>() {
        Ok(_) => {
            notes.kept(&member.origin, member.value);
            Out::text(text).from(&member.origin)
        }
        Err(problem) => {
            let message = format!("{problem}; `1.0.x` stands there, which counts by itself");
            notes.say(Fate::Open, &member.origin, message, None);
            Out::text("1.0.x").from(&member.origin)
        }
    }
}

fn parent_image(
    members: &mut Members<'_>,
    subject: &Subject,
    places: &Places<'_>,
    folder: &Path,
    notes: &mut Notes<'_>,
) -> Out {
    let Some(member) = members.take("ParentImage") else {
        notes.say_of_all(
            Fate::Open,
            "it has no parent; `replace-me-parent` stands there",
            Some("name one of `goldsmith base list`"),
        );
        return Out::text("replace-me-parent");
    };
    let Some(text) = member.value.as_text() else {
        notes.say(Fate::Open, &member.origin, "a text is needed; `replace-me-parent` stands there", None);
        return Out::text("replace-me-parent").from(&member.origin);
    };
    if let Some(recipe) = built_by(subject, places, text) {
        let place = &places.places[recipe];
        let version = place.version.as_deref().unwrap_or("x.x.x");
        let image = format!("{}/{version}", place.name);
        notes.say(Fate::Mapped, &member.origin, format!("the image that {} makes: {image}", place.file), None);
        return Out::text(image).from(&member.origin);
    }
    let name = parameter(&text.text).map_or_else(|| text.text.clone(), |name| format!("ssm:{name}"));
    if text.is_unknown() {
        notes.kept(&member.origin, member.value);
        return Out::text(name).from(&member.origin);
    }
    let (fate, message, written) = match parent::resolve(&name, folder) {
        Ok(resolved) => match (resolved.reference, resolved.note.or(resolved.warning)) {
            (Reference::Base(base), Some(note)) => (Fate::Mapped, note, base),
            _ => (Fate::Kept, String::new(), name),
        },
        Err(parent::Error::Foreign { help, .. }) => {
            (Fate::Open, format!("nothing here stands in for {name}: {help}"), name)
        }
        Err(error) => (Fate::Open, error.to_string(), name),
    };
    notes.say(fate, &member.origin, message, None);
    Out::text(written).from(&member.origin)
}

/// The recipe of an image, or of the images of a pipeline, that a text names by a reference.
fn built_by(subject: &Subject, places: &Places<'_>, text: &Text) -> Option<usize> {
    let index = places.by_reference(subject, text).or_else(|| places.find(subject, Kind::Image, text))?;
    let other = &places.subjects[index];
    if !matches!(other.kind, Kind::Image | Kind::Pipeline) {
        return None;
    }
    let recipe = other.value.member("ImageRecipeArn")?.as_text()?;
    places.find(other, Kind::ImageRecipe, recipe)
}

/// The parameter of Systems Manager's that a text stands for.
fn parameter(text: &str) -> Option<&str> {
    text.strip_prefix("{{resolve:ssm:")?.strip_suffix("}}").filter(|name| !name.contains("{{"))
}

/// The size of the root volume.
fn disk(member: &Member<'_>, notes: &mut Notes<'_>) -> Option<Out> {
    let mappings = member.items();
    let name = |mapping: &Member<'_>| mapping.member("DeviceName").and_then(|name| Some(name.text()?.to_owned()));
    let is_root = |mapping: &&Member<'_>| matches!(name(mapping).as_deref(), Some("/dev/xvda" | "/dev/sda1"));
    let root = mappings.iter().find(is_root).or(mappings.first())?;
    let mut size = None;
    for mapping in &mappings {
        if mapping.origin != root.origin {
            notes.say(Fate::Lost, &mapping.origin, "an image has one disk here", None);
            continue;
        }
        if let Some(name) = mapping.member("DeviceName") {
            notes.say(Fate::Mapped, &name.origin, "it is the image's only disk", None);
        }
        let Some(ebs) = mapping.member("Ebs") else { continue };
        let mut inner = Members::of(ebs.value, &ebs.origin.path);
        if let Some(volume) = inner.take("VolumeSize") {
            let gib = volume.text().map(|text| format!("{text}GiB")).unwrap_or_default();
            if volume.value.is_unknown() {
                notes.say(
                    Fate::Lost,
                    &volume.origin,
                    "its value is not known; the disk is as large as the parent's",
                    Some("`disk: 20GiB`"),
                );
                continue;
            }
            notes.say(Fate::Mapped, &volume.origin, format!("`disk: {gib}`"), None);
            size = Some(Out::text(gib).from(&volume.origin));
        }
        let hardware = "it describes AWS's storage";
        inner.lose(
            &[
                ("VolumeType", hardware, ""),
                ("Iops", hardware, ""),
                ("Throughput", hardware, ""),
                ("DeleteOnTermination", hardware, ""),
                ("Encrypted", "the disk is not encrypted here", "`kmsKeyId` of a distribution encrypts AMIs"),
                ("KmsKeyId", "the disk is not encrypted here", "`kmsKeyId` of a distribution encrypts AMIs"),
                ("SnapshotId", "it names a snapshot in AWS", "a recipe begins with its parent's disk"),
            ],
            notes,
        );
        inner.finish(notes);
    }
    size
}

/// A script that AWS would run before all components becomes the first of these.
fn user_data(members: &mut Members<'_>, file: &str, notes: &mut Notes<'_>) -> (Option<Out>, Vec<(String, String)>) {
    let Some(member) = members.take("AdditionalInstanceConfiguration") else { return (None, Vec::new()) };
    let mut inner = Members::of(member.value, &member.origin.path);
    if let Some(agent) = inner.take("SystemsManagerAgent") {
        notes.say(
            Fate::Lost,
            &agent.origin,
            "images made here have no Systems Manager agent unless a component installs it",
            None,
        );
    }
    let data = inner.take("UserDataOverride");
    inner.finish(notes);
    let Some(data) = data else { return (None, Vec::new()) };
    let decoded =
        data.text().and_then(|text| STANDARD.decode(text.trim()).ok()).and_then(|bytes| String::from_utf8(bytes).ok());
    let script = decoded.filter(|text| text.trim_start().starts_with("#!"));
    let Some(script) = script else {
        notes.say(
            Fate::Lost,
            &data.origin,
            "it is no script, and nothing hands it to cloud-init here",
            Some("write a component that does the same"),
        );
        return (None, Vec::new());
    };
    let path = format!("components/{}.user-data.sh", file.trim_end_matches(".recipe.yaml"));
    notes.say(Fate::Mapped, &data.origin, format!("the script is {path}, which runs before all components"), None);
    notes.gaps(&data.origin, data.value);
    let component = Out::map(vec![("script", Out::text(format!("./{path}")))]).from(&data.origin);
    (Some(component), vec![(path, script.trim_start().to_owned())])
}

fn component(item: &Member<'_>, subject: &Subject, places: &Places<'_>, notes: &mut Notes<'_>) -> Option<Out> {
    let mut members = Members::of(item.value, &item.origin.path);
    let Some(arn) = members.take("ComponentArn") else {
        notes.say(Fate::Lost, &item.origin, "it has no `ComponentArn`", None);
        return None;
    };
    let parameters = members.take("Parameters").and_then(|member| parameters(&member, notes));
    members.finish(notes);
    let Some(text) = arn.value.as_text() else {
        notes.say(Fate::Lost, &arn.origin, "a component's ARN has to be a text", None);
        return None;
    };
    let (key, name) = reference(&arn.origin, text, subject, places, notes);
    if key == "component" && parameters.is_none() {
        return Some(Out::text(name).from(&item.origin));
    }
    let mut entries = vec![(key, Out::text(name).from(&arn.origin))];
    entries.extend(parameters.map(|parameters| ("parameters", parameters)));
    Some(Out::map(entries).from(&item.origin))
}

/// What a component is called in a recipe here: as a document or script, and its name.
fn reference(
    origin: &Origin,
    text: &Text,
    subject: &Subject,
    places: &Places<'_>,
    notes: &mut Notes<'_>,
) -> (&'static str, String) {
    if let Some(index) = places.find(subject, Kind::Component, text) {
        let file = &places.places[index].file;
        notes.say(Fate::Mapped, origin, format!("the file {file}"), None);
        return (if file.ends_with(".sh") { "script" } else { "component" }, format!("./{file}"));
    }
    let name = text.text.clone();
    let Ok(arn) = name.parse::<Arn>() else {
        let value = crate::document::cloudformation::Value::text(origin.span.clone(), text.clone());
        notes.kept(origin, &value);
        return ("component", name);
    };
    match (&arn.owner, shipped::find_component(&arn.name, VersionPattern::ANY)) {
        (Owner::Amazon, Some(component)) => {
            let own = format!("{}/x.x.x", component.name);
            notes.say(
                Fate::Mapped,
                origin,
                format!("goldsmith's own {}/{} stands in for Amazon's", component.name, component.version),
                None,
            );
            ("component", own)
        }
        (Owner::Amazon, None) if arn.name.contains("windows") => {
            notes.say(
                Fate::Lost,
                origin,
                format!("`{}` is for Windows, and images made here are Linux", arn.name),
                None,
            );
            ("component", name)
        }
        (Owner::Amazon, None) => {
            let mend = format!("a file {}.yaml beside the recipe stands in for it", arn.name);
            notes.say(
                Fate::Open,
                origin,
                format!("goldsmith has no equivalent of Amazon's `{}`", arn.name),
                Some(&mend),
            );
            ("component", name)
        }
        (Owner::Account(_), _) => {
            let mend = format!(
                "import what `aws imagebuilder get-component --component-build-version-arn {name}` prints as well"
            );
            notes.say(Fate::Open, origin, format!("`{}` is not among what is imported", arn.name), Some(&mend));
            ("component", name)
        }
    }
}

/// Values of a component's parameters, which the API has as lists of one text each.
fn parameters(member: &Member<'_>, notes: &mut Notes<'_>) -> Option<Out> {
    let mut entries = Vec::new();
    for item in member.items() {
        let (Some(name), Some(value)) = (item.member("Name"), item.member("Value")) else {
            notes.say(Fate::Lost, &item.origin, "a parameter has a name and a value", None);
            continue;
        };
        let texts: Vec<String> = value.items().iter().filter_map(|value| value.text().map(str::to_owned)).collect();
        if texts.len() == 1 {
            notes.kept(&value.origin, value.value);
        } else {
            let message = "its values are one text with commas, because parameters here have one";
            notes.say(Fate::Mapped, &value.origin, message, None);
            notes.gaps(&value.origin, value.value);
        }
        let name = name.text().unwrap_or_default().to_owned();
        if !entries.iter().any(|(known, _)| *known == name) {
            entries.push((name, Out::text(texts.join(",")).from(&value.origin)));
        }
    }
    let form = super::out::Form::Map(entries);
    let out = Out { form, origin: Some(member.origin.clone()) };
    (!member.items().is_empty()).then_some(out)
}
