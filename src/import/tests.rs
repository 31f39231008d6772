use proptest::prelude::*;

use super::*;

const TEMPLATE: &str = r##"AWSTemplateFormatVersion: '2010-09-09'
Parameters:
  Version: { Type: String, Default: 1.2.0 }
  Key: { Type: 'AWS::EC2::KeyPair::KeyName' }
Conditions:
  IsNightly: !Equals [!Ref Version, nightly]
Resources:
  Bucket: { Type: AWS::S3::Bucket }
  Closed:
    Type: AWS::EC2::SecurityGroup
    Properties:
      SecurityGroupEgress: [{ IpProtocol: '-1', CidrIp: 127.0.0.1/32 }]
  Topic: { Type: AWS::SNS::Topic }
  Greeting:
    Type: AWS::ImageBuilder::Component
    Properties:
      Name: greeting
      Version: !Ref Version
      Platform: Linux
      Description: Says where it is
      Data: !Sub |
        name: greeting
        schemaVersion: 1.0
        phases:
          - name: build
            steps:
              - name: Greet
                action: ExecuteBash
                inputs:
                  commands: ['echo ${AWS::Region} ${!HOME} ${Bucket}']
  Elsewhere:
    Type: AWS::ImageBuilder::Component
    Properties: { Name: elsewhere, Version: 1.0.0, Platform: Linux, Uri: !Sub 's3://documents/${Version}.yaml' }
  Web:
    Type: AWS::ImageBuilder::ImageRecipe
    Properties:
      Name: Web Server
      Version: !Ref Version
      ParentImage: !Sub 'arn:${AWS::Partition}:imagebuilder:${AWS::Region}:aws:image/ubuntu-server-24-lts-x86/x.x.x'
      Components:
        - ComponentArn: !Ref Greeting
        - ComponentArn: !GetAtt Elsewhere.Arn
          Parameters: [{ Name: Port, Value: ['8080'] }, { Name: Hosts, Value: [a, b] }]
        - ComponentArn: !Sub 'arn:${AWS::Partition}:imagebuilder:${AWS::Region}:aws:component/update-linux/x.x.x'
        - ComponentArn: !Sub 'arn:${AWS::Partition}:imagebuilder:${AWS::Region}:aws:component/stig-build-linux-high/x.x.x'
        - ComponentArn: !Sub 'arn:aws:imagebuilder:${AWS::Region}:${AWS::AccountId}:component/greeting/1.x.x'
        - ComponentArn: arn:aws:imagebuilder:eu-west-1:111122223333:component/theirs/1.0.0/1
        - ComponentArn: !ImportValue shared-component
      BlockDeviceMappings:
        - { DeviceName: /dev/sdb, Ebs: { VolumeSize: 100 } }
        - { DeviceName: /dev/xvda, Ebs: { VolumeSize: 20, VolumeType: gp3, DeleteOnTermination: true } }
      AdditionalInstanceConfiguration:
        UserDataOverride:
          Fn::Base64: "#!/bin/sh\necho first\n"
      WorkingDirectory: /var/tmp
      Tags: { Team: web, MixedCase: kept }
      AmiTags: { Name: !Ref Key }
  Small:
    Type: AWS::ImageBuilder::InfrastructureConfiguration
    Properties:
      Name: small
      InstanceProfileName: profile
      InstanceTypes: [t3.medium, m5.large]
      KeyPair: !Ref Key
      SecurityGroupIds: [!GetAtt Closed.GroupId]
      SubnetId: subnet-1
      SnsTopicArn: !Ref Topic
      Logging: { S3Logs: { S3BucketName: !Ref Bucket, S3KeyPrefix: builds } }
      TerminateInstanceOnFailure: false
  Out:
    Type: AWS::ImageBuilder::DistributionConfiguration
    Properties:
      Name: out
      Distributions:
        - Region: eu-central-1
          AmiDistributionConfiguration:
            Name: 'web {{ imagebuilder:buildDate }}'
            AmiTags: { Team: web }
            LaunchPermissionConfiguration: { UserIds: ['111122223333'] }
            TargetAccountIds: [!Ref Key]
          LicenseConfigurationArns: [arn:aws:license-manager:eu-central-1:111122223333:license-configuration:x]
  Nightly:
    Type: AWS::ImageBuilder::ImagePipeline
    Properties:
      Name: nightly
      ImageRecipeArn: !GetAtt Web.Arn
      InfrastructureConfigurationArn: !Ref Small
      DistributionConfigurationArn: !Ref Out
      Schedule: { ScheduleExpression: cron(0 2 * * ? *), PipelineExecutionStartCondition: EXPRESSION_MATCH_ONLY }
      ImageTestsConfiguration: { ImageTestsEnabled: true, TimeoutMinutes: 60 }
      EnhancedImageMetadataEnabled: true
      Workflows:
        - WorkflowArn: arn:aws:imagebuilder:us-east-1:aws:workflow/build/build-image/x.x.x
        - WorkflowArn: !Ref Flow
  Once:
    Type: AWS::ImageBuilder::Image
    Properties: { ImageRecipeArn: !Ref Web, InfrastructureConfigurationArn: !Ref Small, Tags: { Once: true } }
  Child:
    Type: AWS::ImageBuilder::ImageRecipe
    Condition: IsNightly
    Properties: { Name: child, Version: 1.0.0, ParentImage: x }
  Upper:
    Type: AWS::ImageBuilder::ImageRecipe
    Properties: { Name: upper, Version: 1.0.0, ParentImage: !GetAtt Once.ImageId, Colour: red }
  Old:
    Type: AWS::ImageBuilder::LifecyclePolicy
    Properties:
      Name: old
      ExecutionRole: role
      ResourceType: AMI_IMAGE
      PolicyDetails:
        - Action: { Type: DELETE, IncludeResources: { Amis: true } }
          Filter: { Type: COUNT, Value: 3 }
      ResourceSelection: { Recipes: [{ Name: !GetAtt Web.Name, SemanticVersion: x.x.x }] }
  Flow:
    Type: AWS::ImageBuilder::Workflow
    Properties: { Name: flow, Version: 1.0.0, Type: BUILD, Data: x }
  Container:
    Type: AWS::ImageBuilder::ContainerRecipe
    Properties: { Name: box, Version: 1.0.0, ContainerType: DOCKER }
  Boxes:
    Type: AWS::ImageBuilder::ImagePipeline
    Properties: { Name: boxes, ContainerRecipeArn: !Ref Container, InfrastructureConfigurationArn: !Ref Small }
