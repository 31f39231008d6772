//! `CreateFolder`.

use super::file::give;
use super::{Call, Verdict};
use crate::document::recipe::octal;
use crate::guest;

/// Makes folders. One that is there keeps its content: the guide's "truncated or overwritten" is not taken at its word.
pub(super) async fn create(call: &Call<'_>) -> Result<Verdict, guest::Error> {
    for input in call.inputs {
        let path = input.required("path");
        let overwrite = match input.flag("overwrite", true) {
            Ok(overwrite) => overwrite,
            Err(problem) => return Ok(Verdict::Failed(problem)),
        };
        if !overwrite && call.guest.stat(path, true).await?.is_some() {
            return Ok(Verdict::Failed(format!("{path} is there already, and overwrite is false")));
        }
        let permissions = input.text("permissions").unwrap_or("0777");
        let Some(mode) = octal(permissions) else {
            return Ok(Verdict::Failed(format!("`{permissions}` is no mode")));
        };
        call.guest.make_folder(path, Some(mode & !UMASK)).await?;
        give(call.guest, path, input).await?;
    }
    Ok(Verdict::NOTHING)
}

/// What root's programs leave out of new permissions.
pub(super) const UMASK: u32 = 0o022;
