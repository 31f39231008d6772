//! Files in the guest.

use std::time::Duration;

use goldsmith_agent::MAX_CHUNK;
use goldsmith_agent::message::{Algorithm, Clearing, Op, OpError, OpErrorKind, Reply, Space, Stat, Write};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::channel::unexpected;
use super::{ANSWER_DEADLINE, Error, Guest};

/// How long an answer may take, with KVM; only a stuck agent takes longer.
fn deadline(op: &Op) -> Duration {
    match op {
        // These take the longer the larger a file or the fuller a cache is.
        Op::Digest { .. } | Op::Copy { .. } | Op::Clear { .. } | Op::Sync => Duration::from_secs(1800),
        _ => ANSWER_DEADLINE,
    }
}

/// The room that is left behind a part of a folder's names, which come in order; none where there is too little, or where a
/// guest goes back and would never come to an end.
fn room_behind(names: &[String], last: Option<&String>, room: usize) -> Option<usize> {
    let goes_back = !names.is_sorted() || names.first().zip(last).is_some_and(|(first, last)| first <= last);
    let taken = names.iter().map(|name| name.len() + size_of::<String>()).sum();
    room.checked_sub(taken).filter(|_| !goes_back)
}

/// Bytes that the names in a folder may take: those of a guest that never ends with them would fill the host's memory.
const MOST_NAMES: usize = 64 << 20;

impl Guest {
    async fn request(&self, op: Op) -> Result<Reply, Error> {
        let deadline = deadline(&op) * self.patience;
        let answer = async { Ok(tokio::time::timeout(deadline, self.agent.request(op)).await) };
        self.unless_ended(answer).await?.map_err(|_| self.silent(deadline))?
    }

