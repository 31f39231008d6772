//! What is wrong with a document is said with its place, before anything is started.

use crate::framework::{Goldsmith, Place};

const UNKNOWN_ACTION: &str = "name: own
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: Fetch
        action: ExecutePowerShell
        inputs:
          commands: [Get-Date]
      - name: Run
        action: ExecuteBsh
        timeoutSeconds: soon
        inputs: { commands: [true] }
";

#[test]
fn a_bad_component_ends_a_build_before_it_begins() {
    let place = Place::with_own_store();
    place.write("own.yaml", UNKNOWN_ACTION);
    place.write("recipe.yaml", "name: web\nversion: 1.0.0\nparentImage: debian-12-minimal\ncomponents: [./own.yaml]\n");
    let ended = place.goldsmith(&["build", "recipe.yaml"]).run().fails(2);
    assert!(!place.home().join("images/web").exists(), "an image was begun: {ended}");
    insta::assert_snapshot!(ended.error(&place), @"
    error: the action `ExecutePowerShell` does not run on Linux
     --> own.yaml:7:17
      |
    7 |         action: ExecutePowerShell
      |                 ^^^^^^^^^^^^^^^^^
      |
    help: it runs on Windows

    error: there is no action `ExecuteBsh`
      --> own.yaml:11:17
       |
    11 |         action: ExecuteBsh
       |                 ^^^^^^^^^^
       |
    help: did you mean `ExecuteBash`?

    error: `timeoutSeconds` has to be a whole number, and this is `soon`
      --> own.yaml:12:25
       |
    12 |         timeoutSeconds: soon
       |                         ^^^^
    ");
}

#[test]
fn a_bad_recipe_is_explained() {
    let place = Place::with_own_store();
    place.write(
        "recipe.yaml",
        "name: web\nversion: 1.0\nparentImage: debian-12-minimal\ndisk: 4 gibberish\ncompnents: []\n",
    );
    let ended = place.goldsmith(&["build", "recipe.yaml"]).run().fails(2);
    insta::assert_snapshot!(ended.error(&place), @"
    error: `1.0` is no version: three numbers such as 1.0.0, or x for the last ones
     --> recipe.yaml:2:10
      |
    2 | version: 1.0
      |          ^^^

    error: `4 gibberish` is no size: a whole number with a unit such as 512MiB or 4GiB is needed
     --> recipe.yaml:4:7
      |
    4 | disk: 4 gibberish
      |       ^^^^^^^^^^^

    error: a recipe has no field `compnents`
     --> recipe.yaml:5:1
      |
    5 | compnents: []
      | ^^^^^^^^^
      |
    help: did you mean `components`?
    ");
    place.goldsmith(&["recipe", "validate", "recipe.yaml"]).run().fails(2);
}

#[test]
fn what_is_shipped_is_valid() {
    let place = Place::with_own_store();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for (kind, folder) in [("recipe", "recipes"), ("component", "components")] {
        let files = fs_err::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        let files: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "yaml")).collect();
        assert!(files.len() >= 3);
        for file in files {
            // The ordinary user may not be able to read the checkout, and paths in a recipe are relative to it.
            Goldsmith::as_oneself(&place, &[kind, "validate", &file.to_string_lossy()]).run().success();
        }
    }
    let listed = place.goldsmith(&["component", "list"]).run().success();
    for name in
        ["update-linux", "reboot-linux", "simple-boot-test-linux", "reboot-test-linux", "install-nginx", "harden-ssh"]
    {
        assert!(listed.stdout.contains(name), "{listed}");
    }
    let bases = place.goldsmith(&["base", "list", "--json"]).run().success().json();
    let bases: Vec<&str> = bases.as_array().unwrap().iter().map(|base| base["name"].as_str().unwrap()).collect();
    let expected = [
        "almalinux-9",
        "amazon-linux-2023",
        "debian-12",
        "debian-12-minimal",
        "debian-13",
        "fedora",
        "ubuntu-22.04",
        "ubuntu-24.04",
    ];
    assert_eq!(bases, expected);
}

