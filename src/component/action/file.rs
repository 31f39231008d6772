//! `CreateFile`, `CopyFile`, `DeleteFile`.

use goldsmith_agent::message::Kind;

use super::folder::UMASK;
use super::{Call, Resolved, Verdict, expand};
use crate::document::recipe::octal;
use crate::guest::{self, Guest};

/// Writes files, with the folders above them.
pub(super) async fn create(call: &Call<'_>) -> Result<Verdict, guest::Error> {
    for input in call.inputs {
        let path = input.required("path");
        let (overwrite, content) = match (input.flag("overwrite", true), content(input)) {
            (Ok(overwrite), Ok(content)) => (overwrite, content),
            (Err(problem), _) | (_, Err(problem)) => return Ok(Verdict::Failed(problem)),
        };
        if !overwrite && call.guest.stat(path, true).await?.is_some() {
            return Ok(Verdict::Failed(format!("{path} is there already, and overwrite is false")));
        }
        let permissions = input.text("permissions").unwrap_or("0666");
        let Some(mode) = octal(permissions) else {
            return Ok(Verdict::Failed(format!("`{permissions}` is no mode")));
        };
        make_parent(call.guest, path).await?;
        call.guest.write(path, mode & !UMASK, &content[..]).await?;
        if input.text("permissions").is_some() {
            // A file that was there has its old ones.
            call.guest.set_mode(path, mode & !UMASK).await?;
        }
        give(call.guest, path, input).await?;
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

async fn make_parent(guest: &Guest, path: &str) -> Result<(), guest::Error> {
    match path.rsplit_once('/') {
        Some((folder, _)) if !folder.is_empty() => guest.make_folder(folder, None).await,
        _ => Ok(()),
    }
}

/// The content in its encoding, without a byte order mark.
fn content(input: &Resolved) -> Result<Vec<u8>, String> {
    let text = input.text("content").unwrap_or_default();
    let encoding = input.text("encoding").unwrap_or("utf8").to_ascii_lowercase();
    match encoding.as_str() {
        "utf8" | "utf-8" => Ok(text.as_bytes().to_vec()),
        "utf16" | "utf-16" | "utf16-le" | "utf-16-le" => Ok(text.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        "utf16-be" | "utf-16-be" => Ok(text.encode_utf16().flat_map(u16::to_be_bytes).collect()),
        "utf32" | "utf-32" | "utf32-le" | "utf-32-le" => {
            Ok(text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect())
        }
        "utf32-be" | "utf-32-be" => Ok(text.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect()),
        _ => Err(format!("`{encoding}` is no encoding: utf8, utf16 or utf32 is, the latter two with -LE or -BE")),
    }
}

/// Copies files, with their permissions, into folders that are made if need be.
pub(super) async fn copy(call: &Call<'_>) -> Result<Verdict, guest::Error> {
    for input in call.inputs {
        let (source, destination) = (input.required("source"), input.required("destination"));
        let overwrite = match input.flag("overwrite", true) {
            Ok(overwrite) => overwrite,
            Err(problem) => return Ok(Verdict::Failed(problem)),
        };
        let files = expand(call.guest, source).await?;
        if files.is_empty() {
            return Ok(Verdict::Failed(format!("nothing matches {source}")));
        }
        let into_folder = destination.ends_with('/');
        if files.len() > 1 && !into_folder {
            let problem = format!("{source} means several files, so the destination has to be a folder and end in /");
            return Ok(Verdict::Failed(problem));
        }
        for file in files {
            let name = file.rsplit('/').next().unwrap_or(&file);
            let target = if into_folder { format!("{destination}{name}") } else { destination.to_owned() };
            if !overwrite && call.guest.stat(&target, true).await?.is_some() {
                return Ok(Verdict::Failed(format!("{target} is there already, and overwrite is false")));
            }
            make_parent(call.guest, &target).await?;
            call.guest.copy(&file, &target).await?;
        }
    }
    Ok(Verdict::NOTHING)
}

/// Deletes files. One that is named and not there is an error; a pattern that matches nothing is not.
pub(super) async fn delete(call: &Call<'_>) -> Result<Verdict, guest::Error> {
    for input in call.inputs {
        let path = input.required("path");
        if call.guest.stat(path, false).await?.is_some_and(|stat| stat.kind == Kind::Folder) {
            return Ok(Verdict::Failed(format!("{path} is a folder")));
        }
        for file in expand(call.guest, path).await? {
            call.guest.remove(&file).await?;
        }
    }
    Ok(Verdict::NOTHING)
}
