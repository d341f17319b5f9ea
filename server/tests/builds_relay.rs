//! How a build takes what its agent says, in every order and with every cut: a runner whose agents are told what to do,
//! over the real store.

mod builds_rig;

use async_trait::async_trait;
use builds_rig::*;
use kiops_app::backend::Builds as _;
use kiops_app::model::*;
use kiops_events::chain::Chain;
use kiops_events::event::{AgentEnd, AgentResult};
use kiops_events::wire::{Answer, Begin, Frame, Hello, Proof, Side, VERSION, prove, proven};
use kiops_events::{AgentEvent, EventKind, LineText, Outcome, Phase, Place};
use kiops_server::runner::{Grade, RelayIo, RunState, Runner, RunnerError, Situation, StartSpec};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

/// What one attempt's agent does.
#[derive(Clone)]
struct Script {
    events: Vec<EventKind>,
    /// The connection ends after so many events, every time.
    cut_every: Option<usize>,
    /// Written when the server tells it to stop; the script goes on from there to the result.
    on_cancel: Option<AgentEnd>,
    key: Option<Vec<u8>>,
    wrong_hash: bool,
    /// Gone after its last event, without a result.
    vanishes: bool,
}

impl Script {
    fn of(events: Vec<EventKind>, end: AgentResult) -> Self {
        let mut events = events;
        events.push(EventKind::Result(end));
        Self::without_end(events)
    }

    fn without_end(events: Vec<EventKind>) -> Self {
        Self { events, cut_every: None, on_cancel: None, key: None, wrong_hash: false, vanishes: false }
    }
}

struct Agent {
    script: Script,
    key: Vec<u8>,
    /// The spool, as it stands.
    spool: Mutex<Vec<Vec<u8>>>,
    released: Mutex<bool>,
    gone: Mutex<bool>,
}

impl Agent {
    fn new(script: Script, start: &StartSpec) -> Self {
        let mut spool = Vec::new();
        let mut chain = Chain::default();
        for (seq, kind) in (1u64..).zip(&script.events) {
            let mut kind = kind.clone();
            if let EventKind::Result(result) = &mut kind {
                result.count = chain.count;
                result.hash = if script.wrong_hash { "0".repeat(64) } else { chain.hex() };
            }
            let event = AgentEvent { attempt: start.spec.attempt, seq, offset_ms: seq as i64, kind };
            let payload = serde_json::to_vec(&event).unwrap();
            chain.push(&payload);
            spool.push(payload);
        }
        let key = script.key.clone().unwrap_or_else(|| start.relay_key.clone());
        Self { script, key, spool: Mutex::new(spool), released: Mutex::default(), gone: Mutex::default() }
    }

    /// Ends the spool after what has been served already.
    fn end(&self, attempt: u32, end: AgentEnd) {
        let mut spool = self.spool.lock().unwrap();
        let mut chain = Chain::default();
        spool.iter().for_each(|payload| chain.push(payload));
        let result = AgentResult { count: chain.count, hash: chain.hex(), ..result(end) };
        let seq = spool.len() as u64 + 1;
        let event = AgentEvent { attempt, seq, offset_ms: 0, kind: EventKind::Result(result) };
        spool.push(serde_json::to_vec(&event).unwrap());
    }

