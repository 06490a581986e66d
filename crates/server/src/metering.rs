//! What is charged for: the time of sandboxes, and the credits that it comes to.
//!
//! A sandbox costs from ready to its end, never past its expiry. While it lives its time is read
//! from the clock that only ever goes forward and that all servers of this machine share; the wall
//! clock is asked for a sandbox alone that ended while no server was there. Does not own when
//! usage is written: with the row that it belongs to.

use crate::app::App;
use crate::auth::{Principal, micros};
use crate::error::{ApiError, ApiResult};
use crate::lifecycle::COMPUTE_METRIC;
use crate::plans::{Plan, SECONDS_PER_CREDIT};
use crownest_api::{ErrorCode, Timestamp};
use crownest_store as store;
use jiff::ToSpan;
use jiff::tz::TimeZone;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use std::ops::Range;
use std::time::Duration;

/// Milliseconds since the machine was started, sleep included: one clock for every server that a
/// sandbox outlives. Nobody can set it.
pub(crate) fn ticks_ms() -> i64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec
        .saturating_mul(1_000)
        .saturating_add(now.tv_nsec / 1_000_000)
}

/// What a sandbox that ran for `ran_ms` is charged: at most the time that it had.
pub(crate) fn charged_ms(row: &store::Sandbox, ran_ms: i64) -> i64 {
    let had = row
        .ready_at
        .map_or(0, |ready| (row.expires_at - ready) / 1_000);
    ran_ms.min(had).max(0)
}

/// The same for one whose end is known by the wall clock alone.
pub(crate) fn charged_by_wall_clock_ms(row: &store::Sandbox, now: Timestamp) -> i64 {
    let end = row.destroyed_at.unwrap_or_else(|| micros(now));
    charged_ms(row, row.ready_at.map_or(0, |ready| (end - ready) / 1_000))
}

/// The calendar month of `now`, UTC.
pub(crate) fn month(now: Timestamp) -> Result<Range<Timestamp>, jiff::Error> {
    let now = jiff::Timestamp::from_millisecond(now.as_millis())?.to_zoned(TimeZone::UTC);
    let start = now.first_of_month()?.start_of_day()?;
    let end = start.checked_add(1.month())?;
    let wire = |time: &jiff::Zoned| Timestamp::from_millis(time.timestamp().as_millisecond());
    Ok(wire(&start)..wire(&end))
}

/// Milliseconds as seconds.
pub(crate) fn seconds(millis: i64) -> f64 {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0)).as_secs_f64()
}

impl App {
    /// Compute time of an organization: what was recorded in a period, and what is alive now.
    pub(crate) async fn compute_ms(
        &self,
        org_id: &str,
        period: &Range<Timestamp>,
    ) -> ApiResult<i64> {
        let period = micros(period.start)..micros(period.end);
        let sums = self.store.usage_sums(org_id, &period).await?;
        let ended = sums.iter().filter(|sum| sum.metric == COMPUTE_METRIC);
        let ended: i64 = ended.map(|sum| sum.amount).sum();
        let alive = self.sandboxes.of_org(org_id);
        let alive: i64 = alive.iter().map(|live| live.charged_ms()).sum();
        Ok(ended.saturating_add(alive))
    }

    /// The period that a plan's included credit is for.
    pub(crate) fn credit_period(plan: Plan, now: Timestamp) -> ApiResult<Range<Timestamp>> {
        if plan.ends_with_its_credit() {
            let forever = Timestamp::from_millis(i64::MAX / 1_000);
            return Ok(Timestamp::from_millis(0)..forever);
        }
        month(now).map_err(ApiError::internal)
    }

    /// Refuses a caller whose plan ends with its credit when that is used up.
    pub(crate) async fn check_credit(&self, who: &Principal) -> ApiResult<()> {
        if !who.plan.ends_with_its_credit() {
            return Ok(());
        }
        let period = Self::credit_period(who.plan, Timestamp::now())?;
        let used = seconds(self.compute_ms(&who.org_id, &period).await?) / SECONDS_PER_CREDIT;
        let limits = who.plan.limits(&self.config);
        match who.plan.remaining_credits(&limits, used) {
            Some(left) if left <= 0.0 => {
                let message = "the credit of the organization's plan is used up";
                Err(ApiError::new(ErrorCode::CreditExhausted, message)
                    .with_details(json!({ "plan": who.plan.as_str() })))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_calendar_months() {
        let month = month("2026-12-31T23:59:59.999Z".parse().unwrap()).unwrap();
        assert_eq!(month.start.to_string(), "2026-12-01T00:00:00.000Z");
        assert_eq!(month.end.to_string(), "2027-01-01T00:00:00.000Z");
    }

    #[test]
    fn the_clock_of_the_meter_only_goes_forward() {
        let first = ticks_ms();
        assert!(first > 0 && ticks_ms() >= first);
    }
}
