//! The forms in which a secret may turn up: its parts, and what the common encodings make of them.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use super::Secrets;

/// Shorter lines of a key may occur on disks by chance. They are masked only.
const SHORTEST_LINE: usize = 20;
/// What the first line of every OpenSSH key begins with, and consists of where the key has no passphrase: PROTOCOL.key in
/// OpenSSH's sources, `openssh-key-v1`.
const OPENSSH_KEY: &str = "b3BlbnNzaC1rZXktdjE";
/// Shorter fields of a secret may occur on disks by chance.
const SHORTEST_FIELD: usize = 8;
/// Widths of lines into which `base64`, PEM and `xxd` break what they encode.
const BASE64_WIDTHS: [usize; 2] = [76, 64];
const HEX_WIDTH: usize = 60;
/// A last line of fewer characters says too little to be told from chance.
const SHORTEST_REST: usize = 8;
/// What the names of fields end with whose values nobody may know.
const TELLING: [&str; 9] = ["password", "passwd", "passphrase", "pass", "pwd", "secret", "token", "key", "credential"];

/// What gives a secret away.
#[derive(Debug, Default)]
pub(super) struct Forms {
    /// In logs.
    pub(super) masked: Vec<String>,
    /// Anywhere, also among everything else that a disk holds.
    pub(super) searched: Vec<String>,
}

impl Forms {
    pub(super) fn of(secret: &str) -> Self {
        let mut forms = Self::default();
        forms.add(secret, true);
        forms.add(secret.trim(), true);
        forms.add_all(broken(&STANDARD_NO_PAD.encode(secret), &BASE64_WIDTHS), true);
        forms.add_all(broken(&hex::encode(secret), &[HEX_WIDTH]), true);
        forms.add_all(broken(&hex::encode_upper(secret), &[HEX_WIDTH]), true);
        // Logs are masked line by line.
        for (line, is_of_key) in lines(secret) {
            forms.add(line, is_of_key && line.len() >= SHORTEST_LINE && !line.starts_with(OPENSSH_KEY));
        }
        if let Ok(value) = serde_json::from_str::<serde_json::Value>(secret) {
            fields(&value, false, &mut |text, is_telling| forms.add(text, is_telling && text.len() >= SHORTEST_FIELD));
        }
        for list in [&mut forms.masked, &mut forms.searched] {
            list.sort_unstable();
            list.dedup();
        }
        forms
    }

    /// Adds a part of a secret, in all encodings.
    fn add(&mut self, part: &str, is_searched: bool) {
        if part.len() >= Secrets::SHORTEST {
            self.add_all(encodings(part), is_searched);
        }
    }

    fn add_all(&mut self, forms: Vec<String>, is_searched: bool) {
        let forms = forms.into_iter().filter(|form| form.len() >= Secrets::SHORTEST);
        let forms: Vec<String> = forms.collect();
        if is_searched {
            self.searched.extend_from_slice(&forms);
        }
        self.masked.extend(forms);
    }
}

/// Lines of a secret that are secret, each with whether it is one of a key's in PEM (RFC 7468): neither what PEM puts around
/// a key, nor a block that is public.
fn lines(secret: &str) -> Vec<(&str, bool)> {
    let is_base64 = |line: &str| line.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
    let mut secrets = Vec::new();
    let (mut is_public, mut is_key) = (false, false);
    for line in secret.lines().map(str::trim) {
        if let Some(label) = line.strip_prefix("-----BEGIN ") {
            is_public = label.contains("CERTIFICATE") || label.contains("PUBLIC KEY");
            is_key = !is_public;
        } else if line.starts_with("-----END ") {
            (is_public, is_key) = (false, false);
        } else if !is_public && line.len() < secret.len() {
            secrets.push((line, is_key && is_base64(line)));
        }
    }
    secrets
}

/// The texts in a value, each with whether the name of its field says that nobody may know it.
fn fields(value: &serde_json::Value, is_telling: bool, found: &mut impl FnMut(&str, bool)) {
    match value {
        serde_json::Value::String(text) => found(text, is_telling),
        serde_json::Value::Array(items) => items.iter().for_each(|item| fields(item, is_telling, found)),
        serde_json::Value::Object(map) => {
            for (name, value) in map {
                let name = name.to_lowercase();
                let name = name.strip_suffix('s').filter(|name| !name.ends_with("pas")).unwrap_or(&name);
                let is_telling = !name.contains("public") && TELLING.iter().any(|word| name.ends_with(word));
                fields(value, is_telling, found);
            }
        }
        _ => {}
    }
}

