//! The server reading what the init of a sandbox says: hello, events, answers; hostile, since
//! tenant code may have taken that init over. Output of a process must come through whole, once
//! and in order, however the bytes are cut.

#![no_main]

use crownest_fuzz::{halves, pieces, records};
use crownest_init::frame::{Decoder, encode};
use crownest_server::fuzzing::InitLink;
use libfuzzer_sys::fuzz_target;
use std::cell::LazyCell;

thread_local! {
    static LINK: LazyCell<InitLink> = LazyCell::new(InitLink::new);
}

fuzz_target!(|data: &[u8]| {
    let Some((cut, rest)) = data.split_first() else {
        return;
    };
    let mut wire = Vec::new();
    for (head, body) in records(rest)
        .map(halves)
        .filter(|(head, _)| !head.is_empty())
    {
        encode(head, body, &mut wire);
    }
    let mut decoder = Decoder::default();
    decoder.push(&wire);
    let frames: Vec<_> = std::iter::from_fn(|| decoder.next_frame().ok().flatten()).collect();
    LINK.with(|link| link.hear(&pieces(&wire, 1 + usize::from(*cut) * 8), &frames));
});
