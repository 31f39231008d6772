//! `goldsmith run`: a throw-away copy of an image, with its console.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::output::BOLD;
use super::report::CliError;
use super::terminal::{DETACH, RawTerminal};
use super::{Accelerator, Context};
use crate::factory::{Console, RunOptions, Subject};
use crate::machine::Forward;

/// Boot a throw-away copy of an image and attach its console
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The image, or the path of a disk
    image: String,
    /// Lead a port of this host's loopback into the guest
    #[arg(long = "publish", short, value_name = "HOST:GUEST", value_parser = forward)]
    publish: Vec<Forward>,
    /// A seed disk of your own instead of one with a password for the default user
    #[arg(long, value_name = "FILE")]
    seed: Option<PathBuf>,
    /// What the guest runs on
    #[arg(long, value_enum, default_value_t)]
    accel: Accelerator,
}

pub(super) async fn run(arguments: Arguments, context: &Context) -> Result<(), CliError> {
    context.no_json("the guest's console")?;
    let factory = context.factory(arguments.accel)?;
    let subject = if Path::new(&arguments.image).is_file() {
        Subject::Disk(arguments.image.into())
    } else {
        let pattern = arguments.image.parse().map_err(|error| CliError::Usage(format!("{error}")))?;
        Subject::Image(Box::new(factory.store.find_sealed(&pattern)?))
    };
    let options = RunOptions { forwards: arguments.publish, seed: arguments.seed };
    let mut console = factory.run_copy(&subject, &options).await?;
    drop(factory);
    if let Some(password) = &console.password {
        context
            .output
            .progress(&format!("log in as the image's default user with the password {BOLD}{password}{BOLD:#}"));
    }
    context.output.progress("Ctrl-] ends the machine and throws the copy away");
    let attached = attach(&mut console, context).await;
    console.finish().await;
    attached
}

/// Connects the terminal to the console until the guest powers off or the user leaves.
async fn attach(console: &mut Console, context: &Context) -> Result<(), CliError> {
    let Some(stream) = console.stream.take() else { return Ok(()) };
    let (mut from_guest, mut to_guest) = stream.into_split();
    let raw = RawTerminal::enter();
    let mut keys = [0; 1024];
    let mut bytes = [0; 4096];
    let mut stdin = tokio::io::stdin();
    let mut stdin_open = true;
    loop {
        tokio::select! {
            read = from_guest.read(&mut bytes) => {
                let Ok(n @ 1..) = read else { break };
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(&bytes[..n])?;
                stdout.flush()?;
            }
            read = stdin.read(&mut keys), if stdin_open => match read {
                Ok(0) | Err(_) => stdin_open = false,
                Ok(n) if keys[..n].contains(&DETACH) => break,
                Ok(n) => to_guest.write_all(&keys[..n]).await?,
            },
            () = context.cancel.cancelled() => return Err(crate::factory::Error::Interrupted.into()),
        }
    }
    drop(raw);
    Ok(())
}

fn forward(text: &str) -> Result<Forward, String> {
    let parse = |(host, guest): (&str, &str)| Some(Forward { host: host.parse().ok()?, guest: guest.parse().ok()? });
    text.split_once(':').and_then(parse).ok_or_else(|| format!("`{text}` is not of the form HOST:GUEST, as in 8080:80"))
}
