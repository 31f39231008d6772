//! A terminal in the guest, for a person.

use std::time::Duration;

use goldsmith_agent::message::{Exec, Op, Size};

pub use super::channel::{Heard, Keyboard, Terminal};
use super::{Error, Guest};

/// How long a guest that is there may take to say so, with KVM.
const PRESENCE_DEADLINE: Duration = Duration::from_secs(10);

impl Guest {
    /// Starts a program on a terminal of its own. What it ends with goes to whoever holds the terminal.
    pub async fn terminal(&self, exec: Exec) -> Result<Terminal, Error> {
        self.unless_ended(self.agent.terminal(Op::Terminal { exec, size: Size::default() })).await
    }

    /// That the guest answers at all: whoever sits before a terminal can't tell a dead guest from a slow one.
    pub async fn is_there(&self) -> Result<(), Error> {
        let deadline = PRESENCE_DEADLINE * self.patience;
        tokio::time::timeout(deadline, self.stat("/", false)).await.unwrap_or_else(|_| Err(self.silent(deadline)))?;
        Ok(())
    }

    /// Waits until the machine has ended or can't go on.
    pub async fn ended(&self) -> Error {
        self.end().await
    }
}
