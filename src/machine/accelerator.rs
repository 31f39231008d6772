//! Which accelerator a machine runs on, and why.
//!
//! `/dev/kvm` that opens is no proof. On some virtualised hosts it opens and creates a virtual machine, and yet the
//! processor has neither `vmx` nor `svm`: a stock guest kernel then never gets anywhere (seen: MSR 0x10a refused with
//! `-cpu host`; with it masked, slow emulation and at last "emulation failure"). So the processor's flags are asked
//! first, then a guest of two instructions has to run to its end under a deadline. The verdict is remembered for as long
//! as the host is not rebooted and `/dev/kvm` does not change.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::host::file;
use crate::host::process::Program;

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The host's processor, by KVM.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

impl Accelerator {
    /// QEMU's name for it.
    pub fn qemu_name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// How many times longer than with KVM a guest may take before it counts as stuck.
    pub fn patience(self) -> u32 {
        match self {
            Self::Kvm => 1,
            Self::Tcg => 8,
        }
    }
}

/// What the user asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// KVM where it works, else TCG.
    #[default]
    Auto,
    /// KVM or an error.
    Kvm,
    /// TCG.
    Tcg,
}

/// Whether KVM truly works here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether it does.
    pub usable: bool,
    /// Why not, or how it was found out.
    pub reason: String,
    /// What would mend it.
    pub mend: Option<String>,
}

impl Verdict {
    fn no(reason: impl Into<String>, mend: &str) -> Self {
        Self { usable: false, reason: reason.into(), mend: Some(mend.to_owned()) }
    }
}

/// The host's processor and kernel, as far as a guest on `-cpu host` can tell them from others.
pub(super) fn processor() -> String {
    let told = ["vendor_id", "cpu family", "model", "stepping", "microcode", "flags"];
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let first = text.lines().take_while(|line| !line.is_empty());
    let mut parts: Vec<&str> = first.filter(|line| told.iter().any(|name| line.starts_with(name))).collect();
    let kernel = rustix::system::uname();
    let kernel = kernel.release().to_string_lossy();
    parts.push(&kernel);
    parts.join("; ")
}

/// `--accel kvm` was asked for, and KVM does not work.
#[derive(Debug, thiserror::Error)]
#[error("KVM can't be used: {}", verdict.reason)]
pub struct Unusable {
    /// Why.
    pub verdict: Verdict,
}

/// The first argument that makes goldsmith run [`run_probe_guest`] and nothing else.
pub const PROBE_ARGUMENT: &str = "__probe-kvm";

const DEVICE: &str = "/dev/kvm";
/// The probe guest takes less than a millisecond; a host under load may start the process late.
const PROBE_DEADLINE: Duration = Duration::from_secs(3);

/// The accelerator to use, with KVM's verdict if it was asked. `remembered` is a folder for what was found out.
pub async fn choose(choice: Choice, remembered: &Path) -> Result<(Accelerator, Option<Verdict>), Unusable> {
    if choice == Choice::Tcg {
        return Ok((Accelerator::Tcg, None));
    }
    let verdict = kvm(remembered).await;
    match (choice, verdict.usable) {
        (_, true) => Ok((Accelerator::Kvm, Some(verdict))),
        (Choice::Kvm, false) => Err(Unusable { verdict }),
        _ => Ok((Accelerator::Tcg, Some(verdict))),
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    key: String,
    verdict: Verdict,
}

/// Whether KVM works, as remembered or found out now.
pub async fn kvm(remembered: &Path) -> Verdict {
    let place = remembered.join("kvm.json");
    let key = circumstances();
    let text = fs::read(&place).unwrap_or_default();
    if let Ok(known) = serde_json::from_slice::<Remembered>(&text)
        && known.key == key
    {
        return known.verdict;
    }
    let verdict = find_out().await;
    let known = Remembered { key, verdict };
    if let Ok(text) = serde_json::to_vec(&known) {
        // Not being able to remember costs the next start some milliseconds, and nothing else.
        let _forgotten = file::write(place, &text);
    }
    known.verdict
}

/// What a verdict depends on: this boot of the host, and who may open the device.
fn circumstances() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let device = fs::metadata(DEVICE).map(|m| format!("{:o} {} {}", m.mode(), m.uid(), m.gid())).unwrap_or_default();
    let user = rustix::process::geteuid().as_raw();
    let mut groups: Vec<u32> = rustix::process::getgroups().unwrap_or_default().iter().map(|g| g.as_raw()).collect();
    groups.sort_unstable();
    format!("{} {device} {user} {groups:?}", boot.trim())
}

async fn find_out() -> Verdict {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if let Some(verdict) = judge_processor(&cpuinfo).or_else(judge_device) {
        return verdict;
    }
    let Ok(ourselves) = std::env::current_exe() else {
        return Verdict::no("the probe guest could not be started", "run goldsmith from a file that it can read");
    };
    let probe = Program::new(ourselves).arg(PROBE_ARGUMENT);
    let outcome = tokio::time::timeout(PROBE_DEADLINE, probe.run()).await;
    const MEND: &str = "use a host whose own hypervisor offers nested virtualisation, or go on with --accel tcg";
    match outcome {
        Ok(Ok(())) => Verdict { usable: true, reason: "a probe guest ran to its end".to_owned(), mend: None },
        Ok(Err(error)) => Verdict::no(format!("a probe guest failed: {error}"), MEND),
        Err(_) => Verdict::no(format!("a probe guest did not end within {} s", PROBE_DEADLINE.as_secs()), MEND),
    }
}

