//! Downloads: streamed, resumed after a cut, verified before use, kept by digest.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use fs_err as fs;
use futures_util::StreamExt;
use reqwest::header::{CONTENT_RANGE, ETAG, HeaderMap, IF_RANGE, LAST_MODIFIED, RANGE};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};
use sha2::Digest as _;
use tokio::io::AsyncWriteExt;

use super::{Error, Event, Listener};
use crate::document::base_image::{Algorithm, Digest};
use crate::host::address::Address;
use crate::host::file;
use crate::store::{Lock, Store};

/// A server that says nothing for this long is not going to.
const SILENCE: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(30);
/// Attempts that may follow one that got nowhere.
const ATTEMPTS: usize = 5;
const MOST_REDIRECTS: usize = 10;

fn client() -> Result<Client, reqwest::Error> {
    let agent = concat!("goldsmith/", env!("CARGO_PKG_VERSION"));
    // A mirror may be anywhere, but what began encrypted must not go on for anybody on the way to change.
    let redirects = Policy::custom(|attempt| {
        let leaves_tls =
            attempt.previous().iter().any(|url| url.scheme() == "https") && attempt.url().scheme() != "https";
        if leaves_tls {
            return attempt.error("the server leads from https to an address without it");
        }
        Policy::limited(MOST_REDIRECTS).redirect(attempt)
    });
    let client = Client::builder().user_agent(agent).connect_timeout(CONNECT).read_timeout(SILENCE);
    client.redirect(redirects).build()
}

fn failed(url: &Address, error: reqwest::Error) -> Error {
    let error = error.without_url();
    // reqwest's own message is general; its cause says what happened.
    let mut why = String::new();
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = cause {
        why = error.to_string();
        cause = error.source();
    }
    Error::Download { url: url.clone(), why }
}

/// A small document, as it is.
pub(super) async fn fetch_small(url: &Address, limit: usize) -> Result<Vec<u8>, Error> {
    let client = client().map_err(|error| failed(url, error))?;
    let attempt = || async {
        let response = client.get(url.whole()).send().await?.error_for_status()?;
        let mut body = Vec::new();
        let mut stream = response.bytes_stream();
        while let Some(bytes) = stream.next().await {
            body.extend_from_slice(&bytes?);
            if body.len() > limit {
                break;
            }
        }
        Ok(body)
    };
    let retries = ExponentialBuilder::default().with_max_times(ATTEMPTS - 1);
    let body = attempt.retry(retries).when(is_transient).await.map_err(|error| failed(url, error))?;
    if body.len() > limit {
        return Err(Error::Download { url: url.clone(), why: format!("it has more than {limit} bytes") });
    }
    Ok(body)
}

/// Whether trying again may help.
fn is_transient(error: &reqwest::Error) -> bool {
    match error.status() {
        Some(status) => status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS,
        None => !error.is_builder() && !error.is_redirect(),
    }
}

/// The file with this digest, downloaded unless the store has it.
pub(super) async fn fetch(
    url: &Address,
    digest: &Digest,
    store: &Store,
    listener: Listener<'_>,
) -> Result<PathBuf, Error> {
    let partial = Partial::of(url, &store.downloads());
    let place = store.download(&digest.hex);
    let lock = partial.path.with_extension("lock");
    let _lock = tokio::task::spawn_blocking(move || Lock::wait(&lock)).await.map_err(io::Error::other)??;
    if place.exists() {
        return Ok(place);
    }
    listener(Event::Begins(format!("downloading {url}")));
    let client = client().map_err(|error| failed(url, error))?;
    let was_resumed = partial.complete(&client, url, listener).await?;
    let mut found = partial.digest(digest.algorithm).await?;
    if found != digest.hex && was_resumed {
        // The file may have been replaced on the server between the two halves.
        partial.discard()?;
        partial.complete(&client, url, listener).await?;
        found = partial.digest(digest.algorithm).await?;
    }
    if found != digest.hex {
        partial.discard()?;
        let why = format!("its digest is {found}, and its publisher says {}", digest.hex);
        return Err(Error::Verification { url: url.clone(), why });
    }
    fs::File::open(&partial.path)?.sync_all()?;
    fs::rename(&partial.path, &place)?;
    file::sync_folder(&store.downloads().join("sha256"))?;
    partial.discard()?;
    Ok(place)
}

/// A download that has begun: the bytes so far, and what the server said they are part of.
struct Partial {
    path: PathBuf,
    validator: PathBuf,
}

/// How an attempt ended.
enum Outcome {
    Complete,
    /// The connection broke after some bytes had come.
    Cut(reqwest::Error),
}

impl Partial {
    fn of(url: &Address, folder: &Path) -> Self {
        let name = hex::encode(&sha2::Sha256::digest(url.whole())[..12]);
        Self { path: folder.join(format!("{name}.part")), validator: folder.join(format!("{name}.validator")) }
    }

