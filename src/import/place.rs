//! Where each thing that is imported is put, and what a name or an ARN in another one means then.

use std::collections::HashSet;

use super::subject::{Kind, Subject};
use crate::document::arn::{Arn, slug};
use crate::document::cloudformation::{Text, Value};
use crate::store::version::{ImageName, Version, VersionPattern};

/// Where something is put.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Its name, which the readers take.
    pub(super) name: String,
    /// The name that ARNs have for it.
    slug: String,
    /// Its version, if it has one.
    pub(super) version: Option<String>,
    /// Its file, relative to the folder of all.
    pub(super) file: String,
}

/// All that is imported.
#[derive(Debug)]
pub(super) struct Places<'a> {
    pub(super) subjects: &'a [Subject],
    pub(super) places: Vec<Place>,
}

impl<'a> Places<'a> {
    pub(super) fn of(subjects: &'a [Subject]) -> Self {
        let mut taken = HashSet::new();
        let places = subjects.iter().map(|subject| place(subject, &mut taken)).collect();
        Self { subjects, places }
    }

    /// Which of them a text means: by a reference of the template, or by an ARN.
    pub(super) fn find(&self, from: &Subject, kind: Kind, text: &Text) -> Option<usize> {
        self.by_reference(from, text)
            .filter(|&index| self.subjects[index].kind == kind)
            .or_else(|| self.by_arn(kind, &text.text))
    }

    /// Which of them a reference of the template means, of whatever kind.
    pub(super) fn by_reference(&self, from: &Subject, text: &Text) -> Option<usize> {
        let id = text.resource.as_deref()?;
        self.subjects
            .iter()
            .position(|subject| subject.id == id && std::sync::Arc::ptr_eq(&subject.source, &from.source))
    }

    fn by_arn(&self, kind: Kind, text: &str) -> Option<usize> {
        let arn: Arn = text.parse().ok().filter(|arn: &Arn| arn.kind == kind.arn())?;
        let version = arn.version.as_deref().and_then(|version| version.split('/').next());
        let pattern = version.map_or(Some(VersionPattern::ANY), |version| version.parse().ok())?;
        let is_meant = |(index, subject): &(usize, &Subject)| {
            let place = &self.places[*index];
            let version: Option<Version> = place.version.as_deref().and_then(|version| version.parse().ok());
            // One that counts by itself may come to be any.
            subject.kind == kind && place.slug == arn.name && version.is_none_or(|version| pattern.matches(version))
        };
        let meant = self.subjects.iter().enumerate().filter(is_meant).map(|(index, _)| index);
        meant.max_by_key(|&index| {
            self.places[index].version.as_deref().and_then(|version| version.parse::<Version>().ok())
        })
    }
}

fn place(subject: &Subject, taken: &mut HashSet<String>) -> Place {
    let text = |name: &str| subject.value.member(name).and_then(Value::as_text).map(|text| text.text.clone());
    let written = text("Name").unwrap_or_else(|| subject.id.clone());
    let name = name(&written);
    let version = text("SemanticVersion").or_else(|| text("Version"));
    let stem = file_stem(&name);
    let ending = match subject.kind {
        // A script that the service would make a document of.
        Kind::Component if text("Format").as_deref() == Some("SHELL") => ".sh",
        Kind::Component => ".yaml",
        Kind::ImageRecipe | Kind::ContainerRecipe => ".recipe.yaml",
        Kind::Infrastructure => ".infrastructure.yaml",
        Kind::Distribution => ".distribution.yaml",
        Kind::Pipeline | Kind::Image => ".pipeline.yaml",
        Kind::Lifecycle => ".lifecycle.yaml",
        Kind::Workflow => ".workflow.yaml",
    };
    let folder = if subject.kind == Kind::Component { "components/" } else { "" };
    let versioned = version.as_deref().map(|version| format!("{stem}-{}", file_stem(version)));
    let numbered = (2..).map(|number| format!("{stem}-{number}"));
    let mut stems = [stem.clone()].into_iter().chain(versioned).chain(numbered);
    let file = stems.find_map(|stem| {
        let file = format!("{folder}{stem}{ending}");
        taken.insert(file.clone()).then_some(file)
    });
    Place { name, slug: slug(&written), version, file: file.unwrap_or_default() }
}

/// A name that goldsmith takes, as near as can be.
fn name(text: &str) -> String {
    if text.parse::<ImageName>().is_ok() && !text.starts_with(' ') {
        return text.to_owned();
    }
    let good = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ' ') { c } else { '-' };
    let name: String = text.chars().map(good).take(120).collect();
    let name = name.trim_matches([' ', '-']).to_owned();
    if name.len() < 3 { format!("image-{name}").trim_end_matches('-').to_owned() } else { name }
}

/// A name as a file's: nothing of it leads anywhere.
fn file_stem(name: &str) -> String {
    let good = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') { c } else { '-' };
    let stem: String = slug(name).chars().map(good).take(100).collect();
    let stem = stem.trim_matches(['.', '-']).to_owned();
    if stem.is_empty() { "unnamed".to_owned() } else { stem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_files_are_what_the_readers_take_and_lead_nowhere() {
        for (text, expected, file) in [
            ("Web Server", "Web Server", "web-server"),
            ("../../etc/passwd", "etc-passwd", "etc-passwd"),
            ("a.b:c", "a-b-c", "a-b-c"),
            ("x", "image-x", "image-x"),
            ("", "image", "image"),
            ("...", "image", "image"),
            ("é\u{202e}/", "image", "image"),
        ] {
            let name = name(text);
            assert_eq!((name.as_str(), file_stem(&name).as_str()), (expected, file), "{text}");
            assert!(name.parse::<ImageName>().is_ok(), "{name}");
        }
        assert_eq!((file_stem("2026.01.31"), file_stem("../.")), ("2026.01.31".to_owned(), "unnamed".to_owned()));
    }
}
