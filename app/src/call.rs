//! How server functions reach the server and how their problems come back: the caller, the HTTP status, and the way
//! home for a form that was posted before the page's program had loaded.

use crate::error::{Problem, ProblemStatus};
use leptos::server_fn::codec::JsonEncoding;
use leptos::server_fn::error::{FromServerFnError, ServerFnErrorErr};

/// Where server functions are mounted.
pub const PREFIX: &str = "/api/fn";

impl FromServerFnError for Problem {
    type Encoder = JsonEncoding;

    /// What the transport says stays out of sight, but for the two things a person can do something about.
    fn from_server_fn_error(error: ServerFnErrorErr) -> Self {
        match error {
            ServerFnErrorErr::Request(_) => Self::new(ProblemStatus::Unavailable, "connection"),
            ServerFnErrorErr::Args(_) | ServerFnErrorErr::MissingArg(_) => {
                Self::new(ProblemStatus::Invalid, "bad_request")
            }
            _ => Self::new(ProblemStatus::Unavailable, "outdated"),
        }
    }
}

#[cfg(feature = "ssr")]
pub use on_server::*;

#[cfg(feature = "ssr")]
mod on_server {
    use super::PREFIX;
    use crate::backend::{Backend, Caller, SessionToken};
    use crate::error::{Problem, Result};
    use crate::model::without_userinfo;
    use crate::ui::query::Query;
    use http::StatusCode;
    use http::header::{ACCEPT, ACCEPT_LANGUAGE, COOKIE, HeaderName, HeaderValue, LINK, SET_COOKIE};
    use http::request::Parts;
    use leptos::WasmSplitManifest;
    use leptos::prelude::*;
    use leptos_axum::ResponseOptions;

    pub const SESSION_COOKIE: &str = "kiops_session";
    const SESSION_DAYS: u32 = 30;

    pub fn backend() -> Result<Backend> {
        use_context::<Backend>().ok_or_else(|| Problem::internal("no-backend"))
    }

    /// Whoever is signed in.
    pub fn caller() -> Result<Caller> {
        use_context::<Option<Caller>>().flatten().ok_or_else(Problem::unauthenticated)
    }

    fn header(parts: &Parts, name: HeaderName) -> &str {
        parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    fn is_call() -> bool {
        use_context::<Parts>().is_some_and(|parts| parts.uri.path().starts_with(PREFIX))
    }

    /// Gives a failed call its HTTP status. While a page is written a failed part of it is not the page's failure.
    pub fn answer<T>(result: Result<T>) -> Result<T> {
        if let Err(problem) = &result
            && is_call()
        {
            page_status(problem);
        }
        result
    }

    /// The status of the whole page.
    pub fn page_status(problem: &Problem) {
        if let (Some(options), Ok(status)) =
            (use_context::<ResponseOptions>(), StatusCode::from_u16(problem.status.http()))
        {
            options.set_status(status);
        }
    }

    /// Whether a browser posted a form by itself, without the page's program.
    pub fn plain_form() -> bool {
        is_call() && use_context::<Parts>().is_some_and(|parts| header(&parts, ACCEPT).contains("text/html"))
    }

    /// Sends a plain form on to a page; a page whose program runs stays where it is.
    pub fn plain_redirect(path: &str) {
        if plain_form() {
            leptos_axum::redirect(path);
        }
    }

    /// Sends a plain form that failed back to its page, with what was typed (never a secret) and what was wrong. A secret
    /// can also stand in an address: histories and proxies would keep it.
    pub fn give_back<T>(form: &str, page: &str, values: &[(&str, &str)], result: Result<T>) -> Result<T> {
        if let Err(problem) = &result {
            if plain_form() {
                let mut query = Query::default();
                query.set("f", form);
                query.set("p", &problem.code);
                if let Some(field) = &problem.field {
                    query.set("pf", field);
                }
                for (name, value) in &problem.args {
                    query.set(&format!("pa.{name}"), value);
                }
                for (name, value) in values {
                    if name.ends_with("url") {
                        query.set(&format!("v.{name}"), &without_userinfo(value));
                    } else {
                        query.set(&format!("v.{name}"), value);
                    }
                }
                let glue = if page.contains('?') { '&' } else { '?' };
                leptos_axum::redirect(&format!("{page}{glue}{query}"));
            } else {
                page_status(problem);
            }
        }
        result
    }

    /// A page of this site, or the front page: a link in a query may not lead elsewhere.
    pub fn own_page(next: &str) -> &str {
        let own = next.starts_with('/')
            && !next.starts_with("//")
            && !next.contains(['\\', '\n', '\r', '\t'])
            && next.is_ascii();
        if own { next } else { "/services" }
    }

    pub fn cookie(name: &str) -> Option<String> {
        let parts = use_context::<Parts>()?;
        parts.headers.get_all(COOKIE).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(';')).find_map(
            |pair| {
                let (key, value) = pair.trim().split_once('=')?;
                (key == name).then(|| value.to_owned())
            },
        )
    }

