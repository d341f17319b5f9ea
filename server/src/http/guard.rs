//! Whose requests are taken.
//!
//! *Host*: a page of another site can make a browser send requests to this machine under a name of its own (DNS
//! rebinding). So the `Host` must be one that this server is known by: the loopback's names, the public URL's, those that
//! are configured, or a literal address, which no name server can turn.
//!
//! *Origin*: a cookie comes along with whatever makes the browser ask. So a request that changes something must come from
//! a page of this server. Scripts that show a Bearer token need none: a token does not come along by itself.

use super::Edge;
use super::failure::Failure;
use super::visitor::{bearer, session_cookie};
use crate::config::{Config, PublicUrl, split_host};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use kiops_app::error::{Problem, ProblemStatus};
use std::net::IpAddr;

/// The names that this server is known by.
#[derive(Clone, Debug)]
pub struct Hosts {
    public: Option<PublicUrl>,
    /// With or without a port; without one any port is meant.
    allowed: Vec<String>,
}

impl Hosts {
    pub fn new(config: &Config) -> Self {
        Self { public: config.public_url.clone(), allowed: config.allowed_hosts.clone() }
    }

    fn knows(&self, host: &str) -> bool {
        let authority = host.to_ascii_lowercase();
        let Some(name) = split_host(&authority) else { return false };
        let literal = name.starts_with('[') || name.parse::<IpAddr>().is_ok();
        literal
            || name == "localhost"
            || name.ends_with(".localhost")
            || self.public.as_ref().is_some_and(|url| url.host == name)
            || self.allowed.iter().any(|allowed| *allowed == authority || allowed == name)
    }

    /// Whether a page of this origin is a page of the server that `host` names. Behind a proxy the scheme is the
    /// proxy's, so only host and port are compared.
    fn is_own(&self, origin: &str, host: &str) -> bool {
        let origin = origin.to_ascii_lowercase();
        self.public.as_ref().is_some_and(|url| url.origin == origin)
            || ["http://", "https://"]
                .iter()
                .find_map(|scheme| origin.strip_prefix(scheme))
                .is_some_and(|authority| authority.eq_ignore_ascii_case(host))
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Middleware: the host that was meant.
pub async fn meant_for_us(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    if text(request.headers(), header::HOST).is_some_and(|host| edge.hosts.knows(host)) {
        return next.run(request).await;
    }
    Failure { status: StatusCode::MISDIRECTED_REQUEST, problem: Problem::new(ProblemStatus::Forbidden, "host_refused") }
        .into_response()
}

/// Middleware: the page that a change comes from.
pub async fn same_origin(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    if may_change(&edge.hosts, request.method(), request.headers()) {
        return next.run(request).await;
    }
    Failure::from(Problem::new(ProblemStatus::Forbidden, "origin")).into_response()
}

fn may_change(hosts: &Hosts, method: &Method, headers: &HeaderMap) -> bool {
    if method.is_safe() || bearer(headers).is_some() {
        return true;
    }
    let host = text(headers, header::HOST).unwrap_or_default();
    match headers.get(header::ORIGIN) {
        Some(origin) => origin.to_str().is_ok_and(|origin| hosts.is_own(origin, host)),
        // Browsers send one with every change; what sends none and carries no cookie can do no harm in anybody's name.
        None => {
            let site = text(headers, header::HeaderName::from_static("sec-fetch-site"));
            match site {
                Some(site) => matches!(site, "same-origin" | "none"),
                None => session_cookie(headers).is_none(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn hosts() -> Hosts {
        let public = PublicUrl { origin: "https://builds.example.com".into(), host: "builds.example.com".into() };
        Hosts { public: Some(public), allowed: vec!["ci".into(), "other.example:8443".into()] }
    }

    #[test]
    fn names_of_this_server() {
        for known in [
            "localhost:3000",
            "LOCALHOST",
            "kiops.localhost:3000",
            "127.0.0.1:3000",
            "[::1]:3000",
            "192.168.1.5:3000",
            "builds.example.com",
            "Builds.Example.com:443",
            "ci:3000",
            "other.example:8443",
        ] {
            assert!(hosts().knows(known), "{known}");
        }
        for strange in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "other.example:1",
            "a b",
            "x:y",
            "@",
        ] {
            assert!(!hosts().knows(strange), "{strange}");
        }
    }

    fn changes(pairs: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("127.0.0.1:3000"));
        for (name, value) in pairs {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        may_change(&hosts(), &Method::POST, &headers)
    }

    #[test]
    fn changes_come_from_our_own_pages() {
        const COOKIE: (&str, &str) = ("cookie", "kiops_session=x");
        for own in ["http://127.0.0.1:3000", "https://127.0.0.1:3000", "https://builds.example.com"] {
            assert!(changes(&[COOKIE, ("origin", own)]), "{own}");
        }
        for strange in [
            "http://evil.example",
            "null",
            "http://127.0.0.1:3001",
            "http://127.0.0.1",
            "https://builds.example.com.evil.example",
            "file://127.0.0.1:3000",
            "",
        ] {
            assert!(!changes(&[COOKIE, ("origin", strange)]), "{strange}");
            assert!(!changes(&[("origin", strange)]), "{strange}, signing in");
            assert!(changes(&[("authorization", "Bearer x"), ("origin", strange)]), "{strange}, with a token");
        }
        assert!(!changes(&[COOKIE]), "a cookie and nothing that says where it comes from");
        assert!(changes(&[COOKIE, ("sec-fetch-site", "same-origin")]));
        assert!(!changes(&[("sec-fetch-site", "cross-site")]));
        assert!(changes(&[]), "a script that signs in");
        assert!(may_change(&hosts(), &Method::GET, &HeaderMap::new()));
    }
}
