//! What a visitor reads who was not let in: the API's envelope, or a small page for a browser.

use crate::error::ApiError;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use crownest_api::ErrorCode;

/// Longest `Accept` that is looked at.
const ACCEPT_BYTES_MAX: usize = 1024;
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'";

/// Whether a page is wanted rather than JSON: whichever is named first.
pub(super) fn prefers_html(headers: &HeaderMap) -> bool {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    let accept = accept.filter(|accept| accept.len() <= ACCEPT_BYTES_MAX);
    let kinds = accept.into_iter().flat_map(|accept| accept.split(','));
    kinds
        .map(|kind| kind.split(';').next().unwrap_or_default().trim())
        .find_map(|kind| match kind.to_ascii_lowercase().as_str() {
            "text/html" | "application/xhtml+xml" => Some(true),
            "application/json" => Some(false),
            _ => None,
        })
        .unwrap_or(false)
}

/// The error as a page. It has nothing in it that a visitor or a sandbox has said.
pub(super) fn of(error: &ApiError, request_id: &str) -> Response {
    let (title, hint) = match error.code {
        ErrorCode::Unauthorized | ErrorCode::InvalidApiKey => (
            "This preview is not public",
            "Open it with the link that was made for it in token mode (the link works once), or \
             send an API key of its project with each request.",
        ),
        ErrorCode::Forbidden => (
            "This preview is not for you",
            "The request came with a credential that may not see it, or from another site.",
        ),
        ErrorCode::NotFound => (
            "No such preview",
            "It was revoked, its sandbox has ended, or it never was.",
        ),
        ErrorCode::PreviewUnavailable => (
            "Nothing useful answers here",
            "The preview is there, but the program in the sandbox does not answer on its port. \
             Start it, or look at what it prints, and load this page again.",
        ),
        ErrorCode::RateLimited => (
            "Too many visitors",
            "Wait a moment and load this page again.",
        ),
        _ => ("This preview cannot be shown", "Load this page again."),
    };
    let (status, code) = (error.code.status(), error.code.as_str());
    let message = escaped(&error.message);
    let html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:36em;margin:15vh auto;\
         padding:0 1em}}code{{color:#666}}</style>\n<h1>{title}</h1>\n<p>{hint}</p>\n\
         <p>{message}</p>\n<p><code>{status} {code} {request_id}</code></p>\n</html>\n"
    );
    let mut response = Response::new(Body::from(html));
    *response.status_mut() = error.status();
    let headers = response.headers_mut();
    let said = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in said {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_get_pages_and_programs_get_json() {
        let prefers = |accept: &'static str| {
            let accept = HeaderValue::from_static(accept);
            prefers_html(&HeaderMap::from_iter([(header::ACCEPT, accept)]))
        };
        assert!(prefers(
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
        ));
        assert!(!prefers("application/json, text/html"));
        assert!(!prefers("*/*"));
        assert!(!prefers_html(&HeaderMap::new()));
    }
}
