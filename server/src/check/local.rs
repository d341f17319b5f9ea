//! This machine: its programs are asked who they are, and the agent starts a BuildKit of its own, beside that of the builds.

use super::{Target, insecure, judge};
use crate::problems::random;
use crate::runner::kubernetes::probe;
use kiops_app::model::{BuildId, Finding, ProfileSize, ServiceId};
use kiops_events::address::AddressPolicy;
use kiops_events::probe::{ProbeReport, clipped};
use kiops_events::spec::{BuildkitSpec, CgroupSpec, FilesSpec};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const ANSWER_LIMIT: Duration = Duration::from_secs(10);
const PROBE_LIMIT: Duration = Duration::from_secs(50);
/// The group whose limits are tried; no service has this name.
const GROUP: &str = "kiops/check";

/// What the local runner is told, and the disk.
#[derive(Clone, Debug)]
pub struct LocalCheck {
    pub data: PathBuf,
    pub min_free_bytes: u64,
    /// As they were found, or the sentence that says why not.
    pub agent: Result<PathBuf, String>,
    pub buildkitd: Result<PathBuf, String>,
    pub buildctl: Result<PathBuf, String>,
    pub dockerhub_mirrors: Vec<String>,
    pub insecure_registries: Vec<String>,
    pub addresses: AddressPolicy,
}

impl LocalCheck {
    pub async fn run(&self, targets: &[Target], stopping: &CancellationToken) -> Vec<Finding> {
        let git = Ok(PathBuf::from("git"));
        let (git, agent, buildkitd, buildctl) = tokio::join!(
            version_of(&git),
            version_of(&self.agent),
            version_of(&self.buildkitd),
            version_of(&self.buildctl)
        );
        let buildkit = buildkitd.and_then(|version| buildctl.map(|_| version));
        let usable = agent.is_ok() && buildkit.is_ok();
        let mut findings = vec![self.disk(), self::git(git), self::agent(agent), self::buildkit(buildkit)];
        findings.extend(match (&self.agent, &self.buildkitd, &self.buildctl) {
            (Ok(agent), Ok(buildkitd), Ok(buildctl)) if usable => {
                let made = self.probe(agent, buildkitd, buildctl, targets);
                tokio::select! {
                    report = made => told(report),
                    () = stopping.cancelled() => vec![Finding::skipped("isolation", "stopped")],
                }
            }
            _ => vec![Finding::skipped("isolation", "not_reached")],
        });
        findings
    }

    fn disk(&self) -> Finding {
        // The folder that is there: the server makes the rest.
        let folder = self.data.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."));
        let free = match rustix::fs::statvfs(folder) {
            Ok(found) => found.f_bavail.saturating_mul(found.f_frsize),
            Err(error) => {
                return Finding::skipped("disk", "disk_unseen").with("folder", folder.display()).with("reason", error);
            }
        };
        let finding = if free < self.min_free_bytes {
            Finding::failed("disk", "disk_low").with("needed_bytes", self.min_free_bytes)
        } else {
            Finding::ok("disk", "disk_ok")
        };
        finding.with("free_bytes", free).with("folder", folder.display())
    }

