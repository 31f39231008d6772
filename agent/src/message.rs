//! What host and agent say to each other. Encoded with postcard, one message a frame.
//!
//! The agent offers primitives and decides nothing: what to run, when to retry and what a failure means is the host's.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::frame;

/// Why a message could not be written to, or read from, a frame.
#[derive(Debug)]
pub enum CodecError {
    /// The message does not fit into a frame.
    TooLarge(frame::TooLarge),
    /// The payload is no such message.
    Malformed(postcard::Error),
}

impl std::fmt::Display for CodecError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLarge(error) => error.fmt(f),
            Self::Malformed(error) => write!(f, "not a message of this protocol: {error}"),
        }
    }
}

impl std::error::Error for CodecError {}

/// A message as a frame.
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, CodecError> {
    let payload = postcard::to_stdvec(message).map_err(CodecError::Malformed)?;
    frame::encode(&payload).map_err(CodecError::TooLarge)
}

/// The message in a frame's payload.
pub fn decode<M: DeserializeOwned>(payload: &[u8]) -> Result<M, CodecError> {
    postcard::from_bytes(payload).map_err(CodecError::Malformed)
}

/// From the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToGuest {
    /// A host is here; answer with a [`Hello`] that carries this session.
    Attach {
        /// Chosen by the host, never 0.
        session: u64,
    },
    /// Do this.
    Request {
        /// Chosen by the host, unlike every request under way.
        id: u32,
        /// What to do.
        op: Op,
    },
    /// End the program that this request runs, and all its process group.
    Cancel {
        /// The request's id.
        id: u32,
    },
    /// Type on the terminal of the program that this request runs.
    Keys {
        /// The request's id.
        id: u32,
        /// At most [`crate::MAX_CHUNK`] bytes.
        data: Vec<u8>,
    },
    /// The terminal of the program that this request runs has another size now.
    Resize {
        /// The request's id.
        id: u32,
        /// The size.
        size: Size,
    },
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

impl Default for Size {
    /// That of a terminal of which nothing is known.
    fn default() -> Self {
        Self { rows: 24, columns: 80 }
    }
}

/// From the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToHost {
    /// The agent is here.
    Hello(Hello),
    /// Bytes that a running program wrote.
    Output {
        /// The request that runs it.
        id: u32,
        /// Where it wrote them.
        stream: Stream,
        /// At most [`crate::MAX_CHUNK`] bytes.
        data: Vec<u8>,
    },
    /// A request has ended.
    Reply {
        /// Its id.
        id: u32,
        /// How it ended.
        result: Result<Reply, OpError>,
    },
}

/// Who the agent is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`crate::PROTOCOL_VERSION`] of the agent. The first field, so that it can be read whatever follows.
    pub protocol: u16,
    /// The session it answers, 0 before a host has attached.
    pub session: u64,
    /// The agent's version.
    pub version: String,
    /// The kernel's random id of this boot.
    pub boot_id: String,
}

/// Which output of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What the host can ask for. Paths are absolute paths in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Run a program without a terminal and with empty standard input. Answered by [`Reply::Exited`].
    Exec(Exec),
    /// Up to [`crate::MAX_CHUNK`] bytes of a file. Answered by [`Reply::Data`], empty at its end.
    Read {
        /// The file.
        path: String,
        /// Where to begin, in bytes.
        offset: u64,
    },
    /// Write bytes to a file, following links. Answered by [`Reply::Done`].
    Write {
        /// The file.
        path: String,
        /// At most [`crate::MAX_CHUNK`] bytes.
        data: Vec<u8>,
        /// Where they go.
        how: Write,
    },
    /// Names in a folder, in the order of their bytes. Answered by [`Reply::Names`]; a folder with more than fits in a
    /// message is answered in parts.
    List {
        /// The folder.
        path: String,
        /// The last name of the part before, to get the next part.
        after: Option<String>,
    },
    /// What is at a path. Answered by [`Reply::Stat`].
    Stat {
        /// The path.
        path: String,
        /// Whether a link's target is meant, and not the link.
        follow: bool,
    },
    /// A file's digest. Answered by [`Reply::Digest`].
    Digest {
        /// The file.
        path: String,
        /// Which.
        algorithm: Algorithm,
    },
    /// Make a folder and those above it. Answered by [`Reply::Done`], also when it is there already.
    MakeFolder {
        /// The folder.
        path: String,
        /// Its permissions, if this makes it; the umask does not apply.
        mode: Option<u32>,
    },
    /// Copy a file with its permissions, over one that is there. Answered by [`Reply::Done`].
    Copy {
        /// The file.
        from: String,
        /// Where to.
        to: String,
    },
    /// Remove a file, link or empty folder. Answered by [`Reply::Done`].
    Remove {
        /// What.
        path: String,
    },
    /// Set permissions. Answered by [`Reply::Done`].
    SetMode {
        /// Of what; links are followed.
        path: String,
        /// Permission bits.
        mode: u32,
    },
    /// Set owner and group, each by name or number. Answered by [`Reply::Done`].
    SetOwner {
        /// Of what; links are followed.
        path: String,
        /// The owner to set.
        owner: Option<String>,
        /// The group to set.
        group: Option<String>,
    },
    /// Space on the file system that holds a path. Answered by [`Reply::Space`].
    Space {
        /// Any path on it.
        path: String,
    },
    /// Write all file systems' data to disk. Answered by [`Reply::Done`].
    Sync,
    /// Make this guest, whose memory others may have started from as well, one of its own: set its clock and give its
    /// random generator new entropy. Answered by [`Reply::Done`].
    Awake {
        /// Nanoseconds since the Unix epoch.
        unix_nanos: u64,
        /// Random bytes that no other guest gets.
        entropy: [u8; 32],
    },
    /// Do something to everything that patterns match: absolute paths, in which a `*` is any part of a name, `[0-9]` one
    /// character of a range, and a folder `**` any folders. Answered by [`Reply::Done`].
    Clear {
        /// The patterns.
        patterns: Vec<String>,
        /// What to do.
        how: Clearing,
    },
    /// End all other programs, make the file systems read-only, and power the machine off. Answered only if it can't be done.
    PowerOff,
    /// Run a program on a terminal of its own, as leader of a session. Answered by [`Reply::Exited`]; what it writes comes
    /// as [`Stream::Stdout`], what is typed goes to it as [`ToGuest::Keys`].
    Terminal {
        /// The program.
        exec: Exec,
        /// The terminal's size at first.
        size: Size,
    },
}

