//! What browsers are told with every reply, to keep people safe.

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;

/// Of replies that are not pages: nothing in them is to be run or shown as one.
const NOTHING: &str = "default-src 'none'; frame-ancestors 'none'";

/// Middleware: headers that every reply has, unless it has its own.
pub async fn on_every_reply(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, NOTHING),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        // What somebody sees is theirs: no cache on the way keeps it.
        (header::CACHE_CONTROL, "private, no-cache"),
    ] {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
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