    /// Why there is no report, in the agent's words.
    async fn probe(
        &self,
        agent: &Path,
        buildkitd: &Path,
        buildctl: &Path,
        targets: &[Target],
    ) -> Result<ProbeReport, String> {
        // Not in the data folder: the name of a socket must be short, and a server may have the folder.
        let folder = tempfile::Builder::new().prefix("kiops-check-").tempdir().map_err(|error| error.to_string())?;
        let at = |name: &str| folder.path().join(name);
        let build = BuildId::from_random(random());
        let mut start = probe::start(&build, ServiceId::from_random(random()), Vec::new());
        start.spec.buildkit = BuildkitSpec {
            buildkitd: buildkitd.to_owned(),
            buildctl: buildctl.to_owned(),
            run_dir: at("run"),
            state_dir: at("state"),
            no_process_sandbox: false,
            in_user_namespace: false,
            state_goes: false,
            dockerhub_mirrors: self.dockerhub_mirrors.clone(),
            insecure_registries: insecure(&self.insecure_registries, targets),
        };
        start.spec.source.addresses = self.addresses;
        start.spec.limits.cgroup = rustix::process::geteuid().is_root().then(|| CgroupSpec {
            parent: GROUP.to_owned(),
            cpu_millicores: start.size.cpu_millicores,
            memory_bytes: ProfileSize::MEDIUM.memory_bytes,
        });
        start.spec.files = FilesSpec {
            workspace: at("workspace"),
            spool: at("spool"),
            docker_config: at("docker"),
            ..FilesSpec::default()
        };
        let spec = serde_json::to_vec(&start.spec).map_err(|error| error.to_string())?;
        let prepared = std::fs::create_dir(at("docker"))
            .and_then(|()| std::fs::write(at("docker").join("config.json"), &start.docker_config))
            .and_then(|()| std::fs::write(at("spec.json"), spec));
        prepared.map_err(|error| error.to_string())?;
        // Also when nobody waits for the end any more.
        let _daemon = DaemonEnd { agent: agent.to_owned(), run_dir: at("run") };
        let mut command = Command::new(agent);
        command.arg("probe-build").arg("--dir").arg(folder.path()).arg("--report").arg(at("report.json"));
        command.args(targets.iter().flat_map(|target| ["--registry", target.host.as_str()]));
        let said = timeout(PROBE_LIMIT, command.stdin(std::process::Stdio::null()).kill_on_drop(true).output()).await;
        let said = said.map_err(|_| "it took too long".to_owned())?.map_err(|error| error.to_string())?;
        let report = std::fs::read(at("report.json")).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        report.ok_or_else(|| clipped(&String::from_utf8_lossy(&said.stderr)))
    }
}

/// Sees to it that the probe's daemon ends before its folder goes.
struct DaemonEnd {
    agent: PathBuf,
    run_dir: PathBuf,
}

impl Drop for DaemonEnd {
    fn drop(&mut self) {
        let ended = std::process::Command::new(&self.agent)
            .arg("daemon-stop")
            .arg("--run-dir")
            .arg(&self.run_dir)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status();
        if let Err(error) = ended {
            tracing::warn!(%error, "the check's own buildkitd may still run");
        }
    }
}

/// What a program says of itself; an error is the reason why it says nothing.
async fn version_of(program: &Result<PathBuf, String>) -> Result<String, String> {
    let program = program.as_ref().map_err(Clone::clone)?;
    let shown = program.display();
    let asked = Command::new(program).arg("--version").kill_on_drop(true).output();
    let said = timeout(ANSWER_LIMIT, asked).await.map_err(|_| format!("{shown}: it took too long"))?;
    let said = said.map_err(|error| format!("{shown}: {error}"))?;
    if !said.status.success() {
        return Err(format!("{shown}: {}", clipped(&String::from_utf8_lossy(&said.stderr))));
    }
    Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

fn git(version: Result<String, String>) -> Finding {
    match version {
        Ok(version) => Finding::ok("git", "git_ok").with("version", version),
        Err(reason) => Finding::failed("git", "git_missing").with("reason", reason),
    }
}

fn agent(version: Result<String, String>) -> Finding {
    match version {
        Ok(version) if version.ends_with(concat!(" ", env!("CARGO_PKG_VERSION"))) => {
            Finding::ok("agent", "agent_ok").with("version", version)
        }
        Ok(version) => {
            Finding::warning("agent", "agent_other").with("version", version).with("own", env!("CARGO_PKG_VERSION"))
        }
        Err(reason) => Finding::failed("agent", "agent_missing").with("reason", reason),
    }
}

fn buildkit(version: Result<String, String>) -> Finding {
    match version {
        Ok(version) => Finding::ok("buildkit", "buildkit_ok").with("version", version),
        Err(reason) => Finding::failed("buildkit", "buildkit_missing").with("reason", reason),
    }
}

fn told(report: Result<ProbeReport, String>) -> Vec<Finding> {
    match report {
        Ok(report) => judge::machine(&report),
        Err(reason) => vec![Finding::failed("isolation", "probe_failed").with("reason", reason)],
    }
}
