//! Downloads that the host makes for guests.
//!
//! A file whose digest is known is verified before the guest sees any of it, and kept by its SHA-256. What is not known
//! beforehand goes through as it comes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use fs_err as fs;
use futures_util::StreamExt;
use goldsmith_agent::message::Algorithm;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode, Url};
use tokio::io::AsyncWriteExt;
use tokio_util::io::StreamReader;

use crate::component::courier::{Content, WebFile};
use crate::host::file;
use crate::machine::isolation::is_hosts_own;
use crate::store::{FOR_GUESTS, Store};

/// Largest file that is kept on the host, in bytes.
const MAX_KEPT: u64 = 16 << 30;
/// A server that says nothing for this long is not going to.
const SILENCE: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(30);
const MOST_REDIRECTS: usize = 10;

/// Makes downloads.
pub(super) struct Web {
    store: Store,
    /// Whether the host's own network may be reached, as guests may.
    is_open: bool,
}

impl Web {
    pub(super) fn new(store: Store, is_open: bool) -> Self {
        Self { store, is_open }
    }

    /// A file's bytes.
    pub(super) async fn get(&self, wanted: &WebFile) -> Result<Content, String> {
        let Some((algorithm, digest)) = &wanted.digest else {
            let response = self.request(wanted).await?;
            let bytes = response.bytes_stream().map(|bytes| bytes.map_err(io::Error::other));
            return Ok(Box::new(StreamReader::new(bytes.boxed())));
        };
        // Nothing but the digest, which is a document's word, names a file here.
        let is_digest = digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        let kept =
            (*algorithm == Algorithm::Sha256 && digest.len() == 64 && is_digest).then(|| self.store.download(digest));
        if let Some(kept) = &kept
            && let Ok(file) = fs_err::tokio::File::open(kept).await
        {
            return Ok(Box::new(file));
        }
        let file = self.fetch(wanted).await.map_err(|error| error.to_string())??;
        let (path, algorithm) = (file.path().to_owned(), *algorithm);
        let found = tokio::task::spawn_blocking(move || match algorithm {
            Algorithm::Md5 => file::digest::<md5::Md5>(&path),
            Algorithm::Sha1 => file::digest::<sha1::Sha1>(&path),
            Algorithm::Sha256 => file::digest::<sha2::Sha256>(&path),
            Algorithm::Sha512 => file::digest::<sha2::Sha512>(&path),
        });
        let found = found.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        if found != *digest {
            return Err(format!("its checksum is {found} and not the one that was given"));
        }
        let opened = fs_err::tokio::File::open(file.path()).await.map_err(|error| error.to_string())?;
        if let Some(kept) = kept {
            keep(file, &kept).map_err(|error| error.to_string())?;
        }
        Ok(Box::new(opened))
    }

    /// The whole file, on this host.
    async fn fetch(&self, wanted: &WebFile) -> io::Result<Result<tempfile::NamedTempFile, String>> {
        let response = match self.request(wanted).await {
            Ok(response) => response,
            Err(problem) => return Ok(Err(problem)),
        };
        let folder = self.store.downloads();
        fs::create_dir_all(&folder)?;
        let file = tempfile::Builder::new().prefix(FOR_GUESTS).suffix(".part").tempfile_in(folder)?;
        let mut writer = fs_err::tokio::OpenOptions::new().write(true).open(file.path()).await?;
        let mut bytes = response.bytes_stream();
        let mut size = 0_u64;
        while let Some(more) = bytes.next().await {
            let more = match more {
                Ok(more) => more,
                Err(error) => return Ok(Err(innermost(&error))),
            };
            size += more.len() as u64;
            if size > MAX_KEPT {
                return Ok(Err(format!("it has more than {} GiB", MAX_KEPT >> 30)));
            }
            writer.write_all(&more).await?;
        }
        writer.flush().await?;
        writer.sync_all().await?;
        Ok(Ok(file))
    }

    async fn request(&self, wanted: &WebFile) -> Result<reqwest::Response, String> {
        let url: Url = wanted.url.parse().map_err(|error| format!("this is no address: {error}"))?;
        if !self.is_open && is_closed(&url) {
            return Err("this address is in the host's own network".to_owned());
        }
        let client = self.client(wanted.insecure).map_err(|error| innermost(&error))?;
        let response = client.get(url).send().await.map_err(|error| innermost(&error))?;
        match response.status() {
            StatusCode::OK => Ok(response),
            status => Err(format!("the server answers {status}")),
        }
    }

