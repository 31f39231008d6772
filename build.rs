//! Builds the guest agent as a static program and hands its path to `src/guest/seed.rs`, which embeds it.
//!
//! The agent gets a target folder of its own: sharing the outer build's would wait for its lock for ever. `GOLDSMITH_AGENT`
//! names a ready-made agent instead, for cross builds and packagers.
//!
//! It also takes digests of the sources that start guests and run steps: what another version of them did may be used no more, though
//! goldsmith's own version is still the same.

use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=agent/src");
    println!("cargo::rerun-if-changed=agent/Cargo.toml");
    println!("cargo::rerun-if-changed=Cargo.lock");
    println!("cargo::rerun-if-env-changed=GOLDSMITH_AGENT");
    for (name, folders) in VERSIONS {
        match version(folders) {
            Ok(version) => println!("cargo::rustc-env={name}={version}"),
            Err(error) => println!("cargo::error=the sources can't be read: {error}"),
        }
    }
    match agent() {
        Ok(path) => println!("cargo::rustc-env=GOLDSMITH_AGENT_PATH={}", path.display()),
        Err(why) => println!("cargo::error={why}"),
    }
}

/// Sources that decide how a guest is started, and what a step does to it.
const VERSIONS: [(&str, &[&str]); 2] = [
    ("GOLDSMITH_START_VERSION", &["src/guest"]),
    ("GOLDSMITH_STEPS_VERSION", &["src/component", "src/document", "src/factory", "src/guest"]),
];

// The errors name the folder that the sources are in; no crate is worth more.
#[allow(clippy::disallowed_methods)]
fn version(folders: &[&str]) -> std::io::Result<String> {
    // The same for the same toolchain, which is all that is asked of it.
    let mut hasher = DefaultHasher::new();
    let mut folders: Vec<PathBuf> = folders.iter().map(PathBuf::from).collect();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        println!("cargo::rerun-if-changed={}", folder.display());
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    for file in files {
        hasher.write(file.to_string_lossy().as_bytes());
        hasher.write(&std::fs::read(&file)?);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

fn agent() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("GOLDSMITH_AGENT") {
        return Ok(path.into());
    }
    let target = variable("TARGET")?;
    let folder = Path::new(&variable("OUT_DIR")?).join("agent");
    let status = Command::new(variable("CARGO")?)
        .args(["build", "--package", "goldsmith-agent", "--features", "linux", "--profile", "release-agent"])
        .args(["--target", &target, "--locked", "--target-dir"])
        .arg(&folder)
        .current_dir(variable("CARGO_MANIFEST_DIR")?)
        // The C library is linked in, so that one agent runs in every guest of this architecture.
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .status()
        .map_err(|error| format!("can't start cargo for the guest agent: {error}"))?;
    if !status.success() {
        return Err("the guest agent did not build; a static C library is needed (Debian: libc6-dev, \
                    Fedora: glibc-static)"
            .to_owned());
    }
    Ok(folder.join(target).join("release-agent/goldsmith-agent"))
}

fn variable(name: &str) -> Result<String, String> {
    std::env::var(name).map_err(|_| format!("cargo did not set {name}"))
}
