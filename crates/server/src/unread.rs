//! What becomes of a request's body that a route did not read.
//!
//! Many clients send head and body apart. An answer that is given before the body is read (a
//! refused key, an unknown route) would make HTTP/1.1 close the connection under the client's next
//! request. So the rest of the body is read and thrown away, within limits; when it is longer or
//! does not come, the answer says that the connection closes.

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

/// Most that is read and thrown away.
const UNREAD_BYTES_MAX: usize = 1024 * 1024;
/// Longest time that is waited for it.
const UNREAD_MS_MAX: u64 = 1_000;

/// A body that two sides hold: the route, and the layer around it.
#[derive(Debug, Clone)]
pub(crate) struct SharedBody(Arc<Mutex<Body>>);

impl SharedBody {
    pub(crate) fn new(body: Body) -> Self {
        Self(Arc::new(Mutex::new(body)))
    }

    fn body(&self) -> MutexGuard<'_, Body> {
        self.0.lock().expect("no panic while it is held")
    }

    /// Reads the rest, or makes the answer say that it was not read.
    pub(crate) async fn finish(mut self, response: &mut Response) {
        if self.is_end_stream() {
            return;
        }
        let limit = Duration::from_millis(UNREAD_MS_MAX);
        let drained = tokio::time::timeout(limit, self.drain()).await;
        if !matches!(drained, Ok(true)) {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
    }

    /// Whether the end was reached within the limit.
    async fn drain(&mut self) -> bool {
        let mut left = UNREAD_BYTES_MAX;
        while let Some(frame) = self.frame().await {
            let Ok(frame) = frame else { return false };
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            let Some(rest) = left.checked_sub(bytes) else {
                return false;
            };
            left = rest;
        }
        true
    }
}

impl HttpBody for SharedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.body()).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body().size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    async fn finished(body: Body) -> bool {
        let mut response = Response::new(Body::empty());
        SharedBody::new(body).finish(&mut response).await;
        !response.headers().contains_key(header::CONNECTION)
    }

    #[tokio::test]
    async fn a_short_rest_is_read_and_a_long_or_late_one_closes() {
        assert!(finished(Body::empty()).await);
        assert!(finished(Body::from(vec![0; UNREAD_BYTES_MAX])).await);
        assert!(!finished(Body::from(vec![0; UNREAD_BYTES_MAX + 1])).await);
        let never = stream::pending::<Result<Bytes, std::io::Error>>();
        assert!(!finished(Body::from_stream(never)).await);
    }

    #[tokio::test]
    async fn what_the_route_has_read_is_not_waited_for() {
        let shared = SharedBody::new(Body::from("hello"));
        let read = Body::new(shared.clone())
            .collect()
            .await
            .unwrap()
            .to_bytes();
        assert_eq!(read, "hello");
        let mut response = Response::new(Body::empty());
        shared.finish(&mut response).await;
        assert!(response.headers().is_empty());
    }
}
