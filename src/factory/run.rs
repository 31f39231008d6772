//! A throw-away copy of an image, for a person.

use std::path::{Path, PathBuf};

use tokio::net::UnixStream;

use super::{Error, Factory};
use crate::disk::probe::{self, Format};
use crate::disk::qemu_img;
use crate::document::recipe::MachineWishes;
use crate::guest::seed::Seed;
use crate::machine::{Forward, Machine};
use crate::parent;
use crate::store::{Image, Lock, Run, Store};

/// What is copied.
#[derive(Debug, Clone)]
pub enum Subject {
    /// An image of the store.
    Image(Box<Image>),
    /// A qcow2 somewhere else: the kept disk of a failed build, for instance.
    Disk(PathBuf),
}

/// What the user says.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Ports of this host's loopback that lead into the guest.
    pub forwards: Vec<Forward>,
    /// A seed disk instead of goldsmith's.
    pub seed: Option<PathBuf>,
}

/// A running copy.
#[derive(Debug)]
pub struct Console {
    /// The serial console, once.
    pub stream: Option<UnixStream>,
    /// The default user's password, if goldsmith made the seed.
    pub password: Option<String>,
    machine: Machine,
    _run: Run,
    /// The image, which must not go meanwhile.
    _held: Option<Lock>,
}

impl Console {
    /// Ends the copy and throws it away.
    pub async fn finish(self) {
        self.machine.finish().await;
    }
}

impl Factory {
    /// Boots a copy. Nothing that happens in it stays.
    pub async fn run_copy(&self, subject: &Subject, options: &RunOptions) -> Result<Console, Error> {
        let failed = |error: qemu_img::Error| Error::Disk { doing: "booted", source: error.into() };
        let mut held = None;
        let (disk, name, wishes) = match subject {
            Subject::Image(image) => {
                self.may_be_used(image, "run")?;
                held = image.hold()?;
                let wishes = image.manifest.machine.as_ref().map(parent::machine_wishes).unwrap_or_default();
                (image.disk(), image.id.name.as_str().replace(' ', "-"), wishes)
            }
            Subject::Disk(path) => {
                let path = fs_err::canonicalize(path)?;
                check_disk(&path, &self.store)?;
                (path, "goldsmith".to_owned(), MachineWishes::default())
            }
        };
        let shape = self.shape(&wishes, false).await?;
        let run = self.store.begin_run("run")?;
        let overlay = run.path("disk.qcow2");
        let size = qemu_img::virtual_size(&disk, Format::Qcow2).await.map_err(failed)?;
        qemu_img::create_overlay(&overlay, &disk, size).await.map_err(failed)?;
        let (seed, password) = match &options.seed {
            Some(seed) => (fs_err::canonicalize(seed)?, None),
            None => {
                let password = uuid::Uuid::new_v4().simple().to_string()[..12].to_owned();
                let seed = run.path("seed.img");
                Seed::for_person(&name, &password).write(&seed)?;
                (seed, Some(password))
            }
        };
        let mut spec = shape.spec(overlay, Some(seed), run.path("console.log"));
        spec.attach_console = true;
        spec.forwards.clone_from(&options.forwards);
        let mut machine = shape.qemu.start(&spec, run.folder()).await?;
        Ok(Console { stream: machine.take_console(), password, machine, _run: run, _held: held })
    }
}

/// A disk of somebody's own stands alone; the kept disk of a failed build is based on files of the store, each of which
/// may be based on the next. What a disk names elsewhere could be any file of the host.
fn check_disk(path: &Path, store: &Store) -> Result<(), Error> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Disk { doing: "booted", source };
    let mut next = Some(path.to_owned());
    while let Some(disk) = next {
        next = probe::overlay_parent(&disk).map_err(|error| failed(error.into()))?;
        let Some(parent) = next.as_mut() else { break };
        *parent = fs_err::canonicalize(&*parent)?;
        if !parent.starts_with(store.root()) {
            let why = format!("`{}` is based on `{}`, which is outside the store", disk.display(), parent.display());
            return Err(failed(why.into()));
        }
    }
    Ok(())
}
