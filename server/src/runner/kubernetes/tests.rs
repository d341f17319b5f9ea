//! What is asked of Kubernetes, and what its answers mean: pure, so as tables. The real thing is met in `tests/builds_pods`.

use super::config::{Isolation, KubernetesConfig, Patience, StateStorage};
use super::situation::{self, is_over, relay_runs};
use super::{manifest, problem};
use crate::runner::{Grade, RunnerError, StartSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use kiops_app::model::{ID_LETTERS, ProfileSize, ServiceId};
use kiops_events::spec::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

fn config() -> KubernetesConfig {
    KubernetesConfig {
        namespace: "kiwi-builds".into(),
        installation: "one".into(),
        builder_image: "registry.example/buildkit@sha256:aa".into(),
        own_image: "registry.example/kiops:1".into(),
        isolation: Isolation::Rootless,
        image_pull_secrets: vec!["pull".into()],
        node_selector: BTreeMap::from([("disk".into(), "ssd".into())]),
        tolerations: vec![json!({ "key": "builds", "operator": "Exists" })],
        platform: Some("linux/amd64".into()),
        proxies: BTreeMap::from([("HTTPS_PROXY".into(), "http://ci:word-of-the-proxy@proxy:3128".into())]),
        authorities: None,
        dockerhub_mirrors: vec![],
        insecure_registries: vec![],
        addresses: Default::default(),
        state: None,
        patience: Patience::default(),
    }
}

fn start() -> StartSpec {
    StartSpec {
        spec: AgentSpec {
            version: 1,
            build: "bld-x".into(),
            attempt: 2,
            source: SourceSpec {
                url: "https://git.example/a.git".into(),
                commit: "a".repeat(40),
                reference: "refs/heads/main".into(),
                submodules: true,
                addresses: Default::default(),
            },
            dockerfile: DockerfileSpec::Auto,
            image: ImageSpec { references: vec!["r/x:1".into()], plain_http: false, platform: None },
            cache: CacheSpec { reference: None, no_cache: false, mount_namespace: "n".into() },
            buildkit: Default::default(),
            limits: LimitsSpec { time_limit_s: 3600, log_cap_bytes: 1 << 28, hold_s: 600, cgroup: None },
            files: Default::default(),
            labels: Default::default(),
        },
        service: ServiceId::from_random([5; ID_LETTERS]),
        size: ProfileSize::MEDIUM,
        keeps_state: true,
        relay_key: b"relay-key".to_vec(),
        git_credential: Some(("oauth2".into(), "git-token".into())),
        docker_config: br#"{"auths":{}}"#.to_vec(),
        redact: vec!["registry-password".into()],
    }
}

fn pod_of(config: &KubernetesConfig, mut start: StartSpec) -> Value {
    manifest::settle(config, &mut start);
    manifest::pod(config, &start, "uid-1")
}

fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let all =
        pod["spec"]["containers"].as_array().unwrap().iter().chain(pod["spec"]["initContainers"].as_array().unwrap());
    all.into_iter().find(|container| container["name"] == name).unwrap()
}

