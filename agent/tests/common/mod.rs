//! What the agent's integration tests share: real parts, an attempt's folder, a client of the relay.
//!
//! No expectation of any one test lives here.
#![allow(dead_code)] // Each test binary uses another part of it.

use kiops_events::address::AddressPolicy;
use kiops_events::event::{AgentResult, EventKind, LineText, Outcome, Place};
use kiops_events::spec::*;
use kiops_events::wire::{self, Answer, Frame, Hello, Side, VERSION};
use kiops_events::{AgentEvent, chain::Chain};
use kiops_rig::{BuildkitBins, GitOptions, GitServer, Registry, RegistryOptions, Repo, buildkit_bins};
use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::UnixStream;
use tokio::sync::{Mutex, OnceCell};

pub const KEY: &[u8] = b"a key that both sides know";
/// Far more than anything here takes, for a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A registry with base images, a Git host, and a folder for a buildkitd that agents start.
pub struct Lab {
    pub registry: Registry,
    pub git: GitServer,
    pub bins: BuildkitBins,
    pub daemon: DaemonFolder,
    next: AtomicU32,
}

/// The shared lab of a test binary: most tests need no daemon of their own.
pub async fn lab() -> &'static Lab {
    static LAB: OnceCell<Lab> = OnceCell::const_new();
    LAB.get_or_init(Lab::new).await
}

impl Lab {
    pub async fn new() -> Self {
        let registry = Registry::start(RegistryOptions::default()).await.unwrap();
        registry.push_base_images().await.unwrap();
        let git = GitServer::start(GitOptions::default()).await.unwrap();
        Self { registry, git, bins: buildkit_bins().unwrap(), daemon: DaemonFolder::new(), next: AtomicU32::new(1) }
    }

    /// A repository with these files on `main`.
    pub async fn repo(&self, files: &[(&str, &str)]) -> (Repo, String) {
        let name = format!("repo{}", self.next.fetch_add(1, Ordering::Relaxed));
        let repo = self.git.new_repo(&name).await.unwrap();
        let files: Vec<(&str, &[u8])> = files.iter().map(|(p, c)| (*p, c.as_bytes())).collect();
        let commit = repo.commit("main", &files, "The subject").await.unwrap();
        (repo, commit)
    }

    /// An attempt that builds `Dockerfile` with this text.
    pub async fn attempt_of(&self, dockerfile: &str) -> Attempt {
        self.attempt_with(&[("Dockerfile", dockerfile)]).await
    }

    pub async fn attempt_with(&self, files: &[(&str, &str)]) -> Attempt {
        let (repo, commit) = self.repo(files).await;
        self.attempt(repo.url(), &commit)
    }

    pub fn attempt(&self, url: &str, commit: &str) -> Attempt {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let folder = tempfile::Builder::new().prefix("kiops-agent-").tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("key"), KEY).unwrap();
        std::fs::create_dir(at("docker")).unwrap();
        std::fs::write(at("docker/config.json"), "{}").unwrap();
        let registry = self.registry.address();
        let spec = AgentSpec {
            version: VERSION,
            build: format!("build-{number}"),
            attempt: 1,
            source: SourceSpec {
                url: url.into(),
                commit: commit.into(),
                reference: "refs/heads/main".into(),
                submodules: true,
                addresses: AddressPolicy { loopback: true },
            },
            dockerfile: DockerfileSpec::Auto,
            image: ImageSpec {
                references: vec![format!("{registry}/test/image-{number}:1")],
                plain_http: true,
                platform: None,
            },
            cache: CacheSpec { reference: None, no_cache: false, mount_namespace: format!("svc{number}-1") },
            buildkit: BuildkitSpec {
                buildkitd: self.bins.buildkitd.clone(),
                buildctl: self.bins.buildctl.clone(),
                run_dir: self.daemon.run_dir(),
                state_dir: self.daemon.state_dir(),
                no_process_sandbox: false,
                in_user_namespace: false,
                state_goes: false,
                dockerhub_mirrors: vec![registry.clone()],
                insecure_registries: vec![registry],
            },
            limits: LimitsSpec { time_limit_s: 120, log_cap_bytes: 1 << 30, hold_s: 60, cgroup: None },
            files: FilesSpec {
                workspace: at("workspace"),
                spool: at("spool"),
                socket: Some(at("relay.sock")),
                key: at("key"),
                git_credential: None,
                docker_config: at("docker"),
                redact: vec![],
            },
            labels: BTreeMap::from([("kiops.build".to_owned(), format!("build-{number}"))]),
        };
        Attempt { folder, spec }
    }
}

