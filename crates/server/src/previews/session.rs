//! A browser's session with one preview: the token that opens it and the cookie that is it.
//!
//! The cookie names the preview and its own end, under a keyed hash with a key that only this
//! preview's row has: another preview's cookie, or one of a preview that is over, opens nothing.

use axum::http::{HeaderMap, HeaderValue, header};
use crownest_api::Timestamp;
use crownest_store::Preview;

/// Cookies with this prefix are ours: never shown to a sandbox, never set by one.
const COOKIE_PREFIX: &[u8] = b"crownest_";
const COOKIE: &str = "crownest_preview_session";
/// Parameter of the URL that opens a session.
pub(super) const TOKEN_PARAMETER: &str = "crownest_preview_token";
/// Longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 128;
/// Cookies of our name that are looked at: a page of another preview may have set some.
const COOKIES_TRIED_MAX: usize = 8;
/// Longest life of a session; its preview's end comes first.
const SESSION_MS_MAX: u64 = 24 * 3_600_000;
const VERSION: &str = "v1";

/// `Set-Cookie` of a new session. It has no `Domain`: no other host ever gets it.
pub(super) fn cookie(preview: &Preview, https: bool) -> Option<HeaderValue> {
    let expires_ms = Timestamp::now().plus_millis(SESSION_MS_MAX).as_millis();
    let value = seal(preview, expires_ms);
    let secure = if https { "; Secure" } else { "" };
    let age = SESSION_MS_MAX / 1_000;
    let text = format!("{COOKIE}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::from_str(&text).ok()
}

fn seal(preview: &Preview, expires_ms: i64) -> String {
    let signed = format!("{VERSION}.{}.{expires_ms}", preview.id);
    let mac = blake3::keyed_hash(&preview.session_key.0, signed.as_bytes());
    format!("{signed}.{}", mac.to_hex())
}

/// Whether the value is a session with this preview that has not ended.
fn opens(preview: &Preview, value: &[u8], now: Timestamp) -> bool {
    let Ok(text) = str::from_utf8(value) else {
        return false;
    };
    let Some((signed, mac)) = text.rsplit_once('.') else {
        return false;
    };
    let Ok(mac) = blake3::Hash::from_hex(mac) else {
        return false;
    };
    // Compared in constant time by the type.
    if blake3::keyed_hash(&preview.session_key.0, signed.as_bytes()) != mac {
        return false;
    }
    let mut parts = signed.split('.');
    let same = (parts.next(), parts.next()) == (Some(VERSION), Some(preview.id.as_str()));
    let expires_ms = parts.next().and_then(|text| text.parse::<i64>().ok());
    same && expires_ms.is_some_and(|expires_ms| now.as_millis() < expires_ms)
}

/// The cookies of a request, apart: our own, and what a sandbox may see.
#[derive(Debug, Default)]
pub(super) struct Cookies {
    ours: Vec<Vec<u8>>,
    pub(super) theirs: Option<HeaderValue>,
}

impl Cookies {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let all = headers.get_all(header::COOKIE).iter();
        for pair in all.flat_map(|value| value.as_bytes().split(|b| *b == b';')) {
            let pair = pair.trim_ascii();
            let at = pair.iter().position(|b| *b == b'=').unwrap_or(pair.len());
            let (name, value) = pair.split_at(at);
            if is_ours(name) {
                if name.trim_ascii() == COOKIE.as_bytes() && ours.len() < COOKIES_TRIED_MAX {
                    ours.push(value.get(1..).unwrap_or_default().trim_ascii().to_vec());
                }
            } else if !pair.is_empty() {
                if !theirs.is_empty() {
                    theirs.extend_from_slice(b"; ");
                }
                theirs.extend_from_slice(pair);
            }
        }
        let theirs = (!theirs.is_empty())
            .then(|| HeaderValue::from_bytes(&theirs).ok())
            .flatten();
        Self { ours, theirs }
    }

    /// Whether one of them is a session with this preview.
    pub(super) fn open(&self, preview: &Preview) -> bool {
        let now = Timestamp::now();
        self.ours.iter().any(|value| opens(preview, value, now))
    }
}

