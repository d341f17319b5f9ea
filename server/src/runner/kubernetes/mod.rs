//! Builds in Pods: a Secret and a Pod an attempt, in one namespace, found by their labels.
//!
//! The relay is reached through the API server's port-forward, so nothing in the cluster has to be reachable from here.
//! What a Pod looks like is [`manifest`]'s business, what its status means [`situation`]'s. Everything is asked of the API
//! server at the moment when it is needed: there is no memory of Pods that could be behind. What never enters: what a
//! build means.

mod config;
mod connection;
pub(crate) mod manifest;
pub(crate) mod probe;
pub(crate) mod situation;
#[cfg(test)]
mod tests;

use super::{Grade, RelayIo, RunState, Runner, RunnerError, Situation, StartSpec};
use crate::clock::now_ms;
use crate::sync_points::{Point, SyncPoints};
use anyhow::Context;
use async_trait::async_trait;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod, Secret};
use kiops_app::model::{BuildId, ServiceId};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Resource, ResourceExt};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use config::{Isolation, KubernetesConfig, Patience, StateStorage};
pub use connection::Connection;

/// A container's end is in its Pod's status after the kubelet has looked, which is every second.
const KUBELET_LAG: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Far longer than an API server at work takes, and longer than a relay is silent.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// The cluster's API: by this kubeconfig, else by the Pod's own account or the user's usual one.
pub async fn client(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    let mut config = match kubeconfig {
        Some(file) => {
            let read = Kubeconfig::read_from(file).with_context(|| format!("the kubeconfig {}", file.display()))?;
            kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("the kubeconfig {}", file.display()))?
        }
        None => kube::Config::infer().await.context("neither a Pod's account nor a kubeconfig was found")?,
    };
    // Else a request on a connection that has gone silent would wait until the kernel gives it up, a quarter of an hour
    // later, or for ever. Counted from what was last sent: a forwarded port has the relay's own beats.
    config.read_timeout = Some(ANSWER_LIMIT);
    config.reset_reader_on_write = true;
    config.connect_timeout = Some(ANSWER_LIMIT);
    Ok(Client::try_from(config)?)
}

pub struct KubernetesRunner {
    config: KubernetesConfig,
    connection: Arc<Connection>,
    sync: SyncPoints,
}

impl KubernetesRunner {
    pub fn new(connection: Arc<Connection>, config: KubernetesConfig) -> Self {
        Self { config, connection, sync: SyncPoints::from_env() }
    }

    /// Builds wait for a cluster that cannot be reached yet as for one that is away.
    async fn api<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Result<Api<K>, RunnerError> {
        let client = self.connection.client().await.map_err(RunnerError::Unreachable)?;
        Ok(Api::namespaced(client, &self.config.namespace))
    }

    async fn pods(&self) -> Result<Api<Pod>, RunnerError> {
        self.api().await
    }

    async fn secrets(&self) -> Result<Api<Secret>, RunnerError> {
        self.api().await
    }

    async fn claims(&self) -> Result<Api<PersistentVolumeClaim>, RunnerError> {
        self.api().await
    }

    async fn pod(&self, build: &BuildId, attempt: u32) -> Result<Option<Pod>, RunnerError> {
        let name = manifest::name(build.as_str(), attempt);
        let pod = self.pods().await?.get_opt(&name).await.map_err(problem)?;
        Ok(pod.filter(|pod| self.is_ours(pod)))
    }

    /// What the Pod's status says, and its events where the status does not.
    pub(crate) async fn situation_of(&self, pod: &Pod, patience: &Patience) -> Option<Situation> {
        let found = situation::situation(pod, now_ms(), patience)?;
        Some(if found.code == situation::STARTING { self.explained(found, pod).await } else { found })
    }

    /// Why a Pod does not start. Without the right to read its events it is just starting.
    async fn explained(&self, starting: Situation, pod: &Pod) -> Situation {
        let of_pod = format!("involvedObject.uid={},type=Warning", pod.uid().unwrap_or_default());
        let asked = async {
            let events: Api<Event> = self.api().await?;
            events.list(&ListParams::default().fields(&of_pod)).await.map_err(problem)
        };
        let warnings = match asked.await {
            Ok(warnings) => warnings.items,
            Err(error) => {
                tracing::debug!(pod = pod.name_any(), %error, "a Pod's events cannot be read");
                return starting;
            }
        };
        let latest = warnings.into_iter().max_by_key(|warning| warning.last_timestamp.clone());
        let Some(warning) = latest else { return starting };
        let text = |text: Option<String>| text.unwrap_or_default();
        situation::explained(starting, &text(warning.reason), &text(warning.message))
    }

    fn own(&self) -> ListParams {
        ListParams::default().labels(&format!("{}={}", manifest::LABEL_INSTALLATION, self.config.installation))
    }

