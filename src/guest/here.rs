//! This very host in a guest's place: the agent runs as a program beside goldsmith and is talked to over a socket, so a
//! component does here what it does in a guest. There is no machine around it: nothing can be restarted, attached or
//! sealed.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, watch};

use super::channel::Agent;
use super::seed::AGENT;
use super::{Body, Error, Guest};

/// A file system in memory that everybody may write to.
const MEMORY: &str = "/dev/shm";
/// How long the agent may take to greet, and to end once nobody talks to it: it ends what runs first.
const DEADLINE: Duration = Duration::from_secs(10);

/// The agent as a program of this host.
#[derive(Debug)]
pub(super) struct Here {
    child: Mutex<Child>,
    /// In memory, for scripts that no disk may hold; none if there will be no such scripts.
    memory: Option<TempDir>,
    /// Kept open: the agent reads of a port that is closed as of a guest that has restarted.
    _closings: watch::Sender<u64>,
}

impl Guest {
    /// Starts an agent on this host. Its program is put into `folder`, which must not be mounted `noexec`.
    /// Scripts that no disk may hold can be run only if that is said here: it takes a file system in memory.
    pub async fn here(folder: &Path, has_secrets: bool) -> Result<Self, Error> {
        let program = folder.join("agent");
        let started = |source| Error::Agent { source };
        fs_err::write(&program, AGENT).map_err(started)?;
        fs_err::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).map_err(started)?;
        let memory = has_secrets.then(|| tempfile::Builder::new().prefix("goldsmith-").tempdir_in(MEMORY));
        let memory = memory.transpose().map_err(|source| Error::Memory { folder: MEMORY, source })?;
        let (ours, theirs) = UnixStream::pair().map_err(started)?;
        ours.set_nonblocking(true).map_err(started)?;
        let mut command = Command::new(&program);
        command
            .arg("--socket")
            .args(memory.as_ref().map(TempDir::path))
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)));
        // Its own group: a Ctrl-C at the terminal is goldsmith's to deal with.
        command.stdout(Stdio::null()).process_group(0).kill_on_drop(false);
        let child = command.spawn().map_err(started)?;
        // The command holds the other end, and with it open nobody would see the agent's end.
        drop(command);
        let stream = tokio::net::UnixStream::from_std(ours).map_err(started)?;
        let (closings, receiver) = watch::channel(0);
        let agent = Agent::connect(stream, receiver);
        let here = Here { child: Mutex::new(child), memory, _closings: closings };
        let guest = Self::new(Body::Here(Box::new(here)), agent, 1);
        match guest.greeted(DEADLINE).await {
            Ok(_hello) => Ok(guest),
            Err(error) => {
                guest.finish().await;
                Err(error)
            }
        }
    }
}

impl Here {
    /// Where scripts go that no disk may hold: nobody else may look in, and nothing in it outlives the agent.
    pub(super) fn memory(&self) -> &str {
        self.memory.as_ref().and_then(|memory| memory.path().to_str()).unwrap_or(MEMORY)
    }

    /// Ends the agent, to which nobody may talk any more.
    pub(super) async fn finish(self) {
        let mut child = self.child.into_inner();
        if tokio::time::timeout(DEADLINE, child.wait()).await.is_err()
            && let Err(error) = child.kill().await
        {
            tracing::warn!(%error, "the agent can't be ended");
        }
    }
}
