//! `S3Download` and `S3Upload`. The bytes go through the host, which has the credentials.

use futures_util::StreamExt;
use goldsmith_agent::message::Kind;

use super::folder::files_below;
use super::{Call, Resolved, Verdict, base_name, expand};
use crate::component::courier::{Object, Outgoing};
use crate::component::kind;
use crate::guest::{self, Guest};

/// Most objects that one download brings.
const MAX_OBJECTS: usize = 1000;

fn object(input: &Resolved, name: &str) -> Object {
    let (bucket, key) = kind::object(input.required(name)).unwrap_or_default();
    let owner = input.text("expectedBucketOwner").map(str::to_owned);
    Object { bucket: bucket.to_owned(), key: key.to_owned(), owner }
}

/// Downloads objects, in order. What has arrived stays when a later one does not.
pub(super) async fn download(call: &Call<'_>) -> Result<Verdict, guest::Error> {
    for input in call.inputs {
        let source = object(input, "source");
        let destination = call.path(input.required("destination"));
        let overwrite = input.flag("overwrite", true);
        if source.key.is_empty() || source.key.ends_with('/') {
            let source = input.required("source");
            return Ok(Verdict::Failed(format!("{source} names no object; all below it are meant by `*` at the end")));
        }
        let fetched = match source.key.strip_suffix('*') {
            Some(prefix) => {
                let prefix = Object { key: prefix.to_owned(), ..source.clone() };
                fetch_all(call, &prefix, &destination, overwrite).await?
            }
            None => {
                let place = place_of(call.guest, &destination, &source.key).await?;
                fetch(call, &source, &place, overwrite).await?
            }
        };
        if let Err(problem) = fetched {
            return Ok(Verdict::Failed(format!("{}: {problem}", input.required("source"))));
        }
    }
    Ok(Verdict::NOTHING)
}

/// Where one file goes: into a folder under its own name.
async fn place_of(guest: &Guest, destination: &str, key: &str) -> Result<String, guest::Error> {
    let is_folder = destination.ends_with('/')
        || guest.stat(destination, true).await?.is_some_and(|stat| stat.kind == Kind::Folder);
    let folder = destination.trim_end_matches('/');
    Ok(if is_folder { format!("{folder}/{}", base_name(key)) } else { destination.to_owned() })
}

async fn fetch_all(
    call: &Call<'_>,
    prefix: &Object,
    destination: &str,
    overwrite: bool,
) -> Result<Result<(), String>, guest::Error> {
    let listed = call.in_time(call.courier.list(prefix, MAX_OBJECTS)).await;
    let keys = match listed.unwrap_or_else(|| Err(call.timed_out())) {
        Ok(keys) if keys.is_empty() => return Ok(Err("there is no such object".to_owned())),
        Ok(keys) if keys.len() > MAX_OBJECTS => return Ok(Err(format!("there are more than {MAX_OBJECTS} objects"))),
        Ok(keys) => keys,
        Err(problem) => return Ok(Err(problem)),
    };
    // Of `a/b*` the folder is `a/`.
    let above = prefix.key.rfind('/').map_or(0, |slash| slash + 1);
    for key in keys {
        let Some(name) = key.get(above..).filter(|name| is_inside(name)) else {
            return Ok(Err(format!("the object `{key}` has no name that a file could have")));
        };
        // Consoles mark folders by empty objects of such names.
        if name.is_empty() || name.ends_with('/') {
            continue;
        }
        let place = format!("{}/{name}", destination.trim_end_matches('/'));
        let wanted = Object { key: key.clone(), ..prefix.clone() };
        if let Err(problem) = fetch(call, &wanted, &place, overwrite).await? {
            return Ok(Err(format!("{key}: {problem}")));
        }
    }
    Ok(Ok(()))
}

/// Whether a relative path stays where it begins.
fn is_inside(name: &str) -> bool {
    !name.starts_with('/') && !name.split('/').any(|part| part == "..")
}

