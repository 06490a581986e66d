//! The HTTP proxy through which sandboxes reach the world.
//!
//! A sandbox in network mode `proxy` has no route but loopback. Its init listens on
//! 127.0.0.1:3128 inside its network namespace and hands the listening socket out; this process
//! serves it. Owns: what may be reached ([`Policy`], pure), how names become addresses, tunnels
//! and forwarded requests, and their counters. Does not own: which sandbox has which policy.
//!
//! The one rule: a connection goes to an address that was checked, never to a name.

mod address;
mod forward;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod metered;
mod narrowing;
mod policy;
mod proxy;
mod refusal;
mod resolve;
#[cfg(test)]
mod tests;

pub(crate) use forward::strip_hop_by_hop;
pub(crate) use metered::{Activity, Meter, Metered};

pub use address::forbidden_range;
pub use narrowing::{SANDBOX_RULES_MAX, SandboxRule, SandboxRules};
pub use policy::{Policy, PolicyConfig, PolicyError, Upstream};
pub use proxy::{Counts, Proxy, serve};
