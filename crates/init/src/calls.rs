//! Answers to the server's calls.

use crownest_init::link::{CallError, CallErrorCode, Reply};
use std::os::fd::OwnedFd;

/// Where the answer to a call goes: a number, and the connection that it means something on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReplyTo {
    pub(crate) connection: u64,
    pub(crate) id: u64,
}

/// A successful answer.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) reply: Reply,
    pub(crate) body: Vec<u8>,
    pub(crate) fd: Option<OwnedFd>,
}

/// What a handler returns: an answer now, or None when it comes later.
pub(crate) type Handled = Result<Option<Answer>, CallError>;

/// "Done", with nothing to add.
pub(crate) fn done() -> Handled {
    Ok(Some(Answer::default()))
}

/// A refusal in the type that the caller needs.
pub(crate) fn refuse<T>(code: CallErrorCode, message: impl Into<String>) -> Result<T, CallError> {
    Err(CallError {
        code,
        message: message.into(),
    })
}
