//! Files that come in pieces, of any size up to what the sandbox's disk takes.
//!
//! A piece is appended to a file beside the target; the commit renames it. Between the calls the
//! tenant may do what they like with that file and its directory, which are theirs: a commit
//! looks once more where the directory is. Whatever ends an upload other than its commit removes
//! the file.

use super::resolve::{inside_still, open_below};
use super::write::{FileMode, Spot, Target, fill, give_name, make_temporary, writable};
use super::{code, stat};
use crate::calls::{Answer, refuse};
use crate::sys::identity::AsUser;
use crownest_init::link::{CallError, CallErrorCode, UPLOAD_PIECE_BYTES_MAX, UPLOADS_MAX, Within};
use rustix::fs::{AtFlags, Mode, fchmod, unlinkat};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::OwnedFd;

/// The uploads of the current connection.
#[derive(Debug, Default)]
pub(crate) struct Uploads(BTreeMap<u64, Upload>);

#[derive(Debug)]
struct Upload {
    file: OwnedFd,
    temporary: OsString,
    spot: Spot,
    within: Within,
    overwrite: bool,
    mode: u32,
    written: u64,
}

impl Upload {
    /// Who runs it: init, as the tenant's user.
    fn remove(&self) {
        let directory = self.spot.directory.as_directory();
        let _ = unlinkat(directory, &self.temporary, AtFlags::empty());
    }
}

impl Uploads {
    pub(super) fn begin(
        &mut self,
        number: u64,
        target: &Target<'_>,
        overwrite: bool,
        mode: FileMode,
    ) -> Result<Answer, CallError> {
        if self.0.len() >= UPLOADS_MAX {
            let message = format!("{UPLOADS_MAX} uploads at the same time");
            return refuse(CallErrorCode::TooMany, message);
        }
        if self.0.contains_key(&number) {
            return refuse(CallErrorCode::Invalid, "upload: the number is taken");
        }
        let (spot, mode) = writable(target, overwrite, mode)?;
        let (file, temporary) = make_temporary(spot.directory.as_directory())?;
        let upload = Upload {
            file,
            temporary,
            spot,
            within: target.within,
            overwrite,
            mode,
            written: 0,
        };
        self.0.insert(number, upload);
        Ok(Answer::default())
    }

    pub(super) fn piece(
        &mut self,
        number: u64,
        offset: u64,
        body: &[u8],
    ) -> Result<Answer, CallError> {
        let upload = self.0.get_mut(&number);
        let Some(upload) = upload else {
            return refuse(CallErrorCode::Invalid, "upload: unknown");
        };
        if body.len() > UPLOAD_PIECE_BYTES_MAX || upload.written != offset {
            self.abort(number);
            return refuse(CallErrorCode::Invalid, "upload: not the next piece");
        }
        match fill(&upload.file, body) {
            Ok(()) => {
                upload.written += body.len() as u64;
                Ok(Answer::default())
            }
            Err(error) => {
                self.abort(number);
                Err(code(error))
            }
        }
    }

    pub(super) fn commit(&mut self, number: u64) -> Result<Answer, CallError> {
        let Some(upload) = self.0.remove(&number) else {
            return refuse(CallErrorCode::Invalid, "upload: unknown");
        };
        let named = inside_still(&upload.spot.directory, upload.within).and_then(|()| {
            fchmod(&upload.file, Mode::from_raw_mode(upload.mode))
                .and_then(|()| give_name(&upload.spot, &upload.temporary, upload.overwrite))
                .map_err(code)
        });
        if let Err(error) = named {
            upload.remove();
            return Err(error);
        }
        stat(&open_below(
            &upload.spot.directory,
            &upload.spot.name,
            upload.within,
        )?)
    }

    pub(super) fn abort(&mut self, number: u64) {
        if let Some(upload) = self.0.remove(&number) {
            upload.remove();
        }
    }

    /// The connection is gone, and with it whoever could finish them.
    ///
    /// Who runs it: init, which becomes the tenant's user for it.
    pub(crate) fn abort_all(&mut self) {
        if self.0.is_empty() {
            return;
        }
        let as_user = AsUser::enter();
        for upload in std::mem::take(&mut self.0).into_values() {
            // Without the tenant's identity the file stays; it is the tenant's, in their quota.
            if as_user.is_some() {
                upload.remove();
            }
        }
    }
}
