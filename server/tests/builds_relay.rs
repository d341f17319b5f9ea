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
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
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
    /// The agent's clock at the handshake.
    now_ms: i64,
    /// While this is so, its place cannot be asked and no connection to it lives.
    cut_off: Arc<AtomicBool>,
}

impl Script {
    fn of(events: Vec<EventKind>, end: AgentResult) -> Self {
        let mut events = events;
        events.push(EventKind::Result(end));
        Self::without_end(events)
    }

    fn without_end(events: Vec<EventKind>) -> Self {
        Self {
            events,
            cut_every: None,
            on_cancel: None,
            key: None,
            wrong_hash: false,
            vanishes: false,
            now_ms: 1000,
            cut_off: Arc::default(),
        }
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
        let mut chain = Chain::default();
        self.spool.lock().unwrap().iter().for_each(|payload| chain.push(payload));
        let result = AgentResult { count: chain.count, hash: chain.hex(), ..result(end) };
        self.say(attempt, 0, EventKind::Result(result));
    }

    /// Writes one event more.
    fn say(&self, attempt: u32, offset_ms: i64, kind: EventKind) {
        let mut spool = self.spool.lock().unwrap();
        let event = AgentEvent { attempt, seq: spool.len() as u64 + 1, offset_ms, kind };
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
        write(&mut io, &Frame::Begin(Begin { now_ms: self.script.now_ms })).await?;
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
            if self.script.cut_off.load(Ordering::SeqCst) {
                return io.shutdown().await;
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
    /// How often it does not take that an attempt shall stop.
    deaf: AtomicU32,
    /// From the moment on at which it shall stop, an attempt says nothing and cannot be reached.
    freezes: bool,
    frozen: AtomicBool,
    /// What the place says of an attempt that waits, and of one that is over.
    waits_for: Option<(&'static str, Grade)>,
    /// … by attempt.
    befell: Vec<&'static str>,
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
        if self.frozen.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let agent = self.agent(build, attempt).filter(|a| !*a.gone.lock().unwrap()).ok_or(RunnerError::Gone)?;
        if agent.script.cut_off.load(Ordering::SeqCst) {
            return Err(RunnerError::Unreachable("as told".into()));
        }
        let (near, far) = duplex(1 << 16);
        tokio::spawn(agent.serve(far));
        Ok(Box::new(near))
    }

    async fn cancel(&self, build: &BuildId, attempt: u32) -> Result<(), RunnerError> {
        if self.deaf.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(RunnerError::Unreachable("as told".into()));
        }
        self.frozen.store(self.freezes, Ordering::SeqCst);
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

    async fn situation(&self, build: &BuildId, attempt: u32) -> Result<Option<Situation>, RunnerError> {
        if self.agent(build, attempt).is_some_and(|agent| agent.script.cut_off.load(Ordering::SeqCst)) {
            return Err(RunnerError::Unreachable("as told".into()));
        }
        Ok(self.waits_for.map(|(code, grade)| situation(code, grade)))
    }

    async fn aftermath(&self, _: &BuildId, attempt: u32) -> Result<Option<Situation>, RunnerError> {
        Ok(self.befell.get(attempt as usize - 1).map(|code| situation(code, Grade::Ended)))
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
    world_with(runner, Profile::Auto).await
}

async fn world_with(runner: &Arc<Puppets>, profile: Profile) -> (World, BuildId) {
    let world = World::with(Wishes { runner: Some(runner.clone()), ..Wishes::default() }).await;
    let repo = world.hosts.repo("FROM scratch\n").await;
    let settings = BuildSettings { profile, ..BuildSettings::default() };
    let service = world.service_with(&repo, settings, world.registry_config(), Credentials::default()).await;
    let id = start(&world, &service).await;
    (world, id)
}

/// Without asking Git: nobody checks anything out.
async fn start(world: &World, service: &ServiceId) -> BuildId {
    let commit = Some("c".repeat(40));
    world.builds.start(&world.caller, service, StartBuild { commit, ..on("main") }).await.unwrap().id
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
async fn a_build_whose_place_is_away_says_so_and_goes_on_where_it_was() {
    let script = Script { cut_every: Some(12), ..Script::without_end(story()) };
    let cut_off = script.cut_off.clone();
    let runner = Puppets::new(vec![script]);
    let (world, id) = world(&runner).await;
    world.until_log(&id, "line 20").await;
    cut_off.store(true, Ordering::SeqCst);
    world.until_log(&id, "cluster_away").await;
    cut_off.store(false, Ordering::SeqCst);
    runner.agent(&id, 1).unwrap().end(1, AgentEnd::Success);
    let row = world.over(&id).await;
    assert_eq!((row.status, row.attempt, row.log_verified), (BuildStatus::Success, 1, Some(true)));
    assert_eq!(world.notes(&id).await.iter().filter(|note| *note == "cluster_away").count(), 1);
}

#[tokio::test]
async fn a_cancel_that_the_place_did_not_take_is_told_again() {
    let scripts = vec![Script { on_cancel: Some(AgentEnd::Terminated), ..Script::without_end(story()) }];
    let runner = Arc::new(Puppets { scripts, deaf: AtomicU32::new(2), ..Puppets::default() });
    let (world, id) = world(&runner).await;
    world.until_log(&id, "line 20").await;
    world.builds.cancel(&world.caller, &id).await.unwrap();
    let row = world.over(&id).await;
    assert_eq!((row.status, row.log_verified), (BuildStatus::Cancelled, Some(true)));
}

/// Its node has died, and no connection says so.
#[tokio::test]
async fn whoever_cancels_is_answered_when_the_attempt_has_gone_silent() {
    let scripts = vec![Script::without_end(story())];
    let runner = Arc::new(Puppets { scripts, freezes: true, ..Puppets::default() });
    let (world, id) = world(&runner).await;
    world.until_log(&id, "line 20").await;
    world.builds.cancel(&world.caller, &id).await.unwrap();
    let row = world.over(&id).await;
    assert_eq!(row.status, BuildStatus::Cancelled);
    // Far sooner than an attempt that answers may take to stop.
    let took_ms = row.finished_at.unwrap() - row.cancel_requested_at.unwrap();
    assert!(took_ms < 20_000, "{took_ms} ms");
    assert!(world.log(&id).await.contains("line 20"));
}

#[tokio::test]
async fn what_befell_an_attempt_decides_whether_there_is_another() {
    for (code, attempts, group) in
        [("oom", 1, "build_failure"), ("pod_disk", 1, "build_failure"), ("pod_evicted", 2, "infrastructure")]
    {
        let scripts = vec![vanishing(), vanishing()];
        let runner = Arc::new(Puppets { scripts, befell: vec![code; 2], ..Puppets::default() });
        let (world, id) = world_with(&runner, Profile::Small).await;
        let row = world.over(&id).await;
        assert_eq!((row.status, row.attempt), (BuildStatus::Failure, attempts), "{code}");
        assert_eq!(row.failure_code.as_deref(), Some(code));
        assert_eq!((row.diagnosis.unwrap().group.as_str(), row.log_verified), (group, Some(false)), "{code}");
        let log = world.log(&id).await;
        assert!(log.contains(&format!("--- {code} ")) && log.contains("--- incomplete_from_here"), "{log}");
    }
    // An agent that was killed has a last word, and its place knows the reason: the log is whole.
    let scripts = vec![Script::of(story(), result(AgentEnd::Infrastructure))];
    let runner = Arc::new(Puppets { scripts, befell: vec!["oom"], ..Puppets::default() });
    let (world, id) = world_with(&runner, Profile::Small).await;
    let row = world.over(&id).await;
    assert_eq!((row.failure_code.as_deref(), row.attempt, row.log_verified), (Some("oom"), 1, Some(true)));
    assert!(!world.log(&id).await.contains("incomplete_from_here"));
}

fn vanishing() -> Script {
    Script { vanishes: true, ..Script::without_end(story()) }
}

fn sizes(runner: &Puppets) -> Vec<ProfileSize> {
    runner.starts.lock().unwrap().iter().map(|start| start.size).collect()
}

#[tokio::test]
async fn auto_takes_the_next_size_once_after_an_attempt_that_ran_out_of_memory() {
    let success = || Script::of(story(), result(AgentEnd::Success));
    let scripts = vec![vanishing(), success()];
    let runner = Arc::new(Puppets { scripts, befell: vec!["oom"], ..Puppets::default() });
    let (world, id) = world(&runner).await;
    let row = world.over(&id).await;
    assert_eq!((row.status, row.attempt, row.number), (BuildStatus::Success, 2, 1), "{}", world.log(&id).await);
    let [medium, large] = [Profile::Medium, Profile::Large].map(|p| p.default_size().unwrap());
    assert_eq!(sizes(&runner), [medium, large]);
    let log = world.log(&id).await;
    assert!(log.contains("--- profile_no_history profile=medium\n"), "{log}");
    assert!(log.contains("--- profile_larger attempt=2 from=medium profile=large push_began=true\n"), "{log}");
    let head = world.detail(&id).await.head;
    assert_eq!((head.profile, head.resolved_profile), (Profile::Auto, Some(Profile::Large)));
    assert_eq!(head.profile_reason.unwrap().code, "larger");
    // BuildKit had begun: what the first attempt may have pushed is not written over.
    assert!(head.image_tag.unwrap().ends_with("-r2"));

    // The next one begins where this one ended: its failure comes after one step up of its own.
    let runner = Arc::new(Puppets { scripts: vec![vanishing(); 2], befell: vec!["oom"; 2], ..Puppets::default() });
    let world = World::open(world.close().await, Wishes { runner: Some(runner.clone()), ..Wishes::default() }).await;
    let id = start(&world, &row.service_id).await;
    let row = world.over(&id).await;
    assert_eq!((row.status, row.attempt, row.failure_code.as_deref()), (BuildStatus::Failure, 2, Some("oom")));
    assert_eq!(sizes(&runner), [Profile::Large, Profile::ExtraLarge].map(|p| p.default_size().unwrap()));
    assert!(world.log(&id).await.contains("--- profile_after_oom memory_bytes=4294967296 profile=large\n"));
    assert_eq!(row.diagnosis.unwrap().arguments["larger"], "2x-large");
}

#[tokio::test]
async fn a_chosen_size_stays_and_the_advice_names_the_next_one() {
    for (profile, name, named) in [(Profile::Small, "larger", "medium"), (Profile::FourXLarge, "largest", "4x-large")] {
        let scripts = vec![vanishing(), vanishing()];
        let runner = Arc::new(Puppets { scripts, befell: vec!["oom"; 2], ..Puppets::default() });
        let (world, id) = world_with(&runner, profile).await;
        let row = world.over(&id).await;
        assert_eq!((row.status, row.attempt), (BuildStatus::Failure, 1));
        assert_eq!(row.diagnosis.unwrap().arguments[name], named);
        let head = world.detail(&id).await.head;
        assert_eq!((head.resolved_profile, head.profile_reason.unwrap().code.as_str()), (None, "chosen"));
        assert!(!world.notes(&id).await.iter().any(|note| note.starts_with("profile_")));
    }
}

#[tokio::test]
async fn a_fault_and_a_want_of_memory_are_counted_apart() {
    for befell in [["pod_evicted", "oom", "pod_evicted"], ["oom", "pod_evicted", "oom"]] {
        let runner = Arc::new(Puppets { scripts: vec![vanishing(); 3], befell: befell.to_vec(), ..Puppets::default() });
        let (world, id) = world(&runner).await;
        let row = world.over(&id).await;
        assert_eq!((row.status, row.attempt), (BuildStatus::Failure, 3), "{}", world.log(&id).await);
        assert_eq!(row.failure_code.as_deref(), Some(befell[2]));
        let notes = world.notes(&id).await;
        for once in ["retried", "profile_larger"] {
            assert_eq!(notes.iter().filter(|note| *note == once).count(), 1, "{befell:?}: {notes:?}");
        }
    }
}

#[tokio::test]
async fn a_server_that_ends_between_two_sizes_keeps_the_larger_one() {
    let scripts = vec![Script::without_end(story()), Script::of(story(), result(AgentEnd::Success))];
    let runner = Arc::new(Puppets { scripts, befell: vec!["oom"], ..Puppets::default() });
    let (world, id) = world(&runner).await;
    world.until_log(&id, "line 20").await;
    // The second attempt is not started before the server ends.
    runner.away.store(u32::MAX, Ordering::SeqCst);
    runner.agent(&id, 1).unwrap().end(1, AgentEnd::Infrastructure);
    let row = world.until(&id, "tried again", |row| row.attempt == 2).await;
    assert_eq!((row.snapshot.resolved_profile, runner.starts.lock().unwrap().len()), (Profile::Large, 1));
    let data = world.close().await;
    runner.away.store(0, Ordering::SeqCst);
    let world = World::open(data, Wishes { runner: Some(runner.clone()), ..Wishes::default() }).await;
    let row = world.over(&id).await;
    assert_eq!((row.status, row.attempt), (BuildStatus::Success, 2));
    assert_eq!(sizes(&runner)[1..], [Profile::Large.default_size().unwrap()]);
}

#[tokio::test]
async fn a_build_that_is_much_slower_than_the_services_others_is_told_so_once() {
    let quick = Puppets::new(vec![Script::of(story(), result(AgentEnd::Success))]);
    let (world, first) = world(&quick).await;
    let service = world.over(&first).await.service_id;
    const TEN_MINUTES_MS: i64 = 600_000;
    let slow = Puppets::new(vec![Script { now_ms: TEN_MINUTES_MS, ..Script::without_end(story()) }]);
    let world = World::open(world.close().await, Wishes { runner: Some(slow.clone()), ..Wishes::default() }).await;
    let id = start(&world, &service).await;
    world.until_log(&id, "line 20").await;
    assert!(!world.notes(&id).await.contains(&"much_slower".to_owned()), "its events are of its first moments");
    // As if it had begun so long ago, and is heard of now.
    let file = format!("sqlite:{}", world.data.path.join("kiops.db").display());
    let pool = sqlx::SqlitePool::connect(&file).await.unwrap();
    let earlier = format!("UPDATE builds SET started_at = started_at - {TEN_MINUTES_MS} WHERE id = '{id}'");
    sqlx::query(sqlx::AssertSqlSafe(earlier)).execute(&pool).await.unwrap();
    pool.close().await;
    slow.agent(&id, 1).unwrap().say(1, TEN_MINUTES_MS, lines(21, "still there"));
    world.until_log(&id, "much_slower").await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    slow.agent(&id, 1).unwrap().end(1, AgentEnd::Success);
    assert_eq!(world.over(&id).await.status, BuildStatus::Success);
    let log = world.log(&id).await;
    assert_eq!(log.matches("--- much_slower larger=").count(), 1, "{log}");
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