/// Whether a cookie of that name is ours.
pub(super) fn is_ours(name: &[u8]) -> bool {
    let name = name.trim_ascii();
    name.len() >= COOKIE_PREFIX.len()
        && name[..COOKIE_PREFIX.len()].eq_ignore_ascii_case(COOKIE_PREFIX)
}

/// A query without our parameter, and the token that was in it.
pub(super) fn take_token(query: &str) -> (Option<String>, String) {
    let (mut token, mut found) = (None, false);
    let mut rest = String::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if percent_decoded(name) == TOKEN_PARAMETER.as_bytes() {
            found = true;
            // A second one is no less secret, and says nothing.
            if token.is_none() && value.len() <= TOKEN_BYTES_MAX {
                token = Some(value.to_owned());
            }
            continue;
        }
        if !rest.is_empty() {
            rest.push('&');
        }
        rest.push_str(pair);
    }
    if !found {
        rest.replace_range(.., query);
    }
    (token, rest)
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = match rest {
            [b'%', high, low, ..] => (*high as char)
                .to_digit(16)
                .zip((*low as char).to_digit(16)),
            _ => None,
        };
        match hex {
            Some((high, low)) => {
                decoded.push(u8::try_from(high * 16 + low).unwrap_or_default());
                rest = &rest[3..];
            }
            None => {
                decoded.push(*first);
                rest = tail;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crownest_store::SessionKey;

    fn preview(id: &str, key: u8) -> Preview {
        Preview {
            id: id.to_owned(),
            slug: "p-0123456789ab".to_owned(),
            org_id: "org_1".to_owned(),
            project_id: "prj_1".to_owned(),
            sandbox_id: "sbx_1".to_owned(),
            port: 80,
            auth_mode: "token".to_owned(),
            token_hash: None,
            session_key: SessionKey([key; 32]),
            source_command_id: None,
            created_by: "key_1".to_owned(),
            created_at: 1,
            revoked_at: None,
            ended_at: None,
        }
    }

    #[test]
    fn a_session_is_of_one_preview_and_ends() {
        let ours = preview("prv_1", 1);
        let value = seal(&ours, 1_000);
        let at = |preview: &Preview, value: &str, ms| {
            opens(preview, value.as_bytes(), Timestamp::from_millis(ms))
        };
        assert!(at(&ours, &value, 999));
        assert!(!at(&ours, &value, 1_000));
        assert!(!at(&preview("prv_1", 2), &value, 999), "another key");
        assert!(!at(&preview("prv_2", 1), &value, 999), "another name");
        for end in 0..value.len() {
            assert!(!at(&ours, &value[..end], 999));
        }
        assert!(!at(&ours, &value.replace(".1000.", ".9000."), 999));
    }

    #[test]
    fn our_cookies_stay_here_and_others_pass() {
        let ours = preview("prv_1", 1);
        let session = seal(&ours, i64::MAX);
        let mut headers = HeaderMap::new();
        let first = format!("a=1; {COOKIE}=forged;crownest_x=2 ;b=\"q;Crownest_Y=1");
        for value in [first, format!(" {COOKIE} = {session}; c")] {
            headers.append(header::COOKIE, value.parse().unwrap());
        }
        let cookies = Cookies::of(&headers);
        assert_eq!(cookies.theirs.as_ref().unwrap(), "a=1; b=\"q; c");
        assert!(cookies.open(&ours));
        assert!(!cookies.open(&preview("prv_2", 1)));
        assert!(Cookies::of(&HeaderMap::new()).theirs.is_none());
    }

    #[test]
    fn the_token_leaves_the_query_and_the_rest_stays_as_it_was() {
        let take = |query| {
            let (token, rest) = take_token(query);
            (token.unwrap_or_default(), rest)
        };
        let pair = |token: &str, rest: &str| (token.to_owned(), rest.to_owned());
        assert_eq!(take("crownest_preview_token=pvt_1"), pair("pvt_1", ""));
        assert_eq!(
            take("a=%20&crownest_preview_token=x&b&crownest%5fpreview_token=y"),
            pair("x", "a=%20&b")
        );
        assert_eq!(
            take("a=crownest_preview_token"),
            pair("", "a=crownest_preview_token")
        );
        assert_eq!(take("&&a"), pair("", "&&a"));
        assert_eq!(take("%&%4&%zz"), pair("", "%&%4&%zz"));
    }
}
