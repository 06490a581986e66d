//! `/files/replace`: text in files, of any size, replaced while it is copied.
//!
//! The new file appears whole, with the mode of the old one; a file without the text is not
//! touched. Code that writes to the file at the same time may lose what it writes.

use super::paths::{Query, at, note, resolve};
use super::walk::refusal;
use super::{InSandbox, Writer};
use crate::app::App;
use crate::dialects::opensandbox::error::Failure;
use crate::error::ApiError;
use crate::extract::{JsonBody, PathArgs};
use crate::file_stream::{OpenFile, pieces};
use crate::host::{Upload, UploadSpec, Within};
use crate::sandboxes::LiveSandbox;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt;
use memchr::memmem::Finder;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

/// Largest file that is looked through.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Longest text that is looked for, and longest that takes its place.
const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Goes to the sandbox when so much has come together.
const PIECE_BYTES: usize = 120 * 1024;

#[derive(Debug, Deserialize)]
pub(super) struct Replacement {
    old: String,
    new: String,
}

#[derive(Debug, Serialize)]
struct Replaced {
    #[serde(rename = "replacedCount")]
    count: u64,
}

pub(super) async fn replace(
    State(app): State<App>,
    caller: Writer,
    PathArgs(InSandbox { id }): PathArgs<InSandbox>,
    query: Query,
    body: JsonBody<BTreeMap<String, Replacement>>,
) -> Result<Response, Failure> {
    let verbose = matches!(query.get("verbose"), Some("true" | "1"));
    let live = app.live_sandbox(&caller, &id).await?;
    let (asked, replacements): (Vec<_>, Vec<_>) = body.value.into_iter().unzip();
    for replacement in &replacements {
        check(replacement)?;
    }
    let paths = resolve(&live, asked.clone()).await?;
    let bytes_max = app.disk_bytes_of(&live);
    let _work = live.work();
    let mut counts = BTreeMap::new();
    for ((asked, path), replacement) in asked.into_iter().zip(&paths).zip(&replacements) {
        let count = replace_in(&live, path, replacement, bytes_max).await?;
        counts.insert(asked, Replaced { count });
    }
    note(&app, &caller, "file.replace", &live, &paths);
    Ok(if verbose {
        Json(counts).into_response()
    } else {
        ().into_response()
    })
}

fn check(replacement: &Replacement) -> Result<(), Failure> {
    if replacement.old.is_empty() {
        return Err(refusal("INVALID_REQUEST_BODY", "old is empty".to_owned()));
    }
    if replacement.old.len().max(replacement.new.len()) > TEXT_BYTES_MAX {
        let message = format!("old and new have at most {TEXT_BYTES_MAX} bytes");
        return Err(refusal("INVALID_REQUEST_BODY", message));
    }
    Ok(())
}

/// How often the text was there.
async fn replace_in(
    live: &Arc<LiveSandbox>,
    path: &str,
    replacement: &Replacement,
    bytes_max: u64,
) -> Result<u64, Failure> {
    let (stat, file) = live.host.open(path, Within::Root).await.map_err(at(path))?;
    if stat.size > FILE_BYTES_MAX {
        let message =
            format!("{path}: text is replaced in files of at most {FILE_BYTES_MAX} bytes");
        return Err(refusal("INVALID_FILE", message));
    }
    let source = Source {
        file: OpenFile::new(file),
        size: stat.size,
        path,
        replacement,
    };
    if source.copy(None).await? == 0 {
        return Ok(0);
    }
    let spec = UploadSpec {
        path: path.to_owned(),
        within: Within::Root,
        overwrite: true,
        parents: false,
        mode: stat.mode,
        mode_always: true,
    };
    let upload = live.host.upload(spec).await.map_err(at(path))?;
    let mut out = Out {
        upload,
        path,
        waiting: BytesMut::new(),
        bytes_left: bytes_max,
    };
    let count = source.copy(Some(&mut out)).await?;
    out.commit().await?;
    Ok(count)
}

