//! The stories. A cluster's node needs root, and `make test` leaves this module out for an ordinary user.

mod authorities;
mod everywhere;
mod faults;
mod install;
mod kills;

use crate::builds_rig::*;
use crate::check_needs_root::check;
use crate::rig::*;
use crate::stories::Place as _;
use futures::FutureExt;
use kiops_app::backend::Builds as _;
use kiops_app::model::*;
use kiops_events::{EventKind, Marker};
use kiops_rig::{Image, Part};
use kiops_server::runner::kubernetes::{Isolation, KubernetesConfig, StateStorage};
use kiops_server::store::BuildRow;
use serde_json::json;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// What is waited for while a part of the cluster is away: shorter than what a story waits for by itself.
const LOST_LIMIT: Duration = Duration::from_secs(60);

/// Cancels a build, which is over at once wherever it stood.
async fn cancelled_at_once(world: &World, id: &BuildId) -> BuildRow {
    let since = Instant::now();
    world.builds.cancel(&world.caller, id).await.unwrap();
    let row = world.over(id).await;
    assert_eq!(row.status, BuildStatus::Cancelled, "{}", world.log(id).await);
    // Told from a Pod that had to be killed after its time to end.
    assert!(since.elapsed() < Duration::from_secs(25), "{:?}", since.elapsed());
    row
}

#[tokio::test]
async fn a_click_becomes_an_image_and_nothing_is_left() {
    let _turn = together().await;
    let world = world().await;
    let service = world.service_of("FROM alpine:3\nRUN echo hello from a Pod; id -u\nCOPY . /app\n").await;
    let id = world.start(&service).await;
    let row = world.over(&id).await;
    assert_eq!(row.status, BuildStatus::Success, "{}\n{}", world.log(&id).await, describe(&row).await);
    assert_eq!((row.attempt, row.log_verified), (1, Some(true)));

    let detail = world.detail(&id).await;
    let image = detail.head.image_tag.clone().unwrap();
    let (repository, tag) = image.split_once('/').unwrap().1.rsplit_once(':').unwrap();
    let manifest = world.hosts.registry.manifest(repository, tag).await.unwrap().unwrap();
    assert_eq!(detail.head.digest.as_deref(), Some(manifest.digest.as_str()));
    let log = world.log(&id).await;
    assert!(log.lines().any(|line| line.starts_with('#') && line.ends_with(" hello from a Pod")), "{log}");
    assert!(detail.steps.iter().any(|step| step.name.contains("RUN echo hello") && step.marker == Marker::Done));
    nothing_left(&world).await;

    // The same again, on a new Pod that has nothing but the registry's cache.
    let again = world.start(&service).await;
    let row = world.over(&again).await;
    assert_eq!(row.status, BuildStatus::Success, "{}", world.log(&again).await);
    let detail = world.detail(&again).await;
    let run = detail.steps.iter().find(|step| step.name.contains("RUN echo hello")).unwrap();
    assert_eq!(run.marker, Marker::Cached, "{:#?}", detail.steps);
}

/// The container that builds is the node's root then, and the others are who they always are.
#[tokio::test]
async fn a_privileged_build_becomes_an_image_and_its_death_is_noticed() {
    const BUILDER: &str = "rig.invalid/root-builder:1";
    let _turn = together().await;
    let cluster = &pods().await.cluster;
    cluster.load(&Image::root_builder(BUILDER).unwrap()).await.unwrap();
    let privileged = |config: &mut KubernetesConfig| {
        config.isolation = Isolation::Privileged;
        config.builder_image = BUILDER.into();
    };
    let world = open(Arc::new(Data::new()), privileged).await;
    let service = world.service_of("FROM alpine:3\nRUN cat /proc/self/uid_map\nCOPY . /app\n").await;
    let id = world.start(&service).await;
    let row = world.over(&id).await;
    let log = world.log(&id).await;
    assert_eq!(row.status, BuildStatus::Success, "{log}\n{}", describe(&row).await);
    assert_eq!((row.attempt, row.log_verified), (1, Some(true)));
    // The node's own users.
    let map = log.lines().find(|line| line.contains(" 4294967295")).unwrap_or_else(|| panic!("{log}"));
    assert_eq!(map.split_whitespace().rev().take(3).collect::<Vec<_>>(), ["4294967295", "0", "0"]);
    let found = check(&pods().await.kubeconfig, &config_with("check-root", privileged).await, vec![]).await;
    found.is("isolation", CheckOutcome::Warning, "isolation_privileged");
    nothing_left(&world).await;

    let id = world.begun("FROM alpine:3\nRUN echo begun; sleep 15\n").await;
    let name = pod_name(&world.row(&id).await);
    let process = cluster.first_process(NAMESPACE, &name, "build").await.unwrap();
    kill(process as i32, rustix::process::Signal::KILL);
    let row = world.over(&id).await;
    assert_eq!((row.status, row.attempt), (BuildStatus::Success, 2), "{}", world.log(&id).await);
    nothing_left(&world).await;
}

