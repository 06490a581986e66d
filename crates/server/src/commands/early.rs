//! Answers that take minutes: their headers go out early.
//!
//! Node's fetch gives a connection up whose headers, or whose next byte, take 300 s, and a command
//! may be waited for twice as long. So a success that is late begins with spaces, which JSON does
//! not mind, and what would have been a refusal so late breaks the connection off: nothing can be
//! refused any more once a command has run for that long, but a server can stop.

use crate::error::{ApiError, ApiResult};
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use std::pin::Pin;
use std::time::Duration;

/// When headers go out although there is no answer yet.
const HEADERS_AFTER: Duration = Duration::from_secs(120);
/// Between two signs of life after that.
const SPACE_EVERY: Duration = Duration::from_secs(15);

type Answer = Pin<Box<dyn Future<Output = ApiResult<Response>> + Send>>;

/// Waits for an answer, for a while; then begins without it. When the client goes away the answer
/// is dropped, as it would be otherwise.
pub(crate) async fn respond<F>(answer: F) -> ApiResult<Response>
where
    F: Future<Output = ApiResult<Response>> + Send + 'static,
{
    respond_within(Box::pin(answer), HEADERS_AFTER, SPACE_EVERY).await
}

async fn respond_within(
    mut answer: Answer,
    after: Duration,
    every: Duration,
) -> ApiResult<Response> {
    if let Ok(answer) = tokio::time::timeout(after, &mut answer).await {
        return answer;
    }
    let bytes = stream::unfold(Late::Waiting(answer), move |late| late.next(every));
    let mut response = Body::from_stream(bytes).into_response();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    Ok(response)
}

/// A late answer.
enum Late {
    Waiting(Answer),
    Body(BoxStream<'static, Result<Bytes, axum::Error>>),
    Over,
}

impl Late {
    async fn next(self, every: Duration) -> Option<(Result<Bytes, ApiError>, Self)> {
        let mut body = match self {
            Self::Over => return None,
            Self::Body(body) => body,
            Self::Waiting(mut answer) => match tokio::time::timeout(every, &mut answer).await {
                Err(_) => return Some((Ok(Bytes::from_static(b" ")), Self::Waiting(answer))),
                Ok(Err(error)) => return Some((Err(error), Self::Over)),
                Ok(Ok(response)) if !response.status().is_success() => {
                    let error = ApiError::internal("a refusal after the headers");
                    return Some((Err(error), Self::Over));
                }
                Ok(Ok(response)) => response.into_body().into_data_stream().boxed(),
            },
        };
        let bytes = body.next().await?.map_err(ApiError::internal);
        Some((bytes, Self::Body(body)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crownest_api::ErrorCode;
    use http_body_util::BodyExt;
    use tokio::sync::oneshot;

    const SOON: Duration = Duration::from_millis(5);

    fn json() -> ApiResult<Response> {
        Ok(Body::from("{\"a\":1}").into_response())
    }

    #[tokio::test]
    async fn an_answer_in_time_is_itself() {
        let refusal = Box::pin(async { Err(ApiError::destroyed()) });
        let refused = respond_within(refusal, SOON, SOON).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::SandboxDestroyed);
        let answer = respond(async { json() }).await.unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(&body[..], b"{\"a\":1}");
    }

    #[tokio::test]
    async fn a_late_answer_begins_with_spaces() {
        let (go, gone) = oneshot::channel::<()>();
        let answer = Box::pin(async {
            let _ = gone.await;
            json()
        });
        let response = respond_within(answer, SOON, SOON).await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/json");
        let mut body = response.into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(&first[..], b" ");
        go.send(()).unwrap();
        let rest = body.collect().await.unwrap().to_bytes();
        let value: serde_json::Value = serde_json::from_slice(&rest).unwrap();
        assert_eq!(value["a"], 1);
    }

    #[tokio::test]
    async fn a_late_refusal_breaks_the_connection_off() {
        let (go, gone) = oneshot::channel::<()>();
        let answer = Box::pin(async {
            let _ = gone.await;
            Err(ApiError::destroyed())
        });
        let response = respond_within(answer, SOON, SOON).await.unwrap();
        go.send(()).unwrap();
        assert!(response.into_body().collect().await.is_err());
    }
}
