//! S3: `s3s` reads requests and signatures, `s3s-fs` keeps objects as plain files, and what AWS is strict about beyond
//! that is here: whose a bucket is and in which region, policies, parts that are not what was uploaded.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::crypto::{Checksum, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256};
use s3s::dto::{CompleteMultipartUploadInput, CreateBucketInput, PutObjectInput, StreamingBlob, UploadPartInput};
use s3s::path::S3Path;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpResponse, S3Error, S3ErrorCode, S3Request, S3Result, s3_error};
use s3s_fs::FileSystem;
use tokio::net::TcpListener;

use super::fault::{Call, Fault};
use super::http::Service;
use super::policy::Need;
use super::signature::{Claim, UNSIGNED, decode};
use super::world::{Bucket, Caller, World};

/// The actions that are here.
pub(super) const ACTIONS: &[&str] = &[
    "CreateBucket",
    "DeleteBucket",
    "HeadBucket",
    "GetBucketLocation",
    "ListBuckets",
    "ListObjects",
    "ListObjectsV2",
    "PutObject",
    "GetObject",
    "HeadObject",
    "DeleteObject",
    "DeleteObjects",
    "CopyObject",
    "CreateMultipartUpload",
    "UploadPart",
    "UploadPartCopy",
    "ListParts",
    "CompleteMultipartUpload",
    "AbortMultipartUpload",
];

/// What is found out about a request on its way through.
#[derive(Debug, Default)]
struct Note {
    action: String,
    account: String,
    region: String,
    bucket: String,
    /// The region of the bucket.
    home: Option<String>,
    is_lost: bool,
    stalled: Option<usize>,
}

type Shared = Arc<Mutex<Note>>;

