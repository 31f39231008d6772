use std::sync::Mutex;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;

use super::*;
use crate::store::manifest::State;

fn notice() -> Notice {
    let failure = FailureContext {
        image_status: "BUILDING".to_owned(),
        failed_step: Some("build".to_owned()),
        component_failure: Some(ComponentFailure {
            component_arn: "install-nginx".to_owned(),
            phase_name: "build".to_owned(),
            step_name: "Install".to_owned(),
            action: String::new(),
            error_message: "it ended with 1".to_owned(),
        }),
        distribution_failure: None,
    };
    let mut notice = Notice::of_state(StateChange {
        image: "My web/1.0.0/3".parse().unwrap(),
        from: State::Building,
        to: State::Failed,
        reason: Some("a step failed".to_owned()),
        failure: Some(failure),
    });
    notice.id = "00000000-0000-0000-0000-000000000001".to_owned();
    notice.time = "2026-11-26T10:00:00.123Z".parse().unwrap();
    notice
}

/// What was complained of, and a way to complain.
fn complaints() -> (Arc<Mutex<Vec<String>>>, Complaints) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = heard.clone();
    (heard, Arc::new(move |_: &Notice, why: String| hears.lock().unwrap().push(why)))
}

/// Delivers notices to a target. Returns what was complained of.
async fn delivered(target: Target, notices: Vec<Notice>) -> Vec<String> {
    let (heard, complaints) = complaints();
    let notifier = Notifier::start(vec![target], &Endpoints::default(), &complaints);
    notices.into_iter().for_each(|notice| notifier.mouth().tell(notice));
    assert_eq!(notifier.finish().await, []);
    Arc::try_unwrap(heard).map_or_else(|heard| heard.lock().unwrap().clone(), |heard| heard.into_inner().unwrap())
}

/// A request that a server got: its headers and body.
type Got = (hyper::HeaderMap, String);

/// A real server on the loopback, which answers with these codes in turn, the last for ever.
async fn server(codes: Vec<u16>) -> (String, Arc<Mutex<Vec<Got>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/hook?token=secret", listener.local_addr().unwrap());
    let got = Arc::new(Mutex::new(Vec::<Got>::new()));
    let keeps = got.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (keeps, codes) = (keeps.clone(), codes.clone());
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let (keeps, codes) = (keeps.clone(), codes.clone());
                async move {
                    let headers = request.headers().clone();
                    let body = request.into_body().collect().await?.to_bytes();
                    let mut keeps = keeps.lock().unwrap();
                    let code = codes[keeps.len().min(codes.len() - 1)];
                    keeps.push((headers, String::from_utf8_lossy(&body).into_owned()));
                    let mut response = Response::new(Full::new(Bytes::new()));
                    *response.status_mut() = StatusCode::from_u16(code).unwrap();
                    Ok::<_, hyper::Error>(response)
                }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, got)
}

#[test]
fn an_event_has_the_shape_of_event_bridges() {
    let event = notice().event(&Origin::local());
    let expected = serde_json::json!({
        "version": "0",
        "id": "00000000-0000-0000-0000-000000000001",
        "detail-type": "EC2 Image Builder Image State Change",
        "source": "aws.imagebuilder",
        "account": "000000000000",
        "time": "2026-11-26T10:00:00Z",
        "region": "local",
        "resources": ["arn:aws:imagebuilder:local:000000000000:image/my-web/1.0.0/3"],
        "detail": {
            "previous-state": { "status": "BUILDING" },
            "state": { "status": "FAILED", "reason": "a step failed" },
            "failureContext": {
                "imageStatus": "BUILDING",
                "failedStep": "build",
                "componentFailure": {
                    "componentArn": "install-nginx",
                    "phaseName": "build",
                    "stepName": "Install",
                    "errorMessage": "it ended with 1"
                }
            }
        }
    });
    assert_eq!(event, expected);
    let disabled = Notice::of_disabled_pipeline("My pipeline", 5);
    let event = disabled.event(&Origin::of_topic("arn:aws-cn:sns:cn-north-1:111111111111:images"));
    assert_eq!(event["detail"]["consecutive-failures"], "5");
    assert_eq!(event["resources"][0], "arn:aws-cn:imagebuilder:cn-north-1:111111111111:image-pipeline/my-pipeline");
}

