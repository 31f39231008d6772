//! The listener of all services but S3: reads a request, finds out who sent it to which service, and answers.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use tokio::net::TcpListener;

use super::answer::{Outcome, Refusal, Xml, refuse};
use super::fault::{Call, Fault};
use super::query::Query;
use super::signature::{Claim, UNSIGNED, hash};
use super::world::{Caller, World};
use super::{ebs, ec2, sns, ssm, sts};

/// The largest body of any request, with room to say politely that a block is too large.
const BODY: usize = 2 << 20;
/// How far the clocks may be apart.
const SKEW: SignedDuration = SignedDuration::from_mins(15);

/// A service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    Ec2,
    Ebs,
    Ssm,
    Sns,
    Sts,
    S3,
}

/// A request, read to its end. Names of headers are in lower case.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
}

/// What is sent back.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
}

impl Request {
    /// A header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl Service {
    /// By its name in the scope of signatures.
    fn of(name: &str) -> Option<Self> {
        let all = [Self::Ec2, Self::Ebs, Self::Ssm, Self::Sns, Self::Sts];
        all.into_iter().find(|service| service.name() == name)
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ec2 => "ec2",
            Self::Ebs => "ebs",
            Self::Ssm => "ssm",
            Self::Sns => "sns",
            Self::Sts => "sts",
            Self::S3 => "s3",
        }
    }

    /// What it says to a key that it does not know, or a token that does not belong to it.
    fn unknown_key(self) -> Refusal {
        let message = "The security token included in the request is invalid.";
        match self {
            Self::Ec2 => {
                let message = "AWS was not able to validate the provided access credentials";
                Refusal::new("AuthFailure", message).status(401)
            }
            Self::Sns | Self::Sts | Self::S3 => Refusal::new("InvalidClientTokenId", message).status(403),
            Self::Ssm => Refusal::new("UnrecognizedClientException", message),
            Self::Ebs => Refusal::new("UnrecognizedClientException", message).status(403),
        }
    }

    /// What it says to a signature that is not good.
    fn wrong_signature(self, why: &str) -> Refusal {
        let message = format!(
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
             Access Key and signing method. ({why})"
        );
        match self {
            Self::Ssm | Self::Ebs => Refusal::new("InvalidSignatureException", message).status(403),
            _ => Refusal::new("SignatureDoesNotMatch", message).status(403),
        }
    }

    /// What it says to keys whose time is over.
    fn expired(self) -> Refusal {
        let code = match self {
            Self::Ec2 => "RequestExpired",
            Self::Sns | Self::Sts | Self::S3 => "ExpiredToken",
            Self::Ssm | Self::Ebs => "ExpiredTokenException",
        };
        Refusal::new(code, "The security token included in the request is expired").status(403)
    }

    /// What it says when there are too many requests.
    fn throttled(self) -> Refusal {
        match self {
            Self::Ec2 => Refusal::new("RequestLimitExceeded", "Request limit exceeded.").status(503),
            Self::Ebs => Refusal::new("RequestThrottledException", "Rate exceeded").because("ACCOUNT_THROTTLED"),
            Self::Ssm => Refusal::new("ThrottlingException", "Rate exceeded"),
            Self::Sns | Self::Sts | Self::S3 => Refusal::new("Throttling", "Rate exceeded"),
        }
    }

    /// What it says when it is not there.
    fn unavailable(self) -> Refusal {
        let message = "The service is unavailable. Please try again shortly.";
        match self {
            Self::Ec2 => Refusal::new("Unavailable", message).status(503),
            Self::Ebs => Refusal::new("InternalServerException", message).status(500),
            Self::Ssm => Refusal::new("InternalServerError", message).status(500),
            Self::Sns | Self::Sts | Self::S3 => Refusal::new("ServiceUnavailable", message).status(503),
        }
    }

    /// The action that a request is about.
    fn action(self, request: &Request) -> Outcome<String> {
        match self {
            Self::Ec2 | Self::Sns | Self::Sts | Self::S3 => {
                let is_form = |kind: &str| kind.starts_with("application/x-www-form-urlencoded");
                if request.method != "POST" || request.path != "/" || !request.query.is_empty() {
                    return refuse("InvalidAction", "The stand-in takes actions as forms that are posted to /");
                }
                if !request.header("content-type").is_some_and(is_form) {
                    return refuse("InvalidAction", "The body is no form");
                }
                let query = Query::parse(&request.body)?;
                query.maybe("Action").ok_or_else(|| Refusal::new("MissingAction", "The request names no action"))
            }
            Self::Ssm => ssm::action(request),
            Self::Ebs => ebs::action(request).map(str::to_owned),
        }
    }

    /// What an error looks like.
    fn error(self, refusal: &Refusal) -> Answer {
        let mut xml = Xml::default();
        let id = uuid::Uuid::new_v4();
        let said = |xml: &mut Xml| {
            xml.text("Code", &refusal.code).text("Message", &refusal.message);
        };
        match self {
            Self::Ssm => {
                let body = serde_json::json!({ "__type": refusal.code, "message": refusal.message });
                return Answer::json(refusal.status, &body);
            }
            Self::Ebs => {
                let mut body = serde_json::json!({ "Message": refusal.message });
                if let Some(reason) = refusal.reason {
                    body["Reason"] = reason.into();
                }
                let mut answer = Answer::json(refusal.status, &body);
                answer.headers.push(("x-amzn-errortype", refusal.code.clone()));
                return answer;
            }
            Self::Ec2 => xml.within("Response", |xml| {
                xml.within("Errors", |xml| {
                    xml.within("Error", said);
                });
                xml.text("RequestID", id);
            }),
            Self::Sns | Self::Sts | Self::S3 => xml.within("ErrorResponse", |xml| {
                xml.within("Error", |xml| {
                    xml.text("Type", if refusal.status < 500 { "Sender" } else { "Receiver" });
                    said(xml);
                });
                xml.text("RequestId", id);
            }),
        };
        Answer::xml(refusal.status, xml)
    }
}

