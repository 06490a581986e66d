//! The server reading what a driver (tenant code) answers to questions about its context, and
//! fitting what it prints into a budget.
//!
//! Answers of any shape become bounded ones. A budget holds whatever is printed and wherever it was
//! cut, and every byte is kept or counted.

#![no_main]

use crownest_api::output_budget::OutputBudget;
use crownest_fuzz::records;
use crownest_server::fuzzing::{budget, query_answer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((how, rest)) = data.split_first() else {
        return;
    };
    let texts: Vec<_> = records(rest).map(String::from_utf8_lossy).collect();
    if how & 1 == 0 {
        for text in &texts {
            query_answer(how >> 1, text);
        }
        return;
    }
    let pieces: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
    let asked = OutputBudget {
        max_bytes: 256 + u64::from(how >> 4) * 32,
        head: (how & 8 != 0).then_some(100),
        tail: None,
        strip_ansi: Some(how & 2 != 0),
        collapse_repeats: Some(how & 4 != 0),
    };
    budget(asked, &pieces);
});
