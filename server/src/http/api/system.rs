//! The installation: its runner, its queue, its disk, and whether builds work.

use crate::http::Edge;
use crate::http::failure::Result;
use crate::http::input::Body;
use crate::http::visitor::SignedIn;
use crate::http::words;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, put};
use axum::{Json, Router};
use kiops_app::locales::tell_findings;
use kiops_app::model::{CheckReport, SystemStatus};
use serde::Deserialize;

pub fn router() -> Router<Edge> {
    Router::new()
        .route("/system", get(status))
        .route("/system/queue", put(pause))
        .route("/check", get(last_check).post(check))
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

async fn check(State(edge): State<Edge>, SignedIn(caller): SignedIn, headers: HeaderMap) -> Result<Json<CheckReport>> {
    let mut report = edge.backend.system.check(&caller).await?;
    tell_findings(words::language(&headers), &mut report);
    Ok(Json(report))
}

/// `null` before the first.
async fn last_check(
    State(edge): State<Edge>,
    SignedIn(caller): SignedIn,
    headers: HeaderMap,
) -> Result<Json<Option<CheckReport>>> {
    let mut report = edge.backend.system.last_check(&caller).await?;
    if let Some(report) = &mut report {
        tell_findings(words::language(&headers), report);
    }
    Ok(Json(report))
}
