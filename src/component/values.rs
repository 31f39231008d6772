//! What references stand for while a document runs.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};

use goldsmith_agent::message::OpErrorKind;

use super::inputs::Resolved;
use super::program::Program;
use super::runner::Site;
use crate::document::expression::{LoopPart, Reference, Side, Stored};
use crate::guest::{self, Guest};

/// Outputs of a step, by name.
pub(super) type Outputs = Vec<(&'static str, String)>;

/// Values that somebody on the host gives for references to what only AWS has, by the reference without its braces:
/// `aws:ssm:/path`, `aws:imds:instance-id`, `context:accountId`.
pub type References = BTreeMap<String, String>;

/// What a step's references may bring in altogether, in bytes: a document of a few bytes could otherwise ask for any
/// amount of memory.
const MAX_RESOLVED: usize = 16 << 20;

/// Values by name, and inputs and outputs of the steps that have run.
#[derive(Debug, Default)]
pub(super) struct Values {
    names: HashMap<String, String>,
    steps: HashMap<(String, String), Step>,
}

#[derive(Debug, Default)]
struct Step {
    inputs: Vec<Resolved>,
    outputs: Outputs,
}

/// The current iteration of a loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Iteration {
    pub(super) index: usize,
    pub(super) value: String,
}

/// What only the guest knows of itself.
#[derive(Debug, Default)]
pub(super) struct Facts {
    hostname: String,
    os_name: String,
    os_version: String,
}

/// What is known where one step runs.
#[derive(Debug)]
pub(super) struct Scope<'a> {
    pub(super) values: &'a Values,
    pub(super) site: &'a Site,
    pub(super) phase: &'a str,
    pub(super) step: &'a str,
    pub(super) iteration: Option<&'a Iteration>,
    pub(super) facts: &'a Facts,
    /// How many bytes references may still bring in.
    room: Cell<usize>,
}

impl Values {
    /// Values of parameters and constants.
    pub(super) fn of(program: &Program) -> Self {
        Self { names: program.names.clone(), steps: HashMap::new() }
    }

    /// Notes what a step was given.
    pub(super) fn given(&mut self, phase: &str, step: &str, inputs: Vec<Resolved>) {
        self.steps.entry((phase.to_owned(), step.to_owned())).or_default().inputs = inputs;
    }

    /// Notes what a step produced.
    pub(super) fn produced(&mut self, phase: &str, step: &str, outputs: Outputs) {
        self.steps.entry((phase.to_owned(), step.to_owned())).or_default().outputs = outputs;
    }

    /// What a step was given and has produced, each as a JSON array: the form in which AWS's executor writes them down.
    pub(super) fn written(&self, phase: &str, step: &str) -> (String, String) {
        let Some(step) = self.steps.get(&(phase.to_owned(), step.to_owned())) else {
            return ("[]".to_owned(), "[]".to_owned());
        };
        let inputs: serde_json::Value = step.inputs.iter().map(Resolved::json).collect();
        let outputs: serde_json::Map<String, serde_json::Value> =
            step.outputs.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into())).collect();
        let outputs = if outputs.is_empty() { serde_json::json!([]) } else { serde_json::json!([outputs]) };
        (inputs.to_string(), outputs.to_string())
    }

    /// The value of a parameter or constant.
    pub(super) fn named(&self, name: &str) -> Option<&str> {
        self.names.get(name).map(String::as_str)
    }
}

impl<'a> Scope<'a> {
    /// Where a step runs.
    pub(super) fn new(values: &'a Values, site: &'a Site, (phase, step): (&'a str, &'a str), facts: &'a Facts) -> Self {
        Self { values, site, phase, step, iteration: None, facts, room: Cell::new(MAX_RESOLVED) }
    }

    /// Within an iteration.
    pub(super) fn within(self, iteration: Option<&'a Iteration>) -> Self {
        Self { iteration, ..self }
    }

    /// What a reference stands for now, or why it stands for nothing.
    pub(super) fn get(&self, reference: &Reference) -> Result<String, String> {
        let value = self.find(reference)?;
        let room = self.room.get().checked_sub(value.len());
        let room =
            room.ok_or_else(|| format!("the step's references bring in more than {} MiB", MAX_RESOLVED >> 20))?;
        self.room.set(room);
        Ok(value)
    }

