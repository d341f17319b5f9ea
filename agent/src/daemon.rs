//! The one buildkitd that all builds of a machine share: there when a build needs it, alive when the agent is gone.
//!
//! Who it is stands in a file of its run folder as process id and start time, because ids come around again. Two locks
//! keep agents apart: `start.lock` is held by whoever looks, starts or stops; `users.lock` is held, shared, by every build
//! for as long as it needs the daemon, so that only an idle daemon is exchanged for one with other settings. What a build
//! does with the daemon is not known here.

use crate::process::{environment, output_within};
use crate::record::{Ending, PhaseLog, Recorder};
use crate::stop::Stop;
use kiops_events::event::Phase;
use kiops_events::spec::BuildkitSpec;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, geteuid, kill_process, setsid};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const START_LIMIT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const WIPE_LIMIT: Duration = Duration::from_secs(120);
const PROBE_LIMIT: Duration = Duration::from_secs(10);
/// Another agent may be starting it, twice over if the state has to be wiped.
const LOCK_LIMIT: Duration = Duration::from_secs(150);
/// Other builds may use a daemon that does not answer us or whose state is broken: this long they are waited for. Then it
/// is ended; what it cost them is tried again.
const OTHERS_LIMIT: Duration = Duration::from_secs(60);
/// After its SIGTERM a daemon has this long.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// The daemon's log begins anew when it has grown beyond this.
const MAX_LOG_BYTES: u64 = 8 * 1024 * 1024;
/// How much of the daemon's log is looked at, and how much of that a failed build shows. A panic prints every routine.
const SEEN_LOG_BYTES: u64 = 256 * 1024;
const SHOWN_LOG_LINES: usize = 40;
/// Where distributions put the CNI plugins.
const CNI_FOLDERS: [&str; 3] = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];
const CNI_PLUGINS: [&str; 3] = ["bridge", "host-local", "loopback"];

/// A running daemon. It is not exchanged for another while this exists.
pub struct Daemon {
    socket: PathBuf,
    log: PathBuf,
    log_from: u64,
    distrusted: PathBuf,
    identity: Identity,
    _users: File,
}

/// What distinguishes a process from a later one with the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    pid: i32,
    start_ticks: u64,
}

/// The file in the run folder that says which daemon is ours.
#[derive(Serialize, Deserialize)]
struct Known {
    #[serde(flatten)]
    identity: Identity,
    /// Of everything that the daemon was started with.
    settings: String,
    state_dir: PathBuf,
    bridge: Option<String>,
}

/// How RUN steps reach the network.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Network {
    /// A bridge of its own with addresses behind it: a step sees neither the machine's loopback nor other steps.
    Bridge { plugins: PathBuf, name: String, subnet: [u8; 3] },
    /// The machine's own.
    Host,
}

impl Daemon {
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub fn is_alive(&self) -> bool {
        self.identity.is_alive()
    }

    /// The process that answers: where an ordinary user starts the daemon, one in a user namespace.
    pub fn process(&self) -> Option<i32> {
        listener(&self.socket).map(|found| found.pid)
    }

    /// The daemon runs, but what it has stored cannot be read: the next one who looks starts with none.
    pub fn distrust_state(&self) {
        if let Err(error) = File::create(&self.distrusted) {
            tracing::warn!(%error, "the state cannot be marked");
        }
    }

    /// Shows what the daemon wrote since this build began to use it.
    pub fn tell_last_words(&self, recorder: &Recorder) {
        tell(recorder, &last_words(&self.log, self.log_from));
    }
}

