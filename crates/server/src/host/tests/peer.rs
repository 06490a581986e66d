//! The other end of a link, for tests: real frames over a real socket, with init's rules for
//! windows, acknowledgements and attaching. What a cell "does" is a word of its source.

use crownest_init::frame::{Decoder, encode};
use crownest_init::link::{
    Call, CallError, CallErrorCode, ContextState, Death, Event, EventKind, ExecOutcome, FileKind,
    FileStat, LINK_VERSION, Reply, ReplyResult, Request, RunOutcome, Stream, TargetState,
    WINDOW_BYTES_MAX,
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, sendmsg};
use std::collections::{BTreeMap, VecDeque};
use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

const CHUNK_BYTES: usize = 64 * 1024;
/// What an upload may have before its disk is full.
pub(crate) const UPLOAD_ROOM_BYTES: u64 = 4 * 1024 * 1024;
/// What init charges for an event beside its body.
const EVENT_COST_BYTES: usize = 192;

/// A peer that serves until it is stopped.
#[derive(Debug)]
pub(crate) struct Peer {
    listener: Arc<UnixListener>,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) contexts: Vec<String>,
    pub(crate) spares: Vec<String>,
    pub(crate) requests: Vec<Request>,
    targets: BTreeMap<u64, Target>,
    connection: Option<UnixStream>,
    pub(crate) connections: usize,
    /// Cut the connection after so many more frames, once.
    pub(crate) cut_after: Option<usize>,
    stopped: bool,
}

#[derive(Debug, Default)]
struct Target {
    context: Option<String>,
    kept: bool,
    seq: u64,
    sent: Option<u64>,
    events: VecDeque<(u64, EventKind, Vec<u8>)>,
    held: usize,
    /// Bytes of output still to come, and how many came.
    flood: usize,
    flooded: usize,
    chunk: usize,
    done: bool,
    /// What it ends with when the flood is over.
    end: Option<End>,
}

#[derive(Debug, Clone)]
enum End {
    Run(RunOutcome),
    Exec(ExecOutcome),
}

