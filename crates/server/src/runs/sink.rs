//! Where the events of a run's stream go, in the words of `/v1` or of another API.

use super::StartedRun;
use crate::error::{ApiError, ApiResult};
use crate::host::RunEvent;
use crate::run_result::{RunCollector, Step};
use crate::sse;
use bytes::Bytes;
use crownest_api::ErrorCode;
use crownest_api::code::{CodeError, RunStreamEvent};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// A stream that has nothing to say says so this often.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);

/// Another API's words for what a run says. What comes at the end is its route's affair.
pub(crate) trait Words: std::fmt::Debug + Send + Sync {
    /// Appends what an event is in these words: nothing, one frame or several.
    fn event(&self, event: &RunEvent, frames: &mut Vec<u8>);
    /// A frame that means nothing, for a stream that was silent for that long.
    fn sign_of_life(&self) -> (Duration, Vec<u8>);
}

/// Where the events of a stream go.
#[derive(Debug)]
pub(crate) struct EventSink {
    frames: mpsc::Sender<Bytes>,
    /// Whether the run goes on when nobody listens any more.
    outlive_client: bool,
    /// None: those of `/v1`.
    words: Option<Arc<dyn Words>>,
}

impl EventSink {
    pub(crate) fn new(frames: mpsc::Sender<Bytes>, outlive_client: bool) -> Self {
        Self {
            frames,
            outlive_client,
            words: None,
        }
    }

    /// A stream in other words; the run ends with its client.
    pub(crate) fn in_words(frames: mpsc::Sender<Bytes>, words: Arc<dyn Words>) -> Self {
        Self {
            frames,
            outlive_client: false,
            words: Some(words),
        }
    }

    /// Sends an event as it came, when the stream is in other words.
    pub(super) async fn as_it_came(&self, event: &RunEvent) -> ApiResult<()> {
        let Some(words) = &self.words else {
            return Ok(());
        };
        let mut frames = Vec::new();
        words.event(event, &mut frames);
        self.send(frames).await
    }

    fn sign_of_life(&self) -> (Duration, Vec<u8>) {
        match &self.words {
            Some(words) => words.sign_of_life(),
            None => (HEARTBEAT_EVERY, sse::HEARTBEAT.to_vec()),
        }
    }

    /// The last frame: whether anybody still listens makes no difference.
    pub(crate) async fn last(&self, frame: impl Into<Bytes>) {
        let _ = self.frames.send(frame.into()).await;
    }

    /// The last event of a stream that has no result.
    pub(crate) async fn broken_off(&self, error: &ApiError) {
        let error = CodeError {
            message: error.message.clone(),
            name: Some(error.code.as_str().to_owned()),
            traceback: None,
            line: None,
        };
        let mut frame = Vec::new();
        if sse::push_event("error", &RunStreamEvent::Error(&error), &mut frame).is_ok() {
            self.last(frame).await;
        }
    }

    /// What an event was to a collector, in the words of `/v1`.
    pub(super) async fn step(&self, collector: &RunCollector, step: &Step) -> ApiResult<()> {
        if self.words.is_some() {
            return Ok(());
        }
        match step {
            Step::Stdout(text) => self.text("stdout", text).await,
            Step::Stderr(text) => self.text("stderr", text).await,
            Step::Outputs(range) => {
                for output in collector.outputs(range.clone()) {
                    self.event("output", &RunStreamEvent::Output(output))
                        .await?;
                }
                Ok(())
            }
            Step::Notice(notice) => self.event("notice", &RunStreamEvent::Notice(notice)).await,
            Step::Input(asked) => {
                let event = RunStreamEvent::InputRequest(asked);
                self.event("input_request", &event).await
            }
            Step::Done(_) | Step::Nothing => Ok(()),
        }
    }

    /// How a run failed, in the words of `/v1`.
    pub(super) async fn failure(&self, error: &CodeError) -> ApiResult<()> {
        if self.words.is_some() {
            return Ok(());
        }
        self.event("error", &RunStreamEvent::Error(error)).await
    }

    async fn send(&self, frame: Vec<u8>) -> ApiResult<()> {
        if frame.is_empty() || self.frames.send(frame.into()).await.is_ok() || self.outlive_client {
            return Ok(());
        }
        Err(client_gone())
    }

    /// `RunStreamEvent::Stdout` or `Stderr`: `name` is that of the event and of its type.
    async fn text(&self, name: &str, text: &str) -> ApiResult<()> {
        let mut frame = Vec::new();
        sse::push_text_event(name, text, &mut frame);
        self.send(frame).await
    }

    async fn event(&self, name: &str, event: &RunStreamEvent<'_>) -> ApiResult<()> {
        let mut frame = Vec::new();
        sse::push_event(name, event, &mut frame).map_err(ApiError::internal)?;
        self.send(frame).await
    }
}

/// Never seen by anybody: there is no client to send it to.
fn client_gone() -> ApiError {
    ApiError::new(ErrorCode::Unavailable, "the client went away")
}

/// The next event of a run, with the stream kept alive meanwhile.
pub(super) async fn next_event(
    run: &mut StartedRun,
    sink: Option<&EventSink>,
) -> ApiResult<Option<RunEvent>> {
    loop {
        tokio::select! {
            biased;
            event = run.run.next() => return Ok(event),
            () = idle(sink) => {
                if let Some(sink) = sink {
                    sink.send(sink.sign_of_life().1).await?;
                }
            }
            () = gone(sink) => return Err(client_gone()),
        }
    }
}

/// Resolves when a stream has been silent for long enough.
async fn idle(sink: Option<&EventSink>) {
    match sink {
        Some(sink) => tokio::time::sleep(sink.sign_of_life().0).await,
        None => std::future::pending().await,
    }
}

/// Resolves when nobody listens and nobody will.
async fn gone(sink: Option<&EventSink>) {
    match sink {
        Some(sink) if !sink.outlive_client => sink.frames.closed().await,
        _ => std::future::pending().await,
    }
}
