//! Keeping guests away from the host.
//!
//! QEMU's user network gives a guest the host's loopback at 10.0.2.2 and lets it reach whatever the host reaches, the
//! cloud's metadata service at 169.254.169.254 included, which hands out the runner's own credentials. So QEMU runs in a
//! network namespace of its own, connected by `pasta` (passt.top), which needs no root:
//!
//! ```text
//!   guest ── QEMU's user network ── namespace ── pasta's tap ── pasta ── host's sockets ── outside
//!                                   │ its own, empty loopback
//!                                   └ prohibit 169.254.0.0/16
//! ```
//!
//! By default `pasta` forwards ports of both loopbacks; the flags below switch all of that off. It refuses to run as
//! root, so root first enters a user namespace in which it has another number.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

use fs_err as fs;

use crate::host::process::{self, Program};

/// Whether guests are kept from the host, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Isolation {
    /// They are.
    Isolated(Launcher),
    /// They are not; QEMU runs in the host's network.
    Open {
        /// Why.
        reason: String,
        /// What would mend it.
        mend: String,
    },
}

/// Starts programs in a network namespace of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launcher {
    as_root: bool,
    resolver: Option<&'static str>,
}

/// Networks that no guest has any business with: link-local addresses, where clouds answer with the machine's identity,
/// and the address that AWS uses for the same with IPv6.
const PROHIBITED: [&str; 2] = ["169.254.0.0/16", "fd00:ec2::254/128"];
/// The latter.
const METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Where name servers are written.
const RESOLVER: &str = "/etc/resolv.conf";
/// Where systemd-resolved writes the real servers, when [`RESOLVER`] names only its own stub on loopback.
const UPSTREAM_RESOLVER: &str = "/run/systemd/resolve/resolv.conf";

/// Prepares the namespace, then becomes the program. IPv6 may be absent, IPv4's route may not. A program that is held to some
/// addresses has a route to each of them and to nothing else, not even to the network that the host is in.
const INSIDE: &str = r#"set -e
if [ -n "$4" ]; then
    outside() { ip "$1" route show default | sed -n '1s/^default \(via [^ ]* dev [^ ]*\).*/\1 onlink/p;1s/^default \(dev [^ ]*\).*/\1/p'; }
    v4=$(outside -4)
    v6=$(outside -6)
    ip -4 route flush table main
    ip -6 route flush table main 2>/dev/null || true
    for address in $4; do
        case $address in
        *:*) [ -z "$v6" ] || ip -6 route replace "$address" $v6 ;;
        *) [ -z "$v4" ] || ip -4 route replace "$address" $v4 ;;
        esac
    done
fi
# What the host has a route of its own to, as clouds' DHCP gives it, would win against a whole network's prohibition.
ip -4 route flush root "$1" 2>/dev/null || true
ip -6 route flush root "$2" 2>/dev/null || true
ip route add prohibit "$1"
ip -6 route add prohibit "$2" 2>/dev/null || true
if [ -n "$3" ]; then mount --bind "$3" /etc/resolv.conf; fi
shift 4
exec setpriv --pdeathsig KILL -- "$@""#;

impl Isolation {
    /// Finds out whether this host can isolate guests, by doing it.
    pub async fn find() -> Self {
        for (program, package) in
            [("pasta", "passt"), ("ip", "iproute2"), ("setpriv", "util-linux"), ("unshare", "util-linux")]
        {
            if process::find(program).is_none() {
                let reason = format!("`{program}` is not installed");
                return Self::Open { reason, mend: format!("install the package {package}") };
            }
        }
        let launcher = Launcher { as_root: rustix::process::geteuid().is_root(), resolver: loopback_resolver() };
        // Between its start and the program's, `pasta` is waited for by a child that would wait for ever; of a machine's, a
        // recovery finds it by its folder.
        let reaches_nothing = Program::new("sh").args(["-c", "! ip route get 169.254.169.254 2>/dev/null"]);
        let probe = launcher.wrap(&reaches_nothing, &[], "").behind(&["timeout", "--kill-after=5", "60"]);
        match probe.outliving_us().run().await {
            Ok(()) => Self::Isolated(launcher),
            Err(error) => Self::explain(&error),
        }
    }

    fn explain(error: &process::Error) -> Self {
        let text = error.to_string();
        let (reason, mend) = if text.contains("tun socket") {
            ("/dev/net/tun can't be opened by this user", "sudo chmod 0666 /dev/net/tun")
        } else if text.contains("uid_map")
            || text.contains("user namespace")
            || text.contains("Operation not permitted")
        {
            (
                "this host does not let this user make user namespaces",
                "sudo sysctl kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0",
            )
        } else {
            (text.as_str(), "run the command by hand to see more")
        };
        Self::Open { reason: reason.to_owned(), mend: mend.to_owned() }
    }

    /// A program as it has to be started. These ports of the host's loopback lead to the same ones of the program's.
    pub fn wrap(&self, program: &Program, ports: &[u16]) -> Program {
        match self {
            Self::Isolated(launcher) => launcher.wrap(program, ports, ""),
            Self::Open { .. } => program.clone(),
        }
    }

