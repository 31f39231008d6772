//! IAM policies: what a document allows, judged as IAM judges it. What the stand-in does not know is an error of the
//! test that wrote the document, not a refusal: a policy must never seem to be tried that was not.

use std::collections::BTreeMap;

use serde_json::Value;

/// IAM's limit for a managed policy, in characters that are no white space.
const LIMIT: usize = 6144;
const MEMBERS: [&str; 5] = ["Sid", "Effect", "Action", "Resource", "Condition"];
const OPERATORS: [&str; 2] = ["StringEquals", "StringLike"];
/// Keys of conditions that requests have here. One that ends with a slash is followed by a tag's key.
const KEYS: [&str; 11] = [
    "aws:RequestTag/",
    "aws:ResourceTag/",
    "ec2:ResourceTag/",
    "aws:RequestedRegion",
    "aws:PrincipalAccount",
    "ec2:CreateAction",
    "ec2:Owner",
    "iam:PassedToService",
    "ebs:ParentSnapshot",
    "ssm:Overwrite",
    "sts:ExternalId",
];

/// A policy that is attached to whoever sends requests.
#[derive(Debug, Clone)]
pub(super) struct Policy(Vec<Statement>);

#[derive(Debug, Clone)]
struct Statement {
    is_allow: bool,
    actions: Vec<String>,
    resources: Vec<String>,
    /// Operator, key, values.
    conditions: Vec<(String, String, Vec<String>)>,
}

/// Something that a request needs to be allowed: an action on one resource.
#[derive(Debug, Clone)]
pub(super) struct Need {
    pub(super) action: &'static str,
    pub(super) resource: String,
    context: BTreeMap<String, String>,
}

impl Need {
    /// An action on a resource, or on `*` where AWS knows none for it.
    pub(super) fn new(action: &'static str, resource: impl Into<String>) -> Self {
        Self { action, resource: resource.into(), context: BTreeMap::new() }
    }

    /// The same with something that conditions ask for.
    pub(super) fn with(mut self, key: &str, value: &str) -> Self {
        assert!(is_known(key), "{key} is a key that no policy may name");
        self.context.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The same with tags that the request brings.
    pub(super) fn with_tags(self, tags: &BTreeMap<String, String>) -> Self {
        tags.iter().fold(self, |need, (key, value)| need.with(&format!("aws:RequestTag/{key}"), value))
    }

    /// The same with tags that the resource has.
    pub(super) fn of_tagged(self, tags: &BTreeMap<String, String>) -> Self {
        tags.iter().fold(self, |need, (key, value)| {
            let need = need.with(&format!("aws:ResourceTag/{key}"), value);
            if need.action.starts_with("ec2:") { need.with(&format!("ec2:ResourceTag/{key}"), value) } else { need }
        })
    }
}

impl Policy {
    /// Reads a document, and ends the test if it is none.
    pub(super) fn parse(json: &str) -> Self {
        let length = json.chars().filter(|c| !c.is_whitespace()).count();
        assert!(length <= LIMIT, "the policy has {length} characters; IAM takes {LIMIT}");
        let document: Value =
            serde_json::from_str(json).unwrap_or_else(|error| panic!("the policy is no JSON: {error}"));
        let members = document.as_object().expect("the policy is no object");
        for member in members.keys() {
            assert!(["Version", "Id", "Statement"].contains(&&**member), "`{member}` in the policy is unknown");
        }
        assert_eq!(document["Version"], "2012-10-17", "the policy has another version than IAM wants");
        let statements = match &document["Statement"] {
            Value::Array(statements) => statements.iter().map(Statement::parse).collect(),
            statement @ Value::Object(_) => vec![Statement::parse(statement)],
            other => panic!("the policy has no statements but {other}"),
        };
        Self(statements)
    }

    /// Whether all of it is allowed. The first that is not, if any.
    pub(super) fn refused<'a>(&self, needs: &'a [Need]) -> Option<&'a Need> {
        needs.iter().find(|need| {
            let mut meant = self.0.iter().filter(|statement| statement.means(need)).peekable();
            meant.peek().is_none() || meant.any(|statement| !statement.is_allow)
        })
    }
}

impl Statement {
    fn parse(statement: &Value) -> Self {
        let members = statement.as_object().unwrap_or_else(|| panic!("{statement} is no statement"));
        for member in members.keys() {
            assert!(MEMBERS.contains(&&**member), "the stand-in does not know `{member}` in a statement: {statement}");
        }
        let is_allow = match statement["Effect"].as_str() {
            Some("Allow") => true,
            Some("Deny") => false,
            other => panic!("{other:?} is no effect: {statement}"),
        };
        let actions = texts(&statement["Action"], "Action");
        for action in &actions {
            assert!(action == "*" || action.contains(':'), "{action} is no action");
        }
        let mut conditions = Vec::new();
        for (operator, keys) in statement.get("Condition").and_then(Value::as_object).into_iter().flatten() {
            assert!(OPERATORS.contains(&&**operator), "the stand-in does not know the operator {operator}");
            for (key, values) in keys.as_object().unwrap_or_else(|| panic!("{keys} is no condition")) {
                assert!(is_known(key), "the stand-in does not know the condition key {key}");
                conditions.push((operator.clone(), key.clone(), texts(values, key)));
            }
        }
        Self { is_allow, actions, resources: texts(&statement["Resource"], "Resource"), conditions }
    }

