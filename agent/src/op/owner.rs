//! Owners by name.
//!
//! A static program has no name service, so names are looked up in the files themselves; a user that only a directory
//! server knows has to be given by number.

use goldsmith_agent::message::{OpError, OpErrorKind};

use super::failed;

/// Sets owner and group, each by name or number; links are followed.
pub(crate) fn set(path: &str, owner: Option<&str>, group: Option<&str>) -> Result<(), OpError> {
    let uid = owner.map(|name| number("/etc/passwd", "user", name)).transpose()?;
    let gid = group.map(|name| number("/etc/group", "group", name)).transpose()?;
    std::os::unix::fs::chown(path, uid, gid).map_err(|error| failed(path, &error))
}

fn number(database: &str, what: &str, name: &str) -> Result<u32, OpError> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let text = std::fs::read_to_string(database).map_err(|error| failed(database, &error))?;
    lookup(&text, name).ok_or_else(|| OpError {
        kind: OpErrorKind::NotFound,
        message: format!("{database}: there is no {what} {name}"),
    })
}

/// The third field of the line whose first field is the name, as in passwd(5) and group(5).
fn lookup(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        fields.nth(1)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_as_whole_fields() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:33::/var/www:\nbroken\nwww:x:1000:1000::/:\n";
        assert_eq!(lookup(passwd, "root"), Some(0));
        assert_eq!(lookup(passwd, "www"), Some(1000));
        assert_eq!(lookup(passwd, "broken"), None);
        assert_eq!(lookup(passwd, "x"), None);
    }
}
