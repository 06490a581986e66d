//! The server reading an archive of a client: gzip, tar headers, names, links.
//!
//! The first byte says what the rest is: the uploaded file (`f`), what is inside the gzip file
//! (`t`), or entries, whose checksums are then right (any other): records of a flag, a name, a
//! link target and a content, parted by 0x1f.

#![no_main]

use crownest_fuzz::{UNIT, records};
use crownest_server::fuzzing::{archive, archive_of, gzipped};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    match data.split_first() {
        None => {}
        Some((b'f', file)) => archive(file),
        Some((b't', tar)) => archive(&gzipped(tar)),
        Some((_, entries)) => {
            let entries: Vec<_> = records(entries)
                .filter_map(|record| {
                    let (flag, rest) = record.split_first()?;
                    let mut parts = rest.splitn(3, |byte| *byte == UNIT);
                    let mut part = || parts.next().unwrap_or_default();
                    Some((*flag, part(), part(), part()))
                })
                .collect();
            archive(&archive_of(&entries));
        }
    }
});
