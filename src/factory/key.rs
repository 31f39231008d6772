//! What a layer depends on, and how two such lists differ.
//!
//! The first key is that of the started parent: its bytes, the machine, the seed with the agent. Each component's key is
//! made of the key below and of all that its steps can see: what its document says, the values of its parameters, the
//! recipe's files, the site, and the variables that it mentions. What a test phase says is none of it, and neither are
//! comments.

use std::path::Path;

use fs_err as fs;
use serde_json::Value as Json;

use super::Error;
use super::plan::{Plan, PlannedComponent};
use super::provision::Brought;
use super::shape::Shape;
use crate::document::age::Age;
use crate::document::canonical::{canonical, first_difference};
use crate::document::recipe::{Reach, Recipe};
use crate::document::syntax::{self, Source};
use crate::guest::seed::{Purpose, Seed};
use crate::guest::site::Site;
use crate::parent::Parent;
use crate::store::version::ImageId;
use crate::store::{Key, LayerRecord};

/// The phases of a build machine.
pub(super) const BUILD_PHASES: [&str; 2] = ["build", "validate"];
/// Components that take whatever is newest are a lie sooner.
const NEWEST_MAX_AGE: Age = Age::days(1);
/// A file of the recipe's is searched for the names of variables up to this size.
const SEARCH_LIMIT: u64 = 1 << 20;

/// Names of the parts of keys.
mod part {
    pub(super) const PARENT: &str = "parent";
    pub(super) const DISK: &str = "disk size";
    pub(super) const MACHINE: &str = "machine";
    pub(super) const AGENT: &str = "seed and agent";
    pub(super) const NETWORK: &str = "guests are kept from the host";
    pub(super) const BELOW: &str = "below";
    pub(super) const COMPONENT: &str = "component";
    pub(super) const DOCUMENT: &str = "document";
    pub(super) const STEPS: &str = "steps";
    pub(super) const SITE: &str = "site";
    pub(super) const REACH: &str = "hosts that may be reached";
    pub(super) const FOLDER: &str = "working directory";
}

/// A component that has something to do in a build machine.
#[derive(Debug, Clone)]
pub(super) struct Due<'a> {
    pub(super) component: &'a PlannedComponent,
    /// None where the component or one before it handles secrets, which must not land in a layer.
    pub(super) key: Option<Key>,
    /// How old its layer may be.
    pub(super) max_age: Age,
}

/// The started parent's key.
pub(super) fn of_parent(parent: &Parent, size: u64, shape: &Shape) -> Result<Key, Error> {
    let spec = shape.spec("disk".into(), Some("seed".into()), "console".into());
    let spec = crate::machine::Spec { mac: super::layers::BUILD_MAC, ..spec };
    Ok(Key::new([
        (part::PARENT, parent.sha256.clone()),
        (part::DISK, size.to_string()),
        (part::MACHINE, shape.qemu.signature(&spec)?),
        (part::AGENT, Seed::with_agent(Purpose::Build).fingerprint()?),
        (part::NETWORK, shape.qemu.isolation.is_isolated().to_string()),
        (part::STEPS, env!("GOLDSMITH_START_VERSION").to_owned()),
    ]))
}

/// What is to be done in a build machine, each with the key of what it leaves.
pub(super) fn due<'a>(plan: &'a Plan, site: &Site, image: &ImageId, parent: &Key) -> Result<Vec<Due<'a>>, Error> {
    let mut due = Vec::new();
    let mut below = (!has_credentials(site)).then(|| parent.digest());
    for component in plan.components.iter().filter(|component| component.has_work_in(&BUILD_PHASES)) {
        let below_this = below.take().filter(|_| !component.may_hold_secrets());
        let key = below_this.map(|below| of_component(component, plan, site, image, below)).transpose()?;
        below = key.as_ref().map(Key::digest);
        due.push(Due { component, key, max_age: max_age(component, &plan.recipe) });
    }
    Ok(due)
}

/// How old a component's layer may be.
pub(super) fn max_age(component: &PlannedComponent, recipe: &Recipe) -> Age {
    if component.program.takes_newest() { recipe.max_age.min(NEWEST_MAX_AGE) } else { recipe.max_age }
}

/// Addresses may hold a name and a password before an `@`, wherever that stands.
fn has_credentials(site: &Site) -> bool {
    let addresses = site.proxy.iter().map(|(_, value)| value).chain(site.mirrors.iter().map(|mirror| &mirror.to));
    addresses.into_iter().any(|address| address.contains('@'))
}

