//! Usage of an organization in the current period.

use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// `GET /v1/usage`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    pub period: UsagePeriod,
    pub pricing_version: String,
    pub compute_unit_seconds_per_credit: f64,
    pub currency_per_credit: f64,
    pub compute_unit_seconds: UsedSeconds,
    pub credits: Credits,
    pub quotas: BTreeMap<String, Quota>,
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
