//! Webhooks: events by POST, signed, and tried again.
//!
//! Source: the "Standard Webhooks" specification: headers `webhook-id`, `webhook-timestamp` and `webhook-signature`, the last
//! `v1,` and the Base64 of HMAC-SHA256 over `ID.TIMESTAMP.BODY`. A repeated request has the same id.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::Sha256;

use super::{Notice, Origin};
use crate::host::address::Address;

/// The variable of the environment that holds the secret to sign with: `whsec_` and Base64, or any text.
pub const SECRET_VARIABLE: &str = "GOLDSMITH_WEBHOOK_SECRET";

/// How long an answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// How long is waited before the second try; twice as long before each next.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// How often is tried again.
const RETRIES: usize = 5;

/// An address, and how requests to it are signed.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    url: reqwest::Url,
    secret: Option<Vec<u8>>,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("host", &self.host()).finish_non_exhaustive()
    }
}

/// Why a request was not taken.
struct Refusal {
    why: String,
    /// Whether another try may end otherwise.
    is_passing: bool,
}

impl Webhook {
    /// An address; requests are signed if the environment holds a secret.
    pub fn new(url: &str) -> Result<Self, String> {
        let secret = std::env::var(SECRET_VARIABLE).ok().filter(|secret| !secret.is_empty());
        Self::signed(url, secret.as_deref())
    }

    /// An address, and the secret that its requests are signed with.
    pub fn signed(url: &str, secret: Option<&str>) -> Result<Self, String> {
        let shown = Address::new(url);
        let url = reqwest::Url::parse(url).map_err(|error| format!("`{shown}` is no address: {error}"))?;
        let secret = match secret.map(|secret| (secret, secret.strip_prefix("whsec_"))) {
            None => None,
            Some((_, Some(encoded))) => {
                let decoded = STANDARD.decode(encoded);
                Some(decoded.map_err(|_| format!("{SECRET_VARIABLE} begins with whsec_ and is not Base64"))?)
            }
            Some((text, None)) => Some(text.as_bytes().to_vec()),
        };
        Ok(Self { url, secret })
    }

    /// The host, which may be shown.
    pub fn host(&self) -> String {
        let port = self.url.port().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}{port}", self.url.host_str().unwrap_or_default())
    }

    /// Sends a notice until it is taken.
    pub(super) async fn post(&self, notice: &Notice) -> Result<(), String> {
        let client = reqwest::Client::builder()
            .timeout(ANSWER_TIME)
            // Where an event is sent to, its sender says and nobody else.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("goldsmith/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| crate::host::one_line(&error.without_url()))?;
        let body = notice.event(&Origin::local()).to_string();
        let pauses = ExponentialBuilder::default().with_min_delay(FIRST_PAUSE).with_max_times(RETRIES);
        let sent = (|| self.try_post(&client, &notice.id, &body)).retry(pauses).when(|refusal| refusal.is_passing);
        sent.await.map_err(|refusal| refusal.why)
    }

    async fn try_post(&self, client: &reqwest::Client, id: &str, body: &str) -> Result<(), Refusal> {
        let time = Timestamp::now().as_second();
        let mut request = client.post(self.url.clone()).header("content-type", "application/json");
        request = request.header("webhook-id", id).header("webhook-timestamp", time);
        if let Some(secret) = &self.secret {
            request = request.header("webhook-signature", signature(secret, id, time, body));
        }
        let answer = request.body(body.to_owned()).send().await;
        let answer =
            answer.map_err(|error| Refusal { why: crate::host::one_line(&error.without_url()), is_passing: true })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let is_passing = status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429);
        Err(Refusal { why: format!("it answered {status}"), is_passing })
    }
}

/// The value of `webhook-signature`.
fn signature(secret: &[u8], id: &str, time: i64, body: &str) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return String::new() };
    mac.update(format!("{id}.{time}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_the_specifications_own() {
        // The example of the specification.
        let webhook = Webhook::signed("https://example.com/x?token=1", Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
        let webhook = webhook.unwrap();
        let (id, time, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(signature(&webhook.secret.clone().unwrap(), id, time, body), expected);
        // What may be secret is not shown.
        assert_eq!((webhook.host().as_str(), format!("{webhook:?}").contains("token")), ("example.com", false));
    }
}
