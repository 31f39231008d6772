//! What a site's network needs while an image is built, and no image should contain: a proxy, an authority of its own,
//! mirrors of the distribution's packages.
//!
//! A proxy is an environment variable of the steps and never touches the disk. A certificate goes into the guest's trust
//! store and is taken out again. Mirrors are written over the sources' addresses, and the addresses back over the
//! mirrors afterwards, so that what components add to the same files stays. That nothing is left is then proved on the
//! sealed disk, by searching it for [`Site::traces`].

use std::time::Duration;

use goldsmith_agent::message::{Exit, Kind};

use super::{Error, Guest};

/// What a guest is given for its build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Site {
    /// Variables such as `http_proxy`.
    pub proxy: Vec<(String, String)>,
    /// A certificate in PEM.
    pub ca_certificate: Option<String>,
    /// Addresses of package repositories to replace.
    pub mirrors: Vec<Mirror>,
}

/// An address to use instead of another while building.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// What the guest's package sources say, without a slash at the end.
    pub from: String,
    /// What they shall say meanwhile.
    pub to: String,
}

/// Files and folders that name package sources: apt, dnf and yum, zypper.
const SOURCES: [&str; 4] =
    ["/etc/apt/sources.list", "/etc/apt/sources.list.d", "/etc/yum.repos.d", "/etc/zypp/repos.d"];
/// A file of package sources is a few kilobytes.
const SOURCE_LIMIT: usize = 1 << 20;
/// Marks lines of dnf's files that were switched off, because they name a list of mirrors instead of one.
const SWITCHED_OFF: &str = "#goldsmith-site# ";

/// Where a distribution looks for further authorities, and what it runs to have them trusted.
const TRUST_STORES: [(&str, &str); 3] = [
    ("/usr/local/share/ca-certificates", "update-ca-certificates"),
    ("/etc/pki/ca-trust/source/anchors", "update-ca-trust"),
    ("/etc/pki/trust/anchors", "update-ca-certificates"),
];
/// With KVM a gigabyte of zeroes takes a second.
const FILL_DEADLINE: Duration = Duration::from_secs(900);
const CERTIFICATE: &str = "goldsmith-site.crt";

impl Site {
    /// Whether there is anything to give.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What must not be found on the sealed disk.
    pub fn traces(&self) -> Vec<&str> {
        let mut traces: Vec<&str> = Vec::new();
        traces.extend(
            self.proxy
                .iter()
                .filter(|(name, _)| !name.eq_ignore_ascii_case("no_proxy"))
                .map(|(_, value)| value.as_str()),
        );
        traces.extend(self.mirrors.iter().map(|mirror| mirror.to.as_str()));
        // A line from the middle of the certificate: the first ones of many certificates are alike.
        let lines: Vec<&str> = self.ca_certificate.iter().flat_map(|pem| pem.lines()).collect();
        traces.extend(lines.get(lines.len() / 2));
        traces
    }
}

impl Guest {
    /// Prepares the guest for a site.
    pub async fn enter_site(&self, site: &Site) -> Result<(), Error> {
        if let Some(certificate) = &site.ca_certificate {
            let (folder, update) = self.trust_store().await?;
            self.write(&format!("{folder}/{CERTIFICATE}"), 0o644, certificate.as_bytes()).await?;
            self.run_or_refuse(&[update]).await?;
        }
        self.rewrite_sources(|text| use_mirrors(text, &site.mirrors)).await
    }

    /// Takes everything back that [`Guest::enter_site`] gave.
    pub async fn leave_site(&self, site: &Site) -> Result<(), Error> {
        self.rewrite_sources(|text| forget_mirrors(text, &site.mirrors)).await?;
        if site.ca_certificate.is_some() {
            let (folder, update) = self.trust_store().await?;
            self.remove(&format!("{folder}/{CERTIFICATE}")).await?;
            self.run_or_refuse(&[update]).await?;
        }
        Ok(())
    }

