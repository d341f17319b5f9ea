//! `make soak`: what `kill.rs` does at chosen moments, hundreds of times at random ones; kills of everything else that
//! builds; and logs as long as they get.
//!
//! `KIOPS_SOAK_SEED` repeats a run as far as chance on the machine allows, `KIOPS_SOAK_KILLS` makes it shorter, and what
//! was found is appended to the file `KIOPS_SOAK_REPORT` as Markdown.

mod builds_rig;
mod kill_rig;

use hyper::Method;
use kill_rig::{STEP, Server};
use kiops_rig::{Furnished, Postgres};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn kills_wanted() -> u64 {
    number("KIOPS_SOAK_KILLS").unwrap_or(200)
}

/// Repeatable chance: xorshift64 is good enough for it.
struct Dice(u64);

impl Dice {
    /// Each test has numbers of its own from the one seed.
    fn new(test: u64) -> Self {
        let seed = number("KIOPS_SOAK_SEED");
        let seed = seed.unwrap_or_else(|| u64::from(u32::from_le_bytes(kiops_server::problems::random())));
        println!("KIOPS_SOAK_SEED={seed}");
        let mut dice = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(test) | 1);
        // The first ones of small seeds resemble each other.
        (0..20).for_each(|_| _ = dice.below(2));
        dice
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    async fn wait(&mut self, below_ms: u64) {
        tokio::time::sleep(Duration::from_millis(self.below(below_ms))).await;
    }
}

/// A test's part of the report; written only when everything in it was as it must be.
struct Report {
    title: String,
    since: Instant,
    lines: Vec<String>,
    slowest: Duration,
    /// How often what was counted under each name.
    counts: BTreeMap<&'static str, BTreeMap<String, u64>>,
}

impl Report {
    fn new(title: &str) -> Self {
        let (lines, counts) = (Vec::new(), BTreeMap::new());
        Self { title: title.to_owned(), since: Instant::now(), lines, slowest: Duration::ZERO, counts }
    }

