//! What a visitor and a sandbox write in the heads of messages, for the fuzz targets: see
//! [`crate::fuzzing`].

use super::address::{Named, named};
use super::headers::out_of_sandbox;
use super::session::{Cookies, is_ours, take_token};
use axum::http::{HeaderMap, HeaderValue, header};

const DOMAIN: &str = "preview.test";

/// A `Host`: under the domain of previews it never leads to the API, and what it names is what it
/// says.
pub fn host(host: &[u8]) {
    let found = named(host, DOMAIN);
    let text = String::from_utf8_lossy(host).to_ascii_lowercase();
    let name = text.split(':').next().unwrap_or_default();
    let name = name.strip_suffix('.').unwrap_or(name);
    let ours = name.ends_with(&format!(".preview.{DOMAIN}"));
    assert_eq!(found != Named::Api, ours, "{text}");
    if let Named::Slug(slug) = found {
        assert_eq!(name, format!("{slug}.preview.{DOMAIN}"));
        assert!(slug.len() == 14 && slug.starts_with("p-"));
    }
}

/// `Cookie` of a visitor: what goes on has nothing of ours, and nothing is lost of the rest.
pub fn cookies(value: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(value) else {
        return;
    };
    let of = |value: HeaderValue| Cookies::of(&HeaderMap::from_iter([(header::COOKIE, value)]));
    let Some(theirs) = of(value).theirs else {
        return;
    };
    for pair in theirs.as_bytes().split(|b| *b == b';') {
        let name = pair.split(|b| *b == b'=').next().unwrap_or_default();
        assert!(!is_ours(name), "{theirs:?}");
    }
    assert_eq!(of(theirs.clone()).theirs, Some(theirs), "once is enough");
}

/// `Set-Cookie` of a sandbox: for its own host, under a name of its own.
pub fn set_cookie(value: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(value) else {
        return;
    };
    let mut headers = HeaderMap::from_iter([(header::SET_COOKIE, value)]);
    out_of_sandbox(&mut headers).expect("it says nothing of lengths");
    let Some(value) = headers.get(header::SET_COOKIE) else {
        return;
    };
    let mut parts = value.as_bytes().split(|b| *b == b';');
    let name_of = |part: &[u8]| {
        let name = part.split(|b| *b == b'=').next().unwrap_or_default();
        name.trim_ascii().to_ascii_lowercase()
    };
    let name = name_of(parts.next().unwrap_or_default());
    assert!(!name.starts_with(b"crownest_"), "{value:?}");
    assert!(parts.all(|part| name_of(part) != b"domain"), "{value:?}");
}

/// A query: no token is left in it, and nothing else changes.
pub fn query(query: &[u8]) {
    let Ok(query) = str::from_utf8(query) else {
        return;
    };
    let (_, rest) = take_token(query);
    let (none, again) = take_token(&rest);
    assert_eq!(none, None);
    assert_eq!(again, rest);
    let pairs = |text: &str| text.split('&').filter(|pair| !pair.is_empty()).count();
    assert!(pairs(&rest) <= pairs(query));
}
