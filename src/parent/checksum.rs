//! Lists of digests as publishers write them.

use crate::document::base_image::Digest;

/// The digest that a list gives a file.
///
/// Two forms are in use: GNU coreutils' `DIGEST  NAME` (with `*` before the name for binary mode), and BSD's
/// `SHA256 (NAME) = DIGEST`. When a list has several digests of a file, the strongest counts.
pub(super) fn find(list: &str, name: &str) -> Option<Digest> {
    let digests = list.lines().filter_map(|line| {
        let (digest, listed) = gnu(line).or_else(|| bsd(line))?;
        (listed.strip_prefix("./").unwrap_or(listed) == name).then_some(digest)
    });
    digests.max_by_key(|digest| digest.hex.len())
}

fn gnu(line: &str) -> Option<(Digest, &str)> {
    let (hex, rest) = line.split_once(' ')?;
    let name = rest.strip_prefix(' ').or_else(|| rest.strip_prefix('*')).unwrap_or(rest);
    Some((Digest::of_length(hex)?, name.trim_end()))
}

fn bsd(line: &str) -> Option<(Digest, &str)> {
    let (algorithm, rest) = line.split_once(" (")?;
    let (name, hex) = rest.rsplit_once(") = ")?;
    Some((Digest::new(algorithm, hex.trim_end())?, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let (short, long) = ("ab".repeat(32), "cd".repeat(64));
        let list = format!(
            "# comment\n{short}  a.qcow2\n{short} *b.img\n{long}  ./c.qcow2\nSHA256 (d (1).qcow2) = {short}\n\
             SHA256 (e.raw) = {short}\nSHA512 (e.raw) = {long}\nMD5 (f) = 00\n{short}  not-a.qcow2\n"
        );
        let hex = |name| find(&list, name).map(|digest| digest.hex);
        assert_eq!(hex("a.qcow2").as_ref(), Some(&short));
        assert_eq!(hex("b.img").as_ref(), Some(&short));
        assert_eq!(hex("c.qcow2").as_ref(), Some(&long));
        assert_eq!(hex("d (1).qcow2").as_ref(), Some(&short));
        assert_eq!(hex("e.raw").as_ref(), Some(&long));
        assert_eq!(hex("f"), None);
        assert_eq!(hex("qcow2"), None);
    }
}