/// Sees to it that the daemon runs with these settings and answers.
pub async fn ensure(spec: &BuildkitSpec, recorder: &Recorder, stop: &Stop) -> Result<Daemon, Ending> {
    recorder.enter(Phase::Daemon);
    let folder = RunFolder(spec.run_dir.clone());
    let trouble = |e: io::Error| Ending::trouble("daemon", spec.run_dir.display(), &e);
    for dir in [&spec.run_dir, &spec.state_dir] {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(trouble)?;
    }
    let _start = lock(&folder.at("start.lock"), FlockOperation::NonBlockingLockExclusive, stop).await?;
    let users = lock(&folder.at("users.lock"), FlockOperation::NonBlockingLockShared, stop).await?;

    let mut network = network(&spec.run_dir);
    let mut settings = settings(spec, &network);
    if let Some(found) = folder.running() {
        let doubtful = distrusted(&spec.state_dir).exists();
        let healthy = answers(spec, &folder).await;
        if healthy && !doubtful && found.settings.as_ref() == Some(&settings) {
            return Ok(folder.daemon(spec, found.identity, users));
        }
        // Exchanged only when nobody else builds with it.
        let usable = healthy && !doubtful;
        let alone = alone_within(&users, if usable { Duration::ZERO } else { OTHERS_LIMIT }, stop).await?;
        if !alone && (usable || (!doubtful && answers(spec, &folder).await)) {
            recorder.note("buildkit_settings_later", []);
            return Ok(folder.daemon(spec, found.identity, users));
        }
        found.identity.end().await;
    }
    sweep(&folder, &spec.state_dir).await;

    let mut wiped = false;
    if distrusted(&spec.state_dir).exists() {
        wiped = true;
        recorder.note("buildkit_state_wiped", [("reason", "the last build could not read it".to_owned())]);
        wipe(&folder, &spec.state_dir).await.map_err(trouble)?;
        std::fs::remove_file(distrusted(&spec.state_dir)).map_err(trouble)?;
    }
    loop {
        let had_state = std::fs::read_dir(&spec.state_dir).is_ok_and(|mut d| d.next().is_some());
        let failure = match folder.start(spec, &network, &settings, stop).await? {
            Ok(identity) => return Ok(folder.daemon(spec, identity, users)),
            Err(failure) => failure,
        };
        tracing::warn!(words = %failure.words, "buildkitd did not start");
        if network != Network::Host && failure.is_network() {
            // Steps then share the machine's network: said, but no reason not to build.
            recorder.note("network_host", [("reason", failure.reason())]);
            (network, settings) = (Network::Host, self::settings(spec, &Network::Host));
        } else if let Some(identity) = folder.other(spec, &failure, stop).await? {
            recorder.note("buildkit_settings_later", []);
            return Ok(folder.daemon(spec, identity, users));
        } else if had_state && !wiped && failure.may_be_state() {
            wiped = true;
            recorder.note("buildkit_state_wiped", [("reason", failure.reason())]);
            wipe(&folder, &spec.state_dir).await.map_err(trouble)?;
        } else {
            tell(recorder, &failure.words);
            return Err(Ending::infrastructure(failure.code(), failure.reason()));
        }
    }
}

/// Ends the daemon of a run folder, if there is one, and what it left in the network. True when one was running.
pub async fn stop(run_dir: &Path) -> anyhow::Result<bool> {
    let folder = RunFolder(run_dir.to_owned());
    if !run_dir.exists() {
        return Ok(false);
    }
    let start = open_lock(&folder.at("start.lock"))?;
    flock(&start, FlockOperation::LockExclusive)?;
    let Some(known) = folder.known() else {
        let listener = listener(&folder.socket());
        if let Some(listener) = listener {
            listener.end().await;
        }
        return Ok(listener.is_some());
    };
    let alive = known.identity.is_alive();
    if alive {
        known.identity.end().await;
    }
    sweep(&folder, &known.state_dir).await;
    if let Some(bridge) = known.bridge {
        let mut command = tokio::process::Command::new("ip");
        command.args(["link", "delete", &bridge]).env_clear().envs(environment());
        let _ = output_within(command, PROBE_LIMIT).await;
    }
    std::fs::remove_file(folder.at("buildkitd.json"))?;
    Ok(alive)
}

/// Whether nobody else holds the daemon, waited for so long. The caller's own shared lock is there again afterwards;
/// meanwhile nobody can exchange the daemon, because the caller holds `start.lock`.
async fn alone_within(users: &File, limit: Duration, stop: &Stop) -> Result<bool, Ending> {
    let trouble = |e: rustix::io::Errno| Ending::trouble("daemon", "users.lock", &e.into());
    let since = Instant::now();
    loop {
        // The kernel may drop our own lock where the other kind is not to be had.
        let alone = flock(users, FlockOperation::NonBlockingLockExclusive).is_ok();
        flock(users, FlockOperation::LockShared).map_err(trouble)?;
        if alone || since.elapsed() >= limit {
            return Ok(alone);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            why = stop.ordered() => return Err(Ending::stopped(why)),
        }
    }
}

