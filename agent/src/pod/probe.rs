//! A self-test of the place where builds run: the containers of a build's Pod, each with something to find out in place of
//! its work. The relay is the real one. What was found is written down as it is; the server judges it.
//!
//! On one machine only the `build` is run.

use super::isolation::ids;
use super::shared::{Role, Shared};
use super::{begin, conclude, hold, recorder};
use crate::cgroup::Group;
use crate::daemon;
use crate::process::{environment, output_within};
use crate::record::{Ending, Recorder};
use crate::run::Exit;
use crate::spool::make;
use crate::stop::Stop;
use anyhow::Context;
use clap::Args;
use kiops_events::event::AgentEnd;
use kiops_events::probe::{Asked, Built, MAX_REGISTRIES, ProbeReport, Refusal, clipped};
use kiops_events::spec::AgentSpec;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

/// Where clouds keep the credentials of their machines. A connection is opened, and nothing is asked.
const METADATA: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80);
const METADATA_LIMIT: Duration = Duration::from_secs(2);
const WORKERS_LIMIT: Duration = Duration::from_secs(10);
const BUILD_LIMIT: Duration = Duration::from_secs(20);
const REGISTRY_LIMIT: Duration = Duration::from_secs(10);
/// A listener may come up a moment after its visitor.
const VISIT_LIMIT: Duration = Duration::from_secs(4);
const KNOCK_LIMIT: Duration = Duration::from_secs(2);
const KNOCK_AGAIN: Duration = Duration::from_millis(200);

#[derive(Args)]
pub struct ProbeArguments {
    /// Folder with spec.json
    #[arg(long)]
    dir: PathBuf,
    /// File that the report is written to
    #[arg(long)]
    report: PathBuf,
    /// Registry that BuildKit is to ask; may be given several times
    #[arg(long)]
    registry: Vec<String>,
    /// Also tries to reach what the network policy forbids
    #[arg(long)]
    metadata: bool,
}

/// In the place of the container `build`.
pub async fn build(arguments: &ProbeArguments) -> anyhow::Result<Exit> {
    let (spec, redactor) = begin(&arguments.dir)?;
    let shared = Shared::of(&spec)?;
    let Some(_lock) = shared.take(Role::Build)? else { return Ok(Exit::Taken) };
    let stop = Stop::default();
    stop.at_signals()?;
    make(&spec.files.spool).context("the spool cannot be made")?;
    let recorder = recorder(&spec, redactor, &stop)?;
    let report = look(&spec, arguments, &recorder, &stop).await;
    std::fs::write(&arguments.report, report.written()?).with_context(|| format!("{}", arguments.report.display()))?;
    if let Err(error) = daemon::stop(&spec.buildkit.run_dir).await {
        tracing::warn!(%error, "buildkitd was not stopped in good order");
    }
    conclude(&recorder, &Ending::of(AgentEnd::Success), hold(&spec)).await
}

/// In the place of the container `checkout`: there until it is told to go.
pub async fn checkout(port: u16) -> anyhow::Result<Exit> {
    let mut git = Command::new("git");
    git.arg("--version").env_clear().envs(environment());
    let said = output_within(git, WORKERS_LIMIT).await.context("git cannot be run")?;
    anyhow::ensure!(said.status.success(), "git --version: {}", String::from_utf8_lossy(&said.stderr).trim());
    // Both families, where the node has both.
    let listener = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await.context("the door cannot be opened")?,
    };
    let stop = Stop::default();
    stop.at_signals()?;
    loop {
        tokio::select! {
            visitor = listener.accept() => drop(visitor),
            _ = stop.ordered() => return Ok(Exit::Success),
        }
    }
}

/// Knocks until it is let in, for a while.
pub async fn visit(address: SocketAddr) -> anyhow::Result<Exit> {
    let since = Instant::now();
    while since.elapsed() < VISIT_LIMIT {
        if reaches(address, KNOCK_LIMIT).await {
            return Ok(Exit::Success);
        }
        tokio::time::sleep(KNOCK_AGAIN).await;
    }
    Ok(Exit::Failure)
}

