//! What runs and processes have said and the server has not yet acknowledged.
//!
//! Owns the flow control of link.rs: events are kept from the moment they exist until their
//! acknowledgement, at most about a window of them for each target, whether a server is
//! connected or not. Does not own pipes: whoever reads them asks [`Targets::has_room`] first.

use crate::calls::refuse;
use crownest_init::link::{
    CallError, CallErrorCode, EventKind, TARGETS_MAX, TargetState, WINDOW_BYTES_MAX,
};
use std::collections::{BTreeMap, VecDeque};

/// Charged for an event beside its body, so that a million one-byte events do not look small.
const EVENT_COST_BYTES: usize = 192;

/// One event that may have to be sent again.
#[derive(Debug)]
pub(crate) struct Stored {
    seq: u64,
    pub(crate) kind: EventKind,
    pub(crate) body: Vec<u8>,
}

/// One run or process.
#[derive(Debug)]
struct Target {
    context: Option<String>,
    kept: bool,
    /// Last number given out.
    seq: u64,
    /// Last number that this connection was given; None until it asks for the target.
    sent: Option<u64>,
    /// Acknowledged up to here; what follows is in `events`.
    acked: u64,
    events: VecDeque<Stored>,
    held_bytes: usize,
    done: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    map: BTreeMap<u64, Target>,
    /// The target that was served last, for turns.
    last_served: u64,
}

impl Targets {
    /// Fails when the number is taken or there are too many.
    pub(crate) fn check_new(&self, id: u64) -> Result<(), CallError> {
        if self.map.contains_key(&id) {
            return refuse(
                CallErrorCode::Invalid,
                "this number was given to another run",
            );
        }
        if self.map.len() >= TARGETS_MAX {
            return refuse(CallErrorCode::TooMany, "too many runs are unacknowledged");
        }
        Ok(())
    }

    /// Starts a target; `attached` when the connection that asked for it is still there.
    pub(crate) fn insert(&mut self, id: u64, context: Option<String>, attached: bool) {
        let target = Target {
            context,
            kept: false,
            seq: 0,
            sent: attached.then_some(0),
            acked: 0,
            events: VecDeque::new(),
            held_bytes: 0,
            done: false,
        };
        self.map.insert(id, target);
    }

    /// Marks a target for the servers to come: it is not to be ended for want of a consumer.
    pub(crate) fn keep(&mut self, id: u64) {
        if let Some(target) = self.map.get_mut(&id) {
            target.kept = true;
        }
    }

    /// May more be read for this target? False for unknown ones.
    pub(crate) fn has_room(&self, id: u64) -> bool {
        self.map
            .get(&id)
            .is_some_and(|target| target.held_bytes < WINDOW_BYTES_MAX)
    }

    pub(crate) fn contains(&self, id: u64) -> bool {
        self.map.contains_key(&id)
    }

    /// Files an event; `make` gets its number.
    pub(crate) fn push(&mut self, id: u64, body: Vec<u8>, make: impl FnOnce(u64) -> EventKind) {
        let Some(target) = self.map.get_mut(&id) else {
            return;
        };
        target.seq += 1;
        target.held_bytes += body.len() + EVENT_COST_BYTES;
        target.events.push_back(Stored {
            seq: target.seq,
            kind: make(target.seq),
            body,
        });
    }

    /// No event follows; the target goes when its last one is acknowledged.
    pub(crate) fn finish(&mut self, id: u64) {
        if let Some(target) = self.map.get_mut(&id) {
            target.done = true;
        }
    }

    /// Numbers that were never given out are clamped: a peer cannot free what does not exist.
    pub(crate) fn acknowledge(&mut self, id: u64, seq: u64) {
        let Some(target) = self.map.get_mut(&id) else {
            return;
        };
        let seq = seq.min(target.seq);
        while target.events.front().is_some_and(|event| event.seq <= seq) {
            if let Some(event) = target.events.pop_front() {
                target.held_bytes -= event.body.len() + EVENT_COST_BYTES;
            }
        }
        target.acked = target.acked.max(seq);
        target.sent = target.sent.map(|sent| sent.max(seq));
        if target.done && target.events.is_empty() {
            self.map.remove(&id);
        }
    }

    /// The server has handled everything up to `seq`; the rest goes out again.
    pub(crate) fn attach(&mut self, id: u64, seq: u64) -> Result<(), CallError> {
        let Some(target) = self.map.get_mut(&id) else {
            return refuse(
                CallErrorCode::UnknownTarget,
                "no such run, or its end was acknowledged",
            );
        };
        if seq < target.acked || seq > target.seq {
            let message = format!("events {} to {} can be had", target.acked + 1, target.seq);
            return refuse(CallErrorCode::Invalid, message);
        }
        target.sent = Some(seq);
        self.acknowledge(id, seq);
        Ok(())
    }

