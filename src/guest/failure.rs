//! Failures of guests that have a name.
//!
//! One table of what a console or a program's output looks like when something well known goes wrong, and of what to do
//! about it. The console is read during good runs too.

use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use regex::Regex;
use tokio::sync::watch;

use crate::machine::console;

/// A failure with a name.
#[derive(Debug)]
pub struct Sign {
    /// What it is, as the end of a sentence.
    pub name: &'static str,
    /// What to do about it.
    pub hint: &'static str,
    /// What it looks like.
    pattern: &'static str,
    /// Where it shows.
    shows: Shows,
    /// Whether the guest is beyond help.
    pub(super) is_fatal: bool,
}

impl PartialEq for Sign {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shows {
    Console,
    Output,
}

const fn console(name: &'static str, pattern: &'static str, hint: &'static str) -> Sign {
    Sign { name, hint, pattern, shows: Shows::Console, is_fatal: false }
}

const fn output(name: &'static str, pattern: &'static str, hint: &'static str) -> Sign {
    Sign { name, hint, pattern, shows: Shows::Output, is_fatal: false }
}

static SIGNS: [Sign; 19] = [
    Sign {
        is_fatal: true,
        ..console(
            "kernel panic",
            r"Kernel panic - not syncing",
            "read the console log; a root file system that is not found points at the boot loader or the initramfs",
        )
    },
    console("kernel bug", r"(?:BUG: |Oops: |general protection fault)", "read the console log"),
    console(
        "out of memory",
        r"(?:Out of memory: Killed process|oom-kill:|Memory cgroup out of memory)",
        "give the machine more memory: `machine: { memory: 2GiB }` in the recipe",
    ),
    console(
        "file system errors",
        r"(?:EXT4-fs error|XFS .*Corruption|BTRFS error|Buffer I/O error|I/O error, dev vd)",
        "the parent's file system may be damaged; fetch or build the parent again",
    ),
    console(
        "emergency mode",
        r"(?:You are in emergency mode|Entering emergency mode|emergency shell|Give root password for maintenance)",
        "a mount in /etc/fstab or an essential unit failed; read the console log",
    ),
    console(
        "no boot loader",
        r"(?:No bootable device|No bootable option|Boot failed: not a bootable disk|grub rescue>)",
        "the disk does not boot by this firmware; try `machine: { firmware: uefi }` or `bios`",
    ),
    console(
        "no root file system",
        r"(?:VFS: Cannot open root device|ALERT!\s+.*does not exist|Warning: /dev/disk/.* does not exist)",
        "the kernel's command line names a root device that is not there; use root=UUID=…",
    ),
    output(
        "the guest's disk is full",
        r"(?i)(?:no space left on device|disk quota exceeded|you don't have enough free space)",
        "give the image a larger disk: `disk: 8GiB` in the recipe",
    ),
    output(
        "the package manager is locked by another process",
        r"(?:Could not get lock /var/lib/(?:dpkg|apt)|Unable to acquire the dpkg frontend lock|Another app is currently holding the yum lock|Waiting for process with pid \d+ to finish)",
        "something in the guest updates packages by itself: stop it in a step before, or give the step `maxAttempts`",
    ),
    output(
        "a download did not arrive whole",
        r"(?:Hash Sum mismatch|File has unexpected size|Connection reset by peer|Error reading from server|transfer closed with)",
        "give the step `maxAttempts: 3`, or use a mirror that is nearer",
    ),
    output(
        "no network: names can't be resolved",
        r"(?i)(?:temporary failure (?:in name resolution|resolving)|could not resolve host|name or service not known|unable to resolve host address)",
        "check the host's own name resolution, and `goldsmith doctor`; a site with a proxy needs `--proxy`",
    ),
    output(
        "no network: the other side can't be reached",
        r"(?i)(?:network is unreachable|no route to host|connection timed out|connection refused|failed to connect to)",
        "guests reach neither the host's loopback nor link-local addresses; a site with a proxy needs `--proxy`",
    ),
    output(
        "a certificate is not trusted",
        r"(?i)(?:certificate verify failed|certificate verification failed|unable to get local issuer certificate|self[- ]signed certificate)",
        "a site with its own authority needs `--ca-certificate FILE`; a wrong clock has the same effect",
    ),
    output(
        "a package signature can't be verified",
        r"(?:NO_PUBKEY|EXPKEYSIG|is not signed|GPG check FAILED|Public key for .* is not installed)",
        "the repository's key is missing in the guest or has expired; install it in a step before",
    ),
    output(
        "a package repository's index has expired",
        r"Release file .* (?:expired|is not valid yet)",
        "the mirror is out of date, or the guest's clock is wrong",
    ),
    output(
        "no such package",
        r"(?:Unable to locate package|has no installation candidate|No match for argument|No package .* available)",
        "refresh the package lists in a step before (`apt-get update`), and check the package's name",
    ),
    output(
        "out of memory",
        r"(?i)(?:cannot allocate memory|out of memory)",
        "give the machine more memory: `machine: { memory: 2GiB }` in the recipe",
    ),
    output(
        "a command is missing",
        r"(?:command not found|: not found$)",
        "install it in a step before, or write its full path",
    ),
    output(
        "a command may not be run",
        r"(?i)permission denied",
        "steps run as root; a file that is to be run needs its x bit, and its file system may not be mounted noexec",
    ),
];

static PATTERNS: LazyLock<Vec<(&'static Sign, Regex)>> = LazyLock::new(|| {
    // That every pattern compiles is shown by a test.
    SIGNS.iter().filter_map(|sign| Some((sign, Regex::new(sign.pattern).ok()?))).collect()
});

