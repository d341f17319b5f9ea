//! What answers mean, as tables, and what a probe's objects are.

use super::judge::{self, RIGHTS, Seen};
use crate::runner::kubernetes::{Isolation, KubernetesConfig, Patience, StateStorage, probe};
use crate::runner::{Grade, RunnerError, Situation};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use kiops_app::locales::{Lang, tell_findings};
use kiops_app::model::{BuildId, CheckOutcome, CheckReport, Finding, ID_LETTERS, RunnerKind, ServiceId};
use kiops_events::probe::{Asked, Built, IdRange, ProbeReport, Refusal};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

fn config() -> KubernetesConfig {
    KubernetesConfig {
        namespace: "kiwi-builds".into(),
        installation: "one".into(),
        builder_image: "registry.example/buildkit:1".into(),
        own_image: "registry.example/kiops:1".into(),
        isolation: Isolation::Rootless,
        image_pull_secrets: vec!["pull".into()],
        node_selector: BTreeMap::from([("disk".into(), "ssd".into())]),
        tolerations: vec![json!({ "key": "builds", "operator": "Exists" })],
        platform: None,
        proxies: BTreeMap::new(),
        authorities: None,
        dockerhub_mirrors: vec![],
        insecure_registries: vec![],
        addresses: Default::default(),
        state: None,
        patience: Patience::default(),
    }
}

fn stored() -> KubernetesConfig {
    KubernetesConfig { state: Some(StateStorage { class: Some("fast".into()), size: "20Gi".into() }), ..config() }
}

fn build() -> BuildId {
    BuildId::from_random([3; ID_LETTERS])
}

/// A report of a Pod in which all is as it should be.
fn good() -> ProbeReport {
    ProbeReport {
        kernel: "6.12.1".into(),
        own_ids: IdRange::parse("0 0 4294967295"),
        daemon_ids: IdRange::parse("0 1000 1\n1 100000 65536"),
        buildkit: "v0.32.2".into(),
        snapshotter: "overlayfs".into(),
        network: "host".into(),
        build: Some(Built { took_ms: 900, failure: None }),
        metadata_reached: Some(false),
        ..ProbeReport::default()
    }
}

fn all_well() -> Seen {
    Seen {
        took_ms: 2345,
        report: Some(good()),
        relay: Some(Ok(40)),
        visited: Some(false),
        claim: Some("Bound".into()),
        ..Seen::default()
    }
}

/// Outcome and code by name; every finding is told in both languages on the way.
fn told(findings: Vec<Finding>) -> BTreeMap<String, (CheckOutcome, String)> {
    let mut report = CheckReport { runner: RunnerKind::Kubernetes, checked_at: 0, took_ms: 0, findings };
    for lang in Lang::ALL {
        tell_findings(lang, &mut report);
        for finding in &report.findings {
            assert!(!finding.message.is_empty() && !finding.message.starts_with("finding."), "{finding:?}");
            assert!(!finding.title.starts_with("finding."), "{finding:?}");
            assert_eq!(
                finding.outcome == CheckOutcome::Failed,
                finding.advice.is_some() && finding.outcome == CheckOutcome::Failed
            );
            if finding.outcome == CheckOutcome::Failed {
                assert!(finding.advice.is_some(), "it is not said what to do: {finding:?}");
            }
        }
    }
    report.findings.into_iter().map(|finding| (finding.name, (finding.outcome, finding.code))).collect()
}

fn one(finding: Finding) -> (CheckOutcome, String) {
    told(vec![finding]).into_values().next().unwrap()
}

