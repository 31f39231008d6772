//! `Reboot` and `UpdateOS`.

use std::time::Duration;

use super::{Call, Verdict};
use crate::guest;

/// Restarts the guest; the next step runs afterwards.
#[allow(clippy::unused_async)]
pub(super) async fn reboot(call: &Call<'_>) -> Result<Verdict, guest::Error> {
    let delay = Duration::from_secs(call.input().number("delaySeconds").unwrap_or(0));
    Ok(Verdict::Reboot { delay, again: false })
}

/// `$1` is the packages to update, all unless given, and `$2` those to leave alone, each separated by spaces.
const UPDATE: &str = r#"
set -e
include=$1 exclude=$2
if command -v apt-get >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  get() { apt-get -qy -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@"; }
  get update
  held=
  # What is held already stays so afterwards; a name may be a pattern.
  before=$(apt-mark showhold)
  for package in $exclude; do apt-mark hold "$package" >/dev/null || true; done
  for package in $(apt-mark showhold); do
    printf '%s\n' "$before" | grep -qxF -- "$package" || held="$held $package"
  done
  status=0
  if [ -n "$include" ]; then get install --only-upgrade $include || status=$?
  else get upgrade --with-new-pkgs || status=$?; fi
  if [ -n "$held" ]; then apt-mark unhold $held >/dev/null; fi
  exit $status
fi
without=
for package in $exclude; do without="$without --exclude=$package"; done
if command -v dnf >/dev/null; then exec dnf -y upgrade $without $include; fi
if command -v yum >/dev/null; then exec yum -y update $without $include; fi
if command -v zypper >/dev/null; then
  locked=
  for package in $exclude; do
    if zypper --non-interactive --quiet locks 2>/dev/null | grep -q "| *$package *|"; then continue; fi
    zypper --non-interactive addlock "$package"
    locked="$locked $package"
  done
  status=0
  zypper --non-interactive update $include || status=$?
  for package in $locked; do zypper --non-interactive removelock "$package"; done
  exit $status
fi
echo "neither apt-get, dnf, yum nor zypper is installed" >&2
exit 1
"#;

/// Installs the distribution's updates. With both lists: those of `include` that are not in `exclude`.
pub(super) async fn update_os(call: &Call<'_>) -> Result<Verdict, guest::Error> {
    let input = call.input();
    let (include, exclude) = (input.texts("include"), input.texts("exclude"));
    let is_good = |name: &&String| !name.starts_with('-') && !name.contains(char::is_whitespace);
    if let Some(bad) = include.iter().chain(exclude).find(|name| !is_good(name)) {
        return Ok(Verdict::Failed(format!("`{bad}` is no package's name")));
    }
    let wanted: Vec<&str> = include.iter().filter(|name| !exclude.contains(name)).map(String::as_str).collect();
    if !include.is_empty() && wanted.is_empty() {
        return Ok(Verdict::NOTHING);
    }
    let argv = ["sh", "-c", UPDATE, "sh", &wanted.join(" "), &exclude.join(" ")];
    let ended = call.run(argv.map(str::to_owned).into()).await?;
    Ok(match call.judge(ended) {
        Verdict::Done(_) => Verdict::NOTHING,
        other => other,
    })
}
