//! The demo's service: registered once, as the administrator, when there is none of its name. Its repository is not
//! asked: the demo's host may come up after the server, and whoever wrote the file knows what is in it.

use super::LocalServices;
use anyhow::{Context, Result, anyhow};
use kiops_app::backend::Caller;
use kiops_app::model::NewService;
use std::path::Path;

/// `file` holds the body of `POST /api/v1/services`.
pub async fn register_once(file: &Path, services: &LocalServices, caller: &Caller) -> Result<()> {
    let shown = file.display();
    let text = tokio::fs::read(file).await.with_context(|| format!("KIOPS_DEMO_SERVICE: {shown} cannot be read"))?;
    // What is wrong with it is not repeated: it holds a token.
    let new: NewService = serde_json::from_slice(&text)
        .map_err(|e| anyhow!("KIOPS_DEMO_SERVICE: {shown} is not a service's JSON (line {})", e.line()))?;
    let name = new.name.clone();
    if services.store.service_by_name(&caller.org_id, name.trim()).await?.is_some() {
        return Ok(());
    }
    match services.register_unasked(caller, new).await {
        Ok(id) => tracing::info!("registered the service {name} as {id}"),
        // The server is of use without it.
        Err(problem) => tracing::warn!(field = problem.field, "the service {name} was not registered: {problem}"),
    }
    Ok(())
}
