//! SSM: parameters, in JSON 1.1.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::answer::{Outcome, Refusal, refuse};
use super::http::{Answer, Request};
use super::policy::Need;
use super::world::{Caller, Tags, World};

/// The actions that are here.
pub(super) const ACTIONS: &[&str] = &["PutParameter", "GetParameter", "DeleteParameter"];
/// The longest value of a standard parameter, in characters.
const VALUE: usize = 4096;
const TYPES: [&str; 3] = ["String", "StringList", "SecureString"];
const IMAGE: &str = "aws:ec2:image";

/// A parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parameter {
    pub(crate) value: String,
    pub(crate) kind: String,
    pub(crate) data_type: String,
    pub(crate) description: Option<String>,
    pub(crate) version: u64,
    pub(crate) tags: Tags,
    pub(crate) modified: Timestamp,
}

impl Parameter {
    /// One of a type.
    pub(super) fn of(kind: &str, value: &str) -> Self {
        Self {
            value: value.to_owned(),
            kind: kind.to_owned(),
            data_type: "text".to_owned(),
            description: None,
            version: 1,
            tags: Tags::default(),
            modified: Timestamp::now(),
        }
    }
}

/// The action that a request is about.
pub(super) fn action(request: &Request) -> Outcome<String> {
    let target = request.header("x-amz-target").and_then(|target| target.strip_prefix("AmazonSSM."));
    let is_json = request.header("content-type") == Some("application/x-amz-json-1.1");
    match target {
        Some(action) if is_json && request.method == "POST" && request.path == "/" => Ok(action.to_owned()),
        _ => refuse("UnknownOperationException", "The request names no action of AmazonSSM"),
    }
}

/// Answers a request.
pub(super) fn run(world: &Arc<World>, caller: &Caller, request: &Request, action: &str) -> Outcome<Answer> {
    let Ok(Value::Object(input)) = serde_json::from_slice(&request.body) else {
        return refuse("SerializationException", "The body is no JSON object");
    };
    let input = Value::Object(input);
    let output = match action {
        "PutParameter" => put(world, caller, &input)?,
        "GetParameter" => get(world, caller, &input)?,
        "DeleteParameter" => delete(world, caller, &input)?,
        other => return refuse("UnknownOperationException", format!("{other} is not here")),
    };
    Ok(Answer::json(200, &output))
}

