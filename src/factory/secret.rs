//! Getting secrets: from the environment, files, commands, and from AWS where that is asked for.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use fs_err as fs;
use goldsmith_aws::Aws;
use tokio::io::AsyncReadExt;

use super::plan::Given;
use super::{Error, Factory};
use crate::check::inspector::Secret;
use crate::component::Secrets;
use crate::document::secret::SecretSource;
use crate::guest::site::Site;

/// How long a command may take: somebody may have to touch a key, or type a password.
const COMMAND_DEADLINE: Duration = Duration::from_secs(120);
/// The region whose Parameter Store is asked, where nobody has named one.
const FIRST_REGION: &str = "us-east-1";
/// What stands before the name of a stored parameter in a reference.
const STORED: &str = "aws:ssm:";

impl Factory {
    /// The values of secrets, by the references that stand for them.
    pub(super) async fn secrets(&self, sources: &BTreeMap<String, SecretSource>) -> Result<Secrets, Error> {
        let mut values = BTreeMap::new();
        for (reference, source) in sources {
            let value = tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(Error::Interrupted),
                value = secret_value(source) => value.and_then(checked),
            };
            let value = value.map_err(|why| Error::Host {
                what: format!("the secret `{}` can't be had from {source}: {why}", name(reference)),
                mend: "give it again: `--secret NAME=env:VARIABLE`, `file:PATH` or `cmd:COMMAND`".to_owned(),
            })?;
            values.insert(reference.clone(), value);
        }
        Secrets::new(values).map_err(|error| Error::Host {
            what: format!("the secrets are too many or too long to be looked for: {error}"),
            mend: "give fewer".to_owned(),
        })
    }

    /// Asks AWS's Parameter Store for references that nobody has given a value. What is stored as a SecureString is a secret.
    pub async fn ask_aws(&self, missing: &[String], given: &mut Given) -> Result<(), Error> {
        let aws = Aws::connect(self.endpoints.clone()).await;
        let region = aws.region(&aws.default_region().unwrap_or_else(|| FIRST_REGION.to_owned()));
        for reference in missing {
            let Some(name) = reference.strip_prefix(STORED) else { continue };
            let stored = region.stored_value(name).await;
            let failed = |what: String| Error::Host {
                what: format!("`{{{{ {reference} }}}}` can't be looked up in {}: {what}", region.name),
                mend: format!("give it a value: `--reference {reference}=VALUE`"),
            };
            let stored = stored.map_err(|error| failed(crate::host::one_line(&error)))?;
            let (value, is_secret) = stored.ok_or_else(|| failed("there is no such parameter".to_owned()))?;
            match is_secret {
                true => given.secrets.push((reference.clone(), SecretSource::Value(value))),
                false => given.references.push((reference.clone(), value)),
            }
        }
        Ok(())
    }
}

/// What people call a secret.
pub(super) fn name(reference: &str) -> &str {
    reference.strip_prefix(STORED).unwrap_or(reference).trim_start_matches('/')
}

/// What must not be found on a disk of a site's that was given secrets, and what to call it.
pub(super) fn traces(site: &Site, secrets: &Secrets) -> Vec<Secret> {
    let of_site = site.traces().into_iter().map(|trace| Secret { name: trace.to_owned(), value: trace.to_owned() });
    let of_secrets = secrets.needles().map(|(needle, reference)| Secret {
        name: format!("the secret `{}`", name(reference)),
        value: needle.to_owned(),
    });
    of_site.chain(of_secrets).collect()
}

/// A secret's value, as long as it may be, without the line break at its end.
pub async fn secret_value(source: &SecretSource) -> Result<String, String> {
    get(source).await.map(without_line_break)
}

async fn get(source: &SecretSource) -> Result<String, String> {
    match source {
        SecretSource::Variable(name) => std::env::var(name).map_err(|error| error.to_string()),
        SecretSource::File(path) => {
            let file = fs::tokio::File::open(path).await.map_err(|error| error.to_string())?;
            read(file).await
        }
        SecretSource::Command(command) => {
            let ran = tokio::time::timeout(COMMAND_DEADLINE, run(command)).await;
            ran.map_err(|_| format!("the command takes more than {} s", COMMAND_DEADLINE.as_secs()))?
        }
        SecretSource::Value(value) => Ok(value.clone()),
    }
}

async fn run(command: &str) -> Result<String, String> {
    // What it asks or complains of is for the user.
    let mut shell = tokio::process::Command::new("sh");
    shell.args(["-c", command]).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = shell.spawn().map_err(|error| error.to_string())?;
    let output = child.stdout.take().ok_or("the command has no output")?;
    let value = read(output).await?;
    let status = child.wait().await.map_err(|error| error.to_string())?;
    if status.success() { Ok(value) } else { Err(format!("the command ended with {status}")) }
}

async fn read(from: impl tokio::io::AsyncRead + Unpin) -> Result<String, String> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(Secrets::LONGEST).unwrap_or(u64::MAX) + 3;
    // Two of these may be a line break, which is not part of the secret.
    from.take(limit).read_to_end(&mut bytes).await.map_err(|error| error.to_string())?;
    if bytes.len() > Secrets::LONGEST + 2 {
        return Err(too_long());
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
}

fn without_line_break(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

fn checked(value: String) -> Result<String, String> {
    match value.len() {
        0..Secrets::SHORTEST => Err(format!(
            "it has fewer than {} bytes, and could be neither masked in logs nor looked for on the disk",
            Secrets::SHORTEST
        )),
        length if length > Secrets::LONGEST => Err(too_long()),
        _ => Ok(value),
    }
}

fn too_long() -> String {
    format!("it has more than {} KiB", Secrets::LONGEST >> 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn got(source: &str) -> Result<String, String> {
        get(&source.parse().unwrap()).await.map(without_line_break).and_then(checked)
    }

    #[tokio::test]
    async fn secrets_come_from_where_the_user_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "of a file\r\n").unwrap();
        assert_eq!(got(&format!("file:{}", path.display())).await.unwrap(), "of a file");
        assert_eq!(got("cmd:printf 'of a %s\\n\\n' command").await.unwrap(), "of a command\n");
        assert_eq!(got("env:CARGO_PKG_NAME").await.unwrap(), "goldsmith");
    }

    #[tokio::test]
    async fn what_can_not_be_had_is_said_and_what_was_had_is_not() {
        insta::assert_snapshot!(got("env:GOLDSMITH_NOT_THERE").await.unwrap_err(), @"environment variable not found");
        insta::assert_snapshot!(got("cmd:echo hunter22; exit 3").await.unwrap_err(), @"the command ended with exit status: 3");
        insta::assert_snapshot!(got("cmd:printf short").await.unwrap_err(), @"it has fewer than 6 bytes, and could be neither masked in logs nor looked for on the disk");
        insta::assert_snapshot!(got("cmd:head -c 100000 /dev/zero | tr '\\0' x; true").await.unwrap_err(), @"it has more than 64 KiB");
        insta::assert_snapshot!(got("cmd:head -c 65537 /dev/zero | tr '\\0' x; true").await.unwrap_err(), @"it has more than 64 KiB");
        assert_eq!(got("cmd:head -c 65536 /dev/zero | tr '\\0' x; echo").await.unwrap().len(), Secrets::LONGEST);
        insta::assert_snapshot!(got("cmd:yes ü | head -c 65540 | tr -d '\\n'; yes ü | tr -d '\\n' | head -c 90000; true").await.unwrap_err(), @"it has more than 64 KiB");
        insta::assert_snapshot!(got("cmd:printf '\\377\\376hunter22'").await.unwrap_err(), @"it is not UTF-8");
    }
}
