//! What the fuzz target of the egress proxy needs of this folder's private half. Every byte here
//! stands for one that tenant code sent to its proxy.

use super::address::forbidden_range;
use super::forward::{HOP_BY_HOP, authority, outgoing, target_of};
use super::policy::{Policy, PolicyConfig, is_host};
use super::refusal::Refusal;
use hyper::header::{CONNECTION, HOST, HeaderName, HeaderValue};
use hyper::{Request, Uri};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Headers of one request that are looked at.
const HEADERS_MAX: usize = 16;

/// A request line and headers, from the tenant to what would be connected to and sent.
pub fn proxied(connect: bool, uri: &[u8], headers: &[(&[u8], &[u8])]) {
    let Ok(uri) = Uri::try_from(uri) else { return };
    let target = match target_of(&uri, (!connect).then_some(80)) {
        Ok(target) => target,
        Err(refusal) => return explained(&refusal),
    };
    let (host, port) = (target.host.as_str(), target.port);
    let plain = host.parse::<Ipv6Addr>().is_ok() || is_host(host);
    assert!(plain && !host.ends_with('.'), "{host:?}");
    assert!(!host.bytes().any(|b| b.is_ascii_uppercase()), "{host:?}");
    // What the operator's proxy would be told leads to the same place.
    let said: Uri = authority(&target).parse().expect("an authority");
    assert_eq!(target_of(&said, None).ok().as_ref(), Some(&target));
    // A port is read from digits alone, so that nobody further on can read another one.
    let given = uri.authority().map_or("", |a| a.as_str());
    if let Some((_, written)) = given
        .rsplit_once(':')
        .filter(|(_, rest)| !rest.contains(']'))
    {
        assert!(written.bytes().all(|b| b.is_ascii_digit()), "{given:?}");
    }
    let policy = Policy::default();
    let judged = policy.judge_host(host, port).and_then(|verdict| {
        let Ok(ip) = host.parse::<IpAddr>() else {
            return Ok(());
        };
        policy.judge_address(host, verdict, SocketAddr::new(ip, port), false)?;
        assert_eq!(forbidden_range(ip.to_canonical()), None);
        Ok(())
    });
    if let Err(refusal) = judged {
        explained(&refusal);
    }
    if connect {
        return;
    }
    let mut request = Request::new(());
    *request.uri_mut() = uri;
    for (name, value) in headers.iter().take(HEADERS_MAX) {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            request.headers_mut().append(name, value);
        }
    }
    let Ok(sent) = outgoing(request, &target, false) else {
        return;
    };
    assert!(sent.uri().authority().is_none() && sent.uri().path().starts_with(['/', '*']));
    assert_eq!(sent.headers().get_all(HOST).iter().count(), 1);
    let host = sent.headers()[HOST].to_str().expect("ASCII");
    let said: Uri = host.parse().expect("an authority");
    assert_eq!(
        said.host(),
        authority(&target)
            .parse::<Uri>()
            .expect("an authority")
            .host()
    );
    let connection: Vec<_> = sent.headers().get_all(CONNECTION).iter().collect();
    assert_eq!(connection, ["close"]);
    for name in HOP_BY_HOP.iter().filter(|name| **name != "connection") {
        assert!(!sent.headers().contains_key(*name), "{name}");
    }
}

/// The tenant learns why, in a status line that is one line.
fn explained(refusal: &Refusal) {
    let response = refusal.response();
    let reason = response.extensions().get::<hyper::ext::ReasonPhrase>();
    let reason = reason.expect("a reason").as_bytes();
    assert!(reason.len() <= 400 && reason.iter().all(|b| (b' '..=b'~').contains(b)));
}

/// Rules as an operator writes them, against a host, address and port of the tenant's choosing.
pub fn policy(allow: Vec<String>, deny: Vec<String>, host: &str, target: SocketAddr, local: bool) {
    if !is_host(host) || host.ends_with('.') || host.bytes().any(|b| b.is_ascii_uppercase()) {
        return;
    }
    let judge = |config: PolicyConfig| {
        let policy = Policy::new(config).ok()?;
        let judged = policy
            .judge_host(host, target.port())
            .and_then(|verdict| policy.judge_address(host, verdict, target, local));
        Some(judged.is_ok())
    };
    let config = PolicyConfig {
        allow,
        deny,
        ..PolicyConfig::default()
    };
    let Some(open) = judge(config.clone()) else {
        return;
    };
    let none = judge(PolicyConfig::default());
    let internal = local || forbidden_range(target.ip().to_canonical()).is_some();
    assert!(none == Some(false) || !internal, "{target} without a rule");
    let undenied = judge(PolicyConfig {
        deny: Vec::new(),
        ..config.clone()
    });
    assert!(!open || undenied == Some(true), "a denial opened {target}");
    let own = judge(PolicyConfig {
        own: vec![target],
        ..config.clone()
    });
    assert_eq!(own, Some(false), "the server itself at {target}");
    let everything = judge(PolicyConfig {
        deny: vec!["*".into()],
        ..config
    });
    assert_eq!(everything, Some(false), "{host} although all is denied");
    let nothing = judge(PolicyConfig {
        only_allowed: true,
        ..PolicyConfig::default()
    });
    assert_eq!(nothing, Some(false), "{host} although nothing is allowed");
}