    fn find(&self, reference: &Reference) -> Result<String, String> {
        match reference {
            Reference::Name(name) => self.values.named(name).map(str::to_owned),
            Reference::Chained { phase, step, side, index, key } => {
                let step = self.values.steps.get(&(phase.clone(), step.clone()));
                step.and_then(|step| match side {
                    Side::Inputs => step.inputs.get(index.unwrap_or(0))?.text(key).map(str::to_owned),
                    Side::Outputs => step.outputs.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone()),
                })
            }
            Reference::Loop { part, .. } => self.iteration.map(|iteration| match part {
                LoopPart::Index => iteration.index.to_string(),
                LoopPart::Value => iteration.value.clone(),
            }),
            Reference::Environment(name) => {
                let variable = self.site.environment.iter().find(|(known, _)| known == name);
                let value = variable.map(|(_, value)| value.clone());
                return value.ok_or_else(|| format!("the environment has no variable `{name}`"));
            }
            Reference::Metadata(_) | Reference::Stored(_) => return self.given(reference),
            Reference::Context(key) => return self.context(key, reference),
            Reference::Unknown(_) => None,
        }
        .ok_or_else(|| format!("`{{{{ {reference} }}}}` has no value: the step it refers to did not run or failed"))
    }

    /// What somebody on the host gives.
    fn given(&self, reference: &Reference) -> Result<String, String> {
        let name = match reference {
            Reference::Stored(stored) => stored_name(stored, self.values, &self.site.references)?,
            other => other.to_string(),
        };
        let given = self.site.references.get(&name).map(String::as_str);
        given.or_else(|| self.site.secrets.value(&name)).map(str::to_owned).ok_or_else(|| no_value(&name))
    }

    fn context(&self, key: &str, reference: &Reference) -> Result<String, String> {
        let now = || jiff::Timestamp::now();
        Ok(match key {
            "executionId" => self.site.execution_id.clone(),
            "osPlatform" => "linux".to_owned(),
            "osName" => self.facts.os_name.clone(),
            "osVersion" => self.facts.os_version.clone(),
            "hostname" => self.facts.hostname.clone(),
            "date" => now().strftime("%Y-%m-%d").to_string(),
            "dateTime" => now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "uuid" => uuid::Uuid::new_v4().to_string(),
            "phase" => self.phase.to_owned(),
            "step" => self.step.to_owned(),
            _ => return self.given(reference),
        })
    }
}

/// Keys of `context:` that the guest knows.
pub(super) const CONTEXT_OF_GUEST: [&str; 3] = ["osName", "osVersion", "hostname"];
/// All keys of `context:`.
pub(super) const CONTEXT: [&str; 12] = [
    "executionId",
    "accountId",
    "region",
    "osPlatform",
    "osName",
    "osVersion",
    "date",
    "dateTime",
    "uuid",
    "hostname",
    "phase",
    "step",
];
/// Keys of `context:` that only AWS knows.
const CONTEXT_OF_ACCOUNT: [&str; 2] = ["accountId", "region"];

/// The name under which somebody on the host has to give a value for a reference, if anybody has to.
pub(super) fn given_name(
    reference: &Reference,
    values: &Values,
    references: &References,
) -> Option<Result<String, String>> {
    match reference {
        Reference::Metadata(_) => Some(Ok(reference.to_string())),
        Reference::Context(key) if CONTEXT_OF_ACCOUNT.contains(&key.as_str()) => Some(Ok(reference.to_string())),
        Reference::Stored(stored) => Some(stored_name(stored, values, references)),
        _ => None,
    }
}

/// What to say of a reference that nobody has given a value.
pub(super) fn no_value(name: &str) -> String {
    format!(
        "`{{{{ {name} }}}}` has no value here: give one with `--reference {name}=VALUE`, or in the recipe's `references`"
    )
}

/// A stored value's name, which may have to be looked up itself.
fn stored_name(stored: &Stored, values: &Values, references: &References) -> Result<String, String> {
    let name = match stored {
        Stored::Name(name) => name.clone(),
        Stored::Parameter(parameter) => {
            let value = values.named(parameter);
            value.ok_or_else(|| format!("`{parameter}` is neither a parameter nor a constant"))?.to_owned()
        }
        Stored::Stored(inner) => {
            let inner = stored_name(inner, values, references)?;
            references.get(&inner).ok_or_else(|| no_value(&inner))?.clone()
        }
    };
    Ok(format!("aws:ssm:{name}"))
}

/// A path in the guest, where relative ones begin in `folder`.
pub(super) fn absolute(folder: &str, path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", folder.trim_end_matches('/')) }
}

impl Facts {
    /// Asks the guest.
    pub(super) async fn of(guest: &Guest) -> Result<Self, guest::Error> {
        let hostname = text_of(guest, "/proc/sys/kernel/hostname").await?.trim_end().to_owned();
        let release = text_of(guest, "/etc/os-release").await?;
        let field = |name: &str| {
            let line = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.map(|value| value.trim_matches(['"', '\'']).to_owned()).unwrap_or_default()
        };
        Ok(Self { hostname, os_name: field("NAME"), os_version: field("VERSION_ID") })
    }
}

