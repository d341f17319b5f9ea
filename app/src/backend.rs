//! The contract between pages and server: one small trait a feature, and their sum.
//!
//! The server implements them and puts a [`Backend`] into Leptos' context; server functions and the JSON API call the
//! same verbs, so both meet the same checks. Every verb takes the caller: rights are checked behind these traits and
//! nowhere else.

use crate::error::Result;
use crate::model::*;
use async_trait::async_trait;
use kiops_events::Row;
use std::borrow::Cow;
use std::sync::Arc;

/// Who is asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub user_id: UserId,
    pub org_id: OrgId,
    pub name: String,
}

/// A session's secret, as the cookie or the Bearer header carries it.
#[derive(Clone)]
pub struct SessionToken(pub String);

#[async_trait]
pub trait Accounts: Send + Sync {
    async fn sign_in(&self, user: &str, password: &str) -> Result<SessionToken>;
    async fn sign_out(&self, token: &SessionToken) -> Result<()>;
    async fn caller(&self, token: &SessionToken) -> Result<Option<Caller>>;
    /// Whether the one-time link can still be used.
    async fn link_is_open(&self, link: &str) -> Result<bool>;
    /// Uses the one-time link up.
    async fn set_password(&self, link: &str, password: &str) -> Result<SessionToken>;
}

#[async_trait]
pub trait Services: Send + Sync {
    async fn list(&self, caller: &Caller) -> Result<Vec<ServiceCard>>;
    async fn get(&self, caller: &Caller, id: &ServiceId) -> Result<ServiceDetail>;
    async fn register(&self, caller: &Caller, new: NewService) -> Result<ServiceId>;
    async fn save_settings(&self, caller: &Caller, id: &ServiceId, input: SettingsInput) -> Result<BuildSettings>;
    async fn save_registry(&self, caller: &Caller, id: &ServiceId, input: RegistryInput) -> Result<RegistryConfig>;
    async fn save_source(&self, caller: &Caller, id: &ServiceId, input: SourceInput) -> Result<Source>;
    /// Asks the Git host. With `id`, a token that is not given is the stored one.
    async fn check_repository(
        &self,
        caller: &Caller,
        id: Option<&ServiceId>,
        input: SourceInput,
    ) -> Result<RepositoryCheck>;
    /// Asks the registry for the right to push, without pushing.
    async fn check_registry(&self, caller: &Caller, id: Option<&ServiceId>, input: RegistryInput) -> Result<()>;
    async fn refs(&self, caller: &Caller, id: &ServiceId) -> Result<RefList>;
}

/// What a reader sees of a row: the language of notes and the colours of a program's output are the page's business.
pub type AsShown = dyn for<'row> Fn(&'row Row) -> Cow<'row, str> + Send + Sync;

#[async_trait]
pub trait Builds: Send + Sync {
    async fn start(&self, caller: &Caller, service: &ServiceId, start: StartBuild) -> Result<Started>;
    async fn cancel(&self, caller: &Caller, id: &BuildId) -> Result<()>;
    async fn get(&self, caller: &Caller, id: &BuildId) -> Result<BuildDetail>;
    async fn history(&self, caller: &Caller, service: &ServiceId, query: HistoryQuery) -> Result<HistoryPage>;
    /// State, steps and the log's end: what a page shows before the stream begins.
    async fn snapshot(&self, caller: &Caller, id: &BuildId) -> Result<LiveSnapshot>;
    /// Rows from `first`, each cut to [`ROW_BYTES`]; at most [`MAX_RANGE_ROWS`] of them, and fewer where they are long.
    async fn rows(&self, caller: &Caller, id: &BuildId, first: u64, count: u64) -> Result<RowsPage>;
    /// One row, whole.
    async fn row(&self, caller: &Caller, id: &BuildId, row: u64) -> Result<Row>;
    /// The next row at or after `from` that holds `text` as it is shown, whatever the case of its letters.
    async fn search(
        &self,
        caller: &Caller,
        id: &BuildId,
        text: &str,
        from: u64,
        shown: &AsShown,
    ) -> Result<Option<SearchHit>>;
}

#[async_trait]
pub trait System: Send + Sync {
    async fn status(&self, caller: &Caller) -> Result<SystemStatus>;
    async fn pause_queue(&self, caller: &Caller, paused: bool) -> Result<()>;
    /// Tries out the place where builds run: takes up to a minute, and goes on when nobody waits for it any more.
    async fn check(&self, caller: &Caller) -> Result<CheckReport>;
    /// What the last check of this server found.
    async fn last_check(&self, caller: &Caller) -> Result<Option<CheckReport>>;
}

/// Everything pages may ask for.
#[derive(Clone)]
pub struct Backend {
    pub accounts: Arc<dyn Accounts>,
    pub services: Arc<dyn Services>,
    pub builds: Arc<dyn Builds>,
    pub system: Arc<dyn System>,
}
