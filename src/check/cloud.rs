//! Checks of what makes a copy somebody's own at its first start, and of what runs beside.

use serde_yaml::Value as Yaml;

use super::facts::Facts;
use super::tree::Tree;
use super::{Findings, Target};

/// Configuration of cloud-init, in the order in which it is read; what is said later holds.
const CLOUD_CONFIG: &str = "/etc/cloud/cloud.cfg";
const CLOUD_FRAGMENTS: &str = "/etc/cloud/cloud.cfg.d";
/// The first version that asks for IMDSv2's tokens: its change log, 19.4.
const TOKENS: (u64, u64) = (19, 4);
/// Services that set the clock.
const CLOCKS: [&str; 6] =
    ["systemd-timesyncd.service", "chrony.service", "chronyd.service", "ntp.service", "ntpd.service", "ntpsec.service"];

/// The data sources by which cloud-init knows a target; one of them is enough.
fn data_sources(target: Target) -> &'static [&'static str] {
    match target {
        Target::Aws => &["Ec2"],
        Target::Azure => &["Azure"],
        Target::Gcp => &["GCE"],
        Target::Vmware => &["VMware", "OVF", "NoCloud"],
        Target::Proxmox => &["NoCloud", "ConfigDrive"],
        Target::Libvirt => &["NoCloud", "ConfigDrive"],
    }
}

/// What a target has instead of cloud-init.
fn own_agent(target: Target) -> &'static [&'static str] {
    match target {
        Target::Azure => &["/usr/sbin/waagent", "/usr/bin/waagent", "/usr/bin/azure-init"],
        Target::Gcp => &["/usr/bin/google_guest_agent", "/usr/bin/google_guest_agent_manager"],
        Target::Aws | Target::Vmware | Target::Proxmox | Target::Libvirt => &[],
    }
}

/// cloud-init's configuration files, in the order in which they are read.
pub(super) fn cloud_configs(system: &Tree) -> Vec<(String, Yaml)> {
    let mut files: Vec<(String, String)> =
        system.text(CLOUD_CONFIG).map(|text| (CLOUD_CONFIG.to_owned(), text)).into_iter().collect();
    files.extend(system.texts(CLOUD_FRAGMENTS, ".cfg"));
    // What is no YAML is left out by cloud-init too, with a warning.
    files.into_iter().filter_map(|(path, text)| Some((path, serde_yaml::from_str(&text).ok()?))).collect()
}

/// What cloud-init's configuration says of something at last, and where.
fn said(configs: &[(String, Yaml)], keys: &[&str]) -> Option<(String, Yaml)> {
    let value = |config: &Yaml| keys.iter().fold(config.clone(), |value, key| value[*key].clone());
    configs.iter().rev().map(|(path, config)| (path.clone(), value(config))).find(|(_, value)| !value.is_null())
}

/// Whether cloud-init runs at the next start.
pub(super) fn is_cloud_init_enabled(facts: &Facts) -> bool {
    let units = ["cloud-init.service", "cloud-init-main.service", "cloud-init-local.service", "cloud-init.target"];
    facts.has_any(&["/usr/bin/cloud-init", "/usr/local/bin/cloud-init"])
        && !facts.system.has("/etc/cloud/cloud-init.disabled")
        && units.iter().any(|unit| facts.is_enabled(unit))
}

/// Whether cloud-init is told to leave the network alone.
pub(super) fn network_is_left_alone(system: &Tree) -> bool {
    let configs = cloud_configs(system);
    said(&configs, &["network", "config"]).is_some_and(|(_, value)| value.as_str() == Some("disabled"))
}

