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
use goldsmith_agent::message::{Clearing, Exec, Exit, Kind};

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
    /// What it does.
    work: Work,
}

/// How something is cleaned.
#[derive(Debug)]
enum Work {
    /// By the agent itself, one after another: patterns of paths, and what is done to them. A program for each would take a
    /// guest seconds where it is emulated.
    Files(&'static [(Clearing, &'static [&'static str])]),
    /// By shell commands, run as root with pathname expansion.
    Script(&'static str),
}

/// When an operation runs. Those of one stage have nothing to do with each other, and run side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing may write any more into what is cleaned next.
    First,
    /// The cleaning itself.
    Then,
}

/// All operations, in order of their stages; of those that run side by side the longest begin first.
pub static OPERATIONS: [Operation; 13] = [
    Operation {
        name: "services",
        summary: "stop what may still write to disk, each service in its own good way",
        marker: None,
        is_vital: false,
        stage: Stage::First,
        work: Work::Script(
            r#"
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
        ),
    },
    Operation {
        name: "journal",
        summary: "remove the journal and keep its place",
        marker: Some("skip_cleanup_instance_log_files"),
        is_vital: false,
        stage: Stage::First,
        // A service that goes on would begin anew, in a folder that has the machine's id for a name.
        work: Work::Script("journalctl --relinquish-var >/dev/null 2>&1\nrm -rf /var/log/journal/*"),
    },
    Operation {
        name: "logs",
        summary: "empty log files and remove rotated ones",
        marker: Some("skip_cleanup_instance_log_files"),
        is_vital: false,
        stage: Stage::Then,
        work: Work::Files(&[
            (
                Clearing::RemoveFiles,
                &[
                    "/var/log/**/*.gz",
                    "/var/log/**/*.xz",
                    "/var/log/**/*.zst",
                    "/var/log/**/*.[0-9]",
                    "/var/log/**/*.old",
                    "/var/log/**/*-[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]*",
                ],
            ),
            (Clearing::Empty, &["/var/log/**/*"]),
            (
                Clearing::Remove,
                &[
                    "/var/log/amazon/ssm/*",
                    "/var/log/sa/sa*",
                    "/var/lib/rsyslog/imjournal.state",
                    "/var/lib/logrotate/status",
                ],
            ),
        ]),
    },
    Operation {
        name: "cloud-init",
        summary: "have cloud-init treat the next boot as the first",
        marker: Some("skip_cleanup_cloudinit_files"),
        is_vital: true,
        stage: Stage::Then,
        work: Work::Files(&[(
            Clearing::Remove,
            &[
                "/var/lib/cloud/*",
                "/var/log/cloud-init*.log",
                "/etc/sudoers.d/90-cloud-init-users",
                "/etc/netplan/50-cloud-init.yaml",
                "/etc/network/interfaces.d/50-cloud-init*",
                "/etc/systemd/network/10-cloud-init*.network",
                "/etc/NetworkManager/system-connections/cloud-init-*.nmconnection",
                "/etc/sysconfig/network-scripts/ifcfg-eth0",
                "/etc/cloud/cloud.cfg.d/90-installer-network.cfg",
            ],
        )]),
    },
    Operation {
        name: "machine-id",
        summary: "give every copy an identity of its own",
        marker: Some("skip_cleanup_instance_files"),
        is_vital: true,
        stage: Stage::Then,
        work: Work::Files(&[
            (Clearing::Empty, &["/etc/machine-id"]),
            (
                Clearing::RemoveFiles,
                &[
                    "/etc/hostname",
                    "/var/lib/systemd/random-seed",
                    "/var/lib/systemd/credential.secret",
                    "/var/lib/NetworkManager/secret_key",
                    "/etc/iscsi/initiatorname.iscsi",
                ],
            ),
        ]),
    },
    Operation {
        name: "ssh",
        summary: "remove host keys of every kind and keys that could log in",
        marker: Some("skip_cleanup_ssh_files"),
        is_vital: true,
        stage: Stage::Then,
        work: Work::Files(&[
            // A private key's bytes must not stay in free blocks either.
            (Clearing::Overwrite, &["/etc/ssh/ssh_host_*_key"]),
            (
                Clearing::RemoveFiles,
                &[
                    "/etc/ssh/ssh_host_*_key",
                    "/etc/ssh/ssh_host_*_key.pub",
                    "/etc/ssh/ssh_host_*_key-cert.pub",
                    "/root/.ssh/authorized_keys",
                    "/root/.ssh/authorized_keys2",
                    "/root/.ssh/known_hosts*",
                    "/home/*/.ssh/authorized_keys",
                    "/home/*/.ssh/authorized_keys2",
                    "/home/*/.ssh/known_hosts*",
                ],
            ),
        ]),
    },
    Operation {
        name: "instance",
        summary: "remove stamps and databases that services make anew",
        marker: Some("skip_cleanup_instance_files"),
        is_vital: false,
        stage: Stage::Then,
        work: Work::Files(&[(
            Clearing::RemoveFiles,
            &[
                "/etc/.updated",
                "/var/.updated",
                "/etc/aliases.db",
                "/var/lib/postfix/master.lock",
                "/var/spool/postfix/pid/*",
                "/etc/udev/rules.d/70-persistent-net.rules",
                "/etc/udev/rules.d/75-persistent-net-generator.rules",
            ],
        )]),
    },
    Operation {
        name: "leases",
        summary: "forget the build's network",
        marker: Some("skip_cleanup_instance_files"),
        is_vital: false,
        stage: Stage::Then,
        work: Work::Files(&[(
            Clearing::RemoveFiles,
            &[
                "/var/lib/dhcp/*",
                "/var/lib/dhclient/*",
                "/var/lib/dhcpcd/*.lease",
                "/var/lib/NetworkManager/*.lease",
                "/var/lib/NetworkManager/timestamps",
                "/var/lib/NetworkManager/seen-bssids",
            ],
        )]),
    },
    Operation {
        name: "package-caches",
        summary: "remove downloaded packages and lists",
        marker: None,
        is_vital: false,
        stage: Stage::Then,
        work: Work::Files(&[(
            Clearing::Remove,
            &[
                "/var/cache/apt/archives/*.deb",
                "/var/cache/apt/archives/partial/*",
                "/var/cache/apt/*.bin",
                "/var/lib/apt/lists/*",
                "/var/cache/dnf/*",
                "/var/cache/libdnf5/*",
                "/var/cache/yum/*",
                "/var/cache/zypp/packages/*",
                "/var/cache/apk/*",
                "/var/cache/man/*",
                "/var/cache/debconf/*-old",
                "/var/lib/dpkg/*-old",
                "/root/.cache/pip",
            ],
        )]),
    },
    Operation {
        name: "histories",
        summary: "remove what was typed",
        marker: None,
        is_vital: false,
        stage: Stage::Then,
        work: Work::Files(&[
            (Clearing::Overwrite, &["/root/.*_history", "/home/*/.*_history"]),
            (
                Clearing::RemoveFiles,
                &[
                    "/root/.*_history",
                    "/root/.lesshst",
                    "/root/.viminfo",
                    "/root/.wget-hsts",
                    "/home/*/.*_history",
                    "/home/*/.lesshst",
                    "/home/*/.viminfo",
                    "/home/*/.wget-hsts",
                ],
            ),
        ]),
    },
    Operation {
        name: "mail-and-crashes",
        summary: "remove mail and crash reports",
        marker: Some("skip_cleanup_instance_log_files"),
        is_vital: false,
        stage: Stage::Then,
        work: Work::Files(&[(
            Clearing::Remove,
            &["/var/mail/*", "/var/spool/mail/*", "/var/crash/*", "/var/lib/systemd/coredump/*"],
        )]),
    },
    Operation {
        name: "executor",
        summary: "remove what component executors leave",
        marker: Some("skip_cleanup_toe_files"),
        is_vital: false,
        stage: Stage::Then,
        work: Work::Files(&[(Clearing::Remove, &["$WORKING_DIRECTORY/TOE_*", "/var/lib/amazon/toe"])]),
    },
    Operation {
        name: "temporary-files",
        summary: "empty the temporary folders",
        marker: None,
        is_vital: false,
        stage: Stage::Then,
        work: Work::Files(&[(Clearing::Remove, &["/tmp/*", "/var/tmp/*"])]),
    },
];

/// Gives the host back what is free.
const TRIM: &str = "fstrim --all --quiet-unsupported 2>/dev/null || fstrim /";

/// Whether there are file systems that have not told the host already: what is mounted with `discard` has. proc_mounts(5).
fn needs_trim(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(2);
        let is_known = fields.next().is_some_and(|kind| ["ext3", "ext4", "xfs", "btrfs", "f2fs"].contains(&kind));
        is_known && fields.next().is_some_and(|options| !options.split(',').any(|option| option.starts_with("discard")))
    })
}

