//! How quick the store is, printed and not judged: `cargo bench -p kiops-server --bench store_speed -- --nocapture
//! --test-threads 1`. PostgreSQL runs without fsync here, as the rig starts it.

#[path = "../tests/store_rig/mod.rs"]
mod store_rig;

use kiops_app::model::*;
use kiops_events::chain::Chain;
use kiops_events::rows::row_count;
use kiops_events::{AgentEvent, BuildView, EventKind, LineText, Place as Spot};
use kiops_server::store::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use store_rig::*;

macro_rules! measurements {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name("sqlite", super::Place::sqlite()).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name("postgres", super::Place::postgres().await).await;
            })+
        }
    };
}

measurements!(history_of_100k_builds, a_million_lines);

const BUILDS: i64 = 100_000;
const LINES: u64 = 1_000_000;

fn spread(engine: &str, what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    println!(
        "{engine:8} {what}: p50 {:.2} ms, p99 {:.2} ms, most {:.2} ms of {}",
        at(0.5),
        at(0.99),
        at(1.0),
        times.len()
    );
}

macro_rules! seed_builds {
    ($connection:expr, $service:expr, $world:expr, $dice:expr) => {{
        use sqlx::Connection;
        let mut connection = $connection;
        let snapshot = serde_json::to_string(&$world.new_build($service).snapshot).unwrap();
        let mut tx = connection.begin().await.unwrap();
        for number in 1..=BUILDS {
            let status = match $dice.below(100) {
                0..90 => "success",
                90..98 => "failure",
                _ => "cancelled",
            };
            // Few branches have most builds, and some have hardly any.
            let branch = format!("branch-{}", 1000 / (1 + $dice.below(1000)));
            let at = 1_600_000_000_000 + number * 60_000;
            sqlx::query(
                "INSERT INTO builds (id, org_id, created_by, service_id, number, branch, commit_hash, status, queued_at, \
                 started_at, finished_at, cancel_requested_at, released, image_tag, digest, snapshot) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10, $9, 1, $11, $12, $13)",
            )
            .bind(BuildId::from_random($dice.bytes(20).try_into().unwrap()).to_string())
            .bind($world.admin.org_id.as_str())
            .bind($world.admin.id.as_str())
            .bind($service.as_str())
            .bind(number)
            .bind(branch)
            .bind("0123456789abcdef0123456789abcdef01234567")
            .bind(status)
            .bind(at)
            .bind(at + 40_000)
            .bind(format!("registry.example:5000/team/app:main-{number}-0123456"))
            .bind("sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")
            .bind(&snapshot)
            .execute(&mut *tx)
            .await
            .unwrap();
        }
        sqlx::query("UPDATE services SET build_count = $2 WHERE id = $1")
            .bind($service.as_str())
            .bind(BUILDS)
            .execute(&mut *tx)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        connection.close().await.unwrap();
    }};
}

async fn history_of_100k_builds(engine: &str, place: Place) {
    let world = World::new(&place).await;
    let service = world.service("app").await;
    let mut dice = Dice::new();
    match place.file() {
        Some(_) => {
            seed_builds!(sqlx::SqliteConnection::connect(place.address()).await.unwrap(), &service, world, dice)
        }
        None => seed_builds!(sqlx::PgConnection::connect(place.address()).await.unwrap(), &service, world, dice),
    }
    let (store, org) = (&world.store, &world.admin.org_id);
    let (mut pages, mut rows) = (Vec::new(), 0);
    for _ in 0..3_000 {
        let status = [
            None,
            Some(StatusFilter::Success),
            Some(StatusFilter::Failure),
            Some(StatusFilter::Cancelled),
            Some(StatusFilter::InProgress),
        ][dice.below(5) as usize];
        let branch = (dice.below(2) == 0).then(|| format!("branch-{}", 1000 / (1 + dice.below(1000))));
        let mut query = HistoryQuery { status, branch, ..Default::default() };
        match dice.below(3) {
            0 => query.before = Some(dice.below(BUILDS as u64) as i64),
            1 => query.after = Some(dice.below(BUILDS as u64) as i64),
            _ => {}
        }
        let begun = Instant::now();
        rows += store.history(org, &service, &query, 50).await.unwrap().len();
        pages.push(begun.elapsed());
    }
    println!("{engine:8} history: {rows} rows read");
    spread(engine, "a page of 50 of 100,000 builds, any filter", pages);

    let mut asked = Vec::new();
    for _ in 0..200 {
        let begun = Instant::now();
        store.last_builds(org).await.unwrap();
        store.last_build(&service, true).await.unwrap();
        store.expected_duration_ms(&service).await.unwrap();
        store.queue_state().await.unwrap();
        asked.push(begun.elapsed());
    }
    spread(engine, "what a service's page asks beside it", asked);

    let mut clicks = Vec::new();
    for _ in 0..200 {
        let new = world.new_build(&service);
        let begun = Instant::now();
        store.queue_build(&new).await.unwrap();
        clicks.push(begun.elapsed());
    }
    spread(engine, "start to queued, idle", clicks);
}