    fn discard(&self) -> io::Result<()> {
        for path in [&self.path, &self.validator] {
            file::remove_if_there(path)?;
        }
        Ok(())
    }

    /// Downloads what is missing. Whether it went on from what an earlier attempt left is the answer.
    async fn complete(&self, client: &Client, url: &Address, listener: Listener<'_>) -> Result<bool, Error> {
        let was_resumed = fs::metadata(&self.path).is_ok_and(|metadata| metadata.len() > 0);
        let mut fruitless = 0;
        loop {
            let before = fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
            let error = match self.attempt(client, url, listener).await {
                Ok(Outcome::Complete) => return Ok(was_resumed || before > 0),
                Ok(Outcome::Cut(error)) => failed(url, error),
                Err(error @ Error::Download { .. }) => error,
                Err(error) => return Err(error),
            };
            let after = fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
            fruitless = if after > before { 0 } else { fruitless + 1 };
            let is_final = matches!(&error, Error::Download { why, .. } if why.starts_with(FINAL));
            if is_final || fruitless >= ATTEMPTS {
                return Err(error);
            }
            tracing::debug!(%error, "trying again");
            let pause = Duration::from_secs(1 << fruitless.min(4));
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(&self, client: &Client, url: &Address, listener: Listener<'_>) -> Result<Outcome, Error> {
        let have = fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
        let mut request = client.get(url.whole());
        if have > 0 {
            request = request.header(RANGE, format!("bytes={have}-"));
            if let Ok(validator) = fs::read_to_string(&self.validator) {
                request = request.header(IF_RANGE, validator);
            }
        }
        let response = request.send().await.map_err(|error| failed(url, error))?;
        let start = match response.status() {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT if starts_at(response.headers(), have) => have,
            // All of it is here already, or the server has another file by now.
            StatusCode::RANGE_NOT_SATISFIABLE => {
                if total(response.headers()) == Some(have) {
                    return Ok(Outcome::Complete);
                }
                self.discard()?;
                return Err(Error::Download { url: url.clone(), why: "the server's file has changed".to_owned() });
            }
            status if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
                return Err(Error::Download { url: url.clone(), why: format!("{FINAL} {status}") });
            }
            status => {
                return Err(Error::Download { url: url.clone(), why: format!("the server answers {status}") });
            }
        };
        self.receive(response, start, listener).await
    }

    async fn receive(&self, response: Response, start: u64, listener: Listener<'_>) -> Result<Outcome, Error> {
        let total = response.content_length().map(|rest| start + rest);
        if start == 0 {
            self.remember(response.headers())?;
        }
        let mut file = fs_err::tokio::OpenOptions::new().create(true).write(true).open(&self.path).await?;
        file.set_len(start).await?;
        tokio::io::AsyncSeekExt::seek(&mut file, io::SeekFrom::Start(start)).await?;
        let mut done = start;
        let mut stream = response.bytes_stream();
        while let Some(bytes) = stream.next().await {
            match bytes {
                Ok(bytes) => {
                    file.write_all(&bytes).await?;
                    done += bytes.len() as u64;
                    listener(Event::Transfer { done, total });
                }
                Err(error) => {
                    file.flush().await?;
                    return Ok(Outcome::Cut(error));
                }
            }
        }
        file.flush().await?;
        Ok(Outcome::Complete)
    }

    /// What the server can recognise this very file by: RFC 9110, section 13.1.5.
    fn remember(&self, headers: &HeaderMap) -> io::Result<()> {
        let strong = headers.get(ETAG).and_then(|tag| tag.to_str().ok()).filter(|tag| !tag.starts_with("W/"));
        let date = headers.get(LAST_MODIFIED).and_then(|date| date.to_str().ok());
        match strong.or(date) {
            Some(validator) => fs::write(&self.validator, validator),
            None => file::remove_if_there(&self.validator),
        }
    }

    async fn digest(&self, algorithm: Algorithm) -> Result<String, Error> {
        let path = self.path.clone();
        let digest = tokio::task::spawn_blocking(move || match algorithm {
            Algorithm::Sha256 => file::digest::<sha2::Sha256>(&path),
            Algorithm::Sha512 => file::digest::<sha2::Sha512>(&path),
        });
        Ok(digest.await.map_err(io::Error::other)??)
    }
}

/// How the reason of a failure begins that no repetition mends.
const FINAL: &str = "the server refuses:";

/// `Content-Range: bytes 100-199/200`: whether a part begins where ours ends.
fn starts_at(headers: &HeaderMap, offset: u64) -> bool {
    let range = headers.get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let start = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok());
    start == Some(offset)
}

/// `Content-Range: bytes */200`: the file's size.
fn total(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_RANGE)?.to_str().ok()?.rsplit_once('/')?.1.parse().ok()
}

#[cfg(test)]
mod tests;
