//! The live sandboxes of this node, as objects.
//!
//! Joins the spawner (which makes and kills sandboxes) with the link to each sandbox's init
//! (which runs things in it). Owns: [`Sandbox`] and everything reached through it, the pool of
//! prepared sandboxes, the egress proxies. Does not own: HTTP, rows, ids of resources, policy.
//!
//! Trust: every byte from an init is hostile. Lengths, counts and shapes are checked here; what
//! passes is bounded, never believed.

mod calls;
mod config;
mod context;
mod counters;
mod error;
mod files;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod inbox;
mod kept_run;
mod kernel_event;
mod kernels;
mod link;
mod link_task;
mod making;
mod node;
mod open;
mod pause;
mod pool;
mod retry;
mod run;
mod sandbox;
mod shelf;
mod snapshots;
mod spares;
mod spawner;
mod target;
#[cfg(test)]
mod tests;
mod transfers;
mod trees;
mod types;

pub use config::{HostConfig, POOL_ENTRY_AGE_MAX, PoolConfig, PoolTemplate};
pub use counters::HostMetrics;
pub use crownest_init::cell::{INPUT_BYTES_MAX, Query, RunUsage};
pub use crownest_init::link::{Death, FileEntry, FileKind, FileStat, Within};
pub use error::{FileErrorKind, HostError};
pub use files::WriteSpec;
pub use kept_run::{Heard, KeptRun};
#[cfg(test)]
pub(crate) use kernel_event::parse as parse_event;
pub use kernel_event::{Bundle, BundleEntry, BundleValue, Export, Omitted, bundle_entries};
pub use kernels::{KERNELS, Kernel, Runtimes, language};
pub use node::Host;
pub use run::{Asked, Exec, Run};
pub use sandbox::Sandbox;
pub use spawner::{
    CreateSpec, Created, ForkedDriver, Limits, Network, SandboxKey, SandboxStats, SnapshotSize,
    Spawner, SpawnerError, TemplateDigest,
};
pub use transfers::{Upload, UploadSpec};
pub use trees::FileChange;
pub use types::{
    CONTEXT_ID_BYTES_MAX, ClosedReason, ContextSpec, CreateTimings, ExecDone, ExecEnd, ExecEvent,
    ExecSpec, ExecTarget, Isolation, KnownSandbox, QueryDone, QuerySpec, RUNS_QUEUED_MAX,
    Recovered, RunDone, RunEvent, RunOutcome, RunSpec, RunTarget, SandboxSpec, TIMEOUT_MAX,
    TemplateRef,
};
