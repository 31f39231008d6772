//! Files made from a sealed disk.
//!
//! A file stands under its final name only when it is whole and the image's test has passed; its digest, and those of the
//! disk it was made from, go into the image's manifest. A build writes the files while the test runs: both only read the
//! sealed disk. All of them are written in one pass, by `disk::export`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fs_err as fs;

use super::{Error, Event, Factory};
pub(super) use crate::disk::export::Hardware;
use crate::disk::export::{self, Job, Written};
pub use crate::disk::export::{Format, Place};
use crate::host::file::{self, Draft};
use crate::host::process;
use crate::store::manifest::{Export, Machine};
use crate::store::{Image, Run};

/// What is to be exported, and where to.
#[derive(Debug, Clone, Default)]
pub struct ExportWishes {
    formats: Vec<Format>,
    places: Vec<Place>,
    output: PathBuf,
}

impl ExportWishes {
    /// Files of some formats, each once, and descriptions for some places, with the disks that these are about.
    pub fn new(formats: Vec<Format>, places: Vec<Place>, output: PathBuf) -> Self {
        let mut wishes = Self { formats: Vec::new(), places: Vec::new(), output };
        for format in formats.into_iter().chain(places.iter().map(|place| place.format())) {
            if !wishes.formats.contains(&format) {
                wishes.formats.push(format);
            }
        }
        wishes.places = places;
        wishes
    }