/// The text of a small file of the system's; nothing if it is not there.
async fn text_of(guest: &Guest, path: &str) -> Result<String, guest::Error> {
    const LIMIT: usize = 64 << 10;
    match guest.read(path, LIMIT).await {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(guest::Error::Refused(error)) if error.kind == OpErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::expression::Template;

    fn resolved(text: &str, site: &Site) -> Result<String, String> {
        let names = [("Name", "/from/parameter"), ("Port", "80")];
        let names = names.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let values = Values { names: HashMap::from(names), steps: HashMap::new() };
        let facts = Facts { os_name: "Debian GNU/Linux".to_owned(), ..Facts::default() };
        let iteration = Iteration { index: 2, value: "c".to_owned() };
        let scope = Scope::new(&values, site, ("build", "Step"), &facts).within(Some(&iteration));
        Template::parse(text).resolve(|reference| scope.get(reference))
    }

    fn site() -> Site {
        let given = [
            ("aws:ssm:/a", "plain"),
            ("aws:ssm:/from/parameter", "by parameter"),
            ("aws:ssm:/name", "/a"),
            ("aws:imds:placement/region", "eu-central-1"),
            ("context:accountId", "111122223333"),
        ];
        Site {
            references: given.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            environment: vec![("IMAGE_PHASE".to_owned(), "BUILDING".to_owned())],
            execution_id: "run".to_owned(),
            ..Site::default()
        }
    }

    #[test]
    fn references_of_every_kind_have_values() {
        for (text, expected) in [
            ("{{ Port }}", "80"),
            ("{{ loop.index }}{{ loop.value }}{{ Mine.value }}", "2cc"),
            ("{{ env:IMAGE_PHASE }}", "BUILDING"),
            ("{{ aws:ssm:/a }}", "plain"),
            ("{{ aws:ssm:resolve(Name) }}", "by parameter"),
            ("{{ aws:ssm:resolve(aws:ssm:/name) }}", "plain"),
            ("{{ aws:imds:placement/region }}", "eu-central-1"),
            ("{{ context:accountId }} {{context:executionId}}", "111122223333 run"),
            ("{{ context:phase }}/{{ context:step }} {{ context:osPlatform }}", "build/Step linux"),
            ("{{ context:osName }}{{ context:osVersion }}", "Debian GNU/Linux"),
        ] {
            assert_eq!(resolved(text, &site()).as_deref(), Ok(expected), "{text}");
        }
        let date = resolved("{{ context:date }} {{ context:dateTime }}", &site()).unwrap();
        let (day, time) = date.split_once(' ').unwrap();
        assert!(time.starts_with(day) && time.ends_with('Z') && day.len() == 10 && time.len() == 20, "{date}");
        assert_eq!(resolved("{{ context:uuid }}", &site()).unwrap().len(), 36);
    }

    #[test]
    fn what_has_no_value_says_how_to_give_one() {
        let problem = |text: &str| resolved(text, &Site::default()).unwrap_err();
        insta::assert_snapshot!(problem("{{ aws:ssm:/a }}"), @"`{{ aws:ssm:/a }}` has no value here: give one with `--reference aws:ssm:/a=VALUE`, or in the recipe's `references`");
        insta::assert_snapshot!(problem("{{ aws:ssm:resolve(aws:ssm:/name) }}"), @"`{{ aws:ssm:/name }}` has no value here: give one with `--reference aws:ssm:/name=VALUE`, or in the recipe's `references`");
        insta::assert_snapshot!(problem("{{ context:region }}"), @"`{{ context:region }}` has no value here: give one with `--reference context:region=VALUE`, or in the recipe's `references`");
        insta::assert_snapshot!(problem("{{ env:NOT_THERE }}"), @"the environment has no variable `NOT_THERE`");
        insta::assert_snapshot!(problem("{{ build.Other.outputs.stdout }}"), @"`{{ build.Other.outputs.stdout }}` has no value: the step it refers to did not run or failed");
    }

    #[test]
    fn what_references_bring_in_is_bounded() {
        let mut site = site();
        site.references.insert("aws:ssm:/large".to_owned(), "x".repeat(1 << 20));
        assert!(resolved(&"{{ aws:ssm:/large }}".repeat(10), &site).is_ok());
        assert!(resolved(&"{{ aws:ssm:/large }}".repeat(20), &site).unwrap_err().contains("more than 16 MiB"));
    }
}
