//! One client at a terminal, for as long as it is there.
//!
//! What was printed comes first, as replays; then `connected`; then what is printed and what is
//! typed go their ways at the same time. A client that is slow is sent what it has not had yet
//! from the log, and the program does not wait for it; input waits until the program has read what
//! came before. Signals and sizes do not wait for input.

use super::command_log;
use super::terminal_frames::{self as frames, MESSAGE_BYTES_MAX, Notice, Told};
use super::terminals::{mode, start_failure};
use crate::app::App;
use crate::auth::Principal;
use crate::command_log::LogStream;
use crate::commands::Found;
use crate::error::ApiResult;
use crate::host::HostError;
use crate::request::RequestContext;
use crate::sandboxes::LiveSandbox;
use crate::terminals::{Kind, Output, Printed, Said, Seat, Terminal};
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout};

pub(super) const MODE_PIPE: &str = "pipe";
/// A client is asked this often whether it is there. While its input waits for the program nothing
/// is read of it: only this tells then that it has gone, and at the second time at the earliest.
const PING_EVERY: Duration = Duration::from_secs(5);
/// One that says nothing for so long is not.
const SILENCE_MAX: Duration = Duration::from_secs(75);
/// Messages of input that wait for the program, and bytes in them; then the client waits.
const INPUT_MESSAGES_MAX: usize = 256;
const INPUT_BYTES_MAX: usize = MESSAGE_BYTES_MAX;
/// Answers that wait to be sent.
const ANSWERS_MAX: usize = 16;
/// Longest message that is read at all: one between this and [`MESSAGE_BYTES_MAX`] is told so.
const SOCKET_BYTES_MAX: usize = 4 * MESSAGE_BYTES_MAX;
/// How long the program may take to read what a client has typed that has gone.
const LAST_INPUT_MAX: Duration = Duration::from_secs(10);
/// Longest wait for the last words to be taken.
const LAST_WORDS_MAX: Duration = Duration::from_secs(2);

/// Close codes of RFC 6455, and the one of this dialect.
const CLOSE_NORMAL: u16 = 1000;
const CLOSE_GOING_AWAY: u16 = 1001;
const CLOSE_POLICY: u16 = 1008;
const CLOSE_TOO_BIG: u16 = 1009;
const CLOSE_INTERNAL: u16 = 1011;
const CLOSE_TAKEN_OVER: u16 = 4001;

/// A client that is about to be connected.
pub(super) struct Connection {
    pub app: App,
    pub who: Arc<Principal>,
    pub request: RequestContext,
    pub live: Arc<LiveSandbox>,
    pub terminal: Arc<Terminal>,
    pub kind: Kind,
    pub since: Option<u64>,
}

/// Why a client is sent away.
#[derive(Debug)]
enum Parting {
    Exited(i64),
    TakenOver,
    Stopping,
    /// Its key was revoked.
    Revoked,
    TooBig(String),
    Failed(&'static str, String),
    /// It has gone by itself.
    Gone,
}

type Sender = SplitSink<WebSocket, Message>;
/// Input that waits, and its part of what may.
type Waiting = (Bytes, Option<OwnedSemaphorePermit>);

/// Where what was typed goes.
struct Typed {
    messages: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
}

impl Typed {
    /// Waits for room.
    async fn pass(&self, bytes: Bytes) {
        let size = u32::try_from(bytes.len().min(INPUT_BYTES_MAX)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(size).await.ok();
        // Nobody takes it only when this connection is over.
        let _ = self.messages.send((bytes, room)).await;
    }
}

impl Connection {
    /// Answers the handshake; the rest happens beside it. A place that is to be taken over is
    /// taken when the handshake is over, so that one that fails sends nobody away.
    /// `place` is this client's among those of its sandbox.
    pub(super) fn open(
        self,
        upgrade: WebSocketUpgrade,
        place: OwnedSemaphorePermit,
        seat: Option<Seat>,
    ) -> Response {
        let tasks = self.app.tasks.clone();
        upgrade
            .max_message_size(SOCKET_BYTES_MAX)
            .max_frame_size(SOCKET_BYTES_MAX)
            .on_upgrade(move |socket| {
                tasks.track_future(async move {
                    self.serve(socket, seat).await;
                    drop(place);
                })
            })
    }

    async fn serve(self, socket: WebSocket, seat: Option<Seat>) {
        let (mut sender, receiver) = socket.split();
        let seat = match seat {
            Some(seat) => Some(seat),
            None => self.terminal.take_over().await,
        };
        let Some(seat) = seat else {
            let message = "the client that has this session did not give way".to_owned();
            return part(&mut sender, Parting::Failed("ALREADY_CONNECTED", message)).await;
        };
        let parting = self.attend(&mut sender, receiver, &seat).await;
        // Whoever waits for the place gets it now: last words may take a moment.
        drop(seat);
        part(&mut sender, parting).await;
    }

