//! Files made from a sealed disk.
//!
//! A file stands under its final name only when it is whole and the image's test has passed; its digest, and that of the
//! disk it was made from, go into the image's manifest. A build writes the files while the test runs: both only read the
//! sealed disk.

use std::fmt;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::str::FromStr;

use fs_err as fs;

use super::{Error, Event, Factory};
use crate::disk::probe::Format as DiskFormat;
use crate::disk::qemu_img::{self, Target};
use crate::host::file::{self, Draft};
use crate::store::manifest::Export;
use crate::store::{Image, Run};

/// Formats that a disk is exported to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Bytes as the guest sees them, with holes.
    Raw,
    /// QEMU's own, zlib-compressed.
    Qcow2,
    /// VMware's, stream-optimised: what VM Import and vSphere take.
    Vmdk,
    /// Microsoft's older one, dynamic: Azure and Hyper-V generation 1.
    Vhd,
    /// Microsoft's newer one, dynamic: Hyper-V generation 2.
    Vhdx,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Raw, Self::Qcow2, Self::Vmdk, Self::Vhd, Self::Vhdx];

    /// What users call it, which is also the file's ending.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
        }
    }

    /// QEMU's name and its options, unless the sealed disk has the format already.
    fn target(self) -> Option<(&'static str, &'static [&'static str])> {
        match self {
            Self::Raw => Some(("raw", &[])),
            Self::Qcow2 => None,
            Self::Vmdk => Some(("vmdk", &["subformat=streamOptimized"])),
            // The size is the disk's own; the geometry that old readers go by would round it.
            Self::Vhd => Some(("vpc", &["subformat=dynamic,force_size=on"])),
            Self::Vhdx => Some(("vhdx", &["subformat=dynamic"])),
        }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|format| format.name() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            format!("`{text}` is no export format: {known} are")
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A file that is whole and has not got its name yet. Dropped, it is gone.
#[derive(Debug)]
struct Finished {
    draft: Draft,
    export: Export,
}

/// Exported files without their names, and the run that would remove them if goldsmith were killed.
#[derive(Debug, Default)]
pub(super) struct Exports {
    finished: Vec<Finished>,
    run: Option<Run>,
}

impl Factory {
    /// Exports an image of the store. A FAILED image only with `allow_failed`.
    pub async fn export(
        &self,
        image: &mut Image,
        formats: &[Format],
        output: &Path,
        allow_failed: bool,
    ) -> Result<(), Error> {
        let state = image.manifest.state;
        if !state.is_exportable(allow_failed) || image.manifest.disk.is_none() {
            return Err(Error::State { image: image.id.clone(), state, wanted: "exported" });
        }
        self.verify_disk(image).await?;
        let mut stages = Vec::new();
        let work = async {
            let exports = self.write_exports(image, formats, output).await?;
            self.name_exports(image, exports)
        };
        self.stage(&mut stages, "export", work).await
    }

    /// Writes a sealed disk in all formats, one after another, under names of no meaning: what is written beside the
    /// image's test must not be seen before it has passed.
    pub(super) async fn write_exports(
        &self,
        image: &Image,
        formats: &[Format],
        output: &Path,
    ) -> Result<Exports, Error> {
        let run = self.store.begin_run("export")?;
        let mut finished = Vec::new();
        for &format in formats {
            let file = self.write_export(image, format, output, &run).await;
            finished.push(file.map_err(|error| not_exported(image, format.name(), error))?);
        }
        Ok(Exports { finished, run: Some(run) })
    }

    /// Gives exported files their names and notes them in the image's manifest.
    pub(super) fn name_exports(&self, image: &mut Image, exports: Exports) -> Result<(), Error> {
        if !image.manifest.tested && !exports.finished.is_empty() {
            self.tell(Event::Warning(format!("{} was not tested", image.id)));
        }
        for Finished { draft, export } in exports.finished {
            draft.finish().map_err(|error| not_exported(image, &export.format, error.into()))?;
            image.update(|manifest| {
                manifest.exports.retain(|known| known.path != export.path);
                manifest.exports.push(export);
            })?;
        }
        // Only now is there nothing left that a kill would leave behind.
        drop(exports.run);
        Ok(())
    }

    async fn write_export(&self, image: &Image, format: Format, output: &Path, run: &Run) -> Result<Finished, Cause> {
        fs::create_dir_all(output)?;
        let name = format!("{}.{}", image.id.file_stem(), format.name());
        let place = fs::canonicalize(output)?.join(&name);
        let draft = Draft::new(&place)?;
        run.will_leave(draft.path())?;
        let progress = |part| self.tell(Event::Copied { stage: "export", what: name.clone(), part });
        progress(0.0);
        match format.target() {
            Some((qemu_name, options)) => {
                // The machine that is being tested meanwhile is what the user waits for.
                let is_patient = image.manifest.state.is_under_way();
                let target = Target { path: draft.path(), format: qemu_name, options, compress: false, is_patient };
                qemu_img::convert(&image.disk(), DiskFormat::Qcow2, target, &progress).await?;
            }
            // The very bytes that were tested.
            None => {
                fs_err::tokio::copy(image.disk(), draft.path()).await?;
                fs_err::tokio::set_permissions(draft.path(), Permissions::from_mode(0o644)).await?;
                progress(1.0);
            }
        }
        let path = draft.path().to_owned();
        let digest = move || Ok::<_, std::io::Error>((file::sha256(&path)?, fs::metadata(&path)?.len()));
        let (sha256, bytes) = tokio::task::spawn_blocking(digest).await??;
        let disk = image.manifest.disk.as_ref().map(|disk| disk.sha256.clone()).unwrap_or_default();
        let export = Export { format: format.name().to_owned(), path: place, sha256, bytes, disk };
        Ok(Finished { draft, export })
    }
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

fn not_exported(image: &Image, format: &str, source: Cause) -> Error {
    Error::Export { image: image.id.clone(), format: format.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_by_name() {
        for format in Format::ALL {
            assert_eq!(format.name().parse(), Ok(format));
        }
        assert_eq!(
            "ova".parse::<Format>(),
            Err("`ova` is no export format: raw, qcow2, vmdk, vhd, vhdx are".to_owned())
        );
    }
}
