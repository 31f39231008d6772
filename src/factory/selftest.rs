//! Proving that guests run on this host: boots a parent and says how long it took.

use std::path::Path;
use std::time::Instant;

use super::{Error, Event, Factory};
use crate::disk::qemu_img;
use crate::document::recipe::MachineWishes;
use crate::guest::Guest;
use crate::guest::seed::{Purpose, Seed};
use crate::machine::accelerator::Accelerator;
use crate::parent::{self, Reference};

/// What a self-test found.
#[derive(Debug, Clone)]
pub struct SelfTest {
    /// What the guest ran on.
    pub accelerator: Accelerator,
    /// QEMU's version.
    pub qemu: String,
    /// From power-on to the agent's greeting, in seconds.
    pub agent_seconds: f64,
    /// From power-on until cloud-init had finished, in seconds.
    pub ready_seconds: f64,
}

impl Factory {
    /// Boots a base image.
    pub async fn self_test(&self, base: &str) -> Result<SelfTest, Error> {
        let run = self.store.begin_run("selftest")?;
        let listener = |event: parent::Event| self.tell(Event::Parent(event));
        let reference = Reference::Base(base.to_owned());
        let mut stages = Vec::new();
        let obtained = parent::obtain(&reference, None, Path::new("."), &self.store, &run, &listener);
        let parent = self.stage(&mut stages, "parent", obtained).await?;
        let shape = self.shape(&parent.machine.or(&MachineWishes::default()), false).await?;
        let boot = async {
            let (disk, seed, console) = (run.path("disk.qcow2"), run.path("seed.img"), run.path("console.log"));
            let created = qemu_img::create_overlay(&disk, &parent.disk, parent.virtual_size).await;
            created.map_err(|error| Error::Disk { doing: "made", source: error.into() })?;
            Seed::with_agent(Purpose::Test).write(&seed)?;
            let spec = shape.spec(disk, Some(seed), console.clone());
            let failed = |source| Error::Guest {
                doing: "it started".to_owned(),
                source: Box::new(source),
                log: console.clone(),
            };
            let started = Instant::now();
            let guest = Guest::boot(&shape.qemu, &spec, run.folder(), shape.boot_timeout).await.map_err(failed)?;
            let agent_seconds = started.elapsed().as_secs_f64();
            guest.wait_for_cloud_init().await.map_err(failed)?;
            let ready_seconds = started.elapsed().as_secs_f64();
            let qemu = guest.machine().map_err(failed)?.qmp().version().to_string();
            guest.finish().await;
            Ok::<_, Error>(SelfTest { accelerator: shape.accelerator, qemu, agent_seconds, ready_seconds })
        };
        self.stage(&mut stages, "boot", boot).await
    }
}
