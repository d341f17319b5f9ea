//! The store in PostgreSQL: several servers may share one.
//!
//! What is here is only what PostgreSQL does in its own way; the statements are in `queries`. Transactions run in READ
//! COMMITTED: each begins by locking the row that it is about, so what it then reads stays as it is. Locks are taken in
//! one order (installation, service, builds by id, progress), so no two transactions wait for one another.

use super::connect::{check_schema, migrate_error, migrations};
use super::{Priority, Result};
use anyhow::anyhow;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection, Pool, Postgres, Transaction};
use std::str::FromStr;
use std::time::Duration;

type Db = Postgres;

/// The database's clock at this moment, not at the transaction's begin.
macro_rules! now {
    () => {
        "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"
    };
}

macro_rules! for_update {
    () => {
        " FOR UPDATE"
    };
}

macro_rules! for_update_skip_locked {
    () => {
        " FOR UPDATE SKIP LOCKED"
    };
}

/// PostgreSQL finds the index by itself.
macro_rules! builds_by {
    ($alias:literal, $index:literal) => {
        concat!("builds AS ", $alias, " ")
    };
}

#[allow(clippy::duplicate_mod, reason = "compiled for each engine")]
#[path = "queries.rs"]
mod queries;

use queries::{LogSize, Packed};

const CONNECTIONS: u32 = 16;
/// Kept free of logs: a click never waits for a connection behind them.
const CONNECTIONS_FOR_LOGS: usize = 8;
const WAIT: Duration = Duration::from_secs(30);
/// Older ones are not maintained any more, and nobody has tried them.
const LEAST_VERSION: i64 = 13;

pub struct Engine {
    readers: Pool<Postgres>,
    logs: tokio::sync::Semaphore,
}

/// A transaction that may write. Dropped without a commit it never was.
struct Write<'a> {
    // Before the permit: fields are dropped in this order.
    transaction: Transaction<'static, Postgres>,
    _permit: Option<tokio::sync::SemaphorePermit<'a>>,
}

impl Write<'_> {
    fn conn(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }

    async fn commit(self) -> Result<()> {
        Ok(self.transaction.commit().await?)
    }
}

impl Engine {
    pub async fn open(url: &str) -> Result<Self> {
        let options = PgConnectOptions::from_str(url)
            .map_err(|_| anyhow!("the address of the PostgreSQL database cannot be read"))?
            .application_name("kiops")
            .disable_statement_logging();
        // A pool would try again and again for as long as one may wait for it: whoever starts a server with a wrong
        // address wants to read so at once.
        let mut connection = options.connect().await.map_err(|error| {
            let place = format!("{}:{}", options.get_host(), options.get_port());
            anyhow::Error::new(error).context(format!("the PostgreSQL database at {place} cannot be reached"))
        })?;
        refuse_old_server(&mut connection).await?;
        refuse_newer_schema(&mut connection).await?;
        connection.close().await?;
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .min_connections(1)
            .idle_timeout(Some(Duration::from_secs(300)))
            .acquire_timeout(WAIT)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    // Every statement here has an index that gives its order. Without statistics (a database that was
                    // just restored) the planner would rather sort a whole history. A sort that must be has a price then
                    // at which PostgreSQL compiles a statement: 170 ms for one that runs for one.
                    let settings = "SET enable_sort = off; SET enable_bitmapscan = off; SET jit = off";
                    sqlx::raw_sql(settings).execute(connection).await.map(|_| ())
                })
            })
            .connect_with(options)
            .await?;
        migrations!("postgres").run(&pool).await.map_err(migrate_error)?;
        Ok(Self { readers: pool, logs: tokio::sync::Semaphore::new(CONNECTIONS_FOR_LOGS) })
    }

    async fn write(&self, priority: Priority) -> Result<Write<'_>> {
        let permit = match priority {
            Priority::People => None,
            Priority::Logs => Some(self.logs.acquire().await.map_err(anyhow::Error::from)?),
        };
        let transaction = self.readers.begin().await?;
        Ok(Write { transaction, _permit: permit })
    }

    /// Each append is a transaction of its own: PostgreSQL writes several to the disk at once by itself.
    async fn put(&self, packed: Packed) -> Result<LogSize> {
        let mut tx = self.write(Priority::Logs).await?;
        let grown = packed.put(tx.conn()).await?;
        tx.commit().await?;
        Ok(grown)
    }

    async fn shut(&self) {
        self.readers.close().await;
    }
}

async fn refuse_old_server(connection: &mut PgConnection) -> Result<()> {
    let version: i64 = sqlx::query_scalar("SELECT CAST(current_setting('server_version_num') AS BIGINT) / 10000")
        .fetch_one(connection)
        .await?;
    if version < LEAST_VERSION {
        return Err(anyhow!("PostgreSQL {LEAST_VERSION} or newer is needed, this is {version}").into());
    }
    Ok(())
}

/// Looks into a database before anything is written to it.
async fn refuse_newer_schema(connection: &mut PgConnection) -> Result<()> {
    let known: bool =
        sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL").fetch_one(&mut *connection).await?;
    let found = if known {
        sqlx::query_scalar("SELECT MAX(version) FROM _sqlx_migrations").fetch_one(connection).await?
    } else {
        None
    };
    check_schema(&migrations!("postgres"), found)
}
