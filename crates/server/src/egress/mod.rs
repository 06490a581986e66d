//! The HTTP proxy through which sandboxes reach the world.

mod policy;
pub use policy::Policy;
