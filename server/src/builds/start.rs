//! A click becomes a row: checks, a snapshot of everything the build needs, one transaction. Git is asked only when
//! nobody has said which commit is meant; nothing else here leaves this machine.

use super::{Head, Inner, profile};
use crate::audit::changed;
use crate::problems::{of_store, random};
use crate::store::{BuildSnapshot, CancelOutcome, NewBuild, ServiceRow};
use kiops_app::backend::Caller;
use kiops_app::error::{Problem, ProblemStatus, Result};
use kiops_app::format::memory;
use kiops_app::model::*;
use serde_json::json;

const MAX_REQUEST_KEY: usize = 100;

pub(super) async fn start(inner: &Inner, caller: &Caller, service: &ServiceId, start: StartBuild) -> Result<Started> {
    let branch = ref_name(&start.branch, "branch")?;
    let commit = start.commit.as_deref().filter(|c| !c.is_empty()).map(|c| commit_hash(c, "commit")).transpose()?;
    let request_key = start.request_key.filter(|key| !key.is_empty());
    if request_key.as_ref().is_some_and(|key| key.len() > MAX_REQUEST_KEY || key.chars().any(char::is_control)) {
        return Err(Problem::invalid("request_key_form", "request_key"));
    }
    if let Some(key) = &request_key {
        // Whose answer was lost gets it now, whatever has become of the branch or the disk meanwhile.
        let earlier = inner.store.build_of_request(&caller.org_id, service, key).await;
        if let Some(earlier) = earlier.map_err(|e| of_store("build", e))? {
            return Ok(Started { id: earlier.id, number: earlier.number });
        }
    }
    let service = inner.store.service(&caller.org_id, service).await.map_err(|e| of_store("service", e))?;
    if !service.registry.is_complete() {
        return Err(Problem::conflict("registry_incomplete").at("registry_config"));
    }
    if inner.disk.is_low() {
        return Err(Problem::new(ProblemStatus::Unavailable, "disk_low")
            .with("free", memory(inner.disk.free_bytes()))
            .with("needed", memory(inner.disk.needed_bytes())));
    }
    let head = match commit {
        Some(commit) => Head { name: branch, commit },
        None => head(inner, &service, &branch).await?,
    };
    let new = NewBuild {
        id: BuildId::from_random(random()),
        org_id: caller.org_id.clone(),
        service_id: service.id.clone(),
        created_by: caller.user_id.clone(),
        branch: head.name,
        commit: head.commit,
        request_key,
        snapshot: snapshot(&service),
    };
    let queued = inner.store.queue_build(&new).await.map_err(|e| of_store("service", e))?;
    if queued.created {
        inner.wake.notify_one();
    }
    Ok(Started { id: queued.id, number: queued.number })
}

async fn head(inner: &Inner, service: &ServiceRow, branch: &str) -> Result<Head> {
    let token = inner.secret(service.git_secret.as_ref()).await.map_err(|e| of_store("service", e))?;
    inner.heads.head_of(&service.git_url, token.as_deref(), branch).await
}

fn snapshot(service: &ServiceRow) -> BuildSnapshot {
    BuildSnapshot {
        git_url: service.git_url.clone(),
        git_secret: service.git_secret.clone(),
        registry: service.registry.clone(),
        registry_secret: service.registry_secret.clone(),
        settings: service.settings.clone(),
        cache_generation: service.cache_generation,
        resolved_profile: service.settings.profile,
        profile_reason: profile::reason_at_start(service.settings.profile),
    }
}

pub(super) async fn cancel(inner: &Inner, caller: &Caller, id: &BuildId) -> Result<()> {
    match inner.store.request_cancel(&caller.org_id, id).await.map_err(|e| of_store("build", e))? {
        CancelOutcome::Final => return Err(Problem::conflict("build_is_over")),
        CancelOutcome::WasQueued => inner.hub.touch_all(),
        CancelOutcome::Requested => {
            // Where another server runs it, that one's sweep finds the request.
            if let Some(control) = inner.running().get(id) {
                control.send_modify(|c| c.cancel = true);
            }
            inner.hub.touch(id);
        }
    }
    changed(&inner.store, caller, "build.cancel", id.as_str(), json!({})).await;
    Ok(())
}