    async fn serve(self: Arc<Self>, mut io: DuplexStream) -> std::io::Result<()> {
        let mut buffer = Vec::new();
        let Some(Frame::Hello(Hello { build, attempt, after, nonce, .. })) = read(&mut io, &mut buffer).await else {
            return Ok(());
        };
        let mac = prove(&self.key, Side::Agent, &build, attempt, &nonce, "n");
        write(&mut io, &Frame::Proof(Proof { version: VERSION, nonce: "n".into(), mac })).await?;
        let Some(Frame::Answer(Answer { mac })) = read(&mut io, &mut buffer).await else { return Ok(()) };
        assert!(proven(&self.key, Side::Server, &build, attempt, "n", &nonce, &mac));
        write(&mut io, &Frame::Begin(Begin { now_ms: 1000 })).await?;
        let mut at = after as usize;
        loop {
            let next = self.spool.lock().unwrap().get(at).cloned();
            if let Some(payload) = next {
                write(&mut io, &Frame::Event(payload)).await?;
                at += 1;
                if self.script.cut_every.is_some_and(|every| at - after as usize >= every) {
                    // What was written is read before the end is.
                    return io.shutdown().await;
                }
                continue;
            }
            if self.script.vanishes {
                *self.gone.lock().unwrap() = true;
                return io.shutdown().await;
            }
            tokio::select! {
                frame = read(&mut io, &mut buffer) => match frame {
                    Some(Frame::Release) => *self.released.lock().unwrap() = true,
                    Some(_) => {}
                    None => return Ok(()),
                },
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
        }
    }
}

async fn read(io: &mut DuplexStream, buffer: &mut Vec<u8>) -> Option<Frame> {
    loop {
        if let Some((frame, used)) = Frame::decode(buffer).unwrap() {
            buffer.drain(..used);
            return Some(frame);
        }
        if io.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

async fn write(io: &mut DuplexStream, frame: &Frame) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    io.write_all(&bytes).await
}

/// Agents that act by script, the n-th attempt by the n-th script.
#[derive(Default)]
struct Puppets {
    scripts: Vec<Script>,
    refuses: Option<&'static str>,
    /// How often the place does not answer, from now on.
    away: AtomicU32,
    /// What the place says of an attempt that waits, and of one that is over.
    waits_for: Option<(&'static str, Grade)>,
    befell: Option<&'static str>,
    agents: Mutex<HashMap<(BuildId, u32), Arc<Agent>>>,
    starts: Mutex<Vec<StartSpec>>,
}

impl Puppets {
    fn new(scripts: Vec<Script>) -> Arc<Self> {
        Arc::new(Self { scripts, ..Self::default() })
    }

    fn agent(&self, build: &BuildId, attempt: u32) -> Option<Arc<Agent>> {
        self.agents.lock().unwrap().get(&(build.clone(), attempt)).cloned()
    }
}

#[async_trait]
impl Runner for Puppets {
    async fn start(&self, start: StartSpec) -> Result<(), RunnerError> {
        if let Some(code) = self.refuses {
            return Err(RunnerError::Refused { code, detail: "as told".into() });
        }
        let key = (start.spec.build.parse().unwrap(), start.spec.attempt);
        let script = self.scripts[start.spec.attempt as usize - 1].clone();
        let agent = Arc::new(Agent::new(script, &start));
        self.agents.lock().unwrap().insert(key, agent);
        self.starts.lock().unwrap().push(start);
        Ok(())
    }

    async fn connect(&self, build: &BuildId, attempt: u32) -> Result<Box<dyn RelayIo>, RunnerError> {
        let agent = self.agent(build, attempt).filter(|a| !*a.gone.lock().unwrap()).ok_or(RunnerError::Gone)?;
        let (near, far) = duplex(1 << 16);
        tokio::spawn(agent.serve(far));
        Ok(Box::new(near))
    }

    async fn cancel(&self, build: &BuildId, attempt: u32) -> Result<(), RunnerError> {
        if let Some(agent) = self.agent(build, attempt)
            && let Some(end) = agent.script.on_cancel
        {
            agent.end(attempt, end);
        }
        Ok(())
    }

    async fn state(&self, build: &BuildId, attempt: u32) -> Result<RunState, RunnerError> {
        if self.away.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(RunnerError::Unreachable("as told".into()));
        }
        let there = self.agent(build, attempt).is_some_and(|a| !*a.gone.lock().unwrap());
        Ok(if there { RunState::Alive } else { RunState::Gone })
    }

    async fn situation(&self, _: &BuildId, _: u32) -> Result<Option<Situation>, RunnerError> {
        Ok(self.waits_for.map(|(code, grade)| situation(code, grade)))
    }

    async fn aftermath(&self, _: &BuildId, _: u32) -> Result<Option<Situation>, RunnerError> {
        Ok(self.befell.map(|code| situation(code, Grade::Ended)))
    }

    async fn release(&self, build: &BuildId, attempt: u32) -> Result<(), RunnerError> {
        self.agents.lock().unwrap().remove(&(build.clone(), attempt));
        Ok(())
    }

    async fn list(&self) -> Result<Vec<(BuildId, u32)>, RunnerError> {
        Ok(self.agents.lock().unwrap().keys().cloned().collect())
    }
}

fn situation(code: &'static str, grade: Grade) -> Situation {
    Situation { code, grade, args: BTreeMap::from([("message".to_owned(), "as told".to_owned())]) }
}

fn result(end: AgentEnd) -> AgentResult {
    AgentResult {
        end,
        exit_code: None,
        digest: (end == AgentEnd::Success).then(|| format!("sha256:{}", "d".repeat(64))),
        code: None,
        args: BTreeMap::new(),
        left_out_bytes: 0,
        push_began: false,
        count: 0,
        hash: String::new(),
    }
}

fn phase(phase: Phase) -> EventKind {
    EventKind::PhaseEntered { phase }
}

fn lines(first: u64, text: &str) -> EventKind {
    EventKind::Lines(LineText { place: Place::Step(1), first, at_ms: 1, text: text.into(), cut: vec![] })
}

fn step(step: u32) -> EventKind {
    EventKind::StepStarted {
        step,
        digest: format!("sha256:{step}"),
        name: format!("[{step}/9] RUN step {step}"),
        stage: None,
        index: None,
        total: None,
        start_ms: 1,
    }
}

/// A small build: phases, one step with some lines.
fn story() -> Vec<EventKind> {
    let mut events = vec![phase(Phase::Checkout), phase(Phase::Build), step(1)];
    events.extend((1..=20).map(|i| lines(i, &format!("line {i}"))));
    events.push(EventKind::StepEnded { step: 1, outcome: Outcome::Done, error: None, intervals: vec![] });
    events
}

async fn world(runner: &Arc<Puppets>) -> (World, BuildId) {
    let world = World::with(Wishes { runner: Some(runner.clone()), ..Wishes::default() }).await;
    let service = world.service_of("FROM scratch\n").await;
    let commit = Some("c".repeat(40));
    let id = world.builds.start(&world.caller, &service, StartBuild { commit, ..on("main") }).await.unwrap().id;
    (world, id)
}

#[tokio::test]
async fn a_connection_that_breaks_after_every_few_events_loses_nothing() {
    for every in [1, 2, 7] {
        let script = Script { cut_every: Some(every), ..Script::of(story(), result(AgentEnd::Success)) };
        let runner = Puppets::new(vec![script]);
        let (world, id) = world(&runner).await;
        let row = world.over(&id).await;
        assert_eq!((row.status, row.attempt, row.log_verified), (BuildStatus::Success, 1, Some(true)));
        let seqs: Vec<u64> = world.events(&id).await.iter().map(|e| e.2).filter(|seq| *seq > 0).collect();
        assert_eq!(seqs, (1..=story().len() as u64 + 1).collect::<Vec<_>>(), "cut every {every}");
        assert_eq!(runner.starts.lock().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_log_that_is_not_what_the_agent_wrote_is_said_to_be_so() {
    let runner = Puppets::new(vec![Script { wrong_hash: true, ..Script::of(story(), result(AgentEnd::Success)) }]);
    let (world, id) = world(&runner).await;
    let row = world.over(&id).await;
    assert_eq!((row.status, row.log_verified), (BuildStatus::Success, Some(false)));
    assert!(world.notes(&id).await.contains(&"log_mismatch".to_owned()));
}

#[tokio::test]
async fn an_agent_with_another_key_is_not_believed() {
    let script = Script { key: Some(b"a stranger".to_vec()), ..Script::of(story(), result(AgentEnd::Success)) };
    let runner = Puppets::new(vec![script]);
    let (world, id) = world(&runner).await;
    let row = world.over(&id).await;
    assert_eq!((row.status, row.failure_code.as_deref()), (BuildStatus::Failure, Some("agent")));
    assert!(world.events(&id).await.iter().all(|e| e.2 == 0), "a stranger's event was stored");
}

#[tokio::test]
async fn a_runner_that_refuses_is_a_failure_with_its_reason() {
    let runner = Arc::new(Puppets { refuses: Some("agent_missing"), ..Puppets::default() });
    let (world, id) = world(&runner).await;
    let row = world.over(&id).await;
    assert_eq!(
        (row.status, row.attempt, row.failure_code.as_deref()),
        (BuildStatus::Failure, 1, Some("agent_missing"))
    );
    assert_eq!(row.diagnosis.unwrap().group, "infrastructure");
    assert!(world.log(&id).await.contains("detail=as told"));
}

#[tokio::test]
async fn a_place_that_does_not_answer_is_waited_for() {
    let scripts = vec![Script::of(story(), result(AgentEnd::Success))];
    let runner = Arc::new(Puppets { scripts, away: AtomicU32::new(6), ..Puppets::default() });
    let (world, id) = world(&runner).await;
    let row = world.over(&id).await;
    assert_eq!((row.status, row.attempt, row.log_verified), (BuildStatus::Success, 1, Some(true)));
}

#[tokio::test]
async fn whoever_cancels_is_answered_while_the_place_is_away() {
    let runner = Arc::new(Puppets { away: AtomicU32::new(u32::MAX), ..Puppets::default() });
    let (world, id) = world(&runner).await;
    world.until(&id, "claimed", |row| row.status == BuildStatus::Starting).await;
    let since = Instant::now();
    world.builds.cancel(&world.caller, &id).await.unwrap();
    assert_eq!(world.over(&id).await.status, BuildStatus::Cancelled);
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    assert!(runner.starts.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_befell_an_attempt_decides_whether_there_is_another() {
    for (code, attempts, group) in
        [("oom", 1, "build_failure"), ("pod_disk", 1, "build_failure"), ("pod_evicted", 2, "infrastructure")]
    {
        let vanishing = || Script { vanishes: true, ..Script::without_end(story()) };
        let scripts = vec![vanishing(), vanishing()];
        let runner = Arc::new(Puppets { scripts, befell: Some(code), ..Puppets::default() });
        let (world, id) = world(&runner).await;
        let row = world.over(&id).await;
        assert_eq!((row.status, row.attempt), (BuildStatus::Failure, attempts), "{code}");
        assert_eq!(row.failure_code.as_deref(), Some(code));
        assert_eq!((row.diagnosis.unwrap().group.as_str(), row.log_verified), (group, Some(false)), "{code}");
        let log = world.log(&id).await;
        assert!(log.contains(&format!("--- {code} ")) && log.contains("--- incomplete_from_here"), "{log}");
    }
    // An agent that was killed has a last word, and its place knows the reason: the log is whole.
    let scripts = vec![Script::of(story(), result(AgentEnd::Infrastructure))];
    let runner = Arc::new(Puppets { scripts, befell: Some("oom"), ..Puppets::default() });
    let (world, id) = world(&runner).await;
    let row = world.over(&id).await;
    assert_eq!((row.failure_code.as_deref(), row.attempt, row.log_verified), (Some("oom"), 1, Some(true)));
    assert!(!world.log(&id).await.contains("incomplete_from_here"));
}

#[tokio::test]
async fn what_an_attempt_waits_for_is_said_once_and_not_waited_for_for_ever() {
    let checkout = || vec![Script::without_end(vec![phase(Phase::Checkout)])];
    let waits_for = Some(("image_pull", Grade::TooLong));
    let runner = Arc::new(Puppets { scripts: checkout(), waits_for, ..Puppets::default() });
    let (world, id) = world(&runner).await;
    let row = world.over(&id).await;
    assert_eq!((row.status, row.attempt, row.failure_code.as_deref()), (BuildStatus::Failure, 1, Some("image_pull")));
    assert_eq!(row.diagnosis.unwrap().arguments["message"], "as told");

    let waits_for = Some(("waiting_for_capacity", Grade::Passing));
    let runner = Arc::new(Puppets { scripts: checkout(), waits_for, ..Puppets::default() });
    let (world, id) = self::world(&runner).await;
    world.until_log(&id, "waiting_for_capacity").await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let said = world.notes(&id).await.into_iter().filter(|note| note == "waiting_for_capacity").count();
    assert_eq!(said, 1);
    runner.agent(&id, 1).unwrap().end(1, AgentEnd::Success);
    assert_eq!(world.over(&id).await.status, BuildStatus::Success);
}

#[tokio::test]
async fn a_terminated_agent_is_no_cancelled_build() {
    let runner = Puppets::new(vec![
        Script::of(story(), result(AgentEnd::Terminated)),
        Script::of(story(), result(AgentEnd::Terminated)),
    ]);
    let (world, id) = world(&runner).await;
    let row = world.over(&id).await;
    assert_eq!((row.status, row.attempt, row.failure_code.as_deref()), (BuildStatus::Failure, 2, Some("agent_lost")));
    // Nothing had been pushed: the second attempt's image has the plain tag.
    let starts = runner.starts.lock().unwrap();
    assert_eq!(starts[0].spec.image.references, starts[1].spec.image.references);
    assert_ne!(starts[0].relay_key, starts[1].relay_key);
}

#[tokio::test]
async fn a_cancel_request_reaches_the_agent_and_a_digest_wins_over_it() {
    for (end, status) in [
        (AgentEnd::Terminated, BuildStatus::Cancelled),
        (AgentEnd::Infrastructure, BuildStatus::Cancelled),
        (AgentEnd::Success, BuildStatus::Success),
    ] {
        let runner = Puppets::new(vec![Script { on_cancel: Some(end), ..Script::without_end(story()) }]);
        let (world, id) = world(&runner).await;
        world.until_log(&id, "line 20").await;
        world.builds.cancel(&world.caller, &id).await.unwrap();
        let row = world.over(&id).await;
        assert_eq!((row.status, row.attempt, row.log_verified), (status, 1, Some(true)));
        assert_eq!(world.notes(&id).await.contains(&"too_late_to_cancel".to_owned()), end == AgentEnd::Success);
    }
}

/// The registry decides whether an attempt that was lost while pushing is tried again.
#[tokio::test]
async fn after_a_push_may_have_begun_the_registry_is_asked() {
    let pushing = || {
        let mut events = story();
        events.push(phase(Phase::Push));
        events
    };
    let lost = AgentResult { push_began: true, ..result(AgentEnd::Infrastructure) };
    // Nothing there: once more, under another tag.
    let runner =
        Puppets::new(vec![Script::of(pushing(), lost.clone()), Script::of(story(), result(AgentEnd::Success))]);
    let (first, id) = world(&runner).await;
    let row = first.over(&id).await;
    assert_eq!((row.status, row.attempt), (BuildStatus::Success, 2));
    assert!(row.image_tag.unwrap().ends_with("-r2"));
    {
        let starts = runner.starts.lock().unwrap();
        assert!(starts[1].spec.image.references[0].ends_with("-r2"), "{:?}", starts[1].spec.image.references);
    }

    // The image of this build and attempt is there: that is its result.
    let runner = Puppets::new(vec![Script { vanishes: true, ..Script::without_end(pushing()) }]);
    let world =
        World::asleep(Arc::new(Data::new()), Wishes { runner: Some(runner.clone()), ..Wishes::default() }).await;
    let config = world.registry_config();
    let repo = world.hosts.repo("FROM scratch\n").await;
    let service = world.service_with(&repo, BuildSettings::default(), config.clone(), Credentials::default()).await;
    let commit = "c".repeat(40);
    let start = StartBuild { commit: Some(commit.clone()), ..on("main") };
    let id = world.builds.start(&world.caller, &service, start).await.unwrap().id;
    let labels = serde_json::json!({ "io.kiops.build": id, "io.kiops.attempt": "1" });
    let digest = push(&config, &image_tag("main", 1, &commit, None), &labels).await;
    world.builds.spawn();
    let row = world.over(&id).await;
    assert_eq!((row.status, row.attempt, row.digest), (BuildStatus::Success, 1, Some(digest)));
    assert!(row.image_size_bytes.unwrap() > 0);
    assert!(world.notes(&id).await.contains(&"incomplete_from_here".to_owned()));
}

/// Puts an image without layers into the registry; gives back its digest.
async fn push(config: &RegistryConfig, tag: &str, labels: &serde_json::Value) -> String {
    use sha2::{Digest, Sha256};
    let digest = |bytes: &[u8]| format!("sha256:{}", hex::encode(Sha256::digest(bytes)));
    let image = serde_json::json!({"architecture": "amd64", "os": "linux", "config": {"Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": []}})
    .to_string();
    let path = format!("/v2/{}", config.repository_path());
    let (_, place) = http(&config.host, "POST", &format!("{path}/blobs/uploads/"), "", b"").await;
    let place = place.split_once(&config.host).map_or(place.as_str(), |(_, rest)| rest).to_owned();
    let config_digest = digest(image.as_bytes());
    let put = format!("{place}&digest={config_digest}");
    let (status, _) = http(&config.host, "PUT", &put, "application/octet-stream", image.as_bytes()).await;
    assert_eq!(status, 201);
    const TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": TYPE, "layers": [], "config":
        {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": image.len()}})
    .to_string();
    let (status, _) = http(&config.host, "PUT", &format!("{path}/manifests/{tag}"), TYPE, manifest.as_bytes()).await;
    assert_eq!(status, 201);
    digest(manifest.as_bytes())
}

/// Status and `Location` of an answer.
async fn http(host: &str, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, String) {
    let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let location = answer.lines().find_map(|l| l.strip_prefix("Location: ")).unwrap_or_default();
    (status, location.trim().to_owned())
}

#[tokio::test]
async fn kinds_of_a_newer_agent_are_kept_and_skipped() {
    let mut events = story();
    events.insert(3, EventKind::Unknown);
    let runner = Puppets::new(vec![Script::of(events, result(AgentEnd::Success))]);
    let (world, id) = world(&runner).await;
    let row = world.over(&id).await;
    assert_eq!((row.status, row.log_verified), (BuildStatus::Success, Some(true)));
}

#[tokio::test]
async fn the_server_masks_what_an_agent_let_through() {
    const TOKEN: &str = "glpat-let-through";
    let events = vec![phase(Phase::Build), step(1), lines(1, &format!("clone with {TOKEN} works")), lines(2, "next")];
    let runner = Puppets::new(vec![Script::of(events, result(AgentEnd::Success))]);
    let world = World::with(Wishes { runner: Some(runner.clone()), ..Wishes::default() }).await;
    let repo = world.hosts.repo("FROM scratch\n").await;
    let credentials = Credentials { git_token: Some(TOKEN), ..Credentials::default() };
    let service = world.service_with(&repo, BuildSettings::default(), world.registry_config(), credentials).await;
    let start = StartBuild { commit: Some("c".repeat(40)), ..on("main") };
    let id = world.builds.start(&world.caller, &service, start).await.unwrap().id;
    let row = world.over(&id).await;
    // Verified against what was received, masked in what is stored.
    assert_eq!((row.status, row.log_verified), (BuildStatus::Success, Some(true)));
    let log = world.log(&id).await;
    assert!(log.contains("clone with *** works\n") && !log.contains(TOKEN), "{log}");
    assert_eq!(runner.starts.lock().unwrap()[0].git_credential.as_ref().unwrap().1, TOKEN);
}
