//! What the stand-in holds: accounts and their keys, and in each region what they have made there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;

use super::answer::{Outcome, Refusal};
use super::ec2::{Image, ImportTask, LaunchTemplate};
use super::fault::Ledger;
use super::http::Service;
use super::policy::{Need, Policy};
use super::snapshot::Snapshot;
use super::sns::Topic;
use super::ssm::Parameter;

/// Tags of a resource.
pub(super) type Tags = BTreeMap<String, String>;

/// Everything.
#[derive(Debug)]
pub(super) struct World {
    pub(super) state: Mutex<State>,
    pub(super) ledger: Ledger,
    /// Holds `s3`, with a folder for every bucket, and `disks`.
    pub(super) folder: tempfile::TempDir,
}

/// What changes.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) accounts: BTreeMap<String, Account>,
    pub(super) keys: BTreeMap<String, Key>,
    /// Roles by ARN.
    pub(super) roles: BTreeMap<String, Role>,
    pub(super) regions: BTreeMap<String, Region>,
    pub(super) buckets: BTreeMap<String, Bucket>,
}

/// An account.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// What its long-term keys may do; everything, if there is none.
    pub(super) policy: Option<Arc<Policy>>,
    /// Roles that the import service may take.
    pub(super) import_roles: BTreeSet<String>,
    /// ARNs of the organization and organizational units that it belongs to.
    pub(super) organizations: BTreeSet<String>,
}

/// A role that accounts may assume.
#[derive(Debug, Default)]
pub(super) struct Role {
    pub(super) trusted: BTreeSet<String>,
    pub(super) policy: Option<Arc<Policy>>,
}

/// An access key.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) secret: String,
    pub(super) account: String,
    /// Who it is.
    pub(super) arn: String,
    pub(super) user_id: String,
    /// The token and the end of a temporary one.
    pub(super) session: Option<(String, Timestamp)>,
    /// The role of a temporary one.
    pub(super) role: Option<String>,
}

/// A bucket.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    pub(super) account: String,
    pub(super) region: String,
}

/// What is in a region, of all accounts: everything has an owner.
#[derive(Debug, Default)]
pub(super) struct Region {
    pub(super) snapshots: BTreeMap<String, Snapshot>,
    pub(super) images: BTreeMap<String, Image>,
    pub(super) tasks: BTreeMap<String, ImportTask>,
    pub(super) templates: BTreeMap<String, LaunchTemplate>,
    /// By account and name.
    pub(super) parameters: BTreeMap<(String, String), Parameter>,
    /// By ARN.
    pub(super) topics: BTreeMap<String, Topic>,
    /// What client tokens have led to, by account, action and token: the request, and the id it was answered with.
    pub(super) tokens: BTreeMap<(String, &'static str, String), (String, String)>,
}

/// Who has sent a request, and where to.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) service: Service,
    pub(super) account: String,
    pub(super) arn: String,
    pub(super) user_id: String,
    pub(super) region: String,
    policy: Option<Arc<Policy>>,
}

impl World {
    /// An empty one.
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        for name in ["s3", "disks"] {
            fs_err::create_dir(folder.path().join(name)).unwrap();
        }
        Self { state: Mutex::default(), ledger: Ledger::default(), folder }
    }

    /// Where S3 keeps buckets.
    pub(super) fn s3(&self) -> PathBuf {
        self.folder.path().join("s3")
    }

    /// Where snapshots keep their bytes.
    pub(super) fn disks(&self) -> PathBuf {
        self.folder.path().join("disks")
    }
}

impl State {
    /// A region. It comes into being by being asked for.
    pub(super) fn region(&mut self, name: &str) -> &mut Region {
        self.regions.entry(name.to_owned()).or_default()
    }

    /// Whoever holds a key, once its signature was found good.
    pub(super) fn caller(&self, service: Service, key: &Key, region: &str) -> Caller {
        let policy = match &key.role {
            Some(role) => self.roles.get(role).and_then(|role| role.policy.clone()),
            None => self.accounts.get(&key.account).and_then(|account| account.policy.clone()),
        };
        Caller {
            service,
            account: key.account.clone(),
            arn: key.arn.clone(),
            user_id: key.user_id.clone(),
            region: region.to_owned(),
            policy,
        }
    }

    /// Makes temporary keys.
    pub(super) fn session(&mut self, role: &str, account: &str, name: &str, lasting: Duration) -> (String, Key) {
        let id = format!("ASIA{}", digits(16).to_uppercase());
        let role_name = role.rsplit('/').next().unwrap_or_default();
        let key = Key {
            secret: digits(40),
            account: account.to_owned(),
            arn: format!("arn:aws:sts::{account}:assumed-role/{role_name}/{name}"),
            user_id: format!("AROA{}:{name}", digits(16).to_uppercase()),
            session: Some((digits(64), Timestamp::now() + lasting)),
            role: Some(role.to_owned()),
        };
        self.keys.insert(id.clone(), key.clone());
        (id, key)
    }
}

impl Caller {
    /// Whether the caller may do all of this.
    pub(super) fn may(&self, needs: &[Need]) -> Outcome<()> {
        let needs: Vec<Need> = needs
            .iter()
            .map(|need| need.clone().with("aws:RequestedRegion", &self.region))
            .map(|need| need.with("aws:PrincipalAccount", &self.account))
            .collect();
        match self.policy.as_ref().and_then(|policy| policy.refused(&needs)) {
            Some(need) => Err(self.denied(need.action, &need.resource)),
            None => Ok(()),
        }
    }

    /// What a service says to whoever may not.
    pub(super) fn denied(&self, action: &str, resource: &str) -> Refusal {
        let message = format!(
            "User: {} is not authorized to perform: {action} on resource: {resource} because no policy allows the \
             {action} action",
            self.arn
        );
        match self.service {
            Service::Ec2 => {
                let message = format!("You are not authorized to perform this operation. {message}");
                Refusal::new("UnauthorizedOperation", message).status(403)
            }
            Service::Ebs => Refusal::new("AccessDeniedException", message).status(403).because("UNAUTHORIZED_ACCOUNT"),
            Service::Ssm => Refusal::new("AccessDeniedException", message),
            Service::Sns => Refusal::new("AuthorizationError", message).status(403),
            Service::Sts | Service::S3 => Refusal::new("AccessDenied", message).status(403),
        }
    }

    /// The ARN of something in this region that belongs to an account.
    pub(super) fn arn_of(&self, service: &str, rest: &str) -> String {
        format!("arn:aws:{service}:{}:{}:{rest}", self.region, self.account)
    }

    /// The ARN of an image.
    pub(super) fn image_arn(&self, id: &str) -> String {
        format!("arn:aws:ec2:{}::image/{id}", self.region)
    }

    /// The ARN of a snapshot.
    pub(super) fn snapshot_arn(&self, id: &str) -> String {
        format!("arn:aws:ec2:{}::snapshot/{id}", self.region)
    }
}

/// The id of something new.
pub(super) fn new_id(prefix: &str) -> String {
    format!("{prefix}-{}", digits(17))
}

/// So many hexadecimal digits at random.
pub(super) fn digits(count: usize) -> String {
    let mut digits = String::new();
    while digits.len() < count {
        digits.push_str(&uuid::Uuid::new_v4().simple().to_string());
    }
    digits.truncate(count);
    digits
}
