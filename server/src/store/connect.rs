//! Which engine an address means, and opening it: migrations are applied, a newer schema is refused. Also what both
//! engines' errors mean.

use super::{Result, SharedStore, StoreError, postgres, sqlite};
use sqlx::SqlSafeStr;
use sqlx::error::DatabaseError;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::SqliteError;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// Where the database is. Neither `Debug` nor `Display` shows a password.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(pub(super) Place);

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Place {
    Sqlite(PathBuf),
    Postgres(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a database address is sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE")]
pub struct BadDatabaseUrl;

impl DatabaseUrl {
    pub fn sqlite(path: impl Into<PathBuf>) -> Self {
        Self(Place::Sqlite(path.into()))
    }

    /// The file, where the database is one: it is bound to its machine and to one server.
    pub fn file(&self) -> Option<&Path> {
        match &self.0 {
            Place::Sqlite(path) => Some(path),
            Place::Postgres(_) => None,
        }
    }
}

impl FromStr for DatabaseUrl {
    type Err = BadDatabaseUrl;

    fn from_str(url: &str) -> Result<Self, BadDatabaseUrl> {
        let url = url.trim();
        if let Some(path) = url.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(BadDatabaseUrl) } else { Ok(Self::sqlite(path)) };
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(Self(Place::Postgres(url.to_owned())));
        }
        Err(BadDatabaseUrl)
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Place::Postgres(url) => f.write_str(&without_password(url)),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({self})")
    }
}

/// Scheme, host and database: a password may also stand among the parameters, so all of those are left out.
fn without_password(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else { return String::new() };
    // The last `@`: a password that was not encoded may hold one.
    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
    format!("{scheme}://{place}")
}

/// Opens the database, makes it when it is new (SQLite), and brings its schema up to date.
pub async fn open(url: &DatabaseUrl) -> Result<SharedStore> {
    Ok(match &url.0 {
        Place::Sqlite(path) => Arc::new(sqlite::Engine::open(path).await?),
        Place::Postgres(url) => Arc::new(postgres::Engine::open(url).await?),
    })
}

/// The migrations of one engine, by the names that both have: a file that one of them lacks does not compile.
macro_rules! migrations {
    ($engine:literal) => {
        $crate::store::connect::migrations![$engine: (1, "first"), (2, "appetite")]
    };
    ($engine:literal: $(($version:literal, $name:literal)),+) => {
        $crate::store::connect::migrator([$((
            $version,
            $name,
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations/", $engine, "/000", $version, "_", $name, ".sql")),
        )),+])
    };
}
pub(super) use migrations;

pub(super) fn migrator(files: impl IntoIterator<Item = (i64, &'static str, &'static str)>) -> Migrator {
    Migrator::with_migrations(
        files
            .into_iter()
            .map(|(version, name, sql)| {
                Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
            })
            .collect(),
    )
}

/// Refuses a schema that this program does not know; `found` is the newest version that was ever applied.
pub(super) fn check_schema(migrator: &Migrator, found: Option<i64>) -> Result<()> {
    let known = migrator.iter().map(|m| m.version).max().unwrap_or_default();
    match found {
        Some(found) if found > known => Err(StoreError::NewerSchema { found, known }),
        _ => Ok(()),
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::RowNotFound => Self::NotFound,
            sqlx::Error::Database(inner) if disk_is_full(&**inner) => Self::Full,
            _ => Self::Other(error.into()),
        }
    }
}

fn disk_is_full(error: &dyn DatabaseError) -> bool {
    const SQLITE_FULL: i32 = 13;
    const PG_DISK_FULL: &str = "53100";
    let code = error.code().unwrap_or_default();
    if error.try_downcast_ref::<SqliteError>().is_some() {
        // The low byte of the extended code is the plain one.
        code.parse::<i32>().is_ok_and(|code| code & 0xff == SQLITE_FULL)
    } else {
        code == PG_DISK_FULL
    }
}

pub(super) fn migrate_error(error: MigrateError) -> StoreError {
    StoreError::Other(anyhow::Error::new(error).context("cannot bring the database's schema up to date"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_without_their_password() {
        let url = |text: &str| text.parse::<DatabaseUrl>();
        assert_eq!(url("sqlite:data/kiops.db").unwrap().file(), Some(Path::new("data/kiops.db")));
        assert_eq!(url("sqlite:///var/lib/kiops.db").unwrap().file(), Some(Path::new("/var/lib/kiops.db")));
        for bad in ["", "sqlite:", "mysql://x", "kiops.db"] {
            assert_eq!(url(bad), Err(BadDatabaseUrl), "{bad}");
        }
        for secret in [
            "postgres://kiops:hunter22@db.example:5432/kiops",
            "postgresql://kiops:hunter22@db.example:5432/kiops?sslmode=disable",
            "postgres://kiops:hunter2@2@db.example:5432/kiops",
            "postgres://db.example:5432/kiops?user=kiops&password=hunter22",
        ] {
            let url = url(secret).unwrap();
            assert_eq!(url.file(), None);
            let shown = format!("{url} {url:?}");
            assert!(!shown.contains("hunter") && shown.contains("db.example:5432/kiops"), "{shown}");
        }
    }

    #[test]
    fn both_engines_have_the_same_migrations_and_none_is_forgotten() {
        let names = |engine: &str| {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations").join(engine);
            let mut names: Vec<_> = std::fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        assert_eq!(names("sqlite"), names("postgres"));
        for migrator in [migrations!("sqlite"), migrations!("postgres")] {
            let embedded: Vec<_> = migrator.iter().map(|m| format!("{:04}_{}.sql", m.version, m.description)).collect();
            assert_eq!(embedded, names("sqlite"));
        }
    }
}
