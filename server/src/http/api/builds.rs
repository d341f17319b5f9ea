//! Builds: started, listed, read, followed, cancelled.

use crate::http::Edge;
use crate::http::failure::Result;
use crate::http::input::{Body, Id, Params};
use crate::http::live::log_text;
use crate::http::visitor::SignedIn;
use crate::http::words;
use axum::body::Body as ReplyBody;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::StreamExt;
use kiops_app::model::{BuildDetail, BuildId, HistoryPage, HistoryQuery, ServiceId, StartBuild, Started};
use serde::Deserialize;

pub fn router() -> Router<Edge> {
    Router::new()
        .route("/services/{id}/builds", get(history).post(start))
        .route("/builds/{id}", get(detail))
        .route("/builds/{id}/log", get(log))
        .route("/builds/{id}/events", get(events))
        .route("/builds/{id}/cancel", post(cancel))
}

async fn start(
    State(edge): State<Edge>,
    SignedIn(caller): SignedIn,
    Id(service): Id<ServiceId>,
    Body(input): Body<StartBuild>,
) -> Result<(StatusCode, Json<Started>)> {
    let started = edge.backend.builds.start(&caller, &service, input).await;
    // What is wrong with the service itself (its token, its registry) is no input of this request.
    let started = started.map_err(|problem| problem.among(&["branch", "commit", "request_key"]))?;
    Ok((StatusCode::CREATED, Json(started)))
}

async fn history(
    State(edge): State<Edge>,
    SignedIn(caller): SignedIn,
    Id(service): Id<ServiceId>,
    Params(query): Params<HistoryQuery>,
) -> Result<Json<HistoryPage>> {
    Ok(Json(edge.backend.builds.history(&caller, &service, query).await?))
}

async fn detail(
    State(edge): State<Edge>,
    SignedIn(caller): SignedIn,
    Id(id): Id<BuildId>,
    headers: HeaderMap,
) -> Result<Json<BuildDetail>> {
    let mut build = edge.backend.builds.get(&caller, &id).await?;
    if let Some(diagnosis) = &mut build.diagnosis {
        diagnosis.message = words::of_diagnosis(words::language(&headers), diagnosis);
    }
    Ok(Json(build))
}

async fn log(State(edge): State<Edge>, SignedIn(caller): SignedIn, Id(id): Id<BuildId>) -> Result<Response> {
    log_text(&edge, &caller, &id).await
}

#[derive(Deserialize)]
struct After {
    #[serde(default)]
    after: u64,
}

/// One JSON object a line; follows a build that runs.
async fn events(
    State(edge): State<Edge>,
    SignedIn(caller): SignedIn,
    Id(id): Id<BuildId>,
    Params(After { after }): Params<After>,
) -> Result<Response> {
    let events = edge.builds.events(&caller, &id, after).await?;
    let events = events.take_until(edge.stopping.clone().cancelled_owned());
    let lines = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((lines, ReplyBody::from_stream(events)).into_response())
}

async fn cancel(State(edge): State<Edge>, SignedIn(caller): SignedIn, Id(id): Id<BuildId>) -> Result<StatusCode> {
    edge.backend.builds.cancel(&caller, &id).await?;
    Ok(StatusCode::ACCEPTED)
}
