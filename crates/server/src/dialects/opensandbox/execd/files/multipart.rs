//! Reads `multipart/form-data` (RFC 7578) piece by piece.
//!
//! Bytes go in as they come and what they mean comes out; nothing is kept but what is shorter than
//! a delimiter, a part's headers, or a small piece of a part's content. Owns no stream and no file.

use axum::http::{HeaderMap, header};
use bytes::{Buf, Bytes, BytesMut};
use memchr::memmem::Finder;

/// Longest boundary (RFC 2046).
const BOUNDARY_BYTES_MAX: usize = 70;
/// Headers of one part, all together.
pub(crate) const HEADERS_BYTES_MAX: usize = 16 * 1024;
/// What may stand before the first delimiter.
const PREAMBLE_BYTES_MAX: usize = 64 * 1024;
/// Spaces behind a delimiter.
const PADDING_BYTES_MAX: usize = 256;
/// Content is given out in pieces of at least so much, except for the last of a part.
const PIECE_BYTES_MIN: usize = 30 * 1024;

/// What the next bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A part begins.
    Part {
        name: String,
    },
    /// The next bytes of its content.
    Content(Bytes),
    PartEnd,
    /// The last delimiter has come; what follows means nothing.
    End,
    /// More bytes are needed to say.
    More,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Preamble { passed: usize },
    BehindDelimiter,
    Headers,
    Content,
    Ended,
}

/// Why a body is not what it says. The texts are for clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MultipartError {
    #[error("the content type must be multipart/form-data with a boundary of 1 to 70 bytes")]
    ContentType,
    #[error("no delimiter within the first {} bytes", PREAMBLE_BYTES_MAX)]
    Preamble,
    #[error("a delimiter is followed by something else than a line end or the end")]
    Delimiter,
    #[error("the headers of a part are longer than {} bytes", HEADERS_BYTES_MAX)]
    HeadersTooLong,
    #[error("a part has no content-disposition with a name")]
    NoName,
    #[error("the body ends in the middle of a part")]
    Incomplete,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Multipart {
    /// Line end, two dashes, boundary.
    delimiter: Finder<'static>,
    buffer: BytesMut,
    state: State,
}

impl Multipart {
    /// A reader for a request with those headers.
    pub(crate) fn new(headers: &HeaderMap) -> Result<Self, MultipartError> {
        let value = headers.get(header::CONTENT_TYPE);
        let boundary = value.and_then(|value| boundary(value.as_bytes()));
        let boundary = boundary.ok_or(MultipartError::ContentType)?;
        let delimiter = [b"\r\n--", boundary.as_slice()].concat();
        Ok(Self {
            delimiter: Finder::new(&delimiter).into_owned(),
            // The first delimiter needs no line end before it.
            buffer: BytesMut::from(&b"\r\n"[..]),
            state: State::Preamble { passed: 0 },
        })
    }

    /// Bytes that have come.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.state != State::Ended {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Whether the body may end here.
    pub(crate) fn finish(&self) -> Result<(), MultipartError> {
        match self.state {
            State::Ended => Ok(()),
            State::Preamble { .. } => Err(MultipartError::Preamble),
            _ => Err(MultipartError::Incomplete),
        }
    }

    /// What comes next. To be asked until it wants more.
    pub(crate) fn next(&mut self) -> Result<Step, MultipartError> {
        loop {
            let step = match self.state {
                State::Preamble { passed } => self.preamble(passed)?,
                State::BehindDelimiter => self.behind_delimiter()?,
                State::Headers => return self.headers(),
                State::Content => return Ok(self.content()),
                State::Ended => Some(Step::End),
            };
            if let Some(step) = step {
                return Ok(step);
            }
        }
    }

    /// None when the state has changed.
    fn preamble(&mut self, passed: usize) -> Result<Option<Step>, MultipartError> {
        if let Some(at) = self.delimiter.find(&self.buffer) {
            self.buffer.advance(at + self.delimiter.needle().len());
            self.state = State::BehindDelimiter;
            return Ok(None);
        }
        let skipped = self.undecided_from();
        self.buffer.advance(skipped);
        let passed = passed + skipped;
        if passed > PREAMBLE_BYTES_MAX {
            return Err(MultipartError::Preamble);
        }
        self.state = State::Preamble { passed };
        Ok(Some(Step::More))
    }

