//! The EBS direct APIs: snapshots that are written and read block by block.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::answer::{Outcome, Refusal, refuse};
use super::http::{Answer, Request};
use super::policy::Need;
use super::signature::decode;
use super::snapshot::{BLOCK, Disk, Snapshot, SnapshotState};
use super::world::{Caller, State, Tags, World, new_id};

/// The actions that are here.
pub(super) const ACTIONS: &[&str] = &[
    "StartSnapshot",
    "PutSnapshotBlock",
    "CompleteSnapshot",
    "ListSnapshotBlocks",
    "ListChangedBlocks",
    "GetSnapshotBlock",
];
/// How many polls find a completed snapshot pending.
const POLLS: u32 = 2;
/// The largest volume, in GiB.
const VOLUME: u64 = 65_536;
/// Headers with a meaning for every request.
const COMMON: [&str; 4] = ["x-amz-date", "x-amz-content-sha256", "x-amz-security-token", "x-amz-user-agent"];
const PUT_HEADERS: [&str; 4] = ["x-amz-data-length", "x-amz-progress", "x-amz-checksum", "x-amz-checksum-algorithm"];
const COMPLETE_HEADERS: [&str; 4] =
    ["x-amz-changedblockscount", "x-amz-checksum", "x-amz-checksum-algorithm", "x-amz-checksum-aggregation-method"];

/// The action that a request is about.
pub(super) fn action(request: &Request) -> Outcome<&'static str> {
    let parts: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
    match (&*request.method, &parts[..]) {
        ("POST", ["snapshots"]) => Ok("StartSnapshot"),
        ("POST", ["snapshots", "completion", _]) => Ok("CompleteSnapshot"),
        ("PUT", ["snapshots", _, "blocks", _]) => Ok("PutSnapshotBlock"),
        ("GET", ["snapshots", _, "blocks", _]) => Ok("GetSnapshotBlock"),
        ("GET", ["snapshots", _, "blocks"]) => Ok("ListSnapshotBlocks"),
        ("GET", ["snapshots", _, "changedblocks"]) => Ok("ListChangedBlocks"),
        _ => Err(Refusal::new("UnknownOperationException", "There is no such operation").status(404)),
    }
}

/// Answers a request.
pub(super) fn run(world: &Arc<World>, caller: &Caller, request: &Request, action: &str) -> Outcome<Answer> {
    let part = |at: usize| decode(request.path.split('/').nth(at).unwrap_or_default());
    match action {
        "StartSnapshot" => start(world, caller, request),
        "CompleteSnapshot" => complete(world, caller, request, &part(3)),
        "PutSnapshotBlock" => put(world, caller, request, &part(2), &part(4)),
        "GetSnapshotBlock" => get(world, caller, request, &part(2), &part(4)),
        "ListSnapshotBlocks" => list(world, caller, request, &part(2)),
        _ => changed(world, caller, request, &part(2)),
    }
}

fn invalid(reason: &'static str, message: impl Into<String>) -> Refusal {
    Refusal::new("ValidationException", message).because(reason)
}

fn not_found(id: &str) -> Refusal {
    let message = format!("The snapshot '{id}' does not exist.");
    Refusal::new("ResourceNotFoundException", message).status(404).because("SNAPSHOT_NOT_FOUND")
}

/// A snapshot that the caller may name here.
fn snapshot<'a>(state: &'a mut State, caller: &Caller, id: &str) -> Outcome<&'a mut Snapshot> {
    let is_id = id.strip_prefix("snap-").is_some_and(|digits| {
        digits.len() == 17 && digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    });
    if !is_id {
        return Err(invalid("INVALID_SNAPSHOT_ID", format!("{id} is no id of a snapshot")));
    }
    let found = state.region(&caller.region).snapshots.get_mut(id);
    found.filter(|snapshot| snapshot.is_open_to(&caller.account)).ok_or_else(|| not_found(id))
}

