//! Whole archives: what passes arrives as it was, what does not is refused by name.

use super::reader::read;
use super::sample::{checked, ended, entry, gzip, header};
use super::{ArchiveError, Limits, Summary};
use crownest_init::unpack::EntryKind;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::{self, Read};

const LIMITS: Limits = Limits {
    entries_max: 50,
    unpacked_bytes_max: 8 << 20,
    archive_bytes_max: 40 << 20,
    ratio_max: 200,
};

/// What an archive makes: content, link target, or a directory's mode by path.
type Made = BTreeMap<String, Vec<u8>>;

fn unpacked(file: impl Read) -> Result<(Made, Summary), ArchiveError> {
    let mut made = Made::new();
    let summary = read(file, LIMITS, &mut |batch| {
        let mut body = &batch.body[..];
        for entry in batch.entries {
            let value = match entry.kind {
                EntryKind::Directory { mode } => format!("dir {mode:o}").into_bytes(),
                EntryKind::Symlink { target } => format!("-> {target}").into_bytes(),
                EntryKind::HardLink { target } => made[&target].clone(),
                EntryKind::File { offset, length, .. } => {
                    let (bytes, rest) = body.split_at(usize::try_from(length).unwrap());
                    body = rest;
                    let mut whole = made.remove(&entry.path).unwrap_or_default();
                    whole.truncate(usize::try_from(offset).unwrap());
                    [&whole, bytes].concat()
                }
            };
            made.insert(entry.path, value);
        }
        assert!(body.is_empty());
        Ok(())
    })?;
    Ok((made, summary))
}

fn outcome(tar: Vec<u8>) -> String {
    match unpacked(&gzip(&ended(tar))[..]) {
        Ok((made, _)) => format!("ok {:?}", made.keys().collect::<Vec<_>>()),
        Err(ArchiveError::Invalid(why)) => why,
        Err(ArchiveError::TooLarge(why)) => format!("too large: {why}"),
        Err(error) => panic!("{error:?}"),
    }
}

fn file(name: &str, content: &[u8]) -> Vec<u8> {
    entry(b'0', name.as_bytes(), b"", content)
}

#[test]
fn what_tar_writes_passes() {
    let long = format!("{}name", "long/".repeat(30));
    let record = format!("path={long}\n");
    let pax = format!("{} {record}", record.len() + 4);
    let tar = [
        entry(b'g', b"pax_global_header", b"", b"18 comment=abcdef\n"),
        entry(b'5', b"./", b"", b""),
        entry(b'5', b"./dir/", b"", b""),
        file("./dir/a.txt", b"hello"),
        entry(b'2', b"dir/link", b"a.txt", b""),
        entry(b'1', b"hard", b"./dir/a.txt", b""),
        entry(b'x', b"x", b"", pax.as_bytes()),
        file("short", b"by pax"),
        entry(b'L', b"././@LongLink", b"", format!("{long}2\0").as_bytes()),
        file("short", b"by GNU"),
        file("dir/a.txt", b"again"),
    ];
    let (made, summary) = unpacked(&gzip(&ended(tar.concat()))[..]).unwrap();
    assert_eq!(made["dir/a.txt"], b"again");
    assert_eq!(made["hard"], b"hello");
    assert_eq!(made["dir/link"], b"-> a.txt");
    assert_eq!(made["dir"], b"dir 644");
    assert_eq!(made[&long], b"by pax");
    assert_eq!(made[&format!("{long}2")], b"by GNU");
    assert_eq!((summary.entries, summary.bytes), (8, 22));
}

