//! What is installed in a guest.
//!
//! Debian's and Alpine's lists are read as they are, deb822(5) and apk(5), which costs nothing; RPM's is a database that only
//! `rpm` reads.

use std::time::Duration;

use goldsmith_agent::message::{Exit, OpError, OpErrorKind};

use super::{Error, Guest};
use crate::store::Package;

const DPKG: &str = "/var/lib/dpkg/status";
const APK: &str = "/lib/apk/db/installed";
const RPM: [&str; 2] = ["/var/lib/rpm", "/usr/lib/sysimage/rpm"];
/// One to a line; an epoch only where there is one, as `rpm` itself writes versions.
const RPM_QUERY: [&str; 4] =
    ["rpm", "-qa", "--queryformat", "%{NAME}\\t%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}\\t%{ARCH}\\n"];
/// Bytes of a list. A desktop with all its packages has a quarter.
const LIMIT: usize = 16 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

impl Guest {
    /// The installed packages, sorted; none if the guest has no package manager that is known.
    pub async fn packages(&self) -> Result<Option<Vec<Package>>, Error> {
        for (place, parse) in [(DPKG, dpkg as fn(&str) -> Vec<Package>), (APK, apk)] {
            if self.stat(place, true).await?.is_some_and(|stat| stat.size > 0) {
                let list = self.read(place, LIMIT).await?;
                return Ok(Some(sorted(parse(&String::from_utf8_lossy(&list)))));
            }
        }
        for place in RPM {
            if self.stat(place, true).await?.is_some() {
                let (exit, list) = self.collect(&RPM_QUERY, PATIENCE, LIMIT).await?;
                let packages = rpm(&String::from_utf8_lossy(&list));
                if exit != Exit::Code(0) || list.len() >= LIMIT {
                    let message = "`rpm -qa` does not list them to the end".to_owned();
                    return Err(Error::Refused(OpError { kind: OpErrorKind::Other, message }));
                }
                return Ok(Some(sorted(packages)));
            }
        }
        Ok(None)
    }
}

fn sorted(mut packages: Vec<Package>) -> Vec<Package> {
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// `dpkg`'s status: paragraphs of fields. What was removed and has left its configuration is not installed.
fn dpkg(list: &str) -> Vec<Package> {
    paragraphs(list, |field| {
        let is_installed = field("Status")?.split_whitespace().next_back() == Some("installed");
        Package::new(field("Package")?, field("Version")?, field("Architecture").unwrap_or_default())
            .filter(|_| is_installed)
    })
}

/// `apk`'s: the same with letters for fields.
fn apk(list: &str) -> Vec<Package> {
    paragraphs(list, |field| Package::new(field("P")?, field("V")?, field("A").unwrap_or_default()))
}

/// What is made of each paragraph, from the first line of each of its fields.
fn paragraphs<'a>(list: &'a str, read: impl Fn(&dyn Fn(&str) -> Option<&'a str>) -> Option<Package>) -> Vec<Package> {
    let mut packages = Vec::new();
    for paragraph in list.split("\n\n") {
        let field =
            |name: &str| paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        packages.extend(read(&field));
    }
    packages
}

/// Lines of our own asking. Keys that packages are verified with are in the same database, and are no packages.
fn rpm(list: &str) -> Vec<Package> {
    let read = |line: &str| {
        let mut fields = line.split('\t');
        Package::new(fields.next()?, fields.next()?, fields.next()?)
    };
    list.lines().filter_map(read).filter(|package| package.name != "gpg-pubkey").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(packages: Vec<Package>) -> Vec<String> {
        let show = |package: Package| format!("{} {} {}", package.name, package.version, package.architecture);
        sorted(packages).into_iter().map(show).collect()
    }

    #[test]
    fn dpkg_says_what_is_installed() {
        let list = "Package: zlib1g\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:1.2.13.dfsg-1\n\
                    Description: a library\n Package: not this\n\nPackage: old\nStatus: deinstall ok config-files\n\
                    Version: 1\nArchitecture: all\n\nPackage: held\nStatus: hold ok installed\nVersion: 2\n\n\
                    Package: bad name\nStatus: install ok installed\nVersion: 3\n\nStatus: install ok installed\n";
        assert_eq!(shown(dpkg(list)), ["held 2 ", "zlib1g 1:1.2.13.dfsg-1 amd64"]);
    }

    #[test]
    fn apk_and_rpm_do() {
        let list = "C:Q1abc=\nP:musl\nV:1.2.5-r0\nA:x86_64\nF:lib\nR:ld.so\n\nP:busybox\nV:1.36.1-r29\nA:x86_64\n\n";
        assert_eq!(shown(apk(list)), ["busybox 1.36.1-r29 x86_64", "musl 1.2.5-r0 x86_64"]);
        let list = "bash\t5.1.8-9.el9\tx86_64\ngpg-pubkey\tfd431d51-4ae0493b\t(none)\ndbus\t1:1.12.20-8.el9\tx86_64\n\
                    warning: what stands on a line of its own\n";
        assert_eq!(shown(rpm(list)), ["bash 5.1.8-9.el9 x86_64", "dbus 1:1.12.20-8.el9 x86_64"]);
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_guest_says_makes_lines_of_three_words(list in "[PVASa:\t\n\\x1b ]{0,60}|\\PC{0,60}") {
            for parse in [dpkg, apk, rpm] {
                for line in shown(parse(&list)) {
                    proptest::prop_assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line:?}");
                }
            }
        }
    }
}
