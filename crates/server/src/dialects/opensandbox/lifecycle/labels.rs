//! Metadata in this dialect: the labels of Kubernetes, and the merge patch that changes them. Pure.

use crate::dialects::opensandbox::error::{Failure, Refusal};
use axum::http::StatusCode;
use crownest_api::metadata::{self, Metadata};
use std::collections::BTreeMap;

/// A name, and a value.
const NAME_CHARS_MAX: usize = 63;
/// The part of a key before its slash.
const PREFIX_CHARS_MAX: usize = 253;
/// Keys of this prefix belong to the service.
const RESERVED_PREFIX: &str = "opensandbox.io/";
/// Longest piece of a key that is repeated in an answer.
const SHOWN_CHARS_MAX: usize = 64;

/// A change of metadata: none deletes.
pub(super) type Patch = BTreeMap<String, Option<String>>;

/// Checks the labels of a new sandbox.
pub(super) fn check(labels: &Metadata) -> Result<(), Failure> {
    for (key, value) in labels {
        check_key(key)?;
        check_value(key, value)?;
    }
    within_limits(labels)
}

/// The labels after a patch. What was there before it is kept as it is, whoever wrote it.
pub(super) fn patched(mut labels: Metadata, patch: Patch) -> Result<Metadata, Failure> {
    for (key, value) in patch {
        check_key(&key)?;
        match value {
            Some(value) => {
                check_value(&key, &value)?;
                labels.insert(key, value);
            }
            None => {
                labels.remove(&key);
            }
        }
    }
    within_limits(&labels)?;
    Ok(labels)
}

fn within_limits(labels: &Metadata) -> Result<(), Failure> {
    metadata::check(labels).map_err(|error| refusal(error.to_string()).into())
}

fn check_key(key: &str) -> Result<(), Refusal> {
    let shown: String = key.chars().take(SHOWN_CHARS_MAX).collect();
    if key.starts_with(RESERVED_PREFIX) {
        let message = format!("metadata key {shown:?}: keys of {RESERVED_PREFIX} are reserved");
        return Err(refusal(message));
    }
    let good = match key.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_name(name),
        None => is_name(key),
    };
    if good {
        return Ok(());
    }
    let max = NAME_CHARS_MAX;
    Err(refusal(format!(
        "metadata key {shown:?}: a key has 1 to {max} letters, digits, '-', '_' and '.', begins \
         and ends with a letter or digit, and may have a DNS name and '/' before it"
    )))
}

fn check_value(key: &str, value: &str) -> Result<(), Refusal> {
    if value.is_empty() || is_name(value) {
        return Ok(());
    }
    let max = NAME_CHARS_MAX;
    Err(refusal(format!(
        "the value of metadata key {key:?}: a value is empty or has 1 to {max} letters, digits, \
         '-', '_' and '.', and begins and ends with a letter or digit"
    )))
}

fn is_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let ends = text.as_bytes().first().zip(text.as_bytes().last());
    text.len() <= NAME_CHARS_MAX
        && text.bytes().all(inner)
        && ends.is_some_and(|(a, z)| a.is_ascii_alphanumeric() && z.is_ascii_alphanumeric())
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= PREFIX_CHARS_MAX
        && text.split('.').all(|label| {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            is_name(label) && label.bytes().all(plain)
        })
}

fn refusal(message: String) -> Refusal {
    Refusal::new(
        StatusCode::BAD_REQUEST,
        "SANDBOX::INVALID_METADATA_LABEL",
        message,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> Metadata {
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn labels_are_those_of_kubernetes() {
        for (key, value) in [
            ("a", ""),
            ("team", "a.b-c_D"),
            ("example.com/name", "x"),
            ("A1", "1"),
        ] {
            assert!(check(&map(&[(key, value)])).is_ok(), "{key}={value}");
        }
        let long = "x".repeat(64);
        for (key, value) in [
            ("", "a"),
            ("-a", "a"),
            ("a b", "a"),
            ("a/b/c", "a"),
            ("Ex.com/a", "a"),
            ("/a", "a"),
            ("a/", "a"),
            (long.as_str(), "a"),
            ("a", long.as_str()),
            ("a", "a b"),
            ("a", "-"),
            ("a", "ü"),
            ("opensandbox.io/a", "a"),
        ] {
            assert!(check(&map(&[(key, value)])).is_err(), "{key}={value}");
        }
    }

    #[test]
    fn a_patch_adds_replaces_deletes_and_keeps() {
        let before = map(&[
            ("keep", "1"),
            ("old", "1"),
            ("gone", "1"),
            ("odd key", "of /v1"),
        ]);
        let patch = Patch::from([
            ("old".to_owned(), Some("2".to_owned())),
            ("new".to_owned(), Some("3".to_owned())),
            ("gone".to_owned(), None),
            ("never-there".to_owned(), None),
        ]);
        let after = patched(before.clone(), patch).unwrap();
        assert_eq!(
            after,
            map(&[
                ("keep", "1"),
                ("old", "2"),
                ("new", "3"),
                ("odd key", "of /v1")
            ])
        );
        assert_eq!(patched(before.clone(), Patch::new()).unwrap(), before);
        let reserved = Patch::from([("opensandbox.io/x".to_owned(), None)]);
        assert!(patched(before, reserved).is_err());
    }
}
