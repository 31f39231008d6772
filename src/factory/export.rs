//! Files made from a sealed disk.
//!
//! A file stands under its final name only when it is whole; its digest, and that of the disk it was made from, go into
//! the image's manifest.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use fs_err as fs;

use super::{Error, Event, Factory};
use crate::disk::probe::Format as DiskFormat;
use crate::disk::qemu_img::{self, Target};
use crate::host::file::{self, Draft};
use crate::store::manifest::{Export, State};
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

    /// QEMU's name, its options, and whether it is compressed.
    fn target(self) -> (&'static str, &'static [&'static str], bool) {
        match self {
            Self::Raw => ("raw", &[], false),
            Self::Qcow2 => ("qcow2", &[], true),
            Self::Vmdk => ("vmdk", &["subformat=streamOptimized"], false),
            // The size is the disk's own; the geometry that old readers go by would round it.
            Self::Vhd => ("vpc", &["subformat=dynamic,force_size=on"], false),
            Self::Vhdx => ("vhdx", &["subformat=dynamic"], false),
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

impl Factory {
    /// Exports an image of the store. A FAILED image only with `allow_failed`.
    pub async fn export(&self, image: &mut Image, formats: &[Format], output: &Path, allow_failed: bool) -> Result<(), Error> {
        let state = image.manifest.state;
        let is_allowed = match state {
            State::Available | State::Deprecated => true,
            State::Failed => allow_failed,
            _ => false,
        };
        if !is_allowed || image.manifest.disk.is_none() {
            return Err(Error::State { image: image.id.clone(), state, wanted: "exported" });
        }
        self.verify_disk(image).await?;
        let mut stages = Vec::new();
        self.stage(&mut stages, "export", self.export_image(image, formats, output)).await
    }

    /// Writes an image's disk in all formats, one after another.
    pub(super) async fn export_image(&self, image: &mut Image, formats: &[Format], output: &Path) -> Result<(), Error> {
        if !image.manifest.tested {
            self.tell(Event::Warning(format!("{} was not tested", image.id)));
        }
        let run = self.store.begin_run("export")?;
        for &format in formats {
            let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Export {
                image: image.id.clone(),
                format: format.name(),
                source,
            };
            let export = self.export_one(image, format, output, &run).await.map_err(failed)?;
            image.update(|manifest| {
                manifest.exports.retain(|known| known.path != export.path);
                manifest.exports.push(export);
            })?;
        }
        Ok(())
    }

    async fn export_one(
        &self,
        image: &Image,
        format: Format,
        output: &Path,
        run: &Run,
    ) -> Result<Export, Box<dyn std::error::Error + Send + Sync>> {
        fs::create_dir_all(output)?;
        let name = format!("{}.{}", image.id.file_stem(), format.name());
        let draft = Draft::new(fs::canonicalize(output)?.join(&name))?;
        run.will_leave(draft.path())?;
        let (qemu_name, options, compress) = format.target();
        let target = Target { path: draft.path(), format: qemu_name, options, compress };
        let progress = |part| self.tell(Event::Copied { what: name.clone(), part });
        qemu_img::convert(&image.disk(), DiskFormat::Qcow2, target, &progress).await?;
        let path = draft.path().to_owned();
        let digest = tokio::task::spawn_blocking(move || Ok::<_, std::io::Error>((file::sha256(&path)?, fs::metadata(&path)?.len())));
        let (sha256, bytes) = digest.await??;
        let path = draft.finish()?;
        let disk = image.manifest.disk.as_ref().map(|disk| disk.sha256.clone()).unwrap_or_default();
        Ok(Export { format: format.name().to_owned(), path, sha256, bytes, disk })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_by_name() {
        for format in Format::ALL {
            assert_eq!(format.name().parse(), Ok(format));
        }
        assert_eq!("ova".parse::<Format>(), Err("`ova` is no export format: raw, qcow2, vmdk, vhd, vhdx are".to_owned()));
    }
}