/// Answers until the listener is dropped.
pub(super) async fn serve(listener: TcpListener, world: Arc<World>) {
    let mut builder = S3ServiceBuilder::new(FileSystem::new(world.s3()).unwrap());
    builder.set_auth(Keys(world.clone()));
    builder.set_access(Gate(world.clone()));
    let service = builder.build();
    while let Ok((stream, _)) = listener.accept().await {
        let (service, world) = (service.clone(), world.clone());
        tokio::spawn(async move {
            // Whatever was begun is done to its end, even if the client goes away meanwhile.
            let answer = hyper::service::service_fn(move |request| {
                let answered = tokio::spawn(answer(service.clone(), world.clone(), request));
                async { answered.await.map_err(std::io::Error::other)? }
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
            let _ended = connection.await;
        });
    }
}

async fn answer(
    service: S3Service,
    world: Arc<World>,
    request: hyper::Request<Incoming>,
) -> Result<HttpResponse, std::io::Error> {
    let shared = Shared::default();
    let (mut head, body) = request.into_parts();
    head.extensions.insert(shared.clone());
    let rest = Rest(Arc::new(Mutex::new(body)));
    let request = hyper::Request::from_parts(head, Body::http_body_unsync(rest.clone()));
    let response = service.call(request).await.map_err(std::io::Error::other)?;
    if !response.status().is_success() {
        // A client that still sends would take a connection that is closed for the answer.
        let _gone = rest.collect().await;
    }
    let note = std::mem::take(&mut *shared.lock().unwrap());
    let (mut head, body) = response.into_parts();
    // Whatever is large goes through; all else is made to its end, so that its outcome is known.
    let (body, outcome) = if note.action == "GetObject" && head.status.is_success() {
        (body, "ok".to_owned())
    } else {
        let bytes = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
        let text = String::from_utf8_lossy(&bytes);
        let code = text.split("<Code>").nth(1).and_then(|rest| rest.split("</Code>").next());
        let is_good = head.status.is_success() && code.is_none();
        let otherwise = || code.map_or_else(|| head.status.as_u16().to_string(), str::to_owned);
        let outcome = if is_good { "ok".to_owned() } else { otherwise() };
        (Body::from(bytes), outcome)
    };
    if outcome == "ok" {
        note.keep(&world);
    }
    let body = match &note.home {
        // `s3s-fs` knows no regions.
        Some(home) if note.action == "GetBucketLocation" && outcome == "ok" => {
            head.headers.remove("content-length");
            Body::from(location(home))
        }
        _ => body,
    };
    if let Some(home) = note.home.as_ref().and_then(|home| home.parse().ok()) {
        head.headers.insert("x-amz-bucket-region", home);
    }
    let is_lost = note.is_lost;
    match note.stalled {
        Some(place) => world.ledger.ended(place, &outcome),
        None => _ = world.ledger.record(note.into_call(outcome)),
    }
    if is_lost {
        return Err(std::io::Error::other("the test wants this answer to be lost"));
    }
    Ok(HttpResponse::from_parts(head, body))
}

/// The body of a request, of which something may be left when it is answered.
#[derive(Clone)]
struct Rest(Arc<Mutex<Incoming>>);

impl hyper::body::Body for Rest {
    type Data = bytes::Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<bytes::Bytes>, hyper::Error>>> {
        std::pin::Pin::new(&mut *self.0.lock().unwrap()).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().unwrap().is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.0.lock().unwrap().size_hint()
    }
}

fn location(home: &str) -> String {
    // The oldest region has no name here.
    let home = if home == "us-east-1" { "" } else { home };
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<LocationConstraint \
         xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{home}</LocationConstraint>"
    )
}

impl Note {
    /// Remembers buckets that were made and forgets those that were deleted.
    fn keep(&self, world: &World) {
        let buckets = &mut world.state.lock().unwrap().buckets;
        match &*self.action {
            "CreateBucket" => {
                let bucket = Bucket { account: self.account.clone(), region: self.region.clone() };
                buckets.insert(self.bucket.clone(), bucket);
            }
            "DeleteBucket" => _ = buckets.remove(&self.bucket),
            _ => {}
        }
    }

    fn into_call(self, outcome: String) -> Call {
        Call { service: "s3", action: self.action, account: self.account, region: self.region, outcome }
    }
}

/// The keys that `s3s` checks signatures with.
struct Keys(Arc<World>);

#[async_trait::async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let state = self.0.state.lock().unwrap();
        let key = state.keys.get(access_key).ok_or_else(|| s3_error!(InvalidAccessKeyId))?;
        Ok(SecretKey::from(key.secret.clone()))
    }
}

/// Decides who may do what, once a signature was found good.
struct Gate(Arc<World>);

