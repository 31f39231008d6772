//! Who is told what becomes of a pipeline's images.

use std::path::Path;
use std::sync::Arc;

use goldsmith_aws::Endpoints;
use serde::{Deserialize, Serialize};

use crate::document::pipeline::EventTarget;
use crate::document::secret::SecretSource;
use crate::factory;
use crate::notify::{Notice, Notifier, Target, Webhook};

/// Somebody to tell, as a run remembers it until it is worked on. No secret is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// In the form of `--events`.
    to: String,
    /// Where the secret comes from that a webhook's events are signed with, in the form of `--secret`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

impl Told {
    /// Whom a document names; its files are relative to `folder`.
    pub(super) fn new(target: &EventTarget, folder: &Path) -> Result<Self, String> {
        let (to, secret) = match target {
            EventTarget::Webhook { url, secret } => (url.clone(), secret.as_ref()),
            EventTarget::Command(command) => (format!("cmd:{command}"), None),
            EventTarget::Topic(arn) => (arn.clone(), None),
            EventTarget::File(path) => (format!("file:{}", folder.join(path).display()), None),
        };
        // What is wrong is found when the document is read, and not when there is something to tell. A topic that is none must
        // not come to be a command.
        let parsed: Target = to.parse()?;
        if matches!(target, EventTarget::Topic(_)) && !matches!(parsed, Target::Topic(_)) {
            return Err(format!("`{to}` is no ARN of an SNS topic"));
        }
        let secret = secret.map(|secret| match secret {
            SecretSource::File(path) => SecretSource::File(folder.join(path)).to_string(),
            other => other.to_string(),
        });
        Ok(Self { to, secret })
    }

    async fn target(&self) -> Result<Target, String> {
        let Some(secret) = &self.secret else { return self.to.parse() };
        let said = |why: String| format!("the secret of the webhook can't be had from {secret}: {why}");
        let value = factory::secret_value(&secret.parse::<SecretSource>()?).await.map_err(said)?;
        Webhook::signed(&self.to, Some(&value)).map(Target::Webhook)
    }
}

/// Those whom a run's documents name, and why others of them can't be told, which fails nothing.
pub async fn targets(told: &[Told]) -> (Vec<Target>, Vec<String>) {
    let (mut targets, mut problems) = (Vec::new(), Vec::new());
    for one in told {
        match one.target().await {
            Ok(target) => targets.push(target),
            Err(why) => problems.push(why),
        }
    }
    (targets, problems)
}

/// Tells of one thing, and waits until it is told or given up.
pub(super) async fn tell(
    told: Vec<Told>,
    notice: Notice,
    endpoints: Endpoints,
    complain: impl Fn(String) + Send + Sync + 'static,
) {
    let (targets, problems) = targets(&told).await;
    problems.into_iter().for_each(&complain);
    let complain = Arc::new(complain);
    let of_delivery = complain.clone();
    let notifier = Notifier::start(targets, &endpoints, &(Arc::new(move |_: &Notice, why| of_delivery(why)) as _));
    notifier.mouth().tell(notice);
    for target in notifier.finish().await {
        complain(format!("{target} has not taken all that it was to be told"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whom_documents_name_is_told_and_secrets_stay_where_they_are() {
        let folder = tempfile::tempdir().unwrap();
        fs_err::write(folder.path().join("key"), "whsec_c2VjcmV0\n").unwrap();
        let webhook = EventTarget::Webhook {
            url: "https://hooks.example/x".to_owned(),
            secret: Some(SecretSource::File("key".into())),
        };
        let file = EventTarget::File("events.jsonl".to_owned());
        let told: Vec<Told> = [&webhook, &file].map(|target| Told::new(target, folder.path()).unwrap()).into();
        let kept = serde_json::to_string(&told).unwrap();
        assert!(!kept.contains("c2VjcmV0"), "{kept}");
        let told: Vec<Told> = serde_json::from_str(&kept).unwrap();
        let (targets, problems) = targets(&told).await;
        let signed = Webhook::signed("https://hooks.example/x", Some("whsec_c2VjcmV0")).unwrap();
        assert_eq!(targets, [Target::Webhook(signed), Target::File(folder.path().join("events.jsonl"))]);
        assert_eq!(problems, Vec::<String>::new());
        // One that can't be told takes nothing from the others, and what is told is a line of the file.
        fs_err::remove_file(folder.path().join("key")).unwrap();
        let complaints = Arc::new(std::sync::Mutex::new(Vec::new()));
        let heard = complaints.clone();
        let notice = Notice::of_disabled_pipeline("nightly", 3);
        tell(told, notice, Endpoints::default(), move |why| heard.lock().unwrap().push(why)).await;
        let complaints = complaints.lock().unwrap();
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        assert!(complaints[0].starts_with("the secret of the webhook can't be had from file:"), "{complaints:?}");
        let event = fs_err::read_to_string(folder.path().join("events.jsonl")).unwrap();
        assert!(event.contains("nightly") && event.ends_with('\n'), "{event}");
    }

    #[test]
    fn what_is_nobody_is_found_when_the_document_is_read() {
        for topic in ["arn:aws:s3:::bucket", "cmd:touch /tmp/x", "x.jsonl", "https://hooks.example/x"] {
            let error = Told::new(&EventTarget::Topic(topic.to_owned()), Path::new("/")).unwrap_err();
            assert!(error.contains("ARN of an SNS topic"), "{error}");
        }
    }
}