    async fn attend(
        &self,
        sender: &mut Sender,
        receiver: SplitStream<WebSocket>,
        seat: &Seat,
    ) -> Parting {
        let begun = self.begin().await;
        let (found, mut output) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                if let Some(cause) = &error.cause {
                    tracing::error!(%cause, "a terminal could not be begun");
                }
                let (code, message) = start_failure(&error);
                return Parting::Failed(code, message.to_owned());
            }
        };
        self.app.note_terminal(
            &self.who,
            &self.request,
            &self.live,
            "terminal.attach",
            &self.terminal.id,
        );
        let (answer, answers) = mpsc::channel(ANSWERS_MAX);
        let (messages, input) = mpsc::channel(INPUT_MESSAGES_MAX);
        let typed = Typed {
            messages,
            room: Arc::new(Semaphore::new(INPUT_BYTES_MAX)),
        };
        let row = found.row();
        let exec = u64::try_from(row.exec).unwrap_or(0);
        let speaking = async {
            let connected = Notice::Connected {
                session_id: &self.terminal.id,
                mode: mode(&row),
                offset: output.begun_at,
            };
            speak(sender, &mut output, answers, connected.json()).await
        };
        let mut typing = pin!(self.type_in(input, exec, &answer));
        let parting = tokio::select! {
            biased;
            () = seat.evicted.cancelled() => Parting::TakenOver,
            () = self.app.stopping.cancelled() => Parting::Stopping,
            () = self.app.revocation(&self.who) => Parting::Revoked,
            parting = speaking => parting,
            parting = self.listen(receiver, exec, &typed, &answer) => parting,
            // Not while `typed` is there; polled here so that what is typed goes its way.
            () = &mut typing => Parting::Gone,
        };
        // Many a client says its last line and goes.
        drop(typed);
        if matches!(parting, Parting::Gone) {
            tokio::select! {
                () = seat.evicted.cancelled() => {}
                () = self.app.stopping.cancelled() => {}
                () = self.app.revocation(&self.who) => {}
                _ = timeout(LAST_INPUT_MAX, typing) => {}
            }
        }
        parting
    }

    /// The terminal, begun, and its output.
    async fn begin(&self) -> ApiResult<(Found, Output)> {
        let of = (&*self.terminal, self.kind);
        let found = self
            .app
            .begin_terminal(&self.who, &self.request, &self.live, of)
            .await?;
        let output = self.app.terminal_output(found.clone(), self.since).await?;
        Ok((found, output))
    }

    /// Does what the client says.
    async fn listen(
        &self,
        mut receiver: SplitStream<WebSocket>,
        exec: u64,
        typed: &Typed,
        answer: &mpsc::Sender<String>,
    ) -> Parting {
        loop {
            let message = match timeout(SILENCE_MAX, receiver.next()).await {
                Err(_) | Ok(None) => return Parting::Gone,
                Ok(Some(Err(error))) => return broken(&error),
                Ok(Some(Ok(message))) => message,
            };
            let told = match &message {
                Message::Binary(bytes) => frames::binary(bytes),
                Message::Text(text) => frames::text(text).map(Some),
                Message::Close(_) => return Parting::Gone,
                Message::Ping(_) | Message::Pong(_) => continue,
            };
            let done = match told {
                Ok(None) => Ok(()),
                Ok(Some(Told::Typed(bytes))) => {
                    typed.pass(bytes).await;
                    Ok(())
                }
                Ok(Some(Told::Ping)) => {
                    let _ = answer.send(Notice::Pong.json()).await;
                    Ok(())
                }
                Ok(Some(Told::Resize(size))) => self.live.host.resize_exec(exec, size).await,
                Ok(Some(Told::Signal(signal))) => {
                    self.live.host.signal_foreground(exec, signal).await
                }
                Err(wrong) => {
                    if message_bytes(&message) > MESSAGE_BYTES_MAX {
                        return Parting::TooBig(wrong);
                    }
                    tell(answer, "INVALID_FRAME", &wrong).await;
                    Ok(())
                }
            };
            match done {
                // Its end is on its way to the client.
                Ok(()) | Err(HostError::TargetUnknown | HostError::SandboxGone) => {}
                Err(HostError::Invalid(wrong)) => tell(answer, "INVALID_FRAME", &wrong).await,
                Err(error) => tell(answer, "RUNTIME_ERROR", &error.to_string()).await,
            }
        }
    }

    /// Gives the program what was typed, piece by piece.
    async fn type_in(
        &self,
        mut input: mpsc::Receiver<Waiting>,
        exec: u64,
        answer: &mpsc::Sender<String>,
    ) {
        while let Some((bytes, _room)) = input.recv().await {
            match self.live.host.write_exec(exec, bytes, false).await {
                Ok(()) | Err(HostError::TargetUnknown | HostError::SandboxGone) => {}
                Err(error) => tell(answer, "STDIN_WRITE_FAILED", &error.to_string()).await,
            }
        }
    }
}

