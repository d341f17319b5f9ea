//! A PostgreSQL server of one's own, from the machine's binaries.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::home::{free_port, scratch_folder};
use crate::process::{Daemon, output};

/// A running server with nothing in it. Nothing is synced to disk: it never survives its owner.
pub struct Postgres {
    // Before the folder: fields are dropped in this order.
    _daemon: Daemon,
    _folder: TempDir,
    bin: PathBuf,
    port: u16,
}

impl Postgres {
    pub async fn start() -> Result<Self> {
        let bin = binaries()?;
        let account = account()?;
        let folder = scratch_folder()?;
        let data = folder.path().join("data");
        let as_user = |program: &str| {
            let mut command = Command::new(bin.join(program));
            command.current_dir("/").env("LC_ALL", "C.UTF-8");
            if let Some((uid, gid)) = account {
                command.uid(uid).gid(gid);
            }
            command
        };
        if let Some((uid, gid)) = account {
            std::os::unix::fs::chown(folder.path(), Some(uid), Some(gid))?;
        }
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700))?;

        let mut init = as_user("initdb");
        init.arg("-D").arg(&data).args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
        output(init).await?;

        let port = free_port();
        let mut server = as_user("postgres");
        server.arg("-D").arg(&data).args(["-h", "127.0.0.1", "-p", &port.to_string(), "-k"]).arg(folder.path());
        for setting in ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200"] {
            server.args(["-c", setting]);
        }
        let log = folder.path().join("log");
        // SIGQUIT is Postgres' immediate shutdown.
        let mut daemon = Daemon::start(server, Signal::QUIT, &log).await?;
        let probe = bin.join("pg_isready");
        daemon
            .wait_until(&log, async || {
                let mut command = Command::new(&probe);
                command.args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()]);
                output(command).await.is_ok()
            })
            .await
            .context("PostgreSQL")?;
        Ok(Self { _daemon: daemon, _folder: folder, bin, port })
    }

    /// The address of the database that every server has.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// Makes an empty database and gives back its address.
    pub async fn create_database(&self) -> Result<String> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.psql(&format!("CREATE DATABASE {name}")).await?;
        Ok(self.url_of(&name))
    }

    /// One statement through psql; its rows as plain text.
    pub async fn psql(&self, statement: &str) -> Result<String> {
        let mut command = Command::new(self.bin.join("psql"));
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &self.url(), "-c", statement]);
        output(command).await
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }
}

/// All of them in one folder: of PATH, else of Debian's folder of the newest version.
fn binaries() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort_by(|a, b| b.cmp(a));
    folders.extend(versions.into_iter().map(|(_, folder)| folder));
    folders
        .into_iter()
        .find(|folder| ["initdb", "postgres", "pg_isready", "psql"].iter().all(|program| folder.join(program).exists()))
        .context("PostgreSQL's programs are missing: install the package postgresql")
}

/// PostgreSQL refuses to run as root: then, a system account's ids.
fn account() -> Result<Option<(u32, u32)>> {
    if !rustix::process::getuid().is_root() {
        return Ok(None);
    }
    let accounts = std::fs::read_to_string(Path::new("/etc/passwd"))?;
    let ids_of = |wanted: &str| {
        let line = accounts.lines().find(|line| line.split(':').next() == Some(wanted))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    ids_of("postgres").or_else(|| ids_of("nobody")).context("neither user postgres nor nobody exists").map(Some)
}