/// Against KVM by the processor's flags, if so.
fn judge_processor(cpuinfo: &str) -> Option<Verdict> {
    if !cfg!(target_arch = "x86_64") {
        return None;
    }
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"))?;
    let mut flags = flags.split_whitespace();
    if flags.clone().any(|flag| matches!(flag, "vmx" | "svm")) {
        return None;
    }
    let is_guest = flags.any(|flag| flag == "hypervisor");
    Some(if is_guest {
        Verdict::no(
            "this host is itself a virtual machine and its processor has neither vmx nor svm",
            "switch on nested virtualisation for it, or use a host that has it",
        )
    } else {
        Verdict::no(
            "the processor has neither vmx nor svm",
            "switch on virtualisation (VT-x or AMD-V) in the firmware's set-up",
        )
    })
}

fn judge_device() -> Option<Verdict> {
    let opened = fs::OpenOptions::new().read(true).write(true).open(DEVICE);
    match opened {
        Ok(_) => None,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Some(Verdict::no(format!("there is no {DEVICE}"), "sudo modprobe kvm_intel || sudo modprobe kvm_amd"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Some(Verdict::no(
            format!("{DEVICE} can't be opened by this user"),
            "sudo usermod -aG kvm \"$USER\", and log in again",
        )),
        Err(error) => Some(Verdict::no(error.to_string(), "see what the kernel says about kvm: sudo dmesg")),
    }
}

/// Runs a guest of two instructions. The caller gives it a process of its own, because on a host where KVM only seems to
/// work nothing else can end it.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
pub fn run_probe_guest() -> Result<(), String> {
    use kvm_ioctls::{Kvm, VcpuExit};

    #[repr(align(4096))]
    struct Page([u8; 4096]);

    const START: u64 = 0x1000;
    let failed = |what: &'static str| move |error: kvm_ioctls::Error| format!("{what}: {error}");
    // out 0x80, al; hlt
    let mut page = Box::new(Page([0; 4096]));
    page.0[..3].copy_from_slice(&[0xe6, 0x80, 0xf4]);
    let kvm = Kvm::new().map_err(failed("can't open /dev/kvm"))?;
    let vm = kvm.create_vm().map_err(failed("can't create a virtual machine"))?;
    let region = kvm_bindings::kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: START,
        memory_size: 4096,
        userspace_addr: page.0.as_mut_ptr() as u64,
    };
    // SAFETY: the page is 4096 bytes, aligned, and lives until this function returns, when the machine is gone.
    unsafe { vm.set_user_memory_region(region) }.map_err(failed("can't give it memory"))?;
    let mut vcpu = vm.create_vcpu(0).map_err(failed("can't create a processor"))?;
    let mut special = vcpu.get_sregs().map_err(failed("can't read its registers"))?;
    special.cs.base = 0;
    special.cs.selector = 0;
    vcpu.set_sregs(&special).map_err(failed("can't set its registers"))?;
    let mut registers = vcpu.get_regs().map_err(failed("can't read its registers"))?;
    registers.rip = START;
    registers.rflags = 2;
    vcpu.set_regs(&registers).map_err(failed("can't set its registers"))?;
    let mut has_written = false;
    loop {
        match vcpu.run().map_err(failed("the processor did not run"))? {
            VcpuExit::IoOut(0x80, _) => has_written = true,
            VcpuExit::Hlt if has_written => return Ok(()),
            other => return Err(format!("the guest ended unexpectedly: {other:?}")),
        }
    }
}

/// As on x86-64, but for the guest: creating a processor is all that is tried.
#[cfg(not(target_arch = "x86_64"))]
pub fn run_probe_guest() -> Result<(), String> {
    let failed = |error: kvm_ioctls::Error| error.to_string();
    let vm = kvm_ioctls::Kvm::new().and_then(|kvm| kvm.create_vm()).map_err(failed)?;
    vm.create_vcpu(0).map(drop).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_processors_flags_decide_first() {
        let judge = |flags: &str| judge_processor(&format!("processor : 0\nflags\t\t: {flags}\n")).map(|v| v.reason);
        assert_eq!(judge("fpu vmx hypervisor"), None);
        assert_eq!(judge("fpu svm"), None);
        // vmmcall without svm is what a guest without nested virtualisation shows.
        assert!(judge("fpu hypervisor vmmcall").unwrap().contains("itself a virtual machine"));
        assert!(judge("fpu vmx_like").unwrap().contains("neither vmx nor svm"));
    }

    #[tokio::test]
    async fn a_verdict_is_remembered_until_circumstances_change() {
        let folder = tempfile::tempdir().unwrap();
        let verdict = Verdict { usable: true, reason: "made up".to_owned(), mend: None };
        let write = |key: String| {
            let known = Remembered { key, verdict: verdict.clone() };
            file::write(folder.path().join("kvm.json"), &serde_json::to_vec(&known).unwrap()).unwrap();
        };
        write(circumstances());
        assert_eq!(kvm(folder.path()).await, verdict);
        write("another boot".to_owned());
        assert_ne!(kvm(folder.path()).await, verdict);
    }

    #[tokio::test]
    async fn what_was_asked_for_is_used_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let known = Remembered { key: circumstances(), verdict: Verdict::no("no flags", "buy another") };
        file::write(folder.path().join("kvm.json"), &serde_json::to_vec(&known).unwrap()).unwrap();
        assert_eq!(choose(Choice::Auto, folder.path()).await.unwrap().0, Accelerator::Tcg);
        assert_eq!(choose(Choice::Tcg, folder.path()).await.unwrap().0, Accelerator::Tcg);
        let error = choose(Choice::Kvm, folder.path()).await.unwrap_err();
        assert_eq!(error.to_string(), "KVM can't be used: no flags");
    }
}
