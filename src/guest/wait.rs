//! Waiting until a guest has finished starting.

use std::time::Duration;

use goldsmith_agent::message::{Exit, OpErrorKind};

use super::{Error, Guest};
use crate::machine::console::plain;

/// How long a system may take to come up, with KVM.
const UP_DEADLINE: Duration = Duration::from_secs(300);

/// Small blocks of free memory are told of too, and made large before.
const GIVE_BACK: &str = r#"
echo 4 > /sys/module/page_reporting/parameters/page_reporting_order
echo 3 > /proc/sys/vm/drop_caches
echo 1 > /proc/sys/vm/compact_memory"#;

/// Linux tells of free pages two seconds after they became free: `PAGE_REPORTING_DELAY` in its `mm/page_reporting.c`.
const REPORTING_DELAY: Duration = Duration::from_secs(3);

/// How a system came up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SystemState {
    /// All of it.
    Running,
    /// Some units failed.
    Degraded {
        /// Their names.
        failed: Vec<String>,
    },
    /// It has no systemd, so nothing is known.
    Unknown,
}

impl Guest {
    /// Waits until cloud-init has finished, so that nothing in the guest holds the package manager's locks. Returns
    /// what cloud-init complains about, if it does. A guest without cloud-init has nothing to wait for.
    pub async fn wait_for_cloud_init(&self) -> Result<Option<String>, Error> {
        match self.ask_within(&["cloud-init", "status", "--wait", "--long"], UP_DEADLINE).await {
            Ok((Exit::Code(0), _)) => Ok(None),
            Ok((_, answer)) => {
                // The progress dots come before the answer proper.
                let answer = answer.trim_start_matches(['.', '\n']).trim();
                Ok(Some(plain(answer)))
            }
            Err(Error::Refused(error)) if error.kind == OpErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Stops timers: a restored guest's clock jumps, and whatever was due in between would start at once, take the package
    /// manager's locks, and write while the disk is cleaned. They are back at the next boot.
    pub async fn stop_timers(&self) -> Result<(), Error> {
        match self.ask(&["systemctl", "stop", "*.timer"]).await {
            // A guest without systemd has none.
            Ok(_) | Err(Error::Refused(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Empties the guest's cache of files and waits until it has told the host which memory is free now: what it does not
    /// hold need not be written to a checkpoint, nor read from it.
    pub async fn give_memory_back(&self) -> Result<(), Error> {
        self.sync().await?;
        match self.ask(&["sh", "-c", GIVE_BACK]).await {
            // A guest that can't only has a larger checkpoint.
            Ok(_) | Err(Error::Refused(_)) => {}
            Err(error) => return Err(error),
        }
        tokio::time::sleep(REPORTING_DELAY).await;
        Ok(())
    }

    /// Waits until the system says that it is up.
    pub async fn wait_for_system(&self) -> Result<SystemState, Error> {
        let answer = self.ask_within(&["systemctl", "is-system-running", "--wait"], UP_DEADLINE).await;
        let state = match answer {
            Ok((Exit::Killed, _)) => "starting".to_owned(),
            Ok((_, state)) => state.trim().to_owned(),
            Err(Error::Refused(error)) if error.kind == OpErrorKind::NotFound => return Ok(SystemState::Unknown),
            Err(error) => return Err(error),
        };
        match state.as_str() {
            "running" => Ok(SystemState::Running),
            "offline" | "unknown" | "" => Ok(SystemState::Unknown),
            _ => {
                let list = ["systemctl", "list-units", "--state=failed", "--plain", "--no-legend", "--no-pager"];
                let (_, units) = self.ask(&list).await?;
                let mut failed = unit_names(&units);
                if failed.is_empty() && state != "degraded" {
                    failed.push(format!("the system is still {state}"));
                }
                Ok(SystemState::Degraded { failed })
            }
        }
    }
}

fn unit_names(list: &str) -> Vec<String> {
    list.lines().filter_map(|line| line.split_whitespace().next()).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_units_are_read_from_systemctl() {
        let list =
            "nginx.service loaded failed failed A high performance web server\nx.mount loaded failed failed /x\n";
        assert_eq!(unit_names(list), ["nginx.service", "x.mount"]);
        assert!(unit_names("").is_empty());
    }
}