/// A daemon that runs in a run folder.
struct Running {
    identity: Identity,
    /// None of one that nobody wrote down.
    settings: Option<String>,
}

struct RunFolder(PathBuf);

/// Says that the state cannot be read. It lies beside the state and not in the run folder, which goes with a Pod.
fn distrusted(state_dir: &Path) -> PathBuf {
    let mut name = state_dir.file_name().unwrap_or_default().to_owned();
    name.push("-distrusted");
    state_dir.with_file_name(name)
}

impl RunFolder {
    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn socket(&self) -> PathBuf {
        self.at("buildkitd.sock")
    }

    fn known(&self) -> Option<Known> {
        serde_json::from_slice(&std::fs::read(self.at("buildkitd.json")).ok()?).ok()
    }

    /// The daemon that was written down; else whoever listens on the socket: between a daemon's start and its being
    /// written down its agent may have been killed.
    fn running(&self) -> Option<Running> {
        let known = self.known().filter(|k| k.identity.is_alive());
        let written = known.map(|k| Running { identity: k.identity, settings: Some(k.settings) });
        written.or_else(|| Some(Running { identity: listener(&self.socket())?, settings: None }))
    }

    /// The daemon that has the state when another one could not start for it: waited for until it answers.
    async fn other(&self, spec: &BuildkitSpec, failure: &Failure, stop: &Stop) -> Result<Option<Identity>, Ending> {
        if !failure.says(&["another instance running"]) {
            return Ok(None);
        }
        let since = Instant::now();
        while since.elapsed() < START_LIMIT {
            if let Some(identity) = listener(&self.socket())
                && answers(spec, self).await
            {
                return Ok(Some(identity));
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                why = stop.ordered() => return Err(Ending::stopped(why)),
            }
        }
        Ok(None)
    }

    /// In place at once: a file that is half there would be a daemon that nobody knows.
    fn write_down(&self, known: &Known) -> io::Result<()> {
        let new = self.at("buildkitd.json.new");
        std::fs::write(&new, serde_json::to_vec(known)?)?;
        std::fs::rename(new, self.at("buildkitd.json"))
    }

    fn daemon(&self, spec: &BuildkitSpec, identity: Identity, users: File) -> Daemon {
        let log = self.at("buildkitd.log");
        let log_from = std::fs::metadata(&log).map_or(0, |m| m.len());
        let distrusted = distrusted(&spec.state_dir);
        Daemon { socket: self.socket(), log, log_from, distrusted, identity, _users: users }
    }

    /// Starts the daemon and waits until it answers. The outer error ends the build, the inner one may be helped.
    async fn start(
        &self,
        spec: &BuildkitSpec,
        network: &Network,
        settings: &str,
        stop: &Stop,
    ) -> Result<Result<Identity, Failure>, Ending> {
        let trouble = |e: io::Error| Ending::trouble("daemon", "buildkitd cannot be started", &e);
        let log = self.at("buildkitd.log");
        if std::fs::metadata(&log).is_ok_and(|m| m.len() > MAX_LOG_BYTES) {
            std::fs::remove_file(&log).map_err(trouble)?;
        }
        let log_from = std::fs::metadata(&log).map_or(0, |m| m.len());
        if let Network::Bridge { name, subnet, .. } = network {
            make_bridge(name, *subnet).await;
        }
        let mut child = self.spawn(spec, network, &log).map_err(trouble)?;
        let identity = Identity::of(child.id() as i32).ok_or_else(|| trouble(io::ErrorKind::NotFound.into()))?;
        let bridge = match network {
            Network::Bridge { name, .. } => Some(name.clone()),
            Network::Host => None,
        };
        let known = Known { identity, settings: settings.to_owned(), state_dir: spec.state_dir.clone(), bridge };
        if let Err(error) = self.write_down(&known) {
            identity.end().await;
            let _ = child.wait();
            return Err(trouble(error));
        }
        let since = Instant::now();
        loop {
            if let Some(status) = child.try_wait().map_err(trouble)? {
                let words = last_words(&log, log_from);
                return Ok(Err(Failure { words, was_ended: status.code().is_none() }));
            }
            if self.socket_answers() && answers(spec, self).await {
                return Ok(Ok(identity));
            }
            if since.elapsed() > START_LIMIT {
                identity.end().await;
                let _ = child.wait();
                let words = last_words(&log, log_from) + "\nit did not answer in time";
                return Ok(Err(Failure { words, was_ended: true }));
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                why = stop.ordered() => return Err(Ending::stopped(why)),
            }
        }
    }

