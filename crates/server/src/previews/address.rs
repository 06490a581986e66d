//! Host names of previews: `<slug>.preview.<domain>`, read exactly and made exactly.
//!
//! Every host under `preview.<domain>` belongs to previews, also one that no preview can have: a
//! name that is almost right must not lead to the API.

use crate::config::Config;
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use crownest_api::ErrorCode;

use crate::auth::random;
use crate::error::{ApiError, ApiResult};

const SLUG_PREFIX: &str = "p-";
/// 60 random bits: found by nobody who was not told.
const SLUG_RANDOM_CHARS: usize = 12;
const LABEL: &str = ".preview.";

/// A slug that no preview has.
pub(super) fn new_slug() -> std::io::Result<String> {
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let bytes: [u8; SLUG_RANDOM_CHARS] = random()?;
    let mut slug = String::from(SLUG_PREFIX);
    // 32 divides 256: every character is as likely as any other.
    slug.extend(
        bytes
            .iter()
            .map(|byte| char::from(ALPHABET[usize::from(byte & 31)])),
    );
    Ok(slug)
}

fn is_slug(label: &[u8]) -> bool {
    let suffix = label.strip_prefix(SLUG_PREFIX.as_bytes());
    suffix.is_some_and(|suffix| {
        suffix.len() == SLUG_RANDOM_CHARS
            && suffix
                .iter()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    })
}

/// What the host of a request names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// No preview: the API.
    Api,
    /// Something under the domain of previews that cannot be one.
    Nothing,
    /// A preview with that slug, if there is one.
    Slug(String),
}

/// Reads one host, with or without a port.
pub(super) fn named(host: &[u8], domain: &str) -> Named {
    let colon = host.iter().position(|b| *b == b':');
    let (name, port) = match colon {
        Some(at) => (&host[..at], Some(&host[at + 1..])),
        None => (host, None),
    };
    let name = name.strip_suffix(b".").unwrap_or(name);
    let label = without_suffix(name, domain.as_bytes())
        .and_then(|rest| without_suffix(rest, LABEL.as_bytes()));
    let Some(label) = label else {
        return Named::Api;
    };
    let port_ok = port.is_none_or(|port| port_of(port).is_some());
    match str::from_utf8(label).map(str::to_ascii_lowercase) {
        Ok(slug) if is_slug(slug.as_bytes()) && port_ok => Named::Slug(slug),
        _ => Named::Nothing,
    }
}

fn without_suffix<'a>(name: &'a [u8], suffix: &[u8]) -> Option<&'a [u8]> {
    let (rest, end) = name.split_at_checked(name.len().checked_sub(suffix.len())?)?;
    end.eq_ignore_ascii_case(suffix).then_some(rest)
}

/// Digits alone: the standard library would take a sign as well.
fn port_of(text: &[u8]) -> Option<u16> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(text).ok()?.parse().ok()
}

/// The host that a request was sent to, and what it names. Of several hosts that do not agree,
/// none can be believed.
pub(super) fn of_request(request: &Request, domain: &str) -> ApiResult<(Named, String)> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let absolute = request.uri().authority().map(|a| a.as_str().as_bytes());
    let first = hosts.next().map(header::HeaderValue::as_bytes);
    let Some(host) = absolute.or(first) else {
        return Ok((Named::Api, String::new()));
    };
    let name = named(host, domain);
    let others = first
        .into_iter()
        .chain(hosts.map(header::HeaderValue::as_bytes));
    for other in others {
        let same = other.eq_ignore_ascii_case(host);
        if !same && (name != Named::Api || named(other, domain) != Named::Api) {
            let message = "the request names several hosts";
            return Err(ApiError::new(ErrorCode::InvalidRequest, message));
        }
    }
    Ok((name, String::from_utf8_lossy(host).into_owned()))
}

/// Where previews are reached by the client that asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Site {
    pub(super) https: bool,
    port: Option<u16>,
    domain: String,
}

impl Site {
    /// From the configured origin, else from the host that the client used.
    pub(crate) fn of(config: &Config, headers: &HeaderMap) -> Self {
        let origin = config.public_origin.as_deref();
        let (https, authority) = match origin {
            Some(origin) => match origin.strip_prefix("https://") {
                Some(rest) => (true, rest),
                None => (false, origin.strip_prefix("http://").unwrap_or(origin)),
            },
            None => {
                let host = headers.get(header::HOST);
                let host = host.and_then(|host| host.to_str().ok());
                (false, host.unwrap_or_default())
            }
        };
        let authority = authority.split('/').next().unwrap_or_default();
        let port = authority
            .rsplit_once(':')
            .and_then(|(_, port)| port_of(port.as_bytes()));
        Self {
            https,
            port,
            domain: config.preview_domain.clone(),
        }
    }

