//! The cluster: its API server is asked, then a probe is made there, followed to its end, and taken away again.

use super::judge::{self, CLAIMS, RIGHTS, Right, Seen};
use super::{Target, insecure};
use crate::clock::now_ms;
use crate::problems::random;
use crate::runner::kubernetes::situation::{self, BUILD, end_of};
use crate::runner::kubernetes::{KubernetesConfig, KubernetesRunner, Patience, is, manifest, probe, problem};
use crate::runner::relay::{self, Peer};
use crate::runner::{Grade, Runner, RunnerError, StartSpec};
use futures::future::join_all;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod, Secret};
use kiops_app::model::{BuildId, Finding, ServiceId};
use kiops_events::EventKind;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// One answer of the API server.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// From the Pod's making to the end of its container `build`.
const PROBE_LIMIT: Duration = Duration::from_secs(45);
/// What is under way when that has ended.
const AFTER_LIMIT: Duration = Duration::from_secs(6);
/// For the relay to answer: less, so that why it did not is still heard.
const TALK_LIMIT: Duration = Duration::from_secs(4);
/// For the visitor, a Pod of its own.
const VISIT_LIMIT: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// What may pass by itself is waited for as long as somebody may wait in front of a page.
const PATIENCE: Patience = Patience {
    capacity: Duration::from_secs(15),
    image: Duration::from_secs(30),
    container: Duration::from_secs(5),
    starting: PROBE_LIMIT,
    absence: ANSWER_LIMIT,
    quiet: Duration::from_secs(20),
};

pub struct ClusterCheck {
    client: Client,
    config: KubernetesConfig,
}

impl ClusterCheck {
    /// An own image that is empty was not set.
    pub fn new(client: Client, config: KubernetesConfig) -> Self {
        Self { client, config }
    }

    pub async fn run(&self, targets: &[Target], stopping: &CancellationToken) -> Vec<Finding> {
        let version = self.version().await;
        let answers = version.is_ok();
        let mut findings = vec![judge::api(version)];
        if !answers {
            return findings;
        }
        let (missing, namespace) = tokio::join!(self.missing_rights(), self.namespace());
        findings.push(match missing {
            Ok(missing) => judge::rights(&missing, &self.config.namespace),
            Err(error) => judge::api(Err(error)),
        });
        findings.extend(namespace.clone());
        if namespace.is_some_and(|finding| finding.code == "namespace_missing") {
            return findings;
        }
        if self.config.own_image.is_empty() {
            findings.push(Finding::failed("images", "images_unset"));
            return findings;
        }
        findings.extend(self.probe(targets, stopping).await);
        // One of the two knows.
        if !findings.iter().any(|finding| finding.name == "namespace") {
            let unseen =
                findings.iter().any(|finding| ["pod_rights", "pod_unreachable"].contains(&finding.code.as_str()));
            let finding = if unseen {
                Finding::skipped("namespace", "namespace_unseen")
            } else {
                Finding::ok("namespace", "namespace_ok")
            };
            findings.insert(2, finding.with("namespace", &self.config.namespace));
        }
        findings
    }

    async fn version(&self) -> Result<String, RunnerError> {
        match answered(self.client.apiserver_version()).await {
            Ok(info) => Ok(info.git_version),
            // The login is right, and the cluster tells its version not to everybody.
            Err(RunnerError::Refused { code: "cluster_rights", .. }) => Ok(String::new()),
            Err(error) => Err(error),
        }
    }

    /// Every account may ask what it may do itself.
    async fn missing_rights(&self) -> Result<Vec<Right>, RunnerError> {
        let needed = RIGHTS.iter().filter(|(resource, _)| *resource != CLAIMS || self.config.state.is_some());
        let answers = join_all(needed.map(|right| async { Ok((*right, self.may(right).await?)) })).await;
        let answers: Vec<(Right, bool)> = answers.into_iter().collect::<Result<_, RunnerError>>()?;
        Ok(answers.into_iter().filter(|(_, may)| !may).map(|(right, _)| right).collect())
    }

    async fn may(&self, (resource, verb): &Right) -> Result<bool, RunnerError> {
        let (resource, part) = resource.split_once('/').unwrap_or((resource, ""));
        let asked = ResourceAttributes {
            namespace: Some(self.config.namespace.clone()),
            resource: Some(resource.to_owned()),
            subresource: (!part.is_empty()).then(|| part.to_owned()),
            verb: Some((*verb).to_owned()),
            ..ResourceAttributes::default()
        };
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(asked), non_resource_attributes: None },
            ..SelfSubjectAccessReview::default()
        };
        let reviews = Api::all(self.client.clone());
        let answer = answered(reviews.create(&PostParams::default(), &review)).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    /// None where the account may not look, which is how it should be.
    async fn namespace(&self) -> Option<Finding> {
        let name = &self.config.namespace;
        let found = answered(Api::<Namespace>::all(self.client.clone()).get_opt(name)).await.ok()?;
        Some(match found {
            Some(_) => Finding::ok("namespace", "namespace_ok").with("namespace", name),
            None => Finding::failed("namespace", "namespace_missing").with("namespace", name),
        })
    }

    async fn probe(&self, targets: &[Target], stopping: &CancellationToken) -> Vec<Finding> {
        let probe = Probe::new(self, targets);
        probe.sweep().await;
        let seen = match probe.make().await {
            Ok(pod) => Ok(probe.follow(&pod, stopping).await),
            Err(error) => Err(judge::refused(&error, &self.config)),
        };
        let left = probe.take_away().await;
        let seen = match seen {
            Ok(seen) => seen,
            Err(refused) => return vec![refused],
        };
        let mut findings = judge::seen(&self.config, &seen);
        if !left.is_empty() {
            findings.push(Finding::warning("pod", "left_behind").with("names", left.join(", ")));
        }
        findings
    }
}

