//! The queue between the link task and whoever consumes one run or one process.
//!
//! Bounded by init's window: init keeps everything until it is acknowledged and stops reading
//! the program's pipes at the limit, so the queue never holds more than the window plus one
//! frame. An init that sends more breaks the protocol and loses its sandbox.

use super::context::Context;
use crownest_init::cell::RunUsage;
use crownest_init::frame::BODY_BYTES_MAX;
use crownest_init::link::{ExecOutcome, RunOutcome, Stream, WINDOW_BYTES_MAX};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// Bytes taken by the consumer after which init is told.
const ACK_BYTES: usize = 256 * 1024;
/// Events after which init is told: it charges its window for each, however small.
const ACK_EVENTS: u64 = 512;
/// Largest piece that small ones are joined to.
const JOIN_BYTES_MAX: usize = 256 * 1024;
/// Most queued events. Far above what init's window has room for, since it charges for each.
const QUEUED_EVENTS_MAX: usize = 64 * 1024;

/// One event in the queue.
#[derive(Debug)]
pub(super) enum Item {
    Output {
        stream: Stream,
        data: Vec<u8>,
    },
    Kernel {
        json: Vec<u8>,
    },
    RunDone {
        outcome: RunOutcome,
        execution_count: u64,
        duration: Duration,
        cpu: Option<Duration>,
        usage: Option<RunUsage>,
        background_dropped: u64,
    },
    ExecDone {
        outcome: ExecOutcome,
        duration: Duration,
    },
    /// The sandbox or the context went away without a word.
    Gone {
        cause: String,
    },
    /// Init has refused the run: its context was dead already.
    NeverBegan {
        cause: String,
    },
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Self::Output { data, .. } => data.len(),
            Self::Kernel { json } => json.len(),
            _ => 0,
        }
    }

    pub(super) fn is_end(&self) -> bool {
        !matches!(self, Self::Output { .. } | Self::Kernel { .. })
    }
}

/// What a target is.
#[derive(Debug)]
pub(super) enum Kind {
    /// A cell; the context is absent for one found after a restart.
    Run(Option<Arc<Context>>),
    Exec,
}

/// A run or a process.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) id: u64,
    pub(super) kind: Kind,
    /// The call that started a run; 0 when it was not this connection's.
    pub(super) call: u64,
    /// Its consumer says when init may forget its end: it is kept here until then.
    pub(super) kept: bool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    queue: VecDeque<(u64, Item)>,
    queued_bytes: usize,
    /// Last number that init has sent; what comes again after a reconnect is recognised by it.
    received_seq: u64,
    /// Of the event that the consumer took last.
    taken_seq: u64,
    /// Taken and not yet acknowledged.
    unacked_bytes: usize,
    acked_seq: u64,
    /// Nobody consumes: what comes is acknowledged and dropped.
    draining: bool,
    /// The end is queued or was taken.
    ended: bool,
    /// The end will never be known here: the server stops.
    detached: bool,
    waker: Option<Waker>,
    /// The right to use the context; given back at the end of the run, consumed or not.
    permit: Option<OwnedSemaphorePermit>,
}

/// What the link task does after it has handed an event over.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Handed {
    /// Queued, or seen before.
    Kept,
    /// Dropped on purpose: acknowledge up to this number.
    Drained(u64),
    /// More than the window allows.
    Overrun,
}

impl Target {
    pub(super) fn run(
        id: u64,
        call: u64,
        context: Arc<Context>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let inner = Inner {
            permit: Some(permit),
            ..Inner::default()
        };
        Self {
            id,
            kind: Kind::Run(Some(context)),
            call,
            kept: false,
            inner: Mutex::new(inner),
        }
    }

    /// The same for a run that outlives its server.
    pub(super) fn kept(self) -> Self {
        Self { kept: true, ..self }
    }

    /// A run that was begun by a server before, from its event `handled_seq` on.
    pub(super) fn taken_up_run(
        id: u64,
        handled_seq: u64,
        context: Option<Arc<Context>>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let inner = Inner {
            permit,
            ..Inner::after(handled_seq)
        };
        Self {
            id,
            kind: Kind::Run(context),
            call: 0,
            kept: true,
            inner: Mutex::new(inner),
        }
    }

    /// A run that nobody waits for any more, from its event `seq` on; it still has the turn of
    /// its context.
    pub(super) fn abandoned_run(
        id: u64,
        seq: u64,
        context: Option<Arc<Context>>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let inner = Inner {
            permit,
            draining: true,
            ..Inner::after(seq)
        };
        Self {
            id,
            kind: Kind::Run(context),
            call: 0,
            kept: false,
            inner: Mutex::new(inner),
        }
    }

