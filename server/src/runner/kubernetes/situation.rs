//! What a Pod's status says about its attempt: nothing while all goes its way, else what it waits for or what befell it.
//! Pure, by the precedence of whoever knows best: the Pod's own end, then its containers', then what it waits for.

use super::config::Patience;
use crate::runner::{Grade, Situation};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodStatus};
use std::collections::BTreeMap;

/// Nothing more is in the Pod's status: what keeps it from starting is only told by its events.
pub const STARTING: &str = "pod_starting";
/// The container whose end is the attempt's.
pub const BUILD: &str = "build";
const RELAY: &str = "relay";

/// How long something lasts is counted from the Pod's own times.
pub fn situation(pod: &Pod, now_ms: i64, patience: &Patience) -> Option<Situation> {
    let status = pod.status.as_ref()?;
    lost(pod, now_ms, patience)
        .or_else(|| ended(pod, status))
        .or_else(|| died(status))
        .or_else(|| waiting(pod, status, now_ms, patience))
}

/// Whether the relay can be asked.
pub fn relay_runs(pod: &Pod) -> bool {
    runs(pod, RELAY)
}

pub fn runs(pod: &Pod, container: &str) -> bool {
    containers(pod.status.as_ref())
        .any(|c| c.name == container && c.state.as_ref().is_some_and(|s| s.running.is_some()))
}

/// How a container has come to its end.
pub fn end_of<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStateTerminated> {
    let found = containers(pod.status.as_ref()).find(|c| c.name == container)?;
    found.state.as_ref()?.terminated.as_ref()
}

/// Whether the container that builds has come to its end, so that its status says of what.
pub fn build_ended(pod: &Pod) -> bool {
    end_of(pod, BUILD).is_some()
}

