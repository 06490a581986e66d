//! What the targets share: how an input becomes several things, and a reader of event streams.

/// Ends one thing in an input that holds several. No JSON contains it as it is.
pub const RECORD: u8 = 0x1e;
/// Parts the two halves of a record.
pub const UNIT: u8 = 0x1f;

/// The things that an input holds.
pub fn records(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    data.split(|byte| *byte == RECORD)
}

/// The halves of a record; the second is empty when there is none.
#[must_use]
pub fn halves(record: &[u8]) -> (&[u8], &[u8]) {
    match record.iter().position(|byte| *byte == UNIT) {
        Some(at) => (&record[..at], &record[at + 1..]),
        None => (record, &[]),
    }
}

/// Cuts bytes into pieces of at most `length`: how a socket may deliver them.
#[must_use]
pub fn pieces(bytes: &[u8], length: usize) -> Vec<&[u8]> {
    bytes.chunks(length.max(1)).collect()
}

/// One event of a stream: its name and its data.
pub type StreamEvent = (String, String);

/// Reads a stream as the standard says (HTML, section 9.2.6): lines end with CR LF, LF or CR.
#[must_use]
pub fn event_stream(text: &str) -> Vec<StreamEvent> {
    read_events(text.replace("\r\n", "\n").split(['\n', '\r']))
}

/// Reads a stream as clients do that take every line end of Unicode for one.
#[must_use]
pub fn event_stream_of_any_lines(text: &str) -> Vec<StreamEvent> {
    const LINE_ENDS: [char; 10] = [
        '\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}',
        '\u{2029}',
    ];
    read_events(text.replace("\r\n", "\n").split(LINE_ENDS))
}

fn read_events<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<StreamEvent> {
    let mut events = Vec::new();
    let (mut name, mut data) = (String::new(), Vec::new());
    for line in lines {
        if line.is_empty() {
            if !data.is_empty() {
                events.push((std::mem::take(&mut name), data.join("\n")));
            }
            name.clear();
            data.clear();
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut name),
            "data" => data.push(value),
            _ => {}
        }
    }
    events
}
