//! Who asks: a session's token from the cookie or the Bearer header, looked up once a request.

use super::Edge;
use super::failure::Failure;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use kiops_app::backend::{Caller, SessionToken};
use kiops_app::error::Problem;

pub const SESSION_COOKIE: &str = "kiops_session";

/// In every request that somebody makes; `caller` is none for whoever has not signed in.
#[derive(Clone)]
pub struct Visitor {
    pub caller: Option<Caller>,
    pub token: Option<SessionToken>,
}

pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

pub fn session_cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(SESSION_COOKIE)?.strip_prefix('='))
}

/// Middleware: looks the session up.
pub async fn find(State(edge): State<Edge>, mut request: Request, next: Next) -> Response {
    // A token that is shown on purpose counts for more than a cookie that comes along.
    let token = bearer(request.headers()).or_else(|| session_cookie(request.headers()));
    let token = token.map(|token| SessionToken(token.to_owned()));
    let caller = match &token {
        Some(token) => match edge.backend.accounts.caller(token).await {
            Ok(caller) => caller,
            Err(problem) => return Failure::from(problem).into_response(),
        },
        None => None,
    };
    request.extensions_mut().insert(Visitor { caller, token });
    next.run(request).await
}

/// Extractor: whoever is signed in; nobody else gets further.
pub struct SignedIn(pub Caller);

impl<S: Sync> FromRequestParts<S> for SignedIn {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let caller = parts.extensions.get::<Visitor>().and_then(|visitor| visitor.caller.clone());
        caller.map(Self).ok_or_else(|| Problem::unauthenticated().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn tokens_from_both_places() {
        let mut headers = HeaderMap::new();
        assert!(bearer(&headers).is_none() && session_cookie(&headers).is_none());
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("bearer abc"));
        headers.append(header::COOKIE, HeaderValue::from_static("kiops_session_x=1; theme=dark"));
        headers.append(header::COOKIE, HeaderValue::from_static("a=b; kiops_session=def"));
        assert_eq!(bearer(&headers), Some("abc"));
        assert_eq!(session_cookie(&headers), Some("def"));
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Basic abc"));
        assert_eq!(bearer(&headers), None);
    }
}
