//! Pipelines: what is built, when, and who is told. The names are those of `CreateImagePipeline`, with short forms for people.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::decode::{Fields, Reader, Spanned};
use super::recipe::labels_with_spans;
use super::resource::{name, number, one_of, without_effect};
use super::secret::SecretSource;
use super::syntax::{Node, Source};

/// A pipeline.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// Where it came from.
    pub source: Arc<Source>,
    /// Its bytes in the source.
    pub span: Range<usize>,
    /// Its name.
    pub name: Spanned<String>,
    /// What it is for.
    pub description: Option<String>,
    /// The recipe: a file beside the document, or the ARN of one.
    pub recipe: Spanned<String>,
    /// The infrastructure configuration: a name in the same file, a file, or an ARN.
    pub infrastructure: Option<Spanned<String>>,
    /// The distribution configuration: a name in the same file, a file, or an ARN.
    pub distribution: Option<Spanned<String>>,
    /// Whether it runs by its schedule.
    pub enabled: bool,
    /// Whether its images are tested.
    pub tests: bool,
    /// How long a test may take. The service takes the number and ignores it.
    pub test_timeout: Duration,
    /// When it runs by itself.
    pub schedule: Option<Schedule>,
    /// Labels of the pipeline.
    pub tags: Vec<(String, String)>,
    /// Labels of each of its images.
    pub image_tags: Vec<(String, String)>,
    /// Runs of a higher number start first.
    pub priority: i32,
    /// What a run builds.
    pub matrix: Matrix,
    /// Who is told of what happens.
    pub events: Vec<EventTarget>,
}

/// What a run builds: each combination of a parent with parameters' values.
#[derive(Debug, Clone, Default)]
pub struct Matrix {
    /// Parents to build on, each in place of the recipe's; none for the recipe's own.
    pub parents: Vec<Spanned<String>>,
    /// Values of parameters, by their names.
    pub parameters: Vec<(String, Vec<String>)>,
}

/// When a pipeline runs by itself.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// `cron(…)` or `rate(…)`.
    pub expression: Spanned<String>,
    /// A time zone of IANA's, UTC unless given.
    pub timezone: Option<Spanned<String>>,
    /// Whether it runs at such a time also when nothing that it is made from is newer.
    pub always: bool,
    /// How many scheduled runs in a row may fail before it is disabled, 1 to 10.
    pub failures_allowed: Option<u32>,
}

/// Who is told of what happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventTarget {
    /// Somebody behind an address.
    Webhook {
        /// The address, `http` or `https`.
        url: String,
        /// Where the key of the signatures comes from.
        secret: Option<SecretSource>,
    },
    /// A command for `sh`, which reads the event.
    Command(String),
    /// A topic's ARN.
    Topic(String),
    /// A file that gets a line for each, relative to the document.
    File(String),
}

const FIELDS: [&str; 27] = [
    "kind",
    "name",
    "description",
    "recipe",
    "imageRecipeArn",
    "infrastructure",
    "infrastructureConfigurationArn",
    "distribution",
    "distributionConfigurationArn",
    "status",
    "imageTestsConfiguration",
    "schedule",
    "tags",
    "imageTags",
    "priority",
    "matrix",
    "events",
    "clientToken",
    "enhancedImageMetadataEnabled",
    "executionRole",
    "loggingConfiguration",
    "imageScanningConfiguration",
    "containerRecipeArn",
    "workflows",
    "dateCreated",
    "dateUpdated",
    "arn",
];
/// The service's default: 12 hours.
const TEST_TIMEOUT: i64 = 720;
/// Most builds of one run.
pub const MOST_BUILDS: usize = 100;

