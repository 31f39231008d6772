//! A stand-in for AWS, for tests that publish.
//!
//! ```text
//!  boto3, goldsmith
//!   │  AWS listener                                                    http.rs
//!   ├──► signature ─► whose key? ─► planned fault? ─► the service ─►   signature.rs  fault.rs  ec2/ ebs.rs …
//!   │                                                  │ policy        policy.rs
//!   │                                                  ▼
//!   │                                       accounts, keys, regions    world.rs
//!   │                                       disks in sparse files      snapshot.rs
//!   │                                                  ▲ imports, by qemu-img
//!   │  S3 listener                                     │               s3.rs
//!   └──► s3s: signature ─► whose bucket? ─► policy ─► fault? ─► s3s-fs: objects as files
//! ```
//!
//! One listener answers for all services but S3: the scope of a signature says which service a request is for and which
//! region. EC2, SNS and STS speak the query protocol, SSM JSON 1.1, EBS REST with JSON. The shapes are those of
//! botocore's models, and `boto3_client/` drives every action with that library. Time does not pass by itself: whatever
//! takes time at AWS (a snapshot, a copy, an import) is pending for so many polls, and then done.
//!
//! It is strict where AWS is, and where AWS would forget something silently:
//!
//! - Every request has a good signature of now, by a key that is known, over all headers with a meaning. A body may be
//!   unsigned only where a block is put, whose digest is a signed header. Temporary keys come with their token.
//! - A parameter, member or header that an action does not know is an error (`UnknownParameter`), as is a value outside
//!   the model, and a list with a gap. What AWS knows and the stand-in does not is `StandInLacks`: never taken and
//!   forgotten.
//! - Client tokens: the same request again gives the same answer, another one with the same token is an error.
//! - Everything belongs to an account and a region. What is not shared with an account is not there for it.
//! - Blocks are compared with their checksums, counts and aggregates with the blocks. Imports are decoded by
//!   `qemu-img`.
//! - Where a policy is attached, every request is judged by it, with the resources that the service authorization
//!   reference names. Things that the policy language has and the stand-in has not end the test.
//!
//! What of AWS it does not have: instances and volumes; KMS (a key's name is kept, nothing is asked of it); bucket
//! policies, topic policies, snapshot locks, recycle bins, block public access, quotas and their rates; eventual
//! consistency (a thing is there for the very next request); time-outs of open snapshots; the service's own role in
//! `s3:GetObject` of an import (a role that a test has declared reads every bucket of its account). Uploads in parts
//! can't be listed: `s3s-fs` can't. An upload in parts belongs to the key that has begun it.
//!
//! Decided without a source: a repeated `CompleteSnapshot` is refused; an unknown import task is
//! `InvalidConversionTaskId`; an object that is not there is refused at once and not by the task.

mod answer;
mod ebs;
mod ec2;
mod fault;
mod http;
mod policy;
mod query;
mod s3;
mod signature;
mod snapshot;
mod sns;
mod ssm;
mod sts;
#[cfg(test)]
mod tests;
mod world;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use ec2::{Image, ImageState, ImportTask, LaunchTemplate, Mapping, Permission, TaskState};
pub(crate) use fault::{Call, Fault};
pub(crate) use snapshot::{Snapshot, SnapshotState};
pub(crate) use sns::Message;
pub(crate) use ssm::Parameter;

use policy::Policy;
use tokio::net::TcpListener;
use world::{Bucket, Key, World, digits};

/// AWS, on 127.0.0.1. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Cloud {
    world: Arc<World>,
    runtime: Option<tokio::runtime::Runtime>,
    port: u16,
    s3_port: u16,
}

/// The keys of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) id: String,
    pub(crate) secret: String,
    /// The token of temporary ones.
    pub(crate) token: Option<String>,
}

/// An object in S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) bytes: u64,
}

impl Cloud {
    /// Starts one, in which there is nothing.
    pub(crate) fn start() -> Self {
        let world = Arc::new(World::new());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listen = || runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let (aws, s3) = (listen(), listen());
        let (port, s3_port) = (aws.local_addr().unwrap().port(), s3.local_addr().unwrap().port());
        runtime.spawn(http::serve(aws, world.clone()));
        runtime.spawn(s3::serve(s3, world.clone()));
        Self { world, runtime: Some(runtime), port, s3_port }
    }

