//! The store in one SQLite file: one connection writes, a few read, one folds what was written into the file.
//!
//! What is here is only what SQLite does in its own way; the statements are in `queries`.

use super::connect::{check_schema, migrate_error, migrations};
use super::{Priority, Result};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Pool, Sqlite, SqliteConnection, Transaction};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Notify, OwnedMutexGuard};
use tokio_util::task::AbortOnDropHandle;

type Db = Sqlite;

/// The clock of this machine is the clock of the database.
macro_rules! now {
    () => {
        "CAST(ROUND(unixepoch('subsec') * 1000) AS INTEGER)"
    };
}

/// There is one writer: a row that is read within its transaction stays as it is.
macro_rules! for_update {
    () => {
        ""
    };
}

macro_rules! for_update_skip_locked {
    () => {
        ""
    };
}

/// Without statistics SQLite may walk through all builds to count the few that wait: the index is named, and a statement
/// that cannot use it fails at once.
macro_rules! builds_by {
    ($alias:literal, $index:literal) => {
        concat!("builds AS ", $alias, " INDEXED BY ", $index, " ")
    };
}

#[allow(clippy::duplicate_mod, reason = "compiled for each engine")]
#[path = "queries.rs"]
mod queries;

mod appends;

use appends::Appends;
use queries::{LogSize, Packed};
const READERS: u32 = 4;
const BUSY: Duration = Duration::from_secs(10);
/// Long enough for any number of people before us; short enough to become an error instead of a hang.
const WAIT: Duration = Duration::from_secs(30);
/// How long after a commit the write-ahead log is folded into the file.
const FOLD_AFTER: Duration = Duration::from_secs(1);
/// The write-ahead log's length at which a commit folds it in by itself, which takes whoever commits a tenth of a second
/// or more: where so much is written that the folding beside it never finds an end.
const FOLD_AT_BYTES: u32 = 32 << 20;
/// SQLite's own.
const PAGE_BYTES: u32 = 4096;

pub struct Engine {
    readers: Pool<Sqlite>,
    writer: Writer,
    appends: Appends,
    folder: Pool<Sqlite>,
    folding: AbortOnDropHandle<()>,
}

/// The one connection that writes.
#[derive(Clone)]
struct Writer {
    pool: Pool<Sqlite>,
    /// Only one log's transaction at a time may stand in the connection's queue. So a click waits for at most one of
    /// them, however many builds are writing, and logs are still served in turn with people.
    logs: Arc<Mutex<()>>,
    committed: Arc<Notify>,
}

/// A transaction that may write. Dropped without a commit it never was.
struct Write {
    // Before the turn: fields are dropped in this order.
    transaction: Transaction<'static, Sqlite>,
    _turn: Option<OwnedMutexGuard<()>>,
    committed: Arc<Notify>,
}

impl Write {
    fn conn(&mut self) -> &mut SqliteConnection {
        &mut self.transaction
    }

    async fn commit(self) -> Result<()> {
        self.transaction.commit().await?;
        self.committed.notify_one();
        Ok(())
    }
}

impl Engine {
    pub async fn open(path: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            // A commit that was answered survives a power cut: the agent lets go of its events after it.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY)
            .pragma("journal_size_limit", FOLD_AT_BYTES.to_string())
            .pragma("wal_autocheckpoint", (FOLD_AT_BYTES / PAGE_BYTES).to_string())
            .pragma("temp_store", "memory")
            .optimize_on_close(true, 400)
            .disable_statement_logging();
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .min_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .acquire_timeout(WAIT)
            .after_release(|connection, _| Box::pin(still_usable(connection)));
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .idle_timeout(Some(Duration::from_secs(60)))
            .max_lifetime(None)
            .test_before_acquire(false)
            .acquire_timeout(WAIT);

        refuse_newer_schema(path, &options).await?;
        let writer = writer.connect_with(options.clone().create_if_missing(true).pragma("cache_size", "-4096")).await?;
        migrations!("sqlite").run(&writer).await.map_err(migrate_error)?;
        let options = options.pragma("cache_size", "-1024");
        let folder = SqlitePoolOptions::new().max_connections(1).max_lifetime(None).acquire_timeout(WAIT);
        let folder = folder.connect_lazy_with(options.clone());
        let committed = Arc::<Notify>::default();
        let folding = AbortOnDropHandle::new(tokio::spawn(fold(folder.clone(), Arc::clone(&committed))));
        let readers = readers.connect_lazy_with(options.pragma("query_only", "true"));
        let writer = Writer { pool: writer, logs: Arc::default(), committed };
        Ok(Self { readers, appends: Appends::by(writer.clone()), writer, folder, folding })
    }

