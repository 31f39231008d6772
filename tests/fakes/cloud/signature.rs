//! Signature version 4: the signature of a request is computed anew from the secret key and compared.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::http::Request;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// What the hash of a body that is not signed is replaced by.
pub(super) const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// What a request says of its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) key: String,
    pub(super) date: String,
    pub(super) region: String,
    pub(super) service: String,
    pub(super) signed: Vec<String>,
    pub(super) signature: String,
}

impl Claim {
    /// Reads `Authorization`.
    pub(super) fn of(authorization: &str) -> Option<Self> {
        let fields = authorization.strip_prefix(ALGORITHM)?.trim();
        let (mut credential, mut signed, mut signature) = (None, None, None);
        for field in fields.split(',') {
            match field.trim().split_once('=')? {
                ("Credential", value) => credential = Some(value),
                ("SignedHeaders", value) => signed = Some(value),
                ("Signature", value) => signature = Some(value),
                _ => return None,
            }
        }
        // An access key holds no slash.
        let parts: Vec<&str> = credential?.split('/').collect();
        let [key, date, region, service, "aws4_request"] = parts[..] else { return None };
        Some(Self {
            key: key.to_owned(),
            date: date.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
            signed: signed?.split(';').map(str::to_owned).collect(),
            signature: signature?.to_owned(),
        })
    }

    /// The headers that have to be signed and are not: the host, and whatever AWS gives a meaning.
    pub(super) fn unsigned_header<'a>(&self, mut names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
        let is_signed = |name: &str| self.signed.iter().any(|signed| signed == name);
        let is_meant = |name: &str| name == "host" || name.starts_with("x-amz-") && name != "x-amz-user-agent";
        names.find(|name| is_meant(name) && !is_signed(name))
    }

    /// What the signature has to be.
    pub(super) fn expected(&self, request: &Request, secret: &str, body_hash: &str) -> String {
        let canonical = self.canonical(request, body_hash);
        let scope = format!("{}/{}/{}/aws4_request", self.date, self.region, self.service);
        let at = request.header("x-amz-date").unwrap_or_default();
        let text = format!("{ALGORITHM}\n{at}\n{scope}\n{}", hash(canonical.as_bytes()));
        let mut key = hmac(format!("AWS4{secret}").as_bytes(), &self.date);
        for part in [&*self.region, &self.service, "aws4_request"] {
            key = hmac(&key, part);
        }
        hex::encode(hmac(&key, &text))
    }

    fn canonical(&self, request: &Request, body_hash: &str) -> String {
        let mut headers = String::new();
        for name in &self.signed {
            let values = request.headers.iter().filter(|(known, _)| known == name);
            let values: Vec<String> = values.map(|(_, value)| squeeze(value)).collect();
            headers.push_str(&format!("{name}:{}\n", values.join(",")));
        }
        // Every service but S3 encodes a path that is encoded already once more.
        let path: Vec<String> = request.path.split('/').map(encode).collect();
        format!(
            "{}\n{}\n{}\n{headers}\n{}\n{body_hash}",
            request.method,
            path.join("/"),
            canonical_query(&request.query),
            self.signed.join(";"),
        )
    }
}

/// A value without spaces around it, and with one where several are.
fn squeeze(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn canonical_query(query: &str) -> String {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let mut pairs: Vec<(String, String)> = pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (encode(&decode(name)), encode(&decode(value)))
        })
        .collect();
    pairs.sort();
    let pairs: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

/// Percent-encodes as signatures want it: all but letters, digits and four signs.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for &byte in text.as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Takes percent-encoding off. What is no encoding stays as it is.
pub(super) fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%').then(|| bytes.get(at + 1..at + 3)).flatten();
        match escaped.and_then(|digits| hex::decode(digits).ok()) {
            Some(byte) => {
                decoded.extend(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// SHA-256 in hexadecimal digits.
pub(super) fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, path: &str, query: &str, headers: &[(&str, &str)], body: &str) -> Request {
        Request {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            body: body.to_owned().into(),
        }
    }

    fn signature(request: &Request, service: &str, signed: &str) -> String {
        let scope = format!("AKIDEXAMPLE/20150830/us-east-1/{service}/aws4_request");
        let text = format!("{ALGORITHM} Credential={scope}, SignedHeaders={signed}, Signature=0");
        let claim = Claim::of(&text).unwrap();
        claim.expected(request, "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", &hash(&request.body))
    }

    /// The signatures are AWS's: the example of its General Reference, and three of its test suite.
    #[test]
    fn published_examples_have_their_published_signatures() {
        let date = ("x-amz-date", "20150830T123600Z");
        let iam =
            [("content-type", "application/x-www-form-urlencoded; charset=utf-8"), ("host", "iam.amazonaws.com"), date];
        let listed = request("GET", "/", "Action=ListUsers&Version=2010-05-08", &iam, "");
        assert_eq!(
            signature(&listed, "iam", "content-type;host;x-amz-date"),
            "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
        );
        let host = ("host", "example.amazonaws.com");
        let signed = "host;x-amz-date";
        let vanilla = request("GET", "/", "", &[host, date], "");
        assert_eq!(
            signature(&vanilla, "service", signed),
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
        );
        let posted = request("POST", "/", "", &[host, date], "");
        assert_eq!(
            signature(&posted, "service", signed),
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"
        );
        let ordered = request("GET", "/", "Param2=value2&Param1=value1", &[host, date], "");
        assert_eq!(
            signature(&ordered, "service", signed),
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"
        );
    }

    #[test]
    fn what_is_no_signature_is_none() {
        let good = "AWS4-HMAC-SHA256 Credential=K/20150830/r/ec2/aws4_request, SignedHeaders=host, Signature=ab";
        assert!(Claim::of(good).is_some());
        for bad in [
            "Basic abc",
            "AWS4-HMAC-SHA256 Credential=K/20150830/r/ec2/aws4_request, SignedHeaders=host",
            "AWS4-HMAC-SHA256 Credential=K/20150830/r/ec2, SignedHeaders=host, Signature=ab",
            "AWS4-HMAC-SHA256 Credential=K/20150830/r/ec2/aws4_request, SignedHeaders=host, Signature=ab, More=1",
        ] {
            assert_eq!(Claim::of(bad), None, "{bad}");
        }
    }

    #[test]
    fn headers_with_a_meaning_have_to_be_signed() {
        let claim = Claim::of(
            "AWS4-HMAC-SHA256 Credential=K/20150830/r/ec2/aws4_request, SignedHeaders=host;x-amz-date, Signature=ab",
        );
        let claim = claim.unwrap();
        let plain = ["host", "x-amz-date", "accept", "x-amz-user-agent"];
        assert_eq!(claim.unsigned_header(plain.into_iter()), None);
        let token = ["host", "x-amz-date", "x-amz-security-token"];
        assert_eq!(claim.unsigned_header(token.into_iter()), Some("x-amz-security-token"));
    }

    #[test]
    fn encoding_is_taken_off_again() {
        for text in ["", "a b+c/d=e&f%", "é€", "~-._"] {
            assert_eq!(decode(&encode(text)), text);
        }
        assert_eq!(encode("a b/ü~"), "a%20b%2F%C3%BC~");
        assert_eq!(decode("100%"), "100%");
    }
}
