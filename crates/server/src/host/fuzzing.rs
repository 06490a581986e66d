//! What the fuzz targets need of this folder's private half. Every byte here stands for one that
//! an init, and tenant code behind it, may have sent.

use super::inbox::Inbox;
use super::kernel_event;
use super::link::Link;
use super::link_task::{hand_over, parse_hello, take_hello};
use super::sandbox::{Identity, Sandbox, Shared};
use super::spawner::{
    CreateSpec, Created, ForkedDriver, SandboxKey, SandboxStats, Spawner, SpawnerError,
    TemplateDigest,
};
use super::target::{Item, Target};
use super::types::{RunEvent, TemplateRef};
use crate::egress::Policy;
use crownest_init::frame::Frame;
use crownest_init::link::{Event, EventKind, Stream};
use futures_util::future::BoxFuture;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};

/// The process that is read to its end.
const PROCESS: u64 = 1;
/// A process whose consumer never comes back, and a run that was given up.
const LEFT: u64 = 2;
const ABANDONED: u64 = 3;

/// One event of a driver, as the consumer of its run reads it.
#[must_use]
pub fn event(json: &[u8]) -> Option<RunEvent> {
    kernel_event::parse(json)
}

/// A sandbox whose init says whatever it likes.
#[derive(Debug)]
pub struct InitLink {
    runtime: Runtime,
    shared: Arc<Shared>,
}

impl InitLink {
    /// Everything that outlives one connection.
    #[must_use]
    pub fn new() -> Self {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let shared = Arc::new(Shared {
            spawner: Arc::new(NoSpawner),
            egress: Arc::new(Policy::default()),
            counters: super::counters::Counters::default(),
        });
        Self { runtime, shared }
    }

    /// One connection: `said` are the pieces in which its bytes arrive, `frames` what they mean.
    ///
    /// # Panics
    /// When output of a process is lost, doubled or out of order.
    pub fn hear(&self, said: &[&[u8]], frames: &[Frame]) {
        self.runtime.block_on(async {
            self.connection(said, frames);
            // The runtime forgets sockets that were closed when it has a turn of its own.
            tokio::task::yield_now().await;
        });
    }

    fn connection(&self, said: &[&[u8]], frames: &[Frame]) {
        let (ours, _theirs) = UnixStream::pair().expect("a pair of sockets");
        let link = Arc::new(Link::from_stream(ours));
        let sandbox = self.sandbox(&link);
        let process = Arc::new(Target::exec(PROCESS, 0));
        for target in [
            Arc::clone(&process),
            Arc::new(Target::exec(LEFT, 0)),
            Arc::new(Target::abandoned_run(ABANDONED, 0, None, None)),
        ] {
            sandbox.add_target(&target).expect("room for three");
        }
        sandbox.contexts.open("a").expect("a new id").done();
        let mut got = Heard::default();
        let mut inbox = Inbox::default();
        let mut greeted = false;
        // Init knows the process, and nothing that it said ended the connection.
        let mut faithful = false;
        for piece in said {
            inbox.push(piece);
            if !greeted {
                let Ok(first) = inbox.next_frame() else { break };
                let Some(first) = first else { continue };
                let Ok(hello) = parse_hello(&first, &mut inbox) else {
                    break;
                };
                faithful = hello.targets.iter().any(|t| t.target == PROCESS);
                take_hello(&sandbox, &link, hello);
                greeted = true;
            }
            let handed = hand_over(&sandbox, &link, &mut inbox);
            got.take(&process);
            if handed.is_err() {
                faithful = false;
                break;
            }
        }
        got.take(&process);
        got.is_of(frames, faithful);
        sandbox.close(super::ClosedReason::InitGone);
        got.take(&process);
        assert!(got.ended, "a sandbox that is gone ends its processes");
    }

    fn sandbox(&self, link: &Arc<Link>) -> Arc<Sandbox> {
        let identity = Identity {
            key: SandboxKey::new("fuzz").expect("a key"),
            template: TemplateRef {
                slug: "python".into(),
                digest: "00".repeat(32),
            },
            digest: TemplateDigest([0; 32]),
            socket: PathBuf::new(),
            egress: None,
        };
        Sandbox::new(identity, Arc::clone(&self.shared), Arc::clone(link))
    }
}

impl Default for InitLink {
    fn default() -> Self {
        Self::new()
    }
}

