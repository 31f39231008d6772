//! Text in files: `CreateFile`, `AppendFile`, `ReadFile`, `SetFileEncoding`.

use goldsmith_agent::message::Stream;

use super::folder::{UMASK, give};
use super::{Call, Resolved, STDOUT_LIMIT, Verdict};
use crate::component::encoding::Encoding;
use crate::document::recipe::octal;
use crate::guest;

/// Largest file whose encoding is changed, in bytes: all of it is in memory meanwhile.
const MAX_CONVERTED: usize = 64 << 20;

fn encoding(input: &Resolved) -> Encoding {
    input.text("encoding").and_then(Encoding::find).unwrap_or(Encoding::Utf8)
}

fn content(input: &Resolved) -> Vec<u8> {
    encoding(input).encode(input.text("content").unwrap_or_default())
}

/// Writes files, with the folders above them.
pub(super) async fn create(call: &Call<'_>) -> Result<Verdict, guest::Error> {
    for input in call.inputs {
        let path = call.path(input.required("path"));
        if let Some(problem) = call.in_the_way(&path, input.flag("overwrite", true)).await? {
            return Ok(Verdict::Failed(problem));
        }
        let mode = octal(input.text("permissions").unwrap_or("0666")).unwrap_or(0o666);
        call.make_parent(&path).await?;
        call.guest.write(&path, mode & !UMASK, &content(input)[..]).await?;
        if input.text("permissions").is_some() {
            // A file that was there has its old ones.
            call.guest.set_mode(&path, mode & !UMASK).await?;
        }
        give(call.guest, &path, input).await?;
    }
    Ok(Verdict::NOTHING)
}

/// Adds text to files that are there.
pub(super) async fn append(call: &Call<'_>) -> Result<Verdict, guest::Error> {
    for input in call.inputs {
        call.guest.append(&call.path(input.required("path")), &content(input)).await?;
    }
    Ok(Verdict::NOTHING)
}

/// Reads files. What is in them is shown only if that is asked for.
pub(super) async fn read(call: &Call<'_>) -> Result<Verdict, guest::Error> {
    let mut contents = Vec::new();
    for input in call.inputs {
        let path = call.path(input.required("path"));
        let Some(text) = encoding(input).decode(&call.guest.read(&path, STDOUT_LIMIT).await?) else {
            let encoding = input.text("encoding").unwrap_or("utf8");
            return Ok(Verdict::Failed(format!("{path}: the file is not text in {encoding}")));
        };
        if input.flag("printFileContent", false) {
            (call.output)(Stream::Stdout, text.as_bytes());
        }
        contents.push(text);
    }
    Ok(Verdict::Done(vec![("content", contents.join("\n"))]))
}

/// Changes the encoding of files from UTF-8.
pub(super) async fn set_encoding(call: &Call<'_>) -> Result<Verdict, guest::Error> {
    for input in call.inputs {
        let path = call.path(input.required("path"));
        let Some(text) = Encoding::Utf8.decode(&call.guest.read(&path, MAX_CONVERTED).await?) else {
            return Ok(Verdict::Failed(format!("{path}: the file is not text in utf8")));
        };
        // A file that is there keeps its permissions.
        call.guest.write(&path, 0o644, &encoding(input).encode(&text)[..]).await?;
    }
    Ok(Verdict::NOTHING)
}