    async fn write(&self, priority: Priority) -> Result<Write> {
        self.writer.begin(priority).await
    }

    async fn put(&self, packed: Packed) -> Result<LogSize> {
        self.appends.put(packed).await
    }

    async fn shut(&self) {
        self.folding.abort();
        self.folder.close().await;
        self.readers.close().await;
        if let Ok(mut connection) = self.writer.pool.acquire().await
            && let Err(error) = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut *connection).await
        {
            tracing::warn!(%error, "the write-ahead log stays as it is and is folded in at the next start");
        }
        self.writer.pool.close().await;
    }
}

impl Writer {
    async fn begin(&self, priority: Priority) -> Result<Write> {
        let turn = match priority {
            Priority::People => None,
            Priority::Logs => Some(Arc::clone(&self.logs).lock_owned().await),
        };
        // A transaction that began by reading could not wait for another writer: it would fail at once.
        let transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        Ok(Write { transaction, _turn: turn, committed: Arc::clone(&self.committed) })
    }
}

/// Folds the write-ahead log into the file beside the writer, so that no click has to wait for it.
async fn fold(folder: Pool<Sqlite>, committed: Arc<Notify>) {
    loop {
        committed.notified().await;
        tokio::time::sleep(FOLD_AFTER).await;
        if let Err(error) = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(&folder).await {
            tracing::debug!(%error, "the write-ahead log is folded in later");
        }
    }
}

/// Looks into a database before anything is written to it.
async fn refuse_newer_schema(path: &Path, options: &SqliteConnectOptions) -> Result<()> {
    if !tokio::fs::try_exists(path).await.map_err(anyhow::Error::from)? {
        return Ok(());
    }
    let mut connection = options.connect().await?;
    let known: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = '_sqlx_migrations'")
            .fetch_one(&mut connection)
            .await?;
    let found = if known == 0 {
        None
    } else {
        sqlx::query_scalar("SELECT MAX(version) FROM _sqlx_migrations").fetch_one(&mut connection).await?
    };
    connection.close().await?;
    check_schema(&migrations!("sqlite"), found)
}

