//! Services and their settings. A part that is saved alone names its inputs without the part's own name: as they were
//! sent.

use crate::http::Edge;
use crate::http::failure::Result;
use crate::http::input::{Body, Id};
use crate::http::visitor::SignedIn;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, put};
use axum::{Json, Router};
use kiops_app::model::{
    BuildSettings, NewService, RefList, RegistryConfig, RegistryInput, ServiceCard, ServiceDetail, ServiceId,
    SettingsInput, Source, SourceInput,
};
use serde::Serialize;

pub fn router() -> Router<Edge> {
    Router::new()
        .route("/services", get(list).post(register))
        .route("/services/{id}", get(detail))
        .route("/services/{id}/settings", put(save_settings))
        .route("/services/{id}/source", put(save_source))
        .route("/services/{id}/registry_config", put(save_registry))
        .route("/services/{id}/refs", get(refs))
}

#[derive(Serialize)]
struct Registered {
    id: ServiceId,
}

async fn list(State(edge): State<Edge>, SignedIn(caller): SignedIn) -> Result<Json<Vec<ServiceCard>>> {
    Ok(Json(edge.backend.services.list(&caller).await?))
}

async fn register(
    State(edge): State<Edge>,
    SignedIn(caller): SignedIn,
    Body(new): Body<NewService>,
) -> Result<(StatusCode, Json<Registered>)> {
    let id = edge.backend.services.register(&caller, new).await?;
    Ok((StatusCode::CREATED, Json(Registered { id })))
}

async fn detail(
    State(edge): State<Edge>,
    SignedIn(caller): SignedIn,
    Id(id): Id<ServiceId>,
) -> Result<Json<ServiceDetail>> {
    Ok(Json(edge.backend.services.get(&caller, &id).await?))
}

async fn save_settings(
    State(edge): State<Edge>,
    SignedIn(caller): SignedIn,
    Id(id): Id<ServiceId>,
    Body(input): Body<SettingsInput>,
) -> Result<Json<BuildSettings>> {
    let saved = edge.backend.services.save_settings(&caller, &id, input).await;
    Ok(Json(saved.map_err(|problem| problem.within("settings"))?))
}

async fn save_source(
    State(edge): State<Edge>,
    SignedIn(caller): SignedIn,
    Id(id): Id<ServiceId>,
    Body(input): Body<SourceInput>,
) -> Result<Json<Source>> {
    let saved = edge.backend.services.save_source(&caller, &id, input).await;
    Ok(Json(saved.map_err(|problem| problem.within("source"))?))
}

async fn save_registry(
    State(edge): State<Edge>,
    SignedIn(caller): SignedIn,
    Id(id): Id<ServiceId>,
    Body(input): Body<RegistryInput>,
) -> Result<Json<RegistryConfig>> {
    let saved = edge.backend.services.save_registry(&caller, &id, input).await;
    Ok(Json(saved.map_err(|problem| problem.within("registry_config"))?))
}

async fn refs(State(edge): State<Edge>, SignedIn(caller): SignedIn, Id(id): Id<ServiceId>) -> Result<Json<RefList>> {
    Ok(Json(edge.backend.services.refs(&caller, &id).await?))
}
