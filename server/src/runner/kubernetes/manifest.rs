//! An attempt as Kubernetes objects. Pure: what is asked for stands here, and nowhere else.
//!
//! ```text
//! Secret  bld-…-1     spec.json key git config.json …   each container mounts only what it needs
//!   owns
//! Pod     bld-…-1     agent (puts the agent's program into /kiops/bin)
//!                     checkout · build · relay        see the agent's `pod`
//! ```

use super::config::{Isolation, KubernetesConfig, StateStorage};
use crate::runner::StartSpec;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kiops_app::model::ServiceId;
use kiops_events::spec::{BuildkitSpec, FilesSpec};
use kiops_events::trust;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

pub const LABEL_INSTALLATION: &str = "kiops.io/installation";
pub const LABEL_BUILD: &str = "kiops.io/build";
pub const LABEL_ATTEMPT: &str = "kiops.io/attempt";
pub const LABEL_SERVICE: &str = "kiops.io/service";
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
const NAME: &str = "kiops";
/// Kept until the attempt is released: a Pod that somebody deletes can still be asked what became of it.
pub const FINALIZER: &str = "kiops.io/build-log";
/// Where the relay listens, on the Pod's loopback.
pub const RELAY_PORT: u16 = 7117;

/// The user of BuildKit's rootless image; the other containers are the same, so that all may use the shared folders.
const USER: i64 = 1000;
/// Between being told to stop and being killed: buildctl has 20 s of it. The relay uses up what a server that is away needs.
pub const GRACE_S: i64 = 30;
/// Of the Secret, with those whom the server trusts.
const AUTHORITIES: &str = "authorities.pem";
/// What a Pod may take beyond the build's time limit and the time that its relay waits.
const SLACK_S: i64 = 120;

/// `bld-…-1`, of the Pod and of its Secret.
pub fn name(build: &str, attempt: u32) -> String {
    format!("{build}-{attempt}")
}

fn labels(config: &KubernetesConfig, start: &StartSpec) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        (MANAGED_BY, NAME.to_owned()),
        (LABEL_INSTALLATION, config.installation.clone()),
        (LABEL_BUILD, start.spec.build.clone()),
        (LABEL_ATTEMPT, start.spec.attempt.to_string()),
        (LABEL_SERVICE, start.service.to_string()),
    ])
}

/// What the agents of the three containers are told about their places.
pub fn settle(config: &KubernetesConfig, start: &mut StartSpec) {
    let spec = &mut start.spec;
    let rootless = config.isolation == Isolation::Rootless;
    spec.buildkit = BuildkitSpec {
        // As root the image's own entrance puts the steps' control groups below the Pod's, where its limits hold.
        buildkitd: if rootless { "buildkitd" } else { "buildkitd-entrypoint" }.into(),
        buildctl: "buildctl".into(),
        run_dir: "/kiops/run".into(),
        state_dir: PathBuf::from(state_folder(config.isolation)).join("state"),
        no_process_sandbox: rootless,
        in_user_namespace: config.isolation == Isolation::Userns,
        state_goes: storage(config, start.keeps_state).is_none(),
        dockerhub_mirrors: config.dockerhub_mirrors.clone(),
        insecure_registries: config.insecure_registries.clone(),
    };
    spec.source.addresses = config.addresses;
    // The container's own limits hold for everything in it.
    spec.limits.cgroup = None;
    spec.image.platform = config.platform.clone();
    spec.files = FilesSpec {
        workspace: "/kiops/checkout/workspace".into(),
        spool: "/kiops/spool/spool".into(),
        socket: None,
        key: "/kiops/key/key".into(),
        git_credential: start.git_credential.is_some().then(|| "/kiops/git/git".into()),
        docker_config: "/kiops/docker".into(),
        // Each container knows the secrets that it has; the server knows them all.
        redact: Vec::new(),
    };
}

/// Where BuildKit's image has its state.
fn state_folder(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::Rootless => "/home/user/.local/share/buildkit",
        Isolation::Userns | Isolation::Privileged => "/var/lib/buildkit",
    }
}

pub fn secret(config: &KubernetesConfig, start: &StartSpec) -> Result<Value, serde_json::Error> {
    let mut data = Map::new();
    let mut put = |name: &str, bytes: &[u8]| data.insert(name.to_owned(), STANDARD.encode(bytes).into());
    put("spec.json", &serde_json::to_vec(&start.spec)?);
    put("key", &start.relay_key);
    put("config.json", &start.docker_config);
    if let Some(authorities) = &config.authorities {
        put(AUTHORITIES, authorities);
    }
    for (name, value) in &config.proxies {
        put(&proxy_key(name), value.as_bytes());
    }
    if let Some((user, token)) = &start.git_credential {
        put("git", format!("{user}\n{token}\n").as_bytes());
    }
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name(&start.spec.build, start.spec.attempt),
            "namespace": config.namespace,
            "labels": labels(config, start),
        },
        "immutable": true,
        "type": "Opaque",
        "data": data,
    }))
}

