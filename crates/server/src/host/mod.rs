//! The live sandboxes of this node, as objects.
//!
//! Joins the spawner (which makes and kills sandboxes) with the link to each sandbox's init
//! (which runs things in it). Owns: [`Sandbox`] and everything reached through it, the pool of
//! prepared sandboxes, the egress proxies. Does not own: HTTP, rows, ids of resources, policy.
//!
//! Trust: every byte from an init is hostile. Lengths, counts and shapes are checked here; what
//! passes is bounded, never believed.

mod config;
mod error;
mod kernel_event;
mod spawner;
mod types;

pub use config::{HostConfig, POOL_ENTRY_AGE_MAX, PoolConfig, PoolTemplate};
pub use crownest_init::link::{Death, FileEntry, FileKind, FileStat, Within};
pub use error::{FileErrorKind, HostError};
pub use kernel_event::{Bundle, BundleEntry, BundleValue, Omitted};
pub use spawner::{
    CreateSpec, Created, ForkedDriver, Limits, Network, SandboxKey, SandboxStats, Spawner,
    SpawnerError, TemplateDigest,
};
pub use types::{
    CONTEXT_ID_BYTES_MAX, ClosedReason, ContextSpec, CreateTimings, ExecDone, ExecEnd, ExecEvent,
    ExecSpec, ExecTarget, Isolation, KnownSandbox, RUNS_QUEUED_MAX, Recovered, RunDone, RunEvent,
    RunOutcome, RunSpec, SandboxSpec, TIMEOUT_MAX, TemplateRef,
};

// Methods that routes call (bodies land next; signatures stand):
//
// impl Host {
//   async fn start(config: HostConfig) -> Result<Host, HostError>;
//   async fn create(&self, spec: SandboxSpec) -> Result<(Arc<Sandbox>, CreateTimings), HostError>;
//   fn get(&self, key: &SandboxKey) -> Option<Arc<Sandbox>>;
//   async fn destroy(&self, key: &SandboxKey) -> Result<(), HostError>;
//   async fn recover(&self, known: &[KnownSandbox]) -> Result<Recovered, HostError>;
//   async fn shutdown(&self);
//   fn metrics(&self) -> HostMetrics;              // plain struct of u64 fields, Clone
// }
// impl Sandbox {
//   fn key(&self) -> &SandboxKey;
//   fn template(&self) -> &TemplateRef;
//   async fn set_deadline(&self, after: Duration) -> Result<(), HostError>;
//   async fn open_context(&self, spec: ContextSpec) -> Result<(), HostError>;
//   async fn close_context(&self, id: &str) -> Result<(), HostError>;
//   fn has_context(&self, id: &str) -> bool;       // alive
//   async fn run(&self, spec: RunSpec) -> Result<Run, HostError>;
//   async fn exec(&self, spec: ExecSpec) -> Result<Exec, HostError>;
//   async fn attach_exec(&self, id: u64, handled_seq: u64) -> Result<Exec, HostError>; // after recover
//   fn recovered_execs(&self) -> Vec<ExecTarget>;
//   async fn stat(&self, path: &str, within: Within) -> Result<FileStat, HostError>;
//   async fn list(&self, path: &str, within: Within) -> Result<Vec<FileEntry>, HostError>;
//   async fn read(&self, path: &str, within: Within, offset: u64, length: u64) -> Result<(FileStat, Bytes), HostError>;
//   async fn write(&self, spec: WriteSpec { path, within, overwrite, parents, mode, content: Bytes }) -> Result<FileStat, HostError>;
//   async fn mkdir(&self, path: &str, within: Within, parents: bool) -> Result<FileStat, HostError>;
//   async fn rename(&self, from: &str, to: &str, within: Within, overwrite: bool) -> Result<FileStat?, HostError>;
//   async fn remove(&self, path: &str, within: Within) -> Result<(), HostError>;
//   async fn dial(&self, port: u16) -> Result<tokio::net::TcpStream, HostError>;
//   async fn freeze(&self, frozen: bool) -> Result<(), HostError>;
//   async fn stats(&self) -> Result<SandboxStats, HostError>;
//   fn egress_counters(&self) -> Option<EgressCounts>;  // bytes_up, bytes_down, connections, refused
//   fn set_egress_policy(&self, policy: Arc<egress::Policy>);
//   async fn closed(&self) -> ClosedReason;        // resolves when it is gone
//   fn is_closed(&self) -> bool;
// }
// impl Run  { fn id(&self) -> u64; async fn next(&mut self) -> Option<RunEvent>; async fn interrupt(&self); }
// impl Exec { fn id(&self) -> u64; fn pid(&self) -> i32; async fn next(&mut self) -> Option<ExecEvent>;
//             fn seq(&self) -> u64;                 // of the event last returned: store it with the log
//             async fn signal(&self, signal: i32, escalate: bool) -> Result<(), HostError>;
//             fn acknowledge(self);                 // after the end is stored; dropping instead only
//                                                   // detaches: the process goes on, attach_exec finds it }
