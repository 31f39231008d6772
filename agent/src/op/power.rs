//! Power-off without the system's own way down, which stops one unit after another.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use goldsmith_agent::message::{OpError, OpErrorKind};
use rustix::process::{Pid, Signal};
use rustix::system::RebootCommand;

use super::failed;

const SYSRQ: &str = "/proc/sysrq-trigger";
const MOUNTS: &str = "/proc/mounts";
/// Writing out what is left takes no longer: everything was synced before.
const DEADLINE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);

/// Ends all programs but this one, has the kernel make every file system read-only, and powers off. It returns only if that
/// can't be done.
pub(crate) fn off() -> Result<(), OpError> {
    end_programs().map_err(|error| failed("/proc", &error))?;
    rustix::fs::sync();
    // Also where somebody still writes: init, which can't be ended, and what it has started anew.
    fs::write(SYSRQ, "u").map_err(|error| failed(SYSRQ, &error))?;
    let until = Instant::now() + DEADLINE;
    while is_writable(&fs::read_to_string(MOUNTS).map_err(|error| failed(MOUNTS, &error))?) {
        if Instant::now() > until {
            let message = "a file system could not be made read-only".to_owned();
            return Err(OpError { kind: OpErrorKind::Other, message });
        }
        std::thread::sleep(POLL);
    }
    silence_networks();
    rustix::system::reboot(RebootCommand::PowerOff).map_err(|error| failed("power-off", &error.into()))
}

/// Takes network devices down. Kernels that break virtio devices before they power off (Linux 6.14, and older ones that have
/// it too) spin for ever in a driver that sends just then, and something is always sent after a while, by the kernel itself.
fn silence_networks() {
    const UP: u32 = 1;
    const LOOPBACK: u32 = 1 << 3;
    let Ok(devices) = fs::read_dir("/sys/class/net") else { return };
    for device in devices.flatten() {
        // netdevice(7), as the kernel shows them: a hexadecimal number.
        let path = device.path().join("flags");
        let flags = fs::read_to_string(&path).unwrap_or_default();
        let Ok(flags) = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16) else { continue };
        if flags & UP != 0 && flags & LOOPBACK == 0 {
            // What can't be taken down is left as it is: it is a chance and no more that it would matter.
            let _up = fs::write(&path, format!("{:#x}", flags & !UP));
        }
    }
}

/// Kills every process but init and this one. A file that is deleted and open would else be left to the next start.
fn end_programs() -> io::Result<()> {
    let own = rustix::process::getpid();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|pid| *pid != own && *pid != Pid::INIT) {
            // It may have ended, or be one of the kernel's own.
            let _gone = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
    Ok(())
}

/// Whether a disk is mounted for writing: proc_mounts(5).
fn is_writable(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let mut fields = line.split(' ');
        let is_disk = fields.next().is_some_and(|device| device.starts_with("/dev/"));
        is_disk && fields.nth(2).is_some_and(|options| options.split(',').any(|option| option == "rw"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_that_are_mounted_for_writing() {
        let mounts = "proc /proc proc rw,nosuid 0 0\n/dev/vda1 / ext4 ro,discard,errors=remount-rw 0 0\ntmpfs /run tmpfs rw 0 0\n";
        assert!(!is_writable(mounts));
        assert!(is_writable(&format!("{mounts}/dev/vda15 /boot/efi vfat rw,relatime 0 0\n")));
    }
}
