//! A problem becomes a status and a sentence, in the form that the asker reads: the JSON API's `{code, message, field}`,
//! the problem itself for a page's program, plain text for everybody else.
//!
//! Whoever fails puts a [`Failure`] into the reply; the words are found in one place ([`in_words`]), where the reader's
//! language is known.

use super::pages::FUNCTIONS;
use super::words;
use crate::problems::internal;
use axum::Json;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use kiops_app::error::{Problem, ProblemStatus};
use kiops_app::locales::unmatched;
use serde::Serialize;
use std::any::Any;
use std::time::Duration;

/// Longer than any Git host or registry is waited for.
const MOST_TIME: Duration = Duration::from_secs(90);

const MOST_PROBLEM: usize = 64 << 10;

/// A problem on its way out. Its status may be finer than the problem's own.
#[derive(Clone, Debug)]
pub struct Failure {
    pub status: StatusCode,
    pub problem: Problem,
}

pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// For situations of HTTP itself, which the product has no status for.
    pub fn of(status: StatusCode, code: &str) -> Self {
        Self { status, problem: Problem::new(ProblemStatus::Invalid, code) }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let status = StatusCode::from_u16(problem.status.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, problem }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// What the JSON API says.
#[derive(Serialize)]
struct Told<'a> {
    code: &'a str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
}

/// Whether an address belongs to the JSON API.
pub fn is_api(uri: &Uri) -> bool {
    uri.path().strip_prefix("/api/v1").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Middleware: puts failures into words.
pub async fn in_words(request: Request, next: Next) -> Response {
    let lang = words::language(request.headers());
    let uri = request.uri().clone();
    let mut response = next.run(request).await;
    let Some(Failure { status, problem }) = response.extensions_mut().remove::<Failure>() else { return response };
    // Every test that meets a refusal holds it against its sentences.
    debug_assert_eq!(unmatched(&problem), None);
    let mut told = if is_api(&uri) {
        let message = words::of_problem(lang, &problem);
        Json(Told { code: &problem.code, message, field: problem.field.as_deref() }).into_response()
    } else if uri.path().starts_with(FUNCTIONS) {
        Json(&problem).into_response()
    } else {
        words::of_problem(lang, &problem).into_response()
    };
    *told.status_mut() = status;
    if status == StatusCode::UNAUTHORIZED {
        told.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(seconds) = problem.args.get("retry_s").and_then(|s| HeaderValue::from_str(s).ok())
        && status == StatusCode::TOO_MANY_REQUESTS
    {
        told.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    // What the failed reply said beside its body stays: the methods that are allowed, say.
    for (name, value) in response.headers() {
        if !told.headers().contains_key(name) && name != header::CONTENT_LENGTH {
            told.headers_mut().insert(name.clone(), value.clone());
        }
    }
    told
}

/// Middleware: a reply that does not begin in time never will. Streams begin at once and then take their time.
pub async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(MOST_TIME, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Failure::from(Problem::new(ProblemStatus::Unavailable, "unavailable")).into_response(),
    }
}

/// Middleware: a server function's failure gets its problem's status. Leptos answers all of them with 500.
pub async fn of_functions(request: Request, next: Next) -> Response {
    let is_call = request.uri().path().starts_with(FUNCTIONS);
    let response = next.run(request).await;
    if !is_call || response.status() != StatusCode::INTERNAL_SERVER_ERROR {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, MOST_PROBLEM).await.unwrap_or_default();
    if let Ok(problem) = serde_json::from_slice::<Problem>(&bytes) {
        debug_assert_eq!(unmatched(&problem), None);
        parts.status = Failure::from(problem).status;
    }
    Response::from_parts(parts, bytes.into())
}

pub async fn method_not_allowed() -> Failure {
    Failure::of(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed")
}

/// A panic is ours to find by its id; the asker is told no more than that.
pub fn of_panic(panic: Box<dyn Any + Send + 'static>) -> Response<Body> {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    Failure::from(internal("a request's handler panicked", text)).into_response()
}
