//! What an administrator says about the cluster and the Pods in it.

use kiops_events::address::AddressPolicy;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// How a build is kept apart from its node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// BuildKit as an ordinary user in a user namespace of its own making.
    #[default]
    Rootless,
    /// The whole Pod in a user namespace (`hostUsers: false`), BuildKit as its root.
    Userns,
    /// BuildKit as the node's root.
    Privileged,
}

/// How long a Pod may be in a state that may pass by itself.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// No node has room.
    pub capacity: Duration,
    /// An image cannot be pulled.
    pub image: Duration,
    /// A container cannot be made.
    pub container: Duration,
    /// It is being started, or should be gone, and nothing more is known.
    pub starting: Duration,
    /// The API does not answer while a Pod is to be made.
    pub absence: Duration,
    /// Until a Pod's slow start is worth a word.
    pub quiet: Duration,
}

impl Patience {
    /// One after the other: for the quota and then a node, for the images, for the containers.
    pub fn altogether(&self) -> Duration {
        self.capacity * 2 + self.image + self.container + self.starting
    }
}

impl Default for Patience {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        Self {
            capacity: minutes(10),
            image: minutes(5),
            container: minutes(1),
            starting: minutes(5),
            absence: minutes(10),
            quiet: Duration::from_secs(20),
        }
    }
}

/// Storage that keeps BuildKit's state, and with it the cache mounts, from one build of a service to its next.
#[derive(Clone, Debug)]
pub struct StateStorage {
    /// None: the cluster's default.
    pub class: Option<String>,
    /// As Kubernetes writes quantities: `20Gi`.
    pub size: String,
}

#[derive(Clone, Debug)]
pub struct KubernetesConfig {
    pub namespace: String,
    /// Tells this installation's objects from those of others in the same namespace.
    pub installation: String,
    /// BuildKit's.
    pub builder_image: String,
    /// The product's own: the agent, Git and certificates.
    pub own_image: String,
    pub isolation: Isolation,
    pub image_pull_secrets: Vec<String>,
    pub node_selector: BTreeMap<String, String>,
    /// As in a Pod.
    pub tolerations: Vec<Value>,
    pub platform: Option<String>,
    pub proxies: BTreeMap<String, String>,
    /// Certificates, as PEM, of whom Pods trust in place of what their images do.
    pub authorities: Option<Vec<u8>>,
    pub dockerhub_mirrors: Vec<String>,
    pub insecure_registries: Vec<String>,
    pub addresses: AddressPolicy,
    /// None: cache mounts begin empty in every build; layers come from the registry's cache all the same.
    pub state: Option<StateStorage>,
    pub patience: Patience,
}
