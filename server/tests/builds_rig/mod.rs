//! What the tests of builds share: the real store, agent, BuildKit, registry and Git host under one temporary folder.
//!
//! Everything that a test starts ends with it, and with a test process that is killed: a helper waits for a pipe to
//! close, then ends agents and daemon and removes the folder. No expectation of any one test lives here.
#![allow(dead_code)] // Each test binary uses another part of it.

use futures::{Stream, StreamExt};
use kiops_app::backend::{Builds as _, Caller};
use kiops_app::model::*;
use kiops_events::{EventKind, Place};
use kiops_rig::{Cluster, GitOptions, GitServer, Registry, RegistryOptions, Repo, buildkit_bins};
use kiops_server::builds::{Builds, BuildsConfig, Parts};
use kiops_server::disk::Disk;
use kiops_server::git::{AddressPolicy, Git};
use kiops_server::problems::random;
use kiops_server::registry::RegistryClient;
use kiops_server::runner::Runner;
use kiops_server::runner::local::{LocalConfig, LocalRunner};
use kiops_server::secrets::{KeySource, Sealer};
use kiops_server::store::{self, BuildRow, DatabaseUrl, NewServiceRow, SecretRow, SharedStore};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;

/// Far more than anything here takes, for a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// A build that can be told whole from one with a hole.
pub const COUNTING: &str =
    "FROM alpine:3\nCOPY . /\nRUN echo begun; for i in $(seq 1 100); do echo line $i; sleep 0.05; done\n";

pub fn all_lines() -> Vec<String> {
    (1..=100).map(|i| format!("line {i}")).collect()
}

/// The hosts that all tests of a binary share.
pub struct Hosts {
    pub registry: Registry,
    pub git: GitServer,
    next: AtomicU32,
}

pub async fn hosts() -> &'static Hosts {
    static HOSTS: OnceCell<Hosts> = OnceCell::const_new();
    HOSTS
        .get_or_init(|| async {
            let registry = Registry::start(RegistryOptions::default()).await.unwrap();
            registry.push_base_images().await.unwrap();
            let git = GitServer::start(GitOptions::default()).await.unwrap();
            Hosts { registry, git, next: AtomicU32::new(1) }
        })
        .await
}

