//! The proxy over real sockets: a client, the proxy, and a target on loopback that an explicit
//! exception allows.

use super::{Policy, PolicyConfig, Proxy, Upstream, serve};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(20);

struct Running {
    proxy: Proxy,
    address: SocketAddr,
    stop: CancellationToken,
}

fn start(config: PolicyConfig) -> Running {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let policy = Arc::new(Policy::new(config).unwrap());
    let proxy = serve(listener.into(), policy, "test".into(), stop.clone()).unwrap();
    Running {
        proxy,
        address,
        stop,
    }
}

fn loopback_allowed() -> PolicyConfig {
    PolicyConfig {
        allow: vec!["127.0.0.1".into()],
        ..PolicyConfig::default()
    }
}

/// A target that passes on what it was sent up to the end of the head (and `body` bytes more),
/// then answers.
async fn target(body: usize, answer: &'static str) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut got = Vec::new();
                loop {
                    let text = String::from_utf8_lossy(&got);
                    if text
                        .find("\r\n\r\n")
                        .is_some_and(|end| got.len() >= end + 4 + body)
                    {
                        break;
                    }
                    if stream.read_buf(&mut got).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let _ = sender.send(String::from_utf8(got).unwrap()).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    (address, receiver)
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close, X-Secret\r\nX-Secret: 1\r\nX-Kept: yes\r\n\r\nhello";

/// Sends bytes to a proxy and reads until the answer has `enough`, or the end.
async fn ask(proxy: &Running, request: &str, enough: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, enough).await;
    (stream, answer)
}

async fn read_until(stream: &mut TcpStream, enough: &str) -> String {
    let mut got = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&got).contains(enough) {
            if stream.read_buf(&mut got).await.unwrap_or(0) == 0 {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("an answer in time");
    String::from_utf8(got).unwrap()
}

#[tokio::test]
async fn a_plain_request_is_forwarded_without_the_headers_of_the_hop() {
    let (target, mut seen) = target(0, OK).await;
    let proxy = start(loopback_allowed());
    let request = format!(
        "GET http://{target}/a%20b?c=d HTTP/1.1\r\nHost: other.example\r\nAccept: */*\r\n\
         Proxy-Authorization: Basic c2VjcmV0\r\nProxy-Connection: keep-alive\r\n\
         Connection: X-Hop\r\nX-Hop: 1\r\n\r\n"
    );
    let (_, answer) = ask(&proxy, &request, "hello").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let answer = answer.to_lowercase();
    assert!(
        answer.contains("x-kept: yes") && !answer.contains("x-secret"),
        "{answer}"
    );
    let seen = seen.recv().await.unwrap();
    assert!(seen.starts_with("GET /a%20b?c=d HTTP/1.1\r\n"), "{seen}");
    let seen = seen.to_lowercase();
    assert!(seen.contains(&format!("host: {target}\r\n")), "{seen}");
    for gone in ["proxy-", "x-hop", "other.example", "c2vjcmv0"] {
        assert!(!seen.contains(gone), "{gone} in {seen}");
    }
    let counts = proxy.proxy.counts();
    assert_eq!(
        (counts.connections, counts.refused, counts.failed),
        (1, 0, 0)
    );
    assert_eq!(counts.bytes_up, seen.len() as u64);
    assert_eq!(counts.bytes_down, OK.len() as u64);
}

#[tokio::test]
async fn a_body_is_passed_on() {
    let (target, mut seen) = target(11, OK).await;
    let proxy = start(loopback_allowed());
    let request = format!(
        "POST http://{target}/ HTTP/1.1\r\nHost: {target}\r\nContent-Length: 11\r\n\r\nhello world"
    );
    let (_, answer) = ask(&proxy, &request, "hello").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(seen.recv().await.unwrap().ends_with("\r\n\r\nhello world"));
}

/// Sends back what it gets.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

async fn assert_tunnel(proxy: &Running, target: SocketAddr) -> TcpStream {
    let connect = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    let (mut stream, answer) = ask(proxy, &connect, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let payload = vec![b'x'; 300_000];
    let (mut read, mut write) = stream.split();
    let mut back = vec![0; payload.len()];
    let (sent, got) = tokio::join!(write.write_all(&payload), read.read_exact(&mut back));
    sent.unwrap();
    got.unwrap();
    assert_eq!(back, payload);
    stream
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways_and_ends_with_the_sandbox() {
    let target = echo().await;
    let proxy = start(loopback_allowed());
    let mut stream = assert_tunnel(&proxy, target).await;
    let counts = proxy.proxy.counts();
    assert_eq!(
        (counts.bytes_up, counts.bytes_down, counts.connections),
        (300_000, 300_000, 1)
    );
    proxy.stop.cancel();
    let end = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 1]))
        .await
        .expect("an end");
    assert!(matches!(end, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_refusal_says_why_and_nothing_is_connected() {
    let (target, mut seen) = target(0, OK).await;
    let proxy = start(PolicyConfig::default());
    for request in [
        format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"),
        format!("GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\n\r\n"),
        format!(
            "CONNECT localhost:{} HTTP/1.1\r\nHost: x\r\n\r\n",
            target.port()
        ),
        format!(
            "CONNECT [::ffff:127.0.0.1]:{} HTTP/1.1\r\nHost: x\r\n\r\n",
            target.port()
        ),
    ] {
        let (_, answer) = ask(&proxy, &request, "}}\n").await;
        assert!(answer.starts_with("HTTP/1.1 403 host "), "{answer}");
        assert!(answer.contains("x-crownest-egress: denied\r\n"), "{answer}");
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let message = body["error"]["message"].as_str().unwrap();
        assert!(
            message.contains("a loopback address; an operator can allow it"),
            "{message}"
        );
    }
    assert_eq!(proxy.proxy.counts().refused, 4);
    assert!(seen.try_recv().is_err());
    // The same request passes once the rules say so.
    proxy
        .proxy
        .set_policy(Arc::new(Policy::new(loopback_allowed()).unwrap()));
    let request = format!("GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\n\r\n");
    assert!(
        ask(&proxy, &request, "hello")
            .await
            .1
            .starts_with("HTTP/1.1 200 OK")
    );
}

#[tokio::test]
async fn what_fails_is_told_from_what_is_refused() {
    let proxy = start(loopback_allowed());
    // A label of 64 letters cannot be looked up, whatever resolver there is.
    let unknown = format!("{}.example", "x".repeat(64));
    // Bound and closed again: nobody listens there.
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    for (request, status) in [
        (
            format!("CONNECT {unknown}:443 HTTP/1.1\r\nHost: x\r\n\r\n"),
            "502",
        ),
        (
            format!("GET http://{closed}/ HTTP/1.1\r\nHost: x\r\n\r\n"),
            "502",
        ),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n".into(), "400"),
        (
            "GET https://example.org/ HTTP/1.1\r\nHost: x\r\n\r\n".into(),
            "400",
        ),
        (
            "CONNECT example.org HTTP/1.1\r\nHost: x\r\n\r\n".into(),
            "400",
        ),
        (
            "CONNECT example.org:25 HTTP/1.1\r\nHost: x\r\n\r\n".into(),
            "403",
        ),
    ] {
        let (_, answer) = ask(&proxy, &request, "}}\n").await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request}{answer}"
        );
    }
    let counts = proxy.proxy.counts();
    assert_eq!(
        (counts.refused, counts.failed, counts.connections),
        (1, 5, 0)
    );
}

#[tokio::test]
async fn everything_goes_through_the_upstream_proxy() {
    let (plain, mut seen) = target(0, OK).await;
    let tunnelled = echo().await;
    let upstream = start(loopback_allowed());
    let proxy = start(PolicyConfig {
        upstream: Some(Upstream {
            host: "127.0.0.1".into(),
            port: upstream.address.port(),
        }),
        ..loopback_allowed()
    });
    assert_tunnel(&proxy, tunnelled).await;
    let request = format!("GET http://{plain}/x HTTP/1.1\r\nHost: {plain}\r\n\r\n");
    assert!(
        ask(&proxy, &request, "hello")
            .await
            .1
            .starts_with("HTTP/1.1 200 OK")
    );
    assert!(
        seen.recv()
            .await
            .unwrap()
            .starts_with("GET /x HTTP/1.1\r\n")
    );
    assert_eq!(upstream.proxy.counts().connections, 2);
    // What this proxy refuses never gets to the other.
    let refused = start(PolicyConfig {
        upstream: Some(Upstream {
            host: "127.0.0.1".into(),
            port: upstream.address.port(),
        }),
        ..PolicyConfig::default()
    });
    let (_, answer) = ask(&refused, &request, "}}\n").await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert_eq!(upstream.proxy.counts().connections, 2);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let (target, _seen) = target(0, OK).await;
    let proxy = start(loopback_allowed());
    let mut idle = Vec::new();
    for _ in 0..super::proxy::CONNECTIONS_MAX {
        // An answer shows that the connection has its place.
        idle.push(
            ask(&proxy, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "}}\n")
                .await
                .0,
        );
    }
    let request = format!("GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\n\r\n");
    let mut late = Box::pin(ask(&proxy, &request, "hello"));
    let early = tokio::time::timeout(Duration::from_millis(200), late.as_mut()).await;
    assert!(early.is_err(), "no place for it yet");
    idle.pop();
    assert!(late.await.1.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn what_is_no_listening_socket_is_refused() {
    let (pipe, _other) = rustix::pipe::pipe().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    for fd in [pipe, stream.into()] {
        let policy = Arc::new(Policy::default());
        assert!(serve(fd, policy, "test".into(), CancellationToken::new()).is_err());
    }
}