/// One probe's objects.
struct Probe<'a> {
    config: &'a KubernetesConfig,
    runner: Arc<KubernetesRunner>,
    pods: Api<Pod>,
    secrets: Api<Secret>,
    claims: Api<PersistentVolumeClaim>,
    build: BuildId,
    start: StartSpec,
    registries: Vec<String>,
}

impl<'a> Probe<'a> {
    fn new(check: &'a ClusterCheck, targets: &[Target]) -> Self {
        let config = &check.config;
        let build = BuildId::from_random(random());
        let mut start = probe::start(&build, ServiceId::from_random(random()), random::<32>().to_vec());
        manifest::settle(config, &mut start);
        start.spec.buildkit.insecure_registries = insecure(&config.insecure_registries, targets);
        let client = &check.client;
        Self {
            config,
            runner: Arc::new(KubernetesRunner::new(Arc::new(client.clone().into()), config.clone())),
            pods: Api::namespaced(client.clone(), &config.namespace),
            secrets: Api::namespaced(client.clone(), &config.namespace),
            claims: Api::namespaced(client.clone(), &config.namespace),
            build,
            start,
            registries: targets.iter().map(|target| target.host.clone()).collect(),
        }
    }

    fn name(&self) -> String {
        probe::name(&self.build)
    }

    /// What a check that was killed has left. Whoever cannot be asked is asked by the next one.
    async fn sweep(&self) {
        let labels = format!("{}={},{}", manifest::LABEL_INSTALLATION, self.config.installation, probe::LABEL_PROBE);
        let labels = ListParams::default().labels(&labels);
        let Ok(left) = answered(self.secrets.list_metadata(&labels)).await else { return };
        for secret in left.items {
            let born = secret.creation_timestamp().map_or(i64::MAX, |time| time.0.as_millisecond());
            if now_ms().saturating_sub(born) > probe::DEADLINE.as_millis() as i64 {
                let name = secret.name_any();
                tracing::info!(name, "an earlier check has left something behind");
                // The rest belongs to it.
                let _ = delete(&self.secrets, &name).await;
            }
        }
    }

    async fn make(&self) -> Result<Value, RunnerError> {
        let secret = probe::secret(self.config, &self.start).map_err(anyhow::Error::from)?;
        let secret = create(&self.secrets, secret).await?;
        let uid = secret.uid().unwrap_or_default();
        if let Some(storage) = &self.config.state {
            let owner = json!({ "apiVersion": "v1", "kind": "Secret", "name": self.name(), "uid": uid });
            create(&self.claims, probe::claim(self.config, storage, &self.start, &owner)).await?;
        }
        let pod = probe::pod(self.config, &self.start, &uid, &self.registries);
        create(&self.pods, pod.clone()).await?;
        Ok(pod)
    }

