//! `GoldsmithAttachDevice` and `GoldsmithDetachDevice`: goldsmith's own, for tests of what happens when a running machine
//! gets a disk or a network card. On EC2 a document would call its API for that; here only the host can do it.
//!
//! The host makes the device, and a document says no more than which kind: it can neither name a file of the host's nor
//! reach its network by it. Whatever is still attached when a document ends is taken away then.

use super::{Call, Verdict};
use crate::guest;
use crate::machine::hotplug::{Device, HotplugError};

/// Attaches a device. Its output is what the guest finds it by.
pub(super) async fn attach(call: &Call<'_>) -> Result<Verdict, guest::Error> {
    let device = match device(call) {
        Ok(device) => device,
        Err(problem) => return Ok(Verdict::Failed(problem)),
    };
    match call.guest.machine()?.attach(device).await {
        Ok(id) => Ok(Verdict::Done(vec![("id", id)])),
        Err(error) => judge(error),
    }
}

/// Detaches it again. What was written to a disk is there when it is attached the next time.
pub(super) async fn detach(call: &Call<'_>) -> Result<Verdict, guest::Error> {
    let device = match device(call) {
        Ok(device) => device,
        Err(problem) => return Ok(Verdict::Failed(problem)),
    };
    match call.guest.machine()?.detach(device).await {
        Ok(()) => Ok(Verdict::NOTHING),
        Err(error) => judge(error),
    }
}

fn device(call: &Call<'_>) -> Result<Device, String> {
    match call.input().required("device") {
        "disk" => Ok(Device::Disk),
        "networkCard" => Ok(Device::NetworkCard),
        other => Err(format!("`device` is disk or networkCard, not `{other}`")),
    }
}

/// What the document or the guest did is the step's failure; a QEMU that fails ends the run.
fn judge(error: HotplugError) -> Result<Verdict, guest::Error> {
    match error {
        HotplugError::Machine(error) => Err(guest::Error::Machine(error)),
        other => Ok(Verdict::Failed(other.to_string())),
    }
}
