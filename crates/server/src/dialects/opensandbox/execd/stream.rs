//! Streams of events: from a task that works to a client that may be slow, or gone.

use super::super::error::{Failure, Refusal};
use super::events;
use crate::error::ApiError;
use crate::sse;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use crownest_api::ErrorCode;
use futures_util::stream;
use tokio::sync::mpsc;

/// Frames that wait for a slow client; then what makes them waits too.
const FRAMES_WAITING_MAX: usize = 16;

/// A stream that begins with an id, and what its frames are sent to.
pub(super) fn open(id: &str) -> (mpsc::Sender<Bytes>, Response) {
    let (frames, mut waiting) = mpsc::channel(FRAMES_WAITING_MAX);
    let beginning = Bytes::from(events::beginning(id));
    if frames.try_send(beginning).is_err() {
        tracing::error!("a new channel has no room");
    }
    let response = sse::response(stream::poll_fn(move |cx| {
        waiting.poll_recv(cx).map(|frame| frame.map(Ok))
    }));
    (frames, response)
}

/// A failure before there was any event. What a client can do about it keeps its status; what
/// was asked of the runtime in vain is a failure of the runtime, as clients know it.
pub(super) fn refused(error: ApiError) -> Failure {
    match error.code {
        ErrorCode::NotFound | ErrorCode::UnsupportedCodeLanguage => Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "RUNTIME_ERROR",
            error.message,
        )
        .into(),
        _ => error.into(),
    }
}
