//! Where the rig's parts live: their runtime, their folders, their ports.

use std::future::Future;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// A runtime of the rig's own, whose threads never end. A part may be shared by tests whose own
/// runtimes come and go, and the kernel kills a child with `PDEATHSIG` when the *thread* that
/// started it ends, not the process.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(2).thread_name("rig").enable_all().build().expect("a runtime for the rig")
    })
}

/// Runs `work` on the rig's runtime, whatever runtime the caller has.
pub(crate) async fn at_home<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    runtime().spawn(work).await.context("a task of the rig ended early")?
}

/// Starts a task that serves until it is aborted.
pub(crate) fn keep_running(task: impl Future<Output = ()> + Send + 'static) -> Server {
    Server(runtime().spawn(task))
}

/// A listening task; dropped, it closes its port.
pub(crate) struct Server(tokio::task::JoinHandle<()>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A temporary folder named after this process, so that a later run can remove what a killed one left.
pub(crate) fn scratch_folder() -> Result<TempDir> {
    const PREFIX: &str = "kiops-rig-";
    static SWEPT: OnceLock<()> = OnceLock::new();
    let parent = std::env::temp_dir();
    SWEPT.get_or_init(|| {
        for entry in std::fs::read_dir(&parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    });
    tempfile::Builder::new()
        .prefix(&format!("{PREFIX}{}-", std::process::id()))
        .tempdir()
        .context("a temporary folder for the rig")
}

/// A free loopback port below the kernel's ephemeral range: an outgoing connection cannot take it
/// between this look and the moment its server listens, nor while that server is being restarted.
pub fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % u32::from(COUNT)) as u16;
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + start.wrapping_mul(7).wrapping_add(step) % COUNT;
        if is_free(port) {
            return port;
        }
    }
}

/// The next free loopback port, counting upward: for people, who look for a server near where it should be.
pub(crate) fn next_free_port(from: u16) -> Option<u16> {
    (from..=u16::MAX).find(|port| is_free(*port))
}

pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// The scripts' cache folder, found as `scripts/lib.sh` finds it.
pub(crate) fn cache() -> Result<PathBuf> {
    if let Some(cache) = std::env::var_os("KIOPS_CACHE") {
        return Ok(cache.into());
    }
    let parent = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let parent = parent.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    Ok(parent.context("neither KIOPS_CACHE nor HOME is set")?.join("kiops-build"))
}

/// A version that `scripts/versions.env` holds to.
pub(crate) fn pinned(name: &str) -> Result<&'static str> {
    include_str!("../../../scripts/versions.env")
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        .with_context(|| format!("scripts/versions.env names no {name}"))
}
