//! The state of the whole installation.

use crate::audit::changed;
use crate::builds::Builds;
use crate::check::{Check, Target};
use crate::disk::Disk;
use crate::problems::of_store;
use crate::store::SharedStore;
use async_trait::async_trait;
use kiops_app::backend::{Caller, System};
use kiops_app::error::Result;
use kiops_app::model::{CheckReport, Profiles, RegistryConfig, SystemStatus};
use std::collections::BTreeSet;
use std::sync::Arc;

pub struct LocalSystem {
    pub store: SharedStore,
    pub disk: Arc<Disk>,
    pub builds: Builds,
    pub builds_at_once: u32,
    pub profiles: Profiles,
    pub limits_hold: bool,
    pub keeps_cache_mounts: bool,
    pub check: Arc<Check>,
}

#[async_trait]
impl System for LocalSystem {
    async fn status(&self, _: &Caller) -> Result<SystemStatus> {
        let queue = self.builds.queue_state().await?;
        Ok(SystemStatus {
            runner: self.check.runner(),
            queue_paused: queue.paused,
            running: queue.running,
            queued: queue.queued,
            builds_at_once: self.builds_at_once,
            disk_low: self.disk.is_low(),
            free_bytes: self.disk.free_bytes(),
            needed_bytes: self.disk.needed_bytes(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            profiles: self.profiles.clone(),
            limits_hold: self.limits_hold,
            keeps_cache_mounts: self.keeps_cache_mounts,
        })
    }

    async fn pause_queue(&self, caller: &Caller, paused: bool) -> Result<()> {
        self.store.set_queue_paused(paused).await.map_err(|e| of_store("queue", e))?;
        let action = if paused { "queue.pause" } else { "queue.resume" };
        changed(&self.store, caller, action, "queue", serde_json::json!({})).await;
        self.builds.queue_changed();
        Ok(())
    }

    async fn check(&self, caller: &Caller) -> Result<CheckReport> {
        let services = self.store.services(&caller.org_id).await.map_err(|e| of_store("services", e))?;
        let target = |registry: RegistryConfig| Target { host: registry.host, plain_http: registry.plain_http };
        let targets: BTreeSet<_> = services.into_iter().map(|service| target(service.registry)).collect();
        self.check.run(targets.into_iter().collect()).await
    }

    async fn last_check(&self, _: &Caller) -> Result<Option<CheckReport>> {
        Ok(self.check.last())
    }
}
