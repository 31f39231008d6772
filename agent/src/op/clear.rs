//! Many files at once, by patterns: what would else be a program each.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use goldsmith_agent::message::{Clearing, OpError};

use super::failed;

/// Zeroes for a file that is overwritten.
const CHUNK: usize = 64 << 10;

/// Does something to everything that patterns match. What is not there, or goes meanwhile, is no failure. All of it is tried;
/// the first failure is told.
pub(crate) fn clear(patterns: &[String], how: Clearing) -> Result<(), OpError> {
    let mut first = Ok(());
    for path in patterns.iter().flat_map(|pattern| expand(pattern)) {
        match clear_one(&path, how) {
            Err(error) if error.kind() != io::ErrorKind::NotFound && first.is_ok() => {
                first = Err(failed(&path.to_string_lossy(), &error));
            }
            _ => {}
        }
    }
    first
}

fn clear_one(path: &Path, how: Clearing) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    match how {
        Clearing::Remove if metadata.is_dir() => remove_tree(path, metadata.dev()),
        Clearing::Remove => fs::remove_file(path),
        Clearing::RemoveFiles if metadata.is_dir() => Ok(()),
        Clearing::RemoveFiles => fs::remove_file(path),
        Clearing::Empty if metadata.is_file() && metadata.len() > 0 => open(path)?.set_len(0),
        Clearing::Overwrite if metadata.is_file() => {
            let (mut file, mut left) = (open(path)?, metadata.len());
            while left > 0 {
                let part = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
                file.write_all(&[0; CHUNK][..part])?;
                left -= part as u64;
            }
            // Else the file may be removed before its bytes have gone over the old ones.
            file.sync_data()
        }
        Clearing::Empty | Clearing::Overwrite => Ok(()),
    }
}

/// Removes a folder with all that is in it, but for what is another file system.
fn remove_tree(folder: &Path, device: u64) -> io::Result<()> {
    let parent = folder.parent().map(fs::metadata).transpose()?;
    if parent.is_some_and(|parent| parent.dev() != device) {
        return Ok(());
    }
    for path in names(folder) {
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.is_dir() {
            remove_tree(&path, metadata.dev())?;
        } else {
            fs::remove_file(path)?;
        }
    }
    fs::remove_dir(folder)
}

/// A file that is no link.
fn open(path: &Path) -> io::Result<fs::File> {
    let no_link = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
    OpenOptions::new().write(true).custom_flags(no_link).open(path)
}

/// What a pattern matches, folders before what is in them.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/")];
    let mut parts = pattern.split('/').filter(|part| !part.is_empty()).peekable();
    while let Some(part) = parts.next() {
        found = match part {
            "**" => found.iter().flat_map(|folder| with_all_below(folder)).collect(),
            part if part.contains(['*', '[']) => found.iter().flat_map(|folder| matching(folder, part)).collect(),
            part => found.into_iter().map(|folder| folder.join(part)).collect(),
        };
        if parts.peek().is_none() {
            found.retain(|path| fs::symlink_metadata(path).is_ok());
        }
    }
    found
}

fn names(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    names.sort_unstable();
    names
}

fn matching(folder: &Path, part: &str) -> Vec<PathBuf> {
    let is_match = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| fits(part.as_bytes(), name.as_bytes()))
    };
    names(folder).into_iter().filter(is_match).collect()
}

/// A folder and all folders below it on the same file system; links are not followed.
fn with_all_below(folder: &Path) -> Vec<PathBuf> {
    let device = |path: &Path| fs::symlink_metadata(path).ok().filter(fs::Metadata::is_dir).map(|folder| folder.dev());
    let Ok(first) = fs::metadata(folder).map(|folder| folder.dev()) else { return Vec::new() };
    let mut found = vec![folder.to_owned()];
    let mut next = 0;
    while let Some(folder) = found.get(next) {
        let below: Vec<PathBuf> = names(folder).into_iter().filter(|path| device(path) == Some(first)).collect();
        found.extend(below);
        next += 1;
    }
    found
}

/// Whether a name fits a pattern: `*` is any number of characters, `[0-9]` one of a range, everything else itself.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=name.len()).any(|skipped| fits(rest, &name[skipped..])),
        ([b'[', from, b'-', to, b']', rest @ ..], [first, others @ ..]) => {
            (from..=to).contains(&first) && fits(rest, others)
        }
        ([wanted, rest @ ..], [first, others @ ..]) => wanted == first && fits(rest, others),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_fit() {
        let fit = |pattern: &str, name: &str| fits(pattern.as_bytes(), name.as_bytes());
        assert!(fit("*.gz", "syslog.1.gz") && fit("*", ".hidden") && fit("ssh_host_*_key", "ssh_host_rsa_key"));
        assert!(fit("*-[0-9][0-9]", "messages-26") && fit("a*b*c", "abbc") && fit("x", "x"));
        assert!(!fit("*.gz", "gz") && !fit("*-[0-9]", "a-b") && !fit("", "x") && !fit("x", ""));
    }

    #[test]
    fn what_patterns_match_is_cleared_and_nothing_else() {
        let folder = std::env::temp_dir().join(format!("goldsmith-agent-clear-{}", std::process::id()));
        let at = |name: &str| folder.join(name);
        for name in ["log/journal/id/system.journal", "log/apt/term.log", "log/old.gz", "log/apt/old.1", "outside/kept"]
        {
            fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            fs::write(at(name), "text").unwrap();
        }
        std::os::unix::fs::symlink(at("outside"), at("log/link")).unwrap();
        std::os::unix::fs::symlink(at("outside/kept"), at("log/linked.log")).unwrap();
        let run = |patterns: &[&str], how| {
            let patterns: Vec<String> =
                patterns.iter().map(|pattern| format!("{}/{pattern}", folder.display())).collect();
            clear(&patterns, how).unwrap();
        };
        let text = |name: &str| fs::read_to_string(at(name)).ok();
        run(&["log/**/*.gz", "log/**/*.[0-9]"], Clearing::RemoveFiles);
        run(&["log/**/*"], Clearing::Empty);
        assert_eq!((text("log/old.gz"), text("log/apt/old.1")), (None, None));
        assert_eq!(
            (text("log/apt/term.log").as_deref(), text("log/journal/id/system.journal").as_deref()),
            (Some(""), Some(""))
        );
        assert_eq!(text("outside/kept").as_deref(), Some("text"), "a link was followed");
        run(&["outside/kept"], Clearing::Overwrite);
        assert_eq!(fs::read(at("outside/kept")).unwrap(), [0; 4]);
        run(&["log/*", "not/there/*"], Clearing::Remove);
        assert_eq!(names(&at("log")), Vec::<PathBuf>::new());
        assert!(at("outside/kept").exists());
        fs::remove_dir_all(&folder).unwrap();
    }
}
