//! Drivers that a sandbox has before a context asks for one, and which of them a context may get.
//!
//! A spare that was forked knows nothing of its sandbox until a context claims it. One that was
//! started as a process has read its environment and its version already: it is claimed only while
//! both are those that it would be started with now.

use super::kernels::{KERNELS, Kernel};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The spares of one sandbox.
#[derive(Debug, Default)]
pub(super) struct Spares(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// By label: kernel and version.
    counts: HashMap<String, usize>,
    /// Names of the kernels whose spares the sandbox's environment has not ruled out.
    fitting: BTreeSet<&'static str>,
}

impl Spares {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The environment of the sandbox is known: which spares may a context get?
    pub(super) fn fit(&self, env: &BTreeMap<String, String>) {
        self.inner().fitting = KERNELS
            .iter()
            .filter(|kernel| kernel.can_start_before(env))
            .map(|kernel| kernel.name)
            .collect();
    }

    /// Takes one off the count. After a restart of the server the environment is not known here
    /// any more, and only what is forked is claimed.
    pub(super) fn claim(&self, kernel: &Kernel, label: &str) -> bool {
        let mut inner = self.inner();
        if !kernel.forkable && !inner.fitting.contains(kernel.name) {
            return false;
        }
        match inner.counts.get_mut(label) {
            Some(count) if *count > 0 => {
                *count -= 1;
                true
            }
            _ => false,
        }
    }

    pub(super) fn add(&self, label: &str) {
        *self.inner().counts.entry(label.to_owned()).or_default() += 1;
    }

    /// There are none, or init has said which there are.
    pub(super) fn set(&self, labels: &[String]) {
        let mut counts = HashMap::new();
        for label in labels {
            *counts.entry(label.clone()).or_default() += 1;
        }
        self.inner().counts = counts;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spare_is_claimed_once_and_only_when_it_fits() {
        let (node, python) = (Kernel::named("node"), Kernel::named("python"));
        let (node, python) = (node.unwrap(), python.unwrap());
        let spares = Spares::default();
        for label in ["node:24.1.0", "python:3.11.2"] {
            spares.add(label);
        }
        assert!(
            !spares.claim(node, "node:24.1.0"),
            "its environment is not known"
        );
        assert!(spares.claim(python, "python:3.11.2"));
        assert!(!spares.claim(python, "python:3.11.2"));
        spares.fit(&BTreeMap::from([("NODE_OPTIONS".into(), String::new())]));
        assert!(!spares.claim(node, "node:24.1.0"));
        spares.fit(&BTreeMap::new());
        assert!(!spares.claim(node, "node:20.1.0"));
        assert!(spares.claim(node, "node:24.1.0"));
        spares.set(&["python".to_owned(), "python".to_owned()]);
        assert!(spares.claim(python, "python") && spares.claim(python, "python"));
        assert!(!spares.claim(python, "python"));
    }
}
