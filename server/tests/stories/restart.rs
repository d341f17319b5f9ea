//! What dies comes back: servers, agents, daemons.

use super::{Place, Victim};
use crate::builds_rig::*;
use kiops_app::backend::Builds as _;
use kiops_app::model::*;
use rustix::process::Signal;
use std::time::{Duration, Instant};

const SLOW: &str = "FROM alpine:3\nCOPY . /\nRUN echo begun; sleep 600\n";

async fn is_whole(world: &World, id: &BuildId, attempt: u32) {
    let row = world.over(id).await;
    let end = (row.status, row.attempt, row.log_verified);
    assert_eq!(end, (BuildStatus::Success, attempt, Some(true)), "{}", world.log(id).await);
    assert_eq!(world.counted(id, attempt).await, all_lines());
    world.assert_whole(id).await;
    world.released(id).await;
}

pub async fn a_server_that_restarts_in_mid_build_goes_on_without_a_hole(place: &impl Place) {
    let mut world = place.world().await;
    let id = world.begun(COUNTING).await;
    for _ in 0..3 {
        let data = world.close().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        world = place.world_on(data, Wishes::default()).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    is_whole(&world, &id, 1).await;
}

pub async fn a_build_that_ended_while_nobody_looked_is_taken_up(place: &impl Place) {
    let world = place.world().await;
    let id = world.begun(COUNTING).await;
    let row = world.row(&id).await;
    let image = row.snapshot.registry.reference(&image_tag(&row.branch, row.number, &row.commit, None));
    let data = world.close().await;
    // Its agent ends, and holds its spool.
    let (repository, tag) = image.split_once('/').unwrap().1.rsplit_once(':').unwrap();
    let since = Instant::now();
    // In the moment in which it is written a registry may have no good answer.
    while !matches!(hosts().await.registry.manifest(repository, tag).await, Ok(Some(_))) {
        assert!(since.elapsed() < PATIENCE, "{image} never comes");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    is_whole(&place.world_on(data, Wishes::default()).await, &id, 1).await;
}

pub async fn a_cancel_request_outlives_the_server(place: &impl Place) {
    let world = place.world().await;
    let service = world.service_of(SLOW).await;
    let (running, waiting) = (world.start(&service).await, world.start(&service).await);
    world.until_log(&running, " begun\n").await;
    let world = place.asleep_on(world.close().await).await;
    world.builds.cancel(&world.caller, &running).await.unwrap();
    world.builds.cancel(&world.caller, &waiting).await.unwrap();
    let world = place.world_on(world.close().await, Wishes::default()).await;
    let row = world.over(&running).await;
    assert_eq!((row.status, row.attempt), (BuildStatus::Cancelled, 1));
    assert_eq!(world.row(&waiting).await.status, BuildStatus::Cancelled);
    world.released(&running).await;
}

pub async fn a_killed_agent_is_tried_once_more(place: &impl Place) {
    dies(place, Victim::Agent).await;
}

pub async fn a_killed_daemon_is_tried_once_more_and_visibly(place: &impl Place) {
    dies(place, Victim::Daemon).await;
}

async fn dies(place: &impl Place, victim: Victim) {
    let world = place.world().await;
    let id = world.begun(COUNTING).await;
    kill(place.process(&world, &id, victim).await, Signal::KILL);
    is_whole(&world, &id, 2).await;
    assert!(world.notes(&id).await.contains(&"retried".to_owned()));
}