/// A full disk makes SQLite roll back by itself; the connection's own count of open transactions is wrong from then on,
/// and no transaction could be begun on it again.
async fn still_usable(connection: &mut SqliteConnection) -> sqlx::Result<bool> {
    // Rollbacks are carried out in turn: after the ping the count is final.
    connection.ping().await?;
    Ok(!connection.is_in_transaction())
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    async fn engine() -> (tempfile::TempDir, Engine) {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::open(&folder.path().join("kiops.db")).await.unwrap();
        engine.installation().await.unwrap();
        (folder, engine)
    }

    #[tokio::test]
    async fn a_full_disk_is_named_and_what_follows_works() {
        let (_folder, engine) = engine().await;
        let user = engine.administrator().await.unwrap();
        // The limit belongs to the connection: a new one, on a disk with room, is free of it.
        sqlx::query("PRAGMA max_page_count = 1").execute(&engine.writer.pool).await.unwrap();
        let much = || AuditEntry {
            org_id: &user.org_id,
            user_id: Some(&user.id),
            action: "test",
            subject: "much",
            detail: "x".repeat(1 << 20).into(),
        };
        let kept = async || -> i64 {
            sqlx::query_scalar("SELECT COUNT(*) FROM audit").fetch_one(&engine.readers).await.unwrap()
        };
        assert!(matches!(engine.audit(much()).await, Err(StoreError::Full)));
        assert_eq!(kept().await, 0);
        engine.audit(much()).await.unwrap();
        assert_eq!(kept().await, 1);
        engine.set_queue_paused(true).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_click_waits_for_one_log_at_most() {
        let (_folder, engine) = engine().await;
        let engine = Arc::new(engine);
        let done = Arc::new(AtomicU32::new(0));
        let slow_log = |engine: Arc<Engine>, done: Arc<AtomicU32>| async move {
            let mut tx = engine.write(Priority::Logs).await.unwrap();
            sqlx::query("UPDATE installation SET queue_paused = 0").execute(tx.conn()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            tx.commit().await.unwrap();
            done.fetch_add(1, Ordering::SeqCst);
        };
        let begin = |_| tokio::spawn(slow_log(Arc::clone(&engine), Arc::clone(&done)));
        let logs: Vec<_> = (0..20).map(begin).collect();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut let_by = Vec::new();
        for _ in 0..3 {
            let before = done.load(Ordering::SeqCst);
            engine.set_queue_paused(true).await.unwrap();
            let_by.push(done.load(Ordering::SeqCst) - before);
        }
        // The one that is at work, and one that may have its turn while the answer is on its way.
        assert!(let_by.iter().all(|logs| *logs <= 2), "{let_by:?} of twenty logs went first");
        for log in logs {
            log.await.unwrap();
        }
    }

    #[tokio::test]
    async fn the_file_is_kept_as_it_must_be() {
        let (folder, engine) = engine().await;
        let pragma = async |name: &str| -> String {
            let sql = sqlx::AssertSqlSafe(format!("SELECT CAST({name} AS TEXT) FROM pragma_{name}"));
            sqlx::query_scalar(sql).fetch_one(&engine.writer.pool).await.unwrap()
        };
        assert_eq!(pragma("journal_mode").await, "wal");
        assert_eq!(pragma("synchronous").await, "2", "FULL");
        assert_eq!(pragma("foreign_keys").await, "1");
        let refused = sqlx::query("DELETE FROM users").execute(&engine.readers).await;
        assert!(refused.is_err(), "readers only read");
        engine.close().await;
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["kiops.db"], "a closed store is one file");
    }

    #[tokio::test]
    async fn the_log_of_writes_is_folded_in_beside_the_writer() {
        let (folder, engine) = engine().await;
        let file = folder.path().join("kiops.db");
        for round in 0..3 {
            let before = std::fs::metadata(&file).unwrap().len();
            let mut tx = engine.write(Priority::People).await.unwrap();
            let sql = sqlx::AssertSqlSafe(format!("CREATE TABLE filled_{round} AS SELECT zeroblob(1000000) AS what"));
            sqlx::query(sql).execute(tx.conn()).await.unwrap();
            tx.commit().await.unwrap();
            let folded = async {
                while std::fs::metadata(&file).unwrap().len() < before + 1_000_000 {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), folded)
                .await
                .expect("it is folded in without another commit");
        }
        // What was folded in is written over: the log does not grow with it.
        let log = std::fs::metadata(folder.path().join("kiops.db-wal")).unwrap().len();
        assert!(log < 2_500_000, "{log}");
        engine.close().await;
    }

    /// Where no index is named, the planner must find the right one, with statistics and without.
    #[tokio::test]
    async fn no_question_reads_a_whole_table() {
        let (_folder, engine) = engine().await;
        let service = "SELECT id FROM services WHERE id = $1 AND org_id = $1";
        for analysed in [false, true] {
            for (condition, index) in [
                ("", "sqlite_autoindex_builds_2 (service_id=? AND number<?"),
                ("AND status = 'failure'", "builds_by_status (service_id=? AND status=? AND number<?"),
                ("AND branch = $2", "builds_by_branch (service_id=? AND branch=? AND number<?"),
                (
                    "AND status = 'success' AND branch = $2",
                    "builds_by_branch_and_status (service_id=? AND branch=? AND status=? AND number<?",
                ),
            ] {
                let sql = sqlx::AssertSqlSafe(format!(
                    "EXPLAIN QUERY PLAN SELECT * FROM builds WHERE service_id = ({service}) {condition} AND number < $3 \
                     ORDER BY number DESC LIMIT 51"
                ));
                let plan: Vec<String> = sqlx::query(sql)
                    .bind("x")
                    .bind("x")
                    .bind(1)
                    .fetch_all(&engine.readers)
                    .await
                    .unwrap()
                    .iter()
                    .map(|row| sqlx::Row::get(row, "detail"))
                    .collect();
                let plan = plan.join("; ");
                assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{condition} ({analysed}): {plan}");
            }
            sqlx::query("ANALYZE").execute(&engine.writer.pool).await.unwrap();
        }
    }
}
