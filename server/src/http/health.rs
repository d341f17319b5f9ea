//! For whoever watches over the process: is it up, and can it work.

use super::Edge;
use super::failure::Result;
use axum::Router;
use axum::extract::State;
use axum::routing::get;

pub fn router() -> Router<Edge> {
    Router::new().route("/healthz", get(async || "up\n")).route("/readyz", get(ready))
}

/// Ready when the database answers.
async fn ready(State(edge): State<Edge>) -> Result<&'static str> {
    edge.builds.queue_state().await?;
    Ok("ready\n")
}