#[tokio::test]
async fn a_cancelled_build_is_over_in_seconds_and_its_pod_goes() {
    let _turn = together().await;
    let world = world().await;
    let id = world.begun("FROM alpine:3\nRUN echo begun; sleep 600\n").await;
    let row = cancelled_at_once(&world, &id).await;
    assert_eq!(row.log_verified, Some(true), "{}", world.log(&id).await);
    assert!(world.log(&id).await.contains(" begun\n"));
    nothing_left(&world).await;
}

/// Its log ends where the server last heard of it, and says so; the registry says what came of it.
#[tokio::test]
async fn a_server_that_is_away_for_longer_than_its_relay_waits_says_what_is_missing() {
    let _turn = together().await;
    let data = Arc::new(Data::new());
    let hold = Wishes { hold: Duration::from_secs(1), ..Wishes::default() };
    let world = InPods.world_on(data, hold).await;
    let id = world.begun("FROM alpine:3\nRUN echo begun; sleep 6; echo un''heard\n").await;
    let name = pod_name(&world.row(&id).await);
    let data = world.close().await;
    let over = ["-n", NAMESPACE, "wait", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=120s", "pod", &name];
    pods().await.cluster.kubectl(&over).await.unwrap();
    let world = open(data, |_| ()).await;
    let row = world.over(&id).await;
    let log = world.log(&id).await;
    assert_eq!((row.status, row.attempt, row.log_verified), (BuildStatus::Success, 1, Some(false)), "{log}");
    assert!(row.digest.is_some() && log.contains(" begun\n") && !log.contains(" unheard\n"), "{log}");
    assert!(world.notes(&id).await.contains(&"incomplete_from_here".to_owned()));
    nothing_left(&world).await;
}

/// The disk is the node's: nobody else is to free there what this build takes.
#[tokio::test]
async fn what_a_build_uses_is_measured_where_it_runs() {
    let _turn = alone().await;
    let world = world().await;
    // A file that lies there as long as the work takes, and is nothing to export afterwards.
    let busy = "head -c 512m /dev/zero >/filled; timeout 5 sh -c 'while :; do :; done' || true; rm /filled";
    let id = world.start(&world.service_of(&format!("FROM alpine:3\nRUN {busy}\n")).await).await;
    assert_eq!(world.over(&id).await.status, BuildStatus::Success, "{}", world.log(&id).await);
    let usage = |event: &EventKind| match *event {
        EventKind::Usage { cpu_millicores, anon_bytes, disk_bytes, .. } => {
            Some((cpu_millicores, anon_bytes, disk_bytes))
        }
        _ => None,
    };
    let used: Vec<_> = world.events(&id).await.iter().filter_map(|e| usage(&e.3)).collect();
    assert!(used.iter().any(|u| u.0 > 250), "{used:?}");
    assert!(used.iter().any(|u| u.1 > 1 << 20), "{used:?}");
    // Not all of it: what an earlier story left may go meanwhile.
    assert!(used.iter().any(|u| u.2 > 128 << 20), "{used:?}");
    nothing_left(&world).await;
}

#[tokio::test]
async fn steps_have_the_servers_proxies_and_who_sees_the_pod_sees_no_password() {
    let _turn = together().await;
    let world = open(Arc::new(Data::new()), |config| {
        let proxies = [
            ("HTTP_PROXY", "http://proxy.invalid:3128"),
            ("HTTPS_PROXY", "http://ci:word-of-the-proxy@proxy.invalid:3128"),
            ("NO_PROXY", "*"),
        ];
        config.proxies = proxies.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    })
    .await;
    let asked = "FROM alpine:3\nRUN echo \"by <$HTTP_PROXY> and <$HTTPS_PROXY> but $NO_PROXY\"; echo begun; sleep 15\n";
    let id = world.begun(asked).await;
    let name = pod_name(&world.row(&id).await);
    let pod = pods().await.cluster.kubectl(&["-n", NAMESPACE, "get", "pod", &name, "-o", "json"]).await.unwrap();
    assert!(pod.contains("proxy.HTTPS_PROXY") && !pod.contains("word-of-the-proxy"), "{pod}");
    let row = world.over(&id).await;
    let log = world.log(&id).await;
    assert_eq!(row.status, BuildStatus::Success, "{log}");
    // One with a password would stand in an argument list.
    assert!(log.contains("by <http://proxy.invalid:3128> and <> but *"), "{log}");
    nothing_left(&world).await;
}

#[tokio::test]
async fn parts_of_the_cluster_come_back_in_mid_build_and_nothing_is_lost() {
    let _turn = alone().await;
    let world = world().await;
    let cluster = &pods().await.cluster;
    let repo = world.hosts.repo(COUNTING).await;
    let settings = BuildSettings { profile: Profile::Small, ..BuildSettings::default() };
    let service = world.service_with(&repo, settings, world.registry_config(), Credentials::default()).await;
    for part in [Part::ApiServer, Part::Kubelet, Part::Containerd] {
        // What is not in the cache is built.
        repo.commit("main", &[("stamp", format!("{part:?}").as_bytes())], "New").await.unwrap();
        let id = world.start(&service).await;
        world.until_log(&id, " line 5\n").await;
        cluster.stop(part).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        cluster.start_again(part).await.unwrap();
        let row = world.over(&id).await;
        let end = (row.status, row.attempt, row.log_verified);
        assert_eq!(end, (BuildStatus::Success, 1, Some(true)), "{part:?}: {}", world.log(&id).await);
        assert_eq!(world.counted(&id, 1).await, all_lines(), "{part:?}");
        nothing_left(&world).await;
    }
}

#[tokio::test]
async fn a_pod_that_somebody_deletes_is_tried_again_once_and_said_so() {
    let _turn = together().await;
    let world = world().await;
    let id = world.begun("FROM alpine:3\nRUN echo begun; sleep 15\n").await;
    let name = pod_name(&world.row(&id).await);
    let cluster = &pods().await.cluster;
    cluster.kubectl(&["-n", NAMESPACE, "delete", "pod", &name, "--wait=false"]).await.unwrap();
    let row = world.over(&id).await;
    assert_eq!((row.status, row.attempt), (BuildStatus::Success, 2), "{}", world.log(&id).await);
    let notes = world.notes(&id).await;
    assert!(notes.iter().any(|n| n == "pod_deleted") && notes.iter().any(|n| n == "retried"), "{notes:?}");
    nothing_left(&world).await;
}

#[tokio::test]
async fn a_killed_agent_has_its_log_and_a_second_attempt() {
    let _turn = together().await;
    let world = world().await;
    let id = world.begun("FROM alpine:3\nRUN echo begun; sleep 15\n").await;
    let name = pod_name(&world.row(&id).await);
    let process = pods().await.cluster.first_process(NAMESPACE, &name, "build").await.unwrap();
    kill(process as i32, rustix::process::Signal::KILL);
    let row = world.over(&id).await;
    assert_eq!((row.status, row.attempt), (BuildStatus::Success, 2), "{}", world.log(&id).await);
    // What the first one wrote is there to its last event, and the relay's word on it.
    let first: Vec<_> = world.events(&id).await.into_iter().filter(|e| e.1 == 1 && e.2 > 0).collect();
    assert!(matches!(first.last().unwrap().3, EventKind::Result(_)), "{:?}", first.last());
    nothing_left(&world).await;
}

#[tokio::test]
async fn a_step_that_takes_more_than_its_profile_has_is_out_of_memory() {
    let _turn = together().await;
    let world = world().await;
    // One that has no end.
    let service = world.service_of("FROM alpine:3\nRUN echo begun; tail /dev/zero\n").await;
    let id = world.start(&service).await;
    let row = world.over(&id).await;
    let code = row.failure_code.as_deref();
    assert_eq!((row.status, code, row.attempt), (BuildStatus::Failure, Some("oom"), 1), "{}", world.log(&id).await);
    assert_eq!(row.log_verified, Some(true));
    nothing_left(&world).await;
}

/// Nobody chose a size, and the last build took little.
#[tokio::test]
async fn a_build_that_outgrows_what_auto_gave_it_is_built_with_the_next_size() {
    let _turn = together().await;
    let world = world().await;
    let repo = world.hosts.repo("FROM alpine:3\nRUN echo little\n").await;
    let settings = BuildSettings { profile: Profile::Auto, ..BuildSettings::default() };
    let service = world.service_with(&repo, settings, world.registry_config(), Credentials::default()).await;
    let id = world.start(&service).await;
    let row = world.over(&id).await;
    assert_eq!(row.status, BuildStatus::Success, "{}\n{}", world.log(&id).await, describe(&row).await);
    assert_eq!(row.snapshot.resolved_profile, Profile::Medium);

    // One block, held whole: more than the small size has, less than the medium one.
    let hungry = b"FROM alpine:3\nRUN dd if=/dev/zero of=/dev/null bs=2300M count=1\n";
    repo.commit("main", &[("Dockerfile", hungry)], "More").await.unwrap();
    let id = world.start(&service).await;
    let row = world.over(&id).await;
    let notes = world.notes(&id).await;
    assert_eq!((row.status, row.attempt), (BuildStatus::Success, 2), "{notes:?}\n{}", world.log(&id).await);
    assert_eq!(row.snapshot.resolved_profile, Profile::Medium);
    assert!(
        notes.contains(&"profile_measured".to_owned()) && notes.contains(&"profile_larger".to_owned()),
        "{notes:?}"
    );
    nothing_left(&world).await;

    // What was too small is not tried again.
    let id = world.start(&service).await;
    let row = world.over(&id).await;
    assert_eq!((row.status, row.attempt), (BuildStatus::Success, 1), "{}", world.log(&id).await);
    assert_eq!(row.snapshot.resolved_profile, Profile::Medium);
}

#[tokio::test]
async fn a_server_without_rights_says_what_it_lacks_and_tries_nothing_twice() {
    let _turn = together().await;
    // Its account has rights in one namespace only.
    let elsewhere = open(Arc::new(Data::new()), |config| config.namespace = "default".into()).await;
    let stranger = pods().await.cluster.kubeconfig_for("no-token-of-anybody", "stranger.kubeconfig").unwrap();
    let stranger = open_as(Arc::new(Data::new()), &stranger, |_| ()).await;
    for (world, wanted) in [(elsewhere, "cluster_rights"), (stranger, "cluster_login")] {
        let service = world.service_of("FROM alpine:3\n").await;
        let id = world.start(&service).await;
        let row = world.over(&id).await;
        let code = row.failure_code.as_deref();
        assert_eq!(
            (row.status, code, row.attempt),
            (BuildStatus::Failure, Some(wanted), 1),
            "{}",
            world.log(&id).await
        );
        assert_eq!(world.detail(&id).await.diagnosis.unwrap().group, "infrastructure");
    }
}

#[tokio::test]
async fn what_keeps_a_pod_from_starting_is_told_apart() {
    let _turn = together().await;
    let short = Duration::from_secs(2);
    let image = open(Arc::new(Data::new()), |config| {
        config.builder_image = "rig.invalid/absent:1".into();
        config.patience.image = short;
    });
    let capacity = open(Arc::new(Data::new()), |config| config.patience.capacity = short);
    let (image, capacity) = tokio::join!(image, capacity);

    let service = image.service_of("FROM alpine:3\n").await;
    let id = image.start(&service).await;
    let row = image.over(&id).await;
    assert_eq!((row.status, row.failure_code.as_deref()), (BuildStatus::Failure, Some("image_pull")));
    assert_eq!(row.attempt, 1, "a person must change it");
    let diagnosis = image.detail(&id).await.diagnosis.unwrap();
    assert_eq!(diagnosis.arguments["image"], "rig.invalid/absent:1");
    nothing_left(&image).await;

    let service = service_in(&capacity, "FROM alpine:3\n", Profile::FourXLarge).await;
    let id = capacity.start(&service).await;
    let row = capacity.over(&id).await;
    assert_eq!((row.status, row.failure_code.as_deref()), (BuildStatus::Failure, Some("waiting_for_capacity")));
    let diagnosis = capacity.detail(&id).await.diagnosis.unwrap();
    assert!(diagnosis.arguments["message"].contains("Insufficient"), "{:?}", diagnosis.arguments);
    nothing_left(&capacity).await;
}

#[tokio::test]
async fn a_build_that_waits_for_capacity_is_cancelled_at_once() {
    let _turn = together().await;
    let world = world().await;
    let service = service_in(&world, "FROM alpine:3\n", Profile::FourXLarge).await;
    let id = world.start(&service).await;
    world.until_log(&id, "waiting_for_capacity").await;
    cancelled_at_once(&world, &id).await;
    nothing_left(&world).await;
}

#[tokio::test]
async fn a_build_whose_image_does_not_come_is_cancelled_at_once() {
    let _turn = together().await;
    let world = open(Arc::new(Data::new()), |config| config.builder_image = "rig.invalid/absent:1".into()).await;
    let id = world.start(&world.service_of("FROM alpine:3\n").await).await;
    world.until_log(&id, "image_pull").await;
    cancelled_at_once(&world, &id).await;
    nothing_left(&world).await;
}

#[tokio::test]
async fn a_build_on_a_node_that_has_died_is_cancelled_at_once_and_its_pod_goes_later() {
    let _turn = alone().await;
    let world = world().await;
    let id = world.begun("FROM alpine:3\nRUN echo begun; sleep 600\n").await;
    let cluster = &pods().await.cluster;
    cluster.stop(Part::Kubelet).await;
    let told = timeout(LOST_LIMIT, world.until_log(&id, "--- relay_away")).await;
    let cancelled = AssertUnwindSafe(cancelled_at_once(&world, &id)).catch_unwind().await;
    // Whatever was found: others need it.
    cluster.start_again(Part::Kubelet).await.unwrap();
    cancelled.unwrap();
    assert!(told.is_ok(), "{}", world.log(&id).await);
    assert!(world.log(&id).await.contains(" begun\n"));
    nothing_left(&world).await;
}

/// As one that the cluster takes off a node which does not answer.
#[tokio::test]
async fn a_pod_that_should_be_gone_and_is_not_is_given_up_and_tried_again() {
    let _turn = alone().await;
    let world = open(Arc::new(Data::new()), |config| config.patience.starting = Duration::from_secs(3)).await;
    // Its container goes on, and must not have pushed by then.
    let id = world.begun("FROM alpine:3\nRUN echo begun; sleep 20\n").await;
    let name = pod_name(&world.row(&id).await);
    let cluster = &pods().await.cluster;
    cluster.stop(Part::Kubelet).await;
    let delete = ["-n", NAMESPACE, "delete", "pod", &name, "--grace-period=1", "--wait=false"];
    cluster.kubectl(&delete).await.unwrap();
    let again = timeout(LOST_LIMIT, world.until(&id, "taken up again", |row| row.attempt == 2)).await;
    cluster.start_again(Part::Kubelet).await.unwrap();
    assert!(again.is_ok(), "{}", world.log(&id).await);
    let row = world.over(&id).await;
    assert_eq!((row.status, row.attempt), (BuildStatus::Success, 2), "{}", world.log(&id).await);
    let notes = world.notes(&id).await;
    assert!(notes.iter().any(|n| n == "node_lost") && notes.iter().any(|n| n == "retried"), "{notes:?}");
    nothing_left(&world).await;
}

#[tokio::test]
async fn what_an_earlier_server_left_of_builds_that_are_no_more_goes_when_the_next_one_starts() {
    let _turn = together().await;
    let data = Arc::new(Data::new());
    let installation = data.path.file_name().unwrap().to_str().unwrap().to_owned();
    let build = BuildId::from_random([7; ID_LETTERS]);
    let name = format!("{build}-1");
    let labels = json!({ "kiops.io/installation": installation, "kiops.io/build": build, "kiops.io/attempt": "1" });
    let metadata = json!({ "name": name, "namespace": NAMESPACE, "labels": labels });
    let cluster = &pods().await.cluster;
    cluster.apply(&json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata })).await.unwrap();
    let waits = json!({ "name": "waits", "image": pods().await.own_image, "command": ["sleep", "600"] });
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": { "containers": [waits] } });
    let made = cluster.apply(&pod).await.unwrap();
    assert!(made.contains("created"), "{made}");
    let world = open(data, |_| ()).await;
    nothing_left(&world).await;
}

