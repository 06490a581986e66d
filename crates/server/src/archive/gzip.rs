//! The bytes inside a gzip file of one or more members, counted and bounded.

use super::{ArchiveError, Limits};
use flate2::bufread::GzDecoder;
use std::io::{self, BufRead, BufReader, Read};

/// Members of one file; programs that compress in parallel write one for some ten kilobytes.
const MEMBERS_MAX: u32 = 65_536;
/// What is read ahead of the compressed bytes.
const BUFFER_BYTES: usize = 64 << 10;
/// Below this any ratio is fine.
const RATIO_FREE_BYTES: u64 = 16 << 20;

/// Decompresses; see the module.
#[derive(Debug)]
pub(super) struct Gzip<R> {
    /// None only while one member follows another.
    decoder: Option<GzDecoder<BufReader<Counted<R>>>>,
    limits: Limits,
    members: u32,
    /// Bytes of the archive so far.
    out: u64,
}

/// Counts what is taken, and keeps the failure of the source apart from bad data.
#[derive(Debug)]
struct Counted<R> {
    source: R,
    taken: u64,
    failure: Option<io::Error>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.source.read(buffer) {
            Ok(count) => {
                self.taken += count as u64;
                Ok(count)
            }
            Err(error) => {
                let kind = error.kind();
                self.failure = Some(error);
                Err(kind.into())
            }
        }
    }
}

impl<R: Read> Gzip<R> {
    pub(super) fn new(source: R, limits: Limits) -> Self {
        let counted = Counted {
            source,
            taken: 0,
            failure: None,
        };
        let source = BufReader::with_capacity(BUFFER_BYTES, counted);
        Self {
            decoder: Some(GzDecoder::new(source)),
            limits,
            members: 1,
            out: 0,
        }
    }

    /// Fills the buffer as far as there are bytes. Less than the whole means: that was the end.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let decoder = self.decoder.as_mut().expect("put back after each member");
            match decoder.read(&mut buffer[filled..]) {
                Ok(0) => {
                    if !self.next_member()? {
                        break;
                    }
                }
                Ok(count) => {
                    filled += count;
                    self.count(count)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failure(&error)),
            }
        }
        Ok(filled)
    }

    fn count(&mut self, count: usize) -> Result<(), ArchiveError> {
        self.out += count as u64;
        let taken = self
            .decoder
            .as_ref()
            .map_or(0, |it| it.get_ref().get_ref().taken);
        let Limits {
            ratio_max,
            archive_bytes_max,
            ..
        } = self.limits;
        if self.out > archive_bytes_max {
            return Err(ArchiveError::too_large(format!(
                "it has more than {archive_bytes_max} bytes when it is decompressed"
            )));
        }
        if self.out > RATIO_FREE_BYTES && self.out > taken.saturating_mul(ratio_max) {
            return Err(ArchiveError::too_large(format!(
                "it decompresses to more than {ratio_max} times its size"
            )));
        }
        Ok(())
    }

    /// Goes on with the next member. False at the end of the file.
    fn next_member(&mut self) -> Result<bool, ArchiveError> {
        let decoder = self.decoder.take().expect("put back after each member");
        let mut source = decoder.into_inner();
        let begins = match source.fill_buf() {
            Ok(bytes) => bytes.first().copied(),
            Err(error) => {
                let failure = source.get_mut().failure.take().unwrap_or(error);
                return Err(ArchiveError::Source(failure));
            }
        };
        self.decoder = Some(GzDecoder::new(source));
        match begins {
            None => return Ok(false),
            Some(0x1f) => self.members += 1,
            Some(_) => {
                return Err(ArchiveError::invalid("there are bytes after its end"));
            }
        }
        if self.members > MEMBERS_MAX {
            return Err(ArchiveError::too_large(format!(
                "it has more than {MEMBERS_MAX} gzip members"
            )));
        }
        Ok(true)
    }

    fn failure(&mut self, error: &io::Error) -> ArchiveError {
        let decoder = self.decoder.as_mut().expect("put back after each member");
        if let Some(failure) = decoder.get_mut().get_mut().failure.take() {
            return ArchiveError::Source(failure);
        }
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return ArchiveError::invalid("it is truncated: the gzip data breaks off");
        }
        ArchiveError::invalid(format!("it is not valid gzip data: {error}"))
    }
}
