//! Runners: whatever gives a build to an agent and lets the server talk to it. What a runner knows is its own place
//! (processes on this machine, Pods in a cluster); what a build means is not its business.

pub mod kubernetes;
pub mod local;
pub mod relay;

use async_trait::async_trait;
use kiops_app::model::{BuildId, ProfileSize, ServiceId};
use kiops_events::spec::AgentSpec;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// What an attempt needs beside its specification: secrets, by value, on their way into files that only the agent reads.
pub struct StartSpec {
    /// `files` and `buildkit` are filled in by the runner, which alone knows its paths.
    pub spec: AgentSpec,
    /// Whose build it is, and what it may use.
    pub service: ServiceId,
    pub size: ProfileSize,
    /// Whether it may have what its place keeps for the service.
    pub keeps_state: bool,
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

/// What an attempt's place says about it where not all goes its way: a code with arguments, as a note of the log or a
/// failure has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Situation {
    pub code: &'static str,
    pub args: BTreeMap<String, String>,
    pub grade: Grade,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grade {
    /// It may pass by itself.
    Passing,
    /// It has lasted longer than it may.
    TooLong,
    /// It ended the attempt.
    Ended,
}

impl Grade {
    pub fn of(age_ms: i64, patience: Duration) -> Self {
        if age_ms > patience.as_millis() as i64 { Self::TooLong } else { Self::Passing }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// Not now: tried again.
    #[error("not reachable: {0}")]
    Unreachable(String),
    /// The attempt leaves nothing to talk to.
    #[error("nothing is left of the attempt")]
    Gone,
    /// Its place has no room for it now: asked again until that has lasted too long.
    #[error("{}", .0.code)]
    Waits(Situation),
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
    /// The longest that an attempt may wait in its place before anything is heard of it. The place keeps that limit.
    fn patience(&self) -> Duration {
        Duration::ZERO
    }
    /// How long the place may be away before an attempt that is to be started there is given up.
    fn absence(&self) -> Duration {
        Duration::from_secs(120)
    }
    /// What keeps the attempt from going on. None while there is nothing to say, and of places that cannot say it.
    async fn situation(&self, _: &BuildId, _: u32) -> Result<Option<Situation>, RunnerError> {
        Ok(None)
    }
    /// What ended the attempt beside itself, where its place knows. A place that learns it late is waited for, a little.
    async fn aftermath(&self, _: &BuildId, _: u32) -> Result<Option<Situation>, RunnerError> {
        Ok(None)
    }
    /// Takes away everything that the attempt left. Harmless when nothing is there.
    async fn release(&self, build: &BuildId, attempt: u32) -> Result<(), RunnerError>;
    /// Every attempt that has left anything in this runner's place.
    async fn list(&self) -> Result<Vec<(BuildId, u32)>, RunnerError>;
    /// The services of which it keeps something from one build to the next, apart from what all share.
    async fn keeps_for(&self) -> Result<Vec<ServiceId>, RunnerError> {
        Ok(Vec::new())
    }
    /// Takes away what it keeps for a service.
    async fn forget(&self, _: &ServiceId) -> Result<(), RunnerError> {
        Ok(())
    }
}
