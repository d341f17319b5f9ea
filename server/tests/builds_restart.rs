//! What dies comes back: servers, agents, daemons, folders. Each build ends in the right state with its whole log.

mod builds_rig;

use builds_rig::*;
use kiops_app::backend::Builds as _;
use kiops_app::model::*;
use kiops_events::{EventKind, Place};
use rustix::process::Signal;
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use std::sync::Arc;
use std::time::Duration;

const COUNTING: &str =
    "FROM alpine:3\nCOPY . /\nRUN echo begun; for i in $(seq 1 100); do echo line $i; sleep 0.05; done\n";
const SLOW: &str = "FROM alpine:3\nCOPY . /\nRUN echo begun; sleep 600\n";

/// Lines of the counting step, in order of the log.
async fn counted(world: &World, id: &BuildId, attempt: u32) -> Vec<String> {
    let mut lines = Vec::new();
    for (_, at, _, kind) in world.events(id).await {
        if let EventKind::Lines(text) = kind
            && at == attempt
            && matches!(text.place, Place::Step(_))
        {
            lines.extend(text.lines().filter(|l| l.starts_with("line ")).map(str::to_owned));
        }
    }
    lines
}

fn all_lines() -> Vec<String> {
    (1..=100).map(|i| format!("line {i}")).collect()
}