    /// A process; `handled_seq` is 0 for a new one.
    pub(super) fn exec(id: u64, handled_seq: u64) -> Self {
        let inner = Inner::after(handled_seq);
        Self {
            id,
            kind: Kind::Exec,
            call: 0,
            kept: true,
            inner: Mutex::new(inner),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // No code below can panic between two changes that belong together.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Last number acknowledged: where init goes on after a reconnect. What was received after it
    /// comes again and is recognised, so that init keeps it until it has been handled.
    pub(super) fn acked_seq(&self) -> u64 {
        self.inner().acked_seq
    }

    /// Whether its end is known.
    pub(super) fn is_over(&self) -> bool {
        self.inner().ended
    }

    /// Number of the event that was taken last.
    pub(super) fn taken_seq(&self) -> u64 {
        self.inner().taken_seq
    }

    /// Takes an event from init.
    pub(super) fn hand(&self, seq: u64, item: Item) -> Handed {
        let mut inner = self.inner();
        // What came before comes again after an attach; what is out of turn was on its way before
        // the attach, and comes again in its turn.
        // A number that init gave may be the highest there is: nothing comes after that.
        if inner.received_seq.checked_add(1) != Some(seq) || inner.ended {
            return Handed::Kept;
        }
        inner.received_seq = seq;
        let end = item.is_end();
        if end {
            inner.permit = None;
            inner.ended = true;
        }
        if inner.draining {
            return inner.drain(item.bytes(), end);
        }
        inner.queued_bytes += item.bytes();
        inner.queue_up(seq, item);
        if inner.queued_bytes > WINDOW_BYTES_MAX + BODY_BYTES_MAX
            || inner.queue.len() > QUEUED_EVENTS_MAX
        {
            return Handed::Overrun;
        }
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
        Handed::Kept
    }

    /// Ends it from this side. Nothing happens when its end is known already.
    pub(super) fn end(&self, cause: &str) {
        let cause = cause.to_owned();
        self.end_with(Item::Gone { cause });
    }

    /// Ends a run that has not begun and never will.
    pub(super) fn refuse(&self, cause: &str) {
        let cause = cause.to_owned();
        self.end_with(Item::NeverBegan { cause });
    }

    fn end_with(&self, end: Item) {
        let mut inner = self.inner();
        if inner.ended {
            return;
        }
        inner.ended = true;
        inner.permit = None;
        let seq = inner.received_seq;
        if !inner.draining {
            inner.queue.push_back((seq, end));
        }
        wake(inner);
    }

    /// The server stops: the consumer gets nothing more, not even an end.
    pub(super) fn detach(&self) {
        let mut inner = self.inner();
        inner.detached = true;
        inner.queue.clear();
        inner.queued_bytes = 0;
        wake(inner);
    }

    /// Nobody will consume it. Returns the number to acknowledge, and whether it still runs.
    pub(super) fn abandon(&self) -> (u64, bool) {
        let mut inner = self.inner();
        inner.draining = true;
        inner.queue.clear();
        inner.queued_bytes = 0;
        inner.taken_seq = inner.received_seq;
        (inner.acknowledge(), !inner.ended)
    }

    /// Takes the next event. `None`: there will be no more.
    pub(super) fn poll_take(&self, cx: &mut TaskContext<'_>) -> Poll<Option<Item>> {
        let mut inner = self.inner();
        match inner.take() {
            Some(item) => Poll::Ready(Some(item)),
            None if inner.ended || inner.detached => Poll::Ready(None),
            None => {
                inner.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Takes back the right to use the context, of a target that is given up before its end.
    pub(super) fn take_permit(&self) -> Option<OwnedSemaphorePermit> {
        self.inner().permit.take()
    }

    /// The next event, if it is there already.
    pub(super) fn take_waiting(&self) -> Option<Item> {
        self.inner().take()
    }

    /// The number to acknowledge now that everything taken has been handled, when it is time.
    pub(super) fn ack_due(&self) -> Option<u64> {
        let mut inner = self.inner();
        inner.ack_is_due().then(|| inner.acknowledge())
    }
}

fn wake(mut inner: MutexGuard<'_, Inner>) {
    let waker = inner.waker.take();
    drop(inner);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Inner {
    /// Everything up to that number has been handled.
    fn after(seq: u64) -> Self {
        Self {
            received_seq: seq,
            taken_seq: seq,
            acked_seq: seq,
            ..Self::default()
        }
    }

    fn take(&mut self) -> Option<Item> {
        let (seq, item) = self.queue.pop_front()?;
        let bytes = item.bytes();
        self.queued_bytes -= bytes;
        self.unacked_bytes += bytes;
        self.taken_seq = self.taken_seq.max(seq);
        Some(item)
    }

    fn drain(&mut self, bytes: usize, end: bool) -> Handed {
        self.unacked_bytes += bytes;
        self.taken_seq = self.received_seq;
        if end || self.ack_is_due() {
            return Handed::Drained(self.acknowledge());
        }
        Handed::Kept
    }

    fn ack_is_due(&self) -> bool {
        self.unacked_bytes >= ACK_BYTES || self.taken_seq - self.acked_seq >= ACK_EVENTS
    }

    fn acknowledge(&mut self) -> u64 {
        self.unacked_bytes = 0;
        self.acked_seq = self.taken_seq;
        self.acked_seq
    }

    /// Joins output to the newest of the same stream, else queues it.
    fn queue_up(&mut self, seq: u64, item: Item) {
        if let Item::Output { stream, data } = &item
            && let Some((
                at,
                Item::Output {
                    stream: newest,
                    data: old,
                },
            )) = self.queue.back_mut()
            && newest == stream
            && old.len() + data.len() <= JOIN_BYTES_MAX
        {
            *at = seq;
            old.extend_from_slice(data);
            return;
        }
        self.queue.push_back((seq, item));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    fn output(stream: Stream, data: &[u8]) -> Item {
        Item::Output {
            stream,
            data: data.to_vec(),
        }
    }

    fn take(target: &Target) -> Option<Item> {
        match target.poll_take(&mut TaskContext::from_waker(Waker::noop())) {
            Poll::Ready(item) => item,
            Poll::Pending => panic!("nothing queued"),
        }
    }

    #[test]
    fn neighbours_are_joined_and_repeats_dropped() {
        let target = Target::exec(1, 0);
        target.hand(1, output(Stream::Stdout, b"a"));
        target.hand(2, output(Stream::Stdout, b"b"));
        target.hand(2, output(Stream::Stdout, b"b"));
        target.hand(3, output(Stream::Stderr, b"c"));
        let Some(Item::Output { data, .. }) = take(&target) else {
            panic!()
        };
        assert_eq!(data, b"ab");
        assert_eq!(target.taken_seq(), 2);
        let Some(Item::Output { data, stream }) = take(&target) else {
            panic!()
        };
        assert_eq!((data.as_slice(), stream), (b"c".as_slice(), Stream::Stderr));
    }

    #[test]
    fn events_on_their_way_before_an_attach_are_not_taken_for_its_answer() {
        let target = Target::exec(1, 4);
        target.hand(9, output(Stream::Stdout, b"late"));
        for seq in 3..=6 {
            target.hand(seq, output(Stream::Stdout, format!("{seq}").as_bytes()));
        }
        let Some(Item::Output { data, .. }) = take(&target) else {
            panic!()
        };
        assert_eq!((data.as_slice(), target.taken_seq()), (b"56".as_slice(), 6));
    }

    #[test]
    fn many_small_events_are_acknowledged_by_their_number() {
        let target = Target::exec(1, 0);
        let mut acks = Vec::new();
        for seq in 1..=2_000 {
            let stream = if seq % 2 == 0 {
                Stream::Stdout
            } else {
                Stream::Stderr
            };
            assert_eq!(target.hand(seq, output(stream, b"x")), Handed::Kept);
            take(&target);
            acks.extend(target.ack_due());
        }
        assert_eq!(acks, [512, 1_024, 1_536]);
    }

    #[test]
    fn more_than_the_window_is_an_overrun() {
        let target = Target::exec(1, 0);
        let chunk = vec![0; 1024 * 1024];
        let overrun = (1..=40)
            .find(|seq| target.hand(*seq, output(Stream::Stdout, &chunk)) == Handed::Overrun);
        assert_eq!(
            overrun,
            Some(18),
            "17 MiB is the window plus the largest frame"
        );
    }

    #[test]
    fn acknowledgements_come_in_batches_and_cover_what_was_taken() {
        let target = Target::exec(1, 0);
        for seq in 1..=5 {
            target.hand(seq, output(Stream::Stdout, &vec![0; 100 * 1024]));
        }
        let mut acks = Vec::new();
        for _ in 0..3 {
            let Ok(Some(_)) = Ok::<_, ()>(take(&target)) else {
                panic!()
            };
            acks.extend(target.ack_due());
        }
        assert_eq!(acks, [4], "two joined pieces of 200 KiB pass the threshold");
    }

    #[test]
    fn nothing_comes_after_the_highest_number() {
        let target = Target::abandoned_run(1, u64::MAX, None, None);
        for seq in [0, 1, u64::MAX] {
            assert_eq!(target.hand(seq, output(Stream::Stdout, b"x")), Handed::Kept);
        }
        assert_eq!(target.taken_seq(), u64::MAX);
        assert!(!target.is_over());
    }

    #[test]
    fn an_abandoned_run_is_acknowledged_to_its_end() {
        let target = Target::abandoned_run(1, 0, None, None);
        let big = vec![0; ACK_BYTES];
        assert_eq!(target.hand(1, output(Stream::Stdout, b"x")), Handed::Kept);
        assert_eq!(
            target.hand(2, output(Stream::Stdout, &big)),
            Handed::Drained(2)
        );
        let done = Item::RunDone {
            outcome: RunOutcome::Completed,
            execution_count: 1,
            duration: Duration::ZERO,
            cpu: None,
            usage: None,
            background_dropped: 0,
        };
        assert_eq!(target.hand(3, done), Handed::Drained(3));
    }
}
