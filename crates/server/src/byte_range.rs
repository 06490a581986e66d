//! `Range` and `If-Range`: which bytes of something a client asks for.
//!
//! One range is served; several in one request are answered with the whole, as RFC 9110 allows.
//! A header that is not understood is ignored, also as it says.

use crate::error::ApiError;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use crownest_api::ErrorCode;
use serde_json::json;
use std::ops::Range;

/// Longest header that is looked at.
const HEADER_BYTES_MAX: usize = 256;

/// What of something is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    Whole,
    Part(Range<u64>),
    /// None of it is there.
    Nothing,
}

/// Reads the headers of a request for something of that size, which has that entity tag.
pub(crate) fn wanted(headers: &HeaderMap, size: u64, etag: &str) -> Wanted {
    let Some(range) = headers.get(header::RANGE).and_then(|v| v.to_str().ok()) else {
        return Wanted::Whole;
    };
    // A date would have to be exact to the second, which files are not: only tags are compared.
    let same = headers
        .get(header::IF_RANGE)
        .is_none_or(|tag| tag.as_bytes() == etag.as_bytes());
    if same {
        parse(range, size)
    } else {
        Wanted::Whole
    }
}

/// Reads the value of `Range`.
pub(crate) fn parse(range: &str, size: u64) -> Wanted {
    let parsed = || {
        if range.len() > HEADER_BYTES_MAX {
            return None;
        }
        let (unit, spec) = range.split_once('=')?;
        let (first, last) = spec.trim().split_once('-')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        if first.is_empty() {
            let length = number(last)?;
            return Some(size.saturating_sub(length)..size);
        }
        let first = number(first)?;
        let end = if last.is_empty() {
            size
        } else {
            let last = number(last)?;
            if last < first {
                return None;
            }
            last.saturating_add(1).min(size)
        };
        Some(first..end)
    };
    match parsed() {
        None => Wanted::Whole,
        Some(range) if range.start < range.end => Wanted::Part(range),
        Some(_) => Wanted::Nothing,
    }
}

/// Digits only: no sign, no space. A number that is too large is past every end.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// The value of `Content-Range` for a part.
pub(crate) fn content_range(range: &Range<u64>, size: u64) -> HeaderValue {
    let text = format!(
        "bytes {}-{}/{size}",
        range.start,
        range.end.saturating_sub(1)
    );
    HeaderValue::from_str(&text).expect("digits and ASCII letters")
}

/// 416: nothing of what was asked for is there.
pub(crate) fn refusal(size: u64) -> Response {
    let error = ApiError::new(
        ErrorCode::RangeNotSatisfiable,
        format!("the range is outside of the {size} bytes that are there"),
    )
    .with_details(json!({ "sizeBytes": size }));
    let mut response = error.into_response();
    let value = HeaderValue::from_str(&format!("bytes */{size}")).expect("digits");
    response.headers_mut().insert(header::CONTENT_RANGE, value);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_a_hundred_bytes() {
        for (text, expected) in [
            ("bytes=0-9", Wanted::Part(0..10)),
            ("bytes=90-", Wanted::Part(90..100)),
            ("bytes=-5", Wanted::Part(95..100)),
            ("bytes=-500", Wanted::Part(0..100)),
            ("bytes=0-1000", Wanted::Part(0..100)),
            ("Bytes = 5-5", Wanted::Part(5..6)),
            ("bytes=100-", Wanted::Nothing),
            ("bytes=99999999999999999999999-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=9-8", Wanted::Whole),
            ("bytes=0-1,5-6", Wanted::Whole),
            ("bytes=", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("lines=0-9", Wanted::Whole),
            ("", Wanted::Whole),
        ] {
            assert_eq!(parse(text, 100), expected, "{text}");
        }
        assert_eq!(parse("bytes=0-", 0), Wanted::Nothing);
    }

    #[test]
    fn a_part_is_served_only_of_what_the_client_has() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_static("bytes=1-2"));
        assert_eq!(wanted(&headers, 9, "\"a\""), Wanted::Part(1..3));
        headers.insert(header::IF_RANGE, HeaderValue::from_static("\"a\""));
        assert_eq!(wanted(&headers, 9, "\"a\""), Wanted::Part(1..3));
        assert_eq!(wanted(&headers, 9, "\"b\""), Wanted::Whole);
    }

    #[test]
    fn content_ranges() {
        assert_eq!(content_range(&(3..5), 9), "bytes 3-4/9");
    }
}