fn of_component(
    component: &PlannedComponent,
    plan: &Plan,
    site: &Site,
    image: &ImageId,
    below: String,
) -> Result<Key, Error> {
    let source = &component.program.document.source;
    let mut parts: Vec<(String, String)> = vec![
        (part::BELOW.to_owned(), below),
        (part::COMPONENT.to_owned(), component.name.clone()),
        (part::DOCUMENT.to_owned(), build_part(source, &BUILD_PHASES)?.to_string()),
    ];
    let values = component.program.values();
    parts.extend(values.iter().map(|(name, value)| (format!("parameter {name}"), (*value).to_owned())));
    let references = component.references.iter();
    parts.extend(references.map(|(name, value)| (format!("reference {name}"), value.clone())));
    for file in &plan.files {
        let owner = file.owner.as_deref().unwrap_or_default();
        let content = file.content.as_ref();
        let content = content.map(|content| format!("{:o} {}", content.mode, content.sha256)).unwrap_or_default();
        parts.push((format!("file {}", file.destination), format!("{owner} {content}")));
    }
    parts.extend(component.brings.iter().flat_map(Brought::parts));
    for (name, value) in super::components::image_variables(image) {
        if mentions(component, plan, name) {
            parts.push((format!("variable {name}"), value));
        }
    }
    parts.push((part::FOLDER.to_owned(), plan.recipe.working_directory.clone()));
    // Its digest: what it says is nobody's business who reads the layer's record.
    parts.push((part::SITE.to_owned(), crate::host::file::sha256_of(format!("{site:?}").as_bytes())));
    if plan.recipe.network.reach != Reach::Full {
        parts.push((part::REACH.to_owned(), format!("{:?}", plan.recipe.network.reach)));
    }
    parts.push((part::STEPS.to_owned(), env!("GOLDSMITH_STEPS_VERSION").to_owned()));
    Ok(Key::new(parts.iter().map(|(name, value)| (name.as_str(), value.clone()))))
}

/// What a document says about some of its phases. Parameters are left out, because their values count.
pub(super) fn build_part(source: &std::sync::Arc<Source>, phases: &[&str]) -> Result<Json, Error> {
    let node = syntax::parse(source).map_err(Box::new)?;
    let mut document = canonical(&node);
    if let Some(fields) = document.as_object_mut() {
        for name in ["name", "description", "schemaVersion", "parameters"] {
            fields.remove(name);
        }
        if let Some(all) = fields.get_mut("phases").and_then(Json::as_array_mut) {
            all.retain(|phase| phase["name"].as_str().is_some_and(|name| phases.contains(&name)));
        }
    }
    Ok(document)
}

/// Whether the steps of a component can be known to read a variable: its document, its parameters or a file of the
/// recipe's names it.
fn mentions(component: &PlannedComponent, plan: &Plan, name: &str) -> bool {
    let in_file = |path: &Path| {
        let is_small = fs::metadata(path).is_ok_and(|metadata| metadata.len() <= SEARCH_LIMIT);
        is_small && fs::read(path).is_ok_and(|text| memchr::memmem::find(&text, name.as_bytes()).is_some())
    };
    let brought = component.brings.iter().flat_map(|brought| &brought.files);
    component.program.document.source.text.contains(name)
        || component.program.values().values().any(|value| value.contains(name))
        || plan
            .files
            .iter()
            .chain(brought)
            .filter_map(|file| file.content.as_ref())
            .any(|content| in_file(&content.source))
}

/// Whether a layer is too old, in words.
pub(super) fn too_old(record: &LayerRecord, max_age: Age, now: jiff::Timestamp) -> Option<String> {
    let age = Age::since(record.made, now);
    (age > max_age).then(|| format!("its layer is {age} old, and may be {max_age} old"))
}

/// Why there is no layer for a key, going by the layers that there are.
pub(super) fn explain(key: &Key, component: Option<&PlannedComponent>, records: &[LayerRecord]) -> String {
    let alike =
        |name| records.iter().filter(move |record| key.part(name).is_some() && record.key.part(name) == key.part(name));
    let newest = |candidates: Vec<&LayerRecord>| candidates.into_iter().max_by_key(|record| record.made).cloned();
    let Some(component) = component else {
        let parents = records.iter().filter(|record| record.key.part(part::PARENT).is_some());
        let of_this = parents.clone().filter(|record| record.key.part(part::PARENT) == key.part(part::PARENT));
        return match newest(of_this.collect()) {
            Some(record) => difference(key, &record.key, None),
            None if parents.count() > 0 => "this parent has never been started here".to_owned(),
            None => "no parent has been started here".to_owned(),
        };
    };
    let here: Vec<&LayerRecord> = alike(part::BELOW).collect();
    let same_component =
        here.iter().copied().filter(|record| record.key.part(part::COMPONENT) == key.part(part::COMPONENT));
    match (newest(same_component.collect()), newest(here.clone())) {
        (Some(record), _) => difference(key, &record.key, Some(&component.program.document.source)),
        (None, Some(record)) => {
            format!("{} stood here", record.key.part(part::COMPONENT).unwrap_or("something else"))
        }
        (None, None) => "it has never run on this state".to_owned(),
    }
}

