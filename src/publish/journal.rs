//! What a publication has made, and where: each thing is noted before anybody relies on it.
//!
//! ```text
//!   publish/NAME/journal.jsonl    begun │ step, with its token │ made │ part, part, … │ done │ … │ ended
//!   publish/NAME/document.yaml    what was published by, for `--undo`
//!   publish/NAME/REGION.blocks    digests of a finished snapshot's blocks, for the next image's
//!   publish/NAME/REGION.sent      digests of the blocks that have arrived in one that is not finished
//! ```
//!
//! A step is noted with its token *before* AWS is asked, so a request whose answer was lost can be repeated and is the same
//! request. What a step has made is noted as soon as it has a name. A line that a crash has cut off is as if it were not there.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fs_err as fs;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::check::BootPaths;
use crate::host::file;

/// Format of the journal.
const FORMAT: u32 = 1;
const JOURNAL: &str = "journal.jsonl";
/// The document that an image was published by.
pub const DOCUMENT: &str = "document.yaml";

/// What a publication is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// Format of the journal.
    pub format: u32,
    /// What makes its tokens its own.
    pub id: String,
    /// When it was begun; names of images may hold it.
    pub time: Timestamp,
    /// SHA-256 of what the document says.
    pub document: String,
    /// SHA-256 of the sealed disk.
    pub disk: String,
    /// What was found of the ways to start it.
    pub boot: BootPaths,
}

impl Header {
    /// A new publication.
    pub fn new(document: String, disk: String, boot: BootPaths, time: Timestamp) -> Self {
        Self { format: FORMAT, id: uuid::Uuid::new_v4().simple().to_string(), time, document, disk, boot }
    }
}

/// Something that was made somewhere else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Made {
    /// A snapshot.
    Snapshot {
        /// Its identifier.
        id: String,
        /// Digest of what a guest sees of it, once that is known.
        content: Option<String>,
        /// The finished snapshot that it is based on.
        parent: Option<String>,
    },
    /// An object that is being written.
    Upload {
        /// Where.
        object: Object,
        /// Which upload.
        id: String,
    },
    /// A whole object.
    Object {
        /// Where.
        object: Object,
        /// Its size in bytes.
        bytes: u64,
        /// SHA-256 of its bytes.
        sha256: String,
    },
    /// An import under way.
    Task {
        /// Its identifier.
        id: String,
    },
    /// An image.
    Image {
        /// Its identifier.
        id: String,
        /// Its name.
        name: String,
        /// The snapshots that were made with it.
        snapshots: Vec<String>,
    },
    /// A version of a launch template.
    TemplateVersion {
        /// The template.
        template: String,
        /// The version.
        version: i64,
        /// Which was the default before.
        previous: i64,
    },
    /// A value of a parameter.
    Parameter {
        /// The parameter.
        name: String,
        /// Its value before, if it was there.
        previous: Option<String>,
        /// Whether that was the name of an image for AWS too.
        is_image: bool,
        /// What it is set to. Journals of older goldsmiths do not say it.
        #[serde(default)]
        value: Option<String>,
    },
    /// Files of this host, each with the SHA-256 of its bytes.
    Files {
        /// Where they are.
        files: Vec<(PathBuf, String)>,
    },
    /// A pointer to the newest image: a file of this host.
    PointerFile {
        /// Where.
        path: PathBuf,
        /// What it said before, if it was there.
        previous: Option<String>,
    },
    /// A pointer to the newest image: an object.
    PointerObject {
        /// Where.
        object: Object,
        /// What it said before, if it was there.
        previous: Option<String>,
    },
}

/// A place in S3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// The region.
    pub region: String,
    /// The server, if it is not AWS or what the user says it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The bucket.
    pub bucket: String,
    /// The object's name there.
    pub key: String,
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

/// A part of an object that has arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its number, from 1.
    pub number: i32,
    /// What S3 calls its content.
    pub etag: String,
    /// SHA-256 of its bytes, in Base64.
    pub sha256: String,
}

/// Which step: a place of the document, and what is done there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StepName {
    /// The place.
    pub place: String,
    /// What is done.
    pub step: String,
    /// The account that it is done in, if not the publisher's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase")]
enum Line {
    Begun(Header),
    Step {
        #[serde(flatten)]
        name: StepName,
        token: String,
    },
    Made {
        #[serde(flatten)]
        name: StepName,
        made: Made,
    },
    Part {
        #[serde(flatten)]
        name: StepName,
        part: Part,
    },
    Done {
        #[serde(flatten)]
        name: StepName,
    },
    Gone {
        #[serde(flatten)]
        name: StepName,
    },
    Undone {
        #[serde(flatten)]
        name: StepName,
    },
    Ended,
}

/// What is known of a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// What makes a repeated request one request.
    pub token: String,
    /// What there is of it.
    pub made: Option<Made>,
    /// What has arrived of an object.
    pub parts: Vec<Part>,
    /// Whether nothing is left to do.
    pub is_done: bool,
}