#[async_trait::async_trait]
impl S3Access for Gate {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let action = cx.s3_op().name().to_owned();
        let (bucket, key) = match cx.s3_path() {
            S3Path::Root => (String::new(), String::new()),
            S3Path::Bucket { bucket } => (bucket.to_string(), String::new()),
            S3Path::Object { bucket, key } => (bucket.to_string(), key.to_string()),
        };
        let caller = self.caller(cx)?;
        let shared = cx.extensions_mut().get::<Shared>().cloned().unwrap_or_default();
        let home = self.0.state.lock().unwrap().buckets.get(&bucket).cloned();
        *shared.lock().unwrap() = Note {
            action: action.clone(),
            account: caller.account.clone(),
            region: caller.region.clone(),
            bucket: bucket.clone(),
            home: home.as_ref().map(|home| home.region.clone()),
            ..Note::default()
        };
        may(&caller, &action, &bucket, &key, cx)?;
        refuse_forgotten(cx.headers())?;
        let is_unsigned = cx.headers().get("x-amz-content-sha256").is_some_and(|said| said == UNSIGNED);
        if is_unsigned && matches!(*cx.method(), hyper::Method::PUT | hyper::Method::POST) {
            return Err(s3_error!(SignatureDoesNotMatch, "The body is not signed"));
        }
        if !bucket.is_empty() && action != "CreateBucket" {
            let home = home.ok_or_else(|| s3_error!(NoSuchBucket, "The specified bucket does not exist"))?;
            // Buckets have no policies here, so only their owner gets in.
            let expected = cx.headers().get("x-amz-expected-bucket-owner");
            if home.account != caller.account || expected.is_some_and(|expected| *expected != *home.account) {
                return Err(s3_error!(AccessDenied, "Access Denied"));
            }
            if home.region != caller.region && action != "GetBucketLocation" {
                return Err(wrong_region(&caller.region, &home.region));
            }
        }
        self.meet_fault(&action, &caller, &shared).await
    }

    async fn create_bucket(&self, request: &mut S3Request<CreateBucketInput>) -> S3Result<()> {
        let configuration = request.input.create_bucket_configuration.as_ref();
        let wanted = configuration.and_then(|configuration| configuration.location_constraint.as_ref());
        let wanted = wanted.map_or("us-east-1", |wanted| wanted.as_str());
        let region = request.region.as_ref().map(|region| region.as_str().to_owned()).unwrap_or_default();
        if wanted != region {
            let code = S3ErrorCode::Custom("IllegalLocationConstraintException".into());
            let message = format!("The location constraint {wanted} is incompatible with the region {region}");
            return Err(error(code, message, 400));
        }
        Ok(())
    }

    async fn put_object(&self, request: &mut S3Request<PutObjectInput>) -> S3Result<()> {
        let body = whole(request.input.body.take()).await?;
        request.input.body = Some(Body::from(body).into());
        Ok(())
    }

    async fn upload_part(&self, request: &mut S3Request<UploadPartInput>) -> S3Result<()> {
        self.upload_exists(&request.input.upload_id)?;
        // `s3s-fs` compares no checksums of parts.
        let part = whole(request.input.body.take()).await?;
        let trailer = request.trailing_headers.take().and_then(|trailer| trailer.take()).unwrap_or_default();
        let headers = request.headers.iter().chain(&trailer);
        for (name, said) in headers.filter_map(|(name, said)| Some((name.as_str(), said.to_str().ok()?))) {
            if digest_of(name, &part).is_some_and(|digest| digest != said) {
                return Err(s3_error!(BadDigest, "The part does not have the {name} that is said"));
            }
        }
        request.input.body = Some(Body::from(part).into());
        Ok(())
    }

    async fn complete_multipart_upload(&self, request: &mut S3Request<CompleteMultipartUploadInput>) -> S3Result<()> {
        let input = &request.input;
        self.upload_exists(&input.upload_id)?;
        let parts = input.multipart_upload.as_ref().and_then(|upload| upload.parts.as_ref());
        let mut last = 0;
        for part in parts.into_iter().flatten() {
            let number = part.part_number.unwrap_or_default();
            if number <= last {
                return Err(s3_error!(InvalidPartOrder, "The list of parts was not in ascending order"));
            }
            last = number;
            let path = self.0.s3().join(format!(".upload_id-{}.part-{number}", input.upload_id));
            let Ok(bytes) = fs_err::read(path) else {
                return Err(s3_error!(InvalidPart, "The part {number} was not uploaded"));
            };
            let tag = hex::encode(Md5::checksum(&bytes));
            let said = part.e_tag.as_ref().map(|tag| tag.value().trim_matches('"'));
            let checksums = [
                ("x-amz-checksum-crc32", &part.checksum_crc32),
                ("x-amz-checksum-crc32c", &part.checksum_crc32c),
                ("x-amz-checksum-crc64nvme", &part.checksum_crc64nvme),
                ("x-amz-checksum-sha1", &part.checksum_sha1),
                ("x-amz-checksum-sha256", &part.checksum_sha256),
            ];
            let is_wrong = |(name, said): &(&str, &Option<String>)| said.is_some() && digest_of(name, &bytes) != **said;
            if said != Some(&tag) || checksums.iter().any(is_wrong) {
                return Err(s3_error!(InvalidPart, "The part {number} has another tag or checksum than is said"));
            }
        }
        Ok(())
    }
}