/// The first part of a key that is another one than in an older key, in words.
fn difference(new: &Key, old: &Key, document: Option<&std::sync::Arc<Source>>) -> String {
    for (name, value) in new.parts() {
        let before = old.part(name);
        if before == Some(value) {
            continue;
        }
        return match (name, name.split_once(' '), before) {
            (part::DOCUMENT, ..) => document_difference(document, before.unwrap_or_default()),
            (_, Some(("parameter", parameter)), Some(before)) => {
                format!("parameter {parameter} is `{value}` and was `{before}`")
            }
            (_, Some(("reference", reference)), Some(before)) => format!("{reference} is `{value}` and was `{before}`"),
            (_, Some(("variable", variable)), Some(before)) => format!("${variable} is `{value}` and was `{before}`"),
            (_, Some(("given", variable)), Some(before)) => format!("{variable} is `{value}` and was `{before}`"),
            (_, Some(("brought", path)), Some(_)) => format!("{path} changed"),
            (_, Some(("brought", path)), None) => format!("{path} is new"),
            (_, Some(("file", path)), Some(_)) => format!("{path} of the recipe's files changed"),
            (_, Some(("file", path)), None) => format!("{path} is new among the recipe's files"),
            (part::SITE, ..) => "the proxy, the certificate or the mirrors changed".to_owned(),
            (part::STEPS, ..) => "another version of goldsmith runs it".to_owned(),
            (part::MACHINE, _, Some(before)) => machine_difference(value, before),
            (_, _, Some(before)) if value.len() < 40 => format!("{name} is `{value}` and was `{before}`"),
            _ => format!("{name} changed"),
        };
    }
    match old.parts().find(|(name, _)| new.part(name).is_none()) {
        Some((name, _)) => format!("{name} is gone"),
        None => "its layer is gone".to_owned(),
    }
}

fn document_difference(document: Option<&std::sync::Arc<Source>>, before: &str) -> String {
    let Some(source) = document else { return "its document changed".to_owned() };
    let line = || {
        let node = syntax::parse(source).ok()?;
        let old: Json = serde_json::from_str(before).ok()?;
        // The old one has some of the document's fields only, so these are compared one by one.
        let syntax::Value::Mapping(fields) = &node.value else { return None };
        fields.iter().find_map(|(key, value)| {
            let syntax::Value::Scalar(name) = &key.value else { return None };
            match (name.text.as_str(), &value.value) {
                ("name" | "description" | "schemaVersion" | "parameters", _) => None,
                ("phases", syntax::Value::Sequence(phases)) => phase_difference(source, phases, &old["phases"]),
                (name, _) => first_difference(source, value, &old[name]),
            }
        })
    };
    match line() {
        Some(line) => format!("{} line {line} changed", source.name),
        None => format!("{} changed", source.name),
    }
}

/// The line of the first difference in the phases of a build machine.
fn phase_difference(source: &Source, phases: &[syntax::Node], old: &Json) -> Option<usize> {
    let is_built =
        |node: &&syntax::Node| canonical(node)["name"].as_str().is_some_and(|name| BUILD_PHASES.contains(&name));
    let mut built = phases.iter().filter(is_built).enumerate();
    built.find_map(|(i, phase)| first_difference(source, phase, &old[i]))
}

