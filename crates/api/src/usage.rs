//! Usage of an organization in the current period.

use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};

/// `GET /v1/usage`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    pub period: UsagePeriod,
    /// *Extension.* The organization's plan.
    pub plan: String,
    pub pricing_version: String,
    pub compute_unit_seconds_per_credit: f64,
    pub currency_per_credit: f64,
    pub compute_unit_seconds: UsedSeconds,
    pub credits: Credits,
    pub quotas: BTreeMap<String, Quota>,
    /// The newest of the period, with `include=events`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<UsageEvent>>,
}

/// What was consumed at once.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageEvent {
    /// In the unit that the metric is named after.
    pub amount: f64,
    pub created_at: Timestamp,
    #[schema(example = "compute_unit_seconds")]
    pub metric: String,
    pub org_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_id: Option<String>,
}

/// What `GET /v1/usage` accepts in its query.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct UsageQuery {
    /// `events`: the newest events of the period too.
    pub include: Option<String>,
}

/// The period that usage is counted in: a calendar month, UTC.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsagePeriod {
    pub start: Timestamp,
    pub end: Timestamp,
    pub reset_at: Timestamp,
}

/// Seconds that sandboxes were alive.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UsedSeconds {
    pub used: f64,
}

/// Credits; a self-hosted service has no balance, so `remaining` is absent.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Credits {
    pub used: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<f64>,
}

/// One limited thing.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Quota {
    pub limit: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<u64>,
}
