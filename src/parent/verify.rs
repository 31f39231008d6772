//! What a publisher vouches for.
//!
//! A checksum file is fetched over HTTPS; where the publisher signs it, its OpenPGP signature (RFC 9580), detached or in
//! clear text, is checked against the keys pinned in the base image before a digest is taken from it.

use pgp::composed::{CleartextSignedMessage, Deserializable, DetachedSignature, SignedPublicKey};

use super::{Error, checksum, download};
use crate::document::base_image::{Digest, Signature};
use crate::host::address::Address;

/// A list of digests has at most a few hundred lines.
const MAX_LIST: usize = 1 << 20;

/// The digest that a publisher gives the file at `url`.
pub(super) async fn published_digest(
    url: &Address,
    list_url: &Address,
    signature: Option<&Signature>,
) -> Result<Digest, Error> {
    let list = download::fetch_small(list_url, MAX_LIST).await?;
    let refused = |why: String| Error::Verification { url: list_url.clone(), why };
    let text = match signature {
        None => String::from_utf8(list).map_err(|_| refused("it is no text".to_owned()))?,
        Some(signature) => {
            let detached = match &signature.url {
                Some(url) => Some(download::fetch_small(&url.value, MAX_LIST).await?),
                None => None,
            };
            proven_text(&list, detached.as_deref(), &signature.keys.value).map_err(refused)?
        }
    };
    let name = url.file_name();
    checksum::find(&text, name).ok_or_else(|| refused(format!("it does not list `{name}`")))
}

/// The part of a document that a signature of one of the keys covers, or why there is none.
fn proven_text(document: &[u8], detached: Option<&[u8]>, keys: &str) -> Result<String, String> {
    let keys = pinned_keys(keys)?;
    let no_key = "its signature is not by a key pinned in the base image, or it was changed after signing";
    match detached {
        Some(signature) => {
            let signatures = detached_signatures(signature)?;
            let is_good = signatures.iter().any(|signature| {
                keys.iter().any(|key| {
                    signature.verify(key, document).is_ok()
                        || key.public_subkeys.iter().any(|subkey| signature.verify(subkey, document).is_ok())
                })
            });
            let text = String::from_utf8(document.to_vec()).map_err(|_| "it is no text".to_owned())?;
            if is_good { Ok(text) } else { Err(no_key.to_owned()) }
        }
        None => {
            let text = std::str::from_utf8(document).map_err(|_| "it is no text".to_owned())?;
            let (message, _) = CleartextSignedMessage::from_string(text.trim_start())
                .map_err(|error| format!("it is not signed in clear text: {error}"))?;
            let is_good = keys.iter().any(|key| {
                message.verify(key).is_ok() || key.public_subkeys.iter().any(|subkey| message.verify(subkey).is_ok())
            });
            // What stands around the signed part is anybody's.
            if is_good { Ok(message.signed_text().replace("\r\n", "\n")) } else { Err(no_key.to_owned()) }
        }
    }
}

fn pinned_keys(armored: &str) -> Result<Vec<SignedPublicKey>, String> {
    let unusable = |error: pgp::errors::Error| format!("the keys pinned in the base image can't be read: {error}");
    let (keys, _) = SignedPublicKey::from_armor_many(armored.as_bytes()).map_err(unusable)?;
    let keys = keys.collect::<Result<Vec<_>, _>>().map_err(unusable)?;
    if keys.is_empty() { Err("no key is pinned in the base image".to_owned()) } else { Ok(keys) }
}

