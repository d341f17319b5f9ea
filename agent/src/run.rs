//! One attempt from its folder to its end: the stages in their order, and the promise that whatever happens the spool ends
//! with a result and is served until the server has it.
//!
//! What each stage does is the stage's own business; when and in which process it runs is decided here.

use crate::cgroup::Group;
use crate::daemon::Daemon;
use crate::preflight::Plan;
use crate::record::{Ending, Recorder};
use crate::redact::Redactor;
use crate::relay::{Relay, Told, serve};
use crate::spool::Writer;
use crate::stop::Stop;
use crate::usage::Sampler;
use crate::{buildctl, checkout, daemon, preflight, secrets};
use anyhow::Context;
use kiops_events::event::AgentEnd;
use kiops_events::spec::AgentSpec;
use kiops_events::wire::VERSION;
use rustix::fs::{FlockOperation, Mode, flock};
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::oneshot;

/// Who the process's exit status tells how it went; the result event says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Success = 0,
    Failure = 1,
    /// The folder, its specification or its key cannot be used: nothing was begun.
    Unusable = 2,
    /// Another agent runs this folder.
    Taken = 3,
    Infrastructure = 4,
    TimeLimit = 5,
    Terminated = 6,
}

impl From<AgentEnd> for Exit {
    fn from(end: AgentEnd) -> Self {
        match end {
            AgentEnd::Success => Self::Success,
            AgentEnd::Failure => Self::Failure,
            AgentEnd::Infrastructure => Self::Infrastructure,
            AgentEnd::TimeLimit => Self::TimeLimit,
            AgentEnd::Terminated => Self::Terminated,
        }
    }
}

/// The lock that says that an agent is at work in a folder. Holds the agent's process id, for a signal.
pub const LOCK_FILE: &str = "agent.lock";
pub const LOG_FILE: &str = "agent.log";

const CONCLUDE_AGAIN: Duration = Duration::from_secs(1);
/// A result and the notes before it are far smaller.
const RESERVE_BYTES: usize = 64 * 1024;

/// Everything on one machine in this process. A folder whose attempt was cut off gets its result and is served again.
pub async fn run(folder: &Path) -> anyhow::Result<Exit> {
    let Some(_lock) = take_folder(folder)? else { return Ok(Exit::Taken) };
    let spec = read_spec(folder)?;
    let key = std::fs::read(&spec.files.key).context("the relay's key cannot be read")?;
    let redactor = Redactor::new(secrets::values(&spec.files)?.iter().map(Vec::as_slice));
    // Files of the checkout get into images with their modes.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let stop = Stop::default();
    stop.at_signals()?;
    let writer = Writer::open(&spec.files.spool).context("the spool cannot be opened")?;
    let reserve = Reserve::beside(&spec.files.spool);
    let fresh = writer.standing().last_seq == 0;
    let recorder = Recorder::new(writer, spec.attempt, spec.limits.log_cap_bytes, redactor, stop.clone());

    let socket = spec.files.socket.clone().context("the specification names no socket")?;
    let relay = Arc::new(Relay {
        spool: spec.files.spool.clone(),
        build: spec.build.clone(),
        attempt: spec.attempt,
        key,
        clock: recorder.clock(),
        told: Told::default(),
    });
    let serving = tokio::spawn(serve(relay.clone(), listen(&socket)?));

    let ending = if fresh {
        stop.after(Duration::from_secs(spec.limits.time_limit_s.into()));
        let (spec, recorder, stop) = (spec.clone(), recorder.clone(), stop.clone());
        guarded(async move { attempt(&spec, &recorder, &stop).await }).await.unwrap_or_else(|ending| ending)
    } else {
        Ending::infrastructure("agent", "the agent was cut off")
    };
    tracing::info!(?ending, "the attempt is over");
    drop(reserve);
    let hold = Duration::from_secs(spec.limits.hold_s.into());
    conclude(&recorder, ending, &relay, hold).await?;
    let workspace = spec.files.workspace.clone();
    let clearing = tokio::task::spawn_blocking(move || clear(&workspace));

    wait_for_server(&relay, recorder.standing().last_seq, &stop, hold).await;
    serving.abort();
    let _ = std::fs::remove_file(&socket);
    clearing.await?;
    // What the spool says counts: this process may only have served it.
    Ok(recorder.standing().ended.map_or(Exit::Infrastructure, Exit::from))
}

/// Writes the result. Where it cannot be written (the disk is full to the last byte), the spool is served all the same,
/// so that what the server stores and gives back, or what somebody removes, may make room.
async fn conclude(recorder: &Recorder, ending: Ending, relay: &Relay, hold: Duration) -> anyhow::Result<()> {
    loop {
        let Err(error) = recorder.finish(ending.clone()) else { return Ok(()) };
        tracing::error!(%error, "the result cannot be written; it is tried again");
        let silent = relay.told.silent_for();
        if silent >= hold {
            return Err(error).context("the result cannot be written");
        }
        tokio::time::sleep(CONCLUDE_AGAIN).await;
    }
}

