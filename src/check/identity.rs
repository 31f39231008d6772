//! The check of what a build leaves behind: whatever would be shared by all copies of an image, or let somebody in.
//!
//! Findings name places and never contents: a report may be posted anywhere.

use serde_yaml::Value as Yaml;

use super::cloud::cloud_configs;
use super::facts::Facts;
use super::tree::{Kind, Tree};
use super::{Findings, Target};

/// Where people's numbers begin and end: login.defs(5), `UID_MIN` and `UID_MAX`.
const PEOPLE: std::ops::RangeInclusive<u32> = 1000..=60_000;
/// Groups whose members may do everything.
const ADMINISTRATORS: [&str; 3] = ["sudo", "wheel", "admin"];
/// Files in a home folder that hold what was typed.
const HISTORIES: [&str; 10] = [
    ".bash_history",
    ".zsh_history",
    ".ash_history",
    ".sh_history",
    ".lesshst",
    ".viminfo",
    ".python_history",
    ".mysql_history",
    ".psql_history",
    ".wget-hsts",
];
/// Files in a home folder that hold a password, a token or a key.
const CREDENTIALS: [&str; 15] = [
    ".aws/credentials",
    ".netrc",
    ".git-credentials",
    ".docker/config.json",
    ".config/gcloud/credentials.db",
    ".config/gcloud/application_default_credentials.json",
    ".azure/accessTokens.json",
    ".azure/msal_token_cache.json",
    ".kube/config",
    ".pypirc",
    ".vault-token",
    ".config/gh/hosts.yml",
    ".config/hub",
    ".gem/credentials",
    ".cargo/credentials.toml",
];
/// Beginnings of tokens, and how many letters and digits follow: AWS's access keys, GitHub's, GitLab's, Slack's.
const TOKENS: [(&str, usize); 7] =
    [("AKIA", 16), ("ASIA", 16), ("ghp_", 36), ("gho_", 36), ("github_pat_", 22), ("glpat-", 20), ("xoxb-", 10)];
/// Files that set variables for everybody, or say how packages are fetched.
const SETTINGS: [&str; 10] = [
    "/etc/environment",
    "/etc/profile",
    "/etc/bash.bashrc",
    "/etc/bashrc",
    "/etc/wgetrc",
    "/etc/pip.conf",
    "/etc/dnf/dnf.conf",
    "/etc/yum.conf",
    "/etc/apt/apt.conf",
    "/etc/systemd/system.conf",
];
/// The same for folders.
const SETTING_FOLDERS: [&str; 5] =
    ["/etc/profile.d", "/etc/apt/apt.conf.d", "/etc/environment.d", "/etc/systemd/system.conf.d", "/etc/yum.repos.d"];
/// Settings in a home folder.
const OWN_SETTINGS: [&str; 9] = [
    ".bashrc",
    ".profile",
    ".bash_profile",
    ".zshrc",
    ".curlrc",
    ".wgetrc",
    ".gitconfig",
    ".npmrc",
    ".docker/config.json",
];

pub(super) fn left_overs(facts: &Facts, _: Target) -> Findings {
    let mut findings = Findings::default();
    let system = &facts.system;
    let homes = homes(system);
    keys(system, &homes, &mut findings);
    machine_identity(system, &mut findings);
    accounts(system, &mut findings);
    default_passwords(system, &mut findings);
    for home in &homes {
        for name in HISTORIES.iter().filter(|name| is_written(system, &format!("{home}/{name}"))) {
            findings.fail(format!("{home}/{name} holds what was typed"), "remove it in the last step");
        }
    }
    proxies(system, &homes, &mut findings);
    credentials(system, &homes, &mut findings);
    for trace in &facts.traces {
        findings.fail(
            format!("{trace} is somewhere on the disk"),
            "what a component copied has to be removed by the component's last step",
        );
    }
    traces_of_a_run(system, &mut findings);
    findings.or_pass("no key, password, identity, history, proxy or secret was found")
}

/// Home folders: those of accounts, and whatever stands in the usual place.
fn homes(system: &Tree) -> Vec<String> {
    let mut homes: Vec<String> = system.names("/home").into_iter().map(|name| format!("/home/{name}")).collect();
    homes.push("/root".to_owned());
    homes.extend(accounts_of(system).into_iter().map(|account| account.home));
    homes.retain(|home| home.len() > 1 && system.has(home));
    homes.sort();
    homes.dedup();
    homes
}