    /// Whether a file is one of those that are wished for, by where it is.
    pub(super) fn is_for(&self, path: &Path) -> bool {
        let output = fs::canonicalize(&self.output).ok();
        path.parent().is_some_and(|folder| Some(folder) == output.as_deref())
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.formats.is_empty()
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

/// Tells a thread when nobody waits for it any more.
struct Wanted(Arc<AtomicBool>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// A machine that would suit an image of which nothing is known.
const CPUS: u32 = 2;
const MEMORY: u64 = 1 << 30;

impl Factory {
    /// Exports an image of the store. A FAILED image only with `allow_failed`.
    pub async fn export(&self, image: &mut Image, wishes: &ExportWishes, allow_failed: bool) -> Result<(), Error> {
        let state = image.manifest.state;
        if !state.is_exportable(allow_failed) || image.manifest.disk.is_none() {
            return Err(Error::State { image: image.id.clone(), state, wanted: "exported" });
        }
        self.may_be_used(image, "exported")?;
        self.verify_disk(image).await?;
        let mut stages = Vec::new();
        let work = async {
            let exports = self.write_exports(image, wishes).await?;
            self.name_exports(image, wishes, exports)
        };
        self.stage(&mut stages, "export", work).await
    }

    /// Writes a sealed disk in all formats under names of no meaning: what is written beside the image's test must not be
    /// seen before it has passed.
    pub(super) async fn write_exports(&self, image: &Image, wishes: &ExportWishes) -> Result<Exports, Error> {
        let run = self.store.begin_run("export")?;
        let mut drafts: Vec<(Format, PathBuf, Draft)> = Vec::new();
        for &format in &wishes.formats {
            let begun = begin(image, format, &wishes.output, &run);
            let (place, draft) = begun.map_err(|error| not_exported(image, &[format], error.into()))?;
            drafts.push((format, place, draft));
        }
        let paths = drafts.iter().map(|(format, _, draft)| (*format, draft.path().to_owned())).collect();
        let (content, written) = match self.write_all(image, paths).await {
            Ok(outcome) => outcome,
            Err((None, error)) => return Err(not_exported(image, &wishes.formats, error.into())),
            Err((Some(format), error)) => return Err(not_exported(image, &[format], error.into())),
        };
        let disk = image.manifest.disk.as_ref().map(|disk| disk.sha256.clone()).unwrap_or_default();
        let finished = drafts.into_iter().zip(written).map(|((format, path, draft), Written { sha256, bytes })| {
            let (format, disk, content) = (format.name().to_owned(), disk.clone(), Some(content.clone()));
            Finished { draft, export: Export { format, path, sha256, bytes, disk, content } }
        });
        Ok(Exports { finished: finished.collect(), run: Some(run) })
    }

    /// Writes files of some formats in a thread of its own, which ends soon after this future is dropped.
    async fn write_all(&self, image: &Image, files: Vec<(Format, PathBuf)>) -> export::Outcome {
        let of_the_host = |error: io::Error| (None, error.into());
        // Opened here: an export that is given up takes its files away, and the thread must not make them again.
        let open = |(format, path): (Format, PathBuf)| {
            let file = fs::OpenOptions::new().write(true).open(path);
            file.map(|file| Job { format, file }).map_err(|error| (Some(format), error.into()))
        };
        let jobs = files.into_iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let wanted = Wanted(Arc::new(AtomicBool::new(true)));
        let (listener, is_wanted) = (self.listener.clone(), Arc::clone(&wanted.0));
        let (path, sha256) = (image.disk(), image.manifest.disk.as_ref().map(|disk| disk.sha256.clone()));
        let hardware = hardware(image.id.file_stem(), image.manifest.machine.as_ref());
        // The machine that is being tested meanwhile is what the user waits for.
        let is_patient = image.manifest.state.is_under_way();
        let work = move || {
            let watch = |done, total| {
                listener(Event::Exported { done, total });
                is_wanted.load(Ordering::Relaxed)
            };
            let sha256 = sha256.as_deref().unwrap_or_default();
            let disk = export::Disk { path: &path, sha256, hardware: &hardware };
            export::write(disk, jobs, &watch)
        };
        let outcome = match is_patient {
            true => process::in_background(work).await,
            false => tokio::task::spawn_blocking(work).await.map_err(io::Error::other),
        };
        drop(wanted);
        outcome.unwrap_or_else(|error| Err(of_the_host(error)))
    }

    /// Gives exported files their names and notes them in the image's manifest.
    pub(super) fn name_exports(&self, image: &mut Image, wishes: &ExportWishes, exports: Exports) -> Result<(), Error> {
        if !image.manifest.tested && !exports.finished.is_empty() {
            self.tell(Event::Warning(format!("{} was not tested", image.id)));
        }
        let hardware = hardware(image.id.file_stem(), image.manifest.machine.as_ref());
        for Finished { draft, export } in exports.finished {
            let (id, format) = (image.id.clone(), export.format.clone());
            let failed =
                |error: io::Error| Error::Export { image: id.clone(), format: format.clone(), source: error.into() };
            draft.finish().map_err(failed)?;
            image.update(|manifest| {
                if let Some(disk) = &mut manifest.disk {
                    disk.content.clone_from(&export.content);
                }
                manifest.exports.retain(|known| known.path != export.path);
                manifest.exports.push(export.clone());
            })?;
            for place in wishes.places.iter().filter(|place| place.format().name() == export.format) {
                let path = export.path.with_file_name(format!("{}.{}", hardware.name, place.ending()));
                file::write(path, place.describe(&hardware, &export.path).as_bytes()).map_err(failed)?;
            }
        }
        // Only now is there nothing left that a kill would leave behind.
        drop(exports.run);
        Ok(())
    }
}

/// A file to write: where it will stand, and the empty draft.
fn begin(image: &Image, format: Format, output: &Path, run: &Run) -> io::Result<(PathBuf, Draft)> {
    fs::create_dir_all(output)?;
    let place = fs::canonicalize(output)?.join(format!("{}.{}", image.id.file_stem(), format.ending()));
    let draft = Draft::new(&place)?;
    run.will_leave(draft.path())?;
    Ok((place, draft))
}

/// What a machine should have that an image is for: what the machine had that it was built on.
pub(super) fn hardware(name: String, machine: Option<&Machine>) -> Hardware {
    match machine {
        Some(Machine { cpus, memory, firmware, .. }) => {
            Hardware { name, cpus: *cpus, memory: *memory, is_uefi: firmware == "uefi" }
        }
        None => Hardware { name, cpus: CPUS, memory: MEMORY, is_uefi: false },
    }
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

fn not_exported(image: &Image, formats: &[Format], source: Cause) -> Error {
    let formats: Vec<&str> = formats.iter().map(|format| format.name()).collect();
    Error::Export { image: image.id.clone(), format: formats.join(", "), source }
}
