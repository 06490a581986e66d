//! Files of any size over HTTP: out of sandboxes and artifacts, and into sandboxes.
//!
//! Owns: ranges, headers of what is downloaded, pieces of what is uploaded. Does not own: where
//! a path leads (init), who may ask (the routes).

use crate::app::App;
use crate::auth::Caller;
use crate::byte_range::{self, Wanted, content_range};
use crate::error::{ApiError, ApiResult};
use crate::file_stream::{OpenFile, pieces};
use crate::host::{FileStat, Upload, UploadSpec, Within};
use crate::lifecycle::deed;
use crate::objects::hexadecimal;
use crate::sandboxes::LiveSandbox;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::BytesMut;
use crownest_api::ErrorCode;
use futures_util::Stream;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Small pieces of a body are joined up to this before they go to init; those that are a quarter
/// of it go as they are.
const PIECE_BYTES: usize = 120 * 1024;
/// Permission bits of a new file.
pub(crate) const FILE_MODE: u32 = 0o644;
/// Longest silence of a client in the middle of an upload.
pub(crate) const UPLOAD_IDLE_MAX: Duration = Duration::from_secs(60);
/// Header with the SHA-256 of what is uploaded, in hexadecimal.
pub(crate) const SHA256_HEADER: &str = "x-crownest-sha256";

/// Something to download, as its headers say it.
#[derive(Debug)]
pub(crate) struct Download<'a> {
    pub size: u64,
    pub etag: String,
    pub name: &'a str,
    pub content_type: &'a str,
}

/// The part that a request wants; none of it may be there ([`byte_range::refusal`]).
pub(crate) fn part(headers: &HeaderMap, download: &Download<'_>) -> Option<Range<u64>> {
    match byte_range::wanted(headers, download.size, &download.etag) {
        Wanted::Whole => Some(0..download.size),
        Wanted::Part(range) => Some(range),
        Wanted::Nothing => None,
    }
}

/// The answer with those bytes, which are `range` of it. It is saved and never shown: whatever it
/// is, no browser runs it in the name of this server.
pub(crate) fn answer<S>(download: &Download<'_>, range: &Range<u64>, bytes: S) -> Response
where
    S: Stream<Item = io::Result<Bytes>> + Send + 'static,
{
    let mut response = Response::new(Body::from_stream(bytes));
    let is_part = range.end - range.start < download.size;
    if is_part {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    let headers = response.headers_mut();
    let mut set = |name, value: Option<HeaderValue>| {
        if let Some(value) = value {
            headers.insert(name, value);
        }
    };
    let text = |text: &str| HeaderValue::from_str(text).ok();
    set(
        header::CONTENT_LENGTH,
        Some((range.end - range.start).into()),
    );
    set(header::CONTENT_TYPE, text(download.content_type));
    set(header::ACCEPT_RANGES, text("bytes"));
    set(header::ETAG, text(&download.etag));
    set(
        header::CONTENT_DISPOSITION,
        text(&disposition(download.name)),
    );
    set(header::X_CONTENT_TYPE_OPTIONS, text("nosniff"));
    set(
        header::CONTENT_SECURITY_POLICY,
        text("sandbox; default-src 'none'"),
    );
    set(header::CACHE_CONTROL, text("private, no-cache"));
    if is_part {
        set(
            header::CONTENT_RANGE,
            Some(content_range(range, download.size)),
        );
    }
    response
}

/// `attachment` with a name: a plain one for old clients, the exact one for all others (RFC 6266).
pub(crate) fn disposition(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|c| match c {
            ' '..='~' if c != '"' && c != '\\' => c,
            _ => '_',
        })
        .collect();
    let mut text = format!("attachment; filename=\"{plain}\"; filename*=UTF-8''");
    push_encoded(name, &mut text);
    text
}

/// Percent-encodes everything that is not unreserved in a URL.
pub(crate) fn push_encoded(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a String");
        }
    }
}

/// A file of a sandbox that is open for reading.
#[derive(Debug)]
pub(crate) struct OpenedFile {
    pub stat: FileStat,
    file: OpenFile,
}

impl OpenedFile {
    /// Its bytes. They end, with an error, when the sandbox does.
    pub(crate) fn bytes(
        &self,
        range: Range<u64>,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        pieces(self.file.clone(), range)
    }

    /// The same as long as nobody has written to it: its time and size.
    pub(crate) fn etag(&self) -> String {
        format!("\"{:x}-{:x}\"", self.stat.modified_ms, self.stat.size)
    }

    /// The last component of its path.
    pub(crate) fn name(&self) -> &str {
        self.stat.path.rsplit('/').next().unwrap_or_default()
    }
}

impl App {
    /// Opens a file of a sandbox. It is let go when the sandbox ends, however slowly it is read:
    /// as long as it is open, the memory of the sandbox's files cannot be given back.
    pub(crate) async fn open_file(
        &self,
        live: &Arc<LiveSandbox>,
        path: &str,
        within: Within,
    ) -> ApiResult<OpenedFile> {
        let (stat, file) = live.host.open(path, within).await?;
        let file = OpenFile::new(file);
        let (held, live) = (file.downgrade(), Arc::clone(live));
        self.tasks.spawn(async move {
            tokio::select! {
                _ = live.host.closed() => held.close(),
                () = held.unused() => {}
            }
        });
        Ok(OpenedFile { stat, file })
    }
}

