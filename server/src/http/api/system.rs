//! The installation: its runner, its queue, its disk.

use crate::http::Edge;
use crate::http::failure::Result;
use crate::http::input::Body;
use crate::http::visitor::SignedIn;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, put};
use axum::{Json, Router};
use kiops_app::model::SystemStatus;
use serde::Deserialize;

pub fn router() -> Router<Edge> {
    Router::new().route("/system", get(status)).route("/system/queue", put(pause))
}

async fn status(State(edge): State<Edge>, SignedIn(caller): SignedIn) -> Result<Json<SystemStatus>> {
    Ok(Json(edge.backend.system.status(&caller).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Queue {
    paused: bool,
}

async fn pause(State(edge): State<Edge>, SignedIn(caller): SignedIn, Body(queue): Body<Queue>) -> Result<StatusCode> {
    edge.backend.system.pause_queue(&caller, queue.paused).await?;
    Ok(StatusCode::NO_CONTENT)
}