/// Where the attempt has a volume that outlives it.
pub fn storage(config: &KubernetesConfig, keeps_state: bool) -> Option<&StateStorage> {
    config.state.as_ref().filter(|_| keeps_state)
}

/// `state-svc-…`: one a service, so that no other sees what it keeps.
pub fn claim_name(service: &ServiceId) -> String {
    format!("state-{service}")
}

pub fn claim(config: &KubernetesConfig, storage: &StateStorage, start: &StartSpec) -> Value {
    let mut labels = labels(config, start);
    // It outlives the build.
    labels.retain(|name, _| ![LABEL_BUILD, LABEL_ATTEMPT].contains(name));
    let mut claim = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": { "name": claim_name(&start.service), "namespace": config.namespace, "labels": labels },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": { "requests": { "storage": storage.size } },
        },
    });
    if let Some(class) = &storage.class {
        claim["spec"]["storageClassName"] = class.as_str().into();
    }
    claim
}

/// `secret_uid`: of the Secret that owns it.
pub fn pod(config: &KubernetesConfig, start: &StartSpec, secret_uid: &str) -> Value {
    let spec = &start.spec;
    let size = start.size;
    let disk_bytes = size.disk_bytes;
    let name = name(&spec.build, spec.attempt);
    let deadline = i64::from(spec.limits.time_limit_s) + i64::from(spec.limits.hold_s) + SLACK_S;
    let of_secret = |volume: &str, item: &str| {
        json!({
            "name": volume,
            "secret": { "secretName": name, "defaultMode": 0o440, "items": [{ "key": item, "path": item }] },
        })
    };
    let empty = |volume: &str, bytes: u64| json!({ "name": volume, "emptyDir": { "sizeLimit": bytes.to_string() } });
    let mut volumes = vec![
        of_secret("spec", "spec.json"),
        of_secret("key", "key"),
        of_secret("docker", "config.json"),
        empty("bin", MIB * 64),
        empty("work", disk_bytes),
        // A log at its cap, as events.
        empty("spool", spec.limits.log_cap_bytes * 2 + 64 * MIB),
        empty("tmp", GIB),
        empty("run", GIB),
    ];
    volumes.push(match storage(config, start.keeps_state) {
        Some(_) => json!({ "name": "state", "persistentVolumeClaim": { "claimName": claim_name(&start.service) } }),
        None => empty("state", disk_bytes),
    });
    let mut checkout_mounts = vec![
        read_only("spec", "/kiops/spec"),
        mount("work", "/kiops/checkout"),
        mount("spool", "/kiops/spool"),
        mount("tmp", "/tmp"),
    ];
    if start.git_credential.is_some() {
        volumes.push(of_secret("git", "git"));
        checkout_mounts.push(read_only("git", "/kiops/git"));
    }
    let mut trusted = Vec::new();
    if config.authorities.is_some() {
        volumes.push(of_secret("authorities", AUTHORITIES));
        trusted.push(read_only("authorities", "/kiops/authorities"));
        checkout_mounts.extend_from_slice(&trusted);
    }
    let mut build_mounts = vec![
        read_only("spec", "/kiops/spec"),
        read_only("docker", "/kiops/docker"),
        read_only("bin", "/kiops/bin"),
        mount("work", "/kiops/checkout"),
        mount("spool", "/kiops/spool"),
        mount("run", "/kiops/run"),
        mount("state", state_folder(config.isolation)),
    ];
    build_mounts.extend(trusted);
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": config.namespace,
            "labels": labels(config, start),
            "annotations": {
                // It prints what the product shows.
                "kubectl.kubernetes.io/default-container": "relay",
                "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
                "karpenter.sh/do-not-disrupt": "true",
            },
            "finalizers": [FINALIZER],
            "ownerReferences": [{ "apiVersion": "v1", "kind": "Secret", "name": name, "uid": secret_uid }],
        },
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "activeDeadlineSeconds": deadline,
            "terminationGracePeriodSeconds": GRACE_S,
            "securityContext": { "fsGroup": USER, "fsGroupChangePolicy": "OnRootMismatch" },
            "initContainers": [{
                "name": "agent",
                "image": config.own_image,
                "command": ["kiops-agent", "install", "/kiops/bin/kiops-agent"],
                "securityContext": confined(),
                "resources": resources(10, 64 * MIB, 500),
                "volumeMounts": [mount("bin", "/kiops/bin")],
            }],
            "containers": [
                {
                    "name": "checkout",
                    "image": config.own_image,
                    "command": ["kiops-agent", "checkout", "--dir", "/kiops/spec"],
                    "env": environment(config, &name, &[("HOME", "/tmp")]),
                    "securityContext": confined(),
                    "resources": resources(50, GIB, 1000),
                    "volumeMounts": checkout_mounts,
                },
                {
                    "name": "relay",
                    "image": config.own_image,
                    "command": ["kiops-agent", "relay", "--dir", "/kiops/spec", "--port", RELAY_PORT.to_string()],
                    "securityContext": confined(),
                    "resources": resources(20, 128 * MIB, 500),
                    "volumeMounts": [
                        read_only("spec", "/kiops/spec"), read_only("key", "/kiops/key"), mount("spool", "/kiops/spool"),
                    ],
                },
                {
                    "name": "build",
                    "image": config.builder_image,
                    "command": ["/kiops/bin/kiops-agent", "build", "--dir", "/kiops/spec"],
                    "env": environment(config, &name, &[]),
                    "securityContext": isolation(config.isolation),
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "resources": {
                        "requests": {
                            "cpu": format!("{}m", size.cpu_millicores / 2),
                            "memory": size.memory_bytes.to_string(),
                            "ephemeral-storage": (disk_bytes / 2).to_string(),
                        },
                        "limits": {
                            "cpu": format!("{}m", size.cpu_millicores),
                            "memory": size.memory_bytes.to_string(),
                            "ephemeral-storage": disk_bytes.to_string(),
                        },
                    },
                    "volumeMounts": build_mounts,
                },
            ],
            "volumes": volumes,
        },
    });
    let spec = &mut pod["spec"];
    if config.isolation == Isolation::Userns {
        spec["hostUsers"] = false.into();
    }
    if !config.node_selector.is_empty() {
        spec["nodeSelector"] = json!(config.node_selector);
    }
    if !config.tolerations.is_empty() {
        spec["tolerations"] = json!(config.tolerations);
    }
    if !config.image_pull_secrets.is_empty() {
        spec["imagePullSecrets"] = config.image_pull_secrets.iter().map(|name| json!({ "name": name })).collect();
    }
    pod
}

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;