    fn behind_delimiter(&mut self) -> Result<Option<Step>, MultipartError> {
        if self.buffer.starts_with(b"--") {
            self.buffer.clear();
            self.state = State::Ended;
            return Ok(None);
        }
        let is_padding = |byte: &u8| matches!(byte, b' ' | b'\t');
        let padding = self.buffer.iter().take_while(|b| is_padding(b)).count();
        let rest = &self.buffer[padding..];
        if rest.starts_with(b"\r\n") {
            // The line end stays: headers begin behind one.
            self.buffer.advance(padding);
            self.state = State::Headers;
            return Ok(None);
        }
        let may_become = b"\r\n".starts_with(rest) || (padding == 0 && b"--".starts_with(rest));
        if may_become && padding <= PADDING_BYTES_MAX {
            return Ok(Some(Step::More));
        }
        Err(MultipartError::Delimiter)
    }

    fn headers(&mut self) -> Result<Step, MultipartError> {
        let Some(end) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") else {
            if self.buffer.len() > HEADERS_BYTES_MAX {
                return Err(MultipartError::HeadersTooLong);
            }
            return Ok(Step::More);
        };
        if end > HEADERS_BYTES_MAX {
            return Err(MultipartError::HeadersTooLong);
        }
        let name = part_name(&self.buffer[..end]).ok_or(MultipartError::NoName)?;
        self.buffer.advance(end + 4);
        self.state = State::Content;
        Ok(Step::Part { name })
    }

    fn content(&mut self) -> Step {
        match self.delimiter.find(&self.buffer) {
            Some(0) => {
                self.buffer.advance(self.delimiter.needle().len());
                self.state = State::BehindDelimiter;
                Step::PartEnd
            }
            Some(at) => Step::Content(self.buffer.split_to(at).freeze()),
            None => {
                let decided = self.undecided_from();
                if decided < PIECE_BYTES_MIN {
                    return Step::More;
                }
                Step::Content(self.buffer.split_to(decided).freeze())
            }
        }
    }

    /// What may be the beginning of a delimiter begins here at the earliest.
    fn undecided_from(&self) -> usize {
        self.buffer
            .len()
            .saturating_sub(self.delimiter.needle().len() - 1)
    }
}

/// The boundary that a content type names.
fn boundary(content_type: &[u8]) -> Option<Vec<u8>> {
    let kind = content_type.split(|byte| *byte == b';').next()?;
    if !kind
        .trim_ascii()
        .eq_ignore_ascii_case(b"multipart/form-data")
    {
        return None;
    }
    let boundary = parameter(content_type, "boundary")?;
    let fits = (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len());
    let plain = boundary.iter().all(|byte| matches!(byte, b' '..=b'~'));
    (fits && plain).then_some(boundary)
}

/// The name of a part with those headers.
fn part_name(headers: &[u8]) -> Option<String> {
    headers.split(|byte| *byte == b'\n').find_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at(colon);
        if !name
            .trim_ascii()
            .eq_ignore_ascii_case(b"content-disposition")
        {
            return None;
        }
        String::from_utf8(parameter(&value[1..], "name")?).ok()
    })
}

/// The value of a parameter behind a semicolon; quoted strings may have escaped characters.
fn parameter(value: &[u8], wanted: &str) -> Option<Vec<u8>> {
    let mut rest = value;
    loop {
        let next = rest.iter().position(|byte| *byte == b';')?;
        rest = &rest[next + 1..];
        let equals = rest.iter().position(|byte| matches!(byte, b'=' | b';'))?;
        if rest[equals] == b';' {
            continue;
        }
        let name = rest[..equals].trim_ascii();
        let (found, behind) = token_or_string(rest[equals + 1..].trim_ascii_start())?;
        if name.eq_ignore_ascii_case(wanted.as_bytes()) {
            return Some(found);
        }
        rest = behind;
    }
}

