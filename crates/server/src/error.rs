//! What a route answers when it cannot do what was asked, and the one table that turns failures
//! of the store and the host into it.
//!
//! An [`ApiError`] travels as an extension of an empty response; the outermost layer
//! ([`crate::request`]) writes the envelope, because only it knows the request's id.

use crate::host::{FileErrorKind, HostError, SpawnerError};
use crate::objects::ObjectsError;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use crownest_api::limits;
use crownest_api::metadata::MetadataError;
use crownest_api::{ErrorBody, ErrorCode};
use crownest_store::StoreError;
use serde_json::{Value, json};

/// A refusal or failure, in the words of the API.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    pub code: ErrorCode,
    pub message: String,
    pub details: Option<Value>,
    pub retry_after_ms: Option<u64>,
    /// What happened inside, for the log only.
    pub cause: Option<String>,
}

/// What most of this crate returns.
pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            code,
            message,
            details: None,
            retry_after_ms: None,
            cause: None,
        }
    }

    #[must_use]
    pub fn with_details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }

    #[must_use]
    pub fn retry_after(mut self, millis: u64) -> Self {
        self.retry_after_ms = Some(millis);
        self
    }

    /// A field with a bad value.
    pub fn field(field: &str, message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message).with_details(json!({ "field": field }))
    }

    /// Nothing of that name, or nothing that this caller may know of: the same words for both.
    pub fn not_found(what: &str) -> Self {
        Self::new(ErrorCode::NotFound, format!("no such {what}"))
    }

    pub fn destroyed() -> Self {
        Self::new(ErrorCode::SandboxDestroyed, "the sandbox is destroyed")
    }

    /// A fault of ours: the client learns that it happened, the log learns what.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        let message = "an internal error occurred; the server's log has it under this request id";
        Self {
            cause: Some(cause.to_string()),
            ..Self::new(ErrorCode::InternalError, message)
        }
    }

    fn unavailable(message: &str, cause: impl std::fmt::Display) -> Self {
        let error = Self::new(ErrorCode::Unavailable, message).retry_after(1_000);
        Self {
            cause: Some(cause.to_string()),
            ..error
        }
    }

    /// The same failure after the work had begun: the request must not be repeated by itself.
    #[must_use]
    pub(crate) fn uncertain(self) -> Self {
        let message = format!(
            "the request was interrupted ({}); whether it took effect is unknown",
            self.message
        );
        Self {
            cause: self.cause,
            ..Self::new(ErrorCode::RequestInterrupted, message)
        }
    }

    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The part of the envelope that clients see.
    pub fn body(&self, request_id: Option<&str>) -> ErrorBody {
        ErrorBody {
            code: self.code,
            message: self.message.clone(),
            details: self.details.clone(),
            request_id: request_id.map(str::to_owned),
            retryable: self.code.retryable(),
            retry_after_ms: self.retry_after_ms,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<MetadataError> for ApiError {
    fn from(error: MetadataError) -> Self {
        Self::new(error.code(), error.to_string()).with_details(json!({ "field": "metadata" }))
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { what } => Self::not_found(what),
            StoreError::Full { .. } => Self::unavailable(
                "the storage of the server is full; nothing was changed",
                format_args!("store: {error}"),
            ),
            StoreError::Busy { .. } => {
                Self::unavailable("the store is busy", format_args!("store: {error}"))
            }
            error if error.is_transient() => {
                Self::unavailable("the store is unavailable", format_args!("store: {error}"))
            }
            error => Self::internal(format_args!("store: {error}")),
        }
    }
}

impl From<ObjectsError> for ApiError {
    fn from(error: ObjectsError) -> Self {
        let cause = format!("objects: {error}");
        match error {
            ObjectsError::Full => Self::unavailable(
                "the storage of the server is full; nothing was changed",
                cause,
            ),
            ObjectsError::Unavailable(_) => {
                Self::unavailable("the object store is unavailable", cause)
            }
            ObjectsError::Refused(_) => Self::unavailable(
                "the object store refuses the server: its operator has to look at the credentials",
                cause,
            ),
            ObjectsError::TooLarge { limit } => {
                let message = format!("at most {limit} bytes can be stored");
                Self::new(ErrorCode::FileTooLarge, message).with_details(json!({ "limit": limit }))
            }
            error => Self::internal(format_args!("objects: {error}")),
        }
    }
}

impl From<HostError> for ApiError {
    fn from(error: HostError) -> Self {
        match error {
            HostError::SandboxGone => Self::destroyed(),
            HostError::ShuttingDown => Self::unavailable("the server is stopping", error),
            HostError::NodeFull { limit } => Self::new(ErrorCode::QuotaExceeded, error.to_string())
                .with_details(json!({ "limit": limit }))
                .retry_after(1_000),
            HostError::Spawner(SpawnerError::SnapshotUnusable(_)) => Self::new(
                ErrorCode::BackupNotRestorable,
                "the snapshot cannot be used",
            ),
            HostError::Spawner(_) | HostError::Connect(_) | HostError::Hello(_) => {
                Self::unavailable("the machine could not provide a sandbox", error)
            }
            HostError::CallTimeout(_) => {
                Self::unavailable("the sandbox did not answer in time", error)
            }
            HostError::LinkLost => Self::unavailable(
                "the connection to the sandbox was lost; whether the call took effect is unknown",
                error,
            ),
            HostError::ContextUnknown => Self::not_found("code context"),
            HostError::ContextBusy => Self::new(
                ErrorCode::RateLimited,
                "too many runs wait for this code context",
            )
            .retry_after(1_000),
            HostError::InputNotAwaited => Self::new(
                ErrorCode::InputNotAwaited,
                "no code of this context waits for a line",
            ),
            HostError::TooMany(_) => {
                Self::new(ErrorCode::QuotaExceeded, error.to_string()).retry_after(1_000)
            }
            HostError::LanguageUnsupported(language) => Self::new(
                ErrorCode::UnsupportedCodeLanguage,
                format!("this sandbox's template has no interpreter for {language:?}"),
            )
            .with_details(json!({ "field": "language" })),
            HostError::SpawnFailed(_) | HostError::Invalid(_) => {
                Self::new(ErrorCode::InvalidRequest, error.to_string())
            }
            HostError::File { kind, message } => file_error(kind, message),
            HostError::TooLarge { .. } => Self::new(ErrorCode::RequestTooLarge, error.to_string()),
            HostError::PortClosed(_) => Self::new(ErrorCode::PreviewUnavailable, error.to_string()),
            other => Self::internal(other),
        }
    }
}

fn file_error(kind: FileErrorKind, message: String) -> ApiError {
    let code = match kind {
        FileErrorKind::OutsideWorkspace => ErrorCode::PathOutsideWorkspace,
        FileErrorKind::NotFound => ErrorCode::FileNotFound,
        FileErrorKind::ParentNotFound => ErrorCode::ParentDirectoryNotFound,
        FileErrorKind::IsDirectory => ErrorCode::PathIsDirectory,
        FileErrorKind::NotDirectory => ErrorCode::PathNotDirectory,
        FileErrorKind::NotRegular => ErrorCode::InvalidRequest,
        FileErrorKind::NotEmpty => ErrorCode::DirectoryNotEmpty,
        FileErrorKind::Exists => ErrorCode::FileAlreadyExists,
        FileErrorKind::TooLarge => return file_too_large(),
        FileErrorKind::PermissionDenied | FileErrorKind::OtherFileSystem => {
            ErrorCode::InvalidRequest
        }
        FileErrorKind::NoSpace => ErrorCode::StorageFull,
    };
    let message = if message.is_empty() {
        kind.to_string()
    } else {
        message
    };
    ApiError::new(code, message)
}

/// A file over the cap of direct reads and writes.
pub(crate) fn file_too_large() -> ApiError {
    let max = limits::FILE_DIRECT_BYTES_MAX;
    ApiError::new(
        ErrorCode::FileTooLarge,
        format!("direct reads and writes of files are limited to {max} bytes"),
    )
    .with_details(json!({ "limit": max }))
}
