//! `goldsmith channel`.

use clap::Subcommand;
use serde::Serialize;

use super::Context;
use super::output::{BOLD, table};
use super::report::CliError;
use crate::store::version::{ImageId, Pattern};
use crate::store::{Channel, ChannelId};

/// Name the image to use now: nginx@stable
#[derive(Debug, Subcommand)]
#[command(about = "Name the image to use now: nginx@stable")]
pub(super) enum Command {
    /// List channels, and what they name
    List,
    /// Have a channel name an AVAILABLE image; the first time makes the channel
    Promote {
        /// The channel: NAME@CHANNEL
        channel: ChannelId,
        /// The image: NAME, NAME/VERSION, NAME/VERSION/BUILD or another channel
        image: Pattern,
    },
    /// Have a channel name the image before again, the nearest that is still AVAILABLE
    Rollback {
        /// The channel: NAME@CHANNEL
        channel: ChannelId,
    },
    /// Show all that a channel has named
    History {
        /// The channel: NAME@CHANNEL
        channel: ChannelId,
    },
}

#[derive(Debug, Serialize)]
pub(super) struct Listed {
    pub(super) channel: String,
    pub(super) image: Option<ImageId>,
    pub(super) since: Option<jiff::Timestamp>,
}

impl From<&Channel> for Listed {
    fn from(channel: &Channel) -> Self {
        let since = channel.history.last().map(|entry| entry.time);
        Self { channel: channel.id.to_string(), image: channel.current().cloned(), since }
    }
}

pub(super) fn run(command: Command, context: &Context) -> Result<(), CliError> {
    let store = context.store()?;
    match command {
        Command::List => list(&store.channels()?, context),
        Command::Promote { channel, image } => {
            let image = store.find_usable(&image).or_else(|_| store.find(&image, |_| true))?;
            show(&store.promote(&channel, &image.id)?, context)
        }
        Command::Rollback { channel } => show(&store.roll_back(&channel)?, context),
        Command::History { channel } => history(&store.channel(&channel)?, context),
    }
}

fn list(channels: &[Channel], context: &Context) -> Result<(), CliError> {
    let listed: Vec<Listed> = channels.iter().map(Listed::from).collect();
    if context.output.json {
        return context.output.json(&listed);
    }
    if listed.is_empty() {
        context.output.progress("no channels yet; `goldsmith channel promote NAME@CHANNEL IMAGE` makes one");
        return Ok(());
    }
    for line in rows(&listed) {
        context.output.result(&line);
    }
    Ok(())
}

/// Channels as a table.
pub(super) fn rows(listed: &[Listed]) -> Vec<String> {
    let row = |channel: &Listed| {
        let image = channel.image.as_ref().map(ToString::to_string).unwrap_or_default();
        let since = channel.since.map(|time| time.strftime("%Y-%m-%d %H:%M").to_string()).unwrap_or_default();
        vec![channel.channel.clone(), image, since]
    };
    table(&["CHANNEL", "IMAGE", "SINCE (UTC)"], &listed.iter().map(row).collect::<Vec<_>>())
}

fn show(channel: &Channel, context: &Context) -> Result<(), CliError> {
    let listed = Listed::from(channel);
    if context.output.json {
        return context.output.json(&listed);
    }
    let image = listed.image.as_ref().map(ToString::to_string).unwrap_or_default();
    context.output.result(&format!("{BOLD}{}{BOLD:#} names {image}", listed.channel));
    Ok(())
}

fn history(channel: &Channel, context: &Context) -> Result<(), CliError> {
    if context.output.json {
        return context.output.json(&channel.history);
    }
    let row = |entry: &crate::store::ChannelEntry| {
        let time = entry.time.strftime("%Y-%m-%d %H:%M:%S").to_string();
        vec![time, entry.action.to_string(), entry.image.to_string()]
    };
    let rows: Vec<Vec<String>> = channel.history.iter().rev().map(row).collect();
    for line in table(&["WHEN (UTC)", "HOW", "IMAGE"], &rows) {
        context.output.result(&line);
    }
    Ok(())
}