#[test]
fn the_rights_are_those_of_the_manifest() {
    // The verbs of each rule, as they stand in the file.
    let manifest = include_str!("../../../deploy/kubernetes/builds.yaml");
    let list = |line: &str| -> Vec<String> {
        let inner = line.split_once('[').unwrap().1.split_once(']').unwrap().0;
        inner.split(',').map(|word| word.trim().to_owned()).collect()
    };
    let mut granted = BTreeSet::new();
    let mut resources = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with("resources:") {
            resources = list(line);
        } else if line.starts_with("verbs:") {
            granted.extend(
                resources.iter().flat_map(|resource| list(line).into_iter().map(|verb| (resource.clone(), verb))),
            );
        }
    }
    let asked: BTreeSet<_> =
        RIGHTS.iter().map(|(resource, verb)| ((*resource).to_owned(), (*verb).to_owned())).collect();
    assert_eq!(asked, granted);
}

#[test]
fn missing_rights_are_named() {
    let finding = judge::rights(&[("secrets", "create"), ("pods/portforward", "get")], "kiwi-builds");
    assert_eq!(finding.args["rights"], "create secrets, get pods/portforward");
    assert_eq!(one(finding), (CheckOutcome::Failed, "rights_missing".into()));
    assert_eq!(one(judge::rights(&[], "kiwi-builds")).0, CheckOutcome::Ok);
}

#[test]
fn refusals_say_what_refused() {
    let refused = |code, detail: &str| {
        one(judge::refused(&RunnerError::Refused { code, detail: detail.to_owned() }, &config())).1
    };
    for (code, said, wanted) in [
        ("cluster_namespace", "namespaces \"kiwi-builds\" not found", "namespace_missing"),
        ("cluster_policy", "violates PodSecurity \"baseline:latest\": seccompProfile", "isolation_policy"),
        ("cluster_quota", "exceeded quota: builds, requested: limits.memory=2Gi", "pod_quota"),
        ("cluster_refused", "is forbidden: failed quota: builds: must specify limits.cpu for: agent", "pod_quota"),
        ("cluster_refused", "is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi", "pod_quota"),
        ("cluster_rights", "User \"x\" cannot create resource \"pods\" in API group", "pod_rights"),
        ("cluster_refused", "admission webhook \"policy.example\" denied the request", "pod_refused"),
        ("cluster_invalid", "Pod \"x\" is invalid: spec.tolerations", "pod_refused"),
    ] {
        assert_eq!(refused(code, said), wanted, "{said}");
    }
    let unreachable = judge::refused(&RunnerError::Unreachable("no route".into()), &config());
    assert_eq!(one(unreachable).1, "pod_unreachable");
}

#[test]
fn an_api_server_answers_refuses_or_is_not_there() {
    let login = RunnerError::Refused { code: "cluster_login", detail: "Unauthorized".into() };
    for (answer, wanted) in [
        (Ok("v1.36.3".to_owned()), "api_ok"),
        (Err(login), "api_login"),
        (Err(RunnerError::Unreachable("refused".into())), "api_unreachable"),
    ] {
        assert_eq!(one(judge::api(answer)).1, wanted);
    }
}

#[test]
fn a_pod_in_which_all_is_well_has_only_good_findings() {
    let found = told(judge::seen(&stored(), &all_well()));
    assert!(found.values().all(|(outcome, _)| *outcome == CheckOutcome::Ok), "{found:?}");
    // Nothing that a cluster can be asked for is left out.
    for name in ["images", "pod", "isolation", "snapshotter", "build", "relay", "storage", "network_policy"] {
        assert!(found.contains_key(name), "{name}");
    }
    let without = told(judge::seen(&config(), &all_well()));
    assert_eq!(without["storage"], (CheckOutcome::Warning, "storage_none".into()));
}

