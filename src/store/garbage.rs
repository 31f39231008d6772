//! What can go: it can be made again, or nothing uses it.

use std::path::{Path, PathBuf};

use fs_err as fs;

use super::{Error, Store};

/// Something that can go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Garbage {
    /// Where it is.
    pub path: PathBuf,
    /// How much space it takes, in bytes.
    pub bytes: u64,
    /// What it is.
    pub what: &'static str,
}

impl Store {
    /// All that can go. Images, and the newest bytes of base images, never do; what a run uses is locked or newer.
    pub fn garbage(&self) -> Result<Vec<Garbage>, Error> {
        let mut garbage = Vec::new();
        for name in self.names_in(&self.root().join("parents"))? {
            self.old_parents(&name, &mut garbage)?;
        }
        let downloads = self.downloads();
        for name in self.names_in(&downloads)? {
            if name.ends_with(".part") && !self.is_in_use(&downloads.join(&name).with_extension("lock"))? {
                self.note(&downloads.join(name), "a download that was cut", &mut garbage)?;
            }
        }
        let verified = downloads.join("sha256");
        // A build on a parent that a recipe gives by its address reads the download itself.
        let are_downloads_read = self.is_anybody_running()?;
        for name in self.names_in(&verified)?.iter().filter(|_| !are_downloads_read) {
            self.note(&verified.join(name), "a download that a base image was made from", &mut garbage)?;
        }
        for name in self.names_in(&self.root().join("runs"))? {
            let folder = self.root().join("runs").join(name);
            if folder.join(super::run::KEPT).exists() {
                self.note(&folder, "a failed build machine that was kept", &mut garbage)?;
            }
        }
        self.layers_nobody_uses(&mut garbage)?;
        garbage.retain(|item| item.bytes > 0);
        Ok(garbage)
    }

    /// Removes it.
    pub fn remove(&self, garbage: &[Garbage]) -> Result<(), Error> {
        for item in garbage {
            // Somebody may have begun to use a layer since it was listed.
            let lock = item.path.join("lock");
            let _whole = match lock.exists() {
                true => match self.io(super::Lock::try_take(&lock))? {
                    Some(whole) => Some(whole),
                    None => continue,
                },
                false => None,
            };
            let removed = if item.path.is_dir() { fs::remove_dir_all(&item.path) } else { fs::remove_file(&item.path) };
            self.io(removed)?;
        }
        Ok(())
    }

    /// Bytes of a base image that newer ones have replaced. A running build may still read the last but one.
    fn old_parents(&self, name: &str, garbage: &mut Vec<Garbage>) -> Result<(), Error> {
        let folder = self.parent_folder(name);
        if self.is_anybody_running()? || self.is_in_use(&folder.join("lock"))? {
            return Ok(());
        }
        let current = self.io(fs::read_to_string(folder.join("parent.json")).or_else(absent))?;
        for file in self.names_in(&folder)? {
            let Some(digest) = file.strip_suffix(".qcow2") else { continue };
            if !current.contains(digest) {
                self.note(&folder.join(&file), "an old version of a base image", garbage)?;
            }
        }
        Ok(())
    }

    /// The next build makes a layer again, so all may go that nobody is building on.
    fn layers_nobody_uses(&self, garbage: &mut Vec<Garbage>) -> Result<(), Error> {
        for name in self.names_in(&self.layers())? {
            let folder = self.layers().join(name);
            if !self.is_in_use(&folder.join("lock"))? {
                self.note(&folder, "a checkpoint, which the next build makes again", garbage)?;
            }
        }
        Ok(())
    }

    fn is_anybody_running(&self) -> Result<bool, Error> {
        let runs = self.root().join("runs");
        for name in self.names_in(&runs)? {
            let lock = runs.join(name).join(super::run::LOCK);
            if lock.exists() && self.is_in_use(&lock)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_in_use(&self, lock: &Path) -> Result<bool, Error> {
        if !lock.exists() {
            return Ok(false);
        }
        Ok(self.io(super::Lock::try_take(lock))?.is_none())
    }

    fn note(&self, path: &Path, what: &'static str, garbage: &mut Vec<Garbage>) -> Result<(), Error> {
        let bytes = self.io(space(path))?;
        garbage.push(Garbage { path: path.to_owned(), bytes, what });
        Ok(())
    }
}

fn absent(error: std::io::Error) -> std::io::Result<String> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(String::new()) } else { Err(error) }
}

/// Space that a file or folder gives back when it goes. A file with another name elsewhere gives nothing back.
fn space(path: &Path) -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() {
        return Ok(if metadata.nlink() > 1 { 0 } else { metadata.blocks() * 512 });
    }
    let mut total = 0;
    for entry in fs::read_dir(path)? {
        total += space(&entry?.path())?;
    }
    Ok(total)
}