/// Headers and parameters that an operation does not know would be forgotten, so they are refused.
fn check(request: &Request, headers: &[&str], parameters: &[&str]) -> Outcome<BTreeMap<String, String>> {
    let is_known = |name: &str| COMMON.contains(&name) || headers.contains(&name);
    let mut names = request.headers.iter().map(|(name, _)| name.as_str());
    if let Some(name) = names.find(|name| name.starts_with("x-amz-") && !is_known(name)) {
        return Err(invalid("INVALID_PARAMETER_VALUE", format!("The header {name} is not known here")));
    }
    let mut query = BTreeMap::new();
    for pair in request.query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !parameters.contains(&name) {
            return Err(invalid("INVALID_PARAMETER_VALUE", format!("The parameter {name} is not known here")));
        }
        query.insert(name.to_owned(), decode(value));
    }
    Ok(query)
}

fn start(world: &Arc<World>, caller: &Caller, request: &Request) -> Outcome<Answer> {
    check(request, &[], &[])?;
    let input: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let wanted = Wanted::read(&input)?;
    let mut need = Need::new("ebs:StartSnapshot", caller.snapshot_arn("*")).with_tags(&wanted.tags);
    if let Some(parent) = &wanted.parent {
        need = need.with("ebs:ParentSnapshot", &caller.snapshot_arn(parent));
    }
    let mut needs = vec![need];
    if !wanted.tags.is_empty() {
        let need = Need::new("ec2:CreateTags", caller.snapshot_arn("*")).with_tags(&wanted.tags);
        needs.push(need.with("ec2:CreateAction", "StartSnapshot"));
    }
    caller.may(&needs)?;
    let request_text = input.to_string();
    let mut state = world.state.lock().unwrap();
    let token = input["ClientToken"].as_str().map(|token| (caller.account.clone(), "StartSnapshot", token.to_owned()));
    // An empty token is none.
    let token = token.filter(|(_, _, token)| !token.is_empty());
    if let Some((said, id)) = token.as_ref().and_then(|token| state.region(&caller.region).tokens.get(token)) {
        if *said != request_text {
            let message = "The client token was used with other parameters";
            return Err(Refusal::new("ConflictException", message).status(409));
        }
        let id = id.clone();
        return Ok(started(snapshot(&mut state, caller, &id)?));
    }
    let parent = wanted.parent.as_ref().map(|id| snapshot(&mut state, caller, id).cloned()).transpose()?;
    if let Some(parent) = &parent {
        if parent.state != SnapshotState::Completed {
            return Err(invalid("INVALID_SNAPSHOT_ID", format!("{} is not completed", parent.id)));
        }
        if parent.gib > wanted.gib {
            let message = format!("The parent is of {} GiB, so the snapshot can't have {}", parent.gib, wanted.gib);
            return Err(invalid("INVALID_VOLUME_SIZE", message));
        }
    }
    let made = wanted.make(world, caller, parent.as_ref());
    let id = made.id.clone();
    let answer = started(&made);
    let region = state.region(&caller.region);
    region.snapshots.insert(id.clone(), made);
    if let Some(token) = token {
        region.tokens.insert(token, (request_text, id));
    }
    Ok(answer)
}

/// What `StartSnapshot` asks for.
struct Wanted {
    gib: u32,
    parent: Option<String>,
    description: String,
    tags: Tags,
    encrypted: bool,
    kms_key: Option<String>,
}