impl Answer {
    /// An answer in XML.
    pub(super) fn xml(status: u16, xml: Xml) -> Self {
        let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{}", xml.into_string()).into_bytes();
        Self { status, headers: vec![("content-type", "text/xml;charset=UTF-8".to_owned())], body }
    }

    /// An answer in JSON.
    pub(super) fn json(status: u16, body: &serde_json::Value) -> Self {
        let headers = vec![("content-type", "application/x-amz-json-1.1".to_owned())];
        Self { status, headers, body: body.to_string().into_bytes() }
    }
}

/// Answers until the listener is dropped.
pub(super) async fn serve(listener: TcpListener, world: Arc<World>) {
    while let Ok((stream, _)) = listener.accept().await {
        let world = world.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| answer(world.clone(), request));
            // A client that goes away, and an answer that a test wants to be lost, end the connection.
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            let _ended = connection.await;
        });
    }
}

async fn answer(
    world: Arc<World>,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Full<Bytes>>, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return Err(std::io::Error::other(error)),
    };
    let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let request = Request {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect(),
        body,
    };
    // On a thread of its own, so that it is carried out even if the client goes.
    let answered = tokio::task::spawn_blocking(move || carry_out(&world, &request)).await;
    let answer = answered.map_err(std::io::Error::other)?;
    let answer = answer.ok_or_else(|| std::io::Error::other("the test wants this answer to be lost"))?;
    let mut response = hyper::Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    response = response.header("x-amzn-requestid", uuid::Uuid::new_v4().to_string());
    response.body(Full::new(Bytes::from(answer.body))).map_err(std::io::Error::other)
}