/// What is done to files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Clearing {
    /// Remove them, folders with all that is in them.
    Remove,
    /// Remove them, and leave folders.
    RemoveFiles,
    /// Leave nothing in them; folders and links stay.
    Empty,
    /// Write zeroes over their bytes; folders and links stay.
    Overwrite,
}

/// A program to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// The program, looked up in the `PATH` of [`Self::env`], and its arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// The working folder.
    pub cwd: String,
    /// After so many milliseconds its process group is ended.
    pub timeout_ms: Option<u64>,
}

/// Where bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Write {
    /// Into a new file or an emptied one. The mode is set on a new file; the umask does not apply.
    Create {
        /// Permission bits.
        mode: u32,
    },
    /// At the end of a file that is there.
    Append,
}

/// A digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// MD5, RFC 1321. Documents use it; it protects against accidents only.
    Md5,
    /// SHA-1, FIPS 180-4. As MD5.
    Sha1,
    /// SHA-256, FIPS 180-4.
    Sha256,
    /// SHA-512, FIPS 180-4.
    Sha512,
}

/// How a request ended well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It is done.
    Done,
    /// The program ended.
    Exited(Exit),
    /// Bytes of a file.
    Data(Vec<u8>),
    /// Names in a folder.
    Names {
        /// The names.
        names: Vec<String>,
        /// Whether there are more behind the last one.
        more: bool,
    },
    /// What is at a path, if anything.
    Stat(Option<Stat>),
    /// A digest.
    Digest(Vec<u8>),
    /// Space on a file system.
    Space(Space),
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Its time was up, or the host cancelled it; its process group was killed.
    Killed,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// What it is.
    pub kind: Kind,
    /// In bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner's number.
    pub uid: u32,
    /// Group's number.
    pub gid: u32,
}

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A device, socket or pipe.
    Other,
}

/// Space on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// Size in bytes.
    pub total: u64,
    /// Bytes that an ordinary user can still write.
    pub free: u64,
    /// Files that can still be made.
    pub free_files: u64,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpError {
    /// What kind of failure.
    pub kind: OpErrorKind,
    /// In words, with the path.
    pub message: String,
}

/// Kinds of failure that a host may want to tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpErrorKind {
    /// There is no such file, folder, program, user or group.
    NotFound,
    /// It is there already.
    Exists,
    /// The guest's disk is full.
    NoSpace,
    /// Any other.
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_chunk_fits_into_a_frame() {
        let message = ToHost::Output { id: u32::MAX, stream: Stream::Stdout, data: vec![0xff; crate::MAX_CHUNK] };
        let frame = encode(&message).expect("fits");
        let mut decoder = crate::frame::Decoder::default();
        decoder.extend(&frame);
        let payload = decoder.next_frame().expect("whole");
        assert_eq!(decode::<ToHost>(&payload).expect("same message"), message);
    }

    #[test]
    fn a_host_reads_the_version_of_an_agent_whose_hello_has_grown() {
        let hello = Hello { protocol: 7, session: 0, version: String::new(), boot_id: String::new() };
        let mut payload = postcard::to_stdvec(&ToHost::Hello(hello)).expect("encodes");
        payload.extend_from_slice(b"fields of a later version");
        match postcard::take_from_bytes::<ToHost>(&payload) {
            Ok((ToHost::Hello(hello), _)) => assert_eq!(hello.protocol, 7),
            other => panic!("{other:?}"),
        }
    }
}
