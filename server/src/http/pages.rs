//! The pages and their server functions: who asks and what may be asked for are put into context, Leptos does the rest.

use super::Edge;
use super::failure::{self, Failure, is_api};
use super::headers::page_policy;
use super::visitor::Visitor;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use kiops_app::backend::Caller;
use kiops_app::error::Problem;
use kiops_app::{App, shell};
use leptos::config::LeptosOptions;
use leptos::nonce::use_nonce;
use leptos::prelude::{provide_context, use_context};
use leptos_axum::{LeptosRoutes, ResponseOptions, generate_route_list};
use tower_http::compression::CompressionLayer;

/// Where server functions are mounted.
pub const FUNCTIONS: &str = kiops_app::call::PREFIX;

pub fn router(edge: &Edge) -> Router<Edge> {
    let options = edge.site.options.clone();
    Router::new()
        .leptos_routes_with_context(edge, generate_route_list(App), context(edge), move || shell(options.clone()))
        .layer(from_fn(failure::of_functions))
        // Only gzip is built in: brotli's windows cost megabytes a reply and save little of a page's few kilobytes.
        .layer(CompressionLayer::new().compress_when(is_page))
}

fn is_page(_: StatusCode, _: axum::http::Version, headers: &HeaderMap, _: &axum::http::Extensions) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.starts_with("text/html") || kind.starts_with("application/json")
}

/// What every page and server function finds around it.
fn context(edge: &Edge) -> impl Fn() + Clone + Send + Sync + 'static {
    let backend = edge.backend.clone();
    move || {
        provide_context(backend.clone());
        let visitor = use_context::<Parts>().and_then(|parts| parts.extensions.get::<Visitor>().cloned());
        provide_context::<Option<Caller>>(visitor.and_then(|visitor| visitor.caller));
        // Only a page has a nonce; what a server function answers is not one.
        if let (Some(nonce), Some(reply)) = (use_nonce(), use_context::<ResponseOptions>())
            && let Ok(policy) = HeaderValue::from_str(&page_policy(&nonce))
        {
            reply.insert_header(header::CONTENT_SECURITY_POLICY, policy);
        }
    }
}

/// Whatever has no other route: the page that says so, to a program its problem.
pub async fn missing(State(edge): State<Edge>, uri: Uri, request: Request) -> Response {
    let wants_page = request
        .headers()
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"));
    if is_api(&uri) || uri.path().starts_with(FUNCTIONS) || !wants_page || !request.method().is_safe() {
        return Failure::from(Problem::not_found()).into_response();
    }
    let options: LeptosOptions = edge.site.options.clone();
    let render = leptos_axum::render_app_async_with_context(context(&edge), move || shell(options.clone()));
    let mut reply = render(request).await;
    if reply.status() == StatusCode::OK {
        *reply.status_mut() = StatusCode::NOT_FOUND;
    }
    reply
}
