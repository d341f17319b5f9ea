//! What is remembered: one trait of business verbs, two engines behind it, one story.
//!
//! Rows and SQL stay in here. Time is the database's own wherever two servers could disagree (claims and leases); a
//! [`Store`] never decides what should happen to a build, it only makes each change atomic and conditional.

mod connect;
pub mod log;
mod postgres;
mod sole;
mod sqlite;

pub use connect::{BadDatabaseUrl, DatabaseUrl, open};
pub use sole::Sole;

use async_trait::async_trait;
use kiops_app::model::{
    BuildId, BuildSettings, BuildStatus, Diagnosis, HistoryQuery, OrgId, Profile, ProfileReason, RegistryConfig,
    SecretId, ServiceId, UserId,
};
use kiops_events::BuildView;
use std::sync::Arc;

/// What a caller of the store can tell apart.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("no such row")]
    NotFound,
    /// A name, request or image that must be unique is taken; names which.
    #[error("{0} is taken")]
    Taken(&'static str),
    /// Somebody else changed the row since it was read, or took the lease over.
    #[error("the row has changed")]
    Conflict,
    /// The database was written by a newer version of the product.
    #[error("the database has schema {found}, this program knows {known}")]
    NewerSchema { found: i64, known: i64 },
    #[error("the disk is full")]
    Full,
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Who is served first when writes queue up (SQLite has one writer): a click never waits behind a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    People,
    Logs,
}

#[derive(Clone, Debug)]
pub struct Installation {
    pub id: String,
    pub queue_paused: bool,
    /// A known text sealed with the installation's key: a wrong key is noticed at start, not at the first build.
    pub key_check: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
pub struct UserRow {
    pub id: UserId,
    pub org_id: OrgId,
    pub name: String,
    pub password_hash: Option<String>,
}

#[derive(Clone, Debug)]
pub struct ServiceRow {
    pub id: ServiceId,
    pub org_id: OrgId,
    pub name: String,
    pub git_url: String,
    pub default_branch: String,
    pub git_secret: Option<SecretId>,
    /// Counts the saves of what stands above.
    pub source_version: i64,
    /// `registry.version` counts the saves, as that of the settings does.
    pub registry: RegistryConfig,
    pub registry_secret: Option<SecretId>,
    pub settings: BuildSettings,
    /// Raised by a No Cache build: cache mounts of earlier generations are not seen again.
    pub cache_generation: i64,
    pub build_count: i64,
    pub created_at: i64,
}

#[derive(Clone, Debug)]
pub struct NewServiceRow {
    pub id: ServiceId,
    pub org_id: OrgId,
    pub created_by: UserId,
    pub name: String,
    pub git_url: String,
    pub default_branch: String,
    /// Stored with the service or not at all.
    pub git_secret: Option<SecretRow>,
    pub registry: RegistryConfig,
    pub registry_secret: Option<SecretRow>,
    pub settings: BuildSettings,
}

/// Where a service's sources are, as it is saved.
#[derive(Clone, Copy, Debug)]
pub struct SourceRow<'a> {
    pub git_url: &'a str,
    pub default_branch: &'a str,
    pub secret: SecretChange<'a>,
}

/// What a save does with the secret that belongs to what is saved.
#[derive(Clone, Copy, Debug)]
pub enum SecretChange<'a> {
    Keep,
    Forget,
    Replace(&'a SecretRow),
}

impl<'a> SecretChange<'a> {
    /// The new one, or none at all.
    pub fn to(secret: Option<&'a SecretRow>) -> Self {
        secret.map_or(Self::Forget, Self::Replace)
    }
}

/// A secret as stored: sealed elsewhere, opaque here.
#[derive(Clone, Debug)]
pub struct SecretRow {
    pub id: SecretId,
    pub org_id: OrgId,
    pub created_by: UserId,
    pub key_id: String,
    pub sealed: Vec<u8>,
}

/// Everything a build was started with. Of credentials the ids.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct BuildSnapshot {
    pub git_url: String,
    pub git_secret: Option<SecretId>,
    pub registry: RegistryConfig,
    pub registry_secret: Option<SecretId>,
    pub settings: BuildSettings,
    /// Given by the store when the build is queued.
    pub cache_generation: i64,
    /// What is built with: `auto` stays until its turn has come.
    pub resolved_profile: Profile,
    /// None while that is not decided, and of builds that were decided before reasons were kept.
    #[serde(default)]
    pub profile_reason: Option<ProfileReason>,
}

