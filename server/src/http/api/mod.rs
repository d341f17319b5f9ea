//! The JSON API under `/api/v1`: the verbs of the page for scripts, one room a thing. `docs/api.md` lists it.

mod builds;
mod services;
mod sessions;
mod system;

use super::Edge;
use super::failure::{Failure, method_not_allowed};
use axum::Router;
use kiops_app::error::Problem;

pub fn router() -> Router<Edge> {
    Router::new()
        .merge(sessions::router())
        .merge(services::router())
        .merge(builds::router())
        .merge(system::router())
        .fallback(async || Failure::from(Problem::not_found()))
        .method_not_allowed_fallback(method_not_allowed)
}
