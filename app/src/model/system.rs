//! The state of the whole installation, as pages show it.

use super::Profiles;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SystemStatus {
    pub runner: RunnerKind,
    pub queue_paused: bool,
    pub running: u32,
    pub queued: u32,
    pub builds_at_once: u32,
    /// Less free space in the data folder than new builds need; the figures are bytes.
    pub disk_low: bool,
    pub free_bytes: u64,
    pub needed_bytes: u64,
    pub version: String,
    pub profiles: Profiles,
    /// Whether a build's size is enforced: not for an ordinary user's builds on one machine.
    pub limits_hold: bool,
    /// Whether cache mounts are there again in a service's next build.
    pub keeps_cache_mounts: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunnerKind {
    Local,
    Kubernetes,
}