/// The first argument of QEMU's that is another one.
fn machine_difference(new: &str, old: &str) -> String {
    let old: Vec<&str> = old.lines().collect();
    let changed = new.lines().zip(old.iter().map(Some).chain(std::iter::repeat(None)));
    let mut changed = changed.filter(|(new, old)| *old != Some(new));
    match changed.next() {
        Some((new, Some(old))) => format!("the machine is another one: `{new}`, and was `{old}`"),
        _ => "the machine is another one".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const C: &str = "schemaVersion: 1.0\nparameters:\n  - Port: { type: string, default: 80 }\nphases:\n  - name: build\n    \
        steps:\n      - { name: Run, action: ExecuteBash, inputs: { commands: ['echo {{ Port }}'] } }\n";
    const R: &str = "name: web\nversion: 1.0.0\nparentImage: debian-12-minimal\n\
        files: [{ source: page, destination: /srv/page }]\ncomponents: [./c.yaml]\n";

    /// Keys of what is due for documents in a folder.
    fn keys(files: &[(&str, &str)], site: &Site, image: &str) -> Vec<Option<Key>> {
        let folder = tempfile::tempdir().unwrap();
        let all = [("r.yaml", R), ("c.yaml", C), ("page", "hello")];
        for (name, text) in all.iter().chain(files) {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let plan = Plan::read(&folder.path().join("r.yaml"), &Default::default()).unwrap();
        let (name, build) = image.rsplit_once('/').unwrap();
        let (name, version) = name.split_once('/').unwrap();
        let (name, version) = (name.parse().unwrap(), version.parse().unwrap());
        let image = ImageId { name, version, build: build.parse().unwrap() };
        let due = due(&plan, site, &image, &Key::new([("parent", "p".to_owned())])).unwrap();
        due.into_iter().map(|due| due.key).collect()
    }

    fn key(files: &[(&str, &str)]) -> Key {
        keys(files, &Site::default(), "web/1.0.0/1").remove(0).unwrap()
    }

    #[test]
    fn what_steps_can_see_makes_another_key_and_nothing_else_does() {
        let same = key(&[]);
        assert_eq!(
            key(&[("c.yaml", &format!("# why\n{}", C.replace("schemaVersion", "description: more\nschemaVersion")))]),
            same
        );
        assert_eq!(keys(&[], &Site::default(), "web/1.0.0/2"), [Some(same.clone())]);
        let test =
            "  - name: test\n    steps:\n      - { name: Run, action: ExecuteBash, inputs: { commands: ['true'] } }\n";
        assert_eq!(key(&[("c.yaml", &format!("{C}{test}"))]), same);
        let others = [
            ("c.yaml", C.replace("echo", "printf")),
            ("c.yaml", C.replace("default: 80", "default: 81")),
            ("page", "bye".to_owned()),
            ("r.yaml", R.replace("destination: /srv/page", "destination: /srv/page, mode: 0600")),
            ("r.yaml", format!("{R}workingDirectory: /opt\n")),
        ];
        for (name, text) in others {
            assert_ne!(key(&[(name, &text)]), same, "{name}: {text}");
        }
        let mirrored = Site {
            mirrors: vec![crate::guest::site::Mirror { from: "a".to_owned(), to: "b".to_owned() }],
            ..Site::default()
        };
        assert_ne!(keys(&[], &mirrored, "web/1.0.0/1"), [Some(same)]);
    }

    #[test]
    fn a_variable_counts_where_it_is_mentioned() {
        let by_file = [("page", "version $IMAGE_BUILD_VERSION")];
        let builds = ["web/1.0.0/1", "web/1.0.0/2"].map(|image| keys(&by_file, &Site::default(), image));
        assert_ne!(builds[0], builds[1]);
    }

    #[test]
    fn nothing_is_kept_of_what_may_hold_a_password() {
        for proxy in ["http://user:secret@proxy:3128", "http://user:pa/ss@proxy:3128", "user:secret@proxy"] {
            let site = Site { proxy: vec![("http_proxy".to_owned(), proxy.to_owned())], ..Site::default() };
            assert_eq!(keys(&[], &site, "web/1.0.0/1"), [None], "{proxy}");
        }
        let open = Site { proxy: vec![("http_proxy".to_owned(), "http://proxy:3128".to_owned())], ..Site::default() };
        assert!(keys(&[], &open, "web/1.0.0/1")[0].is_some());
        assert_eq!(keys(&[("c.yaml", &format!("{C}disableLogging: true\n"))], &Site::default(), "web/1.0.0/1"), [None]);
    }

    #[test]
    fn a_layer_may_be_too_old() {
        let now = jiff::Timestamp::now();
        let record = |days: i64| {
            let made = now - jiff::SignedDuration::from_hours(24 * days);
            let text = serde_json::json!({ "key": [], "made": made, "seconds": 1.0, "below": null, "digests": {} });
            serde_json::from_value::<LayerRecord>(text).unwrap()
        };
        assert_eq!(too_old(&record(6), Age::days(7), now), None);
        assert_eq!(too_old(&record(8), Age::days(7), now).unwrap(), "its layer is 8d old, and may be 7d old");
    }

    #[test]
    fn the_first_difference_is_explained() {
        let (old, new) = (key(&[]), key(&[("page", "bye")]));
        assert_eq!(difference(&new, &old, None), "/srv/page of the recipe's files changed");
        let new = key(&[("c.yaml", &C.replace("default: 80", "default: 81"))]);
        assert_eq!(difference(&new, &old, None), "parameter Port is `81` and was `80`");
        let text = C.replace("echo", "printf");
        let source = Source::new("c.yaml", text.as_str());
        assert_eq!(difference(&key(&[("c.yaml", &text)]), &old, Some(&source)), "c.yaml line 7 changed");
    }
}
