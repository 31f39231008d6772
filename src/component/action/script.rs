//! `ExecuteBash` and `ExecuteBinary`.

use super::{Call, Verdict};
use crate::guest;

/// All commands go into one script in a private folder, so that variables, `cd` and functions of one are there for the
/// next and the last one's status counts, as on EC2.
pub(super) async fn execute_bash(call: &Call<'_>) -> Result<Verdict, guest::Error> {
    let text = call.input().texts("commands").join("\n") + "\n";
    let place = match call.site.secrets.are_in(&text) {
        false => call.site.working_directory.clone(),
        true => call.guest.memory_folder(),
    };
    let folder = format!("{place}/goldsmith-{}", uuid::Uuid::new_v4().simple());
    let script = format!("{folder}/script.sh");
    call.guest.make_folder(&folder, Some(0o700)).await?;
    call.guest.write(&script, 0o600, text.as_bytes()).await?;
    let ended = call.run(vec!["bash".to_owned(), script.clone()]).await;
    // A full disk may keep the files from being removed, and is then the script's failure anyhow.
    if ended.is_ok() {
        for path in [&script, &folder] {
            if let Err(error) = call.guest.remove(path).await {
                tracing::debug!(%error, path, "a step's script stays");
            }
        }
    }
    Ok(call.judge(ended?))
}

/// The program itself, without a shell.
pub(super) async fn execute_binary(call: &Call<'_>) -> Result<Verdict, guest::Error> {
    let input = call.input();
    let mut argv = vec![input.required("path").to_owned()];
    argv.extend_from_slice(input.texts("arguments"));
    let ended = call.run(argv).await?;
    Ok(call.judge(ended))
}