    fn socket_answers(&self) -> bool {
        std::os::unix::net::UnixStream::connect(self.socket()).is_ok()
    }

    /// A command that runs a program with an ordinary user's further ids.
    fn rootlesskit(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("rootlesskit");
        command.arg("--state-dir").arg(self.at("rootlesskit")).arg(program);
        command
    }

    fn spawn(&self, spec: &BuildkitSpec, network: &Network, log: &Path) -> io::Result<Child> {
        let rootless = !geteuid().is_root();
        std::fs::write(self.at("buildkitd.toml"), configuration(spec, &self.0, network, rootless))?;
        if let Network::Bridge { name, subnet, .. } = network {
            std::fs::write(self.at("net.conflist"), bridge_configuration(&self.0, name, *subnet))?;
        }
        let mut command = if rootless { self.rootlesskit(&spec.buildkitd) } else { Command::new(&spec.buildkitd) };
        let out = OpenOptions::new().append(true).create(true).mode(0o600).open(log)?;
        command
            .arg("--config")
            .arg(self.at("buildkitd.toml"))
            .env_clear()
            .envs(environment())
            .env("HOME", &self.0)
            .env("XDG_RUNTIME_DIR", &self.0)
            // What a step prints is shown whole; how much of it is kept is the agent's business.
            .env("BUILDKIT_STEP_LOG_MAX_SIZE", "-1")
            .env("BUILDKIT_STEP_LOG_MAX_SPEED", "-1")
            .current_dir(&self.0)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out);
        // SAFETY: one system call between fork and exec; nothing allocates or locks.
        unsafe {
            // A session of its own: no signal meant for the agent or the server reaches it.
            command.pre_exec(|| setsid().map(drop).map_err(Into::into));
        }
        command.spawn()
    }
}

/// Why a daemon did not start.
struct Failure {
    /// The end of its log.
    words: String,
    /// By a signal: ours, because it did not answer in time on a busy machine, or another's.
    was_ended: bool,
}

impl Failure {
    /// Something about this machine that no second try changes.
    fn is_setup(&self) -> bool {
        self.says(&[
            "max_user_namespaces",
            "newuidmap",
            "newgidmap",
            "subuid",
            "subgid",
            "fork/exec /proc/self/exe",
            "failed to share mount point",
            "failed to find runc binary",
            "executable file not found",
            "operation not permitted",
        ])
    }

    fn is_network(&self) -> bool {
        self.says(&["cni setup error", "cni config", "cni plugin", "failed to load network", "iptables", "nftables"])
    }

    /// Whether persisted state can be the reason. Everything that surely is not is taken out: wiping costs every cache.
    fn may_be_state(&self) -> bool {
        let other = [
            "another instance running",
            "address already in use",
            "failed to load config",
            "toml: ",
            "no space left on device",
            "permission denied",
            "too many open files",
            "cannot allocate memory",
            "flag provided but not defined",
        ];
        !self.was_ended && !self.is_setup() && !self.says(&other)
    }

    fn says(&self, texts: &[&str]) -> bool {
        // What it says of itself while all goes well names the network, too.
        self.words
            .lines()
            .filter(|line| !line.contains("level=info"))
            .map(str::to_lowercase)
            .any(|line| texts.iter().any(|t| line.contains(t)))
    }

    fn code(&self) -> &'static str {
        if self.is_setup() { "node_setup" } else { "daemon" }
    }

    /// The line that says why, of all that it wrote.
    fn reason(&self) -> String {
        let mut lines = self.words.lines().map(str::trim).filter(|l| !l.is_empty());
        let line = lines.clone().find(|l| is_reason(l)).or_else(|| lines.next_back()).unwrap_or("it wrote nothing");
        line.chars().take(500).collect()
    }
}