    /// A name can be anybody's; the label is this installation's.
    fn is_ours(&self, object: &impl ResourceExt) -> bool {
        object.labels().get(manifest::LABEL_INSTALLATION) == Some(&self.config.installation)
    }
}

#[async_trait]
impl Runner for KubernetesRunner {
    async fn start(&self, mut start: StartSpec) -> Result<(), RunnerError> {
        manifest::settle(&self.config, &mut start);
        let secret = manifest::secret(&self.config, &start).map_err(anyhow::Error::from)?;
        let secret: Secret = serde_json::from_value(secret).map_err(anyhow::Error::from)?;
        // The Secret first: it owns the Pod, so whatever is left of a start goes with it.
        let name = manifest::name(&start.spec.build, start.spec.attempt);
        let secret = match self.secrets().await?.create(&PostParams::default(), &secret).await {
            Ok(secret) => secret,
            Err(error) if is(&error, 409) => self.secrets().await?.get(&name).await.map_err(problem)?,
            Err(error) => return Err(no_room(error, None, &self.config.patience)),
        };
        self.sync.reach(Point::MidStart);
        let uid = secret.uid().unwrap_or_default();
        if let Some(storage) = manifest::storage(&self.config, start.keeps_state) {
            let claim = manifest::claim(&self.config, storage, &start);
            let claim: PersistentVolumeClaim = serde_json::from_value(claim).map_err(anyhow::Error::from)?;
            match self.claims().await?.create(&PostParams::default(), &claim).await {
                Ok(_) => {}
                // An earlier build's: that is what it is for.
                Err(error) if is(&error, 409) => {}
                Err(error) => return Err(no_room(error, Some(&secret), &self.config.patience)),
            }
        }
        let pod = manifest::pod(&self.config, &start, &uid);
        let pod: Pod = serde_json::from_value(pod).map_err(anyhow::Error::from)?;
        match self.pods().await?.create(&PostParams::default(), &pod).await {
            Ok(_) => Ok(()),
            // An earlier start's.
            Err(error) if is(&error, 409) => Ok(()),
            Err(error) => Err(no_room(error, Some(&secret), &self.config.patience)),
        }
    }

    async fn connect(&self, build: &BuildId, attempt: u32) -> Result<Box<dyn RelayIo>, RunnerError> {
        let pod = self.pod(build, attempt).await.map_err(passing)?.ok_or(RunnerError::Gone)?;
        if situation::is_over(&pod) {
            return Err(RunnerError::Gone);
        }
        if !situation::relay_runs(&pod) {
            return Err(RunnerError::Unreachable("the Pod does not run yet".to_owned()));
        }
        let name = manifest::name(build.as_str(), attempt);
        let mut forward =
            self.pods().await?.portforward(&name, &[manifest::RELAY_PORT]).await.map_err(problem).map_err(passing)?;
        let stream = forward.take_stream(manifest::RELAY_PORT);
        Ok(Box::new(stream.ok_or_else(|| RunnerError::Unreachable("the API server forwards no port".to_owned()))?))
    }

    async fn cancel(&self, build: &BuildId, attempt: u32) -> Result<(), RunnerError> {
        let Some(pod) = self.pod(build, attempt).await? else { return Ok(()) };
        let parameters = DeleteParams {
            grace_period_seconds: Some(manifest::GRACE_S as u32),
            preconditions: Some(Preconditions { uid: pod.uid(), resource_version: None }),
            ..DeleteParams::default()
        };
        match self.pods().await?.delete(&pod.name_any(), &parameters).await {
            Ok(_) => Ok(()),
            Err(error) if is(&error, 404) || is(&error, 409) => Ok(()),
            Err(error) => Err(problem(error)),
        }
    }

    async fn state(&self, build: &BuildId, attempt: u32) -> Result<RunState, RunnerError> {
        Ok(match self.pod(build, attempt).await? {
            None => RunState::Gone,
            Some(pod) if situation::is_over(&pod) => RunState::Gone,
            Some(_) => RunState::Alive,
        })
    }

    fn patience(&self) -> Duration {
        self.config.patience.altogether()
    }

    fn absence(&self) -> Duration {
        self.config.patience.absence
    }

    async fn situation(&self, build: &BuildId, attempt: u32) -> Result<Option<Situation>, RunnerError> {
        let Some(pod) = self.pod(build, attempt).await? else { return Ok(None) };
        Ok(self.situation_of(&pod, &self.config.patience).await)
    }

