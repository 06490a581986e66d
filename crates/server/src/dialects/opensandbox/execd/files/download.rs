//! `/files/download`: a file, a range of its bytes, or some of its lines.

use super::lines::lines;
use super::paths::{Query, at, note, resolve_one};
use super::walk::refusal;
use super::{InSandbox, Reader};
use crate::app::App;
use crate::byte_range::{self, Wanted};
use crate::dialects::opensandbox::error::{Failure, Refusal};
use crate::error::ApiError;
use crate::extract::PathArgs;
use crate::file_transfers::{self, Download};
use crate::host::{FileKind, Within};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::ops::Range;

pub(super) async fn download(
    State(app): State<App>,
    caller: Reader,
    PathArgs(InSandbox { id }): PathArgs<InSandbox>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let offset = at_least_one(&query, "offset")?;
    let limit = at_least_one(&query, "limit")?;
    let range = headers.get(header::RANGE);
    let by_lines = offset.is_some() || limit.is_some();
    if by_lines && range.is_some() {
        let message = "Range and offset or limit exclude each other".to_owned();
        return Err(refusal("INVALID_REQUEST_BODY", message));
    }
    let live = app.live_sandbox(&caller, &id).await?;
    let path = resolve_one(&live, query.path()?).await?;
    let stat = live.host.stat(&path, Within::Root).await;
    if stat.map_err(at(&path))?.kind != FileKind::File {
        let message = format!("{path}: is not a regular file");
        return Err(refusal("INVALID_FILE", message));
    }
    let file = app.open_file(&live, &path, Within::Root).await?;
    note(
        &app,
        &caller,
        "file.download",
        &live,
        std::slice::from_ref(&path),
    );
    if by_lines {
        let bytes = file.bytes(0..file.stat.size);
        let limit = limit.unwrap_or(u64::MAX);
        let body = Body::from_stream(lines(bytes, offset.unwrap_or(1) - 1, limit));
        let kind = HeaderValue::from_static("text/plain; charset=utf-8");
        return Ok(([(header::CONTENT_TYPE, kind)], body).into_response());
    }
    let download = Download {
        size: file.stat.size,
        etag: file.etag(),
        name: path.rsplit('/').next().unwrap_or_default(),
        content_type: "application/octet-stream",
    };
    let part = match range {
        None => 0..download.size,
        Some(value) => match asked(value, download.size) {
            Some(part) => part,
            None => return Ok(out_of_range(download.size)),
        },
    };
    let bytes = file.bytes(part.clone());
    let mut response = file_transfers::answer(&download, &part, bytes);
    if range.is_some() {
        // Also for a range that is the whole file.
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let value = byte_range::content_range(&part, download.size);
        response.headers_mut().insert(header::CONTENT_RANGE, value);
    }
    Ok(response)
}

fn at_least_one(query: &Query, name: &str) -> Result<Option<u64>, Failure> {
    let number = query.number::<u64>(name)?;
    if number == Some(0) {
        return Err(ApiError::field(name, format!("{name} begins at 1")).into());
    }
    Ok(number)
}

/// The first range that is asked for; None when it cannot be read or is not there.
fn asked(value: &HeaderValue, size: u64) -> Option<Range<u64>> {
    let value = value.to_str().ok()?;
    let first = value.split(',').next()?;
    match byte_range::parse(first, size) {
        Wanted::Part(range) => Some(range),
        Wanted::Whole | Wanted::Nothing => None,
    }
}

fn out_of_range(size: u64) -> Response {
    let message = format!("the range is not one of the {size} bytes that are there");
    let status = StatusCode::RANGE_NOT_SATISFIABLE;
    let mut response = Refusal::new(status, "INVALID_FILE_CONTENT", message).into_response();
    if let Ok(value) = HeaderValue::from_str(&format!("bytes */{size}")) {
        response.headers_mut().insert(header::CONTENT_RANGE, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let asked = |text| asked(&HeaderValue::from_static(text), 10);
        assert_eq!(asked("bytes=2-4"), Some(2..5));
        assert_eq!(asked("bytes=-3"), Some(7..10));
        assert_eq!(asked("bytes=5-"), Some(5..10));
        assert_eq!(asked("bytes=0-0,5-6"), Some(0..1));
        for bad in ["bytes=10-", "bytes=5-4", "bytes=x", "lines=1-2", "bytes=-0"] {
            assert_eq!(asked(bad), None, "{bad}");
        }
    }
}