impl Peer {
    pub(crate) fn start(socket: &Path) -> Self {
        let listener = Arc::new(UnixListener::bind(socket).unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let (l, s) = (Arc::clone(&listener), Arc::clone(&state));
        let thread = std::thread::spawn(move || serve(&l, &s));
        Self {
            listener,
            state,
            thread: Some(thread),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Closes the connection; the peer goes on.
    pub(crate) fn cut(&self) {
        if let Some(connection) = self.state().connection.take() {
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Bytes that a target has produced so far.
    pub(crate) fn flooded(&self, id: u64) -> usize {
        self.state()
            .targets
            .get(&id)
            .map_or(0, |target| target.flooded)
    }

    /// Runs and processes that are remembered.
    pub(crate) fn targets(&self) -> usize {
        self.state().targets.len()
    }

    /// Says something that no init may say.
    pub(crate) fn misbehave(&self) {
        let state = self.state();
        let event = Event {
            fds: 0,
            kind: hello(&state),
        };
        write(state.connection.as_ref().unwrap(), &event, &[], &[]);
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.state().stopped = true;
        let _ = rustix::net::shutdown(self.listener.as_fd(), Shutdown::Both);
        self.cut();
        let _ = self.thread.take().unwrap().join();
    }
}

fn hello(state: &State) -> EventKind {
    EventKind::Hello {
        version: LINK_VERSION,
        contexts: state
            .contexts
            .iter()
            .map(|id| ContextState {
                context: id.clone(),
                language: "python".into(),
            })
            .collect(),
        spares: state.spares.clone(),
        targets: state
            .targets
            .iter()
            .map(|(id, target)| TargetState {
                target: *id,
                context: target.context.clone(),
                seq: target.seq,
                done: target.done,
                kept: target.kept,
            })
            .collect(),
        clock_stopped: false,
        deadline_ms: None,
    }
}

fn serve(listener: &UnixListener, state: &Mutex<State>) {
    while let Ok((connection, _)) = listener.accept() {
        {
            let mut state = state.lock().unwrap();
            if state.stopped {
                return;
            }
            state.connections += 1;
            for target in state.targets.values_mut() {
                target.sent = None;
            }
            let event = Event {
                fds: 0,
                kind: hello(&state),
            };
            write(&connection, &event, &[], &[]);
            state.connection = Some(connection.try_clone().unwrap());
        }
        converse(&connection, state);
    }
}

/// Answers until the connection ends.
fn converse(mut connection: &UnixStream, state: &Mutex<State>) {
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match connection.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(n) => decoder.push(&buffer[..n]),
        }
        while let Some(frame) = decoder.next_frame().unwrap() {
            let call: Call = serde_json::from_slice(&frame.head).unwrap();
            let mut state = state.lock().unwrap();
            state.requests.push(call.request.clone());
            state.answer(connection, call, &frame.body);
            state.pump(connection);
        }
    }
}

fn write(connection: &UnixStream, event: &Event, body: &[u8], fds: &[BorrowedFd<'_>]) {
    let mut bytes = Vec::new();
    encode(&serde_json::to_vec(event).unwrap(), body, &mut bytes);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    }
    let mut sent = 0;
    while sent < bytes.len() {
        let part = [IoSlice::new(&bytes[sent..])];
        let result = if sent == 0 {
            sendmsg(connection, &part, &mut control, SendFlags::NOSIGNAL)
        } else {
            sendmsg(
                connection,
                &part,
                &mut SendAncillaryBuffer::default(),
                SendFlags::NOSIGNAL,
            )
        };
        // The server may have gone: it comes back and asks again.
        let Ok(n) = result else { return };
        sent += n;
    }
}

fn stat() -> FileStat {
    FileStat {
        path: "/workspace/f".into(),
        kind: FileKind::File,
        size: 1 << 40,
        mode: 0o644,
        modified_ms: 0,
        created_ms: 0,
        uid: 1000,
        gid: 1000,
    }
}

/// Hands out what the path says: a file in memory, or something that no init may hand out.
fn open_as_told(connection: &UnixStream, id: u64, path: &str) {
    let (pipe, _other) = rustix::pipe::pipe().unwrap();
    let memory = rustix::fs::memfd_create("f", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::io::write(&memory, b"content").unwrap();
    let proc = std::fs::File::open("/proc/self/status").unwrap();
    let fds: &[BorrowedFd<'_>] = match path {
        "pipe" => &[pipe.as_fd()],
        "proc" => &[proc.as_fd()],
        "two" => &[memory.as_fd(), memory.as_fd()],
        "nothing" => &[],
        _ => &[memory.as_fd()],
    };
    let event = Event {
        fds: u32::try_from(fds.len()).unwrap(),
        kind: EventKind::Reply {
            id,
            result: ReplyResult::Ok(Reply {
                stat: Some(stat()),
                ..Reply::default()
            }),
        },
    };
    write(connection, &event, &[], fds);
}

impl State {
    fn reply(&self, connection: &UnixStream, id: u64, result: ReplyResult) {
        write(
            connection,
            &Event {
                fds: 0,
                kind: EventKind::Reply { id, result },
            },
            &[],
            &[],
        );
    }

    fn answer(&mut self, connection: &UnixStream, call: Call, body: &[u8]) {
        let ok = ReplyResult::Ok(Reply {
            pid: Some(7),
            ..Reply::default()
        });
        let refused = |code| {
            ReplyResult::Error(CallError {
                code,
                message: "refused".into(),
            })
        };
        let result = match call.request {
            Request::Ack { target, seq } => return self.acknowledge(target, seq),
            Request::Attach { target, seq } => match self.targets.get_mut(&target) {
                Some(found) => {
                    found.sent = Some(seq);
                    self.acknowledge(target, seq);
                    ok
                }
                None => refused(CallErrorCode::UnknownTarget),
            },
            Request::ContextAdopt { language } => {
                self.spares.push(language);
                ok
            }
            Request::SpareSpawn { language, .. } => {
                self.spares.push(language);
                ok
            }
            Request::ContextOpen {
                context, language, ..
            } => match self.spares.iter().position(|spare| *spare == language) {
                Some(index) => {
                    self.spares.remove(index);
                    self.contexts.push(context);
                    ok
                }
                None => refused(CallErrorCode::NoSpare),
            },
            Request::ContextSpawn { context, .. } => {
                self.contexts.push(context);
                ok
            }
            Request::Run {
                context,
                run,
                quiet,
                options,
                ..
            } if self.contexts.contains(&context) => {
                let code = String::from_utf8(body.to_vec()).unwrap();
                let running = |t: &Target| !t.done && t.context.as_ref() == Some(&context);
                if self.targets.values().any(running) {
                    refused(CallErrorCode::ContextBusy)
                } else if code == "refuse" {
                    refused(CallErrorCode::ContextDead)
                } else {
                    self.start_run(run, &context, &code);
                    if let Some(target) = self.targets.get_mut(&run) {
                        target.kept = options.keep;
                    }
                    if quiet {
                        return;
                    }
                    ok
                }
            }
            Request::Run { .. } => refused(CallErrorCode::ContextUnknown),
            Request::Exec { exec, argv, .. } => {
                self.start_exec(exec, &argv);
                ok
            }
            Request::Input { run, .. } if !self.targets.contains_key(&run) => {
                refused(CallErrorCode::InputNotAwaited)
            }
            Request::Input { run, .. } => {
                self.end(run, End::Run(RunOutcome::Completed));
                ok
            }
            Request::Interrupt { run } => {
                self.end(run, End::Run(RunOutcome::Interrupted));
                ok
            }
            Request::Signal { exec, signal, .. } => {
                self.end(exec, End::Exec(ExecOutcome::Signaled { signal }));
                ok
            }
            Request::FileOpen { path, .. } => return open_as_told(connection, call.id, &path),
            Request::UploadPiece { offset, .. } if offset >= UPLOAD_ROOM_BYTES => {
                refused(CallErrorCode::NoSpace)
            }
            Request::UploadCommit { .. } => ReplyResult::Ok(Reply {
                stat: Some(stat()),
                ..Reply::default()
            }),
            _ => ok,
        };
        self.reply(connection, call.id, result);
    }

    fn acknowledge(&mut self, id: u64, seq: u64) {
        let Some(target) = self.targets.get_mut(&id) else {
            return;
        };
        while target.events.front().is_some_and(|event| event.0 <= seq) {
            let event = target.events.pop_front().unwrap();
            target.held -= event.2.len() + EVENT_COST_BYTES;
        }
        target.sent = target.sent.map(|sent| sent.max(seq));
        if target.done && target.events.is_empty() {
            self.targets.remove(&id);
        }
    }

    fn start_run(&mut self, id: u64, context: &str, code: &str) {
        let mut target = Target {
            context: Some(context.to_owned()),
            sent: Some(0),
            chunk: CHUNK_BYTES,
            ..Target::default()
        };
        let (word, rest) = code.split_once(' ').unwrap_or((code, ""));
        let completed = Some(End::Run(RunOutcome::Completed));
        match word {
            "echo" => {
                target.push(id, rest.as_bytes().to_vec(), Say::Output);
                target.end = completed;
            }
            "kernel" => {
                target.push(id, rest.as_bytes().to_vec(), Say::Kernel);
                target.end = completed;
            }
            "ask" => target.push(id, rest.as_bytes().to_vec(), Say::Kernel),
            "flood" => {
                target.flood = rest.parse().unwrap();
                target.end = completed;
            }
            "drip" => {
                target.flood = rest.parse().unwrap();
                target.chunk = 1;
                target.end = completed;
            }
            "die" => {
                self.contexts.retain(|c| c != context);
                let signal = Some(rest.parse().unwrap());
                let death = Death {
                    signal,
                    ..Death::default()
                };
                target.end = Some(End::Run(RunOutcome::Died(death)));
            }
            "hang" => {}
            other => panic!("unknown cell {other}"),
        }
        self.targets.insert(id, target);
    }

    fn start_exec(&mut self, id: u64, argv: &[String]) {
        let mut target = Target {
            sent: Some(0),
            chunk: CHUNK_BYTES,
            ..Target::default()
        };
        match argv[0].as_str() {
            "true" => target.end = Some(End::Exec(ExecOutcome::Exited { code: 0 })),
            "flood" => {
                target.flood = argv[1].parse().unwrap();
                target.end = Some(End::Exec(ExecOutcome::Exited { code: 3 }));
            }
            "hang" => {}
            other => panic!("unknown program {other}"),
        }
        self.targets.insert(id, target);
    }

    fn end(&mut self, id: u64, end: End) {
        if let Some(target) = self.targets.get_mut(&id)
            && !target.done
        {
            target.flood = 0;
            target.end = Some(end);
        }
    }

    /// Produces what there is room for, and sends what the connection has not been given.
    fn pump(&mut self, connection: &UnixStream) {
        for (id, target) in &mut self.targets {
            target.produce(*id);
            let Some(sent) = target.sent else { continue };
            for (seq, kind, body) in target.events.iter().filter(|event| event.0 > sent) {
                if let Some(left) = &mut self.cut_after {
                    if *left == 0 {
                        self.cut_after = None;
                        let _ = connection.shutdown(std::net::Shutdown::Both);
                        return;
                    }
                    *left -= 1;
                }
                write(
                    connection,
                    &Event {
                        fds: 0,
                        kind: kind.clone(),
                    },
                    body,
                    &[],
                );
                target.sent = Some(*seq);
            }
        }
    }
}

enum Say {
    Output,
    Kernel,
    End(End),
}

impl Target {
    fn push(&mut self, target: u64, body: Vec<u8>, say: Say) {
        self.seq += 1;
        let seq = self.seq;
        let kind = match say {
            Say::Output => EventKind::Output {
                target,
                seq,
                stream: Stream::Stdout,
            },
            Say::Kernel => EventKind::Kernel { target, seq },
            Say::End(End::Run(outcome)) => EventKind::RunDone {
                target,
                seq,
                outcome,
                execution_count: 1,
                duration_us: 10,
                background_dropped: 0,
                cpu_us: None,
                usage: None,
            },
            Say::End(End::Exec(outcome)) => EventKind::ExecDone {
                target,
                seq,
                outcome,
                duration_us: 10,
            },
        };
        self.held += body.len() + EVENT_COST_BYTES;
        self.events.push_back((seq, kind, body));
    }

    fn produce(&mut self, id: u64) {
        while self.flood > 0 && self.held < WINDOW_BYTES_MAX {
            let length = self.flood.min(self.chunk);
            let body: Vec<u8> = (self.flooded..self.flooded + length).map(pattern).collect();
            self.flood -= length;
            self.flooded += length;
            self.push(id, body, Say::Output);
        }
        if self.flood == 0
            && !self.done
            && let Some(end) = self.end.take()
        {
            self.push(id, Vec::new(), Say::End(end));
            self.done = true;
        }
    }
}

/// The byte at a position of a flood: loss, repetition and reordering all show.
pub(crate) fn pattern(position: usize) -> u8 {
    u8::try_from(position % 251).expect("below 251")
}
