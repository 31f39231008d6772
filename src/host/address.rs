//! Addresses on the web, which may hold secrets.

use std::fmt;

/// An address. Shown, it lacks what may be a secret: user and password, and the values of a query, by which signed
/// addresses give access to whoever knows them.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(String);

impl Address {
    /// An address, or what somebody takes for one.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// All of it, to send requests to; not to be shown or kept.
    pub fn whole(&self) -> &str {
        &self.0
    }

    /// The last part of its path.
    pub fn file_name(&self) -> &str {
        let path = self.0.split(['?', '#']).next().unwrap_or_default();
        path.rsplit('/').next().unwrap_or_default()
    }
}

impl fmt::Display for Address {
    // Source of the parts: RFC 3986, section 3.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rest, fragment) = self.0.split_once('#').map_or((&*self.0, None), |(rest, after)| (rest, Some(after)));
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let (scheme, rest) = rest.split_once("://").map_or(("", rest), |(scheme, rest)| (scheme, rest));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if !scheme.is_empty() {
            write!(f, "{scheme}://")?;
        }
        match authority.rsplit_once('@') {
            Some((_, host)) => write!(f, "***@{host}{path}")?,
            // Of a password with a `/`, `?` or `#` in it, which had to be encoded, this is the beginning.
            None if !has_port_at_most(authority) => write!(f, "***")?,
            None => write!(f, "{authority}{path}")?,
        }
        for (number, pair) in query.into_iter().flat_map(|query| query.split('&')).enumerate() {
            f.write_str(if number == 0 { "?" } else { "&" })?;
            match pair.split_once('=') {
                Some((name, _)) => write!(f, "{name}=***")?,
                None => f.write_str("***")?,
            }
        }
        fragment.map_or(Ok(()), |_| f.write_str("#***"))
    }
}

/// What somebody wrote, as it may be shown and kept: it may be an address.
pub fn shown(text: &str) -> String {
    if text.contains("://") { Address::new(text).to_string() } else { text.to_owned() }
}

/// Whether a host is followed by nothing or by a port.
fn has_port_at_most(authority: &str) -> bool {
    let behind = authority.rsplit_once(']').map_or(authority, |(_, behind)| behind);
    behind.split_once(':').is_none_or(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_is_not_shown() {
        let list = [
            "https://example.org/disks/x.qcow2",
            "https://example.org:8443",
            "https://me:hunter2@example.org/x.qcow2",
            "https://token@example.org",
            "https://me:p@ss@example.org/a@b",
            "https://bucket.example/x.vmdk?X-Amz-Expires=60&X-Amz-Signature=abc=&flag#part",
            "https://example.org?sig=a/b@c",
            "https://me:hunter/2@example.org/x.qcow2",
            "https://me:hunter#2@example.org/x.qcow2",
            "https://[::1]/x and https://[::1]:80/x",
            "me:hunter2@example.org/x",
            "",
        ];
        insta::assert_snapshot!(list.map(|text| Address::new(text).to_string()).join("\n"), @r"
        https://example.org/disks/x.qcow2
        https://example.org:8443
        https://***@example.org/x.qcow2
        https://***@example.org
        https://***@example.org/a@b
        https://bucket.example/x.vmdk?X-Amz-Expires=***&X-Amz-Signature=***&***#***
        https://example.org?sig=***
        https://***
        https://***#***
        https://[::1]/x and https://[::1]:80/x
        ***@example.org/x
        ");
        assert_eq!(format!("{:?}", Address::new("https://a:b@c")), "https://***@c");
        assert_eq!(Address::new("https://x.example/a/disk.qcow2?sig=/b").file_name(), "disk.qcow2");
    }

    proptest::proptest! {
        #[test]
        fn a_password_is_never_shown(user in "[a-z:@]{0,5}", password in "[a-zA-Z0-9:@]{12,20}", rest in "[/?#][a-z/?&=@#]{0,12}") {
            let shown = Address::new(format!("https://{user}:{password}@host{rest}")).to_string();
            proptest::prop_assert!(!shown.contains(&password), "{shown}");
        }
    }
}
