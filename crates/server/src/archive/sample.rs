//! Writes archives entry by entry, odd ones too, for tests and fuzz targets.

#![allow(clippy::unwrap_used, reason = "a panic here is the report of a test")]

use super::header::BLOCK_BYTES;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;

/// A header that says `size`, whatever follows it.
pub(crate) fn header(flag: u8, name: &[u8], link: &[u8], size: u64) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    let name = &name[..name.len().min(100)];
    let link = &link[..link.len().min(100)];
    block[..name.len()].copy_from_slice(name);
    block[157..157 + link.len()].copy_from_slice(link);
    block[100..108].copy_from_slice(b"0000644\0");
    block[124..136].copy_from_slice(format!("{:011o}\0", size & 0o77_777_777_777).as_bytes());
    block[136..148].copy_from_slice(b"14000000000\0");
    block[156] = flag;
    block[257..265].copy_from_slice(b"ustar\x0000");
    checked(block)
}

/// The same with the right checksum.
pub(crate) fn checked(mut block: [u8; BLOCK_BYTES]) -> [u8; BLOCK_BYTES] {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// An entry with its content, filled up to whole blocks.
pub(crate) fn entry(flag: u8, name: &[u8], link: &[u8], content: &[u8]) -> Vec<u8> {
    let mut bytes = header(flag, name, link, content.len() as u64).to_vec();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
    bytes
}

/// With the end mark.
pub(crate) fn ended(mut tar: Vec<u8>) -> Vec<u8> {
    tar.extend([0; 2 * BLOCK_BYTES]);
    tar
}

/// One gzip member.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
