//! Tokens and passwords: sealed on their way into the store, opened for one use on the way out, and gone when nothing
//! needs them any more.

use crate::problems::{internal, of_store, random};
use crate::secrets::Sealer;
use crate::store::{SecretRow, SharedStore};
use kiops_app::backend::Caller;
use kiops_app::error::Result;
use kiops_app::model::SecretId;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Builds that end let go of what they were started with.
const SWEEP_EVERY: Duration = Duration::from_secs(600);

#[derive(Clone)]
pub struct Credentials {
    store: SharedStore,
    sealer: Arc<Sealer>,
}

impl Credentials {
    pub fn new(store: SharedStore, sealer: Arc<Sealer>) -> Self {
        Self { store, sealer }
    }

    /// A value under a new id, to be stored with what it belongs to: builds in the queue keep the one they were started
    /// with.
    pub fn seal(&self, caller: &Caller, value: Option<&str>) -> Result<Option<SecretRow>> {
        let Some(value) = value else { return Ok(None) };
        let id = SecretId::from_random(random());
        let row = self.sealer.seal_row(id, &caller.org_id, &caller.user_id, value.as_bytes());
        row.map(Some).map_err(|e| internal("sealing a secret", e))
    }

    pub async fn open(&self, id: Option<&SecretId>) -> Result<Option<String>> {
        let Some(id) = id else { return Ok(None) };
        let row = self.store.secret(id).await.map_err(|e| of_store("secret", e))?;
        self.text(&row).map(Some).map_err(|e| internal("opening a secret", e))
    }

    fn text(&self, row: &SecretRow) -> anyhow::Result<String> {
        let opened = self.sealer.open_row(row)?;
        let text = opened.as_str().ok_or_else(|| anyhow::anyhow!("a stored secret is not text"))?;
        Ok(text.to_owned())
    }

    /// Deletes what was replaced or forgotten, as far as no build needs it any more.
    pub async fn sweep_once(&self) {
        match self.store.sweep_secrets().await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "secrets that nothing needs any more are deleted"),
            Err(error) => tracing::warn!("secrets that nothing needs any more could not be deleted: {error}"),
        }
    }

    /// The same again and again, until the server ends.
    pub async fn sweep(&self, shutdown: CancellationToken) {
        loop {
            self.sweep_once().await;
            tokio::select! {
                () = tokio::time::sleep(SWEEP_EVERY) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }
}