    async fn aftermath(&self, build: &BuildId, attempt: u32) -> Result<Option<Situation>, RunnerError> {
        let since = Instant::now();
        loop {
            let Some(pod) = self.pod(build, attempt).await? else { return Ok(Some(situation::deleted())) };
            let found = situation::situation(&pod, now_ms(), &self.config.patience);
            if let Some(found) = found.filter(|found| found.grade == Grade::Ended) {
                return Ok(Some(found));
            }
            if situation::build_ended(&pod) || since.elapsed() > KUBELET_LAG {
                return Ok(None);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn release(&self, build: &BuildId, attempt: u32) -> Result<(), RunnerError> {
        let name = manifest::name(build.as_str(), attempt);
        if self.pod(build, attempt).await?.is_some() {
            // It is asked no more.
            let patch = json!({ "metadata": { "finalizers": null } });
            self.pods()
                .await?
                .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
                .await
                .map(drop)
                .or_else(missing)?;
            let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
            self.pods().await?.delete(&name, &now).await.map(drop).or_else(missing)?;
        }
        let secret = self.secrets().await?.get_opt(&name).await.map_err(problem)?;
        if secret.is_some_and(|secret| self.is_ours(&secret)) {
            self.secrets().await?.delete(&name, &DeleteParams::default()).await.map(drop).or_else(missing)?;
        }
        Ok(())
    }

    async fn list(&self) -> Result<Vec<(BuildId, u32)>, RunnerError> {
        let own = self.own();
        let of = |labels: &BTreeMap<String, String>| {
            let build = labels.get(manifest::LABEL_BUILD)?.parse().ok()?;
            Some((build, labels.get(manifest::LABEL_ATTEMPT)?.parse().ok()?))
        };
        let mut found: Vec<(BuildId, u32)> = Vec::new();
        let pods = self.pods().await?.list(&own).await.map_err(problem)?;
        found.extend(pods.items.iter().filter_map(|pod| of(pod.labels())));
        // Of a start that was killed before its Pod.
        let secrets = self.secrets().await?.list_metadata(&own).await.map_err(problem)?;
        found.extend(secrets.items.iter().filter_map(|secret| of(secret.labels())));
        found.sort();
        found.dedup();
        Ok(found)
    }

    async fn keeps_for(&self) -> Result<Vec<ServiceId>, RunnerError> {
        let claims = self.claims().await?.list_metadata(&self.own()).await.map_err(problem)?;
        let service = |labels: &BTreeMap<String, String>| labels.get(manifest::LABEL_SERVICE)?.parse().ok();
        Ok(claims.items.iter().filter_map(|claim| service(claim.labels())).collect())
    }

    async fn forget(&self, service: &ServiceId) -> Result<(), RunnerError> {
        let name = manifest::claim_name(service);
        let claim = self.claims().await?.get_opt(&name).await.map_err(problem)?;
        if claim.is_some_and(|claim| self.is_ours(&claim)) {
            self.claims().await?.delete(&name, &DeleteParams::default()).await.map(drop).or_else(missing)?;
        }
        Ok(())
    }
}

/// Where the namespace's quota is used up other builds may end. The Secret says since when this one waits; one that is not
/// there itself is waited for by whoever starts it.
fn no_room(error: kube::Error, secret: Option<&Secret>, patience: &Patience) -> RunnerError {
    match problem(error) {
        RunnerError::Refused { code: "cluster_quota", detail } => {
            let since_ms = secret.and_then(|s| s.creation_timestamp()).map(|time| time.0.as_millisecond());
            RunnerError::Waits(situation::over_quota(&detail, since_ms, now_ms(), patience))
        }
        problem => problem,
    }
}

pub(crate) fn is(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

fn missing(error: kube::Error) -> Result<(), RunnerError> {
    if is(&error, 404) { Ok(()) } else { Err(problem(error)) }
}

/// Of a build that runs: a login that has run out, or rights that were taken, are put right while it goes on.
fn passing(error: RunnerError) -> RunnerError {
    match error {
        RunnerError::Refused { code, detail } => RunnerError::Unreachable(format!("{code}: {detail}")),
        error => error,
    }
}

/// A person's business, or one of a moment.
pub(crate) fn problem(error: kube::Error) -> RunnerError {
    let kube::Error::Api(status) = &error else { return RunnerError::Unreachable(error.to_string()) };
    let refused = |code| RunnerError::Refused { code, detail: status.message.clone() };
    let says = |text: &str| status.message.contains(text);
    match status.code {
        401 => refused("cluster_login"),
        // Of a moment: what there is has not been counted yet.
        403 if says("status unknown for quota") => RunnerError::Unreachable(status.message.clone()),
        403 if says("exceeded quota") => refused("cluster_quota"),
        403 if says("violates PodSecurity") => refused("cluster_policy"),
        // An admission webhook, whatever it says.
        400 | 403 | 422 if says("denied the request") => refused("cluster_refused"),
        // RBAC names what a user cannot do; whatever else forbids it speaks for itself.
        403 if says(" cannot ") && (says(" resource ") || says(" path ")) => refused("cluster_rights"),
        403 if says("is being terminated") => refused("cluster_namespace"),
        404 if says("namespaces") => refused("cluster_namespace"),
        400 | 422 => refused("cluster_invalid"),
        403 => refused("cluster_refused"),
        _ => RunnerError::Unreachable(status.message.clone()),
    }
}
