//! How many requests a key may make: a window of a minute that begins with its first request.
//!
//! Counted in the memory of one server: several of them behind a balancer allow several times as
//! many. Owns the counts. Does not own who a key is.

use crate::error::ApiError;
use crownest_api::ErrorCode;
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(60);
/// Keys counted; above it, windows that are over are forgotten, then all.
const KEYS_COUNTED_MAX: usize = 8_192;

/// What is left to a key after a request: the `X-RateLimit-…` headers of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    pub limit: u32,
    pub remaining: u32,
    /// Until the window is over.
    pub reset: Duration,
}

#[derive(Debug, Default)]
pub(crate) struct RateLimits(Mutex<HashMap<Arc<str>, Window>>);

#[derive(Debug)]
struct Window {
    began: Instant,
    requests: u32,
}

impl RateLimits {
    /// Counts one request of a key that may make `limit` of them.
    pub(crate) fn count(&self, key: &Arc<str>, limit: u32) -> Result<Allowance, ApiError> {
        self.count_at(key, limit, Instant::now())
    }

    fn count_at(&self, key: &Arc<str>, limit: u32, now: Instant) -> Result<Allowance, ApiError> {
        let mut windows = self.0.lock().expect("no panic while it is held");
        if windows.len() >= KEYS_COUNTED_MAX && !windows.contains_key(key) {
            windows.retain(|_, window| now.duration_since(window.began) < WINDOW);
            if windows.len() >= KEYS_COUNTED_MAX {
                windows.clear();
            }
        }
        let window = windows.entry(Arc::clone(key)).or_insert(Window {
            began: now,
            requests: 0,
        });
        if now.duration_since(window.began) >= WINDOW {
            *window = Window {
                began: now,
                requests: 0,
            };
        }
        let reset = WINDOW.saturating_sub(now.duration_since(window.began));
        if window.requests >= limit {
            return Err(refusal(limit, reset));
        }
        window.requests += 1;
        Ok(Allowance {
            limit,
            remaining: limit - window.requests,
            reset,
        })
    }
}

fn refusal(limit: u32, reset: Duration) -> ApiError {
    let millis = u64::try_from(reset.as_millis()).unwrap_or(u64::MAX).max(1);
    let message = format!("this key may make {limit} requests a minute");
    ApiError::new(ErrorCode::RateLimited, message)
        .with_details(json!({ "limit": limit, "retryAfterMs": millis }))
        .retry_after(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_allows_so_many_and_the_next_one_again() {
        let (rates, start) = (RateLimits::default(), Instant::now());
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        assert_eq!(rates.count_at(&a, 2, start).unwrap().remaining, 1);
        assert_eq!(rates.count_at(&a, 2, start).unwrap().remaining, 0);
        let refused = rates.count_at(&a, 2, start + WINDOW / 2).unwrap_err();
        assert_eq!(refused.code, ErrorCode::RateLimited);
        assert_eq!(refused.retry_after_ms, Some(30_000));
        assert_eq!(rates.count_at(&b, 2, start).unwrap().remaining, 1);
        assert_eq!(rates.count_at(&a, 2, start + WINDOW).unwrap().remaining, 1);
    }

    #[test]
    fn the_count_of_keys_is_bounded() {
        let (rates, start) = (RateLimits::default(), Instant::now());
        for number in 0..=KEYS_COUNTED_MAX {
            let key: Arc<str> = number.to_string().into();
            rates.count_at(&key, 1, start).unwrap();
        }
        assert!(rates.0.lock().unwrap().len() <= KEYS_COUNTED_MAX);
    }
}
