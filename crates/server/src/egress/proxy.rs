//! Serving the listening socket of one sandbox.

use super::forward::{forward, tunnel};
use super::metered::Meter;
use super::policy::Policy;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Connections of one sandbox to its proxy; more wait in the backlog of its socket.
pub(super) const CONNECTIONS_MAX: usize = 256;
/// Head of one request, and what is read ahead of it.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Headers of one request.
const HEADERS_MAX: usize = 128;
/// Longest time for the head of a request, and between two requests on one connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after the listening socket failed for want of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// The proxy of one sandbox; stops with the token it was started with.
#[derive(Debug, Clone)]
pub struct Proxy {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    policy: RwLock<Arc<Policy>>,
    pub(super) meter: Arc<Meter>,
    sandbox: String,
    pub(super) stop: CancellationToken,
}

/// A reading of a proxy's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes sent to the world and received from it, heads included.
    pub bytes_up: u64,
    pub bytes_down: u64,
    /// Connections made to the world.
    pub connections: u64,
    /// Requests refused by the rules.
    pub refused: u64,
    /// Requests that were allowed and failed.
    pub failed: u64,
}

impl Proxy {
    /// What has gone through.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let meter = &self.shared.meter;
        Counts {
            bytes_up: meter.bytes_up.load(Ordering::Relaxed),
            bytes_down: meter.bytes_down.load(Ordering::Relaxed),
            connections: meter.connections.load(Ordering::Relaxed),
            refused: meter.refused.load(Ordering::Relaxed),
            failed: meter.failed.load(Ordering::Relaxed),
        }
    }

    /// Replaces the rules; connections that are open stay.
    pub fn set_policy(&self, policy: Arc<Policy>) {
        *self
            .shared
            .policy
            .write()
            .unwrap_or_else(PoisonError::into_inner) = policy;
    }
}

impl Shared {
    pub(super) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Serves a listening socket until `stop`. `sandbox` is for logs.
///
/// # Errors
/// When the descriptor, which a sandbox's init sent, is no listening TCP socket.
pub fn serve(
    listener: OwnedFd,
    policy: Arc<Policy>,
    sandbox: String,
    stop: CancellationToken,
) -> io::Result<Proxy> {
    use rustix::net::{AddressFamily, SocketType, sockopt};
    let is_tcp = sockopt::socket_domain(&listener)? == AddressFamily::INET
        && sockopt::socket_type(&listener)? == SocketType::STREAM
        && sockopt::socket_acceptconn(&listener)?;
    if !is_tcp {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "not a listening TCP socket",
        ));
    }
    let listener = std::net::TcpListener::from(listener);
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let shared = Shared {
        policy: RwLock::new(policy),
        meter: Arc::default(),
        sandbox,
        stop,
    };
    let proxy = Proxy {
        shared: Arc::new(shared),
    };
    tokio::spawn(accept(listener, Arc::clone(&proxy.shared)));
    Ok(proxy)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let stop = shared.stop.clone();
    let serving = async {
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let shared = Arc::clone(&shared);
                    tokio::spawn(serve_connection(stream, shared, Arc::new(place)));
                }
                Err(e) if is_of_one_connection(&e) => {}
                Err(e) => {
                    tracing::debug!(sandbox = shared.sandbox, error = %e, "egress accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = serving => {}
    }
}

fn is_of_one_connection(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

/// `place` is held until the connection, or the tunnel that it becomes, is over.
async fn serve_connection(
    stream: TcpStream,
    shared: Arc<Shared>,
    place: Arc<OwnedSemaphorePermit>,
) {
    let _ = stream.set_nodelay(true);
    let stop = shared.stop.clone();
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        let place = Arc::clone(&place);
        async move { Ok::<_, Infallible>(answer(request, shared, place).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .preserve_header_case(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::select! {
        () = stop.cancelled() => {}
        // How a client ends its connection is its own affair.
        _ = connection => {}
    }
}

async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
    place: Arc<OwnedSemaphorePermit>,
) -> Response<Body> {
    let result = if request.method() == Method::CONNECT {
        tunnel(request, &shared, place).await
    } else {
        forward(request, &shared).await
    };
    result.unwrap_or_else(|refusal| {
        let counter = if refusal.is_denial() {
            &shared.meter.refused
        } else {
            &shared.meter.failed
        };
        counter.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(sandbox = shared.sandbox, reason = %refusal, "egress");
        refusal.response().map(boxed)
    })
}

pub(super) fn boxed(body: Full<Bytes>) -> Body {
    body.map_err(|never| match never {}).boxed_unsync()
}
