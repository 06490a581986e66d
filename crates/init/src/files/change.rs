//! Modes and owners.

use super::resolve::Place;
use super::{code, describe_place};
use crate::calls::Answer;
use crownest_init::link::{CallError, Reply};
use rustix::fs::{AtFlags, CWD, Gid, Mode, Uid, chmodat, chownat, fstat};
use std::os::fd::AsRawFd;

/// Bits that a request may set. Those beyond permissions do nothing for anybody in a sandbox.
const MODE_MASK: u32 = 0o7777;

/// Changes what was asked for. The owner first: where that is refused, nothing has changed.
///
/// Who runs it: init, as the tenant's user and without the capability to give files away, so that
/// the kernel refuses what it would refuse the tenant.
pub(super) fn change(
    mut place: Place,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
) -> Result<Answer, CallError> {
    // An `O_PATH` descriptor cannot be changed itself; this leads to the same inode, no other.
    let path = format!("/proc/self/fd/{}", place.as_directory().as_raw_fd());
    let other_uid = uid.filter(|uid| *uid != place.stat.st_uid);
    let other_gid = gid.filter(|gid| *gid != place.stat.st_gid);
    if other_uid.is_some() || other_gid.is_some() {
        let (uid, gid) = (other_uid.map(Uid::from_raw), other_gid.map(Gid::from_raw));
        chownat(CWD, &path, uid, gid, AtFlags::empty()).map_err(code)?;
    }
    if let Some(mode) = mode {
        let mode = Mode::from_raw_mode(mode & MODE_MASK);
        chmodat(CWD, &path, mode, AtFlags::empty()).map_err(code)?;
    }
    place.stat = fstat(place.as_directory()).map_err(code)?;
    Ok(Answer::from(Reply {
        stat: Some(describe_place(&place)),
        ..Reply::default()
    }))
}