impl Wanted {
    fn read(input: &Value) -> Outcome<Self> {
        let wrong = |what: &str| Err(invalid("INVALID_PARAMETER_VALUE", format!("Invalid {what}")));
        let Some(members) = input.as_object() else { return wrong("body") };
        for (name, value) in members {
            let is_text = |longest: usize| value.as_str().is_some_and(|text| text.chars().count() <= longest);
            let is_good = match &**name {
                "VolumeSize" => value.is_u64(),
                "ParentSnapshotId" => is_text(64),
                "Description" | "ClientToken" => is_text(255),
                "Encrypted" => value.is_boolean(),
                "KmsKeyArn" => value.as_str().is_some_and(|arn| arn.starts_with("arn:aws:kms:")),
                "Timeout" => value.as_u64().is_some_and(|minutes| (10..=4320).contains(&minutes)),
                "Tags" => value.is_array(),
                _ => false,
            };
            if !is_good {
                return wrong(name);
            }
        }
        let text = |name: &str| input[name].as_str().map(str::to_owned);
        let gib = input["VolumeSize"].as_u64().filter(|gib| (1..=VOLUME).contains(gib));
        let Some(gib) = gib.and_then(|gib| u32::try_from(gib).ok()) else {
            return Err(invalid("INVALID_VOLUME_SIZE", "A volume has 1 to 65536 GiB"));
        };
        let parent = text("ParentSnapshotId");
        let encrypted = input["Encrypted"].as_bool();
        if parent.is_some() && encrypted.is_some() {
            return wrong("Encrypted: a parent says already whether its children are encrypted");
        }
        let kms_key = text("KmsKeyArn");
        if kms_key.is_some() && encrypted != Some(true) {
            return wrong("KmsKeyArn: Encrypted is not true");
        }
        let mut tags = Tags::new();
        for tag in input["Tags"].as_array().into_iter().flatten() {
            let (key, value) = (tag["Key"].as_str().unwrap_or_default(), tag["Value"].as_str().unwrap_or_default());
            let is_good = !key.is_empty() && key.chars().count() <= 127 && value.chars().count() <= 255;
            if !is_good || key.starts_with("aws:") || tags.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(invalid("INVALID_TAG", format!("{tag} is no tag, or is there twice")));
            }
        }
        if tags.len() > 50 {
            return Err(invalid("INVALID_TAG", "There are more than 50 tags"));
        }
        let description = text("Description").unwrap_or_default();
        Ok(Self { gib, parent, description, tags, encrypted: encrypted.unwrap_or_default(), kms_key })
    }

    fn make(self, world: &World, caller: &Caller, parent: Option<&Snapshot>) -> Snapshot {
        Snapshot {
            id: new_id("snap"),
            owner: caller.account.clone(),
            gib: self.gib,
            state: SnapshotState::Open,
            description: self.description,
            tags: self.tags,
            encrypted: parent.map_or(self.encrypted, |parent| parent.encrypted),
            kms_key: parent.map_or(self.kms_key, |parent| parent.kms_key.clone()),
            parent: self.parent,
            started: Timestamp::now(),
            users: Default::default(),
            is_public: false,
            disk: Arc::new(Disk::new(&world.disks(), self.gib, parent.map(|parent| parent.disk.clone()))),
        }
    }
}

fn started(snapshot: &Snapshot) -> Answer {
    let tags: Vec<Value> = snapshot.tags.iter().map(|(key, value)| json!({ "Key": key, "Value": value })).collect();
    let mut said = json!({
        "SnapshotId": snapshot.id, "OwnerId": snapshot.owner, "Status": snapshot.status(),
        "StartTime": snapshot.started.as_second(), "VolumeSize": snapshot.gib, "BlockSize": BLOCK, "Tags": tags,
    });
    if !snapshot.description.is_empty() {
        said["Description"] = (*snapshot.description).into();
    }
    for (name, value) in [("ParentSnapshotId", &snapshot.parent), ("KmsKeyArn", &snapshot.kms_key)] {
        if let Some(value) = value {
            said[name] = (**value).into();
        }
    }
    Answer::json(201, &said)
}

/// A header that has to be there.
fn header<'a>(request: &'a Request, name: &str) -> Outcome<&'a str> {
    let message = || format!("1 validation error detected: Value null at '{name}' failed to satisfy constraint");
    request.header(name).ok_or_else(|| invalid("INVALID_PARAMETER_VALUE", message()))
}

/// The snapshot's disk, if blocks may be put into it.
fn open_disk(world: &World, caller: &Caller, action: &'static str, id: &str) -> Outcome<Arc<Disk>> {
    let mut state = world.state.lock().unwrap();
    let found = snapshot(&mut state, caller, id)?;
    caller.may(&[Need::new(action, caller.snapshot_arn(id)).of_tagged(&found.tags)])?;
    if found.owner != caller.account {
        return Err(not_found(id));
    }
    if found.state != SnapshotState::Open {
        return Err(invalid("INVALID_SNAPSHOT_ID", format!("{id} is complete already")));
    }
    Ok(found.disk.clone())
}