/// The journal of one publication.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    header: Header,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: fs::File,
    /// Bytes of it that are whole lines.
    length: u64,
    /// In the order of their beginnings.
    order: Vec<StepName>,
    entries: HashMap<StepName, Entry>,
    has_ended: bool,
}

impl Journal {
    /// Begins a journal in a new folder. One that has ended and is there already is put aside.
    pub fn begin(folder: &Path, header: Header, document: &str) -> io::Result<Self> {
        if let Some(known) = Self::open(folder)? {
            fs::rename(folder, folder.with_added_extension(&known.header.id))?;
        }
        fs::create_dir_all(folder)?;
        file::write(folder.join(DOCUMENT), document.as_bytes())?;
        file::write(folder.join(JOURNAL), line(&Line::Begun(header))?.as_bytes())?;
        let journal = Self::open(folder)?;
        journal.ok_or_else(|| io::Error::other("the journal that was begun is not there"))
    }

    /// The journal in a folder, if there is one.
    pub fn open(folder: &Path) -> io::Result<Option<Self>> {
        let path = folder.join(JOURNAL);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // What follows the last line's end was cut off, or is just being written by somebody else: others may read.
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        let file = fs::OpenOptions::new().append(true).open(&path)?;
        let length = whole.len() as u64;
        let mut state = State { file, length, order: Vec::new(), entries: HashMap::new(), has_ended: false };
        let mut lines = whole.lines().map(serde_json::from_str::<Line>);
        let header = match lines.next() {
            Some(Ok(Line::Begun(header))) if header.format == FORMAT => header,
            _ => return Err(damaged(&path, "it does not begin as this goldsmith writes it")),
        };
        for line in lines {
            state.note(line.map_err(|error| damaged(&path, &error.to_string()))?);
        }
        Ok(Some(Self { folder: folder.to_owned(), header, state: Mutex::new(state) }))
    }

    /// What it is of.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Whether all was done.
    pub fn has_ended(&self) -> bool {
        self.lock().has_ended
    }

    /// A file beside the journal.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What is known of a step.
    pub fn entry(&self, name: &StepName) -> Option<Entry> {
        self.lock().entries.get(name).cloned()
    }

    /// What a step has made.
    pub fn made(&self, name: &StepName) -> Option<Made> {
        self.entry(name)?.made
    }

    /// All steps in the order of their beginnings.
    pub fn entries(&self) -> Vec<(StepName, Entry)> {
        let state = self.lock();
        state.order.iter().filter_map(|name| Some((name.clone(), state.entries.get(name)?.clone()))).collect()
    }

    /// Begins a step, or goes on with one that was begun. What is known of it comes back.
    pub fn step(&self, name: &StepName) -> io::Result<Entry> {
        match self.entry(name) {
            Some(entry) => Ok(entry),
            None => self.step_anew(name),
        }
    }

    /// Begins a step, whatever was done of it before: that is of no use any more.
    pub fn step_anew(&self, name: &StepName) -> io::Result<Entry> {
        // AWS takes 64 characters.
        let token = format!("goldsmith-{}", uuid::Uuid::new_v4().simple());
        self.add(Line::Step { name: name.clone(), token })?;
        Ok(self.entry(name).unwrap_or_default())
    }

    /// Notes what a step has made.
    pub fn note_made(&self, name: &StepName, made: Made) -> io::Result<()> {
        self.add(Line::Made { name: name.clone(), made })
    }

    /// Notes that a part has arrived.
    pub fn note_part(&self, name: &StepName, part: Part) -> io::Result<()> {
        self.add(Line::Part { name: name.clone(), part })
    }

    /// Notes that nothing is left to do of a step.
    pub fn note_done(&self, name: &StepName) -> io::Result<()> {
        self.add(Line::Done { name: name.clone() })
    }

    /// Notes that what a step has made has done its work and is not there any more.
    pub fn note_gone(&self, name: &StepName) -> io::Result<()> {
        self.add(Line::Gone { name: name.clone() })
    }

    /// Notes that nothing is left of a step.
    pub fn note_undone(&self, name: &StepName) -> io::Result<()> {
        self.add(Line::Undone { name: name.clone() })
    }

    /// Notes that all was done.
    pub fn note_ended(&self) -> io::Result<()> {
        self.add(Line::Ended)
    }

    fn add(&self, what: Line) -> io::Result<()> {
        let (mut state, text) = (self.lock(), line(&what)?);
        // Whoever adds is alone. What was cut off before, or found no room, must not be glued to what is added now.
        state.file.set_len(state.length)?;
        state.file.write_all(text.as_bytes())?;
        state.length += text.len() as u64;
        // A part that is not remembered is sent again, and that is all.
        if !matches!(what, Line::Part { .. }) {
            state.file.sync_data()?;
        }
        state.note(what);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, line: Line) {
        match line {
            // There is one, and it was read.
            Line::Begun(_) => {}
            Line::Step { name, token } => {
                self.order.retain(|known| *known != name);
                self.order.push(name.clone());
                self.entries.insert(name, Entry { token, ..Entry::default() });
            }
            Line::Made { name, made } => self.entries.entry(name).or_default().made = Some(made),
            Line::Part { name, part } => self.entries.entry(name).or_default().parts.push(part),
            Line::Done { name } => self.entries.entry(name).or_default().is_done = true,
            Line::Gone { name } => self.entries.entry(name).or_default().made = None,
            Line::Undone { name } => {
                self.order.retain(|known| *known != name);
                self.entries.remove(&name);
                // What was taken back in part has to be done again.
                self.has_ended = false;
            }
            Line::Ended => self.has_ended = true,
        }
    }
}

