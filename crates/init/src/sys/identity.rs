//! Whose rights a file operation has.
//!
//! Init runs as its own user, so that tenant code can neither signal nor inspect it. File calls
//! are made with the file system identity of the tenant's user, so that init never opens what
//! the tenant could not.

use crownest_init::identity::USER_ID;
use std::marker::PhantomData;

/// While it lives, this thread's file system uid and gid are those of the tenant's user.
///
/// Who runs it: init, with CAP_SETUID and CAP_SETGID. Neither id is 0, so capabilities do not
/// change with it.
#[derive(Debug)]
pub(crate) struct AsUser {
    own_uid: u32,
    own_gid: u32,
    /// The identity is the thread's: the guard must stay on it.
    _not_send: PhantomData<*const ()>,
}

impl AsUser {
    /// None when the kernel did not do it: the caller must not touch a file then.
    pub(crate) fn enter() -> Option<Self> {
        let guard = Self {
            own_gid: set_fs_gid(USER_ID),
            own_uid: set_fs_uid(USER_ID),
            _not_send: PhantomData,
        };
        // Neither call reports failure: setting an impossible id returns the current one.
        let entered = set_fs_gid(u32::MAX) == USER_ID && set_fs_uid(u32::MAX) == USER_ID;
        entered.then_some(guard)
    }
}

impl Drop for AsUser {
    fn drop(&mut self) {
        set_fs_uid(self.own_uid);
        set_fs_gid(self.own_gid);
        // Any change of fsuid sets "dumpable" to a default that the host chooses.
        let _ =
            rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    }
}

fn set_fs_uid(id: u32) -> u32 {
    // SAFETY: takes a number, returns a number. The raw call: it is per thread.
    let previous = unsafe { libc::syscall(libc::SYS_setfsuid, id) };
    u32::try_from(previous & 0xffff_ffff).expect("masked to 32 bits")
}

fn set_fs_gid(id: u32) -> u32 {
    // SAFETY: takes a number, returns a number.
    let previous = unsafe { libc::syscall(libc::SYS_setfsgid, id) };
    u32::try_from(previous & 0xffff_ffff).expect("masked to 32 bits")
}