#[test]
fn hostile_entries_are_refused_by_name() {
    let link = |name: &str, to: &str| entry(b'2', name.as_bytes(), to.as_bytes(), b"");
    let big = entry(b'x', b"x", b"", b"20 size=99999999999\n");
    let mut wrong_sum = header(b'0', b"f", b"", 0);
    wrong_sum[0] = b'g';
    let mut negative = header(b'0', b"f", b"", 0);
    negative[124..136].fill(0xff);
    for (tar, expected) in [
        (file("../x", b""), "entry \"../x\": its name leads outside"),
        (
            file("/etc/x", b""),
            "entry \"/etc/x\": its name is absolute",
        ),
        (file("a\\b", b""), "its name contains a backslash"),
        (file("a/../b", b""), "its name leads outside"),
        (entry(b'0', b"\xff\xfe", b"", b""), "its name is not UTF-8"),
        (
            entry(b'3', b"dev", b"", b""),
            "entry \"dev\": it is a character device",
        ),
        (entry(b'4', b"dev", b"", b""), "it is a block device"),
        (entry(b'6', b"fifo", b"", b""), "it is a named pipe"),
        (entry(b'S', b"sparse", b"", b""), "it is a sparse file"),
        (
            entry(b'M', b"more", b"", b""),
            "of a kind that is not supported",
        ),
        (
            link("l", "/etc/passwd"),
            "its link target is outside of /workspace",
        ),
        (
            link("d/l", "../../x"),
            "its link target is outside of /workspace",
        ),
        (
            [link("l", "."), file("l/x", b"")].concat(),
            "it is below a symbolic link",
        ),
        (
            [file("f", b""), file("f/x", b"")].concat(),
            "it is below a file",
        ),
        (
            [file("d/f", b""), file("d", b"")].concat(),
            "a directory has that name",
        ),
        (
            entry(b'1', b"h", b"/etc/passwd", b""),
            "its name is absolute",
        ),
        (
            entry(b'1', b"h", b"none", b""),
            "which is no file of the archive",
        ),
        (
            entry(b'5', b"d", b"", b"x"),
            "it is no file and yet has content",
        ),
        (
            header(b'0', b"big", b"", 9 << 20).to_vec(),
            "too large: its files have more than",
        ),
        (
            header(b'L', b"L", b"", 1 << 20).to_vec(),
            "an extended header has 1048576 bytes",
        ),
        (
            header(b'x', b"x", b"", 1 << 20).to_vec(),
            "an extended header has 1048576 bytes",
        ),
        (
            [big, file("f", b"")].concat(),
            "its headers disagree about its size",
        ),
        (
            entry(b'x', b"x", b"", b"junk"),
            "an extended header is malformed",
        ),
        (
            entry(b'x', b"x", b"", b"22 GNU.sparse.major=1\n"),
            "sparse files are not supported",
        ),
        (
            entry(b'g', b"g", b"", b"10 path=x\n"),
            "a global header names",
        ),
        (
            entry(b'x', b"x", b"", b"10 path=x\n"),
            "its last header belongs to no entry",
        ),
        (
            entry(b'x', b"x", b"", b"10 path=x\n").repeat(9),
            "there are too many of them",
        ),
        (
            file("f", b"").repeat(51),
            "too large: it has more than 50 entries",
        ),
        (file(&"d/".repeat(49), b""), "ok"),
        (wrong_sum.to_vec(), "the checksum of a header is wrong"),
        (checked(negative).to_vec(), "a header's size is no number"),
        (b"<html>".repeat(512), "the checksum of a header is wrong"),
        (
            [vec![0; 512], file("f", b"")].concat(),
            "a block of zeros is between",
        ),
        (
            [ended(file("f", b"")), file("g", b"")].concat(),
            "there are bytes after its end",
        ),
        (Vec::new(), "ok []"),
    ] {
        let said = outcome(tar);
        assert!(said.contains(expected), "{said:?} should say {expected:?}");
    }
}

#[test]
fn the_gzip_file_has_to_be_whole_and_alone() {
    let tar = ended(file("f", &[7; 3_000]));
    let whole = gzip(&tar);
    let why = |bytes: &[u8]| match unpacked(bytes) {
        Err(ArchiveError::Invalid(why)) => why,
        other => panic!("{other:?}"),
    };
    for cut in 1..whole.len() {
        assert!(why(&whole[..cut]).contains("truncated"), "{cut}");
    }
    assert!(why(b"").contains("truncated"));
    assert!(why(&tar).contains("not valid gzip"));
    assert!(why(&[&whole[..], b"trailing"].concat()).contains("bytes after its end"));
    assert!(why(&[&whole[..], &whole[..]].concat()).contains("bytes after its end"));
    assert!(why(&gzip(&tar[..tar.len() - 1_024])).contains("before its end mark"));
    let mut damaged = whole.clone();
    let checksum = whole.len() - 6;
    damaged[checksum] ^= 1;
    assert!(why(&damaged).contains("not valid gzip"));
    // Members of one archive, as programs write them that compress in parallel.
    let members = tar.chunks(700).flat_map(gzip).collect::<Vec<u8>>();
    assert_eq!(unpacked(&members[..]).unwrap().0["f"], [7; 3_000]);
}