/// A member that a request may have, and whether a value of it is good.
type Member = (&'static str, fn(&Value) -> bool);

/// The members of a request: known ones, each of its type. Returns the name, which all have.
fn check(input: &Value, members: &[Member]) -> Outcome<String> {
    for (name, value) in input.as_object().into_iter().flatten() {
        match members.iter().find(|(known, _)| known == name) {
            None => return refuse("ValidationException", format!("The stand-in knows no member {name}")),
            Some((_, is_good)) if !is_good(value) => {
                return refuse(
                    "ValidationException",
                    format!("Value {value} at '{name}' failed to satisfy constraint"),
                );
            }
            _ => {}
        }
    }
    let name = input["Name"].as_str().unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_.-/".contains(c);
    let lower = name.trim_start_matches('/').to_ascii_lowercase();
    if name.is_empty() || name.len() > 1011 || !name.chars().all(is_plain) {
        return refuse("ValidationException", "Parameter name: can't be empty, and holds only a-zA-Z0-9_.-/");
    }
    if lower.starts_with("aws") || lower.starts_with("ssm") {
        return refuse("ValidationException", "Parameter name: can't be prefixed with \"aws\" or \"ssm\"");
    }
    // A hierarchy begins with a slash, or there is none.
    if name.contains('/') && !name.starts_with('/') || name.split('/').count() > 16 {
        return refuse("ValidationException", "Parameter name must be a fully qualified name");
    }
    Ok(name.to_owned())
}

fn arn(caller: &Caller, name: &str) -> String {
    caller.arn_of("ssm", &format!("parameter/{}", name.trim_start_matches('/')))
}

fn tags_in(input: &Value) -> Tags {
    let pair = |tag: &Value| Some((tag["Key"].as_str()?.to_owned(), tag["Value"].as_str()?.to_owned()));
    input["Tags"].as_array().into_iter().flatten().filter_map(pair).collect()
}

fn are_tags(value: &Value) -> bool {
    let is_tag = |tag: &Value| {
        tag.as_object().is_some_and(|tag| tag.len() == 2) && tag["Key"].is_string() && tag["Value"].is_string()
    };
    value.as_array().is_some_and(|tags| tags.iter().all(is_tag))
}

const PUT: &[Member] = &[
    ("Name", Value::is_string),
    ("Description", Value::is_string),
    ("Value", |value| value.as_str().is_some_and(|text| !text.is_empty() && text.len() <= VALUE)),
    ("Type", |value| value.as_str().is_some_and(|kind| TYPES.contains(&kind))),
    ("Overwrite", Value::is_boolean),
    ("Tags", are_tags),
    ("Tier", |value| value == "Standard"),
    ("DataType", |value| value == "text" || value == IMAGE),
];

fn put(world: &Arc<World>, caller: &Caller, input: &Value) -> Outcome<Value> {
    let name = check(input, PUT)?;
    let tags = tags_in(input);
    let text = |name: &str| input[name].as_str().map(str::to_owned);
    let is_overwrite = input["Overwrite"].as_bool().unwrap_or_default();
    if is_overwrite && !tags.is_empty() {
        return refuse("ValidationException", "tags and overwrite can't be used together");
    }
    let Some(value) = text("Value") else { return refuse("ValidationException", "Value at 'value' must not be null") };
    let data_type = text("DataType").unwrap_or_else(|| "text".to_owned());
    let overwrite = if is_overwrite { "true" } else { "false" };
    let resource = arn(caller, &name);
    let mut needs = vec![Need::new("ssm:PutParameter", &*resource).with("ssm:Overwrite", overwrite).with_tags(&tags)];
    if !tags.is_empty() {
        needs.push(Need::new("ssm:AddTagsToResource", &*resource).with_tags(&tags));
    }
    if data_type == IMAGE {
        // SSM looks for the image in the caller's name.
        needs.push(Need::new("ec2:DescribeImages", "*"));
    }
    caller.may(&needs)?;
    let mut state = world.state.lock().unwrap();
    // AWS looks for it later and says so in an event; a value that would be found wrong then is refused here at once.
    if data_type == IMAGE && state.visible_image(caller, &value).is_none() {
        return refuse("ValidationException", format!("{value} is no image that {} can use here", caller.account));
    }
    let parameters = &mut state.region(&caller.region).parameters;
    let key = (caller.account.clone(), name.clone());
    let fresh = Parameter {
        value,
        kind: text("Type").unwrap_or_default(),
        data_type,
        description: text("Description"),
        version: 1,
        tags,
        modified: Timestamp::now(),
    };
    let parameter = match parameters.get(&key) {
        Some(_) if !is_overwrite => return refuse("ParameterAlreadyExists", "The parameter already exists."),
        Some(old) => fresh.over(old, input.get("DataType").is_some())?,
        None if fresh.kind.is_empty() => {
            return refuse("ValidationException", "A parameter type is required when you create a parameter.");
        }
        None => fresh,
    };
    let version = parameter.version;
    parameters.insert(key, parameter);
    Ok(json!({ "Version": version, "Tier": "Standard" }))
}

impl Parameter {
    /// A new version of an old one, of which it keeps what is not said anew.
    fn over(self, old: &Self, says_data_type: bool) -> Outcome<Self> {
        if says_data_type && self.data_type != old.data_type {
            return refuse("ValidationException", "The data type of a parameter can't be changed");
        }
        Ok(Self {
            kind: if self.kind.is_empty() { old.kind.clone() } else { self.kind },
            data_type: old.data_type.clone(),
            description: self.description.or_else(|| old.description.clone()),
            version: old.version + 1,
            tags: old.tags.clone(),
            ..self
        })
    }
}

fn missing(name: &str) -> Refusal {
    Refusal::new("ParameterNotFound", format!("Parameter {name} not found."))
}

fn get(world: &Arc<World>, caller: &Caller, input: &Value) -> Outcome<Value> {
    let name = check(input, &[("Name", Value::is_string), ("WithDecryption", Value::is_boolean)])?;
    let mut state = world.state.lock().unwrap();
    let found = state.region(&caller.region).parameters.get(&(caller.account.clone(), name.clone())).cloned();
    let tags = found.as_ref().map(|found| found.tags.clone()).unwrap_or_default();
    let arn = arn(caller, &name);
    caller.may(&[Need::new("ssm:GetParameter", &*arn).of_tagged(&tags)])?;
    let found = found.ok_or_else(|| missing(&name))?;
    let is_readable = found.kind != "SecureString" || input["WithDecryption"] == true;
    let value = if is_readable { found.value } else { "AQICAHhs0meth1ngEncrypted==".to_owned() };
    Ok(json!({ "Parameter": {
        "Name": name, "Type": found.kind, "Value": value, "Version": found.version, "ARN": arn,
        "LastModifiedDate": found.modified.as_second(), "DataType": found.data_type,
    }}))
}

fn delete(world: &Arc<World>, caller: &Caller, input: &Value) -> Outcome<Value> {
    let name = check(input, &[("Name", Value::is_string)])?;
    caller.may(&[Need::new("ssm:DeleteParameter", arn(caller, &name))])?;
    let mut state = world.state.lock().unwrap();
    let parameters = &mut state.region(&caller.region).parameters;
    parameters.remove(&(caller.account.clone(), name.clone())).ok_or_else(|| missing(&name))?;
    Ok(json!({}))
}
