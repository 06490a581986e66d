//! Failures in the words of this dialect: `{"code", "message"}`.
//!
//! Handlers and extractors answer with [`ApiError`]; a layer around each of the APIs writes it.

use crate::app::App;
use crate::error::ApiError;
use crate::request::{RequestContext, note_failure};
use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use crownest_api::ErrorCode;
use serde_json::json;

/// Said to who sends none: the headers are those of this dialect.
const NO_CREDENTIAL: &str = "no credential: send the API key as OPEN-SANDBOX-API-KEY or, to a port of a sandbox, the \
     headers that the answer about its endpoint names";

pub(super) async fn no_route() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "NOT_FOUND", "no such route")
}

pub(super) async fn no_method() -> ApiError {
    crate::request::no_method().await
}

/// A failure with a status and a code of the dialect's own, where those of an [`ApiError`] with
/// the general table are not what clients expect.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({ "code": self.code, "message": self.message });
        (self.status, Json(body)).into_response()
    }
}

/// What a handler of this dialect returns when both kinds of failure can happen.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    General(ApiError),
    Own(Refusal),
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::General(error)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Own(refusal)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Self::General(error) => error.into_response(),
            Self::Own(refusal) => refusal.into_response(),
        }
    }
}

/// Writes failures of the lifecycle API.
pub(super) async fn lifecycle_words(state: State<App>, request: Request, next: Next) -> Response {
    words(&state.0, request, next, lifecycle_code).await
}

/// Writes failures of execd.
pub(super) async fn execd_words(state: State<App>, request: Request, next: Next) -> Response {
    words(&state.0, request, next, execd_code).await
}

async fn words(
    app: &App,
    request: Request,
    next: Next,
    code: fn(ErrorCode) -> &'static str,
) -> Response {
    let context = request.extensions().get::<RequestContext>().cloned();
    let mut response = next.run(request).await;
    let Some(error) = response.extensions_mut().remove::<ApiError>() else {
        return response;
    };
    if let Some(context) = context {
        note_failure(app, &error, &context);
    }
    let message = match error.code {
        ErrorCode::Unauthorized => NO_CREDENTIAL,
        _ => error.message.as_str(),
    };
    let mut answer = Refusal::new(status(&error), code(error.code), message).into_response();
    if let Some(millis) = error.retry_after_ms {
        let seconds = HeaderValue::from(millis.div_ceil(1_000));
        answer.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    answer
}

/// The status of a failure: this dialect knows no 410.
fn status(error: &ApiError) -> StatusCode {
    match error.code {
        ErrorCode::SandboxDestroyed => StatusCode::NOT_FOUND,
        _ => error.status(),
    }
}

/// Clients take these for opaque words; they follow the official server's `DOMAIN::NAME`.
fn lifecycle_code(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Unauthorized => "MISSING_API_KEY",
        ErrorCode::InvalidApiKey => "INVALID_API_KEY",
        ErrorCode::NotFound | ErrorCode::SandboxDestroyed => "SANDBOX::SANDBOX_NOT_FOUND",
        ErrorCode::InvalidRequest => "SANDBOX::INVALID_PARAMETER",
        ErrorCode::InternalError => "SANDBOX::INTERNAL_ERROR",
        other => other.as_str(),
    }
}

/// The codes of execd's specification, and ours where it has none.
fn execd_code(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::InvalidRequest => "INVALID_REQUEST_BODY",
        ErrorCode::FileNotFound | ErrorCode::ParentDirectoryNotFound => "FILE_NOT_FOUND",
        ErrorCode::InternalError => "RUNTIME_ERROR",
        other => other.as_str(),
    }
}