#[test]
fn what_keeps_a_pod_from_its_report_is_told_apart() {
    let situation = |code, args: &[(&str, &str)]| {
        let args = args.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Seen { situation: Some(Situation { code, args, grade: Grade::TooLong }), ..Seen::default() }
    };
    let silent = Seen { last_word: Some("Error unrecognized subcommand 'probe-build'".into()), ..Seen::default() };
    for (seen, name, wanted) in [
        (situation("image_pull", &[("image", "x:1"), ("message", "not found")]), "images", "images_pull"),
        (situation("waiting_for_capacity", &[("message", "Insufficient cpu")]), "pod", "pod_capacity"),
        (situation("container_start", &[("container", "agent"), ("message", "no such file")]), "pod", "pod_container"),
        (situation("container_config", &[("container", "build"), ("message", "secret")]), "pod", "pod_container"),
        (situation("pod_starting", &[]), "pod", "pod_slow"),
        (situation("pod_sandbox", &[("message", "no network plugin")]), "pod", "pod_starting"),
        (situation("pod_evicted", &[("reason", "memory")]), "pod", "pod_ended"),
        (silent, "pod", "pod_silent"),
        (Seen::default(), "pod", "pod_slow"),
    ] {
        let found = told(judge::seen(&config(), &seen));
        assert_eq!(found[name], (CheckOutcome::Failed, wanted.into()));
        // What was not seen is not called good.
        assert_eq!(found["isolation"], (CheckOutcome::Skipped, "not_reached".into()));
        assert_eq!(found["network_policy"].0, CheckOutcome::Skipped);
    }
    let userns = KubernetesConfig { isolation: Isolation::Userns, ..config() };
    assert_eq!(told(judge::seen(&userns, &situation("pod_starting", &[])))["pod"].1, "pod_userns");
    let stopped = Seen { stopped: true, ..Seen::default() };
    assert_eq!(told(judge::seen(&config(), &stopped))["pod"], (CheckOutcome::Skipped, "stopped".into()));
    let unbound =
        Seen { claim: Some("Pending".into()), ..situation("waiting_for_capacity", &[("message", "no volumes")]) };
    assert_eq!(told(judge::seen(&stored(), &unbound))["storage"], (CheckOutcome::Failed, "storage_pending".into()));
    let no_git = Seen { without_git: Some("git cannot be run".into()), ..all_well() };
    assert_eq!(told(judge::seen(&config(), &no_git))["images"], (CheckOutcome::Failed, "images_no_git".into()));
}

#[test]
fn isolation_is_what_the_pod_has_and_not_what_was_asked_for() {
    let with = |own: &str, daemon: &str| ProbeReport {
        own_ids: IdRange::parse(own),
        daemon_ids: IdRange::parse(daemon),
        ..good()
    };
    let (node, apart) = ("0 0 4294967295", "0 524288 65536");
    for (wanted, report, outcome, code) in [
        (Isolation::Rootless, good(), CheckOutcome::Ok, "isolation_rootless"),
        (Isolation::Userns, with(apart, apart), CheckOutcome::Ok, "isolation_rootless"),
        // As it is seen from inside: the daemon's root is the Pod's.
        (Isolation::Userns, with(apart, "0 0 65536"), CheckOutcome::Ok, "isolation_userns"),
        (Isolation::Userns, with(node, node), CheckOutcome::Failed, "isolation_ignored"),
        (Isolation::Rootless, with(node, node), CheckOutcome::Failed, "isolation_ignored"),
        (Isolation::Privileged, with(node, node), CheckOutcome::Warning, "isolation_privileged"),
    ] {
        assert_eq!(one(judge::isolation(wanted, &report)), (outcome, code.into()), "{wanted:?}");
    }
}

#[test]
fn why_buildkit_does_not_start_is_told_apart() {
    let refusal = |code: &str| Some(Refusal { code: code.into(), reason: "newuidmap failed".into() });
    let bad = ProbeReport { daemon: refusal("node_setup"), build: None, ..good() };
    for (report, code) in [
        (ProbeReport { no_new_privileges: true, seccomp: true, ..bad.clone() }, "isolation_no_new_privileges"),
        (ProbeReport { max_user_namespaces: Some(0), ..bad.clone() }, "isolation_no_namespaces"),
        (ProbeReport { apparmor_restricts: true, ..bad.clone() }, "isolation_apparmor"),
        (ProbeReport { seccomp: true, ..bad.clone() }, "isolation_seccomp"),
        (bad.clone(), "isolation_refused"),
    ] {
        assert_eq!(one(judge::isolation(Isolation::Rootless, &report)), (CheckOutcome::Failed, code.into()));
        let found = told(judge::seen(&config(), &Seen { report: Some(report), ..all_well() }));
        assert_eq!(found["build"].0, CheckOutcome::Skipped);
    }
    // What went wrong is not the node's doing.
    let full = ProbeReport { daemon: refusal("disk_full"), no_new_privileges: true, ..bad };
    let found = told(judge::seen(&config(), &Seen { report: Some(full), ..all_well() }));
    assert_eq!(found["isolation"], (CheckOutcome::Skipped, "not_reached".into()));
    assert_eq!(found["build"], (CheckOutcome::Failed, "build_no_daemon".into()));
}