fn detached_signatures(bytes: &[u8]) -> Result<Vec<DetachedSignature>, String> {
    let unusable = |error: pgp::errors::Error| format!("its signature can't be read: {error}");
    if bytes.starts_with(b"-----BEGIN") {
        let (signatures, _) = DetachedSignature::from_armor_many(bytes).map_err(unusable)?;
        return signatures.collect::<Result<_, _>>().map_err(unusable);
    }
    DetachedSignature::from_bytes_many(bytes).map_err(unusable)?.collect::<Result<_, _>>().map_err(unusable)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::*;

    /// GnuPG is the oracle: keys and signatures in these tests are its work.
    struct GnuPg(tempfile::TempDir);

    impl GnuPg {
        fn new(user: &str, algorithm: &str) -> Self {
            let gpg = Self(tempfile::tempdir().unwrap());
            let parameters =
                format!("%no-protection\nKey-Type: {algorithm}\nName-Real: {user}\nExpire-Date: 0\n%commit\n");
            let file = gpg.0.path().join("parameters");
            fs_err::write(&file, parameters).unwrap();
            gpg.run(&["--generate-key", file.to_str().unwrap()]);
            gpg
        }

        fn run(&self, arguments: &[&str]) -> Vec<u8> {
            let output = Command::new("gpg")
                .args(["--batch", "--quiet", "--yes", "--homedir"])
                .arg(self.0.path())
                .args(arguments)
                .stderr(Stdio::inherit())
                .output()
                .unwrap();
            assert!(output.status.success(), "{arguments:?}");
            output.stdout
        }

        fn public_key(&self) -> String {
            String::from_utf8(self.run(&["--armor", "--export"])).unwrap()
        }

        fn sign(&self, text: &str, how: &[&str]) -> Vec<u8> {
            let file = self.0.path().join("text");
            fs_err::write(&file, text).unwrap();
            let arguments: Vec<&str> = [&["--output", "-"], how, &[file.to_str().unwrap()]].concat();
            self.run(&arguments)
        }
    }

    impl Drop for GnuPg {
        fn drop(&mut self) {
            stop_agent(self.0.path());
        }
    }

    fn stop_agent(home: &Path) {
        let _gone = Command::new("gpgconf").arg("--homedir").arg(home).args(["--kill", "all"]).status();
    }

    const LIST: &str = "aaaa  disk.qcow2\n- dash\nbbbb  other \n";

    #[test]
    fn signatures_made_by_gnupg_are_checked() {
        let publisher = GnuPg::new("Publisher", "RSA");
        let stranger = GnuPg::new("Stranger", "EDDSA\nKey-Curve: ed25519");
        let both = publisher.public_key() + &stranger.public_key();
        for how in [&["--detach-sign"][..], &["--detach-sign", "--armor"]] {
            let signature = publisher.sign(LIST, how);
            let check = |text: &str, keys: &str| proven_text(text.as_bytes(), Some(&signature), keys);
            assert_eq!(check(LIST, &publisher.public_key()).unwrap(), LIST);
            assert_eq!(check(LIST, &both).unwrap(), LIST);
            assert!(check(LIST, &stranger.public_key()).unwrap_err().contains("not by a key pinned"));
            assert!(check(&LIST.replace("aaaa", "aaab"), &publisher.public_key()).is_err());
        }
        let clear = String::from_utf8(stranger.sign(LIST, &["--clear-sign"])).unwrap();
        let check = |text: &str, keys: &str| proven_text(text.as_bytes(), None, keys);
        let proven = check(&clear, &stranger.public_key()).unwrap();
        assert!(proven.contains("aaaa  disk.qcow2\n- dash\n"), "{proven}");
        assert!(check(&clear, &publisher.public_key()).is_err());
        assert!(check(&clear.replace("aaaa", "aaab"), &stranger.public_key()).is_err());
        assert!(check(LIST, &stranger.public_key()).unwrap_err().contains("not signed in clear text"));
        // Lines in front of the signed part prove nothing, whatever becomes of the rest.
        let smuggled = format!("cccc  disk.qcow2\n{clear}");
        assert!(!check(&smuggled, &stranger.public_key()).unwrap_or_default().contains("cccc"));
    }

    #[test]
    fn keys_pinned_in_shipped_base_images_are_the_publishers() {
        use pgp::types::KeyDetails;
        let expected = [
            ("almalinux-9", "bf18ac2876178908d6e71267d36cb86cb86b3716"),
            ("fedora", "36f612dcf27f7d1a48a835e4dbfcf71c6d9f90a6"),
            ("ubuntu-24.04", "d2eb44626fddc30b513d5bb71a5d6c4c7db87c81"),
        ];
        for (name, fingerprint) in expected {
            let source = crate::document::shipped::find_base_image(name).unwrap();
            let base: serde_yaml::Value = serde_yaml::from_str(&source.text).unwrap();
            let keys = pinned_keys(base["signature"]["keys"].as_str().unwrap()).unwrap();
            let found: Vec<String> = keys.iter().map(|key| key.fingerprint().to_string().to_lowercase()).collect();
            assert_eq!(found, [fingerprint], "{name}");
        }
    }

    #[test]
    fn unreadable_keys_and_signatures_are_refused() {
        assert!(proven_text(b"x", Some(b"junk"), "no key").is_err());
        assert!(proven_text(b"x", None, "").is_err());
    }
}
