//! EC2: the actions of publishing. Each is a row: the parameters it knows, and a function.

mod copy;
mod images;
mod import;
mod permissions;
mod register;
mod snapshots;
mod tags;
mod templates;

use std::sync::Arc;

pub(crate) use images::{Image, ImageState, Mapping, Permission};
pub(crate) use import::{ImportTask, TaskState};
pub(crate) use templates::LaunchTemplate;

use super::answer::{Outcome, Refusal, Xml, refuse};
use super::http::Answer;
use super::policy::{Need, like};
use super::query::{Field, Kind, Query, TEXT, may, must};
use super::world::{Caller, State, World};

/// The version of the API.
const VERSION: &str = "2016-11-15";
/// Parameters of every action.
const COMMON: [Field; 3] = [must("Action", TEXT), must("Version", Kind::OneOf(&[VERSION])), may("DryRun", Kind::Bool)];
/// Those of descriptions that may have pages.
const PAGE: [Field; 4] = [
    may("MaxResults", Kind::Int(1, 1000)),
    may("NextToken", TEXT),
    may("Filter.#.Name", TEXT),
    may("Filter.#.Value.#", TEXT),
];
const ACTIONS: [&[Action]; 8] = [
    copy::ACTIONS,
    images::ACTIONS,
    import::ACTIONS,
    permissions::ACTIONS,
    register::ACTIONS,
    snapshots::ACTIONS,
    tags::ACTIONS,
    templates::ACTIONS,
];

/// An action.
struct Action {
    name: &'static str,
    fields: &'static [&'static [Field]],
    run: fn(&Context<'_>, &mut State, &mut Xml) -> Outcome<()>,
}

/// What an action is called with.
struct Context<'a> {
    world: &'a Arc<World>,
    caller: &'a Caller,
    query: &'a Query,
    /// What the task that it starts ends with, if a test wants it to end badly.
    ends_badly: Option<&'static str>,
}

/// Whether there is such an action.
pub(super) fn knows(name: &str) -> bool {
    ACTIONS.iter().copied().flatten().any(|action| action.name == name)
}

/// The parameters of all actions, described.
pub(super) fn described() -> serde_json::Value {
    let fields = |action: &Action| action.fields.concat().iter().map(Field::described).collect();
    let all = ACTIONS.iter().copied().flatten().map(|action| (action.name.to_owned(), fields(action)));
    serde_json::Value::Object(all.collect())
}

/// Answers a request.
pub(super) fn run(
    world: &Arc<World>,
    caller: &Caller,
    body: &[u8],
    ends_badly: Option<&'static str>,
) -> Outcome<Answer> {
    let query = Query::parse(body)?;
    let name = query.text("Action");
    let Some(action) = ACTIONS.iter().copied().flatten().find(|action| action.name == name) else {
        return refuse("InvalidAction", format!("The action {name} is not valid for this web service."));
    };
    query.check(&[&COMMON, &action.fields.concat()[..]].concat())?;
    let context = Context { world, caller, query: &query, ends_badly };
    let mut state = world.state.lock().unwrap();
    let mut xml = Xml::default();
    (action.run)(&context, &mut state, &mut xml)?;
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{name}Response xmlns=\"http://ec2.amazonaws.com/doc/{VERSION}/\">\
         <requestId>{}</requestId>{}</{name}Response>",
        uuid::Uuid::new_v4(),
        xml.into_string()
    );
    let headers = vec![("content-type", "text/xml;charset=UTF-8".to_owned())];
    Ok(Answer { status: 200, headers, body: body.into_bytes() })
}

impl Context<'_> {
    /// Whether the caller may do all of this, and really wants to: a dry run ends here.
    fn may(&self, needs: &[Need]) -> Outcome<()> {
        self.caller.may(needs)?;
        if self.query.flag("DryRun") == Some(true) {
            let message = "Request would have succeeded, but DryRun flag is set.";
            return Err(Refusal::new("DryRunOperation", message).status(412));
        }
        Ok(())
    }

    /// What an earlier request with the same token has led to. The same token on another request is an error.
    fn earlier(&self, state: &mut State, action: &'static str) -> Outcome<Option<String>> {
        let Some(token) = self.query.get("ClientToken").filter(|token| !token.is_empty()) else { return Ok(None) };
        let key = (self.caller.account.clone(), action, token.to_owned());
        match state.region(&self.caller.region).tokens.get(&key) {
            Some((said, _)) if *said != self.query.fingerprint(&[]) => {
                let message = "The client token was used with other parameters";
                refuse("IdempotentParameterMismatch", message)
            }
            Some((_, id)) => Ok(Some(id.clone())),
            None => Ok(None),
        }
    }

    /// Remembers what this request has led to.
    fn remember(&self, state: &mut State, action: &'static str, id: &str) {
        if let Some(token) = self.query.get("ClientToken").filter(|token| !token.is_empty()) {
            let key = (self.caller.account.clone(), action, token.to_owned());
            let value = (self.query.fingerprint(&[]), id.to_owned());
            state.region(&self.caller.region).tokens.insert(key, value);
        }
    }

    /// Whether something passes all filters. `known` gives the values that it has for a filter's name, and nothing for
    /// a name that there is no filter of.
    fn passes(&self, known: impl Fn(&str) -> Option<Vec<String>>) -> Outcome<bool> {
        // `DescribeImportSnapshotTasks` alone has a plural.
        for filter in ["Filter", "Filters"].iter().flat_map(|list| self.query.list(list)) {
            let name = filter.text("Name");
            let Some(values) = known(&name) else {
                return refuse("InvalidParameterValue", format!("The filter '{name}' is invalid"));
            };
            let wanted = filter.texts("Value");
            if !wanted.iter().any(|pattern| values.iter().any(|value| like(pattern, value))) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The page of a listing that is asked for, and the token of the next.
    fn page<T>(&self, all: Vec<T>) -> Outcome<(Vec<T>, Option<String>)> {
        let most = self.query.number("MaxResults").unwrap_or(usize::MAX);
        let from = match self.query.get("NextToken") {
            Some(token) => match token.strip_prefix("page-").and_then(|from| from.parse().ok()) {
                Some(from) => from,
                None => return refuse("InvalidNextToken", format!("{token} is no token of a page")),
            },
            None => 0,
        };
        let next = from + most.min(all.len());
        let token = (next < all.len()).then(|| format!("page-{next}"));
        Ok((all.into_iter().skip(from).take(most).collect(), token))
    }
}

/// Writes tags.
fn write_tags(xml: &mut Xml, tags: &super::world::Tags) {
    xml.list("tagSet", tags, |xml, (key, value)| {
        xml.text("key", key).text("value", value);
    });
}

/// A time, as EC2 writes it.
fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string()
}
