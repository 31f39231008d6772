//! `goldsmith image diff`.

use anstyle::Style;

use crate::cli::Context;
use crate::cli::output::{BAD, BOLD, GOOD, WARN, size};
use crate::cli::report::CliError;
use crate::machine::console::plain;
use crate::store::difference::{Change, Difference, Named};
use crate::store::manifest::{Component, Origin};
use crate::store::version::Pattern;

/// Says what differs between two images.
pub(super) fn run(from: &Pattern, to: &Pattern, context: &Context) -> Result<(), CliError> {
    let (from, to) = (super::find(from, context)?, super::find(to, context)?);
    let difference = Difference::between(&from, &to)?;
    if context.output.json {
        return context.output.json(&difference);
    }
    context.output.result(&format!("{BOLD}{} → {}{BOLD:#}", difference.from, difference.to));
    if difference.is_empty() {
        context.output.result("no difference that is known");
    }
    lines(&difference).iter().for_each(|line| context.output.result(line));
    if difference.components.is_none() {
        context.output.warning("it is not known of both images what they were built from");
    }
    if difference.packages.is_none() {
        context.output.warning("it is not known of both images which packages they have");
    }
    Ok(())
}

/// A line for each difference.
fn lines(difference: &Difference) -> Vec<String> {
    let mut lines = Vec::new();
    let origin = |origin: &Origin| format!("{} sha256:{}", origin.name, short(&origin.sha256));
    lines.extend(difference.parent.as_ref().map(|change| line("parent", "", change, origin)));
    lines.extend(difference.recipe.as_ref().map(|change| line("recipe", "", change, origin)));
    lines.extend(difference.components.iter().flatten().map(component));
    let digest = |file: &Origin| format!("sha256:{}", short(&file.sha256));
    lines.extend(difference.files.iter().flatten().map(|file| line("file", &file.name, &file.change, digest)));
    lines.extend(difference.disk.as_ref().map(|change| {
        line("disk", "", change, |disk| {
            format!("{} of {} sha256:{}", size(disk.bytes), size(disk.virtual_size), short(&disk.sha256))
        })
    }));
    let packages = difference.packages.iter().flatten();
    lines.extend(packages.map(|package| line("package", &package.name, &package.change, String::clone)));
    lines
}

/// What has changed of a component is said, and not only that something has.
fn component(component: &Named<Component>) -> String {
    let digest = |component: &Component| format!("sha256:{}", short(&component.document.sha256));
    let Change { from: Some(from), to: Some(to) } = &component.change else {
        return line("component", &component.name, &component.change, digest);
    };
    let mut changed = Vec::new();
    if from.document != to.document {
        changed.push(format!("{} → {}", digest(from), digest(to)));
    }
    for (old, new) in [(&from.parameters, &to.parameters), (&from.references, &to.references)] {
        let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for name in names.into_iter().filter(|name| old.get(*name) != new.get(*name)) {
            let value = |value: Option<&serde_json::Value>| match value {
                Some(serde_json::Value::String(text)) => format!("{text:?}"),
                Some(other) => other.to_string(),
                None => "not set".to_owned(),
            };
            changed.push(format!("{name}: {} → {}", value(old.get(name)), value(new.get(name))));
        }
    }
    marked((WARN, '~'), "component", &component.name, &changed.join(", "))
}

/// `+` for what is new, `-` for what is gone, `~` for what has changed.
fn line<T>(what: &str, name: &str, change: &Change<T>, show: impl Fn(&T) -> String) -> String {
    match (&change.from, &change.to) {
        (Some(from), Some(to)) => marked((WARN, '~'), what, name, &format!("{} → {}", show(from), show(to))),
        (Some(from), None) => marked((BAD, '-'), what, name, &show(from)),
        (None, to) => marked((GOOD, '+'), what, name, &to.as_ref().map(show).unwrap_or_default()),
    }
}

fn marked((style, sign): (Style, char), what: &str, name: &str, text: &str) -> String {
    let gap = if name.is_empty() { "" } else { " " };
    // An image may come from elsewhere, and with it whatever its manifest says.
    format!("{style}{sign}{style:#} {what:<10} {}", plain(&format!("{name}{gap}{text}")))
}

/// As much of a digest as people compare.
fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}