async fn reaches(address: SocketAddr, limit: Duration) -> bool {
    matches!(tokio::time::timeout(limit, TcpStream::connect(address)).await, Ok(Ok(_)))
}

async fn look(spec: &AgentSpec, arguments: &ProbeArguments, recorder: &Recorder, stop: &Stop) -> ProbeReport {
    let mut report = surroundings();
    if let Some(Err(error)) = spec.limits.cgroup.as_ref().map(Group::limit) {
        report.limits_refused = Some(clipped(&error.to_string()));
    }
    let metadata = async { if arguments.metadata { Some(reaches(METADATA, METADATA_LIMIT).await) } else { None } };
    let (metadata, daemon) = tokio::join!(metadata, daemon::ensure(&spec.buildkit, recorder, stop));
    report.metadata_reached = metadata;
    let daemon = match daemon {
        Ok(daemon) => daemon,
        Err(ending) => {
            report.daemon = Some(refusal(&ending));
            return report;
        }
    };
    report.daemon_ids = daemon.process().map(|pid| ids(&pid.to_string())).unwrap_or_default();
    let bench = Bench { spec: spec.clone(), socket: daemon.socket().to_owned() };
    if let Some(worker) = bench.worker().await {
        report.buildkit = worker.buildkit.version;
        let label = |name: &str| worker.labels.get(&format!("org.mobyproject.buildkit.worker.{name}")).cloned();
        report.snapshotter = label("snapshotter").unwrap_or_default();
        report.network = label("network").unwrap_or_default();
    }
    report.build = Some(bench.build_something().await);
    report.registries = bench.ask(&arguments.registry).await;
    report
}

/// What the kernel says of this process and its place.
fn surroundings() -> ProbeReport {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let status = read("/proc/self/status");
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    ProbeReport {
        kernel: read("/proc/sys/kernel/osrelease"),
        own_ids: ids("self"),
        seccomp: field("Seccomp:").is_some_and(|mode| mode != "0"),
        no_new_privileges: field("NoNewPrivs:") == Some("1"),
        max_user_namespaces: read("/proc/sys/user/max_user_namespaces").parse().ok(),
        apparmor_restricts: read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1",
        ..ProbeReport::default()
    }
}

fn refusal(ending: &Ending) -> Refusal {
    Refusal {
        code: ending.code.clone().unwrap_or_default(),
        reason: clipped(ending.args.get("reason").map_or("it took too long", String::as_str)),
    }
}

/// As `buildctl debug workers` writes it.
#[derive(Deserialize)]
struct Worker {
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default, rename = "buildkitVersion")]
    buildkit: Version,
}

#[derive(Default, Deserialize)]
struct Version {
    #[serde(default)]
    version: String,
}

/// A daemon to build with.
#[derive(Clone)]
struct Bench {
    spec: AgentSpec,
    socket: PathBuf,
}

impl Bench {
    async fn buildctl(&self, arguments: &[&str], limit: Duration) -> io::Result<Output> {
        let mut command = Command::new(&self.spec.buildkit.buildctl);
        command.arg("--addr").arg(format!("unix://{}", self.socket.display())).args(arguments);
        command.env_clear().envs(environment()).env("DOCKER_CONFIG", &self.spec.files.docker_config);
        output_within(command, limit).await
    }

    async fn worker(&self) -> Option<Worker> {
        let said = self.buildctl(&["debug", "workers", "--format", "{{json .}}"], WORKERS_LIMIT).await.ok()?;
        let workers: Vec<Worker> = serde_json::from_slice(&said.stdout).ok()?;
        workers.into_iter().next()
    }

    /// A step that runs in a container of BuildKit's own, without an image from anywhere: BuildKit's client needs nothing
    /// but itself.
    async fn build_something(&self) -> Built {
        let since = Instant::now();
        let failure = match self.prepare_something() {
            Ok(folder) => self.solve(&folder, BUILD_LIMIT).await,
            Err(error) => Some(error.to_string()),
        };
        Built { took_ms: since.elapsed().as_millis() as u64, failure: failure.map(|said| clipped(&said)) }
    }

