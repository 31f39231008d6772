//! Making a build machine anonymous before its disk is sealed.
//!
//! At the least what EC2 Image Builder's own clean-up removes (user guide, "Security best practices", SanitizeInstance),
//! and what it forgets: the content of machine-id, host keys of every kind, shell histories, package caches, leases,
//! rotated logs. It keeps `/etc/locale.conf`, which is no trace of the build but somebody's setting. The same empty
//! files in the working directory switch sections off.

use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt};

use super::{Error, Guest, plain_environment};
use crate::machine::console::plain;
use goldsmith_agent::message::{Exec, Exit};

/// What is kept of an operation's complaint, in bytes.
const COMPLAINT_LIMIT: usize = 64 << 10;

/// One thing to clean.
#[derive(Debug)]
pub struct Operation {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub summary: &'static str,
    /// An empty file of this name in the working directory switches it off.
    marker: Option<&'static str>,
    /// Whether an image must not be sealed without it: copies would share what has to be their own.
    is_vital: bool,
    /// When it runs.
    stage: Stage,
    /// Shell commands, run as root with pathname expansion.
    script: &'static str,
}

/// When an operation runs. Those of one stage have nothing to do with each other, and run side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing may write any more into what is cleaned next.
    First,
    /// The cleaning itself.
    Then,
    /// What the others have freed.
    Last,
}

/// All operations, in order of their stages; of those that run side by side the longest begin first.
pub static OPERATIONS: [Operation; 14] = [
    Operation {
        name: "services",
        summary: "stop what may still write to disk, each service in its own good way",
        marker: None,
        is_vital: false,
        stage: Stage::First,
        script: r#"
command -v systemctl >/dev/null || exit 0
set --
for folder in /sys/fs/cgroup/*.slice/*.service /sys/fs/cgroup/*.slice/*.slice/*.service \
              /sys/fs/cgroup/systemd/*.slice/*.service /sys/fs/cgroup/systemd/*.slice/*.slice/*.service; do
  case $folder in */user.slice/*) continue ;; esac
  unit=${folder##*/}
  case $unit in
    # These have nothing to write when they end.
    '*.service'|goldsmith-agent*|systemd-*|dbus*|user@*|getty@*|serial-getty@*|NetworkManager*|polkit*) ;;
    ssh.service|sshd.service|cron.service|crond.service) ;;
    *) set -- "$@" "$unit" ;;
  esac