#[test]
fn wrong_usage_is_said_so() {
    let place = Place::with_own_store();
    place.goldsmith(&["build"]).run().fails(2).says("Usage: goldsmith build");
    place.goldsmith(&["build", "r.yaml", "--export", "vdi"]).run().fails(2).says("vhdx, ova, gcp are");
    place.goldsmith(&["image", "show", "nothing/1.0.0"]).run().fails(2).says("there is no image `nothing/1.0.0`");
}

#[test]
fn completions_and_man_pages_are_made() {
    let place = Place::with_own_store();
    for shell in ["bash", "zsh", "fish"] {
        let completions = place.goldsmith(&["completions", shell]).run().success();
        assert!(completions.stdout.contains("goldsmith") && completions.stdout.contains("on-failure"), "{completions}");
    }
    place.goldsmith(&["man", "man1"]).run().success();
    for page in ["goldsmith.1", "goldsmith-build.1", "goldsmith-image-list.1"] {
        assert!(place.path("man1").join(page).exists(), "{page} is missing");
    }
}

const TEMPLATE: &str = "Resources:
  Bucket: { Type: AWS::S3::Bucket }
  Web:
    Type: AWS::ImageBuilder::ImageRecipe
    Properties: { Name: web, Version: 1.0.0, ParentImage: debian-12, AmiWatermarks: [ours] }
  Nightly:
    Type: AWS::ImageBuilder::ImagePipeline
    Properties: { Name: nightly, ImageRecipeArn: !Ref Web, Schedule: { ScheduleExpression: rate(1 day) } }
";

#[test]
fn a_template_is_imported_and_what_was_lost_of_it_decides_only_if_asked() {
    let place = Place::with_own_store();
    place.write("web.yaml", TEMPLATE);
    let ended = place.goldsmith(&["import", "web.yaml"]).run().success();
    insta::assert_snapshot!(ended.stdout, @"
    web.yaml:5: kept   Web.Name
    web.yaml:5: kept   Web.Version
    web.yaml:5: kept   Web.ParentImage
    web.yaml:5: lost   Web.AmiWatermarks: marks are AWS's own (`amiTags` label AMIs)
    web.yaml:8: kept   Nightly.Name
    web.yaml:8: mapped Nightly.ImageRecipeArn: the file web.recipe.yaml
    web.yaml:8: kept   Nightly.Schedule
    left out, because they are not Image Builder's: AWS::S3::Bucket 1
    web/web.recipe.yaml: written
    web/nightly.pipeline.yaml: written
    documents: 2; 5 kept, 1 mapped, 0 open, 1 lost
    ");
    let listed = place.goldsmith(&["pipeline", "list", "--folder", "web"]).run().success();
    assert!(listed.stdout.contains("nightly"), "{listed}");
    let again = place.goldsmith(&["import", "web.yaml", "--json"]).run().success().json();
    assert_eq!((again["lost"].as_u64(), again["documents"][0]["was_there"].as_bool()), (Some(1), Some(true)));
    place.goldsmith(&["import", "web.yaml", "--strict"]).run().fails(1);
    place.write("web/web.recipe.yaml", "mine\n");
    let ended = place.goldsmith(&["import", "web.yaml"]).run().fails(1);
    insta::assert_snapshot!(ended.error(&place), @"
    error: `web/web.recipe.yaml` is there already and says something else
    hint: `--output DIR` puts the documents elsewhere, `--force` overwrites; nothing was written
    ");
    place.goldsmith(&["import", "web.yaml", "--force"]).run().success();
    let ended = place.goldsmith(&["import", "web.yaml", "--parameter", "Version=1"]).run().fails(2);
    insta::assert_snapshot!(ended.error(&place), @"error: no template has a parameter `Version`");
    place.write("none.yaml", "Resources: { Bucket: { Type: AWS::S3::Bucket } }\n");
    let ended = place.goldsmith(&["import", "none.yaml"]).run().fails(2);
    insta::assert_snapshot!(ended.error(&place), @"
    error: there is nothing to import in none.yaml
    hint: imported are resources of the types AWS::ImageBuilder::*, but for containers and workflows
    ");
}
