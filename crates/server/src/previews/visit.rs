//! One visit: from a host name to an answer, through everything that must be true before.

use super::address::{self, Named, Site};
use super::forward::{Target, Visitor};
use super::headers::{self, Incoming};
use super::session::{self, Cookies};
use super::{deed, page};
use crate::app::App;
use crate::auth::{self, Principal};
use crate::error::{ApiError, ApiResult};
use crate::request::{self, RequestContext};
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use crownest_api::preview::PreviewAuthMode;
use crownest_api::{ErrorCode, Scope};
use crownest_store::{Preview, SecretHash};
use futures_util::FutureExt;
use hyper::body::Body as _;
use serde_json::json;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What the access log and the metrics call every visit.
const ROUTE: &str = "preview";

/// Who a visitor was found to be.
enum Access {
    /// Has a key of the preview's project.
    Key(Arc<Principal>),
    /// Has a session cookie.
    Session,
    /// Has just used the token up: gets this cookie and goes to the clean URL.
    Opened(HeaderValue),
}

/// Sends a request to the preview that its host names, and every other one to the API.
pub(crate) async fn by_host(State(app): State<App>, request: Request, next: Next) -> Response {
    match address::of_request(&request, &app.config.preview_domain) {
        Ok((Named::Api, _)) => next.run(request).await,
        // Boxed: most requests are for the API, and carry this future's size for nothing.
        named => Box::pin(answer(app, named, request)).await,
    }
}

/// The outermost layer of every visit, as [`request::layer`] is of every route.
async fn answer(app: App, named: ApiResult<(Named, String)>, request: Request) -> Response {
    let started = Instant::now();
    let method = request::method_name(request.method());
    // The host that was asked is not the API's.
    let origin = app.config.public_origin.as_deref();
    let origin = origin.map(|origin| origin.trim_end_matches('/').to_owned());
    let context = RequestContext::new(request::request_id(request.headers()), ROUTE, origin);
    let html = page::prefers_html(request.headers());
    let outcome = AssertUnwindSafe(visit(&app, &context, named, request)).catch_unwind();
    let outcome = outcome.await.unwrap_or_else(|panic| {
        app.metrics.panics.inc();
        let text = request::panic_text(&*panic);
        Err(ApiError::internal(format_args!("panic: {text}")))
    });
    let response = outcome.unwrap_or_else(|error| {
        request::note_failure(&app, &error, &context);
        let mut response = request::envelope(&error, &context.id, context.origin.as_deref());
        if html {
            let (head, body) = page::of(&error, &context.id).into_parts();
            response.headers_mut().extend(head.headers);
            *response.body_mut() = body;
        }
        if let Ok(id) = HeaderValue::from_str(&context.id) {
            response.headers_mut().insert(request::REQUEST_ID, id);
        }
        response
    });
    request::record(&app, method, context, &response, started);
    response
}