    /// Where all services but S3 are.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Where S3 is. Buckets are the first part of a path.
    pub(crate) fn s3_endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.s3_port)
    }

    /// Makes an account, or gives one that is there another pair of keys.
    pub(crate) fn account(&self, id: &str) -> Keys {
        assert!(id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_digit()), "{id} is no account");
        let keys = Keys { id: format!("AKIA{}", digits(16).to_uppercase()), secret: digits(40), token: None };
        let key = Key {
            secret: keys.secret.clone(),
            account: id.to_owned(),
            arn: format!("arn:aws:iam::{id}:user/goldsmith"),
            user_id: format!("AIDA{}", digits(17).to_uppercase()),
            session: None,
            role: None,
        };
        let mut state = self.world.state.lock().unwrap();
        state.accounts.entry(id.to_owned()).or_default();
        state.keys.insert(keys.id.clone(), key);
        keys
    }

    /// Lets an account assume a role of another one.
    pub(crate) fn allow_role(&self, arn: &str, trusted_account: &str) {
        let account = arn.strip_prefix("arn:aws:iam::").and_then(|rest| rest.split_once(":role/"));
        let (account, _name) = account.unwrap_or_else(|| panic!("{arn} is no role"));
        let mut state = self.world.state.lock().unwrap();
        state.accounts.entry(account.to_owned()).or_default();
        state.roles.entry(arn.to_owned()).or_default().trusted.insert(trusted_account.to_owned());
    }

    /// Makes a role of an account that the import service may take.
    pub(crate) fn allow_import(&self, account: &str, role: &str) {
        self.known(account, |account| _ = account.import_roles.insert(role.to_owned()));
    }

    /// Makes an account a member of an organization or an organizational unit, by its ARN.
    pub(crate) fn join(&self, account: &str, arn: &str) {
        self.known(account, |account| _ = account.organizations.insert(arn.to_owned()));
    }

    /// From now on an account's own keys may do what this policy says and nothing else.
    pub(crate) fn enforce(&self, account: &str, policy: &str) {
        let policy = Policy::parse(policy);
        self.known(account, |account| account.policy = Some(Arc::new(policy)));
    }

    /// The same for whoever has assumed a role.
    pub(crate) fn enforce_role(&self, arn: &str, policy: &str) {
        let policy = Policy::parse(policy);
        let mut state = self.world.state.lock().unwrap();
        state.roles.get_mut(arn).unwrap_or_else(|| panic!("there is no role {arn}")).policy = Some(Arc::new(policy));
    }

    /// Ends all sessions, as if their time were over.
    pub(crate) fn expire_sessions(&self) {
        let mut state = self.world.state.lock().unwrap();
        for (_, end) in state.keys.values_mut().filter_map(|key| key.session.as_mut()) {
            *end = jiff::Timestamp::UNIX_EPOCH;
        }
    }

    /// Makes a bucket.
    pub(crate) fn bucket(&self, account: &str, region: &str, name: &str) {
        fs_err::create_dir(self.world.s3().join(name)).unwrap();
        let bucket = Bucket { account: account.to_owned(), region: region.to_owned() };
        self.world.state.lock().unwrap().buckets.insert(name.to_owned(), bucket);
    }

    /// The next calls of an action go wrong, in a region or in any.
    pub(crate) fn fail(&self, action: &str, region: Option<&str>, times: u32, fault: Fault) {
        self.world.ledger.plan(action, region, times, fault);
    }

    /// All calls so far, in the order in which they were answered; one that is stalled counts from then on.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.world.ledger.calls()
    }

    /// Waits until an action was called so often. A call counts once it is carried out, or stalled.
    pub(crate) fn wait_for(&self, action: &str, times: usize) {
        self.world.ledger.wait_for(action, times);
    }

    /// A snapshot.
    pub(crate) fn snapshot(&self, account: &str, region: &str, id: &str) -> Option<Snapshot> {
        self.snapshots(account, region).into_iter().find(|snapshot| snapshot.id == id)
    }

    /// An account's snapshots, the oldest first.
    pub(crate) fn snapshots(&self, account: &str, region: &str) -> Vec<Snapshot> {
        let mut state = self.world.state.lock().unwrap();
        let all = state.region(region).snapshots.values().filter(|snapshot| snapshot.owner == account);
        let mut all: Vec<Snapshot> = all.cloned().collect();
        all.sort_by_key(|snapshot| snapshot.started);
        all
    }

    /// An account's images, the oldest first.
    pub(crate) fn images(&self, account: &str, region: &str) -> Vec<Image> {
        let mut state = self.world.state.lock().unwrap();
        let all = state.region(region).images.values().filter(|image| image.owner == account);
        let mut all: Vec<Image> = all.cloned().collect();
        all.sort_by_key(|image| image.created);
        all
    }

    /// An account's imports.
    pub(crate) fn import_tasks(&self, account: &str, region: &str) -> Vec<ImportTask> {
        let mut state = self.world.state.lock().unwrap();
        state.region(region).tasks.values().filter(|task| task.owner == account).cloned().collect()
    }

    /// A launch template, by its name.
    pub(crate) fn launch_template(&self, account: &str, region: &str, name: &str) -> Option<LaunchTemplate> {
        let mut state = self.world.state.lock().unwrap();
        let mut all = state.region(region).templates.values();
        all.find(|template| template.owner == account && template.name == name).cloned()
    }

    /// Makes a launch template of which nothing is known but the instances' type. Returns its id.
    pub(crate) fn make_launch_template(&self, account: &str, region: &str, name: &str) -> String {
        let template = LaunchTemplate::of(account, name);
        let id = template.id.clone();
        self.world.state.lock().unwrap().region(region).templates.insert(id.clone(), template);
        id
    }

    /// A parameter.
    pub(crate) fn parameter(&self, account: &str, region: &str, name: &str) -> Option<Parameter> {
        let key = (account.to_owned(), name.to_owned());
        self.world.state.lock().unwrap().region(region).parameters.get(&key).cloned()
    }

    /// Makes a parameter of a type: `String`, `SecureString`.
    pub(crate) fn make_parameter(&self, account: &str, region: &str, name: &str, (kind, value): (&str, &str)) {
        let key = (account.to_owned(), name.to_owned());
        let parameter = Parameter::of(kind, value);
        self.world.state.lock().unwrap().region(region).parameters.insert(key, parameter);
    }

    /// Makes a topic, and returns its ARN.
    pub(crate) fn topic(&self, account: &str, region: &str, name: &str) -> String {
        let arn = format!("arn:aws:sns:{region}:{account}:{name}");
        let topic = sns::Topic::of(account);
        self.world.state.lock().unwrap().region(region).topics.insert(arn.clone(), topic);
        arn
    }

    /// What was published to a topic.
    pub(crate) fn messages(&self, arn: &str) -> Vec<Message> {
        let state = self.world.state.lock().unwrap();
        let mut topics = state.regions.values().filter_map(|region| region.topics.get(arn));
        topics.next().map(|topic| topic.messages.clone()).unwrap_or_default()
    }

    /// All objects in S3.
    pub(crate) fn objects(&self) -> Vec<Object> {
        let mut objects = Vec::new();
        for bucket in self.world.state.lock().unwrap().buckets.keys() {
            collect(&self.world.s3().join(bucket), bucket, "", &mut objects);
        }
        objects
    }

    /// The bytes of an object.
    pub(crate) fn object(&self, bucket: &str, key: &str) -> Vec<u8> {
        fs_err::read(self.world.s3().join(bucket).join(key)).unwrap()
    }

    /// How many uploads in parts were begun and neither completed nor aborted.
    pub(crate) fn unfinished_uploads(&self) -> usize {
        self.uploads().len()
    }

    /// Gives all unfinished uploads up, as rules of a bucket's lifecycle do.
    pub(crate) fn give_up_uploads(&self) {
        for upload in self.uploads() {
            fs_err::remove_file(upload).unwrap();
        }
    }

    fn uploads(&self) -> Vec<PathBuf> {
        let files = fs_err::read_dir(self.world.s3()).unwrap().map(|entry| entry.unwrap().path());
        let is_upload = |name: &str| name.starts_with(".upload-") && name.ends_with(".json");
        files.filter(|file| file.file_name().and_then(OsStr::to_str).is_some_and(is_upload)).collect()
    }

    /// The parameters that the actions of EC2 know, for comparing with a model of it.
    pub(crate) fn parameters_of_ec2() -> serde_json::Value {
        ec2::described()
    }

    fn known(&self, id: &str, change: impl FnOnce(&mut world::Account)) {
        let mut state = self.world.state.lock().unwrap();
        change(state.accounts.get_mut(id).unwrap_or_else(|| panic!("there is no account {id}")));
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

fn collect(folder: &Path, bucket: &str, prefix: &str, objects: &mut Vec<Object>) {
    let mut entries: Vec<_> = fs_err::read_dir(folder).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        let key = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            collect(&entry.path(), bucket, &format!("{key}/"), objects);
        } else {
            objects.push(Object { bucket: bucket.to_owned(), key, bytes: metadata.len() });
        }
    }
}