/// Reads one.
pub(super) fn decode(reader: &Reader, node: &Node) -> Option<Pipeline> {
    let mut fields = reader.map(node, "a pipeline")?;
    let _kind = fields.get("kind");
    let name = fields.require("name").and_then(|node| name(reader, node));
    let description = fields.text("description").map(|text| text.value);
    fields.refuse(&["containerRecipeArn"], "is about container images, which goldsmith does not build");
    let recipe = reference(reader, &mut fields, ("recipe", "imageRecipeArn"));
    if recipe.is_none() {
        fields.missing("recipe");
    }
    let infrastructure = reference(reader, &mut fields, ("infrastructure", "infrastructureConfigurationArn"));
    let distribution = reference(reader, &mut fields, ("distribution", "distributionConfigurationArn"));
    let enabled =
        fields.get("status").is_none_or(|node| one_of(reader, node, "status", &["ENABLED", "DISABLED"]) != Some(1));
    let (tests, test_timeout) =
        fields.get("imageTestsConfiguration").and_then(|node| tests(reader, node)).unwrap_or((true, TEST_TIMEOUT));
    let schedule = fields.get("schedule").and_then(|node| schedule(reader, node));
    let mut labels = |name| {
        let labels = fields.get(name).map(|node| labels_with_spans(reader, node, name)).unwrap_or_default();
        labels.into_iter().map(|(name, value)| (name.value, value.value)).collect()
    };
    let (tags, image_tags) = (labels("tags"), labels("imageTags"));
    let priority = fields.get("priority").and_then(|node| number(reader, node, "priority", -1000..=1000)).unwrap_or(0);
    let matrix = fields.get("matrix").map(|node| matrix(reader, node)).unwrap_or_default();
    let events = fields.get("events").map(|node| events(reader, node)).unwrap_or_default();
    workflows(reader, &mut fields);
    without_effect(
        reader,
        &mut fields,
        &["enhancedImageMetadataEnabled", "executionRole", "loggingConfiguration", "imageScanningConfiguration"],
    );
    for name in ["clientToken", "dateCreated", "dateUpdated", "arn"] {
        let _of_the_call = fields.get(name);
    }
    fields.finish(&FIELDS);
    Some(Pipeline {
        source: reader.source.clone(),
        span: node.span.clone(),
        name: name?,
        description,
        recipe: recipe?,
        infrastructure,
        distribution,
        enabled,
        tests,
        test_timeout: Duration::from_secs(u64::try_from(test_timeout).unwrap_or_default() * 60),
        schedule,
        tags,
        image_tags,
        priority: i32::try_from(priority).unwrap_or_default(),
        matrix,
        events,
    })
}

fn reference(reader: &Reader, fields: &mut Fields<'_>, names: (&str, &str)) -> Option<Spanned<String>> {
    let node = fields.either(names.0, names.1)?;
    reader.text(node, names.0)
}

fn tests(reader: &Reader, node: &Node) -> Option<(bool, i64)> {
    let mut fields = reader.map(node, "`imageTestsConfiguration`")?;
    let enabled = fields.get("imageTestsEnabled").and_then(|node| reader.boolean(node, "imageTestsEnabled"));
    // The service takes 60 at least, and ignores it.
    let timeout = fields.get("timeoutMinutes").and_then(|node| number(reader, node, "timeoutMinutes", 1..=1440));
    fields.finish(&["imageTestsEnabled", "timeoutMinutes"]);
    Some((enabled.unwrap_or(true), timeout.unwrap_or(TEST_TIMEOUT)))
}

fn schedule(reader: &Reader, node: &Node) -> Option<Schedule> {
    const CONDITIONS: [&str; 2] = ["EXPRESSION_MATCH_ONLY", "EXPRESSION_MATCH_AND_DEPENDENCY_UPDATES_AVAILABLE"];
    let mut fields = reader.map(node, "`schedule`")?;
    let expression = fields.require("scheduleExpression").and_then(|node| reader.text(node, "scheduleExpression"));
    let timezone = fields.text("timezone");
    let condition = fields.get("pipelineExecutionStartCondition");
    let always =
        condition.and_then(|node| one_of(reader, node, "pipelineExecutionStartCondition", &CONDITIONS)) == Some(0);
    let failures_allowed = fields.get("autoDisablePolicy").and_then(|node| {
        let mut fields = reader.map(node, "`autoDisablePolicy`")?;
        let count = fields.require("failureCount").and_then(|node| number(reader, node, "failureCount", 1..=10));
        fields.finish(&["failureCount"]);
        count.and_then(|count| u32::try_from(count).ok())
    });
    fields.finish(&["scheduleExpression", "timezone", "pipelineExecutionStartCondition", "autoDisablePolicy"]);
    Some(Schedule { expression: expression?, timezone, always, failures_allowed })
}

