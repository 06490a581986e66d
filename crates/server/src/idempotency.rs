//! Requests with an `Idempotency-Key`: carried out once, answered from the store after that.
//!
//! Reserve, carry out, store: the reservation is decided before anything happens, and the answer
//! is stored before it is sent. A keyed request runs to its end even when its client goes away,
//! since that client is expected back. Refusals that may pass (429, 5xx) free the key.

use crate::app::App;
use crate::auth::{Principal, micros};
use crate::error::{ApiError, ApiResult};
use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use crownest_api::{ErrorBody, ErrorCode, ErrorEnvelope, Timestamp, limits};
use crownest_store::{
    Begun, IDEMPOTENT_BODY_BYTES_MAX, RequestHash, ScopeKey, StoreError, StoredResponse,
};
use serde::Serialize;
use std::sync::Arc;

const JSON: &str = "application/json";
/// A client that finds its first request still running may ask again after this.
const IN_PROGRESS_RETRY_MS: u64 = 250;

/// The key of a request, if it has one, and where it was sent.
#[derive(Debug)]
pub(crate) struct IdempotencyKey {
    key: Option<String>,
    method: String,
    route: String,
    /// Path and query.
    target: String,
}

impl FromRequestParts<App> for IdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> ApiResult<Self> {
        let route = parts.extensions.get::<axum::extract::MatchedPath>();
        Ok(Self {
            key: key(&parts.headers)?,
            method: parts.method.to_string(),
            route: route.map_or_else(
                || parts.uri.path().to_owned(),
                |path| path.as_str().to_owned(),
            ),
            target: parts
                .uri
                .path_and_query()
                .map_or_else(String::new, ToString::to_string),
        })
    }
}

pub(crate) fn key(headers: &HeaderMap) -> ApiResult<Option<String>> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let key = value
        .to_str()
        .ok()
        .filter(|key| (1..=limits::IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()));
    key.map(|key| Some(key.to_owned())).ok_or_else(|| {
        ApiError::field(
            "Idempotency-Key",
            "Idempotency-Key must have 1 to 255 ASCII characters",
        )
    })
}

/// What happens to a reservation whose server was restarted before the answer was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterRestart {
    /// Do it again: at worst something exists twice that ends by itself.
    Repeat,
    /// Do not run a client's code a second time: say that nobody knows.
    Refuse,
}

impl IdempotencyKey {
    /// Of work that has begun: with a key, a failure must not free it to be done a second time.
    pub(crate) fn begun<T>(has_key: bool, outcome: ApiResult<T>) -> ApiResult<T> {
        let uncertain = |error: &ApiError| {
            matches!(
                error.code,
                ErrorCode::Unavailable | ErrorCode::InternalError
            )
        };
        match outcome {
            Err(error) if has_key && uncertain(&error) => Err(error.uncertain()),
            other => other,
        }
    }

    pub(crate) fn is_some(&self) -> bool {
        self.key.is_some()
    }
}

/// A success, ready to be sent and stored.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
    /// What is stored where it must be smaller than what is sent.
    pub replay: Option<Bytes>,
}

impl Answer {
    /// `value` as JSON.
    pub(crate) fn json<T: Serialize>(status: StatusCode, value: &T) -> ApiResult<Self> {
        let body = serde_json::to_vec(value).map_err(ApiError::internal)?;
        Ok(Self {
            status,
            body: body.into(),
            replay: None,
        })
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        json_response(self.status, self.body)
    }
}

fn json_response(status: StatusCode, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    response
}

/// What became of a key.
#[derive(Debug)]
pub(crate) enum Reserved {
    /// The request has no key.
    Unkeyed,
    /// The key is this request's.
    Ours(Reservation),
    /// It was answered before.
    Replay(StoredResponse),
}

/// A key in flight. Must be finished or abandoned.
#[derive(Debug)]
pub(crate) struct Reservation {
    app: App,
    scope: ScopeKey,
}

impl App {
    /// Reserves the request's key.
    pub(crate) async fn reserve(
        &self,
        key: &IdempotencyKey,
        who: &Principal,
        body: &[u8],
        after_restart: AfterRestart,
    ) -> ApiResult<Reserved> {
        let Some(text) = &key.key else {
            return Ok(Reserved::Unkeyed);
        };
        let scope = ScopeKey::of(&who.org_id, &who.key_id, &key.method, &key.route, text);
        let request = RequestHash::of(&[key.target.as_bytes(), body]);
        let now = micros(Timestamp::now());
        match self
            .store
            .begin_idempotent(&scope, &request, &self.owner, now)
            .await?
        {
            Begun::New => Ok(Reserved::Ours(Reservation {
                app: self.clone(),
                scope,
            })),
            Begun::Replay(stored) => Ok(Reserved::Replay(stored)),
            Begun::InFlight => Err(in_progress()),
            Begun::Mismatch => Err(ApiError::new(
                ErrorCode::IdempotencyKeyReused,
                "this Idempotency-Key was used for another request",
            )),
            Begun::Interrupted { .. } if after_restart == AfterRestart::Refuse => {
                Err(ApiError::new(
                    ErrorCode::RequestInterrupted,
                    "the server was restarted during the first request with this \
                     Idempotency-Key; whether it took effect is unknown",
                ))
            }
            Begun::Interrupted { owner } => {
                let ours = self
                    .store
                    .take_over_idempotent(&scope, &owner, &self.owner, now)
                    .await?;
                if ours {
                    Ok(Reserved::Ours(Reservation {
                        app: self.clone(),
                        scope,
                    }))
                } else {
                    Err(in_progress())
                }
            }
        }
    }

