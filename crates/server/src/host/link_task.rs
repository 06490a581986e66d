//! The one task per sandbox that reads its link: hands events to their consumers, reconnects when
//! the link is lost, and says when init is gone.

use super::calls::Calls;
use super::context::cause_of;
use super::counters::count;
use super::error::{HostError, printable};
use super::inbox::Inbox;
use super::kept_run::FoundRun;
use super::link::Link;
use super::sandbox::Sandbox;
use super::target::{Handed, Item, Kind, Target};
use super::types::{ClosedReason, ExecTarget, RunTarget};
use crate::egress;
use crownest_init::frame::Frame;
use crownest_init::link::{
    CallErrorCode, Event, EventKind, LINK_VERSION, Request, RunOutcome, TargetState,
};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{Instant, timeout};

/// Longest wait for an init to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Reconnects within [`RECONNECT_WINDOW`] after which an init is given up.
const RECONNECTS_MAX: usize = 8;
const RECONNECT_WINDOW: Duration = Duration::from_secs(60);
/// Contexts, targets or spares in one hello; init's own limits are lower.
const HELLO_ITEMS_MAX: usize = 4_096;

/// What init said first.
#[derive(Debug)]
pub(super) struct Hello {
    pub(super) contexts: Vec<String>,
    pub(super) spares: Vec<String>,
    pub(super) targets: Vec<TargetState>,
    pub(super) listener: Option<OwnedFd>,
    pub(super) clock_stopped: bool,
}

/// Connects to an init and hears its hello.
pub(super) async fn connect(path: &Path) -> Result<(Link, Inbox, Hello), HostError> {
    let connected = timeout(HELLO_TIMEOUT, Link::connect(path)).await;
    let link = match connected {
        Ok(Ok(link)) => link,
        Ok(Err(e)) => return Err(HostError::Connect(e.to_string())),
        Err(_) => return Err(HostError::Connect("timed out".into())),
    };
    let mut inbox = Inbox::default();
    let frame = match timeout(HELLO_TIMEOUT, link.first_frame(&mut inbox)).await {
        Ok(Ok(frame)) => frame,
        Ok(Err(e)) => return Err(HostError::Hello(e.to_string())),
        Err(_) => return Err(HostError::Hello("timed out".into())),
    };
    let hello = parse_hello(&frame, &mut inbox)?;
    Ok((link, inbox, hello))
}

pub(super) fn parse_hello(frame: &Frame, inbox: &mut Inbox) -> Result<Hello, HostError> {
    let event: Event =
        serde_json::from_slice(&frame.head).map_err(|e| HostError::Hello(e.to_string()))?;
    let mut fds = inbox
        .take_fds(event.fds)
        .map_err(|e| HostError::Hello(e.to_string()))?;
    let EventKind::Hello {
        version,
        contexts,
        spares,
        targets,
        clock_stopped,
        ..
    } = event.kind
    else {
        return Err(HostError::Hello("init did not say hello first".into()));
    };
    if version != LINK_VERSION {
        return Err(HostError::Hello(format!(
            "version {version}, expected {LINK_VERSION}"
        )));
    }
    if fds.len() > 1 || contexts.len().max(spares.len()).max(targets.len()) > HELLO_ITEMS_MAX {
        return Err(HostError::Hello("too much in it".into()));
    }
    let contexts = contexts.into_iter().map(|c| c.context).collect();
    Ok(Hello {
        contexts,
        spares,
        targets,
        listener: fds.pop(),
        clock_stopped,
    })
}

/// Why the link task stops reading a connection.
#[derive(Debug)]
pub(super) enum Lost {
    /// The connection is over; init may still be there.
    Connection(String),
    /// Init broke the protocol.
    Protocol(String),
}

impl From<io::Error> for Lost {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::InvalidData => Self::Protocol(e.to_string()),
            _ => Self::Connection(e.to_string()),
        }
    }
}

/// Reads a sandbox's link until the sandbox is gone. Returns why it is.
pub(super) async fn read_link(
    sandbox: Arc<Sandbox>,
    mut link: Arc<Link>,
    mut inbox: Inbox,
) -> ClosedReason {
    let closed = sandbox.closed_token().clone();
    let mut reconnects: Vec<Instant> = Vec::new();
    loop {
        let lost = tokio::select! {
            biased;
            () = closed.cancelled() => return sandbox.closed().await,
            lost = read_connection(&sandbox, &link, &mut inbox) => lost,
        };
        link.mark_broken();
        sandbox.calls.lose_all();
        let reason = match lost {
            Lost::Protocol(what) => {
                count(&sandbox.shared.counters.protocol_errors);
                tracing::warn!(sandbox = %sandbox.key, what = %printable(&what), "init broke the link protocol");
                return ClosedReason::InitGone;
            }
            Lost::Connection(reason) => reason,
        };
        reconnects.retain(|at| at.elapsed() < RECONNECT_WINDOW);
        reconnects.push(Instant::now());
        if reconnects.len() > RECONNECTS_MAX {
            tracing::warn!(sandbox = %sandbox.key, "link lost too often");
            return ClosedReason::InitGone;
        }
        match connect(&sandbox.socket).await {
            Ok((new_link, new_inbox, hello)) => {
                count(&sandbox.shared.counters.reconnects);
                link = Arc::new(new_link);
                inbox = new_inbox;
                sandbox.set_link(Arc::clone(&link));
                if closed.is_cancelled() {
                    link.mark_broken();
                    return sandbox.closed().await;
                }
                take_hello(&sandbox, &link, hello);
            }
            Err(error) => {
                tracing::debug!(sandbox = %sandbox.key, reason, %error, "init is gone");
                return ClosedReason::InitGone;
            }
        }
    }
}

