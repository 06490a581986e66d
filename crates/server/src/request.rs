//! The outermost layer of every route: request id, error envelope, panics, metrics, access log.

use crate::app::App;
use crate::error::ApiError;
use crate::metrics;
use crate::rate_limit::Allowance;
use crate::unread::SharedBody;
use axum::body::Body;
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use crownest_api::{ErrorCode, ErrorEnvelope, IdKind, new_id};
use futures_util::FutureExt;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// Header that names a request, in both directions.
pub(crate) const REQUEST_ID: &str = "x-request-id";
/// Longest request id that is taken over from a client.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// What is known of a request beside its own content; an extension of every request.
#[derive(Debug, Clone)]
pub struct RequestContext {
    pub id: Arc<str>,
    /// Pattern of the route.
    pub route: Arc<str>,
    /// Under which the client reaches the server, as far as can be told; without a final slash.
    pub origin: Option<Arc<str>>,
    /// Id of the key, once it is known: for the access log.
    key_id: Arc<OnceLock<Arc<str>>>,
    /// What is left to the key, when requests are counted.
    allowance: Arc<OnceLock<Allowance>>,
}

impl RequestContext {
    pub(crate) fn new(id: String, route: &str, origin: Option<String>) -> Self {
        Self {
            id: id.into(),
            route: route.into(),
            origin: origin.map(Into::into),
            key_id: Arc::default(),
            allowance: Arc::default(),
        }
    }

    pub(crate) fn set_allowance(&self, allowance: Allowance) {
        let _ = self.allowance.set(allowance);
    }

    /// Remembers who asks.
    pub fn set_key(&self, id: &Arc<str>) {
        let _ = self.key_id.set(Arc::clone(id));
    }
}

/// The origin that the client used, for documents that name it.
#[derive(Debug)]
pub(crate) struct Origin(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Origin {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let context = parts.extensions.get::<RequestContext>();
        let origin = context.and_then(|context| context.origin.as_deref());
        Ok(Self(origin.unwrap_or("http://localhost").to_owned()))
    }
}

/// Runs the rest of the server around one request.
pub(crate) async fn layer(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = method_name(request.method());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unmatched", MatchedPath::as_str);
    let origin = origin(&app, request.headers());
    let context = RequestContext::new(request_id(request.headers()), route, origin);
    request.extensions_mut().insert(context.clone());

    let (head, body) = request.into_parts();
    let body = SharedBody::new(body);
    let request = Request::from_parts(head, Body::new(body.clone()));

    app.metrics.requests_active.inc();
    let active = Active(&app);
    let mut response = match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => {
            app.metrics.panics.inc();
            ApiError::internal(format_args!("panic: {}", panic_text(&*panic))).into_response()
        }
    };
    drop(active);
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        note_failure(&app, &error, &context);
        response = envelope(&error, &context.id, context.origin.as_deref());
    }
    body.finish(&mut response).await;
    if let Some(allowance) = context.allowance.get() {
        let headers = response.headers_mut();
        headers.insert("x-ratelimit-limit", allowance.limit.into());
        headers.insert("x-ratelimit-remaining", allowance.remaining.into());
        headers.insert("x-ratelimit-reset", allowance.reset.as_secs().into());
    }
    if let Ok(id) = HeaderValue::from_str(&context.id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    record(&app, method, context, &response, started);
    response
}

/// Counts a request as active until it is dropped, also when the client goes away.
struct Active<'a>(&'a App);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.metrics.requests_active.dec();
    }
}

/// Counts an answered request and writes its line of the access log.
pub(crate) fn record(
    app: &App,
    method: &'static str,
    context: RequestContext,
    response: &Response,
    started: Instant,
) {
    let took = started.elapsed();
    let status = response.status().as_u16();
    let route = context.route.to_string();
    app.metrics
        .request_seconds
        .get_or_create(&metrics::Route {
            route: route.clone(),
        })
        .observe(took.as_secs_f64());
    app.metrics
        .requests
        .get_or_create(&metrics::Request {
            method,
            route,
            status,
        })
        .inc();
    // A line is written with a system call, which may also block: the client's answer goes first.
    app.tasks.spawn(async move {
        tracing::info!(
            target: "crownest::access",
            request = &*context.id,
            method,
            route = &*context.route,
            status,
            key = context.key_id.get().map(|id| &**id),
            us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        );
    });
}

/// Counts an error, and logs it when it is the server's.
pub(crate) fn note_failure(app: &App, error: &ApiError, context: &RequestContext) {
    let code = error.code.as_str();
    app.metrics
        .errors
        .get_or_create(&metrics::Code { code })
        .inc();
    if error.status().is_server_error() {
        tracing::error!(
            request = &*context.id,
            route = &*context.route,
            code = error.code.as_str(),
            cause = error.cause.as_deref().unwrap_or(&error.message),
            "request failed"
        );
    }
}

/// The error as clients of the API get it.
pub(crate) fn envelope(error: &ApiError, request_id: &str, origin: Option<&str>) -> Response {
    let body = ErrorEnvelope {
        error: error.body(Some(request_id)),
    };
    let json = serde_json::to_vec(&body).unwrap_or_default();
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = error.status();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    if let Some(millis) = error.retry_after_ms {
        headers.insert(
            header::RETRY_AFTER,
            HeaderValue::from(millis.div_ceil(1_000)),
        );
    }
    if error.code.status() == 401 {
        headers.insert(header::WWW_AUTHENTICATE, challenge(origin));
    }
    response
}

fn challenge(origin: Option<&str>) -> HeaderValue {
    let path = "/.well-known/oauth-protected-resource";
    let text = origin.map(|origin| format!("Bearer resource_metadata=\"{origin}{path}\""));
    let value = text.and_then(|text| HeaderValue::from_str(&text).ok());
    value.unwrap_or(HeaderValue::from_static("Bearer"))
}

/// The origin that the client used, as far as can be told.
fn origin(app: &App, headers: &HeaderMap) -> Option<String> {
    if let Some(origin) = &app.config.public_origin {
        return Some(origin.trim_end_matches('/').to_owned());
    }
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let clean = host
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-.:[]".contains(&b));
    clean.then(|| format!("http://{host}"))
}

/// The client's own id when it is harmless, else a new one.
pub(crate) fn request_id(headers: &HeaderMap) -> String {
    let given = headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok());
    match given {
        Some(id)
            if (1..=REQUEST_ID_BYTES_MAX).contains(&id.len())
                && id
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) =>
        {
            id.to_owned()
        }
        _ => new_id(IdKind::Request),
    }
}

/// A label with few values: clients may invent methods.
pub(crate) fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}

pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// No such route.
pub(crate) async fn no_route() -> ApiError {
    ApiError::not_found("route")
}

/// The route exists, the method does not.
pub(crate) async fn no_method() -> ApiError {
    ApiError::new(
        ErrorCode::MethodNotAllowed,
        "this route does not have that method",
    )
}