#[test]
fn bombs_are_refused_before_they_go_off() {
    let too_large = |bytes: &[u8]| match unpacked(bytes) {
        Err(ArchiveError::TooLarge(why)) => why,
        other => panic!("{other:?}"),
    };
    // A kilobyte for a mebibyte, after the end mark where nothing else counts it.
    let zeros = gzip(&vec![0; 30 << 20]);
    assert!(too_large(&zeros).contains("200 times its size"));
    let random: Vec<u8> = (0..45u64 << 17)
        .flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
        .collect();
    let stored = {
        let mut tar = ended(Vec::new());
        tar.extend(random);
        gzip(&tar)
    };
    // Its content is refused before its size can be.
    assert!(matches!(
        unpacked(&stored[..]),
        Err(ArchiveError::Invalid(_))
    ));
    let empty_members = gzip(b"").repeat(70_000);
    assert!(too_large(&empty_members).contains("gzip members"));
}

#[test]
fn a_source_that_fails_is_not_the_archive_s_fault() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the store is gone"))
        }
    }
    let whole = gzip(&ended(file("f", b"x")));
    for cut in [0, 5, 20, whole.len()] {
        let error = unpacked(whole[..cut].chain(Broken)).unwrap_err();
        assert!(matches!(error, ArchiveError::Source(_)), "{cut}: {error:?}");
    }
}

#[test]
fn large_files_travel_in_pieces() {
    let content: Vec<u8> = (0..3_500_000u32)
        .map(|n| n.to_le_bytes()[n as usize % 4])
        .collect();
    let tar = [file("big", &content), file("small", b"x")].concat();
    let (made, summary) = unpacked(&gzip(&ended(tar))[..]).unwrap();
    assert_eq!(made["big"], content);
    assert_eq!(summary.bytes, content.len() as u64 + 1);
}

proptest! {
    /// What was put in comes out, however the bytes arrive.
    #[test]
    fn files_arrive_as_they_were(
        files in prop::collection::btree_map("[a-z]{1,8}(/[a-z]{1,8}){0,3}\\.[a-z]", prop::collection::vec(any::<u8>(), 0..2_000), 0..12),
        step in 1_usize..700,
    ) {
        let tar: Vec<u8> = files.iter().flat_map(|(name, content)| file(name, content)).collect();
        let bytes = gzip(&ended(tar));
        let (made, _) = unpacked(Slow { bytes: &bytes, step }).unwrap();
        prop_assert_eq!(made, files);
    }

    /// Damage is refused or harmless, and never a panic or an error of ours.
    #[test]
    fn damage_is_survived(
        at in prop::collection::vec((0_usize..4_096, any::<u8>()), 1..8),
        flag in prop::sample::select(b"012345679gxLKSMV\0".to_vec()),
        name in prop::collection::vec(any::<u8>(), 0..100),
        link in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut tar = [file("a/b", &[1; 600]), entry(flag, &name, &link, b""), file("c", b"d")].concat();
        for (at, byte) in at {
            let at = at % tar.len();
            tar[at] = byte;
        }
        for block in tar.chunks_exact_mut(512).step_by(2) {
            let fixed = checked(block.try_into().unwrap());
            block.copy_from_slice(&fixed);
        }
        match unpacked(&gzip(&ended(tar))[..]) {
            Ok(_) | Err(ArchiveError::Invalid(_) | ArchiveError::TooLarge(_)) => {}
            Err(error) => prop_assert!(false, "{error:?}"),
        }
    }
}

/// Gives its bytes a few at a time.
struct Slow<'a> {
    bytes: &'a [u8],
    step: usize,
}

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.step.min(buffer.len()).min(self.bytes.len());
        let (now, later) = self.bytes.split_at(count);
        buffer[..count].copy_from_slice(now);
        self.bytes = later;
        Ok(count)
    }
}
