use std::fmt::Write as _;

use super::*;

const RECIPE: &str = "name: Web Server\nversion: 1.0.x\nparentImage: debian-12-minimal\n";

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// All that is found in a folder, with the problems.
fn shown(files: &[(&str, &str)]) -> String {
    let folder = folder(files);
    let found = in_folder(folder.path()).unwrap();
    let mut text = String::new();
    for one in &found.definitions {
        let schedule = one.schedule.as_ref().map(ToString::to_string);
        writeln!(
            text,
            "{} enabled={} {:?} {:?} failures={:?}",
            one.name, one.enabled, schedule, one.condition, one.failures_allowed
        )
        .unwrap();
        writeln!(text, "{}", serde_json::to_string(&one.how).unwrap()).unwrap();
        one.builds
            .iter()
            .filter(|build| !build.label().is_empty())
            .for_each(|build| writeln!(text, "build {}", build.label()).unwrap());
        one.warnings.iter().for_each(|warning| writeln!(text, "warning: {warning}").unwrap());
    }
    for problem in &found.problems {
        let text_of = match &problem.error {
            Error::Unusable { place, message, help } => {
                format!("{place}: {message} ({})", help.clone().unwrap_or_default())
            }
            Error::Document(report) => report.to_string(),
            other => other.to_string(),
        };
        writeln!(text, "problem: {text_of}").unwrap();
    }
    text.replace(&*folder.path().to_string_lossy(), "FOLDER")
}

#[test]
fn names_of_the_same_file_and_files_beside_it() {
    let text = "
kind: ImagePipeline
name: web
recipe: web.yaml
infrastructure: small
distribution: out
imageTags: { team: web }
matrix: { parents: [debian-12, debian-13], parameters: { Port: ['80'] } }
schedule: { scheduleExpression: rate(1 day), autoDisablePolicy: { failureCount: 3 } }
---
kind: ImagePipeline
name: other
status: DISABLED
recipe: web.yaml
infrastructure: large.yaml
imageTestsConfiguration: { imageTestsEnabled: false, timeoutMinutes: 60 }
---
kind: InfrastructureConfiguration
name: small
machine: { cpus: 1, memory: 512MiB }
network: none
proxy: http://proxy:3128
mirrors: { 'http://deb.example/debian': 'http://mirror/debian' }
logs: logs
---
kind: DistributionConfiguration
name: out
distributions: [{ directory: out, formats: [qcow2] }]
";
    let large = "kind: InfrastructureConfiguration\nname: large\nterminateInstanceOnFailure: false\n";
    let files = [("web.yaml", RECIPE), ("p.yaml", text), ("large.yaml", large), ("notes.txt", "kind: ImagePipeline")];
    insta::assert_snapshot!(shown(&files));
}

#[test]
fn the_input_of_the_aws_command_line_finds_what_its_arns_name() {
    let pipeline = r#"{ "name": "web", "imageRecipeArn": "arn:aws:imagebuilder:eu-west-1:111122223333:image-recipe/web-server/1.0.x",
  "infrastructureConfigurationArn": "arn:aws:imagebuilder:eu-west-1:111122223333:infrastructure-configuration/my-infra",
  "schedule": { "scheduleExpression": "cron(0 0 * * ? *)", "timezone": "Europe/Berlin",
    "pipelineExecutionStartCondition": "EXPRESSION_MATCH_ONLY" } }"#;
    let infrastructure = r#"{ "name": "My_infra", "instanceProfileName": "p", "instanceTypes": ["t3.micro"], "logging": { "s3Logs": { "s3BucketName": "logs" } },
  "snsTopicArn": "arn:aws:sns:eu-west-1:111122223333:images" }"#;
    let files = [("recipe.yaml", RECIPE), ("pipeline.json", pipeline), ("infra.json", infrastructure)];
    insta::assert_snapshot!(shown(&files));
}

