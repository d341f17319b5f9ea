//! The edge: what comes in by HTTP is checked here for its form and its origin, handed to the verbs of
//! `kiops_app::backend`, and what they say is put into words.
//!
//! | module | its one idea |
//! |---|---|
//! | `guard` | whose requests are taken: the host that was meant, and the page that a change comes from |
//! | `visitor` | who asks |
//! | `failure` | a problem becomes a status and a sentence, in the form that the asker reads |
//! | `input` | bodies, queries and ids, refused by name when they are not of the right form |
//! | `api` | the JSON API |
//! | `live` | streams and downloads of one build |
//! | `pages` | the pages and their server functions |
//! | `files` | the page's program, styles and fonts |
//! | `words` | the reader's language |
//! | `headers` | what browsers are told to keep us safe |
//!
//! What never enters: rights (they are checked behind the verbs), SQL, views.

mod api;
mod failure;
mod files;
mod guard;
mod headers;
mod health;
mod input;
mod live;
mod pages;
mod visitor;
mod words;

pub use files::Site;
pub use guard::Hosts;

use crate::builds::Builds;
use axum::Router;
use axum::extract::FromRef;
use axum::middleware::{from_fn, from_fn_with_state};
use kiops_app::backend::Backend;
use leptos::config::LeptosOptions;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

/// What the edge stands on. Cheap to clone.
#[derive(Clone)]
pub struct Edge {
    pub backend: Backend,
    /// For what is streamed: the verbs of `backend` answer with one value.
    pub builds: Builds,
    pub hosts: Arc<Hosts>,
    pub site: Site,
    /// Streams end when it is cancelled.
    pub stopping: CancellationToken,
}

impl FromRef<Edge> for LeptosOptions {
    fn from_ref(edge: &Edge) -> Self {
        edge.site.options.clone()
    }
}

/// Everything that is served.
pub fn router(edge: Edge) -> Router {
    let asked_by_somebody = Router::new()
        .nest("/api/v1", api::router())
        .merge(live::router())
        .merge(pages::router(&edge))
        .layer(from_fn(failure::in_time))
        .layer(from_fn_with_state(edge.clone(), visitor::find))
        .layer(from_fn_with_state(edge.clone(), guard::same_origin));
    Router::new()
        .merge(asked_by_somebody)
        .merge(health::router())
        .merge(files::router(&edge.site))
        .fallback(pages::missing)
        .method_not_allowed_fallback(failure::method_not_allowed)
        .layer(from_fn(input::bounded))
        .layer(CatchPanicLayer::custom(failure::of_panic))
        .layer(from_fn_with_state(edge.clone(), guard::meant_for_us))
        .layer(from_fn(failure::in_words))
        .layer(from_fn(headers::on_every_reply))
        .with_state(edge)
}
