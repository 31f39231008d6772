//! Files and folders.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use goldsmith_agent::MAX_CHUNK;
use goldsmith_agent::message::{Algorithm, Kind, OpError, OpErrorKind, Reply, Space, Stat, Write};
use sha2::Digest;

use super::failed;

/// Names that one answer may hold, in bytes.
const MAX_NAMES: usize = MAX_CHUNK;

pub(crate) fn read(path: &str, offset: u64) -> Result<Vec<u8>, OpError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = fs::File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut data = Vec::new();
        file.take(MAX_CHUNK as u64).read_to_end(&mut data)?;
        Ok(data)
    };
    read().map_err(|error| failed(path, &error))
}

pub(crate) fn write(path: &str, data: &[u8], how: Write) -> Result<(), OpError> {
    let write = || -> io::Result<()> {
        let mut file = match how {
            Write::Append => OpenOptions::new().append(true).open(path)?,
            Write::Create { mode } => {
                let is_new = !Path::new(path).exists();
                let file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
                if is_new {
                    file.set_permissions(Permissions::from_mode(mode))?;
                }
                file
            }
        };
        file.write_all(data)
    };
    write().map_err(|error| failed(path, &error))
}

pub(crate) fn list(path: &str, after: Option<&str>) -> Result<Reply, OpError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(|error| failed(path, &error))? {
        let name = entry.map_err(|error| failed(path, &error))?.file_name();
        let name = name.into_string().map_err(|name| OpError {
            kind: OpErrorKind::Other,
            message: format!("{path}: the name {} is not UTF-8", name.display()),
        })?;
        if after.is_none_or(|after| name.as_str() > after) {
            names.push(name);
        }
    }
    names.sort_unstable();
    let mut room = MAX_NAMES;
    let fitting = names
        .iter()
        .take_while(|name| {
            let cost = name.len() + 4;
            room = room.saturating_sub(cost);
            room > 0
        })
        .count();
    let more = fitting < names.len();
    names.truncate(fitting);
    Ok(Reply::Names { names, more })
}

pub(crate) fn stat(path: &str, follow: bool) -> Result<Option<Stat>, OpError> {
    let metadata = if follow { fs::metadata(path) } else { fs::symlink_metadata(path) };
    match metadata {
        Ok(metadata) => Ok(Some(Stat {
            kind: kind(metadata.file_type()),
            size: metadata.len(),
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
        })),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(failed(path, &error)),
    }
}

/// Whether there is nothing under a name: also where no file can have it.
fn is_absent(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidFilename, InvalidInput, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory | InvalidFilename | InvalidInput)
}

fn kind(of: fs::FileType) -> Kind {
    if of.is_file() {
        Kind::File
    } else if of.is_dir() {
        Kind::Folder
    } else if of.is_symlink() {
        Kind::Link
    } else {
        Kind::Other
    }
}

pub(crate) fn digest(path: &str, algorithm: Algorithm) -> Result<Vec<u8>, OpError> {
    let digest = match algorithm {
        Algorithm::Md5 => digest_with::<md5::Md5>(path),
        Algorithm::Sha1 => digest_with::<sha1::Sha1>(path),
        Algorithm::Sha256 => digest_with::<sha2::Sha256>(path),
        Algorithm::Sha512 => digest_with::<sha2::Sha512>(path),
    };
    digest.map_err(|error| failed(path, &error))
}

fn digest_with<D: Digest>(path: &str) -> io::Result<Vec<u8>> {
    let mut file = fs::File::open(path)?;
    let mut hasher = D::new();
    let mut buffer = vec![0; MAX_CHUNK];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().to_vec()),
            n => hasher.update(&buffer[..n]),
        }
    }
}

pub(crate) fn make_folder(path: &str, mode: Option<u32>) -> Result<(), OpError> {
    let is_new = !Path::new(path).is_dir();
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(|error| failed(path, &error))?;
    match mode {
        Some(mode) if is_new => set_mode(path, mode),
        _ => Ok(()),
    }
}

