//! The self-test: what the place where builds run really gives, found out by trying it, and what to do where something is
//! missing. A finding is a code with arguments; its sentences stand in the locales under `finding.<code>`.
//!
//! | module | its one idea |
//! |---|---|
//! | `cluster` | asks the API server, and makes a Pod like a build's in which the agent looks around |
//! | `local` | asks for the programs, and has the agent start a BuildKit of its own beside the builds' |
//! | `judge` | what the answers mean: pure |
//!
//! What never enters: a change of anything that builds use.

mod cluster;
mod judge;
mod local;

use cluster::ClusterCheck;
pub use local::LocalCheck;

use crate::clock::now_ms;
use crate::problems::internal;
use crate::registry::RegistryClient;
use crate::runner::RunnerError;
use crate::runner::kubernetes::{Connection, KubernetesConfig};
use futures::future::join_all;
use kiops_app::error::{Problem, Result};
use kiops_app::model::{CheckReport, Finding, RunnerKind};
use kiops_events::probe::MAX_REGISTRIES;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// A registry that builds push to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    pub host: String,
    pub plain_http: bool,
}

/// Registries without TLS: BuildKit takes none twice.
fn insecure(configured: &[String], targets: &[Target]) -> Vec<String> {
    let plain = targets.iter().filter(|target| target.plain_http).map(|target| &target.host);
    let all: BTreeSet<&String> = configured.iter().chain(plain).collect();
    all.into_iter().cloned().collect()
}

/// Where builds run.
pub enum Place {
    Kubernetes(Arc<Connection>, Box<KubernetesConfig>),
    Local(LocalCheck),
}

/// One check at a time, and what the last one found.
pub struct Check {
    place: Place,
    registry: Arc<RegistryClient>,
    running: Arc<tokio::sync::Mutex<()>>,
    last: Mutex<Option<CheckReport>>,
    stopping: CancellationToken,
}

impl Check {
    /// A check that is under way when `stopping` is cancelled ends early, and takes away what it has made all the same.
    pub fn new(place: Place, registry: Arc<RegistryClient>, stopping: CancellationToken) -> Self {
        Self { place, registry, running: Arc::default(), last: Mutex::default(), stopping }
    }

    pub fn runner(&self) -> RunnerKind {
        match self.place {
            Place::Kubernetes(..) => RunnerKind::Kubernetes,
            Place::Local(_) => RunnerKind::Local,
        }
    }

    pub fn last(&self) -> Option<CheckReport> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Refused while another one runs. Goes on when nobody waits for it any more: what it makes is to be taken away.
    pub async fn run(self: &Arc<Self>, targets: Vec<Target>) -> Result<CheckReport> {
        let one = self.running.clone().try_lock_owned().map_err(|_| Problem::conflict("check_running"))?;
        let check = self.clone();
        let running = tokio::spawn(async move {
            let report = check.look(&targets).await;
            *check.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(report.clone());
            drop(one);
            report
        });
        running.await.map_err(|error| internal("the check", error))
    }

    async fn look(&self, targets: &[Target]) -> CheckReport {
        let (checked_at, since) = (now_ms(), Instant::now());
        let there = async {
            match &self.place {
                Place::Kubernetes(connection, config) => match connection.client().await {
                    Ok(client) => {
                        ClusterCheck::new(client, KubernetesConfig::clone(config)).run(targets, &self.stopping).await
                    }
                    Err(reason) => vec![judge::api(Err(RunnerError::Unreachable(reason)))],
                },
                Place::Local(local) => local.run(targets, &self.stopping).await,
            }
        };
        let here = join_all(targets.iter().map(|target| self.reaches(target)));
        let (mut findings, from_here) = tokio::join!(there, here);
        findings.extend(from_here);
        let unasked = targets.get(MAX_REGISTRIES..).unwrap_or_default();
        if !unasked.is_empty() {
            let hosts: Vec<_> = unasked.iter().map(|target| target.host.as_str()).collect();
            findings.push(Finding::skipped("registry", "registry_more").with("hosts", hosts.join(", ")));
        }
        CheckReport { runner: self.runner(), checked_at, took_ms: since.elapsed().as_millis() as i64, findings }
    }

    /// The server itself asks a registry how large an image is.
    async fn reaches(&self, target: &Target) -> Finding {
        match self.registry.reach(&target.host, target.plain_http).await {
            Ok(()) => Finding::ok("registry_server", "registry_server_ok").with("host", &target.host),
            Err(error) => Finding::failed("registry_server", "registry_server_failed")
                .with("host", &target.host)
                .with("reason", error),
        }
    }
}

#[cfg(test)]
mod tests;
