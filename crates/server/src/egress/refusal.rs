//! Why a request through the proxy does not get through, for the people who read it.

use bytes::Bytes;
use http_body_util::Full;
use hyper::ext::ReasonPhrase;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use std::net::IpAddr;

/// Says that the answer is the proxy's and not the target's.
const EGRESS_HEADER: HeaderName = HeaderName::from_static("x-crownest-egress");
/// Longest reason phrase.
const REASON_BYTES_MAX: usize = 400;

/// A request that is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("port {port} may not be connected to (no port of mail)")]
    Port { port: u16 },
    #[error("host {host} is denied by the operator (egress_deny)")]
    DeniedHost { host: String },
    #[error(
        "host {host} is not on the list of allowed hosts; an operator can add it to egress_allow"
    )]
    NotAllowed { host: String },
    #[error("host {host} is not allowed by the network policy of this sandbox")]
    NotAllowedHere { host: String },
    #[error(
        "host {host} resolved to {ip}, {what}; an operator can allow it with \
         egress_allow = [\"{host}\"]"
    )]
    Address {
        host: String,
        ip: IpAddr,
        what: String,
    },
    #[error("{0}")]
    Malformed(&'static str),
    #[error("host {host} could not be resolved: {reason}")]
    Lookup { host: String, reason: String },
    #[error("host {host} could not be resolved in time")]
    LookupTimeout { host: String },
    #[error("connecting to {host} port {port} failed: {reason}")]
    Connect {
        host: String,
        port: u16,
        reason: String,
    },
    #[error("connecting to {host} port {port} took too long")]
    ConnectTimeout { host: String, port: u16 },
    #[error("{host} did not answer as HTTP: {reason}")]
    Forward { host: String, reason: String },
    #[error("{host} sent nothing for too long")]
    Idle { host: String },
}

impl Refusal {
    /// Refused by the rules, as opposed to not possible.
    pub(super) fn is_denial(&self) -> bool {
        matches!(
            self,
            Self::Port { .. }
                | Self::DeniedHost { .. }
                | Self::NotAllowed { .. }
                | Self::NotAllowedHere { .. }
                | Self::Address { .. }
        )
    }

    fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Port { .. } => (StatusCode::FORBIDDEN, "egress_port_denied"),
            Self::DeniedHost { .. } | Self::NotAllowed { .. } | Self::NotAllowedHere { .. } => {
                (StatusCode::FORBIDDEN, "egress_host_denied")
            }
            Self::Address { .. } => (StatusCode::FORBIDDEN, "egress_address_denied"),
            Self::Malformed(_) => (StatusCode::BAD_REQUEST, "malformed_request"),
            Self::Lookup { .. } => (StatusCode::BAD_GATEWAY, "host_not_found"),
            Self::LookupTimeout { .. } => (StatusCode::GATEWAY_TIMEOUT, "lookup_timeout"),
            Self::Connect { .. } => (StatusCode::BAD_GATEWAY, "connect_failed"),
            Self::ConnectTimeout { .. } => (StatusCode::GATEWAY_TIMEOUT, "connect_timeout"),
            Self::Forward { .. } => (StatusCode::BAD_GATEWAY, "bad_answer"),
            Self::Idle { .. } => (StatusCode::GATEWAY_TIMEOUT, "idle_timeout"),
        }
    }

    /// The answer to the program in the sandbox. The reason also stands in the status line,
    /// because that is all that many programs show of a failed CONNECT.
    pub(super) fn response(&self) -> Response<Full<Bytes>> {
        let (status, code) = self.status_and_code();
        let message = self.to_string();
        let body = serde_json::json!({ "error": { "code": code, "message": message } });
        let mut response = Response::new(Full::from(format!("{body}\n")));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let kind = if self.is_denial() { "denied" } else { "failed" };
        headers.insert(EGRESS_HEADER, HeaderValue::from_static(kind));
        let reason: String = message
            .chars()
            .map(|c| {
                if c.is_ascii_graphic() || c == ' ' {
                    c
                } else {
                    '?'
                }
            })
            .take(REASON_BYTES_MAX)
            .collect();
        if let Ok(reason) = ReasonPhrase::try_from(reason.into_bytes()) {
            response.extensions_mut().insert(reason);
        }
        response
    }
}
