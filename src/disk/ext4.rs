//! An ext4 file system from a tar archive, made by an ordinary user.
//!
//! `mke2fs -d` copies a folder into a new file system, with the owners that the files have on the host. An ordinary user
//! can only make files that are his own. So the archive is unpacked as whoever we are, what could not be set on the host
//! is remembered, and `debugfs` sets it inside the finished file system: no root, no user namespace, no fakeroot, and one
//! way for everybody (1.6 s for the 20,000 files of a Debian system).

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use fs_err as fs;
use tar::{Archive, Entry, EntryType};

use super::partition::Extent;
use crate::host::file;
use crate::host::process::{self, Program};

/// Features are spelt out, because the defaults of `mke2fs` differ between distributions: GRUB 2.06 can't read a file
/// system with `metadata_csum_seed`, which newer ones switch on.
const CONFIGURATION: &str = "\
[defaults]
    base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
    default_mntopts = acl,user_xattr
    enable_periodic_fsck = 0
    blocksize = 4096
    inode_size = 256
    inode_ratio = 16384
[fs_types]
    ext4 = {
        features = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
    }
    root = {
    }
";

/// Why a file system could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file on the host could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A program failed.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// The archive holds something that a root file system does not.
    #[error("the archive can't be unpacked: `{path}` {why}")]
    Archive {
        /// The entry.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// `debugfs`, whose exit status says nothing, complained.
    #[error("`debugfs` could not set the owners of the new file system:\n{0}")]
    Debugfs(String),
}

/// A root file system unpacked into a folder.
#[derive(Debug)]
pub struct Tree {
    folder: PathBuf,
    attributes: Vec<Attributes>,
    links: BTreeSet<PathBuf>,
    bytes: u64,
}

/// What a file has in the archive and lacks on the host.
#[derive(Debug)]
struct Attributes {
    /// Path from the root, beginning with a slash.
    path: String,
    /// Type and permission bits, where the host's differ.
    mode: Option<u32>,
    uid: u32,
    gid: u32,
    /// Extended attributes by name.
    extended: Vec<(String, Vec<u8>)>,
}

impl Tree {
    /// Unpacks an archive into an empty folder. Devices below `/dev` are left out: the kernel makes them.
    pub fn unpack(archive: impl Read, folder: &Path) -> Result<Self, Error> {
        let mut tree = Self { folder: folder.to_owned(), attributes: Vec::new(), links: BTreeSet::new(), bytes: 0 };
        let mut archive = Archive::new(archive);
        for entry in archive.entries()? {
            tree.unpack_entry(entry?)?;
        }
        Ok(tree)
    }