/// What the consumer of the process got.
#[derive(Debug, Default)]
struct Heard {
    output: Vec<(Stream, Vec<u8>)>,
    acknowledged: u64,
    ended: bool,
}

impl Heard {
    fn take(&mut self, target: &Target) {
        let mut cx = TaskContext::from_waker(Waker::noop());
        while let Poll::Ready(Some(item)) = target.poll_take(&mut cx) {
            assert!(!self.ended, "{item:?} after the end");
            match item {
                Item::Output { stream, data } => self.add(stream, &data),
                Item::Kernel { .. } => {}
                Item::RunDone { .. }
                | Item::ExecDone { .. }
                | Item::NeverBegan { .. }
                | Item::Gone { .. } => {
                    self.ended = true;
                }
            }
            if let Some(seq) = target.ack_due() {
                assert!(seq > self.acknowledged && seq <= target.taken_seq());
                self.acknowledged = seq;
            }
        }
    }

    /// Pieces are joined by the server as it likes: only the bytes count.
    fn add(&mut self, stream: Stream, data: &[u8]) {
        match self.output.last_mut() {
            Some((last, bytes)) if *last == stream => bytes.extend_from_slice(data),
            _ => self.output.push((stream, data.to_vec())),
        }
    }

    /// The events of the process in their order, each once: all of them, or, where the server
    /// stopped listening, a part.
    fn is_of(&self, frames: &[Frame], all: bool) {
        let mut said = Self::default();
        let mut seq = 0;
        for frame in frames.iter().skip(1) {
            let Ok(event) = serde_json::from_slice::<Event>(&frame.head) else {
                break;
            };
            let (target, at, stream) = match event.kind {
                EventKind::Output {
                    target,
                    seq,
                    stream,
                } => (target, seq, Some(stream)),
                EventKind::Kernel { target, seq }
                | EventKind::RunDone { target, seq, .. }
                | EventKind::ExecDone { target, seq, .. } => (target, seq, None),
                _ => continue,
            };
            if target != PROCESS || at != seq + 1 || said.ended {
                continue;
            }
            seq = at;
            match stream {
                Some(stream) => said.add(stream, &frame.body),
                None => said.ended = !matches!(event_kind(frame), Some(EventKind::Kernel { .. })),
            }
        }
        let (whole, part) = (flat(&said.output), flat(&self.output));
        assert!(whole.starts_with(&part), "{part:?} is not of {whole:?}");
        assert!(!all || whole.len() == part.len(), "{part:?} of {whole:?}");
    }
}

fn event_kind(frame: &Frame) -> Option<EventKind> {
    let event: Event = serde_json::from_slice(&frame.head).ok()?;
    Some(event.kind)
}

fn flat(output: &[(Stream, Vec<u8>)]) -> Vec<(Stream, u8)> {
    let bytes = output.iter();
    bytes
        .flat_map(|(stream, data)| data.iter().map(|byte| (*stream, *byte)))
        .collect()
}

/// Nothing that an init says makes the server call the spawner.
#[derive(Debug)]
struct NoSpawner;

fn never<'a, T>() -> BoxFuture<'a, Result<T, SpawnerError>> {
    panic!("an init made the server call the spawner")
}

impl Spawner for NoSpawner {
    fn create<'a>(&'a self, _: &'a CreateSpec) -> BoxFuture<'a, Result<Created, SpawnerError>> {
        never()
    }
    fn fork<'a>(
        &'a self,
        _: &'a SandboxKey,
        _: &'a TemplateDigest,
    ) -> BoxFuture<'a, Result<ForkedDriver, SpawnerError>> {
        never()
    }
    fn destroy<'a>(&'a self, _: &'a SandboxKey) -> BoxFuture<'a, Result<(), SpawnerError>> {
        never()
    }
    fn freeze<'a>(&'a self, _: &'a SandboxKey, _: bool) -> BoxFuture<'a, Result<(), SpawnerError>> {
        never()
    }
    fn stats<'a>(&'a self, _: &'a SandboxKey) -> BoxFuture<'a, Result<SandboxStats, SpawnerError>> {
        never()
    }
    fn list(&self) -> BoxFuture<'_, Result<Vec<SandboxKey>, SpawnerError>> {
        never()
    }
    fn init_socket(&self, _: &SandboxKey) -> PathBuf {
        PathBuf::new()
    }
}