/// An encoded text in lines; none if it fits into one.
fn broken(encoded: &str, widths: &[usize]) -> Vec<String> {
    let in_lines = |&width: &usize| {
        let rows = encoded.as_bytes().chunks(width).filter(|row| row.len() >= SHORTEST_REST);
        rows.map(|row| String::from_utf8_lossy(row).into_owned())
    };
    widths.iter().filter(|&&width| encoded.len() > width).flat_map(in_lines).collect()
}

/// What the common encodings make of a text, and the text itself.
fn encodings(text: &str) -> Vec<String> {
    let mut forms = vec![text.to_owned(), hex::encode(text), hex::encode_upper(text)];
    forms.extend(
        (0..3).flat_map(|offset| {
            [base64_core(&STANDARD_NO_PAD, text, offset), base64_core(&URL_SAFE_NO_PAD, text, offset)]
        }),
    );
    forms.extend(json(text));
    forms.extend(xml(text));
    forms.extend(shell(text));
    forms.extend(percent(text));
    forms
}

fn replaced(text: &str, replace: impl Fn(char) -> Option<String>) -> String {
    let mut new = String::with_capacity(text.len());
    for character in text.chars() {
        match replace(character) {
            Some(other) => new.push_str(&other),
            None => new.push(character),
        }
    }
    new
}

/// RFC 8259, section 7: what has to be escaped, and what encoders escape besides: slashes (PHP), all but ASCII (Python), and
/// what means something to HTML (Go, Ruby on Rails, .NET).
fn json(text: &str) -> Vec<String> {
    let quoted = serde_json::to_string(text).unwrap_or_default();
    let Some(plain) = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return Vec::new() };
    let unit = |character: char, upper: bool| -> String {
        let mut units = [0; 2];
        let units = character.encode_utf16(&mut units).iter();
        units.map(|unit| if upper { format!("\\u{unit:04X}") } else { format!("\\u{unit:04x}") }).collect()
    };
    let mut forms = vec![plain.to_owned(), plain.replace('/', r"\/")];
    for upper in [false, true] {
        let ascii = replaced(plain, |character| (!character.is_ascii()).then(|| unit(character, upper)));
        let html = |text: &str| replaced(text, |character| "<>&".contains(character).then(|| unit(character, upper)));
        let all = |text: &str| replaced(&html(text), |character| (character == '\'').then(|| unit(character, upper)));
        let pluses = |text: &str| replaced(text, |character| "'+`".contains(character).then(|| unit(character, upper)));
        let quotes = |text: &str| text.replace(r#"\""#, &unit('"', upper));
        forms.extend([html(plain), all(plain), quotes(&all(plain)), ascii.replace('/', r"\/")]);
        forms.extend([html(&ascii), all(&ascii), quotes(&all(&ascii)), quotes(&pluses(&html(&ascii))), ascii]);
    }
    forms
}

/// XML 1.0, section 2.4, with the names and numbers that serialisers choose for quotes.
fn xml(text: &str) -> Vec<String> {
    let content = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut forms = vec![content.clone()];
    for double in ["&quot;", "&#34;", "&#x22;"] {
        let quoted = content.replace('"', double);
        forms.extend(["&#39;", "&#x27;", "&apos;", "&#039;"].map(|single| quoted.replace('\'', single)));
        forms.push(quoted);
    }
    forms
}

/// As words of a shell: single quotes, in the two ways to write one within them; double quotes; backslashes, as little as
/// needed and as bash's `printf %q` does.
fn shell(text: &str) -> Vec<String> {
    let escaped =
        |special: &str| replaced(text, |character| special.contains(character).then(|| format!("\\{character}")));
    vec![
        text.replace('\'', r"'\''"),
        text.replace('\'', r#"'"'"'"#),
        escaped("\"$`\\"),
        escaped("\"'\\ "),
        escaped(" \t!\"$&'()*,;<>?[\\]^`{|}"),
    ]
}

/// As in addresses (RFC 3986, section 2.3), as in forms, where a space is a `+`, and with what encoders leave besides:
/// slashes (Python's `quote`), and marks (JavaScript's `encodeURIComponent`).
fn percent(text: &str) -> Vec<String> {
    let mut forms = Vec::new();
    for kept in ["", "/", "!*'()"] {
        for space in ["%20", "+"] {
            for hex in [hex::encode_upper::<[u8; 1]>, hex::encode::<[u8; 1]>] {
                let mut encoded = String::new();
                for &byte in text.as_bytes() {
                    match byte {
                        b' ' => encoded.push_str(space),
                        byte if byte.is_ascii_alphanumeric()
                            || b"-._~".contains(&byte)
                            || kept.as_bytes().contains(&byte) =>
                        {
                            encoded.push(char::from(byte));
                        }
                        byte => {
                            encoded.push('%');
                            encoded.push_str(&hex([byte]));
                        }
                    }
                }
                forms.push(encoded);
            }
        }
    }
    forms
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