fn message_bytes(message: &Message) -> usize {
    match message {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) => bytes.len(),
        _ => 0,
    }
}

/// A message that could not be read. The library says which of its limits it was in words.
fn broken(error: &axum::Error) -> Parting {
    let words = error.to_string();
    if words.contains("too long") || words.contains("too big") {
        let message = format!("a message has at most {MESSAGE_BYTES_MAX} bytes");
        return Parting::TooBig(message);
    }
    Parting::Gone
}

async fn tell(answer: &mpsc::Sender<String>, code: &'static str, error: &str) {
    let notice = Notice::Error { code, error };
    // Nobody takes it only when this connection is over.
    let _ = answer.send(notice.json()).await;
}

/// Sends what the terminal prints, and answers between it.
async fn speak(
    sender: &mut Sender,
    output: &mut Output,
    mut answers: mpsc::Receiver<String>,
    connected: String,
) -> Parting {
    let mut connected = Some(connected);
    let mut ping_at = Instant::now() + PING_EVERY;
    loop {
        if output.reached() >= output.begun_at
            && let Some(connected) = connected.take()
            && sender.send(Message::text(connected)).await.is_err()
        {
            return Parting::Gone;
        }
        let said = tokio::select! {
            biased;
            Some(answer) = answers.recv() => {
                if sender.send(Message::text(answer)).await.is_err() {
                    return Parting::Gone;
                }
                continue;
            }
            () = tokio::time::sleep_until(ping_at) => {
                ping_at = Instant::now() + PING_EVERY;
                if sender.send(Message::Ping(Bytes::new())).await.is_err() {
                    return Parting::Gone;
                }
                continue;
            }
            said = output.next() => said,
        };
        let messages = match said {
            Ok(Said::Printed(pieces)) => {
                let begun_at = output.begun_at;
                pieces
                    .into_iter()
                    .map(|piece| message(&piece, begun_at))
                    .collect()
            }
            Ok(Said::Omitted(bytes)) => vec![Message::text(Notice::Omitted { bytes }.json())],
            Ok(Said::Ended(row)) => {
                if let Some(connected) = connected.take() {
                    let _ = sender.send(Message::text(connected)).await;
                }
                return Parting::Exited(command_log::exit_code(&row).unwrap_or(-1));
            }
            Err(error) => {
                if let Some(cause) = &error.cause {
                    tracing::error!(%cause, "the output of a terminal broke off");
                }
                return Parting::Failed("RUNTIME_ERROR", error.message);
            }
        };
        for message in messages {
            if sender.send(message).await.is_err() {
                return Parting::Gone;
            }
        }
    }
}

/// What was printed before this client came is a replay.
fn message(piece: &Printed, begun_at: u64) -> Message {
    if piece.at < begun_at {
        return Message::Binary(frames::replay(piece.at, &piece.data));
    }
    let is_stderr = piece.stream == LogStream::Stderr;
    Message::Binary(frames::output(is_stderr, &piece.data))
}

/// Last words, if the client takes them.
async fn part(sender: &mut Sender, parting: Parting) {
    let error = |code, error: &str| Notice::Error { code, error }.json();
    let (notice, code, reason) = match &parting {
        Parting::Gone => (None, CLOSE_NORMAL, ""),
        Parting::Exited(exit_code) => {
            let exit_code = *exit_code;
            let notice = Notice::Exit { exit_code }.json();
            (Some(notice), CLOSE_NORMAL, "process exited")
        }
        Parting::TakenOver => (None, CLOSE_TAKEN_OVER, "TAKEN_OVER"),
        Parting::Stopping => (None, CLOSE_GOING_AWAY, "the server restarts"),
        Parting::Revoked => {
            let notice = error("UNAUTHORIZED", "the credential is revoked or over");
            (Some(notice), CLOSE_POLICY, "UNAUTHORIZED")
        }
        Parting::TooBig(wrong) => {
            let notice = error("INVALID_FRAME", wrong);
            (Some(notice), CLOSE_TOO_BIG, "message too long")
        }
        Parting::Failed(code, message) => (Some(error(code, message)), CLOSE_INTERNAL, *code),
    };
    let words = async {
        if let Some(notice) = notice {
            sender.send(Message::text(notice)).await?;
        }
        let frame = CloseFrame {
            code,
            reason: reason.into(),
        };
        sender.send(Message::Close(Some(frame))).await?;
        sender.close().await
    };
    // A client that does not take them has gone.
    let _ = timeout(LAST_WORDS_MAX, words).await;
}