#[tokio::test]
async fn two_installations_share_a_namespace_and_touch_only_their_own() {
    let _turn = together().await;
    let (one, other) = tokio::join!(world(), world());
    let service = one.service_of("FROM alpine:3\nRUN echo begun; sleep 600\n").await;
    let id = one.start(&service).await;
    one.until_log(&id, " begun\n").await;
    // A restart looks for what is left of earlier builds, and finds the other's Pod beside it.
    let data = other.close().await;
    let other = open(data, |_| ()).await;
    assert!(other.runner.list().await.unwrap().is_empty());
    let row = one.row(&id).await;
    other.runner.release(&row.id, row.attempt).await.unwrap();
    other.runner.cancel(&row.id, row.attempt).await.unwrap();
    let pod = object("pod", &pod_name(&row)).await;
    assert!(pod["metadata"]["deletionTimestamp"].is_null(), "another installation's Pod was touched");
    one.builds.cancel(&one.caller, &id).await.unwrap();
    one.over(&id).await;
    nothing_left(&one).await;
}

#[tokio::test]
async fn a_services_cache_mounts_are_there_in_its_next_build_and_nobody_elses() {
    let _turn = together().await;
    pods().await.cluster.storage("kept", 4).await.unwrap();
    let world = open(Arc::new(Data::new()), |config| {
        config.state = Some(StateStorage { class: Some("kept".into()), size: "1Gi".into() });
    })
    .await;
    let dockerfile = "FROM alpine:3\nCOPY stamp /\n\
         RUN --mount=type=cache,target=/c if [ -e /c/kept ]; then echo was there; else echo was not there; fi; touch /c/kept\n";
    let settings = BuildSettings { profile: Profile::Small, ..BuildSettings::default() };
    let repo = world.hosts.repo(dockerfile).await;
    repo.commit("main", &[("stamp", b"1")], "One").await.unwrap();
    let service = |repo| world.service_with(repo, settings.clone(), world.registry_config(), Credentials::default());
    let (one, other) = (service(&repo).await, service(&repo).await);
    let built = async |service: &ServiceId| {
        let id = world.start(service).await;
        let row = world.over(&id).await;
        assert_eq!(row.status, BuildStatus::Success, "{}\n{}", world.log(&id).await, describe(&row).await);
        world.log(&id).await
    };
    assert!(built(&one).await.contains(" was not there\n"));
    repo.commit("main", &[("stamp", b"2")], "Two").await.unwrap();
    let second = built(&one).await;
    assert!(second.contains(" was there\n"), "{second}");
    let foreign = built(&other).await;
    assert!(foreign.contains(" was not there\n"), "{foreign}");
    nothing_left(&world).await;
}
