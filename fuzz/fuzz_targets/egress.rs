//! The egress proxy (server) reading what tenant code asks it for, and the operator's rules
//! against hosts and addresses of the tenant's choosing.

#![no_main]

use crownest_fuzz::{halves, records};
use crownest_server::fuzzing;
use libfuzzer_sys::fuzz_target;
use std::net::{IpAddr, SocketAddr};

fuzz_target!(|data: &[u8]| {
    let Some((how, rest)) = data.split_first() else {
        return;
    };
    let mut parts = records(rest);
    let first = parts.next().unwrap_or_default();
    if how % 3 < 2 {
        let headers: Vec<_> = parts.map(halves).collect();
        fuzzing::proxied(how % 3 == 0, first, &headers);
    } else {
        rules(*how, first, parts.next().unwrap_or_default(), parts);
    }
});

/// `first`: the host; `second`: address and port; then rules that deny (`!…`) or allow.
fn rules<'a>(how: u8, first: &[u8], second: &[u8], rules: impl Iterator<Item = &'a [u8]>) {
    let (Ok(host), Some(target)) = (std::str::from_utf8(first), target(second)) else {
        return;
    };
    let (mut allow, mut deny) = (Vec::new(), Vec::new());
    for rule in rules.filter_map(|rule| std::str::from_utf8(rule).ok()) {
        match rule.strip_prefix('!') {
            Some(rule) => deny.push(rule.to_owned()),
            None => allow.push(rule.to_owned()),
        }
    }
    fuzzing::policy(allow, deny, host, target, how >= 128);
}

/// Written out, or 4 or 16 bytes of address and two of port.
fn target(bytes: &[u8]) -> Option<SocketAddr> {
    if let Some(target) = std::str::from_utf8(bytes).ok().and_then(|t| t.parse().ok()) {
        return Some(target);
    }
    let (ip, port) = bytes.split_last_chunk::<2>()?;
    let ip: IpAddr = match ip.len() {
        4 => <[u8; 4]>::try_from(ip).ok()?.into(),
        16 => <[u8; 16]>::try_from(ip).ok()?.into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(*port)))
}
