//! Builds on this machine: one folder and one detached process an attempt, one BuildKit daemon for all.
//!
//! ```text
//! <data>/local/lock                     held while a runner lives: one at a time in a data folder
//! <data>/local/<build>-<attempt>/       mode 0700
//!     spec.json key git docker/config.json redact/0 …      what the agent is given; secrets mode 0600
//!     agent.stat relay.stat             who runs: the process's own /proc stat line, written before it becomes the agent
//!     agent.log src/ spool s            the agent's own words, the checkout, the spool, the relay's socket
//! <data>/buildkit/run                   the daemon's socket, configuration, log and lock
//! <data>/buildkit/<version>             its state: a newer BuildKit never meets an older one's by accident
//! ```
//! The agent outlives the server. Its folder appears under its name only when it is complete, and the process writes down
//! who it is before it becomes the agent, so whoever comes later finds the first start or none, whatever was killed when.
//! What never enters: what a build means.

mod folder;
mod process;

use super::{RelayIo, RunState, Runner, RunnerError, StartSpec};
use crate::folder::lock_file;
use anyhow::Context;
use async_trait::async_trait;
use folder::Attempt;
use kiops_app::model::BuildId;
use kiops_events::address::AddressPolicy;
use kiops_events::spec::BuildkitSpec;
use process::Who;
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::OnceCell;

/// A relay that was started for a spool answers within this, or the attempt is tried again later.
const RELAY_PATIENCE: Duration = Duration::from_secs(5);
/// What a process may take between being told to stop and being killed, when its attempt is taken away.
const STOP_GRACE: Duration = Duration::from_secs(3);
/// A Unix socket's address holds 107 bytes and the zero at its end.
const MAX_SOCKET_PATH: usize = 107;

#[derive(Clone, Debug)]
pub struct LocalConfig {
    pub data: PathBuf,
    /// `kiops-agent`.
    pub agent: PathBuf,
    pub buildkitd: PathBuf,
    pub buildctl: PathBuf,
    /// Registries that stand in for docker.io, `host:port`.
    pub dockerhub_mirrors: Vec<String>,
    /// Registries served over plain HTTP, `host:port`.
    pub insecure_registries: Vec<String>,
    /// Where agents may fetch sources from.
    pub addresses: AddressPolicy,
}

/// An attempt's gate.
type Gate = Arc<tokio::sync::Mutex<()>>;

pub struct LocalRunner {
    config: LocalConfig,
    attempts: PathBuf,
    /// Where sockets are that would have too long a name in the data folder.
    sockets: Option<PathBuf>,
    buildkit: OnceCell<BuildkitSpec>,
    /// One start, relay or release of an attempt at a time.
    gates: Mutex<HashMap<(BuildId, u32), Gate>>,
    _lock: File,
}