async fn read_connection(sandbox: &Sandbox, link: &Link, inbox: &mut Inbox) -> Lost {
    // The hello may have brought more than itself.
    if let Err(lost) = hand_over(sandbox, link, inbox) {
        return lost;
    }
    loop {
        match link.turn().await {
            Ok(true) => {}
            Ok(false) => continue,
            Err(e) => return e.into(),
        }
        loop {
            match link.read(inbox) {
                Ok(Some(0)) => return Lost::Connection("closed by init".into()),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(e) => return e.into(),
            }
            if let Err(lost) = hand_over(sandbox, link, inbox) {
                return lost;
            }
            // A sandbox that never stops talking shares the thread with the others.
            tokio::task::consume_budget().await;
        }
    }
}

pub(super) fn hand_over(sandbox: &Sandbox, link: &Link, inbox: &mut Inbox) -> Result<(), Lost> {
    while let Some(frame) = inbox.next_frame()? {
        let event: Event = serde_json::from_slice(&frame.head)
            .map_err(|e| Lost::Protocol(format!("event: {e}")))?;
        let fds = inbox.take_fds(event.fds)?;
        dispatch(sandbox, link, event.kind, frame.body, fds)?;
    }
    Ok(())
}

fn dispatch(
    sandbox: &Sandbox,
    link: &Link,
    event: EventKind,
    body: Vec<u8>,
    fds: Vec<OwnedFd>,
) -> Result<(), Lost> {
    match event {
        EventKind::Reply { id, result } => {
            refused_run(sandbox, &sandbox.calls, id, result, body, fds);
            Ok(())
        }
        EventKind::Output {
            target,
            seq,
            stream,
        } => hand(
            sandbox,
            link,
            target,
            seq,
            Item::Output { stream, data: body },
        ),
        EventKind::Kernel { target, seq } => {
            hand(sandbox, link, target, seq, Item::Kernel { json: body })
        }
        EventKind::RunDone {
            target,
            seq,
            outcome,
            execution_count,
            duration_us,
            background_dropped,
            cpu_us,
            usage,
        } => {
            bury_context(sandbox, target, &outcome);
            let item = Item::RunDone {
                outcome,
                execution_count,
                duration: Duration::from_micros(duration_us),
                cpu: cpu_us.map(Duration::from_micros),
                usage,
                background_dropped,
            };
            hand(sandbox, link, target, seq, item)
        }
        EventKind::ExecDone {
            target,
            seq,
            outcome,
            duration_us,
        } => {
            let duration = Duration::from_micros(duration_us);
            hand(
                sandbox,
                link,
                target,
                seq,
                Item::ExecDone { outcome, duration },
            )
        }
        EventKind::ContextDied { context, death } => {
            sandbox.contexts.die(&context, &cause_of(&death));
            Ok(())
        }
        EventKind::Hello { .. } => Err(Lost::Protocol("a second hello".into())),
    }
}

fn refused_run(
    sandbox: &Sandbox,
    calls: &Calls,
    id: u64,
    result: crownest_init::link::ReplyResult,
    body: Vec<u8>,
    fds: Vec<OwnedFd>,
) {
    let Some((target, error)) = calls.answer(id, result, body, fds) else {
        return;
    };
    sandbox.remove_target(target.id);
    let reason = HostError::from_call(&error, 0).to_string();
    let gone = matches!(
        error.code,
        CallErrorCode::ContextDead | CallErrorCode::ContextUnknown
    );
    if let (true, Kind::Run(Some(context))) = (gone, &target.kind) {
        sandbox.contexts.die(&context.id, &reason);
        target.refuse(&reason);
        return;
    }
    target.end(&reason);
}