/// Whether nothing of the attempt will ever be heard again.
pub fn is_over(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let relay = containers(Some(status)).find(|c| c.name == RELAY);
    let ended = relay.and_then(|c| c.state.as_ref()).is_some_and(|s| s.terminated.is_some());
    ended || matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

/// What befell a Pod of which nothing is left.
pub fn deleted() -> Situation {
    found("pod_deleted", Grade::Ended, &[])
}

fn containers(status: Option<&PodStatus>) -> impl Iterator<Item = &ContainerStatus> {
    let of = |list: fn(&PodStatus) -> &Option<Vec<ContainerStatus>>| status.and_then(|s| list(s).as_ref());
    let all = [of(|s| &s.init_container_statuses), of(|s| &s.container_statuses)];
    all.into_iter().flatten().flatten()
}

fn found(code: &'static str, grade: Grade, args: &[(&str, &str)]) -> Situation {
    let args: BTreeMap<_, _> = args.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Situation { code, grade, args }
}

/// It should be gone for long, and its node does not say that it is: nobody will ever say more.
fn lost(pod: &Pod, now_ms: i64, patience: &Patience) -> Option<Situation> {
    // The moment at which its time to end is over.
    let due_ms = pod.metadata.deletion_timestamp.as_ref()?.0.as_millisecond();
    let late = Grade::of(now_ms - due_ms, patience.starting) == Grade::TooLong && !is_over(pod);
    late.then(|| found("node_lost", Grade::TooLong, &[("reason", "")]))
}

/// The Pod as a whole was ended by somebody.
fn ended(pod: &Pod, status: &PodStatus) -> Option<Situation> {
    let message = status.message.as_deref().unwrap_or_default();
    let code = match status.reason.as_deref() {
        Some("Evicted") if grows_with_profile(message) => "pod_disk",
        Some("Evicted") => "pod_evicted",
        Some("DeadlineExceeded") => "pod_deadline",
        Some("NodeLost" | "NodeShutdown" | "Shutdown" | "Terminated" | "NodeAffinity" | "UnexpectedAdmissionError") => {
            "node_lost"
        }
        Some("Preempting" | "Preempted") => "pod_preempted",
        _ if pod.metadata.deletion_timestamp.is_some() => "pod_deleted",
        _ => return None,
    };
    Some(found(code, Grade::Ended, &[("reason", message)]))
}

/// Whether it was the disk that a larger profile has more of; the small volumes have the same size in all of them.
fn grows_with_profile(message: &str) -> bool {
    let fixed = ["bin", "spool", "tmp", "run"].iter().any(|name| message.contains(&format!("volume \"{name}\"")));
    !fixed && (message.contains("ephemeral") || message.contains("EmptyDir"))
}

/// The same Pod that is starting, with what its latest warning says of why.
pub fn explained(starting: Situation, reason: &str, message: &str) -> Situation {
    let code = match reason {
        "FailedCreatePodSandBox" | "NetworkNotReady" => "pod_sandbox",
        "FailedMount" | "FailedAttachVolume" | "FailedMapVolume" => "pod_volume",
        _ => return starting,
    };
    found(code, starting.grade, &[("message", message)])
}

/// The namespace takes no further Pod. `since_ms`: when that was asked for first.
pub fn over_quota(message: &str, since_ms: Option<i64>, now_ms: i64, patience: &Patience) -> Situation {
    let grade = Grade::of(now_ms - since_ms.unwrap_or(now_ms), patience.capacity);
    found("cluster_quota", grade, &[("message", message)])
}

/// A container came to an end that nobody planned.
fn died(status: &PodStatus) -> Option<Situation> {
    containers(Some(status)).find_map(|container| {
        let state = container.state.as_ref()?.terminated.as_ref()?;
        let reason = state.reason.as_deref().unwrap_or_default();
        let said = state.message.as_deref().unwrap_or_default();
        let args = [("container", container.name.as_str()), ("reason", reason), ("message", said)];
        match reason {
            // Also with exit code 0, when only a child was killed.
            "OOMKilled" if container.name == BUILD => Some(found("oom", Grade::Ended, &args)),
            "OOMKilled" => Some(found("container_oom", Grade::Ended, &args)),
            "ContainerCannotRun" | "StartError" => Some(found("container_start", Grade::Ended, &args)),
            _ => None,
        }
    })
}

fn waiting(pod: &Pod, status: &PodStatus, now_ms: i64, patience: &Patience) -> Option<Situation> {
    let since_ms = |time: Option<i64>| now_ms - time.unwrap_or(now_ms);
    let created = pod.metadata.creation_timestamp.as_ref().map(|t| t.0.as_millisecond());
    let condition = |kind: &str| status.conditions.iter().flatten().find(|c| c.type_ == kind);
    if let Some(scheduled) = condition("PodScheduled").filter(|c| c.status == "False") {
        let message = scheduled.message.as_deref().unwrap_or_default();
        let grade = Grade::of(since_ms(created), patience.capacity);
        // The scheduler waits for volumes as it does for nodes.
        let volume = ["PersistentVolumeClaim", "persistentvolumeclaim", "persistent volume", "volume node affinity"];
        let for_volume = volume.iter().any(|word| message.contains(word));
        let code = if for_volume { "waiting_for_volume" } else { "waiting_for_capacity" };
        return Some(found(code, grade, &[("message", message)]));
    }
    let begun = condition("PodScheduled").and_then(|c| c.last_transition_time.as_ref()).map(|t| t.0.as_millisecond());
    let age_ms = since_ms(begun.or(created));
    containers(Some(status)).find_map(|container| {
        let state = container.state.as_ref()?.waiting.as_ref()?;
        let said = state.message.as_deref().unwrap_or_default();
        let args = [("container", container.name.as_str()), ("image", container.image.as_str()), ("message", said)];
        match state.reason.as_deref()? {
            "InvalidImageName" | "ErrImageNeverPull" => Some(found("image_pull", Grade::TooLong, &args)),
            "ErrImagePull" | "ImagePullBackOff" | "RegistryUnavailable" | "ImageInspectError" => {
                Some(found("image_pull", Grade::of(age_ms, patience.image), &args))
            }
            "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
                Some(found("container_config", Grade::of(age_ms, patience.container), &args))
            }
            "ContainerCreating" | "PodInitializing" if age_ms > patience.quiet.as_millis() as i64 => {
                Some(found(STARTING, Grade::of(age_ms, patience.starting), &args))
            }
            _ => None,
        }
    })
}
