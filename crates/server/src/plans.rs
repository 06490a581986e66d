//! Plans: what an organization may have at once, and for how long.
//!
//! A self-hosted server has one plan without limits of its own: the configuration's hold. The
//! others are the tables of the hosted service, for those who resell: an organization's plan is
//! kept in the store (`crownest admin org plan`), the server's default in its configuration. Owns
//! the numbers and the arithmetic of credits. Does not own counting.

use crate::config::Config;
use std::fmt;

const HOUR_MS: u64 = 3_600_000;
/// What a plan's requests per minute are when the configuration does not say.
const REQUESTS_PER_MINUTE: u32 = 120;
/// One credit is an hour of one compute unit.
pub(crate) const SECONDS_PER_CREDIT: f64 = 3_600.0;
/// US dollars for one credit, on plans that cost something.
const CURRENCY_PER_CREDIT: f64 = 0.12;

/// The plans there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Plan {
    /// As the configuration says.
    #[default]
    SelfHosted,
    Free,
    Builder,
    Scale,
    Enterprise,
}

/// What a plan allows. `None` is without limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct PlanLimits {
    pub sandboxes_max: Option<u64>,
    pub create_ttl_max_ms: u64,
    pub extend_ttl_max_ms: u64,
    pub session_ttl_max_ms: u64,
    pub artifact_retention_days: u32,
    pub previews_per_org_max: u64,
    pub previews_per_sandbox_max: u64,
    pub requests_per_minute_max: Option<u32>,
    /// US dollars that are included: once for [`Plan::Free`], every month for the others.
    pub included: Option<f64>,
}

impl Plan {
    pub const ALL: [Self; 5] = [
        Self::SelfHosted,
        Self::Free,
        Self::Builder,
        Self::Scale,
        Self::Enterprise,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SelfHosted => "self-hosted",
            Self::Free => "free",
            Self::Builder => "builder",
            Self::Scale => "scale",
            Self::Enterprise => "enterprise",
        }
    }

    /// Prices and limits of a version never change: usage stays what it was when it was counted.
    pub(crate) const fn pricing_version(self) -> &'static str {
        match self {
            Self::SelfHosted => "self-hosted-1",
            _ => "2026-11",
        }
    }

    pub(crate) const fn currency_per_credit(self) -> f64 {
        match self {
            Self::SelfHosted => 0.0,
            _ => CURRENCY_PER_CREDIT,
        }
    }

    /// Whether nothing more may be made once the included credit is used up. The other plans go
    /// on and pay.
    pub(crate) const fn ends_with_its_credit(self) -> bool {
        matches!(self, Self::Free)
    }

    /// The table of the contract; the configuration's requests per minute win over the plan's.
    pub(crate) fn limits(self, config: &Config) -> PlanLimits {
        let (sandboxes, life_hours, days, included) = match self {
            Self::SelfHosted => {
                return PlanLimits {
                    sandboxes_max: config.sandboxes_per_org_max,
                    create_ttl_max_ms: config.ttl_max_ms,
                    extend_ttl_max_ms: config.extend_max_ms,
                    session_ttl_max_ms: config.session_max_ms,
                    artifact_retention_days: config.artifact_retention_days,
                    previews_per_org_max: config.previews_per_org_max,
                    previews_per_sandbox_max: config.previews_per_sandbox_max,
                    requests_per_minute_max: config.requests_per_minute_max,
                    included: None,
                };
            }
            Self::Free => (2, 1, 7, Some(10.0)),
            Self::Builder => (25, 24, 30, Some(20.0)),
            Self::Scale => (100, 72, 90, Some(100.0)),
            Self::Enterprise => (250, 168, 365, None),
        };
        let life_ms = life_hours * HOUR_MS;
        PlanLimits {
            sandboxes_max: Some(sandboxes),
            create_ttl_max_ms: config.ttl_max_ms.min(HOUR_MS),
            extend_ttl_max_ms: life_ms,
            session_ttl_max_ms: life_ms,
            artifact_retention_days: days,
            previews_per_org_max: 10,
            previews_per_sandbox_max: 3,
            requests_per_minute_max: config.requests_per_minute_max.or(Some(REQUESTS_PER_MINUTE)),
            included,
        }
    }

    /// Credits that are left of what is included, after `used` of them; none: no bound.
    pub(crate) fn remaining_credits(self, limits: &PlanLimits, used: f64) -> Option<f64> {
        let included = limits.included? / self.currency_per_credit();
        Some((included - used).max(0.0))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no such plan; there are self-hosted, free, builder, scale and enterprise")]
pub struct UnknownPlan;

impl std::str::FromStr for Plan {
    type Err = UnknownPlan;

    fn from_str(text: &str) -> Result<Self, UnknownPlan> {
        Self::ALL
            .into_iter()
            .find(|plan| plan.as_str() == text)
            .ok_or(UnknownPlan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::templates::{Inventory, TemplateSource};

    #[test]
    fn plans_are_the_table_of_the_contract() {
        let source = TemplateSource::new(Inventory::default);
        let config = Config::new("node_1".into(), source);
        let row = |plan: Plan| {
            let limits = plan.limits(&config);
            (
                limits.sandboxes_max,
                limits.extend_ttl_max_ms / HOUR_MS,
                limits.artifact_retention_days,
            )
        };
        assert_eq!(row(Plan::Free), (Some(2), 1, 7));
        assert_eq!(row(Plan::Builder), (Some(25), 24, 30));
        assert_eq!(row(Plan::Scale), (Some(100), 72, 90));
        assert_eq!(row(Plan::Enterprise), (Some(250), 168, 365));
        assert_eq!(row(Plan::SelfHosted).0, None);
        for plan in Plan::ALL {
            assert_eq!(plan.as_str().parse(), Ok(plan));
        }
        let free = Plan::Free.limits(&config);
        let hours = Plan::Free.remaining_credits(&free, 0.0).unwrap();
        assert!((hours - 10.0 / 0.12).abs() < 1e-9);
        assert_eq!(Plan::Free.remaining_credits(&free, 1e6), Some(0.0));
    }
}
