//! Who a process runs as.

use serde::{Deserialize, Serialize};

/// User and group of everything that does not say otherwise.
pub const USER_ID: u32 = 1_000;
/// Ids that a process may be started with. Below are the accounts of the template, init's own among
/// them, and 0, which owns the template's files and the settings of the kernel in /proc/sys. Above is
/// the id that stands for none in 16 bits; the namespace has no further ones.
pub const ID_MIN: u32 = USER_ID;
pub const ID_MAX: u32 = 65_534;

/// A user and a group, without further groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
}

impl Identity {
    /// Whether a process may be started so.
    #[must_use]
    pub fn is_allowed(self) -> bool {
        [self.uid, self.gid]
            .into_iter()
            .all(|id| (ID_MIN..=ID_MAX).contains(&id))
    }

    /// Whether it is that of everything that does not say otherwise.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            uid: USER_ID,
            gid: USER_ID,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_account_of_the_template_may_be_had() {
        let allowed = |uid, gid| Identity { uid, gid }.is_allowed();
        assert!(allowed(1_000, 1_000));
        assert!(allowed(65_534, 2_000));
        // The root of the namespace, init, the sudo group, none in 16 and in 32 bits.
        for id in [0, 998, 27, 65_535, u32::MAX] {
            assert!(!allowed(id, 1_000), "{id}");
            assert!(!allowed(1_000, id), "{id}");
        }
    }
}