    pub fn session_token() -> Option<SessionToken> {
        cookie(SESSION_COOKIE).map(SessionToken)
    }

    /// Whether the browser came by https, directly or through a proxy in front.
    fn by_https(parts: &Parts) -> bool {
        let forwarded = HeaderName::from_static("x-forwarded-proto");
        parts.uri.scheme_str() == Some("https")
            || header(parts, forwarded).split(',').next().is_some_and(|p| p.trim().eq_ignore_ascii_case("https"))
            || header(parts, HeaderName::from_static("origin")).starts_with("https://")
    }

    /// Sets the session's cookie, or takes it away.
    pub fn set_session(token: Option<&SessionToken>) {
        let (Some(parts), Some(options)) = (use_context::<Parts>(), use_context::<ResponseOptions>()) else { return };
        let (value, age) = match token {
            Some(token) => (token.0.as_str(), SESSION_DAYS * 24 * 3600),
            None => ("", 0),
        };
        let secure = if by_https(&parts) { "; Secure" } else { "" };
        let cookie = format!("{SESSION_COOKIE}={value}; Max-Age={age}; Path=/; HttpOnly; SameSite=Lax{secure}");
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            options.append_header(SET_COOKIE, cookie);
        }
    }

    /// Tells the browser to fetch a part of the page's program together with the rest (scripts/web-assets.mjs writes which
    /// file it is).
    pub fn needs_part(name: &str) {
        let (Some(WasmSplitManifest(parts)), Some(options)) = (use_context(), use_context::<ResponseOptions>()) else {
            return;
        };
        let links = parts.with_value(|(folder, files, _)| {
            let link = |file: &String| format!("<{folder}/{file}.wasm>; rel=preload; as=fetch; crossorigin");
            files.get(name).into_iter().flatten().map(link).collect::<Vec<_>>().join(", ")
        });
        // Set and not added to: a page's parts may be drawn more than once.
        if !links.is_empty()
            && let Ok(links) = HeaderValue::from_str(&links)
        {
            options.insert_header(LINK, links);
        }
    }

    /// What the browser says about languages.
    pub fn accept_language() -> String {
        use_context::<Parts>().map(|parts| header(&parts, ACCEPT_LANGUAGE).to_owned()).unwrap_or_default()
    }

    /// Server clock, UTC milliseconds.
    pub fn now_ms() -> i64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
    }

    #[cfg(test)]
    mod tests {
        use super::own_page;

        #[test]
        fn sign_in_leads_back_to_pages_of_this_site_only() {
            for own in ["/services", "/services/edit/svc-a?build=run&id=b"] {
                assert_eq!(own_page(own), own);
            }
            for foreign in ["", "https://evil.example", "//evil.example", "/\\evil.example", "javascript:x", "/a\nb"] {
                assert_eq!(own_page(foreign), "/services", "{foreign}");
            }
        }
    }
}
