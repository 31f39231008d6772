use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;

use super::*;

/// An HTTP server with one file, which can cut connections, forget ranges and change its mind.
#[derive(Default)]
struct Server {
    content: Vec<u8>,
    etag: Option<&'static str>,
    /// Bytes after which a connection is cut, unless 0.
    cut_after: usize,
    ignores_ranges: bool,
    status: Option<&'static str>,
    requests: AtomicUsize,
    sent: AtomicU64,
}

impl Server {
    async fn start(self) -> (Arc<Self>, Address) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Address::new(format!("http://{}/disk.qcow2", listener.local_addr().unwrap()));
        let server = Arc::new(self);
        let shared = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = shared.clone();
                tokio::spawn(async move { server.answer(stream).await });
            }
        });
        (server, url)
    }

    async fn answer(&self, mut stream: tokio::net::TcpStream) -> Option<()> {
        let (reader, mut writer) = stream.split();
        let mut lines = BufReader::new(reader).lines();
        let (mut start, mut if_range) = (0, None);
        while let Some(line) = lines.next_line().await.ok()?.filter(|line| !line.is_empty()) {
            let line = line.to_ascii_lowercase();
            if let Some(range) = line.strip_prefix("range: bytes=") {
                start = range.strip_suffix('-')?.parse().ok()?;
            }
            if let Some(tag) = line.strip_prefix("if-range: ") {
                if_range = Some(tag.to_owned());
            }
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        if let Some(status) = self.status {
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            return writer.write_all(answer.as_bytes()).await.ok();
        }
        if self.ignores_ranges || if_range.is_some_and(|tag| Some(tag.as_str()) != self.etag) {
            start = 0;
        }
        let total = self.content.len();
        let tag = self.etag.map(|tag| format!("ETag: {tag}\r\n")).unwrap_or_default();
        let head = if start >= total && start > 0 {
            format!("HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */{total}\r\nContent-Length: 0\r\n")
        } else if start > 0 {
            let last = total - 1;
            format!(
                "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{last}/{total}\r\nContent-Length: {}\r\n",
                total - start
            )
        } else {
            format!("HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n")
        };
        writer.write_all(format!("{head}{tag}Connection: close\r\n\r\n").as_bytes()).await.ok()?;
        let body = self.content.get(start..).unwrap_or_default();
        let body = if self.cut_after > 0 { &body[..body.len().min(self.cut_after)] } else { body };
        writer.write_all(body).await.ok()?;
        self.sent.fetch_add(body.len() as u64, Ordering::Relaxed);
        writer.flush().await.ok()
    }
}

fn content() -> Vec<u8> {
    (0..300_000_u32).flat_map(|n| n.to_le_bytes()).collect()
}

fn digest(content: &[u8]) -> Digest {
    Digest::of_length(&hex::encode(sha2::Sha256::digest(content))).unwrap()
}

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("store")).unwrap();
    (folder, store)
}

/// Everything in the downloads that could be taken for a file.
fn leftovers(store: &Store) -> Vec<String> {
    let mut names = Vec::new();
    for folder in [store.downloads(), store.downloads().join("sha256")] {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if entry.file_type().unwrap().is_file() && !name.ends_with(".lock") {
                names.push(name);
            }
        }
    }
    names
}

