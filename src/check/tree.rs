//! The files of a disk, as far as they were read: what they are, and the content of those that say something.
//!
//! Links are followed inside the tree only, as the image's own system would: an absolute one begins at its root.

use std::collections::BTreeMap;
use std::io::{self, Read};

/// The kernel's limit, `MAXSYMLINKS` of Linux's `include/linux/namei.h`.
const MOST_LINKS: usize = 40;
/// A system has a hundred thousand files. Each takes some memory here, however short its name is.
const MOST_FILES: usize = 1_000_000;

/// What `find -printf` is told to write of each file: type, permissions, owner, size, path, a link's target, each with a
/// zero byte behind it.
pub const LISTING: &str = r"%y\0%m\0%U\0%s\0%P\0%l\0";

/// What something in a tree is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link, and what it says.
    Link(String),
    /// A device, socket or pipe.
    Other,
}

/// Something in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Its permissions.
    pub mode: u32,
    /// Its owner's number.
    pub owner: u32,
    /// Its size in bytes.
    pub size: u64,
    content: Option<Vec<u8>>,
}

/// The files of a file system, or of several as they are mounted together. Paths begin with `/`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
}

impl Tree {
    /// The tree of a listing that was made with [`LISTING`]. Names that are no UTF-8 are shown with replacement
    /// characters.
    pub fn of_listing(listing: &[u8]) -> io::Result<Self> {
        let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
        let mut fields = listing.split(|&byte| byte == 0);
        let mut nodes = BTreeMap::new();
        while let (Some(kind), Some(mode), Some(owner), Some(size), Some(path), Some(target)) =
            (fields.next(), fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
        {
            let kind = match kind {
                b"f" => Kind::File,
                b"d" => Kind::Folder,
                b"l" => Kind::Link(text(target)),
                _ => Kind::Other,
            };
            let mode = u32::from_str_radix(&text(mode), 8).unwrap_or(0);
            let owner = text(owner).parse().unwrap_or(0);
            let size = text(size).parse().unwrap_or(0);
            nodes.insert(format!("/{}", text(path)), Node { kind, mode, owner, size, content: None });
            if nodes.len() > MOST_FILES {
                return Err(io::Error::other(format!("it has more than {MOST_FILES} files")));
            }
        }
        Ok(Self { nodes })
    }

    /// Adds the content of files, from a tar archive. Files that are not in the listing are left out.
    pub fn add_content(&mut self, archive: &[u8]) -> io::Result<()> {
        // A sparse file in an archive may say that it is larger than the archive.
        let mut left = archive.len() as u64;
        for entry in tar::Archive::new(archive).entries()? {
            let entry = entry?;
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let path = format!("/{}", path.trim_start_matches("./"));
            let Some(node) = self.nodes.get_mut(&path).filter(|node| node.kind == Kind::File) else { continue };
            let mut content = Vec::new();
            entry.take(left).read_to_end(&mut content)?;
            left -= content.len() as u64;
            node.content = Some(content);
        }
        Ok(())
    }

    /// Puts another file system into a folder of this one, as mounting does.
    pub fn graft(&mut self, at: &str, other: &Self) {
        let at = at.trim_end_matches('/');
        self.nodes.retain(|path, _| !is_below(path, at));
        let moved = other.nodes.iter().map(|(path, node)| (format!("{at}{path}"), node.clone()));
        self.nodes.extend(moved);
    }

    /// What is at a path, links followed.
    pub fn node(&self, path: &str) -> Option<&Node> {
        self.nodes.get(&self.real(path)?)
    }

    /// Whether there is something at a path, links followed.
    pub fn has(&self, path: &str) -> bool {
        self.real(path).is_some_and(|path| path.is_empty() || self.nodes.contains_key(&path))
    }

    /// What a link says. None for anything else.
    pub fn link(&self, path: &str) -> Option<&str> {
        let (folder, name) = path.rsplit_once('/')?;
        match &self.nodes.get(&format!("{}/{name}", self.real(folder)?))?.kind {
            Kind::Link(target) => Some(target),
            _ => None,
        }
    }

    /// The text of a file, if it was read.
    pub fn text(&self, path: &str) -> Option<String> {
        Some(String::from_utf8_lossy(self.node(path)?.content.as_ref()?).into_owned())
    }

    /// The names in a folder, sorted.
    pub fn names(&self, folder: &str) -> Vec<&str> {
        let Some(folder) = self.real(folder) else { return Vec::new() };
        let start = folder.len() + 1;
        let names = self.below_real(&folder).map(|(path, _)| &path[start..]);
        names.filter(|name| !name.contains('/')).collect()
    }

    /// Everything below a folder, by its path without links.
    pub fn below<'a>(&'a self, folder: &str) -> impl Iterator<Item = (&'a str, &'a Node)> + use<'a> {
        let folder = self.real(folder).unwrap_or_else(|| "\0".to_owned());
        self.below_real(&folder)
    }

    /// The files of a folder whose names end so, with their texts, sorted by name.
    pub fn texts(&self, folder: &str, end: &str) -> Vec<(String, String)> {
        let names = self.names(folder).into_iter().filter(|name| name.ends_with(end));
        names.filter_map(|name| Some((format!("{folder}/{name}"), self.text(&format!("{folder}/{name}"))?))).collect()
    }

    /// All texts that were read, with their paths.
    pub fn all_texts(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.nodes.iter().filter_map(|(path, node)| Some((path.as_str(), node.content.as_deref()?)))
    }

    fn below_real<'a>(&'a self, folder: &str) -> impl Iterator<Item = (&'a str, &'a Node)> + use<'a> {
        // `0` is the character behind `/`.
        let range = format!("{folder}/")..format!("{folder}0");
        self.nodes.range(range).map(|(path, node)| (path.as_str(), node))
    }

    /// A path without links in it; empty for the root. None if its links lead in a circle.
    pub fn real(&self, path: &str) -> Option<String> {
        let mut left: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let (mut real, mut links) = (String::new(), 0);
        while let Some(part) = left.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => real.truncate(real.rfind('/').unwrap_or(0)),
                name => {
                    let next = format!("{real}/{name}");
                    let Some(Node { kind: Kind::Link(target), .. }) = self.nodes.get(&next) else {
                        real = next;
                        continue;
                    };
                    links += 1;
                    if links > MOST_LINKS {
                        return None;
                    }
                    if target.starts_with('/') {
                        real.clear();
                    }
                    left.extend(target.split('/').rev().map(str::to_owned));
                }
            }
        }
        Some(real)
    }
}

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
impl Tree {
    /// Adds a file and the folders above it; for fixtures.
    pub(super) fn with(mut self, path: &str, content: &str) -> Self {
        for (at, _) in path.match_indices('/').skip(1) {
            let folder = Node { kind: Kind::Folder, mode: 0o755, owner: 0, size: 0, content: None };
            self.nodes.entry(path[..at].to_owned()).or_insert(folder);
        }
        let (size, content) = (content.len() as u64, Some(content.as_bytes().to_vec()));
        self.nodes.insert(path.to_owned(), Node { kind: Kind::File, mode: 0o644, owner: 0, size, content });
        self
    }

