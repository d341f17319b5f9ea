//! A fresh database of either engine for each test, and the rows that a story begins with.
#![allow(dead_code, reason = "each test program uses its part of it")]

use kiops_app::model::*;
use kiops_rig::Postgres;
use kiops_server::store::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// An empty database. It can be opened more than once.
pub struct Place {
    url: DatabaseUrl,
    address: String,
    folder: TempDir,
}

impl Place {
    pub fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = DatabaseUrl::sqlite(folder.path().join("kiops.db"));
        Self { address: url.to_string(), url, folder }
    }

    pub async fn postgres() -> Self {
        static SERVER: OnceCell<Postgres> = OnceCell::const_new();
        let server = SERVER.get_or_init(async || Postgres::start().await.expect("PostgreSQL starts")).await;
        let address = server.create_database().await.expect("a database");
        let url = address.parse().expect("an address");
        Self { url, address, folder: tempfile::tempdir().expect("a temporary folder") }
    }

    pub async fn open(&self) -> SharedStore {
        self.try_open().await.expect("the store opens")
    }

    pub async fn try_open(&self) -> Result<SharedStore> {
        open(&self.url).await
    }

    pub fn file(&self) -> Option<&Path> {
        self.url.file()
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// A statement behind the store's back.
    pub async fn execute(&self, statement: String) {
        use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection};
        let statement = AssertSqlSafe(statement);
        if self.file().is_some() {
            let mut connection = SqliteConnection::connect(&self.address).await.expect("a connection");
            connection.execute(statement).await.expect("a statement");
            connection.close().await.expect("closed");
        } else {
            let mut connection = PgConnection::connect(&self.address).await.expect("a connection");
            connection.execute(statement).await.expect("a statement");
            connection.close().await.expect("closed");
        }
    }

    pub async fn count(&self, question: String) -> i64 {
        use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};
        let question = AssertSqlSafe(question);
        if self.file().is_some() {
            let mut connection = SqliteConnection::connect(&self.address).await.expect("a connection");
            sqlx::query_scalar(question).fetch_one(&mut connection).await.expect("a number")
        } else {
            let mut connection = PgConnection::connect(&self.address).await.expect("a connection");
            sqlx::query_scalar(question).fetch_one(&mut connection).await.expect("a number")
        }
    }

    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }
}

pub struct World {
    pub store: SharedStore,
    pub admin: UserRow,
}

impl World {
    pub async fn new(place: &Place) -> Self {
        let store = place.open().await;
        store.installation().await.expect("an installation");
        let admin = store.administrator().await.expect("an administrator");
        Self { store, admin }
    }

    pub fn new_service(&self, name: &str) -> NewServiceRow {
        NewServiceRow {
            id: ServiceId::from_random(random()),
            org_id: self.admin.org_id.clone(),
            created_by: self.admin.id.clone(),
            name: name.to_owned(),
            git_url: "https://git.example/team/app".to_owned(),
            default_branch: "main".to_owned(),
            git_secret: None,
            registry: registry(name),
            registry_secret: None,
            settings: BuildSettings::default(),
        }
    }

    pub fn secret(&self) -> SecretRow {
        SecretRow {
            id: SecretId::from_random(random()),
            org_id: self.admin.org_id.clone(),
            created_by: self.admin.id.clone(),
            key_id: "k1".to_owned(),
            sealed: (0..=255).collect(),
        }
    }

    pub async fn service(&self, name: &str) -> ServiceId {
        let new = self.new_service(name);
        self.store.insert_service(&new).await.expect("a service");
        new.id
    }

    pub fn new_build(&self, service: &ServiceId) -> NewBuild {
        NewBuild {
            id: BuildId::from_random(random()),
            org_id: self.admin.org_id.clone(),
            service_id: service.clone(),
            created_by: self.admin.id.clone(),
            branch: "main".to_owned(),
            commit: "0123456789abcdef0123456789abcdef01234567".to_owned(),
            request_key: None,
            snapshot: BuildSnapshot {
                git_url: "https://git.example/team/app".to_owned(),
                git_secret: None,
                registry: registry("app"),
                registry_secret: None,
                settings: BuildSettings::default(),
                cache_generation: 1,
                resolved_profile: Profile::Medium,
                profile_reason: None,
            },
        }
    }