    /// The connection is gone: the next one has to ask.
    pub(crate) fn detach_all(&mut self) {
        for target in self.map.values_mut() {
            target.sent = None;
        }
    }

    /// The next event that this connection has not been given; targets take turns.
    pub(crate) fn next_unsent(&mut self) -> Option<&Stored> {
        let id = self.next_with_unsent()?;
        self.last_served = id;
        let target = self.map.get_mut(&id)?;
        let sent = target.sent?;
        let first = target.events.front()?.seq;
        let index = usize::try_from((sent + 1).saturating_sub(first)).ok()?;
        let event = target.events.get(index)?;
        target.sent = Some(event.seq);
        Some(event)
    }

    fn next_with_unsent(&self) -> Option<u64> {
        let after = self.map.range(self.last_served.saturating_add(1)..);
        let before = self.map.range(..=self.last_served);
        after
            .chain(before)
            .find(|(_, target)| target.sent.is_some_and(|sent| sent < target.seq))
            .map(|(id, _)| *id)
    }

    pub(crate) fn states(&self) -> Vec<TargetState> {
        self.map
            .iter()
            .map(|(id, target)| TargetState {
                target: *id,
                context: target.context.clone(),
                seq: target.seq,
                done: target.done,
                kept: target.kept,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crownest_init::link::Stream;

    fn output(targets: &mut Targets, id: u64, bytes: usize) {
        let kind = |seq| EventKind::Output {
            target: id,
            seq,
            stream: Stream::Stdout,
        };
        targets.push(id, vec![b'x'; bytes], kind);
    }

    fn drain(targets: &mut Targets) -> Vec<u64> {
        std::iter::from_fn(|| targets.next_unsent().map(|event| event.seq)).collect()
    }

    #[test]
    fn the_window_closes_and_opens() {
        let mut targets = Targets::default();
        targets.insert(5, None, true);
        assert!(targets.has_room(5) && !targets.has_room(6));
        output(&mut targets, 5, WINDOW_BYTES_MAX);
        assert!(!targets.has_room(5));
        targets.acknowledge(5, 1);
        assert!(targets.has_room(5));
        assert_eq!(targets.map[&5].held_bytes, 0);
    }

    #[test]
    fn attach_replays_what_was_not_handled() {
        let mut targets = Targets::default();
        targets.insert(1, None, true);
        for _ in 0..4 {
            output(&mut targets, 1, 10);
        }
        assert_eq!(drain(&mut targets), [1, 2, 3, 4]);
        targets.detach_all();
        output(&mut targets, 1, 10);
        assert!(drain(&mut targets).is_empty());
        targets.attach(1, 2).unwrap();
        assert_eq!(drain(&mut targets), [3, 4, 5]);
        assert_eq!(
            targets.attach(1, 1).unwrap_err().code,
            CallErrorCode::Invalid
        );
        assert_eq!(
            targets.attach(1, 9).unwrap_err().code,
            CallErrorCode::Invalid
        );
        assert_eq!(
            targets.attach(2, 0).unwrap_err().code,
            CallErrorCode::UnknownTarget
        );
    }

    #[test]
    fn an_acknowledged_end_is_forgotten_and_a_false_one_is_not() {
        let mut targets = Targets::default();
        targets.insert(1, None, true);
        targets.acknowledge(1, u64::MAX);
        output(&mut targets, 1, 1);
        targets.finish(1);
        assert!(targets.contains(1));
        targets.acknowledge(1, u64::MAX);
        assert!(!targets.contains(1));
    }

    #[test]
    fn targets_take_turns() {
        let mut targets = Targets::default();
        for id in [1, 2, 3] {
            targets.insert(id, None, true);
            output(&mut targets, id, 1);
            output(&mut targets, id, 1);
        }
        let mut order = Vec::new();
        while let Some(event) = targets.next_unsent() {
            let EventKind::Output { target, .. } = event.kind else {
                panic!("only output")
            };
            order.push(target);
        }
        assert_eq!(order, [1, 2, 3, 1, 2, 3]);
    }

    #[test]
    fn the_number_of_targets_is_bounded() {
        let mut targets = Targets::default();
        for id in 0..TARGETS_MAX as u64 {
            targets.check_new(id).unwrap();
            targets.insert(id, None, true);
        }
        assert_eq!(
            targets.check_new(0).unwrap_err().code,
            CallErrorCode::Invalid
        );
        assert_eq!(
            targets.check_new(u64::MAX).unwrap_err().code,
            CallErrorCode::TooMany
        );
    }
}
