//! What browsers are told with every reply, to keep people safe.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;

/// Of replies that are not pages: nothing in them is to be run or shown as one.
const NOTHING: &str = "default-src 'none'; frame-ancestors 'none'";

/// Middleware: headers that every reply has, unless it has its own.
pub async fn on_every_reply(request: Request, next: Next) -> Response {
    let theirs = may_be_opened_by_another_site(request.headers());
    let mut response = next.run(request).await;
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, NOTHING),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        // What somebody sees is theirs: no cache on the way keeps it.
        (header::CACHE_CONTROL, "private, no-cache"),
    ] {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    if theirs {
        response.headers_mut().insert(OPENER_POLICY, HeaderValue::from_static("same-origin"));
    }
    response.headers_mut().append(header::VARY, HeaderValue::from_name(FETCH_SITE));
    response
}

const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether a page of another site can hold the window in which this reply is shown: it loses its hold then. The policy is
/// not sent always, because for it the browser throws away the process that it has started for the page and starts a
/// second one, which doubled the time to the first paint (0.2 s on two cores). Browsers say themselves where a
/// navigation comes from: `none` is a person's own (typed, bookmark), `same-origin` a page of ours. What says nothing
/// gets the policy.
fn may_be_opened_by_another_site(headers: &HeaderMap) -> bool {
    let from = headers.get(FETCH_SITE).map(HeaderValue::as_bytes);
    !matches!(from, Some(b"none" | b"same-origin"))
}

/// A page's policy: scripts are ours or carry this reply's nonce, WebAssembly may be compiled, and nothing comes from or
/// goes to another site. Bars are drawn by widths in `style` attributes, which cannot run anything.
pub fn page_policy(nonce: &str) -> String {
    format!(
        "default-src 'self'; script-src 'self' 'nonce-{nonce}' 'wasm-unsafe-eval'; style-src 'self'; \
         style-src-attr 'unsafe-inline'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; \
         frame-ancestors 'none'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_cut_off_from_whoever_may_have_opened_it() {
        let asked = |from: Option<&'static str>| {
            let headers = from.map(|from| (FETCH_SITE, HeaderValue::from_static(from))).into_iter().collect();
            may_be_opened_by_another_site(&headers)
        };
        assert!(!asked(Some("none")));
        assert!(!asked(Some("same-origin")));
        for from in [Some("same-site"), Some("cross-site"), Some(""), Some("None"), Some("something-new"), None] {
            assert!(asked(from), "{from:?}");
        }
    }
}
