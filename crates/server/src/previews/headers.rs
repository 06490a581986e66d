//! What of a message's head passes between a visitor and a sandbox. Pure.
//!
//! Into the sandbox goes nothing that is ours: no key, no session, no token, nothing that belongs
//! to one connection. Out of it comes no cookie for any host but its own, and no answer whose
//! length two readers could see differently.

use super::address::Site;
use super::session::{Cookies, is_ours};
use crate::egress::strip_hop_by_hop;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use std::net::IpAddr;

/// Headers of a request that stay here. `authorization` is ours whatever it says: a sandbox's own
/// login is a form and a cookie.
const KEPT_BACK: [&str; 9] = [
    "authorization",
    "x-api-key",
    "expect",
    "forwarded",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
    "transfer-encoding",
];
/// So do all that begin like this.
const OUR_PREFIX: &str = "x-crownest";
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Whether the request wants to become a WebSocket: the one protocol that may follow on HTTP.
/// Any other upgrade would be a tunnel past everything that is checked here.
pub(super) fn wants_websocket(headers: &HeaderMap) -> bool {
    let upgrades = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case("upgrade"));
    upgrades && is_websocket(headers)
}

fn is_websocket(headers: &HeaderMap) -> bool {
    let mut protocols = headers.get_all(header::UPGRADE).iter();
    let first = protocols.next().map(HeaderValue::as_bytes);
    let websocket = first.is_some_and(|word| word.trim_ascii().eq_ignore_ascii_case(b"websocket"));
    websocket && protocols.next().is_none()
}

/// How a request reaches the sandbox.
#[derive(Debug)]
pub(super) struct Incoming<'a> {
    pub(super) host: &'a str,
    pub(super) site: &'a Site,
    pub(super) peer: Option<IpAddr>,
    /// Whether something trusted stands before this server and has said who the visitor is.
    pub(super) behind_proxy: bool,
    pub(super) websocket: bool,
}

/// Makes the headers of a request those that the sandbox gets.
pub(super) fn into_sandbox(headers: &mut HeaderMap, cookies: Cookies, way: &Incoming<'_>) {
    let framed_twice = headers.contains_key(header::TRANSFER_ENCODING);
    strip_hop_by_hop(headers);
    for name in KEPT_BACK {
        headers.remove(name);
    }
    let ours: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(OUR_PREFIX))
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
    if framed_twice {
        // The body's own frames say how long it is.
        headers.remove(header::CONTENT_LENGTH);
    }
    headers.remove(header::COOKIE);
    if let Some(cookies) = cookies.theirs {
        headers.insert(header::COOKIE, cookies);
    }
    forwarded(headers, way);
    let connection = if way.websocket {
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        "upgrade"
    } else {
        "close"
    };
    headers.insert(header::CONNECTION, HeaderValue::from_static(connection));
}

fn forwarded(headers: &mut HeaderMap, way: &Incoming<'_>) {
    let before = headers.remove(FORWARDED_FOR);
    let before = before.filter(|_| way.behind_proxy);
    let before = before.and_then(|value| value.to_str().ok().map(str::to_owned));
    let peer = way.peer.map(|peer| peer.to_string());
    let chain: Vec<String> = before.into_iter().chain(peer).collect();
    let proto = way.site.scheme().to_owned();
    let host = way.host.to_owned();
    let said = [
        ("x-forwarded-for", chain.join(", ")),
        ("x-forwarded-host", host.clone()),
        ("x-forwarded-proto", proto),
    ];
    for (name, text) in said {
        if let Ok(value) = HeaderValue::from_str(&text)
            && !text.is_empty()
        {
            headers.insert(name, value);
        }
    }
    if let Ok(value) = HeaderValue::from_str(&host) {
        headers.insert(header::HOST, value);
    }
}

/// Makes the headers of an answer those that the visitor gets. Refuses what must not be passed.
pub(super) fn out_of_sandbox(headers: &mut HeaderMap) -> Result<(), &'static str> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        let chunked = coding
            .as_bytes()
            .trim_ascii()
            .eq_ignore_ascii_case(b"chunked");
        if !chunked || codings.next().is_some() {
            return Err("its answer has a transfer coding that is not plain chunks");
        }
        if headers.contains_key(header::CONTENT_LENGTH) {
            return Err("its answer says twice how long it is");
        }
    }
    strip_hop_by_hop(headers);
    headers.remove(header::TRANSFER_ENCODING);
    if headers.contains_key(header::SET_COOKIE) {
        let set: Vec<HeaderValue> = headers
            .get_all(header::SET_COOKIE)
            .iter()
            .filter_map(host_only)
            .collect();
        headers.remove(header::SET_COOKIE);
        for value in set {
            headers.append(header::SET_COOKIE, value);
        }
    }
    Ok(())
}

