//! Following a guest's serial console.

use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// How often the log is looked at.
const INTERVAL: Duration = Duration::from_millis(200);
/// A guest that writes without line breaks is cut into lines of this many bytes.
const MAX_LINE: usize = 4096;
/// Bytes that are read before their lines are handed on.
const MAX_PIECE: u64 = 1 << 20;
/// Bytes of a log. A guest that writes without end would fill the host's disk, which stops other guests too.
const MAX_LOG: u64 = 64 << 20;

/// Sends each line that the guest writes to its console, without terminal control, until the receiver is dropped.
pub fn follow(log: &Path) -> mpsc::Receiver<String> {
    let (lines, receiver) = mpsc::channel(256);
    let log = log.to_owned();
    tokio::spawn(async move {
        let mut follower = Follower { log, offset: 0, partial: Vec::new(), most: MAX_LOG };
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
    /// Bytes of the log beyond which it begins anew.
    most: u64,
}

impl Follower {
    async fn read(&mut self) -> std::io::Result<Vec<String>> {
        let mut file = fs_err::tokio::File::open(&self.log).await?;
        let length = file.metadata().await?.len();
        // What was not heard yet is waited for, unless the guest is quicker for ever.
        if length > self.most && (self.offset >= length || length / 4 > self.most) {
            self.begin_anew().await?;
        }
        file.seek(SeekFrom::Start(self.offset)).await?;
        let mut file = file.take(MAX_PIECE);
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

    /// Empties the log. QEMU appends to it, so what comes next stands at its beginning.
    async fn begin_anew(&mut self) -> std::io::Result<()> {
        let mut file = fs_err::tokio::OpenOptions::new().append(true).open(&self.log).await?;
        file.set_len(0).await?;
        let note = format!("(goldsmith: what stood here was more than {} MiB, and is gone)\n", self.most >> 20);
        file.write_all(note.as_bytes()).await?;
        file.flush().await?;
        self.offset = 0;
        Ok(())
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
    async fn a_log_without_end_begins_anew() {
        use std::io::Write;
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("console.log");
        let mut guest = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let mut follower = Follower { log: log.clone(), offset: 0, partial: Vec::new(), most: 2 << 20 };
        let mut seen = 0;
        for _ in 0..5 {
            guest.write_all(&b"all work and no play\n".repeat(50_000)).unwrap();
            for _ in 0..3 {
                let lines = follower.read().await.unwrap();
                seen += lines.iter().filter(|line| *line == "all work and no play").count();
            }
            assert!(fs_err::metadata(&log).unwrap().len() <= 4 << 20);
        }
        assert!(seen > 200_000 && fs_err::read_to_string(&log).unwrap().starts_with("(goldsmith: what stood here"));
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
