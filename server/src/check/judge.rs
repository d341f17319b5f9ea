//! What answers mean. Pure, so as tables: the real answers are met in the stories.

use crate::runner::kubernetes::{Isolation, KubernetesConfig};
use crate::runner::{RunnerError, Situation};
use kiops_app::model::Finding;
use kiops_events::probe::{Asked, ProbeReport, clipped, root_of};

/// A verb on a resource.
pub type Right = (&'static str, &'static str);

/// What the server does in its namespace: the Role of `deploy/kubernetes/builds.yaml`, right by right.
pub const RIGHTS: &[Right] = &[
    ("pods", "create"),
    ("pods", "get"),
    ("pods", "list"),
    ("pods", "patch"),
    ("pods", "delete"),
    ("pods/portforward", "create"),
    ("pods/portforward", "get"),
    ("secrets", "create"),
    ("secrets", "get"),
    ("secrets", "list"),
    ("secrets", "delete"),
    (CLAIMS, "create"),
    (CLAIMS, "get"),
    (CLAIMS, "list"),
    (CLAIMS, "delete"),
    ("events", "list"),
];
/// The agent's word for a node that does not let BuildKit start.
const NODE_SETUP: &str = "node_setup";
/// Used only where services have storage.
pub const CLAIMS: &str = "persistentvolumeclaims";

/// What only a Pod can tell, in the order in which it is told.
const OF_THE_POD: [&str; 6] = ["isolation", "snapshotter", "build", "relay", "storage", "network_policy"];

pub fn api(version: Result<String, RunnerError>) -> Finding {
    match version {
        Ok(version) => Finding::ok("api", "api_ok").with("version", version),
        Err(RunnerError::Refused { code: "cluster_login", detail }) => {
            Finding::failed("api", "api_login").with("reason", detail)
        }
        Err(error) => Finding::failed("api", "api_unreachable").with("reason", error),
    }
}

pub fn rights(missing: &[Right], namespace: &str) -> Finding {
    if missing.is_empty() {
        return Finding::ok("rights", "rights_ok").with("namespace", namespace);
    }
    let named: Vec<_> = missing.iter().map(|(resource, verb)| format!("{verb} {resource}")).collect();
    Finding::failed("rights", "rights_missing").with("namespace", namespace).with("rights", named.join(", "))
}

/// Why an object of the probe was not taken.
pub fn refused(error: &RunnerError, config: &KubernetesConfig) -> Finding {
    let namespace = &config.namespace;
    let (code, said) = match error {
        RunnerError::Refused { code, detail } => (*code, detail.clone()),
        other => ("", other.to_string()),
    };
    let has = |texts: &[&str]| texts.iter().any(|text| said.contains(text));
    let finding = match code {
        "cluster_namespace" => return Finding::failed("namespace", "namespace_missing").with("namespace", namespace),
        "cluster_policy" => Finding::failed("isolation", "isolation_policy").with("namespace", namespace),
        "cluster_quota" => Finding::failed("pod", "pod_quota").with("namespace", namespace),
        // A ResourceQuota that wants what a LimitRange would give, and a LimitRange that gives less than a build needs.
        "cluster_refused" if has(&["failed quota", "usage per Container", "usage per Pod"]) => {
            Finding::failed("pod", "pod_quota").with("namespace", namespace)
        }
        "cluster_rights" => Finding::failed("pod", "pod_rights").with("namespace", namespace),
        "" => Finding::failed("pod", "pod_unreachable"),
        _ => Finding::failed("pod", "pod_refused"),
    };
    finding.with("message", clipped(&said))
}

/// All that was seen of a probe.
#[derive(Default)]
pub struct Seen {
    /// From the Pod's making to the end of its container `build`.
    pub took_ms: u64,
    pub situation: Option<Situation>,
    pub report: Option<ProbeReport>,
    /// Of the container `build`, where it left no report.
    pub last_word: Option<String>,
    /// Of the container `checkout`, which is to stay.
    pub without_git: Option<String>,
    /// How long a conversation took, or why there was none.
    pub relay: Option<Result<u64, String>>,
    /// Whether another Pod was let in.
    pub visited: Option<bool>,
    /// Phase of the claim.
    pub claim: Option<String>,
    /// The check was told to stop.
    pub stopped: bool,
}

pub fn seen(config: &KubernetesConfig, seen: &Seen) -> Vec<Finding> {
    let mut findings = vec![images(config, seen), pod(config, seen)];
    if let Some(report) = &seen.report {
        findings.push(isolation(config.isolation, report));
        findings.extend(running(report));
    }
    findings.extend(relay(seen));
    findings.push(storage(config, seen));
    findings.extend(policy(seen));
    findings.extend(seen.report.iter().flat_map(|report| report.registries.iter().map(registry)));
    for name in OF_THE_POD {
        if !findings.iter().any(|finding| finding.name == name) {
            findings.push(Finding::skipped(name, "not_reached"));
        }
    }
    findings
}