#[test]
fn what_buildkit_can_do_is_judged() {
    let of = |report: ProbeReport| told(judge::running(&report));
    assert_eq!(of(ProbeReport { snapshotter: "native".into(), ..good() })["snapshotter"].1, "snapshotter_native");
    assert_eq!(of(ProbeReport { snapshotter: "fuse-overlayfs".into(), ..good() })["snapshotter"].1, "snapshotter_fuse");
    let failed = Built { took_ms: 1, failure: Some("error: failed to mount proc".into()) };
    assert_eq!(
        of(ProbeReport { build: Some(failed), ..good() })["build"],
        (CheckOutcome::Failed, "build_failed".into())
    );
}

#[test]
fn a_policy_counts_when_somebody_was_kept_out() {
    let with = |visited, metadata_reached| {
        let report = ProbeReport { metadata_reached, ..good() };
        told(judge::seen(&config(), &Seen { visited, report: Some(report), ..all_well() }))["network_policy"].clone()
    };
    assert_eq!(with(Some(false), Some(false)), (CheckOutcome::Ok, "policy_ok".into()));
    assert_eq!(with(Some(true), Some(false)), (CheckOutcome::Warning, "policy_open".into()));
    assert_eq!(with(Some(false), Some(true)), (CheckOutcome::Warning, "policy_metadata".into()));
    // That an address without anybody behind it does not answer says nothing.
    assert_eq!(with(None, Some(false)), (CheckOutcome::Skipped, "not_reached".into()));
}

#[test]
fn a_broken_relay_is_a_failure() {
    let seen = Seen { relay: Some(Err("cluster_rights: forbidden".into())), ..all_well() };
    assert_eq!(told(judge::seen(&config(), &seen))["relay"], (CheckOutcome::Failed, "relay_failed".into()));
}

#[test]
fn a_registry_that_says_no_was_reached() {
    let host = "registry.example";
    let said = "error: failed to solve: registry.example/kiops-check/absent:check: ";
    for (cause, wanted) in [
        ("registry.example/kiops-check/absent:check: not found", "registry_ok"),
        ("pull access denied, repository does not exist or may require authorization", "registry_ok"),
        ("unexpected status from HEAD request to https://…: 401 Unauthorized", "registry_ok"),
        (
            "failed to do request: Head \"https://…\": tls: failed to verify certificate: x509: unknown authority",
            "registry_tls",
        ),
        ("failed to do request: http: server gave HTTP response to HTTPS client", "registry_plain"),
        ("failed to do request: dial tcp: lookup registry.example: no such host", "registry_dns"),
        ("failed to do request: dial tcp 10.0.0.1:443: connect: connection refused", "registry_net"),
        ("failed to do request: dial tcp 10.0.0.1:443: i/o timeout", "registry_net"),
        ("something else", "registry_unclear"),
    ] {
        let asked = Asked { host: host.into(), said: format!("{said}{cause}") };
        let finding = judge::registry(&asked);
        assert_eq!(one(finding).1, wanted, "{cause}");
    }
    let slow = Asked { host: host.into(), said: "it took too long".into() };
    assert_eq!(one(judge::registry(&slow)).1, "registry_net");
}

