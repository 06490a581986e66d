//! The egress rules of one sandbox: asked for at its creation, changed while it lives, kept with
//! its row so that a restart of the server does not open what was closed.
//!
//! Does not own what rules mean ([`crate::egress`]).

use crate::app::App;
use crate::egress::{PolicyError, SandboxRules};
use crate::error::{ApiError, ApiResult};
use crate::recovery;
use crate::sandboxes::LiveSandbox;
use crownest_api::ErrorCode;

impl From<PolicyError> for ApiError {
    fn from(error: PolicyError) -> Self {
        Self::field("egress", error.to_string())
    }
}

impl App {
    /// The rules of a sandbox.
    pub(crate) fn egress_rules(&self, live: &LiveSandbox) -> SandboxRules {
        if live.host.egress_counters().is_none() {
            // It has no way out at all.
            return SandboxRules::nothing();
        }
        recovery::egress(&live.row()).unwrap_or_default()
    }

    /// Changes the rules of a live sandbox, for connections that it opens from now on.
    ///
    /// # Errors
    /// Rules that make no sense; a sandbox without network.
    pub(crate) async fn change_egress_rules(
        &self,
        live: &LiveSandbox,
        change: impl FnOnce(&mut SandboxRules) + Send,
    ) -> ApiResult<SandboxRules> {
        // One after the other, so that none writes over what it has not read.
        let _turn = live.changing.lock().await;
        if live.host.egress_counters().is_none() {
            let message = "this sandbox was made without network";
            return Err(ApiError::new(ErrorCode::InvalidRequest, message));
        }
        let mut rules = self.egress_rules(live);
        change(&mut rules);
        let policy = live.host.narrowed_egress(&rules)?;
        let runtime = recovery::with_egress(&live.row(), &rules);
        let runtime = runtime.map_err(ApiError::internal)?;
        let stored = self
            .store
            .set_sandbox_runtime(&live.org_id, &live.id, &runtime)
            .await?;
        if !stored {
            return Err(ApiError::destroyed());
        }
        live.row().runtime = Some(runtime);
        live.host.set_egress_policy(policy);
        Ok(rules)
    }
}
