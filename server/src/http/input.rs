//! Bodies, queries and ids, refused by name when they are not of the right form. What was sent is never repeated: it may
//! hold a secret in the wrong place.

use super::failure::Failure;
use axum::body::{Body as ReadBody, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::Limited;
use kiops_app::error::{Problem, ProblemStatus};
use serde::de::DeserializeOwned;
use std::str::FromStr;

/// A form or a JSON body is a few hundred bytes; the largest is a service with its texts.
const MOST_BODY: u64 = 256 << 10;

fn too_large() -> Failure {
    Problem::new(ProblemStatus::TooLarge, "body_too_large").into()
}

/// Middleware: no body is longer than that, whoever reads it.
pub async fn bounded(request: Request, next: Next) -> Response {
    let length =
        request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > MOST_BODY) {
        return too_large().into_response();
    }
    next.run(request.map(|body| ReadBody::new(Limited::new(body, MOST_BODY as usize)))).await
}

/// A JSON body.
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        if !says_json(request.headers()) {
            return Err(Failure::of(StatusCode::UNSUPPORTED_MEDIA_TYPE, "json_expected"));
        }
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| match rejection {
            BytesRejection::FailedToBufferBody(inner) if inner.status() == StatusCode::PAYLOAD_TOO_LARGE => too_large(),
            _ => Failure::of(StatusCode::BAD_REQUEST, "body_cut"),
        })?;
        parse(&bytes).map(Self)
    }
}

fn says_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    let syntax = || Failure::of(StatusCode::BAD_REQUEST, "json_syntax");
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        if error.inner().is_data() {
            wrong_field(&error.path().to_string(), &error.inner().to_string()).into()
        } else {
            syntax()
        }
    })?;
    json.end().map_err(|_| syntax())?;
    // Serde would take a list for a structure, field by field.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::new(ProblemStatus::Invalid, "field_form").into());
    }
    Ok(value)
}

/// What serde says of a field, without its value.
fn wrong_field(path: &str, said: &str) -> Problem {
    let path = if path == "." { "" } else { path };
    // An unknown field's name is the end of the path already, a missing one's is not.
    let named = |name: &str| {
        let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
        if path.is_empty() || path == name || path.ends_with(&format!(".{name}")) {
            path.rsplit_once('.').map_or(name.clone(), |_| path.to_owned())
        } else {
            format!("{path}.{name}")
        }
    };
    let quoted = |prefix: &str| said.strip_prefix(prefix)?.split('`').next();
    if let Some(name) = quoted("unknown field `") {
        Problem::invalid("field_unknown", &named(name))
    } else if let Some(name) = quoted("missing field `") {
        Problem::invalid("required", &named(name))
    } else if path.is_empty() {
        Problem::new(ProblemStatus::Invalid, "field_form")
    } else {
        Problem::invalid("field_form", path)
    }
}

/// A query's parameters.
pub struct Params<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let query = Query::<T>::try_from_uri(&parts.uri);
        query.map(|Query(value)| Self(value)).map_err(|_| Problem::new(ProblemStatus::Invalid, "query_form").into())
    }
}

/// The id in the address. What is none names nothing.
pub struct Id<T>(pub T);

impl<S: Send + Sync, T: FromStr> FromRequestParts<S> for Id<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let text = Path::<String>::from_request_parts(parts, state).await.map(|Path(text)| text).unwrap_or_default();
        text.parse().map(Self).map_err(|_| Problem::not_found().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiops_app::model::{NewService, SettingsInput};

    fn refusal<T: DeserializeOwned>(body: &str) -> (u16, String, String) {
        let failure = parse::<T>(body.as_bytes()).err().expect("refused");
        (failure.status.as_u16(), failure.problem.code, failure.problem.field.unwrap_or_default())
    }

    #[test]
    fn what_is_wrong_is_named() {
        let named = |status: u16, code: &str, field: &str| (status, code.to_owned(), field.to_owned());
        for bad in ["", "{", "{\"profile\":", "nonsense", "{} {}"] {
            assert_eq!(refusal::<SettingsInput>(bad), named(400, "json_syntax", ""), "{bad}");
        }
        for (bad, code, field) in [
            (r#"{"context":"."}"#, "field_unknown", "context"),
            (r#"{"dockerfile":{"mode":"path","target":"x"}}"#, "field_unknown", "dockerfile.target"),
            (r#"{"profile":"huge"}"#, "field_form", "profile"),
            (r#"{"no_cache":"hunter2"}"#, "field_form", "no_cache"),
            ("[]", "field_form", ""),
            ("7", "field_form", ""),
        ] {
            let refused = refusal::<SettingsInput>(bad);
            assert_eq!(refused, named(422, code, field), "{bad}");
        }
        assert_eq!(refusal::<NewService>("{}"), named(422, "required", "name"));
        let token = r#"{"name":"a","source":{"kind":"git","url":"u","token":7654321,"default_branch":""}}"#;
        assert!(!format!("{:?}", refusal::<NewService>(token)).contains("7654321"));
    }

    #[test]
    fn json_by_its_name() {
        let says = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(value));
            says_json(&headers)
        };
        assert!(says("application/json") && says("Application/JSON; charset=utf-8") && says("application/x+json"));
        assert!(!says("text/plain") && !says("application/x-www-form-urlencoded") && !says_json(&HeaderMap::new()));
    }
}