fn line(line: &Line) -> io::Result<String> {
    Ok(serde_json::to_string(line)? + "\n")
}

fn damaged(path: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("`{}` is damaged: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(step: &str) -> StepName {
        StepName { place: "eu-central-1".to_owned(), step: step.to_owned(), account: None }
    }

    fn begin(folder: &Path) -> Journal {
        let boot = BootPaths { bios: true, uefi: true, ena: true };
        let header = Header::new("d0".to_owned(), "d1".to_owned(), boot, Timestamp::UNIX_EPOCH);
        Journal::begin(folder, header, "name: x\n").unwrap()
    }

    #[test]
    fn what_was_noted_is_known_after_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("web");
        let journal = begin(&place);
        let token = journal.step(&name("snapshot")).unwrap().token;
        assert!(token.len() <= 64);
        let id = "snap-1".to_owned();
        let made = Made::Snapshot { id, content: None, parent: None };
        journal.note_made(&name("snapshot"), made.clone()).unwrap();
        journal.step(&name("object")).unwrap();
        let part = Part { number: 1, etag: "e".to_owned(), sha256: "s".to_owned() };
        journal.note_part(&name("object"), part.clone()).unwrap();
        let header = journal.header().clone();
        drop(journal);
        // The crash cuts a line off.
        let path = place.join(JOURNAL);
        let mut text = fs::read_to_string(&path).unwrap();
        text.push_str(r#"{"event":"done","place":"eu-ce"#);
        fs::write(&path, &text).unwrap();
        let journal = Journal::open(&place).unwrap().unwrap();
        assert_eq!(*journal.header(), header);
        assert_eq!(journal.step(&name("snapshot")).unwrap().token, token);
        assert_eq!(journal.made(&name("snapshot")), Some(made));
        let object = journal.entry(&name("object")).unwrap();
        assert_eq!((object.parts, object.is_done), (vec![part], false));
        journal.note_done(&name("object")).unwrap();
        journal.note_ended().unwrap();
        drop(journal);
        let journal = Journal::open(&place).unwrap().unwrap();
        assert!(journal.has_ended() && journal.entry(&name("object")).unwrap().is_done);
        let order: Vec<String> = journal.entries().into_iter().map(|(name, _)| name.step).collect();
        assert_eq!(order, ["snapshot", "object"]);
    }

    #[test]
    fn who_reads_a_journal_changes_nothing_of_what_another_writes() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("web");
        let writer = begin(&place);
        let path = place.join(JOURNAL);
        // Half a line has arrived when somebody else looks.
        let half = r#"{"event":"half","place":"eu-ce"#;
        let text = fs::read_to_string(&path).unwrap() + half;
        fs::write(&path, &text).unwrap();
        let reader = Journal::open(&place).unwrap().unwrap();
        assert_eq!(reader.entries().len(), 0);
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        // Whoever writes next leaves nothing of it.
        writer.step(&name("snapshot")).unwrap();
        assert!(!fs::read_to_string(&path).unwrap().contains(half));
        assert_eq!(Journal::open(&place).unwrap().unwrap().entries().len(), 1);
    }

    #[test]
    fn a_step_that_begins_anew_or_is_undone_has_made_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let journal = begin(&folder.path().join("web"));
        let first = journal.step(&name("import")).unwrap().token;
        journal.note_made(&name("import"), Made::Task { id: "import-snap-1".to_owned() }).unwrap();
        let again = journal.step_anew(&name("import")).unwrap();
        assert_ne!(again.token, first);
        assert_eq!(again.made, None);
        journal.note_ended().unwrap();
        journal.note_undone(&name("import")).unwrap();
        assert!(journal.entries().is_empty() && !journal.has_ended());
    }

    #[test]
    fn what_is_no_journal_is_said_so() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Journal::open(folder.path()).unwrap().is_none());
        for text in ["", "{}\n", "{\"event\":\"ended\"}\n"] {
            fs::write(folder.path().join(JOURNAL), text).unwrap();
            assert!(Journal::open(folder.path()).is_err(), "{text}");
        }
        let journal = begin(&folder.path().join("web"));
        journal.step(&name("x")).unwrap();
        let path = folder.path().join("web").join(JOURNAL);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{text}nonsense\n")).unwrap();
        let error = Journal::open(&folder.path().join("web")).unwrap_err();
        assert!(error.to_string().contains("is damaged"), "{error}");
    }
}
