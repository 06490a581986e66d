//! Heads of messages on their way between a visitor and a sandbox: hosts, cookies of both sides,
//! queries with a token.

#![no_main]

use crownest_server::fuzzing::preview;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((which, rest)) = data.split_first() else {
        return;
    };
    match which % 4 {
        0 => preview::host(rest),
        1 => preview::cookies(rest),
        2 => preview::set_cookie(rest),
        _ => preview::query(rest),
    }
});