/// A value, and what comes behind it.
fn token_or_string(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let is_end = |byte: &u8| matches!(byte, b';' | b'\r');
        let end = text.iter().position(is_end).unwrap_or(text.len());
        return Some((text[..end].trim_ascii_end().to_vec(), &text[end..]));
    };
    let mut found = Vec::new();
    let mut bytes = quoted.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some((found, &quoted[at + 1..])),
            b'\\' => found.push(*bytes.next()?.1),
            byte => found.push(*byte),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    fn reader(content_type: &str) -> Result<Multipart, MultipartError> {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_str(content_type).unwrap();
        headers.insert(header::CONTENT_TYPE, value);
        Multipart::new(&headers)
    }

    /// Name and content of every part, of a body that comes in pieces.
    fn read(body: &[u8], piece: usize) -> Result<Vec<(String, Vec<u8>)>, MultipartError> {
        let mut reader = reader("multipart/form-data; boundary=b")?;
        let mut parts = Vec::new();
        for piece in body.chunks(piece.max(1)) {
            reader.push(piece);
            loop {
                match reader.next()? {
                    Step::Part { name } => parts.push((name, Vec::new())),
                    Step::Content(bytes) => parts.last_mut().unwrap().1.extend(bytes),
                    Step::PartEnd => {}
                    Step::End | Step::More => break,
                }
            }
        }
        reader.finish()?;
        Ok(parts)
    }

    fn encode(parts: &[(String, Vec<u8>)]) -> Vec<u8> {
        let mut body = Vec::new();
        for (name, content) in parts {
            let head = format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
            body.extend(head.as_bytes());
            body.extend(content);
            body.extend(b"\r\n");
        }
        body.extend(b"--b--\r\n");
        body
    }

    proptest! {
        #[test]
        fn what_was_sent_comes_out(
            names in prop::collection::vec("[a-z]{1,8}", 0..4),
            content in prop::collection::vec(prop::sample::select(vec![b'\r', b'\n', b'-', b'x']), 0..200),
            piece in 1..50_usize,
        ) {
            // No delimiter can be made of these bytes: there is no "b".
            let parts: Vec<_> = names.into_iter().map(|name| (name, content.clone())).collect();
            prop_assert_eq!(read(&encode(&parts), piece).unwrap(), parts);
        }

        #[test]
        fn garbage_is_refused_or_read_the_same_however_it_comes(
            body in prop::collection::vec(prop::sample::select(b"\r\n-b:;= \"\\name".to_vec()), 0..200),
            piece in 1..50_usize,
        ) {
            let body = [b"--b\r\nContent-Disposition: x; name=n\r\n\r\n", body.as_slice()].concat();
            prop_assert_eq!(read(&body, piece).is_ok(), read(&body, usize::MAX).is_ok());
        }
    }

    #[test]
    fn large_content_comes_in_pieces() {
        let content = vec![b'\r'; 10 * PIECE_BYTES_MIN];
        let parts = vec![("f".to_owned(), content)];
        assert_eq!(read(&encode(&parts), 4_096).unwrap(), parts);
    }

    #[test]
    fn names() {
        let body = |headers: &str| format!("x\r\n--b \t\r\n{headers}\r\n\r\nc\r\n--b--junk");
        for (headers, name) in [
            (
                "content-disposition: form-data; name=\"a\"; filename=\"f\"",
                "a",
            ),
            (
                "Content-Disposition: form-data; filename=\"; name=x\"; NAME=\"a\"",
                "a",
            ),
            (
                "X: y\r\nContent-Disposition: form-data; filename=\"\\\"\"; name=a",
                "a",
            ),
            ("Content-Disposition: form-data; name=\"ä\"", "ä"),
        ] {
            let read = read(body(headers).as_bytes(), 7).unwrap();
            assert_eq!(read, [(name.to_owned(), b"c".to_vec())], "{headers}");
        }
        for headers in [
            "",
            "X: y",
            "Content-Disposition: form-data; filename=\"name=a\"",
        ] {
            assert_eq!(
                read(body(headers).as_bytes(), 7),
                Err(MultipartError::NoName)
            );
        }
    }

    #[test]
    fn what_never_ends_is_refused_early() {
        let junk = vec![b'x'; PREAMBLE_BYTES_MAX + 100];
        assert_eq!(read(&junk, 1_000), Err(MultipartError::Preamble));
        let long = [b"--b\r\nA: ", junk.as_slice()].concat();
        assert_eq!(read(&long, 1_000), Err(MultipartError::HeadersTooLong));
        let padded = [b"--b", vec![b' '; 1_000].as_slice()].concat();
        assert_eq!(read(&padded, 100), Err(MultipartError::Delimiter));
        assert_eq!(read(b"--bx", 1), Err(MultipartError::Delimiter));
        let open = b"--b\r\nContent-Disposition: x; name=n\r\n\r\nabc\r\n--";
        assert_eq!(read(open, 3), Err(MultipartError::Incomplete));
    }

    #[test]
    fn boundaries() {
        for good in [
            "multipart/form-data; boundary=b",
            "Multipart/Form-Data; charset=x; boundary=\"b b\"",
        ] {
            assert!(reader(good).is_ok(), "{good}");
        }
        for bad in [
            "multipart/mixed; boundary=b".to_owned(),
            "multipart/form-data".to_owned(),
            "multipart/form-data; boundary=".to_owned(),
            format!("multipart/form-data; boundary={}", "b".repeat(71)),
        ] {
            assert_eq!(
                reader(&bad).err(),
                Some(MultipartError::ContentType),
                "{bad}"
            );
        }
    }
}
