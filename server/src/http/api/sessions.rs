//! Signing in and out.

use crate::http::Edge;
use crate::http::failure::Result;
use crate::http::input::Body;
use crate::http::visitor::{SignedIn, Visitor};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Extension, Json, Router};
use serde::{Deserialize, Serialize};

pub fn router() -> Router<Edge> {
    Router::new().route("/sessions", post(sign_in).delete(sign_out))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignIn {
    user: String,
    password: String,
}

/// The only reply that holds a token.
#[derive(Serialize)]
struct Session {
    token: String,
}

async fn sign_in(State(edge): State<Edge>, Body(input): Body<SignIn>) -> Result<(StatusCode, Json<Session>)> {
    let token = edge.backend.accounts.sign_in(&input.user, &input.password).await?;
    Ok((StatusCode::CREATED, Json(Session { token: token.0 })))
}

async fn sign_out(
    State(edge): State<Edge>,
    SignedIn(_): SignedIn,
    Extension(visitor): Extension<Visitor>,
) -> Result<StatusCode> {
    if let Some(token) = &visitor.token {
        edge.backend.accounts.sign_out(token).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}