    pub(super) fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }

    /// Where the preview with that slug is.
    pub(super) fn url(&self, slug: &str) -> String {
        let (scheme, domain) = (self.scheme(), &self.domain);
        match self.port {
            Some(port) => format!("{scheme}://{slug}{LABEL}{domain}:{port}"),
            None => format!("{scheme}://{slug}{LABEL}{domain}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Inventory, TemplateSource};
    use axum::body::Body;

    const SLUG: &str = "p-0123456789ab";

    #[test]
    fn new_slugs_are_slugs() {
        let slug = new_slug().unwrap();
        assert!(is_slug(slug.as_bytes()), "{slug}");
        assert_ne!(slug, new_slug().unwrap());
    }

    #[test]
    fn hosts_are_read_exactly() {
        let named = |host: &str| named(host.as_bytes(), "localhost");
        let slug = || Named::Slug(SLUG.to_owned());
        for host in [
            "p-0123456789ab.preview.localhost",
            "P-0123456789AB.Preview.LOCALHOST:80",
            "p-0123456789ab.preview.localhost.:65535",
        ] {
            assert_eq!(named(host), slug(), "{host}");
        }
        for host in [
            "localhost",
            "preview.localhost",
            "127.0.0.1:8787",
            "[::1]:80",
            "",
            "p-0123456789ab.preview.localhost.evil.example",
            "xpreview.localhost",
            "p-0123456789ab.preview.localhost..",
        ] {
            assert_eq!(named(host), Named::Api, "{host}");
        }
        for host in [
            "p-0123456789ab.preview.localhost:",
            "p-0123456789ab.preview.localhost:+80",
            "p-0123456789ab.preview.localhost:65536",
            "p-0123456789ab.preview.localhost:80:80",
            "a@p-0123456789ab.preview.localhost",
            "p-0123456789a.preview.localhost",
            "a.p-0123456789ab.preview.localhost",
            "p-0123456789a/.preview.localhost",
            ".preview.localhost",
        ] {
            assert_eq!(named(host), Named::Nothing, "{host}");
        }
    }

    #[test]
    fn hosts_that_disagree_are_refused_where_one_is_a_preview() {
        let ask = |uri: &str, hosts: &[&str]| {
            let mut request = Request::builder().uri(uri);
            for host in hosts {
                request = request.header(header::HOST, *host);
            }
            of_request(&request.body(Body::empty()).unwrap(), "localhost").map(|(named, _)| named)
        };
        let ours = "p-0123456789ab.preview.localhost";
        assert_eq!(ask("/", &[ours]).unwrap(), Named::Slug(SLUG.to_owned()));
        assert_eq!(ask("/", &["a", "b"]).unwrap(), Named::Api);
        assert_eq!(ask("/", &[]).unwrap(), Named::Api);
        assert!(ask("/", &["a", ours]).is_err());
        assert!(ask("/", &[ours, "a"]).is_err());
        let absolute = format!("http://{ours}/");
        assert_eq!(ask(&absolute, &[ours]).unwrap(), Named::Slug(SLUG.into()));
        assert!(ask(&absolute, &["localhost"]).is_err());
        assert!(ask("http://localhost/", &[ours]).is_err());
    }

    #[test]
    fn urls_have_the_port_that_the_client_used() {
        let mut config = Config::new("node_1".into(), TemplateSource::new(Inventory::default));
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "127.0.0.1:8787".parse().unwrap());
        let url = |config: &Config, headers: &HeaderMap| Site::of(config, headers).url(SLUG);
        assert_eq!(
            url(&config, &headers),
            format!("http://{SLUG}.preview.localhost:8787")
        );
        config.public_origin = Some("https://api.example.org/".to_owned());
        config.preview_domain = "example.org".to_owned();
        assert_eq!(
            url(&config, &headers),
            format!("https://{SLUG}.preview.example.org")
        );
        config.public_origin = Some("http://api.example.org:81".to_owned());
        assert_eq!(
            url(&config, &headers),
            format!("http://{SLUG}.preview.example.org:81")
        );
    }
}
