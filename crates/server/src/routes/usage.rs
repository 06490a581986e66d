//! `/v1/usage`: what the organization used this month, from recorded ends and what is alive now.

use super::paging;
use crate::app::App;
use crate::auth::{Caller, micros};
use crate::error::{ApiError, ApiResult};
use crate::extract::QueryArgs;
use crate::lifecycle::COMPUTE_METRIC;
use crate::metering;
use crate::plans::{PlanLimits, SECONDS_PER_CREDIT};
use axum::Json;
use axum::extract::State;
use crownest_api::page::PageQuery;
use crownest_api::usage::{
    Credits, Quota, Usage, UsageEvent, UsagePeriod, UsageQuery, UsedSeconds,
};
use crownest_api::{Scope, Timestamp};
use crownest_store as store;
use std::collections::BTreeMap;

/// Usage of the current calendar month, UTC; with `include=events` its newest events too.
#[utoipa::path(
    get, path = "/v1/usage", operation_id = "getUsage", tag = "usage",
    params(UsageQuery), responses((status = 200, body = Usage)),
    security(("bearer" = ["usage:read"]), ("apiKey" = ["usage:read"]))
)]
pub(super) async fn get(
    State(app): State<App>,
    caller: Caller<{ Scope::UsageRead as u8 }>,
    QueryArgs(query): QueryArgs<UsageQuery>,
) -> ApiResult<Json<Usage>> {
    let now = Timestamp::now();
    let month = metering::month(now).map_err(ApiError::internal)?;
    let used = metering::seconds(app.compute_ms(&caller.org_id, &month).await?);
    let limits = caller.plan.limits(&app.config);
    let events = match query.include.as_deref() {
        None => None,
        Some("events") => {
            let page = paging::request(&PageQuery::default())?;
            let period = micros(month.start)..micros(month.end);
            let found = app.store.usage_events(&caller.org_id, &period, &page);
            Some(found.await?.rows.into_iter().map(wire).collect())
        }
        Some(_) => return Err(ApiError::field("include", "include can be events only")),
    };
    Ok(Json(Usage {
        period: UsagePeriod {
            start: month.start,
            end: month.end,
            reset_at: month.end,
        },
        plan: caller.plan.as_str().to_owned(),
        pricing_version: caller.plan.pricing_version().to_owned(),
        compute_unit_seconds_per_credit: SECONDS_PER_CREDIT,
        currency_per_credit: caller.plan.currency_per_credit(),
        compute_unit_seconds: UsedSeconds { used },
        credits: credits(&app, &caller, &limits, used).await?,
        quotas: quotas(&app, &caller.org_id, &limits),
        events,
    }))
}

async fn credits(
    app: &App,
    caller: &Caller<{ Scope::UsageRead as u8 }>,
    limits: &PlanLimits,
    used_seconds: f64,
) -> ApiResult<Credits> {
    let used = used_seconds / SECONDS_PER_CREDIT;
    let spent = if caller.plan.ends_with_its_credit() {
        let period = App::credit_period(caller.plan, Timestamp::now())?;
        metering::seconds(app.compute_ms(&caller.org_id, &period).await?) / SECONDS_PER_CREDIT
    } else {
        used
    };
    Ok(Credits {
        used,
        remaining: caller.plan.remaining_credits(limits, spent),
    })
}

fn quotas(app: &App, org_id: &str, limits: &PlanLimits) -> BTreeMap<String, Quota> {
    let mut quotas = BTreeMap::new();
    if let Some(limit) = limits.sandboxes_max {
        let current = app.sandboxes.count(org_id);
        let quota = Quota {
            limit,
            current: Some(current),
            remaining: Some(limit.saturating_sub(current)),
        };
        quotas.insert("concurrent_sandboxes".to_owned(), quota);
    }
    let plain = |limit| Quota {
        limit,
        current: None,
        remaining: None,
    };
    if let Some(limit) = limits.requests_per_minute_max {
        quotas.insert("requests_per_minute".to_owned(), plain(limit.into()));
    }
    quotas.insert("create_ttl_ms".to_owned(), plain(limits.create_ttl_max_ms));
    quotas.insert("extend_ttl_ms".to_owned(), plain(limits.extend_ttl_max_ms));
    quotas.insert(
        "session_ttl_ms".to_owned(),
        plain(limits.session_ttl_max_ms),
    );
    let days = plain(limits.artifact_retention_days.into());
    quotas.insert("artifact_retention_days".to_owned(), days);
    let previews = plain(limits.previews_per_org_max);
    quotas.insert("previews_per_organization".to_owned(), previews);
    let previews = plain(limits.previews_per_sandbox_max);
    quotas.insert("previews_per_sandbox".to_owned(), previews);
    quotas
}

fn wire(row: store::UsageEvent) -> UsageEvent {
    // Kept in milliseconds: most sandboxes live for less than a second.
    let (metric, amount) = if row.metric == COMPUTE_METRIC {
        (
            "compute_unit_seconds".to_owned(),
            metering::seconds(row.amount),
        )
    } else {
        (row.metric, row.amount as f64)
    };
    UsageEvent {
        amount,
        created_at: Timestamp::from_millis(row.created_at / 1_000),
        metric,
        org_id: row.org_id,
        project_id: row.project_id,
        resource_id: row.resource_id,
    }
}