/// Sequence numbers of an attempt without hole or repeat, positions too.
async fn assert_whole(world: &World, id: &BuildId) {
    let events = world.events(id).await;
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

#[tokio::test]
async fn a_server_that_restarts_in_mid_build_goes_on_without_a_hole() {
    let mut world = World::new().await;
    let service = world.service_of(COUNTING).await;
    let id = world.start(&service).await;
    let pid = {
        world.until_log(&id, " begun\n").await;
        world.agent_pid(&id, 1)
    };
    for _ in 0..3 {
        let data = world.close().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        world = World::open(data, Wishes::default()).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let row = world.over(&id).await;
    assert_eq!((row.status, row.attempt, row.log_verified), (BuildStatus::Success, 1, Some(true)));
    assert_eq!(counted(&world, &id, 1).await, all_lines());
    assert_whole(&world, &id).await;
    assert_ne!(pid, 0);
    world.released(&id).await;
}

#[tokio::test]
async fn a_build_that_ended_while_nobody_looked_is_taken_up() {
    let world = World::new().await;
    let service = world.service_of(COUNTING).await;
    let id = world.start(&service).await;
    world.until_log(&id, " begun\n").await;
    let spool = world.attempt_folder(&id, 1).join("spool");
    let data = world.close().await;
    // The agent ends, and holds its spool.
    let over = || std::fs::read(&spool).is_ok_and(|s| s.windows(12).any(|w| w == b"\"k\":\"result\""));
    while !over() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let world = World::open(data, Wishes::default()).await;
    let row = world.over(&id).await;
    assert_eq!((row.status, row.attempt, row.log_verified), (BuildStatus::Success, 1, Some(true)));
    assert_eq!(counted(&world, &id, 1).await, all_lines());

    // The same when the agent has given up waiting: the spool is served again.
    let world = World::open(world.close().await, Wishes { hold: Duration::from_secs(1), ..Wishes::default() }).await;
    // One that lasts long enough to be left in its midst.
    let service = world.service_of(&format!("FROM alpine:3\nRUN sleep 2; echo {}\n", world.hosts.name("new"))).await;
    let id = world.start(&service).await;
    world.until_log(&id, "--- phase build").await;
    let (folder, pid) = (world.attempt_folder(&id, 1), world.agent_pid(&id, 1));
    let data = world.close().await;
    while std::path::Path::new("/proc").join(pid.to_string()).exists() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(folder.join("spool").exists());
    let world = World::open(data, Wishes::default()).await;
    let row = world.over(&id).await;
    assert_eq!((row.status, row.attempt, row.log_verified), (BuildStatus::Success, 1, Some(true)));
    assert_whole(&world, &id).await;
    world.released(&id).await;
}

#[tokio::test]
async fn a_killed_daemon_is_tried_once_more_and_visibly() {
    let world = World::new().await;
    let service = world.service_of(COUNTING).await;
    let id = world.start(&service).await;
    world.until_log(&id, " begun\n").await;
    kill(world.data.daemon_pid().unwrap(), Signal::KILL);
    let row = world.over(&id).await;
    assert_eq!(
        (row.status, row.attempt, row.log_verified),
        (BuildStatus::Success, 2, Some(true)),
        "{}",
        world.log(&id).await
    );
    assert!(world.notes(&id).await.contains(&"retried".to_owned()));
    assert_eq!(counted(&world, &id, 2).await, all_lines());
    assert_whole(&world, &id).await;
    world.released(&id).await;
}

/// Ends the daemon and breaks one of its databases: the one that it opens only when it builds.
fn spoil_what_is_found_only_while_building(data: &Data) {
    let buildkit = data.path.join("buildkit");
    let mut stop = std::process::Command::new(agent_program());
    assert!(stop.arg("daemon-stop").arg("--run-dir").arg(buildkit.join("run")).status().unwrap().success());
    let mut folders = std::fs::read_dir(&buildkit).unwrap().map(|entry| entry.unwrap().path().join("runc-overlayfs"));
    let state = folders.find(|folder| folder.is_dir()).unwrap();
    std::fs::write(state.join("snapshots/metadata.db"), [0xff; 65536]).unwrap();
}

#[tokio::test]
async fn a_state_that_proves_damaged_while_building_costs_an_attempt_and_no_build() {
    let world = World::new().await;
    let repo = world.hosts.repo("FROM alpine:3\nRUN echo one\n").await;
    let service = world.service(&repo).await;
    let first = world.start(&service).await;
    assert_eq!(world.over(&first).await.status, BuildStatus::Success);
    world.released(&first).await;
    spoil_what_is_found_only_while_building(&world.data);

    // Something that no cache has: the daemon has to build.
    repo.commit("main", &[("Dockerfile", b"FROM alpine:3\nRUN echo two\n")], "Two").await.unwrap();
    let id = world.start(&service).await;
    let row = world.over(&id).await;
    let (log, notes) = (world.log(&id).await, world.notes(&id).await);
    assert_eq!((row.status, row.number, row.attempt), (BuildStatus::Success, 2, 2), "{log}\n{}", world.agent_logs());
    assert_eq!(row.log_verified, Some(true));
    let at = |note: &str| notes.iter().position(|said| said == note);
    let told = (at("retried"), at("buildkit_state_wiped"));
    assert!(matches!(told, (Some(retried), Some(wiped)) if retried < wiped), "{notes:?}");
    assert_whole(&world, &id).await;
    world.released(&id).await;
}

#[tokio::test]
async fn a_killed_agent_is_tried_once_more() {
    let world = World::new().await;
    let service = world.service_of(COUNTING).await;
    let id = world.start(&service).await;
    world.until_log(&id, " begun\n").await;
    kill(world.agent_pid(&id, 1), Signal::KILL);
    let row = world.over(&id).await;
    assert_eq!(
        (row.status, row.attempt, row.log_verified),
        (BuildStatus::Success, 2, Some(true)),
        "{}",
        world.log(&id).await
    );
    assert_whole(&world, &id).await;
}

#[tokio::test]
async fn an_attempt_that_vanishes_leaves_its_log_and_says_so() {
    let world = World::new().await;
    let service = world.service_of(SLOW).await;
    let id = world.start(&service).await;
    for attempt in 1..=2 {
        world.until(&id, "in this attempt", |row| row.attempt == attempt && row.status == BuildStatus::Building).await;
        let pid = world.agent_pid(&id, attempt);
        std::fs::remove_dir_all(world.attempt_folder(&id, attempt)).unwrap();
        kill(pid, Signal::KILL);
    }
    let row = world.over(&id).await;
    assert_eq!((row.status, row.attempt, row.log_verified), (BuildStatus::Failure, 2, Some(false)));
    let diagnosis = row.diagnosis.unwrap();
    assert_eq!((diagnosis.group.as_str(), diagnosis.code.as_str()), ("infrastructure", "agent_lost"));
    let notes = world.notes(&id).await;
    assert_eq!(notes.iter().filter(|n| *n == "incomplete_from_here").count(), 2, "{notes:?}");
    let detail = world.detail(&id).await;
    assert!(detail.steps.iter().all(|s| s.marker != kiops_events::Marker::Running), "{:#?}", detail.steps);
}

#[tokio::test]
async fn a_cancel_request_outlives_the_server() {
    let world = World::new().await;
    let service = world.service_of(SLOW).await;
    let (running, waiting) = (world.start(&service).await, world.start(&service).await);
    world.until_log(&running, " begun\n").await;
    let data = world.close().await;
    let world = World::asleep(data, Wishes::default()).await;
    world.builds.cancel(&world.caller, &running).await.unwrap();
    world.builds.cancel(&world.caller, &waiting).await.unwrap();
    let world = World::open(world.close().await, Wishes::default()).await;
    let row = world.over(&running).await;
    assert_eq!((row.status, row.attempt), (BuildStatus::Cancelled, 1));
    assert_eq!(world.row(&waiting).await.status, BuildStatus::Cancelled);
}

#[tokio::test]
async fn what_belongs_to_no_open_build_is_removed() {
    let world = World::new().await;
    let service = world.service_of("FROM alpine:3\n").await;
    let id = world.start(&service).await;
    world.over(&id).await;
    world.released(&id).await;
    let data = world.close().await;
    let stranger = BuildId::from_random([7; ID_LETTERS]);
    for left in [format!("{id}-1"), format!("{stranger}-3"), format!("{stranger}-4.new")] {
        std::fs::create_dir_all(data.path.join("local").join(left).join("src")).unwrap();
    }
    let world = World::open(data, Wishes::default()).await;
    world.released(&id).await;
    world.released(&stranger).await;
    assert_eq!(world.row(&id).await.status, BuildStatus::Success);
}

#[tokio::test]
async fn a_build_whose_stored_progress_is_damaged_ends_and_takes_no_other_with_it() {
    let world = World::asleep(Arc::new(Data::new()), Wishes::default()).await;
    let damaged = world.start(&world.service_of(COUNTING).await).await;
    let whole = world.start(&world.service_of(COUNTING).await).await;
    let file = SqliteConnectOptions::new().filename(world.data.path.join("kiops.db"));
    let mut database = file.connect().await.unwrap();
    sqlx::query("UPDATE build_progress SET chain_hash = 'no hash' WHERE build_id = $1")
        .bind(damaged.as_str())
        .execute(&mut database)
        .await
        .unwrap();
    world.builds.spawn();
    let row = world.over(&damaged).await;
    assert_eq!((row.status, row.failure_code.as_deref()), (BuildStatus::Failure, Some("unreadable")));
    assert_eq!((row.log_verified, row.diagnosis.unwrap().group.as_str()), (Some(false), "infrastructure"));
    world.released(&damaged).await;
    assert_eq!(world.over(&whole).await.status, BuildStatus::Success);
    assert_whole(&world, &whole).await;
}