fn matrix(reader: &Reader, node: &Node) -> Matrix {
    let Some(mut fields) = reader.map(node, "`matrix`") else { return Matrix::default() };
    let parents = fields.get("parents").and_then(|node| reader.texts(node, "parents")).unwrap_or_default();
    let mut parameters = Vec::new();
    if let Some(all) = fields.get("parameters").and_then(|node| reader.map(node, "`parameters`")) {
        for (name, values) in all.all() {
            let texts = reader.texts(values, "a parameter's values").unwrap_or_default();
            if texts.is_empty() {
                reader.error(&name.span, format!("`{}` has no values", name.value));
            }
            parameters.push((name.value, texts.into_iter().map(|text| text.value).collect::<Vec<String>>()));
        }
    }
    fields.finish(&["parents", "parameters"]);
    let sizes = parameters.iter().map(|(_, values)| values.len());
    let builds = sizes.fold(parents.len().max(1), usize::saturating_mul);
    if builds > MOST_BUILDS {
        reader.error(&node.span, format!("the matrix has {builds} builds, and may have {MOST_BUILDS}"));
    }
    Matrix { parents, parameters }
}

/// Who is told of what happens.
pub(super) fn events(reader: &Reader, node: &Node) -> Vec<EventTarget> {
    let items = reader.list(node, "events").unwrap_or_default();
    items.iter().filter_map(|item| event_target(reader, item)).collect()
}

fn event_target(reader: &Reader, node: &Node) -> Option<EventTarget> {
    let mut fields = reader.map(node, "an item of `events`")?;
    let (webhook, command) = (fields.text("webhook"), fields.text("command"));
    let (topic, file) = (fields.text("snsTopicArn"), fields.text("file"));
    let secret = fields.get("secret").and_then(|node| reader.parse::<SecretSource>(node, "secret"));
    fields.finish(&["webhook", "secret", "command", "snsTopicArn", "file"]);
    if let (Some(secret), None) = (&secret, &webhook) {
        reader.error(&secret.span, "`secret` signs what a `webhook` gets, and there is none");
    }
    match (webhook, command, topic, file) {
        (Some(url), None, None, None) => {
            if !url.value.starts_with("http://") && !url.value.starts_with("https://") {
                reader.error(&url.span, "`webhook` is an address that begins with http:// or https://");
            }
            Some(EventTarget::Webhook { url: url.value, secret: secret.map(|secret| secret.value) })
        }
        (None, Some(command), None, None) => Some(EventTarget::Command(command.value)),
        (None, None, Some(topic), None) => Some(EventTarget::Topic(topic.value)),
        (None, None, None, Some(file)) => Some(EventTarget::File(file.value)),
        _ => {
            reader.error(&node.span, "an item of `events` has one of `webhook`, `command`, `snsTopicArn` and `file`");
            None
        }
    }
}

