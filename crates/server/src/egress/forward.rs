//! The two things that the proxy does: tunnel a CONNECT, forward a plain request.

use super::metered::Metered;
use super::policy::is_host;
use super::proxy::{Body, Shared, boxed};
use super::refusal::Refusal;
use super::resolve::{Reached, Target, reach};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

/// Longest silence of a connection to the world.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// Longest wait for the operator's proxy to open a tunnel.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes read ahead in each direction of a tunnel.
const TUNNEL_BUFFER_BYTES: usize = 16 * 1024;
/// Head of an answer.
const ANSWER_HEAD_BYTES_MAX: usize = 128 * 1024;
/// Headers of an answer.
const ANSWER_HEADERS_MAX: usize = 256;

/// Headers that concern one connection and not the message (RFC 9110, section 7.6.1), and those
/// that concern this proxy.
pub(super) const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
];

/// Opens a tunnel; bytes flow after the answer.
pub(super) async fn tunnel(
    request: Request<Incoming>,
    shared: &Arc<Shared>,
    place: Arc<OwnedSemaphorePermit>,
) -> Result<Response<Body>, Refusal> {
    let target = target_of(request.uri(), None)?;
    let policy = shared.policy();
    match reach(&policy, &target).await? {
        Reached::Direct(stream) => {
            let world = meter(stream, shared);
            let activity = world.activity();
            spawn_tunnel(request, world, activity.silent(IDLE_TIMEOUT), shared, place);
        }
        Reached::Upstream(stream) => {
            let world = meter(stream, shared);
            let activity = world.activity();
            let idle = activity.silent(IDLE_TIMEOUT);
            let world = connect_through(world, &target).await?;
            spawn_tunnel(request, TokioIo::new(world), idle, shared, place);
        }
    }
    Ok(Response::new(boxed(Full::default())))
}

fn meter(stream: TcpStream, shared: &Shared) -> Metered {
    shared.meter.connections.fetch_add(1, Ordering::Relaxed);
    Metered::new(stream, Arc::clone(&shared.meter))
}

fn spawn_tunnel(
    request: Request<Incoming>,
    mut world: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    idle: impl Future<Output = ()> + Send + 'static,
    shared: &Arc<Shared>,
    place: Arc<OwnedSemaphorePermit>,
) {
    let stop = shared.stop.clone();
    tokio::spawn(async move {
        let _place = place;
        let upgrade: OnUpgrade = hyper::upgrade::on(request);
        let flow = async {
            let Ok(inside) = upgrade.await else { return };
            let mut inside = TokioIo::new(inside);
            let size = TUNNEL_BUFFER_BYTES;
            // Either side may end it in any way; there is nobody to tell.
            let _ = copy_bidirectional_with_sizes(&mut inside, &mut world, size, size).await;
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = idle => {}
            () = flow => {}
        }
    });
}

/// Asks the operator's proxy for a tunnel.
async fn connect_through(
    world: Metered,
    target: &Target,
) -> Result<hyper::upgrade::Upgraded, Refusal> {
    let failed = |reason: String| Refusal::Connect {
        host: target.host.clone(),
        port: target.port,
        reason: format!("the upstream proxy: {reason}"),
    };
    let (mut sender, connection) = http1::Builder::new()
        .handshake::<_, Empty<Bytes>>(TokioIo::new(world))
        .await
        .map_err(|e| failed(e.to_string()))?;
    tokio::spawn(connection.with_upgrades());
    let authority = authority(target);
    let request = Request::connect(&authority)
        .header(HOST, &authority)
        .body(Empty::new())
        .map_err(|e| failed(e.to_string()))?;
    let response = timeout(UPSTREAM_TIMEOUT, sender.send_request(request))
        .await
        .map_err(|_| failed("no answer".into()))?
        .map_err(|e| failed(e.to_string()))?;
    if response.status() != StatusCode::OK {
        return Err(failed(format!("status {}", response.status())));
    }
    hyper::upgrade::on(response)
        .await
        .map_err(|e| failed(e.to_string()))
}

/// Forwards one request in absolute form and passes the answer on.
pub(super) async fn forward(
    request: Request<Incoming>,
    shared: &Arc<Shared>,
) -> Result<Response<Body>, Refusal> {
    if request.uri().scheme_str() != Some("http") {
        return Err(Refusal::Malformed(
            "this is an HTTP proxy: send CONNECT, or a request for an absolute http:// address",
        ));
    }
    let target = target_of(request.uri(), Some(80))?;
    let policy = shared.policy();
    let (stream, absolute) = match reach(&policy, &target).await? {
        Reached::Direct(stream) => (stream, false),
        Reached::Upstream(stream) => (stream, true),
    };
    let request = outgoing(request, &target, absolute)?;
    let sender = open(meter(stream, shared), &target, shared).await?;
    exchange(sender, request, &target).await
}