impl LocalRunner {
    /// Takes the data folder; refused while another process has it.
    pub fn new(mut config: LocalConfig) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&config.data).with_context(|| format!("the folder {}", config.data.display()))?;
        // Agents are started elsewhere and BuildKit wants absolute names.
        config.data = config.data.canonicalize()?;
        let attempts = config.data.join("local");
        folder::make_private(&attempts)?;
        let what = format!("the builds in {}", config.data.display());
        let lock = lock_file(&attempts.join("lock"), &what, "KIOPS_DATA")?;
        let sockets = short_folder(&config.data)?;
        Ok(Self { config, attempts, sockets, buildkit: OnceCell::new(), gates: Mutex::default(), _lock: lock })
    }

    fn attempt(&self, build: &BuildId, attempt: u32) -> Attempt {
        let name = format!("{build}-{attempt}");
        let folder = self.attempts.join(&name);
        let socket = match &self.sockets {
            Some(short) => short.join(&name),
            None => folder.join("s"),
        };
        Attempt { folder, socket }
    }

    fn gate(&self, build: &BuildId, attempt: u32) -> Arc<tokio::sync::Mutex<()>> {
        let mut gates = self.gates.lock().unwrap_or_else(|e| e.into_inner());
        gates.retain(|_, gate| Arc::strong_count(gate) > 1);
        gates.entry((build.clone(), attempt)).or_default().clone()
    }

    /// Where BuildKit is and keeps its things; asked for its version once.
    async fn buildkit(&self) -> Result<&BuildkitSpec, RunnerError> {
        self.buildkit
            .get_or_try_init(|| async {
                let refused = |detail: String| RunnerError::Refused { code: "buildkit_missing", detail };
                let daemon = &self.config.buildkitd;
                let asked = tokio::process::Command::new(daemon)
                    .arg("--version")
                    .kill_on_drop(true)
                    .output()
                    .await
                    .map_err(|e| refused(format!("{}: {e}", daemon.display())))?;
                let said = String::from_utf8_lossy(&asked.stdout);
                let version = buildkit_version(&said)
                    .ok_or_else(|| refused(format!("{} --version says {:?}", daemon.display(), said.trim())))?;
                let root = self.config.data.join("buildkit");
                let run_dir = match &self.sockets {
                    Some(short) => short.join("buildkit"),
                    None => root.join("run"),
                };
                let state_dir = root.join(version);
                for folder in [&root, &run_dir, &state_dir] {
                    folder::make_private(folder)?;
                }
                Ok(BuildkitSpec {
                    buildkitd: daemon.clone(),
                    buildctl: self.config.buildctl.clone(),
                    run_dir,
                    state_dir,
                    no_process_sandbox: false,
                    in_user_namespace: false,
                    state_goes: false,
                    dockerhub_mirrors: self.config.dockerhub_mirrors.clone(),
                    insecure_registries: self.config.insecure_registries.clone(),
                })
            })
            .await
    }

    fn spawn(&self, at: &Attempt, who: &str) -> anyhow::Result<()> {
        let agent = &self.config.agent;
        process::spawn_detached(agent, &at.folder, &at.folder.join(who), &at.folder.join("agent.log"))
            .with_context(|| format!("{} run", agent.display()))
    }
}

#[async_trait]
impl Runner for LocalRunner {
    async fn start(&self, mut start: StartSpec) -> Result<(), RunnerError> {
        let build: BuildId = start.spec.build.parse().map_err(anyhow::Error::from)?;
        let gate = self.gate(&build, start.spec.attempt);
        let _one = gate.lock().await;
        let at = self.attempt(&build, start.spec.attempt);
        start.spec.buildkit = self.buildkit().await?.clone();
        start.spec.source.addresses = self.config.addresses;
        if !rustix::process::geteuid().is_root() {
            // Only root's cgroups can be counted on; the screen says that limits apply in Kubernetes.
            start.spec.limits.cgroup = None;
        }
        if !at.folder.exists() {
            let at = at.clone();
            blocking(move || folder::prepare(&at, start)).await.map_err(|error| {
                if is_full(&error) {
                    RunnerError::Refused { code: "disk_full", detail: format!("{error:#}") }
                } else {
                    RunnerError::Other(error)
                }
            })?;
        }
        if at.who("agent.stat").is_some() {
            // This attempt has been started before, and however far it came, it is not started twice.
            return Ok(());
        }
        self.spawn(&at, "agent.stat").map_err(|e| {
            // It did not become the agent: that is no start.
            let _ = std::fs::remove_file(at.folder.join("agent.stat"));
            RunnerError::Refused { code: "agent_missing", detail: format!("{e:#}") }
        })
    }

