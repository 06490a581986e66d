//! What happened in a run, in one sequence of numbers: by pages, and as a stream.
//!
//! Only what the server does is stored as events. What the command printed is in its log, and
//! appears here as it stands there: record `n` of the log is event `base + n`, between the events
//! before the command and those after it. So output is written once, and a run that prints
//! gigabytes costs what the command costs. Where the oldest output of a log is not kept any more,
//! its numbers are missing; who asks for them gets `stream_gap`.

use super::record::{Record, TERMINAL};
use crate::app::App;
use crate::auth::Principal;
use crate::command_log::{
    LogError, LogFiles, LogIndex, LogStream, Position, Record as LogRecord, read,
};
use crate::error::{ApiError, ApiResult};
use crate::sse;
use axum::http::HeaderMap;
use bytes::Bytes;
use crownest_api::workspace_run::{
    WorkspaceRunEvent, WorkspaceRunEventKind as Kind, WorkspaceRunEventPage,
};
use crownest_api::{ErrorCode, Timestamp, limits};
use crownest_store as store;
use futures_util::Stream;
use serde::Deserialize;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// A stream that has nothing to say says so this often.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);
/// Events on a page that asks for no number.
const PAGE_EVENTS_DEFAULT: usize = 100;
const PAGE_EVENTS_MAX: usize = 500;
/// Events in one step of a stream.
const STEP_EVENTS_MAX: usize = 500;

/// Which events, as a query says it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventQuery {
    after_seq: Option<String>,
    limit: Option<String>,
    stream: Option<String>,
}

impl EventQuery {
    /// Whether a stream is wanted.
    pub(crate) fn is_stream(&self) -> ApiResult<bool> {
        match self.stream.as_deref() {
            None | Some("" | "false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(_) => Err(ApiError::field("stream", "stream must be true or false")),
        }
    }

    /// The number after which to go on: of the query, or of the header with which a browser does.
    fn after(&self, headers: &HeaderMap) -> ApiResult<u64> {
        let asked = match self.after_seq.as_deref() {
            None | Some("") => 0,
            Some(text) => number("afterSeq", text.as_bytes())?,
        };
        let last = match headers.get("last-event-id") {
            Some(value) if !value.is_empty() => number("Last-Event-ID", value.as_bytes())?,
            _ => 0,
        };
        Ok(asked.max(last))
    }

    fn limit(&self) -> ApiResult<usize> {
        let Some(text) = self.limit.as_deref().filter(|text| !text.is_empty()) else {
            return Ok(PAGE_EVENTS_DEFAULT);
        };
        let limit = usize::try_from(number("limit", text.as_bytes())?).unwrap_or(usize::MAX);
        if (1..=PAGE_EVENTS_MAX).contains(&limit) {
            return Ok(limit);
        }
        let message = format!("limit must be between 1 and {PAGE_EVENTS_MAX}");
        Err(ApiError::field("limit", message))
    }
}

fn number(field: &str, text: &[u8]) -> ApiResult<u64> {
    let parsed = std::str::from_utf8(text)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        // The store counts in signed numbers.
        .and_then(|text| text.parse::<i64>().ok())
        .and_then(|number| u64::try_from(number).ok());
    parsed.ok_or_else(|| ApiError::field(field, format!("{field} must be a non-negative integer")))
}

impl App {
    /// One page of the events of a run.
    pub(crate) async fn workspace_run_events(
        &self,
        who: &Principal,
        id: &str,
        query: &EventQuery,
        headers: &HeaderMap,
    ) -> ApiResult<WorkspaceRunEventPage> {
        let (after, limit) = (query.after(headers)?, query.limit()?);
        let record = self.find_run(who, id).await?;
        let mut data = self.events_after(who, &record, after, limit + 1).await?;
        let has_more = data.len() > limit;
        data.truncate(limit);
        let has_more = has_more
            || data.len() < limit && {
                // A page may also end because it is large enough.
                let last = data.last().map_or(after, |event| event.seq);
                !data.is_empty() && !self.events_after(who, &record, last, 1).await?.is_empty()
            };
        Ok(WorkspaceRunEventPage {
            next_seq: data.last().map(|event| event.seq),
            data,
            has_more,
        })
    }

    /// Every event after some number, and what comes until the run is over.
    pub(crate) async fn follow_workspace_run(
        &self,
        who: &std::sync::Arc<Principal>,
        id: &str,
        query: &EventQuery,
        headers: &HeaderMap,
    ) -> ApiResult<impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static> {
        let after = query.after(headers)?;
        let news = self.workspace_runs.watch(id);
        let record = self.find_run(who, id).await?;
        // A gap is said before the stream begins.
        self.events_after(who, &record, after, 1).await?;
        let following = Following {
            app: self.clone(),
            who: std::sync::Arc::clone(who),
            record,
            news,
            after,
            beat_at: Instant::now() + HEARTBEAT_EVERY,
            over: false,
        };
        Ok(futures_util::stream::unfold(
            following,
            |mut following| async move {
                let frame = following.next_frame().await?;
                Some((Ok(frame), following))
            },
        ))
    }

