//! `SetFileOwner`, `SetFilePermissions`, `SetFolderOwner`, `SetFolderPermissions`.

use goldsmith_agent::message::Kind;

use super::{Call, Resolved, Verdict};
use crate::guest;

/// Sets owner and group of files.
pub(super) async fn of_files(call: &Call<'_>) -> Result<Verdict, guest::Error> {
    each(call, Kind::File, "chown", owner).await
}

/// Sets owner and group of folders.
pub(super) async fn of_folders(call: &Call<'_>) -> Result<Verdict, guest::Error> {
    each(call, Kind::Folder, "chown", owner).await
}

/// Sets permissions of files.
pub(super) async fn permissions_of_files(call: &Call<'_>) -> Result<Verdict, guest::Error> {
    each(call, Kind::File, "chmod", permissions).await
}

/// Sets permissions of folders.
pub(super) async fn permissions_of_folders(call: &Call<'_>) -> Result<Verdict, guest::Error> {
    each(call, Kind::Folder, "chmod", permissions).await
}

/// With nothing behind the colon, chown(1) takes the user's own group.
fn owner(input: &Resolved) -> String {
    format!("{}:{}", input.required("owner"), input.text("group").unwrap_or_default())
}

fn permissions(input: &Resolved) -> String {
    input.required("permissions").trim_start_matches("0o").to_owned()
}

async fn each(call: &Call<'_>, kind: Kind, tool: &str, what: fn(&Resolved) -> String) -> Result<Verdict, guest::Error> {
    for input in call.inputs {
        let path = call.path(input.required("path"));
        match call.guest.stat(&path, true).await? {
            None => return Ok(Verdict::Failed(format!("{path} is not there"))),
            Some(stat) if (stat.kind == Kind::Folder) != (kind == Kind::Folder) => {
                let what = if kind == Kind::Folder { "no folder" } else { "a folder" };
                return Ok(Verdict::Failed(format!("{path} is {what}")));
            }
            Some(_) => {}
        }
        let what = what(input);
        let recursive = kind == Kind::Folder && input.flag("recursive", true);
        let mut argv = vec![tool];
        argv.extend(recursive.then_some("-R"));
        argv.extend(["--", &what, &path]);
        if let Err(problem) = call.tool(&argv).await? {
            return Ok(Verdict::Failed(problem));
        }
    }
    Ok(Verdict::NOTHING)
}
