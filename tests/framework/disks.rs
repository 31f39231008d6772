//! Images that are broken on purpose: copies of a good one, each changed in one way by tools that are not ours.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::foreign::{ROOT, run, tool};
use super::{Place, host, shared};

/// Where the parent's description has its EFI system partition begin.
const EFI: u64 = 4 << 20;

/// An image in the store, as a raw disk to make broken copies of.
#[derive(Debug)]
pub(crate) struct Pristine {
    folder: tempfile::TempDir,
    image: PathBuf,
}

impl Pristine {
    /// The image with this id.
    pub(crate) fn of(place: &Place, image: &str) -> Self {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let image = place.home().join("images").join(image);
        let mut convert = Command::new("qemu-img");
        convert.args(["convert", "-f", "qcow2", "-O", "raw"]).arg(image.join("disk.qcow2"));
        run(convert.arg(folder.path().join("raw")));
        Self { folder, image }
    }

    /// Puts a copy into the store, with a changed disk and a changed manifest. Returns the copy's id.
    pub(crate) fn broken(
        &self,
        place: &Place,
        name: &str,
        change: impl FnOnce(&Disk<'_>),
        say: impl FnOnce(&mut Value),
    ) -> String {
        let raw = self.folder.path().join("broken");
        run(Command::new("cp").arg("--sparse=always").arg(self.folder.path().join("raw")).arg(&raw));
        change(&Disk { raw: &raw, folder: self.folder.path() });
        let id = format!("{name}/1.0.0/1");
        let copy = place.home().join("images").join(&id);
        fs_err::create_dir_all(&copy).unwrap();
        run(Command::new("cp").arg("-r").arg(self.image.join("documents")).arg(&copy));
        let disk = copy.join("disk.qcow2");
        run(Command::new("qemu-img").args(["convert", "-f", "raw", "-O", "qcow2"]).arg(&raw).arg(&disk));
        let output = Command::new("sha256sum").arg(&disk).output().unwrap();
        let digest = String::from_utf8(output.stdout).unwrap()[..64].to_owned();
        let text = super::read(&self.image.join("manifest.json"));
        let mut manifest: Value = serde_json::from_str(&text).unwrap();
        manifest["image"] = id.as_str().into();
        manifest["disk"]["sha256"] = digest.as_str().into();
        manifest["disk"]["bytes"] = fs_err::metadata(&disk).unwrap().len().into();
        manifest["test"]["disk"] = digest.into();
        say(&mut manifest);
        fs_err::write(copy.join("manifest.json"), manifest.to_string()).unwrap();
        host::give_all(&place.home().join("images").join(name), shared().user);
        id
    }
}

/// Puts a copy of an image under another id into the store, with the very same disk.
pub(crate) fn renamed(place: &Place, image: &str, id: &str) {
    let images = place.home().join("images");
    let copy = images.join(id);
    fs_err::create_dir_all(copy.parent().unwrap()).unwrap();
    run(Command::new("cp").args(["-r", "--sparse=always", "--reflink=auto"]).arg(images.join(image)).arg(&copy));
    let text = super::read(&copy.join("manifest.json"));
    let mut manifest: Value = serde_json::from_str(&text).unwrap();
    manifest["image"] = id.into();
    fs_err::write(copy.join("manifest.json"), manifest.to_string()).unwrap();
    host::give_all(&images.join(id.split('/').next().unwrap()), shared().user);
}

/// A raw disk of the shared parent's kind, to be changed.
#[derive(Debug)]
pub(crate) struct Disk<'a> {
    raw: &'a Path,
    folder: &'a Path,
}

impl Disk<'_> {
    /// Has e2fsprogs change the root file system. It says what went wrong and ends well all the same.
    pub(crate) fn debugfs(&self, commands: &[&str]) {
        let file = self.folder.join("commands");
        fs_err::write(&file, commands.join("\n") + "\n").unwrap();
        let disk = format!("{}?offset={ROOT}", self.raw.display());
        let output = Command::new(tool("debugfs")).args(["-w", "-f"]).arg(&file).arg(disk).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let is_version = |line: &&str| line.starts_with("debugfs ");
        let complaints: Vec<&str> = said.lines().filter(|line| !is_version(line)).collect();
        assert!(output.status.success() && complaints.is_empty(), "{commands:?}: {said}");
    }

    /// The text of a file in the root file system.
    pub(crate) fn text(&self, path: &str) -> String {
        self.ask(&format!("cat {path}"))
    }

    fn ask(&self, command: &str) -> String {
        let disk = format!("{}?offset={ROOT}", self.raw.display());
        let output = Command::new(tool("debugfs")).args(["-R", command]).arg(disk).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Writes a new file into the root file system, whose folder is there.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let file = self.folder.join("content");
        fs_err::write(&file, text).unwrap();
        self.debugfs(&[&format!("write {} {path}", file.display())]);
    }

    /// Writes a file into the root file system, over one that is there.
    pub(crate) fn replace(&self, path: &str, text: &str) {
        if self.ask(&format!("stat {path}")).contains("Inode:") {
            self.debugfs(&[&format!("rm {path}")]);
        }
        self.write(path, text);
    }

    /// Adds lines to a file in the root file system.
    pub(crate) fn append(&self, path: &str, lines: &str) {
        self.replace(path, &(self.text(path) + lines));
    }

    /// Removes a file from the EFI system partition.
    pub(crate) fn remove_from_efi(&self, path: &str) {
        run(Command::new("mdel").arg("-i").arg(format!("{}@@{EFI}", self.raw.display())).arg(format!("::{path}")));
    }

    /// Overwrites a part of the disk with zeroes; counted from its end if `at` is negative.
    pub(crate) fn zero(&self, at: i64, length: usize) {
        use std::io::{Seek, SeekFrom, Write};
        let mut file = fs_err::File::options().write(true).open(self.raw).unwrap();
        let place = if at < 0 { SeekFrom::End(at) } else { SeekFrom::Start(at.unsigned_abs()) };
        file.seek(place).unwrap();
        file.write_all(&vec![0; length]).unwrap();
    }
}
