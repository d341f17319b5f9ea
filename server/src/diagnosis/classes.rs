//! The classes of failures: which group each belongs to, and what the product can do about it.

use super::End;
use kiops_events::Phase;

const DOCKERFILE: &str = "dockerfile_not_found";
const BUILD: &str = "build_failure";
const PUSH: &str = "image_push_failure";
const CLONE: &str = "clone";
const INFRASTRUCTURE: &str = "infrastructure";
const TIMEOUT: &str = "timeout";

pub fn group(code: &str, phase: Option<Phase>, end: End) -> &'static str {
    match code {
        "timeout" => TIMEOUT,
        "dockerfile_missing" | "dockerfile_case" | "dockerfile_outside" => DOCKERFILE,
        "daemon" | "node_setup" | "isolation_ignored" | "disk_full" | "agent" | "agent_lost" | "spool"
        | "agent_missing" | "buildkit_missing" | "runner" | "unreadable" => INFRASTRUCTURE,
        "pod_disk" => BUILD,
        "image_pull"
        | "waiting_for_capacity"
        | "waiting_for_volume"
        | "container_config"
        | "container_start"
        | "container_oom"
        | "node_lost" => INFRASTRUCTURE,
        _ if code.starts_with("pod_") || code.starts_with("cluster_") => INFRASTRUCTURE,
        _ if code.starts_with("git_") => CLONE,
        _ if code.starts_with("push_") => PUSH,
        _ if end == End::Infrastructure => INFRASTRUCTURE,
        // The same trouble with a connection has another reader depending on whose connection it was.
        "tls" | "dns" | "network" | "rate_limited" => match phase {
            Some(Phase::Push) => PUSH,
            _ => BUILD,
        },
        _ => BUILD,
    }
}

pub fn actions(code: &str, group: &str) -> &'static [&'static str] {
    match code {
        "git_auth" | "git_not_found" | "git_tls" | "git_address" => &["source_settings"],
        "git_ref" | "git_dns" | "git_net" | "git_failed" => &["rebuild", "source_settings"],
        "push_auth" | "push_denied" | "push_404" | "push_quota" | "base_auth" => &["registry_settings"],
        "push_server" | "rate_limited" | "network" | "dns" => &["rebuild"],
        "push_immutable" => &["rebuild"],
        "tls" if group == PUSH => &["registry_settings"],
        "oom" | "timeout" | "pod_disk" | "waiting_for_capacity" | "cluster_quota" => &["build_settings", "rebuild"],
        _ if group == DOCKERFILE => &["build_settings"],
        _ if group == INFRASTRUCTURE => &["rebuild"],
        _ => &[],
    }
}

/// Classes of what happens before any step could be to blame.
pub fn is_before_the_build(code: &str) -> bool {
    code.starts_with("git_") || code.starts_with("dockerfile_") || matches!(code, "frontend_blocked" | "entitlement")
}
