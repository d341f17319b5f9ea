//! A cluster whose kubeconfig may not be usable yet: the server runs all the same, builds wait as they do for an API server
//! that is away, and whoever mends the file need not start anything again.

use super::{KubernetesConfig, KubernetesRunner, client};
use crate::runner::{RelayIo, RunState, Runner, RunnerError, Situation, StartSpec};
use async_trait::async_trait;
use kiops_app::model::{BuildId, ServiceId};
use kube::Client;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;

/// The way to the cluster's API, made when it is first needed and can be.
pub struct Connection {
    /// None: by the Pod's own account, or the user's usual one.
    kubeconfig: Option<PathBuf>,
    client: OnceCell<Client>,
}

impl Connection {
    pub fn new(kubeconfig: Option<PathBuf>) -> Self {
        Self { kubeconfig, client: OnceCell::new() }
    }

    /// Or why not, as a sentence for whoever can mend it.
    pub async fn client(&self) -> Result<Client, String> {
        let made = self.client.get_or_try_init(|| client(self.kubeconfig.as_deref())).await;
        made.cloned().map_err(|error| format!("KIOPS_KUBECONFIG should name a kubeconfig that can be used: {error:#}"))
    }
}

pub struct LateRunner {
    connection: Arc<Connection>,
    config: KubernetesConfig,
    runner: OnceCell<KubernetesRunner>,
}

impl LateRunner {
    pub fn new(connection: Arc<Connection>, config: KubernetesConfig) -> Self {
        Self { connection, config, runner: OnceCell::new() }
    }

    async fn there(&self) -> Result<&KubernetesRunner, RunnerError> {
        let make = async || {
            let client = self.connection.client().await.map_err(RunnerError::Unreachable)?;
            Ok(KubernetesRunner::new(client, self.config.clone()))
        };
        self.runner.get_or_try_init(make).await
    }
}

#[async_trait]
impl Runner for LateRunner {
    async fn start(&self, start: StartSpec) -> Result<(), RunnerError> {
        self.there().await?.start(start).await
    }

    async fn connect(&self, build: &BuildId, attempt: u32) -> Result<Box<dyn RelayIo>, RunnerError> {
        self.there().await?.connect(build, attempt).await
    }

    async fn cancel(&self, build: &BuildId, attempt: u32) -> Result<(), RunnerError> {
        self.there().await?.cancel(build, attempt).await
    }

    async fn state(&self, build: &BuildId, attempt: u32) -> Result<RunState, RunnerError> {
        self.there().await?.state(build, attempt).await
    }

    fn patience(&self) -> Duration {
        self.config.patience.altogether()
    }

    fn absence(&self) -> Duration {
        self.config.patience.absence
    }

    async fn situation(&self, build: &BuildId, attempt: u32) -> Result<Option<Situation>, RunnerError> {
        self.there().await?.situation(build, attempt).await
    }

    async fn aftermath(&self, build: &BuildId, attempt: u32) -> Result<Option<Situation>, RunnerError> {
        self.there().await?.aftermath(build, attempt).await
    }

    async fn release(&self, build: &BuildId, attempt: u32) -> Result<(), RunnerError> {
        self.there().await?.release(build, attempt).await
    }

    async fn list(&self) -> Result<Vec<(BuildId, u32)>, RunnerError> {
        self.there().await?.list().await
    }

    async fn keeps_for(&self) -> Result<Vec<ServiceId>, RunnerError> {
        self.there().await?.keeps_for().await
    }

    async fn forget(&self, service: &ServiceId) -> Result<(), RunnerError> {
        self.there().await?.forget(service).await
    }
}
