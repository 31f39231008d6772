//! What a pipeline's documents say, put together and looked up.

use std::path::PathBuf;
use std::time::Duration;

use super::logs::LogPlace;
use super::schedule::Schedule;
use super::told::Told;
use crate::document::decode::Spanned;
use crate::document::recipe::{MachineWishes, Reach, Recipe};
use crate::document::size::Size;
use crate::factory::SiteWishes;
use crate::store::version::ImageName;

/// A pipeline, ready to be decided on.
#[derive(Debug, Clone)]
pub struct Definition {
    /// Its name.
    pub name: ImageName,
    /// The file that it is in.
    pub document: PathBuf,
    /// What it is for.
    pub description: Option<String>,
    /// Labels of the pipeline.
    pub tags: Vec<(String, String)>,
    /// SHA-256 of its document; another one is an edited pipeline.
    pub digest: String,
    /// Whether its `status` is ENABLED.
    pub enabled: bool,
    /// When it runs by itself.
    pub schedule: Option<Schedule>,
    /// Whether it runs at such a time also when nothing that it is made from is newer.
    pub condition: Condition,
    /// How many scheduled runs in a row may fail before it is disabled, 1 to 10.
    pub failures_allowed: Option<u32>,
    /// Runs of a higher number start first.
    pub priority: i32,
    /// The builds of a run, one at least.
    pub builds: Vec<Build>,
    /// How they are made.
    pub how: How,
    /// What is not as it should be, and does not stop anything.
    pub warnings: Vec<String>,
}

/// Under which condition a scheduled run starts; the API's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum Condition {
    /// Always.
    #[serde(rename = "EXPRESSION_MATCH_ONLY")]
    ExpressionMatchOnly,
    /// When something that it is made from is newer than at the last build.
    #[default]
    #[serde(rename = "EXPRESSION_MATCH_AND_DEPENDENCY_UPDATES_AVAILABLE")]
    DependencyUpdates,
}

/// One build of a run. A run that is no matrix has one, which changes nothing of the recipe.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Build {
    /// Parent instead of the recipe's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Parameters over the recipe's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<(String, String)>,
}

impl Build {
    /// What tells it from the run's others.
    pub fn label(&self) -> String {
        let parameters = self.parameters.iter().map(|(name, value)| format!("{name}={value}"));
        self.shown().parent.into_iter().chain(parameters).collect::<Vec<_>>().join(" ")
    }

    /// The same without what may be a secret in an address.
    pub fn shown(&self) -> Self {
        let parent = self.parent.as_deref().map(crate::host::address::shown);
        Self { parent, parameters: self.parameters.clone() }
    }

    /// All combinations of parents and of parameters' values; no parents mean the recipe's.
    pub fn matrix(parents: &[String], parameters: &[(String, Vec<String>)]) -> Vec<Self> {
        let mut builds: Vec<Self> = match parents {
            [] => vec![Self::default()],
            parents => parents.iter().map(|parent| Self { parent: Some(parent.clone()), ..Self::default() }).collect(),
        };
        for (name, values) in parameters {
            let with = |build: &Self, value: &String| {
                let mut build = build.clone();
                build.parameters.push((name.clone(), value.clone()));
                build
            };
            builds = builds.iter().flat_map(|build| values.iter().map(move |value| with(build, value))).collect();
        }
        builds
    }
}

/// A document of a file that may have several.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Named {
    /// The file.
    pub file: PathBuf,
    /// The document's name.
    pub name: String,
}

/// How the builds of a run are made.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct How {
    /// The recipe.
    pub recipe: PathBuf,
    /// A distribution configuration to publish by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distribution: Option<Named>,
    /// Whether images are tested.
    pub tests: bool,
    /// How long the test stage may take, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_seconds: Option<u64>,
    /// Processors, over the recipe's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Memory in bytes, over the recipe's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// What guests may reach.
    #[serde(default)]
    pub reach: Reach,
    /// A proxy's address, or `host`, over the recipe's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// Hosts to reach without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_proxy: Option<String>,
    /// Package repositories' addresses and what to use instead, beside the recipe's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<(String, String)>,
    /// Labels of each image, beside the recipe's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<(String, String)>,
    /// Whether the disk of a failed build machine stays.
    #[serde(default)]
    pub keep_on_failure: bool,
    /// Whether there is to be a new image although nothing has changed.
    #[serde(default)]
    pub anew: bool,
    /// Where logs are put, in Image Builder's layout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<LogPlace>,
    /// Who is told what becomes of its images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Told>,
}

impl How {
    /// Has a recipe say what the pipeline wants of its builds.
    pub fn apply(&self, recipe: &mut Recipe) {
        let unwritten = |value: &String| Spanned { value: value.clone(), span: 0..0 };
        let machine = MachineWishes { cpus: self.cpus, memory: self.memory.map(Size), ..MachineWishes::default() };
        recipe.machine = machine.or(&recipe.machine);
        recipe.network.reach.clone_from(&self.reach);
        if let Some(proxy) = &self.proxy {
            recipe.network.proxy = Some(unwritten(proxy));
            recipe.network.no_proxy.clone_from(&self.no_proxy);
        }
        recipe.network.mirrors.extend(self.mirrors.iter().map(|(from, to)| (unwritten(from), unwritten(to))));
        recipe.tags.extend(self.tags.iter().cloned());
    }

    /// What of the site's must not be on a disk.
    pub fn site(&self) -> SiteWishes {
        let Self { proxy, no_proxy, mirrors, .. } = self.clone();
        SiteWishes { proxy, no_proxy, mirrors, ..SiteWishes::default() }
    }

    /// How long the test stage may take.
    pub fn test_time(&self) -> Option<Duration> {
        self.test_seconds.map(Duration::from_secs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_shown_without_the_secrets_of_an_address() {
        let shown = |parent: &str| Build { parent: Some(parent.to_owned()), ..Build::default() }.label();
        assert_eq!(shown("https://me:hunter2@example.org/x.qcow2"), "https://***@example.org/x.qcow2");
        assert_eq!(shown("./disk@1?.qcow2"), "./disk@1?.qcow2");
    }

    #[test]
    fn a_matrix_is_all_combinations_parents_outermost() {
        let strings = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let parameters = [("Port".to_owned(), strings(&["80", "81"])), ("Mode".to_owned(), strings(&["a"]))];
        let labels = |builds: Vec<Build>| builds.iter().map(Build::label).collect::<Vec<_>>();
        let matrix = labels(Build::matrix(&strings(&["debian-12", "debian-13"]), &parameters));
        assert_eq!(
            matrix,
            [
                "debian-12 Port=80 Mode=a",
                "debian-12 Port=81 Mode=a",
                "debian-13 Port=80 Mode=a",
                "debian-13 Port=81 Mode=a"
            ]
        );
        assert_eq!(labels(Build::matrix(&[], &[])), [""]);
    }
}
