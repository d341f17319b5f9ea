//! What pages ask about the whole installation.

use crate::error::Problem;
use crate::model::SystemStatus;
use leptos::prelude::*;

#[cfg(feature = "ssr")]
use crate::call::{answer, backend, caller};

/// Whether the queue is paused and the disk has room: what keeps builds waiting that no build's own page explains.
#[server(prefix = "/api/fn", input = server_fn::codec::Json)]
pub async fn get_system() -> Result<SystemStatus, Problem> {
    answer(backend()?.system.status(&caller()?).await)
}
