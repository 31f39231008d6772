use proptest::prelude::*;

use super::*;
use crate::document::syntax::Source;

const SECTIONS: &str = "
Parameters:
  Name: { Type: String, Default: web }
  Count: { Type: Number, Default: 3 }
  Zones: { Type: CommaDelimitedList, Default: 'a, b,c' }
  Subnets: { Type: 'List<AWS::EC2::Subnet::Id>', Default: subnet-1 }
  Ami: { Type: 'AWS::SSM::Parameter::Value<AWS::EC2::Image::Id>', Default: /golden/base }
  Secret: { Type: String }
  Size: { Type: String, Default: small, AllowedValues: [small, large] }
Mappings:
  Sizes:
    small: { Type: t3.small, Disk: 8 }
    large: { Type: m5.large, Types: [m5.large, m5.xlarge] }
  Regions:
    us-east-1: { Ami: ami-1 }
Conditions:
  IsSmall: !Equals [!Ref Size, small]
  IsLarge: !Not [!Condition IsSmall]
  Both: !And [!Condition IsSmall, Condition: IsLarge]
  Either: !Or [!Condition IsSmall, !Equals [!Ref Secret, x]]
  Unknown: !Equals [!Ref Secret, x]
  AtLeast: !And [!Condition Unknown, !Condition IsLarge]
  Turn: !Not [!Condition Turn]
Resources:
  Bucket: { Type: AWS::S3::Bucket }
  Named: { Type: AWS::S3::Bucket, Properties: { BucketName: !Sub '${Name}-logs' } }
  Topic: { Type: AWS::SNS::Topic, Properties: { TopicName: images } }
  Role: { Type: AWS::IAM::Role }
  Stack: { Type: AWS::CloudFormation::Stack }
  Recipe: { Type: AWS::ImageBuilder::ImageRecipe, Properties: { Name: !Sub '${Name} Server', Version: 1.0.0 } }
  Image: { Type: AWS::ImageBuilder::Image, Properties: { ImageRecipeArn: !Ref Recipe } }
  Ring: { Type: AWS::ImageBuilder::ImageRecipe, Properties: { Name: !GetAtt Ring.Name } }
  Test: { Type: Test, Properties: { Value: VALUE } }
";

/// What a value comes to, with its gaps, or what is wrong with it.
fn shown(value: &str, environment: &Environment) -> String {
    let source = Source::new("t.yaml", SECTIONS.replace("VALUE", value));
    let template = match Template::parse(&source) {
        Ok(template) => template.unwrap(),
        Err(report) => return format!("! {report}"),
    };
    let evaluator = Evaluator::new(&template, environment);
    let value = evaluator.value(template.resource("Test").unwrap().property("Value").unwrap());
    if let Err(report) = evaluator.finish() {
        return report
            .to_string()
            .lines()
            .map(|line| format!("! {}", line.split_once(": ").unwrap().1))
            .collect::<Vec<_>>()
            .join("\n  ");
    }
    let gaps = value.gaps().into_iter().map(|gap| {
        let word = if gap.is_assumed { "assumed" } else { "unknown" };
        format!("\n  {word}: {} ({})", gap.why, gap.mend)
    });
    format!("{}{}", value.to_json(), gaps.collect::<String>())
}

fn table(values: &[&str]) -> String {
    let rows = values.iter().map(|value| format!("{value}\n  {}", shown(value, &Environment::default())));
    rows.collect::<Vec<_>>().join("\n")
}

#[test]
fn what_ref_gives() {
    insta::assert_snapshot!(table(&[
        "!Ref Name",
        "{ Ref: Count }",
        "!Ref Zones",
        "!Ref Subnets",
        "!Ref Ami",
        "!Ref Secret",
        "!Ref Bucket",
        "!Ref Named",
        "!Ref Topic",
        "!Ref Recipe",
        "!Ref AWS::Region",
        "!Ref AWS::AccountId",
        "!Ref AWS::Partition",
        "!Ref AWS::URLSuffix",
        "!Ref AWS::StackName",
        "!Ref AWS::StackId",
        "[a, !Ref AWS::NoValue, b]",
        "{ a: !Ref AWS::NoValue, b: 1 }",
        "!Ref Nam",
        "!Ref [Name]",
    ]));
}

#[test]
fn what_get_att_gives() {
    insta::assert_snapshot!(table(&[
        "!GetAtt Recipe.Arn",
        "!GetAtt Recipe.Name",
        "!GetAtt [Recipe, Version]",
        "{ Fn::GetAtt: Recipe.LatestVersion.Arn }",
        "{ Fn::GetAtt: [Named, Arn] }",
        "!GetAtt Topic.TopicName",
        "!GetAtt Image.ImageId",
        "!GetAtt Role.Arn",
        "!GetAtt Stack.Outputs.Component",
        "!GetAtt Recip.Arn",
        "!GetAtt Recipe",
        "!GetAtt Ring.Name",
    ]));
}