    fn prepare_something(&self) -> io::Result<PathBuf> {
        let program = found(&self.spec.buildkit.buildctl).ok_or(io::ErrorKind::NotFound)?;
        let folder =
            self.prepare("something", "FROM scratch\nCOPY program /program\nRUN [\"/program\", \"--version\"]\n")?;
        std::fs::copy(program, folder.join("program"))?;
        Ok(folder)
    }

    fn prepare(&self, name: &str, dockerfile: &str) -> io::Result<PathBuf> {
        let folder = self.spec.files.workspace.join(name);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("Dockerfile"), dockerfile)?;
        Ok(folder)
    }

    /// Has every registry asked for an image that it does not have: how it says so shows whether it was reached.
    async fn ask(&self, registries: &[String]) -> Vec<Asked> {
        let mut asking = Vec::new();
        for (number, host) in registries.iter().take(MAX_REGISTRIES).cloned().enumerate() {
            let bench = self.clone();
            asking.push(tokio::spawn(async move {
                let dockerfile = format!("FROM {host}/kiops-check/absent:check\n");
                let said = match bench.prepare(&format!("registry-{number}"), &dockerfile) {
                    Ok(folder) => bench.solve(&folder, REGISTRY_LIMIT).await,
                    Err(error) => Some(error.to_string()),
                };
                Asked { host, said: clipped(&said.unwrap_or_default()) }
            }));
        }
        let mut asked = Vec::new();
        for one in asking {
            asked.extend(one.await);
        }
        asked
    }

    /// What was said when it did not work.
    async fn solve(&self, folder: &Path, limit: Duration) -> Option<String> {
        let folder = folder.display();
        let (context, dockerfile) = (format!("context={folder}"), format!("dockerfile={folder}"));
        let arguments = ["build", "--progress=plain", "--frontend", "dockerfile.v0", "--opt", "cmdline=dockerfile.v0"];
        let places = ["--no-cache", "--local", &context, "--local", &dockerfile];
        let said = match self.buildctl(&[&arguments[..], &places].concat(), limit).await {
            Ok(said) if said.status.success() => return None,
            Ok(said) => String::from_utf8_lossy(&said.stderr).into_owned(),
            Err(error) => return Some(error.to_string()),
        };
        let mut lines = said.lines().filter(|line| !line.trim().is_empty());
        let last = lines.clone().rfind(|line| line.starts_with("error: ")).or_else(|| lines.next_back());
        Some(last.unwrap_or("it said nothing").to_owned())
    }
}

/// A program's file, as the shell finds it.
fn found(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return Some(program.to_owned());
    }
    let path = environment().into_iter().find(|(name, _)| name == "PATH")?.1;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_kernel_and_ids() {
        let found = surroundings();
        assert!(!found.kernel.is_empty() && !found.own_ids.is_empty(), "{found:?}");
    }

    #[tokio::test]
    async fn a_visitor_is_let_in_where_somebody_listens() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(visit(address).await.unwrap(), Exit::Success);
        drop(listener);
        assert_eq!(visit(address).await.unwrap(), Exit::Failure);
    }

    #[test]
    fn workers_are_read_as_buildctl_writes_them() {
        let text = r#"[{"id":"x","labels":{"org.mobyproject.buildkit.worker.snapshotter":"overlayfs"},"platforms":null,
            "gcPolicy":null,"buildkitVersion":{"package":"github.com/moby/buildkit","version":"v0.32.2","revision":""}}]"#;
        let workers: Vec<Worker> = serde_json::from_str(text).unwrap();
        assert_eq!(workers[0].buildkit.version, "v0.32.2");
        assert_eq!(workers[0].labels["org.mobyproject.buildkit.worker.snapshotter"], "overlayfs");
    }
}
