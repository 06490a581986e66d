//! The server reading a segment of a command's log that a killed server, or a disk, left behind;
//! and clients that say from where they want a log.
//!
//! What is taken for sound is what a writer would have written, byte for byte; nothing behind it
//! counts. A place is refused or within its bounds.

#![no_main]

use crownest_fuzz::{halves, records};
use crownest_server::fuzzing::{log_place, log_segment};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    if kind % 2 == 0 {
        log_segment(rest);
        return;
    }
    for record in records(rest) {
        let (query, header) = halves(record);
        log_place(query, header);
    }
});