"##;

fn imported(text: &str) -> Result<Import, Error> {
    import(&[Source::new("web.yaml", text)], &Environment::default(), Path::new("nowhere"))
}

fn report(notes: &[Note]) -> String {
    notes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn documents(import: &Import) -> String {
    let shown = |document: &Document| format!("=== {} ({})\n{}", document.path, document.kind, document.text);
    import.documents.iter().map(shown).collect::<Vec<_>>().join("\n")
}

/// The report and the documents of a template that has only these resources.
fn of_resources(resources: &str) -> String {
    match imported(&format!("Resources:\n{resources}")) {
        Ok(import) => format!("{}\n{}", report(&import.notes), documents(&import)),
        Err(Error::Document(report)) => report.to_string(),
        Err(Error::Nothing { notes, .. }) => report(&notes),
        Err(other) => other.to_string(),
    }
}

#[test]
fn a_template_with_everything_is_reported_line_by_line() {
    insta::assert_snapshot!(report(&imported(TEMPLATE).unwrap().notes));
}

#[test]
fn a_template_with_everything_becomes_documents() {
    let import = imported(TEMPLATE).unwrap();
    insta::assert_snapshot!(documents(&import));
    assert_eq!(import.others.values().sum::<usize>(), 3);
}

#[test]
fn the_same_template_becomes_the_same_bytes_and_nothing_of_the_users_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (imported(TEMPLATE).unwrap(), imported(TEMPLATE).unwrap());
    assert_eq!(first.documents, second.documents);
    let written = write(&first.documents, folder.path(), false).unwrap();
    assert!(written.iter().all(|written| !written.was_there && written.path.starts_with(folder.path())));
    assert!(write(&second.documents, folder.path(), false).unwrap().iter().all(|written| written.was_there));
    let own = folder.path().join("nightly.pipeline.yaml");
    fs_err::write(&own, "mine\n").unwrap();
    fs_err::remove_file(folder.path().join("small.infrastructure.yaml")).unwrap();
    let Err(Error::Taken { paths }) = write(&first.documents, folder.path(), false) else { panic!("overwritten") };
    assert_eq!(paths, std::slice::from_ref(&own));
    assert!(!folder.path().join("small.infrastructure.yaml").exists());
    write(&first.documents, folder.path(), true).unwrap();
    assert_ne!(fs_err::read_to_string(own).unwrap(), "mine\n");
}

