//! Who is inside a preview right now: how many at the same time, and how to put them out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Requests and WebSockets of one preview at the same time.
const VISITS_PER_PREVIEW_MAX: usize = 128;

/// The gates of previews that are being visited, by slug.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gates(Arc<Mutex<HashMap<String, Arc<Gate>>>>);

#[derive(Debug)]
struct Gate {
    places: Arc<Semaphore>,
    closed: CancellationToken,
}

impl Gates {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Gate>>> {
        self.0.lock().expect("no panic while it is held")
    }

    /// Goes in, before the preview's row is read: whoever ends it after that closes this very
    /// gate. None when too many are inside. `stopping` closes it as well.
    pub(super) fn enter(&self, slug: &str, stopping: &CancellationToken) -> Option<Visit> {
        let mut gates = self.lock();
        let gate = gates.entry(slug.to_owned()).or_insert_with(|| {
            Arc::new(Gate {
                places: Arc::new(Semaphore::new(VISITS_PER_PREVIEW_MAX)),
                closed: stopping.child_token(),
            })
        });
        let place = Arc::clone(&gate.places).try_acquire_owned().ok()?;
        Some(Visit {
            gates: self.clone(),
            slug: slug.to_owned(),
            gate: Arc::clone(gate),
            _place: place,
        })
    }

    /// Puts everybody out.
    pub(super) fn close(&self, slug: &str) {
        if let Some(gate) = self.lock().remove(slug) {
            gate.closed.cancel();
        }
    }
}

/// A place inside, until it is dropped.
#[derive(Debug)]
pub(super) struct Visit {
    gates: Gates,
    slug: String,
    gate: Arc<Gate>,
    _place: OwnedSemaphorePermit,
}

impl Visit {
    /// Cancelled when the preview ends or the server stops.
    pub(super) fn closed(&self) -> CancellationToken {
        self.gate.closed.clone()
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut gates = self.gates.lock();
        // The table's own, and this one: nobody else is inside.
        let last = Arc::strong_count(&self.gate) == 2;
        let ours = gates
            .get(&self.slug)
            .is_some_and(|gate| Arc::ptr_eq(gate, &self.gate));
        if last && ours {
            gates.remove(&self.slug);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_few_and_an_empty_gate_is_forgotten() {
        let (gates, stopping) = (Gates::default(), CancellationToken::new());
        let enter = |slug| gates.enter(slug, &stopping);
        let inside: Vec<_> = (0..VISITS_PER_PREVIEW_MAX)
            .map(|_| enter("a").unwrap())
            .collect();
        assert!(enter("a").is_none());
        assert!(enter("b").is_some(), "another preview has its own places");
        assert_eq!(gates.lock().len(), 1);
        drop(inside);
        assert!(gates.lock().is_empty());
    }

    #[test]
    fn closing_puts_out_who_is_inside_and_nobody_who_comes_later() {
        let (gates, stopping) = (Gates::default(), CancellationToken::new());
        let before = gates.enter("a", &stopping).unwrap();
        gates.close("a");
        let after = gates.enter("a", &stopping).unwrap();
        assert!(before.closed().is_cancelled() && !after.closed().is_cancelled());
        drop(before);
        assert_eq!(gates.lock().len(), 1, "the new gate stays");
        stopping.cancel();
        assert!(after.closed().is_cancelled());
    }
}
