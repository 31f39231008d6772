//! A terminal in the guest, for a person.

use goldsmith_agent::message::{Exec, Op, Size};

pub use super::channel::{Heard, Terminal};
use super::{Error, Guest};

impl Guest {
    /// Starts a program on a terminal of its own. What it ends with goes to whoever holds the terminal.
    pub async fn terminal(&self, exec: Exec) -> Result<Terminal, Error> {
        self.unless_ended(self.agent.terminal(Op::Terminal { exec, size: Size::default() })).await
    }
}
