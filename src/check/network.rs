//! Checks of how an instance gets an address, a name server and an SSH server.

use serde_yaml::Value as Yaml;

use super::cloud::{is_cloud_init_enabled, network_is_left_alone};
use super::facts::Facts;
use super::tree::Tree;
use super::{Findings, Target};

/// What a file of the guest's network configuration says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Card {
    /// The file.
    path: String,
    /// Which cards it is for, by name; none for any.
    names: Option<String>,
    /// Whether it is for one card's address.
    is_for_address: bool,
    /// Whether it asks for an address.
    dhcp: bool,
    /// Whether it says an address itself.
    is_fixed: bool,
}

impl Card {
    /// Whether it is for a first card of any machine. `eth0` is, where the kernel names cards so.
    fn is_for_any(&self, has_old_names: bool) -> bool {
        let names = self.names.as_deref().unwrap_or("*");
        !self.is_for_address
            && (names.contains('*') || (has_old_names && names.split_whitespace().any(|name| name == "eth0")))
    }

    /// The machine's own loopback is nobody's business.
    fn is_loopback(&self) -> bool {
        self.names.as_deref() == Some("lo")
    }
}

pub(super) fn addresses(facts: &Facts, _: Target) -> Findings {
    let mut findings = Findings::default();
    let system = &facts.system;
    for path in ["/etc/udev/rules.d/70-persistent-net.rules", "/etc/udev/rules.d/75-persistent-net-generator.rules"] {
        if system.node(path).is_some_and(|node| node.size > 0) {
            findings.fail(format!("{path} gives cards names by their addresses"), "remove it");
        }
    }
    let cards = cards(facts);
    let has_old_names = has_old_names(system);
    for card in cards.iter().filter(|card| !card.is_loopback()) {
        if card.is_fixed {
            let reason = format!("{} gives a card a fixed address", card.path);
            findings.fail(reason, "remove it; addresses come by DHCP in every cloud");
        } else if !card.is_for_any(has_old_names) {
            let which =
                if card.is_for_address { "one card's address" } else { card.names.as_deref().unwrap_or_default() };
            let reason = format!("{} is for {which}, which no other machine has", card.path);
            findings.fail(
                reason,
                "match any first card: `Name=en* eth*` for systemd-networkd, `match: {name: \"e*\"}` for netplan",
            );
        }
    }
    let by_files = cards.iter().any(|card| card.dhcp && card.is_for_any(has_old_names));
    let by_cloud_init = is_cloud_init_enabled(facts) && !network_is_left_alone(system);
    let by_network_manager = facts.is_enabled("NetworkManager.service");
    if !by_files && !by_cloud_init && !by_network_manager {
        findings.fail(
            "nothing asks for an address by DHCP",
            "enable cloud-init, NetworkManager, or systemd-networkd with a file that says `DHCP=yes`",
        );
    }
    let means: Vec<&str> =
        [(by_files, "the system's own files"), (by_cloud_init, "cloud-init"), (by_network_manager, "NetworkManager")]
            .into_iter()
            .filter_map(|(is_so, name)| is_so.then_some(name))
            .collect();
    findings.or_pass(format!("DHCP on any first card, by {}", means.join(" and ")))
}

/// Whether the kernel's own names of cards are kept.
fn has_old_names(system: &Tree) -> bool {
    let menus = ["/boot/grub/grub.cfg", "/boot/grub2/grub.cfg"];
    let menu = menus.iter().find_map(|path| system.text(path)).unwrap_or_default();
    let entries = system.texts("/boot/loader/entries", ".conf");
    let all = entries.iter().map(|(_, text)| text.as_str()).chain([menu.as_str()]);
    let has = all.into_iter().any(|text| text.contains("net.ifnames=0"));
    has || system.link("/etc/systemd/network/99-default.link") == Some("/dev/null")
}

/// What all files of the system say that are used.
fn cards(facts: &Facts) -> Vec<Card> {
    let system = &facts.system;
    let mut cards = Vec::new();
    if facts.is_enabled("systemd-networkd.service") {
        cards.extend(system.texts("/etc/systemd/network", ".network").iter().map(|(path, text)| networkd(path, text)));
    }
    if facts.is_enabled("networking.service") {
        let files =
            [("/etc/network/interfaces".to_owned(), system.text("/etc/network/interfaces").unwrap_or_default())];
        let more = system.texts("/etc/network/interfaces.d", "");
        cards.extend(files.iter().chain(&more).flat_map(|(path, text)| ifupdown(path, text)));
    }
    if facts.is_enabled("NetworkManager.service") {
        let folder = "/etc/NetworkManager/system-connections";
        cards.extend(system.texts(folder, "").iter().filter_map(|(path, text)| network_manager(path, text)));
        for (path, text) in system.texts("/etc/sysconfig/network-scripts", "") {
            cards.extend(path.contains("/ifcfg-").then(|| ifcfg(&path, &text)));
        }
    }
    cards.extend(system.texts("/etc/netplan", ".yaml").iter().flat_map(|(path, text)| netplan(path, text)));
    cards
}