impl Gate {
    /// Who has sent a request. A session's token has to come with its key, signed.
    fn caller(&self, cx: &S3AccessContext<'_>) -> S3Result<Caller> {
        let credentials = cx.credentials().ok_or_else(|| s3_error!(AccessDenied, "Access Denied"))?;
        let header = |name: &str| cx.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let parameter = |name: &str| {
            let pairs = cx.uri().query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(known, _)| *known == name).map(|(_, value)| decode(value)).next()
        };
        let authorization = header("authorization");
        let claim = authorization.as_ref().and_then(|text| Claim::of(text));
        let presigned = || parameter("X-Amz-Credential").and_then(|text| text.split('/').nth(2).map(str::to_owned));
        let region = claim.as_ref().map(|claim| claim.region.clone()).or_else(presigned).unwrap_or_default();
        let state = self.0.state.lock().unwrap();
        let key = state.keys.get(&credentials.access_key).ok_or_else(|| s3_error!(InvalidAccessKeyId))?;
        let token = header("x-amz-security-token").or_else(|| parameter("X-Amz-Security-Token"));
        if key.session.as_ref().map(|(token, _)| token) != token.as_ref() {
            return Err(error(S3ErrorCode::InvalidToken, "The provided token is malformed or otherwise invalid.", 400));
        }
        let names = cx.headers().keys().map(hyper::header::HeaderName::as_str);
        if let Some(name) = claim.as_ref().and_then(|claim| claim.unsigned_header(names)) {
            return Err(s3_error!(SignatureDoesNotMatch, "The header {name} is not signed"));
        }
        if key.session.as_ref().is_some_and(|(_, end)| *end < Timestamp::now()) {
            return Err(s3_error!(ExpiredToken, "The provided token has expired."));
        }
        Ok(state.caller(Service::S3, key, &region))
    }

    async fn meet_fault(&self, action: &str, caller: &Caller, shared: &Shared) -> S3Result<()> {
        match self.0.ledger.meet(action, &caller.region) {
            Some(Fault::Throttled) => Err(error(S3ErrorCode::SlowDown, "Please reduce your request rate.", 503)),
            Some(Fault::Unavailable) => {
                Err(error(S3ErrorCode::InternalError, "We encountered an internal error.", 500))
            }
            Some(Fault::Refused(code)) => Err(error(code_of(code), "The test wants it so", 403)),
            Some(Fault::Stall(time)) => {
                let call = Call {
                    service: "s3",
                    action: action.to_owned(),
                    account: caller.account.clone(),
                    region: caller.region.clone(),
                    outcome: "stalled".to_owned(),
                };
                shared.lock().unwrap().stalled = Some(self.0.ledger.record(call));
                tokio::time::sleep(time).await;
                Ok(())
            }
            Some(Fault::LostAnswer) => {
                shared.lock().unwrap().is_lost = true;
                Ok(())
            }
            Some(Fault::Task(_)) | None => Ok(()),
        }
    }

    fn upload_exists(&self, id: &str) -> S3Result<()> {
        let is_id = uuid::Uuid::parse_str(id).is_ok();
        if is_id && self.0.s3().join(format!(".upload-{id}.json")).exists() {
            return Ok(());
        }
        Err(s3_error!(NoSuchUpload, "The specified multipart upload does not exist."))
    }
}

/// A body, to its end. Its hash is found to be wrong only there, of which `s3s-fs` would make an error of the server.
async fn whole(body: Option<StreamingBlob>) -> S3Result<bytes::Bytes> {
    let Some(body) = body else { return Err(s3_error!(IncompleteBody)) };
    let collected = Body::from(body).collect().await;
    collected.map(http_body_util::Collected::to_bytes).map_err(|why| {
        let is_other = why.to_string().contains("Sha256Mismatch");
        let code = if is_other { "XAmzContentSHA256Mismatch" } else { "IncompleteBody" };
        error(code_of(code), format!("The body is another one than was signed: {why}"), 400)
    })
}