/// What goldsmith says of documents when it reads them as they will be used.
fn problems(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let import = imported(text).unwrap();
    write(&import.documents, folder.path(), false).unwrap();
    check(&import.documents, folder.path()).join("\n").replace(&*folder.path().to_string_lossy(), "FOLDER")
}

#[test]
fn documents_are_read_again_as_they_will_be_used() {
    insta::assert_snapshot!(problems(TEMPLATE), @"FOLDER/web-server.recipe.yaml:10:16: error: failed to open file `FOLDER/./components/elsewhere.yaml`: No such file or directory (os error 2)");
    let sound = "Resources:
  Greeting:
    Type: AWS::ImageBuilder::Component
    Properties:
      Name: greeting
      Version: 1.0.0
      Platform: Linux
      Data: |
        schemaVersion: 1.0
        phases: [{ name: build, steps: [{ name: Greet, action: ExecuteBash, inputs: { commands: [id] } }] }]
  Web:
    Type: AWS::ImageBuilder::ImageRecipe
    Properties: { Name: web, Version: 1.0.0, ParentImage: debian-12, Components: [{ ComponentArn: !Ref Greeting }] }
  Small:
    Type: AWS::ImageBuilder::InfrastructureConfiguration
    Properties: { Name: small, InstanceProfileName: x, InstanceTypes: [t3.small] }
  Nightly:
    Type: AWS::ImageBuilder::ImagePipeline
    Properties:
      Name: nightly
      ImageRecipeArn: !Ref Web
      InfrastructureConfigurationArn: !Ref Small
      Schedule: { ScheduleExpression: cron(0 2 * * ? *) }
";
    assert_eq!(problems(sound), "");
    assert!(problems(&sound.replace("cron(0 2 * * ? *)", "cron(0 2 * *)")).contains("cron"));
}

#[test]
fn what_the_command_line_takes_and_prints() {
    let files = [
        (
            "component.json",
            r#"{"requestId": "1", "component": {"arn": "arn:aws:imagebuilder:eu-west-1:111122223333:component/greeting/1.0.0/1",
  "name": "greeting", "version": "1.0.0", "type": "BUILD", "platform": "Linux", "owner": "111122223333", "encrypted": true,
  "data": "schemaVersion: 1.0\nphases: []\n", "dateCreated": "2026-01-01", "tags": {}}}"#,
        ),
        (
            "recipe.json",
            r#"{"name": "web", "semanticVersion": "1.0.0", "parentImage": "ssm:/aws/service/debian/release/12/latest/amd64",
  "components": [{"componentArn": "arn:aws:imagebuilder:eu-west-1:111122223333:component/greeting/1.0.x"}], "clientToken": "x"}"#,
        ),
        (
            "infrastructure.json",
            r#"{"name": "small", "instanceProfileName": "p", "instanceTypes": ["q9.huge"],
  "logging": {"s3Logs": {"s3BucketName": "logs"}}, "snsTopicArn": "arn:aws:sns:eu-west-1:111122223333:images"}"#,
        ),
        (
            "pipeline.json",
            r#"{"imagePipeline": {"name": "nightly", "platform": "Linux", "dateLastRun": "x", "status": "ENABLED",
  "imageRecipeArn": "arn:aws:imagebuilder:eu-west-1:111122223333:image-recipe/web/1.0.0",
  "infrastructureConfigurationArn": "arn:aws:imagebuilder:eu-west-1:111122223333:infrastructure-configuration/small",
  "distributionConfigurationArn": "arn:aws:imagebuilder:eu-west-1:111122223333:distribution-configuration/elsewhere",
  "schedule": {"scheduleExpression": "rate(1 day)", "timezone": "Europe/Berlin"}, "imageTags": {"Team": "web"}}}"#,
        ),
        (
            "script.json",
            r#"{"name": "set-up", "semanticVersion": "1.0.0", "type": "BUILD", "format": "SHELL", "platform": "Linux", "data": "echo one\n"}"#,
        ),
        (
            "image.json",
            r#"{"imageRecipeArn": "arn:aws:imagebuilder:eu-west-1:111122223333:image-recipe/web/1.0.0",
  "infrastructureConfigurationArn": "arn:aws:imagebuilder:eu-west-1:111122223333:infrastructure-configuration/small"}"#,
        ),
        (
            "built.json",
            r#"{"image": {"name": "db", "version": "1.0.0/3", "state": {"status": "AVAILABLE"}, "outputResources": {"amis": []},
  "imageRecipe": {"arn": "arn:aws:imagebuilder:eu-west-1:111122223333:image-recipe/db/1.0.0", "name": "db", "version": "1.0.0",
    "parentImage": "debian-12"},
  "infrastructureConfiguration": {"arn": "arn:aws:imagebuilder:eu-west-1:111122223333:infrastructure-configuration/large",
    "name": "large", "instanceTypes": ["m5.large"]}}}"#,
        ),
    ];
    let sources: Vec<_> = files.iter().map(|(name, text)| Source::new(*name, *text)).collect();
    let import = import(&sources, &Environment::default(), Path::new("nowhere")).unwrap();
    insta::assert_snapshot!(format!("{}\n{}", report(&import.notes), documents(&import)));
}