    async fn done(&self, op: Op) -> Result<(), Error> {
        match self.request(op).await? {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Tells a restored guest what time it is, and gives it random numbers of its own.
    pub(super) async fn awake(&self) -> Result<(), Error> {
        let mut entropy = [0; 32];
        for half in entropy.chunks_mut(16) {
            half.copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        }
        let unix_nanos = u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(0);
        self.done(Op::Awake { unix_nanos, entropy }).await
    }

    /// A file's content, which may have at most `limit` bytes.
    pub async fn read(&self, path: &str, limit: usize) -> Result<Vec<u8>, Error> {
        let mut content = Vec::new();
        loop {
            let op = Op::Read { path: path.to_owned(), offset: content.len() as u64 };
            match self.request(op).await? {
                Reply::Data(data) if data.is_empty() => return Ok(content),
                Reply::Data(data) => content.extend(data),
                other => return Err(unexpected(&other)),
            }
            if content.len() > limit {
                let message = format!("{path}: the file has more than {limit} bytes");
                return Err(Error::Refused(OpError { kind: OpErrorKind::Other, message }));
            }
        }
    }

    /// Writes a file, over one that is there.
    pub async fn write(&self, path: &str, mode: u32, mut content: impl AsyncRead + Unpin) -> Result<(), Error> {
        let mut how = Write::Create { mode };
        let mut buffer = vec![0; MAX_CHUNK];
        loop {
            let mut filled = 0;
            while filled < buffer.len() {
                match content.read(&mut buffer[filled..]).await {
                    Ok(0) => break,
                    Ok(n) => filled += n,
                    Err(error) => return Err(Error::Source(error)),
                }
            }
            if filled > 0 || matches!(how, Write::Create { .. }) {
                self.done(Op::Write { path: path.to_owned(), data: buffer[..filled].to_vec(), how }).await?;
            }
            if filled < buffer.len() {
                return Ok(());
            }
            how = Write::Append;
        }
    }

    /// Some bytes of a file; none at its end.
    pub async fn read_piece(&self, path: &str, offset: u64) -> Result<Vec<u8>, Error> {
        match self.request(Op::Read { path: path.to_owned(), offset }).await? {
            Reply::Data(data) => Ok(data),
            other => Err(unexpected(&other)),
        }
    }

    /// Writes at the end of a file that is there.
    pub async fn append(&self, path: &str, content: &[u8]) -> Result<(), Error> {
        // Nothing at all has to be written too, to know that the file is there.
        let pieces = content.chunks(MAX_CHUNK).chain(content.is_empty().then_some(content));
        for piece in pieces {
            self.done(Op::Write { path: path.to_owned(), data: piece.to_vec(), how: Write::Append }).await?;
        }
        Ok(())
    }

    /// Names in a folder, sorted; a few million of them at most.
    pub async fn list(&self, path: &str) -> Result<Vec<String>, Error> {
        let (mut all, mut room) = (Vec::<String>::new(), MOST_NAMES);
        loop {
            let op = Op::List { path: path.to_owned(), after: all.last().cloned() };
            match self.request(op).await? {
                Reply::Names { names, more } => {
                    let is_stuck = names.is_empty();
                    room = room_behind(&names, all.last(), room)
                        .ok_or_else(|| Error::Protocol(format!("the names in {path} are too many, or in no order")))?;
                    all.extend(names);
                    if !more || is_stuck {
                        return Ok(all);
                    }
                }
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// What is at a path, if anything.
    pub async fn stat(&self, path: &str, follow: bool) -> Result<Option<Stat>, Error> {
        match self.request(Op::Stat { path: path.to_owned(), follow }).await? {
            Reply::Stat(stat) => Ok(stat),
            other => Err(unexpected(&other)),
        }
    }

    /// A file's digest in hexadecimal.
    pub async fn digest(&self, path: &str, algorithm: Algorithm) -> Result<String, Error> {
        match self.request(Op::Digest { path: path.to_owned(), algorithm }).await? {
            Reply::Digest(digest) => Ok(hex::encode(digest)),
            other => Err(unexpected(&other)),
        }
    }

    /// Space on the file system that holds a path.
    pub async fn space(&self, path: &str) -> Result<Space, Error> {
        match self.request(Op::Space { path: path.to_owned() }).await? {
            Reply::Space(space) => Ok(space),
            other => Err(unexpected(&other)),
        }
    }

    /// Makes a folder and those above it.
    pub async fn make_folder(&self, path: &str, mode: Option<u32>) -> Result<(), Error> {
        self.done(Op::MakeFolder { path: path.to_owned(), mode }).await
    }

    /// Copies a file with its permissions.
    pub async fn copy(&self, from: &str, to: &str) -> Result<(), Error> {
        self.done(Op::Copy { from: from.to_owned(), to: to.to_owned() }).await
    }

    /// Removes a file, link or empty folder.
    pub async fn remove(&self, path: &str) -> Result<(), Error> {
        self.done(Op::Remove { path: path.to_owned() }).await
    }

    /// Sets permissions.
    pub async fn set_mode(&self, path: &str, mode: u32) -> Result<(), Error> {
        self.done(Op::SetMode { path: path.to_owned(), mode }).await
    }

    /// Sets owner and group, each by name or number.
    pub async fn set_owner(&self, path: &str, owner: Option<&str>, group: Option<&str>) -> Result<(), Error> {
        let (owner, group) = (owner.map(str::to_owned), group.map(str::to_owned));
        self.done(Op::SetOwner { path: path.to_owned(), owner, group }).await
    }

    /// Does something to everything that patterns match: [`Op::Clear`].
    pub async fn clear(&self, patterns: Vec<String>, how: Clearing) -> Result<(), Error> {
        self.done(Op::Clear { patterns, how }).await
    }

    /// Ends all programs and powers the machine off, as seen from inside. The answer is an error.
    pub(super) async fn power_off_at_once(&self) -> Result<(), Error> {
        self.done(Op::PowerOff).await
    }

    /// Writes all file systems' data to disk.
    pub async fn sync(&self) -> Result<(), Error> {
        self.done(Op::Sync).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_names_comes_to_an_end() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let each = size_of::<String>();
        assert_eq!(room_behind(&names(&["a", "b", "b"]), None, 1000), Some(1000 - 3 * (each + 1)));
        assert_eq!(room_behind(&names(&["c"]), Some(&"b".to_owned()), each + 1), Some(0));
        assert_eq!(room_behind(&names(&["c"]), Some(&"b".to_owned()), each), None);
        for (list, last) in [(&["b", "a"][..], "a"), (&["b"], "b"), (&["b"], "c"), (&[""], "")] {
            assert_eq!(room_behind(&names(list), Some(&last.to_owned()), 1000), None, "{list:?}");
        }
        assert_eq!(room_behind(&[], Some(&"b".to_owned()), 1000), Some(1000));
    }
}
