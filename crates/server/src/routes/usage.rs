//! `/v1/usage`: what the organization used this month, from recorded ends and what is alive now.

use crate::app::App;
use crate::auth::{Caller, micros};
use crate::error::{ApiError, ApiResult};
use crate::lifecycle;
use axum::Json;
use axum::extract::State;
use crownest_api::usage::{Credits, Quota, Usage, UsagePeriod, UsedSeconds};
use crownest_api::{Scope, Timestamp};
use jiff::ToSpan;
use jiff::tz::TimeZone;
use std::collections::BTreeMap;

/// A self-hosted server has no prices: one credit is one compute unit second and costs nothing.
const PRICING_VERSION: &str = "self-hosted-1";
const SECONDS_PER_CREDIT: f64 = 1.0;
const CURRENCY_PER_CREDIT: f64 = 0.0;

/// Usage of the current calendar month, UTC.
#[utoipa::path(
    get, path = "/v1/usage", operation_id = "getUsage", tag = "usage",
    responses((status = 200, body = Usage)),
    security(("bearer" = ["usage:read"]), ("apiKey" = ["usage:read"]))
)]
pub(super) async fn get(
    State(app): State<App>,
    caller: Caller<{ Scope::UsageRead as u8 }>,
) -> ApiResult<Json<Usage>> {
    let now = Timestamp::now();
    let (start, end) = month(now).map_err(ApiError::internal)?;
    let sums = app
        .store
        .usage_sums(&caller.org_id, &(micros(start)..micros(end)))
        .await?;
    let ended: i64 = sums
        .iter()
        .filter(|sum| sum.metric == lifecycle::COMPUTE_METRIC)
        .map(|sum| sum.amount)
        .sum();
    let alive: i64 = app
        .sandboxes
        .of_org(&caller.org_id)
        .iter()
        .map(|live| lifecycle::lifetime_ms(&live.row(), now))
        .sum();
    let used = seconds(ended.saturating_add(alive));
    let current = app.sandboxes.count(&caller.org_id);
    let quotas = app.config.sandboxes_per_org_max.map(|limit| {
        let remaining = Some(limit.saturating_sub(current));
        let quota = Quota {
            limit,
            current: Some(current),
            remaining,
        };
        ("concurrent_sandboxes".to_owned(), quota)
    });
    Ok(Json(Usage {
        period: UsagePeriod {
            start,
            end,
            reset_at: end,
        },
        pricing_version: PRICING_VERSION.to_owned(),
        compute_unit_seconds_per_credit: SECONDS_PER_CREDIT,
        currency_per_credit: CURRENCY_PER_CREDIT,
        compute_unit_seconds: UsedSeconds { used },
        credits: Credits {
            used: used / SECONDS_PER_CREDIT,
            remaining: None,
        },
        quotas: quotas.into_iter().collect::<BTreeMap<_, _>>(),
    }))
}

fn seconds(millis: i64) -> f64 {
    std::time::Duration::from_millis(u64::try_from(millis).unwrap_or(0)).as_secs_f64()
}

/// The first moment of the month of `now`, and of the one after.
fn month(now: Timestamp) -> Result<(Timestamp, Timestamp), jiff::Error> {
    let now = jiff::Timestamp::from_millisecond(now.as_millis())?.to_zoned(TimeZone::UTC);
    let start = now.first_of_month()?.start_of_day()?;
    let end = start.checked_add(1.month())?;
    let wire = |time: &jiff::Zoned| Timestamp::from_millis(time.timestamp().as_millisecond());
    Ok((wire(&start), wire(&end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_calendar_months() {
        let (start, end) = month("2026-12-31T23:59:59.999Z".parse().unwrap()).unwrap();
        assert_eq!(start.to_string(), "2026-12-01T00:00:00.000Z");
        assert_eq!(end.to_string(), "2027-01-01T00:00:00.000Z");
    }
}
