//! The self-test in a real cluster: what it finds where all is well, and what where something is missing.

use crate::builds_rig::PATIENCE;
use crate::rig::*;
use kiops_app::locales::{Lang, tell_findings};
use kiops_app::model::{CheckOutcome, CheckReport, Finding};
use kiops_server::check::{Check, Place, Target};
use kiops_server::git::AddressPolicy;
use kiops_server::registry::RegistryClient;
use kiops_server::runner::Runner as _;
use kiops_server::runner::kubernetes::{Connection, KubernetesConfig, KubernetesRunner, StateStorage};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// More than a check may ever take.
const LIMIT: Duration = Duration::from_secs(90);

pub struct Found(CheckReport);

impl Found {
    #[track_caller]
    fn of(&self, name: &str) -> &Finding {
        let found = self.0.findings.iter().find(|finding| finding.name == name);
        found.unwrap_or_else(|| panic!("nothing was found of {name}: {:#?}", self.0))
    }

    #[track_caller]
    pub fn is(&self, name: &str, outcome: CheckOutcome, code: &str) -> &Finding {
        let found = self.of(name);
        assert_eq!((found.outcome, found.code.as_str()), (outcome, code), "{name}: {:#?}", self.0);
        found
    }
}

pub async fn check(kubeconfig: &Path, config: &KubernetesConfig, targets: Vec<Target>) -> Found {
    check_until(kubeconfig, config, targets, CancellationToken::new()).await
}

async fn check_until(
    kubeconfig: &Path,
    config: &KubernetesConfig,
    targets: Vec<Target>,
    stop: CancellationToken,
) -> Found {
    let connection = Arc::new(Connection::new(Some(kubeconfig.to_owned())));
    let place = Place::Kubernetes(connection, Box::new(config.clone()));
    let registry = Arc::new(RegistryClient::new(AddressPolicy::default()));
    let since = Instant::now();
    let mut report = Arc::new(Check::new(place, registry, stop)).run(targets).await.unwrap();
    assert!(since.elapsed() < LIMIT, "{:?}", since.elapsed());
    for lang in Lang::ALL {
        tell_findings(lang, &mut report);
    }
    Found(report)
}

/// The rig's registry, as Pods reach it.
async fn target() -> Target {
    let host = config("x").await.insecure_registries.remove(0);
    Target { host, plain_http: true }
}

