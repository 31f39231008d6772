//! What is looked at on the host: processes, files, disks.

use std::path::Path;
use std::process::{Command, Stdio};

/// Ids of QEMU processes that a goldsmith with this process id has started. Their files lie in its working folders, whose
/// names hold its id.
pub(crate) fn machines_of(goldsmith: u32) -> Vec<i32> {
    let needle = format!("-{goldsmith}-");
    let mut found = Vec::new();
    for name in names_in(Path::new("/proc")) {
        let Ok(id) = name.parse::<i32>() else { continue };
        // A process may end while it is looked at.
        let Ok(line) = fs_err::read(format!("/proc/{id}/cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).into_owned();
        let is_qemu = line.split('\0').next().is_some_and(|program| program.contains("qemu-system"));
        if is_qemu && line.contains("/runs/") && line.contains(&needle) {
            found.push(id);
        }
    }
    found
}

pub(super) fn user_exists(name: &str) -> bool {
    let users = fs_err::read_to_string("/etc/passwd").unwrap_or_default();
    users.lines().any(|line| line.split(':').next() == Some(name))
}

/// Whether a user, or who runs the tests, may make user namespaces, which mmdebstrap and isolated guests need. In a plain
/// chroot nobody may.
pub(crate) fn may_make_namespaces(user: Option<&str>) -> bool {
    let become_user = user.map(|user| ["setpriv", "--reuid", user, "--regid", user, "--init-groups", "--"]);
    let mut words = become_user.iter().flatten().copied().chain(["unshare", "--user", "--map-root-user", "true"]);
    let mut unshare = Command::new(words.next().unwrap_or_default());
    unshare.args(words).stderr(Stdio::null());
    unshare.status().is_ok_and(|status| status.success())
}

/// Whether a process has something of its own to do when a signal comes: proc(5), `SigCgt`.
pub(crate) fn catches(process: u32, signal: rustix::process::Signal) -> bool {
    let status = fs_err::read_to_string(format!("/proc/{process}/status")).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() >> (signal.as_raw() - 1) & 1 == 1
}

/// Makes a folder somebody's.
pub(super) fn give(folder: &Path, user: Option<&str>) {
    if let Some(user) = user {
        let status = Command::new("chown").arg(user).arg(folder).status().unwrap();
        assert!(status.success());
    }
}

/// The same with all that is in it.
pub(super) fn give_all(folder: &Path, user: Option<&str>) {
    if let Some(user) = user {
        let status = Command::new("chown").args(["-R", user]).arg(folder).status().unwrap();
        assert!(status.success());
    }
}

pub(super) fn remove(folder: &Path) {
    if folder.exists() {
        fs_err::remove_dir_all(folder).unwrap();
    }
}

/// Names in a folder that may not be there.
pub(crate) fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs_err::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Whether a text stands anywhere on a disk, by another reader than goldsmith's: `qemu-img`, and then the bytes.
pub(crate) fn text_on_disk(disk: &Path, format: &str, text: &str) -> bool {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let raw = folder.path().join("disk.raw");
    let convert =
        Command::new("qemu-img").args(["convert", "-U", "-f", format, "-O", "raw"]).arg(disk).arg(&raw).status();
    assert!(convert.unwrap().success());
    let mut grep = Command::new("grep");
    // In the C locale every byte is a character, and bytes are what is searched.
    grep.args(["--binary-files=text", "--fixed-strings", "--quiet", "--", text]).arg(&raw).env("LC_ALL", "C");
    match grep.status().unwrap().code() {
        Some(0) => true,
        Some(1) => false,
        other => panic!("grep ended with {other:?}"),
    }
}
