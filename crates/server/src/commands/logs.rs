//! Logs for clients: by pages, as a stream of events, as a file.

use super::live::{Found, omitted_bytes};
use super::watched::Watched;
use crate::app::App;
use crate::auth::Principal;
use crate::command_log::{
    self, LogError, LogFiles, LogIndex, Position, READ_BYTES_MAX, Record, read,
};
use crate::error::{ApiError, ApiResult};
use crate::sse;
use axum::http::HeaderMap;
use bytes::Bytes;
use crownest_api::command::{Command, CommandEvent, LogChunk, LogPage, LogStream};
use crownest_api::{Timestamp, limits};
use futures_util::Stream;
use serde::Deserialize;
use std::convert::Infallible;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// A stream that has nothing to say says so this often.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);

/// Which part of a log, as a query says it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LogQuery {
    after_seq: Option<String>,
    limit: Option<String>,
}

/// Which part of a log is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// What comes after that number; None: from the first that is kept.
    pub after: Option<u64>,
    /// Pieces on one page.
    pub limit: usize,
}

impl Place {
    /// From the query, and for streams from the header with which a browser goes on.
    pub(crate) fn check(query: &LogQuery, headers: Option<&HeaderMap>) -> ApiResult<Self> {
        let after = match query.after_seq.as_deref() {
            None | Some("") => None,
            Some(text) => Some(number("afterSeq", text.as_bytes())?),
        };
        let last = match headers.and_then(|headers| headers.get("last-event-id")) {
            None => None,
            Some(value) if value.is_empty() => None,
            Some(value) => Some(number("Last-Event-ID", value.as_bytes())?),
        };
        let limit = match query.limit.as_deref() {
            None | Some("") => limits::LOG_CHUNKS_DEFAULT,
            Some(text) => {
                let limit = number("limit", text.as_bytes())?;
                let max = limits::LOG_CHUNKS_MAX;
                u32::try_from(limit)
                    .ok()
                    .filter(|limit| (1..=max).contains(limit))
                    .ok_or_else(|| {
                        ApiError::field("limit", format!("limit must be between 1 and {max}"))
                    })?
            }
        };
        Ok(Self {
            // A browser repeats the first query for ever, and says in the header where it is.
            after: after.max(last),
            limit: limit as usize,
        })
    }
}

fn number(field: &str, text: &[u8]) -> ApiResult<u64> {
    let digits = (1..=20).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    let parsed = std::str::from_utf8(text).ok().filter(|_| digits);
    parsed
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| ApiError::field(field, format!("{field} must be a non-negative integer")))
}

impl App {
    /// One page of a command's log.
    pub(crate) async fn log_page(
        &self,
        who: &Principal,
        id: &str,
        place: Place,
    ) -> ApiResult<LogPage> {
        let found = self.find_command(who, id).await?;
        let (files, index) = self.log_of(&found).await?;
        let omitted = omitted_bytes(&found, &index);
        Ok(page(id, &files, &index, place, omitted).await?)
    }

    /// Everything after some place, and what comes as long as the command runs.
    pub(crate) async fn follow_log(
        &self,
        who: &Principal,
        id: &str,
        place: Place,
    ) -> ApiResult<impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static> {
        let found = self.find_command(who, id).await?;
        let (files, index) = self.log_of(&found).await?;
        let position = Position::after(place.after, &index);
        if position.seq.saturating_add(1) < index.first_seq() {
            let first_seq = index.first_seq();
            return Err(LogError::Gap { first_seq }.into());
        }
        let live = Watched::of(&found);
        let following = Following {
            app: self.clone(),
            found,
            files,
            index,
            position,
            live,
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

    /// Removes logs that have become too old.
    pub(crate) async fn purge_logs(&self) {
        let Some(age) = self.config.command_log_age_max() else {
            return;
        };
        let directory = self.config.logs_dir();
        let purged = tokio::task::spawn_blocking(move || {
            let before = SystemTime::now().checked_sub(age);
            before.map_or(Ok(0), |before| command_log::purge(&directory, before))
        });
        match purged.await {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(segments)) => tracing::info!(segments, "old logs of commands removed"),
            Ok(Err(error)) => tracing::warn!(%error, "removing old logs of commands failed"),
        }
    }

    /// The bytes of a command's log as they were printed, both streams in their order.
    pub(crate) async fn download_log(
        &self,
        found: &Found,
    ) -> ApiResult<impl Stream<Item = Result<Bytes, ApiError>> + Send + 'static> {
        let (files, index) = self.log_of(found).await?;
        let position = Position::after(None, &index);
        Ok(futures_util::stream::try_unfold(
            (files, index, position),
            |(files, index, mut position)| async move {
                let some = read(&files, &index, &mut position, |records| joined(&records));
                let bytes = some.await?;
                Ok(bytes.map(|bytes| (bytes, (files, index, position))))
            },
        ))
    }
}