fn is_written(system: &Tree, path: &str) -> bool {
    system.node(path).is_some_and(|node| node.kind == Kind::File && node.size > 0)
}

fn keys(system: &Tree, homes: &[String], findings: &mut Findings) {
    for home in homes {
        for name in system.names(&format!("{home}/.ssh")) {
            let path = format!("{home}/.ssh/{name}");
            if name.starts_with("authorized_keys") && is_written(system, &path) {
                findings.fail(format!("{path} lets somebody log in"), "remove it in the last step");
            }
        }
    }
    for name in system.names("/etc/ssh") {
        let path = format!("/etc/ssh/{name}");
        let is_host_key = name.starts_with("ssh_host_") && name.ends_with("_key");
        if is_host_key && is_written(system, &path) {
            let reason = format!("{path} would be the host key of every copy");
            findings.fail(reason, "remove it; goldsmith does, unless `skip_cleanup_ssh_files` says not to");
        }
        if name.starts_with("authorized_keys") && is_written(system, &path) {
            findings.fail(format!("{path} lets somebody log in"), "remove it in the last step");
        }
    }
}

fn machine_identity(system: &Tree, findings: &mut Findings) {
    for path in ["/etc/machine-id", "/var/lib/dbus/machine-id"] {
        let text = system.text(path).unwrap_or_default();
        if !matches!(text.trim(), "" | "uninitialized") {
            let reason = format!("{path} would be that of every copy");
            findings.fail(reason, "empty it; goldsmith does, unless `skip_cleanup_instance_files` says not to");
        }
    }
    let seeds =
        ["/var/lib/systemd/random-seed", "/var/lib/systemd/credential.secret", "/var/lib/NetworkManager/secret_key"];
    for path in seeds.into_iter().filter(|path| is_written(system, path)) {
        findings.fail(format!("{path} would be that of every copy"), "remove it in the last step");
    }
}

/// An account: passwd(5) and shadow(5).
struct Account {
    name: String,
    number: u32,
    home: String,
    shell: String,
}

fn accounts_of(system: &Tree) -> Vec<Account> {
    let text = system.text("/etc/passwd").unwrap_or_default();
    let accounts = text.lines().filter_map(|line| {
        let [name, _, number, _, _, home, shell] = line.split(':').collect::<Vec<_>>()[..] else { return None };
        let (name, home, shell) = (name.to_owned(), home.trim_end_matches('/').to_owned(), shell.to_owned());
        Some(Account { name, number: number.parse().ok()?, home, shell })
    });
    accounts.collect()
}

fn accounts(system: &Tree, findings: &mut Findings) {
    let shadow = system.text("/etc/shadow").unwrap_or_default();
    for line in shadow.lines() {
        let Some((name, rest)) = line.split_once(':') else { continue };
        let password = rest.split(':').next().unwrap_or_default();
        let mend = format!("`passwd --lock {name}`, or remove the account in the last step");
        if password.is_empty() {
            findings.fail(format!("{name} may log in without a password"), &mend);
        } else if !password.starts_with(['!', '*']) {
            findings.fail(format!("{name} has a password"), &mend);
        }
    }
    let expected = first_users(system);
    for account in accounts_of(system) {
        let Account { name, number, shell, .. } = &account;
        if *number == 0 && name != "root" {
            findings.fail(format!("{name} is another name of root's"), "remove the account");
        }
        let may_log_in = !shell.ends_with("/nologin") && !shell.ends_with("/false");
        if !PEOPLE.contains(number) || !may_log_in || expected.contains(name) {
            continue;
        }
        if is_administrator(system, name) {
            let reason = format!("the account {name}, which may do everything, is not one that cloud-init makes");
            findings.fail(reason, &format!("`userdel --remove {name}` in the last step"));
        } else {
            let reason = format!("there is an account {name} that cloud-init does not make; it can't log in by itself");
            findings.warn(reason, &format!("`userdel --remove {name}` if it was only for the build"));
        }
    }
}