    /// The same for a program that may reach some hosts only, at the addresses that they have now, and the host's name
    /// servers, since nothing else knows names.
    pub async fn wrap_restricted(
        &self,
        program: &Program,
        ports: &[u16],
        hosts: &[String],
    ) -> Result<Program, super::Error> {
        let launcher = match self {
            Self::Isolated(launcher) => launcher,
            Self::Open { reason, mend } => {
                return Err(super::Error::Restriction { why: format!("{reason} (mend: {mend})") });
            }
        };
        let mut only = BTreeSet::new();
        for host in hosts {
            let found = tokio::net::lookup_host((host.as_str(), 0)).await;
            let found = found.map_err(|error| super::Error::Restriction { why: format!("`{host}`: {error}") })?;
            only.extend(found.map(|address| address.ip()));
        }
        only.retain(|address| !is_hosts_own(address));
        if only.is_empty() {
            return Err(super::Error::Restriction { why: "none of them is outside of this host".to_owned() });
        }
        let resolver = launcher.resolver.unwrap_or(RESOLVER);
        let servers = fs::read_to_string(resolver).unwrap_or_default();
        only.extend(name_servers(&servers).filter(|address| !is_hosts_own(address)));
        let only: Vec<String> = only.iter().map(ToString::to_string).collect();
        Ok(launcher.wrap(program, ports, &only.join(" ")))
    }

    /// Whether guests are kept from the host.
    pub fn is_isolated(&self) -> bool {
        matches!(self, Self::Isolated(_))
    }
}

impl Launcher {
    /// `only` are the addresses that it may reach, with a blank between two; empty for all.
    fn wrap(&self, program: &Program, ports: &[u16], only: &str) -> Program {
        let ports: Vec<String> = ports.iter().map(|port| format!("127.0.0.1/{port}")).collect();
        let mut words: Vec<&str> = Vec::new();
        if self.as_root {
            words.extend(["unshare", "--user", "--map-user=65533", "--map-group=65533", "--"]);
        }
        words.extend(["pasta", "--foreground", "--quiet", "--config-net", "--no-map-gw"]);
        words.extend(["--udp-ports", "none", "--tcp-ns", "none", "--udp-ns", "none"]);
        if ports.is_empty() {
            words.extend(["--tcp-ports", "none"]);
        }
        ports.iter().for_each(|port| words.extend(["--tcp-ports", port]));
        words.push("--");
        if self.resolver.is_some() {
            words.extend(["unshare", "--mount", "--"]);
        }
        let [v4, v6] = PROHIBITED;
        words.extend(["sh", "-c", INSIDE, "sh", v4, v6, self.resolver.unwrap_or_default(), only]);
        program.behind(&words)
    }
}

/// Loopback and link-local addresses and a cloud's metadata, which no guest reaches whatever a document says.
pub fn is_hosts_own(address: &IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_loopback() || address.is_link_local() || address.is_unspecified(),
        IpAddr::V6(address) => {
            let is_metadata = address == METADATA;
            address.is_loopback() || address.is_unicast_link_local() || address.is_unspecified() || is_metadata
        }
    }
}

fn name_servers(resolv_conf: &str) -> impl Iterator<Item = IpAddr> {
    resolv_conf.lines().filter_map(|line| line.strip_prefix("nameserver")?.trim().parse().ok())
}

/// The file to use instead, when every server of `/etc/resolv.conf` is on the host's loopback and so out of reach.
fn loopback_resolver() -> Option<&'static str> {
    let is_local = only_loopback(&fs::read_to_string(RESOLVER).unwrap_or_default());
    (is_local && Path::new(UPSTREAM_RESOLVER).exists()).then_some(UPSTREAM_RESOLVER)
}