fn mounts(pod: &Value, name: &str) -> Vec<String> {
    let mounts = container(pod, name)["volumeMounts"].as_array().unwrap();
    mounts.iter().map(|mount| mount["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_pod_is_one_that_kubernetes_knows_and_has_no_rights() {
    let pod = pod_of(&config(), start());
    // No field is misspelt: what Kubernetes' own types would drop is not there.
    let known: Pod = serde_json::from_value(pod.clone()).unwrap();
    assert_eq!(serde_json::to_value(&known).unwrap(), pod);
    assert_eq!(pod["metadata"]["name"], "bld-x-2");
    assert_eq!(pod["metadata"]["labels"]["kiops.io/installation"], "one");
    assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], "uid-1");
    let spec = &pod["spec"];
    assert_eq!((&spec["automountServiceAccountToken"], &spec["enableServiceLinks"]), (&json!(false), &json!(false)));
    assert!(["hostNetwork", "hostPID", "hostIPC", "hostUsers"].iter().all(|field| spec[field].is_null()));
    let volumes = spec["volumes"].as_array().unwrap();
    assert!(volumes.iter().all(|volume| volume["hostPath"].is_null()));
    assert!(volumes.iter().all(|v| v["emptyDir"].is_null() || v["emptyDir"]["sizeLimit"].is_string()), "{volumes:?}");
    // Its own time limit, what its relay waits, and some.
    assert!(spec["activeDeadlineSeconds"].as_i64().unwrap() > 3600 + 600);
    assert_eq!((&spec["nodeSelector"]["disk"], &spec["tolerations"][0]["key"]), (&json!("ssd"), &json!("builds")));
    assert_eq!(spec["imagePullSecrets"], json!([{ "name": "pull" }]));
    for helper in ["agent", "checkout", "relay"] {
        let context = &container(&pod, helper)["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false, "{helper}");
        assert_eq!(
            (&context["capabilities"]["drop"], &context["runAsNonRoot"]),
            (&json!(["ALL"]), &json!(true)),
            "{helper}"
        );
    }
    let env = container(&pod, "build")["env"].as_array().unwrap();
    let kept = json!({ "secretKeyRef": { "name": "bld-x-2", "key": "proxy.HTTPS_PROXY" } });
    assert!(env.contains(&json!({ "name": "HTTPS_PROXY", "valueFrom": kept })), "{env:?}");
    // A proxy's address may have a password.
    assert!(!pod.to_string().contains("word-of-the-proxy"));
}

#[test]
fn each_container_has_the_secrets_that_it_needs_and_no_others() {
    let pod = pod_of(&config(), start());
    let secrets = |name: &str| {
        let mut found = mounts(&pod, name);
        found.retain(|volume| ["key", "git", "docker"].contains(&volume.as_str()));
        found
    };
    assert_eq!(secrets("checkout"), ["git"]);
    assert_eq!(secrets("build"), ["docker"]);
    assert_eq!(secrets("relay"), ["key"]);
    assert!(secrets("agent").is_empty());
    // A public repository has no credential at all.
    let public = pod_of(&config(), StartSpec { git_credential: None, ..start() });
    assert!(!mounts(&public, "checkout").contains(&"git".to_owned()));
    assert!(public["spec"]["volumes"].as_array().unwrap().iter().all(|volume| volume["name"] != "git"));
    // Nothing of a value stands in the Pod; all of it stands in the Secret.
    let text = pod.to_string();
    assert!(["git-token", "relay-key", "registry-password"].iter().all(|value| !text.contains(value)));
    let secret = manifest::secret(&config(), &start()).unwrap();
    let known: Secret = serde_json::from_value(secret.clone()).unwrap();
    assert_eq!(serde_json::to_value(&known).unwrap(), secret);
    assert_eq!(known.data.unwrap()["git"].0, b"oauth2\ngit-token\n");
    assert_eq!(secret["immutable"], true);
}

#[test]
fn a_services_state_is_kept_where_there_is_storage_for_it() {
    let volume = |pod: &Value| {
        let volumes = pod["spec"]["volumes"].as_array().unwrap();
        volumes.iter().find(|volume| volume["name"] == "state").unwrap().clone()
    };
    assert!(volume(&pod_of(&config(), start()))["emptyDir"].is_object());
    let storage = StateStorage { class: Some("fast".into()), size: "20Gi".into() };
    let config = KubernetesConfig { state: Some(storage.clone()), ..config() };
    let claim = manifest::claim(&config, &storage, &start());
    assert_eq!(volume(&pod_of(&config, start()))["persistentVolumeClaim"]["claimName"], claim["metadata"]["name"]);
    let known: PersistentVolumeClaim = serde_json::from_value(claim.clone()).unwrap();
    assert_eq!(serde_json::to_value(&known).unwrap(), claim);
    assert_eq!(claim["spec"]["storageClassName"], "fast");
    // No build's: it outlives them all.
    assert!(claim["metadata"]["labels"]["kiops.io/build"].is_null());
    assert!(claim["metadata"]["labels"]["kiops.io/service"].is_string());
}

#[test]
fn isolation_is_what_was_chosen() {
    let with = |isolation| pod_of(&KubernetesConfig { isolation, ..config() }, start());
    let rootless = with(Isolation::Rootless);
    let context = &container(&rootless, "build")["securityContext"];
    assert_eq!((&context["runAsUser"], &context["privileged"]), (&json!(1000), &Value::Null));
    assert_eq!(context["capabilities"], json!({ "drop": ["ALL"], "add": ["SETUID", "SETGID"] }));
    assert_eq!(context["seccompProfile"]["type"], "Unconfined");
    let userns = with(Isolation::Userns);
    assert_eq!(
        (&userns["spec"]["hostUsers"], &container(&userns, "build")["securityContext"]["privileged"]),
        (&json!(false), &json!(true))
    );
    let privileged = with(Isolation::Privileged);
    assert_eq!(
        (&privileged["spec"]["hostUsers"], &container(&privileged, "build")["securityContext"]["privileged"]),
        (&Value::Null, &json!(true))
    );
    let settled = |isolation| {
        let mut start = start();
        manifest::settle(&KubernetesConfig { isolation, ..config() }, &mut start);
        start.spec.buildkit
    };
    assert!(settled(Isolation::Rootless).no_process_sandbox);
    assert!(!settled(Isolation::Userns).no_process_sandbox);
    assert_eq!(settled(Isolation::Privileged).buildkitd.to_str(), Some("buildkitd-entrypoint"));
}

#[test]
fn a_build_has_the_size_of_its_profile() {
    let resources = |size| {
        let pod = pod_of(&config(), StartSpec { size, ..start() });
        container(&pod, "build")["resources"].clone()
    };
    let amounts = |cpu: &str, memory_gib: u64, disk_gib: u64| {
        let gib = |n: u64| (n << 30).to_string();
        json!({ "cpu": cpu, "memory": gib(memory_gib), "ephemeral-storage": gib(disk_gib) })
    };
    // All of the memory is promised: unlike time on a core it cannot be taken back.
    assert_eq!(
        resources(ProfileSize::MEDIUM),
        json!({ "requests": amounts("1000m", 4, 12), "limits": amounts("2000m", 4, 24) })
    );
    let small = ProfileSize::of(1_000, 2 << 30);
    assert_eq!(resources(small), json!({ "requests": amounts("500m", 2, 8), "limits": amounts("1000m", 2, 16) }));
}

#[test]
fn an_image_is_for_the_platform_that_was_chosen() {
    let settled = |platform: Option<&str>| {
        let mut start = start();
        manifest::settle(&KubernetesConfig { platform: platform.map(str::to_owned), ..config() }, &mut start);
        start.spec.image.platform
    };
    assert_eq!(settled(Some("linux/arm64")).as_deref(), Some("linux/arm64"));
    assert_eq!(settled(None), None);
}

/// A selector that fits no Pod is no mistake to Kubernetes: the policy would hold for nobody.
#[test]
fn the_manifests_policy_is_for_the_pods_of_builds() {
    // The labels that it selects, as they stand in the file.
    let manifest = include_str!("../../../../deploy/kubernetes/builds.yaml");
    let policy = manifest.split("\n---\n").find(|object| object.contains("\nkind: NetworkPolicy\n")).unwrap();
    assert!(!policy.contains("matchExpressions"));
    let (_, selector) = policy.split_once("\n  podSelector:\n    matchLabels:\n").unwrap();
    let selected: BTreeMap<&str, &str> =
        selector.lines().map_while(|line| line.strip_prefix("      ")?.split_once(": ")).collect();
    assert!(!selected.is_empty());
    let pod = pod_of(&config(), start());
    for (name, value) in selected {
        assert_eq!(pod["metadata"]["labels"][name], value, "{name}");
    }
}

/// A Pod that was made at 0 and has this status.
fn with_status(status: Value, deleted: bool) -> Pod {
    let mut pod = json!({ "metadata": { "name": "x", "creationTimestamp": "1970-01-01T00:00:00Z" }, "status": status });
    if deleted {
        pod["metadata"]["deletionTimestamp"] = "1970-01-01T00:00:10Z".into();
    }
    serde_json::from_value(pod).unwrap()
}

fn in_state(container: &str, state: Value) -> Value {
    json!({ "phase": "Pending", "containerStatuses": [
        { "name": container, "image": "some/image:1", "imageID": "", "ready": false, "restartCount": 0, "state": state },
    ] })
}

fn waiting(container: &str, reason: &str) -> Value {
    in_state(container, json!({ "waiting": { "reason": reason, "message": "because" } }))
}

fn terminated(container: &str, reason: &str, exit_code: i32) -> Value {
    in_state(container, json!({ "terminated": { "reason": reason, "exitCode": exit_code } }))
}

#[test]
fn whom_the_server_trusts_its_pods_trust() {
    let trusting = KubernetesConfig { authorities: Some(b"a certificate".to_vec()), ..config() };
    let secret = manifest::secret(&trusting, &start()).unwrap();
    assert_eq!(secret["data"]["authorities.pem"], "YSBjZXJ0aWZpY2F0ZQ==");
    let pod = pod_of(&trusting, start());
    let known: Pod = serde_json::from_value(pod.clone()).unwrap();
    assert_eq!(serde_json::to_value(&known).unwrap(), pod);
    for name in ["checkout", "build"] {
        assert!(mounts(&pod, name).contains(&"authorities".to_owned()), "{name}");
        let told = json!({ "name": "SSL_CERT_FILE", "value": "/kiops/authorities/authorities.pem" });
        assert!(container(&pod, name)["env"].as_array().unwrap().contains(&told), "{name}");
    }
    assert!(!mounts(&pod_of(&config(), start()), "build").contains(&"authorities".to_owned()));
}

#[test]
fn every_status_has_its_meaning() {
    use Grade::*;
    let unscheduled = |message: &str| {
        json!({ "phase": "Pending", "conditions": [
        { "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message },
    ] })
    };
    let failed = |reason: &str, message: &str| json!({ "phase": "Failed", "reason": reason, "message": message });
    let cases = [
        (json!({ "phase": "Running" }), 0, None),
        (unscheduled("0/1 nodes: Insufficient memory"), 1, Some(("waiting_for_capacity", Passing))),
        (unscheduled("0/1 nodes: Insufficient memory"), 601, Some(("waiting_for_capacity", TooLong))),
        (unscheduled("pod has unbound immediate PersistentVolumeClaims"), 1, Some(("waiting_for_volume", Passing))),
        (unscheduled("persistentvolumeclaim \"state-x\" not found"), 1, Some(("waiting_for_volume", Passing))),
        (
            unscheduled("1 node(s) didn't find available persistent volumes to bind"),
            601,
            Some(("waiting_for_volume", TooLong)),
        ),
        (waiting("build", "ErrImagePull"), 1, Some(("image_pull", Passing))),
        (waiting("relay", "ImagePullBackOff"), 301, Some(("image_pull", TooLong))),
        // Nothing that could pass.
        (waiting("build", "InvalidImageName"), 1, Some(("image_pull", TooLong))),
        (waiting("build", "CreateContainerConfigError"), 1, Some(("container_config", Passing))),
        (waiting("build", "CreateContainerError"), 61, Some(("container_config", TooLong))),
        (waiting("build", "ContainerCreating"), 5, None),
        (waiting("build", "ContainerCreating"), 25, Some(("pod_starting", Passing))),
        (waiting("build", "PodInitializing"), 301, Some(("pod_starting", TooLong))),
        (terminated("build", "OOMKilled", 137), 1, Some(("oom", Ended))),
        // Only a child was killed, and the container's own process ended well.
        (terminated("build", "OOMKilled", 0), 1, Some(("oom", Ended))),
        (terminated("relay", "OOMKilled", 137), 1, Some(("container_oom", Ended))),
        (terminated("build", "StartError", 128), 1, Some(("container_start", Ended))),
        (terminated("build", "Error", 137), 1, None),
        (failed("Evicted", "The node was low on resource: memory."), 1, Some(("pod_evicted", Ended))),
        (failed("Evicted", "Container build exceeded its local ephemeral storage limit"), 1, Some(("pod_disk", Ended))),
        (
            failed("Evicted", "Usage of EmptyDir volume \"work\" exceeds the limit \"8Gi\". "),
            1,
            Some(("pod_disk", Ended)),
        ),
        (
            failed("Evicted", "Usage of EmptyDir volume \"tmp\" exceeds the limit \"1Gi\". "),
            1,
            Some(("pod_evicted", Ended)),
        ),
        (failed("DeadlineExceeded", "Pod was active too long"), 1, Some(("pod_deadline", Ended))),
        (failed("NodeLost", ""), 1, Some(("node_lost", Ended))),
        (failed("Preempting", ""), 1, Some(("pod_preempted", Ended))),
    ];
    for (status, age_s, wanted) in cases {
        let found = situation::situation(&with_status(status.clone(), false), age_s * 1000, &Patience::default());
        assert_eq!(found.map(|found| (found.code, found.grade)), wanted, "{status} after {age_s} s");
    }
    let deleted = with_status(json!({ "phase": "Running" }), true);
    assert_eq!(situation::situation(&deleted, 11_000, &Patience::default()).unwrap().code, "pod_deleted");
    // Its node does not say that it is gone.
    let lost = situation::situation(&deleted, 311_000, &Patience::default()).unwrap();
    assert_eq!((lost.code, lost.grade), ("node_lost", TooLong));
    let ended = with_status(terminated("relay", "Completed", 0), true);
    assert_eq!(situation::situation(&ended, 311_000, &Patience::default()).unwrap().code, "pod_deleted");
    let starting = with_status(waiting("build", "ContainerCreating"), false);
    let starting = situation::situation(&starting, 25_000, &Patience::default()).unwrap();
    for (reason, code) in [
        ("FailedCreatePodSandBox", "pod_sandbox"),
        ("FailedMount", "pod_volume"),
        ("FailedAttachVolume", "pod_volume"),
        ("Unhealthy", "pod_starting"),
    ] {
        let explained = situation::explained(starting.clone(), reason, "because");
        assert_eq!((explained.code, explained.grade), (code, Passing));
        assert_eq!(explained.args["message"], "because", "{code}");
    }
    let short = Patience { image: Duration::from_millis(500), ..Patience::default() };
    let found = situation::situation(&with_status(waiting("build", "ErrImagePull"), false), 1000, &short).unwrap();
    assert_eq!(
        (found.grade, found.args["image"].as_str(), found.args["message"].as_str()),
        (TooLong, "some/image:1", "because")
    );
}

#[test]
fn a_relay_is_asked_while_it_runs_and_an_attempt_is_over_with_it() {
    let running = with_status(in_state("relay", json!({ "running": {} })), false);
    assert!(relay_runs(&running) && !is_over(&running));
    let ended = with_status(terminated("relay", "Completed", 0), false);
    assert!(!relay_runs(&ended) && is_over(&ended));
    // The build's own end is not the attempt's: its relay still has what it wrote.
    assert!(!is_over(&with_status(terminated("build", "Error", 1), false)));
    assert!(is_over(&with_status(json!({ "phase": "Failed" }), false)));
}

#[test]
fn refusals_are_told_apart_from_what_passes() {
    let refused = |code: u16, message: &str| {
        let status = json!({ "status": "Failure", "message": message, "reason": "", "code": code });
        problem(kube::Error::Api(serde_json::from_value(status).unwrap()))
    };
    for (code, message, wanted) in [
        (401, "Unauthorized", "cluster_login"),
        (403, "pods \"x\" is forbidden: exceeded quota: builds", "cluster_quota"),
        (403, "pods \"x\" is forbidden: violates PodSecurity \"baseline:latest\"", "cluster_policy"),
        (403, "User \"kiops\" cannot create resource \"pods\"", "cluster_rights"),
        (403, "forbidden: User \"kiops\" cannot get path \"/version\"", "cluster_rights"),
        (403, "admission webhook \"policy.example\" denied the request: you cannot use resource x", "cluster_refused"),
        (400, "admission webhook \"policy.example\" denied the request", "cluster_refused"),
        (
            403,
            "pods \"x\" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi",
            "cluster_refused",
        ),
        (
            403,
            "unable to create new content in namespace kiwi-builds because it is being terminated",
            "cluster_namespace",
        ),
        (404, "namespaces \"kiwi-builds\" not found", "cluster_namespace"),
        (422, "Pod \"x\" is invalid", "cluster_invalid"),
    ] {
        let found = refused(code, message);
        assert!(matches!(found, RunnerError::Refused { code, .. } if code == wanted), "{found:?}");
    }
    for code in [429, 500, 503] {
        assert!(matches!(refused(code, "busy"), RunnerError::Unreachable(_)), "{code}");
    }
}
