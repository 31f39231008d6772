//! What a site's network needs while building: from the recipe, from flags, from the host's own environment.

use std::path::PathBuf;

use fs_err as fs;

use super::Error;
use crate::document::recipe::Recipe;
use crate::guest::site::{Mirror, Site};
use crate::host::address::Address;

/// What flags say; it wins over the recipe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SiteWishes {
    /// A proxy's address, or `host`.
    pub proxy: Option<String>,
    /// Hosts to reach without it.
    pub no_proxy: Option<String>,
    /// A file with a certificate.
    pub ca_certificate: Option<PathBuf>,
    /// Addresses to replace, and by what.
    pub mirrors: Vec<(String, String)>,
}

/// A certificate with its chain has a few kilobytes.
const CERTIFICATE_LIMIT: usize = 64 * 1024;

/// What the guest is given.
pub(super) fn resolve(recipe: &Recipe, folder: &std::path::Path, flags: &SiteWishes) -> Result<Site, Error> {
    let wishes = &recipe.network;
    let proxy = flags.proxy.clone().or_else(|| wishes.proxy.as_ref().map(|proxy| proxy.value.clone()));
    let no_proxy = flags.no_proxy.clone().or_else(|| wishes.no_proxy.clone());
    let certificate = flags.ca_certificate.clone();
    let certificate = certificate.or_else(|| wishes.ca_certificate.as_ref().map(|path| folder.join(&path.value)));
    let ca_certificate = certificate.map(|path| read_certificate(&path)).transpose()?;
    let listed = wishes.mirrors.iter().map(|(from, to)| (from.value.clone(), to.value.clone()));
    let mirrors = listed.chain(flags.mirrors.iter().cloned());
    let mirrors = mirrors.map(|(from, to)| Mirror { from: without_slash(from), to: without_slash(to) });
    let mirrors: Vec<Mirror> = mirrors.collect();
    for (index, mirror) in mirrors.iter().enumerate() {
        if let Some(other) = mirrors[..index].iter().find(|other| other.to == mirror.to && other.from != mirror.from) {
            let [one, other, to] =
                [&other.from, &mirror.from, &mirror.to].map(|address| Address::new(address.as_str()));
            let what = format!("both {one} and {other} are replaced by {to}");
            let mend = "give each an address of its own, if only by another path: what is sealed has the old ones again, and \
                        could not tell them apart";
            return Err(Error::Host { what, mend: mend.to_owned() });
        }
    }
    Ok(Site { proxy: proxy_variables(proxy, no_proxy, |name| std::env::var(name).ok()), ca_certificate, mirrors })
}

fn without_slash(address: String) -> String {
    address.trim_end_matches('/').to_owned()
}

fn read_certificate(path: &std::path::Path) -> Result<String, Error> {
    let text = fs::read_to_string(path).map_err(Error::Unreadable)?;
    if text.len() > CERTIFICATE_LIMIT || !text.contains("-----BEGIN CERTIFICATE-----") {
        let what = format!("`{}` is no certificate in PEM", path.display());
        let mend = "convert it: openssl x509 -inform der -in FILE -out FILE.pem".to_owned();
        return Err(Error::Host { what, mend });
    }
    Ok(text)
}

/// Programs read the names in lower case, in upper case, or both.
fn proxy_variables(
    proxy: Option<String>,
    no_proxy: Option<String>,
    host: impl Fn(&str) -> Option<String>,
) -> Vec<(String, String)> {
    let of_host = |name: &str| host(name).or_else(|| host(&name.to_uppercase())).filter(|value| !value.is_empty());
    let mut variables = Vec::new();
    match proxy.as_deref() {
        None | Some("") => return variables,
        Some("host") => {
            for name in ["http_proxy", "https_proxy", "no_proxy"] {
                variables.extend(of_host(name).map(|value| (name.to_owned(), value)));
            }
        }
        Some(address) => {
            variables.extend(["http_proxy", "https_proxy"].map(|name| (name.to_owned(), address.to_owned())));
        }
    }
    if let Some(no_proxy) = no_proxy {
        variables.retain(|(name, _)| name != "no_proxy");
        variables.push(("no_proxy".to_owned(), no_proxy));
    }
    let upper: Vec<(String, String)> =
        variables.iter().map(|(name, value)| (name.to_uppercase(), value.clone())).collect();
    variables.extend(upper);
    variables
}

/// Warns of a proxy that a guest can't reach.
pub(super) fn unreachable_proxy(site: &Site) -> Option<String> {
    let local = |address: &str| {
        let host = address.split_once("://").map_or(address, |(_, rest)| rest);
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        ["127.", "localhost", "[::1]"].iter().any(|local| host.starts_with(local))
    };
    let is_address = |name: &str| !name.eq_ignore_ascii_case("no_proxy");
    let proxy = site.proxy.iter().find(|(name, value)| is_address(name) && local(value))?;
    Some(format!("the proxy {} is on this host's loopback, which guests can't reach", Address::new(proxy.1.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_set_under_all_its_names() {
        let host = |name: &str| match name {
            "HTTP_PROXY" => Some("http://p:1".to_owned()),
            "no_proxy" => Some("a,b".to_owned()),
            _ => None,
        };
        let names = |proxy: Option<&str>, no_proxy: Option<&str>| {
            let variables = proxy_variables(proxy.map(str::to_owned), no_proxy.map(str::to_owned), host);
            variables.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(None, Some("x")), "");
        assert_eq!(
            names(Some("http://q:2"), None),
            "http_proxy=http://q:2 https_proxy=http://q:2 HTTP_PROXY=http://q:2 HTTPS_PROXY=http://q:2"
        );
        assert_eq!(names(Some("host"), None), "http_proxy=http://p:1 no_proxy=a,b HTTP_PROXY=http://p:1 NO_PROXY=a,b");
        assert!(names(Some("host"), Some("c")).contains("no_proxy=c"));
    }
}