/// Bytes that the kernel counts for this process.
fn memory_mb(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// Events as an agent sends them: 200 lines each.
fn payload(seq: u64) -> Vec<u8> {
    const LINES_AN_EVENT: u64 = 200;
    let first = (seq - 1) * LINES_AN_EVENT + 1;
    let text: Vec<String> = (first..first + LINES_AN_EVENT)
        .map(|n| format!("line {n}: compiling module number {} of many, {:x}", n % 977, n.wrapping_mul(0x9e37_79b9)))
        .collect();
    let lines = LineText { place: Spot::Step(1), first, at_ms: seq as u32, text: text.join("\n"), cut: vec![] };
    serde_json::to_vec(&AgentEvent { attempt: 1, seq, offset_ms: seq as i64, kind: EventKind::Lines(lines) }).unwrap()
}

async fn a_million_lines(engine: &str, place: Place) {
    const EVENTS: u64 = LINES / 200;
    const BATCH_BYTES: usize = 256 * 1024;
    let world = World::new(&place).await;
    let (service, other) = (world.service("app").await, world.service("other").await);
    let build = world.claimed(&service).await;
    let idle = memory_mb("VmRSS");
    std::fs::write("/proc/self/clear_refs", "5").unwrap();

    let over = Arc::new(AtomicBool::new(false));
    let clicks = {
        let (store, over) = (Arc::clone(&world.store), Arc::clone(&over));
        let new: Vec<_> = (0..5_000).map(|_| world.new_build(&other)).collect();
        tokio::spawn(async move {
            let mut times = Vec::new();
            for new in new {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let begun = Instant::now();
                store.queue_build(&new).await.unwrap();
                times.push(begun.elapsed());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            times
        })
    };

    let (mut progress, mut chain) = (world.store.progress(&build.id).await.unwrap(), Chain::default());
    let (mut batch, mut bytes, mut waited, mut payload_bytes) = (Vec::new(), 0, Duration::ZERO, 0);
    let begun = Instant::now();
    for seq in 1..=EVENTS {
        let payload = payload(seq);
        chain.push(&payload);
        let event: AgentEvent = serde_json::from_slice(&payload).unwrap();
        let pos = progress.pos + batch.len() as u64 + 1;
        progress.view.apply(pos, 1, event.offset_ms, &event.kind);
        bytes += payload.len();
        payload_bytes += payload.len();
        batch.push(LogEntry { pos, attempt: 1, seq, at_ms: seq as i64, rows: row_count(&event.kind), payload });
        if bytes >= BATCH_BYTES || seq == EVENTS {
            progress = Progress {
                pos,
                attempt: 1,
                seq,
                chain_count: chain.count,
                chain_hash: chain.hex(),
                view: std::mem::take(&mut progress.view),
            };
            let append = Append {
                entries: std::mem::take(&mut batch),
                progress,
                status: Some(BuildStatus::Building),
                snapshot: None,
            };
            let waiting = Instant::now();
            world.store.append(&build.id, build.lease_epoch, &append).await.unwrap();
            waited += waiting.elapsed();
            progress = append.progress;
            bytes = 0;
        }
    }
    let took = begun.elapsed();
    over.store(true, Ordering::Relaxed);
    let clicks = clicks.await.unwrap();
    println!(
        "{engine:8} {LINES} lines, {} MB of events: {:.0} lines/s with making, hashing and folding them, {:.0} lines/s in the \
         store alone; {idle} MB before, {} MB at most",
        payload_bytes >> 20,
        LINES as f64 / took.as_secs_f64(),
        LINES as f64 / waited.as_secs_f64(),
        memory_mb("VmHWM"),
    );
    spread(engine, "start to queued, beside that log", clicks);
    world.finish(&build, BuildStatus::Success).await;

    let stored: BuildView = world.store.progress(&build.id).await.unwrap().view;
    assert_eq!((stored.log_lines, stored.rows), (LINES, LINES + 1));
    let mut dice = Dice::new();
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let mut windows = Vec::new();
    for _ in 0..500 {
        let first = dice.below(LINES);
        let begun = Instant::now();
        let pieces = world.store.log_by_row(&build.id, first, 400).await.unwrap();
        windows.push(begun.elapsed());
        assert!(pieces[0].first_row <= first);
    }
    spread(engine, "a window of 400 rows of a million", windows);
    let begun = Instant::now();
    let (mut after, mut read) = (0, 0);
    loop {
        let pieces = world.store.log_after(&build.id, after, 1 << 20).await.unwrap();
        let Some(last) = pieces.last().and_then(|p| p.entries.last()) else { break };
        after = last.pos;
        read += pieces.iter().flat_map(|p| &p.entries).map(|e| e.payload.len()).sum::<usize>();
    }
    println!(
        "{engine:8} the whole log read in parts of 1 MB: {} MB in {:.2} s; {} MB at most",
        read >> 20,
        begun.elapsed().as_secs_f64(),
        memory_mb("VmHWM"),
    );
    world.store.close().await;
    if let Some(file) = place.file() {
        println!("{engine:8} the file: {} MB", std::fs::metadata(file).unwrap().len() >> 20);
    }
}