    /// At most `limit` events after a number, fewer when they are large.
    async fn events_after(
        &self,
        who: &Principal,
        record: &Record,
        mut after: u64,
        limit: usize,
    ) -> ApiResult<Vec<WorkspaceRunEvent>> {
        let mut events = Vec::new();
        let Some(log) = record.state.log else {
            self.stored_events(record, after, u64::MAX, limit, &mut events)
                .await?;
            return Ok(events);
        };
        if after < log.base {
            self.stored_events(record, after, log.base, limit, &mut events)
                .await?;
            after = log.base;
        }
        let log_end = log.count.map(|count| log.base + count);
        if events.len() < limit && log_end.is_none_or(|end| after < end) {
            let (full, first) = (limit - events.len(), after == log.base);
            let printed = self
                .printed(who, record, (log.base, after - log.base), full, first)
                .await?;
            let complete = printed.len() < full && printed.is_complete;
            events.extend(printed.events);
            if !complete || log_end.is_none() {
                return Ok(events);
            }
            after = log_end.unwrap_or(after);
        }
        if events.len() < limit && log_end.is_some() {
            let left = limit - events.len();
            self.stored_events(record, after, u64::MAX, left, &mut events)
                .await?;
        }
        Ok(events)
    }

    async fn stored_events(
        &self,
        record: &Record,
        after: u64,
        up_to: u64,
        limit: usize,
        events: &mut Vec<WorkspaceRunEvent>,
    ) -> ApiResult<()> {
        let limit = store::Limit::new(limit.min(STEP_EVENTS_MAX) as u64).unwrap_or_default();
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let rows = self
            .store
            .workspace_run_events(record.id(), after, limit)
            .await?;
        for row in rows {
            let seq = u64::try_from(row.seq).unwrap_or(0);
            // What came after the record was read belongs to a later look.
            if seq > up_to || seq > record.state.last_seq {
                break;
            }
            let kind = if row.event == TERMINAL {
                Kind::Terminal {
                    workspace_run: Box::new(record.wire()),
                }
            } else {
                serde_json::from_str(&row.event).map_err(ApiError::internal)?
            };
            events.push(WorkspaceRunEvent {
                kind,
                seq,
                created_at: Timestamp::from_millis(row.at / 1_000),
            });
        }
        Ok(())
    }

    /// Events of the command's log after record `after`, numbered from `base`. `first`: nobody
    /// has seen any, so that one whose beginning is gone begins where it can.
    async fn printed(
        &self,
        who: &Principal,
        record: &Record,
        (base, after): (u64, u64),
        limit: usize,
        first: bool,
    ) -> ApiResult<Printed> {
        let nothing = Printed {
            events: Vec::new(),
            is_complete: true,
        };
        let Some(id) = &record.state.command_id else {
            return Ok(nothing);
        };
        let found = match self.find_command(who, id).await {
            Ok(found) => found,
            // Its row is on the way, or was never written.
            Err(error) if error.code == ErrorCode::NotFound => return Ok(nothing),
            Err(error) => return Err(error),
        };
        let (files, index) = self.log_of(&found).await?;
        let printed = printed(&files, &index, (base, after), limit, first).await;
        Ok(printed.map_err(|error| match error {
            // In the numbers of the run.
            LogError::Gap { first_seq } => LogError::Gap {
                first_seq: base + first_seq,
            },
            other => other,
        })?)
    }
}

/// Number of the last record of a log that is complete.
pub(super) async fn last_record(files: &LogFiles, index: &LogIndex) -> Result<u64, LogError> {
    let mut position = Position::after(Some(index.settled_seq()), index);
    while read(files, index, &mut position, drop).await?.is_some() {}
    Ok(position.seq)
}

struct Printed {
    events: Vec<WorkspaceRunEvent>,
    /// There was nothing more when this was read.
    is_complete: bool,
}

impl Printed {
    fn len(&self) -> usize {
        self.events.len()
    }
}

async fn printed(
    files: &LogFiles,
    index: &LogIndex,
    (base, after): (u64, u64),
    limit: usize,
    first: bool,
) -> Result<Printed, LogError> {
    let gone = after + 1 < index.first_seq();
    let mut position = if first && gone {
        Position::after(None, index)
    } else {
        Position::after(Some(after), index)
    };
    let (mut events, mut bytes) = (Vec::new(), 0);
    while events.len() < limit && bytes < limits::LOG_PAGE_BYTES_MAX {
        let shaped = move |records: Vec<LogRecord>| -> Vec<_> {
            let shaped = records.iter().map(|record| said(base, record));
            let sizes = records.iter().map(|record| record.data.len());
            sizes.zip(shaped).collect()
        };
        let Some(some) = read(files, index, &mut position, shaped).await? else {
            return Ok(Printed {
                events,
                is_complete: true,
            });
        };
        for (size, event) in some {
            if events.len() == limit {
                break;
            }
            bytes += size;
            events.push(event);
        }
    }
    Ok(Printed {
        events,
        is_complete: false,
    })
}

fn said(base: u64, record: &LogRecord) -> WorkspaceRunEvent {
    let data = String::from_utf8_lossy(&record.data).into_owned();
    WorkspaceRunEvent {
        kind: match record.stream {
            LogStream::Stdout => Kind::Stdout { data },
            LogStream::Stderr => Kind::Stderr { data },
        },
        seq: base + record.seq,
        created_at: Timestamp::from_millis(record.at / 1_000),
    }
}

/// A client that follows a run. It holds what is being sent to it and nothing more.
struct Following {
    app: App,
    who: std::sync::Arc<Principal>,
    record: Record,
    news: watch::Receiver<u64>,
    after: u64,
    beat_at: Instant,
    over: bool,
}

impl Following {
    /// What is sent next; None after the last event, and when the server stops.
    async fn next_frame(&mut self) -> Option<Bytes> {
        while !self.over {
            // Before anything is read: what is written from here on is news.
            let mut written = self.log_news();
            match self.next_events().await {
                Ok(events) if !events.is_empty() => return Some(self.frame(&events)),
                Ok(_) => {}
                Err(error) => return Some(self.error(&error)),
            }
            tokio::select! {
                changed = self.news.changed() => {
                    // The sender is kept as long as somebody listens.
                    changed.ok()?;
                    if let Err(error) = self.look_again().await {
                        return Some(self.error(&error));
                    }
                }
                () = wait(&mut written) => {}
                () = tokio::time::sleep_until(self.beat_at) => {
                    self.beat_at += HEARTBEAT_EVERY;
                    return Some(self.heartbeat());
                }
                // The client finds the next server, which goes on where it was.
                () = self.app.stopping.cancelled() => return None,
            }
        }
        None
    }

