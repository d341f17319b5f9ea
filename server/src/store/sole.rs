//! One server a database, as long as builds run on the server's own machine: a second one would see their leases run out
//! and find no agent of theirs.
//!
//! Beside an SQLite file lies a lock; in PostgreSQL a session holds an advisory lock. Either goes with its process,
//! however that ends, so a server that was killed can be started again at once.

use super::DatabaseUrl;
use super::connect::Place;
use crate::folder::lock_file;
use anyhow::{Context, Result, bail};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// What a server that is just ending may still take.
const ENDING: Duration = Duration::from_secs(3);
/// A connection that broke may live on at the other end until that notices.
const REGAIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(100);
/// "kiop" in ASCII: with the schema's own number one lock an installation.
const KIND: i32 = 0x6b69_6f70;

/// The right to be the only server of a database, for as long as it lives.
#[derive(Debug)]
pub struct Sole(Hold);

#[derive(Debug)]
enum Hold {
    File(#[allow(dead_code, reason = "its lock goes with it")] File),
    Session { options: Box<PgConnectOptions>, connection: PgConnection, place: String },
}

impl Sole {
    /// An error is a sentence for whoever started the server.
    pub async fn take(url: &DatabaseUrl) -> Result<Self> {
        match &url.0 {
            Place::Sqlite(path) => {
                let path = resolved(path)?;
                let mut name = path.file_name().map(OsString::from).unwrap_or_default();
                name.push(".lock");
                let what = format!("the database {}", path.display());
                let lock = lock_file(&path.with_file_name(name), &what, "KIOPS_DATABASE_URL or KIOPS_DATA")?;
                Ok(Self(Hold::File(lock)))
            }
            Place::Postgres(address) => {
                let place = url.to_string();
                let options = PgConnectOptions::from_str(address)
                    .map_err(|_| anyhow::anyhow!("KIOPS_DATABASE_URL should be the address of a PostgreSQL database"))?
                    .application_name("kiops-lock")
                    .disable_statement_logging();
                let connection =
                    connect(&options).await.with_context(|| format!("The database {place} cannot be opened"))?;
                match gain(connection, ENDING)
                    .await
                    .with_context(|| format!("The database {place} cannot be locked"))?
                {
                    Some(connection) => Ok(Self(Hold::Session { options: Box::new(options), connection, place })),
                    None => bail!(taken(&place)),
                }
            }
        }
    }

    /// Keeps hold until `shutdown`, and gives itself back then. An error says that another server has the database now.
    pub async fn watch(self, shutdown: &CancellationToken) -> Result<Self> {
        let Hold::Session { options, mut connection, place } = self.0 else {
            shutdown.cancelled().await;
            return Ok(self);
        };
        loop {
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                () = shutdown.cancelled() => return Ok(Self(Hold::Session { options, connection, place })),
            }
            if let Ok(Ok(())) = timeout(ANSWER, connection.ping()).await {
                continue;
            }
            tracing::warn!("the connection that keeps other servers away from {place} broke and is made anew");
            tokio::select! {
                again = regain(&options) => match again {
                    Some(again) => connection = again,
                    None => bail!(taken(&place)),
                },
                () = shutdown.cancelled() => return Ok(Self(Hold::Session { options, connection, place })),
            }
        }
    }
}

fn taken(place: &str) -> String {
    format!(
        "Another server uses the database {place}, and builds that run on a server's own machine leave no room for two. \
         Stop it, or give this one its own with KIOPS_DATABASE_URL"
    )
}

async fn connect(options: &PgConnectOptions) -> sqlx::Result<PgConnection> {
    let mut connection = options.connect().await?;
    // A machine that vanished without a word must not hold the lock for hours.
    let settings = "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; \
         SET idle_session_timeout = 0";
    // The last one is unknown to old servers, which have no such limit.
    for setting in settings.split("; ") {
        let _ = sqlx::raw_sql(setting).execute(&mut connection).await;
    }
    Ok(connection)
}

/// Tries for a while; none when another session holds the lock all the time.
async fn gain(mut connection: PgConnection, patience: Duration) -> sqlx::Result<Option<PgConnection>> {
    let until = Instant::now() + patience;
    loop {
        let held: bool =
            sqlx::query_scalar("SELECT pg_try_advisory_lock($1, hashtext(COALESCE(current_schema(), '')))")
                .bind(KIND)
                .fetch_one(&mut connection)
                .await?;
        if held {
            return Ok(Some(connection));
        }
        if Instant::now() > until {
            return Ok(None);
        }
        sleep(AGAIN).await;
    }
}

/// As long as the database does not answer nobody else can have the lock, either.
async fn regain(options: &PgConnectOptions) -> Option<PgConnection> {
    loop {
        let gained = async { gain(connect(options).await?, REGAIN).await };
        match gained.await {
            Ok(gained) => return gained,
            Err(_) => sleep(AGAIN * 10).await,
        }
    }
}

/// One file has one lock, by whatever way it is named.
fn resolved(path: &Path) -> Result<PathBuf> {
    let shown = path.display();
    if let Ok(path) = path.canonicalize() {
        return Ok(path);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = folder.canonicalize().with_context(|| format!("The folder of the database {shown} cannot be read"))?;
    let name = path.file_name().with_context(|| format!("{shown} is not a file's name"))?;
    Ok(folder.join(name))
}