fn error(code: S3ErrorCode, message: impl Into<std::borrow::Cow<'static, str>>, status: u16) -> S3Error {
    let mut error = S3Error::with_message(code, message);
    error.set_status_code(hyper::StatusCode::from_u16(status).unwrap_or_default());
    error
}

fn code_of(code: &'static str) -> S3ErrorCode {
    S3ErrorCode::from_bytes(code.as_bytes()).unwrap_or(S3ErrorCode::AccessDenied)
}

fn wrong_region(said: &str, home: &str) -> S3Error {
    let code = S3ErrorCode::Custom("AuthorizationHeaderMalformed".into());
    let message = format!("The authorization header is malformed; the region '{said}' is wrong; expecting '{home}'");
    error(code, message, 400)
}

/// Whether a policy allows this.
fn may(caller: &Caller, action: &str, bucket: &str, key: &str, cx: &S3AccessContext<'_>) -> S3Result<()> {
    let bucket_arn = format!("arn:aws:s3:::{bucket}");
    let object_arn = format!("{bucket_arn}/{key}");
    let need = match action {
        "ListBuckets" => Need::new("s3:ListAllMyBuckets", "*"),
        "CreateBucket" => Need::new("s3:CreateBucket", bucket_arn),
        "DeleteBucket" => Need::new("s3:DeleteBucket", bucket_arn),
        "HeadBucket" | "ListObjects" | "ListObjectsV2" => Need::new("s3:ListBucket", bucket_arn),
        "GetBucketLocation" => Need::new("s3:GetBucketLocation", bucket_arn),
        "GetObject" | "HeadObject" => Need::new("s3:GetObject", object_arn),
        "DeleteObject" => Need::new("s3:DeleteObject", object_arn),
        // The keys stand in the body, which is not read yet.
        "DeleteObjects" => Need::new("s3:DeleteObject", format!("{bucket_arn}/*")),
        "AbortMultipartUpload" => Need::new("s3:AbortMultipartUpload", object_arn),
        "ListParts" => Need::new("s3:ListMultipartUploadParts", object_arn),
        _ => Need::new("s3:PutObject", object_arn),
    };
    let mut needs = vec![need];
    if let Some(source) = cx.headers().get("x-amz-copy-source").and_then(|source| source.to_str().ok()) {
        needs.push(Need::new("s3:GetObject", format!("arn:aws:s3:::{}", decode(source).trim_start_matches('/'))));
    }
    caller.may(&needs).map_err(|refusal| error(S3ErrorCode::AccessDenied, refusal.message, 403))
}

/// The digest that a header says, in its encoding. Nothing for other headers.
fn digest_of(header: &str, bytes: &[u8]) -> Option<String> {
    Some(match header {
        "content-md5" => STANDARD.encode(Md5::checksum(bytes)),
        "x-amz-checksum-crc32" => STANDARD.encode(Crc32::checksum(bytes)),
        "x-amz-checksum-crc32c" => STANDARD.encode(Crc32c::checksum(bytes)),
        "x-amz-checksum-crc64nvme" => STANDARD.encode(Crc64Nvme::checksum(bytes)),
        "x-amz-checksum-sha1" => STANDARD.encode(Sha1::checksum(bytes)),
        "x-amz-checksum-sha256" => STANDARD.encode(Sha256::checksum(bytes)),
        _ => return None,
    })
}

/// What `s3s-fs` would take and forget.
fn refuse_forgotten(headers: &hyper::HeaderMap) -> S3Result<()> {
    const FORGOTTEN: [&str; 5] =
        ["x-amz-server-side-encryption", "x-amz-tagging", "x-amz-acl", "x-amz-grant-", "x-amz-object-lock-"];
    let forgotten = |name: &&str| FORGOTTEN.iter().any(|known| name.starts_with(known));
    match headers.keys().map(hyper::header::HeaderName::as_str).find(forgotten) {
        Some(name) => {
            let code = S3ErrorCode::Custom("StandInLacks".into());
            Err(error(code, format!("AWS knows {name}; the stand-in does not carry it out"), 501))
        }
        None => Ok(()),
    }
}
