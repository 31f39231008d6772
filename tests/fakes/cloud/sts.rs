//! STS: who somebody is, and keys of a role for a while.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::answer::{Outcome, Xml, refuse};
use super::http::Answer;
use super::policy::Need;
use super::query::{Field, Kind, Query, TEXT, may, must};
use super::world::{Caller, World};

/// The actions that are here.
pub(super) const ACTIONS: &[&str] = &["GetCallerIdentity", "AssumeRole"];
const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";
const COMMON: [Field; 2] = [must("Action", TEXT), must("Version", Kind::OneOf(&["2011-06-15"]))];
const ASSUME_ROLE: &[Field] = &[
    must("RoleArn", Kind::Text(20, 2048)),
    must("RoleSessionName", Kind::Text(2, 64)),
    may("DurationSeconds", Kind::Int(900, 43200)),
    may("ExternalId", Kind::Text(2, 1224)),
    may("Policy", Kind::Lacking),
    may("PolicyArns.member.#.arn", Kind::Lacking),
    may("Tags.member.#.Key", Kind::Lacking),
    may("Tags.member.#.Value", Kind::Lacking),
    may("SourceIdentity", Kind::Lacking),
];

/// Answers a request.
pub(super) fn run(world: &Arc<World>, caller: &Caller, body: &[u8]) -> Outcome<Answer> {
    let query = Query::parse(body)?;
    let action = query.text("Action");
    let mut xml = Xml::default();
    match &*action {
        "GetCallerIdentity" => {
            // Nobody needs a permission for this.
            query.check(&COMMON)?;
            xml.text("Arn", &caller.arn).text("UserId", &caller.user_id).text("Account", &caller.account);
        }
        "AssumeRole" => assume_role(world, caller, &query, &mut xml)?,
        other => return refuse("InvalidAction", format!("Could not find operation {other} for version 2011-06-15")),
    }
    Ok(enclosed(&action, NAMESPACE, xml))
}

/// The envelope that the query protocol has for all services but EC2.
pub(super) fn enclosed(action: &str, namespace: &str, result: Xml) -> Answer {
    let result = result.into_string();
    let id = uuid::Uuid::new_v4();
    let body = format!(
        "<{action}Response xmlns=\"{namespace}\"><{action}Result>{result}</{action}Result><ResponseMetadata>\
         <RequestId>{id}</RequestId></ResponseMetadata></{action}Response>"
    );
    Answer { status: 200, headers: vec![("content-type", "text/xml".to_owned())], body: body.into_bytes() }
}

fn assume_role(world: &Arc<World>, caller: &Caller, query: &Query, xml: &mut Xml) -> Outcome<()> {
    query.check(&[&COMMON, ASSUME_ROLE].concat())?;
    let (arn, name) = (query.text("RoleArn"), query.text("RoleSessionName"));
    let account = arn.split(':').nth(4).unwrap_or_default().to_owned();
    if !arn.starts_with("arn:aws:iam::") || !arn.contains(":role/") || account.len() != 12 {
        return refuse("ValidationError", format!("{arn} is invalid"));
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c)) {
        return refuse("ValidationError", format!("Value '{name}' at 'roleSessionName' failed to satisfy constraint"));
    }
    let mut need = Need::new("sts:AssumeRole", arn.clone());
    if let Some(id) = query.get("ExternalId") {
        need = need.with("sts:ExternalId", id);
    }
    caller.may(&[need])?;
    let mut state = world.state.lock().unwrap();
    // A role that does not exist and one that does not trust the caller look the same.
    if !state.roles.get(&arn).is_some_and(|role| role.trusted.contains(&caller.account)) {
        return Err(caller.denied("sts:AssumeRole", &arn));
    }
    let lasting = Duration::from_secs(query.number("DurationSeconds").unwrap_or(3600));
    let (id, key) = state.session(&arn, &account, &name, lasting);
    let (token, end) = key.session.unwrap_or_else(|| (String::new(), Timestamp::now()));
    xml.within("Credentials", |xml| {
        xml.text("AccessKeyId", id).text("SecretAccessKey", key.secret).text("SessionToken", token);
        xml.text("Expiration", end.strftime("%Y-%m-%dT%H:%M:%SZ"));
    });
    xml.within("AssumedRoleUser", |xml| {
        xml.text("AssumedRoleId", key.user_id).text("Arn", key.arn);
    });
    Ok(())
}
