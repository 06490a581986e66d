use super::record::{Meta, Reader, Record, Writer};
use super::{DEPTH_MAX, SnapshotLimits, SnapshotSize, restore, save};
use crate::command::Step;
use rustix::fs::{FileType, Mode, XattrFlags, makedev, mknodat, setxattr};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

const HERE: u32 = 0x2000_0000;
const THERE: u32 = 0x3000_0000;

/// Needs root, for owners and for the overlay's notes. Says so where it is not.
fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIP: only root can make files of others");
    }
    root
}

fn open(path: &Path) -> File {
    File::open(path).unwrap()
}

/// Everything below a directory: what it is, whose, and what is in it.
fn census(top: &Path, base: u32) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![top.to_owned()];
    while let Some(path) = waiting.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(top).unwrap().display().to_string();
        let kind = meta.file_type();
        let content = if kind.is_symlink() {
            format!("-> {}", fs::read_link(&path).unwrap().display())
        } else if kind.is_file() {
            let hash = blake3::hash(&fs::read(&path).unwrap());
            format!("{hash} {} blocks {}", meta.blocks(), meta.nlink())
        } else {
            String::new()
        };
        let mut attributes = Vec::new();
        if kind.is_file() || kind.is_dir() {
            let mut list = vec![0u8; 4096];
            let length = rustix::fs::listxattr(&path, &mut list[..]).unwrap();
            for attribute in list[..length].split(|b| *b == 0).filter(|a| !a.is_empty()) {
                let mut value = vec![0u8; 4096];
                let length = rustix::fs::getxattr(&path, attribute, &mut value[..]).unwrap();
                attributes.push(format!(
                    "{}={}",
                    String::from_utf8_lossy(attribute),
                    String::from_utf8_lossy(&value[..length])
                ));
            }
            attributes.sort();
        }
        // Removed names belong to whoever made the overlay.
        let owner = match meta.rdev() == 0 && meta.mode() & libc::S_IFMT == libc::S_IFCHR {
            true => "removed".to_owned(),
            false => format!(
                "{:o} {}:{} {}",
                meta.mode(),
                meta.uid() - base,
                meta.gid() - base,
                meta.mtime()
            ),
        };
        found.insert(name, format!("{owner} {content} {attributes:?}"));
        if kind.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
    }
    found
}

fn own(path: &Path, id: u32) {
    std::os::unix::fs::lchown(path, Some(HERE + id), Some(HERE + id)).unwrap();
}

fn note(path: &Path, name: &str, value: &str) {
    setxattr(path, name, value.as_bytes(), XattrFlags::empty()).unwrap();
}

/// A layer with one of everything.
fn fill(top: &Path) {
    own(top, 0);
    let file = |name: &str, content: &[u8], mode: u32| {
        let path = top.join(name);
        fs::write(&path, content).unwrap();
        own(&path, 1000);
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    };
    file("hidden from its owner", b"x", 0o000);
    let setuid = file("setuid", b"#!/bin/sh\n", 0o6755);
    chown(&setuid, Some(HERE), Some(HERE)).unwrap();
    fs::set_permissions(&setuid, Permissions::from_mode(0o6755)).unwrap();
    file("large", &vec![7u8; 3 << 20], 0o644);
    let sparse = top.join("sparse");
    let mut holes = File::create(&sparse).unwrap();
    holes.seek(SeekFrom::Start(1 << 30)).unwrap();
    holes.write_all(b"end").unwrap();
    holes.set_len((1 << 30) + 4096).unwrap();
    own(&sparse, 1000);
    let first = file("first", b"one file", 0o600);
    for directory in ["replaced", "deep", "deep/er"] {
        fs::create_dir(top.join(directory)).unwrap();
        own(&top.join(directory), 1000);
    }
    fs::hard_link(&first, top.join("deep/er/second")).unwrap();
    fs::hard_link(&first, top.join("third")).unwrap();
    note(&top.join("replaced"), "trusted.overlay.opaque", "y");
    note(&top.join("deep"), "trusted.overlay.redirect", "/usr/share");
    note(&top.join("deep"), "trusted.overlay.impure", "y");
    symlink("/etc/shadow", top.join("link")).unwrap();
    symlink("../../../../etc", top.join("deep/up")).unwrap();
    own(&top.join("link"), 1000);
    own(&top.join("deep/up"), 0);
    let at = open(top);
    let node = |name: &str, kind, device| {
        mknodat(&at, name, kind, Mode::from_raw_mode(0o640), device).unwrap();
        own(&top.join(name), 1000);
    };
    node("pipe", FileType::Fifo, 0);
    node("socket", FileType::Socket, 0);
    node("removed", FileType::CharacterDevice, makedev(0, 0));
    fs::create_dir(top.join("sticky")).unwrap();
    own(&top.join("sticky"), 1000);
    fs::set_permissions(top.join("sticky"), Permissions::from_mode(0o1777)).unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    for name in ["first", "deep/er", "deep", "sticky"] {
        open(&top.join(name)).set_modified(old).unwrap();
    }
}

