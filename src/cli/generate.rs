//! Shell completions and man pages, from the command tree.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

use super::command_tree;
use super::report::CliError;

/// Print a shell's completions
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

/// Write the man pages
#[derive(Debug, Args)]
pub(super) struct Man {
    /// Folder to write them into
    folder: PathBuf,
}

// The signatures are those of the other commands.
#[allow(clippy::unnecessary_wraps)]
pub(super) fn completions(arguments: &Completions) -> Result<(), CliError> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut command_tree(), "goldsmith", &mut text);
    use std::io::Write;
    std::io::stdout().lock().write_all(&text)?;
    Ok(())
}

pub(super) fn man(arguments: &Man) -> Result<(), CliError> {
    fs_err::create_dir_all(&arguments.folder)?;
    clap_mangen::generate_to(command_tree(), &arguments.folder)?;
    Ok(())
}