/// Answers a request, or nothing where the answer is to be lost.
fn carry_out(world: &Arc<World>, request: &Request) -> Option<Answer> {
    let claim = request.header("authorization").and_then(Claim::of);
    let service = claim.as_ref().and_then(|claim| Service::of(&claim.service));
    let (Some(claim), Some(service)) = (claim, service) else {
        let message = "The request has no signature, or one for a service that is not here";
        return Some(Service::Sts.error(&Refusal::new("MissingAuthenticationToken", message).status(403)));
    };
    let mut call = Call {
        service: service.name(),
        action: String::new(),
        account: String::new(),
        region: claim.region.clone(),
        outcome: String::new(),
    };
    let begun = authenticate(world, service, &claim, request).and_then(|caller| {
        call.account.clone_from(&caller.account);
        call.action = service.action(request)?;
        Ok(caller)
    });
    let caller = match begun {
        Ok(caller) => caller,
        Err(refusal) => {
            call.outcome.clone_from(&refusal.code);
            world.ledger.record(call);
            return Some(service.error(&refusal));
        }
    };
    let fault = world.ledger.meet(&call.action, &call.region);
    let stalled = if let Some(Fault::Stall(time)) = fault {
        let place = world.ledger.record(Call { outcome: "stalled".to_owned(), ..call.clone() });
        std::thread::sleep(time);
        Some(place)
    } else {
        None
    };
    let outcome = match fault {
        Some(Fault::Throttled) => Err(service.throttled()),
        Some(Fault::Unavailable) => Err(service.unavailable()),
        Some(Fault::Refused(code)) => refuse(code, "The test wants it so"),
        Some(Fault::Task(message)) => run(world, &caller, request, &call.action, Some(message)),
        _ => run(world, &caller, request, &call.action, None),
    };
    call.outcome = outcome.as_ref().err().map_or_else(|| "ok".to_owned(), |refusal| refusal.code.clone());
    match stalled {
        Some(place) => world.ledger.ended(place, &call.outcome),
        None => _ = world.ledger.record(call),
    }
    let is_lost = matches!(fault, Some(Fault::LostAnswer));
    (!is_lost).then(|| outcome.unwrap_or_else(|refusal| service.error(&refusal)))
}

fn run(
    world: &Arc<World>,
    caller: &Caller,
    request: &Request,
    action: &str,
    ends_badly: Option<&'static str>,
) -> Outcome<Answer> {
    match caller.service {
        Service::Ec2 => ec2::run(world, caller, &request.body, ends_badly),
        Service::Ebs => ebs::run(world, caller, request, action),
        Service::Ssm => ssm::run(world, caller, request, action),
        Service::Sns => sns::run(world, caller, &request.body),
        Service::Sts | Service::S3 => sts::run(world, caller, &request.body),
    }
}

/// Finds out who has sent a request, and whether it was really them.
fn authenticate(world: &World, service: Service, claim: &Claim, request: &Request) -> Outcome<Caller> {
    let key = world.state.lock().unwrap().keys.get(&claim.key).cloned();
    let Some(key) = key else { return Err(service.unknown_key()) };
    if key.session.as_ref().map(|(token, _)| token.as_str()) != request.header("x-amz-security-token") {
        return Err(service.unknown_key());
    }
    if let Some(name) = claim.unsigned_header(request.headers.iter().map(|(name, _)| name.as_str())) {
        return Err(service.wrong_signature(&format!("the header {name} is not signed")));
    }
    let date = request.header("x-amz-date").unwrap_or_default();
    let sent = jiff::fmt::strtime::parse("%Y%m%dT%H%M%SZ", date).and_then(|time| time.to_datetime());
    let sent = sent.and_then(|time| jiff::tz::TimeZone::UTC.to_timestamp(time));
    let is_now = |sent: Timestamp| sent.duration_since(Timestamp::now()).abs() < SKEW;
    if !date.starts_with(&claim.date) || !sent.is_ok_and(is_now) {
        return Err(service.wrong_signature(&format!("the date {date} is not now, or not that of the scope")));
    }
    let is_good = |body_hash: &str| claim.expected(request, &key.secret, body_hash) == claim.signature;
    let real = hash(&request.body);
    // Blocks are large, and their digest is signed as a header.
    let may_be_unsigned = service == Service::Ebs && request.method == "PUT";
    let is_signed = match request.header("x-amz-content-sha256") {
        Some(UNSIGNED) if may_be_unsigned => is_good(UNSIGNED),
        Some(said) if said != real => return Err(service.wrong_signature("the body has another hash than is said")),
        Some(_) => is_good(&real),
        None => is_good(&real) || may_be_unsigned && is_good(UNSIGNED),
    };
    if !is_signed {
        return Err(service.wrong_signature("the signatures differ"));
    }
    if key.session.as_ref().is_some_and(|(_, end)| *end < Timestamp::now()) {
        return Err(service.expired());
    }
    Ok(world.state.lock().unwrap().caller(service, &key, &claim.region))
}
