//! `goldsmith image list`: which images, and in which order.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde::Serialize;

use super::super::Context;
use super::super::build::assignment;
use super::super::output::{size, table};
use super::super::report::CliError;
use crate::store::manifest::State;
use crate::store::version::Pattern;
use crate::store::{Image, Store};

/// What is listed, and how
#[derive(Debug, Args)]
pub(in super::super) struct Arguments {
    /// Only images of this name, version or channel
    pattern: Option<Pattern>,
    /// Only images whose name holds this text
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Only images in these states, such as AVAILABLE
    #[arg(long, value_name = "STATE", value_delimiter = ',', value_parser = state)]
    state: Vec<State>,
    /// Only images begun since then: a date or time, or how long ago, such as 7d or 12h
    #[arg(long, value_name = "WHEN", value_parser = since)]
    since: Option<Timestamp>,
    /// Only images with this tag, or with any value of it
    #[arg(long = "tag", value_name = "KEY[=VALUE]", value_parser = tag)]
    tags: Vec<(String, Option<String>)>,
    /// What they are sorted by
    #[arg(long, value_enum, default_value_t)]
    sort: Sort,
    /// The other way round
    #[arg(long)]
    reverse: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// Name, version and build
    #[default]
    Name,
    /// When they were begun, the newest first
    Created,
    /// Size of the disk's file, the largest first
    Size,
    /// State, then name
    State,
}

