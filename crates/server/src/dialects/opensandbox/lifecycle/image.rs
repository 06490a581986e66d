//! Which template an image means. Pure: no registry is asked, nothing is pulled.

use crate::dialects::opensandbox::error::Refusal;
use axum::http::StatusCode;

/// Longest name of an image.
const URI_BYTES_MAX: usize = 1024;
/// Longest piece of it that is repeated in an answer.
const SHOWN_CHARS_MAX: usize = 200;
/// Images by name without registry, tag and digest, and the template that each means. The names of
/// Docker's library may have `library/` before them.
const MEANINGS: [(&str, &str); 6] = [
    ("opensandbox/code-interpreter", "code-interpreter"),
    ("python", "python"),
    ("node", "node"),
    ("ubuntu", "base"),
    ("debian", "base"),
    ("buildpack-deps", "base"),
];
/// Before the slug of a template: what a sandbox that was made elsewhere says it was made from.
const OWN: &str = "crownest/";
const LIBRARY: &str = "library/";

/// How a template is written as an image.
pub(super) fn of_template(slug: &str) -> String {
    format!("{OWN}{slug}")
}

/// The slug of the template that an image means.
pub(super) fn template(uri: &str) -> Result<String, Refusal> {
    let name = name(uri).ok_or_else(|| refuse(uri, "it is not the name of an image"))?;
    if let Some(slug) = name.strip_prefix(OWN) {
        return Ok(slug.to_owned());
    }
    let plain = name.strip_prefix(LIBRARY).unwrap_or(&name);
    let found = MEANINGS.iter().find(|(image, _)| *image == plain);
    found
        .map(|(_, slug)| (*slug).to_owned())
        .ok_or_else(|| refuse(uri, "images of registries are not run here"))
}

fn refuse(uri: &str, why: &str) -> Refusal {
    let shown: String = uri.chars().take(SHOWN_CHARS_MAX).collect();
    let known: Vec<&str> = MEANINGS.iter().map(|(image, _)| *image).collect();
    let known = known.join(", ");
    let message = format!(
        "image {shown:?}: {why}; there are {known} with any tag, and {OWN}<template> for a \
         template of this server"
    );
    Refusal::new(
        StatusCode::BAD_REQUEST,
        "SANDBOX::IMAGE_NOT_SUPPORTED",
        message,
    )
}

/// The name without registry, tag and digest.
fn name(uri: &str) -> Option<String> {
    let clean = |b: u8| b.is_ascii_alphanumeric() || b"-_./:@".contains(&b);
    if uri.is_empty() || uri.len() > URI_BYTES_MAX || !uri.bytes().all(clean) {
        return None;
    }
    let uri = uri.split_once('@').map_or(uri, |(name, _)| name);
    // A colon behind the last slash begins a tag, one before it a port.
    let start = uri.rfind('/').map_or(0, |slash| slash + 1);
    let uri = match uri[start..].find(':') {
        Some(colon) => &uri[..start + colon],
        None => uri,
    };
    // The first part is a registry if it could be a host.
    let path = match uri.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => path,
        _ => uri,
    };
    (!path.is_empty() && path.split('/').all(|part| !part.is_empty())).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_mean_templates_whatever_registry_and_tag() {
        for (uri, slug) in [
            ("opensandbox/code-interpreter", "code-interpreter"),
            ("opensandbox/code-interpreter:v1.0.1", "code-interpreter"),
            (
                "registry.example:5000/opensandbox/code-interpreter:latest",
                "code-interpreter",
            ),
            (
                "r.example/opensandbox/code-interpreter@sha256:abc",
                "code-interpreter",
            ),
            ("python:3.11-slim", "python"),
            ("docker.io/library/python:3.12", "python"),
            ("node:20", "node"),
            ("ubuntu", "base"),
            ("debian:bookworm", "base"),
            ("crownest/python-node", "python-node"),
        ] {
            assert_eq!(template(uri).unwrap(), slug, "{uri}");
        }
    }

    #[test]
    fn other_images_are_refused_with_what_there_is() {
        for uri in [
            "",
            "nginx",
            "me/python",
            "r.example/me/python:3",
            "python:3 11",
            "/",
            "a//b",
            "x.y/",
            "opensandbox/code-interpreter/more",
        ] {
            let refusal = template(uri).unwrap_err();
            assert_eq!(refusal.status, StatusCode::BAD_REQUEST, "{uri}");
            assert!(
                refusal.message.contains("opensandbox/code-interpreter"),
                "{uri}"
            );
        }
    }
}