#[tokio::test]
async fn a_cut_download_goes_on_where_it_was_cut() {
    let content = content();
    let server = Server { content: content.clone(), etag: Some("\"a\""), cut_after: 500_000, ..Server::default() };
    let (server, url) = server.start().await;
    let (_folder, store) = store();
    let heard = std::sync::Mutex::new(Vec::new());
    let listener = |event| heard.lock().unwrap().push(event);
    let path = fetch(&url, &digest(&content), &store, &listener).await.unwrap();
    assert_eq!(fs::read(path).unwrap(), content);
    assert_eq!(server.requests.load(Ordering::Relaxed), 3);
    assert_eq!(server.sent.load(Ordering::Relaxed), content.len() as u64);
    let total = content.len() as u64;
    assert_eq!(heard.lock().unwrap().last(), Some(&Event::Transfer { done: total, total: Some(total) }));
    // The second time nothing is asked for.
    fetch(&url, &digest(&content), &store, &|_| {}).await.unwrap();
    assert_eq!(server.requests.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_server_without_ranges_starts_again() {
    let content = content();
    let (server, url) = Server { content: content.clone(), ignores_ranges: true, ..Server::default() }.start().await;
    let (_folder, store) = store();
    let partial = Partial::of(&url, &store.downloads());
    fs::write(&partial.path, &content[..1000]).unwrap();
    let path = fetch(&url, &digest(&content), &store, &|_| {}).await.unwrap();
    assert_eq!(fs::read(path).unwrap(), content);
    assert_eq!(server.requests.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_file_replaced_between_two_halves_is_fetched_anew() {
    let content = content();
    let (_server, url) = Server { content: content.clone(), ..Server::default() }.start().await;
    let (_folder, store) = store();
    let partial = Partial::of(&url, &store.downloads());
    fs::write(&partial.path, vec![0; 1000]).unwrap();
    let path = fetch(&url, &digest(&content), &store, &|_| {}).await.unwrap();
    assert_eq!(fs::read(path).unwrap(), content);
}

#[tokio::test]
async fn what_does_not_verify_does_not_stay() {
    let content = content();
    let (_server, url) = Server { content: content.clone(), ..Server::default() }.start().await;
    let (_folder, store) = store();
    let error = fetch(&url, &digest(b"something else"), &store, &|_| {}).await.unwrap_err();
    assert!(matches!(&error, Error::Verification { .. }), "{error}");
    assert_eq!(leftovers(&store), Vec::<String>::new());
}

#[tokio::test]
async fn a_refusal_is_not_repeated() {
    let (server, url) = Server { status: Some("404 Not Found"), ..Server::default() }.start().await;
    let (_folder, store) = store();
    let error = fetch(&url, &digest(b""), &store, &|_| {}).await.unwrap_err();
    assert_eq!(error.to_string(), format!("`{url}` can't be downloaded: the server refuses: 404 Not Found"));
    assert_eq!(server.requests.load(Ordering::Relaxed), 1);
    let error = fetch_small(&url, 100).await.unwrap_err();
    assert!(error.to_string().contains("404"), "{error}");
}

#[tokio::test]
async fn a_failed_download_tells_no_secret() {
    let (_server, url) = Server { status: Some("403 Forbidden"), ..Server::default() }.start().await;
    let (_folder, store) = store();
    let host = url.whole().trim_start_matches("http://");
    let signed = Address::new(format!("http://me:hunter2@{host}?sig=hunter2"));
    let nobody = Address::new("http://me:hunter2@127.0.0.1:1/?sig=hunter2");
    for url in [&signed, &nobody] {
        let told = std::sync::Mutex::new(String::new());
        let listener = |event: Event| told.lock().unwrap().push_str(&format!("{event:?}"));
        let error = if *url == signed {
            fetch(url, &digest(b""), &store, &listener).await.unwrap_err()
        } else {
            fetch_small(url, 100).await.unwrap_err()
        };
        let all = format!("{error} {error:?} {}", told.lock().unwrap());
        assert!(all.contains("127.0.0.1") && !all.contains("hunter2"), "{all}");
    }
}

#[tokio::test]
async fn a_small_document_stays_small() {
    let (_server, url) = Server { content: vec![b'x'; 100_000], ..Server::default() }.start().await;
    let error = fetch_small(&url, 1000).await.unwrap_err();
    assert!(error.to_string().contains("more than 1000 bytes"), "{error}");
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = fetch_small(&Address::new(format!("http://{closed}/")), 1000).await.unwrap_err();
    assert!(error.to_string().contains("onnect"), "{error}");
}