fn hand(sandbox: &Sandbox, link: &Link, id: u64, seq: u64, item: Item) -> Result<(), Lost> {
    let target = sandbox.targets().get(&id).cloned();
    let Some(target) = target else {
        // Of a process that nobody has attached to, or of a run whose end came twice.
        return Ok(());
    };
    let handed = target.hand(seq, item);
    if matches!(target.kind, Kind::Run(_)) && target.is_over() {
        sandbox.calls.forget(target.call);
        // What is kept stays until its end is acknowledged; that of others is never asked for
        // again.
        if !target.kept {
            sandbox.remove_target(id);
        }
    }
    match handed {
        Handed::Kept => Ok(()),
        Handed::Drained(seq) => {
            link.send_later(Request::Ack { target: id, seq });
            Ok(())
        }
        Handed::Overrun => Err(Lost::Protocol(format!(
            "target {id} sent more than its window"
        ))),
    }
}

/// A run that ended with its interpreter takes the context with it, before its consumer is told.
fn bury_context(sandbox: &Sandbox, target: u64, outcome: &RunOutcome) {
    let cause = match outcome {
        RunOutcome::Died(death) => cause_of(death),
        RunOutcome::TimedOut {
            context_alive: false,
        } => "killed at the timeout of a run".into(),
        _ => return,
    };
    let target = sandbox.targets().get(&target).cloned();
    if let Some(Kind::Run(Some(context))) = target.as_deref().map(|t| &t.kind) {
        sandbox.contexts.die(&context.id, &cause);
    }
}

/// Makes this side agree with what init says is there, and asks for what was missed.
pub(super) fn take_hello(sandbox: &Arc<Sandbox>, link: &Link, hello: Hello) {
    sandbox.spares.set(&hello.spares);
    sandbox.contexts.reconcile(&hello.contexts);
    let known: Vec<Arc<Target>> = sandbox.targets().values().cloned().collect();
    for target in known {
        if hello.targets.iter().any(|t| t.target == target.id) {
            attach(sandbox, link, target.id, target.acked_seq());
        } else {
            sandbox.remove_target(target.id);
            target.end("lost with the link to the sandbox");
        }
    }
    let mut execs = Vec::new();
    let mut runs = Vec::new();
    for state in hello.targets {
        if sandbox.targets().contains_key(&state.target) {
            continue;
        }
        if state.kept {
            runs.push(state);
        } else if state.context.is_some() {
            // Whoever asked for it is gone, as when a client hangs up: it is interrupted, so that
            // the context is free for the next, and what it still says goes nowhere.
            count(&sandbox.shared.counters.runs_recovered);
            drain_run(sandbox, link, &state);
        } else {
            execs.push(ExecTarget {
                id: state.target,
                done: state.done,
                seq: state.seq,
            });
        }
    }
    sandbox.set_recovered_execs(execs);
    sandbox.set_recovered_runs(runs);
    if let Some(listener) = hello.listener {
        serve_egress(sandbox, listener);
    }
}

fn drain_run(sandbox: &Sandbox, link: &Link, state: &TargetState) {
    let found = FoundRun::new(sandbox, state);
    drain_found(sandbox, link, found);
}

/// Ends a run that nobody waits for, and lets init forget it.
pub(super) fn drain_found(sandbox: &Sandbox, link: &Link, found: FoundRun) {
    let RunTarget { id, done, seq } = found.run;
    if done {
        link.send_later(Request::Ack { target: id, seq });
        return;
    }
    link.send_later(Request::Interrupt { run: id });
    let target = Arc::new(Target::abandoned_run(id, seq, found.context, found.permit));
    if sandbox.add_target(&target).is_ok() {
        attach(sandbox, link, id, seq);
    }
}

fn attach(sandbox: &Sandbox, link: &Link, target: u64, seq: u64) {
    // A refusal means that it was forgotten after its end was acknowledged: nothing to do.
    let _ = link.send(sandbox.calls.next_id(), Request::Attach { target, seq });
}

/// Starts the proxy once; after a reconnect the first one still has the same socket.
fn serve_egress(sandbox: &Arc<Sandbox>, listener: OwnedFd) {
    if sandbox.egress.get().is_some() {
        return;
    }
    let policy = Arc::clone(
        &sandbox
            .egress_policy
            .read()
            .unwrap_or_else(PoisonError::into_inner),
    );
    let closed = sandbox.closed_token().clone();
    match egress::serve(listener, policy, sandbox.key.to_string(), closed) {
        Ok(proxy) => {
            let _ = sandbox.egress.set(proxy);
        }
        Err(error) => {
            tracing::warn!(sandbox = %sandbox.key, %error, "the egress socket of init is unusable");
        }
    }
}

/// Numbers for a sandbox found after a restart: above everything that an earlier server can have
/// given out, below 2^53 so that every language's driver keeps them exact.
pub(super) fn recovered_target_floor(targets: &[TargetState]) -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let micros = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
    let highest = targets.iter().map(|t| t.target).max().unwrap_or(0);
    micros.max(highest).min((1 << 53) - 1)
}
