//! The demo's service: registered once, as the administrator, when there is none of its name.

use crate::store::Store;
use anyhow::{Context, Result, anyhow};
use kiops_app::backend::{Caller, Services};
use kiops_app::model::NewService;
use std::path::Path;

/// `file` holds the body of `POST /api/v1/services`.
pub async fn register_once(file: &Path, services: &dyn Services, caller: &Caller, store: &dyn Store) -> Result<()> {
    let shown = file.display();
    let text = tokio::fs::read(file).await.with_context(|| format!("KIOPS_DEMO_SERVICE: {shown} cannot be read"))?;
    // What is wrong with it is not repeated: it holds a token.
    let new: NewService = serde_json::from_slice(&text)
        .map_err(|e| anyhow!("KIOPS_DEMO_SERVICE: {shown} is not a service's JSON (line {})", e.line()))?;
    let name = new.name.clone();
    if store.service_by_name(&caller.org_id, name.trim()).await?.is_some() {
        return Ok(());
    }
    match services.register(caller, new).await {
        Ok(id) => tracing::info!("registered the service {name} as {id}"),
        // The server is of use without it.
        Err(problem) => tracing::warn!(field = problem.field, "the service {name} was not registered: {problem}"),
    }
    Ok(())
}
