//! Sealing: a build machine's disk, parent and layers included, becomes an image's one compressed file.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fs_err as fs;

use super::{Error, Event, Factory};
use crate::check::inspector::{Secret, names_on_disk};
use crate::disk::probe::Format;
use crate::disk::qcow2;
use crate::disk::qemu_img::{self, Target};
use crate::host::file::{self, Draft};
use crate::store::manifest::Disk;
use crate::store::{DISK, Image};

/// Writes a build machine's disk, parent included, to one compressed file.
async fn copy_disk(factory: &Factory, overlay: &Path, to: &Path) -> Result<(), Error> {
    let listener = factory.listener.clone();
    let progress = move |part| listener(Event::Copied { stage: "seal", what: "sealed disk".to_owned(), part });
    // Opened here: a build that is interrupted takes the file away, and the thread must not make it again.
    let file = fs::File::options().write(true).open(to)?;
    let (from, tell) = (overlay.to_owned(), progress.clone());
    let sealed = tokio::task::spawn_blocking(move || qcow2::seal(&from, file, &tell));
    match sealed.await.map_err(std::io::Error::other)? {
        Ok(()) => Ok(()),
        // A parent of an unusual layout: slower, and the same bytes for the guest.
        Err(qcow2::Error::Unusual(why)) => {
            tracing::info!(why, "sealing with qemu-img");
            let target = Target { path: to, format: "qcow2", options: &[], compress: true };
            let copied = qemu_img::convert(overlay, Format::Qcow2, target, &progress).await;
            copied.map_err(|error| Error::Disk { doing: "sealed", source: error.into() })
        }
        Err(error) => Err(Error::Disk { doing: "sealed", source: error.into() }),
    }
}

/// Copies a build machine's disk, parent included, into the image, and proves what must not be on it.
pub(super) async fn seal_disk(
    factory: &Factory,
    overlay: &Path,
    image: &Image,
    traces: &[Secret],
) -> Result<Disk, Error> {
    let failed = |doing| move |error: qemu_img::Error| Error::Disk { doing, source: error.into() };
    let draft = Draft::new(image.folder().join(DISK))?;
    tracing::debug!("the disk is closed");
    copy_disk(factory, overlay, draft.path()).await?;
    tracing::debug!("the disk is copied");
    let (path, file) = (draft.path().to_owned(), draft.path().to_owned());
    let traces = traces.to_vec();
    // All of them only read it; the last has it reach the disk meanwhile.
    let (checked, size, examined, synced) = tokio::join!(
        qemu_img::check(draft.path()),
        qemu_img::virtual_size(draft.path(), Format::Qcow2),
        tokio::task::spawn_blocking(move || examine(&path, &traces)),
        tokio::task::spawn_blocking(move || fs::File::open(file)?.sync_all()),
    );
    checked.map_err(failed("sealed"))?;
    let virtual_size = size.map_err(failed("sealed"))?;
    synced.map_err(std::io::Error::other)??;
    let (found, sha256, bytes) = examined.map_err(std::io::Error::other)??;
    tracing::debug!("the copy is checked");
    if !found.is_empty() {
        return Err(Error::Traces { found });
    }
    fs::set_permissions(draft.path(), std::fs::Permissions::from_mode(0o444))?;
    draft.finish()?;
    Ok(Disk { sha256, bytes, virtual_size, content: None })
}

/// The traces that are on a sealed disk, the disk's SHA-256, and its size in bytes.
fn examine(path: &Path, traces: &[Secret]) -> std::io::Result<(Vec<String>, String, u64)> {
    Ok((names_on_disk(path, traces)?, file::sha256(path)?, fs::metadata(path)?.len()))
}