    /// Carries `work` out, once per key. With a key it runs to its end whoever waits; without one
    /// it is dropped together with this future.
    pub(crate) async fn idempotent<F>(
        &self,
        key: &IdempotencyKey,
        who: &Principal,
        body: &[u8],
        after_restart: AfterRestart,
        work: F,
    ) -> ApiResult<Response>
    where
        F: Future<Output = ApiResult<Answer>> + Send + 'static,
    {
        // Boxed, as what follows: all of it would be a part of every route's future, twice over.
        let work = Box::pin(work);
        if !key.is_some() {
            return Ok(work.await?.into_response());
        }
        match Box::pin(self.reserve(key, who, body, after_restart)).await? {
            Reserved::Unkeyed => Ok(work.await?.into_response()),
            Reserved::Replay(stored) => replay(stored),
            Reserved::Ours(reservation) => {
                let (outcome, settled) = self
                    .finish_anyway(async move {
                        let outcome = work.await;
                        let settled = Box::pin(reservation.settle(&outcome)).await;
                        (outcome, settled)
                    })
                    .await;
                let mut response = outcome?.into_response();
                if !settled {
                    // It was done, and done again it may be if the server is killed just now.
                    let headers = response.headers_mut();
                    headers.insert("idempotent-stored", HeaderValue::from_static("false"));
                }
                Ok(response)
            }
        }
    }
}

fn in_progress() -> ApiError {
    ApiError::new(
        ErrorCode::IdempotencyRequestInProgress,
        "the first request with this Idempotency-Key is still running",
    )
    .retry_after(IN_PROGRESS_RETRY_MS)
}

/// The stored answer, as a response.
pub(crate) fn replay(stored: StoredResponse) -> ApiResult<Response> {
    let status = StatusCode::from_u16(stored.status).map_err(ApiError::internal)?;
    if status.is_success() {
        let mut response = json_response(status, stored.body.into());
        response
            .headers_mut()
            .insert("idempotent-replayed", HeaderValue::from_static("true"));
        return Ok(response);
    }
    let envelope: ErrorEnvelope =
        serde_json::from_slice(&stored.body).map_err(ApiError::internal)?;
    let ErrorBody {
        code,
        message,
        details,
        retry_after_ms,
        ..
    } = envelope.error;
    Err(ApiError {
        code,
        message,
        details,
        retry_after_ms,
        cause: None,
    })
}

impl Reservation {
    /// Stores the outcome, or frees the key when the outcome may be another one next time. A store
    /// that cannot take it gets it later, and the key is in flight until then; false says so.
    pub(crate) async fn settle(self, outcome: &ApiResult<Answer>) -> bool {
        let stored = match outcome {
            Ok(answer) => Some(StoredResponse {
                status: answer.status.as_u16(),
                content_type: JSON.to_owned(),
                body: answer.replay.as_ref().unwrap_or(&answer.body).to_vec(),
            }),
            Err(error) if is_final(error) => serde_json::to_vec(&ErrorEnvelope {
                error: error.body(None),
            })
            .ok()
            .map(|body| StoredResponse {
                status: error.code.status(),
                content_type: JSON.to_owned(),
                body,
            }),
            Err(_) => None,
        };
        let stored = stored.filter(|stored| stored.body.len() <= IDEMPOTENT_BODY_BYTES_MAX);
        let Self { app, scope } = self;
        let Err(error) = settle_now(&app, &scope, stored.as_ref()).await else {
            return true;
        };
        tracing::warn!(%error, "an idempotency key could not be settled yet");
        let stored = Arc::new(stored);
        app.persist("an idempotent answer", move |app| {
            let stored = Arc::clone(&stored);
            async move { settle_now(&app, &scope, stored.as_ref().as_ref()).await }
        });
        false
    }
}

async fn settle_now(
    app: &App,
    scope: &ScopeKey,
    stored: Option<&StoredResponse>,
) -> Result<(), StoreError> {
    let ours = match stored {
        Some(stored) => {
            let finished = app.store.finish_idempotent(scope, &app.owner, stored);
            finished.await?
        }
        None => app.store.abandon_idempotent(scope, &app.owner).await?,
    };
    if !ours {
        tracing::warn!("an idempotency key was no longer ours to settle");
    }
    Ok(())
}

/// Whether the same request would get the same refusal again.
fn is_final(error: &ApiError) -> bool {
    !error.code.retryable() && error.code.status() < 500
}
