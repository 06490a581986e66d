//! Where output may be cut: between characters.
//!
//! Who runs it: init, on every byte that a program of the tenant prints.

/// Length of the longest prefix that does not end inside a UTF-8 character. At most three bytes
/// are left over; bytes that cannot start a character are never held back.
#[must_use]
pub fn complete_characters(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let length = match bytes[bytes.len() - back] {
            0x80..=0xbf => continue,
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => 1,
        };
        return if length > back {
            bytes.len() - back
        } else {
            bytes.len()
        };
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_not_cut() {
        let text = "aé€😀";
        for end in 0..=text.len() {
            let cut = complete_characters(&text.as_bytes()[..end]);
            assert!(
                std::str::from_utf8(&text.as_bytes()[..cut]).is_ok(),
                "end {end}"
            );
            assert!(end - cut <= 3);
        }
        assert_eq!(complete_characters(text.as_bytes()), text.len());
    }

    #[test]
    fn broken_bytes_are_not_held_back() {
        assert_eq!(complete_characters(&[0xff]), 1);
        assert_eq!(complete_characters(&[0x80, 0x80, 0x80, 0x80]), 4);
        assert_eq!(complete_characters(&[0xc0]), 1);
        assert_eq!(complete_characters(&[0xe2, 0x82]), 0);
        assert_eq!(complete_characters(b""), 0);
    }
}
