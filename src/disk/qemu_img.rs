//! What `qemu-img` does for us.
//!
//! Formats are always named: a guest that writes a qcow2 header into a raw disk must not make it one.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokio::io::AsyncReadExt;

use super::probe::Format;
use crate::host::process::{self, Program};

/// Why a disk could not be handled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `qemu-img` failed.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// `qemu-img` answered something else than was asked.
    #[error("the answer of `qemu-img info` about `{}` can't be understood", path.display())]
    Answer {
        /// The disk.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// Size that a guest sees, in bytes.
pub async fn virtual_size(path: &Path, format: Format) -> Result<u64, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Info {
        virtual_size: u64,
    }
    let program = qemu_img("info").args(["--output=json", "--force-share", "-f", format.qemu_name()]).arg(path);
    let answer = program.output().await?;
    let info: Info =
        serde_json::from_slice(&answer).map_err(|source| Error::Answer { path: path.to_owned(), source })?;
    Ok(info.virtual_size)
}

/// Makes an overlay: reads come from `parent`, a qcow2, until something is written. `size` in bytes is at least the
/// parent's.
pub async fn create_overlay(path: &Path, parent: &Path, size: u64) -> Result<(), Error> {
    let program = qemu_img("create").args(["-q", "-f", "qcow2", "-F", "qcow2", "-b"]).arg(parent).arg(path);
    Ok(program.arg(size.to_string()).run().await?)
}

/// As [`create_overlay`], without a look at the parent, which may not be there yet.
pub async fn prepare_overlay(path: &Path, parent: &Path, size: u64) -> Result<(), Error> {
    let program = qemu_img("create").args(["-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b"]).arg(parent).arg(path);
    Ok(program.arg(size.to_string()).run().await?)
}

/// Has an overlay be based on one of the files below it, by copying into it what is in between.
pub async fn rebase(overlay: &Path, parent: &Path) -> Result<(), Error> {
    Ok(qemu_img("rebase").args(["-f", "qcow2", "-F", "qcow2", "-b"]).arg(parent).arg(overlay).run().await?)
}

/// A new disk to write.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The file.
    pub path: &'a Path,
    /// QEMU's name of its format.
    pub format: &'a str,
    /// Options of the format, as for `-o`.
    pub options: &'a [&'a str],
    /// Whether its content is to be compressed.
    pub compress: bool,
}

/// Hears which part of a copy is done, from 0 to 1.
pub type Progress<'a> = &'a (dyn Fn(f64) + Send + Sync);

/// Copies a whole disk, backing files included, into one new file.
pub async fn convert(from: &Path, format: Format, to: Target<'_>, progress: Progress<'_>) -> Result<(), Error> {
    let mut program = qemu_img("convert").args(["-p", "-f", format.qemu_name(), "-O", to.format]);
    // Writing out of order lets several threads compress; formats that are written front to back don't take it.
    if to.format == "qcow2" {
        program = program.args(["-m", "16", "-W"]);
    }
    if to.compress {
        program = program.arg("-c");
    }
    for option in to.options {
        program = program.arg("-o").arg(option);
    }
    let program = program.arg(from).arg(to.path);
    let mut child = program.spawn()?;
    if let Some(mut stdout) = child.take_stdout() {
        let mut buffer = [0; 256];
        // What can't be read here is only progress; whether the copy went well is told by the exit status.
        while let Ok(n @ 1..) = stdout.read(&mut buffer).await {
            if let Some(done) = parse_progress(&String::from_utf8_lossy(&buffer[..n])) {
                progress(done);
            }
        }
    }
    Ok(child.success().await?)
}

/// The last of `(12.34/100%)` in what `-p` prints.
fn parse_progress(text: &str) -> Option<f64> {
    let (before, _) = text.rsplit_once("/100%)")?;
    let (_, percent) = before.rsplit_once('(')?;
    percent.trim().parse::<f64>().ok().map(|percent| percent / 100.0)
}

/// Looks for errors in a qcow2; what is wrong is in the error.
pub async fn check(path: &Path) -> Result<(), Error> {
    Ok(qemu_img("check").args(["-q", "-f", "qcow2"]).arg(path).run().await?)
}

fn qemu_img(command: &str) -> Program {
    Program::new("qemu-img").arg(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_overlay_may_be_larger_than_its_parent() {
        let folder = tempfile::tempdir().unwrap();
        let parent = folder.path().join("parent.qcow2");
        Program::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&parent).arg("1M").run().await.unwrap();
        let overlay = folder.path().join("overlay.qcow2");
        create_overlay(&overlay, &parent, 4 << 20).await.unwrap();
        assert_eq!(virtual_size(&overlay, Format::Qcow2).await.unwrap(), 4 << 20);
        check(&overlay).await.unwrap();
    }

    #[test]
    fn progress_is_read_from_what_is_printed() {
        assert_eq!(parse_progress("    (0.00/100%)\r    (37.50/100%)\r"), Some(0.375));
        assert_eq!(parse_progress("    (37.5"), None);
    }

    #[tokio::test]
    async fn a_failure_is_in_qemu_imgs_own_words() {
        let error = virtual_size(Path::new("/no/such/disk"), Format::Raw).await.unwrap_err();
        assert!(error.to_string().contains("Could not open '/no/such/disk'"), "{error}");
    }
}