    fn client(&self, insecure: bool) -> Result<Client, reqwest::Error> {
        let agent = concat!("goldsmith/", env!("CARGO_PKG_VERSION"));
        let is_open = self.is_open;
        let redirects = Policy::custom(move |attempt| {
            if !is_open && is_closed(attempt.url()) {
                return attempt.error("the server leads to an address in the host's own network");
            }
            Policy::limited(MOST_REDIRECTS).redirect(attempt)
        });
        let mut client = Client::builder().user_agent(agent).connect_timeout(CONNECT).read_timeout(SILENCE);
        client = client.redirect(redirects).danger_accept_invalid_certs(insecure);
        if !is_open {
            client = client.dns_resolver(Arc::new(OpenAddresses));
        }
        client.build()
    }
}

/// Puts a verified file where it is found by its digest.
fn keep(file: tempfile::NamedTempFile, place: &std::path::Path) -> io::Result<()> {
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder)?;
        file.persist(place).map_err(|error| error.error)?;
        file::sync_folder(folder)?;
    }
    Ok(())
}

/// reqwest's own message is general; its cause says what happened.
fn innermost(error: &reqwest::Error) -> String {
    let mut why = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        why = error.to_string();
        cause = error.source();
    }
    why
}

/// Whether an address says itself that it is the host's own network.
fn is_closed(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.parse().is_ok_and(|address| !may_reach(address))
}

/// As for guests: neither the host itself, by whatever address, nor what is linked to it alone, such as a cloud's metadata.
fn may_reach(address: IpAddr) -> bool {
    !is_hosts_own(&address) && !is_of_an_interface(address)
}

/// Whether an address is one of the host's: what it sends there, it sends from there. Nothing is sent to find out.
fn is_of_an_interface(address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let from = || {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((address, 9))?;
        socket.local_addr()
    };
    from().is_ok_and(|from: SocketAddr| from.ip() == address)
}

/// Looks names up and leaves out what must not be reached.
struct OpenAddresses;

impl Resolve for OpenAddresses {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let open: Vec<SocketAddr> = found.filter(|address| may_reach(address.ip())).collect();
            if open.is_empty() {
                return Err("its address is in the host's own network".into());
            }
            Ok(Box::new(open.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_own_network_stays_closed() {
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "0.0.0.0",
            "::1",
            "fe80::1",
            "::ffff:127.0.0.1",
            "fd00:ec2::254",
        ] {
            assert!(!may_reach(address.parse().unwrap()), "{address}");
            let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
            assert!(is_closed(&format!("http://{host}:80/x").parse().unwrap()), "{address}");
        }
        // That of the interface that leads to the world, if one does.
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        if socket.connect("192.0.2.1:9").is_ok() {
            let own = socket.local_addr().unwrap().ip();
            assert!(!may_reach(own), "{own}");
        }
        for address in ["192.0.2.1", "198.51.100.1", "2001:db8::1"] {
            assert!(may_reach(address.parse().unwrap()), "{address}");
        }
        assert!(!is_closed(&"http://example.org/".parse().unwrap()));
        // What a browser takes for an address, the parser of addresses does too.
        assert!(is_closed(&"http://2130706433/".parse().unwrap()));
    }

    /// A server that answers every request with these bytes, and counts them.
    fn server(body: &'static [u8]) -> (String, Arc<std::sync::atomic::AtomicUsize>) {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/file", listener.local_addr().unwrap());
        let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = count.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _request = stream.read(&mut [0; 4096]).unwrap();
                counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
            }
        });
        (url, count)
    }

    async fn text(content: Content) -> String {
        let (mut content, mut text) = (content, String::new());
        tokio::io::AsyncReadExt::read_to_string(&mut content, &mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn a_file_is_verified_before_it_is_seen_and_fetched_once() {
        let (url, count) = server(b"bytes");
        let folder = tempfile::tempdir().unwrap();
        let web = Web::new(Store::open(folder.path()).unwrap(), true);
        let wanted = |digest: &str| {
            let digest = Some((Algorithm::Sha256, digest.to_owned()));
            WebFile { url: url.clone(), digest, insecure: false }
        };
        let right = wanted(&file::sha256_of(b"bytes"));
        for _ in 0..2 {
            assert_eq!(text(web.get(&right).await.unwrap()).await, "bytes");
        }
        assert_eq!(count.load(std::sync::atomic::Ordering::SeqCst), 1);
        let wrong = web.get(&wanted(&"0".repeat(64))).await.err().unwrap();
        assert!(wrong.contains("not the one that was given"), "{wrong}");
        // What a document calls a digest is no path.
        assert!(web.get(&wanted(&format!("../../{}", "x".repeat(58)))).await.is_err());
        let plain = WebFile { url: url.clone(), digest: None, insecure: false };
        assert_eq!(text(web.get(&plain).await.unwrap()).await, "bytes");
        let left = fs::read_dir(folder.path().join("downloads")).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(left.filter(|name| name != "sha256").count(), 0);
        let closed = Web::new(Store::open(folder.path()).unwrap(), false);
        assert!(closed.get(&plain).await.err().unwrap().contains("host's own network"));
    }
}
