//! `WebDownload`.

use std::time::Duration;

use goldsmith_agent::message::Exit;

use super::{Call, Resolved, Verdict};
use crate::component::courier::WebFile;
use crate::component::kind::Kind;
use crate::guest;
use crate::host::address::shown;

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
        let wanted = match Wanted::read(call, input) {
            Ok(wanted) => wanted,
            Err(problem) => return Ok(Verdict::Failed(problem)),
        };
        if let Err(problem) = fetch(call, &wanted).await? {
            return Ok(Verdict::Failed(format!("{}: {problem}", wanted.file.url)));
        }
        destinations.push(wanted.destination);
    }
    Ok(Verdict::Done(vec![("destination", destinations.join("\n"))]))
}

struct Wanted {
    file: WebFile,
    destination: String,
    overwrite: bool,
}

impl Wanted {
    fn read(call: &Call<'_>, input: &Resolved) -> Result<Self, String> {
        let url = input.required("source").to_owned();
        let mut destination = call.path(input.required("destination"));
        if destination.ends_with('/') {
            destination.push_str(file_name(&url).ok_or_else(|| format!("`{}` names no file", shown(&url)))?);
        }
        let algorithm = input.text("algorithm").and_then(Kind::parse_algorithm);
        let checksum = input.text("checksum").map(|checksum| checksum.trim().to_ascii_lowercase());
        let insecure = input.flag("ignoreCertificateErrors", false);
        let file = WebFile { url, digest: algorithm.zip(checksum), insecure };
        Ok(Self { file, destination, overwrite: input.flag("overwrite", true) })
    }
}

fn file_name(url: &str) -> Option<&str> {
    let path = url.split(['?', '#']).next()?.split_once("://")?.1;
    let (_, name) = path.rsplit_once('/')?;
    (!name.is_empty()).then_some(name)
}

/// Downloads one file, or says why not.
async fn fetch(call: &Call<'_>, wanted: &Wanted) -> Result<Result<(), String>, guest::Error> {
    if let Some(problem) = call.in_the_way(&wanted.destination, wanted.overwrite).await? {
        return Ok(Err(problem));
    }
    let is_there = call.guest.stat(&wanted.destination, true).await?.is_some();
    if is_there && verify(call, wanted, &wanted.destination).await? == Some(true) {
        return Ok(Ok(()));
    }
    call.make_parent(&wanted.destination).await?;
    // Beside its place, so that a file is there only when it is whole and right.
    let partial = format!("{}.part", wanted.destination);
    let mut outcome = Err(String::new());
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(Duration::from_secs(1 << (attempt - 1))).await;
        }
        if call.is_late() {
            outcome = Err(call.timed_out());
            break;
        }
        outcome = attempt_once(call, wanted, &partial).await?;
        if outcome.is_ok() {
            return Ok(call.tool(&["mv", "-fT", "--", &partial, &wanted.destination]).await?.map(drop));
        }
    }
    if call.guest.stat(&partial, false).await?.is_some() {
        call.guest.remove(&partial).await?;
    }
    Ok(outcome)
}

async fn attempt_once(call: &Call<'_>, wanted: &Wanted, partial: &str) -> Result<Result<(), String>, guest::Error> {
    let Some(content) = call.in_time(call.courier.download(&wanted.file)).await else {
        return Ok(Err(call.timed_out()));
    };
    match content {
        Err(problem) => return Ok(Err(problem)),
        Ok(Some(content)) => match call.in_time(call.guest.write(partial, 0o644, content)).await {
            None => return Ok(Err(call.timed_out())),
            Some(Err(guest::Error::Source(error))) => return Ok(Err(error.to_string())),
            Some(written) => written?,
        },
        Ok(None) => {
            let insecure = if wanted.file.insecure { "true" } else { "false" };
            let argv = ["sh", "-c", FETCH, "sh", &wanted.file.url, partial, insecure].map(str::to_owned).into();
            match call.run(argv).await?.exit {
                Exit::Code(0) => {}
                Exit::Code(code) => return Ok(Err(format!("the download failed with exit status {code}"))),
                Exit::Signal(signal) => return Ok(Err(format!("the download was ended by signal {signal}"))),
                Exit::Killed => return Ok(Err(call.timed_out())),
            }
        }
    }
    if verify(call, wanted, partial).await? == Some(false) {
        return Ok(Err("its checksum is not the one that was given".to_owned()));
    }
    Ok(Ok(()))
}

/// Whether a file has the digest that was given, if one was.
async fn verify(call: &Call<'_>, wanted: &Wanted, path: &str) -> Result<Option<bool>, guest::Error> {
    let Some((algorithm, expected)) = &wanted.file.digest else { return Ok(None) };
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