#[test]
fn a_machine_is_told_what_it_gives() {
    let root = ProbeReport { daemon_ids: IdRange::parse("0 0 4294967295"), network: "cni".into(), ..good() };
    let found = told(judge::machine(&root));
    assert_eq!(found["isolation"], (CheckOutcome::Warning, "isolation_root".into()));
    assert_eq!((found["network"].1.as_str(), found["limits"].1.as_str()), ("network_bridge", "limits_ok"));
    let found = told(judge::machine(&good()));
    assert_eq!(found["isolation"], (CheckOutcome::Ok, "isolation_rootless".into()));
    assert_eq!((found["network"].1.as_str(), found["limits"].1.as_str()), ("network_host", "limits_rootless"));
    let refused = ProbeReport { limits_refused: Some("read-only file system".into()), ..root };
    assert_eq!(told(judge::machine(&refused))["limits"].1, "limits_refused");
    let unstarted = ProbeReport { daemon: Some(Refusal { code: "daemon".into(), reason: "x".into() }), ..good() };
    let found = told(judge::machine(&ProbeReport { build: None, ..unstarted }));
    assert_eq!((found.len(), found["build"].1.as_str()), (2, "build_no_daemon"));
}

#[test]
fn a_probe_is_a_builds_pod_with_other_work() {
    let start = || {
        let mut start = probe::start(&build(), ServiceId::from_random([5; ID_LETTERS]), b"relay-key".to_vec());
        crate::runner::kubernetes::manifest::settle(&stored(), &mut start);
        start
    };
    let pod = probe::pod(&stored(), &start(), "uid-1", &["a.example".into(), "b.example:5000".into()]);
    let known: Pod = serde_json::from_value(pod.clone()).unwrap();
    assert_eq!(known.metadata.finalizers.unwrap_or_default(), Vec::<String>::new());
    let of_a_build = crate::runner::kubernetes::manifest::pod(&stored(), &start(), "uid-1");
    let commands = |pod: &Value| -> BTreeMap<String, Value> {
        let all = pod["spec"]["containers"].as_array().unwrap();
        all.iter().map(|c| (c["name"].as_str().unwrap().to_owned(), c["command"].clone())).collect()
    };
    assert_eq!(commands(&pod)["relay"], commands(&of_a_build)["relay"]);
    let asked = commands(&pod)["build"].to_string();
    assert!(asked.contains("probe-build") && asked.contains(r#""--registry","b.example:5000""#), "{asked}");
    // Everything that a cluster can refuse is a build's.
    let bare = |mut pod: Value| {
        for container in pod["spec"]["containers"].as_array_mut().unwrap() {
            container["command"] = Value::Null;
        }
        pod["spec"]["activeDeadlineSeconds"] = Value::Null;
        pod["spec"].clone()
    };
    assert_eq!(bare(pod.clone()), bare(of_a_build));
    // A server that starts knows it for an attempt of no build.
    assert_eq!(
        (&pod["metadata"]["labels"]["kiops.io/build"], &pod["metadata"]["labels"]["kiops.io/probe"]),
        (&json!(build()), &json!("true"))
    );

    let visitor = probe::visitor(&stored(), &build(), &pod, "10.0.0.1:7118");
    let known: Pod = serde_json::from_value(visitor.clone()).unwrap();
    assert_eq!(serde_json::to_value(&known).unwrap(), visitor);
    assert_eq!(visitor["spec"]["nodeSelector"], pod["spec"]["nodeSelector"]);
    assert_eq!(visitor["metadata"]["ownerReferences"], pod["metadata"]["ownerReferences"]);
    let owner = json!({ "apiVersion": "v1", "kind": "Secret", "name": "x", "uid": "uid-1" });
    let claim = probe::claim(&stored(), stored().state.as_ref().unwrap(), &start(), &owner);
    let known: PersistentVolumeClaim = serde_json::from_value(claim).unwrap();
    assert_eq!(known.metadata.owner_references.unwrap()[0].uid, "uid-1");
    let secret: Secret = serde_json::from_value(probe::secret(&stored(), &start()).unwrap()).unwrap();
    assert_eq!(secret.metadata.labels.unwrap()["kiops.io/probe"], "true");
}