fn recognise(shows: Shows, line: &str) -> Option<&'static Sign> {
    let mut patterns = PATTERNS.iter().filter(|(sign, _)| sign.shows == shows);
    patterns.find(|(_, pattern)| pattern.is_match(line)).map(|(sign, _)| *sign)
}

/// What a line of the console shows, if it has a name.
#[cfg(test)]
pub(super) fn on_console(line: &str) -> Option<&'static Sign> {
    recognise(Shows::Console, line)
}

/// What the last lines of a failed program show, if it has a name. The table's order decides between several.
pub fn in_output<'a>(lines: impl IntoIterator<Item = &'a str>) -> Option<&'static Sign> {
    let mut found: Option<usize> = None;
    for line in lines {
        if let Some(sign) = recognise(Shows::Output, line) {
            let rank = SIGNS.iter().position(|other| std::ptr::eq(other, sign));
            found = [found, rank].into_iter().flatten().min();
        }
    }
    found.map(|rank| &SIGNS[rank])
}

/// The sign of a full disk, for whoever found the disk full by looking at it.
pub fn disk_full() -> Option<&'static Sign> {
    recognise(Shows::Output, "No space left on device")
}

/// A sign on the console.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Which.
    pub sign: &'static Sign,
    /// The line that shows it.
    pub line: String,
}

/// What the kernel says when the agent powers off. It lets go of the disk then, and init, which can't be ended, finds it gone.
const LAST_WORDS: &str = "sysrq: Emergency Remount R/O";
/// What it says when it starts.
const FIRST_WORDS: &str = "Linux version ";

/// Reads a guest's console for signs.
#[derive(Debug)]
pub(super) struct Console {
    signs: Arc<Mutex<Vec<Seen>>>,
    panicked: watch::Receiver<bool>,
}

