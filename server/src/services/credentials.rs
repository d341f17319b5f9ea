//! Tokens and passwords: sealed on their way into the store, opened for one use on the way out.

use crate::problems::{internal, of_store, random};
use crate::secrets::Sealer;
use crate::store::{SecretRow, SharedStore};
use kiops_app::backend::Caller;
use kiops_app::error::Result;
use kiops_app::model::SecretId;
use std::sync::Arc;

#[derive(Clone)]
pub struct Credentials {
    store: SharedStore,
    sealer: Arc<Sealer>,
}

impl Credentials {
    pub fn new(store: SharedStore, sealer: Arc<Sealer>) -> Self {
        Self { store, sealer }
    }

    /// Stores a value under a new id: what builds in the queue were started with stays readable for them.
    pub async fn seal(&self, caller: &Caller, value: Option<&str>) -> Result<Option<SecretId>> {
        let Some(value) = value else { return Ok(None) };
        let id = SecretId::from_random(random());
        let row = self
            .sealer
            .seal_row(id.clone(), &caller.org_id, &caller.user_id, value.as_bytes())
            .map_err(|e| internal("sealing a secret", e))?;
        self.store.put_secret(&row).await.map_err(|e| of_store("secret", e))?;
        Ok(Some(id))
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
}