async fn fetch(
    call: &Call<'_>,
    wanted: &Object,
    place: &str,
    overwrite: bool,
) -> Result<Result<(), String>, guest::Error> {
    if let Some(problem) = call.in_the_way(place, overwrite).await? {
        return Ok(Err(problem));
    }
    match call.in_time(call.courier.get(wanted)).await.unwrap_or_else(|| Err(call.timed_out())) {
        Ok(content) => call.put(place, content).await,
        Err(problem) => Ok(Err(problem)),
    }
}

/// Uploads files, in order. What has arrived stays when a later one does not.
pub(super) async fn upload(call: &Call<'_>) -> Result<Verdict, guest::Error> {
    for input in call.inputs {
        let destination = object(input, "destination");
        let source = call.path(input.required("source"));
        let files = match outgoing(call, &source, input.flag("recurse", false)).await? {
            Ok(files) => files,
            Err(problem) => return Ok(Verdict::Failed(problem)),
        };
        // The one file that was named, and not the only one in a folder.
        let is_one = matches!(files.as_slice(), [(path, _)] if *path == source.trim_end_matches('/'));
        for (path, name) in files {
            let key = match destination.key.trim_end_matches('/') {
                "" => name,
                key if is_one && key == destination.key => key.to_owned(),
                prefix => format!("{prefix}/{name}"),
            };
            let to = Object { key, ..destination.clone() };
            let put = call.in_time(call.courier.put(&to, content(call.guest, &path))).await;
            if let Err(problem) = put.unwrap_or_else(|| Err(call.timed_out())) {
                return Ok(Verdict::Failed(format!("{path}: {problem}")));
            }
        }
    }
    Ok(Verdict::NOTHING)
}

/// Files to upload, and what each is called below the destination.
async fn outgoing(
    call: &Call<'_>,
    source: &str,
    recurse: bool,
) -> Result<Result<Vec<(String, String)>, String>, guest::Error> {
    let source = source.trim_end_matches('/');
    let is_pattern = base_name(source).contains('*');
    let stat = if is_pattern { None } else { call.guest.stat(source, true).await? };
    let mut files = Vec::new();
    let folders = match stat.map(|stat| stat.kind) {
        Some(Kind::Folder) if recurse => vec![(source.to_owned(), String::new())],
        Some(Kind::Folder) => return Ok(Err(format!("{source} is a folder, and recurse is false"))),
        Some(_) => return Ok(Ok(vec![(source.to_owned(), base_name(source).to_owned())])),
        None if !is_pattern => return Ok(Err(format!("{source} is not there"))),
        None => {
            let found = expand(call.guest, source, Kind::File).await?;
            files.extend(found.into_iter().map(|path| (path.clone(), base_name(&path).to_owned())));
            let folders = if recurse { expand(call.guest, source, Kind::Folder).await? } else { Vec::new() };
            folders.into_iter().map(|path| (path.clone(), format!("{}/", base_name(&path)))).collect()
        }
    };
    for (folder, above) in folders {
        match files_below(call, &folder, true).await? {
            Ok(found) => files.extend(found.into_iter().map(|path| {
                let name = path.strip_prefix(&folder).unwrap_or(&path).trim_start_matches('/').to_owned();
                (path, format!("{above}{name}"))
            })),
            Err(problem) => return Ok(Err(problem)),
        }
    }
    if files.is_empty() {
        return Ok(Err(format!("nothing matches {source}")));
    }
    Ok(Ok(files))
}

/// A file's bytes, a piece at a time.
fn content<'a>(guest: &'a Guest, path: &'a str) -> Outgoing<'a> {
    futures_util::stream::try_unfold(0, move |offset| async move {
        let piece = guest.read_piece(path, offset).await.map_err(std::io::Error::other)?;
        let next = offset + piece.len() as u64;
        Ok((!piece.is_empty()).then_some((piece, next)))
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_objects_do_not_lead_out_of_a_folder() {
        assert!(is_inside("a/b..c/d"));
        for name in ["../a", "a/../../b", "/a", ".."] {
            assert!(!is_inside(name), "{name}");
        }
    }
}
