//! Values that must not be shown, and must not stay: in whatever a program may have made of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// What stands for a secret.
const MASK: &str = "***";

/// Secrets that steps are given, by the references that stand for them.
///
/// A program may print or keep a secret in another form than it was given: as part of an address, of JSON or XML, of an
/// `Authorization` header. So the common encodings are masked and looked for as well. What a guest compresses, encrypts or
/// hashes is not recognised.
#[derive(Clone, Default)]
pub struct Secrets(Arc<Inner>);

#[derive(Default)]
struct Inner {
    values: BTreeMap<String, String>,
    /// What is looked for, and the reference of the secret that it gives away.
    needles: Vec<(String, String)>,
    finder: Option<AhoCorasick>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.values.keys()).finish()
    }
}

impl Secrets {
    /// Fewest bytes of a secret: shorter ones occur everywhere by chance, and could be neither masked nor looked for.
    pub const SHORTEST: usize = 6;
    /// Most bytes of a secret. The Parameter Store takes 8 KiB, the Secrets Manager 64.
    pub const LONGEST: usize = 64 << 10;

    /// Secrets by their references. They have at least [`Self::SHORTEST`] bytes, and are few.
    pub fn new(values: BTreeMap<String, String>) -> Result<Self, aho_corasick::BuildError> {
        let mut needles: Vec<(String, String)> = Vec::new();
        for (reference, value) in &values {
            needles.extend(forms(value).into_iter().map(|form| (form, reference.clone())));
        }
        let finder = if needles.is_empty() {
            None
        } else {
            let forms = needles.iter().map(|(form, _)| form);
            Some(AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(forms)?)
        };
        Ok(Self(Arc::new(Inner { values, needles, finder })))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.values.is_empty()
    }

    /// The secret that a reference stands for.
    pub fn value(&self, reference: &str) -> Option<&str> {
        self.0.values.get(reference).map(String::as_str)
    }

    /// A text without them.
    pub fn mask(&self, text: &str) -> String {
        let Some(finder) = &self.0.finder else { return text.to_owned() };
        let mut masked = String::with_capacity(text.len());
        finder.replace_all_with(text, &mut masked, |_, _, masked| {
            masked.push_str(MASK);
            true
        });
        masked
    }

    /// Whether a text has one in it.
    pub fn are_in(&self, text: &str) -> bool {
        self.0.finder.as_ref().is_some_and(|finder| finder.is_match(text))
    }

    /// What gives a secret away, each with the reference of that secret.
    pub fn needles(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.needles.iter().map(|(form, reference)| (form.as_str(), reference.as_str()))
    }
}

/// The forms in which a secret may turn up.
fn forms(secret: &str) -> Vec<String> {
    let mut plain = vec![secret.to_owned()];
    // Logs are masked line by line. The lines around a key in PEM are no secret.
    let lines =
        secret.lines().map(str::trim).filter(|line| line.len() >= Secrets::SHORTEST && !line.starts_with("-----"));
    plain.extend(lines.map(str::to_owned));
    let mut forms = plain.clone();
    for plain in &plain {
        forms.extend(
            serde_json::to_string(plain)
                .iter()
                .filter_map(|json| Some(json.strip_prefix('"')?.strip_suffix('"')?.to_owned())),
        );
        forms.push(xml(plain));
        forms.push(plain.replace('\'', r"'\''"));
        forms.extend([percent(plain, "%20", hex::encode_upper), percent(plain, "+", hex::encode_upper)]);
        forms.extend([percent(plain, "%20", hex::encode), percent(plain, "+", hex::encode)]);
        forms.extend([hex::encode(plain), hex::encode_upper(plain)]);
        forms.extend((0..3).flat_map(|offset| {
            [base64_core(&STANDARD_NO_PAD, plain, offset), base64_core(&URL_SAFE_NO_PAD, plain, offset)]
        }));
    }
    forms.retain(|form| form.len() >= Secrets::SHORTEST);
    forms.sort_unstable();
    forms.dedup();
    forms
}

fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// As in addresses (RFC 3986, section 2.3), and as in forms, where a space is a `+`.
fn percent(text: &str, space: &str, hex: fn([u8; 1]) -> String) -> String {
    let mut encoded = String::new();
    for &byte in text.as_bytes() {
        match byte {
            b' ' => encoded.push_str(space),
            byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => encoded.push(char::from(byte)),
            byte => {
                encoded.push('%');
                encoded.push_str(&hex([byte]));
            }
        }
    }
    encoded
}

/// The characters that a text has in Base64 whatever stands around it, where it begins `offset` bytes, modulo 3, into what
/// is encoded.
fn base64_core(engine: &impl Engine, text: &str, offset: usize) -> String {
    let mut bytes = vec![0; offset];
    bytes.extend_from_slice(text.as_bytes());
    let encoded = engine.encode(&bytes);
    let (from, to) = ((offset * 8).div_ceil(6), bytes.len() * 8 / 6);
    encoded.get(from..to).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secrets(values: &[&str]) -> Secrets {
        let named = values.iter().enumerate().map(|(i, value)| (format!("aws:ssm:/{i}"), (*value).to_owned()));
        Secrets::new(named.collect()).unwrap()
    }

    #[test]
    fn what_programs_make_of_a_secret_is_masked() {
        let secrets = secrets(&["p&ss'w \"ör/d+1"]);
        for shown in [
            r#"p=p&ss'w "ör/d+1!"#,
            r#"{"p":"p&ss'w \"ör/d+1"}"#,
            "https://u:p%26ss%27w%20%22%C3%B6r%2Fd%2B1@host/",
            "https://u:p%26ss%27w%20%22%c3%b6r%2fd%2b1@host/",
            "p=p%26ss%27w+%22%C3%B6r%2Fd%2B1&x=y",
            "<p>p&amp;ss&#39;w &quot;ör/d+1</p>",
            r#"+ login 'p&ss'\''w "ör/d+1'"#,
        ] {
            let masked = secrets.mask(shown);
            assert!(masked.contains(MASK) && !masked.contains("ss"), "{masked}");
        }
        assert_eq!(secrets.mask(&hex::encode("p&ss'w \"ör/d+1")), MASK);
        assert_eq!(secrets.mask("nothing"), "nothing");
        assert_eq!(Secrets::default().mask("nothing"), "nothing");
        assert!(!format!("{secrets:?}").contains("ss'w"));
    }

    #[test]
    fn a_key_is_masked_line_by_line() {
        let key = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2Vw\nBCIEIGzR\n-----END PRIVATE KEY-----";
        let secrets = secrets(&[key]);
        let masked: Vec<String> = key.lines().map(|line| secrets.mask(line)).collect();
        assert_eq!(masked, ["-----BEGIN PRIVATE KEY-----", MASK, MASK, "-----END PRIVATE KEY-----"]);
    }

    #[test]
    fn the_longest_secret_goes_first() {
        assert_eq!(secrets(&["secret", "secret-and-more"]).mask("a secret-and-more, a secret"), "a ***, a ***");
    }

    proptest! {
        #[test]
        fn a_secret_within_base64_is_found_wherever_it_stands(
            before in proptest::collection::vec(any::<u8>(), 0..7),
            secret in "[ -~]{8,24}",
            after in proptest::collection::vec(any::<u8>(), 0..7),
        ) {
            let all = [before, secret.clone().into_bytes(), after].concat();
            let secrets = secrets(&[&secret]);
            prop_assert!(secrets.are_in(&STANDARD_NO_PAD.encode(&all)));
            prop_assert!(secrets.are_in(&URL_SAFE_NO_PAD.encode(&all)));
        }

        #[test]
        fn nothing_of_a_secret_is_left_in_a_masked_text(text in "[a-c ]{0,40}", secret in "[a-c]{6,9}") {
            let shown = format!("{text}{secret}{text}");
            prop_assert!(!secrets(&[&secret]).mask(&shown).contains(&secret));
        }
    }
}