/// A client connection to the world, with its driver running until it is silent or stopped.
async fn open(
    world: Metered,
    target: &Target,
    shared: &Shared,
) -> Result<SendRequest<Incoming>, Refusal> {
    let idle = world.activity().silent(IDLE_TIMEOUT);
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(ANSWER_HEAD_BYTES_MAX)
        .max_headers(ANSWER_HEADERS_MAX)
        .preserve_header_case(true)
        .handshake(TokioIo::new(world))
        .await
        .map_err(|e| Refusal::Forward {
            host: target.host.clone(),
            reason: e.to_string(),
        })?;
    let stop = shared.stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = idle => {}
            _ = connection => {}
        }
    });
    Ok(sender)
}

async fn exchange(
    mut sender: SendRequest<Incoming>,
    request: Request<Incoming>,
    target: &Target,
) -> Result<Response<Body>, Refusal> {
    let mut response = sender.send_request(request).await.map_err(|e| {
        let host = target.host.clone();
        // The driver of the connection drops it only when it was silent for too long.
        if e.is_canceled() {
            Refusal::Idle { host }
        } else {
            Refusal::Forward {
                host,
                reason: e.to_string(),
            }
        }
    })?;
    strip_hop_by_hop(response.headers_mut());
    Ok(response.map(|body| body.boxed_unsync()))
}

/// The request as the target (or the operator's proxy) gets it.
pub(super) fn outgoing<B>(
    mut request: Request<B>,
    target: &Target,
    absolute: bool,
) -> Result<Request<B>, Refusal> {
    strip_hop_by_hop(request.headers_mut());
    if !absolute {
        let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
        let path = if path.is_empty() { "/" } else { path };
        *request.uri_mut() = path
            .parse::<Uri>()
            .map_err(|_| Refusal::Malformed("the path is malformed"))?;
    }
    // The address in the request line counts, whatever the client says in its header.
    let host = if target.port == 80 {
        bracketed(&target.host)
    } else {
        authority(target)
    };
    let host = HeaderValue::from_str(&host).map_err(|_| Refusal::Malformed("the host"))?;
    request.headers_mut().insert(HOST, host);
    request
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(request)
}

/// Removes what concerns one connection alone.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Host and port of a request's address.
pub(super) fn target_of(uri: &Uri, default_port: Option<u16>) -> Result<Target, Refusal> {
    let authority = uri
        .authority()
        .ok_or(Refusal::Malformed("the address has no host"))?;
    if authority.as_str().contains('@') {
        return Err(Refusal::Malformed(
            "user names in addresses are not passed on",
        ));
    }
    let host = authority.host();
    // Read here and not by the library, which takes a port out of range for none.
    let port = match (authority.as_str().strip_prefix(host), default_port) {
        (Some(""), Some(port)) => Some(port),
        (Some(rest), _) => rest.strip_prefix(':').and_then(port_of),
        (None, _) => None,
    };
    let port = port.ok_or(Refusal::Malformed("the address has no valid port"))?;
    let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => v6
            .parse::<Ipv6Addr>()
            .map_err(|_| Refusal::Malformed("the IPv6 address is malformed"))?
            .to_string(),
        None => host.trim_end_matches('.').to_ascii_lowercase(),
    };
    if !host.contains(':') && !is_host(&host) {
        return Err(Refusal::Malformed("the host name is malformed"));
    }
    Ok(Target { host, port })
}

/// Digits alone: the standard library would take a sign as well.
fn port_of(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

pub(super) fn authority(target: &Target) -> String {
    format!("{}:{}", bracketed(&target.host), target.port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(uri: &str, default_port: Option<u16>) -> Option<(String, u16)> {
        target_of(&uri.parse().ok()?, default_port)
            .ok()
            .map(|t| (t.host, t.port))
    }

    #[test]
    fn addresses_are_read_and_bad_ones_refused() {
        let got = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(target("Example.ORG.:443", None), got("example.org", 443));
        assert_eq!(target("example.org:0", None), got("example.org", 0));
        assert_eq!(
            target("[::FFFF:1.2.3.4]:80", None),
            got("::ffff:1.2.3.4", 80)
        );
        assert_eq!(
            target("http://example.org/x", Some(80)),
            got("example.org", 80)
        );
        assert_eq!(target("example.org", None), None);
        assert_eq!(target("http://example.org:99999/", Some(80)), None);
        assert_eq!(target("http://example.org:/", Some(80)), None);
        assert_eq!(target("http://example.org:+80/", Some(80)), None);
        assert_eq!(target("http://user@example.org/", Some(80)), None);
        assert_eq!(target("http://ex%41mple.org/", Some(80)), None);
        assert_eq!(target("http://[::1%25eth0]/", Some(80)), None);
    }

    #[test]
    fn headers_of_one_hop_go() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("proxy-authorization", "Basic eDp5"),
            ("te", "trailers"),
            ("accept", "*/*"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut headers);
        assert_eq!(
            headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(),
            ["accept"]
        );
    }
}
