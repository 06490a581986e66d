//! Opens what reads a client's words about files to `fuzz/`.

use super::glob::Glob;
use super::multipart::{HEADERS_BYTES_MAX, Multipart, Step};
use axum::http::{HeaderMap, HeaderValue, header};

/// A multipart body is read the same however it comes; nothing comes out that did not go in.
pub fn multipart(piece: usize, body: &[u8]) {
    let mut headers = HeaderMap::new();
    let kind = HeaderValue::from_static("multipart/form-data; boundary=\"b b\"");
    headers.insert(header::CONTENT_TYPE, kind);
    let whole = read(&headers, body, usize::MAX);
    assert_eq!(read(&headers, body, piece.max(1)), whole);
    if let Some(parts) = whole {
        let content: usize = parts.iter().map(|(_, content)| content.len()).sum();
        assert!(content <= body.len());
        assert!(
            parts
                .iter()
                .all(|(name, _)| name.len() <= HEADERS_BYTES_MAX)
        );
    }
}

fn read(headers: &HeaderMap, body: &[u8], piece: usize) -> Option<Vec<(String, Vec<u8>)>> {
    let mut reader = Multipart::new(headers).ok()?;
    let mut parts: Vec<(String, Vec<u8>)> = Vec::new();
    for piece in body.chunks(piece) {
        reader.push(piece);
        loop {
            match reader.next().ok()? {
                Step::Part { name } => parts.push((name, Vec::new())),
                Step::Content(bytes) => {
                    let (_, content) = parts.last_mut().expect("content is in a part");
                    content.extend_from_slice(&bytes);
                }
                Step::PartEnd => {}
                Step::End | Step::More => break,
            }
        }
    }
    reader.finish().ok()?;
    Some(parts)
}

/// A pattern is refused or answers; `**` takes everything.
pub fn glob(pattern: &str, path: &str) {
    if let Ok(glob) = Glob::new(pattern) {
        let matched = glob.matches(path);
        assert!(!matched || Glob::new("**").is_ok_and(|all| all.matches(path)));
    }
    let name = path.rsplit('/').next().unwrap_or_default();
    let escaped: String = name.chars().flat_map(|c| ['\\', c]).collect();
    if let Ok(literal) = Glob::new(&escaped) {
        assert!(literal.matches(name), "{name:?}");
    }
}
