//! Order, limits, pause, cancelling and time limits, with real builds that take a moment.

use super::Place;
use crate::builds_rig::*;
use kiops_app::backend::Builds as _;
use kiops_app::model::*;
use std::time::Duration;

const SLOW: &str = "FROM alpine:3\nRUN echo begun; sleep 600\n";
/// Long enough to be seen running.
const SHORT: &str = "FROM alpine:3\nCOPY . /\nRUN sleep 1\n";

pub async fn builds_run_in_order_one_a_service_and_as_many_as_may(place: &impl Place) {
    let world = place.world().await;
    let repo = world.hosts.repo(SHORT).await;
    let (a, b, c) = (world.service(&repo).await, world.service(&repo).await, world.service(&repo).await);
    world.store.set_queue_paused(true).await.unwrap();
    let mut ids = Vec::new();
    for service in [&a, &a, &b, &c] {
        ids.push(world.start(service).await);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    for (position, id) in (1u32..).zip(&ids) {
        let head = world.detail(id).await.head;
        assert_eq!((head.status, head.queue_position), (BuildStatus::Queued, Some(position)));
        assert_eq!(head.queue_reason.as_deref(), Some("paused"));
    }
    world.store.set_queue_paused(false).await.unwrap();
    world.builds.queue_changed();
    // The second of the first service waits for it, the second service's goes by.
    world.until(&ids[2], "running", |row| row.status != BuildStatus::Queued).await;
    let head = world.detail(&ids[1]).await.head;
    assert_eq!((head.queue_position, head.queue_reason.as_deref()), (Some(1), Some("service_busy")));
    let head = world.detail(&ids[3]).await.head;
    assert_eq!((head.queue_position, head.queue_reason.as_deref()), (Some(2), Some("limit")));
    let mut rows = Vec::new();
    for id in &ids {
        rows.push(world.over(id).await);
    }
    assert!(rows.iter().all(|row| row.status == BuildStatus::Success));
    let (start, end) = (|i: usize| rows[i].started_at.unwrap(), |i: usize| rows[i].finished_at.unwrap());
    assert!(start(0) <= start(2) && start(2) < end(0), "two of two places were used");
    assert!(start(1) >= end(0), "one build a service");
    assert!(start(3) >= end(0).min(end(2)), "two at once");
    for i in 0..4 {
        let at_once = (0..4).filter(|j| start(*j) <= start(i) && start(i) < end(*j)).count();
        assert!(at_once <= 2, "{at_once} at once");
    }
}

pub async fn a_waiting_build_is_cancelled_at_once_and_a_running_one_stops(place: &impl Place) {
    let world = place.world_with(Wishes { builds_at_once: 1, ..Wishes::default() }).await;
    let service = world.service_of(SLOW).await;
    let (running, waiting) = (world.start(&service).await, world.start(&service).await);
    world.until_log(&running, " begun\n").await;
    world.builds.cancel(&world.caller, &waiting).await.unwrap();
    let row = world.row(&waiting).await;
    assert_eq!((row.status, row.started_at), (BuildStatus::Cancelled, None));
    assert_eq!(world.notes(&waiting).await, ["queued", "cancelled"]);

    world.builds.cancel(&world.caller, &running).await.unwrap();
    let row = world.row(&running).await;
    assert!(row.cancel_requested_at.is_some());
    let row = world.over(&running).await;
    assert_eq!((row.status, row.attempt, row.log_verified), (BuildStatus::Cancelled, 1, Some(true)));
    assert_eq!((row.digest, row.failure_code), (None, None));
    assert!(row.finished_at.unwrap() - row.cancel_requested_at.unwrap() < 30_000);
    let detail = world.detail(&running).await;
    assert!(detail.steps.iter().all(|s| s.marker != kiops_events::Marker::Running), "{:#?}", detail.steps);
    assert_eq!(code(world.builds.cancel(&world.caller, &running).await), "build_is_over");
    world.released(&running).await;
}

pub async fn a_build_that_hangs_ends_at_its_time_limit(place: &impl Place) {
    let world = place.world().await;
    let repo = world.hosts.repo(SLOW).await;
    let settings = BuildSettings { time_limit_s: 5, ..world.settings() };
    let service = world.service_with(&repo, settings, world.registry_config(), Credentials::default()).await;
    let id = world.start(&service).await;
    let row = world.over(&id).await;
    assert_eq!((row.status, row.attempt, row.log_verified), (BuildStatus::Failure, 1, Some(true)));
    let diagnosis = row.diagnosis.unwrap();
    assert_eq!((diagnosis.group.as_str(), diagnosis.code.as_str()), ("timeout", "timeout"));
    assert_eq!(diagnosis.arguments["time_limit_s"], "5");
}

pub async fn the_same_click_twice_is_one_build(place: &impl Place) {
    let world = place.world().await;
    let service = world.service_of(SHORT).await;
    let click = StartBuild { request_key: Some("click-1".into()), ..on("main") };
    let first = world.builds.start(&world.caller, &service, click.clone()).await.unwrap();
    let second = world.builds.start(&world.caller, &service, click.clone()).await.unwrap();
    assert_eq!(first, second);
    world.over(&first.id).await;
    assert_eq!(world.builds.start(&world.caller, &service, click).await.unwrap(), first);
    let history = world.builds.history(&world.caller, &service, HistoryQuery::default()).await.unwrap();
    assert_eq!(history.builds.len(), 1);
    assert!(!history.has_older && !history.has_newer);
}

pub async fn what_cannot_be_built_is_refused_before_it_is_queued(place: &impl Place) {
    let world = place.world().await;
    let repo = world.hosts.repo(SHORT).await;
    let service = world.service(&repo).await;
    let start = |start| world.builds.start(&world.caller, &service, start);
    assert_eq!(code(start(on("-x")).await), "ref_form");
    assert_eq!(code(start(StartBuild { commit: Some("abc".into()), ..on("main") }).await), "commit_form");
    assert_eq!(code(start(StartBuild { request_key: Some("x".repeat(101)), ..on("main") }).await), "request_key_form");
    let incomplete = RegistryConfig { username: "u".into(), ..world.registry_config() };
    let other = world.service_with(&repo, world.settings(), incomplete, Credentials::default()).await;
    assert_eq!(code(world.builds.start(&world.caller, &other, on("main")).await), "registry_incomplete");
    // Somebody else's service is not there.
    let stranger = kiops_app::backend::Caller { org_id: OrgId::from_random([9; ID_LETTERS]), ..world.caller.clone() };
    assert_eq!(code(world.builds.start(&stranger, &service, on("main")).await), "not_found");
    let id = world.start(&service).await;
    assert_eq!(code(world.builds.get(&stranger, &id).await), "not_found");
    assert_eq!(code(world.builds.cancel(&stranger, &id).await), "not_found");
    assert_eq!(code(world.builds.rows(&stranger, &id, 0, 1).await), "not_found");
    assert_eq!(code(world.builds.snapshot(&stranger, &id).await), "not_found");
    assert!(world.builds.watch(&stranger, &id).await.is_err());
    assert!(world.builds.log_text(&stranger, &id).await.is_err());
    assert!(world.builds.events(&stranger, &id, 0).await.is_err());
    world.over(&id).await;

    let full = place.world_with(Wishes { min_free_bytes: u64::MAX, ..Wishes::default() }).await;
    let service = full.service(&repo).await;
    assert_eq!(code(full.builds.start(&full.caller, &service, on("main")).await), "disk_low");
}