#[derive(Clone, Debug)]
pub struct NewBuild {
    pub id: BuildId,
    pub org_id: OrgId,
    pub service_id: ServiceId,
    pub created_by: UserId,
    pub branch: String,
    pub commit: String,
    pub request_key: Option<String>,
    pub snapshot: BuildSnapshot,
}

#[derive(Clone, Debug)]
pub struct QueuedBuild {
    pub id: BuildId,
    pub number: i64,
    /// False when the request key belongs to an earlier build.
    pub created: bool,
}

#[derive(Clone, Debug)]
pub struct BuildRow {
    pub id: BuildId,
    pub org_id: OrgId,
    pub service_id: ServiceId,
    pub number: i64,
    pub branch: String,
    pub commit: String,
    pub status: BuildStatus,
    pub attempt: u32,
    pub queued_at: i64,
    pub started_at: Option<i64>,
    pub finished_at: Option<i64>,
    pub cancel_requested_at: Option<i64>,
    pub lease_epoch: i64,
    pub image_tag: Option<String>,
    pub digest: Option<String>,
    pub image_size_bytes: Option<i64>,
    pub created_by_name: String,
    pub failure_code: Option<String>,
    pub diagnosis: Option<Diagnosis>,
    pub log_verified: Option<bool>,
    /// When its log had grown too old to be kept.
    pub log_removed_at: Option<i64>,
    pub snapshot: BuildSnapshot,
}

/// The finished build's own summary, so that nobody opens chunks for a list or a comparison.
#[derive(Clone, Debug)]
pub struct FinishBuild {
    pub status: BuildStatus,
    pub image_tag: Option<String>,
    pub digest: Option<String>,
    pub image_size_bytes: Option<i64>,
    pub failure_code: Option<String>,
    pub diagnosis: Option<Diagnosis>,
    pub log_verified: Option<bool>,
    /// The most anonymous memory that was measured.
    pub peak_anon_bytes: Option<u64>,
    /// The last attempt's memory, where that proved too little.
    pub outgrown_bytes: Option<u64>,
}

/// What a build goes on with after an attempt that ran out of memory.
#[derive(Clone, Debug)]
pub struct Larger {
    pub snapshot: BuildSnapshot,
    /// Memory that proved too little.
    pub outgrown_bytes: u64,
}

/// What is known of a service's appetite.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Appetite {
    /// The last ten successful builds, the newest first.
    pub successes: Vec<PastBuild>,
    /// The most memory that proved too little for a build of the last thirty days.
    pub outgrown_bytes: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PastBuild {
    /// The size that it was built with.
    pub profile: Profile,
    /// None where nothing could be measured.
    pub peak_anon_bytes: Option<u64>,
}

/// The server's place in an attempt's spool and in the build's log, stored with every append.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// `pos` of the last event of the build.
    pub pos: u64,
    pub attempt: u32,
    /// Last event of the attempt's agent that is stored.
    pub seq: u64,
    /// Count and hash chain of the attempt's payloads as received.
    pub chain_count: u64,
    pub chain_hash: String,
    pub view: BuildView,
}

/// One stored event: the payload as JSON (an `EventKind` or a whole agent event, see `store::log`).
#[derive(Clone, Debug, PartialEq)]
pub struct LogEntry {
    pub pos: u64,
    pub attempt: u32,
    /// 0 for a note of the server's own.
    pub seq: u64,
    pub at_ms: i64,
    /// Rows of the log it stands for.
    pub rows: u64,
    /// JSON of the event as the agent wrote it (redacted), or of the server's own `EventKind`.
    pub payload: Vec<u8>,
}

/// Entries that are appended together, in one transaction with the progress that they lead to.
#[derive(Clone, Debug)]
pub struct Append {
    pub entries: Vec<LogEntry>,
    pub progress: Progress,
    /// The build's state after them; states never go backwards.
    pub status: Option<BuildStatus>,
    /// What the build is made with from now on, where that was decided only now.
    pub snapshot: Option<BuildSnapshot>,
}