    /// Overwrites what deleted files have left on the disk. Trimming alone does not: a block of 4 KiB is only a part of
    /// one of the disk's clusters. Zeroes take no room in the overlay.
    pub async fn overwrite_free_space(&self) -> Result<(), Error> {
        // What the journal's service holds open is not free yet. ext4 and XFS keep some blocks back, even from root, and
        // those may be the very ones.
        const FILL: &str = r#"
journalctl --relinquish-var >/dev/null 2>&1
for kept in /sys/fs/ext4/*/reserved_clusters; do [ -w "$kept" ] && echo 0 > "$kept"; done
findmnt --raw --noheadings --output TARGET --types xfs | while read -r folder; do
  xfs_io -x -c 'resblks 0' "$folder" >/dev/null 2>&1
done
findmnt --raw --noheadings --output TARGET --types ext2,ext3,ext4,xfs,btrfs | while read -r folder; do
  fill=$folder/.goldsmith-zeroes
  dd if=/dev/zero of="$fill" bs=1M conv=fsync 2>/dev/null
  rm -f "$fill"
done
sync"#;
        let filled = self.ask_within(&["sh", "-c", FILL], FILL_DEADLINE).await?;
        match filled {
            (Exit::Code(0), _) => Ok(()),
            (exit, _) => Err(Error::Protocol(format!("overwriting the guest's free space ended with {exit:?}"))),
        }
    }

    async fn trust_store(&self) -> Result<(&'static str, &'static str), Error> {
        for (folder, update) in TRUST_STORES {
            if self.stat(folder, true).await?.is_some() {
                return Ok((folder, update));
            }
        }
        Err(Error::Protocol("the guest has no known trust store for the site's certificate".to_owned()))
    }

    async fn run_or_refuse(&self, argv: &[&str]) -> Result<(), Error> {
        match self.ask(argv).await? {
            (Exit::Code(0), _) => Ok(()),
            (exit, output) => Err(Error::Protocol(format!("`{}` ended with {exit:?}: {output}", argv.join(" ")))),
        }
    }

    async fn rewrite_sources(&self, rewrite: impl Fn(&str) -> String) -> Result<(), Error> {
        for path in self.source_files().await? {
            let content = self.read(&path, SOURCE_LIMIT).await?;
            let Ok(text) = String::from_utf8(content) else { continue };
            let rewritten = rewrite(&text);
            if rewritten != text {
                self.write(&path, 0o644, rewritten.as_bytes()).await?;
            }
        }
        Ok(())
    }

    async fn source_files(&self) -> Result<Vec<String>, Error> {
        let mut files = Vec::new();
        for source in SOURCES {
            match self.stat(source, true).await?.map(|stat| stat.kind) {
                Some(Kind::File) => files.push(source.to_owned()),
                Some(Kind::Folder) => {
                    let names = self.list(source).await?;
                    let known = |name: &String| [".list", ".sources", ".repo"].iter().any(|end| name.ends_with(end));
                    files.extend(names.into_iter().filter(known).map(|name| format!("{source}/{name}")));
                }
                _ => {}
            }
        }
        Ok(files)
    }
}

fn use_mirrors(text: &str, mirrors: &[Mirror]) -> String {
    let mut result = String::new();
    let mut uses_baseurl = false;
    // dnf's files name a list of mirrors and have the plain address commented out; a later line tells.
    for line in text.split_inclusive('\n') {
        uses_baseurl |= mirrors.iter().any(|mirror| line.starts_with("#baseurl=") && line.contains(&mirror.from));
    }
    for line in text.split_inclusive('\n') {
        let is_list = line.starts_with("metalink=") || line.starts_with("mirrorlist=");
        let mirror = mirrors.iter().find(|mirror| names_address(line, &mirror.from));
        match mirror {
            _ if is_list && uses_baseurl => {
                result.push_str(SWITCHED_OFF);
                result.push_str(line);
            }
            Some(mirror) if line.starts_with("#baseurl=") => {
                result.push_str(SWITCHED_OFF);
                result.push_str(line);
                result.push_str(&line[1..].replace(&mirror.from, &mirror.to));
            }
            Some(mirror) => result.push_str(&line.replace(&mirror.from, &mirror.to)),
            None => result.push_str(line),
        }
    }
    result
}

fn forget_mirrors(text: &str, mirrors: &[Mirror]) -> String {
    let mut result = String::new();
    let mut was_commented_out = false;
    for line in text.split_inclusive('\n') {
        if let Some(original) = line.strip_prefix(SWITCHED_OFF) {
            was_commented_out = original.starts_with("#baseurl=");
            result.push_str(original);
            continue;
        }
        let mirror = mirrors.iter().find(|mirror| names_address(line, &mirror.to));
        if let Some(mirror) = mirror {
            // The line that a commented-out one was turned into.
            if !(was_commented_out && line.starts_with("baseurl=")) {
                result.push_str(&line.replace(&mirror.to, &mirror.from));
            }
        } else {
            result.push_str(line);
        }
        was_commented_out = false;
    }
    result
}

/// Whether a line names this address and not one that merely begins like it.
fn names_address(line: &str, address: &str) -> bool {
    line.match_indices(address).any(|(at, _)| {
        let next = line[at + address.len()..].chars().next();
        next.is_none_or(|c| c == '/' || c.is_whitespace())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirrors() -> Vec<Mirror> {
        [("http://archive.example/debian", "http://mirror.corp/d"), ("https://dl.example/pub", "http://mirror.corp/f")]
            .map(|(from, to)| Mirror { from: from.to_owned(), to: to.to_owned() })
            .into()
    }

    const APT: &str = "deb http://archive.example/debian bookworm main\n\
        deb http://archive.example/debian-security bookworm-security main\nURIs: http://archive.example/debian/\n";
    const DNF: &str = "[fedora]\n#baseurl=https://dl.example/pub/linux/$releasever/\n\
        metalink=https://mirrors.example/metalink?repo=fedora\nenabled=1\n";

    #[test]
    fn sources_name_the_mirror_meanwhile() {
        insta::assert_snapshot!(use_mirrors(APT, &mirrors()), @"
        deb http://mirror.corp/d bookworm main
        deb http://archive.example/debian-security bookworm-security main
        URIs: http://mirror.corp/d/
        ");
        insta::assert_snapshot!(use_mirrors(DNF, &mirrors()), @"
        [fedora]
        #goldsmith-site# #baseurl=https://dl.example/pub/linux/$releasever/
        baseurl=http://mirror.corp/f/linux/$releasever/
        #goldsmith-site# metalink=https://mirrors.example/metalink?repo=fedora
        enabled=1
        ");
    }

    #[test]
    fn nothing_is_left_and_what_components_add_stays() {
        for original in [APT, DNF, "", "deb http://other/debian x main"] {
            let changed = use_mirrors(original, &mirrors()) + "\n# added by a component\n";
            assert_eq!(forget_mirrors(&changed, &mirrors()), format!("{original}\n# added by a component\n"));
        }
    }

    #[test]
    fn traces_are_what_a_disk_is_searched_for() {
        let site = Site {
            proxy: vec![
                ("http_proxy".to_owned(), "http://proxy.corp:3128".to_owned()),
                ("no_proxy".to_owned(), "localhost".to_owned()),
            ],
            ca_certificate: Some(
                "-----BEGIN CERTIFICATE-----\nAAAA\nmiddle\nZZZZ\n-----END CERTIFICATE-----\n".to_owned(),
            ),
            mirrors: mirrors(),
        };
        assert_eq!(site.traces(), ["http://proxy.corp:3128", "http://mirror.corp/d", "http://mirror.corp/f", "middle"]);
        assert!(Site::default().is_empty() && !site.is_empty());
    }
}