fn images(config: &KubernetesConfig, seen: &Seen) -> Finding {
    if let Some(reason) = &seen.without_git {
        return Finding::failed("images", "images_no_git").with("image", &config.own_image).with("message", reason);
    }
    match &seen.situation {
        Some(found) if found.code == "image_pull" => Finding::failed("images", "images_pull")
            .with("image", argument(found, "image"))
            .with("message", argument(found, "message")),
        Some(_) if seen.report.is_none() => Finding::skipped("images", "not_reached"),
        _ => Finding::ok("images", "images_ok").with("own", &config.own_image).with("builder", &config.builder_image),
    }
}

fn argument(found: &Situation, name: &str) -> String {
    found.args.get(name).map(|said| clipped(said)).unwrap_or_default()
}

fn pod(config: &KubernetesConfig, seen: &Seen) -> Finding {
    if seen.report.is_some() {
        return Finding::ok("pod", "pod_ok").with("seconds", format!("{:.1}", seen.took_ms as f64 / 1000.0));
    }
    if seen.stopped {
        return Finding::skipped("pod", "stopped");
    }
    if let Some(said) = &seen.last_word {
        return Finding::failed("pod", "pod_silent").with("image", &config.own_image).with("message", clipped(said));
    }
    let Some(found) = &seen.situation else { return Finding::failed("pod", "pod_slow") };
    let message = argument(found, "message");
    match found.code {
        "image_pull" => Finding::skipped("pod", "not_reached"),
        "waiting_for_capacity" => Finding::failed("pod", "pod_capacity").with("message", message),
        "container_config" | "container_start" => Finding::failed("pod", "pod_container")
            .with("container", argument(found, "container"))
            .with("message", message),
        "pod_starting" | "pod_sandbox" if config.isolation == Isolation::Userns => Finding::failed("pod", "pod_userns"),
        "pod_starting" => Finding::failed("pod", "pod_slow"),
        "pod_sandbox" | "pod_volume" => Finding::failed("pod", "pod_starting").with("message", message),
        _ => {
            Finding::failed("pod", "pod_ended").with("reason", format!("{} {}", found.code, argument(found, "reason")))
        }
    }
}

/// How the container of a Pod really is kept apart from its node, whatever was asked for.
pub fn isolation(wanted: Isolation, report: &ProbeReport) -> Finding {
    match &report.daemon {
        Some(refusal) if refusal.code == NODE_SETUP => {
            return unusable(report).with("reason", &refusal.reason).with("kernel", &report.kernel);
        }
        Some(_) => return Finding::skipped("isolation", "not_reached"),
        None => {}
    }
    let (own, daemon) = (root_of(&report.own_ids), root_of(&report.daemon_ids));
    // Without a map of its own the Pod is in the node's namespace, where root is root.
    let pod_is_apart = own != Some(0);
    let daemon_is_apart = daemon != Some(0);
    let ids = daemon.map(|id| id.to_string()).unwrap_or_default();
    let finding = match (pod_is_apart, daemon_is_apart, wanted) {
        (_, true, _) => Finding::ok("isolation", "isolation_rootless").with("id", ids),
        (true, false, _) => {
            Finding::ok("isolation", "isolation_userns").with("id", own.map(|id| id.to_string()).unwrap_or_default())
        }
        (false, false, Isolation::Privileged) => Finding::warning("isolation", "isolation_privileged"),
        (false, false, _) => Finding::failed("isolation", "isolation_ignored"),
    };
    finding.with("kernel", &report.kernel)
}

/// Why BuildKit does not run: the causes that can be told apart, by how often they are met.
fn unusable(report: &ProbeReport) -> Finding {
    let code = if report.no_new_privileges {
        "isolation_no_new_privileges"
    } else if report.max_user_namespaces == Some(0) {
        "isolation_no_namespaces"
    } else if report.apparmor_restricts {
        "isolation_apparmor"
    } else if report.seccomp {
        "isolation_seccomp"
    } else {
        "isolation_refused"
    };
    Finding::failed("isolation", code)
}