pub(crate) fn copy(from: &str, to: &str) -> Result<(), OpError> {
    let copy = || -> io::Result<()> {
        let source = fs::metadata(from)?;
        // Its own copy would begin by being emptied.
        if fs::metadata(to).is_ok_and(|there| (there.dev(), there.ino()) == (source.dev(), source.ino())) {
            return Err(io::Error::other("they are the same file"));
        }
        fs::copy(from, to).map(drop)
    };
    copy().map_err(|error| failed(&format!("{from} to {to}"), &error))
}

pub(crate) fn remove(path: &str) -> Result<(), OpError> {
    let remove = || -> io::Result<()> {
        if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) }
    };
    remove().map_err(|error| failed(path, &error))
}

pub(crate) fn set_mode(path: &str, mode: u32) -> Result<(), OpError> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|error| failed(path, &error))
}

pub(crate) fn space(path: &str) -> Result<Space, OpError> {
    let stat = rustix::fs::statvfs(path).map_err(|error| failed(path, &error.into()))?;
    Ok(Space {
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
        free_files: stat.f_favail,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> std::path::PathBuf {
        let name = format!("goldsmith-agent-test-{}-{:?}", std::process::id(), std::thread::current().id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn there_is_nothing_under_a_name_that_no_file_can_have() {
        for path in ["/nothing-of-this-name".to_owned(), format!("/{}", "x".repeat(300)), "/a\0b".to_owned()] {
            assert!(stat(&path, true).unwrap().is_none(), "{path:?}");
        }
    }

    #[test]
    fn a_file_is_not_copied_onto_itself() {
        let folder = folder();
        let (file, link) = (folder.join("file"), folder.join("link"));
        fs::write(&file, "kept").unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        for to in [&file, &link] {
            let refused = copy(file.to_str().unwrap(), to.to_str().unwrap()).unwrap_err();
            assert!(refused.message.contains("the same file"), "{refused:?}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_large_folder_is_listed_in_parts_without_loss() {
        let folder = folder();
        let expected: Vec<String> = (0..700).map(|i| format!("{i:04}-{}", "x".repeat(200))).collect();
        for name in &expected {
            fs::write(folder.join(name), "").unwrap();
        }
        let mut found: Vec<String> = Vec::new();
        let mut parts = 0;
        loop {
            let after = found.last().cloned();
            let Reply::Names { names, more } = list(folder.to_str().unwrap(), after.as_deref()).unwrap() else {
                panic!("not a list")
            };
            found.extend(names);
            parts += 1;
            if !more {
                break;
            }
        }
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(found, expected);
        assert!(parts > 1);
    }

    #[test]
    fn what_is_missing_is_told_apart_from_other_failures() {
        let error = read("/no/such/file", 0).unwrap_err();
        assert_eq!(error.kind, OpErrorKind::NotFound);
        assert_eq!(error.message, "/no/such/file: No such file or directory (os error 2)");
        assert_eq!(stat("/no/such/file", true), Ok(None));
        assert_eq!(stat("/etc/passwd/below-a-file", true), Ok(None));
    }

    #[test]
    fn an_existing_file_keeps_its_permissions_when_written() {
        let folder = folder();
        let path = folder.join("f");
        let path = path.to_str().unwrap();
        write(path, b"one", Write::Create { mode: 0o666 }).unwrap();
        assert_eq!(stat(path, true).unwrap().unwrap().mode, 0o666);
        set_mode(path, 0o600).unwrap();
        write(path, b"two", Write::Create { mode: 0o666 }).unwrap();
        write(path, b"+", Write::Append).unwrap();
        assert_eq!(stat(path, true).unwrap().unwrap().mode, 0o600);
        assert_eq!(read(path, 0).unwrap(), b"two+");
        let sha256 = digest(path, Algorithm::Sha256).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(sha256, sha2::Sha256::digest(b"two+").to_vec());
    }
}