/// A stretch of a stored log, decoded.
#[derive(Clone, Debug)]
pub struct LogPiece {
    pub first_row: u64,
    pub entries: Vec<LogEntry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelOutcome {
    /// It had not been claimed: it is cancelled now.
    WasQueued,
    /// Whoever runs it must stop it.
    Requested,
    /// It is over.
    Final,
}

/// Which running builds a server takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adopt {
    /// At every sweep: those whose lease ran out.
    Expired,
    /// At start: also those that this owner held before it died.
    ExpiredAndOwn,
}

#[derive(Clone, Debug, Default)]
pub struct QueueState {
    pub paused: bool,
    pub running: u32,
    pub queued: u32,
}

/// A build's place among the waiting.
#[derive(Clone, Debug)]
pub struct QueuePlace {
    /// From 1.
    pub position: u32,
    /// Its service has a running build.
    pub service_busy: bool,
}

/// Which logs of finished builds are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    pub days: u32,
    /// Of each service so many of the newest builds keep theirs, however old.
    pub newest: u32,
}

#[derive(Clone, Debug)]
pub struct AuditEntry<'a> {
    pub org_id: &'a OrgId,
    pub user_id: Option<&'a UserId>,
    /// `service.register`, `build.start` …
    pub action: &'static str,
    pub subject: &'a str,
    /// JSON; never a secret.
    pub detail: serde_json::Value,
}