fn mount(volume: &str, path: &str) -> Value {
    json!({ "name": volume, "mountPath": path })
}

fn read_only(volume: &str, path: &str) -> Value {
    json!({ "name": volume, "mountPath": path, "readOnly": true })
}

/// Of a container that needs no rights at all.
pub(super) fn confined() -> Value {
    json!({
        "runAsUser": USER,
        "runAsGroup": USER,
        "runAsNonRoot": true,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": { "drop": ["ALL"] },
        "seccompProfile": { "type": "RuntimeDefault" },
    })
}

/// Of BuildKit's container. Rootless BuildKit makes a user namespace of its own and mounts in it, which the default
/// profiles forbid, and gets its ids by two programs with the capabilities that are left.
fn isolation(isolation: Isolation) -> Value {
    match isolation {
        Isolation::Rootless => json!({
            "runAsUser": USER,
            "runAsGroup": USER,
            "seccompProfile": { "type": "Unconfined" },
            "appArmorProfile": { "type": "Unconfined" },
            "capabilities": { "drop": ["ALL"], "add": ["SETUID", "SETGID"] },
        }),
        Isolation::Userns | Isolation::Privileged => json!({ "privileged": true, "runAsUser": 0, "runAsGroup": 0 }),
    }
}

pub(super) fn resources(cpu_request: u32, memory: u64, cpu_limit: u32) -> Value {
    json!({
        "requests": { "cpu": format!("{cpu_request}m"), "memory": (memory / 4).to_string() },
        "limits": { "cpu": format!("{cpu_limit}m"), "memory": memory.to_string() },
    })
}

/// A proxy's address may have a password: it stands in the Secret, and not where everybody who may see Pods reads it.
fn proxy_key(name: &str) -> String {
    format!("proxy.{name}")
}

fn environment(config: &KubernetesConfig, secret: &str, own: &[(&str, &str)]) -> Vec<Value> {
    let of_secret = |key: String| json!({ "secretKeyRef": { "name": secret, "key": key } });
    let proxies = config.proxies.keys().map(|name| json!({ "name": name, "valueFrom": of_secret(proxy_key(name)) }));
    let file = format!("/kiops/authorities/{AUTHORITIES}");
    let trusted = config.authorities.iter().map(|_| (trust::CERT_FILE, file.as_str()));
    let plain = trusted.chain(own.iter().copied()).map(|(name, value)| json!({ "name": name, "value": value }));
    proxies.chain(plain).collect()
}
