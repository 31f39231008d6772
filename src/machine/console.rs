//! Following a guest's serial console.

use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;

/// How often the log is looked at.
const INTERVAL: Duration = Duration::from_millis(200);
/// A guest that writes without line breaks is cut into lines of this many bytes.
const MAX_LINE: usize = 4096;

/// Sends each line that the guest writes to its console, without terminal control, until the receiver is dropped.
pub fn follow(log: &Path) -> mpsc::Receiver<String> {
    let (lines, receiver) = mpsc::channel(256);
    let log = log.to_owned();
    tokio::spawn(async move {
        let mut follower = Follower { log, offset: 0, partial: Vec::new() };
        // A log that can't be read means that the machine is gone, whose end is told elsewhere.
        while let Ok(found) = follower.read().await {
            for line in found {
                if lines.send(line).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = lines.closed() => return,
            }
        }
    });
    receiver
}

struct Follower {
    log: PathBuf,
    offset: u64,
    partial: Vec<u8>,
}

impl Follower {
    async fn read(&mut self) -> std::io::Result<Vec<String>> {
        let mut file = fs_err::tokio::File::open(&self.log).await?;
        file.seek(SeekFrom::Start(self.offset)).await?;
        let mut buffer = vec![0; 64 * 1024];
        let mut lines = Vec::new();
        loop {
            let n = file.read(&mut buffer).await?;
            if n == 0 {
                return Ok(lines);
            }
            self.offset += n as u64;
            for &byte in &buffer[..n] {
                if byte == b'\n' || self.partial.len() == MAX_LINE {
                    lines.push(plain(&String::from_utf8_lossy(&self.partial)));
                    self.partial.clear();
                }
                if byte != b'\n' {
                    self.partial.push(byte);
                }
            }
        }
    }
}

/// A line without escape sequences and control characters, so that a guest can't play with the user's terminal.
pub fn plain(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        if c == '\u{1b}' {
            skip_escape(&mut characters);
        } else if c == '\t' || !c.is_control() {
            text.push(c);
        }
    }
    text
}

/// ECMA-48: a control sequence ends with a byte from `@` to `~`; an operating-system command with BEL or ESC `\`.
fn skip_escape(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match characters.next() {
        Some('[') => {
            for c in characters.by_ref() {
                if ('@'..='~').contains(&c) {
                    return;
                }
            }
        }
        Some(']') => {
            while let Some(c) = characters.next() {
                if c == '\u{7}' || (c == '\u{1b}' && characters.next_if_eq(&'\\').is_some()) {
                    return;
                }
            }
        }
        _ => {}
    }
}

/// The last lines of a console's log.
pub fn tail(log: &Path, count: usize) -> Vec<String> {
    const ENOUGH: u64 = 64 * 1024;
    let read = || -> std::io::Result<Vec<u8>> {
        use std::io::{Read, Seek};
        let mut file = fs_err::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(ENOUGH)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    // A machine that never wrote anything has no log.
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<String> = text.lines().map(plain).filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(plain("\u{1b}[0;32m  OK  \u{1b}[0m] Started\r"), "  OK  ] Started");
        assert_eq!(plain("\u{1b}]0;title\u{7}a\u{1b}]2;x\u{1b}\\b"), "ab");
        assert_eq!(plain("\u{1b}c\u{1b}"), "");
        assert_eq!(plain("bell\u{7}, tab\t, é"), "bell, tab\t, é");
    }

    #[tokio::test]
    async fn lines_arrive_as_they_are_completed() {
        use std::io::Write;
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("console.log");
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let mut lines = follow(&log);
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(lines.recv().await.unwrap(), "one");
        file.write_all(b"o\r\n").unwrap();
        file.write_all(&[b'x'; MAX_LINE + 1]).unwrap();
        assert_eq!(lines.recv().await.unwrap(), "two");
        assert_eq!(lines.recv().await.unwrap().len(), MAX_LINE);
        assert_eq!(tail(&log, 2).len(), 2);
    }
}
