//! `DeleteFile`, `CreateSymlink`.

use goldsmith_agent::message::Kind;

use super::{Call, Verdict, expand};
use crate::component::values::absolute;
use crate::guest;

/// Deletes files. One that is named and not there is an error; a pattern that matches nothing is not.
pub(super) async fn delete(call: &Call<'_>) -> Result<Verdict, guest::Error> {
    for input in call.inputs {
        let path = call.path(input.required("path"));
        if call.guest.stat(&path, false).await?.is_some_and(|stat| stat.kind == Kind::Folder) {
            return Ok(Verdict::Failed(format!("{path} is a folder; DeleteFolder deletes those")));
        }
        for file in expand(call.guest, &path, Kind::File).await? {
            call.guest.remove(&file).await?;
        }
    }
    Ok(Verdict::NOTHING)
}

/// Makes symbolic links to what is there.
pub(super) async fn link(call: &Call<'_>) -> Result<Verdict, guest::Error> {
    for input in call.inputs {
        let (path, target) = (call.path(input.required("path")), input.required("target"));
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        if call.guest.stat(&absolute(folder, target), true).await?.is_none() {
            return Ok(Verdict::Failed(format!("{target} is not there, so no link to it is made")));
        }
        match call.guest.stat(&path, false).await? {
            Some(stat) if stat.kind != Kind::Link => {
                return Ok(Verdict::Failed(format!("{path} is there already, and is no link")));
            }
            Some(_) if !input.flag("force", false) => {
                return Ok(Verdict::Failed(format!("{path} is there already, and force is false")));
            }
            _ => {}
        }
        call.make_parent(&path).await?;
        if let Err(problem) = call.tool(&["ln", "-sfn", "--", target, &path]).await? {
            return Ok(Verdict::Failed(problem));
        }
    }
    Ok(Verdict::NOTHING)
}
