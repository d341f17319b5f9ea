//! Runners: whatever gives a build to an agent and lets the server talk to it. What a runner knows is its own place
//! (processes on this machine, Pods in a cluster); what a build means is not its business.

pub mod local;
pub mod relay;

use async_trait::async_trait;
use kiops_app::model::BuildId;
use kiops_events::spec::AgentSpec;
use tokio::io::{AsyncRead, AsyncWrite};

/// What an attempt needs beside its specification: secrets, by value, on their way into files that only the agent reads.
pub struct StartSpec {
    /// `files` and `buildkit` are filled in by the runner, which alone knows its paths.
    pub spec: AgentSpec,
    pub relay_key: Vec<u8>,
    /// User and token.
    pub git_credential: Option<(String, String)>,
    /// Docker's `config.json`.
    pub docker_config: Vec<u8>,
    /// Further values that must never appear in a log.
    pub redact: Vec<String>,
}

/// Where an attempt stands in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// The agent runs, or its relay still holds the spool.
    Alive,
    /// The agent is gone but its spool can be read: `connect` works or will (the runner may have to serve it anew).
    Ended,
    /// Nothing is left of it.
    Gone,
}

#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// Not now: tried again.
    #[error("not reachable: {0}")]
    Unreachable(String),
    /// The attempt leaves nothing to talk to.
    #[error("nothing is left of the attempt")]
    Gone,
    /// A situation that a person must change, as a failure code with its explanation for the log.
    #[error("{code}: {detail}")]
    Refused { code: &'static str, detail: String },
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// A connection on which the relay's conversation is held.
pub trait RelayIo: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> RelayIo for T {}

#[async_trait]
pub trait Runner: Send + Sync {
    /// Idempotent by build and attempt: a second call finds the first one's agent.
    async fn start(&self, start: StartSpec) -> Result<(), RunnerError>;
    /// Opens a connection to the attempt's relay.
    async fn connect(&self, build: &BuildId, attempt: u32) -> Result<Box<dyn RelayIo>, RunnerError>;
    /// Asks the attempt to stop; harmless when it is over.
    async fn cancel(&self, build: &BuildId, attempt: u32) -> Result<(), RunnerError>;
    async fn state(&self, build: &BuildId, attempt: u32) -> Result<RunState, RunnerError>;
    /// Takes away everything that the attempt left. Harmless when nothing is there.
    async fn release(&self, build: &BuildId, attempt: u32) -> Result<(), RunnerError>;
    /// Every attempt that has left anything in this runner's place.
    async fn list(&self) -> Result<Vec<(BuildId, u32)>, RunnerError>;
}