#[async_trait]
pub trait Store: Send + Sync {
    // The installation and its people.
    /// Makes the one row (and the first organisation and administrator, without a password) when the database is new.
    async fn installation(&self) -> Result<Installation>;
    /// The first one stays.
    async fn set_key_check(&self, sealed: &[u8]) -> Result<()>;
    async fn set_queue_paused(&self, paused: bool) -> Result<()>;
    async fn administrator(&self) -> Result<UserRow>;
    async fn user_by_name(&self, name: &str) -> Result<Option<UserRow>>;
    /// Ends the user's sessions and open link as well: they were given for the password before.
    async fn set_password_hash(&self, user: &UserId, hash: &str) -> Result<()>;
    /// Replaces every earlier link of this user.
    async fn put_setup_link(&self, user: &UserId, token_hash: &str, expires_at: i64) -> Result<()>;
    async fn setup_link_user(&self, token_hash: &str) -> Result<Option<UserRow>>;
    /// False when it was used or ran out meanwhile.
    async fn use_setup_link(&self, token_hash: &str, password_hash: &str) -> Result<bool>;
    async fn put_session(&self, user: &UserId, token_hash: &str, expires_at: i64) -> Result<()>;
    async fn session_user(&self, token_hash: &str) -> Result<Option<UserRow>>;
    async fn drop_session(&self, token_hash: &str) -> Result<()>;
    async fn drop_expired_sessions(&self) -> Result<u64>;
    async fn audit(&self, entry: AuditEntry<'_>) -> Result<()>;

    // Secrets and services.
    async fn secret(&self, id: &SecretId) -> Result<SecretRow>;
    /// Deletes what neither a service nor a build that is not over names; how many.
    async fn sweep_secrets(&self) -> Result<u64>;
    /// With its secrets. `Taken("name")` or `Taken("image")`.
    async fn insert_service(&self, service: &NewServiceRow) -> Result<()>;
    async fn service(&self, org: &OrgId, id: &ServiceId) -> Result<ServiceRow>;
    /// Of whichever organisation.
    async fn has_service(&self, id: &ServiceId) -> Result<bool>;
    async fn service_by_name(&self, org: &OrgId, name: &str) -> Result<Option<ServiceRow>>;
    /// By name.
    async fn services(&self, org: &OrgId) -> Result<Vec<ServiceRow>>;
    /// Stores and counts the version up; `Conflict` when `expected_version` is given and is not the stored one.
    async fn save_settings(
        &self,
        org: &OrgId,
        id: &ServiceId,
        settings: &BuildSettings,
        expected_version: Option<i64>,
    ) -> Result<BuildSettings>;
    /// The same for the registry and its secret; gives the new version.
    async fn save_registry(
        &self,
        org: &OrgId,
        id: &ServiceId,
        registry: &RegistryConfig,
        secret: SecretChange<'_>,
        expected_version: Option<i64>,
    ) -> Result<i64>;
    /// The same for the source and its secret; gives the new version.
    async fn save_source(
        &self,
        org: &OrgId,
        id: &ServiceId,
        source: SourceRow<'_>,
        expected_version: Option<i64>,
    ) -> Result<i64>;

    // Builds as people see them.
    /// Gives the number, appends the first note and leaves the trace in one transaction. `Conflict` when a secret that the
    /// snapshot names was replaced meanwhile.
    async fn queue_build(&self, build: &NewBuild) -> Result<QueuedBuild>;
    /// The build that a request with this key has started, if one has.
    async fn build_of_request(&self, org: &OrgId, service: &ServiceId, key: &str) -> Result<Option<QueuedBuild>>;
    async fn build(&self, org: &OrgId, id: &BuildId) -> Result<BuildRow>;
    /// Newest first, the page next to `before` or `after` (with both: between them, next to `after`). Up to `limit + 1` rows: the one too many says that there is
    /// a further page in that direction, and stands at its end of the answer (last, or with `after` first).
    async fn history(
        &self,
        org: &OrgId,
        service: &ServiceId,
        query: &HistoryQuery,
        limit: u32,
    ) -> Result<Vec<BuildRow>>;
    /// The newest build of each service, and the newest successful one.
    async fn last_build(&self, service: &ServiceId, successful: bool) -> Result<Option<BuildRow>>;
    async fn last_builds(&self, org: &OrgId) -> Result<Vec<BuildRow>>;
    /// Median duration in milliseconds of this service's last ten successful builds.
    async fn expected_duration_ms(&self, service: &ServiceId) -> Result<Option<i64>>;
    async fn appetite(&self, service: &ServiceId) -> Result<Appetite>;
    async fn queue_place(&self, id: &BuildId) -> Result<Option<QueuePlace>>;
    async fn queue_state(&self) -> Result<QueueState>;
    async fn request_cancel(&self, org: &OrgId, id: &BuildId) -> Result<CancelOutcome>;

    // The queue. Every write after a claim names the claim's `lease_epoch`; `Conflict` means that the lease was lost.
    /// Oldest first, one running build a service, at most `limit` in all, none while paused.
    async fn claim(&self, owner: &str, lease_ms: i64, limit: u32) -> Result<Option<BuildRow>>;
    /// Takes running builds over, each with a new epoch.
    async fn adopt(&self, owner: &str, lease_ms: i64, adopt: Adopt) -> Result<Vec<BuildRow>>;
    /// The builds still held, as they stand now (a cancel request shows here).
    async fn renew(&self, owner: &str, lease_ms: i64) -> Result<Vec<BuildRow>>;
    /// All or nothing. The entries go on exactly where the log ends; an append that is stored already is none.
    async fn append(&self, id: &BuildId, epoch: i64, append: &Append) -> Result<()>;
    /// Counts the attempt up and puts the build back to starting and its place to the beginning of the next spool.
    async fn next_attempt(&self, id: &BuildId, epoch: i64, larger: Option<&Larger>) -> Result<BuildRow>;
    /// Compare-and-set: false when the build was finished already.
    async fn finish(&self, id: &BuildId, epoch: i64, finish: &FinishBuild) -> Result<bool>;
    /// Finished builds whose runner may still hold something of theirs.
    async fn unreleased(&self) -> Result<Vec<(BuildId, u32)>>;
    async fn mark_released(&self, id: &BuildId) -> Result<()>;
    /// Whether this build is known and not over.
    async fn is_open(&self, id: &BuildId) -> Result<bool>;

    // The log.
    async fn progress(&self, id: &BuildId) -> Result<Progress>;
    /// Entries that hold rows of `[first_row, first_row + count)`, whole pieces, in order. A log of very long lines is
    /// given in parts of about 8 MiB: whoever wants the rest asks again from where the answer ends.
    async fn log_by_row(&self, id: &BuildId, first_row: u64, count: u64) -> Result<Vec<LogPiece>>;
    /// Pieces that hold entries after `pos`, in order, at most about `max_bytes` of payload (at least one piece).
    async fn log_after(&self, id: &BuildId, pos: u64, max_bytes: u64) -> Result<Vec<LogPiece>>;
    /// Removes one slice of one log that is older than it is kept, and gives its build; none when nothing is left to do.
    /// From the first slice on the log is one note that says so; the build's row stays.
    async fn remove_old_log(&self, retention: Retention) -> Result<Option<BuildId>>;

    /// Ends open connections and, for SQLite, folds the write-ahead log in.
    async fn close(&self);
}

pub type SharedStore = Arc<dyn Store>;
