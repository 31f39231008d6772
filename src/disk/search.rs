//! Searching a sealed disk for bytes that must not be on it.

use std::io;
use std::path::Path;

use aho_corasick::AhoCorasick;
use imago::Mapping;

use super::sealed::open;

const WINDOW: usize = 4 << 20;

/// Which of some byte strings occur on a stand-alone qcow2 disk, as the guest sees it. Content that the guest has
/// compressed or encrypted is not recognised. All are looked for at once: one secret has many forms.
pub fn find<'a>(disk: &Path, needles: &[&'a str]) -> io::Result<Vec<&'a str>> {
    let needles: Vec<&str> = needles.iter().copied().filter(|needle| !needle.is_empty()).collect();
    let finder = AhoCorasick::new(&needles).map_err(io::Error::other)?;
    let overlap = needles.iter().map(|needle| needle.len()).max().unwrap_or(1) - 1;
    let disk = open(disk)?;
    let mut is_found = vec![false; needles.len()];
    let mut window = Vec::with_capacity(WINDOW + overlap);
    let mut offset = 0;
    while offset < disk.size() && !is_found.iter().all(|is_found| *is_found) {
        let (mapping, length) = disk.get_mapping(offset, disk.size() - offset)?;
        if length == 0 {
            break;
        }
        if matches!(mapping, Mapping::Zero { .. }) {
            window.clear();
            offset += length;
            continue;
        }
        let n = usize::try_from(length).unwrap_or(WINDOW).min(WINDOW);
        let kept = window.len();
        window.resize(kept + n, 0);
        disk.read(&mut window[kept..], offset)?;
        offset += n as u64;
        for there in finder.find_overlapping_iter(&window) {
            is_found[there.pattern().as_usize()] = true;
        }
        // A needle may begin in this window and end in the next.
        window.drain(..window.len().saturating_sub(overlap));
    }
    Ok(needles.into_iter().zip(is_found).filter_map(|(needle, is_found)| is_found.then_some(needle)).collect())
}

/// Whether a disk is a stand-alone qcow2 of the kind that this module can search: not compressed with zstd, for
/// instance.
pub fn is_readable(disk: &Path) -> bool {
    open(disk).is_ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn needles_are_found_wherever_they_lie() {
        let folder = tempfile::tempdir().unwrap();
        let raw = folder.path().join("raw");
        let mut bytes = vec![0u8; 24 << 20];
        let mut put = |at: usize, text: &str| bytes[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(5 << 20, "at-a-cluster-start");
        put((12 << 20) - 4, "across-clusters");
        // Dense data, so that the window's own border is crossed too.
        for (i, byte) in bytes[16 << 20..].iter_mut().enumerate() {
            *byte = u8::try_from(i % 251).unwrap();
        }
        let at = (20 << 20) - 7;
        bytes[at..at + 18].copy_from_slice(b"across-two-windows");
        fs_err::write(&raw, bytes).unwrap();
        for compress in [&[][..], &["-c"]] {
            let disk = folder.path().join("disk.qcow2");
            let convert = Command::new("qemu-img")
                .args(["convert", "-f", "raw", "-O", "qcow2"])
                .args(compress)
                .arg(&raw)
                .arg(&disk)
                .status();
            assert!(convert.unwrap().success());
            let needles = ["absent", "across-two-windows", "at-a-cluster-start", "", "across-clusters"];
            let mut found = find(&disk, &needles).unwrap();
            found.sort_unstable();
            assert_eq!(found, ["across-clusters", "across-two-windows", "at-a-cluster-start"]);
        }
    }
}