    /// Until the container `build` has ended, something hopeless is seen, or the time is up.
    async fn follow(&self, made: &Value, stopping: &CancellationToken) -> Seen {
        let (mut seen, since) = (Seen::default(), Instant::now());
        let (mut talk, mut visit) = (None, None);
        loop {
            let Ok(pod) = answered(self.pods.get_opt(&self.name())).await else {
                if since.elapsed() > PROBE_LIMIT {
                    break;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
                continue;
            };
            let Some(pod) = pod else {
                seen.situation = Some(situation::deleted());
                break;
            };
            seen.took_ms = since.elapsed().as_millis() as u64;
            if talk.is_none() && situation::relay_runs(&pod) {
                talk = Some(self.talk());
            }
            if let (true, None, Some(address)) = (situation::runs(&pod, "checkout"), &visit, address_of(&pod)) {
                visit = Some(self.send_visitor(made, &address));
            }
            seen.without_git = end_of(&pod, "checkout").map(|end| end.message.clone().unwrap_or_default());
            if let Some(end) = end_of(&pod, BUILD) {
                let said = end.message.clone().unwrap_or_default();
                match serde_json::from_str(&said) {
                    Ok(report) => seen.report = Some(report),
                    Err(_) => seen.last_word = Some(format!("{} {said}", end.reason.as_deref().unwrap_or_default())),
                }
                break;
            }
            seen.situation = self.runner.situation_of(&pod, &PATIENCE).await;
            let hopeless = seen.situation.as_ref().is_some_and(|found| found.grade != Grade::Passing);
            if hopeless || since.elapsed() > PROBE_LIMIT {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = stopping.cancelled() => {
                    seen.stopped = true;
                    break;
                }
            }
        }
        let talked = talk.is_some();
        let (talk, visit) = tokio::join!(ended(talk, AFTER_LIMIT), ended(visit, VISIT_LIMIT));
        seen.relay = talked.then(|| talk.unwrap_or_else(|| Err("it took too long".to_owned())));
        seen.visited = visit.flatten();
        seen.claim = self.claim_phase().await;
        seen
    }

    /// The relay's whole conversation, as a build has it, up to its last event.
    fn talk(&self) -> JoinHandle<Result<u64, String>> {
        let peer = Peer { build: self.build.clone(), attempt: probe::ATTEMPT, key: self.start.relay_key.clone() };
        let runner = self.runner.clone();
        tokio::spawn(async move {
            let since = Instant::now();
            loop {
                let opened = match runner.connect(&peer.build, peer.attempt).await {
                    Ok(io) => relay::open(io, &peer, 0).await.map_err(|error| error.to_string()),
                    Err(error) => Err(error.to_string()),
                };
                match opened {
                    Ok(conversation) => {
                        let ms = since.elapsed().as_millis() as u64;
                        return heard_out(conversation).await.map(|()| ms);
                    }
                    Err(error) if since.elapsed() > TALK_LIMIT => return Err(error),
                    Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
                }
            }
        })
    }

    /// None where there was no visitor to ask.
    fn send_visitor(&self, made: &Value, address: &str) -> JoinHandle<Option<bool>> {
        let visitor = probe::visitor(self.config, &self.build, made, address);
        let (pods, name) = (self.pods.clone(), probe::visitor_name(&self.build));
        tokio::spawn(async move {
            create(&pods, visitor).await.ok()?;
            loop {
                let pod = pods.get_opt(&name).await.ok()??;
                if let Some(end) = end_of(&pod, "visitor") {
                    // Of a container that did not start this says nothing.
                    return match end.exit_code {
                        0 => Some(true),
                        1 => Some(false),
                        _ => None,
                    };
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        })
    }

    async fn claim_phase(&self) -> Option<String> {
        self.config.state.as_ref()?;
        let claim = answered(self.claims.get_opt(&manifest::claim_name(&self.start.service))).await.ok()??;
        claim.status?.phase
    }

    /// Gives the names of what could not be taken away.
    async fn take_away(&self) -> Vec<String> {
        let name = self.name();
        let mut left = Vec::new();
        for pod in [probe::visitor_name(&self.build), name.clone()] {
            left.extend(delete(&self.pods, &pod).await);
        }
        if self.config.state.is_some() {
            left.extend(delete(&self.claims, &manifest::claim_name(&self.start.service)).await);
        }
        left.extend(delete(&self.secrets, &name).await);
        left
    }
}

fn address_of(pod: &Pod) -> Option<String> {
    let ip: std::net::IpAddr = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
    Some(std::net::SocketAddr::new(ip, probe::DOOR_PORT).to_string())
}

async fn heard_out(mut conversation: relay::Conversation) -> Result<(), String> {
    loop {
        let batch = conversation.next().await.map_err(|error| error.to_string())?;
        if let Some(last) = batch.last() {
            conversation.ack(last.seq);
        }
        if batch.iter().any(|event| matches!(event.kind, EventKind::Result(_))) {
            conversation.release().await;
            return Ok(());
        }
    }
}

/// What a task that was begun comes to, within the time that is left for it.
async fn ended<T>(task: Option<JoinHandle<T>>, limit: Duration) -> Option<T> {
    let mut task = task?;
    match timeout(limit, &mut task).await {
        Ok(ended) => ended.ok(),
        Err(_) => {
            task.abort();
            None
        }
    }
}

/// What the API server says, in time.
async fn answered<T>(question: impl Future<Output = kube::Result<T>>) -> Result<T, RunnerError> {
    let answer = timeout(ANSWER_LIMIT, question).await;
    let late = |_| RunnerError::Unreachable(format!("no answer within {} s", ANSWER_LIMIT.as_secs()));
    answer.map_err(late)?.map_err(problem)
}

async fn create<K>(api: &Api<K>, object: Value) -> Result<K, RunnerError>
where
    K: Resource + Clone + Debug + DeserializeOwned + serde::Serialize,
{
    let object = serde_json::from_value(object).map_err(anyhow::Error::from)?;
    answered(api.create(&PostParams::default(), &object)).await
}

/// At once; gives the name where it stays.
async fn delete<K>(api: &Api<K>, name: &str) -> Option<String>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    // What is not there is as good as deleted.
    let deleted = async {
        match api.delete(name, &now).await {
            Err(error) if !is(&error, 404) => Err(error),
            _ => Ok(()),
        }
    };
    let error = answered(deleted).await.err()?;
    tracing::warn!(name, %error, "the check's own object could not be deleted");
    Some(name.to_owned())
}