/// An image as lists show it.
#[derive(Debug, Serialize)]
pub(in super::super) struct Listed {
    image: String,
    state: State,
    tested: bool,
    created: Timestamp,
    bytes: Option<u64>,
    reason: Option<String>,
    channels: Vec<String>,
    tags: serde_json::Map<String, serde_json::Value>,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<(), CliError> {
    let store = context.store()?;
    let mut images = store.images()?;
    if let Some(pattern) = &arguments.pattern {
        let named = pattern.channel().map(|channel| store.channel(&channel)).transpose()?;
        images.retain(|image| match &named {
            Some(channel) => channel.current() == Some(&image.id),
            None => pattern.matches(&image.id),
        });
    }
    images.retain(|image| arguments.accepts(image));
    sort(&mut images, arguments.sort);
    if arguments.reverse {
        images.reverse();
    }
    let listed = listed(&images, &store)?;
    if context.output.json {
        return context.output.json(&listed);
    }
    if listed.is_empty() {
        let is_filtered = !store.images()?.is_empty();
        let none = if is_filtered { "no such images" } else { "no images yet; `goldsmith build RECIPE` makes one" };
        context.output.progress(none);
        return Ok(());
    }
    for line in lines(&listed) {
        context.output.result(&line);
    }
    Ok(())
}

impl Arguments {
    fn accepts(&self, image: &Image) -> bool {
        let manifest = &image.manifest;
        let tags = manifest.source.as_ref().map(|source| &source.tags);
        let has = |(key, value): &(String, Option<String>)| {
            let known = tags.and_then(|tags| tags.get(key)).and_then(|known| known.as_str());
            known.is_some_and(|known| value.as_deref().is_none_or(|value| value == known))
        };
        self.name.as_ref().is_none_or(|text| image.id.name.as_str().contains(text))
            && (self.state.is_empty() || self.state.contains(&manifest.state))
            && self.since.is_none_or(|since| manifest.created >= since)
            && self.tags.iter().all(has)
    }
}

fn sort(images: &mut [Image], by: Sort) {
    let bytes = |image: &Image| image.manifest.disk.as_ref().map_or(0, |disk| disk.bytes);
    match by {
        Sort::Name => images.sort_by(|a, b| a.id.cmp(&b.id)),
        Sort::Created => images.sort_by_key(|image| Reverse(image.manifest.created)),
        Sort::Size => images.sort_by_key(|image| Reverse(bytes(image))),
        Sort::State => images.sort_by_key(|image| (image.manifest.state.to_string(), image.id.clone())),
    }
}

/// Images as lists show them.
pub(in super::super) fn listed(images: &[Image], store: &Store) -> Result<Vec<Listed>, CliError> {
    let mut named: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for channel in store.channels()? {
        if let Some(image) = channel.current() {
            named.entry(image.to_string()).or_default().push(channel.id.to_string());
        }
    }
    let listed = images.iter().map(|image| Listed {
        image: image.id.to_string(),
        state: image.manifest.state,
        tested: image.manifest.tested,
        created: image.manifest.created,
        bytes: image.manifest.disk.as_ref().map(|disk| disk.bytes),
        reason: image.manifest.reason.clone(),
        channels: named.remove(&image.id.to_string()).unwrap_or_default(),
        tags: image.manifest.source.as_ref().map(|source| source.tags.clone()).unwrap_or_default(),
    });
    Ok(listed.collect())
}

/// The same as a table.
pub(in super::super) fn lines(listed: &[Listed]) -> Vec<String> {
    let row = |image: &Listed| {
        let tested = if image.tested { "yes" } else { "no" };
        let bytes = image.bytes.map(size).unwrap_or_default();
        let created = image.created.strftime("%Y-%m-%d %H:%M").to_string();
        let mut notes: Vec<&str> = image.channels.iter().map(String::as_str).collect();
        notes.extend(image.reason.as_deref());
        vec![image.image.clone(), image.state.to_string(), tested.to_owned(), bytes, created, notes.join(", ")]
    };
    table(&["IMAGE", "STATE", "TESTED", "SIZE", "CREATED (UTC)", "NOTES"], &listed.iter().map(row).collect::<Vec<_>>())
}

fn state(text: &str) -> Result<State, String> {
    let parsed = serde_json::from_value(serde_json::Value::from(text.to_uppercase()));
    parsed.map_err(|_| format!("`{text}` is no state: AVAILABLE, FAILED, DEPRECATED, DISABLED and others are"))
}

fn tag(text: &str) -> Result<(String, Option<String>), String> {
    match assignment(text) {
        Ok((key, value)) => Ok((key, Some(value))),
        Err(_) if !text.is_empty() && !text.contains('=') => Ok((text.to_owned(), None)),
        Err(error) => Err(error),
    }
}

/// A time, a date of UTC, or how long ago.
fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let utc = jiff::tz::TimeZone::UTC;
    let time = match text.parse::<jiff::civil::Date>() {
        Ok(date) => date.to_zoned(utc),
        Err(_) => {
            let span = text.parse::<jiff::Span>().map_err(|_| ());
            let before = |span: jiff::Span| Timestamp::now().to_zoned(utc).checked_sub(span.abs());
            match span.map(before) {
                Ok(before) => before,
                Err(()) => return Err(format!("`{text}` is no time: 2026-01-31, or 7d for seven days ago")),
            }
        }
    };
    time.map(|time| time.timestamp()).map_err(|error| format!("`{text}`: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_tags_as_people_write_them() {
        assert_eq!(since("2026-01-31").unwrap().to_string(), "2026-01-31T00:00:00Z");
        assert_eq!(since("2026-01-31T10:00:00Z").unwrap().to_string(), "2026-01-31T10:00:00Z");
        let week = Timestamp::now() - jiff::SignedDuration::from_hours(7 * 24);
        assert!(since("7d").unwrap().duration_since(week).as_secs().abs() < 60);
        assert!(since("yesterday").is_err() && since("").is_err());
        assert_eq!(tag("team=web").unwrap(), ("team".to_owned(), Some("web".to_owned())));
        assert_eq!(tag("team").unwrap(), ("team".to_owned(), None));
        assert!(tag("=x").is_err() && tag("").is_err());
        assert_eq!(state("available"), Ok(State::Available));
        assert!(state("GOOD").is_err());
    }
}
