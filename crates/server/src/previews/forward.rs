//! The way of one request into a sandbox and of its answer back.
//!
//! Everything on the other side of [`host::Sandbox::dial`] is hostile: it may answer nothing,
//! without end, or nonsense. Each request has a connection of its own, so that nothing which a
//! program says beyond its answer is ever taken for another visitor's; bodies are passed on as
//! they come and held nowhere.
//!
//! [`host::Sandbox::dial`]: crate::host::Sandbox::dial

use super::gate::Visit;
use super::headers;
use crate::app::App;
use crate::auth::Principal;
use crate::egress::{Activity, Meter, Metered};
use crate::error::{ApiError, ApiResult};
use crate::host::HostError;
use crate::sandboxes::LiveSandbox;
use axum::body::Body;
use axum::http::{HeaderValue, Request, StatusCode, Version, header};
use axum::response::Response;
use bytes::Bytes;
use crownest_api::ErrorCode;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::copy_bidirectional_with_sizes;

/// Head of an answer, and what is read ahead of its body.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Headers of an answer.
const HEADERS_MAX: usize = 128;
/// Longest silence of a connection once an answer has begun: of a stream of events, of a
/// WebSocket, of a visitor that does not read.
const SILENCE_MAX: Duration = Duration::from_secs(600);
/// Bytes read ahead in each direction of a WebSocket.
const WEBSOCKET_BUFFER_BYTES: usize = 16 * 1024;

/// Who visits with a credential, and where it is looked up.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    pub(super) app: App,
    pub(super) who: Arc<Principal>,
}

/// Returns when a visitor's credential is over; without one, never.
async fn revocation(visitor: Option<Visitor>) {
    match visitor {
        Some(Visitor { app, who }) => app.revocation(&who).await,
        None => std::future::pending().await,
    }
}

/// The port of a sandbox, with what bounds a visit.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) live: Arc<LiveSandbox>,
    pub(super) port: u16,
    pub(super) visit: Visit,
    /// Who came with a credential: they stay no longer than it.
    pub(super) who: Option<Visitor>,
    /// Longest silence before an answer begins.
    pub(super) answer_within: Duration,
}

impl Target {
    fn unavailable(&self, why: &str) -> ApiError {
        let message = format!("port {} of the sandbox: {why}", self.port);
        ApiError::new(ErrorCode::PreviewUnavailable, message)
            .with_details(json!({ "port": self.port }))
    }

    /// Sends a request whose headers are the sandbox's already. `upgrade` is the visitor's side
    /// of a WebSocket, when one was asked for.
    pub(super) async fn exchange(
        self,
        request: Request<Body>,
        upgrade: Option<OnUpgrade>,
    ) -> ApiResult<Response> {
        let stream = self.live.host.dial(self.port).await;
        let stream = stream.map_err(|error| match error {
            HostError::PortClosed(_) => self.unavailable("nothing listens on it"),
            HostError::CallTimeout(_) => self.unavailable("the sandbox is not responding"),
            other => other.into(),
        })?;
        let stream = Metered::new(stream, Arc::new(Meter::default()));
        let activity = stream.activity();
        let handshake = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .handshake(TokioIo::new(stream));
        let (mut sender, connection) = handshake
            .await
            .map_err(|error| self.unavailable(&refusal(&error)))?;
        let (closed, silent) = (self.visit.closed(), activity.clone().silent(SILENCE_MAX));
        let revoked = revocation(self.who.clone());
        // Ends with its exchange: the sender is dropped here, and the body when it was read.
        tokio::spawn(async move {
            tokio::select! {
                () = closed.cancelled() => {}
                () = silent => {}
                () = revoked => {}
                _ = connection.with_upgrades() => {}
            }
        });
        let answer = tokio::select! {
            answer = sender.send_request(request) => {
                answer.map_err(|error| self.unavailable(&refusal(&error)))?
            }
            () = activity.clone().silent(self.answer_within) => {
                let seconds = self.answer_within.as_secs();
                return Err(self.unavailable(&format!("no answer within {seconds} seconds")));
            }
        };
        self.answer(answer, upgrade, activity)
    }

    fn answer(
        self,
        mut answer: Response<Incoming>,
        upgrade: Option<OnUpgrade>,
        activity: Activity,
    ) -> ApiResult<Response> {
        let switching = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        let agreed = switching && headers::agrees(answer.headers());
        headers::out_of_sandbox(answer.headers_mut()).map_err(|why| self.unavailable(why))?;
        *answer.version_mut() = Version::HTTP_11;
        if !switching {
            return Ok(answer.map(|body| {
                Body::new(Visited {
                    body,
                    _visit: self.visit,
                })
            }));
        }
        let Some(visitor) = upgrade.filter(|_| agreed) else {
            return Err(self.unavailable("it changed the protocol, which nobody asked for"));
        };
        let (head, _) = answer.into_parts();
        let mut response = Response::from_parts(head, Body::empty());
        let sandbox = hyper::upgrade::on(&mut response);
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        tokio::spawn(websocket(visitor, sandbox, self.visit, self.who, activity));
        Ok(response)
    }
}

/// Bytes both ways until either side ends, nothing moves for long, or the preview or the visitor's
/// credential ends.
async fn websocket(
    visitor: OnUpgrade,
    sandbox: OnUpgrade,
    visit: Visit,
    who: Option<Visitor>,
    activity: Activity,
) {
    let closed = visit.closed();
    let flow = async {
        let (Ok(visitor), Ok(sandbox)) = tokio::join!(visitor, sandbox) else {
            return;
        };
        let (mut visitor, mut sandbox) = (TokioIo::new(visitor), TokioIo::new(sandbox));
        let size = WEBSOCKET_BUFFER_BYTES;
        // Either side may end it in any way; there is nobody to tell.
        let _ = copy_bidirectional_with_sizes(&mut visitor, &mut sandbox, size, size).await;
    };
    tokio::select! {
        () = closed.cancelled() => {}
        () = activity.silent(SILENCE_MAX) => {}
        () = revocation(who) => {}
        () = flow => {}
    }
}

/// Why there is no answer, in words without any of the sandbox's.
fn refusal(error: &hyper::Error) -> String {
    if error.is_parse_too_large() {
        "the head of its answer is too large".to_owned()
    } else if error.is_parse() || error.is_parse_status() {
        "its answer is not HTTP".to_owned()
    } else {
        "the connection was closed before an answer".to_owned()
    }
}

/// The body of an answer, which holds its place until it has been read.
#[derive(Debug)]
struct Visited {
    body: Incoming,
    _visit: Visit,
}

impl HttpBody for Visited {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