/// The values of a key in a file of sections, as systemd and NetworkManager write them.
fn values<'a>(text: &'a str, section: &str, key: &str) -> Vec<&'a str> {
    let mut current = "";
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[') {
            current = name.trim_end_matches(']');
        }
        let said = line.split_once('=').filter(|_| current.eq_ignore_ascii_case(section));
        found.extend(said.filter(|(name, _)| name.trim() == key).map(|(_, value)| value.trim()));
    }
    found
}

/// systemd.network(5).
fn networkd(path: &str, text: &str) -> Card {
    let dhcp = values(text, "Network", "DHCP");
    let is_fixed = values(text, "Network", "Address").into_iter().chain(values(text, "Address", "Address")).next();
    let names = values(text, "Match", "Name").join(" ");
    Card {
        path: path.to_owned(),
        names: (!names.is_empty()).then_some(names),
        is_for_address: values(text, "Match", "MACAddress")
            .into_iter()
            .chain(values(text, "Match", "PermanentMACAddress"))
            .next()
            .is_some(),
        dhcp: dhcp.iter().any(|value| matches!(*value, "yes" | "true" | "ipv4" | "1")),
        is_fixed: is_fixed.is_some(),
    }
}

/// interfaces(5): an `iface` line for each card.
fn ifupdown(path: &str, text: &str) -> Vec<Card> {
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let cards = lines.filter_map(|words| match words[..] {
        ["iface", name, _, method, ..] => Some(Card {
            path: path.to_owned(),
            names: Some(name.to_owned()),
            is_for_address: false,
            dhcp: method == "dhcp",
            is_fixed: method == "static" && name != "lo",
        }),
        _ => None,
    });
    cards.collect()
}

/// nm-settings-keyfile(5). Other kinds of connections than cards are left out.
fn network_manager(path: &str, text: &str) -> Option<Card> {
    let first = |section, key| values(text, section, key).first().map(|&value| value.to_owned());
    matches!(first("connection", "type").as_deref(), Some("ethernet" | "802-3-ethernet")).then(|| Card {
        path: path.to_owned(),
        names: first("connection", "interface-name"),
        is_for_address: first("ethernet", "mac-address").is_some(),
        dhcp: first("ipv4", "method").is_none_or(|method| method == "auto"),
        is_fixed: first("ipv4", "method").as_deref() == Some("manual"),
    })
}

/// Red Hat's older files: lines of shell variables.
fn ifcfg(path: &str, text: &str) -> Card {
    let value = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='));
        lines.next().map(|value| value.trim_matches(['"', '\'']).to_owned())
    };
    Card {
        path: path.to_owned(),
        names: value("DEVICE"),
        is_for_address: value("HWADDR").is_some(),
        dhcp: value("BOOTPROTO").as_deref() == Some("dhcp"),
        is_fixed: value("IPADDR").is_some() && value("DEVICE").as_deref() != Some("lo"),
    }
}

/// netplan-yaml(5).
fn netplan(path: &str, text: &str) -> Vec<Card> {
    // A file that is no YAML is no configuration.
    let Ok(document) = serde_yaml::from_str::<Yaml>(text) else { return Vec::new() };
    let Some(ethernets) = document["network"]["ethernets"].as_mapping() else { return Vec::new() };
    let cards = ethernets.iter().map(|(name, card)| {
        let matched = &card["match"];
        let name = matched["name"].as_str().or(if matched.is_null() { name.as_str() } else { None });
        Card {
            path: path.to_owned(),
            names: name.map(str::to_owned),
            is_for_address: !matched["macaddress"].is_null(),
            // `yes` is a word to YAML 1.2, and a truth to netplan.
            dhcp: card["dhcp4"].as_bool() == Some(true) || card["dhcp4"].as_str() == Some("yes"),
            is_fixed: card["addresses"].as_sequence().is_some_and(|addresses| !addresses.is_empty()),
        }
    });
    cards.collect()
}

