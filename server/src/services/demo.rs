//! The demo's service: registered once, as the administrator, when there is none of its name. Its repository is not
//! asked: the demo's host may come up after the server, and whoever wrote the file knows what is in it. Later the service
//! follows the demo's servers, which move to other ports when theirs are taken.

use super::LocalServices;
use crate::store::ServiceRow;
use anyhow::{Context, Result, anyhow};
use kiops_app::backend::{Caller, Services};
use kiops_app::error::Problem;
use kiops_app::model::{NewService, SourceInput};
use std::path::Path;

/// `file` holds the body of `POST /api/v1/services`.
pub async fn register_once(file: &Path, services: &LocalServices, caller: &Caller) -> Result<()> {
    let shown = file.display();
    let text = tokio::fs::read(file).await.with_context(|| format!("KIOPS_DEMO_SERVICE: {shown} cannot be read"))?;
    // What is wrong with it is not repeated: it holds a token.
    let new: NewService = serde_json::from_slice(&text)
        .map_err(|e| anyhow!("KIOPS_DEMO_SERVICE: {shown} is not a service's JSON (line {})", e.line()))?;
    let name = new.name.clone();
    let done = match services.store.service_by_name(&caller.org_id, name.trim()).await? {
        Some(row) => follow(row, new, services, caller).await,
        None => services
            .register_unasked(caller, new)
            .await
            .map(|id| tracing::info!("registered the service {name} as {id}")),
    };
    if let Err(problem) = done {
        // The server is of use without it.
        tracing::warn!(field = problem.field, "the service {name} does not stand as in {shown}: {problem}");
    }
    Ok(())
}

/// Corrects what the demo's servers have changed. What somebody has pointed elsewhere stays as it is.
async fn follow(row: ServiceRow, new: NewService, services: &LocalServices, caller: &Caller) -> Result<(), Problem> {
    let SourceInput::Git { url, token, .. } = new.source;
    if let (Some((old, path)), Some((host, same))) = (on_loopback(&row.git_url), on_loopback(&url))
        && path == same
    {
        let stored = services.credentials.open(row.git_secret.as_ref()).await?;
        if old != host || stored != token {
            tracing::info!("the service {} is fetched from {host} from now on", row.name);
            let source = SourceInput::Git { url, token, default_branch: row.default_branch.clone(), version: None };
            services.save_source_unasked(caller, &row.id, source).await?;
        }
    }
    let registry = new.registry_config.validate(false)?;
    let moved = registry.host != row.registry.host && registry.repository_path() == row.registry.repository_path();
    if moved && is_loopback(&registry.host) && is_loopback(&row.registry.host) {
        tracing::info!("the service {} is pushed to {} from now on", row.name, registry.host);
        services.save_registry(caller, &row.id, new.registry_config).await?;
    }
    Ok(())
}

/// Authority and path of an address on this machine.
fn on_loopback(url: &str) -> Option<(&str, &str)> {
    url.strip_prefix("http://")?.split_once('/').filter(|(authority, _)| is_loopback(authority))
}

fn is_loopback(authority: &str) -> bool {
    authority.starts_with("127.0.0.1:")
}