    /// Adds a link; for fixtures.
    pub(super) fn with_link(mut self, path: &str, target: &str) -> Self {
        self = self.with(path, "");
        let kind = Kind::Link(target.to_owned());
        self.nodes.insert(path.to_owned(), Node { kind, mode: 0o777, owner: 0, size: 0, content: None });
        self
    }

    /// Takes away what is at a path and below; for fixtures.
    pub(super) fn without(mut self, path: &str) -> Self {
        self.nodes.retain(|known, _| known != path && !is_below(known, path));
        self
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_find_and_tar_say_is_understood() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs_err::create_dir_all(at("usr/etc")).unwrap();
        fs_err::write(at("usr/etc/a name\nof two lines"), "content\n").unwrap();
        fs_err::write(at("usr/etc/unread"), "x").unwrap();
        symlink("/usr/etc", at("etc")).unwrap();
        symlink("../../etc/unread", at("usr/etc/link")).unwrap();
        let run = |script: &str| {
            let output = Command::new("sh").args(["-c", script]).current_dir(folder.path()).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            output.stdout
        };
        let mut tree = Tree::of_listing(&run(&format!("find . -mindepth 1 -printf '{LISTING}'"))).unwrap();
        tree.add_content(&run("find . -name 'a*' -print0 | tar -cf - --no-recursion --null -T -")).unwrap();
        assert_eq!(tree.text("/etc/a name\nof two lines").unwrap(), "content\n");
        assert_eq!(tree.node("/etc/link").unwrap().size, 1);
        assert_eq!(tree.text("/etc/link"), None, "it was not read");
        assert_eq!(tree.link("/etc/link"), Some("../../etc/unread"));
        assert_eq!(tree.names("/etc"), ["a name\nof two lines", "link", "unread"]);
        assert_eq!(tree.names("/"), ["etc", "usr"]);
        assert_eq!(tree.below("/usr").count(), 4);
        assert!(tree.has("/") && tree.has("/etc/../etc/unread") && !tree.has("/etc/absent"));
    }

    #[test]
    fn links_stay_inside_and_circles_end() {
        let tree = Tree::default().with("/etc/fstab", "x").with_link("/a", "../../../etc").with_link("/b", "/b/c");
        assert_eq!(tree.text("/a/fstab").unwrap(), "x");
        assert!(!tree.has("/b"));
        assert_eq!(tree.below("/b").count(), 0);
    }

    #[test]
    fn a_file_system_is_mounted() {
        let mut root = Tree::default().with("/boot/hidden", "").with("/boot-other", "");
        root.graft("/boot/", &Tree::default().with("/grub/grub.cfg", "menu"));
        assert_eq!(root.text("/boot/grub/grub.cfg").unwrap(), "menu");
        assert!(!root.has("/boot/hidden") && root.has("/boot-other"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000), path in "[a/.]{0,20}") {
            let mut tree = Tree::of_listing(&bytes).unwrap();
            let _any = tree.add_content(&bytes);
            let _any = tree.names(&path);
            let _any = tree.link(&path);
            let _any = tree.below(&path).count();
        }
    }
}
