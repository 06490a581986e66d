//! Lines on stderr for the operator. Never blocks, never fails, and has an end: whoever reads
//! the other side may be gone, and a sandbox must not be able to fill a disk with our words.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::cell::Cell;
use std::fmt;

/// Lines in the life of one sandbox.
const LOG_LINES_MAX: u32 = 200;
/// Longest line. Below PIPE_BUF, so that a writable pipe takes it whole.
const LINE_BYTES_MAX: usize = 1024;

thread_local! {
    static LINES: Cell<u32> = const { Cell::new(0) };
}

/// Writes one line, if there is room for it right now.
pub(crate) fn line(message: fmt::Arguments<'_>) {
    let lines = LINES.get();
    if lines >= LOG_LINES_MAX {
        return;
    }
    LINES.set(lines + 1);
    let mut text: Vec<u8> = format!("crownest-init: {message}").into_bytes();
    for byte in &mut text {
        // Parts of the message may come from tenant code: one line stays one line.
        if byte.is_ascii_control() {
            *byte = b'?';
        }
    }
    text.truncate(LINE_BYTES_MAX - 1);
    text.push(b'\n');
    let stderr = rustix::stdio::stderr();
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    if poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0) {
        let _ = rustix::io::write(stderr, &text);
    }
}

/// `log!("what happened: {error}")`
macro_rules! log {
    ($($part:tt)*) => { $crate::log::line(format_args!($($part)*)) };
}
pub(crate) use log;