/// The service's own workflows are what goldsmith does anyhow; others can't be run.
fn workflows(reader: &Reader, fields: &mut Fields<'_>) {
    const MANAGED: [&str; 3] = ["build-image", "test-image", "distribute-image"];
    let Some(items) = fields.get("workflows").and_then(|node| reader.list(node, "workflows")) else { return };
    for item in items {
        let arn = item.get("workflowArn").and_then(|node| reader.text(node, "workflowArn"));
        let Some(arn) = arn else { continue };
        let mut parts = arn.value.rsplit('/');
        let is_managed = arn.value.contains(":aws:workflow/") && parts.any(|part| MANAGED.contains(&part));
        if !is_managed {
            reader.error(
                &arn.span,
                format!("the workflow `{}` can't be run: goldsmith has its own order of work", arn.value),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::resource::{self, Resource};
    use super::*;

    fn read(text: &str) -> Result<(Pipeline, String), String> {
        let (all, report) = resource::decode(&Source::new("p.yaml", text)).map_err(|report| report.to_string())?;
        match all.into_iter().next() {
            Some(Resource::Pipeline(pipeline)) => Ok((*pipeline, report.to_string())),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn the_input_of_the_aws_command_line() {
        let text = r#"{ "name": "web", "imageRecipeArn": "arn:aws:imagebuilder:eu-west-1:111122223333:image-recipe/web/1.0.x",
  "infrastructureConfigurationArn": "arn:aws:imagebuilder:eu-west-1:111122223333:infrastructure-configuration/small",
  "imageTestsConfiguration": { "imageTestsEnabled": true, "timeoutMinutes": 90 }, "enhancedImageMetadataEnabled": true,
  "schedule": { "scheduleExpression": "cron(0 0 * * ? *)", "timezone": "Europe/Berlin",
    "pipelineExecutionStartCondition": "EXPRESSION_MATCH_ONLY", "autoDisablePolicy": { "failureCount": 3 } },
  "workflows": [{ "workflowArn": "arn:aws:imagebuilder:eu-west-1:aws:workflow/build/build-image/x.x.x" }],
  "status": "DISABLED", "tags": { "team": "web" }, "clientToken": "abc" }"#;
        let (pipeline, warnings) = read(text).unwrap();
        insta::assert_snapshot!(warnings, @"p.yaml:3:115: warning: `enhancedImageMetadataEnabled` describes AWS's own machinery and has no effect here");
        assert!(!pipeline.enabled && pipeline.tests && pipeline.test_timeout == Duration::from_secs(5400));
        let schedule = pipeline.schedule.unwrap();
        assert!(schedule.always && schedule.failures_allowed == Some(3));
        assert_eq!(schedule.timezone.unwrap().value, "Europe/Berlin");
    }

    #[test]
    fn what_goldsmith_has_of_its_own() {
        let text = "
kind: ImagePipeline
name: web
recipe: nginx.yaml
infrastructure: small
priority: 5
matrix: { parents: [debian-12, ubuntu-24.04], parameters: { Port: ['80', '8080'] } }
events:
  - { webhook: 'https://hooks.example/x', secret: 'env:HOOK' }
  - command: logger -t goldsmith
  - file: events.jsonl
";
        let (pipeline, _) = read(text).unwrap();
        assert_eq!(
            (pipeline.matrix.parents.len(), pipeline.matrix.parameters[0].1.len(), pipeline.priority),
            (2, 2, 5)
        );
        assert_eq!(pipeline.events.len(), 3);
    }

    #[test]
    fn all_errors_at_once_each_with_its_place() {
        let text = "
kind: ImagePipeline
name: w
containerRecipeArn: x
status: ON
imageTestsConfiguration: { timeoutMinutes: 0 }
schedule: { pipelineExecutionStartCondition: ALWAYS, autoDisablePolicy: { failureCount: 11 } }
priority: 5000
matrix: { parents: [a, b], parameters: { P: [] , Q: ['1'] } }
events: [{ webhook: ftp://x }, { command: x, file: y }, { file: y, secret: 'env:X' }]
workflows: [{ workflowArn: arn:aws:imagebuilder:eu-west-1:111122223333:workflow/build/mine/1.0.0 }]
recipy: x
";
        insta::assert_snapshot!(read(text).unwrap_err(), @"
        p.yaml:2:1: error: a pipeline needs the field `recipe`
        p.yaml:3:7: error: `name` has 3 to 128 letters, digits, `-`, `_` and spaces, none of these at its ends
        p.yaml:4:1: error: `containerRecipeArn` is about container images, which goldsmith does not build
        p.yaml:5:9: error: `status` has to be one of ENABLED, DISABLED, not `ON`
        p.yaml:6:44: error: `timeoutMinutes` is a number from 1 to 1440, not 0
        p.yaml:7:11: error: `schedule` needs the field `scheduleExpression`
        p.yaml:7:46: error: `pipelineExecutionStartCondition` has to be one of EXPRESSION_MATCH_ONLY, EXPRESSION_MATCH_AND_DEPENDENCY_UPDATES_AVAILABLE, not `ALWAYS`
        p.yaml:7:89: error: `failureCount` is a number from 1 to 10, not 11
        p.yaml:8:11: error: `priority` is a number from -1000 to 1000, not 5000
        p.yaml:9:42: error: `P` has no values
        p.yaml:10:21: error: `webhook` is an address that begins with http:// or https://
        p.yaml:10:32: error: an item of `events` has one of `webhook`, `command`, `snsTopicArn` and `file`
        p.yaml:10:76: error: `secret` signs what a `webhook` gets, and there is none
        p.yaml:11:28: error: the workflow `arn:aws:imagebuilder:eu-west-1:111122223333:workflow/build/mine/1.0.0` can't be run: goldsmith has its own order of work
        p.yaml:12:1: error: a pipeline has no field `recipy` (did you mean `recipe`?)
        ");
    }
}