/// Whatever a check has made, and however it ended.
async fn nothing_left_of(config: &KubernetesConfig) {
    let label = format!("kiops.io/installation={}", config.installation);
    let since = Instant::now();
    loop {
        let asked = ["-n", &config.namespace, "get", "pods,secrets,persistentvolumeclaims", "-l", &label, "-o", "name"];
        let left = pods().await.cluster.kubectl(&asked).await.unwrap();
        if left.is_empty() {
            return;
        }
        // Of what is on its way out when the check has said its last word.
        assert!(since.elapsed() < PATIENCE, "still there: {left}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A namespace, and in it an account with these rules.
async fn namespace_with(name: &str, labels: Value, rules: Value) -> PathBuf {
    let cluster = &pods().await.cluster;
    let objects = json!([
        { "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels } },
        { "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "kiops", "namespace": name } },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": { "name": "kiops", "namespace": name }, "rules": rules,
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": { "name": "kiops", "namespace": name },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "kiops" },
            "subjects": [{ "kind": "ServiceAccount", "name": "kiops", "namespace": name }],
        },
    ]);
    cluster.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": objects })).await.unwrap();
    let token = cluster.kubectl(&["-n", name, "create", "token", "kiops", "--duration=1h"]).await.unwrap();
    cluster.kubeconfig_for(&token, &format!("{name}.kubeconfig")).unwrap()
}

fn all_rights() -> Value {
    json!([{ "apiGroups": [""], "resources": ["pods", "secrets", "pods/portforward", "events"], "verbs": ["*"] }])
}

#[tokio::test]
async fn a_cluster_in_which_all_is_well_says_so_and_what_it_really_gives() {
    use CheckOutcome::*;
    let _turn = together().await;
    let config = config("check-well").await;
    let target = target().await;
    let found = check(&pods().await.kubeconfig, &config, vec![target.clone()]).await;
    for (name, code) in [
        ("api", "api_ok"),
        ("rights", "rights_ok"),
        ("namespace", "namespace_ok"),
        ("images", "images_ok"),
        ("pod", "pod_ok"),
        ("build", "build_ok"),
        ("relay", "relay_ok"),
        ("registry", "registry_ok"),
        ("registry_server", "registry_server_ok"),
    ] {
        found.is(name, Ok, code);
    }
    assert!(found.of("api").args["version"].starts_with("v1."));
    // An ordinary user's id, as it stands in the Pod's security context.
    assert_eq!(found.is("isolation", Ok, "isolation_rootless").args["id"], "1000");
    assert_eq!(found.of("snapshotter").name, "snapshotter");
    assert_eq!(found.of("registry").args["host"], target.host);
    found.is("storage", Warning, "storage_none");
    // The rig's bridge keeps nobody from anybody.
    found.is("network_policy", Warning, "policy_open");
    assert!(!found.0.has_failed());
    nothing_left_of(&config).await;
}

#[tokio::test]
async fn a_registry_that_pods_do_not_reach_is_found_before_a_build_needs_it() {
    let _turn = together().await;
    let config = config("check-registries").await;
    let target = |host: &str| Target { host: host.to_owned(), plain_http: false };
    let host = pods().await.cluster.host_address();
    let refused = format!("{host}:9");
    let found = check(&pods().await.kubeconfig, &config, vec![target("absent.invalid"), target(&refused)]).await;
    let of = |host: &str| {
        let mut of_host = found.0.findings.iter().filter(|f| f.name == "registry" && f.args["host"] == host);
        (of_host.next().unwrap().code.clone(), of_host.next())
    };
    assert_eq!(of(&refused), ("registry_net".to_owned(), None), "{:#?}", found.0);
    // A Pod of the rig has nobody to ask for names.
    assert!(["registry_dns", "registry_net"].contains(&of("absent.invalid").0.as_str()), "{:#?}", found.0);
    assert!(found.0.has_failed());
    nothing_left_of(&config).await;
}

#[tokio::test]
async fn a_missing_right_is_named_and_what_depends_on_it_fails() {
    use CheckOutcome::*;
    let _turn = together().await;
    let rules = json!([
        { "apiGroups": [""], "resources": ["pods", "secrets"], "verbs": ["create", "get", "list", "patch", "delete"] },
    ]);
    let labels = json!({ "pod-security.kubernetes.io/enforce": "privileged" });
    let kubeconfig = namespace_with("check-rights", labels, rules).await;
    let config = KubernetesConfig { namespace: "check-rights".into(), ..config("check-rights").await };
    let found = check(&kubeconfig, &config, vec![]).await;
    let missing = found.is("rights", Failed, "rights_missing");
    assert_eq!(missing.args["rights"], "create pods/portforward, get pods/portforward, list events");
    let relay = found.is("relay", Failed, "relay_failed");
    assert!(relay.args["reason"].contains("cluster_rights"), "{relay:?}");
    // What was found out all the same.
    found.is("isolation", Ok, "isolation_rootless");
    found.is("build", Ok, "build_ok");
    nothing_left_of(&config).await;
}

#[tokio::test]
async fn a_namespace_that_is_not_there_is_told_from_rights_that_are_not() {
    use CheckOutcome::*;
    let _turn = together().await;
    let cluster = pods().await;
    let absent = KubernetesConfig { namespace: "absent".into(), ..config("check-absent").await };
    let found = check(&cluster.cluster.kubeconfig(), &absent, vec![]).await;
    found.is("namespace", Failed, "namespace_missing");
    // The server's own account may not know.
    let found = check(&cluster.kubeconfig, &absent, vec![]).await;
    found.is("rights", Failed, "rights_missing");
    found.is("namespace", Skipped, "namespace_unseen");
    found.is("pod", Failed, "pod_rights");
    let elsewhere = KubernetesConfig { namespace: "default".into(), ..absent };
    check(&cluster.kubeconfig, &elsewhere, vec![]).await.is("rights", Failed, "rights_missing");
}

#[tokio::test]
async fn a_pod_security_level_that_refuses_builds_is_quoted_and_the_label_told() {
    use CheckOutcome::*;
    let _turn = together().await;
    for level in ["baseline", "restricted"] {
        let name = format!("check-{level}");
        let labels = json!({ "pod-security.kubernetes.io/enforce": level });
        let kubeconfig = namespace_with(&name, labels, all_rights()).await;
        let config = KubernetesConfig { namespace: name.clone(), ..config(&name).await };
        let found = check(&kubeconfig, &config, vec![]).await;
        found.is("rights", Ok, "rights_ok");
        found.is("namespace", Ok, "namespace_ok");
        let refused = found.is("isolation", Failed, "isolation_policy");
        assert!(refused.args["message"].contains("seccompProfile"), "{refused:?}");
        let label = format!("label namespace {name} pod-security.kubernetes.io/enforce=privileged");
        assert!(refused.advice.as_ref().unwrap().contains(&label), "{refused:?}");
        nothing_left_of(&config).await;
    }
}

#[tokio::test]
async fn a_quota_that_is_too_small_is_told() {
    let _turn = together().await;
    let labels = json!({ "pod-security.kubernetes.io/enforce": "privileged" });
    let kubeconfig = namespace_with("check-quota", labels, all_rights()).await;
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "small", "namespace": "check-quota" },
        "spec": { "hard": { "limits.memory": "1Gi" } },
    });
    pods().await.cluster.apply(&quota).await.unwrap();
    let config = KubernetesConfig { namespace: "check-quota".into(), ..config("check-quota").await };
    // Kubernetes takes a moment to know of a new quota.
    let since = Instant::now();
    loop {
        let found = check(&kubeconfig, &config, vec![]).await;
        nothing_left_of(&config).await;
        if found.of("pod").code == "pod_quota" {
            assert!(found.of("pod").args["message"].contains("limits.memory"), "{:#?}", found.0);
            return;
        }
        assert!(since.elapsed() < LIMIT, "{:#?}", found.0);
    }
}

#[tokio::test]
async fn a_login_that_is_not_valid_is_all_that_is_said() {
    let _turn = together().await;
    let stranger = pods().await.cluster.kubeconfig_for("no-token-of-anybody", "check-stranger.kubeconfig").unwrap();
    let found = check(&stranger, &config("check-stranger").await, vec![]).await;
    found.is("api", CheckOutcome::Failed, "api_login");
    assert_eq!(found.0.findings.len(), 1, "{:#?}", found.0);
}

#[tokio::test]
async fn an_image_that_is_not_set_or_has_no_agent_is_told() {
    use CheckOutcome::*;
    let _turn = together().await;
    let cluster = pods().await;
    let unset = KubernetesConfig { own_image: String::new(), ..config("check-unset").await };
    check(&cluster.kubeconfig, &unset, vec![]).await.is("images", Failed, "images_unset");
    // BuildKit's image in place of the product's.
    let other = KubernetesConfig { own_image: cluster.builder_image.into(), ..config("check-other").await };
    let found = check(&cluster.kubeconfig, &other, vec![]).await;
    assert_eq!(found.is("pod", Failed, "pod_container").args["container"], "agent");
    nothing_left_of(&other).await;
}

#[tokio::test]
async fn storage_is_tried_out_and_given_back() {
    use CheckOutcome::*;
    let _turn = together().await;
    let cluster = pods().await;
    cluster.cluster.storage("check-kept", 1).await.unwrap();
    let storage = |class: &str| Some(StateStorage { class: Some(class.to_owned()), size: "1Gi".into() });
    let kept = KubernetesConfig { state: storage("check-kept"), ..config("check-kept").await };
    let found = check(&cluster.kubeconfig, &kept, vec![]).await;
    found.is("storage", Ok, "storage_ok");
    found.is("build", Ok, "build_ok");
    nothing_left_of(&kept).await;
    let none = KubernetesConfig { state: storage("no-such-class"), ..config("check-no-class").await };
    let found = check(&cluster.kubeconfig, &none, vec![]).await;
    let pending = found.is("storage", Failed, "storage_pending");
    assert!(!pending.args["message"].is_empty(), "{pending:?}");
    nothing_left_of(&none).await;
}

#[tokio::test]
async fn a_check_that_is_stopped_takes_its_pod_away() {
    let _turn = together().await;
    let config = config("check-stopped").await;
    let stop = CancellationToken::new();
    let kubeconfig = pods().await.kubeconfig.clone();
    let running = {
        let (config, stop) = (config.clone(), stop.clone());
        tokio::spawn(async move { check_until(&kubeconfig, &config, vec![], stop).await })
    };
    let runner =
        KubernetesRunner::new(Arc::new(Connection::new(Some(pods().await.kubeconfig.clone()))), config.clone());
    let since = Instant::now();
    // What a server that starts meanwhile would find and take away: an attempt of no build of its own.
    while runner.list().await.unwrap().is_empty() {
        assert!(since.elapsed() < LIMIT, "no probe was made");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.cancel();
    running.await.unwrap();
    assert!(runner.list().await.unwrap().is_empty());
    nothing_left_of(&config).await;
}

#[tokio::test]
async fn the_program_prints_its_findings_and_its_exit_code_tells_whether_builds_work() {
    let _turn = together().await;
    let cluster = pods().await;
    let target = target().await;
    let run = async |image: &str, arguments: &[&str]| {
        let program = std::env::var_os("KIOPS_SERVER").unwrap_or_else(|| env!("CARGO_BIN_EXE_kiops").into());
        let mut command = Command::new(program);
        command.arg("check").args(arguments).args(["--runner", "kubernetes", "--builder-image", cluster.builder_image]);
        command.arg("--kubeconfig").arg(&cluster.kubeconfig).args(["--own-image", image]);
        command.args(["--registry", &target.host, "--insecure-registries", &target.host]);
        command.args(["--dockerhub-mirror", &target.host]);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said, error) = run(cluster.own_image, &["--json"]).await;
    assert_eq!(code, Some(0), "{said}{error}");
    let report: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&report["runner"], &report["findings"][0]["code"]), (&json!("kubernetes"), &json!("api_ok")));
    let (code, said, error) = run("rig.invalid/absent:1", &[]).await;
    assert_eq!(code, Some(1), "{said}{error}");
    let failed = said.lines().find(|line| line.starts_with("FAIL  Images")).unwrap_or_else(|| panic!("{said}{error}"));
    assert!(failed.contains("rig.invalid/absent:1"), "{said}");
    assert!(said.lines().any(|line| line.trim_start().starts_with("→ Check the name in KIOPS_IMAGE")), "{said}");
    nothing_left_of(&KubernetesConfig { installation: "check".into(), ..config("check").await }).await;
}
