//! Telling others what becomes of images: events in the shape of Amazon EventBridge, delivered to files, webhooks, commands
//! and topics.
//!
//! ```text
//!   Notice ──► a queue per target ──► file: a line appended
//!                                 ├─► webhook.rs: POST, signed, tried again
//!                                 ├─► command: its standard input
//!                                 └─► SNS
//! ```
//!
//! Each target gets its notices in order, and waits for no other. What can't be delivered is said, and fails nothing.

mod message;
mod webhook;

use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use goldsmith_aws::{Aws, Endpoints};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub use message::{ComponentFailure, DistributionFailure, FailureContext, Notice, Origin, RegionFailure, StateChange};
pub use webhook::{SECRET_VARIABLE, Webhook};

use crate::host::address::shown;

/// How long a command may take.
const COMMAND_TIME: Duration = Duration::from_secs(60);
/// How long is waited at the end for what is not delivered yet.
const LAST_WAIT: Duration = Duration::from_secs(60);
/// The longest part of a command's complaint that is repeated, in bytes.
const COMPLAINT: usize = 500;

/// Where notices go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A file of JSON lines, appended to.
    File(PathBuf),
    /// An address that takes POST requests.
    Webhook(Webhook),
    /// A command of the shell, which reads the event from its standard input.
    Command(String),
    /// ARN of a topic of SNS.
    Topic(String),
}

impl FromStr for Target {
    type Err = String;

    /// `cmd:COMMAND`, `https://…`, `arn:aws:sns:…`, or a file's path.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(command) = text.strip_prefix("cmd:") {
            return if command.trim().is_empty() { Err(unknown(text)) } else { Ok(Self::Command(command.to_owned())) };
        }
        if text.starts_with("https://") || text.starts_with("http://") {
            return Webhook::new(text).map(Self::Webhook);
        }
        if text.starts_with("arn:") {
            let parts: Vec<&str> = text.split(':').collect();
            let is_topic = matches!(parts.as_slice(), ["arn", _, "sns", region, account, name]
                if !region.is_empty() && !account.is_empty() && !name.is_empty());
            return if is_topic { Ok(Self::Topic(text.to_owned())) } else { Err(unknown(text)) };
        }
        let path = text.strip_prefix("file:").unwrap_or(text);
        if path.is_empty() || (path == text && text.split_once("://").is_some()) {
            return Err(unknown(text));
        }
        Ok(Self::File(path.into()))
    }
}

fn unknown(text: &str) -> String {
    let text = shown(text);
    format!("`{text}` can't be told: a file, https://…, cmd:COMMAND or the ARN of an SNS topic is needed")
}

impl std::fmt::Display for Target {
    /// Without what an address may hold of secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Webhook(webhook) => write!(f, "the webhook at {}", webhook.host()),
            Self::Command(command) => write!(f, "the command `{command}`"),
            Self::Topic(arn) => write!(f, "the topic {arn}"),
        }
    }
}

/// Hears of notices that could not be delivered, and why.
pub type Complaints = Arc<dyn Fn(&Notice, String) + Send + Sync>;

/// Delivers notices in the background.
#[derive(Debug)]
pub struct Notifier {
    workers: Vec<(Target, JoinHandle<()>)>,
    mouth: Mouth,
}

/// What notices are handed to.
#[derive(Debug, Clone)]
pub struct Mouth(Vec<mpsc::UnboundedSender<Option<Arc<Notice>>>>);

impl Mouth {
    /// Has a notice delivered, some time.
    pub fn tell(&self, notice: Notice) {
        let notice = Arc::new(notice);
        for queue in &self.0 {
            // After the end there is nobody to tell.
            let _ended = queue.send(Some(notice.clone()));
        }
    }
}

impl Notifier {
    /// Begins to deliver to some targets.
    pub fn start(targets: Vec<Target>, endpoints: &Endpoints, complaints: &Complaints) -> Self {
        let (mut workers, mut queues) = (Vec::new(), Vec::new());
        for target in targets {
            let (sender, mut queue) = mpsc::unbounded_channel::<Option<Arc<Notice>>>();
            let (for_worker, endpoints, complaints) = (target.clone(), endpoints.clone(), complaints.clone());
            let worker = tokio::spawn(async move {
                while let Some(Some(notice)) = queue.recv().await {
                    if let Err(why) = deliver(&for_worker, &notice, &endpoints).await {
                        complaints(&notice, format!("{for_worker} could not be told of {notice}: {why}"));
                    }
                }
            });
            queues.push(sender);
            workers.push((target, worker));
        }
        Self { workers, mouth: Mouth(queues) }
    }

    /// What notices are handed to.
    pub fn mouth(&self) -> Mouth {
        self.mouth.clone()
    }

    /// Waits until all is delivered or given up. Returns the targets that took too long.
    pub async fn finish(self) -> Vec<Target> {
        for queue in &self.mouth.0 {
            let _ended = queue.send(None);
        }
        let deadline = tokio::time::Instant::now() + LAST_WAIT;
        let mut late = Vec::new();
        for (target, mut worker) in self.workers {
            if tokio::time::timeout_at(deadline, &mut worker).await.is_err() {
                worker.abort();
                late.push(target);
            }
        }
        late
    }
}

async fn deliver(target: &Target, notice: &Notice, endpoints: &Endpoints) -> Result<(), String> {
    match target {
        Target::File(path) => append(path, &notice.event(&Origin::local())).map_err(|error| error.to_string()),
        Target::Webhook(webhook) => webhook.post(notice).await,
        Target::Command(command) => run(command, &notice.event(&Origin::local()).to_string()).await,
        Target::Topic(arn) => {
            let origin = Origin::of_topic(arn);
            let region = Aws::connect(endpoints.clone()).await.region(&origin.region);
            // The longest subject that SNS takes has 100 characters.
            let subject: String = notice.to_string().chars().take(100).collect();
            let sent = region.notify(arn, &subject, &notice.event(&origin).to_string()).await;
            sent.map_err(|error| crate::host::one_line(&error))
        }
    }
}

/// In one write, so that lines of several processes do not mix. A pipe that nobody reads is an error and holds nobody up.
fn append(path: &std::path::Path, event: &serde_json::Value) -> std::io::Result<()> {
    use fs_err::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::NONBLOCK.bits();
    let mut options = fs_err::File::options();
    options.create(true).append(true).custom_flags(i32::try_from(flags).unwrap_or_default());
    let mut file = options.open(path)?;
    file.write_all(format!("{event}\n").as_bytes())
}

async fn run(command: &str, event: &str) -> Result<(), String> {
    let mut shell = tokio::process::Command::new("/bin/sh");
    shell.args(["-c", command]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = shell.spawn().map_err(|error| format!("it can't be started: {error}"))?;
    let stdin = child.stdin.take();
    let work = async {
        let write = async {
            if let Some(mut stdin) = stdin {
                // A command that does not care may close it early.
                let _closed = stdin.write_all(event.as_bytes()).await;
            }
        };
        tokio::join!(write, child.wait_with_output()).1
    };
    let Ok(ended) = tokio::time::timeout(COMMAND_TIME, work).await else {
        return Err(format!("it was ended after {} s", COMMAND_TIME.as_secs()));
    };
    let output = ended.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = &output.stderr[output.stderr.len().saturating_sub(COMPLAINT)..];
    let complaint = crate::machine::console::plain(String::from_utf8_lossy(complaint).trim());
    Err(format!("{}{}{complaint}", output.status, if complaint.is_empty() { "" } else { ": " }))
}

#[cfg(test)]
mod tests;
