//! Values that must not be shown, and must not stay: in whatever a program may have made of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};

use forms::Forms;

mod forms;

/// What stands for a secret.
const MASK: &str = "***";

/// Secrets that steps are given, by the references that stand for them.
///
/// A program may print or keep a secret in another form than it was given: as part of an address, of JSON or XML, of an
/// `Authorization` header; or only a part of it: a line, a field. So the common encodings and the parts are masked and
/// looked for as well. What a guest compresses, encrypts or hashes is not recognised.
#[derive(Clone, Default)]
pub struct Secrets(Arc<Inner>);

#[derive(Default)]
struct Inner {
    values: BTreeMap<String, String>,
    /// What gives a secret away wherever it stands, and the reference of that secret.
    needles: Vec<(String, String)>,
    /// Of the longest text that is masked, in bytes.
    longest: usize,
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
        let (mut masked, mut needles) = (Vec::new(), Vec::new());
        for (reference, value) in &values {
            let forms = Forms::of(value);
            masked.extend(forms.masked);
            needles.extend(forms.searched.into_iter().map(|form| (form, reference.clone())));
        }
        let finder = if masked.is_empty() {
            None
        } else {
            Some(AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&masked)?)
        };
        let longest = masked.iter().map(String::len).max().unwrap_or(0);
        Ok(Self(Arc::new(Inner { values, needles, longest, finder })))
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

    /// How many bytes have to follow a place for [`Self::cut`] to see every secret that begins before it, in bytes.
    pub fn reach(&self) -> usize {
        self.0.longest.saturating_sub(1)
    }

    /// Where to cut bytes that are masked in pieces: at a place, or behind the secret that the place would divide.
    pub fn cut(&self, bytes: &[u8], at: usize) -> usize {
        let Some(finder) = &self.0.finder else { return at };
        let divided = finder.find_iter(bytes).take_while(|found| found.start() < at).find(|found| found.end() > at);
        divided.map_or(at, |found| found.end())
    }

    /// What gives a secret away, each with the reference of that secret.
    pub fn needles(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.needles.iter().map(|(form, reference)| (form.as_str(), reference.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
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
            r#"login 'p&ss'"'"'w "ör/d+1'"#,
            r#"p&ss\'w\ \"ör/d+1"#,
            r#"p\&ss\'w\ \"ör/d+1"#,
            r#""p&ss'w \"ör\/d+1""#,
            r#""p&ss'w \"\u00f6r/d+1""#,
            r#""p&ss'w \"\u00F6r\/d+1""#,
            r#""p\u0026ss'w \"ör/d+1""#,
            r#""p\u0026ss\u0027w \u0022ör/d+1""#,
            r#""p\u0026ss\u0027w \u0022\u00F6r/d\u002B1""#,
            "<p>p&amp;ss'w \"ör/d+1</p>",
            "<p>p&amp;ss&#x27;w &quot;ör/d+1</p>",
            "<p>p&amp;ss&apos;w &quot;ör/d+1</p>",
            "<p>p&amp;ss&#39;w &#34;ör/d+1</p>",
            "/p%26ss%27w%20%22%C3%B6r/d%2B1",
            "?p%26ss'w%20%22%C3%B6r%2Fd%2B1",
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
    fn what_everybody_may_know_of_a_secret_is_not_looked_for() {
        let bundle = "-----BEGIN CERTIFICATE-----\nMIIBtjCCAVugAwIBAgITBmyf\n-----END CERTIFICATE-----\n\
            -----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIGzR\n-----END PRIVATE KEY-----\nuser=admin\n\
            -----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ\n-----END OPENSSH PRIVATE KEY-----\n";
        let secrets = secrets(&[bundle]);
        let needles: Vec<&str> = secrets.needles().map(|(needle, _)| needle).collect();
        assert!(needles.contains(&"MC4CAQAwBQYDK2VwBCIEIGzR") && needles.contains(&bundle));
        assert!(!needles.contains(&"MIIBtjCCAVugAwIBAgITBmyf") && !needles.contains(&"user=admin"));
        assert!(!needles.iter().any(|needle| needle.starts_with("b3BlbnNzaC1rZXktdjE")));
        assert_eq!(secrets.mask("MIIBtjCCAVugAwIBAgITBmyf"), "MIIBtjCCAVugAwIBAgITBmyf");
        assert_eq!(secrets.mask("user=admin"), MASK);
    }

    #[test]
    fn fields_of_a_secret_in_json_are_masked_and_those_that_tell_are_looked_for() {
        let secrets = secrets(&[
            r#"{"username":"postgres","password":"hunter22","more":[{"apiToken":"abcdefgh","token_type":"Bearer-x","publicKey":"AAAAC3Nz"}],"port":5432}"#,
        ]);
        assert_eq!(secrets.mask("psql postgres:hunter22@db:5432 abcdefgh"), "psql ***:***@db:5432 ***");
        let needles: Vec<&str> = secrets.needles().map(|(needle, _)| needle).collect();
        assert!(needles.contains(&"hunter22") && needles.contains(&"abcdefgh") && !needles.contains(&"postgres"));
        assert!(!needles.contains(&"Bearer-x") && !needles.contains(&"AAAAC3Nz"));
    }

    #[test]
    fn a_long_secret_is_masked_where_an_encoding_has_broken_it_into_lines() {
        let long: String = (0..200_u8).map(|i| char::from(b'!' + i.wrapping_mul(37) % 90)).collect();
        let secrets = secrets(&[&long]);
        let lines = |text: String, width: usize| -> Vec<String> {
            text.as_bytes().chunks(width).map(|line| secrets.mask(&String::from_utf8_lossy(line))).collect()
        };
        for (text, width) in [(STANDARD.encode(&long), 76), (STANDARD.encode(&long), 64), (hex::encode(&long), 60)] {
            let masked = lines(text, width);
            assert!(masked.iter().all(|line| line.trim_end_matches('=') == MASK), "{masked:?}");
        }
    }

    #[test]
    fn a_secret_is_never_divided() {
        let secrets = secrets(&["hunter22"]);
        let text = b"a hunter22 b";
        let cuts: Vec<usize> = (0..=text.len()).map(|at| secrets.cut(text, at)).collect();
        assert_eq!(cuts, [0, 1, 2, 10, 10, 10, 10, 10, 10, 10, 10, 11, 12]);
        assert_eq!(Secrets::default().cut(text, 5), 5);
    }

    #[test]
    fn a_line_break_at_its_end_hides_no_secret() {
        let secrets = secrets(&["hunter22\n"]);
        assert_eq!(secrets.mask("hunter22"), MASK);
        assert!(secrets.needles().any(|(needle, _)| needle == "hunter22"));
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