done
[ $# -eq 0 ] || systemctl stop -- '*.timer' "$@""#,
    },
    Operation {
        name: "journal",
        summary: "remove the journal and keep its place",
        marker: Some("skip_cleanup_instance_log_files"),
        is_vital: false,
        stage: Stage::Then,
        script: "rm -rf /var/log/journal/*",
    },
    Operation {
        name: "logs",
        summary: "empty log files and remove rotated ones",
        marker: Some("skip_cleanup_instance_log_files"),
        is_vital: false,
        stage: Stage::Then,
        script: r#"
find /var/log -path /var/log/journal -prune -o -type f '(' -name '*.gz' -o -name '*.xz' -o -name '*.zst' -o -name '*.[0-9]' -o -name '*.old' -o -name '*-[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]*' ')' -exec rm -f {} +
find /var/log -path /var/log/journal -prune -o ! -name 'cloud-init*.log' -type f -size +0 -exec sh -c 'for file; do : > "$file"; done' sh {} +
rm -rf /var/log/amazon/ssm/* /var/log/sa/sa* /var/lib/rsyslog/imjournal.state /var/lib/logrotate/status"#,
    },
    Operation {
        name: "cloud-init",
        summary: "have cloud-init treat the next boot as the first",
        marker: Some("skip_cleanup_cloudinit_files"),
        is_vital: true,
        stage: Stage::Then,
        script: r#"
rm -rf /var/lib/cloud/* /var/log/cloud-init*.log /etc/sudoers.d/90-cloud-init-users
rm -f /etc/netplan/50-cloud-init.yaml /etc/network/interfaces.d/50-cloud-init*
rm -f /etc/systemd/network/10-cloud-init*.network /etc/NetworkManager/system-connections/cloud-init-*.nmconnection
rm -f /etc/sysconfig/network-scripts/ifcfg-eth0 /etc/cloud/cloud.cfg.d/90-installer-network.cfg"#,
    },
    Operation {
        name: "machine-id",
        summary: "give every copy an identity of its own",
        marker: Some("skip_cleanup_instance_files"),
        is_vital: true,
        stage: Stage::Then,
        script: r#"
: > /etc/machine-id
[ -L /var/lib/dbus/machine-id ] || rm -f /var/lib/dbus/machine-id
rm -f /etc/hostname /var/lib/systemd/random-seed /var/lib/systemd/credential.secret
rm -f /var/lib/NetworkManager/secret_key /etc/iscsi/initiatorname.iscsi
[ ! -s /etc/machine-id ]"#,
    },
    Operation {
        name: "ssh",
        summary: "remove host keys of every kind and keys that could log in",
        marker: Some("skip_cleanup_ssh_files"),
        is_vital: true,
        stage: Stage::Then,
        script: r#"
# A private key's bytes must not stay in free blocks either.
shred -n 0 -z /etc/ssh/ssh_host_*_key 2>/dev/null
rm -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub /etc/ssh/ssh_host_*_key-cert.pub
for home in /root /home/*; do rm -f "$home/.ssh/authorized_keys" "$home/.ssh/authorized_keys2" "$home/.ssh/known_hosts"*; done
! ls /etc/ssh/ssh_host_*_key 2>/dev/null"#,
    },
    Operation {
        name: "instance",
        summary: "remove stamps and databases that services make anew",
        marker: Some("skip_cleanup_instance_files"),
        is_vital: false,
        stage: Stage::Then,
        script: r#"
rm -f /etc/.updated /var/.updated /etc/aliases.db /var/lib/postfix/master.lock /var/spool/postfix/pid/*
rm -f /etc/udev/rules.d/70-persistent-net.rules /etc/udev/rules.d/75-persistent-net-generator.rules"#,
    },
    Operation {
        name: "leases",
        summary: "forget the build's network",
        marker: Some("skip_cleanup_instance_files"),
        is_vital: false,
        stage: Stage::Then,
        script: r#"
rm -f /var/lib/dhcp/* /var/lib/dhclient/* /var/lib/dhcpcd/*.lease /var/lib/NetworkManager/*.lease
rm -f /var/lib/NetworkManager/timestamps /var/lib/NetworkManager/seen-bssids
if [ -f /etc/resolv.conf ] && [ ! -L /etc/resolv.conf ] && grep -q '^nameserver 10\.0\.2\.3' /etc/resolv.conf; then
  : > /etc/resolv.conf
fi"#,
    },
    Operation {
        name: "package-caches",
        summary: "remove downloaded packages and lists",
        marker: None,
        is_vital: false,
        stage: Stage::Then,
        script: r#"
rm -rf /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/* /var/cache/apt/*.bin
rm -rf /var/lib/apt/lists/* /var/cache/dnf/* /var/cache/libdnf5/* /var/cache/yum/* /var/cache/zypp/packages/*
rm -rf /var/cache/apk/* /var/cache/man/* /var/cache/debconf/*-old /var/lib/dpkg/*-old /root/.cache"#,
    },
    Operation {
        name: "histories",
        summary: "remove what was typed",
        marker: None,
        is_vital: false,
        stage: Stage::Then,
        script: r#"
for home in /root /home/*; do
  shred -n 0 -z "$home"/.*_history 2>/dev/null
  rm -f "$home"/.bash_history "$home"/.zsh_history "$home"/.ash_history "$home"/.sh_history "$home"/.lesshst
  rm -f "$home"/.viminfo "$home"/.python_history "$home"/.mysql_history "$home"/.psql_history "$home"/.wget-hsts
done"#,
    },
    Operation {
        name: "mail-and-crashes",
        summary: "remove mail and crash reports",
        marker: Some("skip_cleanup_instance_log_files"),
        is_vital: false,
        stage: Stage::Then,
        script: "rm -rf /var/mail/* /var/spool/mail/* /var/crash/* /var/lib/systemd/coredump/*",
    },
    Operation {
        name: "executor",
        summary: "remove what component executors leave",
        marker: Some("skip_cleanup_toe_files"),
        is_vital: false,
        stage: Stage::Then,
        script: r#"rm -rf "$WORKING_DIRECTORY"/TOE_* /var/lib/amazon/toe"#,
    },
    Operation {
        name: "temporary-files",
        summary: "empty the temporary folders",
        marker: None,
        is_vital: false,
        stage: Stage::Then,
        script: "find /tmp /var/tmp -xdev -mindepth 1 -delete",
    },
    Operation {
        name: "trim",
        summary: "give the host back what is free",
        marker: None,
        is_vital: false,
        stage: Stage::Last,
        script: r#"
# What is mounted with `discard` has told the host already.
while read -r device folder type options rest; do
  case $type in
    ext3|ext4|xfs|btrfs|f2fs) ;;
    *) continue ;;
  esac
  case ",$options," in
    *,discard*) ;;
    *) sync; fstrim --all --quiet-unsupported 2>/dev/null || fstrim /; exit ;;
  esac
done < /proc/mounts"#,
    },
];

/// How many operations run at the same time.
const AT_ONCE: usize = 3;

impl Guest {
    /// Cleans the guest. Returns the operations that could not do all their work, with what they said.
    pub async fn clean(&self, working_directory: &str) -> Result<Vec<(&'static str, String)>, Error> {
        // Temporary files go, and with them the markers, so these are looked at before anything is done.
        let mut due = Vec::new();
        for operation in &OPERATIONS {
            let skipped = match operation.marker {
                Some(marker) => self.stat(&format!("{working_directory}/{marker}"), false).await?.is_some(),
                None => false,
            };
            if !skipped {
                due.push(operation);
            }
        }
        let mut complaints = Vec::new();
        for stage in [Stage::First, Stage::Then, Stage::Last] {
            let mut running = Vec::new();
            for &operation in due.iter().filter(|operation| operation.stage == stage) {
                running.push(self.clean_one(operation, working_directory).boxed());
            }
            let mut running = futures_util::stream::iter(running).buffer_unordered(AT_ONCE);
            while let Some(complaint) = running.next().await {
                complaints.extend(complaint?);
            }
        }
        self.sync().await?;
        Ok(complaints)
    }

    /// Does one operation. Returns what it complains about.
    async fn clean_one(
        &self,
        operation: &'static Operation,
        working_directory: &str,
    ) -> Result<Option<(&'static str, String)>, Error> {
        let started = Instant::now();
        let mut env = plain_environment();
        env.push(("WORKING_DIRECTORY".to_owned(), working_directory.to_owned()));
        let argv = ["sh", "-c", operation.script].map(str::to_owned).into();
        let exec = Exec { argv, env, cwd: "/".to_owned(), timeout_ms: Some(CLEANING_DEADLINE_MS) };
        let mut said = Vec::new();
        let running = self.exec(exec, |_, data| {
            if said.len() < COMPLAINT_LIMIT {
                said.extend_from_slice(data);
            }
        });
        let exit = self.reported_within(Duration::from_millis(CLEANING_DEADLINE_MS), running).await?;
        tracing::debug!(operation.name, seconds = started.elapsed().as_secs_f64(), "cleaned");
        if exit == Exit::Code(0) {
            return Ok(None);
        }
        let said = plain(String::from_utf8_lossy(&said).trim());
        if operation.is_vital {
            return Err(Error::Protocol(format!("cleaning ({}) ended with {exit:?}: {said}", operation.name)));
        }
        Ok(Some((operation.name, said)))
    }
}

/// A service may take a minute and a half to stop, emulated or not.
const CLEANING_DEADLINE_MS: u64 = 300_000;

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn every_script_is_valid_shell() {
        for operation in &OPERATIONS {
            let status = Command::new("sh").args(["-n", "-c", operation.script]).status().unwrap();
            assert!(status.success(), "{}", operation.name);
        }
    }

    #[test]
    fn markers_are_those_that_documents_create() {
        let known = [
            "skip_cleanup_cloudinit_files",
            "skip_cleanup_instance_files",
            "skip_cleanup_ssh_files",
            "skip_cleanup_instance_log_files",
            "skip_cleanup_toe_files",
            "skip_cleanup_ssm_log_files",
        ];
        for operation in &OPERATIONS {
            assert!(operation.marker.is_none_or(|marker| known.contains(&marker)), "{}", operation.name);
        }
    }
}
