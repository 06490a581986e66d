//! Messages of a terminal's WebSocket: a byte for the channel and raw bytes, or JSON. Pure.

use bytes::{BufMut, Bytes, BytesMut};
use crownest_init::terminal::{TERMINAL_CELLS_MAX, TerminalSize};
use serde::{Deserialize, Serialize};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
/// Followed by the number of the first byte, eight bytes, big endian.
const REPLAY: u8 = 3;

/// Longest message of a client: it is typed, or pasted.
pub(super) const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Longest part of what a client sent that goes back to it.
const ECHO_CHARS_MAX: usize = 40;

/// The signals that a client may name, with or without `SIG`.
const SIGNALS: [(&str, i32); 14] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("KILL", 9),
    ("USR1", 10),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("WINCH", 28),
    ("ABRT", 6),
];

/// What a client says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    Typed(Bytes),
    Resize(TerminalSize),
    Signal(i32),
    Ping,
}

#[derive(Debug, Deserialize)]
struct TextFrame {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: String,
    #[serde(default)]
    cols: u32,
    #[serde(default)]
    rows: u32,
    #[serde(default)]
    signal: String,
}

/// What is wrong with a message, in words for its author.
pub(super) type Wrong = String;

fn too_long(bytes: usize) -> Result<(), Wrong> {
    if bytes > MESSAGE_BYTES_MAX {
        return Err(format!(
            "a message has at most {MESSAGE_BYTES_MAX} bytes, this one {bytes}"
        ));
    }
    Ok(())
}

/// Reads a binary message. Empty ones say nothing.
pub(super) fn binary(message: &Bytes) -> Result<Option<Told>, Wrong> {
    too_long(message.len())?;
    match message.first() {
        None => Ok(None),
        Some(&STDIN) => Ok(Some(Told::Typed(message.slice(1..))).filter(|_| message.len() > 1)),
        Some(channel) => Err(format!(
            "a binary message begins with 0 (stdin), this one with {channel}"
        )),
    }
}

/// Reads a text message.
pub(super) fn text(message: &str) -> Result<Told, Wrong> {
    too_long(message.len())?;
    let frame: TextFrame = serde_json::from_str(message)
        .map_err(|_| "a text message is a JSON object with a \"type\"".to_owned())?;
    match frame.kind.as_str() {
        "stdin" => Ok(Told::Typed(frame.data.into_bytes().into())),
        "resize" => size(frame.rows, frame.cols),
        "signal" => {
            let name = frame.signal.strip_prefix("SIG").unwrap_or(&frame.signal);
            let known = SIGNALS.iter().find(|(known, _)| *known == name);
            known
                .map(|(_, number)| Told::Signal(*number))
                .ok_or_else(|| format!("no signal {:?}", echoed(&frame.signal)))
        }
        "ping" => Ok(Told::Ping),
        other => Err(format!("unknown frame type {:?}", echoed(other))),
    }
}

fn size(rows: u32, cols: u32) -> Result<Told, Wrong> {
    let cells = |cells: u32| u16::try_from(cells).unwrap_or(u16::MAX);
    let size = TerminalSize {
        rows: cells(rows),
        cols: cells(cols),
    };
    if !size.is_possible() {
        return Err(format!(
            "rows and cols are between 1 and {TERMINAL_CELLS_MAX}"
        ));
    }
    Ok(Told::Resize(size))
}

fn echoed(text: &str) -> String {
    text.chars().take(ECHO_CHARS_MAX).collect()
}

/// Output as it comes.
pub(super) fn output(is_stderr: bool, data: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(1 + data.len());
    frame.put_u8(if is_stderr { STDERR } else { STDOUT });
    frame.put_slice(data);
    frame.freeze()
}

/// Output of before, from byte `at` on.
pub(super) fn replay(at: u64, data: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(9 + data.len());
    frame.put_u8(REPLAY);
    frame.put_u64(at);
    frame.put_slice(data);
    frame.freeze()
}

/// What the server says beside output.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Notice<'a> {
    Connected {
        session_id: &'a str,
        mode: &'static str,
        /// Number of the byte that is printed next.
        offset: u64,
    },
    Exit {
        exit_code: i64,
    },
    Pong,
    Error {
        code: &'static str,
        error: &'a str,
    },
    /// Output that came too fast for this client and is not kept any more.
    Omitted {
        bytes: u64,
    },
}

impl Notice<'_> {
    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).expect("plain words and numbers")
    }
}

/// Reads any message as the socket does; what comes of it is bounded.
#[cfg(feature = "fuzzing")]
pub fn fuzz_message(is_text: bool, message: &[u8]) {
    let told = if is_text {
        let Ok(message) = std::str::from_utf8(message) else {
            return;
        };
        text(message).map(Some)
    } else {
        binary(&Bytes::copy_from_slice(message))
    };
    match told {
        Ok(None | Some(Told::Ping)) => {}
        Ok(Some(Told::Typed(bytes))) => assert!(bytes.len() <= message.len()),
        Ok(Some(Told::Resize(size))) => assert!(size.is_possible()),
        Ok(Some(Told::Signal(signal))) => assert!((1..=31).contains(&signal)),
        Err(wrong) => assert!(wrong.len() < 512, "{wrong}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_say() {
        let typed = |text: &'static str| Told::Typed(Bytes::from_static(text.as_bytes()));
        assert_eq!(
            binary(&Bytes::from_static(b"\0ls\n")),
            Ok(Some(typed("ls\n")))
        );
        assert_eq!(binary(&Bytes::new()), Ok(None));
        assert_eq!(binary(&Bytes::from_static(b"\0")), Ok(None));
        assert_eq!(text(r#"{"type":"stdin","data":"x"}"#), Ok(typed("x")));
        let size = TerminalSize {
            rows: 40,
            cols: 120,
        };
        let resize = r#"{"type":"resize","cols":120,"rows":40}"#;
        assert_eq!(text(resize), Ok(Told::Resize(size)));
        for name in ["SIGINT", "INT"] {
            let signal = format!(r#"{{"type":"signal","signal":"{name}"}}"#);
            assert_eq!(text(&signal), Ok(Told::Signal(2)));
        }
        assert_eq!(text(r#"{"type":"ping"}"#), Ok(Told::Ping));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let long = vec![0; MESSAGE_BYTES_MAX + 1];
        assert!(binary(&long.into()).unwrap_err().contains("at most"));
        let wrong = binary(&Bytes::from_static(b"\x01x")).unwrap_err();
        assert!(wrong.ends_with("this one with 1"), "{wrong}");
        for bad in [
            "ls",
            "[]",
            "{}",
            r#"{"type":"resize","cols":0,"rows":1}"#,
            r#"{"type":"resize","cols":70000,"rows":1}"#,
            r#"{"type":"resize","cols":-1,"rows":1}"#,
            r#"{"type":"signal","signal":"SIGSIGINT"}"#,
            r#"{"type":"signal"}"#,
            r#"{"type":"exit"}"#,
        ] {
            assert!(text(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_the_server_says() {
        assert_eq!(&output(true, b"x")[..], b"\x02x");
        assert_eq!(&replay(258, b"x")[..], b"\x03\0\0\0\0\0\0\x01\x02x");
        assert_eq!(Notice::Pong.json(), r#"{"type":"pong"}"#);
        let exit = Notice::Exit { exit_code: 0 };
        assert_eq!(exit.json(), r#"{"type":"exit","exit_code":0}"#);
    }
}
