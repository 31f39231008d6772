//! SNS: topics, and what is published to them.

use std::sync::Arc;

use super::answer::{Outcome, Refusal, Xml, refuse};
use super::http::Answer;
use super::policy::Need;
use super::query::{Field, Kind, Query, TEXT, may, must};
use super::sts::enclosed;
use super::world::{Caller, Tags, World};

/// The actions that are here.
pub(super) const ACTIONS: &[&str] = &["CreateTopic", "Publish"];
const NAMESPACE: &str = "http://sns.amazonaws.com/doc/2010-03-31/";
const COMMON: [Field; 2] = [must("Action", TEXT), must("Version", Kind::OneOf(&["2010-03-31"]))];
/// The longest message, in bytes.
const MESSAGE: usize = 256 << 10;
const CREATE_TOPIC: &[Field] = &[
    must("Name", Kind::Text(1, 256)),
    may("Attributes.entry.#.key", TEXT),
    may("Attributes.entry.#.value", TEXT),
    may("Tags.member.#.Key", Kind::Text(1, 128)),
    may("Tags.member.#.Value", Kind::Text(0, 256)),
];
const PUBLISH: &[Field] = &[
    may("TopicArn", TEXT),
    must("Message", TEXT),
    may("Subject", Kind::Text(1, 99)),
    may("MessageAttributes.entry.#.Name", Kind::Text(1, 256)),
    may("MessageAttributes.entry.#.Value.DataType", Kind::OneOf(&["String", "String.Array", "Number"])),
    may("MessageAttributes.entry.#.Value.StringValue", TEXT),
    may("MessageStructure", Kind::OneOf(&["json"])),
    may("TargetArn", Kind::Lacking),
    may("PhoneNumber", Kind::Lacking),
    may("MessageDeduplicationId", Kind::Lacking),
    may("MessageGroupId", Kind::Lacking),
];

/// A topic.
#[derive(Debug, Clone)]
pub(super) struct Topic {
    owner: String,
    tags: Tags,
    pub(super) messages: Vec<Message>,
}

/// A message that was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) subject: Option<String>,
    pub(crate) text: String,
    pub(crate) attributes: Tags,
}

impl Topic {
    /// An empty one.
    pub(super) fn of(owner: &str) -> Self {
        Self { owner: owner.to_owned(), tags: Tags::new(), messages: Vec::new() }
    }
}

/// Answers a request.
pub(super) fn run(world: &Arc<World>, caller: &Caller, body: &[u8]) -> Outcome<Answer> {
    let query = Query::parse(body)?;
    let action = query.text("Action");
    let mut xml = Xml::default();
    match &*action {
        "CreateTopic" => create_topic(world, caller, &query, &mut xml)?,
        "Publish" => publish(world, caller, &query, &mut xml)?,
        other => return refuse("InvalidAction", format!("Could not find operation {other} for version 2010-03-31")),
    }
    Ok(enclosed(&action, NAMESPACE, xml))
}

fn create_topic(world: &Arc<World>, caller: &Caller, query: &Query, xml: &mut Xml) -> Outcome<()> {
    query.check(&[&COMMON, CREATE_TOPIC].concat())?;
    let name = query.text("Name");
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)) {
        return refuse("InvalidParameter", "Invalid parameter: Topic Name");
    }
    if !query.under("Attributes").is_empty() {
        let message = "The stand-in has topics without attributes";
        return Err(Refusal::new("StandInLacks", message).status(501));
    }
    let tags = query.list("Tags.member").iter().map(|tag| (tag.text("Key"), tag.text("Value"))).collect();
    let arn = caller.arn_of("sns", &name);
    let mut needs = vec![Need::new("sns:CreateTopic", arn.clone()).with_tags(&tags)];
    if !tags.is_empty() {
        needs.push(Need::new("sns:TagResource", arn.clone()).with_tags(&tags));
    }
    caller.may(&needs)?;
    let mut state = world.state.lock().unwrap();
    let fresh = Topic { tags: tags.clone(), ..Topic::of(&caller.account) };
    let topic = state.region(&caller.region).topics.entry(arn.clone()).or_insert(fresh);
    if topic.tags != tags {
        return refuse("InvalidParameter", "Invalid parameter: Tags Reason: Topic already exists with different tags");
    }
    xml.text("TopicArn", arn);
    Ok(())
}

fn publish(world: &Arc<World>, caller: &Caller, query: &Query, xml: &mut Xml) -> Outcome<()> {
    query.check(&[&COMMON, PUBLISH].concat())?;
    let invalid = |what: &str| Refusal::new("InvalidParameter", format!("Invalid parameter: {what}"));
    let arn = query.maybe("TopicArn").ok_or_else(|| invalid("TopicArn or TargetArn Reason: no value for required"))?;
    let parts: Vec<&str> = arn.split(':').collect();
    let ["arn", "aws", "sns", region, _account, _name] = parts[..] else { return Err(invalid("TopicArn")) };
    if region != caller.region {
        return Err(invalid("TopicArn"));
    }
    caller.may(&[Need::new("sns:Publish", arn.clone())])?;
    let text = query.text("Message");
    if text.is_empty() {
        return Err(invalid("Empty message"));
    }
    if text.len() > MESSAGE {
        return Err(invalid("Message too long"));
    }
    let subject = query.maybe("Subject");
    let is_plain = |text: &String| text.chars().all(|c| c == ' ' || c.is_ascii_graphic());
    if subject.as_ref().is_some_and(|subject| !is_plain(subject)) {
        return Err(invalid("Subject"));
    }
    // With a structure the message is an object that has at least a default.
    let has_default = |text: &str| {
        let value = serde_json::from_str::<serde_json::Value>(text).unwrap_or_default();
        value["default"].is_string()
    };
    if query.get("MessageStructure").is_some() && !has_default(&text) {
        return Err(invalid("Message Structure - No default entry in JSON message body"));
    }
    let attributes = query.list("MessageAttributes.entry");
    let attributes = attributes.iter().map(|entry| (entry.text("Name"), entry.text("Value.StringValue"))).collect();
    let mut state = world.state.lock().unwrap();
    let Some(topic) = state.region(&caller.region).topics.get_mut(&arn) else {
        return Err(Refusal::new("NotFound", "Topic does not exist").status(404));
    };
    // Topics have no policies here, so only their owner may publish.
    if topic.owner != caller.account {
        return Err(caller.denied("SNS:Publish", &arn));
    }
    topic.messages.push(Message { subject, text, attributes });
    xml.text("MessageId", uuid::Uuid::new_v4());
    Ok(())
}