/// Before a stack trace stands why it was printed.
fn is_reason(line: &str) -> bool {
    ["buildkitd: ", "panic: ", "fatal error: "].iter().any(|start| line.starts_with(start))
}

impl Identity {
    fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?;
        // Field 22 of the whole line.
        let start_ticks = fields.nth(18)?.parse().ok()?;
        (!matches!(state, "Z" | "X")).then_some(Self { pid, start_ticks })
    }

    fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Asks it to end, then ends it.
    async fn end(self) {
        for signal in [Signal::TERM, Signal::KILL] {
            if let (true, Some(pid)) = (self.is_alive(), Pid::from_raw(self.pid)) {
                let _ = kill_process(pid, signal);
            }
            let since = Instant::now();
            while self.is_alive() && since.elapsed() < STOP_LIMIT {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }
}

/// Who listens on a socket.
fn listener(socket: &Path) -> Option<Identity> {
    let stream = std::os::unix::net::UnixStream::connect(socket).ok()?;
    let peer = rustix::net::sockopt::socket_peercred(&stream).ok()?;
    Identity::of(peer.pid.as_raw_nonzero().get())
}

async fn answers(spec: &BuildkitSpec, folder: &RunFolder) -> bool {
    let mut command = tokio::process::Command::new(&spec.buildctl);
    let address = format!("unix://{}", folder.socket().display());
    command.args(["--addr", &address, "debug", "workers"]).env_clear().envs(environment());
    output_within(command, PROBE_LIMIT).await.is_ok_and(|o| o.status.success())
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

async fn lock(path: &Path, kind: FlockOperation, stop: &Stop) -> Result<File, Ending> {
    let trouble = |e: io::Error| Ending::trouble("daemon", path.display(), &e);
    let file = open_lock(path).map_err(trouble)?;
    let since = Instant::now();
    while let Err(error) = flock(&file, kind) {
        if since.elapsed() > LOCK_LIMIT {
            return Err(trouble(error.into()));
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            why = stop.ordered() => return Err(Ending::stopped(why)),
        }
    }
    Ok(file)
}

/// The end of a log, from `from` on.
fn last_words(log: &Path, from: u64) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(end.saturating_sub(SEEN_LOG_BYTES)).min(end)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = match lines.iter().position(|l| is_reason(l)) {
        Some(reason) => reason.saturating_sub(SHOWN_LOG_LINES / 4),
        None => lines.len().saturating_sub(SHOWN_LOG_LINES),
    };
    lines[from..].iter().take(SHOWN_LOG_LINES).copied().collect::<Vec<_>>().join("\n")
}

fn tell(recorder: &Recorder, words: &str) {
    let mut log = PhaseLog::new(recorder, Phase::Daemon);
    log.push(words.as_bytes());
    log.end();
}

/// A step's container, as runc knows it.
#[derive(Deserialize)]
struct Container {
    id: String,
    bundle: PathBuf,
}

/// Takes away what a daemon that was killed has left: its steps run on without it.
async fn sweep(folder: &RunFolder, state_dir: &Path) {
    let ask = |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(runc());
        // Where an ordinary user's runc keeps what it knows.
        command.args(arguments).env_clear().envs(environment()).env("XDG_RUNTIME_DIR", &folder.0);
        output_within(command, PROBE_LIMIT)
    };
    let Ok(list) = ask(&["list", "--format", "json"]).await else { return };
    // Without any it prints `null`.
    let containers: Option<Vec<Container>> = serde_json::from_slice(&list.stdout).unwrap_or_default();
    for container in containers.into_iter().flatten().filter(|c| c.bundle.starts_with(state_dir)) {
        tracing::info!(id = container.id, "ending a step that a lost daemon left");
        let _ = ask(&["delete", "--force", &container.id]).await;
    }
    // Steps that were being prepared have mounts and no container yet. An ordinary user's are gone with the namespace.
    if geteuid().is_root()
        && let Err(error) = unmount_below(state_dir)
    {
        tracing::warn!(%error, "a mount is left");
    }
}