async fn visit(
    app: &App,
    context: &RequestContext,
    named: ApiResult<(Named, String)>,
    mut request: Request,
) -> ApiResult<Response> {
    let (named, host) = named?;
    if request.method() == Method::CONNECT {
        let message = "a preview is no proxy";
        return Err(ApiError::new(ErrorCode::MethodNotAllowed, message));
    }
    let unknown = || ApiError::not_found("preview");
    let Named::Slug(slug) = named else {
        return Err(unknown());
    };
    let inside = app.previews.enter(&slug, &app.stopping);
    let inside = inside.ok_or_else(|| {
        ApiError::new(ErrorCode::RateLimited, "too many visits of this preview").retry_after(1_000)
    })?;
    let preview = app.store.active_preview_by_slug(&slug).await?;

    let site = Site::of(&app.config, request.headers());
    let (token, query) = session::take_token(request.uri().query().unwrap_or_default());
    let cookies = Cookies::of(request.headers());
    let asked = Asked {
        app,
        context,
        method: request.method(),
        headers: request.headers(),
        https: site.https,
    };
    let access = asked.admit(preview.as_ref(), &cookies, token.as_deref());
    let access = access.await?;
    // Without a preview nobody is admitted, except to be told that there is none.
    let preview = preview.ok_or_else(unknown)?;
    if let Access::Session | Access::Opened(_) = access
        && let (Some(_), &Method::GET) = (&token, request.method())
    {
        return Ok(clean_url(&site, &host, request.uri(), &query, access));
    }
    if matches!(access, Access::Session) {
        check_origin(request.headers(), &host)?;
    }

    let live = app.sandboxes.get(&preview.sandbox_id).ok_or_else(|| {
        let message = "the sandbox of this preview is not reachable from this server";
        ApiError::new(ErrorCode::Unavailable, message).retry_after(1_000)
    })?;
    if live.ending.load(Ordering::Relaxed) {
        return Err(unknown());
    }
    live.check_not_paused()?;
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
    let request = outgoing(request, &query, cookies, &way)?;
    let target = Target {
        live,
        port: u16::try_from(preview.port).map_err(ApiError::internal)?,
        visit: inside,
        who: match access {
            Access::Key(who) => Some(Visitor {
                app: app.clone(),
                who,
            }),
            Access::Session | Access::Opened(_) => None,
        },
        answer_within: Duration::from_millis(app.config.preview_answer_ms_max),
    };
    Box::pin(target.exchange(request, upgrade)).await
}

/// The request as the sandbox gets it.
pub(super) fn outgoing(
    request: Request,
    query: &str,
    cookies: Cookies,
    way: &Incoming<'_>,
) -> ApiResult<Request<Body>> {
    let (mut head, body) = request.into_parts();
    let path = match head.uri.path() {
        "" => "/",
        path => path,
    };
    let target = if query.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{query}")
    };
    let malformed = |_| ApiError::new(ErrorCode::InvalidRequest, "the path is malformed");
    head.uri = target.parse::<Uri>().map_err(malformed)?;
    headers::into_sandbox(&mut head.headers, cookies, way);
    if !body.is_end_stream() && !head.headers.contains_key(header::CONTENT_LENGTH) {
        // Said here, because a client takes some methods to have no body.
        let chunked = HeaderValue::from_static("chunked");
        head.headers.insert(header::TRANSFER_ENCODING, chunked);
    }
    Ok(Request::from_parts(head, body))
}

/// A visitor at the door.
struct Asked<'a> {
    app: &'a App,
    context: &'a RequestContext,
    method: &'a Method,
    headers: &'a HeaderMap,
    https: bool,
}

impl Asked<'_> {
    /// Lets a visitor in, or says why not. Whether there is such a preview is told only to who
    /// has a valid key.
    async fn admit(
        &self,
        preview: Option<&Preview>,
        cookies: &Cookies,
        token: Option<&str>,
    ) -> ApiResult<Access> {
        let by_token = preview.filter(|row| row.auth_mode == PreviewAuthMode::Token.as_str());
        if by_token.is_some_and(|row| cookies.open(row)) {
            return Ok(Access::Session);
        }
        let has_key = self.headers.contains_key(header::AUTHORIZATION)
            || self.headers.contains_key("x-api-key");
        match token {
            // Programs that look at links before people do send HEAD: that uses nothing up.
            Some(token) if !has_key && *self.method == Method::GET => {
                self.open(by_token, token).await
            }
            _ => self.admit_key(preview).await,
        }
    }

    async fn admit_key(&self, preview: Option<&Preview>) -> ApiResult<Access> {
        let (app, context) = (self.app, self.context);
        let token = auth::token(self.headers)?;
        let who = app.authenticate(token).await?;
        context.set_key(&who.key_id);
        if let Err(refusal) = who.require(Scope::PreviewRead) {
            app.audit.refusal(&who, context, Scope::PreviewRead);
            return Err(refusal);
        }
        let visible = |row: &&Preview| row.org_id == who.org_id && who.may_touch(&row.project_id);
        match preview.filter(visible) {
            Some(_) => Ok(Access::Key(who)),
            None => Err(ApiError::not_found("preview")),
        }
    }

    /// Trades the token for a session.
    async fn open(&self, preview: Option<&Preview>, token: &str) -> ApiResult<Access> {
        let refused = || {
            let message = "the link is wrong or was used before";
            ApiError::new(ErrorCode::Unauthorized, message)
        };
        let preview = preview.ok_or_else(refused)?;
        let hash = SecretHash::of(token);
        // Guesses must not wait for the database's writer, nor make others wait for it.
        if preview.token_hash.as_ref() != Some(&hash) {
            return Err(refused());
        }
        let taken = self.app.store.take_preview_token(&preview.id, &hash);
        if !taken.await? {
            return Err(refused());
        }
        let details = json!({ "by": "token", "requestId": &*self.context.id });
        let deed = deed("preview.open", preview, "ok");
        self.app.audit.by_system(&preview.org_id, deed, &details);
        session::cookie(preview, self.https)
            .map(Access::Opened)
            .ok_or_else(|| ApiError::internal("a session that is no header"))
    }
}