/// Whether the sandbox agreed to what [`wants_websocket`] asked.
pub(super) fn agrees(headers: &HeaderMap) -> bool {
    is_websocket(headers)
}

/// A cookie of a sandbox for its own host alone; none when it has a name of ours.
fn host_only(value: &HeaderValue) -> Option<HeaderValue> {
    let mut parts = value.as_bytes().split(|b| *b == b';');
    let pair = parts.next()?;
    let name = pair.split(|b| *b == b'=').next()?;
    if is_ours(name) {
        return None;
    }
    let mut kept = pair.to_vec();
    for part in parts {
        let name = part.split(|b| *b == b'=').next().unwrap_or_default();
        if !name.trim_ascii().eq_ignore_ascii_case(b"domain") {
            kept.push(b';');
            kept.extend_from_slice(part);
        }
    }
    HeaderValue::from_bytes(&kept).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::{Inventory, TemplateSource};

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        headers
    }

    fn passed(pairs: &[(&'static str, &'static str)], websocket: bool) -> HeaderMap {
        let config = Config::new("node_1".into(), TemplateSource::new(Inventory::default));
        let site = Site::of(&config, &HeaderMap::new());
        let mut headers = headers(pairs);
        let cookies = Cookies::of(&headers);
        let way = Incoming {
            host: "p-0123456789ab.preview.localhost:80",
            site: &site,
            peer: Some([192, 0, 2, 1].into()),
            behind_proxy: false,
            websocket,
        };
        into_sandbox(&mut headers, cookies, &way);
        headers
    }

    #[test]
    fn nothing_of_ours_goes_in() {
        let passed = passed(
            &[
                ("authorization", "Bearer cn_live_1"),
                ("x-api-key", "cn_live_1"),
                ("x-crownest-org-id", "org_1"),
                ("cookie", "crownest_preview_session=1"),
                ("connection", "close, x-mine, x-forwarded-for"),
                ("x-mine", "1"),
                ("upgrade", "h2c"),
                ("te", "trailers"),
                ("transfer-encoding", "chunked"),
                ("content-length", "3"),
                ("x-forwarded-for", "10.0.0.1"),
                ("x-forwarded-proto", "https"),
                ("host", "other"),
                ("accept", "*/*"),
            ],
            false,
        );
        let mut names: Vec<_> = passed.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "accept",
                "connection",
                "host",
                "x-forwarded-for",
                "x-forwarded-host",
                "x-forwarded-proto"
            ]
        );
        assert_eq!(passed["x-forwarded-for"], "192.0.2.1");
        assert_eq!(passed["x-forwarded-proto"], "http");
        assert_eq!(passed["host"], "p-0123456789ab.preview.localhost:80");
        assert_eq!(passed["connection"], "close");
    }

    #[test]
    fn of_all_upgrades_a_websocket_passes() {
        let asks = |connection, upgrade| {
            wants_websocket(&headers(&[
                ("connection", connection),
                ("upgrade", upgrade),
            ]))
        };
        assert!(asks("keep-alive, Upgrade", "WebSocket"));
        assert!(!asks("keep-alive", "websocket"));
        assert!(!asks("upgrade", "h2c"));
        assert!(!asks("upgrade", "websocket, h2c"));
        let passed = passed(&[("connection", "upgrade"), ("upgrade", "websocket")], true);
        assert_eq!(passed["connection"], "upgrade");
        assert_eq!(passed["upgrade"], "websocket");
    }

    #[test]
    fn cookies_of_a_sandbox_are_for_its_own_host() {
        let mut answer = headers(&[
            (
                "set-cookie",
                "a=1; Path=/; Domain=preview.localhost; HttpOnly",
            ),
            ("set-cookie", " crownest_preview_session=x"),
            ("set-cookie", "b=2; domain = localhost;DOMAIN=.localhost"),
            ("set-cookie", "c"),
        ]);
        out_of_sandbox(&mut answer).unwrap();
        let set: Vec<_> = answer.get_all(header::SET_COOKIE).iter().collect();
        assert_eq!(set, ["a=1; Path=/; HttpOnly", "b=2", "c"]);
    }

    #[test]
    fn an_answer_with_two_lengths_is_refused() {
        let refused = |pairs| out_of_sandbox(&mut headers(pairs)).is_err();
        assert!(refused(&[
            ("transfer-encoding", "chunked"),
            ("content-length", "3")
        ]));
        assert!(refused(&[("transfer-encoding", "gzip, chunked")]));
        assert!(refused(&[
            ("transfer-encoding", "chunked"),
            ("transfer-encoding", "chunked")
        ]));
        assert!(!refused(&[("transfer-encoding", "Chunked")]));
        assert!(!refused(&[("content-length", "3")]));
    }
}
