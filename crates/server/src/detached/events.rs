//! Following a detached run: what it said behind some number, then what comes, then its end.

use super::drive::error_of;
use super::live::{Found, LiveRun};
use super::log_event::{Assembler, Followed};
use crate::app::App;
use crate::auth::Principal;
use crate::command_log::{LogError, LogFiles, LogIndex, LogStream, Position, Record, read};
use crate::commands::Place;
use crate::error::{ApiError, ApiResult};
use crate::sse;
use bytes::Bytes;
use crownest_api::code::CodeError;
use crownest_api::detached_run::CodeRunEvent;
use crownest_api::{ErrorCode, Timestamp};
use futures_util::Stream;
use serde::Serialize;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// A stream that has nothing to say says so this often.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);

impl App {
    /// Everything after some place, and what comes as long as the run goes on.
    pub(crate) async fn follow_detached(
        &self,
        who: &Principal,
        sandbox_id: &str,
        id: &str,
        place: Place,
    ) -> ApiResult<impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static + use<>> {
        let found = self.find_detached(who, sandbox_id, id).await?;
        let (files, index, live) = match &found {
            Found::Live(run) => {
                let watched = Watched {
                    written: run.log.watch(),
                    ended: run.watch_end(),
                    run: Arc::clone(run),
                };
                (run.log.files.clone(), run.log.index(), Some(watched))
            }
            Found::Stored(row) => {
                let files = self.run_log_files(&row.id);
                let looking = tokio::task::spawn_blocking(move || {
                    let index = files.index()?;
                    Ok((files, index))
                });
                let looked: Result<_, LogError> = looking.await.map_err(ApiError::internal)?;
                let (files, index) = looked?;
                (files, index, None)
            }
        };
        let position = Position::after(place.after, &index);
        if position.seq.saturating_add(1) < index.first_seq() {
            let first_seq = index.first_seq();
            return Err(LogError::Gap { first_seq }.into());
        }
        let following = Following {
            app: self.clone(),
            found,
            files,
            index,
            position,
            assembler: Arc::default(),
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
}

/// A run that is not over, and the news of it.
#[derive(Debug)]
struct Watched {
    run: Arc<LiveRun>,
    written: watch::Receiver<u64>,
    ended: watch::Receiver<bool>,
}

/// A client that follows a run. It holds what is being sent to it and nothing more: what a slow
/// client has not had yet is on disk.
#[derive(Debug)]
struct Following {
    app: App,
    found: Found,
    files: LogFiles,
    index: LogIndex,
    position: Position,
    /// Shared with nobody but the reading beside the event loop.
    assembler: Arc<Mutex<Assembler>>,
    /// None: it had ended before.
    live: Option<Watched>,
    beat_at: Instant,
    over: bool,
}

impl Following {
    /// What is sent next; None after the last event, and when the server stops.
    async fn next_frame(&mut self) -> Option<Bytes> {
        while !self.over {
            // First the end, then the log: what was written before the end is in it.
            let ended = self.look();
            match self.next_records().await {
                Ok(Read::Frame(frame)) => {
                    self.beat_at = Instant::now() + HEARTBEAT_EVERY;
                    return Some(frame);
                }
                Ok(Read::More) => continue,
                Ok(Read::Nothing) if ended => return Some(self.last_frame()),
                Ok(Read::Nothing) => {}
                Err(error) => return Some(self.broken_off(&error)),
            }
            let Some(live) = &mut self.live else {
                return None;
            };
            tokio::select! {
                _ = live.written.changed() => {}
                _ = live.ended.wait_for(|ended| *ended) => {}
                () = tokio::time::sleep_until(self.beat_at) => {
                    self.beat_at += HEARTBEAT_EVERY;
                    let created_at = Timestamp::now();
                    return Some(frame("heartbeat", &CodeRunEvent::Heartbeat { created_at }));
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
        let ended = *live.ended.borrow();
        live.written.borrow_and_update();
        self.index = live.run.log.index();
        ended
    }

    async fn next_records(&mut self) -> ApiResult<Read> {
        if self.live.is_some() && self.index.has_nothing_after(self.position.seq) {
            return Ok(Read::Nothing);
        }
        let assembler = Arc::clone(&self.assembler);
        let next = read(
            &self.files,
            &self.index,
            &mut self.position,
            move |records| {
                let mut assembler = assembler.lock().unwrap_or_else(PoisonError::into_inner);
                events(&records, &mut assembler)
            },
        );
        Ok(next.await?.unwrap_or(Read::Nothing))
    }

    /// How the run ended, and with which error.
    fn last_frame(&mut self) -> Bytes {
        let row = self.found.row();
        if !row.status.is_terminal() {
            // Another server drives it.
            return self.broken_off(&ApiError::new(
                ErrorCode::Unavailable,
                "the run is not reachable from this server",
            ));
        }
        let run = match super::record::wire(&row) {
            Ok(run) => run,
            Err(error) => return self.broken_off(&error),
        };
        self.over = true;
        let created_at = Timestamp::now();
        let mut out = Vec::new();
        if let Some(data) = run.result.as_deref().and_then(error_of) {
            push("error", &CodeRunEvent::Error { data, created_at }, &mut out);
        }
        let data = Box::new(run);
        let complete = CodeRunEvent::Complete { data, created_at };
        push("complete", &complete, &mut out);
        out.into()
    }

    fn broken_off(&mut self, error: &ApiError) -> Bytes {
        self.over = true;
        if let Some(cause) = &error.cause {
            tracing::error!(%cause, "a stream of a detached run broke off");
        }
        let data = CodeError {
            message: error.message.clone(),
            name: Some(error.code.as_str().to_owned()),
            traceback: None,
            line: None,
        };
        let created_at = Timestamp::now();
        frame("error", &CodeRunEvent::Error { data, created_at })
    }
}

/// What a look into the log brought.
#[derive(Debug)]
enum Read {
    Frame(Bytes),
    /// Records of which nothing is shown yet.
    More,
    Nothing,
}

fn frame(name: &str, event: &CodeRunEvent) -> Bytes {
    let mut out = Vec::new();
    push(name, event, &mut out);
    out.into()
}

fn push<T: Serialize>(name: &str, event: &T, out: &mut Vec<u8>) {
    if let Err(error) = sse::push_event(name, event, out) {
        tracing::error!(%error, name, "an event could not be serialized");
    }
}

/// The events of these records for a client.
fn events(records: &[Record], assembler: &mut Assembler) -> Read {
    let bytes: usize = records.iter().map(|record| record.data.len()).sum();
    let mut out = Vec::with_capacity(bytes + bytes / 8 + 128 * records.len());
    for record in records {
        let at = Timestamp::from_millis(record.at / 1_000);
        match record.event {
            None => {
                let name = match record.stream {
                    LogStream::Stdout => "stdout",
                    LogStream::Stderr => "stderr",
                };
                let text = String::from_utf8_lossy(&record.data);
                sse::push_run_text_event(record.seq, name, &text, at, &mut out);
            }
            Some(part) => {
                let Some(event) = assembler.push(record, part) else {
                    continue;
                };
                if let Some(event) = Followed::of(&event, record.seq, at) {
                    let kind = event.kind.clone();
                    if let Err(error) =
                        sse::push_numbered_event(record.seq, &kind, &event, &mut out)
                    {
                        tracing::error!(%error, "an event could not be serialized");
                    }
                }
            }
        }
    }
    if out.is_empty() {
        Read::More
    } else {
        Read::Frame(out.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command_log::Part;

    #[test]
    fn output_is_written_as_the_type_says() {
        let text = "a\n\u{2028}\"é\u{85}\0";
        let record = Record {
            seq: 12,
            stream: LogStream::Stderr,
            event: None,
            whole: true,
            handled: 1,
            at: 1_500_000,
            data: Bytes::from_static(text.as_bytes()),
        };
        let mut assembler = Assembler::default();
        let Read::Frame(short) = events(std::slice::from_ref(&record), &mut assembler) else {
            panic!()
        };
        let event = CodeRunEvent::Stderr {
            seq: 12,
            data: text.to_owned(),
            created_at: Timestamp::from_millis(1_500),
        };
        let short = String::from_utf8(short.to_vec()).unwrap();
        assert_eq!(
            short.strip_prefix("id: 12\n").unwrap(),
            String::from_utf8(frame("stderr", &event).to_vec()).unwrap()
        );
        let part = Part {
            begins: true,
            ends: false,
        };
        let begun = Record {
            event: Some(part),
            ..record
        };
        assert!(matches!(events(&[begun], &mut assembler), Read::More));
    }
}
