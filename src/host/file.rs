//! Files that are whole or absent, whenever the power fails.
//!
//! A file that matters is written beside its place, synced, renamed into it, and the folder is synced. Before the last
//! step returns, a crash may leave the old file or the new one, and never a part of either.

use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use fs_err::File;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

/// A file under construction, in the folder where it will stand. Dropped without [`Draft::finish`], it vanishes.
#[derive(Debug)]
pub struct Draft {
    temporary: NamedTempFile,
    place: PathBuf,
}

impl Draft {
    /// Begins a file that will stand at `place`. Its folder has to be there.
    pub fn new(place: impl Into<PathBuf>) -> io::Result<Self> {
        let place = place.into();
        let name = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let temporary = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            .suffix(".part")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(parent(&place))
            .map_err(|error| named("create a file in", parent(&place), &error))?;
        Ok(Self { temporary, place })
    }

    /// Where the file is until it is finished, for programs that write it.
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// The open file.
    pub fn file(&mut self) -> &mut (impl Read + Write + std::io::Seek) {
        self.temporary.as_file_mut()
    }

    /// Puts the file into its place, over one that is there.
    pub fn finish(self) -> io::Result<PathBuf> {
        // Whoever wrote it may have written another file under the same name, so it is opened again to be synced.
        File::open(self.temporary.path())?.sync_all()?;
        self.temporary.persist(&self.place).map_err(|error| named("rename a file to", &self.place, &error.error))?;
        sync_folder(parent(&self.place))?;
        Ok(self.place)
    }
}

fn parent(place: &Path) -> &Path {
    match place.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn named(what: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("failed to {what} `{}`: {error}", path.display()))
}

/// Writes a whole file, or none.
pub fn write(place: impl Into<PathBuf>, content: &[u8]) -> io::Result<()> {
    let mut draft = Draft::new(place)?;
    draft.file().write_all(content).map_err(|error| named("write to", draft.path(), &error))?;
    draft.finish().map(drop)
}

/// Makes the names in a folder last.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// SHA-256 of a file's bytes, in hexadecimal.
pub fn sha256(path: &Path) -> io::Result<String> {
    digest::<Sha256>(path)
}

/// SHA-256 of bytes in memory, in hexadecimal.
pub fn sha256_of(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A digest of a file's bytes, in hexadecimal.
pub fn digest<D: Digest>(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = D::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hasher.finalize())),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// SHA-256 of what is in a file and where, in hexadecimal: blocks of zeroes are left out, whether they are holes or not,
/// so that the memory of a machine is not read where nothing was ever written. No other program computes this.
pub fn sha256_of_sparse(path: &Path) -> io::Result<String> {
    const BLOCK: u64 = 64 << 10;
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut hasher = Sha256::new_with_prefix(length.to_le_bytes());
    let mut buffer = vec![0; usize::try_from(BLOCK).unwrap_or(1)];
    let mut at = 0;
    while at < length {
        let data = next_data(&file, at, length);
        if data == length {
            break;
        }
        at = data / BLOCK * BLOCK;
        file.seek(io::SeekFrom::Start(at))?;
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read(&mut buffer[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        let block = &buffer[..filled];
        if block.iter().any(|&byte| byte != 0) {
            hasher.update(at.to_le_bytes());
            hasher.update(block);
        }
        at += BLOCK;
    }
    Ok(hex::encode(hasher.finalize()))
}

/// Where data begins from `at` on, or `end` if there is but a hole before it. Where a file system does not know, everything is
/// data.
pub fn next_data(file: &File, at: u64, end: u64) -> u64 {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
        Ok(data) => data.min(end),
        // lseek(2): nothing but a hole is left.
        Err(rustix::io::Errno::NXIO) => end,
        Err(_) => at,
    }
}

/// Where the data ends that there is at `at`, at the latest at `end`.
pub fn next_hole(file: &File, at: u64, end: u64) -> u64 {
    rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(at)).map_or(end, |hole| hole.min(end))
}

/// Gives a file another place, on another file system too. Holes stay holes.
pub fn relocate(from: &Path, to: &Path) -> io::Result<()> {
    match fs_err::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            copy_data(from, to)?;
            fs_err::remove_file(from)
        }
        renamed => renamed,
    }
}

