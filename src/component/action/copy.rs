//! `CopyFile`, `MoveFile`, `CopyFolder`, `MoveFolder`.

use goldsmith_agent::message::Kind;

use super::{Call, Resolved, Verdict, base_name, expand};
use crate::guest;

/// Copies files, with their permissions.
pub(super) async fn copy_files(call: &Call<'_>) -> Result<Verdict, guest::Error> {
    each(call, Kind::File, What::Copy).await
}

/// Moves files.
pub(super) async fn move_files(call: &Call<'_>) -> Result<Verdict, guest::Error> {
    each(call, Kind::File, What::Move).await
}

/// Copies folders with all that is in them. What a folder already holds and the source does not is left alone.
pub(super) async fn copy_folders(call: &Call<'_>) -> Result<Verdict, guest::Error> {
    each(call, Kind::Folder, What::Copy).await
}

/// Moves folders; into one that is there as copies are made.
pub(super) async fn move_folders(call: &Call<'_>) -> Result<Verdict, guest::Error> {
    each(call, Kind::Folder, What::Move).await
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Copy,
    Move,
}

async fn each(call: &Call<'_>, kind: Kind, what: What) -> Result<Verdict, guest::Error> {
    for input in call.inputs {
        let pairs = match pairs(call, input, kind).await? {
            Ok(pairs) => pairs,
            Err(problem) => return Ok(Verdict::Failed(problem)),
        };
        for (from, to) in pairs {
            call.make_parent(&to).await?;
            let done = match (kind, what) {
                (Kind::Folder, What::Copy) => merge(call, &from, &to).await?,
                (Kind::Folder, What::Move) => move_folder(call, &from, &to).await?,
                (_, What::Copy) => call.guest.copy(&from, &to).await.map(Ok)?,
                (_, What::Move) => rename(call, &from, &to).await?,
            };
            if let Err(problem) = done {
                return Ok(Verdict::Failed(problem));
            }
        }
    }
    Ok(Verdict::NOTHING)
}

async fn rename(call: &Call<'_>, from: &str, to: &str) -> Result<Result<(), String>, guest::Error> {
    Ok(call.tool(&["mv", "-fT", "--", from, to]).await?.map(drop))
}

async fn merge(call: &Call<'_>, from: &str, to: &str) -> Result<Result<(), String>, guest::Error> {
    call.guest.make_folder(to, None).await?;
    Ok(call.tool(&["cp", "-a", "--", &format!("{from}/."), to]).await?.map(drop))
}

async fn move_folder(call: &Call<'_>, from: &str, to: &str) -> Result<Result<(), String>, guest::Error> {
    if call.guest.stat(to, false).await?.is_none() {
        return rename(call, from, to).await;
    }
    match merge(call, from, to).await? {
        Ok(()) => Ok(call.tool(&["rm", "-rf", "--", from]).await?.map(drop)),
        problem => Ok(problem),
    }
}

/// What goes where: a destination with a slash at its end is a folder that what goes there keeps its name in.
async fn pairs(
    call: &Call<'_>,
    input: &Resolved,
    kind: Kind,
) -> Result<Result<Vec<(String, String)>, String>, guest::Error> {
    let (source, destination) = (call.path(input.required("source")), call.path(input.required("destination")));
    let found = expand(call.guest, source.trim_end_matches('/'), kind).await?;
    let into_folder = destination.ends_with('/');
    if found.is_empty() {
        return Ok(Err(format!("nothing matches {source}")));
    }
    if found.len() > 1 && !into_folder {
        return Ok(Err(format!("{source} means several, so the destination has to be a folder and end in /")));
    }
    let mut pairs = Vec::new();
    for from in found {
        match call.guest.stat(&from, true).await? {
            None => return Ok(Err(format!("{from} is not there"))),
            Some(stat) if stat.kind != kind => {
                let other = if kind == Kind::File { "file" } else { "folder" };
                return Ok(Err(format!("{from} is no {other}")));
            }
            Some(_) => {}
        }
        let to = if into_folder { format!("{destination}{}", base_name(&from)) } else { destination.clone() };
        if let Some(problem) = call.in_the_way(&to, input.flag("overwrite", true)).await? {
            return Ok(Err(problem));
        }
        pairs.push((from, to));
    }
    Ok(Ok(pairs))
}