fn put(world: &Arc<World>, caller: &Caller, request: &Request, id: &str, index: &str) -> Outcome<Answer> {
    check(request, &PUT_HEADERS, &[])?;
    let disk = open_disk(world, caller, "ebs:PutSnapshotBlock", id)?;
    let index: u32 = index.parse().map_err(|_| invalid("INVALID_BLOCK", format!("{index} is no index")))?;
    if !disk.has_room_for(index) {
        return Err(invalid("INVALID_BLOCK", format!("The volume has no block {index}")));
    }
    let length = header(request, "x-amz-data-length")?;
    if length.parse() != Ok(BLOCK) || request.body.len() != BLOCK {
        let message = format!("A block has {BLOCK} bytes, not {length} and {} of a body", request.body.len());
        return Err(invalid("INVALID_BLOCK", message));
    }
    let progress = request.header("x-amz-progress").unwrap_or("0");
    if !progress.parse().is_ok_and(|percent: u8| percent <= 100) {
        return Err(invalid("INVALID_PARAMETER_VALUE", format!("{progress} is no progress")));
    }
    let algorithm = header(request, "x-amz-checksum-algorithm")?;
    if algorithm != "SHA256" {
        return Err(invalid("INVALID_PARAMETER_VALUE", format!("{algorithm} is no checksum algorithm")));
    }
    let digest: [u8; 32] = Sha256::digest(&request.body).into();
    let checksum = STANDARD.encode(digest);
    if header(request, "x-amz-checksum")? != checksum {
        return Err(invalid("INVALID_BLOCK", "The block has another checksum than is said"));
    }
    disk.put(index, &request.body, digest);
    let mut answer = Answer::json(201, &json!({}));
    answer.headers.push(("x-amz-Checksum", checksum));
    answer.headers.push(("x-amz-Checksum-Algorithm", "SHA256".to_owned()));
    Ok(answer)
}

fn complete(world: &Arc<World>, caller: &Caller, request: &Request, id: &str) -> Outcome<Answer> {
    check(request, &COMPLETE_HEADERS, &[])?;
    // AWS does not say that this may be repeated, so a repetition finds a snapshot that is complete already.
    let disk = open_disk(world, caller, "ebs:CompleteSnapshot", id)?;
    let (count, aggregate) = disk.aggregate();
    let said = header(request, "x-amz-changedblockscount")?;
    if said.parse() != Ok(count) {
        let message = format!("{count} blocks were written, but {said} is said");
        return Err(invalid("INVALID_PARAMETER_VALUE", message));
    }
    let checksum = ["x-amz-checksum", "x-amz-checksum-algorithm", "x-amz-checksum-aggregation-method"];
    match checksum.map(|name| request.header(name)) {
        [None, None, None] => {}
        [Some(said), Some("SHA256"), Some("LINEAR")] if said == STANDARD.encode(aggregate) => {}
        [Some(_), Some("SHA256"), Some("LINEAR")] => {
            return Err(invalid("INVALID_PARAMETER_VALUE", "The blocks have another checksum than is said"));
        }
        _ => return Err(invalid("INVALID_PARAMETER_VALUE", "A checksum needs SHA256 and LINEAR beside it")),
    }
    let mut state = world.state.lock().unwrap();
    snapshot(&mut state, caller, id)?.state = SnapshotState::Pending(POLLS);
    Ok(Answer::json(202, &json!({ "Status": "pending" })))
}

/// A completed snapshot, for reading.
fn readable(world: &World, caller: &Caller, action: &'static str, id: &str) -> Outcome<Snapshot> {
    let mut state = world.state.lock().unwrap();
    let found = snapshot(&mut state, caller, id)?;
    caller.may(&[Need::new(action, caller.snapshot_arn(id)).of_tagged(&found.tags)])?;
    if found.state != SnapshotState::Completed {
        return Err(invalid("INVALID_SNAPSHOT_ID", format!("{id} is not completed")));
    }
    Ok(found.clone())
}

/// Blocks are read with a token that a listing has given. It holds what it is for.
fn block_token(id: &str, index: u32) -> String {
    STANDARD.encode(format!("{id}/{index}"))
}