/// Takes every mount below a folder away, so that nothing behind one is lost when the folder goes.
fn unmount_below(folder: &Path) -> io::Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mut below: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|path| PathBuf::from(path.replace("\\040", " ")))
        .filter(|path| path.starts_with(folder) && path != folder)
        .collect();
    below.sort();
    for mount in below.into_iter().rev() {
        rustix::mount::unmount(&mount, rustix::mount::UnmountFlags::DETACH)?;
    }
    Ok(())
}

/// Takes the state away, but for the steps' old network namespaces: the daemon gives their addresses and firewall rules
/// back when it starts, and has nothing else to know them by.
async fn wipe(folder: &RunFolder, state_dir: &Path) -> io::Result<()> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(state_dir)? {
        let entry = entry?;
        if entry.file_name() != "net" {
            unmount_below(&entry.path())?;
            paths.push(entry.path());
        }
    }
    // Files of an ordinary user's images belong to the user's further ids: only within their namespace can they be removed.
    let mut command =
        if geteuid().is_root() { tokio::process::Command::new("rm") } else { folder.rootlesskit("rm").into() };
    command.args(["-r", "-f", "--"]).args(paths).env_clear().envs(environment()).env("XDG_RUNTIME_DIR", &folder.0);
    let output = output_within(command, WIPE_LIMIT).await?;
    if output.status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("it cannot be removed: {}", String::from_utf8_lossy(&output.stderr).trim())))
    }
}

/// What must change for a daemon to be another one.
fn settings(spec: &BuildkitSpec, network: &Network) -> String {
    let mut text = configuration(spec, &spec.run_dir, network, !geteuid().is_root());
    let proxies: Vec<_> = environment().into_iter().filter(|(name, _)| name != "PATH").collect();
    let _ = write!(text, "{network:?} {:?} {proxies:?}", spec.buildkitd);
    hex::encode(Sha256::digest(text.as_bytes()))
}

fn configuration(spec: &BuildkitSpec, run_dir: &Path, network: &Network, rootless: bool) -> String {
    // TOML's basic strings are JSON's.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let path = |path: &Path| quoted(&path.to_string_lossy());
    let mut text = format!(
        "root = {root}\n\
         [grpc]\naddress = [{address}]\n\
         [otel]\nsocketPath = {otel}\n\
         [cdi]\ndisabled = true\n\
         [history]\nmaxAge = \"1h\"\nmaxEntries = 20\n\
         [frontend.\"gateway.v0\"]\nenabled = false\n\
         [worker.containerd]\nenabled = false\n\
         [worker.oci]\nenabled = true\nrootless = {rootless}\nnoProcessSandbox = {bare}\nbinary = \"{runc}\"\n\
         max-parallelism = 4\ngc = true\n",
        root = path(&spec.state_dir),
        address = quoted(&format!("unix://{}", run_dir.join("buildkitd.sock").display())),
        otel = path(&run_dir.join("otel.sock")),
        bare = spec.no_process_sandbox,
        runc = runc(),
    );
    match network {
        Network::Bridge { plugins, .. } => {
            let _ = write!(
                text,
                "networkMode = \"cni\"\ncniConfigPath = {}\ncniBinaryPath = {}\n",
                path(&run_dir.join("net.conflist")),
                path(plugins)
            );
        }
        Network::Host => text.push_str("networkMode = \"host\"\n"),
    }
    // BuildKit's own rules throw cache mounts away after two idle days.
    text.push_str(
        "[[worker.oci.gcpolicy]]\nfilters = [\"type==source.local\", \"type==source.git.checkout\"]\n\
         keepDuration = \"48h\"\nmaxUsedSpace = \"512MB\"\n\
         [[worker.oci.gcpolicy]]\nfilters = [\"type==exec.cachemount\"]\n\
         keepDuration = \"720h\"\nmaxUsedSpace = \"20%\"\n\
         [[worker.oci.gcpolicy]]\nall = true\n\
         reservedSpace = \"10GB\"\nmaxUsedSpace = \"60%\"\nminFreeSpace = \"10%\"\n",
    );
    if !spec.dockerhub_mirrors.is_empty() {
        let mirrors: Vec<String> = spec.dockerhub_mirrors.iter().map(|m| quoted(m)).collect();
        let _ = write!(text, "[registry.\"docker.io\"]\nmirrors = [{}]\n", mirrors.join(", "));
    }
    // BuildKit does not start when one is there twice.
    for registry in BTreeSet::from_iter(&spec.insecure_registries) {
        let _ = write!(text, "[registry.{}]\nhttp = true\n", quoted(registry));
    }
    text
}

