//! What no package brings.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Result;

use super::{Purpose, privileged};
use crate::shell::{self, output, say};

const TUN: &str = "/dev/net/tun";

/// Makes the host ready.
pub(super) fn prepare(purpose: Purpose) -> Result<()> {
    tun()?;
    if !rustix::process::geteuid().is_root() {
        let Some(user) = output(shell::command("id").arg("-un")) else { return Ok(()) };
        return subordinate_ids(user.trim());
    }
    if purpose == Purpose::Test {
        test_user()?;
        subordinate_ids(TEST_USER)?;
    }
    Ok(())
}

/// When root runs the tests, goldsmith itself runs as this user in most of them.
const TEST_USER: &str = "goldsmith-test";

fn test_user() -> Result<()> {
    if output(shell::command("id").arg(TEST_USER)).is_some() {
        return Ok(());
    }
    say(&format!("set-up: making an ordinary user {TEST_USER}, as whom tests run"));
    let command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", TEST_USER];
    shell::run("set-up: useradd", &mut privileged(&command)?)
}

/// pasta needs the device; containers and some CI runners keep it to root, or have none.
fn tun() -> Result<()> {
    if !Path::new(TUN).exists() {
        say(&format!("set-up: making {TUN}, by which guests reach the network"));
        let make = format!("mkdir -p /dev/net && mknod {TUN} c 10 200 && chmod 0666 {TUN}");
        return shell::run("set-up: mknod", &mut privileged(&["sh", "-c", &make])?);
    }
    let mode = fs_err::metadata(TUN)?.permissions().mode();
    if mode & 0o006 != 0o006 {
        say(&format!("set-up: letting ordinary users open {TUN}, as distributions do"));
        shell::run("set-up: chmod", &mut privileged(&["chmod", "0666", TUN])?)?;
    }
    Ok(())
}

/// mmdebstrap unpacks packages as root of a user namespace, which takes a range of numbers of the user's own.
fn subordinate_ids(user: &str) -> Result<()> {
    let ranges = fs_err::read_to_string("/etc/subuid").unwrap_or_default();
    if ranges.lines().any(|line| line.split(':').next() == Some(user)) {
        return Ok(());
    }
    say(&format!("set-up: giving {user} a range of user numbers for its namespaces"));
    let range = free_range(&ranges);
    let command = ["usermod", "--add-subuids", &range, "--add-subgids", &range, user];
    shell::run("set-up: usermod", &mut privileged(&command)?)
}

/// The first 65536 numbers behind all that are given away.
fn free_range(ranges: &str) -> String {
    let end = |line: &str| {
        let mut fields = line.split(':').skip(1).map(|field| field.trim().parse::<u64>().ok());
        fields.next()??.checked_add(fields.next()??)
    };
    let first = ranges.lines().filter_map(end).max().unwrap_or(0).max(100_000);
    format!("{first}-{}", first + 65_535)
}

#[cfg(test)]
mod tests {
    use super::free_range;

    #[test]
    fn ranges_do_not_overlap() {
        assert_eq!(free_range(""), "100000-165535");
        assert_eq!(free_range("a:100000:65536\nb:231072:65536\nbroken\n"), "296608-362143");
    }
}
