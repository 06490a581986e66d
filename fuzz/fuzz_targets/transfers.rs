//! The server reading what a client sends with large files: `Range`, checksums, signatures of
//! URLs, names for files, multipart bodies, patterns of names.

#![no_main]

use crownest_server::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((how, rest)) = data.split_first() else {
        return;
    };
    match how {
        b's' => fuzzing::signed_query(&String::from_utf8_lossy(rest)),
        b'n' => fuzzing::file_name(&String::from_utf8_lossy(rest)),
        b'c' => fuzzing::checksum(rest),
        b'm' => {
            let (piece, body) = rest.split_first().unwrap_or((&1, &[]));
            fuzzing::multipart(usize::from(*piece), body);
        }
        b'g' => {
            let text = String::from_utf8_lossy(rest);
            let (pattern, path) = text.split_once('\0').unwrap_or((&text, ""));
            fuzzing::glob(pattern, path);
        }
        _ => {
            let (size, range) = rest.split_at(rest.len().min(8));
            let mut bytes = [0; 8];
            bytes[..size.len()].copy_from_slice(size);
            // Small sizes as well as large ones.
            let size = u64::from_le_bytes(bytes) >> (how % 64);
            fuzzing::range(size, &String::from_utf8_lossy(range));
        }
    }
});
