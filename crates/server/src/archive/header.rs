//! One header of a tar archive, and the records of an extended one. Pure.

use super::ArchiveError;

/// Headers and contents come in blocks of this size.
pub(super) const BLOCK_BYTES: usize = 512;

/// A block that says what follows it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub kind: Kind,
    /// As they stand in the header; extended ones may replace them.
    pub name: Vec<u8>,
    pub link: Vec<u8>,
    pub size: u64,
    pub mode: u32,
    /// Seconds since 1970.
    pub modified_s: i64,
}

/// What a header is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    /// Extended header of the next entry, or of all (`git archive` notes the commit in one).
    Pax,
    PaxGlobal,
    /// Name or link target of the next entry, the way of GNU tar.
    LongName,
    LongLink,
    /// Device, pipe, sparse file …: its name in a message.
    Refused(&'static str),
}

impl Header {
    /// Reads a block that is not all zeros.
    pub(super) fn parse(block: &[u8; BLOCK_BYTES]) -> Result<Self, ArchiveError> {
        let stored = number(&block[148..156]);
        let sum: u64 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| {
                u64::from(if (148..156).contains(&at) {
                    b' '
                } else {
                    *byte
                })
            })
            .sum();
        if stored != Some(sum) {
            return Err(ArchiveError::invalid(
                "not a tar archive: the checksum of a header is wrong",
            ));
        }
        let field = |name: &str, range: std::ops::Range<usize>| {
            number(&block[range])
                .ok_or_else(|| ArchiveError::invalid(format!("a header's {name} is no number")))
        };
        let mut name = text(&block[..100]).to_vec();
        // Only POSIX archives have a prefix there; GNU's have times.
        if &block[257..263] == b"ustar\0" && block[345] != 0 {
            let prefix = text(&block[345..500]);
            name = [prefix, b"/", &name].concat();
        }
        Ok(Self {
            kind: kind(block[156], &name),
            name,
            link: text(&block[157..257]).to_vec(),
            size: field("size", 124..136)?,
            mode: u32::try_from(field("mode", 100..108)? & 0o777).unwrap_or(0),
            // A time that cannot be read is no reason to refuse; before 1970 it is negative.
            modified_s: number(&block[136..148])
                .and_then(|seconds| i64::try_from(seconds).ok())
                .filter(|seconds| *seconds <= MODIFIED_S_MAX)
                .unwrap_or(0),
        })
    }
}

/// What every file system can store (the year 2106).
const MODIFIED_S_MAX: i64 = u32::MAX as i64;

fn kind(flag: u8, name: &[u8]) -> Kind {
    match flag {
        // Archives from before POSIX mark directories by their name.
        b'0' | 0 | b'7' if name.ends_with(b"/") => Kind::Directory,
        b'0' | 0 | b'7' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::Refused("a character device"),
        b'4' => Kind::Refused("a block device"),
        b'5' => Kind::Directory,
        b'6' => Kind::Refused("a named pipe"),
        b'S' => Kind::Refused("a sparse file"),
        b'x' | b'X' => Kind::Pax,
        b'g' => Kind::PaxGlobal,
        b'L' => Kind::LongName,
        b'K' => Kind::LongLink,
        _ => Kind::Refused("of a kind that is not supported"),
    }
}

/// Up to the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0);
    &field[..end.unwrap_or(field.len())]
}

/// Octal digits between spaces and NULs, or big-endian binary behind a byte of 0x80.
fn number(field: &[u8]) -> Option<u64> {
    if let [first @ 0x80..=0xff, rest @ ..] = field {
        let (high, low) = rest.split_at(rest.len().saturating_sub(8));
        // 0xff begins a negative number.
        let fits = *first == 0x80 && high.iter().all(|byte| *byte == 0);
        return fits.then(|| low.iter().fold(0, |n, byte| (n << 8) | u64::from(*byte)));
    }
    let digits = field.trim_ascii_start();
    let end = digits.iter().position(|byte| matches!(byte, b' ' | 0));
    let (digits, padding) = digits.split_at(end.unwrap_or(digits.len()));
    if !padding.iter().all(|byte| matches!(byte, b' ' | 0)) {
        return None;
    }
    // At most twelve digits of three bits each: no overflow.
    digits.iter().try_fold(0, |n, byte| match byte {
        b'0'..=b'7' => Some((n << 3) | u64::from(byte - b'0')),
        _ => None,
    })
}

/// What an extended header says that matters here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
}

impl Pax {
    /// Reads records of the form `length key=value\n`.
    pub(super) fn parse(mut records: &[u8]) -> Result<Self, ArchiveError> {
        let malformed = || ArchiveError::invalid("an extended header is malformed");
        let mut pax = Self::default();
        // Some writers fill the block up.
        while !text(records).is_empty() {
            let space = records.iter().position(|byte| *byte == b' ');
            let space = space.ok_or_else(malformed)?;
            let length: usize = decimal(&records[..space])
                .and_then(|length| usize::try_from(length).ok())
                .ok_or_else(malformed)?;
            let (record, rest) = records.split_at_checked(length).ok_or_else(malformed)?;
            let record = record.get(space + 1..).ok_or_else(malformed)?;
            let record = record.strip_suffix(b"\n").ok_or_else(malformed)?;
            let equals = record.iter().position(|byte| *byte == b'=');
            let (key, value) = record.split_at(equals.ok_or_else(malformed)?);
            let value = &value[1..];
            match key {
                b"path" => pax.path = Some(value.to_vec()),
                b"linkpath" => pax.link = Some(value.to_vec()),
                b"size" => pax.size = Some(decimal(value).ok_or_else(malformed)?),
                _ if key.starts_with(b"GNU.sparse.") => {
                    return Err(ArchiveError::invalid("sparse files are not supported"));
                }
                _ => {}
            }
            records = rest;
        }
        Ok(pax)
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"777777777777"), Some((1 << 36) - 1));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]), Some(258));
        assert_eq!(number(&[0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(number(&[0xff; 12]), None);
        for bad in [&b"0000648\0"[..], b"12 34\0", b"-1\0", b"0x10\0"] {
            assert_eq!(number(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn records_of_extended_headers() {
        let pax = Pax::parse(b"12 path=a/b\n19 linkpath=\xc3\xa9/foo\n10 size=7\n11 mtime=1\n");
        let pax = pax.unwrap();
        assert_eq!(pax.path.unwrap(), b"a/b");
        assert_eq!(pax.link.unwrap(), "é/foo".as_bytes());
        assert_eq!(pax.size, Some(7));
        for bad in [
            &b"x"[..],
            b"5 a=b\n",
            b"99 path=a\n",
            b"0 \n",
            b"1 ",
            b"9 path=ab",
            b"8 patha\n",
            b"99999999999999999999999 a=b\n",
            b"10 size=x\n",
            b"22 GNU.sparse.major=1\n",
        ] {
            assert!(
                Pax::parse(bad).is_err(),
                "{:?}",
                String::from_utf8_lossy(bad)
            );
        }
    }
}