#[test]
fn what_can_not_be_imported_is_said() {
    let problem = |text: &str| match imported(text) {
        Ok(import) => documents(&import),
        Err(Error::Document(report)) => report.to_string(),
        Err(Error::Nothing { files, notes }) => format!("nothing in {files}\n{}", report(&notes)),
        Err(other) => other.to_string(),
    };
    insta::assert_snapshot!(
        [
            "kind: ImagePipeline\nname: x\n",
            "schemaVersion: 1.0\nphases: []\n",
            "- x\n",
            "",
            "a: [\n",
            "Resources: { Bucket: { Type: AWS::S3::Bucket } }\n",
            "Resources: { A: { Type: AWS::ImageBuilder::Thing }, B: { Type: AWS::ImageBuilder::Workflow } }\n",
            "Transform: Mine\nResources: { 'Fn::ForEach::X': [a, [b], {}] }\n",
            "Resources:\n  A:\n    Type: AWS::ImageBuilder::ImageRecipe\n    Properties:\n      Name: !Ref B\n      ParentImage: !Sub '${C}'\n",
            "{ \"name\": \"x\", \"data\": \"y\" }",
            "{ \"requestId\": \"x\", \"imageRecipeArn\": \"y\" }",
            "{ \"name\": \"x\", \"platform\": \"Linux\", \"vmImportTaskId\": \"y\" }",
        ]
        .map(problem)
        .join("\n---\n")
    );
    let environment = Environment { parameters: vec![("Versio".to_owned(), "1".to_owned())], ..Environment::default() };
    let error = import(&[Source::new("web.yaml", TEMPLATE)], &environment, Path::new("nowhere")).unwrap_err();
    let Error::Parameter { name, help } = &error else { panic!("{error}") };
    assert_eq!((name.as_str(), help.as_deref()), ("Versio", Some("did you mean `Version`?")));
}

#[test]
fn json_is_read_with_its_tabs_and_escapes() {
    let text = "{\n\t\"Resources\": {\"A\": {\"Type\": \"AWS::ImageBuilder::ImageRecipe\",\n\t\t\"Properties\": {\"Name\": \"web\", \
                \"Version\": \"1.0.0\", \"ParentImage\": \"debian-12\",\n\t\t\"Description\": \"\\ud83d\\ude00 caf\\u00e9 a\\/b \\\\ud83d\"}}}\n}";
    let import = imported(text).unwrap();
    assert!(import.documents[0].text.contains("description: '😀 café a/b \\ud83d'"), "{}", import.documents[0].text);
}

