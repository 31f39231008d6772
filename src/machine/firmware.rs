//! Which firmware a machine boots with, and where the host keeps it.
//!
//! Distributions describe their UEFI builds in JSON files: QEMU's `docs/interop/firmware.json`.

use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::Deserialize;

/// Firmware of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS, which QEMU brings along.
    Bios,
    /// UEFI without Secure Boot.
    Uefi {
        /// The firmware itself.
        code: PathBuf,
        /// An empty variable store, to be copied for each machine.
        variables: PathBuf,
    },
}

impl Firmware {
    /// `bios` or `uefi`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Bios => "bios",
            Self::Uefi { .. } => "uefi",
        }
    }
}

/// Folders with descriptions, the most important first.
const FOLDERS: [&str; 2] = ["/etc/qemu/firmware", "/usr/share/qemu/firmware"];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Description {
    interface_types: Vec<String>,
    mapping: Mapping,
    targets: Vec<Target>,
    #[serde(default)]
    features: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "device", rename_all = "kebab-case")]
enum Mapping {
    #[serde(rename_all = "kebab-case")]
    Flash { executable: File, nvram_template: Option<File> },
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
struct File {
    filename: PathBuf,
    format: String,
}

#[derive(Debug, Deserialize)]
struct Target {
    architecture: String,
    machines: Vec<String>,
}

/// The host's UEFI firmware for x86-64 machines, if it has one.
pub fn find_uefi() -> Option<Firmware> {
    let mut descriptions: Vec<PathBuf> = FOLDERS.iter().flat_map(|folder| descriptions_in(Path::new(folder))).collect();
    // The number in front of the file's name is its priority; a file in an earlier folder masks its namesakes.
    descriptions.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    descriptions.dedup_by(|b, a| a.file_name() == b.file_name());
    descriptions.iter().find_map(|path| usable(&fs::read(path).ok()?))
}

fn descriptions_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect()
}

fn usable(description: &[u8]) -> Option<Firmware> {
    let description: Description = serde_json::from_slice(description).ok()?;
    let is_uefi = description.interface_types.iter().any(|kind| kind == "uefi");
    let fits = description.targets.iter().any(|target| {
        target.architecture == "x86_64" && target.machines.iter().any(|machine| machine.starts_with("pc-q35"))
    });
    // Keys enrolled beforehand would refuse what an ordinary image boots; SMM costs time and protects nothing here.
    let is_plain = !description.features.iter().any(|f| f == "enrolled-keys" || f == "requires-smm");
    let Mapping::Flash { executable, nvram_template: Some(template) } = description.mapping else { return None };
    let is_raw = executable.format == "raw" && template.format == "raw";
    let is_here = executable.filename.exists() && template.filename.exists();
    (is_uefi && fits && is_plain && is_raw && is_here)
        .then_some(Firmware::Uefi { code: executable.filename, variables: template.filename })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(features: &str, code: &str) -> String {
        format!(
            r#"{{"description": "x", "interface-types": ["uefi"], "tags": [], "features": [{features}],
            "mapping": {{"device": "flash", "executable": {{"filename": "{code}", "format": "raw"}},
                         "nvram-template": {{"filename": "/dev/null", "format": "raw"}}}},
            "targets": [{{"architecture": "x86_64", "machines": ["pc-i440fx-*", "pc-q35-*"]}}]}}"#
        )
    }

    #[test]
    fn plain_firmware_is_taken_and_other_is_not() {
        assert!(usable(description("\"acpi-s3\"", "/dev/null").as_bytes()).is_some());
        assert!(usable(description("\"enrolled-keys\"", "/dev/null").as_bytes()).is_none());
        assert!(usable(description("\"requires-smm\", \"secure-boot\"", "/dev/null").as_bytes()).is_none());
        assert!(usable(description("", "/no/such/file").as_bytes()).is_none());
        let memory =
            r#"{"interface-types": ["bios"], "mapping": {"device": "memory", "filename": "x"}, "targets": []}"#;
        assert!(usable(memory.as_bytes()).is_none());
    }
}
