//! Labels of a sandbox: a small map of strings.

use crate::error::ErrorCode;
use crate::limits;
use std::collections::BTreeMap;

/// Labels by name.
pub type Metadata = BTreeMap<String, String>;

/// Why labels are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    #[error("metadata has {0} keys; at most {max} are allowed", max = limits::METADATA_KEYS_MAX)]
    TooManyKeys(usize),
    #[error("a metadata key must have 1 to {max} characters and no control characters: {0:?}", max = limits::METADATA_KEY_CHARS_MAX)]
    Key(String),
    #[error("the value of metadata key {0:?} must have at most {max} characters and no NUL", max = limits::METADATA_VALUE_CHARS_MAX)]
    Value(String),
    #[error("metadata has {0} bytes; at most {max} are allowed", max = limits::METADATA_BYTES_MAX)]
    TooLarge(usize),
}

impl MetadataError {
    /// The error code that clients see.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::TooManyKeys(_) => ErrorCode::MetadataTooManyKeys,
            Self::Key(_) => ErrorCode::InvalidMetadataKey,
            Self::Value(_) => ErrorCode::InvalidMetadataValue,
            Self::TooLarge(_) => ErrorCode::MetadataTooLarge,
        }
    }
}

/// Checks labels against the limits.
///
/// # Errors
/// The first limit that is broken, counted before measured.
pub fn check(metadata: &Metadata) -> Result<(), MetadataError> {
    if metadata.len() > limits::METADATA_KEYS_MAX {
        return Err(MetadataError::TooManyKeys(metadata.len()));
    }
    let mut bytes = 0;
    for (key, value) in metadata {
        let key_chars = key.chars().take(limits::METADATA_KEY_CHARS_MAX + 1).count();
        if !(1..=limits::METADATA_KEY_CHARS_MAX).contains(&key_chars)
            || key.chars().any(char::is_control)
        {
            let shown = key.chars().take(limits::METADATA_KEY_CHARS_MAX).collect();
            return Err(MetadataError::Key(shown));
        }
        let value_chars = value
            .chars()
            .take(limits::METADATA_VALUE_CHARS_MAX + 1)
            .count();
        if value_chars > limits::METADATA_VALUE_CHARS_MAX || value.contains('\0') {
            return Err(MetadataError::Value(key.clone()));
        }
        bytes += key.len() + value.len();
    }
    if bytes > limits::METADATA_BYTES_MAX {
        return Err(MetadataError::TooLarge(bytes));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, &str)]) -> Metadata {
        entries
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn every_limit_has_its_code() {
        let at = |n: usize| "x".repeat(n);
        assert_eq!(check(&map(&[("agent.id", "a"), ("empty", "")])), Ok(()));
        assert_eq!(check(&map(&[(&at(64), &at(512))])), Ok(()));
        let code = |m: &Metadata| check(m).unwrap_err().code();
        assert_eq!(code(&map(&[("", "a")])), ErrorCode::InvalidMetadataKey);
        assert_eq!(code(&map(&[(&at(65), "a")])), ErrorCode::InvalidMetadataKey);
        assert_eq!(code(&map(&[("a\nb", "a")])), ErrorCode::InvalidMetadataKey);
        assert_eq!(
            code(&map(&[("a", &at(513))])),
            ErrorCode::InvalidMetadataValue
        );
        assert_eq!(code(&map(&[("a", "\0")])), ErrorCode::InvalidMetadataValue);
        let many: Metadata = (0..17).map(|n| (n.to_string(), String::new())).collect();
        assert_eq!(code(&many), ErrorCode::MetadataTooManyKeys);
        let large: Metadata = (0..9).map(|n| (n.to_string(), at(512))).collect();
        assert_eq!(code(&large), ErrorCode::MetadataTooLarge);
    }

    #[test]
    fn characters_count_not_bytes() {
        assert_eq!(check(&map(&[("é", &"é".repeat(512))])), Ok(()));
    }
}
