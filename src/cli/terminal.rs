//! A person's terminal, connected to something in a guest.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use futures_util::FutureExt;
use goldsmith_agent::message::{Exit, Size};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

use super::output::Output;
use crate::factory::Attach;
use crate::guest::terminal::{Heard, Keyboard, Terminal};

/// Ctrl-], as in telnet and `virsh console`.
pub(super) const DETACH: u8 = 0x1d;
/// Ends a line, and at its beginning the input.
const END_OF_TRANSMISSION: u8 = 0x04;

/// The terminal passes every key on until this is dropped.
pub(super) struct RawTerminal(Option<Termios>);

impl RawTerminal {
    pub(super) fn enter() -> Self {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Self(None);
        }
        let Ok(before) = tcgetattr(&stdin) else { return Self(None) };
        let mut raw = before.clone();
        raw.make_raw();
        // A terminal that stays as it is can still be used.
        let _unchanged = tcsetattr(&stdin, OptionalActions::Now, &raw);
        Self(Some(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _unchanged = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Leads the user into a guest.
pub(super) fn attach(output: &Output) -> Attach {
    let output = output.clone();
    Arc::new(move |terminal| {
        let output = output.clone();
        async move {
            output.progress("a shell in the guest; `exit` or Ctrl-] leaves it");
            output.hide_display(true);
            let raw = RawTerminal::enter();
            let exit = converse(terminal).await;
            drop(raw);
            output.hide_display(false);
            match exit? {
                Some(Exit::Code(0)) | None => {}
                Some(exit) => output.progress(&format!("the shell ended: {exit:?}")),
            }
            Ok(())
        }
        .boxed()
    })
}

/// Passes keys and bytes on until the shell has ended or the user leaves.
async fn converse(mut terminal: Terminal) -> io::Result<Option<Exit>> {
    let typing = tokio::spawn(type_keys(terminal.keyboard()));
    let exit = tokio::select! {
        exit = show(&mut terminal) => exit.map(Some),
        left = typing => left.map_err(io::Error::other)?.map(|()| None),
    };
    exit
}

/// Shows what comes until the shell has ended.
async fn show(terminal: &mut Terminal) -> io::Result<Exit> {
    loop {
        match terminal.next().await.map_err(io::Error::other)? {
            Heard::Output(bytes) => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(&bytes)?;
                stdout.flush()?;
            }
            Heard::Ended(exit) => return Ok(exit),
        }
    }
}

/// Types what the user types, until the user leaves.
async fn type_keys(keyboard: Keyboard) -> io::Result<()> {
    let mut window = signal(SignalKind::window_change())?;
    let mut stdin = tokio::io::stdin();
    let mut keys = [0; 1024];
    let mut is_open = true;
    if let Some(size) = size() {
        keyboard.resize(size).await.map_err(io::Error::other)?;
    }
    loop {
        tokio::select! {
            read = stdin.read(&mut keys), if is_open => match read {
                Ok(0) | Err(_) => {
                    is_open = false;
                    keyboard.write(&[END_OF_TRANSMISSION]).await.map_err(io::Error::other)?;
                }
                Ok(n) if keys[..n].contains(&DETACH) => return Ok(()),
                Ok(n) => keyboard.write(&keys[..n]).await.map_err(io::Error::other)?,
            },
            Some(()) = window.recv() => {
                if let Some(size) = size() {
                    keyboard.resize(size).await.map_err(io::Error::other)?;
                }
            }
        }
    }
}

fn size() -> Option<Size> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some(Size { rows: size.ws_row, columns: size.ws_col })
}
