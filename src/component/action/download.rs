//! `WebDownload`.

use std::time::Duration;

use goldsmith_agent::message::{Algorithm, Exit};

use super::{Call, Resolved, Verdict};
use crate::guest;

/// Attempts of one download, whatever the step's own attempts; between them 1, 2, 4 and 8 seconds.
const ATTEMPTS: u32 = 5;

/// `$1` address, `$2` file, `$3` whether to take any certificate. The guest's own client, so that its trust store and
/// proxy count: one of these three is in every cloud image. Any answer but 200, redirects followed, is an error.
const FETCH: &str = r#"
if command -v curl >/dev/null; then
  test "$3" = true && insecure=--insecure
  status=$(curl --silent --show-error --location $insecure --output "$2" --write-out '%{http_code}' -- "$1") || exit
  if [ "$status" != 200 ]; then echo "the server answers $status" >&2; exit 22; fi
elif command -v wget >/dev/null; then
  test "$3" = true && insecure=--no-check-certificate
  exec wget --quiet --tries=1 $insecure --output-document="$2" -- "$1"
elif command -v python3 >/dev/null; then
  exec python3 - "$1" "$2" "$3" <<'END'
import shutil, ssl, sys, urllib.request
context = ssl._create_unverified_context() if sys.argv[3] == "true" else None
with urllib.request.urlopen(sys.argv[1], context=context) as answer, open(sys.argv[2], "wb") as file:
    if answer.status != 200:
        sys.exit("the server answers %d" % answer.status)
    shutil.copyfileobj(answer, file)
END
else
  echo "neither curl, wget nor python3 is installed" >&2
  exit 127
fi
"#;

/// Downloads files, in order.
pub(super) async fn web_download(call: &Call<'_>) -> Result<Verdict, guest::Error> {
    let mut destinations = Vec::new();
    for input in call.inputs {
        let wanted = match Wanted::read(input) {
            Ok(wanted) => wanted,
            Err(problem) => return Ok(Verdict::Failed(problem)),
        };
        if let Err(problem) = fetch(call, &wanted).await? {
            return Ok(Verdict::Failed(format!("{}: {problem}", wanted.source)));
        }
        destinations.push(wanted.destination);
    }
    Ok(Verdict::Done(vec![("destination", destinations.join("\n"))]))
}

struct Wanted {
    source: String,
    destination: String,
    overwrite: bool,
    digest: Option<(Algorithm, String)>,
    insecure: bool,
}

impl Wanted {
    fn read(input: &Resolved) -> Result<Self, String> {
        let source = input.required("source").to_owned();
        if !source.starts_with("http://") && !source.starts_with("https://") {
            return Err(format!("`{source}` is neither an http nor an https address"));
        }
        let mut destination = input.required("destination").to_owned();
        if destination.ends_with('/') {
            destination.push_str(file_name(&source).ok_or_else(|| format!("`{source}` names no file"))?);
        }
        let digest = match (input.text("checksum"), input.text("algorithm")) {
            (Some(checksum), Some(algorithm)) => Some((digest_algorithm(algorithm)?, checksum.to_ascii_lowercase())),
            _ => None,
        };
        Ok(Self {
            source,
            destination,
            overwrite: input.flag("overwrite", true)?,
            digest,
            insecure: input.flag("ignoreCertificateErrors", false)?,
        })
    }
}

fn digest_algorithm(name: &str) -> Result<Algorithm, String> {
    match name.to_ascii_uppercase().as_str() {
        "MD5" => Ok(Algorithm::Md5),
        "SHA1" => Ok(Algorithm::Sha1),
        "SHA256" => Ok(Algorithm::Sha256),
        "SHA512" => Ok(Algorithm::Sha512),
        _ => Err(format!("`algorithm` is MD5, SHA1, SHA256 or SHA512, not `{name}`")),
    }
}

fn file_name(url: &str) -> Option<&str> {
    let path = url.split(['?', '#']).next()?.split_once("://")?.1;
    let (_, name) = path.rsplit_once('/')?;
    (!name.is_empty()).then_some(name)
}

/// Downloads one file, or says why not.
async fn fetch(call: &Call<'_>, wanted: &Wanted) -> Result<Result<(), String>, guest::Error> {
    let is_there = call.guest.stat(&wanted.destination, true).await?.is_some();
    if is_there && !wanted.overwrite {
        return Ok(Err(format!("{} is there already, and overwrite is false", wanted.destination)));
    }
    if is_there && verify(call, wanted, &wanted.destination).await? == Some(true) {
        return Ok(Ok(()));
    }
    if let Some((folder, _)) = wanted.destination.rsplit_once('/').filter(|(folder, _)| !folder.is_empty()) {
        call.guest.make_folder(folder, None).await?;
    }
    // Beside its place, so that a file is there only when it is whole and right.
    let partial = format!("{}.part", wanted.destination);
    let mut outcome = Err(String::new());
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(Duration::from_secs(1 << (attempt - 1))).await;
        }
        outcome = attempt_once(call, wanted, &partial).await?;
        if outcome.is_ok() {
            call.run(["mv", "-f", "--", &partial, &wanted.destination].map(str::to_owned).into()).await?;
            return Ok(Ok(()));
        }
    }
    if call.guest.stat(&partial, false).await?.is_some() {
        call.guest.remove(&partial).await?;
    }
    Ok(outcome)
}

async fn attempt_once(call: &Call<'_>, wanted: &Wanted, partial: &str) -> Result<Result<(), String>, guest::Error> {
    let insecure = if wanted.insecure { "true" } else { "false" };
    let argv = ["sh", "-c", FETCH, "sh", &wanted.source, partial, insecure].map(str::to_owned).into();
    match call.run(argv).await?.exit {
        Exit::Code(0) => {}
        Exit::Code(code) => return Ok(Err(format!("the download failed with exit status {code}"))),
        Exit::Signal(signal) => return Ok(Err(format!("the download was ended by signal {signal}"))),
        Exit::Killed => return Ok(Err(call.timed_out())),
    }
    if verify(call, wanted, partial).await? == Some(false) {
        return Ok(Err("its checksum is not the one that was given".to_owned()));
    }
    Ok(Ok(()))
}

/// Whether a file has the digest that was given, if one was.
async fn verify(call: &Call<'_>, wanted: &Wanted, path: &str) -> Result<Option<bool>, guest::Error> {
    let Some((algorithm, expected)) = &wanted.digest else { return Ok(None) };
    Ok(Some(call.guest.digest(path, *algorithm).await? == *expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gets_the_file_under_its_own_name() {
        assert_eq!(file_name("https://x.example/a/b.tar.gz?token=1/2"), Some("b.tar.gz"));
        assert_eq!(file_name("https://x.example/"), None);
        assert_eq!(file_name("https://x.example"), None);
    }

    #[test]
    fn the_script_is_valid_shell() {
        let status = std::process::Command::new("sh").args(["-n", "-c", FETCH]).status().unwrap();
        assert!(status.success());
    }
}
