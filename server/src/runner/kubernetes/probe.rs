//! The objects of a self-test: a build's own, in whose Pod the containers find something out in place of their work, and a
//! second Pod that tries to come in. Pure.
//!
//! They have the labels of an attempt that no database knows, so a server that starts takes away what an earlier one has
//! left of them; the Secret owns the rest.

use super::config::{KubernetesConfig, StateStorage};
use super::manifest::{self, confined, resources};
use crate::runner::StartSpec;
use kiops_app::model::{BuildId, Profile, ProfileSize, ServiceId};
use kiops_events::spec::*;
use kiops_events::wire::VERSION;
use serde_json::{Value, json};
use std::time::Duration;

/// By which a check knows what earlier ones have left.
pub const LABEL_PROBE: &str = "kiops.io/probe";
/// What `checkout` listens on, for the visitor.
pub const DOOR_PORT: u16 = 7118;
/// No check takes longer: whatever is older was left behind.
pub const DEADLINE: Duration = Duration::from_secs(120);
/// Until the container `build` gives up.
const TIME_LIMIT_S: u32 = 40;
/// How long the relay waits for the server.
const HOLD_S: u32 = 20;
/// Where Kubernetes takes a container's last word from.
const REPORT: &str = "/dev/termination-log";

/// An attempt that builds nothing, of the smallest size.
pub fn start(build: &BuildId, service: ServiceId, relay_key: Vec<u8>) -> StartSpec {
    StartSpec {
        spec: AgentSpec {
            version: VERSION,
            build: build.to_string(),
            attempt: ATTEMPT,
            source: SourceSpec {
                url: String::new(),
                commit: String::new(),
                reference: String::new(),
                submodules: false,
                addresses: Default::default(),
            },
            dockerfile: DockerfileSpec::Auto,
            image: ImageSpec { references: Vec::new(), plain_http: false, platform: None },
            cache: CacheSpec { reference: None, no_cache: true, mount_namespace: String::new() },
            buildkit: BuildkitSpec::default(),
            limits: LimitsSpec { time_limit_s: TIME_LIMIT_S, log_cap_bytes: 1 << 20, hold_s: HOLD_S, cgroup: None },
            files: FilesSpec::default(),
            labels: Default::default(),
        },
        service,
        size: Profile::Small.default_size().unwrap_or(ProfileSize::MEDIUM),
        keeps_state: true,
        relay_key,
        git_credential: None,
        docker_config: b"{}".to_vec(),
        redact: Vec::new(),
    }
}

pub const ATTEMPT: u32 = 1;

pub fn name(build: &BuildId) -> String {
    manifest::name(build.as_str(), ATTEMPT)
}

pub fn visitor_name(build: &BuildId) -> String {
    format!("{}-visitor", name(build))
}

pub fn secret(config: &KubernetesConfig, start: &StartSpec) -> Result<Value, serde_json::Error> {
    Ok(marked(manifest::secret(config, start)?))
}

pub fn claim(config: &KubernetesConfig, storage: &StateStorage, start: &StartSpec, secret: &Value) -> Value {
    let mut claim = marked(manifest::claim(config, storage, start));
    // Unlike a service's it goes with the attempt.
    claim["metadata"]["ownerReferences"] = json!([secret]);
    claim
}

pub fn pod(config: &KubernetesConfig, start: &StartSpec, secret_uid: &str, registries: &[String]) -> Value {
    let mut pod = marked(manifest::pod(config, start, secret_uid));
    // Nobody asks later what became of it.
    pod["metadata"]["finalizers"] = json!([]);
    pod["spec"]["activeDeadlineSeconds"] = DEADLINE.as_secs().into();
    for container in pod["spec"]["containers"].as_array_mut().into_iter().flatten() {
        match container["name"].as_str() {
            Some("checkout") => {
                container["command"] = json!(["kiops-agent", "probe-checkout", "--port", DOOR_PORT.to_string()]);
            }
            Some("build") => {
                let own =
                    ["/kiops/bin/kiops-agent", "probe-build", "--dir", "/kiops/spec", "--report", REPORT, "--metadata"];
                let asked = registries.iter().flat_map(|host| ["--registry", host.as_str()]);
                container["command"] = own.into_iter().chain(asked).collect();
            }
            _ => {}
        }
    }
    pod
}

/// A Pod of the same account and labels as the builds', which the network policy keeps from them all the same.
pub fn visitor(config: &KubernetesConfig, build: &BuildId, pod: &Value, address: &str) -> Value {
    let metadata = json!({
        "name": visitor_name(build),
        "namespace": config.namespace,
        "labels": pod["metadata"]["labels"],
        "ownerReferences": pod["metadata"]["ownerReferences"],
    });
    let of_pod = &pod["spec"];
    let mut visitor = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "activeDeadlineSeconds": DEADLINE.as_secs(),
            "containers": [{
                "name": "visitor",
                "image": config.own_image,
                "command": ["kiops-agent", "probe-visit", address],
                "securityContext": confined(),
                "resources": resources(10, 64 << 20, 500),
            }],
        },
    });
    for shared in ["nodeSelector", "tolerations", "imagePullSecrets"] {
        if !of_pod[shared].is_null() {
            visitor["spec"][shared] = of_pod[shared].clone();
        }
    }
    visitor
}

fn marked(mut object: Value) -> Value {
    object["metadata"]["labels"][LABEL_PROBE] = "true".into();
    object
}
