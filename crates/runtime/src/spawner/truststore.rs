//! The operator's CA certificates as a JDK reads them.
//!
//! Every other runtime takes the PEM file by an environment variable; a JDK has no such variable
//! and reads key stores alone, so the same certificates are written as one (JKS, version 2:
//! certificates without keys, in the clear). The checksum at its end is keyed with a password and
//! is looked at only by who gives one; trust stores are opened without.
//!
//! Who runs it: the spawner, as root, at its start, on a file that the operator named.

const MAGIC: u32 = 0xfeed_feed;
const VERSION: u32 = 2;
const TRUSTED_CERTIFICATE: u32 = 2;
const CHECKSUM_BYTES: usize = 20;
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
/// Largest certificate that is taken.
const CERTIFICATE_BYTES_MAX: usize = 64 * 1024;
/// Most certificates that are taken; a distribution trusts some 150.
const CERTIFICATES_MAX: u32 = 2_000;

/// A trust store with the certificates of a PEM file. What is not one is left out: a JDK refuses a
/// store with a single broken entry.
pub(super) fn from_pem(pem: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(pem);
    let mut entries = Vec::new();
    let mut count = 0;
    for block in text.split(BEGIN).skip(1) {
        let Some(certificate) = block.split(END).next().and_then(decode) else {
            continue;
        };
        if !is_certificate(&certificate) || count >= CERTIFICATES_MAX {
            continue;
        }
        count += 1;
        entries.extend(TRUSTED_CERTIFICATE.to_be_bytes());
        push_text(&mut entries, &format!("ca-{count}"));
        // When it was added, which nobody asks.
        entries.extend(0_u64.to_be_bytes());
        push_text(&mut entries, "X.509");
        let length = u32::try_from(certificate.len()).expect("at most CERTIFICATE_BYTES_MAX");
        entries.extend(length.to_be_bytes());
        entries.extend(certificate);
    }
    let mut store = Vec::with_capacity(entries.len() + 12 + CHECKSUM_BYTES);
    for word in [MAGIC, VERSION, count] {
        store.extend(word.to_be_bytes());
    }
    store.extend(entries);
    store.extend([0; CHECKSUM_BYTES]);
    store
}

/// Java's `writeUTF` of ASCII.
fn push_text(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("a few letters");
    out.extend(length.to_be_bytes());
    out.extend(text.as_bytes());
}

/// A DER sequence that is as long as it says.
fn is_certificate(der: &[u8]) -> bool {
    match der {
        [0x30, 0x82, high, low, rest @ ..] => {
            rest.len() == usize::from(u16::from_be_bytes([*high, *low]))
        }
        [0x30, 0x81, length, rest @ ..] => rest.len() == usize::from(*length),
        _ => false,
    }
}

/// Base64 with line breaks in it.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut held) = (0_u32, 0_u32);
    for letter in text.bytes().filter(|b| !b.is_ascii_whitespace()) {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => break,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held).ok()?);
            bits &= (1 << held) - 1;
        }
        if bytes.len() > CERTIFICATE_BYTES_MAX {
            return None;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Five bytes in a DER sequence, the way OpenSSL would print them.
    const PEM: &str =
        "# name\n-----BEGIN CERTIFICATE-----\nMIEF\naGVs\nbG8=\n-----END CERTIFICATE-----\n";

    #[test]
    fn base64_is_read() {
        assert_eq!(decode("aGVs\nbG8=").unwrap(), b"hello");
        assert_eq!(decode("aGVsbG8h").unwrap(), b"hello!");
        assert_eq!(decode("aGVs*"), None);
    }

    #[test]
    fn a_certificate_is_one_entry() {
        let store = from_pem(PEM.as_bytes());
        let mut expected = vec![0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
        expected.extend(b"\0\x04ca-1\0\0\0\0\0\0\0\0\0\x05X.509\0\0\0\x08\x30\x81\x05hello");
        expected.extend([0; CHECKSUM_BYTES]);
        assert_eq!(store, expected);
    }

    #[test]
    fn what_is_no_certificate_is_left_out() {
        for bad in [
            "",
            "-----BEGIN CERTIFICATE-----",
            "-----BEGIN CERTIFICATE-----\n****\n-----END CERTIFICATE-----",
            "-----BEGIN CERTIFICATE-----\nMIEFaGVs\n-----END CERTIFICATE-----",
        ] {
            let store = from_pem(bad.as_bytes());
            assert_eq!(store[8..12], [0; 4], "{bad}");
        }
        let twice = from_pem(format!("{PEM}-----BEGIN CERTIFICATE-----\nx\n{PEM}").as_bytes());
        assert_eq!(twice[8..12], [0, 0, 0, 2]);
    }
}