/// Until the server has everything up to the `last` event, or nobody comes for it. A signal ends the wait only when
/// nothing can be lost by it.
pub(crate) async fn wait_for_server(relay: &Relay, last: u64, stop: &Stop, hold: Duration) {
    let safe_to_go = async {
        stop.ordered().await;
        while relay.told.acked() < last {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        released = relay.told.released_within(hold) => tracing::info!(released, "the server has been waited for"),
        () = safe_to_go => tracing::info!("asked to go, and the server has everything"),
    }
}

/// The attempt, or a part of it, as a task of its own: if it panics, that is the ending.
pub(crate) async fn guarded<T: Send + 'static>(
    work: impl Future<Output = Result<T, Ending>> + Send + 'static,
) -> Result<T, Ending> {
    tokio::spawn(work).await.unwrap_or_else(|error| {
        tracing::error!(%error, "the attempt panicked");
        Err(Ending::infrastructure("agent", "an error in the agent itself"))
    })
}

/// Where things lie in the workspace.
pub(crate) struct Workspace {
    tree: PathBuf,
    home: PathBuf,
    generated: PathBuf,
    metadata: PathBuf,
}

impl Workspace {
    pub fn of(spec: &AgentSpec) -> Self {
        let root = &spec.files.workspace;
        Self {
            tree: root.join("tree"),
            home: root.join("home"),
            generated: root.join("dockerfile"),
            metadata: root.join("metadata.json"),
        }
    }
}

async fn attempt(spec: &AgentSpec, recorder: &Recorder, stop: &Stop) -> Result<Ending, Ending> {
    let workspace = Workspace::of(spec);
    let plan = prepare(spec, &workspace, recorder, stop).await?;
    let daemon = daemon::ensure(&spec.buildkit, recorder, stop).await?;
    let group = spec.limits.cgroup.as_ref().and_then(|limits| match Group::limit(limits) {
        Ok(group) => Some(group),
        Err(error) => {
            recorder.note("limits_unavailable", [("reason", error.to_string())]);
            None
        }
    });
    build(spec, &workspace, &plan, &daemon, group, recorder, stop).await
}

/// The commit in the workspace, and what is to be built of it.
pub(crate) async fn prepare(
    spec: &AgentSpec,
    workspace: &Workspace,
    recorder: &Recorder,
    stop: &Stop,
) -> Result<Plan, Ending> {
    let places = checkout::Places {
        tree: &workspace.tree,
        home: &workspace.home,
        credential: spec.files.git_credential.as_deref(),
    };
    checkout::run(&spec.source, &places, recorder, stop).await?;
    preflight::run(&spec.dockerfile, &spec.source.commit, &workspace.tree, &workspace.generated, recorder)
}

/// Runs BuildKit; what the `group` uses meanwhile is written down.
pub(crate) async fn build(
    spec: &AgentSpec,
    workspace: &Workspace,
    plan: &Plan,
    daemon: &Daemon,
    group: Option<Group>,
    recorder: &Recorder,
    stop: &Stop,
) -> Result<Ending, Ending> {
    let sampler = group.and_then(|group| Sampler::new(group, spec.buildkit.state_dir.clone(), recorder));
    let (building, until) = oneshot::channel();
    let sampling = sampler.map(|sampler| tokio::spawn(sampler.run(until)));
    let places = buildctl::Places { metadata: &workspace.metadata, home: &workspace.home };
    let ending = buildctl::run(spec, plan, &places, daemon, recorder, stop).await;
    drop(building);
    if let Some(sampling) = sampling {
        let _ = sampling.await;
    }
    Ok(ending)
}

/// Room on the spool's disk that is kept for the result: a full disk must not cost a build its end.
pub(crate) struct Reserve(PathBuf);

impl Reserve {
    pub fn beside(spool: &Path) -> Self {
        let path = spool.with_extension("reserve");
        if let Err(error) = std::fs::write(&path, [1; RESERVE_BYTES]) {
            tracing::warn!(%error, "no room is kept for the result");
        }
        Self(path)
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Takes the folder for this process; none where another agent has it.
fn take_folder(folder: &Path) -> anyhow::Result<Option<File>> {
    let path = folder.join(LOCK_FILE);
    let lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("{} cannot be opened", path.display()))?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(None);
    }
    lock.set_len(0)?;
    io::Write::write_all(&mut &lock, std::process::id().to_string().as_bytes())?;
    Ok(Some(lock))
}

pub(crate) fn read_spec(folder: &Path) -> anyhow::Result<AgentSpec> {
    let path = folder.join("spec.json");
    let bytes = std::fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let spec: AgentSpec = serde_json::from_slice(&bytes).with_context(|| format!("{} is not clear", path.display()))?;
    anyhow::ensure!(spec.version <= VERSION, "the specification is of version {}, newer than this agent", spec.version);
    Ok(spec)
}

fn listen(socket: &Path) -> anyhow::Result<UnixListener> {
    // A socket of an agent that was cut off; we hold the folder's lock.
    if let Err(error) = std::fs::remove_file(socket)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error).context("the old socket cannot be removed");
    }
    let listener = UnixListener::bind(socket).with_context(|| format!("{} cannot be bound", socket.display()))?;
    std::fs::set_permissions(socket, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Takes the workspace away. Best effort: whoever removes the attempt's folder takes the rest.
fn clear(workspace: &Path) {
    if let Err(error) = std::fs::remove_dir_all(workspace)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "the workspace cannot be removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_ending_too() {
        let ending = guarded::<()>(async { panic!("on purpose") }).await.unwrap_err();
        assert_eq!((ending.end, ending.code.as_deref()), (AgentEnd::Infrastructure, Some("agent")));
        let ending = guarded::<()>(async { Err(Ending::of(AgentEnd::Failure)) }).await.unwrap_err();
        assert_eq!(ending.end, AgentEnd::Failure);
    }
}
