//! A web server on loopback that gives out files.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Serves until the tests end; it answers nobody but this host.
#[derive(Debug)]
pub(crate) struct FileServer {
    port: u16,
    files: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    connections: Arc<AtomicUsize>,
}

impl FileServer {
    /// Starts one.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let files: Arc<Mutex<HashMap<String, Vec<u8>>>> = Arc::default();
        let connections: Arc<AtomicUsize> = Arc::default();
        let (served, counted) = (files.clone(), connections.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::SeqCst);
                let files = served.clone();
                std::thread::spawn(move || answer(stream, &files));
            }
        });
        Self { port, files, connections }
    }

    /// Its port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Gives out a file.
    pub(crate) fn put(&self, name: &str, content: impl Into<Vec<u8>>) -> String {
        self.files.lock().unwrap().insert(format!("/{name}"), content.into());
        format!("http://127.0.0.1:{}/{name}", self.port)
    }

    /// How many have connected.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn answer(mut stream: TcpStream, files: &Mutex<HashMap<String, Vec<u8>>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let Some(Ok(request)) = lines.next() else { return };
    // The rest of the request does not matter here; it has to be read before it is answered.
    for line in lines.map_while(Result::ok) {
        if line.is_empty() {
            break;
        }
    }
    let name = request.split(' ').nth(1).unwrap_or_default();
    let found = files.lock().unwrap().get(name).cloned();
    let (status, content) = match found {
        Some(content) => ("200 OK", content),
        None => ("404 Not Found", Vec::new()),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", content.len());
    // The client may have gone.
    let _gone = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&content));
}