impl Hosts {
    pub fn name(&self, what: &str) -> String {
        format!("{what}{}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Of the registry and of the Git host.
    pub fn ports(&self) -> [u16; 2] {
        [self.registry.address(), self.git.url()].map(|address| port_of(&address))
    }

    /// A repository whose `main` builds this Dockerfile.
    pub async fn repo(&self, dockerfile: &str) -> Repo {
        let repo = self.git.new_repo(&self.name("repo")).await.unwrap();
        repo.commit("main", &[("Dockerfile", dockerfile.as_bytes())], "The subject").await.unwrap();
        repo
    }
}

/// `kiops-agent`: named by the scripts, else beside this test's own program.
pub fn agent_program() -> PathBuf {
    if let Some(named) = std::env::var_os("KIOPS_AGENT") {
        return named.into();
    }
    let own = std::env::current_exe().unwrap();
    let built = own.ancestors().nth(2).unwrap().join("kiops-agent");
    assert!(built.exists(), "{} is missing: run `cargo build -p kiops-agent`", built.display());
    built
}

/// The agent as it is shipped: `scripts/build.sh` links it for images of any distribution. Cargo's own will do for who
/// runs one test by hand.
pub fn pod_agent() -> PathBuf {
    std::env::var_os("KIOPS_POD_AGENT").map_or_else(agent_program, PathBuf::from)
}

pub fn port_of(address: &str) -> u16 {
    address.trim_end_matches('/').rsplit_once(':').unwrap().1.parse().unwrap()
}

/// `kiops`: named by the scripts, else what cargo has built for this test.
pub fn server_program() -> PathBuf {
    std::env::var_os("KIOPS_SERVER").unwrap_or_else(|| env!("CARGO_BIN_EXE_kiops").into()).into()
}

/// A data folder. Whoever ends the test process, what runs in it ends and the folder goes.
pub struct Data {
    pub path: PathBuf,
    guard: Option<(Child, ChildStdin)>,
}

impl Data {
    pub fn new() -> Self {
        let path = tempfile::Builder::new().prefix("kiops-b-").tempdir().unwrap().keep();
        // Server and agents first, so that none starts the daemon again; only what is ours, as ids come around again. The
        // program is opened at once: its file may be gone by then.
        let script = "trap '' INT TERM HUP; exec 3<\"$1\"; cat >/dev/null
            for environ in $(grep -lsaF \"KIOPS_DATA=$2\" /proc/[0-9]*/environ); do
                kill -9 \"$(echo \"$environ\" | cut -d/ -f3)\"
            done
            for stat in \"$2\"/local/*/*.stat; do
                pid=$(cut -d' ' -f1 \"$stat\") || continue
                grep -qsaF \"$2/\" \"/proc/$pid/cmdline\" && kill -9 \"$pid\"
            done
            /proc/self/fd/3 daemon-stop --run-dir \"$2/buildkit/run\"; rm -rf \"$2\"";
        let mut guard = Command::new("sh")
            .args(["-c", script, "guard"])
            .arg(agent_program())
            .arg(&path)
            // Ctrl-C is for the tests, and not for who cleans up after them.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pipe = guard.stdin.take().unwrap();
        Self { path, guard: Some((guard, pipe)) }
    }

    /// Process id of the daemon that runs now.
    pub fn daemon_pid(&self) -> Option<i32> {
        let known = std::fs::read(self.path.join("buildkit/run/buildkitd.json")).ok()?;
        serde_json::from_slice::<serde_json::Value>(&known).ok()?["pid"].as_i64().map(|pid| pid as i32)
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        if let Some((mut guard, pipe)) = self.guard.take() {
            drop(pipe);
            let _ = guard.wait();
        }
    }
}

/// What a test may want otherwise.
pub struct Wishes {
    pub builds_at_once: u32,
    pub profiles: Profiles,
    pub hold: Duration,
    pub min_free_bytes: u64,
    /// In place of one that looks only when the world is made.
    pub disk: Option<Arc<Disk>>,
    /// SQLite's file, where it is not in the data folder.
    pub database: Option<PathBuf>,
    pub runner: Option<Arc<dyn Runner>>,
    /// Whose Pods the agents are in, for which this machine's loopback is another.
    pub cluster: Option<&'static Cluster>,
    /// What services have where a story asks for nothing else.
    pub profile: Profile,
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            builds_at_once: 2,
            profiles: Profiles::default(),
            hold: Duration::from_secs(60),
            min_free_bytes: 0,
            disk: None,
            database: None,
            runner: None,
            cluster: None,
            profile: Profile::Auto,
        }
    }
}

/// A server's inside without its HTTP.
pub struct World {
    // Before the data folder: fields are dropped in this order.
    pub builds: Builds,
    pub store: SharedStore,
    pub sealer: Arc<Sealer>,
    pub runner: Arc<dyn Runner>,
    pub caller: Caller,
    pub data: Arc<Data>,
    pub hosts: &'static Hosts,
    cluster: Option<&'static Cluster>,
    profile: Profile,
}

impl World {
    pub async fn new() -> Self {
        Self::with(Wishes::default()).await
    }

    pub async fn with(wishes: Wishes) -> Self {
        Self::open(Arc::new(Data::new()), wishes).await
    }

    /// A server over this data folder, with its queue at work.
    pub async fn open(data: Arc<Data>, wishes: Wishes) -> Self {
        let world = Self::asleep(data, wishes).await;
        world.builds.spawn();
        world
    }

    /// The same with nothing at work yet.
    pub async fn asleep(data: Arc<Data>, wishes: Wishes) -> Self {
        let hosts = hosts().await;
        let database = wishes.database.unwrap_or_else(|| data.path.join("kiops.db"));
        let store = store::open(&DatabaseUrl::sqlite(database)).await.unwrap();
        store.installation().await.unwrap();
        let admin = store.administrator().await.unwrap();
        let key = KeySource { value: None, file: &data.path.join("secret.key") };
        let sealer = Arc::new(Sealer::unlock(&*store, key).await.unwrap());
        let runner = match wishes.runner {
            Some(runner) => runner,
            None => Arc::new(local_runner(&data.path, hosts)),
        };
        let disk = wishes.disk.unwrap_or_else(|| Arc::new(Disk::new(&data.path, wishes.min_free_bytes)));
        let tmp = data.path.join("tmp");
        std::fs::create_dir_all(&tmp).unwrap();
        let policy = AddressPolicy { loopback: true };
        let mut config = BuildsConfig::new("test");
        config.builds_at_once = wishes.builds_at_once;
        config.profiles = wishes.profiles;
        config.hold = wishes.hold;
        let builds = Builds::new(Parts {
            store: store.clone(),
            runner: runner.clone(),
            sealer: sealer.clone(),
            heads: Arc::new(Git::new(&tmp, &tmp, policy)),
            registry: Arc::new(RegistryClient::new(policy)),
            disk,
            config,
        });
        let caller = Caller { user_id: admin.id, org_id: admin.org_id, name: admin.name };
        Self { builds, store, sealer, runner, caller, data, hosts, cluster: wishes.cluster, profile: wishes.profile }
    }

    /// Lets go of everything, as a server does that stops; what runs goes on.
    pub async fn close(self) -> Arc<Data> {
        self.builds.stop().await;
        self.store.close().await;
        self.data
    }

    /// A service that builds `main` of this repository and pushes to the shared registry.
    pub async fn service(&self, repo: &Repo) -> ServiceId {
        self.service_with(repo, self.settings(), self.registry_config(), Credentials::default()).await
    }

    pub fn settings(&self) -> BuildSettings {
        BuildSettings { profile: self.profile, ..BuildSettings::default() }
    }

    pub async fn service_of(&self, dockerfile: &str) -> ServiceId {
        self.service(&self.hosts.repo(dockerfile).await).await
    }

    /// An address of this machine's loopback, as agents have it.
    pub fn seen(&self, address: &str) -> String {
        match self.cluster {
            Some(cluster) => address.replace("127.0.0.1", &cluster.host_address()),
            None => address.to_owned(),
        }
    }

    /// Lets agents reach a host of a story's own.
    pub async fn let_in(&self, address: &str) {
        if let Some(cluster) = self.cluster {
            cluster.let_in(port_of(address)).await.unwrap();
        }
    }

    pub fn registry_config(&self) -> RegistryConfig {
        RegistryConfig {
            kind: RegistryKind::Private,
            host: self.seen(&self.hosts.registry.address()),
            path: "test".into(),
            image_name: self.hosts.name("image"),
            username: String::new(),
            has_password: false,
            plain_http: true,
            version: 1,
        }
    }

    pub async fn service_with(
        &self,
        repo: &Repo,
        settings: BuildSettings,
        registry: RegistryConfig,
        credentials: Credentials,
    ) -> ServiceId {
        let git_secret = self.secret(credentials.git_token);
        let registry_secret = self.secret(credentials.registry_password);
        let id = ServiceId::from_random(random());
        let service = NewServiceRow {
            id: id.clone(),
            org_id: self.caller.org_id.clone(),
            created_by: self.caller.user_id.clone(),
            name: self.hosts.name("service"),
            git_url: self.seen(repo.url()),
            default_branch: "main".into(),
            git_secret,
            registry,
            registry_secret,
            settings,
        };
        self.store.insert_service(&service).await.unwrap();
        id
    }

    fn secret(&self, value: Option<&str>) -> Option<SecretRow> {
        let id = SecretId::from_random(random());
        let (org, user) = (&self.caller.org_id, &self.caller.user_id);
        Some(self.sealer.seal_row(id, org, user, value?.as_bytes()).unwrap())
    }

    pub async fn start(&self, service: &ServiceId) -> BuildId {
        self.builds.start(&self.caller, service, on("main")).await.unwrap().id
    }

    pub async fn row(&self, id: &BuildId) -> BuildRow {
        self.store.build(&self.caller.org_id, id).await.unwrap()
    }

    pub async fn detail(&self, id: &BuildId) -> BuildDetail {
        self.builds.get(&self.caller, id).await.unwrap()
    }

    /// A build whose step has said so.
    pub async fn begun(&self, dockerfile: &str) -> BuildId {
        let service = self.service_of(dockerfile).await;
        let id = self.start(&service).await;
        self.until_log(&id, " begun\n").await;
        id
    }

    /// Lines of [`COUNTING`]'s step, in order of the log.
    pub async fn counted(&self, id: &BuildId, attempt: u32) -> Vec<String> {
        let mut lines = Vec::new();
        for (_, at, _, kind) in self.events(id).await {
            if let EventKind::Lines(text) = kind
                && at == attempt
                && matches!(text.place, Place::Step(_))
            {
                lines.extend(text.lines().filter(|l| l.starts_with("line ")).map(str::to_owned));
            }
        }
        lines
    }

    /// Sequence numbers of an attempt without hole or repeat, positions too.
    pub async fn assert_whole(&self, id: &BuildId) {
        let events = self.events(id).await;
        for (i, event) in (1u64..).zip(&events) {
            assert_eq!(event.0, i, "a hole in the positions");
        }
        for attempt in 1..=2 {
            let seqs = events.iter().filter(|e| e.1 == attempt && e.2 > 0).map(|e| e.2);
            for (i, seq) in (1u64..).zip(seqs) {
                assert_eq!(seq, i, "a hole in attempt {attempt}");
            }
        }
    }

    /// Waits until the row is as wanted.
    pub async fn until(&self, id: &BuildId, what: &str, wanted: impl Fn(&BuildRow) -> bool) -> BuildRow {
        let since = Instant::now();
        loop {
            let row = self.row(id).await;
            if wanted(&row) {
                return row;
            }
            if since.elapsed() > PATIENCE || row.status.is_final() {
                panic!("never {what}: {row:#?}\n{}\n{}", self.log(id).await, self.agent_logs());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn over(&self, id: &BuildId) -> BuildRow {
        self.until(id, "over", |row| row.status.is_final()).await
    }

    /// Waits until the log holds this text.
    pub async fn until_log(&self, id: &BuildId, text: &str) {
        let since = Instant::now();
        loop {
            let log = self.log(id).await;
            if log.contains(text) {
                return;
            }
            assert!(since.elapsed() < PATIENCE, "{text:?} never stood in the log:\n{log}\n{}", self.agent_logs());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn log(&self, id: &BuildId) -> String {
        text_of(self.builds.log_text(&self.caller, id).await.unwrap()).await
    }

    /// Everything that is stored of a build's log: (pos, attempt, seq, event).
    pub async fn events(&self, id: &BuildId) -> Vec<(u64, u32, u64, EventKind)> {
        let mut out: Vec<(u64, u32, u64, EventKind)> = Vec::new();
        loop {
            let after = out.last().map_or(0, |e| e.0);
            let pieces = self.store.log_after(id, after, 1 << 20).await.unwrap();
            let before = out.len();
            for entry in pieces.into_iter().flat_map(|p| p.entries).filter(|e| e.pos > after) {
                out.push((entry.pos, entry.attempt, entry.seq, serde_json::from_slice(&entry.payload).unwrap()));
            }
            if out.len() == before {
                return out;
            }
        }
    }

    pub async fn notes(&self, id: &BuildId) -> Vec<String> {
        let code = |kind| match kind {
            EventKind::Note { code, .. } => Some(code),
            _ => None,
        };
        self.events(id).await.into_iter().filter_map(|e| code(e.3)).collect()
    }

    pub fn attempt_folder(&self, id: &BuildId, attempt: u32) -> PathBuf {
        self.data.path.join("local").join(format!("{id}-{attempt}"))
    }

    /// Process id of an attempt's agent.
    pub fn agent_pid(&self, id: &BuildId, attempt: u32) -> i32 {
        let stat = std::fs::read_to_string(self.attempt_folder(id, attempt).join("agent.stat")).unwrap();
        stat.split(' ').next().unwrap().parse().unwrap()
    }

    /// For a failed test's message.
    pub fn agent_logs(&self) -> String {
        let folders = std::fs::read_dir(self.data.path.join("local")).into_iter().flatten().flatten();
        folders
            .filter_map(|f| {
                Some(format!("{}:\n{}", f.path().display(), std::fs::read_to_string(f.path().join("agent.log")).ok()?))
            })
            .collect()
    }

    /// Waits until the runner holds nothing more of a build.
    pub async fn released(&self, id: &BuildId) {
        let since = Instant::now();
        while self.runner.list().await.unwrap().iter().any(|(held, _)| held == id) {
            assert!(since.elapsed() < PATIENCE, "never released");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

pub fn local_runner(data: &Path, hosts: &Hosts) -> LocalRunner {
    let bins = buildkit_bins().unwrap();
    LocalRunner::new(LocalConfig {
        data: data.to_owned(),
        agent: agent_program(),
        buildkitd: bins.buildkitd,
        buildctl: bins.buildctl,
        dockerhub_mirrors: vec![hosts.registry.address()],
        insecure_registries: vec![hosts.registry.address()],
        addresses: AddressPolicy { loopback: true },
    })
    .unwrap()
}

#[derive(Default)]
pub struct Credentials {
    pub git_token: Option<&'static str>,
    pub registry_password: Option<&'static str>,
}

pub fn on(branch: &str) -> StartBuild {
    StartBuild { branch: branch.into(), ..StartBuild::default() }
}

/// The code of a refusal.
pub fn code<T: std::fmt::Debug>(refused: Result<T, kiops_app::error::Problem>) -> String {
    refused.unwrap_err().code
}

pub async fn text_of<E: std::fmt::Debug>(stream: impl Stream<Item = Result<bytes::Bytes, E>>) -> String {
    let parts: Vec<_> = stream.collect().await;
    String::from_utf8(parts.into_iter().flat_map(|part| part.unwrap().to_vec()).collect()).unwrap()
}

pub fn kill(pid: i32, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
}
