//! Measured values and what is said of them: percentiles of all samples, never an average.

use serde_json::{Value, json};
use std::time::Duration;

/// Values of one kind, in the order in which they were measured.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn push_ms(&mut self, took: Duration) {
        self.0.push(took.as_secs_f64() * 1e3);
    }

    pub(crate) fn extend(&mut self, others: &Self) {
        self.0.extend_from_slice(&others.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The smallest value that at least `share` of the samples do not exceed (nearest rank).
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() as f64 * share).ceil();
        // In range: the length is that of a vector, the share at most 1.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let index = (rank as usize).clamp(1, sorted.len().max(1)) - 1;
        sorted.get(index).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn p50(&self) -> f64 {
        self.percentile(0.50)
    }

    pub(crate) fn p99(&self) -> f64 {
        self.percentile(0.99)
    }

    pub(crate) fn json(&self) -> Value {
        let rounded = |value: f64| (value * 1e4).round() / 1e4;
        json!({
            "n": self.len(),
            "min": rounded(self.percentile(0.0)),
            "p50": rounded(self.p50()),
            "p95": rounded(self.percentile(0.95)),
            "p99": rounded(self.p99()),
            "max": rounded(self.percentile(1.0)),
            "samples": self.0.iter().copied().map(rounded).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let samples = Samples((1..=100).rev().map(f64::from).collect());
        assert_eq!(samples.p50(), 50.0);
        assert_eq!(samples.percentile(0.95), 95.0);
        assert_eq!(samples.p99(), 99.0);
        assert_eq!(samples.percentile(1.0), 100.0);
        assert_eq!(samples.percentile(0.0), 1.0);
        let one = Samples(vec![7.0]);
        assert_eq!((one.p50(), one.p99()), (7.0, 7.0));
        assert!(Samples::default().p50().is_nan());
    }
}
