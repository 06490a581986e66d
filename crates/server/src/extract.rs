//! Reading requests: JSON bodies, queries and paths, with every failure an [`ApiError`].

use crate::error::ApiError;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use crownest_api::{ErrorCode, limits};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::json;

/// Longest piece of a parser's message that goes back to a client.
const PARSER_MESSAGE_CHARS_MAX: usize = 200;

/// Longest name of a field that goes back: a client's own keys are part of it.
const FIELD_CHARS_MAX: usize = 200;

/// A JSON body, whatever its content type says, and the bytes that it was.
///
/// An empty body counts as `{}`: clients send none where every field is optional.
#[derive(Debug)]
pub(crate) struct JsonBody<T> {
    pub value: T,
    /// For the fingerprint of idempotent requests.
    pub raw: Bytes,
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let raw = read_body(request).await?;
        Ok(Self {
            value: parse_json(&raw)?,
            raw,
        })
    }
}

/// A whole body of at most the size of the largest JSON.
pub(crate) async fn read_body(request: Request) -> Result<Bytes, ApiError> {
    let body = Limited::new(request.into_body(), limits::BODY_BYTES_MAX);
    match body.collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => Err(ApiError::new(
            ErrorCode::RequestTooLarge,
            format!(
                "the request body is larger than {} bytes",
                limits::BODY_BYTES_MAX
            ),
        )
        .with_details(json!({ "limit": limits::BODY_BYTES_MAX }))),
        Err(_) => Err(ApiError::new(
            ErrorCode::InvalidRequest,
            "the request body broke off",
        )),
    }
}

pub(crate) fn parse_json<T: DeserializeOwned>(raw: &[u8]) -> Result<T, ApiError> {
    let raw = match raw.trim_ascii() {
        b"" => b"{}",
        // A list would pass for an object, field by field.
        raw @ [b'{', ..] => raw,
        _ => {
            let message = "invalid JSON body: an object is expected";
            return Err(ApiError::new(ErrorCode::InvalidRequest, message));
        }
    };
    let mut json = serde_json::Deserializer::from_slice(raw);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        let field = match path.as_str() {
            // The object itself, or text that ended before there was a field.
            "." | "?" => missing_field(&inner.to_string()),
            _ => Some(path.chars().take(FIELD_CHARS_MAX).collect()),
        };
        let message: String = inner
            .to_string()
            .chars()
            .take(PARSER_MESSAGE_CHARS_MAX)
            .collect();
        let error = ApiError::new(
            ErrorCode::InvalidRequest,
            format!("invalid JSON body: {message}"),
        );
        match field {
            Some(field) => error.with_details(json!({ "field": field })),
            None => error,
        }
    })?;
    json.end().map_err(|_| {
        ApiError::new(
            ErrorCode::InvalidRequest,
            "invalid JSON body: more than one value",
        )
    })?;
    Ok(value)
}

/// The name in serde's "missing field `name`": such an error has the path of the whole object.
fn missing_field(message: &str) -> Option<String> {
    let rest = message.strip_prefix("missing field `")?;
    rest.split_once('`').map(|(name, _)| name.to_owned())
}

/// The query, parsed into a type.
#[derive(Debug)]
pub(crate) struct QueryArgs<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for QueryArgs<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(error) => {
                let message: String = error
                    .body_text()
                    .chars()
                    .take(PARSER_MESSAGE_CHARS_MAX)
                    .collect();
                Err(ApiError::new(
                    ErrorCode::InvalidRequest,
                    format!("invalid query: {message}"),
                ))
            }
        }
    }
}

/// The parameters of the path. One that cannot be an identifier names nothing.
#[derive(Debug)]
pub(crate) struct PathArgs<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for PathArgs<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(_) => Err(ApiError::not_found("resource")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crownest_api::code::RunCode;
    use crownest_api::sandbox::CreateSandbox;

    fn field_of<T: DeserializeOwned + std::fmt::Debug>(raw: &str) -> Option<String> {
        let error = parse_json::<T>(raw.as_bytes()).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidRequest);
        error
            .details
            .map(|details| details["field"].as_str().unwrap().to_owned())
    }

    #[test]
    fn bad_json_names_the_field() {
        assert_eq!(
            field_of::<CreateSandbox>(r#"{"ttlMs":"x"}"#).unwrap(),
            "ttlMs"
        );
        assert_eq!(
            field_of::<CreateSandbox>(r#"{"ttlMs":-1}"#).unwrap(),
            "ttlMs"
        );
        assert_eq!(
            field_of::<CreateSandbox>(r#"{"metadata":{"a":1}}"#).unwrap(),
            "metadata.a"
        );
        assert_eq!(field_of::<RunCode>(r#"{"code":"1"}"#).unwrap(), "language");
        assert_eq!(field_of::<CreateSandbox>("{"), None);
        assert_eq!(field_of::<CreateSandbox>("{} {}"), None);
    }

    #[test]
    fn a_long_name_does_not_come_back_whole() {
        let raw = format!(r#"{{"metadata":{{"{}":1}}}}"#, "x".repeat(100_000));
        let field = field_of::<CreateSandbox>(&raw).unwrap();
        assert_eq!(field.len(), FIELD_CHARS_MAX);
        assert!(field.starts_with("metadata.xxx"));
    }

    #[test]
    fn an_empty_body_is_an_empty_object() {
        assert!(
            parse_json::<CreateSandbox>(b" \n")
                .unwrap()
                .template
                .is_none()
        );
    }
}