fn bridge_configuration(run_dir: &Path, name: &str, subnet: [u8; 3]) -> String {
    let [a, b, c] = subnet;
    let bridge = serde_json::json!({
        "type": "bridge",
        "bridge": name,
        "isGateway": true,
        "ipMasq": true,
        "hairpinMode": true,
        "ipam": {
            "type": "host-local",
            "dataDir": run_dir.join("addresses"),
            "ranges": [[{ "subnet": format!("{a}.{b}.{c}.0/24") }]],
            "routes": [{ "dst": "0.0.0.0/0" }],
        },
    });
    // Lets the bridge's traffic through where the machine forwards none by itself (Docker sets it so).
    let firewall = serde_json::json!({ "type": "firewall" });
    serde_json::json!({ "cniVersion": "1.0.0", "name": name, "plugins": [bridge, firewall] }).to_string()
}

/// The plugin would make it without an address of its own: it would then have one of its ports', and another one when
/// steps come and go, and a step that had learnt it would not be answered for a while. Where this fails, the plugin does it.
async fn make_bridge(name: &str, subnet: [u8; 3]) {
    let [a, b, c] = subnet;
    let address = format!("02:00:{a:02x}:{b:02x}:{c:02x}:01");
    for arguments in [
        &["link", "add", name, "address", &address, "type", "bridge"][..],
        // One that was there before.
        &["link", "set", name, "address", &address],
    ] {
        let mut command = tokio::process::Command::new("ip");
        command.args(arguments).env_clear().envs(environment());
        if let Err(error) = output_within(command, PROBE_LIMIT).await {
            tracing::warn!(%error, "the steps' bridge has no address of its own");
        }
    }
}

/// A bridge where this machine can have one.
fn network(run_dir: &Path) -> Network {
    let plugins = CNI_FOLDERS
        .iter()
        .map(PathBuf::from)
        .find(|folder| CNI_PLUGINS.iter().chain(&["firewall"]).all(|plugin| folder.join(plugin).exists()));
    match plugins {
        Some(plugins) if geteuid().is_root() && has_program("iptables") => {
            let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
            let (name, subnet) = bridge(run_dir, &routes);
            Network::Bridge { plugins, name, subnet }
        }
        _ => Network::Host,
    }
}

/// BuildKit's own images bring it under a name of their own.
fn runc() -> &'static str {
    if has_program("buildkit-runc") { "buildkit-runc" } else { "runc" }
}

fn has_program(name: &str) -> bool {
    let path = environment().into_iter().find(|(k, _)| k == "PATH").map(|(_, v)| v).unwrap_or_default();
    path.split(':').any(|folder| Path::new(folder).join(name).is_file())
}

