//! A port of a sandbox under the API's own address: for programs that have a credential of the
//! API, beside the host names of previews, which are for browsers.
//!
//! What the sandbox answers comes from the origin of the API, so it is made worth nothing there:
//! it sets no cookie, says nothing about the origin, and a page of it that a browser shows all the
//! same has an origin of its own that nobody else has.

use super::Site;
use super::forward::{Target, Visitor};
use super::headers::{self, Incoming};
use super::session::Cookies;
use super::visit::outgoing;
use crate::app::App;
use crate::auth::Principal;
use crate::error::{ApiError, ApiResult};
use crate::sandboxes::LiveSandbox;
use axum::extract::{ConnectInfo, Request};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use axum::response::Response;
use crownest_api::ErrorCode;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Headers of an answer that would speak for the whole origin, or to the browser about it.
const OF_THE_ORIGIN: [&str; 14] = [
    "set-cookie",
    "clear-site-data",
    "strict-transport-security",
    "public-key-pins",
    "expect-ct",
    "alt-svc",
    "service-worker-allowed",
    "nel",
    "report-to",
    "reporting-endpoints",
    "origin-agent-cluster",
    "www-authenticate",
    "accept-ch",
    "set-login",
];
/// What a page may do: its scripts run, without the origin that it came from. A page says further
/// things for itself; of several policies all hold.
const PAGE_POLICY: &str =
    "sandbox allow-scripts allow-forms allow-popups allow-modals allow-downloads";

/// One request for a port.
#[derive(Debug)]
pub(crate) struct PortVisit {
    pub live: Arc<LiveSandbox>,
    pub port: u16,
    /// As the sandbox is to see it.
    pub target: PathAndQuery,
    /// Whose credential let the request in.
    pub who: Arc<Principal>,
}

impl PortVisit {
    /// Sends the request and passes the answer on. `kept_back` are headers that stay here beside
    /// those that always do.
    pub(crate) async fn carry_out(
        self,
        app: &App,
        mut request: Request,
        kept_back: &[&str],
    ) -> ApiResult<Response> {
        if request.method() == Method::CONNECT {
            let message = "the port of a sandbox is no proxy";
            return Err(ApiError::new(ErrorCode::MethodNotAllowed, message));
        }
        let place = format!("{}:{}", self.live.id, self.port);
        let visit = app.previews.enter(&place, &app.stopping).ok_or_else(|| {
            let message = "too many requests to this port at the same time";
            ApiError::new(ErrorCode::RateLimited, message).retry_after(1_000)
        })?;
        for name in kept_back {
            request.headers_mut().remove(*name);
        }
        let site = Site::of(&app.config, request.headers());
        let host = request.headers().get(header::HOST);
        let host = host.and_then(|host| host.to_str().ok());
        let host = host.unwrap_or("localhost").to_owned();
        let websocket = headers::wants_websocket(request.headers());
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
        let way = Incoming {
            host: &host,
            site: &site,
            peer: peer.map(|ConnectInfo(address)| address.ip()),
            behind_proxy: app.config.public_origin.is_some(),
            websocket,
        };
        let upgrade = websocket.then(|| hyper::upgrade::on(&mut request));
        let query = self.target.query().unwrap_or_default().to_owned();
        *request.uri_mut() = Uri::from(self.target);
        // Cookies are the origin's: none goes in, as none comes out.
        let request = outgoing(request, &query, Cookies::default(), &way)?;
        let target = Target {
            live: self.live,
            port: self.port,
            visit,
            who: Some(Visitor {
                app: app.clone(),
                who: self.who,
            }),
            answer_within: Duration::from_millis(app.config.preview_answer_ms_max),
        };
        let mut response = Box::pin(target.exchange(request, upgrade)).await?;
        disarm(response.headers_mut());
        Ok(response)
    }
}

/// Takes from an answer what it could do to the origin that it seems to come from.
fn disarm(headers: &mut HeaderMap) {
    for name in OF_THE_ORIGIN {
        headers.remove(name);
    }
    let cors: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("access-control-"))
        .cloned()
        .collect();
    for name in cors {
        headers.remove(name);
    }
    headers.append(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(PAGE_POLICY),
    );
    // Its address may have a token in it.
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_nothing_for_the_origin() {
        let mut headers = HeaderMap::new();
        for name in OF_THE_ORIGIN {
            headers.append(name, HeaderValue::from_static("x"));
        }
        headers.append("access-control-allow-origin", HeaderValue::from_static("*"));
        headers.append(
            "content-security-policy",
            HeaderValue::from_static("img-src *"),
        );
        headers.append("referrer-policy", HeaderValue::from_static("unsafe-url"));
        headers.append("content-type", HeaderValue::from_static("text/html"));
        disarm(&mut headers);
        let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left.len(), 3, "{left:?}");
        let policies: Vec<_> = headers.get_all("content-security-policy").iter().collect();
        assert_eq!(policies, ["img-src *", PAGE_POLICY]);
        assert!(!PAGE_POLICY.contains("allow-same-origin"));
        assert_eq!(headers["referrer-policy"], "no-referrer");
    }
}
