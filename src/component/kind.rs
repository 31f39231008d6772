//! What an input is: a path, a truth value, permissions. Each is checked when a document is read, if it refers to nothing,
//! and again when a step starts.

use goldsmith_agent::message::Algorithm;

use super::encoding::Encoding;
use crate::document::recipe::octal;

/// What an input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A text; of numbers the digits count as they are written.
    Text,
    /// A path, which is not empty.
    Path,
    /// A list of texts.
    Texts,
    /// A text or a list of texts.
    TextOrTexts,
    /// A map of the document's own names and texts.
    Settings,
    /// A list of `{ name, value }`.
    Parameters,
    /// A truth value.
    Flag,
    /// A whole number, not negative.
    Number,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Permissions in octal digits.
    Permissions,
    /// An encoding of text.
    Encoding,
    /// A kind of digest.
    Algorithm,
    /// The number of an AWS account.
    Account,
    /// An http or https address.
    WebAddress,
    /// An object of S3, or all under a prefix.
    Object,
    /// A key of the Windows registry.
    RegistryPath,
}

/// Kinds of digest, by the names that documents have for them.
const ALGORITHMS: [(&str, Algorithm); 4] =
    [("MD5", Algorithm::Md5), ("SHA1", Algorithm::Sha1), ("SHA256", Algorithm::Sha256), ("SHA512", Algorithm::Sha512)];

impl Kind {
    /// What is wrong with a text, if anything.
    pub(super) fn check(self, text: &str) -> Result<(), String> {
        let good = match self {
            Self::Text | Self::Texts | Self::TextOrTexts | Self::Settings | Self::Parameters => true,
            Self::Path => !text.is_empty() && !text.contains('\0'),
            Self::Flag => Self::parse_flag(text).is_some(),
            Self::Number => text.parse::<u64>().is_ok(),
            Self::OneOf(words) => words.contains(&text),
            Self::Permissions => octal(text).is_some(),
            Self::Encoding => Encoding::find(text).is_some(),
            Self::Algorithm => Self::parse_algorithm(text).is_some(),
            Self::Account => text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit()),
            Self::WebAddress => web_address(text),
            Self::Object => object(text).is_some(),
            Self::RegistryPath => registry_path(text),
        };
        if good { Ok(()) } else { Err(format!("has to be {}, and this is `{text}`", self.describe())) }
    }

    fn describe(self) -> String {
        match self {
            Self::Text | Self::Texts | Self::TextOrTexts | Self::Settings | Self::Parameters => "a text".to_owned(),
            Self::Path => "a path".to_owned(),
            Self::Flag => "true or false".to_owned(),
            Self::Number => "a whole number, not negative".to_owned(),
            Self::OneOf(words) => format!("one of {}", words.join(", ")),
            Self::Permissions => "octal digits such as 0644".to_owned(),
            Self::Encoding => "utf8, utf16 or utf32, the latter two perhaps with -LE or -BE".to_owned(),
            Self::Algorithm => "MD5, SHA1, SHA256 or SHA512".to_owned(),
            Self::Account => "an account's 12 digits".to_owned(),
            Self::WebAddress => "an http or https address".to_owned(),
            Self::Object => "of the form s3://BUCKET/KEY".to_owned(),
            Self::RegistryPath => format!("a key below one of {}", HIVES.map(|(name, _)| name).join(", ")),
        }
    }

    /// A truth value.
    pub(super) fn parse_flag(text: &str) -> Option<bool> {
        match text.to_ascii_lowercase().as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }

    /// A kind of digest.
    pub(super) fn parse_algorithm(text: &str) -> Option<Algorithm> {
        ALGORITHMS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, algorithm)| *algorithm)
    }
}

fn web_address(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    host.is_some_and(|host| !host.is_empty() && !host.starts_with('/'))
}

const HIVES: [(&str, &str); 5] = [
    ("HKEY_CLASSES_ROOT", "HKCR:"),
    ("HKEY_USERS", "HKU:"),
    ("HKEY_LOCAL_MACHINE", "HKLM:"),
    ("HKEY_CURRENT_CONFIG", "HKCC:"),
    ("HKEY_CURRENT_USER", "HKCU:"),
];

fn registry_path(text: &str) -> bool {
    let hive = text.split(['\\', '/']).next().unwrap_or_default();
    HIVES.iter().any(|(long, short)| hive.eq_ignore_ascii_case(long) || hive.eq_ignore_ascii_case(short))
}

/// Bucket and key of an object; of a bucket as a whole the key is empty.
pub(super) fn object(text: &str) -> Option<(&str, &str)> {
    let path = text.strip_prefix("s3://")?;
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    (!bucket.is_empty()).then_some((bucket, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_know_their_texts() {
        for (kind, good, bad) in [
            (Kind::Path, "/x", ""),
            (Kind::Flag, "True", "yes"),
            (Kind::Number, "60", "-1"),
            (Kind::OneOf(&["Allow", "Skip"]), "Skip", "skip"),
            (Kind::Permissions, "0755", "rwx"),
            (Kind::Encoding, "UTF-16-LE", "latin1"),
            (Kind::Algorithm, "sha256", "crc32"),
            (Kind::Account, "123456789012", "12345"),
            (Kind::WebAddress, "https://x.example/a", "ftp://x.example/a"),
            (Kind::Object, "s3://bucket/key*", "s3:///key"),
            (Kind::RegistryPath, "HKLM:\\SOFTWARE\\X", "SOFTWARE\\X"),
        ] {
            assert_eq!(kind.check(good), Ok(()), "{good}");
            assert!(kind.check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn objects_have_a_bucket_and_a_key() {
        assert_eq!(object("s3://b/k/l"), Some(("b", "k/l")));
        assert_eq!(object("s3://b"), Some(("b", "")));
        assert_eq!(object("s3:///k"), None);
        assert_eq!(object("https://b/k"), None);
    }
}