pub(super) fn cloud_init(facts: &Facts, target: Target) -> Findings {
    let mut findings = Findings::default();
    let system = &facts.system;
    if !is_cloud_init_enabled(facts) {
        let is_there = facts.has_any(&["/usr/bin/cloud-init", "/usr/local/bin/cloud-init"]);
        let reason = if is_there { "cloud-init is not enabled" } else { "cloud-init is not installed" };
        let mend =
            "install cloud-init, remove /etc/cloud/cloud-init.disabled, `systemctl enable cloud-init cloud-final`";
        if facts.has_any(own_agent(target)) {
            return findings.or_pass(format!("{reason}, and the target's own agent is there"));
        }
        // A hypervisor of one's own need not hand over a key.
        match target {
            Target::Aws | Target::Azure | Target::Gcp => findings.fail(reason, mend),
            Target::Vmware | Target::Proxmox | Target::Libvirt => findings.warn(reason, mend),
        }
        return findings;
    }
    let configs = cloud_configs(system);
    source_is_known(system, &configs, target, &mut findings);
    for folder in ["/var/lib/cloud/instance", "/var/lib/cloud/instances"] {
        if system.link(folder).is_some() || !system.names(folder).is_empty() {
            let reason = format!("{folder} is that of an earlier instance");
            findings.fail(reason, "`cloud-init clean --logs`; goldsmith does it unless a marker says not to");
            break;
        }
    }
    let grows = |module: &str| {
        let listed = said(&configs, &["cloud_init_modules"]);
        listed.is_none_or(|(_, modules)| modules.as_sequence().is_some_and(|modules| names_module(modules, module)))
    };
    if !grows("growpart") || !grows("resizefs") || is_false(&said(&configs, &["resize_rootfs"])) {
        let mend = "leave `growpart` and `resizefs` in cloud_init_modules, and `resize_rootfs` alone";
        findings.warn("the root file system does not grow with the disk", mend);
    }
    findings.or_pass(format!("enabled, and knows {}", data_sources(target)[0]))
}

fn source_is_known(system: &Tree, configs: &[(String, Yaml)], target: Target, findings: &mut Findings) {
    let wanted = data_sources(target);
    let knows = |listed: &[&str]| wanted.iter().any(|name| listed.iter().any(|known| known.eq_ignore_ascii_case(name)));
    let mend = format!("add {} to `datasource_list` in /etc/cloud/cloud.cfg.d, or remove the list", wanted[0]);
    if let Some((path, Yaml::Sequence(list))) = said(configs, &["datasource_list"]) {
        let listed: Vec<&str> = list.iter().filter_map(Yaml::as_str).collect();
        if !knows(&listed) {
            let reason = format!("{path} names the data sources {}, and not {}", listed.join(", "), wanted[0]);
            findings.fail(reason, &mend);
        }
    }
    // What decides whether cloud-init runs at all.
    let identify = system.text("/etc/cloud/ds-identify.cfg").unwrap_or_default();
    for line in identify.lines() {
        match line.trim().split_once(':').map(|(key, value)| (key.trim(), value.trim())) {
            Some(("policy", policy)) if policy.starts_with("disabled") => {
                findings.fail("/etc/cloud/ds-identify.cfg switches cloud-init off", "remove the file");
            }
            Some(("datasource", source)) if !knows(&[source]) => {
                let reason =
                    format!("/etc/cloud/ds-identify.cfg names the data source {source}, and not {}", wanted[0]);
                findings.fail(reason, "remove the file");
            }
            _ => {}
        }
    }
}

/// A module is listed by its name, or with a frequency as `[name, always]`; dashes and underscores are the same.
fn names_module(modules: &[Yaml], module: &str) -> bool {
    let name = |value: &Yaml| value.as_str().or_else(|| value[0].as_str()).map(|name| name.replace('_', "-"));
    modules.iter().any(|value| name(value).as_deref() == Some(module))
}

fn is_false(said: &Option<(String, Yaml)>) -> bool {
    said.as_ref().is_some_and(|(_, value)| value.as_bool() == Some(false))
}

