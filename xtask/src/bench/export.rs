//! Exports, against `qemu-img convert` with the flags that serve it best. Both write the same disk, and both have what
//! they wrote reach the disk; goldsmith's digests are counted.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};

use super::goldsmith::glance;
use super::{Bench, Found};
use crate::shell;

/// goldsmith's formats, and how `qemu-img` is asked for them, where it can write them.
const FORMATS: [(&str, &[&str]); 10] = [
    ("raw", &["-W", "-m", "16", "-O", "raw"]),
    ("raw.zst", &[]),
    ("qcow2", &["-c", "-W", "-m", "16", "-O", "qcow2"]),
    ("qcow2-zstd", &["-c", "-W", "-m", "16", "-O", "qcow2", "-o", "compression_type=zstd"]),
    ("vmdk", &["-O", "vmdk", "-o", "subformat=streamOptimized"]),
    ("vhd", &["-O", "vpc", "-o", "subformat=dynamic,force_size=on"]),
    ("vhd-fixed", &["-O", "vpc", "-o", "subformat=fixed,force_size=on"]),
    ("vhdx", &["-O", "vhdx", "-o", "subformat=dynamic"]),
    ("ova", &[]),
    ("gcp", &[]),
];

/// Every format alone, by both, and all together.
pub(super) fn export(bench: &Bench) -> Result<Found> {
    let image = bench.image("export")?;
    let (mut found, mut slowest) = (Vec::new(), 0.0_f64);
    let mut note = |name: String, value: f64| found.push((name, value));
    for (format, words) in FORMATS {
        let (seconds, size, _) = by_goldsmith(bench, &image, format)?;
        slowest = slowest.max(seconds);
        note(format!("export {format}"), seconds);
        note(format!("export {format} (MiB)"), size);
        if !words.is_empty() {
            let (seconds, size) = by_qemu_img(bench, &image, words)?;
            note(format!("export {format} by qemu-img"), seconds);
            note(format!("export {format} by qemu-img (MiB)"), size);
        }
    }
    let all = FORMATS.map(|(format, _)| format).join(",");
    let (seconds, _, memory) = by_goldsmith(bench, &image, &all)?;
    note("export all".to_owned(), seconds);
    note("export the slowest alone".to_owned(), slowest);
    note("export memory of goldsmith (MiB)".to_owned(), memory);
    Ok(found)
}

/// Seconds, MiB of file and MiB of memory.
fn by_goldsmith(bench: &Bench, image: &Path, formats: &str) -> Result<(f64, f64, f64)> {
    let output = bench.folder.join("exported");
    // images/NAME/1.0.0/1
    let parts: Vec<String> = image.iter().rev().take(3).map(|part| part.to_string_lossy().into_owned()).collect();
    let id = parts.into_iter().rev().collect::<Vec<_>>().join("/");
    let mut command = bench.goldsmith(&["export", &id, "--quiet", "--format", formats, "--output"]);
    let started = Instant::now();
    let mut child = command.arg(&output).stdout(std::process::Stdio::null()).spawn()?;
    let mut memory = [0.0; 2];
    let status = loop {
        glance(child.id(), &mut memory);
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    let seconds = started.elapsed().as_secs_f64();
    if !status.success() {
        bail!("goldsmith did not export {formats}");
    }
    let mut size = 0.0;
    for entry in fs_err::read_dir(&output)? {
        size += mebibytes(&entry?.path())?;
    }
    fs_err::remove_dir_all(&output)?;
    Ok((seconds, size, memory[0]))
}

fn by_qemu_img(bench: &Bench, image: &Path, words: &[&str]) -> Result<(f64, f64)> {
    let output: PathBuf = bench.folder.join("converted");
    let mut command: Command = shell::command("qemu-img");
    command.args(["convert", "-f", "qcow2"]).args(words).arg(image.join("disk.qcow2")).arg(&output);
    let started = Instant::now();
    shell::run("qemu-img", &mut command)?;
    fs_err::File::open(&output)?.sync_all()?;
    let seconds = started.elapsed().as_secs_f64();
    let size = mebibytes(&output)?;
    fs_err::remove_file(output)?;
    Ok((seconds, size))
}

/// What a file takes of the disk, holes left out.
fn mebibytes(path: &Path) -> Result<f64> {
    use std::os::unix::fs::MetadataExt;
    #[allow(clippy::cast_precision_loss)]
    Ok((fs_err::metadata(path)?.blocks() * 512) as f64 / 1_048_576.0)
}
