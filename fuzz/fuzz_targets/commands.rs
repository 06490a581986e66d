//! The spawner (root) reading a command of the server, and the server reading its answer.
//!
//! Decoding is total, and canonical: what is accepted is, byte for byte, what encoding it gives.

#![no_main]

use crownest_runtime::command::{
    COMMAND_BYTES, Command, LIST_KEYS_MAX, SandboxKey, TemplateDigest, decode_answer,
    decode_command, encode_answer, encode_command,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    datagram(data);
    // The length is the first thing that is checked: get past it.
    let mut whole = [0; COMMAND_BYTES];
    let length = data.len().min(COMMAND_BYTES);
    whole[..length].copy_from_slice(&data[..length]);
    datagram(&whole);
    if let Ok(text) = std::str::from_utf8(data) {
        if let Some(key) = SandboxKey::new(text) {
            assert!(!key.as_str().contains(['/', '.', '\0']) && key.as_str() == text);
        }
        if let Some(digest) = TemplateDigest::from_hex(text) {
            assert_eq!(digest.to_hex(), text);
        }
    }
});

fn datagram(bytes: &[u8]) {
    if let Some((number, command)) = decode_command(bytes) {
        assert_eq!(encode_command(number, &command), *bytes);
        if let Command::Create { limits, .. } = command {
            let _ = limits.in_range();
        }
    }
    if let Some((number, answer)) = decode_answer(bytes) {
        assert_eq!(encode_answer(number, &answer), *bytes);
        if let crownest_runtime::command::Answer::Keys(keys) = answer {
            assert!(keys.len() <= LIST_KEYS_MAX);
        }
    }
}