    pub async fn queue(&self, service: &ServiceId) -> BuildId {
        let new = self.new_build(service);
        self.store.queue_build(&new).await.expect("a queued build").id
    }

    pub async fn claimed(&self, service: &ServiceId) -> BuildRow {
        let id = self.queue(service).await;
        let build = self.store.claim("me", 60_000, u32::MAX).await.expect("a claim").expect("a build");
        assert_eq!(build.id, id, "nothing else was waiting");
        build
    }

    pub async fn build(&self, id: &BuildId) -> BuildRow {
        self.store.build(&self.admin.org_id, id).await.expect("a build")
    }

    pub async fn finish(&self, build: &BuildRow, status: BuildStatus) {
        let done = self.store.finish(&build.id, build.lease_epoch, &finished(status)).await;
        assert!(done.expect("a finish"), "nobody else finished it");
    }
}

pub fn registry(image: &str) -> RegistryConfig {
    RegistryConfig {
        kind: RegistryKind::Private,
        host: "registry.example:5000".to_owned(),
        path: "team".to_owned(),
        image_name: image.to_owned(),
        username: String::new(),
        has_password: false,
        plain_http: false,
        version: 1,
    }
}

pub fn finished(status: BuildStatus) -> FinishBuild {
    FinishBuild {
        status,
        image_tag: None,
        digest: None,
        image_size_bytes: None,
        failure_code: None,
        diagnosis: None,
        log_verified: Some(true),
        peak_anon_bytes: None,
        outgrown_bytes: None,
    }
}

pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("randomness");
    bytes
}

/// Numbers for property tests, from a seed that is printed when a test fails.
pub struct Dice(u64);

impl Dice {
    pub fn new() -> Self {
        let seed = std::env::var("KIOPS_TEST_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or_else(|| u64::from_le_bytes(random()));
        println!("KIOPS_TEST_SEED={seed}");
        Self(seed | 1)
    }

    pub fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// A log as it must read, whatever the store does with it.
#[derive(Default)]
pub struct Model {
    pub entries: Vec<LogEntry>,
    /// Row at which each entry begins.
    pub rows: Vec<u64>,
    pub row_count: u64,
}

impl Model {
    pub fn of(entries: Vec<LogEntry>) -> Self {
        let mut model = Self::default();
        entries.into_iter().for_each(|entry| model.push(entry));
        model
    }

    pub fn push(&mut self, entry: LogEntry) {
        self.rows.push(self.row_count);
        self.row_count += entry.rows;
        self.entries.push(entry);
    }

    pub fn pos(&self) -> u64 {
        self.entries.last().map_or(0, |e| e.pos)
    }

    /// Entries with rows in `[first, first + count)`, each with the row it begins at.
    pub fn window(&self, first: u64, count: u64) -> Vec<(u64, LogEntry)> {
        let end = first.saturating_add(count);
        let all = self.rows.iter().copied().zip(self.entries.iter().cloned());
        all.filter(|(row, e)| e.rows > 0 && *row < end && row + e.rows > first).collect()
    }
}

/// Entries of pieces, each with the row it begins at.
pub fn flat(pieces: &[LogPiece]) -> Vec<(u64, LogEntry)> {
    let mut out = Vec::new();
    for piece in pieces {
        let mut row = piece.first_row;
        for entry in &piece.entries {
            out.push((row, entry.clone()));
            row += entry.rows;
        }
    }
    out
}

/// The whole log, followed as a reader follows it.
pub async fn follow(store: &Arc<dyn Store>, id: &BuildId, max_bytes: u64) -> Vec<LogEntry> {
    let mut entries: Vec<LogEntry> = Vec::new();
    loop {
        let after = entries.last().map_or(0, |e| e.pos);
        let pieces = store.log_after(id, after, max_bytes).await.expect("a log");
        if pieces.is_empty() {
            return entries;
        }
        entries.extend(pieces.into_iter().flat_map(|p| p.entries).filter(|e| e.pos > after));
    }
}

pub fn progress(pos: u64, seq: u64) -> Progress {
    Progress {
        pos,
        attempt: 1,
        seq,
        chain_count: seq,
        chain_hash: format!("{seq:064x}"),
        view: kiops_events::BuildView { pos, attempt: 1, ..Default::default() },
    }
}