impl App {
    /// Counts bytes that a client has written.
    pub(crate) fn note_file_written(&self, live: &LiveSandbox, bytes: u64) {
        let amount = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.note_usage(&live.row(), "file_bytes_written", amount);
    }

    /// Puts what was done to a file on record.
    pub(crate) fn note_file_deed<const SCOPE: u8>(
        &self,
        caller: &Caller<SCOPE>,
        action: &'static str,
        live: &LiveSandbox,
        details: &Value,
    ) {
        let deed = deed(action, live, "ok");
        self.audit.by_key(caller, &caller.request, deed, details);
    }
}

/// An upload to make.
#[derive(Debug)]
pub(crate) struct Receiving {
    pub path: String,
    pub overwrite: bool,
    pub parents: bool,
    /// What the client says that the bytes are.
    pub sha256: Option<String>,
    pub bytes_max: u64,
}

/// Reads a body into a file of the sandbox, which appears whole or not at all.
///
/// # Errors
/// Those of the file; `upload_incomplete`, `upload_checksum_mismatch`, `file_too_large`.
pub(crate) async fn receive(
    live: &Arc<LiveSandbox>,
    body: Body,
    receiving: Receiving,
) -> ApiResult<(FileStat, u64)> {
    let spec = UploadSpec {
        path: receiving.path,
        within: Within::Workspace,
        overwrite: receiving.overwrite,
        parents: receiving.parents,
        mode: FILE_MODE,
        mode_always: false,
    };
    let mut digest = receiving.sha256.is_some().then(Sha256::new);
    let mut upload = live.host.upload(spec).await?;
    take(&mut upload, body, digest.as_mut(), receiving.bytes_max).await?;
    if let (Some(expected), Some(digest)) = (&receiving.sha256, digest) {
        let found = hexadecimal(&digest.finalize());
        if !found.eq_ignore_ascii_case(expected) {
            return Err(ApiError::new(
                ErrorCode::UploadChecksumMismatch,
                "the bytes that came have another SHA-256 than was announced",
            )
            .with_details(json!({ "expected": expected, "found": found })));
        }
    }
    let written = upload.sent_bytes();
    Ok((upload.commit().await?, written))
}

/// Hands a body to an upload, piece by piece.
async fn take(
    upload: &mut Upload,
    mut body: Body,
    mut digest: Option<&mut Sha256>,
    bytes_max: u64,
) -> ApiResult<()> {
    let mut waiting = BytesMut::new();
    let mut came = 0u64;
    loop {
        let frame = tokio::time::timeout(UPLOAD_IDLE_MAX, body.frame()).await;
        let frame = match frame {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Err(incomplete(came, &error.to_string())),
            Err(_) => return Err(incomplete(came, "nothing came for too long")),
        };
        let Ok(bytes) = frame.into_data() else {
            continue;
        };
        came += bytes.len() as u64;
        if came > bytes_max {
            return Err(too_large(bytes_max));
        }
        if let Some(digest) = &mut digest {
            digest.update(&bytes);
        }
        if waiting.is_empty() {
            if bytes.len() >= PIECE_BYTES / 4 {
                upload.push(bytes).await?;
                continue;
            }
            // At once: grown bit by bit, everything would be copied again each time.
            waiting.reserve(PIECE_BYTES + PIECE_BYTES / 4);
        }
        waiting.extend_from_slice(&bytes);
        if waiting.len() >= PIECE_BYTES {
            upload.push(waiting.split().freeze()).await?;
        }
    }
    Ok(upload.push(waiting.freeze()).await?)
}

pub(crate) fn incomplete(came: u64, why: &str) -> ApiError {
    let message = format!("the upload broke off after {came} bytes: {why}; nothing was changed");
    ApiError::new(ErrorCode::UploadIncomplete, message)
        .with_details(json!({ "receivedBytes": came }))
}

/// More than the sandbox's disk could ever take.
pub(crate) fn too_large(bytes_max: u64) -> ApiError {
    ApiError::new(
        ErrorCode::FileTooLarge,
        format!("the file is larger than the disk of the sandbox ({bytes_max} bytes)"),
    )
    .with_details(json!({ "limit": bytes_max }))
}

/// The announced SHA-256, if there is one.
pub(crate) fn announced_sha256(headers: &HeaderMap) -> ApiResult<Option<String>> {
    let Some(value) = headers.get(SHA256_HEADER) else {
        return Ok(None);
    };
    let digits = value
        .to_str()
        .ok()
        .filter(|text| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()));
    digits
        .map(|digits| Some(digits.to_owned()))
        .ok_or_else(|| ApiError::field(SHA256_HEADER, "a SHA-256 has 64 hexadecimal digits"))
}
