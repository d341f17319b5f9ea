//! What dies comes back, as only this machine can tell it: spools, states, folders, databases. Each build ends in the right
//! state with its whole log.

mod builds_rig;

use builds_rig::*;
use kiops_app::model::*;
use rustix::process::Signal;
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use std::sync::Arc;
use std::time::Duration;

const SLOW: &str = "FROM alpine:3\nCOPY . /\nRUN echo begun; sleep 600\n";

#[tokio::test]
async fn a_spool_whose_agent_has_given_up_waiting_is_served_again() {
    let world = World::with(Wishes { hold: Duration::from_secs(1), ..Wishes::default() }).await;
    // One that lasts long enough to be left in its midst.
    let service = world.service_of(&format!("FROM alpine:3\nRUN sleep 6; echo {}\n", world.hosts.name("new"))).await;
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
    world.assert_whole(&id).await;
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
    world.assert_whole(&id).await;
    world.released(&id).await;
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
    world.assert_whole(&whole).await;
}