#[test]
fn what_is_wrong_with_one_takes_nothing_from_the_others() {
    let pipeline = |name: &str, more: &str| format!("kind: ImagePipeline\nname: {name}\n{more}\n");
    let good = pipeline("good", "recipe: r.yaml");
    let files: Vec<(String, String)> = [
        ("again", pipeline("good", "recipe: r.yaml")),
        ("arn-kind", pipeline("arn-kind", "recipe: arn:aws:imagebuilder:eu-west-1:111122223333:component/x/1.0.0")),
        (
            "arn-lost",
            pipeline("arn-lost", "recipe: arn:aws:imagebuilder:eu-west-1:111122223333:image-recipe/web-server/2.0.0\n"),
        ),
        ("cron", pipeline("cron", "recipe: r.yaml\nschedule: { scheduleExpression: cron(0 0 * * ?) }")),
        ("events", pipeline("events", "recipe: r.yaml\nevents: [{ snsTopicArn: 'arn:aws:s3:::x' }]")),
        ("field", pipeline("field", "recipe: r.yaml\nschedul: x")),
        (
            "no-infra",
            pipeline(
                "no-infra",
                "recipe: r.yaml\ninfrastructure: small\n---\nkind: InfrastructureConfiguration\nname: large",
            ),
        ),
        ("no-recipe", pipeline("no-recipe", "recipe: missing.yaml")),
        (
            "zone",
            pipeline(
                "zone",
                "recipe: r.yaml\nschedule: { scheduleExpression: cron(0 0 * * ? *), timezone: Europe/Bonn }",
            ),
        ),
        ("a", good),
        ("r", RECIPE.replace("1.0.x", "1.0.0")),
    ]
    .map(|(name, text)| (format!("{name}.yaml"), text))
    .to_vec();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    insta::assert_snapshot!(shown(&files));
}

#[test]
fn a_pipeline_is_found_by_name_and_by_file() {
    let two = "kind: ImagePipeline\nname: one\nrecipe: r.yaml\n---\nkind: ImagePipeline\nname: two\nrecipe: r.yaml\n";
    let one = "kind: ImagePipeline\nname: three\nrecipe: r.yaml\n";
    let folder = folder(&[("two.yaml", two), ("one.yaml", one), ("r.yaml", RECIPE)]);
    let found = |wanted: &str| find(wanted, folder.path()).map(|definition| definition.name.to_string());
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    assert_eq!(found("two").unwrap(), "two");
    assert_eq!(found(&path("one.yaml")).unwrap(), "three");
    for wanted in ["four".to_owned(), path("two.yaml")] {
        assert!(matches!(found(&wanted), Err(Error::NoPipeline { known, .. }) if known.len() >= 2), "{wanted}");
    }
    assert!(matches!(found(&path("missing.yaml")), Err(Error::Unreadable(_))));
    fs::write(folder.path().join("bad.yaml"), "kind: ImagePipeline\nname: [\n").unwrap();
    assert_eq!(found("two").unwrap(), "two");
    assert!(matches!(found("four"), Err(Error::Problem { .. })));
}

/// An edit forgives failures, and one of another document of the same file is none of the pipeline's.
#[test]
fn a_digest_is_of_the_pipelines_own_document() {
    let text = |comment: &str, name: &str| {
        format!(
            "kind: ImagePipeline\nname: one\nrecipe: r.yaml\n{comment}---\nkind: ImagePipeline\nname: {name}\nrecipe: r.yaml\n"
        )
    };
    let folder = folder(&[("r.yaml", RECIPE)]);
    let digest = |text: String| {
        fs::write(folder.path().join("p.yaml"), text).unwrap();
        in_file(&folder.path().join("p.yaml")).unwrap()[0].digest.clone()
    };
    let first = digest(text("", "two"));
    assert_eq!(digest(text("", "three")), first);
    assert_ne!(digest(text("priority: 5\n", "two")), first);
}