/// The file that is being read.
struct Source<'a> {
    file: OpenFile,
    size: u64,
    path: &'a str,
    replacement: &'a Replacement,
}

impl Source<'_> {
    /// Copies it with the text replaced; how often that was there. Without a place to copy to, it
    /// only counts.
    async fn copy(&self, mut out: Option<&mut Out<'_>>) -> Result<u64, Failure> {
        let mut search = Search::new(self.replacement);
        let mut pieces = pin!(pieces(self.file.clone(), 0..self.size));
        while let Some(piece) = pieces.next().await {
            let unread = |error| ApiError::internal(format_args!("{}: {error}", self.path));
            search.push(&piece.map_err(unread)?);
            while let Some(found) = search.next() {
                if let Some(out) = &mut out {
                    out.write(&found).await?;
                }
            }
        }
        if let Some(out) = &mut out {
            out.write(&search.rest()).await?;
        }
        Ok(search.count)
    }
}

/// The file that is being written.
struct Out<'a> {
    upload: Upload,
    path: &'a str,
    waiting: BytesMut,
    bytes_left: u64,
}

impl Out<'_> {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let Some(left) = self.bytes_left.checked_sub(bytes.len() as u64) else {
            let message = format!(
                "{}: the result is larger than the sandbox's disk",
                self.path
            );
            return Err(refusal("INVALID_FILE", message));
        };
        self.bytes_left = left;
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= PIECE_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        let piece = self.waiting.split().freeze();
        self.upload.push(piece).await.map_err(at(self.path))
    }

    async fn commit(mut self) -> Result<(), Failure> {
        self.flush().await?;
        self.upload.commit().await.map_err(at(self.path))?;
        Ok(())
    }
}

/// Looks for a text in bytes that come in pieces, and gives them out with the other in its place.
struct Search {
    old: Finder<'static>,
    new: Bytes,
    buffer: BytesMut,
    /// The text is at the beginning of the buffer.
    found: bool,
    count: u64,
}

impl Search {
    fn new(replacement: &Replacement) -> Self {
        Self {
            old: Finder::new(replacement.old.as_bytes()).into_owned(),
            new: Bytes::copy_from_slice(replacement.new.as_bytes()),
            buffer: BytesMut::new(),
            found: false,
            count: 0,
        }
    }

    fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// What comes next in the new file; None when more has to come first.
    fn next(&mut self) -> Option<Bytes> {
        let length = self.old.needle().len();
        if std::mem::take(&mut self.found) {
            self.buffer.advance(length);
            self.count += 1;
            return Some(self.new.clone());
        }
        match self.old.find(&self.buffer) {
            Some(at) => {
                self.found = true;
                Some(self.buffer.split_to(at).freeze())
            }
            None => {
                // The end may be the beginning of the text.
                let decided = self.buffer.len().saturating_sub(length - 1);
                (decided > 0).then(|| self.buffer.split_to(decided).freeze())
            }
        }
    }

    /// What is left when nothing more comes.
    fn rest(&mut self) -> Bytes {
        self.buffer.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn as_a_string_does_it(
            content in "[ab]{0,40}",
            old in "[ab]{1,3}",
            new in "[abc]{0,3}",
            piece in 1..10_usize,
        ) {
            let count = content.matches(old.as_str()).count() as u64;
            let expected = content.replace(&old, &new);
            let mut search = Search::new(&Replacement { old, new });
            let mut out = Vec::new();
            for piece in content.as_bytes().chunks(piece) {
                search.push(piece);
                while let Some(found) = search.next() {
                    out.extend_from_slice(&found);
                }
            }
            out.extend_from_slice(&search.rest());
            prop_assert_eq!(String::from_utf8(out).unwrap(), expected);
            prop_assert_eq!(search.count, count);
        }
    }
}
