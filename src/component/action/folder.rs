//! `CreateFolder`, `DeleteFolder`, `ListFiles`.

use goldsmith_agent::message::Kind;

use super::{Call, Resolved, Verdict, base_name, matches};
use crate::document::recipe::octal;
use crate::guest::{self, Guest};

/// What root's programs leave out of new permissions.
pub(super) const UMASK: u32 = 0o022;

/// Makes folders. One that is there keeps its content: the guide's "truncated or overwritten" is not taken at its word.
pub(super) async fn create(call: &Call<'_>) -> Result<Verdict, guest::Error> {
    for input in call.inputs {
        let path = call.path(input.required("path"));
        if let Some(problem) = call.in_the_way(&path, input.flag("overwrite", true)).await? {
            return Ok(Verdict::Failed(problem));
        }
        let mode = octal(input.text("permissions").unwrap_or("0777")).unwrap_or(0o777);
        call.guest.make_folder(&path, Some(mode & !UMASK)).await?;
        if input.text("permissions").is_some() {
            // A folder that was there has its old ones.
            call.guest.set_mode(&path, mode & !UMASK).await?;
        }
        give(call.guest, &path, input).await?;
    }
    Ok(Verdict::NOTHING)
}

/// Gives a file or folder to whom the inputs say.
pub(super) async fn give(guest: &Guest, path: &str, input: &Resolved) -> Result<(), guest::Error> {
    match (input.text("owner"), input.text("group")) {
        (None, None) => Ok(()),
        (owner, group) => guest.set_owner(path, owner, group).await,
    }
}

/// Deletes folders; one that is not empty only if that is forced.
pub(super) async fn delete(call: &Call<'_>) -> Result<Verdict, guest::Error> {
    for input in call.inputs {
        let path = call.path(input.required("path"));
        match call.guest.stat(&path, false).await? {
            None => return Ok(Verdict::Failed(format!("{path} is not there"))),
            Some(stat) if stat.kind != Kind::Folder => {
                return Ok(Verdict::Failed(format!("{path} is no folder; DeleteFile deletes files")));
            }
            Some(_) => {}
        }
        if !input.flag("force", false) {
            call.guest.remove(&path).await?;
        } else if let Err(problem) = call.tool(&["rm", "-rf", "--", &path]).await? {
            return Ok(Verdict::Failed(problem));
        }
    }
    Ok(Verdict::NOTHING)
}

/// Lists files, by their whole paths, separated by commas.
pub(super) async fn list(call: &Call<'_>) -> Result<Verdict, guest::Error> {
    let mut found = Vec::new();
    for input in call.inputs {
        let path = call.path(input.required("path"));
        if !call.guest.stat(&path, true).await?.is_some_and(|stat| stat.kind == Kind::Folder) {
            return Ok(Verdict::Failed(format!("{path} is no folder")));
        }
        let pattern = input.text("fileNamePattern").filter(|pattern| !pattern.is_empty()).unwrap_or("*");
        match files_below(call, &path, input.flag("recursive", false)).await? {
            Ok(files) => found.extend(files.into_iter().filter(|file| matches(pattern, base_name(file)))),
            Err(problem) => return Ok(Verdict::Failed(problem)),
        }
    }
    Ok(Verdict::Done(vec![("files", found.join(","))]))
}

/// Files in a folder, and if asked for in those below, in the order of their names.
pub(super) async fn files_below(
    call: &Call<'_>,
    folder: &str,
    recursive: bool,
) -> Result<Result<Vec<String>, String>, guest::Error> {
    // With a slash at its end, `find` looks into what a link leads to.
    let start = format!("{}/", folder.trim_end_matches('/'));
    let depth = if recursive { "64" } else { "1" };
    let listed = call.tool(&["find", &start, "-mindepth", "1", "-maxdepth", depth, "-type", "f", "-print0"]).await?;
    Ok(listed.map(|listed| {
        let names = listed.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        let mut names: Vec<String> = names.map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        names.sort_unstable();
        names
    }))
}
