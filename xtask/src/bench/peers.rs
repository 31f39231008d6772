//! What others need for the same work, at their best honest settings: no timer that waits, no cache that syncs, the same
//! accelerator, processors and memory.

use std::time::Instant;

use anyhow::{Result, bail};

use super::goldsmith::WORK;
use super::{Bench, Found};
use crate::shell::{self, find};

/// The seed that lets Packer log in; one kind of host key, as for goldsmith's own build machines.
const USER_DATA: &str = "#cloud-config\nssh_genkeytypes: [ed25519]\nssh_authorized_keys:\n  - ";

/// Makes Packer's key and seed.
pub(super) fn prepare(bench: &Bench) -> Result<()> {
    let (key, seed) = (bench.folder.join("key"), bench.folder.join("seed.img"));
    if seed.exists() || find("packer").is_none() {
        return Ok(());
    }
    let mut keygen = shell::command("ssh-keygen");
    shell::run("a key for Packer", keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key))?;
    let public = fs_err::read_to_string(key.with_extension("pub"))?;
    let documents = [
        ("user-data", format!("{USER_DATA}{}\n", public.trim())),
        ("meta-data", "instance-id: bench\nlocal-hostname: bench\n".to_owned()),
    ];
    let draft = bench.folder.join("seed.draft");
    let mut create = shell::command("mkfs.vfat");
    shell::run("a seed for Packer", create.args(["-C", "-n", "CIDATA"]).arg(&draft).arg("1024"))?;
    for (name, text) in documents {
        let path = bench.folder.join(name);
        fs_err::write(&path, text)?;
        shell::run("a seed for Packer", shell::command("mcopy").arg("-i").arg(&draft).arg(&path).arg("::"))?;
    }
    Ok(fs_err::rename(draft, seed)?)
}

/// Packer's QEMU builder: copies the disk, boots it, runs the step by SSH, powers it off.
pub(super) fn packer(bench: &Bench) -> Result<Found> {
    if find("packer").is_none() {
        bail!("packer is not installed");
    }
    let output = bench.folder.join("packer");
    if output.exists() {
        fs_err::remove_dir_all(&output)?;
    }
    let disk = output.join("bench");
    let drive = |file: &std::path::Path, rest: &str| format!("file={},if=virtio,{rest}", file.display());
    let template = serde_json::json!({
        "builders": [{
            "type": "qemu", "disk_image": true, "iso_url": bench.parent, "iso_checksum": "none", "format": "qcow2",
            "accelerator": bench.accelerator, "headless": true, "vm_name": "bench", "output_directory": output,
            "skip_compaction": true, "cpus": 2, "memory": 1024, "boot_wait": "-1s", "net_device": "virtio-net",
            "ssh_username": "debian", "ssh_private_key_file": bench.folder.join("key"), "ssh_timeout": "20m",
            "shutdown_command": "sudo systemctl poweroff", "qemuargs": [
                ["-drive", drive(&disk, "cache=unsafe,discard=unmap,format=qcow2")],
                ["-drive", drive(&bench.folder.join("seed.img"), "format=raw,readonly=on")]
            ]
        }],
        "provisioners": [{ "type": "shell", "inline": [format!("sudo sh -c '{WORK}'")] }]
    });
    let path = bench.folder.join("packer.json");
    fs_err::write(&path, serde_json::to_vec_pretty(&template)?)?;
    let mut command = shell::command("packer");
    command.args(["build", "-color=false"]).arg(&path).env("PACKER_CACHE_DIR", bench.folder.join("packer-cache"));
    command
        .env("CHECKPOINT_DISABLE", "1")
        .stdout(fs_err::File::create(bench.folder.join("packer.log"))?.into_parts().0);
    let started = Instant::now();
    shell::run("packer", &mut command)?;
    let seconds = started.elapsed().as_secs_f64();
    fs_err::remove_dir_all(&output)?;
    Ok(vec![("packer".to_owned(), seconds)])
}

/// virt-customize, which never boots the image, and a compressed copy, as goldsmith's sealed image is one.
pub(super) fn virt_customize(bench: &Bench) -> Result<Found> {
    if find("virt-customize").is_none() {
        bail!("virt-customize is not installed");
    }
    let (disk, sealed) = (bench.folder.join("customized.qcow2"), bench.folder.join("sealed.qcow2"));
    let started = Instant::now();
    fs_err::copy(&bench.parent, &disk)?;
    shell::run("a writable copy", shell::command("chmod").arg("u+w").arg(&disk))?;
    let mut customize = shell::command("virt-customize");
    customize.args(["--quiet", "--no-network", "--smp", "2", "--memsize", "1024", "--run-command", WORK, "-a"]);
    customize.arg(&disk).env("LIBGUESTFS_BACKEND", "direct");
    if bench.accelerator == "tcg" {
        // It would try a KVM that is there and does not work.
        customize.env("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg");
    }
    shell::run("virt-customize", &mut customize)?;
    let customized = started.elapsed().as_secs_f64();
    let mut convert = shell::command("qemu-img");
    convert.args(["convert", "-c", "-W", "-m", "8", "-f", "qcow2", "-O", "qcow2"]).arg(&disk).arg(&sealed);
    shell::run("its compressed copy", &mut convert)?;
    let seconds = started.elapsed().as_secs_f64();
    for path in [disk, sealed] {
        fs_err::remove_file(path)?;
    }
    let values = [("virt-customize", seconds), ("virt-customize without the copy", customized)];
    Ok(values.map(|(name, value)| (name.to_owned(), value)).into())
}