fn get(world: &Arc<World>, caller: &Caller, request: &Request, id: &str, index: &str) -> Outcome<Answer> {
    let query = check(request, &[], &["blockToken"])?;
    let found = readable(world, caller, "ebs:GetSnapshotBlock", id)?;
    let index: u32 = index.parse().map_err(|_| invalid("INVALID_BLOCK", format!("{index} is no index")))?;
    if query.get("blockToken") != Some(&block_token(id, index)) {
        return Err(invalid("INVALID_BLOCK_TOKEN", "The token is not that of the block"));
    }
    let block = found.disk.get(index).ok_or_else(|| invalid("INVALID_BLOCK", format!("there is no block {index}")))?;
    let headers = vec![
        ("content-type", "application/octet-stream".to_owned()),
        ("x-amz-Data-Length", BLOCK.to_string()),
        ("x-amz-Checksum", STANDARD.encode(Sha256::digest(&block))),
        ("x-amz-Checksum-Algorithm", "SHA256".to_owned()),
    ];
    Ok(Answer { status: 200, headers, body: block })
}

/// One page of a listing: where it begins, and how long it is.
fn page(query: &BTreeMap<String, String>) -> Outcome<(u32, usize)> {
    let number = |name: &str| query.get(name).map(|value| value.parse::<u32>()).transpose();
    let wrong = |_| invalid("INVALID_PARAMETER_VALUE", "A number is none");
    let most = number("maxResults").map_err(wrong)?.unwrap_or(10_000);
    if !(100..=10_000).contains(&most) {
        return Err(invalid("INVALID_PARAMETER_VALUE", "maxResults is between 100 and 10000"));
    }
    let most = usize::try_from(most).unwrap_or_default();
    let from = match query.get("pageToken") {
        Some(token) => {
            let text = STANDARD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let next = text.and_then(|text| text.strip_prefix("page ")?.parse().ok());
            next.ok_or_else(|| invalid("INVALID_PAGE_TOKEN", "The token is none of a page"))?
        }
        None => number("startingBlockIndex").map_err(wrong)?.unwrap_or_default(),
    };
    Ok((from, most))
}

/// A page of blocks, of which more may follow.
fn blocks(name: &str, found: &Snapshot, query: &BTreeMap<String, String>, all: Vec<(u32, Value)>) -> Outcome<Answer> {
    let (from, most) = page(query)?;
    let mut rest = all.into_iter().filter(|(index, _)| *index >= from);
    let shown: Vec<Value> = rest.by_ref().take(most).map(|(_, block)| block).collect();
    let end = Timestamp::now() + SignedDuration::from_hours(24 * 7);
    let mut said = json!({
        name: shown, "ExpiryTime": end.as_second(), "VolumeSize": found.gib, "BlockSize": BLOCK,
    });
    if let Some((next, _)) = rest.next() {
        said["NextToken"] = STANDARD.encode(format!("page {next}")).into();
    }
    Ok(Answer::json(200, &said))
}

fn list(world: &Arc<World>, caller: &Caller, request: &Request, id: &str) -> Outcome<Answer> {
    let query = check(request, &[], &["pageToken", "maxResults", "startingBlockIndex"])?;
    let found = readable(world, caller, "ebs:ListSnapshotBlocks", id)?;
    let block = |index: u32| (index, json!({ "BlockIndex": index, "BlockToken": block_token(id, index) }));
    let all = found.disk.indexes().into_iter().map(block).collect();
    blocks("Blocks", &found, &query, all)
}

fn changed(world: &Arc<World>, caller: &Caller, request: &Request, id: &str) -> Outcome<Answer> {
    let query = check(request, &[], &["firstSnapshotId", "pageToken", "maxResults", "startingBlockIndex"])?;
    let second = readable(world, caller, "ebs:ListChangedBlocks", id)?;
    let Some(first) = query.get("firstSnapshotId") else {
        return refuse("ValidationException", "The stand-in compares with a first snapshot only");
    };
    let first = readable(world, caller, "ebs:ListChangedBlocks", first)?;
    let (in_first, in_second) = (first.disk.indexes(), second.disk.indexes());
    let mut all = Vec::new();
    for &index in in_first.union(&in_second) {
        if first.disk.get(index) == second.disk.get(index) {
            continue;
        }
        let mut block = json!({ "BlockIndex": index });
        for (name, id, holds) in
            [("FirstBlockToken", &first.id, &in_first), ("SecondBlockToken", &second.id, &in_second)]
        {
            if holds.contains(&index) {
                block[name] = block_token(id, index).into();
            }
        }
        all.push((index, block));
    }
    blocks("ChangedBlocks", &second, &query, all)
}
