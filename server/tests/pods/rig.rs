//! What the stories share beyond `builds_rig`: one cluster of one node, the server's account in it with the rights that
//! `deploy/kubernetes` gives and no others, and hosts that Pods can reach.

use crate::builds_rig::*;
use crate::stories::{Place, Victim};
use kiops_app::model::*;
use kiops_rig::Furnished;
use kiops_server::git::AddressPolicy;
use kiops_server::runner::Runner;
use kiops_server::runner::kubernetes::{Connection, Isolation, KubernetesConfig, KubernetesRunner, Patience};
use kiops_server::store::BuildRow;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OnceCell, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub const NAMESPACE: &str = "kiwi-builds";

pub async fn pods() -> &'static Furnished {
    static PODS: OnceCell<Furnished> = OnceCell::const_new();
    PODS.get_or_init(|| async { Furnished::start(&pod_agent(), &hosts().await.ports()).await.unwrap() }).await
}

static TURNS: RwLock<()> = RwLock::const_new(());

/// Held by a story that needs the cluster as it is.
pub async fn together() -> RwLockReadGuard<'static, ()> {
    TURNS.read().await
}

/// Held by a story that stops parts of the cluster.
pub async fn alone() -> RwLockWriteGuard<'static, ()> {
    TURNS.write().await
}

/// A configuration for the rig's node; installations are told apart by name.
pub async fn config(installation: &str) -> KubernetesConfig {
    let port = port_of(&hosts().await.registry.address());
    let registry = format!("{}:{port}", pods().await.cluster.host_address());
    KubernetesConfig {
        namespace: NAMESPACE.into(),
        installation: installation.into(),
        builder_image: pods().await.builder_image.into(),
        own_image: pods().await.own_image.into(),
        isolation: Isolation::Rootless,
        image_pull_secrets: Vec::new(),
        node_selector: Default::default(),
        tolerations: Vec::new(),
        platform: None,
        proxies: Default::default(),
        authorities: None,
        dockerhub_mirrors: vec![registry.clone()],
        insecure_registries: vec![registry],
        addresses: AddressPolicy::default(),
        state: None,
        patience: Patience::default(),
    }
}

/// … with changes of its own.
pub async fn config_with(installation: &str, change: impl FnOnce(&mut KubernetesConfig)) -> KubernetesConfig {
    let mut config = config(installation).await;
    change(&mut config);
    config
}

/// A server whose builds run in Pods.
pub async fn world() -> World {
    open(Arc::new(Data::new()), |_| ()).await
}

/// The same over a data folder that may have seen another server, with a configuration of its own.
pub async fn open(data: Arc<Data>, change: impl FnOnce(&mut KubernetesConfig)) -> World {
    open_as(data, &pods().await.kubeconfig, change).await
}

/// … and with another account.
pub async fn open_as(data: Arc<Data>, kubeconfig: &Path, change: impl FnOnce(&mut KubernetesConfig)) -> World {
    open_with(data, kubeconfig, change, Wishes::default()).await
}

async fn open_with(
    data: Arc<Data>,
    kubeconfig: &Path,
    change: impl FnOnce(&mut KubernetesConfig),
    wishes: Wishes,
) -> World {
    let runner = runner_of(&data, kubeconfig, change).await;
    World::open(data, wishes_in(runner, wishes).await).await
}

async fn wishes_in(runner: Arc<dyn Runner>, wishes: Wishes) -> Wishes {
    Wishes {
        runner: Some(runner),
        cluster: Some(&pods().await.cluster),
        // The smallest: several Pods at once fit on the node.
        profile: Profile::Small,
        ..wishes
    }
}

async fn runner_of(data: &Data, kubeconfig: &Path, change: impl FnOnce(&mut KubernetesConfig)) -> Arc<dyn Runner> {
    let config = config_with(data.path.file_name().unwrap().to_str().unwrap(), change).await;
    Arc::new(KubernetesRunner::new(Arc::new(Connection::new(Some(kubeconfig.to_owned()))), config))
}

/// Where the stories of every runner are told, too.
pub struct InPods;

impl Place for InPods {
    async fn wishes(&self, data: &Data, wishes: Wishes) -> Wishes {
        wishes_in(runner_of(data, &pods().await.kubeconfig, |_| ()).await, wishes).await
    }

    async fn process(&self, world: &World, id: &BuildId, victim: Victim) -> i32 {
        let name = pod_name(&world.row(id).await);
        let cluster = &pods().await.cluster;
        let found = match victim {
            Victim::Agent => cluster.first_process(NAMESPACE, &name, "build").await,
            Victim::Daemon => cluster.first_process_called(NAMESPACE, &name, "build", "buildkitd").await,
        };
        found.unwrap() as i32
    }
}

pub async fn service_in(world: &World, dockerfile: &str, profile: Profile) -> ServiceId {
    let repo = world.hosts.repo(dockerfile).await;
    let settings = BuildSettings { profile, ..BuildSettings::default() };
    world.service_with(&repo, settings, world.registry_config(), Credentials::default()).await
}

pub fn pod_name(row: &BuildRow) -> String {
    format!("{}-{}", row.id, row.attempt)
}

/// For a failed test's message, and for what only the cluster knows.
pub async fn describe(row: &BuildRow) -> String {
    let name = pod_name(row);
    let cluster = &pods().await.cluster;
    let mut out =
        cluster.kubectl(&["-n", NAMESPACE, "describe", "pod", &name]).await.unwrap_or_else(|e| format!("{e:#}"));
    for container in ["agent", "checkout", "build", "relay"] {
        let said = cluster.kubectl(&["-n", NAMESPACE, "logs", &name, "-c", container]).await;
        out.push_str(&format!("\n== {container}\n{}", said.unwrap_or_else(|e| format!("{e:#}"))));
    }
    out
}

/// Names of this installation's Pods and Secrets.
pub async fn left_of(world: &World) -> Vec<String> {
    let label = format!("kiops.io/installation={}", world.data.path.file_name().unwrap().to_str().unwrap());
    let cluster = &pods().await.cluster;
    let said = cluster.kubectl(&["-n", NAMESPACE, "get", "pods,secrets", "-l", &label, "-o", "name"]).await.unwrap();
    said.lines().map(str::to_owned).collect()
}

/// Waits until nothing of a build is left in the cluster.
pub async fn nothing_left(world: &World) {
    let since = Instant::now();
    loop {
        let left = left_of(world).await;
        if left.is_empty() {
            return;
        }
        assert!(since.elapsed() < PATIENCE, "still there: {left:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// An object of the cluster.
pub async fn object(kind: &str, name: &str) -> Value {
    let said = pods().await.cluster.kubectl(&["-n", NAMESPACE, "get", kind, name, "-o", "json"]).await.unwrap();
    serde_json::from_str(&said).unwrap_or(json!(null))
}
