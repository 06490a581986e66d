//! Which run of a context is active, and which one an interrupt is for.

use super::Context;
use std::sync::{Arc, MutexGuard};

/// What runs in a context.
#[derive(Debug, Default)]
pub(super) struct Current {
    /// Number of the run that is active, by which it is interrupted and answered.
    run: Option<u64>,
    /// Runs that were asked for and are not on their way yet.
    beginning: u32,
    /// An interrupt came when there were only those: the next of them gets it.
    interrupt: bool,
}

impl Context {
    /// Says which run is active until the guard is dropped. Runs of a context follow each other, so
    /// there is one at most.
    pub(crate) fn activate(self: &Arc<Self>, run: u64) -> Active {
        self.current().run = Some(run);
        Active {
            context: Arc::clone(self),
            run,
        }
    }

    /// Says that a run is about to begin, so that an interrupt in between is not lost.
    pub(crate) fn begin(self: &Arc<Self>) -> Beginning {
        self.current().beginning += 1;
        Beginning(Arc::clone(self))
    }

    /// Number of the run that is active.
    pub(crate) fn active_run(&self) -> Option<u64> {
        self.current().run
    }

    /// Whether a run that came now would have to wait.
    pub(crate) fn is_busy(&self) -> bool {
        let current = self.current();
        current.run.is_some() || current.beginning > 0
    }

    /// The run to interrupt now. When there is none yet, one that is about to begin will be.
    pub(super) fn to_interrupt(&self) -> Option<u64> {
        let mut current = self.current();
        if current.run.is_none() {
            current.interrupt = current.beginning > 0;
        }
        current.run
    }

    /// Whether the next run that begins is to be interrupted.
    pub(super) fn is_interrupt_waiting(&self) -> bool {
        self.current().interrupt
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().expect("no panic while it is held")
    }
}

/// See [`Context::activate`].
#[derive(Debug)]
pub(crate) struct Active {
    context: Arc<Context>,
    run: u64,
}

impl Drop for Active {
    fn drop(&mut self) {
        let mut current = self.context.current();
        // A later run may be active already.
        if current.run == Some(self.run) {
            current.run = None;
        }
    }
}

/// See [`Context::begin`].
#[derive(Debug)]
pub(crate) struct Beginning(Arc<Context>);

impl Beginning {
    /// The run is on its way. The second value says whether it is to be interrupted at once.
    pub(crate) fn activate(self, run: u64) -> (Active, bool) {
        let active = self.0.activate(run);
        let interrupted = std::mem::take(&mut self.0.current().interrupt);
        (active, interrupted)
    }
}

impl Drop for Beginning {
    fn drop(&mut self) {
        let mut current = self.0.current();
        current.beginning -= 1;
        if current.beginning == 0 {
            current.interrupt = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crownest_api::Timestamp;
    use crownest_api::code::ContextIsolation;
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    fn idle_context() -> Arc<Context> {
        Arc::new(Context {
            id: "cctx_1".into(),
            language: "python".into(),
            cwd: "/workspace".into(),
            is_default: false,
            isolation: ContextIsolation::Fork,
            created_at: Timestamp::from_millis(0),
            env: BTreeMap::new(),
            session: None,
            renewal: tokio::sync::Mutex::default(),
            current: Mutex::default(),
        })
    }

    #[test]
    fn an_interrupt_reaches_the_run_that_is_active_and_no_other() {
        let context = idle_context();
        assert_eq!(context.active_run(), None);
        let first = context.activate(1);
        assert_eq!(context.to_interrupt(), Some(1));
        let second = context.activate(2);
        drop(first);
        assert_eq!(
            context.active_run(),
            Some(2),
            "the later run is still active"
        );
        drop(second);
        assert_eq!(context.active_run(), None);
    }

    #[test]
    fn an_interrupt_waits_for_a_run_that_is_about_to_begin() {
        let context = idle_context();
        assert_eq!(context.to_interrupt(), None);
        let beginning = context.begin();
        assert!(context.is_busy());
        let (active, interrupted) = beginning.activate(1);
        assert!(!interrupted, "there was nothing to interrupt");
        drop(active);
        let beginning = context.begin();
        assert_eq!(context.to_interrupt(), None);
        let (active, interrupted) = beginning.activate(2);
        assert!(interrupted);
        drop(active);
        drop(context.begin());
        assert!(!context.begin().activate(3).1 && !context.is_busy());
    }
}