fn only_loopback(resolv_conf: &str) -> bool {
    let mut servers = resolv_conf.lines().filter_map(|line| line.strip_prefix("nameserver")).map(str::trim).peekable();
    servers.peek().is_some() && servers.all(|server| server.starts_with("127.") || server == "::1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stub_resolver_is_recognised() {
        assert!(only_loopback("# stub\nnameserver 127.0.0.53\noptions edns0\n"));
        assert!(!only_loopback("nameserver 127.0.0.1\nnameserver 192.0.2.1\n"));
        assert!(!only_loopback("search example\n"));
    }

    #[test]
    fn name_servers_are_found() {
        let servers: Vec<IpAddr> = name_servers("search x\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\n").collect();
        assert_eq!(servers, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        let own = ["127.0.0.53", "169.254.169.254", "::1", "::ffff:127.0.0.1", "fe80::1", "0.0.0.0", "fd00:ec2::254"];
        assert!(own.iter().all(|address| is_hosts_own(&address.parse().unwrap())));
        assert!(!is_hosts_own(&"192.0.2.1".parse().unwrap()));
    }

    /// Tells [`a_process_that_finds_out`] to do so, and which processes are its.
    const FINDING_OUT: &str = "GOLDSMITH_TEST_FINDING_OUT";

    #[tokio::test]
    async fn a_process_that_finds_out() {
        let started = std::time::Instant::now();
        while std::env::var_os(FINDING_OUT).is_some() && started.elapsed().as_secs() < 30 {
            let _found = Isolation::find().await;
        }
    }

    #[tokio::test]
    async fn whoever_is_killed_while_it_finds_out_leaves_nothing() {
        if !Isolation::find().await.is_isolated() {
            eprintln!("not run: no user namespaces can be made here");
            return;
        }
        let mark = uuid::Uuid::new_v4().to_string();
        for number in 0..30 {
            let mut process = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "machine::isolation::tests::a_process_that_finds_out"])
                .env(FINDING_OUT, &mark)
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            // Another moment each time.
            std::thread::sleep(std::time::Duration::from_millis(200 + number * 7));
            assert!(process.try_wait().unwrap().is_none(), "it has ended");
            process.kill().unwrap();
            process.wait().unwrap();
        }
        let is_left = |entry: &fs::DirEntry| {
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            String::from_utf8_lossy(&environment).contains(&mark)
        };
        let left = || fs::read_dir("/proc").unwrap().flatten().filter(|entry| is_left(entry)).count();
        let mut looks = (0..300).map(|_| std::thread::sleep(std::time::Duration::from_millis(100)));
        assert!(looks.any(|()| left() == 0), "{} processes are left", left());
    }

    #[tokio::test]
    async fn a_restricted_program_has_a_route_to_its_hosts_and_nowhere_else() {
        let isolation = Isolation::find().await;
        if !isolation.is_isolated() {
            // As for its neighbour below.
            let namespaces = Program::new("unshare").args(["--user", "--map-root-user", "true"]).run().await;
            assert!(namespaces.is_err(), "{isolation:?}");
            eprintln!("not run: no user namespaces can be made here");
            return;
        }
        let route = |to: &str| Program::new("ip").args(["route", "get", to]);
        for (to, is_reached) in [("192.0.2.7", true), ("192.0.2.8", false), ("169.254.169.254", false)] {
            let wrapped = isolation.wrap_restricted(&route(to), &[], &["192.0.2.7".to_owned()]).await.unwrap();
            let ran = wrapped.run().await;
            assert_eq!(ran.is_ok(), is_reached, "{to}: {ran:?}");
        }
        let own = isolation.wrap_restricted(&route("192.0.2.7"), &[], &["localhost".to_owned()]).await;
        assert!(own.unwrap_err().to_string().contains("none of them is outside of this host"));
    }

    /// As where DHCP gives the host a route to its cloud's metadata, and `pasta` copies it.
    #[tokio::test]
    async fn a_route_of_the_hosts_to_metadata_is_not_kept() {
        let namespaces = ["--user", "--map-root-user", "--net"];
        if Program::new("unshare").args(namespaces).arg("true").run().await.is_err() {
            eprintln!("not run: no user namespaces can be made here");
            return;
        }
        let [v4, v6] = PROHIBITED;
        for (route, to) in [("169.254.169.254/32", "169.254.169.254"), ("169.254.0.0/16", "169.254.1.1")] {
            let given =
                format!("ip link set lo up && ip route add {route} dev lo && ip route get {to} >&2 && exec \"$@\"");
            let inside = Program::new("unshare").args(namespaces).args(["sh", "-c", &given, "sh"]);
            let inside = inside.args(["sh", "-c", INSIDE, "sh", v4, v6, "", ""]);
            let error = inside.args(["ip", "route", "get", to]).run().await.unwrap_err().to_string();
            assert!(error.contains("Permission denied") || error.contains("prohibit"), "{route}: {error}");
        }
    }

    #[tokio::test]
    async fn an_isolated_program_reaches_neither_loopback_nor_metadata() {
        let isolation = Isolation::find().await;
        let namespaces = Program::new("unshare").args(["--user", "--map-root-user", "true"]).run().await;
        let Isolation::Isolated(_) = &isolation else {
            // A chroot, for instance; anywhere else there is no excuse.
            assert!(namespaces.is_err(), "{isolation:?}");
            eprintln!("not run: no user namespaces can be made here");
            return;
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // bash's own /dev/tcp, so that no client has to be installed.
        let connect = Program::new("bash").arg("-c").arg(format!("exec 3<>/dev/tcp/127.0.0.1/{port}"));
        let (isolated, open) = (isolation.wrap(&connect, &[]).run().await, connect.run().await);
        assert!(isolated.is_err() && open.is_ok(), "{isolated:?} {open:?}");
        let route = Program::new("ip").args(["route", "get", "169.254.169.254"]);
        let error = isolation.wrap(&route, &[]).run().await.unwrap_err().to_string();
        assert!(error.contains("Permission denied") || error.contains("prohibit"), "{error}");
    }
}