fn kept(layer: &Path, to: &Path, limits: SnapshotLimits) -> Result<SnapshotSize, Step> {
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(true)
        .open(to)
        .unwrap();
    save(open(layer).as_fd(), &file, HERE, limits).map_err(|refused| refused.step)
}

#[test]
fn a_layer_comes_back_as_it_was_with_other_owners() {
    if !root() {
        return;
    }
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let [from, to] = ["from", "to"].map(|name| place.path().join(name));
    fs::create_dir(&from).unwrap();
    fs::create_dir(&to).unwrap();
    fill(&from);
    let file = place.path().join("file");
    let size = kept(&from, &file, SnapshotLimits::default()).unwrap();
    assert!(
        fs::metadata(&file).unwrap().len() < 4 << 20,
        "holes are not written"
    );
    assert!((3 << 20..4 << 20).contains(&size.bytes), "{size:?}");
    let again = restore(open(&to).as_fd(), &open(&file), THERE).unwrap();
    assert_eq!(again, size);
    let mut want = census(&from, HERE);
    let deep = want.get_mut("deep").unwrap();
    // The overlay makes that note anew.
    *deep = deep.replace("\"trusted.overlay.impure=y\", ", "");
    assert_eq!(census(&to, THERE), want);
    let [one, two] = ["first", "deep/er/second"].map(|n| fs::metadata(to.join(n)).unwrap());
    assert_eq!(one.ino(), two.ino());
}

#[test]
fn limits_hold_while_it_is_written() {
    if !root() {
        return;
    }
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let from = place.path().join("from");
    fs::create_dir(&from).unwrap();
    fs::write(from.join("a"), vec![1u8; 1 << 20]).unwrap();
    fs::write(from.join("b"), b"").unwrap();
    let file = place.path().join("file");
    let within = |bytes, entries| kept(&from, &file, SnapshotLimits { bytes, entries });
    assert!(within(2 << 20, 2).is_ok());
    assert_eq!(within(1 << 19, 2), Err(Step::SnapshotTooLarge));
    assert_eq!(within(2 << 20, 1), Err(Step::SnapshotTooLarge));
    let mut deep = from.clone();
    for _ in 0..DEPTH_MAX {
        deep.push("d");
        fs::create_dir(&deep).unwrap();
    }
    assert_eq!(within(2 << 20, 1_000), Err(Step::SnapshotTooLarge));
}

#[test]
fn what_is_not_whole_is_not_restored() {
    if !root() {
        return;
    }
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let from = place.path().join("from");
    fs::create_dir(&from).unwrap();
    fs::create_dir(from.join("d")).unwrap();
    fs::write(from.join("d/f"), b"text").unwrap();
    let whole = place.path().join("whole");
    kept(&from, &whole, SnapshotLimits::default()).unwrap();
    let bytes = fs::read(&whole).unwrap();
    let try_with = |bytes: &[u8], number: usize| {
        let (cut, to) = (
            place.path().join("cut"),
            place.path().join(format!("to{number}")),
        );
        fs::write(&cut, bytes).unwrap();
        fs::create_dir(&to).unwrap();
        restore(open(&to).as_fd(), &open(&cut), THERE).map_err(|refused| refused.step)
    };
    assert!(try_with(&bytes, 0).is_ok());
    for length in 0..bytes.len() {
        let outcome = try_with(&bytes[..length], length + 1);
        assert_eq!(outcome, Err(Step::SnapshotBroken), "cut at {length}");
    }
    let longer = [&bytes[..], b"x"].concat();
    assert_eq!(
        try_with(&longer, bytes.len() + 1),
        Err(Step::SnapshotBroken)
    );
}

#[test]
fn names_that_lead_elsewhere_are_not_read() {
    for name in ["", ".", "..", "a/b", "/etc/passwd", "a\0b"] {
        let mut bytes = Vec::new();
        let mut writer = Writer::begin(&mut bytes).unwrap();
        let record = Record::Pipe(name.as_bytes().to_vec(), Meta::default());
        writer.write(&record).unwrap();
        writer.finish().unwrap();
        let mut reader = Reader::begin(&bytes[..]).unwrap();
        assert!(reader.read().is_err(), "{name:?}");
    }
}
