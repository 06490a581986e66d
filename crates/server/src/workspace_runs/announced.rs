//! What a client says that its archive is, and whether that is what came. Pure.

use crate::error::{ApiError, ApiResult};
use crate::objects::Stored;
use axum::http::{HeaderMap, header};
use crownest_api::ErrorCode;
use serde_json::json;

/// Largest archive in one request.
const DIRECT_BYTES_MAX: u64 = 8 << 20;

/// What a client says that its archive is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Announced {
    /// Lower-case hexadecimal.
    pub sha256: String,
    pub size_bytes: u64,
}

impl Announced {
    /// From the headers of a direct upload.
    pub(crate) fn of_headers(headers: &HeaderMap) -> ApiResult<Self> {
        const SHA256: &str = "x-crownest-archive-sha256";
        const SIZE: &str = "x-crownest-archive-size";
        let text = |name: &'static str| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.ok_or_else(|| ApiError::field(name, format!("the header {name} is required")))
        };
        let size = text(SIZE)?;
        let size_bytes = Some(size)
            .filter(|size| size.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|size| size.parse().ok())
            .ok_or_else(|| ApiError::field(SIZE, format!("{SIZE} must be a number of bytes")))?;
        let announced = Self::check(text(SHA256)?, SHA256, size_bytes, DIRECT_BYTES_MAX)?;
        announced.fits_length(headers)?;
        Ok(announced)
    }

    /// Whether the body has that length, as far as its headers say.
    pub(super) fn fits_length(&self, headers: &HeaderMap) -> ApiResult<()> {
        let Some(length) = headers.get(header::CONTENT_LENGTH) else {
            return Ok(());
        };
        let length: Option<u64> = length.to_str().ok().and_then(|text| text.parse().ok());
        if length == Some(self.size_bytes) {
            return Ok(());
        }
        Err(size_mismatch(self.size_bytes, length))
    }

    pub(super) fn check(sha256: &str, field: &str, size_bytes: u64, max: u64) -> ApiResult<Self> {
        if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let message = format!("{field} must have 64 hexadecimal digits");
            return Err(ApiError::field(field, message));
        }
        if size_bytes == 0 {
            return Err(ApiError::field(
                "sizeBytes",
                "an archive has at least one byte",
            ));
        }
        if size_bytes > max {
            return Err(too_large(max));
        }
        Ok(Self {
            sha256: sha256.to_ascii_lowercase(),
            size_bytes,
        })
    }

    /// Whether that is what came.
    pub(super) fn matches(&self, stored: &Stored) -> ApiResult<()> {
        if stored.size_bytes != self.size_bytes {
            return Err(size_mismatch(self.size_bytes, Some(stored.size_bytes)));
        }
        if stored.sha256 != self.sha256 {
            let message = "the SHA-256 of what was received is not the announced one";
            return Err(ApiError::new(ErrorCode::UploadChecksumMismatch, message)
                .with_details(json!({ "expected": self.sha256, "received": stored.sha256 })));
        }
        Ok(())
    }
}

fn too_large(max: u64) -> ApiError {
    let hint = if max == DIRECT_BYTES_MAX {
        "; larger ones go through archive-transfer"
    } else {
        ""
    };
    ApiError::new(
        ErrorCode::FileTooLarge,
        format!("an archive has at most {max} bytes here{hint}"),
    )
    .with_details(json!({ "limit": max }))
}

pub(super) fn size_mismatch(expected: u64, received: Option<u64>) -> ApiError {
    ApiError::new(
        ErrorCode::UploadSizeMismatch,
        "the archive does not have the announced number of bytes",
    )
    .with_details(json!({ "expected": expected, "received": received }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(sha256: &str, size: &str, length: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let value = |text: &str| HeaderValue::from_str(text).unwrap();
        headers.insert("x-crownest-archive-sha256", value(sha256));
        headers.insert("x-crownest-archive-size", value(size));
        if let Some(length) = length {
            headers.insert(header::CONTENT_LENGTH, value(length));
        }
        headers
    }

    #[test]
    fn headers_announce_an_archive() {
        let sha256 = "AB".repeat(32);
        let announced = Announced::of_headers(&headers(&sha256, "5", Some("5"))).unwrap();
        assert_eq!(announced.sha256, "ab".repeat(32));
        let code = |sha256: &str, size: &str, length| {
            Announced::of_headers(&headers(sha256, size, length))
                .unwrap_err()
                .code
        };
        assert_eq!(code(&sha256, "5", Some("6")), ErrorCode::UploadSizeMismatch);
        assert_eq!(code(&sha256, "8388609", None), ErrorCode::FileTooLarge);
        for (sha256, size) in [
            ("xyz", "5"),
            (&*sha256, "+5"),
            (&*sha256, "0"),
            (&*sha256, ""),
        ] {
            assert_eq!(code(sha256, size, None), ErrorCode::InvalidRequest);
        }
        assert!(Announced::of_headers(&HeaderMap::new()).is_err());
    }
}
