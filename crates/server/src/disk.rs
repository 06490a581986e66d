//! Room that what tenants leave behind (logs, artifacts, archives) must not take: the database, and
//! everything else on that disk, would stop with it.

use std::path::Path;

/// What stays free.
pub(crate) const FREE_BYTES_MIN: u64 = 1 << 30;

/// Whether less than `min` bytes are free where `directory` is. A disk that cannot be asked is not
/// scarce: writing to it says what is wrong.
pub(crate) fn is_scarce(directory: &Path, min: u64) -> bool {
    rustix::fs::statvfs(directory)
        .is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < min)
}
