//! Shell completions and man pages, from the command tree.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

use super::command_tree;
use super::output::Output;
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
pub(super) fn completions(arguments: &Completions, output: &Output) -> Result<(), CliError> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut command_tree(), "goldsmith", &mut text);
    String::from_utf8_lossy(&text).lines().for_each(|line| output.result(line));
    Ok(())
}

pub(super) fn man(arguments: &Man) -> Result<(), CliError> {
    fs_err::create_dir_all(&arguments.folder)?;
    clap_mangen::generate_to(command_tree(), &arguments.folder)?;
    Ok(())
}

/// Prints the reference of all commands, as Markdown.
#[allow(clippy::unnecessary_wraps)]
pub(super) fn reference() -> Result<(), CliError> {
    let mut text = String::from("# Commands\n\nMade by `cargo xtask generate` from the program itself.\n");
    let mut tree = command_tree().term_width(100).disable_colored_help(true);
    tree.build();
    describe(&mut tree, &mut text);
    use std::io::Write;
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}

fn describe(command: &mut clap::Command, text: &mut String) {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned();
    let help = command.render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    text.push_str(&format!("\n## {name}\n\n```text\n{}\n```\n", help.join("\n").trim()));
    for inner in command.get_subcommands_mut().filter(|inner| !inner.is_hide_set()) {
        describe(inner, text);
    }
}