    fn line(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    fn count(&mut self, what: &'static str, which: impl Into<String>) {
        *self.counts.entry(what).or_default().entry(which.into()).or_default() += 1;
    }

    fn took(&mut self, since: Instant) {
        self.slowest = self.slowest.max(since.elapsed());
    }

    fn write(mut self) {
        for (what, counts) in std::mem::take(&mut self.counts) {
            let counts: Vec<_> = counts.into_iter().map(|(which, count)| format!("{which} {count}")).collect();
            self.line(format!("{what}: {}", counts.join(", ")));
        }
        if !self.slowest.is_zero() {
            self.line(format!("Slowest recovery, from the kill to a server that is ready: {:.2?}", self.slowest));
        }
        self.line(format!("Duration: {:.0?}", self.since.elapsed()));
        let mut text = format!("\n## {}\n\n", self.title);
        self.lines.iter().for_each(|line| _ = writeln!(text, "- {line}"));
        print!("{text}");
        if let Some(file) = std::env::var_os("KIOPS_SOAK_REPORT") {
            let file = std::fs::File::options().create(true).append(true).open(file);
            file.unwrap().write_all(text.as_bytes()).unwrap();
        }
    }
}

async fn state(server: &Server, id: &str) -> String {
    let build = server.api(Method::GET, &format!("/builds/{id}"), Value::Null).await;
    build["status"].as_str().unwrap().to_owned()
}

/// Kills the server, and starts it again. Some kills meet the one that is only just coming up.
async fn kill_server(server: &mut Server, id: &str, dice: &mut Dice, report: &mut Report) -> u64 {
    report.count("States in which the server's kills fell", state(server, id).await);
    server.kill();
    let (mut kills, mut since) = (1, Instant::now());
    if dice.below(4) == 0 {
        server.start(None).await;
        dice.wait(200).await;
        server.kill();
        report.count("States in which the server's kills fell", "(coming up)");
        (kills, since) = (2, Instant::now());
    }
    server.up(None).await;
    report.took(since);
    kills
}

/// Until the runner holds nothing of any build.
async fn all_released(server: &Server) {
    let since = Instant::now();
    loop {
        let left = server.held().await;
        if left.is_empty() {
            return;
        }
        assert!(since.elapsed() < builds_rig::PATIENCE, "attempts were left behind: {left:?}\n{}", server.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// `apart_ms`: what lies between two kills at most.
async fn server_dies_at_random(mut server: Server, wanted: u64, apart_ms: u64, mut dice: Dice, mut report: Report) {
    server.up(None).await;
    let (mut kills, mut builds) = (0, 0);
    while kills < wanted {
        let service = server.service().await;
        let id = server.build(&service).await;
        builds += 1;
        // Some builds meet several kills.
        for _ in 0..1 + dice.below(4) {
            dice.wait(apart_ms).await;
            kills += kill_server(&mut server, &id, &mut dice, &mut report).await;
        }
        server.assert_whole(&id).await;
        println!("{kills} kills, {builds} builds");
    }
    all_released(&server).await;
    report.line(format!("Kills of the server: {kills}, in {builds} builds"));
    report.line(
        "Every build was a success in its first attempt, its agent was started once, and its stored log has the count \
         and the hash that the agent stated",
    );
    report.write();
}

#[tokio::test]
#[ignore = "many minutes: make soak"]
async fn servers_on_sqlite_die_at_random() {
    let report = Report::new("The server is killed at random moments (SQLite)");
    server_dies_at_random(Server::new().await, kills_wanted(), 900, Dice::new(1), report).await;
}

#[tokio::test]
#[ignore = "many minutes: make soak"]
async fn servers_on_postgres_die_at_random() {
    let postgres = Postgres::start().await.unwrap();
    let server = Server::on(Some(postgres.create_database().await.unwrap())).await;
    let report = Report::new("The server is killed at random moments (PostgreSQL)");
    server_dies_at_random(server, (kills_wanted() / 4).max(3), 900, Dice::new(2), report).await;
}

/// A cluster's node needs root, and `make soak` leaves this module out for an ordinary user.
mod needs_root {
    use super::*;

    #[tokio::test]
    #[ignore = "many minutes: make soak"]
    async fn servers_of_pods_die_at_random() {
        let ports = builds_rig::hosts().await.ports();
        let furnished = Furnished::start(&builds_rig::pod_agent(), &ports).await.unwrap();
        let report = Report::new("The server is killed at random moments while its builds run in Pods");
        let server = Server::in_pods(Box::leak(Box::new(furnished))).await;
        // A Pod takes its time: the kills shall meet all of it.
        server_dies_at_random(server, kills_wanted(), 3_000, Dice::new(4), report).await;
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Blow {
    Agent,
    Daemon,
    Server,
    Cancel,
}

/// Kills a process of the server's folder; false where there is none.
fn killed(server: &Server, pid: Option<i32>) -> bool {
    let Some(pid) = pid else { return false };
    let folder = server.data.path.to_string_lossy().into_owned();
    // An id comes around again.
    let ours = std::fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&folder));
    ours && kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).is_ok()
}

/// The agent of a build's newest attempt.
fn agent_pid(server: &Server, id: &str) -> Option<i32> {
    let stat = |attempt| {
        let file = server.data.path.join(format!("local/{id}-{attempt}/agent.stat"));
        std::fs::read_to_string(file).ok()?.split(' ').next()?.parse().ok()
    };
    stat(2).or_else(|| stat(1))
}

/// What a build that met these blows may have come to; what it is then, for the report.
async fn assert_right(server: &Server, id: &str, build: &Value, asked: bool, hits: u64) -> String {
    let story = server.story(id).await;
    let context = format!("{build:#}\n{story:#?}\n{}", server.log());
    let status = build["status"].as_str().unwrap();
    let attempt = build["attempt"].as_u64().unwrap();
    match status {
        "success" => {
            let (image, digest) = (build["image_tag"].as_str().unwrap(), build["digest"].as_str().unwrap());
            let (repository, tag) = image.split_once('/').unwrap().1.rsplit_once(':').unwrap();
            let manifest = server.hosts.registry.manifest(repository, tag).await.unwrap();
            assert_eq!(manifest.expect("the image").digest, digest, "{context}");
        }
        "cancelled" => assert!(asked, "nobody cancelled it: {context}"),
        // Once it is tried again: only what died twice may have failed.
        "failure" => assert!(hits >= 2 && build["diagnosis"]["code"].is_string(), "{context}"),
        _ => panic!("not over: {context}"),
    }
    assert!(attempt <= 1 + hits.min(1), "{context}");
    let said = |code: &str| story.notes.iter().filter(|note| note.0 == code).count();
    assert_eq!(said("pushed"), usize::from(status == "success"), "one outcome: {context}");
    assert_eq!(said("log_mismatch"), 0, "{context}");
    for (number, written) in &story.attempts {
        let number = number.to_string();
        let marked = |note: &(String, String)| {
            matches!(note.0.as_str(), "incomplete_from_here" | "did_not_stop") && note.1 == number
        };
        assert!(written.complete || story.notes.iter().any(marked), "attempt {number} ends without a word: {context}");
    }
    let whole = story.attempts.get(&attempt).map(|last| last.complete);
    assert!(whole.is_none() || build["log_verified"].as_bool() == whole, "{context}");
    match whole {
        Some(true) => format!("{status} with a verified log"),
        Some(false) => format!("{status} with a log that is marked incomplete"),
        None => format!("{status} before an agent said anything"),
    }
}

#[tokio::test]
#[ignore = "many minutes: make soak"]
async fn agents_and_daemons_die_at_random_also_under_a_cancel_request() {
    let mut report =
        Report::new("Agent, BuildKit and server are killed at random moments, also under a cancel request");
    let rounds = (kills_wanted() / 5).max(6);
    let mut dice = Dice::new(3);
    let mut server = Server::new().await;
    server.up(None).await;
    let mut outcomes = Vec::new();
    let mut slowest = Duration::ZERO;
    for round in 1..=rounds {
        let service = server.service().await;
        let id = server.build(&service).await;
        let mut blows: Vec<Blow> = (0..1 + dice.below(3))
            .map(|_| [Blow::Agent, Blow::Agent, Blow::Daemon, Blow::Daemon, Blow::Server][dice.below(5) as usize])
            .collect();
        if dice.below(3) == 0 {
            blows.insert(dice.below(blows.len() as u64 + 1) as usize, Blow::Cancel);
        }
        let (mut hits, mut asked) = (0, false);
        for blow in &blows {
            dice.wait(1_200).await;
            let before = state(&server, &id).await;
            let hit = match blow {
                Blow::Agent => killed(&server, agent_pid(&server, &id)),
                Blow::Daemon => killed(&server, server.data.daemon_pid()),
                Blow::Server => {
                    kill_server(&mut server, &id, &mut dice, &mut report).await;
                    continue;
                }
                Blow::Cancel => {
                    let path = format!("/api/v1/builds/{id}/cancel");
                    let answer = server.try_ask(Method::POST, &path, json!({})).await;
                    asked |= answer.is_some_and(|(status, _)| status < 300);
                    continue;
                }
            };
            if hit {
                // Afterwards it can change nothing any more.
                hits += u64::from(!matches!(before.as_str(), "success" | "failure" | "cancelled"));
                let what = if *blow == Blow::Agent { "Kills of the agent" } else { "Kills of BuildKit" };
                report.count(what, before);
            }
        }
        let since = Instant::now();
        let build = server.over(&id).await;
        slowest = slowest.max(since.elapsed());
        let outcome = assert_right(&server, &id, &build, asked, hits).await;
        println!("round {round}: {blows:?}, {hits} hits: {outcome}");
        report.count(if asked { "Ends of cancelled builds" } else { "Ends of builds nobody cancelled" }, outcome);
        outcomes.push((id, build));
    }
    // Nothing comes to another end afterwards, not even by the server's next start.
    all_released(&server).await;
    server.kill();
    server.up(None).await;
    for (id, build) in &outcomes {
        let now = server.api(Method::GET, &format!("/builds/{id}"), Value::Null).await;
        for field in ["status", "attempt", "digest", "finished_at", "log_verified"] {
            assert_eq!(now[field], build[field], "{field} of {id}");
        }
    }
    report.line(format!("Builds: {rounds}; each came to exactly one end, and to a right one"));
    report.line(format!("Longest wait for a build's end after the last blow: {slowest:.1?}"));
    report.write();
}

/// Made in one step and printed in another: what is measured is how fast it can be printed.
const MILLION: &str = "FROM alpine:3\n\
    RUN awk 'BEGIN { for (i = 1; i <= 1000000; i++) printf(\"%07d the quick brown fox jumps over the lazy dog, and on, \
    and on, and on and on and on...\\n\", i) }' > /lines\n\
    RUN cat /lines\n";

#[tokio::test]
#[ignore = "many minutes: make soak"]
async fn a_million_lines_go_through_the_server() {
    let mut report = Report::new("A build that prints 1,000,000 lines");
    let mut server = Server::new().await;
    server.up(None).await;
    // The daemon is up and the base image there before it begins.
    let first = server.service_of(STEP).await;
    server.over(&server.build(&first).await).await;

    let service = server.service_of(MILLION).await;
    let since = Instant::now();
    let id = server.build(&service).await;
    let build = server.over(&id).await;
    let took = since.elapsed();
    assert_eq!((&build["status"], &build["log_verified"]), (&json!("success"), &json!(true)), "{build:#}");
    let peak = std::fs::read_to_string(format!("/proc/{}/status", server.pid().unwrap())).unwrap();
    let peak_kb: u64 =
        peak.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok()).unwrap();

    let text = server.text(&id).await;
    let lines = text.lines().filter_map(|line| line.split_once(" the quick brown fox")?.0.rsplit(' ').next());
    let mut count = 0_u32;
    for line in lines.filter(|word| word.len() == 7) {
        count += 1;
        assert_eq!(line.parse(), Ok(count), "each once and in order");
    }
    assert_eq!(count, 1_000_000);
    report.line(format!("From the start to Success: {took:.1?}"));
    report.line(format!("The server's memory at its highest: {} MB", peak_kb * 1024 / 1_000_000));
    report.line("Every line is in the stored log once and in order, and the log is verified");
    report.write();
}
