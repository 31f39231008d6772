//! The main job: from nothing to a tested, exported image.

use anyhow::Result;

use crate::setup::{self, Purpose};
use crate::shell::{self, goldsmith, root, say};

const FORMATS: &str = "raw,qcow2,vmdk,vhd,vhdx";

/// Builds the nginx image in a store of its own, beginning at build 1 each time. The parent and its checkpoint stay.
pub(crate) fn run() -> Result<()> {
    setup::run(Purpose::Use)?;
    shell::run("cargo build", shell::cargo().arg("build"))?;
    // Where the README says, whatever folder cargo builds in.
    let output = root().join("target/demo");
    let home = output.join("home");
    for stale in ["images", "runs"] {
        match fs_err::remove_dir_all(home.join(stale)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    let mut build = shell::command(goldsmith());
    build.args(["build", "recipes/nginx.yaml", "--export", FORMATS, "--output"]).arg(&output);
    shell::run("goldsmith build recipes/nginx.yaml", build.env("GOLDSMITH_HOME", &home))?;
    say(&format!("the image's files are in {}", output.display()));
    say(&format!(
        "look at it: GOLDSMITH_HOME={0} {1} image show nginx; boot a copy: … {1} run nginx",
        home.display(),
        goldsmith().display()
    ));
    Ok(())
}