    async fn connect(&self, build: &BuildId, attempt: u32) -> Result<Box<dyn RelayIo>, RunnerError> {
        let at = self.attempt(build, attempt);
        let first = match dial(&at).await {
            Ok(stream) => return Ok(stream),
            Err(e) => e,
        };
        match at.state() {
            RunState::Gone => return Err(RunnerError::Gone),
            RunState::Alive => return Err(RunnerError::Unreachable(first.to_string())),
            RunState::Ended => {}
        }
        let gate = self.gate(build, attempt);
        let _one = gate.lock().await;
        if !at.who("relay.stat").is_some_and(Who::is_alive) {
            let _ = std::fs::remove_file(at.folder.join("relay.stat"));
            // An agent that finds a spool ends it, if it has no end, and serves it.
            self.spawn(&at, "relay.stat")?;
        }
        let deadline = tokio::time::Instant::now() + RELAY_PATIENCE;
        loop {
            match dial(&at).await {
                Ok(stream) => return Ok(stream),
                Err(e) if tokio::time::Instant::now() > deadline => {
                    return Err(RunnerError::Unreachable(format!("the relay of a finished agent: {e}")));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    async fn cancel(&self, build: &BuildId, attempt: u32) -> Result<(), RunnerError> {
        if let Some(agent) = self.attempt(build, attempt).who("agent.stat") {
            agent.terminate();
        }
        Ok(())
    }

    async fn state(&self, build: &BuildId, attempt: u32) -> Result<RunState, RunnerError> {
        Ok(self.attempt(build, attempt).state())
    }

    async fn release(&self, build: &BuildId, attempt: u32) -> Result<(), RunnerError> {
        let gate = self.gate(build, attempt);
        let _one = gate.lock().await;
        let at = self.attempt(build, attempt);
        for who in ["agent.stat", "relay.stat"] {
            if let Some(process) = at.who(who) {
                process.stop(STOP_GRACE).await;
            }
        }
        blocking(move || at.remove()).await?;
        Ok(())
    }

    async fn list(&self) -> Result<Vec<(BuildId, u32)>, RunnerError> {
        let entries = std::fs::read_dir(&self.attempts).map_err(anyhow::Error::from)?;
        let name_of = |name: &str| {
            // What a killed start left unfinished is an attempt's too.
            let (build, attempt) = name.strip_suffix(folder::UNFINISHED).unwrap_or(name).rsplit_once('-')?;
            Some((build.parse().ok()?, attempt.parse().ok()?))
        };
        let mut found: Vec<_> = entries.flatten().filter_map(|entry| name_of(entry.file_name().to_str()?)).collect();
        found.sort();
        found.dedup();
        Ok(found)
    }
}

async fn dial(at: &Attempt) -> std::io::Result<Box<dyn RelayIo>> {
    Ok(Box::new(UnixStream::connect(&at.socket).await?))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> anyhow::Result<T> + Send + 'static) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await.context("a task of the local runner")?
}

fn is_full(error: &anyhow::Error) -> bool {
    let full =
        |e: &std::io::Error| matches!(e.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
    error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).any(full)
}

/// `buildkitd github.com/moby/buildkit v0.32.2 <revision>`.
fn buildkit_version(said: &str) -> Option<&str> {
    let version = said.split_whitespace().nth(2)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || ".-+_".contains(c);
    (!version.starts_with('.') && version.chars().all(fits)).then_some(version)
}

/// A folder for sockets when the data folder's name leaves no room for them.
fn short_folder(data: &Path) -> anyhow::Result<Option<PathBuf>> {
    let longest = data.join("local").join(format!("bld-{}-4294967295", "x".repeat(20))).join("s");
    if longest.as_os_str().len() <= MAX_SOCKET_PATH {
        return Ok(None);
    }
    use sha2::{Digest, Sha256};
    use std::os::unix::ffi::OsStrExt;
    let name = hex::encode(&Sha256::digest(data.as_os_str().as_bytes())[..6]);
    let short = std::env::temp_dir().join(format!("kiops-{}-{name}", rustix::process::geteuid().as_raw()));
    folder::make_private(&short)?;
    Ok(Some(short))
}

#[cfg(test)]
mod tests;