#[test]
fn what_texts_are_made_into() {
    insta::assert_snapshot!(table(&[
        "!Sub '${Name}-${AWS::Region} ${!HOME} ${Recipe.Name} $x {y}'",
        "!Sub ['${a}/${b}/${Name}', { a: !Ref Count, b: { Fn::Join: ['-', [x, y]] } }]",
        "{ Fn::Sub: '${Secret}' }",
        "!Sub 'open ${Name'",
        "!Sub '${Nam} ${x:-y} ${}'",
        "!Sub '${Zones}'",
        "!Sub [a, b]",
        "!Join ['-', [a, !Ref Name, !Ref Count]]",
        "!Join [',', !Ref Zones]",
        "!Join ['', [!Ref Recipe]]",
        "!Join [a]",
        "!Join ['-', [[a], b]]",
        "!Split [',', 'a,b']",
        "!Split [',', !Ref Secret]",
        "!Split ['', a]",
        "!Base64 text",
        "{ Fn::Base64: !Sub '${Name}' }",
        "!Base64 [a]",
        "!Length [a, b]",
        "{ Fn::ToJsonString: { a: !Ref Name, b: [1, true] } }",
    ]));
}

#[test]
fn what_is_chosen() {
    insta::assert_snapshot!(table(&[
        "!Select [1, [a, b]]",
        "!Select ['2', !Ref Zones]",
        "!Select [0, !Split [':', !Ref Secret]]",
        "!Select [5, [a]]",
        "!Select [x, [a]]",
        "!Select [0, !GetAZs '']",
        "!FindInMap [Sizes, !Ref Size, Type]",
        "!FindInMap [Sizes, large, Types]",
        "!FindInMap [Sizes, medium, Type, { DefaultValue: t3.medium }]",
        "!FindInMap [Sizes, medium, Type]",
        "!FindInMap [Sizes, !Ref Secret, Type]",
        "!FindInMap [Regions, !Ref AWS::Region, Ami]",
        "!If [IsSmall, a, b]",
        "!If [IsLarge, a, b]",
        "!If [Both, a, b]",
        "!If [Either, a, b]",
        "!If [AtLeast, a, b]",
        "!If [Unknown, [a], b]",
        "!If [IsSmal, a, b]",
        "!If [Turn, a, b]",
        "{ Fn::If: [IsLarge, a, !Ref AWS::NoValue] }",
        "!ImportValue base-image",
        "{ Fn::ImportValue: !Sub '${Name}-image' }",
        "!ImportValue { 'Fn::Sub': '${Name}-image' }",
        "!Cidr [10.0.0.0/16, 2, 8]",
        "{ Fn::Transform: { Name: AWS::Include, Parameters: { Location: x } } }",
        "!Subb x",
        "!Equals [a, b]",
        "{ Fn::Nothing: x }",
    ]));
}

#[test]
fn what_is_given_from_outside_wins() {
    let environment = Environment {
        parameters: vec![("Name".to_owned(), "db".to_owned()), ("Secret".to_owned(), "x".to_owned())],
        region: Some("cn-north-1".to_owned()),
        account: Some("111122223333".to_owned()),
        stack: Some("prod".to_owned()),
        guesses: false,
    };
    let shown = |value| shown(value, &environment);
    assert_eq!(
        shown("!Sub '${AWS::Partition} ${AWS::StackName} ${AWS::URLSuffix} ${AWS::AccountId}'"),
        "\"aws-cn prod amazonaws.com.cn 111122223333\""
    );
    assert_eq!(
        shown("!Ref Recipe"),
        "\"arn:aws-cn:imagebuilder:cn-north-1:111122223333:image-recipe/db-server/1.0.0\""
    );
    assert_eq!(shown("!If [Unknown, yes, no]"), "\"yes\"");
    let wrong = Environment { parameters: vec![("Size".to_owned(), "huge".to_owned())], ..Environment::default() };
    insta::assert_snapshot!(super::tests::shown("x", &wrong), @"! error: the parameter `Size` may not be `huge` (it may be small, large)");
}

#[test]
fn what_is_no_template_is_said_with_its_place() {
    let problem = |text: &str| match Template::parse(&Source::new("t.yaml", text)) {
        Ok(template) => format!("{}", template.is_some()),
        Err(report) => report.to_string(),
    };
    insta::assert_snapshot!(
        [
            "name: web\n",
            "AWSTemplateFormatVersion: 2010-09-09\n",
            "Resources: []\n",
            "Resources: { A: x, B: { Type: [x] }, C: {} }\n",
            "Resources: {}\nMappings: [x]\nParameters:\n",
            "Resources: { A: { Type: x } }\nResources: {}\n",
            "Resources: {\n",
        ]
        .map(problem)
        .join("\n"),
        @"
        false
        t.yaml:1:1: error: a template needs the field `Resources`
        t.yaml:1:12: error: `Resources` has to be a map, and this is a list
        t.yaml:1:17: error: the resource `A` has to be a map, and this is a single value
        t.yaml:1:31: error: `Type` has to be a text, and this is a list
        t.yaml:1:41: error: the resource `C` needs the field `Type`
        t.yaml:2:11: error: `Mappings` has to be a map, and this is a list
        t.yaml:2:1: error: the key `Resources` is given twice
        t.yaml:2:1: error: this is not valid YAML: while parsing a node, did not find expected node content
        "
    );
}