fn joined(records: &[Record]) -> Bytes {
    let mut bytes = Vec::with_capacity(READ_BYTES_MAX);
    for record in records {
        bytes.extend_from_slice(&record.data);
    }
    bytes.into()
}

async fn page(
    id: &str,
    files: &LogFiles,
    index: &LogIndex,
    place: Place,
    omitted: u64,
) -> Result<LogPage, LogError> {
    let mut position = Position::after(place.after, index);
    let (mut data, mut bytes, mut has_more) = (Vec::new(), 0, false);
    while !has_more {
        let id = id.to_owned();
        let chunks = move |records: Vec<Record>| -> Vec<_> {
            let sizes = records.iter().map(|record| record.data.len());
            sizes
                .zip(records.iter().map(|record| chunk(&id, record)))
                .collect()
        };
        let Some(chunks) = read(files, index, &mut position, chunks).await? else {
            break;
        };
        for (size, chunk) in chunks {
            if data.len() == place.limit || bytes >= limits::LOG_PAGE_BYTES_MAX {
                has_more = true;
                break;
            }
            bytes += size;
            data.push(chunk);
        }
    }
    Ok(LogPage {
        next_seq: data.last().map(|last: &LogChunk| last.seq),
        data,
        has_more,
        omitted_bytes: (omitted > 0).then_some(omitted),
    })
}

fn chunk(id: &str, record: &Record) -> LogChunk {
    LogChunk {
        command_id: id.to_owned(),
        created_at: Timestamp::from_millis(record.at / 1_000),
        data: String::from_utf8_lossy(&record.data).into_owned(),
        seq: record.seq,
        stream: match record.stream {
            command_log::LogStream::Stdout => LogStream::Stdout,
            command_log::LogStream::Stderr => LogStream::Stderr,
        },
    }
}

/// A client that follows a log. It holds what is being sent to it and nothing more: what a slow
/// client has not had yet is on disk.
#[derive(Debug)]
struct Following {
    app: App,
    found: Found,
    files: LogFiles,
    index: LogIndex,
    position: Position,
    /// None: it had ended before.
    live: Option<Watched>,
    beat_at: Instant,
    over: bool,
}

impl Following {
    /// What is sent next; None after the last event, and when the server stops.
    async fn next_frame(&mut self) -> Option<Bytes> {
        while !self.over {
            let ended = self.look();
            match self.next_records().await {
                Ok(Some(frame)) => {
                    self.beat_at = Instant::now() + HEARTBEAT_EVERY;
                    return Some(frame);
                }
                Ok(None) if ended => return Some(self.last_frame().await),
                Ok(None) => {}
                Err(error) => return Some(self.error(&error)),
            }
            let Some(live) = &mut self.live else {
                return None;
            };
            tokio::select! {
                () = live.news() => {}
                () = tokio::time::sleep_until(self.beat_at) => {
                    self.beat_at += HEARTBEAT_EVERY;
                    return Some(frame("heartbeat", &CommandEvent::Heartbeat {
                        created_at: Timestamp::now(),
                    }));
                }
                // The client finds the next server, which goes on where it was.
                () = self.app.stopping.cancelled() => return None,
            }
        }
        None
    }

    /// Sees how far the log has come. True when it will not come any further.
    fn look(&mut self) -> bool {
        let Some(live) = &mut self.live else {
            return true;
        };
        let (index, ended) = live.look();
        self.index = index;
        ended
    }

    async fn next_records(&mut self) -> ApiResult<Option<Bytes>> {
        if self.live.is_some() && self.index.has_nothing_after(self.position.seq) {
            return Ok(None);
        }
        let next = read(&self.files, &self.index, &mut self.position, |records| {
            events(&records)
        });
        Ok(next.await?)
    }