/// Name and subnet of this run folder's bridge: the same each time, different for another folder, and none that the
/// machine has a route for. From 198.18.0.0/15, which no real network uses.
fn bridge(run_dir: &Path, routes: &str) -> (String, [u8; 3]) {
    let hash = Sha256::digest(run_dir.as_os_str().as_encoded_bytes());
    let name = format!("kiops-{}", hex::encode(&hash[..4]));
    let taken: Vec<(Ipv4Addr, Ipv4Addr)> = routes
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let address = |i: usize| Some(Ipv4Addr::from(u32::from_str_radix(fields.get(i)?, 16).ok()?.swap_bytes()));
            let (destination, mask) = (address(1)?, address(7)?);
            (fields[0] != name && !mask.is_unspecified()).then_some((destination, mask))
        })
        .collect();
    let clashes = |subnet: [u8; 3]| {
        let own = u32::from(Ipv4Addr::new(subnet[0], subnet[1], subnet[2], 0));
        taken.iter().any(|(destination, mask)| {
            let mask = u32::from(*mask) & 0xFFFF_FF00;
            u32::from(*destination) & mask == own & mask
        })
    };
    let first = u16::from_be_bytes([hash[4], hash[5]]) % 512;
    let subnet = (0..512)
        .map(|i| (first + i) % 512)
        .map(|n| [198, 18 + (n >> 8) as u8, n as u8])
        .find(|subnet| !clashes(*subnet))
        .unwrap_or([198, 18, first as u8]);
    (name, subnet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec_for_tests::spec;

    #[test]
    fn the_configuration_says_what_was_asked_for() {
        let mut spec = spec().buildkit;
        spec.dockerhub_mirrors = vec!["127.0.0.1:5000".into()];
        spec.insecure_registries = vec!["10.0.0.1:5000".into(), "10.0.0.1:5000".into()];
        let bridge = Network::Bridge { plugins: "/usr/lib/cni".into(), name: "b".into(), subnet: [198, 18, 7] };
        let text = configuration(&spec, Path::new("/r"), &bridge, false);
        for wanted in [
            "root = \"/s\"\n",
            "address = [\"unix:///r/buildkitd.sock\"]\n",
            "[frontend.\"gateway.v0\"]\nenabled = false\n",
            "networkMode = \"cni\"\ncniConfigPath = \"/r/net.conflist\"\ncniBinaryPath = \"/usr/lib/cni\"\n",
            "[registry.\"docker.io\"]\nmirrors = [\"127.0.0.1:5000\"]\n",
            "[registry.\"10.0.0.1:5000\"]\nhttp = true\n",
        ] {
            assert_eq!(text.matches(wanted).count(), 1, "{wanted} in\n{text}");
        }
        assert!(configuration(&spec, Path::new("/r"), &Network::Host, true).contains("rootless = true"));
        assert_ne!(settings(&spec, &bridge), settings(&spec, &Network::Host));
    }

    #[test]
    fn a_bridge_belongs_to_its_folder_and_avoids_what_is_taken() {
        let header = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n";
        let (name, subnet) = bridge(Path::new("/a"), header);
        assert_eq!(bridge(Path::new("/a"), header), (name.clone(), subnet));
        assert_ne!(bridge(Path::new("/b"), header).0, name);
        assert!(name.len() <= 15);
        let route = |interface: &str, net: [u8; 3]| {
            let destination = u32::from(Ipv4Addr::new(net[0], net[1], net[2], 0)).swap_bytes();
            format!("{header}{interface}\t{destination:08X}\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n")
        };
        assert_ne!(bridge(Path::new("/a"), &route("eth0", subnet)).1, subnet);
        assert_eq!(bridge(Path::new("/a"), &route(&name, subnet)).1, subnet);
        assert_eq!(bridge(Path::new("/a"), &route("eth0", [10, 0, 0])).1, subnet);
    }

    #[test]
    fn state_is_wiped_only_where_nothing_else_explains_a_failure() {
        let failure = |words: &str, was_ended| Failure { words: words.into(), was_ended };
        assert!(failure("buildkitd: failed to open database file: invalid database", false).may_be_state());
        assert!(failure("panic: page 5 already freed", false).may_be_state());
        for other in [
            "buildkitd: could not lock /s/buildkitd.lock, another instance running?",
            "[rootlesskit:parent] error: newuidmap failed",
            "failed to find runc binary",
            "write /s/x: no space left on device",
        ] {
            assert!(!failure(other, false).may_be_state(), "{other}");
        }
        assert!(!failure("anything", true).may_be_state());
        assert_eq!(failure("[rootlesskit:parent] error: newuidmap failed", false).code(), "node_setup");
        assert_eq!(failure("something\n\n", false).code(), "daemon");
        assert_eq!(failure("one\ntwo\n\n", false).reason(), "two");
        assert_eq!(failure("one\npanic: at page 7\n\ngoroutine 1", false).reason(), "panic: at page 7");
        let healthy =
            "level=info msg=\"found worker, network:cni, no space left on device\"\nbuildkitd: invalid database";
        assert!(failure(healthy, false).may_be_state() && !failure(healthy, false).is_network());
    }

    #[test]
    fn a_process_is_known_by_its_start_too() {
        let own = Identity::of(std::process::id() as i32).unwrap();
        assert!(own.is_alive());
        assert!(!Identity { start_ticks: own.start_ticks + 1, ..own }.is_alive());
        assert!(Identity::of(i32::MAX).is_none());
    }
}