/// The agent: named by the scripts, else what cargo has built for this test.
pub fn agent_program() -> PathBuf {
    std::env::var_os("KIOPS_AGENT").unwrap_or_else(|| env!("CARGO_BIN_EXE_kiops-agent").into()).into()
}

/// Where a buildkitd lives. Whoever ends the test process, the daemon ends and the folder goes: a helper waits for the
/// pipe to close.
pub struct DaemonFolder {
    path: PathBuf,
    guard: Option<(Child, ChildStdin)>,
}

impl DaemonFolder {
    pub fn new() -> Self {
        let path = tempfile::Builder::new().prefix("kiops-agent-d-").tempdir().unwrap().keep();
        // The program is opened at once: its file may be gone by then.
        let script = "trap '' INT TERM HUP; exec 3<\"$1\"; cat >/dev/null
            /proc/self/fd/3 daemon-stop --run-dir \"$2/run\"; rm -rf \"$2\"";
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

    pub fn run_dir(&self) -> PathBuf {
        self.path.join("run")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.path.join("state-0.32.2")
    }

    /// Process id of the daemon that runs now.
    pub fn pid(&self) -> i32 {
        let known = std::fs::read(self.run_dir().join("buildkitd.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&known).unwrap()["pid"].as_i64().unwrap() as i32
    }

    pub fn stop(&self) {
        let status =
            Command::new(agent_program()).arg("daemon-stop").arg("--run-dir").arg(self.run_dir()).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for DaemonFolder {
    fn drop(&mut self) {
        if let Some((mut guard, pipe)) = self.guard.take() {
            drop(pipe);
            let _ = guard.wait();
        }
    }
}

/// An attempt's folder, not begun.
pub struct Attempt {
    pub folder: TempDir,
    pub spec: AgentSpec,
}

impl Attempt {
    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn git_credential(&mut self, user: &str, token: &str) {
        std::fs::write(self.at("git"), format!("{user}\n{token}\n")).unwrap();
        self.spec.files.git_credential = Some(self.at("git"));
    }

    pub fn start(self) -> Agent {
        std::fs::write(self.at("spec.json"), serde_json::to_vec(&self.spec).unwrap()).unwrap();
        let child = spawn(self.folder.path());
        Agent { attempt: self, child, exit: None }
    }

    /// Runs it to its end, following it from the first event on.
    pub async fn run(self) -> Story {
        let mut agent = self.start();
        let events = agent.follow_to_end(0).await;
        agent.story(events).await
    }
}

fn spawn(folder: &Path) -> Child {
    Command::new(agent_program()).arg("run").arg("--dir").arg(folder).spawn().unwrap()
}

/// A running agent; killed when dropped.
pub struct Agent {
    pub attempt: Attempt,
    child: Child,
    exit: Option<ExitStatus>,
}

impl Agent {
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Runs the program again on the same folder.
    pub fn again(&mut self) {
        self.child = spawn(self.attempt.folder.path());
        self.exit = None;
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_raw(self.pid()).unwrap(), signal).unwrap();
    }

    pub async fn connect(&self) -> UnixStream {
        let socket = self.attempt.spec.files.socket.as_ref().unwrap();
        let since = Instant::now();
        loop {
            match UnixStream::connect(socket).await {
                Ok(stream) => return stream,
                Err(error) => assert!(since.elapsed() < PATIENCE, "no relay: {error}; {}", self.log()),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn follow(&self, after: u64) -> Follow {
        Follow::greet(self.connect().await, &self.attempt.spec, KEY, after).await.unwrap()
    }

    /// All events from `after` on, with their raw payloads. Asserts that they come in order, once each.
    pub async fn follow_to_end(&mut self, after: u64) -> Vec<(AgentEvent, Vec<u8>)> {
        let mut follow = self.follow(after).await;
        let events = follow.until_result().await;
        assert!(events.iter().zip(after + 1..).all(|((event, _), seq)| event.seq == seq), "{}", self.log());
        follow.send(Frame::Ack(after + events.len() as u64)).await;
        follow.send(Frame::Release).await;
        events
    }

    pub async fn wait(&mut self) -> ExitStatus {
        let since = Instant::now();
        loop {
            if let Some(status) = self.exit.or(self.child.try_wait().unwrap()) {
                self.exit = Some(status);
                return status;
            }
            assert!(since.elapsed() < PATIENCE, "the agent does not end: {}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.attempt.at("agent.log")).unwrap_or_default()
    }

    /// Waits for the end, checks the count and the hash, and that nothing but the spool is left.
    pub async fn story(mut self, events: Vec<(AgentEvent, Vec<u8>)>) -> Story {
        let exit = self.wait().await;
        let mut chain = Chain::default();
        let (last, before) = events.split_last().unwrap();
        before.iter().for_each(|(_, payload)| chain.push(payload));
        let EventKind::Result(result) = &last.0.kind else { panic!("no result") };
        assert_eq!((result.count, &result.hash), (chain.count, &chain.hex()));
        assert!(!self.attempt.spec.files.workspace.exists(), "the workspace is still there");
        assert!(!self.attempt.spec.files.socket.as_ref().unwrap().exists(), "the socket is still there");
        Story { log: self.log(), exit, events: events.into_iter().map(|e| e.0).collect(), agent: self }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

type Output = Arc<Mutex<WriteHalf<Box<dyn Io>>>>;

/// A client of the relay, past the handshake.
pub struct Follow {
    input: ReadHalf<Box<dyn Io>>,
    output: Output,
    beats: tokio::task::JoinHandle<()>,
    buffer: Vec<u8>,
    used: usize,
    pub begin_ms: i64,
}

impl Follow {
    /// Err with the reason when the relay refuses.
    pub async fn greet(stream: impl Io + 'static, spec: &AgentSpec, key: &[u8], after: u64) -> Result<Self, String> {
        let own = "0123456789abcdef0123456789abcdef".to_owned();
        let (build, attempt) = (spec.build.clone(), spec.attempt);
        let (input, output) = tokio::io::split(Box::new(stream) as Box<dyn Io>);
        let output = Arc::new(Mutex::new(output));
        let beats = tokio::spawn(beat(output.clone()));
        let mut follow = Self { input, output, beats, buffer: Vec::new(), used: 0, begin_ms: 0 };
        let hello = Hello { version: VERSION, build: build.clone(), attempt, after, nonce: own.clone() };
        follow.send(Frame::Hello(hello)).await;
        let proof = match follow.frame().await {
            Some(Frame::Proof(proof)) => proof,
            Some(Frame::Refused(why)) => return Err(why),
            other => panic!("no proof but {other:?}"),
        };
        if key == KEY {
            assert!(wire::proven(key, Side::Agent, &build, attempt, &own, &proof.nonce, &proof.mac));
        }
        let mac = wire::prove(key, Side::Server, &build, attempt, &proof.nonce, &own);
        follow.send(Frame::Answer(Answer { mac })).await;
        match follow.frame().await {
            Some(Frame::Begin(begin)) => follow.begin_ms = begin.now_ms,
            Some(Frame::Refused(why)) => return Err(why),
            other => panic!("no beginning but {other:?}"),
        }
        Ok(follow)
    }

    pub async fn send(&mut self, frame: Frame) {
        put(&self.output, frame).await.unwrap();
    }

    pub async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, used)) = Frame::decode(&self.buffer[self.used..]).unwrap() {
                self.used += used;
                return Some(frame);
            }
            self.buffer.drain(..self.used);
            self.used = 0;
            let had = self.buffer.len();
            self.buffer.resize(had + 256 * 1024, 0);
            let got = tokio::time::timeout(PATIENCE, self.input.read(&mut self.buffer[had..])).await;
            let got = got.expect("nothing came").unwrap_or(0);
            self.buffer.truncate(had + got);
            if got == 0 {
                return None;
            }
        }
    }

    pub async fn event(&mut self) -> Option<(AgentEvent, Vec<u8>)> {
        let since = Instant::now();
        loop {
            match self.frame().await? {
                Frame::Event(payload) => return Some((serde_json::from_slice(&payload).unwrap(), payload)),
                Frame::Beat => assert!(since.elapsed() < PATIENCE, "only signs of life came"),
                other => panic!("not an event but {other:?}"),
            }
        }
    }

    /// All events up to the result, with their raw payloads.
    pub async fn until_result(&mut self) -> Vec<(AgentEvent, Vec<u8>)> {
        let mut events = Vec::new();
        loop {
            let (event, payload) = self.event().await.expect("the relay closed before the result");
            let ended = matches!(event.kind, EventKind::Result(_));
            events.push((event, payload));
            if ended {
                return events;
            }
        }
    }

    /// Reads until an event is like this.
    pub async fn until(&mut self, wanted: impl Fn(&EventKind) -> bool) -> AgentEvent {
        loop {
            let (event, _) = self.event().await.expect("the relay closed");
            assert!(!matches!(event.kind, EventKind::Result(_)) || wanted(&event.kind), "ended before: {event:?}");
            if wanted(&event.kind) {
                return event;
            }
        }
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.beats.abort();
    }
}

async fn put(output: &Mutex<WriteHalf<Box<dyn Io>>>, frame: Frame) -> std::io::Result<()> {
    let mut out = Vec::new();
    frame.encode(&mut out);
    output.lock().await.write_all(&out).await
}

async fn beat(output: Output) {
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        if put(&output, Frame::Beat).await.is_err() {
            return;
        }
    }
}

/// A finished attempt.
pub struct Story {
    pub agent: Agent,
    pub events: Vec<AgentEvent>,
    pub exit: ExitStatus,
    /// The agent's own log.
    pub log: String,
}

impl Story {
    pub fn result(&self) -> &AgentResult {
        match &self.events.last().unwrap().kind {
            EventKind::Result(result) => result,
            other => panic!("no result but {other:?}"),
        }
    }

    pub fn code(&self) -> &str {
        self.result().code.as_deref().unwrap_or_default()
    }

    /// Everything as text, for failing tests and for looking for what must not be there.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for event in &self.events {
            kiops_events::rows::write_rows(&event.kind, |row| text.push_str(&(row.to_text() + "\n")));
        }
        text
    }

    pub fn lines(&self) -> impl Iterator<Item = &LineText> {
        self.events.iter().filter_map(|e| match &e.kind {
            EventKind::Lines(lines) => Some(lines),
            _ => None,
        })
    }

    /// The number of the step whose name holds this.
    pub fn step(&self, name: &str) -> u32 {
        self.events
            .iter()
            .find_map(|e| match &e.kind {
                EventKind::StepStarted { step, name: n, .. } if n.contains(name) => Some(*step),
                _ => None,
            })
            .unwrap_or_else(|| panic!("no step {name} in\n{}", self.text()))
    }

    pub fn outcome(&self, name: &str) -> Outcome {
        let number = self.step(name);
        self.events
            .iter()
            .rev()
            .find_map(|e| match &e.kind {
                EventKind::StepEnded { step, outcome, .. } if *step == number => Some(*outcome),
                _ => None,
            })
            .unwrap_or_else(|| panic!("step {name} did not end in\n{}", self.text()))
    }

    /// All lines of a step, checked to be numbered without a hole.
    pub fn lines_of(&self, name: &str) -> Vec<String> {
        let place = Place::Step(self.step(name));
        let mut out = Vec::new();
        for lines in self.lines().filter(|l| l.place == place) {
            assert_eq!(lines.first, out.len() as u64 + 1);
            out.extend(lines.lines().map(str::to_owned));
        }
        out
    }

    pub fn note(&self, wanted: &str) -> Option<&BTreeMap<String, String>> {
        self.events.iter().find_map(|e| match &e.kind {
            EventKind::Note { code, args } if code == wanted => Some(args),
            _ => None,
        })
    }
}