/// Copies what is in a file and where, and its permissions.
fn copy_data(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut target = File::create(to)?;
    let length = source.metadata()?.len();
    fs_err::set_permissions(to, source.metadata()?.permissions())?;
    target.set_len(length)?;
    let mut at = 0;
    while at < length {
        let data = next_data(&source, at, length);
        let end = next_hole(&source, data, length);
        source.seek(io::SeekFrom::Start(data))?;
        target.seek(io::SeekFrom::Start(data))?;
        io::copy(&mut (&mut source).take(end - data), &mut target)?;
        at = end;
    }
    Ok(())
}

/// Removes a file, if there is one.
pub fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs_err::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes a folder and all in it, also what mmdebstrap has left there as root of a namespace: files of numbers that
/// only a namespace makes the user's own.
pub fn remove_tree(folder: &Path) -> io::Result<()> {
    match fs_err::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
        Err(_) => {}
        Ok(()) => return Ok(()),
    }
    for entry in fs_err::read_dir(folder)? {
        let mut helper = std::process::Command::new("mmdebstrap");
        helper.args(["--unshare-helper", "rm", "-rf", "--one-file-system", "--"]).arg(entry?.path());
        // What it could not remove shows in what comes next.
        let _shown = helper.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
    fs_err::remove_dir_all(folder)
}

/// Bytes that can still be written to the file system that holds a path.
pub fn free_space(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path).map_err(|error| named("look at", path, &error.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs_err::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn an_abandoned_draft_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut draft = Draft::new(folder.path().join("disk.qcow2")).unwrap();
        draft.file().write_all(b"half").unwrap();
        drop(draft);
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn a_finished_draft_replaces_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("manifest.json");
        write(&place, b"old").unwrap();
        write(&place, b"new").unwrap();
        assert_eq!(names(folder.path()), ["manifest.json"]);
        assert_eq!(fs_err::read(&place).unwrap(), b"new");
        assert_eq!(sha256(&place).unwrap(), "11507a0e2f5e69d5dfa40a62a1bd7b6ee57e6bcd85c67c9b8431b36fff21c437");
    }

    #[test]
    fn a_program_may_replace_the_file_of_a_draft() {
        let folder = tempfile::tempdir().unwrap();
        let draft = Draft::new(folder.path().join("disk.raw")).unwrap();
        fs_err::remove_file(draft.path()).unwrap();
        fs_err::write(draft.path(), b"whole").unwrap();
        let place = draft.finish().unwrap();
        assert_eq!(fs_err::read(place).unwrap(), b"whole");
    }

    #[test]
    fn holes_and_zeroes_are_the_same_and_everything_else_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let digest = |name: &str, length: u64, writes: &[(u64, &[u8])]| {
            use std::os::unix::fs::FileExt;
            let path = folder.path().join(name);
            let file = File::create(&path).unwrap().into_file();
            file.set_len(length).unwrap();
            writes.iter().for_each(|(at, bytes)| file.write_all_at(bytes, *at).unwrap());
            sha256_of_sparse(&path).unwrap()
        };
        let sparse = digest("a", 1 << 20, &[(300_000, b"x")]);
        assert_eq!(digest("b", 1 << 20, &[(0, &vec![0; 1 << 20]), (300_000, b"x")]), sparse);
        assert_ne!(digest("c", 1 << 20, &[(300_001, b"x")]), sparse);
        assert_ne!(digest("d", (1 << 20) + 1, &[(300_000, b"x")]), sparse);
        assert_ne!(digest("e", 1 << 20, &[(300_000, b"x"), ((1 << 20) - 1, b"y")]), sparse);
        assert_ne!(digest("f", 1 << 20, &[(300_000 + (64 << 10), b"x")]), sparse);
    }

    #[test]
    fn data_is_copied_and_holes_are_not() {
        use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let file = File::create(&from).unwrap().into_file();
        file.set_len(64 << 20).unwrap();
        file.set_permissions(std::fs::Permissions::from_mode(0o600)).unwrap();
        file.write_all_at(b"one", 0).unwrap();
        file.write_all_at(&vec![7; 100_000], 40 << 20).unwrap();
        copy_data(&from, &to).unwrap();
        assert_eq!(fs_err::read(&from).unwrap(), fs_err::read(&to).unwrap());
        let metadata = fs_err::metadata(&to).unwrap();
        assert_eq!(metadata.mode() & 0o777, 0o600);
        assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = write("/no/such/folder/file", b"").unwrap_err();
        assert!(error.to_string().contains("/no/such/folder"), "{error}");
    }
}