#[test]
fn what_security_groups_let_out() {
    let mode = |egress: &str| {
        let resources = format!(
            "  Group: {{ Type: AWS::EC2::SecurityGroup, Properties: {{ {egress} }} }}\n  I:\n    Type: \
             AWS::ImageBuilder::InfrastructureConfiguration\n    Properties: {{ Name: small, SecurityGroupIds: [!Ref Group] }}\n"
        );
        let shown = of_resources(&resources);
        let (note, document) = (shown.lines().find(|line| line.contains("SecurityGroupIds")).unwrap(), &shown);
        let mode = document.lines().find(|line| line.starts_with("network")).unwrap().to_owned();
        (mode, note.split_whitespace().nth(1).unwrap().to_owned())
    };
    let is = |mode: &str, fate: &str| (format!("network: {mode}"), fate.to_owned());
    assert_eq!(mode(""), is("full", "mapped"));
    assert_eq!(mode("SecurityGroupEgress: [{ CidrIp: 0.0.0.0/0 }]"), is("full", "mapped"));
    assert_eq!(mode("SecurityGroupEgress: [{ CidrIp: 127.0.0.1/32 }]"), is("none", "mapped"));
    assert_eq!(mode("SecurityGroupEgress: [{ CidrIp: 10.0.0.0/8 }]"), is("full", "lost"));
}

#[test]
fn windows_and_what_only_aws_looks_up() {
    insta::assert_snapshot!(of_resources(
        "  C:
    Type: AWS::ImageBuilder::Component
    Properties:
      Name: shell
      Version: 1.0.0
      Platform: Windows
      Data: 'schemaVersion: 1.0 # {{resolve:ssm:/a/b:3}} {{resolve:secretsmanager:x}}'
  R:
    Type: AWS::ImageBuilder::ImageRecipe
    Properties:
      Name: a.b
      Version: '1.0'
      Description: '{{resolve:ssm:/what}}'
      ParentImage: '{{resolve:ssm:/aws/service/debian/release/12/latest/amd64}}'
      WorkingDirectory: 'C:/'
  S:
    Type: AWS::ImageBuilder::ImageRecipe
    Properties: { Name: bad, Version: '1.0.0', ParentImage: ami-123, Components: [{ ComponentArn: [x] }, {}] }
"
    ));
}

#[test]
fn names_that_meet_get_files_of_their_own() {
    let recipe = |id: &str, name: &str, version: &str| {
        format!(
            "  {id}: {{ Type: AWS::ImageBuilder::ImageRecipe, Properties: {{ Name: '{name}', Version: {version}, ParentImage: debian-12 }} }}\n"
        )
    };
    let resources = [
        recipe("A", "web", "1.0.0"),
        recipe("B", "Web", "1.0.0"),
        recipe("C", "web", "1.0.0"),
        recipe("D", "../../etc/web", "1.0.0"),
        recipe("E", "web", "../2"),
    ];
    assert!(imported(&format!("Resources:\n{}", resources.concat())).is_ok());
    let import = imported(&format!("Resources:\n{}", resources[..4].concat())).unwrap();
    let paths: Vec<&str> = import.documents.iter().map(|document| document.path.as_str()).collect();
    assert_eq!(paths, ["web.recipe.yaml", "web-1.0.0.recipe.yaml", "web-2.recipe.yaml", "etc-web.recipe.yaml"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// A line of the template with everything that says something else may be refused, and ends nothing.
    #[test]
    fn no_template_panics(line in 0_usize..130, other in "[-\\[\\]{}:!&*'\"a-zA-Z0-9 .$]{0,24}") {
        let lines: Vec<&str> = TEMPLATE.lines().collect();
        let mut changed = lines.clone();
        let line = line % lines.len();
        let indented = format!("{}{other}", &lines[line][..lines[line].len() - lines[line].trim_start().len()]);
        changed[line] = &indented;
        drop(imported(&changed.join("\n")));
    }

    #[test]
    fn no_request_panics(text in "[-\\[\\]{}:,!\"a-z \n]{0,60}") {
        drop(imported(&format!("name: web\nparentImage: x\n{text}")));
    }
}