/// Sends a browser to the same page without the token, absolutely: a path may begin with `//`,
/// which alone would be another host.
fn clean_url(site: &Site, host: &str, uri: &Uri, query: &str, access: Access) -> Response {
    let mark = if query.is_empty() { "" } else { "?" };
    let path = uri.path();
    let clean = format!("{}://{host}{path}{mark}{query}", site.scheme());
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::from_str(&clean) {
        headers.insert(header::LOCATION, location);
    }
    if let Access::Opened(cookie) = access {
        headers.insert(header::SET_COOKIE, cookie);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    response
}

/// A browser sends a session's cookie also for pages of other previews, which are the same site:
/// they may link to this one and nothing else.
fn check_origin(headers: &HeaderMap, host: &str) -> ApiResult<()> {
    let said = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
    let own_origin = headers.get_all(header::ORIGIN).iter().all(|origin| {
        let origin = origin.as_bytes();
        let authority = origin
            .strip_prefix(b"https://")
            .or_else(|| origin.strip_prefix(b"http://"));
        authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host.as_bytes()))
    });
    let elsewhere = matches!(said("sec-fetch-site"), Some(b"same-site" | b"cross-site"));
    let navigation = said("sec-fetch-mode") == Some(b"navigate");
    if own_origin && (!elsewhere || navigation) {
        return Ok(());
    }
    let message = "a page of another site asked with this browser's session";
    Err(ApiError::new(ErrorCode::Forbidden, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_other_sites_have_no_use_of_a_session() {
        let host = "p-0123456789ab.preview.localhost:80";
        let check = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, value.parse().unwrap());
            }
            check_origin(&headers, host).is_ok()
        };
        let own = format!("http://{host}");
        assert!(check(&[]));
        assert!(check(&[("origin", &own)]));
        assert!(check(&[("sec-fetch-site", "same-origin")]));
        assert!(check(&[
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate")
        ]));
        assert!(!check(&[("origin", "null")]));
        assert!(!check(&[(
            "origin",
            "http://p-0123456789ac.preview.localhost:80"
        )]));
        assert!(!check(&[
            ("sec-fetch-site", "same-site"),
            ("sec-fetch-mode", "no-cors")
        ]));
    }

    #[test]
    fn a_clean_url_never_leaves_the_host() {
        let site = Site::of(
            &crate::Config::new(
                "node_1".into(),
                crate::TemplateSource::new(crate::Inventory::default),
            ),
            &HeaderMap::new(),
        );
        let uri = "//evil.example/x?y".parse().unwrap();
        let response = clean_url(&site, "p-0.preview.localhost:1", &uri, "y", Access::Session);
        assert_eq!(
            response.headers()[header::LOCATION],
            "http://p-0.preview.localhost:1//evil.example/x?y"
        );
    }
}
