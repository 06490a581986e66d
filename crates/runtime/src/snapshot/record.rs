//! The form of a snapshot's file: records in the order of a walk, little endian, a mark at the
//! end. Every length is bounded when it is read.

use super::SnapshotSize;
use std::io::{self, Read, Write};

/// First bytes; change with the form.
const MAGIC: &[u8; 8] = b"CWNSNAP1";
/// Longest name of one component; NAME_MAX.
const NAME_BYTES_MAX: usize = 255;
/// Longest target of a link, and longest name of the first of several; PATH_MAX allows less.
const TEXT_BYTES_MAX: usize = 256 * 1024;
/// Attributes of one entry, and the longest value; XATTR_SIZE_MAX.
const ATTRIBUTES_MAX: usize = 1_024;
const VALUE_BYTES_MAX: usize = 64 * 1024;
/// Longest piece of a file.
pub(super) const PIECE_BYTES_MAX: usize = 1 << 20;

/// What is known of an entry beside its name and content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Meta {
    /// Permission bits alone.
    pub mode: u32,
    /// Within the sandbox.
    pub uid: u32,
    pub gid: u32,
    pub seconds: i64,
    pub nanos: u32,
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

/// One step of the walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// First: the root of the layer.
    Root(Meta),
    /// What follows is in it, until its `Leave`.
    Enter(Vec<u8>, Meta),
    Leave,
    /// Its pieces follow, then one without bytes. `shared`: others may be links to it.
    File {
        name: Vec<u8>,
        meta: Meta,
        size: u64,
        shared: bool,
    },
    Piece {
        offset: u64,
        bytes: Vec<u8>,
    },
    /// Another name of the `shared` file of that number.
    Hardlink(Vec<u8>, u64),
    Symlink(Vec<u8>, Meta, Vec<u8>),
    Pipe(Vec<u8>, Meta),
    Socket(Vec<u8>, Meta),
    /// A name of the template that is not there any more.
    Removed(Vec<u8>),
    End(SnapshotSize),
}

pub(super) struct Writer<W>(W);

impl<W: Write> Writer<W> {
    pub(super) fn begin(mut to: W) -> io::Result<Self> {
        to.write_all(MAGIC)?;
        Ok(Self(to))
    }

    pub(super) fn write(&mut self, record: &Record) -> io::Result<()> {
        match record {
            Record::Root(meta) => self.tag(b'R').and_then(|()| self.meta(meta)),
            Record::Enter(name, meta) => self.named(b'D', name, meta),
            Record::Leave => self.tag(b'U'),
            Record::File {
                name,
                meta,
                size,
                shared,
            } => {
                self.named(b'F', name, meta)?;
                self.number(*size)?;
                self.tag(u8::from(*shared))
            }
            Record::Piece { offset, bytes } => self.piece(*offset, bytes),
            Record::Hardlink(name, number) => {
                self.tag(b'H')?;
                self.bytes(name)?;
                self.number(*number)
            }
            Record::Symlink(name, meta, target) => {
                self.named(b'L', name, meta)?;
                self.bytes(target)
            }
            Record::Pipe(name, meta) => self.named(b'P', name, meta),
            Record::Socket(name, meta) => self.named(b'S', name, meta),
            Record::Removed(name) => self.tag(b'W').and_then(|()| self.bytes(name)),
            Record::End(size) => {
                self.tag(b'E')?;
                self.number(size.bytes)?;
                self.number(size.entries)
            }
        }
    }

    /// As a record, without a copy of the bytes.
    pub(super) fn piece(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.tag(b'.')?;
        self.number(offset)?;
        self.bytes(bytes)
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        self.0.flush()
    }

    fn tag(&mut self, tag: u8) -> io::Result<()> {
        self.0.write_all(&[tag])
    }

    fn number(&mut self, number: u64) -> io::Result<()> {
        self.0.write_all(&number.to_le_bytes())
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.0.write_all(&length.to_le_bytes())?;
        self.0.write_all(bytes)
    }

    fn named(&mut self, tag: u8, name: &[u8], meta: &Meta) -> io::Result<()> {
        self.tag(tag)?;
        self.bytes(name)?;
        self.meta(meta)
    }

    fn meta(&mut self, meta: &Meta) -> io::Result<()> {
        for number in [meta.mode, meta.uid, meta.gid, meta.nanos] {
            self.0.write_all(&number.to_le_bytes())?;
        }
        self.0.write_all(&meta.seconds.to_le_bytes())?;
        self.number(meta.attributes.len() as u64)?;
        for (name, value) in &meta.attributes {
            self.bytes(name)?;
            self.bytes(value)?;
        }
        Ok(())
    }
}

pub(super) struct Reader<R>(R);

impl<R: Read> Reader<R> {
    pub(super) fn begin(mut from: R) -> io::Result<Self> {
        let mut magic = [0; MAGIC.len()];
        from.read_exact(&mut magic)?;
        if magic != *MAGIC {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Self(from))
    }

    /// The next record. After `End` nothing may follow.
    pub(super) fn read(&mut self) -> io::Result<Record> {
        Ok(match self.tag()? {
            b'R' => Record::Root(self.meta()?),
            b'D' => Record::Enter(self.name()?, self.meta()?),
            b'U' => Record::Leave,
            b'F' => Record::File {
                name: self.name()?,
                meta: self.meta()?,
                size: self.number()?,
                shared: self.tag()? != 0,
            },
            b'.' => Record::Piece {
                offset: self.number()?,
                bytes: self.bytes(PIECE_BYTES_MAX)?,
            },
            b'H' => Record::Hardlink(self.name()?, self.number()?),
            b'L' => Record::Symlink(self.name()?, self.meta()?, self.bytes(TEXT_BYTES_MAX)?),
            b'P' => Record::Pipe(self.name()?, self.meta()?),
            b'S' => Record::Socket(self.name()?, self.meta()?),
            b'W' => Record::Removed(self.name()?),
            b'E' => {
                let size = SnapshotSize {
                    bytes: self.number()?,
                    entries: self.number()?,
                };
                if self.0.read(&mut [0])? != 0 {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                Record::End(size)
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        })
    }

    fn tag(&mut self) -> io::Result<u8> {
        let mut tag = [0];
        self.0.read_exact(&mut tag)?;
        Ok(tag[0])
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn number(&mut self) -> io::Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn bytes(&mut self, max: usize) -> io::Result<Vec<u8>> {
        let length = u32::from_le_bytes(self.array()?) as usize;
        if length > max {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// One component: nothing that leads elsewhere.
    fn name(&mut self) -> io::Result<Vec<u8>> {
        let name = self.bytes(NAME_BYTES_MAX)?;
        let leads_elsewhere = name.is_empty() || name == b"." || name == b"..";
        if leads_elsewhere || name.iter().any(|byte| matches!(byte, 0 | b'/')) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(name)
    }

    fn meta(&mut self) -> io::Result<Meta> {
        let mut numbers = [0; 4];
        for number in &mut numbers {
            *number = u32::from_le_bytes(self.array()?);
        }
        let [mode, uid, gid, nanos] = numbers;
        let seconds = i64::from_le_bytes(self.array()?);
        let count = self.number()?;
        if count > ATTRIBUTES_MAX as u64 || mode > 0o7777 || nanos > 999_999_999 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut attributes = Vec::new();
        for _ in 0..count {
            attributes.push((self.bytes(NAME_BYTES_MAX)?, self.bytes(VALUE_BYTES_MAX)?));
        }
        Ok(Meta {
            mode,
            uid,
            gid,
            seconds,
            nanos,
            attributes,
        })
    }
}