    fn means(&self, need: &Need) -> bool {
        // Actions have no case, resources have.
        let action = need.action.to_ascii_lowercase();
        self.actions.iter().any(|pattern| like(&pattern.to_ascii_lowercase(), &action))
            && self.resources.iter().any(|pattern| like(pattern, &need.resource))
            && self.conditions.iter().all(|(operator, key, values)| {
                let is_so = |value: &String, known: &str| match &**operator {
                    "StringLike" => like(value, known),
                    _ => value == known,
                };
                need.context.get(key).is_some_and(|known| values.iter().any(|value| is_so(value, known)))
            })
    }
}

fn texts(value: &Value, name: &str) -> Vec<String> {
    let text = |value: &Value| {
        let text = value.as_str().unwrap_or_else(|| panic!("`{name}` has to be text, not {value}")).to_owned();
        assert!(!text.contains("${"), "the stand-in knows no variables in policies: {text}");
        text
    };
    match value {
        Value::Array(values) => values.iter().map(text).collect(),
        value => vec![text(value)],
    }
}

fn is_known(key: &str) -> bool {
    KEYS.iter().any(|known| if known.ends_with('/') { key.starts_with(known) } else { key == *known })
}

/// Whether a text is what a pattern with `*` and `?` says.
pub(super) fn like(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where the last star stood, and what it has taken so far.
    let mut star = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == '*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == '?' || pattern[p] == text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            (p, t) = (at + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(statements: &str) -> Policy {
        Policy::parse(&format!(r#"{{"Version": "2012-10-17", "Statement": [{statements}]}}"#))
    }

    #[test]
    fn patterns() {
        for (pattern, text, is_like) in [
            ("*", "", true),
            ("arn:aws:ec2:*::image/*", "arn:aws:ec2:eu-west-1::image/ami-1", true),
            ("arn:aws:ec2:*::image/ami-*", "arn:aws:ec2:eu-west-1::image/*", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("", "a", false),
        ] {
            assert_eq!(like(pattern, text), is_like, "{pattern} {text}");
        }
    }

    #[test]
    fn what_no_statement_allows_is_refused_and_a_denial_is_stronger() {
        let policy = policy(
            r#"{"Effect": "Allow", "Action": ["ec2:*Image", "S3:getobject"], "Resource": "*"},
               {"Effect": "Deny", "Action": "ec2:CopyImage", "Resource": "arn:aws:ec2:eu::image/*"}"#,
        );
        let is_allowed = |action, resource: &str| policy.refused(&[Need::new(action, resource)]).is_none();
        assert!(is_allowed("ec2:RegisterImage", "arn:aws:ec2:eu::image/*"));
        assert!(is_allowed("s3:GetObject", "arn:aws:s3:::b/k"));
        assert!(is_allowed("ec2:CopyImage", "arn:aws:ec2:us::image/*"));
        assert!(!is_allowed("ec2:CopyImage", "arn:aws:ec2:eu::image/*"));
        assert!(!is_allowed("ec2:DescribeImages", "*"));
        let needs = [Need::new("ec2:RegisterImage", "arn:aws:ec2:eu::image/*"), Need::new("ec2:CreateTags", "arn:x")];
        assert_eq!(policy.refused(&needs).unwrap().action, "ec2:CreateTags");
    }

    #[test]
    fn an_action_without_resources_needs_the_star() {
        let some = policy(r#"{"Effect": "Allow", "Action": "ec2:*", "Resource": "arn:aws:ec2:*::image/*"}"#);
        assert!(some.refused(&[Need::new("ec2:DescribeImages", "*")]).is_some());
    }

    #[test]
    fn conditions_have_to_hold() {
        let policy = policy(
            r#"{"Effect": "Allow", "Action": "ec2:CreateTags", "Resource": "*", "Condition": {
                "StringEquals": {"ec2:CreateAction": ["RegisterImage", "CopyImage"]},
                "StringLike": {"aws:RequestTag/team": "gold*"}}}"#,
        );
        let need = |action: &str, team: &str| {
            let tags = BTreeMap::from([("team".to_owned(), team.to_owned())]);
            Need::new("ec2:CreateTags", "arn:x").with("ec2:CreateAction", action).with_tags(&tags)
        };
        assert!(policy.refused(&[need("CopyImage", "goldsmith")]).is_none());
        assert!(policy.refused(&[need("ImportSnapshot", "goldsmith")]).is_some());
        assert!(policy.refused(&[need("CopyImage", "silver")]).is_some());
        assert!(policy.refused(&[Need::new("ec2:CreateTags", "arn:x")]).is_some());
    }

    #[test]
    fn what_is_not_known_is_an_error_of_the_test() {
        for (statement, said) in [
            (r#"{"Effect": "Allow", "NotAction": "ec2:*", "Resource": "*"}"#, "NotAction"),
            (r#"{"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"Bool": {}}}"#, "Bool"),
            (
                r#"{"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"StringLike": {"a:b": "c"}}}"#,
                "a:b",
            ),
            (r#"{"Effect": "Allow", "Action": "*", "Resource": "${aws:username}"}"#, "variables"),
            (r#"{"Effect": "Maybe", "Action": "*", "Resource": "*"}"#, "Maybe"),
        ] {
            let panicked = std::panic::catch_unwind(|| policy(statement)).unwrap_err();
            let text = panicked.downcast_ref::<String>().unwrap();
            assert!(text.contains(said), "{text}");
        }
    }
}