pub(super) fn guest_agents(facts: &Facts, target: Target) -> Findings {
    let mut findings = Findings::default();
    let vmware = facts.has_any(&["/usr/bin/vmtoolsd"]);
    if vmware && target != Target::Vmware {
        findings.warn("open-vm-tools are installed", "remove the package open-vm-tools; they are VMware's");
    }
    if !vmware && target == Target::Vmware {
        let mend = "install open-vm-tools, by which vSphere learns an instance's address and shuts it down";
        findings.warn("open-vm-tools are not installed", mend);
    }
    for (path, name) in [
        ("/usr/sbin/VBoxService", "VirtualBox's additions"),
        ("/usr/bin/prltoolsd", "Parallels' tools"),
        ("/usr/bin/vmware-toolbox-cmd-legacy", "VMware's own tools"),
    ] {
        if facts.system.has(path) {
            findings.warn(format!("{name} are installed"), "remove them: they are another hypervisor's");
        }
    }
    findings.or_pass("none of another hypervisor's")
}

pub(super) fn time(facts: &Facts, _: Target) -> Findings {
    let mut findings = Findings::default();
    let clock = CLOCKS.iter().find(|unit| facts.is_enabled(unit));
    if clock.is_none() {
        findings.warn("nothing sets the clock", "install systemd-timesyncd or chrony, and enable it");
    }
    if facts.system.text("/etc/adjtime").is_some_and(|text| text.lines().any(|line| line.trim() == "LOCAL")) {
        findings.warn("/etc/adjtime takes the machine's clock for local time", "`timedatectl set-local-rtc 0`");
    }
    let name = clock.map_or("", |unit| unit.trim_end_matches(".service"));
    findings.or_pass(format!("{name}, clock in UTC"))
}

pub(super) fn listed_system(_: &Facts, _: Target) -> Findings {
    Findings::skipped("goldsmith imports snapshots and registers them, where no such list holds")
}

pub(super) fn metadata_tokens(facts: &Facts, target: Target) -> Findings {
    let mut findings = Findings::default();
    if target != Target::Aws || !is_cloud_init_enabled(facts) {
        return Findings::skipped("only EC2 has them, and only for cloud-init");
    }
    let Some(version) = cloud_init_version(&facts.system) else {
        return Findings::skipped("cloud-init's version is not known");
    };
    let mut numbers = version.split(['.', '-', '+', '~']).map_while(|number| number.parse::<u64>().ok());
    let number = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if number < TOKENS {
        findings.warn(
            format!("cloud-init is of version {version}, which asks for metadata without a token"),
            "update it, or register the image without `ImdsSupport=v2.0`",
        );
    }
    findings.or_pass(format!("cloud-init {version}"))
}

/// cloud-init's version, from its own sources.
fn cloud_init_version(system: &Tree) -> Option<String> {
    let folders = ["dist-packages", "site-packages"];
    let libraries = ["/usr/lib", "/usr/lib64", "/usr/local/lib"];
    let pythons = libraries.iter().flat_map(|library| {
        let names = system.names(library).into_iter().filter(|name| name.starts_with("python3"));
        names.map(move |name| format!("{library}/{name}"))
    });
    let mut files = pythons.flat_map(|python| folders.map(|folder| format!("{python}/{folder}/cloudinit/version.py")));
    let text = files.find_map(|path| system.text(&path))?;
    let line = text.lines().find_map(|line| line.strip_prefix("__VERSION__"))?;
    Some(line.trim_matches([' ', '=', '"', '\'']).to_owned())
}

pub(super) fn selinux(facts: &Facts, _: Target) -> Findings {
    let text = facts.system.text("/etc/selinux/config").unwrap_or_default();
    let enforces = text.lines().any(|line| line.trim() == "SELINUX=enforcing");
    let findings = Findings::default();
    findings.or_pass(match (enforces, facts.system.has("/.autorelabel")) {
        (false, _) => "not enforcing",
        (true, true) => "relabels at the next start",
        (true, false) => "enforcing; every file was written by the running system, which labels what it writes",
    })
}