    async fn last_frame(&mut self) -> Bytes {
        self.over = true;
        let record: ApiResult<Command> = self.app.command_record(&self.found).await;
        match record {
            Ok(command) if command.status.is_terminal() => {
                let event = CommandEvent::Terminal {
                    command: Box::new(command),
                    created_at: Timestamp::now(),
                };
                frame("terminal", &event)
            }
            // Another server drives it.
            Ok(_) => self.error(&ApiError::new(
                crownest_api::ErrorCode::Unavailable,
                "the command is not reachable from this server",
            )),
            Err(error) => self.error(&error),
        }
    }

    fn error(&mut self, error: &ApiError) -> Bytes {
        self.over = true;
        if let Some(cause) = &error.cause {
            tracing::error!(%cause, "a stream of a command broke off");
        }
        let event = CommandEvent::Error {
            code: error.code,
            message: error.message.clone(),
            created_at: Timestamp::now(),
        };
        frame("error", &event)
    }
}

fn frame(name: &str, event: &CommandEvent) -> Bytes {
    let mut frame = Vec::new();
    if let Err(error) = sse::push_event(name, event, &mut frame) {
        tracing::error!(%error, name, "an event could not be serialized");
    }
    frame.into()
}

/// Log events of these records, as [`CommandEvent::Log`] would be written.
fn events(records: &[Record]) -> Bytes {
    let bytes: usize = records.iter().map(|record| record.data.len()).sum();
    let mut frame = Vec::with_capacity(bytes + bytes / 8 + 256 * records.len());
    for record in records {
        let stream = match record.stream {
            command_log::LogStream::Stdout => "stdout",
            command_log::LogStream::Stderr => "stderr",
        };
        let at = Timestamp::from_millis(record.at / 1_000);
        let text = String::from_utf8_lossy(&record.data);
        sse::push_log_event(record.seq, stream, &text, at, &mut frame);
    }
    frame.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn place(after: Option<&str>, limit: Option<&str>, last: Option<&str>) -> ApiResult<Place> {
        let query = LogQuery {
            after_seq: after.map(str::to_owned),
            limit: limit.map(str::to_owned),
        };
        let mut headers = HeaderMap::new();
        if let Some(last) = last {
            headers.insert("last-event-id", HeaderValue::from_str(last).unwrap());
        }
        Place::check(&query, Some(&headers))
    }

    #[test]
    fn places_are_numbers_and_the_later_one_counts() {
        let after = |after, last| place(after, None, last).unwrap().after;
        assert_eq!(after(None, None), None);
        assert_eq!(after(Some("0"), None), Some(0));
        assert_eq!(after(Some("7"), Some("9")), Some(9));
        assert_eq!(after(Some("9"), Some("7")), Some(9));
        assert_eq!(after(None, Some("")), None);
        let max = u64::MAX.to_string();
        assert_eq!(after(Some(&max), None), Some(u64::MAX));
        for bad in ["-1", "1.0", " 1", "x", "18446744073709551616", "٣"] {
            assert!(place(Some(bad), None, None).is_err(), "{bad}");
        }
        assert!(place(None, None, Some("-1")).is_err());
        assert_eq!(place(None, Some("500"), None).unwrap().limit, 500);
        for bad in ["0", "501", "99999999999"] {
            assert!(place(None, Some(bad), None).is_err(), "{bad}");
        }
    }

    #[test]
    fn log_events_are_written_as_the_type_says() {
        let text = "a\n\u{2028}\"é\u{85}\0";
        let record = Record {
            seq: 12,
            stream: command_log::LogStream::Stderr,
            event: None,
            whole: true,
            handled: 1,
            at: 1_500_000,
            data: Bytes::from_static(text.as_bytes()),
        };
        let short = events(std::slice::from_ref(&record));
        let event = CommandEvent::Log {
            seq: 12,
            stream: LogStream::Stderr,
            data: text.to_owned(),
            created_at: Timestamp::from_millis(1_500),
        };
        let long = frame("log", &event);
        let short = String::from_utf8(short.to_vec()).unwrap();
        assert_eq!(
            short.replace("\nid: 12\n", "\n"),
            String::from_utf8(long.to_vec()).unwrap()
        );
        assert!(short.starts_with("event: log\nid: 12\ndata: {\"type\":\"log\",\"seq\":12,"));
    }
}