/// What a BuildKit that runs can do.
pub fn running(report: &ProbeReport) -> Vec<Finding> {
    let Some(built) = &report.build else {
        // What is the node's doing is said of the isolation.
        let other = report.daemon.iter().filter(|refusal| refusal.code != NODE_SETUP);
        return other
            .map(|refusal| Finding::failed("build", "build_no_daemon").with("reason", &refusal.reason))
            .collect();
    };
    let build = match &built.failure {
        None => Finding::ok("build", "build_ok")
            .with("version", &report.buildkit)
            .with("seconds", format!("{:.1}", built.took_ms as f64 / 1000.0)),
        Some(reason) => {
            Finding::failed("build", "build_failed").with("version", &report.buildkit).with("reason", reason)
        }
    };
    let snapshotter = match report.snapshotter.as_str() {
        "native" => Finding::warning("snapshotter", "snapshotter_native").with("kernel", &report.kernel),
        "fuse-overlayfs" => Finding::warning("snapshotter", "snapshotter_fuse").with("kernel", &report.kernel),
        name => Finding::ok("snapshotter", "snapshotter_ok").with("name", name),
    };
    vec![snapshotter, build]
}

/// What one machine gives to builds. As root they are root's, which is how it was started.
pub fn machine(report: &ProbeReport) -> Vec<Finding> {
    let apart = root_of(&report.daemon_ids) != Some(0);
    let isolation = match &report.daemon {
        None if !apart => Finding::warning("isolation", "isolation_root").with("kernel", &report.kernel),
        _ => isolation(Isolation::Rootless, report),
    };
    let mut findings = vec![isolation];
    if report.daemon.is_none() {
        findings.push(match (report.network.as_str(), apart) {
            ("cni", _) => Finding::ok("network", "network_bridge"),
            _ => Finding::warning("network", "network_host"),
        });
        findings.push(match (&report.limits_refused, apart) {
            (Some(reason), _) => Finding::warning("limits", "limits_refused").with("reason", reason),
            (None, true) => Finding::warning("limits", "limits_rootless"),
            (None, false) => Finding::ok("limits", "limits_ok"),
        });
    }
    findings.extend(running(report));
    findings.extend(report.registries.iter().map(registry));
    findings
}

fn relay(seen: &Seen) -> Option<Finding> {
    Some(match seen.relay.as_ref()? {
        Ok(ms) => Finding::ok("relay", "relay_ok").with("ms", ms),
        Err(reason) => Finding::failed("relay", "relay_failed").with("reason", reason),
    })
}

fn storage(config: &KubernetesConfig, seen: &Seen) -> Finding {
    let Some(storage) = &config.state else { return Finding::warning("storage", "storage_none") };
    let class = storage.class.as_deref().unwrap_or("-");
    let told = |finding: Finding| finding.with("class", class).with("size", &storage.size);
    match seen.claim.as_deref() {
        Some("Bound") => told(Finding::ok("storage", "storage_ok")),
        Some(phase) => {
            let waits = seen.situation.as_ref().filter(|found| found.code == "waiting_for_capacity");
            let message = waits.map_or_else(|| phase.to_owned(), |found| argument(found, "message"));
            told(Finding::failed("storage", "storage_pending")).with("message", message)
        }
        None => Finding::skipped("storage", "not_reached"),
    }
}

/// Whether what `deploy/kubernetes/builds.yaml` forbids is forbidden.
fn policy(seen: &Seen) -> Option<Finding> {
    let metadata = seen.report.as_ref().and_then(|report| report.metadata_reached);
    Some(match (seen.visited, metadata) {
        (_, Some(true)) => Finding::warning("network_policy", "policy_metadata"),
        (Some(true), _) => Finding::warning("network_policy", "policy_open"),
        (Some(false), _) => Finding::ok("network_policy", "policy_ok"),
        (None, _) => return None,
    })
}

/// A registry as builds reach it, by what BuildKit says when it looks there for an image that does not exist.
pub fn registry(asked: &Asked) -> Finding {
    // Who asked for what stands before it.
    let cause = ["manifests/check\": ", "absent:check: "].iter().find_map(|before| asked.said.rsplit_once(before));
    let cause = cause.map_or(asked.said.as_str(), |(_, cause)| cause);
    let said = asked.said.to_lowercase();
    let has = |texts: &[&str]| texts.iter().any(|text| said.contains(text));
    let code = if has(&["x509", "certificate", "tls: "]) {
        "registry_tls"
    } else if has(&["http response to https client", "server gave http"]) {
        "registry_plain"
    } else if has(&["no such host", "server misbehaving", "name resolution", "lookup "]) {
        "registry_dns"
    } else if has(&["refused", "timeout", "too long", "no route", "unreachable", "deadline exceeded", "reset by peer"])
    {
        "registry_net"
    } else if has(&[
        "not found",
        "401",
        "403",
        "unauthorized",
        "denied",
        "authoriz",
        "insufficient_scope",
        "manifest unknown",
    ]) {
        return Finding::ok("registry", "registry_ok").with("host", &asked.host);
    } else {
        let unclear = Finding::warning("registry", "registry_unclear");
        return unclear.with("host", &asked.host).with("reason", cause);
    };
    Finding::failed("registry", code).with("host", &asked.host).with("reason", cause)
}