    fn log_news(&self) -> Option<watch::Receiver<u64>> {
        let id = self.record.state.command_id.as_deref()?;
        let command = self.app.commands.get(id)?;
        let mut written = command.log.watch();
        written.mark_unchanged();
        Some(written)
    }

    async fn next_events(&mut self) -> ApiResult<Vec<WorkspaceRunEvent>> {
        self.app
            .events_after(&self.who, &self.record, self.after, STEP_EVENTS_MAX)
            .await
    }

    async fn look_again(&mut self) -> ApiResult<()> {
        self.record = self.app.find_run(&self.who, self.record.id()).await?;
        Ok(())
    }

    fn frame(&mut self, events: &[WorkspaceRunEvent]) -> Bytes {
        let mut frame = Vec::new();
        for event in events {
            self.after = event.seq;
            self.over |= matches!(event.kind, Kind::Terminal { .. });
            push(event, &mut frame);
        }
        self.beat_at = Instant::now() + HEARTBEAT_EVERY;
        frame.into()
    }

    /// Has the last real number, so that a client goes on from there.
    fn heartbeat(&self) -> Bytes {
        self.own(Kind::Heartbeat)
    }

    fn error(&mut self, error: &ApiError) -> Bytes {
        self.over = true;
        self.own(Kind::Error {
            code: error.code.as_str().to_owned(),
            message: error.message.clone(),
        })
    }

    fn own(&self, kind: Kind) -> Bytes {
        let event = WorkspaceRunEvent {
            kind,
            seq: self.after,
            created_at: Timestamp::now(),
        };
        let mut frame = Vec::new();
        push(&event, &mut frame);
        frame.into()
    }
}

async fn wait(written: &mut Option<watch::Receiver<u64>>) {
    let changed = match written {
        Some(written) => written.changed().await,
        None => return std::future::pending().await,
    };
    if changed.is_err() {
        // The command has ended; the run says what comes next.
        std::future::pending::<()>().await;
    }
}

fn push(event: &WorkspaceRunEvent, out: &mut Vec<u8>) {
    let name = match &event.kind {
        Kind::Status { .. } => "status",
        Kind::ArchiveProgress { .. } => "archive_progress",
        Kind::Stdout { .. } => "stdout",
        Kind::Stderr { .. } => "stderr",
        Kind::ArtifactCollected { .. } => "artifact_collected",
        Kind::ArtifactError { .. } => "artifact_error",
        Kind::Heartbeat => "heartbeat",
        Kind::Terminal { .. } => "terminal",
        Kind::Error { .. } => "error",
    };
    out.extend_from_slice(format!("id: {}\n", event.seq).as_bytes());
    if let Err(error) = sse::push_event(name, event, out) {
        tracing::error!(%error, name, "an event could not be serialized");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_checked() {
        let query = |after: &str, limit: &str| EventQuery {
            after_seq: Some(after.to_owned()),
            limit: Some(limit.to_owned()),
            stream: None,
        };
        let mut headers = HeaderMap::new();
        assert_eq!(query("7", "").after(&headers).unwrap(), 7);
        assert_eq!(query("", "500").limit().unwrap(), 500);
        for bad in ["-1", "x", "1e3", "9223372036854775808"] {
            assert!(query(bad, "").after(&headers).is_err(), "{bad}");
        }
        for bad in ["0", "501", "x"] {
            assert!(query("", bad).limit().is_err(), "{bad}");
        }
        headers.insert("last-event-id", "9".parse().unwrap());
        assert_eq!(query("7", "").after(&headers).unwrap(), 9);
    }
}