#[test]
fn macros_and_loops_are_known() {
    let text = "Transform: [AWS::Include, { Name: Mine }]\nResources: { 'Fn::ForEach::Each': [x, [a], {}] }\n";
    let template = Template::parse(&Source::new("t.yaml", text)).unwrap().unwrap();
    assert_eq!(template.transforms().iter().map(|name| name.value).collect::<Vec<_>>(), ["AWS::Include", "Mine"]);
    assert_eq!((template.made_later().count(), template.resources().count()), (1, 0));
}

#[test]
fn what_a_template_may_make_of_itself_is_bounded() {
    // Each name is twice the one before.
    let mut text =
        String::from("Resources:\n  A0: { Type: AWS::ImageBuilder::Component, Properties: { Name: aaaaaaaaaa } }\n");
    for level in 1..60 {
        let before = level - 1;
        text.push_str(&format!(
            "  A{level}: {{ Type: AWS::ImageBuilder::Component, Properties: {{ Name: !Sub '${{A{before}.Name}}${{A{before}.Name}}' }} }}\n"
        ));
    }
    let problem = |id: &str| {
        let template = Template::parse(&Source::new("t.yaml", text.as_str())).unwrap().unwrap();
        let environment = Environment::default();
        let evaluator = Evaluator::new(&template, &environment);
        let _value = evaluator.value(template.resource(id).unwrap().property("Name").unwrap());
        evaluator.finish().unwrap_err().to_string()
    };
    assert!(problem("A59").contains("levels deep") || problem("A59").contains("more than"), "{}", problem("A59"));
    assert!(problem("A25").contains("more than"), "{}", problem("A25"));
    let many: String = (0..501).map(|number| format!("  A{number}: {{ Type: x }}\n")).collect();
    let report = Template::parse(&Source::new("t.yaml", format!("Resources:\n{many}"))).unwrap_err();
    assert!(report.to_string().contains("at most 500 resources"), "{report}");
    let list = vec!["x"; 10_000].join(",");
    let huge = format!("!Join ['{}', [{list}]]", "y".repeat(10_000));
    assert!(shown(&huge, &Environment::default()).contains("MiB of text"));
}

fn any_value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("!Ref Name".to_owned()),
        Just("!Ref Zones".to_owned()),
        Just("!Ref Secret".to_owned()),
        Just("!GetAtt Recipe.Arn".to_owned()),
        Just("!Ref AWS::NoValue".to_owned()),
        Just("!Sub '${Name}${Secret}'".to_owned()),
        Just("~".to_owned()),
        "[a-z0-9:.]{1,5}".prop_map(|text| format!("'{text}'")),
    ];
    let function = prop_oneof![
        Just("Join"),
        Just("Select"),
        Just("Split"),
        Just("Sub"),
        Just("If"),
        Just("FindInMap"),
        Just("Base64"),
        Just("GetAtt"),
        Just("Ref"),
        Just("Length"),
        Just("ToJsonString"),
        Just("ImportValue"),
        Just("Other"),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let items = prop::collection::vec(inner, 0..4);
        (function.clone(), items, any::<bool>()).prop_map(|(name, items, is_tag)| {
            let items = items.join(", ");
            if is_tag { format!("!{name} [{items}]") } else { format!("{{ 'Fn::{name}': [{items}] }}") }
        })
    })
}

proptest! {
    #[test]
    fn no_value_panics_and_the_same_comes_of_the_same(value in any_value()) {
        let first = shown(&value, &Environment::default());
        prop_assert_eq!(first, shown(&value, &Environment::default()));
    }

    #[test]
    fn tags_and_long_forms_are_the_same(items in prop::collection::vec("[a-z]{1,4}", 1..5)) {
        let list = items.join(", ");
        let expected = serde_json::Value::from(items.join("-")).to_string();
        for value in [format!("!Join ['-', [{list}]]"), format!("{{ 'Fn::Join': ['-', [{list}]] }}")] {
            prop_assert_eq!(shown(&value, &Environment::default()), expected.as_str());
        }
        let split = format!("!Select [0, !Split ['-', '{}']]", items.join("-"));
        prop_assert_eq!(shown(&split, &Environment::default()), serde_json::Value::from(items[0].as_str()).to_string());
    }
}
