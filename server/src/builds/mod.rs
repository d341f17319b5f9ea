//! A build's life: started by a person, queued, followed while an agent carries it out, finished in one place, and shown
//! while it runs and ever after.
//!
//! | module | its one idea |
//! |---|---|
//! | `start` | a click becomes a row |
//! | `queue` | rows become running builds, in order, as many as may run |
//! | `follow` | one task a running build: what the agent wrote is stored, then published, then acknowledged |
//! | `profile` | which size a build gets, and what is said when it was too small |
//! | `finish` | the one place where a build ends |
//! | `reconcile` | whatever died is found again: at the start, and every few seconds |
//! | `live` | who watches a build is told what changed |
//! | `read` | what pages and scripts ask for |
//! | `retain` | logs that have grown old go |
//!
//! What never enters: SQL, HTTP, and how an agent is run.

mod evidence;
mod finish;
mod follow;
pub mod live;
mod profile;
mod queue;
pub mod read;
mod reconcile;
mod redact;
pub mod retain;
mod spec;
mod start;

use crate::disk::Disk;
use crate::registry::RegistryClient;
use crate::runner::Runner;
use crate::secrets::Sealer;
use crate::store::{SharedStore, StoreError};
use crate::sync_points::SyncPoints;
use async_trait::async_trait;
use follow::Control;
use kiops_app::backend::{AsShown, Caller};
use kiops_app::error::Result;
use kiops_app::model::*;
use kiops_events::Row;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[derive(Clone, Debug)]
pub struct BuildsConfig {
    /// Who holds the leases: the same after a restart, another one on another machine.
    pub owner: String,
    pub builds_at_once: u32,
    /// How long a build stays with a server that says nothing.
    pub lease: Duration,
    /// Bytes of log that are kept of one build.
    pub log_cap_bytes: u64,
    /// How long a finished agent waits for the server.
    pub hold: Duration,
    pub profiles: Profiles,
}

impl BuildsConfig {
    pub fn new(owner: impl Into<String>) -> Self {
        Self {
            owner: owner.into(),
            builds_at_once: 2,
            lease: Duration::from_secs(30),
            log_cap_bytes: 256 * 1024 * 1024,
            hold: Duration::from_secs(600),
            profiles: Profiles::default(),
        }
    }
}

/// Whoever can ask a Git host where a branch stands.
#[async_trait]
pub trait HeadOf: Send + Sync {
    /// Of a branch, or of a tag by its full or short name.
    async fn head_of(&self, url: &str, token: Option<&str>, name: &str) -> Result<Head>;
}

/// Where a branch, or a tag as `refs/tags/…`, stands: the commit's full hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub name: String,
    pub commit: String,
}

/// What builds are made of.
pub struct Parts {
    pub store: SharedStore,
    pub runner: Arc<dyn Runner>,
    pub sealer: Arc<Sealer>,
    pub heads: Arc<dyn HeadOf>,
    pub registry: Arc<RegistryClient>,
    pub disk: Arc<Disk>,
    pub config: BuildsConfig,
}

/// All builds of this server. Cheap to clone.
#[derive(Clone)]
pub struct Builds {
    inner: Arc<Inner>,
}

struct Inner {
    store: SharedStore,
    runner: Arc<dyn Runner>,
    sealer: Arc<Sealer>,
    heads: Arc<dyn HeadOf>,
    registry: Arc<RegistryClient>,
    disk: Arc<Disk>,
    config: BuildsConfig,
    hub: live::Hub,
    /// Something may be claimed now.
    wake: Notify,
    /// One entry a build that a task of this process follows.
    running: Mutex<HashMap<BuildId, watch::Sender<Control>>>,
    /// Held by whoever releases finished builds, one at a time: when what nobody needs was last looked for.
    releasing: Arc<tokio::sync::Mutex<Instant>>,
    stopping: CancellationToken,
    tasks: TaskTracker,
    sync: SyncPoints,
}

impl Inner {
    /// The value of a stored secret; without one there is none to open.
    async fn secret(&self, id: Option<&SecretId>) -> Result<Option<String>, StoreError> {
        let Some(id) = id else { return Ok(None) };
        let sealed = self.store.secret(id).await?;
        let open = self.sealer.open_row(&sealed).map_err(anyhow::Error::from)?;
        let text = open.as_str().ok_or_else(|| anyhow::anyhow!("a stored secret that is no text"))?;
        Ok(Some(text.to_owned()))
    }

    /// The key that both ends of an attempt's relay know: the same whenever it is asked for, and nowhere stored.
    fn relay_key(&self, build: &BuildId, attempt: u32) -> Vec<u8> {
        self.sealer.derive("relay", &format!("{build}/{attempt}")).to_vec()
    }

    fn running(&self) -> MutexGuard<'_, HashMap<BuildId, watch::Sender<Control>>> {
        self.running.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Builds {
    pub fn new(parts: Parts) -> Self {
        let Parts { store, runner, sealer, heads, registry, disk, config } = parts;
        let inner = Inner {
            store,
            runner,
            sealer,
            heads,
            registry,
            disk,
            config,
            hub: live::Hub::default(),
            wake: Notify::new(),
            running: Mutex::default(),
            stopping: CancellationToken::new(),
            releasing: Arc::new(tokio::sync::Mutex::new(Instant::now())),
            tasks: TaskTracker::new(),
            sync: SyncPoints::from_env(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Takes up what an earlier server left, then runs the queue until [`Self::stop`].
    pub fn spawn(&self) {
        self.inner.tasks.spawn(queue::run(self.inner.clone()));
    }

    /// Lets go of all builds without ending them: agents go on, and the next server takes up from here.
    pub async fn stop(&self) {
        self.inner.stopping.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    /// The queue was paused or is no longer: builds may start, and waiting ones show another reason.
    pub fn queue_changed(&self) {
        self.inner.wake.notify_one();
        self.inner.hub.touch_all();
    }
}

#[async_trait]
impl kiops_app::backend::Builds for Builds {
    async fn start(&self, caller: &Caller, service: &ServiceId, start: StartBuild) -> Result<Started> {
        start::start(&self.inner, caller, service, start).await
    }

    async fn cancel(&self, caller: &Caller, id: &BuildId) -> Result<()> {
        start::cancel(&self.inner, caller, id).await
    }

    async fn get(&self, caller: &Caller, id: &BuildId) -> Result<BuildDetail> {
        read::detail(&self.inner, &caller.org_id, id).await
    }

    async fn history(&self, caller: &Caller, service: &ServiceId, query: HistoryQuery) -> Result<HistoryPage> {
        read::history(&self.inner, &caller.org_id, service, query).await
    }

    async fn snapshot(&self, caller: &Caller, id: &BuildId) -> Result<LiveSnapshot> {
        live::snapshot(&self.inner, &caller.org_id, id).await
    }

    async fn rows(&self, caller: &Caller, id: &BuildId, first: u64, count: u64) -> Result<RowsPage> {
        read::rows(&self.inner, &caller.org_id, id, first, count).await
    }

    async fn row(&self, caller: &Caller, id: &BuildId, row: u64) -> Result<Row> {
        read::row(&self.inner, &caller.org_id, id, row).await
    }

    async fn search(
        &self,
        caller: &Caller,
        id: &BuildId,
        text: &str,
        from: u64,
        shown: &AsShown,
    ) -> Result<Option<SearchHit>> {
        read::search(&self.inner, &caller.org_id, id, text, from, shown).await
    }
}