pub(super) fn ssh(facts: &Facts, target: Target) -> Findings {
    let mut findings = Findings::default();
    let system = &facts.system;
    if !facts.has_any(&["/usr/sbin/sshd", "/usr/bin/sshd"]) {
        if matches!(target, Target::Aws | Target::Azure | Target::Gcp) {
            findings.warn("there is no SSH server", "install openssh-server, or another way in");
        }
        return findings.or_pass("there is no SSH server");
    }
    let units = ["ssh.service", "sshd.service", "ssh.socket", "sshd.socket"];
    if !units.iter().any(|unit| facts.is_enabled(unit)) {
        findings.warn("the SSH server is not started", "`systemctl enable ssh` or `systemctl enable sshd`");
    }
    let makes_keys = is_cloud_init_enabled(facts)
        || facts
            .has_any(&["/usr/lib/systemd/system/sshd-keygen@.service", "/usr/lib/systemd/system/sshd-keygen.target"]);
    let has_keys = system.names("/etc/ssh").iter().any(|name| name.starts_with("ssh_host_") && name.ends_with("_key"));
    if !makes_keys && !has_keys {
        let mend = "enable cloud-init, or a service that runs `ssh-keygen -A` before the server";
        findings.fail("nothing makes host keys, without which the SSH server does not start", mend);
    }
    let mut files = system.texts("/etc/ssh/sshd_config.d", ".conf");
    files.extend(system.text("/etc/ssh/sshd_config").map(|text| ("/etc/ssh/sshd_config".to_owned(), text)));
    // The first that is said holds: sshd_config(5).
    let said = |name: &str| {
        let mut lines = files.iter().flat_map(|(_, text)| text.lines());
        lines.find_map(|line| {
            let (key, value) = line.trim().split_once([' ', '\t', '='])?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_ascii_lowercase())
        })
    };
    let by_password = said("PasswordAuthentication").is_none_or(|value| value == "yes");
    if by_password && said("PermitRootLogin").as_deref() == Some("yes") {
        findings.warn("root may log in with a password", "`PermitRootLogin prohibit-password` in /etc/ssh/sshd_config");
    }
    findings.or_pass("started, makes its host keys at the first start")
}

pub(super) fn name_servers(facts: &Facts, _: Target) -> Findings {
    let mut findings = Findings::default();
    if facts.system.link("/etc/resolv.conf").is_some() {
        return findings.or_pass("/etc/resolv.conf is made anew at every start");
    }
    let text = facts.system.text("/etc/resolv.conf").unwrap_or_default();
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    if let Some(server) = servers.map(str::trim).next() {
        findings.warn(
            format!("/etc/resolv.conf names {server}"),
            "empty it in the last step, or link it to /run/systemd/resolve/stub-resolv.conf",
        );
    }
    findings.or_pass("none is named")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(cards: impl IntoIterator<Item = Card>) -> String {
        let line = |card: Card| {
            let Card { names, is_for_address, dhcp, is_fixed, .. } = card;
            format!("{} address={is_for_address} dhcp={dhcp} fixed={is_fixed}", names.unwrap_or_default())
        };
        cards.into_iter().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn every_kind_of_file_is_understood() {
        let cards = [
            networkd("a", "[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\n#Address=1\n"),
            networkd("b", "[Match]\nMACAddress=52:54:00:12:34:56\n[Network]\nAddress=10.0.0.2/24\n"),
            ifcfg("c", "DEVICE=\"eth0\"\nBOOTPROTO=dhcp\nHWADDR=52:54\n"),
            network_manager("d", "[connection]\ntype=ethernet\ninterface-name=ens3\n[ipv4]\nmethod=manual\n").unwrap(),
        ];
        let interfaces = "auto lo\niface lo inet loopback\n iface ens3 inet static\n  address 10.0.0.2\n";
        let plan = "network:\n  ethernets:\n    any: {match: {name: \"e*\"}, dhcp4: true}\n    ens3: {addresses: [10.0.0.2/24]}\n    \
                    by: {match: {macaddress: '52:54'}, dhcp4: yes}\n";
        insta::assert_snapshot!(shown(cards.into_iter().chain(ifupdown("e", interfaces)).chain(netplan("f", plan))), @r"
        en* eth* address=false dhcp=true fixed=false
         address=true dhcp=false fixed=true
        eth0 address=true dhcp=true fixed=false
        ens3 address=false dhcp=false fixed=true
        lo address=false dhcp=false fixed=false
        ens3 address=false dhcp=false fixed=true
        e* address=false dhcp=true fixed=false
        ens3 address=false dhcp=false fixed=true
         address=true dhcp=true fixed=false
        ");
    }
}