/// The users that cloud-init makes at the first start, if they are not there.
fn first_users(system: &Tree) -> Vec<String> {
    let mut names = Vec::new();
    for (_, config) in cloud_configs(system) {
        names.extend(config["system_info"]["default_user"]["name"].as_str().map(str::to_owned));
        let users = config["users"].as_sequence();
        names.extend(users.into_iter().flatten().filter_map(|user| user["name"].as_str().map(str::to_owned)));
    }
    names
}

fn is_administrator(system: &Tree, name: &str) -> bool {
    let groups = system.text("/etc/group").unwrap_or_default();
    let in_group = groups.lines().any(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        fields.len() == 4 && ADMINISTRATORS.contains(&fields[0]) && fields[3].split(',').any(|member| member == name)
    });
    let mut rules = system.texts("/etc/sudoers.d", "");
    rules.extend(system.text("/etc/sudoers").map(|text| (String::new(), text)));
    let mut lines = rules.iter().flat_map(|(_, text)| text.lines());
    in_group || lines.any(|line| line.split_whitespace().next() == Some(name))
}

/// Passwords that cloud-init would give every copy.
fn default_passwords(system: &Tree, findings: &mut Findings) {
    let mend = "remove it: whoever starts an instance says who may log in";
    for (path, config) in cloud_configs(system) {
        let users = config["users"].as_sequence().into_iter().flatten();
        let people: Vec<&Yaml> = users.chain([&config["user"], &config["system_info"]["default_user"]]).collect();
        let changed = config["chpasswd"]["users"].as_sequence().into_iter().flatten();
        let fields = ["passwd", "hashed_passwd", "plain_text_passwd"];
        let has_password = people.iter().any(|person| fields.iter().any(|field| person[*field].is_string()));
        // Of type RANDOM, each copy makes its own.
        let has_password = has_password || { changed }.any(|user| user["password"].is_string());
        if has_password || config["password"].is_string() || !config["chpasswd"]["list"].is_null() {
            findings.fail(format!("{path} gives every copy a password"), mend);
        }
        let has_keys = people.iter().any(|person| !person["ssh_authorized_keys"].is_null());
        if has_keys || !config["ssh_authorized_keys"].is_null() {
            findings.fail(format!("{path} lets somebody log in to every copy by a key"), mend);
        }
        if config["ssh_pwauth"].as_bool() == Some(true) {
            findings.warn(format!("{path} lets people log in by password over SSH"), "`ssh_pwauth: false`");
        }
    }
}

fn proxies(system: &Tree, homes: &[String], findings: &mut Findings) {
    let mut files: Vec<(String, String)> =
        SETTINGS.iter().filter_map(|path| Some(((*path).to_owned(), system.text(path)?))).collect();
    files.extend(SETTING_FOLDERS.iter().flat_map(|folder| system.texts(folder, "")));
    for home in homes {
        let paths = OWN_SETTINGS.iter().map(|name| format!("{home}/{name}"));
        files.extend(paths.filter_map(|path| Some((path.clone(), system.text(&path)?))));
    }
    let units = system.below("/etc/systemd/system").filter(|(path, _)| path.ends_with(".conf"));
    files.extend(units.filter_map(|(path, _)| Some((path.to_owned(), system.text(path)?))));
    for (path, text) in files {
        if text.lines().any(sets_proxy) {
            findings
                .fail(format!("{path} names a proxy"), "give a build its proxy with `--proxy`; it is gone afterwards");
        }
    }
}

/// Whether a line of any of these files names a proxy: a variable, apt's `Acquire::http::Proxy "…"`, dnf's `proxy=…`.
fn sets_proxy(line: &str) -> bool {
    let line = line.trim().to_ascii_lowercase();
    if line.starts_with(['#', ';']) || line.starts_with("//") {
        return false;
    }
    line.match_indices("proxy").any(|(at, word)| {
        let is_exception = ["no", "no_", "no-"].iter().any(|no| line[..at].ends_with(no));
        let value = line[at + word.len()..].trim_start_matches([' ', '\t', '=', '"', '\'', ':', '{']);
        !is_exception && ["http://", "https://", "socks"].iter().any(|scheme| value.starts_with(scheme))
    })
}

