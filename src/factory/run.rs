//! A throw-away copy of an image, for a person.

use std::path::PathBuf;

use tokio::net::UnixStream;

use super::{Error, Factory};
use crate::disk::probe::{self, Format};
use crate::disk::qemu_img;
use crate::document::recipe::MachineWishes;
use crate::guest::seed::Seed;
use crate::machine::{Forward, Machine};
use crate::store::{Image, Run};

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
        let (disk, name, wishes) = match subject {
            Subject::Image(image) => {
                let wishes = super::test::machine_wishes(image.manifest.machine.as_ref());
                (image.disk(), image.id.name.as_str().replace(' ', "-"), wishes)
            }
            Subject::Disk(path) => {
                let path = fs_err::canonicalize(path)?;
                check_disk(&path)?;
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
        Ok(Console { stream: machine.take_console(), password, machine, _run: run })
    }
}

/// A kept disk is an overlay on its parent; its header was written by QEMU under our control, not by the guest.
fn check_disk(path: &std::path::Path) -> Result<(), Error> {
    match probe::probe(path) {
        Ok(Format::Qcow2) => Ok(()),
        Ok(other) => {
            let source = format!("it is a {} disk; convert it to qcow2 first", other.qemu_name()).into();
            Err(Error::Disk { doing: "booted", source })
        }
        // An overlay of ours: the user names it, and what it is based on is in our store.
        Err(probe::Error::Refused { why, .. }) if why.contains("backing file") => Ok(()),
        Err(error) => Err(Error::Disk { doing: "booted", source: error.into() }),
    }
}