#[test]
fn targets_as_they_are_written() {
    let target = |text: &str| text.parse::<Target>();
    assert_eq!(target("events.jsonl"), Ok(Target::File("events.jsonl".into())));
    assert_eq!(target("cmd:jq ."), Ok(Target::Command("jq .".to_owned())));
    let topic = "arn:aws:sns:eu-west-1:111111111111:images";
    assert_eq!(target(topic), Ok(Target::Topic(topic.to_owned())));
    assert_eq!(
        target("https://user:pass@example.com:8443/x?y").unwrap().to_string(),
        "the webhook at example.com:8443"
    );
    for bad in ["", "cmd:", "cmd: ", "arn:aws:sqs:eu-west-1:111111111111:queue", "ftp://example.com", "https://"] {
        assert!(target(bad).is_err(), "{bad}");
    }
}

#[tokio::test]
async fn a_webhook_is_asked_again_with_the_same_id_and_a_good_signature() {
    use base64::Engine;
    use hmac::{Hmac, KeyInit, Mac};
    let (address, got) = server(vec![503, 429, 204]).await;
    let webhook = Webhook::signed(&address, Some("secret")).unwrap();
    assert_eq!(delivered(Target::Webhook(webhook), vec![notice()]).await, Vec::<String>::new());
    let got = got.lock().unwrap();
    assert_eq!(got.len(), 3);
    for (headers, body) in got.iter() {
        let header = |name: &str| headers[name].to_str().unwrap();
        assert_eq!(header("webhook-id"), notice().id);
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"secret").unwrap();
        mac.update(format!("{}.{}.{body}", notice().id, header("webhook-timestamp")).as_bytes());
        let encoded = header("webhook-signature").strip_prefix("v1,").unwrap();
        mac.verify_slice(&base64::engine::general_purpose::STANDARD.decode(encoded).unwrap()).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap(), notice().event(&Origin::local()));
    }
}

#[tokio::test]
async fn what_is_refused_is_said_once_and_without_the_address_secrets() {
    let (address, got) = server(vec![403]).await;
    let webhook = Webhook::signed(&address, None).unwrap();
    let host = webhook.host();
    let said = delivered(Target::Webhook(webhook), vec![notice()]).await;
    assert_eq!(
        said,
        [format!("the webhook at {host} could not be told of My web/1.0.0/3 is FAILED: it answered 403 Forbidden")]
    );
    let got = got.lock().unwrap().clone();
    assert_eq!((got.len(), got[0].0.contains_key("webhook-signature")), (1, false));
    // Nobody is there.
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let said = delivered(format!("http://{gone}/?token=secret").parse().unwrap(), vec![notice()]).await;
    assert!(said.len() == 1 && !said[0].contains("secret"), "{said:?}");
}

#[tokio::test]
async fn files_get_a_line_and_commands_their_input_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (file, copy) = (folder.path().join("events.jsonl"), folder.path().join("copy"));
    let numbered = |number: i32| {
        let mut notice = notice();
        notice.id = number.to_string();
        notice
    };
    let notices: Vec<Notice> = (0..20).map(numbered).collect();
    assert_eq!(delivered(Target::File(file.clone()), notices.clone()).await, Vec::<String>::new());
    let command = format!("cat >> {0}; echo >> {0}", copy.display());
    assert_eq!(delivered(Target::Command(command), notices).await, Vec::<String>::new());
    for path in [&file, &copy] {
        let lines = fs_err::read_to_string(path).unwrap();
        let ids: Vec<String> = lines
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(ids, (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
    }
    let said = delivered(Target::Command("echo no room >&2; exit 3".to_owned()), vec![notice()]).await;
    assert!(said[0].ends_with("exit status: 3: no room"), "{said:?}");
    let said = delivered(Target::File(folder.path().join("none/events")), vec![notice()]).await;
    assert_eq!(said.len(), 1);
    // A pipe that nobody reads.
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let said = delivered(Target::File(pipe), vec![notice(), notice()]).await;
    assert_eq!(said.len(), 2, "{said:?}");
}

#[test]
fn a_target_that_is_none_is_told_without_its_password() {
    let refused = "ftp://me:hunter2@example.org/x".parse::<Target>().unwrap_err();
    assert!(refused.starts_with("`ftp://***@example.org/x` can't be told"), "{refused}");
}