fn credentials(system: &Tree, homes: &[String], findings: &mut Findings) {
    let mend = "remove it in the last step; a build that needs a secret gets it from a service, and forgets it";
    for home in homes {
        for name in CREDENTIALS.iter().filter(|name| is_written(system, &format!("{home}/{name}"))) {
            findings.fail(format!("{home}/{name} holds credentials"), mend);
        }
    }
    let of_apt = system.texts("/etc/apt/auth.conf.d", "").into_iter().map(|(path, _)| path);
    let of_apt = of_apt.chain(["/etc/apt/auth.conf".to_owned()]).filter(|path| is_written(system, path));
    for path in of_apt {
        findings.fail(format!("{path} holds credentials"), mend);
    }
    for (path, text) in system.all_texts() {
        let is_of_host = path.starts_with("/etc/ssh/ssh_host_");
        if !is_of_host && memchr::memmem::find(text, b"PRIVATE KEY-----").is_some() {
            findings.fail(format!("{path} holds a private key"), mend);
        } else if has_token(text) {
            findings.fail(format!("{path} holds what looks like an access token"), mend);
        }
    }
}

/// Whether a text holds a token of a known form, by itself and not as a part of a longer word.
fn has_token(text: &[u8]) -> bool {
    let is_of_word = |byte: &u8| byte.is_ascii_alphanumeric();
    TOKENS.iter().any(|(start, length)| {
        memchr::memmem::find_iter(text, start).any(|at| {
            let rest = &text[at + start.len()..];
            let follows = rest.iter().take_while(|byte| is_of_word(byte) || **byte == b'_').count();
            let is_first = at == 0 || !is_of_word(&text[at - 1]);
            // Examples in manuals end so.
            let is_example = rest.get(..*length).is_some_and(|rest| rest.ends_with(b"EXAMPLE"));
            is_first
                && !is_example
                && if start.len() == 4 && *length == 16 { follows == *length } else { follows >= *length }
        })
    })
}

/// What is no danger, and says that somebody was here.
fn traces_of_a_run(system: &Tree, findings: &mut Findings) {
    let mend = "remove it in the last step";
    if is_written(system, "/etc/hostname")
        && system.text("/etc/hostname").is_some_and(|name| name.contains("goldsmith"))
    {
        findings.warn("/etc/hostname is the build machine's", mend);
    }
    for folder in ["/var/lib/dhcp", "/var/lib/dhclient"] {
        for name in system.names(folder).iter().filter(|name| is_written(system, &format!("{folder}/{name}"))) {
            findings.warn(format!("{folder}/{name} is an address of the build's network"), mend);
        }
    }
    for path in ["/var/log/cloud-init.log", "/var/log/cloud-init-output.log"] {
        if is_written(system, path) {
            findings.warn(format!("{path} is the build machine's"), mend);
        }
    }
    if !system.names("/var/log/journal").is_empty() {
        findings.warn("/var/log/journal holds the build machine's journal", mend);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_name_a_proxy() {
        let named = [
            "http_proxy=http://proxy:3128",
            "export HTTPS_PROXY=\"http://u:p@proxy\"",
            "Acquire::http::Proxy \"http://proxy:3142/\";",
            "proxy = http://proxy",
            "Environment=\"NO_PROXY=localhost\" \"HTTP_PROXY=http://proxy\"",
            "\tproxy = https://proxy",
        ];
        for line in named {
            assert!(sets_proxy(line), "{line}");
        }
        for line in [
            "# http_proxy=http://p",
            "no_proxy=http://p",
            "proxy=",
            "// Acquire::http::Proxy \"http://p\";",
            "proxy_http on",
        ] {
            assert!(!sets_proxy(line), "{line}");
        }
    }

    #[test]
    fn tokens_are_told_from_words() {
        let real = ["key=AKIAABCDEFGHIJKLMNOP\n", "ghp_abcdefghijklmnopqrstuvwxyz0123456789"];
        for text in real {
            assert!(has_token(text.as_bytes()), "{text}");
        }
        for text in ["AKIAIOSFODNN7EXAMPLE", "xAKIAABCDEFGHIJKLMNOP", "AKIAABCDEFGHIJKLMNOPQ", "ghp_short", "xoxb-"] {
            assert!(!has_token(text.as_bytes()), "{text}");
        }
    }
}