    fn unpack_entry(&mut self, mut entry: Entry<'_, impl Read>) -> Result<(), Error> {
        let relative = entry.path()?.into_owned();
        let refuse = |why: &str| Error::Archive { path: relative.display().to_string(), why: why.to_owned() };
        let relative = clean(&relative).ok_or_else(|| refuse("leaves the root"))?;
        self.check_ancestors(&relative)?;
        let place = self.folder.join(&relative);
        let header = entry.header().clone();
        let mode = header.mode()? & 0o7777;
        let kind = match header.entry_type() {
            EntryType::Directory => {
                match fs::create_dir(&place) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
                    _ => fs::set_permissions(&place, PermissionsExt::from_mode(mode & 0o777 | 0o700))?,
                }
                0o040_000
            }
            EntryType::Regular | EntryType::Continuous => {
                self.bytes += header.size()?;
                unpack_file(&mut entry, &place, mode, header.mtime()?)?;
                0o100_000
            }
            EntryType::Symlink => {
                let target = entry.link_name()?.ok_or_else(|| refuse("is a link to nowhere"))?;
                std::os::unix::fs::symlink(target, &place)?;
                self.links.insert(relative.clone());
                0o120_000
            }
            EntryType::Link => return self.hard_link(&entry, &relative),
            EntryType::Char | EntryType::Block | EntryType::Fifo if relative.starts_with("dev") => return Ok(()),
            other => return Err(refuse(&format!("is of a kind that is not expected here ({other:?})"))),
        };
        let host_mode = fs::symlink_metadata(&place)?.permissions().mode();
        let wanted = kind | if kind == 0o120_000 { 0o777 } else { mode };
        let path = self.inner_path(&relative)?;
        let (uid, gid) = (owner_number(header.uid()?, &path)?, owner_number(header.gid()?, &path)?);
        let extended = extended_attributes(&mut entry)?;
        let mode = (host_mode != wanted).then_some(wanted);
        self.attributes.push(Attributes { path, mode, uid, gid, extended });
        Ok(())
    }

    fn hard_link(&self, entry: &Entry<'_, impl Read>, relative: &Path) -> Result<(), Error> {
        let refuse = |why: &str| Error::Archive { path: relative.display().to_string(), why: why.to_owned() };
        let target =
            entry.link_name()?.and_then(|target| clean(&target)).ok_or_else(|| refuse("links out of the root"))?;
        self.check_ancestors(&target)?;
        Ok(fs::hard_link(self.folder.join(target), self.folder.join(relative))?)
    }

    /// A path through a link could leave the folder, so none is followed.
    fn check_ancestors(&self, relative: &Path) -> Result<(), Error> {
        match relative.ancestors().skip(1).find(|ancestor| self.links.contains(*ancestor)) {
            Some(link) => Err(Error::Archive {
                path: relative.display().to_string(),
                why: format!("is below the link `{}`", link.display()),
            }),
            None => Ok(()),
        }
    }

    /// The path in the new file system. debugfs reads commands by lines, so a line break can't be part of a name.
    fn inner_path(&self, relative: &Path) -> Result<String, Error> {
        match relative.to_str() {
            Some(path) if !path.contains(['\n', '"']) => Ok(format!("/{path}")),
            _ => Err(Error::Archive {
                path: relative.display().to_string(),
                why: "has a name that can't be handled".to_owned(),
            }),
        }
    }

    /// Size of all files together, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A file's content. Links are not followed.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, Error> {
        let relative = path.trim_start_matches('/');
        self.check_ancestors(Path::new(relative))?;
        let place = self.folder.join(relative);
        if fs::symlink_metadata(&place)?.is_symlink() {
            return Err(Error::Archive { path: path.to_owned(), why: "is a link, where a file is needed".to_owned() });
        }
        Ok(fs::read(place)?)
    }

    /// Names in a folder, sorted.
    pub fn list(&self, path: &str) -> Result<Vec<String>, Error> {
        let relative = path.trim_start_matches('/');
        self.check_ancestors(&Path::new(relative).join("."))?;
        let mut names = Vec::new();
        for entry in fs::read_dir(self.folder.join(relative))? {
            names.extend(entry?.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Puts a file of root's into the tree, with the folders above it, over what is there.
    pub fn write(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<(), Error> {
        let relative = PathBuf::from(path.trim_start_matches('/'));
        self.check_ancestors(&relative)?;
        let mut missing: Vec<&Path> = relative.ancestors().skip(1).collect();
        missing.reverse();
        for folder in missing {
            if !self.folder.join(folder).exists() {
                fs::create_dir(self.folder.join(folder))?;
                let path = self.inner_path(folder)?;
                self.forget(&path);
                self.attributes.push(Attributes { path, mode: Some(0o040_755), uid: 0, gid: 0, extended: Vec::new() });
            }
        }
        self.remove(path)?;
        fs::write(self.folder.join(&relative), content)?;
        let path = self.inner_path(&relative)?;
        self.attributes.push(Attributes { path, mode: Some(0o100_000 | mode), uid: 0, gid: 0, extended: Vec::new() });
        self.bytes += content.len() as u64;
        Ok(())
    }

    /// Puts a link of root's into the tree, over what is there.
    pub fn link(&mut self, path: &str, target: &str) -> Result<(), Error> {
        self.remove(path)?;
        let relative = PathBuf::from(path.trim_start_matches('/'));
        std::os::unix::fs::symlink(target, self.folder.join(&relative))?;
        let path = self.inner_path(&relative)?;
        self.attributes.push(Attributes { path, mode: None, uid: 0, gid: 0, extended: Vec::new() });
        self.links.insert(relative);
        Ok(())
    }

    /// Removes a file or link, if there is one.
    pub fn remove(&mut self, path: &str) -> Result<(), Error> {
        let relative = PathBuf::from(path.trim_start_matches('/'));
        self.check_ancestors(&relative)?;
        self.links.remove(&relative);
        let inner = self.inner_path(&relative)?;
        self.forget(&inner);
        Ok(file::remove_if_there(&self.folder.join(relative))?)
    }

    fn forget(&mut self, path: &str) {
        self.attributes.retain(|attributes| attributes.path != path);
    }

    /// Makes the file system with this content in a part of a disk. `scratch` is a folder for temporary files.
    pub async fn make(&self, disk: &Path, place: Extent, uuid: &str, label: &str, scratch: &Path) -> Result<(), Error> {
        let configuration = scratch.join("mke2fs.conf");
        fs::write(&configuration, CONFIGURATION)?;
        system_program("mke2fs")
            .args(["-q", "-F", "-t", "ext4", "-T", "root", "-L", label, "-U", uuid])
            .arg("-E")
            .arg(format!("offset={},root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0", place.start))
            .arg("-d")
            .arg(&self.folder)
            .arg(disk)
            .arg(format!("{}k", place.length / super::KIB))
            .env("MKE2FS_CONFIG", &configuration)
            .run()
            .await?;
        let commands = scratch.join("debugfs.commands");
        fs::write(&commands, self.debugfs_commands(scratch)?)?;
        let target = format!("{}?offset={}", disk.display(), place.start);
        let mut debugfs = system_program("debugfs").arg("-w").arg("-f").arg(&commands).arg(&target).spawn()?;
        complaints(&mut debugfs).await?;
        debugfs.success().await?;
        Ok(system_program("e2fsck").args(["-f", "-n"]).arg(&target).run().await?)
    }

    fn debugfs_commands(&self, scratch: &Path) -> io::Result<String> {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let mut commands = String::new();
        for (number, file) in self.attributes.iter().enumerate() {
            let mut set = |field: &str, value: String| {
                // Writing to a String can't fail.
                let _infallible = writeln!(commands, "set_inode_field \"{}\" {field} {value}", file.path);
            };
            // mke2fs gives the root to root by itself, whoever runs it.
            let ours = if file.path == "/" { (0, 0) } else { (uid, gid) };
            if file.uid != ours.0 {
                set("uid", file.uid.to_string());
            }
            if file.gid != ours.1 {
                set("gid", file.gid.to_string());
            }
            if let Some(mode) = file.mode {
                set("mode", format!("0{mode:o}"));
            }
            for (index, (name, value)) in file.extended.iter().enumerate() {
                let content = scratch.join(format!("attribute-{number}-{index}"));
                fs::write(&content, value)?;
                let _infallible = writeln!(commands, "ea_set -f \"{}\" \"{}\" {name}", content.display(), file.path);
            }
        }
        Ok(commands)
    }
}

/// debugfs echoes every command to standard output and says what failed there or on standard error.
async fn complaints(debugfs: &mut process::Child) -> Result<(), Error> {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let mut complaints = String::new();
    if let Some(stdout) = debugfs.take_stdout() {
        let mut lines = BufReader::new(stdout).lines();
        while let Some(line) = lines.next_line().await? {
            if !line.starts_with("debugfs: ") && complaints.len() < 2000 {
                complaints.push_str(&line);
                complaints.push('\n');
            }
        }
    }
    debugfs.wait().await?;
    let banner = |line: &&str| !line.starts_with("debugfs 1.");
    complaints.extend(debugfs.stderr().lines().filter(banner).map(|line| format!("{line}\n")));
    if complaints.trim().is_empty() { Ok(()) } else { Err(Error::Debugfs(complaints)) }
}

/// A program that an ordinary user's `PATH` may not reach.
fn system_program(name: &str) -> Program {
    Program::new(process::find(name).unwrap_or_else(|| name.into()))
}

fn unpack_file(entry: &mut impl Read, place: &Path, mode: u32, modified: u64) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(place)?;
    io::copy(entry, &mut file)?;
    file.flush()?;
    // Python compares the time of a source file with the one noted in its compiled form.
    file.file().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(modified))?;
    // Set-id bits on the host would be ours.
    fs::set_permissions(place, PermissionsExt::from_mode(mode & 0o777 | 0o600))
}

fn extended_attributes(entry: &mut Entry<'_, impl Read>) -> io::Result<Vec<(String, Vec<u8>)>> {
    const PREFIX: &str = "SCHILY.xattr.";
    let mut found = Vec::new();
    let Some(extensions) = entry.pax_extensions()? else { return Ok(found) };
    for extension in extensions {
        let extension = extension?;
        let name = extension.key().unwrap_or_default().strip_prefix(PREFIX);
        // An ordinary user's unpacked copy can't carry them; of the host's own labels none is wanted.
        if let Some(name @ "security.capability") = name {
            found.push((name.to_owned(), extension.value_bytes().to_vec()));
        }
    }
    Ok(found)
}

fn owner_number(number: u64, path: &str) -> Result<u32, Error> {
    let too_large = |_| Error::Archive { path: path.to_owned(), why: format!("has the owner {number}") };
    u32::try_from(number).map_err(too_large)
}

/// A path without `.`, or nothing if it goes up or is absolute.
fn clean(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(clean)
}

#[cfg(test)]
mod tests {
    use tar::{Builder, Header};

    use super::super::MIB;
    use super::*;

    fn entry(builder: &mut Builder<Vec<u8>>, path: &str, kind: EntryType, mode: u32, owner: u64, content: &str) {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner);
        header.set_mtime(1_600_000_000);
        if matches!(kind, EntryType::Symlink | EntryType::Link) {
            header.set_size(0);
            builder.append_link(&mut header, path, content).unwrap();
        } else {
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, path, content.as_bytes()).unwrap();
        }
    }

    fn archive(fill: impl FnOnce(&mut Builder<Vec<u8>>)) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        fill(&mut builder);
        builder.into_inner().unwrap()
    }

    async fn debugfs(disk: &Path, offset: u64, command: &str) -> String {
        let target = format!("{}?offset={offset}", disk.display());
        let output = system_program("debugfs").args(["-R", command, &target]).output().await.unwrap();
        String::from_utf8(output).unwrap()
    }

    #[tokio::test]
    async fn owners_modes_links_and_times_arrive_whoever_makes_it() {
        let bytes = archive(|b| {
            entry(b, "./", EntryType::Directory, 0o755, 0, "");
            entry(b, "./etc", EntryType::Directory, 0o755, 0, "");
            entry(b, "./etc/shadow", EntryType::Regular, 0o640, 42, "secret");
            entry(b, "./etc/none", EntryType::Regular, 0o000, 7, "");
            entry(b, "./sudo", EntryType::Regular, 0o4755, 0, "binary");
            entry(b, "./sudo2", EntryType::Link, 0, 0, "./sudo");
            entry(b, "./tmp", EntryType::Directory, 0o1777, 0, "");
            entry(b, "./bin", EntryType::Symlink, 0o777, 0, "/usr/bin");
            entry(b, "./name with space", EntryType::Regular, 0o644, 1000, "");
        });
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir(&root).unwrap();
        let mut tree = Tree::unpack(&bytes[..], &root).unwrap();
        tree.write("/etc/new/fstab", 0o600, b"x").unwrap();
        tree.link("/etc/none", "shadow").unwrap();
        let disk = folder.path().join("disk");
        fs::File::create(&disk).unwrap().set_len(64 * MIB).unwrap();
        let place = Extent { start: 2 * MIB, length: 40 * MIB };
        let uuid = "11111111-2222-4333-8444-555555555555";
        tree.make(&disk, place, uuid, "root", folder.path()).await.unwrap();
        let list = debugfs(&disk, place.start, "ls -p /").await + &debugfs(&disk, place.start, "ls -p /etc").await;
        let mut seen: Vec<String> = list
            .lines()
            .filter_map(|line| {
                let fields: Vec<&str> = line.split('/').collect();
                let name = *fields.get(5)?;
                (!name.starts_with('.') && name != "lost+found")
                    .then(|| format!("{} {}:{} {name}", fields[2], fields[3], fields[4]))
            })
            .collect();
        seen.sort();
        insta::assert_snapshot!(seen.join("\n"), @r"
        040755 0:0 etc
        040755 0:0 new
        041777 0:0 tmp
        100640 42:42 shadow
        100644 1000:1000 name with space
        104755 0:0 sudo
        104755 0:0 sudo2
        120777 0:0 bin
        120777 0:0 none
        ");
        assert!(debugfs(&disk, place.start, "stat /etc/shadow").await.contains("mtime: 0x5f5e1000"));
    }

    #[test]
    fn an_archive_cannot_write_outside_its_folder() {
        for (what, bytes) in [
            (
                "up",
                archive(|b| {
                    let mut header = Header::new_gnu();
                    header.set_size(0);
                    header.as_gnu_mut().unwrap().name[..9].copy_from_slice(b"../escape");
                    header.set_cksum();
                    b.append(&header, &b""[..]).unwrap();
                }),
            ),
            (
                "through a link",
                archive(|b| {
                    entry(b, "out", EntryType::Symlink, 0o777, 0, "/tmp");
                    entry(b, "out/escape", EntryType::Regular, 0o644, 0, "x");
                }),
            ),
            (
                "by a hard link",
                archive(|b| {
                    entry(b, "out", EntryType::Symlink, 0o777, 0, "/etc");
                    entry(b, "passwd", EntryType::Link, 0o644, 0, "out/passwd");
                }),
            ),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let error = Tree::unpack(&bytes[..], folder.path()).unwrap_err();
            assert!(matches!(error, Error::Archive { .. }), "{what}: {error}");
        }
    }

    #[test]
    fn devices_belong_to_dev_alone() {
        let folder = tempfile::tempdir().unwrap();
        let good = archive(|b| {
            entry(b, "dev", EntryType::Directory, 0o755, 0, "");
            entry(b, "dev/null", EntryType::Char, 0o666, 0, "");
        });
        Tree::unpack(&good[..], folder.path()).unwrap();
        let bad = archive(|b| entry(b, "null", EntryType::Char, 0o666, 0, ""));
        let error = Tree::unpack(&bad[..], folder.path()).unwrap_err();
        insta::assert_snapshot!(error, @"the archive can't be unpacked: `null` is of a kind that is not expected here (Char)");
    }
}