impl Console {
    pub(super) fn follow(log: &Path) -> Self {
        let signs = Arc::new(Mutex::new(Vec::new()));
        let (panic_sender, panicked) = watch::channel(false);
        let mut lines = console::follow(log);
        let found = signs.clone();
        tokio::spawn(async move {
            let mut is_going = false;
            while let Some(line) = lines.recv().await {
                is_going = (is_going || line.contains(LAST_WORDS)) && !line.contains(FIRST_WORDS);
                let Some(sign) = recognise(Shows::Console, &line).filter(|sign| sign.is_fatal || !is_going) else {
                    continue;
                };
                // The line itself may show a secret; the console's log has it until the build is over.
                tracing::warn!(sign = sign.name, "guest's console");
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                // Once each, so that a guest can't fill this process's memory.
                if !found.iter().any(|seen: &Seen| seen.sign == sign) {
                    found.push(Seen { sign, line: line.trim().to_owned() });
                }
                drop(found);
                if sign.is_fatal && panic_sender.send(true).is_err() {
                    return;
                }
            }
        });
        Self { signs, panicked }
    }

    /// All that was seen so far, the newest last.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.signs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the guest's kernel has panicked.
    pub(super) async fn panicked(&self) {
        let mut panicked = self.panicked.clone();
        if panicked.wait_for(|panicked| *panicked).await.is_err() {
            // The follower ends with the machine, whose end is told elsewhere.
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_disk_that_goes_with_the_power_is_no_sign() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("console.log");
        let off = "[   29.787502] sysrq: Emergency Remount R/O\n[   29.840025] I/O error, dev vda, sector 325752\n";
        let on = "[    0.000000] Linux version 6.1.0\n[   88.4] Out of memory: Killed process 512 (python3)\n";
        fs_err::write(&log, format!("{off}{on}{off}[  1.2] Kernel panic - not syncing: Fatal exception\n")).unwrap();
        let console = Console::follow(&log);
        tokio::time::timeout(std::time::Duration::from_secs(60), console.panicked()).await.unwrap();
        let seen: Vec<&str> = console.seen().iter().map(|seen| seen.sign.name).collect();
        assert_eq!(seen, ["out of memory", "kernel panic"]);
    }

    #[test]
    fn every_pattern_compiles() {
        assert_eq!(PATTERNS.len(), SIGNS.len());
    }

    #[test]
    fn real_messages_are_named() {
        let console = |line| recognise(Shows::Console, line).map(|sign| sign.name);
        let output = |line| in_output([line]).map(|sign| sign.name);
        for (line, name) in [
            (
                "[    1.2] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
                "kernel panic",
            ),
            ("[  88.4] Out of memory: Killed process 512 (python3) total-vm:1,", "out of memory"),
            (
                "Begin: Waiting for root file system ... ALERT!  UUID=1-2 does not exist.  Dropping to a shell!",
                "no root file system",
            ),
            ("You are in emergency mode. After logging in, type", "emergency mode"),
        ] {
            assert_eq!(console(line), Some(name), "{line}");
        }
        for (line, name) in [
            ("dd: error writing '/fill': No space left on device", "the guest's disk is full"),
            ("E: You don't have enough free space in /var/cache/apt/archives/.", "the guest's disk is full"),
            (
                "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 81 (apt)",
                "the package manager is locked by another process",
            ),
            ("W: Failed to fetch http://x/  Temporary failure resolving 'x'", "no network: names can't be resolved"),
            ("curl: (6) Could not resolve host: example.test", "no network: names can't be resolved"),
            ("E: Unable to locate package ngnix", "no such package"),
            ("bash: line 1: nonesuch: command not found", "a command is missing"),
        ] {
            assert_eq!(output(line), Some(name), "{line}");
        }
        assert_eq!(console("[  OK  ] Reached target Basic System."), None);
        assert_eq!(output("Setting up nginx (1.22.1-9) ..."), None);
    }

    #[test]
    fn a_cause_outranks_its_consequences() {
        let lines = ["tar: write error: No space left on device", "make: cc: command not found"];
        assert_eq!(in_output(lines).unwrap().name, "the guest's disk is full");
        assert_eq!(in_output(lines.into_iter().rev()).unwrap().name, "the guest's disk is full");
    }
}