/// Bytes of a resolver's configuration and of a list of mounts that are looked at.
const RESOLVER_LIMIT: usize = 64 << 10;
const MOUNTS_LIMIT: usize = 1 << 20;

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
        for stage in [Stage::First, Stage::Then] {
            let mut running = Vec::new();
            for &operation in due.iter().filter(|operation| operation.stage == stage) {
                running.push(self.clean_one(operation, working_directory).boxed());
            }
            let mut running = futures_util::stream::iter(running).buffer_unordered(AT_ONCE);
            while let Some(complaint) = running.next().await {
                complaints.extend(complaint?);
            }
        }
        let is_due = |name: &str| due.iter().any(|operation| operation.name == name);
        if is_due("machine-id") {
            self.forget_bus_identity().await?;
        }
        if is_due("leases") {
            self.forget_name_server().await?;
        }
        self.sync().await?;
        if needs_trim(&String::from_utf8_lossy(&self.read("/proc/mounts", MOUNTS_LIMIT).await?)) {
            complaints.extend(self.run_script(TRIM).await?.map(|said| ("trim", said)));
        }
        Ok(complaints)
    }

    /// Does one operation. Returns what it complains about.
    async fn clean_one(
        &self,
        operation: &'static Operation,
        working_directory: &str,
    ) -> Result<Option<(&'static str, String)>, Error> {
        let started = Instant::now();
        let said = match operation.work {
            Work::Files(work) => self.clear_files(work, working_directory).await?,
            Work::Script(script) => self.run_script(script).await?,
        };
        tracing::debug!(operation.name, seconds = started.elapsed().as_secs_f64(), "cleaned");
        match said {
            Some(said) if operation.is_vital => {
                Err(Error::Protocol(format!("cleaning ({}) went wrong: {said}", operation.name)))
            }
            said => Ok(said.map(|said| (operation.name, said))),
        }
    }

    /// Has the agent clear files. Returns what it complains about.
    async fn clear_files(
        &self,
        work: &[(Clearing, &[&str])],
        working_directory: &str,
    ) -> Result<Option<String>, Error> {
        let mut complaint = None;
        for (how, patterns) in work {
            let in_folder = |pattern: &&str| pattern.replace("$WORKING_DIRECTORY", working_directory);
            match self.clear(patterns.iter().map(in_folder).collect(), *how).await {
                Err(Error::Refused(error)) => complaint = complaint.or(Some(plain(&error.message))),
                cleared => cleared?,
            }
        }
        Ok(complaint)
    }

    /// Runs shell commands. Returns what they complain about.
    async fn run_script(&self, script: &str) -> Result<Option<String>, Error> {
        let argv = ["sh", "-c", script].map(str::to_owned).into();
        let cwd = "/".to_owned();
        let exec = Exec { argv, env: plain_environment(), cwd, timeout_ms: Some(CLEANING_DEADLINE_MS) };
        let mut said = Vec::new();
        let running = self.exec(exec, |_, data| {
            if said.len() < COMPLAINT_LIMIT {
                said.extend_from_slice(data);
            }
        });
        let exit = self.reported_within(Duration::from_millis(CLEANING_DEADLINE_MS), running).await?;
        let said = plain(String::from_utf8_lossy(&said).trim());
        Ok((exit != Exit::Code(0)).then(|| format!("it ended with {exit:?}: {said}")))
    }

    /// Removes the bus's own copy of the machine's identity; mostly it is a link to the one that is empty now.
    async fn forget_bus_identity(&self) -> Result<(), Error> {
        const IDENTITY: &str = "/var/lib/dbus/machine-id";
        match self.stat(IDENTITY, false).await? {
            Some(found) if found.kind == Kind::File => self.remove(IDENTITY).await,
            _ => Ok(()),
        }
    }

    /// Takes the build's name server out of a file that is no link to a service's.
    async fn forget_name_server(&self) -> Result<(), Error> {
        const RESOLVER: &str = "/etc/resolv.conf";
        let is_file = self.stat(RESOLVER, false).await?.is_some_and(|found| found.kind == Kind::File);
        if !is_file {
            return Ok(());
        }
        let text = self.read(RESOLVER, RESOLVER_LIMIT).await?;
        if String::from_utf8_lossy(&text).lines().any(|line| line.starts_with("nameserver 10.0.2.3")) {
            self.clear(vec![RESOLVER.to_owned()], Clearing::Empty).await?;
        }
        Ok(())
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
            if let Work::Script(script) = operation.work {
                let status = Command::new("sh").args(["-n", "-c", script]).status().unwrap();
                assert!(status.success(), "{}", operation.name);
            }
        }
    }

    #[test]
    fn what_was_mounted_with_discard_needs_no_trimming() {
        let mounts = "proc /proc proc rw 0 0\n/dev/vda1 / ext4 rw,discard,errors=remount-ro 0 0\n/dev/vda15 /boot/efi vfat rw 0 0\n";
        assert!(!needs_trim(mounts));
        assert!(needs_trim(&format!("{mounts}/dev/vda2 /home xfs rw,noquota 0 0\n")));
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
