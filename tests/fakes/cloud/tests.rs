//! The stand-in without a foreign client: requests written by hand, for what no library would send or show.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::http::Request;
use super::signature::{Claim, hash};
use super::{Cloud, Fault, Keys};

const ACCOUNT: &str = "111111111111";
const STS: &str = "Version=2011-06-15&Action=";

/// Sends a form, signed for a service. Returns the status and the body, or nothing if the connection was closed.
fn post(cloud: &Cloud, keys: &Keys, service: &str, form: &str) -> Option<(u16, String)> {
    let date = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    send(cloud, keys, service, form, &date)
}

fn send(cloud: &Cloud, keys: &Keys, service: &str, form: &str, date: &str) -> Option<(u16, String)> {
    let host = format!("127.0.0.1:{}", cloud.port);
    let kind = "application/x-www-form-urlencoded";
    let headers = [("content-type", kind), ("host", &host), ("x-amz-date", date)];
    let request = Request {
        method: "POST".to_owned(),
        path: "/".to_owned(),
        query: String::new(),
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        body: form.to_owned().into(),
    };
    let scope = format!("{}/{}/eu-west-1/{service}/aws4_request", keys.id, &date[..8]);
    let fields = format!("Credential={scope}, SignedHeaders=content-type;host;x-amz-date");
    let claim = Claim::of(&format!("AWS4-HMAC-SHA256 {fields}, Signature=0")).unwrap();
    let signature = claim.expected(&request, &keys.secret, &hash(form.as_bytes()));
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nX-Amz-Date: {date}\r\nContent-Length: {}\r\n\
         Authorization: AWS4-HMAC-SHA256 {fields}, Signature={signature}\r\nConnection: close\r\n\r\n",
        form.len()
    );
    let mut stream = TcpStream::connect(host).unwrap();
    stream.write_all((head + form).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.split("\r\n\r\n").nth(1)?.to_owned()))
}

fn code(answer: Option<(u16, String)>) -> String {
    let (_, body) = answer.unwrap();
    let code = body.split("<Code>").nth(1).and_then(|rest| rest.split("</Code>").next());
    code.map_or(body.clone(), str::to_owned)
}

#[test]
fn requests_are_taken_only_with_a_good_signature_of_now() {
    let cloud = Cloud::start();
    let keys = cloud.account(ACCOUNT);
    let form = format!("{STS}GetCallerIdentity");
    let (status, body) = post(&cloud, &keys, "sts", &form).unwrap();
    assert!(status == 200 && body.contains("<Account>111111111111</Account>"), "{body}");
    // The signature holds for the service that it names, and that has no such action.
    assert_eq!(code(post(&cloud, &keys, "ec2", &form)), "InvalidAction");
    assert_eq!(code(post(&cloud, &keys, "iam", &form)), "MissingAuthenticationToken");
    assert_eq!(code(send(&cloud, &keys, "sts", &form, "20150830T123600Z")), "SignatureDoesNotMatch");
    let forged = Keys { secret: "another".to_owned(), ..keys.clone() };
    assert_eq!(code(post(&cloud, &forged, "sts", &form)), "SignatureDoesNotMatch");
    assert_eq!(code(post(&cloud, &keys, "sts", &format!("{form}&Colour=red"))), "UnknownParameter");
    assert_eq!(code(post(&cloud, &keys, "sts", "Action=GetCallerIdentity")), "MissingParameter");
    assert_eq!(code(post(&cloud, &keys, "sts", &format!("{STS}Sing"))), "InvalidAction");
    let outcomes: Vec<String> = cloud.calls().into_iter().map(|call| call.outcome).collect();
    let expected = ["ok", "InvalidAction", "SignatureDoesNotMatch", "SignatureDoesNotMatch"];
    assert_eq!(outcomes[..4], expected);
}

#[test]
fn a_lost_answer_is_carried_out_and_a_stalled_call_is_seen_before_it_goes_on() {
    let cloud = Cloud::start();
    let keys = cloud.account(ACCOUNT);
    let form = "Version=2010-03-31&Action=CreateTopic&Name=";
    cloud.fail("CreateTopic", None, 1, Fault::LostAnswer);
    cloud.fail("CreateTopic", Some("eu-west-1"), 1, Fault::Stall(Duration::from_secs(1)));
    cloud.fail("CreateTopic", Some("elsewhere"), 1, Fault::Throttled);
    assert_eq!(post(&cloud, &keys, "sns", &format!("{form}lost")), None);
    cloud.wait_for("CreateTopic", 1);
    assert_eq!(cloud.calls()[0].outcome, "ok");
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let stalled = scope.spawn(|| post(&cloud, &keys, "sns", &format!("{form}stalled")));
        cloud.wait_for("CreateTopic", 2);
        assert_eq!(cloud.calls()[1].outcome, "stalled");
        assert_eq!(stalled.join().unwrap().unwrap().0, 200);
    });
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(cloud.calls()[1].outcome, "ok");
}

#[test]
fn nothing_is_left_of_it() {
    let cloud = Cloud::start();
    let (port, s3_port, folder) = (cloud.port, cloud.s3_port, cloud.world.folder.path().to_owned());
    assert!(folder.exists());
    drop(cloud);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err() && TcpStream::connect(("127.0.0.1", s3_port)).is_err());
    assert!(!folder.exists());
}

#[test]
#[should_panic(expected = "knows no action DescribeVolumes")]
fn a_fault_of_an_action_that_is_not_there_is_an_error_of_the_test() {
    Cloud::start().fail("DescribeVolumes", None, 1, Fault::Throttled);
}
