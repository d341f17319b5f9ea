//! What a runner gives to an agent: everything about one attempt of one build, but no secret value.
//!
//! Secrets are files beside the specification (mode 0600 on one machine, a mounted Secret in a Pod), so that no value
//! stands in an argument list, an environment that `/proc` shows, or this file.

use crate::address::AddressPolicy;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentSpec {
    /// [`crate::wire::VERSION`] of the server that wrote it.
    pub version: u32,
    pub build: String,
    pub attempt: u32,
    pub source: SourceSpec,
    pub dockerfile: DockerfileSpec,
    pub image: ImageSpec,
    pub cache: CacheSpec,
    pub buildkit: BuildkitSpec,
    pub limits: LimitsSpec,
    pub files: FilesSpec,
    /// Written into the image's config, so that the registry can be asked whose image it holds.
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceSpec {
    /// Without credentials.
    pub url: String,
    /// The full commit that is built, exactly.
    pub commit: String,
    /// `refs/heads/main` or `refs/tags/v1`: fetched when the server refuses to give a commit by its hash.
    pub reference: String,
    pub submodules: bool,
    /// Where it may be fetched from, its submodules too.
    #[serde(default)]
    pub addresses: AddressPolicy,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum DockerfileSpec {
    /// The exact name `Dockerfile`: the root first, then by depth and name.
    Auto,
    /// Relative to the repository's root, normalised.
    Path { path: String },
    /// Generated and stored with the service; the repository holds none.
    Inline { dockerfile: String, dockerignore: String },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageSpec {
    /// Full references with tag; the first is the build's own, others move.
    pub references: Vec<String>,
    /// Push over plain HTTP.
    pub plain_http: bool,
    #[serde(default)]
    pub platform: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CacheSpec {
    /// Reference of the registry cache; none switches it off.
    #[serde(default)]
    pub reference: Option<String>,
    /// Nothing reused: no import, every step built anew.
    pub no_cache: bool,
    /// `<service id>-<generation>`, for BUILDKIT_CACHE_MOUNT_NS.
    pub mount_namespace: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BuildkitSpec {
    pub buildkitd: PathBuf,
    pub buildctl: PathBuf,
    /// Holds the daemon's socket, configuration, log and lock.
    pub run_dir: PathBuf,
    /// The daemon's state; its name carries BuildKit's version.
    pub state_dir: PathBuf,
    /// Steps share the daemon's process namespace: an ordinary user in a container cannot mount them a /proc of their own.
    #[serde(default)]
    pub no_process_sandbox: bool,
    /// Its root must be an ordinary user outside: BuildKit is not started where a node gave it no user namespace.
    #[serde(default)]
    pub in_user_namespace: bool,
    /// The state is new in every attempt, and goes with it.
    #[serde(default)]
    pub state_goes: bool,
    /// Registries that stand in for docker.io, `host:port`.
    #[serde(default)]
    pub dockerhub_mirrors: Vec<String>,
    /// Registries served over plain HTTP, `host:port`.
    #[serde(default)]
    pub insecure_registries: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitsSpec {
    pub time_limit_s: u32,
    pub log_cap_bytes: u64,
    /// How long the relay waits for the server after the end before it gives up.
    pub hold_s: u32,
    /// Limits on the build's steps, where cgroups can be written.
    #[serde(default)]
    pub cgroup: Option<CgroupSpec>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CgroupSpec {
    /// Fixed per service (`kiops/<service id>`): it is part of a RUN step's cache key.
    pub parent: String,
    pub cpu_millicores: u32,
    pub memory_bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FilesSpec {
    /// Where the commit is checked out.
    pub workspace: PathBuf,
    pub spool: PathBuf,
    /// Unix socket of the relay on one machine.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// The key both sides of the relay know.
    pub key: PathBuf,
    /// Git credential: first line user, second line token. Absent for a public repository.
    #[serde(default)]
    pub git_credential: Option<PathBuf>,
    /// Folder with docker's `config.json`.
    pub docker_config: PathBuf,
    /// Files whose contents must never appear in a log, beside the git credential and the docker config.
    #[serde(default)]
    pub redact: Vec<PathBuf>,
}
